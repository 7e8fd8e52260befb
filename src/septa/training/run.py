"""The training workflow, from a folder of images and labels to a model and its report.

Read `train_steps` from top to bottom.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import torch.distributed as dist

from septa.data import DatasetCheck, Pair
from septa.errors import InputError, SeptaWarning
from septa.images import MAX_PIXELS, lock_outputs, write_text
from septa.metrics import Evaluation
from septa.model import Model
from septa.progress_bar import ProgressCallback, is_notebook, progress, report_counts
from septa.recipe import Recipe
from septa.runtime import Progress
from septa.training.automatic import RecipeChoice
from septa.training.checkpoint import Checkpoints
from septa.training.finish import TrainingDone, finish_training
from septa.training.fold_finish import finish_folds
from septa.training.folds import is_ensemble_written, plan_folds, write_record
from septa.training.follower import TrainingFollower
from septa.training.log import open_history_log
from septa.training.loop import run_training_loop
from septa.training.plan import TrainingRequest, plan_recipe
from septa.training.profile import TrainingProfile
from septa.training.resume import (
    SavedTraining,
    check_unchanged,
    claim_output,
    find_saved,
    remove_earlier,
    restore_state,
    use_saved_recipe,
)
from septa.training.setup import TrainingProcess, join_processes, prepare_job
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
    fold
        Number of the fold that is trained, from 1; 0 without folds.
    """

    check: DatasetCheck
    choice: RecipeChoice
    folder: Path
    device: str
    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    notes: tuple[str, ...]
    fold: int = 0


@dataclass(frozen=True, kw_only=True)
class FoldDone:
    """The last event of a fold.

    Attributes
    ----------
    fold, folds
        Number of the fold, from 1, and number of folds.
    evaluation
        Scores of the images of the fold, which also chose the weights and thresholds of its net; None if the fold was
        finished by an earlier run.
    """

    fold: int
    folds: int
    evaluation: Evaluation | None


@dataclass(frozen=True)
class AlreadyTrained:
    """The only event if nothing is left to resume: the model of this training, in the file ``path``, is finished."""

    path: Path


TrainingEvent = TrainingPlan | TrainingDone | FoldDone | AlreadyTrained | HistoryRow


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
    folds: int = 0,
    device: str = "auto",
    max_pixels: int = MAX_PIXELS,
    start: str | os.PathLike[str] | None = None,
    callback: ProgressCallback | None = None,
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
    folds
        Number of folds of a cross-validation, at least 2; 0 for one net. Each fold holds out other images, so that
        every image is scored by a net that was not trained on it, and the model holds the nets of all folds. It
        predicts the mean of their probabilities. File, training and prediction take ``folds`` times as much, except
        that ``minutes`` are shared among the folds.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    max_pixels
        Largest image that is decoded, in pixels.
    start
        Model to fine-tune: the path of a model file or the name of a model that ships with septa; ``scratch`` for new
        weights. By default, or with ``auto``, the shipped model that finds the objects of the images best if it finds
        enough of them, else new weights.
    callback
        Function that gets a `septa.ProgressEvent` for each file that is checked and for each row of the history, such
        as `septa.progress`. If None, a notebook shows a bar, and nothing is shown elsewhere. What it raises ends the
        training; ``resume`` then continues from the newest checkpoint.

    Returns
    -------
    Model
        Model with the weights of the best validation score. With folds, ``provenance["scores"]`` has the
        cross-validated scores, and ``provenance["folds"]`` those of each fold.

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
        folds=folds,
        device=device,
        max_pixels=max_pixels,
    )
    model, follower = None, TrainingFollower(callback or (progress() if is_notebook() else None), max(1, folds))
    with closing(train_steps(request, report_counts(follower.callback, "check"))) as events:
        for event in events:
            if isinstance(event, TrainingPlan):
                for line in event.choice.warnings:
                    warnings.warn(f"warning: {line}", SeptaWarning, stacklevel=2)
                follower.begin(event.choice.recipe.training, max(1, event.fold))
            elif isinstance(event, TrainingDone):
                model = event.model
                follower.finish()
            elif isinstance(event, dict):
                follower.follow(event)
    return model if model is not None else Model.load(output)


def train_steps(
    request: TrainingRequest,
    progress: Progress | None = None,
    on_profile: Callable[[TrainingProfile], None] | None = None,
) -> Generator[TrainingEvent, None, None]:
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
        A `TrainingPlan`, then each row of the history, then `TrainingDone`. With folds, `FoldDone` follows the rows of
        each fold. Only `AlreadyTrained` if the training to resume is finished.
    """
    started = time.monotonic()
    cv2.setNumThreads(1)  # OpenCV's threads would compete with those of the net
    with join_processes(request.device) as process, ExitStack() as stack:
        removed: tuple[str, ...] = ()
        if process.writes:
            removed = stack.enter_context(lock_outputs([request.output, request.folder]))
            claim_output(request)
        saved = find_saved(request)
        # A fold that has not begun needs the model that it starts from.
        resumed = saved is not None and not request.folds
        check, choice = plan_recipe(use_saved_recipe(request, saved), progress, resumed=resumed)
        if saved is not None:
            check_unchanged(saved, choice.recipe, check, request)
            choice = replace(choice, reasons=saved.header["reasons"])
        run = _Run(
            request=request,
            check=check,
            choice=choice,
            saved=saved,
            process=process,
            started=started,
            notes=removed,
            on_profile=on_profile,
        )
        if not request.folds:
            yield from _train_once(run)
        elif saved is None or not is_ensemble_written(request):
            yield from _train_folds(run)
        elif process.writes:
            yield AlreadyTrained(request.output)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Request of a training and all that follows from it before the training begins, with notes for its plan."""

    request: TrainingRequest
    check: DatasetCheck
    choice: RecipeChoice
    saved: SavedTraining | None
    process: TrainingProcess
    started: float
    notes: tuple[str, ...]
    on_profile: Callable[[TrainingProfile], None] | None


def _train_once(run: _Run) -> Iterator[TrainingEvent]:
    """Train one net."""
    request, check, choice, saved, process = run.request, run.check, run.choice, run.saved, run.process
    if saved is not None and saved.tensors is None:
        if process.writes:
            yield AlreadyTrained(request.output)
        return
    checkpoints = Checkpoints(request.folder / "checkpoints")
    header = None if saved is None else saved.header
    job, state = prepare_job(check, choice, checkpoints, process, run.started, saved=header)
    previews = request.folder / "previews" if request.previews else None
    job = replace(job, profile=None if run.on_profile is None else request.folder, previews=previews)
    notes = restore_state(state, saved, request)
    if saved is None:
        _check_budget(choice.recipe, time.monotonic() - run.started)
    if process.writes:
        remove_earlier(request)
        write_text(request.folder / "recipe.yaml", choice.recipe.to_yaml(choice.reasons))
        yield TrainingPlan(
            check=check,
            choice=choice,
            folder=request.folder,
            device=str(process.device),
            train=tuple(job.sampler.examples.pairs),
            validation=tuple(job.validation.pairs),
            notes=(*run.notes, *notes),
        )
    rows = run_training_loop(job, state)
    if not process.writes:
        for _ in rows:
            pass
        dist.barrier()  # wait until the model is written
        return
    with open_history_log(request, state) as write:
        for row in rows:
            if isinstance(row, TrainingProfile):
                assert run.on_profile is not None
                run.on_profile(row)
                continue
            write(row)
            yield row
    done = finish_training(request, job, state, check, choice)
    if process.world > 1:
        dist.barrier()
    yield done


def _train_folds(run: _Run) -> Iterator[TrainingEvent]:
    """Train the net of each fold, and join them to one model."""
    request, check, choice, process = run.request, run.check, run.choice, run.process
    trainings = plan_folds(request, check, choice)
    notes = run.notes
    if run.saved is None:
        _check_budget(trainings[0].choice.recipe, time.monotonic() - run.started, request.folds)
        if request.resume:
            notes = (*notes, "there is nothing to resume: training from the beginning")
        if process.writes:
            remove_earlier(request)
            write_text(request.folder / "recipe.yaml", choice.recipe.to_yaml(choice.reasons))
            write_record(request, check, choice)
    started, on_profile, planned = run.started, run.on_profile, False
    for own in trainings:
        saved = find_saved(own.request)
        if saved is not None:
            check_unchanged(saved, own.choice.recipe, own.check, own.request)
        part = replace(run, request=own.request, check=own.check, choice=own.choice, saved=saved, notes=notes)
        for event in _train_once(replace(part, started=started, on_profile=on_profile)):
            if isinstance(event, TrainingPlan):
                seen, more = ((), ()) if planned else (choice.seen, choice.notes)
                shown = replace(event.choice, seen=seen, notes=more)
                yield replace(event, fold=own.number, folder=request.folder, choice=shown)
                planned = True
            elif isinstance(event, TrainingDone):
                yield FoldDone(fold=own.number, folds=request.folds, evaluation=event.evaluation)
                started, on_profile, notes = time.monotonic(), None, ()
            elif isinstance(event, AlreadyTrained):
                yield FoldDone(fold=own.number, folds=request.folds, evaluation=None)
            else:
                yield event
    if process.writes:
        done = finish_folds(request, trainings, check, choice, str(process.device))
    if process.world > 1:
        dist.barrier()  # wait until the model is written
    if process.writes:
        yield done


def _check_budget(recipe: Recipe, seconds: float, folds: int = 1) -> None:
    """Refuse a time budget that has ended before the first step, since an untrained net is useless.

    The recipe is that of one of the folds.
    """
    minutes = recipe.training.minutes
    if minutes is not None and seconds >= 0.9 * 60 * minutes:
        where = "--minutes" if folds > 1 else f"--minutes {minutes:g}"
        share = f", and each of {folds} folds has {minutes:.2g}" if folds > 1 else ""
        raise InputError(where, f"the dataset check alone took {seconds / 60:.2g} minutes{share}", "Give more minutes")
