"""Commands that use a model."""

from __future__ import annotations

import json
import math
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
        from septa.display import progress_bar
        from septa.evaluation import evaluate as evaluate_model
        from septa.evaluation import evaluate_files
        from septa.images.write import write_text
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
        loaded = Model.load(first) if prune is None else Model.load(first).pruned(prune)
        with progress_bar(console, "segmenting") as progress:
            result = evaluate_model(
                loaded, second, images=images, labels=labels, every=every, tile=tile, device=device, tta=tta,
                engine=engine, extra=extra, max_pixels=max_pixels, progress=progress,
            )  # fmt: skip
    for note in result.notes:
        console.print(note, highlight=False, markup=False)
    console.print(result.table())
    if json_file is not None:
        write_text(json_file, json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n")


def info(model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model, NAME.septa.")]) -> None:
    """Print what a model holds: recipe, labels, normalisation, provenance."""
    with loading():
        from septa.model import Model

        loaded = Model.load(model)
    net = loaded.net
    facts = {
        "channels": loaded.channels,
        "labels": loaded.labels.to_json(),
        "normalization": loaded.normalization.to_json(),
        "net": {"halo": net.halo, "receptive_field": net.receptive_field, "exact_tiles": net.exact_tiles},
        "int8": None if loaded.int8 is None else loaded.int8.to_json(),
        "recipe": loaded.recipe.model_dump(mode="json"),
        "provenance": loaded.provenance,
    }
    print(json.dumps(facts, indent=2))


def quantize(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model, NAME.septa.")],
    data: Annotated[Path, typer.Option("--data", help="What it was trained on.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model to write, NAME.septa.")],
    images: ImagesGlob = None,
    labels: LabelsGlob = None,
    most_drop: Annotated[float, typer.Option("--most-drop", min=0, help="By how much the score may drop.")] = 0.005,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0, help="Of tuning each version that is tried, at most; 0 for none.")
    ] = 3.0,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Make a model that computes in 8-bit integers, several times as fast on a CPU (septa[openvino])."""
    from septa.display import progress_bar
    from septa.quantization import quantize as quantize_model

    console = make_console()
    if output.resolve() == model.resolve():
        raise errors.InputError(output, "is the model itself", "give another name")

    def tell(line: str) -> None:
        console.print(line, highlight=False, markup=False)

    with progress_bar(console, "quantising") as progress:
        made = quantize_model(
            model, data, images=images, labels=labels, most_drop=most_drop, minutes=minutes, max_pixels=max_pixels,
            tell=tell, progress=progress,
        )  # fmt: skip
    tell(f"{len(made.integer.images)} images that the model was not trained on:")
    console.print(made.table())
    if made.drop > most_drop:
        problem = f"not written: the score drops by {made.drop:.4f}, more than {most_drop:g}"
        raise errors.InputError(
            output, problem, f"give --most-drop {math.ceil(made.drop * 1000) / 1000:g} to have it all the same"
        )
    made.model.save(output)
    before, after = (path.stat().st_size / 1e6 for path in (model, output))
    tell(f"model: {output} ({after:.1f} MB, {before:.1f} MB before; its float weights are kept in it)")
