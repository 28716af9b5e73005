"""What a result is told from another by, what the paper's protocol is, and tables of what was made otherwise.

A result is told from another by all its settings but the seed. The paper's tables take what was made as the paper says:
its training (`models.protocols`), from scratch or re-trained as published, with the kept baseline, on the poison set
that the attack makes by default. All else stands in tables of its own, with its settings as columns.
"""

from __future__ import annotations

import json

import pandas as pd

from models.protocols import PROTOCOLS
from poisons import attacks
from reports import Table
from reports.frames import SHAPING, over_seeds, sources

MANY = ("seed", "baseline_acc", "target", "stop_at_first", "dump")  # what results of one setting may differ in
SETTINGS = [
    "attack", "mode", "poison_set", "poison", "ratio", "n_poison", "base_class", "target_class", "budget", "start",
    "baseline", "dataset", "network", "engine", "optimizer", "batch_size", "epochs", "learning_rate", *SHAPING,
]  # fmt: skip


def as_text(settings: dict) -> str:
    return json.dumps(settings, sort_keys=True)


def of_set(poison: dict) -> str:
    """The settings of a poison set as text."""
    return " ".join(f"{name}={poison[name]}" for name in sorted(poison))


def of(settings: dict) -> str:
    """What a result is told from others by, but for its seed, as text."""
    rest = {name: value for name, value in settings.items() if name not in MANY}
    if "mode" in settings:
        rest.pop("poison_sha256")  # of the target's poisons
        return as_text(rest)
    rest.pop("model", "")  # says no more than the other settings, and the seed
    poison, attack = settings.get("poison", {}), attacks().get(settings.get("attack"))
    if poison.get("seed") == settings["seed"] and (attack is None or attack.follows_seed):  # drawn anew for each seed
        rest["poison"] = {name: value for name, value in poison.items() if name != "seed"}
        del rest["poison_set"], rest["poison_sha256"]
    return as_text(rest)


def default_set(settings: dict) -> bool:
    """Whether a training's poison set is the one that its attack makes by default of this ratio (and seed)."""
    attack = attacks().get(settings["attack"])
    if attack is None or "poison" not in settings:
        return False
    asked = (settings["dataset"], settings["ratio"], settings["seed"])
    wanted = {name: value for name, value in attack.settings(*asked).items() if name not in ("attack", "dataset")}
    return wanted == settings["poison"] and settings["poison_set"] == attack.default_path(*asked).stem


def with_protocol(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells with what the paper sets their network on their data set to (paper_epochs ...), NaN where it trains none.

    as_published: whether they were trained so, undefended or by DP-SGD, but for seed, rate, epochs and start; at_rate:
    whether at the paper's learning rate.
    """
    known = pd.DataFrame([vars(protocol) for protocol in PROTOCOLS.values()], pd.MultiIndex.from_tuples(PROTOCOLS))
    known = known.reindex(pd.MultiIndex.from_frame(cells[["dataset", "network"]])).set_index(cells.index)
    cells = cells.join(known.add_prefix("paper_"))
    cells["as_published"] = cells.eval(
        "engine == 'stack' and optimizer == paper_optimizer and batch_size == paper_batch_size"
        " and (shaping == 'undefended' or kind == 'clip')"
    )
    rate = cells.paper_learning_rate.where(cells.shaping == "undefended", cells.paper_dp_learning_rate)
    return cells.assign(at_rate=cells.learning_rate == rate)


def other_table(name: str, cells: pd.DataFrame, means: list[str], counts: dict | None = None) -> list[Table]:
    """A table of cells that are not of the paper's protocol, a row for all seeds of a setting; none without cells.

    means: columns of which the mean over the seeds is shown; counts: further columns, by pandas' named aggregation.
    """
    if cells.empty:
        return []
    groups, measured = cells.groupby("identity"), over_seeds(cells.groupby("identity"), means)
    counted = groups.agg(**(counts or {}), seeds=("seed", "nunique"), source=("source", sources))
    settings = [column for column in SETTINGS if column in cells and cells[column].notna().any()]
    frame = pd.concat([groups[settings].first(), measured, counted], axis=1).sort_values(settings)
    return [Table(name, [*settings, *measured, *counted], frame)]
