"""The victims of an attack that tries its poisons: many small sets of distinct points, trained on at once.

A candidate is a few points and the share of the poisons at each. The victims of all candidates are replicas of one
stack, each under its own shaping: a point is a row that stands in every batch with a weight, the number of its copies
in that batch. Where a shaping deals rows out to micro-batches, a point is as many rows as it takes for all points to
reach every micro-batch: copies that stayed together would be cut off together. No test row is looked at.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from datasets import Dataset
from models import minibatches
from models.protocols import protocol
from models.shaping import Shaping
from poisons import attacks
from poisons.crafting import Poisons
from results import layout

NETWORK = "lr"  # the paper's victim of indiscriminate attacks
DRAWS = 32  # different draws of how many copies of each point a batch holds
SCORING_ROWS = 4000
LAST_EPOCHS = 5


@dataclass(frozen=True)
class Candidate:
    """A poison set: points, float [points, features] in [0, 1], their labels, int [points], and the share of the
    poisons at each, float64 [points] of sum 1.
    """

    points: np.ndarray
    labels: np.ndarray
    shares: np.ndarray


class Victims:
    """Trains logistic regressions of the paper's protocol, of each shaping one for each candidate, at once.

    epsilon: poisons per clean row; places: how many candidates a stack has room for.
    """

    def __init__(self, dataset: Dataset, epsilon: float, shapings: list[Shaping], places: int) -> None:
        self.dataset, self.epsilon, self.places, self.each = dataset, epsilon, places, len(shapings)
        self.protocol, self.shapings = protocol(dataset.name, NETWORK), shapings * places
        self.x, self.y = dataset.x_train.reshape(len(dataset.x_train), -1), dataset.y_train
        chosen = np.random.default_rng(0).permutation(len(self.y))[:SCORING_ROWS]
        self.scoring = minibatches.Rows.of(self.x[chosen], self.y[chosen], np.zeros(len(chosen), bool), 1)
        self.micro_batches = max(link.micro_batches for shaping in shapings for link in shaping.links)
        self.built = None

    def accuracies(self, candidates: list[Candidate], seed: int, epochs: int) -> np.ndarray:
        """The accuracy on clean training rows after each epoch, float64 [epochs, candidates, shapings].

        candidates: at most `places`, of equally many points.
        """
        run = self.run(candidates, seed)
        hits = [run.engine.hits(self.scoring.x, self.scoring.y).mean(1) for _ in run.epochs(epochs)]
        return np.reshape(hits, [epochs, self.places, self.each])[:, : len(candidates)]

    def run(self, candidates: list[Candidate], seed: int) -> minibatches.Run:
        """A training on the candidates from the initial weights of a seed; replicas lie candidate by candidate."""
        full = candidates + [candidates[0]] * (self.places - len(candidates))
        rows = self._rows(full, seed)
        points = (len(rows.y) - len(self.y)) // DRAWS
        return minibatches.Run(self._engine(seed), rows, self._batches(points, seed))

    def _rows(self, candidates: list[Candidate], seed: int) -> minibatches.Rows:
        """The clean rows, and DRAWS times all points, each with the number of its copies in a batch as its weight."""
        random = np.random.default_rng(seed)
        count = len(candidates[0].points)
        parts = max(1, -(-self.micro_batches // count))  # rows of a point, side by side
        points = np.concatenate([candidate.points for candidate in candidates]).astype(np.float32).repeat(parts, 0)
        weight = np.zeros((DRAWS, len(points), len(self.shapings)), np.float32)
        for index, candidate in enumerate(candidates):
            totals = random.binomial(self.protocol.batch_size, self.epsilon / (1 + self.epsilon), DRAWS)
            copies = random.multinomial(totals, candidate.shares)
            split = (copies[..., np.newaxis] + np.arange(parts)) // parts  # evenly, in whole numbers
            rows = slice(count * parts * index, count * parts * (index + 1))
            replicas = slice(self.each * index, self.each * (index + 1))
            weight[:, rows, replicas] = split.reshape(DRAWS, -1, 1)
        everyone = np.ones((len(self.y), len(self.shapings)), np.float32)
        weight = np.concatenate([everyone, weight.reshape(-1, len(self.shapings))])
        x = np.concatenate([self.x, np.tile(points, (DRAWS, 1))])
        labels = np.concatenate([candidate.labels for candidate in candidates])
        labels = np.concatenate([self.y, np.tile(labels.repeat(parts), DRAWS)])
        return minibatches.Rows.of(x, labels, np.arange(len(x)) >= len(self.y), len(self.shapings), weight)

    def _batches(self, points: int, seed: int) -> Callable[[minibatches.Rows, int], minibatches.Batches]:
        """Cuts an epoch: in each batch clean rows that leave room for the poisons, and a random draw of all points."""
        size = round(self.protocol.batch_size / (1 + self.epsilon))
        return partial(drawn_batches, clean_rows=len(self.y), size=size, points=points, seed=seed)

    def _engine(self, seed: int):
        """The stack of victims, at the initial weights of `seed`."""
        if self.built is None:
            self.built = stack_at(self.dataset, self.shapings, seed)
        else:
            self.built.reset(initial(self.dataset, seed))
        return self.built


def drawn_batches(
    rows: minibatches.Rows, epoch: int, clean_rows: int, size: int, points: int, seed: int, draws: int = DRAWS
) -> minibatches.Batches:
    """An epoch of batches of `size` clean rows, each with one of the draws of all points behind them."""
    random = np.random.default_rng([seed, epoch])
    clean = random.permutation(clean_rows)[: clean_rows // size * size].reshape(-1, size)  # whole batches only
    drawn = clean_rows + points * random.integers(draws, size=len(clean))
    order = np.concatenate([clean, drawn[:, np.newaxis] + np.arange(points)], 1).astype(np.int32)
    starts = order.shape[1] * np.arange(len(order) + 1, dtype=np.int32)
    places = np.tile(np.arange(order.shape[1], dtype=np.int32), len(order))
    return minibatches.Batches(order.reshape(-1), starts, np.full(len(clean), size, np.int32), places, epoch)


def counts(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers of sum `total` nearest to shares * total: the largest remainders are rounded up."""
    exact = shares * total
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: total - whole.sum()]] += 1
    return whole


# --- attacks that aim at bad models ---


@dataclass(frozen=True)
class Tried:
    """Candidates, of which the last is random, and the accuracy of their victims, float64 [candidates] each: on clean
    training rows, in the mean of the last epochs, and on test rows after the last, which nothing is chosen by.
    """

    candidates: list[Candidate]
    clean_accuracies: np.ndarray
    test_accuracies: np.ndarray

    @property
    def best(self) -> int:
        """The candidate that costs most accuracy, of those that are not random."""
        return int(np.argmin(self.clean_accuracies[:-1]))


def in_batch(dataset: Dataset, ratio: float) -> tuple[int, int]:
    """How many clean rows and how many poisons a batch of the victims has."""
    batch_size = protocol(dataset.name, NETWORK).batch_size
    poisons = max(1, round(batch_size * ratio / (1 + ratio)))
    return batch_size - poisons, poisons


def stack_at(dataset: Dataset, shapings: list[Shaping], seed: int):
    """A stack of victims, one of each shaping, all at the initial weights of a seed; they learn at the first's rate."""
    from models import stack
    from models.trainer import Training

    training = Training.published(dataset.name, NETWORK)
    arguments = shapings, training.optimizer, training.learning_rate(shapings[0]), seed
    return stack.Stack(initial(dataset, seed), *arguments, trusted=dataset.held_out)


def initial(dataset: Dataset, seed: int):
    """A Keras model of the victims at the initial weights of a seed."""
    from models import networks

    return networks.build(NETWORK, dataset.shape, dataset.classes, seed)


@functools.cache
def workers() -> int:
    """How many stacks of victims to train side by side; starts TensorFlow, which must be told so once."""
    from models import device

    return device.start(None, 2)


def quick(value: Shaping) -> Shaping:
    """A shaping without links that compare all pairs of rows between epochs."""
    return Shaping(tuple(phase.keep(lambda link: not link.kind.compares_rows) for phase in value.phases))


def random_candidate(dataset: Dataset, labels: np.ndarray, seed: int) -> Candidate:
    """Random clean rows under these labels: as many points that nobody crafted."""
    rows = np.random.default_rng([seed, 1]).choice(len(dataset.y_train), len(labels), replace=False)
    points = dataset.x_train[rows].reshape(len(rows), -1)
    return Candidate(points, labels, np.full(len(labels), 1 / len(labels)))


def try_on(
    dataset: Dataset,
    value: Shaping,
    ratio: float,
    points: np.ndarray,
    shares: np.ndarray,
    labels: np.ndarray,
    seed: int,
) -> Tried:
    """Train victims of a shaping on sets of points, float [sets, points, features], with labels, int [sets, points],
    and the shares of the poisons at them, float [sets, points].
    """
    candidates = [Candidate(*one) for one in zip(points, labels, shares)]
    candidates.append(random_candidate(dataset, labels[0], seed))
    victims = Victims(dataset, ratio, [value], len(candidates))
    run, history = victims.run(candidates, seed), []
    for _ in run.epochs(victims.protocol.epochs):
        history.append(run.engine.hits(victims.scoring.x, victims.scoring.y).mean(1))
    x, y = dataset.x_test.reshape(len(dataset.x_test), -1), dataset.y_test
    return Tried(candidates, np.mean(history[-LAST_EPOCHS:], 0), run.engine.hits(x, y).mean(1))


def poisons(dataset: Dataset, ratio: float, models, tried: Tried, measured: dict, notes: list[str]) -> Poisons:
    """The poison set that hurt most, with what is known of it; models: the bad models that the candidates aimed at."""
    best, total = tried.best, round(ratio * len(dataset.y_train))
    points, labels = tried.candidates[best].points, tried.candidates[best].labels
    numbers = {
        "target_test_acc": models.test_accuracies[best],
        **measured,
        "victim_test_acc": tried.test_accuracies[best],
        "random_test_acc": tried.test_accuracies[-1],
    }
    return Poisons(
        labels,
        instances=points.reshape(-1, *dataset.shape),
        counts=counts(tried.candidates[best].shares, total),
        measured={"target": models.names[best], **{name: round(float(value), 6) for name, value in numbers.items()}},
        pictures=[(f"class {label}", point) for label, point in zip(labels, points)],
        notes=[
            *notes,
            f"a victim keeps {tried.test_accuracies[best]:.4f}, on random rows {tried.test_accuracies[-1]:.4f}",
        ],
    )


def file(dataset_name: str, settings: dict) -> Path:
    """E.g. adaptive/gradient-canceling/fashion_mnist_3_4.1.0_gradient-canceling_0.1_shaping_phuber_2.npz."""
    attack = attacks()[settings["attack"]]
    name = f"{dataset_name}_{attack.name}_{settings['ratio']}{attack.unusual(settings)}"
    return layout.POISONS / "adaptive" / attack.name / f"{layout.seeded(name, settings['seed'])}.npz"
