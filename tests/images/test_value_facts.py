"""Noise, blank images and steps between values are recognised, and objects are never taken for noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from septa.images.value_facts import measure_values

Y, X = np.mgrid[:256, :256]


def make_noise(kind: str, seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    light = 40 + 100 * np.exp(-((Y - 100) ** 2 + (X - 150) ** 2) / 3e4)
    hot = rng.normal(200, 5, Y.shape)
    hot[rng.random(Y.shape) < 1e-3] = 60_000
    return {
        "gaussian": rng.normal(1000, 10, Y.shape),
        "8 bit": np.clip(rng.normal(5.5, 1, Y.shape), 0, 255).astype(np.uint8),
        "poisson": rng.poisson(90, Y.shape).astype(np.uint16),
        "rare counts": rng.poisson(0.2, Y.shape).astype(np.uint16),
        "gradient": rng.normal(1000 + 0.3 * X, 10),
        "vignette": rng.poisson(light).astype(np.uint16),
        "hot pixels": hot,
        "large": rng.normal(100, 8, (900, 1100)).astype(np.float32),
    }[kind]


def add_discs(image: NDArray[Any], count: int, radius: int, height: float, seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    ball = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius
    out = image.astype(np.float64)
    for y, x in zip(*(rng.integers(0, side - 2 * radius, count) for side in image.shape), strict=True):
        out[y : y + 2 * radius + 1, x : x + 2 * radius + 1][ball] += height
    return out


@pytest.mark.parametrize("kind", ["gaussian", "8 bit", "poisson", "rare counts", "gradient", "vignette", "hot pixels"])
@pytest.mark.parametrize("seed", range(3))
def test_noise_is_recognised(kind: str, seed: int) -> None:
    facts = measure_values(make_noise(kind, seed)[None])
    assert facts.structured is False
    assert not facts.blank


@pytest.mark.parametrize(
    ("count", "radius", "height"), [(1, 8, 20), (5, 8, 10), (30, 4, 30), (60, 8, 10), (300, 3, 50), (900, 5, 50)]
)
@pytest.mark.parametrize("kind", ["gaussian", "gradient"])
def test_objects_in_noise_are_seen(kind: str, count: int, radius: int, height: float) -> None:
    assert measure_values(add_discs(make_noise(kind), count, radius, height)[None]).structured is True


def test_large_images_are_searched_for_single_and_for_small_objects() -> None:
    large = make_noise("large")
    assert measure_values(large[None]).structured is False
    assert measure_values(add_discs(large, 1, 20, 40)[None]).structured is True
    assert measure_values(add_discs(large, 9000, 3, 40)[None]).structured is True


def test_one_channel_with_objects_is_enough() -> None:
    noise, objects = make_noise("gaussian"), add_discs(make_noise("gaussian", 1), 30, 8, 60)
    assert measure_values(np.stack([noise, objects])).structured is True
    assert measure_values(np.stack([noise, noise])).structured is False
    assert measure_values(np.stack([noise, np.zeros_like(noise)])).constant == (False, True)


def test_a_small_image_is_left_open() -> None:
    assert measure_values(make_noise("gaussian")[None, :30, :30]).structured is None


def test_large_floats_overflow_nowhere() -> None:
    image = add_discs(make_noise("gaussian").astype(np.float64), 6, 8, 60.0)
    facts = [measure_values((image * factor).astype(np.float32)[None]) for factor in (1, 1e30)]
    assert [item.structured for item in facts] == [True, True]


def test_a_blank_image() -> None:
    facts = measure_values(np.full((3, 50, 40), 9, np.uint16))
    assert facts.blank
    assert facts.structured is False


@pytest.mark.parametrize(
    ("factor", "dtype", "step"),
    [(1, np.uint8, 1), (16, np.uint16, 16), (257, np.uint16, 257), (1, np.float32, 1), (1 / 255, np.float32, 1 / 255)],
)
def test_the_step_between_values(factor: float, dtype: type, step: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64))
    assert measure_values((image * factor).astype(dtype)).step == pytest.approx(step)


def test_floats_in_between_have_no_step() -> None:
    assert measure_values(np.random.default_rng(0).random((1, 64, 64))).step == 0


def test_percentiles_are_those_of_all_finite_values() -> None:
    image = np.random.default_rng(0).normal(50, 9, (2, 90, 80))
    image[0, 3, 4], image[1, 5, 6] = np.nan, np.inf
    for row, plane in zip(measure_values(image).percentiles, image, strict=True):
        assert row == pytest.approx(np.percentile(plane[np.isfinite(plane)], (0.5, 1, 50, 99, 99.8)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (8, 500), (500, 8)])
def test_images_of_any_shape_are_constant_if_no_pixel_differs(shape: tuple[int, int]) -> None:
    image = np.full((1, *shape), 7, np.uint8)
    assert measure_values(image).constant == (True,)
    image[0, shape[0] // 3, shape[1] // 3] = 9
    assert measure_values(image).constant == (shape == (1, 1),)


def test_a_repeated_channel_has_the_facts_of_the_channel() -> None:
    image = add_discs(make_noise("gaussian"), 30, 8, 60)[None]
    repeated = np.broadcast_to(image, (3, *image.shape[1:]))
    assert measure_values(repeated) == measure_values(image).fit_channels(3)
    with pytest.raises(ValueError, match="the image has 3 channels, expected 2"):
        measure_values(repeated).fit_channels(2)
    assert measure_values(repeated).fit_channels(1) == measure_values(image)


def test_the_image_is_left_untouched() -> None:
    image = make_noise("hot pixels").astype(np.float32)[None]
    before = image.copy()
    measure_values(image)
    assert np.array_equal(image, before)
