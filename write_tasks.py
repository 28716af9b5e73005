#!/usr/bin/env python3
"""Write a list of tasks, and one script that runs them here or as a job array on a Slurm cluster.

    printf '%s\\t%s\\t%s\\n' subtask-matrix-final "seed 1" 'exec "$PYTHON" train.py ...' |
        python3 write_tasks.py --name subtask-matrix-final --of "the stage final" --by compare_shapings.sh --cpus 2

reads a task a line from standard input, three fields with tabs between them: the name of its kind, what it does, and
its command in bash. Writes into the working folder

    <name>-tasks.tsv        a task a line: the name of its kind with -<k>-of-<n>, what it does, its command
    <name>-array.sh         runs the task of a number, or all: as a job array with sbatch, else here, TOTPROCS at a time
    <name>-models.sh        with --first: what must have ended before, e.g. the training of models
    <kind>-<k>-of-<n>.sh    with --scripts: a script a task besides
    logs/                   where Slurm writes what they say, a file a job and task

and says how they are run, or runs them with --run. Files of an earlier list that are none of these are removed. The
array counts when it is there: it is written last, and refuses a list that it was not written with.
"""

from __future__ import annotations

import argparse
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
from files import Unreadable, file_sha256, whole, writing

# what the suite's commands take from the environment
EXPORTED = ("PYTHON", "RESULTS", "MODELS", "SHAPING_FILE", "PROTOCOL")
NAME = re.compile(r"\w[\w.+-]*", re.ASCII)  # neither bash nor Slurm changes such a name
MOST_BYTES = 2**26  # of a list of tasks
# as sbatch takes them: minutes, [hours:]minutes:seconds, days-hours[:minutes[:seconds]]; megabytes, or with a unit
TIME = re.compile(r"\d{1,6}(:\d\d){0,2}|\d{1,4}-\d\d?(:\d\d){0,2}", re.ASCII)
MEMORY = re.compile(r"[1-9]\d{0,8}[KMGT]?", re.ASCII)
EXTRA = re.compile(r"--[a-z][a-z0-9-]*(=[^\s\"'\\#]+)?", re.ASCII)  # quotes and # mean something in an #SBATCH line
OURS = ("array", "output", "open-mode", "wrap")  # without which tasks or what they say would be lost

HEADER = """\
#!/usr/bin/env bash
#SBATCH --job-name={job}
#SBATCH --output="{folder}/logs/{log}.log"
{wanted}#SBATCH --requeue
#SBATCH --open-mode=append
# {what} Written by {by}.
set -euo pipefail
cd {place}
"""
WHOLE = "Every task of {of}: as a Slurm job array with sbatch, else here, TOTPROCS at a time; a number chooses one."
FIRST = "What every task of {of} needs, made once before them."
ARRAY = """\
list={tasks}
# while tasks run, their list is not written anew
! command -v flock > /dev/null || {{ exec 9< {array} && flock -s 9; }} || true
# a job that waited while its list was written anew would do another's work
! command -v sha256sum > /dev/null || sha256sum --check --status <<< "{sha256}  $list" 2> /dev/null ||
    {{ echo "error: $list: not the one that this job was written with; submit {array} again" >&2; exit 2; }}
mapfile -t tasks < "$list"
task=${{1:-${{SLURM_ARRAY_TASK_ID:-}}}}
if [[ -n $task ]]; then
    [[ $task =~ ^[1-9][0-9]{{0,8}}$ && $task -le ${{#tasks[@]}} ]] ||
        {{ echo "error: task $task: choose one of 1 to ${{#tasks[@]}}" >&2; exit 2; }}
    IFS=$'\\t' read -r name what command <<< "${{tasks[task - 1]}}"
    echo "$name: $what" >&2
    eval "$command"
    exit
fi
[[ ${{TOTPROCS:=1}} =~ ^[1-9][0-9]{{0,8}}$ ]] ||
    {{ echo "error: TOTPROCS=$TOTPROCS: give a whole number of 1 or more" >&2; exit 2; }}
# tasks end with this script; 1: one that ends by a signal would have xargs end all others
tether=()
! command -v setpriv > /dev/null || tether=(setpriv --pdeathsig TERM --)
{first}export CORES=$(($(nproc) / TOTPROCS > 0 ? $(nproc) / TOTPROCS : 1))
# shellcheck disable=SC2016
seq "${{#tasks[@]}}" | "${{tether[@]}}" xargs -P "$TOTPROCS" -I {{}} \\
    "${{tether[@]}}" bash -c '"${{@:3}}" bash "$1" "$2" || exit 1' task {array} {{}} "${{tether[@]}}"
"""


@dataclass(frozen=True)
class Task:
    """A task: its name, what it does, in words, and its command in bash."""

    name: str
    what: str
    command: str

    @property
    def script(self) -> str:
        """The file name of its own script, where there is one."""
        return f"{self.name}.sh"


def main() -> None:
    options = parse()
    if options.check:
        return
    tasks = read(sys.stdin.read())
    array = write(tasks, options)
    if options.run:
        os.environ["TOTPROCS"] = str(options.run)
        os.execv(array, [array])
    after = f" --dependency=afterok:$(sbatch --parsable {options.name}-models.sh)" if options.first else ""
    print(f"{len(tasks)} task{'s' * (len(tasks) > 1)}, a line each of {options.name}-tasks.tsv; run all of them:")
    print(f"    sbatch{after} {array[2:]}        on a Slurm cluster, or with --array=1 the first")
    print(f"    TOTPROCS=1 {array}        here, one at a time with all cores")
    print(f"    {array} 1                 the first, here")


def parse() -> argparse.Namespace:
    """The options, checked."""
    parser = Parser(__doc__)
    parser.add_argument("--name", required=True, help="of the array")
    parser.add_argument("--of", required=True, help="what the array is every task of, in words")
    parser.add_argument("--by", required=True, help="the script that has them written")
    parser.add_argument(
        "--first", metavar="COMMANDS", help="in bash, a line each: what must have ended before any task begins"
    )
    parser.add_argument("--scripts", action="store_true", help="write a script for each task besides")
    parser.add_argument("--cpus", type=COUNT, default=2, help="cores that Slurm is asked for, a task (default: 2)")
    parser.add_argument("--gpus", type=COUNT, help="GPUs, a task (default: none)")
    parser.add_argument("--time-limit", metavar="TIME", help="of a task, e.g. 2:00:00 (default: the partition's)")
    parser.add_argument("--memory", metavar="SIZE", help="of a task, e.g. 4G (default: the partition's)")
    parser.add_argument("--throttle", type=COUNT, help="how many tasks may run at a time (default: as many as can)")
    parser.add_argument(
        "--sbatch-extra",
        metavar="OPTIONS",
        default="",
        help='what else sbatch is told, with blanks between: --sbatch-extra="--account=me --partition=long"',
    )
    parser.add_argument("--run", type=COUNT, metavar="PROCESSES", help="run them at once, so many at a time")
    parser.add_argument("--check", action="store_true", help="check all other options, and do nothing")
    options = parser.parse_args()
    if not NAME.fullmatch(options.name):
        refuse(f"--name {options.name}: give one of letters, digits and . _ + -")
    if options.time_limit and not TIME.fullmatch(options.time_limit):
        refuse(f"--time-limit {options.time_limit}: give minutes, hours:minutes:seconds, or days-hours, e.g. 2:00:00")
    if options.memory and not MEMORY.fullmatch(options.memory):
        refuse(f"--memory {options.memory}: give a whole number of megabytes, or with K, M, G or T behind it, e.g. 4G")
    options.sbatch_extra = options.sbatch_extra.split()
    for word in options.sbatch_extra:
        if not EXTRA.fullmatch(word):
            refuse(f"--sbatch-extra {word}: give options of sbatch as --name=value, without blanks and quotes")
        if any(ours.startswith(word[2:].partition("=")[0]) for ours in OURS):  # which sbatch takes shortened
            refuse(f"--sbatch-extra {word}: the script has its own; leave it out, or give it to sbatch itself")
    return options


def read(text: str) -> list[Task]:
    """The tasks that lines of three fields describe; refuses a line that has another number, and no line at all."""
    lines = [line.split("\t") for line in text.split("\n")[:-1]]  # as bash splits them
    for number, fields in enumerate(lines, 1):
        if len(fields) != 3 or not all(fields) or not NAME.fullmatch(fields[0]):
            refuse(
                f"standard input, line {number}: no task; give the name of its kind, what it does and its command,"
                " with tabs between them"
            )
    if not lines:
        refuse("standard input: no tasks; give one a line")
    of_kind, written, tasks = Counter(kind for kind, _, _ in lines), Counter(), []
    for kind, what, command in lines:
        written[kind] += 1
        tasks.append(Task(f"{kind}-{written[kind]}-of-{of_kind[kind]}", what, command))
    return tasks


def write(tasks: list[Task], options: argparse.Namespace) -> str:
    """Write the list, the array, and what else is asked for into the working folder; returns how the array is called.

    Read from the end, so that a list that was written in part is never run: the array counts, and names its list.
    """
    name, array = options.name, f"./{options.name}-array.sh"
    listed, models = Path(f"{name}-tasks.tsv"), Path(f"{name}-models.sh")
    if is_running(Path(array)):
        refuse(f"{working_folder() / array}: its tasks are running; write them again when they have ended")
    Path("logs").mkdir(exist_ok=True)  # Slurm does not make it, and says nothing
    for script in scripts_of(listed) - {task.script for task in tasks if options.scripts}:
        Path(script).unlink(missing_ok=True)
    with writing(listed) as stream:
        stream.writelines(f"{task.name}\t{task.what}\t{task.command}\n" for task in tasks)
    if options.first:
        what = FIRST.format(of=options.of)
        write_script(models, f"{header(models.stem, '%x-%j', what, options)}{exports()}{options.first.strip()}\n")
    else:
        models.unlink(missing_ok=True)
    for number, task in enumerate(tasks if options.scripts else [], 1):
        write_script(
            Path(task.script), f"{header(task.name, '%x-%j', f'{task.what}.', options)}exec {array} {number}\n"
        )
    before = f'"${{tether[@]}}" bash ./{models}\n' if options.first else ""
    throttle = f"%{options.throttle}" if options.throttle else ""
    wanted = (f"--array=1-{len(tasks)}{throttle}", "--kill-on-invalid-dep=yes")  # else it would wait for ever
    head = header(name, "%x-%A_%a", WHOLE.format(of=options.of), options, wanted)
    body = ARRAY.format(tasks=listed, array=array, sha256=file_sha256(listed), first=before)
    write_script(Path(array), head + exports() + body)
    return array


def header(job: str, log: str, what: str, options: argparse.Namespace, wanted: tuple[str, ...] = ()) -> str:
    """The first lines of a script: what Slurm is asked for, what the script does, and where."""
    folder = working_folder()
    asked = {"cpus-per-task": options.cpus, "time": options.time_limit, "mem": options.memory}
    asked["gres"] = f"gpu:{options.gpus}" if options.gpus else None
    words = [*wanted, *(f"--{name}={value}" for name, value in asked.items() if value), *options.sbatch_extra]
    lines = "".join(f"#SBATCH {word}\n" for word in words)
    place = shlex.quote(str(folder))
    return HEADER.format(job=job, log=log, what=what, wanted=lines, by=options.by, folder=folder, place=place)


def exports() -> str:
    """Lines of bash that set what the suite's commands take from this environment."""
    found = {variable: os.environ[variable] for variable in EXPORTED if variable in os.environ}
    return "".join(f"export {variable}={shlex.quote(value)}\n" for variable, value in found.items())


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


def scripts_of(listed: Path) -> set[str]:
    """The file names of the scripts that the tasks of an earlier list may have; none where there is no list."""
    try:
        text = whole(listed, MOST_BYTES).decode(errors="replace")
    except Unreadable:
        return set()
    names = {line.partition("\t")[0] for line in text.splitlines()}
    return {f"{name}.sh" for name in names if NAME.fullmatch(name) and re.search(r"-\d+-of-\d+$", name)}


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
