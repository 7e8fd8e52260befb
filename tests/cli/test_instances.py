"""`--task instances` from binary labels to scores of objects, with a pruned net and test-time augmentation."""

from __future__ import annotations

import json

import numpy as np
import scipy.ndimage
from PIL import Image


def test_objects_of_binary_labels(septa, data, tiny, tmp_path):
    from septa.model import Model

    path, output, scores = tmp_path / "m.septa", tmp_path / "out", tmp_path / "scores.json"
    more = ["nested=true", "deep_supervision=true", "border_weight=5", "training.lr=0.02", "ema=0"]
    settings = [part for setting in more for part in ("--set", setting)]
    done = septa("train", data, "-o", path, "--task", "instances", *tiny, *settings)
    assert "Panoptic quality" in done.stdout
    loaded = Model.load(path)
    assert loaded.recipe.task == "instances"
    assert loaded.labels.kind == "binary"

    printed = septa("predict", path, data / "images", "-o", output, "--tta", 3, "--prune", 1, "--overlay").stdout
    assert "6 images with" in printed
    assert "task instances" in printed
    counts = {}
    for name in "abcdef":
        ids = np.asarray(Image.open(output / f"{name}.png"))
        image = np.asarray(Image.open(data / "images" / f"{name}.png"))
        np.testing.assert_array_equal(ids, loaded.prune(1).segment(image, tta=3))
        counts[name] = ids.max(), scipy.ndimage.label(Image.open(data / "labels" / f"{name}.png"))[1]
        assert len(np.unique(ids)) == ids.max() + 1
        assert (output / "overlays" / f"{name}.png").is_file()

    done = septa("evaluate", output, data / "labels", "--task", "instances", "--json", scores)
    assert "Accuracy (AP), mean of IoU 0.5 to 0.95" in done.stdout
    found = json.loads(scores.read_text(encoding="utf-8"))
    for image in found["images"]:
        assert (image["objects"]["prediction_count"], image["objects"]["truth_count"]) == counts[image["name"]]

    every = tmp_path / "every.json"
    septa("evaluate", path, data, "--all", "--tta", 3, "--prune", 1, "--json", every)
    more = json.loads(every.read_text(encoding="utf-8"))
    # Label files hold no confidence.
    assert found.pop("calibration") == {}
    assert more.pop("calibration")["objects"] == sum(image["objects"]["prediction_count"] for image in more["images"])
    assert more == found
