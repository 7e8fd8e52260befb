"""The dataset check: it reads every file and reports all problems that would break or spoil a training at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from septa.data.channels import find_expected_channels, holds_color
from septa.data.check_result import DatasetCheck, Problem, Split, compare_sizes, explain_task, format_size
from septa.data.check_split import check_copies, cut_whole_dataset, describe_fold_sizes, make_splits
from septa.data.check_values import check_values
from septa.data.copies import find_near_duplicates
from septa.data.fingerprint import ImageFacts, combine_facts, digest_array, holds_colors, scan_image
from septa.data.folder import find_pairs, read_pair_image, read_pair_labels
from septa.data.label_facts import count_whole_cores
from septa.data.pairs import Pair, Pairing, PairingError
from septa.data.split import VALIDATION_PART, list_parts
from septa.data.walls import note_walls
from septa.errors import SeptaError, escape_controls, format_count
from septa.images import MAX_PIXELS, RawLabels
from septa.labels import LabelMapping, find_mapping
from septa.notices import Notices
from septa.recipe import IGNORE, DataSettings
from septa.runtime import Progress

_T = TypeVar("_T")

RARE_SHARE = 0.001
"""Share of the labelled pixels below which a class is reported as rare."""

_MOST_EQUAL_LABELS = 2
"""Number of different images that may have the same labels by chance."""

SMALL_SIDE = 32
"""Side in pixels below which an image is reported as small."""


def check_dataset(
    data: Path,
    *,
    images: str | None = None,
    labels: str | None = None,
    settings: DataSettings = DataSettings(),  # noqa: B008 (frozen)
    task: str = "auto",
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
    folds: int = 0,
    progress: Progress | None = None,
) -> DatasetCheck:
    """Check a dataset; all problems are returned, none is raised.

    Parameters
    ----------
    data
        Folder of images and labels; see `septa.data.folder.find_pairs`, also for ``images`` and ``labels``.
    settings
        Settings that say how labels are read and images held out.
    task
        Task of the recipe. If it is ``auto`` and the labels number objects, a note reports the task that follows.
    seed
        Seed of the split.
    max_pixels
        Largest image that is decoded, pixels.
    folds
        Number of folds for a cross-validation, at least 2; 0 for a single split.
    progress
        Called with the number of files done and of all files. Each pair counts twice: all labels are read to find
        the meaning of their values, and then each pair is checked.

    Returns
    -------
    DatasetCheck
        Its ``problems`` hold one `Problem` for everything found.
    """
    data = Path(data)
    problems: list[Problem] = []
    pairing = _find_pairs(data, images, labels, settings, max_pixels, problems)
    if pairing is None or not pairing.pairs:
        notes = pairing.notes if pairing else ()
        return DatasetCheck(data=data, pairing=pairing, problems=_sort_problems(problems), notes=notes)
    pairs, settings = pairing.pairs, pairing.adopt(settings)
    report = progress or (lambda done, total: None)
    notices = pairing.notices
    mapping = _find_mapping(
        pairs, settings, task == "instances", notices, problems, lambda done: report(done, 2 * len(pairs))
    )
    pairs, held_out = (pairs, "") if folds else cut_whole_dataset(pairs, mapping, settings.validation_share, problems)
    facts = []
    expected = find_expected_channels(pairs, settings.channels)
    for done, pair in enumerate(pairs, start=1):
        item = _inspect_pair(pair, mapping, expected, notices, problems)
        if item is not None:
            facts.append(item)
        report(len(pairs) + done, 2 * len(pairs))
    locations = {pair.name: pair.image_location for pair in pairs}
    channels = settings.channels or max((item.channels for item in facts), default=1)
    fitting = _check_images(facts, channels, settings, locations, problems)
    _check_labels(data, facts, problems)
    similar = [] if held_out else find_near_duplicates(facts)
    check_copies(similar, facts, pairs, settings, seed, locations, problems)
    sides = (list_parts(pairs),) if held_out else make_splits(data, pairs, settings, seed, similar, folds, problems)
    problems += Problem.from_notices(notices)
    notes = (*pairing.notes, *notices.notes(), *_describe_threshold(settings))
    if mapping is not None:
        _check_classes(data, mapping, facts, sides, problems)
        notes = (*notes, mapping.describe(), *note_walls([item.walls for item in fitting], mapping, task))
        if mapping.task == "instances" and task == "auto":
            notes = (*notes, f"task: instances ({explain_task(mapping, facts)})")
    return DatasetCheck(
        data=data,
        pairing=replace(pairing, pairs=pairs),
        mapping=mapping,
        fingerprint=combine_facts(fitting, channels=channels) if fitting else None,
        facts=tuple(facts),
        problems=_sort_problems(problems),
        train=sides[0][0] if sides else (),
        validation=sides[0][1] if sides else (),
        folds=sides if folds else (),
        held_out=held_out,
        notes=tuple(map(escape_controls, (*notes, *_describe_images(pairs, facts, channels, sides, held_out)))),
    )


# Reading -------------------------------------------------------------------------------------------------------------


def _find_pairs(
    data: Path, images: str | None, labels: str | None, settings: DataSettings, max_pixels: int, problems: list[Problem]
) -> Pairing | None:
    """Pair the files; after a `PairingError` return the pairs that remain."""
    try:
        return find_pairs(
            data,
            images=images,
            labels=labels,
            group=settings.group,
            part=settings.pairs,
            threshold=settings.threshold,
            max_pixels=max_pixels,
        )
    except PairingError as error:
        problems += [Problem("error", str(file), reason, error.remedy) for file, reason in error.reasons.items()]
        return error.pairing
    except SeptaError as error:
        problems.append(Problem.from_error(error))
        return None


def _find_mapping(
    pairs: Sequence[Pair],
    settings: DataSettings,
    objects: bool,
    notices: Notices,
    problems: list[Problem],
    report: Callable[[int], None],
) -> LabelMapping | None:
    masks_only = all(isinstance(pair.labels, tuple) for pair in pairs)
    if settings.threshold is not None and not masks_only and settings.encoding not in ("auto", "binary"):
        problem = f"a threshold makes labels of two classes, but data.encoding is {settings.encoding}"
        problems.append(Problem("error", "data.threshold", problem, "Leave data.threshold or data.encoding out"))
        return None
    if masks_only and settings.encoding == "auto" and settings.values is None:
        # Mask files of single objects were merged to instance ids.
        settings = settings.model_copy(update={"encoding": "instances"})
    readable = 0

    def read_all() -> Iterator[tuple[str, RawLabels]]:
        nonlocal readable
        for done, pair in enumerate(pairs, start=1):
            try:
                raw = read_pair_labels(pair, notices)
            except SeptaError:
                # The pair's own inspection reports this.
                continue
            finally:
                report(done)
            readable += 1
            yield pair.labels_location, raw

    try:
        return find_mapping(read_all(), settings, objects=objects, notices=notices)
    except SeptaError as error:
        if readable:
            problems.append(Problem.from_error(error))
        return None


def _attempt(read: Callable[[], _T], problems: list[Problem]) -> _T | None:
    """Return what is read, or None after reporting the error."""
    try:
        return read()
    except SeptaError as error:
        problems.append(Problem.from_error(error))
        return None


def _inspect_pair(
    pair: Pair, mapping: LabelMapping | None, channels: int | None, notices: Notices, problems: list[Problem]
) -> ImageFacts | None:
    """Read one pair, report its problems and collect the facts of its image, if that can be read."""
    labels_yx = None
    raw = _attempt(lambda: read_pair_labels(pair), problems)
    image_cyx = _attempt(lambda: read_pair_image(pair, channels, notices), problems)
    if raw is not None and mapping is not None:
        labels_yx = _attempt(lambda: mapping.encode(raw, pair.labels_location), problems)
    if image_cyx is None:
        return None
    if raw is not None:
        labels_size = raw.array.shape[1:] if raw.kind == "channels" else raw.array.shape[:2]
        if labels_size != image_cyx.shape[1:]:
            problems.append(compare_sizes(pair, labels_size, image_cyx.shape[1:]))
            labels_yx = None
    classes, multilabel = (mapping.classes, mapping.kind == "multilabel") if mapping else (1, False)
    facts = scan_image(pair.name, image_cyx, labels_yx, classes=classes, multilabel=multilabel)
    if labels_yx is not None and labels_yx.min() < labels_yx.max():
        facts = replace(facts, labels_digest=digest_array(labels_yx))
    if pair.window is not None:
        facts = replace(facts, whole_digest=digest_array(read_pair_image(replace(pair, window=None), channels)))
    facts = replace(facts, color=len(image_cyx) == 3 and holds_color(pair.image, pair.max_pixels))
    if raw is None or labels_yx is None or mapping is None or mapping.kind != "instances":
        return facts
    ids_yx = mapping.encode_objects(raw, pair.labels_location).ids_yx
    return replace(facts, objects=len(np.unique(ids_yx[ids_yx > 0])), cores=count_whole_cores(ids_yx))


# Images --------------------------------------------------------------------------------------------------------------


def _has_usable_channels(item: ImageFacts, channels: int, color: bool) -> bool:
    grey_rgb = item.channels == 3 and channels == 1 and len(set(zip(item.mean, item.std))) == 1
    return item.channels == channels or (item.channels == 1 and color) or grey_rgb


def _check_images(
    facts: Sequence[ImageFacts],
    channels: int,
    settings: DataSettings,
    locations: Mapping[str, str],
    problems: list[Problem],
) -> list[ImageFacts]:
    """Report the problems of images, and return those whose channels can be used."""
    color = holds_colors(facts, channels)
    blank = Notices()
    problems += check_values(facts, locations)
    for item in facts:
        where = locations[item.name]
        if item.finite and item.constant:
            text, remedy = "every pixel of the image has the same value", "Leave it out if it is blank by mistake"
            blank.add(where, text, remedy, warning=True)
        if min(item.height, item.width) < SMALL_SIDE and not item.name.endswith(VALIDATION_PART):
            description = f"the image has only {item.height} x {item.width} pixels (height x width)"
            remedy = f"Use images of at least {SMALL_SIDE} pixels per side; smaller ones are padded by mirroring"
            problems.append(Problem("warning", where, description, remedy))
        if item.class_pixels and item.class_pixels.get(IGNORE, 0) == item.height * item.width:
            remedy = "Leave the image out, or label it"
            problems.append(Problem("warning", where, "every pixel of the image is ignored", remedy))
        if not _has_usable_channels(item, channels, color):
            description = f"the image has {format_count(item.channels, 'channel')} and the net takes {channels}"
            remedy = "Give all images the same channels"
            if len({each.channels for each in facts}) == 1:
                remedy = f"Set data.channels={item.channels}, or leave it out"
            problems.append(Problem("error", where, description, remedy))
    problems += Problem.from_notices(blank)
    if settings.normalization == "dataset":
        remedy = "Convert all images to one dtype and range, or set data.normalization=image"
        problems += _find_deviants([f"the dtype {item.dtype}" for item in facts], remedy, facts, locations)
    remedy = "Give all images the same channels; grey images are repeated to match RGB, and nothing else"
    problems += _find_deviants([format_count(item.channels, "channel") for item in facts], remedy, facts, locations)
    return [item for item in facts if _has_usable_channels(item, channels, color)]


def _find_deviants(
    values: Sequence[str], remedy: str, facts: Sequence[ImageFacts], locations: Mapping[str, str]
) -> list[Problem]:
    """Return a warning for each value that fewer images have than the most frequent one."""
    if not facts:
        return []
    (usual, frequency), *rest = Counter(values).most_common()
    found = []
    for value, count in rest:
        first = next(item for item, own in zip(facts, values) if own == value)
        few = f"this image and {count - 1} more have" if count > 1 else "this image has"
        many = f"{frequency} other images have" if frequency > 1 else "1 other image has"
        found.append(Problem("warning", locations[first.name], f"{few} {value}, but {many} {usual}", remedy))
    return found


def _check_labels(data: Path, facts: Sequence[ImageFacts], problems: list[Problem]) -> None:
    """Warn if different images have the same labels, as they do if a mask of the field of view is taken for labels."""
    images: dict[str, set[str]] = defaultdict(set)
    for item in facts:
        if item.labels_digest:
            images[item.labels_digest].add(item.image_digest)
    same = max(map(len, images.values()), default=0)
    total = len({item.image_digest for item in facts})
    if same > _MOST_EQUAL_LABELS and 2 * same >= total:
        description = f"{same} of {total} different images have exactly the same labels"
        remedy = "Check that these are the labels, and not a mask of the field of view or a template"
        problems.append(Problem("warning", str(data), description, remedy))


# Classes -------------------------------------------------------------------------------------------------------------


def _check_classes(
    data: Path,
    mapping: LabelMapping,
    facts: Sequence[ImageFacts],
    sides: Sequence[Split],
    problems: list[Problem],
) -> None:
    labelled = [item for item in facts if item.class_pixels]
    if not labelled:
        return
    pixels = sum(item.height * item.width - item.class_pixels.get(IGNORE, 0) for item in labelled)
    counts = [sum(item.class_pixels.get(k, 0) for item in labelled) for k in range(mapping.classes)]
    present = [name for name, count in zip(mapping.class_names, counts) if count]
    if len(present) < (1 if mapping.kind == "multilabel" else 2):
        description = f"the labels hold only the class '{present[0]}'" if present else "the labels mark no pixel"
        problems.append(Problem("error", str(data), description, "Label at least one more class"))
        return
    if len(sides) == 1:
        named = {"training image": sides[0][0], "validation image": sides[0][1]}
    else:
        named = {f"training image of fold {fold}": train for fold, (train, _) in enumerate(sides, start=1)}
    for k, name in enumerate(mapping.class_names):
        shown = {item.name for item in labelled if item.class_pixels.get(k, 0)}
        missing = [side for side, names in named.items() if names and shown.isdisjoint(names)]
        if not counts[k]:
            description = f"the class '{name}' is in no label image"
            remedy = "Label it, or remove it from the classes"
        elif counts[k] < RARE_SHARE * pixels:
            description = f"the class '{name}' covers only {100 * counts[k] / pixels:.2g} % of the labelled pixels"
            remedy = "Label more of it, or raise sampling.rare_share"
        elif missing:
            description = f"the class '{name}' is in no {missing[0]}"
            remedy = "Label it in more images, or split with another seed"
        else:
            continue
        problems.append(Problem("warning", str(data), description, remedy))


# Texts ---------------------------------------------------------------------------------------------------------------


def _describe_images(
    pairs: Sequence[Pair],
    facts: Sequence[ImageFacts],
    channels: int,
    sides: Sequence[Split],
    held_out: str,
) -> list[str]:
    """Return notes about the sizes, channels and types of the images and the split."""
    if not facts:
        return []
    found = {item.name: (item.height, item.width) for item in facts}
    # The end of the later part of an image is the end of the image.
    ends = [(pair, pair.window[2:] if pair.window else found.get(pair.name, (0, 0))) for pair in pairs]
    whole: dict[tuple[Path, int], tuple[int, int]] = {}
    for pair, (bottom, right) in ends:
        if pair.name in found:
            height, width = whole.get((pair.image, pair.page), (0, 0))
            whole[pair.image, pair.page] = max(height, bottom), max(width, right)
    sizes = sorted(set(whole.values()), key=lambda size: size[0] * size[1])
    size = format_size(sizes[0])
    if len(sizes) > 1:
        size = f"{len(sizes)} sizes from {size} to {format_size(sizes[-1])}"
    kind = f"{format_count(channels, 'channel')}, {' and '.join(sorted({item.dtype for item in facts}))}"
    notes = [f"images: {len(whole)} read, {size} pixels (height x width), {kind}"]
    if held_out:
        notes.append(f"validation: {held_out}")
    elif len(sides) == 1 and sides[0][0]:
        notes.append("split: {} for training, {} for validation".format(*map(len, sides[0])))
    elif len(sides) > 1:
        notes.append(describe_fold_sizes(sides))
    return notes


def _describe_threshold(settings: DataSettings) -> list[str]:
    if settings.threshold is None:
        return []
    return [f"labels: values of at least {settings.threshold:g} are foreground (data.threshold)"]


def _sort_problems(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Return the problems with errors first, each once: every page of a damaged stack reports the same."""
    return tuple(sorted(dict.fromkeys(problems), key=lambda problem: problem.severity != "error"))
