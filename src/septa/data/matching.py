"""Matching of image and label files by their names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from septa.images import find_image_stem
from septa.labels import LABEL_END

_IMAGE_END = re.compile(r"(?:^|[-_. ])(?:volume|images?|img|raw)$", re.IGNORECASE)

LABELS_WITHOUT_IMAGE = "the labels have no image"
"""Reason for labels that match no image."""

Matches = list[tuple[Path, Path]]
"""Image file and label file of each match."""


def get_stem(path: Path) -> str:
    """Return the name of an image, as `septa.images.find_image_stem` does, in Unicode form NFC.

    File systems and archives write an accented letter as one character or as two, so that equal names may differ.
    """
    return normalize("NFC", find_image_stem(path))


def match_files(images: Sequence[Path], labels: Sequence[Path], notes: list[str]) -> tuple[Matches, dict[Path, str]]:
    """Match images with labels by equal stems, else without regard to case, else by the varying part of their names.

    Parameters
    ----------
    images, labels
        Files; stems may end in a word such as ``_image`` or ``_mask``.
    notes
        List that a line is appended to if case is ignored or the varying part decides.

    Returns
    -------
    matches, reasons
        Image file and label file of each match, and for every other file a clause that says why it has no match.

    Examples
    --------
    >>> matches, reasons = match_files([Path("a.png"), Path("b.png")], [Path("a_mask.png")], [])
    >>> [(image.name, label.name) for image, label in matches]
    [('a.png', 'a_mask.png')]
    >>> {path.name: reason for path, reason in reasons.items()}
    {'b.png': 'the image has no labels'}
    """
    matches, reasons = _match_keys(images, labels, *_make_stem_keys(images, labels))
    if reasons:
        folded, unmatched = _match_keys(images, labels, *_make_stem_keys(images, labels, fold_case=True))
        more = [match for match in folded if match not in matches]
        if more and set(matches) <= set(folded):
            image, label = more[0]
            notes.append(f"pairing: without regard to case, such as {image.name} with {label.name}")
            matches, reasons = folded, unmatched
    if reasons and len(images) > 1 and labels:
        varying, unmatched = _match_keys(images, labels, _extract_varying(images), _extract_varying(labels))
        if not unmatched and set(matches) <= set(varying):
            image, label = varying[0]
            notes.append(f"pairing: by the varying part of the names, such as {image.name} with {label.name}")
            return varying, {}
    return matches, reasons


def _make_stem_keys(
    images: Sequence[Path], labels: Sequence[Path], *, fold_case: bool = False
) -> tuple[dict[Path, str], dict[Path, str]]:
    """Return keys that are equal for an image and its labels: stems, where needed without a known ending."""

    def make_key(path: Path) -> str:
        return get_stem(path).casefold() if fold_case else get_stem(path)

    image_keys = {path: make_key(path) for path in images}
    stems = set(image_keys.values())
    label_keys = {}
    for path in labels:
        stem = make_key(path)
        label_keys[path] = stem if stem in stems else LABEL_END.sub("", stem)
    known = set(label_keys.values())
    for path, stem in image_keys.items():
        bare = _IMAGE_END.sub("", stem)
        if stem not in known and bare in known:
            image_keys[path] = bare
    return image_keys, label_keys


def _extract_varying(files: Sequence[Path]) -> dict[Path, str]:
    """Return the middle of each path without its suffix: the part between the common start and the common end."""
    texts = [normalize("NFC", str(path.parent / get_stem(path))) for path in files]
    # A number is compared whole: the tens that all files share must not be dropped.
    start = len(texts[0][: _count_common(texts)].rstrip("0123456789"))
    rest = [text[start:] for text in texts]
    shared = rest[0][len(rest[0]) - _count_common([text[::-1] for text in rest]) :]
    end = len(shared.lstrip("0123456789"))
    return {path: text[: len(text) - end] for path, text in zip(files, rest, strict=True)}


def _count_common(texts: Sequence[str]) -> int:
    """Count the characters that all texts start with."""
    # Texts between the first and the last in sorted order share whatever these two share.
    first, last = min(texts), max(texts)
    return next((k for k, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))


def _match_keys(
    images: Sequence[Path], labels: Sequence[Path], image_keys: Mapping[Path, str], label_keys: Mapping[Path, str]
) -> tuple[Matches, dict[Path, str]]:
    """Pair files of equal keys, and give the reason for every file that cannot be paired."""
    by_key: dict[str, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for side, files, keys in ((0, images, image_keys), (1, labels, label_keys)):
        for path in files:
            by_key[keys[path]][side].append(path)
    matches: Matches = []
    reasons: dict[Path, str] = {}
    for key_images, key_labels in by_key.values():
        if len(key_images) == 1 and len(key_labels) == 1:
            matches.append((key_images[0], key_labels[0]))
        else:
            reasons |= dict.fromkeys(key_images, _explain_image(len(key_images), len(key_labels)))
            reasons |= dict.fromkeys(key_labels, _explain_labels(len(key_images), len(key_labels)))
    return matches, reasons


def _explain_image(images: int, labels: int) -> str:
    """Explain why an image is not paired that shares its key with some images and label files."""
    if not labels:
        return "the image has no labels"
    if labels > 1:
        return f"{labels} label files match this image"
    return f"{images} images match its label file"


def _explain_labels(images: int, labels: int) -> str:
    """Explain why a label file is not paired that shares its key with some images and label files."""
    if not images:
        return LABELS_WITHOUT_IMAGE
    if images > 1:
        return f"{images} images match this label file"
    return f"{labels} label files match its image"
