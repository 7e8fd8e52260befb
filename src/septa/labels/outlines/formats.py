"""Formats of outlines, recognised by their content; each is one entry of a table."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from septa.errors import InputError, ResourceError
from septa.images import IMAGE_SUFFIXES
from septa.labels.outlines.coco import index_coco, is_coco, read_coco
from septa.labels.outlines.geojson import is_geojson, read_geojson
from septa.labels.outlines.labelme import is_labelme, read_labelme
from septa.labels.outlines.outline import ImageOutlines
from septa.labels.outlines.rois import MAGIC, load_regions, read_regions

OUTLINE_SUFFIXES = (".geojson", ".roi")
"""Suffixes, in lower case, of files that hold outlines, also if they are damaged."""
_MOST_BYTES = 1 << 29
_HEAD_BYTES = 512
_KEPT = 4
"""Files whose content is kept, so that one with outlines of many images is not decoded for each of them."""


@dataclass(frozen=True)
class OutlineFormat:
    """A format of outlines stored as JSON.

    Attributes
    ----------
    name
        Name for messages.
    matches
        Function that recognises a decoded document.
    read
        Function that reads the outlines of a prepared document; it takes the path, for errors, and the name of the
        image, which is empty if the file describes one image only.
    prepare
        Function that prepares a document, and raises InputError if it is damaged.
    list_images
        Function that returns the names of the images in a prepared document; None if the file describes one image.
    """

    name: str
    matches: Callable[[Any], bool]
    read: Callable[[Any, str, str], ImageOutlines]
    prepare: Callable[[Any, str], Any] = lambda document, where: document
    list_images: Callable[[Any], Iterable[str]] | None = None


FORMATS = (
    OutlineFormat(
        "COCO",
        is_coco,
        read_coco,
        prepare=index_coco,
        list_images=lambda content: content.images,
    ),
    OutlineFormat("labelme", is_labelme, lambda document, where, name: read_labelme(document, where)),
    OutlineFormat("GeoJSON", is_geojson, lambda document, where, name: read_geojson(document, where)),
)
"""Formats of JSON files."""
_ROIS = OutlineFormat("ImageJ", lambda regions: True, lambda regions, where, name: read_regions(regions, where))


@dataclass(frozen=True)
class OutlineFile:
    """Content of a file of outlines."""

    format: OutlineFormat
    content: Any


def is_outlines(path: Path) -> bool:
    """Return True if a path is a file of outlines, or an image inside one; also if the file is damaged."""
    file = find_file(path)
    if file is None:
        return False
    try:
        return load_file(file) is not None
    except InputError:
        return True


def expand_outlines(paths: Iterable[Path]) -> list[Path]:
    """Replace each file with outlines of several images by one path for each image, which continues inside the file.

    Examples
    --------
    ``labels/all.json`` with outlines of ``a.png`` and ``b.png`` becomes ``labels/all.json/a.png`` and
    ``labels/all.json/b.png``.
    """
    found: list[Path] = []
    for path in paths:
        try:
            loaded = load_file(path) if path.is_file() else None
        except InputError:
            loaded = None
        if loaded is None or loaded.format.list_images is None:
            found.append(path)
        else:
            found += [path / name for name in loaded.format.list_images(loaded.content)]
    return found


def find_file(path: Path) -> Path | None:
    """Return the file that a path is, or that it continues inside of; None if there is none."""
    try:
        return next((file for file in (path, *path.parents) if file.is_file()), None)
    except (OSError, ValueError):
        return None


def get_file(path: Path) -> Path:
    """Return the file that a path is, or that it continues inside of; the path itself if there is none."""
    return find_file(path) or path


def is_inside_file(path: Path) -> bool:
    """Return True if a path names an image inside a file of outlines."""
    return find_file(path) not in (None, path)


def load_file(path: Path) -> OutlineFile | None:
    """Decode a file of outlines.

    Returns
    -------
    OutlineFile or None
        None if the file holds something else.

    Raises
    ------
    InputError
        The file holds outlines, or should by its suffix, but is damaged or too large.
    """
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return None
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
        status = path.stat()
    except OSError as error:
        problem = f"the file cannot be read ({error.strerror or 'unknown error'})"
        raise InputError(path, problem, "Check the path and its permissions") from None
    is_regions = head.startswith(MAGIC) or (head.startswith(b"PK\3\4") and _holds_regions(path))
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if is_regions or text.startswith((b"{", b"[")):
        if status.st_size > _MOST_BYTES:
            problem = f"the file of outlines is larger than {_MOST_BYTES >> 20} MB"
            raise InputError(path, problem, "Save the outlines of each image in a file of its own")
        loaded = _load(path, status.st_mtime_ns, status.st_size, is_regions)
        if loaded is not None:
            return loaded
    if suffix in OUTLINE_SUFFIXES:
        raise InputError(path, "the file holds no outlines", "Export it again, or move it away")
    return None


@lru_cache(maxsize=_KEPT)
def _load(path: Path, changed: int, size: int, is_regions: bool) -> OutlineFile | None:
    """Decode a file; the time of its last change and its size are part of the cache's key."""
    if is_regions:
        return OutlineFile(_ROIS, load_regions(path))
    try:
        document = _parse(path)
    except InputError:
        if path.suffix.lower() in (".json", *OUTLINE_SUFFIXES):
            raise
        return None
    for one in FORMATS:
        if one.matches(document):
            return OutlineFile(one, one.prepare(document, str(path)))
    return None


def _holds_regions(path: Path) -> bool:
    try:
        with ZipFile(path) as archive:
            return any(name.lower().endswith(".roi") for name in archive.namelist())
    except (BadZipFile, OSError, NotImplementedError, ValueError):
        return path.suffix.lower() == ".zip"


def _parse(path: Path) -> Any:
    """Parse JSON; pictures that labelme embeds are dropped."""
    try:
        document = json.loads(path.read_bytes().decode("utf-8-sig"), parse_constant=_refuse_constant)
    except RecursionError:
        raise InputError(path, "the JSON data is nested too deeply", "Export the outlines again") from None
    except MemoryError:
        raise ResourceError(path, "there is not enough memory to decode the outlines", "Split the file") from None
    except UnicodeDecodeError:
        raise InputError(path, "the JSON data is not UTF-8 text", "Export the outlines again") from None
    except json.JSONDecodeError as error:
        problem = f"the JSON data is damaged (line {error.lineno}, column {error.colno})"
        raise InputError(path, problem, "Export the outlines again") from None
    except ValueError as error:
        reason = str(error) if str(error) in _CONSTANTS else "a number that is too long"
        raise InputError(path, f"the JSON data holds {reason}", "Export the outlines again") from None
    if isinstance(document, dict):
        document.pop("imageData", None)
    return document


_CONSTANTS = ("NaN", "Infinity", "-Infinity")


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


def read_image_outlines(path: Path) -> ImageOutlines:
    """Read the outlines of one image.

    Parameters
    ----------
    path
        File of outlines, or path of an image inside one.

    Raises
    ------
    InputError
        The file is damaged, holds no outlines or no such image, or describes several images.
    """
    file = find_file(path)
    loaded = load_file(file) if file is not None else None
    if file is None or loaded is None:
        raise InputError(path, "the file holds no outlines", "Export it again, or move it away")
    name = "" if file == path else os.path.relpath(path, file).replace(os.sep, "/")
    images = [] if loaded.format.list_images is None else list(loaded.format.list_images(loaded.content))
    if name not in (images or [""]):
        problem = "the file describes several images" if not name else "the file describes no such image"
        raise InputError(path, problem, f"Name one of them, such as {file / images[0]}" if images else "Check the name")
    return loaded.format.read(loaded.content, str(path), name)
