from __future__ import annotations

import math
import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from septa.losses import border_weights, cut_seams
from septa.recipe import IGNORE

LARGEST = np.iinfo(np.int32).max


def naive_weights(labels_yx: np.ndarray, w0: float = 10, sigma: float = 5) -> np.ndarray:
    """Oracle: the formula, with a distance transform of the whole image for each cell."""
    ids = [value for value in np.unique(labels_yx) if value > 0]
    if len(ids) < 2:
        return np.zeros(labels_yx.shape)
    distances_nyx = np.sort([ndimage.distance_transform_edt(labels_yx != value) for value in ids], axis=0)
    return np.asarray(w0 * np.exp(-((distances_nyx[0] + distances_nyx[1]) ** 2) / (2 * sigma**2)))


def naive_seams(labels_yx: np.ndarray) -> np.ndarray:
    """Oracle: cut pixels with another cell to the right or below, then those that still have one diagonally below."""
    height, width = labels_yx.shape
    for steps in (((0, 1), (1, 0)), ((1, -1), (1, 1))):
        cut_yx = labels_yx.copy()
        for y, x in np.ndindex(height, width):
            for dy, dx in steps:
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    here, there = labels_yx[y, x], labels_yx[y + dy, x + dx]
                    if here > 0 and there > 0 and here != there:
                        cut_yx[y, x] = 0
        labels_yx = cut_yx
    return labels_yx


@st.composite
def random_labels(draw: st.DrawFn) -> np.ndarray:
    """Draw small label images of random blocks: cells that touch, have parts or one pixel, or are cut by the edge."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    ids = [*draw(st.lists(st.integers(1, LARGEST), max_size=6)), 0, 0, IGNORE]
    block = draw(st.integers(1, 6))
    coarse_yx = rng.choice(ids, (height // block + 1, width // block + 1)).astype(np.int32)
    labels_yx = coarse_yx.repeat(block, axis=0).repeat(block, axis=1)[:height, :width]
    labels_yx[rng.random(labels_yx.shape) < draw(st.sampled_from([0, 0.1, 0.8]))] = 0
    return np.ascontiguousarray(labels_yx)


def discs(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Draw round cells, many of them touching; where they overlap, the later one is on top."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[:height, :width]
    labels_yx = np.zeros((height, width), np.int32)
    for value in range(1, count + 1):
        middle_y, middle_x, radius = rng.uniform((0, 0, 3), (height, width, 12))
        labels_yx[(y - middle_y) ** 2 + (x - middle_x) ** 2 < radius**2] = value
    return labels_yx


@settings(max_examples=300, deadline=None)
@given(random_labels(), st.sampled_from([0.5, 1.0, 5.0, 40.0]), st.sampled_from([0.0, 0.3, 10.0]))
def test_weights_are_those_of_the_formula(labels_yx: np.ndarray, sigma: float, w0: float) -> None:
    found_yx = border_weights(labels_yx, w0=w0, sigma=sigma)
    assert found_yx.dtype == np.float32
    np.testing.assert_allclose(found_yx, naive_weights(labels_yx, w0, sigma), rtol=0, atol=1e-5)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("count", [8, 30, 80])
def test_weights_of_many_cells_are_those_of_the_formula(count: int, cut: bool) -> None:
    labels_yx = discs(count, 150, 210)
    labels_yx = cut_seams(labels_yx) if cut else labels_yx
    found_yx, expected_yx = border_weights(labels_yx), naive_weights(labels_yx)
    np.testing.assert_allclose(found_yx, expected_yx, rtol=0, atol=1e-5)
    assert found_yx.max() > 1


def test_a_cell_that_is_far_down_one_column_hides_no_near_ones() -> None:
    """The first cell found on the search outwards may be the farthest of three."""
    labels_yx = np.zeros((31, 21), np.int32)
    labels_yx[30, 10], labels_yx[0, 6], labels_yx[0, 14] = 1, 2, 3
    np.testing.assert_allclose(border_weights(labels_yx), naive_weights(labels_yx), rtol=0, atol=1e-5)
    assert border_weights(labels_yx)[0, 10] > 2


def test_by_hand() -> None:
    labels_yx = np.zeros((1, 8), np.int32)
    labels_yx[0, 2], labels_yx[0, 5] = 4, 9
    sums = [2 + 5, 1 + 4, 0 + 3, 1 + 2, 2 + 1, 3 + 0, 4 + 1, 5 + 2]
    expected = [[7 * math.exp(-total * total / (2 * 3 * 3)) for total in sums]]
    np.testing.assert_allclose(border_weights(labels_yx, w0=7, sigma=3), expected, rtol=1e-6)
    np.testing.assert_allclose(border_weights(labels_yx.T, w0=7, sigma=3).T, expected, rtol=1e-6)


@pytest.mark.parametrize("sigma", [1e-200, 1e200])
def test_extreme_sigma(sigma: float) -> None:
    labels_yx = np.array([[1, 0, 0], [0, 0, 2]])
    np.testing.assert_allclose(border_weights(labels_yx, sigma=sigma), 10.0 if sigma > 1 else 0.0)


def test_what_is_cut_off_is_negligible() -> None:
    """The weight falls to 1e-8 of w0 at 6.07 sigma; it is above 0 at a slightly smaller distance and 0 beyond."""
    pair_yx = np.zeros((1, 80), np.int32)
    pair_yx[0, 0], pair_yx[0, 60] = 1, 2
    assert (border_weights(pair_yx, w0=1, sigma=60 / 6.06)[0, :61] > 0).all()
    assert not border_weights(pair_yx, w0=1, sigma=60 / 6.08).any()


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (7, 9)])
@pytest.mark.parametrize("value", [0, IGNORE, 1, 70_000])
def test_fewer_than_two_cells_weigh_nothing(shape: tuple[int, int], value: int) -> None:
    labels_yx = np.full(shape, value)
    weights_yx = border_weights(labels_yx)
    assert weights_yx.shape == shape
    assert weights_yx.dtype == np.float32
    assert not weights_yx.any()
    np.testing.assert_array_equal(cut_seams(labels_yx), labels_yx)


@settings(max_examples=100, deadline=None)
@given(random_labels())
def test_weights_turn_with_the_image_and_know_no_names(labels_yx: np.ndarray) -> None:
    weights_yx = border_weights(labels_yx)
    for turn in (np.transpose, np.flipud, np.fliplr, np.rot90):
        np.testing.assert_array_equal(border_weights(turn(labels_yx)), turn(weights_yx))
    ids, index_yx = np.unique(labels_yx, return_inverse=True)
    names = np.random.default_rng(0).permutation(np.arange(65_500, 65_500 + len(ids)))
    renamed_yx = np.where(labels_yx > 0, names[index_yx].reshape(labels_yx.shape), labels_yx)
    np.testing.assert_array_equal(border_weights(renamed_yx), weights_yx)


@settings(max_examples=200, deadline=None)
@given(random_labels())
def test_seams_by_loops(labels_yx: np.ndarray) -> None:
    cut_yx = cut_seams(labels_yx)
    assert cut_yx.dtype == np.int32
    np.testing.assert_array_equal(cut_yx, naive_seams(labels_yx))
    np.testing.assert_array_equal(cut_seams(cut_yx), cut_yx)


def test_cells_are_apart_after_the_cut_and_lose_little() -> None:
    labels_yx = discs(80, 150, 210)
    cut_yx = cut_seams(labels_yx)
    square = np.ones((3, 3), bool)
    grown = [ndimage.binary_dilation(cut_yx == value, square) for value in np.unique(cut_yx) if value > 0]
    assert all(set(np.unique(cut_yx[near])) <= {0, value} for near, value in zip(grown, np.unique(cut_yx)[1:]))
    lost_yx = (labels_yx > 0) & (cut_yx == 0)
    assert 0 < lost_yx.sum() < 0.1 * (labels_yx > 0).sum()
    np.testing.assert_array_equal(cut_yx[~lost_yx], labels_yx[~lost_yx])


def test_ignored_pixels_stay_and_cut_nothing() -> None:
    labels_yx = np.array([[1, IGNORE, 2], [1, IGNORE, 2]], np.int32)
    np.testing.assert_array_equal(cut_seams(labels_yx), labels_yx)


@pytest.mark.parametrize("function", [cut_seams, border_weights])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_any_integers_and_layout_and_inputs_untouched(function: Any, dtype: Any) -> None:
    labels_yx = discs(20, 40, 60)
    expected_yx = function(labels_yx)
    wide_yx = np.repeat(labels_yx.astype(dtype), 2, axis=1)
    layouts = labels_yx.astype(dtype), labels_yx.astype(dtype, order="F"), wide_yx[:, ::2]
    for layout_yx in layouts:
        before_yx = layout_yx.copy()
        layout_yx.flags.writeable = False
        found_yx = function(layout_yx)
        np.testing.assert_array_equal(found_yx, expected_yx)
        np.testing.assert_array_equal(layout_yx, before_yx)
        assert not np.shares_memory(found_yx, layout_yx)


@pytest.mark.parametrize("function", [cut_seams, border_weights])
@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (np.zeros((2, 3, 4), np.int32), r"int32 \(2, 3, 4\)"),
        (np.zeros((2, 3), np.float32), "float32"),
        (np.zeros((2, 3), bool), "bool"),
        (np.array([[0, LARGEST + 1]]), str(LARGEST + 1)),
        (np.array([[0, 2**64 - 1]], np.uint64), str(2**64 - 1)),
    ],
)
def test_arrays_that_are_not_labels_are_refused(function: Any, labels: np.ndarray, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        function(labels)


@pytest.mark.parametrize("setting", [{"w0": -1}, {"w0": math.inf}, {"sigma": 0}, {"sigma": -2}, {"sigma": math.nan}])
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="w0 must be finite"):
        border_weights(np.array([[1, 2]]), **setting)


def test_memory_is_the_same_for_few_and_many_cells() -> None:
    peaks = []
    for side in (64, 8):  # 16 and 1024 cells
        y, x = np.indices((256, 256)) // side
        labels_yx = (1 + y * 256 + x).astype(np.int32)
        border_weights(labels_yx)
        tracemalloc.start()
        border_weights(labels_yx)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.02 * peaks[0]
    assert peaks[1] < 20 * 256 * 256


def test_numba_loads_at_first_use_alone() -> None:
    tell = "print('numba' in sys.modules)"
    program = "import sys, septa.losses as b, numpy as np; labels = np.eye(3, dtype=int)"
    program = f"{program}; b.cut_seams(labels); {tell}; b.border_weights(labels); {tell}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_seams_are_one_pixel_wide() -> None:
    for labels_yx in (
        np.repeat([[1] * 5 + [2] * 5], 8, axis=0),
        np.repeat([[1], [2]], 4, axis=0) * np.ones((1, 9), int),
    ):
        assert (cut_seams(labels_yx) == 0).sum() in labels_yx.shape
