"""Targeted clean-label poisons by feature collision (Shafahi et al. 2018, "Poison Frogs"; section 6 of the paper).

    python3 -m poisons.shafahi --dataset purchases --network lr --target 2 107
    python3 -m poisons.shafahi --dataset purchases --network lr --shaping 4:0.0025 --target 2 --watermark 0.3

writes a poison file for each target (a row of the test set) and prints their paths. A poison p starts as a training row
b of the class that the target t is wanted to be taken for, keeps its label, and moves to where the clean model sees the
target:

    min_p |f(p) - f(t)|^2 + beta |p - b|^2,   p in [0, 1]

f are the features before the last layer, of a logistic regression the logits. Poisons are crafted against the very
model that is attacked, so there is a file for each shaping too. They lie in the file by their distance to the target's
features, the nearest first. With --radius a poison stays within that L2 distance of its base row: a dose that is the
same for all models, which a feature distance is not.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import datasets
from command_line import COUNT, INDEX, NOT_NEGATIVE, POSITIVE, SHARE, Parser, refuse, run
from poisons import poison_set
from poisons.crafting import Option, add_dataset, add_options
from results import layout

if TYPE_CHECKING:
    from models import baselines
    from poisons.together import Together

NAME = "clean-labels"  # it needs a model and a target, so it is none of the attacks that `python3 -m poisons` crafts
BASE_CLASS, TARGET_CLASS = 3, layout.TARGET_CLASS  # the targets' own class, and the one wanted; the paper's names
RADIUS = "_radius_"  # in a budget's name
TRANSFERRED = "_from_undefended"  # behind a budget's name, where the poisons were crafted against another model
SMALLEST_STEP = 1e-7  # below it float32 sees no difference


@dataclass(frozen=True)
class Budget:
    """What the attacker may do: beta; at most so many iterations; the largest |f(p) - f(t)| of an accepted poison; so
    many base rows; the relative change of p at which it has converged; watermark: the share of the target that is
    blended into each base row beforehand; radius: the largest |p - b|, b as it is then.
    """

    beta: float = 0.1
    iterations: int = 2000
    feature_distance: float = 3.5
    poisons: int = 100
    tolerance: float = 1e-10
    watermark: float = 0.0
    radius: float = math.inf

    @property
    def name(self) -> str:
        """As folders spell it, e.g. 0.1_2000_3.5_100_1e-10."""
        name = f"{self.beta}_{self.iterations}_{self.feature_distance}_{self.poisons}_{self.tolerance}"
        name += f"_watermark_{self.watermark}" if self.watermark else ""
        return name if math.isinf(self.radius) else f"{name}{RADIUS}{self.radius}"


DOSED = Budget(beta=0.0, feature_distance=1e6, poisons=10)  # with a radius, as compare_shapings.sh has it

OPTIONS = (
    Option("base_class", INDEX, "the targets' own class", BASE_CLASS, flag="--victim-class", also=("--base-class",)),
    Option(
        "target_class",
        INDEX,
        "the class that targets are to be taken for",
        TARGET_CLASS,
        flag="--wanted-class",
        also=("--target-class",),
    ),
    Option("poisons", COUNT, "base rows to make poisons of, for each target", Budget.poisons),
    Option("beta", NOT_NEGATIVE, "how dear it is to move away from the base row", Budget.beta),
    Option("iterations", COUNT, "at most so many steps of the descent", Budget.iterations),
    Option("feature_distance", POSITIVE, "the largest accepted", Budget.feature_distance),
    Option("tolerance", POSITIVE, "relative change at which to stop", Budget.tolerance),
    Option("watermark", SHARE, "share of the target blended into each base row", Budget.watermark),
    Option(
        "radius",
        POSITIVE,
        "the largest L2 distance of a poison to its base row; of several, each is a dose",
        [Budget.radius],
        more={"nargs": "+"},
    ),
)


def add_victim_options(parser: Parser) -> None:
    """Add what is attacked, and by what: the options that crafting and attacking have in common."""
    from models.protocols import add_network_option

    add_dataset(parser, "purchases")
    add_network_option(parser)
    add_options(parser, OPTIONS)
    parser.add_argument(
        "--learning-rate",
        type=POSITIVE,
        help="of the clean model and its re-training (default: the paper's, twice as high under DP-SGD)",
    )
    parser.add_argument(
        "--gpu", type=INDEX, metavar="INDEX", help="CUDA device (default: any; the CPU where there is none)"
    )


def budgets_of(options) -> list[Budget]:
    """The budgets that parsed OPTIONS give, one for each radius."""
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(Budget)}
    radii = values.pop("radius")
    return [Budget(**values, radius=radius) for radius in dict.fromkeys(radii)]


def base_rows(y_train: np.ndarray, target_class: int, count: int) -> np.ndarray:
    """The first `count` training rows of the wanted class, int64 [count]; refuses when there are fewer."""
    rows = np.flatnonzero(y_train == target_class)
    if len(rows) < count:
        refuse(
            f"--poisons {count}: class {target_class} has {len(rows)} training rows to make poisons of;"
            f" ask for {len(rows)} at most"
        )
    return rows[:count]


def check(options, dataset: datasets.Dataset) -> None:
    """Refuse parsed OPTIONS that a data set does not allow.

    These are classes that it does not have, more base rows than it has, and targets (`options.target`, a list) that are
    no test rows or not of the base class.
    """
    if options.base_class == options.target_class:
        refuse(f"--wanted-class {options.target_class}: the targets' own class; choose another")
    for option, label in (("--victim-class", options.base_class), ("--wanted-class", options.target_class)):
        if label >= dataset.classes:
            refuse(f"{option} {label}: {dataset.name} has classes 0 to {dataset.classes - 1}; choose one of them")
    from models import protocols

    if protocols.network(options.network).front:
        refuse(
            f"--network {options.network}: the attack is crafted against dense layers; choose one without convolutions"
        )
    base_rows(dataset.y_train, options.target_class, options.poisons)
    for target in options.target:
        if target >= len(dataset.y_test):
            refuse(f"--target {target}: the test set has rows 0 to {len(dataset.y_test) - 1}; choose one of them")
        label = dataset.y_test[target]
        if label != options.base_class:
            refuse(
                f"--target {target}: of class {label}, not of the victim class {options.base_class}; choose another,"
                " or give its class as --victim-class"
            )


class Crafter:
    """Crafts poisons against one Keras model; the descent is traced once for all targets."""

    name = NAME

    def __init__(self, model) -> None:
        import tensorflow as tf

        last = -1 if len([layer for layer in model.layers if layer.weights]) == 1 else -2
        self.tf, self.features = tf, tf.keras.Model(model.input, model.layers[last].output)
        self.descend = tf.function(self._descend, reduce_retracing=True)

    def craft(self, target: np.ndarray, base: np.ndarray, *budgets: Budget) -> tuple[np.ndarray, np.ndarray]:
        """The poison that comes of each base row, and its feature distance |f(p) - f(t)|.

        target: float32 [*shape]; base: float32 [rows, *shape]; budgets: they differ in the radius alone. Returns
        float32 [budgets * rows, *shape] in [0, 1] and [budgets * rows], those of the first budget first.
        """
        budget = budgets[0]
        start = ((1 - budget.watermark) * base + budget.watermark * target).astype(np.float32)
        start = np.concatenate([start] * len(budgets))
        radii = np.repeat(np.array([one.radius for one in budgets], np.float32), len(base))
        settings = (self.tf.constant(value) for value in (budget.beta, budget.iterations, budget.tolerance, radii))
        return tuple(values.numpy() for values in self.descend(target[np.newaxis], start, *settings))

    def distances(self, target: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The feature distances |f(x) - f(t)|, float64 [rows]; as in `craft`."""
        wanted = self.features(target[np.newaxis])
        return lengths(self.features(x).numpy() - wanted.numpy())

    def _descend(self, target, base, beta, iterations, tolerance, radius):
        """Forward-backward splitting (their algorithm 1) for all rows at once, each step cut off at the radius.

        Each row has a step size of its own, halved when its objective rises.
        """
        tf, axes = self.tf, list(range(1, len(base.shape)))
        wanted = self.features(target)

        def distance_and_gradient(x):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                distance = tf.reduce_sum(tf.square(self.features(x) - wanted), 1)
            return distance, tape.gradient(distance, x)

        def along(values):
            return tf.reshape(values, [-1] + [1] * len(axes))

        x, step = base, tf.ones(tf.shape(base)[0])
        distance, gradient = distance_and_gradient(x)
        objective, done = distance, tf.zeros_like(step, tf.bool)
        for _ in tf.range(iterations):
            if tf.reduce_all(done):
                break
            forward = x - along(step) * gradient
            pull = 2 * along(step) * beta  # their algorithm leaves out the 2, and so minimises for half of beta
            backward = tf.clip_by_value((forward + pull * base) / (1 + pull), 0.0, 1.0)
            moved = tf.sqrt(tf.reduce_sum(tf.square(backward - base), axes))
            within = base + along(radius / tf.maximum(moved, radius)) * (backward - base)  # in the box, as both ends
            backward = tf.where(along(moved > radius), within, backward)
            new_distance, new_gradient = distance_and_gradient(backward)
            new_objective = new_distance + beta * tf.reduce_sum(tf.square(backward - base), axes)
            better = ~done & (new_objective <= objective)
            change = tf.sqrt(
                tf.reduce_sum(tf.square(backward - x), axes) / tf.maximum(tf.reduce_sum(tf.square(x), axes), 1e-12)
            )
            x, gradient = (tf.where(along(better), new, old) for new, old in ((backward, x), (new_gradient, gradient)))
            distance, objective = (
                tf.where(better, new, old) for new, old in ((new_distance, distance), (new_objective, objective))
            )
            step = tf.where(better, step, step / 2)
            done |= (better & (change < tolerance)) | (step < SMALLEST_STEP)
        return x, tf.sqrt(distance)


def poison_files(
    crafter: Crafter | Together,
    dataset: datasets.Dataset,
    network: str,
    victim: baselines.Baseline,
    target: int,
    classes: tuple[int, int],
    budgets: list[Budget],
) -> list[tuple[Path, bool]]:
    """The file of a target's poisons against a clean model for each budget, and whether it was crafted now.

    Beside the settings it says of each poison its feature distance and, where a radius is given, that of its base row,
    how far it has moved, and how far it is from base row to target (L2). Refuses one that was crafted against another
    model, and a target that no poison comes near.

    classes: the target's own class and the wanted one; budgets: they differ in the radius alone.
    """
    base_class, target_class = classes
    attack = {
        "attack": crafter.name, **dataset.named, "network": network, "model": victim.name,
        "model_sha256": victim.sha256, "target": target, "base_class": base_class, "target_class": target_class,
    }  # fmt: skip
    found, missing = [], []
    for budget in budgets:
        folder = layout.targeted_budget(budget.name, target_class)
        path = layout.targeted_file(crafter.name, dataset.name, victim.name, folder, target)
        settings, known = {**attack, "budget": budget.name}, poison_set.settings_of(path)
        for name, value in settings.items():
            if known is not None and known.get(name) != value:
                refuse(
                    f"{path}: crafted for another attack ({name} is {known.get(name)!r}, not {value!r});"
                    " delete it to craft it again"
                )
        found.append((path, known is None))
        if known is None:
            missing.append((path, settings, budget))
    if missing:
        rows = base_rows(dataset.y_train, target_class, budgets[0].poisons)
        base, goal = dataset.x_train[rows], dataset.x_test[target]
        crafted = crafter.craft(goal, base, *(budget for _, _, budget in missing))
        for (path, settings, budget), x, distances in zip(missing, *(np.split(part, len(missing)) for part in crafted)):
            accepted = np.flatnonzero(distances <= budget.feature_distance)
            if len(accepted) == 0:
                refuse(
                    f"{path}: no poison of target {target} comes within the feature distance {budget.feature_distance}"
                    f" (the nearest: {distances.min():.3g}); allow more"
                )
            order = accepted[np.argsort(distances[accepted], kind="stable")]
            said = {"distances": distances[order]}
            if not math.isinf(budget.radius):
                said["base_distances"] = crafter.distances(goal, base[order])
                said["moved"], said["ways"] = lengths(x[order] - base[order]), lengths(goal - base[order])
            lists = {name: [float(value) for value in values] for name, values in said.items()}
            poison_set.save(path, {**settings, **lists}, dataset.y_train[rows[order]], instances=x[order])
    return found


def lengths(x: np.ndarray) -> np.ndarray:
    """The L2 norm of each row, float64 [rows]; x: [rows, *shape]."""
    return np.linalg.norm(x.reshape(len(x), -1).astype(np.float64), axis=1)


def main() -> None:
    from models import baselines, device
    from models.kind import add_file_option
    from models.shaping import UNDEFENDED, shaping
    from models.trainer import Training, check_shapings

    parser = Parser(__doc__)
    add_victim_options(parser)
    parser.add_argument(
        "--shaping",
        type=shaping,
        default=UNDEFENDED,
        help="of the attacked model, as train.py reads it (default: undefended)",
    )
    add_file_option(parser)
    parser.add_argument("--target", type=INDEX, nargs="+", required=True, help="rows of the test set")
    options = parser.parse_args()
    dataset = datasets.load(options.dataset)
    training = Training.published(dataset.name, options.network)
    check_shapings([options.shaping], options.network, dataset)
    check(options, dataset)
    device.start(options.gpu)
    victim = baselines.baseline(training, dataset, options.shaping, options.learning_rate)
    crafter, classes = Crafter(victim.model), (options.base_class, options.target_class)
    for target in options.target:
        files = poison_files(crafter, dataset, options.network, victim, target, classes, budgets_of(options))
        for path, crafted in files:
            poisons = poison_set.load(path, dataset)
            print(path)
            nearest, farthest = (poisons.settings["distances"][place] for place in (0, -1))
            did = "crafted" if crafted else "already there"
            print(
                f"target {target}: {len(poisons.y)} poisons {did}, feature distance {nearest:.4g} to {farthest:.4g}",
                file=sys.stderr,
            )


if __name__ == "__main__":
    run(main)
