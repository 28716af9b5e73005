"""Targeted clean-label poisons by feature collision (Shafahi et al. 2018, "Poison Frogs"; section 6 of the paper).

    python3 -m poisons.shafahi --dataset purchases --network lr --target 2 107
    python3 -m poisons.shafahi --dataset purchases --network lr --shaping 4:0.0025 --target 2 --watermark 0.3

writes a poison file for each target (a row of the test set) and prints their paths. A poison p starts as a training row b of the class that
the target t is wanted to be taken for, keeps its label, and moves to where the clean model sees the target:

    min_p |f(p) - f(t)|^2 + beta |p - b|^2,   p in [0, 1]

f are the features before the last layer, of a logistic regression the logits. Poisons are crafted against the very model that is
attacked, so there is a file for each shaping too. They lie in the file by their distance to the target's features, the nearest first.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import datasets
from command_line import COUNT, INDEX, NOT_NEGATIVE, POSITIVE, SHARE, Parser, refuse, run
from models import baselines, device
from models.protocols import NETWORKS, UNDEFENDED, protocol, shaping
from models.trainer import Training
from poisons import poison_set
from results import layout

ATTACK = "clean-labels"
BASE_CLASS, TARGET_CLASS = 3, 4  # the targets' own class, and the one that they are wanted to be taken for; the paper's names
SMALLEST_STEP = 1e-7  # below it float32 sees no difference


@dataclass(frozen=True)
class Budget:
    """What the attacker may do: beta; at most so many iterations; the largest |f(p) - f(t)| of an accepted poison; so many base rows; the
    relative change of p at which it has converged; watermark: the share of the target that is blended into each base row beforehand.
    """

    beta: float = 0.1
    iterations: int = 2000
    feature_distance: float = 3.5
    poisons: int = 100
    tolerance: float = 1e-10
    watermark: float = 0.0

    @property
    def name(self) -> str:
        """As folders spell it, e.g. 0.1_2000_3.5_100_1e-10."""
        name = f"{self.beta}_{self.iterations}_{self.feature_distance}_{self.poisons}_{self.tolerance}"
        return f"{name}_watermark_{self.watermark}" if self.watermark else name


def budget_folder(budget: Budget, target_class: int) -> str:
    """The budget's name, with the wanted class behind it unless it is the paper's."""
    return budget.name + (f"_class_{target_class}" if target_class != TARGET_CLASS else "")


def base_rows(y_train: np.ndarray, target_class: int, count: int) -> np.ndarray:
    """The first `count` training rows of the wanted class, int64 [count]; refuses when there are fewer."""
    rows = np.flatnonzero(y_train == target_class)
    if len(rows) < count:
        refuse(f"--poisons {count}: class {target_class} has {len(rows)} training rows to make poisons of; ask for {len(rows)} at most")
    return rows[:count]


def check_attack(options, dataset: datasets.Dataset) -> None:
    """Refuse classes that the data do not have, a target that is no test row or not of the base class, and too few rows to make poisons of."""
    for option, label in (("--base-class", options.base_class), ("--target-class", options.target_class)):
        if label >= dataset.classes:
            refuse(f"{option} {label}: {dataset.name} has classes 0 to {dataset.classes - 1}; choose one of them")
    base_rows(dataset.y_train, options.target_class, options.poisons)
    y_test, base_class = dataset.y_test, options.base_class
    for target in options.target:
        if target >= len(y_test):
            refuse(f"--target {target}: the test set has rows 0 to {len(y_test) - 1}; choose one of them")
        if y_test[target] != base_class:
            refuse(
                f"--target {target}: of class {y_test[target]}, not of the base class {base_class}; choose another, or give its class as --base-class"
            )


class Crafter:
    """Crafts poisons against one Keras model; the descent is traced once for all targets."""

    def __init__(self, model) -> None:
        import tensorflow as tf

        last = -1 if len([layer for layer in model.layers if layer.weights]) == 1 else -2
        self.tf, self.features = tf, tf.keras.Model(model.input, model.layers[last].output)
        self.descend = tf.function(self._descend, reduce_retracing=True)

    def craft(self, target: np.ndarray, base: np.ndarray, budget: Budget) -> tuple[np.ndarray, np.ndarray]:
        """The poisons that come of each base row, float32 [rows, *shape] in [0, 1], and their feature distances |f(p) - f(t)|, float32 [rows].

        target: float32 [*shape]; base: float32 [rows, *shape].
        """
        start = (1 - budget.watermark) * base + budget.watermark * target
        settings = (self.tf.constant(value) for value in (budget.beta, budget.iterations, budget.tolerance))
        return tuple(values.numpy() for values in self.descend(target[np.newaxis], start.astype(np.float32), *settings))

    def _descend(self, target, base, beta, iterations, tolerance):
        """Forward-backward splitting (their algorithm 1) for all rows at once, each with a step size of its own, halved when its objective rises."""
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
            new_distance, new_gradient = distance_and_gradient(backward)
            new_objective = new_distance + beta * tf.reduce_sum(tf.square(backward - base), axes)
            better = ~done & (new_objective <= objective)
            change = tf.sqrt(tf.reduce_sum(tf.square(backward - x), axes) / tf.maximum(tf.reduce_sum(tf.square(x), axes), 1e-12))
            x, gradient = (tf.where(along(better), new, old) for new, old in ((backward, x), (new_gradient, gradient)))
            distance, objective = (tf.where(better, new, old) for new, old in ((new_distance, distance), (new_objective, objective)))
            step = tf.where(better, step, step / 2)
            done |= (better & (change < tolerance)) | (step < SMALLEST_STEP)
        return x, tf.sqrt(distance)


def poison_file(
    crafter: Crafter,
    dataset: datasets.Dataset,
    network: str,
    victim: baselines.Baseline,
    target: int,
    classes: tuple[int, int],
    budget: Budget,
) -> tuple[Path, bool]:
    """The file of a target's poisons against a clean model, and whether it was crafted now; refuses one that was crafted against another.

    classes: the target's own class and the wanted one.
    """
    base_class, target_class = classes
    path = layout.targeted_file(ATTACK, dataset.name, victim.name, budget_folder(budget, target_class), target)
    settings = {
        "attack": ATTACK, "dataset": dataset.name, "network": network, "model": victim.name, "model_sha256": victim.sha256, "target": target,
        "base_class": base_class, "target_class": target_class, "budget": budget.name,
    }  # fmt: skip
    known = poison_set.settings_of(path)
    if known is not None:
        for name, value in settings.items():
            if known.get(name) != value:
                refuse(f"{path}: crafted for another attack ({name} is {known.get(name)!r}, not {value!r}); delete it to craft it again")
        return path, False
    rows = base_rows(dataset.y_train, target_class, budget.poisons)
    x, distances = crafter.craft(dataset.x_test[target], dataset.x_train[rows], budget)
    accepted = np.flatnonzero(distances <= budget.feature_distance)
    if len(accepted) == 0:
        refuse(
            f"{path}: no poison of target {target} comes within the feature distance {budget.feature_distance} (the nearest: {distances.min():.3g}); allow more"
        )
    order = accepted[np.argsort(distances[accepted], kind="stable")]
    poison_set.save(
        path, {**settings, "distances": [float(distances[row]) for row in order]}, dataset.y_train[rows[order]], instances=x[order]
    )
    return path, True


def main() -> None:
    options = parse()
    dataset = datasets.load(options.dataset)
    check_attack(options, dataset)
    device.start(options.gpu)
    published = protocol(options.dataset, options.network)
    training = Training(options.dataset, options.network, "stack", published.optimizer, published.batch_size, published.epochs, layout.SEED)
    victim = baselines.baseline(training, dataset, options.shaping, options.learning_rate)
    crafter = Crafter(victim.model)
    for target in options.target:
        path, crafted = poison_file(
            crafter, dataset, options.network, victim, target, (options.base_class, options.target_class), options.budget
        )
        poisons = poison_set.load(path, dataset)
        print(path)
        nearest, farthest = (poisons.settings["distances"][place] for place in (0, -1))
        did = "crafted" if crafted else "already there"
        print(f"target {target}: {len(poisons.y)} poisons {did}, feature distance {nearest:.4g} to {farthest:.4g}", file=sys.stderr)


def add_attack_options(parser: Parser) -> None:
    """The options that say what is attacked, and by what."""
    parser.add_argument("--dataset", default="purchases", choices=("purchases",), help="default: %(default)s")
    parser.add_argument("--network", required=True, choices=tuple(name for name, network in NETWORKS.items() if not network.filters))
    parser.add_argument("--base-class", type=INDEX, default=BASE_CLASS, help="the targets' own class (default: %(default)s)")
    parser.add_argument(
        "--target-class", type=INDEX, default=TARGET_CLASS, help="the class that targets are wanted to be taken for (default: %(default)s)"
    )
    parser.add_argument(
        "--poisons", type=COUNT, default=Budget.poisons, help="base rows to make poisons of, for each target (default: %(default)s)"
    )
    parser.add_argument(
        "--beta", type=NOT_NEGATIVE, default=Budget.beta, help="how dear it is to move away from the base row (default: %(default)s)"
    )
    parser.add_argument("--iterations", type=COUNT, default=Budget.iterations, help="default: %(default)s")
    parser.add_argument(
        "--feature-distance", type=POSITIVE, default=Budget.feature_distance, help="the largest accepted (default: %(default)s)"
    )
    parser.add_argument(
        "--tolerance", type=POSITIVE, default=Budget.tolerance, help="relative change at which to stop (default: %(default)s)"
    )
    parser.add_argument(
        "--watermark", type=SHARE, default=Budget.watermark, help="share of the target blended into each base row (default: 0)"
    )
    parser.add_argument(
        "--learning-rate", type=POSITIVE, help="of the clean model and its re-training (default: the paper's, twice as high under DP-SGD)"
    )
    parser.add_argument("--gpu", type=int, metavar="INDEX", help="CUDA device (default: any; the CPU where there is none)")


def finish_attack_options(options) -> None:
    """Check what the options say together; adds `budget`."""
    protocol(options.dataset, options.network)
    if options.base_class == options.target_class:
        refuse(f"--target-class {options.target_class}: the targets' own class; choose another")
    names = ("beta", "iterations", "feature_distance", "poisons", "tolerance", "watermark")
    options.budget = Budget(**{name: getattr(options, name) for name in names})


def parse():
    parser = Parser(__doc__)
    add_attack_options(parser)
    parser.add_argument(
        "--shaping", type=shaping, default=UNDEFENDED, help="of the attacked model: undefended, a clip norm, or clip norm:noise multiplier"
    )
    parser.add_argument("--target", type=INDEX, nargs="+", required=True, help="rows of the test set")
    options = parser.parse_args()
    finish_attack_options(options)
    return options


if __name__ == "__main__":
    run(main)
