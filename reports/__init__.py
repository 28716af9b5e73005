"""What report.py makes its tables, figures and page of: a module a part of the paper. The page's words: page.html."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from files import writing
from results import layout

# What a row says of itself: reached within tolerance of the published number or not; published, but not comparable;
# not published; not run, or not all of it; its weights became NaN
WITHIN, OUTSIDE, SHOWN_ONLY, UNPUBLISHED, NOT_RUN, UNFINISHED, DIVERGED = VERDICTS = (
    "within", "outside", "shown only", "unpublished", "not run", "unfinished", "diverged",
)  # fmt: skip
COUNTS = {  # columns of whole numbers
    "n_poison", "batch_size", "epochs", "baseline_reached_at_epoch", "best_epoch", "published_epoch", "seeds",
    "diverged", "targets", "base_class", "target_class", "successes", "without_poison", "published_successes",
    "poisons", "broken", "parts", "spread", "models", "programs_solved", "programs_failed",
}  # fmt: skip


@dataclass
class Table:
    """A table of the report: results/tables/<name>.csv, and a part of the page. columns: those of `frame` shown."""

    name: str
    columns: list[str]
    frame: pd.DataFrame

    def __post_init__(self) -> None:
        whole = dict.fromkeys(COUNTS.intersection(self.columns), "Int64")
        self.frame = with_columns(self.frame, self.columns).astype(whole).reset_index(drop=True)

    @property
    def counts(self) -> dict[str, int]:
        """How many rows have each verdict; empty where rows are not compared."""
        if "verdict" not in self.columns or not self.frame.verdict.isin(VERDICTS).any():
            return {}
        return self.frame.verdict.value_counts().reindex(VERDICTS, fill_value=0).to_dict()

    @property
    def summary(self) -> str:
        """The counts in words; empty where rows are not compared."""
        counts = self.counts
        if not counts:
            return ""
        texts = [f"{counts[WITHIN]} of {counts[WITHIN] + counts[OUTSIDE]} published rows within tolerance"]
        return ", ".join(texts + [f"{counts[verdict]} {verdict}" for verdict in VERDICTS[2:] if counts[verdict]])

    @property
    def lines(self) -> list[dict]:
        """The rows as they are shown, what is missing as an empty text."""
        shown = self.frame[self.columns].astype(object)
        return shown.where(shown.notna(), "").to_dict("records")

    def find(self, **wanted) -> pd.DataFrame:
        """The rows that were run and have these values."""
        found = [self.frame[name] == value for name, value in wanted.items()]
        return self.frame[np.logical_and.reduce([self.frame.source.notna(), *found])]

    def write(self) -> None:
        """Write results/tables/<name>.csv; what a row does not have stays empty."""
        with writing(layout.tables() / f"{self.name}.csv") as stream:
            guarded(self.frame[self.columns]).to_csv(stream, index=False, lineterminator="\n")


def guarded(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose texts no spreadsheet takes for a formula: one that begins like a formula, and not with a number
    that words follow, has ' in front.
    """

    def plain(value):
        is_formula = isinstance(value, str) and value[:1] in FORMULA and not NUMBERS.fullmatch(value)
        return f"'{value}" if is_formula else value

    texts = frame.select_dtypes(object)
    return frame.assign(**{name: texts[name].map(plain) for name in texts})


FORMULA = ("=", "+", "-", "@", "\t", "\r")
NUMBERS = re.compile(r"[+-]?[\d.]+(e[+-]?\d+)?([\w .,;()]|-(?=\d))*", re.ASCII)  # -0.5 to 0.5, and what stands behind


def with_columns(frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """A frame that has all these columns, NaN where it had none."""
    return frame.reindex(columns=list(dict.fromkeys([*frame, *names])))


def verdicts(frame: pd.DataFrame, value: str, known: str, near, shown_only=False, unfinished=False) -> np.ndarray:
    """The verdict on each row; value, known: columns of what was reached and published; near: whether they are."""
    conditions = {
        NOT_RUN: frame.source.isna(), UNFINISHED: unfinished, DIVERGED: frame[value].isna(),
        UNPUBLISHED: frame[known].isna(), SHOWN_ONLY: shown_only, WITHIN: near,
    }  # fmt: skip
    return np.select([np.broadcast_to(holds, len(frame)) for holds in conditions.values()], list(conditions), OUTSIDE)
