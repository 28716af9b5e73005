"""A cell: one training's folder, with a CSV file of results and the run.json that says how they were made and that they are whole.

run.json is written last and holds the settings and the CSV file's SHA-256. A folder without it, or whose CSV file does not match
it, is unfinished, for the sweep that goes on as for the reader of results.
"""

from __future__ import annotations

import csv
import platform
import shutil
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from files import file_sha256, read_json, write_csv, write_json
from results import layout


def finished(folder: Path, results_name: str, settings: dict) -> bool:
    """Whether a cell's results are there, whole, and made with just these settings; recorded gradients may be gone once they are reduced."""
    run = _whole(folder / results_name)
    if run is None or run["settings"] != settings:
        return False
    if results_name != layout.ANALYSIS_RESULTS:
        return True
    reduced = all((folder / name).exists() for name in (layout.MAGNITUDES, layout.ORIENTATIONS, layout.PER_EXAMPLE))
    return reduced or (folder / layout.PARAM_UPDATES).is_dir()


def begin(folder: Path) -> None:
    """Make a cell unfinished before it is trained again: nothing of an earlier run may pass for the new one's."""
    for name in (layout.RUN, layout.MAGNITUDES, layout.ORIENTATIONS, layout.PER_EXAMPLE):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / layout.PARAM_UPDATES, ignore_errors=True)


def write(folder: Path, results_name: str, header: Iterable[str], lines: Iterable[Iterable], settings: dict, measured: dict) -> None:
    """Write a cell's CSV file and then its run.json; `measured` is what a repetition need not share, such as wall seconds."""
    path = folder / results_name
    write_csv(path, header, lines)
    write_json(layout.run_file(path), {"settings": settings, "results": {path.name: file_sha256(path)}, **measured, "versions": versions()})


def read(path: Path) -> list[dict]:
    """The lines of a CSV file of results, all text."""
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def read_all(folder: Path, results_name: str) -> list[tuple[Path, dict, list[dict]]]:
    """Every finished cell below `folder`: its CSV file, its settings and its lines; names on standard error what it leaves out."""
    found = []
    for path in sorted(folder.rglob(results_name)):
        run = _whole(path)
        if run is None:
            print(f"left out: {path} (damaged, or without a run.json that belongs to it)", file=sys.stderr)
            continue
        found.append((path, run["settings"], read(path)))
    return found


def versions() -> dict[str, str]:
    """The versions that numbers may depend on in their last digits."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in ("tensorflow", "numpy")}}


def _whole(path: Path) -> dict | None:
    """The run.json of a CSV file of results, or None when either is missing or they do not belong together."""
    run = read_json(layout.run_file(path))
    if run is None or not isinstance(run.get("settings"), dict) or not path.is_file():
        return None
    return run if run.get("results") == {path.name: file_sha256(path)} else None
