"""Position, size and shape of objects: moments, outline and convex hull."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from septa.objects.hulls import HullRows, find_hulls, measure_ferets
from septa.objects.runs import Array, Integers, Reals, Runs

# Share of a pixel's step in the outline, by its neighbours of the same outline: 1 + 2 for each one by a side + 10 for
# each one by a corner. From K. Benkrid et al., "Design and FPGA implementation of a perimeter estimator", 2000.
_STEPS = dict.fromkeys((5, 7, 15, 17, 25, 27), 1.0) | dict.fromkeys((21, 33), np.sqrt(2))
_STEPS |= dict.fromkeys((13, 23), (1 + np.sqrt(2)) / 2)
PixelSize = tuple[float, float] | None
_ROUND = 1e-9
"""Relative difference of the axes below which an object has no direction."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ObjectMoments:
    """Boxes, centroids and second central moments of objects.

    Attributes
    ----------
    top, left, bottom, right
        Box: first row and column, and one past the last.
    y, x
        Centroid.
    yy, xx, xy
        Second moments around the centroid, divided by the area. Pixels are points.
    """

    top: Integers
    left: Integers
    bottom: Integers
    right: Integers
    y: Reals
    x: Reals
    yy: Reals
    xx: Reals
    xy: Reals

    def find_axes(self, y_um: float = 1.0, x_um: float = 1.0) -> tuple[Reals, Reals]:
        """Return the largest and the least variance along a line, for pixels of a size."""
        yy, xx, xy = self.yy * y_um**2, self.xx * x_um**2, self.xy * y_um * x_um
        middle, spread = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
        return middle + spread, np.maximum(middle - spread, 0)


def measure_moments(runs: Runs, height: int, width: int, origin_yx: tuple[int, int] = (0, 0)) -> ObjectMoments:
    """Compute boxes, centroids and moments in closed form from runs; ``origin_yx`` is the place of the first pixel."""
    objects, length, area = runs.objects[runs.inside], runs.lengths[runs.inside], runs.areas
    row, left = np.divmod(runs.starts[runs.inside], max(1, width))
    top, first = np.full(runs.ids.size, height), np.full(runs.ids.size, width)
    bottom, last = np.zeros((2, runs.ids.size), np.int64)
    np.minimum.at(top, objects, row)
    np.minimum.at(first, objects, left)
    np.maximum.at(bottom, objects, row + 1)
    np.maximum.at(last, objects, left + length)
    # ObjectMoments are taken from the box's corner, then from the centroid, so no digits cancel in large images.
    y, x = row - top[objects], left - first[objects] + (length - 1) / 2
    mean_y, mean_x = runs.sums(length * y) / area, runs.sums(length * x) / area
    dy, dx = y - mean_y[objects], x - mean_x[objects]
    yy, xy = runs.sums(length * dy**2) / area, runs.sums(length * dy * dx) / area
    xx = runs.sums(length * (dx**2 + (length.astype(np.float64) ** 2 - 1) / 12)) / area
    for rows, columns in ((top, first), (bottom, last)):
        rows += origin_yx[0]
        columns += origin_yx[1]
    return ObjectMoments(
        top=top, left=first, bottom=bottom, right=last, y=top + mean_y, x=first + mean_x, yy=yy, xx=xx, xy=xy
    )


def describe_basic_shapes(moments: ObjectMoments, area: Reals, height: int, width: int) -> dict[str, Array]:
    """Return the basic columns of position, size and shape."""
    long, short = moments.find_axes()
    ratio = np.divide(short, long, out=np.ones_like(long), where=long > 0)
    top, left, bottom, right = moments.top, moments.left, moments.bottom, moments.right
    return {
        "centroid_y": moments.y,
        "centroid_x": moments.x,
        "bbox_top": top,
        "bbox_left": left,
        "bbox_bottom": bottom,
        "bbox_right": right,
        "area": area.astype(np.int64),
        "equivalent_diameter": np.sqrt(4 / np.pi * area),
        "eccentricity": np.sqrt(1 - ratio),
        "touches_edge": (top == 0) | (left == 0) | (bottom == height) | (right == width),
    }


def describe_shapes(
    runs: Runs,
    moments: ObjectMoments,
    objects_yx: npt.NDArray[np.int32],
    pixel_size_um: PixelSize,
    chosen: frozenset[str],
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the columns of shape beyond the basic ones in pixels, and those in micrometres if the scale is known."""
    columns: dict[str, Array] = {}
    scaled: dict[str, Array] = {}
    if chosen & {"perimeter", "circularity"}:
        perimeters = compute_perimeters(objects_yx, runs.ids.size)
        if "perimeter" in chosen:
            columns["perimeter"] = perimeters
        if "perimeter" in chosen and pixel_size_um is not None:
            scaled["perimeter_um"] = perimeters * (pixel_size_um[0] if is_square(pixel_size_um) else np.nan)
        if "circularity" in chosen:
            squares = np.where(perimeters > 0, perimeters**2, np.nan)
            columns["circularity"] = 4 * np.pi * runs.areas / squares
    if chosen & {"solidity", "feret"}:
        hulls = find_hulls(runs, objects_yx.shape[1])
        if "solidity" in chosen:
            columns["solidity"] = runs.areas / hulls.areas
        if "feret" in chosen:
            columns |= _describe_ferets(hulls)
        if "feret" in chosen and pixel_size_um is not None:
            scaled |= add_unit(_describe_ferets(hulls, *pixel_size_um))
    if "axes" in chosen:
        columns |= _describe_axes(moments)
    if "axes" in chosen and pixel_size_um is not None:
        scaled |= add_unit(_describe_axes(moments, *pixel_size_um))
    if "orientation" in chosen:
        columns["orientation_deg"] = _find_orientations(moments)
    return columns, scaled


def is_square(pixel_size_um: tuple[float, float]) -> bool:
    """Return True if the sides of a pixel differ by less than a thousandth."""
    return math.isclose(*pixel_size_um, rel_tol=1e-3)


def add_unit(columns: dict[str, Array]) -> dict[str, Array]:
    """Name columns of lengths in micrometres by their unit."""
    return {f"{name}_um": values for name, values in columns.items()}


def _describe_axes(moments: ObjectMoments, y_um: float = 1.0, x_um: float = 1.0) -> dict[str, Array]:
    long, short = moments.find_axes(y_um, x_um)
    return {"major_axis": 4 * np.sqrt(long), "minor_axis": 4 * np.sqrt(short)}


def _describe_ferets(hulls: HullRows, y_um: float = 1.0, x_um: float = 1.0) -> dict[str, Array]:
    largest, least = measure_ferets(hulls, y_um, x_um)
    return {"feret_max": largest, "feret_min": least}


def _find_orientations(moments: ObjectMoments) -> Reals:
    long, short = moments.find_axes()
    degrees = np.degrees(0.5 * np.arctan2(2 * moments.xy, moments.yy - moments.xx))
    return np.where(long - short > _ROUND * long, degrees, np.nan)


def compute_perimeters(objects_yx: npt.NDArray[np.int32], count: int) -> Reals:
    """Estimate the length of the outline of each object as scikit-image does, `skimage.measure.perimeter`.

    The outline passes through the pixels of the object that have another pixel at a side. Steps to the next ones have
    the length 1 or the square root of 2.
    """
    padded = np.pad(objects_yx, 1, constant_values=-1)
    width = padded.shape[1]
    outline = np.zeros(padded.shape, bool)
    inner = padded[1:-1, 1:-1]
    for other in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        outline[1:-1, 1:-1] |= inner != other
    outline &= padded >= 0
    flat, drawn = padded.reshape(-1), outline.reshape(-1)
    places = np.flatnonzero(drawn)
    objects = flat[places]
    codes = np.ones(places.size, np.int8)
    for weight, steps in ((2, (-width, width, -1, 1)), (10, (-width - 1, -width + 1, width - 1, width + 1))):
        for step in steps:
            codes += np.int8(weight) * (drawn[places + step] & (flat[places + step] == objects))
    lengths = np.zeros(50)
    lengths[list(_STEPS)] = list(_STEPS.values())
    return np.bincount(objects, lengths[codes], count).astype(np.float64)
