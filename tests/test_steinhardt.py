"""The attacks of Steinhardt et al.: their defences, the two oracles against independent solvers, and what the attacks
claim.
"""

import dataclasses
from pathlib import Path

import clarabel
import numpy as np
import pandas
import pytest
import scipy.optimize
import scipy.sparse
from conftest import refused
from test_poisons import rows_of

from command_line import BadInput
from poisons import attacks, crafting, poison_set, victims
from poisons.steinhardt import defences, minmax, oracle, slab_program, slab_search
from poisons.steinhardt.slab_program import LABELS, SUPPORT
from results import layout

CRAFT = ("python3", "-m", "poisons.steinhardt")


def two_classes(rows=400, features=30, seed=0):
    """Random rows in [0, 1] of two classes with different means."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, rows)
    return np.clip(random.normal(0.4 + 0.2 * y[:, np.newaxis] * (random.random(features) < 0.5), 0.2), 0, 1), y


def test_defences_let_the_quantile_pass():
    x, y = two_classes()
    defence = defences.fit(x, y, 0.65)
    for label in (0, 1):
        rows = y == label
        distances = np.sqrt(((x[rows] - x[rows].mean(0)) ** 2).sum(1))
        assert (
            defences.sphere(defence, x[rows], y[rows]).tolist() == (distances <= np.quantile(distances, 0.65)).tolist()
        )
        assert abs(defences.slab(defence, x[rows], y[rows]).mean() - 0.65) < 2 / rows.sum()
    assert (
        defences.sphere(defence, defence.means, np.array([0, 1])).all()
        and defences.slab(defence, defence.means, np.array([0, 1])).all()
    )
    poisoned = defences.fit(np.concatenate([x, np.ones((200, 30))]), np.concatenate([y, np.zeros(200, int)]), 0.65)
    assert (
        np.linalg.norm(poisoned.means[0] - defence.means[0]) > 0.1
    )  # fit on poisoned rows, the defence moves with them


def poisoned_geometry(points, defence, shares, weights):
    """Each point's distance to its class's poisoned mean, and its slab statistic, as ratios to the radii."""
    means = [
        (shares[label] * defence.means[label] + weights[LABELS == label] @ points[LABELS == label])
        / (shares[label] + weights[LABELS == label].sum())
        for label in (0, 1)
    ]
    axis = (means[1] - means[0]) / np.linalg.norm(means[1] - means[0])
    widths = defence.slab_radii / np.linalg.norm(defence.axis)
    away = points - np.array(means)[LABELS]
    return np.linalg.norm(away, axis=1) / defence.sphere_radii[LABELS], np.abs(away @ axis) / widths[LABELS]


def problem(seed):
    x, y = two_classes(seed=seed)
    random = np.random.default_rng(seed)
    shares = np.array([np.mean(y == 0), np.mean(y == 1)])
    return (
        defences.fit(x, y, 0.65),
        shares,
        random.normal(0, 0.1, 30),
        0.1 * random.normal(),
        0.4 * random.dirichlet([1, 1, 1, 1]),
        random,
    )


def poison_loss(points, theta, bias, weights):
    return sum(weights[index] * (1 - (2 * LABELS[index] - 1) * (points[index] @ theta + bias)) for index in SUPPORT)


@pytest.mark.parametrize("seed", range(20))
def test_slab_program_keeps_its_constraints(seed):
    defence, shares, theta, bias, weights, random = problem(seed)
    points, loss = slab_program.solve(defence, shares, theta, bias, weights, random)
    spheres, slabs = poisoned_geometry(points, defence, shares, weights)
    assert spheres.max() <= 1 + 1e-6 and slabs.max() <= 1 + 1e-6
    for index in SUPPORT:
        assert (2 * LABELS[index] - 1) * (points[index] @ theta + bias) <= 1 + 1e-6
    assert loss == pytest.approx(poison_loss(points, theta, bias, weights), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_slab_program_is_optimal_by_another_solver(seed):
    """The same problem in the coordinates of the points, non-convex, by sequential quadratic programming."""
    defence, shares, theta, bias, weights, random = problem(seed)
    points, loss = slab_program.solve(defence, shares, theta, bias, weights, random)
    basis = np.linalg.svd(np.stack([*defence.means, theta]), full_matrices=False)[2]

    def slack(values):
        spheres, slabs = poisoned_geometry(values.reshape(4, 3) @ basis, defence, shares, weights)
        margins = [
            1 - (2 * LABELS[index] - 1) * (values.reshape(4, 3)[index] @ basis @ theta + bias) for index in SUPPORT
        ]
        return np.concatenate([1 - spheres, 1 - slabs, margins])

    found = []
    for _ in range(5):
        start = (defence.means[LABELS] + 0.3 * random.normal(size=(4, 30))) @ basis.T
        done = scipy.optimize.minimize(
            lambda values: -poison_loss(values.reshape(4, 3) @ basis, theta, bias, weights), start.reshape(-1),
            method="SLSQP", constraints={"type": "ineq", "fun": slack}, options={"maxiter": 500, "ftol": 1e-10},
        )  # fmt: skip
        if slack(done.x).min() > -1e-6:
            found.append(-done.fun)
    assert found and abs(max(found) - loss) < 1e-4


@pytest.mark.parametrize("seed", range(20))
def test_oracle_against_a_conic_solver(seed):
    """Violation at most 1e-6, duality gap at most 1e-4, and the same value as Clarabel's on the same problem."""
    random = np.random.default_rng(seed)
    size = int(random.integers(3, 40))
    mean, c, axis = (
        random.uniform(0.1, 0.9, size),
        random.normal(size=size) * 10 ** random.uniform(-3, 1),
        random.normal(size=size),
    )
    axis /= np.linalg.norm(axis)
    radius, width = random.uniform(0.05, 3), random.uniform(0.01, 0.5)
    x, gap = oracle.minimise(c, mean, radius, axis, width)
    assert x.min() >= 0 and x.max() <= 1
    assert np.linalg.norm(x - mean) <= radius + 1e-6 and abs((x - mean) @ axis) <= width + 1e-6
    assert -1e-9 <= gap <= 1e-4 * max(1, np.linalg.norm(c))
    rows = np.concatenate([np.eye(size), -np.eye(size), [axis], [-axis], np.zeros((1, size)), -np.eye(size)])
    bounds = np.concatenate([np.ones(size), np.zeros(size), [width + axis @ mean, width - axis @ mean, radius], -mean])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    cones = [clarabel.NonnegativeConeT(2 * size + 2), clarabel.SecondOrderConeT(size + 1)]
    zero = scipy.sparse.csc_matrix((size, size))
    solution = clarabel.DefaultSolver(zero, c, scipy.sparse.csc_matrix(rows), bounds, cones, settings).solve()
    assert abs(c @ x - solution.obj_val) <= 1e-4 * max(1, np.linalg.norm(c))


def test_oracle_without_a_direction_stays_at_the_mean():
    x, gap = oracle.minimise(np.zeros(3), np.full(3, 0.5), 1.0, np.array([1.0, 0, 0]), 0.1)
    assert x.tolist() == [0.5] * 3 and gap == 0


@pytest.mark.parametrize("epsilon", [0.05, 0.3])
def test_minmax_poisons_are_feasible_and_the_bound_holds(epsilon):
    x, y = two_classes(1000)
    defence = defences.fit(x, y, 0.65)
    bounds = []
    outcome = minmax.craft(x, y, defence, epsilon, 3.0, 0.05, lambda step, bound: bounds.append(bound))
    assert len(outcome.y) == round(1000 * epsilon) == len(bounds) and set(outcome.y) <= {0, 1}
    assert outcome.x.min() >= 0 and outcome.x.max() <= 1
    assert (
        defences.sphere(defence, outcome.x, outcome.y, 1e-6).all()
        and defences.slab(defence, outcome.x, outcome.y, 1e-6).all()
    )
    assert (
        outcome.upper_bound == min(bounds)
        and 0 < outcome.training_loss <= outcome.upper_bound
        and outcome.worst_gap < 1e-4
    )
    harmless = minmax.trained_loss(x, y, defence.means, np.array([0, 1]), epsilon, 3.0)
    assert harmless < outcome.training_loss


def test_training_loss_of_separable_rows_is_zero():
    x, y = np.array([[0.0, 1.0], [1.0, 0.0]] * 50), np.array([0, 1] * 50)
    assert minmax.trained_loss(x, y, x[:2], y[:2], 0.1, 5.0) == 0


@pytest.mark.parametrize("total", [1, 7, 108, 4320])
def test_counts_are_nearest_whole_numbers(total):
    for shares in np.random.default_rng(0).dirichlet([0.3] * 4, 50):
        counts = victims.counts(shares, total)
        assert counts.sum() == total and counts.min() >= 0 and np.abs(counts - shares * total).max() < 1


def test_a_failing_solver_is_reported_and_the_last_good_poisons_are_kept(monkeypatch):
    x, y = two_classes()
    crafter = slab_search.Crafter(x, y, defences.fit(x, y, 0.65), 0.4, np.random.default_rng(0))
    solve, calls = slab_program.solve, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) > 20:
            raise slab_program.Unsolved("NumericalError")
        return solve(*arguments)

    monkeypatch.setattr(slab_program, "solve", failing)
    candidates = [candidate for _, _, candidate in crafter.dual_averaging(0.005, 1.0, 10, 3)]
    assert len(candidates) == 10 and crafter.solved == 20
    assert all(candidate is candidates[4] for candidate in candidates[5:])
    assert crafter.failures and set(crafter.failures) == {(20, "NumericalError")}


def test_a_solver_that_never_succeeds_is_refused(monkeypatch):
    def failing(*arguments):
        raise slab_program.Unsolved("NumericalError")

    x, y = two_classes()
    crafter = slab_search.Crafter(x, y, defences.fit(x, y, 0.65), 0.4, np.random.default_rng(0))
    monkeypatch.setattr(slab_program, "solve", failing)
    with pytest.raises(BadInput, match=r"the solver failed on the first 50 programs \(NumericalError\)"):
        slab_search.by_training_loss(crafter, 1.0)


def test_release_rule_takes_the_largest_clean_loss():
    x, y = two_classes(200)
    crafter = slab_search.Crafter(x, y, defences.fit(x, y, 0.65), 0.3, np.random.default_rng(0))
    candidate = slab_search.by_training_loss(crafter, 1.0)
    assert candidate.points.shape == (4, 30) and candidate.points.min() >= 0 and candidate.points.max() <= 1
    assert candidate.shares.sum() == pytest.approx(1)


@pytest.mark.slow
def test_victims_tell_a_strong_set_from_a_weak_one(subtask):
    from models import device

    device.start(None, 1)
    tried = slab_search.Victims(subtask, 0.4, list(slab_search.VICTIMS))
    means = np.stack([subtask.x_train[subtask.y_train == label].mean(0).reshape(-1) for label in (0, 1)])
    weak = slab_search.Candidate(means[LABELS], np.full(4, 0.25), means[0])
    kept = poison_set.load(
        "datasets/poisons/indiscriminate/slabs/fmnist_34_attack_eps40_quantile65_rho_slab.npz", subtask
    )
    points, first, counts = np.unique(kept.x.reshape(len(kept.y), -1), axis=0, return_index=True, return_counts=True)
    order = np.argsort(-kept.y[first], kind="stable")
    assert len(points) == 4 and kept.y[first][order].tolist() == LABELS.tolist()
    strong = slab_search.Candidate(points[order], counts[order] / counts.sum(), means[0])
    scores = tried.scores([strong, weak], 3)
    assert scores[0] < 1.6 and scores[1] > 1.85 and np.array_equal(scores, tried.scores([strong, weak], 3))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--eps", "0"], "--eps"), (["--eps", "1.5"], "--eps"), (["--eps=-0.1"], "--eps"), (["--eps", "nan"], "--eps"),
        (["--eps", "0.1", "--quantile", "0"], "--quantile"), (["--eps", "0.1", "--quantile", "1"], "--quantile"),
        (["--eps", "0.1", "--rho", "0"], "--rho"), (["--eps", "0.1", "--rho=-1"], "--rho"),
        (["--eps", "0.1", "--select", "test"], "--select"), (["--eps", "0.00001"], "--eps"),
    ],
)  # fmt: skip
def test_bad_options_are_refused(options, named, workplace):
    for attack in ("slab", "minmax"):
        assert named in refused(workplace.run(*CRAFT, "--attack", attack, *options))
    assert not list(workplace.folder.iterdir())


def test_data_that_do_not_fit_are_refused(subtask, purchases):
    lonely = dataclasses.replace(subtask, y_train=np.zeros_like(subtask.y_train))
    flat = rows_of(np.arange(40) % 2, (7,))
    unknown = rows_of(np.arange(40) % 2, (30,))
    for data, names, why in (
        (purchases, ("slabs", "slabs-release", "minmax"), "it has 100 classes, not two"),
        (lonely, ("slabs", "minmax"), "class 1 has no training rows"),
        (flat, ("slabs-release", "minmax"), "it has 7 features"),
        (unknown, ("slabs",), "no logistic regression"),
    ):
        for name in names:
            with pytest.raises(BadInput, match=f"--dataset {data.name}: {name} cannot poison it: .*{why}"):
                list(crafting.craft(attacks()[name], data, [{"epsilon": 0.1}]))


def test_any_two_classes_can_be_poisoned(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "POISONS", tmp_path)
    monkeypatch.setattr(layout, "RESULTS", tmp_path / "results")
    x, y = two_classes(200)
    data = dataclasses.replace(rows_of(y, (30,)), x_train=x.astype(np.float32))
    for name in ("slabs-release", "minmax"):
        [(path, [note])] = crafting.craft(attacks()[name], data, [{"epsilon": 0.1}])
        assert path.stem.startswith("toy_attack_eps10_quantile65_") and note.startswith("20 poisons in")
        poisons = poison_set.load(path, data)
        assert (len(poisons.y), poisons.ratio, poisons.attack) == (20, 0.1, name) and not path.with_suffix(
            ".png"
        ).exists()
        line = pandas.read_csv(layout.crafting_file(name)).iloc[0]
        assert (line["poison_set"], line["ratio"], line["n_poison"]) == (path.stem, 0.1, 20)
        assert "counts" not in line or sum(map(int, line["counts"].split())) == 20


def test_counts_in_poison_files(tmp_path, subtask):
    settings = {"attack": "slabs", "dataset": subtask.name}
    x = np.random.default_rng(0).random((3, 784))
    poison_set.save(tmp_path / "few.npz", settings, [0, 1, 1], instances=x, counts=[2, 0, 3])
    loaded = poison_set.load(tmp_path / "few.npz", subtask)
    assert loaded.y.tolist() == [0, 0, 1, 1, 1] and np.allclose(loaded.x.reshape(5, -1), x[[0, 0, 2, 2, 2]])
    assert poison_set.settings_of(tmp_path / "few.npz") == settings
    for counts in ([1, 1], [1, -1, 3], [10**9, 1, 1], [0.5, 1, 1.5]):
        poison_set.save(tmp_path / "bad.npz", settings, [0, 1, 1], instances=x, counts=counts)
        if counts == [0.5, 1, 1.5]:
            continue  # stored as whole numbers
        with pytest.raises(BadInput, match="counts must be whole numbers"):
            poison_set.load(tmp_path / "bad.npz", subtask)


def test_crafting_is_measured_and_not_repeated(workplace):
    done = workplace.succeed(*CRAFT, "--attack", "minmax", "--eps", "0.01", "--seed", "77")
    path = Path(done.stdout.strip())
    try:
        measured = pandas.read_csv(workplace.results / "ipoisoning/minmax/crafting.csv").iloc[0]
        assert measured["poison_set"] == path.stem == "fmnist_34_attack_eps01_quantile65_minmax_seed_77"
        assert (
            measured["training_loss"] <= measured["upper_bound"]
            and measured["pass_sphere"] == measured["pass_slab"] == 1
        )
        assert (
            "crafted before" in workplace.succeed(*CRAFT, "--attack", "minmax", "--eps", "0.01", "--seed", "77").stderr
        )
        assert path.with_suffix(".png").stat().st_size > 5000
    finally:
        for suffix in (".npz", ".png"):
            path.with_suffix(suffix).unlink(missing_ok=True)
