"""The noise of DP-SGD, drawn once for all replicas of a stack."""

from __future__ import annotations

import tensorflow as tf


def noise(shape: tuple, seed: int, parameter: int, step: tf.Tensor) -> tf.Tensor:
    """A standard normal draw for one parameter array at one step, the same for every replica, which scales it by its
    own noise_std.

    Draws of different parameters (index in the network) and of different steps (counted over the whole training) use
    different keys of a counter-based generator, so they are independent. Returns float32 of `shape`.
    """
    key = tf.stack([tf.constant(seed * 1000 + parameter, tf.int64), tf.cast(step, tf.int64)])
    return tf.random.stateless_normal(shape, key, alg="philox")
