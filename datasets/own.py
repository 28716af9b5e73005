"""A user's own data set: an .npz file, `--dataset mine.npz` wherever a data set is named.

    x_train, x_test         [rows, features], or images [rows, height, width(, channels)]: floats in [0, 1], or bytes,
                            which are divided by 255
    y_train, y_test         [rows], whole numbers 0, 1, 2 ... without a gap
    x_held_out, y_held_out  optional: rows of the same make that are neither trained nor tested on

Its results are filed under the file's name, and every result says the file's SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from command_line import refuse
from datasets import ALIASES, NAME, Dataset
from files import Unreadable, file_sha256, read_npz

PARTS = ("train", "test", "held_out")
FEWEST, MOST_CLASSES = 2, 1000


def load(path: str, taken: Iterable[str]) -> Dataset:
    """The data set in a file. taken: names of other data sets; refuses a file that does not hold what it must."""
    name = Path(path).stem
    if name in taken or name in ALIASES.values() or not NAME.fullmatch(name):
        refuse(
            f"--dataset {path}: results are filed under {name}, which must be letters, digits, . _ - and no other data"
            " set's name; rename the file"
        )
    try:
        arrays = read_npz(Path(path))
    except Unreadable as error:
        refuse(f"--dataset {path}: {error}; write it by numpy.savez({path!r}, x_train=..., y_train=..., ...)")
    wanted = {f"{part}_{which}" for part in "xy" for which in PARTS}
    if not {"x_train", "y_train", "x_test", "y_test"} <= set(arrays) <= wanted or (
        ("x_held_out" in arrays) != ("y_held_out" in arrays)
    ):
        refuse(
            f"--dataset {path}: holds {', '.join(sorted(arrays)) or 'nothing'}; give x_train, y_train, x_test, y_test,"
            " and if you like x_held_out and y_held_out"
        )
    parts = {
        which: (_rows(path, which, arrays[f"x_{which}"]), _labels(path, which, arrays[f"y_{which}"]))
        for which in PARTS
        if f"x_{which}" in arrays
    }
    x, y = parts["train"]
    classes, shape = int(y.max()) + 1, x.shape[1:]
    missing = sorted(set(range(classes)) - set(np.unique(y).tolist()))
    if missing or not FEWEST <= classes <= MOST_CLASSES:
        refuse(
            f"--dataset {path}: y_train has {classes - len(missing)} classes up to {classes - 1}; number"
            f" {FEWEST} to {MOST_CLASSES} of them 0, 1, 2 ... without a gap"
        )
    for which, (rows, labels) in parts.items():
        if len(rows) != len(labels) or rows.shape[1:] != shape or labels.max() >= classes:
            refuse(
                f"--dataset {path}: x_{which} is {rows.shape} and y_{which} {labels.shape} with labels up to"
                f" {labels.max()}; give one label a row, of those of y_train, and rows of x_train's shape {shape}"
            )
    return Dataset(
        name, classes, shape, *parts["train"], *parts["test"], parts.get("held_out"), file_sha256(Path(path))
    )


def _rows(path: str, which: str, x: np.ndarray) -> np.ndarray:
    """Rows as float32 [rows, *shape] in [0, 1]; images without channels have one."""
    if x.ndim not in (2, 3, 4) or 0 in x.shape or x.dtype.kind not in "fiub":
        refuse(
            f"--dataset {path}: x_{which} is {x.dtype} {x.shape}; give numbers of shape [rows, features] or [rows,"
            " height, width, channels]"
        )
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        refuse(f"--dataset {path}: x_{which} has values that are NaN or infinite; replace them")
    rows = x.astype(np.float32) / (255 if x.dtype == np.uint8 else 1)
    if rows.min() < 0 or rows.max() > 1:
        refuse(
            f"--dataset {path}: x_{which} has values from {rows.min():.4g} to {rows.max():.4g}; scale every feature to"
            " [0, 1] (bytes are divided by 255)"
        )
    return rows[..., np.newaxis] if rows.ndim == 3 else rows


def _labels(path: str, which: str, y: np.ndarray) -> np.ndarray:
    """Labels as int32 [rows]."""
    if y.ndim != 1 or len(y) == 0 or y.dtype.kind not in "fiub" or not (y == np.round(y)).all() or y.min() < 0:
        refuse(f"--dataset {path}: y_{which} is {y.dtype} {y.shape}; give a whole number of 0 or more for each row")
    if y.max() >= MOST_CLASSES:
        refuse(
            f"--dataset {path}: y_{which} has the label {y.max():g}; number at most {MOST_CLASSES} classes 0, 1, 2 ..."
        )
    return y.astype(np.int32)
