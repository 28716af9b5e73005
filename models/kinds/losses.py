"""Kinds that weigh an example by its loss l_i, or by the probability p_i = exp(-l_i) of its label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from command_line import POSITIVE, PROPER_SHARE
from models.kind import kind
from models.later import tf

if TYPE_CHECKING:
    from models.batch import Batch


@kind({"share": PROPER_SHARE}, strength={"share": 1})
def trim_loss(batch: Batch, share: tf.Tensor) -> tf.Tensor:
    """1 for the smallest losses of the batch, 0 for a share of the largest: TRIM (Jagielski et al., arXiv 1804.00308)
    and ITLM (Shen and Sanghavi, arXiv 1810.11874), a batch at a time.

    No sensitivity: one example decides on another.
    """
    return tf.cast(batch.losses <= batch.smallest(batch.losses, batch.without(share)), tf.float32)


@kind({"tau": POSITIVE}, shrinks=True, strength={"tau": -1})
def phuber(batch: Batch, tau: tf.Tensor) -> tf.Tensor:
    """min(1, tau p_i): partially Huberised cross-entropy (Menon et al., ICLR 2020; tau 2 or 10).

    Bounds no norm by itself, and keeps a bound.
    """
    return tf.minimum(1.0, tau * batch.probabilities)


@kind({"q": POSITIVE}, shrinks=True, strength={"q": 1})
def gce(batch: Batch, q: tf.Tensor) -> tf.Tensor:
    """p_i^q: generalised cross-entropy (Zhang and Sabuncu, arXiv 1805.07836; q = 0.7).

    Bounds no norm by itself, and keeps a bound.
    """
    return tf.exp(-q * batch.losses)


@kind(shrinks=True)
def linear(batch: Batch) -> tf.Tensor:
    """p_i: the gradient of the linear loss 1 - p_i, the mean absolute error (Ghosh et al., arXiv 1712.09482).

    Bounds no norm by itself, and keeps a bound.
    """
    return batch.probabilities
