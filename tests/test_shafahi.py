"""Clean-label poisons: the descent against an independent solver, the files, and what is refused."""

import dataclasses
import types

import numpy as np
import pytest
import scipy.optimize
from conftest import REPOSITORY, refused

from command_line import BadInput
from models import device

device.start()

from models import networks  # noqa: E402
from poisons import poison_set, shafahi  # noqa: E402
from results import layout  # noqa: E402

CRAFT = ("python3", "-m", "poisons.shafahi", "--network", "lr")
BUDGET = shafahi.Budget(poisons=12)


@pytest.fixture(scope="module")
def model():
    return networks.build("lr", (100,), 100, 215)


def victim_of(model, name="a_model", sha256="0" * 64):
    return types.SimpleNamespace(model=model, name=name, sha256=sha256)


@pytest.mark.parametrize(("beta", "watermark"), [(0.1, 0.0), (0.5, 0.0), (0.5, 0.3)])
def test_descent_reaches_the_optimum_that_a_bounded_quasi_newton_method_finds(beta, watermark, model, purchases):
    target, base = purchases.x_test[2], purchases.x_train[purchases.y_train == 4][:5]
    kernel = model.layers[-1].kernel.numpy().astype(np.float64)
    budget = dataclasses.replace(BUDGET, beta=beta, watermark=watermark)
    poisons, distances = shafahi.Crafter(model).craft(target, base, budget)
    assert poisons.dtype == np.float32 and poisons.min() >= 0 and poisons.max() <= 1
    assert np.allclose(distances, np.linalg.norm((poisons - target) @ kernel, axis=1), rtol=1e-3, atol=1e-4)
    for poison, row in zip(poisons, base):
        start = (1 - watermark) * row.astype(np.float64) + watermark * target

        def objective(p, start=start):
            difference, moved = (p - target) @ kernel, p - start
            return difference @ difference + beta * moved @ moved, 2 * kernel @ difference + 2 * beta * moved

        optimum = scipy.optimize.minimize(
            objective, start, jac=True, bounds=[(0, 1)] * 100, options={"maxiter": 5000, "ftol": 1e-15}
        )
        assert objective(poison.astype(np.float64))[0] <= optimum.fun * (1 + 1e-4) + 1e-7


@pytest.mark.parametrize(("radius", "beta"), [(0.5, 0.0), (2.1, 0.0), (1.0, 0.5)])
def test_descent_within_a_radius_reaches_the_optimum_of_sequential_quadratic_programs(radius, beta, model, purchases):
    target, base = purchases.x_test[2], purchases.x_train[purchases.y_train == 4][:5]
    kernel = model.layers[-1].kernel.numpy().astype(np.float64)
    budget = dataclasses.replace(shafahi.DOSED, radius=radius, beta=beta)
    poisons, _ = shafahi.Crafter(model).craft(target, base, budget)
    moved = np.linalg.norm(poisons - base, axis=1)
    assert poisons.min() >= 0 and poisons.max() <= 1 and moved.max() <= radius * (1 + 1e-5)
    assert moved.min() >= radius * 0.999  # none of these can reach the target
    for poison, row in zip(poisons, base.astype(np.float64)):

        def objective(p, row=row):
            return np.sum(((p - target) @ kernel) ** 2) + beta * np.sum((p - row) ** 2)

        def gradient(p, row=row):
            return 2 * kernel @ ((p - target) @ kernel) + 2 * beta * (p - row)

        ball = {
            "type": "ineq",
            "fun": lambda p, row=row: radius**2 - np.sum((p - row) ** 2),
            "jac": lambda p, row=row: 2 * (row - p),
        }
        optimum = scipy.optimize.minimize(
            objective, row, jac=gradient, bounds=[(0, 1)] * 100, constraints=ball, method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-10},
        )  # fmt: skip
        assert objective(poison.astype(np.float64)) == pytest.approx(optimum.fun, rel=1e-4)


def test_features_are_the_layer_before_the_last_and_a_logistic_regressions_logits(model):
    assert shafahi.Crafter(model).features.output_shape == (None, 100)
    assert shafahi.Crafter(networks.build("shallow-mlp", (100,), 7, 215)).features.output_shape == (None, 256)


def test_poisons_of_a_network_with_hidden_layers_collide_with_the_target(purchases):
    network = networks.build("shallow-mlp", (100,), 100, 215)
    base = purchases.x_train[purchases.y_train == 4][:10]
    crafter = shafahi.Crafter(network)
    poisons, distances = crafter.craft(purchases.x_test[2], base, dataclasses.replace(BUDGET, beta=0.001))
    before = np.linalg.norm(crafter.features(base) - crafter.features(purchases.x_test[2:3]), axis=1)
    after = np.linalg.norm(crafter.features(poisons) - crafter.features(purchases.x_test[2:3]), axis=1)
    assert np.allclose(after, distances, rtol=1e-3) and (after < before / 5).all()


def test_file_holds_accepted_poisons_the_nearest_first(model, purchases, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "POISONS", tmp_path)
    crafter, victim = shafahi.Crafter(model), victim_of(model)
    path, crafted = shafahi.poison_files(crafter, purchases, "lr", victim, 2, (3, 4), [BUDGET])[0]
    poisons = poison_set.load(path, purchases)
    distances = poisons.settings["distances"]
    assert crafted and len(poisons.y) == 12 and (poisons.y == 4).all() and distances == sorted(distances)
    assert not shafahi.poison_files(crafter, purchases, "lr", victim, 2, (3, 4), [BUDGET])[0][1]
    strict = dataclasses.replace(BUDGET, feature_distance=distances[5])
    path, _ = shafahi.poison_files(crafter, purchases, "lr", victim, 2, (3, 4), [strict])[0]
    assert np.array_equal(poison_set.load(path, purchases).x, poisons.x[:6])


def test_a_file_says_how_far_poisons_moved_where_they_may_not_move_at_will(model, purchases, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "POISONS", tmp_path)
    crafter, victim = shafahi.Crafter(model), victim_of(model)
    budgets = [dataclasses.replace(shafahi.DOSED, radius=radius, poisons=3) for radius in (0.5, 2.0)]
    goal, base = purchases.x_test[2], purchases.x_train[purchases.y_train == 4]
    for budget, (path, _) in zip(budgets, shafahi.poison_files(crafter, purchases, "lr", victim, 2, (3, 4), budgets)):
        poisons = poison_set.load(path, purchases)
        for x, moved, way, at_first in zip(
            poisons.x, *(poisons.settings[name] for name in ("moved", "ways", "base_distances"))
        ):
            row = base[np.linalg.norm(base - x, axis=1).argmin()]
            assert moved == pytest.approx(np.linalg.norm(x - row), rel=1e-5) and moved <= budget.radius * (1 + 1e-5)
            assert way == pytest.approx(np.linalg.norm(goal - row), rel=1e-5)
            assert at_first == pytest.approx(crafter.distances(goal, row[np.newaxis])[0], rel=1e-5)
    path, _ = shafahi.poison_files(crafter, purchases, "lr", victim, 2, (3, 4), [BUDGET])[0]
    assert not {"moved", "ways", "base_distances"} & set(poison_set.load(path, purchases).settings)
    assert (shafahi.Budget().name, shafahi.DOSED.name) == ("0.1_2000_3.5_100_1e-10", "0.0_2000_1000000.0_10_1e-10")


def test_refuses_when_no_poison_comes_near(model, purchases, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "POISONS", tmp_path)
    crafter, strict = shafahi.Crafter(model), dataclasses.replace(BUDGET, feature_distance=1e-9)
    with pytest.raises(BadInput, match="feature distance 1e-09"):
        shafahi.poison_files(crafter, purchases, "lr", victim_of(model), 2, (3, 4), [strict])[0]
    assert not list(tmp_path.rglob("*.npz"))


def test_file_that_was_crafted_against_another_model_is_refused(model, purchases, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "POISONS", tmp_path)
    crafter = shafahi.Crafter(model)
    path, _ = shafahi.poison_files(crafter, purchases, "lr", victim_of(model), 2, (3, 4), [BUDGET])[0]
    before = path.read_bytes()
    other = victim_of(model, sha256="1" * 64)  # a model of the same name that was trained anew
    with pytest.raises(BadInput, match="model_sha256") as refusal:
        shafahi.poison_files(crafter, purchases, "lr", other, 2, (3, 4), [BUDGET])[0]
    assert str(path) in str(refusal.value)
    assert path.read_bytes() == before


def test_damaged_file_is_crafted_again(model, purchases, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "POISONS", tmp_path)
    crafter = shafahi.Crafter(model)
    path, _ = shafahi.poison_files(crafter, purchases, "lr", victim_of(model), 2, (3, 4), [BUDGET])[0]
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2])
    assert shafahi.poison_files(crafter, purchases, "lr", victim_of(model), 2, (3, 4), [BUDGET])[0][1]
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "names", "says"),
    [
        (["--target", "10000"], "--target 10000", "rows 0 to 9999"),
        (["--target", "0"], "--target 0", "not of the victim class 3"),
        (["--target", "-1"], "--target", "0 or more"),
        (["--target", "2", "--poisons", "500"], "--poisons 500", "training rows"),
        (["--target", "2", "--poisons", "0"], "--poisons", "1 or more"),
        (["--target", "2", "--beta", "-1"], "--beta", "0 or more"),
        (["--target", "2", "--watermark", "1.5"], "--watermark", "0 to 1"),
        (["--target", "2", "--radius", "0"], "--radius", "above 0"),
        (["--target", "2", "--feature-distance", "0"], "--feature-distance", "above 0"),
        (["--target", "2", "--target-class", "3"], "--wanted-class 3", "own class"),
        (["--target", "2", "--shaping", "0"], "--shaping", "clip norm"),
        (["--target", "2", "--shaping", "4:-1"], "--shaping", "clip norm"),
        (["--target", "2", "--network", "badnet"], "--network", "badnet"),
        (["--target", "2", "--dataset", "subtask"], "--victim-class 3", "classes 0 to 1"),
        (["--target", "2", "--dataset", "mnist"], "--dataset mnist", "purchases"),
        (["--target", "2", "--dataset", "fashion_mnist"], "--network lr", "shallow-mlp"),
        ([], "--target", "required"),
    ],
)
def test_bad_input_is_refused(options, names, says, workplace):
    message = refused(workplace.run(*CRAFT, *options))
    assert names in message and says in message and not workplace.models.exists()


def test_command_prints_the_files(workplace):
    done = workplace.succeed(*CRAFT, "--target", "2", "--poisons", "3", "--shaping", "4", MODELS=REPOSITORY / "models")
    assert done.stdout.strip().endswith("poisons_for_2.npz") and "3 poisons" in done.stderr
