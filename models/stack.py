"""A stack: many replicas of one network, trained at once on the same mini-batches.

Replicas differ in their gradient shaping and in which rows they see, and how often; they share the data, its order, the
initial weights and the noise draw, which each scales for itself. The first layer of all replicas is then one matrix
product. A single training is a stack of one.

Per-example clipping needs no per-example gradient (book-keeping). For a dense layer with input a_i and delta d_i (the
loss's gradient at the pre-activation) example i has the gradient a_i d_i^T, of norm |a_i| |d_i| (Goodfellow 2015), its
bias d_i; the clipped sum is A^T diag(c) D. The deltas of the one backward pass serve the norms, the clipped sum and the
gradient record. Convolutions (`models.convolution`) may stand before the dense layers of a stack of one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from models.batch import Batch
from models.convolution import Front
from models.dense import along, dense_layers, examples, forward, kernel_sum, largest, product
from models.minibatches import Batches, Record, Rows
from models.optimizers import Optimizer
from models.shaping import KINDS, Shaping, noise

EVALUATION_ROWS = 1024  # rows a product when accuracies are computed: they stay in a core's cache
CONVOLUTION_ROWS = 512  # likewise, where a row has feature maps


class Stack:
    """Replicas of a Keras model, one for each `Shaping`, all starting from the model's weights.

    A dense kernel is kept as [replica, fan_out, fan_in] and the activations as [replica, units, batch], so that z = W a
    reads as on paper and the replicas of the first layer, whose input they share, lie side by side as one matrix
    [replica * fan_out, fan_in]. The number of replicas is no part of a variable's shape, so that `keep` can drop some
    without tracing the epoch anew.
    """

    def __init__(
        self, model: tf.keras.Model, shapings: list[Shaping], optimizer: str, learning_rate: float, seed: int
    ) -> None:
        self.shapings, self.seed = list(shapings), seed
        front, dense = dense_layers(model)
        if front and len(shapings) > 1:
            raise ValueError(f"{model.name}: convolutions train in a stack of one, not of {len(shapings)}")
        self.initial = self._replicated(model)
        self.parameters = [tf.Variable(values, shape=[None, *values.shape[1:]]) for values in self.initial]
        self.kernels, self.biases = self.parameters[: len(dense)], self.parameters[len(dense) : 2 * len(dense)]
        convolutions = self.parameters[2 * len(dense) :]
        half = len(convolutions) // 2
        self.front = Front(model.input_shape[1:], front, convolutions[:half], convolutions[half:])
        self.rows_a_product = CONVOLUTION_ROWS if front else EVALUATION_ROWS
        self.optimizer = Optimizer(optimizer, learning_rate, self.parameters)
        self.groups = [
            Group(kind, list(members)) for kind, members in itertools.groupby(shapings, lambda one: one.kind)
        ]
        self.noise_stds = tf.Variable([shaping.noise_std for shaping in shapings], shape=[None], dtype=tf.float32)
        self.weighs = any(shaping.kind != "clip" or shaping.clip_norm < math.inf for shaping in shapings)
        self.adds_noise = any(shaping.noise_std > 0 for shaping in shapings)

    def reset(self, model: tf.keras.Model | None = None) -> None:
        """Go back to all replicas' initial weights, or start from those of another model of the network, with a fresh
        optimiser; the traced epoch is kept.
        """
        if model is not None:
            self.initial = self._replicated(model)
        for parameter, value in zip(self.parameters, self.initial):
            parameter.assign(value)
        for group in self.groups:
            group.reset()
        self.noise_stds.assign([shaping.noise_std for shaping in self.shapings])
        self.optimizer.reset()

    def keep(self, replicas: Sequence[int]) -> None:
        """Go on with these replicas only, numbered from 0 in the order given, until the next reset.

        Rows must follow (`Rows.keep`).
        """
        if len(self.groups) > 1 and list(replicas) != sorted(set(replicas)):
            raise ValueError("replicas of several kinds must be kept in ascending order")
        for values in (*self.parameters, *self.optimizer.moments, self.noise_stds):
            values.assign(tf.gather(values, replicas))
        first = 0
        for group in self.groups:
            count = int(group.count)
            group.keep([replica - first for replica in replicas if first <= replica < first + count])
            first += count

    def train_epoch(self, rows: Rows, epoch: Batches, record: bool = False) -> Record | None:
        """Train every replica for one epoch over the batches that `batches` made.

        With `record`, return what the gradients were.
        """
        arrays = (tf.constant(values) for values in (epoch.order, epoch.starts, epoch.clean))
        recorded = self._epoch(rows.x, rows.y, rows.weight, rows.squared_norms, *arrays, record)
        if not record:
            return None
        *sums, squared_norms, inner_products = (values.numpy() for values in recorded)
        names = ("clean_kernel", "poison_kernel", "clean_bias", "poison_bias")
        return Record(rows, epoch, dict(zip(names, sums)), squared_norms, inner_products)

    def hits(self, x: tf.Tensor, y: tf.Tensor, replica: int | None = None) -> np.ndarray:
        """Which rows each replica classifies correctly: bool [replica, rows], of one replica [1, rows].

        x: float32 [rows, features]; y: int32 [rows].
        """
        return self._hits(x, y, None if replica is None else tf.constant(replica)).numpy()

    def right(self, rows: Rows) -> np.ndarray:
        """How many of the clean rows and of the poisons that each replica sees it classifies correctly, float64 [2,
        replica]; copies count.
        """
        poison = tf.constant(rows.is_poison, tf.float32)
        return self._right(rows.x, rows.y, rows.weight, poison).numpy().astype(np.float64)

    def probabilities(self, x: tf.Tensor) -> np.ndarray:
        """The softmax outputs of each replica, float32 [replica, rows, classes]; x: float32 [rows, features]."""
        return self._probabilities(x).numpy()

    def finite(self) -> np.ndarray:
        """Which replicas have numbers for weights, bool [replica]: one that has not has diverged.

        None meets another's numbers.
        """
        return self._finite().numpy()

    def weights(self, replica: int) -> list[np.ndarray]:
        """The weights of one replica, as a Keras model of the network takes them."""
        convolutions = zip(self.front.kernels, self.front.biases)
        weights = [values[replica].numpy() for pair in convolutions for values in pair]
        for kernel, bias in zip(self.kernels, self.biases):
            weights += [kernel[replica].numpy().T, bias[replica].numpy()]
        return weights

    def _replicated(self, model: tf.keras.Model) -> list[np.ndarray]:
        """A model's kernels and biases as this stack keeps them, every replica's the same: those of the dense layers,
        then of the convolutions.
        """
        front, dense = dense_layers(model)
        convolutions = [layer for layer in front if isinstance(layer, tf.keras.layers.Conv2D)]
        values = [layer.kernel.numpy().T for layer in dense] + [layer.bias.numpy() for layer in dense]
        values += [layer.kernel.numpy() for layer in convolutions] + [layer.bias.numpy() for layer in convolutions]
        return [np.stack([value] * len(self.shapings)) for value in values]

    @tf.function(reduce_retracing=True)
    def _hits(self, x, y, replica):
        rows, kernels, biases = self.rows_a_product, self.kernels, self.biases
        if replica is not None:
            kernels, biases = (
                [values[replica][tf.newaxis] for values in parameters] for parameters in (kernels, biases)
            )
        pieces = (tf.size(y) + rows - 1) // rows
        hits = tf.TensorArray(tf.bool, pieces, infer_shape=False)
        for piece in tf.range(pieces):
            part = slice(piece * rows, (piece + 1) * rows)
            hits = hits.write(piece, tf.transpose(largest(self._logits(x[part], kernels, biases)) == y[part]))
        return tf.transpose(hits.concat())

    @tf.function(reduce_retracing=True)
    def _right(self, x, y, weight, poison):
        rows = self.rows_a_product
        counts = tf.zeros([2, tf.shape(weight)[1]])  # float32 counts exactly as far as 2 ** 24
        for piece in tf.range((tf.size(y) + rows - 1) // rows):
            tf.autograph.experimental.set_loop_options(shape_invariants=[(counts, tf.TensorShape([2, None]))])
            part = slice(piece * rows, (piece + 1) * rows)
            hits = largest(self._logits(x[part], self.kernels, self.biases)) == y[part]
            seen = tf.cast(hits, tf.float32) * tf.transpose(weight[part])
            counts += tf.stack([tf.linalg.matvec(seen, 1.0 - poison[part]), tf.linalg.matvec(seen, poison[part])])
        return counts

    @tf.function
    def _finite(self):
        finite = [
            tf.reduce_all(tf.math.is_finite(values), tf.range(1, tf.rank(values)))
            for values in self.kernels + self.biases
        ]
        return tf.reduce_all(finite, 0)

    @tf.function(reduce_retracing=True)
    def _probabilities(self, x):
        return tf.nn.softmax(tf.transpose(self._logits(x, self.kernels, self.biases), [0, 2, 1]))

    def _logits(self, x, kernels, biases):
        return forward(self.front.features(x), kernels, biases)[-1]

    @tf.function(reduce_retracing=True)
    def _epoch(self, x, y, weight, squared_norms, order, starts, clean, record):
        steps = tf.size(clean)
        arrays = [tf.TensorArray(tf.float32, steps, infer_shape=False) for _ in range(6 if record else 0)]
        y, squared_norms, weight = (
            tf.gather(y, order),
            tf.gather(squared_norms, order),
            tf.transpose(tf.gather(weight, order)),
        )
        for step in tf.range(steps):
            part = slice(starts[step], starts[step + 1])
            recorded = self._step(
                tf.gather(x, order[part]), y[part], weight[:, part], squared_norms[part], clean[step], record
            )
            arrays = [array.write(step, values) for array, values in zip(arrays, recorded)]
        return [array.stack() for array in arrays[:4]] + [array.concat() for array in arrays[4:]]

    def _step(self, x, y, weight, squared_norms, clean, record):
        """One step on a batch whose first `clean` rows are clean: forward, backward, weights, weighted sums, noise,
        update.

        x: [batch, features]; y: [batch]; weight: [replica, batch]; squared_norms: [batch], |x|^2.
        """
        features, squared_features, maps = self.front.forward(x, squared_norms)
        inputs = forward(features, self.kernels, self.biases)
        deltas = self._backward(inputs, y)
        self.front.backward(features, maps, deltas[0], self.kernels[0])
        batch = Batch(self.front, maps, [squared_features], inputs, deltas)
        factors = weight * self._weights(batch) if self.weighs else weight
        shaped = [delta * factors[:, tf.newaxis] for delta in deltas]

        # The last layer's sum is made of its clean and its poison part, recorded or not, so recording changes no bit of
        # a training.
        last = [
            (examples(inputs[-2], part), shaped[-1][..., part]) for part in (slice(None, clean), slice(clean, None))
        ]
        clean_kernel, poison_kernel = (kernel_sum(layer, delta) for layer, delta in last)
        clean_bias, poison_bias = (tf.reduce_sum(delta, -1) for _, delta in last)
        sums = [kernel_sum(layer, delta) for layer, delta in zip(inputs[:-2], shaped[:-1])] + [
            clean_kernel + poison_kernel
        ]
        sums += [tf.reduce_sum(delta, -1) for delta in shaped[:-1]] + [clean_bias + poison_bias]
        sums += self.front.sums(maps, factors)
        if self.adds_noise:
            sums = [
                total + along(self.noise_stds, total) * noise(total.shape[1:], self.seed, index, self.optimizer.steps)
                for index, total in enumerate(sums)
            ]
        recorded = []
        if record:
            inner = tf.reduce_sum(product(clean_kernel, last[1][0]) * deltas[-1][..., clean:], 1)
            squared = batch.squared_inputs[-1] * batch.squared_deltas[-1]
            recorded = [
                clean_kernel,
                poison_kernel,
                clean_bias,
                poison_bias,
                tf.transpose(squared),
                tf.transpose(inner),
            ]
        seen = tf.maximum(tf.reduce_sum(weight, 1), 1.0)
        self.optimizer.apply([total / along(seen, total) for total in sums])
        return recorded

    def _weights(self, batch):
        """The weights of the examples by their replica's shaping, [replica, batch]: each group of replicas of one kind
        weighs its part of the batch.
        """
        if len(self.groups) == 1:
            return self.groups[0].weights(batch)
        found, first = [], 0
        for group in self.groups:
            found.append(group.weights(batch.part(slice(first, first + group.count))))
            first += group.count
        return tf.concat(found, 0)

    def _backward(self, inputs, y):
        """The delta of every layer, [replica, fan_out, batch]: the gradient of each example's cross-entropy at its pre-
        activation.
        """
        logits = inputs[-1]
        exponentials = tf.exp(logits - tf.reduce_max(logits, 1, keepdims=True))
        delta = exponentials / tf.reduce_sum(exponentials, 1, keepdims=True) - tf.one_hot(y, logits.shape[1], axis=0)
        deltas = [delta]
        for kernel, layer in zip(self.kernels[:0:-1], inputs[-2:0:-1]):
            delta = tf.matmul(kernel, delta, transpose_a=True) * tf.cast(layer > 0, tf.float32)
            deltas.insert(0, delta)
        return deltas


class Group:
    """Replicas of one kind of shaping that lie side by side in a stack, and their parameters."""

    def __init__(self, kind: str, shapings: list[Shaping]) -> None:
        self.kind, self.initial = KINDS[kind], np.array([shaping.parameters for shaping in shapings], np.float32)
        self.parameters = [tf.Variable(values, shape=[None]) for values in self.initial.T]
        self.count = tf.Variable(len(shapings))

    def reset(self) -> None:
        """All replicas again."""
        for values, initial in zip(self.parameters, self.initial.T):
            values.assign(initial)
        self.count.assign(len(self.initial))

    def keep(self, replicas: Sequence[int]) -> None:
        """These replicas only, numbered from 0 within the group."""
        for values in self.parameters:
            values.assign(tf.gather(values, np.array(replicas, np.int32)))
        self.count.assign(len(replicas))

    def weights(self, batch: Batch) -> tf.Tensor:
        return self.kind.weigh(batch, *(values[:, tf.newaxis] for values in self.parameters))
