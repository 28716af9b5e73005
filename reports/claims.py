"""The claims of the paper's abstract, (a) to (f), judged by checks on numbers of the tables: those of checks.csv.

Checks take the published protocol; controls ask what the paper does not. A claim is `reproduced` when all its checks
pass, `reproduced in part` when at least half do, `not reproduced` when fewer do, `not run` when none could be made; its
controls are judged alike: they `hold`, `hold in part`, `do not hold`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from reports import Table, misses
from reports.frames import sources
from reports.indiscriminate import CLIP_NORMS
from results import layout

# table, rows: what a check is made of, a pandas query; of nulls for each of GRADIENTS, of the sweeps with each of the
# paper's clip norms, without noise; against: an undefended row beside it (..._alone), or as `alone`; passes: an
# expression that must hold of all rows, of most of the clip norms; column, published: what is shown of them
CHECKS = Path(__file__).with_name("checks.csv")
COLUMNS = ["claim", "kind", "check", "measured", "published", "passed", "source"]
TITLES = {
    "a": "Poison gradients are larger",
    "b": "Poison gradients point elsewhere",
    "c": "DP-SGD helps against indiscriminate attacks",
    "d": "DP-SGD mitigates one-shot targeted attacks",
    "e": "DP-SGD raises the attacker's price",
    "f": "The strong, unrealistic attack defeats DP-SGD",
}
PUBLISHED = "published protocol"
OVER_SEEDS, FEWEST_SEEDS = "cf", 3  # claims whose published checks are of one seed each
SEED_COLUMNS = ["claim", "seed", "passed", "checks", "verdict"]
KINDS = {  # of checks: what they are counted as, where it is said whether all pass, at least half do, or fewer
    PUBLISHED: ("checks", "verdict", ("reproduced", "reproduced in part", "not reproduced")),
    "control": ("controls", "under_controls", ("hold", "hold in part", "do not hold")),
}
OF_SWEEPS, OF_PAIRS = ("indiscriminate", "seeds"), ("doses", "together")  # tables
GRADIENTS = {  # of undefended trainings: the published ones and the targeted one of the stand-in
    "watermarks, 100 pairs, logistic regression": f"set == 'pairs_of_100' and dataset == '{layout.SUBTASK}'",
    "watermarks, 100 pairs, shallow MLP": "set == 'pairs_of_100' and dataset == 'fashion_mnist'",
    "backdoors, BadNet": "analysis == 'insertion' and network == 'badnet'",
    "label flips, 0.4": "set == 'label-flips'",
    "slabs, 0.4": "set == 'slabs'",
    "targeted, one target": "analysis == 'tpoisoning'",
}


def judge(tables: dict[str, Table], seeds: dict[int, Table]) -> list[dict]:
    """The claims, judged by the tables (by name): letter, title, verdict, under_controls, evidence, checks and by_seed.

    A check's `passed` is None where its numbers are not there; its `miss` says by how much it fails
    (`reports.misses`). seeds: the table indiscriminate of each seed; where three or more have all that a claim of
    OVER_SEEDS needs, the verdict is that of most of them.
    """
    checks = [check for line in lines() for check in checks_of(line, tables.get(line.table))]
    of_seeds = pd.DataFrame(by_seed(seeds), columns=SEED_COLUMNS)
    claims = []
    for letter, title in TITLES.items():
        own = [check for check in checks if check["claim"] == letter]
        claim: dict[str, Any] = {"letter": letter, "title": title, "checks": own}
        evidence = []
        for kind, (counted, column, words) in KINDS.items():
            passed = [check["passed"] for check in own if check["kind"] == kind]
            made = [one for one in passed if one is not None]
            claim[column] = verdict(made, words) if made else "not run"
            not_run = f" ({len(passed) - len(made)} not run)" if len(made) < len(passed) else ""
            evidence.append(f"{sum(made)} of {len(passed)} {counted}{not_run}")
        mine = of_seeds[of_seeds.claim == letter]
        if len(mine) >= FEWEST_SEEDS:
            words = KINDS[PUBLISHED][2]
            counts = mine.verdict.value_counts().reindex(words[::-1], fill_value=0)
            claim["verdict"] = counts.idxmax()  # of equals the weaker
            evidence.append(f"{len(mine)} seeds: " + ", ".join(f"{counts[word]} {word}" for word in words))
        claims.append({**claim, "evidence": ", ".join(evidence), "by_seed": mine})
    return claims


def verdict(passed: list[bool], words: tuple[str, str, str]) -> str:
    """The word for checks that all pass, at least half, or fewer."""
    return words[0 if all(passed) else 1 if 2 * sum(passed) >= len(passed) else 2]


def lines() -> list:
    """The lines of checks.csv, by its columns."""
    return list(pd.read_csv(CHECKS, keep_default_na=False).itertuples())


def by_seed(seeds: dict[int, Table]) -> Iterator[tuple]:
    """The verdict on each claim of OVER_SEEDS by the published protocol's checks at each seed that has all of them, by
    SEED_COLUMNS.
    """
    for letter in OVER_SEEDS:
        wanted = [
            line for line in lines() if (line.claim, line.kind, line.table) == (letter, PUBLISHED, "indiscriminate")
        ]
        for seed, table in seeds.items():
            passed = [check["passed"] for line in wanted for check in checks_of(line, table)]
            if None not in passed:
                yield letter, seed, sum(passed), len(passed), verdict(passed, KINDS[PUBLISHED][2])


def seeds_table(claims: list[dict]) -> Table:
    """The verdicts by seed, as results/tables/claims_by_seed.csv."""
    return Table("claims_by_seed", SEED_COLUMNS, pd.concat([claim["by_seed"] for claim in claims]))


def table(claims: list[dict]) -> Table:
    """Every check, as results/tables/claims.csv."""
    frame = pd.DataFrame([check for claim in claims for check in claim["checks"]], dtype=object)
    return Table("claims", COLUMNS, frame.assign(passed=frame.passed.where(frame.passed.notna(), "not run")))


def checks_of(line, table: Table | None) -> Iterator[dict]:
    """The checks, by COLUMNS, that a line of checks.csv asks for; table: None where there is nothing to make one of."""
    if table is None:
        yield made(line, line.check)
        return
    rows = table.find().dropna(subset=line.column)
    if line.table == "nulls":
        rows = rows[rows.shaping == "undefended"].query(line.rows).dropna(subset="draws")
        for name, wanted in GRADIENTS.items():
            yield outcome(line, line.check.format(set=name), rows.query(wanted))
        return
    if line.table == "half_doses":
        yield outcome(line, line.check, rows.query(line.rows))
        return
    alone = rows.query(line.against or line.rows)
    rows = rows.query(line.rows)
    if line.table in OF_PAIRS:
        pairs = rows.merge(alone, on=["dataset", "radius"], suffixes=("", "_alone"))
        yield of_pair(line, pairs.sort_values(["targets", "targets_alone"], ascending=False, kind="stable").head(1))
        return
    rows = rows[rows.clip_norm.isin(CLIP_NORMS) & (rows.noise_multiplier == 0)]
    best = alone[line.column].max()
    text = line.check.format(alone=f" ({best:.4f})" if len(alone) else "")
    yield outcome(line, text, rows.assign(alone=best) if len(alone) else rows.iloc[:0])


def outcome(line, text: str, rows: pd.DataFrame) -> dict:
    """A check of rows: that all of them pass, of rows with the clip norms that most do."""
    if rows.empty:
        return made(line, text)
    passed, measured = rows.eval(line.passes), span(rows[line.column])
    comparable = rows[~rows.incomparable] if "incomparable" in rows else rows
    known = span(comparable[line.published]) if line.published else ""
    if line.table in OF_SWEEPS:
        measured = f"{passed.sum()} of {len(rows)} clip norms; {measured}"
        measured += f"; {rows.seeds.min()} seeds" if "seeds" in rows else ""
    if line.table == "nulls":
        measured += f"; duplicates {span(pd.concat([rows.null_low, rows.null_high]))}"
    if line.table == "half_doses":
        ends = rows[[f"{line.column}_low", f"{line.column}_high"]]
        measured += f" ({span(ends.iloc[:, 0])} to {span(ends.iloc[:, 1])})"
    enough = passed.mean() > 0.5 if line.table in OF_SWEEPS else passed.all()
    called = rows.setting if line.table == "nulls" else "clip norm " + rows.clip_norm.map("{:g}".format)
    miss = None if enough else misses.worst(line.passes, rows.assign(called=called).reset_index(drop=True))
    return made(line, text, measured, known, bool(enough), sources(rows.source), miss)


def of_pair(line, pair: pd.DataFrame) -> dict:
    """A check of a setting under DP-SGD and the undefended one, as one row; where there is none, of nothing."""
    if pair.empty:
        return made(line, line.check)
    measured = " against ".join(f"{pair.iloc[0][name]:g}" for name in (line.column, f"{line.column}_alone"))
    files = sources(pair.iloc[0][["source", "source_alone"]])
    miss = misses.worst(line.passes, pair.reset_index(drop=True))
    return made(line, line.check, measured, "", miss is None, files, miss)


def made(line, text: str, measured="not run", published="", passed: bool | None = None, source="", miss=None) -> dict:
    return {**dict(zip(COLUMNS, (line.claim, line.kind, text, measured, published, passed, source))), "miss": miss}


def span(values: pd.Series) -> str:
    """The range of the numbers there are, in words; empty where there are none."""
    ends = (values.min(), values.max()) if values.notna().any() else ()
    return " to ".join(dict.fromkeys(f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}" for value in ends))
