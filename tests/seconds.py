"""How long tests take: by it they are marked (`slow`, `quick`) and dealt out to the workers (conftest.py).

    ./run_tests.sh --junitxml=/tmp/tests.xml && .venv/bin/python -m tests.seconds /tmp/tests.xml

writes tests/seconds.csv of such a run, a test function a line, and prints the sums of files; on an idle machine.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pandas as pd

TABLE = Path(__file__).with_name("seconds.csv")
MUTANTS = Path(__file__).with_name("mutated.csv")
SLOW, QUICK = 1.5, 1.0  # seconds of one case, at least and at most


def measured(report: Path) -> pd.DataFrame:
    """A line for each test function: its file, how many cases it has, their seconds in all, and the longest's."""
    cases = pd.DataFrame(
        [
            (
                case.get("classname", "").rpartition(".")[2],
                re.split(r"[\[@]", case.get("name", ""))[0],  # without parameters, and xdist's group
                float(case.get("time", 0)),
            )
            for case in ElementTree.parse(report).iter("testcase")
        ],
        columns=["file", "test", "seconds"],
    )
    found = cases.groupby(["file", "test"]).seconds.agg(["size", "sum", "max"]).round(2).reset_index()
    return found.set_axis(["file", "test", "cases", "seconds", "longest"], axis=1)


def known() -> pd.DataFrame:
    """The table of the last measured run, by file and test; empty where there is none."""
    if not TABLE.exists():
        return pd.DataFrame(columns=["cases", "seconds", "longest"])
    return pd.read_csv(TABLE).set_index(["file", "test"])


def killers() -> set[str]:
    """The tests that were the first to notice a mutant, as pytest names them."""
    return set(pd.read_csv(MUTANTS)["by"].dropna())


def main() -> None:
    table = measured(Path(sys.argv[1]))
    table.to_csv(TABLE, index=False, lineterminator="\n")
    print(table.groupby("file").seconds.sum().sort_values(ascending=False).round().to_string())


if __name__ == "__main__":
    main()
