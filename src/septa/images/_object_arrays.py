"""Masks in the ``_seg.npy`` files of cellpose, which store a dictionary of Python objects.

The file is a program for Python's unpickler, which would run whatever the file says. It is not run here. Its
instructions are walked through one by one, and only those that build plain values have an effect. Whatever a file asks
to import or to call becomes an inert `_Inert` value, and bytes are turned into an array only by their declared type.
"""

from __future__ import annotations

import math
import pickletools
import re
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from septa.images._info import Array

_MOST_STEPS = 5_000_000
_NUMBERS = re.compile(r"b1|[iu][1248]")
_RECONSTRUCT = re.compile(r"numpy\.(_core|core)\.multiarray _reconstruct")
_MARK = object()


@dataclass
class _Inert:
    """Something a file asks to import, call or build, which is never done.

    Attributes
    ----------
    name
        Module and name of what is imported, or of what is called.
    arguments
        Arguments of the call.
    state
        State that is given to the result.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None


@dataclass
class _Machine:
    stack: list[Any] = field(default_factory=list)
    memory: dict[int, Any] = field(default_factory=dict)

    def pop_to_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise IndexError
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def step(self, name: str, argument: Any) -> bool:
        """Follow one instruction; return False if it is not a known one."""
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memory[len(self.memory) if argument is None else int(argument)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memory[int(argument)])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("TUPLE", "LIST"):
            stack.append((tuple if name == "TUPLE" else list)(self.pop_to_mark()))
        elif name in ("DICT", "SETITEMS", "SETITEM"):
            self._set_items(name)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else self.pop_to_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif name in ("POP", "POP_MARK"):
            stack.pop() if name == "POP" else self.pop_to_mark()
        else:
            return self._build(name, argument)
        return True

    def _set_items(self, name: str) -> None:
        items = [self.stack.pop(), self.stack.pop()][::-1] if name == "SETITEM" else self.pop_to_mark()
        if name == "DICT":
            self.stack.append({})
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update({key: value for key, value in zip(items[::2], items[1::2]) if isinstance(key, str)})

    def _build(self, name: str, argument: Any) -> bool:
        stack = self.stack
        if name == "GLOBAL":
            stack.append(_Inert(str(argument)))
        elif name == "STACK_GLOBAL":
            member, module = stack.pop(), stack.pop()
            stack.append(_Inert(f"{module} {member}" if isinstance(module, str) else ""))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            stack.append(_call(function, arguments))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], _Inert):
                stack[-1].state = state
        else:
            return name in ("PROTO", "FRAME", "STOP")
        return True


def _call(function: object, arguments: object) -> object:
    """Return what stands for a call; the text that older protocols use for bytes becomes bytes."""
    name = function.name if isinstance(function, _Inert) else ""
    given = arguments if isinstance(arguments, tuple) else ()
    if name == "_codecs encode" and given and isinstance(given[0], str):
        return given[0].encode("latin1", "replace")
    return _Inert(name, given)


_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": list}


def find_masks(stream: BinaryIO) -> Array | None:
    """Find the array ``masks`` in the dictionary of a file, whose stream is after the header of the array.

    Returns
    -------
    ndarray or None
        Integers; None if there is none that can be read without running the file.
    """
    machine = _Machine()
    try:
        for steps, (code, argument, _) in enumerate(pickletools.genops(stream)):
            if steps > _MOST_STEPS or not machine.step(code.name, argument):
                return None
        found = machine.stack[-1]
        outer = found.state[4] if isinstance(found, _Inert) and isinstance(found.state, tuple) else [found]
        return _make_array(outer[0]["masks"])
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def _make_array(value: Any) -> Array | None:
    if not isinstance(value, _Inert) or not _RECONSTRUCT.fullmatch(value.name):
        return None
    _, shape, kind, fortran, data = value.state
    name = kind.arguments[0] if isinstance(kind, _Inert) and kind.name == "numpy dtype" else ""
    if not isinstance(name, str) or not _NUMBERS.fullmatch(name) or not isinstance(data, bytes):
        return None
    order = kind.state[1] if isinstance(kind.state, tuple) and kind.state[1] in ("<", ">", "|") else "<"
    dtype = np.dtype(f"{order}{name}")
    if not all(type(size) is int and size >= 0 for size in shape):
        return None
    if math.prod(shape) * dtype.itemsize != len(data):
        return None
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
