"""``septa synth``: Draw a synthetic dataset with exact labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from septa.cli.options import argument, option
from septa.cli.values import SIZE, choice, number, whole_number
from septa.errors import escape_controls, format_count

EXAMPLE = "septa synth drawn --kind cells --count 8"


def synth(
    folder: Annotated[Path, argument("FOLDER", "Folder to write images/ and labels/ to.")],
    kind: Annotated[
        Literal["cells", "shapes", "oct"],
        option(
            "--kind",
            kind=choice("cells", "shapes", "oct"),
            help="Fluorescent cells that touch, figures with overlapping masks, or OCT scans with fluid.",
        ),
    ] = "cells",
    count: Annotated[int, option("--count", kind=whole_number(least=1, example=20), help="Number of images.")] = 20,
    size: Annotated[tuple[int, int], option("--size", kind=SIZE, help="Height and width of each image in pixels.")] = (
        256,
        256,
    ),
    seed: Annotated[int, option("--seed", kind=whole_number(least=0, example=7), help="Seed of the drawings.")] = 0,
    diameter: Annotated[
        float | None,
        option(
            "--diameter",
            kind=number(least=6, most=200, example=40, metavar="PIXELS"),
            help="Typical diameter of the cells; by default each image has its own, 16 to 28.",
        ),
    ] = None,
) -> None:
    """Draw a synthetic dataset with exact labels."""
    from septa.synthetic import write_dataset

    written = write_dataset(folder, kind, count, size, seed, diameter=diameter)
    print(escape_controls(f"{format_count(len(written), 'image')} with labels in {folder}"))
