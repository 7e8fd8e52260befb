"""Drawn B-scans are measured: share, shape and place of the fluid, and the brightness of the layers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from septa.synthetic.oct import paint_scan

SIZES = [(128, 192), (64, 200), (200, 64), (32, 32)]


def scans(height: int, width: int, count: int = 30) -> list[tuple[np.ndarray, np.ndarray]]:
    return [paint_scan(height, width, np.random.default_rng([7, index])) for index in range(count)]


def with_fluid(height: int, width: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(image_yx.astype(float), labels_yx > 0) for image_yx, labels_yx in scans(height, width) if labels_yx.any()]


def test_a_generator_in_the_same_state_draws_the_same() -> None:
    first, second = (paint_scan(64, 96, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (paint_scan(64, 96, np.random.default_rng(6))[0] != first[0]).any()


@pytest.mark.parametrize("size_hw", SIZES)
def test_scans_are_grey_and_fluid_is_rare(size_hw: tuple[int, int]) -> None:
    shares = []
    for image_yx, labels_yx in scans(*size_hw):
        assert image_yx.shape == labels_yx.shape == size_hw
        assert image_yx.dtype == labels_yx.dtype == np.uint8
        assert set(np.unique(labels_yx)) <= {0, 255}
        assert np.mean(image_yx == 255) < 0.05
        shares.append(np.mean(labels_yx > 0))
    some = [share for share in shares if share > 0]
    assert 0.1 < 1 - len(some) / len(shares) < 0.6
    assert min(some) >= 0.005
    assert max(some) <= 0.06
    assert max(some) > 1.8 * min(some)


def test_fluid_lies_in_few_rounded_pools() -> None:
    pools, areas, filled = [], [], []
    for _, fluid_yx in with_fluid(256, 320):
        parts_yx, count = ndimage.label(fluid_yx)
        pools.append(count)
        areas += [np.count_nonzero(parts_yx == part) for part in range(1, count + 1)]
        filled.append(np.count_nonzero(ndimage.binary_opening(fluid_yx, iterations=2)) / np.count_nonzero(fluid_yx))
    assert max(pools) <= 17
    assert 1 < np.mean(pools) < 8
    assert np.median(areas) > 0.0015 * 256 * 320
    assert np.mean(filled) > 0.9


def test_fluid_is_darker_than_the_tissue_around_it() -> None:
    for image_yx, fluid_yx in with_fluid(128, 192):
        around_yx = ndimage.binary_dilation(fluid_yx, iterations=4) & ~ndimage.binary_dilation(fluid_yx)
        assert image_yx[fluid_yx].mean() < 0.75 * image_yx[around_yx].mean()


def test_fluid_lies_inside_the_retina() -> None:
    # Speckle is smoothed along the layers; fluid lies between the first and the last bright row of its column.
    for image_yx, fluid_yx in with_fluid(256, 320):
        smooth_yx = ndimage.gaussian_filter(image_yx, (1, 3))
        bright_yx = smooth_yx > 0.55 * np.percentile(smooth_yx, 99)
        first = bright_yx.argmax(0)
        last = len(bright_yx) - 1 - bright_yx[::-1].argmax(0)
        rows, columns = np.nonzero(fluid_yx)
        assert np.mean(rows > first[columns]) > 0.97
        assert np.mean(rows < last[columns]) > 0.97


def test_darkness_alone_does_not_identify_fluid() -> None:
    best = []
    for image_yx, fluid_yx in with_fluid(128, 192):
        smooth_yx = ndimage.gaussian_filter(image_yx, 1)
        found = [smooth_yx < level for level in np.percentile(smooth_yx, np.arange(1, 60, 2))]
        best.append(max(2 * np.count_nonzero(dark & fluid_yx) / (dark.sum() + fluid_yx.sum()) for dark in found))
    assert max(best) < 0.5


def test_the_vitreous_is_dark_the_retina_banded_and_light_lost_with_depth() -> None:
    for image_yx, labels_yx in scans(256, 320, 8):
        rows = image_yx.mean(1)
        brightest = int(rows.argmax())
        assert rows[:20].mean() < 0.4 * rows.max()
        assert rows[-10:].mean() < 0.7 * rows[brightest]
        assert 0.2 * 256 < brightest < 0.8 * 256
        if not labels_yx.any():
            column = ndimage.gaussian_filter(image_yx.astype(float), (1, 4))[:, 100]
            turns = np.count_nonzero(np.diff(np.sign(np.diff(column[60:190]))))
            assert turns >= 6


def test_speckle_is_multiplicative() -> None:
    # The deviation from the smoothed image grows with brightness: bright bands are rougher than the vitreous.
    for image_yx, _ in scans(256, 320, 6):
        values_yx = image_yx.astype(float)
        smooth_yx = ndimage.gaussian_filter(values_yx, 2)
        rough_yx = np.abs(values_yx - smooth_yx)
        bright_yx = smooth_yx > np.percentile(smooth_yx, 85)
        dark_yx = smooth_yx < np.percentile(smooth_yx, 30)
        assert rough_yx[bright_yx].mean() > 1.8 * rough_yx[dark_yx].mean() > 0
