"""Constants of a dataset are compared with NumPy's on clean images, and stay the same when a few pixels are spoilt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from septa.data.intensities import ChannelValues, find_constants, find_range, select_far, survey_channel
from septa.images import CLIP, Normalization

LOWEST = float(np.finfo(np.float32).min)
Scene = tuple[np.ndarray, np.ndarray]


def scene(seed: int, background: float = 110, foreground: float = 150, noise: float = 6, side: int = 24) -> Scene:
    """Return a square object on a background, ``YX``, with its labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((80, 90), np.int32)
    y, x = rng.integers(0, 50, 2).tolist()
    labels[y : y + side, x : x + side] = 1
    return np.where(labels > 0, foreground, background) + rng.normal(0, noise, labels.shape), labels


def survey(scenes: list[Scene]) -> list[ChannelValues]:
    return [survey_channel(*one) for one in scenes]


def test_clean_images_get_the_mean_and_standard_deviation_of_all_pixels() -> None:
    scenes = [scene(seed) for seed in range(6)]
    pixels = np.concatenate([image.ravel() for image, _ in scenes])
    offset, scale = find_constants(survey(scenes))
    assert offset == pytest.approx(pixels.mean(), rel=0.002)
    assert scale == pytest.approx(pixels.std(), rel=0.01)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7199)), max_size=28),
    st.sampled_from([LOWEST, -9999.0, 0.0, 4095.0, 65535.0, -LOWEST]),
)
def test_a_thousandth_of_extreme_pixels_moves_no_normalised_value(places: list[tuple[int, int]], value: float) -> None:
    scenes = [scene(seed) for seed in range(4)]
    before = find_constants(survey(scenes))
    for image, place in places:
        scenes[image][0].ravel()[place] = value
    after = find_constants(survey(scenes))
    image = scenes[0][0][None].astype(np.float32)
    rules = [Normalization("dataset", (offset,), (scale,), clip=CLIP) for offset, scale in (before, after)]
    np.testing.assert_allclose(rules[0].apply(image), rules[1].apply(image), atol=0.05 * CLIP)
    usual = np.abs(image - 130) < 60
    np.testing.assert_allclose(rules[0].apply(image)[usual], rules[1].apply(image)[usual], atol=0.1)


@pytest.mark.parametrize("value", [65535.0, LOWEST])
@pytest.mark.parametrize("everywhere", [False, True])
def test_debris_and_nodata_in_one_image_or_in_all(value: float, everywhere: bool) -> None:
    scenes = [scene(seed) for seed in range(4)]
    offset, scale = find_constants(survey(scenes))
    for image, labels in scenes if everywhere else scenes[:1]:
        image[60:, 70:] = value
        labels[60:, 70:] = 0
    found = find_constants(survey(scenes))
    assert found == pytest.approx((offset, scale), rel=0.1)


def test_debris_of_differing_values_is_limited() -> None:
    scenes = [scene(seed) for seed in range(4)]
    offset, scale = find_constants(survey(scenes))
    for number, (image, labels) in enumerate(scenes):
        image[65:, 75:] = np.random.default_rng(number).normal(30000, 5000, (15, 15))
        labels[65:, 75:] = 0
    found = find_constants(survey(scenes))
    assert abs(found[0] - offset) < scale
    assert scale < found[1] < 3 * scale


def test_images_without_objects_do_not_count() -> None:
    scenes = [scene(seed) for seed in range(3)]
    expected = find_constants(survey(scenes))
    empty = [scene(seed, background=9000, side=0) for seed in range(5)]
    assert find_constants(survey(scenes + empty)) == expected
    assert find_range(survey(scenes + empty)) == find_range(survey(scenes))
    assert find_constants(survey(empty))[0] == pytest.approx(9000, rel=0.01)


def test_few_bright_objects_are_never_clipped() -> None:
    scenes = [scene(seed, background=100, foreground=20000, noise=2, side=4) for seed in range(4)]
    offset, scale = find_constants(survey(scenes))
    bright = np.array([image[labels > 0].max() for image, labels in scenes])
    assert ((bright - offset) / scale < CLIP).all()
    assert all(not own.fillers and not own.candidates.size for own in survey(scenes))


def test_saturated_objects_are_no_fillers() -> None:
    image, labels = scene(0, foreground=65535, noise=0, side=10)
    image += np.random.default_rng(0).normal(0, 5, image.shape)
    image = image.clip(0, 65535)
    image[labels > 0] = 65535
    assert survey_channel(image.astype(np.uint16), labels).fillers == {}
    assert survey_channel(image.astype(np.uint16), None).fillers == {65535.0: 100}


def test_far_pixels_are_counted_exactly() -> None:
    image, labels = scene(0)
    image[3, 3], image[40, 5], image[70, 80] = 65535, 5000, np.nan
    labels[3, 3] = labels[40, 5] = 0
    own = survey_channel(image.astype(np.float32), labels)
    np.testing.assert_array_equal(own.candidates, [5000, 65535])
    low, high = own.central
    assert 80 < low < high < 190
    assert select_far(own.candidates, (low, 5000)).tolist() == [65535]
    assert select_far(own.candidates, (7, 7)).tolist() == []
    assert own.background_pixels + own.object_pixels == image.size - 1


def test_ignored_pixels_count_neither_as_objects_nor_as_background() -> None:
    image, labels = scene(0)
    labels[:10] = -1
    own = survey_channel(image, labels)
    assert own.background_pixels == (labels == 0).sum()
    assert own.object_pixels == (labels > 0).sum()


@pytest.mark.parametrize("plane", [np.full((5, 6), np.nan), np.full((5, 6), 7.0), np.zeros((1, 1), np.uint8)])
def test_planes_of_one_value_or_none(plane: np.ndarray) -> None:
    own = survey_channel(plane, None)
    offset, scale = find_constants([own])
    assert np.isfinite(offset)
    assert scale == 1
    assert not own.candidates.size
