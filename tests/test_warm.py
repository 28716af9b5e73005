"""Commands of a Python that has begun already do what they do by themselves (`warm`)."""

import os
import signal
import subprocess
import sys

import pytest
import warm
from conftest import REPOSITORY, wait_for

SAYS = (
    "import os, sys; print(sys.argv, os.getcwd(), os.environ.get('MARK'), sys.path[0]); print('away', file=sys.stderr)"
)
CALLS = {
    "words": ("-c", SAYS, "a", "b c"),
    "status": ("-c", "import sys; print('on the way'); sys.exit(3)"),
    "text": ("-c", "raise SystemExit('why')"),
    "nothing": ("-c", "raise SystemExit"),
    "module": ("-m", "says", "x"),
    "script": ("says.py", "x"),
    "signal": ("-c", "import os, signal; print('by', flush=True); os.kill(os.getpid(), signal.SIGTERM)"),
    "thread": (
        "-c",
        "import threading, time; threading.Thread(target=lambda: (time.sleep(.2), print('late'))).start()",
    ),
    "end": ("-c", "import atexit; atexit.register(print, 'at the end')"),
    "input": ("-c", "print(input())"),
    "no flag of its own": ("-I", "-c", "print(1)"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_command_ends_as_by_itself(call, tmp_path):
    (tmp_path / "says.py").write_text(SAYS)
    environment = {**os.environ, "MARK": "é"}
    found = [
        subprocess.run(
            [python, *CALLS[call]], cwd=tmp_path, env=environment, input="given\n", capture_output=True, text=True
        )
        for python in (warm.python(), sys.executable)
    ]
    assert (found[0].returncode, found[0].stdout, found[0].stderr) == (
        found[1].returncode,
        found[1].stdout,
        found[1].stderr,
    )


def test_an_error_is_shown_and_has_status_1():
    done = subprocess.run([warm.python(), "-c", "1 / 0"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"


LOADED = "import sys; print('tensorflow' in sys.modules, 'models' in sys.modules, 'numpy.random' in sys.modules)"


@pytest.mark.parametrize("variable", [None, "PYTHONHASHSEED", "LC_ALL", "OPENBLAS_CORETYPE", "TF_ENABLE_ONEDNN_OPTS"])
def test_what_is_read_at_the_start_goes_to_python_itself(variable):
    environment = {**os.environ, **({variable: "0"} if variable else {})}
    done = subprocess.run([warm.python(), "-c", LOADED], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == (["False"] * 3 if variable else ["True", "False", "True"])


def test_limits_and_cores_are_the_callers():
    shell = ["bash", "-c", 'ulimit -v 8000000; exec "$0" -c "$1"', warm.python(), LOADED]
    assert subprocess.run(shell, capture_output=True, text=True).stdout.split()[0] == "False"
    one = min(os.sched_getaffinity(0))
    words = ["taskset", "-c", str(one), warm.python(), "-c", "import os; print(*os.sched_getaffinity(0))"]
    assert subprocess.run(words, capture_output=True, text=True).stdout.split() == [str(one)]


def test_it_is_killed_with_its_caller_and_signals_reach_it(tmp_path):
    sleeps = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    for number in (signal.SIGKILL, signal.SIGTERM):
        place = tmp_path / str(number)
        caller = subprocess.Popen([warm.python(), "-c", sleeps, place])
        wait_for(lambda place=place: place.exists() and place.read_text(), 10, "the command", 0.02)
        command = int(place.read_text())
        caller.send_signal(number)
        assert caller.wait(10) == -number
        wait_for(lambda command=command: not os.path.exists(f"/proc/{command}"), 10, "its end", 0.02)


def test_a_training_has_the_same_bytes(workplace, tmp_path_factory):
    from conftest import Workplace

    other = Workplace(tmp_path_factory.mktemp("cold"))
    words = ("python3", "train.py", "--dataset", "subtask", "--network", "lr", "--poison", "none", "--clip-norm", "1",
             "--noise-std", "0.1", "--epochs", "1")  # fmt: skip
    kept = {"MODELS": REPOSITORY / "models"}
    workplace.succeed(*words, **kept)
    other.succeed(*words, python=sys.executable, **kept)
    assert workplace.written() == other.written() != {}
