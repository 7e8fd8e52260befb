"""The workflow: the normalised input of the net, and trainings of objects and resized images from end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from septa.evaluation import evaluate
from septa.images.read import read_image, read_labels
from septa.images.write import write_image, write_labels
from septa.metrics.objects import score_objects
from septa.model import Model
from septa.synthetic.dataset import write_dataset
from septa.tasks.instances import Instances
from septa.training.finish import TrainingDone
from septa.training.plan import TrainingRequest
from septa.training.run import train, train_steps

ONE_STEP = ("training.steps=1", "training.validations=1", "net.width=2", "net.depth=1")
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
"""Mean and standard deviation of red, green and blue over ImageNet, as shares of the full range."""


def write_images(folder: Path, dtype: Any, channels: int) -> Path:
    """Write rectangles on noise; the images have different ranges, far from the limits of the dtype."""
    top = {"uint8": 200, "uint16": 9000, "float32": 3.5}[np.dtype(dtype).name]
    for index in range(5):
        rng = np.random.default_rng(index)
        labels_yx = np.zeros((40, 44), np.uint8)
        labels_yx[8 + index : 25, 10:30] = 255
        image_cyx = rng.uniform(0.1, 0.5, (channels, 40, 44)) + (labels_yx > 0) * (0.3 + 0.04 * index)
        name = f"{index}.tif" if np.dtype(dtype).kind == "f" else f"{index}.png"
        write_image(folder / "images" / name, (top * image_cyx).astype(dtype))
        write_labels(folder / "labels" / f"{index}.png", labels_yx)
    return folder


def find_full_scale(model: Model, images: Path) -> float:
    """Find the image value that becomes 1."""
    paths = [next(images.glob(f"{name}.*")) for name, _ in model.provenance["train"]]
    every = [np.array(read_image(path)) for path in paths]
    if every[0].dtype.kind == "u":
        return float(2 ** (8 * every[0].dtype.itemsize) - 1)
    tops_nc = [[np.percentile(plane_yx, 99.5) for plane_yx in image_cyx] for image_cyx in every]
    return float(np.median(tops_nc, axis=0).max())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_normalisation_by_the_range_of_the_dtype(
    dtype: str, channels: int, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    data = write_images(tmp_path / "data", dtype, channels)
    image_cyx = read_image(next((data / "images").glob("0.*")))
    for kind in ("unit", "imagenet"):
        settings = (*tiny, *ONE_STEP, f"data.normalization={kind}")
        model = train(data, tmp_path / f"{kind}.septa", overrides=settings)
        seen_cyx = Model.load(tmp_path / f"{kind}.septa").normalization.apply(image_cyx)
        share_cyx = image_cyx.astype(np.float64) / find_full_scale(model, data / "images")
        if kind == "unit":
            expected_cyx = share_cyx
            assert 0 <= seen_cyx.min() < seen_cyx.max() <= (1.2 if dtype == "float32" else 1)
        elif channels == 3:
            expected_cyx = (share_cyx - MEAN[:, None, None]) / DEVIATION[:, None, None]
        else:
            expected_cyx = (share_cyx - MEAN.mean()) / DEVIATION.mean()
        np.testing.assert_allclose(seen_cyx, expected_cyx, rtol=1e-4, atol=1e-5)
        assert model.recipe.data.normalization == kind


def test_objects_are_trained_from_labels_to_report(tmp_path: Path, tiny: tuple[str, ...]) -> None:
    write_dataset(tmp_path / "data", "cells", 5, (64, 64), 0)
    overrides = (*tiny, "training.lr=0.01", "training.steps=40", "loss.border_weight=5")
    *_, done = train_steps(TrainingRequest(data=tmp_path / "data", output=tmp_path / "m.septa", overrides=overrides))
    assert isinstance(done, TrainingDone)
    assert isinstance(done.model.task, Instances)
    ((name, _),) = done.model.provenance["validation"]
    truth_yx = read_labels(tmp_path / "data" / "labels" / f"{name}.tif").array
    found_yx = Model.load(done.path).segment(tmp_path / "data" / "images" / f"{name}.tif")
    score = score_objects(truth_yx.astype(np.int64), found_yx)
    assert score.prediction_count > 0
    spread = done.evaluation.objects["mean_accuracy"]
    assert spread["mean"] == pytest.approx(score.mean_accuracy)
    assert done.evaluation.objects["prediction_count"]["pooled"] == score.prediction_count
    assert done.model.provenance["scores"]["mean_accuracy"] == spread["mean"]
    markup = done.report.read_text(encoding="utf-8")
    assert "Panoptic quality" in markup
    assert f"score {score.mean_accuracy:.3f}" in markup
    rows = (tmp_path / "m-run" / "log.csv").read_text(encoding="utf-8").splitlines()
    column = rows[0].split(",").index("score")
    best = max(float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column])
    assert best <= score.mean_accuracy + 1e-4  # tuning never makes the score worse


def test_objects_of_binary_labels_are_their_connected_regions(
    data: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    model = train(data, tmp_path / "m.septa", overrides=(*tiny, "training.lr=0.01", "task=instances"))
    assert model.labels.kind == "binary"
    result = evaluate(model, data, every=True)
    assert result.class_names == ("background", "foreground")
    assert result.objects["truth_count"]["pooled"] > 8
    segmented_yx = model.segment(data / "images" / "im0.png")
    assert result.images[0].objects is not None
    assert result.images[0].objects.prediction_count == len(np.unique(segmented_yx)) - 1


def test_a_compiled_net_is_trained_like_a_plain_one(
    data: Path, tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[torch.nn.Module] = []
    compile_of = torch.compile

    def compile_eagerly(net: Any) -> Any:  # generated C++ code would round differently
        compiled.append(net)
        return compile_of(net, backend="eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    settings = (*tiny, "training.steps=4", "training.amp=off")
    plain, other = (
        train(data, tmp_path / f"{how}.septa", overrides=(*settings, f"training.compile={how}"))
        for how in ("false", "true")
    )
    torch._dynamo.reset()
    assert len(compiled) == 1
    # The eager backend runs the same kernels, so the weights are equal bit for bit.
    assert plain.weights_sha256 == other.weights_sha256


def test_resized_images_are_trained_and_scored(data: Path, tmp_path: Path, tiny: tuple[str, ...]) -> None:
    settings = (*tiny, "data.resize=[32, 40]", "training.steps=90", "training.lr=0.01", "training.ema=0.9")
    *_, done = train_steps(TrainingRequest(data=data, output=tmp_path / "m.septa", overrides=settings))
    assert done.model.recipe.data.resize == (32, 40)
    (name, _), *_ = done.model.provenance["validation"]
    assert done.model.segment(data / "images" / f"{name}.png").shape == (64, 64)
    at_its_size = evaluate(done.model, data).summary["dice"]
    assert min(at_its_size, done.evaluation.summary["dice"]) > 0.3
