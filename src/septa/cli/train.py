"""``septa train``: Train a U-Net on a folder of images and label images."""

from __future__ import annotations

import os
import shlex
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from septa.cli.commands import OUTPUT, RUN
from septa.cli.options import PlanOptions, make_console, option
from septa.cli.values import path, whole_number

if TYPE_CHECKING:
    from septa.training import TrainingProfile

MOST_FOLDS = 100
"""Largest number of folds, which is the largest number of nets in a model."""
EXAMPLE = "septa train cells -o cells.septa --minutes 10"


Folds = Annotated[
    int | None,
    option(
        "--folds",
        heading=RUN,
        kind=whole_number(least=2, most=MOST_FOLDS, example=5),
        help="Train N nets, each of which holds out other images, so that every image is scored; the model averages "
        "them. Training, file and prediction take N times as much; --minutes are shared.",
    ),
]


def train(
    options: PlanOptions,
    output: Annotated[
        Path | None,
        option(
            "-o",
            "--output",
            heading=OUTPUT,
            kind=path(example="cells.septa"),
            help="Model file to write (NAME.septa). The default is the name of DATA in the current folder. Log, "
            "checkpoints and report go to NAME-run next to it.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, option("--overwrite", heading=OUTPUT, help="Start again and replace an existing model and its run.")
    ] = False,
    folds: Folds = None,
    tensorboard: Annotated[
        bool,
        option("--tensorboard", heading=OUTPUT, help="Also write the curves for TensorBoard (needs septa[track])."),
    ] = False,
    resume: Annotated[
        bool, option("--resume", heading=RUN, help="Continue an interrupted training from its newest checkpoint.")
    ] = False,
    profile: Annotated[
        bool, option("--profile", heading=RUN, help="Measure one epoch and print where its time is spent.")
    ] = False,
) -> None:
    """Train a U-Net on a folder of images and label images.

    An interrupted training saves its state first; the same command with --resume continues it.
    """
    if profile:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # PyTorch reads it on import: its profiler then prints nothing
    request = options.make_request(
        output or Path(f"{options.data.resolve().name}.septa"),
        resume=resume,
        overwrite=overwrite,
        tensorboard=tensorboard,
        folds=folds or 0,
        command=shlex.join(["septa", *sys.argv[1:]]),
    )
    from septa.display import print_result, say, show_progress, show_training
    from septa.recipe import Recipe
    from septa.training import describe_cost, train_steps

    console = make_console()
    if folds is not None:
        say(console, describe_cost(folds, (request.recipe or Recipe()).with_overrides(request.overrides)))
    profiles: list[TrainingProfile] = []

    def print_profile(measured: TrainingProfile) -> None:
        profiles.append(measured)
        console.print(measured.table())
        say(console, f"profile: {measured.text}, {measured.trace}")

    with show_progress(console, "checking the data") as progress:
        events = train_steps(request, progress, print_profile if profile else None)
        first = next(events, None)
    done = show_training(console, chain([first], events)) if first is not None else None
    if done is not None:
        if profile and not profiles:
            say(console, "no profile: the training ended during the warm-up")
        print_result(console, done)
