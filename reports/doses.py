"""Targeted attacks by their dose: success against the L2 distance that a poison may move, and the dose at which half of
the targets fall.

A dose is the same for every model; a feature distance, by which the paper stops its attacker, is not: the logits of
different models have different scales.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from poisons import shafahi
from reports import Table, frames, with_columns
from reports.frames import SHAPING
from reports.reading import Results
from results import layout

WITHIN = [layout.RETRAIN_EPOCHS, 25]  # epochs of re-training: a success within 25 is one of the first 25 of 50
MATCHED = 0.34  # of the targets: what the paper's undefended one-shot attack hits
SATURATED = 0.95  # of the undefended targets: above, a dose tells nothing
DRAWS = 2000  # of the targets, for the intervals of half doses
# By an interval of the ratio of half doses above, below or around 1; where half of the undefended targets fall at no
# dose, by one of the difference in the share that falls, the mean over the doses
EFFECTS = ["helps", "harms", "none seen"]
PLACE = ["dataset", "network", "within", *SHAPING, "learning_rate"]
AMONG = PLACE[:3]  # what is compared with the undefended attack of
COLUMNS = [
    *PLACE, "radius", "targets", "without_poison", "successes", "share", "share_low", "share_high", "poisons",
    "poison_successes", "poison_share", "poison_share_low", "poison_share_high", "median_epoch", "share_of_way",
    "relative_feature_distance", "matched", "saturated", "source",
]  # fmt: skip
HALF_COLUMNS = [
    *PLACE, "targets", "doses", "half_dose", "half_dose_low", "half_dose_high", "ratio", "ratio_low", "ratio_high",
    "mean_share", "difference", "difference_low", "difference_high", "effect", "matched_radius", "matched_successes",
    "published_successes", "source",
]  # fmt: skip


def tables(results: Results) -> list[Table]:
    """The tables doses and half_doses; none without a curve."""
    trials = of_curves(results)
    if trials.empty:
        return []
    curves = doses(trials)
    return [Table("doses", COLUMNS, curves), Table("half_doses", HALF_COLUMNS, half_doses(trials, curves))]


def is_dose(cells: pd.DataFrame) -> pd.Series:
    """Which trials are of a dose-response curve: of a shaping that was attacked within three or more radii, each on as
    many targets.
    """
    radius = radius_of(cells)
    usual = cells.budget == [dataclasses.replace(shafahi.DOSED, radius=value).name for value in radius]
    usual &= cells.eval(
        f"attack == '{shafahi.NAME}' and mode == 'oneshot' and engine == 'stack' and batch_size == paper_batch_size"
    )
    curve = [cells[name] for name in ("dataset", "network", "shaping", "learning_rate", "epochs")]
    targets = radius.where(usual).groupby([*curve, radius]).transform("count")
    usual &= targets == targets.groupby(curve).transform("max")
    return usual & (radius.where(usual).groupby(curve).transform("nunique") >= 3)


def is_together(cells: pd.DataFrame) -> pd.Series:
    """Which trials are of several poisons within a radius, of the paper's batch size."""
    return radius_of(cells).notna() & cells.eval(
        "mode == 'multipoison' and engine == 'stack' and batch_size == paper_batch_size"
    )


def radius_of(cells: pd.DataFrame) -> pd.Series:
    """The radius of a budget, by its name; NaN without."""
    return cells.budget.astype(str).str.extract(rf"{shafahi.RADIUS}(\d+\.\d+)")[0].astype(float)


def of_curves(results: Results) -> pd.DataFrame:
    """A row for each poison and epochs of WITHIN: PLACE, radius, target, hit, epoch and what its dose was.

    lost: whether the target fell to a re-training without any poison, so that a hit says nothing.
    """
    cells = results.trials.cells
    cells = cells[is_dose(cells) & (cells.epochs == layout.RETRAIN_EPOCHS)].assign(radius=radius_of)
    lines = results.trials.lines.loc[cells.index]
    lines = lines.drop(columns="target").assign(hit=lines.success.astype(str) == "True")
    alone = lines[(lines.poison == 0) & lines.hit].epoch.rename("lost_at")
    of_cell = ["dataset", "network", *SHAPING, "learning_rate", "radius", "target", "source"]
    trials = lines[lines.poison > 0].join(cells[of_cell]).join(alone)
    trials = trials.merge(pd.DataFrame({"within": WITHIN}), how="cross")
    return trials.assign(hit=trials.hit & (trials.epoch <= trials.within), lost=trials.lost_at <= trials.within)


def doses(trials: pd.DataFrame) -> pd.DataFrame:
    """A row for each shaping, rate and radius: shares of targets and of poisons that hit, with Wilson intervals.

    without_poison: targets that fall without any; they are no part of the others' counts.
    """
    dose = [*PLACE, "radius"]
    lost = trials[trials.lost].groupby(dose, dropna=False).target.nunique()
    trials = trials[~trials.lost]
    by_target = trials.groupby([*dose, "target"], dropna=False).hit.any().groupby(dose, dropna=False)
    groups = trials.groupby(dose, dropna=False)  # only clipping has a clip norm
    frame = pd.DataFrame(
        {
            "targets": by_target.size(), "without_poison": lost, "successes": by_target.sum(), "poisons": groups.size(),
            "poison_successes": groups.hit.sum(),
            "median_epoch": trials[trials.hit].groupby(dose, dropna=False).epoch.median(),
            "share_of_way": groups.share_of_way.mean().round(4),
            "relative_feature_distance": groups.relative_feature_distance.mean().round(4),
            "source": groups.source.agg(frames.sources),
        }
    ).dropna(subset="targets").reset_index()  # fmt: skip
    frame["without_poison"] = frame.without_poison.fillna(0).astype(int)
    frames.add_share(frame, "share", "successes", "targets")
    frames.add_share(frame, "poison_share", "poison_successes", "poisons")
    alone = frame[frame.shaping == "undefended"].set_index([*AMONG, "radius"]).share
    beside = alone.reindex(pd.MultiIndex.from_frame(frame[[*AMONG, "radius"]])).to_numpy()
    frame["saturated"] = beside >= SATURATED
    nearest = (alone - MATCHED).abs().groupby(AMONG).idxmin()
    frame["matched"] = [key in set(nearest) for key in frame[[*AMONG, "radius"]].itertuples(index=False, name=None)]
    return frame.sort_values([*PLACE, "radius"], key=frames.by_kind)


def half_doses(trials: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """A row for each shaping and rate: the dose at which half of the targets fall, by a logistic curve over the
    logarithm of the dose, its ratio to that of the undefended attack, and intervals over draws of the targets: of those
    that neither of the two re-trainings loses without poison.
    """
    rows = []
    for among, of_place in trials.groupby(AMONG):
        keys = ["shaping", "learning_rate", "target"]
        hits = of_place.pivot_table("hit", keys, "radius", "max").dropna().astype(float)
        hits[of_place.groupby(keys).lost.any().loc[hits.index]] = np.nan
        curves_of = {key: part.droplevel([0, 1]) for key, part in hits.groupby(level=[0, 1])}
        targets = sorted(set.intersection(*(set(curve.index) for curve in curves_of.values())))
        drawn = np.random.default_rng(layout.SEED).integers(0, len(targets), (DRAWS, len(targets)))
        drawn[0] = np.arange(len(targets))  # the first draw: the targets themselves
        counts = np.stack([np.bincount(draw, minlength=len(targets)) for draw in drawn])
        found = {key: curve.loc[targets].to_numpy() for key, curve in curves_of.items()}
        radii = hits.columns.to_numpy(float)
        alone = next((curve for (text, _), curve in found.items() if text == "undefended"), None)
        for (text, rate), curve in found.items():
            kept = ~np.isnan(curve[:, 0] if alone is None else curve[:, 0] + alone[:, 0])  # by both re-trainings
            halves, shares = over_draws(radii, curve[kept], counts[:, kept])
            row = {**interval("half_dose", halves), "mean_share": shares[0]}
            if alone is not None and text != "undefended":
                halves_alone, shares_alone = over_draws(radii, alone[kept], counts[:, kept])
                row |= interval("difference", shares - shares_alone)
                if halves_alone[0] < radii.max():
                    row |= interval("ratio", halves / halves_alone)
            row = {name: round(float(value), 4) for name, value in row.items()}
            place = {**dict(zip(AMONG, among)), "shaping": text, "learning_rate": rate}
            rows.append({**place, "targets": int(kept.sum()), "doses": len(radii), **row})
    both = ("ratio", "difference")  # undefended curves alone have none
    frame = with_columns(pd.DataFrame(rows), [f"{name}{end}" for name in both for end in ("", "_low", "_high")])
    fewer, more = frame.difference_high < 0, frame.difference_low > 0
    of_ratio = frame.ratio.notna()
    helps, harms = (frame.ratio_low > 1).where(of_ratio, fewer), (frame.ratio_high < 1).where(of_ratio, more)
    frame["effect"] = np.select([helps, harms, frame.difference.notna()], EFFECTS, None)
    matched = curves[curves.matched][[*PLACE, "radius", "successes"]]
    matched = matched.rename(columns={"radius": "matched_radius", "successes": "matched_successes"})
    frame["first_data"] = frame.dataset == min(frame.dataset, key=lambda name: (name != "purchases", name))
    known = frames.with_shapings(frames.published_targets().query("mode == 'oneshot'"))
    known = known[["network", "shaping", "learning_rate", "published_successes"]].assign(within=layout.RETRAIN_EPOCHS)
    sources = curves.groupby(PLACE, dropna=False).source.agg(frames.sources).reset_index()
    frame = frame.merge(sources).merge(matched, how="left").merge(known, how="left")
    return frame.sort_values(PLACE, key=frames.by_kind)


def over_draws(radii: np.ndarray, curve: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The half dose, and the mean over the doses of the share that falls, float64 [draws] each.

    curve: 0 or 1 [targets, doses]; counts: how often a draw has each target, int [draws, targets].
    """
    hits, targets = counts @ curve, counts.sum(1)
    return half_dose(radii, hits, targets), hits.mean(1) / np.maximum(targets, 1)


def interval(name: str, values: np.ndarray) -> dict:
    """The first of some values, which is the measured one, and the 95% range of all, by name, name_low, name_high."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), (values[0], *np.quantile(values, [0.025, 0.975]))))


def half_dose(radii: np.ndarray, hits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Where a logistic curve over log(radius) that is fitted to the hits is 1/2, float64 [draws], within a quarter of
    the smallest and four times the largest radius.

    radii: float64 [doses]; hits: [draws, doses], of so many targets, [draws] or one number. Newton's method, with half
    a hit and half a miss more at every dose (as in Haldane's correction), so that there is a maximum where all or none
    are hit.
    """
    log, share = np.log(radii), (hits + 0.5) / (np.reshape(targets, [-1, 1]) + 1)
    design = np.stack([np.ones_like(log), log - log.mean()])
    weights = np.zeros((len(hits), 2))
    for _ in range(50):
        fitted = 1 / (1 + np.exp(-np.clip(weights @ design, -30, 30)))
        slope = (share - fitted) @ design.T
        curvature = np.einsum("bd,id,jd->bij", fitted * (1 - fitted), design, design) + 1e-6 * np.eye(2)
        weights += np.clip(np.linalg.solve(curvature, slope[..., np.newaxis])[..., 0], -2, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        halves = log.mean() - weights[:, 0] / weights[:, 1]
    halves = np.where(weights[:, 1] > 0, halves, np.where(share.mean(1) >= 0.5, -np.inf, np.inf))
    return np.exp(np.clip(halves, log.min() - np.log(4), log.max() + np.log(4)))
