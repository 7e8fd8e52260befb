"""Scores of validation images, each of which passes through a net once."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from septa.data import Examples
from septa.labels import LabelMapping
from septa.metrics import Evaluation, LabelPair, evaluate_labels
from septa.model import Model, decode_as_predicted
from septa.objects import Judged, calibrate, judge
from septa.report import MAX_PANELS, Panel
from septa.tasks import Task


@dataclass(frozen=True, kw_only=True)
class SegmentedExample:
    """A validation image, segmented.

    Attributes
    ----------
    examples, index
        The images, and the number of this one.
    predicted_yx
        Predicted labels, int32 ``YX``.
    class_of_id
        Class of each predicted object; None if objects have no classes.
    judged
        Objects with their confidences, for the calibration; None if labels are not objects.
    """

    examples: Examples
    index: int
    predicted_yx: NDArray[np.int32]
    class_of_id: NDArray[np.int32] | None = None
    judged: Judged | None = None


def segment_examples(
    model: Model, examples: Examples, device: str, known: Mapping[int, NDArray[np.float32]]
) -> Iterator[SegmentedExample]:
    """Segment validation images.

    Parameters
    ----------
    model, device
        Model, and the device that runs its net.
    examples
        Validation images.
    known
        Logits that are already computed, by the index of the image.
    """
    task = model.task
    engine = model.engine(device, "torch")
    for index in range(len(examples)):
        example = examples[index]
        if not task.finds_objects:
            labels_yx = task.decode(known[index]) if index in known else model.segment(example.image_cyx, engine=engine)
            yield SegmentedExample(examples=examples, index=index, predicted_yx=labels_yx)
            continue
        logits_kyx = known[index] if index in known else model.logits(example.image_cyx, engine=engine)
        predicted_yx = decode_as_predicted(model, logits_kyx)
        judged = judge(example.labels_yx, predicted_yx, task.probabilities(logits_kyx)[1])
        yield SegmentedExample(
            examples=examples,
            index=index,
            predicted_yx=predicted_yx,
            class_of_id=task.classify(predicted_yx, logits_kyx),
            judged=judged,
        )


def collect_judged(images: Iterable[SegmentedExample], judged: list[Judged]) -> Iterator[SegmentedExample]:
    """Yield the same images, and append their objects with their confidences to a list."""
    for image in images:
        if image.judged is not None:
            judged.append(image.judged)
        yield image


def score_examples(
    images: Iterable[SegmentedExample], task: Task, labels: LabelMapping
) -> tuple[Evaluation, list[Panel]]:
    """Score validation images, and make a panel of each of the worst."""
    worst: list[tuple[float, int, SegmentedExample]] = []
    judged: list[Judged] = []

    def list_labels() -> Iterator[LabelPair]:
        for number, image in enumerate(images):
            example = image.examples[image.index]
            if image.judged is not None:
                judged.append(image.judged)
            score, _ = task.score(example.labels_yx, image.predicted_yx)
            heapq.heappush(worst, (-score, number, image))
            if len(worst) > MAX_PANELS:
                heapq.heappop(worst)
            name = image.examples.pairs[image.index].name
            yield LabelPair(name, example.labels_yx, image.predicted_yx, example.class_of_id, image.class_of_id)

    evaluation = evaluate_labels(
        list_labels(),
        labels.pixel_names(task.finds_objects),
        multilabel=task.multilabel,
        instances=task.finds_objects,
        object_classes=labels.class_names if task.object_classes > 1 else (),
        extra=task.own_metrics,
    )
    if task.finds_objects:
        evaluation = replace(evaluation, calibration=calibrate(judged))
    return evaluation, [_make_panel(image, -score, task) for score, _, image in worst]


def _make_panel(image: SegmentedExample, score: float, task: Task) -> Panel:
    example = image.examples[image.index]
    return Panel(
        name=image.examples.pairs[image.index].name,
        image_cyx=example.image_cyx,
        truth_yx=example.labels_yx,
        prediction_yx=task.align(example.labels_yx, image.predicted_yx),
        score=score,
    )
