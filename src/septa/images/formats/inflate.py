"""Decompress the data of a file to a known length, which bounds the memory whatever the file holds."""

from __future__ import annotations

import bz2
import gzip
import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from septa.images._info import DamagedDataError

_MOST_KEPT = 1 << 30
_OPENERS: dict[str, Callable[[BinaryIO], Any]] = {"gzip": gzip.open, "bz2": bz2.open, "raw": nullcontext}


def inflate(path: Path, compression: str, start: int, skip: int, count: int) -> bytes:
    """Return decompressed bytes of a file; the last ones are kept, because the pages of a stack share them.

    Parameters
    ----------
    path
        File.
    compression
        ``gzip``, ``bz2`` or ``raw``.
    start
        Place in the file where compressed data start.
    skip, count
        Number of decompressed bytes before the wanted ones, and number of these.

    Raises
    ------
    DamagedDataError
        There are fewer bytes.
    """
    read = _read if count <= _MOST_KEPT else _read.__wrapped__
    status = path.stat()
    return read(path, status.st_mtime_ns, status.st_size, compression, start, skip, count)


@lru_cache(maxsize=1)
def _read(path: Path, changed: int, size: int, compression: str, start: int, skip: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start, os.SEEK_SET)
        with _OPENERS[compression](file) as stream:
            while skip > 0:
                passed = len(stream.read(min(skip, 1 << 20)))
                if not passed:
                    raise DamagedDataError("the file ends early")
                skip -= passed
            data: bytes = stream.read(count)
    if len(data) < count:
        raise DamagedDataError("the file ends early")
    return data
