"""Compare overlaps and matching with Python sets and with a search through all matchings."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from septa.metrics import overlaps
from septa.metrics.overlaps import contingency, match

IDS = [0, 1, 2, 3, 9, 70_000, 2**40, 2**63 - 1]
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6)


@st.composite
def label_pairs(draw, ids=IDS, shapes=SHAPES):
    """Draw a ground truth and a prediction; at ignored pixels, the prediction may hold any value."""
    shape = draw(shapes)
    truth = draw(hnp.arrays(np.int64, shape, elements=st.sampled_from(ids)))
    prediction = draw(hnp.arrays(np.int64, shape, elements=st.sampled_from(ids)))
    if draw(st.booleans()):
        prediction = np.where(draw(hnp.arrays(bool, shape)), truth, prediction)
    if draw(st.booleans()):
        truth[draw(hnp.arrays(bool, shape))] = -1
        prediction[(truth == -1) & draw(hnp.arrays(bool, shape))] = -7
    return truth, prediction


def find_pixel_sets(truth, prediction):
    """Return a dictionary from id to counted pixels for each of both images."""
    both = ({}, {})
    for place in np.ndindex(truth.shape):
        if truth[place] != -1:
            for sets, labels in zip(both, (truth, prediction), strict=True):
                if labels[place] != 0:
                    sets.setdefault(int(labels[place]), set()).add(place)
    return both


def compute_all_ious(truth, prediction):
    true, predicted = find_pixel_sets(truth, prediction)
    return {(t, p): len(a & b) / len(a | b) for t, a in true.items() for p, b in predicted.items() if a & b}


def find_best_matching(pairs, ious):
    """Find the largest number of pairs, then the largest sum of IoU, by an exhaustive search."""
    if not pairs:
        return 0, 0.0
    (t, p), rest = pairs[0], pairs[1:]
    without = find_best_matching(rest, ious)
    count, total = find_best_matching([(a, b) for a, b in rest if a != t and b != p], ious)
    return max(without, (count + 1, total + ious[t, p]))


@given(label_pairs(), st.sampled_from([1, 4, 1 << 18]))
def test_contingency_equals_sets(case, block):
    truth, prediction = case
    before = truth.copy(), prediction.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlaps, "_BLOCK", block)
        table = contingency(truth, prediction)
    true, predicted = find_pixel_sets(truth, prediction)
    assert dict(zip(table.truth_ids.tolist(), table.truth_areas.tolist())) == {t: len(s) for t, s in true.items()}
    areas = dict(zip(table.prediction_ids.tolist(), table.prediction_areas.tolist()))
    assert areas == {p: len(s) for p, s in predicted.items()}
    assert table.truth_ids.tolist() == sorted(true)
    assert table.prediction_ids.tolist() == sorted(predicted)
    pairs = list(zip(table.truth_ids[table.rows].tolist(), table.prediction_ids[table.columns].tolist()))
    assert pairs == sorted(pairs)
    assert dict(zip(pairs, table.overlaps.tolist())) == {
        (t, p): len(a & b) for t, a in true.items() for p, b in predicted.items() if a & b
    }
    assert dict(zip(pairs, table.ious.tolist())) == compute_all_ious(truth, prediction)
    assert table.pixels == np.count_nonzero(truth != -1)
    np.testing.assert_array_equal(truth, before[0])
    np.testing.assert_array_equal(prediction, before[1])


@given(label_pairs(), st.sampled_from([0.01, 0.2, 1 / 3, 0.4, 0.5, 0.55, 0.6, 0.75, 1.0]))
def test_match_is_a_best_matching(case, threshold):
    ious = {pair: iou for pair, iou in compute_all_ious(*case).items() if iou >= threshold}
    assume(len(ious) <= 12)
    table = contingency(*case)
    found = match(table, threshold)
    count, total = find_best_matching(list(ious), ious)
    assert found.tp == len(found.pairs) == count
    assert (found.fp, found.fn) == (table.prediction_ids.size - count, table.truth_ids.size - count)
    assert found.ious.sum() == pytest.approx(total, abs=1e-12)
    assert found.ious.tolist() == [ious[t, p] for t, p in found.pairs.tolist()]
    assert all(len(set(column)) == count for column in found.pairs.T.tolist())
    assert found.pairs[:, 0].tolist() == sorted(found.pairs[:, 0].tolist())


def test_more_pairs_beat_a_better_pair():
    """Object 1 fits prediction 8 best, but then object 2 would have no partner."""
    truth, prediction = np.array([[1, 1, 1, 1, 2, 2]]), np.array([[7, 7, 8, 8, 8, 8]])
    ious = match(contingency(truth, prediction), 0.3)
    assert ious.pairs.tolist() == [[1, 7], [2, 8]]
    only = match(contingency(np.array([[1, 1, 1, 0]]), np.array([[7, 8, 8, 0]])), 0.3)
    assert only.pairs.tolist() == [[1, 8]]


def test_equality_is_a_match():
    half = contingency(np.array([[1, 1]]), np.array([[5, 0]]))
    assert [match(half, threshold).tp for threshold in (0.5, np.nextafter(0.5, 1))] == [1, 0]
    three_fifths = contingency(np.array([[1, 1, 1, 1, 0]]), np.array([[0, 2, 2, 2, 2]]))
    assert [match(three_fifths, threshold).tp for threshold in (0.6, 0.65)] == [1, 0]
    rivals = match(contingency(np.array([[1, 1]]), np.array([[5, 6]])), 0.5)
    assert (rivals.tp, rivals.fp, rivals.fn) == (1, 1, 0)


def test_low_thresholds_need_no_dense_table():
    """A dense matrix of 20,000 objects on each side would need gigabytes."""
    truth = np.arange(1, 40_001).reshape(200, 200) // 2
    found = match(contingency(truth, np.roll(truth, 1, axis=1)), 0.1)
    assert found.tp > 15_000


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "uint16", "int32", "uint32", "uint64"])
def test_any_integer_dtype(dtype):
    truth, prediction = np.array([[0, 1, 1, 0]]).astype(dtype), np.array([[0, 0, 1, 1]]).astype(dtype)
    assert contingency(truth, prediction).ious.tolist() == [1 / 3]


def test_views_equal_copies():
    labels = np.arange(48).reshape(6, 8) // 5
    truth, prediction = labels[::-2, 1::3], labels.T[1:4:1, 2:5]
    views, copies = contingency(truth, prediction), contingency(truth.copy(), prediction.copy())
    for name in ("truth_ids", "prediction_ids", "overlaps", "rows", "columns"):
        np.testing.assert_array_equal(getattr(views, name), getattr(copies, name))


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"\(2, 3\) and \(3, 2\)"),
        (np.zeros(3, int), np.zeros(3, int), "must both be YX"),
        (np.zeros((1, 1)), np.zeros((1, 1), int), "truth must hold integers, got float64"),
        (np.zeros((1, 1), int), np.zeros((1, 1)), "prediction must hold integers, got float64"),
        (np.array([[-2]]), np.array([[0]]), "truth holds the id -2, expected 0 to .* or the ignore label -1"),
        (np.array([[0]]), np.array([[-1]]), r"prediction holds the id -1, expected 0 to 2\*\*63 - 1$"),
        (np.array([[2**63]], "uint64"), np.array([[0]]), "truth holds the id 9223372036854775808"),
    ],
)
def test_refused(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        contingency(truth, prediction)


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, float("nan")])
def test_refused_thresholds(threshold):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        match(contingency(np.array([[1]]), np.array([[1]])), threshold)
