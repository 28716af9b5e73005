"""MATLAB files of the slab attack (Steinhardt et al. 2017), read in a process of its own.

SciPy's reader trusts what a file says of itself: a forged one can end the process that reads it, or let it read any
memory. So `read` starts this module as a child with little memory and time, which hands the two arrays back as plain
bytes of an npz file; whatever happens to it, the parent refuses the file in one line.
"""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from files import Unreadable, opened, read_npz
from results.layout import REPOSITORY

NAMES = {"bestX": 2, "bestY": 1}  # and the dimensions of one candidate set
MEMORY, SECONDS = 2**30, 60  # of the child, beside its libraries: thrice the largest file of ten sets
DENSE = 2**28  # bytes of a sparse matrix once it is dense: ten times the largest
SAID = 3  # status of a child that said what is wrong


def read(path: Path) -> dict[str, np.ndarray]:
    """The first candidate sets of bestX, [poisons, features], and bestY, [poisons], dense, of numbers; raises
    `Unreadable` where they are not there or not safe to read.

    A file holds several sets, [sets, poisons, features], or a cell array of them, full or sparse; or just one.
    """
    with opened(path):  # a plain file, not of more than 1 GiB
        pass
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "poisons.mat_file", os.path.abspath(path)]
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unreadable(f"it takes longer than {SECONDS} s to read") from None
    if done.returncode == SAID:
        raise Unreadable((done.stderr.decode(errors="replace").strip().splitlines() or ["damaged"])[-1][:300])
    if done.returncode:
        raise Unreadable("damaged: reading it ends the process that reads it")
    found = read_npz(io.BytesIO(done.stdout))
    if set(found) != set(NAMES) or any(values.dtype.kind not in "fiu" for values in found.values()):
        raise Unreadable("bestX and bestY must hold numbers")
    return found


def first_set(sets: np.ndarray, dimensions: int) -> np.ndarray:
    """The first candidate set, dense."""
    if sets.dtype == object:
        first: Any = sets.reshape(-1)[0] if sets.size else np.zeros(0)
    else:
        first = sets[0] if sets.ndim > dimensions else sets
    if hasattr(first, "check_format"):  # sparse
        first.check_format(full_check=True)
        if np.prod(first.shape, dtype=float) * first.dtype.itemsize > DENSE:
            raise ValueError(f"a sparse matrix of {first.shape} is more than {DENSE / 2**20:.0f} MiB")
        first = first.toarray()
    first = np.asarray(first)
    if first.dtype.kind not in "fiu":
        raise ValueError("bestX and bestY must hold numbers")
    return first


def limit() -> None:
    """Give this process little more memory than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 2**18
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def arrays(path: str) -> dict[str, np.ndarray]:
    """What `read` gives, read in this process; raises `Unreadable`, or ends the process."""
    import scipy.io

    try:
        stored = scipy.io.loadmat(path, variable_names=list(NAMES))
        if not set(NAMES) <= set(stored):
            raise ValueError("it has no bestX and bestY")
        return {name: first_set(stored[name], dimensions) for name, dimensions in NAMES.items()}
    except MemoryError:
        raise Unreadable("it would unpack to more memory than is given to it") from None
    except Exception as error:  # SciPy's reader raises whatever its parts do
        raise Unreadable(f"truncated, damaged, or not a MATLAB file of version 7 or older ({error})") from None


def main() -> None:
    import scipy.io  # here: the parent does without it
    import scipy.sparse  # noqa: F401  (before the limit)

    limit()
    try:
        found = arrays(sys.argv[1])
    except Unreadable as error:
        print(error, file=sys.stderr)
        raise SystemExit(SAID) from None
    content = io.BytesIO()
    np.savez(content, **found)
    sys.stdout.buffer.write(content.getvalue())


if __name__ == "__main__":
    main()
