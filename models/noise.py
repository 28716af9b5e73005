"""The noise of DP-SGD, drawn once for all replicas of a stack."""

from __future__ import annotations

import tensorflow as tf

PHILOX = 1  # as TensorFlow numbers its generators


def noise(shape: tuple, seed: int, parameter: int, step: tf.Tensor) -> tf.Tensor:
    """A standard normal draw for one parameter array at one step, the same for every replica, which scales it by its
    own noise_std.

    Draws of different parameters (index in the network) have different keys of Philox, a counter-based generator, and
    different steps (counted over the whole training) counters that are 2^64 apart, so they are independent. Returns
    float32 of `shape`.
    """
    key = tf.constant([seed * 1000 + parameter], tf.uint64)
    counter = tf.stack([tf.zeros([], tf.uint64), tf.cast(step, tf.uint64)])
    return tf.raw_ops.StatelessRandomNormalV2(shape=shape, key=key, counter=counter, alg=PHILOX)
