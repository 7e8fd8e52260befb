from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from septa.losses import binary_cross_entropy, cross_entropy, soft_dice
from septa.recipe import IGNORE

B, K, Y, X = 2, 3, 4, 5
Case = dict[str, Any]


def case(seed: int, *, ignore: bool, classes: bool, pixels: bool) -> Case:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, K, (B, Y, X))
    if ignore:
        target[rng.random(target.shape) < 0.3] = IGNORE
    return {
        "logits": rng.normal(0, 3, (B, K, Y, X)),
        "target": target,
        "planes": (rng.random((B, K, Y, X)) < 0.4).astype(float),
        "class_weights": rng.uniform(0, 2, K) if classes else None,
        "weights": rng.uniform(0, 5, (B, Y, X)) * (rng.random((B, Y, X)) < 0.8) if pixels else None,
    }


def options(given: Case, *, valid: bool) -> dict[str, Tensor | None]:
    found = {
        "class_weights_k": None if given["class_weights"] is None else torch.tensor(given["class_weights"]),
        "weights_byx": None if given["weights"] is None else torch.tensor(given["weights"]),
    }
    return {**found, "valid_byx": torch.tensor(given["target"] != IGNORE)} if valid else found


def pixel_weight(given: Case, b: int, y: int, x: int) -> float:
    if given["target"][b, y, x] == IGNORE:
        return 0.0
    return 1.0 if given["weights"] is None else float(given["weights"][b, y, x])


def class_weight(given: Case, k: int) -> float:
    return 1.0 if given["class_weights"] is None else float(given["class_weights"][k])


def naive_cross_entropy(given: Case) -> float:
    total = weight_sum = 0.0
    for b, y, x in np.ndindex(B, Y, X):
        k = given["target"][b, y, x]
        weight = pixel_weight(given, b, y, x) * (class_weight(given, k) if k != IGNORE else 0)
        scores = [math.exp(given["logits"][b, j, y, x]) for j in range(K)]
        total += weight * -math.log(scores[k] / sum(scores)) if weight else 0
        weight_sum += weight
    return total / weight_sum


def naive_binary_cross_entropy(given: Case) -> float:
    total = weight_sum = 0.0
    for b, k, y, x in np.ndindex(B, K, Y, X):
        weight = pixel_weight(given, b, y, x) * class_weight(given, k)
        p = 1 / (1 + math.exp(-given["logits"][b, k, y, x]))
        total += weight * -math.log(p if given["planes"][b, k, y, x] else 1 - p)
        weight_sum += weight
    return total / weight_sum


def naive_soft_dice(given: Case, smooth: float) -> float:
    total = weight_sum = 0.0
    for k in range(K):
        overlap = predicted = true = 0.0
        for b, y, x in np.ndindex(B, Y, X):
            weight = pixel_weight(given, b, y, x)
            p, t = 1 / (1 + math.exp(-given["logits"][b, k, y, x])), given["planes"][b, k, y, x]
            overlap, predicted, true = overlap + weight * p * t, predicted + weight * p, true + weight * t
        total += class_weight(given, k) * (1 - (2 * overlap + smooth) / (predicted + true + smooth))
        weight_sum += class_weight(given, k)
    return total / weight_sum


CASES = {
    "seed": st.integers(0, 10**6),
    "ignore": st.booleans(),
    "classes": st.booleans(),
    "pixels": st.booleans(),
}


@settings(max_examples=40, deadline=None)
@given(st.fixed_dictionaries(CASES))
def test_losses_equal_loops_over_pixels(settings: dict[str, Any]) -> None:
    given_case = case(**settings)
    logits, target = torch.tensor(given_case["logits"]), torch.tensor(given_case["target"])
    planes = torch.tensor(given_case["planes"])
    loss = cross_entropy(logits, target, **options(given_case, valid=False))
    assert loss.item() == pytest.approx(naive_cross_entropy(given_case), rel=1e-9)
    loss = binary_cross_entropy(logits, planes, **options(given_case, valid=True))
    assert loss.item() == pytest.approx(naive_binary_cross_entropy(given_case), rel=1e-9)
    for smooth in (1.0, 0.1):
        loss = soft_dice(logits.sigmoid(), planes, smooth=smooth, **options(given_case, valid=True))
        assert loss.item() == pytest.approx(naive_soft_dice(given_case, smooth), rel=1e-9)
        assert 0 <= loss.item() <= 1


def every_loss(logits: Tensor, target: Tensor, **weighting: Any) -> dict[str, Tensor]:
    planes = torch.stack([target == k for k in range(K)], 1).to(logits.dtype)
    valid = target != IGNORE
    return {
        "cross_entropy": cross_entropy(logits, target, **weighting),
        "bce": binary_cross_entropy(logits, planes, valid_byx=valid, **weighting),
        "dice": soft_dice(logits.softmax(1), planes, valid_byx=valid, **weighting),
    }


@pytest.mark.parametrize("how", ["ignored", "pixel weights", "class weights"])
def test_where_no_pixel_counts_loss_and_gradient_are_zero(how: str) -> None:
    logits = torch.randn(B, K, Y, X, requires_grad=True)
    target = torch.zeros(B, Y, X, dtype=torch.int64)
    weighting = {}
    if how == "ignored":
        target[:] = IGNORE
    elif how == "pixel weights":
        weighting = {"weights_byx": torch.zeros(B, Y, X)}
    else:
        weighting = {"class_weights_k": torch.zeros(K)}
    for name, loss in every_loss(logits, target, **weighting).items():
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert loss.item() == 0, name
        assert torch.equal(gradient, torch.zeros_like(gradient)), name


def test_ignored_pixels_have_no_gradient_and_others_have() -> None:
    logits = torch.randn(B, K, Y, X, requires_grad=True)
    target = torch.zeros(B, Y, X, dtype=torch.int64)
    target[:, :2] = IGNORE
    for name, loss in every_loss(logits, target).items():
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert not gradient[:, :, :2].any(), name
        assert (gradient[:, 0, 2:] < 0).all(), name


@pytest.mark.parametrize("size", [50.0, 1e4, 1e30])
def test_gradients_stay_finite_at_extreme_logits(size: float) -> None:
    target = torch.randint(0, K, (B, Y, X))
    target[0, 0, 0] = IGNORE
    logits = (torch.randint(0, 2, (B, K, Y, X)).float() * 2 - 1) * size
    logits.requires_grad_()
    for name, loss in every_loss(logits, target).items():
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert torch.isfinite(loss), name
        assert torch.isfinite(gradient).all(), name


def test_wrong_and_sure_costs_what_the_logit_says() -> None:
    logits = torch.tensor([[[[-1e4]], [[1e4]]]])
    assert cross_entropy(logits, torch.tensor([[[0]]])).item() == 2e4
    assert binary_cross_entropy(logits, torch.tensor([[[[1.0]], [[0.0]]]])).item() == 1e4


def test_a_weight_of_two_is_the_pixel_twice() -> None:
    logits, target = torch.randn(1, K, 1, 3), torch.tensor([[[0, 1, 2]]])
    weights = torch.tensor([[[1.0, 2.0, 1.0]]])
    twice = [0, 1, 1, 2]
    weighted = every_loss(logits, target, weights_byx=weights)
    repeated = every_loss(logits[..., twice], target[..., twice])
    for name in weighted:
        torch.testing.assert_close(weighted[name], repeated[name], msg=name)


def test_perfect_and_empty_dice_cost_nothing() -> None:
    planes = torch.zeros(1, 2, 3, 3)
    assert soft_dice(planes, planes).item() == 0
    planes[:, 0, :2] = 1
    assert soft_dice(planes, planes).item() == 0
    assert soft_dice(1 - planes, planes, smooth=1e-6).item() == pytest.approx(1, abs=1e-5)


def test_inputs_are_left_untouched() -> None:
    logits, target, weights = torch.randn(B, K, Y, X), torch.randint(-1, K, (B, Y, X)), torch.rand(B, Y, X)
    before = [x.clone() for x in (logits, target, weights)]
    every_loss(logits, target, weights_byx=weights)
    assert all(torch.equal(a, b) for a, b in zip(before, (logits, target, weights), strict=True))
