"""``septa predict``: image files to label files, or one image of any size to one store."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from septa import errors, kernels
from septa.cli import predict_store as streamed
from septa.cli.options import (
    MAX_PIXELS,
    Channels,
    ClusterAddress,
    Device,
    Engine,
    Format,
    Level,
    MaxPixels,
    Memory,
    MinConfidence,
    Output,
    Prune,
    Region,
    Tile,
    TlsCa,
    TlsCert,
    TlsKey,
    Tta,
    Workers,
    loading,
    make_console,
    refuse_options,
)

if TYPE_CHECKING:
    from septa.model import Model
    from septa.prediction import Options


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model, NAME.septa.")],
    inputs: Annotated[list[str], typer.Argument(metavar="IMAGES...", help="Image files, folders or quoted globs.")],
    output: Output,
    suffix: Format = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write class probabilities.")] = False,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write pictures with the labels laid over.")] = False,
    certify: Annotated[bool, typer.Option("--certify", help="Compare with the whole image, untiled.")] = False,
    tile: Tile = None,
    tta: Tta = None,
    prune: Prune = None,
    table: Annotated[Path | None, typer.Option("--table", help="Also write a row for each object (CSV).")] = None,
    geojson: Annotated[bool, typer.Option("--geojson", help="Also write outlines of objects for QuPath.")] = False,
    coco: Annotated[Path | None, typer.Option("--coco", help="Also write all objects as a COCO file.")] = None,
    rois: Annotated[bool, typer.Option("--rois", help="Also write outlines of objects for ImageJ.")] = False,
    min_confidence: MinConfidence = None,
    memory: Memory = None,
    level: Level = None,
    channels: Channels = None,
    region: Region = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the label image in the store.")] = None,
    skip_empty: Annotated[bool, typer.Option("--skip-empty", help="Pass over blocks that show nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a store that is there.")] = False,
    workers: Workers = None,
    cluster: ClusterAddress = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    device: Device = "auto",
    engine: Engine = None,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Segment images of any size."""
    store = streamed.StoreOptions(
        memory, level, channels, region, name, skip_empty, overwrite, workers, cluster, tls_ca, tls_cert, tls_key
    )
    if streamed.is_streamed(inputs, output):
        refuse_options(
            output, "a store", format=suffix, overlay=overlay, certify=certify, tta=tta, prune=prune, table=table,
            geojson=geojson, coco=coco, rois=rois, min_confidence=min_confidence,
        )  # fmt: skip
        with loading():
            wanted = streamed.requests(model, inputs, output, store, tile, device, engine, probabilities)
        streamed.predict_streamed(make_console(), wanted, store)
        return
    refuse_options(output, "a folder of label images", **asdict(store))
    if suffix not in (None, "png", "tif"):
        raise errors.InputError(f"--format {suffix}", "is neither png nor tif", "give one of them")

    with loading():
        from septa.model import Model
        from septa.objects import ObjectOptions
        from septa.prediction import Options

        loaded = Model.load(model) if prune is None else Model.load(model).prune(prune)
        if loaded.task.finds_objects:
            kernels.load()
    ending, objects = suffix and f".{suffix}", ObjectOptions(table, geojson, coco, rois, min_confidence)
    options = Options(output, ending, probabilities, overlay, certify, tile, device, tta, max_pixels, objects, engine)
    _segment(model, loaded, inputs, options)


def _segment(file: Path, model: Model, inputs: list[str], options: Options) -> None:
    """Files to files, past those that fail."""
    from septa.display import progress_bar
    from septa.prediction import Failed, find_images, segment_files

    console, paths, failed = make_console(), find_images(inputs), []
    console.print(
        f"{len(paths)} images with {file} to {options.output}; task {model.recipe.task}, {model.labels.describe()}",
        highlight=False,
        markup=False,
    )
    with progress_bar(console, "segmenting") as progress:
        for number, result in enumerate(segment_files(model, paths, options)):
            if isinstance(result, Failed):
                failed.append(result)
                print(f"error: {result.error}", file=sys.stderr)
            else:
                console.print(_told(result), highlight=False, markup=False)
            progress(number + 1, len(paths))
    if len(failed) == len(paths) == 1:
        raise typer.Exit(failed[0].error.exit_code)
    if failed:
        raise errors.PartialFailure(
            options.output, f"{len(failed)} of {len(paths)} images failed, the rest is done", "see the lines above"
        )


def _told(result: Any) -> str:
    parts = [f"{result.labels}: {result.tiles} tile{'s' if result.tiles > 1 else ''}"]
    if result.tiles > 1:
        parts.append(f"{result.overhead - 1:.0%} computed twice")
    if result.tiles > 1 and not result.exact:
        parts.append("not exactly the whole image's: this norm pools over a tile")
    if any(result.padding):
        parts.append(f"edge repeated by {result.padding[0]} rows and {result.padding[1]} columns inside the net")
    if result.difference is not None:
        parts.append(f"largest difference to the whole image {result.difference:g}")
    return ", ".join(parts)
