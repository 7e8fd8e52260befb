"""The labels of a page while they are corrected: edits, undo, redo, and the file that they are saved to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, SeptaError

from .edits import Change, Part, make_change
from .folder import ImageFolder, Marks
from .label_file import LabelFile
from .picture import Picture
from .thresholds import Thresholds

_MOST_ID = 2**31 - 2
Classes = Mapping[int, int]
"""Value of the class of each object that has one."""
_REPLACING = ("segment", "decode", "reload")
"""Kinds of edits that replace all labels."""


@dataclass(frozen=True)
class Origin:
    """The origin of labels: marks, thresholds of the last decoding (None without one), and the class of each object."""

    marks: Marks
    decoding: Thresholds | None
    classes: Classes


@dataclass(frozen=True)
class Entry:
    """An edit that can be undone, with the origin of the labels before and after it."""

    kind: str
    change: Change | None
    before: Origin
    after: Origin


class StaleLabels(InputError):
    """A change was made for labels that are others by now."""


class Document:
    """The labels of one page: ids of objects, or places of classes in `Marks.classes`.

    Methods may be called from several threads.

    Parameters
    ----------
    folder
        Folder of the image.
    picture
        The page.
    file
        Its label file.

    Raises
    ------
    InputError
        The label file cannot be read, is of another size, or holds neither ids nor classes.
    """

    def __init__(self, folder: ImageFolder, picture: Picture, file: LabelFile) -> None:
        self.folder = folder
        self.picture = picture
        self.file = file
        self.name = picture.name
        self.lock = threading.RLock()
        self.classes: Classes
        self.labels_yx, self.classes = self._read()
        self.version = self.saved_version = time.time_ns() // 1000  # no two documents share addresses of tiles
        self.decoding: Thresholds | None = None
        self.preview: tuple[Part, NDArray[np.int32]] | None = None
        self.error: SeptaError | None = None
        self._undo: list[Entry] = []
        self._redo: list[Entry] = []
        self._used = int(self.labels_yx.max(initial=0))
        self._count: tuple[int, int] = (-1, 0)

    @property
    def marks(self) -> Marks:
        """Marks of the page."""
        return self.folder.get_marks(self.name)

    @property
    def origin(self) -> Origin:
        """Origin of the labels as they are."""
        return Origin(self.marks, self.decoding, self.classes)

    @property
    def class_table(self) -> tuple[tuple[int, str], ...]:
        """Value and name of each class, the background first; empty if there are none."""
        found = self.marks.classes
        return found or tuple((value, str(value)) for value in sorted({0, *self.classes.values()}) if self.classes)

    @property
    def class_yx(self) -> NDArray[np.int32] | None:
        """Value of the class of each object at its pixels; None if no object has one."""
        with self.lock:
            if not self.classes:
                return None
            ids = np.array(sorted(self.classes), np.int64)
            values = np.array([0, *(self.classes[one] for one in ids.tolist())], np.int32)
            place_yx = np.minimum(np.searchsorted(ids, self.labels_yx), len(ids) - 1)
            return values[np.where(ids[place_yx] == self.labels_yx, place_yx + 1, 0)]

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
            raise InputError(self.file.path, problem, "Renumber them")
        return self._used + 1

    def require_version(self, base: int | None) -> None:
        """Raise StaleLabels if the labels are not those of a version; None accepts all."""
        if base is not None and base != self.version:
            problem = (
                "the labels have changed since this page showed them: in another window, or septa app was restarted"
            )
            raise StaleLabels(self.name, problem, "They are shown now as they are; do the last step again")

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
                before = self.origin
                after = replace(before, marks=_count_correction(before.marks))
                if kind == "split":
                    after = replace(after, classes=_inherit(self.classes, *change.compare()))
                self._push(Entry(kind, change, before, after))
            return None if change is None else change.box

    def classify(self, label: int, value: int) -> None:
        """Give an object a class, an edit that can be undone.

        Raises
        ------
        InputError
            There is no such object or class.
        """
        with self.lock:
            if value not in [known for known, _ in self.class_table[1:]]:
                raise InputError("", f"there is no class {value}", "Choose one of the list")
            if not (self.labels_yx == label).any():
                raise InputError("", f"there is no object {label}", "Select an object that the image shows")
            before = self.origin
            if before.classes.get(label) != value:
                after = Origin(_count_correction(before.marks), before.decoding, {**before.classes, label: value})
                self._push(Entry("class", None, before, after))

    def replace_all(
        self, kind: str, labels_yx: NDArray[np.int32], marks: Marks, decoding: Thresholds, classes: Classes
    ) -> None:
        """Replace all labels by those that a model has found.

        Parameters
        ----------
        kind
            ``segment`` or ``decode``; successive decodings are one edit.
        labels_yx
            Object ids or places of classes, int32.
        marks
            New marks: the model and its classes.
        decoding
            Thresholds by which they were found.
        classes
            Class of each object.
        """
        with self.lock:
            self.preview = None
            change: Change | None = Change(Part(0, 0, *self.labels_yx.shape), self.labels_yx, labels_yx)
            before = self.origin
            last = self._undo[-1] if self._undo else None
            if kind == "decode" and last and last.kind == kind and last.change and not before.marks.corrections:
                self._undo.pop()
                assert change is not None
                change, before = last.change.join(change), last.before
            self._push(Entry(kind, change, before, Origin(marks, decoding, classes)))

    def show_preview(self, box: Part | None, labels_yx: NDArray[np.int32] | None) -> None:
        """Show labels of a part that is found already instead of those of the page; None to end this."""
        with self.lock:
            if box is None and self.preview is None:
                return
            self.preview = None if box is None or labels_yx is None else (box, labels_yx)
            self.version += 1
            if self.version - 1 == self.saved_version:
                self.saved_version = self.version  # nothing has changed on disk

    def _push(self, entry: Entry) -> None:
        if entry.change is not None:
            entry.change.apply(self.labels_yx)
            self._used = max(self._used, int(self.labels_yx[entry.change.box.index].max(initial=0)))
        self._undo.append(entry)
        self._redo.clear()
        self._restore(entry, entry.after)

    def _restore(self, entry: Entry, origin: Origin) -> None:
        """Set marks and thresholds as they were; an edit by hand leaves the marks that labels are checked."""
        kept = origin.marks if entry.kind in _REPLACING else self.marks
        self.folder.restore_marks(self.name, replace(origin.marks, checked=kept.checked, areas=kept.areas))
        self.decoding, self.classes = origin.decoding, origin.classes
        self.version += 1

    def undo(self) -> str:
        """Undo the last edit and return its kind; empty if there is none."""
        with self.lock:
            if not self._undo:
                return ""
            entry = self._undo.pop()
            if entry.change is not None:
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
            if entry.change is not None:
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
            if self.preview is not None:
                box, preview_yx = self.preview
                rows, columns = (
                    (at >= low) & (at < high) for at, low, high in ((y, box.top, box.bottom), (x, box.left, box.right))
                )
                cut_yx[np.ix_(rows, columns)] = preview_yx[np.ix_(y[rows] - box.top, x[columns] - box.left)]
        return np.where(inside_y[:, None] & inside_x, cut_yx, np.int32(0))

    def save(self) -> None:
        """Write the labels, whole or not at all; an error is kept in `error`."""
        with self.lock:
            version, labels_yx, class_yx = self.version, self.labels_yx.copy(), self.class_yx
            marks = self.marks
        try:
            if marks.pixels:
                labels_yx = np.array([value for value, _ in marks.classes], np.int32)[labels_yx]
            self.file.write(self.picture.page.number, labels_yx, class_yx)
            self.error, self.saved_version = None, version
        except SeptaError as error:
            self.error = error

    def reload(self) -> None:
        """Read the label file again, as an edit that can be undone."""
        labels_yx, classes = self._read()
        with self.lock:
            change = make_change(self.labels_yx, Part(0, 0, *self.labels_yx.shape), labels_yx)
            if change is not None or classes != self.classes:
                marks = self.marks if self.marks.pixels else Marks()
                self._push(Entry("reload", change, self.origin, Origin(marks, None, classes)))
            self.saved_version, self.error = self.version, None

    def _read(self) -> tuple[NDArray[np.int32], Classes]:
        """Read the label file: ids and the class of each object, or places of classes."""
        raw_yx, classes_yx = self.file.read(self.picture.page.number)
        path, marks = self.file.path, self.marks
        if raw_yx.size and not 0 <= int(raw_yx.min()) <= int(raw_yx.max()) <= _MOST_ID:
            raise InputError(path, "the labels hold ids below 0 or beyond 31 bits", "Renumber them")
        if marks.pixels:
            values = np.array([value for value, _ in marks.classes], np.int64)
            order = np.argsort(values)
            place_yx = order[np.minimum(np.searchsorted(values, raw_yx, sorter=order), len(values) - 1)]
            known_yx = values[place_yx] == raw_yx
            if not (known_yx | (raw_yx == 0)).all():
                raise InputError(path, "the file holds values that are not classes of its model", "Move the file away")
            return np.where(known_yx, place_yx, 0).astype(np.int32), {}  # other pages of a stack are blank
        return raw_yx.astype(np.int32), {} if classes_yx is None else _find_classes(raw_yx, classes_yx)


def _count_correction(marks: Marks) -> Marks:
    return replace(marks, corrections=marks.corrections + 1)


def _inherit(classes: Classes, before_yx: NDArray[np.int32], after_yx: NDArray[np.int32]) -> Classes:
    """Give new objects the class of the object that they were a part of."""
    pairs = np.unique(np.stack([before_yx.ravel(), after_yx.ravel()]), axis=1).T.tolist()
    return {**classes, **{new: classes[old] for old, new in pairs if new and old in classes and new not in classes}}


def _find_classes(ids_yx: NDArray[Any], classes_yx: NDArray[Any]) -> Classes:
    """Return the class that most pixels of each object have."""
    inside_yx = (ids_yx > 0) & (classes_yx > 0)
    pairs, counts = np.unique(np.stack([ids_yx[inside_yx], classes_yx[inside_yx]]), axis=1, return_counts=True)
    order = np.argsort(counts, kind="stable")
    return {int(label): int(value) for label, value in pairs[:, order].T}


def _count_objects(labels_yx: NDArray[np.int32]) -> int:
    if int(labels_yx.max(initial=0)) <= labels_yx.size:
        return int(np.count_nonzero(np.bincount(labels_yx.ravel())[1:]))
    return int(np.count_nonzero(np.unique(labels_yx)))  # ids that are far apart
