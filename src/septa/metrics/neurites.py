"""Scores of the ISBI 2012 challenge: neurites in electron micrographs, separated by their membranes.

Segments are the 4-connected components of cell interior. V_Rand and V_Info compare them as partitions of the pixels
that are interior in the ground truth, after thinning of the predicted membranes. The Rand, warping and pixel errors
are those of the challenge's first year. Every value is the best one over thresholds of the predicted probability.

This follows the challenge's published scripts (the Fiji plugin Trainable_Segmentation), except where the plugin
rewards a degenerate image. A prediction without interior has no segment, while the plugin's flooding turns all of it
into one. If ground truth and prediction are one segment each, V_Info is 1, while the plugin returns 0.

References
----------
Arganda-Carreras et al. 2015, Crowdsourcing the creation of image segmentation algorithms for connectomics,
doi 10.3389/fnana.2015.00142. Jain et al. 2010, Boundary learning by optimization with topological constraints,
doi 10.1109/CVPR.2010.5539950. Soille and Vincent 1990, Determining watersheds in digital pictures via flooding
simulations, doi 10.1117/12.24211.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from septa.kernels import label_mask
from septa.metrics.overlaps import Contingency, Labels, contingency
from septa.metrics.topology import Mask, Segments, thin_borders, warp_mask
from septa.recipe import IGNORE

PROBABILITY_THRESHOLDS = tuple(k / 10 for k in range(1, 10))


@dataclass(frozen=True)
class NeuriteScores:
    """Scores of a stack of images or of one image, each at its own best threshold; never NaN.

    Attributes
    ----------
    v_rand, v_info
        Foreground-restricted Rand score and information theoretic score after border thinning, 0 to 1, 1 is best; mean
        over images.
    v_rand_split, v_rand_merge, v_info_split, v_info_merge
        Their two parts at the same threshold. A split neurite lowers ``split`` (recall of pixel pairs), and two merged
        neurites lower ``merge`` (precision of pixel pairs).
    rand_error
        1 - F-score of pixel pairs without thinning, foreground-restricted, pairs pooled over the images; 0 is best.
    warping_error
        Share of pixels in which prediction and warped ground truth differ; mean over images; 0 is best. See
        `septa.metrics.topology.warp_mask`.
    pixel_error
        Share of wrong pixels; mean over images; 0 is best.
    pixel_f_error
        1 - F-score of interior pixels, pooled over the images; the challenge's tables call it pixel error.
    v_rand_threshold, v_info_threshold, rand_threshold, warping_threshold, pixel_threshold, pixel_f_threshold
        Best threshold of each; in a tie, the one nearest to 0.5.
    """

    v_rand: float
    v_rand_split: float
    v_rand_merge: float
    v_rand_threshold: float
    v_info: float
    v_info_split: float
    v_info_merge: float
    v_info_threshold: float
    rand_error: float
    rand_threshold: float
    warping_error: float
    warping_threshold: float
    pixel_error: float
    pixel_threshold: float
    pixel_f_error: float
    pixel_f_threshold: float


class RegionScores(NamedTuple):
    """Scores of the regions of one image, 0 to 1, 1 is best: V-Rand and V-Info, each with its two parts."""

    v_rand: float
    v_rand_split: float
    v_rand_merge: float
    v_info: float
    v_info_split: float
    v_info_merge: float


class PartitionScores(NamedTuple):
    """Weighted mean ``f`` of ``split``, which split segments lower, and ``merge``, which merged segments lower."""

    f: float
    split: float
    merge: float


def score_neurites(
    truth_yx: npt.NDArray[Any], probability_yx: npt.NDArray[Any], thresholds: Sequence[float] = PROBABILITY_THRESHOLDS
) -> NeuriteScores:
    """Score one image; see `score_stack`.

    Examples
    --------
    >>> truth_yx = np.ones((9, 9), bool)
    >>> truth_yx[:, 4] = False
    >>> score_neurites(truth_yx, truth_yx).v_rand
    1.0
    >>> scores = score_neurites(truth_yx, np.ones((9, 9), bool))  # no membrane found: the two cells are merged
    >>> scores.v_rand_split, scores.v_rand_merge
    (1.0, 0.5)
    """
    return score_stack([(truth_yx, probability_yx)], thresholds)


def score_stack(
    pairs: Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any]]], thresholds: Sequence[float] = PROBABILITY_THRESHOLDS
) -> NeuriteScores:
    """Score a stack of images with thresholds chosen once for the whole stack, as the challenge did.

    Parameters
    ----------
    pairs
        Ground truth and prediction of each image, YX, equal shapes. Ground truth: bool or integer, 1 for cell interior,
        0 for membrane. Prediction: probability of cell interior, float 0 to 1, or bool or integer 0 and 1.
    thresholds
        Each at least 0 and below 1. A pixel is predicted as interior if its probability exceeds the threshold.

    Returns
    -------
    NeuriteScores
        The scores. An image that is all membrane in the ground truth has V_Rand and V_Info 1.

    Raises
    ------
    ValueError
        There are no images or no thresholds, shapes differ, are not YX or are empty, or values are out of range.
    """
    cuts = [float(threshold) for threshold in thresholds]
    if not cuts or not all(0 <= threshold < 1 for threshold in cuts):
        raise ValueError(f"thresholds must be at least one, each 0 <= threshold < 1, got {list(thresholds)}")
    images = [_score_cuts(truth_yx, probability_yx, cuts) for truth_yx, probability_yx in pairs]
    if not images:
        raise ValueError("no images to score")
    # Means over images also give the pooled ratios: numerator and denominator are divided by the same number.
    means = [_Cut(*row) for row in np.mean(images, axis=0).tolist()]

    def best(error: Callable[[_Cut], float]) -> int:
        return min(range(len(cuts)), key=lambda k: (error(means[k]), abs(cuts[k] - 0.5)))

    at_rand, at_info = best(lambda cut: -cut.v_rand), best(lambda cut: -cut.v_info)
    at_pairs, at_warp = best(_Cut.rand_error), best(lambda cut: cut.warping_error)
    at_pixel, at_pixel_f = best(lambda cut: cut.pixel_error), best(_Cut.pixel_f_error)
    return NeuriteScores(
        v_rand=means[at_rand].v_rand,
        v_rand_split=means[at_rand].v_rand_split,
        v_rand_merge=means[at_rand].v_rand_merge,
        v_rand_threshold=cuts[at_rand],
        v_info=means[at_info].v_info,
        v_info_split=means[at_info].v_info_split,
        v_info_merge=means[at_info].v_info_merge,
        v_info_threshold=cuts[at_info],
        rand_error=means[at_pairs].rand_error(),
        rand_threshold=cuts[at_pairs],
        warping_error=means[at_warp].warping_error,
        warping_threshold=cuts[at_warp],
        pixel_error=means[at_pixel].pixel_error,
        pixel_threshold=cuts[at_pixel],
        pixel_f_error=means[at_pixel_f].pixel_f_error(),
        pixel_f_threshold=cuts[at_pixel_f],
    )


def score_regions(truth_yx: Labels, prediction_yx: Labels) -> RegionScores:
    """Compute V-Rand and V-Info of the regions of one image, those of `score_stack` without a search for a threshold.

    Parameters
    ----------
    truth_yx, prediction_yx
        Ids of regions, integer ``YX``, 0 outside; or masks, bool ``YX``, whose 4-connected parts are the regions. Equal
        shapes.

    Returns
    -------
    RegionScores
        The scores; all 1 if the ground truth has no region.

    Raises
    ------
    ValueError
        As for `rand_scores`.

    Examples
    --------
    >>> truth_yx = np.ones((9, 9), bool)
    >>> truth_yx[:, 4] = False
    >>> score_regions(truth_yx, np.ones((9, 9), bool)).v_rand_merge  # the wall is missed
    0.5
    """
    true_ids_yx, found_ids_yx = (
        label_mask(labels_yx.astype(bool)) if labels_yx.dtype == bool else labels_yx
        for labels_yx in (truth_yx, prediction_yx)
    )
    table = _foreground(true_ids_yx, thin_borders(found_ids_yx))
    return RegionScores(*_rand(table, 0.5), *_information(table, 0.5))


def rand_scores(truth_yx: Labels, segments_yx: Labels, alpha: float = 0.5) -> PartitionScores:
    """Compute the Rand score of two partitions of the ground-truth foreground.

    Let p be the number of pixel pairs (ordered, each pixel also with itself) in the same segment of both partitions, t
    the number in the ground truth and s in the prediction. Then split = p / t is the recall of pairs, merge = p / s
    their precision, and f = p / (alpha s + (1 - alpha) t) (Arganda-Carreras et al. 2015). A pixel without a predicted
    segment is a segment of its own. ``skimage.metrics.adapted_rand_error`` omits the pairs of a pixel with itself, and
    returns split as precision and merge as recall.

    Parameters
    ----------
    truth_yx, segments_yx
        Ids of true and predicted segments, integer YX, equal shapes; ids are at least 0, and 0 means no segment. Only
        pixels of true segments count.
    alpha
        Weight of merge against split, 0 to 1: 0 gives split, 1 gives merge.

    Returns
    -------
    PartitionScores
        Scores 0 to 1, 1 is best; all 1 if the ground truth has no segment.

    Raises
    ------
    ValueError
        The shapes differ or are not YX, an array is not integer, or an id is below 0.

    Examples
    --------
    >>> halves = np.array([[1, 1, 2, 2]])
    >>> rand_scores(np.ones_like(halves), halves)  # one neurite, split in two
    PartitionScores(f=0.6666666666666666, split=0.5, merge=1.0)
    """
    return _rand(_foreground(truth_yx, segments_yx), alpha)


def information_scores(truth_yx: Labels, segments_yx: Labels, alpha: float = 0.5) -> PartitionScores:
    """Compute the information theoretic score of two partitions: mutual information I relative to the entropies.

    With entropies H(T) of the ground truth and H(S) of the prediction: split = I / H(S), merge = I / H(T),
    f = I / ((1 - alpha) H(S) + alpha H(T)) (Arganda-Carreras et al. 2015). A pixel without a predicted segment is a
    segment of its own. A score with denominator 0 is 1: a partition of one segment carries no information.

    Parameters, result and errors as for `rand_scores`.

    Examples
    --------
    >>> halves = np.array([[1, 1, 2, 2]])
    >>> information_scores(halves, np.array([[1, 2, 3, 4]]))  # each of two neurites split in two
    PartitionScores(f=0.6666666666666666, split=0.5, merge=1.0)
    """
    return _information(_foreground(truth_yx, segments_yx), alpha)


class _Cut(NamedTuple):
    """Values averaged over images at one threshold; pooled scores are ratios of the last five."""

    v_rand: float
    v_rand_split: float
    v_rand_merge: float
    v_info: float
    v_info_split: float
    v_info_merge: float
    warping_error: float
    pixel_error: float
    pairs_both: float
    pairs_truth: float
    pairs_predicted: float
    interior_both: float
    interior_either: float

    def rand_error(self) -> float:
        return 1 - _ratio(2 * self.pairs_both, self.pairs_truth + self.pairs_predicted)

    def pixel_f_error(self) -> float:
        return 1 - _ratio(2 * self.interior_both, self.interior_either)


def _score_cuts(truth_yx: npt.NDArray[Any], probability_yx: npt.NDArray[Any], cuts: Sequence[float]) -> list[_Cut]:
    truth, probability = _check_pair(truth_yx, probability_yx)
    true_segments = label_mask(truth)
    if probability.dtype == bool:
        return [_score_cut(truth, true_segments, probability, 0.5)] * len(cuts)
    return [_score_cut(truth, true_segments, probability, threshold) for threshold in cuts]


def _score_cut(truth: Mask, true_segments: Segments, probability: npt.NDArray[Any], threshold: float) -> _Cut:
    predicted = probability > threshold
    segments = label_mask(predicted)
    thinned = _foreground(true_segments, thin_borders(segments))
    sureness = np.abs(probability.astype(np.float32) - np.float32(threshold))
    return _Cut(
        *_rand(thinned, 0.5),
        *_information(thinned, 0.5),
        float((warp_mask(truth, predicted, sureness) != predicted).mean()),
        float((truth != predicted).mean()),
        *_pairs(_foreground(true_segments, segments)),
        int((truth & predicted).sum()),
        int(truth.sum()) + int(predicted.sum()),
    )


def _check_pair(truth_yx: npt.NDArray[Any], probability_yx: npt.NDArray[Any]) -> tuple[Mask, npt.NDArray[Any]]:
    """Check a pair; return the ground truth as bool, and the probability as bool if it holds only 0 and 1."""
    truth, probability = np.asarray(truth_yx), np.asarray(probability_yx)
    if truth.shape != probability.shape or truth.ndim != 2 or not truth.size:
        raise ValueError(
            f"ground truth and probability must both be YX, of equal shape and not empty, got {truth.shape} and "
            f"{probability.shape}"
        )
    if truth.dtype.kind not in "bui" or not ((truth == 0) | (truth == 1)).all():
        raise ValueError(f"ground truth must hold the integers 0 (membrane) and 1 (cell interior), got {_range(truth)}")
    if probability.dtype.kind not in "buif" or not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError(f"probability must hold numbers 0 to 1, got {_range(probability)}")
    binary = bool(((probability == 0) | (probability == 1)).all())
    return truth.astype(bool), probability.astype(bool) if binary else probability


def _range(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} {array.min()} to {array.max()}" if array.dtype.kind in "buif" else str(array.dtype)


def _foreground(truth_yx: Labels, segments_yx: Labels) -> Contingency:
    if truth_yx.dtype.kind not in "bui" or (truth_yx.size and truth_yx.min() < 0):
        raise ValueError(f"ground truth must hold integer ids of at least 0, got {_range(truth_yx)}")
    ids_yx = truth_yx.astype(np.int64)
    return contingency(np.where(ids_yx == 0, IGNORE, ids_yx), segments_yx)


def _rand(table: Contingency, alpha: float) -> PartitionScores:
    both, truth, predicted = _pairs(table)
    return PartitionScores(
        _ratio(both, alpha * predicted + (1 - alpha) * truth), _ratio(both, truth), _ratio(both, predicted)
    )


def _pairs(table: Contingency) -> tuple[int, int, int]:
    """Count ordered pixel pairs, self included, in the same segment: of both partitions, the truth, the prediction."""
    parts = table.overlaps, table.truth_areas, table.prediction_areas
    both, truth, predicted = (int((sizes * sizes).sum()) for sizes in parts)
    alone = _alone(table)
    return both + alone, truth, predicted + alone


def _information(table: Contingency, alpha: float) -> PartitionScores:
    alone = _alone(table)
    truth = _entropy(table.truth_areas, 0)
    predicted, joint = _entropy(table.prediction_areas, alone), _entropy(table.overlaps, alone)
    # Rounding must not leave the range of mutual information.
    shared = min(max(truth + predicted - joint, 0.0), truth, predicted)
    return PartitionScores(
        _ratio(shared, (1 - alpha) * predicted + alpha * truth), _ratio(shared, predicted), _ratio(shared, truth)
    )


def _alone(table: Contingency) -> int:
    """Count the pixels without a predicted segment."""
    return table.pixels - int(table.prediction_areas.sum())


def _entropy(sizes: npt.NDArray[np.int64], alone: int) -> float:
    """Compute the entropy in bits of a partition into parts of these sizes and ``alone`` single pixels."""
    # Sorting makes the sum independent of the numbers of the parts.
    ordered = np.sort(sizes).astype(np.float64)
    total = float(ordered.sum()) + alone
    if not total or ordered.max(initial=0) == total:
        return 0.0
    return max(0.0, float(np.log2(total) - (ordered * np.log2(ordered)).sum() / total))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 1.0
