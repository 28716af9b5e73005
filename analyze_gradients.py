#!/usr/bin/env python3
"""Reduce recorded gradients to the paper's magnitude and cosine tables, and to quantiles over single examples.

    python3 analyze_gradients.py                    every results folder that has param_updates
    python3 analyze_gradients.py FOLDER ...         those in or below these folders

Writes beside each param_updates/
    mextracts_epoch.csv   no header; an epoch a line: l2 norm of the mean clean gradient, of the mean poison gradient
    aextracts_epoch.csv   no header; an epoch a line: cosine of the two
    sextracts_epoch.csv   quantiles of the single examples' gradient norms (clean, poison) and of each poison's cosine to its batch's mean clean gradient
    gradients.png         the three of them against the epoch
All are of the last layer's kernel; the means are those of sections 3 and 4 of the paper: a mean over each batch, then over the epoch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from command_line import Parser, refuse
from files import Unreadable, write_csv
from results import layout, param_updates, plotting

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
    recorded = sorted({found.parent for folder in options.folders or [layout.RESULTS] for found in folder.rglob(layout.PARAM_UPDATES)})
    if not recorded:
        print("no recorded gradients here (param_updates folders); what was reduced before stands as it is")
    for folder in recorded:
        try:
            epochs = param_updates.read(folder / layout.PARAM_UPDATES)
        except Unreadable as error:
            refuse(f"{folder / layout.PARAM_UPDATES}: {error}; delete {folder} and record again")
        ratio, cosine = analyze(folder, epochs)
        print(f"{folder}: mean norm ratio {ratio:.3f}, mean cosine {cosine:+.5f} over {len(epochs)} epochs")


def analyze(folder: Path, epochs: list[dict[str, np.ndarray]]) -> tuple[float, float]:
    """Write a folder's extracts and figure from its recorded epochs; returns the mean norm ratio (poison over clean) and the mean cosine."""
    magnitudes = np.array([(np.linalg.norm(epoch["clean_kernel"]), np.linalg.norm(epoch["poison_kernel"])) for epoch in epochs])
    cosines = np.array([cosine(epoch["clean_kernel"], epoch["poison_kernel"]) for epoch in epochs])
    write_csv(folder / layout.MAGNITUDES, None, magnitudes.tolist())
    write_csv(folder / layout.ORIENTATIONS, None, cosines[:, np.newaxis].tolist())
    quantiles = None
    if PER_EXAMPLE[0] in epochs[0]:  # the paper's layout has no single examples
        quantiles = np.array([[value for name in PER_EXAMPLE for value in np.nanpercentile(epoch[name], QUANTILES)] for epoch in epochs])
        write_csv(folder / layout.PER_EXAMPLE, PER_EXAMPLE_HEADER, [[number, *line] for number, line in enumerate(quantiles.tolist(), 1)])
    draw(folder / "gradients.png", magnitudes, cosines, quantiles)
    return float(np.mean(magnitudes[:, 1] / magnitudes[:, 0])), float(cosines.mean())


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """<a, b> / (|a| |b|) of two arrays of one shape, in float64."""
    a, b = a.astype(np.float64).reshape(-1), b.astype(np.float64).reshape(-1)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def draw(path: Path, magnitudes: np.ndarray, cosines: np.ndarray, quantiles: np.ndarray | None) -> None:
    """Mean norms, their cosine and, where known, the bands of the single examples, against the epoch."""
    figure, ((norms, orientation, examples),) = plotting.panels(3)
    epochs = np.arange(1, len(cosines) + 1)
    for column, (part, colour) in enumerate((("clean", plotting.COLOURS[1]), ("poison", plotting.COLOURS[2]))):
        norms.plot(epochs, magnitudes[:, column], color=colour, ls=("-", "--")[column], label=part)
        if quantiles is not None:
            low, lower, middle, upper, high = quantiles[:, 5 * column : 5 * column + 5].T
            examples.fill_between(epochs, low, high, color=colour, alpha=0.15, lw=0)
            examples.fill_between(epochs, lower, upper, color=colour, alpha=0.3, lw=0)
            examples.plot(epochs, middle, color=colour, ls=("-", "--")[column], label=part)
    norms.set(title="norm of the mean gradient", xlabel="epoch", yscale="log")
    norms.legend()
    orientation.plot(epochs, cosines, color=plotting.COLOURS[0])
    orientation.set(title="cosine of the means", xlabel="epoch", ylim=(-1.05, 1.05))
    examples.set(title="norms of single examples\n(median, 25-75%, 5-95%)", xlabel="epoch")
    plotting.save(figure, path)


if __name__ == "__main__":
    main()
