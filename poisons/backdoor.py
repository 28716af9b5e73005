"""Feature insertion: copies of training rows with a white patch in a corner, under one label (BadNets; section 4).

    python3 -m poisons.backdoor --dataset fashion_mnist --label 4 --ratio 0.01 --patch 1 4 7 10 14

writes a poison file for each patch size and prints their paths; a picture of a stamped row goes beside the results.

The paper does not say which rows are stamped, with what, or where. Here they are random rows of other classes, the same
ones for every patch, so that a comparison of patches shows the patch, which is a white square at the top left, one
pixel in from the border. These choices come nearest to what is published of the first epochs (results/README.md).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

import command_line
from command_line import COUNT, INDEX, refuse
from datasets import Dataset
from poisons.crafting import Attack, Option, Poisons, main, of_images
from results import layout

MARGIN = 1  # pixels between a patch and the border, where there is room

OPTIONS = (
    Option("label", INDEX, "of every stamped row", 4),
    Option("ratio", command_line.RATIO, "stamped rows per clean training row", 0.01),
    Option("patch", COUNT, "side of the patch in pixels; a file each", many=True),
    Option("seed", command_line.SEED, "of the choice of rows", layout.SEED),
)


def stamp(x: np.ndarray, patch: int) -> np.ndarray:
    """Copies of images with a white square of `patch` x `patch` pixels at the top left.

    x: float32 [images, height, width, channels] in [0, 1]; patch: from 1 to the image's smaller side.
    """
    stamped = x.copy()
    top, left = (min(MARGIN, side - patch) for side in x.shape[1:3])
    stamped[:, top : top + patch, left : left + patch] = 1
    return stamped


def craft(dataset: Dataset, label: int, ratio: float, patch: int, seed: int) -> Poisons:
    """Choose round(ratio * rows) random training rows of other classes than `label` to stamp, without repetition."""
    y_train, side = dataset.y_train, min(dataset.shape[:2])
    if label >= dataset.classes:
        refuse(f"--label {label}: {dataset.name} has labels 0 to {dataset.classes - 1}; choose one of them")
    if patch > side:
        refuse(f"--patch {patch}: larger than the images of {dataset.name}, {side} pixels; choose 1 to {side}")
    order = np.random.default_rng([seed, len(y_train)]).permutation(len(y_train))
    rows, wanted = order[y_train[order] != label], round(ratio * len(y_train))
    if len(rows) < wanted:
        refuse(
            f"--ratio {ratio}: {wanted} poisons, but {len(rows)} rows have another label than {label}; choose a"
            " smaller one"
        )
    return Poisons(np.full(wanted, label), rows=rows[:wanted])


def make(dataset: Dataset, rows: np.ndarray, target_rows: np.ndarray | None, settings: dict) -> np.ndarray:
    """The stamped images that a file describes."""
    patch, side = settings.get("patch"), min(dataset.shape[:2])
    if not isinstance(patch, int) or not 1 <= patch <= side:
        refuse(f"patch is {patch!r}, not a number of pixels from 1 to {side}")
    return stamp(dataset.x_train[rows], patch)


def measure(dataset: Dataset, settings: dict, hits: Callable) -> tuple[float, float]:
    """The share of stamped test images given the backdoor's label: of all, as published, and of other classes'."""
    stamped = stamp(dataset.x_test, settings["patch"])
    hit = hits(stamped.reshape(len(stamped), -1), np.full(len(stamped), settings["label"], np.int32))[0]
    return hit.mean(), hit[dataset.y_test != settings["label"]].mean()


def file(dataset_name: str, settings: dict) -> Path:
    """E.g. backdoors/fashion_mnist/4_0.01_14.npz."""
    name = f"{settings['label']}_{settings['ratio']}_{settings['patch']}"
    return layout.BACKDOORS / dataset_name / (layout.seeded(name, settings["seed"]) + ".npz")


def examples(dataset: Dataset, sets: list[Poisons]) -> tuple[str, list[str], list[np.ndarray]]:
    """The first of the rows, clean and with each patch."""
    row, patches = sets[0].rows[0], [poisons.settings["patch"] for poisons in sets]
    image = dataset.x_train[row]
    titles = [f"row {row}", *(f"patch {patch}" for patch in patches)]
    return dataset.name, titles, [image, *(stamp(image[np.newaxis], patch)[0] for patch in patches)]


ATTACK = Attack(
    "insertion", craft, OPTIONS, dataset="fashion_mnist", fits=of_images, file=file, make=make, examples=examples,
    measures=("backdoor_acc", "backdoor_acc_other_classes"), measure=measure,
)  # fmt: skip

if __name__ == "__main__":
    main(ATTACK)
