"""Trained models on disk: a folder with best.keras and final.keras, config.json and history.csv."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from command_line import refuse
from files import file_sha256, has_sha256, read_json, write_csv, write_json
from results import folded

BEST, FINAL, CONFIG, HISTORY = "best.keras", "final.keras", "config.json", "history.csv"


def save(folder: Path, models: dict, config: dict, header: tuple, history: list[tuple]) -> None:
    """Write a trained model: `models` by file name (BEST, FINAL), its history, and at last config.json, which marks it
    as whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    for name, model in models.items():
        _save(folder / name, model)
    write_csv(folder / HISTORY, header, history)
    write_json(folder / CONFIG, {**config, "sha256": {name: file_sha256(folder / name) for name in (*models, HISTORY)}})


def _save(path: Path, model) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, suffix=".writing") as temporary:
        half = os.path.join(temporary, path.name)
        model.save(half, save_format="keras_v3")  # said, since in a thread Keras' second file were HDF5
        os.replace(half, path)


def config(folder: Path, expected: dict | None = None) -> dict | None:
    """The configuration of the model in a folder, None when there is no whole one.

    expected: settings that it must have been trained with; refuses a model that was trained otherwise, or whose files
    were damaged.
    """
    stored = read_json(folder / CONFIG)
    if stored is None:
        return None
    mend = f"delete {folder} to train it again"
    try:
        check(stored)
    except ValueError as error:
        refuse(f"{folder / CONFIG}: damaged, {error}; {mend}")
    for name, digest in stored.get("sha256", {}).items():
        if not has_sha256(folder / name, digest):
            refuse(f"{folder / name}: missing or damaged; {mend}")
    for name, value in (expected or {}).items():
        if stored.get(name) != value:
            refuse(f"{folder / CONFIG}: {name} is {stored.get(name)!r}, not {value!r}; {mend}")
    return stored


def keep_beside(folder: Path, which: str, model, settings: dict) -> None:
    """Keep a model in a folder of results: <which>.keras and, last, <which>.json with its settings and SHA-256."""
    path = folder / f"{which}.keras"
    _save(path, model)
    write_json(path.with_suffix(".json"), {"settings": settings, "sha256": file_sha256(path)})


def kept_beside(folder: Path, which: str, settings: dict) -> bool:
    """Whether a folder of results has the whole model of these settings."""
    path = folder / f"{which}.keras"
    said = read_json(path.with_suffix(".json"))
    return said is not None and said.get("settings") == settings and has_sha256(path, said.get("sha256"))


def check(stored: dict) -> None:
    """Raise ValueError where what a config.json holds is not of the kinds that it has."""
    folded.check_settings(stored)
    for name in ("best_test_acc", "final_test_acc"):
        if name in stored and not (folded.is_number(stored[name]) and 0 <= stored[name] <= 1):
            raise ValueError(f"its {name} is no share of 1")
    if "best_epoch" in stored and not folded.is_whole(stored["best_epoch"]):
        raise ValueError("its best_epoch is no whole number")
    for name in ("sha256", "versions"):
        parts = stored.get(name, {})
        if not isinstance(parts, dict) or not all(isinstance(text, str) for text in parts.values()):
            raise ValueError(f"its {name} holds something else than texts")
    if not all(folded.FILE_NAME.fullmatch(name) for name in stored.get("sha256", {})):
        raise ValueError("its sha256 is of something else than files beside it")
