"""Replicas of one structure of shaping in a stack: their parameters, what they keep, and the weights they give."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from models.batch import Batch, Direction
from models.kind import Aggregate
from models.minibatches import Rows
from models.shaping import Link, Shaping


@dataclass(frozen=True)
class EpochStart:
    """What `Kind.between` sees of one replica's rows before an epoch.

    epoch: from 1, of the phase; copies: float32 [rows], how often it sees each; labels: int32 [rows]; weights: float32
    [rows], the row weights so far; probabilities: computes the softmax outputs of all rows at the replica's weights,
    float32 [rows, classes].
    """

    epoch: int
    copies: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    probabilities: Callable[[], np.ndarray]


class Term:
    """A link of a chain, for all replicas of a group: one kind, each with its own parameters and memory."""

    def __init__(self, links: list[Link], shapes: list) -> None:
        """shapes: of the network's parameters, in the order of `Batch.total`."""
        self.kind, self.initial, self.links, self.shapes = links[0].kind, links, list(links), shapes
        self.parameters = {
            name: int(links[0].values[name])
            if name in self.kind.fixed
            else tf.Variable(self._initially(name), shape=[None])
            for name in self.kind.parameters
        }
        self.memory = {name: tf.Variable(self._initially(start), shape=[None]) for name, start in self._numbers()}
        for name in self.kind.directions:
            self.memory[name] = [tf.Variable(zeros, shape=[None, *zeros.shape[1:]]) for zeros in self._zeros()]
        if self.kind.between:
            self.memory["row_weights"] = tf.Variable(tf.zeros([0, len(links)]), shape=[None, None])

    @property
    def memories(self) -> list[tf.Variable]:
        """All that it remembers."""
        return self.variables + ([self.memory["row_weights"]] if self.kind.between else [])

    @property
    def variables(self) -> list[tf.Variable]:
        """All that has a value for each replica, which it leads with; not the row weights, which end with it."""
        found = [values for values in self.parameters.values() if isinstance(values, tf.Variable)]
        found += [self.memory[name] for name, _ in self._numbers()]
        return found + [values for name in self.kind.directions for values in self.memory[name]]

    def reset(self) -> None:
        """All replicas again, which remember nothing."""
        self.links = list(self.initial)
        for name, values in self.parameters.items():
            if isinstance(values, tf.Variable):
                values.assign(self._initially(name))
        for name, start in self._numbers():
            self.memory[name].assign(self._initially(start))
        for name in self.kind.directions:
            for values, zeros in zip(self.memory[name], self._zeros()):
                values.assign(zeros)
        if self.kind.between:
            self.memory["row_weights"].assign(tf.zeros([0, len(self.initial)]))

    def keep(self, replicas: np.ndarray) -> None:
        """These replicas only, int32, numbered from 0 within the group."""
        self.links = [self.links[replica] for replica in replicas]
        for values in self.variables:
            values.assign(tf.gather(values, replicas))
        if self.kind.between:
            self.memory["row_weights"].assign(tf.gather(self.memory["row_weights"], replicas, axis=1))

    def begin(self, epoch: int, rows: Rows, first: int, probabilities: Callable[[int], np.ndarray]) -> None:
        """Ask the kind for row weights; see `Group.begin`."""
        kept, labels, copies = self.memory["row_weights"], rows.y.numpy(), rows.weight.numpy()
        if len(kept.numpy()) != len(labels):
            kept.assign(tf.ones([len(labels), len(self.links)]))
        weights = kept.numpy()
        for place, link in enumerate(self.links):
            fixed = self.kind.fixed
            given = [int(value) if name in fixed else value for name, value in link.values.items()]
            seen = copies[:, first + place], labels, weights[:, place]
            found = self.kind.between(EpochStart(epoch, *seen, lambda: probabilities(first + place)), *given)  # noqa: B023
            if found is not None:
                weights[:, place] = found
        kept.assign(weights)

    def weigh(self, batch: Batch) -> tf.Tensor | list[tf.Tensor] | Aggregate:
        """The weights of the examples of a batch, as the kind gives them."""
        mine = copy.copy(batch)
        mine.memory = self.memory
        values, weigh = self.parameters.values(), self.kind.weigh
        if self.kind.file_sha256:  # a user's own, which may use what AutoGraph makes of tf's values: if, for, while
            weigh = tf.autograph.to_graph(weigh)
        return weigh(mine, *(one[:, tf.newaxis] if isinstance(one, tf.Variable) else one for one in values))

    def _numbers(self) -> list[tuple[str, str]]:
        return list(self.kind.numbers.items())

    def _initially(self, parameter: str) -> np.ndarray:
        return np.array([link.values[parameter] for link in self.initial], np.float32)

    def _zeros(self) -> list[tf.Tensor]:
        return [tf.zeros([len(self.initial), *shape]) for shape in self.shapes]


class Group:
    """Replicas of one structure (`Shaping.structure`) that lie side by side in a stack."""

    def __init__(self, shapings: list[Shaping], shapes: list) -> None:
        """shapes: of the network's parameters, in the order of `Batch.total`."""
        self.initial, self.count, self.phases, before = len(shapings), tf.Variable(len(shapings)), [], 0
        for number, phase in enumerate(shapings[0].phases):
            chains = [shaping.phases[number].links for shaping in shapings]
            self.phases.append((before, [Term(list(links), shapes) for links in zip(*chains)]))
            before += phase.epochs or 0

    @property
    def terms(self) -> list[Term]:
        return [term for _, terms in self.phases for term in terms]

    def phase(self, epoch: int) -> int:
        """The number of the phase that an epoch, from 1, lies in."""
        return max(number for number, (before, _) in enumerate(self.phases) if before < epoch)

    def reset(self) -> None:
        """All replicas again, which remember nothing."""
        self.count.assign(self.initial)
        for term in self.terms:
            term.reset()

    def keep(self, replicas: Sequence[int]) -> None:
        """These replicas only, numbered from 0 within the group."""
        self.count.assign(len(replicas))
        for term in self.terms:
            term.keep(np.array(replicas, np.int32))

    def begin(self, epoch: int, rows: Rows, first: int, probabilities: Callable[[int], np.ndarray]) -> None:
        """Before an epoch, let the kinds look at all rows (`Kind.between`).

        first: the number of the group's first replica in the stack; probabilities: of the replica of such a number.
        """
        before, terms = self.phases[self.phase(epoch)]
        for term in terms:
            if term.kind.between:
                term.begin(epoch - before, rows, first, probabilities)

    def shape(self, batch: Batch, phase: int) -> tuple[tf.Tensor | list[tf.Tensor], Direction | None]:
        """The weights of the examples, [replica, batch], or one of these for each layer; and what stands instead of
        the weighted sums, for kinds that weigh no examples (`models.kind.Aggregate`).
        """
        before, terms = self.phases[phase]
        batch = copy.copy(batch)
        batch.epoch = batch.epoch - before
        for term in terms:
            weights = term.weigh(batch)
            if isinstance(weights, Aggregate):
                return batch.factors or tf.ones_like(batch.weight), weights.sums
            if len(terms) == 1:
                return weights, None
            batch = batch.scaled(weights)
        return batch.factors, None
