"""The watershed, compared with scikit-image where heights differ, and with the definition where they tie."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
import pytest
import skimage.segmentation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from septa.tasks.watershed import UNCERTAIN, watershed

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]
Pixel = tuple[int, int]
UNUSED = 12345  # not an id of `land`


def land(seed: int, size: tuple[int, int], heights: int, seeds: float, covered: float) -> Parts:
    """Draw heights with ties, seeds of few pixels with gaps in their ids, and a mask that excludes some seeds."""
    rng = np.random.default_rng(seed)
    height_yx = rng.integers(0, heights, size).astype(np.uint8)
    seeds_yx = ndimage.label(rng.random(size) < seeds)[0].astype(np.int32)
    return height_yx, np.where(seeds_yx > 0, 70_000 * seeds_yx - 3, 0), rng.random(size) < covered


lands = st.builds(
    land,
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.sampled_from([1, 2, 6, 256]),
    st.sampled_from([0.0, 0.02, 0.1, 0.5]),
    st.sampled_from([0.0, 0.6, 0.8, 1.0]),
)


def by_definition(
    height_yx: np.ndarray, seeds_yx: np.ndarray, mask_yx: np.ndarray, order: tuple[int, ...] = (0, 1, 2, 3)
) -> np.ndarray:
    """Oracle: costs by Dijkstra, then parents by comparing all neighbours, then ids by following parents.

    ``order`` has the ranks of up, left, right and down among equals.
    """
    steps = [step for _, step in sorted(zip(order, ((-1, 0), (0, -1), (0, 1), (1, 0))))]
    ground = {(y, x): int(height_yx[y, x]) for y, x in np.argwhere(mask_yx).tolist()}
    seeds = [pixel for pixel in ground if seeds_yx[pixel] > 0]

    def near(pixel: Pixel) -> list[Pixel]:
        around = [(pixel[0] + row, pixel[1] + column) for row, column in steps]
        return [other for other in around if other in ground]

    def one_on(cost: Pixel, pixel: Pixel) -> Pixel:
        return (ground[pixel], 0) if ground[pixel] > cost[0] else (cost[0], cost[1] + 1)

    costs = {pixel: (ground[pixel], 0) for pixel in seeds}
    waiting = [(cost, pixel) for pixel, cost in costs.items()]
    heapq.heapify(waiting)
    while waiting:
        cost, pixel = heapq.heappop(waiting)
        for other in near(pixel):
            if one_on(cost, other) < costs.get(other, (999, 0)):
                costs[other] = one_on(cost, other)
                heapq.heappush(waiting, (costs[other], other))
    labels_yx = np.zeros(mask_yx.shape, np.int64)
    for pixel in sorted(costs, key=costs.__getitem__):
        if seeds_yx[pixel] > 0:
            labels_yx[pixel] = seeds_yx[pixel]
        else:
            able = [other for other in near(pixel) if other in costs and one_on(costs[other], pixel) == costs[pixel]]
            labels_yx[pixel] = labels_yx[min(able, key=costs.__getitem__)]  # the first of equal ones
    return labels_yx


def passes(height_yx: np.ndarray, from_yx: np.ndarray, mask_yx: np.ndarray) -> np.ndarray:
    """Return the highest ground on the lowest path from marked pixels to each pixel, ends included; else 999."""
    lowest_yx = np.full(mask_yx.shape, 999)
    for level in np.unique(height_yx)[::-1]:
        low_yx = mask_yx & (height_yx <= level)
        regions_yx = ndimage.label(low_yx)[0]
        lowest_yx[low_yx & np.isin(regions_yx, regions_yx[from_yx & low_yx])] = level
    return lowest_yx


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 16), st.integers(1, 16)),
    st.sampled_from([0.01, 0.05, 0.3]),
    st.sampled_from([0.5, 0.8, 1.0]),
)
def test_heights_without_ties_as_in_scikit_image(
    seed: int, size: tuple[int, int], seeds: float, covered: float
) -> None:
    _, seeds_yx, mask_yx = land(seed, size, 1, seeds, covered)
    order = np.random.default_rng(seed).permutation(256)[: seeds_yx.size]
    height_yx = order.reshape(size).astype(np.uint8)
    expected_yx = skimage.segmentation.watershed(height_yx, seeds_yx, connectivity=1, mask=mask_yx)
    if not (seeds_yx * mask_yx).any():
        expected_yx = np.zeros(size)  # without seeds, scikit-image invents some
    np.testing.assert_array_equal(watershed(height_yx, seeds_yx, mask_yx), expected_yx)


@settings(max_examples=150, deadline=None)
@given(lands)
def test_ties_as_defined(parts: Parts) -> None:
    found_yx = watershed(*parts)
    assert found_yx.dtype == np.int32
    np.testing.assert_array_equal(found_yx, by_definition(*parts))


@settings(max_examples=100, deadline=None)
@given(lands)
def test_regions_are_connected_to_their_seeds_and_cover_what_can_be_reached(parts: Parts) -> None:
    _, seeds_yx, mask_yx = parts
    before = [part.copy() for part in parts]
    found_yx = watershed(*parts)
    for part, copy in zip(parts, before):
        np.testing.assert_array_equal(part, copy)
    np.testing.assert_array_equal(watershed(*parts), found_yx)
    inside_yx = mask_yx & (seeds_yx > 0)
    np.testing.assert_array_equal(found_yx[inside_yx], seeds_yx[inside_yx])
    regions_yx = ndimage.label(mask_yx)[0]
    np.testing.assert_array_equal(found_yx > 0, np.isin(regions_yx, np.unique(regions_yx[inside_yx])) & mask_yx)
    for value in np.unique(found_yx[found_yx > 0]):
        pieces_yx, count = ndimage.label(found_yx == value)
        assert set(pieces_yx[inside_yx & (seeds_yx == value)].tolist()) == set(range(1, count + 1))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.02, 0.1]), st.sampled_from([0.7, 1.0]))
def test_no_other_seed_has_a_lower_way(seed: int, seeds: float, covered: float) -> None:
    height_yx, seeds_yx, mask_yx = land(seed, (13, 17), 6, seeds, covered)
    found_yx = watershed(height_yx, seeds_yx, mask_yx)
    seeds_yx = np.where(mask_yx, seeds_yx, 0)
    lowest_yx = passes(height_yx, seeds_yx > 0, mask_yx)
    for value in np.unique(found_yx[found_yx > 0]):
        own_yx = passes(height_yx, seeds_yx == value, found_yx == value)
        np.testing.assert_array_equal(own_yx[found_yx == value], lowest_yx[found_yx == value])


def test_flat_ground_goes_to_the_nearest_seed() -> None:
    seeds_yx = np.zeros((30, 40), np.int32)
    for value, place in enumerate(np.random.default_rng(3).choice(1200, 12, replace=False), 1):
        seeds_yx.flat[place] = value
    found_yx = watershed(np.full(seeds_yx.shape, 9, np.uint8), seeds_yx, np.ones(seeds_yx.shape, bool))
    y, x = np.indices(seeds_yx.shape)
    places = [np.argwhere(seeds_yx == value)[0] for value in range(1, 13)]
    steps_nyx = np.array([abs(y - row) + abs(x - column) for row, column in places])
    own_yx = np.take_along_axis(steps_nyx, found_yx[None] - 1, axis=0)[0]
    np.testing.assert_array_equal(own_yx, steps_nyx.min(axis=0))


def test_regions_meet_on_the_ridge_and_the_lower_side_takes_its_top() -> None:
    height_yx = np.array([[0, 0, 5, 9, 4, 0], [0, 0, 5, 9, 4, 0]], np.uint8)
    seeds_yx = np.zeros((2, 6), np.int32)
    seeds_yx[0, 0], seeds_yx[1, 5] = 8, 3
    found_yx = watershed(height_yx, seeds_yx, np.ones((2, 6), bool))
    np.testing.assert_array_equal(found_yx, [[8, 8, 8, 3, 3, 3]] * 2)


def test_a_basin_between_ridges_of_one_height_is_shared_by_the_way_from_them() -> None:
    height_yx = np.array([[0, 7, 1, 1, 7, 7, 0]], np.uint8)
    found_yx = watershed(height_yx, np.array([[1, 0, 0, 0, 0, 0, 2]]), np.ones((1, 7), bool))
    assert found_yx.tolist() == [[1, 1, 1, 1, 2, 2, 2]]
    by_one = height_yx + np.array([[0, 1, 0, 0, 0, 0, 0]], np.uint8)
    assert watershed(by_one, np.array([[1, 0, 0, 0, 0, 0, 2]]), np.ones((1, 7), bool)).tolist() == [
        [1, 1, 2, 2, 2, 2, 2]
    ]


def test_seeds_outside_the_mask_are_left_out() -> None:
    mask_yx = np.array([[True, True, False, True, True]])
    found_yx = watershed(np.zeros((1, 5), np.uint8), np.array([[0, 0, 4, 0, 6]]), mask_yx)
    assert found_yx.tolist() == [[0, 0, 0, 6, 6]]
    assert not watershed(np.zeros((1, 5), np.uint8), np.array([[0, 0, 4, 0, 0]]), mask_yx).any()


def test_regions_do_not_pass_through_corners_nor_around_edges() -> None:
    mask_yx = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], bool)
    found_yx = watershed(np.zeros((3, 3), np.uint8), np.diag([0, 2, 0]), mask_yx)
    np.testing.assert_array_equal(found_yx, np.diag([0, 2, 0]))
    mask_yx = np.array([[0, 0, 1], [1, 0, 0]], bool)  # neighbours in memory, but not in the image
    assert not watershed(np.zeros((2, 3), np.uint8), np.array([[0, 0, 0], [5, 0, 0]]), mask_yx)[0].any()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.uint32])
def test_ids_of_any_integers(dtype: type[np.generic]) -> None:
    seeds_yx = np.array([[65_535, 0, 0, 1]]).astype(dtype)
    found_yx = watershed(np.zeros((1, 4), np.uint8), seeds_yx, np.ones((1, 4), bool))
    assert found_yx.tolist() == [[65_535, 65_535, 1, 1]]
    big = np.array([[2**31 - 1, 0, 0, 65_536]])
    assert watershed(np.zeros((1, 4), np.uint8), big, np.ones((1, 4), bool)).tolist() == [
        [2**31 - 1] * 2 + [65_536] * 2
    ]


@pytest.mark.parametrize("value", [0, 255])
def test_lowest_and_highest_ground(value: int) -> None:
    seeds_yx = np.zeros((4, 5), np.int32)
    seeds_yx[2, 2] = 3
    assert (watershed(np.full((4, 5), value, np.uint8), seeds_yx, np.ones((4, 5), bool)) == 3).all()


@pytest.mark.parametrize(("seed", "mask", "expected"), [(5, True, 5), (5, False, 0), (0, True, 0)])
def test_one_pixel(seed: int, mask: bool, expected: int) -> None:
    assert watershed(np.zeros((1, 1), np.uint8), np.array([[seed]]), np.array([[mask]])).tolist() == [[expected]]


@pytest.mark.parametrize("size", [(0, 0), (0, 4), (3, 0)])
def test_no_pixel(size: tuple[int, int]) -> None:
    found_yx = watershed(np.zeros(size, np.uint8), np.zeros(size, np.int32), np.zeros(size, bool))
    assert found_yx.shape == size
    assert found_yx.dtype == np.int32


def test_views_with_strides() -> None:
    parts = land(5, (40, 30), 6, 0.05, 0.9)
    views = [part.T[::-2, 1::3] for part in parts]
    np.testing.assert_array_equal(watershed(*views), by_definition(*views))


@pytest.mark.parametrize(
    "sizes",
    [((3, 4), (3, 5), (3, 4)), ((3, 4), (3, 4), (4, 3)), ((4, 4), (3, 4), (3, 4)), ((4,),) * 3, ((1, 2, 2),) * 3],
)
def test_sizes_that_differ_are_refused(sizes: tuple[tuple[int, ...], ...]) -> None:
    height, seeds, mask = sizes
    with pytest.raises(ValueError, match="must have the same size YX, got") as caught:
        watershed(np.zeros(height, np.uint8), np.zeros(seeds, np.int32), np.zeros(mask, bool))
    assert all(str(size) in str(caught.value) for size in sizes)


# --- no order, windows --------------------------------------------------------------------------------------------


def upside_down(values_yx: np.ndarray) -> np.ndarray:
    return values_yx[::-1]


def mirrored(values_yx: np.ndarray) -> np.ndarray:
    return values_yx[:, ::-1]


@pytest.mark.parametrize(
    ("turn", "order"), [(upside_down, (3, 1, 2, 0)), (mirrored, (0, 2, 1, 3)), (np.transpose, (1, 0, 3, 2))]
)
@settings(max_examples=40, deadline=None)
@given(lands)
def test_mirrored_and_turned_but_for_the_order_of_equals(
    turn: Callable[[np.ndarray], np.ndarray], order: tuple[int, ...], parts: Parts
) -> None:
    np.testing.assert_array_equal(watershed(*map(turn, parts)), turn(by_definition(*parts, order)))


@settings(max_examples=60, deadline=None)
@given(lands, st.tuples(*[st.integers(0, 5)] * 4))
def test_background_around_changes_nothing(parts: Parts, around: tuple[int, int, int, int]) -> None:
    wide = [np.pad(part, (around[:2], around[2:])) for part in parts]
    rows, columns = parts[0].shape
    found_yx = watershed(*wide)[around[0] : around[0] + rows, around[2] : around[2] + columns]
    np.testing.assert_array_equal(found_yx, watershed(*parts))


@settings(max_examples=200, deadline=None)
@given(lands, st.data())
def test_what_is_certain_in_a_window_holds_for_the_image(parts: Parts, data: st.DataObject) -> None:
    rows, columns = parts[0].shape
    top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    bottom, right = data.draw(st.integers(top + 1, rows)), data.draw(st.integers(left + 1, columns))
    window = np.s_[top:bottom, left:right]
    sides = (top > 0, bottom < rows, left > 0, right < columns)
    found_yx = watershed(*(part[window] for part in parts), sides)
    certain_yx = found_yx != UNCERTAIN
    np.testing.assert_array_equal(found_yx[certain_yx], watershed(*parts)[window][certain_yx])
    assert certain_yx[~parts[2][window] | (parts[1][window] > 0)].all()
    assert certain_yx.all() or any(sides)


@settings(max_examples=60, deadline=None)
@given(lands)
def test_what_is_uncertain_can_turn_out_differently(parts: Parts) -> None:
    """A window marks no more pixels as uncertain than necessary."""
    height_yx, seeds_yx, mask_yx = parts
    height_yx = np.maximum(height_yx, 1)
    found_yx = watershed(height_yx, seeds_yx, mask_yx, (True,) * 4)
    # With seeds on lower ground all around the window, exactly the pixels that they take are uncertain.
    wide = [
        np.pad(part, 1, constant_values=outer) for part, outer in zip((height_yx, seeds_yx, mask_yx), (0, UNUSED, 1))
    ]
    np.testing.assert_array_equal((watershed(*wide) == UNUSED)[1:-1, 1:-1], found_yx == UNCERTAIN)


def test_a_pixel_that_an_open_side_might_reach_as_soon_is_uncertain_by_the_order_of_equals() -> None:
    height_yx, mask_yx = np.zeros((1, 5), np.uint8), np.ones((1, 5), bool)
    seeds_yx = np.array([[0, 0, 0, 0, 7]])
    found_yx = watershed(height_yx, seeds_yx, mask_yx, (False, False, True, False))
    assert found_yx.tolist() == [[UNCERTAIN] * 3 + [7, 7]]
    found_yx = watershed(height_yx, seeds_yx[:, ::-1], mask_yx, (False, False, False, True))
    assert found_yx.tolist() == [[7, 7, 7, UNCERTAIN, UNCERTAIN]]


def test_seeds_on_an_open_side_are_seeds() -> None:
    seeds_yx = np.array([[3, 0, 0, 0]])
    found_yx = watershed(
        np.array([[5, 1, 1, 1]], np.uint8), seeds_yx, np.ones((1, 4), bool), (False, False, True, False)
    )
    assert found_yx.tolist() == [[3] * 4]
