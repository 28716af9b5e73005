"""An attack is one file, a data set one file and a line: each is added in a copy of the suite, run and reported."""

import json
import subprocess
import textwrap

import numpy as np
import pandas
import pytest
from conftest import REPOSITORY, Workplace, copied_suite, refused

from files import file_sha256

FIXTURES = REPOSITORY / "tests/fixtures"


@pytest.fixture
def suite(tmp_path):
    """Makes a copy of the suite with a fixture's change, with results of its own and the kept models."""

    def extended(name: str) -> Workplace:
        copy = Workplace(tmp_path, copied_suite(tmp_path))
        copy.environment["MODELS"] = str(copy.suite / "models")
        done = subprocess.run(["git", "apply", FIXTURES / name], cwd=copy.suite, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return copy

    return extended


def changes(name: str) -> dict[str, int]:
    """The lines that a fixture adds to each file."""
    counts, path = {}, ""
    for line in (FIXTURES / name).read_text().splitlines():
        if line.startswith("+++ "):
            path = line.removeprefix("+++ b/")
        elif line.startswith("+"):
            counts[path] = counts.get(path, 0) + 1
        else:
            assert not line.startswith("-") or line.startswith("---"), "a fixture only adds"
    return counts


def reported(place: Workplace, column: str, start: str) -> dict[str, pandas.DataFrame]:
    """The lines of the report's tables in which a column begins so, by table."""
    place.report()
    tables = {path.stem: pandas.read_csv(path) for path in (place.results / "tables").glob("*.csv")}
    found = {
        name: table[table[column].astype(str).str.startswith(start)]
        for name, table in tables.items()
        if column in table
    }
    return {name: table for name, table in found.items() if len(table)}


@pytest.mark.slow
def test_an_attack_is_one_file(suite):
    assert [*changes("attack.diff")] == ["poisons/boundary_flip.py"] and sum(changes("attack.diff").values()) <= 30
    place = suite("attack.diff")
    short = {"ATTACKS": "boundary-flips", "RATIOS": "0.1 0.2", "SHAPINGS": "undefended 4", "EPOCHS": 2}
    place.succeed("./do_ipoisoning.sh", "subtask", "0", **short)
    place.succeed("./analyze_ipoisoning.sh", "subtask", **short)
    tables = reported(place, "attack", "boundary-flips")
    assert set(tables["other_trainings"]["ratio"]) == {0.1, 0.2} and len(tables["other_trainings"]) == 4
    assert len(reported(place, "set", "boundary-flips")["gradients"]) == 4
    flips = place.suite / "datasets/poisons/indiscriminate/boundary-flips/fashion_mnist_3_4.1.0_boundary-flips_0.1.npz"
    assert place.succeed("python3", "-m", "poisons.boundary_flip", "--ratio", "0.1").stdout.split() == [str(flips)]
    assert "100 classes" in refused(place.run("./do_ipoisoning.sh", "purchases", "0", **short))


@pytest.mark.slow
def test_a_data_set_is_one_file_and_a_line(suite):
    added = changes("dataset.diff")
    assert sorted(added) == ["datasets/digits.py", "models/protocols.py"] and added["models/protocols.py"] == 1
    place = suite("dataset.diff")
    place.succeed(
        "./do_ipoisoning.sh", "digits_3_8", "0", ATTACKS="label-flips minmax", RATIOS="0.1", SHAPINGS="undefended 4"
    )
    lines = pandas.concat(reported(place, "dataset", "digits_3_8").values())
    assert {"label-flips", "minmax"} <= set(lines["attack"].dropna())


def documented_example() -> str:
    """The file that models/kind.py shows."""
    lines = (REPOSITORY / "models/kind.py").read_text().split('"""')[1].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("    from"))
    return textwrap.dedent("\n".join(lines[first:]))


@pytest.mark.slow
def test_a_gradient_shaping_is_one_function_in_a_file_of_its_own(tmp_path):
    example = tmp_path / "elsewhere" / "halve.py"
    example.parent.mkdir()
    example.write_text(documented_example())
    assert len([line for line in example.read_text().splitlines() if line]) <= 10
    place = Workplace(tmp_path, copied_suite(tmp_path))
    place.environment["MODELS"] = str(place.suite / "models")
    chosen = "undefended 4:0.1 halve:0.5 halve:0.5+clip:1:0.5 clip:1@1,halve:0.1"
    short = {"ATTACKS": "label-flips", "RATIOS": "0.1", "EPOCHS": 2, "SHAPINGS": chosen}
    train = ("python3", "train.py", "--dataset", "subtask", "--network", "lr")
    assert "there is no kind 'halve'" in refused(place.run(*train, "--shaping", "halve:0.5"))
    own = {"SHAPING_FILE": str(example)}
    place.succeed("./do_ipoisoning.sh", "subtask", "0", **short, **own)
    place.succeed("./analyze_ipoisoning.sh", "subtask", **{**short, **own, "SHAPINGS": "undefended halve:0.5"})
    cells = {path.parent.name: pandas.read_csv(path) for path in place.results.rglob("attack_results.csv")}
    assert len(cells) == 5 and all(np.isinf(cells["halve_lr_300_2_0.01_0.5"].epsilon))
    assert np.isfinite(cells["halve_lr_300_2_0.01_0.5+clip_1_0.5"].epsilon).all()  # it says that it shrinks
    place.succeed(*train, "--epochs", "1", "--shaping", "halve:0.5", "--shaping-file", str(example))
    place.environment.update(own)  # the report, too, is told what the kind is
    lines = reported(place, "shaping", "halve")
    assert set(lines["other_trainings"].shaping) == {"halve:0.5", "halve:0.5+clip:1:0.5"}
    assert set(lines["other_gradients"].shaping) == set(lines["other_models"].shaping) == {"halve:0.5"}
    run = json.loads(next(place.results.rglob("halve*0.5/run.json")).read_text())
    assert run["settings"]["shaping_file_sha256"] == {"halve": file_sha256(example)}
    example.write_text(example.read_text().replace("0.5, 1.0", "0.25, 1.0"))  # another shaping of the same name
    assert "halve" in place.run("./do_ipoisoning.sh", "subtask", "0", **short, **own).stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "defines no kind"),
        ("def halve(batch):\n    return 1\n", "defines no kind"),
        ("from models.kind import kind\n@kind()\ndef clip(batch):\n    return 1\n", "line 2: ValueError: clip"),
        ("x = 1 / 0\n", "line 1: ZeroDivisionError"),
        ("def halve(:\n", "line 1: SyntaxError"),
        (None, "no such Python file"),
    ],
)
def test_a_file_that_defines_no_shaping_is_refused(content, why, workplace):
    path = workplace.results.parent / "mine.py"
    if content is not None:
        path.write_text(content)
    train = ("python3", "train.py", "--dataset", "subtask", "--network", "lr", "--shaping-file", str(path))
    assert why in refused(workplace.run(*train, "--shaping", "halve:0.5"))
