#!/usr/bin/env python3
"""The null of a gradient analysis: harmless duplicates of clean rows, with their right labels, recorded as poisons are.

    python3 analyze_nulls.py --dataset subtask --network lr --poisons 1 100 4320
    python3 analyze_nulls.py --dataset fashion_mnist --network badnet --poisons 600 --retrain --epochs 10 --draws 20
    python3 analyze_nulls.py --dataset purchases --network lr --poisons 1 --targeted --shaping undefended 0.1

The mean gradient of few rows is larger than that of many and points elsewhere, whatever rows they are: an analysis
says something of poisons where it finds more than this. Each draw is a training of its own, on the clean rows and as
many duplicates as the analysis has poisons; draws of few duplicates are replicas of one stack. Writes

    results/analysis/nulls/<data set>_<network>_<scratch|retrain>_<poisons>_<shaping>.csv

a line for each draw and epoch: what analyze_gradients.py makes of poisons. What is finished is not run again.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import numpy as np
import pandas as pd

import datasets
from analyze_gradients import cosine
from command_line import COUNT, INDEX, POSITIVE, SEED, Parser, refuse, run
from files import Unreadable, writing
from models import baselines, device, memory
from models.kind import add_file_option
from models.protocols import add_network_option
from models.shaping import UNDEFENDED, Shaping, shaping
from models.trainer import FEW, Cell, Trainer, Training, check_shapings, stacks
from poisons.poison_set import PoisonSet
from results import layout, nulls, param_updates


def main() -> None:
    options = parse()
    dataset = datasets.load(options.dataset)
    epochs = options.epochs or (layout.RETRAIN_EPOCHS if options.targeted else None)
    training = Training.published(dataset.name, options.network, epochs, seed=options.seed)
    check_shapings(options.shaping, options.network, dataset)
    for count in options.poisons:
        if count > len(dataset.y_train):
            refuse(f"--poisons {count}: {dataset.name} has {len(dataset.y_train)} training rows; ask for fewer")
    if options.check:
        return
    workers = device.start(options.gpu, options.draws)
    for chosen in options.shaping:
        start = None
        if options.targeted:
            start = baselines.baseline(training, dataset, chosen).model
        elif options.retrain:
            start = baselines.baseline(training, dataset).model
        for count in options.poisons:
            settings = {
                **training.settings(chosen, training.learning_rate(chosen)), "n_poison": count,
                "start": "scratch" if start is None else "retrain",
            }  # fmt: skip
            settings = {name: settings[name] for name in nulls.SETTINGS}
            path = layout.null_file(settings)
            if finished(path, settings, options.draws):
                print(f"{path}: finished before", file=sys.stderr)
                continue
            lines = measure(training, dataset, start, chosen, count, options, workers)
            frame = pd.DataFrame([{**settings, **line} for line in lines])[nulls.COLUMNS]
            with writing(path) as stream:
                frame.sort_values(["draw", "epoch"]).to_csv(stream, index=False, lineterminator="\n")
            print(path)


def parse():
    parser = Parser(__doc__)
    parser.add_argument("--dataset", required=True, help=f"one of {', '.join(datasets.NAMES)}")
    add_network_option(parser)
    parser.add_argument("--poisons", type=COUNT, nargs="+", required=True, help="how many duplicates, a file each")
    parser.add_argument("--draws", type=COUNT, default=40, help="of the duplicated rows (default: %(default)s)")
    parser.add_argument(
        "--shaping", type=shaping, nargs="+", default=[UNDEFENDED], help="as train.py takes it (default: undefended)"
    )
    add_file_option(parser)
    parser.add_argument("--epochs", type=COUNT, help="default: the paper's")
    parser.add_argument("--retrain", action="store_true", help="from the clean baseline instead of initial weights")
    parser.add_argument(
        "--targeted", action="store_true", help="as attack_targets.py re-trains: from each shaping's own clean model"
    )
    parser.add_argument(
        "--seed", type=SEED, default=layout.SEED, help="of initial weights, order and noise (default: %(default)s)"
    )
    parser.add_argument("--memory", type=POSITIVE, metavar="GIB", help="stay below so much, in smaller stacks")
    parser.add_argument("--gpu", type=INDEX, metavar="INDEX", help="CUDA device (default: any; the CPU without)")
    parser.add_argument("--check", action="store_true", help="check all other options, and do nothing")
    return parser.parse_args()


def finished(path, settings: dict, draws: int) -> bool:
    """Whether a file holds so many draws of these settings; refuses one of others."""
    if not path.exists():
        return False
    try:
        found = nulls.read(path)
    except Unreadable as error:
        refuse(f"{path}: {error}; delete it to measure it again")
    for name, value in settings.items():
        if (found[name] != value).any():
            refuse(f"{path}: of another {name} ({found[name].iloc[0]}, not {value}); delete it to measure it again")
    return found.draw.nunique() >= draws


def duplicates(dataset: datasets.Dataset, count: int, draw: int) -> PoisonSet:
    """Copies of `count` training rows with their right labels, without repetition; draw: from 1, seeds which."""
    rows = np.random.default_rng([draw, count, len(dataset.y_train)]).permutation(len(dataset.y_train))[:count]
    x, y = dataset.x_train[rows], dataset.y_train[rows]
    return PoisonSet("duplicates", f"draw {draw}", x, y, "", {"draw": draw}, dataset.name, len(dataset.y_train))


def measure(training: Training, dataset, start, chosen: Shaping, count: int, options, workers: int) -> list[dict]:
    """The lines of all draws of `count` duplicates, by `nulls.COLUMNS` but for the settings."""
    few = count <= FEW * len(dataset.y_train)
    most = memory.replicas(
        options.memory, workers, options.network, dataset, count * (options.draws if few else 1),
        training.batch_size, True, [chosen], count,
    )  # fmt: skip
    cells = [
        Cell(chosen, training.learning_rate(chosen), "", {}, duplicates(dataset, count, draw))
        for draw in range(1, options.draws + 1)
    ]
    groups = stacks(options.network, cells, most if few else 1)
    lines, mine = [], threading.local()

    def work(number: int, group: list[Cell]) -> None:
        if not hasattr(mine, "trainer"):
            mine.trainer = Trainer(training, dataset, start, most)
        label = f"{count} duplicates, {chosen.text} ({number} of {len(groups)})"
        lines.extend(lines_of(mine.trainer, group, label, not options.targeted))

    device.side_by_side(workers, work, enumerate(groups, 1))
    return lines


def lines_of(trainer: Trainer, group: list[Cell], label: str, short_last: bool) -> Iterator[dict]:
    """Train a stack of draws; a line for each of them and each epoch."""
    engine, rows = trainer.engine(group), trainer.rows(group)
    for epoch, _, record in trainer.epochs(engine, rows, label, record=True, short_last=short_last):
        for replica, cell in enumerate(group):
            recorded = param_updates.arrays(record, replica)
            clean, poison = recorded["clean_kernel"], recorded["poison_kernel"]
            values = (
                np.linalg.norm(poison) / np.linalg.norm(clean),
                cosine(clean, poison),
                np.median(recorded["poison_norms"]) / np.median(recorded["clean_norms"]),
                np.nanpercentile(recorded["poison_cosines"], 75),
            )
            measured = {name: float(f"{value:.6g}") for name, value in zip(nulls.MEASURES, values)}
            yield {"draw": cell.poisons.settings["draw"], "epoch": epoch, **measured}


if __name__ == "__main__":
    run(main)
