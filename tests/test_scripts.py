"""The shell scripts as they are shipped, shortened; and that they are clean."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import warm
from conftest import REPOSITORY, Workplace, copied_suite, refused

from poisons import shafahi

SCRIPTS = sorted(path for path in REPOSITORY.glob("*.sh") if "-" not in path.name)  # others are of tasks
OTHERS = (REPOSITORY / "common.bash", REPOSITORY / ".ci/run")


@pytest.mark.parametrize("script", [*SCRIPTS, *OTHERS], ids=lambda path: path.name)
def test_scripts_are_clean_and_executable(script):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not on this machine (Debian: shellcheck)")
    done = subprocess.run(["shellcheck", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert script.stat().st_mode & 0o111 or script.suffix == ".bash"  # which is read by the others


@pytest.mark.parametrize(
    "call",
    [
        ["./do_ipoisoning.sh"],
        ["./do_ipoisoning.sh", "subtask", "0", "1"],
        ["./analyze_ipoisoning.sh"],
        ["./analyze_ipoisoning.sh", "subtask", "0"],
        ["./analyze_collision.sh"],
        ["./analyze_collision.sh", "subtask"],
        ["./analyze_collision.sh", "purchases", "one"],
        ["./analyze_collision.sh", "subtask", "two"],
        ["./analyze_insertion.sh"],
        ["./analyze_insertion.sh", "fashion_mnist", "0", "1"],
        ["./do_tpoisoning.sh", "purchases"],
        ["./do_tpoisoning.sh", "purchases", "one"],
        ["./do_tpoisoning.sh", "purchases", "oneshot", "0"],
        ["./analyze_tpoisoning.sh"],
        ["./analyze_tpoisoning.sh", "purchases", "0", "1"],
        ["./dose_response.sh"],
        ["./attack_together.sh", "purchases", "0", "1"],
        ["./analyze_nulls.sh", "mnist"],
        ["./certify.sh"],
        ["./compare_shapings.sh"],
        ["./compare_shapings.sh", "subtask"],
        ["./compare_shapings.sh", "subtask", "0", "1"],
    ],
)
def test_wrong_calls_show_the_usage(call, workplace):
    done = workplace.run(*call)
    assert done.returncode == 2 and done.stderr.startswith("usage: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_scripts_say_what_they_do_and_are_set_to(script, option, workplace):
    if script.name in ("setup.sh", "run_tests.sh"):
        pytest.skip("has no settings")
    done = workplace.succeed(f"./{script.name}", option)
    section = re.search(r"^# Settings.*?^use_python", script.read_text(), re.MULTILINE | re.DOTALL)
    settings = set(re.findall(r"^(?:words )?([A-Z_]+)[= ]", section[0] if section else "", re.MULTILINE))
    assert settings or script.name == "reproduce.sh"
    assert done.stdout.splitlines()[0] == script.read_text().splitlines()[1].removeprefix("# ")
    assert all(f"    {name}=" in done.stdout for name in settings), settings
    assert done.stderr == "" and not workplace.results.exists()


def test_sweeps_that_do_not_fit_are_refused_before_anything_is_crafted(workplace):
    assert "--network badnet" in refused(workplace.run("./analyze_insertion.sh", "subtask", "0"))
    assert "--victim-class 3" in refused(workplace.run("./do_tpoisoning.sh", "subtask", "oneshot"))
    assert not workplace.results.exists()


def without_crafting(done: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    """What a script said, but for the poison files that it found before."""
    done.stderr = "\n".join(
        line for line in done.stderr.splitlines() if not line.endswith(("already there", "crafted before"))
    )
    return done


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("RATIOS", "0.1 2"),
        ("RATIOS", "many"),
        ("RATIOS", " "),
        ("NORMCLP", "0"),
        ("NORMCLP", "1 -1"),
        ("NORMCLP", " "),
        ("NOISEML", "-0.1"),
        ("NOISEML", " "),
        ("EPOCHS", "none"),
        ("SEED", "-3"),
        ("ATTACKS", "flips"),
        ("ATTACKS", " "),
        ("ATTACKS", "collision"),
        ("SHAPINGS", " "),
        ("SHAPINGS", "undefended tight"),
        ("NETWORK", "badnet"),
    ],
)
def test_wrong_settings_are_refused(setting, value, workplace):
    for call in (("./do_ipoisoning.sh", "subtask", "0"), ("./analyze_ipoisoning.sh", "subtask")):
        if (call[0], setting) != ("./analyze_ipoisoning.sh", "NOISEML"):
            refused(without_crafting(workplace.run(*call, **{"RATIOS": "0.1", setting: value})))
    assert not workplace.results.exists()


@pytest.mark.parametrize(
    ("dataset", "attacks", "named"),
    [
        ("mnist", "label-flips", "--dataset mnist: unknown"),
        ("purchases", "label-flips slabs", "--dataset purchases-cj: slabs cannot poison it"),
        ("fashion_mnist_3_4.1.0", "collision", "collision"),
    ],
)
def test_data_sets_that_cannot_be_poisoned_are_refused(dataset, attacks, named, workplace):
    for call in (("./do_ipoisoning.sh", dataset, "0"), ("./analyze_ipoisoning.sh", dataset)):
        assert named in refused(workplace.run(*call, ATTACKS=attacks))
    assert not workplace.results.exists()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("NETWORKS", "badnet"),
        ("NETWORKS", " "),
        ("SHAPINGS", "undefended tight"),
        ("SHAPINGS", "4:-1"),
        ("TARGETS", "500"),
        ("TARGETS", "some"),
        ("POISONS", "0"),
        ("EPOCHS", "-1"),
        ("RATE", "0"),
        ("TOTTASKS", "0"),
        ("TOTPROCS", "two"),
        ("CPUS", "-1"),
        ("GPUS", "2"),
        ("SCRIPTS", "yes"),
        ("TIME_LIMIT", "soon"),
        ("MEMORY", "4 GB"),
        ("THROTTLE", "0"),
        ("SBATCH_EXTRA", "--account=me long"),
        ("STOP", "yes"),
    ],
)
def test_wrong_settings_of_the_targeted_sweep_are_refused(setting, value, workplace):
    settings = {
        "NETWORKS": "lr",
        "SHAPINGS": "undefended",
        "TARGETS": "2",
        "MODELS": REPOSITORY / "models",
        setting: value,
    }
    before = set(REPOSITORY.glob("*-tpoisoning-*"))
    line = refused(workplace.run("./do_tpoisoning.sh", "purchases", "oneshot", **settings))
    assert all(word in line for word in value.split()[-1:])
    assert not workplace.results.exists() and set(REPOSITORY.glob("*-tpoisoning-*")) == before


@pytest.mark.parametrize(
    ("call", "setting", "value"),
    [
        ("analyze_ipoisoning.sh subtask", "DUMP", "zip"),
        ("analyze_collision.sh subtask multi", "ALPHAS", " "),
        ("analyze_collision.sh subtask multi", "ALPHAS", "some"),
        ("analyze_collision.sh subtask one", "ALPHAS", "0.4 -0.1"),
        ("analyze_collision.sh subtask one", "SCRATCH", "yes"),
        ("analyze_insertion.sh fashion_mnist 0", "PATCHES", " "),
        ("analyze_insertion.sh fashion_mnist 0", "PATCHES", "big"),
        ("analyze_insertion.sh fashion_mnist 0", "RATIO", "-1"),
        ("analyze_tpoisoning.sh purchases", "SHAPINGS", " "),
        ("analyze_tpoisoning.sh purchases", "NETWORK", "net"),
        ("analyze_tpoisoning.sh purchases", "TARGETS", "-5"),
        ("analyze_tpoisoning.sh purchases", "GPU", "first"),
        ("analyze_nulls.sh purchases", "DRAWS", "0"),
        ("dose_response.sh purchases", "CLIPS", "4 0"),  # of its second attack alone, too
        ("dose_response.sh purchases x", "EPOCHS", "1"),
        ("attack_together.sh purchases", "ATTACKS", "clean-labels bull"),
        ("attack_together.sh purchases", "WANTED_CLASS", "100"),
        ("certify.sh subtask", "SEEDS", "1 -1"),  # of its last certificate
        ("certify.sh subtask", "NOISY", "0.1"),
    ],
)
def test_wrong_settings_of_the_analyses_are_refused(call, setting, value, workplace):
    script, *arguments = call.split()
    done = workplace.run(f"./{script}", *arguments, **{setting: value})
    refused(without_crafting(done))
    assert not workplace.results.exists()


MATRIX = {
    "STAGES": "oblivious",
    "AGAINST": "none",
    "SHAPINGS": "undefended",
    "SEEDS": "1",
    "NETWORK": "lr",
    "MODELS": REPOSITORY / "models",
}


@pytest.mark.parametrize("write", ["", "1"], ids=["run", "written"])
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"STAGES": "oblivious all"}, "STAGES=all: unknown"),
        ({"STAGES": " "}, "STAGES: empty"),
        ({"AGAINST": " "}, "AGAINST: empty"),
        ({"SHAPINGS": " "}, "SHAPINGS: empty"),
        ({"ADAPTIVE": " "}, "ADAPTIVE: empty"),
        ({"SEEDS": " "}, "SEEDS: empty"),
        ({"RETRAIN": "yes"}, "RETRAIN=yes"),
        ({"CPUS": "0"}, "CPUS=0"),
        ({"GPUS": "2"}, "GPUS=2"),
        ({"SCRIPTS": "yes"}, "SCRIPTS=yes"),
        ({"SHAPINGS": "undefended tight"}, "--shaping"),
        ({"EPOCHS": "none"}, "EPOCHS=none"),
        ({"TOTPROCS": "two"}, "TOTPROCS=two"),
        ({"SEEDS": "-3"}, "--seed"),
        ({"AGAINST": "none flips:0.1"}, "--sets flips:0.1"),
        ({"AGAINST": "label-flips:all"}, "--sets label-flips:all"),
        ({"NETWORK": "net"}, "--network"),
    ],
    ids=lambda value: " ".join(map("=".join, value.items())) if isinstance(value, dict) else "",
)
def test_wrong_settings_of_the_matrix_are_refused(settings, named, write, workplace):
    before = set(REPOSITORY.glob("*-matrix-*.sh"))
    done = workplace.run("./compare_shapings.sh", "subtask", "0", **{**MATRIX, "WRITE": write, **settings})
    assert named in refused(done)
    assert not workplace.results.exists() and set(REPOSITORY.glob("*-matrix-*.sh")) == before


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"WRITE": "1", "STAGES": "oblivious final"}, "STAGES=oblivious"),
        ({"WRITE": "1", "STAGES": "adaptive"}, "STAGES=crafting"),
        ({"WRITE": "1", "STAGES": ""}, "STAGES=oblivious"),  # the subtask's, all of them
        ({"WRITE": "yes"}, "WRITE=yes"),
        ({"TOTPROCS": "2"}, "WRITE=1"),
        ({"WRITE": "1", "TIME_LIMIT": "soon"}, "--time-limit soon"),
        ({"WRITE": "1", "MEMORY": "much"}, "--memory much"),
        ({"WRITE": "1", "THROTTLE": "0"}, "--throttle"),
        ({"WRITE": "1", "SBATCH_EXTRA": "-p long"}, "--sbatch-extra -p"),
    ],
)
def test_tasks_of_the_matrix_are_written_one_stage_at_a_time(settings, named, workplace):
    before = set(REPOSITORY.glob("*-matrix-*.sh"))
    assert named in refused(workplace.run("./compare_shapings.sh", "subtask", "0", **{**MATRIX, **settings}))
    assert not workplace.results.exists() and set(REPOSITORY.glob("*-matrix-*.sh")) == before


# Stands for Python in a script that is looked at: notes what it is called with, and answers as the commands do
STAND_IN = """\
#!{python}
import json, os, sys
words = sys.argv[1:]
if words[0] == "write_tasks.py":
    os.execv("{python}", ["{python}", *words])
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(words) + "\\n")
if os.environ.get("FAILS") == words[0]:
    sys.exit("error: wanted")
if "--missing" in words and "MISSING" in os.environ:
    print("vanilla_net")
if words[0] == "choose_shapings.py":
    print("4", "clip:1@5,phuber:2", sep="\\n")
if words[0] == "transfer.py":
    print(*words[-2:], sep="\\n")
if words[:2] == ["-m", "poisons"]:
    last = words.index("--against") if "--against" in words else words.index("--seed")
    sets, against = words[words.index("--sets") + 1 : last], words[last + 1 :]
    print(*("none" if one == "none" else f"/a folder/{{one}}/{{other}}.npz" for one in sets for other in against), sep="\\n")
"""  # noqa: E501


class Matrix:
    """compare_shapings.sh in a folder of its own, with a Python that only notes what it is called with."""

    settings = {"AGAINST": "none flips:0.1", "ADAPTIVE": "a:1 b:2", "SHAPINGS": "undefended 4", "SEEDS": "1 2"}

    def __init__(self, folder):
        self.folder, self.calls = folder, folder / "calls"
        for name in ("compare_shapings.sh", "common.bash", "write_tasks.py", "command_line.py", "files.py"):
            shutil.copy2(REPOSITORY / name, folder / name)
        python = folder / "python"
        python.write_text(STAND_IN.format(python=sys.executable))
        python.chmod(0o755)
        settings = {**self.settings, "EPOCHS": "3", "NETWORK": "net", "PYTHON": python, "CALLS": self.calls}
        self.environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}

    def run(self, *command, **variables):
        """Run a command; returns how it ended and what Python was called with, as lines."""
        self.calls.write_text("")
        environment = {**self.environment, **variables}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        return done, [" ".join(json.loads(line)) for line in self.calls.read_text().splitlines()]

    def stages(self, stages, **variables):
        return self.run("./compare_shapings.sh", "mine", "0", STAGES=stages, **variables)


@pytest.fixture
def matrix(tmp_path):
    return Matrix(tmp_path)


def files_of(sets, against):
    return " ".join(f"/a folder/{one}/{other}.npz" for one in sets.split() for other in against.split())


MODEL = "--dataset mine --network net"
CHOSEN = "4 clip:1@5,phuber:2"
CHOOSE = f"choose_shapings.py {MODEL} --epochs 3"
CRAFT = "-m poisons --dataset mine --sets a:1 b:2 --against"
TRANSFER = f"transfer.py {MODEL} --shaping {CHOSEN} --poison {files_of('a:1 b:2', CHOSEN)}"
PRICE = f"price.py --dataset mine --shaping {CHOSEN}"
TRAINING = f"train.py {MODEL} --gpu 0 --epochs 3 --poison"
BASELINE = f"train.py {MODEL} --gpu 0"
CHECK = f"{BASELINE} --epochs 3 --shaping undefended 4 --check"
POISONS = {seed: f"-m poisons --dataset mine --sets none flips:0.1 --seed {seed}" for seed in (1, 2)}
STRONGEST = files_of("b:2", CHOSEN)
MEASURING = TRAINING.replace("--poison", "--strongest --poison")
FINAL = [f"{MEASURING} {STRONGEST} --seed {seed} --shaping {CHOSEN}" for seed in (1, 2)]


def test_the_stages_of_the_matrix_run_one_after_the_other(matrix):
    done, calls = matrix.stages("oblivious adaptive")
    oblivious = [
        (POISONS[seed], f"{TRAINING} none {files_of('flips:0.1', str(seed))} --seed {seed} --shaping undefended 4")
        for seed in (1, 2)
    ]
    crafting = [CHOOSE, *(f"{CRAFT} {shaping}" for shaping in CHOSEN.split())]
    assert done.returncode == 0, done.stderr
    calls[6:8] = sorted(calls[6:8])  # side by side
    rest = [*oblivious[1], *crafting, f"{CRAFT} {CHOSEN}", PRICE, TRANSFER, TRANSFER, *FINAL]
    assert calls == [CHECK, *oblivious[0], *rest]
    _, calls = matrix.stages("final", RETRAIN="1", SEEDS="1")
    assert calls[-1] == FINAL[0].replace(" --strongest", " --retrain --strongest")
    assert matrix.stages("final")[1] == [CHOOSE, f"{CRAFT} {CHOSEN}", TRANSFER, *FINAL]
    assert not list(matrix.folder.glob("mine-matrix-*"))


@pytest.mark.parametrize(
    ("stage", "before", "tasks", "following"),
    [
        (
            "oblivious",
            [CHECK, POISONS[1], POISONS[2], f"{BASELINE} --missing"],
            [
                f"{TRAINING} {file} --seed {seed} --shaping undefended 4"
                for seed in (1, 2)
                for file in ("none", files_of("flips:0.1", str(seed)))
            ],
            "crafting",
        ),
        ("crafting", [CHOOSE], [f"{CRAFT} {shaping}" for shaping in CHOSEN.split()], "transfer"),
        ("transfer", [CHOOSE, f"{CRAFT} {CHOSEN}"], [TRANSFER], "final"),
        ("final", [CHOOSE, f"{CRAFT} {CHOSEN}", TRANSFER], FINAL, None),
    ],
)
def test_a_stage_of_the_matrix_is_written_as_tasks(stage, before, tasks, following, matrix):
    done, calls = matrix.stages(stage, WRITE="1", SHAPING_FILE="my shapings.py")
    assert done.returncode == 0 and calls == before, done.stderr
    name = f"mine-matrix-{stage}"
    array, listed = f"{name}-array.sh", f"{name}-tasks.tsv"
    assert {path.name for path in matrix.folder.glob("mine-matrix-*")} == {array, listed}
    assert f"sbatch {array}" in done.stdout and (following is None) == ("then" not in done.stdout)
    assert following is None or f"WRITE=1 STAGES={following} ./compare_shapings.sh mine 0" in done.stdout
    assert "export SHAPING_FILE='my shapings.py'\n" in (matrix.folder / array).read_text()
    lines = [line.split("\t") for line in (matrix.folder / listed).read_text().splitlines()]
    assert [line[0] for line in lines] == [f"{name}-{number}-of-{len(tasks)}" for number in range(1, len(tasks) + 1)]
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", array], cwd=matrix.folder).returncode == 0
    for number, task in enumerate(tasks, 1):
        assert matrix.run(f"./{array}", str(number))[1] == [task]
    assert matrix.run(f"./{array}")[1] == tasks
    _, calls = matrix.stages(stage, WRITE="1", TOTPROCS="1", SEEDS="2")  # with TOTPROCS they run at once
    fewer = [task for task in tasks if "--seed 1 " not in task]
    assert calls[-len(fewer) :] == fewer
    assert len((matrix.folder / listed).read_text().splitlines()) == len(fewer)


def test_a_stage_of_the_matrix_is_written_as_the_settings_for_slurm_say(matrix):
    done, calls = matrix.stages("oblivious", WRITE="1", SCRIPTS="1", GPUS="1", THROTTLE="2", MISSING="1", SEEDS="1")
    assert done.returncode == 0 and f"{BASELINE} --missing" in calls and BASELINE not in calls, done.stderr
    names = [f"mine-matrix-oblivious-{end}" for end in ("1-of-2.sh", "2-of-2.sh", "array.sh", "models.sh", "tasks.tsv")]
    assert sorted(path.name for path in matrix.folder.glob("mine-matrix-*")) == names
    assert "#SBATCH --array=1-2%2\n" in (matrix.folder / names[2]).read_text()
    texts = [(matrix.folder / name).read_text() for name in names[:4]]
    assert all("#SBATCH --gres=gpu:1\n" in text for text in texts)
    tasks = [f"{TRAINING} {file} --seed 1 --shaping undefended 4" for file in ("none", files_of("flips:0.1", "1"))]
    assert [matrix.run(f"./{name}")[1] for name in names[:2]] == [[task] for task in tasks]
    assert matrix.run(f"./{names[3]}")[1] == [BASELINE] and matrix.run(f"./{names[2]}")[1] == [BASELINE, *tasks]
    _, calls = matrix.run("./compare_shapings.sh", "mine", "3", STAGES="oblivious", WRITE="1", GPUS="1", SEEDS="1")
    assert f"{BASELINE} --missing" in calls and not (matrix.folder / names[3]).exists()  # a job's only one is its first
    _, calls = matrix.run("./compare_shapings.sh", "mine", "3", STAGES="oblivious", WRITE="1", SEEDS="1")
    assert f"{BASELINE[:-1]}3 --missing" in calls


def test_targets_are_attacked_under_each_chosen_shaping(matrix):
    attack = "--mode oneshot --learning-rate 0.04 --targets 3 --poisons 10 --beta 0 --radius 1.5 --feature-distance 1e6"
    model = "--dataset purchases --network lr"
    calls = [f"attack_targets.py {model} --gpu 0 {attack} --epochs 3 --shaping {shaping}" for shaping in CHOSEN.split()]
    settings = {"SHAPINGS": "", "NETWORK": "", "TARGETS": "3", "RADIUS": "1.5"}
    run = ("./compare_shapings.sh", "purchases", "0")
    check = calls[0].removesuffix("4") + f"{CHOSEN} --check"
    assert matrix.run(*run, **settings)[1] == [f"choose_shapings.py {model}", check, *calls]
    words = attack.split()  # what the matrix takes, and no other budget
    dosed = {
        name: float(words[words.index(f"--{name.replace('_', '-')}") + 1])
        for name in ("poisons", "beta", "feature_distance")
    }
    assert dosed == {name: getattr(shafahi.DOSED, name) for name in dosed}
    done, before = matrix.run(*run, **settings, WRITE="1")
    assert done.returncode == 0 and len(before) == 2 and "then" not in done.stdout
    assert matrix.run("./purchases-matrix-targeted-array.sh")[1] == calls


@pytest.mark.parametrize("command", ["-m", "choose_shapings.py", "transfer.py", "train.py"])
@pytest.mark.parametrize("write", ["", "1"], ids=["run", "written"])
def test_a_matrix_ends_where_a_command_fails(command, write, matrix):
    for stage in ("oblivious", "crafting", "transfer", "final"):
        done, calls = matrix.stages(stage, WRITE=write, FAILS=command)
        failed = [number for number, call in enumerate(calls) if call.startswith(command)]
        last = [[], [len(calls) - 1], *([[1, 2]] if stage == "crafting" else [])]  # two are crafted side by side
        assert failed in last and done.returncode == bool(failed), (calls, done.stderr)
        assert bool(list(matrix.folder.glob(f"mine-matrix-{stage}-*"))) == bool(write and not failed)


def test_what_is_missing_is_trained_by_a_first_job_and_not_where_tasks_are_written(workplace, tmp_path):
    place = Workplace(tmp_path, copied_suite(tmp_path))
    short = {"NETWORKS": "lr", "SHAPINGS": "4 phuber:2", "TARGETS": 150, "TOTTASKS": 2, "RATE": "0.02", "GPU": 1}
    name, model = "purchases-tpoisoning-one", "--dataset purchases --network lr --gpu 1"
    done = place.succeed("./do_tpoisoning.sh", "purchases", "oneshot", **short)
    line = f"sbatch --dependency=afterok:$(sbatch --parsable {name}-models.sh) {name}-array.sh "
    assert line in done.stdout and "4 tasks" in done.stdout
    assert not place.models.exists() and not place.results.exists()
    commands = (place.suite / f"{name}-models.sh").read_text().splitlines()[-3:]
    assert commands[:2] == [
        f'"$PYTHON" train.py {model}',
        f'"$PYTHON" train.py {model} --shaping 4 phuber:2 --learning-rate 0.02',
    ]
    assert commands[2].startswith('"$PYTHON" attack_targets.py') and commands[2].endswith(" --list > /dev/null")
    tasks = (place.suite / f"{name}-tasks.tsv").read_text().splitlines()
    assert len(tasks) == 4 and all("--gpu 1 " in task for task in tasks)
    asking = ("python3", "train.py", "--dataset", "purchases", "--network", "lr", "--missing")
    assert place.succeed(*asking).stdout == "vanilla_lr_100_100_0.04\n" and not place.models.exists()
    assert "leave --poison out" in refused(place.run(*asking, "--poison", "none"))
    shutil.copytree(REPOSITORY / "models/purchases-cj", place.models / "purchases-cj")
    assert place.succeed(*asking).stdout == ""
    kept = {**short, "SHAPINGS": "undefended 4", "RATE": "", "GPUS": 1}  # a job's GPU is its first
    line = refused(place.run("./do_tpoisoning.sh", "purchases", "oneshot", **kept))  # where they can be asked
    assert re.match(r"error: --targets 150: \d+ test rows of class 3 are classified correctly; ask for \d+", line)
    assert (place.suite / f"{name}-models.sh").exists()
    place.succeed("./do_tpoisoning.sh", "purchases", "oneshot", **{**kept, "TARGETS": 2})
    assert not (place.suite / f"{name}-models.sh").exists()
    assert "--gpu 0 " in (place.suite / f"{name}-tasks.tsv").read_text()


@pytest.mark.slow
def test_tasks_run_as_they_are(workplace, tmp_path):
    suite, processes = (
        copied_suite(tmp_path),
        {"NETWORKS": "lr", "SHAPINGS": "undefended 4", "TARGETS": 4, "POISONS": 2, "EPOCHS": 3, "TOTTASKS": 2},
    )
    environment = {
        **workplace.environment,
        "PYTHON": warm.python(),
        "MODELS": str(tmp_path / "models"),
        "SCRIPTS": "1",
        **{name: str(value) for name, value in processes.items()},
    }

    def call(*command):
        done = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    undefended = "models/purchases-cj/vanilla_lr_100_100_0.04"
    shutil.copytree(REPOSITORY / undefended, tmp_path / undefended)
    call("./do_tpoisoning.sh", "purchases", "multipoison")
    scripts = sorted(path.name for path in suite.glob("purchases-*.sh"))
    assert scripts == [f"purchases-net-{net}-tpoisoning-multi-{task}-of-2.sh" for net in (0, 1) for task in (1, 2)] + [
        "purchases-tpoisoning-multi-array.sh",
        "purchases-tpoisoning-multi-models.sh",
    ]
    array = scripts[-2]
    if shutil.which("shellcheck"):
        call("shellcheck", *scripts)
    call(f"./{scripts[-1]}")
    assert len(list(workplace.models.glob("purchases-cj/*/config.json"))) == 2
    call(f"./{scripts[0]}")
    done = {path.name: path.read_bytes() for path in workplace.results.rglob("attack_w_*.csv")}
    assert len(done) == 2  # the first and the third target of the undefended model
    call(f"./{array}", "4")
    environment["TOTPROCS"] = "2"
    assert call(f"./{array}").stderr.count("finished before") == 4
    found = list(workplace.results.rglob("attack_w_*.csv"))
    assert len(found) == 8 and all(
        done.get(path.name, b"") == path.read_bytes()
        for path in found
        if path.parents[1].name.startswith("van") and path.name in done
    )
    refused(subprocess.run([f"./{array}", "5"], cwd=suite, env=environment, capture_output=True, text=True))
    environment["TOTTASKS"], environment["TOTPROCS"], environment["SCRIPTS"] = "1", "1", ""
    assert (
        call("./do_tpoisoning.sh", "purchases", "multipoison").stderr.count("finished before") == 8
    )  # with TOTPROCS they run at once
    assert [path.name for path in suite.glob("purchases-*.sh")] == [array]


@pytest.mark.slow
def test_sweep_and_analysis_from_nothing(workplace):
    short = {
        "ATTACKS": "label-flips slabs",
        "RATIOS": "0.01 0.4",
        "NORMCLP": "0.1 8",
        "NOISEML": "0 0.001",
        "EPOCHS": "2",
    }
    workplace.succeed("./do_ipoisoning.sh", "subtask", "0", **short)
    cells = [path for path in workplace.written() if path.endswith("attack_results.csv")]
    assert len(cells) == 2 * 2 * (1 + 2 * 2)
    assert (
        "ipoisoning/label-flips/fashion_mnist_3_4.1.0_random_0.4/dp_lr_300_2_0.01_1000.0_1e-05_8.0_0.000125/attack_results.csv"
        in cells
    )
    assert (workplace.models / "subtask/vanilla_lr_300_40_0.01/config.json").exists()
    again = workplace.succeed("./do_ipoisoning.sh", "subtask", "0", **short)
    assert again.stderr.count("5 trainings finished before") == 4

    workplace.succeed("./analyze_ipoisoning.sh", "subtask", EPOCHS=2, ATTACKS="label-flips")
    folder = workplace.results / "analysis/ipoisoning/label-flips/fashion_mnist_3_4.1.0_random_0.4"
    assert sorted(path.name for path in folder.iterdir()) == [
        "dp_lr_300_2_0.01_1000.0_1e-05_4.0_0.0",
        "gradients.png",
        "vanilla_lr_300_2_0.01",
    ]
    for cell in folder.glob("*_lr_*"):
        names = {path.name for path in cell.iterdir()}
        assert names == {
            "analysis_results.csv",
            "run.json",
            "param_updates",
            "mextracts_epoch.csv",
            "aextracts_epoch.csv",
            "sextracts_epoch.csv",
        }
    expected = workplace.written()
    workplace.succeed("./analyze_ipoisoning.sh", "subtask", EPOCHS=2, ATTACKS="label-flips")
    assert workplace.written() == expected
    done = workplace.succeed("python3", "report.py")
    assert "published rows within tolerance" in done.stdout and str(workplace.results / "report.html") in done.stdout


@pytest.mark.slow
def test_sweep_and_analysis_of_another_data_set_by_a_list_of_shapings(workplace, purchases):
    short = {
        "RATIOS": "0.1",
        "EPOCHS": 2,
        "SEED": 3,
        "SHAPINGS": "undefended 4:0.0025",
        "MODELS": REPOSITORY / "models",
    }
    workplace.succeed("./do_ipoisoning.sh", "purchases", "0", **short)
    workplace.succeed("./analyze_ipoisoning.sh", "purchases", **short)
    place = f"label-flips/{purchases.name}_random_0.1_seed_3"
    models = ["dp_lr_100_2_0.08_1000.0_1e-05_4.0_0.0025_seed_3", "vanilla_lr_100_2_0.04_seed_3"]
    for folder in (workplace.results / "ipoisoning" / place, workplace.results / "analysis/ipoisoning" / place):
        assert sorted(path.parent.name for path in folder.glob("*/run.json")) == models
    run = json.loads((workplace.results / "ipoisoning" / place / models[0] / "run.json").read_text())["settings"]
    assert (run["dataset"], run["n_poison"], run["clean_rows"], run["ratio"]) == (purchases.name, 1000, 10000, 0.1)


@pytest.mark.slow
def test_collision_from_nothing_and_again(workplace):
    for pairs, count in (("one", 1), ("multi", 100)):
        workplace.succeed("./analyze_collision.sh", "subtask", pairs, ALPHAS="0.2 1.0", EPOCHS=2)
        task = "a_pair_0_1" if pairs == "one" else "pairs_of_100"
        folder = workplace.results / "analysis/collision" / task / "fashion_mnist_3_4.1.0"
        assert sorted(path.name for path in folder.iterdir()) == [
            "alpha_0.2",
            "alpha_1.0",
            "gradients_vanilla_lr_300_2_0.01.png",
        ]
        lines = (folder / "alpha_1.0/vanilla_lr_300_2_0.01/analysis_results.csv").read_text().split()
        assert lines[0] == "epoch,n_poison,baseline_acc,test_acc" and lines[2].startswith(f"2,{count},0.955,0.9")
        assert (workplace.results / f"analysis/collision/{task}_fashion_mnist_3_4.1.0.png").stat().st_size > 5000
    expected = workplace.written()
    folder = workplace.results / "analysis/collision/pairs_of_100/fashion_mnist_3_4.1.0/alpha_0.2/vanilla_lr_300_2_0.01"
    (folder / "run.json").unlink()
    workplace.succeed("./analyze_collision.sh", "subtask", "multi", ALPHAS="0.2 1.0", EPOCHS=2)
    again = workplace.succeed("./analyze_collision.sh", "subtask", "one", ALPHAS="0.2 1.0", EPOCHS=2)
    assert "2 trainings finished before" in again.stderr and workplace.written() == expected


@pytest.mark.slow
def test_retraining_on_the_full_set_starts_from_the_kept_baselines(workplace, full):
    shutil.copytree(REPOSITORY / "models/fashion_mnist", workplace.models / "fashion_mnist")
    workplace.succeed("./analyze_collision.sh", "fashion_mnist", "multi", ALPHAS="0.4 1.0", EPOCHS=1)
    workplace.succeed("./analyze_insertion.sh", "fashion_mnist", "0", PATCHES="1 14", EPOCHS=1, NETWORK="shallow-mlp")
    workplace.succeed("./analyze_insertion.sh", "fashion_mnist", "0", PATCHES="4", EPOCHS=1)
    analysis = workplace.results / "analysis"
    for alpha in ("0.4", "1.0"):
        folder = analysis / f"collision/pairs_of_100_retrain/fashion_mnist/alpha_{alpha}/vanilla_shallow-mlp_100_1_0.04"
        line = (folder / "analysis_results.csv").read_text().split()[1].split(",")
        assert line[1] == "100" and float(line[3]) > float(line[2]) - 0.03  # an epoch from initial weights reaches 0.81
    success = {}
    for patch, model in ((1, "shallow-mlp_100_1_0.04"), (14, "shallow-mlp_100_1_0.04"), (4, "badnet_100_1_0.01")):
        table = (
            (analysis / f"insertion/fashion_mnist/4_0.01_{patch}/vanilla_{model}/analysis_results.csv")
            .read_text()
            .split()
        )
        assert table[0] == "epoch,baseline_acc,test_acc,baseline_backdoor_acc,backdoor_acc,backdoor_acc_other_classes"
        baseline, clean, before, after, others = map(float, table[1].split(",")[1:])
        assert clean > baseline - 0.03 and before < 0.35 and others <= after
        success[patch] = after
    assert success[4] >= 0.97 and success[14] >= 0.97 > success[1]
    workplace.report()
    lines = (workplace.results / "tables/insertion.csv").read_text().splitlines()
    assert sum(line.startswith("insertion,") and line.endswith("analysis_results.csv") for line in lines) == 3


@pytest.mark.slow
def test_the_estimate_names_every_part_and_their_sum(workplace):
    said = re.findall(r'^ *part (\S+) "(.+)"', (REPOSITORY / "reproduce.sh").read_text(), re.MULTILINE)
    recorded = pd.read_csv(REPOSITORY / "results/reproduction.csv")
    assert list(zip(recorded.kind, recorded.part)) == said
    done = workplace.succeed("python3", "estimate.py")
    minutes = [float(line.split()[0]) for line in done.stdout.splitlines() if " minutes   " in line]
    assert len(minutes) == len(said) + 1 and all(value > 0 for value in minutes)
    assert minutes[-1] == pytest.approx(sum(minutes[:-1]), abs=0.06 * len(minutes))
    recorded["least"], recorded["most"] = (
        (np.array(minutes[:-1]) + rounding) * 60 / recorded.seconds for rounding in (-0.05, 0.05)
    )
    of_kinds = recorded.groupby("kind").agg({"least": "max", "most": "min"})
    assert (of_kinds.least <= of_kinds.most).all()  # one factor a kind


@pytest.mark.slow
def test_a_run_in_one_piece_is_recorded_and_no_other(workplace):
    run = workplace.folder / "run"
    log, table = run.with_suffix(".log"), run.with_suffix(".csv")
    begins = ["1000\tbaskets\tone\n", "1060\tbaskets\tanother\n", "1090\tsubtask\tlast\n"]
    pieces = {
        "without its end": begins, "one part twice": [*begins, begins[0], "1100\t\tend\n"],
        "nothing": ["1100\t\tend\n"], "another clock": [*begins, "1080\t\tend\n"],
    }  # fmt: skip
    for lines in pieces.values():
        log.write_text("".join(lines))
        done = workplace.run("python3", "estimate.py", "--record", run)
        assert done.returncode == 0 and "no record is made" in done.stdout and not table.exists()
    for damaged in ("1000 baskets one\n", "soon\tbaskets\tone\n"):
        log.write_text(damaged)
        done = workplace.run("python3", "estimate.py", "--record", run)
        assert done.returncode == 2 and done.stderr.startswith("error: --record") and not table.exists()
    log.write_text("".join([*begins, "1100\t\tend\n"]))
    assert workplace.run("python3", "estimate.py", "--record", run).returncode == 0
    found = pd.read_csv(table)
    assert found.part.tolist() == ["one", "another", "last"] and found.seconds.tolist() == [60, 30, 10]
    assert found.begun[1] == "1970-01-01 00:17:40" and (found.step_seconds > 0).all()
    assert found.step_seconds.nunique() == 2 and found[["cpu", "commit", "tensorflow"]].notna().all(None)
