#!/usr/bin/env python3
"""The chosen parameters of each kind of gradient shaping, a shaping a line: undefended, and the kinds in their order.

    python3 choose_shapings.py --dataset subtask --network lr

They are chosen from finished trainings on clean rows alone (train.py --poison none), by `reports.choice`: no poison and
no test row has a part in it. Where a data set has no held-out rows, those of the binary subtask's logistic regression
are taken. What the network or the data set does not have what it takes for is left out.
"""

from __future__ import annotations

import sys

import datasets
from command_line import COUNT, BadInput, Parser, refuse, run
from models.kind import add_file_option
from models.protocols import add_network_option, protocol
from models.shaping import shaping
from models.trainer import check_shapings
from reports import choice, frames, reading
from results import layout


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--dataset", required=True, help=f"one of {', '.join(datasets.NAMES)}")
    add_network_option(parser)
    parser.add_argument("--epochs", type=COUNT, help="of the trainings (default: the paper's)")
    add_file_option(parser)
    options = parser.parse_args()
    dataset = datasets.load(options.dataset)
    place = (dataset.name, options.network)
    if dataset.held_out is None:
        place = (layout.SUBTASK, "lr")
        print(f"{dataset.name} has no held-out rows: chosen on those of {layout.SUBTASK}", file=sys.stderr)
    epochs = options.epochs or protocol(*place).epochs
    found = choice.chosen(choice.measured(reading.read()))
    found = found[(found.dataset == place[0]) & (found.network == place[1]) & (found.epochs == epochs)]
    if found.empty:
        refuse(
            f"--dataset {options.dataset}: no training of {options.network} on clean rows alone is finished; run"
            " train.py --poison none with undefended and other shapings first"
        )
    texts = found.sort_values("shaping", key=frames.by_kind).shaping
    print(*(text for text in texts if fits(text, options.network, dataset)), sep="\n")


def fits(text: str, network: str, dataset: datasets.Dataset) -> bool:
    """Whether a network and a data set have what a shaping takes."""
    try:
        check_shapings([shaping(text)], network, dataset)
    except BadInput:
        return False
    return True


if __name__ == "__main__":
    run(main)
