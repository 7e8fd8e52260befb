"""``septa reproduce``: Train and evaluate a preset beside its published figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from septa.cli.options import (
    Device,
    Seed,
    Settings,
    all_overrides,
    given_recipe,
    make_console,
)


def reproduce(
    preset: Annotated[str, typer.Argument(metavar="PRESET", help="See 'septa presets'.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of images and labels; drawn where a preset allows.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for everything.")] = None,
    minutes: Annotated[float, typer.Option("--minutes", help="Time budget of the training.")] = 15.0,
    settings: Settings = None,
    seed: Seed = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin again, replacing what is there.")] = False,
    device: Device = "auto",
) -> None:
    """Check, train, evaluate and report a preset, beside the figures that were published for it."""
    overrides = all_overrides(settings, seed=seed)
    given_recipe(None, preset, overrides)
    from septa.reproduce import reproduce as run

    folder = output or Path(f"reproduce-{preset}")
    run(make_console(), preset, data, minutes, folder, overrides=overrides, device=device, overwrite=overwrite)
