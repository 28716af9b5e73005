"""The report: what it reads, leaves out and concludes, on results made for the purpose."""

import collections
import csv
import itertools
import json
import math
import os
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, Workplace, copy_kept
from scipy import stats

from files import file_sha256, write_csv, write_json
from models.protocols import PROTOCOLS
from models.shaping import shaping
from poisons import attacks
from results import layout

ATTACK_HEADER = ("epoch", "n_poison", "baseline_acc", "test_acc", "train_acc_clean", "train_acc_poison", "epsilon")
ANALYSIS_HEADER = ("epoch", "n_poison", "baseline_acc", "test_acc")
INSERTION_HEADER = (
    "epoch",
    "baseline_acc",
    "test_acc",
    "baseline_backdoor_acc",
    "backdoor_acc",
    "backdoor_acc_other_classes",
)
VERSIONS = {"python": "3.11.7", "tensorflow": "2.15.1", "numpy": "1.26.4"}
ROWS = {layout.SUBTASK: 10800, "fashion_mnist": 60000, "purchases-cj": 10000}


def training(dataset=layout.SUBTASK, network="lr", shaped="undefended", seed=215, epochs=None, **changes):
    """The settings of a training of the paper's protocol, but for what is given, and its name."""
    protocol = PROTOCOLS[dataset, network]
    value = shaping(shaped)
    settings = {
        "dataset": dataset, "network": network, "engine": "stack", "optimizer": protocol.optimizer,
        "batch_size": protocol.batch_size, "epochs": epochs or protocol.epochs, "seed": seed,
        "learning_rate": protocol.dp_learning_rate if value.defended else protocol.learning_rate,
        **value.settings, "delta": 1e-5,
    }  # fmt: skip
    settings.update((name, changes.pop(name)) for name in list(changes) if name in settings)
    parts = [settings[name] for name in ("network", "batch_size", "epochs", "learning_rate")]
    name = layout.seeded(value.model_name("_".join(map(str, parts))), seed)
    return settings, name if settings["engine"] == "stack" else f"{name}_{settings['engine']}", changes


def poisoned(attack="label-flips", poison=None, ratio=0.4, **changes):
    """The settings of a poisoned training, by default of the protocol on the set that the attack makes by default."""
    settings, model, changes = training(**changes)
    dataset = settings["dataset"]
    if poison is None:
        poison = attacks()[attack].settings(dataset, ratio, settings["seed"])
    name = (
        changes.pop("poison_set", None)
        or attacks()[attack].path(dataset, {**poison, "attack": attack, "dataset": dataset}).stem
    )
    count = changes.pop("n_poison", round(ratio * ROWS[dataset]))
    more = {
        "model": model + changes.pop("suffix", ""), "attack": attack, "poison_set": name, "poison_sha256": "0" * 64,
        "poison": {key: value for key, value in poison.items() if key not in ("attack", "dataset")}, "n_poison": count,
        "clean_rows": ROWS[dataset], "ratio": float(f"{count / ROWS[dataset]:.6g}"), "start": "scratch",
        "baseline": "kept", "baseline_acc": 0.955, "dump": None,
    }  # fmt: skip
    return {**settings, **more, **changes}


def finish(path, settings, versions=None):
    """Write the run.json of a CSV file of results."""
    beside = [path, *(path.with_name(name) for name in (layout.MAGNITUDES, layout.ORIENTATIONS, layout.PER_EXAMPLE))]
    results = {file.name: file_sha256(file) for file in beside if file.exists()}
    write_json(layout.run_file(path), {"settings": settings, "results": results, "versions": versions or VERSIONS})
    return path


def place(workplace, settings):
    """Where a result lies in a workplace."""
    return workplace.results / layout.cell_file(settings).relative_to(layout.RESULTS)


def cell(workplace, accuracies, versions=None, **changes):
    """A cell of the indiscriminate sweep, its test accuracies as given."""
    settings = poisoned(**changes)
    path, count = place(workplace, settings), settings["n_poison"]
    write_csv(
        path,
        ATTACK_HEADER,
        [(epoch, count, 0.955, accuracy, 0.9, 0.1, "inf") for epoch, accuracy in enumerate(accuracies, 1)],
    )
    return finish(path, settings, versions)


def analysis(workplace, header, lines, magnitudes, cosines, **changes):
    """A gradient analysis, undefended, without single rows."""
    settings = poisoned(dump="npz", **changes)
    path = place(workplace, settings)
    write_csv(path, header, lines)
    write_csv(path.with_name("mextracts_epoch.csv"), None, magnitudes)
    write_csv(path.with_name("aextracts_epoch.csv"), None, [[cosine] for cosine in cosines])
    return finish(path, settings)


def table(workplace, name):
    with open(workplace.results / "tables" / f"{name}.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_verdicts(workplace):
    cell(workplace, [0.93, 0.94, 0.935], shaped="0.1")
    cell(workplace, [0.9, 0.91, 0.92], shaped="2")
    cell(workplace, [0.93], shaped="100:0.001")
    cell(workplace, [0.93, 0.955, 0.92])
    done = workplace.succeed("python3", "report.py")
    flips = [line for line in table(workplace, "indiscriminate") if line["attack"] == "label-flips"]
    lines = {(line["ratio"], line["shaping"]): line for line in flips}
    near, far, unclipped, undefended = (lines["0.4", shaped] for shaped in ("0.1", "2", "100:0.001", "undefended"))
    names = ("clip_norm", "noise_multiplier", "best_acc", "final_acc", "published_best_acc", "difference", "verdict")
    assert [near[name] for name in names] == ["0.1", "0.0", "0.94", "0.935", "0.9425", "-0.0025", "within"]
    assert (far["verdict"], far["difference"]) == ("outside", "-0.023") and near["baseline_reached_at_epoch"] == ""
    assert unclipped["verdict"] == "shown only" and unclipped["noise_multiplier"] == "0.001"
    assert [undefended[name] for name in ("clip_norm", "verdict", "baseline_reached_at_epoch")] == [
        "inf",
        "unpublished",
        "2",
    ]
    assert (workplace.results / near["source"]).exists()
    counts = collections.Counter(line["verdict"] for line in lines.values())
    assert counts == {"within": 1, "outside": 1, "shown only": 1, "unpublished": 1, "not run": 222}
    assert "1 of 2 published rows within tolerance, 1 shown only" in done.stdout
    for suffix in ("png", "pdf"):
        assert (workplace.results / f"figures/indiscriminate_label-flips.{suffix}").stat().st_size > 5000
    shutil.rmtree(workplace.results / "ipoisoning")  # their figures go with them
    workplace.succeed("python3", "report.py")
    assert {path.stem for path in (workplace.results / "figures").iterdir()} == {"poisons"}


def damaged(workplace, path, settings, damage):
    """Do something to the result at `path`; returns which file must be left out, and why."""
    run_file, content = path.with_name("run.json"), path.read_text()
    if damage == "truncated":
        path.write_text(content[:-10])
        return path, "cut off or altered"
    if damage == "no run.json":
        run_file.unlink()
        return path, "no run.json beside it"
    if damage == "broken run.json":
        run_file.write_text("[1, 2")
        return path, "run.json cannot be read"
    if damage == "settings of another kind":
        return finish(path, {**settings, "clip_norm": "a lot"}), "settings that are not numbers"
    if damage in ("ratio", "learning_rate"):
        kept = {name: value for name, value in settings.items() if name != damage}
        return finish(path, kept), f"does not say: {damage}"
    if damage == "other columns":
        path.write_text("a,b\n1,2\n")
        return finish(path, settings), "it has no column epoch"
    if damage in ("words", "an empty cell"):
        path.write_text(content.replace("0.93", "good" if damage == "words" else ""))
        return finish(path, settings), "something else than numbers"
    if damage == "a longer line":
        path.write_text(content.replace("inf\n2", "inf,7\n2"))
        return finish(path, settings), "the columns of its header"
    if damage == "half written":
        half = path.with_name(f"{path.name}.4711.writing")
        path.rename(half)
        return half, "half written"
    if damage == "other versions":
        return finish(path, settings, {**VERSIONS, "tensorflow": "2.9.0"}), "made with tensorflow 2.9.0"
    foreign = path.with_name("notes.txt")  # and nothing else is there
    path.unlink()
    foreign.write_text("to do")
    return foreign, "nothing of this suite is called so"


DAMAGES = (
    "truncated", "no run.json", "broken run.json", "settings of another kind", "learning_rate", "ratio",
    "other columns", "words", "an empty cell", "a longer line", "half written", "other versions", "foreign file",
)  # fmt: skip


def test_what_is_damaged_or_foreign_is_left_out_and_named_on_the_page(workplace):
    """Each damage in a cell of its own of the paper's grid; the two cells beside them are taken."""
    grid = itertools.product((0.4, 0.3, 0.2), ("0.1", "1", "2", "4", "8"))
    put = []
    for damage, (ratio, shaped) in zip(DAMAGES, grid):
        path = cell(workplace, [0.93, 0.94], shaped=shaped, ratio=ratio)
        put.append(damaged(workplace, path, poisoned(shaped=shaped, ratio=ratio), damage))
    for shaped in ("0.1", "1"):
        cell(workplace, [0.94, 0.95], shaped=shaped, ratio=0.1)
    lines = workplace.report().stderr.splitlines()
    page = (workplace.results / "report.html").read_text()
    assert len(lines) == len(put)
    for left_out, why in put:
        [line] = [line for line in lines if line.startswith(f"left out: {left_out} (")]
        assert why in line and str(left_out.relative_to(workplace.results)) in page and why in page
    finished = [(line["ratio"], line["verdict"]) for line in table(workplace, "indiscriminate") if line["best_acc"]]
    assert finished == [("0.1", "within"), ("0.1", "within")]


def test_nothing_run_is_no_error(workplace):
    done = workplace.succeed("python3", "report.py")
    assert done.stderr == "" and {line["verdict"] for line in table(workplace, "indiscriminate")} == {"not run"}
    assert {line["passed"] for line in table(workplace, "claims")} == {"not run"}
    assert sum(line.startswith("(") and "controls not run" in line for line in done.stdout.splitlines()) == 6
    assert [path.name for path in sorted((workplace.results / "figures").iterdir())] == ["poisons.pdf", "poisons.png"]
    published = [line for line in table(workplace, "gradients") if line["set"] == "label-flips"]
    assert sorted((line["published_mean_norm_ratio"], line["mean_norm_ratio"]) for line in published) == [
        ("1.8374", ""),
        ("2.2986", ""),
    ]


LINES = [(1, 100, 0.955, 0.95), (2, 100, 0.955, 0.94)]
ALPHA = {"alpha": 0.4, "task": "pairs_of_100"}


def test_gradients_and_insertion_stand_beside_the_published(workplace):
    collision = {"attack": "collision", "poison": ALPHA, "n_poison": 100}
    analysis(workplace, ANALYSIS_HEADER, LINES, [(0.1, 6), (0.2, 6.5)], [-0.9, -1], epochs=2, **collision)
    lines = [(1, 0.91, 0.9, 0.1, 0.97, 0.96), (2, 0.91, 0.905, 0.1, 0.99, 0.98)]
    patch = {"label": 4, "ratio": 0.01, "patch": 4, "seed": 215}
    backdoor = {
        "attack": "insertion",
        "poison": patch,
        "ratio": 0.01,
        "dataset": "fashion_mnist",
        "network": "badnet",
        "start": "retrain",
    }
    analysis(workplace, INSERTION_HEADER, lines, [(1, 2)] * 2, [0.5] * 2, epochs=40, **backdoor)
    workplace.report()
    [collision] = [line for line in table(workplace, "gradients") if line["analysis"] == "collision" and line["source"]]
    names = (
        "analysis",
        "set",
        "epochs",
        "mean_poison_norm",
        "mean_norm_ratio",
        "mean_cosine",
        "published_mean_norm_ratio",
    )
    with open(layout.PUBLISHED / "gradients.csv", newline="") as stream:
        known = [
            line
            for line in csv.DictReader(stream)
            if (line["setting"], line["model"]) == ("alpha_0.4", "vanilla_lr_300_40_0.01")
        ]
    ratios = [
        float(line["poison_norm"]) / float(line["clean_norm"]) for line in known[:2]
    ]  # as many epochs as were run
    expected = ["collision", "pairs_of_100", "2", "6.25", "46.25", "-0.95", str(round(sum(ratios) / 2, 4))]
    assert [collision[name] for name in names] == expected
    assert len(list(workplace.results.glob(collision["source"]))) == 2 and collision["verdict"] == "outside"
    backdoors = {line["setting"]: line for line in table(workplace, "insertion") if "badnet" in line["model"]}
    assert list(backdoors) == ["4_0.01_1", "4_0.01_4", "4_0.01_7", "4_0.01_10", "4_0.01_14"]
    names = (
        "final_acc",
        "first_backdoor_acc",
        "final_backdoor_acc",
        "final_backdoor_acc_other_classes",
        "published_baseline_backdoor_acc",
    )
    assert [backdoors["4_0.01_4"][name] for name in names] == ["0.905", "0.97", "0.99", "0.98", "0.0477"]
    assert (
        backdoors["4_0.01_1"]["published_first_backdoor_acc"] == "0.5705" and backdoors["4_0.01_1"]["final_acc"] == ""
    )


def test_claims_are_judged_over_seeds_and_by_the_last_epoch(workplace):
    for seed in range(1, 6):
        cell(workplace, [0.95, 0.90 + seed / 1000], seed=seed)
        for shaped, final in (
            ("0.1", 0.94),
            ("1", 0.93),
            ("2", 0.92),
            ("4", 0.903),
            ("8", 0.89),
        ):  # the last two do not gain for sure
            cell(workplace, [0.95, final + (seed % 2) / 500], shaped=shaped, seed=seed)
    for shaped, best in (("undefended", 0.94), ("0.1", 0.95), ("1", 0.95), ("2", 0.93), ("4", 0.93), ("8", 0.94)):
        cell(workplace, [best, 0.9], shaped=shaped)
    workplace.report()
    seeds = {line["shaping"]: line for line in table(workplace, "seeds")}
    assert [seeds["undefended"][name] for name in ("seeds", "best_acc_mean", "final_gain_mean")] == ["6", "0.9483", ""]
    finals = np.array([0.901, 0.902, 0.903, 0.904, 0.905, 0.9])
    interval = stats.t.interval(0.95, 5, loc=finals.mean(), scale=stats.sem(finals))
    assert float(seeds["undefended"]["final_acc_mean"]) == pytest.approx(finals.mean(), abs=5e-5)
    assert float(seeds["undefended"]["final_acc_ci95"]) == pytest.approx((interval[1] - interval[0]) / 2, abs=5e-5)
    gains = np.array([0.942 - 0.901, 0.94 - 0.902, 0.942 - 0.903, 0.94 - 0.904, 0.942 - 0.905, 0.0])  # of the same seed
    assert float(seeds["0.1"]["final_gain_mean"]) == pytest.approx(gains.mean(), abs=5e-5)
    sources = seeds["0.1"]["source"].split("; ")
    assert len(sources) == 6 and all((workplace.results / source).is_file() for source in sources)
    checks = {
        line["check"]: line
        for line in table(workplace, "claims")
        if line["claim"] == "c" and line["passed"] != "not run"
    }
    published, final, best = checks.values()
    assert published["measured"].startswith("2 of 5 clip norms; 0.93 to 0.95") and published["passed"] == "False"
    assert final["measured"].startswith("3 of 5 clip norms") and final["passed"] == "True"
    assert best["passed"] == "False" and "best accuracy" in best["check"]
    page = (workplace.results / "report.html").read_text()
    assert published["measured"] in page and "0 of 4 checks (3 not run), 1 of 6 controls (4 not run)" in page


# --- the kept results ---


def test_the_kept_tables_are_those_of_the_kept_results(kept_report):
    workplace, done = kept_report
    assert [line.split(" (")[0] for line in done.stderr.splitlines()] == [
        f"left out: {workplace.results}/ipoisoning/label-flips/notes.txt"
    ]
    for kept in sorted((REPOSITORY / "results/tables").glob("*.csv")):
        made = workplace.results / "tables" / kept.name
        if kept.stem in ("models", "other_models"):  # their sources are relative to the results
            without = [pd.read_csv(path, dtype=str).drop(columns="source") for path in (made, kept)]
            pd.testing.assert_frame_equal(*without)
        else:
            assert made.read_bytes() == kept.read_bytes(), f"{kept.name}: python3 report.py"
    readme = (REPOSITORY / "README.md").read_text()
    judged = re.findall(r"^\((.)\) (.{48})(.{20})controls (.{14})(.*)$", done.stdout, re.MULTILINE)
    assert len(judged) == 6
    for letter, title, *verdict in judged:
        assert f"| ({letter}) {title.strip()} | {' | '.join(text.strip() for text in verdict)} |" in readme
    page = (workplace.results / "report.html").read_text()
    for source in {
        line["source"] for line in table(workplace, "indiscriminate")
    }:  # each cell of the paper's seed has its file
        assert (workplace.results / source).is_file() and source in page


def test_deleted_results_are_not_run(workplace):
    copy_kept(workplace.results)
    for folder in (
        "ipoisoning/slabs",
        "analysis/insertion",
        "analysis/collision/pairs_of_100",
        "tpoisoning/clean-labels/oneshot",
    ):
        shutil.rmtree(workplace.results / folder)
    (workplace.results / "figures").mkdir()
    workplace.report("figures.plotting.save = lambda _, path: path.touch()")
    gone = {
        "indiscriminate": lambda line: line["attack"] == "slabs",
        "gradients": lambda line: line["analysis"] == "insertion" or line["set"] == "pairs_of_100",
        "insertion": lambda line: True, "tpoisoning": lambda line: line["mode"] == "oneshot",
    }  # fmt: skip
    for name, is_gone in gone.items():
        before, after = (table(place, name) for place in (Workplace(REPOSITORY), workplace))
        for line in after:
            assert (line["verdict"] == "not run" and line["source"] == "") == (
                is_gone(line) or line in before and line["verdict"] == "not run"
            ), line
        published = [
            line
            for line in before
            if is_gone(line) and any(line[column] for column in line if column.startswith("published"))
        ]
        assert len([line for line in after if is_gone(line)]) >= len(published) > 0
    drawn = {path.stem for path in (workplace.results / "figures").iterdir()}
    assert "indiscriminate_slabs" not in drawn and {"indiscriminate_label-flips", "poisons_needed"} <= drawn
    assert {line["verdict"] for line in table(workplace, "models")} == {"not run"}  # here are no models


def test_readers_of_results_do_not_import_tensorflow(workplace):
    for script in ("report", "analyze_gradients"):
        code = f"import sys, {script}; assert 'tensorflow' not in sys.modules"
        workplace.succeed("python3", "-c", code, python=sys.executable)


# --- targeted attacks ---

TRIALS_HEADER = (
    "target", "poison", "success", "base_prob_before", "target_prob_before", "base_prob_after", "target_prob_after",
    "epoch", "test_acc", "epsilon",
)  # fmt: skip


def trials(workplace, mode, shaped, target, successes, **changes):
    """The results of a target: trials 0 to 3, of which some succeeded."""
    settings, model, changes = training("purchases-cj", "lr", shaped, **{"epochs": 50, **changes})
    more = {
        "attack": "clean-labels", "mode": mode, "target": target, "base_class": 3, "target_class": 4,
        "budget": "0.1_2000_3.5_100_1e-10", "poisons": 100, "clean_rows": 10000, "poison_sha256": f"{target:064}",
        "model": model, "model_sha256": "0" * 64, "baseline_acc": 0.71,
        "stop_at_first": True, "dump": None,
    }  # fmt: skip
    settings = {**settings, **more, **changes}
    path = place(workplace, settings)
    write_csv(
        path,
        TRIALS_HEADER,
        [(target, poison, poison in successes, 0.9, 0.1, 0.1, 0.9, 7, 0.7, "inf") for poison in range(4)],
    )
    return finish(path, settings)


def test_targeted_attacks_are_counted_by_target(workplace):
    for target in range(100):
        trials(workplace, "oneshot", "undefended", target, [1, 3] if target < 40 else [])
    for target, successes in enumerate(([2], [3], [0, 1], [])):
        trials(workplace, "multipoison", "undefended", target, [1])
        trials(workplace, "multipoison", "0.1", target, successes)
        trials(workplace, "multipoison", "0.1", target, successes, learning_rate=0.04)
        trials(workplace, "multipoison", "0.1", target, [1], epochs=25)
    trials(workplace, "multipoison", "0.1", 9, [1]).write_text("cut off")
    done = workplace.report()
    assert done.stderr.count("left out") == 1 and "attack_w_9.csv" in done.stderr
    lines = {}
    for line in table(workplace, "tpoisoning"):
        lines.setdefault((line["mode"], line["network"], line["shaping"]), []).append(line)
    undefended, not_run = lines["oneshot", "lr", "undefended"]
    assert undefended["clip_norm"] == "inf"
    names = ("targets", "successes", "without_poison", "median_poisons", "median_epoch")
    assert [undefended[name] for name in names] == ["100", "40", "0", "1.0", "7.0"]
    assert undefended["published_successes"] == "34" and undefended["verdict"] == "within"
    assert (not_run["epochs"], not_run["verdict"]) == ("25", "not run")
    protocol, same_rate, short, same_rate_short = lines["multipoison", "lr", "0.1"]
    assert [protocol[name] for name in ("targets", "successes", "without_poison", "median_poisons")] == [
        "4",
        "3",
        "1",
        "2.0",
    ]
    assert (
        protocol["verdict"] == "unfinished"
        and same_rate_short["verdict"] == "not run"
        and protocol["published_successes"] == "71"
    )
    assert (undefended["saturated"], protocol["saturated"]) == ("False", "True")  # all four fall undefended
    assert protocol["published_median_poisons"] == "3.0"  # of the nineteen targets that are published
    assert same_rate["learning_rate"] == "0.04" and same_rate["published_successes"] == ""
    assert short["epochs"] == "25" and short["successes"] == "4" and short["published_successes"] == ""
    assert len(list(workplace.results.glob(protocol["source"]))) == 5  # one of them is damaged
    (noisy,) = lines["multipoison", "shallow-mlp", "4:0.25"]
    assert noisy["verdict"] == "not run" and noisy["published_successes"] == "25" and noisy["targets"] == ""
    assert sum(line["verdict"] == "not run" for group in lines.values() for line in group) == 24 + 12


# --- identity: the paper's tables take what the protocol gives, all else stands apart ---

COMPARED = (
    "indiscriminate", "seeds", "crafting", "gradients", "nulls", "insertion", "tpoisoning", "models", "claims",
    "claims_by_seed",
)  # fmt: skip
OTHERS = ("other_trainings", "other_gradients", "other_targeted", "other_models")
KEPT_MODEL = REPOSITORY / "models/subtask/vanilla_lr_300_40_0.01"


def tables_of(workplace):
    return {path.stem: path.read_bytes() for path in sorted((workplace.results / "tables").glob("*.csv"))}


@pytest.fixture(scope="module")
def protocol_only(tmp_path_factory):
    """Results of the protocol alone, and the tables that they give."""
    workplace = Workplace(tmp_path_factory.mktemp("protocol"))
    for seed in (215, 1, 2):
        for shaped, best in (("undefended", 0.94), ("0.1", 0.95), ("1", 0.95), ("2", 0.93)):
            cell(workplace, [best, best - 0.01 + seed / 1e5], shaped=shaped, seed=seed)
    cell(workplace, [0.93, 0.92], ratio=0.1)
    cell(workplace, [0.8, 0.7], attack="slabs")
    lines = [(epoch, 100, 0.955, 0.9) for epoch in range(1, 41)]
    analysis(
        workplace, ANALYSIS_HEADER, lines, [(0.1, 6)] * 40, [-0.9] * 40, attack="collision", poison=ALPHA, n_poison=100
    )
    trials(workplace, "oneshot", "0.1", 7, [2])
    shutil.copytree(KEPT_MODEL, workplace.models / "subtask" / KEPT_MODEL.name)
    done = workplace.report()
    tables = tables_of(workplace)
    assert done.stderr == "" and set(tables) == set(COMPARED)
    finished = [line["ratio"] for line in table(workplace, "indiscriminate") if line["best_acc"]]
    assert finished == ["0.1", "0.4", "0.4", "0.4", "0.4", "0.4"] and len(table(workplace, "seeds")) == 4
    return workplace, tables


def with_another(protocol_only, tmp_path, add):
    """The protocol's results and what `add` adds; returns where, what was printed, which further tables were made."""
    workplace = Workplace(tmp_path)
    shutil.copytree(protocol_only[0].folder, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(workplace.results / "tables")
    add(workplace)
    done = workplace.report()
    after = tables_of(workplace)
    assert {name: after[name] for name in COMPARED} == protocol_only[1]
    return workplace, done, set(after) - set(COMPARED)


MINE = {"poison": {}, "poison_set": "mine", "n_poison": 4320}
OF_ANOTHER_SEED = {"poison": {"ratio": 0.4, "seed": 7}}
OF_ALL_CLASSES = {"dataset": "fashion_mnist", "network": "shallow-mlp", "ratio": 0.1}
OWN = {"baseline": "own", "baseline_sha256": "12345678" * 8, "suffix": "_from_12345678"}
OTHER_TRAININGS = {
    "EPOCHS=5": ({"epochs": 5}, {"epochs": "5"}),
    "EPOCHS=100": ({"epochs": 100}, {"epochs": "100", "dataset": layout.SUBTASK}),
    "--learning-rate 0.5": ({"learning_rate": 0.5}, {"learning_rate": "0.5"}),
    "--batch-size 100": ({"batch_size": 100}, {"batch_size": "100", "dataset": layout.SUBTASK}),
    "--engine tfprivacy": ({"engine": "tfprivacy"}, {"engine": "tfprivacy"}),
    "--retrain": ({"start": "retrain", "baseline_sha256": "1" * 64}, {"start": "retrain"}),
    "--baseline FILE": (OWN, {"baseline": "own"}),
    "a set of one's own of as many rows": (MINE, {"poison_set": "mine", "ratio": "0.4"}),
    "a set of another seed": (OF_ANOTHER_SEED, {"poison": "ratio=0.4 seed=7"}),
    "noise without clipping": (
        {"shaped": "undefended:noise_std=0.1"},
        {"shaping": "undefended:noise_std=0.1", "clip_norm": "inf"},
    ),
    "all of Fashion-MNIST": (OF_ALL_CLASSES, {"ratio": "0.1", "dataset": "fashion_mnist", "n_poison": "6000"}),
}


def the_line(lines, expected):
    """The one line of a table that has these values."""
    [line] = [line for line in lines if {name: line[name] for name in expected} == expected]
    return line


def test_other_trainings_stand_apart(protocol_only, tmp_path):
    def add(workplace):
        for changes, _ in OTHER_TRAININGS.values():
            for seed, accuracy in ((215, 0.5), (1, 0.6)):
                cell(workplace, [accuracy, 0.4], **{"shaped": "0.1", "seed": seed, **changes})

    workplace, done, others = with_another(protocol_only, tmp_path, add)
    assert done.stderr == "" and others == {"other_trainings"}
    lines = table(workplace, "other_trainings")
    assert len(lines) == len(OTHER_TRAININGS)
    names = ("seeds", "best_acc_mean", "best_acc_ci95", "final_acc_mean")
    for _, expected in OTHER_TRAININGS.values():
        assert [the_line(lines, expected)[name] for name in names] == ["2", "0.55", "", "0.4"]
    assert "other_trainings" in (workplace.results / "report.html").read_text()


def test_three_seeds_of_another_training_have_an_interval(protocol_only, tmp_path):
    def add(workplace):
        for seed, accuracy in ((215, 0.5), (1, 0.6), (2, 0.7)):
            cell(workplace, [accuracy, 0.4], shaped="4", seed=seed, epochs=5)
        cell(workplace, [0.3, 0.2], shaped="4", epochs=6)

    workplace, *_ = with_another(protocol_only, tmp_path, add)
    lines = {line["epochs"]: line for line in table(workplace, "other_trainings")}
    assert [lines["5"][name] for name in ("seeds", "best_acc_mean", "best_acc_ci95")] == ["3", "0.6", "0.2484"]
    assert [lines["6"][name] for name in ("seeds", "best_acc_mean", "best_acc_ci95")] == ["1", "0.3", ""]


COLLISION = {"attack": "collision", "poison": ALPHA, "n_poison": 100}
USUAL = {"dataset": layout.SUBTASK, "epochs": "40", "poison": "alpha=0.4 task=pairs_of_100"}
OTHER_GRADIENTS = {
    "EPOCHS=2": ({"epochs": 2}, {"epochs": "2"}),
    "EPOCHS=100": ({"epochs": 100}, {"epochs": "100", "dataset": layout.SUBTASK}),
    "SEED=3": ({"seed": 3}, USUAL),
    "another alpha": ({"poison": {**ALPHA, "alpha": 0.3}}, {"poison": "alpha=0.3 task=pairs_of_100"}),
    "another network": ({"dataset": "fashion_mnist", "network": "badnet"}, {"network": "badnet"}),
    "a set of one's own": ({"attack": "label-flips", **MINE}, {"poison_set": "mine"}),
}


def test_other_analyses_stand_apart(protocol_only, tmp_path):
    def add(workplace):
        for changes, _ in OTHER_GRADIENTS.values():
            analysis(workplace, ANALYSIS_HEADER, LINES, [(0.1, 60)] * 2, [0.3] * 2, **{**COLLISION, **changes})

    workplace, done, others = with_another(protocol_only, tmp_path, add)
    assert done.stderr == "" and others == {"other_gradients"}
    lines = table(workplace, "other_gradients")
    assert len(lines) == len(OTHER_GRADIENTS)
    for _, expected in OTHER_GRADIENTS.values():
        line = the_line(lines, expected)
        assert [line[f"{name}_mean"] for name in ("mean_norm_ratio", "mean_cosine", "final_acc")] == [
            "600.0",
            "0.3",
            "0.94",
        ]


OTHER_TARGETED = ({"budget": "0.1_2000_3.5_3_1e-10"}, {"batch_size": 50}, {"target_class": 5}, {"seed": 3})


def test_other_targeted_attacks_stand_apart(protocol_only, tmp_path):
    def add(workplace):
        for changes in OTHER_TARGETED:
            trials(workplace, "oneshot", "0.1", 8, [1], **changes)

    workplace, done, others = with_another(protocol_only, tmp_path, add)
    assert done.stderr == "" and others == {"other_targeted"}
    lines = table(workplace, "other_targeted")
    assert len(lines) == len(OTHER_TARGETED)
    for changes in OTHER_TARGETED[:-1]:
        line = the_line(lines, {name: str(value) for name, value in changes.items()})
        assert (line["targets"], line["successes"], line["median_poisons"]) == ("1", "1", "1.0")
    shutil.rmtree(workplace.results / "tpoisoning")  # their table goes with them
    (workplace.results / "tables/mine.csv").write_text("a\n1\n")
    workplace.report()
    assert "other_targeted" not in tables_of(workplace) and tables_of(workplace)["mine"] == b"a\n1\n"


def model_of(workplace, **changes):
    """A clean model like the kept one, with other settings."""
    config = json.loads((KEPT_MODEL / "config.json").read_text())
    config.pop("checksum")
    settings, name, _ = training(**changes)
    folder = workplace.models / "subtask" / name
    shutil.copytree(KEPT_MODEL, folder)
    write_json(folder / "config.json", {**config, **settings, "best_test_acc": 0.5})


OTHER_MODELS = ({"epochs": 5}, {"learning_rate": 0.5}, {"batch_size": 100}, {"seed": 3})


def test_other_models_stand_apart(protocol_only, tmp_path):
    workplace, done, others = with_another(
        protocol_only, tmp_path, lambda place: [model_of(place, **changes) for changes in OTHER_MODELS]
    )
    assert done.stderr == "" and others == {"other_models"}
    lines = table(workplace, "other_models")
    assert len(lines) == len(OTHER_MODELS) and {line["best_acc_mean"] for line in lines} == {"0.5"}
    for changes in OTHER_MODELS[:-1]:
        the_line(lines, {name: str(value) for name, value in changes.items()})


def copied_cell(workplace):
    path = place(workplace, poisoned(shaped="0.1"))
    shutil.copytree(path.parent, path.parent.with_name("copy"))
    return path.parent.with_name("copy") / path.name


def cell_of_another_set(workplace):
    """A cell in the folder of another poison set, in place of the cell that belongs there."""
    path = place(workplace, poisoned(shaped="0.1"))
    other = place(workplace, poisoned(shaped="0.1", ratio=0.3))
    shutil.copytree(path.parent, other.parent)
    return other


def copied_model(workplace):
    copy = workplace.models / "subtask" / f"{KEPT_MODEL.name} (copy)"
    shutil.copytree(KEPT_MODEL, copy)
    return copy / "config.json"


@pytest.mark.parametrize("copy", (copied_cell, cell_of_another_set, copied_model))
def test_copies_are_left_out_and_named(copy, protocol_only, tmp_path):
    left_out = []
    workplace, done, others = with_another(protocol_only, tmp_path, lambda place: left_out.append(copy(place)))
    [line] = done.stderr.splitlines()
    name = os.path.relpath(left_out[0], workplace.results)
    assert line.startswith("left out: ") and name in line and "misplaced" in line and others == set()
    assert name in (workplace.results / "report.html").read_text()


def test_a_damaged_model_is_left_out_and_named(protocol_only, tmp_path):
    def add(workplace):
        model_of(workplace, epochs=5)
        (workplace.models / "subtask/vanilla_lr_300_5_0.01/history.csv").write_text(
            "epoch,test_acc,train_acc,epsilon\n9,1,1,inf\n"
        )

    _, done, others = with_another(protocol_only, tmp_path, add)
    assert done.stderr.count("left out") == 1 and "vanilla_lr_300_5_0.01" in done.stderr and others == set()


def test_an_attack_of_ones_own_stands_in_the_sweep_as_unpublished(protocol_only, tmp_path):
    """Its poison set is the one that it makes by default; a set made otherwise stands apart."""
    default = attacks()["slabs-release"].settings(layout.SUBTASK, 0.4, 215)
    other = {name: value for name, value in default.items() if name not in ("attack", "dataset")}
    workplace = Workplace(tmp_path)
    cell(workplace, [0.9, 0.8], attack="slabs-release", shaped="0.5")
    cell(workplace, [0.9, 0.7], attack="slabs-release", shaped="0.5", poison={**other, "quantile": 0.5})
    workplace.report()
    [line] = [line for line in table(workplace, "indiscriminate") if line["best_acc"]]
    assert (line["attack"], line["shaping"], line["final_acc"], line["verdict"]) == (
        "slabs-release",
        "0.5",
        "0.8",
        "unpublished",
    )
    [line] = table(workplace, "other_trainings")
    assert "quantile=0.5" in line["poison"] and line["final_acc_mean"] == "0.7"


def test_kinds_of_shaping_stand_beside_each_other_seed_by_seed(workplace):
    """Two kinds on clean rows and flips; one collapses for one seed of three, and a noisy clip has no clean price."""
    clean = {"attack": "none", "poison": {}, "poison_set": "none", "n_poison": 0, "ratio": 0}
    epochs = PROTOCOLS[layout.SUBTASK, "lr"].epochs
    finals = {"undefended": (0.90, 0.91, 0.92), "phuber:2+clip:1": (0.95, 0.80, 0.96), "4:0.1": (0.9, 0.9, 0.9)}
    for shaped, values in finals.items():
        for seed, final in enumerate(values, 1):
            if shaped != "4:0.1":
                cell(workplace, [0.94] * (epochs - 1) + [0.95], shaped=shaped, seed=seed, **clean)
            cell(workplace, [0.93] * (epochs - 1) + [final], shaped=shaped, seed=seed)
    cell(workplace, [0.5], shaped="undefended", seed=4)  # no other kind has this seed
    workplace.report()
    lines = {(line["shaping"], line["attack"]): line for line in table(workplace, "matrix")}
    assert list(lines) == [
        ("undefended", "label-flips"), ("undefended", "none"), ("phuber:2+clip:1", "label-flips"),
        ("phuber:2+clip:1", "none"),
    ]  # fmt: skip
    lines = {(attack, text): line for (text, attack), line in lines.items()}
    mine = lines["label-flips", "phuber:2+clip:1"]
    assert mine["finals"] == "0.9500 0.8000 0.9600" and mine["seeds"] == "3"
    assert mine["gains"] == "0.0500 -0.1100 0.0400"
    assert float(mine["collapsed"]) == round(1 / 3, 4) and float(lines["none", "phuber:2+clip:1"]["collapsed"]) == 0
    gains = np.array([0.05, -0.11, 0.04])
    half = stats.t.ppf(0.975, 2) * gains.std(ddof=1) / math.sqrt(3)
    assert float(mine["gain_mean"]) == round(gains.mean(), 4)
    assert float(mine["gain_ci95"]) == pytest.approx(half, abs=6e-5)
    page = (workplace.results / "report.html").read_text()
    assert 'href="matrix.html"' in page and "phuber:2+clip:1" in (workplace.results / "matrix.html").read_text()


# --- what others may have put among the results ---


def changed(old, change):
    """What a change makes of a text or of bytes; it must change them, though kept numbers may be other ones one day."""
    new = change(old)
    assert new != old, old[:200]
    return new


def run_with(workplace, ratio, text=None, **settings):
    """A finished cell of the sweep of this ratio, with other settings or another text, vouched for by its run.json."""
    path = cell(workplace, [0.93, 0.94], shaped="0.1", ratio=ratio)
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else changed(path.read_text(), text).encode())
    return finish(path, {**poisoned(shaped="0.1", ratio=ratio), **settings})


def swapped(old, new):
    return lambda text: text.replace(old, new, 1)


def below(workplace, *names, content=b"x"):
    path = workplace.results.joinpath(*names)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def pipe(workplace, *names):
    path = below(workplace, *names)
    path.unlink()
    os.mkfifo(path)
    return path


def deep(workplace):
    path = workplace.results / "analysis"
    for _ in range(40):
        path /= "deep"
    path.mkdir(parents=True)
    return path.parents[40 - 18]


def copied_kept(workplace, name, change):
    """The first lines of one of the repository's plain tables, with a change."""
    kept = (layout.REPOSITORY / "results" / name).read_bytes().splitlines(keepends=True)[:4]
    return below(workplace, name, content=changed(b"".join(kept), change))


def model_with(workplace, **config):
    folder = workplace.models / "subtask" / f"{KEPT_MODEL.name}_{next(iter(config))}"
    shutil.copytree(KEPT_MODEL, folder)
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**known, "checksum": None, **config}))
    return folder / "config.json"


def folded_with(workplace, name, change):
    """Two seeds folded into tables of an attack of their own, one of which is changed."""
    for seed in (1, 2):
        cell(workplace, [0.93], attack="minmax", seed=seed)
    workplace.succeed("python3", "-m", "results.fold")
    path = workplace.results / "ipoisoning/minmax" / name
    path.write_bytes(changed(path.read_bytes(), change))
    return path


LONG = "9" * 200_000
HOSTILE = {  # what puts a file among the results, and why it must be left out
    "an epoch of 1.5": (lambda w: run_with(w, 0.01, swapped("\n2,", "\n1.5,")), "whole numbers"),
    "an epoch twice": (lambda w: run_with(w, 0.01, swapped("\n2,", "\n1,")), "1, 2, 3"),
    "a baseline of NaN": (lambda w: run_with(w, 0.01, swapped("0.955", "nan")), "baseline_acc is NaN"),
    "a setting of NaN": (lambda w: run_with(w, 0.01, baseline_acc=math.nan), "cannot be read"),
    "an accuracy of 93": (lambda w: run_with(w, 0.01, swapped("0.93", "93")), "share of 1"),
    "no UTF-8": (lambda w: run_with(w, 0.01, b"epoch,test_acc\n1,\xff\n"), "altered"),
    "a long field": (lambda w: run_with(w, 0.01, swapped("0.93", LONG)), "numbers and words"),
    "quotes over lines": (lambda w: run_with(w, 0.01, swapped("0.93", '"0.93')), "numbers and words"),
    "columns of one name": (lambda w: run_with(w, 0.01, swapped("n_poison", "epoch")), "names of their own"),
    "a list for a number": (lambda w: run_with(w, 0.01, epochs=[40]), "not numbers"),
    "a number for a text": (lambda w: run_with(w, 0.01, network=4), "another kind"),
    "another shaping": (lambda w: run_with(w, 0.01, clip_norm=3.0), "contradict"),
    "an unknown shaping": (lambda w: run_with(w, 0.01, shaping="unknown:3"), "not known here"),
    "a formula": (lambda w: run_with(w, 0.01, optimizer="=cmd()"), "no settings"),
    "an escape": (lambda w: run_with(w, 0.01, optimizer="\x1b[31mred"), "no settings"),
    "a pipe": (lambda w: pipe(w, "ipoisoning/minmax/runs.csv"), "no plain file"),
    "a pipe for a result": (lambda w: pipe(w, "ipoisoning/a/b/c/attack_results.csv"), "no plain file"),
    "a pipe for a null": (lambda w: pipe(w, "analysis/nulls/x.csv"), "no plain file"),
    "deep folders": (deep, "folders deep"),
    "a result in param_updates": (
        lambda w: below(w, "analysis/collision/param_updates/attack_results.csv"), "no run.json"),
    "a note in param_updates": (lambda w: below(w, "analysis/a/b/param_updates/notes.txt"), "nothing of this suite"),
    "a name of lines": (lambda w: below(w, "ipoisoning/a\nleft out: b\x1b[2J.txt"), "nothing of this suite"),
    "a name of bytes": (lambda w: below(w, os.fsdecode(b"ipoisoning/\xff.csv")), "nothing of this suite"),
    "a folded table of bytes": (lambda w: folded_with(w, "runs.csv", lambda old: b"\xff" + old), "UTF-8"),
    "a folded table of long lines": (
        lambda w: folded_with(w, "runs.csv", lambda old: old + b"3," * 600_000 + b"\n"), "more than 1 MiB"),
    "a longer folded line": (
        lambda w: folded_with(w, "runs.csv", lambda old: old.replace(b"\n2,", b"\n2,,", 1)), "columns of its header"),
    "a null without numbers": (
        lambda w: copied_kept(w, "analysis/nulls/fashion_mnist_badnet_retrain_600_undefended.csv",
                              lambda old: re.sub(rb",1,1,[0-9.]+,", b",1,1,=cmd(),", old)), "column norm_ratio"),
    "a null of half draws": (
        lambda w: copied_kept(w, "analysis/nulls/fashion_mnist_badnet_retrain_600_undefended.csv",
                              lambda old: old.replace(b",1,1,", b",1.5,1,")), "column draw"),
    "a data set of words": (
        lambda w: copied_kept(w, "analysis/datasets/purchases-cj_lr.csv",
                              lambda old: old.replace(b"0.7239", b"good")), "column best_acc"),
    "a certificate of words": (
        lambda w: copied_kept(w, "certificates/fashion_mnist_partition.csv",
                              lambda old: old.replace(b",100,", b",@x,", 1)), "column poisons"),
    "prices without a column": (
        lambda w: copied_kept(w, "matrix/price.csv", lambda old: old.replace(b"price", b"=cmd()")), "columns are not"),
    "crafting of words": (
        lambda w: copied_kept(w, "ipoisoning/minmax/crafting.csv", lambda old: old.replace(b",0.01,", b",x,", 1)),
        "column ratio"),
    "a model of lists": (lambda w: model_with(w, epochs=[40]), "not numbers"),
    "a model of NaN": (lambda w: model_with(w, best_test_acc=math.nan), "does not say"),
    "a model of words": (lambda w: model_with(w, best_test_acc="good"), "no share"),
    "a model of another shaping": (lambda w: model_with(w, shaping="unknown:3"), "not known here"),
}  # fmt: skip

TOGETHER = (
    "a baseline of NaN", "a pipe", "a pipe for a result", "a pipe for a null", "deep folders", "a name of lines",
    "a result in param_updates", "a note in param_updates", "a name of bytes", "a null without numbers",
    "a data set of words", "a certificate of words", "prices without a column", "crafting of words",
    "a model of lists", "a model of NaN", "a model of another shaping",
)  # fmt: skip


def left_out_lines(stderr):
    """The lines of standard error, all of which name a file that is left out, in characters that a terminal shows."""
    lines = stderr.removesuffix("\n").split("\n")
    assert all(line.startswith("left out: ") and line.isprintable() for line in lines), stderr
    return lines


def reading_of(workplace, monkeypatch):
    """What the report reads, in this process."""
    from reports import reading
    from results import folded

    monkeypatch.setattr(layout, "RESULTS", workplace.results)
    monkeypatch.setattr(layout, "ANALYSIS", workplace.results / "analysis")
    monkeypatch.setattr(layout, "MODELS", workplace.models)
    folded._READ.clear()
    import report

    results = reading.read()
    tables = [table for part in report.PARTS for table in part.tables(results)]
    return results, {table.name: table for table in tables}


@pytest.mark.parametrize("what", HOSTILE)
def test_one_hostile_file_is_left_out_and_named_and_no_other(what, workplace, monkeypatch):
    cell(workplace, [0.9, 0.91], shaped="0.1", ratio=0.4)
    put, why = HOSTILE[what]
    path = put(workplace)
    results, tables = reading_of(workplace, monkeypatch)
    [left_out] = [pair for pair in results.left_out if why in pair[1]]
    name = os.path.relpath(path, workplace.results)
    assert left_out[0] == name or not name.isprintable() and "\\" in left_out[0], (left_out, name)
    assert len(results.left_out) == 1
    assert all(place.isprintable() and reason.isprintable() for place, reason in results.left_out)
    assert (tables["indiscriminate"].frame.best_acc == 0.91).sum() == 1


def test_the_report_of_everything_hostile_at_once(workplace):
    """Every file is named, nothing is taken, the page and the tables are written."""
    cell(workplace, [0.9, 0.91], shaped="0.1", ratio=0.4)
    paths = [HOSTILE[what][0](workplace) for what in TOGETHER]
    done = workplace.succeed("python3", "report.py")
    lines = left_out_lines(done.stderr)
    assert len(lines) == len(paths) and sum("runs.csv" in line for line in lines) == 1
    page = (workplace.results / "report.html").read_text()
    assert f"{len(lines)} files were left out" in page and "\x1b" not in page
    flips = [line for line in table(workplace, "indiscriminate") if line["attack"] == "label-flips" and line["source"]]
    assert [line["best_acc"] for line in flips] == ["0.91"]


def test_no_text_of_a_table_is_a_formula_or_a_link_elsewhere(tmp_path, monkeypatch):
    from reports import Table

    monkeypatch.setattr(layout, "RESULTS", tmp_path)
    texts = ["=cmd()", "+cmd", "-cmd", "@x", "-1+cmd|' /C calc'!A0", "-0.5 to 0.5; x -0.25", "-0.5", "0.1 -0.2", "a=b"]
    Table("mine", ["text", "number"], pd.DataFrame({"text": texts, "number": -1.5})).write()
    with open(tmp_path / "tables/mine.csv", newline="") as stream:
        found = [line["text"] for line in csv.DictReader(stream)]
    assert found == [f"'{text}" for text in texts[:5]] + texts[5:]


def test_links_on_the_page_are_quoted(workplace):
    cell(workplace, [0.9], shaped="0.1")
    odd = {"ratio": 0.4, "seed": 215, "name": 'a" onmouseover="x'}
    cell(workplace, [0.9], shaped="0.1", poison=odd, poison_set="a#b?c%20 <d>")
    workplace.report()
    page = (workplace.results / "report.html").read_text()
    assert "a%23b%3Fc%2520%20%3Cd%3E" in page and 'onmouseover="x' not in page
