#!/usr/bin/env python3
"""Targeted clean-label poisoning: re-train a clean model on poisons that are to make it take a target for another class
(section 6 of the paper).

    python3 attack_targets.py --network lr --mode oneshot --shaping 4:0.0025 --stop-at-first
        100 targets, each attacked with 1 of up to 100 poisons at a time -> results/tpoisoning/.../attack_w_<target>.csv
    python3 attack_targets.py --network lr --mode multipoison --task 3 --tasks 10
        every tenth target, from the third on, with 1, 2, ... 100 poisons together
    python3 attack_targets.py --network lr --mode oneshot --shaping undefended 4:0.025 --record
        gradients of the re-training on which the undefended attack first succeeds
        -> results/analysis/tpoisoning/.../param_updates/

All trials of a target are replicas of one stack. Targets are test rows of the base class that the undefended clean
model classifies correctly; models and poisons are made where they are missing. What is finished is not run again, and a
target that another process is at is left to it.
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
from command_line import COUNT, INDEX, POSITIVE, SEED, Parser, refuse, run
from files import Lock, write_csv
from models import baselines, device, memory
from models.kind import add_file_option
from models.shaping import UNDEFENDED, Shaping, shaping
from models.trainer import Cell, Trainer, Training, check_shapings
from poisons import poison_set, shafahi, together
from results import cells, layout, param_updates

TARGETS = 100  # the paper's
MODES = ("oneshot", "multipoison")
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
    a stack may have; together: whether the targets' first trials run as one stack; controls, firsts: what is known of
    trials 0 and 1, by the number of places that poisons take in an epoch's order.
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
    together: bool = False
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
        where it is one of `together`.

        engine: a stack that may run them; setting: a `models.trials.Setting`; poisons: as many as the target has.
        """
        from models import trials

        places, number = min(1, poisons) if self.mode == "oneshot" else poisons, self.targets.index(target)
        whole = dataclasses.replace(setting, epochs=tuple(self.epochs))
        size = len(engine.shapings) // trials.TOGETHER * trials.TOGETHER
        with self.one_for_all:
            if places not in self.controls:
                self.controls[places] = trials.control(engine, whole, self.targets, places)
            if self.together and poisons and size and (target, places) not in self.firsts:
                self._run_firsts(engine, whole, self.targets[number // size * size :][:size], places)
        control, firsts = self.controls[places], self.firsts.get((target, places))
        return {
            epochs: [control.trial(number, self.classes[1], epochs), *([firsts[epochs]] if firsts else [])]
            for epochs in setting.epochs
        }

    def _run_firsts(self, engine, setting, targets: list[int], places: int) -> None:
        """Run the first trials of those of the targets whose poisons take so many places."""
        from models import trials

        sets = {target: self.poisons(target)[0] for target in targets}
        these = [one for one in targets if len(sets[one].y) == places or self.mode == "oneshot" and len(sets[one].y)]
        x, y = (np.concatenate([getattr(sets[target], name)[:1] for target in these]) for name in "xy")
        found = trials.firsts(engine, setting, x, y, places, self.dataset.x_test[these], self.classes[1])
        self.firsts.update(zip(((target, places) for target in these), found))

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


def main() -> None:
    options = parse()
    dataset = datasets.load(options.dataset)
    Training.published(dataset.name, options.network)  # refuses a network that the paper does not train on the data set
    check_shapings(options.shaping, options.network, dataset)
    shafahi.check(options, dataset)
    there = int((dataset.y_test == options.base_class).sum())
    if not options.target and options.targets > there:
        refuse(
            f"--targets {options.targets}: there are {there} test rows of class {options.base_class}; ask for {there}"
            " at most"
        )
    if options.check:
        return
    workers = device.start(options.gpu, -(-(len(options.target) or options.targets) // options.tasks), options.cores)
    targets = options.target or choose_targets(options, dataset)
    if options.list:
        print(*targets[options.task - 1 :: options.tasks], sep="\n")
        return
    if options.record:
        attacks = [
            attack_on(options, dataset, chosen, targets) for chosen in dict.fromkeys([UNDEFENDED, *options.shaping])
        ]
        target, poison = first_success(attacks[0])
        for attack in attacks:
            if attack.shaping in options.shaping:
                record(attack, target, poison)
        return
    for chosen in options.shaping:
        attack = attack_on(options, dataset, chosen, targets[options.task - 1 :: options.tasks])
        attack.most = memory.replicas(
            options.memory, workers, options.network, dataset, options.poisons * len(attack.budgets),
            attack.training.batch_size, shapings=[chosen],
        )  # fmt: skip
        attack_all(attack, workers)


def parse():
    parser = Parser(__doc__)
    shafahi.add_victim_options(parser)
    parser.add_argument(
        "--mode", required=True, choices=MODES, help="one poison at a time, or the k nearest together for k = 1, 2, ..."
    )
    parser.add_argument(
        "--shaping",
        type=shaping,
        nargs="+",
        default=[UNDEFENDED],
        help="attacked models, as train.py reads it (default: undefended)",
    )
    add_file_option(parser)
    parser.add_argument(
        "--attack",
        choices=(shafahi.NAME, *together.NAMES),
        default=shafahi.NAME,
        help="how poisons are crafted: each by itself, or together, with a --radius (default: %(default)s)",
    )
    parser.add_argument(
        "--transfer", action="store_true", help="craft against the undefended clean model instead of the attacked one"
    )
    parser.add_argument("--targets", type=COUNT, default=TARGETS, help="how many (default: %(default)s)")
    parser.add_argument("--target", type=INDEX, nargs="+", default=[], help="these rows of the test set instead")
    parser.add_argument(
        "--epochs",
        type=COUNT,
        nargs="+",
        default=[layout.RETRAIN_EPOCHS],
        help=f"of re-training; several: results for each, of the same trainings (default: {layout.RETRAIN_EPOCHS})",
    )
    parser.add_argument(
        "--stop-at-first",
        action="store_true",
        help="end a target at its first success, as the paper does (default: run every trial)",
    )
    parser.add_argument(
        "--task", type=COUNT, default=1, help="which part of the targets to attack (default: %(default)s)"
    )
    parser.add_argument(
        "--tasks", type=COUNT, default=1, help="into how many parts they are dealt out (default: %(default)s)"
    )
    parser.add_argument("--list", action="store_true", help="print the targets, and attack none")
    parser.add_argument("--check", action="store_true", help="check all other options, and do nothing")
    parser.add_argument("--record", action="store_true", help="record the gradients of one re-training instead")
    parser.add_argument("--cores", type=COUNT, help="CPU cores to use (default: all that the process may)")
    parser.add_argument(
        "--memory",
        type=POSITIVE,
        metavar="GIB",
        help="stay below so much, with fewer trials at once (default: 1/4 of the machine's, 3/4 of a Slurm job's)",
    )
    parser.add_argument(
        "--seed", type=SEED, default=layout.SEED, help="of order and noise of the re-training (default: %(default)s)"
    )
    options = parser.parse_args()
    if options.task > options.tasks:
        refuse(
            f"--task {options.task}: there are {options.tasks} tasks; choose one of 1 to {options.tasks}, or raise"
            " --tasks"
        )
    if options.record and options.mode != "oneshot":
        refuse(f"--record: the recorded re-training has one poison; use --mode oneshot, not {options.mode}")
    if options.attack != shafahi.NAME and not np.isfinite(options.radius).all():
        refuse(f"--attack {options.attack}: moves poisons within an L2 distance; give one with --radius")
    if options.record and (options.attack != shafahi.NAME or options.transfer):
        refuse("--record: the recorded re-training has a poison of its own model; leave --attack and --transfer out")
    if len(set(options.radius)) > 1 and (options.mode != "oneshot" or options.stop_at_first or options.record):
        refuse(
            "--radius: several doses are trials of one poison each, all run; give --mode oneshot, and leave"
            " --stop-at-first and --record out"
        )
    options.epochs = list(dict.fromkeys(options.epochs))
    if len(options.epochs) > 1 and (len(set(options.radius)) > 1 or options.record):
        refuse("--epochs: several are of one dose, and not of a recording; give one, or one --radius without --record")
    options.target, options.shaping = list(dict.fromkeys(options.target)), list(dict.fromkeys(options.shaping))
    return options


def attack_on(options, dataset: datasets.Dataset, chosen: Shaping, targets: list[int]) -> Attack:
    """The attack on the clean model of one shaping, which is trained where it is missing."""
    training = Training.published(dataset.name, options.network, max(options.epochs), seed=options.seed)
    victim = baselines.baseline(training, dataset, chosen, options.learning_rate)
    classes = (options.base_class, options.target_class)
    stop = options.stop_at_first or options.record
    budgets = shafahi.budgets_of(options)
    source = baselines.baseline(training, dataset) if options.transfer and chosen.defended else None
    # with hidden layers a target's last bits would depend on its place among the others, and less is gained
    together = options.stop_at_first and not options.record and len(victim.model.weights) == 2
    return Attack(
        dataset, training, chosen, options.learning_rate, victim, classes, budgets, options.epochs,
        targets, options.mode, stop,
        attack=options.attack, source=source, together=together,
    )  # fmt: skip


def choose_targets(options, dataset: datasets.Dataset) -> list[int]:
    """The first test rows of the base class that the paper's undefended clean model of the network classifies
    correctly: the same for all shapings.
    """
    training = Training.published(dataset.name, options.network)
    right = baselines.baseline(training, dataset).hits(dataset.x_test, dataset.y_test)[0]
    found = np.flatnonzero(right & (dataset.y_test == options.base_class))
    if len(found) < options.targets:
        refuse(
            f"--targets {options.targets}: {len(found)} test rows of class {options.base_class} are classified"
            f" correctly; ask for {len(found)} at most"
        )
    return found[: options.targets].tolist()


def attack_all(attack: Attack, workers: int) -> None:
    """Attack the targets, each worker one at a time with a stack of its own."""
    targets = attack.targets
    if not targets:  # more tasks than targets
        return
    poisons, mine = attack.poisons(targets[0])[0], threading.local()
    folders = [attack.cell(targets[0], poisons, attack.budgets[0], epochs).path.parent for epochs in attack.epochs]
    locks = [Lock(folder / "attack_w.lock") for folder in folders]
    label = f"{attack.mode}, {attack.victim.name}"

    def work(number: int, target: int) -> None:
        place = f"{label}: target {target} ({number} of {len(targets)})"
        mine_alone = all(lock.take(target) for lock in locks)
        lines, seconds = attack_target(attack, target, mine) if mine_alone else ([], 0.0)
        for lock in locks:
            lock.release(target)
        if not mine_alone:
            print(f"{place}: another process is at it, left to that one", file=sys.stderr, flush=True)
            return
        hit = success_of(lines[0])
        which = "poison" if attack.mode == "oneshot" else "poisons 1 to"
        what = f"{which} {hit['poison']} succeeded, epoch {hit['epoch']}" if hit else "no success"
        if len(attack.budgets) > 1:
            hits = [line for dose in lines for line in dose if line["poison"] != "0" and line["success"] == "True"]
            what = f"{len(attack.budgets)} doses, {len(hits)} poisons succeeded"
        count = sum(len(dose) - 1 for dose in lines[: len(attack.budgets)])
        took = f"{seconds:.1f} s" if seconds else "finished before"
        print(f"{place}: {what}, {count} trials, {took}", file=sys.stderr, flush=True)

    device.side_by_side(workers, work, enumerate(targets, 1))


def attack_target(attack: Attack, target: int, mine: threading.local) -> tuple[list[list[dict]], float]:
    """Run a target's trials, unless they are finished; those of all budgets as replicas of one stack.

    Returns the lines of each of its CSV files, all text, in the order of the budgets or of `epochs`, and the seconds it
    took.

    mine: keeps the calling thread's stack from target to target.
    """
    found, todo = [], []
    for (budget, poisons), epochs in product(zip(attack.budgets, attack.poisons(target)), attack.epochs):
        cell = attack.cell(target, poisons, budget, epochs)
        found.append(cell.path)
        # Where every trial was run, that answers a request for the first success, too
        whole = {**cell.settings, "stop_at_first": False}
        if not cells.finished(cell.path, cell.settings) and not cells.finished(cell.path, whole):
            cells.check_free(cell.path, cell.settings)
            todo.append((cell, poisons))
    began = time.monotonic()
    if todo:
        ended = run_trials(attack, target, mine, todo)
        seconds = (time.monotonic() - began) / len(todo)
        for (cell, poisons), its_trials in zip(todo, ended):
            lines = result_lines(attack, cell, poisons, its_trials)
            cells.write(cell.path, HEADER, lines, cell.settings, {"wall_seconds": round(seconds, 3)})
    return [lines_of(path) for path in found], time.monotonic() - began if todo else 0.0


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


if __name__ == "__main__":
    run(main)
