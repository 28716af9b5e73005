"""The gradient analyses: norms and cosines of every set, and what the backdoors did to accuracy.

A shortened run is compared with as many of the published epochs: its first epochs are those of the whole training.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

from reports import published, write_table
from results import layout, param_updates
from results.cells import read_all

# analysis: collision, insertion, ipoisoning or tpoisoning; set: the pairs or the attack; setting: alpha, patch, poison set or target
KEY = ("analysis", "set", "dataset", "setting", "model")
ONE_TARGET = "one target"  # the published one is 2252 of data that are not ours
MEANS = ("mean_poison_norm", "mean_norm_ratio", "mean_cosine")
GRADIENTS_HEADER = (*KEY, "epochs", *(f"{start}{name}" for name in MEANS for start in ("", "published_")), "source")
INSERTION_HEADER = (
    *KEY, "epochs", "baseline_acc", "final_acc", "published_final_acc", "baseline_backdoor_acc", "published_baseline_backdoor_acc",
    "first_backdoor_acc", "published_first_backdoor_acc", "final_backdoor_acc", "published_final_backdoor_acc",
    "final_backdoor_acc_other_classes", "source",
)  # fmt: skip


def report() -> None:
    """Write and print the tables gradients and insertion."""
    cells = {key(path): (path, lines) for path, _, lines in read_all(layout.ANALYSIS, layout.ANALYSIS_RESULTS)}
    table = gradients_table(cells)
    write_table("gradients", GRADIENTS_HEADER, table)
    print_gradients(table)
    backdoors = insertion_table({name: cell for name, cell in cells.items() if name[0] == "insertion"})
    write_table("insertion", INSERTION_HEADER, backdoors)
    print_insertion(backdoors)


def key(path: Path) -> tuple:
    """What an analysis is told from others by, as in KEY, from its place among the results."""
    parts = path.parent.relative_to(layout.ANALYSIS).parts
    if parts[0] == "ipoisoning":
        return (*parts[:2], "fashion_mnist_3_4.1.0", *parts[2:])
    if parts[0] == "tpoisoning":  # a defended clean model's name also says what it reached
        return (*parts[:3], ONE_TARGET, re.sub(r"_epoch_\d+_acc_.*", "", parts[3]))
    return ("insertion", *parts) if parts[0] == "insertion" else parts


def in_order(name: tuple) -> list:
    return [layout.natural_order(part) for part in name]


def published_epochs(known: dict[tuple, list], name: tuple, count: int | None) -> list:
    """What was published of an analysis with this key but for the number of epochs in the model's name: its first `count` epochs, or all."""

    def apart_from_epochs(name: tuple) -> tuple:  # vanilla_lr_300_40_0.01 as vanilla_lr_300_0.01
        return (*name[:-1], re.sub(r"^([a-z]+_[a-z-]+_\d+)_\d+_", r"\1_", name[-1]))

    of_any_length = {apart_from_epochs(other): epochs for other, epochs in known.items()}
    return of_any_length.get(apart_from_epochs(name), [])[:count]


def gradients_table(cells: dict[tuple, tuple]) -> list[dict]:
    """A line for each analysis that is finished or published."""
    known, reached = {}, {}
    baskets = {name[2] for name in cells if name[0] == "tpoisoning"} or {"purchases"}
    for line in published("gradients"):
        setting, dataset = line["setting"].removesuffix(".mat").removesuffix("_v7"), line["dataset"]
        if line["analysis"] == "tpoisoning":  # shown beside the stand-in's where the paper's own data are missing
            setting, dataset = ONE_TARGET, min(baskets)
        name = (line["analysis"], line["task"], dataset, setting, line["model"])
        known.setdefault(name, []).append([float(line[column]) for column in ("clean_norm", "poison_norm", "cosine")])
    for name, (path, lines) in cells.items():
        if not param_updates.reduced(path.parent):
            print(f"left out: {path.parent} (gradients not reduced yet: python3 analyze_gradients.py)", file=sys.stderr)
            continue
        reached[name] = {
            "epochs": len(lines),
            **means(param_updates.read_extracts(path.parent)),
            "source": str(path.parent.relative_to(layout.RESULTS)),
        }
    table = []
    for name in sorted(set(known) | set(reached), key=in_order):
        line = {**dict(zip(KEY, name)), **reached.get(name, {})}
        epochs = published_epochs(known, name, line.get("epochs"))
        if epochs:
            line.update({f"published_{column}": value for column, value in means(np.array(epochs)).items()})
        table.append(line)
    return table


def means(epochs: np.ndarray) -> dict[str, float]:
    """Means over the epochs of the poison norm, poison norm / clean norm, and the cosine; epochs: [epochs, (clean norm, poison norm, cosine)]."""
    clean, poison, cosine = epochs.T
    return dict(zip(MEANS, (round(float(values.mean()), digits) for values, digits in ((poison, 5), (poison / clean, 4), (cosine, 5)))))


def insertion_table(cells: dict[tuple, tuple]) -> list[dict]:
    """A line for each backdoor that is finished or published."""
    known = {}
    for line in published("accuracy"):
        if line["analysis"] == "insertion":
            name = ("insertion", line["task"], line["dataset"], line["setting"], line["model"])
            known.setdefault(name, []).append([float(value) for value in line["values"].split(";")])
    table = []
    for name in sorted(set(known) | set(cells), key=in_order):
        line = dict(zip(KEY, name))
        if name in cells:
            path, lines = cells[name]
            first, final = lines[0], lines[-1]
            line.update(
                epochs=len(lines),
                baseline_acc=final["baseline_acc"],
                final_acc=final["test_acc"],
                baseline_backdoor_acc=final["baseline_backdoor_acc"],
                first_backdoor_acc=first["backdoor_acc"],
                final_backdoor_acc=final["backdoor_acc"],
                final_backdoor_acc_other_classes=final["backdoor_acc_other_classes"],
                source=str(path.relative_to(layout.RESULTS)),
            )
        epochs = published_epochs(known, name, line.get("epochs"))
        if epochs:
            first, final = epochs[0], epochs[-1]
            line.update(
                published_final_acc=final[1],
                published_baseline_backdoor_acc=final[2],
                published_first_backdoor_acc=first[3],
                published_final_backdoor_acc=final[3],
            )
        table.append(line)
    return table


def print_gradients(table: list[dict]) -> None:
    done = [line for line in table if "source" in line]
    if not done:
        return
    print(
        "\ngradients of the last layer, means over the epochs (published): norm of the poisons', ratio to the clean rows', cosine of the two\n"
    )
    for line in done:
        texts = [f"{line[name]:>9.4g} ({line.get(f'published_{name}', ''):>8})" for name in MEANS]
        print(f"{line['set']:<22}{line['setting']:<44}{line['model']:<44}" + "  ".join(texts))


def print_insertion(table: list[dict]) -> None:
    done = [line for line in table if "source" in line]
    if not done:
        return
    print("\nbackdoors (published): clean accuracy, and share of stamped test images that get the backdoor's label\n")
    for line in done:
        print(
            f"{line['setting']:<16}{line['model']:<36}{line['epochs']:>3} epochs: clean {line['final_acc']} ({line.get('published_final_acc', '')}),"
            f" backdoor {line['baseline_backdoor_acc']} before, {line['first_backdoor_acc']} ({line.get('published_first_backdoor_acc', '')}) after the first"
            f" epoch, {line['final_backdoor_acc']} ({line.get('published_final_backdoor_acc', '')}) after the last,"
            f" {line['final_backdoor_acc_other_classes']} of other classes"
        )
