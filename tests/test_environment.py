"""What surrounds a command: signals, locks, the set-up, and environments that are not this machine's.

`./run_tests.sh tests/test_environment.py` adds what was done to the table of `tests/test_faults.py`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY, TRAIN, Workplace, copied_suite, refused, wait_for

import installed
from files import Lock

POISON = REPOSITORY / "datasets/poisons/indiscriminate/label-flips/fashion_mnist_3_4.1.0_random_0.1.npz"
KEPT = {"MODELS": REPOSITORY / "models"}
COLD = {"python": sys.executable}  # in the process group that is signalled
SMALL = {**KEPT, "ATTACKS": "label-flips", "RATIOS": "0.1", "NORMCLP": "1", "NOISEML": "0", "EPOCHS": "1"}
LONG = {**KEPT, "ATTACKS": "label-flips", "RATIOS": "0.1", "EPOCHS": "5000"}
ENDS = {
    signal.SIGINT: "interrupted: what is finished stays; the same command goes on from there",
    signal.SIGTERM: "ended by a signal: what is finished stays; the same command goes on from there",
}


def until(stream, text: str) -> str:
    """What a process says until a line has this text in it."""
    said = ""
    for line in stream:
        said += line
        if text in line:
            return said
    raise AssertionError(said)


def ended(process: subprocess.Popen) -> str:
    """What a process says to its end; its streams are closed once all that it started has ended. One that does not end
    is killed, and the failure says where each of its group was.
    """
    try:
        return process.communicate(timeout=20)[1]
    except subprocess.TimeoutExpired:
        columns = "pid,ppid,stat,wchan:24,nlwp,etimes,cmd"
        left = subprocess.run(["ps", "-o", columns, "-g", str(process.pid)], capture_output=True, text=True).stdout
        os.killpg(process.pid, signal.SIGKILL)
        return pytest.fail(f"not ended after 20 s:\n{left}{process.communicate()[1]}")


@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("reaches", ["script", "all"])
def test_a_signal_ends_a_script_and_all_that_it_started_at_once(number, reaches, workplace, record_property):
    if (number, reaches) == (signal.SIGINT, "script"):
        pytest.skip("Ctrl-C reaches all of them; bash alone would wait for what it started, as it should")
    process = workplace.start("./do_ipoisoning.sh", "subtask", "0", **COLD, **LONG)
    until(process.stderr, "epoch")
    began = time.monotonic()
    if reaches == "all":
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    stderr = ended(process)
    assert time.monotonic() - began < 3
    assert process.returncode == -number
    assert stderr.strip().splitlines()[-1] == ENDS[number] and "Traceback" not in stderr
    assert not list(workplace.folder.rglob("*.writing"))
    record_property("fault", (f"{signal.Signals(number).name} to {reaches} of a sweep", 1))


@pytest.mark.parametrize("lines", ["side_by_side {} <<< $'1\\n2\\n3'", "printf '%s\\n' 1 2 3 | side_by_side {}"])
def test_what_runs_side_by_side_ends_with_the_script(lines):
    function = re.search(r"^side_by_side\(\) \{.*?^\}$", (REPOSITORY / "reproduce.sh").read_text(), re.M | re.S)[0]
    command = lines.format("bash -c 'echo begun $CORES $0 >&2; exec sleep 60'")
    script = f". ./common.bash\nset -e; at_a_time=2; cores=3\n{function}\n{command}"
    process = subprocess.Popen(
        ["bash", "-c", script], cwd=REPOSITORY, text=True, stderr=subprocess.PIPE, start_new_session=True
    )
    assert {process.stderr.readline(), process.stderr.readline()} == {"begun 3 1\n", "begun 3 2\n"}
    process.send_signal(signal.SIGTERM)
    assert "begun" not in ended(process)


def test_a_signal_leaves_nothing_in_the_temporary_folder_nor_at_home(workplace, tmp_path, record_property):
    places = {"HOME": tmp_path / "home", "TMPDIR": tmp_path / "temporary"}
    for place in places.values():
        place.mkdir()
    workplace.succeed("./do_ipoisoning.sh", "subtask", "0", **SMALL, **places)
    process = workplace.start("./do_ipoisoning.sh", "subtask", "0", **COLD, **LONG, **places)
    until(process.stderr, "epoch")
    assert list(places["TMPDIR"].iterdir())  # of the process that is running
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert not [path for place in places.values() for path in place.iterdir()]
    process = workplace.start("./do_ipoisoning.sh", "subtask", "0", **COLD, **LONG, **places)
    until(process.stderr, "epoch")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert list(places["TMPDIR"].iterdir())  # which the next command removes
    workplace.succeed(*TRAIN, "--poison", POISON, "--epochs", 1, **KEPT, **places)
    assert not [path for place in places.values() for path in place.iterdir()]
    record_property("fault", ("files left in the temporary folder or at home", 3))


def test_a_task_that_a_signal_ends_ends_no_other_and_running_tasks_are_not_replaced(tmp_path, record_property):
    def write(*commands: str) -> subprocess.CompletedProcess:
        lines = "".join(f"demo\t{number}\t{command}\n" for number, command in enumerate(commands))
        words = [sys.executable, REPOSITORY / "write_tasks.py", "--name", "demo", "--of", "a test", "--by", "it"]
        return subprocess.run(words, input=lines, cwd=tmp_path, text=True, capture_output=True)

    tasks = ["touch one", "kill -9 $$", "touch begun; while [[ ! -e go ]]; do sleep 0.1; done; touch three"]
    assert write(*tasks).returncode == 0
    running = subprocess.Popen(["./demo-array.sh"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    wait_for((tmp_path / "begun").exists, 20, "the task")
    assert "its tasks are running" in refused(write("touch four"))
    listed = tmp_path / "demo-tasks.tsv"
    assert len(listed.read_text().splitlines()) == 3
    (tmp_path / "go").touch()
    assert running.wait(timeout=20) == 123  # xargs: some have failed
    assert (tmp_path / "one").exists() and (tmp_path / "three").exists()
    assert write("touch four").returncode == 0 and len(listed.read_text().splitlines()) == 1
    write("exec sleep 300")
    running = subprocess.Popen(["./demo-array.sh"], cwd=tmp_path, stdout=subprocess.PIPE)
    time.sleep(0.5)
    running.terminate()
    running.communicate(timeout=5)  # the sleeping task has its stream, so it has ended, too
    record_property("fault", ("tasks ended by a signal, written anew while they run, ended with their array", 3))


HOLD = """
import sys, threading, time
from pathlib import Path
from files import Lock
lock = Lock(Path(sys.argv[1]))
lock.take(1)
print("taken", flush=True)
sys.stdin.read()
"""


def test_a_lock_that_is_held_is_waited_for_and_said(tmp_path, capsys):
    place = tmp_path / "train.lock"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, place], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "taken\n"
    lock = Lock(place)
    assert lock.take(2) and not lock.take(1) and not lock.take_all()
    waited = threading.Thread(target=lambda: lock.take(1, wait=True))
    waited.start()
    time.sleep(2.6)
    assert waited.is_alive()
    assert "another process is at the same work; waiting until it ends" in capsys.readouterr().err
    other.communicate("")
    waited.join(timeout=5)
    assert not waited.is_alive()


CROSSWISE = """
import sys, threading, time
from pathlib import Path
from files import Lock
lock, own, others = Lock(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
lock.take(own)
print("taken", flush=True)
sys.stdin.readline()
began = time.monotonic()
def wait():
    lock.take(others, wait=True)
    print(time.monotonic() - began)
thread = threading.Thread(target=wait)
thread.start()
time.sleep(1.5)
lock.release(own)
thread.join()
"""


def test_processes_that_wait_for_each_other_are_not_taken_for_a_deadlock(tmp_path):
    """The system lets a waiting lock fail there (EDEADLK), though another thread will release what is waited for."""
    words = [sys.executable, "-c", CROSSWISE, tmp_path / "train.lock"]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    pair = [subprocess.Popen([*words, *pieces], cwd=REPOSITORY, **streams) for pieces in (("1", "2"), ("2", "1"))]
    for process in pair:
        assert process.stdout.readline() == "taken\n"
    for process in pair:
        process.stdin.write("\n")
        process.stdin.flush()
    assert all(1 < float(process.communicate(timeout=20)[0]) < 5 for process in pair)


@pytest.mark.parametrize(
    "surrounding",
    [
        {"CDPATH": "/", "PYTHONSAFEPATH": "1", "RATIOS": "\n 0.1\n0.2\t"},
        {"RESULTS": "-x"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "RESULTS": "Ergebnisse/für späteres"},
    ],
    ids=str,
)
def test_scripts_do_the_same_whatever_surrounds_them(surrounding, tmp_path, record_property):
    suite = copied_suite(tmp_path)
    workplace = Workplace(tmp_path, suite)
    place = suite / surrounding.get("RESULTS", str(workplace.results))
    settings = {**SMALL, "RATIOS": "0.1 0.2", **surrounding}
    workplace.succeed("./do_ipoisoning.sh", "subtask", "0", **settings)
    found = sorted(path.parent.parent.name for path in place.rglob("attack_results.csv"))
    assert found == ["fashion_mnist_3_4.1.0_random_0.1"] * 2 + ["fashion_mnist_3_4.1.0_random_0.2"] * 2
    if "RESULTS" in surrounding:
        settings["RATIOS"] = "0.1"
        workplace.succeed("./analyze_ipoisoning.sh", "subtask", **settings)
        assert (place / "analysis").is_dir() and len(list(place.rglob("mextracts_epoch.csv"))) == 2
        said = workplace.report(**settings).stdout
        assert "left out" not in said and (place / "tables").is_dir()
    record_property("fault", ("environments of other kinds", 1))


def test_a_script_may_be_called_by_a_link_from_anywhere(tmp_path):
    link = tmp_path / "sweep"
    link.symlink_to(REPOSITORY / "do_ipoisoning.sh")
    done = subprocess.run([link], cwd=tmp_path, env={**os.environ, "CDPATH": "/:/tmp"}, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: ") and done.stdout == ""


def test_a_python_may_lie_in_a_folder_with_a_space(tmp_path):
    folder = tmp_path / "my python"
    folder.mkdir()
    (folder / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / "python3").chmod(0o755)
    workplace = Workplace(tmp_path)
    workplace.succeed("./do_ipoisoning.sh", "subtask", "0", **SMALL, PYTHON=folder / "python3")


def test_without_a_home_it_runs(workplace):
    del workplace.environment["HOME"]
    workplace.succeed(*TRAIN, "--poison", POISON, "--epochs", 1, **KEPT)


def test_a_recording_that_is_taken_away_half_way_does_not_count_as_finished(workplace):
    words = (*TRAIN, "--poison", POISON, "--record", "--epochs", "60")
    process = workplace.start(*words, **COLD, **KEPT)
    deadline = time.monotonic() + 60
    while not (records := list(workplace.results.rglob("param_updates/3.npz"))):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    for epoch in (1, 2, 3):  # not their folder, into which the next may just be written
        (records[0].parent / f"{epoch}.npz").unlink()
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2 and "lacks epoch 1 of 60" in stderr.splitlines()[-1]
    assert not list(workplace.results.rglob("run.json"))


NUMBERS = [
    ("--epochs", "1_0"), ("--epochs", "١٢"), ("--epochs", "１２"), ("--epochs", "9" * 5000), ("--epochs", "2e9"),
    ("--epochs", "18446744073709551617"), ("--batch-size", "20000"), ("--seed", "4294967296"), ("--gpu", "-1"),
    ("--gpu", "99999999999"), ("--memory", "1e300"), ("--memory", "nan"), ("--learning-rate", "1e-320"),
    ("--learning-rate", "0x1"), ("--learning-rate", "1_0.0"), ("--clip-norm", "1e-320"), ("--clip-norm", "infinity"),
    ("--shaping", "1:1e8"), ("--shaping", "1:1e-200"), ("--shaping", "clip:1@９,phuber:2"),
    ("--shaping", "clip:1@99999999999999999999,phuber:2"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value"), NUMBERS, ids=lambda value: value[:20])
def test_numbers_are_what_they_look_like_and_bounded(option, value, workplace):
    line = refused(workplace.run(*TRAIN, "--poison", POISON, option, value))
    assert line.startswith(f"error: {option}") or line.startswith(f"error: argument {option}") and len(line) < 900
    assert not workplace.results.exists() and not workplace.models.exists()


@pytest.mark.parametrize("noise_std", ["1e8", "1e-200", "1e29"])
def test_noise_without_an_epsilon_is_refused_before_it_is_trained(noise_std, workplace):
    line = refused(workplace.run(*TRAIN, "--poison", POISON, "--clip-norm", "1", "--noise-std", noise_std))
    assert "no epsilon" in line or "argument --noise-std" in line
    assert not workplace.results.exists() and not workplace.models.exists()


def test_zero_has_no_sign_and_more_cores_than_there_are_are_those_there_are(workplace):
    words = (*TRAIN, "--poison", POISON, "--epochs", 1, "--clip-norm", "1")
    workplace.succeed(*words, "--noise-std", "-0", **KEPT)
    before = workplace.written()
    assert "finished before" in workplace.succeed(*words, "--noise-std", "0", **KEPT).stderr
    assert workplace.written() == before and len(before) == 1
    targeted = ("python3", "attack_targets.py", "--network", "lr", "--mode", "oneshot", "--targets", 1, "--poisons", 1)
    workplace.succeed(*targeted, "--epochs", 1, "--cores", 1000000, **KEPT)


@pytest.mark.parametrize(
    ("call", "setting", "value"),
    [
        (("./do_tpoisoning.sh", "purchases", "oneshot"), "TOTTASKS", "1000000000"),
        (("./do_tpoisoning.sh", "purchases", "oneshot"), "TOTTASKS", "18446744073709551617"),
        (("./do_tpoisoning.sh", "purchases", "oneshot"), "TOTPROCS", "1 2"),
        (("./do_tpoisoning.sh", "purchases", "oneshot"), "CPUS", "08"),
        (("./compare_shapings.sh", "subtask", "0"), "EPOCHS", "99999999999"),
        (("./do_ipoisoning.sh", "subtask", "0"), "RESULTS", "a\nb"),
    ],
)
def test_settings_of_scripts_are_bounded(call, setting, value, workplace):
    line = refused(workplace.run(*call, **{setting: value}))
    assert line.startswith(f"error: {setting}") and not workplace.results.exists()


def fresh(folder: Path) -> Path:
    """A folder with what the set-up needs, and a package index in it that has nothing: no network is asked."""
    folder.mkdir()
    for name in ("setup.sh", "common.bash", "installed.py"):
        shutil.copy2(REPOSITORY / name, folder / name)
    (folder / "requirements-locked.txt").write_text("# none\n")
    return folder


def set_up(folder: Path, **variables) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PYTHON": sys.executable, **variables}
    return subprocess.run(["./setup.sh"], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def mine(folder: Path) -> Path:
    """Make the environment of a folder look like one that the set-up made for other requirements."""
    (folder / ".venv/lib").mkdir(parents=True)
    (folder / ".venv/requirements.sha256").write_text("of before\n")
    (folder / ".venv/lib/kept").touch()
    return folder / ".venv/lib/kept"


def test_a_set_up_that_fails_leaves_the_earlier_environment(tmp_path, record_property):
    folder = fresh(tmp_path / "suite")
    kept = mine(folder)
    (folder / "requirements-locked.txt").write_text("nothing==1.0 --hash=sha256:" + 64 * "0" + "\n")
    assert "an earlier .venv is as it was" in refused(without_first_line(set_up(folder)))
    assert kept.exists() and not (folder / ".venv.earlier").exists()
    process = subprocess.Popen(
        ["./setup.sh"], cwd=folder, env={**os.environ, "PYTHON": sys.executable}, stdout=subprocess.DEVNULL
    )
    wait_for((folder / ".venv.earlier").exists, 20, "the set-up")
    process.kill()
    process.wait()
    refused(without_first_line(set_up(folder)))
    assert kept.exists()
    record_property("fault", ("a set-up that fails or is killed", 2))


def without_first_line(done: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    """A set-up's answer without what it says it is doing."""
    done.stdout = ""
    return done


def test_a_users_own_environment_is_left_alone(tmp_path):
    folder = fresh(tmp_path / "suite")
    (folder / ".venv").mkdir()
    (folder / ".venv/own").touch()
    assert "this script did not make it" in refused(set_up(folder)) and (folder / ".venv/own").exists()


def test_two_set_ups_at_once_make_one_environment(tmp_path):
    """With no packages to install, an environment cannot be complete: packaging is what checks it."""
    folder = fresh(tmp_path / "suite")
    lock = subprocess.Popen(["flock", ".venv.lock", "sleep", "2"], cwd=folder)
    time.sleep(0.5)
    began = time.monotonic()
    assert "another setup.sh is at it" in set_up(folder).stderr and time.monotonic() - began > 1
    lock.wait()


def test_a_package_that_is_missing_altered_or_taken_away_is_noticed(tmp_path, monkeypatch):
    site = tmp_path / "site"
    (site / "thing").mkdir(parents=True)
    (site / "thing/__init__.py").touch()
    (site / "thing-1.0.dist-info").mkdir()
    (site / "thing-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    (site / "thing-1.0.dist-info/RECORD").write_text("thing/__init__.py,,\nthing-1.0.dist-info/METADATA,,\n")
    monkeypatch.syspath_prepend(str(site))
    assert installed.lacks("thing", "1.0") == ""
    assert installed.lacks("thing", "1.1") == "thing is 1.0, not 1.1"
    assert installed.lacks("other", "1.0") == "other is missing"
    shutil.rmtree(site / "thing")
    assert installed.lacks("thing", "1.0") == "thing lacks its thing"


def test_the_locked_requirements_are_those_asked_for_with_hashes():
    locked = (REPOSITORY / "requirements-locked.txt").read_text()
    pins = {name.lower().replace("_", "-"): version for name, version in installed.pinned(locked)}
    for line in (REPOSITORY / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            assert pins[name] == version, "make requirements-locked.txt anew, as its first lines say"
    blocks = re.split(r"^(?=\S)", locked, flags=re.MULTILINE)
    assert all("--hash=sha256:" in block for block in blocks if block and not block.startswith("#"))
    assert len(pins) > 80
