"""The fixed-oracle attack (Steinhardt et al. 2017, algorithm 1): poisons that pass both defences and are valid images.

    epsilon n times: the feasible point (x, y) of largest hinge loss on the model theta joins the poisons;
    z -= grad L_clean(theta) + epsilon grad loss(x, y; theta);    lambda = max(lambda, |z| / rho);    theta = z / lambda

U* = min over the steps of L_clean(theta) + epsilon loss(x, y; theta) bounds from above what any attack of this budget
and feasible set can make a model of norm rho lose in training: with that model's theta, no set of feasible poisons has
a larger mean loss than its worst point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from poisons.steinhardt import oracle
from poisons.steinhardt.defences import Defence
from poisons.steinhardt.hinge import hinge_gradient, hinge_loss, hinge_margins


@dataclass(frozen=True)
class Outcome:
    """Poisons x, float64 [poisons, features] in [0, 1], with labels y, and what was measured.

    upper_bound: U*; training_loss: per clean row, on clean rows and poisons, of the best model found for it;
    worst_gap: the oracle's worst duality gap.
    """

    x: np.ndarray
    y: np.ndarray
    upper_bound: float
    training_loss: float
    worst_gap: float


def craft(
    x: np.ndarray,
    y: np.ndarray,
    defence: Defence,
    epsilon: float,
    rho: float,
    step_size: float,
    show: Callable[[int, float], None],
) -> Outcome:
    """Craft round(epsilon * rows) poisons.

    x: float [rows, features] in [0, 1]; y: [rows] in {0, 1}; rho: the bound on the norm of the model, its bias being
    one more coordinate; step_size: eta, 1 / the first lambda; show: called with the step and the bound so far.
    """
    x = x.astype(np.float32)  # two products with all rows a step: half the bytes, half the time
    signs, steps = 2.0 * y - 1, round(epsilon * len(x))
    everywhere = np.full(len(x), 1 / len(x))
    axis = defence.axis / np.linalg.norm(defence.axis)
    widths = defence.slab_radii / np.linalg.norm(defence.axis)
    total, total_bias, scale = np.zeros(x.shape[1]), 0.0, 1 / step_size
    poisons, labels, upper_bound, worst_gap = [], [], math.inf, 0.0
    for step in range(1, steps + 1):
        theta, bias = total / scale, total_bias / scale
        found = []
        for label in (0, 1):
            sign = 2 * label - 1
            point, gap = oracle.minimise(
                sign * theta, defence.means[label], defence.sphere_radii[label], axis, widths[label]
            )
            worst_gap = max(worst_gap, gap)
            found.append((max(0.0, 1 - sign * (point @ theta + bias)), label, point))
        loss, label, point = max(found, key=lambda entry: entry[0])
        poisons.append(point)
        labels.append(label)
        margins = hinge_margins(x, signs, theta, bias)
        upper_bound = min(upper_bound, hinge_loss(everywhere, margins) + epsilon * loss)
        gradient, gradient_bias = hinge_gradient(x, signs, everywhere, margins)
        if loss > 0:
            gradient = gradient - epsilon * (2 * label - 1) * point
            gradient_bias = gradient_bias - epsilon * (2 * label - 1)
        total, total_bias = total - gradient, total_bias - gradient_bias
        scale = max(scale, math.hypot(np.linalg.norm(total), total_bias) / rho)
        show(step, upper_bound)
    added = np.array(poisons), np.array(labels)
    return Outcome(*added, upper_bound, trained_loss(x, y, *added, epsilon, rho), worst_gap)


def trained_loss(
    x: np.ndarray, y: np.ndarray, poisons: np.ndarray, labels: np.ndarray, epsilon: float, rho: float, steps: int = 1000
) -> float:
    """The training loss of the attack: the smallest L_clean + epsilon L_poison of a model of norm rho.

    It is what projected subgradient descent from zero finds.
    """
    everyone = np.concatenate([x, poisons.astype(x.dtype)])
    signs = 2.0 * np.concatenate([y, labels]) - 1
    weights = np.concatenate([np.full(len(x), 1 / len(x)), np.full(len(poisons), epsilon / len(poisons))])
    theta, bias, least = np.zeros(x.shape[1]), 0.0, math.inf
    for step in range(1, steps + 1):
        margins = hinge_margins(everyone, signs, theta, bias)
        least = min(least, hinge_loss(weights, margins))
        gradient, gradient_bias = hinge_gradient(everyone, signs, weights, margins)
        size = math.hypot(np.linalg.norm(gradient), gradient_bias)
        if size == 0:
            break  # this is the minimum: every row is beyond its margin
        length = 0.5 / (size * math.sqrt(step))
        theta, bias = theta - length * gradient, bias - length * gradient_bias
        shrink = min(1.0, rho / math.hypot(np.linalg.norm(theta), bias))
        theta, bias = shrink * theta, shrink * bias
    return least
