"""Certificates beside attacks: what is proven of every setting, and what attacks reach on the same trainings."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reports import Table, frames
from reports.reading import Results
from results import certificates

SETTINGS = [name for name in certificates.SETTINGS if name != "seed"]
PLACE = ["dataset", "certificate"]  # settings are compared within these
ATTACKED = [
    *[name for name in SETTINGS if name not in ("parts", "spread", "noise_multiplier", "rate", "models", "averaged")],
    "poisons", "seeds", "clean_acc", "certified_acc", "attacked_acc", "worst_attack", "proven", "moved_over_bound",
    "furthest_attack", "broken", "source",
]  # fmt: skip


def tables(results: Results) -> list[Table]:
    """The tables certificates and certificates_attacked; none without such results."""
    found = []
    if len(results.certified):
        frame = frontier(results.certified)
        counts = [name for name in frame if name.startswith("certified_at_")]
        columns = [*SETTINGS, "seed", "clean_acc", "held_out_acc", *counts, "best_at", "source"]
        found.append(Table("certificates", columns, frame))
    if len(results.held_against):
        found.append(Table("certificates_attacked", ATTACKED, attacked(results.held_against)))
    return found


def frontier(lines: pd.DataFrame) -> pd.DataFrame:
    """A row for each setting: certified accuracy by the number of substituted rows, and `best_at`.

    best_at: the numbers at which it is the best setting of its certificate by the certified accuracy on held-out rows,
    among settings of equal ones the most accurate on them; test rows have no say in it.
    """
    keys = [*SETTINGS, "seed"]
    order = [*PLACE, "poisons", "held_out_certified_acc", "held_out_acc"]
    known = lines.dropna(subset="held_out_acc").sort_values(order, kind="stable")
    best = known.drop_duplicates([*PLACE, "poisons"], keep="last")
    best = best[best.held_out_certified_acc > 0]
    told = best.groupby(keys, dropna=False).poisons.agg(lambda counts: " ".join(f"{count:g}" for count in counts))
    number = lines.groupby(keys, dropna=False).ngroup()
    wide = lines.assign(number=number).pivot(index="number", columns="poisons", values="certified_acc")
    wide.columns = [f"certified_at_{count:g}" for count in wide.columns]
    rows = lines.drop_duplicates(keys).set_index(number[~lines.duplicated(keys)]).join(wide)
    return rows.merge(told.rename("best_at").reset_index(), how="left", on=keys).sort_values(keys)


def attacked(lines: pd.DataFrame) -> pd.DataFrame:
    """A row for each training and number of substituted rows, over its seeds and attacks: the mean certified accuracy,
    the worst that an attack reached (attacked_acc, of one seed), and how far one moved the model, over the bound.

    proven: the certified share of the accuracy that attacks leave, the mean over seeds; broken: certain predictions
    that an attack changed.
    """
    place = [name for name in ATTACKED[: ATTACKED.index("seeds")] if name != "source"]
    lines = lines.assign(moved_over_bound=lines.moved / lines.bound)
    groups = lines.groupby(place, dropna=False)
    frame = groups.agg(
        seeds=("seed", "nunique"), clean_acc=("clean_acc", "mean"), certified_acc=("certified_acc", "mean"),
        attacked_acc=("acc", "min"), moved_over_bound=("moved_over_bound", "max"), broken=("broken", "sum"),
        source=("source", frames.sources),
    )  # fmt: skip
    frame["worst_attack"] = lines.loc[groups.acc.idxmin(), "attack"].to_numpy()
    frame["furthest_attack"] = lines.loc[groups.moved_over_bound.idxmax(), "attack"].to_numpy()
    by_seed = lines.groupby([*place, "seed"], dropna=False).agg(
        certified=("certified_acc", "first"), worst=("acc", "min")
    )
    shares = (by_seed.certified / by_seed.worst).groupby(place, dropna=False).mean()
    frame["proven"] = shares.reindex(frame.index).to_numpy()
    return frame.reset_index()


def best_of_each(table: pd.DataFrame) -> pd.DataFrame:
    """The certified accuracies of the best settings (`best_at`), a column for each kind of vote or training, by the
    number of substituted rows, int.
    """
    found = {}
    for row in table.dropna(subset="best_at").itertuples():
        kind = row.certificate + f", spread {row.spread:g}" * (row.certificate == "partition" and row.spread > 1)
        for count in row.best_at.split():
            found.setdefault(kind, {})[int(count)] = getattr(row, f"certified_at_{count}")
    return pd.DataFrame(found).sort_index().astype(float).replace({0.0: np.nan})
