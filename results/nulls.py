"""What harmless duplicates look like in the gradient analyses: the files of analyze_nulls.py."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from files import Unreadable
from results import layout

SETTINGS = ["dataset", "network", "start", "shaping", "learning_rate", "batch_size", "epochs", "seed", "n_poison"]
MEASURES = ["norm_ratio", "cosine", "median_example_ratio", "upper_quartile_example_cosine"]
COLUMNS = [*SETTINGS, "draw", "epoch", *MEASURES]


def read(path: Path) -> pd.DataFrame:
    """The lines of one file, a line for each draw and epoch, by COLUMNS; raises `Unreadable` where it is damaged.

    A measure is NaN where a gradient is 0, which has no direction.
    """
    try:
        found = pd.read_csv(path, dtype={"shaping": str}, float_precision="round_trip")
    except (ValueError, UnicodeError):  # pandas' own errors are ValueErrors
        raise Unreadable("damaged: it is no table") from None
    if list(found) != COLUMNS or found.empty or found.drop(columns=MEASURES).isna().any(axis=None):
        raise Unreadable("damaged: it does not have all columns and lines")
    return found


def read_all() -> tuple[pd.DataFrame, list[tuple[Path, str]]]:
    """The lines of all files, with the file as `source`, and the files that are damaged, with the reason."""
    found, left_out = [], []
    for path in sorted(layout.null_folder().glob("*.csv")):
        try:
            found.append(read(path).assign(source=str(path.relative_to(layout.RESULTS))))
        except Unreadable as error:
            left_out.append((path, str(error)))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=[*COLUMNS, "source"]), left_out
