"""Pairs of a folder: which image belongs to which labels, which pairs stay together, and which are held out."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.data.layouts import LAYOUTS, FolderLayout, find_classes_folder, pair_classes, pair_patterns, recognise_layout
from septa.data.pairs import Pair, Pairing, PairingError
from septa.errors import InputError, escape_controls, format_count
from septa.images import MAX_PIXELS, RawLabels, read_image, read_info, read_labels
from septa.labels import read_object_classes

_RUNS = 10
"""Number of groups that the pages of a few stacks are cut into."""


def find_pairs(
    data: Path,
    *,
    images: str | None = None,
    labels: str | None = None,
    group: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Pairing:
    """Pair the images of a folder with their labels.

    Parameters
    ----------
    data
        Folder in one of these layouts:

        - ``images/`` and ``labels/`` (or ``masks/``), with equal stems;
        - a flat folder, with ``x.png`` beside ``x_mask.png``;
        - two multi-page TIFFs, such as ``train-volume.tif`` and ``train-labels.tif``;
        - one folder per image, with ``images/`` (one file) and ``masks/`` (one file per object).

        Stems of label files may end in a word such as ``_mask``, ``_label``, ``_seg`` or ``_anno``. Each page of a
        multi-page TIFF is a pair. Objects have classes if ``classes/`` (or ``types/``) lies beside the folder of
        labels. It holds an image for each label image, with the same stem; at each pixel of an object that image holds
        the number of the object's class, from 1.
    images, labels
        Patterns (relative to ``data`` or absolute; ``**`` crosses folders) or folders, given both or not at all.
        Files are paired by equal stems, else by the varying part of their names.
    group
        Regular expression that is searched in the image file's name. Images with the same match (of group 1 if there
        is one) stay together. Without it each image is its own group, and stacks are cut into runs of consecutive
        pages.
    max_pixels
        Largest size that the pairs may have; reading a larger one fails.

    Returns
    -------
    Pairing
        All pairs, and notes about layout, ignored files and groups.

    Raises
    ------
    PairingError
        If an image has no or several labels, or labels have no or several images. Unpaired files are never skipped
        silently.
    InputError
        If the folder is missing or empty, follows no layout, or the regular expression does not fit.
    """
    data = Path(data)
    if not data.is_dir():
        problem = "this is a file, not a folder" if data.is_file() else "there is no such folder"
        raise InputError(data, problem, LAYOUTS)
    notes: list[str] = []
    if images is None and labels is None:
        layout = recognise_layout(data, notes)
    elif images is None or labels is None:
        raise InputError("", "--images and --labels must be given together", "Give both or none")
    else:
        layout = pair_patterns(data, images, labels, notes)
    if layout.reasons:
        pairing = _build_pairing(data, layout, group, max_pixels, notes) if layout.pairs else None
        problem = f"{format_count(len(layout.reasons), 'file')} cannot be paired"
        remedy = "Give each image exactly one label file of the same name, or move unpaired files away"
        raise PairingError(data, problem, remedy, layout.reasons, pairing)
    return _build_pairing(data, layout, group, max_pixels, notes)


def _build_pairing(data: Path, layout: FolderLayout, group: str | None, max_pixels: int, notes: list[str]) -> Pairing:
    pairs = _split_pages(data, layout, max_pixels)
    stacks = len({pair.image for pair in pairs if pair.pages > 1})
    pages = f" (pages of {format_count(stacks, 'stack')})" if stacks else ""
    pairs = _add_classes(data, pairs, notes)
    notes[:0] = [f"layout: {layout.name}", f"pairs: {len(pairs)}{pages}"]
    pairs = _cut_stacks(pairs, notes) if group is None else _group_by_name(pairs, group, notes)
    return Pairing(data, layout.name, tuple(pairs), tuple(map(escape_controls, notes)))


def read_pair_image(pair: Pair) -> npt.NDArray[Any]:
    """Read the image of a pair, ``CYX`` in its native dtype; see `septa.images.read.read_image`."""
    return read_image(pair.image, pair.page, max_pixels=pair.max_pixels)


def read_pair_labels(pair: Pair) -> RawLabels:
    """Read the labels of a pair as stored, with the classes of the objects if there are any.

    Masks of single objects become ids 1 to n. Where masks overlap the earlier file wins; a mask without visible
    pixels gets no id.

    Parameters
    ----------
    pair
        Pair whose labels are read.

    Returns
    -------
    RawLabels
        Labels as stored; ``int32`` ids, ``YX``, for masks of single objects.

    Raises
    ------
    InputError
        If the pair has no labels, or a file cannot be read or is not a mask of one object.
    """
    if pair.labels is None:
        raise InputError(pair.image, "the image has no labels", "Give a label image for it")
    if isinstance(pair.labels, Path):
        raw = read_labels(pair.labels, pair.page, max_pixels=pair.max_pixels)
        return raw if pair.classes is None else read_object_classes(raw, pair.classes, pair.page, pair.max_pixels)
    ids_yx: npt.NDArray[np.int32] | None = None
    objects = 0
    for path in pair.labels:
        inside_yx = _read_mask(path, pair.max_pixels)
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
    return RawLabels(ids_yx, "index", None)


def _read_mask(path: Path, max_pixels: int) -> npt.NDArray[np.bool_]:
    raw = read_labels(path, max_pixels=max_pixels)
    if raw.kind != "index":
        problem = "the file has several channels, but the mask of one object has one"
        raise InputError(path, problem, "Save it as a grey image")
    inside_yx: npt.NDArray[np.bool_] = raw.array != 0
    found = raw.array[inside_yx]
    if found.size and found.min() != found.max():
        problem = f"the mask holds the values {found.min()} to {found.max()} besides 0, but one object has one value"
        raise InputError(path, problem, "Export the mask again without smoothing or resizing")
    return inside_yx


def split_pairs(
    pairs: Sequence[Pair], share: float, seed: int, similar: Sequence[Sequence[str]] = ()
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Split pairs into training and validation.

    Parameters
    ----------
    pairs
        Pairs in any order; the result depends only on their names and groups.
    share
        Share of the pairs to hold out, 0 to 1. It is met as closely as the groups allow, with at least one pair on
        each side.
    seed
        Seed of the split.
    similar
        Sets of names of near-duplicate images, which stay together as groups do.

    Returns
    -------
    training, validation
        Both sorted by name.

    Raises
    ------
    InputError
        If all pairs are connected by groups and similar images, so that nothing independent can be held out.
    """
    units = _merge_groups(pairs, similar)
    if len(units) < 2:
        alone = len(pairs) == 1
        problem = "the dataset has only one image" if alone else f"all {len(pairs)} images belong together"
        remedy = "Add images of another specimen" + ("" if alone else ", or change data.group")
        raise InputError("validation split", f"{problem}, so none can be held out", remedy)
    # The order follows a hash of seed and group, so that a new image moves few others to the other side.
    units.sort(
        key=lambda unit: hashlib.sha256(
            f"{seed}/{min(pair.group for pair in unit)}".encode(errors="surrogateescape")
        ).digest()
    )
    chosen = _choose_closest([len(unit) for unit in units], share * len(pairs))
    sides: tuple[list[Pair], list[Pair]] = ([], [])
    for number, unit in enumerate(units):
        sides[number in chosen].extend(unit)
    training, validation = (tuple(sorted(side, key=lambda pair: pair.name)) for side in sides)
    return training, validation


def _merge_groups(pairs: Sequence[Pair], similar: Sequence[Sequence[str]]) -> list[list[Pair]]:
    """Return the smallest sets of pairs that keep groups and similar images together."""
    parent = {pair.group: pair.group for pair in pairs}
    group_of = {pair.name: pair.group for pair in pairs}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    for names in similar:
        groups = [root(group_of[name]) for name in names if name in group_of]
        for group in groups[1:]:
            parent[root(group)] = root(groups[0])
    units: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        units[root(pair.group)].append(pair)
    return list(units.values())


def _choose_closest(sizes: Sequence[int], goal: float) -> set[int]:
    """Choose indices whose sizes sum as closely as possible to a goal, early ones preferred, neither none nor all."""
    # Bit s of reach[n] is set if some of the first n sizes sum to s.
    reach = [1]
    for size in sizes:
        reach.append(reach[-1] | reach[-1] << size)
    total = min((s for s in range(1, sum(sizes)) if reach[-1] >> s & 1), key=lambda s: (abs(s - goal), s))
    chosen = set()
    for number in range(len(sizes) - 1, -1, -1):
        if not reach[number] >> total & 1:
            chosen.add(number)
            total -= sizes[number]
    return chosen


def _split_pages(data: Path, layout: FolderLayout, max_pixels: int) -> list[Pair]:
    """Return one pair for each page, with unique names."""
    pairs: list[Pair] = []
    reasons: dict[Path, str] = {}
    for name, image, labels in layout.pairs:
        pages = _count_pages(image, max_pixels)
        label_pages = _count_pages(labels, max_pixels) if isinstance(labels, Path) else 1
        whole = Pair(name=name, image=image, labels=labels, group=name, max_pixels=max_pixels)
        if pages is None or label_pages is None or pages == label_pages == 1:
            pairs.append(whole)
        elif pages == label_pages:
            pairs += [replace(whole, name=f"{name}#{page}", page=page, pages=pages) for page in range(pages)]
        else:
            reasons[image] = f"the image file has {format_count(pages, 'page')}"
            reasons |= dict.fromkeys(whole.label_files, f"the label file has {format_count(label_pages, 'page')}")
    if reasons:
        remedy = "Give as many label pages as image pages; save channels, or one plane per class, as a TIFF of axes CYX"
        raise PairingError(data, "image and label files differ in their number of pages", remedy, reasons)
    files: dict[str, list[Path]] = defaultdict(list)
    for pair in pairs:
        files[pair.name].append(pair.image)
    double = {path: f"its name is '{name}'" for name, paths in files.items() if len(paths) > 1 for path in paths}
    if double:
        raise PairingError(data, "several images have the same name", "Rename them", double)
    return pairs


def _count_pages(path: Path, max_pixels: int) -> int | None:
    try:
        return read_info(path, max_pixels=max_pixels).pages
    except InputError:
        # Reading the pixels reports this file, together with all other unreadable ones.
        return None


def _add_classes(data: Path, pairs: list[Pair], notes: list[str]) -> list[Pair]:
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
    """Return the pairs with groups that keep neighbouring pages of a stack together."""
    if not any(pair.pages > 1 for pair in pairs):
        notes.append("groups: every image is its own group")
        return pairs
    if len({pair.image for pair in pairs}) >= _RUNS // 2:
        notes.append("groups: the pages of each stack stay together")
        return pairs
    # Neighbouring pages are alike, so runs leak less from training to validation than single pages would.
    run = -(-len(pairs) // _RUNS)
    notes.append(f"groups: runs of {format_count(run, 'consecutive page')} stay together")
    return [replace(pair, group=f"{pair.group}#{pair.page // run * run}") if pair.pages > 1 else pair for pair in pairs]
