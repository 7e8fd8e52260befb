"""Compare components, thin borders and warping with flood fills and component counts in plain Python."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from septa.kernels import label_mask
from septa.metrics import topology
from septa.metrics.topology import thin_borders, warp_mask

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
MASKS = hnp.arrays(bool, SHAPES)
SIDES = [(-1, 0), (0, -1), (0, 1), (1, 0)]
CORNERS = [(-1, -1), (-1, 1), (1, -1), (1, 1)]


@pytest.fixture(scope="module", autouse=True)
def compile_kernels():
    """Compile the kernels before hypothesis measures the time of an example."""
    thin_borders(np.eye(3, dtype=int))
    warp_mask(np.eye(3, dtype=bool), np.ones((3, 3), bool))


@st.composite
def mask_pairs(draw, largest=9):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=largest))
    return draw(hnp.arrays(bool, shape)), draw(hnp.arrays(bool, shape))


def flood_fill(mask, steps):
    """Find components as sets of pixels, in raster order of their first pixels."""
    left = dict.fromkeys(zip(*(axis.tolist() for axis in np.nonzero(mask)), strict=True))
    found = []
    while left:
        part, fresh = set(), [next(iter(left))]
        while fresh:
            y, x = fresh.pop()
            if (y, x) in left:
                del left[y, x]
                part.add((y, x))
                fresh += [(y + dy, x + dx) for dy, dx in steps]
        found.append(part)
    return found


def count_parts(mask):
    """Count the 4-connected parts of the mask and the 8-connected parts of its complement with the outside."""
    padded = np.pad(mask, 1)
    return len(flood_fill(padded, SIDES)), len(flood_fill(~padded, SIDES + CORNERS))


def thin_borders_of_dictionaries(segments):
    """Flood the segments with a queue of coordinates."""
    labels = {(y, x): int(value) for (y, x), value in np.ndenumerate(segments)}

    def around(point):
        near = ((point[0] + dy, point[1] + dx) for dy, dx in SIDES)
        return [other for other in near if other in labels]

    queue = deque(point for point, value in labels.items() if not value and any(labels[q] for q in around(point)))
    waiting, done = set(queue), {}
    while queue:
        point = queue.popleft()
        touched = {done.get(other, labels[other]) for other in around(point)} - {0}
        done[point] = touched.pop() if len(touched) == 1 else 0
        for other in around(point):
            if not labels[other] and other not in waiting:
                waiting.add(other)
                queue.append(other)
    return np.array([[done.get((y, x), labels[y, x]) for x in range(segments.shape[1])] for y in range(len(segments))])


@given(MASKS)
def test_thin_borders_equal_flooding_of_dictionaries(mask):
    segments = label_mask(mask)
    before = segments.copy()
    assert np.array_equal(thin_borders(segments), thin_borders_of_dictionaries(segments))
    assert np.array_equal(segments, before)


@given(MASKS)
def test_thin_borders_keep_and_separate_segments(mask):
    segments = label_mask(mask)
    grown = thin_borders(segments)
    assert np.array_equal(grown[mask], segments[mask])
    for axis in (0, 1):
        one, other = (np.moveaxis(grown, axis, 0)[window] for window in (slice(1, None), slice(None, -1)))
        assert not ((one != other) & (one > 0) & (other > 0)).any()
    for k in range(1, segments.max() + 1):
        assert len(flood_fill(grown == k, SIDES)) == 1
    if segments.max() == 1:
        assert (grown == 1).all()


def test_lines_between_wide_gaps_are_one_pixel_thin():
    segments = np.zeros((30, 41), np.int32)
    segments[:, :5], segments[:, 36:] = 70_000, 2
    grown = thin_borders(segments)
    assert ((grown == 0).sum(axis=1) == 1).all()
    assert np.array_equal(np.unique(grown), [0, 2, 70_000])
    assert abs(int((grown[0] == 2).sum()) - int((grown[0] == 70_000).sum())) <= 1


def test_without_segments_nothing_grows():
    assert not thin_borders(np.zeros((4, 5), int)).any()


def test_simple_points_are_those_whose_flip_keeps_the_topology():
    ring = [(1, 2), (0, 2), (0, 1), (0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]
    for index, simple in enumerate(topology._simple_points().tolist()):
        patch = np.zeros((3, 3), bool)
        for bit, point in enumerate(ring):
            patch[point] = index >> bit & 1
        flipped = patch.copy()
        flipped[1, 1] = True
        assert simple == (count_parts(patch) == count_parts(flipped)), index


@settings(deadline=None)
@given(mask_pairs())
def test_warping_keeps_the_topology_and_ends_where_no_flip_does(masks):
    truth, prediction = masks
    before = truth.copy(), prediction.copy()
    warped = warp_mask(truth, prediction)
    assert count_parts(warped) == count_parts(truth)
    assert not ((warped != truth) & (truth == prediction)).any()
    for point in map(tuple, np.argwhere(warped != prediction).tolist()):
        flipped = warped.copy()
        flipped[point] ^= True
        assert count_parts(flipped) != count_parts(truth)
    assert np.array_equal(truth, before[0])
    assert np.array_equal(prediction, before[1])


@settings(deadline=None)
@given(mask_pairs(largest=6), st.integers(1, 5), st.randoms(use_true_random=False))
def test_warping_equals_flips_in_order_of_certainty(masks, levels, random):
    truth, prediction = masks
    sureness = np.random.default_rng(random.randrange(1000)).integers(0, levels, truth.shape)
    warped = truth.copy()
    flipped = True
    while flipped:
        flipped = False
        points = map(tuple, np.argwhere(warped != prediction).tolist())
        for point in sorted(points, key=lambda point: -sureness[point]):
            tried = warped.copy()
            tried[point] ^= True
            if count_parts(tried) == count_parts(warped):
                warped, flipped = tried, True
    assert np.array_equal(warp_mask(truth, prediction, sureness), warped)


@given(MASKS)
def test_a_perfect_prediction_is_reached(mask):
    assert np.array_equal(warp_mask(mask, mask), mask)


def test_thinner_and_thicker_membranes_are_reached_and_gaps_are_not():
    truth = np.ones((20, 21), bool)
    truth[:, 8:13] = False
    for prediction in (np.ones((20, 21), bool), truth.copy()):
        prediction[:, 10] = False
        assert np.array_equal(warp_mask(truth, prediction), prediction)
        assert np.array_equal(warp_mask(prediction, truth), truth)
    gap = truth.copy()
    gap[10] = True
    assert (warp_mask(truth, gap) != gap).sum() == 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((np.zeros((2, 3), bool), np.zeros((3, 2), bool)), r"\(2, 3\), \(3, 2\)"),
        ((np.zeros(3, bool), np.zeros(3, bool)), r"\(3,\)"),
        ((np.zeros((2, 2), bool), np.zeros((2, 2))), "must be bool, got bool and float64"),
        ((np.zeros((2, 2), bool), np.zeros((2, 2), bool), np.zeros((1, 2))), r"\(1, 2\)"),
    ],
)
def test_unusable_masks_are_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        warp_mask(*arrays)
