"""``septa demo``: Run the whole job on synthetic cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from septa.cli.options import (
    make_console,
)


def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write everything to.")] = Path(
        "septa-demo"
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder of an earlier demo.")] = False,
    minutes: Annotated[float, typer.Option("--minutes", help="Time budget of the training.")] = 2.0,
) -> None:
    """The whole job on synthetic cells: draw, train, segment held-out images, evaluate, report."""
    from septa.demo import run_demo

    run_demo(make_console(), folder, minutes=minutes, overwrite=overwrite)
