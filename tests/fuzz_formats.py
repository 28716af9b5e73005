"""The readers of files from outside, as tests/fuzz.py calls them: seeds, damage, and what reads one file.

A format has seeds of several kinds. `read` writes a file of a kind where its reader looks for it, calls the reader, and
returns how many bytes the result has; what it raises is the reader's. Where files carry a checksum of this suite, half
of the damaged ones get a right one.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import pickle
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mutations
import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent


class Refused(Exception):
    """A file that its reader left out, and named."""


@dataclass(frozen=True)
class Format:
    """One format. seeds: makes whole files, by kind, in a folder that stays empty else; damage: see `mutations`; read:
    gets the folder, a kind and the bytes; modules: whose lines count as covered; own_child: its reader is run in a
    process of its own, whose end by a signal is a refusal; parses: it compiles expressions (pandas); traced: of so many
    files the lines of one are looked at, which makes readers that call much slow; seconds: that one may take.
    """

    seeds: Callable[[Path], list[tuple[str, bytes]]]
    damage: Callable[[str, bytes, bytes, random.Random], bytes]
    read: Callable[[Path, str, bytes], int]
    modules: tuple[str, ...]
    own_child: bool = False
    parses: bool = False
    traced: int = 1
    seconds: float = 5.0


def size_of(found) -> int:
    """The bytes of arrays, frames and texts in what a reader gave."""
    if isinstance(found, dict):
        return sum(map(size_of, found.values()))
    if isinstance(found, (list, tuple)):
        return sum(map(size_of, found))
    if hasattr(found, "memory_usage"):
        return int(np.sum(found.memory_usage(deep=True)))
    return getattr(found, "nbytes", len(found) if isinstance(found, (str, bytes)) else 64)


# --- poison files ---


@functools.cache
def small_dataset():
    """A data set of 40 images, by the subtask's name."""
    from datasets import Dataset
    from results import layout

    dice = np.random.default_rng(0)
    x, y = dice.random((40, 28, 28, 1), np.float32), dice.integers(0, 2, 40).astype(np.int32)
    return Dataset(layout.SUBTASK, 2, (28, 28, 1), x, y, x[:4], y[:4])


def npz_seeds(folder: Path) -> list[tuple[str, bytes]]:
    from poisons import poison_set

    dice, found = np.random.default_rng(0), []
    name = small_dataset().name
    made = [
        ({"attack": "label-flips", "ratio": 0.1, "seed": 215}, {"rows": np.arange(5)}),
        ({"attack": "slabs", "epsilon": 0.1}, {"instances": dice.random((3, 784), np.float32), "counts": [1, 3, 2]}),
        ({"attack": "collision", "task": "a_pair_1_2", "alpha": 0.4}, {"rows": [1], "target_rows": [2]}),
        ({"attack": "insertion", "label": 1, "ratio": 0.1, "patch": 4, "seed": 215}, {"rows": [3, 4]}),
        ({"attack": "own", "more": [1, {"a": None}]}, {"instances": dice.random((1, 28, 28, 1), np.float32)}),
    ]
    for number, (settings, arrays) in enumerate(made):
        path = folder / f"{number}.npz"
        count = len(arrays.get("rows", arrays.get("instances")))
        poison_set.save(path, {**settings, "dataset": name}, [1] * count, **arrays)
        found.append(("poisons", path.read_bytes()))
    return found


def damaged_npz(kind: str, content: bytes, other: bytes, dice: random.Random) -> bytes:
    from files import Unreadable, read_npz
    from poisons import poison_set

    content = mutations.of_npz(content, other, dice)
    if dice.random() < 0.5:
        return content
    try:
        members, arrays = dict(mutations.unpacked(content)), read_npz(io.BytesIO(content))
        stream = io.BytesIO()
        np.lib.format.write_array(stream, np.array(poison_set._checksum(arrays)))
    except (Unreadable, *mutations.BROKEN):
        return content
    return mutations.packed([*{**members, "checksum.npy": stream.getvalue()}.items()])


def read_poisons(folder: Path, kind: str, content: bytes) -> int:
    from poisons import poison_set

    path = folder / f"flips/poisons.{kind if kind != 'poisons' else 'npz'}"
    place(path, content)
    found = poison_set.load(path, small_dataset())
    if found.x.min() < 0 or found.x.max() > 1 or not np.isin(found.y, (0, 1)).all():
        raise AssertionError("poisons outside [0, 1], or labels that are none")
    return size_of([found.x, found.y])


def pickle_seeds(folder: Path) -> list[tuple[str, bytes]]:
    x, y = np.random.default_rng(0).random((2, 784), np.float32), np.array([1, 0])
    dicts = [{"instance": row[np.newaxis], "class": label, "perturbs": row * 0} for row, label in zip(x, (1, 0))]
    plain = [row.tolist() for row in x.round(1)], [1, 0]
    contents = [dicts, (x, y), plain, (x.astype(">f8"), y), [np.asfortranarray(x), y.astype(np.uint8)]]
    found = [("pkl", pickle.dumps(content, protocol)) for content in contents for protocol in (0, 2, 4, 5)]
    return [seed for seed in found if len(seed[1]) < 50_000]


def mat_seeds(folder: Path) -> list[tuple[str, bytes]]:
    import scipy.io
    import scipy.sparse

    x, y = np.random.default_rng(0).random((2, 3, 784)).round(2), np.array([[1, -1, 1]] * 2)
    cells, labels = np.empty(2, object), np.empty(2, object)
    sparse = np.empty(2, object)
    for number in range(2):
        cells[number], labels[number] = x[number], y[number][:, np.newaxis]
        sparse[number] = scipy.sparse.csc_matrix(np.where(x[number] > 0.9, x[number], 0))
    stored = [{"bestX": x, "bestY": y}, {"bestX": x[0], "bestY": y[:1]}, {"bestX": cells, "bestY": labels}]
    stored += [{"bestX": sparse, "bestY": labels}, {"bestX": sparse[0], "bestY": y[:1], "note": "text"}]
    found = []
    for content in stored:
        for how in ({"do_compression": True}, {}, {"format": "4"}):
            with contextlib.suppress(TypeError, ValueError):  # version 4 knows no cells
                scipy.io.savemat(folder / "seed.mat", content, **how)
                found.append(("mat", (folder / "seed.mat").read_bytes()))
    return found


def read_mat(folder: Path, kind: str, content: bytes) -> int:
    """Like a poison file, but what its reader's child would do is done here."""
    from poisons import mat_file, poison_set

    path = folder / "flips/poisons.mat"
    place(path, content)
    mat_file.read = mat_file.arrays  # in this process, which is the fuzzer's own child
    found = poison_set.load(path, small_dataset())
    return size_of([found.x, found.y])


# --- data sets ---


def data_seeds(folder: Path) -> list[tuple[str, bytes]]:
    from datasets import purchases
    from files import write_npz

    dice, found = np.random.default_rng(0), []
    import gzip

    for shape in ((3, 5, 5), (7,)):
        header = bytes([0, 0, 8, len(shape)]) + b"".join(side.to_bytes(4, "big") for side in shape)
        found.append(("idx", gzip.compress(header + dice.bytes(int(np.prod(shape))), 1)))
    x, y = dice.integers(0, 2, (6, 100)).astype(np.float32), dice.integers(0, 100, 6)
    papers = [x, y, x, np.eye(100, dtype=np.uint8)[y]]
    write_npz(folder / "paper.npz", {f"arr_{number}": values for number, values in enumerate(papers)})
    found.append(("paper", (folder / "paper.npz").read_bytes()))
    bits = {name: np.packbits(x > 0, axis=1) if "x" in name else y.astype(np.uint8) for name in purchases.ARRAYS}
    write_npz(folder / "baskets.npz", bits)
    found.append(("baskets", (folder / "baskets.npz").read_bytes()))
    return found


def damaged_data(kind: str, content: bytes, other: bytes, dice: random.Random) -> bytes:
    return (mutations.of_gzip if kind == "idx" else mutations.of_npz)(content, other, dice)


def read_data(folder: Path, kind: str, content: bytes) -> int:
    from datasets import fashion_mnist, purchases

    path = folder / "data"
    place(path, content)
    if kind == "idx":
        return size_of(fashion_mnist._read_idx(path))
    if kind == "paper":
        purchases.PAPER_FILE = path
        found = purchases._load_paper()
    else:
        purchases.STAND_IN_FILE = path
        found = purchases.load_stand_in()
    return size_of([found.x_train, found.x_test, found.y_train, found.y_test])


# --- models ---

SHAPES = {"layers/dense/vars/0": (6, 2), "layers/dense/vars/1": (2,)}


def keras_seeds(folder: Path) -> list[tuple[str, bytes]]:
    """A file as Keras writes it, and files with a link elsewhere, chunks, other types and shapes."""
    import h5py

    def weights(change: Callable) -> bytes:
        stream = io.BytesIO()
        with h5py.File(stream, "w") as file:
            for name, shape in SHAPES.items():
                file.create_dataset(name, shape, "<f4", np.full(shape, 0.5, np.float32))
            for name in ("vars", "layers/flatten/vars"):
                file.create_group(name)
            change(file)
        return stream.getvalue()

    def link(file) -> None:
        del file["layers/dense/vars/1"]
        file["layers/dense/vars/1"] = h5py.ExternalLink("/etc/passwd", "x")

    def chunks(file) -> None:
        del file["layers/dense/vars/0"]
        file.create_dataset("layers/dense/vars/0", (6, 2), "<f4", chunks=(2, 2), compression="gzip")

    def outside(file) -> None:
        del file["layers/dense/vars/0"]
        file.create_dataset("layers/dense/vars/0", (6, 2), "<f4", external=[("/etc/passwd", 0, 48)])

    kept = REPOSITORY / "models/subtask/vanilla_lr_300_40_0.01/best.keras"
    texts = [member for member in mutations.unpacked(kept.read_bytes()) if not member[0].endswith(".h5")]
    changes = (lambda file: None, link, chunks, outside)
    return [("keras", mutations.packed([*texts, ("model.weights.h5", weights(change))])) for change in changes]


def read_keras(folder: Path, kind: str, content: bytes) -> int:
    from models import weights_file

    path = folder / "model.keras"
    place(path, content)
    return size_of(weights_file.read(path, SHAPES))


# --- recorded gradients ---


def record_seeds(folder: Path) -> list[tuple[str, bytes]]:
    dice = np.random.default_rng(0)
    arrays = {
        **{f"{part}_kernel": dice.random((6, 2), np.float32) for part in ("clean", "poison")},
        **{f"{part}_bias": dice.random(2, np.float32) for part in ("clean", "poison")},
        **{name: dice.random(4, np.float32) for name in ("clean_norms", "poison_norms", "poison_cosines")},
    }
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    text = "".join(f"{value!r}\n" for value in arrays["clean_kernel"].reshape(-1).tolist())
    extracts = {
        "mextracts_epoch.csv": "0.5,1.5\n0.25,1.0\n", "aextracts_epoch.csv": "-0.5\n0.25\n",
        "sextracts_epoch.csv": "epoch" + ",x" * 15 + "\n1" + ",0.5" * 15 + "\n2" + ",0.25" * 15 + "\n",
    }  # fmt: skip
    whole = stream.getvalue()
    named = [(name, content.encode()) for name, content in extracts.items()]
    return [("2.npz", whole), ("vouched 2.npz", whole), ("1_1_clean_0.csv", text.encode()), *named]


@functools.cache
def whole_records() -> dict[str, bytes]:
    return dict(record_seeds(Path()))


def damaged_record(kind: str, content: bytes, other: bytes, dice: random.Random) -> bytes:
    return (mutations.of_npz if kind.endswith("npz") else mutations.of_text)(content, other, dice)


def read_record(folder: Path, kind: str, content: bytes) -> int:
    from files import write_json
    from results import cells, layout, param_updates

    name, cell = kind.split()[-1], folder / "cell"
    records = cell / layout.PARAM_UPDATES
    whole = whole_records()
    if name.startswith(("mex", "aex", "sex")):
        for beside in ("mextracts_epoch.csv", "aextracts_epoch.csv", "sextracts_epoch.csv"):
            place(cell / beside, whole[beside])
        place(cell / name, content)
        return size_of([param_updates.read_extracts(cell), param_updates.read_examples(cell)])
    for left in (*records.glob("*"), cell / layout.RUN):
        left.unlink(missing_ok=True)
    if name.endswith("npz"):
        place(records / "1.npz", whole["2.npz"])
    else:
        for beside in ("1_1_poison_0.csv", "1_1_clean_1.csv", "1_1_poison_1.csv"):
            place(records / beside, whole[name] if beside.endswith("0.csv") else b"1.0\n2.0\n")
    place(records / name, content)
    if kind.startswith("vouched"):
        write_json(cell / layout.RUN, {"settings": {"seed": 1}, "records_sha256": cells.records_sha256(cell)})
    return size_of(param_updates.read(records))


# --- results ---

SETTINGS = {
    "dataset": "fashion_mnist_3_4.1.0", "network": "lr", "engine": "stack", "optimizer": "adam", "batch_size": 300,
    "epochs": 40, "seed": 7, "learning_rate": 0.01, "shaping": "0.1", "kind": "clip", "clip_norm": 0.1,
    "noise_std": 0.0, "noise_multiplier": 0.0, "delta": 1e-05,
}  # fmt: skip
TRAINED = {
    **SETTINGS, "model": "dp_lr_300_40_0.01_1000.0_1e-05_0.1_0.0_seed_7", "attack": "label-flips",
    "poison_set": "fashion_mnist_3_4.1.0_random_0.4_seed_7", "poison_sha256": "0" * 64,
    "poison": {"ratio": 0.4, "seed": 7}, "n_poison": 4320, "clean_rows": 10800, "ratio": 0.4, "start": "scratch",
    "baseline": "kept", "baseline_acc": 0.955, "dump": None,
}  # fmt: skip
TARGETED = {
    **SETTINGS, "dataset": "purchases-cj", "epochs": 50, "attack": "clean-labels", "mode": "oneshot", "target": 2,
    "base_class": 3, "target_class": 4, "budget": "0.1_2000_3.5_100_1e-10", "poisons": 100, "clean_rows": 10000,
    "poison_sha256": "0" * 64, "model": "dp_lr_100_100_0.04", "model_sha256": "0" * 64, "baseline_acc": 0.7218,
    "stop_at_first": True, "dump": None,
}  # fmt: skip
TEXTS = {
    "attack": "epoch,n_poison,baseline_acc,test_acc,train_acc_clean,train_acc_poison,epsilon\n"
    "1,4320,0.955,0.93,0.9,0.1,inf\n2,4320,0.955,nan,nan,nan,inf\n",
    "trials": "target,poison,success,base_prob_before,target_prob_before,base_prob_after,target_prob_after,epoch,"
    "test_acc,epsilon\n2,0,False,0.1,0.2,0.3,0.4,50,0.72,inf\n2,1,True,0.1,0.2,0.3,0.4,12,0.72,inf\n",
    "analysis": "epoch,n_poison,baseline_acc,test_acc\n1,4320,0.955,0.93\n2,4320,0.955,0.92\n",
    "mextracts": "0.5,1.5\n0.25,1.0\n",
    "aextracts": "-0.5\n0.25\n",
}


def of_kind(kind: str) -> tuple[dict, str]:
    """Settings of a result, and the kind of its CSV file."""
    if kind in ("analysis", "mextracts", "aextracts"):
        return {**TRAINED, "dump": "npz"}, "analysis"
    return (TARGETED, "trials") if kind == "trials" else (TRAINED, "attack")


def run_of(settings: dict, texts: dict[str, str]) -> dict:
    from files import text_sha256

    versions = {"python": "3.11.7", "tensorflow": "2.15.1", "numpy": "1.26.4"}
    results = {name: text_sha256(text) for name, text in texts.items()}
    return {"settings": settings, "results": results, "wall_seconds": 1.5, "replicas": 2, "versions": versions}


def result_texts(kind: str) -> tuple[dict, str, dict[str, str]]:
    """Settings, place and whole texts by name of the result that a kind is part of."""
    from results import layout

    settings, main = of_kind(kind)
    path = layout.cell_file(settings)
    texts = {path.name: TEXTS[main]}
    if main == "analysis":
        texts |= {f"{name}_epoch.csv": TEXTS[name] for name in ("mextracts", "aextracts")}
    return settings, path, texts


@functools.cache
def folded_tables() -> tuple[str, str]:
    """A runs.csv and its seeds.csv, of two results."""
    from results import folded, layout

    lines, seeds = [], [f"run,{TEXTS['attack'].splitlines()[0]}"]
    for number, seed in enumerate((7, 8), 1):
        settings = {**TRAINED, "seed": seed, "poison": {"ratio": 0.4, "seed": seed}}
        settings |= {name: settings[name].replace("seed_7", f"seed_{seed}") for name in ("model", "poison_set")}
        path = layout.cell_file(settings)
        run = run_of(settings, {path.name: TEXTS["attack"]})
        place_of = str(path.relative_to(layout.runs_file(path).parent))
        lines.append({"run": number, "path": place_of, **folded._flattened(run)})
        seeds += [f"{number},{line}" for line in TEXTS["attack"].splitlines()[1:]]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue(), "\n".join(seeds) + "\n"


def csv_seeds(folder: Path) -> list[tuple[str, bytes]]:
    """Heads of the repository's own tables, and results."""
    from results import layout

    use_results(folder)
    kept, found = REPOSITORY / "results", []
    tables = {
        "nulls": "analysis/nulls/fashion_mnist_badnet_retrain_600_undefended.csv",
        "described": "analysis/datasets/purchases-cj_lr.csv", "frontier": "certificates/fashion_mnist_partition.csv",
        "attacked": "certificates/fashion_mnist_3_4.1.0_attacks.csv", "transfer": "matrix/transfer.csv",
        "price": "matrix/price.csv", "crafting": "ipoisoning/slabs-own/crafting.csv",
        "crafting minmax": "ipoisoning/minmax/crafting.csv",
    }  # fmt: skip
    for kind, name in tables.items():
        if (kept / name).is_file():
            found.append((kind, "".join((kept / name).read_text().splitlines(keepends=True)[:6]).encode()))
    history = REPOSITORY / "models/subtask/vanilla_lr_300_40_0.01" / "history.csv"
    found.append(("history", history.read_bytes()[:400].rpartition(b"\n")[0] + b"\n"))
    found += [(kind, text.encode()) for kind, text in TEXTS.items()]
    runs, seeds = folded_tables()
    assert layout.RESULTS == folder
    return [*found, ("runs", runs.encode()), ("seeds", seeds.encode())]


@contextlib.contextmanager
def kept_places():
    """Whatever seeds and reads do to where the suite looks for its files is undone when the block ends."""
    from datasets import purchases
    from poisons import mat_file
    from results import layout

    places = [(layout, name) for name in ("RESULTS", "ANALYSIS", "MODELS")]
    places += [(purchases, "PAPER_FILE"), (purchases, "STAND_IN_FILE"), (mat_file, "read")]
    before = [getattr(*place) for place in places]
    try:
        yield
    finally:
        for place, value in zip(places, before):
            setattr(*place, value)


def use_results(folder: Path) -> None:
    """Let the readers take a folder for that of the results."""
    from results import layout

    layout.RESULTS, layout.ANALYSIS = folder, folder / "analysis"


def damaged_csv(kind: str, content: bytes, other: bytes, dice: random.Random) -> bytes:
    content = mutations.of_text(content, other, dice)
    if kind == "runs" and dice.random() < 0.5:
        with contextlib.suppress(csv.Error, ValueError, LookupError, TypeError, AttributeError):
            return with_checksums(content.decode()).encode()
    return content


def with_checksums(text: str) -> str:
    """A runs.csv with right checksums."""
    from files import checksum
    from results import folded

    rows = list(csv.DictReader(io.StringIO(text)))
    for row in rows:
        row.pop(None, None)
        cells = {name: cell or "" for name, cell in row.items() if name != "checksum"}
        row["checksum"] = checksum(folded._unflattened(cells))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def read_csv(folder: Path, kind: str, content: bytes) -> int:
    from results import certificates, crafted, described, layout, nulls, prices, transfers

    use_results(folder)
    if kind in TEXTS:
        return read_result(folder, kind, content, True)
    if kind in ("runs", "seeds"):
        return read_folded(folder, kind, content)
    paths = {
        "described": layout.described_file("purchases-cj", "lr"), "frontier": certificates.path("data", "partition"),
        "attacked": certificates.path("data", "attacks"), "history": folder / "history.csv",
    }  # fmt: skip
    path = paths.get(kind, folder / f"{kind.split()[0]}.csv")
    place(path, content)
    if kind == "history":
        from reports import clean_models

        return size_of([clean_models.spent(path, 9)])
    readers = {
        "nulls": nulls.read, "described": described.read, "frontier": certificates.read, "attacked": certificates.read,
        "transfer": transfers.read, "price": prices.read, "crafting": crafted.read,
    }  # fmt: skip
    return size_of(readers[kind.split()[0]](path))


def read_result(folder: Path, kind: str, content: bytes, vouched: bool) -> int:
    """A result, one file of which is damaged; vouched: its run.json has the damaged file's SHA-256."""
    from files import checksum
    from results import cells

    settings, path, texts = result_texts(kind)
    damaged = {name: text.encode() for name, text in texts.items()}
    name = path.name if kind in ("attack", "trials", "analysis") else f"{kind}_epoch.csv"
    damaged[name] = content
    run = run_of(settings, texts)
    if vouched:
        import hashlib

        run["results"][name] = hashlib.sha256(content).hexdigest()
    for name, text in damaged.items():
        place(path.with_name(name), text)
    from results import layout

    place(layout.run_file(path), json.dumps({**run, "checksum": checksum(run)}).encode())
    return taken(cells.of_files(path))


def taken(result) -> int:
    """The size of what the report takes of a result."""
    from reports import reading
    from results import cells

    if why := cells.misplaced(result):
        raise Refused(why)
    text = reading.text_of(result)
    part = reading.frames(reading.kind_of(result), [(result, text)])
    if part.cells.fault.notna().any():
        raise Refused(part.cells.fault.iloc[0])
    return size_of([part.cells, part.lines])


def read_folded(folder: Path, kind: str, content: bytes) -> int:
    from results import folded, layout

    _, path, _ = result_texts("attack")
    runs, seeds = map(str.encode, folded_tables())
    if kind == "seeds" and len(content) < 2**20:
        with contextlib.suppress(ValueError, LookupError):  # where it is no text, the whole one is vouched for
            runs = vouching(runs.decode(), content.decode()).encode()
    place(layout.runs_file(path), content if kind == "runs" else runs)
    place(layout.runs_file(path).with_name("seeds.csv"), content if kind == "seeds" else seeds)
    folded._READ.clear()
    found, damaged = folded.read(layout.runs_file(path))
    if damaged or not found:
        raise Refused("; ".join(why for _, why in damaged))
    return sum(map(taken, found.values()))


def vouching(runs: str, seeds: str) -> str:
    """A runs.csv that vouches for these seeds."""
    from files import text_sha256

    header, *lines = seeds.split("\n")
    rows = list(csv.DictReader(io.StringIO(runs)))
    for row in rows:
        mine = [line.partition(",")[2] for line in lines if line.partition(",")[0] == row["run"]]
        text = "".join(f"{line}\n" for line in (header.partition(",")[2], *mine))
        row["results.attack_results.csv"] = text_sha256(text)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return with_checksums(stream.getvalue())


def json_seeds(folder: Path) -> list[tuple[str, bytes]]:
    use_results(folder)
    found = []
    for kind in ("attack", "trials", "analysis"):
        settings, _, texts = result_texts(kind)
        found.append((kind, run_of(settings, texts)))
    config = json.loads((REPOSITORY / "models/subtask/vanilla_lr_300_40_0.01/config.json").read_text())
    return [(kind, json.dumps(content, indent=1).encode()) for kind, content in [*found, ("config", config)]]


def damaged_json(kind: str, content: bytes, other: bytes, dice: random.Random) -> bytes:
    from files import checksum

    content = mutations.of_text(content, other, dice)
    if dice.random() < 0.5:
        with contextlib.suppress(ValueError, RecursionError):
            known = json.loads(content)
            if isinstance(known, dict):
                known.pop("checksum", None)
                content = json.dumps({**known, "checksum": checksum(known)}).encode()
    return content


def read_json_file(folder: Path, kind: str, content: bytes) -> int:
    from results import cells, layout

    use_results(folder)
    if kind == "config":
        return read_config(folder, content)
    _, path, texts = result_texts(kind)
    for name, text in texts.items():
        place(path.with_name(name), text.encode())
    place(layout.run_file(path), content)
    return taken(cells.of_files(path))


def read_config(folder: Path, content: bytes) -> int:
    from reports import clean_models
    from results import layout

    layout.MODELS = folder / "models"
    kept = REPOSITORY / "models/subtask/vanilla_lr_300_40_0.01"
    model = layout.MODELS / "subtask" / kept.name
    if not model.exists():
        shutil.copytree(kept, model)
    place(model / "config.json", content)
    from argparse import ArgumentTypeError

    try:
        return size_of(clean_models.read_model(model / "config.json"))
    except ArgumentTypeError as error:
        raise Refused(str(error)) from None


# --- the report ---


def report_seeds(folder: Path) -> list[tuple[str, bytes]]:
    texts = dict(csv_seeds(folder))
    kinds = ("attack", "trials", "analysis", "runs", "seeds", "nulls", "described", "frontier", "attacked", "price")
    found = [(kind, texts[kind]) for kind in (*kinds, "crafting") if kind in texts]
    return found + [(f"run {kind}", content) for kind, content in json_seeds(folder)]


def damaged_for_report(kind: str, content: bytes, other: bytes, dice: random.Random) -> bytes:
    return (damaged_json if kind.startswith("run ") else damaged_csv)(kind.removeprefix("run "), content, other, dice)


def read_report(folder: Path, kind: str, content: bytes) -> int:
    """All tables of the report on a results folder of one of each, one file of which is damaged."""
    import report
    from files import checksum
    from reports import claims, indiscriminate, reading
    from results import certificates, folded, layout

    use_results(folder)
    layout.MODELS = folder / "models"
    whole, where = dict(report_seeds(folder)), {}
    for name in ("attack", "trials", "analysis"):
        settings, path, texts = result_texts(name)
        where[name], where[f"run {name}"] = path, layout.run_file(path)
        if name == kind:
            texts[path.name] = content.decode("utf-8", "surrogateescape")
        for beside, text in texts.items():
            place(path.with_name(beside), text.encode("utf-8", "surrogateescape"))
        with contextlib.suppress(UnicodeEncodeError):
            run = run_of(settings, texts)
            place(where[f"run {name}"], json.dumps({**run, "checksum": checksum(run)}).encode())
    where |= {
        name: layout.runs_file(where["attack"]).with_name(f"{name}.csv") for name in ("runs", "seeds", "crafting")
    }
    where |= {
        "nulls": layout.null_folder() / "null.csv", "described": layout.described_file("purchases-cj", "lr"),
        "frontier": certificates.path("data", "partition"), "attacked": certificates.path("data", "attacks"),
        "price": layout.price_file(), "run config": layout.MODELS / "subtask/vanilla_lr_300_40_0.01/config.json",
    }  # fmt: skip
    for name in whole:
        if name not in ("attack", "trials", "analysis") and not name.startswith("run "):
            place(where[name], whole[name])
    if not where["run config"].parent.exists():
        shutil.copytree(REPOSITORY / "models/subtask/vanilla_lr_300_40_0.01", where["run config"].parent)
    place(where["run config"], whole["run config"])
    if kind == "seeds":
        with contextlib.suppress(ValueError, LookupError):
            place(where["runs"], vouching(whole["runs"].decode(), content.decode()).encode())
    place(where[kind], content) if kind not in ("attack", "trials", "analysis") else None
    folded._READ.clear()
    results = reading.read()
    if results.left_out and dice_of(content) > 0.02:  # what is left is known to make tables
        raise Refused(str(results.left_out[0]))
    tables = [table for part in report.PARTS for table in part.tables(results)]
    claims.judge({table.name: table for table in tables}, indiscriminate.by_seed(results))
    for table in tables:
        table.lines, table.summary  # noqa: B018
        guarded_text(table)
    "".join(f"{file} {why}" for file, why in results.left_out).encode()
    if results.left_out:
        raise Refused(str(results.left_out[0]))
    return size_of([part.lines for part in (results.trainings, results.analyses, results.trials)])


def dice_of(content: bytes) -> float:
    """A number from 0 to 1 by a file's bytes."""
    return random.Random(content).random()


def guarded_text(table) -> None:
    from reports import guarded

    guarded(table.frame[table.columns]).to_csv(io.StringIO(), index=False)


def place(path: Path, content: bytes) -> None:
    """Write a file; what is there is overwritten."""
    try:
        path.write_bytes(content)
    except FileNotFoundError:
        path.parent.mkdir(parents=True)
        path.write_bytes(content)


def simple(damage: Callable) -> Callable:
    return lambda kind, content, other, dice: damage(content, other, dice)


OF_RESULTS = ("files", "results.cells", "results.folded", "results.lines", "results.layout", "reports.reading")
FORMATS = {
    "npz": Format(npz_seeds, damaged_npz, read_poisons, ("files", "poisons.poison_set", "poisons.watermark")),
    "pkl": Format(
        pickle_seeds, simple(mutations.of_pickle), read_poisons,
        ("files", "poisons.plain_pickle", "poisons.foreign_files", "poisons.poison_set"),
    ),
    "mat": Format(
        mat_seeds, simple(mutations.of_mat), read_mat,
        ("poisons.mat_file", "scipy.io.matlab._mio5", "scipy.io.matlab._mio4"), own_child=True,
    ),
    "csv": Format(
        csv_seeds, damaged_csv, read_csv,
        (*OF_RESULTS, "results.nulls", "results.described", "results.certificates", "results.transfers",
         "results.prices", "results.crafted", "reports.clean_models"), parses=True, traced=8,
    ),
    "json": Format(
        json_seeds, damaged_json, read_json_file, (*OF_RESULTS, "models.checkpoints", "reports.clean_models"),
        parses=True, traced=4,
    ),
    "keras": Format(keras_seeds, simple(mutations.of_keras), read_keras, ("files", "models.weights_file")),
    "records": Format(record_seeds, damaged_record, read_record, ("files", "results.cells", "results.param_updates")),
    "data": Format(data_seeds, damaged_data, read_data, ("files", "datasets.fashion_mnist", "datasets.purchases")),
    "report": Format(
        report_seeds, damaged_for_report, read_report,
        (*OF_RESULTS, *(f"reports.{name}" for name in (
            "certificates", "clean_models", "doses", "gradients", "identity", "indiscriminate", "matrix", "matrix_runs",
            "nulls", "targeted", "together"))), parses=True, traced=20, seconds=60,
    ),
}  # fmt: skip
