"""Targeted attacks as users run them: results, bad input, tasks on one folder, kills, a full disk."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ALL_CORES, REPOSITORY, refused

from files import Lock

ATTACK = ("python3", "attack_targets.py", "--network", "lr", "--poisons", "3")
KEPT = {"MODELS": REPOSITORY / "models"}
ONESHOT = (*ATTACK, "--mode", "oneshot", "--epochs", "3")
HEADER = (
    "target,poison,success,base_prob_before,target_prob_before,base_prob_after,target_prob_after,epoch,test_acc,epsilon"
    ",moved,share_of_way,relative_feature_distance"
)


COUNTED = ("target", "poison", "success", "epoch", "moved", "relative_feature_distance")


def tables(workplace):
    """The results by file name."""
    return {path.name: path for path in sorted(workplace.results.rglob("attack_w_*.csv"))}


def lines_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_line_for_each_trial_and_nothing_done_twice(workplace):
    workplace.succeed(*ONESHOT, "--targets", "3", "--shaping", "undefended", "4:0.0025", **KEPT)
    written = workplace.written()
    assert len(written) == 6 and all(content.decode().startswith(HEADER + "\n") for content in written.values())
    for path in workplace.results.rglob("attack_w_*.csv"):
        assert path.parent.name == "0.1_2000_3.5_3_1e-10_epochs_3" and path.parents[2].name == "purchases-cj"
        lines = lines_of(path)
        assert [line["poison"] for line in lines] == ["0", "1", "2", "3"] and len(
            {line["target"] for line in lines}
        ) == 1
        assert (lines[0]["epsilon"] == "inf") == path.parents[1].name.startswith("vanilla") and lines[0][
            "success"
        ] == "False"
        settings = json.loads(path.with_suffix(".run.json").read_text())["settings"]
        assert (
            settings["target"] == int(lines[0]["target"]) and settings["mode"] == "oneshot" and settings["epochs"] == 3
        )
    first = lines_of(tables(workplace)["attack_w_2.csv"])
    assert any(line["success"] == "True" for line in first)  # its first poison wins in three epochs
    times = {path: path.stat().st_mtime_ns for path in tables(workplace).values()}
    again = workplace.succeed(*ONESHOT, "--targets", "3", "--shaping", "undefended", "4:0.0025", **KEPT)
    assert again.stderr.count("finished before") == 6
    assert {path: path.stat().st_mtime_ns for path in tables(workplace).values()} == times


def test_the_first_success_ends_a_target_where_every_trial_has_it(workplace, tmp_path):
    attack = (*ATTACK, "--mode", "oneshot", "--epochs", "2", "--targets", "6", "--shaping", "4:0.0025")
    workplace.succeed(*attack, "--stop-at-first", **KEPT)
    workplace.succeed(*attack, RESULTS=tmp_path / "every", **KEPT)
    ended_by = set()
    for path in workplace.results.rglob("attack_w_*.csv"):
        stopped, every = lines_of(path), lines_of(tmp_path / "every" / path.relative_to(workplace.results))
        hits = [number for number, line in enumerate(every) if number and line["success"] == "True"]
        assert len(stopped) == (hits[0] + 1 if hits else 4)
        for one, other in zip(stopped, every):
            assert [one[name] for name in COUNTED] == [other[name] for name in COUNTED]
            assert float(one["target_prob_after"]) == pytest.approx(float(other["target_prob_after"]), abs=1e-3)
        ended_by.add(len(stopped))
    assert len(ended_by) > 1  # by the first poison, and by none or a later one


def test_several_numbers_of_epochs_are_written_as_if_each_were_run(workplace, tmp_path):
    attack = (*ATTACK, "--mode", "oneshot", "--targets", "3", "--stop-at-first", "--shaping", "0.1")
    for epochs in "31":
        workplace.succeed(*attack, "--epochs", epochs, RESULTS=tmp_path / "apart", **KEPT)
    apart = {path.relative_to(tmp_path / "apart"): path.read_bytes() for path in tmp_path.glob("apart/**/*.csv")}
    done = workplace.succeed(*attack, "--epochs", "3", "1", **KEPT)
    assert done.stderr.count(" trials, ") == 3
    ours = {path.relative_to(workplace.results): path.read_bytes() for path in workplace.results.rglob("*.csv")}
    assert len(ours) == 6 and ours == apart
    lost = next(path for path in workplace.results.rglob("attack_w_2.csv") if path.parent.name.endswith("_epochs_1"))
    lost.unlink()
    times = {path: path.stat().st_mtime_ns for path in workplace.results.rglob("attack_w_*.csv")}
    again = workplace.succeed(*attack, "--epochs", "3", "1", **KEPT)
    assert (
        again.stderr.count("finished before") == 2 and lost.read_bytes() == apart[lost.relative_to(workplace.results)]
    )
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_every_trial_answers_for_the_first_success_but_not_the_other_way(workplace):
    stopped = workplace.succeed(*ONESHOT, "--target", "2", "--stop-at-first", **KEPT)
    assert "finished before" not in stopped.stderr
    assert [line["poison"] for line in lines_of(tables(workplace)["attack_w_2.csv"])] == ["0", "1"]
    assert "finished before" not in workplace.succeed(*ONESHOT, "--target", "2", **KEPT).stderr
    assert len(lines_of(tables(workplace)["attack_w_2.csv"])) == 4
    assert "finished before" in workplace.succeed(*ONESHOT, "--target", "2", "--stop-at-first", **KEPT).stderr
    assert len(lines_of(tables(workplace)["attack_w_2.csv"])) == 4


def test_tasks_deal_the_targets_out(workplace):
    parts = [
        workplace.succeed(*ONESHOT, "--targets", "5", "--task", task, "--tasks", "2", "--list", **KEPT).stdout.split()
        for task in (1, 2)
    ]
    whole = workplace.succeed(*ONESHOT, "--targets", "5", "--list", **KEPT).stdout.split()
    assert parts == [whole[::2], whole[1::2]] and len(whole) == 5 and not workplace.results.exists()


@pytest.mark.parametrize(
    ("options", "names", "says"),
    [
        (["--target", "10000"], "--target 10000", "rows 0 to 9999"),
        (["--target", "0"], "--target 0", "not of the victim class 3"),
        (["--targets", "135"], "--targets 135", "ask for 134 at most"),
        (["--targets", "0"], "--targets", "1 or more"),
        (["--poisons", "129"], "--poisons 129", "ask for 128 at most"),
        (["--task", "3", "--tasks", "2"], "--task 3", "1 to 2"),
        (["--epochs", "-1"], "--epochs", "1 or more"),
        (["--epochs", "3", "1", "--record"], "--epochs", "give one"),
        (["--epochs", "3", "1", "--radius", "1", "2"], "--epochs", "give one"),
        (["--shaping", "4:noise"], "--shaping", "4:noise"),
        (["--mode", "twoshot"], "--mode", "twoshot"),
        (["--mode", "multipoison", "--record"], "--record", "--mode oneshot"),
        (["--victim-class", "100"], "--victim-class", "0 to 99"),
        (["--target-class", "100"], "--wanted-class", "0 to 99"),
        (["--cores", "0"], "--cores", "1 or more"),
        (["--seed", "-1"], "--seed", "0 to 2147483647"),
    ],
)
def test_bad_input_is_refused(options, names, says, workplace):
    message = refused(workplace.run(*ONESHOT, *options, **KEPT))
    assert names in message and says in message and not workplace.results.exists()


def test_a_target_that_another_process_is_at_is_left_to_it(workplace):
    workplace.succeed(*ONESHOT, "--target", "107", **KEPT)
    lock = Lock(tables(workplace)["attack_w_107.csv"].parent / "attack_w.lock")
    assert lock.take(2)
    done = workplace.succeed(*ONESHOT, "--target", "2", "107", "205", **KEPT)
    assert "target 2 (1 of 3): another process is at it" in done.stderr and list(tables(workplace)) == [
        "attack_w_107.csv",
        "attack_w_205.csv",
    ]
    lock.release(2)
    workplace.succeed(*ONESHOT, "--target", "2", "107", "205", **KEPT)
    assert list(tables(workplace)) == ["attack_w_107.csv", "attack_w_2.csv", "attack_w_205.csv"]


@pytest.mark.slow
def test_two_processes_and_a_kill_leave_what_an_undisturbed_run_writes(workplace, tmp_path):
    command = (*ATTACK, "--poisons", "12", "--mode", "oneshot", "--epochs", "6", "--targets", "6")
    workplace.succeed(*command, **KEPT, **ALL_CORES)
    undisturbed = workplace.written()
    workplace.results.rename(tmp_path / "undisturbed")

    killed = workplace.start(*command, **KEPT)
    while not tables(workplace):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    finished = {
        path: path.stat().st_mtime_ns for path in tables(workplace).values() if path.with_suffix(".run.json").exists()
    }
    assert 0 < len(tables(workplace)) < 6

    pair = [workplace.start(*command, **KEPT) for _ in range(2)]
    for process in pair:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    assert workplace.written() == undisturbed
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_a_full_disk_loses_no_finished_result(workplace, tmp_path):
    unshare = next((words for words in (["unshare", "-m"], ["unshare", "-rm"]) if mounts(words, tmp_path)), None)
    if unshare is None:
        pytest.skip("a small disk cannot be mounted here (neither as root nor in a user namespace)")
    command = [sys.executable if word == "python3" else word for word in (*ONESHOT, "--targets", "8")]
    kept, small = tmp_path / "kept", tmp_path / "results"
    small.mkdir()
    script = f"""
        mount -t tmpfs -o size=48k tmpfs {small}
        "$@" 2> {tmp_path}/full.txt; echo $? > {tmp_path}/status
        cp -r {small} {kept}
        mount -o remount,size=10m {small}
        "$@" 2> {tmp_path}/mended.txt && cp -r {small} {tmp_path}/mended
    """
    environment = {**workplace.environment, "RESULTS": str(small), "MODELS": str(KEPT["MODELS"])}
    done = subprocess.run(
        [*unshare, "bash", "-c", script, "bash", *command],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "status").read_text() == "2\n"
    errors = [line for line in (tmp_path / "full.txt").read_text().splitlines() if ": target " not in line]
    assert (
        len(errors) == 1
        and errors[0].startswith("error: ")
        and "No space left on device" in errors[0]
        and "same command" in errors[0]
    )
    whole = {path.name: path.read_bytes() for path in kept.rglob("*.csv") if path.with_suffix(".run.json").exists()}
    mended = {path.name: path.read_bytes() for path in (tmp_path / "mended").rglob("*.csv")}
    assert 0 < len(whole) < 8 == len(mended) and not list(kept.rglob("*.writing"))
    assert all(mended[name] == content for name, content in whole.items())
    assert (tmp_path / "mended.txt").read_text().count("finished before") == len(whole)


def mounts(unshare, folder):
    """Whether a tmpfs can be mounted in a mount namespace of one's own."""
    if shutil.which("unshare") is None:
        return False
    trial = folder / "trial"
    trial.mkdir(exist_ok=True)
    return subprocess.run([*unshare, "mount", "-t", "tmpfs", "tmpfs", trial], capture_output=True).returncode == 0


def test_gradients_of_the_first_success(workplace):
    short = {"TARGETS": 2, "POISONS": 3, "EPOCHS": 4, "SHAPINGS": "undefended 4:0.025", **KEPT}
    workplace.succeed("./analyze_tpoisoning.sh", "purchases", **short)
    cells = sorted((workplace.results / "analysis/tpoisoning/clean-labels/purchases-cj").glob("*/analysis_results.csv"))
    assert [path.parent.name.split("_")[0] for path in cells] == ["dp", "vanilla"]
    for path in cells:
        lines = lines_of(path)
        assert list(lines[0]) == [
            "epoch",
            "base_class",
            "target_class",
            "target",
            "n_poison",
            "baseline_acc",
            "test_acc",
            "success",
        ]
        assert [line["epoch"] for line in lines] == ["1", "2", "3", "4"] and {line["target"] for line in lines} == {"2"}
        assert len((path.parent / "mextracts_epoch.csv").read_text().splitlines()) == 4
    attack = next(line for line in lines_of(tables(workplace)["attack_w_2.csv"]) if line["success"] == "True")
    recorded = [line["success"] for line in lines_of(cells[1])]  # the same training, so the same epoch
    assert recorded.index("True") + 1 == int(attack["epoch"])
    assert (cells[0].parent.parent / "gradients.png").exists()
    assert workplace.succeed("./analyze_tpoisoning.sh", "purchases", **short).stderr.count("finished before") == 2
