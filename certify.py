#!/usr/bin/env python3
"""Certificates: how much test accuracy no substitution of r training rows can take, and what attacks do take.

    python3 certify.py --dataset subtask --certificate stability --shaping 0.1 1 --learning-rate 0.01 --epochs 20 40
    python3 certify.py --dataset subtask --certificate partition --parts 200 1080 --epochs 100 --learning-rate 0.05
    python3 certify.py --dataset subtask --certificate noisy --shaping 0.1:1000 --learning-rate 0.1 --epochs 1
    python3 certify.py --dataset subtask --certificate stability --attacks --shaping 0.1 --poison-file FILE

    stability    of one training of a logistic regression of two classes by clipped SGD
    partition    of a vote of --parts models, each on rows of its own; with --spread d, of d times as many
    noisy        of a vote of --models models, each with noise and Poisson samples of its own

Proofs and assumptions: docs/certificates.md; a training that breaks one is refused. Rows are centred on trusted
held-out ones. With --attacks, the attacks of `poisons.substitution`, and those of poison files, are run on the very
training that is certified. Writes results/certificates/<data set>_<certificate>.csv, a line for each setting and r, or
<data set>_attacks.csv; python3 report.py makes its table and figure of them. What is finished is not run again.
"""

from __future__ import annotations

import sys
import time
from itertools import product
from pathlib import Path

import numpy as np

import datasets
from command_line import COUNT, INDEX, POSITIVE, RATIO, SEED, Parser, refuse, run
from files import Unreadable
from models import certificates, device
from models.certificates import noisy, partition, stability
from models.protocols import add_network_option, network
from models.shaping import UNDEFENDED, shaping
from models.trainer import check_batch_size, check_shapings
from poisons import poison_set, substitution
from results import certificates as files
from results import layout

POISONS = (10, 50, 108, 216, 324, 540, 1080)
CONFIDENCE = 0.999  # of each radius of a noisy vote


def main() -> None:
    options = parse()
    raw = datasets.load(options.dataset)
    for count in options.poisons:
        if count > len(raw.y_train):
            refuse(f"--poisons {count}: {raw.name} has {len(raw.y_train)} training rows; ask for fewer")
    given = [poison_set.load(path, raw) for path in options.poison_file]
    attacks = [one.attack for one in given]
    if len(set(attacks) | set(substitution.BUILT_IN)) < len(attacks) + len(substitution.BUILT_IN):
        refuse(f"--poison-file: {', '.join(attacks)} are not all different attacks; give one file of each")
    dataset = stability.centred(raw)
    kinds = {files.STABILITY: stabilities, files.PARTITION: partitions, files.NOISY: noisies}
    plans = list(kinds[options.certificate](options, dataset))  # refuses what cannot be certified before any work
    file = files.path(dataset.name, "attacks" if options.attacks else options.certificate)
    try:
        known = files.read(file) if file.exists() else None
    except Unreadable as error:
        refuse(f"{file}: {error}; delete it to measure it again")
    names = [*substitution.BUILT_IN, *attacks] if options.attacks else None
    if options.check:
        return
    device.start(options.gpu)
    for settings, measure in plans:
        if known is not None and all(files.has(known, one, options.poisons, names) for one in settings):
            print(f"{label(settings[0])}: finished before", file=sys.stderr)
            continue
        began = time.monotonic()
        files.add(file, measure(given))
        print(f"{label(settings[0])}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    print(file)


def parse():
    parser = Parser(__doc__)
    parser.add_argument("--dataset", required=True, help=f"one of {', '.join(datasets.NAMES)}")
    parser.add_argument("--certificate", required=True, choices=files.CERTIFICATES)
    add_network_option(parser, "lr")
    parser.add_argument("--optimizer", default="sgd", choices=("sgd", "adam"), help="default: %(default)s")
    parser.add_argument(
        "--shaping", type=shaping, nargs="+", default=[UNDEFENDED],
        help="as train.py takes it: a clip norm (stability), any (partition), clip norm:noise multiplier (noisy)",
    )  # fmt: skip
    parser.add_argument("--learning-rate", type=POSITIVE, nargs="+", default=[0.01], help="default: 0.01")
    parser.add_argument("--epochs", type=COUNT, nargs="+", default=[40], help="partition, noisy: steps (default: 40)")
    parser.add_argument("--batch-size", type=COUNT, nargs="+", default=[300], help="stability (default: 300)")
    parser.add_argument(
        "--decay", type=RATIO, nargs="+", default=[1.0], help="stability: of the weights, each epoch (default: 1, none)"
    )
    parser.add_argument("--parts", type=COUNT, nargs="+", default=[200], help="partition (default: 200)")
    parser.add_argument("--spread", type=COUNT, default=1, help="partition: models a row is in (default: %(default)s)")
    parser.add_argument("--rate", type=RATIO, default=1.0, help="noisy: share of the rows in a step (default: all)")
    parser.add_argument("--models", type=COUNT, default=500, help="noisy: how many vote (default: %(default)s)")
    parser.add_argument(
        "--unanimous", action="store_true", help="noisy: what a vote that all agree on would certify; trains nothing"
    )
    parser.add_argument("--poisons", type=COUNT, nargs="+", default=list(POISONS), help=f"r (default: {POISONS})")
    parser.add_argument("--attacks", action="store_true", help="stability: run attacks on each training")
    parser.add_argument(
        "--poison-file", type=Path, nargs="+", default=[], metavar="FILE", help="with --attacks: poisons to try, too"
    )
    parser.add_argument("--seed", type=SEED, nargs="+", default=[layout.SEED], help="default: the paper's")
    parser.add_argument("--gpu", type=INDEX, metavar="INDEX", help="CUDA device (default: any; the CPU without)")
    parser.add_argument("--check", action="store_true", help="check all other options, and do nothing")
    options = parser.parse_args()
    options.poisons, options.shaping = sorted(set(options.poisons)), list(dict.fromkeys(options.shaping))
    if options.attacks and options.certificate != files.STABILITY:
        refuse(f"--attacks: of a stability certificate, not of {options.certificate}; leave one of them out")
    if options.poison_file and not options.attacks:
        refuse("--poison-file: is for --attacks; give that, too")
    if options.unanimous and options.certificate != files.NOISY:
        refuse(f"--unanimous: of a noisy vote, not of {options.certificate}; leave one of them out")
    return options


def label(settings: dict) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items() if value is not None)


# --- plans: the settings of each training or vote, and what measures it ---


def stabilities(options, dataset):
    """One stack of all clip norms for each learning rate, batch size, decay and seed."""
    for size in options.batch_size:
        check_batch_size(size, dataset)
    grid = product(options.learning_rate, options.batch_size, options.decay, options.seed)
    for rate, size, decay, seed in grid:
        alike = [
            stability.Training(options.network, options.optimizer, one, rate, size, seed, decay)
            for one in options.shaping
        ]
        for training in alike:
            stability.check(training, dataset)
        stability.check_steps(alike[0], dataset, max(options.epochs))
        averaged = (False,) if options.attacks else (False, True)
        settings = [
            setting(options, dataset, files.STABILITY, one.shaping.text, seed, learning_rate=rate, batch_size=size,
                    epochs=epochs, decay=decay, averaged=mean)
            for one, epochs, mean in product(alike, options.epochs, averaged)
        ]  # fmt: skip
        if options.attacks:
            yield settings, lambda given, alike=alike: attacked(options, dataset, alike, given)
        else:
            yield settings, lambda _, alike=alike, settings=settings: certify(options, dataset, alike, settings)


def partitions(options, dataset):
    """A vote for each shaping, learning rate, number of steps, number of parts and seed."""
    if network(options.network).front:
        refuse(f"--network {options.network}: its convolutions train one at a time, not in votes; choose another")
    check_shapings(options.shaping, options.network, dataset)
    grid = product(options.shaping, options.learning_rate, options.epochs, options.parts, options.seed)
    for chosen, rate, steps, parts, seed in grid:
        partition.buckets(len(dataset.y_train), parts, options.spread, seed)  # refuses too many
        settings = setting(
            options, dataset, files.PARTITION, chosen.text, seed, learning_rate=rate, epochs=steps, parts=parts,
            spread=options.spread,
        )  # fmt: skip

        def measure(_, settings=settings, chosen=chosen):
            votes = partition.votes(
                dataset, settings["network"], settings["optimizer"], chosen, settings["learning_rate"],
                settings["epochs"], settings["parts"], settings["spread"], settings["seed"], label(settings),
            )  # fmt: skip
            members = partition.assignment(settings["parts"], settings["spread"], settings["seed"])
            judged = partition.radii(votes, dataset.classes, members)
            return lines(options, settings, dataset, *judged)

        yield [settings], measure


def noisies(options, dataset):
    """A vote for each shaping, learning rate, number of steps and seed."""
    for chosen, rate, steps, seed in product(options.shaping, options.learning_rate, options.epochs, options.seed):
        noise = noisy.check(options.network, options.optimizer, dataset, chosen, rate, options.rate, steps, seed)
        settings = setting(
            options, dataset, files.NOISY, chosen.text, seed, learning_rate=None if options.unanimous else rate,
            epochs=steps, noise_multiplier=chosen.noise_multiplier, rate=options.rate, models=options.models,
        )  # fmt: skip

        def measure(_, settings=settings, noise=noise):
            x, y = certificates.tested(dataset)
            if options.unanimous:
                votes, y = np.zeros((options.models, len(y)), int), np.zeros(len(y), int)
            else:
                votes = noisy.votes(noisy.models(dataset, noise, options.models), x)
            winner, radii = noisy.radii(votes, noise, options.poisons, CONFIDENCE)
            found = lines(options, settings, dataset, winner, radii, y)
            return [{**line, "clean_acc": None, "held_out_acc": None} if options.unanimous else line for line in found]

        yield [settings], measure


def setting(options, dataset, certificate: str, text: str, seed: int, **more) -> dict:
    """The columns of SETTINGS; None where a certificate has no such setting."""
    common = {
        "dataset": dataset.name, "certificate": certificate, "network": options.network,
        "optimizer": options.optimizer, "shaping": text, "seed": seed,
    }  # fmt: skip
    return {name: {**common, **more}.get(name) for name in files.SETTINGS}


# --- measuring ---


def lines(options, settings: dict, dataset, winner: np.ndarray, radii: np.ndarray, y=None) -> list[dict]:
    """A line for each r, by FRONTIER; winner, radii: of the rows of `models.certificates.tested`."""
    right = winner == (certificates.tested(dataset)[1] if y is None else y)
    test, held_out = slice(None, len(dataset.y_test)), slice(len(dataset.y_test), None)
    found = [{**settings, "poisons": count, "clean_acc": right[test].mean()} for count in options.poisons]
    for name, part in (("certified_acc", test), ("held_out_certified_acc", held_out)):
        if len(right[part]):
            for line, value in zip(found, certificates.certified_accuracies(right[part], radii[part], options.poisons)):
                line[name] = value
    if len(right[held_out]):
        found = [{**line, "held_out_acc": right[held_out].mean()} for line in found]
    return found


def certify(options, dataset, alike: list[stability.Training], settings: list[dict]) -> list[dict]:
    """The lines of a stack of trainings that differ in their clip norm."""
    x, y = certificates.tested(dataset)
    found = []
    for one, epochs, averaged, certificate in stability.certificates(
        stability.Trainings(dataset, alike), options.epochs
    ):
        mine = {"shaping": one.shaping.text, "epochs": epochs, "averaged": averaged}
        found += lines(options, {**settings[0], **mine}, dataset, certificate.predict(x), certificate.radii(x))
    return found


def attacked(options, dataset, alike: list[stability.Training], given: list) -> list[dict]:
    """The lines of all attacks on each of some trainings, by ATTACKED, without averages."""
    origin = datasets.load(options.dataset).x_test[0] - dataset.x_test[0]
    found = []
    for one in alike:
        clean = dict(enumerate(stability.Trainings(dataset, [one]).epochs(max(options.epochs)), 1))
        names = [*substitution.BUILT_IN, *(poisons.attack for poisons in given)]
        attack = stability.Trainings(dataset, [one] * len(names))
        for epochs, count in product(options.epochs, options.poisons):
            certificate = stability.Certificate(clean[epochs][0], attack.reach(one.shaping.clip_norm, epochs, False))
            sets = substitution.sets_of(given, dataset, origin, certificate, count, one.seed)
            *_, u = attack.epochs(epochs, stability.substituted(dataset, list(sets.values())))
            mine = setting(
                options, dataset, files.STABILITY, one.shaping.text, one.seed, learning_rate=one.learning_rate,
                batch_size=one.batch_size, epochs=epochs, decay=one.decay, averaged=False,
            )  # fmt: skip
            found += [
                {**mine, "attack": name, "poisons": count, **certificate.held_against(model, dataset, count)}
                for name, model in zip(sets, u)
            ]
    return found


if __name__ == "__main__":
    run(main)
