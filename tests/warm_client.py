# What a test calls instead of Python (warm.py puts its first line and its own paths in): hands the call to the server,
# and ends as the command did. What is no script, -m or -c, has limits, or is not for the server, goes to Python itself.
import json
import os
import resource
import signal
import socket
import sys

PYTHON, PLACE = "{python}", "{place}"
words = sys.argv[1:]
plain = words and (not words[0].startswith("-") or (words[0] in ("-m", "-c") and len(words) > 1))
limits = [resource.getrlimit(one)[0] for one in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_DATA)]
server = socket.socket(socket.AF_UNIX)
try:
    if not plain or set(limits) != set([resource.RLIM_INFINITY]):
        raise OSError
    server.connect(PLACE)
    umask = os.umask(0)
    os.umask(umask)
    call = dict(words=words, folder=os.getcwd(), environment=dict(os.environ), umask=umask)
    call.update(cores=list(os.sched_getaffinity(0)))
    socket.send_fds(server, [json.dumps(call).encode()], [0, 1, 2])
    answers = server.makefile()
    command = int(answers.readline())
except (OSError, ValueError):
    os.execv(PYTHON, [PYTHON, *words])
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: os.kill(command, number))
code = int(answers.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
