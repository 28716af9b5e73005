"""Damage that knows what it damages: bytes, tokens of texts, opcodes of pickles, members of archives, MATLAB elements.

Each function takes the bytes of a whole file, another file of its kind, and a `random.Random`; it returns bytes.
"""

from __future__ import annotations

import gzip
import io
import lzma
import pickletools
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable

MOST = 2**20  # bytes of a file
NUMBERS = [0, 1, 2, 3, 7, 8, 15, 16, 127, 128, 255, 256, 1000, 32767, 65535, 65536]
NUMBERS += [2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
WORDS = [
    "", "0", "1", "-1", "1.5", "-0.0", "nan", "NaN", "inf", "-inf", "Infinity", "1e999", "1e-999", "9" * 19, "9" * 30,
    "9" * 5000, "0x10", "1_000", "\uff11", "true", "false", "True", "null", "None", '""', '"', "'", "{}", "[]", "[",
    '{"a": 1}', "=cmd()", "@x", "\x1b[31m", "\n", "\r", "\t", "\0", ",", ";", "\u2028", "\u202e", "\xe9", "\\ud800",
    "\\u0000", "..", "../../../etc/passwd", "/etc/passwd", "<script>", "%s", "{0}", "a" * 300, "a" * 200_000,
    "[" * 3000, '{"a":' * 3000, "undefended", "0.1:1", "phuber:2+clip:1", "clip:1@5,phuber:2", "unknown:3",
    "fashion_mnist", "purchases-cj", "none", "scratch", "retrain", "stack", "multipoison", "adam", "215",
]  # fmt: skip
TOKEN = re.compile(r"[^\s,:{}\[\]\"]+|[\s,:{}\[\]\"]")


def of_bytes(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """One to four damages to bytes, most of them near the beginning, where headers are."""
    content = bytearray(content)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        end = min(len(content), 256) if dice.random() < 0.4 else len(content)
        place = dice.randrange(end) if end else 0
        kind = dice.randrange(9)
        if kind <= 1 and content:
            content[place] ^= 1 << dice.randrange(8)
        elif kind == 2 and content:
            content[place] = dice.randrange(256)
        elif kind == 3:
            size = dice.choice((1, 2, 4, 8))
            value = dice.choice(NUMBERS) % 2 ** (8 * size)
            content[place : place + size] = value.to_bytes(size, dice.choice(("little", "big")))
        elif kind == 4:
            del content[place:]
        elif kind == 5:
            del content[place : place + dice.choice((1, 2, 8, 64, 1024))]
        elif kind == 6:
            content[place:place] = dice.randbytes(dice.choice((1, 2, 8, 64)))
        elif kind == 7:
            piece = content[place : place + dice.choice((4, 16, 256, 4096))]
            content[place:place] = piece * dice.choice((1, 2, 50))
        else:
            start = dice.randrange(len(other)) if other else 0
            size = dice.choice((4, 64, 1024, MOST))
            content[place : place + (size if dice.random() < 0.5 else len(content))] = other[start : start + size]
    return bytes(content[:MOST])


def of_text(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """Tokens replaced, put in, taken out or swapped; lines repeated, swapped or taken from another file."""
    if dice.random() < 0.1:
        return of_bytes(content, other, dice)
    text = content.decode("utf-8", "surrogateescape")
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        if dice.random() < 0.3:
            text = _with_lines_moved(text, other.decode("utf-8", "surrogateescape"), dice)
            continue
        tokens = TOKEN.findall(text) or [""]
        place, kind = dice.randrange(len(tokens)), dice.randrange(6)
        if kind <= 2:
            tokens[place] = dice.choice(WORDS)
        elif kind == 3:
            tokens[place] = dice.choice(tokens)
        elif kind == 4:
            tokens.insert(place, dice.choice(WORDS))
        else:
            del tokens[place]
        text = "".join(tokens)
    return text.encode("utf-8", "surrogateescape")[:MOST]


def _with_lines_moved(text: str, other: str, dice: random.Random) -> str:
    lines, others = text.split("\n"), other.split("\n")
    place, kind = dice.randrange(len(lines)), dice.randrange(6)
    if kind == 0:
        lines[place:place] = [lines[place]] * dice.choice((1, 2, 100))
    elif kind == 1:
        lines[place] = dice.choice(others)
    elif kind == 2:
        del lines[place]
    elif kind == 3:
        lines[0], lines[place] = lines[place], lines[0]
    elif kind == 4:
        number = dice.random()
        lines = [_with_column_twice(line, number) for line in lines]
    else:
        lines[place] += dice.choice((",", ",1", " ", "\r", '"', "," * 1000))
    return "\n".join(lines)


def _with_column_twice(line: str, number: float) -> str:
    cells = line.split(",")
    cells.insert(0, cells[int(number * len(cells))])
    return ",".join(cells)


def of_zip(content: bytes, other: bytes, dice: random.Random, of_member: Callable) -> bytes:
    """A member damaged before it is packed with its right CRC, or members renamed, repeated, left out; or the packed
    bytes. of_member: damages a member, by its name.
    """
    try:
        members, others = unpacked(content), unpacked(other)
    except BROKEN:
        return of_bytes(content, other, dice)
    kind = dice.random()
    if kind < 0.15 or not members:
        return of_bytes(content, other, dice)
    place = dice.randrange(len(members))
    name, inside = members[place]
    if kind < 0.85:
        members[place] = (name, of_member(name, inside, dict(others).get(name, inside), dice))
    elif kind < 0.9:
        members[place] = (
            dice.choice((name + "x", "../" + name, "/" + name, name * 2, "\x1b[31m.npy", "a" * 300)),
            inside,
        )
    elif kind < 0.94:
        members.append((dice.choice([found for found, _ in members]), inside))
    elif kind < 0.97 or not others:
        del members[place]
    else:
        members.append(dice.choice(others))
    packed_again = packed(members, dice.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)))
    return of_bytes(packed_again, other, dice) if dice.random() < 0.1 else packed_again[:MOST]


# What unpacking a damaged archive raises
BROKEN = (
    zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, RuntimeError, MemoryError, OverflowError,
    struct.error, zlib.error, lzma.LZMAError,
)  # fmt: skip


def unpacked(content: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > 4 * MOST:
            raise ValueError("large")
        return [(member.filename, archive.read(member)) for member in archive.infolist()]


def packed(members: list[tuple[str, bytes]], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", how, compresslevel=1) as archive:
        warnings.simplefilter("ignore")  # two members of one name
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name.replace("\0", "_")[:60_000]), content, compress_type=how)
    return stream.getvalue()


def of_npy(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """An array's header, a text, or its bytes; with the header's length set right or left as it is."""
    if dice.random() < 0.5 or content[:6] != b"\x93NUMPY":
        return of_bytes(content, other, dice)
    length = int.from_bytes(content[8:10], "little")
    header, rest = content[10 : 10 + length], content[10 + length :]
    if dice.random() < 0.5:
        header = re.sub(rb"\d+", lambda found: dice.choice((found[0], b"%d" % dice.choice(NUMBERS))), header)
    else:
        words = (b"'|O'", b"'<f4'", b"'<f8'", b"'|b1'", b"'<U7'", b"'<i8'", b"'>u2'", b"'|S3'", b"'<c16'", b"'<M8[s]'",
                 b"'<u8'", b"'|i1'", b"'<f2'", b"'>i4'",
                 b"[('a', '<f4')]", b"'|V8'", b"'<U0'", b"'<f16'")  # fmt: skip
        header = dice.choice((of_text(header, header, dice), re.sub(rb"'[<>|=].*?'", dice.choice(words), header)))
    header = header[:60_000]
    length = len(header) if dice.random() < 0.8 else length
    return content[:8] + length.to_bytes(2, "little") + header + rest


def of_npz(content: bytes, other: bytes, dice: random.Random) -> bytes:
    return of_zip(content, other, dice, lambda name, inside, more, dice: of_npy(inside, more, dice))


def of_pickle(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """Opcodes taken out, repeated, swapped, put in or taken from another pickle; or the bytes."""
    if dice.random() < 0.4:
        return of_bytes(content, other, dice)
    parts, others = opcodes(content), opcodes(other) or [b"."]
    if not parts:
        return of_bytes(content, other, dice)
    for _ in range(dice.choice((1, 1, 2, 4))):
        place, kind = dice.randrange(len(parts)), dice.randrange(7)
        if kind == 0:
            del parts[place]
            parts = parts or [b"."]
        elif kind == 1:
            parts[place:place] = [parts[place]] * dice.choice((1, 2, 1000))
        elif kind == 2:
            along = dice.randrange(len(parts))
            parts[place], parts[along] = parts[along], parts[place]
        elif kind == 3:
            parts.insert(place, dice.choice(others))
        elif kind == 4:
            start = dice.randrange(len(others))
            parts[place:place] = others[start : start + dice.choice((2, 5, 30))]
        elif kind == 5:
            parts[place] = parts[place][:1] + of_bytes(parts[place][1:], other, dice)
        else:
            parts.insert(place, dice.choice(PICKLED))
    return b"".join(parts)[:MOST]


PICKLED = [
    b"]", b"}", b")", b"(", b"t", b"l", b"d", b"a", b"e", b"s", b"u", b"0", b"1", b"2", b"R", b"b", b"\x81", b"\x92",
    b"N", b"\x88", b"\x85", b"\x86", b"h\x00", b"q\x00", b"\x94", b"K\x01", b"J\xff\xff\xff\xff", b"I01\n", b"\x97",
    b"L" + b"9" * 5000 + b"L\n", b"F1e999\n", b"G\x7f\xf8\0\0\0\0\0\0", b"c__builtin__\neval\n", b"cos\nsystem\n",
    b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\nscalar\n", b"c_codecs\nencode\n", b"Pid\n",
    b"\x8e" + b"\xff" * 8, b"X\xff\xff\xff\xff", b"S'O8'\n", b"\x8c\x02|O", b"iposix\nsystem\n", b"Q",
    b"ccollections\nOrderedDict\n",
]  # fmt: skip


def opcodes(content: bytes) -> list[bytes]:
    """The opcodes of a pickle with their arguments, as far as it can be split."""
    places = []
    try:
        for _, _, place in pickletools.genops(content):
            places.append(place)
    except Exception:  # a damaged one: pickletools raises what its parts do
        pass
    return [content[start:end] for start, end in zip(places, [*places[1:], len(content)])]


def of_mat(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """The elements of a MATLAB file, those that are packed damaged before they are packed again; or the bytes."""
    if dice.random() < 0.3 or len(content) < 136:
        return of_bytes(content, other, dice)
    header, elements = content[:128], elements_of(content)
    place = dice.randrange(len(elements)) if elements else 0
    if not elements:
        return of_bytes(content, other, dice)
    kind, inside = elements[place]
    if kind == 15:
        try:
            unpacker = zlib.decompressobj()
            inside = zlib.compress(of_elements(unpacker.decompress(inside, MOST), other, dice), 1)
        except zlib.error:
            inside = of_bytes(inside, other, dice)
    else:
        inside = of_elements(inside, other, dice)
    elements[place] = (kind, inside)
    if dice.random() < 0.1:
        elements.append(dice.choice(elements))
    return (header + b"".join(struct.pack("<II", kind, len(inside)) + inside for kind, inside in elements))[:MOST]


def elements_of(content: bytes) -> list[tuple[int, bytes]]:
    found, place = [], 128
    while place + 8 <= len(content) and len(found) < 50:
        kind, size = struct.unpack_from("<II", content, place)
        found.append((kind, content[place + 8 : place + 8 + size]))
        place += 8 + size
    return found


def of_elements(inside: bytes, other: bytes, dice: random.Random) -> bytes:
    """The tags of the elements within one, which are at multiples of 8, or any bytes."""
    if dice.random() < 0.5 or len(inside) < 16:
        return of_bytes(inside, other, dice)
    inside = bytearray(inside)
    for _ in range(dice.choice((1, 1, 2, 3))):
        place = 8 * dice.randrange(min(len(inside), 512) // 8) + dice.choice((0, 0, 2, 4))
        size = dice.choice((1, 2, 4))
        value = dice.choice([*range(20), *NUMBERS]) % 2 ** (8 * size)
        inside[place : place + size] = value.to_bytes(size, "little")
    return bytes(inside)


def of_keras(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """A .keras file: mostly its weights, at the structures of HDF5."""

    def of_member(name: str, inside: bytes, more: bytes, dice: random.Random) -> bytes:
        if not name.endswith(".h5"):
            return of_text(inside, more, dice)
        return of_hdf5(inside, more, dice) if dice.random() < 0.7 else of_bytes(inside, more, dice)

    return of_zip(content, other, dice, of_member)


def of_hdf5(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """Addresses, sizes and kinds in the superblock, trees, names and headers of objects."""
    content = bytearray(content)
    starts = [
        found.start() for found in re.finditer(rb"TREE|SNOD|HEAP|\x01\x00[\x01-\x10]\x00\x01\x00\x00\x00", content)
    ]
    for _ in range(dice.choice((1, 1, 2, 3))):
        start = dice.choice([0, *starts])
        place = min(start + dice.randrange(96), max(len(content) - 8, 0))
        size = dice.choice((1, 2, 4, 8))
        value = dice.choice([*NUMBERS, *starts, len(content), dice.randrange(256)]) % 2 ** (8 * size)
        content[place : place + size] = value.to_bytes(size, "little")
    return bytes(content)


def of_gzip(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """What is packed, or the packed bytes."""
    try:
        inside = zlib.decompressobj(31).decompress(content, MOST)
    except zlib.error:
        return of_bytes(content, other, dice)
    if dice.random() < 0.3:
        return of_bytes(content, other, dice)
    return gzip.compress(of_bytes(inside, inside, dice), 1)
