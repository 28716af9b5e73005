"""Poisons from and for other projects: poisoning-benchmark's pickles, and the arrays of IBM ART's attacks.

    python3 -m poisons.exchange import --from poisoning-benchmark FOLDER --attack-name bullseye --out MINE.npz
    python3 -m poisons.exchange import --from art FILE.npz --dataset fashion_mnist --attack-name mine --out MINE.npz
    python3 -m poisons.exchange export --to poisoning-benchmark FOLDER --poison MINE.npz --target 17
    python3 -m poisons.exchange export --to art FILE.npz --poison MINE.npz

poisoning-benchmark (Schwarzschild et al. 2021) keeps a folder of three pickles: poisons.pickle, a list of pairs (PIL
image, label); base_indices.pickle, the training rows that they were made of; target.pickle, a pair (PIL image, class).
There a poison takes its base row's place, here it is added; an imported file remembers the rows as `base_rows`. Pixels
are bytes in it, so values are rounded to 1/255. ART's attacks return x, floats [rows, *shape] in [0, 1], and y, one-hot
[rows, classes]: as x_poison and y_poison of an npz here. Pickles are read without executing anything.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

import datasets
from command_line import INDEX, Parser, refuse, run
from datasets import Dataset
from files import Unreadable, read_npz, whole, write_npz, writing
from poisons import foreign_files, plain_pickle, poison_set
from poisons.crafting import add_dataset
from poisons.poison_set import PoisonSet

FORMATS = ("poisoning-benchmark", "art")
POISONS, BASES, TARGET = "poisons.pickle", "base_indices.pickle", "target.pickle"
MOST_NUMBERS = 2**26


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("what", choices=("import", "export"))
    parser.add_argument("place", type=Path, metavar="FOLDER|FILE", help="of the other project")
    parser.add_argument("--from", "--to", dest="form", choices=FORMATS, required=True)
    add_dataset(parser, "subtask")
    parser.add_argument("--attack-name", metavar="NAME", help="import: what made the poisons")
    parser.add_argument("--out", type=Path, metavar="FILE", help="import: the poison file to write, an .npz")
    parser.add_argument("--poison", type=Path, metavar="FILE", help="export: the poison file")
    parser.add_argument("--target", type=INDEX, metavar="ROW", help="export: the test row that the poisons aim at")
    options = parser.parse_args()
    needed = ("attack_name", "out") if options.what == "import" else ("poison",)
    for name in needed:
        if getattr(options, name) is None:
            refuse(f"--{name.replace('_', '-')}: is needed to {options.what}; give it")
    dataset = datasets.load(options.dataset)
    if options.what == "import":
        read = {"poisoning-benchmark": of_benchmark, "art": of_art}[options.form]
        x, y, more = read(options.place)
        x, y = poison_set.check(options.place, x, y, dataset)
        settings = {"attack": options.attack_name, **dataset.named, **more}
        poison_set.check_names(options.out, settings)
        poison_set.save(options.out, settings, y, instances=x)
        print(f"{options.out}: {len(y)} poisons of {options.attack_name}")
        return
    poisons = poison_set.load(options.poison, dataset, options.attack_name)
    if options.form == "art":
        one_hot = np.eye(dataset.classes, dtype=np.float32)[poisons.y]
        write_npz(options.place, {"x_poison": poisons.x, "y_poison": one_hot})
    else:
        to_benchmark(options.place, poisons, dataset, options.target, rows_of(options.poison))
    print(f"{options.place}: {len(poisons.y)} poisons")


def of_benchmark(folder: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    """Poisons, float32 [poisons, height, width(, 3)] in [0, 1], labels, and what the folder says besides."""
    pairs = _unpickled(folder / POISONS)
    if not isinstance(pairs, list) or {type(pair) for pair in pairs} != {tuple} or {len(pair) for pair in pairs} != {2}:
        refuse(f"{folder / POISONS}: no list of pairs of an image and a label")
    try:
        x, y = (plain_pickle.numbers([pair[place] for pair in pairs], MOST_NUMBERS) for place in (0, 1))
        bases = plain_pickle.numbers(_unpickled(folder / BASES), MOST_NUMBERS).reshape(-1)
    except plain_pickle.Foreign as error:
        refuse(f"{folder}: {error}; give a folder with {POISONS} and {BASES}")
    if bases.dtype.kind not in "iu" or len(bases) != len(y):
        refuse(f"{folder / BASES}: {len(bases)} row numbers for {len(y)} poisons; give one for each")
    return foreign_files.in_unit(x), y.reshape(-1), {"base_rows": bases.tolist()}


def of_art(path: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    """Poisons and labels of an npz of ART's arrays, by either pair of names that `foreign_files.of_arrays` knows."""
    try:
        _, x, y = foreign_files.of_arrays(path, read_npz(path))
    except Unreadable as error:
        refuse(f"{path}: {error}; write it by numpy.savez(path, x_poison=..., y_poison=...)")
    return x, y, {}


def to_benchmark(
    folder: Path, poisons: PoisonSet, dataset: Dataset, target: int | None, rows: list[int] | None
) -> None:
    """Write poisoning-benchmark's folder. rows: the training rows that the poisons were made of."""
    if len(dataset.shape) != 3 or dataset.shape[2] not in (1, 3):
        refuse(f"--dataset {dataset.name}: its rows are no grey or RGB images, which that project's pickles hold")
    if rows is None or len(rows) != len(poisons.y):
        refuse(f"{folder}: the poison file does not say which training rows its poisons were made of; use --to art")
    if target is None or target >= len(dataset.y_test):
        refuse(f"--target {target}: give the test row that they aim at, 0 to {len(dataset.y_test) - 1}")
    pictures = [_picture(x) for x in poisons.x]
    contents = {
        POISONS: list(zip(pictures, poisons.y.tolist())),
        BASES: rows,
        TARGET: (_picture(dataset.x_test[target]), int(dataset.y_test[target])),
    }
    for name, content in contents.items():
        with writing(folder / name, "wb") as stream:
            pickle.dump(content, stream, protocol=4)


def rows_of(path: Path) -> list[int] | None:
    """The training rows that the poisons of a file of this suite were made of, where it says."""
    try:
        arrays = read_npz(path)
    except Unreadable:
        return None
    if "rows" in arrays:
        return np.repeat(arrays["rows"], arrays.get("counts", 1)).tolist()
    return (poison_set.settings_of(path) or {}).get("base_rows")


def _picture(x: np.ndarray):
    """A row as a picture of Pillow; x: float [height, width, 1 or 3] in [0, 1]."""
    from PIL import Image

    return Image.fromarray(np.round(x.squeeze() * 255).astype(np.uint8))


def _unpickled(path: Path):
    try:
        return plain_pickle.load(whole(path))
    except (Unreadable, plain_pickle.Foreign) as error:
        refuse(f"{path}: {error}; give the folder of one attack of that project")


if __name__ == "__main__":
    run(main)
