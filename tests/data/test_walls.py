"""Walls are recognised in the labels: membranes between cells, and not the background of other foreground."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from septa.data.fingerprint import combine_facts, scan_image
from septa.data.walls import WallFacts, explain_walls, find_walls, measure_walls, note_walls
from septa.labels.mapping import LabelMapping
from septa.recipe import IGNORE
from septa.synthetic.dataset import draw_cells, draw_oct, draw_shapes

MASKS = LabelMapping("binary", ("membrane", "interior"), (0, 255))


def draw_tissue(seed: int, *, cells: int = 40, wall: float = 2.5, side: int = 120) -> np.ndarray:
    """Draw the cells of a random tissue: 1 inside, 0 in walls of about this width."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    centres = rng.uniform(0, side, (cells, 2))
    away = np.sort(np.hypot(y[..., None] - centres[:, 0], x[..., None] - centres[:, 1]), axis=-1)
    return np.asarray(away[..., 1] - away[..., 0] > wall, np.int32)


def find(masks: list[np.ndarray]) -> WallFacts | None:
    return find_walls([measure_walls(mask_yx) for mask_yx in masks])


def count_between(labels_yx: np.ndarray, reach: float) -> int:
    """Oracle: count the pixels of walls from which two regions are at most ``reach`` away together."""
    regions_yx, count = ndimage.label(labels_yx == 1)
    away = np.sort([ndimage.distance_transform_edt(regions_yx != k + 1) for k in range(count)], axis=0)
    return int(np.count_nonzero((labels_yx == 0) & (away[0] + away[1] <= reach)))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("cells", "wall"), [(40, 1.5), (40, 2.5), (12, 4.0), (90, 1.5)])
def test_membranes_between_cells_are_walls(cells: int, wall: float, flip: bool) -> None:
    masks = [draw_tissue(seed, cells=cells, wall=wall) for seed in range(3)]
    facts = find([1 - mask_yx for mask_yx in masks] if flip else masks)
    assert facts is not None
    assert facts.wall_class == flip
    assert abs(facts.width - wall) < 1.5
    assert facts.between > 0.7


def test_the_share_between_regions_agrees_with_all_distances() -> None:
    for seed in range(3):
        labels_yx = draw_tissue(seed, cells=15, wall=4)
        walls = measure_walls(labels_yx)[0]
        regions_yx, _ = ndimage.label(labels_yx)
        areas = np.bincount(regions_yx.ravel())[1:].astype(float)
        assert walls.pixels == np.count_nonzero(labels_yx == 0)
        assert walls.regions == pytest.approx(areas.sum() ** 2 / (areas**2).sum())
        reach = 0.25 * 2 * np.sqrt(areas.sum() / walls.regions / np.pi)
        assert 0.95 * count_between(labels_yx, reach) <= walls.between <= count_between(labels_yx, 2 * reach)


DRAWINGS: dict[str, Callable[[int], np.ndarray]] = {
    "cells": lambda seed: np.minimum(draw_cells(160, 160, seed).labels_yx, 1),
    "no cells": lambda seed: 1 - np.minimum(draw_cells(160, 160, seed).labels_yx, 1),
    "fluid": lambda seed: np.minimum(draw_oct(96, 160, seed).labels_yx.astype(np.int32), 1),
    "mesh": lambda seed: draw_shapes(192, 192, seed).masks_kyx[4].astype(np.int32),
    "two halves": lambda seed: np.asarray(np.arange(100)[None] != np.full((100, 1), 40 + seed), np.int32),
    "thick walls": lambda seed: draw_tissue(seed, cells=20, wall=14),
    "empty": lambda seed: np.zeros((50, 50), np.int32),
    "full": lambda seed: np.ones((50, 50), np.int32),
    "ignored": lambda seed: np.full((50, 50), IGNORE, np.int32),
}


@pytest.mark.parametrize("kind", DRAWINGS)
def test_other_labels_have_no_walls(kind: str) -> None:
    assert find([DRAWINGS[kind](seed) for seed in range(4)]) is None


def test_one_image_without_walls_does_not_hide_those_of_the_others() -> None:
    masks = [draw_tissue(seed, wall=1.5) for seed in range(4)]
    masks[0][:, :] = IGNORE
    masks[0][:5] = 0
    masks[1][:, :30] = IGNORE
    assert find(masks) is not None
    assert find([]) is None
    assert find_walls([(), *map(measure_walls, masks)]) == find(masks)


def test_a_fingerprint_holds_the_walls_of_two_exclusive_classes() -> None:
    image_cyx = np.random.default_rng(0).integers(0, 99, (1, 120, 120), np.uint8)
    facts = [scan_image(str(seed), image_cyx, draw_tissue(seed), classes=2) for seed in range(2)]
    assert combine_facts(facts).walls == find([draw_tissue(seed) for seed in range(2)])
    assert combine_facts(facts).to_json()["walls"]["wall_class"] == 0
    for classes, multilabel in ((3, False), (2, True)):
        other = scan_image("x", image_cyx, draw_tissue(0), classes=classes, multilabel=multilabel)
        assert combine_facts([other]).walls is None


def test_a_note_says_which_class_is_walls_and_what_follows() -> None:
    walls = [measure_walls(draw_tissue(seed)) for seed in range(2)]
    (line,) = note_walls(walls, MASKS, "auto")
    assert line.startswith("labels: membrane is thin walls (about 2 pixels wide) between regions of interior, and the")
    assert line.endswith("(semantic.walls)")
    (line,) = note_walls([own[::-1] for own in walls], replace(MASKS, class_names=("cell", "membrane")), "semantic")
    assert line.startswith("labels: membrane is thin walls (about 2 pixels wide) between regions of cell; to tune")
    assert line.endswith("(--set data.values=[255,0])")
    assert note_walls(walls, MASKS, "instances") == note_walls([], MASKS, "auto") == ()
    assert "about 1 pixel wide" in explain_walls(WallFacts(0, 1.2, 1.0), ("a", "b"))
