"""Which image belongs to which labels, which images stay together, and which are held out."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.data.layouts import LAYOUTS, Found, PairingError, find_classes_folder, pair_classes, pair_patterns, recognise
from septa.errors import InputError
from septa.images import MAX_PIXELS, RawLabels, read_image, read_info, read_labels
from septa.labels import read_object_labels

__all__ = [
    "Pair",
    "Pairing",
    "PairingError",
    "find_pairs",
    "read_pair_image",
    "read_pair_labels",
    "split_pairs",
]

_RUNS = 10
"""Groups that the pages of a few stacks are cut into."""


@dataclass(frozen=True)
class Pair:
    """One image and its labels.

    Attributes
    ----------
    name
        Unique key: the stem of the image's file name, for pages of a stack ``stem#page``.
    image
        File of the image.
    page
        Page in the image file, and in the label file where that has several.
    labels
        File of the labels, or one mask file per object.
    group
        Images of one group are never split between training and validation.
    max_pixels
        Largest size that is decoded; see `septa.images.read.read_info`.
    classes
        File of the objects' classes, if they have any.
    """

    name: str
    image: Path
    page: int
    labels: Path | tuple[Path, ...] | None
    group: str
    max_pixels: int = MAX_PIXELS
    classes: Path | None = None


@dataclass(frozen=True)
class Pairing:
    """All pairs of a folder, and in ``notes`` what was inferred, in printable lines."""

    root: Path
    layout: str
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]


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
        Folder in one of the layouts: ``images/`` and ``labels/`` (or ``masks/``) with equal stems; a flat folder with
        ``x.png`` beside ``x_mask.png``; two multi-page TIFFs such as ``train-volume.tif`` and ``train-labels.tif``;
        or one folder per image with ``images/`` (one file) and ``masks/`` (one file per object). Label stems may end
        in ``_mask``, ``_label``, ``_seg``, ``_anno`` and the like. Of multi-page TIFFs each page is a pair. Objects
        have classes where ``classes/`` (or ``types/``) lies beside the folder of labels: an image for each label image,
        with the same stem, that holds at each pixel of an object the number of its class, from 1.
    images, labels
        Patterns (relative to ``data`` or absolute; ``**`` crosses folders) or folders, given both or not at all.
        Files are paired by equal stems, else by the part that varies between the names.
    group
        Regular expression on the image's file name; images whose match (group 1 if there is one) is equal stay
        together. Without it each image is its own group, and stacks are cut into runs of consecutive pages.
    max_pixels
        Largest size that the pairs may have; larger ones fail when they are read.

    Raises
    ------
    PairingError
        If an image has no or several labels, labels no or several images; nothing is left out silently.
    InputError
        If the folder is missing or empty, follows no layout, or the regular expression does not fit.
    """
    data = Path(data)
    if not data.is_dir():
        problem = "is a file, not a folder" if data.is_file() else "there is no such folder"
        raise InputError(data, problem, LAYOUTS)
    notes: list[str] = []
    try:
        if images is None and labels is None:
            layout, found = recognise(data, notes)
        elif images is None or labels is None:
            raise InputError(data, "only one of the patterns for images and labels is given", "give both")
        else:
            layout, found = "patterns", pair_patterns(data, images, labels, notes)
    except PairingError as error:
        if error.rest:
            # The dataset check goes on with these, to tell all that is wrong at once.
            error.pairing = _pairing(data, "the files that can be paired", error.rest, group, max_pixels, notes)
        raise
    return _pairing(data, layout, found, group, max_pixels, notes)


def _pairing(data: Path, layout: str, found: Found, group: str | None, max_pixels: int, notes: list[str]) -> Pairing:
    pairs, many = _named(data, found, max_pixels)
    pairs = _with_classes(data, pairs, notes)
    notes[:0] = [f"layout: {layout}", f"{len(pairs)} pairs{many}"]
    pairs = _grouped(pairs, group, notes)
    return Pairing(data, layout, tuple(pairs), tuple(notes))


def read_pair_image(pair: Pair) -> npt.NDArray[Any]:
    """Read the image of a pair: CYX in its native dtype; see `septa.images.read.read_image`."""
    return read_image(pair.image, pair.page, max_pixels=pair.max_pixels)


def read_pair_labels(pair: Pair) -> RawLabels:
    """Read the labels of a pair as stored, with the classes of objects that have any; masks of single objects become
    ids 1 to n.

    Where masks overlap the earlier file wins; a mask without (visible) pixels gets no id.

    Raises
    ------
    InputError
        If the pair has no labels, or a file cannot be read or is no mask of one object.
    """
    if pair.labels is None:
        raise InputError(pair.image, "has no labels", "give a label image for it")
    if isinstance(pair.labels, Path):
        raw = read_labels(pair.labels, pair.page, max_pixels=pair.max_pixels)
        return raw if pair.classes is None else read_object_labels(raw, pair.classes, pair.page, pair.max_pixels)
    ids_yx: npt.NDArray[np.int32] | None = None
    objects = 0
    for path in pair.labels:
        inside_yx = _read_mask(path, pair.max_pixels)
        if ids_yx is None:
            ids_yx = np.zeros(inside_yx.shape, np.int32)
        if inside_yx.shape != ids_yx.shape:
            problem = f"has {inside_yx.shape} pixels (height, width), and the masks before it {ids_yx.shape}"
            raise InputError(path, problem, "give masks of one size for each image")
        inside_yx &= ids_yx == 0
        if inside_yx.any():
            objects += 1
            ids_yx[inside_yx] = objects
    if ids_yx is None:
        raise InputError(pair.image, "has no labels", "give a mask file for each object")
    return RawLabels(ids_yx, "index", None)


def _read_mask(path: Path, max_pixels: int) -> npt.NDArray[np.bool_]:
    raw = read_labels(path, max_pixels=max_pixels)
    if raw.kind != "index":
        raise InputError(path, "has several channels, where the mask of one object was expected", "save it as grey")
    inside_yx: npt.NDArray[np.bool_] = raw.array != 0
    found = raw.array[inside_yx]
    if found.size and found.min() != found.max():
        problem = f"holds the values {found.min()} to {found.max()} beside 0, and the mask of one object holds one"
        raise InputError(path, problem, "export the mask again without smoothing or resizing")
    return inside_yx


def split_pairs(
    pairs: Sequence[Pair], share: float, seed: int, similar: Sequence[Sequence[str]] = ()
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Divide pairs into training and validation.

    Parameters
    ----------
    pairs
        Pairs in any order: the result depends on the names and groups only.
    share
        Share of the pairs to hold out, 0 to 1; met as closely as the groups allow, with at least one pair each side.
    seed
        Another seed draws other groups.
    similar
        Sets of names of near-duplicate images, which stay together as groups do.

    Returns
    -------
    training, validation
        Both sorted by name.

    Raises
    ------
    InputError
        If all pairs hang together, so that nothing independent can be held out.
    """
    units = _units(pairs, similar)
    if len(units) < 2:
        problem = f"all {len(pairs)} images belong together, so none can be held out"
        raise InputError("validation split", problem, "add images of another specimen, or change data.group")
    # In the order of a hash of seed and groups, so that adding an image moves few others.
    units.sort(key=lambda unit: hashlib.sha256(f"{seed}/{min(pair.group for pair in unit)}".encode()).digest())
    chosen = _closest([len(unit) for unit in units], share * len(pairs))
    sides: tuple[list[Pair], list[Pair]] = ([], [])
    for number, unit in enumerate(units):
        sides[number in chosen].extend(unit)
    training, validation = (tuple(sorted(side, key=lambda pair: pair.name)) for side in sides)
    return training, validation


def _units(pairs: Sequence[Pair], similar: Sequence[Sequence[str]]) -> list[list[Pair]]:
    """The smallest sets of pairs that keep groups and similar images together."""
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


def _closest(sizes: Sequence[int], wanted: float) -> set[int]:
    """Indices whose sizes sum as closely as possible to ``wanted``, early ones preferred, neither none nor all."""
    # Bit s of reach[n] tells that some of the first n sizes sum to s.
    reach = [1]
    for size in sizes:
        reach.append(reach[-1] | reach[-1] << size)
    total = min((s for s in range(1, sum(sizes)) if reach[-1] >> s & 1), key=lambda s: (abs(s - wanted), s))
    chosen = set()
    for number in range(len(sizes) - 1, -1, -1):
        if not reach[number] >> total & 1:
            chosen.add(number)
            total -= sizes[number]
    return chosen


def _named(data: Path, found: Found, max_pixels: int) -> tuple[list[Pair], str]:
    """One pair for each page, with unique names."""
    pairs: list[Pair] = []
    reasons: dict[Path, str] = {}
    stacks = 0
    for name, image, labels in found:
        masks = [labels] if isinstance(labels, Path) else list(labels)
        pages = _pages(image, max_pixels)
        label_pages = _pages(labels, max_pixels) if isinstance(labels, Path) else 1
        if pages is None or label_pages is None or pages == label_pages == 1:
            pairs.append(Pair(name, image, 0, labels, name, max_pixels))
        elif pages == label_pages:
            stacks += 1
            pairs += [Pair(f"{name}#{page}", image, page, labels, name, max_pixels) for page in range(pages)]
        else:
            reasons |= {image: f"{pages} pages", **dict.fromkeys(masks, f"{label_pages} pages")}
    if reasons:
        remedy = "give as many label pages as image pages; channels, or one plane per class, need a TIFF with axes CYX"
        raise PairingError(data, "image and label files differ in their number of pages", remedy, reasons)
    files: dict[str, list[Path]] = defaultdict(list)
    for pair in pairs:
        files[pair.name].append(pair.image)
    double = {path: f"named {name}" for name, paths in files.items() if len(paths) > 1 for path in paths}
    if double:
        raise PairingError(data, "images have the same name", "rename them", double)
    return pairs, f" from {stacks} stack{'s' if stacks > 1 else ''} of pages" if stacks else ""


def _with_classes(data: Path, pairs: list[Pair], notes: list[str]) -> list[Pair]:
    """Each pair with the file of its objects' classes, where there is a folder of them."""
    folder = find_classes_folder(data)
    labels = [pair.labels for pair in pairs if isinstance(pair.labels, Path) and pair.labels.parent.parent == data]
    if folder is None or len(labels) < len(pairs):
        return pairs
    files = pair_classes(folder, labels, notes)
    return [replace(pair, classes=files[pair.labels]) for pair in pairs if isinstance(pair.labels, Path)]


def _pages(path: Path, max_pixels: int) -> int | None:
    try:
        return read_info(path, max_pixels=max_pixels).pages
    except InputError:
        # Reading the pixels tells what is wrong, where all such problems are collected.
        return None


def _grouped(pairs: list[Pair], group: str | None, notes: list[str]) -> list[Pair]:
    if group is None:
        return _cut_stacks(pairs, notes)
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise InputError("data.group", f"is no regular expression ({error})", "correct it") from None
    grouped, alone = [], 0
    for pair in pairs:
        match = pattern.search(pair.image.name)
        key = (match[1] if pattern.groups else match[0]) if match else None
        alone += key is None
        grouped.append(pair if key is None else replace(pair, group=key))
    if alone == len(pairs):
        raise InputError("data.group", f"'{group}' matches no file name such as {pairs[0].image.name}", "correct it")
    number = len({pair.group for pair in grouped})
    missed = f", {alone} without a match stand alone" if alone else ""
    notes.append(f"groups: {number}, by '{group}' in the file name{missed}")
    return grouped


def _cut_stacks(pairs: list[Pair], notes: list[str]) -> list[Pair]:
    stacks = {pair.image for pair in pairs if pair.name != pair.group}
    if not stacks:
        notes.append("groups: each image is its own")
        return pairs
    if len({pair.image for pair in pairs}) >= _RUNS // 2:
        notes.append("groups: the pages of a stack stay together")
        return pairs
    # Neighbouring pages are alike, so runs leak less from training to validation than single pages would.
    run = -(-len(pairs) // _RUNS)
    notes.append(f"groups: runs of {run} consecutive page{'s' if run > 1 else ''} stay together")
    return [
        replace(pair, group=f"{pair.group}#{pair.page // run * run}") if pair.image in stacks else pair
        for pair in pairs
    ]
