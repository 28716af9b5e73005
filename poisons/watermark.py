"""Feature collision: rows of one class blended into rows of another, under the first's label (section 4 of the paper).

    python3 -m poisons.watermark --dataset subtask --pairs one --alpha 0.1 0.2 0.4 0.6 0.8 1.0
    python3 -m poisons.watermark --dataset fashion_mnist --pairs multi --alpha 0.4
    python3 -m poisons.watermark --dataset fashion_mnist --pairs one --rows 3 19 --alpha 0.4

writes a poison file for each alpha and prints their paths; a picture of the first pair and its blends goes beside the
results. A poison is (1 - alpha) x0 + alpha x1, labelled as x0. `one` is the first training row of each class (or
--rows), `multi` the first hundred of each, paired in order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from command_line import INDEX, SHARE, refuse
from datasets import Dataset
from poisons.crafting import Attack, Option, Poisons, main
from results import layout

PAIRS = {"one": 1, "multi": 100}
CLASSES = {
    "fashion_mnist": (3, 4)
}  # of x0 and x1: dress and coat; elsewhere the first two, which they are in the subtask

OPTIONS = (
    Option("pairs", str, "one pair, or the first hundred", "multi", more={"choices": tuple(PAIRS)}),
    Option("alpha", SHARE, "the share of x1, from 0 to 1; a file each", many=True),
    Option("base_class", INDEX, "of x0 (default: dress, class 3, of fashion_mnist; 0 of others, dress in the subtask)"),
    Option("target_class", INDEX, "of x1 (default: coat, class 4, of fashion_mnist; 1 of others, coat in the subtask)"),
    Option("rows", INDEX, "with --pairs one: these training rows", more={"nargs": 2, "metavar": ("X0", "X1")}),
)


def blend(base: np.ndarray, target: np.ndarray, alpha: float) -> np.ndarray:
    """clip((1 - alpha) x0 + alpha x1, 0, 1), float32 of the shape of both; alpha in [0, 1]."""
    return np.clip(np.float32(1 - alpha) * base + np.float32(alpha) * target, 0, 1)


def craft(
    dataset: Dataset,
    pairs: str,
    alpha: float,
    base_class: int | None = None,
    target_class: int | None = None,
    rows: list[int] | None = None,
) -> Poisons:
    """Pair training rows of the base class with as many of the target class, in their order, or the two given."""
    count = len(dataset.y_train)
    if rows:
        if pairs != "one":
            refuse("--rows: two rows are one pair; add --pairs one")
        if not (base_class is target_class is None):
            refuse("--rows: rows bring their classes along; leave --base-class and --target-class out")
        if max(rows) >= count:
            refuse(f"--rows {max(rows)}: {dataset.name} has training rows 0 to {count - 1}; choose two of them")
        base, target = (np.array([row]) for row in rows)
    else:
        defaults = CLASSES.get(dataset.name, (0, 1))
        classes = [default if label is None else label for label, default in zip((base_class, target_class), defaults)]
        for option, label in zip(("--base-class", "--target-class"), classes):
            if label >= dataset.classes:
                refuse(f"{option} {label}: {dataset.name} has classes 0 to {dataset.classes - 1}; choose one of them")
        base, target = (np.flatnonzero(dataset.y_train == label)[: PAIRS[pairs]] for label in classes)
    task = f"a_pair_{base[0]}_{target[0]}" if pairs == "one" else f"pairs_of_{len(base)}"
    if pairs == "multi" and tuple(classes) != defaults:  # a file of its own
        task += f"_{classes[0]}_{classes[1]}"
    return Poisons(dataset.y_train[base], rows=base, target_rows=target, settings={"task": task, "alpha": alpha})


def make(dataset: Dataset, rows: np.ndarray, target_rows: np.ndarray | None, settings: dict) -> np.ndarray:
    """The blends that a file describes."""
    alpha = settings.get("alpha")
    if not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
        refuse(f"alpha is {alpha!r}, not a number from 0 to 1")
    if target_rows is None:
        refuse("it has no rows to blend in")
    return blend(dataset.x_train[rows], dataset.x_train[target_rows], alpha)


def file(dataset_name: str, settings: dict) -> Path:
    """E.g. watermarks/fashion_mnist_3_4.1.0/pairs_of_100_alpha_0.4.npz."""
    return layout.WATERMARKS / dataset_name / f"{settings['task']}_alpha_{settings['alpha']}.npz"


def examples(dataset: Dataset, sets: list[Poisons]) -> tuple[str, list[str], list[np.ndarray]]:
    """The first pair and its blends."""
    base, target, alphas = sets[0].rows[0], sets[0].target_rows[0], [poisons.settings["alpha"] for poisons in sets]
    x0, x1 = dataset.x_train[base], dataset.x_train[target]
    titles = [f"x0: row {base}", f"x1: row {target}", *(f"alpha {alpha}" for alpha in alphas)]
    return f"{sets[0].settings['task']}_{dataset.name}", titles, [x0, x1, *(blend(x0, x1, alpha) for alpha in alphas)]


ATTACK = Attack("collision", craft, OPTIONS, file=file, make=make, examples=examples)

if __name__ == "__main__":
    main(ATTACK)
