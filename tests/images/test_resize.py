"""Check resizing against its definition: overlaps of pixels where it shrinks, straight lines where it grows."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from septa.images.resize import resize_image, resize_labels

Size = tuple[int, int]


def mean_matrix(new: int, old: int) -> np.ndarray:
    """Return the share of each old pixel in the area of each new one, as an oracle."""
    matrix = np.zeros((new, old))
    for i in range(new):
        low, high = Fraction(i * old, new), Fraction((i + 1) * old, new)
        for k in range(old):
            matrix[i, k] = float(max(Fraction(0), min(high, Fraction(k + 1)) - max(low, Fraction(k))) / (high - low))
    return matrix


def line_matrix(new: int, old: int) -> np.ndarray:
    """Return the weights of the two old pixels whose centres enclose the centre of each new one, as an oracle."""
    matrix = np.zeros((new, old))
    for i in range(new):
        at = min(max(Fraction(2 * i + 1, 2) * old / new - Fraction(1, 2), Fraction(0)), Fraction(old - 1))
        left = int(at)
        matrix[i, left] += float(1 - (at - left))
        matrix[i, min(left + 1, old - 1)] += float(at - left)
    return matrix


def slow(image_cyx: np.ndarray, size: Size) -> np.ndarray:
    height, width = image_cyx.shape[1:]
    matrix = mean_matrix if size[0] * size[1] < height * width else line_matrix
    return matrix(size[0], height) @ image_cyx.astype(np.float64) @ matrix(size[1], width).T


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    # Halves may be rounded up or down.
    if found.dtype.kind in "ui":
        assert np.abs(found.astype(np.float64) - expected).max() <= 0.5 + 1e-6 * max(1.0, np.abs(expected).max())
    else:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 if found.dtype == np.float16 else 1e-5)


def draw_image(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.normal(size=shape).astype(kind)
    top = min(np.iinfo(kind).max, 10**6)
    return rng.integers(max(np.iinfo(kind).min, -(10**6)), top, shape, endpoint=True).astype(kind)


sides = st.integers(1, 14)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), sides, sides, sides, sides, st.sampled_from(["u1", "u2", "i4", "f4", "f8"]))
def test_images_by_the_definition(channels: int, y: int, x: int, other_y: int, other_x: int, dtype: str) -> None:
    small, large = (min(y, other_y), min(x, other_x)), (max(y, other_y), max(x, other_x))
    for old, new in ((large, small), (small, large)):
        image_cyx = draw_image((channels, *old), dtype)
        before_cyx = image_cyx.copy()
        found_cyx = resize_image(image_cyx, new)
        assert found_cyx.shape == (channels, *new)
        assert found_cyx.dtype == image_cyx.dtype
        assert_close(found_cyx, slow(image_cyx, new))
        np.testing.assert_array_equal(image_cyx, before_cyx)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float16, np.float64])
@pytest.mark.parametrize("size", [(5, 7), (23, 30), (12, 8)])
def test_dtypes_stay_and_integers_are_rounded(dtype: Any, size: Size) -> None:
    image_cyx = draw_image((2, 12, 16), dtype)
    found_cyx = resize_image(image_cyx, size)
    assert found_cyx.dtype == dtype
    assert_close(found_cyx, slow(image_cyx, size))


def test_integers_that_float32_does_not_hold_are_kept() -> None:
    value = 2**31 - 7
    for dtype in (np.int32, np.uint32, np.int64):
        image_cyx = np.full((1, 4, 4), value, dtype)
        assert (resize_image(image_cyx, (3, 3)) == value).all()
        assert (resize_image(image_cyx, (9, 5)) == value).all()


def test_an_image_of_that_size_is_returned_itself() -> None:
    image_cyx = draw_image((3, 5, 7), np.uint16)
    assert resize_image(image_cyx, (5, 7)) is image_cyx


def test_views_and_more_channels_than_opencv_takes_at_once() -> None:
    image_cyx = draw_image((7, 10, 12), np.float32)
    turned_cyx = np.rot90(image_cyx, axes=(1, 2))[::-1]
    assert_close(resize_image(turned_cyx, (6, 5)), slow(turned_cyx, (6, 5)))


@settings(max_examples=50, deadline=None)
@given(sides, sides, sides, sides, st.integers(-500, 500))
def test_a_flat_image_stays_flat(y: int, x: int, new_y: int, new_x: int, value: int) -> None:
    """A flat image stays flat even if one axis grows and the other shrinks."""
    np.testing.assert_array_equal(resize_image(np.full((1, y, x), value, np.int16), (new_y, new_x)), value)


# --- labels -------------------------------------------------------------------------------------------------------


label_images = npst.arrays(np.int32, st.tuples(sides, sides), elements=st.sampled_from([-1, 0, 1, 2, 2**31 - 1]))


@settings(max_examples=100, deadline=None)
@given(label_images, st.integers(1, 4), st.integers(1, 4))
def test_whole_factors_take_the_majority_of_each_block(labels_yx: np.ndarray, down: int, right: int) -> None:
    large_yx = labels_yx.repeat(down * 2, 0).repeat(right * 2, 1)
    large_yx = np.roll(large_yx, (1, 1), (0, 1))  # so that edges cross the blocks
    height, width = large_yx.shape[0] // down, large_yx.shape[1] // right
    before_yx = large_yx.copy()
    found_yx = resize_labels(large_yx, (height, width))
    assert found_yx.dtype == np.int32
    for y, x in np.ndindex(height, width):
        block = large_yx[y * down : (y + 1) * down, x * right : (x + 1) * right]
        values, counts = np.unique(block, return_counts=True)
        assert found_yx[y, x] == values[counts == counts.max()].max()
    np.testing.assert_array_equal(large_yx, before_yx)


@settings(max_examples=150, deadline=None)
@given(label_images, st.tuples(sides, sides))
def test_mirrored_labels_are_resized_to_the_mirrored_result(labels_yx: np.ndarray, size: Size) -> None:
    """No edge moves towards one side: a shift would move it the other way in the mirrored image."""
    found_yx = resize_labels(labels_yx, size)
    assert found_yx.shape == size
    assert set(np.unique(found_yx)) <= set(np.unique(labels_yx))
    np.testing.assert_array_equal(resize_labels(labels_yx[::-1, ::-1], size)[::-1, ::-1], found_yx)
    np.testing.assert_array_equal(resize_labels(labels_yx.T, size[::-1]).T, found_yx)


@given(
    npst.arrays(np.int32, st.tuples(sides, sides), elements=st.integers(-1, 9)), st.integers(1, 4), st.integers(1, 4)
)
def test_whole_factors_repeat_labels_and_back(labels_yx: np.ndarray, down: int, right: int) -> None:
    height, width = labels_yx.shape
    large_yx = resize_labels(labels_yx, (height * down, width * right))
    np.testing.assert_array_equal(large_yx, labels_yx.repeat(down, 0).repeat(right, 1))
    np.testing.assert_array_equal(resize_labels(large_yx, (height, width)), labels_yx)


@pytest.mark.parametrize("size", [(61, 45), (150, 222), (101, 131), (50, 65), (25, 65), (20, 13)])
def test_labels_lie_where_the_image_does(size: Size) -> None:
    y, x = np.ogrid[:100, :130]
    labels_yx = ((y - 38.5) ** 2 / 2 + (x - 70.0) ** 2 < 500).astype(np.int32)
    image_yx, small_yx = resize_image(1000.0 * labels_yx[None], size)[0], resize_labels(labels_yx, size)
    for axis, (new, old) in enumerate(zip(size, labels_yx.shape)):
        places = np.indices(size)[axis]
        apart = np.average(places, weights=image_yx) - np.average(places, weights=small_yx)
        assert abs(apart) < (0.25 * max(1, new / old) if old % new else 0.12)


def test_one_axis_shrinks_while_the_other_grows() -> None:
    rng = np.random.default_rng(3)
    image_cyx = rng.random((2, 8, 64)).astype(np.float32)
    both = resize_image(image_cyx, (64, 16))
    narrow = image_cyx.reshape(2, 8, 16, 4).mean(axis=3)
    np.testing.assert_allclose(both, resize_image(narrow, (64, 16)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(both.mean(), image_cyx.mean(), atol=0.02)
