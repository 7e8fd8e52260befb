"""Compare the scores of objects with classes with loops over objects."""

from __future__ import annotations

import numpy as np
import pytest

from septa.metrics.object_classes import compute_class_f1, count_class_matches, summarise_object_classes
from septa.metrics.overlaps import contingency
from septa.metrics.scores import LabelPair, evaluate_labels

NAMES = ("background", "round", "long")


def draw_squares(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw squares of the classes 1 and 2, and a prediction in which some are missing, cut, or of the wrong class."""
    rng = np.random.default_rng(seed)
    truth_yx, prediction_yx = np.zeros((2, 40, 40), np.int64)
    for number, (row, column) in enumerate(np.ndindex(5, 5)):
        inside = np.s_[8 * row : 8 * row + 6, 8 * column : 8 * column + 6]
        kind = int(rng.integers(1, 3))
        truth_yx[inside] = 3 * (number + 1) + kind
        if rng.random() < 0.8:
            found = kind if rng.random() < 0.7 else 3 - kind
            prediction_yx[inside] = 3 * (40 - number) + found
            prediction_yx[8 * row : 8 * row + int(rng.integers(0, 5)), 8 * column : 8 * column + 6] = 0
    truth_yx[:, 33:] = -1
    return truth_yx, prediction_yx


CLASS_OF_ID = np.arange(1000) % 3
"""Class of each id of `draw_squares`: the remainder of the id divided by 3."""


def count_matches(truth_yx: np.ndarray, prediction_yx: np.ndarray) -> np.ndarray:
    counted_yx = truth_yx >= 0
    ids = [np.unique(array[counted_yx & (array > 0)]) for array in (truth_yx, prediction_yx)]
    counts = np.zeros((3, 3), np.int64)
    for column, found in enumerate(ids, 1):
        np.add.at(counts[:, column], found % 3, 1)
    for one in ids[0]:
        for other in ids[1]:
            left, right = (truth_yx == one) & counted_yx, (prediction_yx == other) & counted_yx
            counts[one % 3, 0] += 2 * (left & right).sum() >= (left | right).sum() and one % 3 == other % 3
    return counts


@pytest.mark.parametrize("seed", range(5))
def test_matches_count_where_classes_agree(seed: int) -> None:
    truth_yx, prediction_yx = draw_squares(seed)
    counts = count_class_matches(contingency(truth_yx, prediction_yx), CLASS_OF_ID, CLASS_OF_ID, 3)
    np.testing.assert_array_equal(counts, count_matches(truth_yx, prediction_yx))
    assert 0 < counts[1:, 0].sum() < counts[1:, 2].sum()
    for k, score in enumerate(compute_class_f1(counts)):
        tp, truth, prediction = counts[k]
        assert score == (2 * tp / (truth + prediction) if k else 1)


def test_an_evaluation_scores_the_classes() -> None:
    items = [LabelPair(str(seed), *draw_squares(seed), CLASS_OF_ID, CLASS_OF_ID) for seed in range(4)]
    found = evaluate_labels(items, ["background", "object"], instances=True, object_classes=NAMES)
    counts = [count_matches(truth_yx, prediction_yx) for _, truth_yx, prediction_yx, *_ in items]
    assert list(found.object_classes) == ["round", "long"]
    for k, spread in enumerate(found.object_classes.values(), 1):
        assert spread["mean"] == pytest.approx(np.mean([compute_class_f1(one)[k] for one in counts]))
        assert spread["pooled"] == compute_class_f1(np.sum(counts, axis=0))[k]
        assert spread["low"] <= spread["mean"] <= spread["high"]
        assert (spread["truth_count"], spread["prediction_count"]) == tuple(np.sum(counts, axis=0)[k, 1:])
    assert found.to_json()["object_classes"] == found.object_classes
    plain = evaluate_labels(items, ["background", "object"], instances=True)
    assert plain.object_classes == {}
    assert plain.objects == found.objects
    assert summarise_object_classes([None], NAMES) == {}


@pytest.mark.parametrize("tables", [(), (CLASS_OF_ID,)])
def test_classes_need_both_tables(tables: tuple[np.ndarray, ...]) -> None:
    item = LabelPair("cell 7", *draw_squares(0), *tables)
    with pytest.raises(ValueError, match="objects of cell 7 have no classes"):
        evaluate_labels([item], ["background", "object"], instances=True, object_classes=NAMES)
