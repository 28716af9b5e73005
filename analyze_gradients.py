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

import textwrap
from pathlib import Path

import numpy as np

from command_line import Parser, refuse, run
from files import Unreadable, below, printable, write_csv
from models.kind import UNDEFENDED_TEXT
from results import cells, layout, param_updates, plotting, words

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
    for figure in sorted({layout.gradients_figure(folder) for folder in recorded}):
        plotting.save(draw(members(figure)), figure)


def members(figure: Path) -> list[Path]:
    """The reduced folders that a figure draws: undefended ones first, then those of smaller numbers."""
    folders = [path.parent for path in below(figure.parent)[0] if path.name == layout.MAGNITUDES]
    found = [path for path in folders if layout.gradients_figure(path) == figure and param_updates.reduced(path)]
    defended = {folder: cells.analysed(folder).get("shaping") != UNDEFENDED_TEXT for folder in found}
    return sorted(found, key=lambda folder: (defended[folder], layout.natural_order(str(folder))))


def recorder(folder: Path) -> str:
    """The command that recorded the gradients of a folder, in words."""
    settings = cells.analysed(folder)
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


def draw(folders: list[Path]):
    """The figure of a set: norms and cosines of the means and, where known, of the single examples, against the epoch,
    a line for each folder of extracts. What all trainings have in common is its title, what they differ in its legend.
    """
    title, looks = appearance(folders)
    figure, (means, examples) = plotting.panels(3, 2, height=2.9)
    for index, (folder, (name, look)) in enumerate(zip(folders, looks)):
        try:
            extracts, quantiles = param_updates.read_extracts(folder), param_updates.read_examples(folder)
        except Unreadable as error:
            refuse(f"{folder}: its extracts are unusable, {error}; delete them, and {recorder(folder)} records again")
        epochs = np.arange(1, len(extracts) + 1)
        shown = {**look, "ms": 3, "markevery": (index % len(epochs), max(1, len(epochs) // 8))}
        for axis, values in zip(means, extracts.T):
            axis.plot(epochs, values, label=name, **shown)
        if quantiles is None:
            continue
        for axis, part in zip(examples, quantiles.transpose(1, 0, 2)):
            alpha = 0.04 if axis is examples[2] else 0.12
            axis.plot(epochs, part[:, 2], label=name, **shown)
            axis.fill_between(epochs, part[:, 1], part[:, 3], color=look["color"], alpha=alpha, lw=0)
    for axes, what in ((means, "of the mean gradients"), (examples, "of single examples (median, 25-75%)")):
        for axis, part in zip(axes, ("clean norms", "poison norms", "cosines")):
            axis.set(xlabel="epoch")
            axis.set_title(f"{part} {what}", fontsize=8)
            axis.set_yscale("log") if part != "cosines" else axis.set_ylim(-1.05, 1.05)
            plotting.whole_ticks(axis.xaxis)
    plotting.note(figure, textwrap.fill(title, 165))
    if len(folders) > 1:
        plotting.legend_below(figure, *means[0].get_legend_handles_labels())
    return figure


def appearance(folders: list[Path]) -> tuple[str, list[tuple[str, dict]]]:
    """The title of a figure, and of each of its lines the name and the look.

    Both are of the trainings' settings; a folder without any, or with those of another, is called by its name.
    """
    settings = [cells.analysed(folder) for folder in folders]
    title, names = words.in_common([words.training(one) for one in settings])
    title = title or (folders[0] if len(folders) == 1 else folders[0].parent).name
    names = [
        name if name and names.count(name) == 1 else ", ".join(filter(None, [name, folder.name]))
        for name, folder in zip(names, folders)
    ]
    shapings = [one.get("shaping") for one in settings]
    if len(folders) == len({text for text in shapings if isinstance(text, str)}):
        known = plotting.shaping_looks(shapings)
        return title, list(zip(names, (known[text] for text in shapings)))
    return title, list(zip(names, plotting.shades(len(folders))))


if __name__ == "__main__":
    run(main)
