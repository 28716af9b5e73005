"""The poison files of the paper's authors: MATLAB files of the slab attack, and pickles, read without executing
anything (`poisons.plain_pickle`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from command_line import refuse
from datasets import Dataset
from files import Unreadable, whole
from poisons import mat_file, plain_pickle

# The points of the slab attack lie a little outside [0, 1] before they are clipped; pixels from 0 to 255 far outside
OTHER_SCALE = 10
MOST_SHARED = 2**24  # numbers of a pickle that has fewer bytes than that: one array may stand in many places


def of_arrays(path: Path, arrays: dict[str, np.ndarray]) -> tuple[dict, np.ndarray, np.ndarray]:
    """Settings, poisons and labels of a plain npz: x and y, or x_poison and y_poison, as IBM ART's attacks return them.

    x: floats in [0, 1], or bytes, which are divided by 255; y: labels, or one-hot rows. Optional are is_poison, bool
    [rows], which picks the poisons out of a whole training set, and attack, the name of what made them.
    """
    known = {f"{name}{end}" for name in "xy" for end in ("", "_poison")} | {"is_poison", "attack"}
    x, y = (arrays.get(name, arrays.get(f"{name}_poison")) for name in "xy")
    if x is None or y is None or not set(arrays) <= known:
        refuse(
            f"{path}: holds {', '.join(sorted(arrays))}, not x and y (and, if you like, is_poison and attack); write it"
            " by numpy.savez(path, x=..., y=...)"
        )
    if x.ndim == 0 or y.ndim not in (1, 2) or len(x) != len(y):
        refuse(f"{path}: {x.shape} poisons with {y.shape} labels; give a label, or a one-hot row, for each poison")
    if y.ndim == 2:
        if y.dtype.kind not in "fiub" or not (np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all()):
            refuse(f"{path}: its labels are no one-hot rows; give a label for each poison")
        y = y.argmax(1)
    picked = arrays.get("is_poison", np.ones(len(y), bool))
    if picked.shape != y.shape or picked.dtype.kind not in "bui" or not np.isin(picked, (0, 1)).all():
        refuse(f"{path}: is_poison is {picked.dtype} {picked.shape}; give True or False for each of {len(y)} rows")
    name = arrays.get("attack")
    if name is not None and (name.dtype.kind != "U" or name.size != 1):
        refuse(f"{path}: its attack is no text; give the name of what made them")
    picked = picked.astype(bool)
    return {"attack": None if name is None else name.item()}, in_unit(x[picked]), y[picked]


def in_unit(x: np.ndarray) -> np.ndarray:
    """Bytes divided by 255, as float32; anything else as it is."""
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 else x


def read_pickle(path: Path, dataset: Dataset) -> tuple[dict, np.ndarray, np.ndarray]:
    """Settings (the attack alone), poisons and labels of a pickle.

    Known from the authors' release is a list of dicts with `instance` (one row) and `class`; a pair (poisons, labels)
    and a dict of x and y are read too. The attack's name is the folder's, since a pickle does not hold it.
    """
    mend = "use a file of this suite (python3 -m poisons.label_flip), or one of the paper's"
    try:
        pickled = whole(path)
        content, most = plain_pickle.load(pickled), max(len(pickled), MOST_SHARED)
        if isinstance(content, (list, tuple)) and content and all(isinstance(item, dict) for item in content):
            if not all({"instance", "class"} <= set(item) for item in content):
                raise plain_pickle.Foreign("its dicts do not all have 'instance' and 'class'")
            parts: Any = [[item[name] for item in content] for name in ("instance", "class")]
        elif isinstance(content, (list, tuple)) and len(content) == 2:
            parts = content
        elif isinstance(content, dict) and {"x", "y"} <= set(content):
            parts = content = [content["x"], content["y"]]
        else:
            raise plain_pickle.Foreign("no list of dicts with 'instance' and 'class', no pair, no dict of 'x' and 'y'")
        x, y = (plain_pickle.numbers(part, most) for part in parts)
        if parts is not content:
            x = x.reshape(len(x), -1)
        y = y.reshape(-1)
    except (Unreadable, plain_pickle.Foreign) as error:
        refuse(f"{path}: not a pickle of poisons and labels ({error}); {mend}")
    return {"attack": path.resolve().parent.name}, x, y


def read_mat(path: Path, dataset: Dataset) -> tuple[dict, np.ndarray, np.ndarray]:
    """Settings (the attack alone), poisons and labels of a file of the slab attack (Steinhardt et al. 2017), as the
    paper's authors use it.

    bestX [sets, poisons, features] and bestY [sets, poisons] in -1, +1 hold ten candidate sets, as an array or as a
    cell array; the first is used, clipped to [0, 1], label -1 being class 0; values on a scale such as
    0 to 255 are refused. The attack's name is the folder's, as for a pickle.
    """
    mend = "use one of the paper's files of the slab attack"
    try:
        stored = mat_file.read(path)
    except Unreadable as error:
        refuse(f"{path}: {error}; {mend}")
    x, y = stored["bestX"], stored["bestY"]
    if not ((y == -1) | (y == 1)).all():
        refuse(f"{path}: bestX must hold numbers, and bestY only -1 and +1; {mend}")
    if not np.isfinite(x).all():
        refuse(f"{path}: {np.count_nonzero(~np.isfinite(x))} values are NaN or infinite; {mend}")
    if x.size and max(-float(x.min()), float(x.max())) > OTHER_SCALE:
        refuse(f"{path}: values from {x.min():.4g} to {x.max():.4g} are on another scale; scale them to [0, 1]")
    return {"attack": path.resolve().parent.name}, np.clip(x, 0, 1), (y.reshape(-1).astype(np.int64) + 1) // 2
