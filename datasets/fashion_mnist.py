"""FashionMNIST (Xiao et al. 2017, MIT licence), and the paper's binary subtask: dress (class 3 -> 0), coat (4 -> 1).

python3 -m datasets.fashion_mnist       make the subtask's file from the full set, and say whether it is the one in git
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from command_line import Parser, refuse, run
from datasets import Dataset
from files import Unreadable, has_sha256, opened, read_npz, sha256, write_npz

HERE = Path(__file__).resolve().parent
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
ARCHIVES = {  # the four files of the release, and their SHA-256
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
SUBTASK_FILE = HERE / "fashion_mnist" / "fashion_mnist_3_4.npz"
SUBTASK_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
SUBTASK_SHA256 = "3ec50f6201cb9ad8faf754c9a113a1c88055a73318714373be2b05aea9af1396"
SUBTASK_NAME = "fashion_mnist_3_4.1.0"  # as the paper's authors spell it in poison files and result folders
SUBTASK_CLASSES = (3, 4)
HOLD_OUT_ROWS, HOLD_OUT_SEED = 1200, 215  # a tenth, as in the paper; which tenth is unknown, so ours is a random one

IDX_BYTES = 2**27  # twice the largest file


def load() -> Dataset:
    """All of FashionMNIST: 60,000 training and 10,000 test images of 28 x 28 x 1, ten classes."""
    folder = _find_archives()
    images = {part: _read_idx(folder / f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k")}
    labels = {part: _read_idx(folder / f"{part}-labels-idx1-ubyte.gz") for part in ("train", "t10k")}
    return Dataset(
        "fashion_mnist",
        10,
        (28, 28, 1),
        _to_floats(images["train"]),
        labels["train"].astype(np.int32),
        _to_floats(images["t10k"]),
        labels["t10k"].astype(np.int32),
    )


def load_subtask() -> Dataset:
    """Dress against coat in the release's order: 10,800 training rows (12,000 less a seeded 1,200, which
    are held out), 2,000 test rows."""
    mend = "restore it with 'git checkout', or make it with 'python3 -m datasets.fashion_mnist'"
    try:
        stored = read_npz(SUBTASK_FILE)
    except Unreadable as error:
        refuse(f"{SUBTASK_FILE}: {error}; {mend}")
    if _fingerprint(stored) != SUBTASK_SHA256:
        refuse(f"{SUBTASK_FILE}: not the subtask's images (wrong SHA-256); {mend}")
    x_train, y_train, x_test, y_test = (stored[name] for name in SUBTASK_ARRAYS)
    held_out = np.random.default_rng(HOLD_OUT_SEED).choice(len(x_train), HOLD_OUT_ROWS, replace=False)
    kept = np.setdiff1d(np.arange(len(x_train)), held_out)
    return Dataset(
        SUBTASK_NAME,
        2,
        (28, 28, 1),
        _to_floats(x_train[kept]),
        y_train[kept].astype(np.int32),
        _to_floats(x_test),
        y_test.astype(np.int32),
        (_to_floats(x_train[held_out]), y_train[held_out].astype(np.int32)),
    )


LOADERS = {"subtask": load_subtask, SUBTASK_NAME: load_subtask, "fashion_mnist": load}


def make_subtask() -> dict[str, np.ndarray]:
    """The subtask's 12,000 + 2,000 images (uint8 [rows, 28, 28]), labels (uint8, 0 or 1), cut out of the full set."""
    folder = _find_archives()
    arrays = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
        rows = np.isin(labels, SUBTASK_CLASSES)
        arrays[f"x_{part}"] = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")[rows]
        arrays[f"y_{part}"] = (labels[rows] == SUBTASK_CLASSES[1]).astype(np.uint8)
    return arrays


def _fingerprint(arrays: dict[str, np.ndarray]) -> str:
    """The SHA-256 of the subtask's arrays: of what they hold, not of how this or that zlib compressed them."""
    return sha256(*(arrays[name].tobytes() if name in arrays else b"" for name in SUBTASK_ARRAYS))


def archives() -> Path | None:
    """The first folder with the four archives: datasets/fashion_mnist, Debian's, Keras' cache; None where none has."""
    for folder in (HERE / "fashion_mnist", DEBIAN_FOLDER, *_keras_folders()):
        if all((folder / name).exists() for name in ARCHIVES):
            return folder
    return None


def _keras_folders() -> list[Path]:
    """Where Keras keeps the archives: in KERAS_HOME first, and where it does without."""
    homes = filter(None, [os.environ.get("KERAS_HOME"), os.path.expanduser("~/.keras")])  # stays ~ without a home
    return [Path(home) / "datasets" / "fashion-mnist" for home in homes]


def _find_archives() -> Path:
    """The folder with the four archives, which Keras downloads if there is none; refuses damaged ones."""
    folder = archives() or _download()
    for name, expected in ARCHIVES.items():
        if not has_sha256(folder / name, expected):
            refuse(f"{folder / name}: damaged (wrong SHA-256); delete it, or fetch it again")
    return folder


def _download() -> Path:
    import tensorflow as tf

    try:
        tf.keras.datasets.fashion_mnist.load_data()
    except Exception as error:  # Keras turns every failure of the network into a bare Exception
        refuse(
            f"FashionMNIST: not found, and Keras could not download it ({error}); put the four idx .gz files into"
            f" {HERE / 'fashion_mnist'}, or install Debian's package dataset-fashion-mnist"
        )
    return _keras_folders()[0]


def _read_idx(path: Path) -> np.ndarray:
    """The uint8 array of an idx file: a magic 0x08 and the number of dimensions, the big-endian sizes, the bytes."""
    mend = "delete it, or fetch it again"
    try:
        with opened(path) as packed, gzip.open(packed) as stream:
            content = stream.read(IDX_BYTES + 1)
        if content[:3] != b"\0\0\x08" or not 1 <= content[3] <= 4 or len(content) > IDX_BYTES:
            raise ValueError("no idx file of bytes, or too large")
        sizes = struct.unpack_from(f">{content[3]}I", content, 4)
        if math.prod(sizes) != len(content) - 4 - 4 * content[3]:
            raise ValueError("it has another number of bytes than it says")
    except (OSError, EOFError, ValueError, IndexError, struct.error, zlib.error, Unreadable) as error:
        refuse(f"{path}: damaged ({error}); {mend}")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(sizes)


def _to_floats(images: np.ndarray) -> np.ndarray:
    """uint8 [rows, 28, 28] as float32 [rows, 28, 28, 1] in [0, 1]."""
    return (images.astype(np.float32) / np.float32(255))[..., np.newaxis]


def main() -> None:
    Parser(__doc__).parse_args()
    arrays = make_subtask()
    if _fingerprint(arrays) != SUBTASK_SHA256:
        refuse(
            f"FashionMNIST: its classes {SUBTASK_CLASSES} are not the ones this suite was measured on"
            f" ({_fingerprint(arrays)})"
        )
    write_npz(SUBTASK_FILE, arrays)
    print(f"{SUBTASK_FILE}: {len(arrays['x_train'])} + {len(arrays['x_test'])} images, as expected")


if __name__ == "__main__":
    run(main)
