"""``septa synth``: Draw a synthetic dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from septa.cli.options import (
    parse_size,
)


def synth(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write images/ and labels/ to.")],
    kind: Annotated[str, typer.Option("--kind", help="cells, shapes or oct.")] = "cells",
    count: Annotated[int, typer.Option("--count", help="Number of images.")] = 20,
    size: Annotated[str, typer.Option("--size", help="HEIGHTxWIDTH in pixels.")] = "256x256",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the drawings.")] = 0,
) -> None:
    """Draw a synthetic dataset: fluorescent cells, figures with overlapping masks, or OCT scans with fluid."""
    from septa.synthetic import write_dataset

    written = write_dataset(folder, kind, count, parse_size(size), seed)  # type: ignore[arg-type]
    print(f"{len(written)} images with labels in {folder}")
