"""What attacks do to images: a poison file keeps the training rows and the settings, and the images are made of them when it is read."""

from __future__ import annotations

import numpy as np

MARGIN = 1  # pixels between a patch and the border, where there is room


def blend(base: np.ndarray, target: np.ndarray, alpha: float) -> np.ndarray:
    """clip((1 - alpha) x0 + alpha x1, 0, 1), float32 of the shape of both; alpha in [0, 1]."""
    return np.clip(np.float32(1 - alpha) * base + np.float32(alpha) * target, 0, 1)


def stamp(x: np.ndarray, patch: int) -> np.ndarray:
    """Copies of images with a white square of `patch` x `patch` pixels at the top left.

    x: float32 [images, height, width, channels] in [0, 1]; patch: from 1 to the image's smaller side. Returns the shape of x.
    """
    stamped = x.copy()
    top, left = (min(MARGIN, side - patch) for side in x.shape[1:3])
    stamped[:, top : top + patch, left : left + patch] = 1
    return stamped
