"""Augmented patches are compared with padded slices, SciPy, and the positions that image ramps encode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from septa.data.augment import crop_patch, jitter_patch, warp_patch
from septa.recipe import AugmentSettings

STILL = AugmentSettings(
    flip=False,
    turn=False,
    rotate=0,
    scale=(1, 1),
    elastic=0,
    brightness=0,
    contrast=0,
    gamma=(1, 1),
    blur=0,
    noise=0,
    probability=1,
)


def still(**changes: Any) -> AugmentSettings:
    return AugmentSettings(**(STILL.model_dump() | changes))


def random_pair(height: int, width: int, channels: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image_cyx = rng.integers(0, 65536, (channels, height, width)).astype(np.uint16)
    return image_cyx, rng.permutation(height * width).reshape(height, width).astype(np.int32)


def crop_padded(array: np.ndarray, center_yx: tuple[int, int], patch_hw: tuple[int, int]) -> np.ndarray:
    """Return the patch by an independent way: mirror the whole image far beyond its border, then slice."""
    margin = 100
    padded = np.pad(array, [(0, 0)] * (array.ndim - 2) + [(margin, margin)] * 2, mode="reflect")
    top, left = (center + margin - size // 2 for center, size in zip(center_yx, patch_hw))
    return padded[..., top : top + patch_hw[0], left : left + patch_hw[1]]


def ramps(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image whose two channels hold each pixel's own y and x, and labels that number the pixels."""
    image_cyx = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij")).astype(np.float32)
    return image_cyx, np.arange(height * width, dtype=np.int32).reshape(height, width)


@pytest.mark.parametrize("patch_hw", [(8, 8), (7, 7), (5, 12), (1, 1), (60, 61)])
@pytest.mark.parametrize("center_yx", [(15, 20), (0, 0), (29, 39), (-4, 45)])
@pytest.mark.parametrize("identity", [crop_patch, lambda *a: warp_patch(*a, STILL, np.random.default_rng(0))])
def test_without_change_is_an_exact_mirrored_cut(identity: Any, center_yx: Any, patch_hw: Any) -> None:
    image_cyx, labels_yx = random_pair(30, 40, channels=5)
    before = image_cyx.copy(), labels_yx.copy()
    patch_cyx, patch_labels_yx = identity(image_cyx, labels_yx, center_yx, patch_hw)
    assert patch_cyx.dtype == np.float32
    assert patch_labels_yx.dtype == np.int32
    # Exactness is promised: no pixel is interpolated.
    np.testing.assert_array_equal(patch_cyx, crop_padded(image_cyx, center_yx, patch_hw))
    np.testing.assert_array_equal(patch_labels_yx, crop_padded(labels_yx, center_yx, patch_hw))
    patch_cyx[...] = 0
    patch_labels_yx[...] = 0
    np.testing.assert_array_equal(image_cyx, before[0])
    np.testing.assert_array_equal(labels_yx, before[1])


@pytest.mark.parametrize("patch_hw", [(8, 8), (7, 7), (6, 9), (9, 6), (1, 4)])
@pytest.mark.parametrize("center_yx", [(15, 20), (1, 38)])
def test_flips_and_turns_are_exact_and_equally_likely(center_yx: Any, patch_hw: Any) -> None:
    image_cyx, labels_yx = random_pair(30, 40, channels=3)
    expected = {}
    for turns in range(4):
        read_hw = patch_hw[::-1] if turns % 2 else patch_hw
        for flips in ((), (0,), (1,), (0, 1)):
            turned_yx = np.rot90(crop_padded(labels_yx, center_yx, read_hw), turns)
            turned_cyx = np.rot90(crop_padded(image_cyx, center_yx, read_hw), turns, axes=(1, 2))
            flipped_yx = np.flip(turned_yx, flips)
            expected[flipped_yx.tobytes()] = np.flip(turned_cyx, [axis + 1 for axis in flips])
    seen = dict.fromkeys(expected, 0)
    rng = np.random.default_rng(1)
    repeats = 400
    for _ in range(repeats):
        patch_cyx, patch_yx = warp_patch(image_cyx, labels_yx, center_yx, patch_hw, still(flip=True, turn=True), rng)
        # Exactness is promised: no pixel is interpolated.
        np.testing.assert_array_equal(patch_cyx, expected[patch_yx.tobytes()])
        seen[patch_yx.tobytes()] += 1
    assert min(seen.values()) > repeats / len(seen) / 2


def test_flip_alone_and_turn_alone() -> None:
    image_cyx, labels_yx = random_pair(9, 9)
    rng = np.random.default_rng(0)
    for augment, allowed in (
        (still(turn=True), [np.rot90(labels_yx, turns) for turns in range(4)]),
        (still(flip=True), [np.flip(labels_yx, axes) for axes in ((), 0, 1, (0, 1))]),
    ):
        seen = {warp_patch(image_cyx, labels_yx, (4, 4), (9, 9), augment, rng)[1].tobytes() for _ in range(80)}
        assert seen == {np.ascontiguousarray(array).tobytes() for array in allowed}


@pytest.mark.parametrize("center_yx", [(60, 70), (3, 130)])
@pytest.mark.parametrize("seed", range(4))
def test_rotation_and_magnification_agree_with_scipy(center_yx: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    image_yx = ndimage.gaussian_filter(rng.standard_normal((120, 140)), 3)
    image_yx /= np.abs(image_yx).max()
    labels_yx = rng.integers(0, 5, (120, 140)).astype(np.int32)
    labels_yx = np.kron(labels_yx[::8, ::8], np.ones((8, 8), np.int32))[:120, :140]
    augment, patch_hw = still(flip=True, turn=True, rotate=40, scale=(0.7, 1.4)), (33, 46)

    # The transform is read from position ramps at the same place of a plane that is so large that it is never mirrored.
    ramp_cyx, ramp_labels_yx = ramps(440, 440)
    far_yx = (center_yx[0] + 160, center_yx[1] + 160)
    position_cyx, _ = warp_patch(ramp_cyx, ramp_labels_yx, far_yx, patch_hw, augment, np.random.default_rng(seed))
    grid_nd = np.indices(patch_hw).reshape(2, -1).T
    design_nk = np.column_stack([grid_nd, np.ones(len(grid_nd))])
    solution_kd, *_ = np.linalg.lstsq(design_nk, position_cyx.reshape(2, -1).T - 160, rcond=None)
    matrix, offset = solution_kd[:2].T, solution_kd[2]

    magnification = 1 / np.sqrt(abs(np.linalg.det(matrix)))
    assert 0.7 - 1e-4 <= magnification <= 1.4 + 1e-4
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(2) / magnification**2, atol=2e-3)
    free_degrees = (np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])) + 45) % 90 - 45
    assert 0.01 < abs(free_degrees) <= 40.1

    patch_cyx, patch_labels_yx = warp_patch(
        image_yx[None], labels_yx, center_yx, patch_hw, augment, np.random.default_rng(seed)
    )
    expected_yx = ndimage.affine_transform(image_yx, matrix, offset, patch_hw, order=1, mode="mirror")
    np.testing.assert_allclose(patch_cyx[0], expected_yx, atol=0.01)
    expected_labels_yx = ndimage.affine_transform(labels_yx, matrix, offset, patch_hw, order=0, mode="mirror")
    assert (patch_labels_yx == expected_labels_yx).mean() > 0.99


def test_rotation_and_magnification_fill_their_ranges() -> None:
    image_cyx, labels_yx = ramps(200, 200)
    rng = np.random.default_rng(0)
    degrees, magnifications = [], []
    for _ in range(300):
        position_cyx, _ = warp_patch(image_cyx, labels_yx, (100, 100), (41, 41), still(rotate=30, scale=(0.5, 2)), rng)
        along_y = (position_cyx[:, 40, 20] - position_cyx[:, 0, 20]) / 40
        degrees.append(np.degrees(np.arctan2(along_y[1], along_y[0])))
        magnifications.append(1 / np.hypot(*along_y))
        np.testing.assert_allclose(position_cyx[:, 20, 20], 100, atol=1e-3)
    assert -30.1 <= min(degrees) < -25 < 25 < max(degrees) <= 30.1
    assert 0.499 <= min(magnifications) < 0.55 < 1.85 < max(magnifications) <= 2.01
    assert np.median(magnifications) == pytest.approx(1, abs=0.1)


def test_elastic_displacements_have_the_stated_spread_and_are_smooth() -> None:
    # 3 nodes over 63 pixels lie on the pixels 10, 31 and 52. There, bicubic interpolation returns the drawn values.
    image_cyx, labels_yx = ramps(400, 400)
    rng = np.random.default_rng(0)
    size, std = 63, 8.0
    home_cyx, _ = crop_patch(image_cyx, labels_yx, (200, 200), (size, size))
    at_nodes = []
    for _ in range(300):
        position_cyx, _ = warp_patch(
            image_cyx, labels_yx, (200, 200), (size, size), still(elastic=std, elastic_grid=3), rng
        )
        shift_cyx = position_cyx - home_cyx
        at_nodes.append(shift_cyx[:, 10::21, 10::21].ravel())
        assert np.abs(np.diff(shift_cyx, n=2, axis=1)).max() < 0.1 * std
    values = np.array(at_nodes)
    assert values.shape == (300, 18)
    assert values.mean() == pytest.approx(0, abs=4 * std / np.sqrt(values.size))
    assert values.std() == pytest.approx(std, rel=0.05)
    np.testing.assert_allclose(np.corrcoef(values.T), np.eye(18), atol=0.25)


def test_elastic_is_drawn_with_the_stated_probability() -> None:
    image_cyx, labels_yx = ramps(60, 60)
    rng = np.random.default_rng(0)
    plain_cyx, _ = crop_patch(image_cyx, labels_yx, (30, 30), (16, 16))
    augment = still(elastic=4, probability=0.3)
    changed = [
        not np.array_equal(warp_patch(image_cyx, labels_yx, (30, 30), (16, 16), augment, rng)[0], plain_cyx)
        for _ in range(400)
    ]
    assert 0.2 < np.mean(changed) < 0.4


@settings(max_examples=60, deadline=None)
@given(
    size_hw=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    patch_hw=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**32 - 1),
)
def test_labels_gain_no_value_and_image_stays_in_range(
    size_hw: tuple[int, int], patch_hw: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = np.array([-1, 0, 255, 65_536, 16_777_217, 2**31 - 1], np.int32)
    labels_yx = values[rng.integers(0, len(values), size_hw)]
    image_cyx = rng.integers(100, 200, (2, *size_hw)).astype(np.uint8)
    center_yx = (int(rng.integers(size_hw[0])), int(rng.integers(size_hw[1])))
    patch_cyx, patch_yx = warp_patch(image_cyx, labels_yx, center_yx, patch_hw, AugmentSettings(probability=1), rng)
    assert patch_cyx.shape == (2, *patch_hw)
    assert patch_yx.shape == patch_hw
    assert patch_cyx.dtype == np.float32
    assert patch_yx.dtype == np.int32
    assert set(np.unique(patch_yx)) <= set(np.unique(labels_yx))
    assert image_cyx.min() - 1e-3 <= patch_cyx.min() <= patch_cyx.max() <= image_cyx.max() + 1e-3


@pytest.mark.parametrize("seed", range(5))
def test_image_and_labels_stay_aligned(seed: int) -> None:
    image_cyx, labels_yx = ramps(300, 300)
    augment = AugmentSettings(probability=1, elastic=10, rotate=180)
    position_cyx, number_yx = warp_patch(
        image_cyx, labels_yx, (150, 150), (64, 80), augment, np.random.default_rng(seed)
    )
    # The nearest pixel is within half a pixel; older OpenCV releases round positions to 1/32 pixel.
    assert np.abs(np.stack(np.divmod(number_yx, 300)) - position_cyx).max() <= 0.5 + 1 / 32


def test_channels_are_warped_alike() -> None:
    image_cyx, labels_yx = random_pair(50, 50)
    many_cyx = np.concatenate([image_cyx, image_cyx // 2 * 2, image_cyx, image_cyx, image_cyx])
    patch_cyx, _ = warp_patch(many_cyx, labels_yx, (25, 25), (32, 32), AugmentSettings(), np.random.default_rng(3))
    alone_cyx, _ = warp_patch(image_cyx, labels_yx, (25, 25), (32, 32), AugmentSettings(), np.random.default_rng(3))
    # Equal channels go through the same operations in the same order.
    for channel in (0, 2, 3, 4):
        np.testing.assert_array_equal(patch_cyx[channel], alone_cyx[0])
    assert not np.array_equal(patch_cyx[1], alone_cyx[0])


@pytest.mark.parametrize("center_x", [10, 35_000, 69_990])
def test_images_wider_than_opencv_allows(center_x: int) -> None:
    labels_yx = np.arange(40 * 70_000, dtype=np.int32).reshape(40, 70_000)
    augment = AugmentSettings(probability=1)
    patch_cyx, patch_yx = warp_patch(
        labels_yx[None] % 70_000, labels_yx, (20, center_x), (32, 32), augment, np.random.default_rng(0)
    )
    begin = max(center_x - 200, 0)
    near_yx = labels_yx[:, begin : center_x + 200]
    expected_cyx, expected_yx = warp_patch(
        near_yx[None] % 70_000, near_yx, (20, center_x - begin), (32, 32), augment, np.random.default_rng(0)
    )
    # Exact: positions are relative to the window that is read, so the size of the image does not enter.
    np.testing.assert_array_equal(patch_cyx, expected_cyx)
    np.testing.assert_array_equal(patch_yx, expected_yx)


def test_single_pixel_image() -> None:
    image_cyx, labels_yx = np.full((5, 1, 1), 7, np.uint8), np.full((1, 1), -1, np.int32)
    for patch_cyx, patch_yx in (
        crop_patch(image_cyx, labels_yx, (0, 0), (4, 3)),
        warp_patch(image_cyx, labels_yx, (0, 0), (4, 3), AugmentSettings(probability=1), np.random.default_rng(0)),
    ):
        np.testing.assert_allclose(patch_cyx, np.full((5, 4, 3), 7), rtol=1e-6)
        np.testing.assert_array_equal(patch_yx, np.full((4, 3), -1))


@pytest.mark.parametrize(
    "dtype", [np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64]
)
def test_every_pixel_type_and_memory_layout(dtype: type) -> None:
    image_cyx = np.random.default_rng(0).integers(0, 2, (20, 24, 2)).astype(dtype).transpose(2, 0, 1)[:, ::-1]
    labels_yx = np.asfortranarray(image_cyx[0].astype(np.uint8))
    patch_cyx, patch_yx = warp_patch(image_cyx, labels_yx, (10, 12), (16, 16), STILL, np.random.default_rng(0))
    np.testing.assert_array_equal(patch_cyx, crop_padded(image_cyx.astype(np.float32), (10, 12), (16, 16)))
    np.testing.assert_array_equal(patch_yx, patch_cyx[0])


def test_the_generator_determines_the_result() -> None:
    image_cyx, labels_yx = random_pair(80, 80)

    def sample(seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        patch_cyx, patch_yx = warp_patch(image_cyx, labels_yx, (40, 40), (48, 48), AugmentSettings(), rng)
        return jitter_patch(patch_cyx, AugmentSettings(), rng).tobytes() + patch_yx.tobytes()

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(10)}) == 10


@pytest.mark.parametrize(
    ("image_shape", "labels_shape", "patch_hw"),
    [((1, 5, 6), (6, 5), (2, 2)), ((5, 6), (5, 6), (2, 2)), ((1, 0, 6), (0, 6), (2, 2)), ((1, 5, 6), (5, 6), (0, 2))],
)
@pytest.mark.parametrize("cut", [crop_patch, lambda *a: warp_patch(*a, STILL, np.random.default_rng(0))])
def test_wrong_shapes_are_refused(cut: Any, image_shape: Any, labels_shape: Any, patch_hw: Any) -> None:
    with pytest.raises(ValueError, match=r"got \("):
        cut(np.zeros(image_shape), np.zeros(labels_shape, np.int32), (1, 1), patch_hw)


def test_jitter_without_change_returns_a_copy() -> None:
    patch_cyx = np.random.default_rng(0).standard_normal((3, 20, 30), np.float32)
    changed_cyx = jitter_patch(patch_cyx, STILL, np.random.default_rng(0))
    assert changed_cyx.dtype == np.float32
    assert not np.shares_memory(changed_cyx, patch_cyx)
    np.testing.assert_allclose(changed_cyx, patch_cyx, atol=1e-6)


def test_jitter_leaves_its_input_untouched() -> None:
    patch_cyx = np.random.default_rng(0).standard_normal((2, 20, 30), np.float32)
    before = patch_cyx.copy()
    assert not np.array_equal(jitter_patch(patch_cyx, AugmentSettings(probability=1), np.random.default_rng(0)), before)
    np.testing.assert_array_equal(patch_cyx, before)


def test_contrast_and_brightness_are_within_their_ranges() -> None:
    patch_cyx = np.random.default_rng(0).standard_normal((2, 40, 40), np.float32) + 3
    rng = np.random.default_rng(1)
    factors, shifts = [], []
    for _ in range(300):
        changed_cyx = jitter_patch(patch_cyx, still(contrast=0.3, brightness=0.5), rng)
        factors.append(changed_cyx.std((1, 2)) / patch_cyx.std((1, 2)))
        shifts.append(changed_cyx.mean((1, 2)) - patch_cyx.mean((1, 2)))
        middle_cyx = (patch_cyx - patch_cyx.mean((1, 2), keepdims=True)) * factors[-1][:, None, None]
        np.testing.assert_allclose(changed_cyx - changed_cyx.mean((1, 2), keepdims=True), middle_cyx, atol=1e-4)
    assert 0.699 < np.min(factors) < 0.72 < 1.28 < np.max(factors) < 1.301
    assert -0.501 < np.min(shifts) < -0.47 < 0.47 < np.max(shifts) < 0.501
    # Each channel has its own shift.
    assert len(np.unique(np.round(shifts, 6))) > 590


def test_gamma_is_a_power_of_the_rescaled_patch() -> None:
    patch_cyx = np.random.default_rng(0).uniform(-2, 5, (1, 30, 30)).astype(np.float32)
    rng = np.random.default_rng(1)
    exponents = []
    for _ in range(200):
        changed_cyx = jitter_patch(patch_cyx, still(gamma=(0.5, 2)), rng)
        low, high = patch_cyx.min(), patch_cyx.max()
        before, after = ((array - low) / (high - low) for array in (patch_cyx, changed_cyx))
        middle = np.argsort(before.ravel())[450]
        exponents.append(np.log(after.ravel()[middle]) / np.log(before.ravel()[middle]))
        np.testing.assert_allclose(after, before ** exponents[-1], atol=1e-4)
    assert 0.499 < min(exponents) < 0.55 < 1.85 < max(exponents) < 2.001


def test_gamma_leaves_a_constant_patch_alone() -> None:
    patch_cyx = np.full((1, 8, 8), 0.25, np.float32)
    np.testing.assert_array_equal(jitter_patch(patch_cyx, still(gamma=(2, 2)), np.random.default_rng(0)), patch_cyx)


def test_blur_agrees_with_scipy() -> None:
    patch_cyx = np.random.default_rng(0).standard_normal((2, 40, 50), np.float32)
    changed_cyx = jitter_patch(patch_cyx, still(blur=3.0), np.random.default_rng(5))
    errors = {
        sigma: np.abs(ndimage.gaussian_filter(patch_cyx, (0, sigma, sigma), mode="mirror") - changed_cyx).max()
        for sigma in np.arange(0.05, 3.05, 0.01)
    }
    assert min(errors.values()) < 0.01 < max(errors.values())
    spread = [jitter_patch(patch_cyx, still(blur=3.0), np.random.default_rng(seed)).std() for seed in range(50)]
    assert min(spread) < 0.15 < 0.9 < max(spread)


def test_noise_has_the_stated_strength() -> None:
    patch_cyx = np.zeros((2, 60, 60), np.float32)
    rng = np.random.default_rng(0)
    noise = [jitter_patch(patch_cyx, still(noise=0.4), rng) for _ in range(200)]
    spread = np.array([patch.std() for patch in noise])
    assert spread.max() < 0.42
    assert spread.mean() == pytest.approx(0.2, abs=0.03)
    assert max(abs(np.corrcoef(patch[0].ravel(), patch[1].ravel())[0, 1]) for patch in noise) < 0.1


def test_gamma_blur_and_noise_are_drawn_with_the_stated_probability() -> None:
    patch_cyx = np.random.default_rng(0).standard_normal((1, 16, 16), np.float32)
    for changes in ({"gamma": (2, 2)}, {"blur": 2.0}, {"noise": 1.0}):
        rng = np.random.default_rng(0)
        augment = still(probability=0.25, **changes)
        changed = [np.abs(jitter_patch(patch_cyx, augment, rng) - patch_cyx).max() > 1e-3 for _ in range(400)]
        assert 0.17 < np.mean(changed) < 0.33
