"""Trials as replicas of a stack that shrinks: each is what it would be alone, whatever runs beside it."""

import dataclasses

import numpy as np
import pytest

from models import device

device.start()

from models import minibatches, networks, stack, trials  # noqa: E402
from models.shaping import UNDEFENDED, Shaping  # noqa: E402

EPOCHS, POISONS = 4, 14


@pytest.fixture(scope="module")
def small(purchases):
    """A data set of 420 rows of 12 classes, so many that logits lie by row: a re-training takes a moment, and the order
    has a remainder of a batch.
    """
    train, test = (np.flatnonzero(y < 12)[:420] for y in (purchases.y_train, purchases.y_test))
    return dataclasses.replace(
        purchases,
        classes=12,
        x_train=purchases.x_train[train],
        y_train=purchases.y_train[train],
        x_test=purchases.x_test[test],
        y_test=purchases.y_test[test],
    )


@pytest.fixture(scope="module")
def poisons(small):
    """Poisons ever nearer to the target: labels of class 4 on blends of the target and rows of that class."""
    base, shares = (
        small.x_train[small.y_train == 4][:POISONS],
        np.linspace(0.2, 1.0, POISONS, dtype=np.float32)[:, np.newaxis],
    )
    return (shares * target_of(small) + (1 - shares) * base).astype(np.float32), np.full(POISONS, 4, np.int32)


def target_of(small):
    return small.x_test[small.y_test == 3][0]


@pytest.fixture(scope="module")
def clean(small):
    """A logistic regression, trained on the clean rows for 5 epochs."""
    model = networks.build("lr", (100,), 12, 215)
    engine, rows = (
        stack.Stack(model, [UNDEFENDED], "adam", 0.04, 215),
        minibatches.Rows.of(small.x_train, small.y_train, np.zeros(420, bool), 1),
    )
    for epoch in range(1, 6):
        engine.train_epoch(rows, minibatches.shuffled(rows, 50, 215, epoch))
    model.set_weights(engine.weights(0))
    return model


def run(small, clean, poisons, mode, shaping=UNDEFENDED, stop_at_first=False, wanted=4, replicas=40, epochs=EPOCHS):
    engine = stack.Stack(clean, [shaping] * replicas, "adam", 0.04, 215)
    setting = trials.Setting(small, mode, 50, (epochs,), 215)
    return trials.run(engine, setting, *poisons, target_of(small), wanted, POISONS, stop_at_first)[epochs]


def alone(small, clean, x, y, places, shaping, epochs):
    """Re-train on the clean rows and these poisons at these places, a training of its own.

    Yields the target's probabilities and the test accuracy.
    """
    engine = stack.Stack(clean, [shaping], "adam", 0.04, 215)
    x, y = np.concatenate([small.x_train, x]), np.concatenate([small.y_train, y])
    rows = minibatches.Rows.of(x, y, np.arange(len(y)) >= 420, 1, slots=np.concatenate([np.arange(420), places]))
    for epoch in range(1, epochs + 1):
        engine.train_epoch(rows, minibatches.shuffled(rows, 50, 215, epoch, short_last=False))
        yield engine.probabilities(target_of(small)[np.newaxis])[0, 0], engine.hits(small.x_test, small.y_test).mean()


@pytest.mark.parametrize("shaping", [UNDEFENDED, Shaping.clip(0.5), Shaping.clip(1.0, 0.05)])
def test_a_oneshot_trial_is_a_training_on_its_poison_alone(shaping, small, clean, poisons):
    ended = run(small, clean, poisons, "oneshot", shaping)
    assert [trial.poison for trial in ended] == list(range(POISONS + 1))
    for trial in (ended[1], ended[9], ended[POISONS]):  # of both groups
        x, y = (values[trial.poison - 1 : trial.poison] for values in poisons)
        history = list(alone(small, clean, x, y, [420], shaping, trial.epoch))
        assert (
            np.allclose(trial.probabilities, history[-1][0], atol=2e-4) and abs(trial.test_acc - history[-1][1]) < 0.01
        )
        assert trial.success == (history[-1][0].argmax() == 4)
        assert not any(probabilities.argmax() == 4 for probabilities, _ in history[:-1])
        assert trial.success or trial.epoch == EPOCHS


def test_a_multipoison_trial_is_a_training_on_the_first_poisons(small, clean, poisons, monkeypatch):
    monkeypatch.setattr(trials, "GROUPS", (4, 40))
    ended = run(small, clean, poisons, "multipoison", Shaping.clip(0.2), epochs=2)
    for trial in (ended[2], ended[8]):
        x, y = (values[: trial.poison] for values in poisons)
        engine_rows = trials.rows_of(
            trials.Setting(small, "multipoison", 50, (2,), 215), *poisons, range(trial.poison, trial.poison + 1)
        )
        assert engine_rows.weight.numpy()[420:, 0].tolist() == [1] * trial.poison + [0] * (POISONS - trial.poison)
        engine = stack.Stack(clean, [Shaping.clip(0.2)], "adam", 0.04, 215)
        for epoch in range(1, trial.epoch + 1):
            engine.train_epoch(engine_rows, minibatches.shuffled(engine_rows, 50, 215, epoch, short_last=False))
        assert np.allclose(trial.probabilities, engine.probabilities(target_of(small)[np.newaxis])[0, 0], atol=2e-4)


def test_the_control_sees_no_poison_and_changes_nothing_for_the_others(small, clean, poisons):
    ended = run(small, clean, poisons, "multipoison")
    history = list(alone(small, clean, *(values[:0] for values in poisons), np.arange(0), UNDEFENDED, EPOCHS))
    control = ended[0]
    assert control.poison == 0 and not control.success and control.epoch == EPOCHS
    # the orders differ by the places of poisons, the verdict does not
    assert control.probabilities[3] > 0.5 and history[-1][0][3] > 0.5


@pytest.mark.parametrize("mode", ["oneshot", "multipoison"])
def test_stopping_at_the_first_success_is_the_start_of_the_whole(mode, small, clean, poisons):
    whole = run(small, clean, poisons, mode, epochs=12)
    stopped = run(small, clean, poisons, mode, stop_at_first=True, epochs=12)
    first = min((trial.poison for trial in whole if trial.success and trial.poison), default=None)
    assert first is not None and len(stopped) == first + 1 and stopped[-1].success
    for early, late in zip(stopped, whole):
        assert (early.poison, early.success, early.epoch) == (late.poison, late.success, late.epoch)
        assert np.allclose(early.probabilities, late.probabilities, atol=2e-4)


@pytest.mark.parametrize("mode", ["oneshot", "multipoison"])
@pytest.mark.parametrize("stop_at_first", [False, True])
def test_several_numbers_of_epochs_are_one_training(mode, stop_at_first, small, clean, poisons, monkeypatch):
    """The first success within 3 epochs, where there is one, is of a later poison than that within 12."""
    lengths, trained = (12, 3, 1), []
    train_epoch = stack.Stack.train_epoch
    monkeypatch.setattr(trials, "GROUPS", (4, 5))
    apart = {length: run(small, clean, poisons, mode, stop_at_first=stop_at_first, epochs=length) for length in lengths}
    monkeypatch.setattr(stack.Stack, "train_epoch", lambda *arguments: trained.append(1) or train_epoch(*arguments))
    engine = stack.Stack(clean, [UNDEFENDED] * 5, "adam", 0.04, 215)
    setting = trials.Setting(small, mode, 50, lengths, 215)
    together = trials.run(engine, setting, *poisons, target_of(small), 4, POISONS, stop_at_first)
    assert set(together) == set(lengths)
    for length, ended in together.items():
        outcomes = [[(trial.poison, trial.success, trial.epoch) for trial in each] for each in (ended, apart[length])]
        assert outcomes[0] == outcomes[1] and max(trial.epoch for trial in ended) <= length
        for one, other in zip(ended, apart[length]):
            assert np.allclose(one.probabilities, other.probabilities, atol=2e-4)
            assert one.test_acc == pytest.approx(other.test_acc, abs=0.01)
    assert len({len(ended) for ended in together.values()}) == (2 if stop_at_first else 1)
    assert len(trained) <= 12 * len(list(trials.groups(POISONS)))


def test_an_attack_that_never_succeeds_runs_every_trial_to_its_end(small, clean, poisons):
    ended = run(small, clean, poisons, "oneshot", stop_at_first=True, wanted=8)
    assert [(trial.poison, trial.success, trial.epoch) for trial in ended] == [
        (number, False, EPOCHS) for number in range(POISONS + 1)
    ]


def test_each_trial_has_the_accuracy_of_its_own_replica(small):
    """An engine of which replica k is right on the first 10 k rows, takes the target for class 4 from 2 on, and has
    diverged from 4 on.
    """
    left = []

    class Engine:
        def reset(self):
            pass

        def keep(self, replicas):
            left.append(list(replicas))

        def train_epoch(self, rows, epoch, record):
            pass

        def probabilities(self, x):
            return np.eye(9, dtype=np.float32)[[3, 3, 4, 4, 4]][:, np.newaxis]

        def finite(self):
            return np.arange(5) < 4

        def hits(self, x, y, replica):
            return np.arange(len(y))[np.newaxis] < 10 * replica

    setting, x = trials.Setting(small, "oneshot", 50, (1,), 215), small.x_train[:4]
    rows = trials.rows_of(setting, x, small.y_train[:4], range(5))
    ended = trials.run_group(Engine(), setting, rows, range(5), target_of(small), 4, False)[1]
    assert list(ended) == list(range(5))
    ended = list(ended.values())
    assert [trial.poison for trial in ended] == [0, 1, 2, 3, 4] and left == [list(range(5))]
    assert [trial.success for trial in ended] == [False, False, True, True, False]
    assert [trial.test_acc for trial in ended[:4]] == pytest.approx([10 * replica / 420 for replica in range(4)])
    assert np.isnan(ended[4].test_acc)


def test_trials_behind_the_first_success_are_not_run_on(small, monkeypatch):
    """Of five trials the second, on poison 1, succeeds in epoch 2: only the one before it has epochs left."""
    monkeypatch.setattr(trials, "GROUPS", (11, 40))
    here, kept, trained = [5], [], []

    class Engine:
        def reset(self):
            here[:] = [5]

        def keep(self, replicas):
            kept.append([int(replica) for replica in replicas])
            here[:] = [len(replicas)]

        def train_epoch(self, rows, epoch, record):
            trained.append((epoch.number, rows.weight.shape[1]))

        def probabilities(self, x):
            taken = [4 if replica == 1 and len(trained) == 2 else 3 for replica in range(here[0])]
            return np.eye(9, dtype=np.float32)[taken][:, np.newaxis]

        def finite(self):
            return np.ones(here[0], bool)

        def hits(self, x, y, replica):
            return np.ones((1, len(y)), bool)

    setting = trials.Setting(small, "oneshot", 50, (4,), 215)
    ended = trials.run(Engine(), setting, small.x_train[:4], small.y_train[:4], target_of(small), 4, 4, True)[4]
    assert [(trial.poison, trial.success, trial.epoch) for trial in ended] == [(0, False, 4), (1, True, 2)]
    assert kept == [[0, 1, 2, 3, 4], [0]] and trained == [(1, 5), (2, 5), (3, 1), (4, 1)]


@pytest.mark.parametrize("mode", ["oneshot", "multipoison"])
@pytest.mark.parametrize("shaping", [UNDEFENDED, Shaping.clip(1.0, 0.05)])
def test_the_control_of_all_targets_is_each_targets_own(mode, shaping, small, clean, poisons):
    engine = stack.Stack(clean, [shaping] * 40, "adam", 0.04, 215)
    setting = trials.Setting(small, mode, 50, (EPOCHS, 2), 215)
    targets = np.flatnonzero(small.y_test == 3)[:3]
    control = trials.control(engine, setting, targets.tolist(), POISONS)
    taken_for = clean.predict(small.x_test[targets], verbose=0).argmax(1)
    for place, target in enumerate(targets):
        for wanted in {4, int(taken_for[place])}:  # one that it is taken for at once
            own = trials.run(engine, setting, *poisons, small.x_test[target], wanted, POISONS, True)
            without = {length: [control.trial(place, wanted, length)] for length in setting.epochs}
            for length in setting.epochs:
                one, other = own[length][0], without[length][0]
                assert (one.poison, one.success, one.epoch) == (other.poison, other.success, other.epoch)
                assert np.allclose(one.probabilities, other.probabilities, atol=2e-4)
                assert one.test_acc == pytest.approx(other.test_acc, abs=0.01)
            known = trials.run(engine, setting, *poisons, small.x_test[target], wanted, POISONS, True, without)
            outcomes = [
                {
                    length: [(trial.poison, trial.success, trial.epoch) for trial in ended]
                    for length, ended in found.items()
                }
                for found in (own, known)
            ]
            assert outcomes[0] == outcomes[1]


def test_a_control_that_diverges_ends_there(small):
    probabilities = np.eye(9, dtype=np.float32)[[[3, 5], [3, 4], [0, 0]]]
    control = trials.Control(probabilities, np.array([0.5, 0.6, np.nan]))
    assert [(one.success, one.epoch) for one in (control.trial(0, 4, 50), control.trial(1, 4, 50))] == [
        (False, 3),
        (True, 2),
    ]
    assert np.isnan(control.trial(0, 4, 50).test_acc) and control.trial(0, 4, 2).test_acc == 0.6
    assert not control.trial(0, 0, 3).success  # what a diverged model says is none


def test_groups_hold_every_trial_once(monkeypatch):
    for count in (1, 3, 4, 10, 11, 51, 100, 101):
        assert [trial for group in trials.groups(count) for trial in group] == list(range(count + 1))
        assert [trial for group in trials.groups(count, first=1) for trial in group] == list(range(1, count + 1))
    monkeypatch.setattr(trials, "GROUPS", (1, 1))
    assert [list(group) for group in trials.groups(2)] == [[0], [1], [2]]


@pytest.mark.parametrize("mode", ["oneshot", "multipoison"])
@pytest.mark.parametrize("shaping", [UNDEFENDED, Shaping.clip(1.0, 0.05)])
def test_first_trials_of_several_targets_are_each_targets_own(mode, shaping, small, clean, poisons):
    """Targets of two classes, poisons that differ: some fall within 3 epochs, some later, some not."""
    engine = stack.Stack(clean, [shaping] * 16, "adam", 0.04, 215)
    setting = trials.Setting(small, mode, 50, (12, 3), 215)
    targets = small.x_test[np.isin(small.y_test, (3, 5))][:8]
    x, y = poisons
    x = np.stack([0.9 * target + 0.1 * x for target in targets]).astype(np.float32)  # each target's own
    found = trials.firsts(engine, setting, x[:, 3], y[:8], POISONS if mode == "multipoison" else 1, targets, 4)
    ends = []
    for target, its_poisons, first in zip(targets, x, found):
        alike = its_poisons[3:4].repeat(POISONS, 0)
        own = trials.run(engine, setting, alike, y, target, 4, POISONS, False)
        for length in setting.epochs:
            one, other = first[length], own[length][1]
            assert (one.poison, one.success, one.epoch) == (other.poison, other.success, other.epoch)
            assert np.allclose(one.probabilities, other.probabilities, atol=2e-4)
            assert one.test_acc == pytest.approx(other.test_acc, abs=0.01)
            ends.append((length, one.success))
    assert len(set(ends)) >= 3


def test_a_target_falls_as_it_does_among_others(small, clean, poisons):
    engine = stack.Stack(clean, [Shaping.clip(1.0, 0.05)] * 32, "adam", 0.04, 215)
    setting = trials.Setting(small, "oneshot", 50, (8,), 215)
    targets = small.x_test[np.isin(small.y_test, (3, 5))][:17]
    x, y = (0.9 * targets + 0.1 * poisons[0][3]).astype(np.float32), np.full(17, 4, np.int32)
    among, ends = trials.firsts(engine, setting, x, y, 1, targets, 4), set()
    for chosen in ([0], [16, 3], list(range(0, 17, 2))):
        found = trials.firsts(engine, setting, x[chosen], y[chosen], 1, targets[chosen], 4)
        for place, one in zip(chosen, found):
            assert one[8].epoch == among[place][8].epoch and one[8].test_acc == among[place][8].test_acc
            assert one[8].probabilities.tobytes() == among[place][8].probabilities.tobytes()
            ends.add(one[8].epoch)
    assert len(ends) > 2  # so that the stack has shrunk
