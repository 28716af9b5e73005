"""Label flips, and the files that poisons come in."""

import pickle
import zipfile

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from conftest import refused

from poisons import label_flip, poison_set

SETTINGS = {"attack": "label-flips", "dataset": "fashion_mnist_3_4.1.0", "ratio": 0.4, "seed": 215}


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("ratio", [0.01, 0.4, 1.0])
def test_flips_keep_budget_and_change_every_label(classes, ratio):
    y = np.random.default_rng(1).integers(0, classes, 1000)
    rows, labels = label_flip.craft(y, classes, ratio, 215)
    assert len(rows) == round(ratio * 1000) == len(set(rows.tolist()))
    assert (labels != y[rows]).all() and labels.min() >= 0 and labels.max() < classes


def test_flips_are_nested_and_seeded():
    y = np.arange(1000) % 2
    small, large, other = (label_flip.craft(y, 2, *setting)[0] for setting in ((0.1, 1), (0.4, 1), (0.1, 2)))
    assert np.array_equal(small, large[:100]) and not np.array_equal(small, other)


def test_labels_of_many_classes_use_them_all():
    y = np.zeros(1000, int)
    assert set(label_flip.craft(y, 10, 1.0, 3)[1]) == set(range(1, 10))


def test_file_round_trip_and_same_bytes(tmp_path, subtask):
    rows, labels = label_flip.craft(subtask.y_train, 2, 0.02, 215)
    path = tmp_path / "flips.npz"
    assert poison_set.save(path, SETTINGS, labels, rows=rows)
    written = path.read_bytes()
    assert not poison_set.save(path, SETTINGS, labels, rows=rows)
    loaded = poison_set.load(path, subtask)
    assert (loaded.attack, loaded.name) == ("label-flips", "flips")
    assert np.array_equal(loaded.x, subtask.x_train[rows]) and np.array_equal(loaded.y, 1 - subtask.y_train[rows])
    path.unlink()
    poison_set.save(path, SETTINGS, labels, rows=rows)
    assert path.read_bytes() == written


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
    "object_array.npz": lambda path: np.savez(path, rows=np.array([Foreign()], object), labels=[0], settings="{}", checksum=""),
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
def test_bad_file_is_refused_in_one_line(name, tmp_path, subtask, capsys):
    path = tmp_path / name
    BAD_FILES[name](path)
    with pytest.raises(SystemExit) as refusal:
        poison_set.load(path, subtask)
    out, message = capsys.readouterr()
    assert refusal.value.code == 2
    assert message.startswith(f"error: {path}: ") and message.count("\n") == 1 and "; " in message
    assert "code was executed" not in out + message


@pytest.mark.parametrize("protocol", range(5))
def test_pickles_of_the_papers_layout_load(protocol, tmp_path, subtask):
    x = np.random.default_rng(0).random((3, 784), np.float32)
    path = tmp_path / "shapes" / "poisons_for_7.pkl"
    path.parent.mkdir()
    path.write_bytes(
        pickle.dumps([{"instance": row[np.newaxis], "class": label, "perturbs": row * 0} for row, label in zip(x, (1, 0, 1))], protocol)
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
    path = tmp_path / "fmnist_34_attack_eps40_quantile65_rho_slab.mat"
    scipy.io.savemat(path, stored)
    loaded = poison_set.load(path, subtask)
    assert np.allclose(loaded.x.reshape(6, -1), np.clip(sets[0], 0, 1)) and np.array_equal(loaded.y, labels[0] > 0)
    assert loaded.attack == "slabs" and loaded.name == "fmnist_34_attack_eps40_quantile65_rho_slab"


@pytest.mark.parametrize("ratio", ["0", "-0.1", "1.01", "nan", "inf", "many", "1e-05"])
def test_command_refuses_a_bad_ratio(ratio, workplace):
    assert ratio in refused(workplace.run("python3", "-m", "poisons.label_flip", f"--ratio={ratio}"))


def test_command_prints_the_paths(workplace):
    done = workplace.succeed("python3", "-m", "poisons.label_flip", "--ratio", "0.01", "0.4")
    assert [line.rsplit("/", 1)[1] for line in done.stdout.split()] == [
        "fashion_mnist_3_4.1.0_random_0.01.npz",
        "fashion_mnist_3_4.1.0_random_0.4.npz",
    ]
