"""A stack: many replicas of one network, trained at once on the same mini-batches.

Replicas differ in their gradient shaping and in which rows they see, and how often; they share the data, its order, the
initial weights and the noise draw, which each scales for itself. The first layer of all replicas is then one matrix
product. A single training is a stack of one.

Per-example clipping needs no per-example gradient (book-keeping). For a dense layer with input a_i and delta d_i (the
loss's gradient at the pre-activation) example i has the gradient a_i d_i^T, of norm |a_i| |d_i| (Goodfellow 2015), its
bias d_i; the clipped sum is A^T diag(c) D. The deltas of the one backward pass serve the norms, the clipped sum and the
gradient record. Convolutions (`models.convolution`) may stand before the dense layers of a stack of one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from models.batch import Batch, Direction
from models.convolution import Front
from models.dense import along, backward, dense_layers, forward, product, replica_axes, split
from models.groups import Group
from models.minibatches import Batches, Record, Rows
from models.noise import noise
from models.optimizers import Optimizer
from models.shaping import UNDEFENDED, Shaping

EVALUATION_ROWS = 1024  # rows a product when accuracies are computed: they stay in a core's cache
CONVOLUTION_ROWS = 512  # likewise, where a row has feature maps
LONG_BEGUN = 2**20  # an epoch behind all that is counted in epochs


class Stack:
    """Replicas of a Keras model, one for each `Shaping`, all starting from the model's weights.

    A dense kernel is kept as [replica, fan_out, fan_in] and the activations as [replica, units, batch], so that z = W a
    reads as on paper and the replicas of the first layer, whose input they share, lie side by side as one matrix
    [replica * fan_out, fan_in]. An only layer with many classes has another layout (`axes`). The number of replicas is
    no part of a variable's shape, so that `keep` can drop some without tracing the epoch anew.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        shapings: list[Shaping],
        optimizer: str,
        learning_rate: float,
        seed: int,
        trusted: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        """trusted: rows and labels, float32 [rows, ...] and int [rows], for shapings that compare with such."""
        self.shapings, self.seed = list(shapings), seed
        self.replicas = list(range(len(shapings)))  # those that are still here
        front, dense = dense_layers(model)
        if front and len(shapings) > 1:
            raise ValueError(f"{model.name}: convolutions train in a stack of one, not of {len(shapings)}")
        self.axes = replica_axes(dense, len(model.weights))
        self.initial = self._replicated(model)
        self.parameters = [
            tf.Variable(values, shape=[None if place == axis else size for place, size in enumerate(values.shape)])
            for values, axis in zip(self.initial, self.axes)
        ]
        self.kernels, self.biases = self.parameters[: len(dense)], self.parameters[len(dense) : 2 * len(dense)]
        convolutions = self.parameters[2 * len(dense) :]
        half = len(convolutions) // 2
        self.front = Front(model.input_shape[1:], front, convolutions[:half], convolutions[half:])
        self.rows_a_product = CONVOLUTION_ROWS if front else EVALUATION_ROWS
        self.optimizer = Optimizer(optimizer, learning_rate, self.parameters)
        shapes = [values.shape[1:] for values in self._replicas_first(self.initial)]
        self.groups = [
            Group(list(members), shapes) for _, members in itertools.groupby(shapings, lambda one: one.structure)
        ]
        self.trusted = self._trusted_rows(trusted)
        self.noise_stds = tf.Variable(tf.zeros([len(shapings)]), shape=[None])
        self._set_noise(1)
        self.weighs = any(shaping.links != UNDEFENDED.links for shaping in shapings)
        self.adds_noise = any(phase.noise_std > 0 for shaping in shapings for phase in shaping.phases)
        self.traced = {}

    def reset(self, model: tf.keras.Model | None = None) -> None:
        """Go back to all replicas' initial weights, or start from those of another model of the network, with a fresh
        optimiser; the traced epoch is kept.
        """
        if model is not None:
            self.initial = self._replicated(model)
        for parameter, value in zip(self.parameters, self.initial):
            parameter.assign(value)
        for group in self.groups:
            group.reset()
        self.replicas = list(range(len(self.shapings)))
        self._set_noise(1)
        self.optimizer.reset()

    def keep(self, replicas: Sequence[int]) -> None:
        """Go on with these replicas only, numbered from 0 in the order given, until the next reset.

        Rows must follow (`Rows.keep`).
        """
        if len(self.groups) > 1 and list(replicas) != sorted(set(replicas)):
            raise ValueError("replicas of several kinds must be kept in ascending order")
        for values, axis in zip((*self.parameters, *self.optimizer.moments), itertools.cycle(self.axes)):
            values.assign(tf.gather(values, replicas, axis=axis))
        self.noise_stds.assign(tf.gather(self.noise_stds, replicas))
        self.replicas = [self.replicas[replica] for replica in replicas]
        first = 0
        for group in self.groups:
            count = int(group.count)
            group.keep([replica - first for replica in replicas if first <= replica < first + count])
            first += count

    def train_epoch(self, rows: Rows, epoch: Batches, record: bool = False) -> Record | None:
        """Train every replica for one epoch over the batches that `batches` made.

        With `record`, return what the gradients were.
        """
        self._begin(rows, epoch)
        phases = tuple(group.phase(epoch.number) for group in self.groups)
        key = phases, rows.copies, rows.ones, record
        recorded = self._traced(key)(*self._arrays(rows, epoch), *key)
        if not record:
            return None
        *sums, squared_norms, inner_products = (values.numpy() for values in recorded)
        names = ("clean_kernel", "poison_kernel", "clean_bias", "poison_bias")
        return Record(rows, epoch, dict(zip(names, sums)), squared_norms, inner_products)

    def weights_of_first_batch(self, rows: Rows, epoch: Batches) -> list[np.ndarray]:
        """The weights that the shapings give the rows of an epoch's first batch, in its order, without training.

        Float32 [replica, batch] for each layer, the dense ones and then the convolutions; 1 where a shaping weighs no
        rows.
        """
        kept = [(values, values.numpy()) for group in self.groups for term in group.terms for values in term.memories]
        self._begin(rows, epoch)
        x, y, weight, squared_norms, order, starts, _, places, number = self._arrays(rows, epoch)
        part = order[: starts[1]]
        arrays = (tf.gather(values, part) for values in (x, y, squared_norms, weight))
        x, y, squared_norms, weight = arrays
        batch = self._look(x, y, tf.transpose(weight), squared_norms)
        batch.places, batch.rows, batch.epoch = places[: starts[1]], part, number
        weights, _ = self._shape(batch, tuple(group.phase(epoch.number) for group in self.groups))
        for values, before in kept:
            values.assign(before)
        return [values.numpy() for values in batch.by_layer(weights)]

    def shaped_sums(self, x: tf.Tensor, y: tf.Tensor, weight: tf.Tensor, places: tf.Tensor) -> Direction:
        """The sum of w_i g_i over the rows of one batch as a step of the last phase makes it, without noise; one can
        differentiate it with respect to x.

        x: float32 [batch, features]; y: int32 [batch]; weight: float32 [replica, batch], how often a row counts for a
        replica; places: int32 [batch], by which rows are dealt out to micro-batches.
        """
        batch, weights, instead = self._shaped(x, y, weight, places)
        sums = batch.total(weights)
        return self._replaced(sums, instead, tf.ones_like(batch.count)) if instead else sums

    def shaped_weights(self, x: tf.Tensor, y: tf.Tensor, weight: tf.Tensor, places: tf.Tensor) -> list[tf.Tensor]:
        """The weights of these rows, [replica, batch] for each layer, as in `shaped_sums`."""
        batch, weights, _ = self._shaped(x, y, weight, places)
        return batch.by_layer(weights * tf.ones_like(weight) if isinstance(weights, float) else weights)

    def _shaped(self, x, y, weight, places):
        batch = self._look(x, y, weight, tf.reduce_sum(tf.square(x), 1))
        batch.places, batch.epoch = places, LONG_BEGUN
        if not self.weighs:
            return batch, 1.0, None
        return batch, *self._shape(batch, tuple(len(group.phases) - 1 for group in self.groups))

    def hits(self, x: tf.Tensor, y: tf.Tensor, replica: int | None = None) -> np.ndarray:
        """Which rows each replica classifies correctly: bool [replica, rows], of one replica [1, rows].

        x: float32 [rows, features]; y: int32 [rows].
        """
        return self._hits(x, y, None if replica is None else tf.constant(replica)).numpy()

    def right(self, rows: Rows) -> np.ndarray:
        """How many of the clean rows and of the poisons that each replica sees it classifies correctly, float64 [2,
        replica]; copies count.
        """
        poison = tf.constant(rows.is_poison, tf.float32)
        return self._right(rows.x, rows.y, rows.weight, poison).numpy().astype(np.float64)

    def probabilities(self, x: tf.Tensor, replica: int | None = None) -> np.ndarray:
        """The softmax outputs of each replica, float32 [replica, rows, classes], or of one; x: float32 [rows,
        features].
        """
        return self._probabilities(x, None if replica is None else tf.constant(replica)).numpy()

    def finite(self) -> np.ndarray:
        """Which replicas have numbers for weights, bool [replica]: one that has not has diverged.

        None meets another's numbers.
        """
        return self._finite().numpy()

    def weights(self, replica: int) -> list[np.ndarray]:
        """The weights of one replica, as a Keras model of the network takes them."""
        convolutions = zip(self.front.kernels, self.front.biases)
        weights = [values[replica].numpy() for pair in convolutions for values in pair]
        kernels, biases = self._parameters_of(replica)
        for kernel, bias in zip(self._replicas_first(kernels), biases):
            weights += [kernel[0].numpy().T, bias[0].numpy()]
        return weights

    def _replicated(self, model: tf.keras.Model) -> list[np.ndarray]:
        """A model's kernels and biases as this stack keeps them, every replica's the same: those of the dense layers,
        then of the convolutions.
        """
        front, dense = dense_layers(model)
        convolutions = [layer for layer in front if isinstance(layer, tf.keras.layers.Conv2D)]
        values = [layer.kernel.numpy().T for layer in dense] + [layer.bias.numpy() for layer in dense]
        values += [layer.kernel.numpy() for layer in convolutions] + [layer.bias.numpy() for layer in convolutions]
        values = [np.stack([value] * len(self.shapings)) for value in values]
        return [np.moveaxis(value, 2, 0) if axis else value for value, axis in zip(values, self.axes)]

    def _replicas_first(self, values: list) -> list:
        """The parameters, or the first of them, as [replica, *parameter], kernels as [replica, fan_out, fan_in]."""
        return [tf.transpose(value, [1, 2, 0]) if axis else value for value, axis in zip(values, self.axes)]

    def _trusted_rows(self, given: tuple[np.ndarray, np.ndarray] | None) -> tuple | None:
        """As many trusted rows as any shaping asks for: x, labels, |x|^2 and how often they count, 1 each."""
        wanted = [
            int(link.values[link.kind.trusted_rows])
            for shaping in self.shapings
            for link in shaping.links
            if link.kind.trusted_rows
        ]
        if not wanted:
            return None
        if given is None or len(given[1]) < max(wanted):
            raise ValueError(f"{max(wanted)} trusted rows are asked for")
        x = tf.constant(np.reshape(given[0][: max(wanted)], [max(wanted), -1]), tf.float32)
        return x, tf.constant(given[1][: max(wanted)], tf.int32), tf.reduce_sum(tf.square(x), 1)

    def _set_noise(self, epoch: int) -> None:
        """The noise of the phase of each replica that an epoch lies in."""
        stds, first = [], 0
        for group in self.groups:
            phase = group.phase(epoch)
            stds += [self.shapings[first + place].phases[phase].noise_std for place in range(group.initial)]
            first += group.initial
        self.noise_stds.assign([stds[replica] for replica in self.replicas])

    def _begin(self, rows: Rows, epoch: Batches) -> None:
        """What lies between epochs: another phase, kinds that look at all rows."""
        if any(len(group.phases) > 1 for group in self.groups):
            self._set_noise(epoch.number)
        first = 0
        for group in self.groups:
            group.begin(epoch.number, rows, first, lambda replica: self.probabilities(rows.x, replica)[0])
            first += int(group.count)

    def _arrays(self, rows: Rows, epoch: Batches) -> tuple:
        """What `_epoch` takes of the rows and of an epoch."""
        arrays = (epoch.order, epoch.starts, epoch.clean, epoch.places, np.int32(epoch.number))
        return rows.x, rows.y, rows.weight, rows.squared_norms, *map(tf.constant, arrays)

    # Without AutoGraph, which would rewrite every function that is called, for a second or two of each command
    @tf.function(reduce_retracing=True, autograph=False)
    def _hits(self, x, y, replica):
        parameters = self._parameters_of(replica)

        def of_rows(part):
            return tf.transpose(self._logits(x[part], *parameters).largest() == y[part])

        return tf.transpose(self._by_pieces(tf.size(y), tf.bool, of_rows))

    @tf.function(reduce_retracing=True, autograph=False)
    def _right(self, x, y, weight, poison):
        rows = self.rows_a_product

        def count(piece, counts):  # float32 counts exactly as far as 2 ** 24
            part = slice(piece * rows, (piece + 1) * rows)
            hits = self._logits(x[part], self.kernels, self.biases).largest() == y[part]
            seen = tf.cast(hits, tf.float32) * tf.transpose(weight[part])
            kinds = 1.0 - poison[part], poison[part]
            return piece + 1, counts + tf.stack([tf.linalg.matvec(seen, kind) for kind in kinds])

        shapes, pieces = (tf.TensorShape([]), tf.TensorShape([2, None])), (tf.size(y) + rows - 1) // rows
        start = tf.constant(0), tf.zeros([2, tf.shape(weight)[1]])
        return tf.while_loop(lambda piece, _: piece < pieces, count, start, shapes)[1]

    @tf.function(autograph=False)
    def _finite(self):
        finite = [
            tf.reduce_all(tf.math.is_finite(values), [place for place in range(values.shape.rank) if place != axis])
            for values, axis in zip(self.kernels + self.biases, self.axes)
        ]
        return tf.reduce_all(finite, 0)

    @tf.function(reduce_retracing=True, autograph=False)
    def _probabilities(self, x, replica):
        parameters = self._parameters_of(replica)

        def of_rows(part):
            return self._logits(x[part], *parameters).probabilities()

        return tf.transpose(self._by_pieces(tf.shape(x)[0], tf.float32, of_rows), [1, 0, 2])

    def _by_pieces(self, count, dtype, of_rows):
        """What `of_rows` makes of each piece of the rows, all in a line; called with slices."""
        rows = self.rows_a_product
        pieces = (count + rows - 1) // rows

        def look(piece, found):
            return piece + 1, found.write(piece, of_rows(slice(piece * rows, (piece + 1) * rows)))

        found = tf.TensorArray(dtype, pieces, infer_shape=False)
        return tf.while_loop(lambda piece, _: piece < pieces, look, (tf.constant(0), found))[1].concat()

    def _parameters_of(self, replica):
        """The kernels and biases of the dense layers, of one replica or, with None, of all."""
        if replica is None:
            return self.kernels, self.biases
        return self._parameters_at(slice(replica, replica + 1))

    def _parameters_at(self, replicas: slice) -> tuple[list, list]:
        """The kernels and biases of the dense layers of some replicas."""
        layers = len(self.kernels)
        some = [
            values[:, replicas] if axis else values[replicas]
            for values, axis in zip(self.parameters[: 2 * layers], self.axes)
        ]
        return some[:layers], some[layers:]

    def _logits(self, x, kernels, biases):
        return forward(self.front.features(x), kernels, biases)[1]

    def _traced(self, key: tuple) -> Callable:
        """`_epoch`, traced once for rows and batches of any number: it takes seconds where a stack has many kinds.

        key: its last arguments, (phases, copies, ones, record), with which it is called, too.
        """
        if key not in self.traced:
            x = tf.TensorSpec([None, int(np.prod(self.front.shape))])
            weight, each, whole = tf.TensorSpec([None, None]), tf.TensorSpec([None]), tf.TensorSpec([None], tf.int32)
            arrays = x, whole, weight, each, whole, whole, whole, whole, tf.TensorSpec([], tf.int32)
            self.traced[key] = self._epoch.get_concrete_function(*arrays, *key)
        return self.traced[key]

    @tf.function(autograph=False)
    def _epoch(self, x, y, weight, squared_norms, order, starts, clean, places, number, phases, copies, ones, record):
        steps, sizes = tf.size(clean), starts[1:] - starts[:-1]
        y, squared_norms = tf.gather(y, order), tf.gather(squared_norms, order)
        weight = tf.transpose(tf.gather(weight, order))

        def step_on(step, arrays):
            # a step of a small network takes as long as it has operations: tf.slice is one, x[a:b] four
            first, size = tf.gather(starts, [step]), tf.gather(sizes, [step])
            rows = tf.slice(order, first, size)
            counts = tf.slice(weight, tf.concat([[0], first], 0), tf.concat([[-1], size], 0))
            labels, squares = tf.slice(y, first, size), tf.slice(squared_norms, first, size)
            batch = self._look(tf.gather(x, rows), labels, counts, squares)
            batch.rows, batch.places, batch.epoch = rows, tf.slice(places, first, size), number
            batch.copies, batch.ones = copies, ones
            recorded = self._step(batch, tf.gather(clean, step), phases, record)
            return step + 1, [array.write(step, values) for array, values in zip(arrays, recorded)]

        arrays = [tf.TensorArray(tf.float32, steps, infer_shape=False) for _ in range(6 if record else 0)]
        _, arrays = tf.while_loop(lambda step, _: step < steps, step_on, (tf.constant(0), arrays))
        return [array.stack() for array in arrays[:4]] + [array.concat() for array in arrays[4:]]

    def _look(self, x, y, weight, squared_norms, replicas=None):
        """Forward and backward: what a step, and a shaping, sees of a batch.

        x: [batch, features]; y: [batch]; weight: [replica, batch]; squared_norms: [batch], |x|^2; replicas: a slice.
        """
        kernels, biases = (self.kernels, self.biases) if replicas is None else self._parameters_at(replicas)
        features, squared_features, maps = self.front.forward(x, squared_norms)
        inputs, logits = forward(features, kernels, biases)
        deltas = backward(inputs, logits, kernels, y)
        self.front.backward(features, maps, deltas[0], self._replicas_first(kernels)[0])
        return Batch(self.front, maps, squared_features, inputs, logits, deltas, weight, y)

    def _step(self, batch, clean, phases, record):
        """One step on a batch whose first `clean` rows are clean: weights, weighted sums, noise, update."""
        inputs, deltas, weight = batch.inputs, batch.deltas, batch.weight
        weights, instead = self._shape(batch, phases) if self.weighs else (None, None)
        # The weights are divided by the number of examples, not the sums: those are often more numbers
        share = 1.0 / tf.maximum(tf.reduce_sum(weight, 1, keepdims=True), 1.0)
        factors = [factor * share for factor in batch.counted(1.0 if weights is None else weights)]
        shaped = [delta.weighted(factor) for delta, factor in zip(deltas, factors)]

        # The last layer's sum is made of its clean and its poison part, recorded or not, so recording changes no bit of
        # a training.
        counts = tf.stack([clean, tf.size(batch.labels) - clean])

        def parts():
            return [delta.sums(layer) for delta, layer in zip(shaped[-1].split(counts), split(inputs[-1], counts))]

        def of_both(parts):
            return tuple(one + other for one, other in zip(*parts))

        if record:
            recorded = parts()
            last = of_both(recorded)
        else:
            last = tf.cond(counts[1] > 0, lambda: of_both(parts()), lambda: shaped[-1].sums(inputs[-1]))
        kernels, biases = zip(*(delta.sums(layer) for delta, layer in zip(shaped[:-1], inputs)), last)
        sums = [*kernels, *biases, *self.front.sums(batch.maps, factors[len(deltas) :], weights is None and batch.ones)]
        if instead:
            sums = self._replaced(self._replicas_first(sums), instead, share)
            sums = [tf.transpose(total, [2, 0, 1]) if axis else total for total, axis in zip(sums, self.axes)]
        if self.adds_noise:
            sums = [
                total + along(self.noise_stds * share[:, 0], total, axis) * self._noise(index, total.shape)
                for index, (total, axis) in enumerate(zip(sums, self.axes))
            ]
        self.optimizer.apply(sums)
        if not record:
            return []
        (clean_kernel, clean_bias), (poison_kernel, poison_bias) = (
            [total / along(share, total) for total in (deltas[-1].replicas_first(kernel), bias)]
            for kernel, bias in recorded
        )
        inner = product(clean_kernel, split(inputs[-1], counts)[1]) * deltas[-1].split(counts)[1].plain()
        squared = batch.squared_inputs[-1] * batch.squared_deltas[-1]
        rows = [tf.transpose(squared), tf.transpose(tf.reduce_sum(inner, 1))]
        return [clean_kernel, poison_kernel, clean_bias, poison_bias, *rows]

    def _noise(self, index, shape):
        """A parameter's draw for this step, one for all replicas; shape: the parameter's."""
        axis = self.axes[index]
        shape = [size for place, size in enumerate(shape) if place != axis]
        return tf.expand_dims(noise(shape, self.seed, index, self.optimizer.steps), axis)

    def _shape(self, batch, phases):
        """The weights of the examples by their replica's shaping, [replica, batch] or one of these for each layer, and
        by group what stands instead of the weighted sums, None where nothing does. Each group sees its own part.
        """
        found, first = [], 0
        for group, phase in zip(self.groups, phases):
            replicas = slice(first, first + group.count)
            mine = batch if len(self.groups) == 1 else batch.part(replicas)
            if any(term.kind.trusted_rows for term in group.phases[phase][1]):
                x, y, squared_norms = self.trusted
                counts = tf.ones([tf.shape(mine.weight)[0], len(y)])
                mine.trusted = self._look(x, y, counts, squared_norms, None if mine is batch else replicas)
            found.append(group.shape(mine, phase))
            first += group.count
        weights, instead = zip(*found)
        if len(found) == 1:
            return weights[0], None if instead[0] is None else instead
        instead = instead if any(sums is not None for sums in instead) else None
        if any(isinstance(one, list) for one in weights):
            return [tf.concat(layer, 0) for layer in zip(*map(batch.by_layer, weights))], instead
        return tf.concat(weights, 0), instead

    def _replaced(self, sums: Direction, instead: list[Direction | None], share: tf.Tensor) -> Direction:
        """The weighted sums, and in their place those of the groups that have their own, times share, [replica, 1]."""
        parts, first = [], 0
        for group, own in zip(self.groups, instead):
            replicas = slice(first, first + group.count)
            if own is None:
                parts.append([total[replicas] for total in sums])
            else:
                parts.append([total * along(share[replicas], total) for total in own])
            first += group.count
        return [tf.concat(values, 0) for values in zip(*parts)]
