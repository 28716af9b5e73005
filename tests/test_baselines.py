"""Clean models of small rows: which are trained, what is kept of them, and what is refused."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from command_line import BadInput
from datasets import Dataset
from models import device, protocols
from models.shaping import UNDEFENDED, Shaping
from results import layout

device.start()

from models import baselines, checkpoints, networks  # noqa: E402
from models.trainer import Training  # noqa: E402


@pytest.fixture
def toy(monkeypatch, tmp_path) -> Dataset:
    """Rows of two overlapping classes; models are kept in a folder of the test's."""
    monkeypatch.setattr(layout, "MODELS", tmp_path)
    monkeypatch.setitem(protocols.PROTOCOLS, ("toy", "lr"), protocols.Protocol("sgd", 10, 6, 30.0, 3.0))
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 160).astype(np.int32)
    x = (random.random((160, 8)) * 0.8 + 0.2 * y[:, np.newaxis] * (np.arange(8) < 4)).astype(np.float32)
    return Dataset("toy", 2, (8,), x[:100], y[:100], x[100:], y[100:])


def training(**more) -> Training:
    return Training.published("toy", "lr", seed=5, **more)


def accuracy(folder, name, toy) -> float:
    """Of a kept model on the test rows, by Keras."""
    model = networks.build("lr", (8,), 2, 1)
    model.load_weights(folder / name)
    return (model.predict(toy.x_test, verbose=0).argmax(1) == toy.y_test).mean()


def test_the_best_epoch_is_kept_and_the_last(toy):
    """At this rate accuracies jump about, so that the best epoch is neither the first nor the last."""
    baselines.train_clean(training(), toy, [UNDEFENDED], None)
    (cell,) = baselines.clean_cells(training(), [UNDEFENDED], None)
    folder = baselines.kept_folder(cell)
    config = checkpoints.config(folder)
    with open(folder / checkpoints.HISTORY, newline="") as stream:
        history = [float(line["test_acc"]) for line in csv.DictReader(stream)]
    assert len(history) == 6 and history[0] < max(history) > history[-1]
    assert config["best_test_acc"] == max(history) and config["best_epoch"] == 1 + history.index(max(history))
    assert config["final_test_acc"] == history[-1] and config["final_epsilon"] == "inf"
    assert accuracy(folder, checkpoints.BEST, toy) == pytest.approx(max(history), abs=1e-6)
    assert accuracy(folder, checkpoints.FINAL, toy) == pytest.approx(history[-1], abs=1e-6)


def test_models_that_are_missing_are_trained_whatever_is_there_before_them(toy):
    """Two rates, so two stacks, of which the first is there."""
    shapings = [UNDEFENDED, Shaping.clip(1.0)]
    baselines.train_clean(training(), toy, shapings[:1], None)
    cells = baselines.clean_cells(training(), shapings, None)
    before = (baselines.kept_folder(cells[0]) / checkpoints.CONFIG).stat().st_mtime_ns
    assert baselines.kept_folder(cells[1]) is None
    assert baselines.missing(training(), shapings, None) == [cells[1].name]
    assert baselines.missing(training(), shapings, 7.0) == [
        cell.name for cell in baselines.clean_cells(training(), shapings, 7.0)
    ]
    baselines.train_clean(training(), toy, shapings, None)
    assert baselines.missing(training(), shapings, None) == []
    assert (baselines.kept_folder(cells[0]) / checkpoints.CONFIG).stat().st_mtime_ns == before
    config = checkpoints.config(baselines.kept_folder(cells[1]))
    assert (config["learning_rate"], config["shaping"]) == (3.0, "1")
    assert "_epoch_" in baselines.kept_folder(cells[1]).name  # a defended one says what it reached
    (baselines.kept_folder(cells[1]) / checkpoints.BEST).write_bytes(b"cut off")
    with pytest.raises(BadInput, match="missing or damaged; delete"):
        baselines.missing(training(), shapings, None)


def test_what_diverges_is_refused_and_what_trains_beside_it_is_kept(toy):
    shapings = [Shaping.clip(1.0), Shaping.of("gce", 1e-3)]
    toy.x_train[3] = 1e30  # whose norm is no number
    with pytest.raises(BadInput, match="clean lr, 1: diverged"):
        baselines.train_clean(training(), toy, shapings, 30.0)
    kept = [baselines.kept_folder(cell) for cell in baselines.clean_cells(training(), shapings, 30.0)]
    assert kept[0] is None and kept[1] is not None


def test_a_file_of_ones_own_is_measured_and_a_foreign_one_refused_with_the_reason(toy, tmp_path):
    own = networks.build("lr", (8,), 2, 9)
    own.save(tmp_path / "own.keras")
    found = baselines.baseline_from(tmp_path / "own.keras", training(), toy)
    expected = (own.predict(toy.x_test, verbose=0).argmax(1) == toy.y_test).mean()
    assert found.accuracy == pytest.approx(expected, abs=1e-6) and found.own and found.name == "own"
    assert found.suffix == f"_from_{found.sha256[:8]}" and found.hits(toy.x_test, toy.y_test).shape == (1, 60)
    networks.build("shallow-mlp", (8,), 2, 9).save(tmp_path / "other.keras")
    (tmp_path / "text.keras").write_text("no archive")
    for name in ("other.keras", "text.keras"):
        with pytest.raises(BadInput) as refusal:
            baselines.baseline_from(tmp_path / name, training(), toy)
        reason = str(refusal.value).partition("(")[2].rpartition(")")[0]
        assert name in str(refusal.value) and len(reason.split()) > 2, refusal.value  # words, not an error's type
