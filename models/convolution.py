"""The convolutions and max pools before a network's first dense layer, for a stack of one replica.

As in a dense layer, all of it follows from the layers' inputs and deltas. Unfold an example's input to A [T, K], for each of the
T places the K values that a filter sees there, and write its delta as D [T, P], a column a filter: the example's gradient is
A^T D [K, P], its bias's the sum of D over the places. The norm comes from the cheaper of the gradient itself and the Gram matrices,
|A^T D|^2 = <A A^T, D D^T>, which are cheaper iff 2 T^2 <= K P (Bu, Mao and Xu 2022, "mixed ghost clipping"). Where the gradients are
formed, the clipped sum is a weighted sum of them; elsewhere, and without clipping, it is TensorFlow's filter gradient of the scaled deltas.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Front:
    """What a Keras model has before its first dense layer.

    shape: of one example, (height, width, channels); layers: the Keras Conv2D (stride 1, relu) and MaxPool2D layers in order, of
    which only the settings are read; kernels: a variable for each Conv2D, float32 [1, height, width, channels, filters]; biases: [1, filters].
    """

    shape: tuple
    layers: list
    kernels: list[tf.Variable]
    biases: list[tf.Variable]

    def forward(self, x: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """The features that the first dense layer sees, [batch, fan_in], and the convolutions' inputs and pre-activations; x: [batch, features]."""
        values = tf.reshape(x, [-1, *self.shape])
        inputs, pre_activations = [], []
        for layer in self.layers:
            if isinstance(layer, tf.keras.layers.MaxPool2D):
                values = tf.nn.max_pool2d(values, layer.pool_size, layer.strides, layer.padding.upper())
                continue
            kernel, bias = self.kernels[len(inputs)][0], self.biases[len(inputs)][0]
            inputs.append(values)
            pre_activations.append(tf.nn.bias_add(tf.nn.conv2d(values, kernel, 1, layer.padding.upper()), bias))
            values = tf.nn.relu(pre_activations[-1])
        return tf.reshape(values, [-1, values.shape[1] * values.shape[2] * values.shape[3]]), inputs, pre_activations

    def example_gradients(self, inputs: list[tf.Tensor], deltas: list[tf.Tensor]) -> list[tf.Tensor | None]:
        """Every example's gradient of each kernel, [batch, height, width, channels, filters]; None where its norm takes less work without."""
        return [
            None if _gram_is_cheaper(kernel, delta) else example_gradients(layer, delta, kernel.shape[1:3], padding)
            for kernel, layer, delta, padding in zip(self.kernels, inputs, deltas, self._paddings())
        ]

    def squared_norms(self, inputs: list[tf.Tensor], deltas: list[tf.Tensor], examples: list[tf.Tensor | None]) -> tf.Tensor:
        """|g_i|^2 of each example over all kernels and biases, float32 [batch]; examples: what `example_gradients` returned."""
        squared = [tf.reduce_sum(tf.square(tf.reduce_sum(delta, [1, 2])), 1) for delta in deltas]
        for kernel, layer, delta, padding, gradients in zip(self.kernels, inputs, deltas, self._paddings(), examples):
            if gradients is None:
                squared.append(gram_squared_norms(layer, delta, kernel.shape[1:3], padding))
            else:
                squared.append(tf.reduce_sum(tf.square(gradients), [1, 2, 3, 4]))
        return tf.add_n(squared)

    def sums(
        self, inputs: list[tf.Tensor], deltas: list[tf.Tensor], factors: tf.Tensor, examples: list[tf.Tensor | None] | None = None
    ) -> list[tf.Tensor]:
        """The sums over the examples of factor_i g_i, of every kernel and then of every bias; factors: float32 [1, batch]."""
        kernels = []
        for index, (kernel, layer, delta, padding) in enumerate(zip(self.kernels, inputs, deltas, self._paddings())):
            if examples is not None and examples[index] is not None:
                flat = tf.reshape(examples[index], [-1, tf.size(kernel)])
                kernels.append(tf.reshape(tf.matmul(factors, flat), kernel.shape))
            else:
                scaled = delta * tf.reshape(factors, [-1, 1, 1, 1])
                total = tf.raw_ops.Conv2DBackpropFilter(
                    input=layer, filter_sizes=kernel.shape[1:], out_backprop=scaled, strides=[1] * 4, padding=padding
                )
                kernels.append(total[tf.newaxis])
        return kernels + [tf.matmul(factors, tf.reduce_sum(delta, [1, 2])) for delta in deltas]

    def _paddings(self) -> list[str]:
        """SAME or VALID for each convolution."""
        return [layer.padding.upper() for layer in self.layers if isinstance(layer, tf.keras.layers.Conv2D)]


def example_gradients(inputs: tf.Tensor, delta: tf.Tensor, size: tuple, padding: str) -> tf.Tensor:
    """A^T D of each example, float32 [batch, *size, channels, filters].

    inputs: [batch, height, width, channels]; delta: [batch, height', width', filters]; size: (height, width) of a filter.
    """
    height, width, filters = delta.shape[1:]
    channels = inputs.shape[3]
    if padding == "SAME":
        before = [(length - 1) // 2 for length in size]
        inputs = tf.pad(inputs, [[0, 0], *([first, length - 1 - first] for first, length in zip(before, size)), [0, 0]])
    columns = tf.reshape(delta, [-1, height * width, filters])
    products = []  # one for each place in the filter: shifted inputs stay in the cache, unfolded ones would not
    for row in range(size[0]):
        for column in range(size[1]):
            shifted = tf.reshape(inputs[:, row : row + height, column : column + width], [-1, height * width, channels])
            products.append(tf.matmul(shifted, columns, transpose_a=True))
    return tf.reshape(tf.stack(products, 1), [-1, *size, channels, filters])


def gram_squared_norms(inputs: tf.Tensor, delta: tf.Tensor, size: tuple, padding: str) -> tf.Tensor:
    """|A^T D|^2 = <A A^T, D D^T> of each example, float32 [batch]; arguments as in `example_gradients`."""
    unfolded = tf.image.extract_patches(inputs, [1, *size, 1], [1] * 4, [1] * 4, padding)
    places = delta.shape[1] * delta.shape[2]
    a, d = (tf.reshape(values, [-1, places, values.shape[3]]) for values in (unfolded, delta))
    return tf.reduce_sum(tf.matmul(a, a, transpose_b=True) * tf.matmul(d, d, transpose_b=True), [1, 2])


def _gram_is_cheaper(kernel: tf.Variable, delta: tf.Tensor) -> bool:
    """2 T^2 <= K P, for T places and K P weights."""
    return 2 * (delta.shape[1] * delta.shape[2]) ** 2 <= kernel.shape.num_elements()
