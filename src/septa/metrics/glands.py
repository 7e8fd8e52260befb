"""Scores of the GlaS challenge (Sirinukunwattana et al. 2017, arXiv 1603.00275, section 4), as its code computes them.

The partner of an object is the object of the other image with the largest overlap; in a tie, the one with the lowest
id. For the distance only, an object without overlap is paired with the nearest one by Hausdorff distance. Objects and
ignored pixels are defined as in `septa.metrics.overlaps`. No score is ever NaN: see `GlandScores`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from septa.metrics.overlaps import Contingency, Integers, Labels, Reals, contingency
from septa.recipe import IGNORE


@dataclass(frozen=True)
class GlandScores:
    """The three scores of the GlaS challenge, for one image or for several pooled images.

    If neither side has an object, F1 and Dice are 1.0 and the Hausdorff distance is 0.0. If only one side has, F1 and
    Dice are 0.0, and the distance is the image's diagonal, its upper bound (the challenge's code fails in this case).

    Attributes
    ----------
    truth_count, prediction_count
        Number of objects.
    tp
        Predicted objects that cover more than half of the area of their partner.
    truth_area, prediction_area
        Counted pixels of all objects.
    truth_dice, prediction_dice
        Sum over the true (predicted) objects of area times Dice with the partner.
    truth_hausdorff, prediction_hausdorff
        Sum over the true (predicted) objects of area times Hausdorff distance, in pixels, to the partner.
    pixels
        Number of counted pixels.
    """

    truth_count: int
    prediction_count: int
    tp: int
    truth_area: int
    prediction_area: int
    truth_dice: float
    prediction_dice: float
    truth_hausdorff: float
    prediction_hausdorff: float
    pixels: int

    @property
    def f1(self) -> float:
        """Object F1, 2 TP / (2 TP + FP + FN), 0 to 1.

        FP are the other predicted objects, FN = true objects - TP. The paper's text says "at least 50 %" of the
        area, the challenge's code "more than 50 %". This follows the code, so no true object is found twice.
        """
        count = self.truth_count + self.prediction_count
        return 2 * self.tp / count if count else 1.0

    @property
    def object_dice(self) -> float:
        """Mean of the two area-weighted mean Dice, over true and over predicted objects, 0 to 1."""
        return self._both_ways(self.truth_dice, self.prediction_dice, 1.0)

    @property
    def object_hausdorff(self) -> float:
        """Mean of the two area-weighted mean Hausdorff distances, over true and over predicted objects, in pixels."""
        return self._both_ways(self.truth_hausdorff, self.prediction_hausdorff, 0.0)

    def to_json(self) -> dict[str, float]:
        """Return plain numbers for strict JSON: counts and the three scores, no NaN."""
        names = ("truth_count", "prediction_count", "tp", "f1", "object_dice", "object_hausdorff", "pixels")
        return {name: getattr(self, name) for name in names}

    def _both_ways(self, truth: float, prediction: float, empty: float) -> float:
        """Average the two directions; a direction without objects is omitted."""
        pairs = ((truth, self.truth_area), (prediction, self.prediction_area))
        means = [total / area for total, area in pairs if area]
        return sum(means) / len(means) if means else empty


def score_glands(truth_yx: Labels, prediction_yx: Labels) -> GlandScores:
    """Score the predicted objects of one image as the GlaS challenge does.

    Parameters
    ----------
    truth_yx, prediction_yx
        Instance ids, any integer dtype or bool, equal shapes: 0 is background, every other id an object. Pixels that
        are `IGNORE` (-1) in the ground truth do not count, whatever their prediction.

    Returns
    -------
    GlandScores
        The three scores and the sums they are computed from.

    Raises
    ------
    ValueError
        As for `septa.metrics.contingency`.

    Examples
    --------
    >>> truth, prediction = np.zeros((9, 9), int), np.zeros((9, 9), int)
    >>> truth[1:5, 1:5], prediction[1:5, 1:8] = 4, 2
    >>> scores = score_glands(truth, prediction)
    >>> scores.f1, round(scores.object_dice, 3), scores.object_hausdorff
    (1.0, 0.727, 3.0)
    """
    table = contingency(truth_yx, prediction_yx)
    truth_partner = _partners(table.rows, table.columns, table.overlaps, table.truth_ids.size)
    prediction_partner = _partners(table.columns, table.rows, table.overlaps, table.prediction_ids.size)
    dices, tp = _dice_sums(table, truth_partner, prediction_partner)
    hausdorffs = _hausdorff_sums(truth_yx, prediction_yx, table, truth_partner, prediction_partner)
    return GlandScores(
        truth_count=table.truth_ids.size,
        prediction_count=table.prediction_ids.size,
        tp=tp,
        truth_area=int(table.truth_areas.sum()),
        prediction_area=int(table.prediction_areas.sum()),
        truth_dice=dices[0],
        prediction_dice=dices[1],
        truth_hausdorff=hausdorffs[0],
        prediction_hausdorff=hausdorffs[1],
        pixels=table.pixels,
    )


def pool_glands(scores: Sequence[GlandScores]) -> dict[str, float | dict[str, float]]:
    """Summarise the scores of images as their mean and pooled over all objects.

    Parameters
    ----------
    scores
        One entry per image; at least one. Images without a counted pixel are omitted.

    Returns
    -------
    dict
        ``images`` is the number of images that count. ``mean`` averages the values of `GlandScores.to_json` over the
        images. ``pooled`` is the same for the objects of all images together, as the paper defines it for a test set.

    Raises
    ------
    ValueError
        No image has a counted pixel.

    Examples
    --------
    >>> a, b = np.array([[1, 2, 3]]), np.array([[1, 0, 0]])
    >>> both = pool_glands([score_glands(a, a), score_glands(b, 0 * b)])
    >>> both["mean"]["f1"], round(both["pooled"]["f1"], 3)
    (0.5, 0.857)
    """
    counted = [one for one in scores if one.pixels]
    if not counted:
        raise ValueError(f"no image has a counted pixel, got {len(scores)} images")
    plain = [one.to_json() for one in counted]
    mean = {name: math.fsum(one[name] for one in plain) / len(plain) for name in plain[0]}
    pooled = GlandScores(**{part.name: sum(getattr(one, part.name) for one in counted) for part in fields(GlandScores)})
    return {"images": len(counted), "mean": mean, "pooled": pooled.to_json()}


def hausdorff(first_yx: npt.NDArray[np.bool_], second_yx: npt.NDArray[np.bool_]) -> float:
    """Compute the Hausdorff distance of two masks: the largest distance of a pixel to the other mask.

    Parameters
    ----------
    first_yx, second_yx
        Masks of equal shape, bool YX, not empty.

    Returns
    -------
    float
        Exact distance between pixel centres, in pixels, at least 0.

    Raises
    ------
    ValueError
        The shapes differ or are not YX, or a mask is empty.

    Examples
    --------
    >>> hausdorff(np.array([[True, True, False, False]]), np.array([[False, True, False, True]]))
    2.0
    """
    if first_yx.shape != second_yx.shape or first_yx.ndim != 2:
        raise ValueError(f"the masks must both be YX and of equal shape, got {first_yx.shape} and {second_yx.shape}")
    if not (first_yx.any() and second_yx.any()):
        raise ValueError("a mask has no pixel set, expected at least one in each")
    return _Shapes(first_yx.astype(np.int64), second_yx.astype(np.int64)).distance(0, 0)


@dataclass
class _Shapes:
    """Objects of two images, numbered from 1 in each, and the Hausdorff distances between them."""

    truth_yx: Integers
    prediction_yx: Integers
    known: dict[tuple[int, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.truth_boxes = _boxes(self.truth_yx)
        self.prediction_boxes = _boxes(self.prediction_yx)

    def distance(self, truth: int, prediction: int) -> float:
        """Return the Hausdorff distance of two objects, given as indices from 0."""
        if (truth, prediction) not in self.known:
            boxes = np.stack([self.truth_boxes[truth], self.prediction_boxes[prediction]])
            # The box around both objects contains every nearest pixel, so the rest of the image does not matter.
            (top, left), (bottom, right) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
            window = slice(top, bottom + 1), slice(left, right + 1)
            one, other = self.truth_yx[window] == truth + 1, self.prediction_yx[window] == prediction + 1
            self.known[truth, prediction] = max(_farthest(one, other), _farthest(other, one))
        return self.known[truth, prediction]

    def nearest_prediction(self, truth: int) -> float:
        """Return the distance of a true object to the nearest predicted one."""
        bounds = np.abs(self.prediction_boxes - self.truth_boxes[truth]).max(axis=1)
        return _least(bounds, lambda prediction: self.distance(truth, prediction))

    def nearest_truth(self, prediction: int) -> float:
        """Return the distance of a predicted object to the nearest true one."""
        bounds = np.abs(self.truth_boxes - self.prediction_boxes[prediction]).max(axis=1)
        return _least(bounds, lambda truth: self.distance(truth, prediction))


def _least(bounds: Integers, distance: Callable[[int], float]) -> float:
    """Find the smallest distance, trying the lowest bounds first.

    The sides of two bounding boxes differ by at most the Hausdorff distance, so the largest difference is a bound.
    """
    least = math.inf
    for index in np.argsort(bounds, kind="stable").tolist():
        if bounds[index] >= least:
            break
        least = min(least, distance(index))
    return least


def _boxes(numbered_yx: Integers) -> Integers:
    """Return first row, first column, last row and last column of each object: int64 ``(N, 4)``."""
    slices = ndimage.find_objects(numbered_yx)
    return np.array([[y.start, x.start, y.stop - 1, x.stop - 1] for y, x in slices], np.int64).reshape(-1, 4)


def _farthest(from_yx: npt.NDArray[np.bool_], to_yx: npt.NDArray[np.bool_]) -> float:
    outside = from_yx & ~to_yx
    return float(ndimage.distance_transform_edt(~to_yx)[outside].max()) if outside.any() else 0.0


def _partners(index: Integers, other: Integers, overlaps: Integers, size: int) -> Integers:
    """Return for each object the position of its pair with the largest overlap; -1 without overlap."""
    partner = np.full(size, -1)
    order = np.lexsort((-other, overlaps, index))  # the last entry written to a place remains
    partner[index[order]] = order
    return partner


def _dice_sums(
    table: Contingency, truth_partner: Integers, prediction_partner: Integers
) -> tuple[tuple[float, float], int]:
    dices: Reals = np.append(table.dices, 0.0)  # position -1, no partner, has Dice 0
    pairs = prediction_partner[prediction_partner >= 0]
    covered = 2 * table.overlaps[pairs] > table.truth_areas[table.rows[pairs]]
    sums = (
        math.fsum(table.truth_areas * dices[truth_partner]),
        math.fsum(table.prediction_areas * dices[prediction_partner]),
    )
    return sums, int(covered.sum())


def _hausdorff_sums(
    truth_yx: Labels, prediction_yx: Labels, table: Contingency, truth_partner: Integers, prediction_partner: Integers
) -> tuple[float, float]:
    if not (table.truth_ids.size and table.prediction_ids.size):
        diagonal = math.hypot(*truth_yx.shape)
        return diagonal * int(table.truth_areas.sum()), diagonal * int(table.prediction_areas.sum())
    counted = truth_yx != IGNORE
    shapes = _Shapes(
        _renumber(truth_yx, table.truth_ids, counted), _renumber(prediction_yx, table.prediction_ids, counted)
    )
    truth = [
        shapes.distance(index, int(table.columns[pair])) if pair >= 0 else shapes.nearest_prediction(index)
        for index, pair in enumerate(truth_partner.tolist())
    ]
    prediction = [
        shapes.distance(int(table.rows[pair]), index) if pair >= 0 else shapes.nearest_truth(index)
        for index, pair in enumerate(prediction_partner.tolist())
    ]
    return math.fsum(table.truth_areas * truth), math.fsum(table.prediction_areas * prediction)


def _renumber(labels_yx: Labels, ids: Integers, counted: npt.NDArray[np.bool_]) -> Integers:
    """Replace ids by 1, 2, ... in ascending order; background and ignored pixels are 0."""
    numbers = np.zeros(labels_yx.shape, np.int64)
    objects = counted & (labels_yx != 0)
    numbers[objects] = np.searchsorted(ids, labels_yx[objects].astype(np.int64)) + 1
    return numbers
