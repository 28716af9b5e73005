"""The report's page: results/report.html, one file that needs no other and no network."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import jinja2

from files import writing
from reports import VERDICTS, Table
from reports.figures import Figure
from reports.reading import Tree, shown
from reports.verdicts import Claim
from results import layout

HERE = Path(__file__).parent
SORTER = HERE / "sortable.auto.min.js"  # sortable-tablesort 4.1.7 by Jonas Earendel, in the public domain
LOOKS = {
    **dict.fromkeys(("reproduced", "hold", "yes"), "yes"),
    **dict.fromkeys(("reproduced in part", "hold in part"), "part"),
    **dict.fromkeys(("not reproduced", "do not hold", "no"), "no"),
}
SHOWN_LEFT_OUT = 500


def write(tables: list[Table], claims: list[Claim], figures: list[Figure], tree: Tree) -> Path:
    """Write the page, and return where it is; the same results give the same bytes."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pictures = {
        figure.name: base64.b64encode((layout.figures() / f"{figure.name}.png").read_bytes()).decode() for figure in figures if figure.drawn
    }
    published = sorted(os.path.relpath(path, layout.RESULTS) for path in layout.PUBLISHED.glob("*.csv"))
    results = os.path.relpath(layout.RESULTS, layout.REPOSITORY)
    html = environment.get_template("page.html").render(
        tables=tables,
        claims=claims,
        figures=figures,
        pictures=pictures,
        left_out=tree.left_out,
        shown_left_out=SHOWN_LEFT_OUT,
        verdicts=VERDICTS,
        looks=LOOKS,
        versions=shown(tree.versions),
        results=results if not results.startswith("..") else str(layout.RESULTS),
        published=published,
        sorter=SORTER.read_text(),
    )
    path = layout.RESULTS / "report.html"
    with writing(path) as stream:
        stream.write(html)
    return path
