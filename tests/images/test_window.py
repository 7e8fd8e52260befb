"""Check mirrored windows against ``np.pad``, and against a walk that turns round at each edge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from septa.images.window import cut_mirrored

FAR = 40
"""Largest distance in pixels of a window of these tests from the image."""

Pair = tuple[int, int]


def padded_window(array: np.ndarray, begin: Pair, end: Pair) -> np.ndarray:
    """Cut the window from the whole array, padded repeatedly by its side less one pixel, as an oracle."""
    for axis, side in enumerate(array.shape[-2:], array.ndim - 2):
        pads = [(0, 0)] * array.ndim
        pads[axis] = (max(1, side - 1), max(1, side - 1))
        for _ in range(-(-FAR // pads[axis][0])):
            array = np.pad(array, pads, mode="reflect")
        beyond = -(-FAR // pads[axis][0]) * pads[axis][0]
        place = axis - array.ndim
        array = np.take(array, range(begin[place] + beyond, end[place] + beyond), axis)
    return array


def walk(size: int, begin: int, end: int) -> list[int]:
    """Return the positions that a walk from 0 visits, which turns round at both edges, as an oracle.

    Negative times walk backwards.
    """
    forth, back = [0], [0]
    for places in (forth, back):
        step = 1
        while len(places) <= 2 * FAR:
            if not 0 <= places[-1] + step < size:
                step = -step
            places.append(places[-1] + step if size > 1 else 0)
    return [forth[at] if at >= 0 else back[-at] for at in range(begin, end)]


def spans(size: int) -> st.SearchStrategy[Pair]:
    ends = st.tuples(st.integers(-FAR, size + FAR), st.integers(-FAR, size + FAR))
    return ends.map(lambda pair: (min(pair), max(pair))).filter(lambda pair: pair[0] < pair[1])


@st.composite
def windows(draw: st.DrawFn) -> tuple[np.ndarray, Pair, Pair]:
    shape = draw(npst.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=9))
    array = np.arange(np.prod(shape)).reshape(shape).astype(draw(st.sampled_from(["u2", "i4", "f4"])))
    (top, bottom), (left, right) = draw(spans(shape[-2])), draw(spans(shape[-1]))
    return array, (top, left), (bottom, right)


@settings(max_examples=200, deadline=None)
@given(windows())
@example((np.arange(5)[None], (-3, -40), (4, 45)))
@example((np.arange(6).reshape(2, 3), (-40, 30), (-30, 40)))
@example((np.array([[7.5]]), (-2, -2), (3, 3)))
def test_windows_are_those_of_the_padded_image(case: tuple[np.ndarray, Pair, Pair]) -> None:
    array, begin, end = case
    before = array.copy()
    window = cut_mirrored(array, begin, end)
    np.testing.assert_array_equal(window, padded_window(array, begin, end))
    assert window.dtype == array.dtype
    assert window.flags.c_contiguous
    assert not np.shares_memory(window, array)
    np.testing.assert_array_equal(array, before)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.data())
def test_positions_turn_round_at_the_edges(size: int, data: st.DataObject) -> None:
    begin, end = data.draw(spans(size))
    found = cut_mirrored(np.arange(size)[None], (0, begin), (1, end))
    assert found.tolist() == [walk(size, begin, end)]
    found = cut_mirrored(np.arange(size)[:, None], (begin, 0), (end, 1))
    assert found.ravel().tolist() == walk(size, begin, end)


@pytest.mark.parametrize(("begin", "end"), [((1, 2), (4, 6)), ((-3, -2), (9, 12))])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_another_dtype(begin: Pair, end: Pair, dtype: Any) -> None:
    image_cyx = np.arange(3 * 5 * 7, dtype=np.uint8).reshape(3, 5, 7)
    window = cut_mirrored(image_cyx, begin, end, dtype)
    assert window.dtype == dtype
    np.testing.assert_array_equal(window, cut_mirrored(image_cyx, begin, end))


def test_views_and_writing_to_the_window() -> None:
    """The window of a turned view, as in test-time augmentation, is a copy that may be overwritten."""
    image_yx = np.arange(30).reshape(5, 6)
    turned_yx = np.rot90(image_yx)[:, ::-1]
    for begin, end in (((0, 0), (6, 5)), ((-4, 1), (2, 9))):
        window = cut_mirrored(turned_yx, begin, end)
        np.testing.assert_array_equal(window, padded_window(turned_yx.copy(), begin, end))
        window[:] = -1
    assert image_yx.min() == 0
