"""What harmless duplicates look like in the gradient analyses: the files of analyze_nulls.py."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from files import Unreadable
from results import layout, lines

SETTINGS = ["dataset", "network", "start", "shaping", "learning_rate", "batch_size", "epochs", "seed", "n_poison"]
MEASURES = ["norm_ratio", "cosine", "median_example_ratio", "upper_quartile_example_cosine"]
COLUMNS = [*SETTINGS, "draw", "epoch", *MEASURES]


def read(path: Path) -> pd.DataFrame:
    """The lines of one file, a line for each draw and epoch, by COLUMNS; raises `Unreadable` where it is damaged.

    A measure is NaN where a gradient is 0, which has no direction.
    """
    found = lines.read(path)
    if list(found) != COLUMNS or found.empty or found.drop(columns=MEASURES).isna().any(axis=None):
        raise Unreadable("damaged: it does not have all columns and lines")
    return found


def read_all() -> tuple[pd.DataFrame, list[tuple[Path, str]]]:
    """Those of all files, and the damaged ones (`results.lines.read_all`)."""
    return lines.read_all(layout.null_folder().glob("*.csv"), read, COLUMNS)
