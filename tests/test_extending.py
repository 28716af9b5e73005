"""An attack is one file, a data set one file and a line: each is added in a copy of the suite, run and reported."""

import subprocess

import numpy as np
import pandas
import pytest
from conftest import REPOSITORY, Workplace, copied_suite, refused

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
    place.succeed("python3", "report.py")
    tables = {path.stem: pandas.read_csv(path) for path in (place.results / "tables").glob("*.csv")}
    found = {
        name: table[table[column].astype(str).str.startswith(start)]
        for name, table in tables.items()
        if column in table
    }
    return {name: table for name, table in found.items() if len(table)}


@pytest.mark.slow
def test_an_attack_is_one_file(suite):
    assert [*changes("attack.diff")] == ["poisons/adversarial_flip.py"] and sum(changes("attack.diff").values()) <= 30
    place = suite("attack.diff")
    short = {"ATTACKS": "adversarial-flips", "RATIOS": "0.1 0.2", "SHAPINGS": "undefended 4", "EPOCHS": 2}
    place.succeed("./do_ipoisoning.sh", "subtask", "0", **short)
    place.succeed("./analyze_ipoisoning.sh", "subtask", **short)
    tables = reported(place, "attack", "adversarial-flips")
    assert set(tables["other_trainings"]["ratio"]) == {0.1, 0.2} and len(tables["other_trainings"]) == 4
    assert len(reported(place, "set", "adversarial-flips")["gradients"]) == 4
    flips = (
        place.suite
        / "datasets/poisons/indiscriminate/adversarial-flips/fashion_mnist_3_4.1.0_adversarial-flips_0.1.npz"
    )
    assert place.succeed("python3", "-m", "poisons.adversarial_flip", "--ratio", "0.1").stdout.split() == [str(flips)]
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


@pytest.mark.slow
def test_a_gradient_shaping_is_one_function(suite):
    assert changes("shaping.diff") == {"models/shaping.py": 8}
    place = suite("shaping.diff")
    short = {
        "ATTACKS": "label-flips",
        "RATIOS": "0.1",
        "EPOCHS": 2,
        "SHAPINGS": "undefended 4:0.1 auto-s:0.01 auto-s:1:0.5",
    }
    place.succeed("./do_ipoisoning.sh", "subtask", "0", **short)
    cells = {path.parent.name: pandas.read_csv(path) for path in place.results.rglob("attack_results.csv")}
    assert len(cells) == 4
    noisy = cells["auto-s_lr_300_2_0.01_1_0.5"]
    assert np.isfinite(noisy.epsilon).all() and np.isinf(cells["auto-s_lr_300_2_0.01_0.01"].epsilon).all()
    assert (noisy.epsilon < cells["dp_lr_300_2_0.01_1000.0_1e-05_4.0_0.1"].epsilon).all()  # more noise for its bound
    lines = pandas.concat(reported(place, "shaping", "auto-s").values())
    assert set(lines.shaping) == {"auto-s:0.01", "auto-s:1:0.5"} and set(lines.ratio) == {0.1}
    short_of_gamma = ("python3", "train.py", "--dataset", "subtask", "--network", "lr", "--shaping", "auto-s")
    assert "auto-s:gamma" in refused(place.run(*short_of_gamma))
