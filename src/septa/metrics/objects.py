"""Scores of predicted objects: counts, ratios, quality and errors of one image, and their summary over images.

Objects and ignored pixels are defined as in `septa.metrics.overlaps`.

No ratio is ever NaN. An image without true and predicted objects scores 1.0; an image with objects on only one side
scores 0.0. (stardist gives 0 if both sides are empty, cellpose 0 / 0.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.metrics.overlaps import Contingency, Integers, Labels, Reals, contingency, match
from septa.metrics.spread import compute_mean

IOU_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
"""IoU thresholds of the 2018 Data Science Bowl: 0.5, 0.55, ... 0.95."""


@dataclass(frozen=True)
class ObjectScores:
    """Scores of one image or of several pooled images: counts and sums, and the ratios computed from them.

    Lists over thresholds have one value for each of `IOU_THRESHOLDS`. All ratios lie in 0 to 1. Without objects they
    follow the rule at the top of this module.

    Attributes
    ----------
    truth_count, prediction_count
        Number of objects.
    count_difference
        Absolute difference of the two counts; for pooled images, the sum of these differences.
    tp
        True positives at each threshold.
    matched_iou
        Sum of the IoU of the pairs matched at 0.5.
    truth_best_dice, prediction_best_dice
        Sum over the true (predicted) objects of the best Dice with any predicted (true) object.
    splits
        True objects that contain more than half of the area of each of at least two predicted objects.
    merges
        Predicted objects that each cover more than half of the area of at least two true objects.
    pixels
        Number of counted pixels.
    """

    truth_count: int
    prediction_count: int
    count_difference: int
    tp: tuple[int, ...]
    matched_iou: float
    truth_best_dice: float
    prediction_best_dice: float
    splits: int
    merges: int
    pixels: int

    @property
    def fp(self) -> tuple[int, ...]:
        """Number of unmatched predicted objects at each threshold."""
        return tuple(self.prediction_count - tp for tp in self.tp)

    @property
    def fn(self) -> tuple[int, ...]:
        """Number of unmatched true objects at each threshold."""
        return tuple(self.truth_count - tp for tp in self.tp)

    @property
    def precision(self) -> tuple[float, ...]:
        """Precision at each threshold, TP / (TP + FP)."""
        return tuple(self._ratio(tp, self.prediction_count) for tp in self.tp)

    @property
    def recall(self) -> tuple[float, ...]:
        """Recall at each threshold, TP / (TP + FN)."""
        return tuple(self._ratio(tp, self.truth_count) for tp in self.tp)

    @property
    def f1(self) -> tuple[float, ...]:
        """F1 at each threshold, 2 TP / (2 TP + FP + FN)."""
        return tuple(self._ratio(2 * tp, self.truth_count + self.prediction_count) for tp in self.tp)

    @property
    def accuracy(self) -> tuple[float, ...]:
        """Accuracy at each threshold, TP / (TP + FP + FN); the Data Science Bowl calls it (average) precision."""
        return tuple(self._ratio(tp, self.truth_count + self.prediction_count - tp) for tp in self.tp)

    @property
    def mean_accuracy(self) -> float:
        """Mean of `accuracy` over the thresholds: the score of an image in the 2018 Data Science Bowl."""
        return compute_mean(self.accuracy)

    @property
    def segmentation_quality(self) -> float:
        """Mean IoU of the pairs matched at 0.5."""
        return self._ratio(self.matched_iou, self.tp[0])

    @property
    def recognition_quality(self) -> float:
        """F1 at 0.5."""
        return self.f1[0]

    @property
    def panoptic_quality(self) -> float:
        """Panoptic quality: sum of matched IoU / (TP + FP/2 + FN/2) at 0.5 (Kirillov et al. 2019, equation 1)."""
        return self.segmentation_quality * self.recognition_quality

    @property
    def symmetric_best_dice(self) -> float:
        """Lower of the mean best Dice over true objects and over predicted objects (Scharr et al. 2016)."""
        return min(
            self._ratio(self.truth_best_dice, self.truth_count),
            self._ratio(self.prediction_best_dice, self.prediction_count),
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and lists of numbers for strict JSON: every count and every ratio, no NaN."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in (*_COUNTS, *_RATIOS)}
        for name in (*_COUNTED_LISTS, *_LISTS):
            plain[name] = list(getattr(self, name))
        return plain | {f"mean_{name}": compute_mean(plain[name]) for name in _LISTS}

    def _ratio(self, part: float, whole: int) -> float:
        return part / whole if whole else float(self.truth_count == self.prediction_count == 0)


_COUNTS = ("truth_count", "prediction_count", "count_difference", "splits", "merges", "pixels")
_RATIOS = ("panoptic_quality", "segmentation_quality", "recognition_quality", "symmetric_best_dice")
_COUNTED_LISTS = ("tp", "fp", "fn")
_LISTS = ("precision", "recall", "f1", "accuracy")


def score_objects(truth_yx: Labels, prediction_yx: Labels) -> ObjectScores:
    """Score the predicted objects of one image.

    Parameters and errors as for `contingency`.

    Returns
    -------
    ObjectScores
        All scores. If neither side has an object, every ratio is 1.0; if only one side has, 0.0.

    Examples
    --------
    >>> scores = score_objects(np.array([[7, 7, 0, 5]]), np.array([[9, 9, 9, 0]]))
    >>> scores.tp[0], round(scores.panoptic_quality, 3), scores.accuracy[:4], scores.count_difference
    (1, 0.444, (0.5, 0.5, 0.5, 0.5), 1)
    """
    return score_table(contingency(truth_yx, prediction_yx))


def score_table(table: Contingency) -> ObjectScores:
    """Score one image from its overlaps; see `score_objects`."""
    matches = [match(table, threshold) for threshold in IOU_THRESHOLDS]
    truth_count, prediction_count = table.truth_ids.size, table.prediction_ids.size
    inside_truth = 2 * table.overlaps > table.prediction_areas[table.columns]
    inside_prediction = 2 * table.overlaps > table.truth_areas[table.rows]
    return ObjectScores(
        truth_count=truth_count,
        prediction_count=prediction_count,
        count_difference=abs(truth_count - prediction_count),
        tp=tuple(found.tp for found in matches),
        matched_iou=math.fsum(matches[0].ious),
        truth_best_dice=_sum_of_best(table.rows, table.dices, truth_count),
        prediction_best_dice=_sum_of_best(table.columns, table.dices, prediction_count),
        splits=int((np.bincount(table.rows[inside_truth]) >= 2).sum()),
        merges=int((np.bincount(table.columns[inside_prediction]) >= 2).sum()),
        pixels=table.pixels,
    )


def align_ids(truth_yx: Labels, prediction_yx: Labels) -> npt.NDArray[np.int64]:
    """Give predicted objects the ids of the true objects they match at IoU 0.5, and the others new ids.

    Examples
    --------
    >>> align_ids(np.array([[7, 7, 0, 5]]), np.array([[1, 1, 0, 2]]))
    array([[7, 7, 0, 5]])
    >>> align_ids(np.array([[7, 7, 7, 5]]), np.array([[1, 0, 0, 2]]))
    array([[8, 0, 0, 5]])
    """
    pairs = match(contingency(truth_yx, prediction_yx), 0.5).pairs
    ids, places = np.unique(prediction_yx, return_inverse=True)
    objects = np.greater(ids, 0)
    new = np.where(objects, int(truth_yx.max(initial=0)) + np.cumsum(objects), 0)
    new[np.searchsorted(ids, pairs[:, 1])] = pairs[:, 0]
    return np.asarray(new[places].reshape(prediction_yx.shape), np.int64)


def pool(scores: Sequence[ObjectScores]) -> dict[str, Any]:
    """Summarise the scores of images as their mean and pooled over all objects.

    Parameters
    ----------
    scores
        One entry per image; at least one. Images without a counted pixel are omitted.

    Returns
    -------
    dict
        Plain values for strict JSON. ``images`` is the number of images that count. ``mean`` averages every value of
        `ObjectScores.to_json` over the images, as the 2018 Data Science Bowl does. ``pooled`` computes the same values
        from summed counts, as stardist's ``matching_dataset`` does.

    Raises
    ------
    ValueError
        No image has a counted pixel.

    Examples
    --------
    >>> a = score_objects(np.array([[1, 2, 3]]), np.array([[1, 2, 3]]))
    >>> b = score_objects(np.array([[1, 0, 0]]), np.array([[0, 0, 2]]))
    >>> both = pool([a, b])
    >>> both["mean"]["mean_accuracy"], both["pooled"]["mean_accuracy"]
    (0.5, 0.6)
    """
    counted = [one for one in scores if one.pixels]
    if not counted:
        raise ValueError(f"no image has a counted pixel, got {len(scores)} images")
    plain = [one.to_json() for one in counted]
    mean = {
        name: [compute_mean(values) for values in zip(*(one[name] for one in plain))]
        if isinstance(plain[0][name], list)
        else compute_mean([one[name] for one in plain])
        for name in plain[0]
    }
    summed = {name: sum(getattr(one, name) for one in counted) for name in _COUNTS}
    pooled = ObjectScores(
        **summed,
        tp=tuple(sum(column) for column in zip(*(one.tp for one in counted))),
        matched_iou=math.fsum(one.matched_iou for one in counted),
        truth_best_dice=math.fsum(one.truth_best_dice for one in counted),
        prediction_best_dice=math.fsum(one.prediction_best_dice for one in counted),
    )
    return {"images": len(counted), "thresholds": list(IOU_THRESHOLDS), "mean": mean, "pooled": pooled.to_json()}


def _sum_of_best(index: Integers, values: Reals, size: int) -> float:
    best = np.zeros(size)
    np.maximum.at(best, index, values)
    return math.fsum(best)
