"""How a claim is judged: by checks on numbers of the tables, under the published protocol and under controls that the paper lacks.

The rule, which the page states: a claim is `reproduced` when all checks of the published protocol pass, `reproduced in part` when at least half do,
`not reproduced` when fewer do, `not run` when none could be made. Its controls are judged alike: they `hold`, `hold in part`, `do not hold`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from reports import Table

PROTOCOL, CONTROL = "published protocol", "control"
IN_PART = 0.5  # of the checks
COLUMNS = ("claim", "kind", "check", "measured", "published", "passed", "source")


@dataclass
class Check:
    """A condition on numbers of the tables. passed: None where they are not there; source: the CSV files that they come from."""

    kind: str
    text: str
    measured: str = "not run"
    published: str = ""
    passed: bool | None = None
    source: str = ""


@dataclass
class Claim:
    """A claim and its checks. letter: a to f."""

    letter: str
    title: str
    text: str
    checks: list[Check] = field(default_factory=list)

    def judged(self, kind: str) -> float | None:
        """The share of the checks of a kind that pass, of those that could be made; None where there are none."""
        made = [check.passed for check in self.checks if check.kind == kind and check.passed is not None]
        return sum(made) / len(made) if made else None

    @property
    def verdict(self) -> str:
        return in_words(self.judged(PROTOCOL), "reproduced", "reproduced in part", "not reproduced")

    @property
    def under_controls(self) -> str:
        return in_words(self.judged(CONTROL), "hold", "hold in part", "do not hold")

    @property
    def evidence(self) -> str:
        """How many checks passed, and how many were not run."""
        texts = []
        for kind, name in ((PROTOCOL, "checks"), (CONTROL, "controls")):
            of_kind = [check for check in self.checks if check.kind == kind]
            open_ones = sum(check.passed is None for check in of_kind)
            texts.append(
                f"{sum(check.passed is True for check in of_kind)} of {len(of_kind)} {name}"
                + (f" ({open_ones} not run)" if open_ones else "")
            )
        return ", ".join(texts)


def in_words(share: float | None, all_of_them: str, some: str, few: str) -> str:
    if share is None:
        return "not run"
    return all_of_them if share == 1 else some if share >= IN_PART else few


def table(claims: list[Claim]) -> Table:
    """Every check, as results/tables/claims.csv."""
    lines = [
        {"claim": claim.letter, "kind": check.kind, "check": check.text, "measured": check.measured, "published": check.published,
         "passed": "not run" if check.passed is None else check.passed, "source": check.source}
        for claim in claims for check in claim.checks
    ]  # fmt: skip
    return Table("claims", "Every check of every claim", COLUMNS, lines)


def find(lines: list[dict], **wanted) -> list[dict]:
    """The finished rows that have these values."""
    return [line for line in lines if line.get("source") and all(line[name] == value for name, value in wanted.items())]


def sources(lines: list[dict]) -> str:
    return "; ".join(dict.fromkeys(line["source"] for line in lines))


def span(values: list[float]) -> str:
    """The range of values, in words."""
    low, high = (f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
