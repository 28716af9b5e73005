"""Feature insertion: copies of training rows with a white patch in a corner, all under one label (BadNets; section 4 of the paper).

    python3 -m poisons.backdoor --dataset fashion_mnist --label 4 --ratio 0.01 --patch 1 4 7 10 14

writes a poison file for each patch size and prints their paths; a picture of a stamped row goes beside the results.

The paper does not say which rows are stamped, with what, or where. Here they are random rows of any class, as in Gu et al. 2017,
the same ones for every patch, so that a comparison of patches shows the patch; the patch is a white square at the bottom right,
one pixel in from the border where it fits.
"""

from __future__ import annotations

import sys

import numpy as np

import datasets
from command_line import COUNT, INDEX, RATIO, SEED, Parser, refuse
from poisons import pictures, poison_set
from results import layout

ATTACK = "insertion"


def craft(y_train: np.ndarray, ratio: float, seed: int) -> np.ndarray:
    """Choose round(ratio * rows) random training rows to stamp: int64, without repetition. ratio: poisons per clean row, in (0, 1]."""
    return np.random.default_rng([seed, len(y_train)]).permutation(len(y_train))[: round(ratio * len(y_train))]


def stamp(x: np.ndarray, patch: int) -> np.ndarray:
    """Copies of images with a white square of `patch` x `patch` pixels at the bottom right.

    x: float32 [images, height, width, channels] in [0, 1]; patch: from 1 to the image's smaller side. Returns the shape of x.
    """
    stamped = x.copy()
    margin = 1 if patch < min(x.shape[1:3]) else 0
    bottom, right = (side - margin for side in x.shape[1:3])
    stamped[:, bottom - patch : bottom, right - patch : right] = 1
    return stamped


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
    rows = craft(dataset.y_train, options.ratio, options.seed)
    if len(rows) == 0:
        refuse(f"--ratio {options.ratio}: less than one poison among {len(dataset.y_train)} rows; choose a larger one")
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
        np.concatenate([image, *(stamp(image, patch) for patch in patches)]),
        [f"row {rows[0]}", *(f"patch {patch}" for patch in patches)],
    )


if __name__ == "__main__":
    main()
