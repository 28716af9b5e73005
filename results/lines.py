"""Results that are plain CSV files in a folder of their own: reading one, and all of them."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from files import Unreadable, csv_lines, printable, text
from results import layout


def read(path: Path, kinds: dict[str, str], gaps: Iterable[str] = ()) -> pd.DataFrame:
    """The lines of a CSV file, by the kinds of its columns; raises `Unreadable` where it is no such table.

    kinds: TEXT, WHOLE (numbers, from 0), NUMBER, SHARE (from 0 to 1), BOUND (from 0 to infinity) or FLAG, by column, in
    their order. gaps: columns in which cells may be empty (NaN).
    """
    content = text(path)
    rows = csv_lines(content)
    header = next(rows)
    if header != list(kinds):
        raise Unreadable(f"damaged: its columns are not {', '.join(kinds)}")
    count = sum(1 for _ in rows)  # each is looked at
    if not 0 < count * len(header) <= MOST_CELLS:
        raise Unreadable("damaged: it has no lines" if not count else f"it has more than {MOST_CELLS:,} cells")
    empty = {name: ["", "nan"] for name in header if kinds[name] != TEXT}
    empty |= {name: [""] for name in gaps if kinds.get(name) == TEXT}
    how = {"keep_default_na": False, "na_values": empty, "float_precision": "round_trip", "low_memory": False}
    try:
        found = pd.read_csv(io.StringIO(content), dtype={name: str for name in header if kinds[name] == TEXT}, **how)
    except (ValueError, OverflowError):  # pandas' own errors are ValueErrors
        raise Unreadable("damaged: it is no table") from None
    for name in header:
        if not is_of(found[name], kinds[name]) or (name not in gaps and found[name].isna().any()):
            raise Unreadable(f"damaged: its column {name} holds something else than {MEANING[kinds[name]]}")
    return found


def header(path: Path) -> list[str]:
    """The names of a CSV file's columns, each once; raises `Unreadable`."""
    names = next(csv_lines(text(path)))
    if len(set(names)) < len(names) or not all(re.fullmatch(r"[A-Za-z_][\w.%-]*", name) for name in names):
        raise Unreadable("damaged: its first line does not name columns")
    return names


TEXT, WHOLE, NUMBER, SHARE, BOUND, FLAG = "text", "whole", "number", "share", "bound", "flag"
MEANING = {
    TEXT: "texts", WHOLE: "whole numbers from 0", NUMBER: "numbers", SHARE: "numbers from 0 to 1",
    BOUND: "numbers from 0, or inf", FLAG: "True and False",
}  # fmt: skip
MOST_CELLS = 2**20  # of a table: ten times the largest
MOST = 2.0**53  # whole numbers beyond are not exact


def is_of(column: pd.Series, kind: str) -> bool:
    """Whether all that a column holds is of a kind."""
    known = column.dropna()
    if kind == TEXT:
        return bool(known.map(lambda value: isinstance(value, str) and len(value) <= 1000).all())
    if kind == FLAG:
        return bool(known.isin([True, False]).all()) and known.map(type).eq(bool).all()
    if column.dtype.kind not in "iuf":
        return len(known) == 0
    values = known.to_numpy(float)
    lowest, highest = {WHOLE: (0.0, MOST), NUMBER: (-1e300, 1e300), SHARE: (0.0, 1.0), BOUND: (0.0, math.inf)}[kind]
    inside = bool(((values >= lowest) & (values <= highest)).all())
    return inside and (kind != WHOLE or bool((values == values.round()).all()))


def read_all(
    paths: Iterable[Path], read_one: Callable[[Path], pd.DataFrame], columns: list[str]
) -> tuple[pd.DataFrame, list[tuple[Path, str]]]:
    """The lines of all these files, with the file as `source`, and the files that are damaged, with the reason.

    read_one: gives a file's lines, by `columns`, or raises `Unreadable`.
    """
    found, left_out = [], []
    for path in sorted(paths):
        try:
            source = printable(path.relative_to(layout.RESULTS))
            found.append(read_one(path).assign(source=source))
        except Unreadable as error:
            left_out.append((path, str(error)))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=[*columns, "source"]), left_out
