"""A cell: one result, as its worker writes it and as its readers find it.

A worker writes a CSV file and, last, a run.json beside it with the settings and the SHA-256 of every file that belongs
to the result. Without run.json, or where a file does not match it, the cell is unfinished, for the sweep that goes on
as for the reader. What is finished may have been folded into tables (`results.folded`); both forms are read alike. A
cell's own files stand for it where it is kept in both.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from command_line import refuse
from files import Unreadable, below, file_sha256, read_json, sha256, text, text_sha256, write_csv, write_json
from results import folded, layout
from results.folded import Result

PARTS = ("ipoisoning", "analysis", "tpoisoning")  # folders of results
# All that this suite writes among its results
KNOWN = re.compile(
    r"(attack_results|analysis_results|[mas]extracts_epoch|poison|runs|seeds|trials|examples|crafting)\.csv|run\.json"
    r"|(best|final)\.(keras|json)|.*\.png|attack_w_\d+(\.csv|\.run\.json)|.*\.lock"
)
RESULTS = re.compile(r"(attack_results|analysis_results|attack_w_\d+)\.csv")


# What a result may be made anew with: how it is kept, and files that another machine makes with other last bits
MAY_DIFFER = {"dump", "stop_at_first", "baseline_acc", "baseline_sha256", "poison_sha256", "model_sha256"}


class Unfinished(Exception):
    """A CSV file of results that is not there, not whole, or not known to be; the message says which."""


def find(path: Path) -> Result:
    """The result at `path`, in whichever form it is kept; raises `Unfinished`."""
    if layout.run_file(path).exists():
        return of_files(path)
    result = folded.read(layout.runs_file(path))[0].get(path)
    if result is None:
        raise Unfinished("missing")
    return result


def finished(path: Path, settings: dict) -> bool:
    """Whether the result at `path` is there, whole, and made with just these settings.

    Recorded gradients may be gone once they are reduced.
    """
    try:
        result = find(path)
    except Unfinished:
        return False
    if result.settings != settings:
        return False
    if path.name != layout.ANALYSIS_RESULTS:
        return True
    extracts = {layout.MAGNITUDES, layout.ORIENTATIONS}
    if settings["dump"] == "npz":  # the paper's layout has no single examples
        extracts.add(layout.PER_EXAMPLE)
    return extracts <= set(result.texts) or recorded_whole(path.parent, result.run)


def check_free(path: Path, settings: dict) -> None:
    """Refuse to replace a finished result by one of other settings; one that differs in MAY_DIFFER is made anew."""
    try:
        known = find(path).settings
    except Unfinished:
        return
    for name in known:
        if name in settings and name not in MAY_DIFFER and known[name] != settings[name]:
            refuse(
                f"{path}: holds a result with another {name} ({known[name]!r}, not {settings[name]!r}); rename the"
                " poison file, take that folder away, or give RESULTS=another folder"
            )


def recorded_whole(folder: Path, run: dict) -> bool:
    """Whether the recorded gradients of an analysis are there, the ones that its run.json vouches for.

    Those of a run.json that does not speak of them are taken as they are.
    """
    if not (folder / layout.PARAM_UPDATES).is_dir():
        return False
    known = run.get(folded.RECORDS)
    return known is None or known == records_sha256(folder)


def check_recorded(folder: Path, epochs: int) -> None:
    """Refuse an analysis of so many epochs of which some were taken away before it had ended."""
    there = {path.name.partition("_")[0].partition(".")[0] for path in (folder / layout.PARAM_UPDATES).glob("*")}
    lost = [epoch for epoch in range(1, epochs + 1) if str(epoch) not in there]
    if lost:
        refuse(
            f"{folder / layout.PARAM_UPDATES}: lacks epoch {lost[0]} of {epochs} (and {len(lost) - 1} more), which was"
            " recorded and taken away; give the same command again"
        )


def records_sha256(folder: Path) -> str:
    """The SHA-256 of an analysis' recorded gradients, by their files' names and bytes."""
    parts = []
    for path in sorted((folder / layout.PARAM_UPDATES).iterdir()):
        if layout.RECORDED.fullmatch(path.name) and path.is_file():
            parts += [path.name.encode(), file_sha256(path).encode()]
    return sha256(*parts)


def begin(folder: Path) -> None:
    """Make a cell unfinished before it is trained again: nothing of an earlier run may pass for the new one's."""
    for name in (layout.RUN, layout.MAGNITUDES, layout.ORIENTATIONS, layout.PER_EXAMPLE):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / layout.PARAM_UPDATES, ignore_errors=True)


def write(path: Path, header: Iterable[str], lines: Iterable[Iterable], settings: dict, measured: dict) -> None:
    """Write a result's CSV file and then its run.json.

    `measured` is what a repetition need not share, such as wall seconds.
    """
    write_csv(path, header, lines)
    run = {"settings": settings, "results": {path.name: file_sha256(path)}, **measured}
    if path.name == layout.ANALYSIS_RESULTS and (path.parent / layout.PARAM_UPDATES).is_dir():
        run[folded.RECORDS] = records_sha256(path.parent)
    run.update(versions=versions(), machine=machine())
    write_json(layout.run_file(path), run)


def add(folder: Path, names: Iterable[str]) -> None:
    """Add files that were made of a finished analysis' recorded gradients to what its run.json vouches for.

    Nothing where the analysis is unfinished.
    """
    run = read_json(folder / layout.RUN)
    if run is None or layout.ANALYSIS_RESULTS not in run.get("results", {}):
        return
    results = {**run["results"], **{name: file_sha256(folder / name) for name in names}}
    if results != run["results"]:
        write_json(folder / layout.RUN, {**run, "results": results})


@functools.cache
def machine() -> dict[str, str]:
    """What a result was made on: the processor, the GPU where TensorFlow has one, and the commit of the suite.

    A part that cannot be known is left out; a commit with changes has + behind it.
    """
    known = {"cpu": platform.processor() or platform.machine()}
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        known["cpu"] = next(
            (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), known["cpu"]
        )
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and (gpus := tensorflow.config.list_physical_devices("GPU")):
        known["gpu"] = str(tensorflow.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        words = ["git", "-C", str(layout.REPOSITORY), "describe", "--always", "--dirty=+", "--exclude=*"]
        known["commit"] = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return {name: text for name, text in known.items() if text}


def versions() -> dict[str, str]:
    """The versions that numbers may depend on in their last digits."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in ("tensorflow", "numpy")}}


def of_files(path: Path) -> Result:
    """The result that a CSV file and the run.json beside it are, when they belong together; raises `Unfinished`."""
    mark = layout.run_file(path)
    if not path.is_file():
        raise Unfinished("missing")
    if not mark.exists():
        raise Unfinished(f"no {mark.name} beside it: unfinished, or not of this suite")
    run = read_json(mark)
    if run is None:
        raise Unfinished(f"damaged: its {mark.name} cannot be read")
    try:
        folded.check(run)
    except ValueError as error:
        raise Unfinished(f"damaged: its {mark.name} cannot be used, {error}") from None
    if path.name not in run["results"]:
        raise Unfinished(f"damaged: its {mark.name} is not of this file")
    texts = {}
    for name, digest in run["results"].items():
        try:
            texts[name] = text(path.with_name(name))
        except Unreadable:
            texts[name] = ""
        if text_sha256(texts[name]) != digest:
            raise Unfinished(
                f"damaged: {name} is missing, cut off or altered, its SHA-256 is not the one in its {mark.name}"
            )
    return Result(path, run, texts, path)


def extract(folder: Path, name: str) -> str | None:
    """The content of an analysis' extract, from its file or from where it was folded; None where there is none.

    Raises `Unreadable` where the file is no text.
    """
    if (folder / name).exists():
        return text(folder / name)
    result = _folded_analysis(folder)
    return result.texts.get(name) if result else None


def analysed(folder: Path) -> dict:
    """The settings of an analysis, finished or not, from its run.json or from where it was folded; empty where neither
    is there.
    """
    run = read_json(folder / layout.RUN)
    if run is None:
        result = _folded_analysis(folder)
        return result.settings if result else {}
    return run["settings"] if isinstance(run.get("settings"), dict) else {}


def _folded_analysis(folder: Path) -> Result | None:
    """The result that was folded, of an analysis' folder."""
    path = folder.resolve() / layout.ANALYSIS_RESULTS
    if layout.RESULTS.resolve() not in path.parents:
        return None
    path = layout.RESULTS / path.relative_to(layout.RESULTS.resolve())
    return folded.read(layout.runs_file(path))[0].get(path)


def read_all() -> tuple[list[Result], list[tuple[Path, str]]]:
    """Every result below the results folder, in either form, sorted by path, and what is left out, with the reason.

    Left out are results that are unfinished or damaged, that lie elsewhere than their settings say (so a copy is), and
    files that nothing of this suite writes.
    """
    found: dict[Path, Result] = {}
    left_out: dict[Path, str] = {}
    for part in PARTS:
        files, _, others = below(layout.RESULTS / part)
        left_out.update(others)
        _sort(files, found, left_out)
    for path, result in found.items():
        if why := misplaced(result):
            left_out[path] = why
        else:
            left_out.pop(path, None)
    return [result for path, result in sorted(found.items()) if path not in left_out], sorted(left_out.items())


def _sort(files: list[Path], found: dict[Path, Result], left_out: dict[Path, str]) -> None:
    """Put the results among files into `found`, and what is none into `left_out`."""
    by_others = (layout.null_folder(), layout.described_folder())  # `results.nulls`, `results.described` read them
    for path in files:
        if path.parent.name == layout.PARAM_UPDATES and layout.RECORDED.fullmatch(path.name):
            continue
        if path.parent in by_others and path.suffix == ".csv":
            continue
        if path.name.endswith(".writing"):
            left_out[path] = "half written, by a run that is at work or was killed"
        elif not KNOWN.fullmatch(path.name):
            left_out[path] = "nothing of this suite is called so"
        elif path.name == layout.RUNS:
            results, damaged = folded.read(path)
            own = {place for place in (*results, *dict(damaged)) if layout.run_file(place).exists()}
            found.update((place, result) for place, result in results.items() if place not in own)
            left_out.update((place, why) for place, why in damaged if place not in own)
        elif RESULTS.fullmatch(path.name):
            try:
                found[path] = of_files(path)
            except Unfinished as error:
                left_out.setdefault(path, str(error))  # of a folded one it is known better what is wrong


def misplaced(result: Result) -> str:
    """Why a result does not lie where its settings say; empty where it does."""
    try:
        place = layout.cell_file(result.settings)
    except (KeyError, TypeError, ValueError) as error:
        return f"its {layout.run_file(result.path).name} does not say: {error}"
    if place != result.path:
        return f"misplaced: by its settings it is {os.path.relpath(place, layout.RESULTS)}, of which it may be a copy"
    return ""
