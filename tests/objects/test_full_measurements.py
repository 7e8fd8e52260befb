"""Compare the measurements beyond the basic ones with scikit-image, or with slow versions of their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial import ConvexHull
from skimage.measure import regionprops

from septa.objects import MEASUREMENTS, measure_objects

SIDES = {"min_dims": 2, "max_dims": 2, "min_side": 1, "max_side": 9}
LABELS = hnp.arrays(np.int64, hnp.array_shapes(**SIDES), elements=st.sampled_from([0, 0, 0, -1, 3, 70_000, 2**40]))
SIZES = st.sampled_from([(1.0, 1.0), (0.25, 0.25), (0.5, 2.0)])


@pytest.fixture(scope="module", autouse=True)
def compile_kernels():
    """Compile the kernels before hypothesis measures the time of an example."""
    measure_objects(np.eye(2, dtype=int), np.ones((1, 2, 2)), pixel_size_um=(1, 2), measure="full")


def draw_blobs(shape, count, seed):
    """Draw turned ellipses; some overlap, some have holes, and some are cut by the image edge."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for k in range(1, count + 1):
        dy, dx, angle = y - rng.uniform(0, shape[0]), x - rng.uniform(0, shape[1]), rng.uniform(0, np.pi)
        along, across = dy * np.cos(angle) + dx * np.sin(angle), dx * np.cos(angle) - dy * np.sin(angle)
        distance = np.hypot(along, across * rng.uniform(1, 4))
        labels[(distance < rng.uniform(0.5, 16)) & (distance > rng.uniform(-9, 2))] = k
    return labels


def list_regions(labels, pixel_size=(1.0, 1.0), image=None):
    """Return scikit-image's objects by ascending id; it makes a list as long as the largest id."""
    ids = np.unique(labels[labels > 0])
    small = np.where(labels > 0, np.searchsorted(ids, labels) + 1, 0)
    return regionprops(small, image, spacing=pixel_size)


def assert_equals_regionprops(labels, pixel_size):
    table = measure_objects(labels, pixel_size_um=pixel_size, measure="full").columns
    plain, scaled = list_regions(labels), list_regions(labels, pixel_size)
    for row, (one, other) in enumerate(zip(plain, scaled, strict=True)):
        value = {name: values[row] for name, values in table.items()}
        near = {"rel": 1e-9, "abs": 1e-6}
        assert value["perimeter"] == pytest.approx(one.perimeter, **near)
        assert value["solidity"] == one.solidity
        assert value["feret_max"] == pytest.approx(one.feret_diameter_max, **near)
        assert value["feret_max_um"] == pytest.approx(other.feret_diameter_max, **near)
        assert value["major_axis"] == pytest.approx(one.axis_major_length, **near)
        assert value["minor_axis"] == pytest.approx(one.axis_minor_length, **near)
        assert value["major_axis_um"] == pytest.approx(other.axis_major_length, **near)
        assert value["minor_axis_um"] == pytest.approx(other.axis_minor_length, **near)
        if pixel_size[0] == pixel_size[1]:
            assert value["perimeter_um"] == pytest.approx(other.perimeter, **near)
        else:
            assert np.isnan(value["perimeter_um"])
        if one.axis_major_length - one.axis_minor_length > 1e-6:
            turn = value["orientation_deg"] - np.degrees(one.orientation)
            assert (turn + 90) % 180 - 90 == pytest.approx(0, abs=1e-4)
            assert -90 <= value["orientation_deg"] <= 90
        if one.perimeter:
            assert value["circularity"] == pytest.approx(4 * np.pi * one.area / one.perimeter**2)
        else:
            assert np.isnan(value["circularity"])


# scikit-image takes milliseconds for each object.
@settings(max_examples=40)
@given(LABELS, SIZES)
def test_shapes_equal_regionprops(labels, pixel_size):
    assert_equals_regionprops(labels, pixel_size)


@pytest.mark.parametrize("seed", range(2))
def test_shapes_of_blobs_equal_regionprops(seed):
    labels = draw_blobs((90, 120), 40, seed)
    assert_equals_regionprops(labels, (0.3, 0.5))


def find_corners(mask):
    """Return the middles of the sides of all pixels in the convex hull, which is found pixel by pixel."""
    diamond = np.array([(0, 0.5), (0, -0.5), (0.5, 0), (-0.5, 0)])
    own = (np.argwhere(mask)[:, None] + diamond).reshape(-1, 2)
    hull = ConvexHull(own)
    pixels = np.argwhere(np.ones_like(mask))
    inside = pixels[(pixels @ hull.equations[:, :2].T + hull.equations[:, 2] <= 1e-9).all(axis=1)]
    return inside, (inside[:, None] + diamond).reshape(-1, 2)


@settings(max_examples=30)
@given(LABELS, SIZES)
def test_the_least_feret_diameter_is_the_width_of_the_narrowest_pair_of_lines(labels, pixel_size):
    table = measure_objects(labels, pixel_size_um=pixel_size, measure=["feret", "solidity"]).columns
    for row, label in enumerate(table["label"]):
        inside, corners = find_corners(labels == label)
        assert table["solidity"][row] == (labels == label).sum() / len(inside)
        for name, size in (("feret_min", (1.0, 1.0)), ("feret_min_um", pixel_size)):
            points = corners * size
            vertices = points[ConvexHull(points).vertices]
            edges = np.roll(vertices, -1, axis=0) - vertices
            normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1) / np.linalg.norm(edges, axis=1)[:, None]
            assert table[name][row] == pytest.approx(np.ptp(points @ normals.T, axis=0).min())
        assert table["feret_min"][row] <= table["feret_max"][row] + 1e-9


def test_a_turned_bar_points_where_it_lies():
    labels = np.zeros((40, 40), int)
    for step in range(-12, 13):  # 60 degrees counter-clockwise from the y axis as the image is shown
        y, x = 20 - step * np.cos(np.pi / 3), 20 - step * np.sin(np.pi / 3)
        labels[round(y), round(x)] = 1
    table = measure_objects(labels, measure=["orientation"]).columns
    assert table["orientation_deg"][0] == pytest.approx(60, abs=2)
    assert np.isnan(measure_objects(np.ones((3, 3), int), measure="full").columns["orientation_deg"]).all()


@settings(max_examples=60)
@given(LABELS, st.sampled_from([np.uint8, np.int16, np.float32, np.float64]), st.integers(0, 99))
def test_intensities_equal_numpy(labels, dtype, seed):
    rng = np.random.default_rng(seed)
    image_cyx = (rng.integers(0, 90, (2, *labels.shape)) * (1 if dtype in (np.uint8, np.int16) else 0.37)).astype(dtype)
    if dtype == np.float32:
        image_cyx[0, rng.random(labels.shape) < 0.1] = np.nan
    names = ["DAPI", ""]
    table = measure_objects(labels, image_cyx, channel_names=names, measure="full").columns
    for row, label in enumerate(table["label"]):
        for name, plane in zip(("DAPI", "channel_2"), image_cyx, strict=True):
            values = plane[labels == label].astype(float)
            for family, compute in (("std", np.std), ("median", np.median), ("integrated", np.sum)):
                assert table[f"{family}_{name}"][row] == pytest.approx(compute(values), rel=1e-9, nan_ok=True)


def list_distances(labels, pixel_size=(1.0, 1.0)):
    """Return the ids, and the least distance from each pixel of the image to a pixel of each object."""
    ids = np.unique(labels[labels > 0]).tolist()
    everywhere = np.indices(labels.shape).reshape(2, -1).T * np.array(pixel_size)
    gaps = [
        np.linalg.norm(everywhere[:, None] - everywhere[labels.reshape(-1) == one], axis=2).min(axis=1) for one in ids
    ]
    return ids, np.array(gaps).reshape(len(ids), *labels.shape)


@settings(max_examples=60)
@given(LABELS, SIZES)
def test_neighbours_equal_all_distances(labels, pixel_size):
    table = measure_objects(labels, pixel_size_um=pixel_size, measure="neighbours").columns
    for ending, size in (("", (1.0, 1.0)), ("_um", pixel_size)):
        ids, gaps = list_distances(labels, size)
        centroids = [np.argwhere(labels == one).mean(axis=0) * size for one in ids]
        for row, label in enumerate(ids):
            others = [gap[labels == label].min() for one, gap in zip(ids, gaps, strict=True) if one != label]
            steps = [np.linalg.norm(each - centroids[row]) for each in centroids]
            expected = min(steps[:row] + steps[row + 1 :], default=np.nan)
            assert table[f"nearest_centroid_distance{ending}"][row] == pytest.approx(expected, nan_ok=True)
            expected = min(others, default=np.nan)
            assert table[f"nearest_edge_distance{ending}"][row] == pytest.approx(expected, nan_ok=True)
            if not ending:
                assert table["touching_objects"][row] == sum(gap < 1.5 for gap in others)


def test_neighbours_far_apart():
    labels = draw_blobs((70, 400), 9, 3)
    labels[:, 60:330] = 0
    ids, gaps = list_distances(labels)
    expected = [min(gap[labels == one].min() for gap in np.delete(gaps, row, 0)) for row, one in enumerate(ids)]
    found = measure_objects(labels, measure="neighbours").columns["nearest_edge_distance"]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("seed", range(3))
def test_local_background_is_the_median_of_the_pixels_nearest_to_an_object(seed):
    labels = draw_blobs((60, 60), 7, seed) * 5
    labels[20:24] = -1
    image_yx = np.random.default_rng(seed).integers(0, 4000, labels.shape).astype(np.uint16)
    table = measure_objects(labels, image_yx[None], measure=["background"]).columns
    ids, gaps = list_distances(labels)
    nearest = gaps.min(axis=0)
    owner = np.array(ids)[gaps.argmin(axis=0)]
    ring = (labels == 0) & (nearest > 2) & (nearest <= 10) & ((gaps == nearest).sum(axis=0) == 1)
    for row, label in enumerate(ids):
        near = image_yx[ring & (owner == label)]
        expected = np.median(near) if near.size else np.nan
        assert table["background_channel_1"][row] == pytest.approx(expected, nan_ok=True)
        assert table["corrected_mean_channel_1"][row] == pytest.approx(
            image_yx[labels == label].mean() - expected, nan_ok=True
        )


def test_an_object_without_background_nearby_has_no_corrected_mean():
    table = measure_objects(np.ones((4, 4), int), np.ones((1, 4, 4)), measure="full").columns
    assert np.isnan(table["background_channel_1"]).all()
    assert np.isnan(table["corrected_mean_channel_1"]).all()


def test_names_choose_the_columns_that_follow_the_basic_ones():
    labels, image = draw_blobs((40, 50), 6, 1), np.ones((1, 40, 50))
    basic, full = (
        measure_objects(labels, image, pixel_size_um=(0.5, 0.5), measure=name).columns for name in ("basic", "full")
    )
    assert list(measure_objects(labels, image, pixel_size_um=(0.5, 0.5)).columns) == list(basic)
    assert list(full)[: len(basic)] == list(basic)
    added = [
        list(measure_objects(labels, image, pixel_size_um=(0.5, 0.5), measure=["basic", name]).columns)[len(basic) :]
        for name in MEASUREMENTS
    ]
    assert all(added)
    assert sorted(itertools.chain(*added)) == sorted(list(full)[len(basic) :])
    for name, values in basic.items():
        np.testing.assert_array_equal(full[name], values)
    with pytest.raises(ValueError, match=r"measurements are basic, full, perimeter, .*, got 'volume'"):
        measure_objects(labels, measure=["volume"])


@pytest.mark.parametrize("labels", [np.zeros((0, 0), int), np.zeros((3, 0), int), -np.eye(2, dtype=int)])
def test_without_objects(labels):
    image = np.zeros((1, *labels.shape), np.uint8)
    table = measure_objects(labels, image, pixel_size_um=(1, 1), measure="full")
    assert len(table) == 0
    assert {"feret_max_um", "background_channel_1", "touching_objects"} < set(table.columns)


def test_columns_do_not_depend_on_classes_that_cut_runs():
    labels = draw_blobs((50, 60), 9, 4)
    classes = np.random.default_rng(0).integers(0, 3, labels.shape)
    image = np.random.default_rng(1).random((1, 50, 60))
    plain = measure_objects(labels, image, pixel_size_um=(1, 2), measure="full").columns
    mixed = measure_objects(labels, image, class_yx=classes, pixel_size_um=(1, 2), measure="full").columns
    for name, values in plain.items():
        np.testing.assert_allclose(mixed[name], values, atol=1e-9, err_msg=name)
