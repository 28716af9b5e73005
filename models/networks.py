"""The paper's networks as Keras models, and the optimisers they are trained by."""

from __future__ import annotations

import tensorflow as tf

from models.protocols import HIDDEN_LAYERS


def build(network: str, shape: tuple, classes: int, seed: int) -> tf.keras.Model:
    """A Keras model that maps float32 [batch, *shape] to logits [batch, classes], with Glorot-uniform weights drawn from `seed`."""
    hidden = HIDDEN_LAYERS[network]
    layers = [tf.keras.layers.InputLayer(shape), tf.keras.layers.Flatten()]
    for index, units in enumerate((*hidden, classes)):
        last = index == len(hidden)
        layers.append(
            tf.keras.layers.Dense(
                units,
                activation=None if last else "relu",
                # one seed a layer: with the same one, layers of one shape would start out equal
                kernel_initializer=tf.keras.initializers.GlorotUniform(seed=seed + index),
                name="logits" if last else f"hidden_{index + 1}",
            )
        )
    return tf.keras.Sequential(layers, name=network.replace("-", "_"))


def optimizer(name: str, learning_rate: float) -> tf.keras.optimizers.legacy.Optimizer:
    """Keras' Adam with the epsilon of TensorFlow 1 (1e-8), or its SGD; the legacy ones, which TensorFlow Privacy builds on."""
    if name == "adam":
        return tf.keras.optimizers.legacy.Adam(learning_rate, epsilon=1e-8)
    return tf.keras.optimizers.legacy.SGD(learning_rate)
