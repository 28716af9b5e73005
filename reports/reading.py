"""Reading a tree of results: every finished cell, and every file that is left out, with the reason.

Left out are results that are unfinished or damaged, that lie under a model's name that their settings do not give, that lack what every
result has, and files that nothing of this suite writes. Numbers that stand side by side are of one set of versions: those of TensorFlow and
NumPy that most cells were made with (a last digit may depend on them); the others are left out, too.
"""

from __future__ import annotations

import collections
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from results import cells, layout, param_updates

KNOWN = re.compile(
    r"(attack_results|analysis_results|[mas]extracts_epoch|poison)\.csv|run\.json|crafting\.json|.*\.png|attack_w_\d+(\.csv|\.run\.json)|attack_w\.lock"
)
TRIALS = "attack_w"
COLUMNS = {
    layout.ATTACK_RESULTS: ("epoch", "baseline_acc", "test_acc"),
    layout.ANALYSIS_RESULTS: ("epoch", "baseline_acc", "test_acc"),
    TRIALS: ("target", "poison", "success", "epoch"),
}
SETTINGS = ("network", "batch_size", "epochs", "learning_rate", "seed", "engine", "clip_norm", "noise_multiplier", "attack", "baseline_acc")
MORE_SETTINGS = {
    layout.ATTACK_RESULTS: ("poison_set", "n_poison"),
    layout.ANALYSIS_RESULTS: (),
    TRIALS: ("model", "mode", "target", "budget", "dataset_name"),
}


INSERTION_COLUMNS = ("baseline_backdoor_acc", "backdoor_acc", "backdoor_acc_other_classes")
# Folders below which results lie, and how many names stand behind each in the path of a CSV file
PLACES = {
    ("ipoisoning",): 4, ("tpoisoning",): 6, ("analysis", "collision"): 5, ("analysis", "insertion"): 4, ("analysis", "ipoisoning"): 4,
    ("analysis", "tpoisoning"): 4,
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A finished training (or a target's trials): its CSV file, its settings and its lines, all text; of an analysis what was recorded, too.

    means: float64 [epochs, (clean norm, poison norm, cosine)] of the mean gradients.
    examples: float64 [epochs, (clean norms, poison norms, poison cosines), quantiles] of the single examples' gradients; None in the paper's layout.
    """

    path: Path
    settings: dict
    lines: list[dict]
    versions: tuple
    means: np.ndarray | None = None
    examples: np.ndarray | None = None

    @property
    def source(self) -> str:
        """The CSV file, from the results folder."""
        return str(self.path.relative_to(layout.RESULTS))


@dataclass
class Tree:
    """What a results folder holds; left_out: files from the results folder, with the reason."""

    attacks: list[Cell] = field(default_factory=list)
    analyses: list[Cell] = field(default_factory=list)
    trials: list[Cell] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    versions: tuple = ()

    def leave_out(self, path: Path, why: str) -> None:
        self.left_out.append((str(path.relative_to(layout.RESULTS)), why))


def read_tree() -> Tree:
    """Read every result below the results folder."""
    tree = Tree()
    kinds = {layout.ATTACK_RESULTS: tree.attacks, layout.ANALYSIS_RESULTS: tree.analyses, TRIALS: tree.trials}
    for part in ("ipoisoning", "analysis", "tpoisoning"):
        for path in sorted((layout.RESULTS / part).rglob("*")):
            if path.is_dir() or layout.PARAM_UPDATES in path.parts:
                continue
            if path.name.endswith(".writing"):
                tree.leave_out(path, "half written, by a run that is at work or was killed")
            elif not KNOWN.fullmatch(path.name):
                tree.leave_out(path, "nothing of this suite is called so")
            elif path.suffix == ".csv" and (kind := TRIALS if path.name.startswith(TRIALS) else path.name) in kinds:
                try:
                    kinds[kind].append(read_cell(path, kind))
                except cells.Unfinished as error:
                    tree.leave_out(path, str(error))
    one_set_of_versions(tree)
    return tree


def read_cell(path: Path, kind: str) -> Cell:
    """A cell, checked; raises `cells.Unfinished` with what is wrong with it."""
    run = cells.whole(path)
    settings, lines = run["settings"], cells.read(path)
    missing = [name for name in (*SETTINGS, *MORE_SETTINGS[kind]) if name not in settings]
    if missing:
        raise cells.Unfinished(f"its {layout.run_file(path).name} does not say: {', '.join(missing)}")
    parts = path.relative_to(layout.RESULTS).parts
    if not any(parts[: len(place)] == place and len(parts) == len(place) + depth for place, depth in PLACES.items()):
        raise cells.Unfinished("misplaced: no result of this suite lies here")
    if settings["attack"] not in parts:
        raise cells.Unfinished(f"misplaced: by its settings it is of the attack {settings['attack']}")
    columns = COLUMNS[kind] + (INSERTION_COLUMNS if parts[:2] == ("analysis", "insertion") else ())
    lacking = [name for name in columns if not lines or name not in lines[0]]
    if lacking:
        raise cells.Unfinished(f"it has no column {', '.join(lacking)}" if lines else "it has no lines")
    numbers = [line[name] for line in lines for name in columns if name != "success"]
    if not all(is_number(value) for value in numbers):
        raise cells.Unfinished("it holds something else than numbers")
    try:
        found, expected = model_names(path, settings, kind)
    except (TypeError, ValueError):
        raise cells.Unfinished(f"its {layout.run_file(path).name} holds settings that are not numbers") from None
    if not f"{found}_".startswith(f"{expected}_"):
        raise cells.Unfinished(f"unknown model name {found}: by its settings it is {expected}")
    versions = run.get("versions") if isinstance(run.get("versions"), dict) else {}
    recorded = read_recorded(path.parent, len(lines)) if kind == layout.ANALYSIS_RESULTS else (None, None)
    return Cell(path, settings, lines, tuple((name, versions.get(name, "unknown")) for name in ("tensorflow", "numpy")), *recorded)


def read_recorded(folder: Path, epochs: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The means and, where there are, the quantiles over single examples of an analysis of so many epochs; raises `cells.Unfinished`."""
    if not param_updates.reduced(folder):
        raise cells.Unfinished("its gradients are not reduced yet: python3 analyze_gradients.py")
    try:
        means = param_updates.read_extracts(folder)
        examples = param_updates.read_examples(folder)
    except ValueError:
        raise cells.Unfinished("damaged: its extracts (mextracts, aextracts, sextracts) hold something else than numbers") from None
    if means.shape != (epochs, 3) or (examples is not None and len(examples) != epochs):
        raise cells.Unfinished(f"damaged: its extracts are not of its {epochs} epochs")
    return means, examples


def model_names(path: Path, settings: dict, kind: str) -> tuple[str, str]:
    """The model's name in a cell's path, and how it must begin by the settings."""
    folder = path.parent.parent if kind == TRIALS else path.parent
    if "model" in settings:  # a re-training is named after the clean model that it starts from
        return folder.name, settings["model"]
    parts = ("network", "batch_size", "epochs", "learning_rate", "seed", "clip_norm", "noise_multiplier", "engine")
    return folder.name, layout.model_name(*(settings[name] for name in parts))


def is_number(text: str | None) -> bool:
    try:
        return not math.isinf(float(text))  # NaN: the training diverged
    except (TypeError, ValueError):
        return False


def one_set_of_versions(tree: Tree) -> None:
    """Leave out what was made with other versions than most cells."""
    kinds = (tree.attacks, tree.analyses, tree.trials)
    counts = collections.Counter(cell.versions for kind in kinds for cell in kind)
    if not counts:
        return
    tree.versions = max(counts, key=lambda versions: (counts[versions], versions))
    for kind in kinds:
        for cell in kind:
            if cell.versions != tree.versions:
                tree.leave_out(cell.path, f"made with {shown(cell.versions)}, unlike most results ({shown(tree.versions)})")
        kind[:] = [cell for cell in kind if cell.versions == tree.versions]


def shown(versions: tuple) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions)
