"""What a training is set to, and what the paper sets it to: no TensorFlow here, so that a command line is checked at
once.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, fields
from pathlib import Path

import datasets
from command_line import COUNT, POSITIVE, BadInput, Parser, refuse
from files import Unreadable, text
from models.architecture import Convolution, Network, Pool, of_file, of_name
from results import layout
from results.layout import SUBTASK


@dataclass(frozen=True)
class Protocol:
    """Optimiser (adam or sgd), batch size, epochs, and the learning rates without and with DP-SGD."""

    optimizer: str
    batch_size: int
    epochs: int
    learning_rate: float
    dp_learning_rate: float


NETWORKS = {
    "lr": Network(),
    "shallow-mlp": Network(hidden=(256, 256)),
    "badnet": Network(front=(Convolution(16), Convolution(32), Pool()), hidden=(256,)),
}
PURCHASES = ("purchases", "purchases-cj", "purchases-cj2")
BASKETS = {"lr": Protocol("adam", 100, 100, 0.04, 0.08), "shallow-mlp": Protocol("adam", 100, 100, 0.001, 0.002)}
PROTOCOLS = {  # of each data set, by its name, and network
    (SUBTASK, "lr"): Protocol("adam", 300, 40, 0.01, 0.01),
    ("fashion_mnist", "shallow-mlp"): Protocol("sgd", 100, 100, 0.04, 0.04),
    ("fashion_mnist", "badnet"): Protocol("sgd", 100, 80, 0.01, 0.01),
    **{(name, network): known for name in PURCHASES for network, known in BASKETS.items()},
}
# What the paper has no protocol for trains so, unless a file says otherwise: without hidden layers, and with
OWN_LINEAR, OWN_DEEP = Protocol("adam", 100, 40, 0.01, 0.01), Protocol("adam", 100, 40, 0.001, 0.001)

_own_networks: dict[str, Network] = {}  # that this process was given, by the names that results know them by
_given: list[dict] = []  # the protocol of a file, at most one


def network(name: str) -> Network:
    """The network that results know by a name: the paper's, one of a file that was given, or one spelled mlp-64-32;
    refuses others.
    """
    known = NETWORKS.get(name) or _own_networks.get(name) or of_name(name)
    if known is None:
        refuse(
            f"--network {name}: unknown; choose one of {', '.join(NETWORKS)}, spell one by its hidden layers"
            " (mlp-64-32), or give a .keras file"
        )
    return known


def network_name(words: str) -> str:
    """An argparse type: the name of a network, or that of a .keras file whose layers are taken from now on."""
    try:
        if not words.endswith(".keras"):
            network(words)
            return words
        name = Path(words).stem
        if name in NETWORKS or of_name(name) or not datasets.NAME.fullmatch(name):
            refuse(f"--network {words}: results are filed under {name}, the name of another; rename the file")
        _own_networks[name] = of_file(Path(words))
        return name
    except BadInput as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--network ")) from None


def add_network_option(parser: Parser, default: str | None = None, required: bool = True) -> None:
    """Add --network and --protocol, and take the protocol of the file that PROTOCOL in the environment names."""
    parser.add_argument(
        "--network", type=network_name, required=required and default is None, default=default, metavar="NETWORK",
        help=f"{', '.join(NETWORKS)}, hidden layers such as mlp-64-32, or a .keras file, of which the layers are taken",
    )  # fmt: skip
    parser.add_argument(
        "--protocol", type=given_protocol, metavar="FILE",
        help="a TOML file with optimizer, batch_size, epochs, learning_rate and dp_learning_rate, for a network and"
        " data set that the paper does not train; may be given as PROTOCOL in the environment",
    )  # fmt: skip
    if kept := os.environ.get("PROTOCOL"):
        try:
            given_protocol(kept)
        except argparse.ArgumentTypeError as error:
            refuse(f"PROTOCOL={error}")


def given_protocol(words: str) -> Path:
    """An argparse type: a TOML file whose protocol is taken from now on; what it does not say is as without a file."""
    path = layout.REPOSITORY / words if not Path(words).is_file() else Path(words)
    try:
        import tomllib
    except ImportError:  # before Python 3.11
        import tomli as tomllib  # type: ignore[no-redef]
    checks = {"batch_size": COUNT, "epochs": COUNT, "learning_rate": POSITIVE, "dp_learning_rate": POSITIVE}
    try:
        said = tomllib.loads(text(path, 2**16))
        unknown = set(said) - {field.name for field in fields(Protocol)}
        if unknown:
            raise ValueError(f"there is no {sorted(unknown)[0]}")
        if said.get("optimizer", "adam") not in ("adam", "sgd"):
            raise ValueError("the optimizer is adam or sgd")
        said.update({name: checks[name](str(value)) for name, value in said.items() if name in checks})
    except (Unreadable, ValueError, TypeError, RecursionError, argparse.ArgumentTypeError) as error:
        known = ", ".join(field.name for field in fields(Protocol))
        raise argparse.ArgumentTypeError(f"{words}: {error}; a protocol has {known}") from None
    _given[:] = [said]
    return path


def protocol(dataset_name: str, name: str) -> Protocol:
    """The protocol of a network on a data set: the paper's, or one of a file, or the suite's for what is a user's own;
    refuses a pair of the paper's that it does not train.
    """
    if (dataset_name, name) in PROTOCOLS:
        return PROTOCOLS[dataset_name, name]
    of_paper = name in NETWORKS and dataset_name not in datasets.OWN
    if of_paper and not _given:
        known = ", ".join(name for data, name in PROTOCOLS if data == dataset_name) or "none"
        refuse(
            f"--network {name}: the paper does not train it on {dataset_name}; choose one of {known}, or give"
            " --protocol FILE"
        )
    own = network(name)
    said = _given[0] if _given else {}
    if "learning_rate" in said:
        said = {"dp_learning_rate": said["learning_rate"], **said}
    usual = OWN_DEEP if own.hidden or own.front else OWN_LINEAR
    return Protocol(**{**vars(usual), **said})
