"""Gradient Canceling (Lu, Kamath and Yu 2023, arXiv 2303.03592) against a gradient shaping.

    python3 -m poisons.gradient_canceling --ratio 0.03 0.1
    python3 -m poisons.gradient_canceling --ratio 0.1 --shaping phuber:2

writes a poison file for each ratio and prints their paths. A bad model w* stays where it is if the poisons cancel the
clean gradients there,

    min over poisons x in [0, 1] of |sum over clean rows of g_i(w*) + sum over poisons of g_j(w*)|^2,

with w_i g_i in place of g_i for victims whose shaping weighs an example by itself. Shapings that compare the examples
of a batch have no such weights: of those the plain sum is cancelled, and only the bad models, and the victims that
choose among them, are theirs.

The loss of a logistic regression is flat in most directions: a sum of 1% of the clean one still let victims train to
elsewhere. So the sum is measured by g' H^-1 g, H the Hessian of the clean loss at w*, which is how much the loss can
still fall, instead of |g|^2. Each of a few bad models (`bad_models`) is aimed at; kept is what costs a victim of that
shaping most accuracy on clean training rows. A poison set is as few distinct points as a batch has poisons, each
repeated; the shares are found, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from command_line import COUNT
from datasets import Dataset
from models import shaping as shapings
from models.later import tf
from models.shaping import UNDEFENDED, Shaping
from poisons import bad_models, victims
from poisons.bad_models import Models
from poisons.crafting import RATIO, SEED, Attack, Option, Poisons, main, spelled
from poisons.point_search import PointSearch, logits
from poisons.steinhardt import fits_victim

# Of Adam, on pixels and on logarithms of shares; falls to zero as a cosine. Where weights vanish, small steps go on.
RATES = (0.02, 0.002)
HESSIAN_ROWS, DAMPING = 4000, 0.1  # of the mean curvature
PIECE = 2000  # clean rows at once
PRICE_STEPS, PRICE_RATES = 200, (0.1, 0.02, 0.004)  # of the search for the poison that pushes most

OPTIONS = (
    RATIO,
    Option("shaping", spelled, "what the victims do to their gradients", "undefended"),
    SEED,
    Option("rounds", COUNT, "of gradient descent on the pixels", 800),
)


@dataclass(frozen=True)
class Canceled:
    """Points that cancel: float32 [models, points, features], their labels, int [points], and the shares of the poisons
    at them, float64 [models, points].

    before, after: |sum with the poisons| / |sum of the clean rows|, float64 [models], of the points that it began with,
    which are clean rows, and of those that it ended with; bound: below which no poisons of this number bring it, 1 -
    ratio / price of the model, 0 at least.
    """

    points: np.ndarray
    labels: np.ndarray
    shares: np.ndarray
    before: np.ndarray
    after: np.ndarray
    bound: np.ndarray


def craft(dataset: Dataset, ratio: float, shaping: str, seed: int, rounds: int) -> Poisons:
    """Cancel at each bad model, and keep the set that the victims of `shaping` lose most accuracy to."""
    victims.workers()
    value = shapings.shaping(shaping)
    models = bad_models.of(dataset, value, seed)
    canceled = cancel(dataset, bad_models.steady(value), models, ratio, seed, rounds)
    labels = np.tile(canceled.labels, (len(models), 1))
    tried = victims.try_on(dataset, value, ratio, canceled.points, canceled.shares, labels, seed)
    best = tried.best
    measured = {
        "residual_before": canceled.before[best], "residual_after": canceled.after[best],
        "least_residual_after": canceled.after.min(), "residual_bound": canceled.bound[best],
    }  # fmt: skip
    note = (
        f"aims at {models.names[best]}: residual {canceled.before[best]:.3f}, then {canceled.after[best]:.3f}, of"
        f" {canceled.bound[best]:.3f} at least"
    )
    return victims.poisons(dataset, ratio, models, tried, measured, [note])


def cancel(dataset: Dataset, value: Shaping, models: Models, ratio: float, seed: int, rounds: int) -> Canceled:
    """Move random clean rows, under labels in turn, until their shaped gradients cancel those of the clean rows at each
    model.

    value: the shaping, of one phase (`bad_models.steady`); ratio: poisons per clean row.
    """
    clean, count = victims.in_batch(dataset, ratio)
    labels = (np.arange(count) % dataset.classes).astype(np.int32)
    start = np.tile(victims.random_candidate(dataset, labels, seed).points, (len(models), 1, 1))
    summed = value if bad_models.own_rows(value) else UNDEFENDED
    sums = Sums(dataset, summed, models, labels, clean, seed)
    points, shares = descend(sums, start, rounds)
    equal = np.full(shares.shape, 1 / count, np.float32)
    whole = shares.astype(np.float64)
    whole /= whole.sum(1, keepdims=True)
    bound = np.maximum(0.0, 1.0 - count / clean / prices(dataset, summed, models, seed))
    return Canceled(points, labels, whole, sums.residuals(start, equal), sums.residuals(points, shares), bound)


class Sums:
    """The sum of the shaped gradients of a batch's clean rows, in the mean, and poisons, at each of several models."""

    def __init__(
        self, dataset: Dataset, value: Shaping, models: Models, labels: np.ndarray, clean_count: int, seed: int
    ) -> None:
        """clean_count: clean rows in a batch, which has one poison for each of the labels."""
        self.engine = victims.stack_at(dataset, [value] * len(models), seed)
        self.engine.kernels[0].assign(models.kernels)
        self.engine.biases[0].assign(models.biases)
        self.labels = np.tile(labels, len(models))
        self.blocks = np.kron(np.eye(len(models)), np.ones(len(labels))).astype(np.float32)  # whose poisons are whose
        self.clean = clean_count * self._clean_mean(dataset)
        self.norms, self.inverses = np.linalg.norm(self.clean, axis=1, keepdims=True), inverse_hessians(dataset, models)

    def of_batch(self, points: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
        """The sum at each model, float32 [models, parameters].

        points: float32 [models, points, features]; shares: of the poisons, float32 [models, points].
        """
        copies = self.blocks * tf.reshape(shares * shares.shape[1], [1, -1])
        x = tf.reshape(points, [len(self.labels), -1])
        return flat(self.engine.shaped_sums(x, self.labels, copies, tf.range(len(self.labels)))) + self.clean

    def newton(self, whole: tf.Tensor) -> tf.Tensor:
        """H^-1 times a sum, at each model, of the sum's shape."""
        size = self.inverses.shape[1]
        classes = whole.shape[1] // size
        kernel = tf.reshape(whole[:, : classes * (size - 1)], [-1, classes, size - 1])
        rows = tf.concat([kernel, whole[:, classes * (size - 1) :, tf.newaxis]], 2)
        rows = tf.matmul(rows, self.inverses)
        return tf.concat([tf.reshape(rows[..., :-1], [-1, classes * (size - 1)]), rows[..., -1]], 1)

    def residuals(self, points: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """|sum with the poisons| / |sum of the clean rows|, float64 [models]."""
        return np.linalg.norm(self.of_batch(points, shares), axis=1) / self.norms[:, 0]

    def _clean_mean(self, dataset: Dataset) -> np.ndarray:
        """The mean of the shaped gradients of all clean rows at each model."""
        x, y = tf.constant(dataset.x_train.reshape(len(dataset.x_train), -1)), dataset.y_train.astype(np.int32)
        sums, models = tf.function(self.engine.shaped_sums, reduce_retracing=True), len(self.blocks)
        total: Any = 0.0
        for first in range(0, len(y), PIECE):
            part = slice(first, first + PIECE)
            ones = tf.ones([models, len(y[part])])
            total += flat(sums(x[part], tf.constant(y[part]), ones, tf.range(len(y[part])))).numpy().astype(np.float64)
        return (total / len(y)).astype(np.float32)


def inverse_hessians(dataset: Dataset, models: Models) -> np.ndarray:
    """H^-1 of the clean loss at each model, float32 [models, features + 1, features + 1], of mean diagonal 1: the mean
    of the classes' blocks, damped.
    """
    x = dataset.x_train.reshape(len(dataset.x_train), -1)
    x = np.hstack([x, np.ones((len(x), 1), np.float32)])[:HESSIAN_ROWS]
    inverses = []
    for kernel, bias in zip(models.kernels, models.biases):
        logits = x[:, :-1] @ kernel.T + bias
        probabilities = np.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        hessian = (x.T * (probabilities * (1 - probabilities)).mean(1)) @ x / len(x)
        hessian[np.diag_indices(len(hessian))] += DAMPING * np.trace(hessian) / len(hessian)
        inverse = np.linalg.inv(hessian.astype(np.float64))
        inverses.append(inverse / np.trace(inverse) * len(inverse))
    return np.array(inverses, np.float32)


def descend(sums: Sums, start: np.ndarray, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Adam on the pixels, which stay in [0, 1], and on the logarithms of the shares, at each of the RATES from `start`.

    Returns what came nearest at each model: the points, float32 [models, points, features], of the shape of `start`,
    and the shares, [models, points].
    """
    points, logarithms = tf.Variable(start), tf.Variable(tf.zeros(start.shape[:2]))
    moments = [[tf.Variable(tf.zeros_like(values)) for _ in range(2)] for values in (points, logarithms)]
    nearest = [tf.Variable(values) for values in (points, logarithms)]
    least = tf.Variable(tf.fill(start.shape[:1], np.inf))

    @tf.function
    def step(number, rate):
        with tf.GradientTape() as tape:
            whole = sums.of_batch(points, tf.nn.softmax(logarithms)) / sums.norms
            losses = tf.reduce_sum(whole * sums.newton(whole), 1)
            loss = tf.reduce_sum(losses)
        nearer = losses < least
        for kept, values in zip(nearest, (points, logarithms)):
            kept.assign(tf.where(tf.reshape(nearer, [-1] + [1] * (len(values.shape) - 1)), values, kept))
        least.assign(tf.minimum(losses, least))
        rate *= 0.5 * (1 + tf.cos(np.pi * (number - 1) / rounds))
        gradients = tape.gradient(loss, [points, logarithms])
        for values, gradient, (one, other) in zip((points, logarithms), gradients, moments):
            known = tf.where(tf.math.is_finite(gradient), gradient, 0.0)  # not where a norm is 0
            first = one.assign(0.9 * one + 0.1 * known) / (1 - 0.9**number)
            second = other.assign(0.99 * other + 0.01 * tf.square(known)) / (1 - 0.99**number)
            values.assign_sub(rate * first / (tf.sqrt(second) + 1e-12))
        points.assign(tf.clip_by_value(points, 0.0, 1.0))

    for rate in RATES:
        points.assign(start)
        for values in (logarithms, *moments[0], *moments[1]):
            values.assign(tf.zeros_like(values))
        for number in range(1, rounds + 2):  # the last, at no rate, looks at where the one before led
            step(tf.constant(number, tf.float32), tf.constant(rate))
    points, logarithms = nearest
    return points.numpy(), tf.nn.softmax(logarithms).numpy()


def prices(dataset: Dataset, value: Shaping, models: Models, seed: int) -> np.ndarray:
    """The share of poisons per clean row that it takes at least to hold each model, float64 [models]."""
    sums = Sums(dataset, value, models, np.zeros(1, np.int32), 1, seed)
    size = dataset.classes * int(np.prod(dataset.shape))
    kernels = (sums.clean[:, :size] / sums.norms).reshape(len(models), dataset.classes, -1)
    biases = sums.clean[:, size:] / sums.norms

    def against(points, labels):
        deltas = tf.nn.softmax(logits(points, models.kernels, models.biases)) - tf.one_hot(labels, dataset.classes)
        return -tf.reduce_sum(deltas * logits(points, kernels, biases), 2)

    search = PointSearch(dataset, sums.engine, against, True, seed)
    largest = np.max([search.best(PRICE_STEPS, rate)[2] for rate in PRICE_RATES], 0)
    return sums.norms[:, 0].astype(np.float64) / largest


def flat(direction: list) -> tf.Tensor:
    """All parameters of each replica in a row, float32 [replica, parameters]."""
    return tf.concat([tf.reshape(values, [tf.shape(values)[0], -1]) for values in direction], 1)


ATTACK = Attack("gradient-canceling", craft, OPTIONS, fits=fits_victim, file=victims.file, slow=True)

if __name__ == "__main__":
    main(ATTACK)
