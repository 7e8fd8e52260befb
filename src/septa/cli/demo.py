"""``septa demo``: Run the whole workflow on synthetic cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from septa.cli.options import MINUTES, argument, make_console, option

EXAMPLE = "septa demo my-demo --minutes 1"


def demo(
    folder: Annotated[Path, argument("FOLDER", "Folder to write everything to.")] = Path("septa-demo"),
    overwrite: Annotated[bool, option("--overwrite", help="Replace the folder of an earlier demo.")] = False,
    minutes: Annotated[float, option("--minutes", kind=MINUTES, help="Time limit of the training.")] = 2.0,
) -> None:
    """Run the whole workflow on synthetic cells.

    The demo draws images of touching cells, trains on them, segments other images, compares the result with the ground
    truth, and writes a report. It needs no data and no network.
    """
    from septa.demo import run_demo

    run_demo(make_console(), folder, minutes=minutes, overwrite=overwrite)
