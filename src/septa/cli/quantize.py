"""``septa quantize``: Convert a model to 8-bit integers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from septa import errors
from septa.cli.options import (
    MAX_PIXELS,
    ImagesGlob,
    LabelsGlob,
    MaxPixels,
    make_console,
)


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
            notify=tell, progress=progress,
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
