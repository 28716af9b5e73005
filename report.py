#!/usr/bin/env python3
"""The paper's tables and figures beside ours, from whatever is finished.

    python3 report.py

Reads results/ (never TensorFlow), compares with results/published/, and writes
    results/tables/indiscriminate.csv    every cell of the indiscriminate sweep: best and final accuracy, published best, difference
    results/tables/seeds.csv             where several seeds were run: mean, 95% interval and range of the accuracies
    results/tables/crafting.csv          what crafting the slab and minmax sets took, and the minmax sets' bound U* beside what it bounds
    results/tables/gradients.csv         every gradient analysis: mean poison norm, norm ratio and cosine, reached and published
    results/tables/insertion.csv         every backdoor: clean accuracy and attack success, reached and published
    results/tables/tpoisoning.csv        every targeted attack: targets tried and hit, poisons needed, reached and published
    results/figures/indiscriminate_<attack>.png and .pdf    accuracy against the poison ratio
A result that is damaged, or without the run.json that marks it as finished, is left out and named.
"""

from __future__ import annotations

from command_line import Parser, run
from reports import gradients, indiscriminate, targeted
from results import layout


def main() -> None:
    Parser(__doc__).parse_args()
    indiscriminate.report()
    gradients.report()
    targeted.report()
    print(f"\ntables: {layout.tables()}\nfigures: {layout.figures()}")


if __name__ == "__main__":
    run(main)
