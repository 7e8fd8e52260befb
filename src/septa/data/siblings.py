"""Folders beside those of images and labels that may hold the labels too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from glob import escape
from pathlib import Path

import numpy as np

from septa.data.listing import list_folder_images
from septa.data.matching import match_files
from septa.errors import InputError
from septa.images import read_image

_PROBED = 3
"""Number of images of a folder that are read to see whether they are labels."""
_PROBED_PIXELS = 1 << 28
_FLAT_SHARE = 0.5
"""Share of the pixels outside the background whose right neighbour has the same value, from which an image is labels.
Drawn areas reach 0.8 even if they are lines of a few pixels; noise keeps photographs below 0.2."""


def find_partners(
    images: Sequence[Path],
    folders: Sequence[Path],
    least: int = 1,
    list_files: Callable[[Path], list[Path]] = list_folder_images,
) -> dict[Path, int]:
    """Find the folders whose files match given images by name.

    Parameters
    ----------
    images
        Image files.
    folders
        Folders to search.
    least
        Smallest number of matches.
    list_files
        Function that lists the files of a folder.

    Returns
    -------
    dict of Path to int
        Number of matches of each folder that has enough.
    """
    found = {}
    for folder in folders:
        matches = len(match_files(images, list_files(folder), [])[0])
        if matches >= max(least, 1):
            found[folder] = matches
    return found


def look_like_labels(folder: Path) -> bool:
    """Return False if the images of a folder have the texture of photographs; True if nothing speaks against labels.

    Blank images and unreadable ones are no evidence.
    """
    shares = [
        share for path in list_folder_images(folder)[:_PROBED] for share in [_measure_flat_share(path)] if share >= 0
    ]
    return not shares or float(np.median(shares)) >= _FLAT_SHARE


def _measure_flat_share(path: Path) -> float:
    """Return the share of the pixels outside the background that equal their right neighbour; -1 if there are none."""
    try:
        image_cyx = read_image(path, max_pixels=_PROBED_PIXELS)
    except InputError:
        return -1.0
    values, counts = np.unique(image_cyx[0], return_counts=True)
    outside_yx = image_cyx[0, :, :-1] != values[counts.argmax()]
    same_yx = (image_cyx[:, :, 1:] == image_cyx[:, :, :-1]).all(axis=0)
    return float(same_yx[outside_yx].mean()) if outside_yx.any() else -1.0


def suggest_patterns(images: Path, labels: Path) -> str:
    """Return the options that name the files of two folders of a dataset, relative to it."""
    return f"--images '{escape(images.name)}/*' --labels '{escape(labels.name)}/*'"
