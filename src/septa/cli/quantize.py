"""``septa quantize``: Convert a model to 8-bit integers, or store it in float16."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from septa import errors
from septa.cli.commands import INPUT, OUTPUT, RUN
from septa.cli.options import (
    MAX_PIXELS,
    ImagesGlob,
    LabelsGlob,
    MaxPixels,
    ModelFile,
    make_console,
    option,
    refuse_options,
)
from septa.cli.values import choice, number, path

if TYPE_CHECKING:
    from rich.console import Console

    from septa.quantization import QuantizedModel

MOST_DROP, MINUTES = 0.005, 3.0
"""Defaults; equal to those of `septa.quantization.quantize`, whose import is slow."""
EXAMPLE = "septa quantize cells.septa --data cells -o cells-int8.septa"


Data = Annotated[
    Path | None,
    option(
        "--data",
        heading=INPUT,
        kind=path(example="cells"),
        help="Data folder that the model was trained on. For float16 it may be left out: then nothing is compared.",
    ),
]
Kind = Annotated[
    str,
    option(
        "--to",
        heading=OUTPUT,
        kind=choice("int8", "float16"),
        help="Kind of numbers: int8 adds integers, which are faster on a CPU; float16 halves the file.",
    ),
]
Output = Annotated[
    Path,
    option("-o", "--output", heading=OUTPUT, kind=path(example="int8.septa"), help="Model file to write (NAME.septa)."),
]
MostDrop = Annotated[
    float | None,
    option(
        "--most-drop",
        heading=RUN,
        kind=number(example=0.01),
        help="Largest accepted drop of the score, by default 0.005. A model that loses more is not written.",
    ),
]
TuningMinutes = Annotated[
    float | None,
    option(
        "--minutes",
        heading=RUN,
        kind=number(example=3, metavar="MINUTES"),
        help="Time limit for tuning each version of integers that is tried, by default 3; 0 switches the tuning off.",
    ),
]


def quantize(
    model: ModelFile,
    output: Output,
    data: Data = None,
    to: Kind = "int8",
    overwrite: Annotated[bool, option("--overwrite", heading=OUTPUT, help="Replace an existing model file.")] = False,
    images: ImagesGlob = None,
    labels: LabelsGlob = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    most_drop: MostDrop = None,
    minutes: TuningMinutes = None,
) -> None:
    """Convert a model to 8-bit integers, or store it in float16.

    The scores of both models on images that they were not trained on are printed. Integers need septa[openvino].
    """
    from septa.display import say, show_progress
    from septa.pretrained import locate_model
    from septa.quantization import quantize as quantize_model
    from septa.quantization import round_to_float16

    console, file = make_console(), locate_model(model)
    if output.resolve() == file.resolve():
        raise errors.InputError(output, "the output is the model itself", "Give another name with -o")
    if output.exists() and not overwrite:
        raise errors.InputError(output, "the file exists", "Give another -o or --overwrite")
    if to == "float16":
        refuse_options({"minutes": minutes is not None}, "float16, which is not tuned")
    if data is None:
        others = {"images": images, "labels": labels, "most-drop": most_drop is not None}
        _store_in_float16(model, output, to, {**others, "max-pixels": max_pixels != MAX_PIXELS})
    else:
        drop = MOST_DROP if most_drop is None else most_drop
        make = round_to_float16
        if to == "int8":
            tuning = MINUTES if minutes is None else minutes
            make = partial(quantize_model, most_drop=drop, minutes=tuning, notify=lambda line: say(console, line))
        with show_progress(console, "quantizing") as progress:
            made = make(model, data, images=images, labels=labels, max_pixels=max_pixels, progress=progress)
        _report_scores(console, made, output, drop)
        made.model.save(output, half=to == "float16")
    before, after = (path.stat().st_size / 1e6 for path in (file, output))
    contents = "it includes the float weights" if to == "int8" else "its weights are stored in float16"
    say(console, f"model: {output} ({after:.1f} MB, {before:.1f} MB before; {contents})")


def _store_in_float16(model: Path, output: Path, to: str, others: Mapping[str, object]) -> None:
    """Write a model in float16 without data to compare it on."""
    from septa.model import Model
    from septa.quantization import make_small

    if to != "float16":
        problem = "integers need the images that the model was trained on"
        raise errors.InputError("--data", problem, "Give the data folder, or --to float16")
    refuse_options(others, "float16 without --data")
    make_small(Model.load(model)).save(output, half=True)


def _report_scores(console: Console, made: QuantizedModel, output: Path, most_drop: float) -> None:
    """Print the scores of both models, and refuse a model that scores too little."""
    from septa.display import say

    say(console, f"{len(made.reduced.images)} images that the model was not trained on:")
    console.print(made.table())
    if made.drop > most_drop:
        problem = f"the model is not written, because its score drops by {made.drop:.4f}, more than {most_drop:g}"
        remedy = f"Give --most-drop {math.ceil(made.drop * 1000) / 1000:g} to write it anyway"
        raise errors.InputError(output, problem, remedy)
