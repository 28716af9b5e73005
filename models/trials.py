"""The trials of a targeted attack: re-trainings of one clean model, each on some of a target's poisons, as replicas of
a stack.

A trial succeeds when, at the end of any epoch, the model takes the target for the wanted class; it then leaves the
stack. In mode `oneshot` trial k sees the k-th poison alone, in mode `multipoison` the first k together. Trial 0 sees
none: what it does, the poisons did not. It is the same training for all targets of a clean model (`control`). Most
targets fall to their first poison: where the first success ends a target, trial 1 of many run as one stack (`firsts`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from datasets import Dataset
from models import minibatches, stack

# Trials that train together: the first alone, since most targets fall to it, then few; then as many as a core's cache
# holds, again and again
GROUPS = (1, 4, 48)
# Targets of a network without hidden layers that train together, or a multiple of it, so that none's outcome depends on
# the others: numbers that fill no vector register are computed otherwise, and a re-training enlarges a last bit
TOGETHER = 16


@dataclass(frozen=True)
class Trial:
    """A trial's end: at its success or, without one, after the last epoch, or when it diverged.

    poison: its number; probabilities: float32 [classes] of the target; test_acc: of the re-trained model, NaN when it
    diverged.
    """

    poison: int
    success: bool
    probabilities: np.ndarray
    epoch: int
    test_acc: float


@dataclass(frozen=True)
class Setting:
    """What the trials of all targets share: the clean rows, mode, batch size, epochs and seed of the order.

    epochs: after how many a trial ends that has not succeeded; several are the same trainings, each ended so early.
    most: how many trials may run as one stack (`models.memory`).
    """

    dataset: Dataset
    mode: str
    batch_size: int
    epochs: tuple[int, ...]
    seed: int
    most: int | None = None


@dataclass(frozen=True)
class Control:
    """Trial 0 of many targets: what the model makes of each after every epoch of a re-training without poison.

    probabilities: float32 [epochs, targets, classes]; accuracies: float64 [epochs], NaN once it has diverged, after
    which nothing is there.
    """

    probabilities: np.ndarray
    accuracies: np.ndarray

    def trial(self, place: int, wanted: int, epochs: int) -> Trial:
        """Trial 0 of the target at a place, of so many epochs."""
        probabilities, accuracies = self.probabilities[:epochs, place], self.accuracies[:epochs]
        ends = (probabilities.argmax(1) == wanted) | np.isnan(accuracies)
        last = int(ends.argmax()) if ends.any() else len(ends) - 1
        success = bool(ends[last] and not np.isnan(accuracies[last]))
        return Trial(0, success, probabilities[last], last + 1, float(accuracies[last]))


def control(engine: stack.Stack, setting: Setting, targets: list[int], poisons: int) -> Control:
    """Re-train on the clean rows in the order that trials with so many poisons see them, for all of `setting.epochs`.

    targets: rows of the test set. All of it is looked at, so that no target's last digits depend on the others.
    """
    data, probabilities, accuracies = setting.dataset, [], []
    rows = rows_of(setting, data.x_train[:1].repeat(poisons, 0), data.y_train[:1].repeat(poisons), range(1))
    test = data.x_test.reshape(len(data.x_test), -1)
    engine.reset()
    engine.keep([0])
    for _ in epochs_of(engine, setting, rows).epochs(max(setting.epochs)):
        probabilities.append(engine.probabilities(test)[0, targets])
        finite = engine.finite()[0]
        accuracies.append(float(engine.hits(data.x_test, data.y_test).mean()) if finite else np.nan)
        if not finite:
            break
    return Control(np.array(probabilities), np.array(accuracies))


def epochs_of(engine: stack.Stack, setting: Setting, rows: minibatches.Rows) -> minibatches.Run:
    """The re-training of some trials. The row that one poison is too many, alone in a last batch and so a step of its
    own, would cost a model 2 points of accuracy.
    """
    batches = partial(minibatches.shuffled, batch_size=setting.batch_size, seed=setting.seed, short_last=False)
    return minibatches.Run(engine, rows, batches)


def groups(trials: int, most: int | None = None, first: int = 0) -> Iterator[range]:
    """The trials `first` to `trials` in groups, of `most` at most."""
    sizes = itertools.chain(GROUPS[first > 1 : -1], itertools.repeat(GROUPS[-1]))
    while first <= trials:
        size = min(next(sizes), most or trials + 1, trials + 1 - first)
        yield range(first, first + size)
        first += size


def rows_of(setting: Setting, x: np.ndarray, y: np.ndarray, trials: range) -> minibatches.Rows:
    """The rows that a group of trials sees: the clean ones, and of the poisons x, y those that each of the trials
    takes.

    A oneshot trial's poison takes the same place in an epoch's order as every other's; of several poisons each has its
    own place, which stays empty for a trial that does not see it. So a trial is the same in whatever group it runs.
    """
    poison = np.arange(len(y))
    if setting.mode == "oneshot":
        poison = np.array([trial - 1 for trial in trials if trial] or range(min(1, len(y))), int)
        seen, places = poison[:, np.newaxis] + 1 == np.array(trials), np.zeros(len(poison), int)
    else:
        seen, places = poison[:, np.newaxis] + 1 <= np.array(trials), poison
    return beside_clean(setting.dataset, x[poison], y[poison], seen, places)


def beside_clean(data: Dataset, x: np.ndarray, y: np.ndarray, seen: np.ndarray, places: np.ndarray) -> minibatches.Rows:
    """The clean rows, which every trial sees, and poisons x, y behind them.

    seen: bool [poison, trial]; places: int [poison], those behind the clean rows' that the poisons take, from 0.
    """
    clean = len(data.y_train)
    x, y = np.concatenate([data.x_train, x]), np.concatenate([data.y_train, y])
    weight = np.concatenate([np.ones((clean, seen.shape[1]), np.float32), seen.astype(np.float32)])
    slots = np.concatenate([np.arange(clean), clean + places])
    return minibatches.Rows.of(x, y, np.arange(len(y)) >= clean, seen.shape[1], weight, slots)


def firsts(
    engine: stack.Stack, setting: Setting, x: np.ndarray, y: np.ndarray, places: int, targets: np.ndarray, wanted: int
) -> list[dict[int, Trial]]:
    """Trial 1 of several targets, a replica each, as `run` would run it: by `setting.epochs`, for each target.

    engine: a stack of as many replicas as targets, rounded up to a multiple of TOGETHER, or more; x, y: each target's
    first poison; places: how many places the poisons of a target take in an epoch's order, the same for all; targets:
    float32 [target, ...].
    """
    asked = len(y)
    count = -(-asked // TOGETHER) * TOGETHER
    x, y, targets = (values[np.arange(count) % asked] for values in (x, y, targets))
    # behind the poisons one that no target sees, at the last place
    x, y, seen = np.concatenate([x, x[:1]]), np.append(y, y[0]), np.eye(count + 1, count, dtype=bool)
    rows = beside_clean(setting.dataset, x, y, seen, np.append(np.zeros(count, int), places - 1))
    found = run_group(engine, setting, rows, [1] * count, targets, wanted, False, TOGETHER)
    return [{length: its[place] for length, its in found.items()} for place in range(asked)]


def run(
    engine: stack.Stack,
    setting: Setting,
    x: np.ndarray,
    y: np.ndarray,
    target: np.ndarray,
    wanted: int,
    trials: int,
    stop_at_first: bool,
    known: dict[int, list[Trial]] | None = None,
) -> dict[int, list[Trial]]:
    """Run trials 0 to `trials` with the poisons x, y against the target; returns them in order, by `setting.epochs`.

    engine: a stack of as many replicas as a group has or more, all of one shaping, that starts from the clean model.
    stop_at_first: end with the first trial that succeeds, as if one were run after the other: those behind it are not
    returned. known: the first trials by the number of epochs, where they have been run (`Control.trial`, `firsts`).
    """
    ended: dict[int, list[Trial]] = {length: list(known[length]) if known else [] for length in setting.epochs}

    def successes(length: int) -> list[int]:
        return [trial.poison for trial in ended[length] if trial.success and trial.poison]

    for group in groups(trials, setting.most, len(ended[setting.epochs[0]])):
        lengths = tuple(length for length in setting.epochs if not (stop_at_first and successes(length)))
        if not lengths:
            break
        rows = rows_of(setting, x, y, group)
        found = run_group(engine, replace(setting, epochs=lengths), rows, group, target, wanted, stop_at_first)
        for length, its in found.items():
            ended[length] += its.values()
    for length in setting.epochs:
        if stop_at_first and successes(length):
            ended[length] = [trial for trial in ended[length] if trial.poison <= min(successes(length))]
    return {length: sorted(its, key=lambda trial: trial.poison) for length, its in ended.items()}


def run_group(
    engine: stack.Stack,
    setting: Setting,
    rows: minibatches.Rows,
    group: Sequence[int],
    targets: np.ndarray,
    wanted: int,
    stop_at_first: bool,
    multiple: int = 1,
) -> dict[int, dict[int, Trial]]:
    """Run one group to its end; see `run`. Returns the trials by their places in the group.

    targets: one for all, or one for each of the group's trials; multiple: of which the number of replicas stays one, as
    it is at the beginning; trials that have ended fill it up.
    """
    data, running, here = setting.dataset, np.array(group), np.arange(len(group))
    targets = targets.reshape(-1, rows.x.shape[1])
    ended: dict[int, dict[int, Trial]] = {length: {} for length in setting.epochs}
    waiting = {length: np.ones(len(group), bool) for length in setting.epochs}  # which trials have not ended by then
    engine.reset()
    engine.keep(range(len(group)))
    run = epochs_of(engine, setting, rows)
    for epoch, _ in run.epochs(max(setting.epochs)):
        probabilities = engine.probabilities(targets)[np.arange(len(here)), here if len(targets) > 1 else 0]
        finite = engine.finite()  # a trial that diverges ends without success
        success = finite & (probabilities.argmax(1) == wanted)
        ends = {length: waits & (success | ~finite | (epoch == length)) for length, waits in waiting.items()}
        for replica in np.flatnonzero(np.any(list(ends.values()), 0)):
            accuracy = float(engine.hits(data.x_test, data.y_test, replica).mean()) if finite[replica] else np.nan
            trial = Trial(int(running[replica]), bool(success[replica]), probabilities[replica], epoch, accuracy)
            for length in waiting:
                if ends[length][replica]:
                    ended[length][int(here[replica])] = trial
        for length, its_ends in ends.items():
            hits = running[its_ends & success & (running > 0)]
            stops = running >= hits.min() if stop_at_first and len(hits) else False
            waiting[length] &= ~(its_ends | stops)
        stays = np.any(list(waiting.values()), 0)
        if not stays.any():
            break
        left = np.sort(np.argsort(~stays, kind="stable")[: -(-stays.sum() // multiple) * multiple])
        if len(left) < len(stays):
            run.keep(left)
            running, here = running[left], here[left]
            waiting = {length: waits[left] for length, waits in waiting.items()}
    return ended
