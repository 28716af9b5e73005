"""A set of poisons, and the file that keeps it.

A poison file is an npz (read with allow_pickle=False) of
    rows         int64 [poisons], training rows that the poisons are made of by the attack's `make` (else copies)
    target_rows  int64 [poisons], second training rows, where a poison is made of two
    instances    float32 [poisons, *shape] in [0, 1], where there are no rows
    counts       int64 [poisons], how often each stands in the training set, where it is not once
    labels       int64 [poisons]
    settings     JSON: attack, dataset and whatever the attack was set to
    checksum     SHA-256 of all of the above
Files of others load too, a plain npz of x and y among them: see `poisons/foreign_files.py`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import datasets
from command_line import BadInput, refuse
from datasets import Dataset
from files import Unreadable, file_sha256, is_plain, json_value, read_npz, sha256, write_npz
from poisons import attacks

NONE = "none"  # what stands for no poison file: a training on the clean rows alone
MOST_RATIO = 2  # poisons for each clean row that counts may come to: a small file may not fill the memory
NAME = r"[\w+-][\w.+-]{0,200}"  # of what becomes a folder of results


@dataclass(frozen=True)
class PoisonSet:
    """Poisons to be added to a training set.

    attack: the folder name of its results, e.g. label-flips; name: the set's, e.g. fashion_mnist_3_4.1.0_random_0.4;
    x: float32 [poisons, *shape] in [0, 1]; y: int32 [poisons], the labels the victim sees; file_sha256: of the file it
    came from; settings: the attack and what it was set to, as far as the file says; dataset: the name of the data set
    that it is added to, which has so many clean rows.
    """

    attack: str
    name: str
    x: np.ndarray
    y: np.ndarray
    file_sha256: str
    settings: dict
    dataset: str
    clean_rows: int

    @property
    def ratio(self) -> float:
        """Poisons per clean row, to six significant digits."""
        return float(f"{len(self.y) / self.clean_rows:.6g}")

    @property
    def record(self) -> dict:
        """What run.json says of the set; `poison` has the set's own settings."""
        told = ("attack", "dataset", "dataset_sha256")  # by the training
        own = {name: value for name, value in self.settings.items() if name not in told}
        return {
            "attack": self.attack, "poison_set": self.name, "poison_sha256": self.file_sha256, "poison": own,
            "n_poison": len(self.y), "clean_rows": self.clean_rows, "ratio": self.ratio,
        }  # fmt: skip


def save(
    path: Path | str, settings: dict, labels: np.ndarray, rows: np.ndarray | None = None,
    instances: np.ndarray | None = None, counts: np.ndarray | None = None, target_rows: np.ndarray | None = None,
) -> bool:  # fmt: skip
    """Write a poison file; leaves one that already holds just this alone, and returns whether it wrote.

    settings: at least attack and dataset, by any name that a command line may call it by.
    """
    if (rows is None) == (instances is None):
        raise ValueError("a poison file holds either the rows or the instances")
    for name, example in (("attack", "my-attack"), ("dataset", "subtask")):
        if not isinstance(settings.get(name), str):
            raise ValueError(f"settings of a poison file say what it is of: add {name!r}, such as {example!r}")
    path, settings = Path(path), {**settings, "dataset": datasets.own_name(settings["dataset"])}
    poisons: dict[str, np.ndarray] = (
        {"rows": np.asarray(rows, np.int64)} if instances is None else {"instances": np.asarray(instances, np.float32)}
    )
    arrays: dict[str, np.ndarray] = {
        **poisons,
        "labels": np.asarray(labels, np.int64),
        "settings": np.array(json.dumps(settings, sort_keys=True)),
    }
    for name, values in (("counts", counts), ("target_rows", target_rows)):
        if values is not None:
            arrays[name] = np.asarray(values, np.int64)
    arrays["checksum"] = np.array(_checksum(arrays))
    try:
        stored = read_npz(path)
    except Unreadable:
        stored = {}
    if stored and stored.get("checksum") == arrays["checksum"] and _checksum(stored) == arrays["checksum"]:
        return False
    write_npz(path, arrays)
    return True


def settings_of(path: Path) -> dict | None:
    """The settings that a poison file of this suite was crafted with; None when there is none, or it is damaged."""
    try:
        arrays = read_npz(path)
    except Unreadable:
        return None
    if not {"settings", "checksum"} <= set(arrays) or str(arrays["checksum"]) != _checksum(arrays):
        return None
    return _settings(arrays)


def _settings(arrays: dict[str, np.ndarray]) -> dict | None:
    """The settings among a file's arrays, None where they are none."""
    if arrays["settings"].dtype.kind != "U" or arrays["settings"].size != 1:
        return None
    try:
        settings = json_value(arrays["settings"].item())
    except ValueError:
        return None
    return settings if isinstance(settings, dict) and is_plain(settings) else None


def none(dataset: Dataset) -> PoisonSet:
    """No poisons: what a training on the clean rows alone is filed under, beside the poisoned ones."""
    x, y = np.zeros((0, *dataset.shape), np.float32), np.zeros(0, np.int32)
    return PoisonSet(NONE, NONE, x, y, "", {"attack": NONE}, dataset.name, len(dataset.y_train))


def load(path: Path | str, dataset: Dataset, attack_name: str | None = None) -> PoisonSet:
    """The poisons in a file, checked against the data set they are meant for: .npz of this suite, .mat and .pkl of the
    paper's authors, and plain arrays x and y.

    attack_name: files its results, in place of what the file or its folder says; needed where nothing says it.
    Refuses a file that is missing, truncated, altered, made for other data, of another shape, with values outside [0,
    1] or NaN, or with labels that the data set does not have.
    """
    from poisons import foreign_files

    path = Path(path)
    if not path.is_file():
        refuse(f"{path}: no such poison file; craft it first, e.g. python3 -m poisons.label_flip --ratio 0.4")
    readers = {".npz": _read, ".mat": foreign_files.read_mat, ".pkl": foreign_files.read_pickle}
    if path.suffix not in readers:
        refuse(f"{path}: not a poison file; it must end in one of {', '.join(readers)}")
    settings, x, y = readers[path.suffix](path, dataset)
    if attack_name is not None:
        settings = {**settings, "attack": attack_name}
    if settings.get("attack") is None:
        refuse(f"{path}: does not say which attack made it; name it with --attack-name")
    x, y = check(path, x, y, dataset)
    check_names(path, settings)
    return PoisonSet(
        settings["attack"], path.stem, x, y, file_sha256(path), settings, dataset.name, len(dataset.y_train)
    )


def check_names(path: Path, settings: dict) -> None:
    """Refuse a poison file whose results cannot be filed under its attack, its own name and its task."""
    for what, name in (("attack", settings["attack"]), ("file", path.stem), ("task", settings.get("task", "none"))):
        if not re.fullmatch(NAME, str(name)):
            refuse(
                f"{path}: its {what} is called {name!r}, and its results a folder likewise; use letters, digits, . _ -"
            )


def check(source: Path | str, x: np.ndarray, y: np.ndarray, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Poisons as float32 [poisons, *shape] and int32 [poisons], refused in the name of `source` where they do not fit
    the data set.
    """
    mend = "craft it again for this data set"
    if x.dtype.kind not in "fiub" or y.dtype.kind not in "fiub":
        refuse(f"{source}: poisons are {x.dtype} and labels {y.dtype}, not numbers; {mend}")
    if y.ndim != 1 or x.ndim < 2 or len(x) != len(y) or len(y) == 0:
        refuse(f"{source}: {x.shape} poisons with {y.shape} labels, expected one label each and at least one; {mend}")
    features = int(np.prod(dataset.shape))
    if x.shape[1:] != dataset.shape and x.shape[1:] not in ((features,), (1, features), dataset.shape[:-1]):
        refuse(
            f"{source}: poisons of shape {x.shape[1:]}, but {dataset.name} has rows of shape {dataset.shape}; {mend}"
        )
    if not np.isfinite(x).all():
        refuse(f"{source}: {np.count_nonzero(~np.isfinite(x))} values are NaN or infinite; {mend}")
    if x.min() < 0 or x.max() > 1:
        refuse(f"{source}: values from {x.min():.4g} to {x.max():.4g}, outside [0, 1]; scale or clip them, or {mend}")
    broken = y[y != np.round(y)] if y.dtype.kind == "f" else y[:0]
    if len(broken):
        refuse(f"{source}: label {broken[0]} is no whole number; {mend}")
    unknown = y[(y < 0) | (y >= dataset.classes)]
    if len(unknown):
        refuse(
            f"{source}: label {unknown[0]} does not exist in {dataset.name}, which has labels 0 to"
            f" {dataset.classes - 1}; {mend}"
        )
    return x.reshape((-1, *dataset.shape)).astype(np.float32), y.astype(np.int32)


def _read(path: Path, dataset: Dataset) -> tuple[dict, np.ndarray, np.ndarray]:
    """Settings, poisons and labels of a file that `save` wrote."""
    mend = "craft it again"
    try:
        arrays = read_npz(path)
    except Unreadable as error:
        refuse(f"{path}: {error}; {mend}")
    if "checksum" not in arrays and {"x", "y"} & {name.removesuffix("_poison") for name in arrays}:
        from poisons import foreign_files

        return foreign_files.of_arrays(path, arrays)
    if not {"labels", "settings", "checksum"} <= set(arrays) or ("rows" in arrays) == ("instances" in arrays):
        refuse(
            f"{path}: holds {', '.join(arrays) or 'nothing'}, not labels, settings, checksum and rows or instances;"
            f" {mend}"
        )
    if str(arrays.pop("checksum")) != _checksum(arrays):
        refuse(f"{path}: its contents do not match its checksum; {mend}")
    settings = _settings(arrays)
    if settings is None or not isinstance(settings.get("attack"), str):
        refuse(
            f"{path}: its settings name no attack, or hold something else than numbers and plain texts; write it by"
            f" poison_set.save with {{'attack': ...}}, or {mend}"
        )
    if datasets.own_name(str(settings.get("dataset"))) != dataset.name:
        refuse(
            f"{path}: made for the data set {settings.get('dataset')}, and this is {dataset.name}; give a poison file"
            " of this one, or the other as --dataset"
        )
    if arrays["labels"].ndim != 1:
        refuse(f"{path}: its labels are not one for each poison; {mend}")
    if settings.get("dataset_sha256", "") != dataset.file_sha256:
        refuse(f"{path}: made for another {dataset.name}.npz than this one; {mend}")
    x = arrays["instances"] if "instances" in arrays else _made_of_rows(path, arrays, settings, dataset)
    x, y = check(path, x, arrays["labels"], dataset)
    counts = arrays.get("counts", np.ones(len(x), np.int64))
    if (
        counts.dtype.kind not in "iu"
        or counts.shape != y.shape
        or counts.min() < 0
        or counts.astype(float).sum() > MOST_RATIO * len(dataset.y_train)  # float: a sum of int64 may wrap
    ):
        refuse(
            f"{path}: counts must be whole numbers of 0 or more, one for each poison, and in all no more than"
            f" {MOST_RATIO} for each clean row; {mend}"
        )
    counts = counts.astype(np.int64)
    return settings, np.repeat(x, counts, 0), np.repeat(y, counts)


def _made_of_rows(path: Path, arrays: dict[str, np.ndarray], settings: dict, dataset: Dataset) -> np.ndarray:
    """The poisons that a file describes by the training rows they are made of, float32 [poisons, *shape]."""
    rows = {name: arrays[name] for name in ("rows", "target_rows") if name in arrays}
    for values in rows.values():
        if values.dtype.kind not in "iu" or values.shape != arrays["labels"].shape or len(values) == 0:
            refuse(f"{path}: not a row number for each label; craft it again")
        if values.min() < 0 or values.max() >= len(dataset.x_train):
            refuse(f"{path}: row numbers outside 0 to {len(dataset.x_train) - 1}; craft it again")
    attack = attacks().get(settings["attack"])
    if attack is None or attack.make is None:
        if "target_rows" in rows:
            refuse(
                f"{path}: has target rows, but poisons of {settings['attack']} are not made of two rows; craft it again"
            )
        return dataset.x_train[rows["rows"]]
    why = attack.fits(dataset)
    if why:
        refuse(f"{path}: {settings['attack']} cannot poison {dataset.name}: {why}; choose another file")
    try:
        return attack.make(dataset, rows["rows"], rows.get("target_rows"), settings)
    except BadInput as error:
        refuse(f"{path}: {error}; craft it again")


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    parts = []
    for name in sorted(set(arrays) - {"checksum"}):
        parts += [
            name.encode(),
            repr((arrays[name].dtype.str, arrays[name].shape)).encode(),
            np.ascontiguousarray(arrays[name]).tobytes(),
        ]
    return sha256(*parts)
