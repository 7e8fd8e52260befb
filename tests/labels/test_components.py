"""Connected regions, compared with a flood fill, pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from septa.labels.components import label_components


def flood(labels_yx: np.ndarray) -> list[tuple[int, frozenset[tuple[int, int]]]]:
    """Oracle: label and pixels of every region."""
    height, width = labels_yx.shape
    left = {place for place in np.ndindex(height, width) if labels_yx[place] > 0}
    regions = []
    while left:
        start = left.pop()
        inside, open_places = {start}, [start]
        while open_places:
            y, x = open_places.pop()
            for place in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if place in left and labels_yx[place] == labels_yx[start]:
                    left.remove(place)
                    inside.add(place)
                    open_places.append(place)
        regions.append((int(labels_yx[start]), frozenset(inside)))
    return regions


def check(labels_yx: np.ndarray) -> None:
    before_yx = labels_yx.copy()
    ids_yx = label_components(labels_yx)
    assert ids_yx.dtype == np.int32
    assert ids_yx.shape == labels_yx.shape
    np.testing.assert_array_equal(labels_yx, before_yx)
    expected = flood(labels_yx)
    found = {
        int(value): frozenset(zip(*map(np.ndarray.tolist, np.nonzero(ids_yx == value)))) for value in np.unique(ids_yx)
    }
    found.pop(0, None)
    assert sorted(found) == list(range(1, len(expected) + 1))
    assert set(found.values()) == {pixels for _, pixels in expected}
    # Ids of the lowest label come first.
    order = [labels_yx[next(iter(found[number]))] for number in sorted(found)]
    assert order == sorted(order)
    assert not ids_yx[labels_yx <= 0].any()


@settings(max_examples=200, deadline=None)
@given(
    npst.arrays(
        st.sampled_from([np.int8, np.int32, np.int64]),
        npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
        elements=st.integers(-1, 3),
        fill=st.just(1),
    )
)
def test_regions_by_flood_fill(labels_yx: np.ndarray) -> None:
    check(labels_yx)
    check(labels_yx[::-1].T)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.int64])
def test_any_integers(dtype: Any) -> None:
    top = min(2**40, int(np.iinfo(dtype).max))
    check(np.array([[top, top, 1], [1, 0, 1], [1, top, top]], dtype))


def test_diagonal_neighbours_and_other_labels_are_apart() -> None:
    assert label_components(np.eye(3, dtype=np.int32)).max() == 3
    assert label_components(np.ones((3, 3), np.int32)).max() == 1
    assert label_components(np.array([[1, 2, 1]])).tolist() == [[1, 3, 2]]


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (1, 1), (3, 5)])
@pytest.mark.parametrize("value", [0, -1])
def test_nothing_but_background(shape: tuple[int, int], value: int) -> None:
    ids_yx = label_components(np.full(shape, value, np.int32))
    assert ids_yx.shape == shape
    assert not ids_yx.any()


def test_more_regions_than_16_bits_number() -> None:
    labels_yx = (np.indices((400, 400)).sum(0) % 2 + 1).astype(np.int32)
    ids_yx = label_components(labels_yx)
    assert np.array_equal(np.sort(ids_yx, axis=None), np.arange(1, 160_001))
    assert ids_yx[labels_yx == 1].max() == 80_000


def test_a_winding_region_is_one() -> None:
    """A spiral reaches every corner, and its windings do not touch."""
    labels_yx = np.zeros((31, 31), np.uint8)
    y = x = 15
    for turn in range(28):
        step_y, step_x = ((0, 1), (1, 0), (0, -1), (-1, 0))[turn % 4]
        for _ in range(turn // 2 + 1 + turn // 2 % 2):
            if 0 <= y < 31 and 0 <= x < 31:
                labels_yx[y, x] = 1
            y, x = y + step_y, x + step_x
    check(labels_yx)
