"""Python commands without their start: a process that has imported TensorFlow forks for each (a second or three less).

`python()` is the path of a script that is called as Python is, with the same words (warm_client.py). The command is a
process of its own, in the caller's folder and environment, with the caller's three streams, and ends as it would by
itself; it is killed when its caller goes. It is in no process group of its caller, so tests that signal groups call
Python itself.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import json
import os
import random
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

HEAVY = (
    "numpy", "pandas", "scipy.optimize", "scipy.stats", "scipy.io", "dp_accounting.pld.privacy_loss_distribution",
    "matplotlib.pyplot", "matplotlib.backends.backend_pdf", "tensorflow", "tensorflow.keras.layers", "jinja2",
)  # fmt: skip
CLIENT = Path(__file__).with_name("warm_client.py")
MOST_BYTES = 2**20  # of a call: words and environment
# Variables that Python or a library reads as it starts: a call with others than the server's is not for it
AT_START = (
    "PYTHON",
    "LC_",
    "LANG",
    "OPENBLAS",
    "OMP_",
    "MKL_",
    "TF_",
    "XLA_",
    "MPL",
    "KERAS_",
    "CUDA_",
    "LD_",
    "MALLOC_",
)


@functools.cache
def python() -> str:
    """A Python to call instead of this one; the server behind it runs as long as this process."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    place, client = folder / "socket", folder / "python3"
    text = CLIENT.read_text().format(python=sys.executable, place=place)
    client.write_text(f"#!{sys.executable} -IS\n{text}")
    client.chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, place], stdin=subprocess.PIPE, start_new_session=True)

    def end() -> None:
        server.stdin.close()
        server.wait()
        shutil.rmtree(folder)

    atexit.register(end)
    while not place.exists() and server.poll() is None:
        time.sleep(0.02)
    return str(client)


def serve(place: str) -> None:
    """Answer calls until the standard input ends."""
    for name in HEAVY:
        __import__(name)
    gc.freeze()  # else each fork copies what it looks through for garbage
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # monitors that have ended leave nothing behind
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place + ".new")
        listening.listen(64)
        os.rename(place + ".new", place)
        while True:
            ready, _, _ = select.select([0, listening], [], [])
            if 0 in ready and not os.read(0, 1):
                return
            if listening in ready:
                calling, _ = listening.accept()
                if os.fork() == 0:
                    listening.close()
                    os._exit(monitor(calling))
                calling.close()


def monitor(calling: socket.socket) -> int:
    """Run one command to its end and say how it ended; kill it when its caller goes."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    said, streams, _, _ = socket.recv_fds(calling, MOST_BYTES, 3)
    call = json.loads(said)
    if read_at_start(call["environment"]) != read_at_start(dict(os.environ)):
        return 0  # the caller calls Python itself
    command = os.fork()
    if command == 0:
        calling.close()
        take_over(call, streams)
        os._exit(outcome(call["words"]))
    for stream in streams:
        os.close(stream)
    calling.sendall(b"%d\n" % command)
    ended = os.pidfd_open(command)
    ready, _, _ = select.select([ended, calling], [], [])
    if ended not in ready:
        os.kill(command, signal.SIGKILL)
    _, status = os.waitpid(command, 0)
    with contextlib.suppress(OSError):
        calling.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    return 0


def read_at_start(environment: dict[str, str]) -> dict[str, str]:
    not_read = ("PYTHON", "PYTHONUTF8")  # the suite's own, and that of its scripts, where all is UTF-8 here
    return {name: value for name, value in environment.items() if name.startswith(AT_START) and name not in not_read}


def take_over(call: dict, streams: list[int]) -> None:
    """Be in the caller's place: its folder, environment and streams."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(call["folder"])
    os.environ.clear()
    os.environ.update(call["environment"])
    os.umask(call["umask"])
    os.sched_setaffinity(0, call["cores"])
    os.setsid()
    time.tzset()
    random.seed()
    tempfile.tempdir = None
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1, errors="backslashreplace")


def outcome(words: list[str]) -> int:
    """Run `python3 <words>` in this process; returns its exit status."""
    code = 1
    try:
        code = run(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:  # whatever a command ends by, as Python itself would show it
        traceback.print_exc()
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code


def run(words: list[str]) -> int:
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *words[2:]], ""
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    serve(sys.argv[1])
