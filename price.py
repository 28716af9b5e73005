#!/usr/bin/env python3
"""The price of a bad model under each gradient shaping: the share of poisons below which none can hold it still.

    python3 price.py --dataset subtask --shaping undefended 0.1 phuber:2

writes results/matrix/price.csv, a line for each shaping; what is there is not searched for again. A model w* stays
where it is only if the shaped gradients of the poisons there cancel those of the clean rows, so that their share is at
least

    |mean over clean rows of w_i g_i(w*)| / max over x in [0, 1] and y of <w g(x, y; w*), -u>,

u the direction of that mean. The cheapest of some bad models (`poisons.bad_models`) counts, of those that classify at
most three quarters of the clean training rows correctly: some other bad model may be cheaper, and the maximum is that
of a search, so a true price may be lower. No attack is run. A shaping that compares the examples of a batch, or looks
at all rows between epochs, has no such price; a price says nothing of how a model is reached.
"""

from __future__ import annotations

import pandas as pd

import datasets
from command_line import Parser, refuse, run
from files import Lock, Unreadable, writing
from models.kind import add_file_option
from models.shaping import Shaping, shaping
from poisons import bad_models, gradient_canceling, victims
from poisons.steinhardt import fits_victim
from results import layout, prices

ACCURACY = 0.75  # of a bad model on clean training rows, at most
FLIPPED = tuple((side, share) for side in (None, 0, 1) for share in (0.4, 0.6, 0.8, 1.0))


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--dataset", required=True, help=f"one of {', '.join(datasets.NAMES)}, of two classes")
    parser.add_argument("--shaping", type=shaping, nargs="+", required=True, help="as train.py takes it")
    add_file_option(parser)
    options = parser.parse_args()
    dataset = datasets.load(options.dataset)
    if why := fits_victim(dataset):
        refuse(f"--dataset {options.dataset}: {why}; choose another")
    path, lock = layout.price_file(), Lock(layout.price_file().with_suffix(".lock"))
    lock.take(0, wait=True)  # keeps other processes out
    try:
        known = prices.read(path)
    except Unreadable as error:
        refuse(f"{path}: {error}; restore it, or delete it to search for the prices again")
    there = set(known.shaping[known.dataset == dataset.name])
    missing = [one for one in dict.fromkeys(options.shaping) if one.text not in there]
    if missing:
        victims.workers()
        found = pd.DataFrame([price(dataset, one) for one in missing], columns=prices.COLUMNS)
        found = pd.concat([known, found]) if len(known) else found
        with writing(path) as stream:
            found.sort_values(prices.COLUMNS[:3]).to_csv(stream, index=False, lineterminator="\n")
    lock.release(0)
    print(path)


def price(dataset: datasets.Dataset, value: Shaping, seed: int = layout.SEED) -> dict:
    """The line of a shaping; without a price where it has none, or no bad model was bad enough."""
    line = {"dataset": dataset.name, "network": victims.NETWORK, "shaping": value.text}
    steady = bad_models.steady(value)
    dropped = any(link.kind.between for link in value.phases[-1].links)
    if dropped or not bad_models.own_rows(steady):
        return line
    models = bad_models.of(dataset, value, seed, FLIPPED)
    bad = bad_models.accuracies(models.kernels, models.biases, dataset.x_train, dataset.y_train) <= ACCURACY
    if not bad.any():
        return line
    names = [name for name, chosen in zip(models.names, bad) if chosen]
    models = bad_models.Models(models.kernels[bad], models.biases[bad], names, models.test_accuracies[bad])
    shares = gradient_canceling.prices(dataset, steady, models, seed)
    best = int(shares.argmin())
    return {
        **line, "price": round(float(shares[best]), 4), "model": names[best],
        "model_test_acc": round(float(models.test_accuracies[best]), 4), "models": len(models),
    }  # fmt: skip


if __name__ == "__main__":
    run(main)
