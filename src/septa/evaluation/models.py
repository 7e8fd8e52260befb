"""Scores of a model on labelled data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.data import KnownImages, Pair, find_pairs, read_pair_labels
from septa.errors import InputError
from septa.evaluation.shared import add_neurites, check_extra, note_mask, require_size
from septa.images import MAX_PIXELS
from septa.labels import LabelMapping
from septa.metrics import NEURITES, Evaluation, LabelPair, Labels, evaluate_labels
from septa.model import Model, PredictionOptions, explain_precision
from septa.notices import Notices
from septa.objects import Judged, calibrate, judge
from septa.runtime import has_fast_bf16


def evaluate(
    model: Model | str | Path,
    data: str | Path,
    *,
    images: str | None = None,
    labels: str | None = None,
    every: bool = False,
    tile: int | None = None,
    device: str = "auto",
    tta: int | None = None,
    engine: str | None = None,
    precision: str | None = None,
    extra: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Segment labelled images with a model and score the result.

    Images that the model was trained on are left out, because scores on them say nothing about new images. They are
    recognised by the digest of their pixels, wherever the files are now. Copies of them that were turned, mirrored,
    cropped, shifted, rescaled or exposed otherwise, and images that overlap with them, are recognised by their sketches
    and left out too. Of an image that was cut for the training, the part that was held out is scored. Notes name what
    is left out, and count the scored images that chose the weights.

    Parameters
    ----------
    model
        A model or the path of one.
    data
        Folder of images and labels; see `septa.data.find_pairs`, also for ``images`` and ``labels``.
    every
        If True, the training images are scored too.
    tile, device, tta, engine, precision
        Options of `septa.Model.segment`.
    extra
        Additional families of metrics: ``regions``, ``boundaries``, ``glands`` (for objects) and ``neurites`` (for two
        classes, membrane and cell interior); see `septa.metrics`.
    max_pixels
        Largest image that is decoded, pixels.
    progress
        Function that receives the number of images done and their total.

    Returns
    -------
    Evaluation
        Scores of each image and of all images.

    Raises
    ------
    InputError
        An image or its labels cannot be read or do not fit the model, no image is left, or a family of metrics is not
        known or does not fit the labels.
    ResourceError
        The memory does not hold a tile.
    """
    model = model if isinstance(model, Model) else Model.load(model)
    threshold = model.recipe.data.threshold
    pairing = find_pairs(Path(data), images=images, labels=labels, threshold=threshold, max_pixels=max_pixels)
    notices = pairing.notices
    known = KnownImages(model.provenance, channels=model.channels, every=every, notices=notices)
    stack: list[tuple[Labels, NDArray[np.float32]]] = []
    judged: list[Judged] = []
    instances = model.task.finds_objects
    check_extra(extra, model.labels, instances)
    soft = instances or NEURITES in extra
    engine = model.choose_engine(device, engine, precision)
    options = PredictionOptions(tile=tile, device=device, tta=tta, engine=model.engine(device, engine))

    def segment_pairs() -> Iterator[LabelPair]:
        for number, pair in enumerate(pairing.pairs):
            unknown = known.find_unknown(pair)
            if unknown is not None:
                labels_of_pair, probability_yx = _segment_pair(model, *unknown, soft, options, engine, notices)
                if probability_yx is not None and instances:
                    truth_yx, found_yx = labels_of_pair.truth_yx, labels_of_pair.prediction_yx
                    judged.append(judge(truth_yx, found_yx, probability_yx, model.confidence_curve))
                elif probability_yx is not None:
                    stack.append((labels_of_pair.truth_yx, probability_yx))
                yield labels_of_pair
            if progress is not None:
                progress(number + 1, len(pairing.pairs))

    evaluation = evaluate_labels(
        _require_one(segment_pairs(), data),
        model.labels.pixel_names(instances),
        multilabel=model.labels.kind == "multilabel",
        instances=instances,
        object_classes=model.labels.class_names if model.task.object_classes > 1 else (),
        extra=[family for family in dict.fromkeys((*model.task.own_metrics, *extra)) if family != NEURITES],
    )
    if stack:
        evaluation = add_neurites(evaluation, stack)
    if instances:
        evaluation = replace(evaluation, calibration=calibrate(judged))
    notes = [*pairing.notes, model.labels.describe()]
    notes += explain_precision(engine, model.bf16, fast=has_fast_bf16(device))
    chosen = "weights and thresholds" if model.task.has_thresholds else "weights"
    notes += known.explain(len(pairing.pairs), chosen=chosen)
    return replace(evaluation, notes=(*notes, *notices.lines()))


def _segment_pair(
    model: Model,
    pair: Pair,
    image_cyx: NDArray[Any],
    soft: bool,
    options: PredictionOptions,
    engine: str,
    notices: Notices,
) -> tuple[LabelPair, NDArray[np.float32] | None]:
    """Return true and predicted labels, and if ``soft``, the probability of class 1 or of foreground."""
    truth_yx, truth_class_of_id = _read_truth(model.labels, pair, model.task.finds_objects, notices)
    require_size(pair.name, truth_yx, image_cyx.shape[1:], pair.image)
    input_cyx = model.as_model_input(image_cyx, pair.image, notices)
    factor = model.find_factor(input_cyx, pair.image, notices)
    options = replace(options, factor=factor, sums=model.make_sums())
    model, options = model.fit_size(input_cyx, options, pair.image, notices, named=(engine, None))
    task = model.task
    if not soft:
        labels_yx = model.compute_labels(input_cyx, options)
        model.report_unlike(input_cyx, options, pair.image, notices)
        return LabelPair(pair.name, truth_yx, labels_yx, truth_class_of_id), None
    logits_kyx = model.compute_logits(input_cyx, options)
    model.report_unlike(input_cyx, options, pair.image, notices)
    labels_yx = task.decode(logits_kyx)
    class_of_id = task.classify(labels_yx, logits_kyx)
    return LabelPair(pair.name, truth_yx, labels_yx, truth_class_of_id, class_of_id), task.probabilities(logits_kyx)[1]


def _read_truth(
    mapping: LabelMapping, pair: Pair, instances: bool, notices: Notices
) -> tuple[NDArray[np.int32], NDArray[np.int32] | None]:
    """Read the ground truth of an image, and the class of each object if objects have classes."""
    raw = read_pair_labels(pair, notices)
    where = pair.labels_location
    note_mask(mapping, raw, where, notices)
    if not instances:
        return mapping.encode(raw, where), None
    objects = mapping.encode_objects(raw, where)
    return objects.ids_yx, objects.class_of_id


def _require_one(items: Iterator[LabelPair], data: str | Path) -> Iterator[LabelPair]:
    """Yield the same items, and raise InputError at the end if there was none."""
    empty = True
    for item in items:
        empty = False
        yield item
    if empty:
        raise InputError(data, "the model was trained on all images in it", "Give other images or --all")
