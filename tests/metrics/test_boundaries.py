"""Compare surface distances with those of all pairs of surface pixels."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import binary_erosion

from septa.metrics.boundaries import (
    BoundaryScores,
    find_surface,
    score_boundaries,
    score_class_boundaries,
    surface_distances,
)

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
SPACINGS = st.sampled_from([(1.0, 1.0), (0.5, 0.5), (0.25, 2.0), (3.0, 0.1)])


@st.composite
def mask_pairs(draw):
    shape = draw(SHAPES)
    return draw(hnp.arrays(bool, shape)), draw(hnp.arrays(bool, shape))


def find_surface_by_loop(mask):
    """Return surface pixels as (y, x), found by checking each neighbour."""
    inside = {(y, x) for y, x in np.argwhere(mask).tolist()}
    return [(y, x) for y, x in sorted(inside) if not {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} <= inside]


def measure_by_loop(points, others, spacing):
    height, width = spacing
    return [min(math.hypot((y - v) * height, (x - u) * width) for v, u in others) for y, x in points]


def compute_percentile95(values):
    ordered = sorted(values)
    rank = 0.95 * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (rank - low) * (ordered[high] - ordered[low])


def compute_f1(missed, stray, tolerance):
    recall = sum(distance <= tolerance for distance in missed) / len(missed)
    precision = sum(distance <= tolerance for distance in stray) / len(stray)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@given(hnp.arrays(bool, SHAPES))
def test_surface_equals_loop_and_erosion(mask):
    assert [tuple(point) for point in np.argwhere(find_surface(mask)).tolist()] == find_surface_by_loop(mask)
    assert np.array_equal(find_surface(mask), mask & ~binary_erosion(mask, border_value=0))


@given(mask_pairs(), SPACINGS, st.sampled_from([0, 1, 1.5, 2, 3]))
def test_scores_equal_all_pairs(masks, spacing, tolerance):
    truth, prediction = masks
    assume(truth.any() and prediction.any())
    before = truth.copy(), prediction.copy()
    points, others = find_surface_by_loop(truth), find_surface_by_loop(prediction)
    missed, stray = measure_by_loop(points, others, spacing), measure_by_loop(others, points, spacing)
    found = surface_distances(truth, prediction, spacing)
    assert found[0].tolist() == pytest.approx(missed)
    assert found[1].tolist() == pytest.approx(stray)
    scores = score_boundaries(truth, prediction, tolerance=tolerance, spacing=spacing)
    assert scores.assd == pytest.approx(sum(missed + stray) / len(missed + stray))
    assert scores.hd95 == pytest.approx(max(compute_percentile95(missed), compute_percentile95(stray)))
    in_pixels = measure_by_loop(points, others, (1, 1)), measure_by_loop(others, points, (1, 1))
    assert scores.f1 == pytest.approx(compute_f1(*in_pixels, tolerance))
    assert np.array_equal(truth, before[0])
    assert np.array_equal(prediction, before[1])


@given(mask_pairs())
def test_symmetry_and_perfection(masks):
    truth, prediction = masks
    one, other = score_boundaries(truth, prediction), score_boundaries(prediction, truth)
    assert (one.precision, one.recall) == (other.recall, other.precision)
    assert (one.hd95, one.f1) == (other.hd95, other.f1)
    assert one.assd == pytest.approx(other.assd)
    assert score_boundaries(truth, truth) == BoundaryScores(0.0, 0.0, 1.0, 1.0, 1.0)


@given(mask_pairs(), st.sampled_from([1, 2, 4]))
def test_scaling_of_the_spacing(masks, factor):
    plain = score_boundaries(*masks)
    scaled = score_boundaries(*masks, spacing=(float(factor), float(factor)))
    assert (scaled.assd, scaled.hd95) == pytest.approx((factor * plain.assd, factor * plain.hd95))
    assert scaled.f1 == plain.f1


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
def test_empty_masks(spacing):
    empty, full = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    assert score_boundaries(empty, empty, spacing=spacing) == BoundaryScores(0.0, 0.0, 1.0, 1.0, 1.0)
    diagonal = math.hypot(3 * spacing[0], 4 * spacing[1])
    for masks in ((empty, full), (full, empty)):
        assert score_boundaries(*masks, spacing=spacing) == BoundaryScores(diagonal, diagonal, 0.0, 0.0, 0.0)


def test_no_distance_reaches_the_diagonal():
    corners = np.zeros((2, 30, 40), bool)
    corners[0, 0, 0] = corners[1, -1, -1] = True
    missing = score_boundaries(corners[0], np.zeros((30, 40), bool))
    assert score_boundaries(*corners).hd95 == math.hypot(29, 39) < missing.hd95 == 50


def test_single_pixel_image():
    full, empty = np.ones((1, 1), bool), np.zeros((1, 1), bool)
    assert score_boundaries(full, full).f1 == 1.0
    assert score_boundaries(full, empty).assd == math.sqrt(2)


def test_a_few_far_pixels_do_not_set_hd95():
    truth = np.zeros((60, 60), bool)
    truth[5:45, 5:45] = True
    stray = truth.copy()
    stray[58, 58] = True
    assert surface_distances(truth, stray)[1].max() > 15
    assert score_boundaries(truth, stray).hd95 == 0.0


def test_hd95_of_large_masks_is_the_percentile_of_either_side():
    truth = np.zeros((60, 60), bool)
    truth[5:45, 5:45] = True
    prediction = truth.copy()
    prediction[20:31, 45:55] = True  # an arm: its end is far from the ground truth
    missed, stray = surface_distances(truth, prediction)
    expected = compute_percentile95(stray.tolist())
    assert expected > compute_percentile95(missed.tolist())
    assert score_boundaries(truth, prediction).hd95 == pytest.approx(expected)
    assert score_boundaries(prediction, truth).hd95 == pytest.approx(expected)


def test_tolerance_is_inclusive_and_one_side_may_be_perfect():
    truth, prediction = np.zeros((2, 9, 9), bool)
    truth[4, 1] = truth[4, 7] = prediction[4, 3] = True
    assert score_boundaries(truth, prediction, tolerance=2).precision == 1.0
    assert score_boundaries(truth, prediction, tolerance=2).recall == 0.5
    assert score_boundaries(truth, prediction, tolerance=1.99).f1 == 0.0


@given(st.integers(1, 6), st.integers(1, 6), st.randoms(use_true_random=False))
def test_classes_are_scored_one_by_one(height, width, random):
    rng = np.random.default_rng(random.randrange(1000))
    truth, prediction = rng.integers(-1, 3, (height, width)), rng.integers(0, 3, (height, width))
    counted = truth != -1
    for k, scores in enumerate(score_class_boundaries(truth, prediction, 4, tolerance=1)):
        assert scores == score_boundaries((truth == k) & counted, (prediction == k) & counted, tolerance=1)


def test_ignored_pixels_belong_to_no_class():
    truth = np.array([[0, 0, 1, 255, 255, 255]], np.uint8)
    prediction = np.array([[0, 0, 1, 1, 0, 1]], np.uint8)
    assert all(scores.assd == 0 for scores in score_class_boundaries(truth, prediction, 2, ignore=255))
    assert score_class_boundaries(truth, prediction, 2)[1].assd > 0


@pytest.mark.parametrize(
    ("masks", "settings", "message"),
    [
        (np.zeros((2, 3, 3)), {}, "must be bool, got float64 and float64"),
        ((np.zeros((2, 3), bool), np.zeros((3, 2), bool)), {}, r"\(2, 3\) and \(3, 2\)"),
        (np.zeros((2, 3), bool), {}, r"\(3,\) and \(3,\)"),
        (np.ones((2, 3, 3), bool), {"tolerance": -1}, "tolerance must be at least 0 pixels, got -1"),
        (np.ones((2, 3, 3), bool), {"tolerance": math.nan}, "tolerance must be at least 0 pixels, got nan"),
        (np.ones((2, 3, 3), bool), {"spacing": (1.0, 0.0)}, r"spacing must .* got \(1.0, 0.0\)"),
        (np.ones((2, 3, 3), bool), {"spacing": (1.0,)}, "spacing must be the height and width"),
    ],
)
def test_unusable_arguments_are_refused(masks, settings, message):
    with pytest.raises(ValueError, match=message):
        score_boundaries(*masks, **settings)


def test_distances_of_an_empty_mask_are_refused():
    with pytest.raises(ValueError, match="empty mask"):
        surface_distances(np.zeros((2, 2), bool), np.ones((2, 2), bool))


def test_classes_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(2, 2\)"):
        score_class_boundaries(np.zeros((1, 2), int), np.zeros((2, 2), int), 2)
