"""Clean models: training and keeping them, and the baseline that a poisoned training is compared with or begins at."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from command_line import refuse
from datasets import Dataset
from files import Lock, Unreadable, file_sha256
from models import checkpoints, minibatches, weights_file
from models.shaping import UNDEFENDED, Shaping
from models.trainer import Cell, Trainer, Training, stacks, training_accuracies
from results import cells, layout

HISTORY_HEADER = ("epoch", "test_acc", "train_acc", "epsilon")
LOOKED_AT = 6_000  # training rows, evenly spaced, for the accuracy on them: of 60,000 images every tenth


@dataclass(frozen=True)
class Baseline:
    """A clean model, its test accuracy, and the SHA-256 of its file.

    name: of the model's folder; own: whether a user gave it.
    """

    model: Any
    accuracy: float
    sha256: str
    name: str
    own: bool = False

    @property
    def suffix(self) -> str:
        """What stands behind the names of trainings that use it."""
        return f"_from_{self.sha256[:8]}" if self.own else ""

    def hits(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Which rows the model classifies correctly, bool [1, rows]; x: float32 [rows, features]; y: int32 [rows]."""
        return hits(self.model, x, y)


def logits(model, x: np.ndarray) -> np.ndarray:
    """What a Keras model says of rows, float32 [rows, classes]; x: float32 [rows, ...], of its rows or flat."""
    return model.predict(x.reshape(-1, *model.input_shape[1:]), batch_size=500, verbose=0)


def hits(model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which rows a Keras model gives these labels, bool [1, rows], as attacks ask for it."""
    return (logits(model, x).argmax(1) == y)[np.newaxis]


def probabilities(model, x: np.ndarray) -> np.ndarray:
    """The softmax outputs of a Keras model, float64 [rows, classes]."""
    found = logits(model, x).astype(np.float64)
    exponentials = np.exp(found - found.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def train_clean(
    training: Training, dataset: Dataset, shapings: list[Shaping], learning_rate: float | None, most: int | None = None
) -> None:
    """Train clean models and keep the best and the final epoch of each; those that are there already are left alone.

    most: how many replicas a stack may have.
    """
    for group in stacks(training.network, clean_cells(training, shapings, learning_rate), most):
        if all(kept_folder(cell) for cell in group):
            continue
        lock = Lock(layout.MODELS / "train.lock")
        for number in sorted({Lock.number(folder_of(cell).resolve()) for cell in group}):
            lock.take(number, wait=True)  # until another process that trains one of them is through
        todo = [cell for cell in group if kept_folder(cell) is None]
        if not todo:
            continue
        trainer = Trainer(training, dataset)
        engine, rows = trainer.engine(group), trainer.rows(group)
        every = slice(None, None, -(-len(dataset.y_train) // LOOKED_AT))
        x, y = dataset.x_train[every], dataset.y_train[every]
        looked_at = minibatches.Rows.of(x, y, np.zeros(len(y), bool), len(group))
        history, best = [], [(-1.0, None)] * len(group)
        for _, accuracies, _ in trainer.epochs(engine, rows, f"clean {training.network}"):
            history.append((accuracies, training_accuracies(engine, looked_at)[0]))
            for replica, accuracy in enumerate(accuracies):
                if accuracy > best[replica][0]:
                    best[replica] = (accuracy, engine.weights(replica))
        diverged = [
            cell.shaping for replica, cell in enumerate(group) if cell in todo and np.isnan(history[-1][0][replica])
        ]
        for replica, cell in enumerate(group):
            if cell in todo and cell.shaping not in diverged:
                lines = [[round(float(values[replica]), 6) for values in accuracies] for accuracies in history]
                keep_model(training, dataset, cell, lines, best[replica][1], engine.weights(replica))
        if diverged:
            names = ", ".join(shaping.text for shaping in diverged)
            refuse(
                f"clean {training.network}, {names}: diverged (weights that are no numbers), not kept; give a"
                " lower --learning-rate"
            )


def clean_cells(training: Training, shapings: list[Shaping], learning_rate: float | None) -> list[Cell]:
    """The cells of clean models."""
    cells = []
    for shaping in shapings:
        rate = training.learning_rate(shaping, learning_rate)
        cells.append(Cell(shaping, rate, training.model_name(shaping, rate), training.settings(shaping, rate)))
    return cells


def missing(training: Training, shapings: list[Shaping], learning_rate: float | None) -> list[str]:
    """The names of the clean models that are not there yet; refuses one that was trained otherwise or damaged."""
    return [cell.name for cell in clean_cells(training, shapings, learning_rate) if kept_folder(cell) is None]


def folder_of(cell: Cell) -> Path:
    """The folder of a clean model; a defended one's still lacks what it will have reached (`layout.reached_suffix`)."""
    return layout.model_folder(cell.settings["dataset"], cell.name)


def kept_folder(cell: Cell) -> Path | None:
    """Where the clean model of a cell lies, None where there is no whole one.

    Refuses one that was trained otherwise or damaged.
    """
    folder = folder_of(cell)
    found = sorted(folder.parent.glob(f"{folder.name}_epoch_*")) if cell.shaping.defended else [folder]
    whole = [folder for folder in found if checkpoints.config(folder, cell.settings) is not None]
    return whole[0] if whole else None


def keep_model(
    training: Training,
    dataset: Dataset,
    cell: Cell,
    history: list[list[float]],
    best_weights: list,
    final_weights: list,
) -> None:
    """Write a clean model's folder; history: its test and training accuracy after each epoch."""
    from models import networks

    lines = [
        (epoch, test, train, cell.epsilon(len(dataset.y_train), epoch))
        for epoch, (test, train) in enumerate(history, 1)
    ]
    models = {}
    for name, weights in ((checkpoints.BEST, best_weights), (checkpoints.FINAL, final_weights)):
        models[name] = networks.build(training.network, dataset.shape, dataset.classes, training.seed)
        models[name].set_weights(weights)
    best = max(lines, key=lambda line: line[1])  # the first of the best
    reached = {
        "best_epoch": best[0],
        "best_test_acc": best[1],
        "final_test_acc": lines[-1][1],
        "final_epsilon": str(lines[-1][3]),
    }
    folder = folder_of(cell)
    if cell.shaping.defended:
        folder = folder.with_name(folder.name + layout.reached_suffix(best[0], best[1], best[3]))
    checkpoints.save(
        folder,
        models,
        {**cell.settings, **reached, "versions": cells.versions(), "machine": cells.machine()},
        HISTORY_HEADER,
        lines,
    )
    print(f"{folder}: best test accuracy {best[1]:.4f} at epoch {best[0]}, final {lines[-1][1]:.4f}")


def keep_poisoned(training: Training, dataset: Dataset, cell: Cell, which: str, weights: list) -> None:
    """Keep a poisoned model beside its results, as best.keras or final.keras, with its settings."""
    from models import networks

    model = networks.build(training.network, dataset.shape, dataset.classes, training.seed)
    model.set_weights(weights)
    checkpoints.keep_beside(cell.path.parent, which, model, cell.settings)


def baseline(
    training: Training, dataset: Dataset, shaping: Shaping = UNDEFENDED, learning_rate: float | None = None
) -> Baseline:
    """The clean model that the paper's protocol gives, at its best epoch; it is trained if it is missing."""
    clean = Training.published(training.dataset, training.network)
    train_clean(clean, dataset, [shaping], learning_rate)
    folder = kept_folder(*clean_cells(clean, [shaping], learning_rate))
    config = checkpoints.config(folder)
    if not {"best_test_acc", "final_test_acc", "sha256"} <= set(config) or checkpoints.BEST not in config["sha256"]:
        refuse(
            f"{folder / checkpoints.CONFIG}: damaged, it does not say what it is of; delete {folder} to train it again"
        )
    model = load_weights(folder / checkpoints.BEST, training, dataset)
    return Baseline(model, config["best_test_acc"], config["sha256"][checkpoints.BEST], folder.name)


def baseline_from(path: Path, training: Training, dataset: Dataset) -> Baseline:
    """The baseline that a user's own Keras file holds.

    Refuses one that is missing, damaged, or of another architecture.
    """
    if path.suffix != ".keras" or not path.is_file():
        refuse(f"--baseline {path}: no such .keras file; give one, or leave the option out to use the kept baseline")
    model = load_weights(path, training, dataset)
    digest = file_sha256(path)
    unmeasured = Baseline(model, 0.0, digest, path.stem, own=True)
    return dataclasses.replace(
        unmeasured, accuracy=round(float(unmeasured.hits(dataset.x_test, dataset.y_test).mean()), 6)
    )


def load_weights(path: Path, training: Training, dataset: Dataset):
    """A model of the training's network with the weights in a .keras file: only its arrays are read, nothing in it is
    executed.
    """
    from models import networks

    model = networks.build(training.network, dataset.shape, dataset.classes, training.seed)
    places = places_of(model)
    try:
        arrays = weights_file.read(path, {place: tuple(variable.shape) for place, variable in places.items()})
    except Unreadable as error:
        refuse(
            f"{path}: not the weights of a {training.network} on {training.dataset} ({error}); give the file of"
            " such a model"
        )
    for place, variable in places.items():
        variable.assign(arrays[place])
    return model


def places_of(model) -> dict[str, Any]:
    """The variables of a Keras model by their place in its .keras file: layers are counted by their class."""
    found, counts = {}, {}
    for layer in model.layers:
        kind = type(layer).__name__.lower()
        number = counts[kind] = counts.get(kind, -1) + 1
        folder = f"layers/{kind}" + f"_{number}" * (number > 0)
        found.update((f"{folder}/vars/{index}", variable) for index, variable in enumerate(layer.variables))
    return found
