"""Options and small helpers that several commands share."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from septa import errors

if TYPE_CHECKING:
    from rich.console import Console

    from septa.recipe import Recipe

DataFolder = Annotated[Path, typer.Argument(metavar="DATA", help="Folder of images and labels.")]
ImagesGlob = Annotated[str | None, typer.Option("--images", help="Glob of the images, for any other layout.")]
LabelsGlob = Annotated[str | None, typer.Option("--labels", help="Glob of the label images.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="Recipe (YAML); chosen from the data when absent.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Override: section.key=value; may be repeated.")]
Minutes = Annotated[float | None, typer.Option("--minutes", help="Time budget for all of the training.")]
Group = Annotated[str | None, typer.Option("--group", help="Regex on file names; equal matches stay together.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of all randomness.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="torch (+bf16, +fp16, +compile), openvino, onnxruntime or auto (the fastest); the model's own if absent.",
    ),
]
Tile = Annotated[int | None, typer.Option("--tile", min=1, help="Largest side of a tile in pixels.")]
MaxPixels = Annotated[int, typer.Option("--max-pixels", min=1, help="Largest image accepted, in pixels.")]
Task = Annotated[
    str | None,
    typer.Option("--task", help="semantic, instances or auto (told from the labels); the recipe's, else auto."),
]
Preset = Annotated[str | None, typer.Option("--preset", help="A recipe that septa ships: see 'septa presets'.")]
Tta = Annotated[
    int | None, typer.Option("--tta", min=1, max=8, help="Average over so many rotated and mirrored versions.")
]
Prune = Annotated[int | None, typer.Option("--prune", min=1, help="Use only so many levels of a U-Net++.")]
Output = Annotated[
    Path,
    typer.Option("-o", "--output", help="Folder for label images; or NAME.ome.zarr or .ome.tif for one of any size."),
]
Format = Annotated[str | None, typer.Option("--format", help="png or tif; from the input when absent.")]
MinConfidence = Annotated[
    float | None, typer.Option("--min-confidence", min=0, max=1, help="Drop objects that are less sure.")
]
Memory = Annotated[str | None, typer.Option("--memory", help="Most memory for a store, of each worker; such as 4GB.")]
Level = Annotated[int | None, typer.Option("--level", min=0, help="Level of the image's pyramid.")]
Channels = Annotated[str | None, typer.Option("--channels", help="Channels to take, such as 0 or 2,0.")]
Region = Annotated[str | None, typer.Option("--region", help="Only TOP,LEFT,BOTTOM,RIGHT, in pixels.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Do it with N processes (septa[cluster]).")]
ClusterAddress = Annotated[
    str | None, typer.Option("--cluster", help="Do it on a Dask cluster, such as tcp://host:8786.")
]
TlsCa = Annotated[Path | None, typer.Option("--tls-ca", help="Certificate authority of a tls:// cluster.")]
TlsCert = Annotated[Path | None, typer.Option("--tls-cert", help="Certificate for a tls:// cluster.")]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="Its key, where that is a file of its own.")]
MAX_PIXELS = 2_000_000_000  # that of septa.images.read, which takes numpy to import


@contextmanager
def loading() -> Iterator[None]:
    """Import packages and read a model without looking for garbage in what they make, neither meanwhile nor later.

    Nearly all of it stays until the end. Python would go through these hundred thousands of objects again and again,
    which takes as long as it takes to import everything but torch.
    """
    usual = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if usual:
            gc.enable()


def make_console(stderr: bool = False, wide: bool = False) -> Console:
    """A console that leaves the wrapping of long lines to the terminal; ``wide`` is for wide tables in a file."""
    from rich.console import Console

    console = Console(stderr=stderr, soft_wrap=True)
    if wide and not console.is_terminal:
        console.width = 140
    return console


def all_overrides(
    settings: list[str] | None,
    minutes: float | None = None,
    group: str | None = None,
    seed: int | None = None,
    task: str | None = None,
) -> tuple[str, ...]:
    """The assignments of ``--set`` and those that other options stand for."""
    given = {"training.minutes": minutes, "data.group": group, "seed": seed, "task": task}
    return (*(settings or ()), *(f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None))


def given_recipe(path: Path | None, preset: str | None, overrides: tuple[str, ...]) -> Recipe | None:
    """The recipe of ``--recipe`` or ``--preset``; it and the overrides are checked before anything slow is loaded."""
    from septa import presets
    from septa.recipe import Recipe

    if path is not None and preset is not None:
        raise errors.InputError("--preset", "and --recipe both give a recipe", "give one of them")
    given = presets.load_recipe(preset) if preset is not None else None if path is None else Recipe.load(path)
    (given or Recipe()).with_overrides(overrides)
    return given


def refuse_options(first: Path, what: str, **options: object) -> None:
    """InputError for the first option that was given and has no meaning here."""
    for name, value in options.items():
        if value:
            raise errors.InputError(
                f"--{name.replace('_', '-')}", f"has no meaning for {what} such as {first}", "leave it out"
            )


def parse_size(text: str) -> tuple[int, int]:
    """``HEIGHTxWIDTH`` as two numbers."""
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()) or min(int(height), int(width)) < 1:
        raise errors.InputError(f"--size {text}", "is not HEIGHTxWIDTH", "write for example 256x256")
    return int(height), int(width)
