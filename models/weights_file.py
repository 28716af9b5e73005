"""The arrays in a .keras file, taken out without running or trusting anything in it.

Such a file is an archive, and its weights are an HDF5 file in it. HDF5's own library follows what a file says of
itself: links to other files, types and filters that run code, sizes that fill the memory; Keras rebuilds layers that
hold functions. Here the few structures that Keras' files consist of are followed (superblock 0, groups by symbol
tables, contiguous arrays of float32), as far as the arrays that are asked for; anything else is refused.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from files import ARCHIVE_ERRORS, NPZ_BYTES, Unreadable, archive_of, opened, read_member

MEMBER = "model.weights.h5"
FLOAT32 = bytes.fromhex("11201f000400000000002000170800177f000000")  # the datatype message of little-endian float32
DATASPACE, DATATYPE, EXTERNAL, LAYOUT, FILTERS, CONTINUED, TABLE = 0x1, 0x3, 0x7, 0x8, 0xB, 0x10, 0x11
MOST_STEPS = 10_000  # that a file may take to be walked through: it may point back at itself
ROOT = 56  # where the superblock has the entry of the root group


def read(path: Path, shapes: dict[str, tuple]) -> dict[str, np.ndarray]:
    """The arrays of a .keras file by their place, e.g. layers/dense/vars/0; raises `Unreadable`.

    shapes: of all arrays that are wanted, float32 each, by place.
    """
    most = 4 * sum(4 * math.prod(shape) for shape in shapes.values()) + 2**20  # an optimiser's arrays are as large
    try:
        with opened(path, min(most, NPZ_BYTES)) as stream, archive_of(stream) as archive:
            members = [member for member in archive.infolist() if member.filename == MEMBER]
            if len(members) != 1 or members[0].file_size > most:
                raise Unreadable(f"it has no {MEMBER}, or one of another size")
            content = read_member(archive, members[0])
    except ARCHIVE_ERRORS as error:
        raise Unreadable(f"truncated, damaged, or not a .keras file ({error})") from None
    steps = iter(range(MOST_STEPS))
    try:
        return {place: _array(content, place, shape, steps) for place, shape in shapes.items()}
    except struct.error:
        raise Unreadable("damaged: its structures point outside the file") from None


def _array(content: bytearray, place: str, shape: tuple, steps: Iterator[int]) -> np.ndarray:
    """One array."""
    found = dict(_messages(content, _find(content, place, steps), steps))
    if {EXTERNAL, FILTERS} & set(found) or not {DATASPACE, DATATYPE, LAYOUT} <= set(found):
        raise Unreadable(f"{place} is no array that lies in the file as it is")
    if found[DATATYPE][: len(FLOAT32)] != FLOAT32:
        raise Unreadable(f"{place} is no array of float32")
    version, rank = struct.unpack_from("<BB", found[DATASPACE])
    sides = struct.unpack_from(f"<{rank}Q", found[DATASPACE], {1: 8, 2: 4}.get(version, len(found[DATASPACE])))
    if sides != shape:
        raise Unreadable(f"{place} is of shape {sides}, not {shape}")
    version, kind, begin, size = struct.unpack_from("<BBQQ", found[LAYOUT])
    if (version, kind) != (3, 1) or size != 4 * math.prod(shape) or begin + size > len(content):
        raise Unreadable(f"{place} does not lie in the file in one piece of its size")
    values = np.frombuffer(content, "<f4", math.prod(shape), begin).reshape(shape).copy()
    if not np.isfinite(values).all():
        raise Unreadable(f"{place} holds numbers that are NaN or infinite")
    return values


def _find(content: bytearray, place: str, steps: Iterator[int]) -> int:
    """Where the header of the object at a place is."""
    signature, version, offsets, lengths = struct.unpack_from("<8sB4xBB", content)
    if (signature, version, offsets, lengths) != (b"\x89HDF\r\n\x1a\n", 0, 8, 8):
        raise Unreadable(f"its {MEMBER} is no HDF5 file of the version that Keras writes")
    at = struct.unpack_from("<Q", content, ROOT + 8)[0]
    for name in place.split("/"):
        table = dict(_messages(content, at, steps)).get(TABLE)
        if table is None:
            raise Unreadable(f"it has no array {place}")
        tree, heap = struct.unpack_from("<QQ", table)
        names = _names(content, heap)
        at = next((header for start, header in _entries(content, tree, steps) if _is(names, start, name)), None)
        if at is None:
            raise Unreadable(f"it has no array {place}")
    return at


def _messages(content: bytearray, at: int, steps: Iterator[int]) -> Iterator[tuple[int, bytes]]:
    """The messages of an object header, by type."""
    version, count, size = struct.unpack_from("<BxHxxxxI", content, _inside(at))
    if version != 1:
        raise Unreadable("its objects are not of the version that Keras writes")
    parts = [(at + 16, size)]
    while parts and count:
        start, left = parts.pop(0)
        while left >= 8 and count:
            _step(steps)
            kind, length = struct.unpack_from("<HH", content, _inside(start))
            start, left, count = start + 8, left - 8 - length, count - 1
            message = bytes(content[start : start + length])
            if len(message) < length:
                raise Unreadable("damaged: a message ends after the file")
            if kind == CONTINUED:
                parts.append(struct.unpack_from("<QQ", message))
            yield kind, message
            start += length


def _entries(content: bytearray, tree: int, steps: Iterator[int]) -> Iterator[tuple[int, int]]:
    """Where the names of a group's objects start, and their headers are."""
    waiting = [tree]
    while waiting:
        _step(steps)
        at = _inside(waiting.pop())
        if content[at : at + 4] == b"TREE":
            kind, count = struct.unpack_from("<BxH", content, at + 4)
            if kind != 0:
                raise Unreadable("damaged: a group's tree is none")
            waiting += [struct.unpack_from("<Q", content, at + 32 + 16 * child)[0] for child in range(min(count, 1000))]
        elif content[at : at + 4] == b"SNOD":
            for entry in range(min(struct.unpack_from("<H", content, at + 6)[0], 1000)):
                start, header, cached = struct.unpack_from("<QQI", content, at + 8 + 40 * entry)
                if cached not in (0, 1):
                    raise Unreadable("it has a link to somewhere else")
                yield start, header
        else:
            raise Unreadable("damaged: a group's tree is none")


def _names(content: bytearray, heap: int) -> bytes:
    """The names of a group's objects, each ended by a null."""
    signature, size, _, at = struct.unpack_from("<4s4xQQQ", content, _inside(heap))
    if signature != b"HEAP" or size > 2**20:
        raise Unreadable("damaged: a group's names are none")
    return bytes(content[_inside(at) : at + size])


def _is(names: bytes, start: int, name: str) -> bool:
    word = name.encode() + b"\0"
    return names[_inside(start) : start + len(word)] == word


def _step(steps: Iterator[int]) -> None:
    if next(steps, None) is None:
        raise Unreadable("damaged: its structures point at each other")


def _inside(at: int) -> int:
    """A place in a file that Python can look for."""
    return at if at < 2**62 else 2**62
