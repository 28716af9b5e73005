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
import platform
import shutil
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Iterator

import numpy as np
from tqdm import tqdm

import datasets
from command_line import COUNT, NOT_NEGATIVE, POSITIVE, SEED, Parser, refuse
from files import file_sha256, read_json, write_csv, write_json
from models import device, privacy
from models.protocols import UNDEFENDED, Shaping, protocol
from poisons import poison_set
from results import layout, param_updates

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
            self.network, self.batch_size, self.epochs, learning_rate, self.seed, clip_norm, shaping.noise_multiplier, self.engine)


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


def main() -> None:
    options = parse()
    dataset = datasets.load(options.dataset)
    poison_sets = [poison_set.load(path, dataset) for path in options.poison]
    device.start(options.gpu)
    training = Training(
        options.dataset, options.network, options.engine, options.protocol.optimizer, options.batch_size, options.epochs, options.seed)
    if not poison_sets:
        train_clean(training, dataset, options.shapings, options.learning_rate)
        return
    baseline_accuracy = baseline(training, dataset)
    trainer = Trainer(training, dataset)
    for index, poisons in enumerate(poison_sets, 1):
        label = f"{poisons.name} ({index} of {len(poison_sets)})"
        train_poisoned(trainer, poisons, options.shapings, options.learning_rate, baseline_accuracy, label, options.dump if options.record else None)


def parse():
    """The options, checked; `shapings` lists what each replica does to its gradients."""
    parser = Parser(__doc__)
    parser.add_argument("--dataset", required=True, help="subtask or fashion_mnist")
    parser.add_argument("--network", required=True, help="lr or shallow-mlp")
    parser.add_argument("--poison", type=Path, nargs="+", default=[], metavar="FILE",
                        help="poison files, each added to the training set in a training of its own")
    parser.add_argument("--clip-norm", type=POSITIVE, nargs="+", default=[], help="DP-SGD with these bounds on each example's gradient")
    parser.add_argument("--noise-std", type=NOT_NEGATIVE, nargs="+", default=[],
                        help="each clip norm with each of these standard deviations of the noise on the clipped sum (default: 0)")
    parser.add_argument("--undefended", action="store_true", help="also train without DP-SGD (done anyway where no clip norm is given)")
    parser.add_argument("--record", action="store_true", help="record the gradients of clean and poison rows")
    parser.add_argument("--dump", choices=("npz", "csv"), default="npz",
                        help="keep recorded gradients as one npz an epoch, or in the paper's layout (default: npz)")
    parser.add_argument("--engine", choices=("stack", "tfprivacy"), default="stack",
                        help="stack, or TensorFlow Privacy as a slow reference (default: stack)")
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
    options.shapings = [Shaping(clip, std) for clip, std in itertools.product(options.clip_norm, options.noise_std or [0.0])]
    if options.undefended or not options.shapings:
        options.shapings.insert(0, UNDEFENDED)
    options.epochs = options.epochs or options.protocol.epochs
    options.batch_size = options.batch_size or options.protocol.batch_size
    return options


# --- the one training loop ---


class Trainer:
    """Trains stacks on one data set; an engine is built once for each list of shapings and used again, since tracing it takes longer than a short training."""

    def __init__(self, training: Training, dataset: datasets.Dataset) -> None:
        from models import stack

        self.training, self.dataset, self.stack = training, dataset, stack
        self.engines = {}
        self.test = stack.Rows.of(dataset.x_test, dataset.y_test, np.zeros(len(dataset.y_test), bool), 1)

    def engine(self, shapings: list[Shaping], learning_rate: float):
        """The engine for these shapings, at its initial weights."""
        from models import networks, tfprivacy

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
            accuracies = Accuracies(
                engine.hits(self.test.x, self.test.y).mean(1), hits[:, ~is_poison].mean(1),
                hits[:, is_poison].mean(1) if poisons is not None else np.full(len(hits), np.nan))
            progress.show(epoch, accuracies.test)
            yield epoch, accuracies, recorded
        progress.close()


class Progress:
    """Epoch, test accuracy and time left: a bar on a terminal; plain lines, at most one in five seconds and the last, in a file."""

    def __init__(self, label: str, epochs: int) -> None:
        self.label, self.epochs, self.began, self.shown = label, epochs, time.monotonic(), time.monotonic()
        self.bar = tqdm(total=epochs, desc=label, unit="epoch", dynamic_ncols=True, disable=not sys.stderr.isatty())

    def show(self, epoch: int, test_accuracy: np.ndarray) -> None:
        low, high = test_accuracy.min(), test_accuracy.max()
        accuracy = f"test accuracy {low:.4f}" + (f" to {high:.4f}" if high > low else "")
        self.bar.set_postfix_str(accuracy, refresh=False)
        self.bar.update()
        now = time.monotonic()
        if self.bar.disable and (epoch == self.epochs or now - self.shown >= 5):
            left = (now - self.began) / epoch * (self.epochs - epoch)
            print(f"{self.label}: epoch {epoch}/{self.epochs}, {accuracy}, {left:.0f} s left", file=sys.stderr, flush=True)
            self.shown = now

    def close(self) -> None:
        self.bar.close()


# --- clean models ---


def train_clean(training: Training, dataset: datasets.Dataset, shapings: list[Shaping], learning_rate: float | None) -> None:
    """Train clean models and keep the best and the final epoch of each."""
    from models import checkpoints, networks

    cells = []
    for shaping in shapings:
        rate = learning_rate or _published_rate(training, shaping)
        folder = layout.model_folder(training.dataset, training.model_name(shaping, rate))
        cells.append(Cell(shaping, rate, folder, _settings(training, shaping, rate)))
    for group in _stacks(cells):
        todo = [cell for cell in group if checkpoints.config(cell.folder, cell.settings) is None]
        if not todo:
            continue
        trainer = Trainer(training, dataset)
        engine = trainer.engine([cell.shaping for cell in group], group[0].learning_rate)
        history, best = [], {cell.folder: (-1.0, 0, None) for cell in group}
        for epoch, accuracies, _ in trainer.epochs(engine, None, f"clean {training.network}", record=False):
            history.append(accuracies)
            for replica, cell in enumerate(group):
                if accuracies.test[replica] > best[cell.folder][0]:
                    best[cell.folder] = (float(accuracies.test[replica]), epoch, engine.weights(replica))
        for replica, cell in enumerate(group):
            if cell not in todo:
                continue
            lines = [
                (epoch, _rounded(accuracies.test[replica]), _rounded(accuracies.clean[replica]), _epsilon(training, cell, len(dataset.y_train), epoch))
                for epoch, accuracies in enumerate(history, 1)
            ]
            best_accuracy, best_epoch, best_weights = best[cell.folder]
            models = {}
            for name, weights in ((checkpoints.BEST, best_weights), (checkpoints.FINAL, engine.weights(replica))):
                models[name] = networks.build(training.network, dataset.shape, dataset.classes, training.seed)
                models[name].set_weights(weights)
            config = {**cell.settings, "best_epoch": best_epoch, "best_test_acc": _rounded(best_accuracy), "final_test_acc": lines[-1][1],
                      "final_epsilon": str(lines[-1][3]), "versions": _versions()}
            checkpoints.save(cell.folder, models, config, HISTORY_HEADER, lines)
            print(f"{cell.folder}: best test accuracy {best_accuracy:.4f} at epoch {best_epoch}, final {lines[-1][1]:.4f}")


def baseline(training: Training, dataset: datasets.Dataset) -> float:
    """The best test accuracy of the clean undefended model that the paper's protocol gives, which is trained if it is missing."""
    from models import checkpoints

    published = protocol(training.dataset, training.network)
    clean = Training(training.dataset, training.network, "stack", published.optimizer, published.batch_size, published.epochs, layout.SEED)
    train_clean(clean, dataset, [UNDEFENDED], None)
    return checkpoints.config(layout.model_folder(clean.dataset, clean.model_name(UNDEFENDED, published.learning_rate)))["best_test_acc"]


# --- poisoned trainings ---


def train_poisoned(trainer: Trainer, poisons: poison_set.PoisonSet, shapings: list[Shaping], learning_rate: float | None,
                   baseline_accuracy: float, label: str, dump: str | None) -> None:
    """Train on the clean rows and one poison set with every shaping, and write what is not there yet; `dump` is None or how to record gradients.

    A stack is always trained whole, and only the missing cells are written: what a replica computes may depend in the last bit
    on how many others it shares a product with, and an interrupted sweep must end with the bytes of an undisturbed one.
    """
    training, rows = trainer.training, len(trainer.dataset.y_train) + len(poisons.y)
    place = layout.indiscriminate_cell if dump is None else layout.indiscriminate_analysis_cell
    extra = {"attack": poisons.attack, "poison_set": poisons.name, "poison_sha256": poisons.file_sha256,
             "n_poison": len(poisons.y), "baseline_acc": baseline_accuracy, "dump": dump}
    cells = []
    for shaping in shapings:
        rate = learning_rate or _published_rate(training, shaping)
        folder = place(poisons.attack, poisons.name, training.model_name(shaping, rate))
        cells.append(Cell(shaping, rate, folder, {**_settings(training, shaping, rate), **extra}))
    for group in _stacks(cells):
        todo = [cell for cell in group if not _finished(cell, dump)]
        if not todo:
            print(f"{label}: {len(group)} trainings finished before", file=sys.stderr)
            continue
        began = time.monotonic()
        engine = trainer.engine([cell.shaping for cell in group], group[0].learning_rate)
        for cell in todo:
            (cell.folder / layout.RUN).unlink(missing_ok=True)
            shutil.rmtree(cell.folder / layout.PARAM_UPDATES, ignore_errors=True)
        history = []
        with concurrent.futures.ThreadPoolExecutor(1) as background:  # gradients are written while the next epoch trains
            pending = None
            for epoch, accuracies, record in trainer.epochs(engine, poisons, label, record=dump is not None):
                history.append(accuracies)
                if pending is not None:
                    pending.result()
                if record is not None:
                    pending = background.submit(_write_record, group, todo, epoch, record, dump)
            if pending is not None:
                pending.result()
        seconds = time.monotonic() - began
        for replica, cell in enumerate(group):
            if cell in todo:
                _write_results(training, cell, replica, history, rows, dump, {"wall_seconds": round(seconds, 3), "replicas": len(group)})


def _write_record(group: list[Cell], todo: list[Cell], epoch: int, record, dump: str) -> None:
    for replica, cell in enumerate(group):
        if cell in todo:
            param_updates.write_epoch(cell.folder / layout.PARAM_UPDATES, epoch, record, replica, dump)


def _write_results(training: Training, cell: Cell, replica: int, history: list[Accuracies], rows: int, dump: str | None, measured: dict) -> None:
    """Write a cell's CSV file and then its run.json, whose presence and checksum mark the cell as finished."""
    lines = []
    for epoch, accuracies in enumerate(history, 1):
        test, clean, poison = (_rounded(values[replica]) for values in (accuracies.test, accuracies.clean, accuracies.poison))
        line = (epoch, cell.settings["n_poison"], cell.settings["baseline_acc"], test)
        lines.append(line if dump else line + (clean, poison, _epsilon(training, cell, rows, epoch)))
    path = cell.folder / (layout.ANALYSIS_RESULTS if dump else layout.ATTACK_RESULTS)
    write_csv(path, ANALYSIS_HEADER if dump else ATTACK_HEADER, lines)
    write_json(cell.folder / layout.RUN, {"settings": cell.settings, "results": {path.name: file_sha256(path)}, **measured, "versions": _versions()})


def _finished(cell: Cell, dump: str | None) -> bool:
    """Whether a cell's results are there, whole, and made with just these settings."""
    run = read_json(cell.folder / layout.RUN)
    if run is None or run.get("settings") != cell.settings:
        return False
    path = cell.folder / (layout.ANALYSIS_RESULTS if dump else layout.ATTACK_RESULTS)
    if not path.exists() or run.get("results") != {path.name: file_sha256(path)}:
        return False
    reduced = all((cell.folder / name).exists() for name in (layout.MAGNITUDES, layout.ORIENTATIONS, layout.PER_EXAMPLE))
    return dump is None or reduced or (cell.folder / layout.PARAM_UPDATES).is_dir()


def _stacks(cells: list[Cell]) -> list[list[Cell]]:
    """The cells that can train as one stack: those of one learning rate."""
    return [[cell for cell in cells if cell.learning_rate == rate] for rate in dict.fromkeys(cell.learning_rate for cell in cells)]


def _published_rate(training: Training, shaping: Shaping) -> float:
    published = protocol(training.dataset, training.network)
    return published.dp_learning_rate if shaping.defended else published.learning_rate


def _settings(training: Training, shaping: Shaping, learning_rate: float) -> dict:
    """All that a training's numbers depend on, as run.json and config.json keep it."""
    return {
        **dataclasses.asdict(training), "learning_rate": learning_rate,
        "clip_norm": shaping.clip_norm if shaping.defended else None, "noise_std": shaping.noise_std,
        "noise_multiplier": shaping.noise_multiplier, "delta": layout.DELTA,
    }


def _epsilon(training: Training, cell: Cell, rows: int, epochs: int) -> float:
    steps = epochs * -(-rows // training.batch_size)
    return round(privacy.epsilon(cell.shaping.noise_multiplier, training.batch_size, rows, steps, layout.DELTA), 4)


def _rounded(accuracy: float) -> float:
    return round(float(accuracy), 6)


def _versions() -> dict:
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in ("tensorflow", "numpy")}}


if __name__ == "__main__":
    main()
