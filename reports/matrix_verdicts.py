"""What the matrix says, by rules that were written before it was run: on the binary subtask's logistic regression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from models.kind import UNDEFENDED_TEXT
from poisons import poison_set
from reports import Table
from reports.matrix import PAPERS, WORST, interval
from results import layout

DIMENSIONS = Path(__file__).parent.parent / "tests" / "controls" / "dimension.csv"
MOST = 0.75  # of the kinds, for a claim of the paper to extend to the family
SURVIVES = 0.5  # Spearman's correlation, for a ranking to survive
FOLLOWS = 0.9  # of the cells, for the break to follow a condition
NOT_RUN = "not run"


def judge(matrix: Table, rows: Table) -> list[dict]:
    """The verdicts, dicts of question, answer, rule and evidence."""
    places = rows.frame[(rows.frame.dataset == layout.SUBTASK) & (rows.frame.network == "lr")]
    place = places[["epochs", "start"]].drop_duplicates()
    cells = matrix.frame.merge(place).query("chosen and network == 'lr'")
    cells = cells[(cells.dataset == layout.SUBTASK) & (cells.attack != poison_set.NONE)]
    rows = places[places.chosen]
    judged = [in_short(cells, rows), beats_clipping(cells), paper_extends(cells), ranking_survives(cells, rows)]
    return [*judged, dimension()]


def in_short(cells: pd.DataFrame, rows: pd.DataFrame) -> dict:
    """The answer to the title's question as a paragraph, of which every number is one of the tables."""
    verdict = {
        "question": "Which gradient shaping works, against which attack, at what price?",
        "rule": "chosen values of all kinds but those with trusted rows; means over the seeds after the last epoch",
    }
    kinds = rows[(rows.kind != UNDEFENDED_TEXT) & ~rows.kind.str.contains("trusted")].set_index("shaping")
    oblivious = cells[(cells.adaptive == "") & (cells.shaping != UNDEFENDED_TEXT)]
    worst = cells[(cells.attack == WORST) & (cells.ratio == 0.1)].set_index("shaping")
    if kinds.oblivious_gain_mean.isna().all() or UNDEFENDED_TEXT not in worst.index:
        return {**verdict, "answer": NOT_RUN, "evidence": ""}
    best, clip = kinds.oblivious_gain_mean.idxmax(), kinds.index[kinds.kind == "clip"][0]
    sure = kinds.oblivious_gain_mean > kinds.oblivious_gain_ci95
    adaptive = worst.final_mean.drop(UNDEFENDED_TEXT).reindex(kinds.index).dropna()
    price = rows.set_index("shaping").price

    def told(text: str) -> str:
        row, mine = kinds.loc[text], oblivious[oblivious.shaping == text].set_index("column").gain_mean
        mine = mine.drop(poison_set.NONE, errors="ignore")
        return (
            f"`{text}` {points(row.oblivious_gain_mean)} ± {100 * row.oblivious_gain_ci95:.1f} points, from"
            f" {points(mine.max())} on {mine.idxmax()} to {points(mine.min())} on {mine.idxmin()}"
        )

    paragraph = (
        f"Of {len(kinds)} kinds of gradient shaping, each at the value that held-out clean rows choose, {sure.sum()}"
        f" gain over undefended training in the mean of {oblivious.column.nunique()} poison sets that know nothing of"
        f" them. The best is {told(best)}; clipping, the paper's: {told(clip)}. Against poisons crafted for the"
        f" victim's own shaping, or for another's if those do more harm, one for every ten clean rows, undefended"
        f" training keeps an accuracy of {worst.final_mean[UNDEFENDED_TEXT]:.3f}, `{clip}` {adaptive[clip]:.3f},"
        f" `{best}` {adaptive[best]:.3f}; most keeps `{adaptive.idxmax()}` with {adaptive.max():.3f}, least"
        f" `{adaptive.idxmin()}` with {adaptive.min():.3f}. To hold a model of at most 75% still takes"
        f" {100 * price[UNDEFENDED_TEXT]:.0f} poisons for every hundred clean rows without a defence,"
        f" {100 * price[clip]:.0f} under `{clip}`, {100 * price[best]:.0f} under `{best}`."
    )
    return {**verdict, "answer": "none everywhere", "evidence": paragraph}


def points(gain: float) -> str:
    """A gain, a share of 1, in points with its sign."""
    return f"{100 * gain:+.1f}".replace("-", "\N{MINUS SIGN}")


def beats_clipping(cells: pd.DataFrame) -> dict:
    """Does any shaping beat clipping everywhere?"""
    verdict = {
        "question": "Does any shaping beat clipping on every column?",
        "rule": "chosen values; the difference to chosen clipping, seed by seed, has its 95% interval above 0 in every"
        " column, those of adaptive attackers among them; never worse: in no column below 0, and above 0 in at least"
        " one",
    }
    finals = {
        (cell.shaping, cell.column): np.array(cell.finals.split(), float) * (-1 if cell.measure == "success" else 1)
        for cell in cells.itertuples()
    }
    clips = cells.shaping[cells.kind == "clip"].unique()
    if not len(clips):
        return {**verdict, "answer": NOT_RUN, "evidence": "no clipping was chosen"}
    columns, better, never_worse, most = list(dict.fromkeys(cells.column)), [], [], ("", 0)
    for text in dict.fromkeys(cells.shaping[~cells.kind.isin(["clip", UNDEFENDED_TEXT])]):
        signs = []
        for column in columns:
            pair = finals.get((text, column)), finals.get((clips[0], column))
            if any(values is None for values in pair) or len(pair[0]) != len(pair[1]):
                signs.append(np.nan)
                continue
            difference = pair[0] - pair[1]
            width = interval(difference)
            signs.append(np.sign(difference.mean()) if abs(difference.mean()) > width else 0.0)
        signs = np.array(signs)
        better += [text] if (signs == 1).all() else []
        never_worse += [text] if (signs >= 0).all() and (signs == 1).any() else []
        most = max(most, (text, int((signs == 1).sum())), key=lambda pair: pair[1])
    answer = f"yes: {', '.join(better)}" if better else "no"
    evidence = f"clip norm {clips[0]}, {len(columns)} columns; never worse: {', '.join(never_worse) or 'none'};"
    return {**verdict, "answer": answer, "evidence": f"{evidence} above it in most: {most[0]}, in {most[1]}"}


def paper_extends(cells: pd.DataFrame) -> dict:
    """Which claims about DP-SGD hold for the family?"""
    verdict = {
        "question": "Which claim of the paper extends to the family?",
        "rule": f"chosen values of all kinds but clipping; (c) it helps against label flips of 0.4: the gain's 95%"
        f" interval lies above 0; (f) the strong attack, slabs 0.4, defeats it: the interval does not lie above 0; a"
        f" claim extends if it holds for {MOST:.0%} of the kinds",
    }
    others = cells[~cells.kind.isin([*PAPERS, "clip-layers"])]
    found, extends = [], []
    for claim, column, helps in (("c", "label-flips 0.4", True), ("f", "slabs 0.4", False)):
        mine = others[others.column == column].dropna(subset=["gain_mean", "gain_ci95"])
        holds = (mine.gain_mean > mine.gain_ci95) == helps
        if len(mine):
            found.append(f"({claim}) {column}: {holds.sum()} of {len(mine)} kinds")
            extends += [f"({claim})"] if holds.mean() >= MOST else []
    answer = (" and ".join(extends) or "neither") if found else NOT_RUN
    return {**verdict, "answer": answer, "evidence": "; ".join(found) or "no such column"}


def ranking_survives(cells: pd.DataFrame, rows: pd.DataFrame) -> dict:
    """Does the order of the rows under attackers that do not know them hold under those that do?"""
    verdict = {
        "question": "Does the ranking by oblivious columns survive adaptive attackers?",
        "rule": f"chosen values of all kinds; Spearman's correlation of the mean gain over the oblivious columns and"
        f" the gain in the worst of all adaptive attacks of ratio 0.1, survives from {SURVIVES} on with p below 0.05",
    }
    worst = cells[(cells.attack == WORST) & (cells.ratio == 0.1)].set_index("shaping").gain_mean
    known = rows.set_index("shaping").oblivious_gain_mean.drop(UNDEFENDED_TEXT, errors="ignore")
    pair = pd.concat([known.rename("oblivious"), worst.rename("adaptive")], axis=1, join="inner").dropna()
    if len(pair) < 5:
        return {**verdict, "answer": NOT_RUN, "evidence": f"{len(pair)} rows have both"}
    found = stats.spearmanr(pair.oblivious, pair.adaptive)
    survives = found.statistic >= SURVIVES and found.pvalue < 0.05
    best, then = pair.oblivious.idxmax(), pair.adaptive.idxmax()
    place = int((pair.adaptive > pair.adaptive[best]).sum()) + 1
    evidence = (
        f"correlation {found.statistic:.2f} (p {found.pvalue:.2g}) over {len(pair)} kinds; the best of the oblivious"
        f" columns, {best}, is number {place} under adaptive attackers, whose best is {then}"
    )
    return {**verdict, "answer": "yes" if survives else "no", "evidence": evidence}


def dimension() -> dict:
    """Does robust aggregation break where Hoang's bound says? By the cells of tests/controls/dimension.py."""
    verdict = {
        "question": "Does robust aggregation break where Hoang's bound says, from D = 169 H²/P² parameters on?",
        "rule": f"tests/controls/dimension.py: unboxed poisons, D varied by principal components, whitened ones and"
        f" random ReLU features; the bound is sufficient if {FOLLOWS:.0%} of the cells where it holds are broken, and"
        f" the break follows it if, besides, {FOLLOWS:.0%} of those where it does not hold are not",
    }
    if not DIMENSIONS.exists():
        return {**verdict, "answer": NOT_RUN, "evidence": ""}
    cells, found, answers = pd.read_csv(DIMENSIONS), [], []
    for name, mine in (("whitened features", cells[cells.kind == "white"]), ("all features", cells)):
        for condition, words in (
            ("bound_holds", "the bound"),
            ("sum_holds", "|sum of clipped clean gradients| <= P C"),
        ):
            holds, broken = mine[condition].astype(bool), mine.broken.astype(bool)
            inside, outside = (holds & broken).sum() / holds.sum(), (~holds & broken).sum() / (~holds).sum()
            judged = "not sufficient" if inside < FOLLOWS else "sufficient" if outside > 1 - FOLLOWS else "followed"
            found.append(
                f"{name}, {words} ({judged}): broken {(holds & broken).sum()} of {holds.sum()} where it holds,"
                f" {(~holds & broken).sum()} of {(~holds).sum()} where it does not"
            )
            answers += [judged] if condition == "bound_holds" else []
    answer = "no: it breaks long before" if "followed" not in answers else "yes"
    return {**verdict, "answer": answer, "evidence": "; ".join(found)}
