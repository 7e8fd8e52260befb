"""The request for a training, and the recipe that follows from it, from the data and from the machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from septa import runtime
from septa.data import DatasetCheck, check_dataset, explain_task
from septa.errors import InputError, RecipeError
from septa.images import MAX_PIXELS
from septa.model import build_net
from septa.recipe import Recipe, full_key
from septa.runtime import Progress
from septa.tasks import TASKS, make_task
from septa.training.automatic import RecipeChoice, choose_recipe, choose_workers, resolve_amp
from septa.training.parent import SCHEDULE, describe_parent, find_seen, inherit_settings
from septa.training.start import SCRATCH, Start, choose_start


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """A user's request for a training.

    Attributes
    ----------
    data
        Folder of images and labels.
    output
        Model file to write. Log, checkpoints and report go to `folder`.
    images, labels
        Globs for data in an unknown layout.
    recipe
        Recipe to train with; chosen from the data and the machine if None.
    overrides
        ``section.key=value`` assignments that change the recipe.
    resume
        True to resume from the newest checkpoint.
    overwrite
        True to replace an earlier model and its checkpoints.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    tensorboard
        True to log to TensorBoard as well.
    folds
        Number of folds of a cross-validation, at least 2; 0 for a single training.
    command
        Command line, for the report.
    max_pixels
        Largest image that is decoded, in pixels.
    previews
        True to draw some validation images after every validation, as ``previews/N.png`` in `folder`.
    """

    data: Path
    output: Path
    images: str | None = None
    labels: str | None = None
    recipe: Recipe | None = None
    overrides: tuple[str, ...] = ()
    resume: bool = False
    overwrite: bool = False
    device: str = "auto"
    tensorboard: bool = False
    folds: int = 0
    command: str = "septa.train"
    max_pixels: int = MAX_PIXELS
    previews: bool = False

    @property
    def folder(self) -> Path:
        """Folder of log, checkpoints and report: ``NAME-run`` for the model ``NAME.septa``."""
        return self.output.with_name(f"{self.output.stem}-run")


def plan_recipe(
    request: TrainingRequest, progress: Progress | None = None, *, resumed: bool = False
) -> tuple[DatasetCheck, RecipeChoice]:
    """Check the data and resolve the recipe, as a training would.

    Parameters
    ----------
    request
        What to train.
    progress
        Function that is called during the dataset check.
    resumed
        True if the weights are those of a checkpoint, so that no model to start from is needed.

    Raises
    ------
    InputError, RecipeError
        The data cannot be trained on, or a setting is wrong.
    """
    base = (request.recipe or Recipe()).with_overrides(request.overrides)
    check = check_dataset(
        request.data,
        images=request.images,
        labels=request.labels,
        settings=base.data,
        task=base.task,
        seed=base.seed,
        max_pixels=request.max_pixels,
        folds=request.folds,
        progress=progress,
    )
    _raise_first_error(check)
    assert check.fingerprint is not None
    assert check.mapping is not None
    machine = runtime.inspect_machine(request.device)
    given = _list_given(request)
    start = Start()
    reasons: dict[str, str] = {}
    if not resumed:
        automatic = request.recipe is None and not any(key.startswith("net.") for key in given)
        start = choose_start(base, check, request.device, automatic=automatic)
        base, reasons = _start_from(start, base, request, check, given)
    if request.recipe is not None:
        choice = RecipeChoice(_resolve_for_machine(base, machine), reasons)
    else:
        choice = choose_recipe(
            check.fingerprint,
            check.facts,
            check.mapping,
            machine,
            base,
            fixed={*given, *reasons},
            processes=int(os.environ.get("WORLD_SIZE", "1")),
        )
        choice = replace(choice, reasons=choice.reasons | reasons)
    return check, _share_folds(_describe_start(_fit_to_net(choice, check), start, check), request)


def _list_given(request: TrainingRequest) -> dict[str, str]:
    """Return the keys of the settings that the user gave, each with its assignment; empty for those of a recipe."""
    given: dict[str, str] = {}
    if request.recipe is not None:
        for section in request.recipe.model_fields_set:
            keys = getattr(getattr(request.recipe, section), "model_fields_set", ())
            given |= {f"{section}.{key}": "" for key in keys}
    return given | {full_key(assignment): assignment for assignment in request.overrides}


def _start_from(
    start: Start, base: Recipe, request: TrainingRequest, check: DatasetCheck, given: Mapping[str, str]
) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe with the settings that follow from the start, and their reasons."""
    assert check.mapping is not None
    chosen: dict[str, tuple[Any, str]] = {}
    if start.reason:
        chosen["training.start"] = (SCRATCH if start.parent is None else start.parent.start, start.reason)
    if start.parent is not None and request.recipe is None:
        chosen |= {key: choice for key, choice in SCHEDULE.items() if key not in given}
    base = base.with_overrides(f"{key}={json.dumps(value)}" for key, (value, _) in chosen.items())
    reasons = {key: reason for key, (_, reason) in chosen.items()}
    if start.parent is None:
        return base, reasons
    task = TASKS[check.mapping.task if base.task == "auto" else base.task]
    assert check.fingerprint is not None
    diameters = check.fingerprint.diameter_percentiles
    base, inherited = inherit_settings(base, start.parent, given=given, objects=task.finds_objects, diameters=diameters)
    return base, reasons | inherited


def _describe_start(choice: RecipeChoice, start: Start, check: DatasetCheck) -> RecipeChoice:
    """Return the choice with the parent, and a note about the start."""
    if start.parent is None:
        notes = (f"start: new weights; {start.reason}",) if start.reason else ()
        return replace(choice, notes=(*notes, *choice.notes))
    assert check.mapping is not None
    assert check.fingerprint is not None
    assert check.pairing is not None
    task = make_task(choice.recipe, check.mapping)
    channels = choice.recipe.data.channels or check.fingerprint.channels
    note = f"start: {describe_parent(start.parent, task, channels)}"
    if start.reason:
        note += f"; {start.reason} (--from scratch starts with new weights)"
    held_out = {name for _, names in check.folds for name in names} or set(check.validation)
    pairs = [pair for pair in check.pairing.pairs if pair.name in held_out]
    seen = find_seen(start.parent, pairs, {item.name: item for item in check.facts})
    return replace(choice, parent=start.parent, seen=tuple(seen), notes=(note, *choice.notes))


def _share_folds(choice: RecipeChoice, request: TrainingRequest) -> RecipeChoice:
    """Replace the share of validation images by that of a fold.

    Raises
    ------
    RecipeError
        The user has given another share.
    """
    if not request.folds:
        return choice
    key = "data.validation_share"
    share = round(1 / request.folds, 4)
    for assignment in request.overrides:
        if full_key(assignment) == key and choice.recipe.data.validation_share != share:
            problem = f"--folds {request.folds} holds out 1/{request.folds} of the images at a time"
            raise RecipeError(f"--set {assignment}", problem, "Leave one of the two out")
    recipe = choice.recipe.with_overrides([f"{key}={share}"])
    return replace(choice, recipe=recipe, reasons=choice.reasons | {key: f"one of {request.folds} folds at a time"})


def _fit_to_net(choice: RecipeChoice, check: DatasetCheck) -> RecipeChoice:
    """Replace the task ``auto``, the depth by that of the encoder, and the patch by a size that the net can process."""
    assert check.mapping is not None
    recipe = choice.recipe
    reasons = dict(choice.reasons)
    changes: dict[str, str] = {}
    if recipe.task == "auto":  # the notes of the check report it
        recipe = recipe.with_overrides([f"task={check.mapping.task}"])
        reasons["task"] = explain_task(check.mapping, check.facts)
    if check.held_out:
        reasons["data.validation_share"] = check.held_out
    with torch.device("meta"):
        net = build_net(recipe, recipe.data.channels or 1, make_task(recipe, check.mapping).outputs)
    if net.depth != recipe.net.depth:
        recipe = recipe.with_overrides([f"net.depth={net.depth}"])
        changes["net.depth"] = f"{net.depth}, the depth of the encoder"
    given = recipe.sampling.patch
    patch = [net.valid_size(side) for side in given]
    if patch != list(given):
        recipe = recipe.with_overrides([f"sampling.patch={patch}"])
        sizes = "{} x {} instead of {} x {}".format(*patch, *given)
        changes["sampling.patch"] = f"{sizes}, so that every pooling has an even input size"
    notes = [f"{key}: {change}" for key, change in changes.items()]
    if recipe.net.pretrained is not None and recipe.data.normalization != "imagenet":
        notes.append(f"data.normalization: {recipe.data.normalization}, but most published weights expect imagenet")
    if recipe.data.resize is not None and any(map(int.__gt__, patch, recipe.data.resize)):
        sizes = "{} x {} exceeds data.resize, {} x {}".format(*patch, *recipe.data.resize)
        notes.append(f"sampling.patch: {sizes}; the image is mirrored in the rest of each patch")
    return replace(choice, recipe=recipe, reasons=reasons | changes, notes=tuple(notes))


def _raise_first_error(check: DatasetCheck) -> None:
    errors = [problem for problem in check.problems if problem.severity == "error"]
    if not errors:
        return
    first = errors[0]
    more = f" ({len(errors) - 1} more: 'septa check {check.data}' lists them all)" if len(errors) > 1 else ""
    raise InputError(first.where, first.description, first.remedy + more)


def _resolve_for_machine(recipe: Recipe, machine: runtime.Machine) -> Recipe:
    """Replace ``auto`` in a given recipe by its meaning on this machine."""
    amp, _ = resolve_amp(recipe.training.amp, machine.device)
    workers = recipe.training.workers or choose_workers(machine)[0]
    return recipe.with_overrides([f"training.amp='{amp}'", f"training.workers={workers}"])
