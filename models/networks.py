"""The paper's networks as Keras models, and the optimisers they are trained by."""

from __future__ import annotations

import tensorflow as tf

from models.protocols import NETWORKS


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

    filters, hidden = NETWORKS[network].filters, NETWORKS[network].hidden
    for number, count in enumerate(filters, 1):
        name = f"convolution_{number}"
        layers.append(
            keras.Conv2D(count, 3, padding="same", activation="relu", kernel_initializer=initializer(), name=name)
        )
    if filters:
        layers.append(keras.MaxPool2D(2))
    layers.append(keras.Flatten())
    for number, units in enumerate(hidden, 1):
        layers.append(keras.Dense(units, activation="relu", kernel_initializer=initializer(), name=f"hidden_{number}"))
    layers.append(keras.Dense(classes, kernel_initializer=initializer(), name="logits"))
    return tf.keras.Sequential(layers, name=network.replace("-", "_"))


def optimizer(name: str, learning_rate: float) -> tf.keras.optimizers.legacy.Optimizer:
    """Keras' Adam with the epsilon of TensorFlow 1 (1e-8), or its SGD.

    The legacy ones, which TensorFlow Privacy builds on.
    """
    if name == "adam":
        return tf.keras.optimizers.legacy.Adam(learning_rate, epsilon=1e-8)
    return tf.keras.optimizers.legacy.SGD(learning_rate)
