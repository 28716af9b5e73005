"""Lists of tasks and the scripts that run them, without Slurm: what they say, what they run, and what is refused."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, refused

ONE = "net\tone\ttouch one\n"
SETTINGS = {
    "--time-limit": "1-12:00:00",
    "--memory": "4G",
    "--throttle": "20",
    "--gpus": "1",
    "--cpus": "3",
    "--sbatch-extra": "--account=me  --constraint=[a&b]\n --exclusive",
}


def write(folder: Path, text: str, *options: str, **variables: str) -> subprocess.CompletedProcess:
    """Have tasks written into a folder."""
    words = [sys.executable, REPOSITORY / "write_tasks.py", "--name", "demo", "--of", "a test", "--by", "it", *options]
    environment = {name: value for name, value in os.environ.items() if name not in ("RESULTS", "MODELS")}
    environment.update(variables)
    return subprocess.run(words, input=text, cwd=folder, env=environment, capture_output=True, text=True)


def call(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess:
    """Run a script that was written, outside any job."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return subprocess.run(words, cwd=folder, env={**environment, **variables}, capture_output=True, text=True)


def asked(script: Path) -> list[str]:
    """What a script asks Slurm for."""
    lines = script.read_text().splitlines()
    head = lines[: lines.index("set -euo pipefail")]  # Slurm reads on to the first command
    assert lines[0] == "#!/usr/bin/env bash" and script.stat().st_mode & 0o111
    return [line.removeprefix("#SBATCH ") for line in head if line.startswith("#SBATCH ")]


@pytest.mark.parametrize(
    ("options", "text", "named"),
    [
        (["--name", "my tasks"], ONE, "--name my tasks"),
        (["--name", "../tasks"], ONE, "--name ../tasks"),
        (["--cpus", "0"], ONE, "--cpus"),
        (["--gpus", "a100"], ONE, "--gpus"),
        (["--run", "two"], ONE, "--run"),
        (["--throttle", "0"], ONE, "--throttle"),
        (["--time-limit", "2h"], ONE, "--time-limit 2h"),
        (["--time-limit", "1:2:3:4"], ONE, "--time-limit 1:2:3:4"),
        (["--time-limit", "10\n#SBATCH --uid=0"], ONE, "--time-limit 10"),
        (["--memory", "0"], ONE, "--memory 0"),
        (["--memory", "4GB"], ONE, "--memory 4GB"),
        (["--memory", "4G\n"], ONE, "--memory 4G"),
        (["--sbatch-extra=long"], ONE, "--sbatch-extra long"),
        (["--sbatch-extra=-p long"], ONE, "--sbatch-extra -p"),
        (["--sbatch-extra=--account=me --partition long"], ONE, "--sbatch-extra long"),
        (["--sbatch-extra=--comment=#"], ONE, "--sbatch-extra --comment=#"),
        (['--sbatch-extra=--comment="a'], ONE, "--sbatch-extra --comment="),
        (["--sbatch-extra=--array=1-2"], ONE, "--sbatch-extra --array=1-2"),
        (["--sbatch-extra=--outp=mine"], ONE, "--sbatch-extra --outp=mine"),
        ([], "", "standard input: no tasks"),
        ([], "net\tone\ttrue\nnet\tone\n", "line 2"),
        ([], "net\tone\t\n", "line 1"),
        ([], "net\tone\ttrue\tmore\n", "line 1"),
        ([], "../net\tone\ttrue\n", "line 1"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_what_is_no_task_or_no_setting_is_not_written(options, text, named, tmp_path):
    assert named in refused(write(tmp_path, text, *options))
    if options:
        assert named in refused(write(tmp_path, "", *options, "--check"))  # before there are tasks
    assert not list(tmp_path.iterdir())


def test_a_check_writes_nothing(tmp_path):
    done = write(tmp_path, ONE, "--check", "--time-limit", "90")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "") and not list(tmp_path.iterdir())


@pytest.mark.parametrize("time", ["90", "90:30", "2:00:00", "1-12", "1-12:30", "1-12:30:00"])
def test_times_are_those_of_sbatch(time, tmp_path):
    assert write(tmp_path, ONE, "--time-limit", time).returncode == 0
    assert f"--time={time}" in asked(tmp_path / "demo-array.sh")


def test_slurm_is_asked_for_what_the_settings_say(tmp_path):
    words = [f"{name}={value}" for name, value in SETTINGS.items()]
    assert write(tmp_path, 2 * ONE, "--first", "true", "--scripts", *words).returncode == 0
    common = ["--cpus-per-task=3", "--time=1-12:00:00", "--mem=4G", "--gres=gpu:1"]
    common += ["--account=me", "--constraint=[a&b]", "--exclusive", "--requeue", "--open-mode=append"]
    array = ["--array=1-2%20", "--kill-on-invalid-dep=yes"]
    expected = {
        "demo-array.sh": ["--job-name=demo", f'--output="{tmp_path}/logs/%x-%A_%a.log"', *array, *common],
        "demo-models.sh": ["--job-name=demo-models", f'--output="{tmp_path}/logs/%x-%j.log"', *common],
        "net-1-of-2.sh": ["--job-name=net-1-of-2", f'--output="{tmp_path}/logs/%x-%j.log"', *common],
        "net-2-of-2.sh": ["--job-name=net-2-of-2", f'--output="{tmp_path}/logs/%x-%j.log"', *common],
    }
    assert {path.name: asked(path) for path in tmp_path.glob("*.sh")} == expected
    assert (tmp_path / "logs").is_dir()
    assert write(tmp_path, ONE).returncode == 0  # and for nothing else
    plain = ["--array=1-1", "--kill-on-invalid-dep=yes", "--cpus-per-task=2", "--requeue", "--open-mode=append"]
    assert asked(tmp_path / "demo-array.sh")[2:] == plain


def test_one_list_and_one_script_are_written_and_run(tmp_path):
    commands = [
        "printf '%s\\n' \"$RESULTS\" > 'one  two'",
        "echo \\\\ \\$x '$y' > backslashes; exec true",
        "false; touch never",
        "touch last",
    ]
    text = "".join(
        f"{kind}\tit's number {number} of \\all\t{command}\n"
        for number, (kind, command) in enumerate(zip(("net", "other", "net", "net"), commands), 1)
    )
    done = write(tmp_path, text, RESULTS="my 'results'")
    assert done.returncode == 0 and {path.name for path in tmp_path.iterdir()} == {
        "demo-array.sh", "demo-tasks.tsv", "logs",
    }  # fmt: skip
    names = ["net-1-of-3", "other-1-of-1", "net-2-of-3", "net-3-of-3"]
    lines = [line.split("\t") for line in (tmp_path / "demo-tasks.tsv").read_text().splitlines()]
    assert [line[0] for line in lines] == names and [line[2] for line in lines] == commands
    if shutil.which("shellcheck"):
        assert call(tmp_path, "shellcheck", "demo-array.sh").returncode == 0
    done = call(tmp_path, "./demo-array.sh", "1")
    assert done.returncode == 0 and done.stderr == "net-1-of-3: it's number 1 of \\all\n"
    assert (tmp_path / "one  two").read_text() == "my 'results'\n" and not (tmp_path / "last").exists()
    assert call(tmp_path, "bash", "demo-array.sh", SLURM_ARRAY_TASK_ID="2").returncode == 0
    assert (tmp_path / "backslashes").read_text() == "\\ $x $y\n" and not (tmp_path / "last").exists()
    assert call(tmp_path, "./demo-array.sh", "3").returncode == 1  # and not what stands behind a failure
    assert call(tmp_path, "./demo-array.sh", "4", SLURM_ARRAY_TASK_ID="1").returncode == 0  # what is said counts
    assert (tmp_path / "last").exists()
    for wrong in ("0", "5", "01", "x", "1 1", "18446744073709551617"):
        assert f"error: task {wrong}: choose one of 1 to 4" in refused(call(tmp_path, "./demo-array.sh", wrong))
    assert "TOTPROCS=some" in refused(call(tmp_path, "./demo-array.sh", TOTPROCS="some"))
    (tmp_path / "last").unlink()
    done = call(tmp_path, "./demo-array.sh", TOTPROCS="2")
    assert done.returncode == 123 and (tmp_path / "last").exists()  # xargs: one has failed, and ended no other
    assert sorted(line.split(":")[0] for line in done.stderr.splitlines()) == sorted(names)
    assert not (tmp_path / "never").exists()


def test_tasks_that_run_side_by_side_share_the_cores(tmp_path):
    write(tmp_path, 'net\tone\techo "${CORES:-all}"\n')
    cores = int(call(tmp_path, "nproc").stdout)
    for processes in (1, 2, 1000):
        done = call(tmp_path, "./demo-array.sh", TOTPROCS=str(processes))
        assert done.stdout == f"{max(1, cores // processes)}\n"
    assert call(tmp_path, "./demo-array.sh", "1", CORES="").stdout == "all\n"


def test_the_first_job_comes_before_all_tasks_and_without_it_none_begins(tmp_path):
    task = "net\tone\ttest -e models && echo task\n"
    done = write(tmp_path, 2 * task, "--first", "echo first >> calls\ntouch models")
    assert "sbatch --dependency=afterok:$(sbatch --parsable demo-models.sh) demo-array.sh " in done.stdout
    assert call(tmp_path, "./demo-array.sh", "1").returncode == 1 and not (tmp_path / "calls").exists()
    done = call(tmp_path, "./demo-array.sh", TOTPROCS="2")
    assert (done.returncode, done.stdout) == (0, "task\ntask\n") and (tmp_path / "calls").read_text() == "first\n"
    write(tmp_path, 2 * task, "--first", "rm models\nfalse\ntouch models")
    done = call(tmp_path, "./demo-array.sh")
    assert done.returncode == 1 and done.stderr == "" and not (tmp_path / "models").exists()
    done = write(tmp_path, task, "--first", "touch models", "--run", "1")  # at once
    assert (done.returncode, done.stdout) == (0, "task\n")
    assert " sbatch demo-array.sh " in write(tmp_path, task, "--first", "").stdout
    assert not (tmp_path / "demo-models.sh").exists()


def test_scripts_of_the_papers_names_run_a_task_each_and_go_with_it(tmp_path):
    (tmp_path / "net-1-of-9.sh").touch()  # of another list
    text = "net-0\tone\techo zero\nnet-1\ttwo\techo one\nnet-1\tthree\techo two\n"
    assert write(tmp_path, text, "--scripts").returncode == 0
    scripts = {"net-0-1-of-1.sh": "zero\n", "net-1-1-of-2.sh": "one\n", "net-1-2-of-2.sh": "two\n"}
    assert {path.name for path in tmp_path.glob("net*")} == {*scripts, "net-1-of-9.sh"}
    assert {name: call(tmp_path, f"./{name}").stdout for name in scripts} == scripts
    if shutil.which("shellcheck"):
        assert call(tmp_path, "shellcheck", *scripts).returncode == 0
    assert write(tmp_path, "net-0\tone\techo zero\nnet-1\tthree\techo two\n", "--scripts").returncode == 0
    assert {path.name for path in tmp_path.glob("net*")} == {"net-0-1-of-1.sh", "net-1-1-of-1.sh", "net-1-of-9.sh"}
    assert write(tmp_path, text).returncode == 0
    assert {path.name for path in tmp_path.glob("net*")} == {"net-1-of-9.sh"}


def test_a_job_does_no_work_of_a_list_that_was_written_after_it(tmp_path):
    write(tmp_path, ONE)
    job = tmp_path / "spooled"  # as Slurm keeps a script that waits
    shutil.copy(tmp_path / "demo-array.sh", job)
    write(tmp_path, ONE, "--throttle", "3")  # the same tasks
    assert call(tmp_path, "bash", job, SLURM_ARRAY_TASK_ID="1").returncode == 0 and (tmp_path / "one").exists()
    write(tmp_path, "net\tother\ttouch two\n")
    for words in (["1"], []):
        line = refused(call(tmp_path, "bash", job, *words))
        assert "demo-tasks.tsv: not the one that this job was written with" in line
    assert not (tmp_path / "two").exists()
    (tmp_path / "demo-tasks.tsv").unlink()
    assert "demo-tasks.tsv" in refused(call(tmp_path, "./demo-array.sh", "1"))


def test_what_the_suite_takes_from_the_environment_goes_with_the_tasks(tmp_path):
    variables = {name: f"of {name}" for name in ("PYTHON", "RESULTS", "MODELS", "SHAPING_FILE", "PROTOCOL")}
    show = " ".join(f'"${name}"' for name in variables)
    task = f"net\tone\tprintf '%s\\n' {show}\n"
    write(tmp_path, task, "--first", f"printf '%s\\n' {show}", "--scripts", **variables)
    said = "".join(f"{value}\n" for value in variables.values())
    for script in ("demo-array.sh", "net-1-of-1.sh", "demo-models.sh"):
        words = ["1"] if "array" in script else []
        assert call(tmp_path, f"./{script}", *words).stdout == said
    text = (tmp_path / "demo-array.sh").read_text()
    assert re.findall(r"^export (\w+)=", text, re.MULTILINE) == [*variables, "CORES"]
