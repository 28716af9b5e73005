#!/usr/bin/env python3
"""How fast targeted attacks are, beside TensorFlow Privacy on the same models, data and batch size, in one run.

    python3 tests/benchmarks/targeted.py            about 8 minutes on 2 cores

Prints medians of REPEATS, the engines in turn: milliseconds a training step and replica of stacks, one on all cores and
one a core side by side as attack_targets.py has them, and of TensorFlow Privacy's VectorizedDPKerasAdamOptimizer in a
tf.function (with XLA it takes twice as long); seconds to craft 100 poisons; seconds and peak memory of whole targets as
a user attacks them.
"""

from __future__ import annotations

import concurrent.futures
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
REPEATS = 3
EPOCHS = 5  # timed in a process, after one that traces
WORK = (
    ("lr", "undefended", 100),
    ("lr", "4", 100),
    ("lr", "4:0.0025", 100),
    ("shallow-mlp", "4", 16),
    ("shallow-mlp", "4:0.0025", 16),
)


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    for network, shaping, replicas in WORK:
        engines = ["stack", "stacks"] + ["tfprivacy"] * (shaping != "undefended")
        measured = {engine: [] for engine in engines}
        for _ in range(REPEATS):
            for engine in engines:
                measured[engine].append(measure(engine, network, shaping, replicas))
        median = {engine: statistics.median(values) for engine, values in measured.items()}
        stack, stacks = median["stack"], median["stacks"]
        line = f"{network}, {shaping}, {replicas} replicas: one stack {stack:.4f} ms a step and replica"
        line += f", one a core {stacks:.4f}"
        if shaping != "undefended":
            reference = median["tfprivacy"]
            line += f"; TensorFlow Privacy {reference:.2f}: {reference / stack:.0f} and {reference / stacks:.0f} times"
        print(line, flush=True)
    for network in ("lr", "shallow-mlp"):
        seconds = [measure("craft", network) for _ in range(REPEATS)]
        print(f"{network}: 100 poisons for a target crafted in {statistics.median(seconds):.2f} s", flush=True)
    for network, shaping, targets in (("lr", "undefended", 4), ("lr", "0.1", 4), ("shallow-mlp", "undefended", 2)):
        whole_targets(network, shaping, targets)


def measure(*arguments) -> float:
    """What this script prints in a process of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def whole_targets(network: str, shaping: str, targets: int) -> None:
    """A user's command on a few targets, every trial to its end.

    Prints seconds a target, start included, and the most memory that any command has used so far.
    """
    command = [sys.executable, "attack_targets.py", "--network", network, "--mode", "oneshot"]
    command += ["--shaping", shaping, "--targets", str(targets)]
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "RESULTS": folder}, check=True, capture_output=True)
        seconds = time.monotonic() - began
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(
        f"{network}, {shaping}: all 101 trials of a target in {seconds / targets:.1f} s;"
        f" peak memory so far {memory:.2f} GiB",
        flush=True,
    )


def time_engine(engine: str, network: str, shaping: str, replicas: int) -> None:
    """Print milliseconds a step and replica: the median of EPOCHS epochs."""
    from models import device

    workers = device.start(None, os.cpu_count() if engine == "stacks" else 1)
    import numpy as np

    import datasets
    from models import minibatches, networks, protocols, stack
    from models import shaping as shapings

    data = datasets.load("purchases")
    published, shaping = protocols.protocol(data.name, network), shapings.shaping(shaping)
    rate = published.dp_learning_rate if shaping.defended else published.learning_rate
    model = networks.build(network, data.shape, data.classes, 215)
    if engine == "tfprivacy":
        train, replicas, workers = reference_epoch(model, data, published, shaping, rate), 1, 1
    else:
        x, y = (np.concatenate([values, values[:replicas]]) for values in (data.x_train, data.y_train))
        clean = len(data.y_train)
        # as in a oneshot attack: a poison each, in one place
        weight = np.concatenate([np.ones((clean, replicas)), np.eye(replicas)])
        slots = np.minimum(np.arange(len(y)), clean)
        rows = minibatches.Rows.of(x, y, np.arange(len(y)) >= clean, replicas, weight, slots)
        stacks = [stack.Stack(model, [shaping] * replicas, published.optimizer, rate, 215) for _ in range(workers)]
        pool = concurrent.futures.ThreadPoolExecutor(workers)

        def train(epoch: int) -> int:
            batches = minibatches.shuffled(rows, published.batch_size, 215, epoch, short_last=False)
            list(pool.map(lambda one: one.train_epoch(rows, batches), stacks))
            return len(batches.clean)

    seconds, steps = [], 0
    for epoch in range(1, EPOCHS + 2):
        began = time.monotonic()
        steps = train(epoch)
        seconds.append(time.monotonic() - began)
    print(1000 * statistics.median(seconds[1:]) / steps / replicas / workers)


def reference_epoch(model, data, published, shaping, rate: float):
    """A function that trains 30 steps by TensorFlow Privacy and returns their number."""
    import tensorflow as tf

    from models import tfprivacy

    tf.random.set_seed(215)
    optimizer = tfprivacy._optimizer(shaping, published.optimizer, rate)
    optimizer._create_all_weights(model.trainable_variables)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    x, y = tf.constant(data.x_train), tf.constant(data.y_train)

    @tf.function
    def step(first):
        part = slice(first, first + published.batch_size)
        with tf.GradientTape(persistent=True) as tape:
            losses = loss(y[part], model(x[part], training=True))
        optimizer.minimize(losses, model.trainable_variables, tape=tape)

    def train(epoch: int) -> int:
        for number in range(30):
            step(tf.constant(number * published.batch_size))
        return 30

    return train


def time_crafting(network: str) -> None:
    """Print the seconds that 100 poisons take for one target: the median of four, after a first one that traces."""
    from models import device

    device.start()
    import datasets
    from models import baselines
    from models.trainer import Training
    from poisons import shafahi

    data = datasets.load("purchases")
    training = Training.published(data.name, network)
    crafter = shafahi.Crafter(baselines.baseline(training, data).model)
    base = data.x_train[shafahi.base_rows(data.y_train, shafahi.TARGET_CLASS, 100)]
    seconds = []
    for target in (2, 107, 205, 569, 611):
        began = time.monotonic()
        crafter.craft(data.x_test[target], base, shafahi.Budget())
        seconds.append(time.monotonic() - began)
    print(statistics.median(seconds[1:]))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] == "craft":
        time_crafting(sys.argv[2])
    else:
        time_engine(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
