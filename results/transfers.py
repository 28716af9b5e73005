"""The table of what crafted poison files do to gradient shapings that they were and were not crafted against.

transfer.py fills results/matrix/transfer.csv, a line for each poison file, shaping and seed; train.py --strongest takes
from it against which file each shaping is to be measured.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pandas as pd

from command_line import refuse
from files import Lock, Unreadable, writing
from models.kind import UNDEFENDED_TEXT
from results import lines as plain

FILE = ["dataset", "network", "epochs", "poison_sha256"]
KEY = [*FILE, "shaping", "seed"]
COLUMNS = [*KEY, "attack", "ratio", "crafted_against", "poison_set", "train_acc_clean", "test_acc"]
KINDS = {name: plain.TEXT for name in COLUMNS} | dict.fromkeys(("epochs", "seed"), plain.WHOLE)
KINDS |= {"ratio": plain.NUMBER, "train_acc_clean": plain.SHARE, "test_acc": plain.SHARE}
ONE_AT_A_TIME = threading.Lock()


def read(table: Path) -> pd.DataFrame:
    """The lines of a transfer.csv; none where there is none. Refuses a damaged one."""
    if not table.exists():
        return pd.DataFrame(columns=COLUMNS)
    try:
        return plain.read(table, KINDS, gaps=["train_acc_clean", "test_acc"])
    except Unreadable as error:
        refuse(f"{table}: {error}; restore it, or delete it to try all poison files again")


def of(lines: pd.DataFrame, **wanted) -> pd.DataFrame:
    """The lines that have these values."""
    for name, value in wanted.items():
        lines = lines[lines[name] == value]
    return lines


def add(table: Path, lines: pd.DataFrame) -> None:
    """Put lines into a transfer.csv, in place of those of the same key; sorted, so that their order tells nothing."""
    lock = Lock(table.with_suffix(".lock"))  # keeps other processes out
    with ONE_AT_A_TIME:
        lock.take(0, wait=True)
        whole = pd.concat([read(table), lines]) if table.exists() else lines
        whole = whole.drop_duplicates(KEY, keep="last").sort_values(KEY)
        with writing(table) as stream:
            whole.to_csv(stream, index=False, na_rep="nan", lineterminator="\n")
        lock.release(0)


def strongest(lines: pd.DataFrame) -> pd.DataFrame:
    """Of each attack and ratio the file that costs a shaping most, a line for each shaping: its accuracy on clean
    training rows is the lowest in the mean over the seeds; NaN counts as none. Of equal ones, the one that was crafted
    against the shaping, then the one against undefended victims.
    """
    place = ["dataset", "network", "epochs", "shaping", "attack", "ratio"]
    means = lines.fillna({"train_acc_clean": 0.0}).groupby([*place, "crafted_against", "poison_sha256"], as_index=False)
    means = means.train_acc_clean.mean()
    means["other"] = means.crafted_against != means.shaping
    means["defended"] = means.crafted_against != UNDEFENDED_TEXT
    order = [*place, "train_acc_clean", "other", "defended", "crafted_against", "poison_sha256"]
    return means.sort_values(order).drop_duplicates(place).drop(columns=["other", "defended"])
