"""Label files of every kind: images of labels, and outlines that another program drew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from septa.errors import InputError
from septa.images import MAX_PIXELS, RawLabels, read_labels
from septa.labels.outlines import is_outlines, read_outlines
from septa.notices import Notices


def read_label_file(
    path: Path,
    page: int = 0,
    *,
    max_pixels: int = MAX_PIXELS,
    threshold: float | None = None,
    notices: Notices | None = None,
    find_size: Callable[[], tuple[int, int]] | None = None,
) -> RawLabels:
    """Read one page of a label file.

    Parameters
    ----------
    path
        Image of labels, as for `septa.images.read_labels`, or outlines, as for `septa.labels.read_outlines`.
    page, max_pixels, threshold, notices
        See `septa.images.read_labels`.
    find_size
        See `septa.labels.read_outlines`.

    Raises
    ------
    InputError
        As for both; also if outlines should be read from another page than the first, or with a threshold.
    """
    if not is_outlines(path):
        return read_labels(path, page, max_pixels=max_pixels, threshold=threshold, notices=notices)
    if threshold is not None:
        raise InputError(path, "the labels are outlines, but data.threshold needs grey values", "Leave it out")
    if page:
        raise InputError(path, "the labels are outlines of a single page", "Save each page of the image as a file")
    return read_outlines(path, find_size, max_pixels=max_pixels, notices=notices)
