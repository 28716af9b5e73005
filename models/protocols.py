"""What a training is set to, and what the paper sets it to: no TensorFlow here, so that a command line is checked at once."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from command_line import NOT_NEGATIVE, POSITIVE, refuse


@dataclass(frozen=True)
class Protocol:
    """Optimiser (adam or sgd), batch size, epochs, and the learning rates without and with DP-SGD."""

    optimizer: str
    batch_size: int
    epochs: int
    learning_rate: float
    dp_learning_rate: float


@dataclass(frozen=True)
class Shaping:
    """What one replica does to its gradients.

    clip_norm: C, the bound on each example's gradient over all parameters; infinite for an undefended training.
    noise_std: sigma * C, the standard deviation of the noise on each coordinate of the clipped sum.
    """

    clip_norm: float = math.inf
    noise_std: float = 0.0

    @property
    def defended(self) -> bool:
        return self.clip_norm < math.inf

    @property
    def noise_multiplier(self) -> float:
        """sigma = noise_std / C, to twelve digits: folder names show 0.0025, not 0.0025000000000000001."""
        return float(f"{self.noise_std / self.clip_norm:.12g}")


UNDEFENDED = Shaping()


def shaping(text: str) -> Shaping:
    """An argparse type: `undefended`, a clip norm such as 0.1, or a clip norm and a noise multiplier such as 4:0.0025."""
    if text == "undefended":
        return UNDEFENDED
    clip_norm, _, noise_multiplier = text.partition(":")
    try:
        clip_norm = POSITIVE(clip_norm)
        return Shaping(clip_norm, float(f"{NOT_NEGATIVE(noise_multiplier or '0') * clip_norm:.12g}"))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not 'undefended', a clip norm (4) or a clip norm and a noise multiplier (4:0.0025)"
        ) from None


@dataclass(frozen=True)
class Network:
    """The layers between the input and the logits: filters of each 3 x 3 convolution (a 2 x 2 max pool behind the last), units of each dense one."""

    filters: tuple = ()
    hidden: tuple = ()


NETWORKS = {
    "lr": Network(),
    "shallow-mlp": Network(hidden=(256, 256)),
    "badnet": Network(filters=(16, 32), hidden=(256,)),
}
PROTOCOLS = {
    ("subtask", "lr"): Protocol("adam", 300, 40, 0.01, 0.01),
    ("fashion_mnist", "shallow-mlp"): Protocol("sgd", 100, 100, 0.04, 0.04),
    ("fashion_mnist", "badnet"): Protocol("sgd", 100, 80, 0.01, 0.01),
    ("purchases", "lr"): Protocol("adam", 100, 100, 0.04, 0.08),
    ("purchases", "shallow-mlp"): Protocol("adam", 100, 100, 0.001, 0.002),
}


def protocol(dataset: str, network: str) -> Protocol:
    """The protocol of a network on a data set (both as on the command line); refuses a pair that the paper does not train."""
    if (dataset, network) not in PROTOCOLS:
        known = ", ".join(name for data, name in PROTOCOLS if data == dataset) or "none"
        refuse(f"--network {network}: the paper does not train it on {dataset}; choose one of {known}")
    return PROTOCOLS[dataset, network]
