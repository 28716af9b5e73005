#!/usr/bin/env python3
"""The paper's tables, figures and claims beside what was measured, from whatever is finished.

    python3 report.py

Reads results/ and models/ (never TensorFlow), compares with results/published/, and writes
    results/report.html                  the page: verdicts on the paper's claims, their evidence, tables, figures
    results/tables/claims.csv            every check of every claim
    results/tables/claims_by_seed.csv    the verdicts on (c) and (f) at each seed
    results/tables/indiscriminate.csv    every cell of the indiscriminate sweep: best and final accuracy, published best
    results/tables/seeds.csv             over seeds: mean, 95% interval, range of accuracies, gain by DP-SGD
    results/tables/crafting.csv          what crafting the slab and minmax sets took, and U* of the minmax sets
    results/tables/gradients.csv         every gradient analysis: poison norm, norm ratio and cosine, published too
    results/tables/datasets.csv          every described data set: rows, classes, margins of the clean model, distances
    results/tables/nulls.csv             beside each: what as many harmless duplicates of clean rows look like
    results/tables/insertion.csv         every backdoor: clean accuracy and attack success, reached and published
    results/tables/tpoisoning.csv        every targeted attack: targets tried and hit, poisons needed, published too
    results/tables/doses.csv             targeted attacks by their dose; half_doses.csv: where half of the targets fall
    results/tables/together.csv          several poisons, crafted one by one or together, at equal distances
    results/tables/certificates.csv      what is certified by setting and number of substituted rows
    results/tables/certificates_attacked.csv   beside it what attacks reach on the same trainings
    results/matrix.html                  the page of the matrix: every gradient shaping against every attack
    results/tables/matrix.csv            its cells, seed by seed; matrix_rows.csv: its rows, summed up
    results/tables/models.csv            every clean model: accuracy and epsilon, reached and published
    results/tables/other_*.csv           trainings, gradients, targeted, models: what is not of the paper's protocol
    results/figures/*.png and .pdf       the figures
A result that is unfinished, damaged or foreign is left out and named; what is not there is shown as not run.
"""

from __future__ import annotations

import sys

from command_line import Parser, run
from files import printable
from models.kind import add_file_option
from reports import (
    Table,
    certificates,
    claims,
    clean_models,
    described,
    doses,
    figures,
    gradients,
    indiscriminate,
    matrix,
    matrix_page,
    matrix_verdicts,
    page,
    reading,
    targeted,
    together,
)
from results import layout

MATRIX = ("matrix", "matrix_rows")  # a page of their own
OTHERS = ("other_trainings", "other_gradients", "other_targeted", "other_models")
SOMETIMES = {*MATRIX, *OTHERS, "datasets", "doses", "half_doses", "together", "certificates", "certificates_attacked"}
PARTS = (indiscriminate, gradients, targeted, doses, together, described, certificates, clean_models, matrix)


def main() -> None:
    parser = Parser(__doc__)
    add_file_option(parser)
    parser.parse_args()
    results = reading.read()
    tables = [table for part in PARTS for table in part.tables(results)]
    judged = claims.judge({table.name: table for table in tables}, indiscriminate.by_seed(results))
    tables += [claims.table(judged), claims.seeds_table(judged)]
    for table in tables:
        table.write()
    for name in SOMETIMES - {table.name for table in tables}:  # what an earlier report had
        (layout.tables() / f"{name}.csv").unlink(missing_ok=True)
    drawn = figures.draw_all({table.name: table for table in tables}, results)
    path = page.write([table for table in tables if table.name not in MATRIX], judged, drawn, results)
    found = {table.name: table for table in tables if table.name in MATRIX}
    if found:
        cells, rows = (found[name] for name in MATRIX)
        verdicts = matrix_verdicts.judge(cells, rows)
        of_matrix = matrix_page.write(cells.frame, rows.frame, verdicts, results.versions)
    for file, why in results.left_out:
        print(f"left out: {printable(layout.RESULTS / file)} ({printable(why)})", file=sys.stderr)
    print_summary(tables, judged)
    print(f"\ntables: {layout.tables()}\nfigures: {layout.figures()}\npage: {path}")
    if found:
        print(f"matrix: {of_matrix}")


def print_summary(tables: list[Table], judged: list[dict]) -> None:
    """What was reached of each table, and the verdicts, on the terminal."""
    for table in tables:
        if table.summary:
            print(f"{table.name:<16}{table.summary}")
    print()
    for claim in judged:
        verdict = f"{claim['verdict']:<20}controls {claim['under_controls']:<14}{claim['evidence']}"
        print(f"({claim['letter']}) {claim['title']:<48}{verdict}")


if __name__ == "__main__":
    run(main)
