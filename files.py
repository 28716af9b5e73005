"""Files that are whole or not there, and reading that executes nothing."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import lzma
import math
import os
import re
import stat
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, NoReturn

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
    _half_written.add(temporary)
    try:
        # names of files keep their bytes, also where the locale cannot spell them
        form: dict[str, Any] = {} if "b" in mode else {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
        with open(temporary, mode, **form) as stream:
            yield stream
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        _half_written.discard(temporary)


_half_written: set[Path] = set()


def remove_half_written() -> None:
    """Remove what this process is just writing."""
    for temporary in list(_half_written):
        with contextlib.suppress(OSError):
            temporary.unlink()


at_end: list[Callable[[], None]] = [remove_half_written]  # what a process that a signal ends does at last


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
        """Take a piece; False when another process has it, unless `wait`: then until it is free, which is said.

        Where a file system has no locks, every process gets it: work is done twice, alike.
        """
        began, told = time.monotonic(), False
        while not self._taken(1, number):
            if not wait:
                return False
            # not by a call that waits: the system takes two processes with several threads each for a deadlock
            time.sleep(0.2)
            if not told and time.monotonic() - began > 2:
                print(
                    f"{self.stream.name}: another process is at the same work; waiting until it ends", file=sys.stderr
                )
                told = True
        return True

    def take_all(self) -> bool:
        """Take every piece at once; False when another process has any of them."""
        return self._taken(0)

    def _taken(self, length: int, number: int = 0) -> bool:
        try:
            fcntl.lockf(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB, length, number)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
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
    """The JSON object in `path` without its checksum, or None when the file is missing, no JSON object (`json_value`),
    or not what its checksum says.

    One without a checksum is taken as it is.
    """
    try:
        content = json_value(text(path, JSON_BYTES))
        if not isinstance(content, dict):
            return None
        known = content.pop("checksum", None)
        return content if known in (None, checksum(content)) else None
    except (Unreadable, ValueError, RecursionError):
        return None


def json_value(content: str) -> Any:
    """The value that a JSON text stands for; raises ValueError where it is none.

    None is also a text with what others read otherwise or not at all: NaN and Infinity, a key that is there twice,
    numbers beyond 64 bits, texts that UTF-8 cannot write, and lists nested a thousand deep.
    """
    try:
        value = _JSON.decode(content)
        if "\\" in content:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _no_number(digits: str) -> NoReturn:
    raise ValueError(f"{digits[:20]} is no number here")


def _whole_number(digits: str) -> int:
    return int(digits) if len(digits) < 20 else _no_number(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _no_number(digits)


def _distinct(pairs: list[tuple]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


_JSON = json.JSONDecoder(
    parse_constant=_no_number, parse_int=_whole_number, parse_float=_finite, object_pairs_hook=_distinct
)


def is_plain(value: Any, depth: int = 3) -> bool:
    """Whether a JSON value is a finite number of 64 bits, a text that a terminal shows in one line and no spreadsheet
    takes for a formula, or lists and objects of such: what settings may be.
    """
    if isinstance(value, str):
        return len(value) <= 1000 and value.isprintable() and not value.startswith(("=", "+", "-", "@"))
    if isinstance(value, (list, dict)):
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return depth > 0 and len(parts) <= 1000 and all(is_plain(part, depth - 1) for part in parts)
    if isinstance(value, int):
        return abs(value) < 2**63
    return value is None or isinstance(value, float) and math.isfinite(value)


def checksum(content: dict) -> str:
    """The SHA-256 of a JSON object, whatever the order of its keys."""
    return sha256(json.dumps(content, sort_keys=True).encode())


class Unreadable(Exception):
    """A file that is missing, truncated or of another format; the message says which, in plain characters."""

    def __str__(self) -> str:
        return printable(super().__str__())[:1000]


NPZ_BYTES = 2**30  # what an npz file may unpack to: twenty times all of Fashion-MNIST
DIRECTORY_BYTES = 2**20  # of an archive's list of members, of which thousands fit
TEXT_BYTES, JSON_BYTES, LINE_BYTES = 2**25, 2**20, 2**20  # thrice the largest table; of settings; of a line
MOST_LINES = 2**20  # ten times the largest table's
PIECE = 2**20


def printable(content: object) -> str:
    """A text or path with \\x.. for what a terminal would not show as it is, or not at all.

    So no name of a file, and nothing that it holds, makes lines of its own or moves the cursor.
    """
    content = str(content)
    if content.isprintable():
        return content
    plain = (one if one.isprintable() else ascii(one)[1:-1] for one in content)
    return "".join(plain)


def opened(path: Path, most: int = NPZ_BYTES) -> IO[bytes]:
    """A file opened for reading; raises `Unreadable` where it is missing, no plain file, or larger than `most`.

    Never waits, as opening a pipe would.
    """
    try:
        stream = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        status = os.fstat(stream.fileno())
    except IsADirectoryError:
        raise Unreadable("no plain file") from None
    except FileNotFoundError:
        raise Unreadable("missing") from None
    except (OSError, ValueError) as error:  # a ValueError: a name with a null
        raise Unreadable(f"it cannot be opened ({getattr(error, 'strerror', None) or error})") from None
    why = "" if stat.S_ISREG(status.st_mode) else "no plain file"
    if status.st_size > most:
        why = f"it has {status.st_size:,} bytes, more than {most:,}"
    if why:
        stream.close()
        raise Unreadable(why)
    return stream


def whole(path: Path, most: int = NPZ_BYTES) -> bytes:
    """The bytes of a file; raises `Unreadable` where it is missing, no plain file, or larger than `most`."""
    with opened(path, most) as stream:
        try:
            return stream.read(most)
        except OSError as error:
            raise Unreadable(f"it cannot be read ({error.strerror})") from None


def text(path: Path, most: int = TEXT_BYTES) -> str:
    """The text of a file in UTF-8; raises `Unreadable` as `whole` does, and where it is no such text."""
    try:
        return whole(path, most).decode()
    except UnicodeDecodeError:
        raise Unreadable("damaged: it is no text in UTF-8") from None


def csv_lines(content: str) -> Iterator[list[str]]:
    """The cells of each line of a CSV text, of the first line the names of the columns; raises `Unreadable`.

    Every line has as many cells as the first and characters that a terminal shows; a cell ends with its line.
    """
    width = None
    for line in lines_of(content):
        if len(line) > LINE_BYTES or not line.isprintable():
            raise Unreadable("damaged: it has a line of another kind than text, or of more than 1 MiB")
        try:
            cells = next(csv.reader([line], strict=True)) if '"' in line else line.split(",")
        except csv.Error as error:
            raise Unreadable(f"damaged: it is no table ({error})") from None
        width = len(cells) if width is None else width
        if len(cells) != width:
            raise Unreadable("damaged: its lines do not all have the columns of its header")
        yield cells


DEPTH = 16  # of folders below one: results lie in half as many


def below(folder: Path) -> tuple[list[Path], list[Path], list[tuple[Path, str]]]:
    """The plain files below a folder, the folders, and what is neither or cannot be looked at, with the reason.

    Links to folders are not followed.
    """
    files, folders, others, waiting = [], [], [], [(Path(folder), 0)]
    while waiting:
        place, depth = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    path = place / entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                        waiting.append((path, depth + 1)) if depth < DEPTH else others.append((path, TOO_DEEP))
                    elif entry.is_file():
                        files.append(path)
                    elif not entry.is_dir():
                        others.append((path, "no plain file"))
        except FileNotFoundError:
            continue
        except OSError as error:
            others.append((place, f"it cannot be read ({error.strerror})"))
    return sorted(files), sorted(folders), sorted(others)


TOO_DEEP = f"it lies more than {DEPTH} folders deep"


def lines_of(content: str) -> Iterator[str]:
    """The lines of a text, one after the other; raises `Unreadable` where they are more than MOST_LINES."""
    if content.count("\n") > MOST_LINES:
        raise Unreadable(f"damaged: it has more than {MOST_LINES:,} lines")
    start, end = 0, content.find("\n")
    while end >= 0:
        yield content[start:end]
        start, end = end + 1, content.find("\n", end + 1)
    if start < len(content) or not content:
        yield content[start:]


def read_npz(path: Path | IO[bytes]) -> dict[str, np.ndarray]:
    """Every array of an npz file by name, read without executing anything and in bounded memory; raises `Unreadable`.

    Arrays are of numbers, of True and False, and of texts. Refused before they are unpacked: more than NPZ_BYTES, and
    an array whose header says another size than its file.
    """
    try:
        stream = opened(path) if isinstance(path, Path) else path
        with stream, archive_of(stream) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > NPZ_BYTES:
                raise Unreadable(f"it would unpack to {total / 2**30:.1f} GiB, more than {NPZ_BYTES / 2**30:.0f} GiB")
            names = [member.filename.removesuffix(".npy") for member in members]
            if len(set(names)) < len(names):
                raise Unreadable("it has two arrays of one name")
            return {name: _read_npy(archive, member) for name, member in zip(names, members)}
    except ARCHIVE_ERRORS as error:
        raise Unreadable(f"truncated, damaged, or not an npz file ({error})") from None


# What zipfile raises for what is no archive, and for foreign compressions and encrypted members
ARCHIVE_ERRORS = (
    OSError, ValueError, EOFError, NotImplementedError, RuntimeError, MemoryError, OverflowError, struct.error,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip


def archive_of(stream: IO[bytes]) -> zipfile.ZipFile:
    """An archive, whose list of members is read once it is known to be short."""
    end = zipfile._EndRecData(stream)  # type: ignore[attr-defined]  # what ZipFile itself calls
    size = end[zipfile._ECD_SIZE] if end else -1  # type: ignore[attr-defined]
    if not 0 <= size <= DIRECTORY_BYTES:
        raise zipfile.BadZipFile("no archive, or one of too many members")
    return zipfile.ZipFile(stream)


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytearray:
    """The bytes of an archive's member, whose CRC is checked; ValueError where it is longer or shorter than it says.

    Memory is given as it fills.
    """
    content = bytearray()
    with archive.open(member) as stream:
        while piece := stream.read(PIECE):
            content += piece
    if len(content) != member.file_size:
        raise ValueError(f"{member.filename} is shorter than it says")
    return content


NPY_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?(?:b1|[iu][1248]|f[248]|[US][0-9]{1,9}))', 'fortran_order': (True|False),"
    rb" 'shape': \(((?:[0-9]{1,12}, ?)*(?:[0-9]{1,12})?)\), \} *\n"
)
CODE_POINTS = 0x110000  # of Unicode


def _read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """An array of an archive.

    NumPy's own reader evaluates the header, an expression of Python, and allocates what it says; of the one form that
    NumPy writes the parts are taken here, and compared with the size.
    """
    content, name = read_member(archive, member), member.filename
    if content[:6] != b"\x93NUMPY" or content[6:8] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise ValueError(f"{name} is no array of NumPy's")
    start = 10 if content[6] == 1 else 12
    begin = start + int.from_bytes(content[8:start], "little")
    header = NPY_HEADER.fullmatch(bytes(content[start : min(begin, start + 4096)]))
    if header is None:
        raise ValueError(f"{name} has a header that NumPy does not write, or an array of something else than numbers")
    kind = header[1].decode()
    shape = tuple(int(side) for side in header[3].split(b",") if side.strip())
    dtype, size = np.dtype(kind), len(content) - begin
    if len(shape) > 8 or math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{name} has {size} bytes, another number than its header says")
    order: Literal["F", "C"] = "F" if header[2] == b"True" else "C"
    array = np.ndarray(shape, dtype, content, begin, order=order)
    if not _sound(array):
        raise ValueError(f"{name} holds values that its type does not have")
    return array if array.flags.aligned else array.copy(order)


def _sound(array: np.ndarray) -> bool:
    """Whether the bytes of an array are values of its type: of True and False, or of texts, not all are."""
    if array.dtype.kind == "b":
        return bool((array.view(np.uint8) < 2).all())
    if array.dtype.kind == "U" and array.dtype.itemsize:
        points = np.ascontiguousarray(array).reshape(-1).view(array.dtype.byteorder.replace("|", "=") + "u4")
        return bool((points < CODE_POINTS).all()) and not bool(((points >= 0xD800) & (points < 0xE000)).any())
    return True


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
    with open(path, "rb") as stream:
        return _stream_sha256(stream)


def has_sha256(path: Path, digest: str) -> bool:
    """Whether a plain file of this SHA-256 is there."""
    try:
        with opened(path, sys.maxsize) as stream:
            return _stream_sha256(stream) == digest
    except (Unreadable, OSError):
        return False


def _stream_sha256(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while part := stream.read(PIECE):
        digest.update(part)
    return digest.hexdigest()
