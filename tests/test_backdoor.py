"""Backdoors: what they stamp, what they are filed as, and what is refused."""

import numpy as np
import pytest
from conftest import REPOSITORY, refused
from test_poisons import rows_of

from command_line import BadInput
from poisons import backdoor, poison_set


@pytest.mark.parametrize(("patch", "margin"), [(1, 1), (4, 1), (14, 1), (27, 1), (28, 0)])
def test_a_stamp_is_a_white_square_one_pixel_in_from_the_corner(patch, margin):
    x = np.random.default_rng(0).random((5, 28, 28, 1), np.float32) * np.float32(0.9)
    before = x.copy()
    stamped = backdoor.stamp(x, patch)
    assert np.array_equal(x, before) and stamped.dtype == np.float32
    rows, columns = np.nonzero((stamped != x).all((0, 3)))
    assert len(rows) == patch**2 == np.count_nonzero(stamped[0] == 1)
    for places in (rows, columns):
        assert places.min() == margin and places.max() == margin + patch - 1


def test_rows_are_a_seeded_choice_of_other_classes_without_repetition():
    data = rows_of(np.arange(60000) % 10, (2, 2, 1))
    rows, again, other = (
        backdoor.craft(data, 4, 0.01, patch, seed).rows for patch, seed in ((1, 215), (2, 215), (1, 7))
    )
    assert len(set(rows.tolist())) == 600 and np.array_equal(rows, again)
    assert not np.array_equal(rows, other) and set(data.y_train[rows]) == set(range(10)) - {4}


def test_kept_files_stamp_the_same_rows_with_every_patch(full):
    rows = backdoor.craft(full, 4, 0.01, 1, 215).rows
    for patch in (1, 4, 7, 10, 14):
        poisons = poison_set.load(REPOSITORY / f"datasets/backdoors/fashion_mnist/4_0.01_{patch}.npz", full)
        assert (poisons.attack, poisons.settings["patch"]) == ("insertion", patch) and poisons.y.tolist() == [4] * 600
        assert np.array_equal(poisons.x, backdoor.stamp(full.x_train[rows], patch))


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
        (["--patch", "4", "--dataset", "purchases"], "--dataset purchases-cj", "no images"),
    ],
)
def test_bad_options_are_refused(options, named, mend, workplace):
    message = refused(
        workplace.run("python3", "-m", "poisons.backdoor", "--dataset", "subtask", "--label", "1", *options)
    )
    assert named in message and mend in message
    assert not workplace.results.exists()


@pytest.mark.parametrize("patch", [40, 0, 2.5, "4", None])
def test_a_file_with_a_bad_patch_is_refused(patch, tmp_path, subtask):
    settings = {"attack": "insertion", "dataset": subtask.name, "label": 1, "ratio": 0.01, "patch": patch, "seed": 215}
    poison_set.save(tmp_path / "bad.npz", settings, [1], rows=[0])
    with pytest.raises(BadInput, match="bad.npz: patch is .* 1 to 28; craft it again"):
        poison_set.load(tmp_path / "bad.npz", subtask)


def test_a_file_with_patches_on_baskets_is_refused(tmp_path, purchases):
    settings = {"attack": "insertion", "dataset": purchases.name, "label": 1, "patch": 4}
    poison_set.save(tmp_path / "bad.npz", settings, [1], rows=[0])
    with pytest.raises(BadInput, match="bad.npz: insertion cannot poison purchases-cj: its rows are no images"):
        poison_set.load(tmp_path / "bad.npz", purchases)


def test_success_is_the_share_of_stamped_images_that_are_given_the_label(subtask):
    seen = {}

    def hits(x, labels):
        seen.update(x=x, labels=labels)
        return (subtask.y_test == 0)[np.newaxis]

    values = backdoor.ATTACK.measure(subtask, {"patch": 4, "label": 1}, hits)
    assert tuple(values) == (0.5, 1.0) and len(values) == len(backdoor.ATTACK.measures)
    assert (
        np.array_equal(seen["x"], backdoor.stamp(subtask.x_test, 4).reshape(2000, -1)) and (seen["labels"] == 1).all()
    )
