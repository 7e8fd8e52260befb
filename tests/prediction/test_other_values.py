"""Every way to segment an image compares it with the training images, and rescales or reports alike."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from septa.errors import ModelError, SeptaWarning
from septa.evaluation import evaluate
from septa.images import combine_values, measure_values, write_image, write_labels
from septa.images.normalize import Normalization
from septa.images.read import read_labels
from septa.labels.mapping import LabelMapping
from septa.model import Model, build_net
from septa.notices import Notices
from septa.prediction import Options, segment_files
from septa.recipe import Recipe
from septa.streaming import StreamInput, StreamRequest, StreamStarted, stream

pytestmark = pytest.mark.usefixtures("one_thread")

RESCALED = "the values are 16 bit where training had 8 bit; they are divided by 257"


def draw(seed: int) -> np.ndarray:
    """Draw light discs on a dark ground, ``(1, Y, X)``, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :112]
    shape = np.zeros(y.shape, bool)
    for _ in range(12):
        shape |= (y - rng.integers(96)) ** 2 + (x - rng.integers(112)) ** 2 < rng.integers(5, 9) ** 2
    return np.clip(20 + 150 * shape + rng.normal(0, 4, y.shape), 0, 255).astype(np.uint8)[None]


@pytest.fixture
def model() -> Model:
    """Return a model whose labels depend on the scale of the values, and which knows the values of its training."""
    recipe = Recipe.parse({"task": "semantic", "net": {"width": 2, "depth": 1}})
    torch.manual_seed(0)
    net = build_net(recipe, 1, 2).eval().requires_grad_(False)
    return Model(
        net=net,
        channels=1,
        labels=LabelMapping("index", ("background", "object"), (0, 9)),
        normalization=Normalization("dataset", (80.0,), (60.0,)),
        recipe=recipe,
        training_values=combine_values([measure_values(draw(seed)) for seed in range(8)], 1),
    )


def test_segment_rescales_and_warns(model: Model) -> None:
    image = draw(99)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = model.logits(image)
    with pytest.warns(SeptaWarning, match=rf"^note: image: {RESCALED}\.$") as caught:
        found = model.logits(image.astype(np.uint16) * 257)
    assert caught[0].filename == __file__
    assert np.abs(found - expected).max() < 1e-4
    with pytest.warns(SeptaWarning, match="floats from 0 to 1"):
        assert np.array_equal(model.segment(image / 255, tile=32), model.segment(image))
    with pytest.warns(SeptaWarning, match="looks inverted"):
        model.probabilities(255 - image)


def test_a_model_without_training_values_compares_nothing(model: Model) -> None:
    old = replace(model, training_values=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        old.segment(np.zeros((1, 40, 40), np.uint8))


def test_the_model_file_keeps_the_values(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.septa")
    assert Model.load(tmp_path / "m.septa").training_values == model.training_values
    assert model.training_values is not None
    doubled = {
        name: getattr(model.training_values, name) * 2 for name in ("contrast", "level", "median", "tilt", "constant")
    }
    replace(model, training_values=replace(model.training_values, **doubled)).save(tmp_path / "two.septa")
    with pytest.raises(ModelError, match="the training values are for 2 channels, not 1"):
        Model.load(tmp_path / "two.septa")


def test_files_get_one_line_for_each_kind(model: Model, tmp_path: Path) -> None:
    image = draw(99)
    images = {
        "a": image,
        "b": image.astype(np.uint16) * 257,
        "c": image.astype(np.uint16) * 257,
        "d": np.full_like(image, 7),
        "e": np.random.default_rng(0).normal(60, 5, image.shape).astype(np.uint8),
    }
    paths = [tmp_path / f"{name}.tif" for name in images]
    for path, array in zip(paths, images.values(), strict=True):
        write_image(path, array)
    notices = Notices()
    list(segment_files(model, paths, Options(output=tmp_path / "out"), notices))
    blank = "the image is blank: all its pixels have one value, so objects in it are false. Leave it out."
    noise = "the image holds nothing but noise, so objects in it are probably false. Check it, or leave it out."
    assert notices.lines() == [
        f"note: {paths[1]}, {paths[2]}: {RESCALED}.",
        f"warning: {paths[3]}: {blank}",
        f"warning: {paths[4]}: {noise}",
    ]
    labels = [read_labels(tmp_path / "out" / path.name).array for path in paths[:3]]
    assert all(np.array_equal(one, other) for one, other in pairwise(labels))


def test_evaluate_compares_too(model: Model, tmp_path: Path) -> None:
    for folder, factor in (("8", 1), ("16", 257)):
        for seed in (98, 99):
            image = draw(seed)
            write_image(tmp_path / folder / "images" / f"{seed}.tif", image.astype(np.uint16) * factor)
            write_labels(tmp_path / folder / "labels" / f"{seed}.tif", (image[0] > 100) * np.uint8(9))
    expected, found = evaluate(model, tmp_path / "8"), evaluate(model, tmp_path / "16")
    assert found.summary == expected.summary
    assert any(RESCALED in note for note in found.notes)
    assert not any("values are" in note for note in expected.notes)


def test_stores_are_rescaled_as_files_are(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.septa")
    image = draw(99)
    write_image(tmp_path / "a.tif", image.astype(np.uint16) * 257)
    source = StreamInput(str(tmp_path / "a.tif"))
    output = tmp_path / "o.ome.tif"
    events = list(stream(StreamRequest(model=tmp_path / "m.septa", input=source, output=output, device="cpu")))
    (started,) = (event for event in events if isinstance(event, StreamStarted))
    assert any(RESCALED in note for note in started.notes)
    assert started.plan.normalizations == {"": model.normalization.rescale(1 / 257)}
    assert np.array_equal(read_labels(output).array, model.as_written(model.segment(image)))
