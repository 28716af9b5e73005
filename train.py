#!/usr/bin/env python3
"""Train clean baselines, and train on poisoned data, undefended and under DP-SGD.

    python3 train.py --dataset subtask --network lr
        a clean baseline -> models/subtask/vanilla_lr_300_40_0.01/ (best.keras, final.keras, config.json, history.csv)
    python3 train.py --dataset subtask --network lr --clip-norm 1 4 --noise-std 0 0.1
        clean models under DP-SGD, one for each pair of the two lists
    python3 train.py --dataset subtask --network lr --poison FILE ... --undefended --clip-norm 0.1 4
        a training for each poison file and shaping -> results/ipoisoning/.../attack_results.csv
    python3 train.py --dataset subtask --network lr --poison FILE --record
        the same, recording gradients -> results/analysis/ipoisoning/.../param_updates/ and analysis_results.csv

All shapings of one poison file train at once, as replicas of one stack. What is finished is not trained again.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import datasets
from command_line import COUNT, NOT_NEGATIVE, POSITIVE, SEED, Parser, Progress, refuse
from models import device, privacy
from models.protocols import HIDDEN_LAYERS, UNDEFENDED, Shaping, protocol
from poisons import poison_set
from results import cells, layout, param_updates

# TensorFlow takes seconds to import and must be told its device first, so what needs it (models.stack, models.networks,
# models.tfprivacy) is imported where a training begins; bad input is refused before.

HISTORY_HEADER = ("epoch", "test_acc", "train_acc", "epsilon")
ATTACK_HEADER = ("epoch", "n_poison", "baseline_acc", "test_acc", "train_acc_clean", "train_acc_poison", "epsilon")
ANALYSIS_HEADER = ("epoch", "n_poison", "baseline_acc", "test_acc")


@dataclass(frozen=True)
class Training:
    """What all trainings of one call share; the fields that a result is filed and checked by."""

    dataset: str
    network: str
    engine: str
    optimizer: str
    batch_size: int
    epochs: int
    seed: int

    def model_name(self, shaping: Shaping, learning_rate: float) -> str:
        """The name under which a training with this shaping is filed."""
        clip_norm = shaping.clip_norm if shaping.defended else None
        return layout.model_name(
            self.network, self.batch_size, self.epochs, learning_rate, self.seed, clip_norm, shaping.noise_multiplier, self.engine
        )


@dataclass(frozen=True)
class Cell:
    """One training of a sweep: what it does to its gradients, where its results go, and all that they depend on."""

    shaping: Shaping
    learning_rate: float
    folder: Path
    settings: dict


@dataclass(frozen=True)
class Accuracies:
    """Accuracies after an epoch, float64 [replica] each: on the test rows, the clean training rows and the poisons (NaN without any)."""

    test: np.ndarray
    clean: np.ndarray
    poison: np.ndarray

    def of(self, replica: int) -> Accuracies:
        """One replica's, as numbers of six digits."""
        return Accuracies(*(round(float(values[replica]), 6) for values in (self.test, self.clean, self.poison)))


def main() -> None:
    options = parse()
    dataset = datasets.load(options.dataset)
    poison_sets = [poison_set.load(path, dataset) for path in options.poison]
    names = [(poisons.attack, poisons.name) for poisons in poison_sets]
    for name in names:
        if names.count(name) > 1:
            refuse(f"--poison: more than one file would be filed under {'/'.join(name)}; give one of them, or rename the other")
    training = Training(
        options.dataset, options.network, options.engine, options.protocol.optimizer, options.batch_size, options.epochs, options.seed
    )
    workers = device.start(options.gpu, len(poison_sets) if options.engine == "stack" else 1)
    if not poison_sets:
        train_clean(training, dataset, options.shapings, options.learning_rate)
        return
    baseline_accuracy = baseline(training, dataset)
    mine = threading.local()  # each worker has its own engines

    def work(index: int, poisons: poison_set.PoisonSet) -> None:
        if not hasattr(mine, "trainer"):
            mine.trainer = Trainer(training, dataset)
        label = f"{poisons.name} ({index + 1} of {len(poison_sets)})"
        train_poisoned(
            mine.trainer,
            poisons,
            options.shapings,
            options.learning_rate,
            baseline_accuracy,
            label,
            options.dump if options.record else None,
        )

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(work, index, poisons) for index, poisons in enumerate(poison_sets)]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def parse():
    """The options, checked; `shapings` lists what each replica does to its gradients."""
    parser = Parser(__doc__)
    parser.add_argument("--dataset", required=True, choices=datasets.NAMES)
    parser.add_argument("--network", required=True, choices=tuple(HIDDEN_LAYERS))
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
    parser.add_argument("--undefended", action="store_true", help="also train without DP-SGD (done anyway where no clip norm is given)")
    parser.add_argument("--record", action="store_true", help="record the gradients of clean and poison rows")
    parser.add_argument(
        "--dump",
        choices=("npz", "csv"),
        default="npz",
        help="keep recorded gradients as one npz an epoch, or in the paper's layout (default: npz)",
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
    parser.add_argument("--gpu", type=int, metavar="INDEX", help="CUDA device (default: any; the CPU where there is none)")
    options = parser.parse_args()

    options.protocol = protocol(options.dataset, options.network)
    if options.noise_std and not options.clip_norm:
        refuse("--noise-std: noise goes with a clip norm; give one with --clip-norm, or leave the noise out")
    if options.record and not options.poison:
        refuse("--record: gradients of clean and poison rows are compared; give a poison file with --poison")
    if options.record and options.engine != "stack":
        refuse(f"--record: --engine {options.engine} does not record gradients; use --engine stack")
    options.poison = list(dict.fromkeys(path.resolve() for path in options.poison))
    options.shapings = list(dict.fromkeys(itertools.starmap(Shaping, itertools.product(options.clip_norm, options.noise_std or [0.0]))))
    if options.undefended or not options.shapings:
        options.shapings.insert(0, UNDEFENDED)
    options.epochs = options.epochs or options.protocol.epochs
    options.batch_size = options.batch_size or options.protocol.batch_size
    return options


# --- the one training loop ---


class Trainer:
    """Trains on one data set. An engine is built once for each list of shapings and used again: tracing takes longer than a short training."""

    def __init__(self, training: Training, dataset: datasets.Dataset) -> None:
        from models import stack

        self.training, self.dataset, self.stack = training, dataset, stack
        self.engines = {}
        self.test = stack.Rows.of(dataset.x_test, dataset.y_test, np.zeros(len(dataset.y_test), bool), 1)

    def engine(self, group: list[Cell]):
        """The engine that trains a stack of cells, at its initial weights."""
        from models import networks, tfprivacy

        shapings, learning_rate = [cell.shaping for cell in group], group[0].learning_rate
        key = (tuple(shapings), learning_rate)
        if key not in self.engines:
            make = {"stack": self.stack.Stack, "tfprivacy": tfprivacy.TensorFlowPrivacy}[self.training.engine]
            model = networks.build(self.training.network, self.dataset.shape, self.dataset.classes, self.training.seed)
            self.engines[key] = make(model, shapings, self.training.optimizer, learning_rate, self.training.seed)
        self.engines[key].reset()
        return self.engines[key]

    def epochs(self, engine, poisons: poison_set.PoisonSet | None, label: str, record: bool) -> Iterator[tuple]:
        """Train `engine` on the clean rows and the poisons; yields (epoch, Accuracies, Record or None) after each epoch."""
        training, data = self.training, self.dataset
        x, y = data.x_train, data.y_train
        if poisons is not None:
            x, y = np.concatenate([x, poisons.x]), np.concatenate([y, poisons.y])
        is_poison = np.arange(len(y)) >= len(data.y_train)
        rows = self.stack.Rows.of(x, y, is_poison, len(engine.shapings))
        progress = Progress(label, training.epochs)
        for epoch in range(1, training.epochs + 1):
            order, clean = self.stack.batches(is_poison, training.batch_size, training.seed, epoch)
            recorded = engine.train_epoch(rows, order, clean, training.batch_size, record)
            hits = engine.hits(rows.x, rows.y)
            poison = hits[:, is_poison].mean(1) if poisons is not None else np.full(len(hits), np.nan)
            accuracies = Accuracies(engine.hits(self.test.x, self.test.y).mean(1), hits[:, ~is_poison].mean(1), poison)
            progress.show(epoch, accuracies.test)
            yield epoch, accuracies, recorded


# --- clean models ---


def train_clean(training: Training, dataset: datasets.Dataset, shapings: list[Shaping], learning_rate: float | None) -> None:
    """Train clean models and keep the best and the final epoch of each."""
    from models import checkpoints

    def place(model: str) -> Path:
        return layout.model_folder(training.dataset, model)

    for group in stacks(training, shapings, learning_rate, place, {}):
        todo = [cell for cell in group if checkpoints.config(cell.folder, cell.settings) is None]
        if not todo:
            continue
        trainer = Trainer(training, dataset)
        engine = trainer.engine(group)
        history, best = [], [(-1.0, 0, None)] * len(group)
        for epoch, accuracies, _ in trainer.epochs(engine, None, f"clean {training.network}", record=False):
            history.append(accuracies)
            for replica, accuracy in enumerate(accuracies.test):
                if accuracy > best[replica][0]:
                    best[replica] = (accuracy, epoch, engine.weights(replica))
        for replica, cell in enumerate(group):
            if cell in todo:
                keep_model(
                    training, dataset, cell, [accuracies.of(replica) for accuracies in history], best[replica], engine.weights(replica)
                )


def keep_model(
    training: Training, dataset: datasets.Dataset, cell: Cell, history: list[Accuracies], best: tuple, final_weights: list
) -> None:
    """Write a clean model's folder; best: its best test accuracy, the epoch and the weights then."""
    from models import checkpoints, networks

    lines = [
        (epoch, accuracies.test, accuracies.clean, epsilon(training, cell, len(dataset.y_train), epoch))
        for epoch, accuracies in enumerate(history, 1)
    ]
    _, best_epoch, best_weights = best
    models = {}
    for name, weights in ((checkpoints.BEST, best_weights), (checkpoints.FINAL, final_weights)):
        models[name] = networks.build(training.network, dataset.shape, dataset.classes, training.seed)
        models[name].set_weights(weights)
    best_accuracy, final_accuracy = lines[best_epoch - 1][1], lines[-1][1]
    reached = {
        "best_epoch": best_epoch,
        "best_test_acc": best_accuracy,
        "final_test_acc": final_accuracy,
        "final_epsilon": str(lines[-1][3]),
    }
    checkpoints.save(cell.folder, models, {**cell.settings, **reached, "versions": cells.versions()}, HISTORY_HEADER, lines)
    print(f"{cell.folder}: best test accuracy {best_accuracy:.4f} at epoch {best_epoch}, final {final_accuracy:.4f}")


def baseline(training: Training, dataset: datasets.Dataset) -> float:
    """The best test accuracy of the clean undefended model that the paper's protocol gives, which is trained if it is missing."""
    from models import checkpoints

    published = protocol(training.dataset, training.network)
    clean = Training(training.dataset, training.network, "stack", published.optimizer, published.batch_size, published.epochs, layout.SEED)
    train_clean(clean, dataset, [UNDEFENDED], None)
    return checkpoints.config(layout.model_folder(clean.dataset, clean.model_name(UNDEFENDED, published.learning_rate)))["best_test_acc"]


# --- poisoned trainings ---


def train_poisoned(
    trainer: Trainer, poisons: poison_set.PoisonSet, shapings: list[Shaping], learning_rate: float | None,
    baseline_accuracy: float, label: str, dump: str | None,
) -> None:  # fmt: skip
    """Train on the clean rows and one poison set with every shaping, and write what is not there yet.

    dump: how gradients are recorded, npz or csv; None for the plain sweep, which records none.
    A stack is always trained whole, and only the missing cells are written: what a replica computes may depend in the last bit
    on how many others it shares a product with, and an interrupted sweep must end with the bytes of an undisturbed one.
    """
    training = trainer.training
    place = layout.indiscriminate_analysis_cell if dump else layout.indiscriminate_cell
    results_name = layout.ANALYSIS_RESULTS if dump else layout.ATTACK_RESULTS
    poisoning = {
        "attack": poisons.attack, "poison_set": poisons.name, "poison_sha256": poisons.file_sha256, "n_poison": len(poisons.y),
        "baseline_acc": baseline_accuracy, "dump": dump,
    }  # fmt: skip
    for group in stacks(training, shapings, learning_rate, lambda model: place(poisons.attack, poisons.name, model), poisoning):
        todo = [replica for replica, cell in enumerate(group) if not cells.finished(cell.folder, results_name, cell.settings)]
        if not todo:
            print(f"{label}: {len(group)} trainings finished before", file=sys.stderr)
            continue
        began = time.monotonic()
        for replica in todo:
            cells.begin(group[replica].folder)
        history = []
        with concurrent.futures.ThreadPoolExecutor(1) as background:  # gradients are written while the next epoch trains
            written = None
            for epoch, accuracies, record in trainer.epochs(trainer.engine(group), poisons, label, record=bool(dump)):
                history.append(accuracies)
                if written is not None:
                    written.result()
                if record is not None:
                    written = background.submit(write_record, [(group[replica].folder, replica) for replica in todo], epoch, record, dump)
            if written is not None:
                written.result()
        measured = {"wall_seconds": round(time.monotonic() - began, 3), "replicas": len(group)}
        rows = len(trainer.dataset.y_train) + len(poisons.y)
        for replica in todo:
            cell, lines = group[replica], []
            for epoch, reached in enumerate((accuracies.of(replica) for accuracies in history), 1):
                lines.append((epoch, len(poisons.y), baseline_accuracy, reached.test))
                if not dump:
                    lines[-1] += (reached.clean, reached.poison, epsilon(training, cell, rows, epoch))
            cells.write(cell.folder, results_name, ANALYSIS_HEADER if dump else ATTACK_HEADER, lines, cell.settings, measured)


def write_record(replicas: list[tuple[Path, int]], epoch: int, record, dump: str) -> None:
    for folder, replica in replicas:
        param_updates.write_epoch(folder / layout.PARAM_UPDATES, epoch, record, replica, dump)


# --- what a cell is made with ---


def stacks(
    training: Training, shapings: list[Shaping], learning_rate: float | None, place: Callable[[str], Path], more: dict
) -> list[list[Cell]]:
    """The cells of these shapings, in groups that can train as one stack: those of one learning rate, the paper's unless one is given.

    place: the folder for a model's name; more: settings besides the training's own.
    """
    published = protocol(training.dataset, training.network)
    groups = {}
    for shaping in shapings:
        rate = learning_rate or (published.dp_learning_rate if shaping.defended else published.learning_rate)
        settings = {
            **dataclasses.asdict(training),
            "learning_rate": rate,
            "clip_norm": shaping.clip_norm if shaping.defended else None,
            "noise_std": shaping.noise_std,
            "noise_multiplier": shaping.noise_multiplier,
            "delta": layout.DELTA,
            **more,
        }
        groups.setdefault(rate, []).append(Cell(shaping, rate, place(training.model_name(shaping, rate)), settings))
    return list(groups.values())


def epsilon(training: Training, cell: Cell, rows: int, epochs: int) -> float:
    """The epsilon that a cell's training on `rows` rows has spent after `epochs` epochs."""
    steps = epochs * -(-rows // training.batch_size)
    return round(privacy.epsilon(cell.shaping.noise_multiplier, training.batch_size, rows, steps, layout.DELTA), 4)


if __name__ == "__main__":
    main()
