"""``septa predict``: Segment image files to label files, or one image of any size to one store."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from septa import errors
from septa.cli.commands import INPUT, OBJECTS, OUTPUT
from septa.cli.net_options import NetOptions
from septa.cli.object_options import ObjectFileOptions
from septa.cli.options import (
    ModelFile,
    argument,
    make_console,
    option,
    pause_garbage_collection,
    refuse_options,
)
from septa.cli.predict_store import (
    StoreOptions,
    check_store_options,
    has_options,
    is_store,
    make_requests,
    may_hold_stores,
    segment_to_stores,
)
from septa.cli.streams import print_error
from septa.cli.values import WELLS, choice, path, whole_number, word
from septa.errors import format_count

if TYPE_CHECKING:
    from rich.console import Console

    from septa.model import Model
    from septa.notices import Notices
    from septa.prediction import InputImage, Options, SegmentedFile

_LABEL_FILES = (".png", ".tif", ".tiff")
_NO_LABEL_FILES = (".jpg", ".jpeg", ".bmp", ".gif")
EXAMPLE = "septa predict cells.septa new/*.tif -o segmented"


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """The options of ``septa predict`` that apply only to files in a folder."""

    format: Annotated[
        str | None,
        option(
            "--format",
            heading=OUTPUT,
            kind=choice("png", "tif"),
            help="File type of the label images. By default it follows from the input.",
        ),
    ] = None
    overlay: Annotated[
        bool,
        option("--overlay", heading=OUTPUT, help="Also write pictures of the images with their labels on top."),
    ] = False
    certify: Annotated[
        bool,
        option(
            "--certify",
            heading=OUTPUT,
            help="Compare the tiles with a pass over the whole image, and fail if they differ.",
        ),
    ] = False
    coco: Annotated[
        Path | None,
        option(
            "--coco", heading=OBJECTS, kind=path(example="objects.json"), help="Also write all objects as a COCO file."
        ),
    ] = None
    rois: Annotated[bool, option("--rois", heading=OBJECTS, help="Also write the outlines of objects for ImageJ.")] = (
        False
    )
    link: Annotated[
        bool,
        option(
            "--link",
            heading=OBJECTS,
            help="Keep the number of an object from page to page of a stack (T, Z or both), by overlap.",
        ),
    ] = False

    def make_options(
        self, output: Path, objects: ObjectFileOptions, net: NetOptions, probabilities: bool, overwrite: bool
    ) -> Options:
        """Return the options of `septa.prediction.segment_files` for these files.

        Raises
        ------
        InputError
            ``--format`` contradicts the name of the output.
        """
        from septa.objects import ObjectOptions
        from septa.prediction import Options

        named, suffix = is_label_file(output), self.format and f".{self.format}"
        if named and suffix is not None and suffix not in output.suffix.lower():
            problem = f"the output {output} is a file of another type"
            raise errors.InputError(f"--format {self.format}", problem, "Leave the option out")
        return Options(
            output=output.parent if named else output,
            name=output.stem if named else None,
            suffix=output.suffix if named else suffix,
            overwrite=overwrite,
            probabilities=probabilities,
            overlay=self.overlay,
            certify=self.certify,
            tile=net.tile,
            device=net.device,
            tta=net.tta,
            max_pixels=net.max_pixels,
            objects=ObjectOptions(
                table=objects.table,
                geojson=objects.geojson,
                coco=self.coco,
                rois=self.rois,
                min_confidence=objects.min_confidence,
                measure=objects.measure or ("basic",),
            ),
            link=self.link,
            engine=net.engine,
            precision=net.precision,
        )


@dataclass(frozen=True, kw_only=True)
class ImageChoice:
    """The options of ``septa predict`` that choose images in files and plates that hold several."""

    image: Annotated[
        int | None,
        option(
            "--image",
            heading=INPUT,
            kind=whole_number(least=0, example=1),
            help="Number of the image in a file, or of the field in a well of a plate, from 0. The default is all.",
        ),
    ] = None
    wells: Annotated[
        tuple[str, ...] | None,
        option(
            "--wells",
            heading=INPUT,
            kind=WELLS,
            help="Wells of a plate to segment, by name or pattern. The default is all.",
        ),
    ] = None


def predict(
    model: ModelFile,
    inputs: Annotated[
        list[str],
        argument(
            "IMAGES...",
            "Files, zarr images, addresses, folders or quoted globs.",
            kind=word("IMAGES...", "an image file"),
        ),
    ],
    output: Annotated[
        Path | None,
        option(
            "-o",
            "--output",
            heading=OUTPUT,
            kind=path(example="segmented"),
            help="Folder for label images, or NAME.png or NAME.tif for one image. For one image of any size: a store, "
            "NAME.ome.zarr or NAME.ome.tif.",
        ),
    ] = None,
    *,
    files: FileOptions,
    objects: ObjectFileOptions,
    net: NetOptions,
    store: StoreOptions,
    chosen: ImageChoice,
    probabilities: Annotated[
        bool, option("--probabilities", heading=OUTPUT, help="Also write the probability of each class.")
    ] = False,
    overwrite: Annotated[
        bool,
        option(
            "--overwrite",
            heading=OUTPUT,
            help="Replace existing files that septa did not write from the same images, and existing stores.",
        ),
    ] = False,
) -> None:
    """Segment images of any size with a trained model.

    Each image becomes a label image of the same name in the output folder, and each zarr image becomes a store; with an
    option for large images, all images beside a zarr image become stores. A store
    as output takes one image, which is read and written block by block within a memory limit; the same command
    continues an interrupted run. Files that septa did not write are never replaced without --overwrite.
    """
    output = _check_output(output, store)
    for_store = is_store(output, inputs, store)
    _check_options(output, inputs, for_store, files, net, store)
    with pause_garbage_collection():
        from septa.notices import Notices

        notices = Notices()
        plain, streamed = _find_images(inputs, chosen, for_store, store, notices)
        if streamed and not for_store:
            _check_folder_of_stores(output, streamed[0], files, net)
        _check_table(objects, streamed, len(plain) + len(streamed))
        requests = make_requests(model, streamed, output, store, objects, net, probabilities, overwrite)
    console = make_console()
    failed: list[errors.SeptaError] = []
    if plain:
        refuse_options(asdict(store), _describe_output(output))
        options = files.make_options(output, objects, net, probabilities, overwrite)
        failed += _segment_to_files(console, model, plain, options, net, notices)
    if requests:
        failed += segment_to_stores(console, requests, store, is_only=len(plain) + len(streamed) == 1)
    _report(console, output, len(plain) + len(streamed), failed, notices)


def _find_images(
    inputs: list[str], chosen: ImageChoice, for_store: bool, store: StoreOptions, notices: Notices
) -> tuple[list[InputImage], list[InputImage]]:
    """Return the images that become label files, and those that become stores."""
    from septa.images import is_zarr
    from septa.prediction import expand_images, find_images

    images = expand_images(find_images(inputs, notices), chosen.image, chosen.wells)
    zarr = [one for one in images if is_zarr(one.path)]
    streamed = images if for_store or (zarr and has_options(store)) else zarr
    return [one for one in images if one not in streamed], streamed


def _check_output(output: Path | None, store: StoreOptions) -> Path:
    """Return the output; refuse none, and one beside --into-image."""
    if output is None and not store.into_image:
        remedy = "Run 'septa predict --help' for its options"
        raise errors.InputError("septa predict", "the option --output is missing", remedy)
    if output is not None and store.into_image:
        problem = "the labels go either into the images or to an output of their own"
        raise errors.InputError("--into-image", problem, "Leave it or -o out")
    if store.zarr is not None and output is not None and output.suffix.lower() in _LABEL_FILES:
        raise errors.InputError(
            f"--zarr {store.zarr}", f"the output {output} is not a zarr store", "Leave the option out"
        )
    return output or Path("labels")


def _check_options(
    output: Path, inputs: list[str], for_store: bool, files: FileOptions, net: NetOptions, store: StoreOptions
) -> None:
    """Refuse options that do not apply, before any image is looked for."""
    if for_store:
        _refuse_file_options(files, net, output)
    elif not any(may_hold_stores(each) for each in inputs):
        refuse_options(asdict(store), _describe_output(output))
    check_store_options(store, net)


def _describe_output(output: Path) -> str:
    return f"a {'label image' if is_label_file(output) else 'folder of label images'} such as {output}"


def _refuse_file_options(files: FileOptions, net: NetOptions, output: Path) -> None:
    refuse_options(asdict(files) | {"tta": net.tta, "prune": net.prune}, f"a store such as {output}")


def _check_folder_of_stores(output: Path, image: InputImage, files: FileOptions, net: NetOptions) -> None:
    """Refuse options that do not apply to stores, and a label file instead of a folder."""
    if is_label_file(output):
        problem = f"the zarr image {image.path} is segmented to a store, not to a label file"
        raise errors.InputError(output, problem, "Give a name that ends in .ome.zarr, or a folder")
    _refuse_file_options(files, net, output / f"{image.stem}.ome.zarr")


def _check_table(objects: ObjectFileOptions, streamed: list[InputImage], images: int) -> None:
    """Refuse a table of several images if any of them becomes a store."""
    if objects.table is not None and streamed and images > 1:
        problem = f"a table takes the objects of one image if the output is a store, got {images} images"
        raise errors.InputError("--table", problem, "Segment each image in a command of its own")


def is_label_file(output: Path) -> bool:
    """Return True if an output is the label file of one image, and False if it is a folder.

    Raises
    ------
    InputError
        The name is that of an image file that cannot hold labels.
    """
    suffix = output.suffix.lower()
    if suffix in _NO_LABEL_FILES and not output.is_dir():
        remedy = "Give a name that ends in .png or .tif, or the name of a folder"
        raise errors.InputError(output, f"septa does not write labels to {suffix} files", remedy)
    return suffix in _LABEL_FILES and not output.is_dir()


def _load_model(file: Path, net: NetOptions) -> Model:
    with pause_garbage_collection():
        from septa import kernels

        model = net.load_model(file)
        if model.task.finds_objects:
            kernels.load()
        return model


def _segment_to_files(
    console: Console, file: Path, images: list[InputImage], options: Options, net: NetOptions, notices: Notices
) -> list[errors.SeptaError]:
    """Segment the images one after another, continuing after one that fails; return the errors."""
    from septa.display import say, show_progress
    from septa.model import explain_precision
    from septa.prediction import FailedFile, segment_files
    from septa.runtime import has_fast_bf16

    model, failed = _load_model(file, net), []
    facts = (f"task {model.recipe.task}", model.labels.describe(), model.describe_input(), model.describe_members())
    task = ", ".join(filter(None, facts))
    target = options.output / (f"{options.name}{options.suffix}" if options.name else "")
    if options.name and len(images) > 1:
        several = len({image.path for image in images}) > 1
        problem = f"one file takes the labels of one image, got {len(images)} images"
        remedy = "Give a folder with -o" if several else "Give a folder with -o, or choose one image with --image"
        raise errors.InputError(target, problem, remedy)
    say(console, f"segmenting {format_count(len(images), 'image')} with {file} to {target}; {task}")
    engine = model.choose_engine(options.device, options.engine, options.precision)
    for line in explain_precision(engine, model.bf16, fast=has_fast_bf16(options.device)):
        say(console, line)
    with show_progress(console, "segmenting") as progress:
        for done, result in enumerate(segment_files(model, images, options, notices), start=1):
            if isinstance(result, FailedFile):
                failed.append(result.error)
                print_error(result.error)
            else:
                say(console, _describe_result(result))
            progress(done, len(images))
    return failed


def _report(console: Console, output: Path, images: int, failed: list[errors.SeptaError], notices: Notices) -> None:
    """Print the notices, and end with the exit code of the failures."""
    from septa.display import say

    for line in notices.lines():
        say(console, line)
    if failed and images == 1:
        raise typer.Exit(failed[0].exit_code)
    if failed:
        folder = output.parent if is_label_file(output) else output
        problem = f"{len(failed)} of {images} images failed, the others are done"
        raise errors.PartialFailure(folder, problem, "See the errors above")


def _describe_result(result: SegmentedFile) -> str:
    parts = [f"{result.labels}: {format_count(result.tiles, 'tile')}"]
    if result.tiles > 1:
        parts.append(f"{result.overhead - 1:.0%} computed twice")
    if result.tiles > 1 and not result.exact:
        parts.append("not exactly as the whole image, because this norm pools over each tile")
    if any(result.padding):
        parts.append(f"padded by {result.padding[0]} rows and {result.padding[1]} columns inside the net")
    if result.linked is not None:
        parts.append(f"{format_count(result.linked, 'object')} linked over the pages")
    if result.difference is not None:
        parts.append(f"largest difference to the whole image {result.difference:g}")
    return ", ".join(parts)
