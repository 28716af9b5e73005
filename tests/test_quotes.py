"""Every number that the documents quote is that of a committed table, or is excepted with a reason.

tests/quotes/*.toml says how, a file for each part of a document:

    document = "results/README.md"

    [rows]                          # names that several sentences use: a table and a query (pandas)
    flips = "seeds: attack == 'label-flips' and ratio == 0.4"

    [[quote]]                       # a sentence as it stands there, with the table's columns in place of its numbers
    text = "undefended {none.final_acc_mean:.4f}, {lost:.1f} points below the baseline"
    none = "flips: shaping == 'undefended'"                         # one row, or several of which an expression is made
    lost = "= 100 * (none.baseline_acc - none.final_acc_mean)"      # after '=' an expression in Python

    [[exception]]                   # numbers that no table has
    reason = "seconds of one run"
    texts = ["took 7 min 48 s"]     # as they stand there; all numbers of a table if it begins with '| '

Tables are `results/tables/<name>.csv`, or any file by its path. A number that stands in a `text` itself is a setting:
it must be in the query or the expressions, too. Whole Markdown tables are made by the functions of quoted_tables.py.
White space and `**` count for nothing, and numbers in code, commands and links are not looked at.
"""

from __future__ import annotations

import functools
import math
import re
import string

import pandas as pd
import pytest
import quoted_tables
from conftest import REPOSITORY

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.9 and 3.10
    import tomli as tomllib

NUMBER = re.compile(r"(?<![\w.,])(?<![A-Za-z]-)\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?(?![\w]|\.\d)")
QUOTED = r"(?<![\w.])([-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?)(?!\d|[.,]\d)"
CODE = re.compile(r"^    .*$|`[^`]+`|\]\([^)]*\)", re.MULTILINE)
PARTS = {path.stem: tomllib.loads(path.read_text()) for path in sorted((REPOSITORY / "tests/quotes").glob("*.toml"))}
DOCUMENTS = sorted({part["document"] for part in PARTS.values()})
FUNCTIONS = {
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "len": len,
    "max": max,
    "read": quoted_tables.read,
    "min": min,
    "sum": sum,
    "sqrt": math.sqrt,
    "pd": pd,
}


@functools.cache
def document(path: str) -> str:
    return plain((REPOSITORY / path).read_text())


def plain(text: str) -> str:
    return text.replace("**", "").replace("\N{MINUS SIGN}", "-")


def prose(text: str) -> str:
    """The text with blanks in place of code, commands and the targets of links."""
    return CODE.sub(lambda found: re.sub(r"\S", " ", found[0]), text)


def value(said: str, names: dict):
    """What a line of a quote stands for: an expression after '=', else the rows of a table (one row as a Series)."""
    if said.startswith("="):
        return eval(said[1:], {**FUNCTIONS, **names})
    name, _, query = said.partition(":")
    rows = names[name] if name in names else quoted_tables.read(name)
    if query:
        rows = rows.query(" ".join(query.split()), engine="python")
    assert len(rows), f"no rows: {said}"
    return rows.iloc[0] if len(rows) == 1 else rows


def pattern(text: str, placeholder: str) -> re.Pattern:
    """A quote as a regular expression, with any white space between words and `placeholder` for each number."""
    parts = []
    for literal, field, _, _ in string.Formatter().parse(plain(text)):
        parts.append(r"\s+".join(map(re.escape, re.split(r"\s+", literal))))
        parts += [placeholder] if field is not None else []
    return re.compile("".join(parts))


def fields(text: str, names: dict) -> list[str]:
    """The numbers of a quote as its tables have them."""
    formatter = string.Formatter()
    found = [(name, form) for _, name, form, _ in formatter.parse(text) if name is not None]
    return [quoted_tables.written(formatter.get_field(name, (), names)[0], form) for name, form in found]


def numbers(text: str) -> set[float]:
    return {float(number.replace(",", "")) for number in NUMBER.findall(text)}


@functools.cache
def quotes(path: str) -> list[tuple[str, list[str], set[float]]]:
    """Of each quote of a document its text, its numbers by the tables, and the settings that its text may name."""
    made = []
    for part in PARTS.values():
        if part["document"] == path:
            shared = looked_up(part.get("rows", {}), {})
            made += [quote(entry, part.get("rows", {}), shared) for entry in part.get("quote", [])]
    return made


def looked_up(lines: dict[str, str], names: dict) -> dict:
    """All names that lines define, one after the other, beside those that there are."""
    names = dict(names)
    for name, said in lines.items():
        try:
            names[name] = value(said, names)
        except Exception as error:
            raise ValueError(f"tests/quotes: {name} = {said!r}: {error!r}") from error
    return names


def quote(entry: dict[str, str], sources: dict[str, str], shared: dict) -> tuple[str, list[str], set[float]]:
    """A sentence, its numbers, and the settings: the numbers in its lines and in the shared rows that these use."""
    lines = {name: said for name, said in entry.items() if name != "text"}
    words = " ".join([entry["text"], *lines.values()])
    for name, said in reversed(sources.items()):  # each may use those above it
        words += f" {said}" if re.search(rf"\b{name}\b", words) else ""
    return entry["text"], fields(entry["text"], looked_up(lines, shared)), numbers(words[len(entry["text"]) :])


def check_quotes(path: str, text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """What is wrong with a document's sentences, and where the numbers stand that were checked."""
    faults, spans = [], []
    for quote, expected, settings in quotes(path):
        found = list(pattern(quote, QUOTED).finditer(text))
        if len(found) != 1:
            faults.append(f"{path} has this sentence {len(found)} times, change tests/quotes: {quote}")
            continue
        said = list(found[0].groups())
        if said != expected:
            faults.append(f"{path} says {said}, the tables {expected}: {quote}")
        spans += [found[0].span(group + 1) for group in range(len(said))]
        for number in NUMBER.finditer(text, *found[0].span()):
            if numbers(number[0]) <= settings:
                spans.append(number.span())
    return faults, spans


def lines_of(text: str) -> list[tuple[int, str]]:
    """The lines of a text with the place where each begins."""
    ends = [0, *(found.end() for found in re.finditer("\n", text))]
    return [(start, line) for start, line in zip(ends, text.splitlines())]


def table_at(text: str, begin: str) -> list[tuple[int, str]]:
    """The lines, with their places, of the one table that has a line which begins so, but for its rule; else none."""
    tables, before = [], False
    for start, line in lines_of(text):
        row = line.strip().startswith("|")
        if row:
            tables += [] if before else [[]]
            tables[-1].append((start, line.strip()))
        before = row
    found = [table for table in tables if any(line.startswith(begin) for _, line in table)]
    return [(start, line) for start, line in found[0] if not re.fullmatch(r"[-| ]+", line)] if len(found) == 1 else []


def check_tables(path: str, text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The same of a document's tables, cell by cell."""
    faults, spans = [], []
    for make in quoted_tables.TABLES.get(path, []):
        expected = made(make)
        there = table_at(text, expected[0])
        spans += [(start, start + len(line) + 8) for start, line in there]
        said = [re.sub(" +", " ", line) for _, line in there]
        faults += [f"{path}, {make.__name__}: says {a}, the tables {b}" for a, b in zip(said, expected) if a != b]
        if len(said) != len(expected):
            faults.append(f"{path}, {make.__name__}: {len(said)} lines, {len(expected)} in the tables")
    return faults, spans


@functools.cache
def made(make) -> list[str]:
    return [re.sub(" +", " ", plain(line)) for line in make()]


def check_exceptions(path: str, text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Exceptions that no longer stand in a document, and where the others do."""
    faults, spans = [], []
    for part in PARTS.values():
        for exception in part.get("exception", []) if part["document"] == path else []:
            for said in exception["texts"]:
                if said.startswith("| "):
                    found = [(start, start + len(line) + 8) for start, line in table_at(text, plain(said))]
                else:
                    found = [match.span() for match in pattern(re.sub(r"([{}])", r"\1\1", said), "").finditer(text)]
                faults += [] if found else [f"{path} has no such words, change tests/quotes: {said}"]
                spans += found
    return faults, spans


def check(path: str, text: str) -> list[str]:
    """Every fault of a document: wrong numbers, sentences that are gone, numbers of which nothing says where from."""
    results = [one(path, text) for one in (check_quotes, check_tables, check_exceptions)]
    faults = [fault for some, _ in results for fault in some]
    spans = [span for _, some in results for span in some]
    for number in NUMBER.finditer(prose(text)):
        if not any(start <= number.start() and number.end() <= end for start, end in spans):
            line = text.count("\n", 0, number.start()) + 1
            said = " ".join(text[max(0, number.start() - 40) : number.end() + 40].split())
            faults.append(f"{path}:{line}: {number[0]} has no table and no exception: ...{said}...")
    return faults


@pytest.mark.parametrize("path", DOCUMENTS)
def test_numbers_are_those_of_the_tables(path):
    faults = check(path, document(path))
    assert not faults, "\n" + "\n".join(faults)
