"""What a user brings: data, networks, protocols and poisons of one's own, and the models that one takes home."""

from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, Workplace, copied_suite, refused

import datasets
from command_line import BadInput
from models import architecture
from models.architecture import Convolution, Network, Pool
from poisons import exchange, foreign_files, poison_set

FLIPS = REPOSITORY / "datasets/poisons/indiscriminate/label-flips/fashion_mnist_3_4.1.0_random_0.1.npz"
TRAIN = ("python3", "train.py", "--network", "lr", "--undefended", "--epochs", "2")


def arrays(**changes) -> dict[str, np.ndarray]:
    """Three clouds of points, 300 to train on and 90 to test; changes: arrays in their place, None: left out."""
    random = np.random.default_rng(0)
    centres = random.uniform(0.2, 0.8, (3, 12))
    found = {}
    for part, count in (("train", 300), ("test", 90)):
        labels = np.arange(count) % 3
        found[f"x_{part}"] = np.clip(centres[labels] + random.normal(0, 0.2, (count, 12)), 0, 1).astype(np.float32)
        found[f"y_{part}"] = labels
    return {name: values for name, values in {**found, **changes}.items() if values is not None}


@pytest.fixture
def mine(tmp_path):
    np.savez(tmp_path / "mine.npz", **arrays())
    return tmp_path / "mine.npz"


# --- data ---


def test_own_data_are_loaded_as_they_are(mine):
    found = datasets.load(str(mine))
    assert (found.name, found.classes, found.shape) == ("mine", 3, (12,)) and found.held_out is None
    assert found.x_train.dtype == np.float32 and found.y_test.dtype == np.int32
    np.testing.assert_array_equal(found.x_test, arrays()["x_test"])


def test_bytes_are_scaled_images_get_a_channel_and_held_out_rows_are_kept(tmp_path):
    pictures = np.arange(20 * 4 * 5, dtype=np.uint8).reshape(20, 4, 5)
    labels = np.arange(20.0) % 2
    names = {f"{which}_{part}": values for part in ("train", "test", "held_out")
             for which, values in (("x", pictures), ("y", labels))}  # fmt: skip
    np.savez(tmp_path / "pictures.npz", **names)
    found = datasets.load(str(tmp_path / "pictures.npz"))
    assert found.shape == (4, 5, 1) and found.held_out[0].shape == (20, 4, 5, 1)
    np.testing.assert_allclose(found.x_train[..., 0], pictures / 255, atol=1e-7)


WRONG = {
    "a part is missing": ({"y_test": None}, "give x_train, y_train, x_test, y_test"),
    "something else": ({"labels": np.zeros(3)}, "give x_train, y_train, x_test, y_test"),
    "half of the held-out rows": ({"x_held_out": np.zeros((3, 12))}, "give x_train, y_train"),
    "values on another scale": ({"x_train": 255 * arrays()["x_train"]}, "scale every feature to [0, 1]"),
    "NaN": ({"x_test": np.full((90, 12), np.nan)}, "NaN or infinite"),
    "a gap among the classes": ({"y_train": 2 * (np.arange(300) % 3)}, "without a gap"),
    "one class": ({"y_train": np.zeros(300, int)}, "2 to 1000 of them"),
    "a class that is not trained on": ({"y_test": np.full(90, 3)}, "of those of y_train"),
    "half classes": ({"y_train": np.full(300, 0.5)}, "a whole number of 0 or more"),
    "endless classes": ({"y_train": np.arange(300) * 10**9}, "at most 1000 classes"),
    "fewer labels": ({"y_train": np.arange(299) % 3}, "one label a row"),
    "rows of another shape": ({"x_test": np.zeros((90, 11))}, "x_train's shape (12,)"),
    "words": ({"x_train": np.array(["a"] * 300)}, "give numbers"),
    "no rows": ({"x_test": np.zeros((0, 12))}, "give numbers"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_own_data_that_cannot_be_used_are_refused(wrong, tmp_path):
    changes, why = WRONG[wrong]
    np.savez(tmp_path / "mine.npz", **arrays(**changes))
    with pytest.raises(BadInput) as refusal:
        datasets.load(str(tmp_path / "mine.npz"))
    assert str(refusal.value).startswith("--dataset ") and why in str(refusal.value)


@pytest.mark.parametrize("name", ["subtask.npz", "purchases-cj.npz", "my data.npz", "-x.npz", "größe.npz"])
def test_names_that_results_cannot_be_filed_under_are_refused(name, tmp_path):
    np.savez(tmp_path / name, **arrays())
    with pytest.raises(BadInput, match="rename the file"):
        datasets.load(str(tmp_path / name))


def test_every_command_takes_own_data_and_altered_data_replace_no_result(mine, tmp_path):
    place = Workplace(tmp_path, copied_suite(tmp_path))  # poison files are written beside the code
    short = {"RATIOS": "0.1", "SHAPINGS": "undefended 1", "EPOCHS": 20}
    place.succeed("./do_ipoisoning.sh", mine, "0", **short)
    place.succeed("./analyze_ipoisoning.sh", mine, **short)
    place.report()
    lines = pd.read_csv(place.results / "tables/other_trainings.csv")
    assert list(lines.dataset) == ["mine"] * 2 and (lines.best_acc_mean > 0.5).all()
    assert list(pd.read_csv(place.results / "tables/other_gradients.csv").dataset) == ["mine"] * 2
    run = json.loads(next(place.results.rglob("vanilla_lr*/run.json")).read_text())
    assert run["settings"]["dataset_sha256"] == datasets.load(str(mine)).file_sha256
    np.savez(mine, **arrays(x_test=arrays()["x_test"][::-1]))
    done = place.run("./do_ipoisoning.sh", mine, "0", **short)
    assert done.returncode == 2 and "dataset_sha256" in done.stderr.splitlines()[-1]


def test_a_data_set_is_known_by_both_of_its_names(tmp_path, subtask):
    for name in ("subtask", subtask.name):
        poison_set.save(str(tmp_path / "mine.npz"), {"attack": "a", "dataset": name}, [0], rows=np.array([3]))
        assert poison_set.load(str(tmp_path / "mine.npz"), subtask).y.tolist() == [0]
    with pytest.raises(ValueError, match="add 'attack'"):
        poison_set.save(tmp_path / "mine.npz", {"dataset": "subtask"}, [0], rows=np.array([3]))


# --- networks and protocols ---


def described(*layers: tuple[str, dict], kind: str = "Sequential") -> dict:
    defaults = {
        "Dense": {"activation": "linear", "use_bias": True},
        "Conv2D": {"activation": "relu", "use_bias": True, "strides": [1, 1], "dilation_rate": [1, 1], "groups": 1,
                   "kernel_size": [3, 3], "padding": "same", "data_format": "channels_last"},
        "MaxPooling2D": {"pool_size": [2, 2], "strides": [2, 2], "padding": "valid"},
    }  # fmt: skip
    listed = [{"class_name": name, "config": {**defaults.get(name, {}), **config}} for name, config in layers]
    return {"class_name": kind, "config": {"layers": listed}}


def written(path, content: dict):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(content))
    return path


def test_layers_are_taken_from_a_description(tmp_path):
    layers = (
        ("InputLayer", {"batch_input_shape": [None, 8, 8, 1]}), ("Conv2D", {"filters": 4, "activation": "linear"}),
        ("ReLU", {"max_value": None}), ("MaxPooling2D", {}), ("Flatten", {}), ("Dense", {"units": 7}),
        ("Activation", {"activation": "relu"}), ("Dense", {"units": 2, "activation": "softmax"}),
    )  # fmt: skip
    found = architecture.of_file(written(tmp_path / "net.keras", described(*layers)))
    assert found.front == (Convolution(4, (3, 3), "same"), Pool()) and found.hidden == (7,)
    assert (found.shape, found.classes) == ((8, 8, 1), 2)


OUTSIDE = {
    "tanh": ((("Dense", {"units": 5, "activation": "tanh"}), ("Dense", {"units": 2})), "another activation than ReLU"),
    "no activation": ((("Dense", {"units": 5}), ("Dense", {"units": 2})), "another activation than ReLU"),
    "sigmoid at the end": ((("Dense", {"units": 2, "activation": "sigmoid"}),), "at the end"),
    "stride": ((("Conv2D", {"filters": 3, "strides": [2, 2]}), ("Dense", {"units": 2})), "other strides than 1"),
    "groups": ((("Conv2D", {"filters": 4, "groups": 2}), ("Dense", {"units": 2})), "in groups"),
    "no biases": ((("Dense", {"units": 2, "use_bias": False}),), "without biases"),
    "convolution behind": ((("Dense", {"units": 2}), ("Conv2D", {"filters": 3})), "behind a Dense layer"),
    "leaky": ((("Dense", {"units": 5}), ("ReLU", {"negative_slope": 0.1}), ("Dense", {"units": 2})), "leaks"),
    "dropout": ((("Dropout", {"rate": 0.5}), ("Dense", {"units": 2})), "a layer Dropout"),
    "code": ((("Lambda", {"function": "..."}), ("Dense", {"units": 2})), "a layer Lambda"),
    "no layers": ((), "no Dense layer"),
    "endless": ((("Dense", {"units": 10**9}),), "a size of 1000000000"),
    "nothing said": ((("Dense", {}),), "lacks something"),
}


@pytest.mark.parametrize("outside", OUTSIDE)
def test_layers_that_a_stack_does_not_train_are_refused(outside, tmp_path):
    layers, why = OUTSIDE[outside]
    with pytest.raises(BadInput, match=why):
        architecture.of_file(written(tmp_path / "net.keras", described(*layers)))


@pytest.mark.parametrize("content", [[], {}, {"class_name": "Sequential"}, {"class_name": "Custom", "config": {}}])
def test_a_file_without_a_description_is_refused(content, tmp_path):
    with pytest.raises(BadInput, match="--network"):
        architecture.of_file(written(tmp_path / "net.keras", content))
    (tmp_path / "other.keras").write_text("no archive")
    with pytest.raises(BadInput, match="--network"):
        architecture.of_file(tmp_path / "other.keras")


def test_a_functional_model_must_be_a_chain(tmp_path):
    def layer(name, kind, above, **config):
        return {"class_name": kind, "config": {"name": name, "use_bias": True, "activation": "relu", **config},
                "inbound_nodes": [[[one, 0, 0, {}] for one in above]] if above else []}  # fmt: skip

    chain = [layer("in", "InputLayer", []), layer("a", "Dense", ["in"], units=5)]
    top = layer("b", "Dense", ["a"], units=2, activation="linear")
    path = tmp_path / "net.keras"
    written(path, {"class_name": "Functional", "config": {"layers": [*chain, top]}})
    assert architecture.of_file(path).hidden == (5,)
    top["inbound_nodes"] = [[["in", 0, 0, {}]]]
    written(path, {"class_name": "Functional", "config": {"layers": [*chain, top]}})
    with pytest.raises(BadInput, match="no chain"):
        architecture.of_file(path)


def test_names_spell_hidden_layers():
    assert architecture.of_name("mlp-64-32") == Network(hidden=(64, 32))
    for name in ("mlp", "mlp-", "mlp-0", "mlp-064", "mlp-64-", "mlp-999999", "mlp" + "-9" * 9, "lr", "MLP-4"):
        assert architecture.of_name(name) is None


def test_an_own_network_trains_as_keras_does(mine, tmp_path):
    """A network from a file of Keras' own, on own data: filed under its name, with what a file of settings says."""
    import tensorflow as tf

    keras = tf.keras.layers
    model = tf.keras.Sequential([keras.InputLayer((12,)), keras.Dense(9, activation="relu"), keras.Dense(3)])
    model.save(tmp_path / "small.keras")
    (tmp_path / "protocol.toml").write_text('optimizer = "sgd"\nepochs = 3\nlearning_rate = 0.2\n')
    place = Workplace(tmp_path)
    words = ("--dataset", mine, "--network", tmp_path / "small.keras", "--protocol", tmp_path / "protocol.toml")
    place.succeed("python3", "train.py", *words)
    kept = json.loads((place.models / "mine/vanilla_small_100_3_0.2/config.json").read_text())
    assert (kept["optimizer"], kept["batch_size"], kept["dataset"]) == ("sgd", 100, "mine")
    assert kept["network_sha256"] == architecture.of_file(tmp_path / "small.keras").file_sha256
    best = place.models / "mine/vanilla_small_100_3_0.2/best.keras"
    said = place.succeed("python3", "evaluate.py", best, "--dataset", mine, "--network", tmp_path / "small.keras")
    theirs = tf.keras.models.load_model(best).predict(arrays()["x_test"], verbose=0).argmax(1)
    assert f"{(theirs == arrays()['y_test']).mean():.6f}"[:6] in said.stdout.splitlines()[1]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--network", "badnet"), "its convolutions take images"),
        (("--network", "mlp-0"), "spell one by its hidden layers"),
        (("--network", "nothing.keras"), "missing"),
        (("--network", "lr", "--protocol", "nothing.toml"), "missing"),
    ],
)
def test_networks_that_do_not_fit_are_refused(words, why, mine, workplace):
    assert why in refused(workplace.run("python3", "train.py", "--dataset", mine, *words))
    assert not workplace.models.exists()


@pytest.mark.parametrize(
    "line", ['optimizer = "lion"', "epochs = 2.5", "epochs = 0", "rate = 1", "= 3", "epochs = [1]"]
)
def test_wrong_protocols_are_refused(line, mine, workplace):
    path = workplace.folder / "wrong.toml"
    path.write_text(line)
    words = ("python3", "train.py", "--dataset", mine, "--network", "lr")
    assert refused(workplace.run(*words, "--protocol", path)).startswith("error: argument --protocol: ")
    assert refused(workplace.run(*words, PROTOCOL=path)).startswith("error: PROTOCOL=")


# --- poisons ---


@pytest.fixture(scope="module")
def noise():
    random = np.random.default_rng(1)
    return random.random((20, 28, 28)).astype(np.float32), random.integers(0, 2, 20)


def test_plain_arrays_are_poisons_under_a_name(noise, tmp_path, subtask):
    x, y = noise
    np.savez(tmp_path / "plain.npz", x=x, y=y)
    np.savez(tmp_path / "art.npz", x_poison=x[..., np.newaxis], y_poison=np.eye(2)[y])
    np.savez(tmp_path / "bytes.npz", x=np.round(255 * x).astype(np.uint8), y=y.astype(float))
    (tmp_path / "both.pkl").write_bytes(pickle.dumps({"x": x.reshape(20, -1), "y": y}))
    for name in ("plain.npz", "art.npz", "bytes.npz", "both.pkl"):
        found = poison_set.load(tmp_path / name, subtask, "noise")
        assert (found.attack, found.name) == ("noise", name[:-4])
        np.testing.assert_allclose(found.x[..., 0], x, atol=1 / 255)
        np.testing.assert_array_equal(found.y, y)
    np.savez(tmp_path / "whole.npz", x=x, y=y, is_poison=y == 1, attack="halves")
    found = poison_set.load(tmp_path / "whole.npz", subtask)
    assert found.attack == "halves" and (found.y == 1).all() and len(found.y) == y.sum()
    assert poison_set.load(FLIPS, subtask, "renamed").attack == "renamed"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "--attack-name"),
        ({"y": None}, "not x and y"),
        ({"z": 1}, "not x and y"),
        ({"y": np.zeros(19)}, "a label, or a one-hot row"),
        ({"y": np.full((20, 2), 0.5)}, "no one-hot rows"),
        ({"is_poison": np.ones(19, bool)}, "True or False for each of 20"),
        ({"attack": 3}, "no text"),
        ({"x": np.full((20, 28, 28), 2.0), "attack": "a"}, "outside [0, 1]"),
        ({"attack": "../up"}, "use letters"),
    ],
)
def test_plain_arrays_that_are_no_poisons_are_refused(changes, why, noise, tmp_path, subtask):
    content = {"x": noise[0], "y": noise[1], **changes}
    np.savez(tmp_path / "plain.npz", **{name: values for name, values in content.items() if values is not None})
    with pytest.raises(BadInput) as refusal:
        poison_set.load(tmp_path / "plain.npz", subtask)
    assert why in str(refusal.value)


def test_poisons_go_to_poisoning_benchmark_and_back(tmp_path, subtask):
    """Its own way to read them: pickle, PIL images, pairs, a list of row numbers, a target with its class."""
    from PIL import Image

    folder, poisons = tmp_path / "bench", poison_set.load(FLIPS, subtask)
    exchange.to_benchmark(folder, poisons, subtask, 17, exchange.rows_of(FLIPS))
    pairs, rows, (target, label) = (
        pickle.loads((folder / name).read_bytes())
        for name in ("poisons.pickle", "base_indices.pickle", "target.pickle")
    )
    assert all(isinstance(image, Image.Image) for image, _ in pairs) and target.size == (28, 28)
    assert label == subtask.y_test[17] and [one for _, one in pairs] == poisons.y.tolist()
    np.testing.assert_allclose(np.array(pairs[5][0]) / 255, subtask.x_train[rows[5]].squeeze(), atol=1 / 500)
    x, y, said = exchange.of_benchmark(folder)
    np.testing.assert_allclose(x, poisons.x.squeeze(), atol=1 / 500)
    assert y.tolist() == poisons.y.tolist() and said == {"base_rows": rows}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_pictures_of_every_protocol_are_read(protocol, tmp_path):
    from PIL import Image

    colours = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    (tmp_path / "poisons.pickle").write_bytes(pickle.dumps([(Image.fromarray(colours), 4)], protocol))
    (tmp_path / "base_indices.pickle").write_bytes(pickle.dumps(np.array([7]), protocol))
    x, y, said = exchange.of_benchmark(tmp_path)
    np.testing.assert_array_equal(np.round(x * 255), colours[np.newaxis])
    assert y.tolist() == [4] and said == {"base_rows": [7]}


def test_poisons_go_to_art_and_back(tmp_path, subtask, workplace):
    words = ("python3", "-m", "poisons.exchange")
    workplace.succeed(*words, "export", "--to", "art", tmp_path / "art.npz", "--poison", FLIPS)
    theirs, poisons = np.load(tmp_path / "art.npz"), poison_set.load(FLIPS, subtask)
    assert theirs["y_poison"].shape == (len(poisons.y), 2) and theirs["x_poison"].shape[1:] == (28, 28, 1)
    back = ("--attack-name", "art", "--out", tmp_path / "back.npz")
    workplace.succeed(*words, "import", "--from", "art", tmp_path / "art.npz", *back)
    found = poison_set.load(tmp_path / "back.npz", subtask)
    np.testing.assert_array_equal(found.x, poisons.x)
    assert found.attack == "art" and found.y.tolist() == poisons.y.tolist()


@pytest.mark.parametrize("what", ["no pickle", "no pairs", "fewer rows", "an object"])
def test_folders_that_are_not_of_poisoning_benchmark_are_refused(what, tmp_path):
    picture = np.zeros((2, 2), np.uint8)
    contents = {"no pairs": [3], "an object": [(pickle.PickleBuffer, 3)]}.get(what, [(picture, 1)])
    if what != "no pickle":
        (tmp_path / "poisons.pickle").write_bytes(pickle.dumps(contents))
        (tmp_path / "base_indices.pickle").write_bytes(pickle.dumps(np.arange(2 if what == "fewer rows" else 1)))
    with pytest.raises(BadInput):
        exchange.of_benchmark(tmp_path)


def test_one_hot_rows_and_masks_are_read_alone():
    _, x, y = foreign_files.of_arrays("f", {"x": np.zeros((2, 3)), "y": np.eye(2)[[1, 0]]})
    assert y.tolist() == [1, 0] and x.shape == (2, 3)


# --- models ---


def test_poisoned_models_are_kept_with_their_settings_and_measured(workplace):
    words = (*TRAIN, "--dataset", "subtask", "--clip-norm", "1", "--poison", FLIPS, "--keep-model", "final")
    kept = {"MODELS": REPOSITORY / "models"}
    workplace.succeed(*words[:-2], **kept)  # without keeping first: then they are missing, and only they
    before = workplace.written()
    workplace.succeed(*words, **kept)
    assert workplace.written() == before
    assert "finished before" in workplace.succeed(*words, **kept).stderr
    models = sorted(workplace.results.rglob("final.keras"))
    assert len(models) == 2
    for model in models:
        done = workplace.succeed(
            "python3", "evaluate.py", model, "--poison", FLIPS, "--out", workplace.folder / "t.csv"
        )
        measured = pd.read_csv(workplace.folder / "t.csv").set_index(["measure", "of"]).value
        last = pd.read_csv(model.with_name("attack_results.csv")).iloc[-1]
        assert measured["accuracy", "all"] == last.test_acc
        assert measured["on its poisons", FLIPS.stem] == last.train_acc_poison
        assert len(done.stdout.splitlines()) == 5  # a header, all, two classes, its poisons
        assert json.loads(model.with_suffix(".json").read_text())["settings"]["poison_set"] == FLIPS.stem
    assert "left out" not in workplace.report(**kept).stderr
    models[0].write_bytes(models[0].read_bytes()[:-1])
    workplace.succeed(*words, **kept)  # damaged: made again
    assert workplace.written() == before | {
        name: text for name, text in workplace.written().items() if "tables" in name
    }


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("none.keras",), "give --dataset and --network"),
        (("none.keras", "--dataset", "subtask", "--network", "lr"), "missing"),
        (("none.keras", "--target", "3"), "--wanted-class"),
        (
            ("none.keras", "--dataset", "subtask", "--network", "lr", "--target", "9999", "--wanted-class", "1"),
            "rows 0",
        ),
    ],
)
def test_models_that_cannot_be_measured_are_refused(words, why, workplace):
    assert why in refused(workplace.run("python3", "evaluate.py", *words))
