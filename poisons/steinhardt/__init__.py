"""The attacks of Steinhardt, Koh and Liang 2017 (arXiv 1706.03691), crafted from the clean training rows alone; any two
classes will do.

    slabs            the strong, unrealistic one: four points, means shifted, searched for with the victim in the loop
    slabs-release    the same by the rule of its release
    slabs-own        slabs searched for with a victim of a gradient shaping of one's choice
    minmax           valid images that pass both defences, and a bound U* on what such an attack can do

`python3 -m poisons.steinhardt` crafts them (see `__main__`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from command_line import COUNT, POSITIVE, RATIO, SEED, Progress, number
from datasets import Dataset
from poisons.crafting import Attack, Option, Poisons, spelled, two_classes
from results import layout

# cma, clarabel and TensorFlow take their time to import: what needs them is imported where it is used.

SHARE = number(lambda value: 0 < value < 1, "a quantile above 0 and below 1")
EPSILON = Option(
    "epsilon",
    RATIO,
    "poisons per clean row, above 0 and up to 1; one file each",
    many=True,
    flag="--ratio",
    also=("--eps",),
)
QUANTILE = Option("quantile", SHARE, "share of a class's clean rows that the defences let pass", 0.65)
RHO = Option("rho", POSITIVE, "bound on the norm of the attacked model")
SEED_OPTION = Option("seed", SEED, "of the search", layout.SEED)
GENERATIONS = Option("generations", COUNT, "slab by victim: of 16 candidates each", 150)
OWN_GENERATIONS = dataclasses.replace(GENERATIONS, default=60)
AGAINST = Option("shaping", spelled, "slab by own victim: what it does to its gradients", "undefended")
STEP_SIZE = Option("step_size", POSITIVE, "minmax: eta", 0.01)
SLAB_RHO = math.sqrt(0.8)  # as in the release, where it moves the score of a set only


def craft_slabs(dataset: Dataset, epsilon: float, quantile: float, rho: float, seed: int, generations: int) -> Poisons:
    """Search for the four points that cost the paper's victim most accuracy."""
    return _craft_by_victim(dataset, epsilon, quantile, seed, generations, None)


def craft_slabs_own(
    dataset: Dataset, epsilon: float, quantile: float, rho: float, seed: int, generations: int, shaping: str
) -> Poisons:
    """Search for the four points that cost a victim of this gradient shaping most accuracy.

    Without links that compare all pairs of rows between epochs, which would take a search of thousands of trainings a
    day.
    """
    return _craft_by_victim(dataset, epsilon, quantile, seed, generations, shaping)


def _craft_by_victim(
    dataset: Dataset, epsilon: float, quantile: float, seed: int, generations: int, shaping: str | None
) -> Poisons:
    from models import shaping as shapings
    from poisons import victims
    from poisons.steinhardt import slab_search

    crafter = _crafter(dataset, epsilon, quantile, seed)
    value = victims.quick(shapings.shaping(shaping)) if shaping else None
    progress = Progress(f"slabs {epsilon} {shaping or ''}".strip(), generations, "score", "generation")
    found = slab_search.by_victim(crafter, dataset, value, generations, seed, progress.show)
    return _four_points(dataset, crafter, found)


def craft_slabs_release(dataset: Dataset, epsilon: float, quantile: float, rho: float, seed: int) -> Poisons:
    """Choose four points by the clean training loss of a hinge-loss model."""
    from poisons.steinhardt import slab_search

    crafter = _crafter(dataset, epsilon, quantile, seed)
    return _four_points(dataset, crafter, slab_search.by_training_loss(crafter, rho))


def craft_minmax(dataset: Dataset, epsilon: float, quantile: float, rho: float, seed: int, step_size: float) -> Poisons:
    """Craft round(epsilon * rows) images one after another. Nothing is drawn: the seed names the file only."""
    from poisons.steinhardt import defences, minmax

    x, y = dataset.x_train.reshape(len(dataset.x_train), -1), dataset.y_train
    defence = defences.fit(x, y, quantile)
    progress = Progress(f"minmax {epsilon}", round(epsilon * len(y)), "upper bound", "step")
    outcome = minmax.craft(x, y, defence, epsilon, rho, step_size, progress.show)
    shown = np.linspace(0, len(outcome.y) - 1, min(16, len(outcome.y))).astype(int)
    return Poisons(
        outcome.y,
        instances=outcome.x.reshape(-1, *dataset.shape),
        measured={
            "upper_bound": outcome.upper_bound,
            "training_loss": outcome.training_loss,
            "worst_duality_gap": outcome.worst_gap,
            "pass_sphere": float(defences.sphere(defence, outcome.x, outcome.y, 1e-6).mean()),
            "pass_slab": float(defences.slab(defence, outcome.x, outcome.y, 1e-6).mean()),
        },
        pictures=[(f"step {step + 1}, class {outcome.y[step]}", outcome.x[step]) for step in shown],
    )


def _crafter(dataset: Dataset, epsilon: float, quantile: float, seed: int):
    """The semidefinite program on a data set's clean rows."""
    from poisons.steinhardt import defences, slab_search

    x, y = dataset.x_train.reshape(len(dataset.x_train), -1), dataset.y_train
    defence = defences.fit(x, y, quantile)
    return slab_search.Crafter(x.astype(np.float64), y, defence, epsilon, np.random.default_rng(seed))


def _four_points(dataset: Dataset, crafter, candidate) -> Poisons:
    """The poison set of a candidate: each point as often as its share says."""
    from poisons import victims
    from poisons.steinhardt import slab_search

    labels, points = slab_search.LABELS, candidate.points
    counts = victims.counts(candidate.shares, round(crafter.epsilon * len(crafter.y)))
    return Poisons(
        labels,
        instances=points.reshape(-1, *dataset.shape),
        counts=counts,
        measured={
            "counts": " ".join(map(str, counts)),
            "programs_solved": crafter.solved,
            "programs_failed": len(crafter.failures),
        },
        pictures=[(f"{count} x class {label}", point) for count, label, point in zip(counts, labels, points)],
        notes=[
            f"the solver said {status} after {solved} solved programs; the last good poisons were kept"
            for solved, status in crafter.failures
        ],
    )


def fits(dataset: Dataset) -> str | None:
    """Why a data set cannot be poisoned; the program of the slab attacks needs 8 dimensions to put its points in."""
    features = math.prod(dataset.shape)
    return two_classes(dataset) or (f"it has {features} features, fewer than 8" if features < 8 else None)


def fits_victim(dataset: Dataset) -> str | None:
    """The same for the attack that searches with the victim in the loop."""
    from models.protocols import PROTOCOLS

    known = (dataset.name, "lr") in PROTOCOLS or dataset.file_sha256
    return fits(dataset) or (None if known else "models/protocols.py has no logistic regression for it, the victim")


def file(dataset_name: str, settings: dict) -> Path:
    """E.g. fmnist_34_attack_eps40_quantile65_rho_slab.npz, as the paper's authors name theirs, and what is unusual."""
    attack = next(attack for attack in ATTACKS if attack.name == settings["attack"])
    data = "fmnist_34" if dataset_name == layout.SUBTASK else dataset_name
    kind = "minmax" if attack.name == "minmax" else "rho_slab"
    name = f"{data}_attack_eps{_hundredths(settings['epsilon'])}_quantile{_hundredths(settings['quantile'])}_{kind}"
    name = layout.seeded(name + attack.unusual(settings, shown=("quantile",)), settings["seed"])
    return layout.POISONS / "indiscriminate" / attack.name / f"{name}.npz"


def _hundredths(share: float) -> str:
    """0.01 as 01, 0.4 as 40, 0.125 as 12.5."""
    whole, _, rest = f"{100 * share:.10g}".partition(".")
    return whole.zfill(2) + (f".{rest}" if rest else "")


def _attack(name: str, craft: Callable[..., Poisons], rho: float, *more: Option, fits: Callable = fits) -> Attack:
    options = (EPSILON, QUANTILE, dataclasses.replace(RHO, default=rho), SEED_OPTION, *more)
    return Attack(name, craft, options, ratio="epsilon", fits=fits, file=file, slow=True)


ATTACKS = (
    _attack("slabs", craft_slabs, SLAB_RHO, GENERATIONS, fits=fits_victim),
    _attack("slabs-own", craft_slabs_own, SLAB_RHO, OWN_GENERATIONS, AGAINST, fits=fits_victim),
    _attack("slabs-release", craft_slabs_release, SLAB_RHO),
    _attack("minmax", craft_minmax, 5.0, STEP_SIZE),
)
