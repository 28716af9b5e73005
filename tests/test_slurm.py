"""The job arrays of do_tpoisoning.sh and compare_shapings.sh on a real Slurm: one node on this machine's loopback,
started for the test and stopped after it.

A task that is killed and requeued in the middle of its work, or lost, loses nothing and does nothing twice, and the
results have the bytes of a run without Slurm. What settings ask of Slurm is what it gives, seen by tasks that say what
they have.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import journeys
import pytest
import warm
from conftest import REPOSITORY, copied_suite, wait_for

from results import cells

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
SBIN = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))  # not in every user's PATH
MISSING = [name for name in NEEDED if shutil.which(name, path=SBIN) is None]

MODELS, TARGETS, POISONS, TASKS = 2, 6, 12, 2
SETTINGS = {
    "NETWORKS": "lr",
    "SHAPINGS": "undefended 4",
    "TARGETS": TARGETS,
    "POISONS": POISONS,
    "EPOCHS": 20,
    "TOTTASKS": TASKS,
    "STOP": 0,
    "CPUS": 1,
}
MATRIX = {
    "STAGES": "oblivious",
    "AGAINST": "none label-flips:0.1",
    "SHAPINGS": "undefended 4",
    "SEEDS": "1 2",
    "NETWORK": "lr",
    "EPOCHS": 40,
    "CPUS": 1,
}
# what else the scripts take from the environment
OTHERS = ("RESULTS", "MODELS", "SHAPING_FILE", "RATE", "RETRAIN", "WRITE", "TOTPROCS", "CORES", "CUDA")
NAME, TASK = "purchases-tpoisoning-one", "purchases-net-1-tpoisoning-one-2-of-2.sh"
ARRAY = f"{NAME}-array.sh"
CLEAN = "vanilla_lr_100_100_0.04"

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
ReturnToService=2
KillWait=2
MinJobAge=3600
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 Gres=gpu:2
PartitionName=debug Nodes={host} Default=YES
PartitionName=long Nodes={host}
# a requeued job starts again when its credential has expired, by default after two minutes; ended ones are remembered
"""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Slurm:
    """A Slurm of this user's own: its daemons are children of this process, all that it writes lies in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.daemons = folder, folder / "daemons.log", []
        left_out = ("SLURM", "SBATCH", "SQUEUE", "SCANCEL", *OTHERS)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        self.environment.update(SLURM_CONF=str(folder / "slurm.conf"), PATH=SBIN, PYTHON=warm.python())

    def start(self) -> None:
        """Start the daemons; returns when the node can take jobs."""
        self.log.touch()
        munge = self.folder / "munge"
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir()
        for path in (self.folder, munge):
            path.chmod(0o755)  # everyone must reach munge's socket
        (munge / "key").write_bytes(secrets.token_bytes(1024))
        (munge / "key").chmod(0o400)
        controller_port, node_port = free_ports(2)
        host = socket.gethostname().split(".")[0]
        settings = {
            "host": host,
            "user": pwd.getpwuid(os.getuid()).pw_name,
            "folder": self.folder,
            "controller_port": controller_port,
            "node_port": node_port,
        }
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(**settings))
        # Slurm does not look at what it hands out
        (self.folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self.daemon("munged", "--foreground", *(f"--{option}={munge / name}" for option, name in files.items()))
        munged = self.daemons[0]
        wait_for(lambda: (munge / "socket").is_socket() or munged.poll() is not None, 30, "munged's socket")
        assert munged.poll() is None, self.log.read_text()
        self.daemon("slurmctld", "-D")
        self.daemon("slurmd", "-D")
        wait_for(
            lambda: self.call("sinfo", "--noheader", "--format=%T", check=False).stdout.strip() == "idle",
            60,
            "an idle node",
        )

    def daemon(self, *command: str) -> None:
        """Start a daemon in the foreground, which also ends when this process is killed."""
        with open(self.log, "a") as log:
            words = ["setpriv", "--pdeathsig", "TERM", *command]
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self.daemons.append(subprocess.Popen(words, cwd=self.folder, env=self.environment, **streams))

    def stop(self) -> None:
        """End all jobs, since they outlive the daemons, and then the daemons.

        Prints their log, which pytest shows for a failed test.
        """
        try:
            if (self.folder / "munge/socket").is_socket() and all(daemon.poll() is None for daemon in self.daemons):
                self.call("scancel", f"--user={os.getuid()}", check=False)
                wait_for(lambda: self.queue() == [], 30, "the cancelled jobs to end")
        finally:
            for daemon in reversed(self.daemons):
                daemon.send_signal(signal.SIGTERM)
                try:
                    daemon.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
            print(self.log.read_text(errors="replace"))

    def call(self, *command, check: bool = True, cwd: Path | None = None, **variables) -> subprocess.CompletedProcess:
        """Run a command to its end, with more variables in its environment."""
        environment = {**self.environment, **{name: str(value) for name, value in variables.items()}}
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0 or not check, (command, done.stdout, done.stderr)
        return done

    def queue(self) -> list[str] | None:
        """The jobs that have not ended; None when Slurm does not answer."""
        done = self.call("squeue", "--noheader", "--format=%i %T", check=False)
        return done.stdout.split("\n")[:-1] if done.returncode == 0 else None

    def submit(self, suite: Path, script: str, *options: str) -> str:
        """The number of the job that sbatch makes of a script."""
        return self.call("sbatch", "--parsable", *options, script, cwd=suite).stdout.strip()

    def submit_as_said(self, suite: Path, said: str) -> tuple[str, str | None]:
        """Give the shell the line with sbatch that a script printed; the number of the array, and of its first job."""
        line = re.search(r"^    (sbatch .*?\.sh)  +on a Slurm cluster", said, re.MULTILINE)[1]
        job = self.call("bash", "-c", line, cwd=suite).stdout.split()[-1]
        shown = self.call("scontrol", "--oneliner", "show", "job", job).stdout
        first = re.search(r" Dependency=afterok:(\d+)", shown)
        return job, first[1] if first else None

    def state(self, task: str) -> str:
        """What a task of a job array is at, e.g. RUNNING."""
        done = self.call("squeue", "--noheader", "--array", "--states=all", f"--jobs={task}", "--format=%T")
        return done.stdout.strip()

    def tasks(self, job: str) -> dict[str, dict[str, str]]:
        """What Slurm tells of each task of a job array, by the task's number."""
        lines = self.call("scontrol", "--oneliner", "show", "job", job).stdout.splitlines()
        shown = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        return {task["ArrayTaskId"]: task for task in shown}

    def end(self, job: str) -> dict[str, dict[str, str]]:
        """Wait until every task of a job array has ended; returns `tasks`."""
        wait_for(lambda: self.queue() == [], 300, f"the end of job {job}", pause=0.5)
        return self.tasks(job)


@pytest.fixture
def slurm():
    # not in this process' own temporary folder, which models.device made for it alone: munged wants its socket within
    # everyone's reach
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir=os.environ.get("TMPDIR", "/tmp")))
    cluster = Slurm(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        try:
            cluster.stop()
        finally:
            shutil.rmtree(folder)


def finished(results: Path) -> dict[str, tuple[bytes, dict]]:
    """The finished targets' CSV files by relative path, with their bytes and settings.

    Every target of every model is there, with every trial once, and nothing else but what a killed process may leave.
    """
    paths = sorted(results.rglob("attack_w_*.csv"))
    whole = [cells.of_files(path) for path in paths]
    found = [(one.path, one.settings, list(csv.DictReader(io.StringIO(one.text)))) for one in whole]
    targets: dict[Path, list[int]] = {}
    for path, settings, lines in found:
        assert [line["poison"] for line in lines] == [str(trial) for trial in range(POISONS + 1)], path
        assert {line["target"] for line in lines} == {
            str(settings["target"])
        } and path.name == f"attack_w_{settings['target']}.csv"
        targets.setdefault(path.parent, []).append(settings["target"])
    assert len(targets) == MODELS and len(found) == MODELS * TARGETS
    for folder, numbers in targets.items():
        assert numbers == next(iter(targets.values())) and len(set(numbers)) == TARGETS
        expected = {
            "attack_w.lock",
            *(f"attack_w_{number}{ending}" for number in numbers for ending in (".csv", ".run.json")),
        }
        assert {path.name for path in folder.iterdir() if path.suffix != ".writing"} == expected
    return {str(path.relative_to(results)): (path.read_bytes(), settings) for path, settings, _ in found}


def written(results: Path) -> dict[Path, int]:
    """When each finished target was written, by its run.json, which is written last."""
    return {path: path.stat().st_mtime_ns for path in results.rglob("attack_w_*.run.json")}


def said(log: str) -> list[tuple[str, bool]]:
    """What a task's log says of each target that it came to: its place, as in 1 of 3, and whether it was finished
    before.
    """
    found = re.findall(r"target \d+ \((\d+ of \d+)\): .*, (\d+\.\d s|finished before)$", log, re.MULTILINE)
    return [(place, took == "finished before") for place, took in found]


WITH_SLURM = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} not on this machine (Debian: apt install slurm-wlm munge)"
)


@pytest.mark.slow
@WITH_SLURM
def test_a_requeued_job_array_has_the_results_of_a_run_without_slurm(slurm, tmp_path):
    suite, results, others = copied_suite(tmp_path), tmp_path / "results", tmp_path / "others"
    models, own = suite / "models/purchases-cj", {"RESULTS": results, "MODELS": tmp_path / "models"}
    clean = own["MODELS"] / models.name
    shutil.copytree(models / CLEAN, clean / CLEAN)  # the other one is missing
    sweep = ("./do_tpoisoning.sh", "purchases", "oneshot")
    said_first = slurm.call(*sweep, cwd=suite, SCRIPTS=1, **own, **SETTINGS).stdout
    for script in (ARRAY, TASK, f"{NAME}-models.sh"):
        slurm.call("sbatch", "--test-only", script, cwd=suite)
    assert slurm.queue() == [] and not list((suite / "logs").iterdir())
    assert [path.name for path in clean.iterdir()] == [CLEAN] and not results.exists()

    job, first = slurm.submit_as_said(suite, said_first)
    numbers = [str(number) for number in range(1, MODELS * TASKS + 1)]
    logs = {number: suite / "logs" / f"{NAME}-{job}_{number}.log" for number in numbers}
    wait_for(
        lambda: logs["1"].exists() and said(logs["1"].read_text()),
        120,
        "the first target of the first task",
        pause=0.05,
    )
    log = (suite / "logs" / f"{NAME}-models-{first}.log").read_text()
    assert "dp_lr" in log and "vanilla" not in log and slurm.state(first) == "COMPLETED"
    trained_models = {path: path.stat().st_mtime_ns for path in clean.glob("*/config.json")}
    assert len(trained_models) == MODELS
    slurm.call("scontrol", "requeue", f"{job}_1")
    kept = written(results)
    tasks, texts = slurm.end(job), {number: log.read_text() for number, log in logs.items()}
    ended = {number: (task["JobState"], task["ExitCode"], task["Restarts"]) for number, task in tasks.items()}
    assert ended == {number: ("COMPLETED", "0:0", "1" if number == "1" else "0") for number in numbers}, texts
    places = [f"{number} of {TARGETS // TASKS}" for number in range(1, TARGETS // TASKS + 1)]
    run, before = [(place, False) for place in places], [(place, True) for place in places]
    killed_after = sum(finished_before for _, finished_before in said(texts["1"]))
    assert 0 < killed_after < len(places), texts["1"]
    assert said(texts["1"]) == [*run[:killed_after], *before[:killed_after], *run[killed_after:]], texts["1"]
    assert all(said(texts[number]) == run for number in numbers[1:]), texts
    assert "REQUEUE" in texts["1"] and not any("another process" in text for text in texts.values())
    ours, times = finished(results), written(results)
    assert kept and kept.items() <= times.items()

    again, alone = slurm.submit(suite, ARRAY, "--array=1"), slurm.submit(suite, TASK)  # a script of the paper's names
    assert {number: task["JobState"] for number, task in slurm.end(again).items()} == {"1": "COMPLETED"}
    assert said((suite / "logs" / f"{NAME}-{again}_1.log").read_text()) == before
    assert slurm.state(alone) == "COMPLETED"
    assert said((suite / "logs" / f"{Path(TASK).stem}-{alone}.log").read_text()) == before
    assert {number: log.read_text() for number, log in logs.items()} == texts  # each job has a log of its own
    assert finished(results) == ours and written(results) == times
    assert {path: path.stat().st_mtime_ns for path in clean.glob("*/config.json")} == trained_models

    shutil.rmtree(suite / "datasets/poisons/targeted")  # to be crafted again
    others_own = {**own, "RESULTS": others}
    assert "dependency" not in slurm.call(*sweep, cwd=suite, **others_own, **SETTINGS).stdout  # no model is missing
    slurm.call(f"./{ARRAY}", cwd=suite, TOTPROCS=2)
    assert finished(others) == ours and finished(results) == ours


def trained(results: Path) -> dict[str, tuple[bytes, dict, dict]]:
    """The finished trainings of a matrix by relative path: the bytes of the CSV file, its settings and its SHA-256."""
    found = {}
    for path in results.rglob("attack_results.csv"):
        run = json.loads((path.parent / "run.json").read_text())
        found[str(path.relative_to(results))] = (path.read_bytes(), run["settings"], run["results"])
    return found


def marks(results: Path) -> dict[Path, int]:
    """When each training of a matrix was finished."""
    return {path: path.stat().st_mtime_ns for path in results.rglob("run.json")}


# Called as Python by a task: two of four tasks, when they begin for the first time, train as if it took for ever
LONG_TRAINING = """\
#!/bin/bash
if [[ $SLURM_ARRAY_TASK_ID == [12] && $1 == train.py ]] && mkdir began-$SLURM_ARRAY_TASK_ID 2> /dev/null; then
    echo training
    exec sleep infinity
fi
exec {python} "$@"
"""


@pytest.mark.slow
@WITH_SLURM
def test_a_matrix_that_lost_tasks_has_the_results_of_a_run_without_slurm(slurm, tmp_path):
    suite, results, others = copied_suite(tmp_path), tmp_path / "results", tmp_path / "others"
    slurm.call("./compare_shapings.sh", "subtask", "0", cwd=suite, RESULTS=results, WRITE=1, **MATRIX)
    array, numbers = "subtask-matrix-oblivious-array.sh", ["1", "2", "3", "4"]
    python = tmp_path / "long_training"
    python.write_text(LONG_TRAINING.format(python=warm.python()))
    python.chmod(0o755)
    slurm.environment["PYTHON"] = str(python)
    job = slurm.submit(suite, array)  # two at a time
    slurm.call("scancel", f"{job}_4")  # before it starts
    logs = {number: suite / "logs" / f"subtask-matrix-oblivious-{job}_{number}.log" for number in numbers}
    trains = {number: lambda log=log: log.exists() and "training" in log.read_text() for number, log in logs.items()}
    wait_for(trains["1"], 60, "the first task", pause=0.02)
    slurm.call("scancel", f"{job}_1")
    wait_for(trains["2"], 60, "the second task", pause=0.02)
    slurm.call("scontrol", "requeue", f"{job}_2")
    ended = {number: (task["JobState"], task["Restarts"]) for number, task in slurm.end(job).items()}
    ended.pop("4", None)  # Slurm may forget a task that has never run
    assert ended == {"1": ("CANCELLED", "0"), "2": ("COMPLETED", "1"), "3": ("COMPLETED", "0")}
    assert not logs["4"].exists()
    kept = marks(results)
    assert len(trained(results)) == len(kept) == 4  # two shapings each

    again = slurm.submit(suite, array)
    assert {task["JobState"] for task in slurm.end(again).values()} == {"COMPLETED"}
    logs = {number: suite / "logs" / f"subtask-matrix-oblivious-{again}_{number}.log" for number in numbers}
    before = {number: "2 trainings finished before" in log.read_text() for number, log in logs.items()}
    assert before == {"1": False, "2": True, "3": True, "4": False}
    ours = trained(results)
    assert len(ours) == 8 and kept.items() <= marks(results).items()

    slurm.call("./compare_shapings.sh", "subtask", "0", cwd=suite, RESULTS=others, **MATRIX)
    assert trained(others) == ours


SAYS = """\
import os
from models import device, memory
seen = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
print(round(memory.default_limit() / 2**20), device.cores_there(), seen, device.visible(0), flush=True)
"""
ALONE = "mkdir here || exit 9; sleep 1; rmdir here"  # fails where another task is at it
ASKED = ("--throttle=1", "--time-limit=3:00", "--memory=600M", "--gpus=1", "--cpus=1")
EXTRA = "--sbatch-extra=--partition=long --comment=mine"


def listed(slurm: Slurm, folder: Path, commands: list[str], *options: str) -> str:
    """Have tasks written into a folder; returns what was said."""
    lines = "".join(f"task\tit\t{command}\n" for command in commands)
    words = [sys.executable, REPOSITORY / "write_tasks.py", "--name", "demo", "--of", "it", "--by", "me", *options]
    done = subprocess.run(words, input=lines, cwd=folder, env=slurm.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def logged(folder: Path) -> dict[str, str]:
    """What jobs have said, by the names of their logs."""
    return {path.name: path.read_text() for path in (folder / "logs").iterdir()}


@pytest.mark.slow
@WITH_SLURM
def test_slurm_gives_tasks_what_the_settings_ask_for_after_the_first_job(slurm, tmp_path):
    (tmp_path / "says.py").write_text(SAYS)
    says = f"test -e models && PYTHONPATH={REPOSITORY} {sys.executable} says.py && {ALONE}"
    first = "sleep 2; touch models"
    job, models = slurm.submit_as_said(tmp_path, listed(slurm, tmp_path, [says] * 3, *ASKED, EXTRA, "--first", first))
    alone = slurm.call("scontrol", "--oneliner", "show", "job", models).stdout
    ended = slurm.end(job)
    assert {number: task["JobState"] for number, task in ended.items()} == dict.fromkeys("123", "COMPLETED"), logged(
        tmp_path
    )
    assert {task["ArrayTaskThrottle"] for task in ended.values() if "ArrayTaskThrottle" in task} <= {"1"}
    expected = {"TimeLimit": "00:03:00", "MinMemoryNode": "600M", "Partition": "long", "Comment": "mine"}
    shown = dict(word.split("=", 1) for word in alone.split() if "=" in word)
    for task in (*ended.values(), shown):
        assert {name: task.get(name) for name in expected} == expected
    texts = logged(tmp_path)
    assert set(texts) == {f"demo-models-{models}.log", *(f"demo-{job}_{number}.log" for number in "123")}
    for number in "123":
        assert texts[f"demo-{job}_{number}.log"] in [f"task-{number}-of-3: it\n450 1 {gpu} {gpu}\n" for gpu in "01"]

    said = listed(slurm, tmp_path, [ALONE, ALONE], "--cpus=1", "--first", "exit 3")  # two at a time
    job, models = slurm.submit_as_said(tmp_path, said)
    wait_for(lambda: slurm.queue() == [], 30, "the array to be cancelled")
    assert slurm.state(models) == "FAILED" and not [name for name in logged(tmp_path) if name.startswith(f"demo-{job}")]
    job = slurm.submit(tmp_path, "demo-array.sh")
    assert sorted(task["JobState"] for task in slurm.end(job).values()) == ["COMPLETED", "FAILED"]

    job = slurm.submit(tmp_path, "demo-array.sh", "--hold")
    listed(slurm, tmp_path, ["touch others"] * 2, "--cpus=1")
    slurm.call("scontrol", "release", job)
    assert {task["ExitCode"] for task in slurm.end(job).values()} == {"2:0"} and not (tmp_path / "others").exists()
    assert all("not the one that this job was written with" in logged(tmp_path)[f"demo-{job}_{n}.log"] for n in "12")


@pytest.mark.slow
@WITH_SLURM
def test_the_journey_of_the_documents_ends_as_told(slurm, tmp_path):
    suite, _ = journeys.prepared(tmp_path, warm.python())
    environment = {name: value for name, value in slurm.environment.items() if name != "PYTHON"}
    journeys.travel(journeys.journeys()[journeys.SLURM], suite, environment)
