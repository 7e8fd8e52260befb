"""Every way to segment an image reports features that are unlike those of the training images."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from septa.errors import ModelError, SeptaWarning
from septa.evaluation import evaluate
from septa.images import write_image, write_labels
from septa.images.normalize import Normalization
from septa.inference import SingleImageEngine, combine_features
from septa.labels.mapping import LabelMapping
from septa.model import Model, PredictionOptions, build_net
from septa.notices import Notices
from septa.prediction import Options, segment_files
from septa.recipe import Recipe
from septa.streaming import StreamInput, StreamRequest, StreamStarted, stream

pytestmark = pytest.mark.usefixtures("one_thread")

UNLIKE = (
    r"the image is unlike the training images: it is {} times as far from them as they are from each other\. "
    r"Look at its labels, or train on such images too\.$"
)
NUMBER = r"\d[\d.]*"


def draw(seed: int, size: tuple[int, int] = (96, 112)) -> np.ndarray:
    """Draw light discs on a dark ground, ``(1, Y, X)``, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    shape = np.zeros(y.shape, bool)
    for _ in range(round(y.size / 800)):
        shape |= (y - rng.integers(size[0])) ** 2 + (x - rng.integers(size[1])) ** 2 < rng.integers(5, 9) ** 2
    return np.clip(20 + 150 * shape + rng.normal(0, 4, y.shape), 0, 255).astype(np.uint8)[None]


def draw_stripes(seed: int, size: tuple[int, int] = (96, 112)) -> np.ndarray:
    """Draw fine stripes with as many light as dark pixels, ``(1, Y, X)``, uint8."""
    y, x = np.mgrid[: size[0], : size[1]]
    wave = np.sin((y + np.random.default_rng(seed).uniform(1, 2) * x) * 1.5)
    return np.clip(95 + 75 * wave, 0, 255).astype(np.uint8)[None]


@pytest.fixture(scope="module")
def model() -> Model:
    """Return a model with random weights that knows the features of its training images, and not their values."""
    recipe = Recipe.parse({"task": "semantic", "net": {"width": 4, "depth": 2}})
    torch.manual_seed(0)
    new = Model(
        net=build_net(recipe, 1, 2).eval().requires_grad_(False),
        channels=1,
        labels=LabelMapping("index", ("background", "object"), (0, 9)),
        normalization=Normalization("dataset", (80.0,), (60.0,)),
        recipe=recipe,
    )
    return replace(
        new, training_features=combine_features([new.measure_features(draw(seed)).summarize() for seed in range(20)])
    )


def test_segment_warns_of_unlike_images_only(model: Model) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(40, 60):
            model.segment(draw(seed))
    for compute in (model.segment, model.logits, model.probabilities):
        with pytest.warns(SeptaWarning, match="^warning: image: " + UNLIKE.format(NUMBER)) as caught:
            compute(draw_stripes(0))
        assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("options", [{"tile": 64}, {"tta": 4}, {"engine": "torch+bf16"}, {}])
def test_tiles_versions_and_precision_do_not_change_the_verdict(model: Model, options: dict[str, object]) -> None:
    with pytest.warns(SeptaWarning, match="unlike") as caught:
        model.segment(draw_stripes(0))
    with pytest.warns(SeptaWarning, match="unlike") as again:
        model.segment(draw_stripes(0), **options)
    first, other = (float(re.findall(NUMBER, str(found[0].message))[0]) for found in (caught, again))
    assert other == pytest.approx(first, rel=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.segment(draw(41), **options)


def test_other_engines_are_compared_by_a_sample(model: Model) -> None:
    passes = []

    def compute(image_cyx: np.ndarray) -> np.ndarray:
        passes.append(image_cyx.shape)
        return np.zeros((2, *image_cyx.shape[1:]), np.float32)

    with pytest.warns(SeptaWarning, match=UNLIKE.format(NUMBER)):
        model.segment(draw_stripes(0), engine=SingleImageEngine(compute))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.segment(draw(41, (300, 320)), engine=SingleImageEngine(compute))
    assert len(passes) == 2


def test_torch_needs_no_second_pass(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Model, "measure_features", refuse)
    with pytest.warns(SeptaWarning, match=UNLIKE.format(NUMBER)):
        model.segment(draw_stripes(0))


def test_a_model_without_features_compares_nothing(model: Model) -> None:
    old = replace(model, training_features=None)
    assert old.make_sums() is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        old.segment(draw_stripes(0))


def test_the_model_file_keeps_the_features(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.septa")
    read = Model.load(tmp_path / "m.septa")
    assert model.training_features is not None
    assert read.training_features is not None
    assert read.training_features.images == 20
    summary = model.measure_features(draw_stripes(0)).summarize()
    distances = [features.find_distance(summary) for features in (model.training_features, read.training_features)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-2)
    wrong = combine_features(list(np.random.default_rng(0).normal(0, 1, (9, 8))))
    replace(model, training_features=wrong).save(tmp_path / "wrong.septa")
    with pytest.raises(ModelError, match="the training features have 8 values, not 24"):
        Model.load(tmp_path / "wrong.septa")


def test_files_share_one_line_with_the_range_of_distances(model: Model, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.tif" for name in "abc"]
    for path, image in zip(paths, (draw_stripes(0), draw(41), draw_stripes(1)), strict=True):
        write_image(path, image)
    notices = Notices()
    list(segment_files(model, paths, Options(output=tmp_path / "out"), notices))
    (line,) = notices.lines()
    assert line.startswith(f"warning: {paths[0]}, {paths[2]}: ")
    assert re.search(UNLIKE.format(f"{NUMBER}( to {NUMBER})?"), line)


def test_evaluate_reports_too(model: Model, tmp_path: Path) -> None:
    for name, image in (("a", draw(41)), ("b", draw_stripes(0))):
        write_image(tmp_path / "images" / f"{name}.tif", image)
        write_labels(tmp_path / "labels" / f"{name}.tif", (image[0] > 100) * np.uint8(9))
    (note,) = (note for note in evaluate(model, tmp_path).notes if "unlike" in note)
    assert note.startswith(f"warning: {tmp_path / 'images' / 'b.tif'}: ")


@pytest.mark.parametrize("size", [(96, 112), (1100, 1000)])
def test_stores_report_too(model: Model, tmp_path: Path, size: tuple[int, int]) -> None:
    model.save(tmp_path / "m.septa")
    usual = np.tile(draw(41), (1, 1 + size[0] // 96, 1 + size[1] // 112))[:, : size[0], : size[1]]
    for name, image, expected in (("a", usual, 0), ("b", draw_stripes(0, size), 1)):
        write_image(tmp_path / f"{name}.tif", image)
        request = StreamRequest(
            model=tmp_path / "m.septa",
            input=StreamInput(str(tmp_path / f"{name}.tif")),
            output=tmp_path / f"{name}.ome.tif",
            device="cpu",
        )
        events = stream(request)
        started = next(event for event in events if isinstance(event, StreamStarted))
        events.close()
        assert sum(bool(re.search(UNLIKE.format(NUMBER), note)) for note in started.notes) == expected


def test_large_images_are_measured_in_windows(model: Model) -> None:
    image = np.tile(draw(41), (1, 7, 4))
    whole = model.measure_features(image, side=700).summarize()
    sample = model.measure_features(image, side=128).summarize()
    assert not np.array_equal(whole, sample)
    assert np.abs(whole - sample).max() < 0.2 * whole.max()


def test_sums_are_filled_once_for_all_versions(model: Model) -> None:
    options = PredictionOptions(tta=8, sums=model.make_sums())
    once = PredictionOptions(sums=model.make_sums())
    model.compute_logits(draw(0), options)
    model.compute_logits(draw(0), once)
    assert options.sums
    assert once.sums
    assert np.array_equal(options.sums.summarize(), once.sums.summarize())
