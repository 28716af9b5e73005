"""The report's page: results/report.html, one file that needs no other and no network; its words are in page.html."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import jinja2

from files import writing
from reports import VERDICTS, Table, clean_models, gradients, indiscriminate, targeted
from reports.figures import SWEPT, Figure
from reports.reading import Results, place
from results import layout

HERE = Path(__file__).parent
SORTER = HERE / "sortable.auto.min.js"  # sortable-tablesort 4.1.7 by Jonas Earendel, in the public domain


def write(tables: list[Table], claims: list[dict], figures: list[Figure], results: Results) -> Path:
    """Write the page, and return where it is; the same results give the same bytes."""
    loader, strict = jinja2.FileSystemLoader(HERE), jinja2.StrictUndefined
    blocks = {"trim_blocks": True, "lstrip_blocks": True}
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=strict, **blocks)
    drawn = {figure.name: (layout.figures() / f"{figure.name}.png").read_bytes() for figure in figures if figure.drawn}
    folder = os.path.relpath(layout.RESULTS, layout.REPOSITORY)
    html = environment.get_template("page.html").render(
        tables=tables, claims=claims, figures=figures, left_out=results.left_out, versions=results.versions,
        pictures={name: base64.b64encode(content).decode() for name, content in drawn.items()},
        published=sorted(map(place, layout.PUBLISHED.glob("*.csv"))), sorter=SORTER.read_text(encoding="utf-8"),
        results=folder if not folder.startswith("..") else str(layout.RESULTS), verdicts=VERDICTS, swept=SWEPT,
        clean_models=clean_models, gradients=gradients, indiscriminate=indiscriminate,
        targeted=targeted, seed=layout.SEED,
    )  # fmt: skip
    path = layout.RESULTS / "report.html"
    with writing(path) as stream:
        stream.write(html)
    return path
