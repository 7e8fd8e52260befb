"""Scores of objects that have a class each: a match counts where the classes agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.metrics.overlaps import Contingency, Integers, match
from septa.metrics.spread import spread

Reals = npt.NDArray[np.float64]
ClassOfId = npt.NDArray[np.integer[Any]]
"""Class of each object, indexed by its id."""


def class_matches(
    table: Contingency, truth_class_of_id: ClassOfId, prediction_class_of_id: ClassOfId, classes: int
) -> Integers:
    """Count the objects of each class, and those of them that are found with their class.

    Parameters
    ----------
    table
        Overlaps of true and predicted objects. They are matched at an IoU of 0.5, whatever their classes.
    truth_class_of_id, prediction_class_of_id
        Class of each object from 1, integers indexed by object id; see `septa.labels.ObjectLabels`.
    classes
        Number of classes, background included.

    Returns
    -------
    int64 ``(classes, 3)``: matched pairs in which both have the class, true objects, predicted objects.
    """
    pairs = match(table, 0.5).pairs
    true, predicted = truth_class_of_id[pairs[:, 0]], prediction_class_of_id[pairs[:, 1]]
    each = (true[true == predicted], truth_class_of_id[table.truth_ids], prediction_class_of_id[table.prediction_ids])
    return np.stack([np.bincount(found, minlength=classes) for found in each], axis=1).astype(np.int64)


def class_f1(counts: Integers) -> Reals:
    """F1 of each class, 2 TP / (true + predicted), of `class_matches` or a sum of such; 1.0 where there are none.

    Examples
    --------
    >>> class_f1(np.array([[0, 0, 0], [2, 3, 5]]))
    array([1. , 0.5])
    """
    tp, truth, prediction = counts.T
    total = truth + prediction
    return np.asarray(np.where(total, 2 * tp / np.maximum(total, 1), 1.0), np.float64)


def object_class_spreads(counts: Sequence[Integers | None], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Summarise the counts of images.

    Parameters
    ----------
    counts
        What `class_matches` gives of each image; None where objects have no classes.
    names
        Of the classes, background first.

    Returns
    -------
    Name of each class but the background to its F1: ``mean`` over images with ``low`` and ``high``, ``pooled`` over
    all objects together, and to ``truth_count`` and ``prediction_count``. Empty without counts.
    """
    known = [one for one in counts if one is not None]
    if not known:
        return {}
    total = np.sum(known, axis=0)
    pooled = class_f1(total)
    return {
        name: spread(class_f1(one)[k] for one in known)
        | {"pooled": float(pooled[k]), "truth_count": int(total[k, 1]), "prediction_count": int(total[k, 2])}
        for k, name in enumerate(names)
        if k
    }
