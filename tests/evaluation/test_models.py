"""Scores of a model on labelled images: those that it was trained on are left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import tifffile
import torch

from septa.data.fingerprint import digest_array
from septa.errors import InputError
from septa.evaluation import evaluate
from septa.images.normalize import Normalization
from septa.images.read import read_image
from septa.images.sketch import make_sketch
from septa.images.write import write_image, write_labels
from septa.labels.mapping import LabelMapping
from septa.metrics.objects import score_objects
from septa.metrics.scores import evaluate_labels
from septa.model import Model, build_net
from septa.recipe import Recipe

NAMES = ("background", "foreground")


def drawn(seed: int, classes: int = 2) -> np.ndarray:
    """Return labels of 4 x 4 blocks, so that no value looks interpolated."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, classes, (6, 7)), np.ones((4, 4), int)).astype(np.int32)


@pytest.fixture(scope="module")
def model() -> Model:
    """Make an untrained model; with this seed, its labels contain both classes."""
    recipe = Recipe().with_overrides(["net.width=2", "net.depth=1"])
    torch.manual_seed(5)
    net = build_net(recipe, 1, 2).eval().requires_grad_(False)
    mapping = LabelMapping("binary", NAMES, (0, 255))
    return Model(
        net=net, channels=1, labels=mapping, normalization=Normalization("dataset", (100.0,), (50.0,)), recipe=recipe
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for k, name in enumerate("abc"):
        write_image(tmp_path / "images" / f"{name}.png", rng.integers(0, 256, (1, 24, 28), dtype=np.uint8))
        write_labels(tmp_path / "labels" / f"{name}.png", drawn(k) * 255)
    return tmp_path


def test_a_model_is_scored_by_what_it_segments(model, data, tmp_path):
    calls: list[tuple[int, int]] = []
    model.save(tmp_path / "m.septa")
    evaluation = evaluate(tmp_path / "m.septa", data, progress=lambda done, total: calls.append((done, total)))
    items = [(name, drawn(k), model.segment(data / "images" / f"{name}.png")) for k, name in enumerate("abc")]
    expected = evaluate_labels(items, NAMES)
    assert evaluation == replace(expected, notes=evaluation.notes)
    assert "labels: {0, 255} are background and foreground" in evaluation.notes
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("task", ["semantic", "instances"])
def test_each_image_is_adapted_to_the_model_once(model, data, monkeypatch, task):
    adapted, original = [], Model.as_model_input

    def count(model, image_cyx, where, *more):
        adapted.append(where.name)
        return original(model, image_cyx, where, *more)

    monkeypatch.setattr(Model, "as_model_input", count)
    evaluate(replace(model, recipe=model.recipe.with_overrides([f"task={task}"])), data)
    assert adapted == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("kind", ["binary", "instances"])
def test_a_model_of_objects_is_scored_by_objects(model, data, kind):
    mapping = LabelMapping("instances", ("background", "object"), (0,)) if kind == "instances" else model.labels
    finder = replace(model, labels=mapping, recipe=model.recipe.with_overrides(["task=instances"]))
    evaluation = evaluate(finder, data)
    assert evaluation.objects["truth_count"]["pooled"] >= 3
    for k, name in enumerate("abc"):
        found = finder.segment(data / "images" / f"{name}.png")
        # Ids are all 255 in these files: as ids they are one object, as classes one for each region.
        truth = drawn(k) if kind == "instances" else scipy.ndimage.label(drawn(k))[0]
        expected = score_objects(truth, found)
        assert evaluation.images[k].objects == expected
        assert expected.prediction_count == found.max() > 1
        assert evaluation.images[k].pixel_error == np.mean((drawn(k) > 0) != (found > 0))
    tiled = evaluate(finder, data, tile=20)
    assert tiled == evaluation
    averaged = evaluate(finder, data, tta=4)
    assert averaged.images != evaluation.images
    assert averaged.images[0].objects.prediction_count == finder.segment(data / "images" / "a.png", tta=4).max()


def test_training_images_are_left_out_by_their_pixels(model, data):
    trained = [("old name", digest_array(read_image(data / "images" / "b.png")))]
    knowing = model.with_provenance(train=trained)
    evaluation = evaluate(knowing, data)
    assert [image.name for image in evaluation.images] == ["a", "c"]
    left_out = "1 of 3 images are left out, because the model was trained on them (--all scores them too)"
    assert evaluation.notes[-1] == left_out
    assert len(evaluate(knowing, data, every=True).images) == 3
    for name in "ac":
        for folder in ("images", "labels"):
            (data / folder / f"{name}.png").unlink()
    with pytest.raises(
        InputError, match=r": the model was trained on all images in it\. Give other images or --all\.$"
    ):
        evaluate(knowing, data)


def test_changed_copies_of_training_images_are_left_out(model, tmp_path):
    rng = np.random.default_rng(0)
    noise = scipy.ndimage.gaussian_filter(rng.normal(size=(2, 120, 150)), (0, 3, 3))
    pictures = (128 + 40 * noise / noise.std()).clip(0, 255).astype(np.uint8)
    copies = {"mirrored": pictures[0, :, ::-1] // 2 + 40, "part": pictures[0, 20:, 30:], "other": pictures[1]}
    for name, image in copies.items():
        write_image(tmp_path / "images" / f"{name}.png", np.ascontiguousarray(image)[None])
        write_labels(
            tmp_path / "labels" / f"{name}.png",
            np.kron(np.eye(2, dtype=int), np.ones((60, 75), int))[: image.shape[0], : image.shape[1]].astype(np.int32)
            * 255,
        )
    sketches = [("first.tif", make_sketch(pictures[:1]).to_text())]
    knowing = model.with_provenance(train=[("first.tif", "")], sketches=sketches)
    evaluation = evaluate(knowing, tmp_path)
    assert [image.name for image in evaluation.images] == ["other"]
    assert (
        "2 of 3 images are left out, because they show the same objects as training images, which are in brackets: "
        "mirrored (first.tif), part (first.tif) (--all scores them too)"
    ) in evaluation.notes
    assert len(evaluate(knowing, tmp_path, every=True).images) == 3


def test_images_that_chose_the_weights_are_counted(model, data):
    chose = [(name, digest_array(read_image(data / "images" / f"{name}.png"))) for name in "ab"]
    note = "2 of 3 scored images also chose the best weights of the model: scores on new images may be lower"
    for every in (False, True):
        assert note in evaluate(model.with_provenance(validation=chose), data, every=every).notes
    assert not any("chose" in line for line in evaluate(model, data).notes)


def test_masks_of_another_value_fit_a_model(model, data):
    before = evaluate(model, data)
    for name, k in zip("abc", range(3), strict=True):
        write_labels(data / "labels" / f"{name}.png", drawn(k))
    evaluation = evaluate(model, data)
    assert replace(evaluation, notes=()) == replace(before, notes=())
    assert evaluation.notes[-1].endswith("labels/c.png: the mask holds 0 and 1, and septa reads 1 as foreground.")


def test_a_mask_is_not_one_object_in_silence(model, data):
    mapping = LabelMapping("instances", ("background", "object"), (0,))
    finder = replace(model, labels=mapping, recipe=model.recipe.with_overrides(["task=instances"]))
    warning = evaluate(finder, data).notes[-1]
    assert warning.startswith("warning: ")
    assert "the label image holds one value in several regions, and septa reads these as one object" in warning


def test_data_that_do_not_fit_the_model_name_the_file(model, data):
    with pytest.raises(InputError, match="--max-pixels 672"):
        evaluate(model, data, max_pixels=600)
    write_labels(data / "labels" / "b.png", drawn(1) * 7)
    with pytest.raises(InputError, match=r"labels/b\.png: the label image holds 7, expected only 0, 255"):
        evaluate(model, data)
    write_labels(data / "labels" / "b.png", drawn(1)[:8] * 255)
    with pytest.raises(InputError, match=r"images/b\.png: the size is 24 x 28 pixels, but the labels of b are 8 x 28"):
        evaluate(model, data)
    (data / "images" / "a.png").unlink()
    tifffile.imwrite(data / "images" / "a.tif", np.zeros((2, 24, 28), np.uint8), metadata={"axes": "CYX"})
    with pytest.raises(InputError, match=r"images/a\.tif: the image has 2 channels, but the model was trained on 1\."):
        evaluate(model, data)
