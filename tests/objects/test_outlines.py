"""Fill outlines again by counting crossings, and read their files with shapely, pycocotools and roifile."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from roifile import ROI_TYPE, ImagejRoi
from scipy import ndimage

from septa.objects import measure_objects
from septa.objects.geojson import to_geojson
from septa.objects.outlines import to_coco, to_rois, trace_outlines

IDS = [0, 0, -1, 1, 1, 70_000, 2**40]
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8)
LABELS = hnp.arrays(np.int64, SHAPES, elements=st.sampled_from(IDS))
EMPTY = [np.zeros((0, 0), int), np.zeros((3, 0), int), np.zeros((2, 2), int), -np.eye(2, dtype=int)]


@pytest.fixture(scope="module", autouse=True)
def compile_kernels():
    """Compile the kernels before hypothesis measures the time of an example."""
    trace_outlines(np.ones((1, 1), int))


def fill_rings(rings, shape):
    """Fill the pixels with centres inside the rings: a line to the left crosses an odd number of sides."""
    crossings = np.zeros(shape, int)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            assert (x0 == x1) != (y0 == y1)
            if x0 == x1:
                crossings[int(min(y0, y1)) : int(max(y0, y1)), int(x0) :] += 1
    return crossings % 2 == 1


def compute_signed_area(ring):
    """Compute the signed area of a ring; it is positive if the ring turns from the x axis to the y axis."""
    (x, y), (next_x, next_y) = ring.T.astype(np.int64), np.roll(ring, -1, axis=0).T
    return int((x * next_y - next_x * y).sum()) / 2


@given(LABELS)
def test_filled_in_again(labels):
    before = labels.copy()
    found = trace_outlines(labels)
    assert list(found) == np.unique(labels[labels > 0]).tolist()
    for label, polygons in found.items():
        whole = np.zeros(labels.shape, bool)
        parts, count = ndimage.label(labels == label)
        assert len(polygons) == count
        # Both number the parts in raster order.
        for number, polygon in enumerate(polygons, 1):
            part = fill_rings(polygon, labels.shape)
            np.testing.assert_array_equal(part, parts == number)
            assert sum(compute_signed_area(ring) for ring in polygon) == part.sum()
            whole |= part
        np.testing.assert_array_equal(whole, labels == label)
    np.testing.assert_array_equal(labels, before)


@given(LABELS)
def test_rings_are_simple(labels):
    for polygons in trace_outlines(labels).values():
        for outer, *holes in polygons:
            assert compute_signed_area(outer) > 0
            assert all(compute_signed_area(hole) < 0 for hole in holes)
            for ring in (outer, *holes):
                assert ring.dtype == np.int32
                assert len(set(map(tuple, ring.tolist()))) == len(ring)
                sides = np.roll(ring, -1, axis=0) - ring
                assert ((sides == 0).sum(axis=1) == 1).all()
                # No corner lies on a straight line.
                assert ((sides * np.roll(sides, -1, axis=0)) == 0).all()


def test_outlines_by_hand():
    labels = np.array([[5, 5, 5, 5], [5, 0, 3, 5], [5, 5, 0, 5], [0, 5, 5, 5]])
    ((outer, hole),) = trace_outlines(labels)[5]
    assert outer.tolist() == [[0, 0], [4, 0], [4, 4], [1, 4], [1, 3], [0, 3]]
    assert sorted(map(tuple, hole.tolist())) == [(1, 1), (1, 2), (2, 2), (2, 3), (3, 1), (3, 3)]
    # Now the gaps on the diagonal are two holes that meet in a corner.
    labels[1, 2] = 5
    assert len(trace_outlines(labels)[5][0]) == 3
    assert [len(part) for part in trace_outlines(np.eye(3, dtype=bool))[1]] == [1, 1, 1]


def test_long_rings_and_many_rings():
    comb = np.zeros((9, 4001), np.uint8)
    comb[0], comb[:, ::2] = 7, 7
    ((ring,),) = trace_outlines(comb)[7]
    assert len(ring) == 2 + 4 * 2000 + 2
    np.testing.assert_array_equal(fill_rings([ring], comb.shape), comb == 7)
    dots = np.zeros((80, 80), np.int32)
    dots[::2, ::2] = np.arange(70_000, 71_600).reshape(40, 40)
    assert len(trace_outlines(dots)) == 1600


@pytest.mark.parametrize("labels", EMPTY)
def test_without_objects(labels):
    assert trace_outlines(labels) == {}
    table = measure_objects(labels)
    assert json.loads(to_geojson(labels, table)) == {"type": "FeatureCollection", "features": []}
    coco = json.loads(to_coco([("a.png", labels, table)], ["background", "cell"]))
    assert coco["annotations"] == []
    assert coco["images"] == [{"id": 1, "file_name": "a.png", "height": labels.shape[0], "width": labels.shape[1]}]
    assert zipfile.ZipFile(io.BytesIO(to_rois(labels, table))).namelist() == []


# There is no deadline because the first example imports shapely.
@settings(max_examples=50, deadline=None)
@given(LABELS)
def test_geojson_is_valid_and_exact(labels):
    geometry = pytest.importorskip("shapely.geometry")
    features = json.loads(to_geojson(labels, measure_objects(labels)))["features"]
    assert [feature["properties"]["name"] for feature in features] == [str(k) for k in np.unique(labels[labels > 0])]
    for feature in features:
        inside = labels == int(feature["properties"]["name"])
        shape = geometry.shape(feature["geometry"])
        assert shape.is_valid
        assert shape.area == inside.sum() == feature["properties"]["measurements"]["area"]
        pixels = [geometry.box(x, y, x + 1, y + 1) for y, x in np.argwhere(inside)]
        assert all(shape.covers(pixel) for pixel in pixels)


def test_geojson_for_qupath():
    labels = np.array([[1, 1, 0, 2], [0, 0, 0, 0], [0, 3, 0, 2]])
    classes = np.array([[1, 1, 0, 2], [0, 0, 0, 0], [0, 0, 0, 2]])
    image = np.where(labels == 2, np.nan, 2.5)[None]
    table = measure_objects(labels, image, class_yx=classes, class_names=["background", 'a"b', "c"])
    text = to_geojson(labels, table, object_type="annotation", colors={'a"b': (1, 2, 3)})
    first, second, _ = json.loads(text)["features"]
    assert first["type"] == "Feature"
    assert first["geometry"]["coordinates"] == [[[0, 0], [2, 0], [2, 1], [0, 1], [0, 0]]]
    assert first["properties"]["objectType"] == "annotation"
    assert first["properties"]["classification"] == {"name": 'a"b', "color": [1, 2, 3]}
    assert second["geometry"]["type"] == "MultiPolygon"
    assert len(second["geometry"]["coordinates"]) == 2
    assert second["properties"]["classification"] == {"name": "c"}
    measurements = first["properties"]["measurements"]
    assert measurements["mean_channel_1"] == 2.5
    assert measurements["touches_edge"] == 1
    assert not {"label", "class"} & set(measurements)
    # The mean of this object is not a number.
    assert "mean_channel_1" not in second["properties"]["measurements"]
    numbered = json.loads(to_geojson(labels, measure_objects(labels, class_yx=classes)))["features"]
    assert [feature["properties"].get("classification") for feature in numbered] == [{"name": "1"}, {"name": "2"}, None]
    chosen = json.loads(to_geojson(labels, table.select(table.columns["area"] == 1)))["features"]
    assert [feature["properties"]["name"] for feature in chosen] == ["3"]


def decode_counts(text):
    """Decode the counts of a compressed COCO mask: 5 bits per character, and differences from the fourth count on."""
    counts, value, shift = [], 0, 0
    for letter in text:
        bits = ord(letter) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


@given(LABELS)
def test_coco_masks(labels):
    table = measure_objects(labels, foreground_yx=np.full(labels.shape, 0.75))
    coco = json.loads(to_coco([("a.png", labels, table)], ["background", "cell"]))
    ids = np.unique(labels[labels > 0])
    assert len(coco["annotations"]) == ids.size
    for label, annotation in zip(ids, coco["annotations"], strict=True):
        assert annotation["segmentation"]["size"] == list(labels.shape)
        counts = decode_counts(annotation["segmentation"]["counts"])
        assert all(counts[1:])
        mask = np.repeat(np.arange(len(counts)) % 2, counts)
        mask = np.append(mask, np.zeros(labels.size - mask.size, int)).reshape(labels.shape[::-1]).T
        np.testing.assert_array_equal(mask, labels == label)
        x, y, width, height = annotation["bbox"]
        box = (labels == label)[y : y + height, x : x + width]
        assert box.sum() == annotation["area"] == (labels == label).sum()
        assert box.any(axis=0)[[0, -1]].all()
        assert box.any(axis=1)[[0, -1]].all()
        assert annotation["score"] == table.columns["confidence"][list(ids).index(label)]


# pycocotools causes this warning with NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("seed", range(3))
def test_coco_as_pycocotools_reads_it(seed, tmp_path):
    peer = pytest.importorskip("pycocotools.coco")
    masks = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)
    images = []
    for name, shape in (("a.png", (300, 200)), ("b.png", (50, 4000))):
        labels = np.kron(rng.integers(0, 4, np.array(shape) // 10), np.ones((10, 10), int)) * 70_000
        labels[rng.random(shape) < 0.1] = 5
        images.append((name, labels, measure_objects(labels)))
    path = tmp_path / "coco.json"
    path.write_text(to_coco(images, ["background", "cell"]), encoding="utf-8")
    coco = peer.COCO(str(path))
    assert coco.loadCats(coco.getCatIds()) == [{"id": 1, "name": "cell", "supercategory": ""}]
    for number, (name, labels, table) in enumerate(images, 1):
        assert coco.loadImgs(number)[0]["file_name"] == name
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=number))
        for annotation, label in zip(annotations, table.columns["label"], strict=True):
            mask = labels == label
            np.testing.assert_array_equal(coco.annToMask(annotation), mask)
            assert (
                annotation["segmentation"]["counts"]
                == masks.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
            )
            assert masks.area(annotation["segmentation"]) == annotation["area"]
            assert masks.toBbox(annotation["segmentation"]).tolist() == annotation["bbox"]


def test_coco_classes():
    labels = np.array([[1, 2, 3]])
    table = measure_objects(labels, class_yx=np.array([[2, 0, 1]]))
    names = ["background", "live", "dead"]
    named = measure_objects(labels, class_yx=np.array([[2, 0, 1]]), class_names=names)
    for one in (table, named):
        coco = json.loads(to_coco([("a.png", labels, one), ("b.png", labels, one)], names))
        assert coco["categories"] == [
            {"id": 1, "name": "live", "supercategory": ""},
            {"id": 2, "name": "dead", "supercategory": ""},
        ]
        found = [(a["id"], a["image_id"], a["category_id"], a["bbox"][0]) for a in coco["annotations"]]
        assert found == [(1, 1, 2, 0), (2, 1, 1, 2), (3, 2, 2, 0), (4, 2, 1, 2)]
        assert "score" not in coco["annotations"][0]
    with pytest.raises(ValueError, match="class 2 is none of"):
        to_coco([("a.png", labels, table)], ["background", "live"])
    with pytest.raises(ValueError, match="class 'dead' is none of"):
        to_coco([("a.png", labels, named)], ["background", "live"])
    for unusable in (["background"], ["background", "live", "live"]):
        with pytest.raises(ValueError, match="at least one other class, all different"):
            to_coco([], unusable)


def test_json_of_hostile_names():
    labels = np.array([[1]])
    name = 'a\udc80"\\\n</script>'
    table = measure_objects(labels, np.ones((1, 1, 1)), channel_names=[name], class_yx=labels, class_names=["", name])
    expected = name.replace("\udc80", "\ufffd")
    text = to_geojson(labels, table)
    properties = json.loads(text.encode("utf-8"))["features"][0]["properties"]
    assert properties["classification"]["name"] == expected
    assert f"mean_{expected}" in properties["measurements"]
    coco = json.loads(to_coco([(name, labels, table)], ["", name]).encode("utf-8"))
    assert (coco["images"][0]["file_name"], coco["categories"][0]["name"]) == (expected, expected)


def read_rois(data):
    with zipfile.ZipFile(io.BytesIO(data)) as folder:
        assert folder.testzip() is None
        return {name: ImagejRoi.frombytes(folder.read(name)) for name in folder.namelist()}


def find_rings(roi):
    if roi.roitype == ROI_TYPE.TRACED:
        return [roi.coordinates()]
    assert (roi.roitype, roi.composite) == (ROI_TYPE.RECT, True)
    paths = ImagejRoi.path2coords(roi.multi_coordinates)
    assert all((path[0] == path[-1]).all() for path in paths)
    return [path[:-1] for path in paths]


@settings(max_examples=50, deadline=None)
@given(LABELS)
def test_rois_filled_in_again(labels):
    table = measure_objects(labels)
    data = to_rois(labels, table)
    assert data == to_rois(labels, table)
    rois = read_rois(data)
    assert list(rois) == [f"{label:05d}.roi" for label in table.columns["label"]]
    polygons = trace_outlines(labels)
    for row, (name, roi) in enumerate(rois.items()):
        label = int(name.removesuffix(".roi"))
        assert roi.name == f"{label:05d}"
        np.testing.assert_array_equal(fill_rings(find_rings(roi), labels.shape), labels == label)
        box = [table.columns[f"bbox_{side}"][row] for side in ("top", "left", "bottom", "right")]
        assert [roi.top, roi.left, roi.bottom, roi.right] == box
        alone = len(polygons[label]) == len(polygons[label][0]) == 1
        assert roi.roitype == (ROI_TYPE.TRACED if alone else ROI_TYPE.RECT)


@pytest.mark.parametrize("width", [32_767, 32_768, 70_000])
def test_rois_far_out(width):
    labels = np.zeros((4, width), np.uint8)
    labels[1:3, 2:5], labels[1:4, -3:], labels[0] = 1, 2, 3
    for label, roi in enumerate(read_rois(to_rois(labels, measure_objects(labels))).values(), 1):
        np.testing.assert_array_equal(fill_rings(find_rings(roi), labels.shape), labels == label)


def test_only_the_objects_of_the_table():
    labels = np.array([[1, 0, 2]])
    table = measure_objects(labels)
    second = table.select(table.columns["label"] == 2)
    assert list(read_rois(to_rois(labels, second))) == ["00002.roi"]
    assert len(json.loads(to_coco([("a", labels, second)], ["b", "c"]))["annotations"]) == 1
    for write in (to_geojson, to_rois, lambda *one: to_coco([("a", *one)], ["b", "c"])):
        with pytest.raises(ValueError, match="no object 2"):
            write(np.array([[1, 0, 0]]), table)
        with pytest.raises(ValueError, match="YX and hold integers"):
            write(np.ones((1, 3)), table)
