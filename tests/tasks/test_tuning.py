"""The search for thresholds on maps, compared with a search written out; whole trainings are in tests/training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from septa.metrics.neurites import score_stack
from septa.metrics.objects import score_objects
from septa.recipe import IGNORE
from septa.tasks.decoding import Decoding, find_objects
from septa.tasks.tuning import Maps, search_thresholds, search_wall_thresholds


def draw(seed: int) -> Maps:
    """Draw squares whose inner map dips between some of them, with faint foreground around and specks."""
    rng = np.random.default_rng(seed)
    foreground_yx, inner_yx = np.zeros((2, 48, 60), np.float32)
    truth_yx = np.zeros((48, 60), np.int32)
    for number, (row, column) in enumerate(np.ndindex(4, 5)):
        inside = np.s_[12 * row + 1 : 12 * row + 10, 12 * column : 12 * column + 12]
        foreground_yx[12 * row : 12 * row + 11, inside[1]] = rng.uniform(0.35, 0.75)
        foreground_yx[inside], inner_yx[inside] = 0.9, rng.uniform(0.4, 0.65)
        inner_yx[12 * row + 3 : 12 * row + 8, 12 * column + 3 : 12 * column + 9] = 0.97
        truth_yx[inside] = 5 * number + 2
    specks = rng.integers(0, (48, 60), (25, 2))
    foreground_yx[tuple(specks.T)] = inner_yx[tuple(specks.T)] = 0.99
    return foreground_yx, inner_yx, truth_yx


def score(images: list[Maps], decoding: Decoding) -> float:
    """Oracle: the mean accuracy of objects."""
    return float(
        np.mean(
            [
                score_objects(truth_yx, find_objects(foreground_yx, inner_yx, decoding)).mean_accuracy
                for foreground_yx, inner_yx, truth_yx in images
            ]
        )
    )


@pytest.mark.parametrize("begin", [Decoding(), Decoding(0.4, 0.9, 20)])
def test_each_threshold_in_turn_is_the_best_of_its_curve(begin: Decoding) -> None:
    images = [draw(seed) for seed in range(2)]
    before = [part.copy() for image in images for part in image]
    found, curves = search_thresholds(images, begin)
    for part, copy in zip((part for image in images for part in image), before, strict=True):
        np.testing.assert_array_equal(part, copy)
    assert set(curves) == {"least_pixels", "seed", "foreground"}
    assert begin.least_pixels in dict(curves["least_pixels"])
    # The curve of the smallest size is that of its second search, when all others were chosen.
    for value, known in curves["least_pixels"]:
        assert known == score(images, replace(found, reach=0, least_pixels=int(value)))
    best = dict(curves["least_pixels"])[found.least_pixels]
    assert best == max(known for _, known in curves["least_pixels"])
    assert found.seed in dict(curves["seed"])
    assert found.foreground in dict(curves["foreground"])
    assert score(images, found) >= best > score(images, begin)


def test_the_value_nearest_to_the_threshold_is_taken_where_all_are_equal() -> None:
    _, _, truth_yx = draw(0)
    certain_yx = (truth_yx > 0).astype(np.float32)
    truth_yx = np.where(truth_yx % 2 == 0, truth_yx, 0)
    certain_yx[truth_yx == 0] = 0
    found, curves = search_thresholds([(certain_yx, certain_yx, truth_yx)], Decoding(0.42, 0.52, 7))
    assert len({known for _, known in (*curves["seed"], *curves["foreground"])}) == 1
    assert (found.foreground, found.seed, found.least_pixels) == (0.4, 0.5, 7)


def test_the_reach_covers_the_objects_and_keeps_the_score() -> None:
    images = [draw(3)]
    found, curves = search_thresholds(images, Decoding())
    assert 8 <= found.reach < 256
    assert score(images, found) >= max(known for _, known in curves["least_pixels"])


def draw_long_among_small(length: int) -> Maps:
    """Draw a thin object with its seed at one end and, far from it, others that have 99 % of all pixels."""
    columns = (length - 20) // 10
    rows = -(-2 * length // columns)
    size = (length + 2 + 10 * rows, length + 4)
    inner_yx, truth_yx = np.zeros(size, np.float32), np.zeros(size, np.int32)
    truth_yx[2, 2 : 2 + length], inner_yx[2, 2:4] = 1, 0.97
    for number, (row, column) in enumerate(np.ndindex(rows, columns), start=2):
        inside = np.s_[length + 2 + 10 * row : length + 11 + 10 * row, 10 * column : 10 * column + 9]
        truth_yx[inside], inner_yx[inside] = number, 0.97
    assert (truth_yx == 1).sum() < 0.01 * (truth_yx > 0).sum()
    return (truth_yx > 0).astype(np.float32), np.maximum(inner_yx, 0.1 * (truth_yx > 0)).astype(np.float32), truth_yx


def test_a_reach_that_lowers_the_score_is_doubled() -> None:
    image = draw_long_among_small(70)
    found, curves = search_thresholds([image], Decoding())
    best = max(known for _, known in curves["least_pixels"])
    assert score([image], replace(found, reach=8)) < best == score([image], found)
    assert found.reach == 128  # 8, 16, 32 and 64 do not lead from the seed to the other end


def test_without_a_reach_that_keeps_the_score_there_is_none() -> None:
    found, _ = search_thresholds([draw_long_among_small(300)], Decoding())
    assert found.reach == 0


def test_few_objects_change_the_thresholds_little() -> None:
    """A speck beside two objects makes other thresholds better by less than one object; beside many it decides."""
    for count, size in ((2, 5), (30, 10)):
        foreground_yx, truth_yx = np.zeros((40, 12 * count + 12), np.float32), np.zeros((40, 12 * count + 12), np.int32)
        for number in range(count):
            inside = np.s_[4:14, 12 * number + 1 : 12 * number + 11]
            foreground_yx[inside], truth_yx[inside] = 0.95, number + 1
        for column in range(1, 1 + max(1, count // 5) * 12, 12):
            foreground_yx[30:32, column : column + 3] = 0.95
        found, curves = search_thresholds([(foreground_yx, foreground_yx, truth_yx)], Decoding(least_pixels=5))
        scores = dict(curves["least_pixels"])
        assert scores[10] == 1 > scores[5]
        assert found.least_pixels == size


def draw_membranes(seed: int, *, gap: float = 0.7, dip: float = 0.85) -> tuple[np.ndarray, np.ndarray]:
    """Draw the probability of interior of square cells: their walls have weak gaps, and some cells a dark spot."""
    rng = np.random.default_rng(seed)
    truth_yx = np.zeros((64, 64), np.int32)
    for row, column in np.ndindex(4, 4):
        truth_yx[16 * row + 1 : 16 * row + 15, 16 * column + 1 : 16 * column + 15] = 1
    map_yx = np.where(truth_yx == 1, 0.95, 0.1) + rng.uniform(-0.04, 0.04, truth_yx.shape)
    for row in range(4):
        map_yx[16 * row + 8, 12:20] = gap
        map_yx[16 * row + 1 : 16 * row + 15, 40] = dip
    return map_yx.astype(np.float32), truth_yx


def test_the_threshold_of_interiors_closes_the_gaps_of_walls() -> None:
    images = [draw_membranes(seed) for seed in range(2)]
    found, curves = search_wall_thresholds(images, Decoding(least_pixels=7))
    curve = dict(curves["seed"])
    for value, known in curve.items():  # an independent path to the same score, for one threshold
        assert known == pytest.approx(score_stack([(truth, chance) for chance, truth in images], [value]).v_rand)
    assert curve[0.5] < 0.95 < curve[found.seed] == max(curve.values())
    assert 0.7 <= found.seed <= 0.85
    assert replace(found, seed=0.5, reach=0) == Decoding(least_pixels=7)


def test_of_nearly_equal_thresholds_of_interiors_the_highest_is_taken() -> None:
    found, curves = search_wall_thresholds([draw_membranes(0, dip=0.95)], Decoding())
    best = max(score for _, score in curves["seed"])
    assert found.seed == max(value for value, score in curves["seed"] if score >= best - 0.02) > 0.8


def test_the_growth_of_interiors_is_as_long_as_dice_gains() -> None:
    """The rims of the cells have a probability between the two thresholds, and the walls have gaps of 0.7."""
    for rim in (0, 1, 3):
        map_yx, truth_yx = draw_membranes(1, dip=0.95)
        inside_yx = ndimage.distance_transform_cdt(np.pad(truth_yx, 1), "taxicab")[1:-1, 1:-1]
        map_yx[(truth_yx == 1) & (inside_yx <= rim)] = 0.6
        found, _ = search_wall_thresholds([(map_yx, truth_yx)], Decoding())
        assert found.foreground == 0.5 < found.seed
        assert found.reach == rim


def test_thresholds_of_interiors_stay_where_all_are_equal() -> None:
    truth_yx = draw_membranes(0)[1]
    found, curves = search_wall_thresholds([(truth_yx.astype(np.float32), truth_yx)], Decoding(seed=0.62))
    assert found == Decoding(seed=0.62)
    assert {score for _, score in curves["seed"]} == {1.0}


def test_ignored_pixels_do_not_choose_the_threshold_of_interiors() -> None:
    map_yx, truth_yx = draw_membranes(1, dip=0.95)
    truth_yx[:, 14:18] = np.where(map_yx[:, 14:18] > 0.5, IGNORE, truth_yx[:, 14:18])
    _, curves = search_wall_thresholds([(map_yx, truth_yx)], Decoding())
    map_yx[truth_yx == IGNORE] = 0.3
    _, without = search_wall_thresholds([(map_yx, truth_yx)], Decoding())
    assert dict(curves["seed"])[0.9] == pytest.approx(dict(without["seed"])[0.9], abs=0.01)
    assert dict(curves["seed"])[0.5] < dict(without["seed"])[0.5]  # two cells are one that meet in ignored pixels
