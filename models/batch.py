"""What a shaping sees of a batch."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from models.convolution import Front, Maps
from models.dense import across, dots, inner
from models.outputs import Outputs

Direction = list  # of tf.Tensor [replica, *parameter]: dense kernels, their biases, convolutions' kernels, their biases


@dataclass
class Batch:
    """What a shaping sees of a batch: a few things about each example, none of them its gradient.

    All of it follows from the layers' inputs and deltas, and is computed when it is asked for. A row's weight says how
    often it counts for a replica; one of weight 0 is not seen by it. `scaled` is the batch behind a link of a chain.

    first: |a_i|^2 of the first dense layer's inputs, [batch]; inputs, deltas: of every dense layer; weight: float32
    [replica, batch]; labels: int32 [batch]; places: int32 [batch], each row's place before the clean ones were put
    first; rows: int32 [batch], their numbers; epoch: from 1, of the phase; copies: whether any weight is above 1; ones:
    whether all are known to be 1; memory: what the kind keeps.
    """

    front: Front
    maps: Maps
    first: tf.Tensor
    inputs: list[tf.Tensor]
    logits: Outputs
    deltas: list[Outputs]
    weight: tf.Tensor
    labels: tf.Tensor
    places: tf.Tensor | None = None
    rows: tf.Tensor | None = None
    epoch: tf.Tensor | int = 1
    trusted: Batch | None = None  # the trusted rows, where a shaping of the stack asks for them
    copies: bool = True
    ones: bool = False
    memory: dict[str, tf.Variable | list[tf.Variable]] = field(default_factory=dict)
    factors: list[tf.Tensor] | None = None  # what the links before made of each layer's gradients, [replica, batch]

    @functools.cached_property
    def squared_inputs(self) -> list[tf.Tensor]:
        """|a_i|^2 of every dense layer, [replica, batch] each; of the first, whose input is shared, [batch]."""
        return [self.first] + [tf.reduce_sum(tf.square(layer), 1) for layer in self.inputs[1:]]

    @functools.cached_property
    def squared_deltas(self) -> list[tf.Tensor]:
        """|d_i|^2 of every dense layer, [replica, batch] each."""
        return [delta.squares() for delta in self.deltas]

    @functools.cached_property
    def squared_norms(self) -> tf.Tensor:
        """|g_i|^2 of each example's gradient over all parameters, float32 [replica, batch]."""
        if self.factors is not None:
            return tf.add_n(self.layer_squared_norms)
        return tf.add_n(self._dense_squared_norms + self.front.squared_norms(self.maps))

    @functools.cached_property
    def norms(self) -> tf.Tensor:
        """|g_i|, float32 [replica, batch]."""
        return tf.sqrt(self.squared_norms)

    @functools.cached_property
    def layer_squared_norms(self) -> list[tf.Tensor]:
        """|g_i|^2 over each layer's kernel and bias: dense layers, then convolutions, [replica, batch] each."""
        layers = self._dense_squared_norms + self.front.layer_squared_norms(self.maps)
        if self.factors is None:
            return layers
        return [squared * tf.square(factor) for squared, factor in zip(layers, self.factors)]

    @property
    def _dense_squared_norms(self):
        return [(inside + 1.0) * outside for inside, outside in zip(self.squared_inputs, self.squared_deltas)]

    @functools.cached_property
    def losses(self) -> tf.Tensor:
        """Each example's cross-entropy, float32 [replica, batch]."""
        return self.logits.losses(self.labels)

    @functools.cached_property
    def probabilities(self) -> tf.Tensor:
        """The probability that the model gives each example's label, float32 [replica, batch]."""
        return tf.exp(-self.losses)

    @functools.cached_property
    def count(self) -> tf.Tensor:
        """How many examples each replica sees, float32 [replica, 1]; 1 where it sees none."""
        return tf.maximum(tf.reduce_sum(self.weight, 1, keepdims=True), 1.0)

    @property
    def row_weights(self) -> tf.Tensor:
        """What `Kind.between` last gave the rows of this batch, [replica, batch]; 1 before."""
        return tf.transpose(tf.gather(self.memory["row_weights"], self.rows))

    def kept(self, name: str) -> Any:
        """What each replica keeps: a number, a variable [replica] (`Kind.numbers`), or a direction, a variable
        [replica, *parameter] for each parameter (`Kind.directions`). Read it, or assign to it.
        """
        return self.memory[name]

    def mean(self) -> Direction:
        """The mean gradient of the examples that each replica sees; zero where it sees none."""
        return self.total(1.0 / self.count)

    def total(self, weights: tf.Tensor) -> Direction:
        """Sum over the examples of w_i g_i, as often as each counts; weights: [replica, batch], or one a replica."""
        factors = self.counted(weights)
        shaped = [delta.weighted(factor) for delta, factor in zip(self.deltas, factors)]
        kernels, biases = zip(*(delta.sums(layer) for delta, layer in zip(shaped, self.inputs)))
        kernels = tuple(delta.replicas_first(kernel) for delta, kernel in zip(shaped, kernels))
        return [*kernels, *biases, *self.front.sums(self.maps, factors[len(shaped) :])]

    def inner(self, direction: Direction) -> tf.Tensor:
        """<g_i, V> of each example with a direction V, float32 [replica, batch]: for a dense layer d_i . (V a_i)."""
        layers, half = len(self.deltas), 2 * len(self.deltas)
        found = [
            inner(kernel, bias, delta, layer)
            for kernel, bias, delta, layer in zip(direction[:layers], direction[layers:half], self.deltas, self.inputs)
        ]
        found += self.front.inner(self.maps, direction[half:])
        if self.factors is not None:
            found = [values * factor for values, factor in zip(found, self.factors)]
        return tf.add_n(found)

    def smallest(self, values: tf.Tensor, keep: tf.Tensor) -> tf.Tensor:
        """The `keep`-th smallest of the values of the examples that each replica sees, as often as each counts.

        values: [replica, batch]; keep: [replica, 1], from 1; returns [replica, 1].
        """
        seen = (self.weight > 0) & (values < math.inf)  # and not NaN, which sorting cannot bear
        ascending, order = tf.math.top_k(-tf.where(seen, values, math.inf), tf.shape(values)[1])
        if self.copies:
            reached = tf.cumsum(tf.gather(self.weight, order, batch_dims=1), 1)
            place = tf.reduce_sum(tf.cast(reached < keep, tf.int32), 1, keepdims=True)
        else:
            place = tf.cast(keep, tf.int32) - 1
        return -tf.gather(ascending, tf.minimum(place, tf.shape(values)[1] - 1), batch_dims=1)

    def without(self, share: tf.Tensor) -> tf.Tensor:
        """How many examples are left when a share of them, rounded down, is taken away, 1 at least, [replica, 1]."""
        return tf.maximum(self.count - rounded_down(share * self.count), 1.0)

    def micro_batches(self, number: int) -> tuple[tf.Tensor, Direction]:
        """Deal the rows out to micro-batches, by their places in the batch: how many examples each has, [replica,
        number], and the mean gradient of each, [number, replica, *parameter]; zero where it has none.
        """
        counts, chosen, deltas = self._dealt_deltas(number)
        kernels = [self._micro_batch_kernels(layer, delta, chosen) for layer, delta in zip(self.inputs, deltas)]
        return counts, kernels + [tf.reduce_sum(delta, 3) for delta in deltas]

    def micro_batch_gram(self, number: int) -> tuple[tf.Tensor, tf.Tensor]:
        """How many examples each micro-batch has, [replica, number], and the inner products of their mean gradients,
        [replica, number, number].

        Of a layer with few outputs, from the means; of others, from the inner products of all pairs of examples, which
        are fewer than a mean has parameters.
        """
        counts, chosen, deltas = self._dealt_deltas(number)
        members = self.micro_batch(number)
        counting = self.weight / tf.maximum(tf.gather(counts, members, axis=1), 1.0)
        shares = tf.one_hot(members, number, axis=0) * counting[:, tf.newaxis]  # [replica, number, batch]
        grams = []
        for place, (layer, delta) in enumerate(zip(self.inputs, deltas)):
            if len(layer.shape) == 2 and layer.shape[1] > 4 * delta.shape[2]:
                kernels = self._micro_batch_kernels(layer, delta, chosen)
                for values in (kernels, tf.reduce_sum(delta, 3)):
                    flat = tf.reshape(values, [number, -1, math.prod(values.shape[2:])])
                    flat = tf.transpose(flat, [1, 0, 2])
                    grams.append(tf.matmul(flat, flat, transpose_b=True))
            else:
                pairs = tf.matmul(shares, self._pairs(place))
                grams.append(tf.matmul(pairs, shares, transpose_b=True))
        return counts, tf.add_n(grams)

    def _dealt_deltas(self, number):
        """How many examples each micro-batch has, [replica, number]; the rows dealt out, the micro-batches one after
        the other, filled up to one size with rows that do not count; and of every layer the deltas by them, over the
        number of examples, [number, replica, fan_out, rows of a micro-batch].
        """
        self._check_dense()
        members = self.micro_batch(number)
        order = tf.argsort(members, stable=True)
        sizes = tf.math.bincount(members, minlength=number, maxlength=number)
        column = tf.range(tf.size(order)) - tf.gather(tf.cumsum(sizes, exclusive=True), tf.gather(members, order))
        place = tf.gather(members, order) * tf.reduce_max(sizes) + column
        spread = tf.scatter_nd(place[:, tf.newaxis], order + 1, [number * tf.reduce_max(sizes)])
        there, chosen = tf.cast(spread > 0, tf.float32), tf.maximum(spread - 1, 0)
        seen = tf.gather(self.weight, chosen, axis=1) * there
        counts = tf.reduce_sum(tf.reshape(seen, [-1, number, tf.reduce_max(sizes)]), 2)
        share = tf.transpose(1.0 / tf.maximum(counts, 1.0))[..., tf.newaxis, tf.newaxis]
        counting = tf.reshape(there, [number, 1, 1, -1]) * share
        shaped = [delta.weighted(factor).plain() for delta, factor in zip(self.deltas, self.counted(1.0))]
        return counts, chosen, [dealt(delta, chosen, number) * counting for delta in shaped]

    def _micro_batch_kernels(self, layer, delta, chosen):
        """The kernel part of the mean gradients, [number, replica, fan_out, fan_in]; delta: as they are dealt."""
        number, _, fan_out, _ = delta.shape
        if len(layer.shape) == 2:  # shared by the replicas, which lie side by side in one product a micro-batch
            fan_in = layer.shape[1]
            shared = tf.reshape(tf.gather(layer, chosen), [number, -1, fan_in])
            beside = tf.reshape(delta, [number, -1, tf.shape(delta)[3]])
            return tf.reshape(tf.matmul(beside, shared), [number, -1, fan_out, fan_in])
        return tf.matmul(delta, dealt(layer, chosen, number), transpose_b=True)

    def micro_batch(self, number: int) -> tf.Tensor:
        """The micro-batch of each row, int32 [batch], from 0: its place in the batch modulo their number."""
        return self.places % number

    @functools.cached_property
    def gram(self) -> tf.Tensor:
        """<g_i, g_j> of all pairs of examples, float32 [replica, batch, batch]: the sum over the dense layers of
        (a_i . a_j + 1) (d_i . d_j).
        """
        self._check_dense()
        layers = [self._pairs(place) for place in range(len(self.deltas))]
        return tf.add_n(layers)

    def scaled(self, weights: tf.Tensor | list[tf.Tensor]) -> Batch:
        """The batch of the gradients w_i g_i; weights: [replica, batch], or one of these for each layer."""
        behind = copy.copy(self)  # with what is known of it already, but for what the weights change
        for name in ("squared_norms", "norms", "layer_squared_norms", "gram"):
            behind.__dict__.pop(name, None)
        weights = self.by_layer(weights)
        if self.factors is None:
            behind.factors = weights
        elif len(set(map(id, weights + self.factors))) == 2:  # one for all layers, both
            behind.factors = self.by_layer(self.factors[0] * weights[0])
        else:
            behind.factors = [one * other for one, other in zip(self.factors, weights)]
        return behind

    def by_layer(self, weights: tf.Tensor | list[tf.Tensor]) -> list[tf.Tensor]:
        """Weights for each layer, the dense ones and then the convolutions; those that are one for all, so often."""
        return weights if isinstance(weights, list) else [weights] * (len(self.deltas) + len(self.front.kernels))

    def part(self, replicas: slice) -> Batch:
        """The batch as some of the replicas see it."""
        inputs = [self.inputs[0], *(layer[replicas] for layer in self.inputs[1:])]
        logits, deltas = self.logits.of_replicas(replicas), [delta.of_replicas(replicas) for delta in self.deltas]
        trusted = self.trusted and self.trusted.part(replicas)
        return dataclasses.replace(
            self, inputs=inputs, logits=logits, deltas=deltas, weight=self.weight[replicas], trusted=trusted
        )

    def _check_dense(self):
        if self.front.layers:
            raise ValueError("convolutions have no Gram matrix and no micro-batches: say so with takes_gram=True")

    def _pairs(self, place):
        """A dense layer's part of the Gram matrix, [replica, batch, batch]."""
        layer = self.inputs[place]
        inputs = tf.matmul(layer, layer, transpose_b=True) if len(layer.shape) == 2 else across(layer)
        pairs = (inputs + 1.0) * across(self.deltas[place].plain())
        if self.factors is None:
            return pairs
        return pairs * self.factors[place][:, tf.newaxis] * self.factors[place][..., tf.newaxis]

    def counted(self, weights: tf.Tensor | list[tf.Tensor] | float) -> list[tf.Tensor]:
        """The weights times how often each example counts, and what the links before made of it, for every layer."""
        if isinstance(weights, list):
            counted = [one * self.weight for one in weights]
        else:
            counted = self.by_layer(weights * self.weight)
        return counted if self.factors is None else [one * factor for one, factor in zip(counted, self.factors)]


def dealt(values: tf.Tensor, chosen: tf.Tensor, number: int) -> tf.Tensor:
    """[replica, units, batch] as [number, replica, units, rows of a micro-batch]; chosen: int32 [number * rows]."""
    parts = tf.reshape(tf.gather(values, chosen, axis=2), [-1, values.shape[1], number, tf.size(chosen) // number])
    return tf.transpose(parts, [2, 0, 1, 3])


def rounded_down(share: tf.Tensor) -> tf.Tensor:
    """The whole number below a share of a whole number: 3 for 0.3 of 10, whatever float32 makes of it."""
    return tf.floor(share + 1e-4)


def dot(one: Direction, other: Direction) -> tf.Tensor:
    """<U, V> of two directions, float32 [replica, 1]."""
    return tf.add_n([dots(*pair) for pair in zip(one, other)])
