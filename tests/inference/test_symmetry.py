"""The eight versions of an image form a group, as their effect on an array of distinct values shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as npst

from septa.inference.symmetry import SYMMETRIES, apply_symmetry, undo_symmetry

ALL = range(SYMMETRIES)


def slow(array_yx: np.ndarray, index: int) -> np.ndarray:
    """Compute a version pixel by pixel: mirrored left to right from 4 on, then turned counterclockwise."""
    height, width = array_yx.shape
    if index >= 4:
        array_yx = np.array([[array_yx[y, width - 1 - x] for x in range(width)] for y in range(height)])
    for _ in range(index % 4):
        height, width = array_yx.shape
        array_yx = np.array([[array_yx[x, width - 1 - y] for x in range(height)] for y in range(width)])
    return array_yx


def compose(first: int, second: int) -> int:
    """Return the version that equals one version applied after another."""
    array_yx = np.arange(9).reshape(3, 3)
    both = apply_symmetry(apply_symmetry(array_yx, first), second)
    (index,) = (k for k in ALL if np.array_equal(apply_symmetry(array_yx, k), both))
    return index


def test_there_are_eight_distinct_versions() -> None:
    assert SYMMETRIES == 8
    square_yx = np.arange(9).reshape(3, 3)
    assert len({apply_symmetry(square_yx, index).tobytes() for index in ALL}) == 8
    np.testing.assert_array_equal(apply_symmetry(square_yx, 0), square_yx)


@pytest.mark.parametrize("index", ALL)
@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (1, 4), (1, 1)])
def test_versions_by_loops(shape: tuple[int, int], index: int) -> None:
    array_yx = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(apply_symmetry(array_yx, index), slow(array_yx, index))


@pytest.mark.parametrize("index", ALL)
@given(npst.arrays(np.int16, npst.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=5)))
def test_undo_symmetry_inverts(index: int, array: np.ndarray) -> None:
    version = apply_symmetry(array, index)
    sides = array.shape[-2:] if index % 2 == 0 else array.shape[:-3:-1]
    assert version.shape == (*array.shape[:-2], *sides)
    np.testing.assert_array_equal(undo_symmetry(version, index), array)
    np.testing.assert_array_equal(apply_symmetry(undo_symmetry(array, index), index), array)


def test_versions_are_a_group() -> None:
    table = np.array([[compose(first, second) for second in ALL] for first in ALL])
    for line in (*table, *table.T):
        assert sorted(line) == list(ALL)
    assert table[0].tolist() == table[:, 0].tolist() == list(ALL)
    for a, b, c in np.ndindex(8, 8, 8):
        assert table[table[a, b], c] == table[a, table[b, c]]
    # Of the square's eight symmetries five, and the identity, are their own inverses; two turns are not.
    assert [index for index in ALL if table[index, index] == 0] == [0, 2, 4, 5, 6, 7]
    assert not np.array_equal(table, table.T)


@pytest.mark.parametrize("index", ALL)
def test_leading_axes_stay_and_nothing_is_copied(index: int) -> None:
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    version, back = apply_symmetry(array, index), undo_symmetry(array, index)
    assert np.shares_memory(version, array)
    assert np.shares_memory(back, array)
    for a, b in np.ndindex(2, 3):
        np.testing.assert_array_equal(version[a, b], slow(array[a, b], index))
