"""Gradient shaping by DP-SGD (Abadi et al. 2016): scale each example's gradient to a norm of at most C, sum, add noise, average."""

from __future__ import annotations

import tensorflow as tf


def clip_factors(squared_norms: tf.Tensor, clip_norms: tf.Tensor) -> tf.Tensor:
    """min(1, C / |g_i|) for each replica's examples, as TensorFlow Privacy weighs them; 1 where the gradient is zero.

    squared_norms: float32 [replica, batch], |g_i|^2; clip_norms: float32 [replica], C, may be infinite. Returns float32 [replica, batch].
    """
    return tf.minimum(1.0, clip_norms[:, tf.newaxis] * tf.math.rsqrt(squared_norms))


def noise(shape: tuple, seed: int, parameter: int, step: tf.Tensor) -> tf.Tensor:
    """A standard normal draw for one parameter array at one step, the same for every replica, which scales it by its own noise_std.

    Draws of different parameters (index in the network) and of different steps (counted over the whole training) use different
    keys of a counter-based generator, so they are independent. Returns float32 of `shape`.
    """
    key = tf.stack([tf.constant(seed * 1000 + parameter, tf.int64), tf.cast(step, tf.int64)])
    return tf.random.stateless_normal(shape, key, alg="philox")
