"""Interface of a format that an optional package reads, and the parts that the formats share."""

from __future__ import annotations

import logging
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import numpy as np

from septa.errors import InputError
from septa.images._info import Array
from septa.images.calibration import Calibration

NOTE_SCALED = "its values are multiplied and shifted as its header says (slope and intercept)"
_quiet_lock = threading.RLock()


class MissingReaderError(InputError):
    """A format whose optional package is not installed."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One image of a file.

    Attributes
    ----------
    name
        Name in the file; empty if it has none.
    height, width, channels
        Sizes of a page.
    dtype
        Type of the arrays that `Container.read` returns.
    page_axes, page_shape
        Axes that the pages count, the slowest first, and the size along each; without axes of one page.
    color
        True if the first three channels are RGB.
    inverted_top
        Value of black where white is stored as 0; else 0.
    lossy
        True if the compression has changed values.
    decoded_samples
        Number of samples that are decoded at once to read a page.
    calibration
        Sizes and names that the file states.
    notes
        Clauses about what is assumed.
    """

    name: str = ""
    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]
    page_axes: str = ""
    page_shape: tuple[int, ...] = ()
    color: bool = False
    inverted_top: int = 0
    lossy: bool = False
    decoded_samples: int = 0
    calibration: Calibration = field(default_factory=Calibration)
    notes: tuple[str, ...] = ()

    @property
    def pages(self) -> int:
        """Number of pages."""
        return math.prod(self.page_shape)

    def locate(self, page: int) -> dict[str, int]:
        """Return the index of a page along each axis of pages."""
        return dict(zip(self.page_axes, map(int, np.unravel_index(page, self.page_shape or (1,))), strict=False))


class Container(Protocol):
    """An open file of one or several images."""

    scenes: Sequence[Scene]
    """Images of the file."""

    def read(self, scene: int, page: int) -> Array:
        """Return a page of an image, ``CYX``; both exist."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def load_reader(path: Path, title: str, package: str, module: str = "") -> Any:
    """Import the package that reads a format.

    Raises
    ------
    MissingReaderError
        It is not installed.
    """
    try:
        found = import_module(module or package)
        # Python prints what a library logs unless somebody handles it.
        logging.getLogger(module or package).addHandler(logging.NullHandler())
        return found
    except ImportError:
        problem = f"reading {title} file needs the package {package}, which is not installed"
        raise MissingReaderError(path, problem, "Run pip install 'septa[formats]'") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Drop the warnings of a package.

    Python's warning filters are shared by the whole process, so only one thread does this at a time.
    """
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def keep_pages(sizes: dict[str, int]) -> tuple[str, tuple[int, ...]]:
    """Return the axes of more than one page, and their sizes.

    Examples
    --------
    >>> keep_pages({"T": 3, "Z": 1})
    ('T', (3,))
    """
    kept = {axis: size for axis, size in sizes.items() if size > 1}
    return "".join(kept), tuple(kept.values())


def parse_xml(text: str) -> ElementTree.Element:
    """Parse metadata; an empty element stands for what is not XML."""
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        return ElementTree.Element("nothing")


@contextmanager
def close_on_error(stream: Any) -> Iterator[None]:
    """Close a stream if the block raises."""
    try:
        yield
    except BaseException:
        stream.close()
        raise
