#!/usr/bin/env python3
"""Which poison files are the strongest against which gradient shaping: every file on every shaping, by few seeds.

    python3 transfer.py --dataset subtask --network lr --shaping undefended 0.1 --poison FILE ...

An attacker who crafted poisons against one shaping may use them against another. This tries each file on each
shaping, writes what came of it to results/matrix/transfer.csv (a line for each file, shaping and seed), and prints the
files that are the strongest against some shaping, of their attack and ratio: those that cost it most accuracy on clean
training rows. The seeds are others than those of the sweeps, so that what is chosen here is measured afresh there.
What is finished is not tried again.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pandas as pd

import datasets
from command_line import COUNT, INDEX, SEED, Parser, run
from models import device, memory
from models.kind import add_file_option
from models.protocols import add_network_option
from models.shaping import Shaping, shaping
from models.trainer import Cell, Trainer, Training, check_shapings, stacks, training_accuracies
from poisons import poison_set
from poisons.poison_set import PoisonSet
from results import layout, transfers
from results.transfers import COLUMNS

SEEDS = (1001, 1002)


def main() -> None:
    options = parse()
    dataset = datasets.load(options.dataset)
    check_shapings(options.shaping, options.network, dataset)
    sets = {path: poison_set.load(path, dataset) for path in options.poison}
    jobs = [(seed, poisons) for seed in options.seeds for poisons in sets.values()]
    workers = device.start(options.gpu, len(jobs))
    known, table = threading.local(), layout.transfer_file()
    count = max(len(poisons.y) for poisons in sets.values())
    training = Training.published(dataset.name, options.network, options.epochs)
    most = memory.replicas(
        None, workers, options.network, dataset, count, training.batch_size, shapings=options.shaping
    )

    def work(seed: int, poisons: PoisonSet) -> None:
        training = Training.published(dataset.name, options.network, options.epochs, seed=seed)
        if missing(table, training, poisons, options.shaping):
            if getattr(known, "seed", None) != seed:
                known.seed, known.trainer = seed, Trainer(training, dataset, most=most)
            transfers.add(table, tried(known.trainer, poisons, options.shaping))

    device.side_by_side(workers, work, jobs)
    place = {"dataset": dataset.name, "network": options.network, "epochs": training.epochs}
    lines, texts = transfers.of(transfers.read(table), **place), [one.text for one in options.shaping]
    wanted = {poisons.file_sha256: path for path, poisons in sets.items()}
    lines = lines[lines.seed.isin(options.seeds) & lines.poison_sha256.isin(wanted) & lines.shaping.isin(texts)]
    chosen = set(transfers.strongest(lines).poison_sha256)
    print(*(path for digest, path in wanted.items() if digest in chosen), sep="\n")


def parse():
    parser = Parser(__doc__)
    parser.add_argument("--dataset", required=True, help=f"one of {', '.join(datasets.NAMES)}")
    add_network_option(parser)
    parser.add_argument("--shaping", type=shaping, nargs="+", required=True, help="as train.py takes it")
    add_file_option(parser)
    parser.add_argument("--poison", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--seeds", type=SEED, nargs="+", default=list(SEEDS), help="default: 1001 1002")
    parser.add_argument("--epochs", type=COUNT, help="default: the paper's")
    parser.add_argument("--gpu", type=INDEX, metavar="INDEX", help="CUDA device (default: any; the CPU without one)")
    options = parser.parse_args()
    options.shaping, options.poison = (list(dict.fromkeys(values)) for values in (options.shaping, options.poison))
    return options


def tried(trainer: Trainer, poisons: PoisonSet, shapings: list[Shaping]) -> pd.DataFrame:
    """What a seed's trainings on a poison set come to, a line for each shaping."""
    training, lines = trainer.training, []
    cells = [Cell(one, training.learning_rate(one), "", {}, poisons) for one in shapings]
    for group in stacks(training.network, cells, trainer.most):
        engine, rows = trainer.engine(group), trainer.rows(group)
        *_, (_, accuracies, _) = trainer.epochs(engine, rows, f"{poisons.name}, seed {training.seed}")
        clean = np.where(np.isnan(accuracies), np.nan, training_accuracies(engine, rows)[0])
        about = [
            training.dataset, training.network, training.epochs, poisons.file_sha256, training.seed, poisons.attack,
            poisons.ratio, poisons.settings.get("shaping", ""), poisons.name,
        ]  # fmt: skip
        columns = [name for name in COLUMNS if name not in ("shaping", "train_acc_clean", "test_acc")]
        for cell, *measured in zip(group, clean, accuracies):
            values = dict(zip(columns, about)) | {"shaping": cell.shaping.text}
            lines.append(values | dict(zip(COLUMNS[-2:], (round(float(value), 6) for value in measured))))
    return pd.DataFrame(lines)[COLUMNS]


def missing(table: Path, training: Training, poisons: PoisonSet, shapings: list[Shaping]) -> bool:
    """Whether any shaping was not tried yet on a poison set by the seed of a training."""
    place = {"dataset": training.dataset, "network": training.network, "epochs": training.epochs}
    known = transfers.of(transfers.read(table), **place, poison_sha256=poisons.file_sha256, seed=training.seed)
    return not {one.text for one in shapings} <= set(known.shaping)


if __name__ == "__main__":
    run(main)
