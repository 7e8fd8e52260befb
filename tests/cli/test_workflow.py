"""The whole workflow on tiny data: train, predict, evaluate both ways; and files that must not be overwritten."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tifffile

from septa.metrics.pixels import confusion


def dice(truth, prediction):
    counts = confusion((truth > 0).astype(int), (prediction > 0).astype(int), 2)
    return 2 * counts[1, 1] / (counts[0, 1] + counts[1, 0] + 2 * counts[1, 1])


def test_images_become_scores(septa, model, cells, tmp_path):
    output, scores = tmp_path / "out", tmp_path / "scores.json"
    septa("predict", model, cells / "images", "-o", output, "--overlay")
    done = septa("evaluate", output, cells / "labels", "--json", scores)
    assert "6 pairs of files with the same name" in done.stdout
    assert "task: instances, because labels and predictions number objects" in done.stdout
    assert "Panoptic quality" in done.stdout
    assert "Dice = F1" in done.stdout
    found = json.loads(scores.read_text(encoding="utf-8"))
    assert len(found["images"]) == 6
    for image in found["images"]:
        truth = tifffile.imread(cells / "labels" / f"{image['name']}.tif")
        prediction = tifffile.imread(output / f"{image['name']}.tif")
        assert image["classes"]["object"]["dice"] == pytest.approx(dice(truth, prediction))

    every = tmp_path / "all.json"
    septa("evaluate", model, cells, "--all", "--json", every)
    scored = json.loads(every.read_text(encoding="utf-8"))
    assert scored.pop("calibration")["objects"] == found["objects"]["prediction_count"]["pooled"]
    # Label images hold no confidence.
    assert found.pop("calibration") == {}
    assert scored == found

    left = tmp_path / "left.json"
    done = septa("evaluate", model, cells, "--json", left)
    assert "5 of 6 images are left out, because the model was trained on them" in done.stdout
    held_out = json.loads(septa("info", model).stdout)["provenance"]["validation"][0][0]
    assert [image["name"] for image in json.loads(left.read_text(encoding="utf-8"))["images"]] == [held_out]


def test_training_images_are_recognised_by_their_pixels(fault, model, cells, copied):
    """Their names and compression do not matter."""
    pairs = sorted((copied / "images").iterdir())
    for number, path in enumerate(pairs):
        image = tifffile.imread(path)
        path.unlink()
        tifffile.imwrite(copied / "images" / f"new_{number}.tif", image, compression="zlib")
        (copied / "labels" / path.name).rename(copied / "labels" / f"new_{number}.tif")
    from septa.evaluation import evaluate
    from septa.model import Model

    loaded = Model.load(model)
    assert len(evaluate(loaded, copied).images) == 1
    trained = {name for name, _ in loaded.provenance["train"]}
    for number, path in enumerate(pairs):
        if path.stem not in trained:
            for folder in ("images", "labels"):
                (copied / folder / f"new_{number}.tif").unlink()
    line = fault("evaluate", model, copied)
    assert line == f"{copied}: the model was trained on all images in it. Give other images or --all."


def test_evaluation_faults(fault, septa, model, cells, copied, tmp_path):
    assert fault("evaluate", tmp_path / "no.septa", cells).startswith(
        f"{tmp_path / 'no.septa'}: the file cannot be read"
    )
    assert fault("evaluate", cells / "labels", cells / "labels").startswith(
        f"{cells / 'labels'}: the folder is given as"
    )
    assert fault("evaluate", cells / "images", cells / "labels", "--all").startswith("--all: ")
    (copied / "labels" / "cells_0003.tif").unlink()
    done = septa("evaluate", copied / "labels", cells / "labels", code=3)
    assert "1 without prediction (cells_0003.tif)" in done.stderr


def test_a_model_and_an_unfinished_training_are_not_overwritten(fault, septa, model, cells, tmp_path, tiny):
    before = model.read_bytes()
    assert fault("train", cells, "-o", model, *tiny) == f"{model}: the file exists. Give another -o or --overwrite."
    assert model.read_bytes() == before
    assert "this training is finished" in septa("train", cells, "-o", model, "--resume", *tiny).stdout
    assert model.read_bytes() == before
    mine = shutil.copy(model, tmp_path / "mine.septa")
    assert fault("train", cells, "-o", cells / "labels", *tiny).startswith(f"{cells / 'labels'}")
    septa("train", cells, "-o", mine, "--overwrite", "--seed", 1, *tiny)
    assert (tmp_path / "mine.septa").read_bytes() != before
    assert (tmp_path / "mine-run" / "report.html").is_file()


def test_stacks_and_16_bit_from_end_to_end(septa, cells, tmp_path, tiny):
    folder = tmp_path / "em"
    folder.mkdir()
    names = sorted(path.name for path in (cells / "images").iterdir())
    stack = np.stack([tifffile.imread(cells / "images" / name) for name in names])
    labels = np.stack([(tifffile.imread(cells / "labels" / name) > 0) * np.uint8(255) for name in names])
    assert stack.dtype == np.uint16
    tifffile.imwrite(folder / "train-volume.tif", stack, metadata={"axes": "ZYX"})
    tifffile.imwrite(folder / "train-labels.tif", labels, metadata={"axes": "ZYX"})
    model, output = tmp_path / "em.septa", tmp_path / "out"
    printed = septa("train", folder, "-o", model, *tiny).stdout
    assert "pairs: 6 (pages of 1 stack)" in printed
    septa("predict", model, folder / "train-volume.tif", "-o", output)
    predicted = tifffile.imread(output / "train-volume.tif")
    assert predicted.shape == stack.shape
    assert set(np.unique(predicted)) <= {0, 255}
    (output / "train-volume.tif").rename(output / "s.tif")
    (tmp_path / "truth").mkdir()
    shutil.copy(folder / "train-labels.tif", tmp_path / "truth" / "s_mask.tif")
    septa("evaluate", output, tmp_path / "truth", "--json", tmp_path / "s.json")
    images = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["images"]
    assert [image["name"] for image in images] == [f"s#{page}" for page in range(6)]
    for page, image in enumerate(images):
        assert image["classes"]["foreground"]["dice"] == pytest.approx(dice(labels[page], predicted[page]))
