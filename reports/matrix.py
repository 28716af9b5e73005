"""The matrix: every gradient shaping against every attack, those that do not know it and those that do.

A column is an attack and its ratio (the alpha of watermarks, the patch of backdoors, the radius of clean labels, of
which each target counts as a seed). Poisons that were crafted against a shaping (`crafted_against`) are adaptive: of an
attack and ratio a row counts the set, crafted against itself or another, that transfer.py found to be the strongest
against it by other seeds; where several were measured, the one that leaves least. The worst adaptive of a ratio is the
attack that leaves least, chosen by the means that are shown: as little too low for every row.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from files import Unreadable
from models.kind import UNDEFENDED_TEXT
from poisons import poison_set
from reports import Table, choice, frames, matrix_runs
from reports.matrix_runs import PLACE
from reports.reading import Results, place
from results import crafted, layout
from results import prices as price_table

COLLAPSED = 0.1  # so much below the undefended training of the same seed
WORST = "worst adaptive"
ROW, CELL = [*PLACE, "shaping"], [*PLACE, "shaping", "column"]
COLUMNS = [
    *PLACE, "shaping", "kind", "chosen", "column", "attack", "ratio", "adaptive", "crafted_against", "measure", "seeds",
    "diverged", "collapsed", "final_mean", "final_ci95", "best_mean", "best_ci95", "gain_mean", "gain_ci95", "seconds",
    "finals", "gains", "seed_numbers", "why", "command", "source",
]  # fmt: skip
ROW_COLUMNS = [
    *PLACE, "shaping", "kind", "chosen", "held_out_mean", "chosen_by_halves", "clean_price_mean", "clean_price_ci95",
    "oblivious_gain_mean", "oblivious_gain_ci95", "oblivious_gain_worst", "oblivious_worst_column",
    "adaptive_gain_worst", "adaptive_worst_column", "attack_note", "price", "rank",
]  # fmt: skip


def tables(results: Results) -> list[Table]:
    """The tables matrix, a line a cell, and matrix_rows, a line a shaping; none where no kinds were compared."""
    price = prices(results)  # damaged, it is named even where nothing is compared
    runs = [found for found in (matrix_runs.of_sweeps(results), matrix_runs.of_targets(results)) if len(found)]
    if not runs:
        return []
    measured = choice.measured(results)
    picked = choice.chosen(measured)
    cells = cells_of(pd.concat(runs, ignore_index=True))
    cells = pd.concat([cells, worst_of(cells)], ignore_index=True)
    cells["kind"], cells["chosen"] = cells.shaping.map(choice.kind_of), chosen_of(cells, picked)
    rows = rows_of(cells, measured, price)
    order = {
        name: number
        for number, name in enumerate(dict.fromkeys(cells.sort_values(["adaptive", "attack", "ratio"]).column))
    }
    cells = cells.assign(place=cells.column.map(order))
    cells = cells.sort_values([*PLACE, "shaping", "place"], key=frames.by_kind)
    rows = rows.sort_values(ROW, key=frames.by_kind)
    return [Table("matrix", COLUMNS, cells), Table("matrix_rows", ROW_COLUMNS, rows)]


def chosen_of(cells: pd.DataFrame, picked: pd.DataFrame) -> np.ndarray:
    """Whether each cell's shaping is a chosen one; where nothing could be chosen at a place, those of the subtask count
    (`choose_shapings.py`).
    """
    places = set(zip(picked.dataset, picked.network, picked.epochs))
    usual = picked[(picked.dataset == layout.SUBTASK) & (picked.network == "lr")]
    usual = set(usual[usual.epochs == usual.epochs.max()].shaping)
    own = set(zip(picked.dataset, picked.network, picked.epochs, picked.shaping))
    keys = list(zip(cells.dataset, cells.network, cells.epochs, cells.shaping))
    return np.array([key in own if key[:3] in places else key[3] in usual for key in keys], bool)


# --- cells ---


def cells_of(runs: pd.DataFrame) -> pd.DataFrame:
    """A line for each shaping and column: of adaptive columns the worst of the poison sets that were tried."""
    groups = runs.groupby([*CELL, "crafted_against"], as_index=False, dropna=False)
    means = groups.agg(mean=("final", lambda values: values.fillna(0).mean()), measure=("measure", "first"))
    means["harm"] = means["mean"].where(means.measure == "success", -means["mean"])
    worst = means.sort_values(["harm", "crafted_against"]).drop_duplicates(CELL, keep="last")
    runs = runs.merge(worst[[*CELL, "crafted_against"]])
    alone = runs[runs.shaping == UNDEFENDED_TEXT].set_index([*PLACE, "column", "seed"]).final
    runs = runs.join(alone.rename("alone"), on=[*PLACE, "column", "seed"])
    runs["gain"] = (runs.final - runs.alone) * np.where(runs.measure == "success", -1, 1)
    fell = (runs.gain < -COLLAPSED) & (runs.measure == "accuracy")
    runs["fell"] = (fell | runs.diverged.astype(bool)).astype(float)
    runs["command"] = runs.apply(matrix_runs.command_of, axis=1)
    groups = runs.sort_values("seed").groupby(CELL)
    frame = groups.agg(
        attack=("attack", "first"), ratio=("value", "first"), crafted_against=("crafted_against", "first"),
        measure=("measure", "first"), seeds=("seed", "size"), diverged=("diverged", "sum"), collapsed=("fell", "mean"),
        seconds=("seconds", "mean"), finals=("final", spelled), gains=("gain", spelled),
        seed_numbers=("seed", lambda values: " ".join(f"{value:.0f}" for value in values)),
        command=("command", "first"), source=("source", frames.sources),
    )  # fmt: skip
    frame = frame.join(frames.over_seeds(groups, ["final", "best", "gain"])).reset_index()
    frame["adaptive"] = np.where(
        frame.crafted_against == "", "", np.where(frame.crafted_against == frame.shaping, "own", "transfer")
    )
    frame["why"] = [reason(*values) for values in zip(frame.seeds, frame.diverged, frame.collapsed)]
    return frame.round({"collapsed": 4, "seconds": 3})


def spelled(values: pd.Series) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def reason(seeds: int, diverged: int, collapsed: float) -> str:
    """Why a cell failed, for some of its seeds; empty where it did not."""
    if diverged:
        return f"{diverged:.0f} of {seeds} seeds diverged: weights that are no numbers"
    if collapsed > 0:
        return f"{collapsed * seeds:.0f} of {seeds} seeds fell more than {100 * COLLAPSED:.0f} points below undefended"
    return ""


def worst_of(cells: pd.DataFrame) -> pd.DataFrame:
    """For each shaping and ratio the worst of all adaptive attacks on accuracy, as a column of its own: what it leaves,
    and its gain over the worst that the undefended row comes to.
    """
    adaptive = cells[(cells.adaptive != "") & (cells.measure == "accuracy")]
    if adaptive.empty:
        return adaptive
    left = [by_seed(*pair).fillna(0).mean() for pair in zip(adaptive.finals, adaptive.seed_numbers)]
    worst = adaptive.assign(left=left).sort_values(["left", "column"]).drop_duplicates([*ROW, "ratio"])
    alone = worst[worst.shaping == UNDEFENDED_TEXT].set_index([*PLACE, "ratio"])[["finals", "seed_numbers"]]
    worst = worst.join(alone.add_prefix("alone_"), on=[*PLACE, "ratio"]).dropna(subset=["alone_finals"])
    why = [f"by {name}, crafted against {against}" for name, against in zip(worst.column, worst.crafted_against)]
    worst = worst.assign(column=[f"{WORST} {ratio:g}" for ratio in worst.ratio], why=why, attack=WORST)
    finals, alone = (
        [by_seed(*pair) for pair in zip(worst[f"{name}finals"], worst[f"{name}seed_numbers"])]
        for name in ("", "alone_")
    )
    gains = [mine - other.reindex(mine.index) for mine, other in zip(finals, alone)]
    worst["gains"] = [spelled(values) for values in gains]
    worst["gain_mean"] = [round(values.mean(), 4) for values in gains]
    worst["gain_ci95"] = [interval(values.dropna().to_numpy()) for values in gains]
    return worst.drop(columns=["left", "alone_finals", "alone_seed_numbers"])


def by_seed(values: str, seeds: str) -> pd.Series:
    return pd.Series(np.array(values.split(), float), seeds.split())


def interval(values: np.ndarray) -> float:
    """Half the width of the 95% interval of a mean (Student's t); NaN for fewer than three values."""
    if len(values) < 3:
        return np.nan
    return round(float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))), 4)


# --- rows ---


def rows_of(cells: pd.DataFrame, measured: pd.DataFrame, price: dict) -> pd.DataFrame:
    """A line for each shaping: price on clean rows, mean and worst gains, and the rank of the chosen ones."""
    halves = [choice.chosen(measured, name).set_index([*choice.PLACE, "kind"]).shaping for name in choice.MEASURES[1:]]
    weak_by_place = weak_attacks()
    # what a mean is taken over: all columns of accuracy that the undefended row of a place has
    alone = cells[(cells.shaping == UNDEFENDED_TEXT) & (cells.adaptive == "") & (cells.measure == "accuracy")]
    alone = alone[alone.attack != poison_set.NONE]
    full = {place: found.column.tolist() for place, found in alone.groupby(PLACE)}
    lines = []
    for key, group in cells.groupby(ROW, sort=False):
        place, text = key[:-1], key[-1]
        kind, mine = group.kind.iloc[0], group.set_index("column")
        oblivious = mine[(mine.adaptive == "") & (mine.attack != poison_set.NONE)]
        adaptive = mine[(mine.adaptive != "") & (mine.attack != WORST)]
        mean = mean_gains(oblivious, full.get(place, []))
        by_halves = [half.get((*place[:3], kind)) for half in halves]
        lines.append({
            **dict(zip(ROW, key)), "kind": kind, "chosen": mine.chosen.iloc[0],
            "chosen_by_halves": agreement(by_halves),
            "clean_price_mean": 0.0 - mine.gain_mean.get(poison_set.NONE, np.nan),
            "clean_price_ci95": mine.gain_ci95.get(poison_set.NONE, np.nan),
            "oblivious_gain_mean": round(mean.mean(), 4) if len(mean) else np.nan,
            "oblivious_gain_ci95": interval(mean),
            **worst_gain("oblivious", oblivious), **worst_gain("adaptive", adaptive),
            "attack_note": "; ".join([*notes_of(oblivious, adaptive), *weak_by_place.get((place[0], text), [])]),
            "price": price.get((*place[:2], text), np.nan),
        })  # fmt: skip
    rows = pd.DataFrame(lines)
    held_out = measured.set_index([*choice.PLACE, "shaping"])[choice.MEASURES[0]].rename("held_out_mean").round(4)
    return ranked(rows.join(held_out, on=[*choice.PLACE, "shaping"]))


def agreement(by_halves: list[str | None]) -> str:
    """What each half of the held-out rows would choose of a kind."""
    if None in by_halves:
        return ""
    return "agree" if by_halves[0] == by_halves[1] else " and ".join(by_halves)


def mean_gains(cells: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """The mean gain over `columns` by seed, float64 [seeds]; empty where a column or a seed of one is missing."""
    if not columns or set(columns) - set(cells.index):
        return np.array([])
    gains = [by_seed(*pair) for pair in cells.loc[columns, ["gains", "seed_numbers"]].itertuples(index=False)]
    if any(set(values.index) != set(gains[0].index) for values in gains):
        return np.array([])
    return pd.concat(gains, axis=1).mean(axis=1, skipna=False).to_numpy()


def worst_gain(of: str, cells: pd.DataFrame) -> dict:
    """The worst gain in accuracy, or where there is none, in success, and its column; a column in which seeds diverged
    so that it has no gain is worse than any other.
    """
    alike = cells[cells.measure == "accuracy"] if (cells.measure == "accuracy").any() else cells
    gains = alike.gain_mean.fillna(-np.inf)
    worst = gains.idxmin() if len(gains) else None
    return {f"{of}_gain_worst": alike.gain_mean.get(worst, np.nan), f"{of}_worst_column": worst or ""}


def notes_of(oblivious: pd.DataFrame, adaptive: pd.DataFrame) -> list[str]:
    """Where adaptive attacks of a ratio cost a row less than an attack of that ratio which knows nothing of it."""
    notes = []
    for ratio, mine in adaptive[adaptive.measure == "accuracy"].groupby("ratio"):
        others = oblivious[
            (oblivious.ratio == ratio) & (oblivious.measure == "accuracy") & (oblivious.attack != "collision")
        ]
        if len(others) and mine.final_mean.min() > others.final_mean.min():
            weakest, other = mine.final_mean.idxmin(), others.final_mean.idxmin()
            notes.append(
                f"failed as attacks at {ratio:g}: {weakest} leaves {mine.final_mean.min():.3f},"
                f" {other} {others.final_mean.min():.3f}"
            )
    return notes


def weak_attacks() -> dict[tuple[str, str], list[str]]:
    """The adaptive poison sets that cost a victim of their own shaping no more than as many random rows did when they
    were crafted, in words by data set and shaping.
    """
    found = {}
    for path in layout.crafting_files():
        try:
            sets = crafted.read(path)
        except Unreadable:  # reports.indiscriminate leaves it out, and says so
            continue
        if {"dataset", "attack", "ratio", "shaping", "victim_test_acc", "random_test_acc"} <= set(sets):
            for made in sets[sets.victim_test_acc >= sets.random_test_acc].itertuples():
                words = f"its own {made.attack} {made.ratio:g} does no more than random rows"
                found.setdefault((made.dataset, made.shaping), []).append(words)
    return found


def ranked(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the rank of the chosen ones by their mean gain over the oblivious columns: 1 and the number of rows
    whose interval lies wholly above; overlapping ones tie.
    """
    low, high = rows.oblivious_gain_mean - rows.oblivious_gain_ci95, rows.oblivious_gain_mean + rows.oblivious_gain_ci95
    ranks = []
    for index, row in rows.iterrows():
        rivals = rows.chosen & (rows[PLACE] == row[PLACE]).all(axis=1)
        known = row.chosen and not np.isnan(high[index])
        ranks.append(1 + int((low[rivals] > high[index]).sum()) if known else np.nan)
    return rows.assign(rank=ranks)


def prices(results: Results) -> dict[tuple[str, str, str], float]:
    """The prices that price.py found, by data set, network and shaping; none where it has not run."""
    path = layout.price_file()
    try:
        found = price_table.read(path)
    except Unreadable as error:
        results.left_out.append((place(path), str(error)))
        return {}
    return dict(zip(zip(found.dataset, found.network, found.shaping), found.price))
