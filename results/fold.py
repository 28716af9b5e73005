#!/usr/bin/env python3
"""Fold finished results into few tables, so that they can be cloned, listed and reviewed.

    python3 -m results.fold

Every result below the results folder that is whole becomes a line of a runs.csv: its settings, seconds and checksums.
CSV files of the paper's own sweeps stay where they are, those of other seeds and attacks become lines of seeds.csv,
targets lines of trials.csv, quantiles over single examples lines of examples.csv. A sweep that goes on, the analyses
and the report read both forms alike, so this may be done at any time, but not while a sweep is running, and a kill in
the middle of it loses nothing: the same command again finishes it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from command_line import Parser, refuse, run
from files import Lock, below, printable
from results import cells, folded, layout
from results.folded import Result


def main() -> None:
    Parser(__doc__).parse_args()
    # A sweep takes pieces of these locks for as long as it is at them
    paths = [layout.RESULTS / "train.lock", *locks_of_targets()]
    locks = [Lock(path) for path in paths if layout.RESULTS.is_dir()]
    if not all(lock.take_all() for lock in locks):
        refuse(f"{layout.RESULTS}: a sweep is running there; give this command again when it has ended")
    before = count_files()
    results, left_out = cells.read_all()
    for runs, group in by_table(results).items():
        fold(runs, group)
    print(f"{layout.RESULTS}: {len(results)} results in {count_files()} files, {before} before")
    for path, why in left_out:
        print(f"not folded: {printable(path)} ({printable(why)})")


def locks_of_targets() -> list[Path]:
    return [path for path in below(layout.RESULTS / "tpoisoning")[0] if path.name == "attack_w.lock"]


def count_files() -> int:
    return sum(len(below(layout.RESULTS / part)[0]) for part in cells.PARTS)


def by_table(results: list[Result]) -> dict[Path, list[Result]]:
    """The results by the runs.csv that they are folded into."""
    groups: dict[Path, list[Result]] = {}
    for result in results:
        groups.setdefault(layout.runs_file(result.path), []).append(result)
    return groups


def fold(runs: Path, results: list[Result]) -> None:
    """Write the tables of these results, and delete what is in them then.

    Results that are not folded yet keep their files until then.
    """
    loose = [result for result in results if layout.run_file(result.path).exists()]
    if not loose:
        return
    _, damaged = folded.read(runs)
    lost = [(path, why) for path, why in damaged if not layout.run_file(path).exists()]
    if lost:
        (path, why), *more = lost
        refuse(f"{runs}: {path} is {why} (and {len(more)} more); restore what is missing, or delete its lines")
    kept = folded.headers_agree(results)
    folded.write(runs, kept)
    whole, _ = folded.read(runs)
    for result in results:
        if result.path not in whole or whole[result.path].run != result.run:
            continue
        layout.run_file(result.path).unlink(missing_ok=True)
        for name in layout.folded_files(result.path, result.settings["seed"]):
            result.path.with_name(name).unlink(missing_ok=True)
        for folder in (result.path.parent, result.path.parent.parent):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()


if __name__ == "__main__":
    run(main)
