"""What the matrix is made of: parameters chosen on held-out rows, trials of poisons on other shapings, its tables."""

import dataclasses
import itertools
import sys
import types

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, TRAIN, Workplace
from scipy import stats
from test_adaptive import TOY
from test_report import finish, place, poisoned, trials

import choose_shapings
import datasets
import train
import transfer
from command_line import BadInput
from files import write_csv
from models import device, protocols
from models.later import tf
from models.shaping import Shaping
from models.trainer import Cell, Trainer, Training
from poisons import attacks, poison_set, shafahi
from reports import choice, matrix, matrix_runs, matrix_verdicts, reading, targeted
from results import layout, transfers

NAN = float("nan")


@pytest.fixture
def results(tmp_path, monkeypatch) -> Workplace:
    """A workplace whose results this process reads, too."""
    workplace = Workplace(tmp_path)
    monkeypatch.setattr(layout, "RESULTS", workplace.results)
    monkeypatch.setattr(layout, "MODELS", workplace.models)
    return workplace


def put(results, texts, attack, finals, held_out=None, seeds=(1, 2, 3), against=None, ratio=0.1, **changes) -> None:
    """Cells of two epochs, of each shaping and seed; finals: the seeds' test accuracies, or one; held_out: likewise."""
    measured_by = [np.broadcast_to(values, len(seeds)) for values in (finals, held_out)]
    for shaped, (seed, final, held) in itertools.product(texts.split(), [*zip(seeds, *measured_by)]):
        if attack == poison_set.NONE:
            changes |= {"poison": {}, "poison_set": attack, "n_poison": 0}
        elif against is not None:
            changes["poison"] = {**attacks()[attack].settings(layout.SUBTASK, ratio, seed), "shaping": against}
        settings = poisoned(**{"attack": attack, "ratio": ratio, "shaped": shaped, "seed": seed, **changes})
        header = train.columns_of(() if held is None else choice.MEASURES, False)
        measured = () if held is None else (0.95, held, held - 0.01, held + 0.01)
        path, count = place(results, settings), settings["n_poison"]
        epochs = [(epoch, count, 0.955, final - 0.02 * (epoch < 2), 0.9, 0.1, "inf", *measured) for epoch in (1, 2)]
        write_csv(path, header, epochs)
        finish(path, settings)


def test_held_out_accuracies_are_those_of_rows_that_no_shaping_trusts(workplace, subtask):
    kept = REPOSITORY / "models"
    workplace.succeed(*TRAIN, "--poison", "none", "--clip-norm", "1", "--epochs", "1", MODELS=kept)
    [line] = pd.read_csv(*workplace.results.rglob("attack_results.csv")).to_dict("records")
    device.start()
    trainer, group = Trainer(Training.published(subtask.name, "lr", 1), subtask), [Cell(Shaping.clip(1), 0.01, "", {})]
    engine = trainer.engine(group)
    assert len(list(trainer.epochs(engine, trainer.rows(group), ""))) == 1
    kernel, bias = engine.weights(0)
    baseline, (x, y) = kept / "subtask/vanilla_lr_300_40_0.01/best.keras", subtask.held_out
    hits = (x.reshape(len(x), -1) @ kernel + bias).argmax(1) == y
    before = tf.keras.models.load_model(baseline).predict(x, verbose=0).argmax(1) == y
    assert hits.mean().round(5) != hits[200:].mean().round(5) and len(y) > 1000
    expected = [hits[200:].mean(), hits[200::2].mean(), hits[201::2].mean(), before[200:].mean()]
    assert [line[name] for name in (*train.HELD_OUT, "baseline_held_out_acc")] == pytest.approx(expected, abs=1e-6)
    assert line["n_poison"] == 0 and line["train_acc_clean"] > 0.9 and np.isnan(line["train_acc_poison"])


def test_without_held_out_rows_they_are_no_numbers(results, monkeypatch):
    monkeypatch.setitem(protocols.PROTOCOLS, ("toy", "lr"), protocols.Protocol("adam", 100, 2, 0.05, 0.05))
    monkeypatch.setattr(datasets, "load", lambda name: TOY)
    monkeypatch.setattr(sys, "argv", "train.py --dataset toy --network lr --poison none --clip-norm 1".split())
    train.main()
    table = pd.read_csv(*results.results.rglob("attack_results.csv"))
    assert len(table) == 2 and table[list(train.HELD_OUT)].isna().all(axis=None)
    found = reading.read()
    assert found.left_out == [] and choice.chosen(choice.measured(found)).empty


def accuracies(values: dict, epochs: int = 40) -> pd.DataFrame:
    """A frame as `choice.measured` makes it; values: the accuracy of each shaping, or that and those of the halves."""
    lines = [("d", "lr", epochs, text, *np.broadcast_to(value, 3), 3) for text, value in values.items()]
    return pd.DataFrame(lines, columns=[*choice.PLACE, "shaping", *choice.MEASURES, "seeds"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"undefended": 0.95, "0.1": 0.93, "1": 0.941, "4": 0.96}, "undefended 1"),  # the strongest within one point
        ({"undefended": 0.95, "0.1": 0.8, "1": 0.9, "4": 0.85}, "undefended 1"),  # none within: the largest accuracy
        ({"undefended": 0.95, "4": 0.9, "0.1": 0.9, "1": 0.9}, "undefended 0.1"),  # of equal ones the strongest
        ({"0.1": 0.8, "1": 0.9}, "1"),  # nothing to be near to
        ({"undefended": 0.95, "0.1": NAN, "1": 0.9, "phuber:2": NAN}, "undefended 1"),  # not measured
        ({"undefended": 0.95, "1": 0.95, "1:0.5": 0.95, "1:2": 0.95, "4:3": 0.95}, "undefended 1 1:2"),
        ({"undefended": 0.95, "gce:0.3": 0.95, "gce:0.7": 0.941, "gce:1": 0.9}, "undefended gce:0.7"),
        ({"undefended": 0.95, "phuber:10": 0.95, "phuber:1.5": 0.95, "phuber:2": 0.95}, "undefended phuber:1.5"),
        ({"undefended": 0.95, "phuber:2+clip:4": 0.95, "phuber:2+clip:1": 0.95, "1": 0.95, "linear": 0.5},
         "undefended 1 linear phuber:2+clip:1"),
    ],
)  # fmt: skip
def test_the_strongest_value_that_costs_no_point_is_chosen(values, expected):
    for order in itertools.islice(itertools.permutations(values.items()), 24):
        assert set(choice.chosen(accuracies(dict(order))).shaping) == set(expected.split())


def test_places_and_halves_choose_for_themselves():
    one = accuracies({"undefended": 0.95, "0.1": (0.94, 0.949, 0.93), "1": 0.945})
    both = pd.concat([one, accuracies({"undefended": 0.8, "0.1": 0.7, "1": 0.795}, 3)], ignore_index=True)
    found = choice.chosen(both).set_index(["epochs", "kind"]).shaping
    assert (found[40, "clip"], found[3, "clip"]) == ("0.1", "1") and len(found) == 4
    by_halves = [set(choice.chosen(one, name).shaping) for name in choice.MEASURES[1:]]
    assert by_halves == [{"undefended", "0.1"}, {"undefended", "1"}]


def choose(monkeypatch, capsys, data) -> list[str]:
    monkeypatch.setattr(datasets, "load", lambda name: data)
    monkeypatch.setattr(sys, "argv", "choose_shapings.py --dataset subtask --network lr".split())
    choose_shapings.main()
    return capsys.readouterr().out.split()


def test_choosing_sees_no_test_row_and_the_papers_trainings_alone(results, monkeypatch, capsys, subtask):
    with pytest.raises(BadInput, match="--dataset subtask: no training of lr on clean rows alone is finished; run"):
        choose(monkeypatch, capsys, subtask)
    held_out = {"phuber:2": 0.945, "undefended": 0.95, "4": 0.949, "1": (0.945, 0.935, 0.946), "linear": 0.8}
    held_out["0.1"] = (0.96, 0.93, 0.92)  # too little in the mean
    for test in (0.9, 0.5):  # the more, the fewer held-out rows are hit; then all alike
        for shaped, held in held_out.items():
            put(results, shaped, poison_set.NONE, 0.98 - np.mean(held) * (test > 0.5), held)
        assert choose(monkeypatch, capsys, subtask) == ["undefended", "1", "phuber:2", "linear"]
        assert choose(monkeypatch, capsys, TOY) == ["undefended", "1", "phuber:2", "linear"]  # it has none of its own
    before = choice.measured(reading.read()).to_csv(index=False)
    put(results, "0.1", "label-flips", 0.9, 0.2)
    for other in ({"learning_rate": 0.5}, {"start": "retrain"}, {"batch_size": 100}):
        put(results, "0.1", poison_set.NONE, 0.9, 0.2, **other)
    assert choice.measured(reading.read()).to_csv(index=False) == before


def trial(sha, accuracy, seed=1001, shaping="0.1", attack="slabs-own", ratio=0.1) -> dict:
    values = ("d", "lr", 3, 64 * sha, shaping, seed, attack, ratio, "0.1", f"set {sha}", accuracy, accuracy)
    return dict(zip(transfers.COLUMNS, values))


def strongest(*trials: dict) -> list[str]:
    """The first letters of the files that are the strongest, each once."""
    return sorted({digest[0] for digest in transfers.strongest(pd.DataFrame(trials)).poison_sha256})


def test_the_strongest_file_is_that_of_the_lowest_mean_against_each_shaping():
    two = [trial("a", 0.9), trial("a", 0.6, 1002), trial("b", 0.7), trial("b", 0.7, 1002)]
    assert strongest(*two) == ["b"]
    assert strongest(*two, trial("a", 0.5, shaping="phuber:2"), trial("b", 0.6, shaping="phuber:2")) == ["a", "b"]
    assert strongest(*two, trial("c", 0.9, ratio=0.4), trial("d", 0.9, attack="model-targeted")) == ["b", "c", "d"]
    assert strongest(*two, trial("c", NAN)) == ["c"]  # what diverged was harmed most


def test_of_equally_strong_files_ones_own_counts_and_then_the_undefended_one():
    equal = [
        {**trial(sha, 0.7), "crafted_against": text} for sha, text in (("a", "epic"), ("b", "undefended"), ("c", "0.1"))
    ]
    assert strongest(*equal) == ["c"] and strongest(*equal[:2]) == ["b"]
    assert strongest(*equal[:2], {**equal[2], "train_acc_clean": 0.71}) == ["b"]


@pytest.mark.parametrize("lacking", [None, "a file", "a shaping", "a seed", "the seed"])
def test_the_strongest_are_measured_where_every_file_was_tried_on_every_shaping(lacking, results):
    """A file, a shaping or a trial that transfer.py has not come to yet could be stronger."""
    shapings = [Shaping(), Shaping.clip(0.1)]
    lines = [
        trial(sha, accuracy, seed, one.text)
        for (sha, accuracy), one, seed in itertools.product((("a", 0.7), ("b", 0.8)), shapings, (1001, 1002))
    ]
    transfers.add(layout.transfer_file(), pd.DataFrame(lines[: -1 if lacking == "a seed" else None]))
    sets = [poison_set.PoisonSet("slabs-own", f"set {sha}", None, [], 64 * sha, {}, "d", 300) for sha in "abc"]
    sets = sets[: 3 if lacking == "a file" else 2]
    shapings += [Shaping.clip(3)] if lacking == "a shaping" else []
    training = Training("d", "lr", "stack", "adam", 300, 3, 1001 if lacking == "the seed" else 1)
    if lacking is None:
        found = train.strongest_pairs(training, shapings, sets)
        assert found == {("undefended", 64 * "a"), ("0.1", 64 * "a")}
        return
    with pytest.raises(BadInput, match="seed 1001" if lacking == "the seed" else "did not try set"):
        train.strongest_pairs(training, shapings, sets)


def test_trials_are_added_in_any_order_and_not_tried_again(tmp_path):
    random, shapings, written = np.random.default_rng(0), ("undefended", "0.1", "clip:1@5,phuber:2"), []
    keys = itertools.product("abc", (1001, 1002), shapings)
    trials = [*(trial(sha, round(random.random(), 6), *key) for sha, *key in keys), trial("d", NAN)]
    for number in range(3):
        table = tmp_path / f"{number}/transfer.csv"
        for part in np.array_split(random.permutation(len(trials)), 4):
            transfers.add(table, pd.DataFrame([trials[place] for place in part]))
        written.append(table.read_bytes())
    assert written[0] == written[1] == written[2] and len(written[0].splitlines()) == 1 + len(trials)
    found = transfers.read(table)
    assert found.train_acc_clean.isna().sum() == found.test_acc.isna().sum() == 1  # what diverged stays no number
    assert strongest(*found.to_dict("records")) == strongest(*trials) and "d" in strongest(*trials)
    transfers.add(table, pd.DataFrame([{**trials[0], "train_acc_clean": 0.123456}]))  # in place of what was there
    assert len(found.compare(transfers.read(table))) == 1
    training, given = Training("d", "lr", "stack", "adam", 300, 3, 1001), [Shaping(), Shaping.clip(0.1)]
    poisons = poison_set.PoisonSet("slabs-own", "set a", None, [], 64 * "a", {}, "d", 300)
    assert not transfer.missing(table, training, poisons, given)
    for changed in ({"seed": 7}, {"epochs": 4}, {"network": "mlp"}, {"dataset": "e"}):
        assert transfer.missing(table, dataclasses.replace(training, **changed), poisons, given)
    assert transfer.missing(table, training, poisons, [*given, Shaping.clip(3)])
    assert transfer.missing(tmp_path / "none.csv", training, poisons, given)


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells, by shaping and column, and rows, by shaping, as they are written."""
    cells, rows = (table.frame[table.columns] for table in matrix.tables(reading.read()))
    return cells.set_index(["shaping", "column"]), rows.set_index("shaping")


def test_gains_are_taken_seed_by_seed_and_failures_have_reasons(results):
    put(results, "undefended phuber:2", poison_set.NONE, 0.95, 0.95)
    put(results, "0.1", poison_set.NONE, 0.94, 0.95)
    flips = (
        ("undefended", (0.8, 0.7, 0.75), 0.9),
        ("phuber:2", 0.9, 0.91),
        ("0.1", (0.69, 0.75, NAN), (0.79, 0.81, 0.9)),
    )
    for shaped, random, deepest in flips:
        put(results, shaped, "label-flips", random)
        put(results, shaped, "adversarial-flips", deepest)
    cells, rows = tables()
    robust, fallen = cells.loc["phuber:2", "label-flips 0.1"], cells.loc["0.1", "label-flips 0.1"]
    assert (robust.finals, robust.gains) == ("0.9000 0.9000 0.9000", "0.1000 0.2000 0.1500") and robust.why == ""
    assert robust.gain_ci95 == pytest.approx(stats.t.ppf(0.975, 2) * 0.05 / np.sqrt(3), abs=6e-5)
    assert (robust.gain_mean, robust.final_ci95, robust.collapsed, robust.seed_numbers) == (0.15, 0, 0, "1 2 3")
    assert (fallen.seeds, fallen.diverged, fallen.collapsed) == (3, 1, 0.6667) and fallen.gains.split()[2] == "nan"
    assert fallen.why == "1 of 3 seeds diverged: weights that are no numbers"
    assert cells.why["0.1", "adversarial-flips 0.1"] == "1 of 3 seeds fell more than 10 points below undefended"
    told = ["clean_price_mean", "oblivious_gain_mean", "oblivious_gain_worst", "oblivious_worst_column", "rank"]
    assert rows.loc["phuber:2", told].tolist() == [0, 0.08, 0.01, "adversarial-flips 0.1", 1]
    assert rows.clean_price_mean["0.1"] == pytest.approx(0.01) and rows.chosen.all()
    put(results, "phuber:2", "slabs", 0.5, ratio=0.4)  # a column that the others do not have is in no mean
    put(results, "undefended", "slabs", 0.6, ratio=0.4)
    assert tables()[1].oblivious_gain_mean.dropna().to_dict() == {"undefended": 0, "phuber:2": 0.02}
    crafted = f"$(python3 -m poisons --sets label-flips:0.1 --dataset {layout.SUBTASK} --seed 1)"
    assert robust.command.endswith(f" --network lr --poison {crafted} --seed 1 --shaping 'phuber:2'")


def put_adaptive(results) -> None:
    put(results, "undefended phuber:2 0.1", poison_set.NONE, 0.95, 0.95)
    for shaped, attack, against, finals in (
        ("undefended", "slabs-own", "undefended", 0.6), ("undefended", "gradient-canceling", "undefended", 0.7),
        ("phuber:2", "slabs-own", "phuber:2", 0.7), ("phuber:2", "slabs-own", "undefended", 0.65),
        ("phuber:2", "gradient-canceling", "phuber:2", 0.8), ("0.1", "slabs-own", "0.1", (0.88, 0.9, 0.92)),
        ("0.1", "slabs-own", "undefended", 0.95),
    ):  # fmt: skip
        put(results, shaped, attack, finals, against=against)
    for shaped, final in (("undefended", 0.65), ("phuber:2", 0.9), ("0.1", 0.6)):
        put(results, shaped, "label-flips", final)


def test_of_adaptive_poisons_the_worst_counts_whomever_they_were_crafted_against(results):
    put_adaptive(results)
    cells, rows = tables()
    told = ["final_mean", "gain_mean", "adaptive", "crafted_against"]
    assert cells.loc[("phuber:2", "slabs-own 0.1"), told].tolist() == [0.65, 0.05, "transfer", "undefended"]
    assert cells.loc[("0.1", "slabs-own 0.1"), told].tolist() == [0.9, 0.3, "own", "0.1"]
    assert cells.loc[("phuber:2", "worst adaptive 0.1"), told].tolist() == [0.65, 0.05, "transfer", "undefended"]
    assert cells.loc["0.1", "worst adaptive 0.1"].gains == "0.2800 0.3000 0.3200"
    assert cells.why["phuber:2", "worst adaptive 0.1"] == "by slabs-own 0.1, crafted against undefended"
    assert "--sets slabs-own:0.1 --against 'undefended'" in cells.command["phuber:2", "slabs-own 0.1"]
    assert rows.adaptive_gain_worst.to_dict() == {"undefended": 0, "0.1": 0.3, "phuber:2": 0.05}
    note = "failed as attacks at 0.1: slabs-own 0.1 leaves 0.900, label-flips 0.1 0.600"
    assert rows.attack_note.to_dict() == {"undefended": "", "phuber:2": "", "0.1": note}


def test_prices_and_notes_are_those_of_the_rows_own_place(results):
    put_adaptive(results)
    sets = {
        "dataset": layout.SUBTASK, "attack": "slabs-own", "ratio": 0.1, "shaping": ["phuber:2", "undefended", "0.1"],
        "victim_test_acc": [0.95, 0.6, 0.95], "random_test_acc": [0.95, 0.9, 0.96],
    }  # fmt: skip
    sets = pd.DataFrame({"poison_set": "a set", **sets})
    sets = pd.concat([sets, sets.assign(dataset="other", random_test_acc=0)])  # of another data set
    layout.crafting_file("slabs-own").parent.mkdir(parents=True, exist_ok=True)
    sets.to_csv(layout.crafting_file("slabs-own"), index=False)
    prices = {"dataset": [layout.SUBTASK] * 2 + ["other"], "network": ["lr", "mlp", "lr"], "shaping": "0.1"}
    layout.price_file().parent.mkdir(parents=True)
    prices |= {"price": [0.25, 0.5, 0.75], "model": "flips", "model_test_acc": 0.6, "models": 10.0}
    pd.DataFrame(prices).to_csv(layout.price_file(), index=False)
    _, rows = tables()
    assert rows.price.dropna().to_dict() == {"0.1": 0.25}
    assert rows.attack_note["phuber:2"] == "its own slabs-own 0.1 does no more than random rows"
    assert rows.attack_note["undefended"] == "" and "random" not in rows.attack_note["0.1"]


def test_what_diverged_is_the_worst_and_gains_over_another_attack_are_of_the_same_seeds(results):
    put_adaptive(results)
    for shaped, finals in (("undefended", (0.5, 0.4)), ("phuber:2", NAN)):
        put(results, shaped, "model-targeted", finals, seeds=(2, 3), against=shaped)
    cells, _ = tables()
    worst = cells.loc["0.1", "worst adaptive 0.1"]
    assert (worst.seed_numbers, worst.gains, worst.gain_mean) == ("1 2 3", "nan 0.4000 0.5200", 0.46)
    assert cells.why["phuber:2", "worst adaptive 0.1"] == "by model-targeted 0.1, crafted against phuber:2"


def test_targets_count_as_seeds_where_poisons_have_a_radius_and_rates_are_equal(results):
    budget = dataclasses.replace(shafahi.DOSED, radius=2.1).name
    dosed = {"budget": budget, "learning_rate": 0.04, "stop_at_first": False}
    for target, hits in enumerate(([1, 3], [], [0, 2])):
        trials(results, "oneshot", "undefended", target, hits, **dosed)
        trials(results, "oneshot", "0.1", target, [1] if target == 1 else [], **dosed)
        trials(results, "oneshot", "0.1", target, [1], **{**dosed, "learning_rate": 0.08})
        trials(results, "multipoison", "0.1", target, [1], **dosed)
    assert matrix.tables(reading.read()) == []  # clipping alone
    for target in range(3):
        trials(results, "oneshot", "phuber:2", target, [0], **dosed)  # falls without a poison: none of it
        trials(results, "oneshot", "phuber:4", target, [1], budget=budget, learning_rate=0.08)
        trials(results, "oneshot", "phuber:10", target, [1], learning_rate=0.04)  # of the paper's budget
    cells, rows = tables()
    assert set(cells.index) == set(itertools.product(["undefended", "0.1", "phuber:2"], ["none", "clean-labels 2.1"]))
    told = ["final_mean", "gain_mean", "seeds", "measure", "collapsed", "seed_numbers"]
    assert cells.loc[("0.1", "clean-labels 2.1"), told].tolist() == [0.3333, 0.3333, 3, "success", 0, "0 1 2"]
    assert cells.gains["0.1", "clean-labels 2.1"] == "1.0000 -1.0000 1.0000"
    assert cells.loc[("undefended", "none"), told].tolist() == [0.7, 0, 1, "accuracy", 0, "0"]
    assert cells.adaptive["0.1", "clean-labels 2.1"] == "own" and rows.oblivious_gain_mean.isna().all()
    assert rows.adaptive_gain_worst.to_dict() == {"undefended": 0, "0.1": 0.3333, "phuber:2": 0.6667}
    assert rows.clean_price_mean["phuber:2"] == 0
    command = cells.command["0.1", "clean-labels 2.1"]
    assert "attack_targets.py --dataset purchases-cj" in command and "--radius 2.1 --beta 0" in command
    others = [table for table in targeted.tables(reading.read()) if table.name == "other_targeted"]
    assert set(others[0].frame.shaping) == {"0.1", "phuber:4", "phuber:10"}  # the others, in no table of their own


def test_ranks_count_the_chosen_rows_that_are_better_for_sure():
    rows = pd.DataFrame({
        "dataset": ["d"] * 6 + ["other"], "chosen": [True, True, True, False, True, True, True],
        "oblivious_gain_mean": [0.1, 0.09, 0.05, 0.5, 0.04, NAN, 0.01],
        "oblivious_gain_ci95": [0.01, 0.01, 0.02, 0.01, 0.001, NAN, 0.001],
    })  # fmt: skip
    ranks = matrix.ranked(rows.assign(network="lr", epochs=40, start="scratch"))["rank"]
    assert ranks.fillna(0).tolist() == [1, 1, 3, 0, 3, 0, 1]


def test_columns_are_of_usual_sets_where_another_kind_than_clipping_was_trained(results):
    put(results, "undefended 1 1:0.5", poison_set.NONE, 0.95, 0.95)
    put(results, "undefended 1 1:0.5", "label-flips", 0.9, ratio=0.4)
    assert matrix.tables(reading.read()) == []  # clipping alone
    put(results, "phuber:2", poison_set.NONE, 0.95, 0.95)
    other, shapings = {**attacks()["slabs"].settings(layout.SUBTASK, 0.1), "quantile": 0.5}, "undefended 1 phuber:2"
    put(results, shapings, "label-flips", 0.9)
    put(results, shapings, "slabs", 0.9, poison=other)
    put(results, shapings, "adversarial-flips", 0.9, batch_size=100)
    put(results, shapings, "minmax", 0.9, baseline="own", suffix="_a")
    put(results, "linear", "label-flips", 0.9)  # whose training on clean rows is missing
    cells, rows = tables()
    assert set(cells.index.get_level_values(1)) == {"none", "label-flips 0.1"}
    assert sorted(rows.index) == ["1", "1:0.5", "phuber:2", "undefended"]
    assert ("1:0.5", "label-flips 0.1") not in cells.index


@pytest.mark.parametrize(
    ("attack", "poison", "expected"),
    [
        ("none", "", ("none", 0.0, "")), ("label-flips", "ratio=0.4 seed=3", ("label-flips 0.4", 0.4, "")),
        ("slabs-own", "epsilon=0.1 shaping=clip:1@5,phuber:2", ("slabs-own 0.1", 0.1, "clip:1@5,phuber:2")),
        ("collision", "alpha=0.4 task=pairs_of_100", ("collision 0.4", 0.4, "")),
        *((*unusual.split("|"), (None,) * 3) for unusual in (
            "slabs-own|epsilon=0.1 generations=3", "collision|alpha=0.4 task=own", "label-flips|", "mine|ratio=0.4"
        )),
    ],
)  # fmt: skip
def test_a_column_is_an_attack_and_what_it_varies(attack, poison, expected):
    assert matrix_runs.column_of(attack, poison, "set", layout.SUBTASK) == expected


def test_the_readme_answers_by_the_tables():
    """The paragraph in results/README.md is made of the kept tables: every number of it."""
    named = {"adaptive": "", "crafted_against": "", "oblivious_worst_column": ""}
    tables = [pd.read_csv(REPOSITORY / f"results/tables/{name}.csv") for name in ("matrix", "matrix_rows")]
    frames = [types.SimpleNamespace(frame=table.fillna({name: named[name] for name in named if name in table}))
              for table in tables]  # fmt: skip
    answer = matrix_verdicts.judge(*frames)[0]["evidence"]
    assert answer and answer in " ".join((REPOSITORY / "results/README.md").read_text().split())
