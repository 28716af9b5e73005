"""A stack: many replicas of one network, trained at once on the same mini-batches.

Replicas differ in their gradient shaping and in which rows they see, and how often; they share the data, its order, the initial weights and
the noise draw, which each scales for itself. The first layer of all replicas is then one matrix product. A single training is
a stack of one.

Per-example clipping needs no per-example gradient (book-keeping). For a dense layer with input a_i and delta d_i (the loss's
gradient at the pre-activation) example i has the gradient a_i d_i^T, of norm |a_i| |d_i| (Goodfellow 2015), its bias d_i; the
clipped sum is A^T diag(c) D. The deltas of the one backward pass serve the norms, the clipped sum and the gradient record.
Convolutions (`models.convolution`) may stand before the dense layers of a stack of one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from models.convolution import Front
from models.minibatches import Batches, Record, Rows
from models.optimizers import Optimizer
from models.protocols import Shaping
from models.shaping import clip_factors, noise

EVALUATION_ROWS = 1024  # rows a product when accuracies are computed: they stay in a core's cache
CONVOLUTION_ROWS = 512  # likewise, where a row has feature maps
COMPARED_CLASSES = 10  # up to so many, the largest logit is found by comparing (`_largest`)


class Stack:
    """Replicas of a Keras model, one for each `Shaping`, all starting from the model's weights.

    A dense kernel is kept as [replica, fan_out, fan_in] and the activations as [replica, units, batch], so that z = W a reads as on
    paper and the replicas of the first layer, whose input they share, lie side by side as one matrix [replica * fan_out, fan_in].
    The number of replicas is no part of a variable's shape, so that `keep` can drop some without tracing the epoch anew.
    """

    def __init__(self, model: tf.keras.Model, shapings: list[Shaping], optimizer: str, learning_rate: float, seed: int) -> None:
        self.shapings, self.seed = list(shapings), seed
        front, dense = _layers(model)
        if front and len(shapings) > 1:
            raise ValueError(f"{model.name}: convolutions train in a stack of one, not of {len(shapings)}")
        self.initial = self._replicated(model)
        self.parameters = [tf.Variable(values, shape=[1 if front else None, *values.shape[1:]]) for values in self.initial]
        self.kernels, self.biases = self.parameters[: len(dense)], self.parameters[len(dense) : 2 * len(dense)]
        convolutions = self.parameters[2 * len(dense) :]
        half = len(convolutions) // 2
        self.front = Front(model.input_shape[1:], front, convolutions[:half], convolutions[half:]) if front else None
        self.optimizer = Optimizer(optimizer, learning_rate, self.parameters)
        self.clip_norms = tf.Variable([shaping.clip_norm for shaping in shapings], shape=[None], dtype=tf.float32)
        self.noise_stds = tf.Variable([shaping.noise_std for shaping in shapings], shape=[None], dtype=tf.float32)
        self.clips = any(shaping.defended for shaping in shapings)
        self.adds_noise = any(shaping.noise_std > 0 for shaping in shapings)

    def reset(self, model: tf.keras.Model | None = None) -> None:
        """Go back to all replicas' initial weights, or start from those of another model of the network, with a fresh optimiser; the traced epoch is kept."""
        if model is not None:
            self.initial = self._replicated(model)
        for parameter, value in zip(self.parameters, self.initial):
            parameter.assign(value)
        self.clip_norms.assign([shaping.clip_norm for shaping in self.shapings])
        self.noise_stds.assign([shaping.noise_std for shaping in self.shapings])
        self.optimizer.reset()

    def keep(self, replicas: Sequence[int]) -> None:
        """Go on with these replicas only, numbered from 0 in the order given, until the next reset; rows must follow (`Rows.keep`)."""
        for values in (*self.parameters, *self.optimizer.moments, self.clip_norms, self.noise_stds):
            values.assign(tf.gather(values, replicas))

    def train_epoch(self, rows: Rows, epoch: Batches, record: bool = False) -> Record | None:
        """Train every replica for one epoch over the batches that `batches` made; with `record`, return what the gradients were."""
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
        """How many of the clean rows and of the poisons that each replica sees it classifies correctly, float64 [2, replica]; copies count."""
        poison = tf.constant(rows.is_poison, tf.float32)
        return self._right(rows.x, rows.y, rows.weight, poison).numpy().astype(np.float64)

    def probabilities(self, x: tf.Tensor) -> np.ndarray:
        """The softmax outputs of each replica, float32 [replica, rows, classes]; x: float32 [rows, features]."""
        return self._probabilities(x).numpy()

    def finite(self) -> np.ndarray:
        """Which replicas have numbers for weights, bool [replica]: one that has not has diverged. None meets another's numbers."""
        return self._finite().numpy()

    def weights(self, replica: int) -> list[np.ndarray]:
        """The weights of one replica, as a Keras model of the network takes them."""
        convolutions = zip(self.front.kernels, self.front.biases) if self.front else ()
        weights = [values[replica].numpy() for pair in convolutions for values in pair]
        for kernel, bias in zip(self.kernels, self.biases):
            weights += [kernel[replica].numpy().T, bias[replica].numpy()]
        return weights

    def _replicated(self, model: tf.keras.Model) -> list[np.ndarray]:
        """A model's kernels and biases as this stack keeps them, every replica's the same: those of the dense layers, then of the convolutions."""
        front, dense = _layers(model)
        convolutions = [layer for layer in front if isinstance(layer, tf.keras.layers.Conv2D)]
        values = [layer.kernel.numpy().T for layer in dense] + [layer.bias.numpy() for layer in dense]
        values += [layer.kernel.numpy() for layer in convolutions] + [layer.bias.numpy() for layer in convolutions]
        return [np.stack([value] * len(self.shapings)) for value in values]

    @tf.function(reduce_retracing=True)
    def _hits(self, x, y, replica):
        rows = CONVOLUTION_ROWS if self.front else EVALUATION_ROWS
        kernels, biases = self.kernels, self.biases
        if replica is not None:
            kernels, biases = ([values[replica][tf.newaxis] for values in parameters] for parameters in (kernels, biases))
        pieces = (tf.size(y) + rows - 1) // rows
        hits = tf.TensorArray(tf.bool, pieces, infer_shape=False)
        for piece in tf.range(pieces):
            part = slice(piece * rows, (piece + 1) * rows)
            hits = hits.write(piece, tf.transpose(_largest(self._logits(x[part], kernels, biases)) == y[part]))
        return tf.transpose(hits.concat())

    @tf.function(reduce_retracing=True)
    def _right(self, x, y, weight, poison):
        rows = CONVOLUTION_ROWS if self.front else EVALUATION_ROWS
        counts = tf.zeros([2, tf.shape(weight)[1]])  # float32 counts exactly as far as 2 ** 24
        for piece in tf.range((tf.size(y) + rows - 1) // rows):
            tf.autograph.experimental.set_loop_options(shape_invariants=[(counts, tf.TensorShape([2, None]))])
            part = slice(piece * rows, (piece + 1) * rows)
            hits = _largest(self._logits(x[part], self.kernels, self.biases)) == y[part]
            seen = tf.cast(hits, tf.float32) * tf.transpose(weight[part])
            counts += tf.stack([tf.linalg.matvec(seen, 1.0 - poison[part]), tf.linalg.matvec(seen, poison[part])])
        return counts

    @tf.function
    def _finite(self):
        finite = [tf.reduce_all(tf.math.is_finite(values), tf.range(1, tf.rank(values))) for values in self.kernels + self.biases]
        return tf.reduce_all(finite, 0)

    @tf.function(reduce_retracing=True)
    def _probabilities(self, x):
        return tf.nn.softmax(tf.transpose(self._logits(x, self.kernels, self.biases), [0, 2, 1]))

    def _logits(self, x, kernels, biases):
        features = self.front.forward(x)[0] if self.front else x
        return _forward(features, kernels, biases)[-1]

    @tf.function(reduce_retracing=True)
    def _epoch(self, x, y, weight, squared_norms, order, starts, clean, record):
        steps = tf.size(clean)
        arrays = [tf.TensorArray(tf.float32, steps, infer_shape=False) for _ in range(6 if record else 0)]
        y, squared_norms, weight = tf.gather(y, order), tf.gather(squared_norms, order), tf.transpose(tf.gather(weight, order))
        for step in tf.range(steps):
            part = slice(starts[step], starts[step + 1])
            recorded = self._step(tf.gather(x, order[part]), y[part], weight[:, part], squared_norms[part], clean[step], record)
            arrays = [array.write(step, values) for array, values in zip(arrays, recorded)]
        return [array.stack() for array in arrays[:4]] + [array.concat() for array in arrays[4:]]

    def _step(self, x, y, weight, squared_norms, clean, record):
        """One step on a batch whose first `clean` rows are clean: forward, backward, norms, clipped sums, noise, update.

        x: [batch, features]; y: [batch]; weight: [replica, batch]; squared_norms: [batch], |x|^2.
        """
        features = x
        if self.front:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                features, *maps = self.front.forward(x)
            squared_norms = tf.reduce_sum(tf.square(features), 1)
        inputs = _forward(features, self.kernels, self.biases)
        deltas = self._backward(inputs, y)
        if self.front:
            pre_activations = maps.pop()
            maps.append(tape.gradient(features, pre_activations, tf.matmul(deltas[0][0], self.kernels[0][0], transpose_a=True)))
        squared_inputs = [squared_norms] + [tf.reduce_sum(tf.square(layer), 1) for layer in inputs[1:-1]]
        squared_deltas = [tf.reduce_sum(tf.square(delta), 1) for delta in deltas]
        factors, examples = weight, None
        if self.clips:
            squared = [(inside + 1.0) * outside for inside, outside in zip(squared_inputs, squared_deltas)]
            if self.front:
                examples = self.front.example_gradients(*maps)
                squared.append(self.front.squared_norms(*maps, examples)[tf.newaxis])
            factors = weight * clip_factors(tf.add_n(squared), self.clip_norms)
        shaped = [delta * factors[:, tf.newaxis] for delta in deltas]

        # The last layer's sum is made of its clean and its poison part, recorded or not, so recording changes no bit of a training.
        last = [(_examples(inputs[-2], part), shaped[-1][..., part]) for part in (slice(None, clean), slice(clean, None))]
        clean_kernel, poison_kernel = (_kernel_sum(layer, delta) for layer, delta in last)
        clean_bias, poison_bias = (tf.reduce_sum(delta, -1) for _, delta in last)
        sums = [_kernel_sum(layer, delta) for layer, delta in zip(inputs[:-2], shaped[:-1])] + [clean_kernel + poison_kernel]
        sums += [tf.reduce_sum(delta, -1) for delta in shaped[:-1]] + [clean_bias + poison_bias]
        if self.front:
            sums += self.front.sums(*maps, factors, examples)
        if self.adds_noise:
            sums = [
                total + _along(self.noise_stds, total) * noise(total.shape[1:], self.seed, index, self.optimizer.steps)
                for index, total in enumerate(sums)
            ]
        recorded = []
        if record:
            inner = tf.reduce_sum(_product(clean_kernel, last[1][0]) * deltas[-1][..., clean:], 1)
            squared = squared_inputs[-1] * squared_deltas[-1]
            recorded = [clean_kernel, poison_kernel, clean_bias, poison_bias, tf.transpose(squared), tf.transpose(inner)]
        seen = tf.maximum(tf.reduce_sum(weight, 1), 1.0)
        self.optimizer.apply([total / _along(seen, total) for total in sums])
        return recorded

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


def _layers(model: tf.keras.Model) -> tuple[list, list]:
    """The Keras layers before the first dense one (none, or convolutions and pools), and the dense layers; ValueError for others."""
    keras = tf.keras.layers
    layers = [layer for layer in model.layers if not isinstance(layer, keras.Flatten)]
    dense = [layer for layer in layers if isinstance(layer, keras.Dense)]
    front = layers[: len(layers) - len(dense)]

    def activated(layer, activation: str) -> bool:
        return layer.activation.__name__ == activation

    known = layers[len(front) :] == dense and all(activated(layer, "linear" if layer is dense[-1] else "relu") for layer in dense)
    for layer in front:
        if isinstance(layer, keras.Conv2D):
            known = known and activated(layer, "relu") and layer.strides == layer.dilation_rate == (1, 1) and layer.groups == 1
        else:
            known = known and isinstance(layer, keras.MaxPool2D)
    if not known:
        raise ValueError(
            f"{model.name}: a stack takes Conv2D (stride 1) and MaxPool2D, then Dense layers, relu between them and logits at the end"
        )
    return front, dense


def _forward(features, kernels, biases):
    """The input of every dense layer, and the logits: the features as they are, [batch, fan_in], then [replica, units, batch] each."""
    inputs = [features]
    for kernel, bias in zip(kernels, biases):
        values = _product(kernel, inputs[-1]) + bias[..., tf.newaxis]
        inputs.append(tf.nn.relu(values) if kernel is not kernels[-1] else values)
    return inputs


def _largest(logits):
    """The class of the largest logit, the first of equals, int32 [replica, batch]; logits: [replica, classes, batch].

    For few classes by comparing them one by one: an argmax over an axis that is not the last is ten times slower.
    """
    if logits.shape[1] > COMPARED_CLASSES:
        return tf.argmax(logits, 1, tf.int32)
    best, largest = logits[:, 0], tf.zeros_like(logits[:, 0], tf.int32)
    for label in range(1, logits.shape[1]):
        larger = logits[:, label] > best
        best, largest = tf.where(larger, logits[:, label], best), tf.where(larger, label, largest)
    return largest


def _product(kernel, layer):
    """W a of every replica and example, [replica, fan_out, batch]; `layer` is shared, [batch, fan_in], or [replica, fan_in, batch]."""
    if len(layer.shape) == 2:
        _, fan_out, fan_in = kernel.shape
        values = tf.matmul(tf.reshape(kernel, [-1, fan_in]), layer, transpose_b=True)
        return tf.reshape(values, [-1, fan_out, tf.shape(layer)[0]])
    return tf.matmul(kernel, layer)


def _kernel_sum(layer, delta):
    """Sum over the examples of d_i a_i^T, [replica, fan_out, fan_in]; `layer` as in `_product`, delta: [replica, fan_out, batch]."""
    if len(layer.shape) == 2:
        fan_out, fan_in = delta.shape[1], layer.shape[1]
        return tf.reshape(tf.matmul(tf.reshape(delta, [-1, tf.shape(layer)[0]]), layer), [-1, fan_out, fan_in])
    return tf.matmul(delta, layer, transpose_b=True)


def _examples(layer, part):
    """The part of a batch in a layer's input: rows of a shared one, columns of the others."""
    return layer[part] if len(layer.shape) == 2 else layer[..., part]


def _along(values, parameter):
    """`values`, [replica], shaped to multiply or divide a parameter that leads with the replica axis."""
    return tf.reshape(values, [-1] + [1] * (len(parameter.shape) - 1))
