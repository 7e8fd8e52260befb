"""The number of channels that a dataset expects of its images, where files call one of them alpha."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from septa.data.pages import read_image_page
from septa.data.pairs import Pair
from septa.errors import SeptaError
from septa.images import is_zarr, read_info


def find_expected_channels(pairs: Sequence[Pair], channels: int | None) -> int | None:
    """Return the number of channels to expect of each image; None if files call no channel alpha.

    A channel that the files call alpha is data if all images have it and it varies within most of them. Otherwise it is
    dropped.

    Parameters
    ----------
    pairs
        Pairs of the dataset.
    channels
        Setting ``data.channels``, which decides if it is given.
    """
    if channels is not None:
        return channels
    colors = set()
    for pair in pairs:
        if is_zarr(pair.image):
            return None
        try:
            info = read_info(pair.image, max_pixels=pair.max_pixels)
        except SeptaError:  # the check of the pair reports it
            continue
        if not info.alpha:
            return None
        colors.add(info.channels)
    if len(colors) != 1:
        return None
    (color,) = colors
    varied = sum(_varies(pair, color) for pair in pairs)
    return color + 1 if 2 * varied > len(pairs) else color


def holds_color(path: Path, max_pixels: int) -> bool:
    """Return True if an image file states that its first three channels are a colour."""
    return not is_zarr(path) and read_info(path, max_pixels=max_pixels).color


def _varies(pair: Pair, color: int) -> bool:
    try:
        alpha_yx = read_image_page(pair.image, pair.page, pair.max_pixels, color + 1)[-1]
    except SeptaError:
        return False
    return bool(alpha_yx.min() != alpha_yx.max())
