"""Kinds that weigh an example by the norm of its gradient, n_i = |g_i|."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from command_line import POSITIVE, PROPER_SHARE, SHARE
from models.kind import kind
from models.later import tf

if TYPE_CHECKING:
    from models.batch import Batch


@kind({"clip_norm": POSITIVE}, sensitivity=lambda clip_norm: clip_norm, strength={"clip_norm": -1})
def clip(batch: Batch, clip_norm: tf.Tensor) -> tf.Tensor:
    """min(1, C / n_i), as TensorFlow Privacy weighs examples (Abadi et al. 2016); 1 where the gradient is zero.

    C may be infinite. Sensitivity: C.
    """
    return within(clip_norm, batch.squared_norms)


def within(bound: tf.Tensor, squared_norms: tf.Tensor) -> tf.Tensor:
    """What keeps a vector's norm within a bound: min(1, bound / norm), 1 where the norm is zero."""
    return tf.minimum(1.0, bound * tf.math.rsqrt(squared_norms))


@kind({"clip_norm": POSITIVE}, sensitivity=lambda clip_norm: clip_norm, strength={"clip_norm": -1})
def clip_layers(batch: Batch, clip_norm: tf.Tensor) -> list[tf.Tensor]:
    """min(1, (C / sqrt(L)) / n_i,l) for each layer l of L, a kernel and its bias (McMahan et al. 2018, "per-layer").

    Sensitivity: C, since the squares of L layers' norms sum up to C^2 at most.
    """
    layers = batch.layer_squared_norms
    return [within(clip_norm / math.sqrt(len(layers)), squared) for squared in layers]


@kind({"gamma": POSITIVE}, sensitivity=lambda gamma: 1.0, strength={"gamma": -1})
def auto_s(batch: Batch, gamma: tf.Tensor) -> tf.Tensor:
    """1 / (n_i + gamma), automatic clipping AUTO-S (Bu et al., arXiv 2206.07136, where gamma is 0.01).

    Sensitivity: 1.
    """
    return 1.0 / (batch.norms + gamma)


@kind(sensitivity=lambda: 1.0)
def auto_v(batch: Batch) -> tf.Tensor:
    """1 / n_i, AUTO-V (Bu et al., arXiv 2206.07136): every example's gradient has norm 1; 0 where it is zero.

    Sensitivity: 1.
    """
    return tf.math.divide_no_nan(1.0, batch.norms)


@kind(
    {"clip_norm": POSITIVE, "r": POSITIVE},
    sensitivity=lambda clip_norm, r: clip_norm,
    strength={"clip_norm": -1, "r": -1},
)
def psac(batch: Batch, clip_norm: tf.Tensor, r: tf.Tensor) -> tf.Tensor:
    """C / (n_i + r / (n_i + r)), per-sample adaptive clipping (Xia et al., arXiv 2212.00328, r = 0.1 or 0.01).

    Small gradients are not blown up as AUTO-S does it: the weight of a zero one is C. Sensitivity: C.
    """
    return clip_norm / (batch.norms + r / (batch.norms + r))


@kind(
    {"quantile": SHARE, "rate": POSITIVE, "initial_clip_norm": POSITIVE},
    numbers={"adapted_norm": "initial_clip_norm"},
    strength={"quantile": -1},
)
def quantile_clip(batch: Batch, quantile: tf.Tensor, rate: tf.Tensor, initial_clip_norm: tf.Tensor) -> tf.Tensor:
    """min(1, C_t / n_i), where C_t follows a quantile q of the norms (Andrew et al., arXiv 1905.03871, algorithm 1
    without noise): C_t+1 = C_t exp(-rate (b - q)), b the share of the batch with n_i <= C_t.

    The paper has q = 0.5, rate 0.2, and 0.1 to begin with. No sensitivity: C_t is made of the examples.
    """
    kept = batch.kept("adapted_norm")
    clip_norm = kept[:, tf.newaxis]
    below = tf.reduce_sum(batch.weight * tf.cast(batch.norms <= clip_norm, tf.float32), 1)
    seen = tf.reduce_sum(batch.weight, 1)
    moved = kept * tf.exp(-rate[:, 0] * (below / tf.maximum(seen, 1.0) - quantile[:, 0]))
    weights = within(clip_norm, batch.squared_norms)
    kept.assign(tf.where(seen > 0, moved, kept))
    return weights


@kind({"share": PROPER_SHARE}, strength={"share": 1})
def drop_norm(batch: Batch, share: tf.Tensor) -> tf.Tensor:
    """1 for the smallest norms of the batch, 0 for a share of the largest (the norm filter of Acharya et al., arXiv
    2106.08882, beside BGMD; share 0.1).

    No sensitivity: one example decides on another.
    """
    return tf.cast(batch.norms <= batch.smallest(batch.norms, batch.without(share)), tf.float32)
