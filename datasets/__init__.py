"""The data sets, a module each. LOADERS in it are functions that return a `Dataset`, by its names on a command line.

A data set's own name is what results, poison files, settings and protocols know it by; it is a name on the command
line, too. Nothing here imports the rest of the suite but its leaf modules.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from command_line import refuse

NAME = re.compile(r"[\w+][\w.+-]{0,80}", re.ASCII)  # of what a user gives a name and results are filed under
TRUSTED = 200  # of the held-out rows, which a shaping may trust; by the others its parameters are chosen


@dataclass(frozen=True)
class Dataset:
    """Training and test rows of one task.

    name: its own, as result folders spell it; x_train, x_test: float32 [rows, *shape] in [0, 1];
    y_train, y_test: int32 [rows] in [0, classes). held_out: rows and labels of the same make that are neither trained
    nor tested on, None where there are none: what a defender may trust. file_sha256: of a user's own file, else empty.
    """

    name: str
    classes: int
    shape: tuple
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    held_out: tuple[np.ndarray, np.ndarray] | None = None
    file_sha256: str = ""

    @property
    def named(self) -> dict[str, str]:
        """What poison files say of it: its name and, of a user's own, the file's SHA-256."""
        return {"dataset": self.name, **({"dataset_sha256": self.file_sha256} if self.file_sha256 else {})}


def loaders() -> dict[str, Callable[[], Dataset]]:
    """What loads a data set, by every name that a command line may call it: the LOADERS of this folder's modules."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        found.update(getattr(importlib.import_module(f"{__name__}.{module.name}"), "LOADERS", {}))
    return found


def __getattr__(name: str) -> tuple[str, ...]:
    """NAMES: all names, for a help text; made when asked for, since the modules of this folder import this one."""
    if name == "NAMES":
        return tuple(loaders())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


OWN: dict[str, str] = {}  # the SHA-256 of the users' own files that were loaded, by the name of the data set


def load(name: str) -> Dataset:
    """The data set that a command line calls `name`, or that lies in an .npz file; refuses what is neither."""
    known = loaders()
    if name.endswith(".npz"):
        from datasets import own

        dataset = own.load(name, known)
        OWN[dataset.name] = dataset.file_sha256
        return dataset
    if name not in known:
        refuse(f"--dataset {name}: unknown; choose one of {', '.join(known)}, or give an .npz file of your own")
    return known[name]()


def own_name(name: str) -> str:
    """The data set's own name, of any that a command line may call it by; others stay as they are.

    Nothing is loaded for it.
    """
    return ALIASES.get(name, name)


ALIASES = {"subtask": "fashion_mnist_3_4.1.0"}
