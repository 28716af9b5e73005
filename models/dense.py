"""The arithmetic of the dense layers of a stack, for all replicas at once, and which Keras models have such layers.

A kernel is [replica, fan_out, fan_in], but for `replica_axes`; a layer's input is [batch, fan_in] where all replicas
share it, else [replica, fan_in, batch].
"""

from __future__ import annotations

import tensorflow as tf

from models.outputs import FEW_CLASSES, ByRow, OfTwo, Outputs, Plain


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


def replica_axes(layers: list, parameters: int) -> list[int]:
    """The axis of each of a stack's parameters along which its replicas lie, for a model with these dense layers.

    The first; the second of an only layer's kernel with many classes, [fan_in, replica, fan_out] (`outputs.ByRow`).
    """
    by_row = len(layers) == 1 and layers[0].units > FEW_CLASSES
    return [int(by_row and place == 0) for place in range(parameters)]


def forward(features, kernels, biases) -> tuple[list, Outputs]:
    """The input of every dense layer, the features as they are, [batch, fan_in], then [replica, units, batch] each; and
    the logits.
    """
    if len(kernels) == 1:
        return [features], only_layer(features, kernels[0], biases[0])
    inputs = [features]
    for kernel, bias in zip(kernels, biases):
        values = product(kernel, inputs[-1]) + bias[..., tf.newaxis]
        if kernel is kernels[-1]:
            break
        inputs.append(tf.nn.relu(values))
    return inputs, Plain(values)


def only_layer(features, kernel, bias) -> Outputs:
    """The logits of a network without hidden layers."""
    classes = bias.shape[1]
    if classes > FEW_CLASSES:
        values = tf.matmul(features, tf.reshape(kernel, [kernel.shape[0], -1]))
        values = tf.nn.bias_add(values, tf.reshape(bias, [-1]))
        return ByRow(tf.reshape(values, [tf.shape(features)[0], -1, classes]))
    if classes == 2:
        values = tf.matmul(kernel[:, 1] - kernel[:, 0], features, transpose_b=True)
        return OfTwo(values + (bias[:, 1] - bias[:, 0])[:, tf.newaxis])
    return Plain(product(kernel, features) + bias[..., tf.newaxis])


def backward(inputs, logits: Outputs, kernels, y) -> list[Outputs]:
    """The delta of every layer: the gradient of each example's cross-entropy at its pre-activation."""
    deltas = [logits.deltas(y)]
    for kernel, layer in zip(kernels[:0:-1], inputs[:0:-1]):
        delta = tf.matmul(kernel, deltas[0].plain(), transpose_a=True) * tf.cast(layer > 0, tf.float32)
        deltas.insert(0, Plain(delta))
    return deltas


def product(kernel, layer):
    """W a of every replica and example, [replica, fan_out, batch].

    `layer` is shared, [batch, fan_in], or [replica, fan_in, batch].
    """
    if len(layer.shape) == 2:
        _, fan_out, fan_in = kernel.shape
        values = tf.matmul(tf.reshape(kernel, [-1, fan_in]), layer, transpose_b=True)
        return tf.reshape(values, [-1, fan_out, tf.shape(layer)[0]])
    return tf.matmul(kernel, layer)


def split(layer, counts):
    """A layer's input in parts of so many examples: rows of a shared one, columns of the others."""
    return tf.split(layer, counts, 0 if len(layer.shape) == 2 else 2)


def along(values, parameter, axis=0):
    """`values`, [replica], shaped to multiply or divide a parameter whose replicas lie along an axis."""
    return tf.reshape(values, [1] * axis + [-1] + [1] * (len(parameter.shape) - 1 - axis))


def inner(kernel, bias, delta, layer):
    """<g_i, V> = d_i . (V a_i + v) of every replica and example, [replica, batch], for a kernel V and a bias v."""
    return tf.reduce_sum((product(kernel, layer) + bias[..., tf.newaxis]) * delta.plain(), 1)


def across(layer):
    """The inner products of all pairs of examples, [replica, batch, batch]; layer: [replica, units, batch]."""
    return tf.matmul(layer, layer, transpose_a=True)


def dots(one, other):
    """<u, v> of two parameters' values, [replica, *parameter] each, [replica, 1]."""
    return tf.reduce_sum(one * other, list(range(1, len(one.shape))))[:, tf.newaxis]
