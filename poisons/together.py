"""Targeted clean-label poisons that are crafted together, several for one target; see `poisons.shafahi` for those that
are crafted each by itself, whose files, options and victims these share.

gradient-matching (Geiping et al. 2021, "Witches' Brew", equation 3): the sum of the poisons' gradients as the victim
    shapes them is to point where the gradient of the target under the wanted label does,

        min 1 - cos( grad L(t, c), sum_j w_j grad L(p_j, c) )

    w_j are the weights that the victim's shaping gives the poisons, as in the authors' variant against DP-SGD, which
    clips their sum; its noise has no part in the direction that is expected.

bullseye (Aghakhani et al. 2021, "Bullseye Polytope", equation 4): the target is to lie in the middle of the poisons,

        min |f(t) - 1/k sum_j f(p_j)| / |f(t)|

Both move the base rows within an L2 ball of each and [0, 1], by Adam, at a clean model's weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from models.shaping import UNDEFENDED, Shaping
from poisons import shafahi

if TYPE_CHECKING:
    from poisons.shafahi import Budget

STEPS = 250
RATE = 0.03  # of Adam, in radii; falls to 0 along a cosine


class Together:
    """Crafts poisons of one target together, against one Keras model; the descent is traced once for all targets.

    name: of the attack, one of NAMES; shaping: the victim's; seed: of its stack.
    """

    def __init__(self, name: str, model, shaping: Shaping, wanted: int, seed: int) -> None:
        import tensorflow as tf

        from models import stack

        self.name, self.tf, self.wanted, self.alone = name, tf, wanted, shafahi.Crafter(model)
        self.plain, self.shaped = (stack.Stack(model, [one], "sgd", 1.0, seed) for one in (UNDEFENDED, shaping))
        self.descend = tf.function(self._descend, reduce_retracing=True)

    def craft(self, target: np.ndarray, base: np.ndarray, *budgets: Budget) -> tuple[np.ndarray, np.ndarray]:
        """The poisons that come of the base rows, and their feature distances |f(p) - f(t)|.

        target: float32 [*shape]; base: float32 [rows, *shape]; budgets: they differ in the radius alone, which must be
        finite. Returns float32 [budgets * rows, *shape] in [0, 1] and float64 [budgets * rows], those of the first
        budget first.
        """
        radii = [np.float32(budget.radius) for budget in budgets]
        found = [self.descend(self.tf.constant(target), self.tf.constant(base), radius)[0].numpy() for radius in radii]
        points = np.concatenate(found)
        return points, self.distances(target, points)

    def distances(self, target: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The feature distances |f(x) - f(t)|, float64 [rows]; as in `craft`."""
        return self.alone.distances(target, x)

    def loss_of(self, target) -> Callable:
        """The loss of poisons, a scalar, as a function of points, float32 [rows, *shape]."""
        return (gradient_matching if self.name == "gradient-matching" else bullseye)(self, target)

    def _descend(self, target, base, radius):
        """Returns the best points that were met, and their loss."""
        tf, axes = self.tf, list(range(1, len(base.shape)))
        loss_of = self.loss_of(target)

        def loss_and_gradient(points):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(points)
                loss = loss_of(points)
            gradient = tape.gradient(loss, points)
            return loss, tf.where(tf.math.is_finite(gradient), gradient, 0.0)  # not where a norm is 0

        points, best, least = base, base, np.float32(np.inf)
        first, second = tf.zeros_like(base), tf.zeros_like(base)
        for number in tf.range(1.0, STEPS + 1.0):
            loss, gradient = loss_and_gradient(points)
            best, least = tf.where(loss < least, points, best), tf.minimum(loss, least)
            first, second = 0.9 * first + 0.1 * gradient, 0.99 * second + 0.01 * tf.square(gradient)
            rate = RATE * radius * 0.5 * (1 + tf.cos(np.pi * (number - 1) / STEPS))
            step = rate * (first / (1 - 0.9**number)) / (tf.sqrt(second / (1 - 0.99**number)) + 1e-12)
            points = tf.clip_by_value(points - step, 0.0, 1.0)
            moved = tf.sqrt(tf.reduce_sum(tf.square(points - base), axes, keepdims=True))
            points = base + radius / tf.maximum(moved, radius) * (points - base)  # in the box, as both ends are
        loss, _ = loss_and_gradient(points)
        return tf.where(loss < least, points, best), tf.minimum(loss, least)


def gradient_matching(crafter: Together, target) -> Callable:
    """1 - cos of the target's gradient under the wanted label and the poisons' shaped sum."""
    tf = crafter.tf

    def summed(engine, x):
        rows = tf.shape(x)[0]
        labels = tf.fill([rows], crafter.wanted)
        whole = engine.shaped_sums(tf.reshape(x, [rows, -1]), labels, tf.ones([1, rows]), tf.range(rows))
        return tf.concat([tf.reshape(values, [-1]) for values in whole], 0)

    aim = tf.math.l2_normalize(summed(crafter.plain, target[tf.newaxis]))
    return lambda points: 1 - tf.reduce_sum(aim * tf.math.l2_normalize(summed(crafter.shaped, points)))


def bullseye(crafter: Together, target) -> Callable:
    """The distance of the target's features to the mean of the poisons', in lengths of the target's."""
    tf, features = crafter.tf, crafter.alone.features
    aim = features(target[tf.newaxis])
    return lambda points: tf.norm(aim - tf.reduce_mean(features(points), 0, keepdims=True)) / tf.norm(aim)


NAMES = ("gradient-matching", "bullseye")
