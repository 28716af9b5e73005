"""The data sets side by side: rows, classes, margins of the clean model, and distances, by which a dose is measured."""

from __future__ import annotations

from reports import Table
from reports.reading import Results
from results import described

COLUMNS = [name for name in described.COLUMNS if name != "model_sha256"] + ["source"]


def tables(results: Results) -> list[Table]:
    """The table datasets, a row for each data set and network that describe_data.py was run for; none without one."""
    frame = results.data.sort_values(["dataset", "network"])
    return [Table("datasets", COLUMNS, frame)] if len(frame) else []
