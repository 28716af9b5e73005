"""Files that were cut off, altered or made with ill intent: refused in one clear line, or rebuilt, never silently used;
memory stays bounded.
"""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from conftest import REPOSITORY
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import datasets
from command_line import BadInput
from datasets import fashion_mnist, purchases
from files import read_json, write_json
from models import checkpoints
from poisons import poison_set
from results import cells, fold, layout

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
    """An npz of a few MB that unpacks to `gib` GiB of zeros."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stream,
        stream.open("instances.npy", "w", force_zip64=True) as member,
    ):
        member.write(npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({gib * 2**30},), }}"))
        for _ in range(gib * 64):
            member.write(bytes(2**24))


def mat_bomb(path: Path) -> None:
    """A MATLAB file with a compressed variable of 3 GiB of zeros."""
    packer = zlib.compressobj(9)
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
    assert [found.name for found in tmp_path.rglob("*") if found.is_file()] == [name]
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
