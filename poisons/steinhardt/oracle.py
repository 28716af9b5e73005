"""The feasible point that a linear model likes least: the oracle of `minmax` (Steinhardt et al. 2017, section 3).

    minimise <c, x>   over   |x - mu| <= r,   |<x - mu, v>| <= s,   0 <= x <= 1                    (|v| = 1)

With multipliers for the ball and the slab the minimiser over the box is x(t, q) = clip(mu - t c - q v, 0, 1). Along q
the slab's inner product falls, along t the distance from mu grows, so two nested one-dimensional roots give the
solution.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq


def minimise(
    c: np.ndarray, mean: np.ndarray, radius: float, axis: np.ndarray, width: float
) -> tuple[np.ndarray, float]:
    """The minimiser and its duality gap, at least 0 up to rounding.

    c, mean, axis: float64 [features], |axis| = 1, mean within [0, 1]; radius, width: r and s, > 0.
    """
    size = np.linalg.norm(c)
    if size == 0:
        return mean.copy(), 0.0
    largest = 1e6 * radius / size  # beyond it the box alone holds the point, and the ball is inactive

    def at(t: float) -> tuple[np.ndarray, float]:
        moved = mean - t * c

        def along(q: float) -> float:
            return float((np.clip(moved - q * axis, 0, 1) - mean) @ axis)

        start = along(0.0)
        if abs(start) <= width:
            return np.clip(moved, 0, 1), 0.0
        side = float(np.sign(start))
        far = side * radius
        # at q -> infinity every pixel is at the end of the box that lowers the inner product
        while side * along(far) > width:
            far *= 2
        q = brentq(lambda q: along(q) - side * width, 0.0, far, xtol=1e-14, rtol=1e-15)
        return np.clip(moved - q * axis, 0, 1), q

    def outside(t: float) -> float:
        return float(np.linalg.norm(at(t)[0] - mean) - radius)

    t = float(radius / size)  # without box and slab this is the solution, so it is a good scale
    while outside(t) <= 0 and t < largest:
        t *= 2
    if outside(t) > 0:
        t = brentq(outside, 0.0, t, xtol=1e-15 * t, rtol=1e-15)
    x, q = at(t)
    away = x - mean
    # <c, x> minus the Lagrangian's minimum over the box, which x attains
    gap = (radius**2 - away @ away) / (2 * t) + abs(q) / t * (width - abs(away @ axis))
    return x, float(gap)
