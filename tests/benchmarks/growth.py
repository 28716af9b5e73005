#!/usr/bin/env python3
"""How time and memory grow with the number of replicas, rows and features.

    python3 tests/benchmarks/growth.py              about 6 minutes on 2 cores

Writes growth.csv, growth.png and growth.pdf beside itself. Logistic regressions under DP-SGD on random rows, batch 300,
all in one stack on all cores: seconds of an epoch (median of REPEATS after one that compiles) with its test and
training accuracies as in a sweep, and the peak memory of the process.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
REPEATS = 5
# replicas, rows, features: each of them grown alone
REPLICAS = [(replicas, 15120, 784) for replicas in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)]
ROWS = [(21, rows, 784) for rows in (3780, 7560, 30240, 60480)]
FEATURES = [(21, 15120, features) for features in (98, 196, 392, 1568)]
HEADER = ("replicas", "rows", "features", "epoch_seconds", "ms_per_step_and_replica", "peak_gib")


def main() -> None:
    from files import write_csv

    lines = []
    for replicas, rows, features in REPLICAS + ROWS + FEATURES:
        command = [sys.executable, __file__, str(replicas), str(rows), str(features)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, gib = json.loads(done.stdout.splitlines()[-1])
        step = 1000 * seconds / (rows / 300) / replicas
        lines.append((replicas, rows, features, round(seconds, 4), round(step, 5), round(gib, 3)))
        print(dict(zip(HEADER, lines[-1])), flush=True)
    write_csv(HERE / "growth.csv", HEADER, lines)
    draw(lines)


def one(replicas: int, rows: int, features: int) -> None:
    """Print the seconds of an epoch and the peak memory in GiB of one case."""
    from models import device

    device.start()
    import numpy as np

    from models import minibatches, networks, stack
    from models.shaping import Shaping
    from models.trainer import training_accuracies

    rng = np.random.default_rng(0)
    x, y = rng.random((rows, features, 1, 1), np.float32), rng.integers(0, 2, rows).astype(np.int32)
    data = minibatches.Rows.of(x, y, np.zeros(rows, bool), replicas)
    test = minibatches.Rows.of(x[:2000], y[:2000], np.zeros(2000, bool), 1)
    shapings = [Shaping.clip(4.0, 0.1 if replica % 2 else 0.0) for replica in range(replicas)]
    engine = stack.Stack(networks.build("lr", (features, 1, 1), 2, 0), shapings, "adam", 0.01, 0)
    seconds = []
    for epoch in range(1, REPEATS + 2):
        began = time.perf_counter()
        engine.train_epoch(data, minibatches.shuffled(data, 300, 0, epoch))
        engine.hits(test.x, test.y)
        training_accuracies(engine, data)
        seconds.append(time.perf_counter() - began)
    print(json.dumps([statistics.median(seconds[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]))


def draw(lines: list[tuple]) -> None:
    """Time and memory against each of the three, with a line of slope 1."""
    from results import plotting

    figure, axes = plotting.panels(3, 2, height=2.4)
    for column, (name, cases) in enumerate((("replicas", REPLICAS), ("rows", ROWS), ("features", FEATURES))):
        chosen = sorted(
            (line for line in lines if line[:3] in cases or (name != "replicas" and line[:3] == (16, 15120, 784))),
            key=lambda line: line[column],
        )
        chosen = [line for line in chosen if name == "replicas" or line[0] == 21]
        values = [line[column] for line in chosen]
        for axis, measured, label in zip(axes[:, column], (3, 5), ("an epoch, s", "peak memory, GiB")):
            axis.plot(values, [line[measured] for line in chosen], marker="o", color="black", ms=4, lw=1.2)
            axis.set(xscale="log", yscale="log", xlabel=name, ylabel=label)
        first, last = chosen[0], chosen[-1]
        axes[0, column].plot(
            [first[column], last[column]], [last[3] * first[column] / last[column], last[3]], color="0.5", ls=":", lw=1
        )
    for suffix in ("png", "pdf"):
        plotting.save(figure, HERE / f"growth.{suffix}")


if __name__ == "__main__":
    one(*map(int, sys.argv[1:])) if len(sys.argv) > 1 else main()
