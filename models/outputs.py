"""The logits of a stack, and the deltas of its layers, for all replicas and examples, laid out as they are fastest.

`Plain` is how one would write them. The only layer of a network has others: of many classes, `ByRow`; of two, `OfTwo`.
All of them have the same methods; those of logits are deltas, probabilities, largest and losses.
"""

from __future__ import annotations

from typing import NamedTuple, Union

import tensorflow as tf

FEW_CLASSES = 10  # up to so many, the largest logit is found by comparing, and logits are not kept `ByRow`


class Plain(NamedTuple):
    """values: [replica, fan_out, batch]."""

    values: tf.Tensor

    def deltas(self, y: tf.Tensor) -> Plain:
        """The gradient of each example's cross-entropy at its logits; y: int32 [batch]."""
        _, exponentials, total = self._softmax()
        return Plain(exponentials / total - tf.one_hot(y, self.values.shape[1], axis=0))

    def probabilities(self) -> tf.Tensor:
        """The softmax outputs, [batch, replica, classes]."""
        return tf.nn.softmax(tf.transpose(self.values, [2, 0, 1]))

    def largest(self) -> tf.Tensor:
        """The class of the largest logit, the first of equals, int32 [replica, batch].

        For few classes by comparing them one by one: an argmax over an axis that is not the last is ten times slower.
        """
        if self.values.shape[1] > FEW_CLASSES:
            return tf.argmax(self.values, 1, tf.int32)
        best, largest = self.values[:, 0], tf.zeros_like(self.values[:, 0], tf.int32)
        for label in range(1, self.values.shape[1]):
            larger = self.values[:, label] > best
            best, largest = tf.where(larger, self.values[:, label], best), tf.where(larger, label, largest)
        return largest

    def losses(self, y: tf.Tensor) -> tf.Tensor:
        """Each example's cross-entropy, [replica, batch]."""
        peak, _, total = self._softmax()
        size = tf.shape(y)[0]
        flat = tf.reshape(self.values, [-1, self.values.shape[1] * size])
        own = tf.gather(flat, y * size + tf.range(size), axis=1)
        return peak[:, 0] + tf.math.log(total[:, 0]) - own

    def weighted(self, factor: tf.Tensor) -> Plain:
        """w_i d_i of every example; factor: [replica, batch]."""
        return Plain(self.values * factor[:, tf.newaxis])

    def squares(self) -> tf.Tensor:
        """|d_i|^2 of every example, [replica, batch]."""
        return tf.reduce_sum(tf.square(self.values), 1)

    def sums(self, layer: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Sums over the examples of the gradients d_i a_i^T of a layer's kernel, as the stack keeps it, [replica,
        fan_out, fan_in], and d_i of its bias, [replica, fan_out].

        layer: its input, [batch, fan_in] where all replicas share it, else [replica, fan_in, batch].
        """
        bias = tf.reduce_sum(self.values, -1)
        if len(layer.shape) != 2:
            return tf.matmul(self.values, layer, transpose_b=True), bias
        fan_out, fan_in = self.values.shape[1], layer.shape[1]
        kernel = tf.matmul(tf.reshape(self.values, [-1, tf.shape(layer)[0]]), layer)
        return tf.reshape(kernel, [-1, fan_out, fan_in]), bias

    def replicas_first(self, kernel: tf.Tensor) -> tf.Tensor:
        """A kernel that the stack keeps, or its gradient, as [replica, fan_out, fan_in]."""
        return kernel

    def split(self, counts: tf.Tensor) -> list[Plain]:
        """The batch in parts of so many examples."""
        return [Plain(part) for part in tf.split(self.values, counts, 2)]

    def of_replicas(self, part: slice) -> Plain:
        """A part of the replicas."""
        return Plain(self.values[part])

    def plain(self) -> tf.Tensor:
        """The values as [replica, fan_out, batch]."""
        return self.values

    def _softmax(self):
        """The largest logit, the exponentials of all less it, and their sum."""
        peak = tf.reduce_max(self.values, 1, keepdims=True)
        exponentials = tf.exp(self.values - peak)
        return peak, exponentials, tf.reduce_sum(exponentials, 1, keepdims=True)


class ByRow(NamedTuple):
    """values: [batch, replica, fan_out]. An example's softmax lies in one piece, for which TensorFlow has kernels. The
    stack keeps the layer's kernel as [fan_in, replica, fan_out], so that no product has to turn a large matrix.
    """

    values: tf.Tensor

    def deltas(self, y):
        own = tf.one_hot(y, self.values.shape[2])[:, tf.newaxis]
        return ByRow(tf.nn.softmax(self.values) - own)

    def probabilities(self):
        return tf.nn.softmax(self.values)

    def largest(self):
        return tf.transpose(tf.argmax(self.values, 2, tf.int32))

    def losses(self, y):
        own = tf.gather(self.values, y, axis=2, batch_dims=1)
        return tf.transpose(tf.reduce_logsumexp(self.values, 2) - own)

    def weighted(self, factor):
        return ByRow(self.values * tf.transpose(factor)[..., tf.newaxis])

    def squares(self):
        return tf.transpose(tf.reduce_sum(tf.square(self.values), 2))

    def sums(self, layer):
        kernel = tf.matmul(layer, tf.reshape(self.values, [tf.shape(layer)[0], -1]), transpose_a=True)
        return tf.reshape(kernel, [layer.shape[1], -1, self.values.shape[2]]), tf.reduce_sum(self.values, 0)

    def replicas_first(self, kernel):
        return tf.transpose(kernel, [1, 2, 0])

    def split(self, counts):
        return [ByRow(part) for part in tf.split(self.values, counts)]

    def of_replicas(self, part):
        return ByRow(self.values[:, part])

    def plain(self):
        return tf.transpose(self.values, [1, 2, 0])


class OfTwo(NamedTuple):
    """values, [replica, batch]: of logits, the second class' less the first's; of deltas, the second's, of which the
    first's is the negative. That halves the products.
    """

    values: tf.Tensor

    def deltas(self, y):
        return OfTwo(tf.sigmoid(self.values) - tf.cast(y, tf.float32))

    def probabilities(self):
        return tf.transpose(tf.sigmoid(tf.stack([-self.values, self.values])), [2, 1, 0])

    def largest(self):
        return tf.cast(self.values > 0, tf.int32)

    def losses(self, y):
        return tf.nn.softplus(self.values * (1.0 - 2.0 * tf.cast(y, tf.float32)))

    def weighted(self, factor):
        return OfTwo(self.values * factor)

    def squares(self):
        return 2.0 * tf.square(self.values)

    def sums(self, layer):
        kernel, bias = tf.matmul(self.values, layer), tf.reduce_sum(self.values, 1)
        return tf.stack([-kernel, kernel], 1), tf.stack([-bias, bias], 1)

    def replicas_first(self, kernel):
        return kernel

    def split(self, counts):
        return [OfTwo(part) for part in tf.split(self.values, counts, 1)]

    def of_replicas(self, part):
        return OfTwo(self.values[part])

    def plain(self):
        return tf.stack([-self.values, self.values], 1)


Outputs = Union[Plain, ByRow, OfTwo]
