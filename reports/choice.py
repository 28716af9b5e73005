"""Which parameters of each kind of gradient shaping are chosen, by a rule that sees no poison and no test row.

Of a kind the strongest value is chosen whose accuracy on held-out clean rows, after the last epoch of trainings on
clean rows alone and in the mean over the seeds, is within one point of the undefended one; without such a value, the
one of the largest accuracy. The held-out rows are those that no shaping may trust.
"""

from __future__ import annotations

import pandas as pd

from models.kind import UNDEFENDED_TEXT
from models.shaping import shaping
from poisons import poison_set
from reports.reading import Results

WITHIN = 0.01
PLACE = ["dataset", "network", "epochs"]
MEASURES = ["held_out_acc", "held_out_acc_one_half", "held_out_acc_other_half"]
NOISE = "with noise"  # is a kind of its own: how much of it is another question than how strong a clip is


def kind_of(text: str) -> str:
    """The kind that a value is one of: clip, phuber+clip, clip with noise."""
    value = shaping(text)
    if text == UNDEFENDED_TEXT:
        return text
    return f"{value.kind} {NOISE}" if any(phase.noise_std for phase in value.phases) else value.kind


def strength_of(text: str) -> tuple[float, ...]:
    """What values of one kind sort by, the strongest last."""
    value = shaping(text)
    return (*value.strength, value.noise_multiplier)


def measured(results: Results) -> pd.DataFrame:
    """The accuracies on held-out rows, a line for each data set, network, epochs and shaping: MEASURES, the mean over
    the seeds, and seeds.
    """
    cells, lines = results.trainings.cells, results.trainings.lines
    if "held_out_acc" not in lines:
        return pd.DataFrame(columns=[*PLACE, "shaping", *MEASURES, "seeds"])
    last = lines[~lines.index.duplicated(keep="last")][MEASURES].apply(pd.to_numeric, errors="coerce")
    papers = cells.eval("engine == 'stack' and at_rate and batch_size == paper_batch_size and start == 'scratch'")
    cells = cells[papers & (cells.attack == poison_set.NONE)].join(last)
    groups = cells.groupby([*PLACE, "shaping"], as_index=False)
    return groups.agg(**{name: (name, "mean") for name in MEASURES}, seeds=("seed", "nunique"))


def chosen(frame: pd.DataFrame, measure: str = MEASURES[0]) -> pd.DataFrame:
    """The chosen lines of `measured`, one for each data set, network, epochs and kind, with the column kind."""
    frame = frame.dropna(subset=[measure])
    frame = frame.assign(kind=frame.shaping.map(kind_of), strength=frame.shaping.map(strength_of))
    alone = frame[frame.shaping == UNDEFENDED_TEXT].set_index(PLACE)[measure].rename("alone")
    frame = frame.join(alone, on=PLACE)
    frame["near"] = frame[measure] >= frame.alone - WITHIN
    frame["rank"] = frame.strength.rank(method="dense") if len(frame) else None
    best = frame.sort_values(["near", "rank"]).where(frame.near).dropna(subset=["kind"])
    best = best.drop_duplicates([*PLACE, "kind"], keep="last")
    left = frame.merge(best[[*PLACE, "kind"]], how="left", indicator=True)
    left = (
        left[left._merge == "left_only"].sort_values([measure, "rank"]).drop_duplicates([*PLACE, "kind"], keep="last")
    )
    return pd.concat([best, left])[[*PLACE, "kind", "shaping", measure]].astype({"epochs": int})
