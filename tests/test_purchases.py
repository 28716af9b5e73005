"""The paper's own file of Purchase-100, put into place, is taken by every script; a made-up one of its exact shape."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import Workplace, copied_suite, refused

import datasets
from datasets import purchases

ROWS, SHORT = 10000, ("--dataset", "purchases", "--network", "lr")


def papers_arrays(labels):
    """arr_0 ... arr_3 as the paper's: 10,000 x 100 of 0.0 and 1.0 and as many labels, numbers or one-hot, twice."""
    random = np.random.default_rng(0)
    typical = random.random((100, 100)) < 0.3
    arrays = []
    for _ in range(2):
        y = random.permutation(np.arange(ROWS) % 100)
        x = typical[y] ^ (random.random((ROWS, 100)) < 0.12)
        arrays += [x.astype(np.float64), y if labels == "numbers" else np.eye(100)[y]]
    return arrays


def test_papers_file_is_taken_with_both_kinds_of_labels(tmp_path, monkeypatch):
    loaded = []
    for labels in ("numbers", "one-hot"):
        np.savez(tmp_path / f"{labels}.npz", *papers_arrays(labels))
        monkeypatch.setattr(purchases, "PAPER_FILE", tmp_path / f"{labels}.npz")
        loaded.append(datasets.load("purchases"))
    x_train, y_train, x_test, y_test = papers_arrays("numbers")
    for data in loaded:
        assert (data.name, data.shape, data.classes) == ("purchases", (100,), 100)
        assert (
            data.x_train.dtype == data.x_test.dtype == np.float32
            and data.y_train.dtype == data.y_test.dtype == np.int32
        )
        assert np.array_equal(data.x_train, x_train) and np.array_equal(data.x_test, x_test)
        assert np.array_equal(data.y_train, y_train) and np.array_equal(data.y_test, y_test)
    assert datasets.load("purchases-cj").name == "purchases-cj"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A copy of the suite with the file in it, and results and models of its own: nothing was run there yet."""
    folder = tmp_path_factory.mktemp("purchases")
    workplace = Workplace(folder, copied_suite(folder))
    path = workplace.suite / purchases.PAPER_FILE.relative_to(purchases.HERE.parent.parent)
    np.savez(path, *papers_arrays("one-hot"))
    return workplace


@pytest.mark.slow
def test_every_script_takes_the_papers_file(place):
    flips = place.succeed("python3", "-m", "poisons", "--attack", "label-flips", "--ratio", "0.1", *SHORT[:2]).stdout
    assert flips.strip().endswith("purchases_random_0.1.npz")
    place.succeed("python3", "train.py", *SHORT, "--poison", flips.strip(), "--epochs", "1")
    target = place.succeed("python3", "attack_targets.py", *SHORT[2:], "--mode", "oneshot", "--list", "--targets", "1")
    few = ("--poisons", "3", "--iterations", "20", "--feature-distance", "100")
    crafted = place.succeed("python3", "-m", "poisons.shafahi", *SHORT[2:], "--target", target.stdout.strip(), *few)
    assert "/purchases/vanilla_lr" in crafted.stdout
    place.succeed("python3", "attack_targets.py", *SHORT, "--mode", "oneshot", "--targets", "1", "--epochs", "1", *few)
    nulls = ("--poisons", "1", "--targeted", "--epochs", "1", "--draws", "2")
    place.succeed("python3", "analyze_nulls.py", *SHORT, *nulls)
    place.succeed("python3", "describe_data.py", *SHORT, "--targets", "2")
    transfer = ("--shaping", "undefended", "--poison", flips.strip(), "--epochs", "1", "--seeds", "5")
    assert place.succeed("python3", "transfer.py", *SHORT, *transfer).stdout == flips
    price = ("--dataset", "purchases", "--shaping", "undefended")
    assert "it has 100 classes" in refused(place.run("python3", "price.py", *price))  # read, and not of two classes
    subtask = {"RESULTS": place.folder / "subtask", "MODELS": place.suite / "models"}
    clean = ("--poison", "none", "--shaping", "undefended", "phuber:2", "--epochs", "1")
    place.succeed("python3", "train.py", "--dataset", "subtask", "--network", "lr", *clean, **subtask)
    chosen = place.succeed("python3", "choose_shapings.py", *SHORT, "--epochs", "1", **subtask)
    assert "purchases has no held-out rows" in chosen.stderr and chosen.stdout.splitlines()[0] == "undefended"
    sweep = {"NETWORKS": "lr", "SHAPINGS": "undefended", "TARGETS": 2, "TOTTASKS": 2}
    assert "2 tasks" in place.succeed("./do_tpoisoning.sh", "purchases", "oneshot", **sweep).stdout
    task = (place.suite / "purchases-tpoisoning-one-tasks.tsv").read_text().splitlines()[0]
    assert "attack_targets.py" in task and "--dataset purchases " in task and "purchases-cj" not in task
    place.report()
    check_names(place)


def check_names(place):
    """Everything that was written is of purchases, nothing of a stand-in."""
    written = place.written()
    assert not [name for name in written if "purchases-cj" in name]
    assert {"analysis/datasets/purchases_lr.csv", "analysis/nulls/purchases_lr_retrain_1_undefended.csv"} <= set(
        written
    )
    runs = [json.loads(path.read_text())["settings"] for path in place.results.rglob("*run.json")]
    assert {run["dataset"] for run in runs} == {"purchases"} and {"mode" in run for run in runs} == {True, False}
    folders = [path.parent for path in place.results.rglob("*run.json")]
    assert all("purchases" in str(folder.relative_to(place.results)) for folder in folders)
    assert [path.name for path in place.models.iterdir() if path.is_dir()] == ["purchases"]
    transfers = pd.read_csv(place.results / "matrix/transfer.csv")
    assert set(transfers.dataset) == {"purchases"}
    models = pd.read_csv(place.results / "tables/models.csv")
    assert set(models.data[models.data.str.startswith("purchases")]) == {"purchases"}
    targeted = place.suite / "datasets/poisons/targeted/clean-labels"
    assert [path.name for path in targeted.iterdir()] == ["purchases"]
