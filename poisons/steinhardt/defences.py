"""The data-sanitisation defences of Steinhardt, Koh and Liang 2017 (arXiv 1706.03691), which an attacker stays within.

sphere: |x - mu_y| <= r_y                        slab: |<x - mu_y, mu_+ - mu_->| <= s_y

mu_y is the mean of a class; the radii are a quantile of the same distances over the rows that the defence is fit on,
clean or poisoned. Class + is label 1, class - label 0. In arrays indexed by class, 0 comes first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Defence:
    """A fitted pair of defences.

    means: float64 [2, features]; sphere_radii: float64 [2], r_y; slab_radii: float64 [2], s_y, of the inner product.
    """

    means: np.ndarray
    sphere_radii: np.ndarray
    slab_radii: np.ndarray

    @property
    def axis(self) -> np.ndarray:
        """mu_+ - mu_-, float64 [features]."""
        return self.means[1] - self.means[0]


def fit(x: np.ndarray, y: np.ndarray, quantile: float) -> Defence:
    """Fit both defences.

    x: [rows, features]; y: [rows] in {0, 1}, both present; quantile in (0, 1): the share of a class's rows that passes.
    """
    x = x.astype(np.float64)
    means = np.stack([x[y == label].mean(0) for label in (0, 1)])
    axis = means[1] - means[0]
    spheres = [np.quantile(np.linalg.norm(x[y == label] - means[label], axis=1), quantile) for label in (0, 1)]
    slabs = [np.quantile(np.abs((x[y == label] - means[label]) @ axis), quantile) for label in (0, 1)]
    return Defence(means, np.array(spheres), np.array(slabs))


def sphere(defence: Defence, x: np.ndarray, y: np.ndarray, tolerance: float = 0.0) -> np.ndarray:
    """Which rows the sphere lets pass, bool [rows]; tolerance: relative, on the radius."""
    return np.linalg.norm(x - defence.means[y], axis=1) <= defence.sphere_radii[y] * (1 + tolerance)


def slab(defence: Defence, x: np.ndarray, y: np.ndarray, tolerance: float = 0.0) -> np.ndarray:
    """Which rows the slab lets pass, bool [rows]; tolerance: relative, on the radius."""
    return np.abs((x - defence.means[y]) @ defence.axis) <= defence.slab_radii[y] * (1 + tolerance)
