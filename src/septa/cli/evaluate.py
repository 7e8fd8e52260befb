"""``septa evaluate``: Score a model, or label images, against ground truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from septa.cli.commands import INPUT, OUTPUT, RECIPE
from septa.cli.net_options import NetOptions
from septa.cli.options import (
    ImagesGlob,
    LabelsGlob,
    Overwrite,
    Settings,
    argument,
    guard_files,
    make_console,
    make_overrides,
    option,
    pause_garbage_collection,
    refuse_options,
)
from septa.cli.values import choice, path, word
from septa.errors import PartialFailure

if TYPE_CHECKING:
    from rich.console import Console

    from septa.model import Model

EXAMPLE = "septa evaluate cells.septa cells --json scores.json"


First = Annotated[
    Path, argument("MODEL|PREDICTIONS", "Model file, name of a shipped model, or folder of predicted label images.")
]
Second = Annotated[Path, argument("DATA|LABELS", "Data folder for a model, or folder of true label images.")]
EveryImage = Annotated[bool, option("--all", heading=INPUT, help="Include the images that the model was trained on.")]
JsonFile = Annotated[
    Path | None,
    option("--json", heading=OUTPUT, kind=path(example="scores.json"), help="Also write all scores as JSON."),
]
Metrics = Annotated[
    list[str] | None,
    option(
        "--metrics",
        heading=OUTPUT,
        kind=word("NAME", "boundaries"),
        help="Also compute regions, boundaries, glands or neurites. May be repeated.",
    ),
]
LabelsTask = Annotated[
    str | None,
    option(
        "--task",
        heading=RECIPE,
        kind=choice("semantic", "instances"),
        help="Meaning of label images without a model. By default it is inferred from the labels.",
    ),
]


def evaluate(
    first: First,
    second: Second,
    options: NetOptions,
    images: ImagesGlob = None,
    labels: LabelsGlob = None,
    every: EveryImage = False,
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
    metrics: Metrics = None,
    settings: Settings = None,
    task: LabelsTask = None,
) -> None:
    """Score a model, or label images, against ground truth.

    A model is scored on the images of a data folder that it was not trained on. Two folders of label images are
    compared by equal file names.
    """
    with pause_garbage_collection():
        from septa.display import make_evaluation_table, say, show_progress
        from septa.evaluation import evaluate as evaluate_model
        from septa.evaluation import evaluate_files
        from septa.images import write_text
        from septa.recipe import Recipe

    console, extra, guard = make_console(), tuple(metrics or ()), guard_files([json_file], overwrite, [first])
    if first.is_dir():
        _refuse_model_options(options, {"images": images, "labels": labels, "all": every}, first)
        _note_shipped(console, first)
        result = evaluate_files(
            first,
            second,
            Recipe().with_overrides(make_overrides(settings)).data,
            instances=None if task is None else task == "instances",
            extra=extra,
            max_pixels=options.max_pixels,
        )
    else:
        refuse_options({"set": settings, "task": task}, f"a model such as {first}")
        model = options.load_model(first)
        _note_members(console, first, model)
        with show_progress(console, "segmenting") as progress:
            result = evaluate_model(
                model,
                second,
                images=images,
                labels=labels,
                every=every,
                tile=options.tile,
                device=options.device,
                tta=options.tta,
                engine=options.engine,
                precision=options.precision,
                extra=extra,
                max_pixels=options.max_pixels,
                progress=progress,
            )
    for note in result.notes:
        say(console, note)
    console.print(make_evaluation_table(result))
    if json_file is not None:
        write_text(json_file, json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n", guard=guard)
    _report_unpaired(result.unpaired, first, second)


def _refuse_model_options(options: NetOptions, others: dict[str, object], first: Path) -> None:
    running = {name: getattr(options, name) for name in ("tile", "tta", "prune", "diameter", "engine", "precision")}
    refuse_options(others | running, f"label images such as {first}")


def _note_shipped(console: Console, first: Path) -> None:
    """Print a note if a folder of label images has the name of a shipped model."""
    from septa.display import say
    from septa.notices import Notices
    from septa.pretrained import find_shipped

    notices, shipped = Notices(), find_shipped(str(first))
    if shipped is not None:
        text = "the label images in the folder of this name are scored, not the shipped model"
        notices.add(first, text, f"Give {shipped} to score the model")
    for line in notices.lines():
        say(console, line)


def _note_members(console: Console, path: Path, model: Model) -> None:
    from septa.display import say

    if model.members > 1:
        say(console, f"{path}: {model.describe_members()}")


def _report_unpaired(unpaired: Sequence[str], first: Path, second: Path) -> None:
    if unpaired:
        problem = f"some files are not scored, the others are: {'; '.join(unpaired)}"
        raise PartialFailure(first, problem, f"Give each prediction the name of its label file in {second}")
