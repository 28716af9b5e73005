"""The convolutions and max pools before a network's first dense layer, for a stack of one replica.

As in a dense layer, all of it follows from the layers' inputs and deltas. Unfold an example's input to A [T, K], for
each of the T places the K values that a filter sees there, and write its delta as D [T, P], a column a filter: the
example's gradient is A^T D [K, P], its bias's the sum of D over the places. The norm comes from the cheaper of the
gradient itself and the Gram matrices, |A^T D|^2 = <A A^T, D D^T>, which are cheaper iff 2 T^2 <= K P (Bu, Mao and Xu
2022, "mixed ghost clipping"). Where the gradients are formed, the clipped sum is a weighted sum of them; elsewhere, and
without clipping, it is TensorFlow's filter gradient of the scaled deltas.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import tensorflow as tf

from models.outputs import Outputs


@dataclass
class Maps:
    """What a batch leaves in the convolutions: their inputs and pre-activations, and, once they are known, deltas and
    examples' gradients.

    inputs: [batch, height, width, channels] each; pre_activations, deltas: [batch, height', width', filters]; examples:
    every example's gradient of each kernel, [batch, height, width, channels, filters], None where its norm takes less
    work without; empty until a norm is asked for.
    """

    tape: tf.GradientTape | None = None
    inputs: list[tf.Tensor] = field(default_factory=list)
    pre_activations: list[tf.Tensor] = field(default_factory=list)
    deltas: list[tf.Tensor] = field(default_factory=list)
    examples: list[tf.Tensor | None] = field(default_factory=list)


@dataclass(frozen=True)
class Front:
    """What a Keras model has before its first dense layer: convolutions and pools, or nothing.

    shape: of one example, (height, width, channels); layers: the Keras Conv2D (stride 1, relu) and MaxPool2D layers in
    order, of which only the settings are read; kernels: a variable for each Conv2D, float32 [1, height, width,
    channels, filters]; biases: [1, filters]. Without layers the features are the rows as they are, and everything else
    is empty.
    """

    shape: tuple
    layers: list
    kernels: list[tf.Variable]
    biases: list[tf.Variable]

    def features(self, x: tf.Tensor) -> tf.Tensor:
        """What the first dense layer sees, [batch, fan_in]; x: [batch, features]."""
        return self._forward(x, Maps()) if self.layers else x

    def forward(self, x: tf.Tensor, squared_norms: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Maps]:
        """The features, their squared norms, [batch], and what the way back needs; squared_norms: [batch], |x|^2."""
        if not self.layers:
            return x, squared_norms, Maps()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            maps = Maps(tape)
            features = self._forward(x, maps)
        return features, tf.reduce_sum(tf.square(features), 1), maps

    def backward(self, features: tf.Tensor, maps: Maps, delta: Outputs, kernel: tf.Tensor) -> None:
        """Find the deltas of the convolutions from the first dense layer's delta and kernel, [1, fan_out, fan_in]."""
        if self.layers:
            maps.deltas = maps.tape.gradient(
                features, maps.pre_activations, tf.matmul(delta.plain()[0], kernel[0], transpose_a=True)
            )

    def squared_norms(self, maps: Maps) -> list[tf.Tensor]:
        """|g_i|^2 of each example over all kernels and biases, float32 [1, batch], in a list.

        An empty one without convolutions.
        """
        biases, kernels = self._squared_norms(maps)
        return [tf.add_n(biases + kernels)[tf.newaxis]] if self.layers else []

    def layer_squared_norms(self, maps: Maps) -> list[tf.Tensor]:
        """|g_i|^2 of each example over the kernel and the bias of each convolution, float32 [1, batch] each."""
        return [(bias + kernel)[tf.newaxis] for bias, kernel in zip(*self._squared_norms(maps))]

    def inner(self, maps: Maps, direction: list[tf.Tensor]) -> list[tf.Tensor]:
        """<g_i, V> of each example with a direction V, of each convolution, float32 [1, batch] each.

        direction: [1, *kernel] of every kernel, then of every bias: a convolution with V, and its product with the
        deltas.
        """
        found, half = [], len(self.kernels)
        for kernel, bias, layer, delta, padding in zip(
            direction[:half], direction[half:], maps.inputs, maps.deltas, self._paddings()
        ):
            moved = tf.nn.bias_add(tf.nn.conv2d(layer, kernel[0], 1, padding), bias[0])
            found.append(tf.reduce_sum(moved * delta, [1, 2, 3])[tf.newaxis])
        return found

    def sums(self, maps: Maps, factors: list[tf.Tensor], equal: bool = False) -> list[tf.Tensor]:
        """The sums over the examples of factor_i g_i, of every kernel and then of every bias.

        factors: float32 [1, batch] for each convolution; equal: whether all of them are known to be one number.
        """
        kernels = []
        examples = maps.examples or [None] * len(self.kernels)
        for kernel, layer, delta, padding, gradients, factor in zip(
            self.kernels, maps.inputs, maps.deltas, self._paddings(), examples, factors
        ):
            if gradients is not None:
                flat = tf.reshape(gradients, [-1, tf.size(kernel)])
                kernels.append(tf.reshape(tf.matmul(factor, flat), [1, *kernel.shape[1:]]))
            else:
                scaled = delta if equal else delta * tf.reshape(factor, [-1, 1, 1, 1])
                total = tf.raw_ops.Conv2DBackpropFilter(
                    input=layer, filter_sizes=kernel.shape[1:], out_backprop=scaled, strides=[1] * 4, padding=padding
                )
                kernels.append((factor[0, 0] * total if equal else total)[tf.newaxis])
        return kernels + [
            tf.matmul(factor, tf.reduce_sum(delta, [1, 2])) for delta, factor in zip(maps.deltas, factors)
        ]

    def _forward(self, x: tf.Tensor, maps: Maps) -> tf.Tensor:
        values, active = tf.reshape(x, [-1, *self.shape]), True
        for layer, following in zip(self.layers, [*self.layers[1:], None]):
            if isinstance(layer, tf.keras.layers.MaxPool2D):
                values = tf.nn.max_pool2d(values, layer.pool_size, layer.strides, layer.padding.upper())
            else:
                kernel, bias = self.kernels[len(maps.inputs)][0], self.biases[len(maps.inputs)][0]
                maps.inputs.append(values)
                values, active = tf.nn.bias_add(tf.nn.conv2d(values, kernel, 1, layer.padding.upper()), bias), False
                maps.pre_activations.append(values)
            # the relu of what a pool leaves is what the pool leaves of the relu, with the same gradient, and less work
            if not active and not isinstance(following, tf.keras.layers.MaxPool2D):
                values, active = tf.nn.relu(values), True
        return tf.reshape(values, [-1, values.shape[1] * values.shape[2] * values.shape[3]])

    def _squared_norms(self, maps: Maps) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """|g_i|^2 of each example over each bias and over each kernel, float32 [batch] each; the kernels' examples'
        gradients are kept for the sums where they were formed.
        """
        if not maps.examples:
            maps.examples = [
                None if _gram_is_cheaper(kernel, delta) else example_gradients(layer, delta, kernel.shape[1:3], padding)
                for kernel, layer, delta, padding in zip(self.kernels, maps.inputs, maps.deltas, self._paddings())
            ]
        kernels = [
            gram_squared_norms(layer, delta, kernel.shape[1:3], padding)
            if gradients is None
            else tf.reduce_sum(tf.square(gradients), [1, 2, 3, 4])
            for kernel, layer, delta, padding, gradients in zip(
                self.kernels, maps.inputs, maps.deltas, self._paddings(), maps.examples
            )
        ]
        return [tf.reduce_sum(tf.square(tf.reduce_sum(delta, [1, 2])), 1) for delta in maps.deltas], kernels

    def _paddings(self) -> list[str]:
        """SAME or VALID for each convolution."""
        return [layer.padding.upper() for layer in self.layers if isinstance(layer, tf.keras.layers.Conv2D)]


def example_gradients(inputs: tf.Tensor, delta: tf.Tensor, size: tuple, padding: str) -> tf.Tensor:
    """A^T D of each example, float32 [batch, *size, channels, filters].

    inputs: [batch, height, width, channels]; delta: [batch, height', width', filters]; size: (height, width) of a
    filter.
    """
    height, width, filters = delta.shape[1:]
    channels = inputs.shape[3]
    if padding == "SAME":
        before = [(length - 1) // 2 for length in size]
        inputs = tf.pad(inputs, [[0, 0], *([first, length - 1 - first] for first, length in zip(before, size)), [0, 0]])
    columns = tf.reshape(delta, [-1, height * width, filters])
    shifted = [
        tf.reshape(inputs[:, row : row + height, column : column + width], [-1, height * width, channels])
        for row in range(size[0])
        for column in range(size[1])
    ]
    if channels == 1:
        products = tf.matmul(tf.stack([values[..., 0] for values in shifted], 1), columns)
    else:  # one for each place in the filter: shifted inputs stay in the cache, all of them would not
        products = tf.stack([tf.matmul(values, columns, transpose_a=True) for values in shifted], 1)
    return tf.reshape(products, [-1, *size, channels, filters])


def gram_squared_norms(inputs: tf.Tensor, delta: tf.Tensor, size: tuple, padding: str) -> tf.Tensor:
    """|A^T D|^2 = <A A^T, D D^T> of each example, float32 [batch]; arguments as in `example_gradients`."""
    unfolded = tf.image.extract_patches(inputs, [1, *size, 1], [1] * 4, [1] * 4, padding)
    places = delta.shape[1] * delta.shape[2]
    a, d = (tf.reshape(values, [-1, places, values.shape[3]]) for values in (unfolded, delta))
    return tf.reduce_sum(tf.matmul(a, a, transpose_b=True) * tf.matmul(d, d, transpose_b=True), [1, 2])


def _gram_is_cheaper(kernel: tf.Variable, delta: tf.Tensor) -> bool:
    """2 T^2 <= K P, for T places and K P weights."""
    return 2 * (delta.shape[1] * delta.shape[2]) ** 2 <= kernel.shape[1:].num_elements()
