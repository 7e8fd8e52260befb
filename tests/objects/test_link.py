"""Score linked ids of drawn time series and z stacks against their ground truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from septa.metrics import contingency, match
from septa.objects import link_labels


def shuffle(labels, rng):
    """Give the objects of each page new random numbers, as if each page had been segmented alone."""
    pages = []
    for page in labels.reshape(-1, *labels.shape[-2:]):
        ids = np.unique(page[page > 0])
        new = np.zeros(int(labels.max()) + 1, np.int64)
        new[ids] = rng.permutation(ids.size) + 1
        pages.append(new[page])
    return np.reshape(pages, labels.shape)


def draw_series(speed, seed, frames=6, missing=0.0):
    """Draw cells of radius 7 that move by ``speed`` pixels a frame, enter and leave; ids are the ground truth."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:100, :100]
    grid = np.stack(np.meshgrid(*[np.arange(-30, 150, 19)] * 2), axis=-1).reshape(-1, 2)
    place = grid + rng.uniform(-1.5, 1.5, grid.shape)
    drift = rng.normal(size=2)
    labels = np.zeros((frames, 100, 100), np.int32)
    for frame in labels:
        for cell, (top, left) in enumerate(place, 1):
            if rng.random() >= missing:
                frame[np.hypot(y - top, x - left) < rng.uniform(6.3, 7.7)] = cell
        step = drift + rng.normal(size=place.shape) * 0.3  # neighbours move alike
        place = place + speed * step / np.linalg.norm(step, axis=1, keepdims=True)
    return labels


def list_links(labels):
    """Return each pair of a pixel's page and position that starts an object, and the next page's, by brute force."""
    found = set()
    for page, (one, other) in enumerate(itertools.pairwise(labels)):
        for label in np.intersect1d(one[one > 0], other[other > 0]):
            found.add((page, int(np.flatnonzero(one == label)[0]), int(np.flatnonzero(other == label)[0])))
    return found


def score_links(truth, linked):
    true, found = list_links(truth), list_links(linked)
    return len(true & found) / len(found), len(true & found) / len(true)


@pytest.mark.parametrize(("speed", "missing", "least"), [(2, 0.0, 0.99), (6, 0.0, 0.95), (6, 0.05, 0.95)])
def test_moving_cells_keep_their_ids(speed, missing, least):
    truth = draw_series(speed, 0, missing=missing)
    alone = shuffle(truth, np.random.default_rng(1))
    precision, recall = score_links(truth, link_labels(alone))
    assert min(precision, recall) >= least
    assert score_links(truth, alone)[1] < 0.1


def draw_balls(seed, step=2.5):
    """Draw balls of radius 6 to 11 pixels in planes that are ``step`` pixels apart; no two lie above each other."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[:14, :100, :100]
    labels = np.zeros(z.shape, np.int32)
    for ball, (top, left) in enumerate(np.stack(np.meshgrid(*[np.arange(12, 100, 21)] * 2), -1).reshape(-1, 2), 1):
        distance = np.hypot(np.hypot(y - top, x - left), (z - rng.uniform(3, 11)) * step)
        labels[(distance < rng.uniform(6, 11)) & (labels == 0)] = ball
    return labels


def find_f1(truth, labels):
    """Return the F1 score of objects in three dimensions at IoU 0.9."""
    found = match(contingency(truth.reshape(-1, truth.shape[-1]), labels.reshape(-1, labels.shape[-1])), 0.9)
    return 2 * found.tp / (2 * found.tp + found.fp + found.fn)


def test_planes_become_objects_in_three_dimensions():
    truth = draw_balls(0)
    alone = shuffle(truth, np.random.default_rng(1))
    assert find_f1(truth, link_labels(alone)) == 1
    assert find_f1(truth, alone) < 0.3


def test_objects_in_three_dimensions_keep_their_ids_over_frames():
    truth = np.stack([np.roll(draw_balls(2), 2 * frame, axis=2) for frame in range(3)])
    linked = link_labels(shuffle(truth, np.random.default_rng(3)))
    assert linked.shape == truth.shape
    assert find_f1(truth, linked) >= 0.97


def test_the_best_overlap_wins_in_a_chain_of_cells():
    """Cells in a row move by 0.4 of their width; one leaves, and one enters. Most pairs would shift all ids by one."""
    row = np.repeat(np.arange(1, 11), 10)
    labels = np.stack([row, np.roll(row, 4)])[:, None]
    labels[1, 0, :4] = 11
    np.testing.assert_array_equal(link_labels(labels), labels)


def test_of_a_cell_that_divides_one_part_keeps_the_id():
    labels = np.array([[[1] * 10], [[7] * 6 + [0] + [2] * 3]])
    assert link_labels(labels)[1].tolist() == [[1] * 6 + [0] + [2] * 3]


TIES = np.zeros((3, 4, 5), np.uint16)
TIES[1, :3, :3] = [[3, 4, 3], [3, 0, 0], [0, 4, 0]]
TIES[2, :3, :2] = [[3, 4], [4, 0], [0, 3]]


@example(TIES)
@given(hnp.arrays(np.uint16, (3, 4, 5), elements=st.sampled_from([0, 0, 3, 4, 900])))
def test_each_object_stays_one_object(labels):
    linked = link_labels(labels)
    np.testing.assert_array_equal(linked[0], labels[0])
    np.testing.assert_array_equal(linked > 0, labels > 0)
    for page, found in zip(labels, linked, strict=True):
        pairs = np.unique(np.stack([page[page > 0], found[page > 0]]), axis=1)
        assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    np.testing.assert_array_equal(link_labels(linked), linked)


@pytest.mark.parametrize(
    ("labels", "iou", "message"),
    [
        (np.ones((2, 2), int), 0.1, r"NYX or TZYX and hold ids, got \(2, 2\)"),
        (np.ones((2, 2, 2)), 0.1, "float64"),
        (-np.ones((2, 2, 2), int), 0.1, "int64"),
        (np.full((1, 1, 1), 2**31), 0.1, "id 2147483648"),
        (np.ones((2, 2, 2), int), 0, "above 0 and at most 1, got 0"),
    ],
)
def test_unusable_arguments_are_refused(labels, iou, message):
    with pytest.raises(ValueError, match=message):
        link_labels(labels, iou)
