"""The matrix's page: results/matrix.html, one file that needs no other; its words: matrix.html and threats.csv."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.ticker import FixedLocator

from files import writing
from models.kind import UNDEFENDED_TEXT
from poisons import poison_set, shafahi
from reports.matrix import COLLAPSED
from results import layout, plotting

HERE = Path(__file__).parent
SORTER = HERE / "sortable.auto.min.js"  # the one of the report's page
PLACE = ["dataset", "network", "epochs", "start"]  # a table each; the last two may be missing
CLEAN, OBLIVIOUS, ADAPTIVE = GROUPS = "clean", "oblivious", "adaptive"  # of columns, in the order shown
EDGES = [-10, -5, -2, -0.5, 0.5, 2, 5, 10]  # points, between the colours of gains
TICKS = [-50, -20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 50]  # points, on the axes of the plots


@dataclass(frozen=True)
class Column:
    """A column of a table. text: of the cells' `column`; attack: what threats.csv calls it, else the cells' attack;
    group: one of GROUPS; title, knows, threat: of threats.csv, empty where it has no line.
    """

    text: str
    attack: str
    group: str
    measure: str
    title: str
    knows: str
    threat: str


@dataclass
class Section:
    """A table and its plot. name: its place in words; lines: dicts of the rows, in their order; picture: the plot as a
    base64 PNG, empty where there is nothing to draw.
    """

    name: str
    columns: list[Column]
    lines: list[dict]
    picture: str

    @property
    def threats(self) -> list[tuple[Column, list[str]]]:
        """An attack's first column, and the texts of all of its."""
        attacks = dict.fromkeys(column.attack for column in self.columns)
        found = ([column for column in self.columns if column.attack == attack] for attack in attacks)
        return [(same[0], [column.text for column in same]) for same in found]


def write(cells: pd.DataFrame, rows: pd.DataFrame, verdicts: list[dict], versions: str) -> Path:
    """Write the page, and return where it is; the same tables give the same bytes.

    cells: a line a cell, as results/tables/matrix.csv, rows: a line a row, as matrix_rows.csv; accuracies, gains and
    prices as shares of 1, any of them NaN. verdicts: dicts of the texts question, answer, rule and evidence. versions:
    of Python and its packages, or empty. Raises ValueError for two lines of one cell or row, and for a cell of no row.
    """
    place = [name for name in PLACE if name in rows]
    key = [*place, "shaping"]
    twice = cells.duplicated([*key, "column"]).any() or rows.duplicated(key).any()
    if twice or len(cells.merge(rows[key])) < len(cells):
        raise ValueError("the matrix has two lines for one cell or row, or a cell of no row")
    cells, rows = (  # whole numbers that know no NaN, too
        frame.astype({**dict.fromkeys(frame.select_dtypes("number"), float), "chosen": bool}) for frame in (cells, rows)
    )
    sections, details = [], []
    for values, found in rows.groupby(place, sort=False):
        own = cells.merge(found[key])
        shown = columns(own)
        lines = [line(row, shown, own, details) for row in found.itertuples()]
        name = ", ".join(value if isinstance(value, str) else f"{value:g} epochs" for value in values)
        sections.append(Section(name, shown, lines, picture(shown, own, found)))
    sections.sort(key=lambda section: -len(section.columns))  # the largest first
    loader, strict = jinja2.FileSystemLoader(HERE), jinja2.StrictUndefined
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=strict, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = breakable
    # which cannot end the script element that it stands in
    embedded = json.dumps(details, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    html = environment.get_template("matrix.html").render(
        sections=sections, verdicts=verdicts, versions=versions, edges=EDGES, details=embedded, collapsed=COLLAPSED,
        kinds=list(dict.fromkeys(rows.kind)), sorter=SORTER.read_text(encoding="utf-8"), clean=CLEAN, groups=GROUPS,
        attacks=list(dict.fromkeys((column.group, column.attack) for part in sections for column in part.columns)),
    )  # fmt: skip
    path = layout.RESULTS / "matrix.html"
    with writing(path) as stream:
        stream.write(html)
    return path


def columns(cells: pd.DataFrame) -> list[Column]:
    """The columns of a table: groups in their order, columns of a group as they come."""
    threats = pd.read_csv(HERE / "threats.csv", keep_default_na=False).set_index("column")
    made = []
    for name, found in cells.groupby("column", sort=False):
        stem, aimed = re.sub(r" [\d.]+$", "", name), found.adaptive.map(text).any()
        attack = stem if stem in threats.index else text(found.attack.iloc[0])
        group = CLEAN if attack == poison_set.NONE else ADAPTIVE if aimed else OBLIVIOUS
        threat = threats.loc[attack] if attack in threats.index else dict.fromkeys(threats, "")
        made.append(Column(name, attack, group, text(found.measure.iloc[0]), **threat))
    return sorted(made, key=lambda column: GROUPS.index(column.group))


def line(row, shown: list[Column], cells: pd.DataFrame, details: list[dict]) -> dict:
    """A row of a table: what its template shows. What its dialogs say goes to the end of `details`."""
    by_column = {cell.column: cell for cell in cells[cells.shaping == row.shaping].itertuples()}
    details.append(row_detail(row))
    made = {"row": row, "detail": len(details) - 1, "summary": summary(row), "cells": []}
    for column in shown:
        details.append(cell_detail(row.shaping, column, by_column.get(column.text)))
        made["cells"].append({"detail": len(details) - 1, **shown_cell(by_column.get(column.text))})
    made["chosen"] = bool(row.chosen) or row.kind == UNDEFENDED_TEXT  # what is compared with always stays
    return made


def summary(row) -> list[dict]:
    """The cells beside a row's name: rank, clean price, mean and worst gain, worst adaptive gain, attacker's price."""
    note = text(row.attack_note)
    worst = [
        (row.oblivious_gain_worst, text(row.oblivious_worst_column), ""),
        (row.adaptive_gain_worst, "; ".join(filter(None, [text(row.adaptive_worst_column), note])), "*" * bool(note)),
    ]
    return [
        {"text": number(row.rank, ".0f"), "sort": plain(row.rank), "look": "", "tip": ""},
        # a price is a loss: coloured as one
        {**gain_cell(row.clean_price_mean), "look": look(-row.clean_price_mean), "tip": ""},
        {**gain_cell(row.oblivious_gain_mean), "tip": ""},
        *({**gain_cell(gain), "text": points(gain) + mark, "tip": tip} for gain, tip, mark in worst),
        {"text": share(row.price), "sort": plain(row.price), "look": "" if pd.notna(row.price) else "gap", "tip": ""},
    ]


def shown_cell(cell) -> dict:
    """A cell as the table shows it; None: not there."""
    if cell is None or pd.isna(cell.final_mean):
        diverged = cell is not None and cell.diverged > 0
        return {**gain_cell(np.nan), "small": "", "marks": [], "text": "NaN" if diverged else "–"}
    marks = {"sure": abs(cell.gain_mean) > cell.gain_ci95, "fallen": cell.collapsed > 0 or cell.diverged > 0}
    made = {**gain_cell(cell.gain_mean), "small": share(cell.final_mean)}
    return {**made, "marks": [mark for mark, holds in marks.items() if holds]}


def gain_cell(gain: float) -> dict:
    """Text in points, what it is sorted by, and its colour's name."""
    return {"text": points(gain), "sort": plain(gain), "look": look(gain)}


def look(gain: float) -> str:
    """The colour of a gain: g0, the worst, to g8; gap where it is unknown."""
    return "gap" if pd.isna(gain) else f"g{np.digitize(round(100 * gain, 1), EDGES)}"


def cell_detail(shaping: str, column: Column, cell) -> dict:
    """What the dialog of a cell says: title, facts by name, seeds, command, sources, why."""
    title = f"{shaping}, " + ("clean rows" if column.group == CLEAN else f"against {column.text}")
    if cell is None:
        return {"title": title, "why": "Not run: the tables have no line for this cell."}
    made: dict[str, Any] = {
        "title": title,
        "facts": cell_facts(cell),
        "why": text(cell.why),
        "command": text(cell.command),
    }
    made["sources"] = [[name, f"./{quote(name)}"] for name in text(cell.source).split("; ") if name]
    made["measure"] = f"final {cell.measure}"
    made["each"] = "target" if text(cell.attack) == shafahi.NAME else "seed"
    seeds = zip_longest(*(text(part).split() for part in (cell.seed_numbers, cell.finals, cell.gains)), fillvalue="nan")
    made["seeds"] = [[seed, number(float(final)), points(float(gain))] for seed, final, gain in seeds]
    return made


def cell_facts(cell) -> dict[str, str]:
    """What is known of a cell, by name, as the dialog lists it."""
    better = ", less is better" if cell.measure == "success" else ""
    facts = {
        f"final {cell.measure}{better}": interval(number, cell.final_mean, cell.final_ci95),
        f"best epoch's {cell.measure}": interval(number, cell.best_mean, cell.best_ci95),
        "gain over undefended, points": interval(points, cell.gain_mean, cell.gain_ci95),
        "targets" if text(cell.attack) == shafahi.NAME else "seeds": number(cell.seeds, ".0f"),
        "diverged": number(cell.diverged, ".0f"),
        "collapsed, % of seeds": number(100 * cell.collapsed, ".0f"),
        "seconds a training": number(cell.seconds, ".3g"),
        "attack": " ".join([text(cell.attack), plain(cell.ratio)]).strip(),
        "crafted against": f"{text(cell.crafted_against)} ({cell.adaptive})" if text(cell.adaptive) else "",
    }
    return {name: value for name, value in facts.items() if value not in ("", "–")}


def row_detail(row) -> dict:
    """What the dialog of a row says."""
    facts = {
        "kind": row.kind,
        "chosen of its kind": "yes" if row.chosen else "no",
        "accuracy on held-out clean rows": number(row.held_out_mean),
        "chosen by halves of the held-out rows": text(row.chosen_by_halves),
        "clean price, points": interval(points, row.clean_price_mean, row.clean_price_ci95),
        "mean gain over oblivious attacks, points": interval(points, row.oblivious_gain_mean, row.oblivious_gain_ci95),
        "worst of them, points": f"{points(row.oblivious_gain_worst)} {text(row.oblivious_worst_column)}".strip(),
        "worst adaptive gain, points": f"{points(row.adaptive_gain_worst)} {text(row.adaptive_worst_column)}".strip(),
        "on the adaptive attacks": text(row.attack_note),
        "attacker's price, poisons per clean row": number(row.price),
        "rank": number(row.rank, ".0f"),
    }
    return {"title": row.shaping, "facts": {name: value for name, value in facts.items() if value not in ("", "–")}}


def picture(shown: list[Column], cells: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Price against protection as a base64 PNG: a panel for each attacked column, a point a row; chosen rows, which
    have intervals, are named beside the panel.
    """
    known = cells.merge(rows[["shaping", "clean_price_mean", "clean_price_ci95"]])
    known = known.dropna(subset=["clean_price_mean", "gain_mean"])
    parts = [(column, known[known.column == column.text]) for column in shown if column.group != CLEAN]
    parts = [(column, found) for column, found in parts if len(found)]
    if not parts:
        return ""
    across, names = min(3, len(parts)), max(found.chosen.sum() for _, found in parts)
    height = max(2.2, 0.5 + 0.105 * names)
    figure, axes = plotting.panels(across, -(-len(parts) // across), width=4.2, height=height)
    for axis in axes.flat[len(parts) :]:
        axis.set_visible(False)
    for axis, (column, found) in zip(axes.flat, parts):
        draw_panel(axis, found)
        axis.set_title(f"{column.text} ({column.group})", parse_math=False)
        axis.set(xlabel="clean price, points", ylabel=f"gain, points of {column.measure}")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    plotting.plt.close(figure)
    return base64.b64encode(stream.getvalue()).decode()


def draw_panel(axis, found: pd.DataFrame) -> None:
    """The points of a column, gains upwards; scales are linear near zero and logarithmic beyond."""
    others, chosen = found[~found.chosen], found[found.chosen].sort_values(["gain_mean", "shaping"], kind="stable")
    axis.axhline(0, color="0.5", lw=0.8)
    axis.axvline(0, color="0.5", lw=0.8)
    axis.plot(100 * others.clean_price_mean, 100 * others.gain_mean, "o", ms=2.5, mec="none", mfc="0.7")
    across, up = (100 * chosen[name].fillna(0) for name in ("clean_price_ci95", "gain_ci95"))
    style = {"ls": "", "marker": "o", "ms": 3, "color": plotting.COLOURS[1], "elinewidth": 0.6}
    axis.errorbar(100 * chosen.clean_price_mean, 100 * chosen.gain_mean, xerr=across, yerr=up, **style)
    axis.set_xscale("symlog", linthresh=2)
    axis.set_yscale("symlog", linthresh=5)
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_locator(FixedLocator(TICKS))
        scale.set_major_formatter("{x:g}")
    axis.minorticks_off()
    for place, row in enumerate(chosen.itertuples()):
        axis.annotate(
            row.shaping, (100 * row.clean_price_mean, 100 * row.gain_mean), fontsize=7, parse_math=False,
            xytext=(1.03, (place + 0.5) / len(chosen)), textcoords="axes fraction", va="center",
            arrowprops={"arrowstyle": "-", "lw": 0.3, "color": "0.6", "shrinkA": 1, "shrinkB": 2},
        )  # fmt: skip


def text(value) -> str:
    """A text; empty where there is none."""
    return "" if pd.isna(value) else str(value)


def plain(value: float) -> str:
    """A number as sorting takes it; empty where there is none, which is put last."""
    return "" if pd.isna(value) else f"{value:.10g}"


def number(value: float, form: str = ".4f") -> str:
    return "–" if pd.isna(value) else format(value, form)


def share(value: float) -> str:
    """Three digits, without the zero before the point."""
    return number(value, ".3f").removeprefix("0")


def points(value: float) -> str:
    """A share of 1 in points, with its sign."""
    if pd.isna(value):
        return "–"
    rounded = round(100 * value, 1)
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}") if rounded else "0.0"


def interval(form: Callable[[float], str], mean: float, half: float) -> str:
    """E.g. 0.9351 ± 0.0017; without an interval, the mean alone."""
    return form(mean) + ("" if pd.isna(half) else f" ± {form(half).lstrip('+')}")


def breakable(value: str) -> Markup:
    """A shaping's text that a line may break between its links and phases; copied, it is the same text."""
    return Markup("<wbr>").join(re.split("(?<=[,+@])", value))
