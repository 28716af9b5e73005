"""Kinds that look at all rows between epochs, and weigh them till the next look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from command_line import INNER_SHARE, POSITIVE, PROPER_SHARE, number
from models import medoids
from models.kind import kind
from models.later import tf

if TYPE_CHECKING:
    from models.batch import Batch
    from models.groups import EpochStart

EPOCHS = number(lambda value: 1 <= value <= 2**24, "a whole number from 1 to 16777216", int)


def isolated(start: EpochStart, gamma: float, isolation_epochs: float, share: float) -> np.ndarray | None:
    """-1 for the share of the rows with the smallest losses when the isolation epochs are over, 1 for the others."""
    if start.epoch != isolation_epochs + 1:
        return None
    others = start.probabilities().copy()
    others[np.arange(len(others)), start.labels] = 0
    others = others.sum(1, dtype=np.float64)  # 1 - p, which grows with the loss, also where p rounds to 1
    order = np.argsort(np.where(start.copies > 0, others, np.inf), kind="stable")
    wanted = np.floor(share * start.copies.sum() + 1e-4)
    last = np.searchsorted(np.cumsum(start.copies[order]), wanted)
    if wanted < 1:
        return np.ones(len(order), np.float32)
    return np.where(others <= others[order[last]], -1, 1).astype(np.float32)


@kind({"gamma": POSITIVE, "isolation_epochs": EPOCHS, "share": PROPER_SHARE}, between=isolated, strength={"share": 1})
def abl(batch: Batch, gamma: tf.Tensor, isolation_epochs: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Anti-backdoor learning (Li et al., arXiv 2110.11571): isolate what is learnt too fast, then unlearn it.

    In the isolation epochs sign(l_i - gamma), which keeps losses near gamma; then a share of the rows, those of the
    smallest losses, are isolated: -1 for them, 1 for the others. The paper has gamma 0.5, 10 to 20 epochs and a share
    of 0.01. No sensitivity: the threshold is made of all rows.
    """
    isolating = tf.cast(batch.epoch, tf.float32) <= isolation_epochs
    return tf.where(isolating, tf.sign(batch.losses - gamma), batch.row_weights)


def without_isolated_medoids(start: EpochStart, share: float, every: float, last_epoch: float) -> np.ndarray | None:
    """The weights so far, 0 for the rows that `epic` drops now."""
    done = start.epoch - 1
    if done == 0 or done % every or done > last_epoch:
        return None
    deltas = start.probabilities().astype(np.float64)
    deltas[np.arange(len(deltas)), start.labels] -= 1
    weights = start.weights.copy()
    for label in np.unique(start.labels):
        rows = np.flatnonzero((start.labels == label) & (start.copies > 0) & (weights > 0))
        if len(rows) > 1:
            count = max(1, int(np.ceil(share * len(rows) - 1e-4)))
            of_class = deltas[rows]
            if deltas.shape[1] == 2:  # p_0 and p_1 sum to 1, so these lie on a line
                dropped = medoids.alone_on_a_line(of_class[:, 1 - label], count)
            else:
                dropped = medoids.alone(of_class, count)
            weights[rows[dropped]] = 0
    return weights


@kind(
    {"share": INNER_SHARE, "every": EPOCHS, "last_epoch": EPOCHS},
    between=without_isolated_medoids,
    compares_rows=True,
    strength={"share": 1},
)
def epic(batch: Batch, share: tf.Tensor, every: tf.Tensor, last_epoch: tf.Tensor) -> tf.Tensor:
    """1, but 0 for rows that were dropped as isolated: EPIC (Yang et al., arXiv 2210.09671).

    After every so many epochs, until `last_epoch`, medoids of each class, a share of its rows, are chosen by the
    gradients of the logits, p_i - y_i; a medoid whose cluster is itself alone is dropped for good. The paper has shares
    of 0.1 to 0.3, every 2 to 10 epochs, until epoch 10 or 30. No sensitivity: rows are compared.
    """
    return batch.row_weights
