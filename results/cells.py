"""A cell: one training's folder, with a CSV file of results and the run.json that says how they were made and that they are whole.

run.json is written last and holds the settings and the CSV file's SHA-256. A folder without it, or whose CSV file does not match
it, is unfinished, for the sweep that goes on as for the reader of results.
"""

from __future__ import annotations

import csv
import platform
import shutil
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from files import file_sha256, read_json, write_csv, write_json
from results import layout


def finished(folder: Path, results_name: str, settings: dict) -> bool:
    """Whether a cell's results are there, whole, and made with just these settings; recorded gradients may be gone once they are reduced."""
    try:
        if whole(folder / results_name)["settings"] != settings:
            return False
    except Unfinished:
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


def add(folder: Path, results_name: str, names: Iterable[str]) -> None:
    """Add files that were made of a finished cell's recorded gradients to what its run.json vouches for; nothing where the cell is unfinished."""
    run = read_json(folder / layout.RUN)
    if run is None or results_name not in run.get("results", {}):
        return
    results = {**run["results"], **{name: file_sha256(folder / name) for name in names}}
    if results != run["results"]:
        write_json(folder / layout.RUN, {**run, "results": results})


def read(path: Path) -> list[dict]:
    """The lines of a CSV file of results, all text."""
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def versions() -> dict[str, str]:
    """The versions that numbers may depend on in their last digits."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in ("tensorflow", "numpy")}}


class Unfinished(Exception):
    """A CSV file of results that is not there, not whole, or not known to be; the message says which."""


def whole(path: Path) -> dict:
    """The run.json of a CSV file of results, when both are there and belong together; raises `Unfinished`."""
    run_file = layout.run_file(path)
    if not path.is_file():
        raise Unfinished("missing")
    if not run_file.is_file():
        raise Unfinished(f"no {run_file.name} beside it: unfinished, or not of this suite")
    run = read_json(run_file)
    if run is None or not isinstance(run.get("settings"), dict):
        raise Unfinished(f"damaged: its {run_file.name} cannot be read")
    results = run.get("results")
    if not isinstance(results, dict) or path.name not in results:
        raise Unfinished(f"damaged: its {run_file.name} is not of this file")
    for name, digest in results.items():
        beside = path.with_name(Path(name).name)
        if not beside.is_file() or file_sha256(beside) != digest:
            raise Unfinished(f"damaged: {beside.name} is missing, cut off or altered, its SHA-256 is not the one in its {run_file.name}")
    return run
