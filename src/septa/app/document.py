"""The labels of an image while they are corrected: edits, undo, redo, and the file that they are saved to."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, SeptaError
from septa.images import WrittenFiles, read_labels, write_labels
from septa.tasks import Decoding

from .edits import Change, Part, make_change
from .folder import ImageFolder, Marks
from .picture import Picture

ORIGINALS = ".septa-originals"
"""Folder, beside the label files, of files that the user let septa replace."""
_PNG_IDS = 65_535
_MOST_ID = 2**31 - 2
_REPLACING = ("segment", "decode", "reload")
"""Kinds of edits that replace all labels."""


@dataclass(frozen=True)
class Origin:
    """The origin of labels: the marks of their image, and the thresholds of the last decoding (None without one)."""

    marks: Marks
    decoding: Decoding | None


@dataclass(frozen=True)
class Entry:
    """An edit that can be undone, with the origin of the labels before and after it."""

    kind: str
    change: Change
    before: Origin
    after: Origin


class Document:
    """The labels of one image.

    Methods may be called from several threads.

    Parameters
    ----------
    folder
        Folder of the image.
    picture
        The image.

    Raises
    ------
    InputError
        The label file cannot be read, is of another size, or holds no object ids.
    """

    def __init__(self, folder: ImageFolder, picture: Picture) -> None:
        self.folder = folder
        self.picture = picture
        self.name = picture.path.name
        self.lock = threading.RLock()
        self.path = folder.name_labels(picture.path)
        self.exists = self.path.is_file()
        self.labels_yx: NDArray[np.int32] = np.zeros(picture.size_yx, np.int32)
        if self.exists:
            self.labels_yx = _read(self.path, picture)
        self.version = self.saved_version = time.time_ns() // 1000  # no two documents share addresses of tiles
        self.decoding: Decoding | None = None
        self.error: SeptaError | None = None
        self._overwrite = False
        self._undo: list[Entry] = []
        self._redo: list[Entry] = []
        self._used = int(self.labels_yx.max(initial=0))
        self._count: tuple[int, int] = (-1, 0)

    @property
    def count(self) -> int:
        """Number of objects."""
        with self.lock:
            if self._count[0] != self.version:
                self._count = self.version, _count_objects(self.labels_yx)
            return self._count[1]

    @property
    def can_undo(self) -> bool:
        """True if there is an edit to undo."""
        return bool(self._undo)

    @property
    def can_redo(self) -> bool:
        """True if there is an edit to do again."""
        return bool(self._redo)

    @property
    def next_label(self) -> int:
        """Id of the next new object, which no object of this session had.

        Raises
        ------
        InputError
            All ids are used.
        """
        if self._used >= _MOST_ID:
            problem = f"the labels hold the id {self._used}, and no higher one exists"
            raise InputError(self.path, problem, "Renumber them")
        return self._used + 1

    def edit(self, kind: str, find_change: Callable[[NDArray[np.int32]], Change | None]) -> Part | None:
        """Make one edit, which can be undone.

        Parameters
        ----------
        kind
            Name of the edit.
        find_change
            Function from the labels to the change; it must not change them.

        Returns
        -------
        Part or None
            Part of the image that changed; None if nothing did.
        """
        with self.lock:
            change = find_change(self.labels_yx)
            if change is not None:
                marks = self.folder.get_marks(self.name)
                after = Origin(replace(marks, corrections=marks.corrections + 1), self.decoding)
                self._push(Entry(kind, change, Origin(marks, self.decoding), after))
            return None if change is None else change.box

    def replace_all(self, kind: str, labels_yx: NDArray[np.int32], *, model: str, decoding: Decoding) -> None:
        """Replace all labels by those that a model has found.

        Parameters
        ----------
        kind
            ``segment`` or ``decode``; successive decodings are one edit.
        labels_yx
            Object ids, int32.
        model
            Name of the model.
        decoding
            Thresholds by which they were found.
        """
        with self.lock:
            change = Change(Part(0, 0, *self.labels_yx.shape), self.labels_yx, labels_yx)
            before = Origin(self.folder.get_marks(self.name), self.decoding)
            if kind == "decode" and self._undo and self._undo[-1].kind == kind and not before.marks.corrections:
                last = self._undo.pop()
                change, before = last.change.join(change), last.before
            self._push(Entry(kind, change, before, Origin(Marks(model=model), decoding)))

    def _push(self, entry: Entry) -> None:
        entry.change.apply(self.labels_yx)
        self._used = max(self._used, int(self.labels_yx[entry.change.box.index].max(initial=0)))
        self._undo.append(entry)
        self._redo.clear()
        self._restore(entry, entry.after)

    def _restore(self, entry: Entry, origin: Origin) -> None:
        """Set marks and thresholds as they were; an edit by hand leaves the mark that the labels are checked."""
        checked = origin.marks.checked
        if entry.kind not in _REPLACING:
            checked = self.folder.get_marks(self.name).checked
        marks = origin.marks
        self.folder.set_marks(self.name, checked=checked, corrections=marks.corrections, model=marks.model)
        self.decoding = origin.decoding
        self.version += 1

    def undo(self) -> str:
        """Undo the last edit and return its kind; empty if there is none."""
        with self.lock:
            if not self._undo:
                return ""
            entry = self._undo.pop()
            entry.change.revert(self.labels_yx)
            self._redo.append(entry)
            self._restore(entry, entry.before)
            return entry.kind

    def redo(self) -> str:
        """Do the last undone edit again and return its kind; empty if there is none."""
        with self.lock:
            if not self._redo:
                return ""
            entry = self._redo.pop()
            entry.change.apply(self.labels_yx)
            self._undo.append(entry)
            self._restore(entry, entry.after)
            return entry.kind

    def cut_labels(
        self, level_yx: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> NDArray[np.int32]:
        """Return the labels of a tile of a level with one more pixel on each side; 0 beyond the image.

        Parameters
        ----------
        level_yx
            Size of the level, to which labels are downsampled by taking the nearest pixel.
        rows, columns
            Tile of the level, each as (first, end).
        """
        places = []
        for (begin, end), size, full in zip((rows, columns), level_yx, self.labels_yx.shape):
            at = np.arange(begin - 1, end + 1)
            inside = (at >= 0) & (at < size)
            places.append((np.minimum((np.clip(at, 0, size - 1) + 0.5) * full // size, full - 1).astype(int), inside))
        (y, inside_y), (x, inside_x) = places
        with self.lock:
            cut_yx = self.labels_yx[np.ix_(y, x)]
        return np.where(inside_y[:, None] & inside_x, cut_yx, np.int32(0))

    def save(self) -> None:
        """Write the labels, whole or not at all; an error is kept in `error`."""
        with self.lock:
            version, labels_yx = self.version, self.labels_yx.copy()
        try:
            self._write(labels_yx)
            self.error, self.saved_version, self.exists = None, version, True
        except SeptaError as error:
            self.error = error

    def _write(self, labels_yx: NDArray[np.int32]) -> None:
        image, target = self.picture.path, self.folder.name_labels(self.picture.path)
        guard = WrittenFiles(self._overwrite, protected=[image]).guard(image)
        old = target
        if target.suffix.lower() == ".png" and int(labels_yx.max(initial=0)) > _PNG_IDS:
            target = target.with_suffix(".tif")
        calibration = replace(self.picture.calibration, channel_names=())
        write_labels(target, labels_yx, calibration=calibration, guard=guard)
        if old != target and old.exists() and not WrittenFiles().explain_refusal(old, image):
            old.unlink()  # two label files of one image cannot be paired
        self.path, self._overwrite = target, False

    def allow_replacement(self) -> Path:
        """Let the next `save` replace a label file that septa did not write.

        Returns
        -------
        Path
            Copy of the old file, which stays.
        """
        with self.lock:
            kept = self.folder.labels / ORIGINALS / self.path.name
            number = 1
            while kept.exists():
                kept = kept.with_name(f"{self.path.stem}-{number}{self.path.suffix}")
                number += 1
            if not self.folder.contains(kept):
                raise InputError(kept, "the path is a link that leads out of the opened folder", "Remove the link")
            kept.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                shutil.copy2(self.path, kept)
            self._overwrite = True
            return kept

    def reload(self) -> None:
        """Read the label file again, as an edit that can be undone."""
        labels_yx = _read(self.path, self.picture) if self.path.is_file() else np.zeros_like(self.labels_yx)
        with self.lock:
            change = make_change(self.labels_yx, Part(0, 0, *self.labels_yx.shape), labels_yx)
            if change is not None:
                before = Origin(self.folder.get_marks(self.name), self.decoding)
                self._push(Entry("reload", change, before, Origin(Marks(), None)))
            self.saved_version, self.error = self.version, None


def _count_objects(labels_yx: NDArray[np.int32]) -> int:
    if int(labels_yx.max(initial=0)) <= labels_yx.size:
        return int(np.count_nonzero(np.bincount(labels_yx.ravel())[1:]))
    return int(np.count_nonzero(np.unique(labels_yx)))  # ids that are far apart


def _read(path: Path, picture: Picture) -> NDArray[np.int32]:
    raw = read_labels(path)
    if raw.kind == "rgb" or raw.array.ndim != 2:
        problem = "the labels are colours or several planes, not one id for each object"
        raise InputError(path, problem, "Move the file away, or convert it to ids")
    if raw.array.shape != picture.size_yx:
        sizes = "{} x {} pixels, but the image has {} x {}".format(*raw.array.shape, *picture.size_yx)
        raise InputError(path, f"the labels have {sizes}", "Move the file away")
    if raw.array.size and not 0 <= int(raw.array.min()) <= int(raw.array.max()) <= _MOST_ID:
        raise InputError(path, "the labels hold ids below 0 or beyond 31 bits", "Renumber them")
    return raw.array.astype(np.int32)
