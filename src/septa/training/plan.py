"""What a user asks of a training, and the recipe that follows from it, the data and the machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from septa import runtime
from septa.data.doctor import Checkup, check
from septa.errors import InputError
from septa.images.read import MAX_PIXELS
from septa.recipe import Recipe
from septa.training.automatic import Choice, choose, resolve_amp

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Request:
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


def plan_recipe(request: Request, progress: Progress | None = None) -> tuple[Checkup, Choice]:
    """Check the data and resolve the recipe, as a training would; errors as for `train`."""
    base = (request.recipe or Recipe()).with_overrides(request.overrides)
    checkup = check(
        request.data,
        images=request.images,
        labels=request.labels,
        settings=base.data,
        seed=base.seed,
        max_pixels=request.max_pixels,
        progress=progress,
    )
    _refuse_fatal(checkup)
    assert checkup.fingerprint is not None
    assert checkup.mapping is not None
    machine = runtime.machine(request.device)
    if request.recipe is not None:
        choice = Choice(_resolved(base, machine), {})
    else:
        fixed = {assignment.partition("=")[0].strip() for assignment in request.overrides}
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        choice = choose(
            checkup.fingerprint, checkup.facts, checkup.mapping, machine, base, fixed=fixed, processes=processes
        )
    return checkup, choice


def _refuse_fatal(checkup: Checkup) -> None:
    errors = [problem for problem in checkup.problems if problem.severity == "error"]
    if not errors:
        return
    first = errors[0]
    more = f" ({len(errors) - 1} more: 'septa check {checkup.data}' lists them all)" if len(errors) > 1 else ""
    raise InputError(first.path, first.what, first.remedy + more)


def _resolved(recipe: Recipe, machine: runtime.Machine) -> Recipe:
    """A given recipe with what ``auto`` stands for on this machine."""
    amp, _ = resolve_amp(recipe.training.amp, machine.device)
    workers = recipe.training.workers or (1 if machine.device == "cpu" else max(1, machine.cores - 1))
    return recipe.with_overrides([f"training.amp='{amp}'", f"training.workers={workers}"])
