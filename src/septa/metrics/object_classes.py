"""Scores of objects with classes: a match counts if the classes agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.metrics.overlaps import Contingency, Integers, match
from septa.metrics.spread import compute_spread

Reals = npt.NDArray[np.float64]
ClassOfId = npt.NDArray[np.integer[Any]]
"""Class of each object, indexed by its id."""


def count_class_matches(
    table: Contingency, truth_class_of_id: ClassOfId, prediction_class_of_id: ClassOfId, classes: int
) -> Integers:
    """Count the objects of each class, and the matched objects whose classes agree.

    Parameters
    ----------
    table
        Overlaps of true and predicted objects. They are matched at an IoU of 0.5, whatever their classes.
    truth_class_of_id, prediction_class_of_id
        Class of each object from 1, integers indexed by object id; see `septa.labels.ObjectLabels`.
    classes
        Number of classes, including background.

    Returns
    -------
    ndarray
        int64 ``(classes, 3)``: matched pairs in which both objects have the class, true objects, predicted objects.
    """
    pairs = match(table, 0.5).pairs
    true, predicted = truth_class_of_id[pairs[:, 0]], prediction_class_of_id[pairs[:, 1]]
    each = (true[true == predicted], truth_class_of_id[table.truth_ids], prediction_class_of_id[table.prediction_ids])
    return np.stack([np.bincount(found, minlength=classes) for found in each], axis=1).astype(np.int64)


def compute_class_f1(counts: Integers) -> Reals:
    """Compute the F1 of each class, 2 TP / (true + predicted), from counts that may be summed; 1.0 without objects.

    Examples
    --------
    >>> compute_class_f1(np.array([[0, 0, 0], [2, 3, 5]]))
    array([1. , 0.5])
    """
    tp, truth, prediction = counts.T
    total = truth + prediction
    return np.asarray(np.where(total, 2 * tp / np.maximum(total, 1), 1.0), np.float64)


def summarise_object_classes(counts: Sequence[Integers | None], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Summarise the class counts of images.

    Parameters
    ----------
    counts
        Results of `count_class_matches`, one per image; None if objects have no classes.
    names
        Names of the classes, background first.

    Returns
    -------
    dict
        Name of each foreground class to its F1 (``mean`` over images with ``low`` and ``high``, ``pooled`` over all
        objects) and its ``truth_count`` and ``prediction_count``. Empty without counts.
    """
    known = [one for one in counts if one is not None]
    if not known:
        return {}
    total = np.sum(known, axis=0)
    pooled = compute_class_f1(total)
    return {
        name: compute_spread(compute_class_f1(one)[k] for one in known)
        | {"pooled": float(pooled[k]), "truth_count": int(total[k, 1]), "prediction_count": int(total[k, 2])}
        for k, name in enumerate(names)
        if k
    }
