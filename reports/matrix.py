"""The matrix: every gradient shaping against every attack, those that do not know it and those that do.

A column is an attack and its ratio (the alpha of watermarks, the patch of backdoors, the radius of clean labels, of
which each target counts as a seed). Poisons that were crafted against a shaping (`crafted_against`) are adaptive: of an
attack and ratio a row counts the set, crafted against itself or another, that transfer.py found to be the strongest
against it by other seeds; where several were measured, the one that leaves least. The worst adaptive of a ratio is the
attack that leaves least, chosen by the means that are shown: as little too low for every row.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from scipy import stats

from models.kind import UNDEFENDED_TEXT
from poisons import attacks, poison_set, shafahi
from reports import Table, choice, frames
from reports.reading import Results
from results import layout

COLLAPSED = 0.1  # so much below the undefended training of the same seed
WORST = "worst adaptive"
PAPERS = [UNDEFENDED_TEXT, "clip", f"clip {choice.NOISE}"]  # kinds that the paper's sweeps train
PLACE = ["dataset", "network", "epochs", "start"]
SET, NAMED = ["attack", "poison", "poison_set", "dataset"], ["column", "value", "crafted_against"]
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
    runs = [found for found in (runs_of(results), targets_of(results)) if len(found)]
    if not runs:
        return []
    measured = choice.measured(results)
    picked = choice.chosen(measured)
    cells = cells_of(pd.concat(runs, ignore_index=True))
    cells = pd.concat([cells, worst_of(cells)], ignore_index=True)
    cells["kind"], cells["chosen"] = cells.shaping.map(choice.kind_of), chosen_of(cells, picked)
    rows = rows_of(cells, measured)
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


# --- trainings: a line for each shaping, poison set and seed ---


def runs_of(results: Results) -> pd.DataFrame:
    """The trainings that the matrix is made of, with column, crafted_against, measure, value, best and command: of the
    paper's batch size and rate, with the kept baseline, of shapings whose training on clean rows is there for the same
    seed, at places where another kind than clipping was trained.
    """
    cells = results.trainings.cells
    cells = cells[cells.eval("engine == 'stack' and batch_size == paper_batch_size and at_rate and baseline == 'kept'")]
    sets = cells[SET].drop_duplicates()
    named = pd.DataFrame([column_of(*key) for key in sets.itertuples(index=False)], sets.index, NAMED)
    cells = cells.merge(sets.join(named), on=SET).dropna(subset=["column"])
    clean = cells.loc[cells.attack == poison_set.NONE, [*PLACE, "shaping", "seed"]]
    cells = cells.merge(clean)
    others = cells[~cells.shaping.map(choice.kind_of).isin(PAPERS)]
    cells = cells.merge(others[[*PLACE, "column", "seed"]].drop_duplicates())
    success = cells.get("final_backdoor_acc_other_classes", pd.Series(np.nan, cells.index))
    succeeds = success.notna()
    cells["measure"] = np.where(succeeds, "success", "accuracy")
    cells["final"] = success.where(succeeds, cells.final_acc)
    cells["best"] = cells.best_acc.where(~succeeds)
    return cells.sort_values("seed")


def targets_of(results: Results) -> pd.DataFrame:
    """Targeted attacks in the columns of `runs_of`, a line a target: one poison each, within a radius
    (`shafahi.DOSED`), all shapings at the undefended learning rate. Crafted against the very model that they attack.
    final is 1 where any poison hits; without poisons, the accuracy.
    """
    cells = results.trials.cells
    radius = cells.budget.astype(str).str.extract(rf"{shafahi.RADIUS}([\d.]+)$")[0]
    cells = cells.assign(value=radius.astype(float))
    cells = cells[cells.eval("mode == 'oneshot' and engine == 'stack' and batch_size == paper_batch_size")]
    dosed = [dataclasses.replace(shafahi.DOSED, radius=value).name for value in cells.value]
    cells = cells[(cells.budget == dosed) & (cells.learning_rate == cells.paper_learning_rate)]
    if set(cells.shaping.map(choice.kind_of)) <= set(PAPERS):
        return pd.DataFrame()
    lines = results.trials.lines.loc[cells.index]
    hits = (lines.success.astype(str) == "True") & (lines.poison > 0)
    cells = cells.assign(
        start="retrain", seed=cells.target, crafted_against=cells.shaping, measure="success", best=np.nan,
        diverged=False, final=hits.groupby(level=0).any().astype(float),
        column=[f"{shafahi.NAME} {value:g}" for value in cells.value],
        seconds=cells.seconds / lines.groupby(level=0).size(),
    )  # fmt: skip
    clean = lines[lines.poison == 0].test_acc.astype(float).groupby(level=0).first()
    unharmed = cells.sort_values("target").drop_duplicates([*PLACE, "shaping"])  # the same one for every target
    unharmed = unharmed.assign(
        attack=poison_set.NONE, column=poison_set.NONE, value=0.0, measure="accuracy", final=clean, crafted_against=""
    )
    return pd.concat([cells, unharmed]).sort_values("seed")


def column_of(attack: str, poison: str, name: str, dataset: str) -> tuple:
    """The column of a poison set, its value (ratio, alpha or patch), and the shaping that it was crafted against; None
    where anything else about the set is unusual.
    """
    if attack == poison_set.NONE:
        return attack, 0.0, ""
    known = attacks().get(attack)
    varied = next((option.name for option in known.options if option.many), None) if known else None
    settings = dict(part.partition("=")[::2] for part in poison.split(" ")) if poison else {}
    if varied is None or varied not in settings or settings.get("task", "pairs_of_100") != "pairs_of_100":
        return None, None, None
    usual = {option.name: option.default for option in known.options if option.name not in (varied, "shaping", "seed")}
    if any(str(settings.get(option, default)) != str(default) for option, default in usual.items()):
        return None, None, None
    against = settings.get("shaping", "")
    return f"{attack} {float(settings[varied]):g}", float(settings[varied]), against


def command_of(run: pd.Series) -> str:
    """The shell line that makes a training again."""
    if "target_class" in run and pd.notna(run.target_class):
        dose, usual = shafahi.DOSED, run.epochs == layout.RETRAIN_EPOCHS
        return (
            f"python3 attack_targets.py --dataset {run.dataset} --network {run.network} --mode {run['mode']}"
            f" --learning-rate {run.learning_rate:g} --radius {run.budget.partition(shafahi.RADIUS)[2]}"
            f" --beta {dose.beta:g} --feature-distance {dose.feature_distance:g} --poisons {dose.poisons}"
            f" --target {run.target:.0f} --shaping '{run.shaping}'" + f" --epochs {run.epochs:.0f}" * (not usual)
        )
    files = poison_set.NONE
    if run.attack != poison_set.NONE:
        against = f" --against '{run.crafted_against}'" if run.crafted_against else ""
        word = f"{run.attack}:{run.value:g}"
        files = f"$(python3 -m poisons --sets {word}{against} --dataset {run.dataset} --seed {run.seed:.0f})"
    again = " --retrain" * (run.start == "retrain")
    epochs = "" if run.epochs == run.paper_epochs else f" --epochs {run.epochs:.0f}"
    return (
        f"python3 train.py --dataset {run.dataset} --network {run.network} --poison {files} --seed {run.seed:.0f}"
        f" --shaping '{run.shaping}'{again}{epochs}"
    )


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
    runs["command"] = runs.apply(command_of, axis=1)
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


def rows_of(cells: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """A line for each shaping: price on clean rows, mean and worst gains, and the rank of the chosen ones."""
    halves = [choice.chosen(measured, name).set_index([*choice.PLACE, "kind"]).shaping for name in choice.MEASURES[1:]]
    price, weak_by_place = prices(), weak_attacks()
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
            sets = pd.read_csv(path, dtype={"shaping": str})
        except (ValueError, UnicodeError):  # damaged: reports.indiscriminate leaves it out, and says so
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


def prices() -> dict[tuple[str, str, str], float]:
    """The prices that price.py found, by data set, network and shaping; none where it has not run."""
    path = layout.price_file()
    if not path.exists():
        return {}
    found = pd.read_csv(path, dtype={"shaping": str})
    return dict(zip(zip(found.dataset, found.network, found.shaping), found.price))
