"""Pixel metrics: exact integer counts, ratios of them, and intervals over images.

No ratio is ever NaN. A class that is absent from both ground truth and prediction scores 1.0; a class that is absent
from only one of them scores 0.0. If no pixel counts (all are ignored), the pixel accuracy is 1.0 and the error 0.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

# Pixels per block: temporaries take a few MB and stay in the processor's cache.
_BLOCK = 1 << 18


def confusion(truth_yx: Labels, prediction_yx: Labels, classes: int, ignore: int = -1) -> Counts:
    """Count how often each true class was predicted as each class.

    Parameters
    ----------
    truth_yx, prediction_yx
        Class indices 0 to ``classes - 1``, any integer dtype or bool, equal shapes.
    classes
        Number of classes, at least 1.
    ignore
        Ignore label: pixels with this value in the ground truth are not counted, whatever their prediction.

    Returns
    -------
    ndarray
        int64 ``(classes, classes)``: rows are true classes, columns predicted classes. Confusions of several images can
        be summed.

    Raises
    ------
    ValueError
        The shapes differ or are not YX, an array is not integer, or a counted value is not a class.

    Examples
    --------
    >>> confusion(np.array([[0, 1, 1, -1]]), np.array([[0, 1, 0, 1]]), classes=2)
    array([[1, 0],
           [1, 1]])
    """
    if classes < 1:
        raise ValueError(f"classes must be at least 1, got {classes}")
    counts = np.zeros(classes * classes, np.int64)
    for truth, prediction in _iterate_counted(truth_yx, prediction_yx, classes - 1, ignore):
        counts += np.bincount(truth * classes + prediction, minlength=classes * classes)
    return counts.reshape(classes, classes)


def confusion_multilabel(truth_yx: Labels, prediction_yx: Labels, classes: int, ignore: int = -1) -> Counts:
    """Count, for each of several overlapping classes, how often its presence was predicted.

    Parameters
    ----------
    truth_yx, prediction_yx
        Bit fields 0 to ``2**classes - 1``: bit k is set if class k is present. Any integer dtype or bool, equal
        shapes.
    classes
        Number of classes, 1 to 63.
    ignore
        Ignore label: pixels with this value in the ground truth are not counted, whatever their prediction.

    Returns
    -------
    ndarray
        int64 ``(classes, 2, 2)``: class, absent/present in the ground truth, absent/present in the prediction.

    Raises
    ------
    ValueError
        As for `confusion`.

    Examples
    --------
    >>> confusion_multilabel(np.array([[0b01, 0b11]]), np.array([[0b01, 0b01]]), classes=2)[1]
    array([[1, 0],
           [1, 0]])
    """
    if not 1 <= classes <= 63:
        raise ValueError(f"classes must be 1 to 63 (bits of an integer), got {classes}")
    counts = np.zeros((classes, 2, 2), np.int64)
    for truth, prediction in _iterate_counted(truth_yx, prediction_yx, 2**classes - 1, ignore):
        shared = truth & prediction
        for k in range(classes):
            both, true, predicted = (np.count_nonzero(bits & (1 << k)) for bits in (shared, truth, prediction))
            counts[k] += [[truth.size - true - predicted + both, predicted - both], [true - both, both]]
    return counts


def class_counts(confusion: Counts) -> Counts:
    """Reduce a confusion to true and false positives and negatives of each class.

    Parameters
    ----------
    confusion
        Integer array K x K from `confusion`, or K x 2 x 2 from `confusion_multilabel`.

    Returns
    -------
    ndarray
        int64 ``(K, 4)``: true positives, false positives, false negatives, true negatives.

    Raises
    ------
    ValueError
        The confusion has another shape.

    Examples
    --------
    >>> class_counts(np.array([[1, 0], [1, 1]]))
    array([[1, 1, 0, 1],
           [1, 0, 1, 1]])
    """
    matrix = _check_confusion(confusion)
    if matrix.ndim == 3:
        return np.stack([matrix[:, 1, 1], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 0, 0]], axis=1)
    hits = matrix.diagonal()
    false_positives = matrix.sum(axis=0) - hits
    false_negatives = matrix.sum(axis=1) - hits
    rest = matrix.sum() - hits - false_positives - false_negatives
    return np.stack([hits, false_positives, false_negatives, rest], axis=1)


def dice(counts: Counts) -> Scores:
    """Compute the Dice coefficient (equal to F1) of each class, 2 TP / (2 TP + FP + FN).

    Parameters
    ----------
    counts
        Integer array K x 4 from `class_counts`.

    Returns
    -------
    ndarray
        float64 ``(K,)``, 0 to 1. A class absent from ground truth and prediction scores 1.0, from only one of them 0.0.

    Raises
    ------
    ValueError
        ``counts`` is not K x 4.

    Examples
    --------
    >>> dice(np.array([[2, 1, 1, 5], [0, 0, 0, 9], [0, 0, 4, 5]])).round(3).tolist()
    [0.667, 1.0, 0.0]
    """
    hits, false_positives, false_negatives = _columns(counts)
    return _ratio(2 * hits, 2 * hits + false_positives + false_negatives, counts)


def iou(counts: Counts) -> Scores:
    """Compute the intersection over union (Jaccard index) of each class, TP / (TP + FP + FN).

    Parameters, result, policy and errors as for `dice`.

    Examples
    --------
    >>> iou(np.array([[2, 1, 1, 5], [0, 0, 0, 9], [0, 0, 4, 5]])).tolist()
    [0.5, 1.0, 0.0]
    """
    hits, false_positives, false_negatives = _columns(counts)
    return _ratio(hits, hits + false_positives + false_negatives, counts)


def precision(counts: Counts) -> Scores:
    """Compute the share of correct pixels among the predicted pixels of each class, TP / (TP + FP).

    Parameters, result, policy and errors as for `dice`: 0.0 if a class of the ground truth was never predicted.

    Examples
    --------
    >>> precision(np.array([[3, 1, 0, 5], [0, 0, 0, 9], [0, 0, 4, 5]])).tolist()
    [0.75, 1.0, 0.0]
    """
    hits, false_positives, _ = _columns(counts)
    return _ratio(hits, hits + false_positives, counts)


def recall(counts: Counts) -> Scores:
    """Compute the share of found pixels among the true pixels of each class, TP / (TP + FN).

    Parameters, result, policy and errors as for `dice`: 0.0 if a predicted class is absent from the ground truth.

    Examples
    --------
    >>> recall(np.array([[3, 0, 1, 5], [0, 0, 0, 9], [0, 4, 0, 5]])).tolist()
    [0.75, 1.0, 0.0]
    """
    hits, _, false_negatives = _columns(counts)
    return _ratio(hits, hits + false_negatives, counts)


def pixel_accuracy(confusion: Counts) -> float:
    """Compute the share of counted pixels with the correct class, 0 to 1; 1.0 if no pixel counts.

    With overlapping classes (K x 2 x 2), each pixel counts once per class.

    Raises
    ------
    ValueError
        ``confusion`` is neither K x K nor K x 2 x 2.

    Examples
    --------
    >>> pixel_accuracy(np.array([[6, 0], [2, 0]]))
    0.75
    """
    right, total = _right_and_total(confusion)
    return right / total if total else 1.0


def pixel_error(confusion: Counts) -> float:
    """Compute the share of counted pixels with a wrong class, 0 to 1; 0.0 if no pixel counts. See `pixel_accuracy`.

    Examples
    --------
    >>> pixel_error(np.array([[6, 0], [2, 0]]))
    0.25
    """
    right, total = _right_and_total(confusion)
    return (total - right) / total if total else 0.0


def bootstrap_interval(
    values: npt.ArrayLike, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of a mean (Efron and Tibshirani 1993, chapter 13).

    Parameters
    ----------
    values
        One finite number per independent unit, here per image; at least one. The order does not matter.
    level
        Share of the resampled means inside the interval, between 0 and 1.
    resamples
        Number of draws with replacement.
    seed
        Seed; equal seeds and values give equal intervals.

    Returns
    -------
    tuple
        Lower and upper end. If all values are equal, both ends equal that value.

    Raises
    ------
    ValueError
        There are no values, a value is not finite, or the level or the number of resamples is out of range.

    Examples
    --------
    >>> bootstrap_interval([0.5, 0.5, 0.5])
    (0.5, 0.5)
    """
    ordered = np.sort(np.asarray(values, np.float64).ravel())
    if not ordered.size or not np.isfinite(ordered).all():
        raise ValueError(f"values must be finite and at least one, got {ordered.size}: {ordered[-5:].tolist()}")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level must be between 0 and 1 and resamples at least 1, got {level} and {resamples}")
    if ordered[0] == ordered[-1]:
        return float(ordered[0]), float(ordered[0])
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // ordered.size)
    means = [
        ordered[rng.integers(ordered.size, size=(min(rows, resamples - start), ordered.size))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def _iterate_counted(
    truth_yx: Labels, prediction_yx: Labels, largest: int, ignore: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    if truth_yx.shape != prediction_yx.shape or truth_yx.ndim != 2:
        raise ValueError(
            "ground truth and prediction must both be YX and of equal shape, "
            f"got {truth_yx.shape} and {prediction_yx.shape}"
        )
    for name, array in (("ground truth", truth_yx), ("prediction", prediction_yx)):
        if array.dtype.kind not in "bui":
            raise ValueError(f"{name} must hold integers, got {array.dtype}")
    height, width = truth_yx.shape
    columns = max(1, min(width, _BLOCK))
    rows = _BLOCK // columns
    for y in range(0, height, rows):
        for x in range(0, width, columns):
            window = slice(y, y + rows), slice(x, x + columns)
            truth, prediction = truth_yx[window].ravel(), prediction_yx[window].ravel()
            counted = truth != ignore
            # Selecting costs more than counting, so it is skipped if nothing is ignored.
            if not counted.all():
                truth, prediction = truth[counted], prediction[counted]
            _check_range("ground truth", truth, largest, ignore)
            _check_range("prediction", prediction, largest, ignore)
            yield truth.astype(np.int64, copy=False), prediction.astype(np.int64, copy=False)


def _check_range(name: str, values: Labels, largest: int, ignore: int) -> None:
    if not values.size or (int(values.min()) >= 0 and int(values.max()) <= largest):
        return
    stray = [value for value in np.unique(values).tolist() if not 0 <= value <= largest]
    shown = ", ".join(map(str, stray[:5])) + (", ..." if len(stray) > 5 else "")
    expected = f"0..{largest}" + (f" or the ignore label {ignore}" if name == "ground truth" else "")
    raise ValueError(f"{name} holds {shown}, expected {expected}")


def _check_confusion(confusion: Counts) -> Counts:
    matrix = np.asarray(confusion)
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    if matrix.dtype.kind not in "ui" or not (square or (matrix.ndim == 3 and matrix.shape[1:] == (2, 2))):
        raise ValueError(f"a confusion is an integer array K x K or K x 2 x 2, got {matrix.dtype} {matrix.shape}")
    return matrix.astype(np.int64, copy=False)


def _right_and_total(confusion: Counts) -> tuple[int, int]:
    matrix = _check_confusion(confusion)
    return int(np.trace(matrix, axis1=-2, axis2=-1).sum()), int(matrix.sum())


def _columns(counts: Counts) -> tuple[Counts, Counts, Counts]:
    if np.ndim(counts) != 2 or np.shape(counts)[1] != 4:
        raise ValueError(f"counts must be K x 4 (TP, FP, FN, TN), got {np.shape(counts)}")
    return counts[:, 0], counts[:, 1], counts[:, 2]


def _ratio(part: Counts, whole: Counts, counts: Counts) -> Scores:
    scores: Scores = (counts[:, :3].sum(axis=1) == 0).astype(np.float64)
    np.divide(part, whole, out=scores, where=whole > 0)
    return scores
