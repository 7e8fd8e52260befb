from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from septa.losses import binary_cross_entropy, cross_entropy, soft_dice
from septa.recipe import IGNORE, LossSettings
from septa.tasks.decoding import Decoding
from septa.tasks.semantic import Semantic
from septa.tasks.task import TaskMisfit


def labels_byx(classes: int, multilabel: bool) -> torch.Tensor:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 2**classes if multilabel else classes, (2, 6, 5))
    labels[rng.random(labels.shape) < 0.2] = IGNORE
    return torch.tensor(labels)


@pytest.mark.parametrize(("classes", "multilabel"), [(2, False), (5, False), (1, True), (3, True), (31, True)])
def test_one_hot_planes_by_loops(classes: int, multilabel: bool) -> None:
    labels = labels_byx(classes, multilabel)
    planes = Semantic(classes, multilabel).encode_one_hot(labels)
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
    logits = (task.encode_one_hot(labels) * 20 - 10).numpy()
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


@pytest.mark.parametrize("task", [Semantic(3), Semantic(2, sigmoid=True), Semantic(3, multilabel=True)], ids=str)
def test_distillation_by_loops(task: Semantic) -> None:
    """The cross entropy against other logits is smallest, and has no gradient, where both agree."""
    rng = torch.Generator().manual_seed(0)
    logits, expected = (torch.randn(2, task.outputs, 4, 5, generator=rng).double() * 3 for _ in range(2))
    total = 0.0
    for b, y, x in np.ndindex(2, 4, 5):
        own, other = (one[b, :, y, x].tolist() for one in (logits, expected))
        if task.multilabel or task.sigmoid:
            for given, wanted in zip(own, other, strict=True):
                p, q = 1 / (1 + math.exp(-given)), 1 / (1 + math.exp(-wanted))
                total -= (q * math.log(p) + (1 - q) * math.log(1 - p)) / task.outputs
        else:
            shares = [math.exp(wanted) / sum(map(math.exp, other)) for wanted in other]
            total -= sum(q * (given - math.log(sum(map(math.exp, own)))) for q, given in zip(shares, own, strict=True))
    assert task.distillation(logits, expected).item() == pytest.approx(total / 40)
    same = expected.clone().requires_grad_()
    task.distillation(same, expected).backward()
    assert same.grad is not None
    assert same.grad.abs().max() < 1e-9
    assert task.distillation(logits, expected) > task.distillation(expected, expected)


@settings(max_examples=60)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 40), st.integers(1, 40))
@pytest.mark.parametrize(
    "task", [Semantic(3), Semantic(2, sigmoid=True), Semantic(3, multilabel=True)], ids=["softmax", "sigmoid", "bits"]
)
def test_probabilities_do_not_depend_on_the_cut(task: Semantic, top: int, left: int, height: int, width: int) -> None:
    logits_kyx = np.random.default_rng(5).normal(0, 8, (task.outputs, 80, 80)).astype(np.float32)
    window = (slice(None), slice(top, top + height), slice(left, left + width))
    part_kyx = task.probabilities(np.ascontiguousarray(logits_kyx[window]))
    # Exact: objects are found in these values, and must not depend on where an image is cut.
    np.testing.assert_array_equal(part_kyx, task.probabilities(logits_kyx)[window])


def test_probabilities_of_extreme_logits_are_0_and_1() -> None:
    logits_kyx = np.array([[[-1000.0, 1000.0, 0.0]]], np.float32)
    np.testing.assert_array_equal(Semantic(1, multilabel=True).probabilities(logits_kyx), [[[0, 1, 0.5]]])
    np.testing.assert_array_equal(
        Semantic(2).probabilities(np.concatenate([logits_kyx, -logits_kyx])), [[[0, 1, 0.5]], [[1, 0, 0.5]]]
    )


def test_probabilities_agree_with_decode() -> None:
    logits = np.random.default_rng(9).normal(0, 3, (4, 20, 20)).astype(np.float32)
    np.testing.assert_array_equal(Semantic(4).probabilities(logits).argmax(0), Semantic(4).decode(logits))
    bits = Semantic(4, multilabel=True).probabilities(logits) > 0.5
    np.testing.assert_array_equal(sum(bits[k] << k for k in range(4)), Semantic(4, multilabel=True).decode(logits))


def make_walls(seed: float, reach: int = 0, *, sigmoid: bool = False) -> Semantic:
    return Semantic(2, sigmoid=sigmoid, walls=True, decoding=Decoding(min(seed, 0.5), seed, reach=reach))


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("seed", [0.05, 0.3, 0.5, 0.8, 0.95])
def test_regions_between_walls_are_where_their_probability_exceeds_the_seed(seed: float, sigmoid: bool) -> None:
    task = make_walls(seed, sigmoid=sigmoid)
    logits_kyx = np.random.default_rng(3).normal(0, 3, (task.outputs, 40, 50)).astype(np.float32)
    for one_kyx in (logits_kyx, task.as_logits(task.activations(logits_kyx))):
        above_yx = task.probabilities(one_kyx)[1].astype(float)
        clear_yx = np.abs(above_yx - seed) > 1e-6
        np.testing.assert_array_equal(task.decode(one_kyx)[clear_yx], (above_yx > seed)[clear_yx])
    if seed == 0.5 and not sigmoid:
        np.testing.assert_array_equal(task.decode(logits_kyx), logits_kyx.argmax(axis=0))


@pytest.mark.parametrize("reach", [1, 3])
def test_a_block_of_growing_regions_needs_its_margin(reach: int) -> None:
    task = make_walls(0.8, reach)
    noise_kyx = np.random.default_rng(4).normal(0, 4, (2, 90, 100))
    logits_kyx = ndimage.gaussian_filter(noise_kyx, (0, 2, 2)).astype(np.float32) * 6
    whole_yx = task.decode(logits_kyx)
    margin = task.block_margin
    assert margin == 4 * reach
    assert (whole_yx > make_walls(0.8).decode(logits_kyx)).sum() > 100
    for top, left in ((0, 0), (20, 30), (50, 60)):
        core = np.s_[top : top + 40, left : left + 40]
        first = max(0, top - margin), max(0, left - margin)
        window = np.s_[first[0] : top + 40 + margin, first[1] : left + 40 + margin]
        inner = np.s_[top - first[0] : top - first[0] + 40, left - first[1] : left - first[1] + 40]
        part_kyx = logits_kyx[(slice(None), *window)]
        ends = (first[0] == 0, window[0].stop >= 90, first[1] == 0, window[1].stop >= 100)
        block = task.label_block(part_kyx, inner, ends)
        assert block is not None
        assert block.facts is None
        np.testing.assert_array_equal(block.labels_yx, whole_yx[core])
        assert task.label_block(logits_kyx[(slice(None), *core)], np.s_[0:40, 0:40], (False,) * 4) is None


@pytest.mark.parametrize(("classes", "multilabel"), [(3, False), (2, True), (1, True)])
def test_walls_need_two_exclusive_classes(classes: int, multilabel: bool) -> None:
    with pytest.raises(TaskMisfit, match=r"semantic\.walls needs two exclusive classes, got \d") as raised:
        Semantic(classes, multilabel, walls=True)
    assert raised.value.remedy == "Set semantic.walls=false"


@pytest.mark.parametrize("multilabel", [False, True])
def test_loss_is_the_weighted_sum_of_its_terms(multilabel: bool) -> None:
    task = Semantic(3, multilabel)
    labels = labels_byx(3, multilabel)
    logits, weights, class_weights = torch.randn(2, 3, 6, 5), torch.rand(2, 6, 5), torch.tensor([0.5, 1.0, 2.0])
    weighting = {"weights_byx": weights, "class_weights_k": class_weights}
    planes, valid = task.encode_one_hot(labels), labels != IGNORE
    chances = logits.sigmoid() if multilabel else logits.softmax(1)
    bce = binary_cross_entropy(logits, planes, valid_byx=valid, **weighting)
    dice = soft_dice(chances, planes, valid_byx=valid, **weighting)
    entropy = torch.zeros(()) if multilabel else cross_entropy(logits, labels, **weighting)
    terms = LossSettings(cross_entropy=0.0 if multilabel else 0.7, bce=0.25, dice=2.0)
    expected = terms.cross_entropy * entropy + 0.25 * bce + 2 * dice
    torch.testing.assert_close(task.loss(logits, labels, terms, **weighting), expected)
    only = LossSettings(cross_entropy=0, bce=0, dice=2.0)
    torch.testing.assert_close(task.loss(logits, labels, only, **weighting), 2 * dice)


@pytest.mark.parametrize("multilabel", [False, True])
def test_all_ignored_costs_nothing_and_has_zero_gradient(multilabel: bool) -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    terms = LossSettings(cross_entropy=0 if multilabel else 1, bce=1, dice=1)
    loss = Semantic(2, multilabel).loss(logits, torch.full((1, 3, 3), IGNORE), terms)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("task", [Semantic(2, multilabel=True), Semantic(3, multilabel=True, sigmoid=True)])
def test_softmax_cross_entropy_of_overlapping_classes_is_refused(task: Semantic) -> None:
    with pytest.raises(ValueError, match=r"loss\.cross_entropy needs exclusive classes, but the classes overlap"):
        task.check(LossSettings())
    task.check(LossSettings(cross_entropy=0, bce=1))
    with pytest.raises(ValueError, match=r"loss\.border_weight needs exclusive classes"):
        task.check(LossSettings(cross_entropy=0, bce=1, border_weight=10))


def test_softmax_cross_entropy_of_one_output_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loss\.cross_entropy needs one output per class, but net\.output is sigmoid"):
        Semantic(2, sigmoid=True).check(LossSettings())
    Semantic(2, sigmoid=True).check(LossSettings(cross_entropy=0, bce=1, border_weight=10))
    Semantic(2).check(LossSettings(bce=1, border_weight=10))


# --- one output for two classes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 3, 4])
def test_one_output_is_for_two_classes(classes: int) -> None:
    with pytest.raises(ValueError, match=f"net.output=sigmoid .* number of exclusive classes is {classes}"):
        Semantic(classes, sigmoid=True)
    assert Semantic(classes, multilabel=True, sigmoid=True).outputs == classes
    assert Semantic(classes).outputs == classes


def test_one_output_says_what_two_with_that_difference_say() -> None:
    rng = np.random.default_rng(3)
    logits_kyx = rng.normal(0, 4, (2, 7, 9)).astype(np.float32)
    logits_kyx[:, 0] = 0
    one, two = Semantic(2, sigmoid=True), Semantic(2)
    assert (one.outputs, two.outputs) == (1, 2)
    difference_kyx = logits_kyx[1:] - logits_kyx[:1]
    probabilities_kyx = one.probabilities(difference_kyx)
    assert probabilities_kyx.dtype == np.float32
    np.testing.assert_allclose(probabilities_kyx, two.probabilities(logits_kyx), rtol=0, atol=1e-6)
    labels_yx = one.decode(difference_kyx)
    assert labels_yx.dtype == np.int32
    np.testing.assert_array_equal(labels_yx, two.decode(logits_kyx))
    assert not labels_yx[0].any()


def test_the_loss_of_one_output_by_loops() -> None:
    rng = np.random.default_rng(5)
    logits, target = rng.normal(0, 2, (2, 1, 4, 5)), rng.integers(-1, 2, (2, 4, 5))
    weights = rng.uniform(0.2, 3, (2, 4, 5))
    entropy = total = overlap = sizes = 0.0
    for b, y, x in np.ndindex(2, 4, 5):
        truth, weight = int(target[b, y, x]), float(weights[b, y, x])
        if truth == IGNORE:
            continue
        chance = 1 / (1 + math.exp(-logits[b, 0, y, x]))
        entropy -= weight * math.log(chance if truth else 1 - chance)
        total += weight
        overlap += weight * chance * truth
        sizes += weight * (chance + truth)
    expected = 0.7 * entropy / total + 2 * (1 - (2 * overlap + 1) / (sizes + 1))
    terms = LossSettings(cross_entropy=0, bce=0.7, dice=2)
    found = Semantic(2, sigmoid=True).loss(
        torch.tensor(logits), torch.tensor(target), terms, weights_byx=torch.tensor(weights)
    )
    assert found.item() == pytest.approx(expected, rel=1e-6)
    same = Semantic(2, sigmoid=True).encode_one_hot(torch.tensor(target))
    np.testing.assert_array_equal(same.numpy(), (target == 1)[:, None])


# --- logits from probabilities ------------------------------------------------------------------------------------

TASKS = [
    Semantic(2),
    Semantic(5),
    Semantic(2, sigmoid=True),
    Semantic(1, multilabel=True),
    Semantic(4, multilabel=True),
]


@pytest.mark.parametrize("task", TASKS, ids=repr)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.1, 3.0, 30.0, 300.0]))
def test_as_logits_gives_logits_of_these_probabilities(task: Semantic, seed: int, scale: float) -> None:
    logits_kyx = np.random.default_rng(seed).normal(0, scale, (task.outputs, 6, 7)).astype(np.float32)
    probabilities_kyx = task.probabilities(logits_kyx)
    before_kyx = probabilities_kyx.copy()
    back_kyx = task.as_logits(probabilities_kyx)
    assert back_kyx.shape == logits_kyx.shape
    assert back_kyx.dtype == np.float32
    assert np.isfinite(back_kyx).all()
    np.testing.assert_array_equal(probabilities_kyx, before_kyx)
    np.testing.assert_allclose(task.probabilities(back_kyx), probabilities_kyx, rtol=0, atol=1e-6)
    if task.multilabel:
        clear_yx = (np.abs(probabilities_kyx - 0.5) > 1e-5).all(0)
    else:
        low_yx, high_yx = np.sort(probabilities_kyx, axis=0)[-2:]
        clear_yx = high_yx - low_yx > 1e-5
    np.testing.assert_array_equal(task.decode(back_kyx)[clear_yx], task.decode(logits_kyx)[clear_yx])


@pytest.mark.parametrize("task", TASKS, ids=repr)
def test_sure_probabilities_have_finite_logits(task: Semantic) -> None:
    planes = np.random.default_rng(0).integers(0, 2, (4, 3, 3)).astype(np.float32)
    if not task.multilabel:
        planes = np.eye(task.classes, dtype=np.float32)[:, None]
    planes = planes[: task.classes]
    logits_kyx = task.as_logits(planes)
    assert np.isfinite(logits_kyx).all()
    np.testing.assert_allclose(task.probabilities(logits_kyx), planes, rtol=0, atol=1e-6)


# --- targets and weight maps --------------------------------------------------------------------------------------


def equation_2(labels_yx: np.ndarray, class_weights: tuple[float, ...], w0: float, sigma: float) -> np.ndarray:
    """Oracle: w(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))^2 / 2 sigma^2); cells are the regions of each class above 0."""
    distances = []
    for label in range(1, int(labels_yx.max()) + 1):
        regions_yx, count = ndimage.label(labels_yx == label)
        distances += [ndimage.distance_transform_edt(regions_yx != number) for number in range(1, count + 1)]
    expected_yx = np.choose(np.maximum(labels_yx, 0), class_weights).astype(np.float64)
    if len(distances) > 1:
        d1_yx, d2_yx = np.sort(distances, axis=0)[:2]
        expected_yx += w0 * np.exp(-((d1_yx + d2_yx) ** 2) / (2 * sigma**2))
    return expected_yx


def blobs(classes: int, seed: int, size: tuple[int, int] = (50, 60)) -> np.ndarray:
    """Draw regions of every class, some of which touch, and ignored pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[: size[0], : size[1]]
    labels_yx = np.zeros(size, np.int32)
    for _ in range(9):
        middle_y, middle_x, radius = rng.uniform((0, 0, 2), (*size, 8))
        labels_yx[(y - middle_y) ** 2 + (x - middle_x) ** 2 < radius**2] = rng.integers(1, classes)
    labels_yx[rng.random(size) < 0.03] = IGNORE
    return labels_yx


@pytest.mark.parametrize(("classes", "sigmoid"), [(2, False), (2, True), (4, False)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("w0", "sigma"), [(10.0, 5.0), (0.5, 12.0)])
def test_the_weight_map_is_equation_2(classes: int, sigmoid: bool, weighted: bool, w0: float, sigma: float) -> None:
    terms = LossSettings(border_weight=w0, border_sigma=sigma)
    class_weights = tuple(0.5 + k for k in range(classes)) if weighted else (1.0,) * classes
    weights_k = np.array(class_weights, np.float32) if weighted else None
    for seed in range(2):
        labels_yx = blobs(classes, seed)
        before_yx = labels_yx.copy()
        target_yx, weights_yx = Semantic(classes, sigmoid=sigmoid).encode(labels_yx, terms, weights_k)
        np.testing.assert_array_equal(target_yx, labels_yx)
        np.testing.assert_array_equal(labels_yx, before_yx)
        assert weights_yx is not None
        assert weights_yx.dtype == np.float32
        counts = labels_yx != IGNORE
        expected_yx = equation_2(labels_yx, class_weights, w0, sigma)
        assert np.ptp(expected_yx) > w0 / 4
        np.testing.assert_allclose(weights_yx[counts], expected_yx[counts], rtol=0, atol=1e-5)


def test_weight_maps_are_made_only_where_needed() -> None:
    labels_yx, weights_k = blobs(2, 0), np.array([0.25, 4.0], np.float32)
    assert Semantic(2).encode(labels_yx, LossSettings())[1] is None
    assert Semantic(2).encode(labels_yx, LossSettings(), weights_k)[1] is None  # the loss has the class weights
    assert Semantic(2, multilabel=True, sigmoid=True).encode(labels_yx, LossSettings(), weights_k)[1] is None
    assert Semantic(2, sigmoid=True).encode(labels_yx, LossSettings())[1] is None
    weights_yx = Semantic(2, sigmoid=True).encode(labels_yx, LossSettings(), weights_k)[1]
    assert weights_yx is not None
    counts = labels_yx != IGNORE
    np.testing.assert_array_equal(weights_yx[counts], np.where(labels_yx == 1, 4.0, 0.25)[counts])


def test_a_map_with_class_weights_costs_what_class_weights_cost() -> None:
    labels_yx, weights_k = blobs(3, 1), np.array([0.25, 4.0, 1.0], np.float32)
    task, entropy = Semantic(3), LossSettings(dice=0)
    logits, target = torch.randn(1, 3, *labels_yx.shape), torch.from_numpy(labels_yx)[None].long()
    weights_yx = task.compute_weight_map(labels_yx, labels_yx, LossSettings(border_weight=1e-30), weights_k)
    assert weights_yx is not None
    by_map = task.loss(logits, target, entropy, weights_byx=torch.from_numpy(weights_yx)[None])
    by_class = task.loss(logits, target, entropy, class_weights_k=torch.from_numpy(weights_k))
    torch.testing.assert_close(by_map, by_class)


def test_labels_are_their_own_classes() -> None:
    labels_yx = blobs(4, 2)
    assert Semantic(4).align(blobs(4, 3), labels_yx) is labels_yx
    assert Semantic(4).pixel_shares([0.5, 0.25, 0.25, 0]) == (0.5, 0.25, 0.25, 0)
    assert Semantic(4).score(labels_yx, labels_yx) == (1.0, (1.0,) * 4)
