"""Datasets whose labels are outlines: layouts, pairs, classes, and scores of label files against them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from septa.data.folder import find_pairs, read_pair_labels
from septa.data.pairs import PairingError
from septa.errors import InputError
from septa.evaluation import evaluate_files
from septa.labels import LabelMapping, find_mapping
from septa.notices import Notices
from septa.objects import measure_objects, to_coco, to_geojson, to_rois
from septa.recipe import DataSettings

NAMES = ("background", "tumor", "stroma")


def labels_of(seed: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    labels_yx = np.zeros((16, 24), np.int32)
    for number in range(4):
        labels_yx[2 + seed : 8 + seed, 6 * number : 6 * number + 4] = number + 1
    return labels_yx


def put_images(folder: Path, count: int = 3) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        Image.fromarray(np.full((16, 24), 9, np.uint8)).save(folder / f"{seed}.png")


def describe(seed: int) -> tuple[Any, Any]:
    labels_yx = labels_of(seed)
    class_yx = np.where(labels_yx > 0, 1 + labels_yx % 2, 0)
    return labels_yx, measure_objects(labels_yx, class_yx=class_yx, class_names=NAMES)


def coco(count: int = 3) -> str:
    return to_coco([(f"{seed}.png", *describe(seed)) for seed in range(count)], NAMES)


def lay_out(data: Path, layout: str) -> None:
    put_images(data if layout in ("flat", "roboflow") else data / "images")
    if layout in ("beside", "roboflow"):
        (data / "instances.json").write_text(coco())
    elif layout == "folder":
        (data / "annotations").mkdir()
        (data / "annotations" / "all.json").write_text(coco())
    else:
        (data / "labels").mkdir(exist_ok=True)
        for seed in range(3):
            folder = data if layout == "flat" else data / "labels"
            (folder / f"{seed}_mask.geojson").write_text(to_geojson(*describe(seed)))
        if layout == "flat":
            (data / "labels").rmdir()


@pytest.mark.parametrize("layout", ["labels", "flat", "beside", "folder", "roboflow"])
def test_every_layout_pairs_images_with_outlines(tmp_path: Path, layout: str) -> None:
    lay_out(tmp_path, layout)
    pairs = find_pairs(tmp_path).pairs
    assert [pair.name for pair in pairs] == ["0", "1", "2"]
    raws = [(pair.labels_location, read_pair_labels(pair)) for pair in pairs]
    mapping = find_mapping(raws, DataSettings())
    assert (mapping.kind, mapping.values, mapping.class_names) == (
        "instances",
        (0, 1, 2),
        ("background", *NAMES[:0:-1]),
    )
    for seed, (where, raw) in enumerate(raws):
        objects = mapping.encode_objects(raw, where)
        np.testing.assert_array_equal(objects.ids_yx, labels_of(seed))
        assert objects.class_of_id is not None
        assert objects.class_of_id.tolist() == [0, 1, 2, 1, 2]
        np.testing.assert_array_equal(mapping.encode(raw, where), objects.class_yx)


def test_images_without_outlines_are_errors_and_absent_ones_a_warning(tmp_path: Path) -> None:
    put_images(tmp_path / "images", 2)
    (tmp_path / "all.json").write_text(coco(5))
    pairing = find_pairs(tmp_path)
    assert len(pairing.pairs) == 2
    assert "images that the file describes are not in the dataset (3 of them)" in pairing.notices.warnings()[0]
    (tmp_path / "all.json").write_text(coco(1))
    with pytest.raises(PairingError, match=r"images/1.png \(the image has no labels\)"):
        find_pairs(tmp_path)


def raws_of(tmp_path: Path, kinds: tuple[str | None, ...]) -> list[Any]:
    square = [[[1, 1], [4, 1], [4, 4], [1, 4]]]
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[[x + 5 * k, y] for x, y in square[0]]]},
            "properties": {"classification": kind},
        }
        for k, kind in enumerate(kinds)
    ]
    put_images(tmp_path / "images", 1)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "0.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return [(pair.labels_location, read_pair_labels(pair)) for pair in find_pairs(tmp_path).pairs]


def test_one_class_or_none_means_plain_objects(tmp_path: Path) -> None:
    assert find_mapping(raws_of(tmp_path / "a", (None, None)), DataSettings()).class_names == ("background", "object")
    assert find_mapping(raws_of(tmp_path / "b", ("cell",)), DataSettings()).class_names == ("background", "cell")
    raws = raws_of(tmp_path / "c", ("a", "b"))
    merged = find_mapping(raws, DataSettings(class_names=("background", "any")))
    assert (merged.values, merged.class_names) == ((0,), ("background", "any"))
    assert merged.encode_objects(raws[0][1], "x").class_of_id is None


def test_ignored_regions_set_the_ignore_label(tmp_path: Path) -> None:
    raws = raws_of(tmp_path, ("cell", "Ignore*", "Background"))
    mapping = find_mapping(raws, DataSettings())
    assert mapping.ignore == -1
    assert np.unique(mapping.encode(raws[0][1], "x")).tolist() == [-1, 0, 1]
    # A model of other labels knows another ignore value, and object 255 is none of its ignored pixels.
    other = LabelMapping("instances", ("background", "cell"), (0,), 1)
    assert np.unique(other.encode(raws[0][1], "x")).tolist() == [-1, 0, 1]


@pytest.mark.parametrize(
    ("settings", "where", "text"),
    [
        ({"encoding": "index"}, "0.geojson", "the labels are outlines of objects, but data.encoding is index"),
        ({"values": (0, 1)}, "data.values", "the labels are outlines, whose classes are names"),
        ({"ignore_label": 255}, "data.ignore_label", "in which the value 255 marks nothing"),
        ({"class_names": ("background", "a", "c")}, "0.geojson", "the class 'b', which data.class_names lacks"),
    ],
)
def test_settings_that_do_not_fit_outlines(tmp_path: Path, settings: Any, where: str, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        find_mapping(raws_of(tmp_path, ("a", "b")), DataSettings(**settings))
    assert caught.value.where.endswith(where)


def test_objects_without_a_class_beside_others_are_an_error_with_a_remedy(tmp_path: Path) -> None:
    raws = raws_of(tmp_path, ("a", None))
    with pytest.raises(InputError, match="1 outline of this file have no class, but others have one"):
        find_mapping(raws, DataSettings())
    assert find_mapping(raws, DataSettings(class_names=("background", "object"))).classes == 2
    with pytest.raises(InputError, match="some outlines have no class, expected a, b"):
        LabelMapping("instances", ("background", "a", "b"), (0, 1, 2)).encode(raws[0][1], "x")


def test_images_of_ids_may_stand_beside_outlines(tmp_path: Path) -> None:
    raws = raws_of(tmp_path, (None,))
    put_images(tmp_path / "ids" / "images", 1)
    (tmp_path / "ids" / "labels").mkdir()
    Image.fromarray(labels_of(0).astype(np.uint8)).save(tmp_path / "ids" / "labels" / "0.png")
    raws += [(pair.labels_location, read_pair_labels(pair)) for pair in find_pairs(tmp_path / "ids").pairs]
    notices = Notices()
    assert find_mapping(raws, DataSettings(), notices=notices).kind == "instances"
    assert "septa reads the values of the others as object numbers" in notices.warnings()[0]


def test_outlines_are_scored_against_label_images(tmp_path: Path) -> None:
    for name in ("images", "outlines", "coco"):
        (tmp_path / name).mkdir()
    for seed in range(2):
        labels_yx = labels_of(seed)
        Image.fromarray(labels_yx.astype(np.uint8)).save(tmp_path / "images" / f"{seed}.png")
        (tmp_path / "outlines" / f"{seed}_rois.zip").write_bytes(to_rois(labels_yx, measure_objects(labels_yx)))
    (tmp_path / "coco" / "all.json").write_text(coco(2))
    for left, right in (("images", "outlines"), ("outlines", "images"), ("outlines", "coco"), ("images", "coco")):
        settings = DataSettings(class_names=("background", "object")) if right == "coco" else DataSettings()
        scores = evaluate_files(tmp_path / left, tmp_path / right, settings, instances=None)
        assert scores.summary["dice"] == 1
        assert scores.unpaired == ()
        assert len(scores.images) == 2
    (tmp_path / "more").mkdir()
    for path in (tmp_path / "outlines").iterdir():
        (tmp_path / "more" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="neither the file nor its partner states the size"):
        evaluate_files(tmp_path / "outlines", tmp_path / "more")
