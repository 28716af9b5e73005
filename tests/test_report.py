"""The report: what it reads, leaves out and concludes, on results made for the purpose."""

import csv

import pytest

from files import file_sha256, write_csv, write_json
from results import layout

ATTACK_HEADER = ("epoch", "n_poison", "baseline_acc", "test_acc", "train_acc_clean", "train_acc_poison", "epsilon")


def cell(workplace, ratio, model, clip_norm, noise_multiplier, accuracies):
    path = workplace.results / "ipoisoning/label-flips" / f"fashion_mnist_3_4.1.0_random_{ratio}" / model / "attack_results.csv"
    count = round(10800 * ratio)
    write_csv(path, ATTACK_HEADER, [(epoch, count, 0.955, accuracy, 0.9, 0.1, "inf") for epoch, accuracy in enumerate(accuracies, 1)])
    settings = {
        "attack": "label-flips",
        "n_poison": count,
        "clip_norm": clip_norm,
        "noise_multiplier": noise_multiplier,
        "baseline_acc": 0.955,
        "seed": 215,
        "engine": "stack",
    }
    write_json(path.with_name("run.json"), {"settings": settings, "results": {path.name: file_sha256(path)}})
    return path


def table(workplace, name):
    with open(workplace.results / "tables" / f"{name}.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_verdicts(workplace):
    cell(workplace, 0.4, "dp_lr_300_40_0.01_1000.0_1e-05_0.1_0.0", 0.1, 0.0, [0.93, 0.94, 0.935])
    cell(workplace, 0.4, "dp_lr_300_40_0.01_1000.0_1e-05_2.0_0.0", 2.0, 0.0, [0.9, 0.91, 0.92])
    cell(workplace, 0.4, "dp_lr_300_40_0.01_1000.0_1e-05_100.0_0.001", 100.0, 0.001, [0.93])
    cell(workplace, 0.4, "vanilla_lr_300_40_0.01", None, 0.0, [0.93, 0.955, 0.92])
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
    assert sum(line["verdict"] == "not run" for line in lines.values()) == 81 - 3
    assert "1 of 2 published cells within 0.015" in done.stdout and "outside: ratio 0.4, clip 2.0" in done.stdout
    for suffix in ("png", "pdf"):
        assert (workplace.results / f"figures/indiscriminate_label-flips.{suffix}").stat().st_size > 5000


@pytest.mark.parametrize("damage", ["truncated", "no run.json", "foreign run.json"])
def test_damaged_results_are_left_out_and_named(damage, workplace):
    path = cell(workplace, 0.4, "dp_lr_300_40_0.01_1000.0_1e-05_0.1_0.0", 0.1, 0.0, [0.93, 0.94])
    cell(workplace, 0.1, "dp_lr_300_40_0.01_1000.0_1e-05_0.1_0.0", 0.1, 0.0, [0.94, 0.95])
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "no run.json":
        path.with_name("run.json").unlink()
    else:
        path.with_name("run.json").write_text("[1, 2")
    done = workplace.succeed("python3", "report.py")
    assert f"left out: {path}" in done.stderr
    assert [line["verdict"] for line in table(workplace, "indiscriminate") if line["best_acc"]] == ["within"]


def test_nothing_run_is_no_error(workplace):
    done = workplace.succeed("python3", "report.py")
    assert done.stderr == "" and {line["verdict"] for line in table(workplace, "indiscriminate")} == {"not run"}
    published = [line for line in table(workplace, "gradients") if line["set"] == "label-flips"]
    assert sorted((line["published_mean_norm_ratio"], line["mean_norm_ratio"]) for line in published) == [("1.8374", ""), ("2.2986", "")]


def analysis(workplace, place, header, lines, magnitudes, cosines):
    folder = workplace.results / "analysis" / place
    write_csv(folder / "analysis_results.csv", header, lines)
    write_csv(folder / "mextracts_epoch.csv", None, magnitudes)
    write_csv(folder / "aextracts_epoch.csv", None, [[cosine] for cosine in cosines])
    settings = {"attack": place.split("/")[0]}
    digest = file_sha256(folder / "analysis_results.csv")
    write_json(folder / "run.json", {"settings": settings, "results": {"analysis_results.csv": digest}})


def test_gradients_and_insertion_stand_beside_the_published(workplace):
    header = ("epoch", "n_poison", "baseline_acc", "test_acc")
    place = "collision/pairs_of_100/fashion_mnist_3_4.1.0/alpha_0.4/vanilla_lr_300_40_0.01"
    analysis(workplace, place, header, [(1, 100, 0.955, 0.95), (2, 100, 0.955, 0.94)], [(0.1, 6), (0.2, 6.5)], [-0.9, -1])
    header = ("epoch", "baseline_acc", "test_acc", "baseline_backdoor_acc", "backdoor_acc", "backdoor_acc_other_classes")
    place = "insertion/fashion_mnist/4_0.01_4/vanilla_badnet_100_40_0.01"
    analysis(workplace, place, header, [(1, 0.91, 0.9, 0.1, 0.97, 0.96), (2, 0.91, 0.905, 0.1, 0.99, 0.98)], [(1, 2)], [0.5])
    workplace.succeed("python3", "report.py")
    [collision] = [line for line in table(workplace, "gradients") if line["setting"] == "alpha_0.4" and "_3_4." in line["dataset"]]
    names = ("analysis", "set", "epochs", "mean_poison_norm", "mean_norm_ratio", "mean_cosine", "published_mean_norm_ratio")
    with open(layout.PUBLISHED / "gradients.csv", newline="") as stream:
        known = [line for line in csv.DictReader(stream) if (line["setting"], line["model"]) == ("alpha_0.4", "vanilla_lr_300_40_0.01")]
    ratios = [float(line["poison_norm"]) / float(line["clean_norm"]) for line in known[:2]]  # as many epochs as were run
    expected = ["collision", "pairs_of_100", "2", "6.25", "46.25", "-0.95", str(round(sum(ratios) / 2, 4))]
    assert [collision[name] for name in names] == expected
    assert (workplace.results / collision["source"]).is_dir()
    backdoors = {line["setting"]: line for line in table(workplace, "insertion")}
    assert list(backdoors) == ["4_0.01_1", "4_0.01_4", "4_0.01_10", "4_0.01_14"]
    names = ("final_acc", "first_backdoor_acc", "final_backdoor_acc", "final_backdoor_acc_other_classes", "published_baseline_backdoor_acc")
    assert [backdoors["4_0.01_4"][name] for name in names] == ["0.905", "0.97", "0.99", "0.98", "0.0477"]
    assert backdoors["4_0.01_1"]["published_first_backdoor_acc"] == "0.5705" and backdoors["4_0.01_1"]["final_acc"] == ""


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
        "mode": mode, "network": "lr", "clip_norm": clip_norm, "noise_multiplier": 0.0, "learning_rate": learning_rate, "epochs": epochs,
        "budget": budget, "dataset_name": "purchases-cj", "seed": 215, "baseline_acc": 0.71,
    }  # fmt: skip
    write_json(path.with_suffix(".run.json"), {"settings": settings, "results": {path.name: file_sha256(path)}})
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
    (undefended,) = lines["oneshot", "lr", "undefended", "0.0"]
    assert [undefended[name] for name in ("targets", "successes", "without_poison", "median_poisons", "median_epoch")] == [
        "100",
        "40",
        "0",
        "1.0",
        "7.0",
    ]
    assert undefended["published_successes"] == "34" and undefended["state"] == "finished"
    protocol, same_rate, short = lines["multipoison", "lr", "0.1", "0.0"]
    assert [protocol[name] for name in ("targets", "successes", "without_poison", "median_poisons")] == ["4", "3", "1", "2"]
    assert protocol["state"] == "unfinished: 4 of 100 targets" and protocol["published_successes"] == "71"
    assert protocol["published_median_poisons"] == "3"  # of the nineteen targets that are published
    assert same_rate["learning_rate"] == "0.04" and same_rate["published_successes"] == ""
    assert short["epochs"] == "25" and short["successes"] == "4" and short["published_successes"] == ""
    assert (workplace.results / protocol["source"]).is_dir()
    (noisy,) = lines["multipoison", "shallow-mlp", "4.0", "0.25"]
    assert noisy["state"] == "not run" and noisy["published_successes"] == "25" and noisy["targets"] == ""
    assert sum(line["state"] == "not run" for group in lines.values() for line in group) == 25
