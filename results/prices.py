"""The prices of bad models that price.py finds: results/matrix/price.csv."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from files import Unreadable
from results import lines

KINDS = {
    **dict.fromkeys(("dataset", "network", "shaping"), lines.TEXT), "price": lines.NUMBER, "model": lines.TEXT,
    "model_test_acc": lines.SHARE, "models": lines.NUMBER,
}  # fmt: skip
COLUMNS = list(KINDS)


def read(path: Path) -> pd.DataFrame:
    """The lines of a price.csv, none where there is none; raises `Unreadable`. A shaping without a price has gaps."""
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    found = lines.read(path, KINDS, gaps=COLUMNS[3:])
    if found.duplicated(COLUMNS[:3]).any():
        raise Unreadable("damaged: it has two prices of one shaping")
    return found
