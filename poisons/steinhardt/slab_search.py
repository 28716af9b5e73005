"""Crafting the slab attack: from models to candidate sets by the semidefinite program, and which of them to keep.

Two rules over the same constraints:
    training_loss    the released one (Steinhardt et al. 2017): candidates along one run of dual averaging, kept by the
                     clean training loss of a hinge-loss model trained on clean rows and poisons
    victim           the real victim in the loop: the model to craft against and the shares are varied by CMA-ES so that
                     the victim's own accuracy, undefended and under tight clipping, falls on clean TRAINING rows; no
                     test row is looked at

A candidate is four points and the share of the poisons at each. The victims of all candidates of a generation are
replicas of two stacks (`poisons.victims`).
"""

from __future__ import annotations

import concurrent.futures
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import cma
import numpy as np

from command_line import refuse
from datasets import Dataset
from models.shaping import UNDEFENDED, Shaping
from poisons import victims
from poisons.steinhardt import slab_program
from poisons.steinhardt.defences import Defence
from poisons.steinhardt.hinge import hinge_gradient, hinge_loss, hinge_margins
from poisons.steinhardt.slab_program import LABELS, Unsolved

ITERATIONS, STEP_SIZE = 200, 0.005  # of the release
POOL_ITERATIONS, POOL_STEP_SIZES = 60, (0.002, 0.005, 0.02)
CANDIDATES_A_STACK = 8
HOPELESS = 50  # programs failed before any was solved
VICTIMS = (UNDEFENDED, Shaping.clip(0.1))  # where no shaping is given
POPULATION = 16  # of CMA-ES
DIRECTIONS = 40  # principal directions of the clean rows along which CMA-ES varies the model
MODEL_NORM = 0.2  # of a varied model: but for the margins, only its direction matters to the program
# Trained, and averaged: the single best epoch of forty is what is published, but a noisy guide
SCORING_EPOCHS, BEST_EPOCHS = 16, 3


@dataclass(frozen=True)
class Candidate:
    """A poison set: points, float64 [4, features], clipped to [0, 1], and their shares, float64 [4] of sum 1.

    theta: of the model they were crafted against, float64 [features].
    """

    points: np.ndarray
    shares: np.ndarray
    theta: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        return LABELS


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
                f"--ratio {self.epsilon:g}: the solver failed on the first {HOPELESS} programs ({status});"
                " choose another --quantile or --ratio"
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
            margins = hinge_margins(self.x, self.signs, theta, bias)
            gradient, gradient_bias = hinge_gradient(self.x, self.signs, self.uniform, margins)
            if candidate is not None:
                points, signs = candidate.points, 2.0 * LABELS - 1
                margins = hinge_margins(points, signs, theta, bias)
                poison = hinge_gradient(points, signs, self.epsilon * candidate.shares, margins)
                gradient, gradient_bias = gradient + poison[0], gradient_bias + poison[1]
            total, total_bias = total - gradient, total_bias - gradient_bias
            scale = max(scale, math.hypot(np.linalg.norm(total), total_bias) / radius)


def by_training_loss(crafter: Crafter, radius: float) -> Candidate:
    """The candidate of the release: of 32 along one run, that whose hinge-loss model has the largest clean loss."""
    scored = []
    for iteration, (_, _, candidate) in enumerate(crafter.dual_averaging(STEP_SIZE, radius, ITERATIONS, 10), 1):
        if (iteration <= 48 and iteration % 3 == 0) or (iteration >= 50 and iteration % 10 == 0):
            theta, bias = _train_hinge(crafter, candidate, radius)
            loss = hinge_loss(crafter.uniform, hinge_margins(crafter.x, crafter.signs, theta, bias))
            scored.append((loss, iteration, candidate))
    return max(scored, key=lambda entry: entry[:2])[2]


def _train_hinge(crafter: Crafter, candidate: Candidate, radius: float, passes: int = 10) -> tuple[np.ndarray, float]:
    """Regularised dual averaging on clean rows and poisons, a row at a time, as the release scores a set."""
    copies = victims.counts(candidate.shares, round(crafter.epsilon * len(crafter.x)))
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


def by_victim(
    crafter: Crafter, dataset: Dataset, shaping: Shaping | None, generations: int, seed: int,
    show: Callable[[int, float], None],
) -> Candidate:  # fmt: skip
    """The candidate that costs the paper's victim most accuracy on clean training rows: the mean of CMA-ES at its end.

    shaping: the victim's; None: two victims, undefended and under tight clipping.

    It varies the direction of the model, as coordinates along the principal directions of the clean rows, and the
    logarithms of the four shares. All candidates of a generation train under one seed, each generation under another:
    no candidate wins by a lucky seed.
    show: called with the generation and the mean score.
    """
    workers = victims.workers()
    tried = Victims(dataset, crafter.epsilon, list(VICTIMS) if shaping is None else [shaping])
    directions = np.linalg.eigh(np.cov(crafter.x.T))[1][:, : -DIRECTIONS - 1 : -1].T
    runs = [crafter.dual_averaging(step, math.sqrt(5), POOL_ITERATIONS, 4) for step in POOL_STEP_SIZES]
    models = [theta for run in runs for theta, _, _ in run]

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:

        def scores(candidates: list[Candidate], seed: int) -> np.ndarray:
            halves = np.array_split(np.arange(len(candidates)), POPULATION // CANDIDATES_A_STACK)
            rated = pool.map(lambda half: tried.scores([candidates[index] for index in half], seed), halves)
            return np.concatenate(list(rated))

        def decode(values: np.ndarray, otherwise: Candidate) -> Candidate:
            theta = values[: len(directions)] @ directions
            shares = np.exp(values[len(directions) :] - values[len(directions) :].max())
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
        start = np.concatenate([start / np.linalg.norm(start) * math.sqrt(len(directions)), np.log(best.shares + 0.01)])
        strategy = cma.CMAEvolutionStrategy(start, 0.3, {"popsize": POPULATION, "seed": seed + 1, "verbose": -9})
        for generation in range(1, generations + 1):
            varied = strategy.ask()
            rated = scores([decode(values, best) for values in varied], seed + generation)
            strategy.tell(varied, rated.tolist())
            show(generation, float(rated.mean()))
        return decode(strategy.mean, best)


class Victims:
    """The victims of the search, a stack of them a thread."""

    def __init__(self, dataset: Dataset, epsilon: float, shapings: list[Shaping]) -> None:
        self.arguments, self.mine = (dataset, epsilon, shapings, CANDIDATES_A_STACK), threading.local()

    def scores(self, candidates: list[Candidate], seed: int) -> np.ndarray:
        """For each of at most 8 candidates the sum of its victims' accuracies in their best epochs; lower is stronger.

        The accuracies are on clean training rows.
        """
        if not hasattr(self.mine, "victims"):
            self.mine.victims = victims.Victims(*self.arguments)
        accuracies = self.mine.victims.accuracies(candidates, seed, SCORING_EPOCHS)
        return np.sort(accuracies, 0)[-BEST_EPOCHS:].mean(0).sum(1)
