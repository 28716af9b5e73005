"""The poison files of the paper's authors: MATLAB files of the slab attack, and pickles, read without executing
anything (`poisons.plain_pickle`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from command_line import refuse
from datasets import Dataset
from files import Unreadable, whole
from poisons import mat_file, plain_pickle

# The points of the slab attack lie a little outside [0, 1] before they are clipped; pixels from 0 to 255 far outside
OTHER_SCALE = 10
MOST_SHARED = 2**24  # numbers of a pickle that has fewer bytes than that: one array may stand in many places


def read_pickle(path: Path, dataset: Dataset) -> tuple[dict, np.ndarray, np.ndarray]:
    """Settings (the attack alone), poisons and labels of a pickle.

    Known from the authors' release is a list of dicts with `instance` (one row) and `class`; a pair (poisons, labels)
    is read too. The attack's name is the folder's, since a pickle does not hold it.
    """
    mend = "use a file of this suite (python3 -m poisons.label_flip), or one of the paper's"
    try:
        pickled = whole(path)
        content, most = plain_pickle.load(pickled), max(len(pickled), MOST_SHARED)
        if isinstance(content, (list, tuple)) and content and all(isinstance(item, dict) for item in content):
            if not all({"instance", "class"} <= set(item) for item in content):
                raise plain_pickle.Foreign("its dicts do not all have 'instance' and 'class'")
            parts = [[item[name] for item in content] for name in ("instance", "class")]
        elif isinstance(content, (list, tuple)) and len(content) == 2:
            parts = content
        else:
            raise plain_pickle.Foreign("neither a list of dicts with 'instance' and 'class' nor a pair")
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
