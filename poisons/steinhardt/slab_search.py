"""Crafting the slab attack: from models to candidate sets by the semidefinite program, and which of them to keep.

Two rules over the same constraints:
    training_loss    the released one (Steinhardt et al. 2017): candidates along one run of dual averaging, kept by the
                     clean training loss of a hinge-loss model trained on clean rows and poisons
    victim           the real victim in the loop: the model to craft against and the shares are varied by CMA-ES so that
                     the victim's own accuracy, undefended and under tight clipping, falls on clean TRAINING rows; no
                     test row is looked at

A candidate is four points and the share of the poisons at each. The victims of all candidates of a generation are
replicas of two stacks: a point is a row that stands in every batch with a weight, the number of its copies in that
batch.
"""

from __future__ import annotations

import concurrent.futures
import functools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import cma
import numpy as np

from command_line import refuse
from datasets import Dataset
from models import minibatches
from poisons.steinhardt import slab_program
from poisons.steinhardt.defences import Defence
from poisons.steinhardt.hinge import hinge_gradient, hinge_loss
from poisons.steinhardt.slab_program import LABELS, Unsolved

ITERATIONS, STEP_SIZE = 200, 0.005  # of the release
POOL_ITERATIONS, POOL_STEP_SIZES = 60, (0.002, 0.005, 0.02)
CANDIDATES_A_STACK = 8
HOPELESS = 50  # programs failed before any was solved
CLIP_NORM = 0.1  # of the second victim; the first is undefended
SCORING_ROWS = 4000
POPULATION = 16  # of CMA-ES
DIRECTIONS = 40  # principal directions of the clean rows along which CMA-ES varies the model
MODEL_NORM = 0.2  # of a varied model: but for the margins, only its direction matters to the program
# Trained, and averaged: the single best epoch of forty is what is published, but a noisy guide
SCORING_EPOCHS, BEST_EPOCHS = 16, 3
DRAWS = 32  # different draws of how many copies of each point a batch holds


@dataclass(frozen=True)
class Candidate:
    """A poison set: points, float64 [4, features], clipped to [0, 1], and their shares, float64 [4] of sum 1.

    theta: of the model they were crafted against, float64 [features].
    """

    points: np.ndarray
    shares: np.ndarray
    theta: np.ndarray


class Crafter:
    """The semidefinite program on one data set at one epsilon; counts what the solver failed on."""

    def __init__(
        self, x: np.ndarray, y: np.ndarray, defence: Defence, epsilon: float, random: np.random.Generator
    ) -> None:
        self.x, self.y, self.signs, self.defence = x, y, 2.0 * y - 1, defence
        self.epsilon, self.random = epsilon, random
        self.uniform = np.full(len(x), 1 / len(x))
        self.class_shares = np.array([np.mean(y == 0), np.mean(y == 1)])
        self.solved, self.failures = 0, []

    def craft(self, theta: np.ndarray, bias: float, shares: np.ndarray) -> tuple[Candidate, float] | None:
        """The candidate for a model and shares, and the program's objective; None where the solver fails."""
        for margins in (True, False):  # a large bias makes the support points' margins impossible: then without
            try:
                points, loss = slab_program.solve(
                    self.defence, self.class_shares, theta, bias, self.epsilon * shares, self.random, margins
                )
            except Unsolved as error:
                status = str(error)
                continue
            self.solved += 1
            return Candidate(np.clip(points, 0, 1), shares, theta), loss
        self.failures.append((self.solved, status))
        if self.solved == 0 and len(self.failures) == HOPELESS:
            refuse(
                f"--eps {self.epsilon:g}: the solver failed on the first {HOPELESS} programs ({status});"
                " choose another --quantile or --eps"
            )
        return None

    def dual_averaging(self, step_size: float, radius: float, iterations: int, draws: int):
        """Algorithm 1 with the program as its oracle: yields each model (theta, bias) and the best set against it.

        draws: random shares tried besides the heuristic (p_+, 0, p_-, 0); the one of largest objective is kept.
        """
        total, total_bias, scale = np.zeros(self.x.shape[1]), 0.0, 1 / step_size
        heuristic = np.array([self.class_shares[1], 0, self.class_shares[0], 0])
        concentration = self.class_shares[LABELS]
        candidate = None
        for _ in range(iterations):
            theta, bias = total / scale, total_bias / scale
            tried = [heuristic, *self.random.dirichlet(concentration, draws)]
            found = list(filter(None, (self.craft(theta, bias, shares) for shares in tried)))
            if found:
                candidate = max(found, key=lambda pair: pair[1])[0]
            if candidate is not None:  # after a failure the last good one stands
                yield theta, bias, candidate
            gradient, gradient_bias = hinge_gradient(self.x, self.signs, self.uniform, theta, bias)
            if candidate is not None:
                poison = hinge_gradient(
                    candidate.points, 2.0 * LABELS - 1, self.epsilon * candidate.shares, theta, bias
                )
                gradient, gradient_bias = gradient + poison[0], gradient_bias + poison[1]
            total, total_bias = total - gradient, total_bias - gradient_bias
            scale = max(scale, math.hypot(np.linalg.norm(total), total_bias) / radius)


def by_training_loss(crafter: Crafter, radius: float) -> Candidate:
    """The candidate of the release: of 32 along one run, that whose hinge-loss model has the largest clean loss."""
    scored = []
    for iteration, (_, _, candidate) in enumerate(crafter.dual_averaging(STEP_SIZE, radius, ITERATIONS, 10), 1):
        if (iteration <= 48 and iteration % 3 == 0) or (iteration >= 50 and iteration % 10 == 0):
            theta, bias = _train_hinge(crafter, candidate, radius)
            scored.append((hinge_loss(crafter.x, crafter.signs, crafter.uniform, theta, bias), iteration, candidate))
    return max(scored, key=lambda entry: entry[:2])[2]


def _train_hinge(crafter: Crafter, candidate: Candidate, radius: float, passes: int = 10) -> tuple[np.ndarray, float]:
    """Regularised dual averaging on clean rows and poisons, a row at a time, as the release scores a set."""
    copies = counts(candidate.shares, round(crafter.epsilon * len(crafter.x)))
    x = np.concatenate([crafter.x, np.repeat(candidate.points, copies, 0)])
    signs = np.concatenate([crafter.signs, np.repeat(2.0 * LABELS - 1, copies)])
    order = np.random.default_rng(0)
    total, total_bias, scale = np.zeros(x.shape[1]), 0.0, len(x) / (STEP_SIZE * len(crafter.x))
    norm_squared = 0.0
    for _ in range(passes):
        for row in order.permutation(len(x)):
            if signs[row] * (x[row] @ total + total_bias) < scale:
                norm_squared += signs[row] * 2 * (x[row] @ total + total_bias) + x[row] @ x[row] + 1
                total += signs[row] * x[row]
                total_bias += signs[row]
                scale = max(scale, math.sqrt(max(norm_squared, 0.0)) / radius)
    return total / scale, total_bias / scale


def counts(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers of sum `total` nearest to shares * total: the largest remainders are rounded up."""
    exact = shares * total
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: total - whole.sum()]] += 1
    return whole


def by_victim(
    crafter: Crafter, dataset: Dataset, generations: int, seed: int, show: Callable[[int, float], None]
) -> Candidate:
    """The candidate that costs the paper's victim most accuracy on clean training rows: the mean of CMA-ES at its end.

    It varies the direction of the model, as coordinates along the principal directions of the clean rows, and the
    logarithms of the four shares. All candidates of a generation train under one seed, each generation under another:
    no candidate wins by a lucky seed.
    show: called with the generation and the mean score.
    """
    workers = _workers()
    victims = Victims(dataset, crafter.epsilon)
    directions = np.linalg.eigh(np.cov(crafter.x.T))[1][:, : -DIRECTIONS - 1 : -1].T
    runs = [crafter.dual_averaging(step, math.sqrt(5), POOL_ITERATIONS, 4) for step in POOL_STEP_SIZES]
    models = [theta for run in runs for theta, _, _ in run]

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:

        def scores(candidates: list[Candidate], seed: int) -> np.ndarray:
            halves = np.array_split(np.arange(len(candidates)), POPULATION // CANDIDATES_A_STACK)
            found = pool.map(lambda half: victims.scores([candidates[index] for index in half], seed), halves)
            return np.concatenate(list(found))

        def decode(values: np.ndarray, otherwise: Candidate) -> Candidate:
            theta = values[:DIRECTIONS] @ directions
            shares = np.exp(values[DIRECTIONS:] - values[DIRECTIONS:].max())
            crafted = crafter.craft(MODEL_NORM * theta / np.linalg.norm(theta), 0.0, shares / shares.sum())
            return otherwise if crafted is None else crafted[0]

        screened = []
        while len(screened) < 4 * POPULATION:
            theta = models[crafter.random.integers(len(models))]
            crafted = crafter.craft(theta, 0.0, crafter.random.dirichlet(crafter.class_shares[LABELS] + 0.5))
            screened += [] if crafted is None else [crafted[0]]
        rated = np.concatenate(
            [scores(screened[first : first + POPULATION], seed) for first in range(0, len(screened), POPULATION)]
        )
        best = screened[int(np.argmin(rated))]
        start = directions @ best.theta
        start = np.concatenate([start / np.linalg.norm(start) * math.sqrt(DIRECTIONS), np.log(best.shares + 0.01)])
        strategy = cma.CMAEvolutionStrategy(start, 0.3, {"popsize": POPULATION, "seed": seed + 1, "verbose": -9})
        for generation in range(1, generations + 1):
            varied = strategy.ask()
            rated = scores([decode(values, best) for values in varied], seed + generation)
            strategy.tell(varied, rated.tolist())
            show(generation, float(rated.mean()))
        return decode(strategy.mean, best)


@functools.cache
def _workers() -> int:
    """How many stacks of victims to train side by side; starts TensorFlow, which must be told so once."""
    from models import device

    return device.start(None, 2)


class Victims:
    """Trains the paper's victim, undefended and under tight clipping, on the poison sets of many candidates at once."""

    def __init__(self, dataset: Dataset, epsilon: float) -> None:
        from models import networks
        from models.shaping import UNDEFENDED, Shaping
        from models.trainer import Training

        self.training = Training.published(dataset.name, "lr")
        self.shapings = [UNDEFENDED, Shaping.clip(CLIP_NORM)] * CANDIDATES_A_STACK
        self.build = lambda seed: networks.build("lr", dataset.shape, dataset.classes, seed)
        self.epsilon, self.x, self.y = epsilon, dataset.x_train.reshape(len(dataset.x_train), -1), dataset.y_train
        self.mine = threading.local()
        chosen = np.random.default_rng(0).permutation(len(self.y))[:SCORING_ROWS]
        self.scoring = minibatches.Rows.of(self.x[chosen], self.y[chosen], np.zeros(len(chosen), bool), 1)

    def scores(self, candidates: list[Candidate], seed: int) -> np.ndarray:
        """For each of at most 8 candidates the sum of both victims' accuracies in their best epochs; lower is stronger.

        The accuracies are on clean training rows.
        """
        full = candidates + [candidates[0]] * (CANDIDATES_A_STACK - len(candidates))
        run = minibatches.Run(self._engine(seed), self._rows(full, seed), self._batches(4 * len(full), seed))
        epochs = run.epochs(SCORING_EPOCHS)
        accuracies = [run.engine.hits(self.scoring.x, self.scoring.y).mean(1) for _ in epochs]
        best = np.sort(accuracies, 0)[-BEST_EPOCHS:].mean(0)
        return best.reshape(-1, 2).sum(1)[: len(candidates)]

    def _rows(self, candidates: list[Candidate], seed: int) -> minibatches.Rows:
        """The clean rows, and DRAWS times all points, each with the number of its copies in a batch as its weight."""
        random = np.random.default_rng(seed)
        points = np.concatenate([candidate.points for candidate in candidates]).astype(np.float32)
        weight = np.zeros((DRAWS, len(points), len(self.shapings)), np.float32)
        for index, candidate in enumerate(candidates):
            totals = random.binomial(self.training.batch_size, self.epsilon / (1 + self.epsilon), DRAWS)
            copies = random.multinomial(totals, candidate.shares)
            weight[:, 4 * index : 4 * index + 4, 2 * index : 2 * index + 2] = copies[..., np.newaxis]
        everyone = np.ones((len(self.y), len(self.shapings)), np.float32)
        weight = np.concatenate([everyone, weight.reshape(-1, len(self.shapings))])
        x = np.concatenate([self.x, np.tile(points, (DRAWS, 1))])
        labels = np.concatenate([self.y, np.tile(LABELS, DRAWS * len(candidates))])
        return minibatches.Rows.of(x, labels, np.arange(len(x)) >= len(self.y), len(self.shapings), weight)

    def _batches(self, points: int, seed: int) -> Callable[[minibatches.Rows, int], minibatches.Batches]:
        """Cuts an epoch: in each batch clean rows that leave room for the poisons, and a random draw of all points."""
        clean_rows, size = len(self.y), round(self.training.batch_size / (1 + self.epsilon))

        def cut(rows: minibatches.Rows, epoch: int) -> minibatches.Batches:
            random = np.random.default_rng([seed, epoch])
            clean = random.permutation(clean_rows)[: clean_rows // size * size].reshape(-1, size)  # whole batches only
            draws = clean_rows + points * random.integers(DRAWS, size=len(clean))
            order = np.concatenate([clean, draws[:, np.newaxis] + np.arange(points)], 1).astype(np.int32)
            starts = order.shape[1] * np.arange(len(order) + 1, dtype=np.int32)
            places = np.tile(np.arange(order.shape[1], dtype=np.int32), len(order))
            return minibatches.Batches(order.reshape(-1), starts, np.full(len(clean), size, np.int32), places, epoch)

        return cut

    def _engine(self, seed: int):
        """This thread's stack of victims, at the initial weights of `seed`."""
        from models import stack

        if not hasattr(self.mine, "engine"):
            rate = self.training.learning_rate(self.shapings[0])
            self.mine.engine = stack.Stack(self.build(seed), self.shapings, self.training.optimizer, rate, seed)
        self.mine.engine.reset(self.build(seed))
        return self.mine.engine
