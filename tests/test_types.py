"""The types that the modules say: checked as a whole, and a wrong one is noticed."""

import subprocess
import sys

import pytest
from conftest import REPOSITORY


def checked(*words) -> subprocess.CompletedProcess:
    """mypy by pyproject.toml, for the Python that the suite may be run on at least."""
    command = [sys.executable, "-m", "mypy", "--cache-dir", REPOSITORY / ".cache/mypy", *words]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


@pytest.mark.slow
def test_types_fit():
    done = checked()
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_wrong_type_is_noticed(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from models.device import side_by_side\n\nside_by_side('two', print, [])\n")
    done = checked(wrong)
    assert done.returncode == 1 and 'incompatible type "str"; expected "int"' in done.stdout
