"""Fillers are found by a slow search over all values, and ordinary images have none."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from septa.errors import InputError
from septa.images.outliers import FAR, check_magnitude, drop_values, find_central_range, find_fillers
from septa.images.read import read_image

LOWEST = float(np.finfo(np.float32).min)


def cells(seed: int, background: float, foreground: float, noise: float, share: float = 0.02) -> np.ndarray:
    """Return discs with the soft edges of a microscope, float32 ``YX``."""
    rng = np.random.default_rng(seed)
    image = np.zeros((200, 200), np.float32)
    while (image > 0).mean() < share:
        y, x = rng.integers(10, 190, 2).tolist()
        cv2.circle(image, (y, x), int(rng.integers(3, 7)), 1.0, -1)
    soft = cv2.GaussianBlur(image, (0, 0), 1.2)
    return background + (foreground - background) * soft + rng.normal(0, noise, image.shape).astype(np.float32)


@pytest.mark.parametrize(
    ("background", "foreground", "noise"), [(100, 20000, 2), (5, 250, 1), (110, 150, 6), (0, 65535, 0), (200, 20, 3)]
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_cells_of_any_contrast_are_no_fillers(background: float, foreground: float, noise: float, kind: type) -> None:
    image = cells(3, background, foreground, noise)
    if kind != np.float32:
        image = image.clip(0, np.iinfo(kind).max)  # bright cells are saturated
    assert find_fillers(image.astype(kind)) == ()


@pytest.mark.parametrize("share", [0.0005, 0.002, 0.24, 0.28])
def test_debris_fills_between_a_thousandth_and_a_quarter(share: float) -> None:
    image = cells(1, 110, 150, 6).astype(np.uint16)
    image.ravel()[: int(share * image.size)] = 65535
    assert find_fillers(image) == ((65535.0,) if 0.001 <= share <= 0.25 else ())


@pytest.mark.parametrize("value", [LOWEST, -9999, -32768, 3.4e38, -999])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9])
def test_nodata_may_fill_most_of_the_image(value: float, share: float) -> None:
    image = cells(1, 110, 150, 6)
    image.ravel()[: int(share * image.size)] = value
    assert find_fillers(image) == (float(np.float32(value)),)
    others = drop_values(image.ravel(), find_fillers(image))
    assert others.size == image.size - int(share * image.size)
    assert others.max() < 200


def test_a_code_for_nodata_inside_the_range_is_a_value() -> None:
    heights = np.random.default_rng(0).integers(-30000, 30000, (50, 50))
    heights[0] = -999
    assert find_fillers(heights) == ()
    heights[0] = -32768  # the end of the range, not far from it
    assert find_fillers(heights) == ()
    assert find_fillers(np.full(9, -9999.0)) == ()
    assert find_fillers(np.zeros(0)) == ()
    assert find_fillers(np.array([7.0, 7.0, -9999.0, -9999.0])) == (-9999.0,)


def test_nodata_and_debris_together() -> None:
    image = cells(1, 110, 150, 6)
    image[:20] = LOWEST
    image[100:110, 100:120] = 65535
    assert find_fillers(image) == (LOWEST, 65535.0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 50), min_size=100, max_size=400),
    st.integers(0, 150),
    st.integers(0, 1500),
)
def test_the_largest_value_fills_as_the_definition_has_it(others: list[int], count: int, value: int) -> None:
    values = np.array(others + [value] * count)
    found = find_fillers(values)
    top = max(values)
    rest = sorted(v for v in values if v != top)
    low, high = (rest[0], rest[-1]) if rest else (0, 0)
    expected = (
        len(values) * 0.001 <= np.sum(values == top) <= 0.25 * len(values)
        and np.sum(values == top) > 1
        and high > low
        and top - high > FAR * (high - low)
    )
    # Up to 1000 values, the central 99.8 % are all but the ends.
    if not expected and top - high > (FAR - 3) * (high - low):
        return
    assert (float(top) in found) == expected


def test_the_central_range_leaves_out_a_thousandth_at_each_end() -> None:
    values = np.arange(10_000)
    assert find_central_range(values) == (10, 9989)
    assert find_central_range(np.array([4])) == (4, 4)
    values[::2000] = 10**9
    assert find_central_range(values)[1] < 10_000


@pytest.mark.filterwarnings("error")
def test_values_beyond_float32_are_refused_by_the_reader(tmp_path: Path) -> None:
    image = np.full((6, 5), 1.0)
    path = tmp_path / "a.tif"
    for value in (1e300, -1e39):
        image[2, 3] = value
        tifffile.imwrite(path, image)
        with pytest.raises(InputError, match=re.escape(f"beyond float32, such as {value:.3g}.")):
            read_image(path)
    image[2, 3] = LOWEST
    tifffile.imwrite(path, image)
    assert read_image(path).min() == LOWEST
    for harmless in (np.array([np.nan, np.inf, 1.0]), np.array([3e38]), np.array([2**63], np.uint64)):
        check_magnitude(harmless, "x")


def test_no_warning_from_the_values_that_are_read() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_fillers(np.array([LOWEST, LOWEST, -LOWEST, 1.0, 2.0], np.float32)) == (LOWEST,)
