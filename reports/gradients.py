"""The gradient analyses: norms and cosines of every set, and what the backdoors did to accuracy.

A shortened run is compared with as many of the published epochs: its first epochs are those of the whole training.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from reports import DIVERGED, NOT_RUN, OUTSIDE, SHOWN_ONLY, UNPUBLISHED, WITHIN, Table, published
from reports.reading import Cell, Tree
from results import layout

# analysis: collision, insertion, ipoisoning or tpoisoning; set: the pairs or the attack; setting: alpha, patch, poison set or target
KEY = ("analysis", "set", "dataset", "setting", "model")
SUBTASK = "fashion_mnist_3_4.1.0"
ONE_TARGET = "one target"  # the published one is 2252 of data that are not ours
BASKETS = ("clean-labels", "purchases-cj", ONE_TARGET)
ALPHAS, PATCHES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0), (1, 4, 7, 10, 14)
LR, BADNET, DP_LR = "vanilla_lr_300_40_0.01", "vanilla_badnet_100_40_0.01", "dp_lr_300_40_0.01_1000.0_1e-05_4.0_0.0"
MLP, MLP_RETRAINED, BASKETS_LR = "vanilla_shallow-mlp_100_40_0.04", "vanilla_shallow-mlp_100_20_0.04", "vanilla_lr_100_100_0.04"

INCOMPARABLE = ("4_0.01_14", BADNET)  # its published clean norms are hundreds of times those of the other patches

RATIO_TOLERANCE, COSINE_TOLERANCE = 0.3, 0.15
ACCURACY_TOLERANCE, FIRST_EPOCH_TOLERANCE = 0.015, 0.05
MEANS = ("mean_poison_norm", "mean_norm_ratio", "mean_cosine")
COLUMNS = (
    *KEY, "epochs", "n_poison", *(f"{start}{name}" for name in MEANS for start in ("", "published_")), "median_example_ratio",
    "upper_quartile_example_cosine", "verdict", "source",
)  # fmt: skip
ACCURACIES = ("final_acc", "baseline_backdoor_acc", "first_backdoor_acc", "final_backdoor_acc")
INSERTION_COLUMNS = (
    *KEY, "epochs", "baseline_acc", *(f"{start}{name}" for name in ACCURACIES for start in ("", "published_")), "final_backdoor_acc_other_classes",
    "verdict", "source",
)  # fmt: skip


def tables(tree: Tree) -> list[Table]:
    """The tables gradients and insertion."""
    cells = {key(cell.path): cell for cell in tree.analyses}
    return [gradients_table(cells), insertion_table({name: cell for name, cell in cells.items() if name[0] == "insertion"})]


def key(path: Path) -> tuple:
    """What an analysis is told from others by, as in KEY, from its place among the results."""
    parts = path.parent.relative_to(layout.ANALYSIS).parts
    if parts[0] == "ipoisoning":
        return (*parts[:2], SUBTASK, *parts[2:])
    if parts[0] == "tpoisoning":  # a defended clean model's name also says what it reached
        return (*parts[:3], ONE_TARGET, re.sub(r"_epoch_\d+_acc_.*", "", parts[3]))
    return ("insertion", *parts) if parts[0] == "insertion" else parts


def planned() -> list[tuple]:
    """The keys of the paper's analyses and of those that this suite adds by default."""
    pairs = (
        ("a_pair_0_1", SUBTASK, LR), ("pairs_of_100", SUBTASK, LR), ("a_pair_3_19", "fashion_mnist", MLP), ("pairs_of_100", "fashion_mnist", MLP),
        ("a_pair_3_19_retrain", "fashion_mnist", MLP_RETRAINED), ("pairs_of_100_retrain", "fashion_mnist", MLP_RETRAINED),
    )  # fmt: skip
    collision = [("collision", name, dataset, f"alpha_{alpha}", model) for name, dataset, model in pairs for alpha in ALPHAS]
    insertion = [("insertion", "insertion", "fashion_mnist", f"4_0.01_{patch}", model) for patch in PATCHES for model in (BADNET, MLP)]
    sets = (("label-flips", f"{SUBTASK}_random_0.4"), ("slabs", "fmnist_34_attack_eps40_quantile65_rho_slab"))
    ipoisoning = [("ipoisoning", attack, SUBTASK, poison_set, model) for attack, poison_set in sets for model in (LR, DP_LR)]
    defended = [f"dp_lr_100_100_0.08_1000.0_1e-05_{shaping}" for shaping in ("0.1_0.0", "4.0_0.0", "4.0_0.025")]
    return [*collision, *insertion, *ipoisoning, *(("tpoisoning", *BASKETS, model) for model in (BASKETS_LR, *defended))]


def in_order(name: tuple) -> list:
    return [layout.natural_order(part) for part in name]


def apart_from_epochs(name: tuple) -> tuple:
    """A key without the number of epochs in its model's name: vanilla_lr_300_40_0.01 as vanilla_lr_300_0.01."""
    return (*name[:-1], re.sub(r"^([a-z]+_[a-z-]+_\d+)_\d+_", r"\1_", name[-1]))


def published_epochs(known: dict[tuple, list], name: tuple, count: int | None) -> list:
    """What was published of an analysis with this key but for the number of epochs in the model's name: its first `count` epochs, or all."""
    of_any_length = {apart_from_epochs(other): epochs for other, epochs in known.items()}
    return of_any_length.get(apart_from_epochs(name), [])[:count]


def names_of(cells: dict[tuple, Cell], known: dict[tuple, list], plan: list[tuple]) -> list[tuple]:
    """The keys of a table's rows, sorted: what is finished, and what is planned or published and was not run, be it with fewer epochs."""
    done = {apart_from_epochs(name) for name in cells}
    return sorted({*cells, *(name for name in (*known, *plan) if apart_from_epochs(name) not in done)}, key=in_order)


def gradients_table(cells: dict[tuple, Cell]) -> Table:
    """A row for each analysis that is finished, planned or published."""
    known = {}
    baskets = {name[2] for name in cells if name[0] == "tpoisoning"} or {BASKETS[1]}
    for line in published("gradients"):
        setting, dataset = line["setting"].removesuffix(".mat").removesuffix("_v7"), line["dataset"]
        if line["analysis"] == "tpoisoning":  # shown beside the stand-in's where the paper's own data are missing
            setting, dataset = ONE_TARGET, min(baskets)
        name = (line["analysis"], line["task"], dataset, setting, line["model"])
        known.setdefault(name, []).append([float(line[column]) for column in ("clean_norm", "poison_norm", "cosine")])
    lines = []
    for name in names_of(cells, known, planned()):
        line, cell = dict(zip(KEY, name)), cells.get(name)
        if cell is not None:
            line.update(epochs=len(cell.lines), n_poison=cell.settings.get("n_poison", cell.lines[0].get("n_poison", "")))
            line["source"] = str(Path(cell.source).parent / "[mas]extracts_epoch.csv")
            line.update(means(cell.means))
            if cell.examples is not None:
                line.update(of_single_examples(cell.examples))
        epochs = published_epochs(known, name, line.get("epochs"))
        if epochs:
            line.update({f"published_{column}": value for column, value in means(np.array(epochs)).items()})
        lines.append({**line, "verdict": gradients_verdict(line, name)})
    rule = (
        f"mean norm ratio within {RATIO_TOLERANCE:.0%} and mean cosine within {COSINE_TOLERANCE} of the published ones; shown only: patch 14, whose"
        " published clean norms are hundreds of times those of the other patches, and the targeted analysis, whose published data are not ours"
    )
    title = "Gradient analyses, means over the epochs: norm of the poisons' mean gradient, its ratio to the clean rows', and their cosine"
    return Table("gradients", title, COLUMNS, lines, rule)


def gradients_verdict(line: dict, name: tuple) -> str:
    if "source" not in line:
        return NOT_RUN
    if math.isnan(line["mean_norm_ratio"]):
        return DIVERGED
    if "published_mean_cosine" not in line:
        return UNPUBLISHED
    if name[0] == "tpoisoning" or name[3:] == INCOMPARABLE:
        return SHOWN_ONLY
    ratio = line["mean_norm_ratio"] / line["published_mean_norm_ratio"]
    near = abs(ratio - 1) <= RATIO_TOLERANCE and abs(line["mean_cosine"] - line["published_mean_cosine"]) <= COSINE_TOLERANCE
    return WITHIN if near else OUTSIDE


def means(epochs: np.ndarray) -> dict[str, float]:
    """Means over the epochs of the poison norm, poison norm / clean norm, and the cosine; epochs: [epochs, (clean norm, poison norm, cosine)]."""
    clean, poison, cosine = epochs.T
    return dict(zip(MEANS, (round(float(values.mean()), digits) for values, digits in ((poison, 5), (poison / clean, 4), (cosine, 5)))))


def of_single_examples(examples: np.ndarray) -> dict[str, float]:
    """Of the single examples: the median poison's norm over the median clean row's (median of the epochs), and the mean upper quartile of the cosines."""
    clean, poison, cosine = examples.transpose(1, 0, 2)  # each [epochs, quantiles]
    ratio = float(np.nanmedian(poison[:, 2] / clean[:, 2]))
    return {"median_example_ratio": float(f"{ratio:.4g}"), "upper_quartile_example_cosine": round(float(np.nanmean(cosine[:, 3])), 4)}


def insertion_table(cells: dict[tuple, Cell]) -> Table:
    """A row for each backdoor that is finished, planned or published."""
    known = {}
    for line in published("accuracy"):
        if line["analysis"] == "insertion":
            name = ("insertion", line["task"], line["dataset"], line["setting"], line["model"])
            known.setdefault(name, []).append([float(value) for value in line["values"].split(";")])
    lines = []
    for name in names_of(cells, known, [name for name in planned() if name[0] == "insertion"]):
        line, cell = dict(zip(KEY, name)), cells.get(name)
        if cell is not None:
            final = cell.lines[-1]
            accuracies = [float(final[column]) for column in ("test_acc", "baseline_backdoor_acc")]
            accuracies += [float(cell.lines[number]["backdoor_acc"]) for number in (0, -1)]
            line.update(zip(ACCURACIES, accuracies), epochs=len(cell.lines), baseline_acc=float(final["baseline_acc"]), source=cell.source)
            line["final_backdoor_acc_other_classes"] = float(final["backdoor_acc_other_classes"])
        epochs = published_epochs(known, name, line.get("epochs"))
        if epochs:
            accuracies = (epochs[-1][1], epochs[-1][2], epochs[0][3], epochs[-1][3])
            line.update(zip((f"published_{column}" for column in ACCURACIES), accuracies))
        lines.append({**line, "verdict": insertion_verdict(line)})
    rule = (
        f"clean accuracy and success after the last epoch within {ACCURACY_TOLERANCE} of the published ones, success after the first within"
        f" {FIRST_EPOCH_TOLERANCE}"
    )
    title = (
        "Backdoors: clean accuracy, and share of all stamped test images that get the backdoor's label, before, after one epoch, at the end"
    )
    return Table("insertion", title, INSERTION_COLUMNS, lines, rule)


def insertion_verdict(line: dict) -> str:
    if "source" not in line:
        return NOT_RUN
    if math.isnan(line["final_acc"]):
        return DIVERGED
    if "published_final_acc" not in line:
        return UNPUBLISHED
    tolerances = zip(
        ("final_acc", "first_backdoor_acc", "final_backdoor_acc"), (ACCURACY_TOLERANCE, FIRST_EPOCH_TOLERANCE, ACCURACY_TOLERANCE)
    )
    near = all(abs(line[column] - line[f"published_{column}"]) <= tolerance for column, tolerance in tolerances)
    return WITHIN if near else OUTSIDE
