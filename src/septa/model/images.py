"""The prediction of many images: of a list, of the pages of a stack, or of an array that is read lazily."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, SeptaWarning
from septa.images import Calibration, read_info
from septa.notices import Notices
from septa.objects import choose_measurements, measure_predicted
from septa.progress_bar import ProgressCallback, ProgressEvent

from .lazy import import_dask, label_lazily
from .options import PredictionOptions
from .pages import find_stack_axes, is_lazy, is_path, split_stack
from .protocol import TrainedModel
from .result import Prediction, find_confidence

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """Measurements that `Model.predict` makes; it describes the attributes."""

    measure: str | Sequence[str]
    min_confidence: float | None
    pixel_size_um: tuple[float, float] | None


def segment_images(
    model: TrainedModel, images: Any, options: PredictionOptions, *, axes: str | None, callback: ProgressCallback | None
) -> Any:
    """Segment images as a call of the model does."""
    if is_lazy(images):
        return _segment_lazily(model, images, options, axes)

    def segment(image: Any, options: PredictionOptions, where: str | PathLike[str]) -> NDArray[np.int32]:
        sized, input_cyx, prepared, lines = model.prepare_image(image, options, where)
        labels_yx = sized.compute_labels(input_cyx, prepared)
        _warn(lines, _report_unlike(sized, input_cyx, prepared, where))
        return labels_yx

    found, pages = _map_images(model, images, options, segment, axes=axes, callback=callback)
    if pages is None:
        return found
    if not pages:
        return found[0]
    return np.stack(found).reshape(*pages, *found[0].shape) if found else np.zeros((*pages, 0, 0), np.int32)


def predict_images(
    model: TrainedModel,
    images: Any,
    options: PredictionOptions,
    wanted: Measuring,
    *,
    axes: str | None,
    callback: ProgressCallback | None,
) -> Any:
    """Segment images as `Model.predict` does."""
    if is_lazy(images):
        remedy = "Call the model, which returns lazy labels, or read the image into memory"
        raise InputError("image", "a lazily read array has no table and no confidences", remedy)
    if wanted.min_confidence is not None and not model.task.finds_objects:
        raise InputError("min_confidence", "the labels of this model are classes, not objects", "Leave it out")
    try:
        choose_measurements([wanted.measure] if isinstance(wanted.measure, str) else wanted.measure)
    except ValueError as error:
        raise InputError("measure", str(error), "Give names of septa.objects.MEASUREMENTS") from None

    def predict(image: Any, options: PredictionOptions, where: str | PathLike[str]) -> Prediction:
        return predict_image(model, image, options, wanted, where)

    found, pages = _map_images(model, images, options, predict, axes=axes, callback=callback)
    return found[0] if pages == () else found


def predict_image(
    model: TrainedModel, image: Any, options: PredictionOptions, wanted: Measuring, where: str | PathLike[str]
) -> Prediction:
    """Compute everything that a model finds in one image."""
    model, input_cyx, prepared, lines = model.prepare_image(image, options, where)
    task = model.task
    logits_kyx = model.compute_logits(input_cyx, prepared)
    labels_yx, probabilities_kyx, table = task.decode(logits_kyx), task.probabilities(logits_kyx), None
    if task.finds_objects:
        calibration = read_info(where).calibration if is_path(image) else Calibration()
        if wanted.pixel_size_um is not None:
            calibration = replace(calibration, pixel_size_um=wanted.pixel_size_um)
        class_of_id = task.classify(labels_yx, logits_kyx)
        labels_yx, table = measure_predicted(
            labels_yx,
            input_cyx,
            probabilities_kyx[1],
            calibration=calibration,
            class_yx=None if class_of_id is None else class_of_id[labels_yx],
            class_names=model.labels.class_names,
            curve=model.confidence_curve,
            min_confidence=wanted.min_confidence,
            measure=wanted.measure,
        )
    notes = [*lines, *_report_unlike(model, input_cyx, prepared, where)]
    _warn(notes)
    return Prediction(
        image=input_cyx,
        labels=labels_yx,
        confidence=find_confidence(model, labels_yx, probabilities_kyx),
        probabilities=probabilities_kyx,
        table=table,
        class_names=tuple(model.labels.class_names),
        notes=tuple(notes),
        _model=model,
    )


def _map_images(
    model: TrainedModel,
    images: Any,
    options: PredictionOptions,
    work: Callable[[Any, PredictionOptions, str | PathLike[str]], Result],
    *,
    axes: str | None,
    callback: ProgressCallback | None,
) -> tuple[list[Result], tuple[int, ...] | None]:
    """Apply ``work`` to each image; return the results, and the shape of the axes of pages: None for a list."""
    pages: tuple[int, ...] | None = ()
    if is_path(images):
        each, names = [images], [images]
    elif isinstance(images, Iterable) and not hasattr(images, "__array__"):
        each, pages = list(images), None
        names = [image if is_path(image) else f"image {number}" for number, image in enumerate(each, start=1)]
    else:
        array = np.asarray(images)
        split, pages = split_stack(array, find_stack_axes(array.shape, model.channels, model.color, axes))
        each, names = list(split), ["image" if pages == () else f"page {number}" for number in range(len(split))]
    options = replace(options, engine=model.engine(options.device, options.engine, options.precision), precision=None)
    versions = model.recipe.inference.tta if options.tta is None else options.tta
    found = []
    for done, (image, name) in enumerate(zip(each, names, strict=True)):
        own = options
        if callback is not None:
            own = replace(options, on_pixels=_count_image(callback, done, len(each), _count_pixels(image, versions)))
        found.append(work(image, own, name))
        if callback is not None:
            share = (done + 1) / len(each)
            callback(ProgressEvent(stage="predict", done=done + 1, total=len(each), share=share))
    return found, pages


def _count_pixels(image: Any, versions: int) -> int:
    """Return the number of pixels that the net computes for an image."""
    if is_path(image):
        info = read_info(image)
        return max(1, versions * info.height * info.width)
    shape = sorted(np.asarray(image).shape)
    return max(1, versions * int(np.prod(shape[-2:])))


def _count_image(callback: ProgressCallback, done: int, total: int, pixels: int) -> Callable[[int], None]:
    """Return a function that reports the share of one image among several."""
    counted = 0

    def report(count: int) -> None:
        nonlocal counted
        counted = min(pixels, counted + count)
        if counted < pixels:
            share = (done + counted / pixels) / total
            callback(ProgressEvent(stage="predict", done=done, total=total, share=share))

    return report


def _segment_lazily(model: TrainedModel, images: Any, options: PredictionOptions, axes: str | None) -> Any:
    """Return the labels of an array of dask or zarr as a lazy array, pages first."""
    dask = import_dask()
    if not (options.engine is None or isinstance(options.engine, str)):
        raise InputError("engine", "each process of dask makes its own engine", "Give the name of an engine")
    lazy = images if hasattr(images, "__dask_graph__") else dask.array.from_array(images, chunks=images.chunks)
    found = find_stack_axes(tuple(map(int, lazy.shape)), model.channels, model.color, axes)
    moved = lazy.transpose(*found.pages, *found.image)
    pages = moved.shape[: len(found.pages)]
    planes = [label_lazily(model, moved[index], options) for index in np.ndindex(*pages)]
    return planes[0] if not pages else dask.array.stack(planes).reshape(*pages, *planes[0].shape)


def _report_unlike(
    model: TrainedModel, image_cyx: NDArray[Any], options: PredictionOptions, where: str | PathLike[str]
) -> list[str]:
    notices = Notices()
    model.report_unlike(image_cyx, options, where, notices)
    return notices.lines()


def _warn(*groups: Sequence[str]) -> None:
    for lines in groups:
        for line in lines:
            warnings.warn(line, SeptaWarning, stacklevel=5)
