"""Files that were cut off, altered or made with ill intent: refused in one clear line, or rebuilt, never silently used;
memory stays bounded.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import mutations
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from conftest import REPOSITORY, refused
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import datasets
import files
from command_line import BadInput
from datasets import fashion_mnist, purchases
from files import Unreadable, read_json, write_json
from models import checkpoints, weights_file
from poisons import poison_set
from results import cells, fold, layout, param_updates

POISONS = REPOSITORY / "datasets/poisons/indiscriminate"
MODEL = REPOSITORY / "models/subtask/vanilla_lr_300_40_0.01"
CELL = REPOSITORY / "results/ipoisoning/label-flips/fashion_mnist_3_4.1.0_random_0.4/vanilla_lr_300_40_0.01"
ANALYSIS = REPOSITORY / "results/analysis/collision/pairs_of_100/fashion_mnist_3_4.1.0/alpha_0.4/vanilla_lr_300_40_0.01"
EXAMPLES = 40
SETTINGS = {"attack": "label-flips", "dataset": layout.SUBTASK}

# A damage: cut off, a bit flipped, bytes overwritten, bytes put in; places are shares of the file's length
DAMAGES = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 0.999)),
    st.tuples(st.just("flip"), st.floats(0, 0.999999), st.integers(0, 7)),
    st.tuples(st.just("overwrite"), st.floats(0, 0.999999), st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("insert"), st.floats(0, 1), st.binary(min_size=1, max_size=64)),
)


def damaged(content: bytes, damage: tuple) -> bytes:
    kind, place, *rest = damage
    place = int(place * len(content))
    if kind == "cut":
        return content[:place]
    if kind == "flip":
        return content[:place] + bytes([content[place] ^ 1 << rest[0]]) + content[place + 1 :]
    return content[:place] + rest[0] + content[place + (len(rest[0]) if kind == "overwrite" else 0) :]


def same(one, other) -> bool:
    """Whether two readings hold the same."""
    if isinstance(one, dict):
        return set(one) == set(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    return np.array_equal(one, other, equal_nan=True) if isinstance(one, np.ndarray) else one == other


def dataset_fields(data: datasets.Dataset) -> list:
    return [data.name, data.x_train, data.y_train, data.x_test, data.y_test]


def poison_fields(path: Path) -> list:
    poisons = poison_set.load(path, datasets.load("subtask"))
    return [poisons.attack, poisons.x, poisons.y, poisons.settings]


def read_subtask(path: Path, monkeypatch) -> list:
    monkeypatch.setattr(fashion_mnist, "SUBTASK_FILE", path)
    return dataset_fields(fashion_mnist.load_subtask())


def read_baskets(path: Path, monkeypatch) -> list:
    monkeypatch.setattr(purchases, "STAND_IN_FILE", path)
    return dataset_fields(datasets.load("purchases"))


def model_fields(path: Path) -> dict | None:
    return checkpoints.config(path.parent, {"network": "lr", "seed": 215})


def small_tree(ground: Path) -> None:
    """Two of the repository's results with files of their own, in a results folder."""
    for kept in (CELL / layout.ATTACK_RESULTS, ANALYSIS / layout.ANALYSIS_RESULTS):
        result, path = cells.find(kept), ground / kept.relative_to(layout.RESULTS)
        path.parent.mkdir(parents=True)
        for name, text in result.texts.items():
            path.with_name(name).write_text(text)
        write_json(layout.run_file(path), result.run)


def results_fields(path: Path) -> list:
    """What a reader takes from the two results of `small_tree`."""
    found, left_out = cells.read_all()
    if len(found) < 2:
        raise cells.Unfinished(f"left out: {left_out}")
    return [[result.run, result.texts] for result in found]


# Files with a checksum: the file that is damaged, and what is read of it
CHECKED: dict[str, tuple[Path, Callable]] = {
    "the subtask's images": (fashion_mnist.SUBTASK_FILE, lambda path: dataset_fields(fashion_mnist.load_subtask())),
    "the baskets": (purchases.STAND_IN_FILE, lambda path: dataset_fields(datasets.load("purchases"))),
    "the baskets of other goods": (purchases.OTHER_FILE, lambda path: dataset_fields(datasets.load("purchases-cj2"))),
    "label flips": (POISONS / "label-flips/fashion_mnist_3_4.1.0_random_0.4.npz", poison_fields),
    "slabs": (POISONS / "slabs/fmnist_34_attack_eps40_quantile65_rho_slab.npz", poison_fields),
    "watermarks": (REPOSITORY / "datasets/watermarks/fashion_mnist_3_4.1.0/pairs_of_100_alpha_0.4.npz", poison_fields),
    "a model's weights": (MODEL / "best.keras", model_fields),
    "a model's settings": (MODEL / "config.json", model_fields),
    "a model's history": (MODEL / "history.csv", model_fields),
}
# Likewise of results, with files of their own and folded
RESULTS = ("attack_results.csv", "analysis_results.csv", "run.json", "mextracts_epoch.csv", "runs.csv", "examples.csv")


def outcome(read: Callable, path: Path, capsys):
    """What is read, or None when it is refused (in one line), named as unfinished, or not taken for a whole file."""
    capsys.readouterr()
    try:
        return read(path)
    except BadInput as refusal:
        assert str(refusal) and "\n" not in str(refusal)
    except cells.Unfinished as reason:
        assert str(reason)
    return None


def outcomes_of_damage(read: Callable, path: Path, capsys, harmless: Callable) -> list[bool]:
    """Damage the file in EXAMPLES ways and read it each time: what is read must be `harmless`.

    Whether each was refused.
    """
    content, refusals = path.read_bytes(), []

    @seed(215)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(DAMAGES)
    def damage_and_read(damage):
        path.write_bytes(damaged(content, damage))
        found = outcome(read, path, capsys)
        refusals.append(found is None)
        assert found is None or harmless(found), damage

    damage_and_read()
    return refusals


@pytest.mark.parametrize("what", CHECKED)
def test_damaged_files_are_never_silently_used(what, tmp_path, monkeypatch, capsys, record_property):
    source, read = CHECKED[what]
    folder = tmp_path / source.parent.name
    shutil.copytree(source.parent, folder, ignore=shutil.ignore_patterns("*.gz", "*.png"))
    path = folder / source.name
    for module, name in ((fashion_mnist, "SUBTASK_FILE"), (purchases, "STAND_IN_FILE"), (purchases, "OTHER_FILE")):
        if source == getattr(module, name):
            monkeypatch.setattr(module, name, path)
    check_damage(what, path, read, capsys, record_property)


@pytest.mark.parametrize("name", RESULTS)
def test_damaged_results_are_never_silently_used(name, tmp_path, monkeypatch, capsys, record_property):
    ground = tmp_path / "results"
    small_tree(ground)
    monkeypatch.setattr(layout, "RESULTS", ground)
    monkeypatch.setattr(layout, "ANALYSIS", ground / "analysis")
    if name in ("runs.csv", "examples.csv"):
        for runs, group in fold.by_table(cells.read_all()[0]).items():
            fold.fold(runs, group)
    check_damage(f"results, {name}", next(ground.rglob(name)), results_fields, capsys, record_property)


def check_damage(what: str, path: Path, read: Callable, capsys, record_property) -> None:
    """Damage a file in EXAMPLES ways: it is read as it was, or not at all."""
    whole = outcome(read, path, capsys)
    assert whole is not None
    refusals = outcomes_of_damage(read, path, capsys, lambda found: same(found, whole))
    assert len(refusals) >= EXAMPLES and sum(refusals) > EXAMPLES / 2
    record_property("fault", (f"damaged: {what}", len(refusals)))


FOREIGN = {
    "slabs.mat": lambda path, x, y: scipy.io.savemat(
        path, {"bestX": x[None], "bestY": 2 * y[None] - 1}, do_compression=True
    ),
    "flips.pkl": lambda path, x, y: path.write_bytes(pickle.dumps((x, y))),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_damaged_foreign_files_are_refused_or_read_but_never_break_anything(name, tmp_path, capsys, record_property):
    """They have no checksum: that a pixel was altered nobody can know, but what is read are poisons, and results name
    the file's SHA-256.
    """
    path = tmp_path / "flips" / name
    path.parent.mkdir()
    FOREIGN[name](path, np.full((6, 784), 0.5), np.array([0, 1] * 3))
    assert outcome(poison_fields, path, capsys) is not None

    def poisons(found) -> bool:
        return found[1].dtype == np.float32 and found[1].min() >= 0 and found[1].max() <= 1

    refusals = outcomes_of_damage(poison_fields, path, capsys, poisons)
    record_property("fault", (f"damaged: {name}, which has no checksum", len(refusals)))


# --- ill intent ---


class Code:
    def __reduce__(self):
        return print, ("code was executed",)


def npy(header: str, data: bytes = b"") -> bytes:
    """A .npy array with a header of one's own."""
    text = header.encode().ljust(118 - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def archive(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stream:
        for name, content in members.items():
            stream.writestr(name, content)


def bomb(path: Path, gib: int = 3) -> None:
    """An npz of some MB that unpacks to `gib` GiB of zeros."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as stream,
        stream.open("instances.npy", "w", force_zip64=True) as member,
    ):
        member.write(npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({gib * 2**30},), }}"))
        for _ in range(gib * 64):
            member.write(bytes(2**24))


def mat_bomb(path: Path) -> None:
    """A MATLAB file with a compressed variable of 3 GiB of zeros."""
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(bytes(2**24)) for _ in range(192)) + packer.flush()
    path.write_bytes(
        b"MATLAB 5.0 MAT-file".ljust(124)
        + b"\x00\x01IM"
        + (15).to_bytes(4, "little")
        + len(packed).to_bytes(4, "little")
        + packed
    )


def sparse_outside(path: Path, cell: bool = False) -> None:
    """A sparse matrix with row numbers far outside."""
    rows = np.array([0, 1, 0, 1], np.int32)
    sets = scipy.sparse.csc_matrix((np.ones(4), rows, np.minimum(np.arange(785), 4)), (2, 784))
    if cell:
        sets, matrix = np.empty(1, object), sets
        sets[0] = matrix
    scipy.io.savemat(path, {"bestX": sets, "bestY": [[1, -1]]})
    content = path.read_bytes()
    assert content.count(rows.tobytes()) == 1
    path.write_bytes(content.replace(rows.tobytes(), np.array([0, 10**9, 5, -7], np.int32).tobytes()))


def two_of_one_name(path: Path) -> None:
    """Readers differ in which of the two they take."""
    with zipfile.ZipFile(path, "w") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in (b"\0", b"\1"):
            stream.writestr("rows.npy", npy(HEADER, number + bytes(7)))


def no_text() -> np.ndarray:
    """A text of code points that are none."""
    return np.array([0x7FFFFFFF, 0xD800], np.uint32).view("<U2")


HEADER = "{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }"
HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
HOSTILE = {
    "objects.npz": lambda path: np.savez(path, rows=np.array([Code()], object), labels=[0]),
    "huge_header.npz": lambda path: archive(path, {"instances.npy": npy(HUGE, bytes(800)), "labels.npy": npy(HUGE)}),
    "object_header.npz": lambda path: archive(
        path, {"rows.npy": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickle.dumps(Code()))}
    ),
    "code_in_header.npz": lambda path: archive(
        path, {"rows.npy": npy("{'descr': __import__('os').system('echo code was executed'), 'shape': (1,)}")}
    ),
    "paths.npz": lambda path: archive(
        path,
        {
            "../../escaped.npy": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }", b"1"),
            "/escaped.npy": b"",
        },
    ),
    "bomb.npz": bomb,
    "bomb.mat": mat_bomb,
    "code.pkl": lambda path: path.write_bytes(pickle.dumps([Code()])),
    "huge_array.pkl": lambda path: path.write_bytes(
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L100000000000L\ntS'b'\ntR."
    ),
    "huge_call.pkl": lambda path: path.write_bytes(b"cnumpy\nndarray\n((L100000000000L\nttR."),
    "huge_text.pkl": lambda path: path.write_bytes(b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x"),
    "deep.pkl": lambda path: path.write_bytes(b"]" * 100000 + b"a" * 99999 + b"."),
    "deep_key.pkl": lambda path: path.write_bytes(b"})" + b"\x85" * 900_000 + b"K\x01s."),
    "endless.pkl": lambda path: path.write_bytes(b")" + b"\x85" * 3_000_000 + b"."),
    "interface.pkl": lambda path: path.write_bytes(
        b"(ccollections\nOrderedDict\n(tR(dS'__array_interface__'\n(dS'data'\n(I4096\nI00\ntsS'shape'\n(I784\ntsS'typestr'\n"
        b"S'<f8'\nsS'version'\nI3\nssbK\x01t."
    ),
    "object_type.pkl": lambda path: path.write_bytes(
        b"((cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\ntcnumpy\ndtype\n(S'O8'\nI0\nI1\n"
        b"tR(I3\nS'|'\nNNNI-1\nI-1\nI63\ntbI00\nS'AAAAAAAA'\ntbK\x01tt."
    ),
    "huge_type.pkl": lambda path: path.write_bytes(
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'V2147483647'\nI0\nI1\ntRtR."
    ),
    "holds_itself.pkl": lambda path: path.write_bytes(b"]q\x00(h\x00h\x00e."),
    "holds_itself_often.pkl": lambda path: path.write_bytes(b"]q\x00(h\x00h\x00e(" + b"h\x00" * 1000 + b"eh\x00\x86."),
    "same_often.pkl": lambda path: path.write_bytes(
        pickle.dumps(([(_row := np.zeros(7840))] * 900_000, [0] * 900_000), 2)
    ),
    "counts_wrap.npz": lambda path: poison_set.save(path, SETTINGS, [0] * 5, rows=range(5), counts=[2**62] * 4 + [1]),
    "counts.npz": lambda path: poison_set.save(path, SETTINGS, [0], rows=[1], counts=[10**6]),
    "sparse_outside.mat": sparse_outside,
    "sparse_outside_cell.mat": lambda path: sparse_outside(path, cell=True),
    "sparse_huge.mat": lambda path: scipy.io.savemat(
        path, {"bestX": scipy.sparse.csc_matrix((30_000, 30_000)), "bestY": [[1]]}
    ),
    "bytes.mat": lambda path: scipy.io.savemat(path, {"bestX": np.full((1, 2, 784), 200.0), "bestY": [[1, -1]]}),
    "negative.mat": lambda path: scipy.io.savemat(path, {"bestX": np.full((1, 2, 784), -99.0), "bestY": [[1, -1]]}),
    "infinite.mat": lambda path: scipy.io.savemat(path, {"bestX": np.full((1, 2, 784), np.inf), "bestY": [[1, -1]]}),
    "pipe.mat": os.mkfifo,
    "pipe.npz": os.mkfifo,
    "two_of_one_name.npz": two_of_one_name,
    "lying.npz": lambda path: archive(path, {"rows.npy": npy(HEADER, bytes(8)), "labels.npy": npy(HEADER, bytes(7))}),
    "no_text.npz": lambda path: np.savez(path, rows=[1], labels=[0], checksum="", settings=no_text()),
    "escape.npz": lambda path: poison_set.save(
        path, {**SETTINGS, "note": "\x1b[31m\nerror: all is well"}, [0], rows=[1]
    ),
    "nan_setting.npz": lambda path: poison_set.save(path, {**SETTINGS, "ratio": float("nan")}, [0], rows=[1]),
    "deep_setting.npz": lambda path: np.savez(
        path, rows=[1], labels=[0], checksum="", settings='{"a":' * 5000 + "1" + "}" * 5000
    ),
}
LOAD = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import datasets
from command_line import run
from poisons import poison_set
data = datasets.load("subtask")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    run(lambda: poison_set.load(Path(sys.argv[1]), data))
finally:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_execute_nothing_and_memory_stays_bounded(name, tmp_path, record_property):
    path = tmp_path / "inside" / "hostile" / name
    path.parent.mkdir(parents=True)
    HOSTILE[name](path)
    done = subprocess.run([sys.executable, "-c", LOAD, path, REPOSITORY], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {path}: ") and done.stderr.count("\n") == 1, (
        done.stderr
    )
    assert "code was executed" not in done.stdout + done.stderr
    assert int(done.stdout) < 200, "MiB more than before"
    assert [found.name for found in tmp_path.rglob("*") if not found.is_dir()] == [name]
    record_property("fault", (f"hostile file {name}", 1))


def test_a_json_file_is_what_its_checksum_says(tmp_path):
    from files import write_json

    path = tmp_path / "run.json"
    write_json(path, {"settings": {"seed": 215}, "results": {}})
    assert read_json(path) == {"settings": {"seed": 215}, "results": {}}
    path.write_text(path.read_text().replace("215", "216"))
    assert read_json(path) is None
    path.write_text(json.dumps({"settings": 1}))  # as written before there were checksums
    assert read_json(path) == {"settings": 1}


JSON = {
    "deep": "[" * 5000 + "]" * 5000, "deep objects": '{"a":' * 5000 + "1" + "}" * 5000, "NaN": '{"a": NaN}',
    "Infinity": '{"a": -Infinity}', "beyond floats": '{"a": 1e999}', "beyond 64 bits": '{"a": ' + "9" * 30 + "}",
    "5000 digits": '{"a": ' + "9" * 5000 + "}", "a key twice": '{"a": 1, "a": 2}',
    "half a character": '{"a": "\\ud800"}', "not UTF-8": b'{"a": "\xff"}', "a list": "[1]",
    "2 MiB": json.dumps({"a": "x" * 2**21}), "empty": "",
}  # fmt: skip


@pytest.mark.parametrize("what", JSON)
def test_json_that_others_read_otherwise_or_not_at_all_is_none(what, tmp_path):
    path = tmp_path / "run.json"
    content = JSON[what]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_json(path) is None


def test_what_is_no_plain_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with open(tmp_path / "large", "wb") as stream:
        stream.truncate(2 * files.TEXT_BYTES)
    for name, why in {"pipe": "no plain", "link": "no plain", "large": "more than", "none": "missing"}.items():
        with pytest.raises(Unreadable, match=why):
            files.text(tmp_path / name)
        assert read_json(tmp_path / name) is None and not files.has_sha256(tmp_path / name, "")
    for path in (tmp_path, Path("/dev/zero"), Path("a\0b"), Path("x" * 300)):
        with pytest.raises(Unreadable):
            files.whole(path)


# --- models ---

SHAPES = {"layers/dense/vars/0": (784, 2), "layers/dense/vars/1": (2,)}


def hdf5(change: Callable) -> bytes:
    """The weights of a logistic regression as Keras writes them, with a change."""
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, shape in SHAPES.items():
            file.create_dataset(name, shape, "<f4", np.full(shape, 0.5, np.float32))
        change(file, h5py)
    return stream.getvalue()


def replaced(name: str, **how) -> Callable:
    def change(file, _) -> None:
        del file[name]
        file.create_dataset(name, **how)

    return change


def linked(kind: str, *where: str) -> Callable:
    def change(file, h5py) -> None:
        del file["layers/dense/vars/1"]
        file["layers/dense/vars/1"] = getattr(h5py, kind)(*where)

    return change


KERNEL = "layers/dense/vars/0"
WEIGHTS = {
    "an external link": linked("ExternalLink", "/etc/hostname", "x"),
    "a soft link": linked("SoftLink", "/layers/dense/vars/0"),
    "numbers in another file": replaced(KERNEL, shape=(784, 2), dtype="<f4", external=[("/etc/hostname", 0, 6272)]),
    "a huge shape": replaced(KERNEL, shape=(2**40, 2), dtype="<f4", chunks=(1024, 2)),
    "another shape": replaced(KERNEL, data=np.ones((2, 784), np.float32)),
    "packed numbers": replaced(KERNEL, shape=(784, 2), dtype="<f4", chunks=(784, 2), compression="gzip"),
    "doubles": replaced(KERNEL, data=np.ones((784, 2))),
    "the other byte order": replaced(KERNEL, data=np.ones((784, 2), ">f4")),
    "NaN": replaced(KERNEL, data=np.full((784, 2), np.nan, np.float32)),
    "a group for an array": lambda file, _: (file.pop(KERNEL), file.create_group(KERNEL)),
    "no array": lambda file, _: file.pop(KERNEL),
}


def keras_file(path: Path, weights: bytes, **more: bytes) -> Path:
    archive(path, {"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": weights, **more})
    return path


@pytest.mark.parametrize("what", WEIGHTS)
def test_only_the_expected_arrays_are_read_of_a_keras_file(what, tmp_path):
    path = keras_file(tmp_path / "model.keras", hdf5(WEIGHTS[what]))
    with pytest.raises(Unreadable):
        weights_file.read(path, SHAPES)


def test_keras_files_are_read_as_keras_reads_them_without_their_code(tmp_path, subtask):
    """A config.json with a function in it is not looked at; damaged weights are refused in one line."""
    import tensorflow as tf

    from models import baselines, networks
    from models.trainer import Training

    training = Training.published(layout.SUBTASK, "lr")
    lambdas = {"class_name": "Lambda", "config": {"function": ["not python", None, None]}}
    path = tmp_path / "own.keras"
    keras_file(path, hdf5(lambda *_: None), **{"config.json": json.dumps(lambdas).encode()})
    assert baselines.baseline_from(path, training, subtask).accuracy == 0.5
    expected = tf.keras.models.load_model(MODEL / "best.keras").get_weights()
    found = baselines.baseline_from(MODEL / "best.keras", training, subtask).model.get_weights()
    assert all(map(np.array_equal, expected, found))
    for network, shape, classes in (("badnet", (28, 28, 1), 10), ("shallow-mlp", (28, 28, 1), 10)):
        [kept] = (REPOSITORY / "models/fashion_mnist").glob(f"*{network}*/best.keras")
        model = networks.build(network, shape, classes, 1)
        model.load_weights(kept)
        shapes = {place: tuple(variable.shape) for place, variable in baselines.places_of(model).items()}
        assert all(map(np.array_equal, model.get_weights(), weights_file.read(kept, shapes).values()))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadInput, match="own.keras: not the weights of a lr on fashion_mnist_3_4.1.0"):
        baselines.baseline_from(path, training, subtask)


def test_every_bit_of_a_keras_file_may_be_flipped(tmp_path):
    whole = hdf5(lambda *_: None)
    dice, path = np.random.default_rng(0), tmp_path / "model.keras"
    places = [*range(0, 2400), *dice.integers(0, len(whole), 600)]
    for place in places:
        weights = bytearray(whole)
        weights[place] ^= 1 << dice.integers(8)
        keras_file(path, bytes(weights))
        try:
            found = weights_file.read(path, SHAPES)
        except Unreadable as error:
            assert "\n" not in str(error)
            continue
        assert {name: values.shape for name, values in found.items()} == SHAPES


# --- recorded gradients ---


def recorded(folder: Path) -> Path:
    """Two recorded epochs of an analysis that is finished but for its reduction; returns its CSV file."""
    from test_analyze_gradients import write_epochs

    write_epochs(folder, 2)
    path = folder / layout.ANALYSIS_RESULTS
    settings = {"seed": 215, "dump": "npz", "dataset": layout.SUBTASK, "network": "lr", "shaping": "undefended"}
    cells.write(path, ("epoch", "n_poison", "baseline_acc", "test_acc"), [(1, 5, 0.9, 0.9)], settings, {})
    return path


def test_a_flipped_bit_in_the_header_of_recorded_gradients_is_refused(tmp_path):
    recorded(tmp_path)
    (tmp_path / layout.RUN).unlink()  # which would notice every one of them
    folder = tmp_path / layout.PARAM_UPDATES
    whole, refused = (folder / "2.npz").read_bytes(), 0
    members = mutations.unpacked(whole)
    for member, (name, content) in enumerate(members):
        for place in range(0, 128):
            flipped = content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]
            made = mutations.packed([*members[:member], (name, flipped), *members[member + 1 :]])
            (folder / "2.npz").write_bytes(made)
            try:
                param_updates.read(folder)
            except Unreadable as error:
                refused += 1
                assert "2.npz" in str(error) or "shape" in str(error)
    assert refused > 0.4 * 128 * len(members)


@pytest.mark.parametrize("layout_of", ("npz", "csv"))
def test_an_altered_digit_of_recorded_gradients_is_noticed_and_they_are_recorded_again(layout_of, tmp_path, workplace):
    path = recorded(tmp_path / "cell")
    folder, settings = path.with_name(layout.PARAM_UPDATES), read_json(path.with_name(layout.RUN))["settings"]
    if layout_of == "csv":
        shutil.rmtree(folder)
        for part in ("clean", "poison"):
            for parameter, count in ((0, 6), (1, 2)):
                name = folder / f"1_1_{part}_{parameter}.csv"
                name.parent.mkdir(exist_ok=True)
                name.write_text("0.125\n" * count)
        settings["dump"] = "csv"
        cells.write(path, ("epoch", "n_poison", "baseline_acc", "test_acc"), [(1, 5, 0.9, 0.9)], settings, {})
    assert cells.finished(path, settings) and len(param_updates.read(folder)) == (2 if layout_of == "npz" else 1)
    if layout_of == "csv":
        altered = folder / "1_1_clean_0.csv"
        altered.write_text(altered.read_text().replace("125", "135", 1))
    else:
        with np.load(folder / "2.npz") as stored:
            np.savez(folder / "2.npz", **{**stored, "clean_bias": stored["clean_bias"] + 1})
    assert not cells.finished(path, settings)  # so the sweep makes it again
    line = refused(workplace.run("python3", "analyze_gradients.py", tmp_path))
    assert str(folder) in line and "python3 train.py" in line and "--record records again" in line
    folder.rename(folder.with_name("gone"))  # as once they are reduced: nothing to notice
    assert not cells.finished(path, settings)
    for name in (layout.MAGNITUDES, layout.ORIENTATIONS, layout.PER_EXAMPLE):
        path.with_name(name).write_text("1,1\n")
    cells.add(path.parent, (layout.MAGNITUDES, layout.ORIENTATIONS, layout.PER_EXAMPLE))
    assert cells.finished(path, settings)


# --- settings and accuracies ---

CONFIGS = {
    "a list for a number": {"epochs": [40]}, "NaN": {"best_test_acc": float("nan")},
    "a text": {"best_test_acc": "0.9"}, "above 1": {"best_test_acc": 1.5}, "a number for a text": {"shaping": 4},
    "no files": {"sha256": ["best.keras"]},
    "a place elsewhere": {"sha256": {"../../x": "0" * 64}}, "half an epoch": {"best_epoch": 1.5},
    "true": {"seed": True}, "an escape": {"network": "lr\x1b[31m"}, "beyond 64 bits": {"seed": 2**70},
    "null": {"dataset": None},
}  # fmt: skip


@pytest.mark.parametrize("what", CONFIGS)
def test_a_models_settings_of_other_kinds_are_refused_or_none(what, tmp_path):
    shutil.copytree(MODEL, tmp_path / MODEL.name)
    path = tmp_path / MODEL.name / checkpoints.CONFIG
    write_json(path, {**read_json(path), **CONFIGS[what]})
    try:
        assert checkpoints.config(path.parent) is None
    except BadInput as refusal:
        assert f"{path}: " in str(refusal) and "to train it again" in str(refusal)


@pytest.mark.parametrize("value", (float("nan"), 1.5, "0.9", None, True, [0.9]), ids=repr)
def test_a_baseline_accuracy_that_is_none_makes_a_result_unfinished(value, tmp_path, monkeypatch):
    ground = tmp_path / "results"
    small_tree(ground)
    monkeypatch.setattr(layout, "RESULTS", ground)
    monkeypatch.setattr(layout, "ANALYSIS", ground / "analysis")
    path = next(ground.rglob(layout.RUN))
    run = read_json(path)
    run["settings"]["baseline_acc"] = value
    write_json(path, run)
    found, left_out = cells.read_all()
    assert len(found) == 1 and len(left_out) == 1 and "run.json" in left_out[0][1]
