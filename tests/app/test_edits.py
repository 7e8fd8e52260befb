"""Edits of labels, compared with slow descriptions of what they do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from septa.app import edits
from septa.errors import InputError

LABELS = arrays(np.int32, (9, 11), elements=st.integers(0, 3))
POINT = st.tuples(st.floats(0, 10.99), st.floats(0, 8.99))


def after(labels_yx: edits.Int32, change: edits.Change | None) -> edits.Int32:
    """Apply a change to a copy, and check that it can be undone."""
    result_yx = labels_yx.copy()
    if change is not None:
        change.apply(result_yx)
        undone_yx = result_yx.copy()
        change.revert(undone_yx)
        np.testing.assert_array_equal(undone_yx, labels_yx)
    return result_yx


@given(LABELS, POINT, st.sampled_from([0.5, 1.5, 2.5]), st.booleans())
def test_a_dot_paints_a_disc(labels_yx: edits.Int32, point: tuple[float, float], radius: float, over: bool) -> None:
    box, mask_yx = edits.draw_stroke((9, 11), [point], radius)
    result_yx = after(labels_yx, edits.paint(labels_yx, box, mask_yx, 7, over=over))
    y, x = np.indices((9, 11))
    near_yx = np.hypot(y - np.floor(point[1]), x - np.floor(point[0])) <= radius - 0.49
    np.testing.assert_array_equal(result_yx == 7, near_yx & (over | (labels_yx == 0)))
    np.testing.assert_array_equal(result_yx[result_yx != 7], labels_yx[result_yx != 7])


@given(LABELS, st.sampled_from([1, 2, None]))
def test_the_eraser_spares_other_objects(labels_yx: edits.Int32, label: int | None) -> None:
    box, mask_yx = edits.draw_stroke((9, 11), [(2.5, 4.5), (8.5, 4.5)], 1.5)
    result_yx = after(labels_yx, edits.erase(labels_yx, box, mask_yx, label))
    whole_yx = np.zeros((9, 11), bool)
    whole_yx[box.index] = mask_yx
    erased_yx = whole_yx & ((labels_yx == label) if label else True)
    np.testing.assert_array_equal(result_yx, np.where(erased_yx, 0, labels_yx))


@given(LABELS, POINT)
def test_filling_an_object_fills_what_scipy_fills(labels_yx: edits.Int32, point: tuple[float, float]) -> None:
    label = labels_yx[edits.locate(labels_yx, point)]
    if not label:
        return
    filled_yx = ndimage.binary_fill_holes(labels_yx == label)
    expected_yx = np.where(filled_yx & (labels_yx == 0), label, labels_yx)
    np.testing.assert_array_equal(after(labels_yx, edits.fill(labels_yx, point)), expected_yx)


def test_a_hole_is_filled_only_if_one_object_encloses_it() -> None:
    labels_yx = np.ones((5, 6), np.int32)
    labels_yx[2, 2:4] = 0
    assert after(labels_yx, edits.fill(labels_yx, (2.5, 2.5))).all()
    labels_yx[1, 2] = 2
    with pytest.raises(InputError, match="not enclosed by one object"):
        edits.fill(labels_yx, (2.5, 2.5))


def test_a_line_splits_an_object_without_a_gap() -> None:
    labels_yx = np.zeros((8, 12), np.int32)
    labels_yx[1:7, 1:11] = 4
    labels_yx[7, 0] = 9
    result_yx = after(labels_yx, edits.split(labels_yx, [(4.5, 0.5), (4.5, 7.5)], 10))
    np.testing.assert_array_equal(result_yx > 0, labels_yx > 0)
    assert set(np.unique(result_yx)) == {0, 4, 9, 10}
    assert (result_yx[1:7, 1:4] == 10).all()
    assert (result_yx[1:7, 5:11] == 4).all()
    with pytest.raises(InputError, match="cuts no object"):
        edits.split(labels_yx, [(4.5, 0.5), (4.5, 3.5)], 10)


@given(LABELS)
def test_merging_and_deleting_move_whole_objects(labels_yx: edits.Int32) -> None:
    if not (labels_yx == 2).any():
        with pytest.raises(InputError, match="there is no object 2"):
            edits.delete(labels_yx, 2)
        return
    np.testing.assert_array_equal(
        after(labels_yx, edits.merge(labels_yx, 2, 1)), np.where(labels_yx == 2, 1, labels_yx)
    )
    np.testing.assert_array_equal(after(labels_yx, edits.delete(labels_yx, 2)), np.where(labels_yx == 2, 0, labels_yx))
