"""A grid of what the five kinds of poison look like, from the poison files that there are."""

from __future__ import annotations

import numpy as np

import datasets
from files import Unreadable, read_npz
from poisons import images
from results import cells, layout, plotting

COLUMNS = 6
SLABS = layout.steinhardt_file("slabs", 0.4, 0.65, layout.SEED)
ALPHAS, PATCHES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0), (1, 4, 7, 10, 14)


def draw():
    """The figure, a row of pictures a kind; a kind whose files are not there leaves its row out."""
    subtask = datasets.load("subtask")
    rows = [*of_the_subtask(subtask), *slabs(), *targeted()]
    figure, axes = plotting.panels(COLUMNS, len(rows), 1.15, 1.5)
    for axis in axes.flat:
        axis.set_axis_off()
    for (kind, pictures), line in zip(rows, axes):
        for axis, (picture, title) in zip(line, pictures):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
            axis.set_title(title, fontsize=6)
        line[0].text(-0.12, 0.5, kind, transform=line[0].transAxes, rotation=90, ha="right", va="center", fontsize=8)
    return figure


def of_the_subtask(subtask: datasets.Dataset) -> list[tuple]:
    """Watermarks, backdoors and label flips: made of training rows, as the poison files say them (rows of images keep no pixels of their own)."""
    x = subtask.x_train[..., 0]
    dress, coat = (int(np.flatnonzero(subtask.y_train == label)[0]) for label in (0, 1))
    watermarks = [(images.blend(x[dress], x[coat], alpha), f"alpha {alpha}") for alpha in ALPHAS]
    stamped = [(images.stamp(subtask.x_train[dress : dress + 1], patch)[0, ..., 0], f"patch {patch}") for patch in PATCHES]
    rows = [("watermark", watermarks), ("backdoor", [(x[dress], "clean"), *stamped])]
    try:
        flips = read_npz(layout.label_flips_file(subtask.name, 0.4, layout.SEED))
        names = ("dress", "coat")
        flipped = [(x[row], f"{names[1 - label]}, labelled {names[label]}") for row, label in zip(flips["rows"][:COLUMNS], flips["labels"])]
        rows.append(("label flip", flipped))
    except (Unreadable, KeyError, IndexError):
        pass
    return rows


def slabs() -> list[tuple]:
    try:
        stored = read_npz(SLABS)
        points = [
            (point.reshape(28, 28), f"{count} x labelled {label}")
            for point, count, label in zip(stored["instances"], stored["counts"], stored["labels"])
        ]
    except (Unreadable, KeyError, ValueError):
        return []
    return [("slabs", points[:COLUMNS])]


def targeted() -> list[tuple]:
    """The poison of the recorded re-training, beside its target and a row of the class that it is labelled as."""
    for path in sorted(layout.ANALYSIS.glob(f"tpoisoning/*/*/vanilla_lr_*/{layout.POISON}")):
        lines = cells.read(path)
        try:
            basket = {name: np.array([float(line[name]) for line in lines]).reshape(10, 10) for name in ("base_row", "target", "poison")}
        except (KeyError, TypeError, ValueError):
            continue
        difference = np.abs(basket["poison"] - basket["target"])
        titles = ("a row of class 4", "target (class 3)", "poison, labelled 4")
        shown = [*zip(basket.values(), titles), (difference, f"|poison - target|\nat most {difference.max():.4f}")]
        return [("targeted", shown)]
    return []
