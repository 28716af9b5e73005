"""Milliseconds an aggregation by byzfl and TorchJD, and a training step by Opacus: called by shapings.py.

    .peers/bin/python tests/benchmarks/peer_aggregators.py a
        a unit of work of units.py, a, b or c, of one model: a line of JSON, milliseconds by shaping and peer

byzfl and TorchJD combine random gradients that lie ready. Opacus clips inside its optimisers, so that its figure is a
whole step: forward, backward with a gradient for each example, clipping without noise, Adam.

Some rules are not the suite's to the letter, but of the same kind: byzfl begins the geometric median at zero instead of
the mean, TorchJD's Krum adds distances instead of squares, of two neighbours less, and Opacus clips each array of
parameters, not each layer.
"""

from __future__ import annotations

import ctypes
import json
import math
import sys
from collections.abc import Callable

import torch
from peer_opacus import network, training
from units import UNITS, Unit, data, milliseconds

MICRO_BATCHES = 10


def gradients(unit: Unit) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a batch's examples, float32 [batch, parameters], and their means by micro-batch, [10, parameters]."""
    parameters = sum((inside + 1) * outside for inside, outside in unit.dense)
    examples = torch.randn(unit.batch_size, parameters, generator=torch.Generator().manual_seed(0))
    return examples, torch.stack([examples[first::MICRO_BATCHES].mean(0) for first in range(MICRO_BATCHES)])


def aggregators(unit: Unit) -> dict[str, tuple[torch.Tensor, dict[str, Callable]]]:
    """By shaping: the matrix, and the rules of the peers that take it."""
    import byzfl
    import torchjd.aggregation as torchjd

    examples, means = gradients(unit)

    def krum(rows: int) -> dict[str, Callable]:
        left_out = 3 * rows // 10
        return {"byzfl": byzfl.MultiKrum(left_out), "TorchJD": torchjd.Krum(left_out, rows - left_out)}

    trimmed = 3 * MICRO_BATCHES // 10
    return {
        "geometric-median:0.1:0": (examples, {"byzfl": byzfl.GeometricMedian(nu=0.1, T=3)}),
        "geometric-median:0.1:10": (means, {"byzfl": byzfl.GeometricMedian(nu=0.1, T=3)}),
        "multi-krum:0.3:10": (means, krum(len(means))),
        "multi-krum:0.3:0": (examples, krum(len(examples))),
        "median-of-means:10": (means, {"byzfl": byzfl.Median()}),
        "trimmed-mean:0.3:10": (means, {"byzfl": byzfl.TrMean(trimmed), "TorchJD": torchjd.TrimmedMean(trimmed)}),
        "centered-clip:1": (examples, {"byzfl": byzfl.CenteredClipping(L=1, tau=1.0)}),
    }


def epochs(unit: Unit) -> dict[str, Callable[[], None]]:
    """Functions that train the unit's steps with Opacus, by shaping."""
    from opacus import GradSampleModule
    from opacus.optimizers import AdaClipDPOptimizer, DPPerLayerOptimizer

    x, y = (torch.from_numpy(values).split(unit.batch_size) for values in data(unit))
    batches = [(features, labels.long()) for features, labels in zip(x, y)]

    def epoch_of(kind: type, **settings) -> Callable[[], None]:
        model, criterion = GradSampleModule(network(unit)), torch.nn.CrossEntropyLoss()
        adam = torch.optim.Adam(model.parameters(), unit.learning_rate)
        optimizer = kind(adam, noise_multiplier=0.0, expected_batch_size=unit.batch_size, **settings)
        return training(model, optimizer, criterion, batches)

    arrays = 2 * len(unit.dense)
    adapted = {"target_unclipped_quantile": 0.5, "clipbound_learning_rate": 0.2, "max_grad_norm": 1.0}
    unbounded = {"min_clipbound": 1e-9, "max_clipbound": 1e9, "unclipped_num_std": 1e-9}  # and all but without noise
    return {
        "clip-layers:4": epoch_of(DPPerLayerOptimizer, max_grad_norm=[4.0 / math.sqrt(arrays)] * arrays),
        "quantile-clip:0.5:0.2:1": epoch_of(AdaClipDPOptimizer, **adapted, **unbounded),
    }


def main() -> None:
    if sys.platform == "linux":  # memory that is handed back makes a rule up to ten times as slow, in some runs
        for trim_threshold_or_mmap_max, value in ((-1, -1), (-4, 0)):
            ctypes.CDLL(None).mallopt(trim_threshold_or_mmap_max, value)
    unit = UNITS[sys.argv[1]]

    def time(rule: Callable, matrix: torch.Tensor) -> float:
        return milliseconds(lambda: [rule(matrix) for _ in range(unit.steps)], unit.steps)

    found = {
        text: {peer: time(rule, matrix) for peer, rule in rules.items()}
        for text, (matrix, rules) in aggregators(unit).items()
    }
    found.update({text: {"Opacus": milliseconds(epoch, unit.steps)} for text, epoch in epochs(unit).items()})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
