"""The targeted attacks: on how many targets each succeeds, with how many poisons, and on how many without any."""

from __future__ import annotations

import pandas as pd

from models.kind import UNDEFENDED_TEXT
from models.shaping import UNDEFENDED, Shaping
from poisons import shafahi
from reports import Table, doses, frames, matrix_runs, verdicts
from reports.frames import MODES, SHAPING
from reports.identity import other_table
from reports.reading import Part, Results
from results import layout

TARGETS, TOLERANCE = 100, 10  # the paper's; of 100
# What this suite runs besides what was published: half the epochs, and the learning rate of the undefended models
EPOCHS, CONTROLS = [layout.RETRAIN_EPOCHS, 25], [Shaping.clip(0.1), Shaping.clip(4)]
SETTING = ["mode", "network", *SHAPING, "learning_rate", "epochs"]
AMONG = ["mode", "network", "epochs", "dataset", "budget"]  # what is compared with the undefended attack of
MEASURED = {
    "clean_acc": ("baseline_acc", "first"), "targets": ("target", "size"), "successes": ("needed", "count"),
    "without_poison": ("without_poison", "sum"), "median_poisons": ("needed", "median"),
    "mean_poisons": ("needed", "mean"), "median_epoch": ("needed_epoch", "median"),
}  # fmt: skip
PUBLISHED = ["published_successes", "published_median_poisons"]
COLUMNS = [*SETTING, "dataset", "budget", *MEASURED, *PUBLISHED, "saturated", "verdict", "source"]


def tables(results: Results) -> list[Table]:
    """The table tpoisoning, and other_targeted where there are any."""
    cells = with_needed(results.trials)
    usual = of_protocol(cells)
    shown = usual | doses.is_dose(cells) | doses.is_together(cells)
    shown |= cells.path.isin(matrix_runs.of_targets(results).get("path", []))
    others = cells[~shown]
    return [targeted_table(cells[usual]), *other_table("other_targeted", others, [], MEASURED)]


def with_needed(trials: Part) -> pd.DataFrame:
    """The cells with the fewest poisons that hit the target (`needed`, NaN where none do) and after how many epochs.

    A target counts once, whether it was stopped at its first success or not; without_poison: whether it fell so.
    """
    hits = trials.lines[trials.lines.success.astype(str) == "True"].sort_values("poison", kind="stable")
    fewest = hits[hits.poison > 0]
    fewest = fewest[~fewest.index.duplicated()]
    without = trials.cells.index.isin(hits.index[hits.poison == 0])
    return trials.cells.assign(needed=fewest.poison, needed_epoch=fewest.epoch, without_poison=without)


def usual_attack(cells: pd.DataFrame) -> pd.Series:
    """Which targeted attacks have the budget and the classes that they have by default."""
    default = {option.name: option.default for option in shafahi.OPTIONS}
    classes = (cells.base_class == default["base_class"]) & (cells.target_class == default["target_class"])
    return classes & (cells.attack == shafahi.NAME) & (cells.budget == shafahi.Budget().name)


def of_protocol(cells: pd.DataFrame) -> pd.Series:
    """Which cells the table takes; learning rates and epochs are the paper's or of controls: it tells them apart."""
    usual = usual_attack(cells) & cells.as_published & (cells.seed == layout.SEED)
    place = cells.target.where(usual).groupby([cells[name] for name in [*SETTING, "dataset"]]).rank()
    return usual & (place <= TARGETS)  # a sweep of more targets adds to them


def planned() -> pd.DataFrame:
    """The settings that were published, with what was published of them, and those that this suite runs besides."""
    known = frames.published_targets()
    needed = frames.published("tpoisoning_multipoison").groupby("model").n_poisons.median()
    known["published_median_poisons"] = known.model.map(needed).where(known["mode"] == "multipoison")
    rates = [(value, frames.published_rate("purchases", "lr", value)) for value in (UNDEFENDED, *CONTROLS)]
    rates += [(value, rates[0][1]) for value in CONTROLS]
    rows = [(mode, "lr", *pair, epochs) for mode in MODES for pair in rates for epochs in EPOCHS]
    besides = pd.DataFrame(rows, columns=["mode", "network", "value", "learning_rate", "epochs"])
    known = pd.concat([known.assign(epochs=layout.RETRAIN_EPOCHS).drop(columns="model"), besides], ignore_index=True)
    return frames.with_shapings(known).drop_duplicates(SETTING)  # the published ones stay


def targeted_table(cells: pd.DataFrame) -> Table:
    """A row for each setting of which a target is finished, and for each planned or published one that has none.

    saturated: nearly every undefended target falls, so that the row says little of a shaping.
    """
    groups = cells.groupby([*SETTING, "dataset", "budget"])
    done = groups.agg(**MEASURED, source=("source", frames.sources)).round({"mean_poisons": 2}).reset_index()
    frame = planned().merge(done, how="outer", on=SETTING)
    near = (frame.successes - frame.published_successes).abs() <= TOLERANCE
    share = frame.successes / frame.targets
    alone = share.where(frame.shaping == UNDEFENDED_TEXT).groupby([frame[name] for name in AMONG])
    frame["saturated"] = alone.transform("max") >= doses.SATURATED
    frame["verdict"] = verdicts(frame, "successes", PUBLISHED[0], near, unfinished=frame.targets < TARGETS)
    order = ["network", "mode", "epochs", "clip_norm", "noise_multiplier", "learning_rate", "dataset", "budget"]
    return Table("tpoisoning", COLUMNS, frames.in_order(frame, order))
