"""Check the normalisation against its formula, tiles against their image, and the conversion of channels."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from septa.errors import InputError
from septa.images.normalize import Normalization, as_cyx, find_robust_range, fit_channels
from septa.images.sampling import choose_sampling_steps

RNG = np.random.default_rng(5)
IMAGES = hnp.arrays(
    st.sampled_from(["u1", "u2", "i2", "i4", "u4", "f4", "f8"]),
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    elements=st.integers(0, 100),
)


@given(image=IMAGES, data=st.data())
def test_apply_is_the_formula(image: Any, data: st.DataObject) -> None:
    numbers = st.lists(st.floats(0.1, 1000), min_size=len(image), max_size=len(image))
    offset, scale = data.draw(numbers), data.draw(numbers)
    before = image.copy()
    found = Normalization("dataset", tuple(offset), tuple(scale)).apply(image)
    expected = (image.astype(np.float64) - np.reshape(offset, (-1, 1, 1))) / np.reshape(scale, (-1, 1, 1))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(image, before)


@given(image=IMAGES)
def test_image_constants_are_percentiles(image: Any) -> None:
    resolved = Normalization("image").resolve(image)
    assert resolved.kind == "dataset"
    for plane, offset, scale in zip(image, resolved.offset, resolved.scale):
        low, high = np.percentile(plane.astype(np.float64), [1, 99.8])
        assert offset == pytest.approx(low)
        assert scale == pytest.approx((high - low) / 2 if high > low else 1)
    assert resolved.resolve(image * 0) is resolved


def test_a_tile_is_normalised_as_its_image_is() -> None:
    image = RNG.integers(0, 5000, (2, 40, 30), dtype=np.uint16)
    resolved = Normalization("image").resolve(image)
    # Exactness is promised: the values of a pixel do not depend on the tile that it is in.
    np.testing.assert_array_equal(resolved.apply(image)[:, 7:20, 3:9], resolved.apply(image[:, 7:20, 3:9]))


@given(data=st.data(), width=st.integers(1, 200), kind=st.sampled_from(["u1", "u2", "f4", "f8"]))
def test_the_curve_is_the_formula_and_the_same_wherever_a_tile_begins(
    data: st.DataObject, width: int, kind: str
) -> None:
    curve = data.draw(st.floats(0.1, 1000))
    image = RNG.integers(0, 250, (2, 9, width)).astype(kind)
    found = Normalization("dataset", (20.0, 3.0), (50.0, 7.0), curve).apply(image)
    linear = (image.astype(np.float64) - [[[20.0]], [[3.0]]]) / [[[50.0]], [[7.0]]]
    np.testing.assert_allclose(found, 2 * np.arcsinh(curve * linear / 2) / np.arcsinh(curve), rtol=1e-4, atol=1e-5)
    start = data.draw(st.integers(0, width - 1))
    stop = data.draw(st.integers(start + 1, width))
    tile = Normalization("dataset", (20.0, 3.0), (50.0, 7.0), curve).apply(image[:, 2:7, start:stop])
    # Exactness is promised: the values of a pixel do not depend on the tile that it is in.
    np.testing.assert_array_equal(tile, found[:, 2:7, start:stop])


def test_a_curve_keeps_the_ends_and_lifts_what_is_dim() -> None:
    image = RNG.gamma(1, 100, (1, 300, 300)).astype(np.float32)
    constants = Normalization("image", curve=20.0).resolve(image)
    assert constants.curve == 20
    assert Normalization.from_json(json.loads(json.dumps(constants.to_json()))) == constants
    low, high = constants.offset[0], constants.offset[0] + 2 * constants.scale[0]
    ends = constants.apply(np.array([[[low, low + 0.05 * (high - low), high]]]))
    np.testing.assert_allclose(ends, [[[0, 0.4778, 2]]], atol=1e-4)
    assert Normalization.from_json({"kind": "image", "offset": [], "scale": []}).curve == 0


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    kind=st.sampled_from(["u2", "i4", "f4", "f8"]),
    curve=st.sampled_from([0.0, 20.0]),
    extreme=st.sampled_from([-3.4e38, -9999.0, 65535.0, 3.4e38]),
)
def test_a_few_extreme_pixels_change_no_other_pixel_much(
    data: st.DataObject, kind: str, curve: float, extreme: float
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    image = rng.normal(130, 10, (1, 50, 80)).astype(kind)
    if np.dtype(kind).kind != "f":
        extreme = float(np.clip(extreme, np.iinfo(kind).min, np.iinfo(kind).max))
    places = data.draw(st.lists(st.integers(0, image.size - 1), max_size=image.size // 1000))
    spoilt = image.copy()
    spoilt.ravel()[places] = extreme
    rule = Normalization("image", curve=curve, clip=10.0)
    plain, found = rule.resolve(image), rule.resolve(spoilt)
    assert found.offset == pytest.approx(plain.offset, abs=0.15 * plain.scale[0])
    assert found.scale == pytest.approx(plain.scale, rel=0.15)
    assert np.abs(found.apply(spoilt)).max() <= 10


@given(image=IMAGES, clip=st.floats(0.01, 50), curve=st.sampled_from([0.0, 20.0]))
def test_clipping_limits_what_the_formula_gives(image: Any, clip: float, curve: float) -> None:
    constants = (13.0,) * len(image), (3.0,) * len(image)
    whole = Normalization("dataset", *constants, curve).apply(image)
    clipped = Normalization("dataset", *constants, curve, clip)
    np.testing.assert_array_equal(clipped.apply(image), whole.clip(np.float32(-clip), np.float32(clip)))
    # Exactness is promised: the values of a pixel do not depend on the tile that it is in.
    np.testing.assert_array_equal(clipped.apply(image[:, 1:, :3]), clipped.apply(image)[:, 1:, :3])
    assert Normalization.from_json(json.loads(json.dumps(clipped.to_json()))) == clipped


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("curve", [0.0, 20.0])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_the_largest_float32_is_clipped_without_a_warning(kind: str, curve: float) -> None:
    most = np.finfo(np.float32).max
    image = np.array([[[most, -most, 0.5, 0.0]]], kind)
    for scale in (1e-30, 1.0, 1e30):
        found = Normalization("dataset", (0.0,), (scale,), curve, 10.0).apply(image)
        np.testing.assert_array_equal(found[0, 0, :2], [10, -10])
        assert np.isfinite(found).all()


def test_nodata_and_debris_do_not_stretch_the_range_of_an_image() -> None:
    image = RNG.normal(130, 10, (1, 100, 100)).astype(np.float32)
    rule = Normalization("image", clip=10.0)
    expected = rule.resolve(image)
    image[0, :20] = np.finfo(np.float32).min
    image[0, 50:60, 50:80] = 65535
    found = rule.resolve(image)
    assert found.offset == pytest.approx(expected.offset, abs=2)
    assert found.scale == pytest.approx(expected.scale, rel=0.05)
    # Models without clipping keep the constants that they were trained with.
    assert Normalization("image").resolve(image).scale[0] > 1e30


def test_json_without_clip_is_that_of_old_models() -> None:
    old = {"kind": "dataset", "offset": [1.0], "scale": [2.0], "curve": 0.0}
    assert Normalization.from_json(old).to_json() == old
    assert Normalization.from_json(old).clip is None


def test_samples_give_what_the_whole_image_gives() -> None:
    image = RNG.integers(0, 60000, (2, 3000, 1500), dtype=np.uint16)
    rows, columns = choose_sampling_steps(image.shape[1:])
    assert (rows, columns) == (2, 2)
    for rule in (Normalization("image"), Normalization("image", curve=5.0), Normalization("dataset", (1.0,), (2.0,))):
        # Exactness is promised: both take percentiles of the same values.
        assert rule.resolve_samples([plane[::rows, ::columns] for plane in image]) == rule.resolve(image)


def test_range_of_the_result() -> None:
    image = RNG.normal(1e6, 3, (1, 200, 200))
    result = Normalization("image").resolve(image).apply(image)
    assert np.mean((result >= 0) & (result <= 2)) == pytest.approx(0.988, abs=1e-3)


@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=8)))
@pytest.mark.parametrize("curve", [0.0, 20.0])
def test_an_image_and_its_inverse_become_the_same(curve: float, image_cyx: Any) -> None:
    rule = Normalization("image", curve=curve, clip=10.0, invert_light=True)
    image_cyx = image_cyx.astype(np.float64)
    inverse_cyx = 65535 - image_cyx
    medians = np.percentile(image_cyx, (1, 50, 99), axis=(1, 2))
    width = medians[2] - medians[0]
    tilt = np.where(width > 0, (medians[1] - medians[0]) / np.where(width > 0, width, 1), 0.5).mean()
    assume(abs(tilt - 0.5) > 1e-6)  # neither light nor dark
    one, other = (rule.resolve(each).apply(each) for each in (image_cyx, inverse_cyx))
    np.testing.assert_allclose(one, other, atol=1e-3)
    plain = replace(rule, invert_light=False)
    dark_cyx = inverse_cyx if tilt > 0.5 else image_cyx
    np.testing.assert_allclose(one, plain.resolve(dark_cyx).apply(dark_cyx), atol=1e-3)


@pytest.mark.parametrize("curve", [0.0, 20.0])
@pytest.mark.parametrize("light", [0.0, 60.0])
def test_noise_becomes_nearly_constant_and_objects_keep_their_contrast(curve: float, light: float) -> None:
    rng = np.random.default_rng(0)
    uneven_yx = light * np.linspace(0, 1, 300)[:, None] ** 2
    noise_cyx = (100 + uneven_yx + rng.normal(0, 8, (1, 300, 280))).astype(np.uint16)
    cells_cyx = noise_cyx.copy()
    cells_cyx[:, 40:60, 50:70] += 120
    plain = Normalization("image", curve=curve, clip=10.0)
    rule = replace(plain, flatten_noise=True)
    flat = rule.resolve(noise_cyx).apply(noise_cyx)
    assert np.abs(flat).max() < 0.2
    assert np.ptp(plain.resolve(noise_cyx).apply(noise_cyx)) > 2
    speck_cyx = noise_cyx.copy()
    speck_cyx[:, 100:104, 90:94] += 20
    assert np.abs(rule.resolve(speck_cyx).apply(speck_cyx)).max() < 0.2
    one_cyx = noise_cyx.copy()
    one_cyx[:, 100:112, 90:102] += 120  # less than 0.2 % of the pixels
    for image_cyx in (cells_cyx, one_cyx, np.zeros((1, 300, 280), np.uint8), noise_cyx[:, :20, :20]):
        assert rule.resolve(image_cyx) == plain.resolve(image_cyx)
    repeated = np.broadcast_to(noise_cyx, (3, 300, 280))
    assert rule.resolve(repeated).scale == rule.resolve(noise_cyx).scale * 3


def test_only_constants_of_each_image_can_flatten_noise() -> None:
    with pytest.raises(ValueError, match="only kind 'image' can flatten"):
        Normalization("dataset", (0.0,), (1.0,), flatten_noise=True)


def test_only_constants_of_each_image_can_invert() -> None:
    with pytest.raises(ValueError, match="only kind 'image' can invert"):
        Normalization("dataset", (0.0,), (1.0,), invert_light=True)


def test_large_offsets_lose_no_digits() -> None:
    image = np.array([[[2**31, 2**31 + 1]]], np.uint32)
    np.testing.assert_array_equal(Normalization("dataset", (2.0**31,), (1.0,)).apply(image), [[[0, 1]]])


def test_values_that_are_not_finite_do_not_count() -> None:
    image = np.array([[[1.0, 2.0, np.nan, np.inf]], [[np.nan] * 4]], np.float32)
    resolved = Normalization("image").resolve(image)
    assert resolved.offset == pytest.approx((1.01, 0))
    assert resolved.scale == pytest.approx((0.494, 1))


def test_out_is_filled_and_returned() -> None:
    image = RNG.random((2, 3, 4), dtype=np.float32)
    normalization = Normalization("dataset", (0.5, 0.1), (2.0, 3.0))
    out = np.empty_like(image)
    assert normalization.apply(image, out) is out
    np.testing.assert_array_equal(out, normalization.apply(image))
    inplace = image.copy()
    normalization.apply(inplace, inplace)
    np.testing.assert_array_equal(inplace, out)
    wrong: Any
    for wrong in (np.empty((2, 3, 5), np.float32), np.empty((2, 3, 4))):
        with pytest.raises(ValueError, match="out"):
            normalization.apply(image, wrong)


def test_channels_must_match() -> None:
    normalization = Normalization("dataset", (0.0,), (1.0,))
    for shape in ((2, 3, 4), (3, 4)):
        with pytest.raises(ValueError, match="1 channels"):
            normalization.apply(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="resolved"):
        Normalization("image").apply(np.zeros((1, 3, 4)))


@pytest.mark.parametrize(
    "normalization",
    [
        Normalization("image", invert_light=True),
        Normalization("image", flatten_noise=True),
        Normalization("dataset", (0.1, 5.0), (2.0, -3e-4)),
    ],
)
def test_json_round_trip(normalization: Normalization) -> None:
    assert Normalization.from_json(json.loads(json.dumps(normalization.to_json()))) == normalization


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kind": "other", "offset": [], "scale": []},
        {"kind": "image", "offset": [1], "scale": [1]},
        {"kind": "dataset", "offset": [], "scale": []},
        {"kind": "dataset", "offset": [1, 2], "scale": [1]},
        {"kind": "dataset", "offset": [1], "scale": [0]},
        {"kind": "dataset", "offset": [1], "scale": [1e-320]},
        {"kind": "dataset", "offset": [1], "scale": [1e300]},
        {"kind": "dataset", "offset": [-1e300], "scale": [1]},
        {"kind": "dataset", "offset": [float("nan")], "scale": [1]},
        {"kind": "dataset", "offset": ["x"], "scale": [1]},
        {"kind": "dataset", "offset": 3, "scale": [1]},
        {"kind": "image", "offset": [], "scale": [], "clip": 0},
        {"kind": "image", "offset": [], "scale": [], "clip": float("inf")},
        {"kind": "image", "offset": [], "scale": [], "clip": "x"},
    ],
)
def test_json_that_is_refused(values: Any) -> None:
    with pytest.raises(ValueError):
        Normalization.from_json(values)


@pytest.mark.parametrize("shape", [(3000, 3000), (2, 9_000_000), (9_000_000, 1)])
def test_range_of_large_planes_is_close(shape: tuple[int, int]) -> None:
    plane = RNG.integers(0, 256, shape, dtype=np.uint8)
    assert find_robust_range(plane, 1, 99) == pytest.approx((2, 253), abs=1)
    assert find_robust_range(plane, 1, 99) == find_robust_range(plane, 1, 99)


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [
        *(((4, 5), channels, (1, 4, 5)) for channels in (1, 3)),
        *(((1, 4, 5), channels, (1, 4, 5)) for channels in (1, 3)),
        *(((3, 4, 5), 3, (3, 4, 5)), ((4, 5, 3), 3, (3, 4, 5)), ((3, 4, 3), 3, (3, 4, 3)), ((4, 5, 1), 1, (1, 4, 5))),
        *(((2, 4, 5), 3, None), ((4, 5, 1), 3, None), ((5,), 1, None), ((1, 1, 4, 5), 1, None)),
    ],
)
def test_axes_of_arrays(shape: tuple[int, ...], channels: int, expected: tuple[int, ...] | None) -> None:
    image = RNG.random(shape)
    if expected is None:
        with pytest.raises(InputError, match=rf"expected YX, or CYX or YXC with {channels} channels"):
            as_cyx(image, channels)
        return
    found = as_cyx(image, channels)
    assert found.shape == expected
    assert np.shares_memory(found, image)
    np.testing.assert_array_equal(np.sort(found, axis=None), np.sort(image, axis=None))


def test_fit_channels() -> None:
    grey = RNG.random((1, 4, 5))
    for channels in (2, 3, 4):
        np.testing.assert_array_equal(fit_channels(grey, channels), np.concatenate([grey] * channels))
    np.testing.assert_array_equal(fit_channels(np.concatenate([grey] * 3), 1), grey)
    two = RNG.random((2, 4, 5))
    assert fit_channels(two, 2) is two
    odd = np.stack([np.concatenate([grey] * 3)] * 3)
    odd[range(3), range(3), 1, 2] += 1  # in each, one channel differs in one pixel
    for image, expected in ((two, 1), (two, 3), (RNG.random((3, 4, 5)), 1), *((one, 1) for one in odd), (grey, 0)):
        with pytest.raises(ValueError, match=rf"{len(image)} channels.*, expected {expected}$"):
            fit_channels(image, expected)
