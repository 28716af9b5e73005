"""The attacks that know the gradient shaping, their prices, and how sets are crafted by their names."""

import dataclasses
import functools
import sys
import types

import numpy as np
import pandas as pd
import pytest
import shaping_oracle as oracle

import datasets
import price
from command_line import BadInput
from models import device, protocols
from models.later import tf
from models.shaping import shaping
from poisons import __main__ as command
from poisons import adversarial_flip, attacks, bad_models, crafting, model_targeted, point_search, poison_set, victims
from poisons import gradient_canceling as canceling
from poisons.steinhardt import slab_search
from results import layout

FEATURES = 12
OWN_ROWS = ["undefended", "clip:0.2", "auto-s:0.1", "phuber:2", "phuber:2+clip:0.3"]


def two_classes(rows=300, features=FEATURES, seed=0) -> datasets.Dataset:
    """A data set of two overlapping classes, called toy."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, 2 * rows).astype(np.int32)
    means = 0.5 + 0.15 * np.outer(2 * y - 1, np.linspace(1, -1, features))
    x = np.clip(random.normal(means, 0.2), 0, 1).astype(np.float32)
    return datasets.Dataset("toy", 2, (features,), x[:rows], y[:rows], x[rows:], y[rows:])


TOY = two_classes()


@pytest.fixture(autouse=True, scope="module")
def known_to_the_suite():
    """The data set has a protocol, and TensorFlow keeps the threads that it is started with here."""
    device.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(protocols.PROTOCOLS, ("toy", "lr"), protocols.Protocol("adam", 100, 20, 0.05, 0.05))
        patch.setattr(victims, "workers", lambda: 1)
        yield


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Calls a command with toy rows, in folders of the test's; returns what it printed."""
    monkeypatch.setattr(layout, "POISONS", tmp_path / "poisons")
    monkeypatch.setattr(layout, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(datasets, "load", lambda name: TOY)

    def called(main, *words) -> list[str]:
        monkeypatch.setattr(sys, "argv", [main.__module__, "--dataset", "toy", *words])
        main()
        return capsys.readouterr().out.split()

    return called


@functools.cache
def models_against(text: str) -> bad_models.Models:
    return bad_models.of(TOY, shaping(text), 1, ((None, 0.3), (0, 0.3), (None, 1.0)))


def by_rows(model: tuple, x, y, copies=None, places=None) -> oracle.Gradients:
    """The gradients of a logistic regression, row by row in float64; model: kernel, [classes, features], and bias."""
    x, (kernel, bias), each = np.asarray(x, float), model, np.arange(len(y))
    logits = x @ kernel.T.astype(float) + bias
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    deltas, losses = probabilities - np.eye(len(kernel))[y], -np.log(probabilities[each, y])
    copies, places = (np.ones(len(y)) if copies is None else copies), (each if places is None else places)
    return oracle.Gradients.of([deltas[:, :, np.newaxis] * x[:, np.newaxis], deltas], losses, copies, places)


def weighed(text: str, gradients: oracle.Gradients) -> tuple[np.ndarray, np.ndarray]:
    """w_i, float64 [rows, 1], and w_i g_i, of a shaping that weighs each row by itself."""
    weights = oracle.chain(text, gradients, oracle.first_states(text, 0))[0]
    return weights, weights * gradients.matrix


def stack_of(text: str, replicas: int) -> tuple:
    """A stack of victims at random parameters, and these."""
    engine, random = victims.stack_at(TOY, [shaping(text)] * replicas, 1), np.random.default_rng(3)
    kernels, biases = (random.normal(size=[replicas, *shape]).astype(np.float32) for shape in ((2, FEATURES), (2,)))
    engine.kernels[0].assign(kernels)
    engine.biases[0].assign(biases)
    return engine, list(zip(kernels, biases))


@pytest.mark.parametrize("text", [*OWN_ROWS, "median-of-means:5", "trimmed-mean:0.2:5"])
def test_the_shaped_sum_is_that_of_single_rows(text):
    (engine, models), random = stack_of(text, 2), np.random.default_rng(4)
    copies, places = random.integers(0, 3, (2, 40)), random.permutation(40).astype(np.int32)
    rows = TOY.x_train[:40], TOY.y_train[:40], copies.astype(np.float32), places
    sums, weights = canceling.flat(engine.shaped_sums(*rows)).numpy(), engine.shaped_weights(*rows)[0]
    for replica, model in enumerate(models):
        gradients = by_rows(model, *rows[:2], copies[replica], places)
        expected, mean, _ = oracle.chain(text, gradients, oracle.first_states(text, 0))
        assert np.abs(sums[replica] - mean * gradients.seen).max() < 1e-4
        if expected is not None:
            assert np.abs(weights[replica] - expected[:, 0]).max() < 1e-5
            assert text == "undefended" or expected.min() < 0.9  # else no weight was put to the test


@pytest.mark.parametrize("text", ["clip:0.2", "auto-s:0.1", "phuber:2", "phuber:2+clip:0.3"])
def test_shaped_sums_and_weights_have_the_slopes_of_finite_differences(text):
    (engine, [model]), random, y = stack_of(text, 1), np.random.default_rng(5), TOY.y_train[:6]
    along = random.normal(size=2 * FEATURES + 2), random.normal(size=6)

    def exact(x) -> np.ndarray:
        weights, rows = weighed(text, by_rows(model, x, y))
        return np.array([rows.sum(0) @ along[0], weights[:, 0] @ along[1]])

    x = tf.constant(TOY.x_train[:6])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        rows = x, y, tf.ones([1, 6]), tf.range(6)
        values = canceling.flat(engine.shaped_sums(*rows))[0], engine.shaped_weights(*rows)[0][0]
        values = [tf.reduce_sum(value * direction) for value, direction in zip(values, along)]
    slopes = np.array([tape.gradient(value, x).numpy() for value in values])
    for step in 1e-5 * np.eye(6 * FEATURES).reshape(-1, 6, FEATURES):
        expected = (exact(x.numpy() + step) - exact(x.numpy() - step)) / 2e-5
        assert np.abs(slopes[:, step > 0][:, 0] - expected).max() < 2e-3 * max(1, np.abs(expected).max())
    assert (np.abs(slopes).max((1, 2)) > 0.1).all()


def residuals(text: str, models: bad_models.Models, ratio: float, points, labels, shares) -> np.ndarray:
    """|clean + poisons| / |clean| at each model, row by row in float64."""
    (clean, count), found = victims.in_batch(TOY, ratio), []
    for *model, x, share in zip(models.kernels, models.biases, points, shares):
        whole = clean * weighed(text, by_rows(model, TOY.x_train, TOY.y_train))[1].mean(0)
        poisons = count * share @ weighed(text, by_rows(model, x, labels))[1]
        found.append(np.linalg.norm(whole + poisons) / np.linalg.norm(whole))
    return np.array(found)


@pytest.mark.parametrize("text", ["undefended", "clip:0.2", "phuber:2", "median-of-means:5"])
def test_poisons_above_the_price_cancel_under_the_shapings_own_weights(text):
    models, by = models_against(text), text if text in OWN_ROWS else "undefended"
    found = canceling.cancel(TOY, shaping(text), models, 0.4, 1, 600)
    assert found.points.min() >= 0 and found.points.max() <= 1 and found.points.shape == (len(models), 29, FEATURES)
    assert np.abs(found.shares.sum(1) - 1).max() < 1e-9 and found.shares.min() >= 0
    assert found.before.min() > 0.5 and found.after.max() < 0.01
    assert np.abs(residuals(by, models, 0.4, found.points, found.labels, found.shares) - found.after).max() < 1e-4
    if by != "undefended":  # the plain gradients of these poisons do not cancel
        assert residuals("undefended", models, 0.4, found.points, found.labels, found.shares).min() > 0.1
    for seed in range(5):  # nor does anything that nobody crafted
        random = victims.random_candidate(TOY, found.labels, seed)
        points, shares = ([value] * len(models) for value in (random.points, random.shares))
        assert residuals(by, models, 0.4, points, found.labels, shares).min() > 0.5


@pytest.mark.parametrize("text", ["undefended", "clip:0.2", "phuber:2"])
def test_below_the_price_no_poisons_cancel(text):
    """The residual is 1 - ratio / price at least, by the triangle inequality along the clean sum."""
    models, (clean, count) = models_against(text), victims.in_batch(TOY, 0.05)
    least = 1 - count / clean / canceling.prices(TOY, shaping(text), models, 1)
    assert 0.3 < least.max() < 1
    found, random = canceling.cancel(TOY, shaping(text), models, 0.05, 1, 400), np.random.default_rng(2)
    assert (found.after > least - 0.01).all() and (found.after < found.before).all()
    for _ in range(50):
        labels = random.integers(0, 2, count)
        points, shares = random.random((len(models), count, FEATURES)), random.dirichlet(np.ones(count), len(models))
        assert (residuals(text, models, 0.05, points, labels, shares) > least - 0.01).all()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("text", ["undefended", "clip:0.01", "phuber:2", "phuber:2+clip:0.3"])
def test_a_price_in_one_dimension_is_that_of_a_fine_grid(text, count):
    data, grid = two_classes(features=1), np.tile(np.linspace(0, 1, 2001), 2)[:, np.newaxis]
    model = np.array([[3.0], [-2.0]], np.float32), np.array([-1.0, 0.5], np.float32)  # of the wrong sign
    clean = weighed(text, by_rows(model, data.x_train, data.y_train))[1].mean(0)
    largest = (weighed(text, by_rows(model, grid, np.repeat([0, 1], 2001)))[1] @ -clean).max() / np.linalg.norm(clean)
    models = bad_models.Models(*(np.stack([values] * count) for values in model), ["wrong"] * count, np.zeros(count))
    assert canceling.prices(data, shaping(text), models, 1) == pytest.approx(np.linalg.norm(clean) / largest, rel=1e-3)


def test_prices_are_searched_for_once_where_a_shaping_has_one(call, tmp_path, monkeypatch):
    path, searched = tmp_path / "results/matrix/price.csv", []
    monkeypatch.setattr(
        price, "price", lambda data, one, found=price.price: searched.append(one.text) or found(data, one)
    )
    for given in ("undefended median-of-means:5", "0.1 epic:0.3:10:10", "0.1 undefended"):
        assert call(price.main, "--shaping", *given.split()) == [str(path)]
    table = pd.read_csv(path, dtype={"shaping": str}).set_index("shaping")
    assert searched == ["undefended", "median-of-means:5", "0.1", "epic:0.3:10:10"]
    assert list(table.index) == ["0.1", "epic:0.3:10:10", "median-of-means:5", "undefended"]  # by their names
    assert table.price.isna().tolist() == [False, True, True, False]
    assert (table.price.dropna() > 0.02).all() and (table.model_test_acc.dropna() < 0.85).all()
    path.write_text("dataset,price\n")
    with pytest.raises(BadInput, match="damaged"):
        call(price.main, "--shaping", "undefended")


@pytest.mark.parametrize("points", [1, 4, 50])
def test_the_copies_of_a_point_reach_every_micro_batch(points):
    candidates = [victims.Candidate(*some_points(points, seed)) for seed in (1, 2)]
    plain, parts = copies_of(candidates, "undefended")
    assert parts == 1
    dealt, parts = copies_of(candidates, "trimmed-mean:0.3:30")
    assert parts == max(1, -(-30 // points)) and (dealt == np.round(dealt)).all()
    assert (dealt.sum(3) == plain.sum(3)).all()  # the same copies in the same draws
    assert (dealt.max(3) - dealt.min(3)).max() <= 1  # as evenly as whole numbers go


def copies_of(candidates: list, text: str) -> tuple[np.ndarray, int]:
    """How many copies of each point a victim of a shaping sees, [candidates, draws, points, rows of a point]."""
    tried = victims.Victims(TOY, 0.4, [shaping(text)], len(candidates))
    rows, clean = tried.run(candidates, 7).rows, len(TOY.y_train)
    x, weight = rows.x.numpy(), rows.weight.numpy()
    assert (x[:clean] == TOY.x_train).all() and (weight[:clean] == 1).all()
    count = len(candidates[0].points)
    places = (victims.DRAWS, len(candidates), count, -1)
    x, weight = x[clean:].reshape(*places, x.shape[1]), weight[clean:].reshape(*places, len(candidates))
    for place, one in enumerate(candidates):
        assert (x[:, place] == one.points.astype(np.float32)[:, np.newaxis]).all()  # the rows of a point side by side
        assert not weight[:, place, ..., 1 - place].any()  # no candidate sees another's
    found = np.stack([weight[:, place, ..., place] for place in range(len(candidates))])
    return found, found.shape[3]


def some_points(count: int, seed: int) -> tuple:
    random = np.random.default_rng(seed)
    shares = random.random(count)
    return random.random((count, TOY.x_train.shape[1])), random.integers(2, size=count), shares / shares.sum()


@pytest.mark.parametrize("text", ["undefended", "phuber:2"])
def test_model_targeted_poisons_lead_a_victim_to_the_model(text):
    models = models_against(text)
    points, labels, needed = model_targeted.aim(TOY, shaping(text), models, 0.3, 1, 6)
    assert points.min() >= 0 and points.max() <= 1 and set(np.unique(labels)) <= {0, 1}
    aimed = [victims.Candidate(x, y, np.full(len(y), 1 / len(y))) for x, y in zip(points, labels)]
    random = [victims.random_candidate(TOY, y, 1) for y in labels]
    run = victims.Victims(TOY, 0.3, [shaping(text)], 2 * len(models)).run(aimed + random, 5)
    after = [run.engine.kernels[0].numpy() for _ in run.epochs(40)]
    assert len(after) == 40  # where SGD ends differs from epoch to epoch: the mean of the last ten
    kernels = np.mean(after[-10:], 0), np.tile(models.kernels, (2, 1, 1))
    ours, wanted = (values[:, 1] - values[:, 0] for values in kernels)
    near = (ours * wanted).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(wanted, axis=1)
    near, nearby = near[: len(models)], near[len(models) :]
    assert (near > nearby).all() and (near - nearby).mean() > 0.05, (near, nearby)
    if text == "undefended":
        reached = near > 0.95
        assert reached.sum() > 2 and (0.01 < needed[reached]).all() and (needed[reached] < 0.3).all(), (near, needed)
        assert (0.01 < needed).all() and (needed < 0.3).all(), needed


@pytest.mark.parametrize("ratio", [0.01, 0.4, 1.0])
def test_flips_are_those_of_the_rows_deepest_on_their_own_side(ratio):
    means = [TOY.x_train[TOY.y_train == label].astype(float).mean(0) for label in (0, 1)]
    to_mean = [((TOY.x_train - mean) ** 2).sum(1) for mean in means]
    depth = np.where(TOY.y_train == 1, to_mean[0] - to_mean[1], to_mean[1] - to_mean[0])
    poisons, again = (adversarial_flip.craft(TOY, ratio) for _ in range(2))
    assert len(poisons.rows) == len(set(poisons.rows.tolist())) == round(300 * ratio)
    assert (poisons.labels == 1 - TOY.y_train[poisons.rows]).all() and np.array_equal(poisons.rows, again.rows)
    assert np.allclose(depth[poisons.rows], np.sort(depth)[::-1][: len(poisons.rows)])
    for name in ("adversarial-flips", "gradient-canceling", "model-targeted"):
        with pytest.raises(BadInput, match=f"--dataset toy: {name} cannot poison it: it has 10 classes, not two"):
            list(crafting.craft(attacks()[name], dataclasses.replace(TOY, classes=10), [{"ratio": ratio}]))


def test_what_hurts_most_is_chosen_by_clean_rows_alone():
    flips = adversarial_flip.craft(TOY, 0.1).rows
    x, labels = TOY.x_train[flips], np.stack([TOY.y_train[flips], 1 - TOY.y_train[flips]])
    given = shaping("undefended"), 0.5, np.stack([x, x]), np.full((2, len(flips)), 1 / len(flips)), labels, 1
    others = dataclasses.replace(TOY, y_test=1 - TOY.y_test)
    tried, exchanged = (victims.try_on(data, *given) for data in (TOY, others))
    assert tried.best == exchanged.best == 1 and np.array_equal(tried.clean_accuracies, exchanged.clean_accuracies)
    assert tried.clean_accuracies[1] < tried.clean_accuracies[0] - 0.05 and len(tried.candidates) == 3
    assert np.allclose(tried.test_accuracies + exchanged.test_accuracies, 1)
    assert dataclasses.replace(tried, clean_accuracies=np.array([0.5, 0.4, 0.1])).best == 1  # the last is random
    assert victims.counts(np.array([0.5, 0.3, 0.2]), 7).tolist() == [4, 2, 1]
    assert victims.counts(np.full(4, 0.25), 6).tolist() == [2, 2, 1, 1]


def test_the_best_of_all_restarts_and_steps_is_found():
    """A bowl for each replica, lower for the other label: its top is in the box, or out of it in a corner."""
    tops = np.stack([np.linspace(0.2, 0.7, FEATURES), np.linspace(-2, 3, FEATURES)]).astype(np.float32)
    wanted = np.array([1, 0])

    def value(points, labels):
        away = tf.reduce_sum(tf.square(points - tops[:, np.newaxis]), 2)
        return -away - tf.where(labels == wanted[:, np.newaxis], 0.0, 0.5)

    engine = types.SimpleNamespace(shapings=[None] * 2)
    search = point_search.PointSearch(TOY, engine, value, False, 3)
    points, labels, values = search.best(steps=300, rate=0.02)
    assert labels.tolist() == wanted.tolist() and np.abs(points - np.clip(tops, 0, 1)).max() < 0.02
    assert np.allclose(values, -((points - tops) ** 2).sum(1), atol=1e-5)
    start = search.best(steps=1)  # the restarts themselves: no other of them is better
    random = np.random.default_rng([3, 3])
    random.integers(len(TOY.x_train), size=(2, 10))
    drawn = TOY.x_train[random.integers(len(TOY.x_train), size=(2, 10))]
    assert np.allclose(start[2], value(drawn, np.tile(np.arange(10) % 2, (2, 1))).numpy().max(1), atol=1e-5)


def test_victims_see_other_batches_in_every_epoch():
    tried = victims.Victims(TOY, 0.4, [shaping("undefended")], 1)
    run = tried.run([victims.Candidate(*some_points(4, 1))], 7)
    size, seen = round(100 / 1.4), []
    for epoch in (1, 2):
        batches = run.batches(run.rows, epoch=epoch)
        parts = [batches.order[first:last] for first, last in zip(batches.starts, batches.starts[1:])]
        assert len(parts) == 300 // size and all(len(part) == size + 4 for part in parts)
        clean = np.concatenate([part[:size] for part in parts])
        assert (batches.clean == size).all() and len(set(clean)) == len(clean) and clean.max() < 300
        for part in parts:
            assert (part[size:] >= 300).all() and (np.diff(part[size:]) == 1).all() and (part[size] - 300) % 4 == 0
        seen.append(batches.order)
        assert np.abs(np.diff(clean)).mean() > 50  # in no order: neighbours are a third of all rows apart
    assert not np.array_equal(*seen)


def test_slabs_of_ones_own_victim_are_searched_for_with_that_victim(monkeypatch, call):
    data, asked, own = two_classes(features=48), [], victims.Victims
    monkeypatch.setattr(slab_search, "POOL_ITERATIONS", 3)
    monkeypatch.setattr(victims, "Victims", lambda *given: (asked.append(given[2]), own(*given))[1])
    options = {"epsilon": 0.3, "generations": 1, "shaping": "phuber:2"}
    [(path, _)] = crafting.craft(attacks()["slabs-own"], data, [options])
    poisons = poison_set.load(path, data)
    assert {value.text for given in asked for value in given} == {"phuber:2"} == {poisons.settings["shaping"]}
    assert len(poisons.y) == 90 and len(np.unique(poisons.x, axis=0)) <= 4


def test_ascent_begins_at_the_model_of_clean_rows(monkeypatch):
    """Of each shaping the models of two flips, 0 and 1, and, last, of the clean rows, 2."""
    made, begun = [[np.full(shape, number) for number in range(3)] for shape in ((2, FEATURES), (2,))], []
    monkeypatch.setattr(bad_models, "_flipped", lambda *_: made)
    monkeypatch.setattr(bad_models, "_ascended", lambda data, *model: begun.append(model) or (model[0] + 7, model[1]))
    models = bad_models.of(TOY, shaping("clip:0.2"), 1, ((None, 0.3), (1, 0.2)))
    assert len(begun) == 1 and (begun[0][0] == 2).all() and (begun[0][1] == 2).all()
    assert models.kernels[:, 0, 0].tolist() == [0, 1, 0, 1, 9] and models.biases[:, 0].tolist() == [0, 1, 0, 1, 2]
    flips = ["flips of both classes; 0.3", "flips of class 1; 0.2"]
    expected = [f"{text}; {flip}" for text in ("undefended", "0.2") for flip in flips]
    assert models.names == [*expected, "0.2; ascent to 0.9"]


@pytest.mark.parametrize(("text", "known"), [("undefended", {"poisons_needed": 0.3}), ("clip:0.2", {})])
def test_a_bound_on_the_poisons_needed_is_said_of_undefended_victims_alone(text, known, monkeypatch):
    models = types.SimpleNamespace(names=["first", "second"])
    monkeypatch.setattr(bad_models, "of", lambda *_: models)
    monkeypatch.setattr(model_targeted, "aim", lambda *_: (np.zeros((2, 5, 3)), None, np.array([0.1, 0.3])))
    monkeypatch.setattr(victims, "try_on", lambda *given: types.SimpleNamespace(best=1, given=given))
    monkeypatch.setattr(
        victims, "poisons", lambda data, ratio, models, tried, measured, notes: (tried, measured, notes)
    )
    tried, measured, notes = model_targeted.craft(TOY, 0.4, text, 7, 2)
    assert measured == known and notes == ["aims at second"] and (tried.given[4] == 0.2).all()


def test_sets_are_printed_in_order_and_written_once(call, tmp_path):
    words = "none adversarial-flips:0.1 gradient-canceling:0.4 label-flips:0.1 none".split()
    given = ["--sets", *words, "--against", "phuber:2", "undefended", "--seed", "3"]
    printed = call(command.main, *given)
    names = "adversarial-flips_0.1 gradient-canceling_0.4_shaping_phuber_2 gradient-canceling_0.4 random_0.1_seed_3"
    assert [path.split("/toy_")[-1] for path in printed] == ["none", *(f"{name}.npz" for name in names.split())]
    found = [poison_set.load(path, TOY) for path in printed[1:]]
    told = [(poisons.settings.get("shaping"), len(poisons.y)) for poisons in found]
    assert told == [(None, 30), ("phuber:2", 120), ("undefended", 120), (None, 30)]
    files = sorted((tmp_path / "poisons").rglob("*.npz"))
    before, times = [path.read_bytes() for path in files], [path.stat().st_mtime_ns for path in files]
    assert call(command.main, *given) == printed and [path.stat().st_mtime_ns for path in files] == times
    for path in files:
        path.unlink()
    assert call(command.main, *given) == printed and [path.read_bytes() for path in files] == before
    table = pd.read_csv(tmp_path / "results/ipoisoning/gradient-canceling/crafting.csv")
    assert (table.residual_after < 0.01).all() and (table.victim_test_acc < table.random_test_acc).all()


def test_the_help_names_all_attacks_by_their_names(call, capsys):
    with pytest.raises(SystemExit):
        call(command.main, "--help")
    told = "".join(capsys.readouterr().out.split())  # a help breaks lines, at hyphens, too
    for swept in (True, False):
        names = sorted(attack.name for attack in attacks().values() if attack.swept or not swept)
        assert f"of{','.join(names)}" in told


def test_sets_that_know_no_shaping_ignore_against_and_one_spelled_twice_is_one_set(call):
    alone = call(command.main, "--sets", "adversarial-flips:0.1")
    assert call(command.main, "--sets", "none", "adversarial-flips:0.1", "--against", "1", "phuber:2")[1:] == alone
    assert command.sets("slabs:0.4", ["phuber:2"], 3) == [(attacks()["slabs"], {"epsilon": 0.4})]
    chosen = command.sets("gradient-canceling:0.1", ["phuber:2", "phuber:2.0", "clip:1", "1"], 3)
    assert [options["shaping"] for _, options in chosen] == ["phuber:2", "1"]


def test_sets_are_crafted_without_a_picture_and_alone_with_one(call, tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    x, y = random.random((200, 6, 5, 1), np.float32), (np.arange(200) % 10).astype(np.int32)
    images = datasets.Dataset("toy", 10, (6, 5, 1), x, y, x, y)
    monkeypatch.setattr(datasets, "load", lambda name: images)
    monkeypatch.setattr(layout, "BACKDOORS", tmp_path / "backdoors")
    monkeypatch.setattr(layout, "ANALYSIS", tmp_path / "analysis")
    [path] = call(command.main, "--sets", "insertion:2", "--seed", "3")
    poisons = poison_set.load(path, images)
    assert len(poisons.y) == 2 and not list(tmp_path.rglob("*.png"))
    crafting.show(attacks()["insertion"], images, [{"patch": 2, "ratio": 0.02}])
    assert len(list((tmp_path / "analysis").rglob("*.png"))) == 1


@pytest.mark.parametrize(
    ("words", "named", "mend"),
    [
        ("--sets foo:0.1", "--sets foo:0.1: no attack is called 'foo'", "label-flips"),
        ("--sets label-flips", "--sets label-flips: ''", "give the ratio behind"),
        ("--sets gradient-canceling:0.1 --against foo", "--sets gradient-canceling:0.1: 'foo'", "undefended"),
        ("--sets gradient-canceling:0.1 --against phuber", "lacks tau", "shapings --against"),
        ("--sets adversarial-flips:0.001", "--ratio 0.001: less than one poison among 300", "a larger one"),
        ("--sets none --attack label-flips --ratio 0.1", "--attack", "or else --sets"),
    ],
)
def test_wrong_sets_are_refused_before_anything_is_written(words, named, mend, call, tmp_path, capsys):
    good = ["--sets", "none", "adversarial-flips:0.1"] if words.startswith("--sets") else []
    with pytest.raises(BadInput) as refusal:
        call(command.main, *good, *words.split()[bool(good) :])
    assert named in str(refusal.value) and mend in str(refusal.value)
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""


def test_a_kept_set_that_knows_no_shaping_is_not_crafted_again(monkeypatch, subtask):
    monkeypatch.setattr(crafting, "_call", None)  # what would craft it
    [(path, notes)] = crafting.craft(attacks()["slabs"], subtask, [{"epsilon": 0.4}])
    assert notes == ["crafted before"] and "shaping" not in poison_set.settings_of(path)
