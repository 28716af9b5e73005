"""What the results were made on, by what they say of themselves: date, commit, hardware.

Nothing here is of the moment or of the commit at which the report is made, so that the same results give the same page.
"""

from __future__ import annotations

import contextlib
import re
import subprocess

import pandas as pd

from reports.reading import MACHINE, Results
from results import layout

COMMIT = re.compile(r"[0-9a-f]{7,40}\+?")
MOST_SHOWN, MOST_COMMITS = 3, 1000
UNKNOWN = "not recorded"


def facts(results: Results) -> dict[str, str]:
    """Facts by name: how many results were counted, and when, by which commit, and on what they were made."""
    parts = {"trainings": results.trainings, "gradient analyses": results.analyses, "targets": results.trials}
    counts = {name: len(part.cells) for name, part in parts.items()}
    made_on = pd.concat([part.cells[MACHINE] for part in parts.values()]).dropna(how="all")
    counted = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    found = {
        "results counted": counted,
        "date": date(made_on.commit.dropna().unique()) or UNKNOWN,
        "commit": told(made_on.commit),
        "processor": told(made_on.cpu),
        "GPU": told(made_on.gpu) if made_on.gpu.notna().any() else UNKNOWN if made_on.empty else "none",
        "software": results.versions or UNKNOWN,
    }
    unknown = sum(counts.values()) - len(made_on)
    if unknown and len(made_on):
        found["results that do not say"] = f"{unknown:,}"
    return found


def told(values: pd.Series) -> str:
    """What results say of one part, the most frequent first, with how many say so."""
    counts = values.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    if counts.empty:
        return UNKNOWN
    texts = [f"{name} ({count:,})" for name, count in counts.head(MOST_SHOWN).items()]
    return ", ".join(texts) + (f" and {len(counts) - MOST_SHOWN} more" if len(counts) > MOST_SHOWN else "")


def date(commits) -> str:
    """The day of the newest of the commits that results name, in words; empty where this repository knows none."""
    known = sorted(name.rstrip("+") for name in commits if COMMIT.fullmatch(name))[:MOST_COMMITS]
    if not known:
        return ""
    days = []
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        words = ["git", "-C", str(layout.REPOSITORY), "log", "--no-walk", "--ignore-missing", "--format=%cs", *known]
        days = subprocess.run([*words, "--"], capture_output=True, text=True, timeout=10, check=True).stdout.split()
    return f"{max(days)} or later, the day of the newest commit below" if days else ""
