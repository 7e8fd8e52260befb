"""Pages of image and label files: which page of one belongs to which page of the other, and reading one of them."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from septa.errors import InputError, format_count
from septa.images import (
    MAX_PIXELS,
    RawLabels,
    apply_threshold,
    is_zarr,
    make_raw_labels,
    open_source,
    read_image,
    read_info,
)
from septa.labels import is_outlines, read_label_file
from septa.notices import Notices

_NAMELESS = "IQ"
"""Axes without a meaning, as tifffile names them."""


class PageAxes(NamedTuple):
    """Axes that count the pages of a file.

    Attributes
    ----------
    axes
        A letter for each axis of more than one page, the slowest first, such as ``TZ``; ``I`` and ``Q`` have no
        meaning.
    shape
        Size of each axis.
    """

    axes: str
    shape: tuple[int, ...]

    @property
    def pages(self) -> int:
        """Number of pages."""
        return math.prod(self.shape)

    @property
    def nameless(self) -> bool:
        """True if an axis has no meaning."""
        return any(axis in _NAMELESS for axis in self.axes)

    def __str__(self) -> str:
        """Return the sizes for a message, such as ``12 pages (T 4, Z 3)``."""
        pages = format_count(self.pages, "page")
        if not self.axes or (self.nameless and len(self.axes) == 1):
            return pages
        named = (f"{'?' if axis in _NAMELESS else axis} {size}" for axis, size in zip(self.axes, self.shape))
        return f"{pages} ({', '.join(named)})"


def read_page_axes(path: Path, max_pixels: int = MAX_PIXELS) -> PageAxes:
    """Read the axes that count the pages of an image file or of a zarr store.

    Raises
    ------
    InputError
        As for `septa.images.read_info` and `septa.images.open_source`; or if a store holds several images.
    """
    if is_outlines(path):
        return PageAxes("", ())
    if not is_zarr(path):
        info = read_info(path, max_pixels=max_pixels)
        # A reader that counts pages without stating their axes counts along one axis.
        stated = info.page_shape if math.prod(info.page_shape) == info.pages else (info.pages,)
        return PageAxes(info.page_axes, stated) if stated == info.page_shape else PageAxes("I", stated)
    with open_source(path, max_pixels=max_pixels) as source:
        if source.images > 1:
            problem = f"the store holds {source.images} images"
            raise InputError(path, problem, "Save each image in a store or file of its own")
        sizes = [(axis, size) for axis, size in zip("TCZ", source.shape) if axis != "C" and size > 1]
        return PageAxes("".join(axis for axis, _ in sizes), tuple(size for _, size in sizes))


def match_pages(image: PageAxes, labels: PageAxes) -> tuple[npt.NDArray[np.int64] | None, str]:
    """Find the page of the labels that belongs to each page of the image.

    Parameters
    ----------
    image, labels
        Axes of the pages of both files, with equal numbers of pages.

    Returns
    -------
    pages
        Number of the labels' page for each page of the image, int64; None if the axes do not say which it is.
    assumption
        Clause that says how the pages are paired; empty if their axes are the same.

    Examples
    --------
    >>> match_pages(PageAxes("ZT", (2, 3)), PageAxes("TZ", (3, 2)))[0]
    array([0, 2, 4, 1, 3, 5])
    >>> match_pages(PageAxes("ZT", (2, 3)), PageAxes("ZT", (3, 2)))[0] is None
    True
    """
    numbers = np.arange(image.pages)
    if image == labels:
        return numbers, ""
    if not image.nameless and not labels.nameless:
        if sorted(image.axes) == sorted(labels.axes) and len(set(image.axes)) == len(image.axes):
            order = [labels.axes.index(axis) for axis in image.axes]
            by_axes = numbers.reshape(labels.shape).transpose(order)
            if by_axes.shape != image.shape:
                return None, ""
            return (
                by_axes.ravel(),
                f"pages are paired by their axes, {image.axes} here and {labels.axes} in the labels",
            )
        if len(image.axes) == len(labels.axes) == 1:
            assumed = f"the image counts its pages along {image.axes} and the labels along {labels.axes}"
            return numbers, f"{assumed}; septa takes both for the same axis"
        return None, ""
    if image.shape == labels.shape:
        return numbers, ""
    if 1 in (len(image.shape), len(labels.shape)):
        axes, flat = (image, "labels") if len(labels.shape) == 1 else (labels, "image")
        if axes.nameless:
            return numbers, "neither file names the axes of its pages; septa pairs them in their order in the files"
        return numbers, f"the pages of the {flat} have no named axes; septa takes them in the order {axes.axes}"
    return None, ""


def read_image_page(
    path: Path, page: int, max_pixels: int, channels: int | None = None, notices: Notices | None = None
) -> npt.NDArray[Any]:
    """Read a page of an image file or of a zarr store, ``CYX``; see `septa.images.read_image`."""
    if is_zarr(path):
        return _read_store(path, page, max_pixels)
    return read_image(path, page, channels=channels, max_pixels=max_pixels, notices=notices)


def read_label_page(
    path: Path,
    page: int,
    max_pixels: int,
    threshold: float | None,
    notices: Notices | None = None,
    image: Path | None = None,
) -> RawLabels:
    """Read a page of a label file or of a zarr store; see `septa.labels.read_label_file`.

    Outlines that state no size take that of ``image``.
    """
    if not is_zarr(path):
        find_size = None if image is None else partial(read_page_size, image, max_pixels)
        return read_label_file(
            path, page, max_pixels=max_pixels, threshold=threshold, notices=notices, find_size=find_size
        )
    array_cyx = _read_store(path, page, max_pixels)
    if threshold is not None:
        return apply_threshold(path, array_cyx, threshold)
    return make_raw_labels(path, array_cyx, rgb=False)


def read_page_size(path: Path, max_pixels: int) -> tuple[int, int]:
    """Read height and width of the pages of an image file or of a zarr store."""
    if not is_zarr(path):
        info = read_info(path, max_pixels=max_pixels)
        return info.height, info.width
    with open_source(path, max_pixels=max_pixels) as source:
        height, width = source.shape[-2:]
        return height, width


def _read_store(path: Path, page: int, max_pixels: int) -> npt.NDArray[Any]:
    with open_source(path, max_pixels=max_pixels) as source:
        times, _, depth, height, width = source.shape
        if height * width > max_pixels:
            problem = f"{height} x {width} pixels are more than the limit of {max_pixels} pixels"
            raise InputError(
                path, problem, f"If you trust the file, raise the limit with --max-pixels {height * width}"
            )
        if not 0 <= page < times * depth:
            problem = f"there is no page {page}: the store has pages 0 to {times * depth - 1}"
            raise InputError(path, problem, "Choose one of these pages")
        return source.read((0, height), (0, width), t=page // depth, z=page % depth)
