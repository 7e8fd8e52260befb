"""The evaluation workflow: a model against labelled data, or label files against label files."""

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
from septa.labels import LabelMapping, find_mapping
from septa.metrics import NEURITES, PER_IMAGE, Evaluation, LabelPair, evaluate_labels, score_stack
from septa.model import Model, PredictionOptions
from septa.objects import OUTLINES, Judged, calibrate, judge
from septa.prediction import CLASSES, OVERLAYS, PROBABILITIES
from septa.recipe import DataSettings

_LABEL_SUFFIXES = ("_mask", "_label", "_labels", "_seg", "_anno")
_NO_LABELS = (OVERLAYS, PROBABILITIES, OUTLINES, CLASSES)
_SHOWN = 20


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

    Images that the model was trained on (recognised by the digest of their pixels, wherever they lie now) are left
    out unless ``every`` is set: scores on them say nothing about new images.

    Parameters
    ----------
    model
        A model or the path of one.
    data
        Folder of images and labels; see `septa.data.folder.find_pairs`, also for ``images`` and ``labels``.
    every
        Score the training images too.
    tile, device, tta, engine
        As for `Model.segment`.
    extra
        Families of metrics beside the usual ones: ``boundaries``, ``glands`` (of the instances task) and ``neurites``
        (of two classes, membrane and cell interior); see `septa.metrics`.
    max_pixels
        Largest image that is decoded, pixels.
    progress
        Called with the images done and the images to do.

    Raises
    ------
    InputError
        An image or its labels cannot be read or do not fit the model, no image is left, or there is no such metric.
    """
    model = model if isinstance(model, Model) else Model.load(model)
    pairing = find_pairs(Path(data), images=images, labels=labels, max_pixels=max_pixels)
    trained = {digest for _, digest in model.provenance.get("train", [])}
    notes, pairs, skipped = [*pairing.notes, model.labels.describe()], pairing.pairs, 0
    stack: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = []
    judged: list[Judged] = []
    instances = model.task.finds_objects
    _check_extra(extra, model.labels, instances)
    options = PredictionOptions(tile=tile, tta=tta, engine=model.engine(device, engine))

    def scored() -> Iterator[LabelPair]:
        nonlocal skipped
        for number, pair in enumerate(pairs):
            image_cyx = read_pair_image(pair)
            if not every and digest_array(image_cyx) in trained:
                skipped += 1
            else:
                truth_yx, class_of_id = _read_truth(model.labels, pair, instances)
                _same_size(pair.name, truth_yx, image_cyx.shape[1:], pair.image)
                fitted_cyx = model.as_model_input(image_cyx, pair.image)
                sure = instances or NEURITES in extra
                predicted_yx, predicted_class_of_id, sure_yx = _segment(model, fitted_cyx, sure, options)
                if sure_yx is not None and instances:
                    judged.append(judge(truth_yx, predicted_yx, sure_yx))
                elif sure_yx is not None:
                    stack.append((truth_yx, sure_yx))
                yield LabelPair(pair.name, truth_yx, predicted_yx, class_of_id, predicted_class_of_id)
            if progress is not None:
                progress(number + 1, len(pairs))

    evaluation = evaluate_labels(
        _at_least_one(scored(), data),
        model.labels.pixel_names(instances),
        multilabel=model.labels.kind == "multilabel",
        instances=instances,
        object_classes=model.labels.class_names if model.task.object_classes > 1 else (),
        extra=[family for family in extra if family != NEURITES],
    )
    if stack:
        evaluation = _with_neurites(evaluation, stack)
    if instances:
        evaluation = replace(evaluation, calibration=calibrate(judged))
    if skipped:
        notes.append(f"{skipped} of {len(pairs)} images were trained on and are left out (--all scores them too)")
    return replace(evaluation, notes=tuple(notes))


def _read_truth(
    mapping: LabelMapping, pair: Pair, instances: bool
) -> tuple[NDArray[np.int32], NDArray[np.int32] | None]:
    """Read the true labels of an image, and the class of each object where objects have classes."""
    raw, where = read_pair_labels(pair), pair.labels_location
    if not instances:
        return mapping.encode(raw, where), None
    objects = mapping.encode_objects(raw, where)
    return objects.ids_yx, objects.class_of_id


def _segment(
    model: Model, image_cyx: NDArray[Any], sure: bool, options: PredictionOptions
) -> tuple[NDArray[np.int32], NDArray[np.int32] | None, NDArray[np.float32] | None]:
    """Labels, the class of each object, and where it is asked for the probability of class 1, or of foreground."""
    if not sure:
        return model.compute_labels(image_cyx, options), None, None
    task, logits_kyx = model.task, model.compute_logits(image_cyx, options)
    labels_yx = task.decode(logits_kyx)
    return labels_yx, task.classify(labels_yx, logits_kyx), task.probabilities(logits_kyx)[1]


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
        Folders; see `match_folders`. Where labels are colours, a prediction may hold class indices instead, as
        ``septa predict`` writes them.
    settings
        What the values mean; found in the labels, not in the predictions, as far as it is not given.
    instances
        Predictions are object ids, and objects are scored. Labels are ids too, or classes whose 4-connected regions
        are the objects. None tells from the files: labels number objects, and so does a prediction.
    extra
        As for `evaluate`; the neurites' thresholds are then those of the prediction, 0 and 1.
    max_pixels
        Largest file that is decoded, pixels.

    Raises
    ------
    InputError
        Files do not pair up, cannot be read or differ in size.
    """
    matched = match_folders(Path(predictions), Path(labels))
    pages = [
        (f"{name}#{page}" if count > 1 else name, left, right, page)
        for name, left, right in matched
        for count in [_pages(left, right, max_pixels)]
        for page in range(count)
    ]

    def read(path: Path, page: int) -> RawLabels:
        return read_labels(path, page, max_pixels=max_pixels)

    mapping = find_mapping(((str(right), read(right, page)) for _, _, right, page in pages), settings)
    notes = [f"{len(matched)} pairs of files of equal names", mapping.describe()]
    if instances is None:
        instances = mapping.task == "instances" and any(_numbers(read(left, page)) for _, left, _, page in pages)
        notes += ["task: instances, labels and predictions number objects"] if instances else []
    stack: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = []
    _check_extra(extra, mapping, instances)

    def scored() -> Iterator[LabelPair]:
        for name, left, right, page in pages:
            if instances:
                truth_yx = mapping.encode_objects(read(right, page), right).ids_yx
                prediction_yx = _objects(read(left, page), left)
            else:
                truth_yx = mapping.encode(read(right, page), right)
                prediction_yx = _encode_prediction(mapping, read(left, page), left)
            _same_size(name, truth_yx, prediction_yx.shape, left)
            if NEURITES in extra:
                stack.append((truth_yx, (prediction_yx == 1).astype(np.float32)))
            yield LabelPair(name, truth_yx, prediction_yx)

    names = mapping.pixel_names(instances)
    evaluation = evaluate_labels(
        scored(),
        names,
        multilabel=mapping.kind == "multilabel",
        instances=instances,
        extra=[family for family in extra if family != NEURITES],
    )
    if stack:
        evaluation = _with_neurites(evaluation, stack)
    return replace(evaluation, notes=tuple(notes))


def has_neurites(labels: LabelMapping) -> bool:
    """Whether labels are two classes of all pixels, as membrane and cell interior are."""
    return labels.kind != "multilabel" and labels.classes == 2 and labels.ignore is None


def _check_extra(extra: Sequence[str], labels: LabelMapping, instances: bool) -> None:
    for family in extra:
        where = f"--metrics {family}"
        if family not in (*PER_IMAGE, NEURITES):
            raise InputError(where, "is not known", f"choose {', '.join([*PER_IMAGE, NEURITES])}")
        if family == "glands" and not instances:
            raise InputError(where, "scores objects", "give a model or --task of instances")
        if family == NEURITES and (instances or not has_neurites(labels)):
            raise InputError(where, "needs two classes of all pixels, membrane and cell interior", "leave it out")


def _with_neurites(
    evaluation: Evaluation, stack: Sequence[tuple[NDArray[np.int32], NDArray[np.float32]]]
) -> Evaluation:
    """With the ISBI 2012 challenge's scores of the stack, each at its best threshold."""
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
    indices = mapping.kind == "color" and raw.kind == "index" and raw.palette is None
    if indices and raw.array.min() >= 0 and raw.array.max() < mapping.classes:
        return raw.array.astype(np.int32)
    return mapping.encode(raw, path)


def _objects(raw: RawLabels, path: Path) -> NDArray[np.int32]:
    return LabelMapping("instances", ("background", "object"), (0,)).encode_objects(raw, path).ids_yx


def _numbers(raw: RawLabels) -> bool:
    """Whether a prediction numbers several objects."""
    return raw.kind == "index" and len(np.unique(raw.array[raw.array > 0])) > 1


def _pages(left: Path, right: Path, max_pixels: int) -> int:
    pages = read_info(left, max_pixels=max_pixels).pages, read_info(right, max_pixels=max_pixels).pages
    if pages[0] != pages[1]:
        raise InputError(left, f"has {pages[0]} pages, {right} has {pages[1]}", "give stacks of equal length")
    return pages[0]


def _same_size(name: str, truth_yx: NDArray[Any], size: tuple[int, ...], path: Path) -> None:
    if truth_yx.shape != size:
        sizes = f"is {size[0]} x {size[1]} pixels, the labels of {name} are {truth_yx.shape[0]} x {truth_yx.shape[1]}"
        raise InputError(path, sizes, "give both at one size")


def _at_least_one(items: Iterator[LabelPair], data: str | Path) -> Iterator[LabelPair]:
    empty = True
    for item in items:
        empty = False
        yield item
    if empty:
        raise InputError(data, "holds no image that the model was not trained on", "give other images or --all")


def match_folders(predictions: Path, labels: Path) -> list[tuple[str, Path, Path]]:
    """Pair prediction files with label files by their path inside the folder, without suffix.

    If names do not match as they are, the endings ``_mask``, ``_label``, ``_labels``, ``_seg`` and ``_anno`` are
    removed from both. Hidden files and files that are no images by suffix are passed over.

    Returns
    -------
    Name, prediction file and label file of each pair, sorted by name.

    Raises
    ------
    InputError
        For a folder that is missing or holds no image, for one folder given twice, for several files of one name,
        and for files without partner, which are listed.
    """
    if predictions.resolve() == labels.resolve():
        raise InputError(labels, "is given as predictions and as labels", "give two folders")
    files = _image_files(predictions, "predictions"), _image_files(labels, "label images")
    for strip in (False, True):
        found, wanted = (
            _by_name(folder, paths, strip) for folder, paths in zip((predictions, labels), files, strict=True)
        )
        if found.keys() == wanted.keys() and all(len(paths) == 1 for paths in [*found.values(), *wanted.values()]):
            return [(name, found[name][0], wanted[name][0]) for name in sorted(found)]
    _refuse_clashes(predictions, found)
    _refuse_clashes(labels, wanted)
    lone = _lone(predictions, found, wanted, "without labels") + _lone(labels, wanted, found, "without prediction")
    remedy = f"name each prediction as its labels in {labels}, and give as many of one as of the other"
    raise InputError(predictions, f"predictions and labels do not pair up: {'; '.join(lone)}", remedy)


def _image_files(folder: Path, what: str) -> list[Path]:
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(folder, problem, f"give the folder of the {what}")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") or part in _NO_LABELS for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not found:
        raise InputError(folder, "holds no image files", f"give the folder of the {what}")
    return found


def _by_name(folder: Path, paths: Iterable[Path], strip: bool) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in paths:
        stem = path.stem[: -len(".ome")] if path.stem.lower().endswith(".ome") else path.stem
        if strip:
            ending = next((end for end in _LABEL_SUFFIXES if stem.lower().endswith(end) and len(stem) > len(end)), "")
            stem = stem.removesuffix(stem[len(stem) - len(ending) :])
        groups.setdefault((path.parent.relative_to(folder) / stem).as_posix(), []).append(path)
    return groups


def _refuse_clashes(folder: Path, groups: Mapping[str, list[Path]]) -> None:
    for name, paths in sorted(groups.items()):
        if len(paths) > 1:
            clash = shorten_list((path.relative_to(folder).as_posix() for path in paths), _SHOWN)
            raise InputError(folder, f"several files are named '{name}' ({clash})", "keep one of them")


def _lone(folder: Path, groups: Mapping[str, list[Path]], others: Mapping[str, list[Path]], what: str) -> list[str]:
    files = [groups[name][0].relative_to(folder).as_posix() for name in sorted(groups.keys() - others.keys())]
    return [f"{len(files)} {what} ({shorten_list(files, _SHOWN)})"] if files else []
