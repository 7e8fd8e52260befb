"""Outlines become the pixels whose centres they enclose, as shapely decides and as pycocotools decodes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from septa.errors import InputError
from septa.labels.outlines.coco import decode_counts
from septa.labels.outlines.outline import Outline, make_ellipse
from septa.labels.outlines.raster import counts_to_boxes, mask_to_boxes, rasterize
from septa.objects import trace_outlines

PLACES = st.integers(-300, 1500).map(lambda value: value / 100)
POINTS = st.lists(st.tuples(PLACES, PLACES), min_size=3, max_size=7)


def ring(points: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(points, np.float64).reshape(-1, 2)


def square(left: float, top: float, side: float, **more: Any) -> Outline:
    corners = [[left, top], [left + side, top], [left + side, top + side], [left, top + side]]
    return Outline(((ring(corners),),), **more)


@settings(max_examples=60, deadline=None)
@given(POINTS, POINTS)
@example([(0.0, 0.0)] * 3, [(0.0, 0.0), (1.26, 1.25), (0.31, 0.3), (0.0, 0.04), (0.63, 0.62), (0.0, 0.04)])
def test_pixels_are_those_whose_centres_shapely_finds_inside(outer: Any, hole: Any) -> None:
    found_yx = rasterize([Outline(((ring(outer), ring(hole)),))], (9, 12), "a.geojson").labels_yx
    # By the even-odd rule, a point is inside if an odd number of the triangles of two fans contain it.
    fans = [[points[0], one, other] for points in (outer, hole) for one, other in pairwise(points[1:])]
    triangles = np.array([shapely.Polygon(corners) for corners in fans])[:, None, None]
    y, x = np.mgrid[:9, :12] + 0.5
    centres = shapely.points(x, y)
    sure_yx = (shapely.distance(shapely.boundary(triangles), centres) > 1e-6).all(axis=0)
    solid = triangles[shapely.area(triangles) > 0].reshape(-1, 1, 1)
    inside_yx = np.logical_xor.reduce(shapely.contains(solid, centres), axis=0)
    np.testing.assert_array_equal((found_yx > 0)[sure_yx], inside_yx[sure_yx])


@settings(max_examples=60, deadline=None)
@given(POINTS, POINTS.map(lambda points: points[0]))
def test_triangles_that_share_edges_neither_overlap_nor_leave_gaps(points: Any, inner: Any) -> None:
    hull = shapely.MultiPoint([*points, inner]).convex_hull
    if hull.geom_type != "Polygon":
        return
    corners = list(hull.exterior.coords)[:-1]
    fan = [Outline(((ring([corners[0], b, c]),),)) for b, c in pairwise(corners[1:])]
    whole = rasterize([Outline(((ring(corners),),))], (9, 12), "a").labels_yx
    parts = rasterize(fan, (9, 12), "a")
    assert parts.overlaps == 0
    np.testing.assert_array_equal(parts.labels_yx > 0, whole > 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=42, max_size=42))
def test_traced_outlines_give_back_their_pixels(values: list[int]) -> None:
    labels_yx = np.array(values).reshape(6, 7)
    traced = trace_outlines(labels_yx)
    outlines = [Outline(tuple(tuple(map(ring, rings)) for rings in polygons)) for polygons in traced.values()]
    found = rasterize(outlines, (6, 7), "a.geojson")
    ids = np.array([0, *traced])
    np.testing.assert_array_equal(ids[found.labels_yx], labels_yx)
    assert (found.overlaps, found.outside, found.empty) == (0, 0, 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=30, max_size=30))
def test_run_lengths_are_decoded_as_by_pycocotools(values: list[bool]) -> None:
    mask_yx = np.array(values).reshape(5, 6)
    encoded = coco_mask.encode(np.asfortranarray(mask_yx.astype(np.uint8)))["counts"]
    boxes = counts_to_boxes(decode_counts(np.frombuffer(encoded, np.uint8)), 5)
    for given_boxes in (boxes, mask_to_boxes(mask_yx)):
        found_yx = rasterize([Outline(boxes=given_boxes)], (5, 6), "a.json").labels_yx
        np.testing.assert_array_equal(found_yx > 0, mask_yx)


def test_a_pixel_belongs_to_the_smallest_outline() -> None:
    large, small, twin = square(0, 0, 6), square(2, 2, 2), square(3, 2, 2)
    for outlines, numbers in (([large, small, twin], (1, 2, 3)), ([twin, small, large], (3, 2, 1))):
        found = rasterize(outlines, (8, 8), "a.json")
        first, second, third = numbers
        assert found.labels_yx[0, 0] == first
        assert found.labels_yx[2, 2] == second
        assert found.labels_yx[2, 4] == third
        assert found.labels_yx[2, 3] == min(second, third)  # of equal outlines, the earlier
        assert found.overlaps > 0


def test_outlines_without_pixels_get_no_number() -> None:
    outlines = [square(0, 0, 0.3), square(40, 40, 5), square(1, 1, 2), square(1, 1, 2), square(0, 0, 8, kind="ignored")]
    found = rasterize(outlines, (8, 9), "a.json")
    assert (found.objects, found.outside, found.empty) == ([2], 1, 2)
    assert set(np.unique(found.labels_yx)) == {-1, 0, 1}
    assert (found.labels_yx[:, 8] == 0).all()


def test_an_ellipse_holds_the_centres_within_it() -> None:
    found_yx = rasterize([Outline(((ring(make_ellipse(10, 8, 7.3, 5.1)),),))], (17, 20), "a.roi").labels_yx
    y, x = np.mgrid[:17, :20] + 0.5
    np.testing.assert_array_equal(found_yx > 0, ((x - 10) / 7.3) ** 2 + ((y - 8) / 5.1) ** 2 < 1)


def test_hostile_outlines_are_bounded() -> None:
    with pytest.raises(InputError, match="cover the image of 8192 x 8192 pixels more than 100 times"):
        rasterize([square(0, 0, 1e9)] * 101, (8192, 8192), "a.json")
    zigzag = ring([[k % 2, (k % 2) * 1e9] for k in range(60_000)])
    with pytest.raises(InputError, match=r"too many edges \(60000\)"):
        rasterize([Outline(((zigzag,),))], (10_000, 4), "a.json")
