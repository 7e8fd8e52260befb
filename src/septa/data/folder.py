"""Pairs of a folder: which image belongs to which labels, which pairs stay together, and which are held out."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.data.layouts import (
    LAYOUTS,
    FolderLayout,
    find_classes_folder,
    pair_classes,
    pair_patterns,
    recognise_layout,
)
from septa.data.listing import PairingNotes
from septa.data.pages import PageAxes, match_pages, read_image_page, read_label_page, read_page_axes
from septa.data.pairs import Pair, Pairing, PairingError
from septa.errors import InputError, escape_controls, format_count
from septa.images import MAX_PIXELS, RawLabels
from septa.labels import RawObjectLabels, read_object_classes
from septa.notices import Notices

_RUNS = 10
"""Number of groups that the pages of a few stacks are cut into."""


def find_pairs(
    data: Path,
    *,
    images: str | None = None,
    labels: str | None = None,
    group: str | None = None,
    part: str | None = None,
    threshold: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Pairing:
    """Pair the images of a folder with their labels.

    Parameters
    ----------
    data
        Folder in one of these layouts:

        - ``images/`` and ``labels/`` (or ``masks/``), with equal stems; one of the two may have any other name if no
          third folder holds files that match;
        - a flat folder, with ``x.png`` beside ``x_mask.png``;
        - two multi-page TIFFs, such as ``train-volume.tif`` and ``train-labels.tif``;
        - one folder per image, with ``images/`` (one file) and ``masks/`` (one file per object);
        - ``images/`` and ``masks/`` with a folder of masks for each class, or for each image (one file per object), or
          with equal subfolders;
        - nnU-Net raw, a dataset of the Cell Tracking Challenge, DRIVE, or OME-Zarr images with labels inside.

        Stems of label files may end in a word such as ``_mask``, ``_label``, ``_seg`` or ``_anno``. An image may also
        be a zarr store. Each page of a stack is a pair; pages belong together if they have the same place along each
        axis, in whatever order the axes are.

        Objects have classes if ``classes/`` (or ``types/``) lies beside the folder of labels. It holds an image for
        each label image, with the same stem; at each pixel of an object that image holds the number of the object's
        class, from 1.
    images, labels
        Patterns (relative to ``data`` or absolute; ``**`` crosses folders) or folders, given both or not at all; see
        `septa.images.find_matches` for channels in separate files and for datasets inside HDF5 files. Files are paired
        by equal stems, else by the varying part of their names.
    group
        Regular expression that is searched in the image file's name. Images with the same match (of group 1 if there
        is one) stay together. Without it each image is its own group, and stacks are cut into runs of consecutive
        pages.
    part
        Part of the pairs, as ``START:STOP`` or ``START:STOP:STEP`` of their numbers from 0 in the order of their files,
        without STOP; None for all.
    threshold
        Value of the labels from which on a pixel is foreground; None if they hold classes or ids.
    max_pixels
        Largest size that the pairs may have; reading a larger one fails.

    Returns
    -------
    Pairing
        All pairs, notes about layout, ignored files and groups, and notices.

    Raises
    ------
    PairingError
        If an image has no or several labels, labels have no or several images, several folders may hold the labels, or
        the axes of two stacks do not say which pages belong together. Unpaired files are never skipped silently.
    InputError
        If the folder is missing or empty, follows no layout, or the regular expression does not fit.
    """
    data = Path(data)
    if not data.is_dir():
        problem = "this is a file, not a folder" if data.is_file() else "there is no such folder"
        raise InputError(data, problem, LAYOUTS)
    notes = PairingNotes()
    if images is None and labels is None:
        layout = recognise_layout(data, notes)
    elif images is None or labels is None:
        raise InputError("", "--images and --labels must be given together", "Give both or none")
    else:
        layout = pair_patterns(data, images, labels, notes)
    whole = partial(Pair, max_pixels=max_pixels, threshold=threshold)
    if layout.reasons:
        pairing = _build_pairing(data, layout, group, part, whole, notes) if layout.pairs else None
        problem = f"{format_count(len(layout.reasons), 'file')} cannot be paired"
        remedy = "Give each image exactly one label file of the same name, or move unpaired files away"
        raise PairingError(data, problem, remedy, layout.reasons, pairing)
    return _build_pairing(data, layout, group, part, whole, notes)


def _build_pairing(
    data: Path,
    layout: FolderLayout,
    group: str | None,
    part: str | None,
    make_pair: Callable[..., Pair],
    notes: PairingNotes,
) -> Pairing:
    pairs = _split_pages(data, layout, make_pair, notes)
    total = len(pairs)
    pairs = pairs if part is None else _choose_part(pairs, part)
    stacks = len({pair.image for pair in pairs if pair.pages > 1})
    pages = f" (pages of {format_count(stacks, 'stack')})" if stacks else ""
    pairs = _add_classes(data, pairs, notes)
    chosen = "" if part is None else f" of {total} (data.pairs={part}: {pairs[0].name} to {pairs[-1].name})"
    notes.lines[:0] = [f"layout: {layout.name}", f"pairs: {len(pairs)}{chosen}{pages}"]
    pairs = _cut_stacks(pairs, notes.lines) if group is None else _group_by_name(pairs, group, notes.lines)
    lines = tuple(map(escape_controls, notes.lines))
    return Pairing(data, layout.name, tuple(pairs), lines, notices=notes.notices, settings=layout.settings)


def _choose_part(pairs: list[Pair], part: str) -> list[Pair]:
    """Return the pairs of a range of numbers."""
    numbers = [int(number) if number else None for number in part.split(":")]
    chosen = pairs[slice(*numbers)]
    if not chosen:
        problem = f"the range {part} holds none of the {format_count(len(pairs), 'pair')}"
        raise InputError("data.pairs", problem, "Give a range that holds some, such as 0:10")
    return chosen


def read_pair_image(pair: Pair, channels: int | None = None, notices: Notices | None = None) -> npt.NDArray[Any]:
    """Read the image of a pair, or its part, ``CYX`` in its native dtype; see `septa.images.read.read_image`."""
    return _cut_window(read_image_page(pair.image, pair.page, pair.max_pixels, channels, notices), pair)


def read_pair_labels(pair: Pair, notices: Notices | None = None) -> RawLabels:
    """Read the labels of a pair as stored, with the classes of the objects if there are any.

    Masks of single objects become ids 1 to n. Where masks overlap the earlier file wins; a mask without visible
    pixels gets no id.

    Parameters
    ----------
    pair
        Pair whose labels are read.
    notices
        Receives what is done with alpha and with inverted values.

    Returns
    -------
    RawLabels
        Labels as stored, or a part of them; ``int32`` ids, ``YX``, for masks of single objects.

    Raises
    ------
    InputError
        If the pair has no labels, or a file cannot be read or is not a mask of one object.
    """
    if pair.labels is None:
        raise InputError(pair.image, "the image has no labels", "Give a label image for it")
    if isinstance(pair.labels, Path):
        raw = read_label_page(pair.labels, pair.page_of_labels, pair.max_pixels, pair.threshold, notices, pair.image)
        if pair.field is not None:
            raw = replace(raw, ignored_yx=_read_outside(pair.field, raw, pair.max_pixels))
        if pair.classes is not None:
            raw = read_object_classes(raw, pair.classes, pair.page_of_labels, pair.max_pixels)
        return _cut_labels(raw, pair)
    ids_yx: npt.NDArray[np.int32] | None = None
    objects = 0
    for path in pair.labels:
        inside_yx = _read_mask(path, pair, notices)
        if ids_yx is None:
            ids_yx = np.zeros(inside_yx.shape, np.int32)
        if inside_yx.shape != ids_yx.shape:
            sizes = "{} x {} pixels (height x width) and earlier masks of the image have {} x {}"
            problem = f"the mask has {sizes.format(*inside_yx.shape, *ids_yx.shape)}"
            raise InputError(path, problem, "Give masks of one size for each image")
        inside_yx &= ids_yx == 0
        if inside_yx.any():
            objects += 1
            ids_yx[inside_yx] = objects
    if ids_yx is None:
        raise InputError(pair.image, "the image has no labels", "Give a mask file for each object")
    return _cut_labels(RawLabels(ids_yx, "index", None), pair)


def _cut_labels(raw: RawLabels, pair: Pair) -> RawLabels:
    """Return the part of labels that a pair consists of."""
    if pair.window is None:
        return raw
    colors = raw.kind == "rgb"
    array = _cut_window(np.moveaxis(raw.array, 2, 0) if colors else raw.array, pair)
    ignored_yx = None if raw.ignored_yx is None else _cut_window(raw.ignored_yx, pair)
    cut = replace(raw, array=np.moveaxis(array, 0, 2) if colors else array, ignored_yx=ignored_yx)
    return replace(cut, classes_yx=_cut_window(cut.classes_yx, pair)) if isinstance(cut, RawObjectLabels) else cut


def _read_outside(field: Path, raw: RawLabels, max_pixels: int) -> npt.NDArray[np.bool_]:
    """Return True outside a field of view."""
    inside = read_label_page(field, 0, max_pixels, None)
    if inside.kind != "index" or inside.array.shape != raw.array.shape[:2]:
        problem = "the mask of the field of view is not a grey image of the size of the labels"
        raise InputError(field, problem, "Export it again, or move its folder away")
    outside_yx: npt.NDArray[np.bool_] = inside.array == 0
    return outside_yx


def _cut_window(array: npt.NDArray[Any], pair: Pair) -> npt.NDArray[Any]:
    """Return the part of an array, ``YX`` or ``CYX``, that a pair consists of."""
    if pair.window is None:
        return array
    top, left, bottom, right = pair.window
    return np.ascontiguousarray(array[..., top:bottom, left:right])


def _read_mask(path: Path, pair: Pair, notices: Notices | None) -> npt.NDArray[np.bool_]:
    raw = read_label_page(path, 0, pair.max_pixels, pair.threshold, notices)
    if raw.kind != "index":
        problem = "the file has several channels, but the mask of one object has one"
        raise InputError(path, problem, "Save it as a grey image")
    inside_yx: npt.NDArray[np.bool_] = raw.array != 0
    found = raw.array[inside_yx]
    if found.size and found.min() != found.max():
        problem = f"the mask holds the values {found.min()} to {found.max()} besides 0, but one object has one value"
        raise InputError(path, problem, "Export the mask again without smoothing or resizing")
    return inside_yx


def _split_pages(data: Path, layout: FolderLayout, make_pair: Callable[..., Pair], notes: PairingNotes) -> list[Pair]:
    """Return one pair for each page, with unique names."""
    pairs: list[Pair] = []
    reasons: dict[Path, str] = {}
    for files in layout.pairs:
        whole = make_pair(
            name=files.name,
            image=files.image,
            labels=files.labels,
            group=files.series or files.name,
            field=files.field,
        )
        axes = _read_axes(files.image, whole.max_pixels)
        label_axes = _read_axes(files.labels, whole.max_pixels) if isinstance(files.labels, Path) else PageAxes("", ())
        if axes is None or label_axes is None or axes.pages == label_axes.pages == 1:
            pairs.append(whole)
        elif files.page is not None:
            if label_axes.pages == 1 and files.page < axes.pages:
                pairs.append(replace(whole, page=files.page, labels_page=0, pages=axes.pages))
            else:
                reasons[files.image] = f"the image file has {axes}"
                reasons |= dict.fromkeys(whole.label_files, f"the label file is of page {files.page}")
        else:
            found, unpaired = _pair_pages(whole, axes, label_axes, notes)
            pairs += found
            reasons |= unpaired
    if reasons:
        remedy = "Give the labels the pages and axes of the image; save channels, or one plane per class, as CYX"
        raise PairingError(data, "the pages of image and label files do not fit together", remedy, reasons)
    by_name: dict[str, list[Path]] = defaultdict(list)
    for pair in pairs:
        by_name[pair.name].append(pair.image)
    double = {path: f"its name is '{name}'" for name, paths in by_name.items() if len(paths) > 1 for path in paths}
    if double:
        raise PairingError(data, "several images have the same name", "Rename them", double)
    return pairs


def _pair_pages(
    whole: Pair, axes: PageAxes, label_axes: PageAxes, notes: PairingNotes
) -> tuple[list[Pair], dict[Path, str]]:
    """Return a pair for each page of an image, or why its pages and those of the labels do not fit together."""
    label_pages, assumption = match_pages(axes, label_axes) if axes.pages == label_axes.pages else (None, "")
    if label_pages is None:
        reasons = {whole.image: f"the image file has {axes}"}
        return [], reasons | dict.fromkeys(whole.label_files, f"the label file has {label_axes}")
    if assumption:
        notes.notices.add(whole.image.name, assumption)
    return [
        replace(whole, name=f"{whole.name}#{page}", page=page, labels_page=label_page, pages=axes.pages)
        for page, label_page in enumerate(label_pages.tolist())
    ], {}


def _read_axes(path: Path, max_pixels: int) -> PageAxes | None:
    try:
        return read_page_axes(path, max_pixels)
    except InputError:
        # Reading the pixels reports this file, together with all other unreadable ones.
        return None


def _add_classes(data: Path, pairs: list[Pair], notes: PairingNotes) -> list[Pair]:
    """Return the pairs with their class files, if there is a folder of them."""
    folder = find_classes_folder(data)
    labels = [pair.labels for pair in pairs if isinstance(pair.labels, Path) and pair.labels.parent.parent == data]
    if folder is None or len(labels) < len(pairs):
        return pairs
    files = pair_classes(folder, labels, notes)
    return [replace(pair, classes=files[pair.labels]) for pair in pairs if isinstance(pair.labels, Path)]


def _group_by_name(pairs: list[Pair], group: str, notes: list[str]) -> list[Pair]:
    """Return the pairs, grouped by the match of a regular expression in their file names."""
    try:
        pattern = re.compile(group)
    except re.error as error:
        place = "" if error.pos is None else f" (at character {error.pos + 1})"
        problem = f"'{group}' is not a valid regular expression{place}"
        raise InputError("data.group", problem, "Correct it") from None
    grouped, alone = [], 0
    for pair in pairs:
        match = pattern.search(pair.image.name)
        key = (match[1] if pattern.groups else match[0]) if match else None
        alone += key is None
        grouped.append(pair if key is None else replace(pair, group=key))
    if alone == len(pairs):
        problem = f"'{group}' matches no file name, such as {pairs[0].image.name}"
        raise InputError("data.group", problem, "Correct the regular expression")
    number = len({pair.group for pair in grouped})
    unmatched = f" ({alone} without a match)" if alone else ""
    notes.append(f"groups: {number} by '{group}' in the file names{unmatched}")
    return grouped


def _cut_stacks(pairs: list[Pair], notes: list[str]) -> list[Pair]:
    """Return the pairs with groups that keep neighbouring pages of a stack, or frames of a recording, together."""
    sizes = Counter(pair.group for pair in pairs)
    if max(sizes.values()) == 1:
        notes.append("groups: every image is its own group")
        return pairs
    of_pages = any(pair.pages > 1 for pair in pairs)
    if len(sizes) >= _RUNS // 2:
        notes.append(f"groups: the {'pages of each stack' if of_pages else 'frames of each sequence'} stay together")
        return pairs
    # Neighbouring pages are alike, so runs leak less from training to validation than single pages would.
    run = -(-len(pairs) // _RUNS)
    noun = "consecutive page" if of_pages else "consecutive frame"
    notes.append(f"groups: runs of {format_count(run, noun)} stay together")
    place: Counter[str] = Counter()
    grouped = []
    for pair in pairs:
        first = place[pair.group] // run * run
        place[pair.group] += 1
        grouped.append(replace(pair, group=f"{pair.group}#{first}") if sizes[pair.group] > 1 else pair)
    return grouped
