"""Backdoors: what they stamp, what they are filed as, and what is refused."""

import numpy as np
import pytest
from conftest import REPOSITORY, refused

from poisons import backdoor, images, poison_set


@pytest.mark.parametrize(("patch", "margin"), [(1, 1), (4, 1), (14, 1), (27, 1), (28, 0)])
def test_a_stamp_is_a_white_square_one_pixel_in_from_the_corner(patch, margin):
    x = np.random.default_rng(0).random((5, 28, 28, 1), np.float32) * np.float32(0.9)
    before = x.copy()
    stamped = images.stamp(x, patch)
    assert np.array_equal(x, before) and stamped.dtype == np.float32
    rows, columns = np.nonzero((stamped != x).all((0, 3)))
    assert len(rows) == patch**2 == np.count_nonzero(stamped[0] == 1)
    for places in (rows, columns):
        assert places.min() == margin and places.max() == margin + patch - 1


def test_rows_are_a_seeded_choice_of_other_classes_without_repetition():
    y = np.arange(60000) % 10
    rows = backdoor.craft(y, 4, 0.01, 215)
    assert len(set(rows.tolist())) == 600 and np.array_equal(rows, backdoor.craft(y, 4, 0.01, 215))
    assert not np.array_equal(rows, backdoor.craft(y, 4, 0.01, 7)) and set(y[rows]) == set(range(10)) - {4}


def test_kept_files_stamp_the_same_rows_with_every_patch(full):
    rows = backdoor.craft(full.y_train, 4, 0.01, 215)
    for patch in (1, 4, 7, 10, 14):
        poisons = poison_set.load(REPOSITORY / f"datasets/backdoors/fashion_mnist/4_0.01_{patch}.npz", full)
        assert (poisons.attack, poisons.settings["patch"]) == ("insertion", patch) and poisons.y.tolist() == [4] * 600
        assert np.array_equal(poisons.x, images.stamp(full.x_train[rows], patch))


@pytest.mark.parametrize(
    ("options", "named", "mend"),
    [
        (["--patch", "29"], "--patch 29", "1 to 28"),
        (["--patch", "0"], "--patch: '0'", "1 or more"),
        (["--patch", "2.5"], "--patch: '2.5'", "whole"),
        ([], "--patch", "--help"),
        (["--patch", "4", "--label", "2"], "--label 2", "0 to 1"),
        (["--patch", "4", "--label", "-1"], "--label", "0 or more"),
        (["--patch", "4", "--ratio", "0"], "--ratio: '0'", "above 0"),
        (["--patch", "4", "--ratio", "0.00001"], "--ratio 1e-05", "larger"),
        (["--patch", "4", "--ratio", "0.6"], "--ratio 0.6", "smaller"),
        (["--patch", "4", "--seed", "-1"], "--seed", "whole"),
    ],
)
def test_bad_options_are_refused(options, named, mend, workplace):
    message = refused(workplace.run("python3", "-m", "poisons.backdoor", "--dataset", "subtask", "--label", "1", *options))
    assert named in message and mend in message
    assert not workplace.results.exists()


def test_a_file_with_too_large_a_patch_is_refused(tmp_path, subtask, capsys):
    settings = {"attack": "insertion", "dataset": subtask.name, "label": 1, "ratio": 0.01, "patch": 40, "seed": 215}
    poison_set.save(tmp_path / "bad.npz", settings, [1], rows=[0])
    with pytest.raises(SystemExit) as refusal:
        poison_set.load(tmp_path / "bad.npz", subtask)
    assert refusal.value.code == 2 and "patch" in capsys.readouterr().err
