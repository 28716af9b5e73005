#!/usr/bin/env python3
"""Damaged and hostile files for every reader of files from outside: none may crash it, hang it, or fill the memory.

    python3 -m tests.fuzz                                    100,000 files of every format; 40 minutes
    python3 -m tests.fuzz --files 2000 --format npz pkl      fewer, of these formats
    python3 -m tests.fuzz --out fuzz.csv --keep findings     the table as CSV, and every file that is a finding

Real files are damaged with knowledge of their format (tests/mutations.py), checksums of this suite set right in half of
them; a file that reaches new lines of the readers is damaged further. A reader must give what it read, or raise its
refusal (tests/fuzz_formats.py). Findings are: any other exception; a process that ends; more than 5 s (60 s for the
whole report); more than 256 MiB beside the result; a file opened or written outside, or code executed. Each format is
read in a process of its own, which is started anew when it ended.

With --engine atheris (pip install atheris==3.0.0, for Python 3.11) libFuzzer chooses what is damaged further.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import mmap
import multiprocessing
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from fuzz_formats import FORMATS, Format, Refused, kept_places  # noqa: E402

MEMORY = 256 * 2**20  # bytes beside the result that reading a file may take
WARM = 2.0  # seconds of reading whole files before the watch begins
CHILD_MEMORY = 2**30  # of a reader that has a process of its own, as poisons/mat_file.py gives it
SPACE = 3 * 2**30  # address space beside what a process has when it begins
CORPUS, LARGEST = 400, 2**20  # files that are damaged further; bytes of one
ENGINES = ("own", "atheris")
COLUMNS = [
    "format",
    "files",
    "refused",
    "read",
    "child_ended",
    "crashes",
    "hangs",
    "memory",
    "peak_mib",
    "covered",
    "seconds",
]
# What the parent and its child share: numbers of files, refused, read and covered lines, the largest peak, when the
# file at hand was begun, its kind and length; then the file
STATE = struct.Struct("<7Qq")
FILES, REFUSED, READ, COVERED, PEAK, BEGUN, KIND, LENGTH = range(8)


@dataclass
class Tally:
    """What came of a format: counts, and the findings as (what, reason, file)."""

    counts: dict = field(default_factory=lambda: dict.fromkeys(COLUMNS[1:], 0))
    findings: list = field(default_factory=list)


def fuzz(name: str, form: Format, files: int, seed: int = 0, engine: str = "own", work: Path | None = None) -> Tally:
    """Read so many damaged files of a format.

    work: a folder for them, best in memory; else a temporary one.
    """
    tally, began = Tally(), time.monotonic()
    shared = mmap.mmap(-1, STATE.size + LARGEST)
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-", dir=work or memory_folder()) as folder, kept_places():
        seeds = form.seeds(Path(folder))
        corpus = list(seeds)
        while tally.counts["files"] < files:
            done = tally.counts["files"]
            if not one_child(
                name, form, files - done, f"{seed} {name} {done}", engine, Path(folder), shared, corpus, tally
            ):
                break
    tally.counts["seconds"] = round(time.monotonic() - began, 1)
    return tally


def memory_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def one_child(
    name: str, form: Format, files: int, seed: str, engine: str, folder: Path, shared, corpus: list, tally: Tally
) -> bool:  # fmt: skip
    """Let one process read files until it is through or ends; False where it did not read any."""
    shared[: STATE.size] = STATE.pack(*[0] * 8)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    sys.stdout.flush(), sys.stderr.flush()
    child = os.fork()
    if child == 0:
        ours.close()
        status = 1
        try:
            work(form, files, seed, engine, folder, shared, corpus, theirs)
            status = 0
        except SystemExit:
            status = 0
        except BaseException as error:
            with contextlib.suppress(Exception):
                theirs.send(("crash", f"the fuzzer itself: {type(error).__name__}: {error}", 0, b""))
        finally:
            os._exit(status)
    theirs.close()
    ended, hung = False, False
    while not ended:
        hear(ours, corpus, tally, 0.05)
        begun = STATE.unpack(shared[: STATE.size])[BEGUN]
        if begun and time.monotonic_ns() - begun > form.seconds * 1e9:
            hung = True
            os.kill(child, signal.SIGKILL)
        pid, status = os.waitpid(child, os.WNOHANG)
        ended = pid == child
    hear(ours, corpus, tally, 0)
    ours.close()
    state = STATE.unpack(shared[: STATE.size])
    for column, place in (("files", FILES), ("refused", REFUSED), ("read", READ)):
        tally.counts[column] += state[place]
    tally.counts["covered"] = max(tally.counts["covered"], state[COVERED])
    tally.counts["peak_mib"] = max(tally.counts["peak_mib"], round(state[PEAK] / 2**20, 1))
    if os.WIFSIGNALED(status) and state[BEGUN]:
        content = shared[STATE.size : STATE.size + state[LENGTH]]
        tally.counts["files"] += 1
        why = f"signal {signal.Signals(os.WTERMSIG(status)).name}"
        if hung:
            note(tally, "hang", f"more than {form.seconds:g} s", state[KIND], content)
        elif form.own_child:
            tally.counts["child_ended"] += 1
            tally.counts["refused"] += 1
        else:
            note(tally, "crash", why, state[KIND], content)
    return bool(state[FILES]) or bool(state[BEGUN])


def hear(ours, corpus: list, tally: Tally, seconds: float) -> None:
    """Take what a child says: files to be damaged further, and findings."""
    with contextlib.suppress(EOFError, OSError):
        while ours.poll(seconds):
            what, why, kind, content = ours.recv()
            if what == "new":
                corpus.append((why, content))
                if len(corpus) > CORPUS:
                    del corpus[random.Random(len(content)).randrange(CORPUS // 4, CORPUS)]
            else:
                note(tally, what, why, kind, content)
            seconds = 0


def note(tally: Tally, what: str, why: str, kind: int, content: bytes) -> None:
    tally.counts[{"crash": "crashes", "hang": "hangs", "memory": "memory"}[what]] += 1
    tally.findings.append((what, why, kind, content))


# --- in the child ---


def work(form: Format, files: int, seed: str, engine: str, folder: Path, shared, corpus: list, parent) -> None:
    """Read damaged files one after the other."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    if engine == "atheris":
        importlib.import_module("atheris")  # before the watch
    kinds = sorted({kind for kind, _ in corpus})
    state, touched, lines = [0] * 8, [], set()
    began = time.monotonic()
    for kind, content in corpus[:100]:  # what is imported late is imported now
        if time.monotonic() - began > WARM:
            break
        with contextlib.suppress(Exception):
            form.read(folder, kind, content)
    space = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    most = space + (CHILD_MEMORY if form.own_child else SPACE)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    refusals = REFUSALS()
    watch(folder, touched, form.parses)
    tracer = tracing(form.modules, lines)

    def read(kind: str, content: bytes) -> bool:
        """Read one file; whether it reached new lines."""
        covered = len(lines)
        state[KIND], state[LENGTH], state[BEGUN] = kinds.index(kind), len(content), time.monotonic_ns()
        shared[: STATE.size + len(content)] = STATE.pack(*state) + content
        size, before = 0, resident_from_now()
        if state[FILES] % form.traced == 0:
            sys.settrace(tracer)
        try:
            size = form.read(folder, kind, content)
            state[READ] += 1
        except refusals:
            state[REFUSED] += 1
        except Exception as error:
            sys.settrace(None)
            parent.send(("crash", described(error), state[KIND], content))
        finally:
            sys.settrace(None)
        beside = max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before - size, 0)
        state[PEAK], state[FILES], state[BEGUN], state[COVERED] = (
            max(state[PEAK], beside),
            state[FILES] + 1,
            0,
            len(lines),
        )
        shared[: STATE.size] = STATE.pack(*state)
        if beside > (CHILD_MEMORY if form.own_child else MEMORY):
            parent.send(("memory", f"{beside / 2**20:.0f} MiB beside the result", state[KIND], content))
            raise SystemExit  # a new process begins with less
        if touched:
            parent.send(("crash", f"it did {touched[0]}", state[KIND], content))
            touched.clear()
        return len(lines) > covered

    if engine == "atheris":
        with_atheris(form, files, seed, corpus, read, folder, kinds)
    else:
        with_dice(form, files, seed, corpus, read, parent, kinds)


def with_dice(form: Format, files: int, seed: str, corpus: list, read, parent, kinds: list) -> None:
    """Choose by chance, the newest files more often."""
    dice = random.Random(seed)
    own = list(corpus)
    by_kind = {kind: [content for of, content in own if of == kind] for kind in kinds}
    for _ in range(files):
        if dice.random() < 0.3:
            kind = dice.choice(kinds)
            content = by_kind[kind][min(int(dice.expovariate(4 / len(by_kind[kind]))), len(by_kind[kind]) - 1)]
        else:
            kind, content = own[dice.randrange(len(own))]
        made = form.damage(kind, content, dice.choice(by_kind[kind]), dice)[:LARGEST]
        if read(kind, made) and len(made) < 2**17:
            own.append((kind, made))
            by_kind[kind].append(made)
            parent.send(("new", kind, 0, made))
            if len(own) > CORPUS:
                del own[dice.randrange(CORPUS // 4, CORPUS)]


def with_atheris(form: Format, files: int, seed: str, corpus: list, read, work: Path, kinds: list) -> None:
    """Let libFuzzer choose; the first byte of its inputs is the kind."""
    import atheris

    for module in form.modules:
        for value in list(vars(importlib.import_module(module)).values()):
            if getattr(value, "__module__", None) == module and hasattr(value, "__code__"):
                atheris.instrument_func(value)  # in place
    folder = Path(tempfile.mkdtemp(prefix="corpus-", dir=work))
    for number, (kind, content) in enumerate(corpus):
        (folder / f"{number}").write_bytes(bytes([kinds.index(kind)]) + content)
    others = {kind: [content for of, content in corpus if of == kind] for kind in kinds}

    def damage(content: bytes, most: int, number: int) -> bytes:
        dice = random.Random(number)
        kind = kinds[content[0] % len(kinds)] if content else kinds[0]
        made = form.damage(kind, content[1:], dice.choice(others[kind]), dice)
        return (bytes([kinds.index(kind)]) + made)[:most]

    def one(content: bytes) -> None:
        if content:
            read(kinds[content[0] % len(kinds)], content[1:])

    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    options = [
        f"-runs={files}",
        "-handle_segv=0",
        "-handle_abrt=0",
        "-rss_limit_mb=0",
        f"-max_len={LARGEST}",
        "-close_fd_mask=0",
    ]
    atheris.Setup(
        ["fuzz", *options, f"-seed={random.Random(seed).randrange(1, 2**31)}", str(folder)], one, custom_mutator=damage
    )
    atheris.Fuzz()


def REFUSALS() -> tuple:
    """What readers say no with."""
    from command_line import BadInput
    from files import Unreadable
    from results.cells import Unfinished

    return (BadInput, Unreadable, Unfinished, Refused)


def described(error: Exception) -> str:
    """An exception and where it was raised, in one line."""
    place, entry = "", error.__traceback__
    while entry is not None:
        file = entry.tb_frame.f_code.co_filename
        if str(HERE.parent) in file and "tests" not in Path(file).parts[-2:]:
            place = f"{Path(file).relative_to(HERE.parent)}:{entry.tb_lineno}"
        entry = entry.tb_next
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]!r} at {place or 'the fuzzer'}"


def resident_from_now() -> int:
    """Bytes in memory now; the peak that getrusage tells is from now on that of what comes."""
    with (
        contextlib.suppress(OSError),
        open("/proc/self/clear_refs", "wb") as stream,
    ):  # where it may not, the peak stays
        stream.write(b"5")
    with open("/proc/self/statm", "rb") as stream:
        return int(stream.read().split()[1]) * mmap.PAGESIZE


ALARMING = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.kill", "subprocess.Popen", "socket.",
    "ctypes.", "pty.", "webbrowser.", "marshal.loads", "pickle.find_class",
)  # fmt: skip
CHANGING = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate")


def watch(folder: Path, touched: list, parses: bool) -> None:
    """Note in `touched` what a reader has no business with: code, processes, sockets, files elsewhere."""
    own = (str(folder), "/dev/null", "/proc/self/clear_refs")
    readable = (*own, "/proc/self/", sys.prefix, sys.base_prefix, str(HERE.parent))
    mine = os.getpid()

    def hook(event: str, arguments: tuple) -> None:
        if os.getpid() != mine:
            return
        bad = (event.startswith(ALARMING) or (event in ("exec", "compile") and not parses)) and not by_import()
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            bad = not os.fsdecode(arguments[0]).startswith(own if writes else readable)
        elif event in CHANGING:
            bad = not os.fsdecode(arguments[0]).startswith(own)
        if bad:
            touched.append(f"{event} {arguments!r:.100}")

    sys.addaudithook(hook)


def by_import() -> bool:
    """Whether a module is being imported, late: of those that are readable."""
    frame = sys._getframe()
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def tracing(modules: tuple[str, ...], lines: set):
    """A tracer that puts the lines of these modules into `lines`; lines of code that ran often are looked at seldom."""
    files = {vars(importlib.import_module(module)).get("__file__") for module in modules}
    often: dict = {}

    def of_line(frame, event, argument):
        if event == "line":
            lines.add((frame.f_code, frame.f_lineno))
        return of_line

    def of_call(frame, event, argument):
        code = frame.f_code
        if code.co_filename not in files:
            return None
        count = often[code] = often.get(code, 0) + 1
        return of_line if count < 500 or count % 32 == 0 else None

    return of_call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--files", type=int, default=100_000, help="damaged files of each format; of the report a hundredth"
    )
    parser.add_argument("--format", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=ENGINES, default="own")
    parser.add_argument("--out", type=Path, help="a CSV file for the table")
    parser.add_argument("--keep", type=Path, help="a folder for the files that are findings, each with its reason")
    options = parser.parse_args()
    import pandas as pd

    lines = []
    for name in options.format:
        files = max(options.files // 100, 1) if name == "report" else options.files
        tally = fuzz(name, FORMATS[name], files, options.seed, options.engine)
        lines.append({"format": name, **tally.counts})
        reasons = {}
        for what, why, _, content in tally.findings:
            reasons.setdefault((what, why), []).append(content)
        for (what, why), contents in sorted(reasons.items(), key=lambda pair: -len(pair[1])):
            print(f"{name}: {len(contents)} x {what}: {why}", flush=True)
            if options.keep:
                keep(options.keep / name, what, why, contents)
        table = pd.DataFrame(lines, columns=COLUMNS)
        if options.out:
            table.to_csv(options.out, index=False)
        print(table[-1:].to_string(index=False), flush=True)
    print(table.to_string(index=False))
    raise SystemExit(int(bool(table[["crashes", "hangs", "memory"]].to_numpy().sum())))


def keep(folder: Path, what: str, why: str, contents: list[bytes]) -> None:
    """Keep up to three files of a reason, the smallest, beside a text that says it."""
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("*.txt"))) + 1
    (folder / f"{number}.txt").write_text(f"{what}: {why}\n{len(contents)} files\n")
    for at, content in enumerate(sorted(contents, key=len)[:3]):
        (folder / f"{number}_{at}.bin").write_bytes(content)


if __name__ == "__main__":
    main()
