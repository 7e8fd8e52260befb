"""Ids of objects that stay the same from page to page of a stack, by overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from septa.metrics import Contingency

Labels = npt.NDArray[np.integer[Any]]

LEAST_OVERLAP = 0.2
"""Least share of the smaller one of two linked objects that lies in the larger one."""


def link_labels(labels: Labels, least_overlap: float = LEAST_OVERLAP) -> npt.NDArray[np.int32]:
    """Give objects that overlap on successive pages the same id.

    Pairs of objects on successive pages are linked in the order of their intersection over union (IoU), the highest
    first, each object at most once, and only if enough of the smaller one lies in the larger one. Of equal pairs, one
    whose objects have the same id already goes first, so that linking the pages of NYX again changes nothing. Of an
    object that divides, the part with the highest IoU keeps the id. An object that is missing on a page has a new id
    afterwards, and so has one that moves so far that it no longer overlaps itself.

    Parameters
    ----------
    labels
        Instance ids of 0 or more, integer, axes ``NYX`` for frames or planes; or ``TZYX``, where planes are linked to
        objects in three dimensions first, and these over the frames then.
    least_overlap
        Least overlap of a pair, as a share of the smaller area, above 0 and at most 1. The IoU would not do: the cap of
        a sphere lies in the next plane of the sphere, but is much smaller.

    Returns
    -------
    ndarray
        int32 of the same shape. The first page keeps its ids; ids of objects that appear later follow, in the order of
        the pages.

    Raises
    ------
    ValueError
        The labels have other axes, are not integers or are below 0, or the overlap is out of range.

    Examples
    --------
    >>> link_labels(np.array([[[5, 5, 0, 0]], [[0, 3, 3, 1]]])).tolist()
    [[[5, 5, 0, 0]], [[0, 5, 5, 6]]]
    """
    if labels.ndim not in (3, 4) or labels.dtype.kind not in "bui" or labels.min(initial=0) < 0:
        raise ValueError(f"labels must be NYX or TZYX and hold ids, got {labels.shape} of {labels.dtype}")
    if labels.max(initial=0) > np.iinfo(np.int32).max:
        raise ValueError(f"labels hold the id {labels.max()}, expected at most {np.iinfo(np.int32).max}")
    if not 0 < least_overlap <= 1:
        raise ValueError(f"the least overlap must be above 0 and at most 1, got {least_overlap}")
    height, width = labels.shape[-2:]
    linked = list(labels)
    if labels.ndim == 4:
        linked = [_link(list(volume_zyx), least_overlap).reshape(-1, width) for volume_zyx in labels]
    found: npt.NDArray[np.int32] = _link(linked, least_overlap).reshape(*labels.shape[:-2], height, width)
    return found


def _link(pages: Sequence[Labels], least_overlap: float) -> npt.NDArray[np.int32]:
    from septa.metrics import contingency  # takes a tenth of a second, which prediction need not spend

    if not pages:
        return np.zeros(0, np.int32)
    linked = np.empty((len(pages), *pages[0].shape), np.int32)
    linked[0] = pages[0]
    latest = int(linked[0].max(initial=0))
    for number in range(1, len(pages)):
        table = contingency(linked[number - 1], pages[number])
        ids = np.zeros(table.prediction_ids.size, np.int64)
        for row, column in _pair(table, least_overlap):
            ids[column] = table.truth_ids[row]
        new = ids == 0
        ids[new] = latest + 1 + np.arange(new.sum())
        latest += int(new.sum())
        places = np.searchsorted(table.prediction_ids, pages[number])
        linked[number] = np.where(pages[number] > 0, np.append(ids, 0)[places], 0)
    return linked


def _pair(table: Contingency, least_overlap: float) -> list[tuple[int, int]]:
    """Pair rows and columns of a table by descending IoU, each at most once.

    Of equal ones, those that have the same id already are first, so that linked labels stay as they are; then those
    with the lower ids.
    """
    smaller = np.minimum(table.truth_areas[table.rows], table.prediction_areas[table.columns])
    differ = table.truth_ids[table.rows] != table.prediction_ids[table.columns]
    order = np.lexsort((differ, -table.ious))  # stable
    order = order[table.overlaps[order] >= least_overlap * smaller[order]]
    rows: set[int] = set()
    columns: set[int] = set()
    pairs = []
    for row, column in zip(table.rows[order].tolist(), table.columns[order].tolist(), strict=True):
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            pairs.append((row, column))
    return pairs
