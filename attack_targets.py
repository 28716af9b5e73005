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

import sys
import threading

import numpy as np

import datasets
from command_line import COUNT, INDEX, POSITIVE, SEED, Parser, refuse, run
from files import Lock
from models import baselines, device, memory
from models.kind import add_file_option
from models.shaping import UNDEFENDED, Shaping, shaping
from models.trainer import Training, check_shapings
from poisons import shafahi, together
from results import layout
from targeted import Attack, attack_target, first_success, record, success_of

TARGETS = 100  # the paper's
MODES = ("oneshot", "multipoison")


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
    firsts_together = options.stop_at_first and not options.record and len(victim.model.weights) == 2
    return Attack(
        dataset, training, chosen, options.learning_rate, victim, classes, budgets, options.epochs,
        targets, options.mode, stop,
        attack=options.attack, source=source, firsts_together=firsts_together,
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


if __name__ == "__main__":
    run(main)
