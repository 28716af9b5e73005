#!/usr/bin/env python3
"""The price of a bad model under each gradient shaping: the share of poisons below which none can hold it still.

    python3 price.py --dataset subtask --network lr --shaping undefended 0.1 phuber:2

writes results/matrix/price.csv, a line for each shaping. A model w* stays where it is only if the shaped gradients of
the poisons there cancel those of the clean rows, so that their share is at least

    |mean over clean rows of w_i g_i(w*)| / max over x in [0, 1] and y of <w g(x, y; w*), -u>,

u the direction of that mean. The cheapest of some bad models (`poisons.bad_models`) counts, of those that classify at
most three quarters of the clean training rows correctly. No attack is run. A shaping that compares the examples of a
batch has no such price; a price says nothing of how a model is reached. The maximum is that of a search: a true price
may be lower.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

import datasets
from command_line import Parser, refuse, run
from files import writing
from models.kind import add_file_option
from models.later import tf
from models.shaping import Shaping, shaping
from poisons import bad_models, victims
from poisons.gradient_canceling import Sums
from poisons.point_search import PointSearch, logits
from poisons.steinhardt import fits_victim
from results import layout

ACCURACY = 0.75  # of a bad model on clean training rows, at most
FLIPPED = tuple((side, share) for side in (None, 0, 1) for share in (0.4, 0.6, 0.8, 1.0))
STEPS = 200
COLUMNS = ["dataset", "network", "shaping", "price", "model", "model_test_acc", "models"]


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--dataset", required=True, help=f"one of {', '.join(datasets.NAMES)}, of two classes")
    parser.add_argument("--network", default=victims.NETWORK, choices=(victims.NETWORK,))
    parser.add_argument("--shaping", type=shaping, nargs="+", required=True, help="as train.py takes it")
    add_file_option(parser)
    options = parser.parse_args()
    dataset = datasets.load(options.dataset)
    if why := fits_victim(dataset):
        refuse(f"--dataset {options.dataset}: {why}; choose another")
    victims.workers()
    lines = [price(dataset, one) for one in dict.fromkeys(options.shaping)]
    with writing(layout.price_file()) as stream:
        pd.DataFrame(lines, columns=COLUMNS).to_csv(stream, index=False, lineterminator="\n")
    print(layout.price_file())


def price(dataset: datasets.Dataset, value: Shaping, seed: int = layout.SEED) -> dict:
    """The line of a shaping; without a price where it has none, or no bad model was bad enough."""
    line = {"dataset": dataset.name, "network": victims.NETWORK, "shaping": value.text}
    steady = bad_models.steady(value)
    if not bad_models.own_rows(steady):
        return line
    models = bad_models.of(dataset, value, seed, FLIPPED)
    bad = bad_models.accuracies(models.kernels, models.biases, dataset.x_train, dataset.y_train) <= ACCURACY
    if not bad.any():
        return line
    names = [name for name, chosen in zip(models.names, bad) if chosen]
    models = bad_models.Models(models.kernels[bad], models.biases[bad], names, models.test_accuracies[bad])
    shares = prices(dataset, steady, models, seed)
    best = int(shares.argmin())
    return {
        **line, "price": round(float(shares[best]), 4), "model": names[best],
        "model_test_acc": round(float(models.test_accuracies[best]), 4), "models": len(models),
    }  # fmt: skip


def prices(dataset: datasets.Dataset, value: Shaping, models: bad_models.Models, seed: int) -> np.ndarray:
    """The share of poisons per clean row that it takes at least to hold each model, float64 [models]."""
    sums = Sums(dataset, value, models, np.zeros(1, np.int32), 1, seed)
    size = dataset.classes * int(np.prod(dataset.shape))
    kernels = (sums.clean[:, :size] / sums.norms).reshape(len(models), dataset.classes, -1)
    biases = sums.clean[:, size:] / sums.norms

    def against(points, labels):
        deltas = tf.nn.softmax(logits(points, models.kernels, models.biases)) - tf.one_hot(labels, dataset.classes)
        return -tf.reduce_sum(deltas * logits(points, kernels, biases), 2)

    _, _, largest = PointSearch(dataset, sums.engine, against, True, seed).best(STEPS)
    return sums.norms[:, 0].astype(np.float64) / largest


if __name__ == "__main__":
    run(main)
