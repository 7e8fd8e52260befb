"""What a user asks of a training, and the recipe that follows from it, the data and the machine."""

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
from septa.training.automatic import Choice, choose, choose_workers, resolve_amp


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What a user asks of a training.

    ``output`` is the model file; log, checkpoints and report go to the folder of the same name with ``-run``.
    ``recipe`` is used as it is; without one it is chosen. ``overrides`` are ``section.key=value``. ``resume`` goes on
    from the newest checkpoint, ``overwrite`` begins again where there is one or a model.
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
        """Where log, checkpoints and report go."""
        return self.output.with_name(f"{self.output.stem}-run")


def plan_recipe(request: TrainingRequest, progress: Progress | None = None) -> tuple[DatasetCheck, Choice]:
    """Check the data and resolve the recipe, as a training would; errors as for `train`."""
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
    _refuse_fatal(check)
    assert check.fingerprint is not None
    assert check.mapping is not None
    machine = runtime.machine(request.device)
    if request.recipe is not None:
        choice = Choice(_resolved(base, machine), {})
    else:
        fixed = {full_key(assignment) for assignment in request.overrides}
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        choice = choose(check.fingerprint, check.facts, check.mapping, machine, base, fixed=fixed, processes=processes)
    return check, _fitted(choice, check)


def _fitted(choice: Choice, check: DatasetCheck) -> Choice:
    """The task that ``auto`` stands for, the depth of the encoder, and a patch of a size that the net can take."""
    assert check.mapping is not None
    recipe, reasons, changes = choice.recipe, dict(choice.reasons), {}
    if recipe.task == "auto":  # the check has told
        recipe = recipe.with_overrides([f"task={check.mapping.task}"])
        reasons["task"] = explain_task(check.mapping, check.facts)
    with torch.device("meta"):
        net = build_net(recipe, recipe.data.channels or 1, make_task(recipe, check.mapping).outputs)
    if net.depth != recipe.net.depth:
        recipe = recipe.with_overrides([f"net.depth={net.depth}"])
        changes["net.depth"] = f"{net.depth}, that of the encoder"
    given = recipe.sampling.patch
    patch = [net.valid_size(side) for side in given]
    if patch != list(given):
        recipe = recipe.with_overrides([f"sampling.patch={patch}"])
        sizes = "{} x {} in place of {} x {}".format(*patch, *given)
        changes["sampling.patch"] = f"{sizes}: every pooling then sees an even size"
    notes = [f"{key}: {change}" for key, change in changes.items()]
    if recipe.net.pretrained is not None and recipe.data.normalization != "imagenet":
        notes.append(f"data.normalization: {recipe.data.normalization}, but published weights mostly expect imagenet")
    if recipe.data.resize is not None and any(map(int.__gt__, patch, recipe.data.resize)):
        notes.append(f"sampling.patch: larger than data.resize {recipe.data.resize}; the rest of a patch is mirrored")
    return Choice(recipe, reasons | changes, tuple(notes))


def _refuse_fatal(check: DatasetCheck) -> None:
    errors = [problem for problem in check.problems if problem.severity == "error"]
    if not errors:
        return
    first = errors[0]
    more = f" ({len(errors) - 1} more: 'septa check {check.data}' lists them all)" if len(errors) > 1 else ""
    raise InputError(first.where, first.description, first.remedy + more)


def _resolved(recipe: Recipe, machine: runtime.Machine) -> Recipe:
    """A given recipe with what ``auto`` stands for on this machine."""
    amp, _ = resolve_amp(recipe.training.amp, machine.device)
    workers = recipe.training.workers or choose_workers(machine)[0]
    return recipe.with_overrides([f"training.amp='{amp}'", f"training.workers={workers}"])
