"""Compare scores of neurites with loops over all pairs of pixels, and with scikit-image."""

import math
from collections import Counter
from dataclasses import asdict
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter
from skimage.metrics import adapted_rand_error, variation_of_information

from septa.kernels import label_mask
from septa.metrics import neurites
from septa.metrics.neurites import information_scores, rand_scores, score_neurites, score_stack
from septa.metrics.topology import thin_borders, warp_mask

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6)
ISBI = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "isbi2012" / "labels"


@pytest.fixture(scope="module", autouse=True)
def compile_kernels():
    """Compile the kernels before hypothesis measures the time of an example."""
    thin_borders(np.eye(3, dtype=int))
    warp_mask(np.eye(3, dtype=bool), np.ones((3, 3), bool))


@st.composite
def partitions(draw, smallest=0):
    shape = draw(SHAPES)
    ids = st.sampled_from([smallest, 1, 2, 5, 70_000])
    return draw(hnp.arrays(np.int64, shape, elements=ids)), draw(hnp.arrays(np.int32, shape, elements=ids))


def pair_foreground_ids(truth, segments):
    """Return pairs of a true and a predicted id; a pixel of no predicted segment gets an id of its own."""
    pixels = zip(truth.ravel().tolist(), segments.ravel().tolist(), strict=True)
    return [(true, predicted or -k) for k, (true, predicted) in enumerate(pixels, 1) if true]


def count_pairs(truth, segments):
    """Count the pairs of pixels that are together in both partitions, in the ground truth, and in the prediction."""
    both = true = predicted = 0
    for one, other in product(pair_foreground_ids(truth, segments), repeat=2):
        both += one == other
        true += one[0] == other[0]
        predicted += one[1] == other[1]
    return both, true, predicted


def compute_entropy(ids):
    return -sum(count / len(ids) * math.log(count / len(ids)) for count in Counter(ids).values())


@given(partitions(), st.sampled_from([0, 0.25, 0.5, 1]))
def test_rand_equals_all_pairs(pair, alpha):
    both, truth, predicted = count_pairs(*pair)
    scores = rand_scores(*pair, alpha)
    if not truth:
        assert scores == (1, 1, 1)
        return
    assert scores.split == both / truth
    assert scores.merge == both / predicted
    assert scores.f == pytest.approx(both / (alpha * predicted + (1 - alpha) * truth))
    assert rand_scores(*pair, 0).f == scores.split
    assert rand_scores(*pair, 1).f == scores.merge


@given(partitions(), st.sampled_from([0, 0.25, 0.5, 1]))
def test_information_equals_dictionaries(pair, alpha):
    pixels = pair_foreground_ids(*pair)
    truth, predicted = ([pixel[k] for pixel in pixels] for k in (0, 1))
    scores = information_scores(*pair, alpha)
    assert all(0 <= score <= 1 for score in scores)
    whole = (1 - alpha) * compute_entropy(predicted) + alpha * compute_entropy(truth)
    shared = compute_entropy(truth) + compute_entropy(predicted) - compute_entropy(pixels)
    assert scores.split == pytest.approx(shared / compute_entropy(predicted) if len(set(predicted)) > 1 else 1)
    assert scores.merge == pytest.approx(shared / compute_entropy(truth) if len(set(truth)) > 1 else 1)
    assert scores.f == pytest.approx(shared / whole if whole > 1e-12 else 1)


@given(partitions(smallest=1))
def test_scikit_image_agrees_with_precision_and_recall_exchanged(pair):
    truth, segments = pair
    both, true, predicted = count_pairs(truth, segments)
    n = truth.size
    assume(true > n and predicted > n)
    error, precision, recall = adapted_rand_error(truth, segments, ignore_labels=())
    scores = rand_scores(truth, segments)
    # scikit-image does not count the pair of a pixel with itself.
    assert (scores.split * true - n) / (true - n) == pytest.approx(precision)
    assert (scores.merge * predicted - n) / (predicted - n) == pytest.approx(recall)
    assert 1 - 2 * (both - n) / (true + predicted - 2 * n) == pytest.approx(error)


@given(partitions(smallest=1))
def test_scikit_image_agrees_on_information(pair):
    truth, segments = pair
    splits, merges = variation_of_information(truth, segments)
    scores = information_scores(truth, segments)
    nats = math.log(2)
    assert (1 - scores.split) * compute_entropy(segments.ravel().tolist()) == pytest.approx(splits * nats, abs=1e-9)
    assert (1 - scores.merge) * compute_entropy(truth.ravel().tolist()) == pytest.approx(merges * nats, abs=1e-9)


@given(partitions(), st.permutations([1, 2, 5, 70_000]))
def test_renumbered_segments_score_the_same(pair, order):
    renumbered = pair[1].copy()
    for old, new in zip([1, 2, 5, 70_000], order, strict=True):
        renumbered[pair[1] == old] = new
    for score in (rand_scores, information_scores):
        assert score(pair[0], renumbered) == score(*pair)
        assert score(pair[0], pair[0]) == (1, 1, 1)


@given(hnp.arrays(np.int64, SHAPES, elements=st.integers(1, 4)), st.integers(1, 4), st.integers(1, 4))
def test_a_merge_costs_only_merge_and_a_split_only_split(segments, one, other):
    merged = np.where(segments == one, other, segments)
    assume((merged != segments).any() and (segments == other).any())
    for score in (rand_scores, information_scores):
        found = score(segments, merged)
        assert found.split == pytest.approx(1)
        assert found.merge < 1 - 1e-6
        found = score(merged, segments)
        assert found.merge == pytest.approx(1)
        assert found.split < 1 - 1e-6


def test_pixels_of_no_segment_are_segments_of_their_own():
    truth, segments = np.array([[1, 1, 1, 1]]), np.array([[1, 1, 0, 0]])
    assert rand_scores(truth, segments) == rand_scores(truth, np.array([[1, 1, 2, 3]]))
    assert information_scores(truth, segments) == information_scores(truth, np.array([[1, 1, 2, 3]]))


@pytest.mark.parametrize("score", [rand_scores, information_scores])
def test_unusable_partitions_are_refused(score):
    for truth, message in (
        (np.array([[-1, 1]]), "at least 0, got int64 -1 to 1"),
        (np.array([[0.5, 1]]), "float64"),
        (np.array([[1], [1]]), r"\(2, 1\) and \(1, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            score(truth, np.array([[1, 1]]))


def draw_cells(seed=0, size=48):
    """Draw a ground truth with some draw_cells, and a noisy probability."""
    rng = np.random.default_rng(seed)
    truth = abs(gaussian_filter(rng.normal(size=(size, size)), 4)) > 0.02
    probability = gaussian_filter(truth.astype(float), 1) + rng.normal(0, 0.2, truth.shape)
    return truth, np.clip(probability, 0, 1).astype(np.float32)


def score_at(truth, probability, threshold):
    """Compute the measures of one image at one threshold from their parts."""
    predicted = probability > threshold
    grown, segments = thin_borders(label_mask(predicted)), label_mask(predicted)
    both, true, found = neurites._pairs(neurites._foreground(label_mask(truth), segments))
    warped = warp_mask(truth, predicted, abs(probability - np.float32(threshold)))
    return {
        "rand": rand_scores(label_mask(truth), grown),
        "info": information_scores(label_mask(truth), grown),
        "pairs": (2 * both, true + found),
        "warping": np.mean(warped != predicted),
        "pixel": np.mean(truth != predicted),
        "interior": (2 * np.sum(truth & predicted), truth.sum() + predicted.sum()),
    }


def test_stack_is_scored_at_thresholds_of_the_whole_stack():
    stack = [(truth, probability ** (seed + 1)) for seed in range(3) for truth, probability in [draw_cells(seed)]]
    thresholds = (0.3, 0.5, 0.6, 0.8)
    table = [[score_at(*pair, threshold) for pair in stack] for threshold in thresholds]
    scores = score_stack(iter(stack), thresholds)

    def pool_images(row, name):
        return sum(image[name][0] for image in row) / sum(image[name][1] for image in row)

    for name in ("rand", "info"):
        values = [np.mean([image[name].f for image in row]) for row in table]
        k = int(np.argmax(values))
        assert getattr(scores, f"v_{name}") == pytest.approx(values[k])
        assert getattr(scores, f"v_{name}_threshold") == thresholds[k]
        for part in ("split", "merge"):
            parts = [getattr(image[name], part) for image in table[k]]
            assert getattr(scores, f"v_{name}_{part}") == pytest.approx(np.mean(parts))
    for name, values in {
        "rand": [1 - pool_images(row, "pairs") for row in table],
        "warping": [np.mean([image["warping"] for image in row]) for row in table],
        "pixel": [np.mean([image["pixel"] for image in row]) for row in table],
        "pixel_f": [1 - pool_images(row, "interior") for row in table],
    }.items():
        assert getattr(scores, f"{name}_error") == pytest.approx(min(values))
        assert getattr(scores, f"{name}_threshold") == thresholds[int(np.argmin(values))]
    best_alone = np.mean([score_neurites(*pair, thresholds).v_rand for pair in stack])
    # The threshold is chosen once for the stack, not for each image.
    assert scores.v_rand < best_alone


@given(hnp.arrays(bool, SHAPES))
def test_a_perfect_prediction_scores_perfectly(truth):
    for prediction in (truth, truth.astype(np.uint8), truth.astype(np.float32), truth * 0.8 + 0.1):
        found = asdict(score_neurites(truth, prediction))
        for name, value in found.items():
            assert value == (0.5 if name.endswith("threshold") else 0 if name.endswith("error") else 1), name


@given(hnp.arrays(bool, SHAPES), st.data())
def test_every_score_is_in_range(truth, data):
    probability = data.draw(hnp.arrays(np.float32, truth.shape, elements=st.floats(0, 1, width=32)))
    before = truth.copy(), probability.copy()
    assert all(0 <= value <= 1 for value in asdict(score_neurites(truth, probability, (0, 0.5))).values())
    assert np.array_equal(truth, before[0])
    assert np.array_equal(probability, before[1])


def test_width_of_the_membrane_costs_nothing_after_thinning():
    truth = np.ones((40, 41), bool)
    truth[:, 20] = False
    wide = truth.copy()
    wide[:, 16:25] = False
    scores = score_neurites(truth, wide)
    assert (scores.v_rand, scores.v_info, scores.warping_error) == (1, 1, 0)
    assert scores.rand_error > 0.1
    assert scores.pixel_error == pytest.approx(8 / 41)


def test_gap_and_false_membrane_are_a_merge_and_a_split():
    truth = np.ones((40, 41), bool)
    truth[:, 20] = False
    gap, extra = truth.copy(), truth.copy()
    gap[20, 20], extra[20, :20] = True, False
    merged, split = score_neurites(truth, gap), score_neurites(truth, extra)
    assert (merged.v_rand_split, merged.v_rand_merge, merged.v_info_split) == (1, 0.5, 1)
    assert merged.warping_error == 1 / truth.size
    assert (split.v_rand_merge, split.v_info_merge) == (1, pytest.approx(1))
    assert split.v_rand_split < 0.8
    assert 0 < split.warping_error <= 20 / truth.size


def test_images_without_membrane_or_without_interior():
    interior, membrane = np.ones((6, 6), bool), np.zeros((6, 6), bool)
    missing = score_neurites(interior, membrane)
    assert (missing.v_rand_split, missing.v_rand_merge, missing.v_info) == (1 / 36, 1, 0)
    assert (missing.pixel_error, missing.pixel_f_error) == (1, 1)
    nothing = score_neurites(membrane, interior)
    assert (nothing.v_rand, nothing.v_info, nothing.rand_error) == (1, 1, 0)
    assert (nothing.pixel_error, nothing.pixel_f_error, nothing.warping_error) == (1, 1, 1)
    one = score_neurites(np.array([[1]]), np.array([[0.7]]), [0.5])
    assert (one.v_rand, one.v_info, one.warping_error, one.pixel_error) == (1, 1, 0, 0)


def test_of_equally_good_thresholds_the_nearest_to_half_is_given():
    truth, _ = draw_cells()
    assert score_neurites(truth, truth * 0.7, (0.1, 0.3, 0.6, 0.8)).v_rand_threshold == 0.6
    assert score_neurites(truth, truth * 0.5, (0.1, 0.3, 0.6, 0.8)).v_rand_threshold == 0.3


def test_a_probability_equal_to_the_threshold_is_membrane():
    truth = np.array([[1, 1, 0, 1, 1]])
    probability = np.array([[0.9, 0.9, 0.5, 0.9, 0.9]], np.float32)
    assert score_neurites(truth, probability, [0.5]).pixel_error == 0


@pytest.mark.parametrize(
    ("truth", "probability", "message"),
    [
        (np.ones((2, 3), int), np.ones((3, 2)), r"\(2, 3\) and \(3, 2\)"),
        (np.ones(3, int), np.ones(3), r"\(3,\) and \(3,\)"),
        (np.ones((0, 3), int), np.ones((0, 3)), "not empty"),
        (np.array([[0, 255]]), np.ones((1, 2)), "got int64 0 to 255"),
        (np.array([[0.0, 1.0]]), np.ones((1, 2)), "truth must hold the integers"),
        (np.array([[0, 1]]), np.array([[0, 1.5]]), "probability must hold numbers 0 to 1, got float64 0.0 to 1.5"),
        (np.array([[0, 1]]), np.array([[0, math.nan]]), "probability must hold numbers 0 to 1"),
        (np.array([[0, 1]]), np.array([["a", "b"]]), "got <U1"),
    ],
)
def test_unusable_images_are_refused(truth, probability, message):
    with pytest.raises(ValueError, match=message):
        score_neurites(truth, probability)


def test_unusable_thresholds_and_empty_stacks_are_refused():
    for thresholds in ([], [1.0], [-0.1], [math.nan]):
        with pytest.raises(ValueError, match="thresholds must be at least one"):
            score_neurites(np.ones((2, 2), bool), np.ones((2, 2)), thresholds)
    with pytest.raises(ValueError, match="no images"):
        score_stack([])


@pytest.mark.skipif(not ISBI.is_dir(), reason="the ISBI 2012 labels are not next to the checkout")
def test_real_labels():
    truth = cv2.imread(str(ISBI / "00.png"), cv2.IMREAD_GRAYSCALE) > 0
    perfect = score_neurites(truth, truth)
    assert (perfect.v_rand, perfect.v_info, perfect.warping_error, perfect.rand_error) == (1, 1, 0, 0)
    rng = np.random.default_rng(0)
    blurred = gaussian_filter(truth.astype(np.float32), 2)
    noisy = np.clip(blurred + rng.normal(0, 0.3, truth.shape), 0, 1)
    good, poor = score_neurites(truth, blurred), score_neurites(truth, noisy)
    assert 0.99 < good.v_rand < 1
    assert 0.99 < good.v_info < 1
    assert poor.v_rand < good.v_rand
    assert poor.v_info < good.v_info
    assert 0 < good.warping_error < 1e-3 < poor.warping_error < poor.pixel_error
    # Slices are 50 nm apart, so the labels of the next slice are a poor prediction, but not a random one.
    following = cv2.imread(str(ISBI / "01.png"), cv2.IMREAD_GRAYSCALE) > 0
    assert 0.2 < score_neurites(truth, following).v_rand < 0.95
