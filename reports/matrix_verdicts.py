"""What the matrix says, by rules that were written before it was run: on the binary subtask's logistic regression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from models.kind import UNDEFENDED_TEXT
from models.protocols import protocol
from poisons import poison_set
from reports import Table, matrix_page
from reports.matrix import WORST, by_seed, interval
from reports.matrix_page import points
from reports.matrix_runs import PAPERS
from results import layout

DIMENSIONS = Path(__file__).parent.parent / "tests" / "controls" / "dimension.csv"
FEATURES = {
    "white": "whitened features", "pca": "principal components", "relu": "random ReLU features", "all": "all features"
}  # fmt: skip
CONDITIONS = {"bound_holds": "the bound", "sum_holds": "|sum of clipped clean gradients| <= P C"}
LAYERS = "clip-layers"  # clips each layer by itself, so on a network of one layer it is `clip` under another name
MOST = 0.75  # of the kinds, for a claim of the paper to extend to the family
SURVIVES = 0.5  # Spearman's correlation, for a ranking to survive
FOLLOWS = 0.9  # of the cells, for the break to follow a condition
NOT_RUN, UNTOLD = "not run", "cannot be told"


def judge(matrix: Table, rows: Table) -> list[dict]:
    """The verdicts, dicts of question, answer, rule and evidence; by the trainings of the paper's epochs from scratch
    alone, whatever else was trained.
    """
    cells, rows = (published(table.frame) for table in (matrix, rows))
    attacked = cells[cells.attack != poison_set.NONE]
    of_kinds = [in_short(attacked, rows), beats_clipping(attacked), paper_extends(cells)]
    return [*of_kinds, ranking_survives(attacked, rows), dimension()]


def published(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of the chosen shapings at the place that the verdicts are about."""
    epochs = protocol(layout.SUBTASK, "lr").epochs
    place = (frame.dataset == layout.SUBTASK) & (frame.network == "lr")
    return frame[place & (frame.epochs == epochs) & (frame.start == "scratch") & frame.chosen.astype(bool)]


def gains(cells: pd.DataFrame) -> pd.Series:
    """Whether each cell's gain has its 95% interval above 0. The mean of the seeds that are left where a training
    diverged is no gain.
    """
    return (cells.gain_mean > cells.gain_ci95) & (cells.diverged == 0)


# --- which one works ---


def in_short(cells: pd.DataFrame, rows: pd.DataFrame) -> dict:
    """The answer to the title's question, and a paragraph, of which every number is one of the tables."""
    verdict = {
        "question": "Which gradient shaping works, against which attack, at what price?",
        "rule": "chosen values of all kinds but those with trusted rows; works: the gain over undefended has its 95%"
        " interval above 0 in every column, those of adaptive attackers among them, and no training diverged; means"
        " over the seeds after the last epoch",
    }
    kinds = rows[(rows.kind != UNDEFENDED_TEXT) & ~rows.kind.str.contains("trusted")].set_index("shaping")
    if kinds.oblivious_gain_mean.isna().all():
        return {**verdict, "answer": NOT_RUN, "evidence": ""}
    clips, best = kinds.index[kinds.kind == "clip"][:1], kinds.oblivious_gain_mean.idxmax()
    named = list(dict.fromkeys([*clips, best]))
    parts = [against_oblivious(cells, kinds, best, *clips), against_adaptive(cells, kinds, named), priced(rows, named)]
    answer = ", ".join(everywhere(cells, kinds)) or "none in every column"
    return {**verdict, "answer": answer, "evidence": " ".join(filter(None, parts))}


def everywhere(cells: pd.DataFrame, kinds: pd.DataFrame) -> list[str]:
    """The shapings that gain in every column that there is; one that a shaping lacks counts against it."""
    cells = cells[cells.attack != WORST]  # which repeats one of the others
    gained = cells[gains(cells)].groupby("shaping").column.nunique()
    return [text for text in kinds.index if 0 < gained.get(text, 0) == cells.column.nunique()]


def against_oblivious(cells: pd.DataFrame, kinds: pd.DataFrame, best: str, clip: str | None = None) -> str:
    """How many kinds gain in the mean of the oblivious columns, and how much the best one and clipping."""
    oblivious = cells[(cells.adaptive == "") & (cells.attack != WORST) & (cells.measure == "accuracy")]
    gained = (kinds.oblivious_gain_mean > kinds.oblivious_gain_ci95).sum()

    def told(text: str) -> str:
        mean = kinds.loc[text, ["oblivious_gain_mean", "oblivious_gain_ci95"]].astype(float).tolist()
        mine = oblivious[oblivious.shaping == text].set_index("column").gain_mean.dropna()
        gain = f"`{text}` {matrix_page.interval(points, *mean)} points"
        if mine.empty:
            return gain
        # floats of Python's, as the page has them: NumPy rounds 6.85 another way
        most, least = points(float(mine.max())), points(float(mine.min()))
        return f"{gain}, from {most} on {mine.idxmax()} to {least} on {mine.idxmin()}"

    paragraph = (
        f"Of {len(kinds)} kinds of gradient shaping, each at the value that held-out clean rows choose, {gained}"
        f" gain over undefended training in the mean of {oblivious.column.nunique()} poison sets that know nothing of"
        f" them. The best is "
    )
    if clip == best:
        return f"{paragraph}clipping, the paper's: {told(clip)}."
    if clip is None or np.isnan(kinds.oblivious_gain_mean[clip]):
        return f"{paragraph}{told(best)}."
    return f"{paragraph}{told(best)}; clipping, the paper's: {told(clip)}."


def against_adaptive(cells: pd.DataFrame, kinds: pd.DataFrame, named: list[str]) -> str:
    """What the worst adaptive attack of ratio 0.1 leaves; empty where it was not run."""
    worst = cells[(cells.attack == WORST) & (cells.ratio == 0.1)].set_index("shaping").final_mean.dropna()
    adaptive = worst.reindex(kinds.index).dropna()
    if UNDEFENDED_TEXT not in worst or adaptive.empty:
        return ""
    kept = "".join(f", `{text}` {adaptive[text]:.3f}" for text in named if text in adaptive)
    return (
        f"Against poisons crafted for the victim's own shaping, or for another's if those do more harm, one for every"
        f" ten clean rows, undefended training keeps an accuracy of {worst[UNDEFENDED_TEXT]:.3f}{kept}; most keeps"
        f" `{adaptive.idxmax()}` with {adaptive.max():.3f}, least `{adaptive.idxmin()}` with {adaptive.min():.3f}."
    )


def priced(rows: pd.DataFrame, named: list[str]) -> str:
    """What an attacker pays for a bad model; empty where no price is known."""
    prices = rows.set_index("shaping").price.reindex([UNDEFENDED_TEXT, *named]).dropna()
    under = {text: f"under `{text}`" for text in named}
    told = [f"{100 * price:.0f} {under.get(text, 'without a defence')}" for text, price in prices.items()]
    if not told:
        return ""
    told[0] = told[0].replace(" ", " poisons for every hundred clean rows ", 1)
    return f"To hold a model of at most 75% still takes {', '.join(told)}."


# --- against clipping ---


def beats_clipping(cells: pd.DataFrame) -> dict:
    """Does any shaping beat clipping everywhere?"""
    verdict = {
        "question": "Does any shaping beat clipping on every column?",
        "rule": "chosen values; the difference to chosen clipping, seed by seed, has its 95% interval above 0 in every"
        " column, those of adaptive attackers among them; never worse: in no column below 0, and above 0 in at least"
        " one; a column without an interval, since a training diverged or fewer than three seeds are common, counts as"
        " below 0",
    }
    cells = cells[cells.attack != WORST]  # which repeats one of the others
    clips = cells.shaping[cells.kind == "clip"].unique()
    others = list(dict.fromkeys(cells.shaping[~cells.kind.isin(["clip", LAYERS, UNDEFENDED_TEXT])]))
    if not len(clips) or not others:
        return {**verdict, "answer": NOT_RUN, "evidence": "no clipping was chosen" if others else "no other was chosen"}
    finals, columns = finals_of(cells), list(dict.fromkeys(cells.column))
    clipped = [finals.get((clips[0], column)) for column in columns]
    signs = pd.DataFrame({
        text: [sign(finals.get((text, column)), other) for column, other in zip(columns, clipped)] for text in others
    })  # fmt: skip
    above, below = (signs == 1).sum(), (signs == -1).sum()
    better = ", ".join(above.index[above == len(columns)])
    never_worse = ", ".join(above.index[(below == 0) & (above > 0)]) or "none"
    most = f"{above.idxmax()}, in {above.max()}" if above.any() else "none"
    evidence = f"clip norm {clips[0]}, {len(columns)} columns; never worse: {never_worse}; above it in most: {most}"
    return {**verdict, "answer": f"yes: {better}" if better else "no", "evidence": evidence}


def finals_of(cells: pd.DataFrame) -> dict[tuple[str, str], pd.Series]:
    """What the seeds came to, by shaping and column; of an attack's successes the negatives, so that more is better."""
    return {
        (cell.shaping, cell.column): by_seed(cell.finals, cell.seed_numbers) * (-1 if cell.measure == "success" else 1)
        for cell in cells.itertuples()
    }


def sign(mine: pd.Series | None, other: pd.Series | None) -> int:
    """Where the 95% interval of the difference over the common seeds lies: 1 above 0, 0 around it, -1 below or nowhere,
    for want of seeds or of numbers.
    """
    if mine is None or other is None:
        return -1
    differences = (mine - other)[mine.index.intersection(other.index)].to_numpy()
    width = interval(differences)
    if np.isnan(width):
        return -1
    return int(np.sign(differences.mean())) if abs(differences.mean()) > width else 0


# --- the paper's claims ---


def paper_extends(cells: pd.DataFrame) -> dict:
    """Which claims about DP-SGD hold for the family? cells: those of clean rows, too."""
    verdict = {
        "question": "Which claim of the paper extends to the family?",
        "rule": f"chosen values of all kinds but clipping; (c) it helps against label flips of 0.4: the gain's 95%"
        f" interval lies above 0; (f) the strong attack, slabs 0.4, defeats it: the interval does not lie above 0, and"
        f" undefended training loses accuracy to that attack, by the interval, else nothing is to be won; a claim"
        f" extends if it holds for {MOST:.0%} of the kinds; one that diverged is not helped",
    }
    others = cells[~cells.kind.isin([*PAPERS, LAYERS])]
    found, extends = [], {}
    for claim, column, helps in (("(c)", "label-flips 0.4", True), ("(f)", "slabs 0.4", False)):
        mine = others[(others.column == column) & (others.gain_ci95.notna() | (others.diverged > 0))]
        if mine.empty:
            continue
        holds, can_fail = gains(mine) == helps, helps or harmed(cells, column)
        why = "" if can_fail else ", which says nothing: undefended training does not surely lose accuracy to it"
        found.append(f"{claim} {column}: {holds.sum()} of {len(mine)} kinds{why}")
        extends |= {claim: holds.mean() >= MOST} if can_fail else {}
    answer = " and ".join(claim for claim, holds in extends.items() if holds)
    answer = answer or ("neither" if extends else UNTOLD if found else NOT_RUN)
    return {**verdict, "answer": answer, "evidence": "; ".join(found) or "no such column"}


def harmed(cells: pd.DataFrame, column: str) -> bool:
    """Whether undefended training surely keeps less in a column than on clean rows."""
    finals = finals_of(cells[cells.shaping == UNDEFENDED_TEXT])
    return sign(finals.get((UNDEFENDED_TEXT, poison_set.NONE)), finals.get((UNDEFENDED_TEXT, column))) == 1


# --- rankings ---


def ranking_survives(cells: pd.DataFrame, rows: pd.DataFrame) -> dict:
    """Does the order of the rows under attackers that do not know them hold under those that do?"""
    verdict = {
        "question": "Does the ranking by oblivious columns survive adaptive attackers?",
        "rule": f"chosen values of all kinds, clipping by layers apart, which is clipping on one layer; Spearman's"
        f" correlation of the mean gain over the oblivious columns and the gain in the worst of all adaptive attacks of"
        f" ratio 0.1, where what diverged is last, survives from {SURVIVES} on with p below 0.05",
    }
    worst = cells[(cells.attack == WORST) & (cells.ratio == 0.1)].set_index("shaping")
    worst = worst.gain_mean.where(worst.diverged == 0, -np.inf)
    known = rows[~rows.kind.isin([LAYERS, UNDEFENDED_TEXT])].set_index("shaping").oblivious_gain_mean
    pair = pd.concat([known.rename("oblivious"), worst.rename("adaptive")], axis=1, join="inner").dropna()
    if len(pair) < 5:
        return {**verdict, "answer": NOT_RUN, "evidence": f"{len(pair)} rows have both"}
    if pair.nunique().min() == 1:
        return {**verdict, "answer": UNTOLD, "evidence": f"all {len(pair)} rows gain alike: there is no ranking"}
    found = stats.spearmanr(pair.oblivious, pair.adaptive)
    survives = found.statistic >= SURVIVES and found.pvalue < 0.05
    best, then = pair.oblivious.idxmax(), pair.adaptive.idxmax()
    place = int((pair.adaptive > pair.adaptive[best]).sum()) + 1
    evidence = (
        f"correlation {found.statistic:.2f} (p {found.pvalue:.2g}) over {len(pair)} kinds; the best of the oblivious"
        f" columns, {best}, is number {place} under adaptive attackers, whose best is {then}"
    )
    return {**verdict, "answer": "yes" if survives else "no", "evidence": evidence}


# --- dimension ---


def dimension() -> dict:
    """Does robust aggregation break where Hoang's bound says? By the cells of tests/controls/dimension.py."""
    verdict = {
        "question": "Does robust aggregation break where Hoang's bound says, from D = 169 H²/P² parameters on?",
        "rule": f"tests/controls/dimension.py: unboxed poisons, D varied by principal components, whitened ones and"
        f" random ReLU features; the bound is sufficient if {FOLLOWS:.0%} of the cells where it holds are broken, and"
        f" the break follows it if, besides, {FOLLOWS:.0%} of those where it does not hold are not; a bound that holds"
        f" in no cell or in all cannot be told; the answer is that of all features, or of the whitened ones",
    }
    if not DIMENSIONS.exists():
        return {**verdict, "answer": NOT_RUN, "evidence": ""}
    cells, found, bound = pd.read_csv(DIMENSIONS), [], {}
    for kind, name in FEATURES.items():
        mine = cells if kind == "all" else cells[cells.kind == kind]
        for condition, words in CONDITIONS.items():
            inside, outside = (mine.broken[mine[condition] == holds].astype(bool) for holds in (True, False))
            judged = followed(inside, outside)
            found.append(
                f"{name}, {words} ({judged}): broken {inside.sum()} of {len(inside)} where it holds, {outside.sum()} of"
                f" {len(outside)} where it does not"
            )
            bound |= {kind: (judged, inside, outside)} if condition == "bound_holds" else {}
    return {**verdict, "answer": answer_of(bound), "evidence": "; ".join(found)}


def followed(inside: pd.Series, outside: pd.Series) -> str:
    """Whether a break follows a condition; bools, whether each cell broke, where the condition holds and where not."""
    if not len(inside) or not len(outside):
        return UNTOLD
    if inside.mean() < FOLLOWS:
        return "not sufficient"
    return "followed" if (~outside).mean() >= FOLLOWS else "sufficient"


def answer_of(bound: dict[str, tuple[str, pd.Series, pd.Series]]) -> str:
    """The answer by what `followed` says of each kind of features, and what it says it of."""
    judged, inside, outside = bound["all"]
    if judged in ("followed", UNTOLD):
        return "yes" if judged == "followed" else UNTOLD
    if bound["white"][0] == "followed":
        return f"yes, on {FEATURES['white']}"
    whole = f"in {(~inside).sum()} of {len(inside)} cells above the bound it does not break"
    broken = f"in {outside.sum()} of {len(outside)} cells below the bound it breaks"
    fails = {whole: inside.mean() < FOLLOWS, broken: (~outside).mean() < FOLLOWS}
    return "no: " + ", and ".join(text for text, fault in fails.items() if fault)
