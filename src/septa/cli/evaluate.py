"""``septa evaluate``: Score a model or label images against ground truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from septa import errors
from septa.cli.options import (
    MAX_PIXELS,
    Device,
    Engine,
    ImagesGlob,
    LabelsGlob,
    MaxPixels,
    Prune,
    Settings,
    Tile,
    Tta,
    all_overrides,
    loading,
    make_console,
    refuse_options,
)


def evaluate(
    first: Annotated[Path, typer.Argument(metavar="MODEL|PREDICTIONS", help="A model, or a folder of label images.")],
    second: Annotated[Path, typer.Argument(metavar="DATA|LABELS", help="Labelled data, or the true label images.")],
    images: ImagesGlob = None,
    labels: LabelsGlob = None,
    settings: Settings = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Of label images: semantic or instances; told from them when absent.")
    ] = None,
    metrics: Annotated[
        list[str] | None, typer.Option("--metrics", help="Also boundaries, glands or neurites; may be repeated.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Score the images too that the model was trained on.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all scores as JSON.")] = None,
    tile: Tile = None,
    tta: Tta = None,
    prune: Prune = None,
    device: Device = "auto",
    engine: Engine = None,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Score a model on labelled images, or label images against the true ones."""
    with loading():
        from septa.display import evaluation_table, progress_bar
        from septa.evaluation import evaluate as evaluate_model
        from septa.evaluation import evaluate_files
        from septa.images import write_text
        from septa.model import Model
        from septa.recipe import Recipe

    console, extra = make_console(), tuple(metrics or ())
    if first.is_dir():
        refuse_options(
            first, "label images", images=images, labels=labels, all=every, tile=tile, tta=tta, prune=prune,
            engine=engine,
        )  # fmt: skip
        if task not in (None, "semantic", "instances"):
            raise errors.InputError(f"--task {task}", "is neither semantic nor instances", "give one of them")
        given = Recipe().with_overrides(all_overrides(settings)).data
        instances = None if task is None else task == "instances"
        result = evaluate_files(first, second, given, instances=instances, extra=extra, max_pixels=max_pixels)
    else:
        refuse_options(first, "a model", set=settings, task=task)
        loaded = Model.load(first) if prune is None else Model.load(first).prune(prune)
        with progress_bar(console, "segmenting") as progress:
            result = evaluate_model(
                loaded, second, images=images, labels=labels, every=every, tile=tile, device=device, tta=tta,
                engine=engine, extra=extra, max_pixels=max_pixels, progress=progress,
            )  # fmt: skip
    for note in result.notes:
        console.print(note, highlight=False, markup=False)
    console.print(evaluation_table(result))
    if json_file is not None:
        write_text(json_file, json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n")
