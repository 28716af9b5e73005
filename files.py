"""Files that are whole or not there, and reading that executes nothing."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import math
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
    """Locks on numbered pieces of a work that several processes share: each is held by one process, until it releases
    it or ends, however it ends.

    All of them are byte ranges of one empty file, which may lie on a network file system. A process must have one Lock
    of a file at a time.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.stream = open(path, "ab")

    @staticmethod
    def number(name: Path | str) -> int:
        """The number of a piece that has a name."""
        return zlib.crc32(str(name).encode())

    def take(self, number: int, wait: bool = False) -> bool:
        """Take a piece; False when another process has it, unless `wait`: then until it is free.

        Where a file system has no locks, every process gets it: work is done twice, alike.
        """
        try:
            fcntl.lockf(self.stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, number)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        return True

    def take_all(self) -> bool:
        """Take every piece at once; False when another process has any of them."""
        try:
            fcntl.lockf(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        return True

    def release(self, number: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.lockf(self.stream, fcntl.LOCK_UN, 1, number)


def write_csv(path: Path, header: Iterable[str] | None, rows: Iterable[Iterable]) -> None:
    """Write `rows` to `path`, under a line of column names unless `header` is None.

    Floats are written as repr: nothing is lost.
    """
    with writing(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if header is not None:
            writer.writerow(header)
        writer.writerows(rows)


def write_json(path: Path, content: dict) -> None:
    """Write `content` to `path` as indented JSON, keys in the order given, and last a checksum of them all."""
    with writing(path) as stream:
        stream.write(json.dumps({**content, "checksum": checksum(content)}, indent=2) + "\n")


def read_json(path: Path) -> dict | None:
    """The JSON object in `path` without its checksum, or None when the file is missing, no JSON object, or not what its
    checksum says.

    One without a checksum is taken as it is.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    known = content.pop("checksum", None)
    return content if known in (None, checksum(content)) else None


def checksum(content: dict) -> str:
    """The SHA-256 of a JSON object, whatever the order of its keys."""
    return sha256(json.dumps(content, sort_keys=True).encode())


class Unreadable(Exception):
    """A file that is missing, truncated or of another format; the message says which."""


NPZ_BYTES = 2**30  # what an npz file may unpack to: twenty times all of Fashion-MNIST


def whole(path: Path, most: int = NPZ_BYTES) -> bytes:
    """The bytes of a file; raises `Unreadable` where it is missing, no plain file, or larger than `most`."""
    path = Path(path)
    if not path.is_file():
        raise Unreadable("missing, or no plain file")
    size = path.stat().st_size
    if size > most:
        raise Unreadable(f"it has {size / 2**30:.1f} GiB, more than {most / 2**30:.1f} GiB")
    return path.read_bytes()


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Every array of an npz file by name, read without executing anything and in bounded memory; raises `Unreadable`.

    Refused before they are unpacked: more than NPZ_BYTES, and an array whose header says more than its file holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(member.file_size for member in archive.infolist())
            if total > NPZ_BYTES:
                raise Unreadable(f"it would unpack to {total / 2**30:.1f} GiB, more than {NPZ_BYTES / 2**30:.0f} GiB")
            return {member.filename.removesuffix(".npy"): _read_npy(archive, member) for member in archive.infolist()}
    except FileNotFoundError:
        raise Unreadable("missing") from None
    except (
        OSError,
        ValueError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        # what zipfile raises for a foreign compression or an encrypted member is a NotImplementedError or RuntimeError
        raise Unreadable(f"truncated, damaged, or not an npz file ({error})") from None


def _read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """An array of an archive, its header checked against its size first: np.load would allocate what it says."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"{member.filename} is of version {version}")
        shape, _, dtype = readers[version](stream)
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds Python objects")
        if math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"{member.filename} is shorter than its header says")
    with archive.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        stream.read()  # to its end, where the CRC is checked
    return array


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to a compressed npz file whose bytes depend on nothing but the arrays (np.savez stamps the time of
    day).
    """
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


def text_sha256(text: str) -> str:
    """The SHA-256 of a text file with this content, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal, as `sha256sum` prints it."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while part := stream.read(2**20):
            digest.update(part)
    return digest.hexdigest()
