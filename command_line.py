"""What entry points do alike: one clear line on bad input, options that are checked as they are read, and progress."""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

import numpy as np
from tqdm import tqdm

import files


class BadInput(ValueError):
    """What a user gave cannot be used.

    The message is one line: it names the option or file, says what is wrong, and how to mend it.
    """


def refuse(message: str) -> NoReturn:
    """Raise `BadInput`: the answer to bad input everywhere.

    A notebook may catch it; an entry point ends in its line (`run`).
    """
    raise BadInput(files.printable(" ".join(str(message).split())))


def run(main: Callable[[], None]) -> None:
    """Call an entry point's `main`. Bad input ends it with one line on standard error and status 2.

    So do a full disk, a file that may not be read or written, and a lack of memory. Ctrl-C and SIGTERM end it at once,
    with one line, by that signal (status 130 and 143 to a shell).
    """
    end_on_signals()
    try:
        main()
        return
    except BadInput as error:
        line = str(error)
    except OSError as error:
        place = error.filename2 or error.filename or "a file"
        line = f"{place}: {error.strerror or error}; mend that and give the same command again: what is finished stays"
    except MemoryError as error:
        why = error or "no more to be had"
        line = f"out of memory ({why}): raise `ulimit -v`, or give less with --memory; what is finished stays"
    print("error:", files.printable(" ".join(line.split())), file=sys.stderr)
    raise SystemExit(2)


def end_on_signals() -> None:
    """From now on Ctrl-C and SIGTERM end this process at once, wherever its threads are.

    Python's own way waits for the operation that is running, an epoch of a large stack, and for every thread. A signal
    that was ignored when the process began stays so.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)  # is written to at once, not between two bytecodes

    def wait() -> None:
        number = os.read(reader, 1)[0]
        for last in files.at_end:
            last()
        what = "interrupted" if number == signal.SIGINT else "ended by a signal"
        line = f"{what}: what is finished stays; the same command goes on from there\n"
        os.write(2, ("\n" * sys.stderr.isatty() + line).encode())  # behind a progress bar
        ctypes.CDLL(None).signal(number, None)  # the signal's default; Python lets the main thread alone set it
        os.kill(os.getpid(), number)

    threading.Thread(target=wait, daemon=True).start()


class Parser(argparse.ArgumentParser):
    """An argument parser that shows a module's docstring as its help and refuses in one line, without usage text."""

    def __init__(self, description: str) -> None:
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        refuse(f"{message}; see --help")


NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
LONGEST = 40  # of a number, in characters
MOST = 10**9  # of what is counted


def number(allowed: Callable[[float], bool], meaning: str, kind: type = float) -> Callable[[str], float]:
    """An argparse type: a finite number for which `allowed` holds; `meaning` is what the error line says it must be.

    A number is what it looks like: plain digits, no 1_000 and no digits of other scripts; and 0 has no sign.
    """
    form = WHOLE if kind is int else NUMBER

    def parse(text: str) -> float:
        known = len(text) <= LONGEST and form.fullmatch(text)
        value = kind(text) if known else math.nan
        if not (math.isfinite(value) and allowed(value)):
            raise argparse.ArgumentTypeError(f"{text[:LONGEST]!r} is not {meaning}")
        return value + 0  # -0.0 + 0 is 0.0

    return parse


SHARE = number(lambda value: 0 <= value <= 1, "a number from 0 to 1")
PROPER_SHARE = number(lambda value: 0 <= value < 1, "a number from 0 to below 1")
INNER_SHARE = number(lambda value: 0 < value < 1, "a number between 0 and 1")
HALF_SHARE = number(lambda value: 0 <= value < 0.5, "a number from 0 to below 0.5")
COSINE = number(lambda value: -1 <= value <= 1, "a number from -1 to 1")
RATIO = number(lambda value: 0 < value <= 1, "a ratio above 0 and up to 1")
# what float32 holds, with room for a square root, a sum and a ratio
POSITIVE = number(lambda value: 1e-30 <= value <= 1e30, "a number above 0, from 1e-30 to 1e30")
NOT_NEGATIVE = number(lambda value: value == 0 or 1e-30 <= value <= 1e30, "a number of 0 or more, up to 1e30")
INDEX = number(lambda value: 0 <= value <= MOST, f"a whole number of 0 or more, up to {MOST}", int)
COUNT = number(lambda value: 1 <= value <= MOST, f"a whole number of 1 or more, up to {MOST}", int)
SEED = number(lambda value: 0 <= value < 2**31, "a whole number from 0 to 2147483647", int)


class Progress:
    """Epoch, accuracy and time left: a bar on a terminal.

    Plain lines, at most one in five seconds and the last, in a file.
    """

    def __init__(self, label: str, epochs: int, measure: str = "test accuracy", unit: str = "epoch") -> None:
        self.measure, self.unit = measure, unit
        self.label, self.epochs, self.began, self.shown = label, epochs, time.monotonic(), time.monotonic()
        self.bar = tqdm(total=epochs, desc=label, unit=unit, dynamic_ncols=True, disable=not sys.stderr.isatty())

    def show(self, epoch: int, accuracies: np.ndarray | Sequence[float] | float) -> None:
        """Show that `epoch` (from 1) is done, and the range of the replicas' accuracies, or one number."""
        known = np.array(accuracies)[~np.isnan(accuracies)]
        text = (
            f"{self.measure} {known.min():.4f}" + (f" to {known.max():.4f}" if known.max() > known.min() else "")
            if known.size
            else "diverged"
        )
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update()
        now = time.monotonic()
        if self.bar.disable and (epoch == self.epochs or now - self.shown >= 5):
            left = (now - self.began) / epoch * (self.epochs - epoch)
            print(
                f"{self.label}: {self.unit} {epoch}/{self.epochs}, {text}, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
            self.shown = now
        if epoch == self.epochs:
            self.bar.close()
