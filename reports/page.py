"""The report's page: results/report.html, one file that needs no other and no network.

Its words: page.html; its looks: page.css; its search: page.js; its plots: plots.js, drawn by uPlot (vendor/).
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import jinja2

from files import writing
from reports import VERDICTS, Table, clean_models, gradients, indiscriminate, origins, plots, reasons, targeted
from reports.claims import KINDS, PUBLISHED
from reports.figures import SWEPT, Figure
from reports.reading import Results, place
from results import layout

HERE = Path(__file__).parent
VENDOR = HERE / "vendor"
SORTER = HERE / "sortable.auto.min.js"  # sortable-tablesort 4.1.7 by Jonas Earendel, in the public domain
LIBRARY = "uPlot.iife.min.js"
STATES = (*VERDICTS, "passed", "failed", *KINDS[PUBLISHED][2])  # of rows, that the page can filter by


def write(tables: list[Table], claims: list[dict], figures: list[Figure], results: Results) -> Path:
    """Write the page, and return where it is; the same results give the same bytes."""
    loader, strict = jinja2.FileSystemLoader(HERE), jinja2.StrictUndefined
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=strict, trim_blocks=True, lstrip_blocks=True
    )
    drawn = {figure.name: (layout.figures() / f"{figure.name}.png").read_bytes() for figure in figures if figure.drawn}
    folder = os.path.relpath(layout.RESULTS, layout.REPOSITORY)
    style, scripts = text(VENDOR / "uPlot.min.css") + text(HERE / "page.css"), programs()
    html = environment.get_template("page.html").render(
        tables=tables, claims=claims, figures=figures, left_out=results.left_out, versions=results.versions,
        pictures={name: base64.b64encode(content).decode() for name, content in drawn.items()},
        published=sorted(map(place, layout.PUBLISHED.glob("*.csv"))), style=style, scripts=scripts,
        policy=policy(style, scripts), plots=plots.settings(), facts=origins.facts(results), states=STATES,
        reasons={claim["letter"]: reasons.of(claim) for claim in claims},
        findings={claim["letter"]: reasons.findings(claim["letter"]) for claim in claims},
        results=folder if not folder.startswith("..") else str(layout.RESULTS), verdicts=VERDICTS, swept=SWEPT,
        clean_models=clean_models, gradients=gradients, indiscriminate=indiscriminate,
        targeted=targeted, seed=layout.SEED,
    )  # fmt: skip
    path = layout.RESULTS / "report.html"
    with writing(path) as stream:
        stream.write(html)
    return path


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def programs() -> list[str]:
    """The page's scripts, in their order; the library's with its licence, which every copy must have."""
    library = f"/*! {LIBRARY}, {text(VENDOR / 'uPlot.LICENSE').strip()} */\n{text(VENDOR / LIBRARY)}"
    return [text(SORTER), library, text(HERE / "page.js"), text(HERE / "plots.js")]


def policy(style: str, scripts: list[str]) -> str:
    """The page's content security policy: these scripts and this style, pictures within it, and nothing from elsewhere.

    Whatever a text of a result might smuggle into the page, the browser runs nothing that is not named here.
    """

    def digests(parts: list[str]) -> str:
        hashes = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts)
        return " ".join(f"'sha256-{digest}'" for digest in hashes)

    return (
        f"default-src 'none'; img-src data:; style-src {digests([style])}; script-src {digests(scripts)};"
        " base-uri 'none'; form-action 'none'"
    )
