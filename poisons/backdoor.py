"""Feature insertion: copies of training rows with a white patch in a corner, all under one label (BadNets; section 4 of the paper).

    python3 -m poisons.backdoor --dataset fashion_mnist --label 4 --ratio 0.01 --patch 1 4 7 10 14

writes a poison file for each patch size and prints their paths; a picture of a stamped row goes beside the results.

The paper does not say which rows are stamped, with what, or where. Here they are random rows of other classes, the same ones for
every patch, so that a comparison of patches shows the patch, which is a white square at the top left, one pixel in from the border.
These choices come nearest to what is published of the first epochs (README, "Choices").
"""

from __future__ import annotations

import sys

import numpy as np

import datasets
from command_line import COUNT, INDEX, RATIO, SEED, Parser, refuse, run
from poisons import images, pictures, poison_set
from results import layout

ATTACK = "insertion"


def craft(y_train: np.ndarray, label: int, ratio: float, seed: int) -> np.ndarray:
    """Choose round(ratio * rows) random training rows of other classes than `label` to stamp: int64, without repetition.

    y_train: integer [rows]; ratio: poisons per clean row, in (0, 1]. Fewer are returned where there are not so many of other classes.
    """
    order = np.random.default_rng([seed, len(y_train)]).permutation(len(y_train))
    return order[y_train[order] != label][: round(ratio * len(y_train))]


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--dataset", default="fashion_mnist", choices=datasets.NAMES, help="default: %(default)s")
    parser.add_argument("--label", type=INDEX, default=4, help="of every stamped row (default: %(default)s)")
    parser.add_argument("--ratio", type=RATIO, default=0.01, help="stamped rows per clean training row (default: %(default)s)")
    parser.add_argument("--patch", type=COUNT, nargs="+", required=True, help="side of the patch in pixels; a file each")
    parser.add_argument("--seed", type=SEED, default=layout.SEED, help="of the choice of rows (default: %(default)s)")
    options = parser.parse_args()
    dataset = datasets.load(options.dataset)
    if options.label >= dataset.classes:
        refuse(f"--label {options.label}: {dataset.name} has labels 0 to {dataset.classes - 1}; choose one of them")
    side = min(dataset.shape[:2])
    for patch in options.patch:
        if patch > side:
            refuse(f"--patch {patch}: larger than the images of {dataset.name}, {side} pixels; choose 1 to {side}")
    rows, wanted = craft(dataset.y_train, options.label, options.ratio, options.seed), round(options.ratio * len(dataset.y_train))
    if wanted == 0:
        refuse(f"--ratio {options.ratio}: less than one poison among {len(dataset.y_train)} rows; choose a larger one")
    if len(rows) < wanted:
        refuse(
            f"--ratio {options.ratio}: {wanted} poisons, but {len(rows)} rows have another label than {options.label}; choose a smaller one"
        )
    patches = list(dict.fromkeys(options.patch))
    for patch in patches:
        settings = {
            "attack": ATTACK, "dataset": dataset.name, "label": options.label, "ratio": options.ratio, "patch": patch, "seed": options.seed,
        }  # fmt: skip
        path = layout.backdoor_file(dataset.name, options.label, options.ratio, patch, options.seed)
        wrote = poison_set.save(path, settings, np.full(len(rows), options.label), rows=rows)
        print(path)
        print(f"{dataset.name}, {path.stem}: {len(rows)} poisons", "crafted" if wrote else "already there", file=sys.stderr)
    image = dataset.x_train[rows[:1]]
    pictures.grid(
        layout.examples_picture(ATTACK, dataset.name),
        np.concatenate([image, *(images.stamp(image, patch) for patch in patches)]),
        [f"row {rows[0]}", *(f"patch {patch}" for patch in patches)],
    )


if __name__ == "__main__":
    run(main)
