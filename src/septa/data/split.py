"""The split of a dataset into training and validation: by groups of images, or inside the images of a single group."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.data.pairs import Pair
from septa.errors import InputError, format_count
from septa.recipe import IGNORE

Window = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels; bottom and right are not included."""

TRAINING_PART = "#training"
VALIDATION_PART = "#validation"
"""Endings of the names of the two parts of an image."""

_LEAST_SIDE = 16
"""Smallest height or width of a part, in pixels."""
_MARGIN_SHARE = 1 / 16
_MOST_MARGIN = 32
"""Pixels between the two parts, at most, so that they share no object of usual size."""


def form_one_group(pairs: Sequence[Pair]) -> bool:
    """Return True if all pairs are in one group, so that no image can be held out whole."""
    return len({pair.group for pair in pairs}) < 2


def list_parts(pairs: Sequence[Pair]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the parts for training and of those for validation; an image has the same place in both."""
    names = sorted(pair.name for pair in pairs)
    training = tuple(name for name in names if name.endswith(TRAINING_PART))
    return training, tuple(name.removesuffix(TRAINING_PART) + VALIDATION_PART for name in training)


def cut_images(
    pairs: Sequence[Pair], share: float, read_classes: Callable[[Pair], npt.NDArray[Any] | None]
) -> tuple[tuple[Pair, ...], str]:
    """Cut every image into a part for training and a strip for validation, with a margin between them that is not used.

    The strip lies at the edge where the classes have the most similar shares in both parts.

    Parameters
    ----------
    pairs
        Pairs of one group.
    share
        Share of each image to hold out, 0 to 1.
    read_classes
        Function that returns the classes of the pixels of a pair, integers ``YX`` with `IGNORE` for those without; None
        if they cannot be used.

    Returns
    -------
    parts
        Two pairs for each image, whose names end in `TRAINING_PART` and `VALIDATION_PART`. Pairs that cannot be used
        are not cut.
    held_out
        Printable clause that says what is held out.

    Raises
    ------
    InputError
        If an image is too small.
    """
    parts = []
    edges = []
    for pair in pairs:
        class_yx = read_classes(pair)
        if class_yx is None:
            parts.append(pair)
            continue
        windows = _list_windows(class_yx.shape[0], class_yx.shape[1], share)
        if not windows:
            problem = "the image is too small ({} x {} pixels) to hold out a part of it".format(*class_yx.shape)
            raise InputError(pair.image_location, problem, "Add images of another specimen, or larger ones")
        edges.append(max(windows, key=lambda edge: _measure_balance(class_yx, windows[edge])))
        for ending, window in zip((TRAINING_PART, VALIDATION_PART), windows[edges[-1]], strict=True):
            parts.append(replace(pair, name=pair.name + ending, window=window))
    alone = len(pairs) == 1
    images = "there is only one image" if alone else f"all {len(pairs)} images belong together"
    where = f"the {share:.0%} at its {edges[0]}" if alone and edges else f"{share:.0%} of each, at one edge,"
    return tuple(parts), f"{images}, so {where} {'are' if alone else 'is'} held out"


def _list_windows(height: int, width: int, share: float) -> dict[str, tuple[Window, Window]]:
    """Return windows for training and for validation, by the name of the edge where the strip for validation lies.

    The longer axis is cut; both are candidates if they are equal.
    """
    found: dict[str, tuple[Window, Window]] = {}
    for length, other, first, last in ((width, height, "left", "right"), (height, width, "top", "bottom")):
        strip = min(max(round(share * length), _LEAST_SIDE), length - _LEAST_SIDE)
        margin = min(_MOST_MARGIN, int(_MARGIN_SHARE * length), length - strip - _LEAST_SIDE)
        if length < other or strip < _LEAST_SIDE or margin < 0 or other < _LEAST_SIDE:
            continue
        ranges = {
            last: ((0, length - strip - margin), (length - strip, length)),
            first: ((strip + margin, length), (0, strip)),
        }
        for edge, ((start, end), (strip_start, strip_end)) in ranges.items():
            if first == "left":
                found[edge] = (0, start, height, end), (0, strip_start, height, strip_end)
            else:
                found[edge] = (start, 0, end, width), (strip_start, 0, strip_end, width)
    return found


def _measure_balance(class_yx: npt.NDArray[Any], windows: tuple[Window, Window]) -> float:
    """Return the smallest ratio, 0 to 1, between the shares of a class in two windows; the larger, the more alike."""
    classes = np.unique(class_yx[class_yx != IGNORE])
    shares = []
    for top, left, bottom, right in windows:
        part_yx = class_yx[top:bottom, left:right]
        shares.append([float((part_yx == k).mean()) for k in classes])
    return min((min(pair) / max(pair) if max(pair) > 0 else 1.0 for pair in zip(*shares)), default=1.0)


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
    units = _order_units(_merge_groups(pairs, similar), seed)
    if len(units) < 2:
        alone = len(pairs) == 1
        problem = "the dataset has only one image" if alone else f"all {len(pairs)} images belong together"
        remedy = "Add images of another specimen" + ("" if alone else ", or change data.group")
        raise InputError("validation split", f"{problem}, so none can be held out", remedy)
    chosen = _choose_closest([len(unit) for unit in units], share * len(pairs))
    sides: tuple[list[Pair], list[Pair]] = ([], [])
    for number, unit in enumerate(units):
        sides[number in chosen].extend(unit)
    training, validation = (tuple(sorted(side, key=lambda pair: pair.name)) for side in sides)
    return training, validation


def split_folds(
    pairs: Sequence[Pair], folds: int, seed: int, similar: Sequence[Sequence[str]] = ()
) -> tuple[tuple[str, ...], ...]:
    """Divide pairs into folds, each of which is the validation of one training; every pair is in exactly one.

    Groups and similar images stay in one fold. Folds have as similar numbers of pairs as the groups allow.

    Parameters
    ----------
    pairs
        Pairs in any order; the result depends only on their names and groups.
    folds
        Number of folds, at least 2.
    seed, similar
        As for `split_pairs`.

    Returns
    -------
    tuple
        Names of the pairs of each fold, sorted. No fold is empty.

    Raises
    ------
    InputError
        If there are fewer independent groups than folds.
    """
    units = _order_units(_merge_groups(pairs, similar), seed)
    if len(units) < folds:
        alone = len(units) == len(pairs)
        kind = format_count(len(units), "image" if alone else "independent group")
        problem = f"the dataset has only {kind}" + ("" if alone else f" of images ({len(pairs)} images)")
        fewer = f"Give --folds {len(units)}{' or fewer' if len(units) > 2 else ''}, or add images of another specimen"
        raise InputError(f"--folds {folds}", problem, fewer if len(units) > 1 else "Leave --folds out")
    sides: list[list[str]] = [[] for _ in range(folds)]
    # The largest units first, each into the smallest fold; sorting keeps the order of units of one size.
    for unit in sorted(units, key=len, reverse=True):
        min(sides, key=len).extend(pair.name for pair in unit)
    return tuple(tuple(sorted(side)) for side in sides)


def _order_units(units: list[list[Pair]], seed: int) -> list[list[Pair]]:
    """Return units in the order of a hash of seed and group, so that a new image moves few others to another side."""
    return sorted(
        units,
        key=lambda unit: hashlib.sha256(
            f"{seed}/{min(pair.group for pair in unit)}".encode(errors="surrogateescape")
        ).digest(),
    )


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
