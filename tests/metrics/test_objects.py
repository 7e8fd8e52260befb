"""Compare object scores with Python sets, hand-made cases, and other implementations if they are installed."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from septa.metrics import objects
from septa.metrics.objects import IOU_THRESHOLDS, align_ids, pool, score_objects
from septa.metrics.overlaps import contingency, match

IDS = [0, 1, 2, 3, 9, 70_000, 2**40]
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7)
RATIOS = ["precision", "recall", "f1", "accuracy"]
QUALITIES = ["panoptic_quality", "segmentation_quality", "recognition_quality", "symmetric_best_dice"]


@st.composite
def label_pairs(draw):
    """Draw a ground truth and a prediction that often agrees; some ground-truth pixels are ignored."""
    shape = draw(SHAPES)
    truth, other = (draw(hnp.arrays(np.int64, shape, elements=st.sampled_from(IDS))) for _ in range(2))
    prediction = np.where(draw(hnp.arrays(bool, shape)), truth, other)
    if draw(st.booleans()):
        truth[draw(hnp.arrays(bool, shape))] = -1
    return truth, prediction


def find_pixel_sets(truth, prediction):
    both = ({}, {})
    for place in np.ndindex(truth.shape):
        if truth[place] != -1:
            for sets, labels in zip(both, (truth, prediction), strict=True):
                if labels[place] != 0:
                    sets.setdefault(int(labels[place]), set()).add(place)
    return [list(sets.values()) for sets in both]


def divide(part, whole, empty):
    return 1.0 if empty else part / whole if whole else 0.0


def score_sets(truth, prediction):
    """Compute every score from sets of pixels; the matching at 0.5 is greedy, so ties are not allowed here."""
    true, predicted = find_pixel_sets(truth, prediction)
    empty = not true and not predicted
    ious = [len(a & b) / len(a | b) for a in true for b in predicted]
    lists = {name: [] for name in ["tp", "fp", "fn", *RATIOS]}
    for threshold in IOU_THRESHOLDS:
        tp = sum(iou >= threshold for iou in ious)
        fp, fn = len(predicted) - tp, len(true) - tp
        values = [tp, fp, fn, divide(tp, tp + fp, empty), divide(tp, tp + fn, empty)]
        values += [divide(2 * tp, 2 * tp + fp + fn, empty), divide(tp, tp + fp + fn, empty)]
        for name, value in zip(lists, values, strict=True):
            lists[name].append(value)
    matched, tp = sum(iou for iou in ious if iou >= 0.5), lists["tp"][0]
    quality = divide(matched, tp + lists["fp"][0] / 2 + lists["fn"][0] / 2, empty)
    best = [
        divide(sum(max((2 * len(a & b) / (len(a) + len(b)) for b in other), default=0) for a in one), len(one), empty)
        for one, other in ((true, predicted), (predicted, true))
    ]
    return (
        lists
        | {
            "panoptic_quality": quality,
            "segmentation_quality": divide(matched, tp, empty),
            "recognition_quality": lists["f1"][0],
            "symmetric_best_dice": min(best),
            "truth_count": len(true),
            "prediction_count": len(predicted),
            "count_difference": abs(len(true) - len(predicted)),
            "splits": sum(sum(len(a & b) > len(b) / 2 for b in predicted) >= 2 for a in true),
            "merges": sum(sum(len(a & b) > len(a) / 2 for a in true) >= 2 for b in predicted),
            "pixels": int((truth != -1).sum()),
        }
        | {f"mean_{name}": sum(lists[name]) / len(IOU_THRESHOLDS) for name in RATIOS}
    )


@given(label_pairs())
def test_scores_equal_sets(case):
    before = case[0].copy(), case[1].copy()
    true, predicted = find_pixel_sets(*case)
    halves = [(i, j) for i, a in enumerate(true) for j, b in enumerate(predicted) if 2 * len(a & b) == len(a | b)]
    plain = score_objects(*case).to_json()
    # The tests of the matching cover an IoU of exactly 0.5.
    if not halves:
        expected = score_sets(*case)
        assert sorted(plain) == sorted(expected)
        for name, value in expected.items():
            assert plain[name] == pytest.approx(value, abs=1e-12), name
    assert all(0 <= value <= 1 for name in RATIOS for value in [*plain[name], plain[f"mean_{name}"]])
    assert all(0 <= plain[name] <= 1 for name in QUALITIES)
    np.testing.assert_array_equal(case[0], before[0])
    np.testing.assert_array_equal(case[1], before[1])


@given(label_pairs(), st.randoms(use_true_random=False))
def test_names_do_not_matter(case, random):
    """Other ids, mirrored images and swapped axes change no score."""
    truth, prediction = case
    new = random.sample(range(1, 10**6), len(IDS) - 1)
    renamed = [labels.copy() for labels in case]
    for labels, copy in zip(case, renamed, strict=True):
        for old, fresh in zip(IDS[1:], random.sample(new, len(new)), strict=True):
            copy[labels == old] = fresh
    plain = score_objects(truth, prediction).to_json()
    for other in (renamed, (truth.T, prediction.T), (truth[::-1], prediction[::-1])):
        moved = score_objects(*other).to_json()
        for name, value in plain.items():
            assert moved[name] == pytest.approx(value, abs=1e-12), name


@given(label_pairs())
def test_swapping_sides(case):
    truth, prediction = (np.where(case[0] == -1, 0, labels) for labels in case)
    one, other = score_objects(truth, prediction), score_objects(prediction, truth)
    assert (one.tp, one.fp, one.fn, one.f1) == (other.tp, other.fn, other.fp, other.f1)
    assert (one.precision, one.recall, one.splits) == (other.recall, other.precision, other.merges)
    assert one.panoptic_quality == pytest.approx(other.panoptic_quality)
    assert one.symmetric_best_dice == pytest.approx(other.symmetric_best_dice)


@given(label_pairs())
def test_a_perfect_prediction(case):
    truth, _ = case
    scores = score_objects(truth, np.abs(truth))
    plain = scores.to_json()
    assert all(plain[name] == [1.0] * 10 for name in RATIOS)
    assert all(plain[name] == pytest.approx(1.0) for name in QUALITIES)
    assert (scores.splits, scores.merges, scores.count_difference) == (0, 0, 0)


@pytest.mark.parametrize(("truth", "prediction", "score"), [(0, 0, 1.0), (1, 0, 0.0), (0, 1, 0.0), (-1, 1, 1.0)])
def test_empty_sides(truth, prediction, score):
    scores = score_objects(np.full((4, 4), truth), np.full((4, 4), prediction))
    plain = scores.to_json()
    assert all(plain[name] == [score] * 10 for name in RATIOS)
    assert all(plain[name] == score for name in QUALITIES)
    assert scores.count_difference == int(score == 0)
    assert scores.pixels == (0 if truth == -1 else 16)


def test_splits_and_merges():
    #                  whole   split in two  a sliver outside  merged        half merged
    truth = np.array([[1, 1, 0, 2, 2, 2, 2, 0, 3, 3, 3, 0, 0, 4, 4, 5, 5, 0, 6, 6, 7, 7, 7]])
    prediction = np.array([[1, 1, 0, 2, 2, 3, 3, 0, 4, 4, 5, 5, 0, 6, 6, 6, 6, 0, 7, 7, 7, 0, 0]])
    scores = score_objects(truth, prediction)
    assert (scores.splits, scores.merges) == (1, 1)
    ignored = np.where(truth == 4, -1, truth)
    assert score_objects(ignored, prediction).merges == 0


def test_thresholds_are_those_of_the_data_science_bowl():
    assert IOU_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    # The IoU values 3/5 and 19/20 lie exactly on a threshold.
    for common, union, matched in ((3, 5, 3), (19, 20, 10)):
        truth, prediction = np.ones((1, union), int), np.zeros((1, union), int)
        prediction[0, :common] = 1
        assert sum(score_objects(truth, prediction).tp) == matched


@given(st.lists(label_pairs(), min_size=1, max_size=4))
def test_pooling(cases):
    scores = [score_objects(*case) for case in cases]
    counted = [(case, one.to_json()) for case, one in zip(cases, scores, strict=True) if one.pixels]
    if not counted:
        with pytest.raises(ValueError, match="no image has a counted pixel"):
            pool(scores)
        return
    both = pool(scores)
    assert both["images"] == len(counted)
    assert json.loads(json.dumps(both, allow_nan=False)) == both
    for name, value in both["mean"].items():
        np.testing.assert_allclose(value, np.mean([plain[name] for _, plain in counted], axis=0), atol=1e-12)
    # The pooled scores equal those of one image that holds all images side by side with separate ids.
    height = max(truth.shape[0] for (truth, _), _ in counted)
    sides = ([], [])
    for index, (case, _) in enumerate(counted):
        for side, labels in zip(sides, case, strict=True):
            wide = np.full((height, labels.shape[1]), -1 if side is sides[0] else 0)
            wide[: labels.shape[0]] = np.where(labels > 0, labels * 8 + index, labels)
            side.append(wide)
    whole = score_objects(*(np.concatenate(side, axis=1) for side in sides)).to_json()
    for name, value in both["pooled"].items():
        if name == "count_difference":
            assert value == sum(plain[name] for _, plain in counted)
        else:
            assert value == pytest.approx(whole[name], abs=1e-12), name


def draw_discs(size=128, count=60, seed=0):
    """Draw touching draw_discs, and a prediction with shifted, cut, merged and missing draw_discs; ids have no gaps."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    truth = np.zeros((size, size), np.int32)
    for label in range(1, count + 1):
        truth[np.hypot(y - rng.uniform(0, size), x - rng.uniform(0, size)) < rng.uniform(3, 9)] = label
    prediction = np.roll(truth, (1, 2), (0, 1))
    prediction[prediction % 7 == 0] = 0
    prediction[(prediction % 5 == 0) & (prediction > 0) & (x % 16 < 8)] += 1
    return [
        np.unique(labels, return_inverse=True)[1].reshape(size, size).astype(np.int32) for labels in (truth, prediction)
    ]


def load_stardist_matching():
    """Load only the file of stardist, because its package needs compiled code and tensorflow."""
    package = importlib.util.find_spec("stardist")
    if package is None or not package.submodule_search_locations:
        pytest.skip("stardist is not installed")
    pytest.importorskip("csbdeep")
    spec = importlib.util.spec_from_file_location(
        "_matching", Path(package.submodule_search_locations[0], "matching.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", range(5))
def test_against_stardist(seed):
    peer = load_stardist_matching()
    truth, prediction = draw_discs(seed=seed)
    scores = score_objects(truth, prediction)
    for index, theirs in enumerate(peer.matching(truth, prediction, thresh=IOU_THRESHOLDS)):
        assert (scores.tp[index], scores.fp[index], scores.fn[index]) == (theirs.tp, theirs.fp, theirs.fn)
        for name in RATIOS:
            assert getattr(scores, name)[index] == pytest.approx(getattr(theirs, name), abs=1e-12)
    theirs = peer.matching(truth, prediction, thresh=0.5)
    assert scores.panoptic_quality == pytest.approx(theirs.panoptic_quality, abs=1e-6)
    for threshold in (0.1, 0.3):
        ours = objects.match(objects.contingency(truth, prediction), threshold)
        assert ours.tp == peer.matching(truth, prediction, thresh=threshold).tp


def test_pooling_against_stardist():
    peer = load_stardist_matching()
    cases = [draw_discs(seed=seed) for seed in range(3)]
    both = pool([score_objects(*case) for case in cases])
    truths, predictions = zip(*cases, strict=True)
    for by_image, ours in ((False, both["pooled"]), (True, both["mean"])):
        theirs = peer.matching_dataset(truths, predictions, thresh=0.5, by_image=by_image, show_progress=False)
        for name in RATIOS:
            assert ours[name][0] == pytest.approx(getattr(theirs, name), abs=1e-12)
        assert ours["panoptic_quality"] == pytest.approx(theirs.panoptic_quality, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_against_cellpose(seed):
    peer = pytest.importorskip("cellpose.metrics")
    truth, prediction = draw_discs(seed=seed)
    scores = score_objects(truth, prediction)
    accuracy, *counts = peer.average_precision(truth, prediction, list(IOU_THRESHOLDS))
    assert [list(map(int, count)) for count in counts] == [list(scores.tp), list(scores.fp), list(scores.fn)]
    np.testing.assert_allclose(scores.accuracy, accuracy, rtol=1e-6)


def test_sums_do_not_depend_on_the_order_of_images():
    scores = [score_objects(*draw_discs(64, 20, seed)) for seed in range(4)]
    assert pool(scores) == pool(scores[::-1])
    assert math.isfinite(pool(scores)["pooled"]["panoptic_quality"])


def find_regions(labels):
    """Return the sets of pixels of all ids, without the ids."""
    return {frozenset(np.flatnonzero(labels == value)) for value in np.unique(labels) if value != 0}


@given(label_pairs())
def test_aligned_objects_share_ids_and_others_have_their_own(case):
    truth, prediction = case
    before = truth.copy(), prediction.copy()
    renamed = align_ids(truth, prediction)
    assert renamed.shape == prediction.shape
    assert find_regions(renamed) == find_regions(prediction)
    np.testing.assert_array_equal(renamed == 0, prediction == 0)
    pairs = {int(p): int(t) for t, p in match(contingency(truth, prediction), 0.5).pairs}
    for value in np.unique(prediction[prediction != 0]):
        (new,) = np.unique(renamed[prediction == value])
        if int(value) in pairs:
            assert new == pairs[int(value)]
        else:
            assert new > 0
            assert new not in truth
    np.testing.assert_array_equal(truth, before[0])
    np.testing.assert_array_equal(prediction, before[1])


def test_align_ids_by_hand():
    truth = np.array([[7, 7, 7, 0, 5, 5, -1, -1, 3]])
    prediction = np.array([[2, 2, 9, 0, 7, 7, 7, 7, 5]])
    # 2 matches 7 with an IoU of 2/3. 7 matches 5, because ignored pixels do not count. 5 matches 3. 9 matches
    # nothing and gets the next free id.
    np.testing.assert_array_equal(align_ids(truth, prediction), [[7, 7, 11, 0, 5, 5, 5, 5, 3]])


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (3, 3)])
def test_align_ids_without_objects(shape):
    empty = np.zeros(shape, np.int32)
    np.testing.assert_array_equal(align_ids(empty, empty), empty)
    np.testing.assert_array_equal(align_ids(np.full(shape, -1), np.full(shape, 8)), np.full(shape, 1))
