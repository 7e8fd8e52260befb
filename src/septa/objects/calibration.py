"""Calibration of object confidences: confidence compared with the share of correct objects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.metrics import Labels, contingency, match
from septa.objects.curve import ConfidenceCurve, Judged, Reals
from septa.objects.soft_iou import confidence as confidence_of

Integers = npt.NDArray[np.int64]


def judge(
    truth_yx: Labels,
    prediction_yx: Labels,
    foreground_yx: npt.NDArray[np.floating[Any]],
    curve: ConfidenceCurve | None = None,
) -> Judged:
    """Return the confidence of each predicted object, and whether it is correct.

    Parameters
    ----------
    truth_yx, prediction_yx
        Object ids, as for `septa.metrics.contingency`. Objects that lie entirely in ignored pixels do not count.
    foreground_yx
        Foreground probability of the net, as for `septa.objects.confidence`.
    curve
        Curve that calibrates the confidences; they are left as they are if None.

    Returns
    -------
    confidence
        float64 in 0..1, one value per predicted object that counts, by ascending id.
    correct
        bool, True if the object matches a ground-truth object at an IoU of 0.5.

    Examples
    --------
    >>> judge(np.array([[5, 5, 0, 0]]), np.array([[1, 1, 0, 2]]), np.array([[0.9, 0.7, 0.0, 0.6]]))
    (array([0.8, 0.6]), array([ True, False]))
    """
    table = contingency(truth_yx, prediction_yx)
    ids = np.unique(prediction_yx[prediction_yx > 0])
    confidences = confidence_of(prediction_yx, foreground_yx)[np.isin(ids, table.prediction_ids)]
    confidences = confidences if curve is None else curve.apply(confidences)
    return confidences, np.isin(table.prediction_ids, match(table, 0.5).pairs[:, 1])


def calibrate(judged: Iterable[Judged], bins: int = 10) -> dict[str, Any]:
    """Summarise the calibration over all images as plain values for strict JSON.

    Parameters
    ----------
    judged
        Results of `judge`, one per image.
    bins
        Number of bins, as for `reliability`.

    Returns
    -------
    dict
        ``objects`` is the number of objects, ``expected_calibration_error`` the error in 0..1. ``bins`` lists for each
        bin its limits ``low`` and ``high``, the number of ``objects``, their mean ``confidence``, and the share that is
        ``right``. The last two are None in an empty bin.

    Examples
    --------
    >>> found = calibrate([(np.array([0.9, 0.7]), np.array([True, True])), (np.array([0.2]), np.array([False]))], 2)
    >>> found["objects"], round(found["expected_calibration_error"], 6), found["bins"][0]
    (3, 0.2, {'low': 0.0, 'high': 0.5, 'objects': 1, 'confidence': 0.2, 'right': 0.0})
    """
    parts = [(np.zeros(0), np.zeros(0, bool)), *judged]
    confidences, correct = (np.concatenate(values) for values in zip(*parts, strict=True))
    edges, mean, share, number = (values.tolist() for values in reliability(confidences, correct, bins))
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
    error = compute_calibration_error(confidences, correct, bins)
    return {"objects": confidences.size, "expected_calibration_error": error, "bins": rows}


def reliability(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 10
) -> tuple[Reals, Reals, Reals, Integers]:
    """Compare confidences with the share of correct objects, bin by bin.

    Parameters
    ----------
    confidence
        Confidence of each object, in 0..1.
    correct
        True for each object that is correct, for example matched to a ground-truth object at an IoU of 0.5.
    bins
        Number of bins of equal width in 0..1. A bin contains its lower edge; the last one contains both edges.

    Returns
    -------
    edges
        float64, ``bins + 1`` limits of the bins.
    mean_confidence, share_correct
        float64, one value per bin; NaN in an empty bin.
    number
        int64, number of objects per bin.

    Raises
    ------
    ValueError
        The lengths differ, there is no bin, or a confidence lies outside 0..1.

    Examples
    --------
    >>> reliability([0.2, 0.6, 1.0], [False, True, False], bins=2)
    (array([0. , 0.5, 1. ]), array([0.2, 0.8]), array([0. , 0.5]), array([1, 2]))
    """
    confidences = np.asarray(confidence, np.float64)
    hits = np.asarray(correct, bool)
    if confidences.ndim != 1 or confidences.shape != hits.shape:
        shapes = f"{confidences.shape} and {hits.shape}"
        raise ValueError(f"confidence and correct must be lists of one length, got {shapes}")
    if bins < 1 or not ((confidences >= 0) & (confidences <= 1)).all():
        raise ValueError(f"expected at least one bin and confidences in 0..1, got {bins} and {confidences}")
    edges = np.arange(bins + 1) / bins
    place = np.minimum(np.searchsorted(edges, confidences, side="right") - 1, bins - 1)
    number = np.bincount(place, minlength=bins).astype(np.int64)
    divisor = np.where(number, number, np.nan)
    mean = np.bincount(place, weights=confidences, minlength=bins) / divisor
    return edges, mean, np.bincount(place, weights=hits, minlength=bins) / divisor, number


def compute_calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 10) -> float:
    """Compute the expected calibration error (ECE) of object confidences.

    It is the mean distance between confidence and share of correct objects over the bins of `reliability`, weighted by
    the number of objects. Parameters and errors are those of `reliability`. The result lies in 0..1, and is 0.0
    without objects.

    References
    ----------
    Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning", doi 10.1609/aaai.v29i1.9602.

    Examples
    --------
    >>> round(compute_calibration_error([0.2, 0.6, 1.0], [False, True, False], bins=2), 6)
    0.266667
    """
    _, mean, share, number = reliability(confidence, correct, bins)
    return float(np.nansum(number * np.abs(mean - share)) / max(1, number.sum()))
