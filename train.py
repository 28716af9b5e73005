#!/usr/bin/env python3
"""Train clean baselines, and train on poisoned data, undefended and under DP-SGD.

    python3 train.py --dataset subtask --network lr
        a clean baseline -> models/subtask/vanilla_lr_300_40_0.01/ (best.keras, final.keras, config.json, history.csv)
    python3 train.py --dataset subtask --network lr --clip-norm 1 4 --noise-std 0 0.1
        clean models under DP-SGD, one for each pair of the two lists
    python3 train.py --dataset purchases --network lr --shaping undefended 0.1 4 4:0.0025
        the same by a list of shapings: undefended, a clip norm, or a clip norm and a noise multiplier
    python3 train.py --dataset subtask --network lr --missing
        the names of those that are not there yet
    python3 train.py --dataset subtask --network lr --poison FILE ... --undefended --clip-norm 0.1 4
        a training for each poison file and shaping -> results/ipoisoning/.../attack_results.csv
    python3 train.py --dataset fashion_mnist --network badnet --poison FILE ... --record --retrain --epochs 40
        the same, recording gradients -> results/analysis/.../param_updates/ and analysis_results.csv; with --retrain
        each training starts from the clean baseline

All shapings of one poison file train at once, as replicas of one stack; so do watermarks and backdoors of one number of
rows. A network with convolutions trains in stacks of one. What is finished is not trained again.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import datasets
from command_line import COUNT, INDEX, NOT_NEGATIVE, POSITIVE, SEED, Parser, refuse, run
from files import Lock
from models import baselines, checkpoints, device, memory, protocols
from models.kind import add_file_option
from models.protocols import add_network_option
from models.shaping import UNDEFENDED, Shaping, shaping
from models.trainer import FEW, Cell, Trainer, Training, check_batch_size, check_shapings, stacks, training_accuracies
from poisons import attacks, poison_set
from poisons.poison_set import PoisonSet
from results import cells, layout, param_updates

ATTACK_HEADER = ("epoch", "n_poison", "baseline_acc", "test_acc", "train_acc_clean", "train_acc_poison", "epsilon")
HELD_OUT = ("held_out_acc", "held_out_acc_one_half", "held_out_acc_other_half")  # of trainings on clean rows alone
ANALYSIS_HEADER = ("epoch", "n_poison", "baseline_acc", "test_acc")
NO_POISON = Path(poison_set.NONE)


@dataclass(frozen=True)
class Poisoning:
    """What all poisoned trainings of one call share besides `Training`.

    How gradients are recorded is told by dump: npz or csv, None: not at all.

    most: how many replicas a stack may have; locks: keeps two processes from the same stack. strongest: the pairs of a
    shaping's text and a poison file's SHA-256 that are trained; None: all. keep: the epoch whose models are kept, best
    or final; None: none are.
    """

    shapings: list[Shaping]
    learning_rate: float | None
    baseline: baselines.Baseline
    retrain: bool
    dump: str | None
    most: int
    locks: Lock
    strongest: set[tuple[str, str]] | None = None
    keep: str | None = None


def main() -> None:
    options = parse()
    dataset = datasets.load(options.dataset)
    training = Training.published(
        dataset.name, options.network, options.epochs, options.batch_size, options.seed, options.engine
    )
    check_shapings(options.shapings, options.network, dataset)
    check_batch_size(training.batch_size, dataset)
    if options.check:
        return
    if options.missing:
        for name in baselines.missing(training, options.shapings, options.learning_rate):
            print(name)
        return
    sets = [
        poison_set.none(dataset) if path == NO_POISON else poison_set.load(path, dataset, options.attack_name)
        for path in options.poison
    ]
    names = [f"{poisons.attack}/{poisons.name}" for poisons in sets]
    for name in names:
        if names.count(name) > 1:
            refuse(f"--poison: more than one file would be filed under {name}; give one of them, or rename the other")
    strongest = strongest_pairs(training, options.shapings, sets) if options.strongest else None
    together = stacked_sets(options.network, sets, options.strongest)
    workers = device.start(options.gpu, len(together) if options.engine == "stack" else 1)
    check_engine(options)
    count = max((sum(len(poisons.y) for poisons in group) for group in together), default=0)
    most = memory.replicas(
        options.memory, workers, options.network, dataset, count, training.batch_size, options.record,
        options.shapings, max((len(poisons.y) for poisons in sets), default=0),
    )  # fmt: skip
    if not sets:
        baselines.train_clean(training, dataset, options.shapings, options.learning_rate, most)
        return
    if options.baseline:
        baseline = baselines.baseline_from(options.baseline, training, dataset)
    else:
        baseline = baselines.baseline(training, dataset)
    dump = options.dump if options.record else None
    locks = Lock(layout.RESULTS / "train.lock")
    poisoning = Poisoning(
        options.shapings,
        options.learning_rate,
        baseline,
        options.retrain,
        dump,
        most,
        locks,
        strongest,
        options.keep_model,
    )
    planned = {}
    for cell in (cell for poisons in sets for cell in poisoned_cells(training, poisons, poisoning)):
        cells.check_free(cell.path, cell.settings)
        other = planned.setdefault(cell.path, cell)
        if other is not cell:
            refuse(f"--shaping {cell.shaping.text}: filed where {other.shaping.text} is; give one of them")
    mine = threading.local()  # each worker has its own engines

    def work(index: int, sets: list[PoisonSet]) -> None:
        if not hasattr(mine, "trainer"):
            mine.trainer = Trainer(training, dataset, baseline.model if options.retrain else None, most)
        name = sets[0].name if len(sets) == 1 else f"{len(sets)} sets of {sets[0].attack}"
        train_poisoned(mine.trainer, sets, poisoning, f"{name} ({index + 1} of {len(together)})")

    device.side_by_side(workers, work, enumerate(together))


def parse():
    """The options, checked; `shapings` lists what each replica does to its gradients."""
    parser = Parser(__doc__)
    parser.add_argument("--dataset", required=True, help=f"one of {', '.join(datasets.NAMES)}")
    add_network_option(parser)
    parser.add_argument(
        "--poison",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="poison files, each added to the training set in a training of its own; `none`: the clean rows alone",
    )
    parser.add_argument(
        "--attack-name", metavar="NAME", help="file their results under this attack, whatever the poison files say"
    )
    parser.add_argument(
        "--clip-norm", type=POSITIVE, nargs="+", default=[], help="DP-SGD with these bounds on each example's gradient"
    )
    parser.add_argument(
        "--noise-std",
        type=NOT_NEGATIVE,
        nargs="+",
        default=[],
        help="each clip norm with each of these standard deviations of the noise on the clipped sum (default: 0)",
    )
    parser.add_argument(
        "--shaping",
        type=shaping,
        nargs="+",
        default=[],
        help="a list of these instead: undefended, a clip norm, clip norm:noise multiplier, a kind:its parameters, a"
        " chain of kinds joined by +, or a schedule such as clip:1@5,phuber:2",
    )
    add_file_option(parser)
    parser.add_argument(
        "--undefended", action="store_true", help="also train without DP-SGD (done anyway where no clip norm is given)"
    )
    parser.add_argument("--record", action="store_true", help="record the gradients of clean and poison rows")
    parser.add_argument(
        "--dump",
        choices=("npz", "csv"),
        default="npz",
        help="keep recorded gradients as one npz an epoch, or in the paper's layout (default: npz)",
    )
    parser.add_argument(
        "--retrain", action="store_true", help="start from the clean baseline instead of initial weights"
    )
    parser.add_argument(
        "--strongest",
        action="store_true",
        help="each shaping only on those of the poison files that are the strongest against it, of each attack and"
        " ratio, as transfer.py found",
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="FILE",
        help="a clean .keras model (default: the kept one, trained where it is missing)",
    )
    parser.add_argument(
        "--keep-model",
        choices=("best", "final"),
        help="keep each poisoned model, of its best or last epoch, beside its results (evaluate.py)",
    )
    parser.add_argument(
        "--engine",
        choices=("stack", "tfprivacy"),
        default="stack",
        help="stack, or TensorFlow Privacy as a slow reference (default: stack)",
    )
    parser.add_argument("--epochs", type=COUNT, help="default: the paper's")
    parser.add_argument("--batch-size", type=COUNT, help="default: the paper's")
    parser.add_argument(
        "--learning-rate", type=POSITIVE, help="default: the paper's, which may differ between undefended and DP-SGD"
    )
    parser.add_argument(
        "--seed", type=SEED, default=layout.SEED, help="of initial weights, order and noise (default: %(default)s)"
    )
    parser.add_argument(
        "--memory",
        type=POSITIVE,
        metavar="GIB",
        help="stay below so much, in smaller stacks (default: 1/4 of the machine's memory, 3/4 of a Slurm job's)",
    )
    parser.add_argument(
        "--gpu", type=INDEX, metavar="INDEX", help="CUDA device (default: any; the CPU where there is none)"
    )
    parser.add_argument("--missing", action="store_true", help="print the clean models that are missing, train none")
    parser.add_argument("--check", action="store_true", help="check all other options, and do nothing")
    options = parser.parse_args()

    if options.shaping and (options.clip_norm or options.noise_std or options.undefended):
        refuse("--shaping: names every shaping; leave --clip-norm, --noise-std and --undefended out")
    if options.noise_std and not options.clip_norm:
        refuse("--noise-std: noise goes with a clip norm; give one with --clip-norm, or leave the noise out")
    if options.missing and options.poison:
        refuse("--missing: is about clean models; leave --poison out")
    poisoned = options.poison or options.check
    if options.record and (not poisoned or NO_POISON in options.poison):
        refuse("--record: gradients of clean and poison rows are compared; give a poison file with --poison")
    if options.record and options.engine != "stack":
        refuse(f"--record: --engine {options.engine} does not record gradients; use --engine stack")
    for name in ("retrain", "baseline", "keep_model"):
        if getattr(options, name) and not poisoned:
            refuse(
                f"--{name.replace('_', '-')}: is about poisoned trainings; give a poison file with --poison, or none"
            )
    options.poison = list(dict.fromkeys(path if path == NO_POISON else path.resolve() for path in options.poison))
    grid = itertools.starmap(Shaping.clip, itertools.product(options.clip_norm, options.noise_std or [0.0]))
    options.shapings = list(dict.fromkeys(options.shaping or grid))
    if options.undefended or not options.shapings:
        options.shapings.insert(0, UNDEFENDED)
    return options


def check_engine(options) -> None:
    """Refuse shapings that TensorFlow Privacy does not do, where it is the engine."""
    if options.engine == "tfprivacy":
        from models import tfprivacy

        for chosen in options.shapings:
            tfprivacy.check(chosen)


def strongest_pairs(training: Training, shapings: list[Shaping], sets: list[PoisonSet]) -> set[tuple[str, str]]:
    """The texts of shapings and the SHA-256 of the poison files that are the strongest against them."""
    from results import transfers

    place = {"dataset": training.dataset, "network": training.network, "epochs": training.epochs}
    lines = transfers.of(transfers.read(layout.transfer_file()), **place)
    digests, texts = [poisons.file_sha256 for poisons in sets], [one.text for one in shapings]
    lines = lines[lines.poison_sha256.isin(digests) & lines.shaping.isin(texts)]
    if training.seed in set(lines.seed):
        refuse(f"--seed {training.seed}: the strongest files were chosen by it; measure them by another")
    tried = lines.groupby(["shaping", "poison_sha256"]).seed.agg(set)
    lacking = [pair for pair in itertools.product(texts, digests) if tried.get(pair) != set(lines.seed)]
    if lacking:
        names = {poisons.file_sha256: poisons.name for poisons in sets}
        refuse(
            f"--strongest: transfer.py did not try {names[lacking[0][1]]} on {lacking[0][0]} by all its seeds; run it"
            " on these files and shapings first"
        )
    found = transfers.strongest(lines)
    return set(zip(found.shaping, found.poison_sha256))


def stacked_sets(network: str, sets: list[PoisonSet], strongest: bool = False) -> list[list[PoisonSet]]:
    """Which poison sets train together: those of an attack with equally many poisons, few of them.

    A larger set has a stack of its own, unless each is trained on by few shapings: the strongest are.
    """
    groups = {}
    for number, poisons in enumerate(sets):
        few = (poisons.ratio <= FEW or strongest) and not protocols.network(network).front
        alike = (poisons.attack, len(poisons.y), measures_of(poisons))
        groups.setdefault(alike if few else number, []).append(poisons)
    return list(groups.values())


def poisoned_cells(training: Training, poisons: PoisonSet, poisoning: Poisoning) -> list[Cell]:
    """The cells of one poison set."""
    baseline, found = poisoning.baseline, []
    start: dict[str, Any] = {
        "start": "retrain" if poisoning.retrain else "scratch",
        "baseline": "own" if baseline.own else "kept",
    }
    start["baseline_acc"] = baseline.accuracy
    if poisoning.retrain or baseline.own:
        start["baseline_sha256"] = baseline.sha256
    for chosen in poisoning.shapings:
        if poisoning.strongest is not None and (chosen.text, poisons.file_sha256) not in poisoning.strongest:
            continue
        rate = training.learning_rate(chosen, poisoning.learning_rate)
        name = training.model_name(chosen, rate) + baseline.suffix
        settings = {"model": name, **poisons.record, **start, "dump": poisoning.dump}
        found.append(Cell(chosen, rate, name, {**training.settings(chosen, rate), **settings}, poisons))
    return found


def measures_of(poisons: PoisonSet) -> tuple[str, ...]:
    """What is measured beside accuracy, as the attack says; nothing of a set that its command did not make.

    Without poisons, what a shaping's parameters are chosen by.
    """
    if poisons.attack == poison_set.NONE:
        return HELD_OUT
    attack = attacks().get(poisons.attack)
    known = attack and {option.name for option in attack.options} <= set(poisons.settings)
    return attack.measures if known else ()


def measured_of(dataset: datasets.Dataset, poisons: PoisonSet, hits: Callable) -> dict[str, float]:
    """The values of `measures_of` for a model; hits: which rows it gives some labels (`poisons.crafting.Attack`)."""
    measures = measures_of(poisons)
    if not measures:
        return {}
    if measures == HELD_OUT:
        return dict(zip(HELD_OUT, held_out_accuracies(dataset, hits)))
    return dict(zip(measures, attacks()[poisons.attack].measure(dataset, poisons.settings, hits)))


def held_out_accuracies(dataset: datasets.Dataset, hits: Callable) -> tuple[float, ...]:
    """The accuracy on the held-out rows that no shaping may trust, and on each half of them; NaN without any."""
    if dataset.held_out is None or len(dataset.held_out[1]) <= datasets.TRUSTED + 1:
        return (np.nan,) * len(HELD_OUT)
    x, y = (values[datasets.TRUSTED :] for values in dataset.held_out)
    hit = hits(x.reshape(len(x), -1), y)[0]
    return hit.mean(), hit[::2].mean(), hit[1::2].mean()


def columns_of(measures: tuple[str, ...], recorded: bool) -> tuple[str, ...]:
    """The columns of a CSV file of results, last what is measured beside accuracy, and first of it the baseline's.

    The paper's analyses of attacks that measure something have no n_poison.
    """
    more = (f"baseline_{measures[0]}", *measures) if measures else ()
    if not recorded:
        return (*ATTACK_HEADER, *more)
    return (*(name for name in ANALYSIS_HEADER if name != "n_poison" or not more), *more)


def train_poisoned(trainer: Trainer, sets: list[PoisonSet], poisoning: Poisoning, label: str) -> None:
    """Train on the clean rows and each poison set with every shaping, and write what is not there yet.

    A stack is always trained whole, and only the missing cells are written: what a replica computes may depend in the
    last bit on how many others it shares a product with, and an interrupted sweep must end with the bytes of an
    undisturbed one.
    """
    header = columns_of(measures_of(sets[0]), bool(poisoning.dump))

    def unfinished(group: list[Cell]) -> dict[int, Cell]:
        return {replica: cell for replica, cell in enumerate(group) if not finished(cell, poisoning.keep)}

    every = [cell for poisons in sets for cell in poisoned_cells(trainer.training, poisons, poisoning)]
    for group in stacks(trainer.training.network, every, poisoning.most):
        piece = Lock.number(group[0].path.parent.resolve())
        if unfinished(group):
            poisoning.locks.take(piece, wait=True)  # until another process that is at it has finished
        todo = unfinished(group)
        if not todo:
            print(f"{label}: {len(group)} trainings finished before", file=sys.stderr)
            poisoning.locks.release(piece)
            continue
        began = time.monotonic()
        for cell in todo.values():
            cells.begin(cell.path.parent)
        history, weights = train_stack(trainer, group, todo, header, poisoning, label)
        about = {"wall_seconds": round(time.monotonic() - began, 3), "replicas": len(group)}
        for replica, cell in todo.items():
            lines = result_lines(trainer.dataset, cell, replica, history, header, poisoning.baseline)
            if poisoning.dump:
                cells.check_recorded(cell.path.parent, len(lines))
            cells.write(cell.path, header, lines, cell.settings, about)
            if replica in weights:
                baselines.keep_poisoned(trainer.training, trainer.dataset, cell, poisoning.keep, weights[replica])
        poisoning.locks.release(piece)


def finished(cell: Cell, keep: str | None) -> bool:
    """Whether a cell is finished, and its model there where it is to be kept."""
    return cells.finished(cell.path, cell.settings) and (
        keep is None or checkpoints.kept_beside(cell.path.parent, keep, cell.settings)
    )


def train_stack(
    trainer: Trainer, group: list[Cell], todo: dict[int, Cell], header: tuple, poisoning: Poisoning, label: str
) -> tuple[list[dict], dict[int, list[np.ndarray]]]:
    """Train a stack of cells, writing the gradients of those in `todo`.

    Returns what the header asks for, by name float64 [replica], after each epoch, and the weights to be kept by
    replica.
    """
    engine, rows, dump = trainer.engine(group), trainer.rows(group), poisoning.dump
    history, written, best, weights = [], None, {}, {}
    with concurrent.futures.ThreadPoolExecutor(1) as background:  # gradients are written while the next epoch trains
        for epoch, accuracies, record in trainer.epochs(engine, rows, label, record=bool(dump)):
            going = {
                replica: cell
                for replica, cell in todo.items()
                if not history or not np.isnan(history[-1]["test_acc"][replica])
            }
            measured = {"test_acc": accuracies}
            if "train_acc_clean" in header:
                measured.update(zip(("train_acc_clean", "train_acc_poison"), training_accuracies(engine, rows)))
            hits = [partial(engine.hits, replica=replica) for replica in range(len(group))]
            more = [measured_of(trainer.dataset, cell.poisons, hit) for cell, hit in zip(group, hits)]
            measured.update({name: np.array([values[name] for values in more]) for name in more[0]})
            for replica in going if poisoning.keep == "best" else ():
                if accuracies[replica] > best.get(replica, -1):
                    best[replica], weights[replica] = accuracies[replica], engine.weights(replica)
            history.append({name: np.where(np.isnan(accuracies), np.nan, values) for name, values in measured.items()})
            if written is not None:
                written.result()
            if record is not None:
                written = background.submit(write_record, going, epoch, record, dump)
        if written is not None:
            written.result()
    if poisoning.keep == "final":
        weights = {replica: engine.weights(replica) for replica in going if not np.isnan(accuracies[replica])}
    return history, weights


def write_record(going: dict[int, Cell], epoch: int, record, dump: str) -> None:
    for replica, cell in going.items():
        param_updates.write_epoch(cell.path.with_name(layout.PARAM_UPDATES), epoch, record, replica, dump)


def result_lines(
    dataset: datasets.Dataset,
    cell: Cell,
    replica: int,
    history: list[dict],
    header: tuple,
    baseline: baselines.Baseline,
) -> list[list]:
    """The lines of a cell's CSV file, an epoch each; the last of one that diverged has nan for its accuracies."""
    line = {"n_poison": len(cell.poisons.y), "baseline_acc": baseline.accuracy}
    before = measured_of(dataset, cell.poisons, baseline.hits)
    line.update({f"baseline_{name}": value for name, value in before.items()})
    lines = []
    for epoch, measured in enumerate(history, 1):
        line.update({name: round(float(values[replica]), 6) for name, values in measured.items()}, epoch=epoch)
        if "epsilon" in header:
            line["epsilon"] = cell.epsilon(len(dataset.y_train) + len(cell.poisons.y), epoch)
        lines.append([line[name] for name in header])
        if np.isnan(line["test_acc"]):
            print(
                f"{cell.path.parent}: diverged in epoch {epoch} (weights that are no numbers), recorded as nan;"
                " the others went on",
                file=sys.stderr,
            )
            break
    return lines


if __name__ == "__main__":
    run(main)
