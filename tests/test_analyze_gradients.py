"""Recorded gradients and what analyze_gradients.py makes of them, in both layouts."""

import types

import numpy as np
import pytest
from conftest import REPOSITORY, TRAIN, refused

import analyze_gradients
from models import minibatches
from results import param_updates

FLIPS = REPOSITORY / "datasets/poisons/indiscriminate/label-flips/fashion_mnist_3_4.1.0_random_0.05.npz"
RECORD = (*TRAIN, "--poison", FLIPS, "--record", "--undefended", "--clip-norm", "4")


def extracts(workplace):
    paths = [path for path in workplace.written() if path.endswith(("mextracts_epoch.csv", "aextracts_epoch.csv"))]
    return {path: np.loadtxt(workplace.results / path, delimiter=",", ndmin=2) for path in paths}


@pytest.mark.slow
def test_both_layouts_give_the_same_extracts_of_watermarks_in_one_stack(workplace, tmp_path_factory):
    from conftest import Workplace

    files = [
        REPOSITORY / f"datasets/watermarks/fashion_mnist_3_4.1.0/pairs_of_100_alpha_{alpha}.npz" for alpha in (0.1, 1.0)
    ]
    command = (*TRAIN, "--poison", *files, "--record", "--epochs", "2")
    other = Workplace(tmp_path_factory.mktemp("csv"))
    for place, dump in ((workplace, "npz"), (other, "csv")):
        place.succeed(*command, "--dump", dump)
        place.succeed("python3", "analyze_gradients.py")
    ours, papers = extracts(workplace), extracts(other)
    assert len(ours) == 4 and set(ours) == set(papers)
    for path in ours:
        assert np.allclose(ours[path], papers[path], rtol=1e-6, atol=1e-6)
    low, high = (
        ours[
            f"analysis/collision/pairs_of_100/fashion_mnist_3_4.1.0/alpha_{alpha}/vanilla_lr_300_2_0.01"
            "/mextracts_epoch.csv"
        ]
        for alpha in (0.1, 1.0)
    )
    assert (high[:, 1] > 3 * low[:, 1]).all()
    # a batch without a poison has no file of its mean
    poisoned = list(other.results.rglob("alpha_1.0/*/param_updates/1_*_poison_0.csv"))
    clean = list(other.results.rglob("alpha_1.0/*/param_updates/1_*_clean_0.csv"))
    assert len(clean) == 37 and 30 < len(poisoned) < 37
    # and each replica's own poisons are all that is kept of single examples
    with np.load(next(workplace.results.rglob("alpha_1.0/*/param_updates/2.npz"))) as stored:
        assert stored["clean_norms"].shape == (10800,) and stored["poison_norms"].shape == stored[
            "poison_cosines"
        ].shape == (100,)
    assert next(workplace.results.rglob("gradients_vanilla_lr_300_2_0.01.png")).stat().st_size > 10000


@pytest.mark.slow
def test_both_layouts_give_the_same_extracts(workplace, tmp_path_factory):
    from conftest import Workplace

    workplace.succeed(*RECORD, "--epochs", "2")
    workplace.succeed("python3", "analyze_gradients.py")
    other = Workplace(tmp_path_factory.mktemp("csv"))
    other.succeed(*RECORD, "--epochs", "2", "--dump", "csv")
    other.succeed("python3", "analyze_gradients.py")
    ours, papers = extracts(workplace), extracts(other)
    assert len(ours) == 4 and set(ours) == set(papers)
    for path in ours:
        assert ours[path].shape == (2, 2 if "mextracts" in path else 1)
        assert np.allclose(ours[path], papers[path], rtol=1e-6, atol=1e-6)
    dumped = sorted(path.name for path in other.results.rglob("1_1_*.csv"))
    assert dumped == sorted(["1_1_clean_0.csv", "1_1_clean_1.csv", "1_1_poison_0.csv", "1_1_poison_1.csv"] * 2)
    assert len(next(other.results.rglob("1_1_clean_0.csv")).read_text().split()) == 784 * 2
    # recording changes nothing: the same training without it reaches the same accuracies
    workplace.succeed(*[word for word in RECORD if word != "--record"], "--epochs", "2")
    for path in workplace.results.rglob("attack_results.csv"):
        analysis = (
            workplace.results / "analysis" / path.relative_to(workplace.results).with_name("analysis_results.csv")
        )
        assert [line.split(",")[3] for line in path.read_text().split()] == [
            line.split(",")[3] for line in analysis.read_text().split()
        ]


def write_epochs(folder, count=3, **changes):
    random = np.random.default_rng(0)
    (folder / "param_updates").mkdir(parents=True)
    epochs = []
    for epoch in range(1, count + 1):
        arrays = {
            f"{part}_{name}": random.normal(size=shape).astype(np.float32)
            for part in ("clean", "poison")
            for name, shape in (("kernel", (784, 2)), ("bias", 2), ("norms", 50))
        }
        arrays["poison_cosines"] = random.uniform(-1, 1, 50).astype(np.float32)
        arrays.update(changes)
        np.savez(folder / "param_updates" / f"{epoch}.npz", **arrays)
        epochs.append(arrays)
    return epochs


def test_extracts_are_norms_cosines_and_quantiles(tmp_path):
    epochs = write_epochs(tmp_path)
    epochs[1]["poison_cosines"][3] = np.nan
    ratio, cosine = analyze_gradients.reduce(tmp_path, epochs)
    magnitudes, cosines = (np.loadtxt(tmp_path / f"{name}extracts_epoch.csv", delimiter=",", ndmin=2) for name in "ma")
    singles = np.genfromtxt(tmp_path / "sextracts_epoch.csv", delimiter=",", names=True)
    assert singles.dtype.names[:2] == ("epoch", "clean_norm_q05") and len(singles.dtype.names) == 16
    for epoch, arrays in enumerate(epochs):
        clean, poison = (arrays[f"{part}_kernel"].astype(np.float64).ravel() for part in ("clean", "poison"))
        assert magnitudes[epoch] == pytest.approx([np.sqrt((clean**2).sum()), np.sqrt((poison**2).sum())], rel=1e-6)
        assert cosines[epoch, 0] == pytest.approx(
            clean @ poison / np.sqrt((clean**2).sum() * (poison**2).sum()), rel=1e-6
        )
        known = arrays["poison_cosines"][np.isfinite(arrays["poison_cosines"])]
        assert (
            singles["poison_cosine_q75"][epoch] == pytest.approx(np.percentile(known, 75))
            and singles["epoch"][epoch] == epoch + 1
        )
        assert singles["clean_norm_q95"][epoch] == pytest.approx(np.percentile(arrays["clean_norms"], 95))
    assert ratio == pytest.approx(np.mean(magnitudes[:, 1] / magnitudes[:, 0])) and cosine == pytest.approx(
        cosines.mean()
    )
    (axes, *_) = analyze_gradients.draw([tmp_path]).axes
    assert [list(line.get_ydata()) for line in axes.get_lines()] == [list(magnitudes[:, 0])]


def test_what_is_recorded_are_the_rows_that_a_replica_sees():
    """Six rows in two batches of three; replica 1 does not see the second clean row and the last poison."""
    weight = np.array([[1, 1], [1, 0], [1, 1], [1, 1], [1, 1], [1, 0]], np.float32)
    poison = np.array([False, False, True, False, True, True])
    rows = types.SimpleNamespace(weight=types.SimpleNamespace(numpy=lambda: weight), is_poison=poison)
    order = np.arange(6)
    epoch = minibatches.Batches(order, np.array([0, 3, 6]), np.array([2, 1]), order % 3, 1)
    random = np.random.default_rng(0)
    sums = {f"{part}_{name}": random.random((2, 2, *shape)) for part in ("clean", "poison")
            for name, shape in (("kernel", (3, 4)), ("bias", (3,)))}  # fmt: skip
    squared, inner = random.random((6, 2)), random.random((3, 2))
    record = minibatches.Record(rows, epoch, sums, squared, inner)
    arrays = param_updates.arrays(record, 1)
    assert arrays["clean_norms"] == pytest.approx(np.sqrt(squared[[0, 3], 1]))
    assert arrays["poison_norms"] == pytest.approx(np.sqrt(squared[[2, 4], 1]))
    clean = [np.linalg.norm(sums["clean_kernel"][batch, 1]) for batch in range(2)]
    assert arrays["poison_cosines"] == pytest.approx(inner[:2, 1] / (np.sqrt(squared[[2, 4], 1]) * clean))
    for part in ("clean", "poison"):  # one row of each part in every batch
        assert arrays[f"{part}_kernel"] == pytest.approx(sums[f"{part}_kernel"][:, 1].mean(0).T)
        assert arrays[f"{part}_bias"] == pytest.approx(sums[f"{part}_bias"][:, 1].mean(0))
    assert param_updates.arrays(record, 0)["clean_kernel"] == pytest.approx(
        ((sums["clean_kernel"][0, 0] / 2 + sums["clean_kernel"][1, 0]) / 2).T
    )


def test_extracts_are_read_as_they_are_written(tmp_path):
    epochs = write_epochs(tmp_path, 2)
    analyze_gradients.reduce(tmp_path, epochs)
    assert param_updates.reduced(tmp_path) and not param_updates.reduced(tmp_path / "param_updates")
    extracts, examples = param_updates.read_extracts(tmp_path), param_updates.read_examples(tmp_path)
    assert extracts.shape == (2, 3) and examples.shape == (2, 3, 5)
    for epoch, arrays in enumerate(epochs):
        norms = [np.linalg.norm(arrays[f"{part}_kernel"]) for part in ("clean", "poison")]
        assert extracts[epoch, :2] == pytest.approx(norms, rel=1e-6)
        assert extracts[epoch, 2] == pytest.approx(
            (arrays["clean_kernel"] * arrays["poison_kernel"]).sum() / np.prod(norms), abs=1e-6
        )
        for place, name in enumerate(("clean_norms", "poison_norms", "poison_cosines")):
            assert examples[epoch, place] == pytest.approx(np.percentile(arrays[name], [5, 25, 50, 75, 95]), rel=1e-5)


@pytest.mark.parametrize("damage", ["truncated", "gap", "foreign", "foreign csv"])
def test_damaged_records_are_refused(damage, tmp_path, workplace):
    folder = tmp_path / "cell"
    write_epochs(folder)
    updates = folder / "param_updates"
    if damage == "truncated":
        (updates / "2.npz").write_bytes((updates / "2.npz").read_bytes()[:1000])
    elif damage == "gap":
        (updates / "2.npz").unlink()
    elif damage == "foreign":
        np.savez(updates / "2.npz", something=np.zeros(3))
    else:
        (updates / "notes.csv").write_text("1\n")
    assert str(updates) in refused(workplace.run("python3", "analyze_gradients.py", folder))
    assert not (folder / "mextracts_epoch.csv").exists()


def test_a_folder_that_is_not_there_is_refused(workplace):
    assert "no such folder" in refused(workplace.run("python3", "analyze_gradients.py", "no/such/folder"))


def test_nothing_recorded_is_no_error(workplace):
    workplace.results.mkdir()
    assert "no recorded gradients" in workplace.succeed("python3", "analyze_gradients.py").stdout
