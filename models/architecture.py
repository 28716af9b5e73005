"""Networks as lists of layers: those that a stack can train, spelled by a name or taken from a .keras file.

A stack trains 2D convolutions with stride 1 and max pools, and behind them dense layers, with ReLU between all of them
and logits at the end. Of a file only its description is read, as JSON; nothing in it is executed, and its weights are
left alone: initial weights are drawn as for every other network.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line import refuse
from files import ARCHIVE_ERRORS, Unreadable, archive_of, file_sha256, json_value, opened, read_member

MLP = re.compile(r"mlp((?:-[1-9][0-9]{0,4}){1,8})")
DESCRIPTION, MOST_BYTES = "config.json", 2**20
MOST_UNITS, MOST_LAYERS = 2**16, 32


@dataclass(frozen=True)
class Convolution:
    """A 2D convolution, stride 1, ReLU behind it. side: of its kernel, height and width; padding: same or valid."""

    filters: int
    side: tuple[int, int] = (3, 3)
    padding: str = "same"


@dataclass(frozen=True)
class Pool:
    """A 2D max pool."""

    side: tuple[int, int] = (2, 2)
    strides: tuple[int, int] = (2, 2)
    padding: str = "valid"


@dataclass(frozen=True)
class Network:
    """The layers between the input and the logits.

    front: convolutions and pools in order; hidden: units of each dense layer behind them; of an own file its SHA-256,
    its input shape and its number of classes.
    """

    front: tuple[Convolution | Pool, ...] = ()
    hidden: tuple[int, ...] = ()
    file_sha256: str = ""
    shape: tuple[int, ...] = ()
    classes: int = 0


def of_name(name: str) -> Network | None:
    """The network that mlp-64-32 spells: hidden dense layers of so many units; None where a name spells none."""
    match = MLP.fullmatch(name)
    return Network(hidden=tuple(map(int, match[1][1:].split("-")))) if match else None


def of_file(path: Path) -> Network:
    """The network that a .keras file describes; refuses a file that is none, and layers that a stack does not train."""
    known = (
        "a stack trains Conv2D (stride 1) and MaxPooling2D, then Dense, with ReLU between them and logits at the end"
    )
    try:
        with opened(path) as stream, archive_of(stream) as archive:
            member = archive.getinfo(DESCRIPTION)
            if member.file_size > MOST_BYTES:
                raise Unreadable(f"its {DESCRIPTION} is too large")
            described = json_value(bytes(read_member(archive, member)).decode())
        layers = _chain(described)
        return _network(layers, file_sha256(path))
    except (Unreadable, *ARCHIVE_ERRORS) as error:
        refuse(f"--network {path}: {error}; {known}")
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        refuse(f"--network {path}: its description lacks something ({type(error).__name__}: {error}); {known}")


def _chain(described: dict) -> list[tuple[str, dict]]:
    """The class and the settings of each layer, in the order in which they are applied."""
    if described["class_name"] not in ("Sequential", "Functional", "Model"):
        raise Unreadable(f"it is a {str(described['class_name'])[:40]}, not a Sequential or Functional model")
    layers = described["config"]["layers"]
    if len(layers) > MOST_LAYERS:
        raise Unreadable(f"it has more than {MOST_LAYERS} layers")
    if described["class_name"] != "Sequential":
        names = [layer["config"]["name"] for layer in layers]
        for number, layer in enumerate(layers):
            above = set(re.findall(r'"([^"]*)"', json.dumps(layer["inbound_nodes"]))) & set(names)
            if above != set(names[max(number - 1, 0) : number]):
                raise Unreadable("its layers are no chain")
    return [(layer["class_name"], layer["config"]) for layer in layers]


def _network(layers: list[tuple[str, dict]], digest: str) -> Network:
    front: list[Any] = []
    dense: list[list] = []  # units, activation
    shape: tuple = ()
    last: dict = {}  # the layer that an activation of its own belongs to
    for name, config in layers:
        wanted = config.get("batch_input_shape") or config.get("batch_shape")
        if wanted and not shape:
            shape = tuple(_whole(side) for side in wanted[1:])
        if name == "Dense":
            last = {"activation": config["activation"]}
            _require(config["use_bias"] is True, "a Dense layer without biases")
            dense.append([_whole(config["units"]), last])
        elif name == "Conv2D":
            last = {"activation": config["activation"]}
            _require(not dense, "a convolution behind a Dense layer")
            _require(config["use_bias"] is True, "a convolution without biases")
            _require(config.get("data_format", "channels_last") == "channels_last", "channels in front")
            for setting in ("strides", "dilation_rate"):
                _require(tuple(config[setting]) == (1, 1), f"a convolution with other {setting} than 1")
            _require(config.get("groups", 1) == 1, "a convolution in groups")
            front.append(
                (Convolution(_whole(config["filters"]), _pair(config["kernel_size"]), config["padding"]), last)
            )
        elif name == "MaxPooling2D":
            _require(not dense, "a pool behind a Dense layer")
            front.append((Pool(_pair(config["pool_size"]), _pair(config["strides"]), config["padding"]), None))
        elif name == "ReLU" or name == "Activation":
            _require(last.get("activation") == "linear", "an activation behind another")
            plain = name == "Activation" or not (
                config.get("max_value") or config.get("negative_slope") or config.get("threshold")
            )
            _require(plain, "a ReLU that is bounded, leaks or has a threshold")
            last["activation"] = "relu" if name == "ReLU" else config["activation"]
        else:
            _require(name in ("InputLayer", "Flatten"), f"a layer {str(name)[:40]}")
    _require(bool(dense), "no Dense layer")
    *hidden, (classes, top) = dense
    rectified = [layer["activation"] for _, layer in (*front, *hidden) if layer is not None]
    _require(set(rectified) <= {"relu"}, "another activation than ReLU between layers")
    _require(top["activation"] in ("linear", "softmax"), "another activation than none (or softmax) at the end")
    _require(all(part.padding in ("same", "valid") for part, _ in front), "another padding than same or valid")
    return Network(tuple(part for part, _ in front), tuple(units for units, _ in hidden), digest, shape, classes)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise Unreadable(f"it has {what}")


def _whole(value: Any) -> int:
    _require(type(value) is int and 1 <= value <= MOST_UNITS, f"a size of {str(value)[:20]}")
    return value


def _pair(values: Any) -> tuple[int, int]:
    first, second = values
    return _whole(first), _whole(second)
