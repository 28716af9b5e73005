"""The gradient analyses: norms and cosines of every set, and what the backdoors did to accuracy.

A shortened run stands in for the whole one where that is not there, beside as many of the published epochs: its first
epochs are those of the whole training.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from reports import Table, frames, nulls, verdicts
from reports.identity import other_table
from reports.nulls import PLACE
from reports.reading import Part, Results
from reports.targeted import usual_attack
from results import layout

# The paper's analyses and those that this suite adds. set: the pairs or the attack; setting: alpha, patch, poison set
# or target; start: from scratch or re-trained; wanted: the settings of the poison set, or that it must be the default
# one; whole_epochs: of a training that is not shortened; whole_model: the name of its model, or of the one re-trained
PLAN = Path(__file__).with_name("analyses.csv")
KEY = ["analysis", "set", "dataset", "setting", "model"]
HOW = ["analysis", "dataset", "network", "start", "wanted"]
ANALYSES = {"collision": "collision", "insertion": "insertion", "clean-labels": "tpoisoning"}  # others: ipoisoning
ONE_TARGET = "one target"  # the published one is 2252 of data that are not ours

RATIO_TOLERANCE, COSINE_TOLERANCE = 0.3, 0.15
MEANS = {"mean_poison_norm": 5, "mean_norm_ratio": 4, "mean_cosine": 5}  # and their digits
ACCURACIES = {  # and their tolerances
    "final_acc": 0.015, "baseline_backdoor_acc": math.inf, "first_backdoor_acc": 0.05, "final_backdoor_acc": 0.015,
}  # fmt: skip
COLUMNS = [
    *KEY, "epochs", "n_poison", *(f"{start}{name}" for name in MEANS for start in ("", "published_")),
    "median_example_ratio", "upper_quartile_example_cosine", "verdict", "source",
]  # fmt: skip
INSERTION_COLUMNS = [
    *KEY, "epochs", "baseline_acc", *(f"{start}{name}" for name in ACCURACIES for start in ("", "published_")),
    "final_backdoor_acc_other_classes", "verdict", "source",
]  # fmt: skip


def tables(results: Results) -> list[Table]:
    """The tables gradients, nulls and insertion, and other_gradients where there are any."""
    cells = described(results.analyses)
    plan = pd.read_csv(PLAN, dtype={"shaping": str}).assign(planned=True)
    if (cells.dataset == "purchases").any():  # the paper's own data are there
        plan["dataset"] = plan.dataset.replace("purchases-cj", "purchases")
    used = of_protocol(cells, plan)
    frame = plan.drop(columns=["start", "wanted"]).merge(cells[used], how="outer", on=PLACE)
    frame["model"] = frame.model.mask(frame.source.isna() | (frame.analysis == "tpoisoning"), frame.whole_model)
    order = sorted(frame.index, key=lambda row: [layout.natural_order(part) for part in frame.loc[row, KEY]])
    frame = frame.loc[order]
    others = other_table("other_gradients", cells[~used], [*MEANS, "final_acc"])
    shown = gradients_table(frame.copy())
    beside = nulls.table(shown.frame, results.analyses.lines, results.nulls)
    return [shown, beside, insertion_table(frame[frame.analysis == "insertion"].copy()), *others]


def described(part: Part) -> pd.DataFrame:
    """The cells of the analyses with the columns of PLACE, start and wanted (see `planned`), and what was measured."""
    cells, lines = part.cells.reset_index(names="cell").set_index("cell", drop=False), part.lines
    first, last = (lines[~lines.index.duplicated(keep=keep)] for keep in ("first", "last"))
    pairs, targeted = cells.attack == "collision", cells.attack == "clean-labels"
    usual = np.where(targeted, usual_attack(cells), cells.default_set)
    alphas = "alpha_" + cells["poison.alpha"].astype(str)
    ratio = lines.poison_norm_q50 / lines.clean_norm_q50
    cells = cells.assign(
        analysis=cells.attack.map(ANALYSES).fillna("ipoisoning"),
        set=np.where(pairs, cells["poison.task"] + np.where(cells.start == "retrain", "_retrain", ""), cells.attack),
        setting=np.select([pairs, targeted], [alphas, ONE_TARGET], cells.poison_set),
        start=cells.start.fillna("retrain"),
        baseline=cells.baseline.fillna("kept"),
        wanted=np.where(usual, "default", cells.poison),
        n_poison=cells.n_poison.fillna(first.n_poison),
        median_example_ratio=ratio.groupby(level=0).median().map(lambda ratio: float(f"{ratio:.4g}")),
        upper_quartile_example_cosine=lines.poison_cosine_q75.groupby(level=0).mean().round(4),
        patch=cells["poison.patch"],
        baseline_backdoor_acc=last.baseline_backdoor_acc,
        first_backdoor_acc=first.backdoor_acc,
        final_backdoor_acc=last.backdoor_acc,
        final_backdoor_acc_other_classes=last.backdoor_acc_other_classes,
    )
    return cells.join(means(lines, lines.index))


def means(lines: pd.DataFrame, by) -> pd.DataFrame:
    """Means over the epochs of poison norm, poison norm / clean norm, and cosine; NaN where one of them is."""
    values = (lines.poison_norm, lines.poison_norm / lines.clean_norm, lines.cosine)
    groups = pd.DataFrame(dict(zip(MEANS, values))).groupby(by)
    return groups.mean().round(MEANS).where(groups.count().eq(groups.size(), axis=0))


def of_protocol(cells: pd.DataFrame, plan: pd.DataFrame) -> pd.Series:
    """Which cells the table takes: the paper's, whole or, where the whole training is not there, the longest."""
    whole = plan.drop_duplicates(HOW).set_index(HOW).whole_epochs
    whole = whole.reindex(pd.MultiIndex.from_frame(cells[HOW])).set_axis(cells.index)
    usual = cells.eval(f"as_published and at_rate and baseline == 'kept' and seed == {layout.SEED}")
    longest = cells[usual & (cells.epochs <= whole)].sort_values("epochs").drop_duplicates(PLACE, keep="last")
    return pd.Series(cells.index.isin(longest.index), cells.index)


def gradients_table(frame: pd.DataFrame) -> Table:
    """A row for each analysis that is finished, planned or published."""
    lines = published_lines(frame, frames.published("gradients"))
    frame = frame.join(means(lines, lines.row).add_prefix("published_")).assign(source=frame.extracts)
    # The published clean norms of patch 14 are hundreds of times those of the other patches
    frame["incomparable"] = (frame.setting == "4_0.01_14") & (frame.network == "badnet")
    near = (frame.mean_norm_ratio / frame.published_mean_norm_ratio - 1).abs() <= RATIO_TOLERANCE
    near &= (frame.mean_cosine - frame.published_mean_cosine).abs() <= COSINE_TOLERANCE
    shown_only = frame.incomparable | (frame.analysis == "tpoisoning")
    frame["verdict"] = verdicts(frame, "mean_norm_ratio", "published_mean_cosine", near, shown_only)
    return Table("gradients", COLUMNS, frame)


def published_lines(frame: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """The lines of published epochs with the row of `frame` that they belong to, in as many epochs as were run."""
    keys, targeted = [*KEY[:-1], "whole_model"], known.analysis == "tpoisoning"
    setting = known.setting.str.replace(r"(_v7)?\.mat$", "", regex=True).mask(targeted, ONE_TARGET)
    dataset = known.dataset.mask(targeted, frame.dataset[frame.analysis == "tpoisoning"].min())  # beside the stand-in's
    known = known.rename(columns={"task": "set", "model": "whole_model"}).drop(columns="epoch")
    known = known.assign(setting=setting, dataset=dataset)
    known["number"] = known.groupby(keys).cumcount() + 1
    lines = frame[[*keys, "epochs"]].reset_index(names="row").merge(known, on=keys)
    return lines[(lines.number <= lines.epochs) | lines.epochs.isna()]


def insertion_table(frame: pd.DataFrame) -> Table:
    """A row for each backdoor that is finished, planned or published."""
    lines = published_lines(frame, frames.published("accuracy").query("analysis == 'insertion'"))
    values = lines["values"].str.split(";", expand=True).astype(float).groupby(lines.row)
    first, last = values.first(), values.last()  # each clean baseline and accuracy, success before and now
    known = pd.DataFrame(dict(zip(ACCURACIES, (last[1], last[2], first[3], last[3]))))
    frame = frame.join(known.add_prefix("published_"))
    near = [(frame[name] - frame[f"published_{name}"]).abs() <= tolerance for name, tolerance in ACCURACIES.items()]
    frame["verdict"] = verdicts(frame, "final_acc", "published_final_acc", np.logical_and.reduce(near))
    return Table("insertion", INSERTION_COLUMNS, frame)
