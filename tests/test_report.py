"""The report: what it reads, leaves out and concludes, on results made for the purpose."""

import collections
import csv
import re
import shutil
import time

import numpy as np
import pytest
from conftest import REPOSITORY
from scipy import stats

from files import file_sha256, write_csv, write_json
from results import layout

ATTACK_HEADER = ("epoch", "n_poison", "baseline_acc", "test_acc", "train_acc_clean", "train_acc_poison", "epsilon")


VERSIONS = {"python": "3.11.7", "tensorflow": "2.15.1", "numpy": "1.26.4"}


def finish(path, settings, versions=None):
    """Write the run.json of a CSV file of results."""
    usual = {"batch_size": 300, "epochs": 40, "learning_rate": 0.01, "network": "lr", "seed": 215, "engine": "stack", "clip_norm": None}
    settings = {**usual, "noise_multiplier": 0.0, "baseline_acc": 0.955, **settings}
    results = {path.name: file_sha256(path)}
    write_json(layout.run_file(path), {"settings": settings, "results": results, "versions": versions or VERSIONS})


def cell(workplace, ratio, clip_norm, noise_multiplier, accuracies, attack="label-flips", seed=215, versions=None):
    """A cell of the indiscriminate sweep, its test accuracies as given."""
    count = round(10800 * ratio)
    model = layout.model_name("lr", 300, 40, 0.01, seed, clip_norm, noise_multiplier)
    poison_set = layout.seeded(f"fashion_mnist_3_4.1.0_random_{ratio}", seed)
    path = workplace.results / "ipoisoning" / attack / poison_set / model / "attack_results.csv"
    write_csv(path, ATTACK_HEADER, [(epoch, count, 0.955, accuracy, 0.9, 0.1, "inf") for epoch, accuracy in enumerate(accuracies, 1)])
    settings = {"attack": attack, "poison_set": poison_set, "n_poison": count, "clip_norm": clip_norm, "noise_multiplier": noise_multiplier}
    finish(path, {**settings, "seed": seed}, versions)
    return path


def table(workplace, name):
    with open(workplace.results / "tables" / f"{name}.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_verdicts(workplace):
    cell(workplace, 0.4, 0.1, 0.0, [0.93, 0.94, 0.935])
    cell(workplace, 0.4, 2.0, 0.0, [0.9, 0.91, 0.92])
    cell(workplace, 0.4, 100.0, 0.001, [0.93])
    cell(workplace, 0.4, None, 0.0, [0.93, 0.955, 0.92])
    done = workplace.succeed("python3", "report.py")
    flips = [line for line in table(workplace, "indiscriminate") if line["attack"] == "label-flips"]
    lines = {(line["ratio"], line["clip_norm"], line["noise_multiplier"]): line for line in flips}
    settings = (("0.1", "0.0"), ("2.0", "0.0"), ("100.0", "0.001"), ("undefended", "0.0"))
    near, far, unclipped, undefended = (lines[("0.4", *setting)] for setting in settings)
    shown = [near[name] for name in ("best_acc", "final_acc", "published_best_acc", "difference", "verdict")]
    assert shown == ["0.94", "0.935", "0.9425", "-0.0025", "within"]
    assert (far["verdict"], far["difference"]) == ("outside", "-0.023") and near["baseline_reached_at_epoch"] == "never"
    assert (
        unclipped["verdict"] == "shown only" and undefended["verdict"] == "unpublished" and undefended["baseline_reached_at_epoch"] == "2"
    )
    assert (workplace.results / near["source"]).exists()
    assert collections.Counter(line["verdict"] for line in lines.values()) == {
        "within": 1,
        "outside": 1,
        "shown only": 1,
        "unpublished": 1,
        "not run": 222,
    }
    assert "1 of 2 published rows within tolerance, 1 shown only" in done.stdout
    for suffix in ("png", "pdf"):
        assert (workplace.results / f"figures/indiscriminate_label-flips.{suffix}").stat().st_size > 5000


def damaged(workplace, path, damage):
    """Do something to the results at `path`; returns which file must be left out, and why."""
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
    if damage == "settings missing":
        write_json(run_file, {"settings": {"attack": "label-flips"}, "results": {path.name: file_sha256(path)}})
        return path, "does not say: network, batch_size"
    if damage == "settings of another kind":
        finish(path, {"attack": "label-flips", "poison_set": "x", "n_poison": 9, "clip_norm": "a lot"})
        return path, "settings that are not numbers"
    if damage == "other columns":
        path.write_text("a,b\n1,2\n")
        finish(path, {"attack": "label-flips", "poison_set": "x", "n_poison": 9})
        return path, "it has no column epoch"
    if damage == "words":
        path.write_text(content.replace("0.93", "good"))
        finish(path, {"attack": "label-flips", "poison_set": "x", "n_poison": 9})
        return path, "something else than numbers"
    if damage == "unknown model":
        moved = path.parent.with_name("resnet_300_40_0.01")
        path.parent.rename(moved)
        return moved / path.name, "unknown model name resnet_300_40_0.01"
    if damage == "misplaced":
        moved = workplace.results / "ipoisoning" / path.parent.name
        path.parent.rename(moved)
        return moved / path.name, "misplaced"
    if damage == "half written":
        half = path.with_name(f"{path.name}.4711.writing")
        path.rename(half)
        return half, "half written"
    if damage == "other versions":
        return cell(workplace, 0.4, 0.1, 0.0, [0.9, 0.91], versions={**VERSIONS, "tensorflow": "2.9.0"}), "made with tensorflow 2.9.0"
    foreign = path.with_name("notes.txt")  # and nothing else is there
    path.unlink()
    foreign.write_text("to do")
    return foreign, "nothing of this suite is called so"


DAMAGES = (
    "truncated", "no run.json", "broken run.json", "settings missing", "settings of another kind", "other columns", "words", "unknown model", "misplaced",
    "half written", "other versions", "foreign file",
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_or_foreign_is_left_out_and_named_on_the_page(damage, workplace):
    path = cell(workplace, 0.4, 0.1, 0.0, [0.93, 0.94])
    for clip_norm in (0.1, 1.0):
        cell(workplace, 0.1, clip_norm, 0.0, [0.94, 0.95])
    left_out, why = damaged(workplace, path, damage)
    done = workplace.succeed("python3", "report.py")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"left out: {left_out} (") and why in line
    page = (workplace.results / "report.html").read_text()
    assert str(left_out.relative_to(workplace.results)) in page and why in page
    finished = [(line["ratio"], line["verdict"]) for line in table(workplace, "indiscriminate") if line["best_acc"]]
    assert finished == [("0.1", "within"), ("0.1", "within")]


def test_nothing_run_is_no_error(workplace):
    done = workplace.succeed("python3", "report.py")
    assert done.stderr == "" and {line["verdict"] for line in table(workplace, "indiscriminate")} == {"not run"}
    assert {line["passed"] for line in table(workplace, "claims")} == {"not run"}
    assert sum(line.startswith("(") and "controls not run" in line for line in done.stdout.splitlines()) == 6
    assert [path.name for path in sorted((workplace.results / "figures").iterdir())] == ["poisons.pdf", "poisons.png"]
    published = [line for line in table(workplace, "gradients") if line["set"] == "label-flips"]
    assert sorted((line["published_mean_norm_ratio"], line["mean_norm_ratio"]) for line in published) == [("1.8374", ""), ("2.2986", "")]


def analysis(workplace, place, header, lines, magnitudes, cosines):
    folder = workplace.results / "analysis" / place
    write_csv(folder / "analysis_results.csv", header, lines)
    write_csv(folder / "mextracts_epoch.csv", None, magnitudes)
    write_csv(folder / "aextracts_epoch.csv", None, [[cosine] for cosine in cosines])
    kind, _, batch_size, epochs, rate = place.split("/")[-1].split("_")
    settings = {"attack": place.split("/")[0], "network": "badnet" if "badnet" in place else "lr", "n_poison": 100}
    settings.update(batch_size=int(batch_size), epochs=int(epochs), learning_rate=float(rate))
    finish(folder / "analysis_results.csv", settings)


def test_gradients_and_insertion_stand_beside_the_published(workplace):
    header = ("epoch", "n_poison", "baseline_acc", "test_acc")
    place = "collision/pairs_of_100/fashion_mnist_3_4.1.0/alpha_0.4/vanilla_lr_300_40_0.01"
    analysis(workplace, place, header, [(1, 100, 0.955, 0.95), (2, 100, 0.955, 0.94)], [(0.1, 6), (0.2, 6.5)], [-0.9, -1])
    header = ("epoch", "baseline_acc", "test_acc", "baseline_backdoor_acc", "backdoor_acc", "backdoor_acc_other_classes")
    place = "insertion/fashion_mnist/4_0.01_4/vanilla_badnet_100_40_0.01"
    analysis(workplace, place, header, [(1, 0.91, 0.9, 0.1, 0.97, 0.96), (2, 0.91, 0.905, 0.1, 0.99, 0.98)], [(1, 2)] * 2, [0.5] * 2)
    workplace.succeed("python3", "report.py")
    [collision] = [line for line in table(workplace, "gradients") if line["analysis"] == "collision" and line["source"]]
    names = ("analysis", "set", "epochs", "mean_poison_norm", "mean_norm_ratio", "mean_cosine", "published_mean_norm_ratio")
    with open(layout.PUBLISHED / "gradients.csv", newline="") as stream:
        known = [line for line in csv.DictReader(stream) if (line["setting"], line["model"]) == ("alpha_0.4", "vanilla_lr_300_40_0.01")]
    ratios = [float(line["poison_norm"]) / float(line["clean_norm"]) for line in known[:2]]  # as many epochs as were run
    expected = ["collision", "pairs_of_100", "2", "6.25", "46.25", "-0.95", str(round(sum(ratios) / 2, 4))]
    assert [collision[name] for name in names] == expected
    assert len(list(workplace.results.glob(collision["source"]))) == 2 and collision["verdict"] == "outside"
    backdoors = {line["setting"]: line for line in table(workplace, "insertion") if "badnet" in line["model"]}
    assert list(backdoors) == ["4_0.01_1", "4_0.01_4", "4_0.01_7", "4_0.01_10", "4_0.01_14"]
    names = ("final_acc", "first_backdoor_acc", "final_backdoor_acc", "final_backdoor_acc_other_classes", "published_baseline_backdoor_acc")
    assert [backdoors["4_0.01_4"][name] for name in names] == ["0.905", "0.97", "0.99", "0.98", "0.0477"]
    assert backdoors["4_0.01_1"]["published_first_backdoor_acc"] == "0.5705" and backdoors["4_0.01_1"]["final_acc"] == ""


def test_claims_are_judged_over_seeds_and_by_the_last_epoch(workplace):
    for seed in range(1, 6):
        cell(workplace, 0.4, None, 0.0, [0.95, 0.90 + seed / 1000], seed=seed)
        for clip_norm, final in ((0.1, 0.94), (1.0, 0.93), (2.0, 0.92), (4.0, 0.903), (8.0, 0.89)):  # the last two do not gain for sure
            cell(workplace, 0.4, clip_norm, 0.0, [0.95, final + (seed % 2) / 500], seed=seed)
    for clip_norm, best in ((None, 0.94), (0.1, 0.95), (1.0, 0.95), (2.0, 0.93), (4.0, 0.93), (8.0, 0.94)):
        cell(workplace, 0.4, clip_norm, 0.0, [best, 0.9])
    workplace.succeed("python3", "report.py")
    seeds = {line["clip_norm"]: line for line in table(workplace, "seeds")}
    assert [seeds["undefended"][name] for name in ("seeds", "best_acc_mean", "final_gain_mean")] == ["6", "0.9483", ""]
    finals = np.array([0.901, 0.902, 0.903, 0.904, 0.905, 0.9])
    interval = stats.t.interval(0.95, 5, loc=finals.mean(), scale=stats.sem(finals))
    assert float(seeds["undefended"]["final_acc_mean"]) == pytest.approx(finals.mean(), abs=5e-5)
    assert float(seeds["undefended"]["final_acc_ci95"]) == pytest.approx((interval[1] - interval[0]) / 2, abs=5e-5)
    gains = np.array([0.942 - 0.901, 0.94 - 0.902, 0.942 - 0.903, 0.94 - 0.904, 0.942 - 0.905, 0.0])  # of the same seed
    assert float(seeds["0.1"]["final_gain_mean"]) == pytest.approx(gains.mean(), abs=5e-5)
    assert "_random_0.4{,_seed_*}/dp_lr_300_40_0.01_1000.0_1e-05_0.1_0.0{,_seed_*}/attack_results.csv" in seeds["0.1"]["source"]
    checks = {line["check"]: line for line in table(workplace, "claims") if line["claim"] == "c" and line["passed"] != "not run"}
    published, final, best = checks.values()
    assert published["measured"].startswith("2 of 5 clip norms; 0.93 to 0.95") and published["passed"] == "False"
    assert final["measured"].startswith("3 of 5 clip norms") and final["passed"] == "True"
    assert best["passed"] == "False" and "best accuracy" in best["check"]
    page = (workplace.results / "report.html").read_text()
    assert published["measured"] in page and "0 of 4 checks (3 not run), 1 of 6 controls (4 not run)" in page


# --- the kept results ---

PARTS = ("ipoisoning", "analysis", "tpoisoning")


def copy_kept(results):
    """A copy of the results that the repository brings along."""
    for part in PARTS:
        shutil.copytree(REPOSITORY / "results" / part, results / part, ignore=shutil.ignore_patterns("param_updates", "*.png", "*.writing"))


def test_the_kept_tables_are_those_of_the_kept_results_and_deleted_results_are_not_run(workplace):
    copy_kept(workplace.results)
    began = time.monotonic()
    done = workplace.succeed("python3", "report.py", MODELS=REPOSITORY / "models")
    assert done.stderr == "" and time.monotonic() - began < 60  # 9 s on a quiet machine
    for kept in sorted((REPOSITORY / "results/tables").glob("*.csv")):
        if kept.stem != "models":  # its sources are relative to the results
            assert (workplace.results / "tables" / kept.name).read_bytes() == kept.read_bytes(), f"{kept.name}: python3 report.py"
    readme = (REPOSITORY / "README.md").read_text()
    judged = re.findall(r"^\((.)\) (.{48})(.{20})controls (.{14})(.*)$", done.stdout, re.MULTILINE)
    assert len(judged) == 6
    for letter, title, *verdict in judged:
        assert f"| ({letter}) {title.strip()} | {' | '.join(text.strip() for text in verdict)} |" in readme
    page = (workplace.results / "report.html").read_text()
    for source in {line["source"] for line in table(workplace, "indiscriminate")}:
        assert (workplace.results / source).is_file() and source in page
    before = {name: table(workplace, name) for name in ("indiscriminate", "gradients", "insertion", "tpoisoning")}
    for folder in ("ipoisoning/slabs", "analysis/insertion", "analysis/collision/pairs_of_100", "tpoisoning/clean-labels/oneshot"):
        shutil.rmtree(workplace.results / folder)
    workplace.succeed("python3", "report.py")
    gone = {
        "indiscriminate": lambda line: line["attack"] == "slabs", "gradients": lambda line: line["analysis"] == "insertion" or line["set"] == "pairs_of_100",
        "insertion": lambda line: True, "tpoisoning": lambda line: line["mode"] == "oneshot",
    }  # fmt: skip
    for name, lines in before.items():
        after = table(workplace, name)
        for line in after:
            assert (line["verdict"] == "not run" and line["source"] == "") == (
                gone[name](line) or line in lines and line["verdict"] == "not run"
            ), line
        published = [line for line in lines if gone[name](line) and any(line[column] for column in line if column.startswith("published"))]
        assert len([line for line in after if gone[name](line)]) >= len(published) > 0
    figures = {path.stem for path in (workplace.results / "figures").iterdir()}
    assert "indiscriminate_slabs" not in figures and {"indiscriminate_label-flips", "poisons_needed"} <= figures
    assert {line["verdict"] for line in table(workplace, "models")} == {"not run"}  # here are no models


def test_readers_of_results_do_not_import_tensorflow(workplace):
    for script in ("report", "analyze_gradients"):
        workplace.succeed("python3", "-c", f"import sys, {script}; assert 'tensorflow' not in sys.modules")


def test_names_of_the_paper():
    assert layout.model_name("lr", 300, 40, 0.01) == "vanilla_lr_300_40_0.01"
    assert layout.model_name("lr", 300, 40, 0.01, clip_norm=4, noise_multiplier=2.5e-06) == "dp_lr_300_40_0.01_1000.0_1e-05_4.0_2.5e-06"
    assert layout.model_name("lr", 300, 40, 0.01, seed=3, engine="tfprivacy") == "vanilla_lr_300_40_0.01_tfprivacy_seed_3"


# --- targeted attacks ---

TRIALS_HEADER = (
    "target", "poison", "success", "base_prob_before", "target_prob_before", "base_prob_after", "target_prob_after", "epoch", "test_acc", "epsilon",
)  # fmt: skip


def trials(workplace, mode, clip_norm, target, successes, learning_rate=0.08, epochs=50):
    """The results of a target: trials 0 to 3, of which some succeeded."""
    model, budget = f"a_model_{clip_norm}_{learning_rate}", "0.1_2000_3.5_3_1e-10" + ("" if epochs == 50 else f"_epochs_{epochs}")
    path = workplace.results / "tpoisoning/clean-labels" / mode / "purchases-cj" / model / budget / f"attack_w_{target}.csv"
    write_csv(path, TRIALS_HEADER, [(target, poison, poison in successes, 0.9, 0.1, 0.1, 0.9, 7, 0.7, "inf") for poison in range(4)])
    settings = {
        "attack": "clean-labels", "mode": mode, "clip_norm": clip_norm, "learning_rate": learning_rate, "epochs": epochs, "budget": budget,
        "dataset_name": "purchases-cj", "target": target, "model": model, "baseline_acc": 0.71,
    }  # fmt: skip
    finish(path, settings)
    return path


def test_targeted_attacks_are_counted_by_target(workplace):
    for target in range(100):
        trials(workplace, "oneshot", None, target, [1, 3] if target < 40 else [], learning_rate=0.04)
    for target, successes in enumerate(([2], [3], [0, 1], [])):
        trials(workplace, "multipoison", 0.1, target, successes)
        trials(workplace, "multipoison", 0.1, target, successes, learning_rate=0.04)
        trials(workplace, "multipoison", 0.1, target, [1], epochs=25)
    trials(workplace, "multipoison", 0.1, 9, [1]).write_text("cut off")
    done = workplace.succeed("python3", "report.py")
    assert done.stderr.count("left out") == 1 and "attack_w_9.csv" in done.stderr
    lines = {}
    for line in table(workplace, "tpoisoning"):
        lines.setdefault((line["mode"], line["network"], line["clip_norm"], line["noise_multiplier"]), []).append(line)
    undefended, not_run = lines["oneshot", "lr", "undefended", "0.0"]
    assert [undefended[name] for name in ("targets", "successes", "without_poison", "median_poisons", "median_epoch")] == [
        "100",
        "40",
        "0",
        "1.0",
        "7.0",
    ]
    assert undefended["published_successes"] == "34" and undefended["verdict"] == "within"
    assert (not_run["epochs"], not_run["verdict"]) == ("25", "not run")
    protocol, same_rate, short, same_rate_short = lines["multipoison", "lr", "0.1", "0.0"]
    assert [protocol[name] for name in ("targets", "successes", "without_poison", "median_poisons")] == ["4", "3", "1", "2"]
    assert protocol["verdict"] == "unfinished" and same_rate_short["verdict"] == "not run" and protocol["published_successes"] == "71"
    assert protocol["published_median_poisons"] == "3"  # of the nineteen targets that are published
    assert same_rate["learning_rate"] == "0.04" and same_rate["published_successes"] == ""
    assert short["epochs"] == "25" and short["successes"] == "4" and short["published_successes"] == ""
    assert len(list(workplace.results.glob(protocol["source"]))) == 5  # one of them is damaged
    (noisy,) = lines["multipoison", "shallow-mlp", "4.0", "0.25"]
    assert noisy["verdict"] == "not run" and noisy["published_successes"] == "25" and noisy["targets"] == ""
    assert sum(line["verdict"] == "not run" for group in lines.values() for line in group) == 25 + 12
