#!/usr/bin/env python3
"""Reduce recorded gradients to the paper's magnitude and cosine tables, and to quantiles over single examples.

    python3 analyze_gradients.py                    every results folder that has param_updates
    python3 analyze_gradients.py FOLDER ...         those in or below these folders

Writes beside each param_updates/
    mextracts_epoch.csv   no header; an epoch a line: l2 norm of the mean clean gradient, of the mean poison gradient
    aextracts_epoch.csv   no header; an epoch a line: cosine of the two
    sextracts_epoch.csv   quantiles of the single examples' gradient norms (clean, poison) and of each poison's cosine
                          to its batch's mean clean gradient
and, where the folders of a set meet (all alphas, all patches, all models of a poison set), gradients[_<model>].png: all
of it against the epoch. All are of the last layer's kernel; the means are those of sections 3 and 4 of the paper: a
mean over each batch, then over the epoch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from command_line import Parser, refuse, run
from files import Unreadable, below, printable, read_json, write_csv
from results import cells, layout, param_updates, plotting

QUANTILES = (5, 25, 50, 75, 95)  # per cent
PER_EXAMPLE = ("clean_norms", "poison_norms", "poison_cosines")
PER_EXAMPLE_HEADER = ["epoch", *(f"{name[:-1]}_q{quantile:02}" for name in PER_EXAMPLE for quantile in QUANTILES)]


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help="default: all below the results")
    options = parser.parse_args()
    for folder in options.folders:
        if not folder.is_dir():
            refuse(f"{folder}: no such folder; train with --record first")
    searched = options.folders or [layout.RESULTS]
    found = [folder for start in searched for folder in [start, *below(start)[1]]]
    recorded = sorted({folder.parent for folder in found if folder.name == layout.PARAM_UPDATES})
    if not recorded:
        print("no recorded gradients here (param_updates folders); what was reduced before stands as it is")
    for folder in recorded:
        try:
            epochs = param_updates.read(folder / layout.PARAM_UPDATES)
        except Unreadable as error:
            refuse(f"{folder / layout.PARAM_UPDATES}: {error}; delete {folder}, and {recorder(folder)} records again")
        ratio, cosine = reduce(folder, epochs)
        print(f"{printable(folder)}: mean norm ratio {ratio:.3f}, mean cosine {cosine:+.5f} over {len(epochs)} epochs")
    for figure in sorted({layout.gradients_figure(folder)[0] for folder in recorded}):
        members = {}
        for magnitudes in below(figure.parent)[0]:
            if magnitudes.name != layout.MAGNITUDES:
                continue
            its_figure, name = layout.gradients_figure(magnitudes.parent)
            if its_figure == figure and param_updates.reduced(magnitudes.parent):
                members[name] = magnitudes.parent
        draw(figure, members)


def recorder(folder: Path) -> str:
    """The command that recorded the gradients of a folder, in words."""
    run = read_json(folder / layout.RUN) or {}
    settings = run.get("settings") if isinstance(run.get("settings"), dict) else {}
    command = "attack_targets.py" if "mode" in settings else "train.py"
    chosen = (f"--{name} {settings[name]}" for name in ("dataset", "network", "shaping", "seed") if name in settings)
    return printable(" ".join(["python3", command, *chosen, "--record"]))


def reduce(folder: Path, epochs: list[dict[str, np.ndarray]]) -> tuple[float, float]:
    """Write a folder's extracts from its recorded epochs.

    Returns the mean norm ratio (poison over clean) and the mean cosine.
    """
    magnitudes = np.array(
        [(np.linalg.norm(epoch["clean_kernel"]), np.linalg.norm(epoch["poison_kernel"])) for epoch in epochs]
    )
    cosines = np.array([cosine(epoch["clean_kernel"], epoch["poison_kernel"]) for epoch in epochs])
    write_csv(folder / layout.MAGNITUDES, None, magnitudes.tolist())
    write_csv(folder / layout.ORIENTATIONS, None, cosines[:, np.newaxis].tolist())
    written = [layout.MAGNITUDES, layout.ORIENTATIONS]
    if PER_EXAMPLE[0] in epochs[0]:  # the paper's layout has no single examples
        written.append(layout.PER_EXAMPLE)
        quantiles = np.array(
            [[value for name in PER_EXAMPLE for value in np.nanpercentile(epoch[name], QUANTILES)] for epoch in epochs]
        )
        write_csv(
            folder / layout.PER_EXAMPLE,
            PER_EXAMPLE_HEADER,
            [[number, *line] for number, line in enumerate(quantiles.tolist(), 1)],
        )
    cells.add(folder, written)
    return float(np.mean(magnitudes[:, 1] / magnitudes[:, 0])), float(cosines.mean())


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """<a, b> / (|a| |b|) of two arrays of one shape, in float64."""
    a, b = a.astype(np.float64).reshape(-1), b.astype(np.float64).reshape(-1)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def draw(path: Path, members: dict[str, Path]) -> None:
    """Norms and cosines of the means and, where known, of the single examples, against the epoch: a line for each
    member of a set.

    members: the folders of extracts by their names in the legend, at most seven.
    """
    figure, (means, examples) = plotting.panels(3, 2)
    for index, (name, folder) in enumerate(sorted(members.items(), key=lambda member: layout.natural_order(member[0]))):
        look = {"color": plotting.COLOURS[index % 7], "marker": plotting.MARKERS[index % 7], "ms": 3, "lw": 1.2}
        try:
            extracts, quantiles = param_updates.read_extracts(folder), param_updates.read_examples(folder)
        except Unreadable as error:
            refuse(f"{folder}: its extracts are unusable, {error}; delete them, and {recorder(folder)} records again")
        epochs = np.arange(1, len(extracts) + 1)
        look["markevery"] = (index, max(1, len(epochs) // 8))
        for axis, values in zip(means, extracts.T):
            axis.plot(epochs, values, label=name, **look)
        if quantiles is None:
            continue
        for axis, part in zip(examples, quantiles.transpose(1, 0, 2)):
            axis.plot(epochs, part[:, 2], label=name, **look)
            axis.fill_between(
                epochs, part[:, 1], part[:, 3], color=look["color"], alpha=0.04 if axis is examples[2] else 0.12, lw=0
            )
    for axes, what in ((means, "of the mean gradients"), (examples, "of single examples (median, 25-75%)")):
        for axis, part in zip(axes, ("clean norms", "poison norms", "cosines")):
            axis.set(title=f"{part} {what}", xlabel="epoch")
            axis.title.set_fontsize(8)
            axis.set_yscale("log") if part != "cosines" else axis.set_ylim(-1.05, 1.05)
    figure.legend(*means[0].get_legend_handles_labels(), loc="outside lower center", ncols=7, fontsize=8)
    plotting.save(figure, path)


if __name__ == "__main__":
    run(main)
