"""Targeted attacks with several poisons within a radius: those that are crafted one by one (feature collision) beside
those that are crafted together, against the attacked model or against the undefended one.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from models.kind import UNDEFENDED_TEXT
from poisons import shafahi
from reports import Table, doses, frames
from reports.frames import SHAPING
from reports.reading import Part, Results
from reports.targeted import with_needed
from results import layout

PLACE = ["dataset", "network", "attack", "radius", "within", *SHAPING, "learning_rate", "crafted_against"]
COLUMNS = [
    *PLACE, "poisons", "targets", "successes", "share", "share_low", "share_high", "median_poisons", "median_epoch",
    "source",
]  # fmt: skip
ENDS = ["median_low", "median_high"]  # of the median's 95% interval: for checks, not shown


def tables(results: Results) -> list[Table]:
    """The table together; none without such attacks."""
    cells = results.trials.cells
    cells = cells[doses.is_together(cells) & (cells.epochs == layout.RETRAIN_EPOCHS)]
    return [Table("together", COLUMNS, together(cells, results.trials.lines.loc[cells.index]))] if len(cells) else []


def together(cells: pd.DataFrame, lines: pd.DataFrame) -> pd.DataFrame:
    """A row for each attack, shaping, rate and epochs: targets that fall to the first k poisons for any k, with a
    Wilson interval, the fewest that it took in the median (targets that none hit take more than all others), and the
    epochs that the hits took.
    """
    parts = [with_needed(Part(cells, lines[lines.epoch <= within])).assign(within=within) for within in doses.WITHIN]
    cells = pd.concat(parts).assign(radius=doses.radius_of)
    transferred = cells.budget.str.endswith(shafahi.TRANSFERRED)
    cells["crafted_against"] = cells.shaping.mask(transferred, UNDEFENDED_TEXT)
    ends = {name: ("needed", partial(median_end, end=end)) for end, name in enumerate(ENDS)}
    frame = cells.groupby(PLACE, dropna=False).agg(
        poisons=("poisons", "max"), targets=("target", "size"), successes=("needed", "count"),
        median_poisons=("needed", lambda needed: needed.fillna(np.inf).median()),
        median_epoch=("needed_epoch", "median"), source=("source", frames.sources), **ends,
    ).reset_index()  # fmt: skip
    frames.add_share(frame, "share", "successes", "targets")
    return frame.sort_values(PLACE, key=frames.by_kind)


def median_end(needed: pd.Series, end: int) -> float:
    """The lower or upper end (0, 1) of the 95% interval of a median, by the order statistics; NaN for targets that none
    hit, of which it takes that they need more than all others.
    """
    values, count = np.sort(needed.fillna(np.inf)), len(needed)
    place = max(int(stats.binom.ppf(0.025, count, 0.5)) - 1, 0)  # so many lie below the interval, and as many above
    return values[place if end == 0 else count - 1 - place]
