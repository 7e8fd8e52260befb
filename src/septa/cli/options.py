"""Options and small helpers that several commands share."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from septa import errors
from septa.cli.commands import INPUT, OUTPUT, RECIPE, RUN, SPEED
from septa.cli.values import PAIRS, ValueKind, choice, number, path, regex, whole_number, word

if TYPE_CHECKING:
    from rich.console import Console

    from septa.images import Guard
    from septa.recipe import Recipe
    from septa.training import TrainingRequest

MAX_PIXELS = 2_000_000_000
"""Default of ``--max-pixels``; equal to `septa.images.MAX_PIXELS`, whose import takes numpy."""


def argument(metavar: str, help: str, kind: ValueKind | None = None) -> Any:
    """Define an argument; its value is a path unless ``kind`` is given."""
    return typer.Argument(metavar=metavar, help=help, parser=_make_parser(metavar, kind or path(example="a path")))


def option(*names: str, help: str, heading: str | None = None, kind: ValueKind | None = None) -> Any:
    """Define an option under a heading of `septa.cli.commands`; without a kind of value it is a flag."""
    if kind is None:
        return typer.Option(*names, help=help, rich_help_panel=heading)
    return typer.Option(
        *names, help=help, rich_help_panel=heading, metavar=kind.metavar, parser=_make_parser(names[-1], kind)
    )


def _make_parser(name: str, kind: ValueKind) -> Callable[[Any], Any]:
    """Return the function that typer calls with each word, and also with default values, which stay as they are."""

    def parse(value: Any) -> Any:
        return kind.read(name, value) if isinstance(value, str) else value

    return parse


ModelFile = Annotated[Path, argument("MODEL", "Model file (NAME.septa), or name of a shipped model.")]
DataFolder = Annotated[Path, argument("DATA", "Folder of images and label images.")]
ImagesGlob = Annotated[
    str | None,
    option(
        "--images",
        heading=INPUT,
        kind=word("GLOB", "'raw/*.tif'"),
        help="Quoted glob relative to the data folder, for any other folder layout.",
    ),
]
LabelsGlob = Annotated[
    str | None,
    option(
        "--labels",
        heading=INPUT,
        kind=word("GLOB", "'gt/*.tif'"),
        help="Quoted glob of the label files that belong to --images.",
    ),
]
MaxPixels = Annotated[
    int,
    option(
        "--max-pixels",
        heading=INPUT,
        kind=whole_number(least=1, example=MAX_PIXELS),
        help="Refuse an image with more pixels before it is decoded.",
    ),
]
RecipeFile = Annotated[
    Path | None,
    option(
        "--recipe",
        heading=RECIPE,
        kind=path(example="mine.yaml"),
        help="YAML file with the settings of the training. By default they are chosen from the data.",
    ),
]
Preset = Annotated[
    str | None,
    option(
        "--preset",
        heading=RECIPE,
        kind=word("NAME", "paper"),
        help="Settings that ship with septa under this name; 'septa presets' lists them.",
    ),
]
Settings = Annotated[
    list[str] | None,
    option(
        "--set",
        heading=RECIPE,
        kind=word("SECTION.KEY=VALUE", "net.width=16"),
        help="Change one setting of the recipe. May be repeated.",
    ),
]
Task = Annotated[
    str | None,
    option(
        "--task",
        heading=RECIPE,
        kind=choice("semantic", "instances", "auto"),
        help="Label pixels by class, or separate objects. The default is the recipe's choice, else auto, which infers "
        "the task from the labels.",
    ),
]
Group = Annotated[
    str | None,
    option(
        "--group",
        heading=RECIPE,
        kind=regex(example="'^[A-Z]+'"),
        help="Keep images whose file names match alike, such as those of one patient, on one side of the split.",
    ),
]
Pairs = Annotated[
    str | None,
    option(
        "--pairs",
        heading=INPUT,
        kind=PAIRS,
        help="Use only these pairs, by their numbers from 0 in the order of the files; STOP is not included.",
    ),
]
Overwrite = Annotated[
    bool, option("--overwrite", heading=OUTPUT, help="Replace existing files that septa did not write.")
]
MINUTES = number(above=0, example=10, metavar="MINUTES")
Minutes = Annotated[
    float | None,
    option("--minutes", heading=RUN, kind=MINUTES, help="Time limit of the whole training. The default is none."),
]
Seed = Annotated[
    int | None,
    option(
        "--seed",
        heading=RUN,
        kind=whole_number(least=0, most=2**32 - 1, example=7),
        help="Number that fixes all random choices. The default is the recipe's.",
    ),
]
Device = Annotated[
    str,
    option(
        "--device",
        heading=SPEED,
        kind=word("NAME", "cpu"),
        help="Hardware to compute on: auto, cpu, cuda, cuda:N or mps.",
    ),
]

Start = Annotated[
    str | None,
    option(
        "--from",
        heading=RECIPE,
        kind=word("NAME|MODEL", "cells.septa"),
        help="Fine-tune this shipped model or model file; 'scratch' starts with new weights. The default is the "
        "shipped model that finds the objects best, if it finds enough and no recipe is given.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """The options that decide what is trained: all of ``septa recipe``, and part of ``septa train``."""

    data: DataFolder
    images: ImagesGlob = None
    labels: LabelsGlob = None
    max_pixels: MaxPixels = MAX_PIXELS
    recipe: RecipeFile = None
    preset: Preset = None
    start: Start = None
    settings: Settings = None
    task: Task = None
    group: Group = None
    pairs: Pairs = None
    minutes: Minutes = None
    seed: Seed = None
    device: Device = "auto"

    def make_request(self, output: Path, **more: Any) -> TrainingRequest:
        """Return the training that the options ask for.

        Parameters
        ----------
        output
            Model file to write.
        more
            Further fields of the request.

        Raises
        ------
        InputError
            The recipe or an override is wrong. This is checked before anything slow is imported.
        """
        overrides = make_overrides(self.settings, **{name: getattr(self, name) for name in _KEYS})
        recipe = load_recipe(self.recipe, self.preset, overrides)
        from septa.training import TrainingRequest

        return TrainingRequest(
            data=self.data,
            output=output,
            images=self.images,
            labels=self.labels,
            recipe=recipe,
            overrides=overrides,
            device=self.device,
            max_pixels=self.max_pixels,
            **more,
        )


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Pause garbage collection while packages are imported and a model is read.

    Nearly all of these objects live until the program ends. Python would search these hundreds of thousands of objects
    for garbage again and again, which takes as long as importing everything but torch. They are excluded from later
    collections, too.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def make_console(stderr: bool = False, wide: bool = False) -> Console:
    """Return a console that leaves wrapping long lines to the terminal.

    Parameters
    ----------
    stderr
        True to print on stderr.
    wide
        True to print tables up to 140 columns wide where the output is not a terminal.
    """
    from rich.console import Console

    console = Console(stderr=stderr, soft_wrap=True)
    if wide and not console.is_terminal:
        console.width = 140
    return console


_KEYS = {name: name for name in ("seed", "task")} | {"minutes": "training.minutes", "start": "training.start"}
_KEYS |= {"group": "data.group", "pairs": "data.pairs"}
"""Setting that each option stands for."""


def make_overrides(settings: list[str] | None, **options: object) -> tuple[str, ...]:
    """Return the assignments of ``--set``, followed by those that other options stand for.

    Parameters
    ----------
    settings
        Assignments, or None.
    options
        Values of some of these options; None where an option is not given.
    """
    given = (f"{_KEYS[name]}={json.dumps(value)}" for name, value in options.items() if value is not None)
    return (*(settings or ()), *given)


def load_recipe(file: Path | None, preset: str | None, overrides: tuple[str, ...]) -> Recipe | None:
    """Return the recipe of ``--recipe`` or ``--preset``, without the overrides, or None if neither is given.

    Raises
    ------
    InputError
        Both are given, there is no such recipe, or an override does not fit. Nothing slow is imported to find out.
    """
    from septa import presets
    from septa.recipe import Recipe

    if file is not None and preset is not None:
        raise errors.InputError("", "--preset and --recipe cannot be combined", "Give one of them")
    recipe = None
    if preset is not None:
        recipe = presets.load_recipe(preset)
    elif file is not None:
        recipe = Recipe.load(file)
    (recipe or Recipe()).with_overrides(overrides)
    return recipe


def guard_files(files: Iterable[Path | None], overwrite: bool, inputs: Iterable[Path] = ()) -> Guard:
    """Check the files that a command will write before its work, and return the guard to write them with.

    Parameters
    ----------
    files
        Files that options name; None where an option is not given.
    overwrite
        True to replace files that septa did not write.
    inputs
        Files that are never replaced.

    Raises
    ------
    InputError
        A file exists that septa did not write, or is an input; or ``overwrite`` is given and no file.
    """
    from septa.images import WrittenFiles

    given = dict.fromkeys(file for file in files if file is not None)
    if overwrite and not given:
        refuse_options({"overwrite": True}, "a command without an output file")
    written = WrittenFiles(overwrite, inputs)
    written.check(given)
    return written.guard()


def refuse_options(options: Mapping[str, object], subject: str) -> None:
    """Raise InputError for the first option that is given but does not apply.

    Parameters
    ----------
    options
        Values by the name of the option; one that is false counts as not given.
    subject
        What the options do not apply to.
    """
    for name, value in options.items():
        if value:
            problem = f"this option does not apply to {subject}"
            raise errors.InputError(f"--{name.replace('_', '-')}", problem, "Leave it out")
