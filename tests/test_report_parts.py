"""Parts of the report on small tables of their own, whose numbers one can count."""

from __future__ import annotations

import types

import numpy as np
import pandas as pd
import pytest

from poisons import attacks, shafahi
from reports import (
    VERDICTS,
    Table,
    certificates,
    claims,
    described,
    frames,
    gradients,
    identity,
    indiscriminate,
    matrix,
    matrix_page,
    nulls,
    reading,
    targeted,
    verdicts,
)
from results import cells, folded, layout
from results import described as kept
from results.folded import Result

NAN = float("nan")


def check(letter: str, kind: str, passed: bool | None) -> dict:
    return dict.fromkeys(claims.COLUMNS, "") | {"claim": letter, "kind": kind, "passed": passed}


@pytest.mark.parametrize(
    ("passed", "verdict", "evidence"),
    [
        ([None, None, None, None], "not run", "0 of 4 checks (4 not run)"),
        ([True, None, None, None], "reproduced", "1 of 4 checks (3 not run)"),
        ([True, False, None, None], "reproduced in part", "1 of 4 checks (2 not run)"),
        ([True, False, False, None], "not reproduced", "1 of 4 checks (1 not run)"),
        ([False, None, None, None], "not reproduced", "0 of 4 checks (3 not run)"),
        ([True, True, True, True], "reproduced", "4 of 4 checks"),
        ([True, True, False, False], "reproduced in part", "2 of 4 checks"),
    ],
)
def test_checks_that_were_not_run_do_not_count(passed, verdict, evidence, monkeypatch):
    line = pd.DataFrame([{"claim": "a", "kind": "", "table": "mine"}])
    made = [check("a", claims.PUBLISHED, one) for one in passed] + [check("a", "control", one) for one in passed[:1]]
    monkeypatch.setattr(claims, "lines", lambda: list(line.itertuples()))
    monkeypatch.setattr(claims, "checks_of", lambda *_: iter(made))
    first, *others = claims.judge({}, {})
    assert (first["letter"], first["verdict"], first["checks"]) == ("a", verdict, made)
    word = {None: "not run", True: "hold", False: "do not hold"}[passed[0]]
    counted = f"{int(passed[0] is True)} of 1 controls" + " (1 not run)" * (passed[0] is None)
    assert first["under_controls"] == word and first["evidence"] == f"{evidence}, {counted}"
    assert [claim["verdict"] for claim in others] == ["not run"] * 5


def test_a_seed_without_all_checks_has_no_verdict(monkeypatch):
    """Three seeds have all of claim c's checks, a fourth not: most of the three decide."""
    line = dict.fromkeys(["claim", "kind", "table"], "") | {"claim": "c", "kind": claims.PUBLISHED}
    others = [{**line, "table": "other"}, {**line, "table": "indiscriminate", "kind": "control"}]
    lines = pd.DataFrame(
        [{**line, "table": "indiscriminate"}, *others, {**line, "table": "indiscriminate", "claim": "a"}]
    )
    monkeypatch.setattr(claims, "lines", lambda: list(lines.itertuples()))
    passed = {1: [True, True], 2: [False, False], 3: [False, False], 4: [True, None], None: [True]}

    def checks_of(line, table):
        mine = (line.claim, line.kind, line.table) == ("c", claims.PUBLISHED, "indiscriminate")
        return [check("c", claims.PUBLISHED, one if mine or table is None else True) for one in passed[table]]

    monkeypatch.setattr(claims, "checks_of", checks_of)
    third = claims.judge({}, {seed: seed for seed in (1, 2, 3, 4)})[2]
    assert third["by_seed"].seed.tolist() == [1, 2, 3] and third["by_seed"].checks.tolist() == [2, 2, 2]
    assert third["verdict"] == "not reproduced"  # though all checks of the first seed pass
    assert third["evidence"].endswith("3 seeds: 1 reproduced, 0 reproduced in part, 2 not reproduced")


def line_of(**more):
    line = {"claim": "c", "kind": claims.PUBLISHED, "check": "gains{alone}", "table": "indiscriminate", "against": "",
            "column": "final_acc", "published": "known", "passes": "final_acc > alone"}  # fmt: skip
    return types.SimpleNamespace(**{**line, "rows": "attack == 'flips' and shaping != 'undefended'", **more})


def sweep_of(finals: dict[str, float], **more) -> Table:
    """Rows of one attack, by shaping, and one of another attack."""
    norms = {"undefended": np.inf, **{text: float(text) for text in ("0.1", "1", "2", "4")}}
    rows = [{"attack": "flips", "shaping": text, "clip_norm": norms[text], "final_acc": value, "known": 10 * value}
            for text, value in finals.items()]  # fmt: skip
    rows.append({"attack": "slabs", "shaping": "1", "clip_norm": 1.0, "final_acc": 0.99, "known": 5.0})
    frame = pd.DataFrame(rows).assign(noise_multiplier=0.0, source="a.csv", **more)
    return Table("indiscriminate", list(frame), frame)


@pytest.mark.parametrize(
    ("finals", "passed", "measured"),
    [
        ({"0.1": 0.9, "1": 0.8, "4": 0.6}, True, "2 of 3 clip norms; 0.6 to 0.9"),
        ({"0.1": 0.9, "1": 0.6, "4": 0.6}, False, "1 of 3 clip norms; 0.6 to 0.9"),
        ({"0.1": 0.9, "1": 0.6}, False, "1 of 2 clip norms; 0.6 to 0.9"),  # half are not most
    ],
)
def test_a_check_of_a_sweep_is_on_most_of_the_papers_clip_norms(finals, passed, measured):
    table, line = sweep_of({"undefended": 0.7, **finals}), line_of(against="shaping == 'undefended'")
    (found,) = claims.checks_of(line, table)
    assert (found["check"], found["measured"], found["passed"]) == ("gains (0.7000)", measured, passed)
    assert found["published"] == f"{10 * min(finals.values()):g} to 9" and found["source"] == "a.csv"
    beside = sweep_of({"undefended": 0.7, **finals}, incomparable=[True] * 2 + [False] * (len(finals)))
    (found,) = claims.checks_of(line, beside)
    assert (found["measured"], found["passed"]) == (measured, passed)  # but what is published of them is not shown
    assert found["published"] == ("6" if len(finals) == 2 else f"6 to {10 * sorted(finals.values())[1]:g}").replace(
        "6 to 6", "6"
    )


def test_a_check_without_its_rows_is_not_run():
    line = line_of(against="shaping == 'undefended'")
    for table in (None, sweep_of({"1": 0.9}), sweep_of({"undefended": 0.7}), sweep_of({"undefended": NAN, "1": 0.9})):
        (found,) = claims.checks_of(line, table)
        assert (found["measured"], found["passed"]) == ("not run", None)


def test_data_sets_are_shown_side_by_side():
    lines = [{**dict.fromkeys(kept.COLUMNS, 1.0), "dataset": name, "network": "lr", "source": "a.csv"} for name in "ba"]
    (table,) = described.tables(types.SimpleNamespace(data=pd.DataFrame(lines)))
    assert table.columns == [*(name for name in kept.COLUMNS if name != "model_sha256"), "source"]
    assert table.name == "datasets" and table.frame.dataset.tolist() == ["a", "b"]
    assert described.tables(types.SimpleNamespace(data=pd.DataFrame(lines[:0], columns=kept.COLUMNS))) == []


def test_gradients_are_means_over_epochs_of_which_none_is_missing():
    lines = pd.DataFrame({"poison_norm": [4.0, 9.0, 1.0, 1.0], "clean_norm": [2.0, 3.0, 0.5, 1.0],
                          "cosine": [0.5, 0.1, 0.2, NAN]}, [0, 0, 1, 1])  # fmt: skip
    found = gradients.means(lines, lines.index)
    assert list(found) == list(gradients.MEANS) and found.loc[0].tolist() == pytest.approx([6.5, 2.5, 0.3])
    assert found.loc[1, list(gradients.MEANS)[:2]].tolist() == pytest.approx([1, 1.5])
    assert np.isnan(found.loc[1].iloc[2])  # of a norm of zero there is no cosine


# --- the sweep and the matrix ---


def test_the_sweep_is_that_of_the_paper():
    places = indiscriminate.planned()
    assert sorted(places.ratio.unique()) == [0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.2, 0.3, 0.4]
    assert places.shaping.nunique() == 1 + len(indiscriminate.CLIP_NORMS) * len(indiscriminate.NOISE_STDS)
    assert not places.duplicated().any() and len(places) == places.attack.nunique() * 9 * places.shaping.nunique()


def sweep_cells() -> pd.DataFrame:
    """Cells of the paper's sweep: undefended with four seeds, a clip norm with three of them, another with two."""
    finals = {"undefended": (0.8, 0.7, 0.6, 0.9), "1": (0.9, 0.9, 0.7), "4": (0.9, 0.8)}
    rows = [{"shaping": text, "seed": seed, "final_acc": value, "best_acc": value + 0.05, "epochs_acc": value,
             "clip_norm": np.inf if text == "undefended" else float(text)}
            for text, values in finals.items() for seed, value in enumerate(values, layout.SEED)]  # fmt: skip
    usual = {"attack": "label-flips", "ratio": 0.1, "noise_multiplier": 0.0, "diverged": False, "baseline_acc": 0.955,
             "source": "a.csv", "as_published": True, "at_rate": True, "default_set": True, "epochs": 40,
             "paper_epochs": 40, "dataset": layout.SUBTASK, "start": "scratch", "baseline": "kept"}  # fmt: skip
    return pd.DataFrame(rows).assign(**usual)


def test_what_was_run_with_three_seeds_has_its_gains_over_the_same_seeds():
    rows = indiscriminate.seeds_table(sweep_cells()).frame.set_index("shaping")
    assert rows.seeds.to_dict() == {"undefended": 4, "1": 3}
    assert rows.final_gain_mean["1"] == pytest.approx((0.1 + 0.2 + 0.1) / 3, abs=1e-4)
    assert np.isnan(rows.final_gain_mean["undefended"]) and rows.final_acc_mean["undefended"] == 0.75
    assert (rows.final_acc_min["1"], rows.final_acc_max["1"], rows.diverged["1"]) == (0.7, 0.9, 0)
    cells = sweep_cells()
    cells.loc[cells.index[4], "diverged"] = True  # of the clip norm, which is left with two
    assert indiscriminate.seeds_table(cells).frame.shaping.tolist() == ["undefended"]


def test_the_sweep_takes_what_was_trained_as_published():
    cells = sweep_cells()
    assert indiscriminate.of_protocol(cells).all()
    changes = [dict.fromkeys([name], False) for name in ("as_published", "at_rate", "default_set")]
    changes += [{"epochs": 20}, {"dataset": "d"}, {"start": "retrain"}, {"baseline": "own"}, {"attack": "insertion"}]
    for change in changes:
        assert not indiscriminate.of_protocol(cells.assign(**change)).any()


def test_a_failed_attack_is_held_against_the_strongest_that_knows_nothing():
    line = {"ratio": 0.1, "measure": "accuracy"}
    oblivious = [("flips 0.1", "flips", 0.8), ("slabs 0.1", "slabs", 0.6), ("collision 0.1", "collision", 0.1)]
    oblivious = pd.DataFrame([{**line, "column": column, "attack": attack, "final_mean": mean}
                              for column, attack, mean in oblivious]).set_index("column")  # fmt: skip
    adaptive = pd.DataFrame([{**line, "column": "own 0.1", "final_mean": 0.9}, {**line, "column": "canceling 0.1",
                             "final_mean": 0.7}]).set_index("column")  # fmt: skip
    told = ["failed as attacks at 0.1: canceling 0.1 leaves 0.700, slabs 0.1 0.600"]
    assert matrix.notes_of(oblivious, adaptive) == told
    assert matrix.notes_of(oblivious, adaptive.assign(ratio=0.4)) == []
    assert matrix.notes_of(oblivious, adaptive.assign(final_mean=0.6)) == []


def test_colours_and_axes_of_gains_are_alike_on_both_sides_of_zero():
    for places in (matrix_page.EDGES, matrix_page.TICKS):
        assert places == sorted(set(places)) == [-place for place in reversed(places)]


# --- certificates ---


def test_attacks_are_counted_over_seeds_and_the_worst_is_named():
    line = dict.fromkeys(certificates.ATTACKED, 1.0) | {"dataset": "d", "poisons": 10, "source": "a.csv", "bound": 2.0}
    rows = [(1, "flips", 0.8, 0.6, 1.0, 0.9, 0), (1, "push", 0.75, 0.6, 1.5, 0.9, 2),
            (2, "flips", 0.5, 0.4, 0.5, 0.7, 1), (2, "push", 0.9, 0.4, 1.0, 0.7, 0)]  # fmt: skip
    names = ["seed", "attack", "acc", "certified_acc", "moved", "clean_acc", "broken"]
    lines = pd.DataFrame([{**line, **dict(zip(names, row))} for row in rows])
    (found,) = certificates.attacked(lines.drop(columns=["seeds", "worst_attack", "proven"])).to_dict("records")
    shown = {name: found[name] for name in certificates.ATTACKED[certificates.ATTACKED.index("poisons") :]}
    assert shown == {
        "poisons": 10, "seeds": 2, "clean_acc": pytest.approx(0.8), "certified_acc": pytest.approx(0.5),
        "attacked_acc": 0.5, "worst_attack": "flips", "proven": pytest.approx((0.6 / 0.75 + 0.4 / 0.5) / 2),
        "moved_over_bound": 0.75, "furthest_attack": "push", "broken": 3, "source": "a.csv",
    }  # fmt: skip


# --- tables ---


def test_a_table_counts_its_verdicts_in_words():
    lines = pd.DataFrame(
        {"verdict": ["within", "diverged", "outside", "within", "not run"], "seeds": [3.0, NAN, 1, 2, 4]}
    )
    table = Table("mine", ["verdict", "seeds", "more"], lines)
    assert table.counts == {**dict.fromkeys(VERDICTS, 0), "within": 2, "outside": 1, "not run": 1, "diverged": 1}
    assert table.summary == "2 of 3 published rows within tolerance, 1 not run, 1 diverged"
    assert table.lines[1] == {"verdict": "diverged", "seeds": "", "more": ""} and table.lines[0]["seeds"] == 3
    assert list(table.frame) == ["verdict", "seeds", "more"]
    bare = Table("other", ["seeds"], lines)
    assert bare.counts == {} and bare.summary == ""
    found = Table("mine", ["seeds"], lines.assign(source=["a", None, "b", "c", None])).find(seeds=2, verdict="within")
    assert found.source.tolist() == ["c"]


def test_verdicts_go_from_what_was_not_run_to_what_is_within():
    frame = pd.DataFrame({"source": [None, "", "", "", "", "", ""], "value": [1, 1, NAN, 1, 1, 1, 1],
                          "known": [1, 1, 1, NAN, 1, 1, 1]})  # fmt: skip
    flags = np.eye(7, dtype=bool)
    found = verdicts(frame, "value", "known", flags[5] | flags[4] | flags[0], flags[4], flags[1])
    names = ["not run", "unfinished", "diverged", "unpublished", "shown only", "within", "outside"]
    assert found.tolist() == names


# --- what results are told from others by ---

SETTINGS = {
    "dataset": layout.SUBTASK, "network": "lr", "seed": 7, "attack": "label-flips", "ratio": 0.1, "epochs": 40,
    "poison_set": "fashion_mnist_3_4.1.0_random_0.1_seed_7", "poison_sha256": "ab", "model": "vanilla_seed_7",
    "poison": {"ratio": 0.1, "seed": 7}, "baseline_acc": 0.95, "dump": None,
}  # fmt: skip


def test_a_result_is_told_from_others_by_all_but_its_seed():
    told = identity.of(SETTINGS)
    assert told == identity.of(dict(reversed(SETTINGS.items())))  # whatever the order
    other_seed = {
        "seed": 8,
        "poison": {"ratio": 0.1, "seed": 8},
        "poison_set": "x",
        "poison_sha256": "cd",
        "model": "y",
    }
    assert (
        told == identity.of({**SETTINGS, **other_seed}) == identity.of({**SETTINGS, "baseline_acc": 0.9, "dump": "npz"})
    )
    for name, value in (("epochs", 20), ("network", "badnet"), ("attack", "slabs"), ("ratio", 0.2)):
        assert identity.of({**SETTINGS, name: value}) != told
    of_one_seed = {**SETTINGS, "poison": {"ratio": 0.1, "seed": 1}}  # of poisons that stay the same
    assert identity.of(of_one_seed) != identity.of({**of_one_seed, "poison_sha256": "cd"})
    targeted = {**SETTINGS, "mode": "oneshot", "target": 3}
    assert identity.of(targeted) == identity.of({**targeted, "target": 4, "poison_sha256": "cd", "stop_at_first": True})
    assert identity.of(targeted) != identity.of({**targeted, "mode": "multipoison"})
    assert identity.of_set({"seed": 3, "ratio": 0.1}) == "ratio=0.1 seed=3"


def test_a_default_set_has_the_name_and_the_settings_that_its_attack_gives_it():
    asked = (layout.SUBTASK, 0.1, 7)
    attack = attacks()["label-flips"]
    given = {name: value for name, value in attack.settings(*asked).items() if name not in ("attack", "dataset")}
    default = {**SETTINGS, "poison": given, "poison_set": attack.default_path(*asked).stem}
    assert identity.default_set(default)
    for change in ({"poison_set": "other"}, {"poison": {**given, "seed": 8}}, {"ratio": 0.2}, {"attack": "own"}):
        assert not identity.default_set({**default, **change})
    assert not identity.default_set({name: value for name, value in default.items() if name != "poison"})


# --- means, orders and nulls ---


def test_means_over_seeds_have_an_interval_from_three_on():
    frame = pd.DataFrame({"place": [*"aaabbc"], "acc": [0.1, 0.2, 0.6, 0.5, 0.7, 0.12345], "other": [1.0] * 6})
    found = frames.over_seeds(frame.groupby("place"), ["acc", "other"])
    assert found.acc_mean.to_dict() == {"a": 0.3, "b": 0.6, "c": 0.1235} or found.acc_mean["c"] == 0.1234
    sd = np.sqrt((0.2**2 + 0.1**2 + 0.3**2) / 2)
    assert found.acc_ci95["a"] == pytest.approx(4.302653 * sd / np.sqrt(3), abs=1e-4)  # t of two degrees of freedom
    assert found.acc_ci95.isna().to_dict() == {"a": False, "b": True, "c": True} and found.other_ci95["a"] == 0


def test_rows_are_in_the_order_of_the_paper():
    frame = pd.DataFrame(
        {"clip_norm": [4.0, np.inf, 1.0, 1.0], "learning_rate": [0.1, 0.1, 0.1, 0.2], "epochs": [1] * 4}
    )
    found = frames.in_order(frame, ["clip_norm", "learning_rate", "epochs"])
    assert found.index.tolist() == [1, 3, 2, 0]  # undefended first, and the larger rate
    shapings = pd.DataFrame(
        {"shaping": ["phuber:2", "clip:1@2,4", "undefended", "own:1", "4", "clip:2+phuber:1", "0.1"]}
    )
    ordered = shapings.sort_values("shaping", key=frames.by_kind).shaping.tolist()
    assert ordered == ["undefended", "0.1", "4", "phuber:2", "own:1", "clip:2+phuber:1", "clip:1@2,4"]


def analysis(**more):
    place = {"analysis": "ipoisoning", "set": "slabs", "dataset": "d", "setting": "s", "network": "lr", "shaping": "1",
             "n_poison": 5, "start": "scratch", "incomparable": False, "cell": 3, "published_mean_norm_ratio": 9.0,
             "published_mean_cosine": -0.5, "source": "a.csv"}  # fmt: skip
    return types.SimpleNamespace(**{**place, **more})


def drawn(values: np.ndarray) -> pd.DataFrame:
    """Draws of the null, of two epochs each."""
    lines = [{"draw": draw, "epoch": epoch, **dict.fromkeys(nulls.MEASURES, value + 0.1 * epoch), "source": "b.csv"}
             for draw, value in enumerate(values) for epoch in (1, 2)]  # fmt: skip
    return pd.DataFrame(lines).assign(**{name: getattr(analysis(), name) for name in nulls.KEY})


@pytest.mark.parametrize(("measured", "above", "below"), [(3.0, True, False), (0.1, False, True), (1.0, False, False)])
def test_a_measure_is_beyond_its_null_on_the_side_of_the_claim(measured, above, below):
    """Twenty draws from 0.5 to 1.45; three epochs of the analysis, of which the null has two."""
    draws = drawn(0.35 + 0.05 * np.arange(20))
    lines = pd.DataFrame({"poison_norm": [2 * measured, 2 * measured, 900], "clean_norm": 2.0, "cosine": measured,
                          "poison_norm_q50": measured, "clean_norm_q50": 1.0, "poison_cosine_q75": measured},
                         [3, 3, 3])  # fmt: skip
    larger = {"norm_ratio": True, "median_example_ratio": True, "cosine": False, "upper_quartile_example_cosine": False}
    assert set(larger) == set(nulls.MEASURES)
    for name in larger:
        found = nulls.described(analysis(), name, lines, draws)
        assert found["epochs"] == 2 and found["draws"] == 20 and found["measured"] == pytest.approx(measured, rel=1e-3)
        assert (found["null_low"], found["null_median"], found["null_high"]) == pytest.approx((0.5, 0.975, 1.45))
        assert found["beyond"] == (above if larger[name] else below) and found["false_passes"] == 0.05  # one of twenty
        assert found["source"] == "a.csv; b.csv"
    none = nulls.described(analysis(), "cosine", lines, draws[:0])
    assert none["epochs"] == 3 and none["published"] == -0.5 and "draws" not in none
    assert nulls.described(analysis(), "norm_ratio", lines, draws)["published"] == 9.0


def test_a_null_is_of_the_same_rows_network_and_shaping():
    draws = drawn(np.arange(3.0))
    assert nulls.matches(draws, analysis()).all()
    for change in ({"dataset": "e"}, {"network": "mlp"}, {"start": "retrain"}, {"shaping": "4"}, {"n_poison": 6}):
        assert not nulls.matches(draws, analysis(**change)).any()


# --- targeted attacks ---


def targets(count: int, **more) -> pd.DataFrame:
    """As many targets of the attack that the paper publishes, undefended; two of three fall, to 2, 4, 6 ... poisons."""
    needed = [NAN if number % 3 == 2 else 2.0 * (number + 1) for number in range(count)]
    line = {"mode": "multipoison", "network": "lr", "shaping": "undefended", "clip_norm": np.inf, "epochs": 50,
            "noise_multiplier": 0.0, "learning_rate": 0.04, "dataset": "purchases", "budget": shafahi.Budget().name,
            "attack": shafahi.NAME, "base_class": shafahi.BASE_CLASS, "target_class": shafahi.TARGET_CLASS,
            "as_published": True, "seed": layout.SEED, "baseline_acc": 0.7, "source": "a.csv"}  # fmt: skip
    frame = pd.DataFrame({"target": range(count), "needed": needed, "needed_epoch": 10.0}).assign(**line)
    return frame.assign(without_poison=[number < 4 for number in range(count)], **more)


def test_targets_are_counted_each_once():
    found = targeted.targeted_table(targets(120))
    rows = found.frame[found.frame.source.notna()]
    assert found.name == "tpoisoning" and found.columns == targeted.COLUMNS and len(rows) == 1
    row = rows.iloc[0]
    assert (row.targets, row.successes, row.without_poison, row.clean_acc) == (120, 80, 4, 0.7)
    assert (row.median_poisons, row.mean_poisons, row.median_epoch) == (120, 120, 10)
    few = targeted.targeted_table(targets(99)).frame
    assert few[few.source.notna()].verdict.tolist() == ["unfinished"] and set(few[few.source.isna()].verdict) == {
        "not run"
    }


def test_the_papers_hundred_targets_are_the_first_that_were_attacked():
    cells = pd.concat([targets(103), targets(2, shaping="4", clip_norm=4.0)], ignore_index=True)
    assert targeted.of_protocol(cells).tolist() == [True] * 100 + [False] * 3 + [True] * 2
    for change in ({"seed": 1}, {"as_published": False}, {"budget": "x"}, {"attack": "bullseye"}, {"base_class": 9}):
        assert not targeted.of_protocol(cells.assign(**change)).any()


def of_insertion(name: str, header: tuple, attack: str = "insertion") -> Result:
    """A kept result of a backdoor as if it were of another kind, with these columns."""
    kept = next(iter(folded.read(layout.runs_file(layout.ANALYSIS / "insertion" / "x" / "y"))[0].values()))
    settings = {**kept.settings, "attack": attack}
    texts = {name: ",".join(header) + "\n" + ",".join("1" for _ in header) + "\n"}
    if name == layout.ANALYSIS_RESULTS:
        texts |= {extract: kept.texts[extract] for extract in kept.texts if extract != name}
    return Result(kept.path.with_name(name), {**kept.run, "settings": settings}, texts, kept.source)


def test_what_an_attack_measures_is_asked_of_its_analyses_alone():
    plain = reading.COLUMNS[layout.ATTACK_RESULTS]
    assert reading.text_of(of_insertion(layout.ATTACK_RESULTS, plain))
    with pytest.raises(cells.Unfinished, match="backdoor_acc"):
        reading.text_of(of_insertion(layout.ANALYSIS_RESULTS, reading.COLUMNS[layout.ANALYSIS_RESULTS]))


def test_an_attack_that_is_not_known_measures_nothing():
    header = reading.COLUMNS[layout.ANALYSIS_RESULTS]
    with pytest.raises(cells.Unfinished) as lacking:  # its extracts are of other epochs, but nothing is asked of it
        reading.text_of(of_insertion(layout.ANALYSIS_RESULTS, header, "mine"))
    assert "backdoor_acc" not in str(lacking.value)
