"""The folder of checked images and their labels, which ``septa train`` and ``septa check`` read."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images import WrittenFiles, write_bytes, write_image, write_labels
from septa.labels import CLASSES

from .desk import Desk
from .folder import Area
from .label_file import LabelFile
from .pages import ImagePage, PageName

NAME = "training"
"""Name of the folder inside the opened one."""
IGNORED = 65_535
"""Value of pixels outside the checked areas in the copies of labels: the ignore label of a training with them."""
_PARTS = ("images", "labels", CLASSES)


@dataclass(frozen=True, kw_only=True)
class TrainingFolder:
    """A folder ``images``, ``labels`` and, if objects have classes, ``classes`` of the checked pages.

    Attributes
    ----------
    path
        The folder.
    images
        Names of the pages in it.
    ignore
        Value of the pixels that are not checked, `IGNORED`; None if all are.
    classes
        Value and name of each class of pixels, the background first; empty if the labels are objects.
    """

    path: Path
    images: tuple[str, ...]
    ignore: int | None = None
    classes: tuple[tuple[int, str], ...] = ()

    @classmethod
    def write(cls, desk: Desk, path: Path | None = None, *, alike: bool = False) -> TrainingFolder:
        """Copy the checked pages and their labels, and remove copies of pages that are not checked any more.

        Files of one image are copied byte by byte, pages of others and of zarr images are copied to TIFF files. Where
        only areas are checked, the other pixels of the labels get the value `IGNORED`.

        Parameters
        ----------
        desk
            The workspace.
        path
            Folder to write; None for `NAME` in the opened one.
        alike
            True if all labels must be objects, or all the same classes of pixels, as one training needs them.

        Raises
        ------
        InputError
            Nothing is checked, a label file is missing, labels are not alike, or files would be replaced that septa did
            not write.
        """
        folder = desk.folder
        path = path or folder.path / NAME
        folder.check_inside(path, *(path / part for part in _PARTS))
        files = folder.list_images()
        pages = [page for name in folder.list_ground_truth() if (page := _find_page(desk, name, files)) is not None]
        if not pages:
            raise InputError(folder.path, "nothing is marked as checked", "Mark images or areas whose labels are right")
        copies = [_Copy.plan(desk, page, path) for page in pages]
        if alike and (other := next((one for one in copies if one.classes != copies[0].classes), None)) is not None:
            problem = f"its labels mean others than those of {copies[0].page.name}, and one model learns one meaning"
            raise InputError(str(other.page.name), problem, "Uncheck the images that another model shall learn")
        ignores = any(one.areas for one in copies)
        written = WrittenFiles()
        written.check({target: source for one in copies for target, source in one.targets.items()})
        kept = {target for one in copies for target in one.write(desk, written, ignores)}
        _remove_others(path, kept, written)
        names = tuple(str(page.name) for page in pages)
        return cls(path=path, images=names, ignore=IGNORED if ignores else None, classes=copies[0].classes)


def _find_page(desk: Desk, name: str, files: Container[str]) -> ImagePage | None:
    """Return a page, or None if its file is not there any more."""
    return desk.find_page(name) if PageName.parse(name, files).file in files else None


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """The copy of a page: its label file, the areas that are checked, the classes of its pixels, and where it goes.

    Without areas the whole page is checked, without classes the labels are objects.
    """

    page: ImagePage
    file: LabelFile
    areas: tuple[Area, ...]
    classes: tuple[tuple[int, str], ...]
    image: Path
    labels: Path

    @classmethod
    def plan(cls, desk: Desk, page: ImagePage, path: Path) -> _Copy:
        """Plan a copy; InputError if there is no label file."""
        marks, file = desk.folder.get_marks(str(page.name)), desk.find_labels(page)
        if not file.path.is_file():
            raise InputError(str(page.name), "the label file is missing", "Mark the image as checked again")
        is_single = page.header.pages == 1 and page.header.images == 1 and not page.path.is_dir()
        image, labels = path / "images" / page.path.name, path / "labels" / file.path.name
        if not is_single:
            image, labels = (path / part / f"{page.page_stem}.tif" for part in ("images", "labels"))
        areas = () if marks.checked else marks.areas
        classes = marks.classes if marks.pixels else ()
        return cls(page=page, file=file, areas=areas, classes=classes, image=image, labels=labels)

    @property
    def targets(self) -> dict[Path, str | Path | None]:
        """Files that are always written, each with its source."""
        return {self.image: self.page.path, self.labels: self.file.path}

    def write(self, desk: Desk, written: WrittenFiles, ignores: bool) -> list[Path]:
        """Write the copy; ``ignores`` if the value `IGNORED` has a meaning in the folder, and so is no object."""
        is_whole = self.image.name == self.page.path.name
        guard = written.guard(self.page.path)
        if is_whole:
            write_bytes(self.image, self.page.path.read_bytes(), guard=guard)
        else:
            calibration = replace(self.page.header.calibration, channel_names=())
            write_image(self.image, desk.read_image(self.page), calibration=calibration, guard=guard)
        ids_yx, classes_yx = self.file.read(self.page.number)
        guard = written.guard(self.file.path)
        if is_whole and not self.areas and (not ignores or int(ids_yx.max(initial=0)) < IGNORED):
            write_bytes(self.labels, self.file.path.read_bytes(), guard=guard)
        else:
            write_labels(self.labels, self._ignore(ids_yx.astype(np.int32), ignores), guard=guard)
        if classes_yx is None:
            return [self.image, self.labels]
        classes = self.labels.parents[1] / CLASSES / self.labels.name
        write_labels(classes, classes_yx, guard=guard)
        return [self.image, self.labels, classes]

    def _ignore(self, labels_yx: NDArray[np.int32], ignores: bool) -> NDArray[np.int32]:
        """Give pixels outside the checked areas the value `IGNORED`, which no object keeps."""
        if ignores and int(labels_yx.max(initial=0)) >= IGNORED:
            ids, numbers = np.unique(labels_yx, return_inverse=True)
            if len(ids) >= IGNORED:
                problem = f"the labels hold {len(ids)} objects, too many for an ignore label"
                raise InputError(self.file.path, problem, "Check whole images instead of areas")
            labels_yx = (numbers + int(ids[0] > 0)).reshape(labels_yx.shape).astype(np.int32)
        ignored_yx = np.full(labels_yx.shape, bool(self.areas))
        for top, left, bottom, right in self.areas:
            ignored_yx[top:bottom, left:right] = False
        return np.where(ignored_yx, np.int32(IGNORED), labels_yx)


def _remove_others(path: Path, kept: set[Path], written: WrittenFiles) -> None:
    """Remove copies that septa wrote earlier; a file of somebody else would be paired too, so it is an error."""
    for old in [old for part in _PARTS if (path / part).is_dir() for old in (path / part).iterdir()]:
        if old in kept or not old.is_file() or old.name.startswith("."):
            continue
        reason = written.explain_refusal(old, old)
        if not reason.startswith("written by septa"):  # for another image, since nothing is made from itself
            raise InputError(old, f"the file was {reason}, but lies among the copies", "Move it away")
        old.unlink()
