"""Files to take away: the labels of a page, and tables, outlines and stores made from them."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from septa.errors import InputError
from septa.images import store, write_labels
from septa.objects import ObjectTable, measure_objects, to_coco, to_geojson, to_rois

from .document import Document
from .edits import Int32
from .predictor import FoundLabels

_ZARR_BLOCK = 512
_OLDEST = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file to take away: its name, content and type."""

    name: str
    content: bytes
    kind: str


def measure(
    document: Document, prediction: FoundLabels | None, *, intensities: bool
) -> tuple[int, Int32, ObjectTable, tuple[str, ...]]:
    """Measure the objects of a page, or the classes of its pixels.

    Returns
    -------
    version, labels_yx, table
        Number of the last change of the labels, the labels, and the table.
    class_names
        Names of the classes, the background first.
    """
    with document.lock:
        version, labels_yx, marks = document.version, document.labels_yx.copy(), document.marks
        value_yx, table = document.class_yx, document.class_table
    names = tuple(name for _, name in table)
    class_yx = labels_yx if marks.pixels else None
    if value_yx is not None and not marks.pixels:
        places = np.zeros(max(value for value, _ in table) + 1, np.int32)
        places[[value for value, _ in table]] = np.arange(len(table))
        class_yx = places[value_yx]
    picture = document.picture
    confident = None if prediction is None or prediction.marks.pixels or marks.pixels else prediction
    found = measure_objects(
        labels_yx,
        picture.image_cyx if intensities else None,
        foreground_yx=None if confident is None else confident.probability_yx,
        pixel_size_um=picture.calibration.pixel_size_um,
        class_yx=class_yx,
        class_names=names if class_yx is not None else (),
    )
    if confident is not None:
        confidence = confident.curve.apply(found.columns["confidence"])
        found = ObjectTable({**found.columns, "confidence": confidence})
    return version, labels_yx, found, names


def make_download(document: Document, prediction: FoundLabels | None, kind: str) -> Download:
    """Make a file of the labels of a page.

    Parameters
    ----------
    document
        Labels.
    prediction
        Kept prediction, for the confidence; None without one.
    kind
        ``labels``, ``csv``, ``geojson``, ``coco``, ``rois`` or ``zarr``.

    Raises
    ------
    InputError
        There is no such kind, or the page has no labels yet.
    """
    stem = document.picture.page.page_stem
    if kind == "labels":
        return _make_labels(document, stem)
    if kind == "zarr":
        return Download(name=f"{stem}_labels.ome.zarr.zip", content=_zip_store(document), kind="application/zip")
    if kind not in ("csv", "geojson", "coco", "rois"):
        raise InputError(kind, "there is no such file to take away", "Reload the page")
    _, labels_yx, table, names = measure(document, prediction, intensities=kind in ("csv", "geojson"))
    if kind == "csv":
        rows = ObjectTable({"image": np.full(len(table), stem), **table.columns}).to_csv()
        return Download(name=f"{stem}.csv", content=rows.encode("utf-8", "replace"), kind="text/csv; charset=utf-8")
    if kind == "geojson":
        text = to_geojson(labels_yx, table)
        return Download(name=f"{stem}.geojson", content=text.encode("utf-8", "replace"), kind="application/geo+json")
    if kind == "coco":
        text = to_coco([(document.name, labels_yx, table)], names or ("background", "object"))
        return Download(name=f"{stem}_coco.json", content=text.encode("utf-8", "replace"), kind="application/json")
    return Download(name=f"{stem}_rois.zip", content=to_rois(labels_yx, table), kind="application/zip")


def _to_values(document: Document) -> Int32:
    """Return labels as they are written to files: ids, or the values of classes."""
    with document.lock:
        labels_yx, marks = document.labels_yx.copy(), document.marks
    return np.array([value for value, _ in marks.classes], np.int32)[labels_yx] if marks.pixels else labels_yx


def _make_labels(document: Document, stem: str) -> Download:
    """Return the label file; of a page of a stack, a TIFF of this page."""
    if document.error is not None:
        raise document.error
    path = document.file.path
    if not path.is_file():
        raise InputError(document.name, "the image has no labels yet", "Segment it or draw an object first")
    if document.file.pages == 1:
        return Download(name=path.name, content=path.read_bytes(), kind="application/octet-stream")
    with TemporaryDirectory() as folder:
        target = Path(folder) / f"{stem}.tif"
        calibration = replace(document.picture.calibration, channel_names=())
        write_labels(target, _to_values(document), calibration=calibration)
        return Download(name=target.name, content=target.read_bytes(), kind="application/octet-stream")


def _zip_store(document: Document) -> bytes:
    """Return the labels as an OME-Zarr store with a pyramid, in a ZIP file."""
    labels_yx = _to_values(document)
    height, width = labels_yx.shape
    spec = store.StoreSpec(
        kind="labels",
        name="labels",
        axes="YX",
        shape=(height, width),
        dtype=np.dtype(np.uint32),
        block=_ZARR_BLOCK,
        chunk=_ZARR_BLOCK // 2,
        calibration=replace(document.picture.calibration, channel_names=()),
        attributes={"model": document.marks.model},
    )
    archive = io.BytesIO()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "labels.ome.zarr"
        store.create_store(path, [spec])
        for index in spec.blocks(0):
            (top, left), size = (index[2] * spec.block, index[3] * spec.block), spec.block_shape(0, index)
            block_yx = labels_yx[top : top + size[-2], left : left + size[-1]].astype(np.uint32)
            store.write_store_block(path, spec, 0, index, block_yx)
        for level in range(1, len(spec.levels)):
            for index in spec.blocks(level):
                store.build_pyramid_block(path, spec, level, index)
        store.finish_store(path, [spec])
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as target:
            for file in sorted(path.rglob("*")):
                if file.is_file():
                    inner = f"{document.picture.page.page_stem}_labels.ome.zarr/{file.relative_to(path).as_posix()}"
                    target.writestr(zipfile.ZipInfo(inner, _OLDEST), file.read_bytes())
    return archive.getvalue()
