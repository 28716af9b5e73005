#!/usr/bin/env python3
"""How fast the suite is beside its peers, and how far from what the machine could do, in one run.

    python3 -m venv .peers && .peers/bin/pip install -r tests/benchmarks/requirements.txt
        Opacus and JAX, which the suite does not need
    python3 tests/benchmarks/peers.py
        about 25 minutes on 2 cores; PEERS=/path/to/python for another environment than .peers
    ROUNDS=3 python3 tests/benchmarks/peers.py a
        only this unit of work, all programs three times in turn: medians of the medians

Units of work: (a) a step of the indiscriminate sweep, (b) of a targeted attack on logistic regression, (c) of the
shallow MLP under DP-SGD, (d) of the BadNet under DP-SGD: milliseconds a step and replica, each program in a process of
its own, medians of five (TensorFlow Privacy not on (d), where a step takes it many seconds). Then whole commands as
users call them: both sweeps of the paper, (e) a collision with its record, (f) crafting one slab set and the poisons of
one target. Writes peers.csv beside itself.
"""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from units import REPEATS, UNITS

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]
TABLE = HERE / "peers.csv"
ROUNDS = int(os.environ.get("ROUNDS", "1"))
PEERS = os.environ.get("PEERS") or str(REPOSITORY / ".peers/bin/python")
HEADER = ("unit", "what", "ms_per_step_and_replica", "times_the_stack")
WHAT = {
    "a": "logistic regression 784-2, batch 300, clip norm and noise",
    "b": "logistic regression 100-100, batch 100, undefended",
    "b, DP": "logistic regression 100-100, batch 100, clip norm",
    "c": "MLP 100-256-256-100, batch 100, clip norm and noise",
    "d": "BadNet, batch 100, clip norm",
}
COMMANDS = {  # what is added to the environment, the command, and the poison files that it is to make anew
    "both published sweeps, 378 trainings of 40 epochs": (
        {"ATTACKS": "label-flips slabs"},
        ("./do_ipoisoning.sh", "subtask", "0"),
        None,
    ),
    "(e) six-alpha collision with its record": ({}, ("./analyze_collision.sh", "subtask", "multi"), None),
    "(f) crafting one slab set": (
        {},
        (sys.executable, "-m", "poisons.steinhardt", "--attack", "slab", "--eps", "0.4"),
        "indiscriminate/slabs/*eps40*",
    ),
    "(f) crafting the poisons of one target": (
        {},
        (sys.executable, "-m", "poisons.shafahi", "--network", "lr", "--target", "2"),
        "targeted/*/*/*/*/*_2.npz",
    ),
}


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, {processor()}, Python {platform.python_version()}")
    rate = matrix_rate()
    print(f"float32 matrix products: {rate:.0f} GFLOP/s\n", flush=True)
    wanted = sys.argv[1:] or [*UNITS, "commands"]
    lines = [line for line in read() if line[0] not in wanted]
    for name in filter(UNITS.get, wanted):
        unit, rounds = UNITS[name], {}
        for _ in range(ROUNDS):  # the programs in turn: the machine may be faster at one time than at another
            for what, value in one_round(name).items():
                rounds.setdefault(what, []).append(math.inf if value is None else value)
        found = {what: statistics.median(values) for what, values in rounds.items()}
        found = {what: value if math.isfinite(value) else None for what, value in found.items()}
        found["arithmetic limit"] = unit.operations / rate / 1e6
        print(f"({name}) {WHAT[name]}: {unit.operations / 1e6:.2f} MFLOP a step")
        for what, value in found.items():
            shown = "failed" if value is None else f"{value:9.4f} ms {value / found['stack']:8.2f} times the stack"
            print(f"    {what:<26}{shown}", flush=True)
            lines.append((name, what, value or "", round(value / found["stack"], 3) if value else ""))
        write(lines)
    if not Path(PEERS).exists():
        print(f"no {PEERS}: without Opacus and JAX (see the head of this file)")
    if "commands" in wanted:
        whole_commands(lines)
        write(lines)


def one_round(name: str) -> dict[str, float | None]:
    """Milliseconds a step of every program on a unit of work."""
    unit, found = UNITS[name], {}
    for program in ("stack", "keras", *(("privacy",) if unit.clip_norm is not None and not unit.filters else ())):
        found.update(measured(sys.executable, "peer_tensorflow.py", name, program))
    if Path(PEERS).exists():
        for program in ("peer_opacus.py", "peer_jax.py"):
            found.update(measured(PEERS, program, name))
    return found


def read() -> list[tuple]:
    """What an earlier run wrote."""
    if not TABLE.exists():
        return []
    with open(TABLE, newline="") as stream:
        return [tuple(line) for line in csv.reader(stream)][1:]


def write(lines: list[tuple]) -> None:
    from files import write_csv

    write_csv(TABLE, HEADER, sorted(lines, key=lambda line: line[0]))


def measured(python: str, program: str, *arguments: str) -> dict[str, float | None]:
    """What a program reports; nothing when it fails, with its last line."""
    done = subprocess.run([python, HERE / program, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        print(f"    {program} {' '.join(arguments)} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        return {}
    return json.loads(done.stdout.splitlines()[-1])


def processor() -> str:
    """The processor as Linux names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def matrix_rate() -> float:
    """GFLOP/s of a float32 matrix product of 4096 x 4096 on all cores, in a process of its own."""
    program = (
        "import os, statistics, time; os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'; import tensorflow as tf\n"
        "a = tf.random.uniform([4096, 4096]); seconds = []\n"
        "for _ in range(6):\n    began = time.perf_counter(); tf.matmul(a, a).numpy();"
        " seconds.append(time.perf_counter() - began)\n"
        "print(2 * 4096**3 / statistics.median(seconds[1:]) / 1e9)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def whole_commands(lines: list[tuple]) -> None:
    """Time COMMANDS, each from nothing, in a copy of the repository, since poison files are written beside the code."""
    from conftest import copied_suite

    with tempfile.TemporaryDirectory() as folder:
        suite = copied_suite(Path(folder))
        for what, (settings, command, poisons) in COMMANDS.items():
            seconds = []
            for repeat in range(REPEATS):
                for path in suite.glob(f"datasets/poisons/{poisons}" if poisons else "nothing"):
                    path.unlink()
                results, models = Path(folder) / f"{len(lines)}_{repeat}", REPOSITORY / "models"
                places = {"PYTHON": sys.executable, "RESULTS": str(results), "MODELS": str(models)}
                environment = {**os.environ, **places, **settings}
                began = time.perf_counter()
                subprocess.run(command, cwd=suite, env=environment, check=True, capture_output=True)
                seconds.append(time.perf_counter() - began)
            median = statistics.median(seconds)
            print(f"{what}: {median:.1f} s ({min(seconds):.1f} to {max(seconds):.1f})", flush=True)
            lines.append(("commands", what, round(1000 * median), ""))


if __name__ == "__main__":
    main()
