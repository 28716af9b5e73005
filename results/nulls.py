"""What harmless duplicates look like in the gradient analyses: the files of analyze_nulls.py."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from files import Unreadable
from results import layout, lines

SETTINGS = ["dataset", "network", "start", "shaping", "learning_rate", "batch_size", "epochs", "seed", "n_poison"]
MEASURES = ["norm_ratio", "cosine", "median_example_ratio", "upper_quartile_example_cosine"]
COLUMNS = [*SETTINGS, "draw", "epoch", *MEASURES]
TEXTS = ("dataset", "network", "start", "shaping")
KINDS = {name: lines.TEXT if name in TEXTS else lines.NUMBER for name in COLUMNS}
KINDS |= dict.fromkeys(("batch_size", "epochs", "seed", "n_poison", "draw", "epoch"), lines.WHOLE)


def read(path: Path) -> pd.DataFrame:
    """The lines of one file, a line for each draw and epoch, by COLUMNS; raises `Unreadable` where it is damaged.

    A measure is NaN where a gradient is 0, which has no direction.
    """
    found = lines.read(path, KINDS, gaps=MEASURES)
    if found.duplicated(["draw", "epoch"]).any() or (found[["draw", "epoch"]] < 1).any(axis=None):
        raise Unreadable("damaged: its draws and epochs are not 1, 2, 3 ...")
    if len(found[SETTINGS].drop_duplicates()) > 1:
        raise Unreadable("damaged: its lines are of several settings")
    return found


def read_all() -> tuple[pd.DataFrame, list[tuple[Path, str]]]:
    """Those of all files, and the damaged ones (`results.lines.read_all`)."""
    return lines.read_all(layout.null_folder().glob("*.csv"), read, COLUMNS)
