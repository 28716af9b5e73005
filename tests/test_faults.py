"""What real machines do to a sweep: kills, a second process, full disks, no memory, other locales.

Nothing is lost and nothing is done twice.

`./run_tests.sh tests/test_faults.py tests/test_damage.py` ends with a table of what was done, how often, and what was
lost.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas
import pytest
from conftest import ALL_CORES, REPOSITORY, TRAIN, Workplace, copied_suite, refused

POISON = REPOSITORY / "datasets/poisons/indiscriminate/label-flips/fashion_mnist_3_4.1.0_random_0.1.npz"
TARGETED = {
    "NETWORKS": "lr",
    "SHAPINGS": "4",
    "TARGETS": 4,
    "POISONS": 12,
    "EPOCHS": 4,
    "TOTTASKS": 1,
    "TOTPROCS": 1,
    "MODELS": REPOSITORY / "models",
    **ALL_CORES,
}
# Each sweep as it is shipped, shortened: the command and its settings
SWEEPS = {
    "do_ipoisoning.sh": (
        ("./do_ipoisoning.sh", "subtask", "0"),
        {"ATTACKS": "label-flips", "RATIOS": "0.1 0.4", "EPOCHS": 4},
    ),
    "analyze_ipoisoning.sh": (("./analyze_ipoisoning.sh", "subtask"), {"ATTACKS": "label-flips", "EPOCHS": 4}),
    "analyze_collision.sh": (("./analyze_collision.sh", "subtask", "multi"), {"ALPHAS": "0.2 0.4 1.0", "EPOCHS": 10}),
    "do_tpoisoning.sh": (("./do_tpoisoning.sh", "purchases", "oneshot"), TARGETED),
    "analyze_tpoisoning.sh": (
        ("./analyze_tpoisoning.sh", "purchases"),
        {"TARGETS": 3, "POISONS": 6, "EPOCHS": 6, "SHAPINGS": "undefended 4", "MODELS": REPOSITORY / "models"},
    ),
    "train.py, clean models": ((*TRAIN, "--clip-norm", "0.1", "1", "4", "--epochs", "10"), {}),
}
KILLS = 3  # of each


def modified(workplace: Workplace) -> dict[Path, int]:
    """When each finished result was written."""
    results = [
        path for path in workplace.results.rglob("*.csv") if "extracts" not in path.name and path.name != "poison.csv"
    ]
    marks = [
        path.with_suffix(".run.json") if path.name.startswith("attack_w_") else path.with_name("run.json")
        for path in results
    ]
    return {path: path.stat().st_mtime_ns for path, mark in zip(results, marks) if mark.exists()}


def everything(workplace: Workplace) -> dict[str, bytes]:
    """All CSV files, and the recorded gradients; of clean models the histories."""
    kept = {
        f"models/{path.relative_to(workplace.models)}": path.read_bytes()
        for path in workplace.models.rglob("history.csv")
    }
    recorded = {
        str(path.relative_to(workplace.results)): path.read_bytes()
        for path in workplace.results.rglob("param_updates/*.npz")
    }
    return {**kept, **recorded, **workplace.written()}


@pytest.mark.slow
@pytest.mark.parametrize("sweep", SWEEPS)
def test_killed_at_random_moments_a_sweep_ends_as_an_undisturbed_one(sweep, tmp_path, record_property):
    command, settings = SWEEPS[sweep]
    suite = copied_suite(tmp_path)  # task scripts and poison files are written beside the code
    undisturbed, disturbed = (Workplace(tmp_path / name, suite) for name in ("undisturbed", "disturbed"))
    began = time.monotonic()
    undisturbed.succeed(*command, **settings)
    seconds, expected = time.monotonic() - began, everything(undisturbed)
    moments = random.Random(sweep)
    finished, kills = {}, 0
    while kills < KILLS:
        process = disturbed.start(*command, **settings)
        time.sleep(moments.uniform(0.1, 0.6) * seconds)  # one that goes on needs less than the whole time
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
        if process.returncode == 0:  # it had finished before: once more from nothing
            finished = {}
            for path in sorted(disturbed.folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            continue
        again = modified(disturbed)
        assert {path: again.get(path) for path in finished} == finished, "something finished was written again"
        finished = again
    disturbed.succeed(*command, **settings)
    assert everything(disturbed) == expected
    again = modified(disturbed)
    assert {path: again.get(path) for path in finished} == finished, "something finished was written again"
    record_property("fault", (f"kill -9 of {sweep} at random moments", kills))


@pytest.mark.slow
@pytest.mark.parametrize("sweep", ["do_ipoisoning.sh", "analyze_collision.sh", "train.py, clean models"])
def test_two_processes_on_one_sweep_share_it(sweep, tmp_path, record_property):
    command, settings = SWEEPS[sweep]
    suite = copied_suite(tmp_path)
    alone, together = (Workplace(tmp_path / name, suite) for name in ("alone", "together"))
    alone.succeed(*command, **settings)
    pair = [together.start(*command, **settings) for _ in range(2)]
    for process in pair:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    assert everything(together) == everything(alone)
    record_property("fault", (f"two processes at once: {sweep}", 1))


FULL_DISK = """
import errno, runpy, sys
import files
from pathlib import Path
number, script, *sys.argv[1:] = sys.argv[1:]
sys.argv[0], left, writing = script, [int(number)], files.writing
class Full:
    def __init__(self, stream): self.stream = stream
    def __getattr__(self, name): return getattr(self.stream, name)
    def write(self, text):
        self.stream.write(text[: len(text) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", "the disk")
import contextlib
@contextlib.contextmanager
def failing(path, mode="w"):
    left[0] -= 1
    with writing(path, mode) as stream:
        yield Full(stream) if left[0] == 0 else stream
files.writing = failing
sys.path.insert(0, str(Path(script).resolve().parent))
runpy.run_path(script, run_name="__main__")
"""
WRITERS = {
    "train.py": (
        ("train.py", *TRAIN[2:], "--poison", POISON, "--undefended", "--clip-norm", "1", "--epochs", "3", "--record"),
        (1, 2, 4, 6, 8, 9, 10),
    ),
    "attack_targets.py": (
        ("attack_targets.py", "--network", "lr", "--mode", "multipoison", "--targets", "3", "--poisons", "3",
         "--epochs", "2"),
        (1, 2, 1, 2, 1, 1),
    ),
    "report.py": (("report.py",), (1, 4, 9, 11, 14)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS)
def test_a_disk_that_fills_up_at_any_write_loses_nothing(writer, tmp_path, record_property):
    command, moments = WRITERS[writer]
    suite = copied_suite(tmp_path)
    workplace = Workplace(tmp_path / "undisturbed", suite)
    kept = {"MODELS": REPOSITORY / "models"}
    workplace.succeed("python3", *command, **kept)
    expected, hit = everything(workplace), 0
    disturbed = Workplace(tmp_path / "disturbed", suite)
    for moment in moments:
        before = modified(disturbed)
        done = disturbed.run("python3", "-c", FULL_DISK, moment, *command, **kept)
        if done.returncode == 0:
            continue  # it had fewer files left to write
        done.stderr = "\n".join(line for line in done.stderr.splitlines() if line.startswith("error: "))
        assert "No space left on device" in refused(done)
        assert not list(disturbed.folder.rglob("*.writing"))
        assert {path: stamp for path, stamp in modified(disturbed).items() if path in before} == before
        hit += 1
    disturbed.succeed("python3", *command, **kept)
    assert hit >= 3 and everything(disturbed) == expected
    record_property("fault", (f"disk full at a write of {writer}", hit))


def test_a_results_folder_that_may_not_be_written(tmp_path, record_property):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    workplace = Workplace(locked)
    if os.geteuid() == 0:  # who may write into any folder, but not on a read-only disk
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", locked], capture_output=True).returncode != 0:
            pytest.skip("root may write anywhere, and a read-only disk cannot be mounted here")
    try:
        done = workplace.run(*TRAIN, "--poison", POISON, "--epochs", "1", MODELS=REPOSITORY / "models")
        assert str(locked) in refused(done) and not list(locked.iterdir())
        done = workplace.run("python3", "report.py", MODELS=REPOSITORY / "models")
        assert str(locked) in refused(done)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", locked], check=True)
    record_property("fault", ("read-only results folder", 2))


def limited(workplace: Workplace, kib: int, *command) -> subprocess.CompletedProcess:
    words = [sys.executable if word == "python3" else str(word) for word in command]
    return workplace.run("bash", "-c", f'ulimit -v {kib}; exec "$@"', "bash", *words, MODELS=REPOSITORY / "models")


def test_under_a_limit_of_memory_a_sweep_runs_or_says_what_it_needs(workplace, record_property):
    command = (*TRAIN, "--poison", POISON, "--undefended", "--clip-norm", "1", "4", "--epochs", "2")
    assert "ulimit -v 1400000: TensorFlow needs about 3 GiB" in refused(limited(workplace, 1400000, *command))
    assert "--memory 0.2: a lr on fashion_mnist_3_4.1.0 takes about" in refused(
        workplace.run(*command, "--memory", "0.2")
    )
    assert not workplace.results.exists()
    assert limited(workplace, 3200000, *command).returncode == 0
    record_property("fault", ("ulimit -v and --memory", 3))


def test_results_do_not_depend_on_locale_time_zone_or_folder(tmp_path, record_property):
    command = ("./do_ipoisoning.sh", "subtask", "0")
    settings = {"ATTACKS": "label-flips", "RATIOS": "0.1", "NORMCLP": "0.1", "NOISEML": "0 0.001", "EPOCHS": 2}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    surroundings = (
        ({"LANG": "C", "LC_ALL": "C", "TZ": "UTC"}, REPOSITORY),
        ({"LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"}, elsewhere),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8", "TZ": "Pacific/Apia", "PYTHONHASHSEED": "7"}, Path("/")),
    )
    written = []
    for number, (environment, folder) in enumerate(surroundings):
        workplace = Workplace(tmp_path / str(number))
        script = [str(REPOSITORY / command[0]), *command[1:]]
        merged = {
            **workplace.environment,
            **{name: str(value) for name, value in settings.items()},
            **environment,
            "MODELS": str(REPOSITORY / "models"),
        }
        done = subprocess.run(script, cwd=folder, env=merged, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        subprocess.run(
            [sys.executable, REPOSITORY / "report.py"], cwd=folder, env=merged, check=True, capture_output=True
        )
        written.append(
            (everything(workplace), (workplace.results / "report.html").read_text().replace(str(workplace.results), ""))
        )
    assert written[1][0] == written[0][0] == written[2][0]
    assert written[1][1] == written[0][1] == written[2][1]
    record_property("fault", ("other locale, time zone and working directory", 2))


def test_a_diverging_training_is_recorded_and_stops_only_itself(workplace, record_property):
    shapings = ("--shaping", "undefended", "0.1", "undefended:noise_std=1e+30")
    command = (*TRAIN, "--poison", POISON, "--epochs", "4", *shapings)
    kept = {"MODELS": REPOSITORY / "models"}
    done = workplace.succeed(*command, **kept)
    assert done.stderr.count("diverged in epoch 1 (weights that are no numbers), recorded as nan") == 1
    tables = {path.parent.name: path.read_text().splitlines() for path in workplace.results.rglob("attack_results.csv")}
    diverged = tables.pop("undefended_lr_300_4_0.01_noise_std=1e+30")
    assert len(diverged) == 2 and diverged[1].split(",")[3:6] == ["nan"] * 3
    assert len(tables) == 2 and all(
        len(lines) == 5 and float(lines[-1].split(",")[3]) > 0.9 for lines in tables.values()
    )
    workplace.report(**kept)
    table = pandas.read_csv(workplace.results / "tables/other_trainings.csv")  # of four epochs instead of the paper's
    assert table.set_index("shaping").diverged.to_dict() == {"undefended": 0, "0.1": 0, shapings[-1]: 1}
    assert "other_trainings" in (workplace.results / "report.html").read_text()
    again = workplace.succeed(*command, **kept)
    assert "3 trainings finished before" in again.stderr
    refusal = refused_last(workplace.run(*TRAIN, *shapings[::3], "--epochs", "2"))
    assert f"clean lr, {shapings[-1]}: diverged" in refusal and not list(workplace.models.rglob("config.json"))
    record_property("fault", ("training that diverges to NaN", 2))


def refused_last(done: subprocess.CompletedProcess) -> str:
    """The refusal behind lines of progress."""
    done.stderr = done.stderr.splitlines()[-1]
    return refused(done)
