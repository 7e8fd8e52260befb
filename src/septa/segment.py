"""The prediction workflow: image files to label files, one after the other, past those that fail."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.data.label_codes import number_of, smallest
from septa.data.layouts import classes_folder
from septa.errors import InputError, ResourceError, SeptaError
from septa.images.overlay import overlay
from septa.images.read import MAX_PIXELS, ImageInfo, read_image, read_info
from septa.images.write import encode_png, write_bytes, write_image, write_labels, write_probabilities
from septa.inference.engines import Engine
from septa.inference.tiling import largest_difference, least_for, overhead
from septa.model import Model
from septa.objects import ObjectFiles, ObjectOptions
from septa.tasks.instances import Instances

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff"})
_PNG_IDS = 65_535
"""Largest object id that a PNG holds."""
OVERLAYS, PROBABILITIES, CLASSES = "overlays", "probabilities", "classes"
"""Folders inside the output for what is not labels."""
EXACT = 1e-5
"""Largest difference of logits between tiles and whole image that `certify` accepts."""


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
            inside = [file for file in sorted(path.iterdir()) if file.suffix.lower() in _SUFFIXES and file.is_file()]
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
    if options.objects.wanted and not isinstance(model.task, Instances):
        problem = "the model was not trained on objects"
        raise InputError("objects", problem, "leave --table, --geojson, --coco, --rois and --min-confidence out")
    if model.labels.object_classes > 1 and options.output.is_dir() and classes_folder(options.output):
        problem = f"holds labelled data, whose {CLASSES}/ would be overwritten"
        raise InputError(options.output, problem, "give another folder with -o")
    files = ObjectFiles(options.objects, options.output, model.labels.class_names)
    for path in paths:
        try:
            yield _segment(model, path, options, files, engine)
        except MemoryError:
            yield Failed(path, ResourceError(path, "does not fit into memory", "segment it on a larger machine"))
        except SeptaError as error:
            if isinstance(error, ResourceError) and error.where != "memory":
                raise  # the disk is full: the others would fail too
            yield Failed(path, error)
    files.finish()


def _segment(model: Model, path: Path, options: Options, files: ObjectFiles, engine: Engine) -> Segmented:
    files.begin(path.name)
    info = read_info(path, max_pixels=options.max_pixels)
    _spare(info.path, _target(info, options, model.task.multilabel))
    tiles = model.plan(info.height, info.width, options.tile)
    pages, classes, difference = [], [], None
    for page in range(info.pages):
        image_cyx = model.fit(read_image(path, page, max_pixels=options.max_pixels), path)
        logits_kyx = None
        if options.probabilities or options.certify or options.objects.wanted or model.labels.object_classes > 1:
            logits_kyx = model.logits(image_cyx, tile=options.tile, tta=options.tta, engine=engine)
            labels_yx = model.task.decode(logits_kyx)
        else:
            labels_yx = model.segment(image_cyx, tile=options.tile, tta=options.tta, engine=engine)
        if options.certify and logits_kyx is not None:
            difference = max(difference or 0.0, _difference(model, image_cyx, logits_kyx, options.tta, engine))
            if difference > EXACT:
                problem = f"tiles differ from the whole image by {difference:.3g}, more than {EXACT:g}"
                remedy = "give a --tile as large as the image; only norm batch and none make tiles exact"
                raise InputError(path, problem, remedy)
        class_yx = _classes(model, labels_yx, logits_kyx)
        if options.objects.wanted and logits_kyx is not None:
            foreground_yx = model.task.probabilities(logits_kyx)[1]
            name = _page_name(info, page)
            labels_yx = files.add(name, labels_yx, image_cyx, foreground_yx, info.pixel_size_um, class_yx)
        pages.append(model.as_written(labels_yx))
        if class_yx is not None:
            classes.append(_class_values(model)[np.where(labels_yx, class_yx, 0)])
        _write_extras(model, image_cyx, labels_yx, logits_kyx, info, page, options)
    target = _write(pages, info, options)
    if classes:
        path_of = options.output / CLASSES / target.name
        write_labels(path_of, classes[0] if len(classes) == 1 else np.stack(classes), pixel_size_um=info.pixel_size_um)
    files.written(target)
    megapixels = info.pages * info.height * info.width / 1e6
    padding = _padding(model, *(model.recipe.data.resize or (info.height, info.width)))
    return Segmented(path, target, megapixels, len(tiles), overhead(tiles), model.net.exact_tiles, padding, difference)


def _classes(
    model: Model, labels_yx: NDArray[np.int32], logits_kyx: NDArray[np.float32] | None
) -> NDArray[np.int32] | None:
    """Class of each object at its pixels, where objects have classes."""
    if logits_kyx is None or not isinstance(model.task, Instances) or model.task.object_classes == 1:
        return None
    return model.task.classify(labels_yx, logits_kyx)


def _class_values(model: Model) -> NDArray[Any]:
    values = [number_of(value) for value in model.labels.values]
    return np.array(values, smallest(values))


def _padding(model: Model, height: int, width: int) -> tuple[int, int]:
    """Rows and columns that the net repeats below and at the right; a valid net mirrors instead."""
    full = model.net.padded_size(height, width) if not model.net.margin else (height, width)
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
    write_labels(target, pages[0] if len(pages) == 1 else np.stack(pages), pixel_size_um=size)
    return target


def _difference(
    model: Model, image_cyx: NDArray[Any], logits_kyx: NDArray[np.float32], tta: int | None, engine: Engine
) -> float:
    side = max(model.recipe.data.resize or image_cyx.shape[1:]) + least_for(model.net)
    whole = model.logits(image_cyx, tile=side, tta=tta, engine=engine)
    return largest_difference(whole, logits_kyx)


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
        return overlay(image_cyx, labels_yx)
    for bit in range(model.labels.classes):
        picture = overlay(image_cyx, (labels_yx >> bit & 1) * (bit + 1))
        image_cyx = np.moveaxis(picture, -1, 0)
    return picture


def _page_name(info: ImageInfo, page: int) -> str:
    return _stem(info.path) if info.pages == 1 else f"{_stem(info.path)}_{page:04d}"


def _stem(path: Path) -> str:
    return path.stem.removesuffix(".ome")
