"""What a data set looks like: the files of describe_data.py."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from files import Unreadable
from results import layout, lines

SETTINGS = ["dataset", "network", "model_sha256", "targets", "base_rows", "base_class", "target_class"]
ROWS = [
    "rows", "test_rows", "features", "classes", "density", "class_rows_smallest", "class_rows_median",
    "class_rows_largest",
]  # fmt: skip
MODEL = ["best_acc", "final_acc", "margin_q25", "margin_q50", "margin_q75", "margin_below_0"]
DISTANCES = ["own_class_distance", "other_class_distance", "nearest_of_other_class"]
OF_TARGETS = ["target_base_distance", "target_nearest_base_distance"]  # NaN where the classes are not there
COLUMNS = [*SETTINGS, *ROWS, *MODEL, *DISTANCES, *OF_TARGETS]
TEXTS, WHOLE = SETTINGS[:3], [*SETTINGS[3:], *ROWS[:4], "class_rows_smallest", "class_rows_largest"]
KINDS = {
    name: lines.TEXT if name in TEXTS else lines.WHOLE if name in WHOLE else lines.NUMBER for name in COLUMNS
} | dict.fromkeys(("density", *MODEL[:2]), lines.SHARE)


def read(path: Path) -> pd.DataFrame:
    """The one line of a file, by COLUMNS; raises `Unreadable` where it is damaged, or not where it says it is from."""
    found = lines.read(path, KINDS, gaps=OF_TARGETS)
    if len(found) != 1:
        raise Unreadable("damaged: it does not have one line")
    if layout.described_file(*found.loc[0, ["dataset", "network"]]) != path:
        raise Unreadable("misplaced: it is of another data set or network, of which it may be a copy")
    return found


def read_all() -> tuple[pd.DataFrame, list[tuple[Path, str]]]:
    """Those of all files, and the damaged ones (`results.lines.read_all`)."""
    return lines.read_all(layout.described_folder().glob("*.csv"), read, COLUMNS)
