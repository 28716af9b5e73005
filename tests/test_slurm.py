"""The job arrays of do_tpoisoning.sh and compare_shapings.sh on a real Slurm: one node on this machine's loopback,
started for the test and stopped after it.

A task that is killed and requeued in the middle of its work, or lost, loses nothing and does nothing twice, and the
results have the bytes of a run without Slurm.
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
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import copied_suite

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
OTHERS = ("RESULTS", "MODELS", "SHAPING_FILE", "RATE", "RETRAIN", "WRITE", "TOTPROCS", "CORES")
ARRAY, TASK = "purchases-tpoisoning-one-array.sh", "purchases-net-1-tpoisoning-one-2-of-2.sh"

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
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=debug Nodes={host} Default=YES
# a requeued job starts again when its credential has expired, by default after two minutes; ended ones are remembered
"""


def wait_for(condition: Callable, seconds: float, what: str, pause: float = 0.1):
    """Poll until `condition` returns something true, and return that; fails after so many seconds of wall time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(pause)
    return pytest.fail(f"waited {seconds} s for {what}")


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
        self.environment.update(SLURM_CONF=str(folder / "slurm.conf"), PATH=SBIN, PYTHON=sys.executable)

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
    slurm.call("./do_tpoisoning.sh", "purchases", "oneshot", cwd=suite, RESULTS=results, **SETTINGS)
    for script in (ARRAY, TASK):
        slurm.call("sbatch", "--test-only", script, cwd=suite)
    assert slurm.queue() == [] and not list((suite / "logs").iterdir())

    job = slurm.submit(suite, ARRAY)
    numbers = [str(number) for number in range(1, MODELS * TASKS + 1)]
    logs = {number: suite / "logs" / f"{ARRAY[: -len('.sh')]}-{number}.log" for number in numbers}
    wait_for(
        lambda: logs["1"].exists() and said(logs["1"].read_text()),
        120,
        "the first target of the first task",
        pause=0.05,
    )
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

    again = slurm.submit(suite, ARRAY, "--array=1")
    assert {number: task["JobState"] for number, task in slurm.end(again).items()} == {"1": "COMPLETED"}
    assert said(logs["1"].read_text()[len(texts["1"]) :]) == before
    assert finished(results) == ours and written(results) == times

    shutil.rmtree(suite / "datasets/poisons/targeted")  # to be crafted again
    slurm.call("./do_tpoisoning.sh", "purchases", "oneshot", cwd=suite, RESULTS=others, **SETTINGS)
    slurm.call(f"./{ARRAY}", cwd=suite, TOTPROCS=1)
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


@pytest.mark.slow
@WITH_SLURM
def test_a_matrix_that_lost_tasks_has_the_results_of_a_run_without_slurm(slurm, tmp_path):
    suite, results, others = copied_suite(tmp_path), tmp_path / "results", tmp_path / "others"
    slurm.call("./compare_shapings.sh", "subtask", "0", cwd=suite, RESULTS=results, WRITE=1, **MATRIX)
    array, numbers = "subtask-matrix-oblivious-array.sh", ["1", "2", "3", "4"]
    for script in (array, "subtask-matrix-oblivious-4-of-4.sh"):
        slurm.call("sbatch", "--test-only", script, cwd=suite)

    job = slurm.submit(suite, array)  # two at a time
    slurm.call("scancel", f"{job}_4")  # before it starts
    logs = {number: suite / "logs" / f"{Path(array).stem}-{number}.log" for number in numbers}
    speaks = {number: lambda log=log: log.exists() and log.stat().st_size for number, log in logs.items()}
    wait_for(speaks["1"], 60, "the first task", pause=0.02)  # a signal to a script that is being started can be lost
    slurm.call("scancel", f"{job}_1")  # before it has trained
    wait_for(speaks["2"], 60, "the second task", pause=0.02)
    slurm.call("scontrol", "requeue", f"{job}_2")
    ended = {number: (task["JobState"], task["Restarts"]) for number, task in slurm.end(job).items()}
    ended.pop("4", None)  # Slurm may forget a task that has never run
    assert ended == {"1": ("CANCELLED", "0"), "2": ("COMPLETED", "1"), "3": ("COMPLETED", "0")}
    assert not logs["4"].exists()
    kept = marks(results)
    assert len(trained(results)) == len(kept) == 4  # two shapings each

    again = slurm.submit(suite, array)
    assert {task["JobState"] for task in slurm.end(again).values()} == {"COMPLETED"}
    before = {number: "2 trainings finished before" in log.read_text() for number, log in logs.items()}
    assert before == {"1": False, "2": True, "3": True, "4": False}
    ours = trained(results)
    assert len(ours) == 8 and kept.items() <= marks(results).items()

    slurm.call("./compare_shapings.sh", "subtask", "0", cwd=suite, RESULTS=others, **MATRIX)
    assert trained(others) == ours
