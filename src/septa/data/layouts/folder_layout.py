"""Files of a dataset, paired as its layout says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from septa.data.listing import PairingNotes, is_broken_link
from septa.data.matching import LABELS_WITHOUT_IMAGE, get_stem, match_files
from septa.labels import get_file, is_inside_file

LAYOUTS = (
    "Arrange the folder as images/ and labels/ with equal names, as x.png beside x_mask.png, as two TIFF stacks "
    "(train-volume.tif, train-labels.tif), or as one folder per image with images/ and masks/; "
    "or name the files with --images and --labels"
)
"""Remedy for a folder in none of the layouts."""


@dataclass(frozen=True, kw_only=True)
class FilePair:
    """Files of one image.

    Attributes
    ----------
    name
        Stem of the image file, or name of the image's folder.
    image
        Image file.
    labels
        Label file, or one mask file for each object.
    page
        Page of the image that the labels belong to; None if they belong to all pages.
    series
        Name of the recording that the image is a frame of; empty if it is an image of its own.
    field
        Mask of the field of view, outside of which pixels count in no loss and no score; None if there is none.
    """

    name: str
    image: Path
    labels: Path | tuple[Path, ...]
    page: int | None = None
    series: str = ""
    field: Path | None = None


@dataclass(frozen=True, kw_only=True)
class FolderLayout:
    """Files of a folder, paired as its layout says.

    Attributes
    ----------
    name
        Name of the layout, printable.
    pairs
        Files that belong together.
    reasons
        Why each remaining file cannot be paired: a clause for each path.
    settings
        Settings of the section ``data`` that the layout states, such as the names of the classes.
    """

    name: str
    pairs: Sequence[FilePair]
    reasons: Mapping[Path, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def pair_lists(
    data: Path, images: Sequence[Path], labels: Sequence[Path], notes: PairingNotes
) -> tuple[list[FilePair], dict[Path, str]]:
    """Pair images with label files by their names.

    Returns
    -------
    pairs, reasons
        Files that belong together, and why each remaining file cannot be paired.
    """
    matches, reasons = match_files(images, labels, notes.lines)
    _note_absent_images([path for path in reasons if is_inside_file(path)], reasons, notes)
    reasons = {path: "the link leads to no file" if is_broken_link(path) else text for path, text in reasons.items()}
    stems = [get_stem(image) for image, _ in matches]
    if len(set(stems)) < len(stems):
        stems = ["_".join([*_make_relative(image, data).parent.parts, get_stem(image)]) for image, _ in matches]
    pairs = [
        FilePair(name=stem, image=image, labels=label) for stem, (image, label) in zip(stems, matches, strict=True)
    ]
    return pairs, reasons


def _note_absent_images(paths: Sequence[Path], reasons: dict[Path, str], notes: PairingNotes) -> None:
    """Warn of images that a file of outlines describes but that are not there, instead of giving them as reasons."""
    absent: Counter[Path] = Counter()
    for path in paths:
        if reasons[path] == LABELS_WITHOUT_IMAGE:
            del reasons[path]
            absent[get_file(path)] += 1
    for file, count in absent.items():
        text = "images that the file describes are not in the dataset ({} of them)"
        notes.notices.add(file, text, "Check that no image is missing", warning=True, amount=count)


def _make_relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path.relative_to(path.anchor)
