"""Compare pixel metrics with loops over Python integers."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from septa.metrics import pixels

DTYPES = ["int8", "int32", "int64", "uint8", "uint16", "uint64"]
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7)


@st.composite
def label_pairs(draw, multilabel=False):
    """Draw ground truth, prediction, number of classes and ignore label; some ignored pixels have an invalid class."""
    classes = draw(st.integers(1, 5))
    largest = 2**classes - 1 if multilabel else classes - 1
    ignore = draw(st.sampled_from([-1, 0, 100]))
    shape = draw(SHAPES)
    values = st.integers(0, largest)
    truth_dtype = draw(st.sampled_from([name for name in DTYPES if ignore >= 0 or name.startswith("int")]))
    truth = draw(hnp.arrays(truth_dtype, shape, elements=values | st.just(ignore)))
    prediction = draw(hnp.arrays(draw(st.sampled_from(DTYPES)), shape, elements=values))
    prediction[(truth == ignore) & draw(hnp.arrays(bool, shape))] = 120
    return truth, prediction, classes, ignore


def list_counted_pairs(truth, prediction, ignore):
    pairs = zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True)
    return [(true, predicted) for true, predicted in pairs if true != ignore]


def count_confusion_by_loop(truth, prediction, classes, ignore):
    counts = [[0] * classes for _ in range(classes)]
    for true, predicted in list_counted_pairs(truth, prediction, ignore):
        counts[true][predicted] += 1
    return counts


def count_by_loop(pairs, present):
    """Count tp, fp, fn and tn of the class for which ``present(value)`` is True."""
    hits = [(present(true), present(predicted)) for true, predicted in pairs]
    return [hits.count(kind) for kind in ((True, True), (False, True), (True, False), (False, False))]


def compute_exact_scores(tp, fp, fn):
    """Compute Dice, IoU, precision and recall as fractions; the policy for empty classes is explicit."""
    if tp + fp + fn == 0:
        return [1.0] * 4
    parts = [(2 * tp, 2 * tp + fp + fn), (tp, tp + fp + fn), (tp, tp + fp), (tp, tp + fn)]
    return [float(Fraction(part, whole)) if whole else 0.0 for part, whole in parts]


def compute_class_scores(counts):
    return np.stack([score(counts) for score in (pixels.dice, pixels.iou, pixels.precision, pixels.recall)], axis=1)


@given(label_pairs(), st.sampled_from([1, 3, 8, 1 << 18]))
def test_confusion_equals_loop(case, block):
    truth, prediction, classes, ignore = case
    before = truth.copy(), prediction.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "_BLOCK", block)
        counts = pixels.confusion(truth, prediction, classes, ignore)
    assert counts.dtype == np.int64
    assert counts.tolist() == count_confusion_by_loop(truth, prediction, classes, ignore)
    assert np.array_equal(truth, before[0])
    assert np.array_equal(prediction, before[1])


@given(label_pairs(multilabel=True), st.sampled_from([1, 3, 1 << 18]))
def test_confusion_multilabel_equals_loop(case, block):
    truth, prediction, classes, ignore = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "_BLOCK", block)
        counts = pixels.confusion_multilabel(truth, prediction, classes, ignore)
    assert counts.dtype == np.int64
    pairs = list_counted_pairs(truth, prediction, ignore)
    for k in range(classes):
        tp, fp, fn, tn = count_by_loop(pairs, lambda value, k=k: bool(value >> k & 1))
        assert counts[k].tolist() == [[tn, fp], [fn, tp]]
        assert pixels.class_counts(counts)[k].tolist() == [tp, fp, fn, tn]


@given(label_pairs())
def test_scores_equal_fractions(case):
    truth, prediction, classes, ignore = case
    confusion = pixels.confusion(truth, prediction, classes, ignore)
    pairs = list_counted_pairs(truth, prediction, ignore)
    counts = pixels.class_counts(confusion)
    scores = compute_class_scores(counts)
    for k in range(classes):
        expected = count_by_loop(pairs, lambda value, k=k: value == k)
        assert counts[k].tolist() == expected
        assert scores[k].tolist() == compute_exact_scores(*expected[:3])
    right = sum(true == predicted for true, predicted in pairs)
    assert pixels.pixel_accuracy(confusion) == (right / len(pairs) if pairs else 1.0)
    assert pixels.pixel_error(confusion) == ((len(pairs) - right) / len(pairs) if pairs else 0.0)


@given(label_pairs(multilabel=True))
def test_multilabel_accuracy_counts_each_bit(case):
    truth, prediction, classes, ignore = case
    confusion = pixels.confusion_multilabel(truth, prediction, classes, ignore)
    pairs = list_counted_pairs(truth, prediction, ignore)
    wrong = sum((true ^ predicted).bit_count() for true, predicted in pairs)
    total = len(pairs) * classes
    assert pixels.pixel_error(confusion) == (wrong / total if total else 0.0)
    assert pixels.pixel_accuracy(confusion) == ((total - wrong) / total if total else 1.0)


def test_strided_arrays_and_bool():
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 2, (40, 30)).astype(bool)
    truth, prediction = wide[::2, ::-1].T, wide[1::2].T.copy()
    assert pixels.confusion(truth, prediction, 2).tolist() == count_confusion_by_loop(
        truth.astype(int), prediction.astype(int), 2, -1
    )


@pytest.mark.parametrize("count", [pixels.confusion, pixels.confusion_multilabel])
def test_no_pixel_of_minus_one_is_counted_by_default(count):
    truth, prediction = np.array([[0, 1, -1]]), np.array([[0, 1, 1]])
    assert count(truth, prediction, 2).tolist() == count(truth[:, :2], prediction[:, :2], 2).tolist()


def test_counts_do_not_overflow():
    confusion = np.array([[2**40, 1], [3, 2**41]])
    assert pixels.class_counts(confusion).tolist() == [[2**40, 3, 1, 2**41], [2**41, 1, 3, 2**40]]
    assert pixels.pixel_error(confusion) == 4 / (2**40 + 2**41 + 4)


@pytest.mark.parametrize("count", [pixels.confusion, pixels.confusion_multilabel])
@pytest.mark.parametrize("shape", [(3000, 3000), (1, 9_000_000), (9_000_000, 1)])
def test_memory_does_not_grow_with_the_arrays(count, shape):
    truth, prediction = np.ones(shape, np.uint8), np.zeros(shape, np.uint8)
    tracemalloc.start()
    try:
        count(truth, prediction, 2)
        assert tracemalloc.get_traced_memory()[1] < 2 * truth.size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [pixels.confusion, pixels.confusion_multilabel])
@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"\(2, 3\) and \(3, 2\)"),
        (np.zeros(4, int), np.zeros(4, int), r"\(4,\) and \(4,\)"),
        (np.zeros((1, 2, 2), int), np.zeros((1, 2, 2), int), r"\(1, 2, 2\)"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "truth must hold integers, got float64"),
        (np.zeros((2, 2), int), np.zeros((2, 2), "float32"), "prediction must hold integers, got float32"),
        (np.array([[0, 9, 7]]), np.array([[0, 0, 0]]), r"truth holds 7, 9, expected 0\.\.\d or the ignore label -1"),
        (np.array([[0, 4]]), np.array([[0, 0]]), r"truth holds 4, expected 0\.\.\d or the ignore label -1"),
        (np.array([[0, 0]]), np.array([[0, -1]]), r"prediction holds -1, expected 0\.\.\d$"),
        (np.array([[0]], "uint64"), np.array([[2**63]], "uint64"), "prediction holds 9223372036854775808"),
        (np.zeros((1, 8), int), np.arange(10, 18)[None], r"prediction holds 10, 11, 12, 13, 14, \.\.\., expected"),
    ],
)
def test_unusable_arrays_are_refused(count, truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        count(truth, prediction, 2)


def test_stray_values_are_found_in_every_block(monkeypatch):
    monkeypatch.setattr(pixels, "_BLOCK", 4)
    prediction = np.zeros((5, 7), int)
    prediction[4, 6] = 3
    with pytest.raises(ValueError, match="prediction holds 3"):
        pixels.confusion(np.zeros((5, 7), int), prediction, 3)


@pytest.mark.parametrize(
    ("count", "classes"), [(pixels.confusion, 0), *((pixels.confusion_multilabel, k) for k in (0, 64))]
)
def test_number_of_classes_is_checked(count, classes):
    with pytest.raises(ValueError, match=f"got {classes}"):
        count(np.zeros((1, 1), int), np.zeros((1, 1), int), classes)


def test_highest_bits_are_counted():
    truth = np.array([[2**63 - 1, 2**62, -1]])
    counts = pixels.class_counts(pixels.confusion_multilabel(truth, np.array([[2**62, 2**62, 0]]), 63))
    assert counts[62].tolist() == [2, 0, 0, 0]
    assert counts[0].tolist() == [0, 0, 1, 1]


def test_wrong_confusions_and_counts_are_refused():
    for wrong in (np.zeros((2, 3), int), np.zeros((2, 2)), np.zeros((2, 2, 3), int)):
        for reduce in (pixels.class_counts, pixels.pixel_accuracy, pixels.pixel_error):
            with pytest.raises(ValueError, match="K x K or K x 2 x 2"):
                reduce(wrong)
    for score in (pixels.dice, pixels.iou, pixels.precision, pixels.recall):
        with pytest.raises(ValueError, match="K x 4"):
            score(np.zeros((2, 3), int))


def compute_exact_interval(values, level):
    """Compute quantiles of the mean over all len(values)**len(values) equally likely resamples."""
    grid = np.stack(np.meshgrid(*[values] * len(values)), axis=-1).reshape(-1, len(values))
    return np.quantile(grid.mean(axis=1), [(1 - level) / 2, (1 + level) / 2])


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_interval_approaches_all_resamples(level):
    values = [0.1, 0.35, 0.42, 0.71, 0.77, 0.93]
    interval = pixels.bootstrap_interval(values, level=level, resamples=40_000)
    assert interval == pytest.approx(compute_exact_interval(values, level), abs=0.01)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_interval_is_ordered_within_range_and_independent_of_order(values, random):
    low, high = pixels.bootstrap_interval(values, resamples=50)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12
    random.shuffle(values)
    assert pixels.bootstrap_interval(values, resamples=50) == (low, high)


def test_interval_depends_on_seed_level_and_size():
    values = np.linspace(0, 1, 20)
    low, high = pixels.bootstrap_interval(values)
    assert pixels.bootstrap_interval(values, seed=1) != (low, high)
    narrow = pixels.bootstrap_interval(values, level=0.5)
    assert low < narrow[0] < 0.5 < narrow[1] < high
    many = pixels.bootstrap_interval(np.tile(values, 25))
    assert (many[1] - many[0]) < (high - low) / 4


def test_interval_in_several_batches_uses_every_resample(monkeypatch):
    monkeypatch.setattr(pixels, "_BLOCK", 64)
    values = [0.1, 0.35, 0.42, 0.71, 0.77, 0.93]
    interval = pixels.bootstrap_interval(values, resamples=20_001)
    assert interval == pytest.approx(compute_exact_interval(values, 0.95), abs=0.01)


@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [float("inf")]])
def test_interval_refuses_unusable_values(values):
    with pytest.raises(ValueError, match="finite"):
        pixels.bootstrap_interval(values)


@pytest.mark.parametrize("settings", [{"level": 0}, {"level": 1}, {"resamples": 0}])
def test_interval_refuses_unusable_settings(settings):
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        pixels.bootstrap_interval([0.1, 0.2], **settings)
