"""Milliseconds a training step in PyTorch, plain or with Opacus (hooks; ghost clipping): called by peers.py."""

from __future__ import annotations

import sys
import warnings

import torch
from units import UNITS, Unit, data, milliseconds, report

warnings.filterwarnings("ignore")


def network(unit: Unit) -> torch.nn.Module:
    layers = []
    if unit.filters:
        layers.append(torch.nn.Unflatten(1, (1, 28, 28)))
        for inside, outside in zip((1, *unit.filters), unit.filters):
            layers += [torch.nn.Conv2d(inside, outside, 3, padding=1), torch.nn.ReLU()]
        layers += [torch.nn.MaxPool2d(2), torch.nn.Flatten()]
    for number, (inside, outside) in enumerate(unit.dense):
        layers += [torch.nn.Linear(inside, outside)] + [torch.nn.ReLU()] * (number < len(unit.dense) - 1)
    return torch.nn.Sequential(*layers)


def epoch_of(unit: Unit, mode: str):
    """A function that trains the unit's steps; mode: plain, hooks or ghost."""
    x, y = (torch.from_numpy(values) for values in data(unit))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y.long()), unit.batch_size)
    model, criterion = network(unit), torch.nn.CrossEntropyLoss()
    kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    optimizer = kinds[unit.optimizer](model.parameters(), unit.learning_rate)
    if mode != "plain":
        from opacus import PrivacyEngine

        parts = {"module": model, "optimizer": optimizer, "data_loader": loader, "criterion": criterion}
        amounts = {"noise_multiplier": unit.noise_multiplier, "max_grad_norm": unit.clip_norm}
        made = PrivacyEngine().make_private(**parts, **amounts, poisson_sampling=False, grad_sample_mode=mode)
        model, optimizer, criterion = (made[0], made[1], made[2]) if mode == "ghost" else (made[0], made[1], criterion)
    batches = [
        (x[first : first + unit.batch_size], y[first : first + unit.batch_size].long())
        for first in range(0, len(y), unit.batch_size)
    ]
    return training(model, optimizer, criterion, batches)


def training(model, optimizer, criterion, batches: list):
    """A function that trains a step on each of the batches."""

    def epoch() -> None:
        for features, labels in batches:
            optimizer.zero_grad()
            criterion(model(features), labels).backward()
            optimizer.step()

    return epoch


def main() -> None:
    unit = UNITS[sys.argv[1]]
    modes = ("plain",) if unit.clip_norm is None else ("hooks", "ghost")
    report(
        {
            f"Opacus {mode}" if mode != "plain" else "PyTorch": milliseconds(epoch_of(unit, mode), unit.steps)
            for mode in modes
        }
    )


if __name__ == "__main__":
    main()
