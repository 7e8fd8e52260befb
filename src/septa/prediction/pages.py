"""Image files and their pages on the way through the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import ResourceError, SeptaError
from septa.images import ImageInfo
from septa.prediction.find import find_stem
from septa.prediction.options import FailedFile


class FileState(Enum):
    """State of an image file in the pipeline."""

    OPEN = auto()
    WRITTEN = auto()
    FAILED = auto()


@dataclass
class PageFile:
    """An image file in the pipeline, and what will be written when its last page is done."""

    path: Path
    state: FileState = FileState.OPEN
    labels: list[NDArray[Any]] = field(default_factory=list)
    classes: list[NDArray[Any]] = field(default_factory=list)
    difference: float | None = None


@dataclass(frozen=True)
class ReadPage:
    """A page that was read; ``image_cyx`` has the model's channels."""

    file: PageFile
    info: ImageInfo
    number: int
    image_cyx: NDArray[Any]

    @property
    def name(self) -> str:
        """Stem of the files that are written for this page alone."""
        stem = find_stem(self.info.path)
        return stem if self.info.pages == 1 else f"{stem}_{self.number:04d}"


@dataclass(frozen=True)
class ComputedPage:
    """A page that the net has computed: its logits, or its labels if the logits are not needed."""

    page: ReadPage
    logits_kyx: NDArray[np.float32] | None = None
    labels_yx: NDArray[np.int32] | None = None

    @property
    def file(self) -> PageFile:
        """File of the page."""
        return self.page.file


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
