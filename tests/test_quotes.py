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
    texts = ["took 7 min 48 s"]     # as they stand there; 'first words <...> last words' for a whole proof, and the
                                    # beginning of a line of a table, '| ...', for all of that table

Tables are `results/tables/<name>.csv`, or any file by its path. A number that stands in a `text` itself is a setting:
it must be in a query, too, or in `settings = "0.4 40"`. Whole Markdown tables are made by the functions of
quoted_tables.py and quoted_targeted.py. White space and `**` count for nothing, and numbers in code, commands and links
are not looked at.

What to do when it fails: "has this sentence 0 times" or "has no such words": write the sentence into the file of
tests/quotes that is named, as it stands now; "says 0.88, the tables 0.89": write the table's number into the document;
"has no table and no exception": add a quote, or an exception with its reason.
"""

from __future__ import annotations

import functools
import math
import re
import string

import pandas as pd
import pytest
import quoted
import quoted_tables  # noqa: F401  the functions that make tables
import quoted_targeted  # noqa: F401
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
FUNCTIONS = {"ceil": math.ceil, "floor": math.floor, "read": quoted.read, "pd": pd}  # of expressions, and Python's own


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
        return eval(" ".join(said[1:].split()), {**FUNCTIONS, **names})
    name, _, query = said.partition(":")
    rows = names[name] if name in names else quoted.read(name)
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
    return [quoted.written(formatter.get_field(name, (), names)[0], form) for name, form in found]


def numbers(text: str) -> set[float]:
    return {float(number.replace(",", "")) for number in NUMBER.findall(text)}


def parts(path: str) -> dict[str, dict]:
    """The files of tests/quotes that are about a document."""
    return {f"tests/quotes/{name}.toml": part for name, part in PARTS.items() if part["document"] == path}


@functools.cache
def quotes(path: str) -> list[tuple[str, str, list[str], set[float]]]:
    """Of each quote of a document its file, its text, its numbers by the tables, and the settings it may name."""
    found = []
    for file, part in parts(path).items():
        shared = looked_up(part.get("rows", {}), {})
        found += [(file, *quote(entry, part.get("rows", {}), shared)) for entry in part.get("quote", [])]
    return found


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
    """A sentence, its numbers, and those that it may name itself: the ones of its queries and of `settings`."""
    lines = {name: said for name, said in entry.items() if name not in ("text", "settings")}
    said = [entry["text"], *lines.values()]
    for name, line in reversed(sources.items()):  # each may use those above it
        said += [line] if any(re.search(rf"\b{name}\b", words) for words in said) else []
    queries = [words.partition(":")[2] for words in said[1:] if not words.startswith("=")]
    settings = numbers(" ".join([entry.get("settings", ""), *queries]))
    return entry["text"], fields(entry["text"], looked_up(lines, shared)), settings


def check_quotes(path: str, text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """What is wrong with a document's sentences, and where the numbers stand that were checked."""
    faults, spans = [], []
    for file, words, expected, settings in quotes(path):
        found = list(pattern(words, QUOTED).finditer(text))
        if len(found) != 1:
            faults.append(f"{path} has this sentence {len(found)} times, change it in {file}: {words}")
            continue
        said = list(found[0].groups())
        if said != expected:
            wrong = "; ".join(f"says {a}, the tables {b}" for a, b in zip(said, expected) if a != b)
            faults.append(f"{path} {wrong} ({file}): {words}")
        spans += [found[0].span(group + 1) for group in range(len(said))]
        for number in NUMBER.finditer(text, *found[0].span()):
            if numbers(number[0]) <= settings:
                spans.append(number.span())
    return faults, spans


def table_at(text: str, begin: str) -> list[re.Match]:
    """The lines of the one table that has a line which begins so, but for its rule; else none."""
    found = [
        table for table in re.finditer(r"(?m)(^ *\|.*\n?)+", text) if re.search(rf"(?m)^ *{re.escape(begin)}", table[0])
    ]
    if len(found) != 1:
        return []
    lines = re.compile(r"\|.*").finditer(text, *found[0].span())
    return [line for line in lines if not re.fullmatch(r"[-| ]+", line[0])]


def check_tables(path: str, text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The same of a document's tables, cell by cell."""
    faults, spans = [], []
    for make in quoted.TABLES.get(path, []):
        expected = made(make)
        there = table_at(text, expected[0])
        spans += [line.span() for line in there]
        said = [re.sub(" +", " ", line[0].rstrip()) for line in there]
        faults += [f"{path}, {make.__name__}: says {a}, the tables {b}" for a, b in zip(said, expected) if a != b]
        if len(said) != len(expected):
            faults.append(f"{path}, {make.__name__}: {len(said)} lines, {len(expected)} in the tables")
    return faults, spans


@functools.cache
def made(make) -> list[str]:
    return [re.sub(" +", " ", plain(line)) for line in make()]


def between(said: str) -> re.Pattern:
    """Words as they stand, any white space between them; ' <...> ' for all that stands between two of them."""
    ends = (pattern(words.replace("{", "{{").replace("}", "}}"), "").pattern for words in said.split(" <...> "))
    return re.compile(r"[\s\S]*?".join(ends))


def check_exceptions(path: str, text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Exceptions that no longer stand in a document, and where the others do."""
    faults, spans = [], []
    for file, part in parts(path).items():
        for said in (words for exception in part.get("exception", []) for words in exception["texts"]):
            there = table_at(text, plain(said)) if said.startswith("| ") else between(said).finditer(text)
            found = [match.span() for match in there]
            faults += [] if found else [f"{path} has no such words, change them in {file}: {said}"]
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


def changed(text: str, number: re.Match) -> str:
    """The text with another last digit in a number."""
    last = number.end() - 1
    return text[:last] + str((int(text[last]) + 1) % 10) + text[last + 1 :]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_a_changed_digit_is_noticed(path):
    """Of two dozen numbers all over a document."""
    text = document(path)
    checked = [span for part in (check_quotes, check_tables) for span in part(path, text)[1]]
    inside = [
        number
        for number in NUMBER.finditer(prose(text))
        if any(start <= number.start() and number.end() <= end for start, end in checked)
    ]
    assert inside
    for number in inside[:: 1 + len(inside) // 24]:
        assert check(path, changed(text, number)), number


@pytest.mark.parametrize("path", DOCUMENTS)
def test_a_new_number_must_be_bound_and_a_sentence_that_is_gone_unbound(path):
    text = document(path)
    (fault,) = check(path, f"{text}\nAnother attack takes 0.123 of them.\n")
    assert "0.123 has no table and no exception" in fault
    (file, words, *_), *_ = quotes(path)
    without = pattern(words, QUOTED).sub("", text)
    assert f"{path} has this sentence 0 times, change it in {file}: {words}" in check(path, without)
