"""The evaluation workflow: scores of a model on labelled data, or of label files against label files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.data import Pair, digest_array, find_pairs, read_pair_image, read_pair_labels
from septa.errors import InputError, shorten_list
from septa.images import IMAGE_SUFFIXES, MAX_PIXELS, RawLabels, read_info, read_labels
from septa.labels import OUTPUT_FOLDERS, LabelMapping, find_mapping
from septa.metrics import NEURITES, PER_IMAGE, Evaluation, LabelPair, Labels, evaluate_labels, score_stack
from septa.model import Model, PredictionOptions
from septa.notices import Notices
from septa.objects import Judged, calibrate, judge
from septa.recipe import DataSettings

_LABEL_ENDINGS = ("_mask", "_label", "_labels", "_seg", "_anno")
"""Endings of the names of label files that are ignored if names do not match with them."""
_SHOWN = 20
"""Largest number of files that an error lists."""


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
    extra: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Segment labelled images with a model and score the result.

    Images that the model was trained on are left out, because scores on them say nothing about new images. They are
    recognised by the digest of their pixels, wherever the files are now.

    Parameters
    ----------
    model
        A model or the path of one.
    data
        Folder of images and labels; see `septa.data.find_pairs`, also for ``images`` and ``labels``.
    every
        If True, the training images are scored too.
    tile, device, tta, engine
        Options of `septa.Model.segment`.
    extra
        Additional families of metrics: ``boundaries``, ``glands`` (for objects) and ``neurites`` (for two classes,
        membrane and cell interior); see `septa.metrics`.
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
    pairing = find_pairs(Path(data), images=images, labels=labels, max_pixels=max_pixels)
    trained = {digest for _, digest in model.provenance.get("train", [])}
    notices = Notices()
    skipped = 0
    stack: list[tuple[Labels, NDArray[np.float32]]] = []
    judged: list[Judged] = []
    instances = model.task.finds_objects
    _check_extra(extra, model.labels, instances)
    needs_probabilities = instances or NEURITES in extra
    options = PredictionOptions(tile=tile, tta=tta, engine=model.engine(device, engine))

    def segment_pairs() -> Iterator[LabelPair]:
        nonlocal skipped
        for number, pair in enumerate(pairing.pairs):
            image_cyx = read_pair_image(pair)
            if not every and digest_array(image_cyx) in trained:
                skipped += 1
            else:
                labels_of_pair, probability_yx = _segment_pair(model, pair, image_cyx, needs_probabilities, options)
                if probability_yx is not None and instances:
                    judged.append(judge(labels_of_pair.truth_yx, labels_of_pair.prediction_yx, probability_yx))
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
        extra=[family for family in extra if family != NEURITES],
    )
    if stack:
        evaluation = _add_neurites(evaluation, stack)
    if instances:
        evaluation = replace(evaluation, calibration=calibrate(judged))
    notes = [*pairing.notes, model.labels.describe()]
    if skipped:
        left_out = f"{skipped} of {len(pairing.pairs)} images are left out"
        notes.append(f"{left_out}, because the model was trained on them (--all scores them too)")
    return replace(evaluation, notes=(*notes, *notices.lines()))


def _segment_pair(
    model: Model, pair: Pair, image_cyx: NDArray[Any], needs_probabilities: bool, options: PredictionOptions
) -> tuple[LabelPair, NDArray[np.float32] | None]:
    """Return true and predicted labels, and the probability of class 1 or of foreground if it is needed."""
    task = model.task
    truth_yx, truth_class_of_id = _read_truth(model.labels, pair, task.finds_objects)
    _check_size(pair.name, truth_yx, image_cyx.shape[1:], pair.image)
    input_cyx = model.as_model_input(image_cyx, pair.image)
    if not needs_probabilities:
        return LabelPair(pair.name, truth_yx, model.compute_labels(input_cyx, options), truth_class_of_id), None
    logits_kyx = model.compute_logits(input_cyx, options)
    labels_yx = task.decode(logits_kyx)
    class_of_id = task.classify(labels_yx, logits_kyx)
    return LabelPair(pair.name, truth_yx, labels_yx, truth_class_of_id, class_of_id), task.probabilities(logits_kyx)[1]


def _read_truth(
    mapping: LabelMapping, pair: Pair, instances: bool
) -> tuple[NDArray[np.int32], NDArray[np.int32] | None]:
    """Read the ground truth of an image, and the class of each object if objects have classes."""
    raw = read_pair_labels(pair)
    where = pair.labels_location
    if not instances:
        return mapping.encode(raw, where), None
    objects = mapping.encode_objects(raw, where)
    return objects.ids_yx, objects.class_of_id


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
        Folders; see `match_folders`. If labels are colours, a prediction may hold class indices, as ``septa predict``
        writes them.
    settings
        Meaning of the values. Settings that are not given are detected in the labels, not in the predictions.
    instances
        If True, predictions are object ids, and objects are scored. Labels are ids too, or classes of which each
        4-connected region is an object. If None, objects are scored if labels number objects and a prediction does.
    extra
        Additional families of metrics, as for `evaluate`. The scores of neurites use the predictions, 0 or 1, instead
        of probabilities.
    max_pixels
        Largest file that is decoded, pixels.

    Returns
    -------
    Evaluation
        Scores of each image and of all images.

    Raises
    ------
    InputError
        Files do not pair up, cannot be read or differ in size, or a family of metrics does not fit.
    """
    matched = match_folders(Path(predictions), Path(labels))
    pages = [
        (f"{name}#{page}" if count > 1 else name, left, right, page)
        for name, left, right in matched
        for count in [_count_pages(left, right, max_pixels)]
        for page in range(count)
    ]

    def read(path: Path, page: int) -> RawLabels:
        return read_labels(path, page, max_pixels=max_pixels)

    mapping = find_mapping(((str(right), read(right, page)) for _, _, right, page in pages), settings)
    notes = [f"{len(matched)} pairs of files with the same name", mapping.describe()]
    if instances is None:
        instances = mapping.task == "instances" and any(_has_objects(read(left, page)) for _, left, _, page in pages)
        notes += ["task: instances, because labels and predictions number objects"] if instances else []
    stack: list[tuple[Labels, NDArray[np.float32]]] = []
    _check_extra(extra, mapping, instances)

    def read_pages() -> Iterator[LabelPair]:
        for name, left, right, page in pages:
            if instances:
                truth_yx = mapping.encode_objects(read(right, page), right).ids_yx
                prediction_yx = _encode_ids(read(left, page), left)
            else:
                truth_yx = mapping.encode(read(right, page), right)
                prediction_yx = _encode_prediction(mapping, read(left, page), left)
            _check_size(name, truth_yx, prediction_yx.shape, left)
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
        evaluation = _add_neurites(evaluation, stack)
    return replace(evaluation, notes=tuple(notes))


def has_neurites(labels: LabelMapping) -> bool:
    """Return True if labels are two classes of all pixels, as membrane and cell interior are."""
    return labels.kind != "multilabel" and labels.classes == 2 and labels.ignore is None


def _check_extra(extra: Sequence[str], labels: LabelMapping, instances: bool) -> None:
    for family in extra:
        where = f"--metrics {family}"
        if family not in (*PER_IMAGE, NEURITES):
            known = ", ".join([*PER_IMAGE, NEURITES])
            raise InputError(where, "this family of metrics is not known", f"Choose from {known}")
        if family == "glands" and not instances:
            remedy = "Give a model that finds objects, or --task instances"
            raise InputError(where, "these metrics score objects, not classes", remedy)
        if family == NEURITES and (instances or not has_neurites(labels)):
            problem = "these metrics need two classes of all pixels, membrane and cell interior"
            raise InputError(where, problem, "Leave them out")


def _add_neurites(evaluation: Evaluation, stack: Sequence[tuple[Labels, NDArray[np.float32]]]) -> Evaluation:
    """Add the scores of the ISBI 2012 challenge for the stack, each at its best threshold."""
    scores = score_stack(stack)
    titles = {
        "V-Rand": scores.v_rand,
        "V-Info": scores.v_info,
        "Rand error": scores.rand_error,
        "Warping error": scores.warping_error,
        "Pixel error, 1 - F": scores.pixel_f_error,
    }
    more = {f"{title} (neurites, stack)": {"mean": value} for title, value in titles.items()}
    return replace(evaluation, more=evaluation.more | more, neurites=scores)


def _encode_prediction(mapping: LabelMapping, raw: RawLabels, path: Path) -> NDArray[np.int32]:
    may_be_indices = mapping.kind == "color" and raw.kind == "index" and raw.palette is None
    if may_be_indices and raw.array.min() >= 0 and raw.array.max() < mapping.classes:
        return raw.array.astype(np.int32)
    return mapping.encode(raw, path)


def _encode_ids(raw: RawLabels, path: Path) -> NDArray[np.int32]:
    return LabelMapping("instances", ("background", "object"), (0,)).encode_objects(raw, path).ids_yx


def _has_objects(raw: RawLabels) -> bool:
    """Return True if a prediction numbers several objects."""
    return raw.kind == "index" and len(np.unique(raw.array[raw.array > 0])) > 1


def _count_pages(left: Path, right: Path, max_pixels: int) -> int:
    count, other = (read_info(path, max_pixels=max_pixels).pages for path in (left, right))
    if count != other:
        raise InputError(left, f"the file has {count} pages, but {right} has {other}", "Give stacks of equal length")
    return count


def _check_size(name: str, truth_yx: NDArray[Any], size: tuple[int, ...], path: Path) -> None:
    if truth_yx.shape != size:
        height, width = truth_yx.shape
        problem = f"the size is {size[0]} x {size[1]} pixels, but the labels of {name} are {height} x {width}"
        raise InputError(path, problem, "Give both in the same size")


def _require_one(items: Iterator[LabelPair], data: str | Path) -> Iterator[LabelPair]:
    """Yield the same items, and raise InputError at the end if there was none."""
    empty = True
    for item in items:
        empty = False
        yield item
    if empty:
        raise InputError(data, "the model was trained on all images in it", "Give other images or --all")


def match_folders(predictions: Path, labels: Path) -> list[tuple[str, Path, Path]]:
    """Pair prediction files with label files by their path inside the folder, without suffix.

    If the names do not match, the endings ``_mask``, ``_label``, ``_labels``, ``_seg`` and ``_anno`` are removed from
    all names. Hidden files and files without the suffix of an image are ignored.

    Returns
    -------
    list of tuple
        Name, prediction file and label file of each pair, sorted by name.

    Raises
    ------
    InputError
        A folder is missing or contains no image, both folders are the same, several files have one name, or files are
        unpaired; the error lists them.
    """
    if predictions.resolve() == labels.resolve():
        raise InputError(labels, "the folder is given as predictions and as labels", "Give two folders")
    prediction_files = _find_image_files(predictions, "predictions")
    label_files = _find_image_files(labels, "label images")
    for strip in (False, True):
        left = _group_by_name(predictions, prediction_files, strip)
        right = _group_by_name(labels, label_files, strip)
        if left.keys() == right.keys() and all(len(paths) == 1 for paths in [*left.values(), *right.values()]):
            return [(name, left[name][0], right[name][0]) for name in sorted(left)]
    _check_unique(predictions, left)
    _check_unique(labels, right)
    unpaired = [
        *_list_unpaired(predictions, left, right, "without labels"),
        *_list_unpaired(labels, right, left, "without prediction"),
    ]
    problem = f"predictions and labels do not pair up: {'; '.join(unpaired)}"
    raise InputError(predictions, problem, f"Give each prediction the name of its label file in {labels}")


def _find_image_files(folder: Path, content: str) -> list[Path]:
    if not folder.is_dir():
        problem = "the path is not a folder" if folder.exists() else "the folder does not exist"
        raise InputError(folder, problem, f"Give the folder of the {content}")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") or part in OUTPUT_FOLDERS for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not found:
        raise InputError(folder, "the folder contains no image files", f"Give the folder of the {content}")
    return found


def _group_by_name(folder: Path, paths: Iterable[Path], strip: bool) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in paths:
        stem = path.stem[: -len(".ome")] if path.stem.lower().endswith(".ome") else path.stem
        if strip:
            ending = next((end for end in _LABEL_ENDINGS if stem.lower().endswith(end) and len(stem) > len(end)), "")
            stem = stem.removesuffix(stem[len(stem) - len(ending) :])
        groups.setdefault((path.parent.relative_to(folder) / stem).as_posix(), []).append(path)
    return groups


def _check_unique(folder: Path, groups: Mapping[str, list[Path]]) -> None:
    for name, paths in sorted(groups.items()):
        if len(paths) > 1:
            files = shorten_list((path.relative_to(folder).as_posix() for path in paths), _SHOWN)
            raise InputError(folder, f"several files are named '{name}' ({files})", "Keep one of them")


def _list_unpaired(
    folder: Path, groups: Mapping[str, list[Path]], others: Mapping[str, list[Path]], reason: str
) -> list[str]:
    files = [groups[name][0].relative_to(folder).as_posix() for name in sorted(groups.keys() - others.keys())]
    return [f"{len(files)} {reason} ({shorten_list(files, _SHOWN)})"] if files else []
