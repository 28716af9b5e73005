"""Kinds that weigh an example by the direction of its gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from command_line import COSINE, COUNT, POSITIVE, PROPER_SHARE
from models.kind import Aggregate, kind
from models.kinds.norms import within
from models.later import tf

if TYPE_CHECKING:
    from models.batch import Batch, Direction

POWER_ROUNDS = 3  # a step; the direction is kept from step to step
ROUNDING = 1e-4  # of the norms of what is subtracted: smaller differences are nothing but float32's rounding


@kind({"threshold": COSINE}, strength={"threshold": 1})
def cosine(batch: Batch, threshold: tf.Tensor) -> tf.Tensor:
    """1 where the cosine of g_i and the batch's mean gradient is `threshold` or more, 0 elsewhere; the cosine of a zero
    gradient is 0.

    No sensitivity: the mean is made of all examples.
    """
    return _near(batch, batch.mean(), threshold)


@kind({"threshold": COSINE, "momentum": PROPER_SHARE}, directions=("running_mean",), strength={"threshold": 1})
def running_cosine(batch: Batch, threshold: tf.Tensor, momentum: tf.Tensor) -> tf.Tensor:
    """As `cosine`, with the running mean of the batches' means, v = momentum v + (1 - momentum) mean, this one's in it.

    No sensitivity: the mean is made of all examples.
    """
    from models.dense import along

    old = tf.where(tf.reduce_sum(batch.weight, 1, keepdims=True) > 0, momentum, 1.0)
    new, moved = batch.total((1.0 - old) / batch.count), []
    for kept, mean in zip(batch.kept("running_mean"), new):
        moved.append(kept.assign(along(old[:, 0], mean) * kept + mean))
    return _near(batch, moved, threshold)


def _near(batch: Batch, direction: Direction, threshold: tf.Tensor) -> tf.Tensor:
    from models.batch import dot

    lengths = batch.norms * tf.sqrt(dot(direction, direction))
    cosines = tf.math.divide_no_nan(batch.inner(direction), lengths)
    return tf.cast(cosines >= threshold, tf.float32)


@kind({"trusted_rows": COUNT}, fixed=("trusted_rows",), trusted_rows="trusted_rows", strength={"trusted_rows": -1})
def trusted(batch: Batch, trusted_rows: int) -> tf.Tensor:
    """An oracle: it knows held-out rows that no poison reaches. FLTrust (Cao et al., arXiv 2012.13995) with an example
    for a client: s_i = max(0, <g_i, g>), g the mean gradient of the trusted rows, and w_i = B (s_i / n_i^2) / sum_j
    (s_j / (n_j |g|)): each gradient is scaled to |g|, weighed by its cosine to g, and divided by the sum of these.

    No sensitivity: one example decides on how much another counts.
    """
    from models.batch import dot

    chosen = tf.cast(tf.range(tf.size(batch.trusted.labels)) < trusted_rows, tf.float32)
    mean = batch.trusted.total(chosen[tf.newaxis] / trusted_rows)
    agreement = tf.nn.relu(batch.inner(mean))
    cosines = tf.math.divide_no_nan(agreement, batch.norms * tf.sqrt(dot(mean, mean)))
    total = tf.reduce_sum(batch.weight * cosines, 1, keepdims=True)
    scaled = tf.math.divide_no_nan(agreement, batch.squared_norms)
    return tf.reduce_sum(batch.weight, 1, keepdims=True) * tf.math.divide_no_nan(scaled, total)


@kind({"share": PROPER_SHARE}, directions=("principal",), strength={"share": 1})
def sever(batch: Batch, share: tf.Tensor) -> tf.Tensor:
    """1, but 0 for the share of the batch whose centred gradients have the largest projection on their principal
    direction (SEVER, Diakonikolas et al., arXiv 1803.02815, a batch at a time instead of a training).

    Power iteration with the covariance, three rounds a step, from where the last step ended; the first begins with the
    sum of the centred gradients times their norms. No sensitivity: one example decides on another.
    """
    from models.batch import dot
    from models.dense import along

    kept, mean = batch.kept("principal"), batch.mean()
    old = dot(kept, kept)
    projections = tf.where(old > 0, batch.inner(kept) - dot(mean, kept), batch.norms)
    for _ in range(POWER_ROUNDS):
        length = tf.reduce_sum(batch.weight * projections, 1, keepdims=True)
        moved = [total - along(length[:, 0], part) * part for total, part in zip(batch.total(projections), mean)]
        unit = tf.math.divide_no_nan(1.0, tf.sqrt(dot(moved, moved)))[:, 0]
        direction = [along(unit, part) * part for part in moved]
        projections = batch.inner(direction) - dot(mean, direction)
    seen = tf.reduce_sum(batch.weight, 1) > 0  # a batch that a replica sees none of leaves it as it was
    for values, part in zip(kept, direction):
        values.assign(tf.where(along(seen, part), part, values))
    squared = tf.square(projections)
    rounding = ROUNDING * (batch.norms + tf.sqrt(dot(mean, mean)))
    squared = tf.where(squared > tf.square(rounding), squared, 0.0)  # so that equal gradients are kept or dropped alike
    return tf.cast(squared <= batch.smallest(squared, batch.without(share)), tf.float32)


@kind({"radius": POSITIVE}, directions=("center",), aggregates=True, strength={"radius": -1})
def centered_clip(batch: Batch, radius: tf.Tensor) -> Aggregate:
    """v + mean of (g_i - v) min(1, radius / |g_i - v|), v what this was in the step before, zero at first (Karimireddy
    et al., arXiv 2012.10333, one round a step).

    No sensitivity is claimed: v is made of the examples, without noise.
    """
    from models.batch import dot
    from models.dense import along

    kept = batch.kept("center")
    squared = batch.squared_norms - 2.0 * batch.inner(kept) + dot(kept, kept)
    weights = within(radius, tf.maximum(squared, 0.0))
    seen = tf.reduce_sum(batch.weight, 1)
    left = 1.0 - tf.reduce_sum(batch.weight * weights, 1) / batch.count[:, 0]
    moved = batch.total(weights / batch.count)
    center = [values.assign(along(left, part) * values + part) for values, part in zip(kept, moved)]
    return Aggregate([along(seen, part) * part for part in center])
