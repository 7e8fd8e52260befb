"""``septa reproduce``: Train a preset and compare it with its published figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from septa.cli.commands import INPUT, OUTPUT, RUN
from septa.cli.options import (
    MINUTES,
    Device,
    Seed,
    Settings,
    argument,
    load_recipe,
    make_console,
    make_overrides,
    option,
)
from septa.cli.values import path, word

EXAMPLE = "septa reproduce shapes --minutes 3"


def reproduce(
    preset: Annotated[
        str, argument("PRESET", "Name of a preset; 'septa presets' lists them.", kind=word("PRESET", "paper"))
    ],
    data: Annotated[
        Path | None,
        option(
            "--data",
            heading=INPUT,
            kind=path(example="cells"),
            help="Folder of images and label images. By default synthetic images are drawn, if the preset allows it.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        option(
            "-o",
            "--output",
            heading=OUTPUT,
            kind=path(example="results"),
            help="Folder to write everything to. The default is reproduce-PRESET.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, option("--overwrite", heading=OUTPUT, help="Start again and replace the files of an earlier run.")
    ] = False,
    settings: Settings = None,
    minutes: Annotated[
        float, option("--minutes", heading=RUN, kind=MINUTES, help="Time limit of the training.")
    ] = 15.0,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Train a preset and compare it with its published figures.

    The data are checked, the preset is trained on them, and the model is evaluated on images that were held out. A page
    lists the measured figures next to the published ones, and how the protocols differ.
    """
    overrides = make_overrides(settings, seed=seed)
    load_recipe(None, preset, overrides)
    from septa.reproduce import reproduce as run

    run(
        make_console(),
        preset,
        data,
        minutes,
        output or Path(f"reproduce-{preset}"),
        overrides=overrides,
        device=device,
        overwrite=overwrite,
    )
