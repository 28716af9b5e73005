"""What report.py makes its tables, figures and page of: a module a part of the paper, and what they share."""

from __future__ import annotations

import collections
import csv
from dataclasses import dataclass, field

from files import write_csv
from results import layout

# What a row says of itself: reached within tolerance of the published number or not; published, but not comparable; not published; not run, or not all of it;
# its weights became NaN
WITHIN, OUTSIDE, SHOWN_ONLY, UNPUBLISHED, NOT_RUN, UNFINISHED, DIVERGED = VERDICTS = (
    "within", "outside", "shown only", "unpublished", "not run", "unfinished", "diverged",
)  # fmt: skip


@dataclass
class Table:
    """A table of the report: results/tables/<name>.csv, and a part of the page. rule: when a row counts as within tolerance, if rows are compared."""

    name: str
    title: str
    columns: tuple
    lines: list[dict] = field(default_factory=list)
    rule: str = ""

    @property
    def counts(self) -> collections.Counter:
        """How many rows have each verdict."""
        return collections.Counter(line["verdict"] for line in self.lines if "verdict" in line)

    @property
    def summary(self) -> str:
        """The counts in words; empty where rows are not compared."""
        counts = self.counts
        if not counts:
            return ""
        texts = [f"{counts[WITHIN]} of {counts[WITHIN] + counts[OUTSIDE]} published rows within tolerance"]
        return ", ".join(texts + [f"{counts[verdict]} {verdict}" for verdict in VERDICTS[2:] if counts[verdict]])

    def write(self) -> None:
        """Write results/tables/<name>.csv; what a line does not have stays empty."""
        write_csv(
            layout.tables() / f"{self.name}.csv", self.columns, ([line.get(column, "") for column in self.columns] for line in self.lines)
        )


def published(name: str) -> list[dict]:
    """The lines of a table of published numbers."""
    with open(layout.PUBLISHED / f"{name}.csv", newline="") as stream:
        return list(csv.DictReader(stream))
