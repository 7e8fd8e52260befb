"""Stacks, files of several images, and images too large for memory: what is shown, and where labels go."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from septa.app import picture as pictures
from septa.app import predictor as predicting
from septa.images import Normalization, open_source, read_image, read_info, read_labels
from septa.labels import LabelMapping
from septa.model import Model, build_net
from septa.recipe import NetSettings, Recipe

from .conftest import Site

STROKE = {"tool": "brush", "points": [[5.5, 5.5]], "radius": 2}


def read_tile(site: Site, name: str, place: str) -> np.ndarray:
    _, headers, content = site.ask("GET", f"/api/images/{name}/tiles/{place}")
    shape = [int(part) for part in headers["x-shape"].split(",")]
    return np.frombuffer(gzip.decompress(content), "u1").reshape(shape)


@pytest.mark.parametrize("axes", ["TZYX", "ZTYX"])
def test_the_pages_of_a_stack_share_a_label_file_with_its_axes(site: Site, axes: str) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (2, 3, 20, 30), np.uint8)
    tifffile.imwrite(site.folder / "stack.ome.tif", stack, metadata={"axes": axes})
    opened = site.read("/api/images/stack.ome.tif")
    assert (opened["name"], opened["pages"], opened["page"]) == ("stack.ome.tif#0", 6, 0)
    names = {"T": "frame", "Z": "plane"}
    expected = {names[axes[0]]: "2 of 2", names[axes[1]]: "1 of 3"}
    assert site.read("/api/images/stack.ome.tif%233")["position"] == ", ".join(
        f"{name} {expected[name]}" for name in ("frame", "plane")
    )
    np.testing.assert_array_equal(read_tile(site, "stack.ome.tif%234", "0/0/0")[0], stack.reshape(6, 20, 30)[4])
    for number, page in enumerate((4, 1)):
        site.send(f"/api/images/stack.ome.tif%23{page}/edit", STROKE | {"label": number + 7})
    site.send("/api/images/stack.ome.tif%234/check", {"checked": True})
    site.workspace.saver.flush()
    path = site.folder / "labels" / "stack.tif"
    assert (read_info(path).pages, read_info(path).page_axes) == (6, read_info(site.folder / "stack.ome.tif").page_axes)
    found = [int(read_labels(path, page).array.max()) for page in range(6)]
    assert found == [0, 8, 0, 0, 7, 0]
    listed = {one["name"]: one for one in site.read("/api/images")}["stack.ome.tif"]
    assert (listed["checked"], listed["checked_pages"], listed["labels"]) == (False, 1, True)


def test_each_image_of_a_file_has_labels_of_its_own(site: Site) -> None:
    with tifffile.TiffWriter(site.folder / "two.tif") as file:
        file.write(np.zeros((20, 30), np.uint8))
        file.write(np.full((24, 26), 9, np.uint8))
    opened = site.read("/api/images/two.tif%23image1")
    assert (opened["images"], opened["image"], opened["levels"][0]) == (2, 1, [24, 26])
    site.send("/api/images/two.tif%23image1/edit", STROKE)
    site.workspace.saver.flush()
    assert read_labels(site.folder / "labels" / "two_image1.tif").array.shape == (24, 26)
    assert {one["name"]: one for one in site.read("/api/images")}["two.tif"]["labels"]


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let images of more than 10,000 pixels be large, and their overviews small."""
    monkeypatch.setattr(pictures, "EDITABLE_PIXELS", 10_000)
    monkeypatch.setattr(pictures, "_COARSE", 100)
    monkeypatch.setattr(pictures, "_BAND", 64 * 700)


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize("tiles", [(64, 64), None])
def test_a_large_image_without_a_pyramid_is_shown_and_cut(site: Site, tiles: tuple[int, int] | None) -> None:
    image_yx = np.random.default_rng(0).integers(0, 255, (530, 700), np.uint8)
    tifffile.imwrite(site.folder / "large.tif", image_yx, tile=tiles, resolution=(20000, 20000), resolutionunit=3)
    opened = site.read("/api/images/large.tif")
    assert opened["levels"] == [[530, 700], [265, 350], [133, 175], [67, 88]]
    assert opened["can_cut"]
    assert opened["labels"] is None
    np.testing.assert_array_equal(read_tile(site, "large.tif", "0/1/2")[0], image_yx[256:512, 512:])
    means = image_yx[:528, :].reshape(132, 4, 175, 4).mean((1, 3))
    np.testing.assert_allclose(read_tile(site, "large.tif", "2/0/0")[0][:132], means, atol=1)
    means = image_yx[:528, :696].reshape(66, 8, 87, 8).mean((1, 3))
    np.testing.assert_allclose(read_tile(site, "large.tif", "3/0/0")[0][:66, :87], means, atol=1)
    assert site.ask("POST", "/api/images/large.tif/segment", {"model": "old.septa"})[0] == 422
    cut = site.send("/api/images/large.tif/cut", {"box": [100, -5, 180, 90]})["name"]
    assert cut == "large_y100_x0.tif"
    np.testing.assert_array_equal(read_image(site.folder / cut)[0], image_yx[100:180, :90])
    with open_source(site.folder / cut) as source:
        assert source.pixel_size_um == pytest.approx((0.5, 0.5))
    assert site.send("/api/images/large.tif/cut", {"box": [100, 0, 180, 90]})["name"] == "large_y100_x0-2.tif"
    assert site.read(f"/api/images/{cut}")["labels"]["count"] == 0


def test_the_visible_part_is_shown_while_the_rest_is_computed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "TILE", 16)
    model = Model.load(site.folder / "old.septa")
    image_cyx = np.tile(read_image(site.folder / "0.png"), (1, 3, 3))
    from septa.images import write_image

    write_image(site.folder / "wide.png", image_cyx)
    document = site.workspace.open_document("wide.png")
    seen = []
    shown = document.show_preview

    def spy(box, labels_yx) -> None:
        shown(box, labels_yx)
        seen.append((box, document.cut_labels((144, 144), (0, 144), (0, 144))[1:-1, 1:-1]))

    monkeypatch.setattr(document, "show_preview", spy)
    site.send("/api/images/wide.png/segment", {"model": "old.septa", "visible": [96, 96, 144, 144]})
    job = site.wait_for_job()
    assert job["state"] == "done", job
    expected = model.segment(image_cyx)
    np.testing.assert_array_equal(site.read_saved("wide.png"), expected)
    (box, preview_yx), (none, rest_yx) = seen
    assert box.top > 0
    assert box.left > 0
    assert box.bottom == 144
    assert (preview_yx[box.index] > 0).any()
    assert not preview_yx[: box.top].any()
    assert none is None
    assert not rest_yx.any()


def test_everything_is_taken_away_in_the_formats_of_others(site: Site) -> None:
    site.send("/api/images/0.png/segment", {"model": "old.septa"})
    site.wait_for_job()
    labels_yx = site.read_saved()
    ids = set(np.unique(labels_yx).tolist()) - {0}

    def download(kind: str) -> bytes:
        status, _, content = site.ask("GET", f"/api/images/0.png/export/{kind}")
        assert status == 200, content
        return content

    coco = json.loads(download("coco"))
    assert coco["images"][0]["file_name"] == "0.png"
    assert len(coco["annotations"]) == len(ids)
    with zipfile.ZipFile(io.BytesIO(download("rois"))) as archive:
        assert {int(name.removesuffix(".roi")) for name in archive.namelist()} == ids
    target = site.folder.parent / "store"
    with zipfile.ZipFile(io.BytesIO(download("zarr"))) as archive:
        archive.extractall(target)
    with open_source(target / "0_labels.ome.zarr" / "labels" / "labels") as source:
        np.testing.assert_array_equal(source.read((0, 48), (0, 48))[0], labels_yx)
    assert site.ask("GET", "/api/images/0.png/export/none")[0] == 422
    assert site.ask("GET", "/api/models/old.septa/file")[2] == (site.folder / "old.septa").read_bytes()


def test_a_threshold_of_confidence_drops_objects(site: Site) -> None:
    site.send("/api/images/0.png/segment", {"model": "old.septa"})
    site.wait_for_job()
    table = site.read("/api/images/0.png/objects")
    values = {row[0]: row[table["columns"].index("confidence")] for row in table["rows"]}
    cut = float(np.median(list(values.values())))
    answer = site.send("/api/images/0.png/decode", {"confidence": cut})
    assert answer["decoding"]["used"]["confidence"] == cut
    kept = {label for label, value in values.items() if value >= cut - 1e-4}
    assert set(np.unique(site.read_saved()).tolist()) - {0} == kept
    assert 0 < len(kept) < len(values)


def make_class_model() -> Model:
    torch.manual_seed(3)
    recipe = Recipe(net=NetSettings(depth=2, width=4))
    mapping = LabelMapping("index", ("ground", "wood", "bark"), (0, 5, 9))
    normalization = Normalization("dataset", (100.0,), (50.0,))
    net = build_net(recipe, 1, 3)
    return Model(net=net, channels=1, labels=mapping, normalization=normalization, recipe=recipe)


def test_a_model_of_classes_fills_pixels_with_the_values_of_its_labels(site: Site) -> None:
    model = make_class_model()
    model.save(site.folder / "classes.septa")
    site.send("/api/images/0.png/segment", {"model": "classes.septa"})
    job = site.wait_for_job()
    assert job["state"] == "done", job
    expected = model.as_written(model.segment(read_image(site.folder / "0.png")))
    np.testing.assert_array_equal(site.read_saved(), expected)
    labels = site.read("/api/images/0.png/labels")
    assert labels["pixels"]
    assert [one["value"] for one in labels["classes"]] == list(model.labels.raw_values)
    assert site.send("/api/images/0.png/edit", {"tool": "delete", "label": 1}, status=422)["error"]
    site.send("/api/images/0.png/edit", STROKE | {"label": 1})
    assert site.read_saved()[5, 5] == model.labels.raw_values[1]
    site.workspace._documents.drop("0.png")
    assert site.workspace.open_document("0.png").labels_yx[5, 5] == 1
    site.workspace.folder.restore_marks("0.png", replace(site.workspace.folder.get_marks("0.png"), checked=True))
    rows = site.ask("GET", "/api/images/0.png/export/csv")[2].decode()
    assert model.labels.class_names[1] in rows


def test_objects_get_classes_that_are_saved_and_undone(site: Site) -> None:
    folder = site.workspace.folder
    folder.set_marks("0.png", classes=((0, "background"), (3, "round"), (5, "long")))
    image = "/api/images/0.png"
    first = site.send(f"{image}/edit", {"tool": "polygon", "points": [[2, 2], [30, 2], [30, 9], [2, 9]]})["label"]
    site.send(f"{image}/edit", {"tool": "class", "label": first, "value": 5})
    site.workspace.saver.flush()
    path = site.folder / "classes" / "0.png"
    np.testing.assert_array_equal(read_labels(path).array, np.where(site.read_saved() == first, 5, 0))
    site.send(f"{image}/edit", {"tool": "split", "points": [[15.5, 0], [15.5, 12]]})
    assert (read_after(site, path) == np.where(site.read_saved() > 0, 5, 0)).all()
    assert set(site.workspace.open_document("0.png").classes.values()) == {5}
    table = site.read(f"{image}/objects")
    assert [row[table["columns"].index("class")] for row in table["rows"]] == [2, 2]
    assert site.send(f"{image}/edit", {"tool": "class", "label": first, "value": 4}, status=422)["error"]
    site.send(f"{image}/undo")
    site.send(f"{image}/undo")
    assert not read_after(site, path).any()
    site.send(f"{image}/redo")
    site.workspace.saver.flush()
    site.workspace._documents.drop("0.png")
    assert site.workspace.open_document("0.png").classes == {first: 5}


def read_after(site: Site, path: Path) -> np.ndarray:
    site.workspace.saver.flush()
    return read_labels(path).array
