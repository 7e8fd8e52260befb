"""The names of the files that a prediction writes, and the checks that they replace nothing of others."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from septa.errors import InputError, SeptaError
from septa.images import ImageInfo, WrittenFiles, list_image_files, read_info
from septa.labels import CLASSES, OUTLINES, OVERLAYS, PROBABILITIES
from septa.model import Model
from septa.notices import Notices
from septa.objects import ObjectFiles
from septa.prediction.find import InputImage, find_stem
from septa.prediction.options import Options

_PAGE = re.compile(r"(_p*)\d{4,}$")
"""Ending of the names of pages."""
_ROIS = "_rois"


class Targets:
    """The files that are written for each image.

    Parameters
    ----------
    model
        Model that segments.
    images
        All images, of which no two have one stem; see `find_images`.
    options
        Output and options.
    """

    def __init__(self, model: Model, images: Sequence[InputImage], options: Options) -> None:
        self._options = options
        self._images = images
        self._multilabel = model.task.multilabel
        self._classes = model.labels.object_classes > 1
        stems = [_fold(image.stem) for image in images]
        self._taken = {(stem[: found.start()], found[1]) for stem in stems if (found := _PAGE.search(stem))}
        paths = [file for image in images for file in list_image_files(image.file)]
        self.written = WrittenFiles(options.overwrite, protected=paths, folder=None if options.name else options.output)

    def find_labels(self, info: ImageInfo) -> Path:
        """Return the label file of an image."""
        stacked = self._multilabel or info.pages > 1 or info.format == "tiff"
        suffix = self._options.suffix or (".tif" if stacked else ".png")
        return self._options.output / f"{self._find_stem(info)}{suffix}"

    def name_page(self, info: ImageInfo, number: int) -> str:
        """Return the stem of the files of one page: that of the image, and the number of the page if it has several.

        The number follows "_", or "_p", "_pp" and so on if another image is named like a page of this one.
        """
        stem = self._find_stem(info)
        if info.pages == 1:
            return stem
        mark = "_"
        while (_fold(stem), mark) in self._taken:
            mark += "p"
        return f"{stem}{mark}{number:04d}"

    def check(self, files: ObjectFiles, notices: Notices) -> None:
        """Check the names of all files before any work.

        Raises
        ------
        InputError
            Files exist that septa did not write from the same images; or an image would be replaced.
        """
        self._note_case(notices)
        targets: dict[Path, Path | None] = dict.fromkeys(files.list_common_files())
        names = {_fold(name) for folder in self._list_folders() if folder.is_dir() for name in _list_names(folder)}
        names |= {name.removesuffix(_ROIS) for name in names}
        known = names | {_PAGE.sub("", name) for name in names}
        for image in self._images:
            if _fold(self._options.name or image.stem) not in known:
                continue
            with suppress(SeptaError):  # an image that cannot be read is reported in its turn
                info = read_info(image.file, image=image.number, max_pixels=self._options.max_pixels)
                targets |= dict.fromkeys(self._list_files(info, files), image.file)
        self.written.check(targets)

    def _find_stem(self, info: ImageInfo) -> str:
        return self._options.name or find_stem(info.path, info.image if info.images > 1 else None)

    def _list_folders(self) -> list[Path]:
        output = self._options.output
        return [output, *(output / folder for folder in (CLASSES, OVERLAYS, PROBABILITIES, OUTLINES))]

    def _list_files(self, info: ImageInfo, files: ObjectFiles) -> Iterable[Path]:
        output, labels = self._options.output, self.find_labels(info)
        yield labels
        if self._classes:
            yield output / CLASSES / labels.name
        for number in range(info.pages):
            name = self.name_page(info, number)
            if self._options.probabilities:
                yield output / PROBABILITIES / f"{name}.tif"
            if self._options.overlay:
                yield output / OVERLAYS / f"{name}.png"
            yield from files.list_files(name)

    def _note_case(self, notices: Notices) -> None:
        """Note names that differ, but not on every file system."""
        first: dict[str, Path] = {}
        for image in self._images:
            path = image.file
            other = first.setdefault(_fold(image.stem), path)
            if other != path:
                text = f"the name differs from that of {other.name} only in case or Unicode form"
                remedy = "Do not copy the results to a disk of Windows or macOS, where they replace each other"
                notices.add(path, text, remedy, warning=True)


def check_pages(info: ImageInfo, target: Path) -> None:
    """Refuse a file that cannot hold the pages of an image.

    Raises
    ------
    InputError
        The image has several pages, and its label file is a PNG.
    """
    if info.pages > 1 and target.suffix.lower() == ".png":
        problem = f"a PNG file cannot hold the labels of its {info.pages} pages"
        raise InputError(info.path, problem, "Leave --format out, or end the name of the output in .tif")


def check_axes(info: ImageInfo) -> None:
    """Refuse a stack over whose pages objects cannot be linked.

    Raises
    ------
    InputError
        The pages count several axes, other than T and Z.
    """
    if len(info.page_axes) > 1 and info.page_axes not in ("TZ", "ZT"):
        problem = f"its pages have the axes {info.page_axes}, and objects are linked over T and Z"
        raise InputError(info.path, problem, "Leave --link out, or save a stack with the axes T, Z or both")


def _list_names(folder: Path) -> list[str]:
    """Return the stems of the files in a folder."""
    return [path.stem for path in folder.iterdir()]


def _fold(name: str) -> str:
    """Return a name as a file system compares it that ignores case and Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()
