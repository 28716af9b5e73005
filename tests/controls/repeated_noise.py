#!/usr/bin/env python3
"""What DP-SGD's noise does to logistic regression on shopping baskets when every step adds the same draw of it.

    python3 tests/controls/repeated_noise.py      about 4 minutes on 2 cores

The published noisy models are at their best after 14, 3 and 2 epochs and worse than fresh noise makes them, as if the
noise were a drift. Prints, for each published noise multiplier at clip norm 4: best epoch and accuracy, published, by a
fresh draw a step and by the same one, and on how many of TARGETS targets a oneshot attack with up to POISONS poisons
succeeds.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from command_line import run
from results import layout

TARGETS, POISONS, EPOCHS, CLIP_NORM = 20, 10, 50, 4.0


def main() -> None:
    from models import device

    device.start()
    import tensorflow as tf

    import datasets
    from models import minibatches, networks, protocols, stack, trials
    from models.noise import noise as fresh
    from models.shaping import shaping as read
    from poisons import shafahi

    data = datasets.load("purchases")
    published = protocols.protocol(data.name, "lr")
    rows = minibatches.Rows.of(data.x_train, data.y_train, np.zeros(len(data.y_train), bool), 1)
    base = data.x_train[shafahi.base_rows(data.y_train, shafahi.TARGET_CLASS, POISONS)]
    known = {line["noise_multiplier"]: line for line in table("models")}
    hit = {line["noise_multiplier"]: line["successes"] for line in table("tpoisoning") if line["mode"] == "oneshot"}
    setting = trials.Setting(data, "oneshot", published.batch_size, (EPOCHS,), layout.SEED)
    for multiplier in known:
        line = known[multiplier]
        print(
            f"noise multiplier {multiplier}: published {float(line['accuracy']):.4f} at epoch {line['epoch']},"
            f" {hit[multiplier]} of 100 targets"
        )
        shaping = read(f"{CLIP_NORM}:{multiplier}")
        for kind, draw in (
            ("a fresh draw a step", fresh),
            ("the same draw at every step", lambda *arguments: fresh(*arguments[:3], tf.constant(0))),
        ):
            stack.noise = draw
            model = networks.build("lr", data.shape, data.classes, layout.SEED)
            engine = stack.Stack(model, [shaping], published.optimizer, published.dp_learning_rate, layout.SEED)
            best = (0.0, 0, None)
            for epoch in range(1, published.epochs + 1):
                engine.train_epoch(rows, minibatches.shuffled(rows, published.batch_size, layout.SEED, epoch))
                best = max(
                    best,
                    (engine.hits(data.x_test, data.y_test).mean(), epoch, engine.weights(0)),
                    key=lambda reached: reached[0],
                )
            model.set_weights(best[2])
            right = model.predict(data.x_test, verbose=0).argmax(1) == data.y_test
            targets = np.flatnonzero(right & (data.y_test == shafahi.BASE_CLASS))[:TARGETS]
            crafter, successes = shafahi.Crafter(model), 0
            engine = stack.Stack(
                model, [shaping] * (POISONS + 1), published.optimizer, published.dp_learning_rate, layout.SEED
            )
            labels = np.full(POISONS, shafahi.TARGET_CLASS, np.int32)
            for target in targets:
                poisons, _ = crafter.craft(data.x_test[target], base, shafahi.Budget(poisons=POISONS))
                ended = trials.run(
                    engine, setting, poisons, labels, data.x_test[target], shafahi.TARGET_CLASS, POISONS, True
                )[EPOCHS]
                successes += any(trial.success and trial.poison for trial in ended)
            print(f"    {kind}: {best[0]:.4f} at epoch {best[1]}, {successes} of {len(targets)} targets", flush=True)


def table(name: str) -> list[dict]:
    """The published lines of noisy logistic regressions."""
    with open(layout.PUBLISHED / f"{name}.csv", newline="") as stream:
        return [
            line
            for line in csv.DictReader(stream)
            if line["network"] == "lr" and float(line["noise_multiplier"] or 0) > 0
        ]


if __name__ == "__main__":
    run(main)
