"""Compare object tables with scikit-image's regionprops, and confidences with dilated masks."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.measure import regionprops_table

from septa.objects import ObjectTable, confidence, measure_objects

IDS = [0, 0, -1, 1, 2, 70_000, 2**40]
SIDES = {"min_dims": 2, "max_dims": 2, "min_side": 1, "max_side": 9}
LABELS = hnp.arrays(np.int64, hnp.array_shapes(**SIDES), elements=st.sampled_from(IDS))
PEER = {
    "centroid-0": "centroid_y",
    "centroid-1": "centroid_x",
    "bbox-0": "bbox_top",
    "bbox-1": "bbox_left",
    "bbox-2": "bbox_bottom",
    "bbox-3": "bbox_right",
    "area": "area",
    "equivalent_diameter_area": "equivalent_diameter",
    "eccentricity": "eccentricity",
}
DISC = np.hypot(*np.mgrid[-2:3, -2:3]) <= 2


@pytest.fixture(scope="module", autouse=True)
def compile_kernels():
    """Compile the kernels before hypothesis measures the time of an example."""
    confidence(np.ones((1, 1), int), np.ones((1, 1)))


def draw_blobs(shape, count, seed, spacing=1):
    """Draw discs with holes; some overlap, and some are cut by the image edge."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for k in range(1, count + 1):
        distance = np.hypot(y - rng.uniform(0, shape[0]), (x - rng.uniform(0, shape[1])) * rng.uniform(0.4, 1))
        labels[(distance < rng.uniform(0.5, 12)) & (distance > rng.uniform(-9, 3))] = k * spacing
    return labels


def renumber(labels):
    """Renumber the ids as 1, 2, ...; scikit-image makes a list as long as the largest id."""
    ids = np.unique(labels[labels > 0])
    return ids, np.where(labels > 0, np.searchsorted(ids, labels) + 1, 0)


def assert_equals_regionprops(labels, image_cyx):
    table = measure_objects(labels, image_cyx).columns
    ids, small = renumber(labels)
    assert table["label"].tolist() == ids.tolist()
    if not ids.size:
        return
    properties = (
        *dict.fromkeys(name.split("-")[0] for name in PEER),
        "intensity_mean",
        "intensity_min",
        "intensity_max",
    )
    peer = regionprops_table(small, np.moveaxis(image_cyx, 0, -1), properties=properties)
    for theirs, ours in PEER.items():
        # An eccentricity is the root of a difference, so it has half the digits if it is near 0.
        np.testing.assert_allclose(table[ours], peer[theirs], rtol=1e-9, atol=1e-7, err_msg=ours)
    for channel in range(len(image_cyx)):
        for name in ("mean", "min", "max"):
            expected = peer[f"intensity_{name}-{channel}"]
            np.testing.assert_allclose(
                table[f"{name}_channel_{channel + 1}"], expected, rtol=1e-5, atol=1e-6, err_msg=name
            )


# scikit-image takes milliseconds for each object.
@settings(max_examples=60)
@given(LABELS, st.sampled_from([np.uint8, np.int16, np.float32, np.float64]), st.integers(0, 9))
def test_equals_regionprops(labels, dtype, seed):
    image_cyx = np.random.default_rng(seed).integers(0, 200, (2, *labels.shape)).astype(dtype) * dtype(0.5 + seed)
    before = labels.copy(), image_cyx.copy()
    assert_equals_regionprops(labels, image_cyx)
    np.testing.assert_array_equal(labels, before[0])
    np.testing.assert_array_equal(image_cyx, before[1])


@pytest.mark.parametrize("seed", range(3))
def test_equals_regionprops_on_blobs(seed):
    labels = draw_blobs((90, 120), 40, seed, spacing=9_001)
    image_cyx = np.random.default_rng(seed).normal(size=(1, 90, 120)).astype(np.float32)
    assert_equals_regionprops(labels, image_cyx)
    turned = measure_objects(labels.T, image_cyx.transpose(0, 2, 1)).columns
    straight = measure_objects(labels, image_cyx).columns
    np.testing.assert_allclose(turned["centroid_x"], straight["centroid_y"])
    np.testing.assert_array_equal(turned["max_channel_1"], straight["max_channel_1"])


def test_far_from_the_origin_no_digits_are_lost():
    near, far = np.zeros((2, 20, 300_000), np.uint8)
    patch = draw_blobs((20, 20), 1, 1) > 0
    near[:, :20], far[:, -20:] = patch, patch
    one, other = (measure_objects(labels).columns for labels in (near, far))
    assert one["area"][0] == patch.sum() > 20
    assert other["eccentricity"][0] == one["eccentricity"][0]
    assert other["centroid_x"][0] == pytest.approx(one["centroid_x"][0] + 299_980, abs=1e-9)


def test_ten_thousand_objects_above_65535():
    labels = np.kron(np.arange(70_000, 80_000).reshape(100, 100), np.array([[1, 1, 0], [1, 0, 0]]))
    table = measure_objects(labels)
    assert len(table) == 10_000
    assert (table.columns["area"] == 3).all()
    np.testing.assert_array_equal(table.columns["label"], np.arange(70_000, 80_000))
    np.testing.assert_array_equal(table.columns["bbox_left"], np.arange(10_000) % 100 * 3)


@pytest.mark.parametrize(
    "labels", [np.zeros((0, 0), int), np.zeros((3, 0), int), np.zeros((2, 2), int), -np.eye(2, dtype=int)]
)
def test_without_objects(labels):
    image = np.zeros((1, *labels.shape), np.uint8)
    table = measure_objects(labels, image, foreground_yx=image[0] + 0.5, class_yx=image[0], pixel_size_um=(1, 1))
    assert len(table) == 0
    assert table.to_csv() == ",".join(table.columns) + "\r\n"
    assert {"class", "confidence", "mean_channel_1", "area_um2"} < set(table.columns)
    assert len(table.select(table.columns["area"] > 3)) == 0


def test_edges_are_touched():
    labels = np.zeros((6, 7), int)
    labels[0, 2], labels[5, 3], labels[3, 0], labels[2, 6], labels[2:4, 2:4], labels[4, 5] = 1, 2, 3, 4, 5, 6
    assert measure_objects(labels).columns["touches_edge"].tolist() == [True, True, True, True, False, False]
    assert measure_objects(np.ones((3, 3), bool)).columns["touches_edge"].tolist() == [True]


def test_micrometres():
    labels = draw_blobs((40, 50), 8, 2)
    table = measure_objects(labels, pixel_size_um=(0.5, 0.25)).columns
    np.testing.assert_allclose(table["centroid_y_um"], table["centroid_y"] * 0.5)
    np.testing.assert_allclose(table["centroid_x_um"], table["centroid_x"] * 0.25)
    np.testing.assert_allclose(table["area_um2"], table["area"] * 0.125)
    np.testing.assert_allclose(np.pi / 4 * table["equivalent_diameter_um"] ** 2, table["area_um2"])
    plain = measure_objects(labels).columns
    assert not any("um" in name for name in plain)
    np.testing.assert_array_equal(plain["eccentricity"], table["eccentricity"])


def test_intensities_that_are_not_numbers_stay_in_their_object():
    image = np.array([[[1, np.nan, 3, 4]]], np.float32)
    table = measure_objects(np.array([[1, 1, 2, 2]]), image)
    np.testing.assert_array_equal(table.columns["mean_channel_1"], [np.nan, 3.5])
    np.testing.assert_array_equal(table.columns["max_channel_1"], [np.nan, 4])
    assert table.columns["max_channel_1"].dtype == np.float32
    assert [row.split(",")[-3:] for row in table.to_csv().splitlines()[1:]] == [["", "", ""], ["3.5", "3", "4"]]


def test_channel_names():
    table = measure_objects(np.ones((1, 1), int), np.zeros((4, 1, 1)), channel_names=["a", "", "a", "a_2"])
    names = list(table.columns)
    assert names[-12::3] == ["mean_a", "mean_channel_2", "mean_a_2", "mean_a_2_2"]
    assert names[-3:] == ["mean_a_2_2", "min_a_2_2", "max_a_2_2"]


@given(LABELS, st.integers(0, 99))
def test_class_by_majority(labels, seed):
    classes = np.random.default_rng(seed).choice([-1, 0, 1, 2, 300], labels.shape)
    table = measure_objects(labels, class_yx=classes)
    plain = measure_objects(labels)
    for label, winner in zip(table.columns["label"], table.columns["class"], strict=True):
        votes = classes[labels == label].tolist()
        candidates = sorted({vote for vote in votes if vote > 0}, key=lambda one: (-votes.count(one), one))
        assert winner == (candidates[0] if candidates else 0)
    # Classes cut runs into pieces, which must not change the other columns.
    for name, values in plain.columns.items():
        np.testing.assert_allclose(table.columns[name], values, atol=1e-7)


def test_class_names():
    labels = np.array([[1, 1, 1, 2, 2, 3]])
    classes = np.array([[2, 2, 1, 0, 0, 1]], np.uint8)
    table = measure_objects(labels, class_yx=classes, class_names=["background", "live", "dead"])
    assert table.columns["class"].tolist() == ["dead", "background", "live"]
    assert list(table.columns)[:2] == ["label", "class"]
    with pytest.raises(ValueError, match="class 2, but the last one named is 1"):
        measure_objects(labels, class_yx=classes, class_names=["background", "live"])


@given(LABELS, st.integers(0, 99))
def test_confidence_equals_dilated_masks(labels, seed):
    foreground = np.random.default_rng(seed).random(labels.shape).astype(np.float32)
    found = confidence(labels, foreground)
    np.testing.assert_array_equal(measure_objects(labels, foreground_yx=foreground).columns["confidence"], found)
    for label, value in zip(np.unique(labels[labels > 0]), found, strict=True):
        inside = labels == label
        rim = ndimage.binary_dilation(inside, DISC) & (labels == 0)
        expected = foreground[inside].sum(dtype=float) / (inside.sum() + foreground[rim].sum(dtype=float))
        assert value == pytest.approx(expected, abs=1e-6)
        assert 0 <= value <= 1


def test_confidence_separates_sure_objects_from_doubtful_and_leaking_ones():
    labels = np.zeros((20, 60), int)
    foreground = np.zeros(labels.shape)
    for label in (1, 2, 3):
        labels[5:15, 20 * label - 15 : 20 * label - 5] = label
    foreground[labels == 1] = foreground[labels == 3] = 1
    foreground[labels == 2] = 0.6
    foreground[3:17, 43:57] = 1
    sure, doubtful, leaking = confidence(labels, foreground)
    assert (sure, doubtful) == (1, pytest.approx(0.6))
    # The corners of the rim are rounded.
    assert leaking == pytest.approx(100 / 184)
    touching = np.repeat([[1, 2]], 4, axis=0)
    np.testing.assert_allclose(confidence(touching, np.repeat([[0.9, 0.7]], 4, axis=0)), [0.9, 0.7])


def test_csv_reads_back_as_the_same_numbers():
    labels = draw_blobs((60, 60), 12, 3)
    image_cyx = np.random.default_rng(0).normal(size=(2, 60, 60)).astype(np.float32)
    classes = (labels % 3).astype(np.uint8)
    names = ("background", 'a "b", c', "line\nbreak")
    table = measure_objects(labels, image_cyx, pixel_size_um=(0.3, 0.3), class_yx=classes, class_names=names)
    text = table.to_csv()
    assert text.count("\r\n") == len(table) + 1
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert list(rows[0]) == list(table.columns)
    for name, values in table.columns.items():
        cells = [row[name] for row in rows]
        if values.dtype == bool:
            assert cells == [str(value).lower() for value in values]
        elif values.dtype.kind == "U":
            assert cells == values.tolist()
        else:
            np.testing.assert_array_equal(np.array(cells, values.dtype), values)
    assert "." not in rows[0]["area"]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1"])
def test_no_text_of_a_csv_is_a_formula(name):
    table = ObjectTable({name: np.array([-1]), "class": np.array([name])})
    head, row = csv.reader(io.StringIO(table.to_csv(), newline=""))
    assert head == [f"'{name}", "class"]
    assert row == ["-1", f"'{name}"]


def test_undecodable_names_can_be_written():
    text = ObjectTable({"class": np.array(["a\udc80", "b\0c"], object)}).to_csv()
    assert text.encode("utf-8") == "class\r\na\ufffd\r\nb\ufffdc\r\n".encode()


def test_selection_keeps_rows_together():
    labels = draw_blobs((40, 50), 9, 5)
    table = measure_objects(labels)
    large = table.select(table.columns["area"] > np.median(table.columns["area"]))
    assert 0 < len(large) < len(table)
    for row in range(len(large)):
        assert large.columns["area"][row] == (labels == large.columns["label"][row]).sum()
    assert table.select([2, 0]).columns["label"].tolist() == table.columns["label"][[2, 0]].tolist()


ONES = np.ones((2, 3), int)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measure_objects(np.ones(3, int)), r"labels must be YX and hold integers, got \(3,\)"),
        (lambda: measure_objects(np.ones((2, 3))), "got .* of float64"),
        (lambda: measure_objects(np.full((1, 1), 2**63, np.uint64)), "id 9223372036854775808"),
        (lambda: measure_objects(ONES, np.ones((2, 3))), r"CYX and real, of the labels' size \(2, 3\), got \(2, 3\)"),
        (lambda: measure_objects(ONES, np.ones((1, 2, 3), complex)), "complex128"),
        (lambda: measure_objects(ONES, np.ones((1, 2, 3)), channel_names=["a", "b"]), "each of 1 channels, got 2"),
        (lambda: measure_objects(ONES, class_yx=np.ones((3, 2), int)), r"got \(3, 2\)"),
        (lambda: measure_objects(ONES, pixel_size_um=(0.5, 0)), r"above 0 and finite, got \(0.5, 0\)"),
        (lambda: confidence(ONES, np.ones((3, 2))), r"\(3, 2\)"),
        (lambda: confidence(ONES, ONES), "floats of the labels' shape"),
        (lambda: confidence(ONES, np.full((2, 3), 255.0)), "0..1, got 255.0 to 255.0"),
        (lambda: confidence(ONES, np.full((2, 3), np.nan)), "0..1, got nan"),
    ],
)
def test_unusable_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
