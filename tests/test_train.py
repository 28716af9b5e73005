"""train.py as a command: what it writes, refuses, skips, and how it survives being killed."""

import argparse
import csv
import hashlib
import json
import os
import pickle
import signal
import time

import numpy as np
import pytest
from conftest import ALL_CORES, REPOSITORY, refused
from conftest import TRAIN as SUBTASK

from models import privacy
from poisons import label_flip, poison_set
from results import layout

POISONS = REPOSITORY / "datasets/poisons/indiscriminate/label-flips"
FLIPS = POISONS / "fashion_mnist_3_4.1.0_random_0.05.npz"
MLP = REPOSITORY / "models/fashion_mnist/vanilla_shallow-mlp_100_100_0.04/best.keras"


def lines(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    ("options", "named", "mend"),
    [
        (["--dataset", "mnist"], "--dataset", "subtask"),
        (["--shaping", "clip:4:0:1"], "--shaping: 'clip:4:0:1'", "clip:clip_norm"),
        (["--shaping", "undefended:noise_std=1", "--engine", "tfprivacy"], "--engine tfprivacy", "--engine stack"),
        (["--network", "resnet"], "--network", "shallow-mlp"),
        (["--network", "shallow-mlp"], "--network shallow-mlp", "choose one of lr"),
        (["--clip-norm", "0"], "--clip-norm: '0'", "above 0"),
        (["--clip-norm=-1"], "--clip-norm: '-1'", "above 0"),
        (["--clip-norm", "nan"], "--clip-norm: 'nan'", "above 0"),
        (["--clip-norm", "inf"], "--clip-norm: 'inf'", "above 0"),
        (["--clip-norm", "tight"], "--clip-norm: 'tight'", "above 0"),
        (["--clip-norm", "1", "--noise-std=-0.1"], "--noise-std: '-0.1'", "0 or more"),
        (["--noise-std", "0.1"], "--noise-std", "--clip-norm"),
        (["--shaping", "1", "--clip-norm", "1"], "--shaping", "leave --clip-norm"),
        (["--shaping", "tight"], "--shaping: 'tight'", "4:0.0025"),
        (["--epochs", "0"], "--epochs: '0'", "1 or more"),
        (["--epochs", "2.5"], "--epochs: '2.5'", "whole"),
        (["--seed", "-1"], "--seed", "whole number"),
        (["--learning-rate", "0"], "--learning-rate: '0'", "above 0"),
        (["--record"], "--record", "--poison"),
        (["--engine", "jax"], "--engine", "stack"),
        (["--poison", FLIPS, "--record", "--engine", "tfprivacy"], "--record", "--engine stack"),
        (["--poison", "no/such/file.npz"], "no/such/file.npz", "craft"),
        (["--poison", FLIPS, REPOSITORY / "pyproject.toml"], "pyproject.toml", ".npz"),
        (["--retrain"], "--retrain", "--poison"),
        (["--baseline", "model.keras"], "--baseline", "--poison"),
        (["--poison", FLIPS, "--baseline", "no/such/model.keras"], "--baseline no/such/model.keras", ".keras"),
        (["--poison", FLIPS, "--baseline", REPOSITORY / "pyproject.toml"], "pyproject.toml", ".keras"),
        (["--poison", FLIPS, "--baseline", MLP, "--retrain"], "best.keras", "lr on fashion_mnist_3_4.1.0"),
        (["--frobnicate"], "--frobnicate", "--help"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(options, named, mend, workplace):
    message = refused(workplace.run(*SUBTASK, *options))
    assert named in message and mend in message
    assert not list(workplace.folder.iterdir())


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.with_suffix(".npz").write_bytes(FLIPS.read_bytes()[:-30]),
        lambda path: poison_set.save(
            path.with_suffix(".npz"),
            {"attack": "own", "dataset": "fashion_mnist_3_4.1.0"},
            [0],
            instances=np.full((1, 784), np.nan),
        ),
        lambda path: path.with_suffix(".pkl").write_bytes(pickle.dumps([argparse.Namespace()])),
    ],
    ids=["truncated", "NaN", "foreign class"],
)
def test_bad_poison_files_are_refused_before_anything_is_written(make, workplace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("poisons")
    make(folder / "bad")
    path = next(folder.iterdir())
    assert str(path) in refused(workplace.run(*SUBTASK, "--poison", FLIPS, path))
    assert not list(workplace.folder.iterdir())


def test_two_files_of_one_name_are_refused(workplace, tmp_path_factory):
    copy = tmp_path_factory.mktemp("copy") / FLIPS.name
    copy.write_bytes(FLIPS.read_bytes())
    assert "more than one file would be filed under label-flips/" in refused(
        workplace.run(*SUBTASK, "--poison", FLIPS, copy)
    )
    assert not list(workplace.folder.iterdir())


def test_an_own_file_of_a_kept_sets_name_replaces_no_result(workplace, tmp_path_factory):
    workplace.succeed(*SUBTASK, "--poison", FLIPS, "--epochs", "1")
    before = workplace.written()
    own = tmp_path_factory.mktemp("own") / FLIPS.name
    poison_set.save(own, {"attack": "label-flips", "dataset": layout.SUBTASK}, [0] * 540, rows=range(540))
    message = refused_last(workplace.run(*SUBTASK, "--poison", own, "--epochs", "1"))
    assert "holds a result with another" in message and "rename the poison file" in message
    assert workplace.written() == before


@pytest.mark.parametrize("name", ["../../escaped", "a/b", "..", ""])
def test_a_poison_file_does_not_choose_where_is_written(name, workplace, tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "flips.npz"
    poison_set.save(path, {"attack": name, "dataset": layout.SUBTASK}, [0], rows=[0])
    assert "attack is called" in refused(workplace.run(*SUBTASK, "--poison", path))
    assert not list(workplace.folder.iterdir())


def test_sets_that_no_command_made_are_measured_by_accuracy_alone(workplace, tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "insertion/own.pkl"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps((np.full((3, 784), 0.5), np.array([0, 1, 0]))))
    workplace.succeed(*SUBTASK, "--poison", path, "--epochs", "1", MODELS=REPOSITORY / "models")
    (table,) = workplace.written().values()
    assert table.decode().splitlines()[0].endswith("train_acc_poison,epsilon")


def refused_last(done):
    """The refusal behind lines of progress."""
    done.stderr = done.stderr.splitlines()[-1]
    return refused(done)


def test_repeated_settings_are_trained_once(workplace):
    workplace.succeed(*SUBTASK, "--poison", FLIPS, FLIPS, "--clip-norm", "1", "1.0", "--epochs", "1")
    assert len(workplace.written()) == 1


def test_baseline_is_kept_best_and_final(workplace, subtask):
    import tensorflow as tf

    workplace.succeed(*SUBTASK, "--epochs", "3")
    folder = workplace.models / "subtask/vanilla_lr_300_3_0.01"
    config, history = json.loads((folder / "config.json").read_text()), lines(folder / "history.csv")
    accuracies = [float(line["test_acc"]) for line in history]
    assert [line["epoch"] for line in history] == ["1", "2", "3"] and {line["epsilon"] for line in history} == {"inf"}
    assert config["best_test_acc"] == max(accuracies) > 0.9 and config["final_test_acc"] == accuracies[-1]
    for name, expected in (("best", max(accuracies)), ("final", accuracies[-1])):
        model = tf.keras.models.load_model(folder / f"{name}.keras")
        assert np.mean(model.predict(subtask.x_test, verbose=0).argmax(1) == subtask.y_test) == pytest.approx(
            expected, abs=0.0011
        )

    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    workplace.succeed(*SUBTASK, "--epochs", "3")
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    (folder / "best.keras").write_bytes((folder / "best.keras").read_bytes()[:-9])
    assert "best.keras: missing or damaged; delete" in refused(workplace.run(*SUBTASK, "--epochs", "3"))


def test_clean_models_under_dp_are_filed_by_their_shaping_and_what_they_reached(workplace):
    workplace.succeed(*SUBTASK, "--epochs", "1", "--clip-norm", "1", "--noise-std", "0", "0.5")
    folders = sorted((workplace.models / "subtask").iterdir())
    spent = round(privacy.epsilon(0.5, 300, 10800, 36, 1e-5), 4)
    for folder, noise_multiplier, epsilon in zip(folders, (0.0, 0.5), ("inf", str(spent))):
        (history,) = lines(folder / "history.csv")
        reached = f"epoch_1_acc_{float(history['test_acc']):.4f}_eps_{epsilon}"
        assert (
            folder.name == f"dp_lr_300_1_0.01_1000.0_1e-05_1.0_{noise_multiplier}_{reached}"
            and history["epsilon"] == epsilon
        )
    times = {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()}
    workplace.succeed(*SUBTASK, "--epochs", "1", "--shaping", "1", "1:0.5")
    assert times == {path: path.stat().st_mtime_ns for path in (workplace.models / "subtask").glob("*/*")}


def test_same_seed_same_bytes_another_seed_other_numbers(workplace, tmp_path_factory):
    from conftest import Workplace

    grid = ("--poison", FLIPS, "--undefended", "--clip-norm", "0.1", "4", "--noise-std", "0", "0.1", "--epochs", "2")
    workplace.succeed(*SUBTASK, *grid)
    other = Workplace(tmp_path_factory.mktemp("other"))
    other.succeed(*SUBTASK, *grid, LANG="tr_TR.UTF-8", TZ="Asia/Tokyo", **ALL_CORES)
    assert len(workplace.written()) == 5 and workplace.written() == other.written()
    other.succeed(*SUBTASK, *grid, "--seed", "7")
    assert len(other.written()) == 10
    ours = [content for name, content in other.written().items() if "_seed_7" not in name]
    theirs = [content for name, content in other.written().items() if "_seed_7" in name]
    assert all(content not in ours for content in theirs)

    for name in workplace.written():
        table = lines(workplace.results / name)
        assert list(table[0]) == [
            "epoch",
            "n_poison",
            "baseline_acc",
            "test_acc",
            "train_acc_clean",
            "train_acc_poison",
            "epsilon",
        ]
        assert [line["epoch"] for line in table] == ["1", "2"] and table[0]["n_poison"] == "540"
        assert (float(table[0]["epsilon"]) < np.inf) == ("_0.0/" not in name and "vanilla" not in name)
    run = json.loads((workplace.results / name).with_name("run.json").read_text())
    settings = run["settings"]
    assert settings["seed"] == 215 and len(settings["poison_sha256"]) == 64 and run["wall_seconds"] > 0
    poisons = ("dataset", "attack", "n_poison", "clean_rows", "ratio", "poison")
    whole = [layout.SUBTASK, "label-flips", 540, 10800, 0.05, {"ratio": 0.05, "seed": 215}]
    assert [settings[part] for part in poisons] == whole and layout.SUBTASK in settings["poison_set"]


def test_only_what_is_missing_or_damaged_is_written_again(workplace):
    grid = ("--poison", FLIPS, "--undefended", "--clip-norm", "0.1", "4", "--epochs", "2")
    workplace.succeed(*SUBTASK, *grid)
    finished = workplace.written()
    cells = [workplace.results / name for name in finished]
    cells[0].unlink()
    cells[1].write_bytes(cells[1].read_bytes()[:-20])
    kept = cells[2].stat().st_mtime_ns
    assert "finished before" not in workplace.succeed(*SUBTASK, *grid).stderr
    assert workplace.written() == finished and cells[2].stat().st_mtime_ns == kept
    assert "3 trainings finished before" in workplace.succeed(*SUBTASK, *grid).stderr
    workplace.succeed(*SUBTASK, *grid, "--batch-size", "100")
    assert len(workplace.written()) == 6


def test_retraining_starts_from_the_baseline_and_another_one_is_filed_apart(workplace):
    workplace.succeed(*SUBTASK, "--epochs", "2")
    own = workplace.models / "subtask/vanilla_lr_300_2_0.01/final.keras"
    command = (*SUBTASK, "--poison", FLIPS, "--epochs", "1", "--learning-rate", "1e-9", "--retrain")
    workplace.succeed(*command)
    workplace.succeed(*command, "--baseline", own)
    tables = {name: lines(workplace.results / name)[0] for name in workplace.written()}
    assert len(tables) == 2
    for name, line in tables.items():
        assert "_random_0.05_retrain/vanilla_lr_300_1_1e-09" in name
        run = json.loads((workplace.results / name).with_name("run.json").read_text())["settings"]
        if "_from_" in name:
            assert (
                name.split("_from_")[1][:8]
                == run["baseline_sha256"][:8]
                == hashlib.sha256(own.read_bytes()).hexdigest()[:8]
            )
            assert float(line["baseline_acc"]) == float(lines(own.with_name("history.csv"))[-1]["test_acc"])
        assert (run["start"], run["baseline"]) == ("retrain", "own" if "_from_" in name else "kept")
        assert line["test_acc"] == line["baseline_acc"]  # a step of 1e-9 changes no prediction


def test_reference_engine_gives_the_same_story(workplace):
    for engine in ("stack", "tfprivacy"):
        workplace.succeed(
            *SUBTASK, "--poison", FLIPS, "--undefended", "--clip-norm", "1", "--epochs", "1", "--engine", engine
        )
    written = {name: float(lines(workplace.results / name)[0]["test_acc"]) for name in workplace.written()}
    assert len(written) == 4
    for name, accuracy in written.items():
        if "_tfprivacy" in name:
            assert abs(accuracy - written[name.replace("_tfprivacy", "")]) <= 0.001


def test_progress_in_a_file_is_plain_lines(workplace):
    done = workplace.succeed(*SUBTASK, "--poison", FLIPS, "--epochs", "3")
    assert "epoch 3/3, test accuracy 0.9" in done.stderr and "s left" in done.stderr
    assert all(character.isprintable() or character == "\n" for character in done.stderr + done.stdout)


def test_another_gpu_than_there_is_means_the_cpu(workplace):
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    assert "no GPU 0 found: training on the CPU" in workplace.succeed(*SUBTASK, "--epochs", "1", "--gpu", "0").stdout


@pytest.mark.slow
def test_killed_sweeps_end_as_an_undisturbed_one(workplace, tmp_path_factory):
    from conftest import Workplace

    files = [POISONS / f"fashion_mnist_3_4.1.0_random_{ratio}.npz" for ratio in (0.01, 0.02, 0.03, 0.04, 0.05)]
    grid = (
        *SUBTASK,
        "--poison",
        *files,
        "--undefended",
        "--clip-norm",
        "0.1",
        "4",
        "--noise-std",
        "0",
        "0.1",
        "--epochs",
        "6",
    )
    workplace.succeed(*grid)
    expected = workplace.written()
    disturbed = Workplace(tmp_path_factory.mktemp("disturbed"))
    finished, killed = {}, 0
    for target in (
        1,
        6,
        11,
        16,
        21,
    ):  # kill as soon as so many cells are there: in the middle of writing a stack's cells, or of the next stack
        process = disturbed.start(*grid)
        while process.poll() is None and len(list(disturbed.results.rglob("run.json"))) < target:
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
        for path, modified in finished.items():
            assert path.stat().st_mtime_ns == modified, f"{path} was finished and is written again"
        finished = {
            path: path.with_name("attack_results.csv").stat().st_mtime_ns
            for path in disturbed.results.rglob("run.json")
        }
        finished = {path.with_name("attack_results.csv"): modified for path, modified in finished.items()}
    assert killed >= 4
    disturbed.succeed(*grid)
    assert disturbed.written() == expected


@pytest.mark.slow
def test_label_flips_hurt_and_clipping_steadies(workplace, tmp_path_factory, subtask):
    """The effect of the paper in a two-sided band, over three draws: flips at ratio 0.4 cost accuracy, and less of it
    where gradients are clipped.
    """
    drops = []
    for seed in (1, 2, 3):
        flips = label_flip.craft(subtask, 0.4, seed)
        path = tmp_path_factory.mktemp("poisons") / "flips.npz"
        settings = {"attack": "label-flips", "dataset": subtask.name, "seed": seed}
        poison_set.save(path, settings, flips.labels, rows=flips.rows)
        workplace.succeed(*SUBTASK, "--poison", path, "--undefended", "--clip-norm", "1", "--seed", seed)
        folder = workplace.results / "ipoisoning/label-flips/flips"
        tables = [
            lines(next(folder.glob(f"{kind}_*_seed_{seed}")) / "attack_results.csv") for kind in ("vanilla", "dp")
        ]
        drops.append(
            [float(table[0]["baseline_acc"]) - np.mean([float(line["test_acc"]) for line in table]) for table in tables]
        )
    undefended, shaped = np.mean(drops, 0)
    assert 0.015 < undefended < 0.15
    assert 0.005 < shaped < 0.5 * undefended + 0.01
