"""The search for the point (x, y), x in [0, 1], of largest value at each of several models: Adam from restarts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from datasets import Dataset
from models.later import tf

STARTS, STEPS, RATE = 10, 40, 0.1  # restarts, as Suya et al. 2021 have them; steps and rate of Adam


class PointSearch:
    """Searches points for the replicas of a stack.

    value: of points, float32 [replicas, STARTS, features], and their labels, int32 [replicas, STARTS], a tensor
    [replicas, STARTS] that one can differentiate. weighed: multiply it by what the stack's shaping weighs each point
    by, which must depend on that point alone.
    """

    def __init__(self, dataset: Dataset, engine, value: Callable, weighed: bool, seed: int) -> None:
        self.engine, self.value, self.weighed, self.random = engine, value, weighed, np.random.default_rng([seed, 3])
        self.x, replicas = dataset.x_train.reshape(len(dataset.x_train), -1), len(engine.shapings)
        self.labels = np.tile(np.arange(STARTS) % dataset.classes, (replicas, 1)).astype(np.int32)
        self.ascend = tf.function(self._ascend)

    def best(self, steps: int = STEPS, rate: float = RATE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each replica the best point found, float32 [replicas, features], its label and its value."""
        start = self.x[self.random.integers(len(self.x), size=self.labels.shape)]
        points, values = (found.numpy() for found in self.ascend(start, tf.constant(steps), tf.constant(rate)))
        chosen = np.arange(len(values)), values.argmax(1)
        return points[chosen], self.labels[chosen], values[chosen]

    def _ascend(self, start, steps, rate):
        points, moments = start, [tf.zeros_like(start), tf.zeros_like(start)]
        best, largest = start, tf.fill(self.labels.shape, -np.inf)
        for step in tf.range(1, steps + 1):
            with tf.GradientTape() as tape:
                tape.watch(points)
                values = self._weighed_value(points)
            better = values > largest
            best, largest = tf.where(better[..., tf.newaxis], points, best), tf.where(better, values, largest)
            gradient = tape.gradient(values, points)
            gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)  # not where a norm is 0
            number = tf.cast(step, tf.float32)
            moments = [0.9 * moments[0] + 0.1 * gradient, 0.99 * moments[1] + 0.01 * tf.square(gradient)]
            length = rate / (1 - 0.9**number) * tf.sqrt(1 - 0.99**number)
            points = tf.clip_by_value(points + length * moments[0] / (tf.sqrt(moments[1]) + 1e-12), 0.0, 1.0)
        return best, largest

    def _weighed_value(self, points):
        values = self.value(points, self.labels)
        if not self.weighed:
            return values
        count = self.labels.size
        flat, own = tf.reshape(points, [count, -1]), np.arange(count).reshape(self.labels.shape)
        everyone, places = tf.ones([len(self.labels), count]), tf.range(count)
        weights = self.engine.shaped_weights(flat, self.labels.reshape(-1), everyone, places)[0]
        return tf.ensure_shape(values * tf.gather(weights, own, batch_dims=1), self.labels.shape)


def logits(points: tf.Tensor, kernels: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
    """Of logistic regressions, [models, points, classes]; points: [models or 1, points, features]."""
    return tf.einsum("mpf,mcf->mpc", points, kernels) + biases[:, tf.newaxis]


def losses(points: tf.Tensor, labels: tf.Tensor, kernels: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
    """Cross-entropies, [models, points]; labels: int32 [models, points]."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits(points, kernels, biases))
