"""Beginning where an earlier training stopped, and refusing to where it would not be the same training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from septa.data.doctor import Checkup
from septa.errors import InputError, RecipeError
from septa.images.write import sweep
from septa.recipe import Recipe, differences
from septa.training.checkpoint import Checkpoints
from septa.training.loop import State
from septa.training.plan import Request

Saved = tuple[dict[str, Any], dict[str, torch.Tensor], list[str]]


def claim(request: Request) -> None:
    """Refuse to overwrite silently; remove what a killed process left half-written."""
    checkpoints = Checkpoints(request.folder / "checkpoints")
    if request.overwrite:
        checkpoints.clear()
        request.output.unlink(missing_ok=True)
    elif not request.resume and checkpoints.states():
        raise InputError(
            request.folder, "holds an unfinished training", "go on with --resume or begin again with --overwrite"
        )
    elif request.output.exists():
        raise InputError(request.output, "exists", "give another -o or --overwrite")
    for path in (request.output, request.folder, checkpoints.folder):
        sweep(path)


def as_before(request: Request, saved: Saved | None) -> Request:
    """When resuming, the recipe is the saved one with what the user asks on top, so that only a real change differs."""
    if saved is None:
        return request
    return replace(request, recipe=request.recipe or Recipe.parse(saved[0]["recipe"], str(request.folder)))


def refuse_other(header: Mapping[str, Any], recipe: Recipe, checkup: Checkup, request: Request) -> None:
    changed = differences(Recipe.parse(header["recipe"], str(request.folder)), recipe)
    if changed:
        remedy = "resume with the same settings or begin again with --overwrite"
        raise RecipeError(request.folder, f"was trained with another recipe ({'; '.join(changed)})", remedy)
    assert checkup.fingerprint is not None
    if header["data"] != checkup.fingerprint.digest:
        was, now = header["data"][:12], checkup.fingerprint.digest[:12]
        remedy = "bring the data back as it was or begin again with --overwrite"
        raise InputError(request.data, f"is not the data of this training (digest {now}, was {was})", remedy)


def restore(state: State, saved: Saved | None) -> tuple[str, ...]:
    if saved is None:
        return ()
    header, tensors, refused = saved
    state.restore(header, tensors)
    return (*refused, f"resumed after step {state.step}")
