"""What describe_data.py says of a data set, against plain NumPy, and where it goes."""

import io
import types

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, refused
from scipy.spatial.distance import cdist

import datasets
import describe_data
from models import checkpoints
from models.baselines import Baseline
from results import described

DESCRIBE = ("python3", "describe_data.py", "--dataset", "purchases-cj")
KEPT = REPOSITORY / "models"
FILE = "analysis/datasets/purchases-cj_lr.csv"


@pytest.fixture
def small():
    """Five classes, the last without training rows; half of the values are 0, and some test rows are training rows."""
    random = np.random.default_rng(0)
    x = (random.random((90, 2, 3)) * (random.random((90, 2, 3)) < 0.5)).astype(np.float32)
    y = np.append(random.integers(0, 4, 60), random.integers(0, 5, 30)).astype(np.int32)
    x[60:70] = x[:10]
    return datasets.Dataset("small", 5, (2, 3), x[:60], y[:60], x[60:], y[60:])


def brute_force(dataset):
    """The distance of each test row to the nearest training row of its class, and of another."""
    distances = cdist(dataset.x_test.reshape(30, -1).astype(float), dataset.x_train.reshape(60, -1).astype(float))
    same = dataset.y_test[:, np.newaxis] == dataset.y_train
    return np.where(same, distances, np.inf).min(1), np.where(same, np.inf, distances).min(1)


@pytest.mark.parametrize("block", [7, 30, 1000])
def test_nearest_rows_by_blocks_are_those_by_brute_force(block, small, monkeypatch):
    monkeypatch.setattr(describe_data, "BLOCK", block)
    found = describe_data.nearest(small.x_test, small.y_test, small.x_train, small.y_train)
    for mine, wanted in zip(found, brute_force(small)):
        assert mine.dtype == np.float64 and np.allclose(mine, wanted, atol=1e-4)
    assert np.isinf(found[0][small.y_test == 4]).all() and (found[0][:10].min(), found[1].max() < np.inf) == (0, True)


def test_margin_is_the_own_logit_less_the_largest_other():
    logits = np.array([[1, 3, 2], [1, 3, 2], [5, 5, 0]], np.float32)
    assert describe_data.margins(logits, np.array([1, 2, 0])).tolist() == [1, -1, 0]


def test_equally_far_rows_of_two_classes_do_not_count_as_of_another_class():
    rows = np.float32([[0.1, 0.7], [0.7, 0.1]])
    own, other = describe_data.nearest(np.float32([[0.1, 0.1]]), np.array([0]), rows, np.array([0, 1]))
    assert own == other and np.isclose(own, 0.6)


def test_line_is_that_of_plain_numpy(small, monkeypatch):
    kernel = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    keras = types.SimpleNamespace(predict=lambda x, **_: x.reshape(-1, 6) @ kernel)
    model = Baseline(keras, 0.25, "0" * 64, "vanilla")
    targets = np.flatnonzero(small.y_test == 2)[:3].tolist()
    monkeypatch.setattr(checkpoints, "config", lambda folder: {"final_test_acc": 0.2})
    monkeypatch.setattr(describe_data, "choose_targets", lambda options, dataset: targets)
    options = types.SimpleNamespace(network="lr", targets=3, poisons=4, base_class=2, target_class=3)
    line = describe_data.measure(small, model, options)

    logits = small.x_test.reshape(30, 6) @ kernel
    others = [np.delete(row, label).max() for row, label in zip(logits, small.y_test)]
    margin = logits[np.arange(30), small.y_test] - others
    own, other = brute_force(small)
    base = small.x_train[small.y_train == 3][:4].reshape(4, 6)
    distances = cdist(small.x_test[targets].reshape(3, 6), base)
    sizes = sorted((small.y_train == label).sum() for label in range(5))
    wanted = {
        "rows": 60, "test_rows": 30, "features": 6, "classes": 5, "density": np.count_nonzero(small.x_train) / 360,
        "class_rows_smallest": 0, "class_rows_median": sizes[2], "class_rows_largest": sizes[4],
        "best_acc": 0.25, "final_acc": 0.2, "margin_q25": np.quantile(margin, 0.25), "margin_q50": np.median(margin),
        "margin_q75": np.quantile(margin, 0.75), "margin_below_0": np.mean(margin < 0),
        "own_class_distance": np.median(own), "other_class_distance": np.median(other),
        "nearest_of_other_class": np.mean(other < own), "target_base_distance": np.median(distances),
        "target_nearest_base_distance": np.median(distances.min(1)),
    }  # fmt: skip
    assert list(line) == list(wanted) == described.COLUMNS[len(described.SETTINGS) :]
    for name, value in wanted.items():
        assert np.isclose(line[name], value, rtol=1e-4, atol=1e-6), name
    unknown = types.SimpleNamespace(**{**vars(options), "target_class": 5})
    line = describe_data.measure(small, model, unknown)
    assert [np.isnan(line[name]) for name in described.OF_TARGETS] == [True, True]


@pytest.mark.slow
def test_file_of_a_kept_model_is_reported_and_not_folded(workplace):
    run = (*DESCRIBE, "--targets", "3", "--poisons", "5")
    workplace.succeed(*run, MODELS=KEPT)
    (name,) = workplace.written()
    assert name == FILE
    content = workplace.written()[FILE]
    line = pd.read_csv(io.BytesIO(content)).iloc[0]
    config = checkpoints.config(KEPT / "purchases-cj/vanilla_lr_100_100_0.04")
    assert (line.best_acc, line.final_acc) == (config["best_test_acc"], config["final_test_acc"])
    assert np.isclose(line.margin_below_0, 1 - line.best_acc, atol=2e-3)  # but for ties
    assert (line.targets, line.base_rows, line.base_class, line.target_class) == (3, 5, 3, 4)

    assert "finished before" in workplace.succeed(*run, MODELS=KEPT).stderr
    assert workplace.written()[FILE] == content
    path = workplace.results / FILE
    path.write_bytes(content.replace(line.model_sha256.encode(), b"0" * 64))
    assert "finished before" not in workplace.succeed(*run, MODELS=KEPT).stderr  # of another model
    assert workplace.written()[FILE] == content

    (path.parent / "purchases-cj2_lr.csv").write_bytes(content)
    folded = workplace.succeed("python3", "-m", "results.fold").stdout
    assert "not folded" not in folded and workplace.written()[FILE] == content
    done = workplace.report(MODELS=KEPT)
    assert "purchases-cj2_lr.csv (misplaced" in done.stderr and done.stderr.count("left out") == 1
    (shown,) = pd.read_csv(workplace.results / "tables/datasets.csv").itertuples()
    assert (shown.dataset, shown.features, shown.source) == ("purchases-cj", 100, FILE)
    assert 'id="table-datasets"' in (workplace.results / "report.html").read_text()

    assert f"--targets 4: {path} is of 3" in refused(workplace.run(*DESCRIBE, "--targets", "4", MODELS=KEPT))
    path.write_text("dataset\npurchases-cj\n")
    assert "damaged" in refused(workplace.run(*run, MODELS=KEPT))
    assert "--network badnet" in refused(workplace.run(*DESCRIBE, "subtask", "--network", "badnet", MODELS=KEPT))
    assert "unknown" in refused(workplace.run(*DESCRIBE, "mnist", MODELS=KEPT))
    path.unlink()
    workplace.report(MODELS=KEPT)
    assert not (workplace.results / "tables/datasets.csv").exists()
