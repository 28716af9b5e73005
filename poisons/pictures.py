"""What poisons look like: a grid of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from results import plotting


def grid(path: Path, images: np.ndarray, titles: list[str], columns: int = 8) -> None:
    """Draw images, [count, 784] or [count, 28, 28(, 1)] in [0, 1], with a title each, as a PNG."""
    columns = min(columns, len(images))
    figure, axes = plotting.panels(columns, -(-len(images) // columns), 1.3, 1.5)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, title in zip(axes.flat, images, titles):
        axis.imshow(image.reshape(28, 28), cmap="gray", vmin=0, vmax=1)
        axis.set_title(title, fontsize=6)
    plotting.save(figure, path)
