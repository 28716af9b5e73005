"""Votes of models that were trained with noise: certificates by differential privacy.

Every model of the vote has its own noise and its own Poisson samples (replicas of a stack share both, so this has a
loop of its own): T steps of DP-SGD on the logistic loss of u = w_1 - w_0, which add N(0, sigma^2 C^2) to the sum of the
clipped gradients of a batch that each row is in with probability q, and divide by q n.

With q = 1 a substitution of r rows moves the sum of T steps by 2 r C at most against N(0, sigma^2 C^2) in each, so a
vote of probability p keeps Phi(Phi^-1(p) - 2 r sqrt(T) / sigma) at least (Dong, Roth and Su 2022, arXiv 1905.02383).

With q < 1 a substitution is a removal and an insertion, and the Renyi divergence of each is that of Binomial(r, q) rows
that all push one way, T times (Ganesh 2024, arXiv 2401.10294: a mixture of Gaussians against a Gaussian). What votes
keep by it is `certain` (Liu et al. 2023, arXiv 2308.07553; they take one row at a rate of 1 - (1 - q)^r, which does not
bound it where several of the r rows meet in a batch). The probabilities are known from votes only, by the interval of
Clopper and Pearson.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from command_line import refuse
from datasets import Dataset
from models.certificates import stability
from models.certificates.stability import extend
from models.later import tf
from models.shaping import Shaping

ORDERS = (1.01, 1.03, 1.1, 1.2, 1.35, 1.5, 1.75, 2, 2.5, 3, 4, 5, 6, 8, 10, 13, 16, 20, 26, 32, 48, 64, 96, 128, 256)
LONGEST = 500_000  # steps of an integral; where it takes more, nothing is certified
STEP = 0.2  # of an integral over Gaussians of width 1: the sum over such steps is one to the last digit
ROWS = 4096  # a product: the models' margins on so many rows are in memory


@dataclass(frozen=True)
class Noisy:
    """What the models of a vote are set to.

    noise_multiplier: sigma, of the clip norm; rate: q, of the rows in a step; steps: T.
    """

    clip_norm: float
    noise_multiplier: float
    learning_rate: float
    rate: float
    steps: int
    seed: int


def check(
    network: str, optimizer: str, dataset: Dataset, shaping: Shaping, learning_rate: float, rate: float, steps: int,
    seed: int,
) -> Noisy:  # fmt: skip
    """The settings of a vote; refuses what is not of a logistic regression of two classes by DP-SGD."""
    stability.check_convex(network, dataset)
    if optimizer != "sgd":
        refuse(f"--optimizer {optimizer}: a noisy vote is trained by sgd; choose that")
    if shaping.kind != "clip" or not math.isfinite(shaping.clip_norm) or not shaping.noise_std:
        refuse(f"--shaping {shaping.text}: not a clip norm with noise; give e.g. 0.1:1000")
    return Noisy(shaping.clip_norm, shaping.noise_multiplier, learning_rate, rate, steps, seed)


def models(dataset: Dataset, noisy: Noisy, count: int) -> np.ndarray:
    """Train `count` models from zero weights; u of each, float32 [count, features + 1].

    dataset: of two classes, centred.
    """
    stability.check_range(dataset.x_train)
    x = tf.constant(extend(dataset.x_train), tf.float32)
    signs = tf.constant(2 * dataset.y_train - 1, tf.float32)
    norms = tf.norm(x, axis=1)
    u = tf.Variable(tf.zeros([count, x.shape[1]]))

    @tf.function
    def step(number):
        seeds = tf.stack([tf.constant(noisy.seed, tf.int64), number])
        total = tf.zeros_like(u)
        for first in range(0, len(signs), ROWS):
            part = slice(first, first + ROWS)
            slopes = -signs[part] * tf.sigmoid(-signs[part] * tf.matmul(u, x[part], transpose_b=True))
            weights = tf.minimum(1.0, noisy.clip_norm / (tf.abs(slopes) * norms[part] + 1e-30))
            if noisy.rate < 1:
                drawn = tf.random.stateless_uniform(tf.shape(slopes), seeds + [0, (first + 1) << 32], alg="philox")
                weights *= tf.cast(drawn < noisy.rate, tf.float32)
            total += tf.matmul(slopes * weights, x[part])
        noise = tf.random.stateless_normal(tf.shape(u), seeds, alg="philox")
        total += noisy.noise_multiplier * noisy.clip_norm * noise
        u.assign_sub(noisy.learning_rate / (noisy.rate * len(signs)) * total)

    for number in range(noisy.steps):
        step(tf.constant(number, tf.int64))
    return u.numpy()


def votes(found: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The class that each model gives each row, bool [models, rows]; found: u of each."""
    return found @ extend(x).T.astype(np.float32) > 0


def divergences(noisy: Noisy, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """D_a(with || without) and D_a(without || with) of `rows` rows after all steps, at each of ORDERS, float64 each.

    In units of sigma, k rows move the sum by k / sigma, with k of Binomial(rows, q).
    """
    orders, counts = np.array(ORDERS)[:, np.newaxis], np.arange(rows + 1)
    shares = stats.binom.logpmf(counts, rows, noisy.rate)
    shifts, both = counts / noisy.noise_multiplier, []
    for order_of_with, order_of_without in ((orders, 1 - orders), (1 - orders, orders)):
        reach = max(ORDERS) * shifts.max() + 12
        if 2 * reach / STEP > LONGEST:
            return (np.full(len(ORDERS), np.inf),) * 2
        line = np.arange(-reach, reach, STEP)
        without = stats.norm.logpdf(line)
        mixed = np.full(len(line), -np.inf)
        for shift, share in zip(shifts, shares):
            mixed = np.logaddexp(mixed, share + stats.norm.logpdf(line, shift))
        values = order_of_with * mixed + order_of_without * without
        integrals = special.logsumexp(values, axis=1) + math.log(STEP)
        both.append(noisy.steps * np.maximum(integrals, 0) / (np.array(ORDERS) - 1))
    return tuple(both)


def certain(probability: np.ndarray, noisy: Noisy, rows: int) -> np.ndarray:
    """The least probability that an outcome has after a substitution of `rows` rows, float64 of the shape given.

    probability: the least before it. Of D_a(P || Q) <= e follows Q(S) >= e^-e P(S)^(a / (a - 1)).
    """
    if noisy.rate == 1:
        return stats.norm.cdf(stats.norm.ppf(probability) - 2 * rows * math.sqrt(noisy.steps) / noisy.noise_multiplier)
    orders = np.array(ORDERS)
    for divergence in divergences(noisy, rows):
        with np.errstate(divide="ignore"):
            lower = -divergence + np.log(probability)[..., np.newaxis] * orders / (orders - 1)
        probability = np.exp(lower.max(-1))
    return probability


def radii(votes: np.ndarray, noisy: Noisy, rows: Sequence[int], confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """The winner of the vote on every row, int [rows], and its radius as far as `rows` says, int [rows].

    votes: int [models, rows], classes 0 and 1; rows: numbers of substituted rows, ascending; confidence: with which
    a radius holds, e.g. 0.999, over the draw of the models (both ends count, since the same votes say who wins). -1
    where the winner itself is not certain.
    """
    count = len(votes)
    for_one = votes.sum(0)
    winner = (for_one > count / 2).astype(int)
    wins = np.where(winner == 1, for_one, count - for_one)
    least = stats.beta.ppf((1 - confidence) / 2, wins, count - wins + 1)
    found = np.where(least > 0.5, 0, -1)
    for number in rows:
        stays = (found >= 0) & (certain(least, noisy, number) > 0.5)
        if not stays.any():
            break
        found[stays] = number
    return winner, found
