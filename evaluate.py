#!/usr/bin/env python3
"""What a kept model does: its accuracy, by class, and how far attacks succeed with it.

    python3 evaluate.py results/ipoisoning/<attack>/<poison set>/<model>/final.keras
    python3 evaluate.py models/fashion_mnist/vanilla_badnet_100_80_0.01/best.keras --poison FILE ... --out mine.csv
    python3 evaluate.py mine.keras --dataset subtask --network lr --target 17 --wanted-class 1

A model that train.py kept (--keep-model) says its data set and network in the .json beside it, a clean one of models/
in its config.json; of any other give --dataset and --network. Only the arrays of a .keras file are read. Prints, and
with --out writes, a table: measure, of, value.

    accuracy            of the test rows, and of each class
    on its poisons      the share of a poison file's rows that the model gives their poison label: what it has learnt
    success             as the attack measures it beside accuracy, e.g. stamped images that get the backdoor's label
    target              the probability of the wanted class for a test row, and whether it is the predicted one
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

import datasets
from command_line import INDEX, Parser, refuse, run
from datasets import Dataset
from files import read_json, writing
from models import baselines, device
from models.protocols import add_network_option
from poisons import attacks, poison_set


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .keras file")
    parser.add_argument("--poison", type=Path, nargs="+", default=[], metavar="FILE", help="poison files")
    parser.add_argument("--attack-name", metavar="NAME", help="of poison files that do not say it")
    parser.add_argument("--target", type=INDEX, nargs="+", default=[], help="rows of the test set")
    parser.add_argument(
        "--wanted-class",
        "--target-class",
        dest="target_class",
        type=INDEX,
        help="the class that an attacker wants for the targets",
    )
    parser.add_argument("--dataset", help="where the model does not say it")
    add_network_option(parser, required=False)
    parser.add_argument("--out", type=Path, metavar="CSV", help="write the table, too")
    options = parser.parse_args()
    if options.target and options.target_class is None:
        refuse("--target: give the class that the attacker wants with --wanted-class")
    said = settings_of(options.model)
    dataset_name, network = options.dataset or said.get("dataset"), options.network or said.get("network")
    if not dataset_name or not network:
        refuse(f"{options.model}: does not say what it is of; give --dataset and --network")
    dataset = datasets.load(dataset_name)
    if max(options.target, default=0) >= len(dataset.y_test):
        refuse(f"--target {max(options.target)}: the test set has rows 0 to {len(dataset.y_test) - 1}")
    if options.target and options.target_class >= dataset.classes:
        refuse(f"--wanted-class {options.target_class}: {dataset.name} has classes 0 to {dataset.classes - 1}")
    sets = [poison_set.load(path, dataset, options.attack_name) for path in options.poison]
    device.start()
    table = pd.DataFrame(
        measured(load(options.model, network, dataset), dataset, sets, options.target, options.target_class),
        columns=["measure", "of", "value"],
    )
    print(table.to_string(index=False))
    if options.out:
        with writing(options.out) as stream:
            table.to_csv(stream, index=False, lineterminator="\n")


def settings_of(model: Path) -> dict:
    """What lies beside a model about its training; empty where nothing does."""
    beside = read_json(model.with_suffix(".json"))
    if beside is not None and isinstance(beside.get("settings"), dict):
        return beside["settings"]
    return read_json(model.with_name("config.json")) or {}


def load(path: Path, network: str, dataset: Dataset):
    """The Keras model of a network with the arrays of a .keras file."""
    from models.trainer import Training, check_network

    check_network(network, dataset)
    return baselines.load_weights(path, Training.published(dataset.name, network), dataset)


def measured(
    model, dataset: Dataset, sets: list[poison_set.PoisonSet], targets: list[int], target_class: int | None
) -> list[tuple[str, str, float]]:
    """The lines of the table."""
    right = baselines.hits(model, dataset.x_test, dataset.y_test)[0]
    lines = [("accuracy", "all", right.mean())]
    by_class = pd.Series(right).groupby(dataset.y_test).mean()
    lines += [("accuracy", f"class {label}", value) for label, value in by_class.items()]
    for poisons in sets:
        lines.append(("on its poisons", poisons.name, baselines.hits(model, poisons.x, poisons.y).mean()))
        attack = attacks().get(poisons.attack)
        if attack is not None and {option.name for option in attack.options} <= set(poisons.settings):
            hits = partial(baselines.hits, model)
            values = attack.measure(dataset, poisons.settings, hits) if attack.measures else ()
            lines += [(name, poisons.name, value) for name, value in zip(attack.measures, values)]
    for target in targets:
        probabilities = baselines.probabilities(model, dataset.x_test[target])[0]
        lines.append((f"probability of class {target_class}", f"target {target}", probabilities[target_class]))
        lines.append(("success", f"target {target}", float(probabilities.argmax() == target_class)))
    return [(measure, of, round(float(value), 6)) for measure, of, value in lines]


if __name__ == "__main__":
    run(main)
