"""Where everything lies: the one place that knows the names of folders and files.

RESULTS and MODELS in the environment move the results and the trained models elsewhere (a relative path counts from the
repository, so that a script means the same folder from wherever it is called).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / (os.environ.get("RESULTS") or "results")
MODELS = REPOSITORY / (os.environ.get("MODELS") or "models")
POISONS = REPOSITORY / "datasets" / "poisons"
WATERMARKS, BACKDOORS = (REPOSITORY / "datasets" / name for name in ("watermarks", "backdoors"))
ANALYSIS = RESULTS / "analysis"
PUBLISHED = REPOSITORY / "results" / "published"

SEED = 215  # the paper's; other seeds are named in the folder, so that they never overwrite these
EPSILON_BUDGET, DELTA = 1000.0, 1e-5

ATTACK_RESULTS = "attack_results.csv"
ANALYSIS_RESULTS = "analysis_results.csv"
RUN = "run.json"
PARAM_UPDATES = "param_updates"
POISON = "poison.csv"
MAGNITUDES, ORIENTATIONS, PER_EXAMPLE = "mextracts_epoch.csv", "aextracts_epoch.csv", "sextracts_epoch.csv"


def seeded(name: str, seed: int) -> str:
    """`name`, with the seed behind it unless it is the paper's."""
    return name if seed == SEED else f"{name}_seed_{seed}"


def model_name(
    network: str,
    batch_size: int,
    epochs: int,
    learning_rate: float,
    seed: int = SEED,
    clip_norm: float | None = None,
    noise_multiplier: float = 0.0,
    engine: str = "stack",
) -> str:
    """The name of a trained model, e.g. vanilla_lr_300_40_0.01 or, with a clip norm, dp_lr_300_40_0.01_1000.0_1e-05_4.0_0.025.

    What is not the suite's default (another seed, another engine) stands behind it, so that it never overwrites what is.
    """
    if clip_norm is None:
        name = f"vanilla_{network}_{batch_size}_{epochs}_{learning_rate}"
    else:
        name = f"dp_{network}_{batch_size}_{epochs}_{learning_rate}_{EPSILON_BUDGET}_{DELTA}_{float(clip_norm)}_{float(noise_multiplier)}"
    return seeded(name if engine == "stack" else f"{name}_{engine}", seed)


def model_folder(dataset: str, model: str) -> Path:
    """Where a clean trained model lies: best.keras, final.keras, config.json, history.csv."""
    return MODELS / dataset / model


def reached_suffix(epoch: int, accuracy: float, epsilon: float) -> str:
    """What stands behind a defended clean model's name: its best epoch, and test accuracy and epsilon there, e.g. _epoch_95_acc_0.7086_eps_inf."""
    return f"_epoch_{epoch}_acc_{accuracy:.4f}_eps_{epsilon}"


def label_flips_file(dataset_name: str, ratio: float, seed: int) -> Path:
    """The poison file of random label flips on a data set, e.g. fashion_mnist_3_4.1.0_random_0.4.npz."""
    return POISONS / "indiscriminate" / "label-flips" / (seeded(f"{dataset_name}_random_{ratio}", seed) + ".npz")


def steinhardt_file(attack: str, epsilon: float, quantile: float, seed: int) -> Path:
    """The poison file of a slab or minmax attack, named as the paper's authors name theirs: fmnist_34_attack_eps40_quantile65_rho_slab.npz."""
    kind = "minmax" if attack == "minmax" else "rho_slab"
    name = f"fmnist_34_attack_eps{_hundredths(epsilon)}_quantile{_hundredths(quantile)}_{kind}"
    return POISONS / "indiscriminate" / attack / (seeded(name, seed) + ".npz")


def watermark_file(dataset_name: str, task: str, alpha: float) -> Path:
    """The poison file of watermarked pairs, e.g. watermarks/fashion_mnist_3_4.1.0/pairs_of_100_alpha_0.4.npz."""
    return WATERMARKS / dataset_name / f"{task}_alpha_{alpha}.npz"


def backdoor_file(dataset_name: str, label: int, ratio: float, patch: int, seed: int) -> Path:
    """The poison file of stamped rows, e.g. backdoors/fashion_mnist/4_0.01_14.npz."""
    return BACKDOORS / dataset_name / (seeded(f"{label}_{ratio}_{patch}", seed) + ".npz")


def targeted_file(attack: str, dataset_name: str, model: str, budget: str, target: int) -> Path:
    """The poison file of a target, against one clean model."""
    return POISONS / "targeted" / attack / dataset_name / model / budget / f"poisons_for_{target}.npz"


def targeted_results(attack: str, mode: str, dataset_name: str, model: str, budget: str, target: int) -> Path:
    """The trials of a target, a line each: attack_w_<target>.csv; mode: oneshot or multipoison."""
    return RESULTS / "tpoisoning" / attack / mode / dataset_name / model / budget / f"attack_w_{target}.csv"


def targeted_analysis(attack: str, dataset_name: str, model: str) -> Path:
    """The gradient analysis of one target's re-training."""
    return ANALYSIS / "tpoisoning" / attack / dataset_name / model


def run_file(results: Path) -> Path:
    """What says how a CSV file of results was made and that it is whole: run.json, or, where a folder holds many, attack_w_<target>.run.json."""
    return results.with_suffix(".run.json") if results.name.startswith("attack_w_") else results.with_name(RUN)


def _hundredths(share: float) -> str:
    """0.01 as 01, 0.4 as 40, 0.125 as 12.5."""
    whole, _, rest = f"{100 * share:.10g}".partition(".")
    return whole.zfill(2) + (f".{rest}" if rest else "")


def crafting_file(attack: str, poison_set: str) -> Path:
    """What the crafting of a poison set measured: bounds, losses, solver failures, seconds."""
    return RESULTS / "ipoisoning" / attack / poison_set / "crafting.json"


def indiscriminate_cell(attack: str, poison_set: str, model: str, retrain: bool = False) -> Path:
    """One cell of the indiscriminate sweep: attack_results.csv, run.json."""
    return RESULTS / "ipoisoning" / attack / (poison_set + "_retrain" * retrain) / model


def analysis_cell(attack: str, settings: dict, dataset_name: str, poison_set: str, model: str, retrain: bool) -> Path:
    """One gradient analysis: param_updates/, analysis_results.csv, the extracts, run.json.

    settings: the poison file's. A collision or an indiscriminate attack is trained from scratch unless its folder says _retrain;
    an insertion re-trains unless its folder says _scratch.
    """
    again = "_retrain" if retrain else ""
    if attack == "collision":
        return ANALYSIS / attack / f"{settings['task']}{again}" / dataset_name / f"alpha_{settings['alpha']}" / model
    if attack == "insertion":
        return ANALYSIS / attack / dataset_name / (poison_set if retrain else f"{poison_set}_scratch") / model
    return ANALYSIS / "ipoisoning" / attack / f"{poison_set}{again}" / model


def gradients_figure(cell: Path) -> tuple[Path, str]:
    """The figure that an analysed folder is a line of, and its name there: with all alphas, patches or models of its set, or by itself."""
    cell, analysis = cell.resolve(), ANALYSIS.resolve()
    model = cell.name
    if analysis not in cell.parents:
        return cell / "gradients.png", model
    attack = cell.relative_to(analysis).parts[0]
    if attack in ("collision", "insertion"):
        return cell.parent.parent / f"gradients_{model}.png", cell.parent.name
    return cell.parent / "gradients.png", model


def natural_order(name: str) -> list:
    """A key that sorts names by the numbers in them: patch 4 before patch 14."""
    return [float(part) if index % 2 else part for index, part in enumerate(re.split(r"(\d+(?:\.\d+)?)", name))]


def examples_picture(attack: str, name: str) -> Path:
    """What the poisons of a gradient analysis look like."""
    return ANALYSIS / attack / f"{name}.png"


def tables() -> Path:
    return RESULTS / "tables"


def figures() -> Path:
    return RESULTS / "figures"
