"""Objects from the real command: tables, outlines for other programs, and the selection by confidence."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import roifile
import tifffile

from septa.objects import link_labels


@pytest.fixture(scope="module")
def model(septa, cells, tmp_path_factory):
    path = tmp_path_factory.mktemp("objects") / "m.septa"
    settings = ("width=4", "depth=2", "steps=25", "validations=1", "patch=[64, 64]", "amp=off", "lr=0.01")
    options = [part for setting in settings for part in ("--set", setting)]
    septa("train", cells, "-o", path, "--task", "instances", "--set", "instances.encoding=border", *options)
    return path


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_and_outlines_agree_with_the_label_images(septa, cells, model, tmp_path):
    out = tmp_path / "out"
    files = ("--table", out / "o.csv", "--geojson", "--rois", "--coco", out / "coco.json")
    septa("predict", model, cells / "images", "-o", out, *files)
    rows, coco = rows_of(out / "o.csv"), json.loads((out / "coco.json").read_text())
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    assert len(rows) == len(coco["annotations"]) > 0
    for path in sorted(out.glob("*.tif")):
        labels_yx = tifffile.imread(path)
        ids = np.unique(labels_yx[labels_yx > 0]).tolist()
        mine = [row for row in rows if row["image"] == path.stem]
        assert [int(row["label"]) for row in mine] == ids
        assert [int(row["area"]) for row in mine] == [int((labels_yx == value).sum()) for value in ids]
        assert all(0 <= float(row["confidence"]) <= 1 for row in mine)
        features = json.loads((out / "outlines" / f"{path.stem}.geojson").read_text())["features"]
        assert [int(feature["properties"]["name"]) for feature in features] == ids
        rois = roifile.roiread(out / "outlines" / f"{path.stem}_rois.zip") if ids else []
        assert [int(roi.name) for roi in rois] == ids
        found = [one for one in coco["annotations"] if names[one["image_id"]] == f"{path.stem}.tif"]
        assert [one["area"] for one in found] == [int(row["area"]) for row in mine]


def test_a_store_has_the_same_table_and_outlines(septa, cells, model, tmp_path):
    image = sorted((cells / "images").iterdir())[0]
    more = ("--geojson", "--measure", "full", "--min-confidence", 0.4)
    septa("predict", model, image, "-o", tmp_path / "o.tif", "--table", tmp_path / "file.csv", *more)
    septa("predict", model, image, "-o", tmp_path / "s.ome.zarr", "--table", tmp_path / "store.csv", *more)
    in_file, in_store = (rows_of(tmp_path / f"{name}.csv") for name in ("file", "store"))
    assert len(in_file) > 1
    ignored = dict.fromkeys(("label", "image"), "")  # the numbers differ, and o.tif names its image o

    def sort(rows):
        return sorted((row | ignored for row in rows), key=lambda row: (row["centroid_y"], row["centroid_x"]))

    assert sort(in_store) == sort(in_file)
    of_file, of_store = (
        json.loads((tmp_path / "outlines" / f"{name}.geojson").read_text())["features"] for name in ("o", "s")
    )
    outlines = [sorted(json.dumps(one["geometry"]) for one in features) for features in (of_file, of_store)]
    assert outlines[0] == outlines[1]


def test_measurements_are_chosen_by_name(septa, fault, cells, model, tmp_path):
    image = sorted((cells / "images").iterdir())[0]
    chosen = ("--geojson", "--measure", "feret,median", "--min-confidence", 0.6)
    septa("predict", model, image, "-o", tmp_path / "out", "--table", tmp_path / "o.csv", *chosen)
    labels_yx, image_yx = tifffile.imread(tmp_path / "out" / image.name), tifffile.imread(image)
    rows = rows_of(tmp_path / "o.csv")
    assert list(rows[0])[-3:] == ["feret_max", "feret_min", "median_channel_1"]
    assert "area" in rows[0]
    features = json.loads((tmp_path / "out" / "outlines" / f"{image.stem}.geojson").read_text())["features"]
    for row, feature in zip(rows, features, strict=True):
        assert float(row["median_channel_1"]) == np.median(image_yx[labels_yx == int(row["label"])])
        assert feature["properties"]["measurements"]["feret_max"] == float(row["feret_max"]) > 1
    line = fault("predict", model, image, "-o", tmp_path / "other", "--measure", "full")
    assert line.startswith("--measure: measurements go to tables and to outlines for QuPath, and neither is requested.")
    assert not (tmp_path / "other").exists()


def test_objects_keep_their_numbers_from_page_to_page(septa, cells, model, tmp_path):
    first = sorted((cells / "images").iterdir())[0]
    image_yx = tifffile.imread(first)
    pages = np.stack([np.roll(image_yx, 2 * step, axis=1) for step in range(4)])
    tifffile.imwrite(tmp_path / "s.tif", pages.reshape(2, 2, *image_yx.shape), ome=True, metadata={"axes": "TZYX"})
    shutil.copy(first, tmp_path / "single.tif")
    for name, more in (("alone", ()), ("linked", ("--link", "--geojson", "--overlay"))):
        inputs = (tmp_path / "s.tif", tmp_path / "single.tif")
        done = septa("predict", model, *inputs, "-o", tmp_path / name, "--table", tmp_path / f"{name}.csv", *more)
    assert "single.tif: the image has a single page, so no objects are linked." in done.stderr + done.stdout
    alone, linked = (tifffile.imread(tmp_path / name / "s.tif") for name in ("alone", "linked"))
    np.testing.assert_array_equal(linked, link_labels(alone))
    assert linked.shape[:2] == (2, 2)
    objects = len(np.unique(linked)) - 1
    assert f"{objects} objects linked over the pages" in done.stderr + done.stdout
    rows = [row for row in rows_of(tmp_path / "linked.csv") if row["image"] != "single"]
    before = [row for row in rows_of(tmp_path / "alone.csv") if row["image"] != "single"]
    assert len(rows) == len(before)
    for row in rows:
        page_yx = linked[int(row["frame"]), int(row["plane"])]
        assert int(row["area"]) == (page_yx == int(row["label"])).sum()
    features = json.loads((tmp_path / "linked" / "outlines" / "s_0003.geojson").read_text())["features"]
    assert [int(feature["properties"]["name"]) for feature in features] == np.unique(linked[1, 1])[1:].tolist()
    assert (tmp_path / "linked" / "overlays" / "s_0003.png").is_file()


def test_objects_with_a_low_confidence_are_dropped_everywhere(septa, cells, model, tmp_path):
    for name, more in (("all", ()), ("sure", ("--min-confidence", 0.6))):
        out = tmp_path / name
        septa("predict", model, cells / "images", "-o", out, "--table", tmp_path / f"{name}.csv", *more)
    every, sure = rows_of(tmp_path / "all.csv"), rows_of(tmp_path / "sure.csv")
    expected = [(row["image"], row["label"]) for row in every if float(row["confidence"]) >= 0.6]
    assert [(row["image"], row["label"]) for row in sure] == expected
    assert 0 < len(sure) < len(every)
    for path in sorted((tmp_path / "sure").glob("*.tif")):
        kept = {int(row["label"]) for row in sure if row["image"] == path.stem}
        before, after = tifffile.imread(tmp_path / "all" / path.name), tifffile.imread(path)
        np.testing.assert_array_equal(after, np.where(np.isin(before, sorted(kept)), before, 0))


def test_a_failed_file_is_in_none_of_the_tables(septa, cells, model, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(cells / "images", images)
    spoiled = sorted(images.iterdir())[1]
    spoiled.write_bytes(spoiled.read_bytes()[:200])
    files = ("--table", tmp_path / "o.csv", "--coco", tmp_path / "c.json")
    septa("predict", model, images, "-o", tmp_path / "out", *files, code=3)
    assert spoiled.stem not in {row["image"] for row in rows_of(tmp_path / "o.csv")}
    assert len(json.loads((tmp_path / "c.json").read_text())["images"]) == len(list(images.iterdir())) - 1


def test_a_semantic_model_has_no_objects(fault, cells, pixel_model, tmp_path):
    line = fault("predict", pixel_model, cells / "images", "-o", tmp_path / "out", "--table", "o.csv")
    assert line.startswith(
        "--table, --geojson, --coco, --rois, --min-confidence and --link need a model that finds objects. Leave"
    )
    assert not (tmp_path / "out").exists()
