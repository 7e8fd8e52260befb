"""Outlines of one image as a file states them, before they become pixels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from septa.errors import InputError

Ring = npt.NDArray[np.float64]
Polygon = tuple[Ring, ...]
Boxes = npt.NDArray[np.int64]

LARGEST = 1e9
"""Largest coordinate, in pixels."""
_SAGITTA = 1e-3
"""Largest distance in pixels between an ellipse and the polygon that replaces it."""
_MOST_SIDES = 20_000


@dataclass(frozen=True, eq=False)
class Outline:
    """One object, or a region with another meaning.

    Attributes
    ----------
    polygons
        Polygons whose union the object is. Each consists of rings, float64 ``(N, 2)`` as x, y; the pixel in row y and
        column x extends from (x, y) to (x + 1, y + 1). A point is inside a polygon if a ray from it crosses the rings
        an odd number of times, so a ring inside another one is a hole.
    boxes
        Rectangles of whole pixels that belong to the object too, int64 ``(N, 4)`` as top, left, bottom, right.
    name
        Name of its class; empty if it has none.
    kind
        "object"; "ignored" for a region that counts in no loss and no score; "background" for a region without objects.
    """

    polygons: tuple[Polygon, ...] = ()
    boxes: Boxes | None = None
    name: str = ""
    kind: Literal["object", "ignored", "background"] = "object"


@dataclass
class ImageOutlines:
    """All outlines of one image.

    Attributes
    ----------
    outlines
        Outlines in the order of the file.
    size_yx
        Height and width in pixels that the file states for the image; None if it states none.
    skipped
        Number of entries that enclose no area, by what they are, such as ``points``.
    planes
        Names of the planes of a stack that outlines belong to, as far as the file states them.
    """

    outlines: list[Outline] = field(default_factory=list)
    size_yx: tuple[int, int] | None = None
    skipped: Counter[str] = field(default_factory=Counter)
    planes: set[tuple[str, ...]] = field(default_factory=set)


def make_ring(points: Any, where: str, entry: str) -> Ring:
    """Convert points to a ring.

    Parameters
    ----------
    points
        Array or nested sequence ``(N, 2)`` or, as some programs write it, with more numbers per point.
    where
        File, for errors.
    entry
        Name of the entry, for errors, such as ``feature 3``.

    Raises
    ------
    InputError
        The points are not pairs of finite numbers of at most `LARGEST`.
    """
    if isinstance(points, list) and not points:
        return np.zeros((0, 2))
    try:
        ring = np.asarray(points, np.float64)
    except (TypeError, ValueError, OverflowError):
        ring = np.zeros(0)
    if ring.ndim != 2 or ring.shape[1] < 2:
        raise InputError(where, f"{entry} has points that are not x and y", REMEDY)
    ring = ring[:, :2]
    if not (np.abs(ring) <= LARGEST).all():
        problem = f"{entry} has coordinates that are not finite or beyond {LARGEST:.0e} pixels"
        raise InputError(where, problem, REMEDY)
    return ring


REMEDY = "Export the outlines again in pixels, or remove this entry"
"""Remedy for an outline that is not valid."""


def find_size(sides: object) -> tuple[int, int] | None:
    """Return height and width if they are two positive integers of at most 10^9, else None."""
    if not isinstance(sides, list) or len(sides) != 2 or not all(type(side) is int for side in sides):
        return None
    height, width = sides
    return (height, width) if 0 < height <= LARGEST and 0 < width <= LARGEST else None


def make_rectangle(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    """Return the corners of a rectangle."""
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def make_ellipse(center_x: float, center_y: float, radius_x: float, radius_y: float) -> list[list[float]]:
    """Return the corners of a polygon that differs from an ellipse by less than 0.001 pixels.

    Examples
    --------
    >>> len(make_ellipse(0, 0, 10, 5))
    223
    """
    radius = min(max(abs(radius_x), abs(radius_y), 1.0), LARGEST) if math.isfinite(radius_x + radius_y) else 1.0
    sides = min(max(8, math.ceil(math.pi * math.sqrt(radius / 2 / _SAGITTA))), _MOST_SIDES)
    angles = [2 * math.pi * side / sides for side in range(sides)]
    return [[center_x + radius_x * math.cos(angle), center_y + radius_y * math.sin(angle)] for angle in angles]


def classify(name: str, ignored: Sequence[str] = ()) -> dict[str, Any]:
    """Return the name and kind of an outline of a class.

    Names of a background class stand for background in every program; ``ignored`` are those of ignored regions.
    """
    if name in ignored:
        return {"kind": "ignored"}
    return {"kind": "background"} if name.strip("_").lower() == "background" else {"name": name}
