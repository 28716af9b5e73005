"""Where everything lies: the one place that knows the names of folders and files.

RESULTS and MODELS in the environment move the results and the trained models elsewhere (a relative path counts from the
repository, so that a script means the same folder from wherever it is called).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from command_line import refuse

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / (os.environ.get("RESULTS") or "results")
MODELS = REPOSITORY / (os.environ.get("MODELS") or "models")
POISONS = REPOSITORY / "datasets" / "poisons"
WATERMARKS, BACKDOORS = (REPOSITORY / "datasets" / name for name in ("watermarks", "backdoors"))
CACHE = REPOSITORY / ".cache"  # of libraries, which would put it into the user's home
ANALYSIS = RESULTS / "analysis"
PUBLISHED = REPOSITORY / "results" / "published"

SUBTASK = (
    "fashion_mnist_3_4.1.0"  # the binary subtask, as the paper's authors spell it in poison files and result folders
)
SEED = 215  # the paper's; other seeds are named in the folder, so that they never overwrite these
EPSILON_BUDGET, DELTA = 1000.0, 1e-5
TARGET_CLASS, RETRAIN_EPOCHS = 4, 50  # of targeted attacks, the paper's; others are named in the folder

PAPERS_ATTACKS = ("label-flips", "slabs")  # of its indiscriminate sweep
ATTACK_RESULTS = "attack_results.csv"
ANALYSIS_RESULTS = "analysis_results.csv"
RUN = "run.json"
RUNS = "runs.csv"
PARAM_UPDATES = "param_updates"
DUMPED = re.compile(r"(\d{1,6})_(\d{1,9})_(clean|poison)_([01])\.csv", re.ASCII)  # epoch, batch, part, parameter
RECORDED = re.compile(rf"[1-9]\d{{0,5}}\.npz|{DUMPED.pattern}", re.ASCII)  # the files in PARAM_UPDATES
POISON = "poison.csv"
MAGNITUDES, ORIENTATIONS, PER_EXAMPLE = "mextracts_epoch.csv", "aextracts_epoch.csv", "sextracts_epoch.csv"


def seeded(name: str, seed: int) -> str:
    """`name`, with the seed behind it unless it is the paper's."""
    return name if seed == SEED else f"{name}_seed_{seed}"


def model_folder(dataset_name: str, model: str) -> Path:
    """Where a clean trained model lies: best.keras, final.keras, config.json, history.csv."""
    return MODELS / ("subtask" if dataset_name == SUBTASK else dataset_name) / model


def reached_suffix(epoch: int, accuracy: float, epsilon: float) -> str:
    """What stands behind a defended clean model's name: its best epoch, and test accuracy and epsilon there, e.g.

    _epoch_95_acc_0.7086_eps_inf.
    """
    return f"_epoch_{epoch}_acc_{accuracy:.4f}_eps_{epsilon}"


def targeted_file(attack: str, dataset_name: str, model: str, budget: str, target: int) -> Path:
    """The poison file of a target, against one clean model."""
    return POISONS / "targeted" / attack / dataset_name / model / budget / f"poisons_for_{target}.npz"


def run_file(results: Path) -> Path:
    """What says how a CSV file of results was made, and that it is whole: run.json, or attack_w_<target>.run.json in a
    folder of many targets.
    """
    return results.with_suffix(".run.json") if results.name.startswith("attack_w_") else results.with_name(RUN)


def null_folder() -> Path:
    return RESULTS / ANALYSIS.name / "nulls"


def null_file(settings: dict) -> Path:
    """What harmless duplicates look like in a gradient analysis, by draw and epoch (analyze_nulls.py)."""
    names = (settings[name] for name in ("dataset", "network", "start", "n_poison", "shaping"))
    return null_folder() / f"{'_'.join(map(str, names)).replace(':', '_')}.csv"


def described_folder() -> Path:
    return RESULTS / ANALYSIS.name / "datasets"


def described_file(dataset_name: str, network: str) -> Path:
    """What a data set looks like, and what a network makes of it (describe_data.py)."""
    return described_folder() / f"{dataset_name}_{network}.csv"


def crafting_file(attack: str) -> Path:
    """What the crafting of an attack's poison sets measured, a line each: bounds, losses, solver failures, seconds."""
    return RESULTS / "ipoisoning" / attack / "crafting.csv"


def crafting_files() -> list[Path]:
    """All of them that are there."""
    return sorted((RESULTS / "ipoisoning").glob("*/crafting.csv"))


def transfer_file() -> Path:
    """What came of every crafted poison file on every chosen shaping, by few seeds (transfer.py)."""
    return RESULTS / "matrix" / "transfer.csv"


def price_file() -> Path:
    """The share of poisons that it takes to hold a bad model still, by shaping (price.py)."""
    return RESULTS / "matrix" / "price.csv"


def cell_file(settings: dict) -> Path:
    """The CSV file of the result that has these settings: the one rule of where results lie.

    settings: of a poisoned training or of a target's trials, as run.json holds them; KeyError where they do not say
    enough. Refuses those that name a place elsewhere.
    """
    place = _place(settings)
    if ".." in place.parts or RESULTS not in place.parents:
        refuse(f"{place}: no folder below {RESULTS}, though settings of a result name it")
    return place


def _place(settings: dict) -> Path:
    if "mode" in settings:
        return _targeted_file(settings)
    if settings["dump"] is None:
        again = "_retrain" * (settings["start"] == "retrain")
        folder = RESULTS / "ipoisoning" / settings["attack"] / f"{_set_folder(settings)}{again}"
        return folder / settings["model"] / ATTACK_RESULTS
    return _analysis_folder(settings) / settings["model"] / ANALYSIS_RESULTS


def _analysis_folder(settings: dict) -> Path:
    """Where the gradient analyses of a poison set lie.

    A collision or an indiscriminate attack is trained from scratch unless its folder says _retrain; an insertion re-
    trains unless its folder says _scratch.
    """
    attack, dataset_name, poison_set = (settings[name] for name in ("attack", "dataset", "poison_set"))
    retrained = settings["start"] == "retrain"
    again = "_retrain" * retrained
    poison = settings["poison"]
    if attack == "collision" and poison_set == f"{poison.get('task')}_alpha_{poison.get('alpha')}":
        return ANALYSIS / attack / f"{poison['task']}{again}" / dataset_name / f"alpha_{poison['alpha']}"
    if attack == "insertion":
        return ANALYSIS / attack / dataset_name / (poison_set if retrained else f"{poison_set}_scratch")
    return ANALYSIS / "ipoisoning" / attack / f"{_set_folder(settings)}{again}"


def _set_folder(settings: dict) -> str:
    """The folder of a poison set: its name, with the data set in front where that is not in it and not the paper's."""
    dataset_name, poison_set = settings["dataset"], settings["poison_set"]
    return poison_set if dataset_name == SUBTASK or dataset_name in poison_set else f"{dataset_name}_{poison_set}"


def _targeted_file(settings: dict) -> Path:
    """The trials of a target, a line each, or the gradient analysis of one re-training."""
    epochs = settings["epochs"]
    shortened = f"_epochs_{epochs}" * (epochs != RETRAIN_EPOCHS)
    place = Path(settings["dataset"]) / seeded(settings["model"], settings["seed"])
    if settings["dump"] is not None:
        folder = ANALYSIS / "tpoisoning" / settings["attack"] / place
        return folder.with_name(folder.name + shortened) / ANALYSIS_RESULTS
    budget = targeted_budget(settings["budget"], settings["target_class"]) + shortened
    folder = RESULTS / "tpoisoning" / settings["attack"] / settings["mode"] / place / budget
    return folder / f"attack_w_{settings['target']}.csv"


def targeted_budget(budget: str, target_class: int) -> str:
    """A budget's name, with the wanted class behind it unless it is the paper's."""
    return budget + f"_class_{target_class}" * (target_class != TARGET_CLASS)


def runs_file(path: Path) -> Path:
    """The table of settings that a CSV file of results is folded into (`results.folded`)."""
    part, *rest = path.relative_to(RESULTS).parts
    depth = 2 if part == "tpoisoning" else 1  # an attack's modes apart
    return RESULTS.joinpath(part, *rest[:depth]) / RUNS


def folded_files(path: Path, seed: int) -> dict[str, Path]:
    """The tables that the files of a result are folded into, by the file's name.

    Those that are not named stay where they are.

    The CSV files of the paper's own sweeps stay: of its seed and attacks.
    """
    if path.name == ANALYSIS_RESULTS:
        return {PER_EXAMPLE: runs_file(path).with_name("examples.csv")}
    if path.name == ATTACK_RESULTS:
        papers = seed == SEED and runs_file(path).parent.name in PAPERS_ATTACKS
        return {} if papers else {ATTACK_RESULTS: runs_file(path).with_name("seeds.csv")}
    return {path.name: path.with_name("trials.csv")}


def gradients_figure(cell: Path) -> Path:
    """The figure that an analysed folder is a line of: with all alphas, patches or models of its set, or by itself."""
    cell, analysis = cell.resolve(), ANALYSIS.resolve()
    if analysis not in cell.parents:
        return cell / "gradients.png"
    attack = cell.relative_to(analysis).parts[0]
    if attack in ("collision", "insertion"):
        return cell.parent.parent / f"gradients_{cell.name}.png"
    return cell.parent / "gradients.png"


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
