"""By how much a check misses what it asks for: its own expression, taken apart and evaluated on its rows."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

SIGNS = {">": ("above", 1), ">=": ("at least", 1), "<": ("below", -1), "<=": ("at most", -1)}
NAMES = {  # what columns of checks.csv are called in a sentence
    "measured": "the measured value", "null_high": "the upper end of the harmless duplicates' range",
    "null_low": "the lower end of the harmless duplicates' range",
    "alone": "that of undefended training", "chance_gain": "what seeds bring by chance",
    "best_acc": "best accuracy", "final_acc_mean": "mean final accuracy", "baseline_acc": "the clean baseline",
    "final_gain_mean": "mean gain in final accuracy", "final_gain_ci95": "half its 95% interval",
    "best_gain_mean": "mean gain in best accuracy", "best_gain_ci95": "half its 95% interval",
    "ratio_low": "the lower end of the ratio's 95% interval",
    "difference_high": "the upper end of the difference's 95% interval",
    "share": "the share of targets hit", "share_alone": "that of undefended training",
    "share_high": "the upper end of the share's 95% interval",
    "share_low_alone": "the lower end of that of undefended training",
    "median_low": "the lower end of the 95% interval of the poisons needed",
    "median_high_alone": "the upper end of that of undefended training",
}  # fmt: skip


@dataclass(frozen=True)
class Miss:
    """The row of a check that is farthest from what it asks for, and how many of its rows fail.

    row: what the row is called, empty where there is one only; what, bound: names of the two sides of the comparison
    that it fails, value, asked: their numbers; sign: a word of SIGNS; source: the files of the row.
    """

    failed: int
    rows: int
    row: str
    what: str
    value: float
    sign: str
    bound: str
    asked: float
    source: str

    @property
    def text(self) -> str:
        """As the end of a sentence, with the difference."""
        named = "" if re.fullmatch(r"[\d.]+", self.bound) else f"{self.bound}, "
        told = f"{self.what} is {self.value:.4g}, and must be {self.sign} {named}{self.asked:.4g}"
        return f"{told}: off by {abs(self.value - self.asked):.2g}"


def worst(passes: str, rows: pd.DataFrame) -> Miss | None:
    """The worst miss among the rows of a check; None where all pass.

    passes: comparisons joined by `and`, as in checks.csv; rows: with their files, and `called` where there are several.
    Where rows fail since a number is not there, those that have theirs are told of.
    """
    found = []
    for comparison in passes.split(" and "):
        left, sign, right = re.split(r" (>=|<=|>|<) ", comparison)
        word, side = SIGNS[sign]
        values, asked = (pd.Series(rows.eval(part), rows.index, dtype=float) for part in (left, right))
        fails = ~rows.eval(comparison)
        for row in rows.index[fails]:
            by = side * (asked[row] - values[row])
            found.append((by, row, (named(left), values[row], word, named(right), asked[row])))
    if not found:
        return None
    _, row, told = max(found, key=lambda one: one[0] if one[0] == one[0] else -1.0)
    source = rows.loc[row, [name for name in ("source", "source_alone") if name in rows]]
    failed = len({one[1] for one in found})
    return Miss(failed, len(rows), str(rows.called[row]) if len(rows) > 1 else "", *told, "; ".join(source))


def named(expression: str) -> str:
    """One side of a comparison in words."""
    words = re.sub(r"[a-z]\w*", lambda name: NAMES.get(name[0], name[0].replace("_", " ")), expression)
    return words.replace(" * ", " x ").replace(" - ", " less ").replace(" + ", " plus ")
