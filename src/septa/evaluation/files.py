"""Scores of label files against label files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, format_count
from septa.evaluation.shared import add_neurites, check_extra, count_label_values, note_mask, require_size
from septa.images import MAX_PIXELS, RawLabels, read_info
from septa.labels import (
    MASK_VALUES,
    LabelMapping,
    count_regions,
    find_mapping,
    is_outlines,
    match_folders,
    read_label_file,
    read_outline_size,
)
from septa.metrics import NEURITES, Evaluation, LabelPair, Labels, evaluate_labels
from septa.notices import Notices
from septa.recipe import DataSettings

_OBJECTS = ("background", "object")


@dataclass(frozen=True)
class _Pages:
    """Pages of pairs of label files: name, prediction, ground truth and number of the page."""

    items: Sequence[tuple[str, Path, Path, int]]
    max_pixels: int
    threshold: float | None
    notices: Notices

    def predictions(self) -> Iterator[tuple[str, RawLabels]]:
        """Read the predictions, each with its path."""
        return ((str(path), self._read(path, page, None, other)) for _, path, other, page in self.items)

    def labels(self) -> Iterator[tuple[str, RawLabels]]:
        """Read the ground truth, each with its path."""
        return ((str(path), self._read(path, page, self.threshold, other)) for _, other, path, page in self.items)

    def _read(self, path: Path, page: int, threshold: float | None, other: Path) -> RawLabels:
        """Read labels; outlines that state no size take that of the other file."""

        def find_size() -> tuple[int, int]:
            if is_outlines(other):
                size_yx = read_outline_size(other)
                if size_yx is not None:
                    return size_yx
                problem = "neither the file nor its partner states the size of the image"
                raise InputError(path, problem, "Give label images for one of them")
            info = read_info(other, max_pixels=self.max_pixels)
            return info.height, info.width

        return read_label_file(
            path, page, max_pixels=self.max_pixels, threshold=threshold, notices=self.notices, find_size=find_size
        )


def evaluate_files(
    predictions: str | Path,
    labels: str | Path,
    settings: DataSettings = DataSettings(),  # noqa: B008 (frozen)
    *,
    instances: bool | None = False,
    extra: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
) -> Evaluation:
    """Score label files against label files of the same names.

    Parameters
    ----------
    predictions, labels
        Folders; see `septa.labels.match_folders`. If labels are colours, a prediction may hold class indices, as
        ``septa predict`` writes them. A mask of 0 and 255 fits one of 0 and 1.
    settings
        Meaning of the values. Settings that are not given are detected in the labels; if all labels are empty, in the
        predictions.
    instances
        If True, predictions are object ids, and objects are scored. Labels are ids too, or classes of which each
        region is an object. If None, objects are scored if labels number objects and predictions are not masks.
    extra
        Additional families of metrics, as for `evaluate`. The scores of neurites use the predictions, 0 or 1, instead
        of probabilities.
    max_pixels
        Largest file that is decoded, pixels.

    Returns
    -------
    Evaluation
        Scores of each image and of all images. Its ``unpaired`` names the files that are not scored.

    Raises
    ------
    InputError
        No files pair up, or some cannot be read or differ in size, or a family of metrics does not fit.
    """
    matched = match_folders(Path(predictions), Path(labels))
    notices = Notices()
    pages = _Pages(
        [
            (f"{name}#{page}" if count > 1 else name, left, right, page)
            for name, left, right in matched.pairs
            for count in [_count_pages(left, right, max_pixels)]
            for page in range(count)
        ],
        max_pixels,
        settings.threshold,
        notices,
    )
    mapping = _find_mapping_of_files(pages, Path(labels), settings, instances, notices)
    notes = [f"{format_count(len(matched.pairs), 'pair')} of files with the same name", mapping.describe()]
    if instances is None:
        instances = mapping.task == "instances" and _number_objects(pages, notes)
    stack: list[tuple[Labels, NDArray[np.float32]]] = []
    check_extra(extra, mapping, instances)

    def read_pages() -> Iterator[LabelPair]:
        for (name, left, _, _), (where, raw), (_, prediction) in zip(
            pages.items, pages.labels(), pages.predictions(), strict=True
        ):
            note_mask(mapping, raw, where, notices)
            if instances:
                truth_yx = mapping.encode_objects(raw, where).ids_yx
                prediction_yx = _encode_ids(mapping, prediction, left, notices)
            else:
                truth_yx = mapping.encode(raw, where)
                prediction_yx = _encode_prediction(mapping, prediction, left, notices)
            require_size(name, truth_yx, prediction_yx.shape, left)
            if NEURITES in extra:
                stack.append((truth_yx, (prediction_yx == 1).astype(np.float32)))
            yield LabelPair(name, truth_yx, prediction_yx)

    evaluation = evaluate_labels(
        read_pages(),
        mapping.pixel_names(instances),
        multilabel=mapping.kind == "multilabel",
        instances=instances,
        extra=[family for family in extra if family != NEURITES],
    )
    if stack:
        evaluation = add_neurites(evaluation, stack)
    return replace(evaluation, notes=(*notes, *notices.lines()), unpaired=matched.unpaired)


def _find_mapping_of_files(
    pages: _Pages, labels: Path, settings: DataSettings, instances: bool | None, notices: Notices
) -> LabelMapping:
    """Infer the meaning of the ground truth; if that is empty, of the predictions."""
    empty = True

    def read_labels_once() -> Iterator[tuple[str, RawLabels]]:
        nonlocal empty
        try:
            for where, raw in pages.labels():
                empty = empty and not raw.array.any()
                yield where, raw
        except InputError:
            empty = False  # a file that cannot be read is not empty
            raise

    try:
        drawn = any(is_outlines(path) for _, path, _, _ in pages.items)
        return find_mapping(read_labels_once(), settings, objects=bool(instances) or drawn, notices=notices)
    except InputError:
        if not empty or settings.encoding != "auto" or settings.values:
            raise
    if instances is None and any(count_label_values(raw) > 1 for _, raw in pages.predictions()):
        return find_mapping(pages.labels(), settings, objects=True)
    try:
        mapping = find_mapping(pages.predictions(), settings)
    except InputError:
        problem = "ground truth and predictions do not show what their values mean"
        remedy = "Give --task instances, or list the values of all classes, such as --set data.values=[0,1]"
        raise InputError(labels, problem, remedy) from None
    notices.add(labels, "all label images are empty, and septa reads the values as in the predictions")
    return mapping


def _number_objects(pages: _Pages, notes: list[str]) -> bool:
    """Return False if the predictions are masks: each holds one value, above 1 or in several regions."""
    single = masks = False
    for _, raw in pages.predictions():
        values = count_label_values(raw)
        if raw.objects is not None:
            single = masks = False
            break
        if raw.kind == "rgb" or values > 1:
            single = masks = False
            break
        single = single or values == 1
        masks = masks or (values == 1 and (raw.array.max() in MASK_VALUES[1:] or count_regions(raw.array) > 1))
    if masks:
        notes.append("task: semantic, because predictions are masks of one value (--task instances scores objects)")
    elif single:
        reason = "labels number objects, and each prediction is one region of the value 1"
        notes.append(f"task: instances, because {reason} (--task semantic scores pixels)")
    else:
        notes.append("task: instances, because labels and predictions number objects")
    return not masks


def _encode_prediction(mapping: LabelMapping, raw: RawLabels, path: Path, notices: Notices) -> NDArray[np.int32]:
    may_be_indices = mapping.kind == "color" and raw.kind == "index" and raw.palette is None
    if may_be_indices and raw.array.min() >= 0 and raw.array.max() < mapping.classes:
        return raw.array.astype(np.int32)
    # A prediction ignores nothing: 255 is the foreground of a mask, even if it marks ignored pixels in the labels.
    every = replace(mapping, ignore=None)
    if every.read_mask(raw) is not None:
        note_mask(every, raw, path, notices)
        return every.encode(raw, path)
    if mapping.kind == "binary" and raw.kind == "index" and count_label_values(raw) > 2:
        problem = f"the prediction holds {count_label_values(raw)} values, but the labels are masks"
        raise InputError(
            path, problem, "Give --task instances if each value is one object, else correct the predictions"
        )
    return mapping.encode(raw, path)


def _encode_ids(mapping: LabelMapping, raw: RawLabels, path: Path, notices: Notices) -> NDArray[np.int32]:
    """Encode object ids; -1 is background, because a prediction ignores nothing."""
    if raw.kind == "index" and raw.array.min(initial=0) == -1:
        notices.add(path, "the prediction holds -1, and septa reads it as background")
        raw = RawLabels(np.maximum(raw.array, 0), "index", raw.palette)
    background = mapping.values[:1] if raw.kind == "rgb" and mapping.kind == "instances" else (0,)
    return LabelMapping("instances", _OBJECTS, background).encode_objects(raw, path).ids_yx


def _count_pages(left: Path, right: Path, max_pixels: int) -> int:
    count, other = (1 if is_outlines(path) else read_info(path, max_pixels=max_pixels).pages for path in (left, right))
    if count != other:
        raise InputError(left, f"the file has {count} pages, but {right} has {other}", "Give stacks of equal length")
    return count
