"""Results folded into few tables: the settings of many in one runs.csv, and their lines in seeds.csv, trials.csv or
examples.csv.

A result is written as files of its own (`results.cells`), which is safe against kills and several processes, but 14,000
of them are too many to clone, list or review. `python3 -m results.fold` folds what is finished:

    runs.csv                 a line a result: run (its number), path (its CSV file's, as if it were not folded), every
                             setting (`poison.alpha` is the alpha of its poison set), results.<file> (the file's
                             SHA-256), seconds, versions, machine, checksum
    seeds.csv, trials.csv, examples.csv      the lines of the folded files, with the number of the run in front

Nothing is lost: a file that was folded can be written again byte for byte, and a line that was altered is noticed by
the same checksums that guard the files.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from files import Unreadable, checksum, csv_lines, is_plain, json_value, lines_of, printable, text, text_sha256, writing
from results import layout

# Columns that hold text, whatever it looks like; in all others a cell is JSON, or text that is no JSON
TEXTS = {"path", "checksum", "shaping", "kind", "model", "attack", "dataset", "network", "poison_set", "budget", "mode"}
OF_TEXTS = ("results", "versions", "machine")  # parts of a run.json beside its settings
TEXT_STARTS, TEXT_ENDS = tuple(f"{part}." for part in OF_TEXTS), ("_sha256",)
NOT_SETTINGS = ("wall_seconds", "replicas", "records_sha256")


@dataclass(frozen=True)
class Result:
    """A finished result, in whichever form it is kept.

    path: its CSV file; of a folded one, where it would lie; run: what run.json holds (settings, results, versions ...);
    texts: the content of the files that `run` vouches for, by name; source: the file that its lines are read from.
    """

    path: Path
    run: dict
    texts: dict[str, str]
    source: Path

    @property
    def settings(self) -> dict:
        return self.run["settings"]

    @property
    def text(self) -> str:
        """The content of its CSV file."""
        return self.texts[self.path.name]


WHOLES = (
    "batch_size", "epochs", "seed", "clean_rows", "n_poison", "target", "base_class", "target_class", "poisons",
    "trial",
)  # fmt: skip
NUMBERS = ("learning_rate", "ratio", "clip_norm", "noise_std", "noise_multiplier", "delta", "baseline_acc")
WORDS = (  # settings that are texts
    "dataset", "network", "engine", "optimizer", "shaping", "kind", "attack", "poison_set", "start", "baseline", "mode",
    "budget", "model", "poison_sha256", "model_sha256", "baseline_sha256",
)  # fmt: skip
FILE_NAME, SETTING = re.compile(r"[\w+-][\w.+-]{0,250}"), re.compile(r"[A-Za-z_][\w.-]{0,99}")
MOST_RUNS = 2**16  # of a runs.csv: twenty times the largest
MOST_FILES = 16  # of a result: four are the most
RECORDS = "records_sha256"  # of recorded gradients (`results.param_updates`)


def check(run: dict) -> None:
    """Raise ValueError where what a run.json holds is not of the kinds that a run.json has."""
    settings, results = run.get("settings"), run.get("results")
    told = [run.get(part, {}) for part in OF_TEXTS]
    if not isinstance(settings, dict) or "results" not in run or not all(isinstance(part, dict) for part in told):
        raise ValueError("it holds no settings, results, versions and machine")
    check_settings(settings)
    named = all(FILE_NAME.fullmatch(name) and isinstance(digest, str) for name, digest in results.items())
    if not named or len(results) > MOST_FILES:
        raise ValueError("its results are no files and their SHA-256")
    if not all(isinstance(text, str) and is_plain(text) for part in told for pair in part.items() for text in pair):
        raise ValueError("its versions or its machine are no texts")
    seconds, replicas = run.get("wall_seconds", 0.0), run.get("replicas", 1)
    if not is_number(seconds) or seconds < 0 or type(replicas) is not int or not 1 <= replicas < 2**31:
        raise ValueError("its wall_seconds and replicas are none")
    if not isinstance(run.get(RECORDS, ""), str):
        raise ValueError(f"its {RECORDS} is none")


def check_settings(settings: dict) -> None:
    """Raise ValueError where settings of a training are not of the kinds that they have; `seed` must be there."""
    if not all(SETTING.fullmatch(name) and is_plain(value) for name, value in settings.items()):
        raise ValueError("it holds settings that are no settings")
    odd = [name for name in WHOLES if name in settings and not is_whole(settings[name])]
    odd += [name for name in NUMBERS if name in settings and not is_number(settings[name])]
    if "seed" not in settings or odd:
        raise ValueError(f"it holds settings that are not numbers: {', '.join(odd) or 'seed'}")
    odd = [name for name in WORDS if not isinstance(settings.get(name, ""), str)]
    odd += ["poison"] * (not isinstance(settings.get("poison", {}), dict))
    if odd:
        raise ValueError(f"it holds settings of another kind: {', '.join(odd)}")
    if not 0 <= settings.get("baseline_acc", 0.0) <= 1:
        raise ValueError("its baseline_acc is no share of 1")


def is_whole(value) -> bool:
    return type(value) is int and 0 <= value < 2**53


def is_number(value) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


def read(runs: Path) -> tuple[dict[Path, Result], list[tuple[Path, str]]]:
    """The results that a runs.csv holds, by the path of their CSV file, and those that are damaged, with the reason.

    What was read before is read again only where a table has changed since: a sweep asks for every cell, and another
    process may fold in between.
    """
    stamps, *known = _READ.get(runs, (None,))
    if stamps is None or stamps != {table: _stamp(table) for table in stamps}:
        stamps, *known = _READ[runs] = _read(runs)
    return tuple(known)


_READ: dict[Path, tuple] = {}


def _stamp(table: Path) -> tuple | None:
    try:
        status = table.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _read(runs: Path) -> tuple[dict[Path, tuple | None], dict[Path, Result], list[tuple[Path, str]]]:
    """When each table was written, the results, and those that are damaged."""
    stamps, found, damaged, tables = {runs: _stamp(runs)}, {}, [], {}
    lines_of_runs = _lines(runs)
    while True:
        try:
            line = next(lines_of_runs, None)
        except Unreadable as error:
            damaged.append((runs, str(error)))
            break
        if line is None:
            break
        path = runs.parent / (printable(line.get("path")) or "?")
        try:
            number, run = line["run"], _unflattened(line)
            check(run)
            if ".." in path.parts or path.name not in run["results"]:
                raise ValueError("its line of settings is not of this file")
            if path in found:
                raise ValueError("two lines of settings are of this file")
            moved = layout.folded_files(path, run["settings"]["seed"])
            texts, source = {}, path
            for name, digest in run["results"].items():
                kept, table = path.with_name(name), moved.get(name)
                if table is not None:
                    stamps.setdefault(table, _stamp(table))
                    if table not in tables:
                        tables[table] = _lines_by_run(table)
                    header, lines = tables[table]
                if table is not None and (number in lines or not kept.exists()):
                    texts[name] = "".join(part + "\n" for part in (header, *lines.get(number, ())))
                    source = table if name == path.name else source
                else:  # also one that an earlier rule left where it was
                    stamps[kept] = _stamp(kept)
                    texts[name] = text(kept)
                if text_sha256(texts[name]) != digest:
                    raise ValueError(f"{name} is cut off or altered, its SHA-256 is not the one in {runs.name}")
            found[path] = Result(path, run, texts, source)
        except (Unreadable, KeyError, ValueError) as error:
            known = isinstance(error, ValueError)
            found.pop(path, None)
            damaged.append(
                (path, f"damaged: {error}" if known else f"damaged or missing; its settings are in {runs.name}")
            )
    return stamps, found, damaged


def _lines(runs: Path) -> Iterator[dict[str, str]]:
    """The lines of a runs.csv; none where it is missing, `Unreadable` where it is no such table."""
    if not runs.exists():
        return
    content = text(runs)
    if content.count("\n") > MOST_RUNS:
        raise Unreadable(f"it has more than {MOST_RUNS:,} lines")
    lines = csv_lines(content)
    header = next(lines)
    if len(set(header)) < len(header) or not {"run", "path"} <= set(header):
        raise Unreadable("damaged: it has no columns run and path, or two of one name")
    for line in lines:
        yield dict(zip(header, line))


def _lines_by_run(table: Path) -> tuple[str, dict[str, list[str]]]:
    """The header of a table of folded lines and its lines by the number of their run, both without the first column;
    raises `Unreadable`.
    """
    lines: dict[str, list[str]] = {}
    rest = lines_of(text(table))
    header = next(rest)
    for line in rest:
        run, _, cells = line.partition(",")
        lines.setdefault(run, []).append(cells)
    return header.partition(",")[2], lines


def numbers(runs: Path) -> dict[str, int]:
    """The numbers that runs have in a runs.csv, by their path."""
    found = {}
    with contextlib.suppress(Unreadable):
        for line in _lines(runs):
            if re.fullmatch("[1-9][0-9]{0,11}", line["run"]):
                found[line["path"]] = int(line["run"])
    return found


def write(runs: Path, results: list[Result]) -> None:
    """Write a runs.csv and the tables beside it anew, with these results.

    A result that was there before keeps its number.

    The tables are written first: until runs.csv is, the old one stands, and what it vouches for is still in them.
    """
    known = numbers(runs)
    fresh = itertools.count(max(known.values(), default=0) + 1)
    places = {result.path: str(result.path.relative_to(runs.parent)) for result in results}
    taken: dict[int, Result] = {}
    for result in sorted(results, key=_by_path):
        number = known.get(places[result.path])
        taken[next(fresh) if number is None or number in taken else number] = result
    numbered = sorted(taken.items(), key=lambda pair: pair[0])
    tables: dict[Path, list[str]] = {}
    for number, result in numbered:
        for name, table in layout.folded_files(result.path, result.settings["seed"]).items():
            if name in result.texts:
                header, *lines = result.texts[name].splitlines()
                tables.setdefault(table, [f"run,{header}"]).extend(f"{number},{line}" for line in lines)
    for table, lines in tables.items():
        with writing(table) as stream:
            stream.write("\n".join(lines) + "\n")
    flat = [{"run": number, "path": places[result.path], **_flattened(result.run)} for number, result in numbered]
    columns = sorted(dict.fromkeys(name for line in flat for name in line), key=_column_order)
    content = io.StringIO()
    writer = csv.DictWriter(content, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    with writing(runs) as stream:
        stream.write(content.getvalue())


def headers_agree(results: list[Result]) -> list[Result]:
    """Those of the results whose folded files have the header that the first of their table has: a table has one
    header.
    """
    first: dict[Path, str] = {}
    kept = []
    for result in sorted(results, key=_by_path):
        tables = layout.folded_files(result.path, result.settings["seed"])
        headers = {
            table: result.texts[name].partition("\n")[0] for name, table in tables.items() if name in result.texts
        }
        if all(first.setdefault(table, header) == header for table, header in headers.items()):
            kept.append(result)
    return kept


def _by_path(result: Result) -> list:
    return layout.natural_order(str(result.path))


def _column_order(name: str) -> int:
    """Number and path first, then the settings as they are, then what else run.json holds."""
    if name in ("run", "path"):
        return 0
    ends = [NOT_SETTINGS, *((start,) for start in TEXT_STARTS), ("checksum",)]
    return next((place for place, starts in enumerate(ends, 2) if name.startswith(starts)), 1)


def _flattened(run: dict) -> dict[str, str]:
    """The content of a run.json as the cells of a line, without run and path."""
    cells = {}
    for name, value in run["settings"].items():
        parts = (
            {f"{name}.{key}": part for key, part in value.items()}
            if value and isinstance(value, dict)
            else {name: value}
        )
        cells.update((column, _as_cell(column, part)) for column, part in parts.items())
    for part in OF_TEXTS:
        cells.update((f"{part}.{name}", text) for name, text in run.get(part, {}).items())
    cells.update((name, _as_cell(name, run[name])) for name in NOT_SETTINGS if name in run)
    return {**cells, "checksum": checksum(_unflattened(cells))}


def _unflattened(line: dict[str, str]) -> dict:
    """The content of a run.json from a line; ValueError where the line is not what its checksum says."""
    run: dict = {"settings": {}, "results": {}}
    for column, cell in line.items():
        if column in ("run", "path", "checksum") or not cell:
            continue
        value = _from_cell(column, cell)
        part, dot, name = column.partition(".")
        if dot and part in OF_TEXTS:
            run.setdefault(part, {})[name] = value
        elif column in NOT_SETTINGS:
            run[column] = value
        elif dot:
            parts = run["settings"].setdefault(part, {})
            if not isinstance(parts, dict):
                raise ValueError(f"its line of settings has two columns of {part}")
            parts[name] = value
        else:
            run["settings"][column] = value
    if "checksum" in line and line["checksum"] != checksum(run):
        raise ValueError("its line of settings is not what its checksum says")
    return run


def _is_text(column: str) -> bool:
    return column in TEXTS or column.startswith(TEXT_STARTS) or column.endswith(TEXT_ENDS)


def _as_cell(column: str, value) -> str:
    if value not in ("", "null") and isinstance(value, str) and (_is_text(column) or _json(value) is None):
        return value
    return json.dumps(value)


def _from_cell(column: str, cell: str):
    if _is_text(column) and cell not in ("null", '""', '"null"'):
        return cell
    decoded = _json(cell)
    return cell if decoded is None else decoded[0]


def _json(content: str) -> tuple | None:
    """The value that a JSON text stands for, in a tuple; None where it is none."""
    try:
        return (json_value(content),)
    except ValueError:
        return None
