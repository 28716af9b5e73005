"""A targeted attack on one clean model: the trials of a target as replicas of one stack, the lines that they leave, and
the recorded gradients of one of them.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import sys
import threading
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

import datasets
from command_line import refuse
from files import write_csv
from models import baselines
from models.shaping import UNDEFENDED, Shaping
from models.trainer import Cell, Trainer, Training
from poisons import poison_set, shafahi, together
from results import cells, layout, param_updates

HEADER = (
    "target", "poison", "success", "base_prob_before", "target_prob_before", "base_prob_after", "target_prob_after",
    "epoch", "test_acc", "epsilon", "moved", "share_of_way", "relative_feature_distance",
)  # fmt: skip
ANALYSIS_HEADER = ("epoch", "base_class", "target_class", "target", "n_poison", "baseline_acc", "test_acc", "success")
# What the poison looks like, a feature a line, beside the first of the base rows
POISON_HEADER = ("base_row", "poison", "target")


@dataclass
class Attack:
    """An attack on one clean model: all that its targets share.

    attack: its name; victim: the model that is attacked; source: the one that poisons are crafted against, by default
    the same. classes are the targets' own and the wanted one; budgets: what the attacker may do, one or several;
    epochs: of re-training, one number or, for one budget, several; targets: rows of the test set; most: how many trials
    a stack may have; firsts_together: whether the targets' first trials run as one stack. What is known of trials 0 and
    1: controls, by the number of places that poisons take in an epoch's order, and firsts, by the target, too.
    """

    dataset: datasets.Dataset
    training: Training
    shaping: Shaping
    learning_rate: float | None
    victim: baselines.Baseline
    classes: tuple[int, int]
    budgets: list[shafahi.Budget]
    epochs: list[int]
    targets: list[int]
    mode: str
    stop_at_first: bool
    most: int | None = None
    attack: str = shafahi.NAME
    source: baselines.Baseline | None = None
    firsts_together: bool = False
    controls: dict = dataclasses.field(default_factory=dict)
    firsts: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.source, self.one_at_a_time = self.source or self.victim, threading.Lock()
        self.one_for_all = threading.Lock()
        self.crafter: shafahi.Crafter | together.Together
        if self.attack == shafahi.NAME:
            self.crafter = shafahi.Crafter(self.source.model)
        else:
            against = self.shaping if self.source is self.victim else UNDEFENDED
            self.crafter = together.Together(
                self.attack, self.source.model, against, self.classes[1], self.training.seed
            )

    def poisons(self, target: int) -> list[poison_set.PoisonSet]:
        """The target's poisons of each budget, crafted where they are missing."""
        with self.one_at_a_time:
            files = shafahi.poison_files(
                self.crafter, self.dataset, self.training.network, self.source, target, self.classes, self.budgets
            )
        return [poison_set.load(path, self.dataset) for path, _ in files]

    def named(self, budget: shafahi.Budget) -> str:
        """A budget as folders of results spell it: poisons of another model are told from the victim's own."""
        return budget.name + shafahi.TRANSFERRED * (self.source is not self.victim)

    def probabilities(self, target: int) -> np.ndarray:
        """The softmax outputs of the clean model for the target, float64 [classes]."""
        return self._all_probabilities[target]

    @functools.cached_property
    def _all_probabilities(self) -> np.ndarray:
        """Of all test rows, so that no target's last digits depend on the others."""
        with self.one_at_a_time:
            return baselines.probabilities(self.victim.model, self.dataset.x_test)

    def known(self, engine, setting, target: int, poisons: int) -> dict:
        """The first trials of a target by each number of epochs, of trainings that targets share: trial 0, and trial 1
        with `firsts_together`.

        engine: a stack that may run them; setting: a `models.trials.Setting`; poisons: as many as the target has.
        """
        from models import trials

        places, number = min(1, poisons) if self.mode == "oneshot" else poisons, self.targets.index(target)
        whole = dataclasses.replace(setting, epochs=tuple(self.epochs))
        size = len(engine.shapings) // trials.TOGETHER * trials.TOGETHER
        with self.one_for_all:
            if places not in self.controls:
                self.controls[places] = trials.control(engine, whole, self.targets, places)
            if self.firsts_together and poisons and size and (target, places) not in self.firsts:
                self._run_firsts(engine, whole, self.targets[number // size * size :][:size], places)
        control, firsts = self.controls[places], self.firsts.get((target, places))
        return {
            epochs: [control.trial(number, self.classes[1], epochs), *([firsts[epochs]] if firsts else [])]
            for epochs in setting.epochs
        }

    def _run_firsts(self, engine, setting, targets: list[int], places: int) -> None:
        """Run the first trials of those of the targets that are not finished and whose poisons take so many places."""
        from models import trials

        wanted = {target: self.wanted(target) for target in targets}
        sets = {target: cells_of[0][1] for target, cells_of in wanted.items()}
        todo = [target for target, cells_of in wanted.items() if not all(finished(cell) for cell, _ in cells_of)]
        these = [one for one in todo if len(sets[one].y) == places or self.mode == "oneshot" and len(sets[one].y)]
        x, y = (np.concatenate([getattr(sets[target], name)[:1] for target in these]) for name in "xy")
        found = trials.firsts(engine, setting, x, y, places, self.dataset.x_test[these], self.classes[1])
        self.firsts.update(zip(((target, places) for target in these), found))

    def wanted(self, target: int) -> list[tuple[Cell, poison_set.PoisonSet]]:
        """What is asked for of a target, and the poisons of each, in the order of the budgets or of `epochs`."""
        asked = product(zip(self.budgets, self.poisons(target)), self.epochs)
        return [(self.cell(target, poisons, budget, epochs), poisons) for (budget, poisons), epochs in asked]

    def cell(
        self,
        target: int,
        poisons: poison_set.PoisonSet,
        budget: shafahi.Budget,
        epochs: int,
        recorded_trial: int | None = None,
    ) -> Cell:
        """The trials of a target, or the one re-training whose gradients are recorded: where they go and what they are
        checked by.
        """
        training = dataclasses.replace(self.training, epochs=epochs)
        rate = training.learning_rate(self.shaping, self.learning_rate)
        settings = {
            **training.settings(self.shaping, rate), "attack": self.attack, "mode": self.mode, "target": target,
            "base_class": self.classes[0], "target_class": self.classes[1], "budget": self.named(budget),
            "poisons": budget.poisons,
            "clean_rows": poisons.clean_rows, "poison_sha256": poisons.file_sha256, "model": self.victim.name,
            "model_sha256": self.victim.sha256, "baseline_acc": self.victim.accuracy,
            "stop_at_first": self.stop_at_first,
        }  # fmt: skip
        if recorded_trial is not None:
            settings["trial"] = recorded_trial
        settings["dump"] = None if recorded_trial is None else "npz"
        return Cell(self.shaping, rate, self.victim.name, settings)


def finished(cell: Cell) -> bool:
    """Whether a target's result is there; where every trial was run, that answers a request for the first success."""
    ways = (cell.settings, {**cell.settings, "stop_at_first": False})
    return any(cells.finished(cell.path, settings) for settings in ways)


def attack_target(attack: Attack, target: int, mine: threading.local) -> tuple[list[list[dict]], float]:
    """Run a target's trials, unless they are finished; those of all budgets as replicas of one stack.

    Returns the lines of each of its CSV files, all text, in the order of the budgets or of `epochs`, and the seconds it
    took: of the first of the targets whose first trials run together, those of all these trials and their poisons.

    mine: keeps the calling thread's stack from target to target.
    """
    wanted = attack.wanted(target)
    todo = [(cell, poisons) for cell, poisons in wanted if not finished(cell)]
    for cell, _ in todo:
        cells.check_free(cell.path, cell.settings)
    began = time.monotonic()
    if todo:
        ended = run_trials(attack, target, mine, todo)
        seconds = (time.monotonic() - began) / len(todo)
        for (cell, poisons), its_trials in zip(todo, ended):
            lines = result_lines(attack, cell, poisons, its_trials)
            cells.write(cell.path, HEADER, lines, cell.settings, {"wall_seconds": round(seconds, 3)})
    return [lines_of(cell.path) for cell, _ in wanted], time.monotonic() - began if todo else 0.0


def run_trials(attack: Attack, target: int, mine: threading.local, todo: list[tuple]) -> list[list]:
    """The trials (`models.trials.Trial`) of each of the cells and poison sets in `todo`, all run together."""
    from models import trials

    sets = [poisons for _, poisons in (todo if len(attack.budgets) > 1 else todo[:1])]
    sizes, epochs = [len(poisons.y) for poisons in sets], [cell.settings["epochs"] for cell, _ in todo]
    x, y = (np.concatenate([getattr(poisons, name) for poisons in sets]) for name in "xy")
    if getattr(mine, "attack", None) is not attack:
        replicas = min(trials.GROUPS[-1], attack.most or trials.GROUPS[-1])
        mine.engine = trials.stack.Stack(
            attack.victim.model, [attack.shaping] * replicas, attack.training.optimizer, todo[0][0].learning_rate,
            attack.training.seed, trusted=attack.dataset.held_out,
        )  # fmt: skip
        mine.attack = attack
    training = attack.training
    setting = trials.Setting(
        attack.dataset, attack.mode, training.batch_size, tuple(dict.fromkeys(epochs)), training.seed, attack.most
    )
    wanted = attack.dataset.x_test[target], attack.classes[1]
    known = attack.known(mine.engine, setting, target, len(y))
    ended = trials.run(mine.engine, setting, x, y, *wanted, len(y), attack.stop_at_first, known)
    if len(sets) == 1:
        return [ended[length] for length in epochs]
    none, *each = ended[epochs[0]]  # every trial was run: several budgets do not stop at a first success
    firsts = np.cumsum([0, *sizes])
    return [
        [none, *(dataclasses.replace(trial, poison=trial.poison - first) for trial in each[first : first + size])]
        for first, size in zip(firsts.tolist(), sizes)
    ]


def result_lines(attack: Attack, cell: Cell, poisons: poison_set.PoisonSet, ended: list) -> list[list]:
    """The lines of a target's CSV file, by HEADER."""
    target, batch_size = cell.settings["target"], attack.training.batch_size
    before, said = attack.probabilities(target), poisons.settings
    rows = len(attack.dataset.y_train) + (1 if attack.mode == "oneshot" else len(poisons.y))
    lines = []
    for trial in ended:
        probabilities = [
            float(f"{model[label]:.8g}") for model in (before, trial.probabilities) for label in attack.classes
        ]
        spent = cell.epsilon(rows // batch_size * batch_size, trial.epoch)  # what is left over joins the last batch
        dose = [np.nan] * 3
        if trial.poison and "moved" in said:  # of the farthest poison of several, which come in order of distance
            place = trial.poison - 1
            moved, feature_distance = said["moved"][place], said["distances"][place]
            dose = [moved, moved / said["ways"][place], feature_distance / said["base_distances"][place]]
        lines.append(
            [target, trial.poison, trial.success, *probabilities, trial.epoch, round(trial.test_acc, 6), spent]
            + [float(f"{value:.6g}") for value in dose]
        )
    return lines


def lines_of(path: Path) -> list[dict]:
    """The lines of a target's finished trials, all text."""
    return list(csv.DictReader(io.StringIO(cells.find(path).text)))


def success_of(lines: list[dict]) -> dict | None:
    """The first line of a trial with poisons that succeeded."""
    return next((line for line in lines if line["poison"] != "0" and line["success"] == "True"), None)


def first_success(attack: Attack) -> tuple[int, int]:
    """The first target that the undefended oneshot attack hits, and the number of the poison.

    Runs what is not finished, and refuses when none is hit.
    """
    mine = threading.local()
    for target in attack.targets:
        hit = success_of(attack_target(attack, target, mine)[0][0])
        if hit:
            return target, int(hit["poison"])
    refuse(
        f"--record: the undefended attack succeeds on none of {len(attack.targets)} targets; give more with --targets"
        " or --poisons"
    )


def record(attack: Attack, target: int, poison: int) -> None:
    """Re-train a clean model on one of the target's poisons, over all epochs, and keep the gradients of clean and
    poison rows.
    """
    from models import trials

    budget = attack.budgets[0]
    poisons = attack.poisons(target)[0]
    poisons = dataclasses.replace(poisons, x=poisons.x[poison - 1 : poison], y=poisons.y[poison - 1 : poison])
    if not len(poisons.y):
        refuse(
            f"--record: {attack.victim.name} has no poison {poison} of target {target} within the feature"
            " distance; give another --target"
        )
    cell = attack.cell(target, poisons, budget, attack.epochs[0], poison)
    folder = cell.path.parent
    base = attack.dataset.x_train[shafahi.base_rows(attack.dataset.y_train, attack.classes[1], 1)[0]]
    write_csv(
        folder / layout.POISON,
        POISON_HEADER,
        zip(*(row.tolist() for row in (base, poisons.x[0], attack.dataset.x_test[target]))),
    )
    if cells.finished(cell.path, cell.settings):
        print(f"{folder}: finished before", file=sys.stderr)
        return
    cells.check_free(cell.path, cell.settings)
    cells.begin(folder)
    trainer = Trainer(attack.training, attack.dataset, attack.victim.model)
    engine = trainer.engine([cell])
    rows = trials.rows_of(trials.Setting(attack.dataset, "oneshot", 0, (), 0), poisons.x, poisons.y, range(1, 2))
    lines = []
    for epoch, accuracies, gradients in trainer.epochs(
        engine, rows, f"target {target}, {attack.victim.name}", record=True, short_last=False
    ):
        success = engine.probabilities(attack.dataset.x_test[target].reshape(1, -1))[0, 0].argmax() == attack.classes[1]
        lines.append(
            [epoch, *attack.classes, target, 1, attack.victim.accuracy, round(float(accuracies[0]), 6), bool(success)]
        )
        param_updates.write_epoch(folder / layout.PARAM_UPDATES, epoch, gradients, 0)
    cells.check_recorded(folder, len(lines))
    cells.write(cell.path, ANALYSIS_HEADER, lines, cell.settings, {})
