"""Watermarks: what they blend, what they are filed as, and what is refused."""

import numpy as np
import pytest
from conftest import REPOSITORY, refused
from test_poisons import rows_of

from command_line import BadInput
from files import read_npz
from poisons import crafting, poison_set, watermark
from results import layout

FOLDER = REPOSITORY / "datasets/watermarks/fashion_mnist_3_4.1.0"


def test_a_blend_is_the_papers_formula():
    base, target = (np.array(values, np.float32) for values in ([0.0, 0.2, 1.0], [1.0, 0.4, 1.0]))
    assert np.allclose(watermark.blend(base, target, 0.25), [0.25, 0.25, 1.0])
    assert np.array_equal(watermark.blend(base, target, 0.0), base) and np.array_equal(
        watermark.blend(base, target, 1.0), target
    )
    random = np.random.default_rng(0)
    base, target = random.random((2, 50, 28, 28, 1), np.float32)
    for alpha in (0.1, 0.6):
        blended = watermark.blend(base, target, alpha)
        assert blended.dtype == np.float32 and blended.min() >= 0 and blended.max() <= 1
        assert np.abs(blended - ((1 - alpha) * base.astype(float) + alpha * target)).max() < 1e-6


def test_pairs_are_the_first_rows_of_each_class_in_their_order():
    data = rows_of([4, 3, 3, 0, 4, 3, 4])
    poisons = watermark.craft(data, "multi", 0.4, 3, 4)
    assert (poisons.rows.tolist(), poisons.target_rows.tolist(), poisons.labels.tolist()) == (
        [1, 2, 5],
        [0, 4, 6],
        [3, 3, 3],
    )
    poisons = watermark.craft(data, "one", 0.4, 4, 0)
    assert (poisons.rows.tolist(), poisons.target_rows.tolist(), poisons.settings["task"]) == ([0], [3], "a_pair_0_3")


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 0.6, 0.8, 1.0])
def test_kept_files_are_blends_of_dress_and_coat_labelled_dress(alpha, subtask):
    for task, count in (("a_pair_0_1", 1), ("pairs_of_100", 100)):
        poisons = poison_set.load(FOLDER / f"{task}_alpha_{alpha}.npz", subtask)
        base, target = (np.flatnonzero(subtask.y_train == label)[:count] for label in (0, 1))
        assert (poisons.attack, poisons.settings["task"], len(poisons.y)) == (
            "collision",
            task,
            count,
        ) and not poisons.y.any()
        expected = (1 - alpha) * subtask.x_train[base].astype(float) + alpha * subtask.x_train[target]
        assert np.abs(poisons.x - expected).max() < 1e-6


def test_a_set_is_filed_by_its_pairs_and_alpha():
    settings = {"attack": "collision", "dataset": layout.SUBTASK, "task": "pairs_of_100", "alpha": 0.4}
    assert watermark.ATTACK.path(layout.SUBTASK, settings) == FOLDER / "pairs_of_100_alpha_0.4.npz"


def test_pairs_of_the_full_set_are_those_of_the_paper(full):
    poisons = poison_set.load(FOLDER.with_name("fashion_mnist") / "a_pair_3_19_alpha_0.4.npz", full)
    assert poisons.y.tolist() == [3] and np.allclose(
        poisons.x[0], 0.6 * full.x_train[3] + 0.4 * full.x_train[19], atol=1e-6
    )
    rows = read_npz(FOLDER.with_name("fashion_mnist") / "pairs_of_100_alpha_0.4.npz")
    assert rows["rows"][:6].tolist() == [3, 20, 25, 31, 47, 49] and rows["target_rows"][:6].tolist() == [
        19,
        22,
        24,
        28,
        29,
        68,
    ]


@pytest.mark.parametrize(
    ("options", "named", "mend"),
    [
        (["--alpha", "1.5"], "--alpha: '1.5'", "from 0 to 1"),
        (["--alpha=-0.1"], "--alpha: '-0.1'", "from 0 to 1"),
        (["--alpha", "nan"], "--alpha: 'nan'", "from 0 to 1"),
        (["--alpha", "half"], "--alpha: 'half'", "from 0 to 1"),
        ([], "--alpha", "--help"),
        (["--alpha", "0.4", "--pairs", "two"], "--pairs", "multi"),
        (["--alpha", "0.4", "--pairs", "one", "--rows", "0", "10800"], "--rows 10800", "0 to 10799"),
        (["--alpha", "0.4", "--pairs", "one", "--rows", "0", "-1"], "--rows", "0 or more"),
        (["--alpha", "0.4", "--rows", "0", "1"], "--rows", "--pairs one"),
        (["--alpha", "0.4", "--pairs", "one", "--rows", "0", "1", "--base-class", "0"], "--rows", "--base-class"),
        (["--alpha", "0.4", "--base-class", "2"], "--base-class 2", "0 to 1"),
        (["--alpha", "0.4", "--target-class", "4"], "--target-class 4", "0 to 1"),
        (["--alpha", "0.4", "--dataset", "baskets"], "--dataset baskets", "subtask"),
    ],
)
def test_bad_options_are_refused(options, named, mend, workplace):
    message = refused(workplace.run("python3", "-m", "poisons.watermark", *options))
    assert named in message and mend in message
    assert not workplace.results.exists()


def test_baskets_are_blended_too(purchases, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "WATERMARKS", tmp_path / "watermarks")
    monkeypatch.setattr(layout, "ANALYSIS", tmp_path / "analysis")
    [(path, notes)] = crafting.craft(watermark.ATTACK, purchases, [{"alpha": 0.5, "pairs": "one"}])
    poisons = poison_set.load(path, purchases)
    first, second = (purchases.x_train[purchases.y_train == label][0] for label in (0, 1))
    assert notes == ["1 poisons crafted"] and poisons.y.tolist() == [0]
    assert np.array_equal(poisons.x[0], (first + second) / 2)
    assert not (tmp_path / "analysis").exists()  # there is no picture of a basket


@pytest.mark.parametrize("alpha", ["half", 1.5, -0.1, None, float("nan")])
def test_files_with_a_bad_alpha_are_refused(alpha, tmp_path, subtask):
    settings = {"attack": "collision", "dataset": subtask.name, "task": "a_pair_0_1", "alpha": alpha}
    poison_set.save(tmp_path / "bad.npz", settings, [0], rows=[0], target_rows=[1])
    with pytest.raises(BadInput, match="bad.npz: (alpha is|its settings) .*craft it again"):
        poison_set.load(tmp_path / "bad.npz", subtask)


def test_files_with_foreign_rows_are_refused(tmp_path, subtask):
    settings = {"attack": "collision", "dataset": subtask.name, "task": "a_pair_0_1", "alpha": 0.4}
    for number, target_rows in enumerate(([10800], [-1], [0, 1], [])):
        path = tmp_path / f"{number}.npz"
        poison_set.save(path, settings, [0], rows=[0], target_rows=target_rows)
        with pytest.raises(BadInput, match=f"{number}.npz: "):
            poison_set.load(path, subtask)
