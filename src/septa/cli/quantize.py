"""``septa quantize``: Convert a model to 8-bit integers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from septa import errors
from septa.cli.commands import INPUT, OUTPUT, RUN
from septa.cli.options import MAX_PIXELS, ImagesGlob, LabelsGlob, MaxPixels, ModelFile, make_console, option
from septa.cli.values import number, path

EXAMPLE = "septa quantize cells.septa --data cells -o cells-int8.septa"


TrainedOn = Annotated[
    Path,
    option("--data", heading=INPUT, kind=path(example="cells"), help="Data folder that the model was trained on."),
]
Output = Annotated[
    Path,
    option("-o", "--output", heading=OUTPUT, kind=path(example="int8.septa"), help="Model file to write (NAME.septa)."),
]
MostDrop = Annotated[
    float,
    option(
        "--most-drop",
        heading=RUN,
        kind=number(example=0.01),
        help="Largest accepted drop of the score. A model that loses more is not written.",
    ),
]
TuningMinutes = Annotated[
    float,
    option(
        "--minutes",
        heading=RUN,
        kind=number(example=3, metavar="MINUTES"),
        help="Time limit for tuning each version that is tried; 0 switches the tuning off.",
    ),
]


def quantize(
    model: ModelFile,
    data: TrainedOn,
    output: Output,
    overwrite: Annotated[bool, option("--overwrite", heading=OUTPUT, help="Replace an existing model file.")] = False,
    images: ImagesGlob = None,
    labels: LabelsGlob = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    most_drop: MostDrop = 0.005,
    minutes: TuningMinutes = 3.0,
) -> None:
    """Convert a model to 8-bit integers, which are faster on a CPU.

    The scores of both models on images that they were not trained on are printed. This command needs septa[openvino].
    """
    from septa.display import say, show_progress
    from septa.pretrained import locate_model
    from septa.quantization import quantize as quantize_model

    console = make_console()
    if output.resolve() == locate_model(model).resolve():
        raise errors.InputError(output, "the output is the model itself", "Give another name with -o")
    if output.exists() and not overwrite:
        raise errors.InputError(output, "the file exists", "Give another -o or --overwrite")
    with show_progress(console, "quantizing") as progress:
        made = quantize_model(
            model,
            data,
            images=images,
            labels=labels,
            most_drop=most_drop,
            minutes=minutes,
            max_pixels=max_pixels,
            notify=lambda line: say(console, line),
            progress=progress,
        )
    say(console, f"{len(made.integer.images)} images that the model was not trained on:")
    console.print(made.table())
    if made.drop > most_drop:
        problem = f"the model is not written, because its score drops by {made.drop:.4f}, more than {most_drop:g}"
        remedy = f"Give --most-drop {math.ceil(made.drop * 1000) / 1000:g} to write it anyway"
        raise errors.InputError(output, problem, remedy)
    made.model.save(output)
    before, after = (path.stat().st_size / 1e6 for path in (locate_model(model), output))
    say(console, f"model: {output} ({after:.1f} MB, {before:.1f} MB before; it includes the float weights)")
