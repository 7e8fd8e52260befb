"""``septa train``: Train a U-Net on a folder of images and label images."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from septa.cli.options import (
    MAX_PIXELS,
    DataFolder,
    Device,
    Group,
    ImagesGlob,
    LabelsGlob,
    MaxPixels,
    Minutes,
    Preset,
    RecipeFile,
    Seed,
    Settings,
    Task,
    all_overrides,
    given_recipe,
    make_console,
)

if TYPE_CHECKING:
    from septa.training import Profiled


def train(
    data: DataFolder,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Model to write, NAME.septa.")] = None,
    images: ImagesGlob = None,
    labels: LabelsGlob = None,
    recipe: RecipeFile = None,
    preset: Preset = None,
    settings: Settings = None,
    minutes: Minutes = None,
    group: Group = None,
    task: Task = None,
    seed: Seed = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin again, replacing what is there.")] = False,
    device: Device = "auto",
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also log to TensorBoard.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Tell where the time of one epoch goes.")] = False,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Train a U-Net on a folder of images and label images."""
    overrides = all_overrides(settings, minutes, group, seed, task)
    given = given_recipe(recipe, preset, overrides)
    if profile:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # PyTorch reads it when it is loaded: no word of its profiler
    from septa.display import evaluation_table, progress_bar, show_training
    from septa.training import TrainingRequest, train_steps

    console = make_console()
    profiles: list[Profiled] = []

    def tell(profiled: Profiled) -> None:
        profiles.append(profiled)
        console.print(profiled.table())
        console.print(f"profile: {profiled.text}, {profiled.trace}", highlight=False, markup=False)

    output = output or Path(f"{data.resolve().name}.septa")
    request = TrainingRequest(
        data=data,
        output=output,
        images=images,
        labels=labels,
        recipe=given,
        overrides=overrides,
        resume=resume,
        overwrite=overwrite,
        device=device,
        tensorboard=tensorboard,
        command=_command_line(),
        max_pixels=max_pixels,
    )
    with progress_bar(console, "checking the data") as progress:
        events = train_steps(request, progress, tell if profile else None)
        first = next(events, None)
    done = show_training(console, _again(first, events)) if first is not None else None
    if done is not None:
        if profile and not profiles:
            console.print("no profile: the training ended while it warmed up", markup=False)
        console.print(evaluation_table(done.evaluation))
        told = f"model: {done.path} (weights sha256 {done.model.weights_sha256})"
        console.print(told, highlight=False, markup=False)
        console.print(f"report: {done.report}", highlight=False, markup=False)


def _again(first: Any, rest: Any) -> Any:
    yield first
    yield from rest


def _command_line() -> str:
    return shlex.join(["septa", *sys.argv[1:]])
