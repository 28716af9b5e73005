"""Kinds that replace the mean of the examples, or of the means of micro-batches, by a robust one.

Which rows meet in a micro-batch is drawn anew in each epoch: a row's is its place in the shuffled batch modulo their
number. With a number of 0 each example stands for itself, where a kind can take that.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from command_line import HALF_SHARE, POSITIVE, PROPER_SHARE, number
from models.kind import Aggregate, kind
from models.later import tf

if TYPE_CHECKING:
    from models.batch import Batch

ROUNDS = 3  # of the geometric median
ROWS_OR_MICRO_BATCHES = number(lambda value: 0 <= value <= 1024, "a whole number from 0 to 1024", int)
MICRO_BATCHES = number(lambda value: 1 <= value <= 64, "a whole number from 1 to 64", int)  # XLA sorts them unrolled


@kind(
    {"smoothing": POSITIVE, "micro_batches": ROWS_OR_MICRO_BATCHES},
    fixed=("micro_batches",),
    strength={"micro_batches": 1, "smoothing": -1},
)
def geometric_median(batch: Batch, smoothing: tf.Tensor, micro_batches: int) -> tf.Tensor:
    """The smoothed geometric median by Weiszfeld's rounds, z = sum a_u x_u / sum a_u, a_u = 1 / max(smoothing, |x_u -
    z|) (Pillutla et al., arXiv 1912.13445; smoothing 0.1 and three rounds as in byzfl, but from the mean, not zero).

    No sensitivity: one example decides on how much another counts.
    """
    from models.batch import dot

    def nearness(squared):
        return tf.math.rsqrt(tf.maximum(squared, tf.square(smoothing)))

    def shares(amounts):
        return tf.math.divide_no_nan(amounts, tf.reduce_sum(amounts, 1, keepdims=True))

    if not micro_batches:
        share = shares(batch.weight)
        for _ in range(ROUNDS):
            # a row's share counts its copies, which `total` counts, too
            center = batch.total(tf.math.divide_no_nan(share, batch.weight))
            squared = batch.squared_norms - 2.0 * batch.inner(center) + dot(center, center)
            share = shares(batch.weight * nearness(squared))
        return batch.count * tf.math.divide_no_nan(share, batch.weight)
    counts, gram = batch.micro_batch_gram(micro_batches)
    there = tf.cast(counts > 0, tf.float32)
    share = shares(there)
    for _ in range(ROUNDS):
        inner = tf.linalg.matvec(gram, share)
        squared = tf.linalg.diag_part(gram) - 2.0 * inner + tf.reduce_sum(inner * share, 1, keepdims=True)
        share = shares(there * nearness(squared))
    return _of_rows(batch, counts, share)


@kind(
    {"share": PROPER_SHARE, "micro_batches": ROWS_OR_MICRO_BATCHES},
    fixed=("micro_batches",),
    takes_gram=True,
    strength={"micro_batches": 1, "share": 1},
)
def multi_krum(batch: Batch, share: tf.Tensor, micro_batches: int) -> tf.Tensor:
    """The mean of the N - F that lie nearest to their N - F nearest, by the sum of squared distances, F a share of N
    (Blanchard et al. 2017; N - F neighbours as in byzfl).

    No sensitivity: one example decides on another.
    """
    if micro_batches:
        counts, gram = batch.micro_batch_gram(micro_batches)
        return _of_rows(batch, counts, _krum_shares(gram, tf.cast(counts > 0, tf.float32), share))
    # ties go by the places in the batch, in which the clean rows do not come first
    order = tf.argsort(batch.places, stable=True)
    gram = tf.gather(tf.gather(batch.gram, order, axis=1), order, axis=2)
    shares = _krum_shares(gram, tf.gather(batch.weight, order, axis=1), share)
    shares = tf.gather(shares, tf.argsort(order), axis=1)
    return batch.count * tf.math.divide_no_nan(shares, batch.weight)


def _krum_shares(gram: tf.Tensor, copies: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """The share of each of N things in the mean of those that are chosen, [replica, things]; gram: of their inner
    products; copies: how often each counts.
    """
    from models.batch import rounded_down

    everything = tf.reduce_sum(copies, 1, keepdims=True)
    kept = tf.maximum(everything - rounded_down(share * everything), 1.0)
    squared = tf.linalg.diag_part(gram)
    distances = tf.maximum(squared[:, tf.newaxis] + squared[..., tf.newaxis] - 2.0 * gram, 0.0)
    distances = tf.where(copies[:, tf.newaxis] > 0, distances, math.inf)
    nearest, order = _ascending(distances)
    counted = _first(tf.gather(copies, order, batch_dims=1), kept[..., tf.newaxis])
    scores = tf.reduce_sum(tf.where(counted > 0, counted * nearest, 0.0), 2)
    _, order = _ascending(tf.where(copies > 0, scores, math.inf))
    chosen = _first(tf.gather(copies, order, batch_dims=1), kept)
    return tf.math.divide_no_nan(tf.gather(chosen, tf.argsort(order), batch_dims=1), kept)


def _ascending(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The values of the last axis in ascending order, NaN as infinite ones, and where each stood; first of equals."""
    values, order = tf.math.top_k(-tf.where(values < math.inf, values, math.inf), tf.shape(values)[-1])
    return -values, order


def _first(copies: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """How many of each thing's copies are among the first `number` of the last axis."""
    return tf.clip_by_value(number - tf.cumsum(copies, -1, exclusive=True), 0.0, copies)


@kind({"micro_batches": MICRO_BATCHES}, fixed=("micro_batches",), aggregates=True, strength={"micro_batches": 1})
def median_of_means(batch: Batch, micro_batches: int) -> Aggregate:
    """The coordinate-wise median of the micro-batches' means (Yin et al., arXiv 1803.01498, algorithm 1).

    No sensitivity.
    """
    return _middle(batch, micro_batches, 0.5)


@kind(
    {"share": HALF_SHARE, "micro_batches": MICRO_BATCHES},
    fixed=("micro_batches",),
    aggregates=True,
    strength={"micro_batches": 1, "share": 1},
)
def trimmed_mean(batch: Batch, share: tf.Tensor, micro_batches: int) -> Aggregate:
    """The coordinate-wise mean of the micro-batches' means without a share of the smallest and of the largest (Yin et
    al., arXiv 1803.01498, algorithm 1).

    No sensitivity.
    """
    return _middle(batch, micro_batches, share[:, 0])


def _middle(batch: Batch, micro_batches: int, share: tf.Tensor | float) -> Aggregate:
    """The coordinate-wise mean of the micro-batches without a share at each end; of the one or two in the middle where
    no more would be left.
    """
    from models.batch import rounded_down

    counts, means = batch.micro_batches(micro_batches)
    there = counts > 0
    number = tf.reduce_sum(tf.cast(there, tf.float32), 1)
    trimmed = tf.minimum(rounded_down(share * number), tf.floor(tf.maximum(number - 1.0, 0.0) / 2.0))
    seen = tf.reduce_sum(batch.weight, 1)
    return Aggregate([_trimmed()(values, there, trimmed, seen) for values in means])


@functools.cache
def _trimmed():
    """Compiled, since it is many passes over little else than memory: XLA makes one of them, ten times as fast."""

    @tf.function(jit_compile=True)
    def trimmed_mean(values, there, trimmed, seen):
        def one_a_replica(amounts):
            return tf.reshape(amounts, [-1] + [1] * (len(values.shape) - 2))

        lines = [
            tf.where(one_a_replica(there[:, place]), line, math.inf) for place, line in enumerate(tf.unstack(values))
        ]
        for low, high in _comparators(len(lines)):
            lines[low], lines[high] = tf.minimum(lines[low], lines[high]), tf.maximum(lines[low], lines[high])
        number = tf.reduce_sum(tf.cast(there, tf.float32), 1)
        total = tf.zeros_like(lines[0])
        for place, line in enumerate(lines):
            inside = (place >= trimmed) & (place < number - trimmed)
            total += tf.where(one_a_replica(inside), line, 0.0)
        left = tf.math.divide_no_nan(seen, number - 2.0 * trimmed)
        return total * one_a_replica(left)

    return trimmed_mean


def _comparators(count: int) -> list[tuple[int, int]]:
    """The pairs that Batcher's odd-even merge sort compares, one after the other, to sort `count` values."""
    pairs, run = [], 1
    while run < count:
        step = run
        while step >= 1:
            for first in range(step % run, count - step, 2 * step):
                for low in range(first, min(first + step, count - step)):
                    if low // (2 * run) == (low + step) // (2 * run):
                        pairs.append((low, low + step))
            step //= 2
        run *= 2
    return pairs


def _of_rows(batch: Batch, counts: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
    """Weights of the rows, [replica, batch], from the shares of their micro-batches in the mean, [replica, number]."""
    weights = batch.count * tf.math.divide_no_nan(shares, counts)
    return tf.gather(weights, batch.micro_batch(counts.shape[1]), axis=1)
