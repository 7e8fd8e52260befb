"""Outlines in COCO files: the objects of many images, as polygons or as run lengths."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.errors import InputError
from septa.kernels import Kernel
from septa.labels.outlines.outline import REMEDY, Boxes, ImageOutlines, Outline, classify, find_size, make_ring
from septa.labels.outlines.raster import counts_to_boxes

_DAMAGED = "Export the file again"


@dataclass
class CocoImage:
    """One image of a COCO file.

    Attributes
    ----------
    size_yx
        Height and width in pixels; None if they are not stated.
    annotations
        Entries of its objects, each with its number in the file, from 1.
    """

    size_yx: tuple[int, int] | None
    annotations: list[tuple[int, dict[str, Any]]] = field(default_factory=list)


@dataclass
class CocoFile:
    """Content of a COCO file.

    Attributes
    ----------
    images
        Images by their file names, as relative paths with ``/``.
    categories
        Class names by category.
    """

    images: dict[str, CocoImage]
    categories: dict[int | str, str]


def is_coco(document: Any) -> bool:
    """Return True if a JSON document lists images and annotations."""
    return isinstance(document, dict) and all(isinstance(document.get(key), list) for key in ("images", "annotations"))


def index_coco(document: Any, where: str) -> CocoFile:
    """Sort the annotations of a COCO file by image.

    Raises
    ------
    InputError
        An entry lacks a part, two images have the same name, or an annotation belongs to no image.
    """
    images: dict[str, CocoImage] = {}
    by_id: dict[Any, CocoImage] = {}
    for number, image in enumerate(document["images"], start=1):
        name = _clean(image.get("file_name")) if isinstance(image, dict) else ""
        if not name or not isinstance(image.get("id"), int | str):
            raise InputError(where, f"image {number} lacks an id or a file_name", _DAMAGED)
        if name in images or image["id"] in by_id:
            raise InputError(where, f"image {number} ({name:.80}) is listed twice", _DAMAGED)
        images[name] = by_id[image["id"]] = CocoImage(find_size([image.get("height"), image.get("width")]))
    for number, annotation in enumerate(document["annotations"], start=1):
        owner = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not isinstance(owner, int | str) or owner not in by_id:
            raise InputError(where, f"annotation {number} belongs to no listed image", _DAMAGED)
        by_id[owner].annotations.append((number, annotation))
    listed = document.get("categories")
    categories = {
        category["id"]: category["name"].strip()
        for category in (listed if isinstance(listed, list) else [])
        if isinstance(category, dict)
        and isinstance(category.get("id"), int | str)
        and isinstance(category.get("name"), str)
    }
    return CocoFile(images, categories)


def _clean(name: object) -> str:
    """Return a file name of an image as a path below a folder; empty if it is none."""
    if not isinstance(name, str) or "\0" in name:
        return ""
    return "/".join(part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..", "."))


def read_coco(content: CocoFile, where: str, name: str) -> ImageOutlines:
    """Read the objects of one image.

    The union of the polygons of an annotation is one object. Regions marked ``iscrowd`` are ignored regions, since
    their objects are not separated.
    """
    image = content.images[name]
    drawn = ImageOutlines(size_yx=image.size_yx)
    for number, annotation in image.annotations:
        entry = f"annotation {number}"
        polygons, boxes = _read_segmentation(annotation.get("segmentation"), drawn, where, entry)
        if not polygons and boxes is None:
            drawn.skipped["boxes without an outline"] += 1
        elif annotation.get("iscrowd"):
            drawn.outlines.append(Outline(polygons, boxes, kind="ignored"))
        else:
            category = annotation.get("category_id")
            name = content.categories.get(category, "") if isinstance(category, int | str) else ""
            if not name and content.categories:
                raise InputError(where, f"{entry} has a category that is not listed", _DAMAGED)
            drawn.outlines.append(Outline(polygons, boxes, **classify(name)))
    return drawn


def _read_segmentation(
    found: Any, drawn: ImageOutlines, where: str, entry: str
) -> tuple[tuple[tuple[npt.NDArray[np.float64]], ...], Boxes | None]:
    if not found:
        return (), None
    if isinstance(found, dict):
        return (), _read_runs(found, drawn, where, entry)
    if not isinstance(found, list) or not all(isinstance(flat, list) and len(flat) % 2 == 0 for flat in found):
        raise InputError(where, f"{entry} has a segmentation that is neither polygons nor run lengths", REMEDY)
    rings = [[flat[start : start + 2] for start in range(0, len(flat), 2)] for flat in found]
    return tuple((make_ring(ring, where, entry),) for ring in rings), None


def _read_runs(found: dict[str, Any], drawn: ImageOutlines, where: str, entry: str) -> Boxes:
    size = find_size(found.get("size"))
    drawn.size_yx = drawn.size_yx or size
    if size is None or size != drawn.size_yx:
        raise InputError(where, f"{entry} has run lengths for another size than its image", _DAMAGED)
    given, counts = found.get("counts"), np.full(1, -1, np.int64)
    if isinstance(given, str) and given.isascii():
        counts = decode_counts(np.frombuffer(given.encode(), np.uint8))
    elif isinstance(given, list) and all(type(count) is int and 0 <= count < 1 << 40 for count in given):
        counts = np.array(given, np.int64)
    height, width = size
    # A sum of few counts can overflow, so the largest is looked at as well.
    if not counts.size or counts.min() < 0 or counts.max() > height * width or counts.sum() != height * width:
        raise InputError(where, f"{entry} has run lengths that do not fill its image", REMEDY)
    return counts_to_boxes(counts, height)


@Kernel
def decode_counts(letters: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Decode run lengths as pycocotools' rleFrString does; one negative number if they are not valid.

    Each is the difference to the one before the last, in characters of 5 bits, lowest bits first.
    """
    counts = np.empty(len(letters) + 1, np.int64)
    count = place = 0
    while place < len(letters):
        value, shift, more = np.int64(0), 0, True
        while more:
            if place == len(letters) or letters[place] < 48 or letters[place] > 111 or shift > 50:
                return np.full(1, -1, np.int64)
            part = np.int64(letters[place]) - 48
            value |= (part & 31) << shift
            shift += 5
            more = part & 32 != 0
            if not more and part & 16:
                value |= np.int64(-1) << shift
            place += 1
        if count > 2:
            value += counts[count - 2]
        counts[count] = value
        count += 1
    return counts[:count].copy()
