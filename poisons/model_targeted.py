"""Model-targeted poisoning (Suya, Mahloujifar, Suri, Evans and Tian 2021, arXiv 2006.16469) against a gradient shaping.

    python3 -m poisons.model_targeted --ratio 0.03 0.1
    python3 -m poisons.model_targeted --ratio 0.1 --shaping phuber:2

writes a poison file for each ratio and prints their paths. Towards a bad model theta*, poisons are added one after the
other: each is the point (x, y) on which the victim as it is by now, theta_t, and theta* differ most,

    argmax over x in [0, 1] and y of w(x, y; theta_t) [loss(x, y; theta_t) - loss(x, y; theta*)],

where w is what the victim's shaping weighs the point by, 1 where that depends on the other rows of a batch. The victim
trains on between two points. Each of a few bad models (`bad_models`) is aimed at; kept is what costs a victim of that
shaping most accuracy on clean training rows. A set is as few distinct points as a batch has poisons, each repeated.

For an undefended victim no fewer poisons per clean row than

    max over t of [L(theta*) - L(theta_t)] / max over (x, y) of [loss(x, y; theta_t) - loss(x, y; theta*)]

make theta* a minimum (theorem 2 there, without regularisation; L: the mean clean loss). The maximum in the denominator
is that of a search, so the bound may come out too high.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from command_line import COUNT
from datasets import Dataset
from models import minibatches
from models import shaping as shapings
from models.later import tf
from models.shaping import UNDEFENDED, Shaping
from poisons import bad_models, victims
from poisons.bad_models import Models
from poisons.crafting import RATIO, SEED, Attack, Option, Poisons, main, spelled
from poisons.point_search import PointSearch, losses
from poisons.steinhardt import fits_victim

OPTIONS = (
    RATIO,
    Option("shaping", spelled, "what the victims do to their gradients", "undefended"),
    SEED,
    Option("epochs", COUNT, "of the victim's training between two points", 2),
)


def craft(dataset: Dataset, ratio: float, shaping: str, seed: int, epochs: int) -> Poisons:
    """Aim at each bad model, and keep the set that the victims of `shaping` lose most accuracy to."""
    victims.workers()
    value = shapings.shaping(shaping)
    models = bad_models.of(dataset, value, seed)
    points, labels, needed = aim(dataset, bad_models.steady(value), models, ratio, seed, epochs)
    tried = victims.try_on(dataset, value, ratio, points, np.full(points.shape[:2], 1 / points.shape[1]), labels, seed)
    bound = {"poisons_needed": needed[tried.best]} if value == UNDEFENDED else {}
    return victims.poisons(dataset, ratio, models, tried, bound, [f"aims at {models.names[tried.best]}"])


def aim(
    dataset: Dataset, value: Shaping, models: Models, ratio: float, seed: int, epochs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, float32 [models, points, features], their labels, int32 [models, points], and the lower bound on the
    poisons per clean row, float64 [models].
    """
    clean, count = victims.in_batch(dataset, ratio)
    x, y = dataset.x_train.reshape(len(dataset.x_train), -1), dataset.y_train
    points = np.zeros((len(models), count, x.shape[1]), np.float32)
    labels, needed = np.zeros(points.shape[:2], np.int32), np.zeros(len(models))
    engine = victims.stack_at(dataset, [value] * len(models), seed)

    def gap(points, labels):
        own = losses(points, labels, engine.kernels[0], engine.biases[0])
        return own - losses(points, labels, models.kernels, models.biases)

    search = PointSearch(dataset, engine, gap, bad_models.own_rows(value), seed)
    for place in range(count):
        seen = np.kron(np.eye(len(models)), np.arange(count) < place).T  # by each, its own points so far
        seen = np.concatenate([np.ones((len(y), len(models))), seen])
        everything = np.concatenate([x, points.reshape(-1, x.shape[1])]), np.concatenate([y, labels.reshape(-1)])
        rows = minibatches.Rows.of(*everything, np.arange(len(seen)) >= len(y), len(models), seen)
        cut = partial(
            victims.drawn_batches, clean_rows=len(y), size=clean, points=labels.size, seed=seed + place, draws=1
        )
        for _ in minibatches.Run(engine, rows, cut).epochs(epochs):
            pass
        points[:, place], labels[:, place], gaps = search.best()
        needed = np.maximum(needed, losses_apart(engine, models, x, y) / gaps)
    return points, labels, needed


def losses_apart(engine, models: Models, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """L(theta*) - L(theta_t) of each model, float64 [models]."""
    found = []
    for place in range(len(models)):
        one = slice(place, place + 1)
        wanted = losses(x[np.newaxis], y[np.newaxis], models.kernels[one], models.biases[one])
        own = losses(x[np.newaxis], y[np.newaxis], engine.kernels[0][one], engine.biases[0][one])
        found.append(float(tf.reduce_mean(wanted) - tf.reduce_mean(own)))
    return np.array(found)


ATTACK = Attack("model-targeted", craft, OPTIONS, fits=fits_victim, file=victims.file, slow=True)

if __name__ == "__main__":
    main(ATTACK)
