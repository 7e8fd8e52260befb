"""Suspect labels and doubt, compared with cases made by hand and with slow descriptions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from septa.objects import find_suspects, measure_doubt

SMALL = arrays(np.int32, (7, 9), elements=st.integers(0, 3))


def draw(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    labels_yx = np.zeros((20, 40), np.int32)
    for number, (top, left, bottom, right) in enumerate(boxes, 1):
        labels_yx[top:bottom, left:right] = number
    return labels_yx


@pytest.mark.parametrize(
    ("drawn", "predicted", "expected"),
    [
        ([], [(2, 3, 8, 9)], ("missing", (), (1,), (2, 3, 8, 9))),
        ([(2, 3, 8, 9)], [], ("extra", (1,), (), (2, 3, 8, 9))),
        ([(2, 2, 8, 20)], [(2, 2, 8, 10), (2, 11, 8, 21)], ("merged", (1,), (1, 2), (2, 2, 8, 21))),
        ([(2, 2, 8, 10), (2, 11, 8, 21)], [(2, 2, 8, 20)], ("split", (1, 2), (1,), (2, 2, 8, 21))),
        ([(2, 2, 12, 12)], [(2, 2, 12, 6)], ("outline", (1,), (1,), (2, 2, 12, 12))),
    ],
    ids=lambda value: value[0] if value and isinstance(value[0], str) else "",
)
def test_each_kind_of_disagreement_is_named_and_placed(drawn: list, predicted: list, expected: tuple) -> None:
    labels_yx, predicted_yx = draw(*drawn, (15, 30, 19, 36)), draw(*predicted, (15, 30, 19, 36))
    foreground_yx = np.where(predicted_yx > 0, 0.95, 0.02)
    confidences = np.full(len(predicted) + 1, 0.9)
    (found,) = find_suspects(labels_yx, predicted_yx, foreground_yx, confidences)
    assert (found.kind, found.drawn, found.predicted, found.box) == expected
    assert find_suspects(labels_yx, predicted_yx, np.full_like(foreground_yx, 0.5), confidences - 0.2) == []
    labels_yx[:14] = -1
    assert find_suspects(labels_yx, predicted_yx, foreground_yx, confidences) == []


@given(SMALL, SMALL, st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_labels_are_never_suspect_to_themselves_and_no_missing_object_is_drawn(
    labels_yx: np.ndarray, predicted_yx: np.ndarray, confidences: list[float]
) -> None:
    ids = np.unique(predicted_yx[predicted_yx > 0])
    confidence = np.array(confidences)[ids - 1]
    foreground_yx = np.where(predicted_yx > 0, 1.0, 0.0)
    for one in find_suspects(labels_yx, predicted_yx, foreground_yx, confidence):
        assert 0 <= one.certainty <= 1
        assert all(confidences[label - 1] >= 0.8 for label in one.predicted)
        if one.kind == "missing":
            own = predicted_yx == one.predicted[0]
            assert (labels_yx[own] > 0).mean() < 0.2
        if one.kind == "extra":
            assert not (predicted_yx[labels_yx == one.drawn[0]] > 0).mean() >= 0.6
    same = np.where(predicted_yx > 0, 1.0, 0.0)
    assert find_suspects(predicted_yx, predicted_yx, same, np.ones(ids.size)) == []


@given(SMALL, arrays(np.float32, (7, 9), elements=st.floats(0, 1, width=32)), st.integers(1, 10))
def test_the_region_of_doubt_is_the_worst_of_all(
    predicted_yx: np.ndarray, foreground_yx: np.ndarray, side: int
) -> None:
    confidences = np.linspace(0.2, 0.9, np.unique(predicted_yx[predicted_yx > 0]).size)
    of_label = dict(zip(np.unique(predicted_yx[predicted_yx > 0]).tolist(), confidences.tolist()))
    height, width = min(side, 7), min(side, 9)
    worst = 0.0
    for top in range(8 - height):
        for left in range(10 - width):
            doubts, count = [], 0.01 * height * width
            for y, x in np.ndindex(height, width):
                label, share = int(predicted_yx[top + y, left + x]), float(foreground_yx[top + y, left + x])
                if label or share >= 0.05:
                    doubts.append(1 - of_label[label] if label else min(1, 2 * share))
                    count += 1
            worst = max(worst, sum(doubts) / count)
    found = measure_doubt(predicted_yx, foreground_yx, confidences, side=side)
    assert found.amount == pytest.approx(worst, abs=1e-6)
    assert (found.box[2] - found.box[0], found.box[3] - found.box[1]) == (height, width)
