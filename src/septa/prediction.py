"""The prediction workflow: image files to label files, one after the other, continuing after files that fail.

The file is long because the workflow stands in one file, from top to bottom: the options and results, the files to
segment, the loop over files, the three steps of a page (read, run the net, write), and what is written.
"""

from __future__ import annotations

import glob
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, ResourceError, SeptaError
from septa.images import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    ImageInfo,
    draw_overlay,
    encode_png,
    read_image,
    read_info,
    write_bytes,
    write_image,
    write_labels,
    write_probabilities,
)
from septa.inference import Engine, compute_overhead, largest_difference, smallest_tile_for
from septa.labels import find_class_folders
from septa.model import Model, PredictionOptions
from septa.notices import Notices
from septa.objects import ObjectFiles, ObjectOptions
from septa.prefetch import map_in_background, prefetch_items
from septa.runtime import find_memory_limit

OVERLAYS = "overlays"
"""Folder for pictures inside the output."""
PROBABILITIES = "probabilities"
"""Folder for probabilities inside the output."""
CLASSES = "classes"
"""Folder for the classes of objects inside the output."""
EXACT = 1e-5
"""Largest difference of logits between tiles and whole image that ``certify`` accepts."""
_PNG_IDS = 65_535
"""Largest object id in a PNG file."""
_SHARE = 1 / 32
"""Share of the memory up to which the pixels and logits of a page are small.

Pages of several images are in memory at once, and finding objects takes several times as much.
"""


# Options and results -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `segment_files`.

    Attributes
    ----------
    output
        Folder of the label files.
    suffix
        Suffix of the label files, ``.png`` or ``.tif``; chosen for each image if None.
    probabilities
        If True, the probabilities of the classes are written too.
    overlay
        If True, a picture with the labels laid over the image is written too.
    certify
        If True, each image is also computed as a whole, and an error is raised if its logits differ by more than
        `EXACT`.
    tile, device, tta, engine
        See `septa.model.PredictionOptions`.
    max_pixels
        Largest image that is decoded, pixels.
    objects
        Files of objects.
    """

    output: Path
    suffix: str | None = None
    probabilities: bool = False
    overlay: bool = False
    certify: bool = False
    tile: int | None = None
    device: str = "auto"
    tta: int | None = None
    max_pixels: int = MAX_PIXELS
    objects: ObjectOptions = field(default_factory=ObjectOptions)
    engine: str | None = None


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
    """

    path: Path
    labels: Path
    megapixels: float
    tiles: int
    overhead: float
    exact: bool
    padding: tuple[int, int]
    difference: float | None


@dataclass(frozen=True)
class FailedFile:
    """An image file that could not be segmented, and the error."""

    path: Path
    error: SeptaError


# The workflow --------------------------------------------------------------------------------------------------------


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Find the image files that some arguments name.

    Parameters
    ----------
    inputs
        Files, folders (without their subfolders), and globs.

    Returns
    -------
    list of Path
        Files in the order of the arguments, each once.

    Raises
    ------
    InputError
        An argument names no file, or two files would have label files of one name.
    """
    found: list[Path] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            images = [file for file in sorted(path.iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES]
            files = [file for file in images if file.is_file() and not file.name.startswith(".")]
        elif path.exists():
            files = [path]
        else:
            files = [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 - may be absolute
        if not files:
            problem = "the folder contains no images" if path.is_dir() else "the file does not exist"
            raise InputError(text, problem, "Give image files, a folder of images, or a glob in quotes")
        found += files
    unique = list(dict.fromkeys(found))
    stems: dict[str, Path] = {}
    for path in unique:
        other = stems.setdefault(_stem(path), path)
        if other != path:
            problem = f"its label file would have the same name as that of {other}"
            raise InputError(path, problem, "Segment them into two folders")
    return unique


def segment_files(
    model: Model, paths: Sequence[Path], options: Options, notices: Notices | None = None
) -> Iterator[SegmentedFile | FailedFile]:
    """Segment image files and write their label files.

    While the net computes one page, a thread reads the next page, and another thread writes the results of the last
    page. An image that is large for the memory is segmented alone. If memory is exhausted, the image is segmented
    again, alone.

    Parameters
    ----------
    model
        Model that segments.
    paths
        Image files; see `find_images`.
    options
        Output and options.
    notices
        Receives what is assumed or suspected about the images; complete after the last result.

    Yields
    ------
    SegmentedFile or FailedFile
        Result of each file, in the order of the files.

    Raises
    ------
    InputError
        The options fit no image; nothing has been read then. Or the engine fails.
    ResourceError
        The disk is full.
    """
    _check_options(model, options)
    files = ObjectFiles(options.objects, options.output, model.labels.class_names)
    engine = model.engine(options.device, options.engine)
    pipeline = _Pipeline(model, options, files, engine, notices=Notices() if notices is None else notices)
    remaining = deque(paths)
    while remaining:
        with closing(pipeline.segment_overlapped(tuple(remaining))) as results:
            for result in results:
                if isinstance(result, FailedFile) and isinstance(result.error, ResourceError):
                    break  # closing the pipeline frees the memory of all other pages
                remaining.popleft()
                yield result
        if remaining:
            yield pipeline.segment_alone(remaining.popleft())
    files.finish()


def _check_options(model: Model, options: Options) -> None:
    model.check_tile(options.tile)
    if model.task.multilabel and options.suffix == ".png":
        problem = "a PNG file cannot hold classes that overlap, because each class needs a plane"
        raise InputError("--format png", problem, "Leave the option out, or give --format tif")
    if options.objects.wanted and not model.task.finds_objects:
        problem = "--table, --geojson, --coco, --rois and --min-confidence need a model that finds objects"
        raise InputError("", problem, "Leave them out, or give a model that was trained with --task instances")
    if model.labels.object_classes > 1 and options.output.is_dir() and find_class_folders(options.output):
        problem = f"the folder holds labelled data, whose {CLASSES}/ would be overwritten"
        raise InputError(options.output, problem, "Give another folder with -o")


class _FileState(Enum):
    """State of an image file in the pipeline."""

    OPEN = auto()
    WRITTEN = auto()
    FAILED = auto()


@dataclass
class _ImageFile:
    """An image file in the pipeline, and what will be written when its last page is done."""

    path: Path
    state: _FileState = _FileState.OPEN
    labels: list[NDArray[Any]] = field(default_factory=list)
    classes: list[NDArray[Any]] = field(default_factory=list)
    difference: float | None = None


@dataclass(frozen=True)
class _ReadPage:
    """A page that was read; ``image_cyx`` has the model's channels."""

    file: _ImageFile
    info: ImageInfo
    number: int
    image_cyx: NDArray[Any]

    @property
    def name(self) -> str:
        """Stem of the files that are written for this page alone."""
        stem = _stem(self.info.path)
        return stem if self.info.pages == 1 else f"{stem}_{self.number:04d}"


@dataclass(frozen=True)
class _ComputedPage:
    """A page that the net has computed: its logits, or its labels if the logits are not needed."""

    page: _ReadPage
    logits_kyx: NDArray[np.float32] | None = None
    labels_yx: NDArray[np.int32] | None = None

    @property
    def file(self) -> _ImageFile:
        return self.page.file


@dataclass(frozen=True)
class _FailedPage:
    """An error that ends the work on a file."""

    file: _ImageFile
    error: SeptaError | MemoryError

    def close_file(self) -> FailedFile:
        """Return the result of the file, with an error that holds no arrays."""
        self.file.state = _FileState.FAILED
        error = self.error
        if isinstance(error, MemoryError):
            problem = "the image does not fit into memory"
            error = ResourceError(self.file.path, problem, "Segment it on a machine with more memory")
        for one in (self.error, error):  # frames of the traceback and of causes refer to arrays
            one.__traceback__ = one.__cause__ = one.__context__ = None
        return FailedFile(self.file.path, error)


@dataclass(frozen=True)
class _Pipeline:
    """The three steps of a page: `read_pages`, `run_net` and `write_page`.

    Each step can run in a thread of its own, on one page after the other. An error in a step becomes a `_FailedPage`,
    which passes the later steps, so that results have the order of the pages.
    """

    model: Model
    options: Options
    files: ObjectFiles
    engine: Engine
    notices: Notices = field(default_factory=Notices)

    def segment_overlapped(self, paths: Sequence[Path]) -> Generator[SegmentedFile | FailedFile, None, None]:
        """Segment files with the steps of successive pages in parallel.

        The last result has a ResourceError if the memory does not hold several pages at once.
        """
        with (
            closing(prefetch_items(self.read_pages(paths))) as pages,
            closing(map_in_background(self.write_page, map(self.run_net, pages))) as results,
        ):
            yield from (result for result in results if result is not None)

    def segment_alone(self, path: Path) -> SegmentedFile | FailedFile:
        """Segment a file with nothing else in memory."""
        results = map(self.write_page, map(self.run_net, self.read_pages([path], alone=True)))
        return next(result for result in results if result is not None)

    # Step 1

    def read_pages(self, paths: Sequence[Path], *, alone: bool = False) -> Iterator[_ReadPage | _FailedPage]:
        """Read the pages of files.

        It ends at a page that does not fit into memory or, unless ``alone``, takes a large share of the memory.
        """
        for path in paths:
            file = _ImageFile(path)
            try:
                info = read_info(path, max_pixels=self.options.max_pixels)
                _check_target(info.path, _target(info, self.options, self.model.task.multilabel))
                if not alone and self._is_large(info):
                    raise MemoryError
                for number in range(info.pages):
                    if file.state is _FileState.FAILED:
                        break
                    image_cyx = read_image(path, number, max_pixels=self.options.max_pixels)
                    yield _ReadPage(file, info, number, self.model.as_model_input(image_cyx, path))
            except (ResourceError, MemoryError) as error:
                yield _FailedPage(file, error)
                return
            except SeptaError as error:
                yield _FailedPage(file, error)

    def _is_large(self, info: ImageInfo) -> bool:
        bytes_per_pixel = info.channels * info.dtype.itemsize + 4 * self.model.net.out_channels
        return info.height * info.width * bytes_per_pixel > _SHARE * find_memory_limit()

    # Step 2

    def run_net(self, page: _ReadPage | _FailedPage) -> _ReadPage | _ComputedPage | _FailedPage:
        """Compute the labels or the logits of a page; a page of a failed file is returned unchanged.

        Errors of the engine and of the model are raised, because they would occur with each file.
        """
        if isinstance(page, _FailedPage) or page.file.state is _FileState.FAILED:
            return page
        try:
            return self._compute(page)
        except (SeptaError, MemoryError) as error:
            if isinstance(error, SeptaError) and error.where.startswith(("--engine", "model")):
                raise
            return _FailedPage(page.file, error)

    def _compute(self, page: _ReadPage) -> _ComputedPage:
        options = PredictionOptions(tile=self.options.tile, tta=self.options.tta, engine=self.engine)
        if self.model.task.tilewise and not (self.options.probabilities or self.options.certify):
            return _ComputedPage(page, labels_yx=self.model.compute_labels(page.image_cyx, options))
        logits_kyx = self.model.compute_logits(page.image_cyx, options)
        if self.options.certify:
            self._certify(page, logits_kyx, options)
        return _ComputedPage(page, logits_kyx=logits_kyx)

    def _certify(self, page: _ReadPage, logits_kyx: NDArray[np.float32], options: PredictionOptions) -> None:
        """Compare logits with those of the whole image, and raise InputError if they differ by more than `EXACT`."""
        whole = max(self.model.recipe.data.resize or page.image_cyx.shape[1:]) + smallest_tile_for(self.model.net)
        expected_kyx = self.model.compute_logits(page.image_cyx, replace(options, tile=whole))
        difference = largest_difference(expected_kyx, logits_kyx)
        page.file.difference = max(page.file.difference or 0.0, difference)
        if difference > EXACT:
            problem = f"tiles differ from the whole image by {difference:.3g}, more than {EXACT:g}"
            remedy = "Give a --tile as large as the image; only the norms batch and none make tiles exact"
            raise InputError(page.file.path, problem, remedy)

    # Step 3

    def write_page(self, page: _ReadPage | _ComputedPage | _FailedPage) -> SegmentedFile | FailedFile | None:
        """Write the files of a page, and return the result of its file at the last page or when it fails."""
        file = page.file
        if file.state is _FileState.FAILED:
            return None
        if isinstance(page, _ComputedPage):
            try:
                return self._write(page)
            except ResourceError:  # a full disk concerns all other files too
                raise
            except (SeptaError, MemoryError) as error:
                page = _FailedPage(file, error)
        assert isinstance(page, _FailedPage)
        return page.close_file()

    def _write(self, computed: _ComputedPage) -> SegmentedFile | None:
        task = self.model.task
        page = computed.page
        logits_kyx = computed.logits_kyx
        if page.number == 0:
            self.files.begin(page.file.path.name)
        labels_yx = computed.labels_yx
        if labels_yx is None:
            assert logits_kyx is not None
            labels_yx = task.decode(logits_kyx)
        class_of_id = None if logits_kyx is None else task.classify(labels_yx, logits_kyx)
        if logits_kyx is not None and self.options.objects.wanted:
            foreground_yx = task.probabilities(logits_kyx)[1]
            class_yx = None if class_of_id is None else class_of_id[labels_yx]
            labels_yx = self.files.add(
                page.name, labels_yx, page.image_cyx, foreground_yx, page.info.pixel_size_um, class_yx
            )
        page.file.labels.append(self.model.as_written(labels_yx))
        if class_of_id is not None:
            page.file.classes.append(self.model.labels.raw_values[class_of_id[labels_yx]])
        self._write_extras(page, labels_yx, logits_kyx)
        return self._close_file(page.file, page.info) if page.number + 1 == page.info.pages else None

    def _write_extras(
        self, page: _ReadPage, labels_yx: NDArray[np.int32], logits_kyx: NDArray[np.float32] | None
    ) -> None:
        output = self.options.output
        if self.options.probabilities and logits_kyx is not None:
            probabilities_kyx = self.model.task.probabilities(logits_kyx)
            target = output / PROBABILITIES / f"{page.name}.tif"
            write_probabilities(target, probabilities_kyx, pixel_size_um=page.info.pixel_size_um)
        if self.options.overlay:
            picture_yxs = _draw_labels(self.model, page.image_cyx, labels_yx)
            write_bytes(output / OVERLAYS / f"{page.name}.png", encode_png(picture_yxs))

    def _close_file(self, file: _ImageFile, info: ImageInfo) -> SegmentedFile:
        """Write the labels of all pages of a file."""
        target = _write_labels(file.labels, info, self.options)
        if file.classes:
            classes = self.options.output / CLASSES / target.name
            write_labels(classes, _stack(file.classes), pixel_size_um=info.pixel_size_um)
        self.files.commit(target)
        file.state = _FileState.WRITTEN
        tiles = self.model.plan(info.height, info.width, self.options.tile)
        return SegmentedFile(
            path=file.path,
            labels=target,
            megapixels=info.pages * info.height * info.width / 1e6,
            tiles=len(tiles),
            overhead=compute_overhead(tiles),
            exact=self.model.net.exact_tiles,
            padding=_compute_padding(self.model, info.height, info.width),
            difference=file.difference,
        )


# What is written -----------------------------------------------------------------------------------------------------


def _target(info: ImageInfo, options: Options, multilabel: bool) -> Path:
    stacked = multilabel or info.pages > 1 or info.format == "tiff"
    return options.output / f"{_stem(info.path)}{options.suffix or ('.tif' if stacked else '.png')}"


def _check_target(path: Path, target: Path) -> None:
    if target.exists() and target.samefile(path):
        raise InputError(path, "its label file would overwrite it", "Give another folder with -o")


def _write_labels(pages: list[NDArray[Any]], info: ImageInfo, options: Options) -> Path:
    """Write the labels of all pages: one stack, or for overlapping classes one file of planes for each page."""
    overlapping = pages[0].ndim == 3
    target = _target(info, options, overlapping)
    if overlapping:
        for number, planes_kyx in enumerate(pages):
            file = target if len(pages) == 1 else target.with_stem(f"{target.stem}_{number:04d}")
            write_image(file, planes_kyx, pixel_size_um=info.pixel_size_um)
        return file
    if options.suffix is None and max(int(page.max(initial=0)) for page in pages) > _PNG_IDS:
        target = target.with_suffix(".tif")
    write_labels(target, _stack(pages), pixel_size_um=info.pixel_size_um)
    return target


def _stack(pages: list[NDArray[Any]]) -> NDArray[Any]:
    return pages[0] if len(pages) == 1 else np.stack(pages)


def _compute_padding(model: Model, height: int, width: int) -> tuple[int, int]:
    """Return the number of rows and columns that a padded net adds; a valid net adds none."""
    height, width = model.recipe.data.resize or (height, width)
    padded = (height, width) if model.net.margin else model.net.pad_size(height, width)
    return padded[0] - height, padded[1] - width


def _draw_labels(model: Model, image_cyx: NDArray[Any], labels_yx: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Draw labels over an image; classes that overlap are drawn one over the other, each in its own colour."""
    if not model.task.multilabel:
        return draw_overlay(image_cyx, labels_yx)
    for bit in range(model.labels.classes):
        picture_yxs = draw_overlay(image_cyx, (labels_yx >> bit & 1) * (bit + 1))
        image_cyx = np.moveaxis(picture_yxs, -1, 0)
    return picture_yxs


def _stem(path: Path) -> str:
    return path.stem.removesuffix(".ome")
