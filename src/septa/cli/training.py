"""Commands that train, and that tell what would be trained."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from septa import errors
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
    parse_size,
)

if TYPE_CHECKING:
    from septa.training.profile import Profiled


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
    from septa.display import progress_bar, show_training
    from septa.training.plan import Request
    from septa.training.run import train_steps

    console = make_console()
    profiles: list[Profiled] = []

    def tell(profiled: Profiled) -> None:
        profiles.append(profiled)
        console.print(profiled.table())
        console.print(f"profile: {profiled.text}, {profiled.trace}", highlight=False, markup=False)

    output = output or Path(f"{data.resolve().name}.septa")
    request = Request(
        data, output, images, labels, given, overrides, resume, overwrite, device, tensorboard, _command_line(),
        max_pixels,
    )  # fmt: skip
    with progress_bar(console, "checking the data") as progress:
        events = train_steps(request, progress, tell if profile else None)
        first = next(events, None)
    done = show_training(console, _again(first, events)) if first is not None else None
    if done is not None:
        if profile and not profiles:
            console.print("no profile: the training ended while it warmed up", markup=False)
        console.print(done.evaluation.table())
        told = f"model: {done.path} (weights sha256 {done.model.weights_sha256})"
        console.print(told, highlight=False, markup=False)
        console.print(f"report: {done.report}", highlight=False, markup=False)


def _again(first: Any, rest: Any) -> Any:
    yield first
    yield from rest


def _command_line() -> str:
    return shlex.join(["septa", *sys.argv[1:]])


def recipe(
    data: DataFolder,
    images: ImagesGlob = None,
    labels: LabelsGlob = None,
    recipe: RecipeFile = None,
    preset: Preset = None,
    settings: Settings = None,
    minutes: Minutes = None,
    group: Group = None,
    task: Task = None,
    seed: Seed = None,
    device: Device = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Print the recipe that 'septa train' would use, with the reason of each choice."""
    overrides = all_overrides(settings, minutes, group, seed, task)
    given = given_recipe(recipe, preset, overrides)
    from septa.display import progress_bar
    from septa.training.plan import Request, plan_recipe

    request = Request(data, Path("x.septa"), images, labels, given, overrides, device=device, max_pixels=max_pixels)
    with progress_bar(make_console(stderr=True), "checking the data") as progress:
        _, choice = plan_recipe(request, progress)
    print(choice.recipe.to_yaml(choice.reasons), end="")


def presets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The preset to print.")] = None,
) -> None:
    """List the recipes that septa ships, or print one as YAML."""
    from septa import presets as shipped

    if name is None:
        make_console().print(shipped.table())
    else:
        print(shipped.text(name), end="")


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


def describe(
    what: Annotated[str, typer.Argument(metavar="RECIPE|MODEL|PRESET", help="A .yaml file, a .septa file or a name.")],
    size: Annotated[str | None, typer.Option("--size", help="HEIGHTxWIDTH of the image in pixels.")] = None,
    settings: Settings = None,
    channels: Annotated[int | None, typer.Option("--channels", min=1, help="Channels of the image.")] = None,
    classes: Annotated[int | None, typer.Option("--classes", min=1, help="Classes, where there is no model.")] = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="Also draw the net.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the table as JSON.")] = None,
) -> None:
    """Layers, sizes, parameters, receptive field, operations and memory of a net."""
    path, overrides = Path(what), all_overrides(settings)
    for name, value in {"set": overrides, "channels": channels, "classes": classes}.items():
        if path.suffix == ".septa" and value:
            raise errors.InputError(f"--{name}", f"has no meaning for a model such as {what}", "leave it out")
    is_file = path.suffix in (".yaml", ".yml") or path.is_file()
    recipe = None
    if path.suffix != ".septa":
        recipe = given_recipe(path if is_file else None, None if is_file else what, overrides)
    from septa.describe import describe as describe_net
    from septa.describe import net_of
    from septa.describe import svg as draw
    from septa.images.write import write_text
    from septa.model import Model

    if recipe is None:
        loaded = Model.load(path)
        net, patch = loaded.net, loaded.recipe.sampling.patch
    else:
        recipe = recipe.with_overrides(overrides)
        net, patch = net_of(recipe, channels, classes), recipe.sampling.patch
    height, width = parse_size(size) if size else patch
    told = describe_net(net, height, width)
    make_console(wide=True).print(told.table())
    if svg is not None:
        write_text(svg, draw(net, height, width))
    if json_file is not None:
        write_text(json_file, told.to_json())
