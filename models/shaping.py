"""Gradient shaping: what a training does to the gradients of its examples before it averages them.

A `Shaping` is a value. It knows its kind, its parameters and its noise, and gives from these alone its text on a
command line, its part of a folder's name, its settings, its weights, and its sensitivity, from which epsilon follows.

A kind is one function. It sees a batch through a `models.batch.Batch` and returns a weight w_i for each example i of
each replica; the stack sums w_i g_i, adds noise, and divides by the number of examples. DP-SGD (Abadi et al. 2016) is
the kind `clip` with noise. To add a kind, add a function:

    @kind({"gamma": POSITIVE}, sensitivity=lambda gamma: 1.0)
    def auto_s(batch, gamma):
        return 1 / (tf.sqrt(batch.squared_norms) + gamma)

    --shaping auto-s:0.01
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from command_line import NOT_NEGATIVE, POSITIVE
from models import privacy
from results import layout

if TYPE_CHECKING:
    import tensorflow as tf  # takes seconds: imported where it is used

    from models.batch import Batch

UNDEFENDED_TEXT = "undefended"
NOISE_MULTIPLIER, NOISE_STD = "noise_multiplier", "noise_std"
# Settings of a training, which a kind's parameters stand beside
RESERVED = {
    "dataset", "network", "engine", "optimizer", "batch_size", "epochs", "seed", "learning_rate", "shaping", "kind",
    "delta", "model", "attack", NOISE_MULTIPLIER, NOISE_STD,
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of shaping.

    weigh: called with a batch and the parameters, float32 [replica, 1] each; returns w_i, float32 [replica, batch];
    parameters: what checks each parameter's text (an argparse type), by name; sensitivity: of the parameters, a bound
    on |w_i g_i| that holds whatever the other examples of the batch are, None where there is none.
    """

    name: str
    weigh: Callable[..., tf.Tensor]
    parameters: dict[str, Callable[[str], float]]
    sensitivity: Callable[..., float] | None


KINDS: dict[str, Kind] = {}


def kind(parameters: dict[str, Callable[[str], float]], sensitivity: Callable[..., float] | None = None) -> Callable:
    """Make a function a kind of shaping, called as the function is, with - for _; see `Kind`."""

    def register(weigh: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
        name = weigh.__name__.replace("_", "-")
        if name in KINDS or name == UNDEFENDED_TEXT or RESERVED & set(parameters):
            raise ValueError(f"{name}: there is a kind or a setting of this name or of a parameter's; choose another")
        KINDS[name] = Kind(name, weigh, parameters, sensitivity)
        return weigh

    return register


@kind({"clip_norm": POSITIVE}, sensitivity=lambda clip_norm: clip_norm)
def clip(batch: Batch, clip_norm: tf.Tensor) -> tf.Tensor:
    """min(1, C / |g_i|), as TensorFlow Privacy weighs examples (Abadi et al. 2016); 1 where the gradient is zero.

    C may be infinite.
    """
    import tensorflow as tf

    return tf.minimum(1.0, clip_norm * tf.math.rsqrt(batch.squared_norms))


@dataclass(frozen=True)
class Shaping:
    """What one replica does to its gradients.

    kind: a name in KINDS; parameters: its parameters in their order (an infinite clip norm is an undefended training);
    noise_std: standard deviation of the noise on each coordinate of the weighted sum, sigma * sensitivity.
    """

    kind: str = "clip"
    parameters: tuple[float, ...] = (math.inf,)
    noise_std: float = 0.0

    @staticmethod
    def clip(clip_norm: float, noise_std: float = 0.0) -> Shaping:
        """DP-SGD with clip norm C and noise of standard deviation sigma * C."""
        return Shaping("clip", (float(clip_norm),), float(noise_std))

    @property
    def defended(self) -> bool:
        """Whether it changes any gradient."""
        return self.kind != "clip" or self.clip_norm < math.inf or self.noise_std > 0

    @property
    def clip_norm(self) -> float:
        """C, infinite for an undefended training; NaN for a kind that has none."""
        return dict(zip(KINDS[self.kind].parameters, self.parameters)).get("clip_norm", math.nan)

    @property
    def sensitivity(self) -> float:
        """How far one example can move the weighted sum (add or remove it); infinite where nothing bounds it."""
        bound = KINDS[self.kind].sensitivity
        return math.inf if bound is None else bound(*self.parameters)

    @property
    def noise_multiplier(self) -> float:
        """sigma = noise_std / sensitivity, to twelve digits: folder names show 0.0025, not 0.0025000000000000001.

        0 without a bound.
        """
        return float(f"{self.noise_std / self.sensitivity:.12g}")

    def epsilon(self, batch_size: int, rows: int, steps: int, delta: float = layout.DELTA) -> float:
        """The epsilon at `delta` that so many steps on batches of `batch_size` out of `rows` spend, to four digits
        behind the point.

        Infinite without noise, and for a kind that nothing bounds one example's influence on.
        """
        return round(privacy.epsilon(self.noise_multiplier, batch_size, rows, steps, delta), 4)

    @property
    def text(self) -> str:
        """How a command line spells it, as `shaping` reads it: undefended, 4, 4:0.0025, auto-s:0.01."""
        values = [_spelled(value) for value in self.parameters]
        if self.kind == "clip":
            words = values if self.clip_norm < math.inf else [UNDEFENDED_TEXT]
        else:
            words = [self.kind, *values]
        if self.noise_std and _times(self.noise_multiplier, self.sensitivity) == self.noise_std:
            words.append(_spelled(self.noise_multiplier))
        elif self.noise_std:
            words.append(f"{NOISE_STD}={_spelled(self.noise_std)}")
        return ":".join(words)

    @property
    def settings(self) -> dict:
        """What run.json says of it; an infinite clip norm is left out, since JSON has no infinity."""
        parameters = zip(KINDS[self.kind].parameters, self.parameters)
        return {
            "shaping": self.text,
            "kind": UNDEFENDED_TEXT if self.clip_norm == math.inf else self.kind,
            **{name: value for name, value in parameters if value < math.inf},
            NOISE_STD: self.noise_std,
            NOISE_MULTIPLIER: self.noise_multiplier,
        }

    def model_name(self, training: str) -> str:
        """The name of a model that was trained with it; `training` is network, batch size, epochs and rate, such as
        lr_300_40_0.01.

        The paper's names for the paper's shapings: vanilla_<training>, and dp_<training>_<epsilon budget>_<delta>_<clip
        norm>_<noise multiplier>.
        """
        if not self.defended:
            return f"vanilla_{training}"
        if self.kind == "clip" and self.clip_norm < math.inf:
            noise_multiplier = self.noise_multiplier
            if _times(noise_multiplier, self.sensitivity) != self.noise_std:  # twelve digits do not tell it from others
                noise_multiplier = self.noise_std / self.clip_norm
            return f"dp_{training}_{layout.EPSILON_BUDGET}_{layout.DELTA}_{self.clip_norm}_{noise_multiplier}"
        name, *rest = self.text.split(":")
        return "_".join([name, training, *rest])


UNDEFENDED = Shaping()


def shaping(text: str) -> Shaping:
    """An argparse type: `undefended`, a clip norm (4), a clip norm and a noise multiplier (4:0.0025), or a kind and its
    parameters (clip:4).

    Behind a kind's own parameters may stand a noise multiplier, where the kind has a sensitivity. Any of them may be
    named, as in clip:clip_norm=4:noise_multiplier=0.0025 and, for noise without a sensitivity,
    undefended:noise_std=0.1.
    """
    name, *words = text.split(":")
    if name not in KINDS and name != UNDEFENDED_TEXT:  # the paper's short form
        name, words = "clip", [name, *words]
    known, given = KINDS["clip" if name == UNDEFENDED_TEXT else name], {}
    checks = dict(known.parameters)
    if name == UNDEFENDED_TEXT:
        checks, given = {}, {"clip_norm": math.inf}
    elif known.sensitivity is not None:
        checks[NOISE_MULTIPLIER] = NOT_NEGATIVE
    unnamed = list(checks)
    checks[NOISE_STD] = NOT_NEGATIVE
    try:
        for word in words:
            key, named, value = word.rpartition("=")
            key = key if named else unnamed[0]
            if key in given:
                raise ValueError(f"{key} is given twice")
            given[key] = checks[key](value)
            unnamed = [other for other in unnamed if other != key]
        parameters = tuple(given[key] for key in known.parameters)
        bare = Shaping(known.name, parameters)
        noise_std = given.get(NOISE_STD, 0.0)
        if NOISE_MULTIPLIER in given:
            noise_std = _times(given[NOISE_MULTIPLIER], bare.sensitivity)
        if noise_std == math.inf or {NOISE_STD, NOISE_MULTIPLIER} <= set(given):
            raise ValueError("one amount of noise, and a finite one")
    except (argparse.ArgumentTypeError, ValueError, KeyError, IndexError):
        raise argparse.ArgumentTypeError(_not_understood(text)) from None
    return Shaping(known.name, parameters, noise_std)


def _not_understood(text: str) -> str:
    others = ", ".join(":".join([name, *known.parameters]) for name, known in KINDS.items())
    return (
        f"{text!r} is not 'undefended', a clip norm (4), a clip norm and a noise multiplier (4:0.0025), or one of"
        f" {others}"
        f" (and :{NOISE_MULTIPLIER} where the kind bounds one example's influence)"
    )


def _spelled(value: float) -> str:
    """A number as short as it can be read back: 4, 0.0025, 1e-05."""
    short = f"{value:.12g}"
    return short if float(short) == value else repr(value)


def _times(noise_multiplier: float, sensitivity: float) -> float:
    """The noise's standard deviation, to twelve digits: 0.0025 of 4 is 0.01 and not the next float."""
    return float(f"{noise_multiplier * sensitivity:.12g}")


def noise(shape: tuple, seed: int, parameter: int, step: tf.Tensor) -> tf.Tensor:
    """A standard normal draw for one parameter array at one step, the same for every replica, which scales it by its
    own noise_std.

    Draws of different parameters (index in the network) and of different steps (counted over the whole training) use
    different keys of a counter-based generator, so they are independent. Returns float32 of `shape`.
    """
    import tensorflow as tf

    key = tf.stack([tf.constant(seed * 1000 + parameter, tf.int64), tf.cast(step, tf.int64)])
    return tf.random.stateless_normal(shape, key, alg="philox")
