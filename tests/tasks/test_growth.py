"""Growing regions neither merge nor split, and do not depend on where an image is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from septa.tasks.growth import PIXELS_PER_STEP, grow_regions

SQUARE = np.ones((3, 3), bool)


def draw(seed: int, size: tuple[int, int] = (40, 44), blur: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw random regions, and the pixels into which they may grow."""
    field_yx = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), blur)
    field_yx /= field_yx.std()
    return field_yx > 0.3, field_yx > -0.8


def count_parts(mask_yx: np.ndarray) -> tuple[int, int]:
    """Count 4-connected regions, and 8-connected walls with all that lies beyond the image as a wall."""
    return ndimage.label(mask_yx)[1], ndimage.label(~np.pad(mask_yx, 1), SQUARE)[1]


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.7, 1.5, 3.0]), st.integers(1, 6))
def test_no_region_merges_splits_or_appears(seed: int, blur: float, steps: int) -> None:
    regions_yx, allowed_yx = draw(seed, blur=blur)
    grown_yx = grow_regions(regions_yx, allowed_yx, steps)
    assert count_parts(grown_yx) == count_parts(regions_yx)
    assert not (regions_yx & ~grown_yx).any()
    assert not (grown_yx & ~regions_yx & ~allowed_yx).any()
    near_yx = ndimage.binary_dilation(regions_yx, SQUARE, iterations=2 * steps)
    assert not (grown_yx & ~near_yx).any()


@given(st.integers(0, 10**6), st.integers(1, 3), st.tuples(st.integers(0, 60), st.integers(0, 60)))
def test_a_pixel_depends_on_its_margin_only(seed: int, steps: int, corner: tuple[int, int]) -> None:
    regions_yx, allowed_yx = draw(seed, (100, 96))
    margin = PIXELS_PER_STEP * steps
    top, left = corner
    window = np.s_[max(0, top - margin) : top + 30 + margin, max(0, left - margin) : left + 30 + margin]
    part_yx = grow_regions(regions_yx[window], allowed_yx[window], steps)
    inner = np.s_[min(top, margin) :, min(left, margin) :]
    whole_yx = grow_regions(regions_yx, allowed_yx, steps)[top : top + 30, left : left + 30]
    np.testing.assert_array_equal(part_yx[inner][: whole_yx.shape[0], : whole_yx.shape[1]], whole_yx)


@pytest.mark.parametrize("turns", range(4))
def test_two_regions_share_the_wall_between_them(turns: int) -> None:
    regions_yx = np.zeros((12, 21), bool)
    regions_yx[:, :6] = regions_yx[:, -6:] = True
    grown_yx = np.rot90(grow_regions(np.rot90(regions_yx, turns), np.ones_like(np.rot90(regions_yx, turns)), 9), -turns)
    walls = (~grown_yx).sum(axis=1)
    assert set(walls[1:-1].tolist()) == {1}
    assert abs(int(grown_yx[6, :10].sum()) - int(grown_yx[6, -10:].sum())) <= 1


def test_inputs_stay_and_nothing_grows_without_steps_or_space() -> None:
    regions_yx, allowed_yx = draw(0)
    before = regions_yx.copy(), allowed_yx.copy()
    np.testing.assert_array_equal(grow_regions(regions_yx, allowed_yx, 0), regions_yx)
    np.testing.assert_array_equal(grow_regions(regions_yx, np.zeros_like(regions_yx), 3), regions_yx)
    assert not grow_regions(np.zeros_like(regions_yx), np.ones_like(regions_yx), 3).any()
    assert grow_regions(np.ones((0, 5), bool), np.ones((0, 5), bool), 3).shape == (0, 5)
    for part, copy in zip((regions_yx, allowed_yx), before, strict=True):
        np.testing.assert_array_equal(part, copy)
