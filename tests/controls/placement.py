#!/usr/bin/env python3
"""Where are the published backdoors stamped? How often a clean BadNet takes stamped test images for the label 4.

    python3 tests/controls/placement.py           25 s on 2 cores

The paper does not say where its white patch sits; it says how often its clean model is misled by it, which depends on
the place. Prints for each corner and margin the share of 2,000 test images that get the label 4 with patches of 1, 4,
10 and 14 pixels, mean of the kept BadNet at its best and its final epoch, nearest to the published shares first.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pandas as pd

import datasets
from command_line import run
from models import checkpoints, device
from results import layout

PATCHES, MARGINS, IMAGES = (1, 4, 10, 14), (0, 1, 2, 3), 2000


def main() -> None:
    device.start()
    import tensorflow as tf

    data = datasets.load("fashion_mnist")
    folder = layout.model_folder(data.name, "vanilla_badnet_100_80_0.01")
    models = [tf.keras.models.load_model(folder / name) for name in (checkpoints.BEST, checkpoints.FINAL)]
    lines = pd.read_csv(layout.PUBLISHED / "accuracy.csv")
    lines = lines[lines.analysis == "insertion"]
    settings, values = lines.setting.str.split("_"), lines["values"].str.split(";")
    # by patch (4_0.01_<patch>): the third value is the clean model's, at every epoch the same
    known = {int(setting[2]): float(value[2]) for setting, value in zip(settings, values)}
    expected = [known[patch] for patch in PATCHES]
    print(f"{'published':<24}{spelled(expected)}   (patches {', '.join(map(str, PATCHES))})")
    found = []
    for bottom, right, margin in itertools.product((False, True), (False, True), MARGINS):
        shares = []
        for patch in PATCHES:
            stamped = data.x_test[:IMAGES].copy()
            row, column = (28 - margin - patch if far else margin for far in (bottom, right))
            stamped[:, row : row + patch, column : column + patch] = 1
            shares.append(np.mean([model.predict(stamped, 500, verbose=0).argmax(1) == 4 for model in models]))
        name = f"{'bottom' if bottom else 'top'} {'right' if right else 'left'}, margin {margin}"
        found.append((np.abs(np.subtract(shares, expected)).sum(), name, shares))
    for distance, name, shares in sorted(found):
        print(f"{name:<24}{spelled(shares)}   sum of differences {distance:.4f}")


def spelled(shares: list[float]) -> str:
    return "  ".join(f"{share:.4f}" for share in shares)


if __name__ == "__main__":
    run(main)
