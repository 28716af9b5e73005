"""Attacks by substitution: poisons in the place of clean rows, so many that a certificate can be held against them.

    label-flips         random rows under the other label
    adversarial-flips   the rows that lie furthest on their own side, under the other label (`poisons.adversarial_flip`)
    push:1              rows that push the model in the direction in which a move by S(r) would cost most accuracy
    push:0.5 push:0.25  likewise, where models move by so much of S(r) only
    push-in-range:1     likewise, of features from 0 to 1 alone, as all other attacks of the suite are; also :0.5, :0.25
    a poison file's     so many of its poisons, drawn at random, in the place of random rows

The push is made for logistic regression by clipped SGD. A row whose gradient is longer than the clip norm moves the
model by the same step whatever else it is, so only its direction counts; and as it is far on the wrong side, its loss
stays large. Substituted are the rows that push the other way most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets import Dataset
from models.certificates.stability import Certificate, extend
from poisons import adversarial_flip, label_flip
from poisons.poison_set import PoisonSet

Substitutes = tuple[np.ndarray, np.ndarray, np.ndarray]  # numbers of the replaced rows, x, y
FAR = 1e3  # times the norm of a centred row: so far out lies a row that may lie anywhere
SCALES = np.geomspace(1e-2, 1e2, 25)  # tried for rows in range, in units of the range over the largest coordinate
DESCENT, SMOOTH = 60, 0.2  # steps of the search for a direction; how far around 0 a margin counts, over S
FLIPS, ADVERSARIAL, PUSH, PUSH_IN_RANGE = "label-flips", "adversarial-flips", "push", "push-in-range"
AIMED = (1, 0.5, 0.25)  # shares of S(r) that pushes reckon with
BUILT_IN = (FLIPS, ADVERSARIAL, *(f"{push}:{share}" for share in AIMED for push in (PUSH, PUSH_IN_RANGE)))


def flips(dataset: Dataset, count: int, seed: int) -> dict[str, Substitutes]:
    """Rows under the other label, by the attack's name."""
    ratio = count / len(dataset.y_train)
    crafted = {FLIPS: label_flip.craft(dataset, ratio, seed), ADVERSARIAL: adversarial_flip.craft(dataset, ratio)}
    return {name: (found.rows, dataset.x_train[found.rows], found.labels) for name, found in crafted.items()}


def pushes(dataset: Dataset, origin: np.ndarray, certificate: Certificate, count: int) -> dict[str, Substitutes]:
    """Rows that push the model, by the attack's name; see `sets_of`."""
    extended, signs, found = extend(dataset.x_train), 2 * dataset.y_train - 1, {}
    norms = np.linalg.norm(extended, axis=1)
    for share in AIMED:
        direction = costliest(dataset, certificate, count * share)
        rows = np.argsort(signs * (extended @ direction) / norms, kind="stable")[:count]
        anywhere = FAR * norms.mean() * direction[:-1].reshape(dataset.shape)
        for kind, x in ((PUSH, anywhere), (PUSH_IN_RANGE, in_range(direction, origin))):
            label = int(extend(x[np.newaxis])[0] @ direction > 0)
            repeated = np.repeat(x[np.newaxis], count, 0).astype(np.float32)
            found[f"{kind}:{share}"] = rows, repeated, np.full(count, label)
    return found


def of_file(poisons: PoisonSet, dataset: Dataset, origin: np.ndarray, count: int, seed: int) -> Substitutes:
    """So many poisons of a file, all of them again and again where it has fewer, in the place of random rows."""
    random = np.random.default_rng([seed, count, len(poisons.y)])
    chosen = np.resize(random.permutation(len(poisons.y)), count)
    rows = random.permutation(len(dataset.y_train))[:count]
    return rows, poisons.x[chosen] - origin.astype(np.float32), poisons.y[chosen]


def costliest(dataset: Dataset, certificate: Certificate, count: float) -> np.ndarray:
    """The direction, float64 [features + 1] of norm 1, in which a move by S(count) would cost most accuracy.

    Descended is a smooth stand-in for the accuracy on training rows, from the way back to zero and from those towards
    either class.
    """
    extended, signs = extend(dataset.x_train), 2 * dataset.y_train - 1
    units = signs[:, np.newaxis] * extended / np.linalg.norm(extended, axis=1, keepdims=True)
    far, own = count * certificate.reach, units @ certificate.u
    best, least = None, np.inf
    for start in (certificate.u, units[signs > 0].mean(0), units[signs < 0].mean(0)):
        direction = -start / np.linalg.norm(start)
        for step in np.geomspace(0.3, 0.01, DESCENT):
            margins = (own + far * (units @ direction)) / far
            accuracy = (margins > 0).mean()
            if accuracy < least:
                best, least = direction, accuracy
            slope = (1 / np.cosh(np.clip(margins / SMOOTH, -300, 300)) ** 2) @ units
            steepness = np.linalg.norm(slope)
            if steepness == 0:  # every row is far on its own side, or on the other
                break
            direction = direction - step * slope / steepness
            direction /= np.linalg.norm(direction)
    return best


def in_range(direction: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """The centred row x, of features from 0 to 1 before, whose x~ has the largest share of its length in +-direction.

    direction: float64 [features + 1]; origin: float [*shape]. Searched along the direction, cut off at the range.
    """
    best, largest = None, -1.0
    for sign in (1, -1):
        way = sign * direction[:-1].reshape(origin.shape)
        for scale in SCALES / np.abs(way).max():
            x = np.clip(origin + scale * way, 0, 1) - origin
            extended = extend(x[np.newaxis])[0]
            share = abs(extended @ direction) / np.linalg.norm(extended)
            if share > largest:
                best, largest = x, share
    return best


def sets_of(
    files: Sequence[PoisonSet], dataset: Dataset, origin: np.ndarray, certificate: Certificate, count: int, seed: int
) -> dict[str, Substitutes]:
    """The substitutes of all attacks by `count` rows, by name: those of BUILT_IN, and those of poison files.

    dataset: centred; origin: float [*shape], what was taken from its rows; certificate: of the model that a clean
    training has, which the attacker knows.
    """
    found = {**flips(dataset, count, seed), **pushes(dataset, origin, certificate, count)}
    return found | {poisons.attack: of_file(poisons, dataset, origin, count, seed) for poisons in files}
