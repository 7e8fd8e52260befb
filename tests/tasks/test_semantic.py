from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from septa.recipe import IGNORE, Loss
from septa.tasks.losses import binary_cross_entropy, cross_entropy, soft_dice
from septa.tasks.semantic import Semantic


def labels_byx(classes: int, multilabel: bool) -> torch.Tensor:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 2**classes if multilabel else classes, (2, 6, 5))
    labels[rng.random(labels.shape) < 0.2] = IGNORE
    return torch.tensor(labels)


@pytest.mark.parametrize(("classes", "multilabel"), [(2, False), (5, False), (1, True), (3, True), (31, True)])
def test_one_hot_planes_by_loops(classes: int, multilabel: bool) -> None:
    labels = labels_byx(classes, multilabel)
    planes = Semantic(classes, multilabel).one_hot(labels)
    assert planes.shape == (2, classes, 6, 5)
    assert planes.dtype == torch.float32
    for b, y, x in np.ndindex(2, 6, 5):
        label = int(labels[b, y, x])
        for k in range(classes):
            inside = label != IGNORE and bool(label >> k & 1 if multilabel else label == k)
            assert planes[b, k, y, x] == inside


@pytest.mark.parametrize(("classes", "multilabel"), [(2, False), (5, False), (1, True), (31, True)])
def test_decoding_sure_logits_gives_the_labels_back(classes: int, multilabel: bool) -> None:
    task = Semantic(classes, multilabel)
    labels = labels_byx(classes, multilabel).clamp(min=0)
    logits = (task.one_hot(labels) * 20 - 10).numpy()
    for one, expected in zip(logits, labels.numpy(), strict=True):
        decoded = task.decode(one)
        assert decoded.dtype == np.int32
        np.testing.assert_array_equal(decoded, expected)


def test_decoding_ties_takes_the_first_class_and_no_bit() -> None:
    ties = np.zeros((3, 1, 1), np.float32)
    assert Semantic(3).decode(ties).item() == 0
    assert Semantic(3, multilabel=True).decode(ties).item() == 0


@pytest.mark.parametrize("multilabel", [False, True])
def test_probabilities_by_loops(multilabel: bool) -> None:
    logits = np.random.default_rng(8).normal(0, 3, (3, 4, 5)).astype(np.float32)
    found = Semantic(3, multilabel).probabilities(logits)
    assert found.dtype == np.float32
    for y, x in np.ndindex(4, 5):
        scores = [math.exp(v) for v in logits[:, y, x].tolist()]
        expected = [s / (1 + s) if multilabel else s / sum(scores) for s in scores]
        np.testing.assert_allclose(found[:, y, x], expected, rtol=1e-5)


def test_probabilities_agree_with_decode() -> None:
    logits = np.random.default_rng(9).normal(0, 3, (4, 20, 20)).astype(np.float32)
    np.testing.assert_array_equal(Semantic(4).probabilities(logits).argmax(0), Semantic(4).decode(logits))
    bits = Semantic(4, multilabel=True).probabilities(logits) > 0.5
    np.testing.assert_array_equal(sum(bits[k] << k for k in range(4)), Semantic(4, multilabel=True).decode(logits))


@pytest.mark.parametrize("multilabel", [False, True])
def test_loss_is_the_weighted_sum_of_its_terms(multilabel: bool) -> None:
    task = Semantic(3, multilabel)
    labels = labels_byx(3, multilabel)
    logits, weights, class_weights = torch.randn(2, 3, 6, 5), torch.rand(2, 6, 5), torch.tensor([0.5, 1.0, 2.0])
    weighting = {"weights_byx": weights, "class_weights_k": class_weights}
    planes, valid = task.one_hot(labels), labels != IGNORE
    chances = logits.sigmoid() if multilabel else logits.softmax(1)
    bce = binary_cross_entropy(logits, planes, valid_byx=valid, **weighting)
    dice = soft_dice(chances, planes, valid_byx=valid, **weighting)
    entropy = torch.zeros(()) if multilabel else cross_entropy(logits, labels, **weighting)
    terms = Loss(cross_entropy=0.0 if multilabel else 0.7, bce=0.25, dice=2.0)
    expected = terms.cross_entropy * entropy + 0.25 * bce + 2 * dice
    torch.testing.assert_close(task.loss(logits, labels, terms, **weighting), expected)
    only = Loss(cross_entropy=0, bce=0, dice=2.0)
    torch.testing.assert_close(task.loss(logits, labels, only, **weighting), 2 * dice)


@pytest.mark.parametrize("multilabel", [False, True])
def test_all_ignored_costs_nothing_and_has_zero_gradient(multilabel: bool) -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    terms = Loss(cross_entropy=0 if multilabel else 1, bce=1, dice=1)
    loss = Semantic(2, multilabel).loss(logits, torch.full((1, 3, 3), IGNORE), terms)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_softmax_cross_entropy_of_overlapping_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"use loss\.bce"):
        Semantic(2, multilabel=True).check(Loss())
    Semantic(2, multilabel=True).check(Loss(cross_entropy=0, bce=1))
    Semantic(2).check(Loss())
