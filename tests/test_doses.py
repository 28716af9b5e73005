"""Doses of clean-label poisons: all of a target as one stack, and the dose at which half of the targets fall."""

import io

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
from conftest import REPOSITORY, refused

from reports import doses

KEPT = {"MODELS": REPOSITORY / "models"}
ATTACK = (
    "python3", "attack_targets.py", "--network", "lr", "--poisons", "3", "--mode", "oneshot", "--epochs", "3",
    "--beta", "0", "--feature-distance", "1e6", "--target", "2", "--learning-rate", "0.04",
)  # fmt: skip


def tables(workplace) -> dict[str, pd.DataFrame]:
    return {
        name.split("/")[-2]: pd.read_csv(io.BytesIO(content))
        for name, content in workplace.written().items()
        if "attack_w" in name
    }


def test_doses_together_are_what_each_is_alone(workplace, tmp_path_factory):
    from conftest import Workplace

    workplace.succeed(*ATTACK, "--radius", "1", "2.2", "5", **KEPT)
    together = tables(workplace)
    assert [name.rpartition("_radius_")[2] for name in together] == ["1.0_epochs_3", "2.2_epochs_3", "5.0_epochs_3"]
    for radius in ("1", "2.2", "5"):
        alone = Workplace(tmp_path_factory.mktemp(radius))
        alone.succeed(*ATTACK, "--radius", radius, **KEPT)
        ((name, table),) = tables(alone).items()
        pd.testing.assert_frame_equal(table, together[name], rtol=1e-4, atol=1e-5)
        moved = table[table.poison > 0]
        assert (moved.moved <= float(radius) * (1 + 1e-5)).all() and (moved.share_of_way <= 1 + 1e-5).all()
        assert table.moved.isna().tolist() == [True, False, False, False]
    shares = [table.relative_feature_distance.mean() for table in together.values()]
    assert shares[0] > shares[1] > shares[2]  # the farther it may move, the nearer it comes
    again = workplace.succeed(*ATTACK, "--radius", "2.2", "1", **KEPT)
    assert "finished before" in again.stderr


@pytest.mark.slow
def test_the_scripts_give_curves_and_several_poisons_their_tables(workplace):
    few = {**KEPT, "TARGETS": 1, "CLIPS": "0.1"}
    workplace.succeed("./dose_response.sh", "purchases", RADII="1 2.5 5", SHAPINGS="undefended", **few)
    workplace.succeed("./attack_together.sh", "purchases", ATTACKS="clean-labels bullseye", POISONS=2, **few)
    again = workplace.succeed("./dose_response.sh", "purchases", RADII="1 2.5 5", SHAPINGS="undefended", **few)
    assert again.stderr.count("finished before") == 3
    workplace.report(**KEPT)
    curves, halves, several = (
        pd.read_csv(workplace.results / f"tables/{name}.csv", dtype={"shaping": str})
        for name in ("doses", "half_doses", "together")
    )
    assert (len(curves), len(halves), len(several)) == (3 * 3 * 2, 3 * 2, (4 + 3) * 2)
    assert (curves.poisons == 10).all() and (curves.targets == 1).all()
    alone = curves[(curves.shaping == "undefended") & (curves.within == 50)]
    assert alone.successes.tolist()[::2] == [0, 1] and alone.saturated.iloc[-1] and not alone.saturated.iloc[0]
    assert halves.effect.isna().sum() == 2  # of the undefended attack, within 50 epochs and 25
    assert set(several.attack) == {"clean-labels", "bullseye"} and (several.radius == 2).all()
    told = several[several.within == 50].groupby(["attack", "shaping", "crafted_against"]).size()
    assert told["clean-labels", "0.1", "0.1"] == 2 and told["bullseye", "0.1", "undefended"] == 1
    assert not (workplace.results / "tables/other_targeted.csv").exists()


def test_what_doses_do_not_go_with_is_refused(workplace):
    several = (*ATTACK, "--radius", "1", "2")
    for more in (("--stop-at-first",), ("--record",), ("--mode", "multipoison")):
        assert "several doses" in refused(workplace.run(*several, *more, **KEPT))
    assert "--radius" in refused(workplace.run(*ATTACK, "--attack", "bullseye", **KEPT))
    assert not workplace.written()


def test_half_dose_is_that_of_the_likeliest_logistic_curve():
    radii = np.array([0.6, 1, 1.4, 1.8, 2.2, 2.7, 3.5, 5])
    hits, targets = np.array([[0, 1, 3, 9, 15, 24, 33, 39], [20, 22, 25, 30, 33, 36, 39, 40]]), 40
    for counts, found in zip(hits, doses.half_dose(radii, hits, targets)):

        def loss(weights, counts=counts):
            odds = weights[0] + weights[1] * np.log(radii)
            return np.sum((targets + 1) * np.logaddexp(0, odds) - (counts + 0.5) * odds)

        best = scipy.optimize.minimize(
            loss, [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-9, "maxiter": 9999}
        )
        assert found == pytest.approx(np.exp(-best.x[0] / best.x[1]), rel=1e-4)


def test_half_dose_is_at_the_edge_where_all_or_none_fall():
    radii = np.array([1.0, 2, 4])
    none, every = doses.half_dose(radii, np.array([[0, 0, 0], [40, 40, 40]]), 40)
    assert none == pytest.approx(16) and every == pytest.approx(0.25)


def trials_of(thresholds: dict[str, np.ndarray]) -> pd.DataFrame:
    """Trials in which a target falls from a dose on, after 10 epochs."""
    rows = [
        {
            "dataset": "purchases-cj", "network": "lr", "within": 50, "shaping": text,
            "clip_norm": np.nan if text == "1" else np.inf,  # only clipping has one
            "noise_multiplier": 0.0, "learning_rate": 0.04, "radius": radius, "target": target, "poison": 1,
            "hit": radius > threshold, "epoch": 10, "share_of_way": 0.5, "relative_feature_distance": 0.5,
            "source": "a.csv", "lost": False,
        }
        for text, values in thresholds.items()
        for target, threshold in enumerate(values)
        for radius in (1.0, 1.5, 2.0, 3.0, 4.0)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_targets_that_fall_without_poison_count_for_no_dose():
    """A re-training that loses targets by itself looks like a strong attack until these are set apart."""
    alone = np.full(40, 2.5)
    trials = trials_of({"undefended": alone, "4": alone})
    lost = (trials.shaping == "4") & (trials.target < 15)
    trials.loc[lost, "hit"] = True  # at every dose
    harmed = doses.half_doses(trials, doses.doses(trials)).set_index("shaping").loc["4"]
    assert harmed.effect == "harms"
    trials.loc[lost, "lost"] = True
    curves = doses.doses(trials)
    assert (curves[curves.shaping == "4"].targets == 25).all() and (curves.successes <= curves.targets).all()
    assert curves.groupby("shaping").without_poison.first().to_dict() == {"undefended": 0, "4": 15}
    halves = doses.half_doses(trials, curves).set_index("shaping")
    assert halves.targets.to_dict() == {"undefended": 40, "4": 25} and halves.loc["4", "ratio"] == 1


def test_a_shaping_that_doubles_the_dose_is_found_and_one_that_does_nothing_is_not():
    random = np.random.default_rng(0)
    alone = 1.6 * np.exp(0.3 * random.normal(size=60))
    trials = trials_of({"undefended": alone, "4": 2 * alone, "1": random.permutation(alone)})
    curves = doses.doses(trials)
    halves = doses.half_doses(trials, curves).set_index("shaping")
    assert halves.loc["undefended", "half_dose_low"] < 1.6 < halves.loc["undefended", "half_dose_high"]
    assert halves.loc["4", "ratio_low"] > 1.3 and halves.loc["4", "ratio"] == pytest.approx(2, abs=0.5)
    assert halves.loc["1", "ratio_low"] < 1 < halves.loc["1", "ratio_high"]
    alone_curve = curves[curves.shaping == "undefended"]
    assert alone_curve.matched.sum() == 1
    nearest = (alone_curve.share - doses.MATCHED).abs()
    assert alone_curve.matched[nearest.idxmin()]
    assert (alone_curve.saturated == (alone_curve.share >= doses.SATURATED)).all()


def test_undefended_curves_are_compared_with_nothing_and_others_with_them():
    alone = np.linspace(0.9, 2.4, 30)
    trials = trials_of({"undefended": alone, "4": alone})
    curves = doses.doses(trials)
    halves = doses.half_doses(trials, curves).set_index("shaping")
    assert halves.loc["undefended", ["ratio", "difference"]].isna().all() and halves.loc["undefended", "effect"] is None
    assert halves.loc["4", ["ratio", "difference", "effect"]].tolist() == [1, 0, "none seen"]
    saturated = curves.pivot(index="radius", columns="shaping", values="saturated")
    assert (saturated["4"] == saturated["undefended"]).all() and saturated["4"].any() and not saturated["4"].all()
    unknown = doses.half_doses(*(lines[lines.shaping == "4"] for lines in (trials, curves)))
    assert unknown[["ratio", "difference"]].isna().all(axis=None) and unknown.effect.isna().all()
