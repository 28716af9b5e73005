"""The indiscriminate sweep: accuracies by attack, ratio and shaping, over seeds, and what crafting the sets took."""

from __future__ import annotations

import collections
import math
import re
from pathlib import Path

import numpy as np
from scipy import stats

from files import read_json
from reports import DIVERGED, NOT_RUN, OUTSIDE, SHOWN_ONLY, UNPUBLISHED, WITHIN, Table, published
from reports.reading import Cell, Tree
from results import layout

CLEAN_ROWS = 10800  # of the subtask
# The sweep of the paper: what is not there of it is shown as not run
ATTACKS = ("label-flips", "slabs", "slabs-release", "minmax")
RATIOS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.2, 0.3, 0.4)
CLIP_NORMS = (0.1, 1.0, 2.0, 4.0, 8.0)
NOISE_STDS = (0.0, 0.1, 0.001, 0.00001)

TOLERANCE = 0.015
UNBOUNDED_CLIP_NORM = (
    100  # effectively no clipping; the three published cells of it at ratio 0.4 disagree among themselves: shown, not counted
)
PLACE = ("attack", "ratio", "clip_norm", "noise_multiplier")
COLUMNS = (
    *PLACE, "n_poison", "baseline_acc", "best_acc", "final_acc", "baseline_reached_at_epoch", "published_best_acc", "difference", "verdict", "source",
)  # fmt: skip
SEEDS_COLUMNS = (
    *PLACE, "seeds", "diverged", "baseline_acc", *(f"{name}_acc_{part}" for name in ("best", "final", "epochs") for part in ("mean", "ci95")),
    "final_acc_min", "final_acc_max", "best_gain_mean", "best_gain_ci95", "final_gain_mean", "final_gain_ci95", "source",
)  # fmt: skip
CRAFTING_COLUMNS = (
    "attack", "ratio", "n_poison", "wall_seconds", "programs_solved", "programs_failed", "upper_bound", "training_loss", "pass_sphere", "pass_slab",
    "undefended_best_acc", "undefended_final_acc", "source",
)  # fmt: skip


def tables(tree: Tree) -> list[Table]:
    """The tables indiscriminate, seeds and crafting."""
    cells = [cell for cell in tree.attacks if cell.settings["engine"] == "stack"]
    indiscriminate = indiscriminate_table(cells)
    return [indiscriminate, seeds_table(cells), crafting_table(tree, indiscriminate)]


def place_of(settings: dict) -> tuple[str, float, float, float]:
    """What a cell is told from others by, but for the seed: attack, poisons per clean row, clip norm (infinite: undefended), noise multiplier."""
    ratio = round(settings["n_poison"] / CLEAN_ROWS, 4)
    return settings["attack"], ratio, settings["clip_norm"] or math.inf, settings["noise_multiplier"]


def line_of(place: tuple) -> dict:
    """The columns of PLACE, as they are shown."""
    return {**dict(zip(PLACE, place)), "clip_norm": "undefended" if place[2] == math.inf else place[2]}


def planned() -> list[tuple]:
    """The places of the paper's sweep."""
    shapings = [(math.inf, 0.0), *((clip, float(f"{std / clip:.12g}")) for clip in CLIP_NORMS for std in NOISE_STDS)]
    return [(attack, ratio, *shaping) for attack in ATTACKS for ratio in RATIOS for shaping in shapings]


def indiscriminate_table(cells: list[Cell]) -> Table:
    """A row for each place of the sweep, each other finished cell of its seed, and each other published one; sorted by place."""
    known = {}
    for line in published("ipoisoning"):
        setting = (float(line["ratio"]), float(line["clip_norm"]), float(line["noise_multiplier"]))
        known[(line["attack"], *setting)] = float(line["best_acc"])
        if line["attack"] == "slabs":  # the published attack, by another rule
            known[("slabs-release", *setting)] = float(line["best_acc"])
    reached = {place_of(cell.settings): measured(cell) for cell in cells if cell.settings["seed"] == layout.SEED}
    lines = []
    for place in sorted({*planned(), *known, *reached}):
        line = {**line_of(place), **reached.get(place, {}), "published_best_acc": known.get(place, "")}
        if place not in reached:
            line["verdict"] = NOT_RUN
        elif math.isnan(line["final_acc"]):
            line["verdict"] = DIVERGED
        elif place not in known:
            line["verdict"] = UNPUBLISHED
        else:
            line["difference"] = round(line["best_acc"] - known[place], 4)
            within = WITHIN if abs(line["difference"]) <= TOLERANCE else OUTSIDE
            line["verdict"] = SHOWN_ONLY if place[2] >= UNBOUNDED_CLIP_NORM else within
        lines.append(line)
    rule = (
        f"best test accuracy of the epochs within {TOLERANCE} of the published best; clip norm {UNBOUNDED_CLIP_NORM} (no clipping) is shown only: its"
        " published cells disagree among themselves"
    )
    return Table("indiscriminate", f"Indiscriminate attacks, every cell of the sweep (seed {layout.SEED})", COLUMNS, lines, rule)


def measured(cell: Cell) -> dict:
    """What the indiscriminate table says of a cell."""
    accuracies = [float(line["test_acc"]) for line in cell.lines]
    reached = [int(line["epoch"]) for line in cell.lines if float(line["test_acc"]) >= float(line["baseline_acc"])]
    return {
        "n_poison": cell.settings["n_poison"],
        "baseline_acc": cell.settings["baseline_acc"],
        "best_acc": max((accuracy for accuracy in accuracies if not math.isnan(accuracy)), default=math.nan),
        "final_acc": accuracies[-1],
        "baseline_reached_at_epoch": reached[0] if reached else "never",
        "source": cell.source,
    }


# --- several seeds ---


def seeds_table(cells: list[Cell]) -> Table:
    """A row for each attack, ratio and shaping that was run with three seeds or more (of the draw, the weights, the order and the noise)."""
    runs: dict[tuple, dict[int, Cell]] = {}
    diverged: dict[tuple, int] = collections.Counter()
    for cell in cells:
        if np.isfinite(accuracies_of(cell)).all():
            runs.setdefault(place_of(cell.settings), {})[cell.settings["seed"]] = cell
        else:
            diverged[place_of(cell.settings)] += 1
    lines = []
    for place, by_seed in sorted(runs.items()):
        if len(by_seed) < 3:
            continue
        accuracies = {seed: accuracies_of(cell) for seed, cell in sorted(by_seed.items())}
        values = np.array(list(accuracies.values()))  # [seeds, (best, final, mean of the epochs)]
        first = by_seed[min(by_seed)]
        line = {
            **line_of(place),
            "seeds": len(by_seed),
            "diverged": diverged[place],
            "baseline_acc": first.settings["baseline_acc"],
            "source": all_seeds(first),
        }
        for name, column in zip(("best", "final", "epochs"), values.T):
            line[f"{name}_acc_mean"], line[f"{name}_acc_ci95"] = mean_and_interval(column)
        line["final_acc_min"], line["final_acc_max"] = values[:, 1].min(), values[:, 1].max()
        undefended = runs.get((*place[:2], math.inf, 0.0), {})
        pairs = [(accuracies[seed], accuracies_of(undefended[seed])) for seed in accuracies if seed in undefended]
        if place[2] < math.inf and len(pairs) >= 3:  # the same seed, with and without DP-SGD
            gains = np.array([defended - alone for defended, alone in pairs])
            for name, column in zip(("best", "final"), gains.T):
                line[f"{name}_gain_mean"], line[f"{name}_gain_ci95"] = mean_and_interval(column)
        lines.append(line)
    title = (
        "Indiscriminate attacks over seeds (without those that diverged): means with 95% intervals (Student's t); gain: over the undefended training of"
        " the same seed"
    )
    return Table("seeds", title, SEEDS_COLUMNS, lines)


def accuracies_of(cell: Cell) -> np.ndarray:
    """Best, final and mean test accuracy of the epochs, float64 [3]."""
    accuracies = np.array([float(line["test_acc"]) for line in cell.lines])
    return np.array([accuracies.max(), accuracies[-1], accuracies.mean()])


def mean_and_interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half the width of its 95% interval, both to four digits."""
    interval = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return round(float(values.mean()), 4), round(float(interval), 4)


def all_seeds(cell: Cell) -> str:
    """A glob of the CSV files of a cell and of its like with other seeds."""
    attack, poison_set, model, name = (re.sub(r"_seed_\d+$", "", part) for part in Path(cell.source).parts[1:])
    return f"ipoisoning/{attack}/{poison_set}{{,_seed_*}}/{model}{{,_seed_*}}/{name}"


# --- crafted sets ---


def crafting_table(tree: Tree, cells: Table) -> Table:
    """A row for each poison set whose crafting was measured here, with what it does to an undefended training."""
    undefended = {(line["attack"], line["ratio"]): line for line in cells.lines if line["clip_norm"] == "undefended"}
    lines = []
    for path in sorted((layout.RESULTS / "ipoisoning").glob("*/*/crafting.json")):
        found = read_json(path)
        if found is None or not (isinstance(found.get("attack"), str) and isinstance(found.get("epsilon"), float) and "n_poison" in found):
            tree.leave_out(path, "damaged: it does not say what was crafted")
            continue
        line = {name: found.get(name, "") for name in CRAFTING_COLUMNS}
        cell = undefended.get((found["attack"], found["epsilon"]), {})
        line.update(ratio=found["epsilon"], undefended_best_acc=cell.get("best_acc", ""), undefended_final_acc=cell.get("final_acc", ""))
        line["source"] = str(path.relative_to(layout.RESULTS))
        lines.append(line)
    title = "Crafting the sets of Steinhardt et al.: seconds, programs, and for minmax the bound U* beside the training loss that it bounds"
    return Table("crafting", title, CRAFTING_COLUMNS, sorted(lines, key=lambda line: (line["attack"], line["ratio"])))
