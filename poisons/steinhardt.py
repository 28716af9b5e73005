"""The attacks of Steinhardt, Koh and Liang 2017 (arXiv 1706.03691), crafted from the clean training rows alone.

    python3 -m poisons.steinhardt --attack slab --eps 0.4                           the strong, unrealistic one: four points, means shifted
    python3 -m poisons.steinhardt --attack slab --eps 0.4 --select training-loss    the same by the rule of its release
    python3 -m poisons.steinhardt --attack minmax --eps 0.1                         valid images that pass both defences, and a bound U*

writes a poison file for each epsilon under datasets/poisons/indiscriminate/{slabs,slabs-release,minmax}/ with a PNG of the poisons beside it, and
crafting.json (bounds, losses, seconds) under the results, and prints the files' paths. What is crafted is not crafted again.
"""

from __future__ import annotations

import sys
import time

import numpy as np

import datasets
from command_line import COUNT, POSITIVE, RATIO, SEED, Parser, Progress, number, refuse, run
from files import write_json
from models import device
from poisons import defences, minmax, pictures, poison_set, slab_search
from poisons.slab_program import LABELS
from results import layout

FOLDERS = {("slab", "victim"): "slabs", ("slab", "training-loss"): "slabs-release"}
SHARE = number(lambda value: 0 < value < 1, "a quantile above 0 and below 1")
RHO = {"slab": np.sqrt(0.8), "minmax": 5.0}  # the slab's as in the release, where it moves the score of a set only


def main() -> None:
    options = parse()
    dataset = datasets.load(options.dataset)
    for label in range(dataset.classes):
        if not (dataset.y_train == label).any():
            refuse(f"--dataset {options.dataset}: class {label} has no training rows; the defences need rows of both")
    for epsilon in options.eps:
        if round(epsilon * len(dataset.y_train)) == 0:
            refuse(f"--eps {epsilon}: less than one poison among {len(dataset.y_train)} rows; choose a larger one")
    x, y = dataset.x_train.reshape(len(dataset.x_train), -1), dataset.y_train
    defence = defences.fit(x, y, options.quantile)
    attack = FOLDERS.get((options.attack, options.select), "minmax")
    workers = None
    for epsilon in options.eps:
        path = layout.steinhardt_file(attack, epsilon, options.quantile, options.seed)
        settings = {
            "attack": attack, "dataset": dataset.name, "epsilon": epsilon, "quantile": options.quantile, "rho": options.rho,
            "seed": options.seed, **({"generations": options.generations} if attack == "slabs" else {}),
            **({"step_size": options.step_size} if attack == "minmax" else {}),
        }  # fmt: skip
        print(path)
        if poison_set.settings_of(path) == settings:
            print(f"{path.stem}: crafted before", file=sys.stderr)
            continue
        if attack == "slabs" and workers is None:
            workers = device.start(None, 2)
        began = time.monotonic()
        if attack == "minmax":
            measured = craft_minmax(path, settings, x, y, defence, dataset)
        else:
            measured = craft_slab(path, settings, x, y, defence, dataset, workers)
        measured = {**settings, **measured, "wall_seconds": round(time.monotonic() - began, 1)}
        write_json(layout.crafting_file(attack, path.stem), measured)
        print(f"{path.stem}: {measured['n_poison']} poisons in {measured['wall_seconds']} s", file=sys.stderr)


def parse():
    parser = Parser(__doc__)
    parser.add_argument("--attack", required=True, choices=("slab", "minmax"))
    parser.add_argument("--eps", type=RATIO, nargs="+", required=True, help="poisons per clean row, above 0 and up to 1; one file each")
    parser.add_argument(
        "--select", choices=("victim", "training-loss"), default="victim", help="slab: which candidate to keep (default: victim)"
    )
    parser.add_argument("--dataset", choices=("subtask",), default="subtask")
    parser.add_argument(
        "--quantile", type=SHARE, default=0.65, help="share of a class's clean rows that the defences let pass (default: 0.65)"
    )
    parser.add_argument("--rho", type=POSITIVE, help="bound on the norm of the attacked model (default: sqrt(0.8) for slab, 5 for minmax)")
    parser.add_argument("--step-size", type=POSITIVE, default=0.01, help="minmax: eta (default: 0.01)")
    parser.add_argument("--generations", type=COUNT, default=150, help="slab by victim: of 16 candidates each (default: 150)")
    parser.add_argument("--seed", type=SEED, default=layout.SEED, help="default: %(default)s")
    options = parser.parse_args()
    options.rho = float(options.rho or RHO[options.attack])
    return options


def craft_slab(path, settings: dict, x: np.ndarray, y: np.ndarray, defence: defences.Defence, dataset, workers: int | None) -> dict:
    """Craft one slab set, write its file and picture, and return what was measured."""
    crafter = slab_search.Crafter(x.astype(np.float64), y, defence, settings["epsilon"], np.random.default_rng(settings["seed"]))
    if settings["attack"] == "slabs":
        progress = Progress(path.stem, settings["generations"], "score", "generation")
        candidate = slab_search.by_victim(crafter, dataset, settings["generations"], workers, settings["seed"], progress.show)
    else:
        candidate = slab_search.by_training_loss(crafter, settings["rho"])
    for solved, status in crafter.failures:
        print(f"{path.stem}: the solver said {status} after {solved} solved programs; the last good poisons were kept", file=sys.stderr)
    counts = slab_search.counts(candidate.shares, round(settings["epsilon"] * len(y)))
    poison_set.save(path, settings, LABELS, instances=candidate.points.reshape(-1, *dataset.shape), counts=counts)
    pictures.grid(path.with_suffix(".png"), candidate.points, [f"{count} x class {label}" for count, label in zip(counts, LABELS)])
    return {
        "n_poison": int(counts.sum()),
        "counts": counts.tolist(),
        "programs_solved": crafter.solved,
        "programs_failed": len(crafter.failures),
    }


def craft_minmax(path, settings: dict, x: np.ndarray, y: np.ndarray, defence: defences.Defence, dataset) -> dict:
    """Craft one minmax set, write its file and picture, and return what was measured."""
    steps = round(settings["epsilon"] * len(y))
    progress = Progress(path.stem, steps, "upper bound", "step")
    outcome = minmax.craft(x, y, defence, settings["epsilon"], settings["rho"], settings["step_size"], progress.show)
    poison_set.save(path, settings, outcome.y, instances=outcome.x.reshape(-1, *dataset.shape))
    shown = np.linspace(0, len(outcome.y) - 1, min(16, len(outcome.y))).astype(int)
    pictures.grid(path.with_suffix(".png"), outcome.x[shown], [f"step {step + 1}, class {outcome.y[step]}" for step in shown])
    return {
        "n_poison": len(outcome.y), "upper_bound": outcome.upper_bound, "training_loss": outcome.training_loss,
        "worst_duality_gap": outcome.worst_gap,
        "pass_sphere": float(defences.sphere(defence, outcome.x, outcome.y, 1e-6).mean()),
        "pass_slab": float(defences.slab(defence, outcome.x, outcome.y, 1e-6).mean()),
    }  # fmt: skip


if __name__ == "__main__":
    run(main)
