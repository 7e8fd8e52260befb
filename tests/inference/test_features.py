"""Sums of features do not depend on the tiles, and distances from the training images report few of their kind."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from septa.images import cut_mirrored
from septa.images.normalize import Normalization
from septa.inference import FeatureSums, TrainingFeatures, combine_features, make_engine, plan_tiles_for, predict_tiles
from septa.inference._torch import compute_statistics
from septa.inference.ensemble import Averaging, EnsembleEngine
from septa.inference.protocol import SingleImageEngine, run_with_statistics
from septa.inference.training_features import FEWEST_IMAGES
from septa.nets import UNet

pytestmark = pytest.mark.usefixtures("one_thread")
PLAIN = Normalization("dataset", (0.0,), (1.0,))


def measure(net: UNet, image: np.ndarray, tile: int | None) -> np.ndarray:
    sums = FeatureSums(net)
    tiles = plan_tiles_for(net, *image.shape[1:], tile)
    read = lambda begin, end: cut_mirrored(image, begin, end)  # noqa: E731
    predict_tiles(make_engine(net), read, PLAIN, tiles, lambda core, logits: None, sums)
    return sums.summarize()


@settings(max_examples=20)
@given(height=st.integers(9, 150), width=st.integers(9, 150), seed=st.integers(0, 99))
def test_sums_do_not_depend_on_the_tiles(height: int, width: int, seed: int) -> None:
    net = NETS["same"]
    image = np.random.default_rng(seed).normal(0, 1, (1, height, width)).astype(np.float32)
    assert np.allclose(measure(net, image, 64), measure(net, image, None), rtol=1e-4, atol=1e-5)


def make_nets() -> dict[str, UNet]:
    torch.manual_seed(0)
    return {padding: UNet(1, 2, depth=2, width=4, padding=padding, norm="none").eval() for padding in ("same", "valid")}


NETS = make_nets()


def test_a_valid_net_depends_little_on_the_tiles() -> None:
    net = NETS["valid"]
    image = np.random.default_rng(0).normal(0, 1, (1, 150, 170)).astype(np.float32)
    whole, tiled = measure(net, image, None), measure(net, image, net.input_size(40))
    assert np.abs(whole - tiled).max() < 0.05 * whole.max()


def test_the_summary_is_that_of_the_features() -> None:
    net = NETS["same"]
    image = np.random.default_rng(3).normal(0, 1, (1, 64, 64)).astype(np.float32)
    with torch.inference_mode():
        features = net.encoder(torch.from_numpy(image)[None])[:2]
    every_second = [feature[0, :, ::2, ::2].reshape(feature.shape[1], -1).double() for feature in features]
    means = torch.cat([part.mean(1) for part in every_second]).numpy()
    deviations = torch.cat([part.std(1, correction=0) for part in every_second]).numpy()
    assert np.allclose(measure(net, image, None), np.concatenate([means, deviations]), rtol=1e-4, atol=1e-5)


def test_engines_without_features_give_none() -> None:
    image = np.zeros((1, 32, 32), np.float32)
    assert [found for _, found in run_with_statistics(SingleImageEngine(lambda image: image), [image])] == [None]


def test_an_ensemble_gives_the_features_of_its_first_net() -> None:
    torch.manual_seed(1)
    nets = [UNet(1, 2, depth=2, width=4).eval() for _ in range(2)]
    images = [np.full((1, 32, 32), value, np.float32) for value in (0.0, 1.0, 2.0)]
    same = lambda logits: logits  # noqa: E731
    engine = EnsembleEngine([make_engine(net) for net in nets], Averaging(np.copy, same))
    found = list(run_with_statistics(engine, images))
    for image, (logits, statistics), expected in zip(images, found, engine.run_many(images), strict=True):
        assert np.array_equal(logits, expected)
        assert statistics is not None
        assert np.allclose(statistics, compute_statistics(nets[0], "cpu", image), atol=1e-6)


# Distances -----------------------------------------------------------------------------------------------------------


def draw(rng: np.random.Generator, images: int, values: int = 96, shift: float = 0.0) -> np.ndarray:
    """Draw features that vary along a few directions, as those of images from one source do."""
    axes = np.random.default_rng(0).normal(0, 1, (5, values))
    return 10 + rng.normal(0, 1, (images, 5)) @ axes + rng.normal(0, 0.3, (images, values)) + shift


@pytest.mark.parametrize("images", [5, 20, 150])
def test_few_images_of_the_same_kind_are_reported_and_foreign_ones_are(images: int) -> None:
    rng = np.random.default_rng(1)
    alarms, found = [], []
    for _ in range(10):
        features = combine_features(list(draw(rng, images)))
        assert features is not None
        alarms += [features.compare(summary) > 0 for summary in draw(rng, 50)]
        found += [features.compare(summary) > 0 for summary in draw(rng, 10, shift=25.0)]
    assert np.mean(alarms) <= (0.05 if images == 5 else 0.02)
    assert np.mean(found) >= 0.98


def test_the_distance_is_a_multiple_of_the_usual_one() -> None:
    rng = np.random.default_rng(2)
    features = combine_features(list(draw(rng, 60)))
    assert features is not None
    usual = [features.find_distance(summary) / features.typical for summary in draw(rng, 200)]
    assert 0.9 < np.exp(np.log(usual).mean()) < 1.1
    near, far = (features.compare(draw(rng, 1, shift=shift)[0]) for shift in (10.0, 100.0))
    assert features.limit / features.typical < near < far / 5


def test_too_few_or_constant_images_give_nothing() -> None:
    rows = list(draw(np.random.default_rng(0), FEWEST_IMAGES))
    assert combine_features(rows[:-1]) is None
    assert combine_features(rows) is not None
    assert combine_features([rows[0]] * 9) is None


@pytest.mark.parametrize(("images", "values"), [(4, 24), (30, 192), (128, 384), (128, 2048)])
def test_json_keeps_the_distances_in_at_most_64_kilobytes(images: int, values: int) -> None:
    rng = np.random.default_rng(0)
    features = combine_features(list(draw(rng, images, values)))
    assert features is not None
    text = json.dumps(features.to_json())
    assert len(text) <= 64_000
    read = TrainingFeatures.from_json(json.loads(text))
    for summary in draw(rng, 5, values, shift=3.0):
        assert read.find_distance(summary) == pytest.approx(features.find_distance(summary), rel=2e-2)
    assert json.dumps(read.to_json()) == text


@pytest.mark.parametrize(
    "change",
    [
        {"images": 1.5},
        {"images": 0},
        {"limit": float("nan")},
        {"limit": -1.0},
        {"spreads": [0.0] * 16},
        {"spreads": []},
        {"centre": "!"},
        {"centre": ""},
        {"axes": None},
    ],
)
def test_other_json_is_refused(change: dict[str, object]) -> None:
    features = combine_features(list(draw(np.random.default_rng(0), 30)))
    assert features is not None
    with pytest.raises(ValueError):
        TrainingFeatures.from_json({**features.to_json(), **change})
    with pytest.raises(ValueError, match="not the features of training images"):
        TrainingFeatures.from_json({})
