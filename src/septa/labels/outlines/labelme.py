"""Outlines in the JSON files of labelme: polygons, rectangles, circles and masks of one image."""

from __future__ import annotations

import math
from base64 import b64decode
from typing import Any

import numpy as np

from septa.errors import InputError
from septa.images import decode_png
from septa.labels.outlines.outline import (
    REMEDY,
    Boxes,
    ImageOutlines,
    Outline,
    Ring,
    classify,
    find_size,
    make_ellipse,
    make_rectangle,
    make_ring,
)
from septa.labels.outlines.raster import mask_to_boxes

_IGNORED = ("__ignore__",)
"""Name that labelme's own converters give this meaning."""
_OPEN = {"point": "points", "points": "points", "line": "lines", "linestrip": "lines"}


def is_labelme(document: Any) -> bool:
    """Return True if a JSON document lists shapes as labelme does."""
    if not isinstance(document, dict) or not isinstance(document.get("shapes"), list):
        return False
    return "imagePath" in document or "imageHeight" in document


def read_labelme(document: Any, where: str) -> ImageOutlines:
    """Read the shapes of a labelme file.

    Shapes of one label and ``group_id`` are parts of one object. ``__ignore__`` is an ignored region and
    ``_background_`` is background.
    """
    drawn = ImageOutlines(size_yx=find_size([document.get("imageHeight"), document.get("imageWidth")]))
    groups: dict[tuple[str, int], int] = {}
    for number, shape in enumerate(document["shapes"], start=1):
        entry = f"shape {number}"
        if not isinstance(shape, dict):
            raise InputError(where, f"{entry} is not an object with points", REMEDY)
        kind = shape.get("shape_type") or "polygon"
        if not isinstance(kind, str) or kind in _OPEN or kind not in ("polygon", "rectangle", "circle", "mask"):
            drawn.skipped[_OPEN.get(str(kind), "shapes of unknown kinds")] += 1
            continue
        label, group = shape.get("label"), shape.get("group_id")
        name = label.strip() if isinstance(label, str) else ""
        ring, boxes = _read_shape(shape, kind, where, entry)
        outline = Outline(() if boxes is not None else ((ring,),), boxes, **classify(name, ignored=_IGNORED))
        known = groups.get((name, group)) if type(group) is int else None
        if known is not None:
            drawn.outlines[known] = _join(drawn.outlines[known], outline)
            continue
        if type(group) is int:
            groups[name, group] = len(drawn.outlines)
        drawn.outlines.append(outline)
    return drawn


def _join(first: Outline, second: Outline) -> Outline:
    boxes = [outline.boxes for outline in (first, second) if outline.boxes is not None]
    joined = np.concatenate(boxes) if boxes else None
    return Outline(first.polygons + second.polygons, joined, first.name, first.kind)


def _read_shape(shape: dict[str, Any], kind: str, where: str, entry: str) -> tuple[Ring, Boxes | None]:
    """Return the ring of a shape, or the boxes of a mask."""
    ring = make_ring(shape.get("points"), where, entry)
    if kind == "polygon":
        return ring, None
    if len(ring) != 2:
        raise InputError(where, f"{entry} is a {kind} with {len(ring)} points, expected 2", REMEDY)
    (x, y), (other_x, other_y) = ring.tolist()
    if kind == "rectangle":
        return make_ring(make_rectangle(x, y, other_x, other_y), where, entry), None
    if kind == "circle":
        radius = math.hypot(other_x - x, other_y - y)
        return make_ring(make_ellipse(x, y, radius, radius), where, entry), None
    # The points of a mask are its first and its last pixel.
    left, top = (math.floor(min(pair)) for pair in ((x, other_x), (y, other_y)))
    size = tuple(math.floor(max(pair)) - math.floor(min(pair)) + 1 for pair in ((y, other_y), (x, other_x)))
    try:
        mask_cyx = decode_png(b64decode(shape.get("mask") or "", validate=True), where, max_pixels=size[0] * size[1])
    except (ValueError, TypeError):
        raise InputError(where, f"{entry} holds a mask that is not a PNG image in base64", REMEDY) from None
    if mask_cyx.shape[1:] != size:
        sizes = "{} x {} pixels, but its points enclose {} x {}".format(*mask_cyx.shape[1:], *size)
        raise InputError(where, f"{entry} holds a mask of {sizes}", REMEDY)
    return ring, mask_to_boxes(np.asarray(mask_cyx.any(axis=0)), top, left)
