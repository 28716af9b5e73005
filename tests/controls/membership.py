#!/usr/bin/env python3
"""What the gradient analysis would show if poison rows were told from clean ones otherwise than by a mask.

Controls for published figures.

    python3 tests/controls/membership.py random [poison file ...]
        at random, anew each epoch, four times (default: label flips at ratio 0.4; 10 s): near the published figures
        with clip norm 4
    python3 tests/controls/membership.py pixels [poison file ...]
        by their pixels, so that a clean row that equals a poison counts as one (default: watermarks with alpha 1.0 on
        all of Fashion-MNIST; 2 minutes): the published dip of the MLP at alpha 1.0

Prints mean norms, mean norm ratio and mean cosine over 40 epochs, with the true membership first.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

import datasets
from analyze_gradients import cosine
from command_line import refuse, run
from models import device
from models.protocols import protocol
from models.shaping import UNDEFENDED, Shaping
from poisons import attacks, poison_set
from results import layout

EPOCHS = 40
DEFAULTS = {
    "random": attacks()["label-flips"].default_path(layout.SUBTASK, 0.4),
    "pixels": attacks()["collision"].path("fashion_mnist", {"task": "pairs_of_100", "alpha": 1.0}),
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in DEFAULTS:
        refuse("usage: python3 tests/controls/membership.py {random|pixels} [poison file ...]")
    device.start()
    for path in sys.argv[2:] or [DEFAULTS[sys.argv[1]]]:
        print(path)
        settings = poison_set.settings_of(Path(path))
        if settings is None:
            refuse(f"{path}: not a whole poison file of this suite")
        data = datasets.load(settings["dataset"])
        network = "lr" if data.name == layout.SUBTASK else "shallow-mlp"
        poisons = poison_set.load(Path(path), data)
        x, y = np.concatenate([data.x_train, poisons.x]), np.concatenate([data.y_train, poisons.y])
        is_poison = np.arange(len(y)) >= len(data.y_train)
        shapings = [UNDEFENDED, Shaping.clip(4.0)] if sys.argv[1] == "random" else [UNDEFENDED]
        show("true membership", shapings, analyze(data, network, shapings, x, y, [is_poison] * EPOCHS))
        if sys.argv[1] == "pixels":
            images = {image.tobytes() for image in poisons.x}
            equal = np.array([image.tobytes() in images for image in x])
            print(f"{equal.sum()} rows have the pixels of one of the {len(poisons.y)} poisons")
            show("membership by pixels", shapings, analyze(data, network, shapings, x, y, [equal] * EPOCHS))
            continue
        for seed in range(4):
            shuffled = [np.random.default_rng([seed, epoch]).permutation(is_poison) for epoch in range(1, EPOCHS + 1)]
            show(f"random membership {seed}", shapings, analyze(data, network, shapings, x, y, shuffled))


def analyze(
    data: datasets.Dataset, network: str, shapings: list, x: np.ndarray, y: np.ndarray, members: list[np.ndarray]
) -> list[np.ndarray]:
    """The mean gradients of each epoch, for each shaping: [epochs, (clean norm, poison norm, cosine)].

    members: which rows count as poisons in each epoch, bool [rows].
    """
    from models import minibatches, networks, stack

    published = protocol(data.name, network)
    model = networks.build(network, data.shape, data.classes, layout.SEED)
    replicas = stack.Stack(model, shapings, published.optimizer, published.learning_rate, layout.SEED)
    measured = [[] for _ in shapings]
    for epoch, member in enumerate(members, 1):
        rows = minibatches.Rows.of(x, y, member, len(shapings))
        batches = minibatches.shuffled(rows, published.batch_size, layout.SEED, epoch)
        record = replicas.train_epoch(rows, batches, record=True)
        for replica, epochs in enumerate(measured):
            clean, poison = (record.batch_means(replica, part, "kernel")[1].mean(0) for part in ("clean", "poison"))
            epochs.append((np.linalg.norm(clean), np.linalg.norm(poison), cosine(clean, poison)))
    return [np.array(epochs) for epochs in measured]


def show(label: str, shapings: list, measured: list[np.ndarray]) -> None:
    for shaping, epochs in zip(shapings, measured):
        clean, poison, angle = epochs.mean(0)
        print(
            f"{label:<22}{shaping.text:<12}norms {clean:.4f} {poison:.4f}   ratio"
            f" {np.mean(epochs[:, 1] / epochs[:, 0]):.2f}   cosine {angle:+.3f}"
        )


if __name__ == "__main__":
    run(main)
