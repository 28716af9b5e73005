"""The paper's networks as Keras models, and the optimisers they are trained by."""

from __future__ import annotations

import re

import tensorflow as tf

from models import protocols
from models.architecture import Convolution


def build(network: str, shape: tuple, classes: int, seed: int) -> tf.keras.Model:
    """A Keras model that maps float32 [batch, *shape] to logits [batch, classes], with Glorot-uniform weights drawn
    from `seed`.
    """
    layers, keras = [tf.keras.layers.InputLayer(shape)], tf.keras.layers

    def initializer():
        weighty = sum(isinstance(layer, (keras.Conv2D, keras.Dense)) for layer in layers)
        return tf.keras.initializers.GlorotUniform(
            seed + weighty
        )  # a seed a layer: with one, layers of one shape would start out equal

    wanted = protocols.network(network)
    for number, part in enumerate(wanted.front, 1):
        if isinstance(part, Convolution):
            layers.append(
                keras.Conv2D(
                    part.filters, part.side, padding=part.padding, activation="relu", kernel_initializer=initializer(),
                    name=f"convolution_{number}",
                )
            )  # fmt: skip
        else:
            layers.append(keras.MaxPool2D(part.side, part.strides, part.padding))
    layers.append(keras.Flatten())
    for number, units in enumerate(wanted.hidden, 1):
        layers.append(keras.Dense(units, activation="relu", kernel_initializer=initializer(), name=f"hidden_{number}"))
    layers.append(keras.Dense(classes, kernel_initializer=initializer(), name="logits"))
    return tf.keras.Sequential(layers, name=re.sub(r"\W", "_", network, flags=re.ASCII))


def optimizer(name: str, learning_rate: float) -> tf.keras.optimizers.legacy.Optimizer:
    """Keras' Adam with the epsilon of TensorFlow 1 (1e-8), or its SGD.

    The legacy ones, which TensorFlow Privacy builds on.
    """
    if name == "adam":
        return tf.keras.optimizers.legacy.Adam(learning_rate, epsilon=1e-8)
    return tf.keras.optimizers.legacy.SGD(learning_rate)
