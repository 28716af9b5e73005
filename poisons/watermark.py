"""Feature collision: rows of one class blended into rows of another, under the first one's label (section 4 of the paper).

    python3 -m poisons.watermark --dataset subtask --pairs one --alpha 0.1 0.2 0.4 0.6 0.8 1.0
    python3 -m poisons.watermark --dataset fashion_mnist --pairs multi --alpha 0.4
    python3 -m poisons.watermark --dataset fashion_mnist --pairs one --rows 3 19 --alpha 0.4

writes a poison file for each alpha and prints their paths; a picture of the first pair and its blends goes beside the results.
A poison is (1 - alpha) x0 + alpha x1, labelled as x0. `one` is the first training row of each class (or --rows), `multi` the
first hundred of each, paired in order.
"""

from __future__ import annotations

import sys

import numpy as np

import datasets
from command_line import INDEX, SHARE, Parser, refuse, run
from poisons import images, pictures, poison_set
from results import layout

ATTACK = "collision"
PAIRS = {"one": 1, "multi": 100}
CLASSES = {"subtask": (0, 1), "fashion_mnist": (3, 4)}  # dress and coat: of x0 and of x1


def craft(y_train: np.ndarray, base_class: int, target_class: int, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `pairs` training rows of each class, in their order: int64 [pairs] of x0 and of x1. y_train: integer [rows]."""
    return tuple(np.flatnonzero(y_train == label)[:pairs] for label in (base_class, target_class))


def main() -> None:
    options = parse()
    dataset = datasets.load(options.dataset)
    for option, label in (("--base-class", options.base_class), ("--target-class", options.target_class)):
        if label >= dataset.classes:
            refuse(f"{option} {label}: {dataset.name} has classes 0 to {dataset.classes - 1}; choose one of them")
    if options.rows:
        base, target = (np.array([row]) for row in options.rows)
        if max(options.rows) >= len(dataset.y_train):
            refuse(f"--rows {max(options.rows)}: {dataset.name} has training rows 0 to {len(dataset.y_train) - 1}; choose two of them")
    else:
        base, target = craft(dataset.y_train, options.base_class, options.target_class, PAIRS[options.pairs])
    task = f"a_pair_{base[0]}_{target[0]}" if options.pairs == "one" else f"pairs_of_{len(base)}"
    for alpha in options.alpha:
        settings = {"attack": ATTACK, "dataset": dataset.name, "task": task, "alpha": alpha}
        path = layout.watermark_file(dataset.name, task, alpha)
        wrote = poison_set.save(path, settings, dataset.y_train[base], rows=base, target_rows=target)
        print(path)
        print(f"{dataset.name}, {path.stem}: {len(base)} poisons", "crafted" if wrote else "already there", file=sys.stderr)
    x0, x1 = dataset.x_train[base[0]], dataset.x_train[target[0]]
    examples = np.stack([x0, x1, *(images.blend(x0, x1, alpha) for alpha in options.alpha)])
    titles = [f"x0: row {base[0]}", f"x1: row {target[0]}", *(f"alpha {alpha}" for alpha in options.alpha)]
    pictures.grid(layout.examples_picture(ATTACK, f"{task}_{dataset.name}"), examples, titles)


def parse():
    parser = Parser(__doc__)
    parser.add_argument("--dataset", default="subtask", choices=tuple(CLASSES), help="default: %(default)s")
    parser.add_argument("--pairs", default="multi", choices=tuple(PAIRS), help="default: %(default)s")
    parser.add_argument("--alpha", type=SHARE, nargs="+", required=True, help="the share of x1, from 0 to 1; a file each")
    parser.add_argument("--base-class", type=INDEX, help="of x0 (default: dress, class 3, which is 0 in the subtask)")
    parser.add_argument("--target-class", type=INDEX, help="of x1 (default: coat, class 4, which is 1 in the subtask)")
    parser.add_argument("--rows", type=INDEX, nargs=2, metavar=("X0", "X1"), help="with --pairs one: these training rows")
    options = parser.parse_args()
    if options.rows and options.pairs != "one":
        refuse("--rows: two rows are one pair; add --pairs one")
    if options.rows and not (options.base_class is options.target_class is None):
        refuse("--rows: rows bring their classes along; leave --base-class and --target-class out")
    default_base, default_target = CLASSES[options.dataset]
    options.base_class = default_base if options.base_class is None else options.base_class
    options.target_class = default_target if options.target_class is None else options.target_class
    options.alpha = list(dict.fromkeys(options.alpha))
    return options


if __name__ == "__main__":
    run(main)
