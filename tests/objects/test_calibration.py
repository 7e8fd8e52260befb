"""Compare the calibration with groups made by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from septa.objects import measure_objects
from septa.objects.calibration import calibrate, compute_calibration_error, judge, reliability


def group_by_hand(sure, right, bins):
    groups = [[] for _ in range(bins)]
    for one, correct in zip(sure, right, strict=True):
        groups[next(k for k in reversed(range(bins)) if one >= k / bins)].append((one, correct))
    return groups


@given(st.lists(st.tuples(st.floats(0, 1) | st.sampled_from([0, 0.1, 0.3, 0.7, 1]), st.booleans())), st.integers(1, 12))
def test_reliability(objects, bins):
    sure, right = [one for one, _ in objects], [correct for _, correct in objects]
    edges, mean, share, count = reliability(sure, right, bins)
    groups = group_by_hand(sure, right, bins)
    np.testing.assert_array_equal(edges, [k / bins for k in range(bins + 1)])
    assert count.tolist() == [len(group) for group in groups]
    error = 0.0
    for k, group in enumerate(groups):
        if not group:
            assert math.isnan(mean[k])
            assert math.isnan(share[k])
            continue
        expected = sum(one for one, _ in group) / len(group), sum(correct for _, correct in group) / len(group)
        assert (mean[k], share[k]) == pytest.approx(expected)
        error += abs(expected[0] - expected[1]) * len(group) / len(objects)
    assert compute_calibration_error(sure, right, bins) == pytest.approx(error)


def compute_iou(left_yx, right_yx):
    return (left_yx & right_yx).sum() / (left_yx | right_yx).sum()


@pytest.mark.parametrize("seed", range(5))
def test_objects_are_judged_one_by_one(seed):
    rng = np.random.default_rng(seed)
    truth_yx = np.kron(rng.integers(0, 9, (5, 6)), np.ones((4, 4), int))
    prediction_yx = np.where(rng.random(truth_yx.shape) < 0.8, truth_yx, 0) * 1000
    prediction_yx[:4] = 77_777
    # One object is cut, and others may be ignored entirely.
    truth_yx[:4, :20] = truth_yx[8:12] = -1
    foreground_yx = rng.random(truth_yx.shape)
    sure, right = judge(truth_yx, prediction_yx, foreground_yx)
    table = measure_objects(prediction_yx, foreground_yx=foreground_yx)
    expected = []
    for label, confidence in zip(table.columns["label"], table.columns["confidence"], strict=True):
        counted_yx = truth_yx >= 0
        own_yx = (prediction_yx == label) & counted_yx
        if own_yx.any():
            others = [(truth_yx == other) & counted_yx for other in range(1, 9)]
            expected.append((confidence, any(other.any() and compute_iou(own_yx, other) >= 0.5 for other in others)))
    np.testing.assert_allclose(sure, [confidence for confidence, _ in expected])
    assert right.tolist() == [found for _, found in expected]
    assert set(right) == {True, False}


def test_the_summary_takes_all_images_as_one():
    rng = np.random.default_rng(0)
    parts = [(rng.random(count), rng.random(count) < 0.7) for count in (30, 0, 12)]
    sure, right = (np.concatenate(values) for values in zip(*parts, strict=True))
    found = json.loads(json.dumps(calibrate(parts), allow_nan=False))
    assert found["objects"] == 42
    assert found["expected_calibration_error"] == pytest.approx(compute_calibration_error(sure, right))
    edges, mean, share, number = reliability(sure, right)
    for k, entry in enumerate(found["bins"]):
        assert (entry["low"], entry["high"], entry["objects"]) == (edges[k], edges[k + 1], number[k])
        assert (entry["confidence"], entry["right"]) == pytest.approx((mean[k], share[k]))


def test_without_objects_there_are_empty_bins():
    for none in ([], [judge(np.zeros((2, 2), int), np.zeros((2, 2), int), np.ones((2, 2)))]):
        found = json.loads(json.dumps(calibrate(none), allow_nan=False))
        assert (found["objects"], found["expected_calibration_error"], len(found["bins"])) == (0, 0, 10)
        assert all((entry["confidence"], entry["right"]) == (None, None) for entry in found["bins"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reliability([0.5], []), r"\(1,\) and \(0,\)"),
        (lambda: reliability([1.5], [True]), "1.5"),
        (lambda: reliability([0.5], [True], bins=0), "at least one bin"),
    ],
)
def test_unusable_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
