"""Addresses of zarr images on web servers and in S3 storage, which are text, while places on disk are paths."""

from __future__ import annotations

import os
import re
from pathlib import Path

from septa.errors import InputError

Location = Path | str
"""Path of an image on disk, or the address of a zarr image as text."""

_ADDRESS = re.compile(r"(https?|s3)://", re.IGNORECASE)


class ForbiddenError(InputError):
    """A file that not everyone may read; some servers answer so for one that does not exist."""


def is_address(location: str | os.PathLike[str]) -> bool:
    """Return True for the text of an address that starts with ``https://``, ``http://`` or ``s3://``."""
    return isinstance(location, str) and _ADDRESS.match(location) is not None


def make_location(location: str | os.PathLike[str]) -> Location:
    """Return an address as it is, and a path as `Path`."""
    return location if isinstance(location, str) and is_address(location) else Path(location)


def resolve_location(location: str | os.PathLike[str]) -> str:
    """Return an address without a slash at its end, or the absolute path without symbolic links."""
    return str(location).rstrip("/") if is_address(location) else os.path.realpath(location)


def check_address(address: str) -> None:
    """Refuse an address that septa does not read.

    Raises
    ------
    InputError
        If it lacks a server or a path, or holds a password, a query or a fragment.
    """
    server, _, path = address.partition("://")[2].partition("/")
    secret = re.sub(r"//[^/]*@|[?#].*", lambda match: "//" if match[0].startswith("//") else "", address)
    if not server or not path.strip("/"):
        remedy = "Give the whole address, such as https://server/folder/image.ome.zarr or s3://bucket/image.ome.zarr"
        raise InputError(secret, "the address names no image", remedy)
    if secret != address:
        problem = "the address holds a password or a query, but septa reads only what is public"
        raise InputError(secret, problem, "Give an address without '@', '?' and '#', or download the image first")
    if re.search(r"[\x00-\x20\x7f]", address) or "/../" in f"{address}/":
        raise InputError(secret, "the address holds spaces or '..'", "Write a space as %20")
