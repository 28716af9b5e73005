#!/usr/bin/env python3
"""How fast the indiscriminate sweep is, beside TensorFlow Privacy on the same model, data and batches, in one run.

    python3 tests/benchmarks/sweep.py               about 3 minutes on 2 cores

Prints medians of REPEATS, the two sides of each ratio in turn: the whole sweep as a user calls it; milliseconds a
training step and replica of the stack and of TensorFlow Privacy's VectorizedDPKerasAdamOptimizer; what recording
gradients adds.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))
REPEATS = 5
TRAININGS, EPOCHS = 9 * 21, 40


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, {processor()}, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory() as folder:
        sweep_seconds = whole_sweep(folder)
        stack_rate, reference_rate = against_tensorflow_privacy()
        sweep_rate = TRAININGS * EPOCHS / sweep_seconds
        print(
            f"the whole sweep against TensorFlow Privacy's training alone: {sweep_rate:.0f} to"
            f" {reference_rate:.2f} epochs a second, {sweep_rate / reference_rate:.0f} times"
        )
        for shaped in (1, 20):
            recording(folder, shaped)


def processor() -> str:
    """The processor's flags that matter to matrix products, where Linux tells them."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.exists() else ""
    return "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2 seen"


def whole_sweep(folder: str) -> float:
    """Seconds that ./do_ipoisoning.sh takes for the label flips in an empty results folder: the median.

    The start of Python, data and files are included.
    """
    seconds = []
    for repeat in range(REPEATS):
        settings = {"RESULTS": f"{folder}/sweep{repeat}", "PYTHON": sys.executable, "ATTACKS": "label-flips"}
        command = [REPOSITORY / "do_ipoisoning.sh", "subtask", "0"]
        began = time.monotonic()
        subprocess.run(command, env={**os.environ, **settings}, check=True, capture_output=True)
        seconds.append(time.monotonic() - began)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    median = statistics.median(seconds)
    print(
        f"ATTACKS=label-flips ./do_ipoisoning.sh subtask 0: {TRAININGS} trainings of {EPOCHS} epochs in {median:.1f} s"
        f" ({min(seconds):.1f} to {max(seconds):.1f}), peak memory {memory:.2f} GiB"
    )
    return median


def against_tensorflow_privacy() -> tuple[float, float]:
    """Trainings x epochs a second of both engines at ratio 0.4, training alone.

    They are medians over processes that are started in turn.
    """
    rates = {"stack": [], "tfprivacy": []}
    for _ in range(REPEATS):
        for engine, measured in rates.items():
            done = subprocess.run([sys.executable, __file__, engine], check=True, capture_output=True, text=True)
            measured.append(float(done.stdout.split()[-1]))
    stack, reference = (statistics.median(measured) for measured in rates.values())
    steps = -(-15120 // 300)
    print(
        f"stack, 2 at a time, 21 replicas each: {1000 / steps / stack:.4f} ms a step and replica\n"
        f"TensorFlow Privacy (VectorizedDPKerasAdamOptimizer): {1000 / steps / reference:.3f} ms a step\n"
        f"training alone: {stack:.0f} to {reference:.2f} epochs a second, {stack / reference:.0f} times"
    )
    return stack, reference


def time_engine(name: str) -> None:
    """Print how many trainings x epochs a second an engine makes in this process.

    By the median of five epochs, after a first one that traces.
    """
    from models import device

    workers = device.start(None, os.cpu_count() if name == "stack" else 1)
    import numpy as np

    import datasets
    from models import minibatches, networks, stack, tfprivacy
    from models.shaping import UNDEFENDED, Shaping
    from poisons import attacks, poison_set

    data = datasets.load("subtask")
    poisons = poison_set.load(attacks()["label-flips"].default_path(data.name, 0.4), data)
    x, y = np.concatenate([data.x_train, poisons.x]), np.concatenate([data.y_train, poisons.y])
    is_poison = np.arange(len(y)) >= len(data.y_train)
    grid = [Shaping.clip(4.0, 0.1)]
    if name == "stack":
        pairs = itertools.product((0.1, 1, 2, 4, 8), (0, 0.1, 0.001, 0.00001))
        grid = [UNDEFENDED, *(Shaping.clip(*pair) for pair in pairs)]
    make = {"stack": stack.Stack, "tfprivacy": tfprivacy.TensorFlowPrivacy}[name]
    engines = [
        make(networks.build("lr", data.shape, data.classes, 215), grid, "adam", 0.01, 215) for _ in range(workers)
    ]
    rows = minibatches.Rows.of(x, y, is_poison, len(grid))

    def train(engine, epoch: int) -> None:
        engine.train_epoch(rows, minibatches.shuffled(rows, 300, 215, epoch))
        engine.weights(0)

    seconds = []
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for epoch in range(1, 7):
            began = time.monotonic()
            list(pool.map(train, engines, [epoch] * workers))
            seconds.append(time.monotonic() - began)
    print(len(grid) * workers / statistics.median(seconds[1:]))


def recording(folder: str, shaped: int) -> None:
    """Print what --record adds to train.py's loop (training, accuracies, files) at ratio 0.4.

    Without and with it in turn, from run.json's wall seconds; shaped: how many clip norms train beside undefended.
    """
    from poisons import attacks
    from results import layout

    clip_norms = ["4"] if shaped == 1 else [str(0.1 * (index + 1)) for index in range(shaped)]
    poison = attacks()["label-flips"].default_path(layout.SUBTASK, 0.4)
    command = [sys.executable, "train.py", "--dataset", "subtask", "--network", "lr", "--poison", poison]
    command += ["--undefended", "--clip-norm", *clip_norms]
    seconds = {False: [], True: []}
    for repeat in range(REPEATS):
        for record in (False, True):
            results = Path(folder) / f"recording_{shaped}_{repeat}_{record}"
            subprocess.run(
                command + ["--record"] * record,
                cwd=REPOSITORY,
                env={**os.environ, "RESULTS": str(results)},
                check=True,
                capture_output=True,
            )
            seconds[record].append(json.loads(next(results.rglob("run.json")).read_text())["wall_seconds"])
    plain, recorded = statistics.median(seconds[False]), statistics.median(seconds[True])
    print(
        f"recording, {shaped + 1} replicas x {EPOCHS} epochs: {plain:.2f} s without, {recorded:.2f} s with"
        f" ({100 * (recorded / plain - 1):+.0f}%)"
    )


if __name__ == "__main__":
    time_engine(sys.argv[1]) if len(sys.argv) > 1 else main()
