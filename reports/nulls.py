"""Gradient analyses beside their nulls: what is found of poisons, and of as many harmless duplicates of clean rows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reports import Table, frames, with_columns
from results import layout

# Over the epochs as the table of the gradients has it; a claim is on one side of the null: 1 above, -1 below
MEASURES = {
    "norm_ratio": ("mean", 1), "cosine": ("mean", -1), "median_example_ratio": ("median", 1),
    "upper_quartile_example_cosine": ("mean", -1),
}  # fmt: skip
KEY = ["dataset", "network", "start", "shaping", "n_poison"]
PLACE = ["analysis", "set", "dataset", "setting", "network", "shaping"]
COLUMNS = [
    *PLACE, "n_poison", "measure", "epochs", "measured", "draws", "null_low", "null_median", "null_high", "beyond",
    "false_passes", "published", "source",
]  # fmt: skip
SHARE = 0.95


def table(frame: pd.DataFrame, lines: pd.DataFrame, draws: pd.DataFrame) -> Table:
    """A row for each planned analysis and measure.

    frame: of the gradients (`reports.gradients`); lines: of the analyses, by `cell`; draws: `results.nulls.read_all`.
    beyond: on the claim's side of the null's 95% range; false_passes: how many of its draws are beyond the range of the
    others. Where the null was run for fewer epochs, as many of the analysis are compared.
    """
    found = [
        described(row, name, lines, of_key)
        for row in frame[(frame.planned == True) & frame.cell.notna()].itertuples()  # noqa: E712
        for of_key in [draws[matches(draws, row)]]
        for name in MEASURES
    ]
    planned = frame[(frame.planned == True) & frame.cell.isna()][PLACE].assign(incomparable=False)  # noqa: E712
    rows = pd.concat([pd.DataFrame(found), planned.merge(pd.DataFrame({"measure": list(MEASURES)}), how="cross")])
    rows = with_columns(rows.assign(planned=True), ["cell", "incomparable"]).astype({"incomparable": bool})
    order = sorted(range(len(rows)), key=lambda at: [layout.natural_order(str(part)) for part in rows.iloc[at][PLACE]])
    return Table("nulls", COLUMNS, rows.iloc[order])


def matches(draws: pd.DataFrame, row) -> pd.Series:
    """Which lines are of the null of an analysis."""
    wanted = (row.dataset, row.network, row.start, row.shaping, row.n_poison)
    return np.logical_and.reduce([draws[name] == value for name, value in zip(KEY, wanted)])


def described(row, name: str, lines: pd.DataFrame, draws: pd.DataFrame) -> dict:
    """One analysis, one measure."""
    summary, side = MEASURES[name]
    own = by_epoch(lines.loc[[row.cell]])[name]
    place = {column: getattr(row, column) for column in [*PLACE, "n_poison", "incomparable", "cell"]}
    known = {"norm_ratio": row.published_mean_norm_ratio, "cosine": row.published_mean_cosine}.get(name)
    place |= {"measure": name, "published": known, "source": row.source}
    epochs = min(len(own), draws.epoch.max()) if len(draws) else len(own)
    measured = getattr(own.iloc[:epochs].dropna(), summary)()
    if draws.empty or np.isnan(measured):
        return {**place, "epochs": epochs, "measured": measured}
    values = draws[draws.epoch <= epochs].groupby("draw")[name].agg(summary).dropna()
    low, high = band(values)
    others = (values.drop(draw) for draw in values.index)
    passes = [side * value > side * band(rest)[side > 0] for value, rest in zip(values, others)]
    return {
        **place, "epochs": epochs, "measured": round4(measured), "draws": len(values), "null_low": round4(low),
        "null_median": round4(values.median()), "null_high": round4(high),
        "beyond": bool(side * measured > side * (low, high)[side > 0]), "false_passes": float(np.mean(passes)),
        "source": frames.sources(pd.Series([row.source, *draws.source.unique()])),
    }  # fmt: skip


def bands(draws: pd.DataFrame, name: str) -> pd.DataFrame:
    """The null's range of a measure in each epoch: columns low and high, indexed by the epoch."""
    return draws.groupby("epoch")[name].apply(lambda values: pd.Series(band(values), ["low", "high"])).unstack()


def by_epoch(lines: pd.DataFrame) -> pd.DataFrame:
    """The measures of an analysis' epochs."""
    return pd.DataFrame(
        {
            "norm_ratio": lines.poison_norm / lines.clean_norm,
            "cosine": lines.cosine,
            "median_example_ratio": lines.poison_norm_q50 / lines.clean_norm_q50,
            "upper_quartile_example_cosine": lines.poison_cosine_q75,
        }
    )


def band(values: pd.Series) -> tuple[float, float]:
    """The range that the next draw lies in with 95% probability, or nearly: with fewer than 39, that of all draws."""
    outside = (1 - SHARE) / 2
    low, high = np.quantile(values, [outside, 1 - outside], method="weibull")
    return float(low), float(high)


def round4(value: float) -> float:
    """To four significant digits."""
    return float(f"{value:.4g}")
