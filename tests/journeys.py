"""What a newcomer does, as two documents tell it: its files are written and its commands run as they stand.

    python -m tests.journeys        measures all of them, and writes the table of docs/journeys.md; on an idle machine

A journey is a section of EXTENDING.md or docs/journeys.md with commands: blocks of bash, one after the other in one
shell; blocks of other languages behind a file's name are files that the reader writes; a block of text is what the last
command prints, line by line, ... standing for anything.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent))
from conftest import REPOSITORY, anchor, copied_suite  # noqa: E402

from files import writing  # noqa: E402

DOCUMENTS = ("docs/journeys.md", "EXTENDING.md")
TABLE = REPOSITORY / "docs/journeys.csv"
ORDER = (
    "First number", "Own row of the sweep", "Poisons from elsewhere", "A data set", "A network and its protocol",
    "An attack", "A gradient shaping", "A poisoned model", "Find a published cell", "Slurm", "Resume", "Cite",
)  # fmt: skip
SLURM = "Slurm"  # needs one
FILE = re.compile(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Journey:
    """A section: its title and document, the reader's files by name, the commands, and what the last prints."""

    title: str
    document: str
    files: dict[str, str]
    commands: list[str]
    printed: list[str]

    @property
    def own_lines(self) -> int:
        """Lines that the reader writes, but for commands and empty ones."""
        return sum(bool(line.strip()) for content in self.files.values() for line in content.splitlines())


def journeys() -> dict[str, Journey]:
    """The journeys of both documents by their titles, in the order of the table."""
    found = {}
    for document in DOCUMENTS:
        for section in (REPOSITORY / document).read_text().split("\n## ")[1:]:
            commands = [line for block in COMMANDS.findall(section) for line in block.splitlines()]
            if commands:
                title = section.partition("\n")[0]
                lines = [line for block in PRINTED.findall(section) for line in block.splitlines()]
                found[title] = Journey(title, document, dict(FILE.findall(section)), commands, lines)
    return {title: found[title] for title in [*ORDER, *sorted(set(found) - set(ORDER))]}


def prepared(folder: Path, python: str | None = None) -> tuple[Path, dict[str, str]]:
    """A suite as a clone has it after set-up, without results but for the report's tables; and the environment.

    python: what its .venv/bin/python is, without one this Python.
    """
    suite = copied_suite(folder)
    if python:
        (suite / ".venv/bin").mkdir(parents=True)
        (suite / ".venv/bin/python").symlink_to(python)
    else:
        (suite / ".venv").symlink_to(sys.prefix)
    shutil.copytree(REPOSITORY / "models/subtask", suite / "models/subtask", dirs_exist_ok=True)
    shutil.copytree(REPOSITORY / "results/tables", suite / "results/tables")
    own = ("RESULTS", "MODELS", "PYTHON", "SHAPING_FILE", "PROTOCOL", "GPU")
    return suite, {name: value for name, value in os.environ.items() if name not in own}


def travel(journey: Journey, suite: Path, environment: dict[str, str]) -> str:
    """Write the files, run the commands, and compare what the last prints; returns that. Raises AssertionError."""
    for name, content in journey.files.items():
        (suite / name).write_text(content)
    last = f"{{ {journey.commands[-1]}\n}} > last.out"
    script = "\n".join(["set -e", *journey.commands[:-1], last])
    done = subprocess.run(["bash", "-c", script], cwd=suite, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{journey.title}: {done.stdout}\n{done.stderr}"
    printed = (suite / "last.out").read_text()
    assert journey.printed or list((suite / "results").rglob("run.json")), f"{journey.title}: left no result"
    for line in journey.printed:
        wanted = ".*".join(re.escape(part) for part in line.split("..."))
        assert re.search(f"^{wanted}$", printed, re.MULTILINE), f"{journey.title}: {line!r} is not in\n{printed}"
    return printed


@contextlib.contextmanager
def of_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """A Slurm of one's own in a folder that everyone can reach; yields the environment that its users need."""
    from test_slurm import Slurm

    folder.chmod(0o755)
    (folder / "slurm").mkdir()
    cluster = Slurm(folder / "slurm")
    try:
        cluster.start()
        yield cluster.environment
    finally:
        cluster.stop()


def row(journey: Journey, seconds: float | None) -> dict:
    """A line of the table."""
    typed = [command for command in journey.commands if not command.startswith("export ")]
    return {
        "journey": journey.title, "document": journey.document, "commands": len(typed),
        "own_lines": journey.own_lines, "seconds": None if seconds is None else round(seconds),
    }  # fmt: skip


def document(table: pd.DataFrame, text: str) -> str:
    """The text of docs/journeys.md with this table."""
    lines = ["| journey | commands | own lines | seconds |", "|---|---|---|---|"]
    for one in table.itertuples():
        place = f"{'' if one.document == DOCUMENTS[0] else f'../{one.document}'}#{anchor(one.journey)}"
        lines.append(f"| [{one.journey}]({place}) | {one.commands} | {one.own_lines} | {one.seconds or 'below 1'} |")
    before, _, rest = text.partition("<!-- measured -->\n")
    return before + "<!-- measured -->\n" + "\n".join(lines) + "\n<!-- end -->" + rest.partition("<!-- end -->")[2]


def main() -> None:
    lines = []
    for title, journey in journeys().items():
        with tempfile.TemporaryDirectory() as folder:
            suite, environment = prepared(Path(folder))
            cluster = of_slurm(Path(folder)) if title == SLURM else contextlib.nullcontext({})
            with cluster as its_environment:
                began = time.monotonic()
                travel(journey, suite, {**environment, **its_environment})
                seconds = time.monotonic() - began
        lines.append(row(journey, seconds))
        print(lines[-1], flush=True)
    table = pd.DataFrame(lines)
    with writing(TABLE) as stream:
        table.to_csv(stream, index=False, lineterminator="\n")
    page = REPOSITORY / DOCUMENTS[0]
    with writing(page) as stream:
        stream.write(document(table, page.read_text()))


if __name__ == "__main__":
    main()
