"""The clean models: what accuracy each reached, at what epsilon."""

from __future__ import annotations

import math
import os

from files import read_json
from models.privacy import epsilon
from models.protocols import PROTOCOLS
from reports import NOT_RUN, OUTSIDE, UNPUBLISHED, WITHIN, Table, published
from reports.reading import Tree
from results import layout

TOLERANCE, EPSILON_TOLERANCE = 0.02, 1e-6
BASKET_ROWS = 10000
# Accuracies of the undefended clean models, from the baselines in published/accuracy.csv and the paper's table of models
UNDEFENDED = {
    ("subtask", "lr"): 0.954,
    ("fashion_mnist", "badnet"): 0.9054,
    ("fashion_mnist", "shallow-mlp"): 0.897,
    ("purchases", "lr"): 0.7165,
}
SETTING = ("data", "network", "clip_norm", "noise_multiplier", "learning_rate")
COLUMNS = (
    *SETTING, "epochs", "best_epoch", "best_acc", "final_acc", "epsilon", "published_epoch", "published_acc", "published_epsilon",
    "epsilon_at_published_epoch", "verdict", "source",
)  # fmt: skip
NEEDED = (
    "dataset",
    "network",
    "epochs",
    "seed",
    "learning_rate",
    "clip_norm",
    "noise_multiplier",
    "best_epoch",
    "best_test_acc",
    "final_test_acc",
)


def tables(tree: Tree) -> list[Table]:
    """The table models: a row for each clean model that is kept, and for each published one that is not."""
    reached = {}
    for path in sorted(layout.MODELS.glob("*/*/config.json")):
        config = read_json(path)
        missing = [name for name in NEEDED if name not in (config or {})]
        if missing:
            tree.left_out.append((os.path.relpath(path, layout.RESULTS), f"damaged: it does not say {', '.join(missing)}"))
        elif config["seed"] == layout.SEED:
            setting = (
                config["dataset"],
                config["network"],
                config["clip_norm"] or "undefended",
                config["noise_multiplier"],
                config["learning_rate"],
            )
            reached[setting] = measured(config, os.path.relpath(path.with_name("history.csv"), layout.RESULTS))
    known = published_models()
    lines = [{**dict(zip(SETTING, setting)), **known.get(setting, {}), **reached.get(setting, {})} for setting in {*known, *reached}]
    for line in lines:
        line["verdict"] = verdict(line)
    rule = (
        f"best test accuracy within {TOLERANCE} of the published one, and the accountant's epsilon at the published epoch within {EPSILON_TOLERANCE:g} of the"
        " published epsilon; Purchase-100 is replaced by the stand-in where the paper's data are missing"
    )
    return [
        Table("models", "Clean models: best and final test accuracy, and epsilon at delta 1e-5", COLUMNS, sorted(lines, key=in_order), rule)
    ]


def measured(config: dict, source: str) -> dict:
    """What the table says of a kept model, from its config.json."""
    line = {
        "epochs": config["epochs"],
        "best_epoch": config["best_epoch"],
        "best_acc": config["best_test_acc"],
        "final_acc": config["final_test_acc"],
    }
    spent = epsilon_at(config["dataset"], config["network"], config["noise_multiplier"], config["best_epoch"])
    return {**line, "epsilon": spent, "source": source}


def epsilon_at(data: str, network: str, noise_multiplier: float, epoch: int) -> float:
    """What a model of the baskets has spent after an epoch, to four digits behind the point as published; infinite for all others."""
    if data != "purchases" or not noise_multiplier:
        return math.inf
    batch_size = PROTOCOLS[data, network].batch_size
    return round(epsilon(noise_multiplier, batch_size, BASKET_ROWS, epoch * BASKET_ROWS // batch_size, layout.DELTA), 4)


def published_models() -> dict[tuple, dict]:
    """What was published, by SETTING."""
    found = {}
    for (data, network), accuracy in UNDEFENDED.items():
        found[data, network, "undefended", 0.0, PROTOCOLS[data, network].learning_rate] = {"published_acc": accuracy}
    for line in published("models"):
        clip_norm, noise_multiplier, epoch = float(line["clip_norm"]), float(line["noise_multiplier"]), int(line["epoch"])
        setting = ("purchases", line["network"], clip_norm, noise_multiplier, PROTOCOLS["purchases", line["network"]].dp_learning_rate)
        found[setting] = {
            "published_epoch": epoch,
            "published_acc": float(line["accuracy"]),
            "published_epsilon": float(line["epsilon"]),
            "epsilon_at_published_epoch": epsilon_at("purchases", line["network"], noise_multiplier, epoch),
        }
    return found


def verdict(line: dict) -> str:
    if "source" not in line:
        return NOT_RUN
    if not line.get("published_acc"):
        return UNPUBLISHED
    near = abs(line["best_acc"] - line["published_acc"]) <= TOLERANCE
    if line.get("published_epsilon", math.inf) < math.inf:
        near &= abs(line["epsilon_at_published_epoch"] / line["published_epsilon"] - 1) <= EPSILON_TOLERANCE
    return WITHIN if near else OUTSIDE


def in_order(line: dict) -> tuple:
    clip_norm = -1.0 if line["clip_norm"] == "undefended" else line["clip_norm"]
    return tuple(PROTOCOLS).index((line["data"], line["network"])), clip_norm, line["noise_multiplier"], -line["learning_rate"]
