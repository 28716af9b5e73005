"""The poison files of the paper's authors: MATLAB files of the slab attack, and pickles, read without executing
anything.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np

from command_line import refuse
from datasets import Dataset
from files import NPZ_BYTES

NDARRAY = "numpy.ndarray"  # stands for the class, which would allocate whatever it is called with


def _reconstruct(kind, shape: tuple, code: bytes) -> np.ndarray:
    """What NumPy's own function of this name does when it is called as NumPy calls it: an empty array, which then takes
    its state.
    """
    return (
        np.ndarray(0, np.int8)
        if (kind, tuple(shape)) == (NDARRAY, (0,))
        else _foreign(f"an array of {kind} and shape {shape}")
    )


# What a pickle of NumPy arrays and plain containers is made of, under the names of Python 2 and 3 and of NumPy 1 and 2.
ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): np.core.multiarray.scalar,
    ("numpy._core.multiarray", "scalar"): np.core.multiarray.scalar,
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): collections.OrderedDict,
    # protocol 2 writes the bytes of an array as text to be encoded
    ("_codecs", "encode"): lambda text, encoding: (
        text.encode("latin1") if encoding == "latin1" else _foreign("_codecs.encode")
    ),
}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows NumPy arrays and plain containers, and nothing that could run code."""

    def find_class(self, module: str, name: str):
        return ADMITTED[module, name] if (module, name) in ADMITTED else _foreign(f"{module}.{name}")


def _foreign(name: str):
    raise pickle.UnpicklingError(f"it asks for {name}, which is neither a NumPy array nor a plain container")


def read_pickle(path: Path, dataset: Dataset) -> tuple[dict, np.ndarray, np.ndarray]:
    """Settings (the attack alone), poisons and labels of a pickle.

    Known from the authors' release is a list of dicts with `instance` (one row) and `class`; a pair (poisons, labels)
    is read too. The attack's name is the folder's, since a pickle does not hold it.
    """
    mend = "use a file of this suite (python3 -m poisons.label_flip), or one of the paper's"
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        MemoryError,
        OverflowError,
    ) as error:
        refuse(f"{path}: not a pickle that can be trusted ({error}); {mend}")
    try:
        if isinstance(content, (list, tuple)) and len(content) and all(isinstance(item, dict) for item in content):
            x = np.stack([np.asarray(item["instance"]).reshape(-1) for item in content])
            y = np.array([int(np.asarray(item["class"]).reshape(())) for item in content])
        else:
            x, y = content
            x, y = np.asarray(x), np.asarray(y).reshape(-1)
    except (KeyError, TypeError, ValueError) as error:
        refuse(
            f"{path}: neither a list of dicts with 'instance' and 'class' nor a pair of poisons and labels ({error!r});"
            f" {mend}"
        )
    return {"attack": path.resolve().parent.name}, x, y


def read_mat(path: Path, dataset: Dataset) -> tuple[dict, np.ndarray, np.ndarray]:
    """Settings (the attack alone), poisons and labels of a file of the slab attack (Steinhardt et al. 2017), as the
    paper's authors use it.

    bestX [sets, poisons, features] and bestY [sets, poisons] in -1, +1 hold ten candidate sets, as an array or as a
    cell array; the first is used, clipped to [0, 1], label -1 being class 0. The attack's name is the folder's, as for
    a pickle.
    """
    import scipy.io  # here: it takes a while, and few commands read such a file

    mend = "use one of the paper's files of the slab attack"
    try:
        if _unpacked_bytes(path) > NPZ_BYTES:
            refuse(f"{path}: it would unpack to more than {NPZ_BYTES / 2**30:.0f} GiB; {mend}")
        stored = scipy.io.loadmat(path, variable_names=["bestX", "bestY"])
    except (
        OSError,
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        NotImplementedError,
        zlib.error,
        MemoryError,
        scipy.io.matlab.MatReadError,
    ) as error:
        refuse(f"{path}: truncated, damaged, or not a MATLAB file of version 7 or older ({error}); {mend}")
    if not {"bestX", "bestY"} <= set(stored):
        refuse(f"{path}: has no bestX and bestY; {mend}")
    x, y = _first_set(stored["bestX"], 2), _first_set(stored["bestY"], 1)
    if x.dtype.kind not in "fiu" or y.dtype.kind not in "fiu" or not np.isin(y, (-1, 1)).all():
        refuse(f"{path}: bestX must hold numbers, and bestY only -1 and +1; {mend}")
    return {"attack": path.resolve().parent.name}, np.clip(x, 0, 1), (y.reshape(-1).astype(np.int64) + 1) // 2


def _unpacked_bytes(path: Path) -> int:
    """What the compressed variables of a MATLAB 5 file unpack to, as far as NPZ_BYTES: they are not kept."""
    total = 0
    with open(path, "rb") as stream:
        stream.seek(128)  # the file's header
        while total <= NPZ_BYTES and len(tag := stream.read(8)) == 8:
            kind, count = struct.unpack("<II", tag)
            packed = stream.read(count)
            if kind != 15:  # miCOMPRESSED
                continue
            unpacker = zlib.decompressobj()
            while packed and total <= NPZ_BYTES:
                total += len(unpacker.decompress(packed, 2**24))
                packed = unpacker.unconsumed_tail
    return total


def _first_set(sets: np.ndarray, dimensions: int) -> np.ndarray:
    """The first candidate set, dense: an array or a cell array holds the sets, of full or of sparse matrices."""
    if sets.dtype == object:
        first = sets.reshape(-1)[0]
    else:
        first = sets[0] if sets.ndim > dimensions else sets
    return np.asarray(first.todense() if hasattr(first, "todense") else first)
