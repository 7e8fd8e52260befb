"""The dataset check: reads every file once, and tells all that would break or spoil a training, all at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from septa.data.check_page import DatasetCheck, Problem, explain_task, render_check
from septa.data.copies import find_near_duplicates
from septa.data.fingerprint import ImageFacts, combine_facts, scan_image
from septa.data.folder import Pair, Pairing, PairingError, find_pairs, read_pair_image, read_pair_labels, split_pairs
from septa.errors import InputError, SeptaError
from septa.images import MAX_PIXELS, RawLabels
from septa.labels import IGNORE, LabelMapping, find_mapping
from septa.recipe import DataSettings

__all__ = ["RARE_SHARE", "SMALL_SIDE", "DatasetCheck", "Problem", "check_dataset", "render_check"]

RARE_SHARE = 0.001
SMALL_SIDE = 32

_SHOWN_NAMES = 5


def check_dataset(
    data: Path,
    *,
    images: str | None = None,
    labels: str | None = None,
    settings: DataSettings = DataSettings(),  # noqa: B008 (frozen)
    task: str = "auto",
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetCheck:
    """Check a dataset; what is wrong with it is returned, never raised.

    Parameters
    ----------
    data
        Folder of images and labels; see `septa.data.folder.find_pairs`, also for ``images`` and ``labels``.
    settings
        How labels are read and images held out.
    task
        The recipe's. Where it is ``auto`` and the labels number objects, the notes tell what follows.
    seed
        Seed of the split.
    max_pixels
        Largest image that is decoded, pixels.
    progress
        Called with the files done and the files to do; each pair counts twice, for its labels are read to find what
        their values mean before they are judged by it.

    Returns
    -------
    DatasetCheck
        Holds one `Problem` for everything found.
    """
    data = Path(data)
    problems: list[Problem] = []
    pairing = _find_pairs(data, images, labels, settings.group, max_pixels, problems)
    if pairing is None or not pairing.pairs:
        return DatasetCheck(data, pairing, None, None, (), _sorted(problems), (), (), pairing.notes if pairing else ())
    pairs = pairing.pairs
    total = 2 * len(pairs)
    tell = progress or (lambda done, total: None)
    mapping = _find_mapping(pairs, settings, problems, lambda done: tell(done, total))
    facts = []
    for number, pair in enumerate(pairs):
        item = _inspect(pair, mapping, problems)
        if item is not None:
            facts.append(item)
        tell(len(pairs) + number + 1, total)
    paths = {pair.name: _where(pair) for pair in pairs}
    channels = settings.channels or max((item.channels for item in facts), default=1)
    fitting = [item for item in facts if _fits(item, channels)]
    _judge_images(facts, channels, paths, problems)
    similar = find_near_duplicates(facts)
    _judge_copies(similar, facts, pairs, settings, seed, paths, problems)
    train, validation = _split(data, pairs, settings, seed, similar, problems)
    if mapping is not None:
        _judge_classes(data, mapping, facts, train, validation, problems)
    told = [mapping.describe()] if mapping else []
    if mapping is not None and mapping.task == "instances" and task == "auto":
        told.append(f"task: instances, {explain_task(mapping, facts)}")
    notes = (*pairing.notes, *told, *_notes(facts, train, validation))
    fingerprint = combine_facts(fitting, channels=channels) if fitting else None
    return DatasetCheck(data, pairing, mapping, fingerprint, tuple(facts), _sorted(problems), train, validation, notes)


# Reading -------------------------------------------------------------------------------------------------------------


def _find_pairs(
    data: Path, images: str | None, labels: str | None, group: str | None, max_pixels: int, problems: list[Problem]
) -> Pairing | None:
    try:
        return find_pairs(data, images=images, labels=labels, group=group, max_pixels=max_pixels)
    except PairingError as error:
        # Each file has a line of its own below the message, "  path (reason)".
        lines = str(error).splitlines()[1:]
        reasons = [line.strip().removeprefix(str(file)).strip(" ()") for file, line in zip(error.files, lines)]
        for file, reason in zip(error.files, reasons if len(lines) == len(error.files) else [""] * len(error.files)):
            problems.append(Problem("error", str(file), reason or error.problem, error.remedy))
        if not error.files:
            problems.append(_as_problem(error))
        rest = getattr(error, "pairing", None)
        return rest if isinstance(rest, Pairing) else None
    except SeptaError as error:
        problems.append(_as_problem(error))
        return None


def _find_mapping(
    pairs: Sequence[Pair], settings: DataSettings, problems: list[Problem], tell: Callable[[int], None]
) -> LabelMapping | None:
    if settings.encoding == "auto" and settings.values is None and all(isinstance(p.labels, tuple) for p in pairs):
        settings = settings.model_copy(update={"encoding": "instances"})  # one mask file for each object says so
    readable = 0

    def raws() -> Iterator[tuple[str, RawLabels]]:
        nonlocal readable
        for number, pair in enumerate(pairs):
            try:
                raw = read_pair_labels(pair)
            except SeptaError:
                # Told when the pair itself is inspected.
                continue
            finally:
                tell(number + 1)
            readable += 1
            yield _labels_where(pair), raw

    try:
        return find_mapping(raws(), settings)
    except SeptaError as error:
        if readable:
            problems.append(_as_problem(error))
        return None


def _inspect(pair: Pair, mapping: LabelMapping | None, problems: list[Problem]) -> ImageFacts | None:
    raw = image_cyx = labels_yx = None
    try:
        raw = read_pair_labels(pair)
    except SeptaError as error:
        problems.append(_as_problem(error))
    try:
        image_cyx = read_pair_image(pair)
    except SeptaError as error:
        problems.append(_as_problem(error))
    if raw is not None and mapping is not None:
        try:
            labels_yx = mapping.encode(raw, _labels_where(pair))
        except SeptaError as error:
            problems.append(_as_problem(error))
    if image_cyx is None:
        return None
    if raw is not None and _size(raw) != image_cyx.shape[1:]:
        problems.append(_size_problem(pair, _size(raw), image_cyx.shape[1:]))
        labels_yx = None
    classes, multilabel = (mapping.classes, mapping.kind == "multilabel") if mapping else (1, False)
    facts = scan_image(pair.name, image_cyx, labels_yx, classes=classes, multilabel=multilabel)
    if raw is None or labels_yx is None or mapping is None or mapping.kind != "instances":
        return facts
    return replace(facts, objects=len(np.unique(raw.array[labels_yx > 0])))


def _size(raw: RawLabels) -> tuple[int, ...]:
    return raw.array.shape[1:] if raw.kind == "channels" else raw.array.shape[:2]


def _size_problem(pair: Pair, labels_size: tuple[int, ...], image_size: tuple[int, ...]) -> Problem:
    what = (
        f"the labels have {_by(labels_size)} pixels (height x width) and the image {pair.image} has {_by(image_size)}"
    )
    if labels_size == image_size[::-1]:
        return Problem("error", _labels_where(pair), what, "turn the labels by 90 degrees as the image was")
    remedy = "export the labels again at the size of the image; resize only without interpolation"
    return Problem("error", _labels_where(pair), what, remedy)


def _as_problem(error: SeptaError) -> Problem:
    return Problem("error", error.where, error.problem, error.remedy)


def _where(pair: Pair) -> str:
    return f"{pair.image} page {pair.page}" if pair.name.endswith(f"#{pair.page}") else str(pair.image)


def _labels_where(pair: Pair) -> str:
    if pair.labels is None:
        return str(pair.image)
    if isinstance(pair.labels, tuple):
        return str(pair.labels[0].parent)
    return f"{pair.labels} page {pair.page}" if pair.name.endswith(f"#{pair.page}") else str(pair.labels)


# Judging -------------------------------------------------------------------------------------------------------------


def _fits(item: ImageFacts, channels: int) -> bool:
    grey_rgb = item.channels == 3 and channels == 1 and len(set(zip(item.mean, item.std))) == 1
    return item.channels in (1, channels) or grey_rgb


def _judge_images(facts: Sequence[ImageFacts], channels: int, paths: dict[str, str], problems: list[Problem]) -> None:
    for item in facts:
        path = paths[item.name]
        if not item.finite:
            remedy = "replace these pixels by finite numbers or leave the image out"
            problems.append(Problem("error", path, "the image holds NaN or infinite pixels", remedy))
        elif item.constant:
            remedy = "leave the image out if it is blank by mistake"
            problems.append(Problem("warning", path, "every pixel of the image has the same value", remedy))
        if min(item.height, item.width) < SMALL_SIDE:
            what = f"the image has only {item.height} x {item.width} pixels (height x width)"
            remedy = f"use images of at least {SMALL_SIDE} pixels a side; smaller ones are padded by mirroring"
            problems.append(Problem("warning", path, what, remedy))
        if item.class_pixels and item.class_pixels.get(IGNORE, 0) == item.height * item.width:
            problems.append(Problem("warning", path, "every pixel is ignored", "leave the image out or label it"))
        if not _fits(item, channels):
            what = f"the image has {item.channels} channels and the net gets {channels}"
            remedy = "give all images the same channels, or set data.channels"
            problems.append(Problem("error", path, what, remedy))
    for kind, values in (("dtype", [item.dtype for item in facts]), ("channels", [item.channels for item in facts])):
        problems += _differences(kind, values, facts, paths)


def _differences(
    kind: str, values: Sequence[object], facts: Sequence[ImageFacts], paths: dict[str, str]
) -> list[Problem]:
    """A warning for each value that fewer images have than the most frequent one."""
    counts = Counter(values)
    (usual, frequency), *rest = counts.most_common() or [("", 0)]
    if kind == "dtype":
        remedy = "convert all images to one dtype and range, or set data.normalization=image"
    else:
        remedy = "give all images the same channels; grey ones are repeated to match"
    found = []
    for value, count in rest:
        first = next(item for item, own in zip(facts, values) if own == value)
        files = f"{count} image{'s' if count > 1 else ''} (this {'is the first' if count > 1 else 'one'})"
        what = f"{files} of {kind} {value} among {frequency} of {kind} {usual}"
        found.append(Problem("warning", paths[first.name], what, remedy))
    return found


def _judge_copies(
    similar: Sequence[Sequence[str]],
    facts: Sequence[ImageFacts],
    pairs: Sequence[Pair],
    settings: DataSettings,
    seed: int,
    paths: dict[str, str],
    problems: list[Problem],
) -> None:
    by_name = {item.name: item for item in facts}
    try:
        held_out = {pair.name for pair in split_pairs(pairs, settings.validation_share, seed)[1]}
    except InputError:
        held_out = set()
    for names in similar:
        same: dict[str, list[str]] = defaultdict(list)
        for name in names:
            same[by_name[name].image_digest].append(name)
        apart = 0 < len(held_out.intersection(names)) < len(names)
        side = "; a split by chance would have parted them, septa keeps them on one side" if apart else ""
        for identical in same.values():
            if len(identical) == 1:
                continue
            others = _listed(identical[1:])
            if len({by_name[name].digest for name in identical}) > 1:
                what, remedy = f"is identical to {others}, but the labels differ", "keep the one with the right labels"
            else:
                what, remedy = f"is identical to {others}, labels too", "keep one of them"
            problems.append(Problem("warning", paths[identical[0]], what + side, remedy))
        if len(same) > 1:
            first, *rest = sorted(found[0] for found in same.values())
            what = f"is nearly the same image as {_listed(rest)} (perhaps turned, flipped, rescaled or re-encoded)"
            remedy = "keep one of them if they are copies; if they belong together otherwise, set data.group"
            problems.append(Problem("warning", paths[first], what + side, remedy))


def _split(
    data: Path,
    pairs: Sequence[Pair],
    settings: DataSettings,
    seed: int,
    similar: Sequence[Sequence[str]],
    problems: list[Problem],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    share = settings.validation_share
    try:
        train, validation = split_pairs(pairs, share, seed, similar)
    except InputError as error:
        try:
            train, validation = split_pairs(pairs, share, seed)
        except InputError:
            problems.append(_as_problem(error))
            return (), ()
        what = "all images are nearly the same, so that copies lie in training and validation and scores are too good"
        problems.append(Problem("warning", str(data), what, "add images that differ"))
    return tuple(pair.name for pair in train), tuple(pair.name for pair in validation)


def _judge_classes(
    data: Path,
    mapping: LabelMapping,
    facts: Sequence[ImageFacts],
    train: Sequence[str],
    validation: Sequence[str],
    problems: list[Problem],
) -> None:
    labelled = [item for item in facts if item.class_pixels]
    if not labelled:
        return
    pixels = sum(item.height * item.width - item.class_pixels.get(IGNORE, 0) for item in labelled)
    counts = [sum(item.class_pixels.get(k, 0) for item in labelled) for k in range(mapping.classes)]
    present = [name for name, count in zip(mapping.class_names, counts) if count]
    if len(present) < (1 if mapping.kind == "multilabel" else 2):
        what = f"the labels hold only the class '{present[0]}'" if present else "the labels mark no pixel of any class"
        problems.append(Problem("error", str(data), what, "label at least one more class"))
        return
    for k, name in enumerate(mapping.class_names):
        if not counts[k]:
            what, remedy = f"the class '{name}' is in no label image", "label it or take it out of the classes"
        elif counts[k] < RARE_SHARE * pixels:
            what = f"the class '{name}' covers only {100 * counts[k] / pixels:.2g} % of the labelled pixels"
            remedy = "label more of it, or raise sampling.rare_share"
        else:
            shown = {item.name for item in labelled if item.class_pixels.get(k, 0)}
            sides = [side for side, names in (("training", train), ("validation", validation)) if names]
            missing = [side for side in sides if not shown.intersection(train if side == "training" else validation)]
            if not missing:
                continue
            what = f"the class '{name}' is in no {missing[0]} image"
            remedy = "label it in more images, or split with another seed"
        problems.append(Problem("warning", str(data), what, remedy))


def _notes(facts: Sequence[ImageFacts], train: Sequence[str], validation: Sequence[str]) -> list[str]:
    if not facts:
        return []
    sizes = sorted({(item.height, item.width) for item in facts}, key=lambda size: size[0] * size[1])
    size = _by(sizes[0]) if len(sizes) == 1 else f"{len(sizes)} sizes from {_by(sizes[0])} to {_by(sizes[-1])}"
    notes = [f"images: {len(facts)} read, {size} pixels (height x width)"]
    if train:
        notes.append(f"split: {len(train)} for training, {len(validation)} for validation")
    return notes


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _sorted(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Errors first, each once (every page of a damaged stack tells the same)."""
    return tuple(sorted(dict.fromkeys(problems), key=lambda problem: problem.severity != "error"))
