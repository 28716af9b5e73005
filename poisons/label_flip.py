"""Random label flips: copies of random training rows under another label, added to the training set (section 5 of the paper).

    python3 -m poisons.label_flip --ratio 0.4
    python3 -m poisons.label_flip --ratio 0.01 0.02 0.03 --seed 7

writes a poison file for each ratio and prints their paths.

The paper does not say which rows its authors drew. Here they are the first of one seeded permutation, so that the set of a
smaller ratio is part of that of a larger one, and a curve over ratios shows the ratio rather than the draw.
"""

from __future__ import annotations

import sys

import numpy as np

import datasets
from command_line import RATIO, SEED, Parser, refuse, run
from poisons import poison_set
from results import layout

ATTACK = "label-flips"


def craft(y_train: np.ndarray, classes: int, ratio: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose round(ratio * rows) training rows and a wrong label for each.

    y_train: integer [rows] in [0, classes); ratio: poisons per clean row, in (0, 1].
    Returns rows, int64 [poisons], without repetition, and labels, int64 [poisons], none of them the row's own; with two
    classes it is the other one.
    """
    random = np.random.default_rng([seed, len(y_train)])
    rows = random.permutation(len(y_train))[: round(ratio * len(y_train))]
    labels = (y_train[rows] + random.integers(1, classes, len(y_train))[: len(rows)]) % classes
    return rows.astype(np.int64), labels.astype(np.int64)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--dataset", default="subtask", choices=datasets.NAMES, help="default: %(default)s")
    parser.add_argument(
        "--ratio", type=RATIO, nargs="+", required=True, help="poisons per clean training row, above 0 and up to 1; one file each"
    )
    parser.add_argument("--seed", type=SEED, default=layout.SEED, help="of the draw (default: %(default)s)")
    options = parser.parse_args()
    dataset = datasets.load(options.dataset)
    for ratio in options.ratio:
        if round(ratio * len(dataset.y_train)) == 0:
            refuse(f"--ratio {ratio}: less than one poison among {len(dataset.y_train)} rows; choose a larger one")
    for ratio in options.ratio:
        rows, labels = craft(dataset.y_train, dataset.classes, ratio, options.seed)
        path = layout.label_flips_file(dataset.name, ratio, options.seed)
        settings = {"attack": ATTACK, "dataset": dataset.name, "ratio": ratio, "seed": options.seed}
        wrote = poison_set.save(path, settings, labels, rows=rows)
        print(path)
        print(f"{path.stem}: {len(rows)} poisons", "crafted" if wrote else "already there", file=sys.stderr)


if __name__ == "__main__":
    run(main)
