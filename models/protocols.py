"""What a training is set to, and what the paper sets it to: no TensorFlow here, so that a command line is checked at
once.
"""

from __future__ import annotations

from dataclasses import dataclass

from command_line import refuse
from results.layout import SUBTASK


@dataclass(frozen=True)
class Protocol:
    """Optimiser (adam or sgd), batch size, epochs, and the learning rates without and with DP-SGD."""

    optimizer: str
    batch_size: int
    epochs: int
    learning_rate: float
    dp_learning_rate: float


@dataclass(frozen=True)
class Network:
    """The layers between the input and the logits: filters of each 3 x 3 convolution (a 2 x 2 max pool behind the
    last), units of each dense one.
    """

    filters: tuple = ()
    hidden: tuple = ()


NETWORKS = {
    "lr": Network(),
    "shallow-mlp": Network(hidden=(256, 256)),
    "badnet": Network(filters=(16, 32), hidden=(256,)),
}
PURCHASES = ("purchases", "purchases-cj", "purchases-cj2")
BASKETS = {"lr": Protocol("adam", 100, 100, 0.04, 0.08), "shallow-mlp": Protocol("adam", 100, 100, 0.001, 0.002)}
PROTOCOLS = {  # of each data set, by its name, and network
    (SUBTASK, "lr"): Protocol("adam", 300, 40, 0.01, 0.01),
    ("fashion_mnist", "shallow-mlp"): Protocol("sgd", 100, 100, 0.04, 0.04),
    ("fashion_mnist", "badnet"): Protocol("sgd", 100, 80, 0.01, 0.01),
    **{(name, network): known for name in PURCHASES for network, known in BASKETS.items()},
}


def protocol(dataset_name: str, network: str) -> Protocol:
    """The protocol of a network on a data set; refuses a pair that the paper does not train."""
    if (dataset_name, network) not in PROTOCOLS:
        known = ", ".join(name for data, name in PROTOCOLS if data == dataset_name) or "none"
        refuse(f"--network {network}: the paper does not train it on {dataset_name}; choose one of {known}")
    return PROTOCOLS[dataset_name, network]
