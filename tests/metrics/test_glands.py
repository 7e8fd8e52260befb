"""Compare GlaS scores with find_masks, sets and scipy's directed Hausdorff distance."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import directed_hausdorff

from septa.metrics.glands import hausdorff, pool_glands, score_glands

GLAS = Path(__file__).resolve().parents[3] / "shared" / "data" / "glas" / "labels"
IDS = [0, 1, 2, 3, 70_000, 2**40]
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7)


@st.composite
def label_pairs(draw):
    """Draw a small ground truth and prediction with many unmatched objects; some ground-truth pixels are ignored."""
    shape = draw(SHAPES)
    elements = st.sampled_from([0] * draw(st.integers(0, 8)) + IDS)
    truth, prediction = (draw(hnp.arrays(np.int64, shape, elements=elements)) for _ in range(2))
    if draw(st.booleans()):
        truth[draw(hnp.arrays(bool, shape))] = -1
    return truth, prediction


def measure_brute_hausdorff(first, second):
    a, b = np.argwhere(first), np.argwhere(second)
    return max(directed_hausdorff(a, b)[0], directed_hausdorff(b, a)[0])


def find_masks(truth, prediction):
    """Return the mask of the counted pixels of each object, in the order of ids."""
    counted = truth != -1
    found = [
        [(labels == label) & counted for label in np.unique(labels[counted]) if label > 0]
        for labels in (truth, prediction)
    ]
    return found[0], found[1]


def find_partner(mask, others):
    """Find the first object with most common pixels; return None if no object has any."""
    common = [int((mask & other).sum()) for other in others]
    return others[common.index(max(common))] if any(common) else None


def compute_mask_dice(mask, other):
    return 0.0 if other is None else 2 * (mask & other).sum() / (mask.sum() + other.sum())


def score_as_the_challenge(truth, prediction):
    """Compute section 4 of the paper with plain loops; "more than half" follows the code of the challenge."""
    true, predicted = find_masks(truth, prediction)
    if not true and not predicted:
        return 1.0, 1.0, 0.0
    if not true or not predicted:
        return 0.0, 0.0, math.hypot(*truth.shape)
    tp = 0
    for mask in predicted:
        found = find_partner(mask, true)
        tp += found is not None and (mask & found).sum() / found.sum() > 0.5
    dices, distances = [], []
    for one, other in ((true, predicted), (predicted, true)):
        total = sum(mask.sum() for mask in one)
        dices.append(sum(mask.sum() / total * compute_mask_dice(mask, find_partner(mask, other)) for mask in one))
        distance = 0.0
        for mask in one:
            found = find_partner(mask, other)
            nearest = min(
                measure_brute_hausdorff(mask, candidate) for candidate in (other if found is None else [found])
            )
            distance += mask.sum() / total * nearest
        distances.append(distance)
    return 2 * tp / (len(true) + len(predicted)), sum(dices) / 2, sum(distances) / 2


@given(label_pairs())
def test_scores_equal_the_challenge(case):
    before = case[0].copy(), case[1].copy()
    scores = score_glands(*case)
    values = scores.f1, scores.object_dice, scores.object_hausdorff
    assert values == pytest.approx(score_as_the_challenge(*case), abs=1e-12)
    np.testing.assert_array_equal(case[0], before[0])
    np.testing.assert_array_equal(case[1], before[1])


@given(SHAPES.flatmap(lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))))
def test_hausdorff_equals_brute_force(pair):
    if not (pair[0].any() and pair[1].any()):
        with pytest.raises(ValueError, match="no pixel set"):
            hausdorff(*pair)
        return
    assert hausdorff(*pair) == measure_brute_hausdorff(*pair) == hausdorff(*pair[::-1])


def test_the_farthest_pixel_may_lie_inside():
    """The centre of a disc is farther from the ring around it than the edge of the disc."""
    y, x = np.mgrid[-20:21, -20:21]
    radius = np.hypot(y, x)
    disc, ring = radius <= 12, (radius > 14) & (radius <= 16)
    assert hausdorff(disc, ring) == measure_brute_hausdorff(disc, ring) > 14


@given(label_pairs())
def test_swapping_sides(case):
    truth, prediction = (np.where(case[0] == -1, 0, labels) for labels in case)
    one, other, mirrored = (
        score_glands(*pair)
        for pair in ((truth, prediction), (prediction, truth), (truth[:, ::-1], prediction[:, ::-1]))
    )
    assert one.object_dice == pytest.approx(other.object_dice) == pytest.approx(mirrored.object_dice)
    assert one.object_hausdorff == pytest.approx(other.object_hausdorff) == pytest.approx(mirrored.object_hausdorff)


@given(label_pairs())
def test_ids_matter_only_in_ties(case):
    """Ids keep their order here, so that ties are resolved in the same way."""
    moved = [np.where(labels > 0, labels * 3 + 100_000, labels) for labels in case]
    assert score_glands(*moved) == score_glands(*case)


@given(label_pairs())
def test_a_perfect_prediction(case):
    scores = score_glands(case[0], np.abs(case[0]))
    assert (scores.f1, scores.object_dice, scores.object_hausdorff) == (1.0, pytest.approx(1.0), 0.0)


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [(0, 0, (1.0, 1.0, 0.0)), (1, 0, (0.0, 0.0, 5.0)), (0, 1, (0.0, 0.0, 5.0)), (-1, 1, (1.0, 1.0, 0.0))],
)
def test_empty_sides(truth, prediction, expected):
    scores = score_glands(np.full((3, 4), truth), np.full((3, 4), prediction))
    assert (scores.f1, scores.object_dice, scores.object_hausdorff) == expected


def test_half_is_not_enough():
    truth = np.array([[1, 1, 1, 1]])
    assert score_glands(truth, np.array([[5, 5, 0, 0]])).f1 == 0.0
    assert score_glands(truth, np.array([[5, 5, 6, 6]])).f1 == 0.0
    assert score_glands(truth, np.array([[5, 5, 5, 6]])).f1 == pytest.approx(2 / 3)


def test_one_prediction_over_two_glands_finds_one():
    truth = np.array([[1, 1, 1, 0, 2, 2, 2, 2]])
    scores = score_glands(truth, np.ones_like(truth))
    assert (scores.tp, scores.f1) == (1, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), "equal shape"),
        (np.zeros((1, 1)), np.zeros((1, 1), int), "truth must hold integers"),
        (np.array([[0]]), np.array([[-1]]), "prediction holds the id -1"),
    ],
)
def test_refused(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        score_glands(truth, prediction)


def test_hausdorff_refuses_unequal_shapes():
    with pytest.raises(ValueError, match="equal shape"):
        hausdorff(np.ones((2, 3), bool), np.ones((3, 2), bool))


@given(st.lists(label_pairs(), min_size=1, max_size=3))
def test_pooling(cases):
    scores = [score_glands(*case) for case in cases]
    counted = [one for one in scores if one.pixels]
    if not counted:
        with pytest.raises(ValueError, match="no image has a counted pixel"):
            pool_glands(scores)
        return
    both = pool_glands(scores)
    assert json.loads(json.dumps(both, allow_nan=False)) == both
    for name in ("f1", "object_dice", "object_hausdorff"):
        assert both["mean"][name] == pytest.approx(np.mean([getattr(one, name) for one in counted]))
    count = sum(one.truth_count + one.prediction_count for one in counted)
    assert both["pooled"]["f1"] == pytest.approx(2 * sum(one.tp for one in counted) / count if count else 1.0)
    for name, empty in (("dice", 1.0), ("hausdorff", 0.0)):
        sides = []
        for side in ("truth", "prediction"):
            area = sum(getattr(one, f"{side}_area") for one in counted)
            if area:
                sides.append(sum(getattr(one, f"{side}_{name}") for one in counted) / area)
        assert both["pooled"][f"object_{name}"] == pytest.approx(np.mean(sides) if sides else empty)


@pytest.mark.skipif(not GLAS.is_dir(), reason="needs the GlaS labels in ../shared/data/glas")
def test_real_glands():
    """Score a shifted copy of real glands, without one gland and with one invented gland."""
    from septa.images.read import read_labels

    path = sorted(GLAS.iterdir())[0]
    truth = read_labels(path).array[::3, ::3].astype(np.int64)
    prediction = np.roll(truth, 4, axis=1)
    prediction[prediction == truth.max()] = 0
    prediction[:3, :3] = 99
    scores = score_glands(truth, prediction)
    values = scores.f1, scores.object_dice, scores.object_hausdorff
    assert values == pytest.approx(score_as_the_challenge(truth, prediction), abs=1e-9)
