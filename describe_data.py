#!/usr/bin/env python3
"""What a data set looks like, and what a clean model makes of it: rows, classes, margins, and distances between rows.

    python3 describe_data.py --dataset purchases-cj purchases-cj2
    python3 describe_data.py --dataset fashion_mnist --network shallow-mlp

writes results/analysis/datasets/<data set>_<network>.csv, one line. A stand-in is as good as it is like what it stands
for: how hard it is, how far its rows lie apart, and how far a target is from the rows that its poisons start from,
which the dose of a targeted attack is measured against. Distances are L2 norms, by all features. The model is the
undefended clean one, trained where it is missing; what is finished of the same model is not measured again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import datasets
from attack_targets import choose_targets
from command_line import COUNT, INDEX, Parser, refuse, run
from files import Unreadable, writing
from models import baselines, checkpoints, device
from models.protocols import add_network_option
from models.trainer import Training
from poisons import shafahi
from results import described, layout

TARGETS = 40  # as many as dose_response.sh attacks
BLOCK = 2048  # rows of each side whose distances are in memory at a time: 32 MiB


def main() -> None:
    options = parse()
    known = [datasets.load(name) for name in dict.fromkeys(options.dataset)]
    for dataset in known:
        Training.published(dataset.name, options.network)  # refuses a network that has no protocol there
    device.start(options.gpu)
    for dataset in known:
        training = Training.published(dataset.name, options.network)
        model = baselines.baseline(training, dataset)
        values = (dataset.name, options.network, model.sha256, options.targets, options.poisons)
        settings = dict(zip(described.SETTINGS, (*values, options.base_class, options.target_class)))
        path = layout.described_file(dataset.name, options.network)
        if finished(path, settings):
            print(f"{path}: finished before", file=sys.stderr)
            continue
        line = {**settings, **measure(dataset, model, options)}
        with writing(path) as stream:
            pd.DataFrame([line])[described.COLUMNS].to_csv(stream, index=False, lineterminator="\n")
        print(path)


def parse():
    parser = Parser(__doc__)
    parser.add_argument("--dataset", nargs="+", required=True, help=f"of {', '.join(datasets.NAMES)}")
    add_network_option(parser, "lr")
    parser.add_argument("--targets", type=COUNT, default=TARGETS, help="the first so many (default: %(default)s)")
    parser.add_argument(
        "--poisons", type=COUNT, default=shafahi.DOSED.poisons, help="base rows of a target (default: %(default)s)"
    )
    parser.add_argument("--gpu", type=INDEX, metavar="INDEX", help="CUDA device (default: any; the CPU without)")
    parser.set_defaults(base_class=shafahi.BASE_CLASS, target_class=shafahi.TARGET_CLASS)
    return parser.parse_args()


def finished(path: Path, settings: dict) -> bool:
    """Whether a file holds these settings; one of another model is measured anew, one of other targets is refused."""
    if not path.exists():
        return False
    try:
        found = described.read(path).iloc[0]
    except Unreadable as error:
        refuse(f"{path}: {error}; delete it to measure it again")
    for option, name in (("--targets", "targets"), ("--poisons", "base_rows")):
        if found[name] != settings[name]:
            refuse(
                f"{option} {settings[name]}: {path} is of {found[name]}; ask for as many, or delete it to measure it"
                " again"
            )
    return all(found[name] == value for name, value in settings.items())


def measure(dataset: datasets.Dataset, model: baselines.Baseline, options) -> dict:
    """The line of a data set, by `described.COLUMNS` but for the settings, to six digits."""
    sizes = np.bincount(dataset.y_train, minlength=dataset.classes)
    config = checkpoints.config(layout.model_folder(dataset.name, model.name))
    of_test = margins(model.model.predict(dataset.x_test, batch_size=500, verbose=0), dataset.y_test)
    own, other = nearest(dataset.x_test, dataset.y_test, dataset.x_train, dataset.y_train)
    line = {
        "rows": len(dataset.y_train), "test_rows": len(dataset.y_test), "features": int(np.prod(dataset.shape)),
        "classes": dataset.classes, "density": (dataset.x_train > 0).mean(), "class_rows_smallest": sizes.min(),
        "class_rows_median": np.median(sizes), "class_rows_largest": sizes.max(),
        "best_acc": model.accuracy, "final_acc": config["final_test_acc"],
        **{f"margin_q{part}": np.percentile(of_test, part) for part in (25, 50, 75)},
        "margin_below_0": (of_test < 0).mean(),
        "own_class_distance": np.median(own), "other_class_distance": np.median(other),
        "nearest_of_other_class": (other < own).mean(), **dict.fromkeys(described.OF_TARGETS, np.nan),
    }  # fmt: skip
    if max(options.base_class, options.target_class) < dataset.classes:
        x = dataset.x_test[choose_targets(options, dataset)]
        base = dataset.x_train[shafahi.base_rows(dataset.y_train, options.target_class, options.poisons)]
        found = np.sqrt(squared_distances(x, base))
        line |= dict(zip(described.OF_TARGETS, (np.median(found), np.median(found.min(1)))))
    return {name: float(f"{value:.6g}") if isinstance(value, float) else int(value) for name, value in line.items()}


def margins(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The logit of a row's own class less the largest other, float64 [rows]; logits: [rows, classes]; y: [rows]."""
    logits, places = logits.astype(np.float64), np.arange(len(y))
    own = logits[places, y]
    logits[places, y] = -np.inf
    return own - logits.max(1)


def nearest(x: np.ndarray, y: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The L2 distance of each x to the nearest of `rows` of its own class, and of another; inf where there is none.

    x, rows: float [count, *shape]; y, labels: their classes. Returns two float64 [len(x)]. No more than BLOCK by BLOCK
    distances are in memory at a time.
    """
    found = np.full((2, len(x)), np.inf)
    for begin in range(0, len(x), BLOCK):
        here = slice(begin, begin + BLOCK)
        for start in range(0, len(rows), BLOCK):
            block = slice(start, start + BLOCK)
            squares = squared_distances(x[here], rows[block])
            same = y[here, np.newaxis] == labels[block]
            for place, mask in enumerate((same, ~same)):
                nearer = np.where(mask, squares, np.inf).min(1)
                found[place, here] = np.minimum(found[place, here], nearer)
    return tuple(np.sqrt(found))


def squared_distances(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Squared L2 distances, float64 [len(x), len(rows)], to nine decimals: so what is equally far is equal."""
    x, rows = (values.reshape(len(values), -1).astype(np.float64) for values in (x, rows))
    squares = (x * x).sum(1)[:, np.newaxis] - 2 * x @ rows.T + (rows * rows).sum(1)
    return squares.round(9).clip(min=0)


if __name__ == "__main__":
    run(main)
