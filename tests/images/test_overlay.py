"""Check pictures pixel by pixel, with slow loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from septa.images.overlay import CLASS_COLORS, ERROR_COLORS, draw_error_map, draw_overlay, shrink_picture, to_rgb

RNG = np.random.default_rng(11)
SHAPES = st.shared(st.tuples(st.integers(1, 7), st.integers(1, 7)), key="size")
LABELS = hnp.arrays(np.int32, SHAPES, elements=st.integers(-1, 9))


def test_rgb_of_good_contrast_keeps_its_values() -> None:
    image = RNG.integers(0, 256, (3, 20, 30), dtype=np.uint8)
    np.testing.assert_array_equal(to_rgb(image), image.transpose(1, 2, 0))
    np.testing.assert_array_equal(to_rgb(image[:1]), np.repeat(image[0][..., None], 3, axis=2))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int32])
def test_stretch(dtype: Any) -> None:
    image = RNG.integers(100, 140, (1, 30, 30)).astype(dtype)
    low, high = np.percentile(image, [0.5, 99.5])
    expected = np.clip((image[0].astype(float) - low) / (high - low) * 255, 0, 255)
    np.testing.assert_allclose(to_rgb(image)[..., 0], expected, atol=0.51)


def test_uint8_channels_are_stretched_together_others_apart() -> None:
    ramp = np.linspace(0, 1, 10_000).reshape(100, 100)
    image = np.stack([100 + ramp * 10, 100 + ramp * 40, 100 + ramp * 40])
    together, apart = to_rgb(image.astype(np.uint8)), to_rgb(image)
    assert together[..., 0].max() < 80
    assert together[..., 1].max() == 255
    assert apart.max(axis=(0, 1)).tolist() == [255, 255, 255]


def test_two_channels_are_magenta_and_green() -> None:
    image = np.zeros((2, 1, 2), np.uint8)
    image[0, 0, 0] = image[1, 0, 1] = 255
    assert to_rgb(image).tolist() == [[[255, 0, 255], [0, 255, 0]]]


def test_more_channels_show_the_first_three() -> None:
    image = RNG.integers(0, 256, (6, 9, 9), dtype=np.uint8)
    np.testing.assert_array_equal(to_rgb(image), to_rgb(image[:3]))


@pytest.mark.parametrize("value", [0, 7, np.nan, np.inf, -np.inf])
def test_constant_images(value: float) -> None:
    assert to_rgb(np.full((1, 3, 4), value, np.float32)).max() == 0
    mixed = np.array([[[value, 0, 1, 2]]], np.float64)
    assert to_rgb(mixed).shape == (1, 4, 3)
    if not np.isfinite(value):
        assert to_rgb(mixed)[0, 0].tolist() == [0, 0, 0]


@given(labels=LABELS)
def test_overlay_pixel_by_pixel(labels: Any) -> None:
    height, width = labels.shape
    image = np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8)
    before = image.copy(), labels.copy()
    picture = draw_overlay(image, labels, alpha=0.25)
    base = to_rgb(image)
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            color = ERROR_COLORS["ignored"] if label < 0 else CLASS_COLORS[(label - 1) % len(CLASS_COLORS)]
            near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            edge = any(0 <= v < height and 0 <= u < width and labels[v, u] != label for v, u in near)
            if label == 0:
                expected = base[y, x]
            elif label > 0 and edge:
                expected = np.array(color)
            else:
                expected = np.rint(0.75 * base[y, x] + 0.25 * np.array(color))
            np.testing.assert_array_equal(picture[y, x], expected)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])


@given(truth=LABELS, prediction=hnp.arrays(np.int32, SHAPES, elements=st.integers(0, 3)))
def test_error_map_pixel_by_pixel(truth: Any, prediction: Any) -> None:
    picture = draw_error_map(truth, prediction)
    for index in np.ndindex(truth.shape):
        true, found = truth[index], prediction[index]
        if true == -1:
            expected = ERROR_COLORS["ignored"]
        elif true == found:
            expected = ERROR_COLORS["correct"] if true else (0, 0, 0)
        elif true and found:
            expected = ERROR_COLORS["wrong class or object"]
        else:
            expected = ERROR_COLORS["false negative" if true else "false positive"]
        assert tuple(picture[index]) == expected


def test_another_ignore_label() -> None:
    picture = draw_error_map(np.array([[255, 1]]), np.array([[1, 1]]), ignore=255)
    assert picture[0, 0].tolist() == list(ERROR_COLORS["ignored"])


def test_colors_are_distinct() -> None:
    assert len(set(CLASS_COLORS)) == len(CLASS_COLORS)
    assert len(set(ERROR_COLORS.values())) == len(ERROR_COLORS)


def test_sizes_must_match() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(3, 5\)"):
        draw_overlay(np.zeros((1, 3, 4), np.uint8), np.zeros((3, 5), int))
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(3, 5\)"):
        draw_error_map(np.zeros((3, 4), int), np.zeros((3, 5), int))


def test_shrink_averages() -> None:
    picture = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    expected = picture.reshape(10, 4, 15, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(shrink_picture(picture, 15), expected, atol=0.51)
    assert shrink_picture(picture, 60) is picture
    assert shrink_picture(np.zeros((1, 1000, 3), np.uint8), 10).shape == (1, 10, 3)
