"""Counts of label values, compared with plain loops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from septa.labels.survey import count_values


@given(npst.arrays(np.int16, npst.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-1, 1)))
def test_counts_equal_plain_loops(array: np.ndarray) -> None:
    expected: dict[int, list[int]] = {}
    for y, x in np.ndindex(array.shape):
        count = expected.setdefault(int(array[y, x]), [0, 0])
        square = array[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        count[0] += 1
        count[1] += square.shape == (3, 3) and bool((square == array[y, x]).all())
    values, pixels, solid = count_values(array)
    assert {v: [p, s] for v, p, s in zip(values.tolist(), pixels.tolist(), solid.tolist())} == expected


def test_counts_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.zeros((256, 256), np.uint8)
    for y, x in np.random.default_rng(0).integers(0, 256, (12, 2)).tolist():
        cv2.circle(array, (x, y), 9, 255, -1)
    whole = [column.tolist() for column in count_values(array)]
    monkeypatch.setattr("septa.labels.survey._BLOCK", 1000)
    assert [column.tolist() for column in count_values(array)] == whole
