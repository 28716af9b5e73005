"""What a stack trains on and gives back: rows, epochs cut into batches, the record of an epoch's gradients, and the
loop over epochs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf  # takes seconds: imported where it is used


@dataclass(frozen=True)
class Rows:
    """The training rows of a stack, clean ones and poisons.

    x: float32 [rows, features]; y: int32 [rows]; is_poison: bool [rows]; weight: float32 [rows, replica], how often a
    row counts for a replica: 1 or 0, or a number of copies; squared_norms: float32 [rows], |x|^2. slots: int [rows]:
    rows of one slot take one place in the order of an epoch and so meet in one batch, such as the poisons that each
    replica has in place of another's.
    """

    x: tf.Tensor
    y: tf.Tensor
    is_poison: np.ndarray
    weight: tf.Tensor
    squared_norms: tf.Tensor
    slots: np.ndarray

    @staticmethod
    def of(
        x: np.ndarray,
        y: np.ndarray,
        is_poison: np.ndarray,
        replicas: int,
        weight: np.ndarray | None = None,
        slots: np.ndarray | None = None,
    ) -> Rows:
        """Rows from arrays; x may have any shape behind its first axis.

        By default every replica sees every row, each in a slot of its own.
        """
        import tensorflow as tf

        flat = tf.reshape(tf.constant(x), [len(x), -1])
        weight = tf.ones([len(x), replicas]) if weight is None else tf.constant(weight, tf.float32)
        slots = np.arange(len(x)) if slots is None else slots
        return Rows(flat, tf.constant(y, tf.int32), is_poison, weight, tf.reduce_sum(tf.square(flat), 1), slots)

    @functools.cached_property
    def copies(self) -> bool:
        """Whether a row counts more than once for a replica."""
        return bool(self.weight.numpy().max() > 1)

    @functools.cached_property
    def ones(self) -> bool:
        """Whether every row counts once for every replica."""
        return bool((self.weight.numpy() == 1).all())

    def keep(self, replicas: Sequence[int] | np.ndarray) -> Rows:
        """The rows of a stack of which only these replicas are left."""
        import tensorflow as tf

        return dataclasses.replace(self, weight=tf.gather(self.weight, replicas, axis=1))


@dataclass(frozen=True)
class Batches:
    """A shuffled epoch. Batch b is order[starts[b] : starts[b + 1]], of which the first clean[b] rows are clean.

    order: int32 [rows]; starts: int32 [batches + 1]; clean: int32 [batches]; places: int32 [rows], each row's place in
    its batch before the clean ones were put first, by which it is dealt out to micro-batches; number: of the epoch,
    from 1.
    """

    order: np.ndarray
    starts: np.ndarray
    clean: np.ndarray
    places: np.ndarray
    number: int


@dataclass(frozen=True)
class Record:
    """What the steps of one epoch gave out about the gradients of the last layer, at the parameters before each update.

    sums: by name (clean_kernel, poison_kernel, clean_bias, poison_bias), float32 [step, replica, classes(, fan_in)],
    the sum over the clean or the poison rows of a batch, each row's gradient clipped as its replica clips it, without
    noise. squared_norms: float32 [row, replica], |g_i|^2 of each row's kernel gradient before clipping. inner_products:
    float32 [poison row, replica], of g_i and the batch's clean_kernel sum. epoch: the batches, in whose order all rows
    of a record are.

    The methods do the rest of the arithmetic, a replica at a time, so that the training need not wait for it.
    """

    rows: Rows
    epoch: Batches
    sums: dict[str, np.ndarray]
    squared_norms: np.ndarray
    inner_products: np.ndarray

    @property
    def is_poison(self) -> np.ndarray:
        """bool [row], in the order of training."""
        return self.rows.is_poison[self.epoch.order]

    def batch_means(self, replica: int, part: str, parameter: str) -> tuple[np.ndarray, np.ndarray]:
        """The mean gradient of a part (clean, poison) in each batch that has such rows, for a parameter (kernel, bias).

        Returns the batches' numbers from 0, int [batches], and the means, float32 [batches, fan_in, classes] or
        [batches, classes].
        """
        counted = self._weight(replica) * (self.is_poison == (part == "poison"))
        counts = np.add.reduceat(counted, self.epoch.starts[:-1])
        chosen = np.flatnonzero(counts)
        sums = self.sums[f"{part}_{parameter}"][chosen, replica]
        return chosen, (sums.T / counts[chosen]).T.swapaxes(1, -1)

    def norms(self, replica: int) -> np.ndarray:
        """|g_i| of each row's kernel gradient before clipping, float32 [row].

        NaN where the replica does not see the row.
        """
        return np.where(self._weight(replica) > 0, np.sqrt(self.squared_norms[:, replica]), np.float32(np.nan))

    def cosines(self, replica: int) -> np.ndarray:
        """The cosine of each poison's kernel gradient to its batch's mean clean one, float32 [poison row].

        NaN where one of them is zero.
        """
        clean = self.sums["clean_kernel"][:, replica]
        clean_norms = np.sqrt(np.einsum("sij,sij->s", clean, clean))  # of the sum: its direction is the mean's
        batch = np.searchsorted(self.epoch.starts, np.flatnonzero(self.is_poison), "right") - 1
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.inner_products[:, replica] / (self.norms(replica)[self.is_poison] * clean_norms[batch])

    def _weight(self, replica: int) -> np.ndarray:
        return self.rows.weight.numpy()[self.epoch.order, replica]


def shuffled(rows: Rows, batch_size: int, seed: int, epoch: int, short_last: bool = True) -> Batches:
    """Shuffle the slots and cut them into batches of `batch_size`, of which the last may be smaller, or else takes what
    is left over.

    Which rows meet in a batch is random; within it the clean ones come first, so that the sums over clean and over
    poison rows are sums over slices.
    """
    count = rows.slots.max() + 1
    place = np.empty(count, np.int64)
    place[np.random.default_rng([seed, epoch]).permutation(count)] = np.arange(count)
    place = place[rows.slots]
    batch = place // batch_size
    if not short_last:
        batch = np.minimum(batch, max(count // batch_size, 1) - 1)
    order = np.lexsort((place, rows.is_poison, batch)).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(np.bincount(batch))]).astype(np.int32)
    clean = np.bincount(batch, weights=~rows.is_poison).astype(np.int32)
    places = (place - batch * batch_size)[order].astype(np.int32)
    return Batches(order, starts, clean, places, epoch)


@dataclass
class Run:
    """An engine at work on rows: the one loop over epochs, of trainings, trials and searches alike.

    engine: a `models.stack.Stack`, or what has its methods; batches: cuts an epoch, called with the rows and the
    epoch's number from 1.
    """

    engine: Any
    rows: Rows
    batches: Callable[..., Batches]

    def epochs(self, count: int, record: bool = False) -> Iterator[tuple[int, Record | None]]:
        """Train for `count` epochs; yields the number of each, and with `record` what its gradients were."""
        for epoch in range(1, count + 1):
            yield epoch, self.engine.train_epoch(self.rows, self.batches(self.rows, epoch=epoch), record)

    def keep(self, replicas: Sequence[int] | np.ndarray) -> None:
        """Go on with these replicas only, numbered from 0."""
        self.engine.keep(replicas)
        self.rows = self.rows.keep(replicas)
