"""What people read: lines that fit, links that lead somewhere, commands that exist, numbers that are in the tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import REPOSITORY, anchor

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "results/README.md", "tests/README.md", "tests/benchmarks/README.md")
    for path in REPOSITORY.glob(pattern)
)
TEXTS = {path: path.read_text() for path in DOCUMENTS}


ANCHORS = {
    path: {anchor(title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)} for path, text in TEXTS.items()
}
LINKS = [
    (path, target)
    for path, text in TEXTS.items()
    for target in re.findall(r"\]\(([^)\s]+)\)", text)
    if not target.startswith("http")
]


def test_the_readme_is_read_to_its_end():
    assert len(TEXTS[REPOSITORY / "README.md"].splitlines()) <= 150


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_lines_of_prose_fit(path):
    """Tables, pictures and commands are as long as they are."""
    long = [
        line for line in TEXTS[path].splitlines() if len(line) > 120 and not re.match(r"\s*(\||!\[|    )|\S+=", line)
    ]
    commands = [line for line in long if re.match(r"\.venv/bin/python ", line)]
    assert long == commands


@pytest.mark.parametrize(("path", "target"), LINKS, ids=lambda value: str(value)[-60:])
def test_links_lead_somewhere(path, target):
    name, _, place = target.partition("#")
    there = (path.parent / name).resolve() if name else path
    assert there.exists(), target
    if place:
        assert place in ANCHORS[there], target


def test_scripts_and_modules_that_are_named_exist():
    for path, text in TEXTS.items():
        for script in re.findall(r"\./(\w+\.sh)", text):
            assert (REPOSITORY / script).is_file(), (path, script)
        for script in re.findall(r"python3? ((?:\w+/)*\w+\.py)", text):
            made = f"`{script}`" in text or path.name == "EXTENDING.md"  # an example writes it first
            assert made or (REPOSITORY / script).is_file(), (path, script)
        for module in re.findall(r"python3? -m ((?:poisons|results|datasets|tests)[\w.]*)", text):
            place = REPOSITORY / Path(*module.split("."))
            assert place.with_suffix(".py").is_file() or place.is_dir() or path.name == "EXTENDING.md", (path, module)
