"""Pickles of NumPy arrays and plain containers, taken apart without running or trusting anything in them.

`pickle.Unpickler` calls what a file names, and NumPy's own functions that rebuild arrays trust their arguments: a
forged state reads or writes any memory. So the opcodes are followed here one by one (pickletools splits them), on
values that can do nothing: numbers, texts, bytes, lists, tuples, dicts, and stand-ins for the few functions of NumPy
that arrays are pickled by. An array is made of its bytes by `np.frombuffer`, once shape, type and length agree.
"""

from __future__ import annotations

import math
import pickletools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_OPCODES = 1_000_000  # the paper's files have thousands
MOST_VALUES = 1_000_000  # that are looked at for one array
KEYS = (str, bytes, int, float, bool, type(None))  # of dicts: whose hash takes no recursion
NUMERIC = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248])")

VALUES = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (),
}  # fmt: skip
LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE",
    "BINUNICODE", "BINUNICODE8",
}  # fmt: skip
TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}  # of Python 2, where they are bytes as well
# What arrays are pickled by, under the names of NumPy 1 and 2
MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
GLOBALS = {
    **{(module, "_reconstruct"): "reconstruct" for module in MULTIARRAY},
    **{(module, "scalar"): "scalar" for module in MULTIARRAY},
    **{(module, "_frombuffer"): "frombuffer" for module in ("numpy.core.numeric", "numpy._core.numeric")},
    ("numpy", "ndarray"): "ndarray", ("numpy", "dtype"): "dtype", ("collections", "OrderedDict"): "dict",
    ("_codecs", "encode"): "encode", ("PIL.Image", "Image"): "image",
}  # fmt: skip


class Foreign(ValueError):
    """A pickle that is damaged, or holds something else than arrays and plain containers; the message says what."""


@dataclass(frozen=True)
class Name:
    """A function or class that the pickle names."""

    name: str


@dataclass
class Dtype:
    """A type of numbers; its byte order comes by a state of its own."""

    text: str

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(self.text)


@dataclass
class Array:
    """An array, which has no values until its state came. is_image: its state will be that of a picture of Pillow."""

    values: np.ndarray | None = None
    is_image: bool = False


MARK = object()


def load(content: bytes) -> Any:
    """What a pickle holds: plain containers, with an `Array` for each array; raises `Foreign`.

    A list may hold itself. A value takes no more memory than its bytes in the file.
    """
    stack: list = []
    memo: dict[int, Any] = {}
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count > MOST_OPCODES:
                raise Foreign(f"it has more than {MOST_OPCODES} opcodes")
            if opcode.name == "STOP":
                return stack.pop()
            follow(opcode.name, argument, stack, memo)
    except Foreign:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, UnicodeError) as error:
        raise Foreign(f"damaged ({type(error).__name__}: {error})") from None
    raise Foreign("damaged (no end)")


def follow(name: str, argument: Any, stack: list, memo: dict) -> None:
    """Do what one opcode says."""
    if name in ("PROTO", "FRAME"):
        return
    if name in VALUES:
        stack.append(VALUES[name])
    elif name in LITERALS:
        if isinstance(argument, bytearray):
            argument = bytes(argument)
        stack.append(argument)
    elif name == "MARK":
        stack.append(MARK)
    elif name == "POP":
        stack.pop()
    elif name == "POP_MARK":
        above_mark(stack)
    elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
        memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name in CONTAINERS:
        CONTAINERS[name](stack)
    elif name == "GLOBAL":
        stack.append(named(*argument.split(" ")))
    elif name == "STACK_GLOBAL":
        last = stack.pop()
        stack.append(named(stack.pop(), last))
    elif name == "REDUCE":
        arguments = stack.pop()
        stack.append(call(stack.pop(), arguments))
    elif name == "NEWOBJ":
        arguments = stack.pop()
        if (stack.pop(), arguments) != (Name("image"), ()):
            raise Foreign("it makes an object that is no picture of Pillow's")
        stack.append(Array(is_image=True))
    elif name == "BUILD":
        state = stack.pop()
        build(stack[-1], state)
    else:
        raise Foreign(f"it has the opcode {name}, which arrays and plain containers do without")


def above_mark(stack: list) -> list:
    """Take what lies above the last mark, and the mark, from the stack."""
    place = len(stack) - 1
    while stack[place] is not MARK:
        place -= 1
        if place < 0:
            raise Foreign("damaged (no mark)")
    values = stack[place + 1 :]
    del stack[place:]
    return values


def append(stack: list, values: list) -> None:
    if not isinstance(stack[-1], list):
        raise Foreign("damaged (it appends to something else than a list)")
    stack[-1].extend(values)


def set_items(stack: list, values: list) -> None:
    if not isinstance(stack[-1], dict) or len(values) % 2:
        raise Foreign("damaged (it sets items of something else than a dict)")
    stack[-1].update(pairs(zip(values[::2], values[1::2])))


def pairs(items) -> dict:
    """A dict of plain keys: the hash of a deep tuple would exhaust the C stack."""
    found = {}
    for key, value in items:
        if type(key) not in KEYS:
            raise Foreign(f"it has a dict with a {type(key).__name__} for a key")
        found[key] = value
    return found


def two(values: list) -> dict:
    if len(values) % 2:
        raise Foreign("damaged (a dict of an odd number of items)")
    return pairs(zip(values[::2], values[1::2]))


def last(stack: list, count: int) -> list:
    """Take the last values from the stack."""
    values = [stack.pop() for _ in range(count)][::-1]
    if any(value is MARK for value in values):
        raise Foreign("damaged (a mark among values)")
    return values


CONTAINERS = {
    "EMPTY_LIST": lambda stack: stack.append([]),
    "EMPTY_DICT": lambda stack: stack.append({}),
    "LIST": lambda stack: stack.append(above_mark(stack)),
    "DICT": lambda stack: stack.append(two(above_mark(stack))),
    "TUPLE": lambda stack: stack.append(tuple(above_mark(stack))),
    "TUPLE1": lambda stack: stack.append(tuple(last(stack, 1))),
    "TUPLE2": lambda stack: stack.append(tuple(last(stack, 2))),
    "TUPLE3": lambda stack: stack.append(tuple(last(stack, 3))),
    "APPEND": lambda stack: append(stack, last(stack, 1)),
    "APPENDS": lambda stack: append(stack, above_mark(stack)),
    "SETITEM": lambda stack: set_items(stack, last(stack, 2)),
    "SETITEMS": lambda stack: set_items(stack, above_mark(stack)),
}


def named(module: Any, name: Any) -> Name:
    if not isinstance(module, str) or not isinstance(name, str) or (module, name) not in GLOBALS:
        raise Foreign(f"it asks for {str(module)[:80]}.{str(name)[:80]}, no NumPy array and no plain container")
    return Name(GLOBALS[module, name])


def call(function: Any, arguments: Any) -> Any:
    """What a named function gives for these arguments, as NumPy and Python call it in a pickle."""
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise Foreign("it calls something that is no function of NumPy's")
    name = function.name
    if name == "reconstruct" and arguments[:2] == (Name("ndarray"), (0,)):
        return Array()
    if name == "dtype" and isinstance(arguments[0], (str, bytes)):
        return Dtype(numeric(text_of(arguments[0])))
    if name == "scalar" and len(arguments) == 2:
        return Array(array(arguments[1], arguments[0], (), False))
    if name == "frombuffer" and len(arguments) == 4 and arguments[3] in ("C", "F"):
        return Array(array(*arguments[:3], arguments[3] == "F"))
    if name == "dict" and len(arguments) <= 1:
        items = arguments[0] if arguments else []
        if isinstance(items, list) and all(isinstance(item, (list, tuple)) and len(item) == 2 for item in items):
            return pairs(items)
    # protocol 2 writes the bytes of an array as text that is to be encoded
    if name == "encode" and len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1":
        return arguments[0].encode("latin1")
    raise Foreign(f"it calls numpy's {name} with foreign arguments")


def build(value: Any, state: Any) -> None:
    """Give an array its values, or a type its byte order, by the state that NumPy pickles them with."""
    if isinstance(value, Array) and value.is_image:
        value.values = image(state)
    elif isinstance(value, Array) and value.values is None and isinstance(state, tuple) and len(state) == 5:
        _, shape, dtype, fortran, content = state
        value.values = array(content, dtype, shape, bool(fortran))
    elif isinstance(value, Dtype) and isinstance(state, tuple) and isinstance(state[1], (str, bytes)):
        if any(part is not None for part in state[2:5]):  # fields and subtypes
            raise Foreign("it has an array of something else than numbers")
        order = text_of(state[1])
        value.text = numeric(f"{order}{value.text.lstrip('<>=|')}")
    else:
        raise Foreign("it gives a state to something else than an array")


def image(state: Any) -> np.ndarray:
    """The pixels of a grey or RGB picture, uint8 [height, width(, 3)], of the state that Pillow pickles it with."""
    if not isinstance(state, (list, tuple)) or len(state) != 5 or state[1] not in ("L", "RGB"):
        raise Foreign("it has a picture that is neither grey nor RGB")
    _, mode, size, _, content = state
    if not isinstance(size, tuple) or len(size) != 2:
        raise Foreign("it has a picture without a size")
    return array(content, Dtype("u1"), (size[1], size[0], *([3] if mode == "RGB" else [])), False)


def array(content: Any, dtype: Any, shape: Any, fortran: bool) -> np.ndarray:
    """An array of these bytes, once they are as many as shape and type say."""
    if not isinstance(dtype, Dtype) or not isinstance(shape, tuple) or not isinstance(content, (bytes, str)):
        raise Foreign("it has an array of something else than numbers")
    if len(shape) > 8 or not all(type(side) is int and 0 <= side < 2**40 for side in shape):
        raise Foreign("it has an array of a shape that is none")
    content = content.encode("latin1") if isinstance(content, str) else content
    if math.prod(shape) * dtype.numpy.itemsize != len(content):
        raise Foreign(f"it has an array of shape {shape} and {len(content)} bytes")
    return np.frombuffer(content, dtype.numpy).reshape(shape, order="F" if fortran else "C")


def numeric(text: str) -> str:
    if not NUMERIC.fullmatch(text):
        raise Foreign(f"it has an array of {text[:40]!r}, not of numbers")
    return text


def text_of(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin1")


def numbers(value: Any, most: int) -> np.ndarray:
    """An array of what `load` gave: an `Array`, a number, or lists of such of one shape, one within the other.

    most: how many numbers it may have; raises `Foreign`, also for anything else, for more than MOST_VALUES of these,
    and for more than four lists deep.
    """
    return _numbers(value, [most, MOST_VALUES], 0)


def _numbers(value: Any, left: list[int], depth: int) -> np.ndarray:
    left[1] -= 1  # a list may hold itself many times
    if isinstance(value, (bool, int, float)):
        if isinstance(value, int) and abs(value) >= 2**63:
            raise Foreign("it has a number of more than 64 bits")
        left[0] -= 1
        found = np.asarray(value)
    elif isinstance(value, Array) and value.values is not None:
        left[0] -= value.values.size
        found = value.values
    elif isinstance(value, (list, tuple)) and depth < 4:
        parts = [_numbers(part, left, depth + 1) for part in value]
        if len({part.shape for part in parts}) > 1:
            raise Foreign("it has lists of unequal lengths for an array")
        found = np.stack(parts) if parts else np.zeros(0)
    else:
        raise Foreign(f"it has {type(value).__name__} where numbers are due")
    if min(left) < 0:
        raise Foreign("it has more numbers than are read")
    return found
