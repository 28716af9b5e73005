"""The nulls of the gradient analyses, and the checks of the claims on results in which there is nothing to find."""

import functools
import io

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, TRAIN, refused

import datasets
from poisons import poison_set
from reports import Table, claims, doses, frames, indiscriminate, nulls, together
from results import layout
from results import nulls as kept

NULLS = ("python3", "analyze_nulls.py", "--dataset", "subtask", "--network", "lr")
NULL = "analysis/nulls/fashion_mnist_3_4.1.0_lr_scratch_7_undefended.csv"
DRAWS = 100


def test_a_draw_is_measured_as_the_analysis_of_a_poison_file_of_the_same_rows(workplace):
    from analyze_nulls import duplicates

    workplace.succeed(*NULLS, "--poisons", "7", "--draws", "3", "--epochs", "2")
    written = pd.read_csv(io.BytesIO(workplace.written()[NULL]), dtype={"shaping": str})
    assert list(written) == kept.COLUMNS and len(written) == 6 and written.norm_ratio.nunique() == 6
    dataset = datasets.load("subtask")
    poisons = duplicates(dataset, 7, 2)
    by_content = {row.tobytes(): label for row, label in zip(dataset.x_train, dataset.y_train)}
    assert len(np.unique(poisons.x.reshape(7, -1), axis=0)) == 7
    assert [by_content[row.tobytes()] for row in poisons.x] == poisons.y.tolist()

    path = workplace.folder / "copies.npz"
    poison_set.save(path, {"attack": "copies", "dataset": dataset.name}, poisons.y, instances=poisons.x)
    workplace.succeed(*TRAIN, "--poison", path, "--record", "--epochs", "2")
    workplace.succeed("python3", "analyze_gradients.py")
    (folder,) = [file.parent for file in workplace.results.rglob("analysis_results.csv")]
    clean, poison = np.loadtxt(folder / layout.MAGNITUDES, delimiter=",").T
    examples = pd.read_csv(folder / layout.PER_EXAMPLE)
    mine = written[written.draw == 2]
    assert np.allclose(mine.norm_ratio, poison / clean, rtol=1e-4)
    assert np.allclose(mine.cosine, np.loadtxt(folder / layout.ORIENTATIONS), atol=1e-4)
    assert np.allclose(mine.median_example_ratio, examples.poison_norm_q50 / examples.clean_norm_q50, rtol=1e-4)
    assert np.allclose(mine.upper_quartile_example_cosine, examples.poison_cosine_q75, atol=1e-4)

    again = workplace.succeed(*NULLS, "--poisons", "7", "--draws", "2", "--epochs", "2")
    assert "finished before" in again.stderr
    other = workplace.run(*NULLS, "--poisons", "7", "--draws", "3", "--epochs", "1")
    assert "of another epochs" in refused(other)
    (workplace.results / NULL).write_text("draw\n1\n")
    assert "damaged" in refused(workplace.run(*NULLS, "--poisons", "7", "--draws", "3", "--epochs", "2"))
    assert "has 10800 training rows" in refused(workplace.run(*NULLS, "--poisons", "10801"))


def test_the_next_draw_lies_in_the_band_as_often_as_it_says():
    random = np.random.default_rng(0)
    for count, least in ((20, 0.90), (40, 0.94)):
        values = random.normal(size=(4000, count + 1))
        bands = np.array([nulls.band(pd.Series(row[:-1])) for row in values])
        inside = (values[:, -1] >= bands[:, 0]) & (values[:, -1] <= bands[:, 1])
        assert least <= inside.mean() <= least + 0.03
        assert (values[:, -1] > bands[:, 1]).mean() <= 0.055  # a claim is on one side


# --- checks on nothing ---


def kept_table(name: str) -> Table:
    frame = pd.read_csv(
        REPOSITORY / "results" / "tables" / f"{name}.csv", dtype={"shaping": str}, float_precision="round_trip"
    )
    return Table(name, list(frame), frame)


def passes(line, table: Table) -> list[bool]:
    return [check["passed"] for check in claims.checks_of(line, table) if check["passed"] is not None]


def lines(*tables: str) -> list:
    return [line for line in claims.lines() if line.table in tables]


@pytest.mark.parametrize("line", lines("nulls"), ids=lambda line: f"{line.claim}-{line.check[:60]}")
def test_checks_of_gradients_fail_on_harmless_duplicates(line):
    """Each draw in place of the poisons, judged by the other draws: how many pass, and that a draw within fails."""
    frame = kept_table("nulls").frame
    rows = frame[frame.draws.notna()].query(line.rows)
    assert len(rows) >= 10 and (rows.draws >= 20).all()
    assert (rows.false_passes <= 0.05).all(), rows[["set", "setting", "false_passes"]]
    assert rows.false_passes.mean() <= 0.05
    for inside in ("null_low", "null_median", "null_high"):
        passed = passes(line, Table("nulls", [], rows.assign(measured=rows[inside])))
        assert len(passed) >= 4 and not any(passed)


@pytest.mark.parametrize("line", lines("indiscriminate", "seeds"), ids=lambda line: f"{line.claim}-{line.check[:60]}")
def test_checks_of_sweeps_fail_where_no_shaping_does_anything(line):
    passed = [one for table in null_sweeps()[line.table] for one in passes(line, table)]
    assert len(passed) == DRAWS and np.mean(passed) <= 0.05


@functools.cache
def null_sweeps() -> dict[str, list[Table]]:
    """Sweeps in which neither poisons nor shapings do anything: every training has the accuracy of one without poisons,
    and the noise that seeds have here. The table of one seed, and that over 20.
    """
    kept_seeds = kept_table("seeds").frame.query("shaping == 'undefended'")
    noise = kept_seeds.eval("(final_acc_max - final_acc_min) / 4").median()
    random, places = np.random.default_rng(1), indiscriminate.planned()
    places = places[(places.noise_multiplier == 0) & places.ratio.isin([0.1, 0.2, 0.3, 0.4])]
    cells = pd.concat([places.assign(seed=seed) for seed in range(20)], ignore_index=True).assign(
        diverged=False, baseline_acc=0.955, source="", n_poison=1, baseline_reached_at_epoch=1, poison_set=""
    )
    found = {"indiscriminate": [], "seeds": []}
    for _ in range(DRAWS):
        accuracies = 0.955 + noise * random.normal(size=(2, len(cells)))
        cells = cells.assign(best_acc=accuracies.max(0), final_acc=accuracies[0], epochs_acc=accuracies.mean(0))
        of_one = cells[cells.seed == 0]
        found["indiscriminate"].append(indiscriminate.indiscriminate_table(of_one, indiscriminate.chance_gains(cells)))
        found["seeds"].append(indiscriminate.seeds_table(cells))
    return found


@pytest.mark.parametrize("line", lines("together"), ids=lambda line: f"{line.claim}-{line.check[:60]}")
def test_checks_of_several_poisons_fail_where_the_shaped_model_is_no_other(line):
    passed = [one for table in null_attacks() for one in passes(line, table)]
    assert len(passed) == DRAWS and np.mean(passed) <= 0.05


@functools.cache
def null_attacks() -> list[Table]:
    """Attacks of several poisons in which every model needs as many in the mean, of which so many were tried as in the
    kept ones.
    """
    random, settings, found = np.random.default_rng(2), kept_table("together").frame, []
    for _ in range(DRAWS):
        needed = [pd.Series(random.geometric(0.2, size=count).astype(float)) for count in settings.targets]
        needed = [counts.where(counts <= most) for counts, most in zip(needed, settings.poisons)]
        ends = {name: [together.median_end(counts, end) for counts in needed] for end, name in enumerate(together.ENDS)}
        medians = [counts.fillna(np.inf).median() for counts in needed]
        shares = [counts.notna().mean() for counts in needed]
        found.append(Table("together", [], settings.assign(median_poisons=medians, share=shares, **ends)))
    return found


@pytest.mark.parametrize("line", lines("doses"), ids=lambda line: line.check[:60])
def test_checks_at_one_dose_fail_where_the_shaped_model_is_no_other(line):
    random, passed, rows = np.random.default_rng(4), [], kept_table("doses").frame.query("matched")
    for _ in range(DRAWS):
        hits = random.binomial(rows.targets.to_numpy(), 0.3)
        ends = np.array([frames.wilson(*pair) for pair in zip(hits, rows.targets)])
        frame = rows.assign(successes=hits, share=hits / rows.targets, share_low=ends[:, 0], share_high=ends[:, 1])
        passed += passes(line, Table("doses", [], frame))
    assert len(passed) == DRAWS and np.mean(passed) <= 0.05


def test_checks_of_doses_pass_as_rarely_as_they_say_where_both_models_fall_at_the_same():
    """All lines: each is a query and one of two rules of the same table."""
    random, line_of = np.random.default_rng(3), {line.passes: line for line in lines("half_doses")}
    assert set(line_of) == {"ratio_low > 1", "difference_high < 0"}
    radii, passed = np.array([1, 1.6, 2, 2.4, 2.8, 3.3, 4, 5]), {rule: [] for rule in line_of}
    kept = kept_table("half_doses").frame
    row_of = {rule: kept.assign(first_data=kept.dataset == "purchases-cj").query(line.rows).iloc[0].to_dict()
              for rule, line in line_of.items()}  # fmt: skip
    for _ in range(60):
        halves, shares = [], []
        for _ in range(2):  # undefended and shaped: targets of a dose of their own, and luck beside
            thresholds = 2.2 * np.exp(0.4 * random.normal(size=(40, 1)))
            hits = radii > thresholds * np.exp(0.1 * random.normal(size=(40, 8)))
            drawn = random.integers(0, 40, (400, 40))
            counts = np.stack([np.bincount(draw, minlength=40) for draw in drawn])
            found = doses.over_draws(radii, hits.astype(float), counts)
            halves.append(found[0]), shares.append(found[1])
        measured = {**doses.interval("ratio", halves[1] / halves[0])}
        measured |= doses.interval("difference", shares[1] - shares[0])
        for rule, line in line_of.items():
            passed[rule] += passes(line, Table("half_doses", [], pd.DataFrame([{**row_of[rule], **measured}])))
    assert all(len(found) == 60 and np.mean(found) <= 0.05 for found in passed.values())
