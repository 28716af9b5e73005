"""What crafting poison sets measured: results/ipoisoning/<attack>/crafting.csv, a line a set."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from files import Unreadable
from results import lines

NEEDED = ["attack", "poison_set", "ratio"]
SHARES = [
    "target_test_acc", "victim_test_acc", "random_test_acc", "pass_sphere", "pass_slab", "ratio", "epsilon", "share",
]  # fmt: skip
NUMBERS = [
    "wall_seconds", "quantile", "rho", "step_size", "upper_bound", "training_loss", "worst_duality_gap",
    "residual_before", "residual_after", "least_residual_after", "residual_bound", "poisons_needed",
]  # fmt: skip
COUNTS = ["seed", "n_poison", "programs_solved", "programs_failed", "rounds", "generations", "epochs"]


def read(path: Path) -> pd.DataFrame:
    """The lines of a crafting.csv: NEEDED, and what the attack is set to and measures; raises `Unreadable`."""
    header = lines.header(path)
    kinds = dict.fromkeys(header, lines.TEXT) | dict.fromkeys(SHARES, lines.SHARE)
    kinds |= dict.fromkeys(COUNTS, lines.WHOLE) | dict.fromkeys(NUMBERS, lines.NUMBER)
    if not set(NEEDED) <= set(header):
        raise Unreadable("damaged: it does not say what was crafted")
    return lines.read(path, {name: kinds[name] for name in header}, gaps=[*set(header) - set(NEEDED)])
