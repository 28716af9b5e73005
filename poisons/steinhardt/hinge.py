"""The hinge loss of a linear model and its gradient, weighted: what the attacks of Steinhardt et al. 2017 train on."""

from __future__ import annotations

import numpy as np


def hinge_margins(x: np.ndarray, signs: np.ndarray, theta: np.ndarray, bias: float) -> np.ndarray:
    """y_i (<x_i, theta> + b), [rows]; x: float [rows, features]; signs: y, [rows] in -1, +1."""
    return signs * (x @ theta.astype(x.dtype) + bias)


def hinge_loss(weights: np.ndarray, margins: np.ndarray) -> float:
    """sum_i w_i max(0, 1 - y_i (<x_i, theta> + b)); weights: w, [rows]; margins: of `hinge_margins`."""
    return float(weights @ np.maximum(0, 1 - margins))


def hinge_gradient(
    x: np.ndarray, signs: np.ndarray, weights: np.ndarray, margins: np.ndarray
) -> tuple[np.ndarray, float]:
    """Its gradient in theta, float64 [features], and in b."""
    pull = weights * signs * (margins < 1)
    return -(pull.astype(x.dtype) @ x).astype(np.float64), -float(pull.sum())
