#!/usr/bin/env python3
"""Write tasks as scripts that run here or on a Slurm cluster, and one job array of them all.

    printf '%s\\t%s\\t%s\\n' subtask-matrix-final "seed 1" 'exec "$PYTHON" train.py ...' |
        python3 write_tasks.py --name subtask-matrix-final --of "the stage final" --by compare_shapings.sh --cpus 2

reads a task a line from standard input, three fields with tabs between them: the name of its scripts, what it does, and
its command in bash, which may use $cores, how many cores it may take, or nothing where it may take all. Writes into the
working folder

    <name of its scripts>-<k>-of-<n>.sh    a script a task, numbered among those of the same name
    <name>-array.sh                        a job array with sbatch, else all of them here, TOTPROCS at a time
    logs/                                  where Slurm writes what they say

and says how they are run, or runs them with --run. Scripts that the array listed before and that are none of these are
removed. The array counts when it is there: it is written last.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from command_line import COUNT, Parser, refuse, run
from files import Unreadable, whole, writing

EXPORTED = ("PYTHON", "RESULTS", "MODELS", "SHAPING_FILE")  # what the suite's commands take from the environment
NAME = re.compile(r"\w[\w.+-]*", re.ASCII)  # neither bash nor Slurm changes such a name
SCRIPT = re.compile(r"^    (\w[\w.+-]*-\d+-of-\d+\.sh)$", re.MULTILINE)  # a line of an array's list

MOST_BYTES = 2**24  # of an array's script

HEADER = """\
#!/usr/bin/env bash
#SBATCH --job-name={job}
#SBATCH --output="{folder}/logs/{log}.log"
{array}#SBATCH --cpus-per-task={cpus}
#SBATCH --requeue
#SBATCH --open-mode=append
# {what} Written by {by}.
set -euo pipefail
cd {place}
"""
CORES = "cores=${CORES:-${SLURM_CPUS_PER_TASK:-}}\n"
WHOLE = "Every task of {of}: as a Slurm job array with sbatch, else here, TOTPROCS at a time; a number chooses one."
ARRAY = """\
scripts=(
{scripts})
tether=() task=${{1:-${{SLURM_ARRAY_TASK_ID:-}}}}
# while tasks run, their scripts are not written anew
! command -v flock > /dev/null || {{ exec 9< {array_file} && flock -s 9; }} || true
if [[ -n $task ]]; then
    [[ $task =~ ^[1-9][0-9]*$ && $task -le ${{#scripts[@]}} ]] || {{ echo "error: task $task: choose one of 1 to ${{#scripts[@]}}" >&2; exit 2; }}
    exec bash "./${{scripts[task - 1]}}"
fi
[[ ${{TOTPROCS:=1}} =~ ^[1-9][0-9]*$ ]] || {{ echo "error: TOTPROCS=$TOTPROCS: give a whole number of 1 or more" >&2; exit 2; }}
export CORES=$(($(nproc) / TOTPROCS > 0 ? $(nproc) / TOTPROCS : 1))
# tasks end with this script; 1: one that ends by a signal would have xargs end all others
! command -v setpriv > /dev/null || tether=(setpriv --pdeathsig TERM --)
# shellcheck disable=SC2016
printf '%s\\n' "${{scripts[@]}}" | "${{tether[@]}}" xargs -P "$TOTPROCS" -I {{}} \\
    "${{tether[@]}}" bash -c '"${{@:2}}" bash "./$1" || exit 1' task {{}} "${{tether[@]}}"
"""  # noqa: E501


@dataclass(frozen=True)
class Task:
    """A task: the file name of its script, what it does, in words, and its command in bash."""

    script: str
    what: str
    command: str


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--name", required=True, help="of the array")
    parser.add_argument("--of", required=True, help="what the array is every task of, in words")
    parser.add_argument("--by", required=True, help="the script that has them written")
    parser.add_argument("--cpus", type=COUNT, default=2, help="cores that Slurm is asked for, a task (default: 2)")
    parser.add_argument("--run", type=COUNT, metavar="PROCESSES", help="run them at once, so many at a time")
    options = parser.parse_args()
    if not NAME.fullmatch(options.name):
        refuse(f"--name {options.name}: give one of letters, digits and . _ + -")
    tasks = read(sys.stdin.read())
    array = write(tasks, options.name, options.of, options.by, options.cpus)
    if options.run:
        os.environ["TOTPROCS"] = str(options.run)
        os.execv(f"./{array}", [f"./{array}"])
    print(f"{len(tasks)} task scripts, {tasks[0].script} to {tasks[-1].script}; run all of them:")
    print(f"    sbatch {array}              on a Slurm cluster")
    print(f"    TOTPROCS=1 ./{array}        here, one at a time with all cores")


def read(text: str) -> list[Task]:
    """The tasks that lines of three fields describe; refuses a line that has another number, and no line at all."""
    lines = [line.split("\t") for line in text.splitlines()]
    for number, fields in enumerate(lines, 1):
        if len(fields) != 3 or not all(fields) or not NAME.fullmatch(fields[0]):
            refuse(
                f"standard input, line {number}: no task; give the name of its scripts, what it does and its command,"
                " with tabs between them"
            )
    if not lines:
        refuse("standard input: no tasks; give one a line")
    of_name, written, tasks = Counter(name for name, _, _ in lines), Counter(), []
    for name, what, command in lines:
        written[name] += 1
        tasks.append(Task(f"{name}-{written[name]}-of-{of_name[name]}.sh", what, command))
    return tasks


def write(tasks: list[Task], name: str, of: str, by: str, cpus: int) -> str:
    """Write the tasks' scripts and their array into the working folder; returns the array's file name."""
    folder, array = working_folder(), f"{name}-array.sh"
    if is_running(Path(array)):
        refuse(f"{folder / array}: its tasks are running; write them again when they have ended")
    common = {"folder": folder, "place": shlex.quote(str(folder)), "cpus": cpus, "by": by}
    exports = "".join(
        f"export {variable}={shlex.quote(os.environ[variable])}\n" for variable in EXPORTED if variable in os.environ
    )
    earlier = set(SCRIPT.findall(earlier_array(Path(array))))
    Path("logs").mkdir(exist_ok=True)  # Slurm does not make it, and says nothing
    for task in tasks:
        header = HEADER.format(job=Path(task.script).stem, log="%x", array="", what=f"{task.what}.", **common)
        cores = CORES if "$cores" in task.command else ""
        write_script(Path(task.script), f"{header}{exports}{cores}{task.command}\n")
    for script in earlier - {task.script for task in tasks}:
        Path(script).unlink(missing_ok=True)
    numbers = f"#SBATCH --array=1-{len(tasks)}\n"
    header = HEADER.format(job=Path(array).stem, log="%x-%a", array=numbers, what=WHOLE.format(of=of), **common)
    scripts = "".join(f"    {task.script}\n" for task in tasks)
    write_script(Path(array), header + ARRAY.format(scripts=scripts, array_file=shlex.quote(f"./{array}")))
    return array


def is_running(array: Path) -> bool:
    """Whether an array that was written before is running on this machine: it holds a lock on its own script."""
    if not array.is_file():
        return False
    with open(array, "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.EACCES, errno.EAGAIN)
    return False


def earlier_array(array: Path) -> str:
    """The text of an array that was written before; empty where there is none."""
    try:
        return whole(array, MOST_BYTES).decode(errors="replace")
    except Unreadable:
        return ""


def working_folder() -> Path:
    """The working folder by the name that the shell knows it by: where homes are mounted on demand, other machines know
    no other.
    """
    named = Path(os.environ.get("PWD") or ".")
    return named if named.is_absolute() and named.exists() and named.samefile(".") else Path.cwd()


def write_script(path: Path, text: str) -> None:
    """Write a file that may be executed by whoever may read it."""
    with writing(path) as stream:
        stream.write(text)
        mode = os.fstat(stream.fileno()).st_mode
        os.fchmod(stream.fileno(), mode | (mode & 0o444) >> 2)


if __name__ == "__main__":
    run(main)
