"""``septa demo``: Show the shipped models on real images, or a training on drawn cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from septa.cli.options import MINUTES, argument, make_console, option

EXAMPLE = "septa demo my-demo --train"


def demo(
    folder: Annotated[Path, argument("FOLDER", "Folder to write everything to.")] = Path("septa-demo"),
    overwrite: Annotated[bool, option("--overwrite", help="Replace the folder of an earlier demo.")] = False,
    train: Annotated[bool, option("--train", help="Train a model on drawn cells instead.")] = False,
    minutes: Annotated[
        float | None,
        option("--minutes", kind=MINUTES, help="Time limit of the training, by default 2; it includes --train."),
    ] = None,
) -> None:
    """Segment real images with a shipped model, or show a training.

    The demo segments example images in seconds, and compares the result with the ground truth. With --train it draws
    images of touching cells, trains on them, segments other images, and writes a report. It needs no data and no
    network.
    """
    from septa.demo import MINUTES as DEFAULT
    from septa.demo import run_demo

    run_demo(make_console(), folder, minutes=minutes or (DEFAULT if train else None), overwrite=overwrite)
