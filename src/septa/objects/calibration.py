"""Whether a net is as sure of objects as it is right about them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.metrics import Labels, contingency, match
from septa.objects.measure import confidence as confidence_of

Integers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Judged = tuple[Reals, npt.NDArray[np.bool_]]
"""Of each object how sure the net is of it, and whether it is right."""


def judge(truth_yx: Labels, prediction_yx: Labels, foreground_yx: npt.NDArray[np.floating[Any]]) -> Judged:
    """Tell of each predicted object how sure the net is of it, and whether it is right.

    Parameters
    ----------
    truth_yx, prediction_yx
        Object ids, as for `septa.metrics.overlaps.contingency`; objects wholly within ignored pixels do not count.
    foreground_yx
        The net's probability of foreground, as for `septa.objects.measure.confidence`.

    Returns
    -------
    confidence
        float64 in 0..1, one for each predicted object that counts, by ascending id.
    right
        bool, whether it is matched to a true object at an IoU of 0.5.

    Examples
    --------
    >>> judge(np.array([[5, 5, 0, 0]]), np.array([[1, 1, 0, 2]]), np.array([[0.9, 0.7, 0.0, 0.6]]))
    (array([0.8, 0.6]), array([ True, False]))
    """
    table = contingency(truth_yx, prediction_yx)
    ids = np.unique(prediction_yx[prediction_yx > 0])
    sure = confidence_of(prediction_yx, foreground_yx)[np.isin(ids, table.prediction_ids)]
    return sure, np.isin(table.prediction_ids, match(table, 0.5).pairs[:, 1])


def calibrate(judged: Iterable[Judged], bins: int = 10) -> dict[str, Any]:
    """Summarise the objects of all images in plain values for strict JSON.

    Parameters
    ----------
    judged
        What `judge` found of each image.
    bins
        As for `reliability`.

    Returns
    -------
    ``objects``, their number; ``expected_calibration_error``; and ``bins``, for each its ends ``low`` and ``high``,
    ``objects``, the mean ``confidence`` and the share that is ``right``, these two None without objects.

    Examples
    --------
    >>> found = calibrate([(np.array([0.9, 0.7]), np.array([True, True])), (np.array([0.2]), np.array([False]))], 2)
    >>> found["objects"], round(found["expected_calibration_error"], 6), found["bins"][0]
    (3, 0.2, {'low': 0.0, 'high': 0.5, 'objects': 1, 'confidence': 0.2, 'right': 0.0})
    """
    parts = [(np.zeros(0), np.zeros(0, bool)), *judged]
    sure, right = (np.concatenate(values) for values in zip(*parts, strict=True))
    edges, mean, share, number = (values.tolist() for values in reliability(sure, right, bins))
    rows = [
        {
            "low": edges[k],
            "high": edges[k + 1],
            "objects": number[k],
            "confidence": mean[k] if number[k] else None,
            "right": share[k] if number[k] else None,
        }
        for k in range(bins)
    ]
    error = expected_calibration_error(sure, right, bins)
    return {"objects": sure.size, "expected_calibration_error": error, "bins": rows}


def reliability(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 10
) -> tuple[Reals, Reals, Reals, Integers]:
    """Compare how sure a net was of objects with how often it was right.

    Parameters
    ----------
    confidence, correct
        One for each object: confidence in 0..1, and whether it is right, as by a match to a true one at an IoU of 0.5.
    bins
        Number of intervals of equal width that 0..1 is cut into; each holds its lower edge, the last both.

    Returns
    -------
    float64 ``bins + 1`` edges; for each bin the mean confidence and the share correct, float64 and NaN where there is
    no object, and the number of objects, int64. ValueError for other lengths, no bin, or confidences out of 0..1.

    Examples
    --------
    >>> reliability([0.2, 0.6, 1.0], [False, True, False], bins=2)
    (array([0. , 0.5, 1. ]), array([0.2, 0.8]), array([0. , 0.5]), array([1, 2]))
    """
    sure, right = np.asarray(confidence, np.float64), np.asarray(correct, bool)
    if sure.ndim != 1 or sure.shape != right.shape:
        raise ValueError(f"confidence and correct must be lists of one length, got {sure.shape} and {right.shape}")
    if bins < 1 or not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError(f"expected at least one bin and confidences in 0..1, got {bins} and {sure}")
    edges = np.arange(bins + 1) / bins
    place = np.minimum(np.searchsorted(edges, sure, side="right") - 1, bins - 1)
    number = np.bincount(place, minlength=bins).astype(np.int64)
    some = np.where(number, number, np.nan)
    mean = np.bincount(place, weights=sure, minlength=bins) / some
    return edges, mean, np.bincount(place, weights=right, minlength=bins) / some, number


def expected_calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 10) -> float:
    """Mean distance between confidence and share correct over the bins of `reliability`, weighted by their objects.

    Parameters and errors as there (Naeini et al. 2015, doi 10.1609/aaai.v29i1.9602). In 0..1; 0.0 without objects.

    Examples
    --------
    >>> round(expected_calibration_error([0.2, 0.6, 1.0], [False, True, False], bins=2), 6)
    0.266667
    """
    _, mean, share, number = reliability(confidence, correct, bins)
    return float(np.nansum(number * np.abs(mean - share)) / max(1, number.sum()))
