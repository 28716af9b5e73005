#!/usr/bin/env python3
"""How long each part of ./reproduce.sh paper will take on this machine, from a timing of some seconds.

    python3 estimate.py

Four kinds of training steps are timed and compared with the same steps on the machine of a run that was recorded
(results/reproduction.csv); each part's seconds there are scaled by its kind. What is finished takes no time again.

    python3 estimate.py --record reproduced/results/reproduction

makes such a record of a run's log, reproduction.log, in which ./reproduce.sh notes when each part began:
reproduction.csv.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from command_line import Parser, refuse, run
from files import Unreadable, text, write_csv
from results import cells, layout, lines

RECORD = layout.REPOSITORY / "results/reproduction.csv"
# A line a part, in their order: its kind, its name, when it began (UTC), the seconds that it took, those that the timed
# steps of its kind take, and where that was
COLUMNS = {
    "kind": lines.TEXT, "part": lines.TEXT, "begun": lines.TEXT, "seconds": lines.WHOLE, "step_seconds": lines.NUMBER,
    "cores": lines.WHOLE, "cpu": lines.TEXT, "commit": lines.TEXT, "python": lines.TEXT, "tensorflow": lines.TEXT,
    "numpy": lines.TEXT,
}  # fmt: skip
END = "end"  # what stands in a log behind the last part
REPEATS = 5


@dataclass(frozen=True)
class Part:
    """A part of the reproduction: its kind of training steps, its name, and the second since 1970 in which it began."""

    kind: str
    name: str
    begun: int


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--record", type=Path, metavar="RUN", help="make RUN.csv of RUN.log, the parts of a run in one piece"
    )
    options = parser.parse_args()
    if options.record:
        record(options.record)
    else:
        try:
            show(lines.read(RECORD, COLUMNS))
        except Unreadable as error:
            refuse(f"{RECORD}: {error}; check it out anew")


def show(recorded) -> None:
    """Print the minutes that each recorded part will take here, and their sum; recorded: a DataFrame of COLUMNS."""
    minutes = recorded.seconds * recorded.kind.map(step_seconds(recorded.kind)) / recorded.step_seconds / 60
    print("how long the parts will take on this machine, without those that are finished already:\n")
    for name, its_minutes in zip(recorded.part, minutes):
        print(f"{its_minutes:8.1f} minutes   {name}")
    print(f"{minutes.sum():8.1f} minutes   all together ({minutes.sum() / 60:.1f} hours)\n", flush=True)


def record(run_name: Path) -> None:
    """Write RUN.csv of RUN.log; says why not where the run was not in one piece."""
    from models import device

    log = run_name.with_suffix(".log")
    parts = parts_of(log)
    if parts is None:
        print(f"{log}: some of its parts were run in several pieces, or are not there; no record is made")
        return
    seconds_here = step_seconds(part.kind for part in parts[:-1])
    about = {"cores": device.cores_there(), **cells.machine(), **cells.versions()}
    rows = []
    for part, following in zip(parts, parts[1:]):
        values = {
            "kind": part.kind, "part": part.name, "seconds": following.begun - part.begun,
            "begun": datetime.fromtimestamp(part.begun, timezone.utc).strftime("%Y-%m-%d %H:%M:%S"),
            "step_seconds": round(seconds_here[part.kind], 4), **about,
        }  # fmt: skip
        rows.append([values.get(name, "") for name in COLUMNS])
    write_csv(run_name.with_suffix(".csv"), COLUMNS, rows)
    whole = parts[-1].begun - parts[0].begun
    print(f"{run_name.with_suffix('.csv')}: {len(rows)} parts, {whole // 60} minutes {whole % 60} seconds together")


def parts_of(log: Path) -> list[Part] | None:
    """The parts of a log, the last of them END; None where the run was not in one piece, from nothing to its end."""
    try:
        entries = [line.split("\t") for line in text(log).splitlines()]
        parts = [Part(kind, name, int(begun)) for begun, kind, name in entries]
    except (Unreadable, ValueError) as error:
        refuse(f"--record {log.with_suffix('')}: {log.name} is no log of a run ({error}); give that of ./reproduce.sh")
    names = [part.name for part in parts]
    begins = [part.begun for part in parts]
    if len(parts) < 2 or names[-1] != END or len(set(names)) < len(names) or begins != sorted(begins):
        return None
    return parts


def step_seconds(kinds: Iterable[str]) -> dict[str, float]:
    """How long the timed steps of these kinds take here, each timed once; refuses a kind that has none."""
    kinds, timers = list(dict.fromkeys(kinds)), timings()
    for kind in kinds:
        if kind not in timers:
            refuse(f"there are no training steps {kind!r} to time; give one of {', '.join(timers)}")
    return {kind: least_seconds(timers[kind]) for kind in kinds}


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


def least_seconds(work: Callable[[], object]) -> float:
    """The least of REPEATS, after a first call that compiles: what else the machine does makes some longer, none
    shorter.
    """
    work()
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


if __name__ == "__main__":
    run(main)
