"""Image files and their pages on the way through the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import ResourceError, SeptaError
from septa.images import ImageInfo
from septa.model import Model
from septa.objects import ObjectTable, link_labels
from septa.prediction.find import InputImage
from septa.prediction.options import FailedFile

_COUNTED = {"T": "frame", "Z": "plane"}
"""Names of the numbers along the axes of a stack."""


class FileState(Enum):
    """State of an image file in the pipeline."""

    OPEN = auto()
    WRITTEN = auto()
    FAILED = auto()


@dataclass
class PageFile:
    """An image in the pipeline, and what will be written when its last page is done.

    Attributes
    ----------
    image
        The image.
    state
        State of its work.
    labels, classes
        Label values, and values of the classes of objects, of the pages that are done, axes ``YX``.
    difference
        Largest difference of logits between tiles and whole image, if ``certify`` was set.
    waiting
        Pages whose objects are found, but not yet linked.
    linked
        Number of objects that were linked over the pages.
    """

    image: InputImage
    state: FileState = FileState.OPEN
    labels: list[NDArray[Any]] = field(default_factory=list)
    classes: list[NDArray[Any]] = field(default_factory=list)
    difference: float | None = None
    waiting: list[DecodedPage] = field(default_factory=list)
    linked: int | None = None

    @property
    def path(self) -> Path:
        """File of the image."""
        return self.image.file


@dataclass(frozen=True, kw_only=True)
class ReadPage:
    """A page that was read.

    Attributes
    ----------
    file, info
        Its file, and the description of the file.
    number
        Number of the page, from 0.
    name
        Stem of the files that are written for this page alone.
    image_cyx
        Image with the model's channels.
    factor
        Factor for its values, as in `septa.model.PredictionOptions`.
    """

    file: PageFile
    info: ImageInfo
    number: int
    name: str
    image_cyx: NDArray[Any]
    factor: float = 1.0

    @property
    def position(self) -> dict[str, int]:
        """Number of the frame along T and of the plane along Z, or of the page along other axes, each from 0."""
        info = self.info
        if info.pages == 1:
            return {}
        if not set(info.page_axes) <= set(_COUNTED):
            return {"page": self.number}
        index = np.unravel_index(self.number, info.page_shape)
        return {_COUNTED[axis]: int(place) for axis, place in sorted(zip(info.page_axes, index, strict=True))}


@dataclass(frozen=True)
class ComputedPage:
    """A page that the net has computed.

    Attributes
    ----------
    page
        The page.
    model, tile
        Model at the size of the page, and its largest tile; see `septa.model.Model.fit_size`.
    logits_kyx, labels_yx
        Logits ``(K, Y, X)``, or labels ``(Y, X)`` if the logits are not needed.
    """

    page: ReadPage
    model: Model
    tile: int | None
    logits_kyx: NDArray[np.float32] | None = None
    labels_yx: NDArray[np.int32] | None = None

    @property
    def file(self) -> PageFile:
        """File of the page."""
        return self.page.file


@dataclass(frozen=True, kw_only=True)
class DecodedPage:
    """A page whose objects or classes are found.

    Attributes
    ----------
    number, name, position
        See `ReadPage`.
    labels_yx
        Labels, int32 ``YX``, or bit fields if classes overlap.
    table
        Measurements of the objects, if they are wanted.
    image_cyx
        Image with the model's channels; None if it must be read again.
    """

    number: int
    name: str
    position: dict[str, int]
    labels_yx: NDArray[np.int32]
    table: ObjectTable | None
    image_cyx: NDArray[Any] | None


def link_pages(pages: list[DecodedPage], info: ImageInfo) -> list[DecodedPage]:
    """Give objects that overlap on successive pages the same id; see `septa.objects.link_labels`."""
    labels = np.stack([page.labels_yx for page in pages])
    shape = labels.shape
    if info.page_axes in ("TZ", "ZT"):
        labels = labels.reshape(*info.page_shape, *shape[1:])
    swap = info.page_axes == "ZT"
    linked = link_labels(labels.swapaxes(0, 1) if swap else labels)
    linked = (linked.swapaxes(0, 1) if swap else linked).reshape(shape)
    done = []
    for page, linked_yx in zip(pages, linked, strict=True):
        table = page.table
        if table is not None:
            ids = np.zeros(int(page.labels_yx.max(initial=0)) + 1, np.int64)
            ids[page.labels_yx] = linked_yx
            table = ObjectTable({**table.columns, "label": ids[table.columns["label"]]})
            table = table.select(np.argsort(table.columns["label"]))
        done.append(replace(page, labels_yx=linked_yx, table=table))
    return done


@dataclass(frozen=True)
class FailedPage:
    """An error that ends the work on a file."""

    file: PageFile
    error: SeptaError | MemoryError

    def close_file(self) -> FailedFile:
        """Return the result of the file, with an error that holds no arrays."""
        self.file.state = FileState.FAILED
        error = self.error
        if isinstance(error, MemoryError):
            problem = "the image does not fit into memory"
            error = ResourceError(self.file.path, problem, "Segment it on a machine with more memory")
        for one in (self.error, error):  # frames of the traceback and of causes refer to arrays
            one.__traceback__ = one.__cause__ = one.__context__ = None
        return FailedFile(self.file.path, error)
