"""What learning needs of the workspace: the folder, its models, and the pages and labels that are open or on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decoder import Decoders
from .document import Document
from .folder import ImageFolder
from .jobs import Jobs
from .label_file import LabelFile
from .models import Models
from .pages import ImagePage
from .picture import Picture
from .predictor import Predictor
from .saver import Saver


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The parts of a workspace.

    Attributes
    ----------
    folder, models, predictor, jobs, saver, decoders
        Those of the workspace.
    find_page
        Function that returns the page of a name.
    find_document
        Function that returns the labels of a page if they are open, else None.
    find_labels
        Function that returns the label file of a page.
    """

    folder: ImageFolder
    models: Models
    predictor: Predictor
    jobs: Jobs
    saver: Saver
    decoders: Decoders
    find_page: Callable[[str], ImagePage]
    find_document: Callable[[str], Document | None]
    find_labels: Callable[[ImagePage], LabelFile]

    def list_pages(self, name: str) -> list[ImagePage]:
        """Return the pages of all images in a file.

        Raises
        ------
        InputError, ResourceError
            The file cannot be read.
        """
        first = self.find_page(name)
        count = first.header.images
        images = [first] if count == 1 else [self.find_page(f"{name}#image{number}") for number in range(count)]
        return [
            page if page.header.pages == 1 else self.find_page(f"{_drop_page(page)}#{number}")
            for page in images
            for number in range(page.header.pages)
        ]

    def read_image(self, page: ImagePage) -> NDArray[Any]:
        """Read the image of a page, ``CYX``, without keeping it open.

        Raises
        ------
        InputError, ResourceError
            It cannot be decoded within the limits, or is too large for the app.
        """
        return Picture(page, self.decoders).image_cyx

    def read_labels(self, page: ImagePage) -> NDArray[np.int32]:
        """Return the labels of a page as they are now, int32 ``YX``, without opening it for editing.

        Raises
        ------
        InputError, ResourceError
            The file cannot be read.
        """
        document = self.find_document(str(page.name))
        if document is None:
            return self.find_labels(page).read(page.number)[0].astype(np.int32)
        with document.lock:
            return document.labels_yx.copy()


def _drop_page(page: ImagePage) -> str:
    """Return the name of an image without the number of a page."""
    return page.name.file if page.name.image is None else f"{page.name.file}#image{page.name.image}"
