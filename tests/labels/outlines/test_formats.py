"""What each program writes is read with its pixels and classes, and damaged or hostile files end in one line."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi
from skimage.draw import polygon2mask

from septa.errors import InputError
from septa.images import RawLabels
from septa.labels.outlines import expand_outlines, is_inside_file, is_outlines, read_outlines
from septa.notices import Notices
from septa.objects import measure_objects, to_coco, to_geojson, to_rois

SIZE = (20, 30)
SQUARE = [[2, 3], [7, 3], [7, 9], [2, 9], [2, 3]]


def blobs(seed: int = 0) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Labels with holes, several parts and neighbours that touch."""
    rng = np.random.default_rng(seed)
    labels_yx = np.kron(rng.integers(0, 9, (20, 15)), np.ones((1, 2), int)).astype(np.int32)
    return np.unique(labels_yx, return_inverse=True)[1].reshape(SIZE).astype(np.int32)


def save(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def read(path: Path, notices: Notices | None = None) -> RawLabels:
    assert is_outlines(path)
    return read_outlines(path, lambda: SIZE, notices=notices)


def feature(coordinates: Any, kind: str = "Polygon", **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


@pytest.mark.parametrize("seed", range(3))
def test_what_septa_writes_is_read_back_to_the_pixel(tmp_path: Path, seed: int) -> None:
    labels_yx = blobs(seed)
    kinds = np.array([0, *np.arange(labels_yx.max()) % 2 + 1])
    names = ("background", "cell", "debris")
    table = measure_objects(labels_yx, class_yx=kinds[labels_yx], class_names=names)
    (tmp_path / "a.geojson").write_text(to_geojson(labels_yx, table))
    (tmp_path / "all.json").write_text(to_coco([("in/a.png", labels_yx, table), ("b.png", labels_yx, table)], names))
    (tmp_path / "a_rois.zip").write_bytes(to_rois(labels_yx, table))
    found = {path.name: read(path) for path in expand_outlines(sorted(tmp_path.iterdir()))}
    assert found.keys() == {"a.geojson", "a.png", "b.png", "a_rois.zip"}
    for name, raw in found.items():
        np.testing.assert_array_equal(raw.array, labels_yx, name)
        assert raw.objects == tuple("" if name == "a_rois.zip" else names[kind] for kind in kinds[1:])


def test_features_of_qupath(tmp_path: Path) -> None:
    hole = [[4, 5], [5, 5], [5, 6], [4, 6], [4, 5]]
    features = [
        feature([SQUARE, hole], classification={"name": "Tumor", "color": [1, 2, 3]}),
        feature([[[[10, 0], [12, 0], [12, 2]]], [[[20, 10], [22, 10], [22, 12], [20, 12]]]], "MultiPolygon"),
        feature([[[0, 15], [30, 15], [30, 20], [0, 20]]], classification={"name": "Ignore*"}),
        feature([5, 5], "Point"),
        feature([SQUARE[:2]], "MultiLineString"),
    ]
    features[1]["properties"]["classification"] = {"names": ["Immune", "CD8"]}
    notices = Notices()
    for document in ({"type": "FeatureCollection", "features": features}, features):
        raw = read(save(tmp_path / "a.geojson", document), notices)
        assert raw.objects == ("Tumor", "Immune: CD8")
        assert (raw.array[3:9, 2:7] == 1).sum() == 29
        assert raw.array[5, 4] == 0
        assert (raw.array[10:12, 20:22] == 2).all()
        assert (raw.array[15:] == -1).all()
    assert notices.lines() == [f"note: {tmp_path / 'a.geojson'}: points, lines enclose no area and are not used."]
    assert read(save(tmp_path / "b.geojson", features[0])).array.max() == 1
    assert read(save(tmp_path / "c.geojson", features[0]["geometry"])).array.max() == 1


def test_coco_polygons_and_crowds(tmp_path: Path) -> None:
    flat = [float(value) for point in SQUARE[:-1] for value in point]
    crowd = {"size": list(SIZE), "counts": [20 * 29, 20]}
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [flat, [20, 1, 22, 1, 22, 3, 20, 3]]},
        {"id": 2, "image_id": 7, "category_id": 3, "segmentation": crowd, "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]},
    ]
    images = [{"id": 7, "file_name": "deep\\a.png", "height": 20, "width": 30}, {"id": 8, "file_name": "../b.png"}]
    categories = [{"id": 3, "name": "cell"}]
    path = save(tmp_path / "c.json", {"images": images, "annotations": annotations, "categories": categories})
    first, second = expand_outlines([path])
    assert (first, second) == (path / "deep/a.png", path / "b.png")
    assert is_inside_file(first)
    raw = read(first)
    assert raw.objects == ("cell",)
    assert raw.array[3:9, 2:7].all()
    assert raw.array[1:3, 20:22].all()
    assert (raw.array[:, 29] == -1).all()
    assert not read(second).array.any()
    with pytest.raises(InputError, match="describes several images"):
        read(path)


def test_shapes_of_labelme(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    mask_yx = np.eye(4, dtype=bool)
    Image.fromarray(mask_yx).save(buffer, "png")
    mask = base64.b64encode(buffer.getvalue()).decode()
    shapes = [
        {"label": "cell", "points": SQUARE[:-1], "group_id": 1, "shape_type": "polygon"},
        {"label": "cell", "points": [[12, 3], [15, 1]], "group_id": 1, "shape_type": "rectangle"},
        {"label": "dot", "points": [[20, 10], [23, 10]], "shape_type": "circle"},
        {"label": "dot", "points": [[25, 15], [28, 18]], "shape_type": "mask", "mask": mask},
        {"label": "__ignore__", "points": [[0, 18], [5, 18], [5, 20], [0, 20]]},
        {"label": "cell", "points": [[1, 1]], "shape_type": "point"},
    ]
    document = {"shapes": shapes, "imagePath": "a.png", "imageData": "x" * 99, "imageHeight": 20, "imageWidth": 30}
    notices = Notices()
    raw = read(save(tmp_path / "a.json", document), notices)
    assert raw.objects == ("cell", "dot", "dot")
    assert [int((raw.array == k).sum()) for k in (-1, 1, 2, 3)] == [10, 30 + 6, 32, 4]
    np.testing.assert_array_equal(raw.array[15:19, 25:29] == 3, mask_yx)
    assert "points enclose no area" in notices.lines()[0]


def test_regions_of_imagej(tmp_path: Path) -> None:
    corners = np.array([[3.2, 4.1], [12.8, 6.3], [8.4, 14.6]], np.float32)
    polygon = ImagejRoi.frompoints(corners)
    polygon.roitype = ROI_TYPE.POLYGON
    rectangle = ImagejRoi(roitype=ROI_TYPE.RECT, left=20, top=1, right=25, bottom=4, group=2)
    oval = ImagejRoi(roitype=ROI_TYPE.OVAL, left=20, top=10, right=26, bottom=16)
    line = ImagejRoi.frompoints(corners)
    line.roitype = ROI_TYPE.POLYLINE
    assert polygon.options & ROI_OPTIONS.SUB_PIXEL_RESOLUTION
    for number, roi in enumerate((polygon, rectangle, oval, line)):
        (tmp_path / f"{number}.roi").write_bytes(roi.tobytes())
    with zipfile.ZipFile(tmp_path / "RoiSet.zip", "w") as archive:
        for number in range(4):
            archive.write(tmp_path / f"{number}.roi", f"{number}.roi")
    raw = read(tmp_path / "RoiSet.zip")
    assert raw.objects == ("", "group 2", "")
    # skimage counts centres as whole numbers.
    expected_yx = polygon2mask(SIZE, corners[:, ::-1] - 0.5)
    np.testing.assert_array_equal(raw.array == 1, expected_yx)
    assert (raw.array[1:4, 20:25] == 2).all()
    assert (raw.array == 3).sum() == 32
    assert read(tmp_path / "1.roi").array.sum() == 15


def test_planes_of_a_stack_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for position in (1, 2):
            roi = ImagejRoi(roitype=ROI_TYPE.RECT, left=2, top=1, right=5, bottom=4, position=position)
            archive.writestr(f"{position}.roi", roi.tobytes())
    with pytest.raises(InputError, match="the outlines belong to 2 planes of a stack"):
        read(tmp_path / "a.zip")


def test_notes_about_pixels(tmp_path: Path) -> None:
    far = [[[500, 500], [510, 500], [510, 510]]]
    inner = [[[3, 4], [5, 4], [5, 6], [3, 6]]]
    document = [feature([SQUARE]), feature(inner), feature(far), feature([[[0.1, 0.1], [0.2, 0.1], [0.2, 0.2]]])]
    notices = Notices()
    read(save(tmp_path / "a.geojson", document), notices)
    lines = "\n".join(notices.lines())
    assert "outlines overlap in 4 pixels, which belong to the smaller outline" in lines
    assert "outlines lie outside the image and are not used (1 of them)" in lines
    assert "enclose no pixel of their own" in lines


NAN = '{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[NaN, 1], [2, 3], [4, 5]]]}}'
FAULTS = {
    "nan": (NAN, "the JSON data holds NaN"),
    "infinite": (NAN.replace("NaN", "1e999"), "feature 1 has coordinates that are not finite"),
    "far": (NAN.replace("NaN", "1e30"), "feature 1 has coordinates that are not finite or beyond 1e\\+09 pixels"),
    "text": (NAN.replace("NaN", '"x"'), "feature 1 has points that are not x and y"),
    "nested": ('{"type": "Feature", "geometry": ' + "[" * 100_000, "the JSON data is nested too deeply"),
    "rings": (NAN.replace("[[[NaN, 1], [2, 3], [4, 5]]]", "7"), "feature 1 has no list of rings"),
    "cut": (NAN[:40], "the JSON data is damaged"),
    "long": ('{"type": ' + "9" * 5000 + "}", "a number that is too long"),
    "bytes": ('{"a": "\udcff"}', "not UTF-8"),
    "empty": ("", "the file holds no outlines"),
    "other": ('{"type": "Topology"}', "the file holds no outlines"),
    "features": ('{"type": "FeatureCollection", "features": 3}', "has no list of features"),
    "coco": ('{"images": [{"id": 1}], "annotations": []}', "image 1 lacks an id or a file_name"),
    "strays": ('{"images": [], "annotations": [{"image_id": 4}]}', "annotation 1 belongs to no listed image"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_files_end_in_one_line(tmp_path: Path, fault: str) -> None:
    content, text = FAULTS[fault]
    path = tmp_path / "a.geojson"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=text) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert caught.value.remedy


@pytest.mark.parametrize(
    "runs",
    [
        {"size": [20, 30], "counts": [600, 1]},
        {"size": [20, 30], "counts": [-5, 605]},
        {"size": [20, 30], "counts": [1 << 70]},
        {"size": [20, 30], "counts": "\u007f"},
        {"size": [20, 30], "counts": "P" * 40},
        {"size": [21, 30], "counts": [630]},
        {"size": [1 << 40, 1 << 40], "counts": [1]},
        [[1, 2, 3]],
        "text",
    ],
)
def test_hostile_run_lengths_are_refused(tmp_path: Path, runs: Any) -> None:
    image = {"id": 1, "file_name": "a.png", "height": 20, "width": 30}
    document = {"images": [image], "annotations": [{"image_id": 1, "segmentation": runs}]}
    path = save(tmp_path / "c.json", document)
    with pytest.raises(InputError, match="annotation 1 has"):
        read(path / "a.png")


def test_hostile_sizes_and_regions_are_refused(tmp_path: Path) -> None:
    document = {"shapes": [], "imagePath": "a.png", "imageHeight": 10**6, "imageWidth": 10**6}
    with pytest.raises(InputError, match="more than the limit of 2000000000 pixels"):
        read(save(tmp_path / "a.json", document))
    shape = {"label": "a", "points": [[0, 0], [3, 3]], "shape_type": "mask", "mask": "AAAA"}
    with pytest.raises(InputError, match="the PNG data cannot be decoded"):
        read(save(tmp_path / "a.json", document | {"shapes": [shape], "imageHeight": 5, "imageWidth": 5}))
    good = ImagejRoi.frompoints(np.array([[1, 1], [9, 1], [9, 9]])).tobytes()
    for number, data in enumerate((good[:66], good[:16] + b"\xff\xff" + good[18:])):
        (tmp_path / f"{number}.roi").write_bytes(data)
        with pytest.raises(InputError, match=f"{number}.roi is damaged|{number}.roi has"):
            read(tmp_path / f"{number}.roi")
    (tmp_path / "b.zip").write_bytes(b"PK\3\4" + bytes(40))
    with pytest.raises(InputError, match="the ZIP file of regions is damaged"):
        read(tmp_path / "b.zip")
    for other in ("recipe.json", "notes.txt", "plain.zip"):
        (tmp_path / other).write_text('{"steps": 3}')
        assert not is_outlines(tmp_path / other)
