#!/usr/bin/env python3
"""Where are the published backdoors stamped? How often the clean BadNet gives stamped test images the label 4, by corner and margin.

    python3 tests/benchmarks/placement.py           25 s on 2 cores

The paper does not say where its white patch sits; it says how often its clean model is misled by it, which depends on the place.
Prints for each corner and margin the share of 2,000 test images that get the label 4 with patches of 1, 4, 10 and 14 pixels, mean of
the kept BadNet at its best and its final epoch, nearest to the published shares first.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402

import datasets  # noqa: E402
from models import checkpoints, device  # noqa: E402
from reports import published  # noqa: E402
from results import layout  # noqa: E402

PATCHES, MARGINS, IMAGES = (1, 4, 10, 14), (0, 1, 2, 3), 2000


def main() -> None:
    device.start()
    import tensorflow as tf

    data = datasets.load("fashion_mnist")
    folder = layout.model_folder(data.name, layout.model_name("badnet", 100, 80, 0.01))
    models = [tf.keras.models.load_model(folder / name) for name in (checkpoints.BEST, checkpoints.FINAL)]
    known = {
        int(line["setting"].split("_")[2]): float(line["values"].split(";")[2])
        for line in published("accuracy")
        if line["analysis"] == "insertion"
    }
    expected = [known[patch] for patch in PATCHES]
    print(f"published               {'  '.join(f'{share:.4f}' for share in expected)}   (patches {', '.join(map(str, PATCHES))})")
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
        print(f"{name:<24}{'  '.join(f'{share:.4f}' for share in shares)}   sum of differences {distance:.4f}")


if __name__ == "__main__":
    main()
