"""The certificates: no attack below them, on small problems by hand and by search, and their parts by other means."""

import io
import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from command_line import BadInput
from datasets import Dataset
from models import minibatches
from models.certificates import certified_accuracies, noisy, partition, stability
from models.shaping import UNDEFENDED, Shaping
from poisons import substitution
from reports import certificates as report
from results import certificates as kept

ROWS, FEATURES, BATCH, EPOCHS, SEED = 12, 2, 4, 3, 5
CERTIFY = ("python3", "certify.py", "--dataset", "subtask")
SLABS = REPOSITORY / "datasets/poisons/indiscriminate/slabs/fmnist_34_attack_eps10_quantile65_rho_slab.npz"


def small(rows=ROWS, features=FEATURES, classes=2, tests=200, seed=SEED) -> Dataset:
    """Rows of two or more overlapping clouds around the origin."""
    random = np.random.default_rng(seed)
    y = (np.arange(rows + tests) % classes).astype(np.int32)
    x = random.normal(size=(rows + tests, features)).astype(np.float32) * 0.4
    x[:, 0] += (y - (classes - 1) / 2) * 0.8
    return Dataset("small", classes, (features,), x[:rows], y[:rows], x[rows:], y[rows:])


def training(clip_norm=0.3, learning_rate=0.5, batch_size=BATCH, **more) -> stability.Training:
    return stability.Training("lr", "sgd", Shaping.clip(clip_norm), learning_rate, batch_size, SEED, **more)


def end(trainings, rows=None, epochs=EPOCHS) -> np.ndarray:
    return list(trainings.epochs(epochs, rows))[-1]


def certificate(trainings, epochs=EPOCHS) -> stability.Certificate:
    one = trainings.one
    return stability.Certificate(
        end(trainings, epochs=epochs)[0], trainings.reach(one.shaping.clip_norm, epochs, False)
    )


# --- stability ---


def by_hand(dataset, one, epochs):
    """u after each epoch in float64, a row and a step at a time."""
    x, signs, u = stability.extend(dataset.x_train), 2 * dataset.y_train - 1, np.zeros(dataset.x_train.shape[1] + 1)
    rows = minibatches.Rows.of(dataset.x_train, dataset.y_train, np.zeros(len(signs), bool), 1)
    for epoch in range(1, epochs + 1):
        plan = minibatches.shuffled(rows, one.batch_size, one.seed, epoch)
        for first, last in zip(plan.starts, plan.starts[1:]):
            total = 0
            for row in plan.order[first:last]:
                both = -signs[row] * special.expit(-signs[row] * (x[row] @ u)) * x[row]
                gradient = np.stack([-both, both])  # with respect to w_0 and w_1
                norm = np.linalg.norm(gradient)
                total = total + gradient * min(1, one.shaping.clip_norm / norm)
            step = total[1] - total[0]
            u = one.decay ** (last == plan.starts[-1]) * (u - one.learning_rate * step / (last - first))
        yield u


def test_a_training_is_the_one_of_the_proof_and_float32_moves_it_by_a_tenth_of_what_is_allowed():
    for dataset, one in (
        (small(), training()), (small(), training(0.05, decay=0.9)), (small(), training(1e3, 0.2)),
        (small(50, 30), training(0.2, 0.1, 8)),
    ):  # fmt: skip
        for found, expected in zip(stability.Trainings(dataset, [one]).epochs(6), by_hand(dataset, one, 6)):
            assert np.linalg.norm(found[0] - expected) < 0.1 * stability.ROUNDING * np.linalg.norm(expected)


def test_the_reach_is_the_sum_of_all_steps():
    trainings = stability.Trainings(small(), [training()])
    step = 2 * np.sqrt(2) * 0.5 * 0.3 / BATCH
    assert trainings.reach(0.3, 7, False) == pytest.approx(7 * step)
    assert trainings.reach(0.3, 7, True) == pytest.approx(4 * step)
    decayed = stability.Trainings(small(), [training(decay=0.5)])
    assert decayed.reach(0.3, 3, False) == pytest.approx(step * (0.5 + 0.25 + 0.125))
    left_over = stability.Trainings(small(ROWS + 1), [training()])  # a last batch of one row, which it moves alone
    assert left_over.reach(0.3, 1, False) == pytest.approx(BATCH * step)


def held(certificate, dataset, u, count) -> dict:
    found = certificate.held_against(u, dataset, count)
    assert found["broken"] == 0 and found["acc"] >= found["certified_acc"]
    assert found["moved"] <= found["bound"] * (1 + 1e-4)
    return found


SMALL = small()
VALUES = st.sampled_from([0.0, -0.0, 1e-30, 1e-3, -1.0, 1.0, -37.5, 1e4, -1e9, 1e15])


@pytest.fixture(scope="module")
def attacked():
    """A certified training of the small problem, and the stack that poisoned ones are replicas of."""
    return certificate(stability.Trainings(SMALL, [training()])), stability.Trainings(SMALL, [training()] * 4)


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_poisons_reach_below_a_certificate(attacked, data):
    certified, trainings = attacked
    sets, counts = [], []
    for _ in range(4):
        rows = data.draw(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=6, unique=True))
        x = data.draw(st.lists(st.tuples(VALUES, VALUES), min_size=len(rows), max_size=len(rows)))
        y = data.draw(st.lists(st.integers(0, 1), min_size=len(rows), max_size=len(rows)))
        sets.append((np.array(rows), np.array(x, np.float32), np.array(y)))
        counts.append(len(rows))
    for u, count in zip(end(trainings, stability.substituted(SMALL, sets)), counts):
        held(certified, SMALL, u, count)


def test_the_worst_single_substitution_is_within_the_bound_and_near_it():
    """Every row, to each of many places of a plane and both labels: the largest move of all."""
    certified = certificate(stability.Trainings(SMALL, [training()]))
    places = [(5 * np.cos(angle), 5 * np.sin(angle)) for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False)]
    places += [(0.0, 0.0), (1e3, 0.0)]
    sets = [
        (np.array([row]), np.array([place], np.float32), np.array([label]))
        for row, place, label in itertools.product(range(ROWS), places, (0, 1))
    ]
    trainings = stability.Trainings(SMALL, [training()] * len(sets))
    found = pd.DataFrame(held(certified, SMALL, u, 1) for u in end(trainings, stability.substituted(SMALL, sets)))
    assert 0.75 < (found.moved / found.bound).max() <= 1
    assert found.acc.min() < found.clean_acc.iloc[0] and found.certified_acc.iloc[0] > 0.2


def test_a_step_past_the_bound_is_refused_since_it_may_break_a_certificate(monkeypatch):
    dataset = small()
    dataset.x_train[:, 1] *= 3
    rows = minibatches.Rows.of(dataset.x_train, dataset.y_train, np.zeros(ROWS, bool), 1)
    plans = [minibatches.shuffled(rows, BATCH, SEED, epoch) for epoch in range(1, EPOCHS + 1)]
    squares = (stability.extend(dataset.x_train) ** 2).sum(1)
    largest = max(float(squares[plan.order].reshape(-1, BATCH).mean(1).max()) for plan in plans)
    end(stability.Trainings(dataset, [training(0.3, 0.999 * 4 / largest)]))
    with pytest.raises(BadInput, match="may move two models apart"):
        end(stability.Trainings(dataset, [training(0.3, 1.001 * 4 / largest)]))
    with pytest.raises(BadInput, match="may move two models apart"):
        end(stability.Trainings(dataset, [training(0.3, 2 * 4 / largest)]))

    monkeypatch.setattr(stability, "LARGEST_STEP", np.inf)  # 37 times the bound
    far = small(100, seed=1)
    far = replace(far, x_train=3 * far.x_train)
    trainings = [stability.Trainings(far, [training(3.0, 32.0, 100)] * count) for count in (1, 8)]
    places = itertools.product((-9.0, 0.0, 0.3, 3.0), (0, 1))
    sets = [(np.array([0]), np.array([[place, 0.0]], np.float32), np.array([label])) for place, label in places]
    both = zip(trainings[0].epochs(20), trainings[1].epochs(20, stability.substituted(far, sets)))
    moved = [np.linalg.norm(poisoned - clean, axis=1).max() for clean, poisoned in both]
    assert max(far / trainings[0].reach(3.0, epoch, False) for epoch, far in enumerate(moved, 1)) > 1.2


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"optimizer": "adam"}, "--optimizer adam: its steps are not bounded by the clip norm"),
        ({"network": "shallow-mlp"}, "--network shallow-mlp: has hidden layers"),
        ({"network": "badnet"}, "--network badnet: has hidden layers"),
        ({"shaping": UNDEFENDED}, "--shaping undefended: not a clip norm alone"),
        ({"shaping": Shaping.clip(1.0, 0.1)}, "not a clip norm alone"),
        ({"shaping": Shaping.of("phuber", 2)}, "not a clip norm alone"),
        ({"decay": 1.1}, "a factor above 1 moves models apart"),
    ],
)
def test_a_training_that_the_proof_does_not_hold_for_is_refused(changes, why):
    with pytest.raises(BadInput, match=why.replace("(", r"\(")):
        stability.Trainings(small(), [replace(training(), **changes)])
    with pytest.raises(BadInput, match="3 classes"):
        stability.Trainings(small(classes=3), [training()])


def test_trainings_keep_their_own_certificates_and_rows_that_cannot_be_computed_with_are_refused():
    alike = [training(clip_norm) for clip_norm in (0.5, 0.5, 0.01)]
    found = list(stability.certificates(stability.Trainings(small(), alike), [2, 3]))
    assert [one.shaping.clip_norm for one, epochs, averaged, _ in found if epochs == 3 and averaged] == [0.5, 0.5, 0.01]
    for _one, _epochs, _, certified in found:
        assert np.linalg.norm(certified.u) <= certified.reach * ROWS / 2 * (1 + 1e-5)  # as if all rows were inserted
    for value in (1e16, np.inf, np.nan):
        rows = (np.array([0]), np.full((1, FEATURES), value, np.float32), np.array([1]))
        with pytest.raises(BadInput, match="no number, or beyond 1e"):
            stability.substituted(SMALL, [rows])
        poisoned = replace(small(), x_train=np.full((ROWS, FEATURES), value, np.float32))
        for train in (
            lambda data: stability.Trainings(data, [training()]),
            lambda data: partition.votes(data, "lr", "sgd", UNDEFENDED, 0.1, 1, 3, 1, SEED, ""),
            lambda data: noisy.models(data, vote(), 2),
        ):
            with pytest.raises(BadInput, match="no number, or beyond 1e"):
                train(poisoned)


def test_the_costliest_direction_is_one_where_every_row_is_far_on_its_side():
    far = replace(SMALL, x_train=SMALL.x_train + (2 * SMALL.y_train - 1)[:, np.newaxis].astype(np.float32) * 100)
    certified = stability.Certificate(np.array([1e3, 1e3, 0.0]), 1e-3)
    sets = substitution.pushes(far, np.full(FEATURES, 0.5), certified, 2)
    assert all(np.isfinite(x).all() for _, x, _ in sets.values())


@pytest.mark.parametrize("seed", range(6))
def test_the_row_in_range_that_lies_most_along_a_direction_is_nearly_that_of_a_fine_grid(seed):
    random = np.random.default_rng(seed)
    direction, origin = random.normal(size=4) * [1, 0.003, 1, 1], random.uniform(0.05, 0.95, 3)
    direction /= np.linalg.norm(direction)

    def share(x):
        extended = stability.extend(x)
        return np.abs(extended @ direction) / np.linalg.norm(extended, axis=1)

    found = substitution.in_range(direction, origin)
    assert (found + origin >= 0).all() and (found + origin <= 1).all()
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 41)] * 3), -1).reshape(-1, 3) - origin
    assert share(found[np.newaxis])[0] >= 0.97 * share(grid).max()


def test_of_rows_that_are_alike_the_first_are_pushed():
    """All rows of a class are one point: of equal ones they are taken by their number."""
    y = np.arange(400) % 2
    x = np.outer(2 * y - 1, [0.3, 0.1]).astype(np.float32)
    data = Dataset("small", 2, (2,), x, y.astype(np.int32), x, y.astype(np.int32))
    for rows, _, _ in substitution.pushes(
        data, np.full(2, 0.5), stability.Certificate(np.array([1.0, 1, 0]), 0.01), 90
    ).values():
        assert len(rows) == 90 and all((np.diff(rows[y[rows] == label]) > 0).all() for label in (0, 1))


def test_rows_are_centred_on_trusted_rows_alone(subtask):
    centred = stability.centred(subtask)
    trusted = subtask.held_out[0][:200]
    assert np.allclose(subtask.x_test - centred.x_test, trusted.mean(0), atol=1e-6)
    assert np.abs(centred.held_out[0][:200].mean(0)).max() < 1e-5
    assert small().x_test is not None and stability.centred(small()).held_out is None


# --- partition ---


def test_buckets_are_even_and_each_row_is_in_as_many_models_as_it_is_spread_to():
    bucket, members = partition.buckets(103, 5, 4, SEED), partition.assignment(5, 4, SEED)
    assert np.bincount(bucket).min() == 5 and np.bincount(bucket).max() == 6 and bucket.max() == 19
    assert members.shape == (20, 4) and all(len(set(row)) == 4 for row in members)
    assert (np.bincount(members.ravel()) == 4).all()
    assert (
        partition.assignment(5, 1, SEED)[np.argsort(partition.assignment(5, 1, SEED)[:, 0]), 0] == np.arange(5)
    ).all()


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_change_of_so_many_buckets_changes_a_certain_vote(data):
    """All ways to alter r buckets, whose models then vote for whatever the attacker likes, on votes of few models."""
    parts, spread = data.draw(st.sampled_from([(5, 1), (6, 1), (3, 2), (2, 3)]))
    classes, models = data.draw(st.integers(2, 3)), parts * spread
    votes = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=models, max_size=models)))[:, np.newaxis]
    members = partition.assignment(parts, spread, SEED)
    (winner,), (radius,) = partition.radii(votes.astype(np.int8), classes, members)
    assert winner == np.bincount(votes[:, 0], minlength=classes).argmax()

    def can_change(count):
        for altered in itertools.combinations(range(models), count):
            touched = np.isin(members, altered).any(1)
            for label in set(range(classes)) - {winner}:  # all for one other class is the strongest
                counts = np.bincount(np.where(touched, label, votes[:, 0]), minlength=classes)
                if counts.argmax() != winner:
                    return True
        return False

    assert not any(can_change(count) for count in range(radius + 1))
    if spread == 1 and radius < models:
        assert can_change(radius + 1)


def test_a_substituted_row_changes_the_votes_of_its_own_models_alone(monkeypatch):
    dataset = small(60, 4, tests=50)
    votes = {}
    for group in (40, 7):  # in one group or in several: a model is the same
        monkeypatch.setattr(partition, "GROUP", group)
        votes[group] = partition.votes(dataset, "lr", "sgd", UNDEFENDED, 0.5, 20, 5, 2, SEED, "")
    assert np.array_equal(votes[40], votes[7]) and votes[40].shape == (10, 50)
    row = 17
    poisoned = replace(dataset, x_train=dataset.x_train.copy(), y_train=dataset.y_train.copy())
    poisoned.x_train[row], poisoned.y_train[row] = 50.0, 1 - dataset.y_train[row]
    found = partition.votes(poisoned, "lr", "sgd", UNDEFENDED, 0.5, 20, 5, 2, SEED, "")
    owners = (partition.assignment(5, 2, SEED) == partition.buckets(60, 5, 2, SEED)[row]).any(1)
    changed = (found != votes[7]).any(1)
    assert owners.sum() == 2 and changed[owners].any() and not changed[~owners].any()
    winner, radii = partition.radii(votes[7], 2, partition.assignment(5, 2, SEED))
    after, _ = partition.radii(found, 2, partition.assignment(5, 2, SEED))
    assert (winner == after)[radii >= 1].all() and (radii >= 1).any()
    with pytest.raises(BadInput, match="--parts 40: 80 buckets for 60 rows; ask for 30"):
        partition.buckets(60, 40, 2, SEED)


# --- noisy votes ---


def vote(noise_multiplier=2.0, rate=0.1, steps=3, clip_norm=0.5, learning_rate=0.2) -> noisy.Noisy:
    return noisy.Noisy(clip_norm, noise_multiplier, learning_rate, rate, steps, SEED)


def test_the_divergence_of_one_row_is_that_of_the_accountant():
    import dp_accounting
    from dp_accounting.rdp import rdp_privacy_accountant

    for sigma, rate, steps in ((2.0, 0.05, 10), (0.8, 0.3, 4), (20.0, 0.5, 100), (1.5, 1.0, 7)):
        event = dp_accounting.GaussianDpEvent(sigma)
        if rate < 1:
            event = dp_accounting.PoissonSampledDpEvent(rate, event)
        orders = [order for order in noisy.ORDERS if order >= 2]  # theirs lose digits below
        accountant = rdp_privacy_accountant.RdpAccountant(orders)
        accountant.compose(event, steps)
        both = np.maximum(*noisy.divergences(vote(sigma, rate, steps), 1))[-len(orders) :]
        assert np.allclose(both, accountant._rdp, rtol=1e-4), (sigma, rate)


def test_the_divergence_of_a_group_is_its_integral_and_more_than_that_of_one_row_at_the_rate_of_a_group():
    sigma, rate, group, order = 1.5, 0.2, 6, 4.0
    shares = stats.binom.pmf(np.arange(group + 1), group, rate)

    def with_rows(x):
        return np.log((shares * stats.norm.pdf(x, np.arange(group + 1), sigma)).sum())

    integral, _ = integrate.quad(
        lambda x: np.exp(order * with_rows(x) + (1 - order) * stats.norm.logpdf(x, 0, sigma)), -15, 40, limit=400
    )
    found = noisy.divergences(vote(sigma, rate, 1), group)[0][noisy.ORDERS.index(order)]
    assert found == pytest.approx(np.log(integral) / (order - 1), rel=1e-6)
    lone = noisy.divergences(vote(sigma, 1 - (1 - rate) ** group, 1), 1)[0][noisy.ORDERS.index(order)]
    assert found > 2 * lone  # the published formula takes this one


def test_what_is_certain_is_never_more_than_the_best_test_allows():
    """One step: the least probability is that of the Neyman-Pearson region, by integrals over the line."""
    line = np.linspace(-40, 60, 200001)
    for sigma, rate, group in ((2.0, 0.2, 3), (5.0, 0.5, 4), (4.0, 1.0, 2)):
        noise = vote(sigma, rate, 1)
        shares = stats.binom.pmf(np.arange(group + 1), group, rate)
        mixed = sum(share * stats.norm.pdf(line, k, sigma) for k, share in enumerate(shares))
        alone = stats.norm.pdf(line, 0, sigma)
        for probability in (0.6, 0.9, 0.99):
            least = probability
            for before, after in ((mixed, alone), (alone, mixed)):  # removed, then inserted
                order = np.argsort(np.log(after) - np.log(before))
                mass = np.cumsum(before[order]) * (line[1] - line[0])
                least = after[order][mass <= least].sum() * (line[1] - line[0])
            found = float(noisy.certain(np.array(probability), noise, group))
            assert 0 <= found <= least + 1e-3
            assert found > 0.5 * least  # and not much less
    whole = noisy.certain(np.array([0.9]), vote(10.0, 1.0, 4), 2)
    assert whole == pytest.approx(stats.norm.cdf(stats.norm.ppf(0.9) - 2 * 2 * np.sqrt(4) / 10))


def test_models_have_noise_and_samples_of_their_own_and_else_the_steps_of_dp_sgd():
    dataset, count = small(40, 3), 3000
    x, signs = stability.extend(dataset.x_train), 2 * dataset.y_train - 1
    gradients = -signs[:, np.newaxis] * 0.5 * x
    gradients *= np.minimum(1, 0.5 / np.linalg.norm(gradients, axis=1))[:, np.newaxis]
    for rate, sigma in ((1.0, 3.0), (0.3, 3.0), (0.3, 1e-3)):
        u = noisy.models(dataset, vote(sigma, rate, 1), count)
        mean = -0.2 / 40 * gradients.sum(0)
        covariance = (sigma * 0.5) ** 2 * np.eye(4) + rate * (1 - rate) * gradients.T @ gradients
        covariance *= (0.2 / (rate * 40)) ** 2
        far = np.abs(u.mean(0) - mean) / np.sqrt(np.diag(covariance) / count)
        assert far.max() < 4.5
        assert np.allclose(np.cov(u.T), covariance, atol=0.12 * np.diag(covariance).max())
    assert len(np.unique(u[:, 0])) == count
    assert np.array_equal(u, noisy.models(dataset, vote(1e-3, 0.3, 1), count))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"optimizer": "adam"}, "--optimizer adam: a noisy vote is trained by sgd"),
        ({"network": "shallow-mlp"}, "has hidden layers"),
        ({"shaping": Shaping.clip(0.3)}, "--shaping 0.3: not a clip norm with noise"),
        ({"shaping": Shaping.of("auto-v", noise_std=1)}, "--shaping auto-v:1: not a clip norm with noise"),
        ({"shaping": Shaping.clip(np.inf, 1)}, "not a clip norm with noise"),
    ],
)
def test_votes_that_the_proof_does_not_hold_for_are_refused(changes, why):
    given = {"network": "lr", "optimizer": "sgd", "dataset": SMALL, "shaping": Shaping.clip(0.3, 0.6)}
    given |= {"learning_rate": 0.1, "rate": 0.5, "steps": 7, "seed": 3}
    assert noisy.check(**given) == noisy.Noisy(0.3, 2.0, 0.1, 0.5, 7, 3)
    with pytest.raises(BadInput, match=why):
        noisy.check(**{**given, **changes})


def test_a_radius_holds_the_interval_of_the_vote():
    votes = np.zeros((1000, 3), int)
    votes[:500, 1], votes[:10, 2] = 1, 1
    winner, radii = noisy.radii(votes, vote(100.0, 1.0, 1), range(1, 200), 0.999)
    least = stats.binomtest(1000, 1000).proportion_ci(0.999, "exact").low
    assert winner.tolist() == [0, 0, 0] and radii[1] == -1 and radii[0] > radii[2] > 0
    assert radii[0] == np.floor(stats.norm.ppf(least) * 100 / 2)
    assert noisy.radii(votes, vote(0.1, 1 / 36, 1440), [1, 2], 0.999)[1].tolist() == [0, -1, 0]  # the paper's noise


# --- the command ---


def test_attacks_on_the_subtask_stay_above_their_certificates_and_a_false_one_breaks(subtask):
    dataset = stability.centred(subtask)
    one = stability.Training("lr", "sgd", Shaping.clip(0.1), 0.05, 300, SEED)
    certified = certificate(stability.Trainings(dataset, [one]), 2)
    origin = subtask.x_test[0] - dataset.x_test[0]
    sets = substitution.sets_of([], dataset, origin, certified, 1080, SEED)
    assert list(sets) == [*substitution.BUILT_IN]
    trainings = stability.Trainings(dataset, [one] * len(sets))
    found = pd.DataFrame(
        {"attack": name, **held(certified, dataset, u, 1080)}
        for name, u in zip(sets, end(trainings, stability.substituted(dataset, list(sets.values())), 2))
    ).set_index("attack")
    assert (found.moved / found.bound)["push:1"] > 0.8 and found.acc.min() < found.clean_acc.min() - 0.01
    for name in ("push-in-range:1", "label-flips"):
        x = sets[name][1] + origin
        assert x.min() > -1e-6 and x.max() < 1 + 1e-6
    too_sure = replace(certified, reach=certified.reach / 20)
    u = end(trainings, stability.substituted(dataset, list(sets.values())), 2)
    assert too_sure.held_against(u[list(sets).index("push:1")], dataset, 1080)["broken"] > 0


def test_certified_accuracies_count_right_rows_alone():
    right, radii = np.array([True, True, False, True]), np.array([5, 0, 9, -1])
    assert certified_accuracies(right, radii, [0, 1, 5, 6]).tolist() == [0.5, 0.25, 0.25, 0.0]


def test_the_command_goes_on_from_what_is_finished_and_writes_the_same_bytes(workplace):
    few = ("--poisons", "10", "540")
    plain = (*CERTIFY, "--certificate", "stability", "--shaping", "0.1", "1", *few)
    workplace.succeed(*plain, "--epochs", "1")
    workplace.succeed(*plain, "--epochs", "2", "1")
    written = workplace.written()
    (name,) = written
    assert name == "certificates/fashion_mnist_3_4.1.0_stability.csv"
    assert "finished before" in workplace.succeed(*plain, "--epochs", "2").stderr and workplace.written() == written
    (workplace.results / name).unlink()
    workplace.succeed(*plain, "--epochs", "1", "2")
    assert workplace.written() == written
    frame = pd.read_csv(io.BytesIO(written[name]))
    assert list(frame) == kept.FRONTIER and len(frame) == 2 * 2 * 2 * 2
    assert (frame.certified_acc <= frame.clean_acc).all() and (frame.certified_acc[frame.poisons == 540] > 0.6).any()

    (workplace.results / name).write_text("dataset\nsubtask\n")
    assert "damaged" in refused(workplace.run(*plain, "--epochs", "1"))


def test_the_report_sets_certificates_beside_attacks(workplace):
    few = ("--poisons", "10", "540")
    workplace.succeed(*CERTIFY, "--certificate", "stability", "--shaping", "0.1", "1", "--epochs", "1", *few)
    workplace.succeed(*CERTIFY, "--certificate", "partition", "--parts", "20", "--epochs", "5", *few)
    noise = (*CERTIFY, "--certificate", "noisy", "--epochs", "1", *few)
    workplace.succeed(*noise, "--shaping", "0.1:500", "--models", "60", "--learning-rate", "0.1")
    workplace.succeed(*noise, "--shaping", "4:0.1", "--rate", "0.02", "--unanimous")
    attacks = (*CERTIFY, "--certificate", "stability", "--attacks", "--epochs", "1", "--poison-file", SLABS)
    workplace.succeed(*attacks, "--shaping", "0.1", "--poisons", "540")
    found = {path: pd.read_csv(io.BytesIO(text)) for path, text in workplace.written().items()}
    again = workplace.succeed(*attacks[:-2], "--shaping", "0.1", "--poisons", "540")
    other = SLABS.parents[1] / "slabs-release" / SLABS.name
    assert "finished before" in again.stderr
    more = workplace.succeed(*attacks, other, "--shaping", "0.1", "--poisons", "540")
    assert "finished before" not in more.stderr
    found = {path: pd.read_csv(io.BytesIO(text)) for path, text in workplace.written().items()}
    of_attacks = found["certificates/fashion_mnist_3_4.1.0_attacks.csv"]
    assert (
        set(of_attacks.attack) == {*substitution.BUILT_IN, "slabs", "slabs-release"} and (of_attacks.broken == 0).all()
    )

    workplace.succeed("python3", "report.py")
    table = pd.read_csv(workplace.results / "tables/certificates.csv")
    assert set(table.certificate) == set(kept.CERTIFICATES) and len(table) == 2 * 2 + 1 + 2
    assert (workplace.results / "figures/certificates.png").exists()
    judged = pd.read_csv(workplace.results / "tables/certificates_attacked.csv")
    assert judged.proven.between(0, 1).all() and judged.poisons.tolist() == [540]
    (workplace.results / "certificates/fashion_mnist_3_4.1.0_noisy.csv").write_text("dataset\nsubtask\n")
    assert "damaged" in workplace.report().stderr


@pytest.mark.parametrize(
    "options, why",
    [
        (("stability", "--optimizer", "adam", "--shaping", "1"), "--optimizer adam"),
        (("stability", "--shaping", "1", "--learning-rate", "0.2"), "give at most 0.0726"),
        (("stability", "--shaping", "undefended"), "not a clip norm alone"),
        (("stability", "--shaping", "1", "--network", "shallow-mlp"), "has hidden layers"),
        (("stability", "--shaping", "1", "--poisons", "10801"), "has 10800 training rows"),
        (("partition", "--parts", "10801"), "10801 buckets for 10800 rows"),
        (("partition", "--network", "badnet"), "train one at a time"),
        (("partition", "--attacks"), "of a stability certificate"),
        (("stability", "--shaping", "1", "--unanimous"), "of a noisy vote"),
        (("noisy", "--shaping", "1"), "not a clip norm with noise"),
        (("stability", "--shaping", "1", "--poison-file", SLABS), "is for --attacks"),
    ],
)
def test_what_cannot_be_certified_is_refused_and_nothing_is_written(workplace, options, why):
    assert why in refused(workplace.run(*CERTIFY, "--certificate", *options))
    assert not list(workplace.results.rglob("*.csv"))


def test_the_best_settings_are_chosen_by_held_out_rows():
    line = dict.fromkeys(kept.SETTINGS, np.nan) | dict.fromkeys(kept.TEXTS, "same")
    line |= {"dataset": "d", "certificate": "partition", "seed": 1, "source": "s"}
    lines = pd.DataFrame(
        {**line, "parts": parts, "spread": 1, "poisons": count, "clean_acc": 0.9, "held_out_acc": 0.9,
         "certified_acc": test, "held_out_certified_acc": held_out}
        for parts, count, test, held_out in [
            (10, 1, 0.8, 0.6), (20, 1, 0.7, 0.65), (10, 5, 0.2, 0.5), (20, 5, 0.3, 0.4)
        ]
    )  # fmt: skip
    table = report.frontier(lines)
    assert table.set_index("parts").best_at.to_dict() == {10: "5", 20: "1"}
    assert report.best_of_each(table).partition.to_dict() == {1: 0.7, 5: 0.2}


def test_no_kept_attack_is_below_its_certificate():
    _, attacks, _ = kept.read_all()
    attacks = attacks[attacks.source.str.contains("attacks")]
    assert len(attacks) and (attacks.broken == 0).all() and (attacks.acc >= attacks.certified_acc).all()
    assert (attacks.moved <= attacks.bound).all()
