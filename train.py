#!/usr/bin/env python3
"""Train clean baselines, and train on poisoned data, undefended and under DP-SGD.

    python3 train.py --dataset subtask --network lr
        a clean baseline -> models/subtask/vanilla_lr_300_40_0.01/ (best.keras, final.keras, config.json, history.csv)
    python3 train.py --dataset subtask --network lr --clip-norm 1 4 --noise-std 0 0.1
        clean models under DP-SGD, one for each pair of the two lists
    python3 train.py --dataset purchases --network lr --shaping undefended 0.1 4 4:0.0025
        the same by a list of shapings: undefended, a clip norm, or a clip norm and a noise multiplier
    python3 train.py --dataset subtask --network lr --poison FILE ... --undefended --clip-norm 0.1 4
        a training for each poison file and shaping -> results/ipoisoning/.../attack_results.csv
    python3 train.py --dataset fashion_mnist --network badnet --poison FILE ... --record --retrain --epochs 40
        the same, recording gradients -> results/analysis/.../param_updates/ and analysis_results.csv; with --retrain each
        training starts from the clean baseline

All shapings of one poison file train at once, as replicas of one stack; so do watermarks and backdoors of one number of rows.
A network with convolutions trains in stacks of one. What is finished is not trained again.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import datasets
from command_line import COUNT, NOT_NEGATIVE, POSITIVE, SEED, Parser, refuse, run
from files import Lock
from models import baselines, device, memory
from models.protocols import NETWORKS, UNDEFENDED, Shaping, protocol, shaping
from models.trainer import Cell, Trainer, Training, cells_of, stacks, training_accuracies
from poisons import backdoor, images, poison_set, watermark
from results import cells, layout, param_updates

ATTACK_HEADER = ("epoch", "n_poison", "baseline_acc", "test_acc", "train_acc_clean", "train_acc_poison", "epsilon")
ANALYSIS_HEADER = ("epoch", "n_poison", "baseline_acc", "test_acc")
INSERTION_HEADER = ("epoch", "baseline_acc", "test_acc", "baseline_backdoor_acc", "backdoor_acc", "backdoor_acc_other_classes")


@dataclass(frozen=True)
class Poisoning:
    """What all poisoned trainings of one call share besides `Training`; dump: how gradients are recorded, npz or csv, None: not at all.

    locks: keeps two processes from the same stack.
    """

    shapings: list[Shaping]
    learning_rate: float | None
    baseline: baselines.Baseline
    retrain: bool
    dump: str | None
    locks: Lock


def main() -> None:
    options = parse()
    dataset = datasets.load(options.dataset)
    sets = [poison_set.load(path, dataset) for path in options.poison]
    names = [(poisons.attack, poisons.name) for poisons in sets]
    for name in names:
        if names.count(name) > 1:
            refuse(f"--poison: more than one file would be filed under {'/'.join(name)}; give one of them, or rename the other")
    training = Training(
        options.dataset, options.network, options.engine, options.protocol.optimizer, options.batch_size, options.epochs, options.seed
    )
    together = stacked_sets(options.network, sets)
    workers = device.start(options.gpu, len(together) if options.engine == "stack" else 1)
    poisons = max((sum(len(poisons.y) for poisons in group) for group in together), default=0)
    most = memory.replicas(options.memory, workers, options.network, dataset, poisons, options.batch_size, options.record)
    if not sets:
        baselines.train_clean(training, dataset, options.shapings, options.learning_rate, most)
        return
    baseline = baselines.baseline_from(options.baseline, training, dataset) if options.baseline else baselines.baseline(training, dataset)
    dump = options.dump if options.record else None
    poisoning = Poisoning(options.shapings, options.learning_rate, baseline, options.retrain, dump, Lock(layout.RESULTS / "train.lock"))
    mine = threading.local()  # each worker has its own engines

    def work(index: int, sets: list[poison_set.PoisonSet]) -> None:
        if not hasattr(mine, "trainer"):
            mine.trainer = Trainer(training, dataset, baseline.model if options.retrain else None, most)
        name = sets[0].name if len(sets) == 1 else f"{len(sets)} sets of {sets[0].attack}"
        train_poisoned(mine.trainer, sets, poisoning, most, f"{name} ({index + 1} of {len(together)})")

    device.side_by_side(workers, work, enumerate(together))


def parse():
    """The options, checked; `shapings` lists what each replica does to its gradients."""
    parser = Parser(__doc__)
    parser.add_argument("--dataset", required=True, choices=datasets.NAMES)
    parser.add_argument("--network", required=True, choices=tuple(NETWORKS))
    parser.add_argument(
        "--poison",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="poison files, each added to the training set in a training of its own",
    )
    parser.add_argument("--clip-norm", type=POSITIVE, nargs="+", default=[], help="DP-SGD with these bounds on each example's gradient")
    parser.add_argument(
        "--noise-std",
        type=NOT_NEGATIVE,
        nargs="+",
        default=[],
        help="each clip norm with each of these standard deviations of the noise on the clipped sum (default: 0)",
    )
    parser.add_argument(
        "--shaping",
        type=shaping,
        nargs="+",
        default=[],
        help="a list of these instead: undefended, a clip norm, or clip norm:noise multiplier",
    )
    parser.add_argument("--undefended", action="store_true", help="also train without DP-SGD (done anyway where no clip norm is given)")
    parser.add_argument("--record", action="store_true", help="record the gradients of clean and poison rows")
    parser.add_argument(
        "--dump",
        choices=("npz", "csv"),
        default="npz",
        help="keep recorded gradients as one npz an epoch, or in the paper's layout (default: npz)",
    )
    parser.add_argument("--retrain", action="store_true", help="start from the clean baseline instead of initial weights")
    parser.add_argument(
        "--baseline", type=Path, metavar="FILE", help="a clean .keras model (default: the kept one, trained where it is missing)"
    )
    parser.add_argument(
        "--engine",
        choices=("stack", "tfprivacy"),
        default="stack",
        help="stack, or TensorFlow Privacy as a slow reference (default: stack)",
    )
    parser.add_argument("--epochs", type=COUNT, help="default: the paper's")
    parser.add_argument("--batch-size", type=COUNT, help="default: the paper's")
    parser.add_argument("--learning-rate", type=POSITIVE, help="default: the paper's, which may differ between undefended and DP-SGD")
    parser.add_argument("--seed", type=SEED, default=layout.SEED, help="of initial weights, order and noise (default: %(default)s)")
    parser.add_argument(
        "--memory", type=POSITIVE, metavar="GIB", help="stay below so much, in smaller stacks (default: a quarter of the machine's memory)"
    )
    parser.add_argument("--gpu", type=int, metavar="INDEX", help="CUDA device (default: any; the CPU where there is none)")
    options = parser.parse_args()

    options.protocol = protocol(options.dataset, options.network)
    if options.shaping and (options.clip_norm or options.noise_std or options.undefended):
        refuse("--shaping: names every shaping; leave --clip-norm, --noise-std and --undefended out")
    if options.noise_std and not options.clip_norm:
        refuse("--noise-std: noise goes with a clip norm; give one with --clip-norm, or leave the noise out")
    if options.record and not options.poison:
        refuse("--record: gradients of clean and poison rows are compared; give a poison file with --poison")
    if options.record and options.engine != "stack":
        refuse(f"--record: --engine {options.engine} does not record gradients; use --engine stack")
    for name in ("retrain", "baseline"):
        if getattr(options, name) and not options.poison:
            refuse(f"--{name}: poisoned trainings start from or are compared with a clean model; give a poison file with --poison")
    options.poison = list(dict.fromkeys(path.resolve() for path in options.poison))
    grid = itertools.starmap(Shaping, itertools.product(options.clip_norm, options.noise_std or [0.0]))
    options.shapings = list(dict.fromkeys(options.shaping or grid))
    if options.undefended or not options.shapings:
        options.shapings.insert(0, UNDEFENDED)
    options.epochs = options.epochs or options.protocol.epochs
    options.batch_size = options.batch_size or options.protocol.batch_size
    return options


def stacked_sets(network: str, sets: list[poison_set.PoisonSet]) -> list[list[poison_set.PoisonSet]]:
    """Which poison sets train together: a few rows more in a batch cost a stack nothing, a set of thousands has a stack of its own."""
    groups = {}
    for number, poisons in enumerate(sets):
        few = poisons.attack in (watermark.ATTACK, backdoor.ATTACK) and not NETWORKS[network].filters
        groups.setdefault((poisons.attack, len(poisons.y)) if few else number, []).append(poisons)
    return list(groups.values())


def poisoned_cells(trainer: Trainer, poisons: poison_set.PoisonSet, poisoning: Poisoning) -> list[Cell]:
    """The cells of one poison set."""
    settings = {
        "attack": poisons.attack, "poison_set": poisons.name, "poison_sha256": poisons.file_sha256, "n_poison": len(poisons.y),
        "baseline_acc": poisoning.baseline.accuracy, "dump": poisoning.dump,
    }  # fmt: skip
    if poisoning.retrain:
        settings["retrained_from_sha256"] = poisoning.baseline.sha256

    def place(model: str) -> Path:
        model += poisoning.baseline.suffix
        if poisoning.dump:
            return layout.analysis_cell(poisons.attack, poisons.settings, trainer.dataset.name, poisons.name, model, poisoning.retrain)
        return layout.indiscriminate_cell(poisons.attack, poisons.name, model, poisoning.retrain)

    return cells_of(trainer.training, poisoning.shapings, poisoning.learning_rate, place, settings, poisons)


def train_poisoned(trainer: Trainer, sets: list[poison_set.PoisonSet], poisoning: Poisoning, most: int, label: str) -> None:
    """Train on the clean rows and each poison set with every shaping, and write what is not there yet.

    A stack is always trained whole, and only the missing cells are written: what a replica computes may depend in the last bit
    on how many others it shares a product with, and an interrupted sweep must end with the bytes of an undisturbed one.
    most: how many replicas a stack may have.
    """
    results_name, header = layout.ATTACK_RESULTS, ATTACK_HEADER
    if poisoning.dump:
        results_name, header = layout.ANALYSIS_RESULTS, INSERTION_HEADER if sets[0].attack == backdoor.ATTACK else ANALYSIS_HEADER

    def unfinished(group: list[Cell]) -> dict[int, Cell]:
        return {replica: cell for replica, cell in enumerate(group) if not cells.finished(cell.folder, results_name, cell.settings)}

    for group in stacks(trainer.training.network, [cell for poisons in sets for cell in poisoned_cells(trainer, poisons, poisoning)], most):
        piece = Lock.number(group[0].folder.resolve())
        if unfinished(group):
            poisoning.locks.take(piece, wait=True)  # until another process that is at it has finished
        todo = unfinished(group)
        if not todo:
            print(f"{label}: {len(group)} trainings finished before", file=sys.stderr)
            poisoning.locks.release(piece)
            continue
        began = time.monotonic()
        for cell in todo.values():
            cells.begin(cell.folder)
        history = train_stack(trainer, group, todo, header, poisoning.dump, label)
        about = {"wall_seconds": round(time.monotonic() - began, 3), "replicas": len(group)}
        for replica, cell in todo.items():
            lines = result_lines(trainer.dataset, cell, replica, history, header, poisoning.baseline)
            cells.write(cell.folder, results_name, header, lines, cell.settings, about)
        poisoning.locks.release(piece)


def train_stack(trainer: Trainer, group: list[Cell], todo: dict[int, Cell], header: tuple, dump: str | None, label: str) -> list[dict]:
    """Train a stack of cells, writing the gradients of those in `todo`; returns what the header asks for, by name float64 [replica], after each epoch."""
    engine, rows = trainer.engine(group), trainer.rows(group)
    history, written = [], None
    with concurrent.futures.ThreadPoolExecutor(1) as background:  # gradients are written while the next epoch trains
        for epoch, accuracies, record in trainer.epochs(engine, rows, label, record=bool(dump)):
            going = {replica: cell for replica, cell in todo.items() if not history or not np.isnan(history[-1]["test_acc"][replica])}
            history.append({"test_acc": accuracies})
            if header == ATTACK_HEADER:
                history[-1].update(zip(("train_acc_clean", "train_acc_poison"), training_accuracies(engine, rows)))
            if header == INSERTION_HEADER:
                shares = [
                    backdoor_accuracies(cell, trainer.dataset, partial(engine.hits, replica=replica)) for replica, cell in enumerate(group)
                ]
                history[-1].update(zip(("backdoor_acc", "backdoor_acc_other_classes"), np.transpose(shares)))
            history[-1] = {name: np.where(np.isnan(accuracies), np.nan, values) for name, values in history[-1].items()}
            if written is not None:
                written.result()
            if record is not None:
                written = background.submit(write_record, going, epoch, record, dump)
        if written is not None:
            written.result()
    return history


def write_record(going: dict[int, Cell], epoch: int, record, dump: str) -> None:
    for replica, cell in going.items():
        param_updates.write_epoch(cell.folder / layout.PARAM_UPDATES, epoch, record, replica, dump)


def backdoor_accuracies(cell: Cell, dataset: datasets.Dataset, hits: Callable) -> tuple[float, float]:
    """The share of stamped test images that are given the backdoor's label: of all, as published, and of those of other classes.

    hits: called with images [rows, features] and labels [rows], which of them are predicted, bool [1, rows].
    """
    settings = cell.poisons.settings
    stamped = images.stamp(dataset.x_test, settings["patch"])
    hit = hits(stamped.reshape(len(stamped), -1), np.full(len(stamped), settings["label"], np.int32))[0]
    return hit.mean(), hit[dataset.y_test != settings["label"]].mean()


def result_lines(
    dataset: datasets.Dataset, cell: Cell, replica: int, history: list[dict], header: tuple, baseline: baselines.Baseline
) -> list[list]:
    """The lines of a cell's CSV file, an epoch each; the last of a training that diverged has nan for its accuracies."""
    line = {"n_poison": len(cell.poisons.y), "baseline_acc": baseline.accuracy}
    if "baseline_backdoor_acc" in header:
        line["baseline_backdoor_acc"], _ = backdoor_accuracies(cell, dataset, baseline.hits)
    lines = []
    for epoch, measured in enumerate(history, 1):
        line.update({name: round(float(values[replica]), 6) for name, values in measured.items()}, epoch=epoch)
        if "epsilon" in header:
            line["epsilon"] = cell.epsilon(len(dataset.y_train) + len(cell.poisons.y), epoch)
        lines.append([line[name] for name in header])
        if np.isnan(line["test_acc"]):
            print(
                f"{cell.folder}: diverged in epoch {epoch} (weights that are no numbers), recorded as nan; the others went on",
                file=sys.stderr,
            )
            break
    return lines


if __name__ == "__main__":
    run(main)
