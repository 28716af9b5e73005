#!/usr/bin/env python3
"""How long each part of ./reproduce.sh paper will take on this machine, from a timing of some seconds.

    python3 estimate.py

Four kinds of training steps are timed and compared with the same steps on the machine on which the parts were measured
(2 cores of an AMD EPYC with AVX-512); each part is scaled by its kind. Parts that are finished take no time again.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from command_line import Parser, run

# Parts in their order: what it is, its kind, and the minutes it took there
PARTS = (
    ("indiscriminate attacks: sweeps of three, and minmax crafted", "subtask", 5.0),
    ("the same over five seeds; label flips over 21", "subtask", 5.5),
    ("gradients of indiscriminate attacks and watermarks on the subtask", "subtask", 0.6),
    ("gradient shapings: the short form of the matrix", "subtask", 2.7),
    ("targeted attacks, logistic regression, 50 epochs", "baskets", 55.0),
    ("the same within 25 epochs", "baskets", 35.0),
    ("the same with the undefended learning rate, 50 and 25 epochs", "baskets", 40.0),
    ("targeted attacks, shallow MLP, 20 targets", "baskets", 20.0),
    ("targeted attacks by their dose: the short form; several poisons", "baskets", 4.0),
    ("shallow MLP of Fashion-MNIST: training, watermarks, backdoors", "shallow-mlp", 11.0),
    ("BadNet: training", "badnet", 12.0),
    ("BadNet: backdoors", "badnet", 30.0),
)
# Seconds of the timed steps there
REFERENCE = {"subtask": 0.16, "baskets": 0.4, "shallow-mlp": 0.4, "badnet": 0.95}
REPEATS = 3


def main() -> None:
    Parser(__doc__).parse_args()
    timers = timings()
    factors = {kind: median_seconds(timers[kind]) / REFERENCE[kind] for kind in REFERENCE}
    print("how long the parts will take on this machine, without those that are finished already:\n")
    for name, kind, minutes in PARTS:
        print(f"{minutes * factors[kind]:8.1f} minutes   {name}")
    total = sum(minutes * factors[kind] for _, kind, minutes in PARTS)
    print(f"{total:8.1f} minutes   all together ({total / 60:.1f} hours)\n", flush=True)


def timings() -> dict[str, Callable[[], object]]:
    """For each kind something to time: training steps of the stacks that its parts consist of, on random rows."""
    from models import device

    device.start()
    import numpy as np

    from models import minibatches, networks, stack
    from models.protocols import protocol
    from models.shaping import UNDEFENDED, Shaping
    from results.layout import SUBTASK

    def epoch_of(
        dataset: str, network: str, shape: tuple, classes: int, shaping: Shaping, replicas: int, steps: int
    ) -> Callable[[], object]:
        published, rng = protocol(dataset, network), np.random.default_rng(0)
        count = published.batch_size * steps
        x, y = rng.random((count, *shape), np.float32), rng.integers(0, classes, count).astype(np.int32)
        rows = minibatches.Rows.of(x, y, np.zeros(count, bool), replicas)
        model = networks.build(network, shape, classes, 0)
        engine = stack.Stack(model, [shaping] * replicas, published.optimizer, published.learning_rate, 0)
        batches = minibatches.shuffled(rows, published.batch_size, 0, 1)
        return lambda: (engine.train_epoch(rows, batches), engine.weights(0))

    image = (28, 28, 1)
    return {
        "subtask": epoch_of(SUBTASK, "lr", image, 2, Shaping.clip(4.0, 0.1), 21, 200),
        "baskets": epoch_of("purchases", "lr", (100,), 100, Shaping.clip(0.1), 100, 100),
        "shallow-mlp": epoch_of("fashion_mnist", "shallow-mlp", image, 10, UNDEFENDED, 6, 100),
        "badnet": epoch_of("fashion_mnist", "badnet", image, 10, UNDEFENDED, 1, 50),
    }


def median_seconds(work: Callable[[], object]) -> float:
    """Median of REPEATS, after a first call that compiles."""
    work()
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    run(main)
