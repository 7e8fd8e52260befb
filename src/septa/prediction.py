"""The prediction workflow: image files to label files, in their order, past those that fail."""

from __future__ import annotations

import glob
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.data import find_classes_folder
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
from septa.model import Model, PredictionOptions
from septa.objects import ObjectFiles, ObjectOptions
from septa.prefetch import map_in_background, prefetch_items
from septa.runtime import find_memory_limit

_PNG_IDS = 65_535
"""Largest object id that a PNG holds."""
OVERLAYS, PROBABILITIES, CLASSES = "overlays", "probabilities", "classes"
"""Folders inside the output for what is not labels."""
EXACT = 1e-5
"""Largest difference of logits between tiles and whole image that `certify` accepts."""
_SHARE = 1 / 32
"""Of the memory, for the pixels and logits of a page among others; finding objects takes several times as much."""


@dataclass(frozen=True)
class Options:
    """What is written for each image, and how.

    ``suffix`` is that of the label files, ``.png`` or ``.tif``; chosen for each image when None. ``certify`` also
    segments each image whole and compares.
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


@dataclass(frozen=True)
class Segmented:
    """One image done.

    ``overhead`` are pixels computed for each pixel kept, ``exact`` whether tiles equal the whole image by the net's
    design, ``padding`` the rows and columns that the net repeats, ``difference`` what `certify` measured.
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
class Failed:
    """One image that could not be segmented, and why."""

    path: Path
    error: SeptaError


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Files, folders (their images, not searched deeper) and globs as a list of files without repetition.

    Raises
    ------
    InputError
        An input names nothing, or two files would be written to labels of one name.
    """
    found: list[Path] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            inside = [
                file for file in sorted(path.iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
            ]
            files = [file for file in inside if not file.name.startswith(".")]
        else:
            files = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 - may be absolute
        if not files:
            what = "holds no images" if path.is_dir() else "does not exist"
            raise InputError(text, what, "give image files, a folder of images or a glob in quotes")
        found += files
    unique = list(dict.fromkeys(found))
    stems: dict[str, Path] = {}
    for path in unique:
        other = stems.setdefault(_stem(path), path)
        if other != path:
            raise InputError(path, f"would be written to the same label file as {other}", "segment them apart")
    return unique


def segment_files(model: Model, paths: Sequence[Path], options: Options) -> Iterator[Segmented | Failed]:
    """Segment each file and write its labels (with its stem and pixel size); a bad file is told and passed over.

    While the net is at one page, a thread reads the next one, and another writes what was found in the one before. An
    image that is large for the memory is done alone, and so again one for which the memory did not suffice.

    Raises
    ------
    InputError
        Before anything is read, where the options suit no file at all.
    ResourceError
        The disk is full.
    """
    model.plan(1, 1, options.tile)
    engine = model.engine(options.device, options.engine)
    if model.task.multilabel and options.suffix == ".png":
        problem = "cannot hold classes that overlap, one plane for each"
        raise InputError("--format png", problem, "leave it out, or give --format tif")
    if options.objects.wanted and not model.task.finds_objects:
        problem = "the model was not trained on objects"
        raise InputError("objects", problem, "leave --table, --geojson, --coco, --rois and --min-confidence out")
    if model.labels.object_classes > 1 and options.output.is_dir() and find_classes_folder(options.output):
        problem = f"holds labelled data, whose {CLASSES}/ would be overwritten"
        raise InputError(options.output, problem, "give another folder with -o")
    files = ObjectFiles(options.objects, options.output, model.labels.class_names)
    work, left = _Work(model, options, files, engine), deque(paths)
    while left:
        with closing(work.overlapped(tuple(left))) as results:
            for result in results:
                if isinstance(result, Failed) and isinstance(result.error, ResourceError):
                    break  # closing frees what else is in memory
                left.popleft()
                yield result
        if left:
            yield work.alone(left.popleft())
    files.finish()


@dataclass
class _File:
    """An image file and what is to be written of it so far; ``over`` where that is all, or it failed."""

    path: Path
    pages: list[NDArray[Any]] = field(default_factory=list)
    classes: list[NDArray[Any]] = field(default_factory=list)
    difference: float | None = None
    over: bool = False


@dataclass
class _Page:
    """One page of a file; the net gives it logits, or labels where nothing else is made of them."""

    file: _File
    info: ImageInfo
    number: int
    image_cyx: NDArray[Any]
    logits_kyx: NDArray[np.float32] | None = None
    labels_yx: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class _Broken:
    """A file that cannot be segmented any further."""

    file: _File
    error: SeptaError | MemoryError

    def told(self) -> Failed:
        path, error = self.file.path, self.error
        if isinstance(error, MemoryError):
            error = ResourceError(path, "does not fit into memory", "segment it on a larger machine")
        for one in (self.error, error):  # what these refer to holds arrays
            one.__traceback__ = one.__cause__ = one.__context__ = None
        return Failed(path, error)


@dataclass(frozen=True)
class _Work:
    """The three steps of a page, each of which one thread does for one page after the other: `read`, `score`, `label`.

    Only `label` tells what fails, in the order of the pages.
    """

    model: Model
    options: Options
    files: ObjectFiles
    engine: Engine

    def overlapped(self, paths: Sequence[Path]) -> Generator[Segmented | Failed, None, None]:
        """The result of each file; the last is a `ResourceError` where memory does not suffice for several at once."""
        with (
            closing(prefetch_items(self.read(paths))) as pages,
            closing(map_in_background(self.label, map(self.score, pages))) as results,
        ):
            yield from (result for result in results if result is not None)

    def alone(self, path: Path) -> Segmented | Failed:
        """The result of a file while nothing else is in memory."""
        results = map(self.label, map(self.score, self.read([path], alone=True)))
        return next(result for result in results if result is not None)

    def read(self, paths: Sequence[Path], *, alone: bool = False) -> Iterator[_Page | _Broken]:
        """The pages of files, to one that does not fit into memory or, unless ``alone``, takes a large share of it."""
        for path in paths:
            file, most = _File(path), self.options.max_pixels
            try:
                info = read_info(path, max_pixels=most)
                _spare(info.path, _target(info, self.options, self.model.task.multilabel))
                if not alone and self._is_large(info):
                    raise MemoryError
                for number in range(info.pages):
                    if file.over:
                        break
                    image_cyx = self.model.as_model_input(read_image(path, number, max_pixels=most), path)
                    yield _Page(file, info, number, image_cyx)
            except (ResourceError, MemoryError) as error:
                yield _Broken(file, error)
                return
            except SeptaError as error:
                yield _Broken(file, error)

    def _is_large(self, info: ImageInfo) -> bool:
        values = info.channels * info.dtype.itemsize + 4 * self.model.net.out_channels
        return info.height * info.width * values > _SHARE * find_memory_limit()

    def score(self, page: _Page | _Broken) -> _Page | _Broken:
        """Run the net."""
        if isinstance(page, _Broken) or page.file.over:
            return page
        try:
            self._score(page)
        except (SeptaError, MemoryError) as error:
            if isinstance(error, SeptaError) and error.where.startswith(("--engine", "model")):
                raise  # it would be the same with every file
            return _Broken(page.file, error)
        return page

    def _score(self, page: _Page) -> None:
        model, options = self.model, self.options
        how = PredictionOptions(tile=options.tile, tta=options.tta, engine=self.engine)
        if model.task.tilewise and not (options.probabilities or options.certify):
            page.labels_yx = model.compute_labels(page.image_cyx, how)
            return
        page.logits_kyx = model.compute_logits(page.image_cyx, how)
        if options.certify:
            difference = _difference(model, page.image_cyx, page.logits_kyx, how)
            page.file.difference = max(page.file.difference or 0.0, difference)
            if difference > EXACT:
                problem = f"tiles differ from the whole image by {difference:.3g}, more than {EXACT:g}"
                remedy = "give a --tile as large as the image; only norm batch and none make tiles exact"
                raise InputError(page.file.path, problem, remedy)

    def label(self, page: _Page | _Broken) -> Segmented | Failed | None:
        """Write what is in a page; the result of its file at its end, or where it fails."""
        file = page.file
        if file.over:
            return None
        if isinstance(page, _Page):
            try:
                return self._label(page)
            except ResourceError:  # the disk is full: the others would fail too
                raise
            except (SeptaError, MemoryError) as error:
                page = _Broken(file, error)
        file.over = True
        return page.told()

    def _label(self, page: _Page) -> Segmented | None:
        model, task, options, file, info = self.model, self.model.task, self.options, page.file, page.info
        image_cyx, logits_kyx, labels_yx = page.image_cyx, page.logits_kyx, page.labels_yx
        if page.number == 0:
            self.files.begin(file.path.name)
        if labels_yx is None:
            assert logits_kyx is not None
            labels_yx = task.decode(logits_kyx)
        class_of_id = None if logits_kyx is None else task.classify(labels_yx, logits_kyx)
        if logits_kyx is not None and options.objects.wanted:
            foreground_yx, name = task.probabilities(logits_kyx)[1], _page_name(info, page.number)
            class_yx = None if class_of_id is None else class_of_id[labels_yx]
            labels_yx = self.files.add(name, labels_yx, image_cyx, foreground_yx, info.pixel_size_um, class_yx)
        file.pages.append(model.as_written(labels_yx))
        if class_of_id is not None:
            file.classes.append(model.labels.raw_values[class_of_id[labels_yx]])
        _write_extras(model, image_cyx, labels_yx, logits_kyx, info, page.number, options)
        if page.number + 1 < info.pages:
            return None
        file.over = True
        return self._finished(file, info)

    def _finished(self, file: _File, info: ImageInfo) -> Segmented:
        """Write the labels of all pages."""
        model, options, classes, size = self.model, self.options, file.classes, (info.height, info.width)
        target = _write(file.pages, info, options)
        if classes:
            write_labels(options.output / CLASSES / target.name, _stacked(classes), pixel_size_um=info.pixel_size_um)
        self.files.commit(target)
        tiles, megapixels = model.plan(*size, options.tile), info.pages * info.height * info.width / 1e6
        padding, exact = _padding(model, *(model.recipe.data.resize or size)), model.net.exact_tiles
        return Segmented(
            file.path, target, megapixels, len(tiles), compute_overhead(tiles), exact, padding, file.difference
        )


def _padding(model: Model, height: int, width: int) -> tuple[int, int]:
    """Rows and columns that the net repeats below and at the right; a valid net mirrors instead."""
    full = model.net.pad_size(height, width) if not model.net.margin else (height, width)
    return full[0] - height, full[1] - width


def _target(info: ImageInfo, options: Options, multilabel: bool) -> Path:
    stacked = multilabel or info.pages > 1 or info.format == "tiff"
    return options.output / f"{_stem(info.path)}{options.suffix or ('.tif' if stacked else '.png')}"


def _spare(path: Path, target: Path) -> None:
    if target.exists() and target.samefile(path):
        raise InputError(path, "would be overwritten by its labels", "give another folder with -o")


def _write(pages: list[NDArray[Any]], info: ImageInfo, options: Options) -> Path:
    """One label file: a stack for a stack of images, a plane for each class where classes overlap."""
    overlapping, size = pages[0].ndim == 3, info.pixel_size_um
    target = _target(info, options, overlapping)
    if overlapping:
        for page, planes_kyx in enumerate(pages):
            one = target if len(pages) == 1 else target.with_stem(f"{target.stem}_{page:04d}")
            write_image(one, planes_kyx, pixel_size_um=size)
        return one
    if options.suffix is None and max(int(page.max(initial=0)) for page in pages) > _PNG_IDS:
        target = target.with_suffix(".tif")
    write_labels(target, _stacked(pages), pixel_size_um=size)
    return target


def _stacked(pages: list[NDArray[Any]]) -> NDArray[Any]:
    return pages[0] if len(pages) == 1 else np.stack(pages)


def _difference(
    model: Model, image_cyx: NDArray[Any], logits_kyx: NDArray[np.float32], options: PredictionOptions
) -> float:
    side = max(model.recipe.data.resize or image_cyx.shape[1:]) + smallest_tile_for(model.net)
    return largest_difference(model.compute_logits(image_cyx, replace(options, tile=side)), logits_kyx)


def _write_extras(
    model: Model,
    image_cyx: NDArray[Any],
    labels_yx: NDArray[np.int32],
    logits_kyx: NDArray[np.float32] | None,
    info: ImageInfo,
    page: int,
    options: Options,
) -> None:
    stem = _page_name(info, page)
    if options.probabilities and logits_kyx is not None:
        target = options.output / PROBABILITIES / f"{stem}.tif"
        write_probabilities(target, model.task.probabilities(logits_kyx), pixel_size_um=info.pixel_size_um)
    if options.overlay:
        write_bytes(options.output / OVERLAYS / f"{stem}.png", encode_png(_drawn(model, image_cyx, labels_yx)))


def _drawn(model: Model, image_cyx: NDArray[Any], labels_yx: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The image with its labels over it; of overlapping classes, each in its own colour."""
    if not model.task.multilabel:
        return draw_overlay(image_cyx, labels_yx)
    for bit in range(model.labels.classes):
        picture = draw_overlay(image_cyx, (labels_yx >> bit & 1) * (bit + 1))
        image_cyx = np.moveaxis(picture, -1, 0)
    return picture


def _page_name(info: ImageInfo, page: int) -> str:
    return _stem(info.path) if info.pages == 1 else f"{_stem(info.path)}_{page:04d}"


def _stem(path: Path) -> str:
    return path.stem.removesuffix(".ome")
