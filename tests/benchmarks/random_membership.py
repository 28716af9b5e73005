#!/usr/bin/env python3
"""What the gradient analysis would show if clean and poison rows were told apart at random: a control for the published clip-4 figures.

    python3 tests/benchmarks/random_membership.py [poison file ...]       default: label flips at ratio 0.4; 10 s each

Prints mean norms, mean norm ratio and mean cosine over 40 epochs, undefended and with clip norm 4: first with the true membership of
the rows, then with four memberships of the same size drawn at random, anew each epoch.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402

import datasets  # noqa: E402
from analyze_gradients import cosine  # noqa: E402
from models import device  # noqa: E402
from poisons import poison_set  # noqa: E402
from results import layout  # noqa: E402


def main() -> None:
    device.start()
    data = datasets.load("subtask")
    for path in sys.argv[1:] or [layout.label_flips_file(data.name, 0.4, layout.SEED)]:
        print(path)
        poisons = poison_set.load(Path(path), data)
        x, y = np.concatenate([data.x_train, poisons.x]), np.concatenate([data.y_train, poisons.y])
        is_poison = np.arange(len(y)) >= len(data.y_train)
        show("true membership", analyze(data, x, y, is_poison, None))
        for seed in range(4):
            show(f"random membership {seed}", analyze(data, x, y, is_poison, seed))


def analyze(data: datasets.Dataset, x: np.ndarray, y: np.ndarray, is_poison: np.ndarray, seed: int | None) -> list[np.ndarray]:
    """For undefended and clip 4: [40 epochs, (clean norm, poison norm, cosine)]; with a seed, the membership is shuffled every epoch."""
    from models import networks, stack
    from models.protocols import UNDEFENDED, Shaping

    replicas = stack.Stack(networks.build("lr", data.shape, data.classes, 215), [UNDEFENDED, Shaping(4.0)], "adam", 0.01, 215)
    measured = [[], []]
    for epoch in range(1, 41):
        member = is_poison if seed is None else np.random.default_rng([seed, epoch]).permutation(is_poison)
        rows = stack.Rows.of(x, y, member, 2)
        record = replicas.train_epoch(rows, *stack.batches(rows.is_poison, 300, 215, epoch), 300, record=True)
        for replica in range(2):
            clean, poison = (record.batch_means(replica, part, "kernel")[1].mean(0) for part in ("clean", "poison"))
            measured[replica].append((np.linalg.norm(clean), np.linalg.norm(poison), cosine(clean, poison)))
    return [np.array(epochs) for epochs in measured]


def show(label: str, measured: list[np.ndarray]) -> None:
    for shaping, epochs in zip(("undefended", "clip 4"), measured):
        clean, poison, angle = epochs.mean(0)
        print(
            f"{label:<22}{shaping:<12}norms {clean:.4f} {poison:.4f}   ratio {np.mean(epochs[:, 1] / epochs[:, 0]):.2f}   cosine {angle:+.3f}"
        )


if __name__ == "__main__":
    main()
