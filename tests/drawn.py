"""What is wrong with a figure as it is drawn, measured by the boxes that its renderer gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text

OVER = 0.5  # pixels at 100 dpi that two boxes may share, or that one may lie beyond the canvas: rounding


@dataclass
class Box:
    """Where something is drawn. name: what it is; corners: float64 [4, 2], in pixels, in their order around it."""

    name: str
    corners: np.ndarray

    @property
    def ends(self) -> np.ndarray:
        """Left, bottom, right, top."""
        return np.concatenate([self.corners.min(0), self.corners.max(0)])


def faults(figure: Figure) -> list[str]:
    """What is wrong: texts that overlap, what lies beyond the canvas, and legends that cover data; empty if nothing."""
    figure.draw_without_rendering()
    boxes = [*texts(figure), *legends(figure)]
    return [*overlaps(boxes), *beyond(boxes, figure), *covered(figure)]


def texts(figure: Figure) -> list[Box]:
    """All texts that are shown but those of legends: tick labels, labels, titles, annotations."""
    found = [text for text in figure.texts + [figure._suptitle, figure._supxlabel, figure._supylabel] if text]
    for axes in figure.axes:
        if not axes.get_visible():
            continue
        found += [*axes.texts, axes.title]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            found += [axis.label, axis.get_offset_text(), *tick_labels(axis)]
    shown = dict.fromkeys(text for text in found if text.get_visible() and text.get_text().strip())
    return [Box(repr(text.get_text()), corners(text)) for text in shown]


def tick_labels(axis: Axis) -> list[Text]:
    """The labels of the ticks within the axis' limits, the others are not drawn."""
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [label for tick in ticks if low <= tick.get_loc() <= high for label in (tick.label1, tick.label2)]


def corners(text: Text) -> np.ndarray:
    """The corners of a text, of a turned one turned: its box would hold much that is empty. Of an annotation, without
    its arrow.
    """
    box, angle = Text.get_window_extent(text), text.get_rotation()
    text.set_rotation(0)
    flat = Text.get_window_extent(text)
    text.set_rotation(angle)
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (flat.width / 2, flat.height / 2)
    turn = np.deg2rad(angle)
    turned = half @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return turned + ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)


def legends(figure: Figure) -> list[Box]:
    of_axes = [axes.get_legend() for axes in figure.axes if axes.get_legend() and axes.get_visible()]
    return [legend_box(legend) for legend in [*figure.legends, *of_axes]]


def legend_box(legend: Legend) -> Box:
    box = legend.get_window_extent()
    around = np.array([(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)])
    return Box(f"legend of {legend.get_texts()[0].get_text()!r}", around)


def overlaps(boxes: list[Box]) -> list[str]:
    """Pairs of boxes that share more than OVER."""
    if not boxes:
        return []
    ends, found = np.array([box.ends for box in boxes]), []
    for place, box in enumerate(boxes):
        near = (ends[place + 1 :, :2] < box.ends[2:] - OVER).all(1) & (ends[place + 1 :, 2:] > box.ends[:2] + OVER).all(
            1
        )
        others = (boxes[place + 1 + other] for other in np.flatnonzero(near))
        found += [f"{box.name} overlaps {other.name}" for other in others if shared(box, other) > OVER]
    return found


def shared(one: Box, other: Box) -> float:
    """How deep two boxes lie in each other, in pixels: the least over the directions of their sides; 0 if none."""
    sides = np.concatenate([box.corners[[1, 2]] - box.corners[[0, 1]] for box in (one, other)])
    normals = sides[:, ::-1] * (-1, 1) / np.maximum(np.linalg.norm(sides, axis=1, keepdims=True), 1e-9)
    first, second = (box.corners @ normals.T for box in (one, other))
    depth = np.minimum(first.max(0), second.max(0)) - np.maximum(first.min(0), second.min(0))
    return max(depth.min(), 0.0)


def beyond(boxes: list[Box], figure: Figure) -> list[str]:
    """Boxes and panels that are cut off by the canvas."""
    panels = [axes.get_window_extent() for axes in figure.axes if axes.get_visible()]
    named = [(box.name, box.ends) for box in boxes] + [("a panel", np.array(panel.extents)) for panel in panels]
    size = np.array(figure.bbox.extents)
    return [
        f"{name} lies beyond the canvas"
        for name, ends in named
        if (ends[:2] < size[:2] - OVER).any() or (ends[2:] > size[2:] + OVER).any()
    ]


def covered(figure: Figure) -> list[str]:
    """Legends that lie on a line of any panel, or on its marks."""
    found = []
    for box in legends(figure):
        for axes in figure.axes:
            for line in axes.get_lines() if axes.get_visible() else ():
                points = on_line(line)
                clip = axes.get_window_extent().extents
                points = points[((points >= clip[:2]) & (points <= clip[2:])).all(1)]
                if ((points > box.ends[:2] + OVER) & (points < box.ends[2:] - OVER)).all(1).any():
                    found.append(f"{box.name} covers {line.get_label()!r}")
    return found


def on_line(line: Line2D) -> np.ndarray:
    """Points of a line, float64 [points, 2], in pixels: its marks, and others between them where it joins them."""
    marks = line.get_transform().transform(line.get_xydata())
    if line.get_linestyle() == "None" or len(marks) < 2:
        return marks
    return np.concatenate([marks, *(marks[:-1] + part * (marks[1:] - marks[:-1]) for part in np.arange(1, 10) / 10)])
