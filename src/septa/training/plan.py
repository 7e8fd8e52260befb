"""The request for a training, and the recipe that follows from it, from the data and from the machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from septa import runtime
from septa.data import DatasetCheck, check_dataset, explain_task
from septa.errors import InputError
from septa.images import MAX_PIXELS
from septa.model import build_net
from septa.recipe import Recipe, full_key
from septa.runtime import Progress
from septa.tasks import make_task
from septa.training.automatic import RecipeChoice, choose_recipe, choose_workers, resolve_amp


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
    command
        Command line, for the report.
    max_pixels
        Largest image that is decoded, in pixels.
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
    command: str = "septa.train"
    max_pixels: int = MAX_PIXELS

    @property
    def folder(self) -> Path:
        """Folder of log, checkpoints and report: ``NAME-run`` for the model ``NAME.septa``."""
        return self.output.with_name(f"{self.output.stem}-run")


def plan_recipe(request: TrainingRequest, progress: Progress | None = None) -> tuple[DatasetCheck, RecipeChoice]:
    """Check the data and resolve the recipe, as a training would.

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
        progress=progress,
    )
    _raise_first_error(check)
    assert check.fingerprint is not None
    assert check.mapping is not None
    machine = runtime.inspect_machine(request.device)
    if request.recipe is not None:
        choice = RecipeChoice(_resolve_for_machine(base, machine), {})
    else:
        choice = choose_recipe(
            check.fingerprint,
            check.facts,
            check.mapping,
            machine,
            base,
            fixed={full_key(assignment) for assignment in request.overrides},
            processes=int(os.environ.get("WORLD_SIZE", "1")),
        )
    return check, _fit_to_net(choice, check)


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
    return RecipeChoice(recipe, reasons | changes, tuple(notes))


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
