"""The stability of clipped SGD: how far r substituted rows can move a logistic regression of two classes.

Let u = w_1 - w_0 be the difference of the two classes' weights and x~ = (x, 1). A step of SGD on batch B moves w_0 and
w_1 against eta times the mean over B of the rows' clipped gradients, and u by the difference of both. One row
contributes at most sqrt(2) eta C / b to it, so a substituted one at most twice as much; and a step on the rows that
both trainings share brings two models no further apart, as long as

    eta * mean over the batch of |x~|^2 <= 4                                                    (non-expansive)

So after E epochs the models of a clean and of a poisoned training are at most

    S(r) = r * E * 2 sqrt(2) eta C / b

apart, and a prediction is certain when |u . x~| > S(r) |x~|. The proof is in docs/certificates.md; its parts are Hardt,
Recht and Singer 2016 (arXiv 1509.01240) and Wu et al. 2017 (arXiv 1606.04722). Every assumption is looked up on the
training itself, batch by batch, and a training that breaks one is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from command_line import refuse
from datasets import TRUSTED, Dataset
from models import minibatches, protocols
from models.certificates import certified_accuracies
from models.shaping import Shaping

LARGEST_STEP = 4.0  # of eta * mean |x~|^2: a row's loss is |x~|^2 / 4 smooth in w_1 for itself, twice that in u
LARGEST_FEATURE = 1e15  # of a row, clean or not: the squares of larger ones leave float32
ROUNDING = 1e-4  # of |u|: what float32 may move a model by; tests find a tenth of that


@dataclass(frozen=True)
class Training:
    """What a certified training is set to.

    decay: the weights are multiplied by it after each epoch, above 0 and up to 1, which is none.
    """

    network: str
    optimizer: str
    shaping: Shaping
    learning_rate: float
    batch_size: int
    seed: int
    decay: float = 1.0


@dataclass(frozen=True)
class Certificate:
    """A model and how far one substituted row can move it.

    u: float64 [features + 1], the difference of the classes' weights and, last, of their biases; reach: S(1).
    """

    u: np.ndarray
    reach: float

    def radii(self, x: np.ndarray) -> np.ndarray:
        """The radius of the prediction of every row, int64 [rows]; x: float [rows, ...], centred as in training."""
        extended = extend(x)
        slack = np.abs(extended @ self.u) / np.linalg.norm(extended, axis=1) - ROUNDING * np.linalg.norm(self.u)
        return np.maximum(np.ceil(slack / self.reach).astype(np.int64) - 1, -1)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The class of every row, int [rows]."""
        return (extend(x) @ self.u > 0).astype(int)

    def held_against(self, u: np.ndarray, dataset: Dataset, count: int) -> dict:
        """What an attack by `count` rows, which ended at the model u, did to this certificate, on test rows.

        moved: the distance; bound: S(count); broken: certain predictions that it changed, of which there must be none.
        """
        before, after = (extend(dataset.x_test) @ model > 0 for model in (self.u, u))
        right, radii = before == dataset.y_test, self.radii(dataset.x_test)
        return {
            "clean_acc": right.mean(), "certified_acc": certified_accuracies(right, radii, [count])[0],
            "acc": (after == dataset.y_test).mean(), "moved": np.linalg.norm(u - self.u), "bound": count * self.reach,
            "broken": int(((before != after) & (radii >= count)).sum()),
        }  # fmt: skip


def extend(x: np.ndarray) -> np.ndarray:
    """x~ = (x, 1), float64 [rows, features + 1]; x: [rows, ...]."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    return np.hstack([flat, np.ones((len(x), 1))])


def centred(dataset: Dataset) -> Dataset:
    """The data set less the mean of its trusted held-out rows, which no attacker touches; as it is where it has none.

    It makes |x~| small, and with it both the reach of a step on a prediction and the smoothness of a batch.
    """
    if dataset.held_out is None:
        return dataset
    x, y = dataset.held_out
    mean = x[:TRUSTED].mean(0, dtype=np.float64).astype(np.float32)
    return replace(dataset, x_train=dataset.x_train - mean, x_test=dataset.x_test - mean, held_out=(x - mean, y))


def check(training: Training, dataset: Dataset) -> None:
    """Refuse what the proof does not hold for, as far as it can be told before training."""
    shaping = training.shaping
    check_convex(training.network, dataset)
    if training.optimizer != "sgd":
        refuse(f"--optimizer {training.optimizer}: its steps are not bounded by the clip norm; certify sgd")
    if not math.isfinite(shaping.clip_norm) or shaping.kind != "clip" or shaping.noise_std:
        refuse(f"--shaping {shaping.text}: not a clip norm alone, which bounds the reach of a row; give e.g. 0.1")
    if not 0 < training.decay <= 1:
        refuse(f"--decay {training.decay}: a factor above 1 moves models apart; give one above 0 and up to 1")


def check_range(x: np.ndarray) -> None:
    """Refuse rows with features that are no numbers or too large to compute with: no certificate covers them."""
    if not np.abs(x).max(initial=0) <= LARGEST_FEATURE:
        refuse(f"a training row has a feature that is no number, or beyond {LARGEST_FEATURE:g}; leave such rows out")


def check_convex(network: str, dataset: Dataset) -> None:
    """Refuse all but a logistic regression of two classes."""
    if protocols.network(network) != protocols.NETWORKS["lr"]:
        refuse(f"--network {network}: has hidden layers, whose loss is not convex; certify lr")
    if dataset.classes != 2:
        refuse(
            f"--dataset {dataset.name}: {dataset.classes} classes, whose clipped gradients are no convex loss's;"
            " choose a data set of two classes"
        )


def check_steps(training: Training, dataset: Dataset, epochs: int) -> None:
    """Refuse a learning rate at which a step of any of these epochs could move two models apart; dataset: centred.

    A batch of which some rows are substituted has fewer shared ones, whose sum is smaller, and the same divisor: it
    needs no check of its own.
    """
    count, squares = len(dataset.y_train), (extend(dataset.x_train) ** 2).sum(1)
    rows = minibatches.Rows(None, None, np.zeros(count, bool), None, None, np.arange(count))  # by their places alone
    largest = 0.0
    for epoch in range(1, epochs + 1):
        plan = minibatches.shuffled(rows, training.batch_size, training.seed, epoch)
        means = np.add.reduceat(squares[plan.order], plan.starts[:-1]) / np.diff(plan.starts)
        largest = max(largest, float(means.max()))
    if training.learning_rate * largest > LARGEST_STEP:
        allowed = math.floor(LARGEST_STEP / largest * 1e4) / 1e4
        refuse(
            f"--learning-rate {training.learning_rate}: times the mean |x~|^2 of a batch, {largest:.5g}, it is above"
            f" {LARGEST_STEP:g}, and a step may move two models apart; give at most {allowed:g}"
        )


class Trainings:
    """Trainings that differ in their clip norm, as one stack from zero weights; poisoned ones may be among them."""

    def __init__(self, dataset: Dataset, alike: list[Training]) -> None:
        """dataset: centred; alike: as many as there are replicas, of one learning rate, batch size, seed and decay."""
        from models import networks, stack

        self.dataset, self.alike, self.one = dataset, alike, alike[0]
        check_range(dataset.x_train)
        for training in alike:
            check(training, dataset)
        model = networks.build(self.one.network, dataset.shape, dataset.classes, self.one.seed)
        model.set_weights([np.zeros_like(values) for values in model.get_weights()])
        shapings = [training.shaping for training in alike]
        self.engine = stack.Stack(model, shapings, self.one.optimizer, self.one.learning_rate, self.one.seed)
        self.batches = partial(minibatches.shuffled, batch_size=self.one.batch_size, seed=self.one.seed)

    def epochs(self, count: int, rows: minibatches.Rows | None = None) -> Iterator[np.ndarray]:
        """Train from the start; yields u after each epoch, float64 [replica, features + 1].

        rows: those of poisoned trainings (`substituted`); the clean ones without. Refuses what the proof does not hold
        for, batch by batch.
        """
        data, engine = self.dataset, self.engine
        clean = minibatches.Rows.of(data.x_train, data.y_train, np.zeros(len(data.y_train), bool), len(engine.shapings))
        check_steps(self.one, data, count)
        engine.reset()
        for epoch in range(1, count + 1):
            engine.train_epoch(rows or clean, self.batches(rows or clean, epoch=epoch))
            if self.one.decay < 1:
                for values in engine.parameters:
                    values.assign(values * np.float32(self.one.decay))
            (kernel,), (bias,) = engine.kernels, engine.biases
            weights = np.concatenate([kernel.numpy(), bias.numpy()[..., np.newaxis]], -1).astype(np.float64)
            yield weights[:, 1] - weights[:, 0]

    def reach(self, clip_norm: float, epochs: int, averaged: bool) -> float:
        """S(1) after so many epochs of this training."""
        rows, size = len(self.dataset.y_train), self.one.batch_size
        smallest = rows % size or min(rows, size)
        step = 2 * math.sqrt(2) * self.one.learning_rate * clip_norm / smallest
        ends, reached = [], 0.0
        for _ in range(epochs):
            reached = self.one.decay * (reached + step)
            ends.append(reached)
        return float(np.mean(ends)) if averaged else ends[-1]


def certificates(trainings: Trainings, epochs: list[int]) -> Iterator[tuple]:
    """Train once and yield (`Training`, epochs, averaged, `Certificate`) of each training and number of epochs, of the
    last model and of the mean over epochs.
    """
    total: Any = 0.0
    for epoch, u in enumerate(trainings.epochs(max(epochs)), 1):
        total = total + u
        if epoch in epochs:
            for replica, one in enumerate(trainings.alike):
                for averaged, models in ((False, u), (True, total / epoch)):
                    reach = trainings.reach(one.shaping.clip_norm, epoch, averaged)
                    yield one, epoch, averaged, Certificate(models[replica], reach)


def substituted(dataset: Dataset, sets: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> minibatches.Rows:
    """The rows of a stack whose k-th replica has the k-th set's poisons in place of clean rows.

    sets: of (numbers of the replaced rows, int [poisons]; x, float32 [poisons, *shape], centred; y, int [poisons]).
    A poison takes the place of the row that it replaces in every epoch.
    """
    clean = len(dataset.y_train)
    x = np.concatenate([dataset.x_train, *(x for _, x, _ in sets)])
    check_range(x)
    y = np.concatenate([dataset.y_train, *(y for _, _, y in sets)])
    slots = np.concatenate([np.arange(clean), *(rows for rows, _, _ in sets)])
    weight, first = np.zeros((len(y), len(sets)), np.float32), clean
    weight[:clean] = 1
    for replica, (rows, _, labels) in enumerate(sets):
        weight[rows, replica] = 0
        weight[first : first + len(labels), replica] = 1
        first += len(labels)
    return minibatches.Rows.of(x, y, np.arange(len(y)) >= clean, len(sets), weight, slots)
