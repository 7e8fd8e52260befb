"""Images of another bit depth are rescaled, strange images are named, and images of the training's kind are neither."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from septa.images.training_values import TrainingValues, ValueCheck, combine_values
from septa.images.value_facts import measure_values

Image = NDArray[Any]


def draw(seed: int, *, exposure: float = 1.0, channels: int = 1, discs: int = 12) -> Image:
    """Draw light discs on a dark ground, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :112]
    shape = np.zeros(y.shape, bool)
    for _ in range(discs):
        shape |= (y - rng.integers(96)) ** 2 + (x - rng.integers(112)) ** 2 < rng.integers(5, 9) ** 2
    planes = [20 + shape * (150 - 20 * c) * exposure + rng.normal(0, 4, y.shape) for c in range(channels)]
    return np.clip(np.stack(planes), 0, 255).astype(np.uint8)


def train(images: list[Image], channels: int = 1) -> TrainingValues:
    return combine_values([measure_values(image) for image in images], channels)


def compare(training: TrainingValues, image: Image, *, scaled: bool = False) -> ValueCheck:
    return training.compare(measure_values(image), scaled=scaled)


def texts(check: ValueCheck) -> str:
    return "; ".join(notice.text for notice in check.notices)


EIGHT = [draw(seed, exposure=1 - 0.05 * seed) for seed in range(8)]
NEW = draw(99)


@pytest.mark.parametrize(
    ("factors", "step"), [((1, 1), 1), ((4, 6), 2), ((257, 257), 257), ((1, 1 / 255), 0), ((1 / 255, 1 / 65535), 0)]
)
def test_the_step_of_images_divides_the_values_of_all(factors: tuple[float, ...], step: float) -> None:
    images = [(draw(seed).astype(np.float64) * factor).astype(np.float32) for seed, factor in enumerate(factors)]
    assert train(images).step == step


def test_zero_is_a_value_of_every_bit_depth() -> None:
    dark = [np.where(image < 60, 0, image) for image in [*EIGHT, NEW]]
    training = train([image.astype(np.uint16) * 257 for image in dark[:8]])
    assert compare(training, dark[8]).factor == 257


def test_an_image_with_one_tiny_object_has_low_contrast() -> None:
    image = np.full((1, 512, 512), 20, np.uint8)
    y, x = np.ogrid[:512, :512]
    image[0][(y - 250) ** 2 + (x - 250) ** 2 < 144] = 160  # fewer pixels than the measured percentiles leave out
    assert "the contrast is far lower" in texts(compare(train(EIGHT), image))


def test_values_of_the_usual_contrast_that_are_shifted_are_named() -> None:
    training = train(EIGHT)
    for offset in (70, -15):
        shifted = np.clip(NEW.astype(int) + offset, 0, 255).astype(np.uint8)
        expected = "most values are far higher than in the training images" if offset == 70 else ""
        assert texts(compare(training, shifted)).startswith(expected)
        assert bool(texts(compare(training, shifted))) == bool(expected)
        assert compare(training, shifted, scaled=True) == ValueCheck()
    low = train([np.clip(image.astype(int) + 70, 0, 255).astype(np.uint8) for image in EIGHT])
    assert "most values are far lower" in texts(compare(low, NEW))


@pytest.mark.parametrize("exposure", [0.5, 0.8, 1.0, 1.3])
@pytest.mark.parametrize("images", [EIGHT, EIGHT[:1]], ids=["8 images", "1 image"])
def test_nothing_is_said_about_images_of_the_same_kind(images: list[Image], exposure: float) -> None:
    for seed in range(50, 55):
        assert compare(train(images), draw(seed, exposure=exposure)) == ValueCheck()


@pytest.mark.parametrize(
    ("make", "factor", "text"),
    [
        (lambda a: a.astype(np.uint16) * 257, 1 / 257, "16 bit where training had 8 bit; they are divided by 257"),
        (lambda a: a.astype(np.uint16) * 256, 1 / 256, "16 bit where training had 8 bit; they are divided by 256"),
        (lambda a: a.astype(np.uint16) * 16, 1 / 16, "12 bit where training had 8 bit; they are divided by 16"),
        (lambda a: a.astype(np.int16) * 128, 1 / 128, "15 bit where training had 8 bit; they are divided by 128"),
        (lambda a: a.astype(np.int32) * 4, 1 / 4, "10 bit where training had 8 bit; they are divided by 4"),
        (lambda a: (a / 255).astype(np.float32), 255, "floats from 0 to 1 where training had 8 bit; they are mult"),
        (lambda a: a.astype(np.uint16), 1, ""),
        (lambda a: a.astype(np.float32), 1, ""),
    ],
)
def test_a_bit_depth_is_converted_to_that_of_the_training(make: Any, factor: float, text: str) -> None:
    check = compare(train(EIGHT), make(NEW))
    assert check.factor == pytest.approx(factor)
    assert text in texts(check)
    assert not any(notice.warning for notice in check.notices)


@pytest.mark.parametrize(
    ("make", "back"),
    [
        (lambda a: a.astype(np.uint16) * 257, 257),
        (lambda a: a.astype(np.uint16) * 16, 16),
        (lambda a: a / 255, 1 / 255),
    ],
)
def test_8_bit_images_fit_models_of_other_depths(make: Any, back: float) -> None:
    check = compare(train([make(image) for image in EIGHT]), NEW)
    assert check.factor == pytest.approx(back)


def test_an_uncertain_depth_is_reported_and_not_guessed() -> None:
    """After a training on very different exposures, 12-bit values may have come from several depths."""
    mixed = train([draw(seed, exposure=2.0**-seed) for seed in range(5)] + EIGHT)
    noisy = NEW.astype(np.uint16) * 16 + np.random.default_rng(0).integers(0, 16, NEW.shape).astype(np.uint16)
    check = compare(mixed, noisy)
    assert check.factor == 1
    assert "the contrast is far higher than in the training images" in texts(check)
    assert all(notice.warning and notice.remedy for notice in check.notices)


def test_the_scale_is_irrelevant_if_each_image_is_normalised_by_itself() -> None:
    assert compare(train(EIGHT), NEW.astype(np.uint16) * 257, scaled=True) == ValueCheck()


@pytest.mark.parametrize("scaled", [False, True])
def test_an_inverted_image_is_named(scaled: bool) -> None:
    dark = "dark objects on light where training had light objects on dark"
    assert dark in texts(compare(train(EIGHT), 255 - NEW, scaled=scaled))
    light = "light objects on dark where training had dark objects on light"
    assert light in texts(compare(train([255 - image for image in EIGHT]), NEW, scaled=scaled))
    assert compare(train([*EIGHT, 255 - EIGHT[0]]), 255 - NEW, scaled=True) == ValueCheck()


@pytest.mark.parametrize("scaled", [False, True])
def test_noise_and_blank_images_are_named(scaled: bool) -> None:
    noise = np.random.default_rng(0).normal(20, 4, (1, 96, 112)).clip(0).astype(np.uint8)
    training = train(EIGHT)
    assert "nothing but noise" in texts(compare(training, noise, scaled=scaled))
    assert "is blank" in texts(compare(training, np.full_like(noise, 20), scaled=scaled))
    assert compare(train([*EIGHT, noise]), noise, scaled=scaled) == ValueCheck()


def test_empty_images_do_not_widen_the_ranges() -> None:
    training = train([*EIGHT, np.zeros_like(NEW)])
    assert training.contrast == train(EIGHT).contrast
    assert training.unstructured == pytest.approx(1 / 9)


def test_dim_and_shifted_values_are_named() -> None:
    training = train([draw(seed) for seed in range(40)])
    for part in (4, 12):
        assert "the contrast is far lower" in texts(compare(training, (20 + NEW / part).astype(np.uint8)))
    assert "the values are far higher" in texts(compare(train([i // 4 for i in EIGHT] * 5), NEW // 4 + 180))


def test_a_constant_channel_is_named() -> None:
    training = train([draw(seed, channels=2) for seed in range(8)], channels=2)
    image = draw(99, channels=2)
    assert compare(training, image) == ValueCheck()
    image[1] = 0
    (notice,) = compare(training, image).notices
    assert (notice.text, notice.warning) == ("channel 1 has one value everywhere, as in no training image", True)


def test_json() -> None:
    training = train([*EIGHT, EIGHT[0].astype(np.uint16)])
    assert training.dtypes == {"uint16": 1, "uint8": 8}
    assert TrainingValues.from_json(json.loads(json.dumps(training.to_json()))) == training


@pytest.mark.parametrize(
    "change",
    [
        {"images": 9},
        {"images": True},
        {"images": "8"},
        {"dtypes": {"uint8": 8.0}},
        {"dtypes": {"object": 8}},
        {"dtypes": {"nonsense": 8}},
        {"dtypes": {}},
        {"dtypes": [8]},
        {"step": -1},
        {"step": float("nan")},
        {"step": "1"},
        {"contrast": [[2, 1]]},
        {"contrast": [[0, float("inf")]]},
        {"contrast": [[-1, 1]]},
        {"contrast": []},
        {"contrast": [[0, 1], [0, 1]]},
        {"level": [[0, None]]},
        {"level": 3},
        {"tilt": [[0, 1, 2]]},
        {"constant": [0]},
        {"constant": [False, False]},
        {"unstructured": 1.5},
    ],
)
def test_malformed_values_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        TrainingValues.from_json({**train(EIGHT).to_json(), **change})
    values = train(EIGHT).to_json()
    del values[next(iter(change))]
    with pytest.raises(ValueError, match="not the values of training images"):
        TrainingValues.from_json(values)


def test_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        combine_values([], 1)
