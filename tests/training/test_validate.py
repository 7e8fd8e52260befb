from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from septa.data.folder import find_pairs
from septa.data.labels import LabelMapping
from septa.data.samples import Examples
from septa.images.normalize import Normalization
from septa.images.write import write_image, write_labels
from septa.model import build_net
from septa.recipe import Loss, Recipe
from septa.tasks.semantic import Semantic
from septa.training import validate as module
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
    """Three images of different sizes with classes 0, 1, 2 and ignored pixels; class 2 is not in the last."""
    rng = np.random.default_rng(0)
    for index, size in enumerate([(20, 31), (64, 40), (9, 9)]):
        write_image(tmp_path / "images" / f"{index}.png", rng.integers(0, 255, (1, *size)).astype(np.uint8))
        labels_yx = rng.choice([0, 1, 2, 255] if index < 2 else [0, 1, 255], size)
        write_labels(tmp_path / "labels" / f"{index}.png", labels_yx)
    mapping = LabelMapping("index", ("background", "a", "b"), (0, 1, 2), 255)
    return Examples(find_pairs(tmp_path).pairs, mapping, 1, 2**20)


def whole_logits(net: Any, image_cyx: np.ndarray) -> torch.Tensor:
    net.eval()
    with torch.inference_mode():
        logits_bkyx = net(torch.from_numpy((image_cyx.astype(np.float32) - 100) / 50)[None])
    net.train()
    return logits_bkyx


@pytest.mark.parametrize("tile", [None, 24])
def test_scores_are_means_over_images_of_whole_images(
    net: Any, examples: Examples, tile: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tile is not None:
        monkeypatch.setattr(module, "auto_tile", lambda **_: tile)
    dice_nk, losses = [], []
    for index in range(3):
        example = examples[index]
        logits_bkyx = whole_logits(net, example.image_cyx)
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
    terms = Loss(dice=0)
    result = validate(net, Semantic(3), terms, NORMALIZATION, examples, CPU)
    assert result.dice == pytest.approx(np.mean(dice_nk, axis=0))
    assert result.score == pytest.approx(np.mean(dice_nk, axis=0)[1:].mean())
    if tile is None:
        assert result.loss == pytest.approx(np.mean(losses), rel=1e-5)
    else:  # the mean over tiles weighs ignored pixels a little otherwise
        assert result.loss == pytest.approx(np.mean(losses), rel=0.05)


def test_all_classes_count_where_they_overlap(tmp_path: Path, net: Any) -> None:
    rng = np.random.default_rng(1)
    masks_kyx = rng.integers(0, 2, (3, 16, 16)).astype(np.uint8)
    write_image(tmp_path / "images" / "0.png", rng.integers(0, 255, (1, 16, 16)).astype(np.uint8))
    write_image(tmp_path / "labels" / "0.tif", masks_kyx)
    mapping = LabelMapping("multilabel", ("a", "b", "c"), (), None)
    examples = Examples(find_pairs(tmp_path).pairs, mapping, 1, 2**20)
    predicted_kyx = (whole_logits(net, examples[0].image_cyx)[0] > 0).numpy()
    expected = [2 * (p & (m == 1)).sum() / (p.sum() + m.sum()) for p, m in zip(predicted_kyx, masks_kyx)]
    terms = Loss(cross_entropy=0, bce=1)
    result = validate(net, Semantic(3, multilabel=True), terms, NORMALIZATION, examples, CPU)
    assert result.dice == pytest.approx(expected)
    assert result.score == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("training", [True, False])
def test_the_net_is_left_as_it_was(net: Any, examples: Examples, training: bool) -> None:
    net.train(training)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    validate(net, Semantic(3), Loss(), NORMALIZATION, examples, CPU)
    assert net.training is training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
