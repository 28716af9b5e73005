"""A grid of what the five kinds of poison look like, from the poison files that there are."""

from __future__ import annotations

import contextlib

import numpy as np
import pandas as pd

import datasets
from files import Unreadable, read_npz
from poisons import attacks
from poisons.backdoor import stamp
from poisons.watermark import blend
from reports import Table
from reports.reading import Results, place
from results import layout, lines, plotting

COLUMNS = 6
ALPHAS, PATCHES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0), (1, 4, 7, 10, 14)
CLASSES = ("dress", "coat")
KINDS = ("watermark", "backdoor", "label flip", "slabs", "targeted")


def draw(tables: dict[str, Table], results: Results):
    """The figure, a row of pictures a kind; a kind whose files are not there leaves its row out."""
    subtask, recorded = datasets.load("subtask"), tables["gradients"].find(analysis="tpoisoning", shaping="undefended")
    rows = []
    drawings = (watermarks, backdoors, label_flips, slabs, lambda _: targeted(recorded, results))
    for kind, draw_kind in zip(KINDS, drawings):
        with contextlib.suppress(Unreadable, LookupError, ValueError):  # not there, or of other shapes
            rows.append((kind, draw_kind(subtask)))
    figure, axes = plotting.panels(COLUMNS, len(rows), 1.3, 1.55)
    for axis in axes.flat:
        axis.set_axis_off()
    for (kind, pictures), line in zip(rows, axes):
        for axis, (picture, title) in zip(line, pictures):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
            axis.set_title(title, fontsize=7)
        line[0].text(-0.12, 0.5, kind, transform=line[0].transAxes, rotation=90, ha="right", va="center", fontsize=8)
    return figure


def watermarks(subtask: datasets.Dataset) -> list[tuple]:
    """The first training row of one class with the first of the other blended in."""
    dress, coat = (subtask.x_train[subtask.y_train == label][0, ..., 0] for label in (0, 1))
    return [(blend(dress, coat, alpha), f"alpha {alpha}") for alpha in ALPHAS]


def backdoors(subtask: datasets.Dataset) -> list[tuple]:
    dress = subtask.x_train[subtask.y_train == 0][:1]
    return [(dress[0, ..., 0], "clean"), *((stamp(dress, patch)[0, ..., 0], f"patch {patch}") for patch in PATCHES)]


def label_flips(subtask: datasets.Dataset) -> list[tuple]:
    flips = read_npz(attacks()["label-flips"].default_path(subtask.name, 0.4))
    pairs = zip(subtask.x_train[flips["rows"][:COLUMNS], ..., 0], flips["labels"])
    return [(picture, f"{CLASSES[1 - label]}, labelled {CLASSES[label]}") for picture, label in pairs]


def slabs(subtask: datasets.Dataset) -> list[tuple]:
    stored = read_npz(attacks()["slabs"].default_path(subtask.name, 0.4))
    points = zip(stored["instances"][:COLUMNS], stored["counts"], stored["labels"])
    return [(point.reshape(28, 28), f"{count} x labelled {CLASSES[label]}") for point, count, label in points]


def targeted(recorded: pd.DataFrame, results: Results) -> list[tuple]:
    """The poison of the recorded re-training, beside its target and a row of the class that it is labelled as."""
    path = layout.RESULTS / recorded.folder.iloc[0] / layout.POISON
    try:
        baskets = lines.read(path, dict.fromkeys(lines.header(path), lines.SHARE))
    except Unreadable as error:
        if path.exists():
            results.left_out.append((place(path), str(error)))
        raise
    base, target, poison = (baskets[name].to_numpy().reshape(10, 10) for name in ("base_row", "target", "poison"))
    difference = np.abs(poison - target)
    titles = (
        "a row of class 4",
        "target (class 3)",
        "poison, labelled 4",
        f"|poison - target|\nat most {difference.max():.4f}",
    )
    return list(zip((base, target, poison, difference), titles))
