"""``septa predict``: Segment image files to label files, or one image of any size to one store."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from septa import errors
from septa.cli.commands import OBJECTS, OUTPUT
from septa.cli.options import (
    ModelFile,
    NetOptions,
    argument,
    make_console,
    option,
    pause_garbage_collection,
    refuse_options,
)
from septa.cli.predict_store import StoreOptions, is_for_stores, make_requests, segment_to_stores
from septa.cli.streams import print_error
from septa.cli.values import choice, number, path, word
from septa.errors import format_count

if TYPE_CHECKING:
    from septa.model import Model
    from septa.prediction import Options, SegmentedFile

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
    table: Annotated[
        Path | None,
        option(
            "--table",
            heading=OBJECTS,
            kind=path(example="objects.csv"),
            help="Also write one row of measurements for each object (CSV).",
        ),
    ] = None
    geojson: Annotated[
        bool, option("--geojson", heading=OBJECTS, help="Also write the outlines of objects for QuPath.")
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
    min_confidence: Annotated[
        float | None,
        option(
            "--min-confidence",
            heading=OBJECTS,
            kind=number(most=1, example=0.5),
            help="Drop objects with a lower confidence (0 to 1).",
        ),
    ] = None

    def make_options(self, output: Path, net: NetOptions, probabilities: bool) -> Options:
        """Return the options of `septa.prediction.segment_files` for these files."""
        from septa.objects import ObjectOptions
        from septa.prediction import Options

        return Options(
            output=output,
            suffix=self.format and f".{self.format}",
            probabilities=probabilities,
            overlay=self.overlay,
            certify=self.certify,
            tile=net.tile,
            device=net.device,
            tta=net.tta,
            max_pixels=net.max_pixels,
            objects=ObjectOptions(
                table=self.table,
                geojson=self.geojson,
                coco=self.coco,
                rois=self.rois,
                min_confidence=self.min_confidence,
            ),
            engine=net.engine,
        )


def predict(
    model: ModelFile,
    inputs: Annotated[
        list[str],
        argument("IMAGES...", "Image files, folders or quoted globs.", kind=word("IMAGES...", "an image file")),
    ],
    output: Annotated[
        Path,
        option(
            "-o",
            "--output",
            heading=OUTPUT,
            kind=path(example="segmented"),
            help="Folder for label images. For one image of any size: a store, NAME.ome.zarr or NAME.ome.tif.",
        ),
    ],
    files: FileOptions,
    net: NetOptions,
    store: StoreOptions,
    probabilities: Annotated[
        bool, option("--probabilities", heading=OUTPUT, help="Also write the probability of each class.")
    ] = False,
) -> None:
    """Segment images of any size with a trained model.

    Each image becomes a label image of the same name in the output folder. A store as output takes one image, which is
    read and written block by block within a memory limit; the same command continues an interrupted run.
    """
    if is_for_stores(inputs, output):
        refuse_options(asdict(files) | {"tta": net.tta, "prune": net.prune}, f"a store such as {output}")
        with pause_garbage_collection():
            requests = make_requests(model, inputs, output, store, net, probabilities)
        segment_to_stores(make_console(), requests, store)
        return
    refuse_options(asdict(store), f"a folder of label images such as {output}")
    with pause_garbage_collection():
        from septa import kernels
        from septa.model import Model

        loaded = Model.load(model)
        if net.prune is not None:
            loaded = loaded.prune(net.prune)
        if loaded.task.finds_objects:
            kernels.load()
        options = files.make_options(output, net, probabilities)
    _segment_to_folder(model, loaded, inputs, options)


def _segment_to_folder(file: Path, model: Model, inputs: list[str], options: Options) -> None:
    """Segment the images one after another, continuing after one that fails."""
    from septa.display import say, show_progress
    from septa.notices import Notices
    from septa.prediction import FailedFile, find_images, segment_files

    console, paths, failed = make_console(), find_images(inputs), []
    notices = Notices()
    task = f"task {model.recipe.task}, {model.labels.describe()}, {model.describe_input()}"
    say(console, f"segmenting {format_count(len(paths), 'image')} with {file} to {options.output}; {task}")
    with show_progress(console, "segmenting") as progress:
        for done, result in enumerate(segment_files(model, paths, options, notices), start=1):
            if isinstance(result, FailedFile):
                failed.append(result)
                print_error(result.error)
            else:
                say(console, _describe_result(result))
            progress(done, len(paths))
    for line in notices.lines():
        say(console, line)
    if len(failed) == len(paths) == 1:
        raise typer.Exit(failed[0].error.exit_code)
    if failed:
        raise errors.PartialFailure(
            options.output, f"{len(failed)} of {len(paths)} images failed, the others are done", "See the errors above"
        )


def _describe_result(result: SegmentedFile) -> str:
    parts = [f"{result.labels}: {format_count(result.tiles, 'tile')}"]
    if result.tiles > 1:
        parts.append(f"{result.overhead - 1:.0%} computed twice")
    if result.tiles > 1 and not result.exact:
        parts.append("not exactly as the whole image, because this norm pools over each tile")
    if any(result.padding):
        parts.append(f"padded by {result.padding[0]} rows and {result.padding[1]} columns inside the net")
    if result.difference is not None:
        parts.append(f"largest difference to the whole image {result.difference:g}")
    return ", ".join(parts)
