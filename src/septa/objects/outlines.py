"""Outlines of the objects of an instance label image, exact to the pixel, as COCO and ImageJ files.

A pixel is a unit square: the pixel in row y and column x extends from (x, y) to (x + 1, y + 1). So the corner of the
first pixel is (0, 0), and the area of an outline is its number of pixels. QuPath, COCO and ImageJ count the same way.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.kernels import Kernel, label_parts
from septa.objects.table import ObjectTable

Array = npt.NDArray[Any]
Ring = npt.NDArray[np.int32]
Polygon = tuple[Ring, ...]

_OLDEST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_INT16_MAX = 32_767
_POSITIONS = {"frame": "t_position", "plane": "z_position", "page": "position"}
"""Attributes of a region of interest for the numbers of its page; ImageJ counts from 1."""


def trace_outlines(labels_yx: Array) -> dict[int, tuple[Polygon, ...]]:
    """Outline every object along the edges of its pixels.

    Parameters
    ----------
    labels_yx
        Instance ids, any integer dtype or bool; ids may be large and have gaps. Pixels of 0 or less are background.

    Returns
    -------
    dict
        For each id, ascending, its polygons: one per 4-connected part, in raster order. A polygon is a tuple of rings,
        the outer ring first, then its holes. A ring is int32 ``(N, 2)``: its corners as x, y, each once, so the last
        connects to the first. Outer rings turn from the x axis towards the y axis, holes the other way. No ring touches
        itself, and two rings share single points at most, so the polygons are valid OGC simple features.

    Raises
    ------
    ValueError
        The labels are not YX integers.

    Examples
    --------
    >>> found = trace_outlines(np.array([[4, 4, 4], [4, 0, 4], [4, 4, 4], [0, 0, 9]]))
    >>> [ring.tolist() for ring in found[4][0]]
    [[[0, 0], [3, 0], [3, 3], [0, 3]], [[1, 2], [2, 2], [2, 1], [1, 1]]]
    >>> len(found[9])
    1
    """
    parts_yx = _parts(labels_yx)
    corners, ends, owners = _trace(np.pad(parts_yx, 1))
    found: dict[int, list[Polygon]] = {}
    if not ends.size:
        return {}
    rings = np.split(corners, ends[:-1])
    # The first ring found of a part is the outer one: it contains the upper side of the part's first pixel.
    order = np.argsort(owners, kind="stable")
    for polygon in np.split(order, np.flatnonzero(np.diff(owners[order])) + 1):
        x, y = rings[polygon[0]][0]
        found.setdefault(int(labels_yx[y, x]), []).append(tuple(rings[k] for k in polygon))
    return {label: tuple(found[label]) for label in sorted(found)}


def to_coco(images: Iterable[tuple[str, Array, ObjectTable]], class_names: Sequence[str]) -> str:
    """Write objects of several images as COCO instances, with masks run-length encoded as pycocotools does.

    Parameters
    ----------
    images
        File name, instance ids and table of each image. The table is from `septa.objects.measure_objects` of these
        labels.
    class_names
        Names of the classes, background (class 0) first. Background is not a category: objects of class 0 are omitted.
        Objects of a table without classes have class 1.

    Returns
    -------
    str
        JSON text. Images and annotations are numbered from 1, categories by their class. ``score`` is the confidence,
        if the table has it.

    Raises
    ------
    ValueError
        The labels are not YX integers or lack an object of the table, a class has no name, or there are fewer than two
        different names.

    Examples
    --------
    >>> from septa.objects import measure_objects
    >>> labels_yx = np.array([[0, 7], [0, 7]])
    >>> table = measure_objects(labels_yx)
    >>> coco = json.loads(to_coco([("a.png", labels_yx, table)], ["background", "cell"]))
    >>> annotation = coco["annotations"][0]
    >>> annotation["bbox"], annotation["area"], annotation["segmentation"]
    ([1, 0, 1, 2], 2, {'size': [2, 2], 'counts': '22'})
    """
    names = list(class_names)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"expected background and at least one other class, all different, got {names}")
    described: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (file_name, labels_yx, table) in enumerate(images, 1):
        height, width = _check_labels(labels_yx).shape
        described.append({"id": number, "file_name": file_name, "height": height, "width": width})
        for row, (category, counts) in enumerate(zip(_categories(table, names), _masks(labels_yx, table), strict=True)):
            value = {name: values[row] for name, values in table.columns.items()}
            top, left = int(value["bbox_top"]), int(value["bbox_left"])
            if category == 0:
                continue
            one: dict[str, Any] = {"id": len(annotations) + 1, "image_id": number, "category_id": category}
            one["segmentation"] = {"size": [height, width], "counts": _rle_text(counts)}
            one["bbox"] = [left, top, int(value["bbox_right"]) - left, int(value["bbox_bottom"]) - top]
            one |= {"area": int(value["area"]), "iscrowd": 0}
            annotations.append(one | ({"score": float(value["confidence"])} if "confidence" in value else {}))
    categories = [{"id": k, "name": name, "supercategory": ""} for k, name in enumerate(names) if k]
    return to_json({"images": described, "annotations": annotations, "categories": categories})


def to_rois(labels_yx: Array, table: ObjectTable, *, position: Mapping[str, int] = MappingProxyType({})) -> bytes:
    """Write objects as an ImageJ ``RoiSet.zip``: one region of interest per object, named by its id.

    Objects of one part without holes become traced selections, as from ImageJ's wand. All others become composite
    selections, and so do objects beyond row or column 32,767, the limit of ImageJ's integer coordinates.

    Parameters
    ----------
    labels_yx
        Instance ids as for `trace_outlines`.
    table
        Objects to write, from `septa.objects.measure_objects` of these labels.
    position
        Number of the ``frame`` and the ``plane``, or of the ``page``, of a stack, each from 0, that the objects lie on.

    Returns
    -------
    bytes
        A ZIP file. Equal objects give equal bytes.

    Raises
    ------
    ValueError
        The labels are not YX integers, or lack an object of the table.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as folder:
        for label, polygons in select_outlines(labels_yx, table):
            name = f"{label:05d}"
            entry = zipfile.ZipInfo(f"{name}.roi", _OLDEST_ZIP_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            folder.writestr(entry, _roi(name, [ring for polygon in polygons for ring in polygon], position))
    return archive.getvalue()


def _check_labels(labels_yx: Array) -> Array:
    if labels_yx.ndim != 2 or labels_yx.dtype.kind not in "bui":
        raise ValueError(f"labels must be YX and hold integers, got {labels_yx.shape} of {labels_yx.dtype}")
    return labels_yx


def _parts(labels_yx: Array) -> npt.NDArray[np.int32]:
    """Assign numbers from 1 to the 4-connected parts of equal ids, and 0 elsewhere."""
    return label_parts(_check_labels(labels_yx).astype(np.int64))


def select_outlines(labels_yx: Array, table: ObjectTable) -> list[tuple[int, tuple[Polygon, ...]]]:
    """Return the id and polygons of each object of the table."""
    found = trace_outlines(labels_yx)
    ids = table.columns["label"].tolist()
    missing = [label for label in ids if label not in found]
    if missing:
        raise ValueError(f"the labels have no object {missing[0]}, which the table lists")
    return [(label, found[label]) for label in ids]


def _categories(table: ObjectTable, names: list[str]) -> list[int]:
    values = table.columns["class"].tolist() if "class" in table.columns else [1] * len(table)
    of = dict(enumerate(range(len(names)))) | {name: k for k, name in enumerate(names)}
    unknown = [value for value in values if value not in of]
    if unknown:
        raise ValueError(f"the class {unknown[0]!r} is none of {names}")
    return [of[value] for value in values]


def to_json(value: dict[str, Any]) -> str:
    """Write values as compact JSON text."""
    # Lone surrogates, from file names that could not be decoded, are not valid in Unicode text or JSON.
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def _masks(labels_yx: Array, table: ObjectTable) -> Iterator[list[int]]:
    """Yield run lengths outside and inside each object of the table, column by column, starting outside."""
    flat = labels_yx.T.reshape(-1)
    starts = np.flatnonzero(np.concatenate([[flat.size > 0], flat[1:] != flat[:-1]])[: flat.size])
    ends = np.append(starts[1:], flat.size)
    ids = flat[starts].astype(np.int64)
    order = np.argsort(ids, kind="stable")
    labels = table.columns["label"].astype(np.int64)
    first, last = (np.searchsorted(ids[order], labels, side=side) for side in ("left", "right"))
    if (first == last).any():
        raise ValueError(f"the labels have no object {labels[first == last][0]}, which the table lists")
    for a, b in zip(first, last, strict=True):
        runs = order[a:b]
        marks = np.stack([starts[runs], ends[runs]], axis=1).reshape(-1)
        counts = np.diff(marks, prepend=0, append=flat.size).tolist()
        yield counts if counts[-1] else counts[:-1]


def _rle_text(counts: list[int]) -> str:
    """Encode counts like pycocotools' rleToString.

    Each count is the difference to the count before the last, in characters of 5 bits, lowest bits first.
    """
    letters = []
    for k, count in enumerate(counts):
        rest = count - counts[k - 2] if k > 2 else count
        more = True
        while more:
            low, rest = rest & 0x1F, rest >> 5
            more = rest != (-1 if low & 0x10 else 0)
            letters.append(chr(48 + low + 0x20 * more))
    return "".join(letters)


def _roi(name: str, rings: list[Ring], position: Mapping[str, int]) -> bytes:
    from roifile import ROI_TYPE, ImagejRoi

    corners = np.concatenate(rings)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    roi = ImagejRoi(name=name, top=top, left=left, bottom=bottom, right=right)
    for number, attribute in _POSITIONS.items():
        if number in position:
            setattr(roi, attribute, position[number] + 1)
    if len(rings) == 1 and max(right, bottom) <= _INT16_MAX:
        roi.roitype = ROI_TYPE.TRACED
        roi.integer_coordinates = corners - np.array([left, top], np.int32)
        roi.n_coordinates = len(corners)
    else:
        roi.roitype = ROI_TYPE.RECT
        roi.multi_coordinates = np.concatenate([_path(ring) for ring in rings])
        roi.shape_roi_size = len(roi.multi_coordinates)
    return roi.tobytes()


def _path(ring: Ring) -> npt.NDArray[np.float32]:
    """Return the segments of a Java path: 0 x y moves, 1 x y draws a line, 4 closes."""
    segments = np.ones((len(ring), 3), np.float32)
    segments[0, 0] = 0
    segments[:, 1:] = ring
    return np.append(segments.reshape(-1), np.float32(4))


@Kernel
def _trace(
    parts: npt.NDArray[np.int32],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Walk around each part, with the part to the right, starting at each upper pixel side not yet passed.

    Takes numbered parts with a border of 0. Returns the corners of all rings, the index in them at which each ring
    ends, and the part that each ring belongs to.

    Where two pixels of a part meet at a corner, the walk continues to the other pixel. Both pixels are also connected
    elsewhere by their sides, so the two gaps at the corner belong to different rings. No ring passes a corner twice.
    """
    height, width = parts.shape
    passed = np.zeros((height, width), np.bool_)
    corners = np.empty((1024, 2), np.int32)
    ends = np.empty(256, np.int64)
    owners = np.empty(256, np.int32)
    length = count = 0
    steps_y, steps_x = (0, 1, 0, -1), (1, 0, -1, 0)  # right, down, left, up
    left_y, left_x = (-1, 0, 0, -1), (0, 0, -1, -1)  # from a corner to the pixel ahead on the left
    for first_y in range(1, height - 1):
        for first_x in range(1, width - 1):
            part = parts[first_y, first_x]
            if part == 0 or passed[first_y, first_x] or parts[first_y - 1, first_x] == part:
                continue
            y, x, way, turned = first_y, first_x, 0, True
            while way != 0 or not passed[y, x]:
                if turned:
                    if length == len(corners):
                        corners = np.concatenate((corners, np.empty_like(corners)))
                    corners[length, 0], corners[length, 1] = x - 1, y - 1
                    length += 1
                if way == 0:
                    passed[y, x] = True
                y, x = y + steps_y[way], x + steps_x[way]
                right = (way + 1) % 4
                turned = True
                if parts[y + left_y[way], x + left_x[way]] == part:
                    way = (way + 3) % 4
                elif parts[y + left_y[right], x + left_x[right]] == part:
                    turned = False
                else:
                    way = right
            if count == len(ends):
                ends, owners = (
                    np.concatenate((ends, np.empty_like(ends))),
                    np.concatenate((owners, np.empty_like(owners))),
                )
            ends[count], owners[count] = length, part
            count += 1
    return corners[:length], ends[:count], owners[:count]
