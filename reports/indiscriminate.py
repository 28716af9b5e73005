"""The indiscriminate sweep: accuracies by attack, ratio and shaping, over seeds, and what crafting the sets took."""

from __future__ import annotations

import itertools

import pandas as pd
from scipy import stats

from files import Unreadable
from models.shaping import UNDEFENDED, Shaping
from poisons import attacks
from reports import Table, frames, matrix_runs, verdicts
from reports.frames import SHAPING
from reports.identity import other_table
from reports.reading import Results, place
from results import crafted, layout

# The sweep of the paper: what is not there of it is shown as not run
ATTACKS = ["label-flips", "slabs", "slabs-release", "minmax"]
RATIOS = [0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.2, 0.3, 0.4]
CLIP_NORMS, NOISE_STDS = [0.1, 1.0, 2.0, 4.0, 8.0], [0.0, 0.1, 0.001, 0.00001]

TOLERANCE = 0.015
UNBOUNDED_CLIP_NORM = 100  # effectively none; the three published cells of it at ratio 0.4 disagree: shown, not counted
FEWEST_SEEDS, CHANCE = 5, 0.01  # of a standard deviation; the gain by chance without
KEY, PLACE = ["attack", "ratio", "shaping"], ["attack", "ratio", *SHAPING]
ORDER = ["attack", "ratio", "clip_norm", "noise_multiplier"]
ACCURACIES, PARTS = ["best_acc", "final_acc", "epochs_acc"], ("mean", "ci95")
MEASURED = ["n_poison", "baseline_acc", "best_acc", "final_acc", "baseline_reached_at_epoch"]
COLUMNS = [*PLACE, *MEASURED, "published_best_acc", "difference", "verdict", "source"]
SEEDS_COLUMNS = [
    *PLACE, "seeds", "diverged", "baseline_acc", *(f"{name}_{part}" for name in ACCURACIES for part in PARTS),
    "final_acc_min", "final_acc_max", *(f"{name}_gain_{part}" for name in ("best", "final") for part in PARTS),
    "source",
]  # fmt: skip
CRAFTING_COLUMNS = [
    "attack", "poison_set", "ratio", "n_poison", "wall_seconds", "programs_solved", "programs_failed", "upper_bound",
    "training_loss", "pass_sphere", "pass_slab", "shaping", "target", "target_test_acc", "residual_before",
    "residual_after", "residual_bound", "poisons_needed", "victim_test_acc", "random_test_acc", "undefended_best_acc",
    "undefended_final_acc", "source",
]  # fmt: skip


def tables(results: Results) -> list[Table]:
    """The tables indiscriminate, seeds, crafting, and other_trainings where there are any."""
    lines, cells = results.trainings.lines, results.trainings.cells
    reached = lines.epoch[lines.test_acc >= lines.baseline_acc]
    cells["baseline_reached_at_epoch"] = reached[~reached.index.duplicated()]
    measures = [name for attack in attacks().values() for name in attack.measures if name in lines]
    last = lines[~lines.index.duplicated(keep="last")][measures].apply(pd.to_numeric, errors="coerce")
    cells = results.trainings.cells = cells.join(last.add_prefix("final_"))
    usual = of_protocol(cells)
    chance = chance_gains(cells[usual])
    indiscriminate = indiscriminate_table(cells[usual & (cells.seed == layout.SEED)], chance)
    means = ["best_acc", "final_acc", *last.add_prefix("final_")]
    others = cells[~usual & ~cells.path.isin(matrix_runs.of_sweeps(results).path)]
    others = other_table("other_trainings", others, means, {"diverged": ("diverged", "sum")})
    return [indiscriminate, seeds_table(cells[usual]), crafting_table(results, indiscriminate), *others]


def of_protocol(cells: pd.DataFrame) -> pd.Series:
    """Which trainings are of the paper's sweep, or of its like with another attack, ratio, clip norm, noise or seed."""
    usual = cells.eval("as_published and at_rate and default_set and epochs == paper_epochs")
    usual &= cells.eval(f"dataset == '{layout.SUBTASK}' and start == 'scratch' and baseline == 'kept'")
    measure = [name for name, attack in attacks().items() if attack.measures]  # more than this table can show
    return usual & ~cells.attack.isin(measure)


def planned() -> pd.DataFrame:
    """The places of the paper's sweep."""
    grid = [UNDEFENDED, *itertools.starmap(Shaping.clip, itertools.product(CLIP_NORMS, NOISE_STDS))]
    places = pd.DataFrame(itertools.product(ATTACKS, RATIOS, grid), columns=["attack", "ratio", "value"])
    return frames.with_shapings(places)


def by_seed(results: Results) -> dict[int, Table]:
    """The table indiscriminate of each seed with which the sweep was run, undefended too, as if it were the paper's."""
    cells = results.trainings.cells
    cells = cells[of_protocol(cells)]
    chance = chance_gains(cells)
    seeds = cells.seed[cells.shaping == "undefended"].unique()
    return {int(seed): indiscriminate_table(cells[cells.seed == seed], chance) for seed in sorted(seeds)}


def chance_gains(cells: pd.DataFrame) -> pd.DataFrame:
    """By KEY, `chance_gain`: what the best accuracy of one seed gains over undefended training with a probability of 5%
    where a shaping gains nothing, by the standard deviation over the seeds there are; CHANCE where they are too few.
    """
    cells = cells[~cells.diverged.astype(bool)]
    alone = cells[cells.shaping == "undefended"].set_index(["attack", "ratio", "seed"]).best_acc
    gains = cells.join(alone.rename("alone"), on=["attack", "ratio", "seed"])
    gains = gains.assign(gain=gains.best_acc - gains.alone).groupby(KEY).gain
    chance = (stats.norm.ppf(0.95) * gains.std()).where(gains.count() >= FEWEST_SEEDS)
    return chance.rename("chance_gain").reset_index()


def indiscriminate_table(cells: pd.DataFrame, chance: pd.DataFrame) -> Table:
    """A row for each place of the sweep, each other finished cell of its seed, and each other published one; beside the
    columns shown, `chance_gain`.
    """
    known = frames.with_shapings(frames.published("ipoisoning").rename(columns={"best_acc": "published_best_acc"}))
    release = known[known.attack == "slabs"].assign(attack="slabs-release")  # the published attack, by another rule
    known = pd.concat([known, release])[[*PLACE, "published_best_acc"]]
    frame = planned().merge(known, how="outer").merge(cells[[*PLACE, *MEASURED, "poison_set", "source"]], how="outer")
    frame = frame.merge(chance, how="left").fillna({"chance_gain": CHANCE})
    frame["difference"] = (frame.best_acc - frame.published_best_acc).round(4)
    near, unbounded = frame.difference.abs() <= TOLERANCE, frame.clip_norm >= UNBOUNDED_CLIP_NORM
    frame["verdict"] = verdicts(frame, "final_acc", "published_best_acc", near, shown_only=unbounded)
    return Table("indiscriminate", COLUMNS, frame.sort_values(ORDER))


def seeds_table(cells: pd.DataFrame) -> Table:
    """A row for each attack, ratio and shaping that was run with three seeds or more, without those that diverged.

    A seed is of the poisons, the weights, the order and the noise; a gain is over the undefended training of the same.
    """
    diverged = cells.groupby(KEY).diverged.sum()
    cells = cells[~cells.diverged.astype(bool)].sort_values("seed")
    alone = cells[cells.shaping == "undefended"].set_index(["attack", "ratio", "seed"])[ACCURACIES]
    gains = cells[cells.shaping != "undefended"].join(alone, on=["attack", "ratio", "seed"], rsuffix="_alone")
    for name in ("best", "final"):
        gains[f"{name}_gain"] = gains[f"{name}_acc"] - gains[f"{name}_acc_alone"]
    groups = cells.groupby(KEY)
    counted = groups.agg(
        clip_norm=("clip_norm", "first"), noise_multiplier=("noise_multiplier", "first"), seeds=("seed", "size"),
        baseline_acc=("baseline_acc", "first"), final_acc_min=("final_acc", "min"), final_acc_max=("final_acc", "max"),
        source=("source", frames.sources),
    )  # fmt: skip
    gain = frames.over_seeds(gains.groupby(KEY), ["best_gain", "final_gain"]).dropna()
    means = frames.over_seeds(groups, ACCURACIES)
    frame = counted[counted.seeds >= 3].join([means, gain, diverged]).reset_index()
    return Table("seeds", SEEDS_COLUMNS, frame.sort_values(ORDER))


def crafting_table(results: Results, indiscriminate: Table) -> Table:
    """A row for each poison set whose crafting was measured here, with what it does to an undefended training."""
    found = [pd.DataFrame(columns=crafted.NEEDED)]
    for path in layout.crafting_files():
        try:
            found.append(crafted.read(path).assign(source=place(path)))
        except Unreadable as error:
            results.left_out.append((place(path), str(error)))
    alone = indiscriminate.find(shaping="undefended").set_index(["attack", "poison_set"])[ACCURACIES[:2]]
    frame = pd.concat(found[1:] or found).join(alone.add_prefix("undefended_"), on=["attack", "poison_set"])
    return Table("crafting", CRAFTING_COLUMNS, frame.sort_values(["attack", "ratio"]))
