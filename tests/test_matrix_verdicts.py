"""What the matrix says: every answer of every verdict on small tables, each rule on both sides of its threshold."""

import re
import types

import numpy as np
import pandas as pd
import pytest

from models import protocols
from models.kind import UNDEFENDED_TEXT
from poisons import poison_set
from reports import choice, matrix, matrix_verdicts
from results import layout

NAN = float("nan")
IN_SHORT, BEATS, CLAIMS, RANKING, DIMENSION = range(5)
ADAPTIVE, WORST = ("slabs-own", "gradient-canceling", "model-targeted"), f"{matrix.WORST} 0.1"
COLUMNS = ["none", "label-flips 0.4", "slabs 0.4", "slabs-own 0.1", "gradient-canceling 0.1"]
PLACE = {"dataset": layout.SUBTASK, "network": "lr", "epochs": 40, "start": "scratch", "chosen": True}
WIDTH = 0.0248  # half of the 95% interval of three numbers that are 0.01 apart
APART = np.array([-0.01, 0, 0.01])
NINE = ["phuber:2", "gce:0.7", "linear", "auto-v", "cosine:0", "trim-loss:0.1", "drop-norm:0.02", "psac:1:0.01", "1:1"]


def flat(level, **changes) -> dict:
    """The finals of a shaping that comes to `level` in every column but those of the attacks in changes."""
    attacks = {name.replace("_", "-"): value for name, value in changes.items()}
    return {column: attacks.get(column.split(" ")[0], level) for column in COLUMNS}


def tables(finals: dict, prices=None, seeds=3) -> tuple:
    """Tables as `matrix.tables` makes them; finals: of each shaping and column, one for each seed, or one for all."""
    cells, rows = [], []
    finals = {text: with_worst(by_column, seeds) for text, by_column in finals.items()}
    for text, by_column in finals.items():
        alone, shaped = finals.get(UNDEFENDED_TEXT, {}), {**PLACE, "shaping": text, "kind": choice.kind_of(text)}
        mine = [cell(column, values, values - alone.get(column, NAN)) for column, values in by_column.items()]
        gains = [line["by_seed"] for line in mine if line["adaptive"] == "" and line["attack"] != poison_set.NONE]
        mean = np.mean(gains or [[NAN]], 0)
        told = {"oblivious_gain_mean": round(mean.mean(), 4), "oblivious_gain_ci95": matrix.interval(mean)}
        rows.append({**shaped, **told, "price": (prices or {}).get(text, NAN)})
        cells += [{**shaped, **line} for line in mine]
    return tuple(types.SimpleNamespace(frame=pd.DataFrame(lines)) for lines in (cells, rows))


def with_worst(by_column: dict, seeds: int) -> dict:
    """Arrays of the seeds, and in a column of its own the worst adaptive ones of ratio 0.1."""
    made = {column: np.broadcast_to(values, seeds).astype(float) for column, values in by_column.items()}
    aimed = [values for column, values in made.items() if column.startswith(ADAPTIVE) and column.endswith(" 0.1")]
    return {**made, WORST: min(aimed, key=lambda values: np.nan_to_num(values).mean())} if aimed else made


def cell(column: str, values: np.ndarray, gains: np.ndarray) -> dict:
    """What a cell has beside its place. Of backdoors finals are successes."""
    attack, ratio = column.rsplit(" ", 1) if " " in column else (column, 0)
    success = attack == "backdoor"
    gains = -gains if success else gains
    left = gains[~np.isnan(gains)]
    return {
        "column": column, "attack": attack, "ratio": float(ratio), "by_seed": gains, "diverged": np.isnan(values).sum(),
        "adaptive": "own" if attack.startswith((*ADAPTIVE, matrix.WORST)) else "",
        "measure": "success" if success else "accuracy", "final_mean": np.mean(values),
        "gain_mean": round(left.mean(), 4) if len(left) else NAN, "gain_ci95": matrix.interval(left),
        "finals": matrix.spelled(values), "seed_numbers": " ".join(str(seed + 1) for seed in range(len(values))),
    }  # fmt: skip


def change(made: tuple, text: str, column: str, **values) -> tuple:
    """Change a cell, or for the column "" a row."""
    frame = made[0 if column else 1].frame
    mine = frame.shaping == text
    frame.loc[mine & (frame.column == column) if column else mine, list(values)] = list(values.values())
    return made


def answer(number: int, finals: dict, **options) -> str:
    return matrix_verdicts.judge(*tables(finals, **options))[number]["answer"]


def evidence(number: int, made: tuple) -> str:
    return matrix_verdicts.judge(*made)[number]["evidence"]


# --- which one works ---


@pytest.mark.parametrize(
    ("phuber", "expected"),
    [
        (flat(0.8 + 0.0249 + APART), "phuber:2"),
        (flat(0.8 + 0.0249 + APART, slabs=0.8 + 0.0247 + APART), "none in every column"),  # 0 is in the interval
        (flat(0.9, slabs_own=0.8), "none in every column"),
        (flat(0.9, none=0.5), "phuber:2"),  # a price, no attack
        (flat(0.9, slabs=(0.9, NAN, 0.9)), "none in every column"),
        (flat(0.9, slabs=NAN), "none in every column"),
        ({column: 0.9 for column in COLUMNS if column != "slabs 0.4"}, "none in every column"),
    ],
)
def test_a_kind_works_if_it_gains_in_every_column(phuber, expected):
    finals = {"undefended": flat(0.8), "0.1": flat(0.7), "trusted:100": flat(0.95), "phuber:2": phuber}
    assert answer(IN_SHORT, finals) == expected


def test_all_that_work_are_named_but_those_with_trusted_rows_and_columns_that_repeat_others_do_not_count():
    finals = {"undefended": flat(0.8), "0.1": flat(0.81), "trusted:100": flat(0.95), "phuber:2": flat(0.9)}
    assert answer(IN_SHORT, finals) == "0.1, phuber:2"
    assert answer(IN_SHORT, finals, seeds=2) == "none in every column"  # no intervals
    made = change(tables(finals), "0.1", WORST, gain_mean=-0.5)
    assert matrix_verdicts.judge(*made)[IN_SHORT]["answer"] == "0.1, phuber:2"
    backdoors = {text: {**mine, "backdoor 0.1": 0.9} for text, mine in finals.items()}
    assert answer(IN_SHORT, {**backdoors, "phuber:2": {**finals["phuber:2"], "backdoor 0.1": 0.1}}) == "phuber:2"
    assert "in the mean of 2 poison sets" in evidence(IN_SHORT, tables(backdoors))  # those that cost accuracy
    diverged = {**finals, "0.1": flat(0.81, slabs=(0.9, 0.9, 0.9, NAN))}  # the others have an interval
    assert answer(IN_SHORT, diverged, seeds=4) == "phuber:2"


USUAL = {"undefended": flat(0.8), "0.1": flat(0.7, slabs=0.85), "phuber:2": flat(0.9, slabs=0.85), "1:1": flat(0.7)}
PRICES = {"undefended": 0.1, "0.1": 0.234, "phuber:2": 0.2}
FIRST = "Of 3 kinds of gradient shaping, each at the value that held-out clean rows choose, 1 gain over undefended"
BEST = "The best is `phuber:2` +7.5 ± 0.0 points, from +10.0 on label-flips 0.4 to +5.0 on slabs 0.4"
CLIP = "; clipping, the paper's: `0.1` \N{MINUS SIGN}2.5 ± 0.0 points, from +5.0 on slabs 0.4 to \N{MINUS SIGN}10.0 on"
KEPT = "training keeps an accuracy of 0.800, `0.1` 0.700, `phuber:2` 0.900; most keeps `phuber:2` with 0.900, least"
PAID = "takes 10 poisons for every hundred clean rows without a defence, 23 under `0.1`, 20 under `phuber:2`."


def usual(drop=(), prices=PRICES, changed=None, **values) -> tuple:
    """The tables of USUAL without some shapings, with other prices, or with one cell or row changed to these values."""
    made = tables({text: finals for text, finals in USUAL.items() if text not in drop}, prices)
    return change(made, *changed, **values) if changed else made


def test_the_paragraph_has_the_numbers_of_the_tables():
    found = evidence(IN_SHORT, usual())
    assert found.startswith(FIRST) and all(part in found for part in (BEST + CLIP, KEPT, PAID))
    assert "in the mean of 2 poison sets" in found and "least `0.1` with 0.700." in found


@pytest.mark.parametrize(
    ("options", "there", "gone"),
    [
        ({"drop": ["0.1"]}, [BEST, "0.800, `phuber:2` 0.900;", "defence, 20 under"], "clipping|`0.1`"),
        ({"drop": ["phuber:2", "1:1"]}, ["is clipping, the paper's: `0.1` ", "0.800, `0.1` 0.700;"], "; cl"),
        ({"changed": ("0.1", ""), "oblivious_gain_mean": NAN}, [BEST, KEPT, PAID], "clipping"),
        ({"changed": ("0.1", ""), "oblivious_gain_ci95": NAN}, [BEST, KEPT, PAID, "2.5 points,"], "2.5 ±"),
        ({"changed": ("0.1", WORST), "final_mean": NAN}, ["0.800, `phuber:2` 0.900;", PAID], "`0.1` 0.7"),
        ({"changed": ("0.1", WORST), "attack": "other"}, ["0.800, `phuber:2` 0.900;", PAID], "`0.1` 0.7"),
        ({"changed": ("phuber:2", WORST), "attack": "other"}, ["0.800, `0.1` 0.700;", PAID], "`phuber:2` 0.9"),
        ({"changed": ("undefended", WORST), "attack": "other"}, [BEST + CLIP, PAID], "Against"),
        ({"changed": ("undefended", WORST), "final_mean": NAN}, [BEST + CLIP, PAID], "Against"),
        ({"prices": {"0.1": 0.2}}, [KEPT, "takes 20 poisons for every hundred clean rows under `0.1`."], "defence"),
        ({"prices": {}}, [BEST + CLIP, KEPT], "poisons for every"),
    ],
)
def test_what_has_no_numbers_is_left_out_of_the_paragraph(options, there, gone):
    found = evidence(IN_SHORT, usual(**options))
    assert [part for part in there if part not in found] == [] and not re.search(f"nan|,,| ,|; ;|  |{gone}", found)
    assert found.endswith(".")


def only(*columns: str) -> dict:
    return {text: {column: finals[column] for column in columns} for text, finals in USUAL.items()}


def test_without_adaptive_columns_the_paragraph_has_none():
    oblivious = only(*COLUMNS[:3])
    found = evidence(IN_SHORT, tables(oblivious, PRICES))
    assert BEST in found and PAID in found and "Against" not in found
    assert answer(IN_SHORT, oblivious) == "phuber:2" and answer(RANKING, oblivious) == "not run"


def test_without_gains_over_oblivious_columns_nothing_is_in_short():
    for made in (usual(["undefended"]), usual(["0.1", "phuber:2", "1:1"]), tables(only("none", *COLUMNS[3:]))):
        assert matrix_verdicts.judge(*made)[IN_SHORT]["answer"] == "not run"


# --- places ---


@pytest.mark.parametrize(
    "place", [{"epochs": 5}, {"start": "retrain"}, {"network": "badnet"}, {"dataset": "other"}, {"chosen": False}]
)
def test_the_papers_trainings_alone_are_judged(place):
    assert protocols.protocol(layout.SUBTASK, "lr").epochs == PLACE["epochs"]
    usual, other = tables(USUAL, PRICES), tables({**USUAL, "phuber:2": flat(0.5), "gce:0.7": flat(0.5)}, PRICES)
    both = [pd.concat([mine.frame, its.frame.assign(**place)]) for mine, its in zip(usual, other)]
    both = tuple(types.SimpleNamespace(frame=frame) for frame in both)
    assert matrix_verdicts.judge(*both) == matrix_verdicts.judge(*usual)
    elsewhere = (types.SimpleNamespace(frame=table.frame.assign(**place)) for table in usual)
    assert [verdict["answer"] for verdict in matrix_verdicts.judge(*elsewhere)[:DIMENSION]] == ["not run"] * 4


# --- against clipping ---


@pytest.mark.parametrize(
    ("phuber", "expected", "never_worse"),
    [
        (flat(0.8 + 0.0249 + APART), "yes: phuber:2", "phuber:2"),
        (flat(0.9, slabs=0.8 + 0.0247 + APART), "no", "phuber:2"),
        (flat(0.9, slabs=0.8 - 0.0247 + APART), "no", "phuber:2"),
        (flat(0.9, slabs=0.8 - 0.0249 + APART), "no", "none"),
        (flat(0.8), "no", "none"),  # never better, either
        (flat(0.9, slabs=(0.9, NAN, 0.9)), "no", "none"),
        (flat(0.9, slabs_own=NAN), "no", "none"),
        (flat(0.9, none=0.5), "yes: phuber:2", "phuber:2"),
        ({column: 0.9 for column in COLUMNS if column != "slabs 0.4"}, "no", "none"),
    ],
)
def test_clipping_is_beaten_by_what_is_surely_above_it_in_every_column(phuber, expected, never_worse):
    finals = {"undefended": flat(0.8), "0.1": flat(0.8), "phuber:2": phuber, "gce:0.7": flat(0.7)}
    found = matrix_verdicts.judge(*tables(finals))[BEATS]
    assert (found["answer"], f"never worse: {never_worse};" in found["evidence"]) == (expected, True)
    assert found["evidence"].startswith("clip norm 0.1, 4 columns;")  # without the worst of them


def test_without_intervals_or_clipping_nothing_is_said_to_beat_it():
    finals = {"undefended": flat(0.8), "0.1": flat(0.8), "phuber:2": flat(0.9)}
    assert answer(BEATS, finals) == "yes: phuber:2" and answer(BEATS, finals, seeds=2) == "no"
    assert "never worse: none; above it in most: none" in evidence(BEATS, tables(finals, seeds=2))
    assert answer(BEATS, {**finals, "0.1": flat(0.8, slabs=NAN)}) == "no"
    del finals["0.1"]
    assert answer(BEATS, finals) == answer(BEATS, {"undefended": flat(0.8), "0.1": flat(0.8)}) == "not run"
    layers = {"undefended": flat(0.8), "0.1": flat(0.8), "clip-layers:0.1": flat(0.9)}
    assert answer(BEATS, layers) == "not run" and answer(BEATS, {**layers, "gce:0.7": flat(0.8)}) == "no"


def test_seeds_are_compared_with_themselves_and_fewer_successes_are_better():
    seeds = np.array([0.6, 0.7, 0.9])
    finals = {"undefended": flat(0.8), "0.1": flat(seeds), "phuber:2": flat(seeds + 0.01)}
    turned = tables({**finals, "phuber:2": flat(seeds[::-1] + 0.01)})
    answers = [matrix_verdicts.judge(*made)[BEATS]["answer"] for made in (tables(finals), turned)]
    assert answers == ["yes: phuber:2", "no"]
    turned[0].frame.loc[turned[0].frame.shaping == "phuber:2", "seed_numbers"] = "3 2 1"
    assert matrix_verdicts.judge(*turned)[BEATS]["answer"] == "yes: phuber:2"
    others = change(tables(finals), "phuber:2", "slabs 0.4", seed_numbers="3 4 5")
    assert matrix_verdicts.judge(*others)[BEATS]["answer"] == "no"  # one seed in common
    for successes, expected in ((0.1, "yes: phuber:2"), (0.9, "no")):
        attacked = {text: {**mine, "backdoor 0.1": 0.5} for text, mine in finals.items()}
        attacked["phuber:2"]["backdoor 0.1"] = successes
        assert answer(BEATS, attacked) == expected


# --- the paper's claims ---


def claims(flips: list, slabs: list, undefended: dict) -> str:
    """The answer for kinds with these gains; the paper's and clipping by layers are at 0.99 in every column."""
    finals = dict.fromkeys(("0.1", "1:1", "clip-layers:0.1"), flat(0.99))
    for text, *gain in zip(NINE, flips, slabs):
        levels = (np.add(undefended[column], mine) for column, mine in zip(COLUMNS[1:3], gain))
        finals[text] = {**flat(0.9), **dict(zip(COLUMNS[1:3], levels))}
    return answer(CLAIMS, {"undefended": undefended, **finals})


@pytest.mark.parametrize(
    ("flips", "slabs", "expected"),
    [
        ([0.1, 0.1, 0.1, 0], [0.1, 0, 0, 0], "(c) and (f)"), ([0.1, 0.1, 0, 0], [0.1, 0, 0, 0], "(f)"),
        ([0.1, 0.1, 0.1, 0], [0.1, 0.1, 0, 0], "(c)"), ([0.1, 0.1, 0, 0], [0.1, 0.1, 0, 0], "neither"),
        ([0.1, 0.1, 0.0249 + APART, 0], [0.1, 0.1, 0, 0.0247 + APART], "(c)"),
        ([0.1, 0.1, 0.0247 + APART, 0], [0.1, 0, 0, 0.0247 + APART], "(f)"),
        ([0.1, 0.1, 0, 0], [0.1, 0, 0, 0.0249 + APART], "neither"),
        ([0.1, 0.1, (0.1, 0.1, NAN), 0], [0.1, 0.1, 0, 0], "neither"),  # what diverged is not helped
        ([0.1, 0.1, NAN, NAN], [0.1, (0.1, 0.1, NAN), NAN, 0], "(f)"),
        ([0.1] * 5 + [0] * 2, [0] * 5 + [0.1] * 2, "neither"),
    ],
)  # fmt: skip
def test_a_claim_extends_if_it_holds_for_three_of_four_kinds(flips, slabs, expected):
    assert claims(flips, slabs, flat(0.9, label_flips=0.8, slabs=0.7)) == expected


def test_slabs_defeat_nobody_where_they_do_not_harm_an_undefended_training():
    defeated = [0, 0, 0, 0]
    assert claims(defeated, defeated, flat(0.9, slabs=0.9 - 0.0249 + APART)) == "(f)"
    for harmless in (flat(0.9), flat(0.9, slabs=0.9 - 0.0247 + APART), flat(0.8, slabs=0.9)):
        assert claims(defeated, defeated, harmless) == "neither"
        assert claims([0.1] * 4, defeated, harmless) == "(c)"
    alone = {text: {"none": 0.9, "slabs 0.4": 0.9} for text in ("undefended", "phuber:2")}
    assert answer(CLAIMS, alone) == "cannot be told" and "says nothing" in evidence(CLAIMS, tables(alone))
    assert answer(CLAIMS, {**alone, "undefended": {"slabs 0.4": 0.5}}) == "cannot be told"  # no clean rows to lose to


def test_claims_need_intervals_and_kinds():
    finals = {"undefended": flat(0.9, slabs=0.7), "phuber:2": flat(0.95)}
    assert answer(CLAIMS, finals) == "(c)" and answer(CLAIMS, finals, seeds=2) == "not run"
    assert answer(CLAIMS, {"undefended": flat(0.9), "0.1": flat(0.95)}) == "not run"


# --- rankings ---


def ranked(oblivious, adaptive, kinds=NINE, **others: dict) -> tuple:
    """Tables of kinds that come to so many points over 0.8 against slabs, and over 0.7 against those made for them."""
    levels = zip(kinds, 0.8 + np.divide(oblivious, 100), 0.7 + np.divide(adaptive, 100))
    finals = {text: {**flat(0.9), "slabs 0.4": one, "slabs-own 0.1": two} for text, one, two in levels}
    return tables({"undefended": flat(0.75), **finals, **others})


@pytest.mark.parametrize(
    ("adaptive", "expected"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], "yes"), ([9, 8, 7, 6, 5, 4, 3, 2, 1], "no"),
        ([3, 1, 4, 2, 9, 5, 8, 6, 7], "yes"),  # 0.77, p 0.016
        ([5, 1, 4, 2, 9, 3, 8, 6, 7], "no"),  # 0.63, p 0.07
        ([3, 1, 4, 2, 9, 5, 8, 6, NAN], "no"),  # what diverged is last
        ([5] * 9, "cannot be told"), ([1, 2, 3, 4], "not run"), ([NAN] * 9, "cannot be told"),
    ],
)  # fmt: skip
def test_a_ranking_survives_if_it_correlates_with_that_under_adaptive_attackers(adaptive, expected):
    made = ranked(range(1, len(adaptive) + 1), adaptive)
    assert matrix_verdicts.judge(*made)[RANKING]["answer"] == expected


@pytest.mark.parametrize(("turned", "expected"), [(25, "yes"), (26, "no")])
def test_of_many_kinds_a_significant_correlation_is_not_enough(turned, expected):
    order = np.arange(40)
    adaptive, kinds = np.append(order[:turned][::-1], order[turned:]), [f"phuber:{2 + number}" for number in order]
    made = ranked(order / 10, adaptive / 10, kinds)
    found = matrix_verdicts.judge(*made)[RANKING]  # 0.51 and 0.45
    assert found["answer"] == expected and float(re.findall(r"\(p ([\d.e-]+)\)", found["evidence"])[0]) < 0.01


def test_clipping_by_layers_is_no_second_clipping_in_a_ranking():
    order = [1, 2, 3, 4]
    made = ranked(order, order, **{"clip-layers:0.1": flat(0.95)})
    assert evidence(RANKING, made) == "4 rows have both"
    made = ranked(order, order, **{"0.1": flat(0.95)})
    assert "over 5 kinds" in evidence(RANKING, made)
    made = change(ranked([*order, 5], [*order, 5]), NINE[4], "", oblivious_gain_mean=NAN)
    assert matrix_verdicts.judge(*made)[RANKING]["answer"] == "not run"


# --- dimension ---


def dimension(monkeypatch, path, **kinds: tuple) -> dict:
    """The verdict of cells; kinds: of each how many break where the bound holds, of how many, and where it does not."""
    lines = [
        {"kind": kind, "bound_holds": holds, "sum_holds": holds, "broken": number < broken}
        for kind, (inside, above, outside, below) in kinds.items()
        for holds, broken, count in ((True, inside, above), (False, outside, below)) for number in range(count)
    ]  # fmt: skip
    pd.DataFrame(lines).to_csv(path, index=False)
    monkeypatch.setattr(matrix_verdicts, "DIMENSIONS", path)
    return matrix_verdicts.dimension()


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ({"white": (9, 10, 1, 10)}, "yes"), ({"pca": (10, 10, 0, 10)}, "yes"),
        ({"white": (9, 10, 1, 10), "pca": (0, 10, 0, 10)}, "yes, on whitened features"),
        ({"white": (9, 10, 2, 10)}, "no: in 2 of 10 cells below the bound it breaks"),
        ({"white": (8, 10, 1, 10)}, "no: in 2 of 10 cells above the bound it does not break"),
        ({"white": (8, 10, 2, 10), "relu": (7, 10, 0, 10)},
         "no: in 5 of 20 cells above the bound it does not break"),
        ({"white": (8, 10, 5, 10), "pca": (7, 10, 0, 10)},
         "no: in 5 of 20 cells above the bound it does not break, and in 5 of 20 cells below the bound it breaks"),
        ({"white": (10, 10, 0, 0)}, "cannot be told"), ({"white": (0, 0, 0, 10)}, "cannot be told"),
        ({"white": (10, 10, 0, 0), "pca": (0, 0, 10, 10)}, "no: in 10 of 10 cells below the bound it breaks"),
    ],
)  # fmt: skip
def test_robust_means_break_where_the_bound_says_if_they_break_nowhere_else(monkeypatch, tmp_path, kinds, expected):
    found = dimension(monkeypatch, tmp_path / "dimension.csv", **kinds)
    assert found["answer"] == expected
    for kind, (inside, above, outside, below) in kinds.items():
        counts = f"broken {inside} of {above} where it holds, {outside} of {below} where it does not"
        assert f"{matrix_verdicts.FEATURES[kind]}, the bound (" in found["evidence"] and counts in found["evidence"]
    assert "random ReLU features, the bound (cannot be told)" in found["evidence"] or "relu" in kinds


def test_without_the_control_nothing_is_said_of_dimension(monkeypatch, tmp_path):
    monkeypatch.setattr(matrix_verdicts, "DIMENSIONS", tmp_path / "none.csv")
    assert matrix_verdicts.dimension()["answer"] == "not run"


# --- nothing but noise ---

MEASURED = {  # the undefended training's mean accuracy and its standard deviation over ten seeds
    "none": (0.9477, 0.003), "adversarial-flips 0.1": (0.8961, 0.04), "collision 1": (0.9489, 0.003),
    "label-flips 0.1": (0.9374, 0.009), "label-flips 0.4": (0.9032, 0.036), "minmax 0.3": (0.9156, 0.005),
    "slabs 0.1": (0.9055, 0.01), "slabs 0.4": (0.7697, 0.014), "gradient-canceling 0.1": (0.902, 0.005),
    "model-targeted 0.1": (0.88, 0.01), "slabs-own 0.1": (0.9065, 0.008), "slabs-own 0.4": (0.7665, 0.015),
}  # fmt: skip


def noise(random: np.random.Generator, measured: dict, gain: float = 0.0) -> list[str]:
    """The answers where every shaping is undefended training again, but for a gain, which clipping lacks."""
    finals = {
        text: {column: random.normal(*of_seeds, 10) + gain * (text in NINE) for column, of_seeds in measured.items()}
        for text in ("undefended", "0.1", *NINE)
    }
    return [verdict["answer"] for verdict in matrix_verdicts.judge(*tables(finals, seeds=10))]


def test_noise_is_no_finding(monkeypatch, tmp_path):
    """Of the measured size, in at least 95% of the draws; what does gain is found."""
    monkeypatch.setattr(matrix_verdicts, "DIMENSIONS", tmp_path / "none.csv")
    random, draws = np.random.default_rng(0), 200
    answers = list(zip(*(noise(random, MEASURED) for _ in range(draws))))
    assert np.mean([said == "none in every column" for said in answers[IN_SHORT]]) >= 0.95
    assert np.mean([said == "no" for said in answers[BEATS]]) >= 0.95
    assert np.mean(["(c)" not in said for said in answers[CLAIMS]]) >= 0.95
    assert np.mean([said == "no" for said in answers[RANKING]]) >= 0.95
    harmless = {"none": MEASURED["none"], "slabs 0.4": MEASURED["none"], "label-flips 0.4": MEASURED["label-flips 0.4"]}
    unharmed = [noise(random, harmless)[CLAIMS] for _ in range(draws)]
    assert np.mean([said == "neither" for said in unharmed]) >= 0.95
    gaining = noise(random, MEASURED, 0.1)
    assert gaining[:RANKING] == [", ".join(NINE), f"yes: {', '.join(NINE)}", "(c)"]


def test_breaks_anywhere_follow_no_bound(monkeypatch, tmp_path):
    random, answers = np.random.default_rng(0), []
    for _ in range(200):  # as many cells, and as often broken, as were measured
        counts = [(random.binomial(above, 0.58), above, random.binomial(below, 0.58), below)
                  for above, below in ((12, 60), (18, 72), (18, 18))]  # fmt: skip
        found = dimension(monkeypatch, tmp_path / "dimension.csv", **dict(zip(("white", "pca", "relu"), counts)))
        answers.append(found["answer"])
    assert np.mean([said.startswith("no: ") for said in answers]) >= 0.95
