"""Commands that use a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from septa import errors
from septa.cli.options import (
    MAX_PIXELS,
    Device,
    ImagesGlob,
    LabelsGlob,
    MaxPixels,
    Prune,
    Settings,
    Tile,
    Tta,
    all_overrides,
    make_console,
)


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model, NAME.septa.")],
    inputs: Annotated[list[str], typer.Argument(metavar="IMAGES...", help="Image files, folders or quoted globs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the label images.")],
    suffix: Annotated[str | None, typer.Option("--format", help="png or tif; from the input when absent.")] = None,
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
    min_confidence: Annotated[
        float | None, typer.Option("--min-confidence", min=0, max=1, help="Drop objects that are less sure.")
    ] = None,
    device: Device = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Segment images of any size."""
    from septa.display import progress_bar
    from septa.model import Model
    from septa.objects import ObjectOptions
    from septa.segment import Failed, Options, find_images, segment_files

    if suffix not in (None, "png", "tif"):
        raise errors.InputError(f"--format {suffix}", "is neither png nor tif", "give one of them")
    console = make_console()
    paths = find_images(inputs)
    loaded = Model.load(model) if prune is None else Model.load(model).pruned(prune)
    ending = None if suffix is None else f".{suffix}"
    objects = ObjectOptions(table, geojson, coco, rois, min_confidence)
    options = Options(output, ending, probabilities, overlay, certify, tile, device, tta, max_pixels, objects)
    console.print(
        f"{len(paths)} images with {model} to {output}; task {loaded.recipe.task}, {loaded.labels.describe()}",
        highlight=False,
        markup=False,
    )
    failed = []
    with progress_bar(console, "segmenting") as progress:
        for number, result in enumerate(segment_files(loaded, paths, options)):
            if isinstance(result, Failed):
                failed.append(result)
                print(result.error, file=sys.stderr)
            else:
                console.print(_told(result), highlight=False, markup=False)
            progress(number + 1, len(paths))
    if len(failed) == len(paths) == 1:
        raise typer.Exit(failed[0].error.exit_code)
    if failed:
        raise errors.PartialFailure(
            output, f"{len(failed)} of {len(paths)} images failed, the rest is done", "see the lines above"
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


def evaluate(
    first: Annotated[Path, typer.Argument(metavar="MODEL|PREDICTIONS", help="A model, or a folder of label images.")],
    second: Annotated[Path, typer.Argument(metavar="DATA|LABELS", help="Labelled data, or the true label images.")],
    images: ImagesGlob = None,
    labels: LabelsGlob = None,
    settings: Settings = None,
    task: Annotated[str | None, typer.Option("--task", help="Of label images: semantic, or instances.")] = None,
    metrics: Annotated[
        list[str] | None, typer.Option("--metrics", help="Also boundaries, glands or neurites; may be repeated.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Score the images too that the model was trained on.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all scores as JSON.")] = None,
    tile: Tile = None,
    tta: Tta = None,
    prune: Prune = None,
    device: Device = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Score a model on labelled images, or label images against the true ones."""
    from septa.display import progress_bar
    from septa.evaluation import evaluate as evaluate_model
    from septa.evaluation import evaluate_files
    from septa.images.write import write_text
    from septa.model import Model
    from septa.recipe import Recipe

    console, extra = make_console(), tuple(metrics or ())
    if first.is_dir():
        _refuse_options(first, "label images", images=images, labels=labels, all=every, tile=tile, tta=tta, prune=prune)
        if task not in (None, "semantic", "instances"):
            raise errors.InputError(f"--task {task}", "is neither semantic nor instances", "give one of them")
        given = Recipe().with_overrides(all_overrides(settings)).data
        result = evaluate_files(first, second, given, instances=task == "instances", extra=extra, max_pixels=max_pixels)
    else:
        _refuse_options(first, "a model", set=settings, task=task)
        loaded = Model.load(first) if prune is None else Model.load(first).pruned(prune)
        with progress_bar(console, "segmenting") as progress:
            result = evaluate_model(
                loaded, second, images=images, labels=labels, every=every, tile=tile, device=device, tta=tta,
                extra=extra, max_pixels=max_pixels, progress=progress,
            )  # fmt: skip
    for note in result.notes:
        console.print(note, highlight=False, markup=False)
    console.print(result.table())
    if json_file is not None:
        write_text(json_file, json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n")


def _refuse_options(first: Path, what: str, **options: Any) -> None:
    for name, value in options.items():
        if value:
            raise errors.InputError(f"--{name}", f"has no meaning for {what} such as {first}", "leave it out")


def info(model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model, NAME.septa.")]) -> None:
    """Print what a model holds: recipe, labels, normalisation, provenance."""
    from septa.model import Model

    loaded = Model.load(model)
    net = loaded.net
    facts = {
        "channels": loaded.channels,
        "labels": loaded.labels.to_json(),
        "normalization": loaded.normalization.to_json(),
        "net": {"halo": net.halo, "receptive_field": net.receptive_field, "exact_tiles": net.exact_tiles},
        "recipe": loaded.recipe.model_dump(mode="json"),
        "provenance": loaded.provenance,
    }
    print(json.dumps(facts, indent=2))
