"""The command line: one thin subcommand for each workflow. Heavy packages load inside the command that uses them."""

from __future__ import annotations

import json
import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from septa import __version__, errors, runtime

if TYPE_CHECKING:
    from rich.console import Console

    from septa.recipe import Recipe

app = typer.Typer(
    name="septa",
    help="A folder of microscopy images and label images becomes a trained U-Net, which segments images of any size.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DataFolder = Annotated[Path, typer.Argument(metavar="DATA", help="Folder of images and labels.")]
ImagesGlob = Annotated[str | None, typer.Option("--images", help="Glob of the images, for any other layout.")]
LabelsGlob = Annotated[str | None, typer.Option("--labels", help="Glob of the label images.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="Recipe (YAML); chosen from the data when absent.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Override: section.key=value; may be repeated.")]
Minutes = Annotated[float | None, typer.Option("--minutes", help="Time budget for all of the training.")]
Group = Annotated[str | None, typer.Option("--group", help="Regex on file names; equal matches stay together.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of all randomness.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Tile = Annotated[int | None, typer.Option("--tile", min=1, help="Largest side of a tile in pixels.")]
MaxPixels = Annotated[int, typer.Option("--max-pixels", min=1, help="Largest image accepted, in pixels.")]
MAX_PIXELS = 2_000_000_000  # that of septa.images.read, which takes numpy to import


def main() -> NoReturn:
    """Run the command line; the exit code is that of the first `septa.errors` kind raised, or 0."""
    debug = "--debug" in sys.argv
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)  # the code of a typer.Exit, else None
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except errors.SeptaError as error:
        if debug:
            traceback.print_exc()
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _fail("septa: interrupted", 130)
    except Exception as error:
        if debug:
            raise
        _unexpected(error)
    sys.exit(code or 0)


def _unexpected(error: Exception) -> NoReturn:
    if isinstance(error, MemoryError):
        _fail("memory: does not suffice. give a smaller --tile or fewer images at once.", 4)
    told = getattr(error, "format_message", None)
    if told is not None:  # a mistake in the arguments, found by the parser
        context = getattr(error, "ctx", None)
        command = "septa" if context is None or context.parent is None else f"septa {context.info_name}"
        _fail(f"{command}: {told().rstrip('.')}. '{command} --help' lists what it takes.", 2)
    what = f"unexpected {type(error).__name__} ({' '.join(str(error).split())})"
    _fail(f"septa: {what}. run again with --debug before the command and report it.", 1)


def _fail(line: str, code: int) -> NoReturn:
    print(line, file=sys.stderr)
    sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"septa {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    prepare: Annotated[bool, typer.Option(help="Set the process up for speed (huge pages, allocator).")] = True,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command."""
    if prepare:
        runtime.prepare()


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, soft_wrap=True)


def _overrides(
    settings: list[str] | None, minutes: float | None, group: str | None, seed: int | None
) -> tuple[str, ...]:
    given = {"training.minutes": minutes, "data.group": group, "seed": seed}
    return (*(settings or ()), *(f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None))


def _recipe(path: Path | None, overrides: tuple[str, ...]) -> Recipe | None:
    """The recipe of ``--recipe``; it and the overrides are checked before anything slow is loaded."""
    from septa.recipe import Recipe

    given = None if path is None else Recipe.load(path)
    (given or Recipe()).with_overrides(overrides)
    return given


@app.command()
def train(
    data: DataFolder,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Model to write, NAME.septa.")] = None,
    images: ImagesGlob = None,
    labels: LabelsGlob = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    minutes: Minutes = None,
    group: Group = None,
    seed: Seed = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin again, replacing what is there.")] = False,
    device: Device = "auto",
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also log to TensorBoard.")] = False,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Train a U-Net on a folder of images and label images."""
    overrides = _overrides(settings, minutes, group, seed)
    given = _recipe(recipe, overrides)
    from septa.display import progress_bar, show_training
    from septa.training.plan import Request
    from septa.training.run import train_steps

    console = _console()
    output = output or Path(f"{data.resolve().name}.septa")
    request = Request(
        data, output, images, labels, given, overrides, resume, overwrite, device, tensorboard, _command(),
        max_pixels,
    )  # fmt: skip
    with progress_bar(console, "checking the data") as progress:
        events = train_steps(request, progress)
        first = next(events, None)
    done = show_training(console, _again(first, events)) if first is not None else None
    if done is not None:
        console.print(done.evaluation.table())
        told = f"model: {done.path} (weights sha256 {done.model.weights_sha256})"
        console.print(told, highlight=False, markup=False)
        console.print(f"report: {done.report}", highlight=False, markup=False)


def _again(first: Any, rest: Any) -> Any:
    yield first
    yield from rest


def _command() -> str:
    return shlex.join(["septa", *sys.argv[1:]])


@app.command()
def recipe(
    data: DataFolder,
    images: ImagesGlob = None,
    labels: LabelsGlob = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    minutes: Minutes = None,
    group: Group = None,
    seed: Seed = None,
    device: Device = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Print the recipe that 'septa train' would use, with the reason of each choice."""
    overrides = _overrides(settings, minutes, group, seed)
    given = _recipe(recipe, overrides)
    from septa.display import progress_bar
    from septa.training.plan import Request, plan_recipe

    request = Request(data, Path("x.septa"), images, labels, given, overrides, device=device, max_pixels=max_pixels)
    with progress_bar(_console(stderr=True), "checking the data") as progress:
        _, choice = plan_recipe(request, progress)
    print(choice.recipe.to_yaml(choice.reasons), end="")


@app.command()
def check(
    data: DataFolder,
    images: ImagesGlob = None,
    labels: LabelsGlob = None,
    settings: Settings = None,
    group: Group = None,
    seed: Seed = None,
    html: Annotated[Path | None, typer.Option("--html", help="Also write a page with thumbnails.")] = None,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """List everything that would break or spoil a training; exit code 2 if it would fail."""
    from septa.data.doctor import check as check_data
    from septa.data.doctor import check_html
    from septa.display import progress_bar
    from septa.images.write import write_text
    from septa.recipe import Recipe

    console = _console()
    base = Recipe().with_overrides(_overrides(settings, None, group, seed))
    with progress_bar(console, "checking") as progress:
        checkup = check_data(
            data,
            images=images,
            labels=labels,
            settings=base.data,
            seed=base.seed,
            max_pixels=max_pixels,
            progress=progress,
        )
    for note in checkup.notes:
        console.print(note, highlight=False, markup=False)
    for problem in checkup.problems:
        console.print(f"{problem.severity}: {problem}", style="red" if problem.severity == "error" else "yellow",
                      highlight=False, markup=False)  # fmt: skip
    if html is not None:
        write_text(html, check_html(checkup))
        console.print(f"page: {html}", highlight=False, markup=False)
    bad = sum(problem.severity == "error" for problem in checkup.problems)
    console.print(f"{bad} errors, {len(checkup.problems) - bad} warnings", highlight=False)
    if checkup.fatal:
        raise typer.Exit(2)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model, NAME.septa.")],
    inputs: Annotated[list[str], typer.Argument(metavar="IMAGES...", help="Image files, folders or quoted globs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the label images.")],
    suffix: Annotated[str | None, typer.Option("--format", help="png or tif; from the input when absent.")] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write class probabilities.")] = False,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write pictures with the labels laid over.")] = False,
    certify: Annotated[bool, typer.Option("--certify", help="Compare with the whole image, untiled.")] = False,
    tile: Tile = None,
    device: Device = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Segment images of any size."""
    from septa.display import progress_bar
    from septa.model import Model
    from septa.segment import Failed, Options, find_images, segment_files

    if suffix not in (None, "png", "tif"):
        raise errors.InputError(f"--format {suffix}", "is neither png nor tif", "give one of them")
    console = _console()
    paths = find_images(inputs)
    loaded = Model.load(model)
    ending = None if suffix is None else f".{suffix}"
    options = Options(output, ending, probabilities, overlay, certify, tile, device, max_pixels)
    console.print(
        f"{len(paths)} images with {model} to {output}; {loaded.labels.describe()}", highlight=False, markup=False
    )
    failed = []
    with progress_bar(console, "segmenting") as progress:
        for number, result in enumerate(segment_files(loaded, paths, options)):
            if isinstance(result, Failed):
                failed.append(result)
                print(result.error, file=sys.stderr)
            else:
                console.print(_told(result), highlight=False, markup=False)
            progress(number + 1, len(paths))
    if len(failed) == len(paths) == 1:
        raise typer.Exit(failed[0].error.exit_code)
    if failed:
        raise errors.PartialFailure(
            output, f"{len(failed)} of {len(paths)} images failed, the rest is done", "see the lines above"
        )


def _told(result: Any) -> str:
    parts = [f"{result.labels}: {result.tiles} tile{'s' if result.tiles > 1 else ''}"]
    if result.tiles > 1:
        parts.append(f"{result.overhead - 1:.0%} computed twice")
    if result.tiles > 1 and not result.exact:
        parts.append("not exactly the whole image's: this norm pools over a tile")
    if any(result.padding):
        parts.append(f"edge repeated by {result.padding[0]} rows and {result.padding[1]} columns inside the net")
    if result.difference is not None:
        parts.append(f"largest difference to the whole image {result.difference:g}")
    return ", ".join(parts)


@app.command()
def evaluate(
    first: Annotated[Path, typer.Argument(metavar="MODEL|PREDICTIONS", help="A model, or a folder of label images.")],
    second: Annotated[Path, typer.Argument(metavar="DATA|LABELS", help="Labelled data, or the true label images.")],
    images: ImagesGlob = None,
    labels: LabelsGlob = None,
    settings: Settings = None,
    every: Annotated[bool, typer.Option("--all", help="Score the images too that the model was trained on.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all scores as JSON.")] = None,
    tile: Tile = None,
    device: Device = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Score a model on labelled images, or label images against the true ones."""
    from septa.display import progress_bar
    from septa.evaluation import evaluate as evaluate_model
    from septa.evaluation import evaluate_files
    from septa.images.write import write_text
    from septa.recipe import Recipe

    console = _console()
    if first.is_dir():
        _refuse_options(first, "label images", images=images, labels=labels, all=every, tile=tile)
        result = evaluate_files(first, second, Recipe().with_overrides(settings or ()).data, max_pixels=max_pixels)
    else:
        _refuse_options(first, "a model", set=settings)
        with progress_bar(console, "segmenting") as progress:
            result = evaluate_model(
                first, second, images=images, labels=labels, every=every, tile=tile, device=device,
                max_pixels=max_pixels, progress=progress,
            )  # fmt: skip
    for note in result.notes:
        console.print(note, highlight=False, markup=False)
    console.print(result.table())
    if json_file is not None:
        write_text(json_file, json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n")


def _refuse_options(first: Path, what: str, **options: Any) -> None:
    for name, value in options.items():
        if value:
            raise errors.InputError(f"--{name}", f"has no meaning for {what} such as {first}", "leave it out")


@app.command()
def info(model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model, NAME.septa.")]) -> None:
    """Print what a model holds: recipe, labels, normalisation, provenance."""
    from septa.model import Model

    loaded = Model.load(model)
    net = loaded.net
    facts = {
        "channels": loaded.channels,
        "labels": loaded.labels.to_json(),
        "normalization": loaded.normalization.to_json(),
        "net": {"halo": net.halo, "receptive_field": net.receptive_field, "exact_tiles": net.exact_tiles},
        "recipe": loaded.recipe.model_dump(mode="json"),
        "provenance": loaded.provenance,
    }
    print(json.dumps(facts, indent=2))


@app.command()
def synth(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write images/ and labels/ to.")],
    kind: Annotated[str, typer.Option("--kind", help="cells or shapes.")] = "cells",
    count: Annotated[int, typer.Option("--count", help="Number of images.")] = 20,
    size: Annotated[str, typer.Option("--size", help="HEIGHTxWIDTH in pixels.")] = "256x256",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the drawings.")] = 0,
) -> None:
    """Draw a synthetic dataset: fluorescent cells, or geometric figures with overlapping masks."""
    from septa.data.synthetic import write_dataset

    height, _, width = size.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise errors.InputError(f"--size {size}", "is not HEIGHTxWIDTH", "write for example 256x256")
    written = write_dataset(folder, kind, count, (int(height), int(width)), seed)  # type: ignore[arg-type]
    print(f"{len(written)} images with labels in {folder}")


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write everything to.")] = Path(
        "septa-demo"
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder of an earlier demo.")] = False,
    minutes: Annotated[float, typer.Option("--minutes", help="Time budget of the training.")] = 2.0,
) -> None:
    """The whole job on synthetic cells: draw, train, segment held-out images, evaluate, report."""
    from septa.demo import run_demo

    run_demo(_console(), folder, minutes=minutes, overwrite=overwrite)
