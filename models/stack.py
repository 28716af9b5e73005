"""A stack: many replicas of one network, trained at once on the same mini-batches.

Replicas differ in their gradient shaping and in which rows they see, and how often; they share the data, its order, the initial weights and
the noise draw, which each scales for itself. The first layer of all replicas is then one matrix product. A single training is
a stack of one.

Per-example clipping needs no per-example gradient (book-keeping). For a dense layer with input a_i and delta d_i (the loss's
gradient at the pre-activation) example i has the gradient a_i d_i^T, of norm |a_i| |d_i| (Goodfellow 2015), its bias d_i; the
clipped sum is A^T diag(c) D. The deltas of the one backward pass serve the norms, the clipped sum and the gradient record.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from models import networks
from models.protocols import Shaping
from models.shaping import clip_factors, noise

EVALUATION_ROWS = 4096  # rows a product when accuracies are computed: bounds the memory


@dataclass(frozen=True)
class Rows:
    """The training rows of a stack, clean ones and poisons.

    x: float32 [rows, features]; y: int32 [rows]; is_poison: bool [rows];
    weight: float32 [rows, replica], how often a row counts for a replica: 1 or 0, or a number of copies; squared_norms: float32 [rows], |x|^2.
    """

    x: tf.Tensor
    y: tf.Tensor
    is_poison: np.ndarray
    weight: tf.Tensor
    squared_norms: tf.Tensor

    @staticmethod
    def of(x: np.ndarray, y: np.ndarray, is_poison: np.ndarray, replicas: int, weight: np.ndarray | None = None) -> Rows:
        """Rows from arrays; x may have any shape behind its first axis. Without a weight every replica sees every row."""
        flat = tf.reshape(tf.constant(x), [len(x), -1])
        weight = tf.ones([len(x), replicas]) if weight is None else tf.constant(weight, tf.float32)
        return Rows(flat, tf.constant(y, tf.int32), is_poison, weight, tf.reduce_sum(tf.square(flat), 1))


@dataclass(frozen=True)
class Record:
    """What the steps of one epoch gave out about the gradients of the last layer, at the parameters before each update.

    sums: by name (clean_kernel, poison_kernel, clean_bias, poison_bias), float32 [step, replica, classes(, fan_in)], the sum over
    the clean or the poison rows of a batch, each row's gradient clipped as its replica clips it, without noise.
    squared_norms: float32 [row, replica], |g_i|^2 of each row's kernel gradient before clipping.
    inner_products: float32 [poison row, replica], of g_i and the batch's clean_kernel sum.
    order: int32 [row]: the order of training, in which all rows of a record are; starts: int [step], each batch's first row.

    The methods do the rest of the arithmetic, a replica at a time, so that the training need not wait for it.
    """

    rows: Rows
    order: np.ndarray
    starts: np.ndarray
    sums: dict[str, np.ndarray]
    squared_norms: np.ndarray
    inner_products: np.ndarray

    @property
    def is_poison(self) -> np.ndarray:
        """bool [row], in the order of training."""
        return self.rows.is_poison[self.order]

    def batch_means(self, replica: int, part: str, parameter: str) -> tuple[np.ndarray, np.ndarray]:
        """The mean gradient of a part (clean, poison) in each batch that has such rows, for a parameter (kernel, bias).

        Returns the batches' numbers from 0, int [batches], and the means, float32 [batches, fan_in, classes] or [batches, classes].
        """
        counted = self._weight(replica) * (self.is_poison == (part == "poison"))
        counts = np.add.reduceat(counted, self.starts)
        chosen = np.flatnonzero(counts)
        sums = self.sums[f"{part}_{parameter}"][chosen, replica]
        return chosen, (sums.T / counts[chosen]).T.swapaxes(1, -1)

    def norms(self, replica: int) -> np.ndarray:
        """|g_i| of each row's kernel gradient before clipping, float32 [row]; NaN where the replica does not see the row."""
        return np.where(self._weight(replica) > 0, np.sqrt(self.squared_norms[:, replica]), np.float32(np.nan))

    def cosines(self, replica: int) -> np.ndarray:
        """The cosine of each poison's kernel gradient to its batch's mean clean one, float32 [poison row]; NaN where one of them is zero."""
        clean = self.sums["clean_kernel"][:, replica]
        clean_norms = np.sqrt(np.einsum("sij,sij->s", clean, clean))  # of the sum: its direction is the mean's
        batch = np.searchsorted(self.starts, np.flatnonzero(self.is_poison), "right") - 1
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.inner_products[:, replica] / (self.norms(replica)[self.is_poison] * clean_norms[batch])

    def _weight(self, replica: int) -> np.ndarray:
        return self.rows.weight.numpy()[self.order, replica]


def batches(is_poison: np.ndarray, batch_size: int, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """A shuffled epoch: the order of the rows, int32 [rows], and the number of clean rows in each batch, int32 [batches].

    Batch b is order[b * batch_size : (b + 1) * batch_size], the last may be smaller. Which rows meet in a batch is random;
    within it the clean ones come first, so that the sums over clean and over poison rows are sums over slices.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(is_poison)).astype(np.int32)
    batch = np.arange(len(order)) // batch_size
    order = order[np.argsort(2 * batch + is_poison[order], kind="stable")]
    clean = np.bincount(batch, weights=~is_poison[order]).astype(np.int32)
    return order, clean


class Stack:
    """Replicas of a Keras model of dense layers, one for each `Shaping`, all starting from the model's weights.

    A kernel is kept as [replica, fan_out, fan_in] and the activations as [replica, units, batch], so that z = W a reads as on
    paper and the replicas of the first layer, whose input they share, lie side by side as one matrix [replica * fan_out, fan_in].
    """

    def __init__(self, model: tf.keras.Model, shapings: list[Shaping], optimizer: str, learning_rate: float, seed: int) -> None:
        self.shapings, self.seed = list(shapings), seed
        layers = [layer for layer in model.layers if isinstance(layer, tf.keras.layers.Dense)]
        if any(not isinstance(layer, (tf.keras.layers.Dense, tf.keras.layers.Flatten)) for layer in model.layers) or any(
            layer.activation.__name__ != ("linear" if layer is layers[-1] else "relu") for layer in layers
        ):
            raise ValueError(f"{model.name}: a stack takes Flatten and Dense layers, relu between them and logits at the end")
        self.initial = self._replicated(model)
        self.parameters = [tf.Variable(values) for values in self.initial]
        self.kernels, self.biases = self.parameters[: len(layers)], self.parameters[len(layers) :]
        self.optimizer = networks.optimizer(optimizer, learning_rate)
        self.optimizer._create_all_weights(self.parameters)  # they must exist before the epoch is traced
        self.clip_norms = tf.constant([shaping.clip_norm for shaping in shapings], tf.float32)
        self.noise_stds = tf.constant([shaping.noise_std for shaping in shapings], tf.float32)
        self.clips = any(shaping.defended for shaping in shapings)
        self.adds_noise = any(shaping.noise_std > 0 for shaping in shapings)

    def reset(self, model: tf.keras.Model | None = None) -> None:
        """Go back to the initial weights, or start from those of another model of the network, with a fresh optimiser; the traced epoch is kept."""
        if model is not None:
            self.initial = self._replicated(model)
        for parameter, value in zip(self.parameters, self.initial):
            parameter.assign(value)
        for state in self.optimizer.variables():
            state.assign(tf.zeros_like(state))

    def train_epoch(self, rows: Rows, order: np.ndarray, clean: np.ndarray, batch_size: int, record: bool = False) -> Record | None:
        """Train every replica for one epoch over the batches that `batches` made; with `record`, return what the gradients were."""
        recorded = self._epoch(
            rows.x, rows.y, rows.weight, rows.squared_norms, tf.constant(order), tf.constant(clean), tf.constant(batch_size), record
        )
        if not record:
            return None
        *sums, squared_norms, inner_products = (values.numpy() for values in recorded)
        names = ("clean_kernel", "poison_kernel", "clean_bias", "poison_bias")
        return Record(rows, order, np.arange(len(clean)) * batch_size, dict(zip(names, sums)), squared_norms, inner_products)

    def hits(self, x: tf.Tensor, y: tf.Tensor) -> np.ndarray:
        """Which rows each replica classifies correctly: bool [replica, rows]. x: float32 [rows, features]; y: int32 [rows]."""
        return self._hits(x, y).numpy()

    def weights(self, replica: int) -> list[np.ndarray]:
        """The weights of one replica, as a Keras model of the network takes them."""
        pairs = zip(self.kernels, self.biases)
        return [values for kernel, bias in pairs for values in (kernel[replica].numpy().T, bias[replica].numpy())]

    def _replicated(self, model: tf.keras.Model) -> list[np.ndarray]:
        """A model's kernels, then its biases, as this stack keeps them: every replica's the same."""
        layers = [layer for layer in model.layers if isinstance(layer, tf.keras.layers.Dense)]
        values = [layer.kernel.numpy().T for layer in layers] + [layer.bias.numpy() for layer in layers]
        return [np.stack([value] * len(self.shapings)) for value in values]

    @tf.function(reduce_retracing=True)
    def _hits(self, x, y):
        pieces = (tf.size(y) + EVALUATION_ROWS - 1) // EVALUATION_ROWS
        hits = tf.TensorArray(tf.bool, pieces, infer_shape=False)
        for piece in tf.range(pieces):
            part = slice(piece * EVALUATION_ROWS, (piece + 1) * EVALUATION_ROWS)
            hits = hits.write(piece, tf.transpose(tf.argmax(self._forward(x[part])[-1], 1, tf.int32) == y[part]))
        return tf.transpose(hits.concat())

    @tf.function(reduce_retracing=True)
    def _epoch(self, x, y, weight, squared_norms, order, clean, batch_size, record):
        steps = tf.size(clean)
        arrays = [tf.TensorArray(tf.float32, steps, infer_shape=False) for _ in range(6 if record else 0)]
        for step in tf.range(steps):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            recorded = self._step(
                tf.gather(x, chosen),
                tf.gather(y, chosen),
                tf.transpose(tf.gather(weight, chosen)),
                tf.gather(squared_norms, chosen),
                clean[step],
                record,
            )
            arrays = [array.write(step, values) for array, values in zip(arrays, recorded)]
        return [array.stack() for array in arrays[:4]] + [array.concat() for array in arrays[4:]]

    def _step(self, x, y, weight, squared_norms, clean, record):
        """One step on a batch whose first `clean` rows are clean: forward, backward, norms, clipped sums, noise, update.

        x: [batch, features]; y: [batch]; weight: [replica, batch]; squared_norms: [batch], |x|^2.
        """
        inputs = self._forward(x)
        deltas = self._backward(inputs, y)
        squared_inputs = [squared_norms] + [tf.reduce_sum(tf.square(layer), 1) for layer in inputs[1:-1]]
        squared_deltas = [tf.reduce_sum(tf.square(delta), 1) for delta in deltas]
        factors = weight
        if self.clips:
            squared = tf.add_n([(inside + 1.0) * outside for inside, outside in zip(squared_inputs, squared_deltas)])
            factors = weight * clip_factors(squared, self.clip_norms)
        shaped = [delta * factors[:, tf.newaxis] for delta in deltas]

        # The last layer's sum is made of its clean and its poison part, recorded or not, so recording changes no bit of a training.
        last = [(_examples(inputs[-2], part), shaped[-1][..., part]) for part in (slice(None, clean), slice(clean, None))]
        clean_kernel, poison_kernel = (_kernel_sum(layer, delta) for layer, delta in last)
        clean_bias, poison_bias = (tf.reduce_sum(delta, -1) for _, delta in last)
        sums = [_kernel_sum(layer, delta) for layer, delta in zip(inputs[:-2], shaped[:-1])] + [clean_kernel + poison_kernel]
        sums += [tf.reduce_sum(delta, -1) for delta in shaped[:-1]] + [clean_bias + poison_bias]
        if self.adds_noise:
            sums = [
                total + _along(self.noise_stds, total) * noise(total.shape[1:], self.seed, index, self.optimizer.iterations)
                for index, total in enumerate(sums)
            ]
        recorded = []
        if record:
            inner = tf.reduce_sum(_product(clean_kernel, last[1][0]) * deltas[-1][..., clean:], 1)
            squared = squared_inputs[-1] * squared_deltas[-1]
            recorded = [clean_kernel, poison_kernel, clean_bias, poison_bias, tf.transpose(squared), tf.transpose(inner)]
        seen = tf.maximum(tf.reduce_sum(weight, 1), 1.0)
        self.optimizer.apply_gradients([(total / _along(seen, total), parameter) for total, parameter in zip(sums, self.parameters)])
        return recorded

    def _forward(self, x):
        """The input of every layer, and the logits: x as it is, [batch, features], then [replica, units, batch] each."""
        inputs = [x]
        for kernel, bias in zip(self.kernels, self.biases):
            values = _product(kernel, inputs[-1]) + bias[..., tf.newaxis]
            inputs.append(tf.nn.relu(values) if kernel is not self.kernels[-1] else values)
        return inputs

    def _backward(self, inputs, y):
        """The delta of every layer, [replica, fan_out, batch]: the gradient of each example's cross-entropy at its pre-activation."""
        logits = inputs[-1]
        exponentials = tf.exp(logits - tf.reduce_max(logits, 1, keepdims=True))
        delta = exponentials / tf.reduce_sum(exponentials, 1, keepdims=True) - tf.one_hot(y, logits.shape[1], axis=0)
        deltas = [delta]
        for kernel, layer in zip(self.kernels[:0:-1], inputs[-2:0:-1]):
            delta = tf.matmul(kernel, delta, transpose_a=True) * tf.cast(layer > 0, tf.float32)
            deltas.insert(0, delta)
        return deltas


def _product(kernel, layer):
    """W a of every replica and example, [replica, fan_out, batch]; `layer` is shared, [batch, fan_in], or [replica, fan_in, batch]."""
    if len(layer.shape) == 2:
        replicas, fan_out, fan_in = kernel.shape
        return tf.reshape(tf.matmul(tf.reshape(kernel, [replicas * fan_out, fan_in]), layer, transpose_b=True), [replicas, fan_out, -1])
    return tf.matmul(kernel, layer)


def _kernel_sum(layer, delta):
    """Sum over the examples of d_i a_i^T, [replica, fan_out, fan_in]; `layer` as in `_product`, delta: [replica, fan_out, batch]."""
    if len(layer.shape) == 2:
        replicas, fan_out, fan_in = delta.shape[0], delta.shape[1], layer.shape[1]
        return tf.reshape(tf.matmul(tf.reshape(delta, [replicas * fan_out, -1]), layer), [replicas, fan_out, fan_in])
    return tf.matmul(delta, layer, transpose_b=True)


def _examples(layer, part):
    """The part of a batch in a layer's input: rows of a shared one, columns of the others."""
    return layer[part] if len(layer.shape) == 2 else layer[..., part]


def _along(values, parameter):
    """`values`, [replica], shaped to multiply or divide a parameter that leads with the replica axis."""
    return tf.reshape(values, [-1] + [1] * (len(parameter.shape) - 1))
