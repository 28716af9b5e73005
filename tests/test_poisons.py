"""Label flips, and the files that poisons come in."""

import json
import pickle
import sys
import zipfile

import numpy as np
import pandas
import pytest
import scipy.io
import scipy.sparse
from conftest import refused

from command_line import BadInput
from datasets import Dataset
from files import file_sha256, write_npz
from poisons import attacks, crafting, label_flip, poison_set
from results import layout

SETTINGS = {"attack": "label-flips", "dataset": "fashion_mnist_3_4.1.0", "ratio": 0.4, "seed": 215}


def rows_of(labels, shape=(3,)):
    """A data set of random rows with these labels."""
    y = np.asarray(labels, np.int32)
    x = np.random.default_rng(0).random((len(y), *shape), np.float32)
    return Dataset("toy", int(y.max()) + 1, shape, x, y, x, y)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("ratio", [0.01, 0.4, 1.0])
def test_flips_keep_budget_and_change_every_label(classes, ratio):
    data = rows_of(np.random.default_rng(1).integers(0, classes, 1000))
    poisons = label_flip.craft(data, ratio, 215)
    assert len(poisons.rows) == round(ratio * 1000) == len(set(poisons.rows.tolist())) == poisons.total
    assert (poisons.labels != data.y_train[poisons.rows]).all() and set(poisons.labels) <= set(range(classes))


def test_flips_are_nested_and_seeded():
    data = rows_of(np.arange(1000) % 2)
    small, large, other = (label_flip.craft(data, *setting).rows for setting in ((0.1, 1), (0.4, 1), (0.1, 2)))
    assert np.array_equal(small, large[:100]) and not np.array_equal(small, other)


def test_labels_of_many_classes_use_them_all():
    poisons = label_flip.craft(rows_of([9, *np.zeros(999, int)]), 1.0, 3)
    assert set(poisons.labels[poisons.rows > 0]) == set(range(1, 10))


def test_file_round_trip_and_same_bytes(tmp_path, subtask):
    poisons = label_flip.craft(subtask, 0.02, 215)
    rows, labels = poisons.rows, poisons.labels
    path = tmp_path / "flips.npz"
    assert poison_set.save(path, SETTINGS, labels, rows=rows)
    written = path.read_bytes()
    assert not poison_set.save(path, SETTINGS, labels, rows=rows)
    loaded = poison_set.load(path, subtask)
    assert (loaded.attack, loaded.name, loaded.dataset) == ("label-flips", "flips", subtask.name)
    assert loaded.record == {
        "attack": "label-flips", "poison_set": "flips", "poison_sha256": file_sha256(path),
        "poison": {"ratio": 0.4, "seed": 215}, "n_poison": 216, "clean_rows": 10800, "ratio": 0.02,
    }  # fmt: skip
    assert np.array_equal(loaded.x, subtask.x_train[rows]) and np.array_equal(loaded.y, 1 - subtask.y_train[rows])
    path.unlink()
    poison_set.save(path, SETTINGS, labels, rows=rows)
    assert path.read_bytes() == written


def test_the_order_in_which_settings_are_named_makes_no_other_file(tmp_path):
    path = tmp_path / "flips.npz"
    settings = {**SETTINGS, "seed": 3, "ratio": 0.1}
    assert poison_set.save(path, settings, [1, 0], rows=[4, 2])
    written = path.read_bytes()
    assert not poison_set.save(path, dict(reversed(settings.items())), [1, 0], rows=[4, 2])
    assert path.read_bytes() == written


def forge(path, settings):
    """A poison file with settings that `poison_set.save` would not write, and a right checksum."""
    arrays = {"rows": np.array([5]), "labels": np.array([0]), "settings": np.array(json.dumps(settings))}
    write_npz(path, {**arrays, "checksum": np.array(poison_set._checksum(arrays))})


def test_damaged_file_is_replaced(tmp_path, subtask):
    path = tmp_path / "flips.npz"
    path.write_bytes(b"half a file")
    assert poison_set.save(path, SETTINGS, [0], rows=[5])
    assert len(poison_set.load(path, subtask).y) == 1


def test_instances_round_trip(tmp_path, subtask):
    x = np.random.default_rng(0).random((7, 28, 28, 1), np.float32)
    poison_set.save(tmp_path / "own.npz", {**SETTINGS, "attack": "own"}, np.ones(7), instances=x)
    loaded = poison_set.load(tmp_path / "own.npz", subtask)
    assert np.array_equal(loaded.x, x) and loaded.attack == "own"


def save_instances(path, x, labels, settings=SETTINGS):
    poison_set.save(path, settings, labels, instances=x)


def altered(path):
    """A file whose labels were changed after it was written: its checksum is the old one."""
    poison_set.save(path, SETTINGS, [0, 0], rows=[5, 6])
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["labels"] = np.array([1, 0])
    np.savez(path, **arrays)


def truncated(path):
    poison_set.save(path, SETTINGS, np.zeros(500), rows=np.arange(500))
    path.write_bytes(path.read_bytes()[:-40])


class Foreign:
    def __reduce__(self):
        return print, ("code was executed",)


PIXELS = np.full((2, 784), 0.5)
BAD_FILES = {
    "missing.npz": lambda path: None,
    "truncated.npz": truncated,
    "empty.npz": lambda path: path.write_bytes(b""),
    "text.npz": lambda path: path.write_text("rows"),
    "lone_array.npz": lambda path: path.write_bytes(pickle.dumps(1)),
    "no_members.npz": lambda path: zipfile.ZipFile(path, "w").close(),
    "object_array.npz": lambda path: np.savez(
        path, rows=np.array([Foreign()], object), labels=[0], settings="{}", checksum=""
    ),
    "altered.npz": altered,
    "other_dataset.npz": lambda path: poison_set.save(path, {**SETTINGS, "dataset": "purchases"}, [0], rows=[5]),
    "row_outside.npz": lambda path: poison_set.save(path, SETTINGS, [0], rows=[10800]),
    "negative_row.npz": lambda path: poison_set.save(path, SETTINGS, [0], rows=[-1]),
    "no_rows.npz": lambda path: poison_set.save(path, SETTINGS, [], rows=[]),
    "wrong_shape.npz": lambda path: save_instances(path, np.zeros((2, 27, 28)), [0, 1]),
    "too_few_labels.npz": lambda path: save_instances(path, PIXELS, [0]),
    "above_one.npz": lambda path: save_instances(path, 255 * PIXELS, [0, 1]),
    "below_zero.npz": lambda path: save_instances(path, -PIXELS, [0, 1]),
    "nan.npz": lambda path: save_instances(path, PIXELS * np.nan, [0, 1]),
    "infinite.npz": lambda path: save_instances(path, PIXELS * np.inf, [0, 1]),
    "no_attack.npz": lambda path: forge(path, {"dataset": SETTINGS["dataset"]}),
    "no_settings.npz": lambda path: forge(path, ["label-flips"]),
    "rows_of_two.npz": lambda path: poison_set.save(path, SETTINGS, [0], rows=[5], target_rows=[6]),
    "no_such_label.npz": lambda path: save_instances(path, PIXELS, [0, 2]),
    "flips.txt": lambda path: path.write_text("1 2 3"),
    "foreign_class.pkl": lambda path: path.write_bytes(pickle.dumps([Foreign()])),
    "system_call.pkl": lambda path: path.write_bytes(b"cos\nsystem\n(S'echo code was executed'\ntR."),
    "codec.pkl": lambda path: path.write_bytes(b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR."),
    "truncated.pkl": lambda path: path.write_bytes(pickle.dumps((PIXELS, [0, 1]))[:-9]),
    "empty.pkl": lambda path: path.write_bytes(b""),
    "wrong_layout.pkl": lambda path: path.write_bytes(pickle.dumps([{"instance": PIXELS[0]}])),
    "text_inside.pkl": lambda path: path.write_bytes(pickle.dumps((np.array([["a"]]), np.array([0])))),
    "nan.pkl": lambda path: path.write_bytes(pickle.dumps((PIXELS * np.nan, np.array([0, 1])))),
    "wrong_shape.pkl": lambda path: path.write_bytes(pickle.dumps((PIXELS[:, 1:], np.array([0, 1])))),
    "no_sets.mat": lambda path: scipy.io.savemat(path, {"X_train": PIXELS}),
    "truncated.mat": lambda path: (
        scipy.io.savemat(path, {"bestX": PIXELS[None], "bestY": [[1, -1]]}),
        path.write_bytes(path.read_bytes()[:300]),
    ),
    "text.mat": lambda path: path.write_text("bestX"),
    "wrong_labels.mat": lambda path: scipy.io.savemat(path, {"bestX": PIXELS[None], "bestY": [[0, 1]]}),
    "nan.mat": lambda path: scipy.io.savemat(path, {"bestX": PIXELS[None] * np.nan, "bestY": [[1, -1]]}),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_refused_in_one_line(name, tmp_path, subtask, capfd):
    path = tmp_path / name
    BAD_FILES[name](path)
    with pytest.raises(BadInput) as refusal:
        poison_set.load(path, subtask)
    message = str(refusal.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and "; " in message
    assert "code was executed" not in message + capfd.readouterr().out


@pytest.mark.parametrize("protocol", range(5))
def test_pickles_of_the_papers_layout_load(protocol, tmp_path, subtask):
    x = np.random.default_rng(0).random((3, 784), np.float32)
    path = tmp_path / "shapes" / "poisons_for_7.pkl"
    path.parent.mkdir()
    path.write_bytes(
        pickle.dumps(
            [{"instance": row[np.newaxis], "class": label, "perturbs": row * 0} for row, label in zip(x, (1, 0, 1))],
            protocol,
        )
    )
    loaded = poison_set.load(path, subtask)
    assert np.array_equal(loaded.x.reshape(3, -1), x) and loaded.y.tolist() == [1, 0, 1] and loaded.attack == "shapes"
    path.write_bytes(pickle.dumps((x, np.array([1, 0, 1])), protocol))
    assert np.array_equal(poison_set.load(path, subtask).x.reshape(3, -1), x)


@pytest.mark.parametrize("layout", ["array", "cells", "sparse cells", "one set"])
def test_slab_files_use_the_first_set_clipped(layout, tmp_path, subtask):
    random = np.random.default_rng(0)
    sets, labels = random.normal(0.5, 1, (10, 6, 784)), random.choice([-1, 1], (10, 6))
    stored = {"bestX": sets, "bestY": labels}
    if layout == "one set":
        stored = {"bestX": sets[0], "bestY": labels[:1]}
    elif layout != "array":
        stored = {name: np.empty(10, object) for name in stored}
        for index in range(10):
            stored["bestX"][index] = scipy.sparse.csc_matrix(sets[index]) if layout == "sparse cells" else sets[index]
            stored["bestY"][index] = labels[index][:, np.newaxis]
    path = tmp_path / "my_slabs" / "fmnist_34_attack_eps40_quantile65_rho_slab.mat"
    path.parent.mkdir()
    scipy.io.savemat(path, stored)
    loaded = poison_set.load(path, subtask)
    assert np.allclose(loaded.x.reshape(6, -1), np.clip(sets[0], 0, 1)) and np.array_equal(loaded.y, labels[0] > 0)
    assert loaded.attack == "my_slabs" and loaded.name == "fmnist_34_attack_eps40_quantile65_rho_slab"


def test_a_sparse_matrix_that_would_fill_the_memory_is_refused():
    from poisons import mat_file

    small = scipy.sparse.csc_matrix(np.eye(3))
    assert np.array_equal(mat_file.first_set(small, 2), np.eye(3))
    with pytest.raises(ValueError, match="a sparse matrix of"):
        mat_file.first_set(scipy.sparse.csc_matrix((2**20, 2**20)), 2)


# --- attacks and their commands ---


def test_attacks_are_found_without_what_they_need_to_craft(workplace):
    heavy = {"tensorflow", "clarabel", "cma", "matplotlib", "scipy", "pandas"}
    code = f"import sys, poisons; print(*poisons.attacks()); print(*{heavy} & sys.modules.keys())"
    names, loaded = workplace.succeed("python3", "-c", code, python=sys.executable).stdout.splitlines()
    assert (
        set(names.split()) >= {"label-flips", "collision", "insertion", "slabs", "slabs-release", "minmax"}
        and not loaded
    )


def test_default_files_are_the_kept_ones(subtask):
    found = attacks()
    for ratio in (0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.2, 0.3, 0.4):
        for name in ("label-flips", "slabs", "slabs-release"):
            path = found[name].default_path(subtask.name, ratio)
            assert poison_set.settings_of(path) == found[name].settings(subtask.name, ratio), path
    flips, slabs = (found[name].settings("d", 0.1, 7) for name in ("label-flips", "slabs"))
    assert flips == {"attack": "label-flips", "dataset": "d", "ratio": 0.1, "seed": 7}
    assert (
        slabs["epsilon"] == 0.1 and slabs["seed"] == layout.SEED
    )  # a set that is searched for is the same for every seed


def test_what_is_unusual_stands_in_a_files_name(subtask):
    slabs, minmax = attacks()["slabs"], attacks()["minmax"]
    usual = slabs.settings(subtask.name, 0.4)
    names = {
        slabs.path(subtask.name, {**usual, **more}).stem
        for more in ({}, {"rho": 2.0}, {"generations": 2}, {"quantile": 0.5}, {"seed": 1})
    }
    assert len(names) == 5 and "fmnist_34_attack_eps40_quantile65_rho_slab_generations_2" in names
    assert slabs.path("digits", usual).stem == "digits_attack_eps40_quantile65_rho_slab"
    usual = minmax.settings(subtask.name, 0.4)
    assert len({minmax.path(subtask.name, {**usual, **more}) for more in ({}, {"rho": 2.0}, {"step_size": 0.1})}) == 3
    own = crafting.Attack(
        "own", label_flip.craft, (crafting.RATIO, crafting.SEED, crafting.Option("depth", int, default=3))
    )
    name = own.path("d", {"ratio": 0.1, "seed": 7, "depth": 4}).relative_to(layout.POISONS)
    assert str(name) == "indiscriminate/own/d_own_0.1_depth_4_seed_7.npz"


def test_an_attack_of_ones_own_is_crafted_once_and_measured(tmp_path, monkeypatch):
    data, calls = rows_of(np.arange(40) % 2), []

    def craft(dataset, ratio, depth):
        calls.append(ratio)
        rows = np.arange(round(ratio * len(dataset.y_train)))
        return crafting.Poisons(1 - dataset.y_train[rows], rows=rows, measured={"loss": ratio / 3, "solver": "good"})

    monkeypatch.setattr(layout, "POISONS", tmp_path / "poisons")
    monkeypatch.setattr(layout, "RESULTS", tmp_path / "results")
    attack = crafting.Attack("own", craft, (crafting.RATIO, crafting.Option("depth", int, default=3)), slow=True)
    for sets, notes in (
        ([{"ratio": 0.5}, {"ratio": 0.1}], ["20 poisons in", "4 poisons in"]),
        ([{"ratio": 0.5}, {"ratio": 0.2, "depth": 4}], ["crafted before", "8 poisons in"]),
    ):
        done = list(crafting.craft(attack, data, sets))
        assert all(note.startswith(start) for (_, [note]), start in zip(done, notes))
    assert calls == [0.5, 0.1, 0.2]
    table = pandas.read_csv(layout.crafting_file("own"), float_precision="round_trip")
    assert list(table) == [
        "poison_set",
        "attack",
        "dataset",
        "ratio",
        "seed",
        "n_poison",
        "wall_seconds",
        "depth",
        "loss",
        "solver",
    ]
    assert table["poison_set"].tolist() == ["toy_own_0.1", "toy_own_0.2_depth_4", "toy_own_0.5"]
    assert table["loss"].tolist() == [0.1 / 3, 0.2 / 3, 0.5 / 3] and table["n_poison"].tolist() == [4, 8, 20]
    done[0][0].unlink()
    list(crafting.craft(attack, data, [{"ratio": 0.5}]))
    assert len(pandas.read_csv(layout.crafting_file("own"))) == 3  # in place of the line before
    layout.crafting_file("own").write_text("half a")
    with pytest.raises(BadInput, match="crafting.csv"):
        list(crafting.craft(attack, data, [{"ratio": 0.5}]))
    with pytest.raises(BadInput, match="--ratio 0.001: less than one poison among 40 rows"):
        list(crafting.craft(attack, data, [{"ratio": 0.001}]))


@pytest.mark.parametrize("ratio", ["0", "-0.1", "1.01", "nan", "inf", "many", "1e-05"])
def test_command_refuses_a_bad_ratio(ratio, workplace):
    assert ratio in refused(workplace.run("python3", "-m", "poisons.label_flip", f"--ratio={ratio}"))


@pytest.mark.parametrize("dataset", ["subtask", "fashion_mnist_3_4.1.0"])
def test_command_prints_the_paths(dataset, workplace):
    done = workplace.succeed(
        "python3", "-m", "poisons.label_flip", "--dataset", dataset, "--ratio", "0.01", "0.4", "0.01"
    )
    assert [line.rsplit("/", 1)[1] for line in done.stdout.split()] == [
        "fashion_mnist_3_4.1.0_random_0.01.npz",
        "fashion_mnist_3_4.1.0_random_0.4.npz",
    ]
    assert done.stderr.splitlines()[1] == "fashion_mnist_3_4.1.0_random_0.4: 4320 poisons already there"


def test_one_command_crafts_for_the_sweeps(workplace):
    done = workplace.succeed(
        "python3", "-m", "poisons", "--attack", "slabs", "label-flips", "--ratio", "0.1", "0.4", "--seed", "215"
    )
    slabs, flips = "fmnist_34_attack_eps{}_quantile65_rho_slab", "fashion_mnist_3_4.1.0_random_{}"
    expected = [slabs.format(10), slabs.format(40), flips.format(0.1), flips.format(0.4)]
    assert [path.split("/")[-1] for path in done.stdout.split()] == [f"{name}.npz" for name in expected]
    assert all(line.endswith(("crafted before", "already there")) for line in done.stderr.splitlines())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--attack flips --ratio 0.1", "flips"),
        ("--attack collision --ratio 0.1", "collision"),
        ("--attack --ratio 0.1", "--attack"),
        ("--attack label-flips --ratio", "--ratio"),
        ("--attack label-flips slabs --ratio 0.1 --dataset purchases", "slabs cannot poison it: it has 100 classes"),
        ("--attack label-flips --ratio 0.1 --dataset mnist", "--dataset mnist"),
        ("--attack label-flips --ratio 0.1 --seed -1", "--seed"),
        ("--attack minmax --ratio 0.1 0.00001", "--ratio 1e-05"),
    ],
)
def test_the_command_for_the_sweeps_refuses_bad_input(options, named, workplace):
    assert named in refused(workplace.run("python3", "-m", "poisons", *options.split()))
    assert not workplace.results.exists()
