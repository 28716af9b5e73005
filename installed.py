#!/usr/bin/env python3
"""Whether this Python has what a file of locked requirements lists, in just these versions.

    .venv/bin/python installed.py requirements-locked.txt

Says what is missing, with status 1. It looks at each package's own files, too, as far as their folders go: a package
that was deleted by hand still has its name in the environment's lists.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

PINNED = re.compile(r"([\w.-]+)==([\w.+!-]+)(?:\s*;\s*(.*?))?\s*\\?")


def pinned(text: str) -> list[tuple[str, str]]:
    """The names and versions that a locked requirements file asks of this Python."""
    from packaging.markers import Marker  # in the environment, or it is not whole

    found = [match.groups() for match in map(PINNED.fullmatch, text.splitlines()) if match]
    return [(name, version) for name, version, marker in found if not marker or Marker(marker).evaluate()]


def lacks(name: str, version: str) -> str:
    """What is wrong with a package; empty where nothing is."""
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return f"{name} is missing"
    if package.version != version:
        return f"{name} is {package.version}, not {version}"
    tops = {path.parts[0] for path in package.files or [] if path.parts and path.suffix != ".pyc"} - {
        "..",
        "__pycache__",
    }
    gone = sorted(top for top in tops if not Path(str(package.locate_file(top))).exists())
    return f"{name} lacks its {gone[0]}" if gone else ""


def main() -> None:
    try:
        wrong = [why for why in (lacks(*pin) for pin in pinned(Path(sys.argv[1]).read_text(encoding="utf-8"))) if why]
    except ImportError as error:
        wrong = [str(error)]
    if wrong:
        print(f"{sys.prefix}: {'; '.join(wrong)}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
