"""What a shaping sees of a batch."""

from __future__ import annotations

import functools

import tensorflow as tf

from models.convolution import Front, Maps


class Batch:
    """What a shaping sees of a batch: a few things about each example, none of them its gradient.

    Computed when they are asked for.
    """

    def __init__(self, front: Front, maps: Maps, squared_inputs: list, inputs: list, deltas: list) -> None:
        """squared_inputs: of the first dense layer, [batch], in a list.

        Inputs: of every dense layer, and the logits; deltas: of every dense layer.
        """
        self._front, self._maps, self._first, self._inputs, self._deltas = front, maps, squared_inputs, inputs, deltas

    @functools.cached_property
    def squared_inputs(self) -> list[tf.Tensor]:
        """|a_i|^2 of every dense layer, [replica, batch] each; of the first, whose input is shared, [batch]."""
        return self._first + [tf.reduce_sum(tf.square(layer), 1) for layer in self._inputs[1:-1]]

    @functools.cached_property
    def squared_deltas(self) -> list[tf.Tensor]:
        """|d_i|^2 of every dense layer, [replica, batch] each."""
        return [tf.reduce_sum(tf.square(delta), 1) for delta in self._deltas]

    @functools.cached_property
    def squared_norms(self) -> tf.Tensor:
        """|g_i|^2 of each example's gradient over all parameters, float32 [replica, batch]."""
        dense = [(inside + 1.0) * outside for inside, outside in zip(self.squared_inputs, self.squared_deltas)]
        return tf.add_n(dense + self._front.squared_norms(self._maps))

    def part(self, replicas: slice) -> Batch:
        """The batch as some of the replicas see it."""
        inputs = [self._inputs[0], *(layer[replicas] for layer in self._inputs[1:])]
        return Batch(self._front, self._maps, self._first, inputs, [delta[replicas] for delta in self._deltas])
