"""Adversarial label flips: copies of the rows that lie furthest on their own side, under the other label.

    python3 -m poisons.adversarial_flip --ratio 0.1

writes a poison file for each ratio and prints their paths. Sides are told by the direction from one class's mean to the
other's. The rows that a linear model is most sure of cost it most when their labels are wrong, as in the flips of
largest loss of Biggio et al. 2012 and Xiao et al. 2012, without a search. Nothing is drawn.
"""

from __future__ import annotations

import numpy as np

from datasets import Dataset
from poisons.crafting import RATIO, Attack, Poisons, main, two_classes


def craft(dataset: Dataset, ratio: float) -> Poisons:
    """Take the round(ratio * rows) rows of largest s (x - m) . (m_1 - m_0), each with the other label.

    s = 1 for class 1 and -1 for class 0, m_c the mean of class c, m the middle between the two.
    """
    x, y = dataset.x_train.reshape(len(dataset.x_train), -1).astype(np.float64), dataset.y_train
    means = [x[y == label].mean(0) for label in (0, 1)]
    depth = (2 * y - 1) * ((x - sum(means) / 2) @ (means[1] - means[0]))
    rows = np.argsort(-depth, kind="stable")[: round(ratio * len(y))]
    return Poisons(1 - y[rows], rows=rows)


ATTACK = Attack("adversarial-flips", craft, (RATIO,), fits=two_classes)

if __name__ == "__main__":
    main(ATTACK)
