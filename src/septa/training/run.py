"""The training workflow, from a folder of images and labels to a model and its report.

Read `train_steps` from top to bottom.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import torch.distributed as dist

from septa.data import DatasetCheck, Pair
from septa.errors import InputError, SeptaWarning
from septa.images import MAX_PIXELS, lock_outputs, write_text
from septa.model import Model
from septa.recipe import Recipe
from septa.runtime import Progress
from septa.training.automatic import RecipeChoice
from septa.training.checkpoint import Checkpoints
from septa.training.finish import TrainingDone, finish_training
from septa.training.log import open_history_log
from septa.training.loop import run_training_loop
from septa.training.plan import TrainingRequest, plan_recipe
from septa.training.profile import TrainingProfile
from septa.training.resume import (
    check_unchanged,
    claim_output,
    find_saved,
    remove_earlier,
    restore_state,
    use_saved_recipe,
)
from septa.training.setup import join_processes, prepare_job
from septa.training.state import HistoryRow


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The first event of a training: everything that is fixed before the first step.

    Attributes
    ----------
    check
        Result of the dataset check.
    choice
        Recipe, with the reasons of its settings.
    folder
        Folder of log, checkpoints and report.
    device
        Name of the device.
    train, validation
        Pairs of images and labels on each side of the split.
    notes
        Printable lines about resuming.
    """

    check: DatasetCheck
    choice: RecipeChoice
    folder: Path
    device: str
    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class AlreadyTrained:
    """The only event if nothing is left to resume: the model of this training, in the file ``path``, is finished."""

    path: Path


TrainingEvent = TrainingPlan | TrainingDone | AlreadyTrained | HistoryRow


def train(
    data: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    images: str | None = None,
    labels: str | None = None,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    minutes: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    max_pixels: int = MAX_PIXELS,
    start: str | os.PathLike[str] | None = None,
) -> Model:
    """Train a U-Net on a folder of images and label images.

    Parameters
    ----------
    data
        Folder of images and labels; see `septa.data.folder.find_pairs` for the layouts.
    output
        Model file to write, ``NAME.septa``; by default named after the data folder, in the current folder. Log,
        checkpoints and ``report.html`` go to the folder ``NAME-run`` next to it.
    images, labels
        Globs for data in an unknown layout.
    recipe
        Recipe, or the path of one; by default chosen from the data and the machine.
    overrides
        ``section.key=value`` assignments that change the recipe.
    minutes
        Time budget of the whole training, in minutes; the schedule of the learning rate ends with it.
    resume
        Resume from the newest checkpoint of this output.
    overwrite
        Replace an earlier model of this name and its checkpoints.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    max_pixels
        Largest image that is decoded, in pixels.
    start
        Model to fine-tune: the path of a model file or the name of a model that ships with septa; ``scratch`` for new
        weights. By default, or with ``auto``, the shipped model that finds the objects of the images best if it finds
        enough of them, else new weights.

    Returns
    -------
    Model
        Model with the weights of the best validation score.

    Raises
    ------
    InputError
        The data cannot be trained on, or a setting is wrong.
    Interrupted
        SIGINT or SIGTERM was received; the state is saved, and ``resume`` continues.
    """
    output = Path(output) if output is not None else Path(f"{Path(data).resolve().name}.septa")
    more = {"training.minutes": minutes, "training.start": None if start is None else os.fspath(start)}
    given = [f"{key}={json.dumps(value)}" for key, value in more.items() if value is not None]
    request = TrainingRequest(
        data=Path(data),
        output=output,
        images=images,
        labels=labels,
        recipe=Recipe.load(recipe) if isinstance(recipe, str | os.PathLike) else recipe,
        overrides=(*overrides, *given),
        resume=resume,
        overwrite=overwrite,
        device=device,
        max_pixels=max_pixels,
    )
    model = None
    for event in train_steps(request):
        if isinstance(event, TrainingPlan):
            for line in event.choice.warnings:
                warnings.warn(f"warning: {line}", SeptaWarning, stacklevel=2)
        elif isinstance(event, TrainingDone):
            model = event.model
    return model if model is not None else Model.load(output)


def train_steps(
    request: TrainingRequest,
    progress: Progress | None = None,
    on_profile: Callable[[TrainingProfile], None] | None = None,
) -> Iterator[TrainingEvent]:
    """Train, and yield what happens; errors as for `train`.

    In a process group (``torchrun``) every process runs this, and only the process of rank 0 writes files and yields.

    Parameters
    ----------
    request
        What to train.
    progress
        Function that is called during the dataset check.
    on_profile
        Function that gets the profile of one epoch; no profile is made without it.

    Yields
    ------
    TrainingEvent
        A `TrainingPlan`, then each row of the history, then `TrainingDone`. Only `AlreadyTrained` if the training to
        resume is finished.
    """
    started = time.monotonic()
    cv2.setNumThreads(1)  # OpenCV's threads would compete with those of the net
    with join_processes(request.device) as process, ExitStack() as stack:
        writes = process.rank == 0
        removed: tuple[str, ...] = ()
        if writes:
            removed = stack.enter_context(lock_outputs([request.output, request.folder]))
            claim_output(request)
        saved = find_saved(request)
        check, choice = plan_recipe(use_saved_recipe(request, saved), progress, resumed=saved is not None)
        if saved is not None:
            check_unchanged(saved, choice.recipe, check, request)
            choice = replace(choice, reasons=saved.header["reasons"])
        if saved is not None and saved.tensors is None:
            if writes:
                yield AlreadyTrained(request.output)
            return
        checkpoints = Checkpoints(request.folder / "checkpoints")
        header = None if saved is None else saved.header
        job, state = prepare_job(check, choice, checkpoints, process, started, saved=header)
        job = replace(job, profile=None if on_profile is None else request.folder)
        notes = restore_state(state, saved, request)
        if saved is None:
            _check_budget(choice.recipe, time.monotonic() - started)
        if writes:
            remove_earlier(request)
            write_text(request.folder / "recipe.yaml", choice.recipe.to_yaml(choice.reasons))
            yield TrainingPlan(
                check=check,
                choice=choice,
                folder=request.folder,
                device=str(process.device),
                train=tuple(job.sampler.examples.pairs),
                validation=tuple(job.validation.pairs),
                notes=(*removed, *notes),
            )
        rows = run_training_loop(job, state)
        if not writes:
            for _ in rows:
                pass
            dist.barrier()  # wait until the model is written
            return
        with open_history_log(request, state) as write:
            for row in rows:
                if isinstance(row, TrainingProfile):
                    assert on_profile is not None
                    on_profile(row)
                    continue
                write(row)
                yield row
        done = finish_training(request, job, state, check, choice)
        if process.world > 1:
            dist.barrier()
        yield done


def _check_budget(recipe: Recipe, seconds: float) -> None:
    """Refuse a time budget that has ended before the first step, since an untrained net is useless."""
    minutes = recipe.training.minutes
    if minutes is not None and seconds >= 0.9 * 60 * minutes:
        problem = f"the dataset check alone took {seconds / 60:.2g} minutes"
        raise InputError(f"--minutes {minutes:g}", problem, "Give more minutes")
