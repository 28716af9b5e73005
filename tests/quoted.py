"""How tables of results are read, and how their numbers are written in documents (see test_quotes.py)."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from decimal import ROUND_HALF_UP, Decimal

import pandas as pd
from conftest import REPOSITORY

SUBTASK = "fashion_mnist_3_4.1.0"
TABLES = defaultdict(list)  # document -> functions that make its tables


def of(document: str):
    """Says in which document the table stands that a function makes, its header first."""
    return lambda make: TABLES[document].append(make) or make


@functools.cache
def read(name: str) -> pd.DataFrame:
    """A table of results/tables by its name, or any CSV file by its path.

    Mean gradients get their columns' names, and quantiles over single gradients the settings of their runs.
    """
    path = REPOSITORY / (name if name.endswith(".csv") else f"results/tables/{name}.csv")
    if path.name == "mextracts_epoch.csv":
        means = pd.read_csv(path, names=["clean_norm", "poison_norm"])
        return means.assign(epoch=means.index + 1)
    table = pd.read_csv(path, dtype={"shaping": str, "setting": str}, low_memory=False)
    if path.name == "examples.csv":
        runs = pd.read_csv(path.with_name("runs.csv"), dtype={"shaping": str})
        runs = runs.rename(columns={"poison.alpha": "alpha", "poison.patch": "patch"})
        return table.merge(runs[runs.columns.intersection(["run", "path", "network", "shaping", "alpha", "patch"])])
    return table


def row(table: pd.DataFrame, **values) -> pd.Series:
    """The one row of a table that has these values."""
    rows = table
    for column, value in values.items():
        rows = rows[rows[column].isna() if value is None else rows[column] == value]
    assert len(rows) == 1, f"{len(rows)} rows with {values}"
    return rows.iloc[0]


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def written(number: float, form: str) -> str:
    """A number as a document has it, halves rounded away from 0 as readers of a table do; None is what is untrue."""
    if number is None:
        return "untrue"
    fixed = re.fullmatch(r"[+]?,?[.](\d+)f", form)
    if fixed:
        number = Decimal(repr(round(float(number), 9))).quantize(Decimal(1).scaleb(-int(fixed[1])), ROUND_HALF_UP)
    return re.sub(r"^-(?=[0.]+$)|(?<=e-)0", "", f"{number:{form}}")


def beside(reached: float, published: float, form: str) -> str:
    """What was reached, and in brackets what was published, if it was."""
    return written(reached, form) + ("" if pd.isna(published) else f" ({written(published, form)})")


def interval(middle: float, low: float, high: float, form: str) -> str:
    return f"{written(middle, form)} ({written(low, form)} to {written(high, form)})"
