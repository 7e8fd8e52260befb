"""Connected regions of equal values, compared with those that scipy finds for one value at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage

from septa.labels.regions import count_regions, find_regions, label_equal_regions

ARRAYS = npst.arrays(np.int16, npst.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-1, 3))


@given(ARRAYS, st.sampled_from([0, None]))
def test_regions_are_those_of_each_value(array: np.ndarray, background: int | None) -> None:
    ids_yx = label_equal_regions(array, background)
    assert ids_yx.dtype == np.int32
    regions = find_regions(array, background)
    values = [value for value in np.unique(array).tolist() if value != background]
    assert regions.values.tolist() == values
    total = 0
    for place, value in enumerate(values):
        expected, count = ndimage.label(array == value, np.ones((3, 3)))
        assert regions.counts[place] == count
        assert regions.pixels[place] == (array == value).sum()
        y, x = np.nonzero(array == value)
        box = np.array([y.min(), x.min(), y.max() + 1, x.max() + 1]) / np.tile(array.shape, 2)
        assert regions.boxes[place] == pytest.approx(box)
        pairs = np.unique(np.stack([expected[array == value], ids_yx[array == value]]), axis=1)
        assert pairs.shape[1] == count == len(np.unique(pairs[1]))
        total += count
    assert sorted(np.unique(ids_yx[array != background]).tolist()) == list(range(1, total + 1))
    if background == 0:
        assert not ids_yx[array == 0].any()
        assert count_regions(array) == total


def test_only_the_centre_of_a_large_image_is_searched() -> None:
    array = np.zeros((2050, 3), np.uint8)
    array[0], array[1024] = 1, 2
    assert find_regions(array, 0).values.tolist() == [2]
