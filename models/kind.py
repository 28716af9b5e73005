"""What a kind of gradient shaping is: one function that weighs the examples of a batch, and how to add one.

The function sees a `models.batch.Batch` and returns a weight w_i for each example i of each replica; the stack sums
w_i g_i, adds noise, and divides by the number of examples. A kind of your own is a file such as this one, given as
--shaping-file halve.py --shaping halve:0.5, or to the sweeps as SHAPING_FILE=halve.py

    from command_line import POSITIVE
    from models.kind import kind
    from models.later import tf

    @kind({"above": POSITIVE}, shrinks=True)
    def halve(batch, above):
        # 1, but 1/2 where the loss is larger than `above`
        return tf.where(batch.losses > above, 0.5, 1.0)
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from command_line import Parser, refuse
from files import file_sha256
from results import layout

if TYPE_CHECKING:
    import tensorflow as tf  # takes seconds: `models.later`

UNDEFENDED_TEXT = "undefended"
NOISE_MULTIPLIER, NOISE_STD = "noise_multiplier", "noise_std"
# Settings of a training, which a kind's parameters stand beside
RESERVED = {
    "dataset", "network", "engine", "optimizer", "batch_size", "epochs", "seed", "learning_rate", "shaping", "kind",
    "delta", "model", "attack", "mode", "start", "dump", "trial", "budget", "ratio", "clean_rows", "stop_at_first",
    "poison", "poisons", "n_poison", "poison_set", "poison_sha256", "baseline", "baseline_acc", "baseline_sha256",
    "target", "base_class", "target_class", "model_sha256", "shaping_file_sha256",
    "dataset_sha256", "network_sha256", NOISE_MULTIPLIER, NOISE_STD,
}  # fmt: skip
TAKEN = (UNDEFENDED_TEXT, "vanilla", "dp", "none")  # what names of models begin with, and no kind's name


@dataclass(frozen=True)
class Aggregate:
    """What a kind returns that is no weighted sum of gradients, such as a coordinate-wise median.

    sums: the direction times the number of the replica's examples, an array [replica, *parameter] for each parameter in
    the order of `Batch.total`. Recorded gradients are then as they come.
    """

    sums: list[tf.Tensor]


@dataclass(frozen=True)
class Kind:
    """A kind of shaping.

    weigh: called with a batch and the parameters, float32 [replica, 1] each; returns w_i, float32 [replica, batch], or
    a list of these, one for each layer, or an `Aggregate`. parameters: what checks each parameter's text (an argparse
    type), by name; fixed: those that shapes depend on, which `weigh` gets as whole numbers.

    sensitivity: of the parameters, a bound on |w_i g_i| that holds whatever the other examples of the batch are, None
    where there is none; shrinks: w_i depends on example i alone and is from 0 to 1, so a bound before it stays one.

    numbers: what each replica keeps from step to step (`Batch.kept`), with the parameter that it starts as; directions:
    likewise arrays of the parameters' shapes, which start at zero (`Batch.kept`). between: called with an
    `models.groups.EpochStart` and the parameters before each epoch, for each replica; returns row weights, float32
    [rows] (`Batch.row_weights`), None to leave them as they are.

    aggregates: it returns an `Aggregate`; takes_gram: it takes the Gram matrix, unless it has a parameter micro_batches
    above 0; convolutions have neither; compares_rows: `between` compares all pairs of the rows of a class, but
    where there are two; trusted_rows: the parameter that says how many trusted rows it needs.

    strength: the parameters that tell weak from strong, by name: 1 where more of it changes more gradients, -1 where
    less of it does.
    """

    name: str
    weigh: Callable[..., tf.Tensor | list[tf.Tensor] | Aggregate]
    parameters: dict[str, Callable[[str], float]]
    sensitivity: Callable[..., float] | None = None
    shrinks: bool = False
    fixed: tuple[str, ...] = ()
    numbers: dict[str, str] = field(default_factory=dict)
    directions: tuple[str, ...] = ()
    between: Callable | None = None
    aggregates: bool = False
    takes_gram: bool = False
    compares_rows: bool = False
    trusted_rows: str | None = None
    strength: dict[str, int] = field(default_factory=dict)
    file_sha256: str | None = None


KINDS: dict[str, Kind] = {}
_own_file: list[str] = []  # the SHA-256 of the file that is being loaded


def kind(parameters: dict[str, Callable[[str], float]] | None = None, **more) -> Callable:
    """Make a function a kind of shaping, called as the function is, with - for _; more: the fields of `Kind`.

    ValueError for a name that is taken.
    """

    def register(weigh: Callable) -> Callable:
        name, checks = weigh.__name__.replace("_", "-"), parameters or {}
        if name in KINDS or name in TAKEN or RESERVED & set(checks):
            raise ValueError(f"{name}: there is a kind or a setting of this name or of a parameter's; choose another")
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise ValueError(f"{name}: a kind's function has a name of small letters, digits and _")
        if len(inspect.signature(weigh).parameters) != 1 + len(checks):
            raise ValueError(f"{name}: it takes the batch and a value for each of its parameters, {[*checks]}")
        own = _own_file[-1] if _own_file else None
        KINDS[name] = Kind(name, weigh, checks, file_sha256=own, **more)
        return weigh

    return register


def load_file(path: Path) -> None:
    """Run a user's Python file that defines kinds of shaping; refuses one that cannot be run or defines none."""
    if path.suffix != ".py" or not path.is_file():
        refuse(f"--shaping-file {path}: no such Python file; give one that defines a kind of shaping")
    path, before = path.resolve(), set(KINDS)
    spec = importlib.util.spec_from_file_location(f"shaping_file_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
    _own_file.append(file_sha256(path))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it may raise anything, and its user wants to know what and where
        line = next((entry.lineno for entry in reversed(inspect.getinnerframes(error.__traceback__))
                     if entry.filename == str(path)), getattr(error, "lineno", "?"))  # fmt: skip
        refuse(f"--shaping-file {path}: line {line}: {type(error).__name__}: {error}; mend it")
    finally:
        _own_file.pop()
    if set(KINDS) == before:
        refuse(f"--shaping-file {path}: it defines no kind of shaping; put @kind(...) of models.kind before a function")


def add_file_option(parser: Parser) -> None:
    """Add --shaping-file, and load the files that this command line gives: a shaping may name their kinds."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for one in (first, parser):
        one.add_argument(
            "--shaping-file", type=Path, action="append", default=[], metavar="FILE",
            help="a Python file of your own that defines kinds of shaping (models/kind.py says how); may be repeated,"
            " and be given as SHAPING_FILE in the environment",
        )  # fmt: skip
    try:
        given, _ = first.parse_known_args()
    except argparse.ArgumentError:  # no file behind it: the parser itself says so
        return
    kept = os.environ.get("SHAPING_FILE")
    for path in given.shaping_file or ([layout.REPOSITORY / kept] if kept else []):
        load_file(path)
