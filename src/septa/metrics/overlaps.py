"""Overlaps and matches between the objects of two instance label images.

An object is the set of all counted pixels with one id, connected or not. Pixels that are `IGNORE` in the ground truth
are not counted in areas, overlaps or unions. An object that lies entirely in such pixels does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from septa.recipe import IGNORE

Labels = npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]

# Pixels per block: temporaries are small and stay in the processor's cache.
_BLOCK = 1 << 18


@dataclass(frozen=True, eq=False)
class Contingency:
    """Overlaps between the objects of ground truth and prediction.

    Attributes
    ----------
    truth_ids, prediction_ids
        int64, ids of the N true and M predicted objects, ascending.
    truth_areas, prediction_areas
        int64, areas in counted pixels, at least 1.
    rows, columns
        int64, for each overlapping pair: index into ``truth_ids`` and into ``prediction_ids``, sorted by row, then by
        column.
    overlaps
        int64, common pixels of each pair, at least 1.
    pixels
        Number of counted pixels, including background.
    """

    truth_ids: Integers
    prediction_ids: Integers
    truth_areas: Integers
    prediction_areas: Integers
    rows: Integers
    columns: Integers
    overlaps: Integers
    pixels: int

    @property
    def ious(self) -> Reals:
        """Intersection over union of each pair, float64, above 0 and at most 1, correctly rounded."""
        return self.overlaps / (self._areas - self.overlaps)

    @property
    def dices(self) -> Reals:
        """Dice coefficient of each pair, float64, above 0 and at most 1."""
        return 2 * self.overlaps / self._areas

    @property
    def _areas(self) -> Integers:
        return self.truth_areas[self.rows] + self.prediction_areas[self.columns]


@dataclass(frozen=True, eq=False)
class Match:
    """Objects of one image paired at one IoU threshold.

    Attributes
    ----------
    threshold
        Least IoU of a pair.
    tp, fp, fn
        Number of pairs, of unmatched predicted objects, and of unmatched true objects.
    pairs
        int64 ``(tp, 2)``: id in the ground truth, id in the prediction; sorted by the first.
    ious
        float64, IoU of each pair.
    """

    threshold: float
    tp: int
    fp: int
    fn: int
    pairs: Integers
    ious: Reals


def contingency(truth_yx: Labels, prediction_yx: Labels) -> Contingency:
    """Count the common pixels of all pairs of objects, once for all metrics.

    Parameters
    ----------
    truth_yx, prediction_yx
        Instance ids, any integer dtype or bool, equal shapes: 0 is background, every other id an object. Ids may be
        large and have gaps. Pixels that are `IGNORE` (-1) in the ground truth do not count, whatever their prediction.

    Returns
    -------
    Contingency
        Overlaps of all pairs of objects.

    Raises
    ------
    ValueError
        The shapes differ or are not YX, an array is not integer, or a counted pixel has an id below 0 (except `IGNORE`
        in the ground truth) or above 2**63 - 1.

    Examples
    --------
    >>> table = contingency(np.array([[7, 7, 0, -1]]), np.array([[9, 9, 9, 9]]))
    >>> table.overlaps, table.prediction_areas, table.ious.round(3)
    (array([2]), array([3]), array([0.667]))
    """
    _check(truth_yx, prediction_yx)
    blocks = list(_runs(truth_yx, prediction_yx))
    truth, prediction, lengths = (
        (np.concatenate(parts) for parts in zip(*blocks)) if blocks else (np.zeros(0, np.int64),) * 3
    )
    # Index 0 is the background, even if no pixel is background.
    truth_ids, truth_index = np.unique(np.append(truth, 0), return_inverse=True)
    prediction_ids, prediction_index = np.unique(np.append(prediction, 0), return_inverse=True)
    keys, index = np.unique(truth_index[:-1] * prediction_ids.size + prediction_index[:-1], return_inverse=True)
    overlaps = _sums(index, lengths, keys.size)
    rows, columns = np.divmod(keys, prediction_ids.size)
    both = (rows > 0) & (columns > 0)
    return Contingency(
        truth_ids=truth_ids[1:],
        prediction_ids=prediction_ids[1:],
        truth_areas=_sums(rows, overlaps, truth_ids.size)[1:],
        prediction_areas=_sums(columns, overlaps, prediction_ids.size)[1:],
        rows=rows[both] - 1,
        columns=columns[both] - 1,
        overlaps=overlaps[both],
        pixels=int(lengths.sum()),
    )


def match(table: Contingency, threshold: float = 0.5) -> Match:
    """Pair true and predicted objects whose IoU is at least ``threshold``, each at most once.

    The matching has the largest possible number of pairs and, among those, the largest sum of IoU. Above an IoU of 0.5
    each object has at most one candidate. An IoU equal to the threshold is a match, as in stardist and cellpose; the
    rules of the 2018 Data Science Bowl say "greater than".

    Parameters
    ----------
    table
        Result of `contingency`.
    threshold
        Least IoU of a pair, above 0 and at most 1.

    Returns
    -------
    Match
        Counts and pairs.

    Raises
    ------
    ValueError
        The threshold is out of range.

    Examples
    --------
    >>> found = match(contingency(np.array([[7, 7, 0, 5]]), np.array([[9, 9, 9, 0]])), 0.5)
    >>> found.tp, found.fp, found.fn, found.pairs.tolist()
    (1, 0, 1, [[7, 9]])
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"an IoU threshold must be above 0 and at most 1, got {threshold}")
    ious = table.ious
    eligible = np.flatnonzero(ious >= threshold)
    if threshold <= 0.5:
        eligible = eligible[_assign(table.rows[eligible], table.columns[eligible], ious[eligible])]
    pairs = np.stack([table.truth_ids[table.rows[eligible]], table.prediction_ids[table.columns[eligible]]], axis=1)
    tp = eligible.size
    return Match(
        threshold=threshold,
        tp=tp,
        fp=table.prediction_ids.size - tp,
        fn=table.truth_ids.size - tp,
        pairs=pairs,
        ious=ious[eligible],
    )


def _check(truth_yx: Labels, prediction_yx: Labels) -> None:
    if truth_yx.shape != prediction_yx.shape or truth_yx.ndim != 2:
        raise ValueError(
            "ground truth and prediction must both be YX and of equal shape, "
            f"got {truth_yx.shape} and {prediction_yx.shape}"
        )
    for name, array in (("ground truth", truth_yx), ("prediction", prediction_yx)):
        if array.dtype.kind not in "bui":
            raise ValueError(f"{name} must hold integers, got {array.dtype}")


def _runs(truth_yx: Labels, prediction_yx: Labels) -> Iterator[tuple[Integers, Integers, Integers]]:
    """Yield true id, predicted id and length of each run of counted pixels in which neither id changes.

    Objects are far wider than a pixel, so sorting runs takes a tenth of the time of sorting pixels.
    """
    height, width = truth_yx.shape
    rows = max(1, _BLOCK // max(1, width))
    for y in range(0, height if width else 0, rows):
        truth, prediction = truth_yx[y : y + rows].ravel(), prediction_yx[y : y + rows].ravel()
        changes = np.flatnonzero((truth[1:] != truth[:-1]) | (prediction[1:] != prediction[:-1])) + 1
        starts = np.concatenate([[0], changes])
        lengths = np.diff(starts, append=truth.size)
        counted = truth[starts] != IGNORE
        starts, lengths = starts[counted], lengths[counted]
        yield _ids("ground truth", truth[starts]), _ids("prediction", prediction[starts]), lengths


def _ids(name: str, values: Labels) -> Integers:
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < 1 << 63:
        stray = next(value for value in (int(values.min()), int(values.max())) if not 0 <= value < 1 << 63)
        allowed = f"0 to 2**63 - 1{f' or the ignore label {IGNORE}' if name == 'ground truth' else ''}"
        raise ValueError(f"{name} holds the id {stray}, expected {allowed}")
    return values.astype(np.int64)


def _sums(index: Integers, numbers: Integers, size: int) -> Integers:
    # bincount sums in float64, which is exact below 2**53 pixels.
    return np.bincount(index, weights=numbers, minlength=size).astype(np.int64)


def _assign(rows: Integers, columns: Integers, ious: Reals) -> Integers:
    """Return the positions of the pairs of a maximum matching, ascending."""
    _, row = np.unique(rows, return_inverse=True)
    _, column = np.unique(columns, return_inverse=True)
    alone = (np.bincount(row)[row] == 1) & (np.bincount(column)[column] == 1)
    rivals = np.flatnonzero(~alone)
    if not rivals.size:
        return np.arange(rows.size)
    _, row = np.unique(row[rivals], return_inverse=True)
    _, column = np.unique(column[rivals], return_inverse=True)
    height, width = int(row.max()) + 1, int(column.max()) + 1
    # An unmatched row costs 2. A pair costs 1 minus a fraction of its IoU, and all fractions together are less than 1,
    # so one more pair outweighs any IoU. The table is sparse: a dense one of 20,000 objects takes gigabytes.
    costs = np.concatenate([1 - ious[rivals] / (2 * min(height, width)), np.full(height, 2.0)])
    places = np.concatenate([row, np.arange(height)]), np.concatenate([column, width + np.arange(height)])
    _, partner = min_weight_full_bipartite_matching(csr_array((costs, places), shape=(height, width + height)))
    alone[rivals] = partner[row] == column
    return np.flatnonzero(alone)
