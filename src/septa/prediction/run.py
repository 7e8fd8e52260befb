"""The prediction workflow: image files to label files, one after the other, continuing after files that fail."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from septa.errors import InputError, ResourceError
from septa.images import Location, check_outside_zarr, lock_outputs
from septa.labels import CLASSES, find_class_folders
from septa.model import Model
from septa.notices import Notices
from septa.objects import ObjectFiles, choose_measurements
from septa.prediction.find import InputImage, as_images
from septa.prediction.options import FailedFile, Options, SegmentedFile
from septa.prediction.pipeline import Pipeline
from septa.prediction.targets import Targets


def segment_files(
    model: Model, images: Sequence[Location | InputImage], options: Options, notices: Notices | None = None
) -> Iterator[SegmentedFile | FailedFile]:
    """Segment image files and write their label files.

    While the net computes one page, a thread reads the next page, and another thread writes the results of the last
    page. An image that is large for the memory is segmented alone. If memory is exhausted, the image is segmented
    again, alone.

    Parameters
    ----------
    model
        Model that segments.
    images
        Image files, whose images must be alike if they hold several; or single images, see `expand_images`.
    options
        Output and options.
    notices
        Receives what is assumed or suspected about the images; complete after the last result.

    Yields
    ------
    SegmentedFile or FailedFile
        Result of each file, in the order of the files.

    Raises
    ------
    InputError
        The options fit no image, another process writes one of the outputs, or files would be replaced that septa did
        not write from the same images; nothing has been segmented then. Or the engine fails.
    ResourceError
        The disk is full.
    """
    _check_options(model, options)
    notices = Notices() if notices is None else notices
    inputs = as_images(images)
    with lock_outputs(_list_outputs(inputs, options)) as removed:
        for clause in removed:
            notices.add(options.output, clause)
        yield from _segment(model, inputs, options, notices)


def _segment(
    model: Model, images: Sequence[InputImage], options: Options, notices: Notices
) -> Iterator[SegmentedFile | FailedFile]:
    targets = Targets(model, images, options)
    files = ObjectFiles(
        options=options.objects,
        folder=options.output,
        class_names=model.labels.class_names,
        written=targets.written,
        curve=model.confidence_curve,
        notices=notices,
    )
    targets.check(files, notices)
    engine = model.engine(options.device, options.engine, options.precision)
    pipeline = Pipeline(model=model, options=options, files=files, engine=engine, targets=targets, notices=notices)
    remaining = deque(images)
    while remaining:
        with closing(pipeline.segment_overlapped(tuple(remaining))) as results:
            for result in results:
                if isinstance(result, FailedFile) and isinstance(result.error, ResourceError):
                    break  # closing the pipeline frees the memory of all other pages
                remaining.popleft()
                yield result
        if remaining:
            yield pipeline.segment_alone(remaining.popleft())
    files.finish()


def _list_outputs(images: Sequence[InputImage], options: Options) -> list[Path]:
    """Return paths that stand for all files that are written; the files of an image share its stem."""
    stems = [options.output / (options.name or image.stem) for image in images]
    return [*stems, *(path for path in (options.objects.table, options.objects.coco) if path is not None)]


def _check_options(model: Model, options: Options) -> None:
    model.check_tile(options.tile)
    check_outside_zarr(options.output)
    if model.task.multilabel and options.suffix == ".png":
        problem = "a PNG file cannot hold classes that overlap, because each class needs a plane"
        if options.name is not None:
            raise InputError(options.output / f"{options.name}.png", problem, "End the name in .tif")
        raise InputError("--format png", problem, "Leave the option out, or give --format tif")
    if choose_measurements(options.objects.measure) and not (options.objects.table or options.objects.geojson):
        problem = "measurements go to tables and to outlines for QuPath, and neither is requested"
        raise InputError("--measure", problem, "Add --table FILE.csv or --geojson, or leave the option out")
    if (options.objects.wanted or options.link) and not model.task.finds_objects:
        problem = "--table, --geojson, --coco, --rois, --min-confidence and --link need a model that finds objects"
        raise InputError("", problem, "Leave them out, or give a model that was trained with --task instances")
    if model.labels.object_classes > 1 and options.output.is_dir() and find_class_folders(options.output):
        problem = f"the folder holds labelled data, whose {CLASSES}/ would be overwritten"
        raise InputError(options.output, problem, "Give another folder with -o")
