"""Resuming: find the state of an earlier training, and refuse to continue with another recipe or other data."""

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
from septa.training.folds import check_folds, has_record, read_record, remove_fold_leftovers, remove_folds
from septa.training.plan import TrainingRequest
from septa.training.state import TrainingState


@dataclass(frozen=True)
class SavedTraining:
    """An earlier training as it was saved.

    Attributes
    ----------
    header
        Its ``recipe``, ``reasons``, digest of the ``data``, names of the ``train`` and ``validation`` images, and facts
        of the ``parent``.
    tensors
        Tensors of the newest checkpoint; None if the training is finished and only its model is left, and for a
        training with folds, each of which has its own.
    notes
        Printable lines.
    """

    header: dict[str, Any]
    tensors: dict[str, Tensor] | None
    notes: tuple[str, ...]


def claim_output(request: TrainingRequest) -> None:
    """Refuse to overwrite an earlier training silently, and remove the temporary files of a killed process."""
    output = request.output
    if not output.name or output.is_dir():
        raise InputError(output, "the output is a folder", "Give the name of a model file, NAME.septa")
    if request.resume and request.overwrite:
        raise InputError("", "--resume and --overwrite cannot be combined", "Give one of them")
    checkpoints = Checkpoints(request.folder / "checkpoints")
    if request.resume:
        check_folds(request)
    elif not request.overwrite:
        if checkpoints.list_states() or has_record(request):
            remedy = "Continue with --resume or start again with --overwrite"
            raise InputError(request.folder, "the folder holds an unfinished training", remedy)
        if output.exists():
            raise InputError(output, "the file exists", "Give another -o or --overwrite")
    for path in (output, request.folder, checkpoints.folder):
        remove_leftovers(path)
    remove_fold_leftovers(request)


def remove_earlier(request: TrainingRequest) -> None:
    """Remove model and checkpoints of an earlier training if ``overwrite`` is given.

    Call it only when the new training is ready to begin.
    """
    if request.overwrite:
        Checkpoints(request.folder / "checkpoints").clear()
        remove_folds(request)
        request.output.unlink(missing_ok=True)


def find_saved(request: TrainingRequest) -> SavedTraining | None:
    """Find the training to resume: the newest checkpoint, else the model of a finished training, else None.

    Raises
    ------
    ModelError
        No checkpoint, or not the model, can be read.
    InputError
        The output is a model that was not written by a training.
    """
    if not request.resume:
        return None
    if request.folds:
        record = read_record(request)
        return SavedTraining(record, None, ()) if record else None
    checkpoints = Checkpoints(request.folder / "checkpoints")
    if checkpoints.list_states():
        header, tensors, refused = checkpoints.load_newest()
        return SavedTraining(header, tensors, (*refused, f"resumed after step {header['step']}"))
    if not request.output.exists():
        return None
    model = Model.load(request.output)
    facts = model.provenance
    if "data" not in facts:
        raise InputError(request.output, "the model was not written by a training", "Give another -o or --overwrite")
    sides = {side: [name for name, _ in facts[side]] for side in ("train", "validation")}
    header = {"recipe": model.recipe.model_dump(mode="json"), "reasons": {}, "data": facts["data"], **sides}
    header["parent"] = facts.get("parent")
    return SavedTraining(header, None, ())


def use_saved_recipe(request: TrainingRequest, saved: SavedTraining | None) -> TrainingRequest:
    """Return the request with the saved recipe if it gives none, so that resuming repeats the earlier choices.

    A recipe that leaves settings open, which then came from the model that the training started from, gets these.
    """
    if saved is None:
        return request
    kept = Recipe.parse(saved.header["recipe"], str(request.folder))
    if request.recipe is None:
        return replace(request, recipe=kept)
    if saved.header.get("parent") is None:
        return request
    values = kept.model_dump(mode="json")
    for name, given in request.recipe.model_dump(mode="json", exclude_unset=True).items():
        values[name] = values[name] | given if isinstance(given, dict) else given
    return replace(request, recipe=Recipe.parse(values))


def check_unchanged(saved: SavedTraining, recipe: Recipe, check: DatasetCheck, request: TrainingRequest) -> None:
    """Check that recipe, data and split are those of the training to resume.

    Raises
    ------
    RecipeError, InputError
        The recipe, or the data or its split, has changed.
    """
    changed = differences(Recipe.parse(saved.header["recipe"], str(request.folder)), recipe)
    if changed:
        remedy = "Resume with the same settings or start again with --overwrite"
        raise RecipeError(request.folder, f"this training has another recipe ({'; '.join(changed)})", remedy)
    assert check.fingerprint is not None
    remedy = "Restore the data or start again with --overwrite"
    if saved.header["data"] != check.fingerprint.digest:
        digests = f"{saved.header['data'][:12]} -> {check.fingerprint.digest[:12]}"
        problem = f"the data have changed since this training began (digest {digests})"
        raise InputError(request.data, problem, remedy)
    # The digest does not contain names, but they order the samples and decide the split.
    if [saved.header["train"], saved.header["validation"]] != [list(check.train), list(check.validation)]:
        problem = "the names of the images, or their split, have changed since this training began"
        raise InputError(request.data, problem, remedy)


def restore_state(state: TrainingState, saved: SavedTraining | None, request: TrainingRequest) -> tuple[str, ...]:
    """Load the saved tensors, if there are any, into the state; return printable lines about it."""
    if saved is not None and saved.tensors is not None:
        state.load_checkpoint(saved.header, saved.tensors)
        return saved.notes
    return ("there is nothing to resume: training from the beginning",) if request.resume else ()
