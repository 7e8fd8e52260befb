"""The options of a prediction, and its results."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from septa.errors import SeptaError
from septa.images import MAX_PIXELS
from septa.objects import ObjectOptions

EXACT = 1e-5
"""Largest difference of logits between tiles and whole image that ``certify`` accepts."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `segment_files`.

    Attributes
    ----------
    output
        Folder of the label files.
    name
        Stem of the files of a single image; that of the image if None.
    suffix
        Suffix of the label files, ``.png`` or ``.tif``; chosen for each image if None.
    overwrite
        If True, files that septa did not write from the same images are replaced.
    probabilities
        If True, the probabilities of the classes are written too.
    overlay
        If True, a picture with the labels laid over the image is written too.
    certify
        If True, each image is also computed as a whole, and an error is raised if its logits differ by more than
        `EXACT`.
    tile, device, tta, engine, precision
        See `septa.model.PredictionOptions`.
    max_pixels
        Largest image that is decoded, pixels.
    objects
        Files of objects.
    link
        If True, objects that overlap on successive pages of a stack have the same id; see `septa.objects.link_labels`.
    """

    output: Path
    name: str | None = None
    suffix: str | None = None
    overwrite: bool = False
    probabilities: bool = False
    overlay: bool = False
    certify: bool = False
    tile: int | None = None
    device: str = "auto"
    tta: int | None = None
    max_pixels: int = MAX_PIXELS
    objects: ObjectOptions = field(default_factory=ObjectOptions)
    link: bool = False
    engine: str | None = None
    precision: str | None = None


@dataclass(frozen=True, kw_only=True)
class SegmentedFile:
    """An image file that was segmented.

    Attributes
    ----------
    path
        Image file.
    labels
        Label file.
    megapixels
        Size of all pages.
    tiles
        Number of tiles of a page.
    overhead
        Number of pixels computed for each pixel kept.
    exact
        True if tiles equal the whole image by the design of the net.
    padding
        Number of rows and columns by which the net pads a page.
    difference
        Largest difference of logits between tiles and whole image, if ``certify`` was set.
    linked
        Number of objects of a stack whose pages were linked.
    """

    path: Path
    labels: Path
    megapixels: float
    tiles: int
    overhead: float
    exact: bool
    padding: tuple[int, int]
    difference: float | None
    linked: int | None = None


@dataclass(frozen=True)
class FailedFile:
    """An image file that could not be segmented, and the error."""

    path: Path
    error: SeptaError
