"""Results that are plain CSV files in a folder of their own: reading one, and all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from files import Unreadable
from results import layout


def read(path: Path) -> pd.DataFrame:
    """The lines of a CSV file, shapings as text; raises `Unreadable` where it is no table."""
    try:
        return pd.read_csv(path, dtype={"shaping": str}, float_precision="round_trip")
    except (ValueError, UnicodeError):  # pandas' own errors are ValueErrors
        raise Unreadable("damaged: it is no table") from None


def read_all(
    paths: Iterable[Path], read_one: Callable[[Path], pd.DataFrame], columns: list[str]
) -> tuple[pd.DataFrame, list[tuple[Path, str]]]:
    """The lines of all these files, with the file as `source`, and the files that are damaged, with the reason.

    read_one: gives a file's lines, by `columns`, or raises `Unreadable`.
    """
    found, left_out = [], []
    for path in sorted(paths):
        try:
            found.append(read_one(path).assign(source=str(path.relative_to(layout.RESULTS))))
        except Unreadable as error:
            left_out.append((path, str(error)))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=[*columns, "source"]), left_out
