#!/usr/bin/env python3
"""What each kind of gradient shaping costs beside clipping, and beside the same rule by byzfl, TorchJD or Opacus.

    python3 tests/benchmarks/shapings.py
        about 6 minutes on 2 cores; milliseconds a step and replica, stacks side by side, one a core
    python3 tests/benchmarks/shapings.py a phuber:2 sever:0.3
        only this unit of work and these shapings, without a file
    python3 -m venv .peers && .peers/bin/pip install -r tests/benchmarks/requirements.txt
        for the peers (PEERS=/path/to/python for another environment); left out where they are missing

Each shaping is timed in turn with clip norm 4, five times in pairs; the table gives the median of the pairs' ratios. A
figure of byzfl or TorchJD is milliseconds of the aggregation alone, for one model on all cores, of a matrix of
per-example gradients (or of micro-batch means) that lies ready, which is what these libraries do; of Opacus it is a
whole training step. Writes shapings.csv beside itself.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from units import UNITS, data

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1])]
PAIRS = 5
TABLE = HERE / "shapings.csv"
PEERS = os.environ.get("PEERS") or str(HERE.parents[1] / ".peers/bin/python")
WORK = {  # of `units`: the paper's three dense networks, by clip norm 4 without noise
    "a": "lr 784-2, batch 300",
    "b": "lr 100-100, batch 100",
    "c": "MLP 100-256-256-100, batch 100",
}
BOUNDS = {  # times the step of plain clipping
    "norms and losses": (1.25, "clip-layers:4 auto-s:0.01 auto-v psac:1:0.1 quantile-clip:0.5:0.2:1 drop-norm:0.1 "
                         "trim-loss:0.1 phuber:2 gce:0.7 linear abl:0.5:10:0.01 epic:0.2:5:20 phuber:2+clip:4"),
    "inner products": (2.0, "cosine:0 running-cosine:0:0.9 trusted:20"),
    "robust means": (4.0, "geometric-median:0.1:0 geometric-median:0.1:10 multi-krum:0.3:10 sever:0.1 "
                     "median-of-means:10 trimmed-mean:0.3:10 centered-clip:1"),
    "without a bound": (float("inf"), "multi-krum:0.3:0"),
}  # fmt: skip


def steps(unit: str, chosen: list[str]) -> dict[str, tuple[float, float]]:
    """Of each shaping: milliseconds a step and replica, and the median ratio to plain clipping."""
    from models import device

    workers = device.start(None, os.cpu_count())
    import numpy as np
    from peer_tensorflow import network

    from models import minibatches, stack
    from models.shaping import Shaping, shaping

    work = replace(UNITS[unit], clip_norm=4.0)
    x, y = data(work)
    rows = minibatches.Rows.of(x, y, np.zeros(len(y), bool), work.replicas)
    batches = minibatches.shuffled(rows, work.batch_size, 0, 1)

    def timer(value: Shaping):
        arguments = (network(work), [value] * work.replicas, work.optimizer, work.learning_rate, 0)
        engines = [stack.Stack(*arguments, trusted=(x[:20], y[:20])) for _ in range(workers)]

        def epoch(engine) -> None:
            engine.train_epoch(rows, batches)
            engine.weights(0)

        def once() -> float:
            began = time.perf_counter()
            with concurrent.futures.ThreadPoolExecutor(workers) as pool:
                list(pool.map(epoch, engines))
            return 1000 * (time.perf_counter() - began) / work.steps / work.replicas / workers

        once()  # traces and compiles
        return once

    clip, found = timer(Shaping.clip(4)), {}
    for text in chosen:
        mine = timer(shaping(text))
        pairs = [(mine(), clip()) for _ in range(PAIRS)]
        found[text] = statistics.median(one for one, _ in pairs), statistics.median(one / two for one, two in pairs)
        print(unit, text, *(f"{value:.4f}" for value in found[text]), flush=True)
    return found


def peers(unit: str) -> dict[str, dict[str, float]]:
    """Milliseconds of the peers' aggregations, by shaping and peer, in their own environment; none without it."""
    if not Path(PEERS).exists():
        print(f"{PEERS}: no such environment, so no peers", file=sys.stderr)
        return {}
    done = subprocess.run([PEERS, HERE / "peer_aggregators.py", unit], capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return {}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    if sys.argv[1:]:
        steps(sys.argv[1], sys.argv[2:])
        return
    import pandas as pd

    lines = []
    for unit, what in WORK.items():
        mine = [text for _, texts in BOUNDS.values() for text in texts.split()]
        # a process of its own, which leaves nothing behind in memory
        with concurrent.futures.ProcessPoolExecutor(1) as pool:
            measured, others = pool.submit(steps, unit, ["clip:4", *mine]).result(), peers(unit)
        for group, (bound, texts) in {"norms": (1.0, "clip:4"), **BOUNDS}.items():
            for text in texts.split():
                ours = dict(zip(("ms_per_step_and_replica", "times_clip"), measured[text]))
                known = "; ".join(f"{name} {value:.3g}" for name, value in others.get(text, {}).items())
                about = {"work": what, "looks_at": group, "shaping": text}
                lines.append({**about, **ours, "bound": bound, "peers_ms": known})
    pd.DataFrame(lines).round(4).to_csv(TABLE, index=False)
    print(pd.DataFrame(lines).to_string())


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
