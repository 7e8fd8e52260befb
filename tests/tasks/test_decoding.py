"""Decoding of maps: holes and sizes are compared with scipy, objects with those that were drawn."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import skimage.segmentation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from septa.losses import cut_seams
from septa.tasks.decoding import Decoding, close_seams, fill_holes, find_objects, grow_objects, keep_large
from septa.tasks.watershed import UNCERTAIN


def blobs(*middles: tuple[float, float], radius: float, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw the foreground of discs and their inner map, which falls from 1 at the centre to 0 at the rim."""
    y, x = np.indices(size)
    distance_yx = np.min([np.hypot(y - row, x - column) for row, column in middles], axis=0)
    inner_yx = np.clip(1 - distance_yx / radius, 0, 1).astype(np.float32)
    return (distance_yx < radius).astype(np.float32), inner_yx


def ragged(seed: int, size: tuple[int, int], count: int) -> np.ndarray:
    """Draw random ids with gaps, and holes of all kinds."""
    rng = np.random.default_rng(seed)
    coarse_yx = ndimage.zoom(rng.integers(0, count + 1, (5, 6)), 3, order=0)[: size[0], : size[1]]
    coarse_yx[rng.random(coarse_yx.shape) < 0.25] = 0
    return np.asarray(coarse_yx * 3, np.int32)


def filled(labels_yx: np.ndarray) -> np.ndarray:
    """Oracle: fill the holes of each object by scipy, except those that hold another object."""
    out_yx = labels_yx.copy()
    for value in np.unique(labels_yx[labels_yx > 0]):
        object_yx = labels_yx == value
        holes_yx, count = ndimage.label(ndimage.binary_fill_holes(object_yx) & ~object_yx)
        for hole in range(1, count + 1):
            if not labels_yx[holes_yx == hole].any():
                out_yx[holes_yx == hole] = value
    return out_yx


def slowly(foreground_yx: np.ndarray, inner_yx: np.ndarray, decoding: Decoding) -> list[np.ndarray]:
    """Oracle: find the objects by scikit-image, and finish each by itself as a mask."""
    mask_yx = foreground_yx > decoding.foreground
    seeds_yx, count = ndimage.label(mask_yx & (inner_yx > decoding.seed))
    grown_yx = np.zeros(mask_yx.shape, int)
    if count:
        height_yx = np.rint(255 * (1 - inner_yx.astype(float))).astype(np.uint8)
        grown_yx = skimage.segmentation.watershed(height_yx, seeds_yx, connectivity=1, mask=mask_yx)
    alone_yx, _ = ndimage.label(mask_yx & (grown_yx == 0))
    every_yx = filled(np.where(alone_yx > 0, alone_yx + count, grown_yx).astype(np.int32))
    masks = [every_yx == value for value in np.unique(every_yx[every_yx > 0])]
    return [mask for mask in masks if mask.sum() >= decoding.least_pixels]


# --- objects ------------------------------------------------------------------------------------------------------


def test_two_touching_blobs_are_split_where_they_meet() -> None:
    foreground_yx, inner_yx = blobs((12, 10), (12, 25), radius=9, size=(25, 36))
    assert ndimage.label(foreground_yx)[1] == 1
    found_yx = find_objects(foreground_yx, inner_yx, Decoding(seed=0.5))
    assert found_yx.dtype == np.int32
    np.testing.assert_array_equal(found_yx > 0, foreground_yx > 0.5)
    columns = np.indices(found_yx.shape)[1]
    left, right = found_yx[12, 10], found_yx[12, 25]
    assert {left, right} == {1, 2}
    assert (found_yx[(columns < 17) & (found_yx > 0)] == left).all()
    assert (found_yx[(columns > 18) & (found_yx > 0)] == right).all()
    # Seeds that reach each other are one object.
    assert find_objects(foreground_yx, inner_yx, Decoding(seed=0.1)).max() == 1


def test_foreground_without_a_seed_is_an_object_of_its_own() -> None:
    foreground_yx, inner_yx = blobs((10, 10), radius=8, size=(21, 60))
    foreground_yx[5, 30:50] = foreground_yx[15, 30:50] = 0.6
    found_yx = find_objects(foreground_yx, inner_yx, Decoding())
    assert found_yx.max() == 3
    assert len({found_yx[10, 10], found_yx[5, 40], found_yx[15, 40]}) == 3
    np.testing.assert_array_equal(found_yx > 0, foreground_yx > 0.5)


def test_foreground_that_a_seed_reaches_is_none_of_its_own() -> None:
    foreground_yx, inner_yx = np.ones((1, 9), np.float32), np.zeros((1, 9), np.float32)
    inner_yx[0, 4] = 1
    assert find_objects(foreground_yx, inner_yx, Decoding()).tolist() == [[1] * 9]


def test_seeds_lie_in_the_foreground() -> None:
    foreground_yx = np.array([[0.9, 0.9, 0.4, 0.4, 0.0]], np.float32)
    inner_yx = np.array([[0.1, 0.9, 0.9, 0.9, 0.9]], np.float32)
    assert find_objects(foreground_yx, inner_yx, Decoding()).tolist() == [[1, 1, 0, 0, 0]]
    assert find_objects(foreground_yx, inner_yx, Decoding(foreground=0.3)).tolist() == [[1, 1, 1, 1, 0]]


def test_thresholds_themselves_are_not_above_them() -> None:
    half = np.full((2, 2), 0.5, np.float32)
    assert not find_objects(half, half, Decoding()).any()
    maps = np.ones((1, 3), np.float32), np.array([[0.75, 0.5, 0.75]], np.float32)
    assert find_objects(*maps, Decoding(seed=0.5)).max() == 2
    assert find_objects(*maps, Decoding(seed=0.49)).max() == 1


def test_seeds_that_touch_at_a_corner_are_two() -> None:
    inner_yx = np.eye(2, dtype=np.float32)
    assert find_objects(np.ones((2, 2), np.float32), inner_yx, Decoding()).max() == 2


def test_small_objects_are_dropped_after_their_holes_were_filled() -> None:
    foreground_yx = np.zeros((5, 12), np.float32)
    foreground_yx[1:4, 1:4], foreground_yx[2, 2] = 1, 0  # 8 pixels around a hole
    foreground_yx[1:3, 6:10] = 1  # 8 pixels
    for least, count in ((8, 2), (9, 1), (10, 0)):
        found_yx = find_objects(foreground_yx, foreground_yx, Decoding(least_pixels=least))
        assert found_yx.max(initial=0) == count
    assert find_objects(foreground_yx, foreground_yx, Decoding(least_pixels=9))[2].tolist() == [0, 1, 1, 1] + [0] * 8


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (20, 30)])
def test_all_background_and_all_one_object(size: tuple[int, int]) -> None:
    none_yx, all_yx = np.zeros(size, np.float32), np.ones(size, np.float32)
    assert not find_objects(none_yx, all_yx, Decoding()).any()
    assert not find_objects(none_yx, none_yx, Decoding()).any()
    for inner_yx in (all_yx, none_yx):
        np.testing.assert_array_equal(find_objects(all_yx, inner_yx, Decoding()), np.ones(size))
    assert not find_objects(all_yx, all_yx, Decoding(least_pixels=all_yx.size + 1)).any()


def test_many_more_objects_than_sixteen_bits_hold() -> None:
    foreground_yx = np.zeros((600, 520), np.float32)
    foreground_yx[::2, ::2] = 1
    found_yx = find_objects(foreground_yx, foreground_yx, Decoding())
    assert found_yx.max() == 300 * 260 > 65_535
    assert len(np.unique(found_yx)) == 300 * 260 + 1
    np.testing.assert_array_equal(found_yx > 0, foreground_yx > 0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 14), st.integers(1, 18)),
    st.sampled_from([0.3, 0.5, 0.7]),
    st.sampled_from([0.4, 0.6, 0.9]),
    st.sampled_from([1, 2, 9]),
)
def test_objects_as_by_scikit_image_and_scipy(
    seed: int, size: tuple[int, int], foreground: float, inner: float, least: int
) -> None:
    rng = np.random.default_rng(seed)
    foreground_yx = ndimage.gaussian_filter(rng.random(size), 0.7).astype(np.float32)
    # Heights have no ties, so there is only one watershed.
    inner_yx = (1 - rng.permutation(256)[: foreground_yx.size].reshape(size) / 255).astype(np.float32)
    decoding = Decoding(foreground, inner, least)
    maps = foreground_yx.copy(), inner_yx.copy()
    found_yx = find_objects(foreground_yx, inner_yx, decoding)
    np.testing.assert_array_equal((foreground_yx, inner_yx), maps)
    expected = slowly(foreground_yx, inner_yx, decoding)
    assert np.unique(found_yx[found_yx > 0]).tolist() == list(range(1, len(expected) + 1))
    for mask_yx in expected:
        (value,) = set(found_yx[mask_yx].tolist())
        np.testing.assert_array_equal(found_yx == value, mask_yx)


def test_foreground_without_a_seed_is_uncertain_where_the_image_goes_on() -> None:
    foreground_yx = np.array([[1, 1, 0, 1, 0, 1, 1]], np.float32)
    nothing_yx = np.zeros_like(foreground_yx)
    assert grow_objects(foreground_yx, nothing_yx, Decoding(), (False, False, True, False)).tolist() == [
        [-1, -1, 0, 1, 0, 2, 2]
    ]
    assert grow_objects(foreground_yx, nothing_yx, Decoding(), (False, False, False, True)).tolist() == [
        [1, 1, 0, 2, 0, -1, -1]
    ]


# --- holes --------------------------------------------------------------------------------------------------------


def test_holes_of_one_object_are_filled_and_no_others() -> None:
    labels_yx = np.array(
        [
            [5, 5, 5, 5, 9, 9, 9, 0, 5],
            [5, 0, 0, 5, 0, 0, 9, 0, 0],  # within 5; between 5 and 9; open to the edge
            [5, 0, 5, 5, 9, 9, 9, 9, 9],
            [5, 5, 5, 0, 9, 0, 9, 0, 9],  # between; within 9; within 9, on the edge
            [5, 5, 5, 9, 9, 9, 9, 0, 9],
        ],
        np.int32,
    )
    expected_yx = labels_yx.copy()
    expected_yx[1, 1:3] = expected_yx[2, 1] = 5
    expected_yx[3, 5] = 9
    np.testing.assert_array_equal(fill_holes(labels_yx), expected_yx)
    assert labels_yx[1, 1] == 0
    assert fill_holes(labels_yx).dtype == np.int32


def test_diagonal_gaps_do_not_open_a_hole() -> None:
    labels_yx = np.array([[0, 7, 7, 0], [7, 0, 0, 7], [0, 7, 7, 0]], np.int32)
    assert fill_holes(labels_yx)[1].tolist() == [7, 7, 7, 7]
    np.testing.assert_array_equal(fill_holes(labels_yx)[::2], labels_yx[::2])


def test_nested_holes() -> None:
    labels_yx = np.zeros((13, 13), np.int32)
    for value, inset in ((4, 1), (70_000, 3)):
        labels_yx[inset:-inset, inset:-inset] = value
        labels_yx[inset + 1 : -inset - 1, inset + 1 : -inset - 1] = 0
    found_yx = fill_holes(labels_yx)
    assert found_yx[6].tolist() == [0, 4, 0, *[70_000] * 7, 0, 4, 0]  # the ring between both belongs to neither object
    labels_yx[labels_yx == 70_000] = 4  # a ring in a ring of one object is filled completely
    assert (fill_holes(labels_yx)[1:-1, 1:-1] == 4).all()
    assert not fill_holes(labels_yx)[0].any()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.tuples(st.integers(1, 15), st.integers(1, 18)), st.sampled_from([1, 2, 5, 30]))
def test_holes_as_by_scipy(seed: int, size: tuple[int, int], count: int) -> None:
    labels_yx = ragged(seed, size, count)
    np.testing.assert_array_equal(fill_holes(labels_yx), filled(labels_yx))
    if len(np.unique(labels_yx[labels_yx > 0])) == 1:
        np.testing.assert_array_equal(fill_holes(labels_yx) > 0, ndimage.binary_fill_holes(labels_yx > 0))


@pytest.mark.parametrize("value", [0, 6])
def test_no_holes_without_background_or_objects(value: int) -> None:
    for size in ((1, 1), (1, 5), (4, 5)):
        labels_yx = np.full(size, value, np.int32)
        np.testing.assert_array_equal(fill_holes(labels_yx), labels_yx)


# --- sizes --------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 40))
def test_large_objects_are_kept_in_order(seed: int, count: int, least: int) -> None:
    labels_yx = ragged(seed, (14, 17), count)
    before_yx = labels_yx.copy()
    found_yx = keep_large(labels_yx, least)
    np.testing.assert_array_equal(labels_yx, before_yx)
    values, sizes = np.unique(labels_yx[labels_yx > 0], return_counts=True)
    kept = values[sizes >= least]
    expected_yx = np.zeros(labels_yx.shape)
    for number, value in enumerate(kept, 1):
        expected_yx[labels_yx == value] = number
    assert found_yx.dtype == np.int32
    np.testing.assert_array_equal(found_yx, expected_yx)


def test_background_is_not_a_large_object() -> None:
    assert not keep_large(np.zeros((9, 9), np.int32), 1).any()
    assert keep_large(np.array([[0, 0, 0, 100_000]], np.int32), 1).tolist() == [[0, 0, 0, 1]]


@pytest.mark.parametrize("side", range(4), ids=["top", "bottom", "left", "right"])
@pytest.mark.parametrize("reach", [1, 3, 8])
def test_a_window_decides_nothing_that_a_seed_beyond_may_reach(side: int, reach: int) -> None:
    size, seed, cut = 31, (15, 15), 18  # the only seed lies three pixels beyond the window
    foreground_yx, inner_yx = np.ones((size, size), np.float32), np.zeros((size, size), np.float32)
    inner_yx[seed] = 1
    window = (slice(cut, None), slice(None)) if side < 2 else (slice(None), slice(cut, None))
    if side % 2:
        window = tuple(slice(None) if part.start is None else slice(0, size - cut) for part in window)
    decoding = Decoding(reach=reach)
    whole_yx = grow_objects(foreground_yx, inner_yx, decoding)[window]
    open_sides = tuple(number == side for number in range(4))
    found_yx = grow_objects(foreground_yx[window], inner_yx[window], decoding, open_sides)
    certain_yx = found_yx != UNCERTAIN
    pairs = set(zip(found_yx[certain_yx].tolist(), whole_yx[certain_yx].tolist()))
    assert len(pairs) == len({found for found, _ in pairs})  # pixels of one id belong to one object
    assert len(np.unique(whole_yx)) == 1 + (reach >= 3)  # foreground that no seed reaches is an object too


# --- seams and holes ----------------------------------------------------------------------------------------------


def close_slowly(labels_yx: np.ndarray) -> np.ndarray:
    """Close the foreground by a cross, pixel by pixel, and give each new pixel to its first neighbour."""
    height, width = labels_yx.shape
    grown_yx = ndimage.binary_dilation(labels_yx > 0)
    closed_yx, seam = labels_yx.copy(), []
    for y, x in np.argwhere(labels_yx == 0):
        around = [(y, x - 1), (y - 1, x), (y, x + 1), (y + 1, x), (y, x)]
        if all(grown_yx[row, column] for row, column in around if 0 <= row < height and 0 <= column < width):
            seam.append((y, x))
    for right in (-1, -1, 1):
        before_yx = np.pad(closed_yx, 1)
        for y, x in seam:
            sides = (y, x + right), (y + right, x)
            found = [before_yx[row + 1, column + 1] for row, column in ((y, x), *sides)]
            closed_yx[y, x] = next((value for value in found if value), 0)
    return closed_yx


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.tuples(st.integers(1, 14), st.integers(1, 14)), st.floats(0.3, 0.95))
def test_seams_are_closed_as_by_a_loop(seed: int, size: tuple[int, int], cover: float) -> None:
    rng = np.random.default_rng(seed)
    labels_yx = (rng.integers(1, 9, size) * (rng.random(size) < cover)).astype(np.int32)
    np.testing.assert_array_equal(close_seams(labels_yx), close_slowly(labels_yx))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.tuples(*[st.integers(0, 4)] * 4), st.floats(0.3, 0.95))
def test_closed_seams_do_not_depend_on_the_window(seed: int, left_out: tuple[int, ...], cover: float) -> None:
    rng = np.random.default_rng(seed)
    labels_yx = (rng.integers(1, 9, (16, 18)) * (rng.random((16, 18)) < cover)).astype(np.int32)
    top, bottom, left, right = left_out
    window = slice(top, 16 - bottom), slice(left, 18 - right)
    open_sides = top > 0, bottom > 0, left > 0, right > 0
    found_yx, whole_yx = close_seams(labels_yx[window], open_sides), close_slowly(labels_yx)[window]
    certain_yx = found_yx != UNCERTAIN
    np.testing.assert_array_equal(found_yx[certain_yx], whole_yx[certain_yx])
    # The id of a pixel depends on others up to four steps away.
    rows, columns = found_yx.shape
    assert certain_yx[4 * (top > 0) : rows - 4 * (bottom > 0), 4 * (left > 0) : columns - 4 * (right > 0)].all()


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0, -0.4, -1.0])
def test_seams_between_touching_objects_are_given_back(slope: float) -> None:
    y, x = np.ogrid[:30, :40]
    labels_yx = np.where(x - 20 < slope * (y - 15), 4, 9).astype(np.int32)
    assert np.count_nonzero(close_seams(cut_seams(labels_yx)) != labels_yx) <= 1  # at the edge of the image


def test_holes_are_kept_if_the_decoding_says_so() -> None:
    ring_yx = np.ones((7, 7), np.float32)
    ring_yx[2:5, 2:5] = 0
    assert find_objects(ring_yx, ring_yx, Decoding())[3, 3] == 1
    assert find_objects(ring_yx, ring_yx, Decoding(fill_holes=False)).tolist() == ring_yx.astype(int).tolist()


# --- thresholds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"foreground": 0.0},
        {"foreground": 1.0},
        {"foreground": -0.1},
        {"seed": 0.0},
        {"seed": 1.0},
        {"seed": math.nan},
        {"foreground": math.nan},
        {"foreground": math.inf},
        {"least_pixels": 0},
        {"least_pixels": -5},
        {"least_pixels": 2**31},
        {"reach": -1},
        {"reach": 65537},
        {"join_pixels": -1},
        {"join_pixels": 2**31},
    ],
)
def test_thresholds_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1, least_pixels at least 1, reach 0 to 65536, join_pixels at"):
        Decoding(**values)
    with pytest.raises(ValueError, match="foreground and seed must be between 0 and 1"):
        Decoding.from_json({**Decoding().to_json(), **values})


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999), st.integers(1, 10**6))
def test_thresholds_through_json(foreground: float, seed: float, least: int) -> None:
    decoding = Decoding(foreground, seed, least, least % 50, join_pixels=least % 70)
    read = Decoding.from_json(json.loads(json.dumps(decoding.to_json())))
    assert read == decoding
    assert isinstance(read.least_pixels, int)
    shares = {"foreground": foreground, "seed": seed, "least_pixels": least}
    others = {"reach": least % 50, "close_seams": False, "fill_holes": True, "join_pixels": least % 70}
    assert read.to_json() == shares | others
    older = {name: value for name, value in decoding.to_json().items() if name in shares}
    assert Decoding.from_json(older) == Decoding(foreground, seed, least)


@pytest.mark.parametrize("reach", [1, 3, 20])
def test_objects_end_within_reach_of_their_seed_and_the_rest_is_an_object_of_its_own(reach: int) -> None:
    rng = np.random.default_rng(reach)
    foreground_yx = (rng.random((40, 50)) < 0.9).astype(np.float32)
    inner_yx = (0.4 * rng.random((40, 50))).astype(np.float32)
    inner_yx[rng.random((40, 50)) < 0.01] = 0.8
    seeds_yx = (inner_yx > 0.5) & (foreground_yx > 0)
    near_yx = ndimage.maximum_filter(seeds_yx, 2 * reach + 1) & (foreground_yx > 0)
    found_yx = find_objects(foreground_yx, inner_yx, Decoding(reach=reach))
    inside_yx = find_objects(np.where(near_yx, foreground_yx, 0).astype(np.float32), inner_yx, Decoding())
    reached_yx = near_yx & np.isin(inside_yx, inside_yx[seeds_yx])  # near but disconnected pixels are not reached
    pairs = np.unique(np.stack([found_yx[reached_yx], inside_yx[reached_yx]]), axis=1)
    assert pairs.shape[1] == np.unique(pairs[0]).size == np.unique(pairs[1]).size
    rest_yx = (foreground_yx > 0) & ~reached_yx
    alone_yx, count = ndimage.label(rest_yx)
    assert not np.isin(found_yx[rest_yx], found_yx[reached_yx]).any()
    pairs = np.unique(np.stack([found_yx[rest_yx], alone_yx[rest_yx]]), axis=1)
    assert pairs.shape[1] == count


@pytest.mark.parametrize("values", [{}, {"foreground": 0.5, "seed": 0.5}, [], 3, None])
def test_other_json_than_thresholds_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match=r"decoding: (KeyError|TypeError)"):
        Decoding.from_json(values)


@pytest.mark.parametrize("values", [{"foreground": "much"}, {"seed": None}, {"least_pixels": 1.5}, {"reach": True}])
def test_thresholds_that_are_not_numbers_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="decoding: not the numbers of thresholds"):
        Decoding.from_json({**Decoding().to_json(), **values})
