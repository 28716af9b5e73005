"""The files of certify.py: what is certified, and what attacks reach on the same trainings."""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd

from files import Unreadable, writing
from results import layout, lines

STABILITY, PARTITION, NOISY = CERTIFICATES = ("stability", "partition", "noisy")
SETTINGS = [
    "dataset", "certificate", "network", "optimizer", "shaping", "learning_rate", "batch_size", "epochs", "decay",
    "averaged", "parts", "spread", "noise_multiplier", "rate", "models", "seed",
]  # fmt: skip
TEXTS = ["dataset", "certificate", "network", "optimizer", "shaping"]
FRONTIER = [*SETTINGS, "poisons", "clean_acc", "certified_acc", "held_out_acc", "held_out_certified_acc"]
ATTACKED = [*SETTINGS, "attack", "poisons", "clean_acc", "certified_acc", "acc", "moved", "bound", "broken"]
KINDS = {
    **dict.fromkeys((*TEXTS, "attack"), lines.TEXT),
    **dict.fromkeys(("learning_rate", "decay", "noise_multiplier", "rate", "moved", "bound"), lines.NUMBER),
    **dict.fromkeys(
        ("batch_size", "epochs", "parts", "spread", "models", "seed", "poisons", "broken"), lines.WHOLE
    ),
    **dict.fromkeys(("clean_acc", "certified_acc", "held_out_acc", "held_out_certified_acc", "acc"), lines.SHARE),
    "averaged": lines.FLAG,
}  # fmt: skip
# What a certificate does without, and held-out rows of data that have none
GAPS = [
    "optimizer", "learning_rate", "batch_size", "epochs", "decay", "averaged", "parts", "spread", "noise_multiplier",
    "rate", "models", "clean_acc", "held_out_acc", "held_out_certified_acc",
]  # fmt: skip


def path(dataset_name: str, name: str) -> Path:
    """The file of one certificate of a data set, or, with `attacks`, of what attacks reach."""
    return layout.RESULTS / "certificates" / f"{dataset_name}_{name}.csv"


def columns_of(file: Path) -> list[str]:
    return ATTACKED if file.stem.endswith("_attacks") else FRONTIER


def read(file: Path) -> pd.DataFrame:
    """The lines of one file, FRONTIER or ATTACKED; raises `Unreadable` where it is damaged."""
    columns = columns_of(file)
    found = lines.read(file, {name: KINDS[name] for name in columns}, gaps=GAPS)
    keys = [name for name in columns if name in (*SETTINGS, "attack", "poisons")]
    if found.duplicated(keys).any():
        raise Unreadable("damaged: it has two lines of one setting and number of rows")
    if not found.certificate.isin(CERTIFICATES).all():
        raise Unreadable(f"damaged: a certificate is not one of {', '.join(CERTIFICATES)}")
    return found


def read_all() -> tuple[pd.DataFrame, pd.DataFrame, list[tuple[Path, str]]]:
    """The lines of all files, the certificates' and the attacks', with the file as `source`, and the damaged files."""
    paths = list((layout.RESULTS / "certificates").glob("*.csv"))
    both, left_out = [], []
    for columns in (FRONTIER, ATTACKED):
        frame, damaged = lines.read_all([file for file in paths if columns_of(file) is columns], read, columns)
        both.append(frame)
        left_out += damaged
    return *both, left_out


def add(file: Path, found: list[dict]) -> None:
    """Add lines to a file, which is sorted by its settings; lines of the same settings and poisons are replaced."""
    columns = columns_of(file)
    before = read(file).to_dict("records") if file.exists() else []
    frame = pd.DataFrame([*before, *found]).reindex(columns=columns)
    keys = [name for name in columns if name in (*SETTINGS, "attack", "poisons")]
    frame = frame.drop_duplicates(keys, keep="last").sort_values(keys, kind="stable")
    whole = [name for name in ("batch_size", "epochs", "parts", "spread", "models", "seed", "poisons", "broken")
             if name in columns]  # fmt: skip
    with writing(file) as stream:
        frame.astype(dict.fromkeys(whole, "Int64")).to_csv(stream, index=False, lineterminator="\n")


def has(known: pd.DataFrame, settings: dict, poisons: list[int], attacks: list[str] | None = None) -> bool:
    """Whether lines of these settings, of all these numbers of poisons and of all these attacks, if any, are there.

    What is not set is None.
    """
    for name, value in settings.items():
        known = known[known[name].isna() if value is None else known[name] == value]
    if attacks is None:
        return set(poisons) <= set(known.poisons)
    return set(itertools.product(attacks, poisons)) <= set(zip(known.attack, known.poisons))
