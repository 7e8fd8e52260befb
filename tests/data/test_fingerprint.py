"""Facts of images are compared with plain NumPy."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from septa.data import intensities
from septa.data.fingerprint import ImageFacts, combine_facts, scan_image
from septa.recipe import IGNORE


def texture(seed: int, shape: tuple[int, int] = (96, 128)) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 4)
    return (128 + 30 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)[None]


def scan(name: str, image_cyx: np.ndarray) -> ImageFacts:
    return scan_image(name, image_cyx, np.zeros(image_cyx.shape[1:], np.int32), classes=2)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["uint8", "uint16", "int32", "float32", "float64"]),
    st.integers(0, 99),
)
def test_statistics_equal_numpy(channels: int, height: int, width: int, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image_cyx = (rng.random((channels, height, width)) * 250 + 1000 * (dtype != "uint8")).astype(dtype)
    before = image_cyx.copy()
    facts = scan("a", image_cyx)
    flat = image_cyx.reshape(channels, -1).astype(np.float64)
    np.testing.assert_allclose(facts.mean, flat.mean(1), rtol=1e-12)
    np.testing.assert_allclose(facts.std, flat.std(1), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(facts.percentiles, np.percentile(flat, (0.5, 50, 99.5), axis=1).T, rtol=1e-6)
    assert (facts.channels, facts.height, facts.width, facts.dtype) == (channels, height, width, dtype)
    assert facts.constant == all(len(np.unique(plane)) == 1 for plane in image_cyx)
    np.testing.assert_array_equal(image_cyx, before)


def test_statistics_of_blocks_combine_to_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    image_cyx = np.random.default_rng(0).normal(1e6, 1, (1, 101, 13))
    whole = scan("a", image_cyx)
    monkeypatch.setattr(intensities, "_STATISTICS_BLOCK", 40)
    blocks = scan("a", image_cyx)
    np.testing.assert_allclose(blocks.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(blocks.std, image_cyx.std(), rtol=1e-9)


def test_percentiles_of_a_large_image_are_close() -> None:
    image_cyx = np.random.default_rng(0).normal(size=(1, 1500, 1700)).astype(np.float32)
    np.testing.assert_allclose(
        scan("a", image_cyx).percentiles[0], np.percentile(image_cyx, (0.5, 50, 99.5)), atol=0.08
    )


def test_pixels_that_are_not_finite_are_reported_and_left_out() -> None:
    image_cyx = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    image_cyx[0, 0, 0], image_cyx[0, 2, 3] = np.nan, np.inf
    facts = scan("a", image_cyx)
    assert not facts.finite
    assert scan("b", np.ones((1, 3, 4))).finite
    np.testing.assert_allclose(facts.mean, [np.arange(1, 11).mean()])
    np.testing.assert_allclose(facts.std, [np.arange(1, 11).std()])
    assert np.isfinite(facts.thumb).all()
    assert np.isfinite(facts.percentiles).all()


def test_an_image_without_a_finite_pixel() -> None:
    facts = scan("a", np.full((2, 5, 5), np.nan, np.float32))
    assert not facts.finite
    assert facts.constant
    assert facts.mean == (0.0, 0.0)


def test_constant_means_every_channel() -> None:
    image_cyx = np.zeros((2, 4, 4), np.uint8)
    image_cyx[1] = 7
    assert scan("a", image_cyx).constant
    image_cyx[1, 0, 0] = 8
    assert not scan("a", image_cyx).constant


@pytest.mark.parametrize("shape", [(1, 1, 7), (1, 40, 3), (3, 70, 90), (1, 3000, 2500)])
def test_thumb_has_mean_0_and_norm_1(shape: tuple[int, int, int]) -> None:
    thumb = scan("a", np.random.default_rng(0).integers(0, 9, shape, np.uint16)).thumb
    assert thumb.shape == (32, 32)
    assert thumb.dtype == np.float32
    assert abs(thumb.mean()) < 1e-5
    assert np.linalg.norm(thumb) == pytest.approx(1, abs=1e-5)


def test_class_pixels_of_indices() -> None:
    labels_yx = np.random.default_rng(0).integers(-1, 4, (30, 40)).astype(np.int32)
    found = scan_image("a", texture(0, (30, 40)), labels_yx, classes=5).class_pixels
    assert found == {k: int((labels_yx == k).sum()) for k in (0, 1, 2, 3, 4, IGNORE)}


def test_class_pixels_of_bit_fields() -> None:
    labels_yx = np.array([[0, 1, 2], [3, 7, IGNORE]], np.int32)
    facts = scan_image("a", texture(0, (2, 3)), labels_yx, classes=3, multilabel=True)
    assert facts.class_pixels == {0: 3, 1: 3, 2: 1, IGNORE: 1}
    assert combine_facts([facts]).class_shares == pytest.approx((3 / 5, 3 / 5, 1 / 5))


def test_wrong_labels_are_refused() -> None:
    image_cyx = texture(0)
    with pytest.raises(ValueError, match=r"\(3, 3\) do not fit"):
        scan_image("a", image_cyx, np.zeros((3, 3), np.int32), classes=2)
    for value in (-2, 2):
        with pytest.raises(ValueError, match=r"encoded labels must lie in -1\.\.1"):
            scan_image("a", image_cyx, np.full(image_cyx.shape[1:], value, np.int32), classes=2)
    with pytest.raises(ValueError, match="axes CYX"):
        scan_image("a", image_cyx[0], None, classes=2)


def test_diameters_are_those_of_the_discs() -> None:
    labels_yx = np.zeros((200, 200), np.int32)
    for value, center, radius in ((1, (40, 40), 10), (2, (120, 50), 25), (1, (120, 150), 40)):
        cv2.circle(labels_yx, center, radius, value, -1)
    found = scan_image("a", texture(0, (200, 200)), labels_yx, classes=3).object_diameters
    np.testing.assert_allclose(found, [20, 50, 80], rtol=0.05)


def test_diameters_of_many_objects_are_thinned_evenly() -> None:
    labels_yx = np.zeros((300, 300), np.int32)
    labels_yx[::3, ::3] = 1
    labels_yx[150:, 1::3] = np.where(labels_yx[150:, ::3] == 1, 1, labels_yx[150:, 1::3])
    found = scan_image("a", texture(0, (300, 300)), labels_yx, classes=2).object_diameters
    areas = ndimage.sum_labels(labels_yx, *label_objects(labels_yx))
    assert len(found) == 200
    np.testing.assert_allclose(
        np.percentile(found, (5, 45, 95)), np.percentile(2 * np.sqrt(areas / np.pi), (5, 45, 95)), rtol=1e-6
    )


def label_objects(labels_yx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    marked, count = ndimage.label(labels_yx, np.ones((3, 3)))
    return marked, np.arange(1, count + 1)


def test_objects_of_overlapping_classes_are_measured_for_each() -> None:
    labels_yx = np.zeros((50, 50), np.int32)
    labels_yx[:20] |= 1
    labels_yx[10:40] |= 2
    found = scan_image("a", texture(0, (50, 50)), labels_yx, classes=2, multilabel=True).object_diameters
    np.testing.assert_allclose(found, 2 * np.sqrt(np.array([1000, 1500]) / np.pi))


def test_the_digest_depends_on_pixels_dtype_and_labels() -> None:
    image_cyx, labels_yx = texture(0), np.zeros((96, 128), np.int32)
    facts = scan_image("a", image_cyx, labels_yx, classes=2)
    assert scan_image("b", np.asfortranarray(image_cyx), labels_yx, classes=2).digest == facts.digest
    other = scan_image("a", image_cyx, labels_yx + 1, classes=2)
    assert other.digest != facts.digest
    assert other.image_digest == facts.image_digest
    assert scan("a", image_cyx.astype(np.uint16)).image_digest != facts.image_digest
    assert scan("a", image_cyx.astype(">u2")).image_digest == scan("a", image_cyx.astype("<u2")).image_digest
    assert scan("a", image_cyx.reshape(1, 128, 96)).image_digest != facts.image_digest


def test_combine_equals_the_statistics_of_all_pixels() -> None:
    rng = np.random.default_rng(0)
    images = [
        rng.normal(m, s, (3, h, w)) for m, s, h, w in ((1e4, 3, 20, 30), (1e4 + 9, 1, 50, 10), (1e4 - 5, 2, 7, 8))
    ]
    labels = [rng.integers(-1, 3, image.shape[1:]).astype(np.int32) for image in images]
    facts = [scan_image(str(i), image, label, classes=4) for i, (image, label) in enumerate(zip(images, labels))]
    joined = combine_facts(facts)
    pixels = np.concatenate([image.reshape(3, -1) for image in images], axis=1)
    np.testing.assert_allclose(joined.mean, pixels.mean(1), rtol=1e-12)
    np.testing.assert_allclose(joined.std, pixels.std(1), rtol=1e-9)
    every = np.concatenate([label.ravel() for label in labels])
    np.testing.assert_allclose(joined.class_shares, [(every == k).sum() / (every >= 0).sum() for k in range(4)])
    assert joined.sizes == ((7, 8), (20, 10), (50, 30))
    assert (joined.images, joined.channels, joined.dtype) == (3, 3, "float64")
    assert combine_facts(facts[::-1]).digest == joined.digest
    assert combine_facts(facts[:2]).digest != joined.digest


def test_grey_images_count_as_repeated_and_grey_rgb_as_one() -> None:
    grey, color = texture(0), np.concatenate([texture(1)] * 3)
    both = combine_facts([scan("a", grey), scan("b", color)])
    assert both.channels == 3
    np.testing.assert_allclose(both.mean, [(grey.mean() + color[0].mean()) / 2] * 3)
    assert combine_facts([scan("a", grey), scan("b", color)], channels=1).mean == pytest.approx(both.mean[:1])
    with pytest.raises(ValueError, match="b: 3 channels cannot be converted to 2"):
        combine_facts([scan("a", grey[:1]), scan("b", color)], channels=2)
    with pytest.raises(ValueError, match="at least one"):
        combine_facts([])


def test_a_fingerprint_converts_to_json() -> None:
    facts = [scan("a", texture(0))]
    value = combine_facts(facts).to_json()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["sizes"] == [[96, 128]] * 3
    assert value["diameter_percentiles"] == [0, 0, 0]
