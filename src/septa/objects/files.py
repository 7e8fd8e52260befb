"""Files of segmented objects: a table, and outlines for other programs; objects of low confidence are dropped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images import Calibration, WrittenFiles, read_labels, write_bytes, write_text
from septa.labels import OUTLINES
from septa.notices import Notices
from septa.objects.curve import ConfidenceCurve
from septa.objects.geojson import to_geojson
from septa.objects.measure import measure_objects
from septa.objects.names import BASIC, choose_measurements
from septa.objects.outlines import to_coco, to_rois
from septa.objects.shapes import is_square
from septa.objects.soft_iou import confidence
from septa.objects.table import ObjectTable
from septa.objects.table_files import check_table_file, write_table

_GEOJSON = ".geojson"
_ROIS = "_rois.zip"
_PLACE = ("image", "frame", "plane", "page")
"""Columns that say where an object lies, in their order."""
_NAME_LENGTH = 60
"""Most characters of a channel name that a column gets."""


@dataclass(frozen=True)
class ObjectOptions:
    """Files of objects to write.

    Attributes
    ----------
    table, coco
        CSV or Parquet file, and COCO file, for all images together.
    geojson, rois
        True to write outlines for QuPath, and for ImageJ, for each image.
    min_confidence
        Drop objects of lower confidence (0..1), from the label images too.
    measure
        Measurements in the table and the outlines for QuPath: names as for `measure_objects`.
    """

    table: Path | None = None
    geojson: bool = False
    coco: Path | None = None
    rois: bool = False
    min_confidence: float | None = None
    measure: tuple[str, ...] = (BASIC,)

    @property
    def wanted(self) -> bool:
        """True if any file is requested, or objects are to be dropped."""
        return bool(self.table or self.geojson or self.coco or self.rois or self.min_confidence is not None)


@dataclass
class ObjectFiles:
    """Writer of the files that `ObjectOptions` requests.

    Call `begin` for each image file, `add` for each of its pages, `commit` when its labels are written, and `finish`
    after the last file. If a file fails half way, nothing of it enters the common files.

    Attributes
    ----------
    options
        Files to write.
    folder
        Folder for outlines.
    class_names
        Class names of the model's labels, background first.
    written
        Decides which files may be replaced.
    curve
        Curve that calibrates the confidences.
    notices
        Receives what is assumed about the scale.
    """

    options: ObjectOptions
    folder: Path
    class_names: tuple[str, ...]
    written: WrittenFiles
    curve: ConfidenceCurve = field(default_factory=ConfidenceCurve)
    notices: Notices = field(default_factory=Notices)
    _tables: list[ObjectTable] = field(default_factory=list)
    _labels: list[tuple[str, Path, int]] = field(default_factory=list)
    _pending: list[ObjectTable] = field(default_factory=list)
    _file: Path = Path()
    _name: str = ""

    def list_files(self, name: str) -> list[Path]:
        """Return the files that are written for the image or page of a name."""
        wanted = {_GEOJSON: self.options.geojson, _ROIS: self.options.rois}
        return [self.folder / OUTLINES / f"{name}{ending}" for ending, given in wanted.items() if given]

    def list_common_files(self) -> list[Path]:
        """Return the files that all images share.

        Raises
        ------
        InputError
            Two of them are the same file, or a package is missing for the type of one.
        """
        if self.options.table is not None:
            check_table_file(self.options.table)
        found = [path for path in (self.options.table, self.options.coco) if path is not None]
        if len({path.resolve() for path in found}) < len(found):
            raise InputError(found[0], "the file is given with --table and with --coco", "Give two names")
        return found

    def begin(self, file: Path, image: int | None = None) -> None:
        """Start the next image, and forget the pages of one that failed; ``image`` is its number among several."""
        self._file = file
        self._name = file.name if image is None else f"{file.name}#image{image}"
        self._pending = []

    def measure(
        self,
        labels_yx: NDArray[np.int32],
        image_cyx: NDArray[Any],
        foreground_yx: NDArray[np.float32],
        calibration: Calibration,
        class_yx: NDArray[np.int32] | None = None,
    ) -> tuple[NDArray[np.int32], ObjectTable]:
        """Measure the objects of one page, and drop those of low confidence.

        Parameters
        ----------
        labels_yx
            Object ids, int32.
        image_cyx
            Image in raw values, for the intensities.
        foreground_yx
            Foreground probability, float32 in 0..1, for the confidence.
        calibration
            Scale and channel names, as far as they are known.
        class_yx
            Class of each object at its pixels, int32, if objects have classes.

        Returns
        -------
        labels_yx, table
            Object ids of the kept objects, int32 ``YX``, and their measurements.
        """
        labels_yx, table = measure_predicted(
            labels_yx,
            image_cyx,
            foreground_yx,
            calibration=calibration,
            class_yx=class_yx,
            class_names=self.class_names,
            curve=self.curve,
            min_confidence=self.options.min_confidence,
            measure=self.options.measure,
        )
        note_scale(self.notices, self._file, calibration, self.options.measure)
        return labels_yx, table

    def add(
        self,
        name: str,
        labels_yx: NDArray[np.int32],
        table: ObjectTable,
        position: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Write the outlines of one page, and keep its rows.

        Parameters
        ----------
        name
            Name of the page, for rows and file names.
        labels_yx, table
            Objects of `measure`, also with other ids.
        position
            Numbers that say which page of a stack this is; they become columns of the table.
        """
        place = {"image": name} | dict(position)
        columns = {key: np.full(len(table), value) for key, value in place.items()}
        self._pending.append(ObjectTable(columns | dict(table.columns)))
        guard = self.written.guard(self._file)
        if self.options.geojson:
            write_text(
                self.folder / OUTLINES / f"{name}{_GEOJSON}",
                to_geojson(labels_yx, table, position=position),
                guard=guard,
            )
        if self.options.rois:
            write_bytes(
                self.folder / OUTLINES / f"{name}{_ROIS}", to_rois(labels_yx, table, position=position), guard=guard
            )

    def commit(self, labels: Path) -> None:
        """Accept the pages added since `begin`, whose labels were written to the file ``labels``."""
        stack = len(self._pending) > 1
        for page in range(len(self._pending)):
            self._labels.append((f"{self._name}#{page}" if stack else self._name, labels, page))
        self._tables += self._pending
        self._pending = []

    def finish(self) -> None:
        """Write the files that all images share: the table and the COCO file."""
        if self.options.table is not None:
            write_table(self.options.table, [_join_tables(self._tables)], guard=self.written.guard())
        if self.options.coco is not None:
            write_text(self.options.coco, to_coco(self._images(), self.class_names), guard=self.written.guard())

    def _images(self) -> Iterator[tuple[str, NDArray[Any], ObjectTable]]:
        for table, (file, path, page) in zip(self._tables, self._labels, strict=True):
            yield file, read_labels(path, page).array.astype(np.int64), table


def note_scale(notices: Notices, file: str | Path, calibration: Calibration, measure: Sequence[str]) -> None:
    """Note measurements that have no value in micrometres because pixels are not square."""
    affected = {"perimeter", "circularity"} & choose_measurements(measure)
    if affected and calibration.pixel_size_um is not None and not is_square(calibration.pixel_size_um):
        text = "the pixels are not square, so perimeter_um is empty, and circularity is that of the shape in pixels"
        notices.add(file, text)


def measure_predicted(
    labels_yx: NDArray[np.int32],
    image_cyx: NDArray[Any],
    foreground_yx: NDArray[np.float32],
    *,
    calibration: Calibration,
    class_yx: NDArray[np.int32] | None = None,
    class_names: Sequence[str] = (),
    curve: ConfidenceCurve,
    min_confidence: float | None = None,
    measure: str | Sequence[str] = BASIC,
) -> tuple[NDArray[np.int32], ObjectTable]:
    """Measure predicted objects with their calibrated confidence, and drop those of low confidence.

    Parameters
    ----------
    labels_yx, image_cyx, foreground_yx, calibration, class_yx
        As for `ObjectFiles.measure`.
    class_names
        Names of the classes, background first; used with ``class_yx``.
    curve
        Curve that calibrates the confidences.
    min_confidence
        Drop objects of lower confidence, 0..1; None keeps all.
    measure
        As for `measure_objects`.

    Returns
    -------
    labels_yx, table
        Object ids of the kept objects, int32 ``YX``, and their measurements.
    """
    confidences = curve.apply(confidence(labels_yx, foreground_yx))
    if min_confidence is not None:
        ids = np.unique(labels_yx[labels_yx > 0])
        kept = confidences >= min_confidence
        labels_yx = np.where(np.isin(labels_yx, ids[~kept]), 0, labels_yx).astype(np.int32)
        confidences = confidences[kept]
    table = measure_objects(
        labels_yx,
        image_cyx,
        confidences=confidences,
        pixel_size_um=calibration.pixel_size_um,
        channel_names=make_column_names(calibration.channel_names, len(image_cyx)),
        class_yx=class_yx,
        class_names=() if class_yx is None else class_names,
        measure=measure,
    )
    return labels_yx, table


def _join_tables(tables: list[ObjectTable]) -> ObjectTable:
    """Join tables; columns that an image lacks are NaN there. Those that say which image and page it is come first."""
    names = {name: None for table in tables for name in table.columns}
    first = [name for name in _PLACE if name in names or name == "image"]
    columns: dict[str, NDArray[Any]] = {}
    for name in dict.fromkeys([*first, *names]):
        parts = [table.columns.get(name, np.full(len(table), np.nan)) for table in tables]
        columns[name] = np.concatenate(parts) if parts else np.zeros(0)
    return ObjectTable(columns)


def make_column_names(names: Sequence[str], channels: int) -> list[str] | None:
    """Turn the names of channels into parts of column names; None if there is not one for each channel.

    Examples
    --------
    >>> make_column_names(("DAPI", "Alexa Fluor 488 (EM)"), 2)
    ['DAPI', 'Alexa_Fluor_488_EM']
    """
    if len(names) != channels:
        return None
    return [re.sub(r"[^\w.+-]+", "_", name).strip("_")[:_NAME_LENGTH] for name in names]
