"""The label file of an image: its pages are read one by one, and a page that changed is written with all others."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images import WrittenFiles, write_labels

from .decoder import Decoders
from .folder import ImageFolder
from .pages import ImagePage

ORIGINALS = ".septa-originals"
"""Folder, beside the label files, of files that the user let septa replace."""
MOST_STACKED = 400_000_000
"""Most pixels of all pages of a stack together."""
_PNG_IDS = 65_535

Array = NDArray[Any]


class LabelFile:
    """The label file of one image, and the image of classes beside it; the pages of a stack share them.

    Methods may be called from several threads.

    Parameters
    ----------
    folder
        Folder of the image.
    page
        Any page of the image.
    decoders
        Processes that read the file.

    Raises
    ------
    InputError
        The file would lie outside the folder, or the stack is too large.
    """

    def __init__(self, folder: ImageFolder, page: ImagePage, decoders: Decoders) -> None:
        self._folder = folder
        self._image, self._stem, self._header = page.path, page.stem, page.header
        self._decoders = decoders
        self._overwrite = False
        self.lock = threading.RLock()
        height, width = page.header.shape[3:]
        self.size_yx, self.pages = (height, width), page.header.pages
        if self.pages > 1 and self.pages * height * width > MOST_STACKED:
            problem = f"the stack has {self.pages} planes of {height} x {width} pixels, too many to correct in the app"
            raise InputError(page.path, problem, "Segment it with 'septa predict', or save it in parts")
        self.path = self._find_path()
        self.exists = self.path.is_file()

    def _find_path(self) -> Path:
        return self._folder.name_labels(self._image, self._stem, stack=self.pages > 1)

    def read(self, page: int) -> tuple[Array, Array | None]:
        """Return the stored labels of a page, integers ``YX``, and its classes; zeros without a file.

        Raises
        ------
        InputError
            A file cannot be read, or does not fit the image.
        """
        path = self._find_path()
        classes = self._folder.name_classes(path)
        return self._read_page(path, page), self._read_page(classes, page) if classes.is_file() else None

    def _read_page(self, path: Path, page: int) -> Array:
        if not path.is_file():
            return np.zeros(self.size_yx, np.uint8)
        kind, pages, array = self._decoders.read_labels(path, page)
        if kind != "index" or array.ndim != 2:
            problem = "the labels are colours or several planes, not one number for each pixel"
            raise InputError(path, problem, "Move the file away, or convert it to numbers")
        if pages != self.pages:
            problem = f"the number of pages is {pages}, but the image has {self.pages}"
            raise InputError(path, problem, "Move the file away")
        if array.shape != self.size_yx:
            sizes = "{} x {} pixels, but the image has {} x {}".format(*array.shape, *self.size_yx)
            raise InputError(path, f"the labels have {sizes}", "Move the file away")
        return array

    def write(self, page: int, labels_yx: Array, classes_yx: Array | None) -> None:
        """Write the labels of a page, whole or not at all; the other pages stay as they are.

        Raises
        ------
        InputError
            A file was not written by septa, so it stays.
        ResourceError
            The disk is full.
        """
        with self.lock:
            target = self._find_path()
            old = target
            pages = [labels_yx if number == page else self._read_page(old, number) for number in range(self.pages)]
            if target.suffix.lower() == ".png" and int(labels_yx.max(initial=0)) > _PNG_IDS:
                target = target.with_suffix(".tif")
            kept = old != target and old.exists()
            classes = self._folder.name_classes(target)
            if classes_yx is not None or classes.is_file():
                own_yx = np.zeros(self.size_yx, np.uint8) if classes_yx is None else classes_yx
                planes = [
                    own_yx if number == page else self._read_page(classes, number) for number in range(self.pages)
                ]
                self._write_file(classes, planes)
            self._write_file(target, pages)
            if kept and not WrittenFiles().explain_refusal(old, self._image):
                old.unlink()  # two label files of one image cannot be paired
            self.path, self.exists, self._overwrite = target, True, False

    def _write_file(self, target: Path, pages: list[Array]) -> None:
        guard = WrittenFiles(self._overwrite, protected=[self._image]).guard(self._image)
        calibration = replace(self._header.calibration, channel_names=())
        frames, _, planes = self._header.shape[:3]
        if self.pages == 1:
            write_labels(target, pages[0], calibration=calibration, guard=guard)
            return
        sizes = {"T": frames, "Z": planes}
        axes = "".join(axis for axis in self._header.axes if sizes[axis] > 1)
        stack = np.stack(pages).reshape(*(sizes[axis] for axis in axes), *self.size_yx)
        write_labels(target, stack, axes=f"{axes}YX", calibration=calibration, guard=guard)

    def allow_replacement(self) -> Path:
        """Let the next `write` replace files that septa did not write.

        Returns
        -------
        Path
            Copy of the old label file, which stays.
        """
        with self.lock:
            kept = self._keep_copy(self.path)
            classes = self._folder.name_classes(self.path)
            if classes.is_file():
                self._keep_copy(classes)
            self._overwrite = True
            return kept

    def _keep_copy(self, path: Path) -> Path:
        kept = path.parent / ORIGINALS / path.name
        number = 1
        while kept.exists():
            kept = kept.with_name(f"{path.stem}-{number}{path.suffix}")
            number += 1
        self._folder.check_inside(kept)
        kept.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            shutil.copy2(path, kept)
        return kept
