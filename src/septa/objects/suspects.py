"""Labels to look at again: objects about which the labels and a model that is sure of itself disagree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from septa.metrics import Labels, contingency

Kind = Literal["missing", "extra", "merged", "split", "outline"]
Box = tuple[int, int, int, int]

_LITTLE = 0.2
"""Share of an object below which an overlap is taken for that of a neighbour."""
_SAME = 0.5
"""IoU from which on two objects are the same."""


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """Objects of the labels, and of a prediction, that contradict each other.

    Attributes
    ----------
    kind
        ``missing``: the prediction has an object where none is drawn. ``extra``: one is drawn where the net sees
        background. ``merged``: one is drawn, the prediction has several. ``split``: several are drawn, the prediction
        has one. ``outline``: the outlines differ.
    drawn, predicted
        Ids of the objects in the labels and in the prediction; empty if there is none.
    box
        First row and column of these objects together, and the ones after the last.
    certainty
        Certainty of the prediction, 0 to 1.
    """

    kind: Kind
    drawn: tuple[int, ...]
    predicted: tuple[int, ...]
    box: Box
    certainty: float


def find_suspects(
    labels_yx: Labels,
    predicted_yx: Labels,
    foreground_yx: npt.NDArray[np.floating[Any]],
    confidences: npt.NDArray[np.floating[Any]],
    *,
    sure: float = 0.8,
) -> list[Suspect]:
    """Find the objects about which labels and a sure prediction disagree.

    Errors of labels stand out where a model is confident of something else (Northcutt et al. 2021, "Confident
    learning", doi 10.1613/jair.1.12125). Here the confidence is that of objects, not of pixels.

    Parameters
    ----------
    labels_yx, predicted_yx
        Object ids, integers ``YX``, as for `septa.metrics.contingency`; `IGNORE` (-1) in ``labels_yx`` does not count.
    foreground_yx
        Foreground probability of the net, float ``YX`` in 0..1.
    confidences
        Confidence of each predicted object, 0..1, by ascending id.
    sure
        Confidence from which on the prediction is sure of an object, above 0.5.

    Returns
    -------
    list of Suspect
        The most certain first. No object is in two of them, except that a ``split`` or ``merged`` one may be in another
        of these kinds.

    Raises
    ------
    ValueError
        The sizes differ, or there is not one confidence for each object.

    Examples
    --------
    >>> drawn, found = np.array([[1, 1, 0, 0, 0]]), np.array([[1, 1, 0, 2, 2]])
    >>> find_suspects(drawn, found, np.array([[0.9, 0.9, 0.0, 0.9, 0.9]]), np.array([0.9, 0.9]))[0].kind
    'missing'
    """
    ids = np.unique(predicted_yx[predicted_yx > 0])
    if foreground_yx.shape != labels_yx.shape or confidences.shape != ids.shape:
        got = f"{foreground_yx.shape} probabilities, {labels_yx.shape} labels and {confidences.shape} confidences"
        raise ValueError(f"expected one size, and a confidence for each of {ids.size} objects, got {got}")
    found = list(_compare(labels_yx, predicted_yx, foreground_yx, dict(zip(ids.tolist(), confidences.tolist())), sure))
    boxes = [_find_boxes(labels_yx), _find_boxes(predicted_yx)]
    placed = [
        Suspect(kind=kind, drawn=drawn, predicted=predicted, certainty=certainty, box=_join(boxes, drawn, predicted))
        for kind, drawn, predicted, certainty in found
    ]
    return sorted(placed, key=lambda one: (-one.certainty, one.box))


def _compare(
    labels_yx: Labels,
    predicted_yx: Labels,
    foreground_yx: npt.NDArray[np.floating[Any]],
    confidence_of: dict[int, float],
    sure: float,
) -> Iterator[tuple[Kind, tuple[int, ...], tuple[int, ...], float]]:
    """Yield kind, drawn and predicted ids and certainty of each disagreement."""
    table = contingency(labels_yx, predicted_yx)
    drawn, predicted = table.truth_ids.tolist(), table.prediction_ids.tolist()
    confidence = np.array([confidence_of[one] for one in predicted])
    is_sure = confidence >= sure
    in_drawn = table.overlaps / table.prediction_areas[table.columns]  # share of the predicted object
    in_predicted = table.overlaps / table.truth_areas[table.rows]
    settled = [np.zeros(len(drawn), bool), np.zeros(len(predicted), bool)]
    # Several objects in one: each lies there for more than a half, so each is in one group at most.
    inside, around = (in_drawn > 0.5) & is_sure[table.columns], (in_predicted > 0.5) & is_sure[table.columns]
    for row in np.flatnonzero(np.bincount(table.rows[inside], minlength=len(drawn)) > 1):
        parts = table.columns[inside & (table.rows == row)]
        settled[0][row], settled[1][parts] = True, True
        yield "merged", (drawn[row],), tuple(predicted[part] for part in parts), float(np.sort(confidence[parts])[-2])
    for column in np.flatnonzero(np.bincount(table.columns[around], minlength=len(predicted)) > 1):
        parts = table.rows[around & (table.columns == column)]
        settled[0][parts], settled[1][column] = True, True
        yield "split", tuple(drawn[part] for part in parts), (predicted[column],), float(confidence[column])
    covered = np.bincount(table.columns, in_drawn, len(predicted))
    for column in np.flatnonzero(is_sure & (covered < _LITTLE) & ~settled[1]):
        settled[1][column] = True
        yield "missing", (), (predicted[column],), float(confidence[column])
    best = np.zeros(len(drawn))
    np.maximum.at(best, table.rows, in_predicted)
    alone = np.flatnonzero((best < _LITTLE) & ~settled[0])
    certainties = 1 - np.asarray(ndimage.mean(foreground_yx, labels_yx, table.truth_ids[alone])).reshape(-1)
    for row, certainty in zip(alone, certainties.tolist()):
        if certainty >= sure:
            settled[0][row] = True
            yield "extra", (drawn[row],), (), certainty
    ious = table.ious
    for pair in np.argsort(-ious, kind="stable"):
        row, column = table.rows[pair], table.columns[pair]
        if settled[0][row] or settled[1][column]:
            continue
        settled[0][row] = settled[1][column] = True  # each with the object that it fits best
        if is_sure[column] and ious[pair] < _SAME:
            yield "outline", (drawn[row],), (predicted[column],), float(confidence[column] * (1 - ious[pair]))


def _find_boxes(labels_yx: Labels) -> dict[int, Box]:
    """Return the box of each object by its id."""
    rows, columns = np.nonzero(labels_yx > 0)
    if not rows.size:
        return {}
    ids, place = np.unique(labels_yx[rows, columns], return_inverse=True)
    low = np.full((2, ids.size), np.iinfo(np.int64).max)
    high = np.zeros((2, ids.size), np.int64)
    for axis, at in enumerate((rows, columns)):
        np.minimum.at(low[axis], place, at)
        np.maximum.at(high[axis], place, at + 1)
    edges = np.stack([*low, *high], axis=1).tolist()
    return {int(one): (top, left, bottom, right) for one, (top, left, bottom, right) in zip(ids, edges)}


def _join(boxes: list[dict[int, Box]], drawn: tuple[int, ...], predicted: tuple[int, ...]) -> Box:
    """Return the box around objects of the labels and of the prediction."""
    edges = [*(boxes[0][one] for one in drawn), *(boxes[1][one] for one in predicted)]
    tops, lefts, bottoms, rights = zip(*edges, strict=True)
    return min(tops), min(lefts), max(bottoms), max(rights)
