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
    with tempfile.TemporaryDirectory(dir=folder, suffix=".writing") as temporary:
        for name, model in models.items():
            model.save(os.path.join(temporary, name))
            os.replace(os.path.join(temporary, name), folder / name)
    write_csv(folder / HISTORY, header, history)
    write_json(folder / CONFIG, {**config, "sha256": {name: file_sha256(folder / name) for name in (*models, HISTORY)}})


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
