"""Messages between the server and its processes: a JSON object and arrays, one after the other on a pipe."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_LENGTH = struct.Struct("<I")
"""Length of the JSON object of a message."""


def write_message(target: BinaryIO, values: dict[str, Any], arrays: Sequence[Array] = ()) -> None:
    """Write a message.

    Parameters
    ----------
    target
        Pipe.
    values
        JSON values.
    arrays
        Arrays of any shape and type.
    """
    whole = [np.ascontiguousarray(one) for one in arrays]
    described = [{"shape": one.shape, "dtype": one.dtype.str} for one in whole]
    text = json.dumps({**values, "arrays": described}).encode()
    target.write(_LENGTH.pack(len(text)) + text)
    for one in whole:
        if one.nbytes:
            target.write(one.reshape(-1).view(np.uint8).data)
    target.flush()


def read_message(source: BinaryIO) -> tuple[dict[str, Any], list[Array]]:
    """Read a message.

    Raises
    ------
    EOFError
        The pipe has ended.
    """
    head = source.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    text = source.read(length)
    if len(text) < length:
        raise EOFError
    values: dict[str, Any] = json.loads(text)
    arrays = []
    for described in values.pop("arrays"):
        one = np.empty(described["shape"], np.dtype(described["dtype"]))
        view, done = memoryview(one.reshape(-1).view(np.uint8).data), 0
        while done < one.nbytes:
            part = source.readinto(view[done:])  # type: ignore[attr-defined]
            if not part:
                raise EOFError
            done += part
        arrays.append(one)
    return values, arrays
