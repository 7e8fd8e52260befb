"""The part of the dataset check that concerns copies of images and the split into training and validation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from septa.data.check_result import Problem, Split
from septa.data.fingerprint import ImageFacts
from septa.data.folder import read_pair_image, read_pair_labels
from septa.data.pairs import Pair
from septa.data.split import cut_images, form_one_group, split_folds, split_pairs
from septa.errors import InputError, SeptaError, shorten_list
from septa.labels import LabelMapping
from septa.recipe import DataSettings


def check_copies(
    similar: Sequence[Sequence[str]],
    facts: Sequence[ImageFacts],
    pairs: Sequence[Pair],
    settings: DataSettings,
    seed: int,
    locations: Mapping[str, str],
    problems: list[Problem],
) -> None:
    """Warn about sets of similar images, given by their names; ``locations`` are the places to name in messages."""
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
        split = "; a random split would separate them, so septa keeps them on one side" if apart else ""
        for identical in same.values():
            if len(identical) == 1:
                continue
            others = shorten_list(identical[1:])
            description = f"the image and its labels are identical to those of {others}"
            remedy = "Keep one of them"
            if len({by_name[name].digest for name in identical}) > 1:
                description = f"the image is identical to {others}, but the labels differ"
                remedy = "Keep the one with the right labels"
            problems.append(Problem("warning", locations[identical[0]], description + split, remedy))
        if len(same) > 1:
            first, *rest = sorted(found[0] for found in same.values())
            changes = "a copy that is perhaps turned, mirrored, cropped, shifted, rescaled or exposed otherwise"
            description = f"the image shows the same objects as {shorten_list(rest)} ({changes})"
            remedy = "Keep one of them if they are copies; if they belong together for another reason, set data.group"
            problems.append(Problem("warning", locations[first], description + split, remedy))


def make_splits(
    data: Path,
    pairs: Sequence[Pair],
    settings: DataSettings,
    seed: int,
    similar: Sequence[Sequence[str]],
    folds: int,
    problems: list[Problem],
) -> tuple[Split, ...]:
    """Return the split of a dataset, or that of each fold; none if there are fewer independent pairs than folds."""
    if not folds:
        return (_split_once(data, pairs, settings, seed, similar, problems),)
    try:
        held_out = split_folds(pairs, folds, seed, similar)
    except InputError as error:
        problems.append(Problem.from_error(error))
        return ()
    names = sorted(pair.name for pair in pairs)
    return tuple((tuple(name for name in names if name not in set(own)), own) for own in held_out)


def _split_once(
    data: Path,
    pairs: Sequence[Pair],
    settings: DataSettings,
    seed: int,
    similar: Sequence[Sequence[str]],
    problems: list[Problem],
) -> Split:
    """Return the names of the pairs for training and for validation, or none if no pair can be held out."""
    share = settings.validation_share
    if form_one_group(pairs):
        return (), ()  # `cut_whole_dataset` has reported the reason
    try:
        train, validation = split_pairs(pairs, share, seed, similar)
    except InputError as error:
        try:
            train, validation = split_pairs(pairs, share, seed)
        except InputError:
            problems.append(Problem.from_error(error))
            return (), ()
        description = "all images are copies of each other or overlap, so validation shows objects of training images"
        remedy = "Add images that differ, or expect validation scores that are too high"
        problems.append(Problem("warning", str(data), description, remedy))
    return tuple(pair.name for pair in train), tuple(pair.name for pair in validation)


def describe_fold_sizes(sides: Sequence[Split]) -> str:
    """Return a printable line about the folds."""
    sizes = sorted({len(validation) for _, validation in sides})
    size = " to ".join(map(str, (sizes[0], sizes[-1]) if len(sizes) > 1 else sizes))
    return f"folds: {len(sides)} of {size} images; each image is held out once, and its fold's net never trains on it"


def cut_whole_dataset(
    pairs: tuple[Pair, ...], mapping: LabelMapping | None, share: float, problems: list[Problem]
) -> tuple[tuple[Pair, ...], str]:
    """Cut the images of a dataset if they all belong together; see `cut_images`.

    Returns
    -------
    pairs
        Pairs of the parts; the given pairs if nothing is cut.
    held_out
        Printable clause that says what is held out; empty if nothing is cut.
    """

    def read_classes(pair: Pair) -> npt.NDArray[np.int32] | None:
        try:
            class_yx = mapping.encode(read_pair_labels(pair), pair.labels_location) if mapping else None
            return None if class_yx is None or read_pair_image(pair).shape[1:] != class_yx.shape else class_yx
        except SeptaError:
            # The pair's own inspection reports this.
            return None

    if mapping is None or not form_one_group(pairs):
        return pairs, ""
    try:
        return cut_images(pairs, share, read_classes)
    except InputError as error:
        problems.append(Problem.from_error(error))
        return pairs, ""
