"""Certificates: how many training rows an attacker may substitute without changing a prediction.

    stability     of one training by clipped SGD: its model cannot move further than its steps reach
    partition     of a vote of models, each trained on rows of its own
    noisy         of a vote of models that were trained with noise, by differential privacy

What is proven, of which attacker and under which assumptions, is written out in docs/certificates.md. Each gives the
radius of every prediction: the largest number r of rows such that no substitution of r rows changes it, -1 where not
even the prediction itself is certain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets import TRUSTED, Dataset


def tested(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The test rows and labels and, behind them, the held-out ones that no one trusts, by which settings are chosen."""
    if dataset.held_out is None:
        return dataset.x_test, dataset.y_test
    x, y = (values[TRUSTED:] for values in dataset.held_out)
    return np.concatenate([dataset.x_test, x]), np.concatenate([dataset.y_test, y])


def certified_accuracies(right: np.ndarray, radii: np.ndarray, poisons: Sequence[int]) -> np.ndarray:
    """The share of rows that are classified correctly and stay so under any r substitutions, for each r of `poisons`.

    right: bool [rows]; radii: int [rows]. Returns float64 [len(poisons)].
    """
    return np.array([(right & (radii >= count)).mean() for count in poisons])
