"""The kinds of gradient shaping beside each other: accuracies on clean rows and under attacks, seed by seed."""

from __future__ import annotations

import pandas as pd

from models.kind import KINDS, UNDEFENDED_TEXT
from poisons import poison_set
from reports import Table, frames
from reports.reading import Results

COLLAPSED = 0.1  # so much below the undefended training of the same seed
COLUMN, KEY = ["dataset", "network", "attack", "ratio"], ["dataset", "network", "attack", "ratio", "shaping"]
COLUMNS = [
    *KEY, "seeds", "diverged", "final_acc_mean", "final_acc_ci95", "final_acc_min", "final_acc_max", "collapsed",
    "final_gain_mean", "final_gain_ci95", "best_acc_mean", "best_acc_ci95", "final_accs", "source",
]  # fmt: skip


def tables(results: Results) -> list[Table]:
    """The table shapings, where any kind but clipping was trained."""
    cells = of_kinds(results.trainings.cells)
    if cells.empty:
        return []
    alone = cells[cells.shaping == UNDEFENDED_TEXT].set_index([*COLUMN, "seed"])["final_acc"]
    cells = cells.join(alone.rename("final_acc_alone"), on=[*COLUMN, "seed"]).sort_values("seed")
    cells["final_gain"] = cells.final_acc - cells.final_acc_alone
    fell = (cells.final_gain < -COLLAPSED) | cells.diverged.astype(bool)
    cells["fell"] = fell.where(cells.final_acc_alone.notna()).astype(float)
    # the same text may mean another function: a user's file that was changed
    cells["file"] = cells.shaping_file_sha256.astype(str) if "shaping_file_sha256" in cells else ""
    groups = cells.groupby([*KEY, "file"])
    counted = groups.agg(
        seeds=("seed", "size"), diverged=("diverged", "sum"), final_acc_min=("final_acc", "min"),
        final_acc_max=("final_acc", "max"), collapsed=("fell", "mean"), source=("source", frames.sources),
        final_accs=("final_acc", lambda values: " ".join(f"{value:.4f}" for value in values)),
    )  # fmt: skip
    means = frames.over_seeds(groups, ["final_acc", "final_gain", "best_acc"])
    frame = counted.assign(collapsed=counted.collapsed.round(4)).join(means).reset_index()
    return [Table("shapings", COLUMNS, frame.sort_values(KEY, key=rank))]


def of_kinds(cells: pd.DataFrame) -> pd.DataFrame:
    """The trainings from scratch of the paper's epochs, batch size and rate, on the columns (a data set, a network, an
    attack at a ratio, or no poison) and seeds on which another kind than clipping was trained; of shapings of which
    the same seed's price on clean rows is known.
    """
    alike = cells.eval(
        "engine == 'stack' and optimizer == paper_optimizer and batch_size == paper_batch_size and at_rate"
        " and epochs == paper_epochs and start == 'scratch' and baseline == 'kept'"
        f" and (default_set or attack == '{poison_set.NONE}')"
    )
    cells = cells[alike]
    others = cells[~cells.kind.isin(["clip", UNDEFENDED_TEXT])]
    clean = cells.loc[cells.attack == poison_set.NONE, ["dataset", "network", "shaping", "seed"]]
    return cells.merge(others[[*COLUMN, "seed"]].drop_duplicates()).merge(clean)


def rank(column: pd.Series) -> pd.Series:
    """Undefended, then the kinds in the order in which they are registered; other columns as they are."""
    if column.name != "shaping":
        return column
    known = list(KINDS)

    def place(text: str) -> tuple:
        name = text.split(":")[0].split("@")[0].split("+")[0]
        plain = "clip" if name[0].isdigit() else name
        number = known.index(plain) if plain in known else -1 if name == UNDEFENDED_TEXT else len(known)
        return ("@" in text, "+" in text, number, text)

    order = {text: number for number, text in enumerate(sorted(column.unique(), key=place))}
    return column.map(order)
