"""How the suite's figures look: readable in greyscale and by the colour-blind, and saved the same way every time."""

from __future__ import annotations

import os
from pathlib import Path

from files import writing
from results import layout

os.environ.setdefault("MPLCONFIGDIR", str(layout.CACHE / "matplotlib"))
import matplotlib  # noqa: E402  (the folder of its cache must be chosen first, and then the backend)

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

# Okabe and Ito's colours, ordered so that they also differ in lightness; a line has a marker or a dash of its own
# besides.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.hashsalt": "gradient-shaping",
}


def panels(columns: int, rows: int = 1, width: float = 3.4, height: float = 2.8):
    """A figure with a grid of axes, each so many inches wide and high.

    Returns the figure and the axes, [rows, columns].
    """
    plt.rcParams.update(STYLE)
    return plt.subplots(rows, columns, figsize=(width * columns, height * rows), layout="constrained", squeeze=False)


def save(figure, path: Path) -> None:
    """Save a figure as `path`, whose suffix is its format, without the time of day in it."""
    metadata = {"pdf": {"CreationDate": None}, "png": {"Software": None}}.get(path.suffix[1:])
    with writing(path, "wb") as stream:
        figure.savefig(stream, format=path.suffix[1:], metadata=metadata)
    figure.set_layout_engine("none")  # what was laid out stays so: a second format need not wait for it
    plt.close(figure)
