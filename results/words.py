"""The settings of a training in words, as figures name them: clip norm 4, not dp_lr_300_40_0.01_1000.0_1e-05_4.0."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from results import layout

NETWORKS = {"lr": "logistic regression", "shallow-mlp": "shallow MLP", "badnet": "BadNet"}
ATTACKS = {
    "collision": "watermarks", "insertion": "backdoors", "clean-labels": "targeted poisons",
    "label-flips": "label flips", "slabs-release": "slabs of the release",
}  # fmt: skip
DATASETS = {layout.SUBTASK: "binary subtask", "fashion_mnist": "Fashion-MNIST", "purchases": "Purchase-100"}
STARTS = {"scratch": "from scratch", "retrain": "re-trained"}
NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
CLIPPED = re.compile(rf"(?:clip:)?({NUMBER})(?::({NUMBER}))?", re.ASCII)  # clip norm, and noise multiplier


def shaping(text: str) -> str:
    """A shaping in words: "clip norm 4, noise 0.0025" for 4:0.0025; another kind is called as options call it."""
    match = CLIPPED.fullmatch(text)
    if not match:
        return text
    return f"clip norm {match[1]}" + (f", noise {match[2]}" if match[2] else "")


def counted(numbers: Iterable[float], what: str) -> str:
    """How many of something there are: 1 seed, 10 seeds, or 5 to 21 seeds where it differs from point to point."""
    numbers = [int(number) for number in numbers]
    low, high = min(numbers), max(numbers)
    return f"{low} {what}{'s' * (low != 1)}" if low == high else f"{low} to {high} {what}s"


def training(settings: dict) -> dict[str, str]:
    """What a training's settings say, in words, by what they are about and in the order in which they are read.

    settings: as run.json holds them; those that are missing are left out.
    """
    poison = settings.get("poison") or {}
    told: dict[str, tuple[dict, str, Callable[[Any], str]]] = {
        "attack": (settings, "attack", lambda name: ATTACKS.get(name, name)),
        "pairs": (poison, "task", lambda name: name.replace("_", " ")),
        "alpha": (poison, "alpha", "alpha {}".format),
        "patch": (poison, "patch", "patch {}".format),
        "poisons": (settings, "n_poison", lambda count: counted([count], "poison")),
        "target": (settings, "target", "target {}".format),
        "dataset": (settings, "dataset", lambda name: DATASETS.get(name, name)),
        "network": (settings, "network", lambda name: NETWORKS.get(name, name)),
        "start": (settings, "start", lambda name: STARTS.get(name, name)),
        "shaping": (settings, "shaping", shaping),
        "learning rate": (settings, "learning_rate", "learning rate {:g}".format),
        "batch size": (settings, "batch_size", "batches of {}".format),
        "epochs": (settings, "epochs", lambda count: counted([count], "epoch")),
        "seed": (settings, "seed", "seed {}".format),
    }
    return {about: say(part[name]) for about, (part, name, say) in told.items() if part.get(name) is not None}


def in_common(trainings: list[dict[str, str]]) -> tuple[str, list[str]]:
    """What several trainings (each as `training` gives it) share, and what each has that not all do."""
    first, *others = trainings
    shared = {about for about, said in first.items() if all(other.get(about) == said for other in others)}
    own = [", ".join(said for about, said in one.items() if about not in shared) for one in trainings]
    return ", ".join(said for about, said in first.items() if about in shared), own
