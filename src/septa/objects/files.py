"""Files of segmented objects: a table, and outlines for other programs; objects of low confidence are dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.images import read_labels, write_bytes, write_text
from septa.labels import OUTLINES
from septa.objects.measure import ObjectTable, measure_objects
from septa.objects.outlines import to_coco, to_geojson, to_rois


@dataclass(frozen=True)
class ObjectOptions:
    """Files of objects to write.

    Attributes
    ----------
    table, coco
        CSV file and COCO file for all images together.
    geojson, rois
        True to write outlines for QuPath, and for ImageJ, for each image.
    min_confidence
        Drop objects of lower confidence (0..1), from the label images too.
    """

    table: Path | None = None
    geojson: bool = False
    coco: Path | None = None
    rois: bool = False
    min_confidence: float | None = None

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
    """

    options: ObjectOptions
    folder: Path
    class_names: tuple[str, ...]
    _tables: list[tuple[str, ObjectTable]] = field(default_factory=list)
    _written: list[tuple[str, Path, int]] = field(default_factory=list)
    _pending: list[tuple[str, ObjectTable]] = field(default_factory=list)
    _file: str = ""

    def begin(self, file: str) -> None:
        """Start the next image file, and forget the pages of one that failed."""
        self._file = file
        self._pending = []

    def add(
        self,
        name: str,
        labels_yx: NDArray[np.int32],
        image_cyx: NDArray[Any],
        foreground_yx: NDArray[np.float32],
        pixel_size_um: tuple[float, float] | None,
        class_yx: NDArray[np.int32] | None = None,
    ) -> NDArray[np.int32]:
        """Measure the objects of one image, write its outlines, and return its labels without dropped objects.

        Parameters
        ----------
        name
            Name of the image, for rows and file names.
        labels_yx
            Object ids, int32.
        image_cyx
            Image in raw values, for the intensities.
        foreground_yx
            Foreground probability, float32 in 0..1, for the confidence.
        pixel_size_um
            (y, x) micrometres per pixel, if known.
        class_yx
            Class of each object at its pixels, int32, if objects have classes.

        Returns
        -------
        ndarray
            Object ids of the kept objects, int32 ``YX``.
        """
        table = measure_objects(
            labels_yx,
            image_cyx,
            foreground_yx=foreground_yx,
            pixel_size_um=pixel_size_um,
            class_yx=class_yx,
            class_names=() if class_yx is None else self.class_names,
        )
        if self.options.min_confidence is not None:
            kept = table.columns["confidence"] >= self.options.min_confidence
            dropped = table.columns["label"][~kept]
            labels_yx = np.where(np.isin(labels_yx, dropped), 0, labels_yx).astype(np.int32)
            table = table.select(kept)
        self._pending.append((name, table))
        if self.options.geojson:
            write_text(self.folder / OUTLINES / f"{name}.geojson", to_geojson(labels_yx, table))
        if self.options.rois:
            write_bytes(self.folder / OUTLINES / f"{name}_rois.zip", to_rois(labels_yx, table))
        return labels_yx

    def commit(self, labels: Path) -> None:
        """Accept the pages added since `begin`, whose labels were written to the file ``labels``."""
        stack = len(self._pending) > 1
        for page in range(len(self._pending)):
            self._written.append((f"{self._file}#{page}" if stack else self._file, labels, page))
        self._tables += self._pending
        self._pending = []

    def finish(self) -> None:
        """Write the files that all images share: the table and the COCO file."""
        if self.options.table is not None:
            write_text(self.options.table, _join_tables(self._tables).to_csv())
        if self.options.coco is not None:
            write_text(self.options.coco, to_coco(self._images(), self.class_names))

    def _images(self) -> Iterator[tuple[str, NDArray[Any], ObjectTable]]:
        for (_, table), (file, path, page) in zip(self._tables, self._written, strict=True):
            yield file, read_labels(path, page).array.astype(np.int64), table


def _join_tables(tables: list[tuple[str, ObjectTable]]) -> ObjectTable:
    """Join tables into one whose first column is the image name; columns that an image lacks are NaN there."""
    names = list(dict.fromkeys(name for _, table in tables for name in table.columns))
    columns: dict[str, NDArray[Any]] = {
        "image": np.array([image for image, table in tables for _ in range(len(table))], dtype=np.str_)
    }
    for name in names:
        parts = [table.columns.get(name, np.full(len(table), np.nan)) for _, table in tables]
        columns[name] = np.concatenate(parts)
    return ObjectTable(columns)
