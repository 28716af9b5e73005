"""The indiscriminate sweep: accuracies by attack, ratio and shaping, over seeds, and what crafting the sets took."""

from __future__ import annotations

import collections
import math
import sys
from pathlib import Path

import numpy as np
from scipy import stats

from files import read_json
from reports import published, write_table
from results import layout, plotting
from results.cells import read_all

CLEAN_ROWS = 10800  # of the subtask
TOLERANCE = 0.015  # of the published best accuracy
UNBOUNDED_CLIP_NORM = (
    100  # effectively no clipping; the three published cells of it at ratio 0.4 disagree among themselves: shown, not counted
)
INDISCRIMINATE_HEADER = (
    "attack",
    "ratio",
    "clip_norm",
    "noise_multiplier",
    "n_poison",
    "baseline_acc",
    "best_acc",
    "final_acc",
    "baseline_reached_at_epoch",
    "published_best_acc",
    "difference",
    "verdict",
    "source",
)
SEEDS_HEADER = (
    "attack",
    "ratio",
    "clip_norm",
    "noise_multiplier",
    "seeds",
    "baseline_acc",
    "best_acc_mean",
    "best_acc_ci95",
    "final_acc_mean",
    "final_acc_ci95",
    "final_acc_min",
    "final_acc_max",
    "epochs_acc_mean",
    "epochs_acc_ci95",
)
CRAFTING_HEADER = (
    "attack", "ratio", "n_poison", "wall_seconds", "programs_solved", "programs_failed", "upper_bound", "training_loss", "pass_sphere", "pass_slab",
    "undefended_best_acc", "undefended_final_acc", "source",
)  # fmt: skip


def report() -> None:
    """Write and print the tables indiscriminate, seeds and crafting, and draw a figure an attack."""
    found = read_all(layout.RESULTS / "ipoisoning", layout.ATTACK_RESULTS)
    table = indiscriminate_table(found)
    write_table("indiscriminate", INDISCRIMINATE_HEADER, table)
    for attack in sorted({line["attack"] for line in table}):
        lines = [line for line in table if line["attack"] == attack]
        if any(line["best_acc"] != "" for line in lines):
            print_indiscriminate(attack, lines)
            draw_indiscriminate(attack, lines)
    seeds = seeds_table(found)
    write_table("seeds", SEEDS_HEADER, seeds)
    print_seeds(seeds)
    crafting = crafting_table(table)
    write_table("crafting", CRAFTING_HEADER, crafting)
    print_crafting(crafting)


def indiscriminate_table(found: list[tuple[Path, dict, list[dict]]]) -> list[dict]:
    """A line of the table for each finished cell and for each published one that is not finished; every value as it is to be shown."""
    known = {}
    for line in published("ipoisoning"):
        setting = (float(line["ratio"]), float(line["clip_norm"]), float(line["noise_multiplier"]))
        known[(line["attack"], *setting)] = float(line["best_acc"])
    if any(settings["attack"] == "slabs-release" for _, settings, _ in found):  # another rule for the attack that was published as slabs
        known.update({("slabs-release", *key[1:]): accuracy for key, accuracy in known.items() if key[0] == "slabs"})
    cells = {}
    for path, settings, lines in found:
        if settings["seed"] != layout.SEED or settings["engine"] != "stack":
            continue  # the table is of one seed, as the paper's
        accuracies = [float(line["test_acc"]) for line in lines]
        reached = [int(line["epoch"]) for line in lines if float(line["test_acc"]) >= float(line["baseline_acc"])]
        cells[cell_key(settings)] = {
            "n_poison": settings["n_poison"],
            "baseline_acc": settings["baseline_acc"],
            "best_acc": max(accuracies),
            "final_acc": accuracies[-1],
            "baseline_reached_at_epoch": reached[0] if reached else "never",
            "source": str(path.relative_to(layout.RESULTS)),
        }
    table = []
    for key in sorted(set(known) | set(cells)):
        attack, ratio, clip_norm, noise_multiplier = key
        line = dict.fromkeys(INDISCRIMINATE_HEADER, "")
        line.update(
            attack=attack,
            ratio=ratio,
            clip_norm=shown_clip_norm(clip_norm),
            noise_multiplier=noise_multiplier,
        )
        line.update(cells.get(key, {}), published_best_acc=known.get(key, ""))
        if key not in cells:
            line["verdict"] = "not run"
        elif key not in known:
            line["verdict"] = "unpublished"
        else:
            line["difference"] = round(line["best_acc"] - known[key], 4)
            within = abs(line["difference"]) <= TOLERANCE
            line["verdict"] = "shown only" if clip_norm >= UNBOUNDED_CLIP_NORM else "within" if within else "outside"
        table.append(line)
    return table


def cell_key(settings: dict) -> tuple[str, float, float, float]:
    """What a cell is told from others by, but for the seed: attack, poisons per clean row, clip norm (infinite: undefended), noise multiplier."""
    ratio = round(settings["n_poison"] / CLEAN_ROWS, 4)
    return settings["attack"], ratio, settings["clip_norm"] or math.inf, settings["noise_multiplier"]


def shown_clip_norm(clip_norm: float) -> float | str:
    return "undefended" if clip_norm == math.inf else clip_norm


def clip_norms_of(cells: list[dict]) -> list[float | str]:
    """The clip norms that occur, as shown: undefended first."""
    return sorted({cell["clip_norm"] for cell in cells}, key=lambda clip: 0.0 if clip == "undefended" else clip)


def print_indiscriminate(attack: str, cells: list[dict]) -> None:
    """Best and final accuracy by ratio and clip norm without noise, the published best beside them, and the count of verdicts."""
    shown = [cell for cell in cells if cell["noise_multiplier"] == 0 and cell["best_acc"] != ""]
    shapings = clip_norms_of(shown)
    by_place = {(cell["ratio"], cell["clip_norm"]): cell for cell in shown}
    print(
        f"\n{attack}: test accuracy, best of the epochs / final (published best), without noise; clean baseline {shown[0]['baseline_acc']}\n"
    )
    print("ratio  " + "".join(f"{clip if clip == 'undefended' else f'clip {clip:g}':<25}" for clip in shapings))
    for ratio in sorted({cell["ratio"] for cell in shown}):
        texts = []
        for clip in shapings:
            cell = by_place.get((ratio, clip))
            text = "not run" if cell is None else f"{cell['best_acc']:.4f}/{cell['final_acc']:.4f}"
            texts.append(text + (f" ({cell['published_best_acc']})" if cell and cell["published_best_acc"] != "" else ""))
        print(f"{ratio:<7}" + "".join(f"{text:<25}" for text in texts))
    counts = collections.Counter(cell["verdict"] for cell in cells)
    print(
        f"\n{counts['within']} of {counts['within'] + counts['outside']} published cells within {TOLERANCE} of the published best accuracy;"
        f" {counts['shown only']} with clip norm {UNBOUNDED_CLIP_NORM} shown only, {counts['not run']} published not run,"
        f" {counts['unpublished']} unpublished"
    )
    differences = [abs(cell["difference"]) for cell in cells if cell["difference"] != ""]
    if differences:
        print(f"mean absolute difference over all {len(differences)} published cells: {np.mean(differences):.4f}")
    for cell in cells:
        if cell["verdict"] == "outside":
            print(
                f"outside: ratio {cell['ratio']}, clip {cell['clip_norm']}, noise multiplier {cell['noise_multiplier']}:"
                f" best {cell['best_acc']:.4f}, published {cell['published_best_acc']} ({cell['difference']:+.4f})"
            )


def draw_indiscriminate(attack: str, cells: list[dict]) -> None:
    """Best and final accuracy against the poison ratio, a line for each clip norm without noise, and the published best as open marks."""
    figure, (axes,) = plotting.panels(2, height=3.2)
    shown = [
        cell for cell in cells if cell["noise_multiplier"] == 0 and cell["best_acc"] != "" and cell["clip_norm"] != UNBOUNDED_CLIP_NORM
    ]
    shapings = clip_norms_of(shown)
    for index, clip in enumerate(shapings):
        line = sorted((cell for cell in shown if cell["clip_norm"] == clip), key=lambda cell: cell["ratio"])
        look = {"color": plotting.COLOURS[index % 7], "marker": plotting.MARKERS[index % 7], "ms": 4, "lw": 1.2}
        ratios = [cell["ratio"] for cell in line]
        for axis, value in zip(axes, ("best_acc", "final_acc")):
            axis.plot(ratios, [cell[value] for cell in line], label=clip if clip == "undefended" else f"clip {clip:g}", **look)
        known = [cell for cell in line if cell["published_best_acc"] != ""]
        look.update(ls="", mfc="none", ms=9)
        axes[0].plot([cell["ratio"] for cell in known], [cell["published_best_acc"] for cell in known], **look)
    for axis, title in zip(axes, ("best epoch (large open marks: published)", "after the last epoch")):
        axis.axhline(shown[0]["baseline_acc"], color="0.5", ls=":", lw=1)
        axis.set(title=title, xlabel="poisons per clean row", xscale="log", ylabel="test accuracy")
        axis.set_xticks(
            sorted({cell["ratio"] for cell in shown}), [f"{ratio:g}" for ratio in sorted({cell["ratio"] for cell in shown})], rotation=60
        )
        axis.minorticks_off()
    low = min(cell[value] for cell in shown for value in ("final_acc", "best_acc", "published_best_acc") if cell[value] != "") - 0.01
    for axis in axes:
        axis.set_ylim(low, shown[0]["baseline_acc"] + 0.005)
    axes[1].legend(ncols=2, loc="lower left")
    for suffix in ("png", "pdf"):
        plotting.save(figure, layout.figures() / f"indiscriminate_{attack}.{suffix}")


# --- several seeds ---


def seeds_table(found: list[tuple[Path, dict, list[dict]]]) -> list[dict]:
    """A line for each attack, ratio and shaping that was run with three seeds or more (of the draw, the weights, the order and the noise)."""
    groups = {}
    for _, settings, lines in found:
        if settings["engine"] == "stack":
            groups.setdefault(cell_key(settings), []).append((settings["baseline_acc"], [float(line["test_acc"]) for line in lines]))
    table = []
    for (attack, ratio, clip_norm, noise_multiplier), runs in sorted(groups.items()):
        if len(runs) < 3:
            continue
        line = {
            "attack": attack,
            "ratio": ratio,
            "clip_norm": shown_clip_norm(clip_norm),
            "noise_multiplier": noise_multiplier,
            "seeds": len(runs),
            "baseline_acc": runs[0][0],
        }
        accuracies = np.array([epochs for _, epochs in runs])
        finals = accuracies[:, -1].tolist()
        for name, values in (("best", accuracies.max(1)), ("final", finals), ("epochs", accuracies.mean(1))):
            interval = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
            line[f"{name}_acc_mean"], line[f"{name}_acc_ci95"] = round(float(np.mean(values)), 4), round(float(interval), 4)
        line["final_acc_min"], line["final_acc_max"] = min(finals), max(finals)
        table.append(line)
    return table


def print_seeds(table: list[dict]) -> None:
    if table:
        print("\nover several seeds, without choosing the epoch by the test set: accuracy after the last epoch, and mean over all epochs\n")
    for line in table:
        print(
            f"{line['attack']} ratio {line['ratio']:<6}clip {line['clip_norm']!s:<12}noise multiplier {line['noise_multiplier']:<8}{line['seeds']:>3} seeds:"
            f" best {line['best_acc_mean']:.4f} +- {line['best_acc_ci95']:.4f}, final {line['final_acc_mean']:.4f} +- {line['final_acc_ci95']:.4f}"
            f" ({line['final_acc_min']:.4f} to {line['final_acc_max']:.4f}), all epochs {line['epochs_acc_mean']:.4f} +- {line['epochs_acc_ci95']:.4f}"
        )


# --- crafted sets ---


def crafting_table(cells: list[dict]) -> list[dict]:
    """A line for each poison set whose crafting was measured here, with what it does to an undefended training."""
    undefended = {(cell["attack"], cell["ratio"]): cell for cell in cells if cell["clip_norm"] == "undefended"}
    table = []
    for path in sorted((layout.RESULTS / "ipoisoning").glob("*/*/crafting.json")):
        measured = read_json(path)
        if measured is None or not {"attack", "epsilon", "n_poison"} <= set(measured):
            print(f"left out: {path} (damaged)", file=sys.stderr)
            continue
        line = {name: measured.get(name, "") for name in CRAFTING_HEADER}
        cell = undefended.get((measured["attack"], measured["epsilon"]), {})
        line.update(ratio=measured["epsilon"], undefended_best_acc=cell.get("best_acc", ""), undefended_final_acc=cell.get("final_acc", ""))
        line["source"] = str(path.relative_to(layout.RESULTS))
        table.append(line)
    return sorted(table, key=lambda line: (line["attack"], line["ratio"]))


def print_crafting(table: list[dict]) -> None:
    bounded = [line for line in table if line["upper_bound"] != ""]
    if bounded:
        print("\nminmax: the bound U* on the training loss of any such attack, that loss, and the undefended victim's accuracy\n")
    for line in bounded:
        print(
            f"ratio {line['ratio']:<6}U* {line['upper_bound']:.4f}   loss {line['training_loss']:.4f}"
            f"   best {line['undefended_best_acc']}   final {line['undefended_final_acc']}"
        )
