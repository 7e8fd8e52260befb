from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch.nn import functional

from septa.data.folder import find_pairs
from septa.data.samples import Examples
from septa.images.normalize import Normalization
from septa.images.write import write_image, write_labels
from septa.inference import tiling
from septa.labels.mapping import LabelMapping
from septa.labels.object_labels import ObjectLabels
from septa.model import Model, build_net
from septa.recipe import Recipe
from septa.tasks.instances import Instances
from septa.tasks.semantic import Semantic
from septa.training.validate import validate

CPU = torch.device("cpu")
NORMALIZATION = Normalization("dataset", (100.0,), (50.0,))


@pytest.fixture
def net() -> Any:
    torch.manual_seed(0)
    net = build_net(Recipe().with_overrides(["net.width=4", "net.depth=1"]), 1, 3)
    for parameter in net.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return net


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    """Write three images of different sizes with classes 0, 1, 2 and ignored pixels; the last lacks class 2."""
    rng = np.random.default_rng(0)
    for index, size in enumerate([(20, 31), (64, 40), (9, 9)]):
        write_image(tmp_path / "images" / f"{index}.png", rng.integers(0, 255, (1, *size)).astype(np.uint8))
        labels_yx = rng.choice([0, 1, 2, 255] if index < 2 else [0, 1, 255], size)
        write_labels(tmp_path / "labels" / f"{index}.png", labels_yx)
    mapping = LabelMapping("index", ("background", "a", "b"), (0, 1, 2), 255)
    return Examples(find_pairs(tmp_path).pairs, mapping, channels=1, memory=2**20)


def make_model(net: Any, examples: Examples, *settings: str) -> Model:
    recipe = Recipe().with_overrides(["net.width=4", "net.depth=1", *settings])
    return Model(net=net, channels=1, labels=examples.labels, normalization=NORMALIZATION, recipe=recipe)


def compute_whole_logits(net: Any, image_cyx: np.ndarray) -> torch.Tensor:
    net.eval()
    with torch.inference_mode():
        logits_bkyx = net(torch.from_numpy((image_cyx.astype(np.float32) - 100) / 50)[None])
    net.train()
    return logits_bkyx


@pytest.mark.parametrize("tile", [None, 24])
def test_scores_of_whole_images_are_averaged(
    net: Any, examples: Examples, tile: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tile is not None:
        monkeypatch.setattr(tiling, "choose_tile", lambda **_: tile)
    dice_nk, losses = [], []
    for index in range(3):
        example = examples[index]
        logits_bkyx = compute_whole_logits(net, example.image_cyx)
        predicted_yx = logits_bkyx[0].argmax(0).numpy()
        valid_yx = example.labels_yx >= 0
        found = []
        for k in range(3):
            truth, prediction = (example.labels_yx == k) & valid_yx, (predicted_yx == k) & valid_yx
            total = truth.sum() + prediction.sum()
            found.append(2 * (truth & prediction).sum() / total if total else 1.0)
        dice_nk.append(found)
        truth_byx = torch.from_numpy(example.labels_yx).long()[None]
        losses.append(functional.cross_entropy(logits_bkyx, truth_byx, ignore_index=-1).item())
    result = validate(make_model(net, examples, "loss.dice=0"), examples, CPU)
    assert result.dice == pytest.approx(np.mean(dice_nk, axis=0))
    assert result.score == pytest.approx(np.mean(dice_nk, axis=0)[1:].mean())
    if tile is None:
        assert result.loss == pytest.approx(np.mean(losses), rel=1e-5)
    else:  # the mean over tiles gives ignored pixels a slightly different weight
        assert result.loss == pytest.approx(np.mean(losses), rel=0.05)


def test_all_classes_count_where_they_overlap(tmp_path: Path, net: Any) -> None:
    rng = np.random.default_rng(1)
    masks_kyx = rng.integers(0, 2, (3, 16, 16)).astype(np.uint8)
    write_image(tmp_path / "images" / "0.png", rng.integers(0, 255, (1, 16, 16)).astype(np.uint8))
    write_image(tmp_path / "labels" / "0.tif", masks_kyx)
    mapping = LabelMapping("multilabel", ("a", "b", "c"), (), None)
    examples = Examples(find_pairs(tmp_path).pairs, mapping, channels=1, memory=2**20)
    predicted_kyx = (compute_whole_logits(net, examples[0].image_cyx)[0] > 0).numpy()
    expected = [2 * (p & (m == 1)).sum() / (p.sum() + m.sum()) for p, m in zip(predicted_kyx, masks_kyx)]
    result = validate(make_model(net, examples, "loss.cross_entropy=0", "loss.bce=1"), examples, CPU)
    assert result.dice == pytest.approx(expected)
    assert result.score == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("training", [True, False])
def test_the_net_keeps_its_mode_and_weights(net: Any, examples: Examples, training: bool) -> None:
    net.train(training)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    validate(make_model(net, examples), examples, CPU)
    assert net.training is training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# Instances -----------------------------------------------------------------------------------------------------------


def compute_average_precision(truth_yx: np.ndarray, predicted_yx: np.ndarray) -> float:
    """Compute the score of the 2018 Data Science Bowl by its definition, from sets of pixels."""
    counted = truth_yx != -1
    true, predicted = (
        [frozenset(np.flatnonzero((ids_yx == value) & counted)) for value in np.unique(ids_yx[counted]) if value > 0]
        for ids_yx in (truth_yx, predicted_yx)
    )
    ious = [len(a & b) / len(a | b) for a in true for b in predicted]
    scores = []
    for percent in range(50, 100, 5):
        hits = sum(iou >= percent / 100 for iou in ious)
        every = len(true) + len(predicted) - hits
        scores.append(hits / every if every else 1.0)
    return float(np.mean(scores))


@pytest.fixture
def squares(tmp_path: Path) -> Examples:
    """Write two images of bright squares and one without any; ids have gaps, two squares touch, a strip is ignored."""
    rng = np.random.default_rng(3)
    for index in range(3):
        ids_yx = np.zeros((50, 70), np.int32)
        for number in range(6 if index < 2 else 0):
            y, x = 14 * (number // 3) + 2 + 9 * index, 22 * (number % 3) + 2
            ids_yx[y : y + 11, x : x + 20 - 3 * number] = 300 + 7 * number
        ids_yx[2 + 9 * index : 13 + 9 * index, 10:22][ids_yx[2 + 9 * index : 13 + 9 * index, 10:22] > 0] = 999
        shown_yx = ids_yx > 0
        shown_yx[:, 31:33], shown_yx[44:, 50:66] = False, True  # one object is split, one missed, one false
        image_yx = 60 + 110 * shown_yx + rng.normal(0, 12, ids_yx.shape)
        ids_yx[45:, :30] = 65_000
        write_image(tmp_path / "images" / f"{index}.png", image_yx.clip(0, 255).astype(np.uint8)[None])
        write_labels(tmp_path / "labels" / f"{index}.png", ids_yx)
    mapping = LabelMapping("instances", ("background", "object"), (0,), 65_000)
    return Examples(find_pairs(tmp_path).pairs, mapping, channels=1, memory=2**20, objects=True)


@pytest.fixture
def threshold() -> Any:
    """Make a net that finds bright pixels: its logits are the blurred image."""
    torch.manual_seed(0)
    net = build_net(Recipe().with_overrides(["net.width=4", "net.depth=1", "net.norm=none"]), 1, 2)
    for parameter in net.parameters():
        parameter.data.zero_()
    net.encoder.get_submodule("0").conv1.weight.data[0, 0, 1, 1] = 1
    net.encoder.get_submodule("0").conv2.weight.data[0, 0, 1, 1] = 1
    net.decoder["0"].conv1.weight.data[0, 0, 1, 1] = 1
    net.decoder["0"].conv2.weight.data[0, 0, 1, 1] = 1
    net.head.weight.data[1, 0] = 1
    net.head.bias.data[:] = torch.tensor([0.3, 0.0])
    return net


@pytest.mark.parametrize("tile", [None, 24])
def test_instances_are_scored_as_objects_of_the_whole_image(
    threshold: Any, squares: Examples, tile: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tile is not None:
        monkeypatch.setattr(tiling, "choose_tile", lambda **_: tile)
    model = make_model(threshold, squares, "net.norm=none", "task=instances", "loss.dice=0")
    scores, dices, counts = [], [], []
    for index in range(3):
        example = squares[index]
        foreground_yx = compute_whole_logits(threshold, example.image_cyx)[0].argmax(0).numpy()
        regions_yx, count = scipy.ndimage.label(foreground_yx)
        scores.append(compute_average_precision(example.labels_yx, regions_yx))
        counts.append((count, len(np.unique(example.labels_yx))))
        counted = example.labels_yx != -1
        both = ((example.labels_yx > 0) & (foreground_yx > 0))[counted].sum()
        either = ((example.labels_yx > 0)[counted].sum()) + (foreground_yx > 0)[counted].sum()
        dices.append(2 * both / either if either else 1.0)
    assert counts[0][0] > 2
    result = validate(model, squares, CPU)
    assert result.score == pytest.approx(np.mean(scores))
    assert result.dice[1] == pytest.approx(np.mean(dices))
    assert 0.1 < result.score < result.dice[1]
    if tile is not None:
        assert len(model.plan(50, 70)) > 1


def test_the_loss_of_instances_is_that_of_the_seamed_target(threshold: Any, squares: Examples) -> None:
    plain = validate(make_model(threshold, squares, "net.norm=none", "task=instances", "loss.dice=0"), squares, CPU)
    losses = []
    for index in range(3):
        example = squares[index]
        ids_yx = example.labels_yx
        for steps in (((0, 1), (1, 0)), ((1, -1), (1, 1))):
            cut_yx = ids_yx.copy()
            for y, x in np.argwhere(ids_yx > 0):
                for row, column in ((y + dy, x + dx) for dy, dx in steps):
                    if ids_yx[row, column] > 0 and ids_yx[row, column] != ids_yx[y, x]:
                        cut_yx[y, x] = 0
            ids_yx = cut_yx
        target_yx = np.minimum(ids_yx, 1)
        logits_bkyx = compute_whole_logits(threshold, example.image_cyx)
        target_byx = torch.from_numpy(target_yx).long()[None]
        losses.append(functional.cross_entropy(logits_bkyx, target_byx, ignore_index=-1).item())
    assert plain.loss == pytest.approx(np.mean(losses), rel=1e-5)
    border = ["loss.border_weight=10", "loss.border_sigma=4"]
    weighted = validate(
        make_model(threshold, squares, "net.norm=none", "task=instances", "loss.dice=0", *border), squares, CPU
    )
    # Both validations have the same logits, so the scores are equal bit for bit.
    assert weighted.score == plain.score
    assert weighted.loss != pytest.approx(plain.loss, rel=0.02)


@pytest.mark.parametrize("tile", [None, 24])
def test_the_loss_of_objects_with_classes_is_summed_over_tiles(
    squares: Examples, tile: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These targets have two planes, one of objects and one of their classes."""
    if tile is not None:
        monkeypatch.setattr(tiling, "choose_tile", lambda **_: tile)
    torch.manual_seed(1)
    settings = ("net.norm=none", "task=instances", "net.width=4", "net.depth=1")
    net = build_net(Recipe().with_overrides(settings), 1, 2 + 2)
    labels = LabelMapping("instances", ("background", "a", "b"), (0, 1, 2), 65_000)
    one = squares[0]
    objects = ObjectLabels.from_class_map(one.labels_yx, np.where(one.labels_yx > 0, 1 + one.labels_yx % 2, 0))
    examples = [replace(one, labels_yx=objects.ids_yx, class_of_id=objects.class_of_id)]
    model = replace(make_model(net, squares, *settings), labels=labels)
    task, terms = model.task, model.recipe.loss
    target_yx, _ = task.encode(objects.ids_yx, terms, class_of_id=objects.class_of_id)
    assert target_yx.shape == (2, 50, 70)
    logits_bkyx = compute_whole_logits(net, one.image_cyx)
    expected = 0.0
    tiles = model.plan(50, 70)
    assert (len(tiles) > 1) == (tile is not None)
    for part in tiles:
        y, x = part.core
        loss = task.loss(logits_bkyx[..., y, x], torch.from_numpy(target_yx[:, y, x])[None], terms).item()
        expected += loss * (y.stop - y.start) * (x.stop - x.start) / (50 * 70)
    assert validate(model, examples, CPU).loss == pytest.approx(expected, rel=1e-5)  # type: ignore[arg-type]


def test_the_score_of_an_image_depends_on_the_task() -> None:
    truth_yx = np.array([[5, 5, 0, 9, 9, 0, -1]], np.int32)
    merged_yx = np.array([[1, 1, 1, 1, 1, 0, 1]], np.int32)
    score, dice = Instances().score(truth_yx, merged_yx)
    assert score == compute_average_precision(truth_yx, merged_yx) == 0
    assert dice == pytest.approx((2 / 3, 8 / 9))
    split_yx = np.array([[1, 1, 0, 2, 3, 0, 0]], np.int32)
    score, dice = Instances().score(truth_yx, split_yx)
    # At IoU 0.5 one half matches the object, above it none does; the other half is a false object.
    assert score == pytest.approx((2 / 3 + 9 * 1 / 4) / 10)
    assert dice == (1.0, 1.0)
    score, dice = Semantic(2).score(np.minimum(truth_yx, 1), np.minimum(merged_yx, 1))
    assert score == dice[1] == pytest.approx(8 / 9)
