"""The user's cache of graphs: what is made of a net for other engines."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from septa import tensor_file
from septa.errors import InputError, ModelError, ResourceError
from septa.images import write_bytes

_KIND = "septa cache 1"
_SUFFIX = ".cache"
_MOST = 2**30
"""Largest size of the folder in bytes. The files that were not used for longest are removed first."""


def find(key: str) -> bytes | None:
    """Return the bytes that were kept under a key, or None if they are missing or damaged."""
    with suppress(OSError, RuntimeError, ModelError, KeyError):
        path = _path(key)
        _, tensors = tensor_file.unpack(path.read_bytes(), _KIND, path)
        with suppress(OSError):  # a cache that is read-only can still be used
            os.utime(path)
        return tensors["data"].numpy().tobytes()
    return None


def keep(key: str, data: bytes) -> None:
    """Keep bytes under a key that identifies them. If the folder cannot be written, nothing is kept."""
    tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    with suppress(OSError, RuntimeError, InputError, ResourceError):  # RuntimeError: there is no home folder
        write_bytes(_path(key), tensor_file.pack(_KIND, {}, {"data": tensor}))
        _trim(cache_folder())


def cache_folder() -> Path:
    """Return the user's cache folder, where the system has it. The folder may be removed at any time."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        given = Path(os.environ.get("XDG_CACHE_HOME") or "")
        base = given if given.is_absolute() else Path.home() / ".cache"
    return base / "septa" / "graphs"


def _path(key: str) -> Path:
    return cache_folder() / (hashlib.sha256(key.encode()).hexdigest() + _SUFFIX)


def _trim(folder: Path) -> None:
    found = []
    hour_ago = time.time() - 3600
    for path in folder.iterdir():
        with suppress(OSError):  # another process has removed it
            stat = path.stat()
            if path.suffix == _SUFFIX:
                found.append((stat, path))
            elif path.suffix == ".tmp" and _SUFFIX in path.name and stat.st_mtime < hour_ago:
                path.unlink()  # left by a process that was killed
    held = 0
    for stat, path in sorted(found, key=lambda one: -one[0].st_mtime_ns):
        held += stat.st_size
        if held > _MOST:
            path.unlink(missing_ok=True)
