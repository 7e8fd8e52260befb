"""Facts of labels: which objects have a core of one piece."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.draw
from scipy import ndimage

from septa.data.label_facts import CORE, count_whole_cores
from septa.losses import cut_seams
from septa.synthetic import draw_cells


def draw_waisted(side: int = 60) -> np.ndarray:
    """Draw two discs that a thin bridge joins, as one object."""
    ids_yx = np.zeros((side, side), np.int32)
    for centre in (15, 44):
        ids_yx[skimage.draw.disk((30, centre), 12)] = 5
    ids_yx[29:32, 15:44] = 5
    return ids_yx


def count_slowly(ids_yx: np.ndarray) -> tuple[int, int]:
    """Oracle: look at the objects one by one; seams between them are no inside."""
    ids = [index for index in np.unique(ids_yx) if index > 0]
    whole = 0
    cut_yx = cut_seams(ids_yx)
    depth_yx = ndimage.distance_transform_edt(cut_yx > 0)
    for index in ids:
        own_yx = ids_yx == index
        core_yx = own_yx & (cut_yx > 0) & (depth_yx > CORE * depth_yx[own_yx].max())
        pieces_yx, _ = ndimage.label(core_yx, np.ones((3, 3)))
        sizes = np.bincount(pieces_yx.ravel())[1:]
        whole += np.count_nonzero(sizes >= 0.05 * own_yx.sum()) <= 1
    return len(ids), whole


@pytest.mark.parametrize("seed", range(4))
def test_cores_of_cells_agree_with_looking_at_each_alone(seed: int) -> None:
    ids_yx = draw_cells(150, 130, seed).labels_yx
    assert count_whole_cores(ids_yx) == count_slowly(ids_yx)


def test_a_waist_divides_a_core() -> None:
    ids_yx = draw_waisted()
    ids_yx[2:8, 2:30] = 9
    ids_yx[50:58, 2:30] = -1
    assert count_whole_cores(ids_yx) == count_slowly(ids_yx) == (2, 1)
    assert count_whole_cores(np.zeros((5, 6), np.int32)) == (0, 0)
    assert count_whole_cores(np.full((5, 6), 3, np.int32)) == (1, 1)
