"""Surface distances: distances between a predicted outline and the true one.

The surface of a mask is its inner boundary: the pixels with at least one 4-neighbour outside the mask. Pixels beyond
the image are outside, so every non-empty mask has a surface. Distances are Euclidean, between pixel centres.

No value is ever NaN. If both masks are empty, distances are 0 and F1 is 1. If only one is empty, distances are the
image's diagonal, which exceeds every other distance, and F1 is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

Mask = npt.NDArray[np.bool_]
Distances = npt.NDArray[np.float64]

POLICY = (
    "A class that is absent from both ground truth and prediction has surface distance 0 and boundary F1 1; "
    "a class absent from only one of them has the image's diagonal and 0."
)


@dataclass(frozen=True)
class BoundaryScores:
    """Agreement of the surfaces of two masks.

    Attributes
    ----------
    assd
        Average symmetric surface distance in pixels, or in the unit of the spacing: the mean over the surface pixels
        of both masks of the distance to the other mask's surface. 0 is best.
    hd95
        95 % Hausdorff distance in the same unit: the larger of the two directed 95th percentiles (linear between
        ranks) of these distances. 0 is best.
    precision, recall
        Share of the predicted surface near the true one, and of the true surface near the predicted one, 0 to 1.
    f1
        Harmonic mean of both, the boundary F1 score (Csurka et al. 2013), 0 to 1.
    """

    assd: float
    hd95: float
    precision: float
    recall: float
    f1: float


def find_surface(mask_yx: Mask) -> Mask:
    """Find the pixels of a mask with at least one 4-neighbour outside the mask or beyond the image.

    Examples
    --------
    >>> find_surface(np.ones((3, 4), bool)).astype(int)
    array([[1, 1, 1, 1],
           [1, 0, 0, 1],
           [1, 1, 1, 1]])
    """
    padded = np.pad(mask_yx, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: Mask = mask_yx & ~inside
    return edge


def surface_distances(
    truth_yx: Mask, prediction_yx: Mask, spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[Distances, Distances]:
    """Compute the distance of each surface pixel of one mask to the nearest surface pixel of the other.

    Parameters
    ----------
    truth_yx, prediction_yx
        bool YX, equal shapes, not empty.
    spacing
        Height and width of a pixel, above 0; 1 for distances in pixels.

    Returns
    -------
    tuple
        Distances from the true to the predicted surface, and from the predicted to the true one; float64, in raster
        order.

    Raises
    ------
    ValueError
        The shapes differ or are not YX, an array is not bool, a mask is empty, or the spacing is not above 0.

    Examples
    --------
    >>> surface_distances(np.array([[True, False, False]]), np.array([[False, True, True]]), spacing=(1, 0.5))
    (array([0.5]), array([0.5, 1. ]))
    """
    _check(truth_yx, prediction_yx, spacing)
    if not truth_yx.any() or not prediction_yx.any():
        raise ValueError("an empty mask has no surface to measure a distance from")
    size = np.asarray(spacing, np.float64)
    truth, prediction = (np.argwhere(find_surface(mask_yx)) * size for mask_yx in (truth_yx, prediction_yx))
    # Surfaces have few pixels: on typical masks, trees took a tenth of the time of distance transforms.
    return _nearest(truth, prediction), _nearest(prediction, truth)


def score_boundaries(
    truth_yx: Mask,
    prediction_yx: Mask,
    *,
    tolerance: float = 2.0,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> BoundaryScores:
    """Compare the surfaces of two masks.

    Parameters
    ----------
    truth_yx, prediction_yx
        bool YX, equal shapes. For one class of labels pass ``labels_yx == k``, for instances ``labels_yx > 0``.
    tolerance
        Largest distance in pixels at which a surface pixel counts as found, at least 0; independent of the spacing.
    spacing
        Height and width of a pixel, above 0, for example in micrometres; ``assd`` and ``hd95`` are then in that unit.

    Returns
    -------
    BoundaryScores
        The scores. Empty masks are scored as stated at the top of this module.

    Raises
    ------
    ValueError
        The shapes differ or are not YX, an array is not bool, the spacing is not above 0, or the tolerance is below
        0.

    Examples
    --------
    >>> truth_yx = np.zeros((9, 9), bool)
    >>> truth_yx[2:6, 2:6] = True
    >>> score_boundaries(truth_yx, np.roll(truth_yx, 1, axis=1), tolerance=0.5).hd95
    1.0
    >>> score_boundaries(truth_yx, truth_yx & False)
    BoundaryScores(assd=12.727922061357855, hd95=12.727922061357855, precision=0.0, recall=0.0, f1=0.0)
    """
    _check(truth_yx, prediction_yx, spacing)
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0 pixels, got {tolerance}")
    present = bool(truth_yx.any()), bool(prediction_yx.any())
    if not any(present):
        return BoundaryScores(assd=0.0, hd95=0.0, precision=1.0, recall=1.0, f1=1.0)
    if not all(present):
        diagonal = math.hypot(truth_yx.shape[0] * spacing[0], truth_yx.shape[1] * spacing[1])
        return BoundaryScores(assd=diagonal, hd95=diagonal, precision=0.0, recall=0.0, f1=0.0)
    missed, stray = surface_distances(truth_yx, prediction_yx, spacing)
    assd = (missed.sum() + stray.sum()) / (missed.size + stray.size)
    hd95 = max(np.percentile(missed, 95), np.percentile(stray, 95))
    if tuple(spacing) != (1.0, 1.0):
        missed, stray = surface_distances(truth_yx, prediction_yx)
    recall, precision = ((distances <= tolerance).mean() for distances in (missed, stray))
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return BoundaryScores(
        assd=float(assd), hd95=float(hd95), precision=float(precision), recall=float(recall), f1=float(f1)
    )


def score_class_boundaries(
    truth_yx: npt.NDArray[Any],
    prediction_yx: npt.NDArray[Any],
    classes: int,
    ignore: int = -1,
    *,
    tolerance: float = 2.0,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> list[BoundaryScores]:
    """Compare the surfaces of each class of two label images.

    Parameters
    ----------
    truth_yx, prediction_yx
        Class indices 0 to ``classes - 1``, integer or bool YX, equal shapes.
    classes
        Number of classes.
    ignore
        Ignore label: pixels with this value in the ground truth belong to no class in either image, as if the image
        ended there.
    tolerance, spacing
        As in `score_boundaries`.

    Returns
    -------
    list
        Scores of each class, class 0 first.

    Raises
    ------
    ValueError
        As for `score_boundaries`.

    Examples
    --------
    >>> labels_yx = np.array([[0, 0, 1, 1]])
    >>> [scores.assd for scores in score_class_boundaries(labels_yx, labels_yx, classes=3)]
    [0.0, 0.0, 0.0]
    """
    if truth_yx.shape != prediction_yx.shape:
        raise ValueError(
            f"ground truth and prediction must be of equal shape, got {truth_yx.shape} and {prediction_yx.shape}"
        )
    counted = truth_yx != ignore
    return [
        score_boundaries(
            (truth_yx == k) & counted, (prediction_yx == k) & counted, tolerance=tolerance, spacing=spacing
        )
        for k in range(classes)
    ]


def _nearest(points: Distances, others: Distances) -> Distances:
    distances, _ = KDTree(others).query(points)
    return np.asarray(distances, np.float64)


def _check(truth_yx: Mask, prediction_yx: Mask, spacing: tuple[float, float]) -> None:
    if truth_yx.shape != prediction_yx.shape or truth_yx.ndim != 2:
        raise ValueError(
            "ground truth and prediction must both be YX and of equal shape, "
            f"got {truth_yx.shape} and {prediction_yx.shape}"
        )
    if truth_yx.dtype != bool or prediction_yx.dtype != bool:
        raise ValueError(f"ground truth and prediction must be bool, got {truth_yx.dtype} and {prediction_yx.dtype}")
    if len(spacing) != 2 or not all(0 < size < math.inf for size in spacing):
        raise ValueError(f"spacing must be the height and width of a pixel, each above 0, got {spacing}")
