"""The instances task: seams, weights and objects, against loops and the equation written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from septa.recipe import IGNORE, Loss
from septa.tasks.instances import Instances
from septa.tasks.semantic import Semantic

PAPER = Loss(border_weight=10.0, border_sigma=5.0)


def discs(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Round cells with gaps in their ids, many of them pressed together."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[:height, :width]
    labels_yx = np.zeros((height, width), np.int32)
    for value in range(count):
        middle_y, middle_x, radius = rng.uniform((0, 0, 4), (height, width, 11))
        labels_yx[(y - middle_y) ** 2 + (x - middle_x) ** 2 < radius**2] = 3 + 40_000 * value
    return labels_yx


def sure_logits(task: Instances, target_yx: np.ndarray, size: float = 8.0) -> np.ndarray:
    """Logits of a net that has learnt its target by heart."""
    foreground = np.where(target_yx == 1, size, -size).astype(np.float32)
    return foreground[None] if task.sigmoid else np.stack([-foreground, foreground])


def partners(first_yx: np.ndarray, second_yx: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of ids, 0 excepted, that share a pixel."""
    both = (first_yx > 0) & (second_yx > 0)
    return set(zip(first_yx[both].tolist(), second_yx[both].tolist()))


def equation(ids_yx: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """Oracle: the border term of equation 2 by a distance transform for each cell."""
    values = [value for value in np.unique(ids_yx) if value > 0]
    if len(values) < 2:
        return np.zeros(ids_yx.shape)
    distances_nyx = np.sort([ndimage.distance_transform_edt(ids_yx != value) for value in values], axis=0)
    return np.asarray(w0 * np.exp(-((distances_nyx[0] + distances_nyx[1]) ** 2) / (2 * sigma**2)))


@pytest.mark.parametrize("sigmoid", [False, True])
def test_it_is_two_classes_to_the_net(sigmoid: bool) -> None:
    task = Instances(sigmoid=sigmoid)
    assert (task.outputs, task.classes, task.multilabel) == (1 if sigmoid else 2, 2, False)
    assert task.pixels == Semantic(2, sigmoid=sigmoid)
    assert not task.tilewise
    assert Semantic(2).tilewise


# --- encode -------------------------------------------------------------------------------------------------------


def test_touching_cells_get_a_seam_of_background() -> None:
    labels_yx = np.array([[5, 5, 5, 9, 9, 9], [5, 5, 5, 9, 9, 9], [5, 5, 2, 2, 9, 9]], np.int32)
    target_yx, weights_yx = Instances().encode(labels_yx, Loss())
    assert target_yx.tolist() == [[1, 1, 0, 0, 1, 1], [1, 0, 0, 0, 0, 1], [1, 0, 1, 0, 1, 1]]
    assert target_yx.dtype == np.int32
    assert weights_yx is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 25))
def test_targets_keep_every_pixel_but_seams(seed: int, count: int) -> None:
    labels_yx = discs(count, 40, 50, seed)
    labels_yx[np.random.default_rng(seed).random(labels_yx.shape) < 0.05] = IGNORE
    before_yx = labels_yx.copy()
    target_yx, _ = Instances().encode(labels_yx, Loss())
    np.testing.assert_array_equal(labels_yx, before_yx)
    np.testing.assert_array_equal(target_yx == IGNORE, labels_yx == IGNORE)
    assert set(np.unique(target_yx)) <= {IGNORE, 0, 1}
    assert not target_yx[labels_yx == 0].any()
    for y, x in np.argwhere((labels_yx > 0) & (target_yx == 0)):  # a seam only where two cells met
        near = labels_yx[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        assert len(set(near[near > 0].tolist())) > 1
    # Pixels that are left of different cells are not neighbours, not even diagonally.
    kept_yx = np.where(target_yx == 1, labels_yx, 0)
    for y, x in np.argwhere(kept_yx > 0):
        near = kept_yx[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        assert set(near[near > 0].tolist()) == {kept_yx[y, x]}


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("class_weights", [None, (0.5, 3.0)])
def test_the_weight_map_is_equation_2_of_the_cut_cells(
    sigmoid: bool, class_weights: tuple[float, float] | None
) -> None:
    labels_yx = discs(9, 60, 70)
    labels_yx[:, 20:24] = IGNORE
    weights_k = None if class_weights is None else np.array(class_weights, np.float32)
    target_yx, weights_yx = Instances(sigmoid=sigmoid).encode(labels_yx, Loss(border_weight=7, border_sigma=3), weights_k)
    assert weights_yx is not None
    assert weights_yx.dtype == np.float32
    seams_yx = (labels_yx > 0) & (target_yx == 0)
    assert seams_yx.sum() > 20
    expected_yx = equation(np.where(seams_yx, 0, labels_yx), 7, 3)
    expected_yx += np.choose(np.clip(target_yx, 0, 1), class_weights or (1.0, 1.0))
    counts = target_yx != IGNORE
    np.testing.assert_allclose(weights_yx[counts], expected_yx[counts], rtol=0, atol=1e-5)
    assert weights_yx[seams_yx].min() > 2.5  # the narrowest gaps count most
    assert np.median(weights_yx[(labels_yx == 0) & counts]) < 1.5


@pytest.mark.parametrize("value", [0, 1, 70_000, IGNORE])
def test_no_object_and_one_object(value: int) -> None:
    labels_yx = np.zeros((6, 7), np.int32)
    labels_yx[1:4, 2:6] = value
    target_yx, weights_yx = Instances().encode(labels_yx, PAPER)
    np.testing.assert_array_equal(target_yx, np.clip(labels_yx, -1, 1))
    np.testing.assert_array_equal(weights_yx, np.ones((6, 7)))


def test_a_map_without_a_border_weight_only_where_classes_cannot_be_told() -> None:
    labels_yx, weights_k = discs(5, 30, 30), np.array([0.25, 4.0], np.float32)
    assert Instances().encode(labels_yx, Loss(), weights_k)[1] is None
    assert Instances(sigmoid=True).encode(labels_yx, Loss())[1] is None
    target_yx, weights_yx = Instances(sigmoid=True).encode(labels_yx, Loss(), weights_k)
    np.testing.assert_array_equal(weights_yx, np.where(target_yx == 1, 4.0, 0.25))


# --- decode -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_what_was_encoded_is_decoded_as_separate_objects(sigmoid: bool, seed: int) -> None:
    task = Instances(sigmoid=sigmoid)
    labels_yx = discs(30, 90, 110, seed)
    target_yx, _ = task.encode(labels_yx, Loss())
    found_yx = task.decode(sure_logits(task, target_yx))
    assert found_yx.dtype == np.int32
    np.testing.assert_array_equal(found_yx > 0, target_yx == 1)
    assert sorted(set(np.unique(found_yx)) - {0}) == list(range(1, found_yx.max() + 1))
    pairs = partners(found_yx, labels_yx)
    assert len(pairs) == found_yx.max()  # no object found lies in two cells
    cells = set(np.unique(labels_yx[target_yx == 1]).tolist())
    assert {cell for _, cell in pairs} == cells
    whole = {cell for cell in cells if ndimage.label((labels_yx == cell) & (target_yx == 1))[1] == 1}
    assert len(whole) > 15
    assert sum(cell in whole for _, cell in pairs) == len(whole)  # nor a cell in two objects


def test_without_seams_touching_cells_would_be_one() -> None:
    labels_yx = np.repeat(np.array([[0, 4, 8, 0]], np.int32), 6, 1).repeat(5, 0)
    task = Instances()
    assert task.decode(sure_logits(task, np.minimum(labels_yx, 1))).max() == 1
    assert task.decode(sure_logits(task, task.encode(labels_yx, Loss())[0])).max() == 2


@pytest.mark.parametrize("sigmoid", [False, True])
def test_decoding_takes_the_likelier_class_and_no_diagonal(sigmoid: bool) -> None:
    task = Instances(sigmoid=sigmoid)
    assert not task.decode(np.zeros((task.outputs, 3, 4), np.float32)).any()
    foreground_yx = np.array([[1, 0, 1], [0, 1, 0]])
    assert task.decode(sure_logits(task, foreground_yx, 0.01)).max() == 3
    assert task.decode(sure_logits(task, np.ones((2, 3)), 0.01)).tolist() == [[1, 1, 1], [1, 1, 1]]


# --- what it has from its pixels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sigmoid", [False, True])
def test_probabilities_and_loss_are_those_of_two_classes(sigmoid: bool) -> None:
    task, pixels = Instances(sigmoid=sigmoid), Semantic(2, sigmoid=sigmoid)
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (2, task.outputs, 8, 9)).astype(np.float32)
    target = torch.from_numpy(rng.integers(-1, 2, (2, 8, 9)))
    terms = Loss(cross_entropy=0, bce=1, dice=0.5) if sigmoid else Loss()
    weights = torch.from_numpy(rng.random((2, 8, 9), np.float32))
    found, expected = (
        part.loss(torch.from_numpy(logits), target, terms, weights_byx=weights) for part in (task, pixels)
    )
    assert found == expected
    probabilities = task.probabilities(logits[0])
    assert probabilities.shape == (2, 8, 9)
    np.testing.assert_allclose(probabilities.sum(0), 1, rtol=1e-6)
    np.testing.assert_array_equal(probabilities, pixels.probabilities(logits[0]))
    np.testing.assert_allclose(task.probabilities(task.as_logits(probabilities)), probabilities, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(task.decode(logits[0]) > 0, probabilities[1] > 0.5)


def test_class_labels() -> None:
    labels_yx = np.array([[IGNORE, 0, 1, 2, 70_000]], np.int32)
    assert Instances().class_labels(labels_yx).tolist() == [[IGNORE, 0, 1, 1, 1]]
    assert labels_yx[0, 4] == 70_000


def test_loss_terms_that_do_not_fit_are_refused() -> None:
    Instances().check(PAPER)
    Instances(sigmoid=True).check(Loss(cross_entropy=0, bce=1, border_weight=10))
    with pytest.raises(ValueError, match=r"net\.output is sigmoid: use loss\.bce"):
        Instances(sigmoid=True).check(PAPER)
