"""Images of several sources that show the same objects: the same picture, or overlapping parts of one field."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sources import Array

from septa.data.copies import find_near_duplicates
from septa.data.fingerprint import scan_image
from septa.images import resize_image

SIDE = 128
"""Side in pixels to which pictures are reduced before they are correlated."""

SAME = 0.95
"""Correlation from which on two pictures of the same size are the same."""


def find_shared_fields(images: Mapping[str, Array]) -> list[list[str]]:
    """Find sets of images that show the same objects, however one is exposed, turned or cropped."""
    found = find_near_duplicates([scan_image(name, image_cyx, None, classes=1) for name, image_cyx in images.items()])
    parents = {name: min(names) for names in found for name in names}

    def find_root(name: str) -> str:
        parent = parents.setdefault(name, name)
        return name if parent == name else find_root(parent)

    for one, other in correlate(images):
        parents[find_root(other)] = find_root(one)
    sets: dict[str, list[str]] = {}
    for name in images:
        sets.setdefault(find_root(name), []).append(name)
    return [sorted(names) for names in sets.values() if len(names) > 1]


def correlate(images: Mapping[str, Array]) -> dict[tuple[str, str], float]:
    """Find the pairs of images of equal size that are the same picture, with their normalised correlation."""
    sizes: dict[tuple[int, ...], list[str]] = {}
    for name, image_cyx in images.items():
        sizes.setdefault(image_cyx.shape[1:], []).append(name)
    found = {}
    for names in sizes.values():
        vectors = np.stack([_standardise(images[name]) for name in names])
        correlation = np.triu(vectors @ vectors.T / vectors.shape[1], 1)
        for one, other in np.argwhere(correlation > SAME):
            found[names[one], names[other]] = float(correlation[one, other])
    return found


def _standardise(image_cyx: Array) -> Array:
    grey_cyx = image_cyx.astype(np.float32).mean(0, keepdims=True)
    values = resize_image(grey_cyx, (SIDE, SIDE)).ravel()
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-6))
