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
from poisons.steinhardt import defences, hinge, minmax, oracle, slab_program, slab_search
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


def test_the_hinge_loss_and_its_gradient_by_hand():
    """Margins 2, 1, 0.5 and -2: the loss ends at a margin of 1, where its gradient is 0 as beyond."""
    x, signs = np.array([[2.0, 0], [1, 0], [0, -0.5], [1, 1]]), np.array([1.0, 1, -1, -1])
    theta, weights = np.array([1.0, 1.0]), np.array([1.0, 2, 4, 8])
    margins = hinge.hinge_margins(x, signs, theta, 0.0)
    assert margins.tolist() == [2, 1, 0.5, -2] and hinge.hinge_loss(weights, margins) == pytest.approx(4 * 0.5 + 8 * 3)
    gradient, of_bias = hinge.hinge_gradient(x, signs, weights, margins)
    assert gradient.tolist() == [8, 4 * -0.5 + 8] and of_bias == 4 + 8
    assert hinge.hinge_loss(weights, hinge.hinge_margins(x, signs, theta, 1.0)) == pytest.approx(4 * 1.5 + 8 * 4)


def test_minmax_follows_its_algorithm():
    """Its bounds are those of the algorithm as it is written at the head of the module, step by step in float64."""
    x, y = two_classes()
    epsilon, rho, step_size, bounds = 0.1, 2.0, 0.05, []
    outcome = minmax.craft(x, y, defences.fit(x, y, 0.65), epsilon, rho, step_size, lambda *shown: bounds.append(shown))
    rows, signs = np.c_[x, np.ones(len(x))], 2.0 * y - 1  # the bias is one more coordinate
    total, scale, least = np.zeros(31), 1 / step_size, []
    for number, (point, label) in enumerate(zip(np.c_[outcome.x, np.ones(len(outcome.y))], outcome.y), 1):
        theta, sign = total / scale, 2.0 * label - 1
        inside, loss = signs * (rows @ theta) < 1, max(0.0, 1 - sign * (point @ theta))
        least.append(np.mean(np.maximum(0, 1 - signs * (rows @ theta))) + epsilon * loss)
        assert bounds[number - 1] == (number, pytest.approx(min(least), rel=1e-5))
        total = total + (signs * inside) @ rows / len(rows) + epsilon * (loss > 0) * sign * point
        scale = max(scale, np.linalg.norm(total) / rho)
    assert outcome.y[0] == 0  # of equal losses, as those of the first step are
    assert bounds[0][1] == pytest.approx(1 + epsilon) and bounds[-1][1] < 0.95 and len(bounds) == 40


def test_the_training_loss_weighs_poisons_by_epsilon():
    """Rows of zeros leave the bias alone: clean rows of both classes lose 1 at any, the poisons 1 - b, b up to rho."""
    x, y = np.zeros((40, 2)), np.arange(40) % 2
    for epsilon, rho in ((0.3, 0.5), (0.1, 0.9), (0.3, 5.0)):
        found = minmax.trained_loss(x, y, np.zeros((4, 2)), np.ones(4, int), epsilon, rho)
        assert found == pytest.approx(1 + epsilon * max(0, 1 - rho), abs=2e-3)


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


def test_dual_averaging_keeps_the_shares_of_largest_objective(monkeypatch):
    x, y = two_classes(100)
    crafter = slab_search.Crafter(x, y, defences.fit(x, y, 0.65), 0.3, np.random.default_rng(0))
    tried = []

    def craft(theta, bias, shares):
        tried.append(shares)
        return slab_search.Candidate(np.zeros((4, 30)), shares, theta), shares[0]

    monkeypatch.setattr(crafter, "craft", craft)
    for number, (_, _, candidate) in enumerate(crafter.dual_averaging(0.005, 1.0, 5, 6), 1):
        assert len(tried) == 7 * number and candidate.shares[0] == max(shares[0] for shares in tried[-7:])
        assert tried[-7].tolist() == [np.mean(y == 1), 0, np.mean(y == 0), 0]


def test_the_release_keeps_the_set_whose_model_has_the_largest_clean_loss(monkeypatch):
    """The clean loss of a model of zeros is 1, and the less the further a good one is scaled."""
    x, y = two_classes(100)
    crafter = slab_search.Crafter(x, y, defences.fit(x, y, 0.65), 0.3, np.random.default_rng(0))
    sets = [slab_search.Candidate(np.zeros((4, 30)), np.eye(4)[0], np.array([place])) for place in range(200)]
    monkeypatch.setattr(crafter, "dual_averaging", lambda *_: [(None, 0.0, candidate) for candidate in sets])
    direction, scored = x[y == 1].mean(0) - x[y == 0].mean(0), []

    def train(_, candidate, radius):
        place = int(candidate.theta[0]) + 1
        scored.append(place)
        theta = 0.01 * abs(place - 90) * direction
        return theta, -float(theta @ x.mean(0))

    monkeypatch.setattr(slab_search, "_train_hinge", train)
    assert slab_search.by_training_loss(crafter, 1.0).theta == 89
    assert scored == [*range(3, 49, 3), *range(50, 201, 10)] and len(scored) == 32  # those that the release scores


def test_the_search_starts_at_the_set_that_leaves_victims_least(monkeypatch, subtask):
    """Without a generation the result is its start, the best of those screened: here of smallest first share."""
    x, y = two_classes(200, 60)
    crafter = slab_search.Crafter(x, y, defences.fit(x, y, 0.65), 0.3, np.random.default_rng(0))
    seen = []

    def scores(_, candidates, seed):
        seen.extend(candidates)
        return np.array([candidate.shares[0] for candidate in candidates])

    made = lambda theta, bias, shares: (slab_search.Candidate(np.zeros((4, 60)), shares, theta), 0.0)  # noqa: E731
    monkeypatch.setattr(crafter, "craft", made)
    monkeypatch.setattr(slab_search.Victims, "scores", scores)
    monkeypatch.setattr(victims, "workers", lambda: 1)
    found = slab_search.by_victim(crafter, subtask, None, 0, 7, None)
    best = min(seen, key=lambda candidate: candidate.shares[0])
    expected = (best.shares + 0.01) / (best.shares + 0.01).sum()
    assert len(seen) == 64 and np.allclose(found.shares, expected) and found.shares[0] < 0.1
    principal = np.linalg.svd(x - x.mean(0))[2][: slab_search.DIRECTIONS]
    projected = best.theta @ principal.T @ principal
    assert np.allclose(found.theta, slab_search.MODEL_NORM * projected / np.linalg.norm(projected))


def test_the_search_goes_to_where_victims_are_left_least(monkeypatch, subtask):
    """Here where the shares are those that are wanted: by steps that are told what was left."""
    x, y = two_classes(100, 48)
    wanted, shown, ends = np.array([0.4, 0.1, 0.4, 0.1]), [], []

    def away(candidate):
        return np.square(candidate.shares - wanted).sum()

    made = lambda theta, bias, shares: (slab_search.Candidate(np.zeros((4, 48)), shares, theta), 0.0)  # noqa: E731
    monkeypatch.setattr(
        slab_search.Victims, "scores", lambda _, candidates, seed: np.array(list(map(away, candidates)))
    )
    monkeypatch.setattr(victims, "workers", lambda: 1)
    for generations in (0, 40):
        crafter = slab_search.Crafter(x, y, defences.fit(x, y, 0.65), 0.3, np.random.default_rng(0))
        monkeypatch.setattr(crafter, "craft", made)
        show = lambda *generation: shown.append(generation)  # noqa: E731
        ends.append(away(slab_search.by_victim(crafter, subtask, None, generations, 7, show)))
    assert ends[1] < ends[0] / 10 and [generation for generation, _ in shown] == list(range(1, 41))
    assert shown[-1][1] < shown[0][1] / 2


def test_the_hinge_model_of_a_set_is_that_of_dual_averaging_row_by_row():
    x, y = two_classes(60, 5)
    crafter = slab_search.Crafter(x, y, defences.fit(x, y, 0.65), 0.3, np.random.default_rng(0))
    points, shares = np.random.default_rng(1).random((4, 5)), np.array([0.5, 0.25, 0.25, 0])
    theta, bias = slab_search._train_hinge(crafter, slab_search.Candidate(points, shares, None), 0.02, 3)
    rows = np.c_[np.concatenate([x, points[[0] * 9 + [1] * 5 + [2] * 4]]), np.ones(78)]
    signs = np.r_[2 * y - 1, 2 * LABELS[[0] * 9 + [1] * 5 + [2] * 4] - 1]
    total, scale, order = np.zeros(6), 78 / (0.005 * 60), np.random.default_rng(0)
    for row in np.concatenate([order.permutation(78) for _ in range(3)]):
        if signs[row] * (rows[row] @ total) / scale < 1:
            total += signs[row] * rows[row]
            scale = max(scale, np.linalg.norm(total) / 0.02)
    assert scale > 2 * 78 / (0.005 * 60)  # the bound on the model's norm was felt
    assert np.allclose(np.append(theta, bias), total / scale)


def test_a_score_is_the_sum_over_victims_of_their_best_epochs(monkeypatch, subtask):
    accuracies = np.random.default_rng(0).random((16, 5, 2))
    monkeypatch.setattr(victims, "Victims", lambda *_: dataclasses.make_dataclass("_", ["accuracies"])(
        lambda candidates, seed, epochs: accuracies[:epochs]))  # fmt: skip
    scores = slab_search.Victims(subtask, 0.3, list(slab_search.VICTIMS)).scores([None] * 5, 1)
    for candidate in range(5):
        best = [sorted(accuracies[:, candidate, victim])[-3:] for victim in range(2)]
        assert scores[candidate] == pytest.approx(sum(map(np.mean, best)))


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
        (["--eps", "0.1", "--select", "test"], "--select"), (["--eps", "0.00001"], "--ratio"),
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
