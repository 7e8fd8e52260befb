"""Beginning where an earlier training stopped, and refusing to where it would not be the same training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from septa.data import DatasetCheck
from septa.errors import InputError, RecipeError
from septa.images import remove_leftovers
from septa.model import Model
from septa.recipe import Recipe, differences
from septa.training.checkpoint import Checkpoints
from septa.training.plan import TrainingRequest
from septa.training.state import State


@dataclass(frozen=True)
class Saved:
    """What an earlier training left.

    ``header`` tells its recipe, reasons, data and the names on either side of the split; ``tensors`` are None where
    it is finished and has left its model; ``notes`` are printable lines.
    """

    header: dict[str, Any]
    tensors: dict[str, Tensor] | None
    notes: tuple[str, ...]


def claim(request: TrainingRequest) -> None:
    """Refuse to overwrite silently; remove what a killed process left half-written."""
    if not request.output.name or request.output.is_dir():
        raise InputError(request.output, "is a folder", "give the name of a model file, NAME.septa")
    checkpoints = Checkpoints(request.folder / "checkpoints")
    if request.resume and request.overwrite:
        raise InputError("--resume", "contradicts --overwrite", "give one of them")
    if not request.resume and not request.overwrite and checkpoints.states():
        raise InputError(
            request.folder, "holds an unfinished training", "go on with --resume or begin again with --overwrite"
        )
    if not request.resume and not request.overwrite and request.output.exists():
        raise InputError(request.output, "exists", "give another -o or --overwrite")
    for path in (request.output, request.folder, checkpoints.folder):
        remove_leftovers(path)


def discard(request: TrainingRequest) -> None:
    """With ``overwrite``, remove model and checkpoints of an earlier training: only now that the new one can begin."""
    if request.overwrite:
        Checkpoints(request.folder / "checkpoints").clear()
        request.output.unlink(missing_ok=True)


def find_saved(request: TrainingRequest) -> Saved | None:
    """What to go on from: the newest checkpoint, else the model of a finished training, else nothing."""
    if not request.resume:
        return None
    checkpoints = Checkpoints(request.folder / "checkpoints")
    if checkpoints.states():
        header, tensors, refused = checkpoints.newest()
        return Saved(header, tensors, (*refused, f"resumed after step {header['step']}"))
    if not request.output.exists():
        return None
    model = Model.load(request.output)
    facts = model.provenance
    if "data" not in facts:
        raise InputError(request.output, "was not written by a training", "give another -o or --overwrite")
    sides = {side: [name for name, _ in facts[side]] for side in ("train", "validation")}
    header = {"recipe": model.recipe.model_dump(mode="json"), "reasons": {}, "data": facts["data"], **sides}
    return Saved(header, None, ())


def as_before(request: TrainingRequest, saved: Saved | None) -> TrainingRequest:
    """When resuming, the recipe is the saved one with what the user asks on top, so that only a real change differs."""
    if saved is None:
        return request
    return replace(request, recipe=request.recipe or Recipe.parse(saved.header["recipe"], str(request.folder)))


def refuse_other(saved: Saved, recipe: Recipe, check: DatasetCheck, request: TrainingRequest) -> None:
    """Raise where recipe, data or split are not those of the training to go on with."""
    changed = differences(Recipe.parse(saved.header["recipe"], str(request.folder)), recipe)
    if changed:
        remedy = "resume with the same settings or begin again with --overwrite"
        raise RecipeError(request.folder, f"was trained with another recipe ({'; '.join(changed)})", remedy)
    assert check.fingerprint is not None
    remedy = "bring the data back as it was or begin again with --overwrite"
    if saved.header["data"] != check.fingerprint.digest:
        was, now = saved.header["data"][:12], check.fingerprint.digest[:12]
        raise InputError(request.data, f"is not the data of this training (digest {now}, was {was})", remedy)
    # The digest knows no names, but they order the samples and decide the split.
    if [saved.header["train"], saved.header["validation"]] != [list(check.train), list(check.validation)]:
        raise InputError(request.data, "names or splits its images otherwise than this training did", remedy)


def restore(state: State, saved: Saved | None, request: TrainingRequest) -> tuple[str, ...]:
    """Take over the saved state, if any; returns what to tell."""
    if saved is not None and saved.tensors is not None:
        state.restore(saved.header, saved.tensors)
        return saved.notes
    return ("nothing to resume: training from the beginning",) if request.resume else ()
