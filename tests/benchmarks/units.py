"""The units of work that the peers are compared on, and how a peer is timed.

What all benchmark programs share, without any framework.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

REPEATS = 5


@dataclass(frozen=True)
class Unit:
    """Training steps of one model.

    filters: of 3 x 3 convolutions on 28 x 28 images, a 2 x 2 max pool behind the last; units: of the dense layers;
    clip_norm: None is training without DP-SGD; steps: timed at a time; replicas: of a stack, as many as the scripts
    train together; peers train one model.
    """

    features: int
    units: tuple
    batch_size: int
    optimizer: str
    learning_rate: float
    clip_norm: float | None
    noise_multiplier: float
    steps: int
    replicas: int
    filters: tuple = ()

    @property
    def dense(self) -> list[tuple[int, int]]:
        """Fan-in and fan-out of each dense layer."""
        inside = self.filters[-1] * 14 * 14 if self.filters else self.features
        return list(zip((inside, *self.units), self.units))

    @property
    def operations(self) -> float:
        """Floating-point operations that a step cannot do without.

        They are two a weight and example forward, for the weights' gradient, and, but at the first layer, for the
        inputs' gradient.
        """
        layers = [2.0 * 28 * 28 * 9 * inside * outside for inside, outside in zip((1, *self.filters), self.filters)]
        layers += [2.0 * inside * outside for inside, outside in self.dense]
        return self.batch_size * (3 * sum(layers) - layers[0])


UNITS = {
    "a": Unit(784, (2,), 300, "adam", 0.01, 4.0, 0.025, 100, 21),
    "b": Unit(100, (100,), 100, "adam", 0.04, None, 0.0, 100, 40),
    "b, DP": Unit(100, (100,), 100, "adam", 0.08, 4.0, 0.0, 100, 40),
    "c": Unit(100, (256, 256, 100), 100, "adam", 0.002, 4.0, 0.0025, 50, 16),
    "d": Unit(784, (256, 10), 100, "sgd", 0.01, 4.0, 0.0, 8, 1, filters=(16, 32)),
}


def data(unit: Unit) -> tuple[np.ndarray, np.ndarray]:
    """Random rows for the unit's steps: float32 [rows, features] in [0, 1], int32 [rows]."""
    rng = np.random.default_rng(0)
    rows = unit.batch_size * unit.steps
    return rng.random((rows, unit.features), np.float32), rng.integers(0, unit.units[-1], rows).astype(np.int32)


def milliseconds(work: Callable[[], None], steps: int) -> float:
    """Milliseconds a step: the median of REPEATS calls of `work`, which does so many, after one that compiles."""
    work()
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds) / steps


def report(found: dict[str, float]) -> None:
    """Print what a program measured, for peers.py: milliseconds a step (and replica) by variant.

    Infinite values are of those that failed.
    """
    print(json.dumps({name: value if math.isfinite(value) else None for name, value in found.items()}))
