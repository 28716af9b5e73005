"""Gradient shaping: what a training does to the gradients of its examples before it averages them.

A `Shaping` is a value: one or several phases, each a chain of links and an amount of noise. A link is a kind of shaping
with its parameters. From these alone follow its text on a command line, its part of a folder's name, its settings, its
weights, and its sensitivity, from which epsilon follows. DP-SGD (Abadi et al. 2016) is the kind `clip` with noise.

    4:0.0025                 the paper's DP-SGD: clip norm 4 and noise multiplier 0.0025
    phuber:2                 a kind and its parameters (`models.kinds`; `models.kind` says what a kind is)
    phuber:2+clip:1:0.1      a chain: weights multiply from left to right, the clip bounds the product, noise is last
    clip:1@5,phuber:2        a schedule: 5 epochs of one, then the other
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from command_line import NOT_NEGATIVE
from models import kinds, privacy  # noqa: F401  (importing the kinds registers them)
from models.kind import KINDS, NOISE_MULTIPLIER, NOISE_STD, UNDEFENDED_TEXT, Kind
from results import layout

PHASE, LINK = (
    re.compile(r"@([0-9]{1,9}),"),
    re.compile(r"(?<![0-9.]e)\+"),
)  # between phases, and links (1e+05 is a number)


@dataclass(frozen=True)
class Link:
    """A kind of shaping, by its name in KINDS, and its parameters in their order."""

    name: str
    parameters: tuple[float, ...] = ()

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    @property
    def values(self) -> dict[str, float]:
        """Its parameters by name."""
        return dict(zip(self.kind.parameters, self.parameters))

    @property
    def text(self) -> str:
        return ":".join([self.name, *map(_spelled, self.parameters)])

    @property
    def structure(self) -> tuple:
        """What replicas that train as one group have in common: the kind and those parameters that fix its shapes."""
        return (self.name, *(int(value) for name, value in self.values.items() if name in self.kind.fixed))

    @property
    def micro_batches(self) -> int:
        """How many micro-batches it deals the rows out to; 0 where it takes the rows."""
        return int(self.values.get("micro_batches", 0))

    @property
    def dense_only(self) -> bool:
        """Whether it takes what convolutions do not have."""
        return self.micro_batches > 0 or self.kind.takes_gram


SMALLEST = 2.0**-126  # of float32's numbers above 0, but for those of fewer digits
UNDEFENDED_LINK = Link("clip", (math.inf,))


@dataclass(frozen=True)
class Phase:
    """A chain of links and the noise behind it.

    noise_std: standard deviation of the noise on each coordinate of the weighted sum, sigma * sensitivity; epochs: how
    many it lasts, None for the last phase, which lasts till the end.
    """

    links: tuple[Link, ...]
    noise_std: float = 0.0
    epochs: int | None = None

    @property
    def sensitivity(self) -> float:
        """How far one example can move the weighted sum (add or remove it); infinite where nothing bounds it.

        A link bounds it if its weights depend on their own example alone. So must those of all others: a link whose
        weights compare examples lets one example move the weights of all.
        """
        bound = math.inf
        for link in self.links:
            if link.kind.sensitivity is not None:
                bound = link.kind.sensitivity(*link.parameters)
            elif not link.kind.shrinks:
                return math.inf
        return bound

    def keep(self, wanted: Callable[[Link], bool]) -> Phase:
        """The phase with those links only for which `wanted` holds, undefended where none is left."""
        return dataclasses.replace(self, links=tuple(filter(wanted, self.links)) or (UNDEFENDED_LINK,))

    @property
    def noise_multiplier(self) -> float:
        """sigma = noise_std / sensitivity, to twelve digits; 0 without a bound."""
        return float(f"{self.noise_std / self.sensitivity:.12g}")

    @property
    def text(self) -> str:
        words = [UNDEFENDED_TEXT if self.links == (UNDEFENDED_LINK,) else "+".join(link.text for link in self.links)]
        if self.noise_std and _times(self.noise_multiplier, self.sensitivity) == self.noise_std:
            words.append(_spelled(self.noise_multiplier))
        elif self.noise_std:
            words.append(f"{NOISE_STD}={_spelled(self.noise_std)}")
        return ":".join(words) + (f"@{self.epochs}," if self.epochs else "")


@dataclass(frozen=True)
class Shaping:
    """What one replica does to its gradients: its phases, of which most shapings have one."""

    phases: tuple[Phase, ...] = (Phase((UNDEFENDED_LINK,)),)

    @staticmethod
    def of(kind: str, *parameters: float, noise_std: float = 0.0) -> Shaping:
        """One kind with its parameters."""
        return Shaping((Phase((Link(kind, tuple(map(float, parameters))),), float(noise_std)),))

    @staticmethod
    def clip(clip_norm: float, noise_std: float = 0.0) -> Shaping:
        """DP-SGD with clip norm C and noise of standard deviation sigma * C; an infinite C: an undefended training."""
        return Shaping.of("clip", clip_norm, noise_std=noise_std)

    @property
    def links(self) -> list[Link]:
        """The links of all phases."""
        return [link for phase in self.phases for link in phase.links]

    @property
    def kind(self) -> str:
        """The names of its kinds, as its text joins them: clip, phuber+clip, clip,phuber."""
        return ",".join("+".join(link.name for link in phase.links) for phase in self.phases)

    @property
    def structure(self) -> tuple:
        """Replicas of one structure train as a group; they differ in parameters."""
        return tuple((phase.epochs, tuple(link.structure for link in phase.links)) for phase in self.phases)

    @property
    def defended(self) -> bool:
        """Whether it changes any gradient."""
        return any(phase.links != (UNDEFENDED_LINK,) or phase.noise_std > 0 for phase in self.phases)

    @property
    def clip_norm(self) -> float:
        """C, infinite for an undefended training; NaN for others than one kind that has one."""
        return self.links[0].values.get("clip_norm", math.nan) if len(self.links) == 1 else math.nan

    @property
    def noise_std(self) -> float:
        """Of the last phase."""
        return self.phases[-1].noise_std

    @property
    def noise_multiplier(self) -> float:
        """Of the last phase: folder names show 0.0025, not 0.0025000000000000001."""
        return self.phases[-1].noise_multiplier

    def epsilon(self, batch_size: int, rows: int, steps: int, delta: float = layout.DELTA) -> float:
        """The epsilon at `delta` that so many steps on batches of `batch_size` out of `rows` spend, to four digits
        behind the point.

        Infinite without noise in a phase that was begun, and where nothing bounds one example's influence.
        """
        spent, left = [], steps
        for phase in self.phases:
            taken = min(left, (phase.epochs or left) * -(-rows // batch_size))
            if taken:
                spent.append((phase.noise_multiplier, taken))
            left -= taken
        return round(privacy.composed(spent, batch_size, rows, delta), 4)

    @property
    def text(self) -> str:
        """How a command line spells it, as `shaping` reads it; the paper's shapings in the paper's short form."""
        return "".join(phase.text for phase in self.phases).removeprefix("clip:" if self.kind == "clip" else "")

    @property
    def strength(self) -> tuple[float, ...]:
        """What values of one kind sort by, the strongest last (`Kind.strength`); rows are the most micro-batches."""
        found = []
        for link in self.links:
            for name, sign in link.kind.strength.items():
                value = link.values[name]
                found.append(sign * (math.inf if name == "micro_batches" and value == 0 else value))
        return tuple(found)

    @property
    def settings(self) -> dict:
        """What run.json says of it; an infinite clip norm is left out, since JSON has no infinity, and so are the
        parameters of chains and schedules, which their text holds.
        """
        parameters = self.links[0].values if len(self.links) == 1 else {}
        files = {link.name: link.kind.file_sha256 for link in self.links if link.kind.file_sha256}
        return {
            "shaping": self.text,
            "kind": UNDEFENDED_TEXT if self.links == [UNDEFENDED_LINK] else self.kind,
            **{name: value for name, value in parameters.items() if value < math.inf},
            NOISE_STD: self.noise_std,
            NOISE_MULTIPLIER: self.noise_multiplier,
            **({"shaping_file_sha256": files} if files else {}),
        }

    def model_name(self, training: str) -> str:
        """The name of a model that was trained with it; `training` is network, batch size, epochs and rate, such as
        lr_300_40_0.01.

        The paper's names for the paper's shapings: vanilla_<training>, and dp_<training>_<epsilon budget>_<delta>_<clip
        norm>_<noise multiplier>.
        """
        if self == UNDEFENDED:
            return f"vanilla_{training}"
        if self.kind == "clip" and self.clip_norm < math.inf:
            noise_multiplier, (phase,) = self.noise_multiplier, self.phases
            if _times(noise_multiplier, phase.sensitivity) != self.noise_std:  # twelve digits are too few
                noise_multiplier = self.noise_std / self.clip_norm
            return f"dp_{training}_{layout.EPSILON_BUDGET}_{layout.DELTA}_{self.clip_norm}_{noise_multiplier}"
        name, *rest = self.text.split(":")
        return "_".join([name, training, *rest])


UNDEFENDED = Shaping()


def shaping(text: str) -> Shaping:
    """An argparse type: `undefended`, a clip norm (4), a clip norm and a noise multiplier (4:0.0025), a kind and its
    parameters (clip:4), a chain of these (phuber:2+clip:4), or a schedule of them (clip:1@5,phuber:2).

    Behind the last parameter of a chain may stand a noise multiplier, where the chain has a sensitivity. Any value may
    be named, as in clip:clip_norm=4:noise_multiplier=0.0025 and, for noise without a sensitivity,
    undefended:noise_std=0.1.
    """
    *begun, last = PHASE.split(text)
    try:
        phases = [_phase(words, int(epochs)) for words, epochs in zip(begun[::2], begun[1::2])]
        if any(phase.epochs < 1 for phase in phases):
            raise argparse.ArgumentTypeError("a phase lasts 1 epoch or more")
        return Shaping((*phases, _phase(last)))
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no gradient shaping: {error}; {_known()}") from None


def _phase(text: str, epochs: int | None = None) -> Phase:
    """A chain of links from its text; ValueError or ArgumentTypeError, with the reason, for what is none."""
    *before, last = LINK.split(text)
    links = [_link(words, {}) for words in before]
    noise: dict[str, Any] = {NOISE_MULTIPLIER: NOT_NEGATIVE, NOISE_STD: NOT_NEGATIVE}
    links.append(_link(last, noise))
    if UNDEFENDED_LINK in links and before:
        raise ValueError(f"{UNDEFENDED_TEXT} is no link of a chain")
    aggregates = [link.name for link in links[:-1] if link.kind.aggregates]
    if aggregates:
        raise ValueError(f"{aggregates[0]} gives no weights to multiply, so it can only be the last link")
    bare, amounts = Phase(tuple(links)), {name: value for name, value in noise.items() if isinstance(value, float)}
    if len(amounts) > 1:
        raise ValueError("one amount of noise, not two")
    noise_std = amounts.get(NOISE_STD, 0.0)
    if NOISE_MULTIPLIER in amounts:
        if bare.sensitivity == math.inf:
            raise ValueError(f"nothing bounds one example's influence in it, so noise is given as {NOISE_STD}=")
        noise_std = _times(amounts[NOISE_MULTIPLIER], bare.sensitivity)
    if noise_std == math.inf:
        raise ValueError("a finite amount of noise")
    return Phase(bare.links, noise_std, epochs)


def _link(text: str, noise: dict) -> Link:
    """A link from its text. noise: what checks the amounts of noise that may stand behind its parameters, which the
    given ones replace.
    """
    name, *words = text.split(":")
    if name not in KINDS and name != UNDEFENDED_TEXT:
        if not re.match(r"[-+.0-9]", name):
            raise ValueError(f"there is no kind {name!r}")
        name, words = "clip", [name, *words]  # the paper's short form
    known = KINDS["clip" if name == UNDEFENDED_TEXT else name]
    checks, given = {**known.parameters, **noise}, {}
    if name == UNDEFENDED_TEXT:
        checks, given = {NOISE_STD: noise[NOISE_STD]} if noise else {}, {"clip_norm": math.inf}
    unnamed = [key for key in checks if key != NOISE_STD]
    for word in words:
        key, named, value = word.rpartition("=")
        key = key if named else next((other for other in unnamed if other not in given), None)
        if key not in checks or key in given:
            raise ValueError(f"{word!r} is one too many, or no parameter of {name}")
        given[key] = checks[key](value)
    missing = [key for key in known.parameters if key not in given]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing)}")
    small = [key for key, value in given.items() if 0 < abs(value) < SMALLEST]
    if small:
        raise ValueError(f"{small[0]} is too small for float32")
    noise.update({key: float(given[key]) for key in noise if key in given})
    return Link(known.name, tuple(given[key] + 0.0 for key in known.parameters))  # + 0.0: no negative zero


def _known() -> str:
    return (
        "there are undefended, a clip norm (4), a clip norm and a noise multiplier (4:0.0025), "
        + ", ".join(":".join([name, *known.parameters]) for name, known in KINDS.items())
        + f" (and :{NOISE_MULTIPLIER} where they bound one example's influence), chains of them (phuber:2+clip:1) and"
        " schedules (clip:1@5,phuber:2)"
    )


def _spelled(value: float) -> str:
    """A number as short as it can be read back: 4, 0.0025, 1e-05."""
    short = f"{value:.12g}"
    return short if float(short) == value else repr(value)


def _times(noise_multiplier: float, sensitivity: float) -> float:
    """The noise's standard deviation, to twelve digits: 0.0025 of 4 is 0.01 and not the next float."""
    return float(f"{noise_multiplier * sensitivity:.12g}")
