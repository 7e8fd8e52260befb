"""Regions that are parts of one object, against a rule that is applied pair by pair."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from septa.tasks.decoding import Decoding, find_objects
from septa.tasks.joining import find_roots, join_parts
from septa.tasks.watershed import UNCERTAIN


def join_slowly(labels_yx: np.ndarray, height_yx: np.ndarray, seed: float, join_pixels: int) -> list[set[int]]:
    """Return the regions of each object: the rule as it is stated, with loops."""
    saddles: dict[tuple[int, int], float] = {}
    rows, columns = labels_yx.shape
    for y, x in product(range(rows), range(columns)):
        for down, right in ((1, 0), (0, 1)):
            if y + down < rows and x + right < columns:
                one, other = int(labels_yx[y, x]), int(labels_yx[y + down, x + right])
                if one and other and one != other:
                    inner = min(255 - int(height_yx[y, x]), 255 - int(height_yx[y + down, x + right])) / 255
                    pair = min(one, other), max(one, other)
                    saddles[pair] = max(inner, saddles.get(pair, 0))
    objects = [{int(region)} for region in np.unique(labels_yx[labels_yx > 0])]
    for (one, other), saddle in saddles.items():
        area = int((labels_yx == one).sum() + (labels_yx == other).sum())
        if area < join_pixels * min(1.0, saddle / seed):
            mine = next(regions for regions in objects if one in regions)
            theirs = next(regions for regions in objects if other in regions)
            if mine is not theirs:
                mine |= theirs
                objects.remove(theirs)
    return objects


def draw(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw touching regions of many sizes, and heights of noise."""
    rng = np.random.default_rng(seed)
    points = np.ones(size, bool)
    points[rng.integers(0, size[0], 12), rng.integers(0, size[1], 12)] = False
    nearest = ndimage.distance_transform_edt(points, return_distances=False, return_indices=True)
    ids_yx = (nearest[0] * size[1] + nearest[1] + 1).astype(np.int32)
    ids_yx[ndimage.gaussian_filter(rng.random(size), 1) < 0.45] = 0
    return ids_yx, rng.integers(0, 256, size).astype(np.uint8)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(2, 18), st.integers(2, 18)),
    st.sampled_from([0.25, 0.5, 0.9]),
    st.integers(1, 150),
)
def test_every_pair_is_judged_by_its_area_and_its_saddle(
    seed: int, size: tuple[int, int], threshold: float, join_pixels: int
) -> None:
    labels_yx, height_yx = draw(seed, size)
    before = labels_yx.copy()
    found_yx = join_parts(labels_yx, height_yx, threshold, join_pixels)
    np.testing.assert_array_equal(labels_yx, before)
    assert found_yx.dtype == np.int32
    expected_yx = np.zeros_like(labels_yx)
    for regions in join_slowly(labels_yx, height_yx, threshold, join_pixels):
        expected_yx[np.isin(labels_yx, list(regions))] = min(regions)
    np.testing.assert_array_equal(found_yx, expected_yx)


def test_the_draws_have_joined_and_divided_regions() -> None:
    labels_yx, height_yx = draw(1, (18, 18))
    counts = [np.unique(join_parts(labels_yx, height_yx, 0.5, pixels)).size for pixels in (1, 40, 80, labels_yx.size)]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) >= 3


def test_lobes_are_joined_and_nuclei_are_not() -> None:
    inner_yx = np.zeros((30, 70), np.float32)
    inner_yx[5:25, 5:15] = inner_yx[5:25, 16:26] = 0.9  # two lobes, between which the inner map is at 0.3
    inner_yx[5:25, 15] = 0.3
    inner_yx[5:25, 30:49] = inner_yx[5:25, 50:69] = 0.9  # two nuclei of twice that size
    inner_yx[5:25, 49] = 0.3
    foreground_yx = (inner_yx > 0).astype(np.float32)
    apart = Decoding(0.5, 0.5)
    assert find_objects(foreground_yx, inner_yx, apart).max() == 4
    assert find_objects(foreground_yx, inner_yx, Decoding(0.5, 0.5, join_pixels=800)).max() == 3  # 420 < 800 * 0.6
    assert find_objects(foreground_yx, inner_yx, Decoding(0.5, 0.5, join_pixels=690)).max() == 4
    assert find_objects(foreground_yx, inner_yx, Decoding(0.5, 0.5, join_pixels=1320)).max() == 2


@pytest.mark.parametrize(("join_pixels", "expected"), [(6, [3, 3, 5, 5]), (7, [3, UNCERTAIN, UNCERTAIN, 5])])
def test_a_region_that_continues_is_undecided_unless_it_is_too_large(join_pixels: int, expected: list[int]) -> None:
    labels_yx = np.array([[3, 3, 5, 5, 5, 5]], np.int32)
    height_yx = np.zeros((1, 6), np.uint8)
    found_yx = join_parts(labels_yx, height_yx, 0.5, join_pixels, (False, False, False, True))
    assert found_yx[0, :4].tolist() == expected
    labels_yx[0, 5] = UNCERTAIN
    found_yx = join_parts(labels_yx, height_yx, 0.5, join_pixels - 1)
    assert found_yx[0, :4].tolist() == expected


def test_roots_are_the_first_of_what_is_connected() -> None:
    assert find_roots(0, []).tolist() == []
    assert find_roots(3, []).tolist() == [0, 1, 2]
    assert find_roots(6, [np.array([[5, 2], [4, 4]]), np.array([[1], [0]])]).tolist() == [0, 0, 2, 3, 2, 2]
