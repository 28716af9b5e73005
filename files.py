"""Files that are whole or not there, and reading that executes nothing."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np


@contextlib.contextmanager
def writing(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary neighbour of `path` for writing; rename it to `path` when the block ends without an exception.

    A reader, and a run that comes after a kill, sees the whole file or no file. The temporary name carries the process
    id, so that two processes on the same sweep never write into each other's file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.writing")
    try:
        with open(temporary, mode, newline="" if "b" not in mode else None) as stream:
            yield stream
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class Lock:
    """Locks on numbered pieces of a work that several processes share: each is held by one process, until it releases it or ends, however it ends.

    All of them are byte ranges of one empty file, which may lie on a network file system.
    """

    def __init__(self, path: Path) -> None:
        self.stream = open(path, "ab")

    def take(self, number: int) -> bool:
        """Take a piece; False when another process has it. Where a file system has no locks, every process gets it: work is done twice, alike."""
        try:
            fcntl.lockf(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        return True

    def release(self, number: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.lockf(self.stream, fcntl.LOCK_UN, 1, number)


def write_csv(path: Path, header: Iterable[str] | None, rows: Iterable[Iterable]) -> None:
    """Write `rows` to `path`, under a line of column names unless `header` is None. Floats are written as repr: nothing is lost."""
    with writing(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if header is not None:
            writer.writerow(header)
        writer.writerows(rows)


def write_json(path: Path, content: dict) -> None:
    """Write `content` to `path` as indented JSON, keys in the order given."""
    with writing(path) as stream:
        stream.write(json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict | None:
    """The JSON object in `path`, or None when the file is missing or is not a JSON object."""
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


class Unreadable(Exception):
    """A file that is missing, truncated or of another format; the message says which."""


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Every array of an npz file by name, read without executing anything; raises `Unreadable`."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise Unreadable("missing") from None
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        # an AttributeError means a lone .npy array: np.load then returns it, and an array has no names
        raise Unreadable(f"truncated, damaged, or not an npz file ({error})") from None


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to a compressed npz file whose bytes depend on nothing but the arrays (np.savez stamps the time of day)."""
    with writing(path, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(array), allow_pickle=False)
            archive.writestr(member, content.getvalue())


def sha256(*parts: bytes) -> str:
    """The SHA-256 of the parts, each preceded by its length so that no two lists of parts collide, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal, as `sha256sum` prints it."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
