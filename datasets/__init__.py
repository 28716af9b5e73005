"""The data sets by name. A loader returns a `Dataset`; nothing here imports the rest of the suite but its leaf modules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from command_line import refuse


@dataclass(frozen=True)
class Dataset:
    """Training and test rows of one task.

    name: as result folders spell it; x_train, x_test: float32 [rows, *shape] in [0, 1]; y_train, y_test: int32 [rows] in [0, classes).
    """

    name: str
    classes: int
    shape: tuple
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


NAMES = ("subtask", "fashion_mnist", "purchases")  # as command lines call them


def load(name: str) -> Dataset:
    """The data set that a command line calls `name`; refuses a name that does not exist."""
    from datasets import fashion_mnist, purchases

    loaders = dict(zip(NAMES, (fashion_mnist.load_subtask, fashion_mnist.load, purchases.load)))
    if name not in loaders:
        refuse(f"--dataset {name}: unknown; choose one of {', '.join(NAMES)}")
    return loaders[name]()
