"""Scores of predictions per image and per class, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from septa.errors import InputError
from septa.metrics import pixels
from septa.metrics.extra import compute_extra_metrics
from septa.metrics.neurites import NeuriteScores
from septa.metrics.object_classes import ClassOfId, count_class_matches, summarise_object_classes
from septa.metrics.objects import ObjectScores, pool, score_table
from septa.metrics.overlaps import Integers, contingency
from septa.metrics.pixels import Counts, Labels
from septa.metrics.spread import LEVEL, RESAMPLES, SEED, compute_mean, compute_spread
from septa.recipe import IGNORE

_CLASS_METRICS = {"dice": pixels.dice, "iou": pixels.iou, "precision": pixels.precision, "recall": pixels.recall}
_PIXEL_METRICS = {"pixel_accuracy": pixels.pixel_accuracy, "pixel_error": pixels.pixel_error}
HEADERS = {"dice": "Dice = F1", "iou": "IoU", "precision": "Precision", "recall": "Recall"}
OBJECT_METRICS = {
    "f1_50": "F1 at IoU 0.5",
    "precision_50": "Precision at IoU 0.5",
    "recall_50": "Recall at IoU 0.5",
    "accuracy_50": "Accuracy (AP) at IoU 0.5",
    "mean_accuracy": "Accuracy (AP), mean of IoU 0.5 to 0.95",
    "mean_f1": "F1, mean of IoU 0.5 to 0.95",
    "panoptic_quality": "Panoptic quality",
    "segmentation_quality": "Segmentation quality",
    "symmetric_best_dice": "Symmetric best Dice",
    "truth_count": "True objects",
    "prediction_count": "Predicted objects",
    "count_difference": "Difference of counts",
    "splits": "Split objects",
    "merges": "Merged objects",
}
"""Metrics of objects, each with its title; `septa.metrics.ObjectScores` defines them."""
CALIBRATION_ERROR = "Calibration error of confidences (ECE)"
OBJECTS_POLICY = "An image without true and predicted objects scores 1.0; with objects on one side only, 0.0."
POLICY = (
    "A class absent from both ground truth and prediction of an image scores 1.0; absent from only one of them, 0.0."
)


class LabelPair(NamedTuple):
    """True and predicted labels of one image, as `evaluate_labels` takes them.

    Attributes
    ----------
    name
        Name of the image.
    truth_yx, prediction_yx
        Labels, integers YX: class indices, bit fields of overlapping classes, or object ids.
    truth_class_of_id, prediction_class_of_id
        Class of each object, integers indexed by object id, as in `septa.labels.ObjectLabels`. None if objects have
        no classes.
    """

    name: str
    truth_yx: Labels
    prediction_yx: Labels
    truth_class_of_id: ClassOfId | None = None
    prediction_class_of_id: ClassOfId | None = None


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image, each 0 to 1.

    Attributes
    ----------
    name
        Name of the image.
    classes
        Class name to metric (dice, iou, precision, recall) to score.
    pixel_accuracy, pixel_error
        Share of correct and of wrong pixels. With overlapping classes, each pixel counts once per class.
    objects
        Scores of objects, for instances.
    object_classes
        Counts of objects per class, if they have classes; see `septa.metrics.object_classes.count_class_matches`.
    more
        Title of each optional metric to its value.
    """

    name: str
    classes: dict[str, dict[str, float]]
    pixel_accuracy: float
    pixel_error: float
    objects: ObjectScores | None = None
    object_classes: Integers | None = None
    more: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """Scores over a set of images; no value is ever NaN.

    Attributes
    ----------
    class_names
        Names of the classes, class 0 first.
    images
        Scores of each image in the order given.
    classes
        Class name to metric to ``mean`` over images and the ends ``low`` and ``high`` of its bootstrap interval.
    pooled
        Class name to metric to its value over the pixels of all images together.
    summary
        dice, iou, precision and recall as the mean of ``classes`` over the foreground classes (all but class 0;
        with overlapping classes, all), and pixel_accuracy and pixel_error as the mean over images.
    policy
        Rule for scoring an absent class.
    pixels
        pixel_accuracy and pixel_error, each with ``mean``, ``low``, ``high`` and ``pooled``.
    both_empty
        Class name to the number of images that lack it in both ground truth and prediction, and so score 1.0.
    unscored
        Names of the images without a counted pixel (all are the ignore label). They are listed in ``images``, but are
        not part of any mean or interval.
    notes
        Lines to print about what was inferred to compute the scores.
    unpaired
        Clauses about files that are not scored because they have no partner, such as ``1 without prediction (a.png)``.
    multilabel
        True if classes overlap; then every class is foreground.
    objects
        For instances: metric of `OBJECT_METRICS` to ``mean`` over images, ``low``, ``high`` and ``pooled``.
    object_classes
        If objects have classes, the name of each to its F1 at IoU 0.5, where a match is correct if the classes agree:
        ``mean`` over images, ``low``, ``high`` and ``pooled``, and the numbers of true and predicted objects.
    more
        Title of each optional metric to ``mean`` over images, ``low`` and ``high``; of a stack's metrics to ``mean``.
    neurites
        All metrics of the stack, if requested.
    calibration
        Result of `septa.objects.calibrate`, for instances with probabilities.
    """

    class_names: tuple[str, ...]
    images: tuple[ImageScores, ...]
    classes: dict[str, dict[str, dict[str, float]]]
    pooled: dict[str, dict[str, float]]
    summary: dict[str, float]
    policy: str
    pixels: dict[str, dict[str, float]] = field(default_factory=dict)
    both_empty: dict[str, int] = field(default_factory=dict)
    unscored: tuple[str, ...] = ()
    multilabel: bool = False
    notes: tuple[str, ...] = ()
    unpaired: tuple[str, ...] = ()
    objects: dict[str, dict[str, float]] = field(default_factory=dict)
    object_classes: dict[str, dict[str, float]] = field(default_factory=dict)
    more: dict[str, dict[str, float]] = field(default_factory=dict)
    neurites: NeuriteScores | None = None
    calibration: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for strict JSON: keys sorted, images sorted by name, no NaN."""
        images = [
            {"name": image.name, "classes": image.classes}
            | {"pixel_accuracy": image.pixel_accuracy, "pixel_error": image.pixel_error}
            | ({} if image.objects is None else {"objects": image.objects.to_json()})
            | ({"more": image.more} if image.more else {})
            for image in sorted(self.images, key=lambda image: image.name)
        ]
        plain: dict[str, Any] = _sort_keys(
            {
                "class_names": list(self.class_names),
                "images": images,
                "classes": self.classes,
                "pooled": self.pooled,
                "summary": self.summary,
                "policy": self.policy,
                "pixels": self.pixels,
                "both_empty": self.both_empty,
                "multilabel": self.multilabel,
                "objects": self.objects,
                "object_classes": self.object_classes,
                "more": self.more,
                "calibration": self.calibration,
                "unscored": sorted(self.unscored),
                "unpaired": list(self.unpaired),
                "interval": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED},
            }
        )
        return plain


def evaluate_labels(
    items: Iterable[LabelPair | tuple[str, Labels, Labels]],
    class_names: Sequence[str],
    *,
    multilabel: bool = False,
    instances: bool = False,
    object_classes: Sequence[str] = (),
    extra: Sequence[str] = (),
) -> Evaluation:
    """Score predictions against labels, one image at a time.

    Parameters
    ----------
    items
        A `LabelPair` of each image, or its first three parts. Labels are encoded, that is class indices, or bit fields
        if ``multilabel``. Truth pixels of -1 are ignored. Read once, and no array is kept.
    class_names
        Name of each class, class 0 (background) first; ``multilabel``: of each bit, no background.
    multilabel
        Whether classes overlap.
    instances
        Whether labels are object ids. Objects are scored then, and pixels as background and foreground.
    object_classes
        Names of the classes of objects, background first; each `LabelPair` then needs both of its tables.
    extra
        Families of `septa.metrics.extra.PER_IMAGE` to be added.

    Raises
    ------
    InputError
        Naming the image, for arrays that do not fit each other or hold values that are no class; for class names
        that are too few or not unique; if there is no image, or every pixel is ignored.
    ValueError
        A table of classes is missing.

    Examples
    --------
    >>> truth = np.array([[0, 1, 1]])
    >>> evaluate_labels([("a", truth, truth)], ["background", "nucleus"]).summary["dice"]
    1.0
    """
    names = _check_names(class_names, multilabel)
    total = np.zeros((len(names), 2, 2) if multilabel else (len(names), len(names)), np.int64)
    both_empty = np.zeros(len(names), np.int64)
    images: list[ImageScores] = []
    scored: list[ImageScores] = []
    unscored: list[str] = []
    for item in items:
        pair = LabelPair(*item)
        name, truth_yx, prediction_yx = pair[:3]
        of_classes = _as_classes(truth_yx, prediction_yx) if instances else (truth_yx, prediction_yx)
        confusion = _confusion(name, *of_classes, names, multilabel)
        of_objects = _score_objects(pair, len(object_classes)) if instances else (None, None)
        more = _more(extra, truth_yx, prediction_yx, names, multilabel, instances)
        images.append(_score(name, confusion, names, of_objects, more))
        if not confusion.any():
            unscored.append(name)
            continue
        scored.append(images[-1])
        total += confusion
        both_empty += pixels.class_counts(confusion)[:, :3].sum(axis=1) == 0
    if not scored:
        problem = "every pixel of every image is the ignore label" if images else "there is no image"
        raise InputError("evaluation", problem, "give at least one image with labels that are not all ignored")
    classes = _class_spreads(scored, names)
    spreads = {metric: compute_spread(getattr(image, metric) for image in scored) for metric in _PIXEL_METRICS}
    foreground = names if multilabel else names[1:]
    objects_of = _object_spreads([image.objects for image in scored if image.objects is not None])
    return Evaluation(
        class_names=names,
        images=tuple(images),
        classes=classes,
        pooled=_by_class(total, names),
        summary={
            metric: compute_mean([classes[name][metric]["mean"] for name in foreground]) for metric in _CLASS_METRICS
        }
        | {metric: spread["mean"] for metric, spread in (spreads | objects_of).items()},
        policy=POLICY,
        pixels={metric: spreads[metric] | {"pooled": score(total)} for metric, score in _PIXEL_METRICS.items()},
        both_empty=dict(zip(names, both_empty.tolist(), strict=True)),
        unscored=tuple(unscored),
        multilabel=multilabel,
        objects=objects_of,
        object_classes=summarise_object_classes([image.object_classes for image in scored], object_classes),
        more={title: compute_spread(image.more[title] for image in scored) for title in scored[0].more},
    )


def _check_names(class_names: Sequence[str], multilabel: bool) -> tuple[str, ...]:
    names = tuple(class_names)
    fewest = 1 if multilabel else 2
    if len(names) < fewest or len(set(names)) < len(names):
        problem = f"expected at least {fewest} different names, got {', '.join(map(repr, names)) or 'none'}"
        raise InputError("class names", problem, "name each class once, background first unless classes overlap")
    return names


def _confusion(name: str, truth_yx: Labels, prediction_yx: Labels, names: tuple[str, ...], multilabel: bool) -> Counts:
    count = pixels.confusion_multilabel if multilabel else pixels.confusion
    try:
        return count(truth_yx, prediction_yx, len(names))
    except ValueError as error:
        remedy = f"give labels and a prediction of the same image with the classes {', '.join(names)}"
        raise InputError(name, str(error), remedy) from None


def _score(
    name: str,
    confusion: Counts,
    names: tuple[str, ...],
    of_objects: tuple[ObjectScores | None, Integers | None],
    more: dict[str, float],
) -> ImageScores:
    of_pixels = {metric: score(confusion) for metric, score in _PIXEL_METRICS.items()}
    objects, classes = of_objects
    by_class = _by_class(confusion, names)
    return ImageScores(name, by_class, **of_pixels, objects=objects, object_classes=classes, more=more)


def _more(
    extra: Sequence[str], truth_yx: Labels, prediction_yx: Labels, names: Sequence[str], bits: bool, instances: bool
) -> dict[str, float]:
    """Compute the optional metrics."""
    found: dict[str, float] = {}
    for family in extra:
        found |= compute_extra_metrics(family, truth_yx, prediction_yx, names, IGNORE, bits=bits, objects=instances)
    return found


def _as_classes(truth_yx: Labels, prediction_yx: Labels) -> tuple[Labels, Labels]:
    """Convert object ids to background and foreground."""
    return np.clip(truth_yx.astype(np.int64), IGNORE, 1), np.clip(prediction_yx.astype(np.int64), IGNORE, 1)


def _score_objects(pair: LabelPair, classes: int) -> tuple[ObjectScores, Integers | None]:
    table = contingency(pair.truth_yx, pair.prediction_yx)
    if not classes:
        return score_table(table), None
    if pair.truth_class_of_id is None or pair.prediction_class_of_id is None:
        raise ValueError(f"the objects of {pair.name} have no classes, true or predicted")
    matches = count_class_matches(table, pair.truth_class_of_id, pair.prediction_class_of_id, classes)
    return score_table(table), matches


def _object_spreads(scores: Sequence[ObjectScores]) -> dict[str, dict[str, float]]:
    if not scores:
        return {}
    each = [_object_metrics(one.to_json()) for one in scores]
    pooled = _object_metrics(pool(scores)["pooled"])
    return {
        metric: compute_spread(one[metric] for one in each) | {"pooled": pooled[metric]} for metric in OBJECT_METRICS
    }


def _object_metrics(plain: Mapping[str, Any]) -> dict[str, float]:
    at_half = {f"{name}_50": plain[name][0] for name in ("f1", "precision", "recall", "accuracy")}
    return {metric: float({**plain, **at_half}[metric]) for metric in OBJECT_METRICS}


def _by_class(confusion: Counts, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    counts = pixels.class_counts(confusion)
    columns = {metric: score(counts).tolist() for metric, score in _CLASS_METRICS.items()}
    return {name: {metric: column[k] for metric, column in columns.items()} for k, name in enumerate(names)}


def _class_spreads(images: Sequence[ImageScores], names: tuple[str, ...]) -> dict[str, dict[str, dict[str, float]]]:
    return {
        name: {metric: compute_spread(image.classes[name][metric] for image in images) for metric in _CLASS_METRICS}
        for name in names
    }


def _sort_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sort_keys(value[key]) for key in sorted(value)}
    return [_sort_keys(inner) for inner in value] if isinstance(value, list) else value
