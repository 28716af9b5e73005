"""Why a claim's verdict is not `reproduced`, or its controls do not hold: the checks that fail, and by how much."""

from __future__ import annotations

import os
from dataclasses import dataclass

from reports import claims
from results import layout

FINDINGS = layout.REPOSITORY / "results" / "README.md"
SECTIONS = {  # of FINDINGS, where the claims are discussed
    "a": "what-harmless-rows-look-like", "b": "what-harmless-rows-look-like",
    "c": "what-reproduces-and-what-does-not-label-flips",
    "d": "what-reproduces-and-what-does-not-targeted-clean-label-poisons",
    "e": "what-reproduces-and-what-does-not-targeted-clean-label-poisons",
    "f": "what-reproduces-and-what-does-not-the-attacks-of-steinhardt-et-al",
}  # fmt: skip
WHOLE = {"reproduced", "hold"}  # verdicts that need no reason


@dataclass(frozen=True)
class Reason:
    """Why a verdict is what it is. head: a sentence; failed: of each failing check what it asks for, how it misses
    that, and the files of the numbers.
    """

    verdict: str
    head: str
    failed: list[tuple[str, str, str]]


def of(claim: dict) -> list[Reason]:
    """The reasons for a claim's verdicts by the published protocol and by the controls, for those that need one."""
    found = []
    for kind, (counted, column, words) in claims.KINDS.items():
        if claim[column] not in WHOLE:
            found.append(reason(claim, kind, counted, claim[column], words))
    return found


def reason(claim: dict, kind: str, counted: str, word: str, words: tuple[str, str, str]) -> Reason:
    checks = [check for check in claim["checks"] if check["kind"] == kind]
    made = [check for check in checks if check["passed"] is not None]
    failing = [check for check in made if not check["passed"]]
    head = f"Failed: {len(failing)} of {len(made)} {counted}."
    if not made:
        head = f"None of the {len(checks)} {counted} could be made: the results that they take are not there."
    elif len(made) < len(checks):
        head += f" {len(checks) - len(made)} more could not be made: the results that they take are not there."
    if kind == claims.PUBLISHED and len(claim["by_seed"]) >= claims.FEWEST_SEEDS:
        head += of_seeds(claim, claims.verdict([check["passed"] for check in made], words))
    return Reason(word, head, [(check["check"], missed(check), source(check)) for check in failing])


def of_seeds(claim: dict, alone: str) -> str:
    """What the seeds say beside the paper's seed, by itself `alone`."""
    seeds = claim["by_seed"]
    most = seeds.passed.max()
    return (
        f" By seed {layout.SEED} alone the word would be: {alone}. Over {len(seeds)} seeds {seeds.passed.mean():.1f} of"
        f" the {seeds.checks.max()} checks pass in the mean, and {most} at most, in"
        f" {(seeds.passed == most).sum()} of them; the verdict is that of most seeds."
    )


def missed(check: dict) -> str:
    """How a failing check misses, in words."""
    miss = check.get("miss")
    if miss is None:
        return f"Measured: {check['measured']}."
    if miss.rows == 1:
        return f"{miss.text[0].upper()}{miss.text[1:]}."
    return f"It fails in {miss.failed} of {miss.rows}; farthest off is {miss.row}: {miss.text}."


def source(check: dict) -> str:
    """The files of the row that a failing check tells of."""
    return check["miss"].source if check.get("miss") else check["source"]


def findings(letter: str) -> str:
    """Where a claim is discussed in prose, from the results folder."""
    return f"{os.path.relpath(FINDINGS, layout.RESULTS)}#{SECTIONS[letter]}"
