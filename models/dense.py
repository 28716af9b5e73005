"""The arithmetic of the dense layers of a stack, for all replicas at once, and which Keras models have such layers.

A kernel is [replica, fan_out, fan_in]; a layer's input is [batch, fan_in] where all replicas share it, else
[replica, fan_in, batch]. Logits and deltas are [replica, fan_out, batch], or `ByRow`.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

FEW_CLASSES = 10  # up to so many, the largest logit is found by comparing (`largest`), and nothing is kept `ByRow`


class ByRow(NamedTuple):
    """The logits or deltas of a network's only layer, where it has many classes, [batch, replica, classes].

    The softmax of an example then lies in one piece, and TensorFlow's own kernels make it: a sixth of a step.
    """

    values: tf.Tensor


def dense_layers(model: tf.keras.Model) -> tuple[list, list]:
    """The Keras layers before the first dense one (none, or convolutions and pools), and the dense layers.

    ValueError for others.
    """
    keras = tf.keras.layers
    layers = [layer for layer in model.layers if not isinstance(layer, keras.Flatten)]
    dense = [layer for layer in layers if isinstance(layer, keras.Dense)]
    front = layers[: len(layers) - len(dense)]

    def activated(layer, activation: str) -> bool:
        return layer.activation.__name__ == activation

    known = layers[len(front) :] == dense and all(
        activated(layer, "linear" if layer is dense[-1] else "relu") for layer in dense
    )
    for layer in front:
        if isinstance(layer, keras.Conv2D):
            known = (
                known
                and activated(layer, "relu")
                and layer.strides == layer.dilation_rate == (1, 1)
                and layer.groups == 1
            )
        else:
            known = known and isinstance(layer, keras.MaxPool2D)
    if not known:
        raise ValueError(
            f"{model.name}: a stack takes Conv2D (stride 1) and MaxPool2D, then Dense layers, relu between them"
            " and logits at the end"
        )
    return front, dense


def forward(features, kernels, biases):
    """The input of every dense layer, and the logits: the features as they are, [batch, fan_in], then [replica, units,
    batch] each; of an only layer with many classes, `ByRow`.
    """
    inputs = [features]
    _, classes, fan_in = kernels[-1].shape
    if len(kernels) == 1 and classes > FEW_CLASSES:
        products = tf.matmul(features, tf.reshape(kernels[0], [-1, fan_in]), transpose_b=True)
        logits = tf.nn.bias_add(products, tf.reshape(biases[0], [-1]))
        return [features, ByRow(tf.reshape(logits, [tf.shape(features)[0], -1, classes]))]
    for kernel, bias in zip(kernels, biases):
        values = product(kernel, inputs[-1]) + bias[..., tf.newaxis]
        inputs.append(tf.nn.relu(values) if kernel is not kernels[-1] else values)
    return inputs


def backward(inputs, kernels, y):
    """The delta of every layer, [replica, fan_out, batch]: the gradient of each example's cross-entropy at its pre-
    activation; and what its softmax is made of, the largest logit and the sum of exponentials, [replica, 1, batch],
    None where they are `ByRow`.
    """
    logits = inputs[-1]
    if isinstance(logits, ByRow):
        own = tf.one_hot(y, logits.values.shape[2])[:, tf.newaxis]
        return [ByRow(tf.nn.softmax(logits.values) - own)], None
    peak = tf.reduce_max(logits, 1, keepdims=True)
    exponentials = tf.exp(logits - peak)
    total = tf.reduce_sum(exponentials, 1, keepdims=True)
    delta = exponentials / total - tf.one_hot(y, logits.shape[1], axis=0)
    deltas = [delta]
    for kernel, layer in zip(kernels[:0:-1], inputs[-2:0:-1]):
        delta = tf.matmul(kernel, delta, transpose_a=True) * tf.cast(layer > 0, tf.float32)
        deltas.insert(0, delta)
    return deltas, (peak, total)


def softmax(logits):
    """The probabilities of the classes, [batch, replica, classes]."""
    return tf.nn.softmax(logits.values if isinstance(logits, ByRow) else tf.transpose(logits, [2, 0, 1]))


def losses(logits, y):
    """Each example's cross-entropy, [replica, batch], of logits that are `ByRow`; y: int32 [batch]."""
    own = tf.gather(logits.values, y, axis=2, batch_dims=1)
    return tf.transpose(tf.reduce_logsumexp(logits.values, 2) - own)


def largest(logits):
    """The class of the largest logit, the first of equals, int32 [replica, batch].

    For few classes by comparing them one by one: an argmax over an axis that is not the last is ten times slower.
    """
    if isinstance(logits, ByRow):
        return tf.transpose(tf.argmax(logits.values, 2, tf.int32))
    if logits.shape[1] > FEW_CLASSES:
        return tf.argmax(logits, 1, tf.int32)
    best, largest = logits[:, 0], tf.zeros_like(logits[:, 0], tf.int32)
    for label in range(1, logits.shape[1]):
        larger = logits[:, label] > best
        best, largest = tf.where(larger, logits[:, label], best), tf.where(larger, label, largest)
    return largest


def product(kernel, layer):
    """W a of every replica and example, [replica, fan_out, batch].

    `layer` is shared, [batch, fan_in], or [replica, fan_in, batch].
    """
    if len(layer.shape) == 2:
        _, fan_out, fan_in = kernel.shape
        values = tf.matmul(tf.reshape(kernel, [-1, fan_in]), layer, transpose_b=True)
        return tf.reshape(values, [-1, fan_out, tf.shape(layer)[0]])
    return tf.matmul(kernel, layer)


def kernel_sum(layer, delta):
    """Sum over the examples of d_i a_i^T, [replica, fan_out, fan_in].

    `layer` as in `product`.
    """
    if isinstance(delta, ByRow):
        flat = tf.reshape(delta.values, [tf.shape(layer)[0], -1])
        return tf.reshape(tf.matmul(flat, layer, transpose_a=True), [-1, delta.values.shape[2], layer.shape[1]])
    if len(layer.shape) == 2:
        fan_out, fan_in = delta.shape[1], layer.shape[1]
        return tf.reshape(tf.matmul(tf.reshape(delta, [-1, tf.shape(layer)[0]]), layer), [-1, fan_out, fan_in])
    return tf.matmul(delta, layer, transpose_b=True)


def bias_sum(delta):
    """Sum over the examples of d_i, [replica, fan_out]."""
    return tf.reduce_sum(delta.values, 0) if isinstance(delta, ByRow) else tf.reduce_sum(delta, -1)


def layer_sums(layer, delta):
    """Sums over the examples of the gradients of a layer's kernel and of its bias (`kernel_sum`, `bias_sum`)."""
    return kernel_sum(layer, delta), bias_sum(delta)


def weighted(delta, factor):
    """w_i d_i of every example; factor: [replica, batch]."""
    if isinstance(delta, ByRow):
        return ByRow(delta.values * tf.transpose(factor)[..., tf.newaxis])
    return delta * factor[:, tf.newaxis]


def squares(delta):
    """|d_i|^2 of every example, [replica, batch]."""
    if isinstance(delta, ByRow):
        return tf.transpose(tf.reduce_sum(tf.square(delta.values), 2))
    return tf.reduce_sum(tf.square(delta), 1)


def by_replica(values):
    """Logits or deltas as [replica, fan_out, batch], however they are kept."""
    return tf.transpose(values.values, [1, 2, 0]) if isinstance(values, ByRow) else values


def of_replicas(values, replicas):
    """The part of logits or deltas that some replicas have; replicas: a slice."""
    return ByRow(values.values[:, replicas]) if isinstance(values, ByRow) else values[replicas]


def examples(values, part):
    """The part of a batch in a layer's input, logits or deltas; part: a slice."""
    if isinstance(values, ByRow):
        return ByRow(values.values[part])
    return values[part] if len(values.shape) == 2 else values[..., part]


def along(values, parameter):
    """`values`, [replica], shaped to multiply or divide a parameter that leads with the replica axis."""
    return tf.reshape(values, [-1] + [1] * (len(parameter.shape) - 1))


def inner(kernel, bias, delta, layer):
    """<g_i, V> = d_i . (V a_i + v) of every replica and example, [replica, batch], for a kernel V and a bias v."""
    return tf.reduce_sum((product(kernel, layer) + bias[..., tf.newaxis]) * by_replica(delta), 1)


def across(layer):
    """The inner products of all pairs of examples, [replica, batch, batch]; layer: [replica, units, batch]."""
    return tf.matmul(layer, layer, transpose_a=True)


def dots(one, other):
    """<u, v> of two parameters' values, [replica, *parameter] each, [replica, 1]."""
    return tf.reduce_sum(one * other, list(range(1, len(one.shape))))[:, tf.newaxis]
