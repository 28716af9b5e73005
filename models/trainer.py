"""What a training is set to, filed by and stacked with, and how its epochs are measured."""

from __future__ import annotations

import dataclasses
import gc
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import datasets
from command_line import Progress, refuse
from datasets import Dataset
from models import minibatches, protocols
from models.kind import KINDS
from models.shaping import Shaping
from results import layout

# TensorFlow takes seconds to import and must be told its device first, so what needs it is imported where an engine is
# built.

LEAST_NOISE, MOST_NOISE = 1e-12, 1e6  # noise multipliers: the paper's are 2.5e-8 to 1
FEW = 0.02  # poisons per clean row: so few more rows in a batch cost a stack next to nothing


@dataclass(frozen=True)
class Training:
    """What all trainings of one call share; the fields that a result is filed and checked by. dataset: its name."""

    dataset: str
    network: str
    engine: str
    optimizer: str
    batch_size: int
    epochs: int
    seed: int

    @staticmethod
    def published(
        dataset_name: str,
        network: str,
        epochs: int | None = None,
        batch_size: int | None = None,
        seed: int = layout.SEED,
        engine: str = "stack",
    ) -> Training:
        """The training of the published protocol, but for what is given.

        Refuses a network that the paper does not train on the data set.
        """
        known = protocols.protocol(dataset_name, network)
        return Training(
            dataset_name, network, engine, known.optimizer, batch_size or known.batch_size, epochs or known.epochs, seed
        )

    def learning_rate(self, shaping: Shaping, given: float | None = None) -> float:
        """The paper's learning rate, which may differ between undefended and DP-SGD, unless one is given."""
        known = protocols.protocol(self.dataset, self.network)
        return given or (known.dp_learning_rate if shaping.defended else known.learning_rate)

    def model_name(self, shaping: Shaping, learning_rate: float) -> str:
        """The name under which a training with this shaping is filed: vanilla_lr_300_40_0.01, or
        dp_lr_300_40_0.01_1000.0_1e-05_4.0_0.025.

        What is not the suite's default (another seed, another engine) stands behind it, so that it never overwrites
        what is.
        """
        name = shaping.model_name(f"{self.network}_{self.batch_size}_{self.epochs}_{learning_rate}")
        return layout.seeded(name if self.engine == "stack" else f"{name}_{self.engine}", self.seed)

    def settings(self, shaping: Shaping, learning_rate: float) -> dict:
        """What run.json and config.json say of a training with this shaping; of a user's own data set or network also
        the file's SHA-256.
        """
        own = {
            "dataset_sha256": datasets.OWN.get(self.dataset),
            "network_sha256": protocols.network(self.network).file_sha256,
        }
        said = {**dataclasses.asdict(self), "learning_rate": learning_rate, **shaping.settings, "delta": layout.DELTA}
        return {**said, **{name: digest for name, digest in own.items() if digest}}


@dataclass(frozen=True)
class Cell:
    """One training of a sweep: what it does to its gradients, all that its result depends on, and its poisons.

    name: of the model that comes of it; poisons: a `poisons.poison_set.PoisonSet`, or None.
    """

    shaping: Shaping
    learning_rate: float
    name: str
    settings: dict
    poisons: Any = None

    @property
    def path(self) -> Path:
        """The CSV file of its results."""
        return layout.cell_file(self.settings)

    def epsilon(self, rows: int, epochs: int) -> float:
        """The epsilon that this training on `rows` rows has spent after `epochs` epochs."""
        batch_size = self.settings["batch_size"]
        return self.shaping.epsilon(batch_size, rows, epochs * -(-rows // batch_size))


def check_network(network: str, dataset: Dataset) -> None:
    """Refuse a network that the rows of a data set do not fit: convolutions, and those of a user's own file."""
    wanted = protocols.network(network)
    if wanted.front and len(dataset.shape) != 3:
        refuse(f"--network {network}: its convolutions take images, and rows of {dataset.name} are {dataset.shape}")
    if wanted.classes not in (0, dataset.classes):
        refuse(f"--network {network}: has {wanted.classes} outputs, but {dataset.name} has {dataset.classes} classes")
    if wanted.shape and math.prod(wanted.shape) != math.prod(dataset.shape):
        refuse(f"--network {network}: takes rows of {wanted.shape}, but those of {dataset.name} are {dataset.shape}")


def check_shapings(shapings: Iterable[Shaping], network: str, dataset: Dataset) -> None:
    """Refuse a shaping that the network, or the data set, does not have what it takes for, and one whose epsilon is
    beyond the accountant; and a network that the data set does not fit.
    """
    check_network(network, dataset)
    for shaping in shapings:
        for phase in shaping.phases:
            if phase.noise_multiplier and not LEAST_NOISE <= phase.noise_multiplier <= MOST_NOISE:
                refuse(
                    f"--shaping {shaping.text}: a noise multiplier of {phase.noise_multiplier:g} (the noise's standard"
                    f" deviation over the clip norm) has no epsilon; give one from {LEAST_NOISE:g} to {MOST_NOISE:g}"
                )
        for link in shaping.links:
            if link.dense_only and protocols.network(network).front:
                takes = {name for name, kind in KINDS.items() if kind.takes_gram or "micro_batches" in kind.fixed}
                refuse(
                    f"--shaping {shaping.text}: {link.text} takes micro-batches or Gram matrices, which the"
                    f" convolutions of {network} do not have; choose one of"
                    f" {', '.join(name for name in KINDS if name not in takes)}"
                )
            if link.kind.trusted_rows:
                wanted = link.values[link.kind.trusted_rows]
                there = 0 if dataset.held_out is None else len(dataset.held_out[1])
                if wanted > there:
                    refuse(
                        f"--shaping {shaping.text}: {dataset.name} has {there} held-out rows to trust, not {wanted:g};"
                        " ask for fewer, or choose another shaping"
                    )


def check_batch_size(batch_size: int, dataset: Dataset) -> None:
    """Refuse batches that the training rows do not fill."""
    if batch_size > len(dataset.y_train):
        refuse(
            f"--batch-size {batch_size}: {dataset.name} has {len(dataset.y_train)} training rows; give so many at most"
        )


def stacks(network: str, cells: Iterable[Cell], most: int | None = None) -> list[list[Cell]]:
    """The cells in groups that train as one stack: those of one learning rate, or each alone where the network has
    convolutions.

    Cells of one structure of shaping lie side by side in a stack. most: how many replicas a stack may have
    (`models.memory`); larger groups are dealt out evenly.
    """
    cells = list(cells)
    structures = list(dict.fromkeys(cell.shaping.structure for cell in cells))
    cells.sort(key=lambda cell: structures.index(cell.shaping.structure))
    groups = {}
    for number, cell in enumerate(cells):
        groups.setdefault((number if protocols.network(network).front else None, cell.learning_rate), []).append(cell)
    pieces = []
    for group in groups.values():
        count = math.ceil(len(group) / (most or len(group)))
        bounds = [len(group) * piece // count for piece in range(count + 1)]
        pieces += [group[first:last] for first, last in zip(bounds, bounds[1:])]
    return pieces


class Trainer:
    """Trains on one data set. An engine is built once for each list of shapings and used again: tracing takes longer
    than a short training.

    start: a Keras model of the network from whose weights every training starts; without one, from the initial weights
    of the seed. most: how many replicas may be in memory (`models.memory`); beyond that, the engines that were built
    first are built again when they are wanted.
    """

    def __init__(self, training: Training, dataset: Dataset, start=None, most: int | None = None) -> None:
        from models import networks, stack

        self.training, self.dataset, self.stack, self.engines, self.most = training, dataset, stack, {}, most
        self.start = start or networks.build(training.network, dataset.shape, dataset.classes, training.seed)
        self.test = minibatches.Rows.of(dataset.x_test, dataset.y_test, np.zeros(len(dataset.y_test), bool), 1)

    def engine(self, group: list[Cell]):
        """The engine that trains a stack of cells, at the weights from which they start."""
        from models import tfprivacy

        shapings, learning_rate = [cell.shaping for cell in group], group[0].learning_rate
        key = (tuple(shapings), learning_rate)
        if key not in self.engines:
            while (
                self.engines
                and self.most
                and len(shapings) + sum(len(engine.shapings) for engine in self.engines.values()) > self.most
            ):
                del self.engines[next(iter(self.engines))]
                gc.collect()  # an engine and its traced functions refer to each other
            arguments = (self.start, shapings, self.training.optimizer, learning_rate, self.training.seed)
            if self.training.engine == "stack":
                self.engines[key] = self.stack.Stack(*arguments, trusted=self.dataset.held_out)
            else:
                self.engines[key] = tfprivacy.TensorFlowPrivacy(*arguments)
        self.engines[key].reset()
        return self.engines[key]

    def rows(self, group: list[Cell]):
        """The rows of a stack (`models.minibatches.Rows`): the clean ones, and for each cell its own poisons.

        Where cells have different sets of poisons, of one size, the k-th poisons of all sets share a slot.
        """
        data = self.dataset
        sets = list({id(cell.poisons): cell.poisons for cell in group if cell.poisons is not None}.values())
        if len({len(poisons.y) for poisons in sets}) > 1:
            raise ValueError("the poison sets of one stack must be of one size")
        x, y = (
            np.concatenate([getattr(data, f"{name}_train"), *(getattr(poisons, name) for poisons in sets)])
            for name in "xy"
        )
        slots = np.concatenate(
            [np.arange(len(data.y_train)), *(len(data.y_train) + np.arange(len(poisons.y)) for poisons in sets)]
        )
        weight = np.ones((len(y), len(group)), np.float32)
        for index, poisons in enumerate(sets):
            first = len(data.y_train) + index * len(poisons.y)
            weight[first : first + len(poisons.y), [cell.poisons is not poisons for cell in group]] = 0
        return minibatches.Rows.of(x, y, np.arange(len(y)) >= len(data.y_train), len(group), weight, slots)

    def epochs(self, engine, rows, label: str, record: bool = False, short_last: bool = True) -> Iterator[tuple]:
        """Train `engine`; yields (epoch, test accuracies float64 [replica], `models.minibatches.Record` or None) after
        each epoch.

        The accuracy of a replica that has diverged (weights that are no numbers) is NaN; when all have, there are no
        more epochs. short_last: what becomes of the rows that are left over (`models.minibatches.shuffled`).
        """
        training = self.training
        progress = Progress(label, training.epochs)
        batches = partial(
            minibatches.shuffled, batch_size=training.batch_size, seed=training.seed, short_last=short_last
        )
        for epoch, recorded in minibatches.Run(engine, rows, batches).epochs(training.epochs, record):
            accuracies = np.where(engine.finite(), engine.hits(self.test.x, self.test.y).mean(1), np.nan)
            progress.show(epoch, accuracies)
            yield epoch, accuracies, recorded
            if np.isnan(accuracies).all():
                progress.bar.close()
                break


def training_accuracies(engine, rows) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies on the clean rows and on the poisons that each replica sees, float64 [replica] each; NaN without."""
    weight = rows.weight.numpy()
    seen = np.stack([weight[part].sum(0, dtype=np.float64) for part in (~rows.is_poison, rows.is_poison)])
    with np.errstate(invalid="ignore"):
        return tuple(engine.right(rows) / seen)
