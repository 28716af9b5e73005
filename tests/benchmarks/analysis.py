#!/usr/bin/env python3
"""How fast the gradient analyses are, beside plain Keras on the same model, data and batch size, in one run.

    python3 tests/benchmarks/analysis.py            about 8 minutes on 2 cores

Prints medians of REPEATS, the sides of each ratio in turn: the six-alpha collision of the logistic regression as a user
calls it, with the size of what it recorded; an epoch of the shallow MLP's six replicas, trained and recorded; an epoch
of the BadNet, undefended, recorded, and clipped.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from command_line import run
from results.layout import REPOSITORY

REPEATS = 5
ALPHAS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory() as folder:
        collision(folder)
        epochs(folder)


def collision(folder: str) -> None:
    """Print seconds of ./analyze_collision.sh subtask multi in an empty results folder, and MB of param_updates."""
    seconds = []
    for repeat in range(REPEATS):
        results = Path(folder) / f"collision{repeat}"
        began = time.monotonic()
        subprocess.run(
            [REPOSITORY / "analyze_collision.sh", "subtask", "multi"],
            env={**os.environ, "RESULTS": str(results), "PYTHON": sys.executable},
            check=True,
            capture_output=True,
        )
        seconds.append(time.monotonic() - began)
    recorded = sum(path.stat().st_size for path in results.rglob("param_updates/*"))
    print(
        "./analyze_collision.sh subtask multi, six trainings of 40 epochs, start, files and figure included:"
        f" {statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f});"
        f" param_updates {recorded / 1e6:.1f} MB"
    )


def epochs(folder: str) -> None:
    """Epochs on all of FashionMNIST and the poisons: the stack's, with its record written, against Keras' fit."""
    from models import device

    device.start()
    import tensorflow as tf

    import datasets
    from models import minibatches, networks
    from models.protocols import protocol
    from models.shaping import UNDEFENDED, Shaping
    from models.trainer import Cell, Trainer, Training
    from poisons import attacks, poison_set
    from results import layout, param_updates

    data = datasets.load("fashion_mnist")

    def poisons_of(attack: str, settings: dict) -> poison_set.PoisonSet:
        return poison_set.load(attacks()[attack].path(data.name, settings), data)

    watermarks = [poisons_of("collision", {"task": "pairs_of_100", "alpha": alpha}) for alpha in ALPHAS]
    backdoor = poisons_of("insertion", {"label": 4, "ratio": 0.01, "patch": 4, "seed": layout.SEED})

    def of_stack(network: str, sets: list, shaping: Shaping, record: bool):
        training = Training.published(data.name, network, REPEATS + 1)
        trainer = Trainer(training, data)
        rate = training.learning_rate(UNDEFENDED)
        cells = [Cell(shaping, rate, f"{network}{index}", {}, poisons) for index, poisons in enumerate(sets)]
        engine, rows = trainer.engine(cells), trainer.rows(cells)

        def epoch(number: int) -> None:
            batches = minibatches.shuffled(rows, training.batch_size, layout.SEED, number)
            recorded = engine.train_epoch(rows, batches, record)
            engine.weights(0)
            for replica, cell in enumerate(cells if record else ()):
                param_updates.write_epoch(Path(folder) / cell.name, number, recorded, replica)

        return epoch

    def of_keras(network: str):
        published = protocol(data.name, network)
        model = networks.build(network, data.shape, data.classes, layout.SEED)
        optimizer = networks.optimizer(published.optimizer, published.learning_rate)
        model.compile(optimizer, tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        tf.random.set_seed(layout.SEED)
        return lambda number: model.fit(data.x_train, data.y_train, published.batch_size, verbose=0)

    compare(
        "shallow MLP, an epoch",
        {
            "plain Keras": of_keras("shallow-mlp"),
            "six replicas, recorded": of_stack("shallow-mlp", watermarks, UNDEFENDED, True),
        },
    )
    compare(
        "BadNet, an epoch",
        {
            "plain Keras": of_keras("badnet"),
            "undefended": of_stack("badnet", [backdoor], UNDEFENDED, False),
            "undefended, recorded": of_stack("badnet", [backdoor], UNDEFENDED, True),
            "clip norm 4": of_stack("badnet", [backdoor], Shaping.clip(4.0), False),
            "clip norm 4, noise": of_stack("badnet", [backdoor], Shaping.clip(4.0, 0.01), False),
        },
    )


def compare(title: str, sides: dict) -> None:
    """Time each side's epochs in turn, after a first one that traces; print medians, and their ratios to the first."""
    seconds = {name: [] for name in sides}
    for number in range(1, REPEATS + 2):
        for name, epoch in sides.items():
            began = time.monotonic()
            epoch(number)
            seconds[name].append(time.monotonic() - began)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    reference = next(iter(medians.values()))
    for name, median in medians.items():
        spread = f"{min(seconds[name][1:]):.2f} to {max(seconds[name][1:]):.2f}"
        print(f"{title}, {name}: {median:.2f} s ({spread}), {median / reference:.2f} times Keras", flush=True)


if __name__ == "__main__":
    run(main)
