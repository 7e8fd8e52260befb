"""The instances task: seams, weights and objects, compared with loops and with the equation written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn import functional

from septa.losses import cut_seams
from septa.recipe import IGNORE, LossSettings
from septa.tasks.decoding import Decoding, fill_holes
from septa.tasks.instances import Encoding, Instances
from septa.tasks.semantic import Semantic

PAPER = LossSettings(border_weight=10.0, border_sigma=5.0)
ENCODINGS: tuple[Encoding, ...] = ("seam", "border", "distance")
TASKS = [*(Instances(encoding) for encoding in ENCODINGS), Instances(sigmoid=True)]
every_task = pytest.mark.parametrize("task", TASKS, ids=[*ENCODINGS, "sigmoid"])
every_encoding = pytest.mark.parametrize("encoding", ENCODINGS)


def discs(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Draw round cells with gaps in their ids, many of them touching."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[:height, :width]
    labels_yx = np.zeros((height, width), np.int32)
    for value in range(count):
        middle_y, middle_x, radius = rng.uniform((0, 0, 4), (height, width, 11))
        labels_yx[(y - middle_y) ** 2 + (x - middle_x) ** 2 < radius**2] = 3 + 40_000 * value
    return labels_yx


def tissue(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Draw convex cells about fifteen pixels wide that touch on all sides, within background; ids have gaps."""
    rng = np.random.default_rng(seed)
    middles = np.array([(y, x + y // 2 % 15) for y in range(7, height + 7, 15) for x in range(0, width + 7, 15)])
    y, x = np.indices((height, width))
    rows, columns = (middles + rng.uniform(-2, 2, middles.shape)).T[:, :, None, None]
    ids = 5 + 30_000 * rng.permutation(len(middles))
    ids[rng.random(len(ids)) < 0.2] = 0
    labels_yx = ids[np.argmin(np.hypot(y - rows, x - columns), axis=0)].astype(np.int32)
    frame_yx = np.pad(np.zeros((height - 2, width - 2), bool), 1, constant_values=True)
    return np.where(np.isin(labels_yx, labels_yx[frame_yx]), 0, labels_yx)


def inward(labels_yx: np.ndarray) -> np.ndarray:
    """Oracle: the distance to pixels outside the object, computed for each object by itself after the cut."""
    ids_yx = cut_seams(labels_yx)
    distance_yx = np.zeros(labels_yx.shape)
    for value in np.unique(ids_yx[ids_yx > 0]):
        distance_yx += ndimage.distance_transform_edt(ids_yx == value)
    return distance_yx


def sure_logits(task: Instances, target_yx: np.ndarray, size: float = 8.0) -> np.ndarray:
    """Return the logits of a net that reproduces its target."""
    if task.encoding == "border":
        return np.stack([np.where(target_yx == value, size, -size) for value in range(3)]).astype(np.float32)
    if task.encoding == "distance":
        shares_yx = np.clip(target_yx, 1e-4, 1 - 1e-4)
        inner_yx = np.log(shares_yx) - np.log1p(-shares_yx)
        return np.stack([np.where(target_yx > 0, size, -size), inner_yx]).astype(np.float32)
    foreground = np.where(target_yx == 1, size, -size).astype(np.float32)
    return foreground[None] if task.sigmoid else np.stack([-foreground, foreground])


def partners(first_yx: np.ndarray, second_yx: np.ndarray) -> set[tuple[int, int]]:
    """Return the pairs of ids above 0 that share a pixel."""
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
    assert task.pixel_task == Semantic(2, sigmoid=sigmoid)
    assert not task.tilewise
    assert Semantic(2).tilewise


# --- encode -------------------------------------------------------------------------------------------------------


def test_touching_cells_get_a_seam_of_background() -> None:
    labels_yx = np.array([[5, 5, 5, 9, 9, 9], [5, 5, 5, 9, 9, 9], [5, 5, 2, 2, 9, 9]], np.int32)
    target_yx, weights_yx = Instances().encode(labels_yx, LossSettings())
    assert target_yx.tolist() == [[1, 1, 0, 1, 1, 1], [1, 0, 0, 0, 1, 1], [1, 0, 1, 0, 1, 1]]
    assert target_yx.dtype == np.int32
    assert weights_yx is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 25))
def test_targets_keep_every_pixel_but_seams(seed: int, count: int) -> None:
    labels_yx = discs(count, 40, 50, seed)
    labels_yx[np.random.default_rng(seed).random(labels_yx.shape) < 0.05] = IGNORE
    before_yx = labels_yx.copy()
    target_yx, _ = Instances().encode(labels_yx, LossSettings())
    np.testing.assert_array_equal(labels_yx, before_yx)
    np.testing.assert_array_equal(target_yx == IGNORE, labels_yx == IGNORE)
    assert set(np.unique(target_yx)) <= {IGNORE, 0, 1}
    assert not target_yx[labels_yx == 0].any()
    for y, x in np.argwhere((labels_yx > 0) & (target_yx == 0)):  # a seam lies only where two cells touch
        near = labels_yx[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        assert len(set(near[near > 0].tolist())) > 1
    # The remaining pixels of different cells are not neighbours, not even diagonally.
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
    target_yx, weights_yx = Instances(sigmoid=sigmoid).encode(
        labels_yx, LossSettings(border_weight=7, border_sigma=3), weights_k
    )
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


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 7), st.booleans())
def test_rims_lie_within_some_pixels_of_what_is_not_the_object(seed: int, count: int, rim: int, ignored: bool) -> None:
    labels_yx = discs(count, 40, 50, seed)
    if ignored:
        labels_yx[np.random.default_rng(seed).random(labels_yx.shape) < 0.02] = IGNORE
    target_yx, weights_yx = Instances("border", rim=rim).encode(labels_yx, LossSettings())
    assert weights_yx is None
    assert target_yx.dtype == np.int32
    rim_yx = (labels_yx > 0) & (inward(labels_yx) <= rim)  # a seam is rim of the object that it is cut from
    expected_yx = np.where(rim_yx, 2, np.clip(labels_yx, IGNORE, 1))
    np.testing.assert_array_equal(target_yx, expected_yx)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20), st.booleans())
def test_rims_may_be_a_share_of_the_depth(seed: int, count: int, ignored: bool) -> None:
    labels_yx = discs(count, 40, 50, seed)
    if ignored:
        labels_yx[np.random.default_rng(seed).random(labels_yx.shape) < 0.02] = IGNORE
    target_yx, _ = Instances("border", rim=1, rim_share=0.4).encode(labels_yx, LossSettings())
    shares_yx, _ = Instances("distance").encode(labels_yx, LossSettings())
    depth_yx = inward(labels_yx)
    inside_yx = (labels_yx > 0) & ((shares_yx == 1) | ((shares_yx > 0.4) & (depth_yx > 1)))
    expected_yx = np.where(inside_yx, 1, np.where(labels_yx > 0, 2, np.minimum(labels_yx, 0)))
    np.testing.assert_array_equal(target_yx, expected_yx)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20), st.booleans())
def test_distances_are_shares_of_the_largest_of_their_object(seed: int, count: int, ignored: bool) -> None:
    labels_yx = discs(count, 40, 50, seed)
    if ignored:
        labels_yx[np.random.default_rng(seed).random(labels_yx.shape) < 0.02] = IGNORE
    before_yx = labels_yx.copy()
    target_yx, weights_yx = Instances("distance").encode(labels_yx, LossSettings())
    np.testing.assert_array_equal(labels_yx, before_yx)
    assert weights_yx is None
    assert target_yx.dtype == np.float32
    ids_yx, expected_yx = cut_seams(labels_yx), inward(labels_yx)
    for value in np.unique(ids_yx[ids_yx > 0]):
        assert target_yx[ids_yx == value].max() == 1
        expected_yx[ids_yx == value] /= expected_yx[ids_yx == value].max()
    expected_yx[(labels_yx > 0) & (ids_yx == 0)] = 1e-3
    expected_yx[labels_yx == IGNORE] = IGNORE
    np.testing.assert_allclose(target_yx, expected_yx, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(target_yx > 0, labels_yx > 0)


def test_the_edge_of_the_image_is_not_a_rim() -> None:
    labels_yx = np.repeat(np.array([[9, 9, 9, 9, 0, 0, 0, 4]], np.int32), 3, 0)
    assert Instances("border").encode(labels_yx, LossSettings())[0][1].tolist() == [1, 1, 2, 2, 0, 0, 0, 2]
    assert Instances("distance").encode(labels_yx, LossSettings())[0][1].tolist() == [1, 0.75, 0.5, 0.25, 0, 0, 0, 1]
    for value, inside in ((0, 0), (70_000, 1)):  # the value fills the image, so there is no distance to anything else
        for size in ((1, 1), (40, 70)):
            labels_yx = np.full(size, value, np.int32)
            for encoding in ENCODINGS:  # exact: x / x is 1
                np.testing.assert_array_equal(
                    Instances(encoding).encode(labels_yx, LossSettings())[0], np.full(size, inside)
                )


def test_holes_are_outside() -> None:
    labels_yx = np.zeros((13, 13), np.int32)
    labels_yx[1:12, 1:12], labels_yx[6, 6] = 3, 0
    for encoding, expected in (
        ("seam", [0, *[1] * 5, 0, *[1] * 5, 0]),
        ("border", [0, 2, 2, 1, 2, 2, 0, 2, 2, 1, 2, 2, 0]),
    ):
        assert Instances(encoding).encode(labels_yx, LossSettings())[0][6].tolist() == expected
    shares = Instances("distance").encode(labels_yx, LossSettings())[0][6]
    np.testing.assert_allclose(3 * shares, [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0], atol=1e-6)


@every_encoding
def test_ten_thousand_touching_objects(encoding: Encoding) -> None:
    labels_yx = (np.arange(10_000, dtype=np.int32).reshape(100, 100) * 70_000 + 1).repeat(8, 0).repeat(8, 1)
    task = Instances(encoding)
    target_yx, _ = task.encode(labels_yx, LossSettings())
    few_yx, _ = task.encode(labels_yx[:24, :24], LossSettings())  # the other objects are far away
    blocks_nyx = target_yx[8:-8, 8:-8].reshape(98, 8, 98, 8).transpose(0, 2, 1, 3).reshape(-1, 8, 8)
    np.testing.assert_array_equal(blocks_nyx, np.broadcast_to(few_yx[8:16, 8:16], blocks_nyx.shape))
    found_yx = task.decode(sure_logits(task, target_yx))
    assert found_yx.max() == 10_000
    kept_yx = np.where(found_yx > 0, cut_seams(labels_yx), 0)
    assert len(partners(found_yx, kept_yx)) == 10_000


def test_a_weight_map_has_class_weights_and_seams_in_it() -> None:
    labels_yx, weights_k = tissue(50, 60), np.array([0.5, 3.0], np.float32)
    labels_yx[:, 20:24] = IGNORE
    ids_yx = cut_seams(labels_yx)
    border_yx = equation(ids_yx, 7, 3)
    for encoding in ENCODINGS:
        for given_k in (None, weights_k):
            for terms in (LossSettings(), LossSettings(border_weight=7, border_sigma=3)):
                _, weights_yx = Instances(encoding).encode(labels_yx, terms, given_k)
                if not terms.border_weight and (given_k is None or encoding == "seam"):
                    assert weights_yx is None  # the loss takes the class weights itself
                    continue
                assert weights_yx is not None
                assert weights_yx.dtype == np.float32
                objects_yx = ids_yx if encoding == "seam" else labels_yx  # the others have no seam of background
                expected_yx = np.ones(labels_yx.shape) if given_k is None else np.where(objects_yx > 0, 3.0, 0.5)
                if terms.border_weight:
                    expected_yx = expected_yx + border_yx
                counts = labels_yx != IGNORE
                np.testing.assert_allclose(weights_yx[counts], expected_yx[counts], rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [0, 1, 70_000, IGNORE])
def test_no_object_and_one_object(value: int) -> None:
    labels_yx = np.zeros((6, 7), np.int32)
    labels_yx[1:4, 2:6] = value
    target_yx, weights_yx = Instances().encode(labels_yx, PAPER)
    np.testing.assert_array_equal(target_yx, np.clip(labels_yx, -1, 1))
    np.testing.assert_array_equal(weights_yx, np.ones((6, 7)))


def test_there_is_a_map_without_border_weight_only_for_one_output() -> None:
    labels_yx, weights_k = discs(5, 30, 30), np.array([0.25, 4.0], np.float32)
    assert Instances().encode(labels_yx, LossSettings(), weights_k)[1] is None
    assert Instances(sigmoid=True).encode(labels_yx, LossSettings())[1] is None
    target_yx, weights_yx = Instances(sigmoid=True).encode(labels_yx, LossSettings(), weights_k)
    np.testing.assert_array_equal(weights_yx, np.where(target_yx == 1, 4.0, 0.25))


# --- decode -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_what_was_encoded_is_decoded_as_separate_objects(sigmoid: bool, seed: int) -> None:
    task = Instances(sigmoid=sigmoid)
    labels_yx = discs(30, 90, 110, seed)
    target_yx, _ = task.encode(labels_yx, LossSettings())
    found_yx = task.decode(sure_logits(task, target_yx))
    assert found_yx.dtype == np.int32
    np.testing.assert_array_equal(found_yx > 0, target_yx == 1)
    assert sorted(set(np.unique(found_yx)) - {0}) == list(range(1, found_yx.max() + 1))
    pairs = partners(found_yx, labels_yx)
    assert len(pairs) == found_yx.max()  # no object lies in two cells
    cells = set(np.unique(labels_yx[target_yx == 1]).tolist())
    assert {cell for _, cell in pairs} == cells
    whole = {cell for cell in cells if ndimage.label((labels_yx == cell) & (target_yx == 1))[1] == 1}
    assert len(whole) > 15
    assert sum(cell in whole for _, cell in pairs) == len(whole)  # and no cell in two objects


@every_task
@pytest.mark.parametrize("seed", range(3))
def test_touching_objects_come_apart(task: Instances, seed: int) -> None:
    labels_yx = tissue(90, 110, seed)
    target_yx, _ = task.encode(labels_yx, LossSettings())
    task = replace(task, decoding=Decoding(close_seams=task.encoding == "seam"))
    found_yx = task.decode(sure_logits(task, target_yx))
    cells = np.unique(labels_yx[labels_yx > 0])
    assert ndimage.label(labels_yx)[1] < len(cells) / 2
    assert found_yx.max() == len(cells)
    ids_yx = cut_seams(labels_yx)
    for cell in cells:
        values, counts = np.unique(found_yx[(ids_yx == cell) & (found_yx > 0)], return_counts=True)
        mine_yx = found_yx == values[counts.argmax()]
        iou = (mine_yx & (labels_yx == cell)).sum() / (mine_yx | (labels_yx == cell)).sum()
        assert iou > 0.85
    if task.encoding == "seam":  # a closing fills the concave corners of the outline too
        assert ((found_yx > 0) != (labels_yx > 0)).mean() < 0.005
    else:
        np.testing.assert_array_equal(found_yx > 0, labels_yx > 0)


@every_task
def test_small_and_hollow_objects_and_those_at_the_edge(task: Instances) -> None:
    labels_yx = np.zeros((40, 60), np.int32)
    labels_yx[3, 3] = labels_yx[39, 0] = 70_001
    labels_yx[39, 0] = 9
    labels_yx[10:30, 5:25], labels_yx[16:24, 11:19] = 5, 0  # a ring
    labels_yx[0:9, 40:60] = 12  # cut by a corner
    labels_yx[20, 30:58] = 70_002  # a thread
    found_yx = task.decode(sure_logits(task, task.encode(labels_yx, LossSettings())[0]))
    expected_yx = fill_holes(labels_yx)
    assert (expected_yx[16:24, 11:19] == 5).all()
    np.testing.assert_array_equal(found_yx > 0, expected_yx > 0)
    assert len(partners(found_yx, expected_yx)) == found_yx.max() == 5


def test_thresholds_decide_what_is_found() -> None:
    # Two cells are joined by a bridge in which the inner map falls to 0.6; faint foreground lies next to them.
    inner = np.array([0.05, 0.8, 0.95, 0.8, 0.6, 0.8, 0.95, 0.8, 0.05, 0.05])
    foreground = np.array([0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.4, 0.1])
    probabilities = np.stack([foreground, inner])[:, None].astype(np.float32)
    logits_kyx = np.log(probabilities) - np.log1p(-probabilities)

    def found(**thresholds: float) -> list[int]:
        return Instances("distance", decoding=Decoding(**thresholds)).decode(logits_kyx)[0].tolist()  # type: ignore

    assert found() == [0, 1, 1, 1, 1, 1, 1, 1, 0, 0]
    assert found(seed=0.7) in ([0, 1, 1, 1, 1, 2, 2, 2, 0, 0], [0, 1, 1, 1, 2, 2, 2, 2, 0, 0])
    assert found(foreground=0.3) == [0, 1, 1, 1, 1, 1, 1, 1, 1, 0]
    assert found(least_pixels=8) == [0] * 10
    assert found(least_pixels=8, foreground=0.3) == [0, 1, 1, 1, 1, 1, 1, 1, 1, 0]


@every_task
def test_a_faint_net_finds_nothing(task: Instances) -> None:
    empty = np.full((task.outputs, 5, 6), -3, np.float32)
    if task.outputs > 1 and task.encoding != "distance":
        empty[0] = 3
    assert not task.decode(empty).any()
    np.testing.assert_array_equal(task.decode(-empty), np.ones((5, 6)))


def test_without_seams_touching_cells_would_be_one() -> None:
    labels_yx = np.repeat(np.array([[0, 4, 8, 0]], np.int32), 6, 1).repeat(5, 0)
    task = Instances()
    assert task.decode(sure_logits(task, np.minimum(labels_yx, 1))).max() == 1
    assert task.decode(sure_logits(task, task.encode(labels_yx, LossSettings())[0])).max() == 2


@pytest.mark.parametrize("sigmoid", [False, True])
def test_decoding_takes_the_likelier_class_and_no_diagonal(sigmoid: bool) -> None:
    task = Instances(sigmoid=sigmoid)
    assert not task.decode(np.zeros((task.outputs, 3, 4), np.float32)).any()
    foreground_yx = np.array([[1, 0, 1], [0, 1, 0]])
    assert task.decode(sure_logits(task, foreground_yx, 0.01)).max() == 3
    assert task.decode(sure_logits(task, np.ones((2, 3)), 0.01)).tolist() == [[1, 1, 1], [1, 1, 1]]


# --- results of the pixel task ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigmoid", [False, True])
def test_probabilities_and_loss_are_those_of_two_classes(sigmoid: bool) -> None:
    task, pixels = Instances(sigmoid=sigmoid), Semantic(2, sigmoid=sigmoid)
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (2, task.outputs, 8, 9)).astype(np.float32)
    target = torch.from_numpy(rng.integers(-1, 2, (2, 8, 9)))
    terms = LossSettings(cross_entropy=0, bce=1, dice=0.5) if sigmoid else LossSettings()
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


def test_distillation_is_that_of_each_kind_of_output() -> None:
    rng = torch.Generator().manual_seed(0)
    logits, expected = (torch.randn(2, 6, 4, 5, generator=rng) for _ in range(2))
    for encoding, parts in {
        "seam": ((Semantic(2), 2),),
        "border": ((Semantic(3), 3),),
        "distance": ((Semantic(2, multilabel=True), 2),),
    }.items():
        for task, kinds in ((Instances(encoding), ()), (Instances(encoding, object_classes=3), ((Semantic(3), 3),))):
            begin, total = 0, 0.0
            for part, outputs in (*parts, *kinds):
                window = slice(begin, begin + outputs)
                total += part.distillation(logits[:, window], expected[:, window]).item()
                begin += outputs
            assert task.outputs == begin
            assert task.distillation(logits[:, :begin], expected[:, :begin]).item() == pytest.approx(total)


def test_class_labels() -> None:
    labels_yx = np.array([[IGNORE, 0, 1, 2, 70_000]], np.int32)
    assert Instances().to_class_labels(labels_yx).tolist() == [[IGNORE, 0, 1, 1, 1]]
    assert labels_yx[0, 4] == 70_000


def test_loss_terms_that_do_not_fit_are_refused() -> None:
    Instances().check(PAPER)
    Instances(sigmoid=True).check(LossSettings(cross_entropy=0, bce=1, border_weight=10))
    with pytest.raises(ValueError, match=r"loss\.cross_entropy needs one output per class, but net\.output is sigmoid"):
        Instances(sigmoid=True).check(PAPER)


# --- the encodings' own outputs and losses ------------------------------------------------------------------------


def test_outputs_of_encodings() -> None:
    assert [(task.outputs, task.classes) for task in TASKS] == [(2, 2), (3, 2), (2, 2), (1, 2)]
    assert Instances("border").pixel_task == Semantic(3)


def test_one_output_is_for_seams_alone() -> None:
    for encoding in ("border", "distance"):
        with pytest.raises(
            ValueError, match=rf"net\.output=sigmoid .*encoding=seam, got instances\.encoding={encoding}"
        ):
            Instances(encoding, sigmoid=True)  # type: ignore[arg-type]


@every_task
def test_activations_and_maps_by_their_formulas(task: Instances) -> None:
    logits_kyx = np.random.default_rng(2).normal(0, 6, (task.outputs, 90, 80)).astype(np.float32)
    exact = logits_kyx.astype(np.float64)
    if task.sigmoid:
        expected = np.concatenate([1 / (1 + np.exp(exact)), 1 / (1 + np.exp(-exact))])
    elif task.encoding == "distance":
        expected = 1 / (1 + np.exp(-exact))
    else:
        expected = np.exp(exact) / np.exp(exact).sum(0)
    found_kyx = task.activations(logits_kyx)
    assert found_kyx.dtype == np.float32
    np.testing.assert_allclose(found_kyx, expected, rtol=0, atol=1e-6)
    foreground_yx, inner_yx = task.compute_maps(logits_kyx)
    wanted = {"seam": (expected[1], expected[1]), "distance": expected, "border": (1 - expected[0], expected[1])}
    for map_yx, wanted_yx in zip((foreground_yx, inner_yx), wanted[task.encoding]):
        assert map_yx.dtype == np.float32
        np.testing.assert_allclose(map_yx, wanted_yx, rtol=0, atol=1e-6)
    probabilities_kyx = task.probabilities(logits_kyx)
    assert probabilities_kyx.shape == (2, 90, 80)
    assert probabilities_kyx.dtype == np.float32
    np.testing.assert_allclose(probabilities_kyx, [1 - foreground_yx, foreground_yx], rtol=0, atol=1e-6)
    for part in (found_kyx, foreground_yx, inner_yx, probabilities_kyx):
        assert 0 <= part.min() <= part.max() <= 1


@every_task
def test_logits_of_activations_give_them_back(task: Instances) -> None:
    logits_kyx = np.random.default_rng(3).normal(0, 4, (task.outputs, 20, 30)).astype(np.float32)
    logits_kyx[:, 0] = 200 * np.sign(logits_kyx[:, 0])
    activations_kyx = task.activations(logits_kyx)
    back_kyx = task.as_logits(activations_kyx)
    assert back_kyx.shape == logits_kyx.shape
    assert back_kyx.dtype == np.float32
    assert np.isfinite(back_kyx).all()
    np.testing.assert_allclose(task.activations(back_kyx), activations_kyx, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(task.decode(back_kyx), task.decode(logits_kyx))


def written_out(
    task: Instances, logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor, terms: LossSettings
) -> torch.Tensor:
    """Oracle: the loss in plain torch, over the pixels that count."""
    counts = target != IGNORE
    w, t = weights[counts], target[counts]
    parts = logits.movedim(1, -1)[counts]  # one row per pixel
    if task.encoding == "distance":
        truth = torch.stack([(t > 0).to(t), t], dim=1)
        each = functional.binary_cross_entropy(parts.sigmoid(), truth, reduction="none").sum(1)
        entropy = terms.cross_entropy * (w * each).sum() / w.sum()
        probabilities, truth = parts[:, :1].sigmoid(), truth[:, :1]
    elif task.sigmoid:
        probabilities, truth = parts.sigmoid(), t[:, None].to(parts)
        each = functional.binary_cross_entropy(probabilities, truth, reduction="none")[:, 0]
        entropy = terms.bce * (w * each).sum() / w.sum()
    else:
        probabilities, truth = parts.softmax(1), functional.one_hot(t, task.outputs).to(parts)
        entropy = terms.cross_entropy * -(w * (truth * probabilities.log()).sum(1)).sum() / w.sum()
    overlap, total = (w[:, None] * probabilities * truth).sum(0), (w[:, None] * (probabilities + truth)).sum(0)
    return entropy + terms.dice * (1 - (2 * overlap + 1) / (total + 1)).mean()


@every_task
@pytest.mark.parametrize("dice", [0.0, 0.7])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_written_out(task: Instances, dice: float, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, task.outputs, 12, 14, generator=generator, dtype=torch.float64) * 3
    labels = [tissue(52, 54, seed)[20:32, 20:34] for seed in range(2)]
    for labels_yx in labels:
        labels_yx[4:6, 2:9] = IGNORE
    target = torch.from_numpy(np.stack([task.encode(labels_yx, LossSettings())[0] for labels_yx in labels]))
    assert len(target.unique()) == {"seam": 3, "border": 4}.get(task.encoding, len(target.unique()))
    target = target.double() if task.encoding == "distance" else target.long()
    weights = torch.rand(2, 12, 14, generator=generator, dtype=torch.float64) if weighted else torch.ones(2, 12, 14)
    cross_entropy, bce = (0.0, 1.3) if task.sigmoid else (1.3, 0.0)
    terms = LossSettings(cross_entropy=cross_entropy, bce=bce, dice=dice)
    logits.requires_grad_()
    found = task.loss(logits, target, terms, weights_byx=weights if weighted else None)
    expected = written_out(task, logits, target, weights, terms)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    (slope,), (wanted,) = torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(slope, wanted, rtol=1e-5, atol=1e-9)
    assert not slope.movedim(1, -1)[target == IGNORE].any()
    assert slope.movedim(1, -1)[target != IGNORE].all()


@every_task
def test_class_weights_of_the_map_are_those_of_the_loss(task: Instances) -> None:
    """A pixel of weight 3 counts as three of weight 1."""
    labels_yx, weights_k = discs(5, 20, 24), np.array([1.0, 3.0], np.float32)
    bce = LossSettings(cross_entropy=0, bce=1, dice=0) if task.sigmoid else LossSettings(dice=0)
    target_yx, weights_yx = task.encode(labels_yx, bce, weights_k)
    target = torch.from_numpy(target_yx)[None]
    logits = torch.from_numpy(np.random.default_rng(1).normal(0, 2, (1, task.outputs, 20, 24)).astype(np.float32))
    given = (
        {"class_weights_k": torch.from_numpy(weights_k)}
        if weights_yx is None
        else {"weights_byx": torch.from_numpy(weights_yx)[None]}
    )
    found = task.loss(logits, target, bce, **given)
    objects_yx = cut_seams(labels_yx) if task.encoding == "seam" else labels_yx
    thrice = torch.from_numpy(np.where(objects_yx > 0, 3.0, 1.0))[None]
    exact = target.double() if task.encoding == "distance" else target.long()
    torch.testing.assert_close(
        found.double(), written_out(task, logits.double(), exact, thrice, bce), rtol=1e-5, atol=0
    )


@every_task
def test_the_loss_of_a_net_that_knows_its_target_is_the_least(task: Instances) -> None:
    terms = LossSettings(cross_entropy=0, bce=1) if task.sigmoid else LossSettings()
    target_yx, _ = task.encode(tissue(40, 50), terms)

    def loss(logits_kyx: np.ndarray) -> float:
        return task.loss(torch.from_numpy(logits_kyx)[None], torch.from_numpy(target_yx)[None], terms).item()

    sure = sure_logits(task, target_yx)
    least = loss(sure)
    assert least < loss(np.roll(sure, 2, axis=2)) - 0.1
    assert least < loss(np.zeros_like(sure)) - 0.1
    if task.encoding == "distance":  # the smallest cross entropy against a relative distance is its entropy, not 0
        least -= ndimage.mean(-(target_yx * np.log(target_yx + 1e-9) + (1 - target_yx) * np.log(1 - target_yx + 1e-9)))
    assert abs(least) < 0.02


@every_task
def test_nothing_but_ignored_pixels_costs_nothing(task: Instances) -> None:
    terms = LossSettings(cross_entropy=0, bce=1) if task.sigmoid else LossSettings()
    target_yx, _ = task.encode(np.full((6, 7), IGNORE, np.int32), terms)
    assert (target_yx == IGNORE).all()
    logits = torch.randn(1, task.outputs, 6, 7, requires_grad=True)
    loss = task.loss(logits, torch.from_numpy(target_yx)[None], terms)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, logits)[0].any()


@pytest.mark.parametrize(
    "terms", [LossSettings(cross_entropy=0, bce=1), LossSettings(bce=1), LossSettings(cross_entropy=0, dice=1)]
)
def test_distances_are_weighed_by_the_cross_entropy(terms: LossSettings) -> None:
    with pytest.raises(ValueError, match=r"instances\.encoding=distance needs loss\.cross_entropy as the weight"):
        Instances("distance").check(terms)


@every_encoding
def test_loss_terms_that_fit(encoding: Encoding) -> None:
    for terms in (LossSettings(), PAPER, LossSettings(dice=0)):
        Instances(encoding).check(terms)
