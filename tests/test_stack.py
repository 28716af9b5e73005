"""The stack against independent references: per-example gradients of TensorFlow, TensorFlow Privacy's optimiser, plain
Keras.
"""

import math
import types
import weakref

import numpy as np
import pytest

from models import device

device.start()

import tensorflow as tf  # noqa: E402

from models import baselines, dense, minibatches, networks, outputs, stack, tfprivacy  # noqa: E402
from models.kinds.norms import clip  # noqa: E402
from models.noise import noise  # noqa: E402
from models.shaping import UNDEFENDED, Shaping  # noqa: E402
from models.trainer import Trainer, Training, training_accuracies  # noqa: E402

SHAPE = (6, 5, 1)


def toy(rows=70, poisons=20, classes=3, seed=0):
    """Random rows, the last ones poisons: x, y, is_poison."""
    random = np.random.default_rng(seed)
    x = random.random((rows, *SHAPE), np.float32)
    return x, random.integers(0, classes, rows).astype(np.int32), np.arange(rows) >= rows - poisons


def per_example_gradients(model, x, y):
    """Every example's gradient, [examples, *parameter] for each parameter, a pass each by tf.vectorized_map."""

    def gradients(example):
        with tf.GradientTape() as tape:
            logits = model(example[0][tf.newaxis])
            loss = tf.keras.losses.sparse_categorical_crossentropy(example[1][tf.newaxis], logits, from_logits=True)[0]
        return tape.gradient(loss, model.trainable_variables)

    return [values.numpy() for values in tf.vectorized_map(gradients, (tf.constant(x), tf.constant(y)))]


def clipped(gradients, clip_norm):
    """The examples' gradients, each scaled to a norm over all parameters of at most `clip_norm`, in float64."""
    norms = np.sqrt(sum((values.astype(np.float64) ** 2).reshape(len(values), -1).sum(1) for values in gradients))
    factors = np.minimum(1, clip_norm / norms)
    return [values * factors.reshape(-1, *[1] * (values.ndim - 1)) for values in gradients]


@pytest.mark.parametrize(("network", "classes"), [("lr", 3), ("lr", 12), ("shallow-mlp", 3), ("shallow-mlp", 12)])
def test_one_step_is_the_mean_of_clipped_per_example_gradients(network, classes):
    x, y, is_poison = toy(classes=classes)
    clip_norms = [math.inf, 0.1, 0.7, 1.5, 4.0, 100.0]
    weight = np.random.default_rng(1).integers(0, 2, (70, 6)).astype(np.float32)
    weight[:, :3] = 1
    model = networks.build(network, SHAPE, classes, 7)
    replicas = stack.Stack(model, [Shaping.clip(clip_norm) for clip_norm in clip_norms], "sgd", 1.0, 7)
    rows = minibatches.Rows.of(x, y, is_poison, 6, weight)
    replicas.train_epoch(rows, minibatches.shuffled(rows, 70, 7, 1))
    gradients = per_example_gradients(model, x, y)
    for replica, clip_norm in enumerate(clip_norms):
        seen = weight[:, replica] > 0
        for start, after, values in zip(model.get_weights(), replicas.weights(replica), clipped(gradients, clip_norm)):
            expected = values[seen].sum(0) / seen.sum()
            assert np.abs((start - after) - expected).max() < 1e-6
            assert np.abs((start - after) * seen.sum() - values[seen].sum(0)).max() < 1e-5 * max(
                1, np.abs(values[seen].sum(0)).max()
            )


def convolutional(name):
    """Networks with convolutions, on images of 10 x 9: the paper's.

    And others, in whose second convolution the Gram matrices are cheaper; one of them with many classes, and no hidden
    dense layer.
    """
    keras = tf.keras.layers
    if name == "badnet":
        return networks.build("badnet", (10, 9, 1), 3, 7)
    padding = "same" if name == "classes" else name
    layers = [
        keras.Conv2D(8, (3, 4), padding=padding, activation="relu"),
        keras.MaxPool2D(3, 2),
        keras.Conv2D(40, (2, 2), padding=padding, activation="relu"),
    ]
    tf.random.set_seed(5)
    dense_layers = [keras.Dense(12)] if name == "classes" else [keras.Dense(6, "relu"), keras.Dense(3)]
    return tf.keras.Sequential([keras.InputLayer((10, 9, 2)), *layers, keras.Flatten(), *dense_layers], name=padding)


@pytest.mark.parametrize("clip_norm", [math.inf, 0.05, 0.5, 100.0])
@pytest.mark.parametrize("name", ["badnet", "same", "valid", "classes"])
def test_a_convolutional_step_is_the_mean_of_clipped_per_example_gradients(name, clip_norm):
    model = convolutional(name)
    random = np.random.default_rng(3)
    x, y = random.random((40, *model.input_shape[1:]), np.float32), random.integers(0, 3, 40).astype(np.int32)
    weight = np.ones((40, 1), np.float32)
    weight[5] = 0
    rows = minibatches.Rows.of(x, y, np.arange(40) >= 30, 1, weight)
    replica = stack.Stack(model, [Shaping.clip(clip_norm)], "sgd", 1.0, 7)
    replica.train_epoch(rows, minibatches.shuffled(rows, 40, 7, 1))
    gradients = per_example_gradients(model, x, y)
    seen = weight[:, 0] > 0
    assert name == "badnet" or any(
        2 * layer.output_shape[1] ** 2 * layer.output_shape[2] ** 2 <= layer.kernel.shape.num_elements()
        for layer in model.layers[:3:2]
    )
    for start, after, values in zip(model.get_weights(), replica.weights(0), clipped(gradients, clip_norm)):
        assert np.abs((start - after) * seen.sum() - values[seen].sum(0)).max() < 1e-5 * max(
            1, np.abs(values[seen].sum(0)).max()
        )
    hits = replica.hits(rows.x, rows.y)
    model.set_weights(replica.weights(0))
    assert np.array_equal(hits[0], model.predict(x, verbose=0).argmax(1) == y)


@pytest.mark.parametrize(
    ("network", "optimizer", "rate"),
    [("lr", "adam", 0.01), ("shallow-mlp", "sgd", 0.04), ("shallow-mlp", "adam", 0.001)],
)
def test_an_epoch_agrees_with_tensorflow_privacy(network, optimizer, rate, subtask):
    x, y = subtask.x_train[:1000], subtask.y_train[:1000]  # 300 a batch: the last one is smaller
    is_poison = np.arange(1000) >= 900
    weight = np.ones((1000, 3), np.float32)
    weight[::3, 2] = 0
    shapings = [UNDEFENDED, Shaping.clip(0.5), Shaping.clip(4.0)]
    model = networks.build(network, subtask.shape, 2, 215)
    rows = minibatches.Rows.of(x, y, is_poison, 3, weight)
    ours, theirs = (
        engine(model, shapings, optimizer, rate, 215) for engine in (stack.Stack, tfprivacy.TensorFlowPrivacy)
    )
    for engine in (ours, theirs):
        engine.train_epoch(rows, minibatches.shuffled(rows, 300, 215, 1))
    for replica in range(3):
        for mine, reference in zip(ours.weights(replica), theirs.weights(replica)):
            assert np.abs(mine - reference).max() < 1e-4
    test = tf.constant(subtask.x_test.reshape(2000, -1)), tf.constant(subtask.y_test)
    assert np.abs(ours.hits(*test).mean(1) - theirs.hits(*test).mean(1)).max() <= 0.001


def test_full_epoch_of_the_papers_training_agrees_with_tensorflow_privacy(subtask):
    is_poison = np.zeros(10800, bool)
    model = networks.build("lr", subtask.shape, 2, 215)
    rows = minibatches.Rows.of(subtask.x_train, subtask.y_train, is_poison, 1)
    engines = [
        engine(model, [Shaping.clip(1.0)], "adam", 0.01, 215) for engine in (stack.Stack, tfprivacy.TensorFlowPrivacy)
    ]
    for engine in engines:
        engine.train_epoch(rows, minibatches.shuffled(rows, 300, 215, 1))
    for mine, reference in zip(*(engine.weights(0) for engine in engines)):
        assert np.abs(mine - reference).max() < 1e-4


@pytest.mark.parametrize("clip_norm", [math.inf, 0.5])
def test_an_epoch_with_convolutions_agrees_with_tensorflow_privacy(clip_norm, subtask):
    x, y = subtask.x_train[:250], subtask.y_train[:250]
    rows = minibatches.Rows.of(x, y, np.arange(250) >= 200, 1)
    model = networks.build("badnet", subtask.shape, 2, 215)
    engines = [
        engine(model, [Shaping.clip(clip_norm)], "sgd", 0.01, 215)
        for engine in (stack.Stack, tfprivacy.TensorFlowPrivacy)
    ]
    for engine in engines:
        engine.train_epoch(rows, minibatches.shuffled(rows, 100, 215, 1))
    for mine, reference, start in zip(*(engine.weights(0) for engine in engines), model.get_weights()):
        assert np.abs(mine - reference).max() < min(1e-4, 1e-3 * np.abs(mine - start).max())


def test_clip_weights_bound_the_norm():
    norms = np.array([[0.0, 1e-6, 0.5, 1.0, 2.0, 1e6]] * 3, np.float32)
    batch = types.SimpleNamespace(squared_norms=tf.constant(norms**2))
    weights = clip(batch, tf.constant([[1.0], [0.3], [math.inf]])).numpy()
    assert (weights * norms <= np.array([[1.0], [0.3], [math.inf]]) * (1 + 1e-6)).all()
    assert np.allclose(weights[0], [1, 1, 1, 1, 0.5, 1e-6], rtol=1e-6) and (weights[2] == 1).all()


def test_noise_is_standard_normal_and_independent():
    shape = (400, 250)
    draws = {
        (parameter, step): noise(shape, 215, parameter, tf.constant(step)).numpy().reshape(-1)
        for parameter in range(3)
        for step in range(3)
    }
    count = shape[0] * shape[1]
    for values in draws.values():
        assert abs(values.mean()) < 5 / math.sqrt(count) and abs(values.var() - 1) < 5 * math.sqrt(2 / count)
    values = list(draws.values())
    for first in range(len(values)):
        for second in range(first):
            assert abs(np.corrcoef(values[first], values[second])[0, 1]) < 5 / math.sqrt(count)
    rows = values[0].reshape(shape)
    assert abs(np.corrcoef(rows[:, :-1].reshape(-1), rows[:, 1:].reshape(-1))[0, 1]) < 5 / math.sqrt(count)
    assert np.array_equal(values[0], noise(shape, 215, 0, tf.constant(0)).numpy().reshape(-1))
    assert not np.array_equal(values[0], noise(shape, 216, 0, tf.constant(0)).numpy().reshape(-1))


def test_each_replica_adds_its_own_amount_of_noise():
    """Steps with a clip norm of nearly 0, so that a parameter's change is the noise alone: its scale, and its
    independence in training.
    """
    x, y, is_poison = toy()
    stds = [0.0, 0.5, 2.0]
    replicas = stack.Stack(
        networks.build("shallow-mlp", SHAPE, 3, 7), [Shaping.clip(1e-7, std) for std in stds], "sgd", 1.0, 7
    )
    rows = minibatches.Rows.of(x, y, is_poison, 3)
    changes = []
    for epoch in (1, 2):
        before = [replicas.weights(replica) for replica in range(3)]
        replicas.train_epoch(rows, minibatches.shuffled(rows, 70, 7, epoch))
        changes.append(
            [[(a - b) * 70 for a, b in zip(before[replica], replicas.weights(replica))] for replica in range(3)]
        )
    for step in changes:
        for values in step[0]:
            assert np.abs(values).max() < 1e-5
        for replica in (1, 2):
            for values in step[replica][::2]:  # the kernels: 7,680, 65,536 and 768 coordinates
                assert abs(values.std() / stds[replica] - 1) < 5 / math.sqrt(2 * values.size)
                assert abs(values.mean() / stds[replica]) < 5 / math.sqrt(values.size)
        assert np.allclose(step[1][2] / stds[1], step[2][2] / stds[2], atol=1e-3)  # one draw, scaled
    layers = [changes[step][2][layer].reshape(-1)[:768] for step in range(2) for layer in (0, 2, 4)]
    for first in range(len(layers)):
        for second in range(first):
            assert abs(np.corrcoef(layers[first], layers[second])[0, 1]) < 5 / math.sqrt(768)


def test_each_parameter_draws_noise_of_its_own():
    """Draws of one key begin alike whatever their shapes: in the stack's own order no two parameters' may."""
    x, y, is_poison = toy()
    model = networks.build("shallow-mlp", SHAPE, 3, 7)
    replica = stack.Stack(model, [Shaping.clip(1e-7, 1.0)], "sgd", 1.0, 7)
    rows = minibatches.Rows.of(x, y, is_poison, 1)
    replica.train_epoch(rows, minibatches.shuffled(rows, 70, 7, 1))
    draws = [(before - after).T.reshape(-1) for before, after in zip(model.get_weights(), replica.weights(0))]
    draws = [draw[:200] for draw in draws if draw.size >= 200]
    assert len(draws) == 5
    for first in range(5):
        for second in range(first):
            assert abs(np.corrcoef(draws[first], draws[second])[0, 1]) < 5 / math.sqrt(200)


@pytest.mark.parametrize("parameter", range(4))
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_replica_is_finite_where_all_its_weights_are(parameter, value):
    replicas = stack.Stack(networks.build("shallow-mlp", SHAPE, 3, 7), [UNDEFENDED] * 3, "sgd", 0.1, 7)
    assert replicas.finite().tolist() == [True] * 3
    weights = (replicas.kernels + replicas.biases)[parameter]
    values = weights.numpy()
    values[(1, *[-1] * (values.ndim - 1))] = value  # one number
    weights.assign(values)
    assert replicas.finite().tolist() == [True, False, True]


def test_accuracies_are_of_clean_rows_then_of_poisons():
    """A model of zeros takes every row for class 0; copies count, rows that are not seen do not."""
    x, _, _ = toy(6, 2)
    model = networks.build("lr", SHAPE, 3, 7)
    model.set_weights([np.zeros_like(values) for values in model.get_weights()])
    weight = np.array([[1, 1], [1, 2], [1, 0], [1, 1], [1, 3], [1, 0]], np.float32)
    rows = minibatches.Rows.of(x, [0, 0, 0, 1, 2, 0], np.arange(6) >= 4, 2, weight)
    engine = stack.Stack(model, [UNDEFENDED] * 2, "sgd", 0.1, 7)
    clean, poison = training_accuracies(engine, rows)
    assert clean.tolist() == [3 / 4, 3 / 4] and poison.tolist() == [1 / 2, 0]
    rows = minibatches.Rows.of(x, [0, 0, 0, 1, 2, 0], np.zeros(6, bool), 2, weight)
    assert np.isnan(training_accuracies(engine, rows)[1]).all()


def test_batches_hold_every_row_once_clean_rows_first():
    is_poison = np.random.default_rng(0).random(1010) < 0.3
    rows = minibatches.Rows.of(np.zeros((1010, 1), np.float32), np.zeros(1010), is_poison, 1)
    epoch = minibatches.shuffled(rows, 100, 215, 3)
    assert (
        sorted(epoch.order.tolist()) == list(range(1010))
        and len(epoch.clean) == 11
        and epoch.clean.sum() == (~is_poison).sum()
    )
    assert epoch.starts.tolist() == [*range(0, 1001, 100), 1010]
    for start, count in zip(epoch.starts, epoch.clean):
        chosen = is_poison[epoch.order[start : start + 100]]
        assert not chosen[:count].any() and chosen[count:].all()
    assert not np.array_equal(epoch.order, minibatches.shuffled(rows, 100, 215, 4).order)
    assert not np.array_equal(epoch.order, minibatches.shuffled(rows, 100, 216, 3).order)
    assert np.array_equal(epoch.order, minibatches.shuffled(rows, 100, 215, 3).order)


def test_replicas_with_poisons_of_their_own_see_the_batches_that_each_would_see_alone():
    """Two replicas, each with its own 30 poisons in the slots behind 100 clean rows: the same training as one after the
    other.
    """
    x, y, _ = toy(160, 60)
    own = [np.r_[:100, 100:130], np.r_[:100, 130:160]]
    model = networks.build("shallow-mlp", SHAPE, 3, 7)

    def train(x, y, is_poison, weight, slots):
        replicas = stack.Stack(model, [UNDEFENDED] * weight.shape[1], "sgd", 0.1, 7)
        rows = minibatches.Rows.of(x, y, is_poison, weight.shape[1], weight, slots)
        epoch = minibatches.shuffled(rows, 40, 7, 1)
        return replicas, replicas.train_epoch(rows, epoch, record=True), epoch

    weight = np.ones((160, 2), np.float32)
    weight[130:, 0] = weight[100:130, 1] = 0
    together, record, epoch = train(x, y, np.arange(160) >= 100, weight, np.r_[:130, 100:130])
    assert len(epoch.order) == 160 and len(epoch.clean) == 4
    for replica, rows in enumerate(own):
        alone, expected, its_epoch = train(
            x[rows], y[rows], np.arange(130) >= 100, np.ones((130, 1), np.float32), np.arange(130)
        )
        assert epoch.clean.tolist() == its_epoch.clean.tolist()
        seen = np.isin(epoch.order, rows)
        assert np.array_equal(epoch.order[seen], rows[its_epoch.order])
        for mine, reference in zip(together.weights(replica), alone.weights(0)):
            assert np.abs(mine - reference).max() < 1e-6
        assert (
            np.allclose(record.norms(replica)[seen], expected.norms(0), rtol=1e-4)
            and np.isnan(record.norms(replica)[~seen]).all()
        )
        for part in ("clean", "poison"):
            for mine, reference in zip(
                record.batch_means(replica, part, "kernel"), expected.batch_means(0, part, "kernel")
            ):
                assert np.allclose(mine, reference, atol=1e-6)


@pytest.mark.parametrize(("network", "classes"), [("lr", 3), ("lr", 12), ("shallow-mlp", 3)])
def test_record_is_what_per_example_gradients_say(network, classes):
    x, y, is_poison = toy(classes=classes)
    clip_norms = [math.inf, 0.5]
    model = networks.build(network, SHAPE, classes, 7)
    replicas = stack.Stack(model, [Shaping.clip(clip_norm) for clip_norm in clip_norms], "sgd", 0.0001, 7)
    weight = np.ones((70, 2), np.float32)
    weight[3, 1] = weight[69, 1] = 0
    rows = minibatches.Rows.of(x, y, is_poison, 2, weight)
    epoch = minibatches.shuffled(rows, 40, 7, 1)
    record = replicas.train_epoch(rows, epoch, record=True)
    gradients = per_example_gradients(model, x, y)  # the first batch is at these parameters
    kernel = gradients[-2].reshape(70, -1)
    first = epoch.order[:40]
    for replica, clip_norm in enumerate(clip_norms):
        seen = weight[first, replica] > 0
        shaped = clipped(gradients, clip_norm)
        for part, member in (("clean", ~is_poison[first]), ("poison", is_poison[first])):
            for parameter, values in (("kernel", shaped[-2]), ("bias", shaped[-1])):
                numbers, means = record.batch_means(replica, part, parameter)
                assert numbers[0] == 0 and np.abs(means[0] - values[first[member & seen]].mean(0)).max() < 1e-6
        norms = np.linalg.norm(kernel[first], axis=1)
        ours = record.norms(replica)[:40]
        assert np.allclose(ours[seen], norms[seen], rtol=1e-4) and np.isnan(ours[~seen]).all()
        mean = shaped[-2][first[~is_poison[first] & seen]].mean(0).reshape(-1)
        poisons = is_poison[first]
        expected = kernel[first][poisons] @ mean / (norms[poisons] * np.linalg.norm(mean))
        ours = record.cosines(replica)[: poisons.sum()]
        assert (
            np.allclose(ours[seen[poisons]], expected[seen[poisons]], atol=1e-4)
            and np.isnan(ours[~seen[poisons]]).all()
        )


def test_cosines_are_to_the_clean_rows_of_the_poisons_own_batch():
    """At a rate of nearly 0 all batches are at the first parameters, where single rows' gradients are known."""
    x, y, is_poison = toy()
    model = networks.build("lr", SHAPE, 3, 7)
    rows = minibatches.Rows.of(x, y, is_poison, 1)
    epoch = minibatches.shuffled(rows, 20, 7, 1)
    record = stack.Stack(model, [UNDEFENDED], "sgd", 1e-7, 7).train_epoch(rows, epoch, record=True)
    kernel, expected = per_example_gradients(model, x, y)[0].reshape(70, -1), []
    for first, last in zip(epoch.starts, epoch.starts[1:]):
        batch = epoch.order[first:last]
        mean = kernel[batch[~is_poison[batch]]].mean(0)
        expected += [row @ mean / np.linalg.norm(row) / np.linalg.norm(mean) for row in kernel[batch[is_poison[batch]]]]
    assert len(expected) == 20 and len(epoch.clean) == 4 and (epoch.clean < 20).all()
    assert np.allclose(record.cosines(0), expected, atol=1e-4)


def test_batches_without_poison_do_not_count_in_its_mean():
    x, y, is_poison = toy(poisons=1)
    replicas = stack.Stack(networks.build("lr", SHAPE, 3, 7), [UNDEFENDED], "sgd", 0.1, 7)
    rows = minibatches.Rows.of(x, y, is_poison, 1)
    epoch = minibatches.shuffled(rows, 10, 7, 1)
    record = replicas.train_epoch(rows, epoch, record=True)
    assert record.batch_means(0, "poison", "kernel")[0].tolist() == np.flatnonzero(epoch.clean < 10).tolist()
    assert len(record.batch_means(0, "clean", "kernel")[1]) == 7


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("poisons", [500, 3])  # some batches have none
def test_recording_changes_no_bit_and_reset_starts_anew(by_row, poisons, subtask, monkeypatch):
    if by_row:
        monkeypatch.setattr(dense, "FEW_CLASSES", 1)
    is_poison = np.arange(2000) >= 2000 - poisons
    shapings = [UNDEFENDED, *(Shaping.clip(clip_norm, std) for clip_norm in (0.1, 4.0) for std in (0.0, 0.1))]
    rows = minibatches.Rows.of(subtask.x_train[:2000], subtask.y_train[:2000], is_poison, 5)
    replicas = stack.Stack(networks.build("lr", subtask.shape, 2, 215), shapings, "adam", 0.01, 215)
    outcomes = []
    for record in (False, True, False):
        replicas.reset()
        for epoch in (1, 2):
            replicas.train_epoch(rows, minibatches.shuffled(rows, 300, 215, epoch), record)
        outcomes.append(
            np.concatenate([values.reshape(-1) for replica in range(5) for values in replicas.weights(replica)])
        )
    assert np.array_equal(outcomes[0], outcomes[1]) and np.array_equal(outcomes[0], outcomes[2])


def test_a_replica_does_what_it_does_alone(subtask):
    is_poison = np.zeros(1000, bool)
    shapings = [UNDEFENDED, Shaping.clip(0.1), Shaping.clip(1.0, 0.1), Shaping.clip(8.0, 0.001)]
    model = networks.build("lr", subtask.shape, 2, 215)
    outcomes = []
    for chosen in [shapings, *([one] for one in shapings)]:
        replicas = stack.Stack(model, chosen, "adam", 0.01, 215)
        rows = minibatches.Rows.of(subtask.x_train[:1000], subtask.y_train[:1000], is_poison, len(chosen))
        replicas.train_epoch(rows, minibatches.shuffled(rows, 300, 215, 1))
        outcomes += [replicas.weights(replica) for replica in range(len(chosen))]
    for together, alone in zip(outcomes[:4], outcomes[4:]):
        assert all(np.abs(a - b).max() < 1e-5 for a, b in zip(together, alone))


def test_hits_are_kerass_predictions(subtask, monkeypatch):
    monkeypatch.setattr(stack, "EVALUATION_ROWS", 300)
    model = networks.build("shallow-mlp", subtask.shape, 2, 3)
    replicas = stack.Stack(model, [UNDEFENDED], "sgd", 0.1, 3)
    hits = replicas.hits(tf.constant(subtask.x_test.reshape(2000, -1)), tf.constant(subtask.y_test))
    assert hits.shape == (1, 2000) and np.array_equal(
        hits[0], model.predict(subtask.x_test, verbose=0).argmax(1) == subtask.y_test
    )


@pytest.mark.parametrize("few_classes", [1, 10])
@pytest.mark.parametrize("rows", [1, 199, 200, 500])
def test_pieces_that_rows_are_looked_at_in_are_all_of_them(rows, few_classes, subtask, monkeypatch):
    """In pieces of one row, with one, two or none left over, and of more than there are."""
    monkeypatch.setattr(dense, "FEW_CLASSES", few_classes)
    monkeypatch.setattr(stack, "EVALUATION_ROWS", rows)
    count = 7 if rows == 1 else 400
    x, y = subtask.x_test[:count], subtask.y_test[:count]
    for left in (0, 1):
        flat, labels = x[left:].reshape(count - left, -1), y[left:]
        model = networks.build("lr", subtask.shape, 2, 3)
        replicas = stack.Stack(model, [UNDEFENDED] * 2, "sgd", 0.1, 3)
        expected = tf.nn.softmax(model(x[left:])).numpy()
        hits = expected.argmax(1) == labels
        assert np.array_equal(replicas.hits(tf.constant(flat), tf.constant(labels)), [hits, hits])
        assert np.array_equal(replicas.hits(tf.constant(flat), tf.constant(labels), 1), [hits])
        assert np.allclose(replicas.probabilities(flat), expected, atol=1e-6)
        assert np.allclose(replicas.probabilities(flat, 0), expected[np.newaxis], atol=1e-6)
        poison = np.arange(count - left) % 3 == 0
        counted = replicas.right(minibatches.Rows.of(flat, labels, poison, 2))
        assert counted.tolist() == [[hits[~poison].sum()] * 2, [hits[poison].sum()] * 2]


def plainly(logits, y):
    """Largest logits, softmax, losses and deltas in float64; logits: [replica, classes, batch]."""
    exponentials = np.exp(logits.astype(float) - logits.max(1, keepdims=True))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    losses = -np.log(probabilities[:, y, np.arange(len(y))])
    return logits.argmax(1), probabilities, losses, probabilities - np.eye(logits.shape[1])[:, y]


@pytest.mark.parametrize(("classes", "layout"), [(7, "Plain"), (12, "Plain"), (2, "Plain"), (7, "ByRow"), (2, "OfTwo")])
def test_outputs_are_the_same_in_every_layout(classes, layout):
    """Many logits are equal, some far apart; weighted and summed, in parts of the batch and of the replicas."""
    random = np.random.default_rng(5)
    logits = random.integers(-2, 3, (3, classes, 200)).astype(np.float32)
    logits[:, :, ::7] *= 40
    y, factor = random.integers(0, classes, 200).astype(np.int32), random.random((3, 200)).astype(np.float32)
    layer = random.random((200, 4)).astype(np.float32)
    values = {"Plain": logits, "ByRow": logits.transpose(2, 0, 1), "OfTwo": logits[:, 1] - logits[:, 0]}[layout]
    made = getattr(outputs, layout)(tf.constant(values))
    largest, probabilities, losses, deltas = plainly(logits, y)
    assert np.array_equal(made.largest(), largest)
    assert np.allclose(made.probabilities(), probabilities.transpose(2, 0, 1), atol=1e-6)
    assert np.allclose(made.losses(y), losses, rtol=1e-5, atol=1e-5)
    found = made.deltas(y)
    assert type(found) is type(made) and np.allclose(found.plain(), deltas, atol=1e-6)
    assert np.allclose(found.squares(), (deltas**2).sum(1), atol=1e-6)
    deltas = deltas[1:, :, 50:] * factor[1:, np.newaxis, 50:]
    part = found.weighted(factor).split([50, 150])[1].of_replicas(slice(1, None))
    kernel, bias = part.sums(layer[50:])
    kernel = part.replicas_first(kernel)
    assert np.allclose(kernel, deltas @ layer[50:], atol=1e-4) and np.allclose(bias, deltas.sum(2), atol=1e-4)


@pytest.mark.parametrize("count", [1, 2])
def test_right_ones_are_counted_as_often_as_a_replica_sees_them(count, subtask, monkeypatch):
    monkeypatch.setattr(stack, "EVALUATION_ROWS", 300)
    x, y, is_poison = subtask.x_train[:1000], subtask.y_train[:1000], np.arange(1000) >= 900
    weight = np.random.default_rng(3).integers(0, 4, (1000, count)).astype(np.float32)
    rows = minibatches.Rows.of(x, y, is_poison, count, weight)
    replicas = stack.Stack(
        networks.build("shallow-mlp", subtask.shape, 2, 3), [UNDEFENDED, Shaping.clip(1.0)][:count], "sgd", 0.1, 3
    )
    replicas.train_epoch(rows, minibatches.shuffled(rows, 100, 3, 1))
    seen = replicas.hits(rows.x, rows.y).T * weight
    assert np.array_equal(replicas.right(rows), [seen[~is_poison].sum(0), seen[is_poison].sum(0)])


@pytest.mark.parametrize(("network", "layers"), [("lr", 1), ("shallow-mlp", 3), ("badnet", 4)])
def test_networks_start_at_glorot_weights_of_a_seed_for_each_layer(network, layers):
    weights = networks.build(network, (8, 8, 1), 3, 7).get_weights()
    kernels, biases = weights[::2], weights[1::2]
    assert len(kernels) == layers and not any(bias.any() for bias in biases)
    for number, kernel in enumerate(kernels):
        assert np.array_equal(kernel, tf.keras.initializers.GlorotUniform(7 + number)(kernel.shape))


def test_a_network_that_the_stack_cannot_train_is_refused():
    model = tf.keras.Sequential(
        [tf.keras.layers.InputLayer((4,)), tf.keras.layers.Dense(3, "tanh"), tf.keras.layers.Dense(2)]
    )
    with pytest.raises(ValueError, match="relu"):
        stack.Stack(model, [UNDEFENDED], "sgd", 0.1, 3)
    layers = [tf.keras.layers.InputLayer(SHAPE), tf.keras.layers.Conv2D(2, 2, 2, activation="relu")]
    strided = tf.keras.Sequential([*layers, tf.keras.layers.Flatten(), tf.keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="stride 1"):
        stack.Stack(strided, [UNDEFENDED], "sgd", 0.1, 3)
    with pytest.raises(ValueError, match="stack of one"):
        stack.Stack(networks.build("badnet", SHAPE, 3, 7), [UNDEFENDED] * 2, "sgd", 0.1, 3)


# --- replicas that leave ---


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_replicas_that_are_kept_go_on_as_if_nothing_had_happened(optimizer):
    x, y, is_poison = toy()
    shapings = [UNDEFENDED, Shaping.clip(0.1), Shaping.clip(0.5, 0.2), Shaping.clip(4.0), Shaping.clip(0.1, 0.1)]
    weight = np.random.default_rng(3).integers(0, 2, (70, 5)).astype(np.float32)
    model, kept = networks.build("shallow-mlp", SHAPE, 3, 7), [4, 0, 2]
    whole, shrunk = (stack.Stack(model, shapings, optimizer, 0.01, 7) for _ in range(2))
    rows = minibatches.Rows.of(x, y, is_poison, 5, weight)
    orders = [minibatches.shuffled(rows, 20, 7, epoch) for epoch in (1, 2, 3)]
    for order in orders:
        whole.train_epoch(rows, order)
    shrunk.train_epoch(rows, orders[0])
    shrunk.keep(kept)
    left = rows.keep(kept)
    for order in orders[1:]:
        shrunk.train_epoch(left, order)
    assert shrunk.probabilities(rows.x).shape == (3, 70, 3)
    for place, replica in enumerate(kept):
        for ours, theirs in zip(shrunk.weights(place), whole.weights(replica)):
            assert np.allclose(ours, theirs, atol=1e-6)
    shrunk.reset()  # all of them are back
    for order in orders:
        shrunk.train_epoch(rows, order)
    for replica in range(5):
        assert all(
            np.array_equal(ours, theirs) for ours, theirs in zip(shrunk.weights(replica), whole.weights(replica))
        )


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_updates_are_those_of_the_legacy_keras_optimisers(optimizer):
    from models.optimizers import Optimizer

    random = np.random.default_rng(0)
    start = [random.normal(size=shape).astype(np.float32) for shape in ((2, 3, 4), (2, 3))]
    ours, theirs = ([tf.Variable(values) for values in start] for _ in range(2))
    stepper, keras = Optimizer(optimizer, 0.03, ours), networks.optimizer(optimizer, 0.03)
    for _ in range(5):
        gradients = [tf.constant(random.normal(size=values.shape), tf.float32) for values in start]
        stepper.apply(gradients)
        keras.apply_gradients(zip(gradients, theirs))
    for mine, other in zip(ours, theirs):
        assert np.array_equal(mine.numpy(), other.numpy())


def test_probabilities_are_the_models_softmax():
    x, _, _ = toy()
    model = networks.build("shallow-mlp", SHAPE, 3, 7)
    engine = stack.Stack(model, [UNDEFENDED] * 2, "sgd", 0.1, 7)
    expected = tf.nn.softmax(model(x)).numpy()
    assert all(np.allclose(values, expected, atol=1e-6) for values in engine.probabilities(x.reshape(70, -1)))


def test_what_is_left_over_can_join_the_last_batch():
    x, y, is_poison = toy()
    rows = minibatches.Rows.of(x, y, is_poison, 1)
    order = minibatches.shuffled(rows, 30, 7, 1, short_last=False)
    assert np.diff(order.starts).tolist() == [30, 40] and sorted(order.order) == list(range(70))
    assert np.diff(minibatches.shuffled(rows, 100, 7, 1, short_last=False).starts).tolist() == [70]


def test_engines_leave_the_memory_when_more_replicas_are_wanted_than_may_be_there(subtask):
    training = Training.published(subtask.name, "lr", epochs=1)
    first, second, third = (
        baselines.clean_cells(training, [Shaping.clip(clip_norm), Shaping.clip(2 * clip_norm)], None)
        for clip_norm in (1, 4, 16)
    )
    trainer = Trainer(training, subtask, most=4)
    engines = [weakref.ref(trainer.engine(group)) for group in (first, second, first)]
    assert all(engine() is not None for engine in engines) and engines[2]() is engines[0]()
    trainer.engine(third).train_epoch(trainer.rows(third), minibatches.shuffled(trainer.rows(third), 300, 215, 1))
    assert engines[0]() is None and engines[1]() is not None
