"""The trainings that the matrix is made of: a line for each shaping, poison set or target, and seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from models.kind import UNDEFENDED_TEXT
from poisons import attacks, poison_set, shafahi
from reports import choice, doses
from reports.reading import Results
from results import layout

PAPERS = [UNDEFENDED_TEXT, "clip", f"clip {choice.NOISE}"]  # kinds that the paper's sweeps train
PLACE = ["dataset", "network", "epochs", "start"]
SET, NAMED = ["attack", "poison", "poison_set", "dataset"], ["column", "value", "crafted_against"]


def of_sweeps(results: Results) -> pd.DataFrame:
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


def of_targets(results: Results) -> pd.DataFrame:
    """Targeted attacks in the columns of `of_sweeps`, a line a target: one poison each, within a radius
    (`shafahi.DOSED`), all shapings at the undefended learning rate. Crafted against the very model that they attack.
    final is 1 where any poison hits; without poisons, the accuracy.
    """
    cells = results.trials.cells
    cells = cells.assign(value=doses.radius_of(cells))
    cells = cells[(cells.attack == shafahi.NAME) & (cells["mode"] == "oneshot") & (cells.engine == "stack")]
    cells = cells[cells.batch_size == cells.paper_batch_size]
    dosed = [dataclasses.replace(shafahi.DOSED, radius=value).name for value in cells.value]
    cells = cells[(cells.budget == dosed) & (cells.learning_rate == cells.paper_learning_rate)]
    of_curve = doses.is_dose(cells).groupby(cells.value).transform("all")  # these have a table of their own
    cells = cells[~of_curve]
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
