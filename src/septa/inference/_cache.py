"""What is made of a net for other engines, kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import suppress
from pathlib import Path

import torch

from septa import sealed
from septa.errors import InputError, ModelError, ResourceError
from septa.images.write import write_bytes

_KIND = "septa cache 1"
_SUFFIX = ".cache"
_MOST = 2**30
"""Bytes that the folder may hold; what was not used for longest goes first."""


def find(key: str) -> bytes | None:
    """What was kept under a key; None if it is not there, or damaged."""
    path = _path(key)
    with suppress(OSError, ModelError, KeyError):
        _, tensors = sealed.unpack(path.read_bytes(), _KIND, path)
        path.touch()
        return tensors["data"].numpy().tobytes()
    return None


def keep(key: str, data: bytes) -> None:
    """Keep bytes under a key that tells them from all others; a folder that cannot be written is done without."""
    tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    with suppress(OSError, InputError, ResourceError):
        write_bytes(_path(key), sealed.pack(_KIND, {}, {"data": tensor}))
        _trim(cache_folder())


def cache_folder() -> Path:
    """The user's cache folder, as the system has it. It may be removed at any time."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        given = Path(os.environ.get("XDG_CACHE_HOME") or "")
        base = given if given.is_absolute() else home / ".cache"
    return base / "septa" / "graphs"


def _path(key: str) -> Path:
    return cache_folder() / (hashlib.sha256(key.encode()).hexdigest() + _SUFFIX)


def _trim(folder: Path) -> None:
    found = [(path.stat(), path) for path in folder.glob(f"*{_SUFFIX}")]
    held = 0
    for stat, path in sorted(found, key=lambda one: -one[0].st_mtime_ns):
        held += stat.st_size
        if held > _MOST:
            path.unlink(missing_ok=True)
