"""Random label flips: copies of random training rows under another label, added to the training set (section 5 of the
paper).

    python3 -m poisons.label_flip --ratio 0.4
    python3 -m poisons.label_flip --ratio 0.01 0.02 0.03 --seed 7

writes a poison file for each ratio and prints their paths.

The paper does not say which rows its authors drew. Here they are the first of one seeded permutation, so that the set
of a smaller ratio is part of that of a larger one, and a curve over ratios shows the ratio rather than the draw.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets import Dataset
from poisons.crafting import RATIO, SEED, Attack, Poisons, main
from results import layout


def craft(dataset: Dataset, ratio: float, seed: int) -> Poisons:
    """Choose round(ratio * rows) training rows, without repetition, and a wrong label for each; with two classes it is
    the other one.
    """
    y_train = dataset.y_train
    random = np.random.default_rng([seed, len(y_train)])
    rows = random.permutation(len(y_train))[: round(ratio * len(y_train))]
    labels = (y_train[rows] + random.integers(1, dataset.classes, len(y_train))[: len(rows)]) % dataset.classes
    return Poisons(labels, rows=rows)


def file(dataset_name: str, settings: dict) -> Path:
    """E.g. fashion_mnist_3_4.1.0_random_0.4.npz, as the paper's authors name theirs."""
    name = layout.seeded(f"{dataset_name}_random_{settings['ratio']}", settings["seed"])
    return layout.POISONS / "indiscriminate" / ATTACK.name / f"{name}.npz"


ATTACK = Attack("label-flips", craft, (RATIO, SEED), file=file, follows_seed=True)

if __name__ == "__main__":
    main(ATTACK)
