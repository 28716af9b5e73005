"""The shell scripts as they are shipped, shortened; and that they are clean."""

import shutil
import subprocess

import pytest
from conftest import REPOSITORY, refused

SCRIPTS = sorted(REPOSITORY.glob("*.sh"))


@pytest.mark.parametrize("script", [*SCRIPTS, REPOSITORY / ".ci/run"], ids=lambda path: path.name)
def test_scripts_are_clean_and_executable(script):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not on this machine (Debian: shellcheck)")
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert script.stat().st_mode & 0o111


@pytest.mark.parametrize(
    "call",
    [
        ["./do_ipoisoning.sh"],
        ["./do_ipoisoning.sh", "subtask"],
        ["./do_ipoisoning.sh", "purchases", "0"],
        ["./do_ipoisoning.sh", "subtask", "0", "1"],
        ["./analyze_ipoisoning.sh"],
        ["./analyze_ipoisoning.sh", "fashion_mnist"],
        ["./analyze_ipoisoning.sh", "subtask", "0"],
        ["./craft_ipoisoning.sh", "slabs", "0"],
    ],
)
def test_wrong_calls_show_the_usage(call, workplace):
    done = workplace.run(*call)
    assert done.returncode == 2 and done.stderr.startswith("usage: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("RATIOS", "0.1 2"),
        ("RATIOS", "many"),
        ("NORMCLP", "0"),
        ("NORMCLP", "1 -1"),
        ("NOISEML", "-0.1"),
        ("EPOCHS", "none"),
        ("SEED", "-3"),
        ("ATTACKS", "flips"),
    ],
)
def test_wrong_settings_are_refused(setting, value, workplace):
    done = workplace.run("./do_ipoisoning.sh", "subtask", "0", **{"RATIOS": "0.1", setting: value})
    done.stderr = "\n".join(line for line in done.stderr.splitlines() if not line.endswith("already there"))
    refused(done)
    assert not workplace.results.exists()


@pytest.mark.slow
def test_sweep_and_analysis_from_nothing(workplace):
    short = {"ATTACKS": "label-flips slabs", "RATIOS": "0.01 0.4", "NORMCLP": "0.1 8", "NOISEML": "0 0.001", "EPOCHS": "2"}
    workplace.succeed("./do_ipoisoning.sh", "subtask", "0", **short)
    cells = [path for path in workplace.written() if path.endswith("attack_results.csv")]
    assert len(cells) == 2 * 2 * (1 + 2 * 2)
    assert "ipoisoning/label-flips/fashion_mnist_3_4.1.0_random_0.4/dp_lr_300_2_0.01_1000.0_1e-05_8.0_0.000125/attack_results.csv" in cells
    assert (workplace.models / "subtask/vanilla_lr_300_40_0.01/config.json").exists()
    again = workplace.succeed("./do_ipoisoning.sh", "subtask", "0", **short)
    assert again.stderr.count("5 trainings finished before") == 4

    workplace.succeed("./analyze_ipoisoning.sh", "subtask", EPOCHS=2, ATTACKS="label-flips")
    folder = workplace.results / "analysis/ipoisoning/label-flips/fashion_mnist_3_4.1.0_random_0.4"
    assert sorted(path.name for path in folder.iterdir()) == ["dp_lr_300_2_0.01_1000.0_1e-05_4.0_0.0", "vanilla_lr_300_2_0.01"]
    for cell in folder.iterdir():
        names = {path.name for path in cell.iterdir()}
        assert names == {
            "analysis_results.csv",
            "run.json",
            "param_updates",
            "gradients.png",
            "mextracts_epoch.csv",
            "aextracts_epoch.csv",
            "sextracts_epoch.csv",
        }
    expected = workplace.written()
    workplace.succeed("./analyze_ipoisoning.sh", "subtask", EPOCHS=2, ATTACKS="label-flips")
    assert workplace.written() == expected
    done = workplace.succeed("python3", "report.py")
    assert "published cells within" in done.stdout and "ratio" in done.stdout
