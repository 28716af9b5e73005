"""Bad models that an attacker would like a victim to become.

Gradient Canceling and model-targeted poisoning each aim at a given model. Here are a few for a data set of two classes
and a gradient shaping: what training on many flipped labels makes, undefended and with that shaping, and what ascent of
the clean loss makes of the clean model (GradPC, Sun et al. 2020, in Lu et al., arXiv 2303.03592).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets import Dataset
from models.protocols import protocol
from models.shaping import UNDEFENDED, Phase, Shaping
from poisons import adversarial_flip, victims

# The share of the rows that are flipped, those that lie deepest on their own side first: of both classes, or of one
FLIPPED = ((None, 0.1), (None, 0.15), (None, 0.2), (None, 0.3), (0, 0.3), (1, 0.2), (1, 0.3))
CLEAN_ACCURACY = 0.9  # at which ascent stops
ASCENT_STEP, ASCENT_STEPS, ASCENT_ROWS = 0.05, 600, 4000


@dataclass(frozen=True)
class Models:
    """Logistic regressions: kernels, float32 [models, classes, features], and biases, float32 [models, classes].

    names: how each was made; test_accuracies: float64 [models], which nothing is chosen by.
    """

    kernels: np.ndarray
    biases: np.ndarray
    names: list[str]
    test_accuracies: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


def steady(shaping: Shaping) -> Shaping:
    """What a shaping does to a batch once it has settled: its last phase, without noise and without links that look at
    all rows between epochs, whose weights no single batch gives.
    """
    return Shaping((Phase(shaping.phases[-1].keep(lambda link: not link.kind.between).links),))


def own_rows(shaping: Shaping) -> bool:
    """Whether a row's weight depends on that row alone."""
    return all(link.kind.sensitivity is not None or link.kind.shrinks for link in shaping.links)


def of(dataset: Dataset, shaping: Shaping, seed: int, flipped: tuple = FLIPPED) -> Models:
    """The bad models for victims of a shaping. seed: of their trainings; flipped: sides and shares, as FLIPPED is."""
    kernels, biases, names = [], [], []
    for trained_by in dict.fromkeys([UNDEFENDED, shaping]):
        found = _flipped(dataset, trained_by, seed, flipped)
        kernels, biases = kernels + found[0][:-1], biases + found[1][:-1]
        sides = ["both classes" if side is None else f"class {side}" for side, _ in flipped]
        names += [f"{trained_by.text}; flips of {side}; {share}" for side, (_, share) in zip(sides, flipped)]
    kernel, bias = _ascended(dataset, found[0][-1], found[1][-1])  # from a clean model, the last
    names = [*names, f"{trained_by.text}; ascent to {CLEAN_ACCURACY}"]
    every = np.array([*kernels, kernel]), np.array([*biases, bias])
    return Models(*every, names, accuracies(*every, dataset.x_test, dataset.y_test))


def accuracies(kernels: np.ndarray, biases: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The share of rows that each model classifies correctly, float64 [models]."""
    logits = np.einsum("rf,mcf->mrc", x.reshape(len(x), -1), kernels, optimize=True) + biases[:, np.newaxis]
    return (logits.argmax(2) == y).mean(1)


def _flipped(
    dataset: Dataset, shaping: Shaping, seed: int, flipped: tuple
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What the shaping's training makes of the clean rows and flipped copies, as `flipped` says; last, of the clean
    rows alone. The kernels, float32 [classes, features], and the biases.
    """
    from models import minibatches

    x, y = dataset.x_train.reshape(len(dataset.x_train), -1), dataset.y_train
    order, known = adversarial_flip.craft(dataset, 1.0).rows, protocol(dataset.name, victims.NETWORK)
    weight = np.zeros((2 * len(y), len(flipped) + 1), np.float32)
    weight[: len(y)] = 1
    for replica, (side, share) in enumerate(flipped):
        rows = order if side is None else order[y[order] == side]
        weight[len(y) + rows[: round(share * len(rows))], replica] = 1
    x, y, is_poison = np.concatenate([x, x]), np.concatenate([y, 1 - y]), np.arange(2 * len(y)) >= len(y)
    rows = minibatches.Rows.of(x, y, is_poison, weight.shape[1], weight)
    engine = victims.stack_at(dataset, [shaping] * weight.shape[1], seed)

    def cut(rows: minibatches.Rows, epoch: int) -> minibatches.Batches:
        return minibatches.shuffled(rows, 2 * known.batch_size, seed, epoch)  # of which a replica does not see half

    for _ in minibatches.Run(engine, rows, cut).epochs(known.epochs):
        pass
    return list(engine.kernels[0].numpy()), list(engine.biases[0].numpy())


def _ascended(dataset: Dataset, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where normalised gradient ascent of the clean loss leads a model by the time that its accuracy has fallen."""
    chosen = np.random.default_rng(0).permutation(len(dataset.y_train))[:ASCENT_ROWS]
    x, y = dataset.x_train[chosen].reshape(len(chosen), -1), dataset.y_train[chosen]
    x, truth = np.hstack([x, np.ones((len(x), 1), np.float32)]), np.eye(dataset.classes, dtype=np.float32)[y]
    weights = np.hstack([kernel, bias[:, np.newaxis]])
    for _ in range(ASCENT_STEPS):
        logits = x @ weights.T
        if (logits.argmax(1) == y).mean() <= CLEAN_ACCURACY:
            break
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        gradient = (exponentials / exponentials.sum(1, keepdims=True) - truth).T @ x
        weights = weights + ASCENT_STEP * gradient / np.linalg.norm(gradient)
    return weights[:, :-1], weights[:, -1]
