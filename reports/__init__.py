"""What report.py makes its tables and figures of: a module a part of the paper, and what they share."""

from __future__ import annotations

import csv

from files import write_csv
from results import layout


def published(name: str) -> list[dict]:
    """The lines of a table of published numbers."""
    with open(layout.PUBLISHED / f"{name}.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def write_table(name: str, header: tuple, lines: list[dict]) -> None:
    """Write results/tables/<name>.csv; what a line does not have stays empty."""
    write_csv(layout.tables() / f"{name}.csv", header, ([line.get(column, "") for column in header] for line in lines))
