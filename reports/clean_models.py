"""The clean models: what accuracy each reached, at what epsilon."""

from __future__ import annotations

import argparse
import dataclasses
import math
from argparse import ArgumentTypeError
from pathlib import Path

import pandas as pd

from command_line import BadInput
from files import Unreadable, printable
from models import checkpoints
from models.protocols import PROTOCOLS
from models.shaping import UNDEFENDED, shaping
from models.trainer import Training
from reports import Table, frames, identity, verdicts, with_columns
from reports.frames import SHAPING
from reports.reading import NUMBERS, TEXTS, Results, place
from results import layout, lines
from results.cells import Unfinished

TOLERANCE, EPSILON_TOLERANCE = 0.02, 1e-6
BASKET_ROWS = 10000  # of Purchase-100, as published, and of the stand-in
# Accuracies of undefended clean models, from the baselines in published/accuracy.csv and the paper's table of models
IMAGES = {(layout.SUBTASK, "lr"): 0.954, ("fashion_mnist", "badnet"): 0.9054, ("fashion_mnist", "shallow-mlp"): 0.897}
BASKETS = 0.7165  # of logistic regression
SETTING = ["data", "network", *SHAPING, "learning_rate"]
REACHED = {"best_epoch": "best_epoch", "best_test_acc": "best_acc", "final_test_acc": "final_acc"}
PUBLISHED = ["published_epoch", "published_acc", "published_epsilon", "epsilon_at_published_epoch"]
COLUMNS = [*SETTING, "epochs", *REACHED.values(), "epsilon", *PUBLISHED, "verdict", "source"]
NEEDED = [*NUMBERS[:-2], *TEXTS[:-1], *REACHED]  # all but those that only a poisoned training has


def tables(results: Results) -> list[Table]:
    """The table models, and other_models where there are any."""
    models = read(results)
    rates = models.eval("learning_rate == paper_learning_rate or learning_rate == paper_dp_learning_rate")
    usual = rates & models.eval(f"as_published and epochs == paper_epochs and seed == {layout.SEED}")
    others = identity.other_table("other_models", models[~usual], ["best_acc", "final_acc"])
    return [models_table(models[usual]), *others]


def read(results: Results) -> pd.DataFrame:
    """The clean models that are kept, a row each; those that are damaged, or copies, are left out."""
    found = []
    for path in sorted(layout.MODELS.glob("*/*/config.json")):
        try:
            found.append(read_model(path))
        except (BadInput, Unfinished, ArgumentTypeError) as error:
            results.left_out.append((place(path), printable(error)))
    models = with_columns(pd.DataFrame(found), [*NEEDED, *COLUMNS, "identity"])
    models["clip_norm"] = models.clip_norm.mask(models.kind == "undefended", math.inf)
    return identity.with_protocol(models)


def read_model(path: Path) -> dict:
    """What a config.json says of its model; raises `BadInput` or `Unfinished` where that cannot be used."""
    config = checkpoints.config(path.parent) or {}
    missing = [name for name in NEEDED if name not in config]
    if missing:
        raise Unfinished(f"damaged: it does not say {', '.join(missing)}")
    history = path.with_name(checkpoints.HISTORY)
    try:
        epsilon = spent(history, config["best_epoch"])
    except Unreadable as error:
        raise Unfinished(f"its {history.name} is {error}") from None
    try:
        value = shaping(config["shaping"])
    except argparse.ArgumentTypeError:
        raise Unfinished("of a kind of shaping that is not known here: name its file with --shaping-file") from None
    if any(config[name] != found for name, found in value.settings.items() if name in config):
        raise Unfinished("damaged: its shaping and its other settings contradict each other")
    training = Training(**{field.name: config[field.name] for field in dataclasses.fields(Training)})
    name = training.model_name(value, config["learning_rate"])
    reached = layout.reached_suffix(config["best_epoch"], config["best_test_acc"], epsilon) if value.defended else ""
    folder = layout.model_folder(config["dataset"], name + reached)
    if folder != path.parent:
        raise Unfinished(f"misplaced: by its settings it is {place(folder)}, of which it may be a copy")
    settings = {name: config[name] for name in (*NEEDED[: -len(REACHED)], "clip_norm", "delta") if name in config}
    about = {"data": config["dataset"], "epsilon": epsilon, "identity": identity.of(settings), "source": place(history)}
    return {**settings, **{column: config[name] for name, column in REACHED.items()}, **about}


def spent(history: Path, epoch: int) -> float:
    """The epsilon after an epoch, by a model's history.csv; raises `Unreadable`."""
    kinds = {"epsilon": lines.BOUND, "test_acc": lines.SHARE, "train_acc": lines.SHARE}
    columns = {name: kinds.get(name, lines.WHOLE) for name in lines.header(history)}
    found = lines.read(history, columns)
    if not {"epoch", "epsilon"} <= set(columns) or found.epoch.duplicated().any() or epoch not in set(found.epoch):
        raise Unreadable(f"damaged: it does not say what was spent after epoch {epoch}")
    return float(found.set_index("epoch").epsilon[epoch])


def published_models(basket_names: list[str]) -> pd.DataFrame:
    """What was published; that of Purchase-100 stands beside each of these data sets."""
    rows = [(*key, UNDEFENDED, None, accuracy, None, None) for key, accuracy in IMAGES.items()]
    for name in basket_names:
        rows.append((name, "lr", UNDEFENDED, None, BASKETS, None, None))
        for line in frames.published("models").itertuples():
            batch_size = PROTOCOLS[name, line.network].batch_size
            spent = line.value.epsilon(batch_size, BASKET_ROWS, line.epoch * BASKET_ROWS // batch_size)
            rows.append((name, line.network, line.value, line.epoch, line.accuracy, line.epsilon, spent))
    known = pd.DataFrame(rows, columns=["data", "network", "value", *PUBLISHED])
    return frames.with_shapings(known.assign(learning_rate=[frames.published_rate(*row[:3]) for row in rows]))


def models_table(models: pd.DataFrame) -> Table:
    """A row for each clean model of the paper's protocol that is kept, and for each published one that is not."""
    baskets = sorted({"purchases", "purchases-cj"}.intersection(models.data)) or ["purchases-cj"]
    measured = models[[*SETTING, "epochs", *REACHED.values(), "epsilon", "source"]]
    frame = published_models(baskets).merge(measured, how="outer", on=SETTING)
    spent = (frame.epsilon_at_published_epoch / frame.published_epsilon - 1).abs() <= EPSILON_TOLERANCE
    near = (frame.best_acc - frame.published_acc).abs() <= TOLERANCE
    near &= spent | ~(frame.published_epsilon < math.inf)
    frame["verdict"] = verdicts(frame, "best_acc", "published_acc", near)
    order = ["data", "network", "clip_norm", "noise_multiplier", "learning_rate"]
    return Table("models", COLUMNS, frames.in_order(frame, order))
