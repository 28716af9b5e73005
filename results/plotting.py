"""How the suite's figures look: readable in greyscale and by the colour-blind, and saved the same way every time."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path

from files import writing
from results import layout

os.environ.setdefault("MPLCONFIGDIR", str(layout.CACHE / "matplotlib"))
import matplotlib  # noqa: E402  (the folder of its cache must be chosen first, and then the backend)

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402
from matplotlib.transforms import ScaledTranslation  # noqa: E402

# Okabe and Ito's colours and a grey, ordered so that they also differ in lightness; a line has a marker of its own
# besides
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# What a shaping looks like in every figure: its colour's place above, and a marker that no other of these has, so that
# they can be told apart in grey
SHAPINGS = {
    "undefended": (0, "o"), "0.1": (1, "s"), "1": (2, "^"), "2": (3, "D"), "4": (4, "v"), "8": (5, "P"),
    "4:0.00025": (3, "<"), "4:0.0025": (6, ">"), "4:0.025": (7, "h"),
    "phuber:2": (1, "X"), "gce:0.7": (5, "*"), "centered-clip:1": (3, "p"), "phuber:2+clip:1": (4, "d"),
}  # fmt: skip
SPARE = [(colour, marker) for marker in ("H", "8", *"osD^vPX") for colour in range(1, len(COLOURS))]
SPARE = [look for look in SPARE if look not in SHAPINGS.values()]  # of shapings that are not named above
STYLE = {
    "font.size": 9,
    "axes.axisbelow": True,
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


def look(index: int, **more) -> dict:
    """Colour, marker and widths of the index-th line of a figure whose lines are no shapings."""
    return {"color": COLOURS[index % 7], "marker": MARKERS[index % 7], "ms": 4, "lw": 1.2, **more}


def shades(count: int) -> list[dict]:
    """The looks of so many lines of an ordered quantity, such as alphas: from dark to light."""
    places = [0.8 * index / max(count - 1, 1) for index in range(count)]
    return [look(index, color=matplotlib.colormaps["viridis"](place)) for index, place in enumerate(places)]


def shaping_looks(texts: Iterable[str]) -> dict[str, dict]:
    """Colour, marker and widths of shapings, by their texts.

    One that SHAPINGS does not name takes a spare look by its text, so that it is the same in every figure, too, unless
    another in the figure has it.
    """
    looks, taken = {}, set()
    for text in dict.fromkeys(texts):
        place = zlib.crc32(text.encode()) % len(SPARE)
        free = [one for one in (*SPARE[place:], *SPARE[:place]) if one not in taken] or SPARE
        colour, marker = SHAPINGS.get(text, free[0])
        taken.add((colour, marker))
        looks[text] = {"color": COLOURS[colour], "marker": marker, "ms": 5 if marker in "*Pp" else 4, "lw": 1.2}
    return looks


def whole_ticks(axis) -> None:
    """Ticks at whole numbers alone, on an axis (axes.xaxis) of epochs, poisons and the like."""
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def legend_under(axes, columns: int = 2, fontsize: float = 7, **more) -> None:
    """A legend below the panel and the label of its x axis, which therefore must be there already."""
    renderer = axes.figure.canvas.get_renderer()
    below = axes.get_window_extent(renderer).y0 - axes.xaxis.get_tightbbox(renderer).y0
    inches = below / axes.figure.dpi + 0.03
    under = axes.transAxes + ScaledTranslation(0, -inches, axes.figure.dpi_scale_trans)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": under, "borderaxespad": 0}
    axes.legend(ncols=columns, fontsize=fontsize, **place, **more)


def legend_below(figure, handles: list, labels: list[str], fontsize: float = 8) -> None:
    """A legend below all panels, in as many columns as the figure is wide enough for."""
    for columns in range(len(labels), 0, -1):
        place = {"loc": "outside lower center", "ncols": columns, "columnspacing": 1.4}
        legend = figure.legend(handles, labels, fontsize=fontsize, **place)
        if columns == 1 or legend.get_window_extent(figure.canvas.get_renderer()).width <= 0.98 * figure.bbox.width:
            return
        legend.remove()


def note(figure, text: str) -> None:
    """A small line above all panels: of how many seeds or targets they are."""
    figure.suptitle(text, fontsize=8, color="0.25")


def save(figure, path: Path) -> None:
    """Save a figure as `path`, whose suffix is its format, without the time of day in it."""
    metadata = {"pdf": {"CreationDate": None}, "png": {"Software": None}}.get(path.suffix[1:])
    with writing(path, "wb") as stream:
        figure.savefig(stream, format=path.suffix[1:], metadata=metadata)
    figure.set_layout_engine("none")  # what was laid out stays so: a second format need not wait for it
    plt.close(figure)
