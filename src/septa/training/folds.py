"""The folds of a cross-validation: one training each, and what they leave on disk until the ensemble is written.

Each fold is a training of its own, ``NAME-run/fold-K.septa`` with its folder ``NAME-run/fold-K-run``, so it is resumed
as any training is. ``NAME-run/folds.json`` is there while the folds are trained. In the end their nets are in the one
file ``NAME.septa``, and only their logs and reports stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from septa.data import DatasetCheck
from septa.errors import InputError
from septa.images import remove_leftovers, write_text
from septa.model import Model
from septa.recipe import Recipe
from septa.training.automatic import RecipeChoice
from septa.training.checkpoint import Checkpoints
from septa.training.joining import settle_joining
from septa.training.plan import TrainingRequest

_FINISH_SHARE = 0.04
"""Share of the minutes of a cross-validation for the scores and the report after the last fold."""
_FILES = re.compile(r"fold-\d+(\.septa|-run)")


@dataclass(frozen=True, kw_only=True)
class FoldTraining:
    """The training of a fold.

    Attributes
    ----------
    number
        Number of the fold, from 1.
    request
        Request, whose output is the model of this fold.
    check, choice
        Dataset check with the split of this fold, and its recipe.
    """

    number: int
    request: TrainingRequest
    check: DatasetCheck
    choice: RecipeChoice


def describe_cost(folds: int, recipe: Recipe) -> str:
    """Return a printable line that says what folds cost.

    Examples
    --------
    >>> describe_cost(3, Recipe())
    'folds: 3 nets, in 3 times the time of one; model file and seconds of each prediction are 3 times those of one net'
    """
    minutes = recipe.training.minutes
    how = f"in {folds} times the time of one"
    if minutes is not None:
        each = _share_minutes(minutes, folds)
        how = f"in {minutes:g} minutes together, {each:.2g} each (--minutes {folds * minutes:g} gives each {minutes:g})"
    more = f"model file and seconds of each prediction are {folds} times those of one net"
    return f"folds: {folds} nets, {how}; {more}"


def _share_minutes(minutes: float, folds: int) -> float:
    return (1 - _FINISH_SHARE) * minutes / folds


def plan_folds(request: TrainingRequest, check: DatasetCheck, choice: RecipeChoice) -> list[FoldTraining]:
    """Plan the training of each fold.

    The nets have the recipe of the whole, but each has another seed, so that they differ in more than in their images,
    and an equal part of the minutes.
    """
    recipe = choice.recipe
    settled = settle_joining(choice)
    trainings = []
    for number in range(1, request.folds + 1):
        changes = [f"seed={(recipe.seed + number - 1) % 2**32}"]
        if recipe.training.minutes is not None:
            changes.append(f"training.minutes={_share_minutes(recipe.training.minutes, request.folds)}")
        output = request.folder / f"fold-{number}.septa"
        own = replace(request, output=output, folds=0, overwrite=False)
        begun = output.exists() or bool(Checkpoints(own.folder / "checkpoints").list_states())
        trainings.append(
            FoldTraining(
                number=number,
                request=replace(own, resume=request.resume and begun),
                check=check.select_fold(number),
                choice=replace(
                    settled,
                    recipe=recipe.with_overrides(changes),
                    notes=(),
                    seen=tuple(name for name in choice.seen if name in check.folds[number - 1][1]),
                ),
            )
        )
    return trainings


# On disk -------------------------------------------------------------------------------------------------------------


def count_begun_folds(request: TrainingRequest) -> int | None:
    """Return the number of folds of the training that the output belongs to, 0 without folds; None if there is none."""
    path = _find_record(request)
    if path.exists():
        return int(read_record(request)["folds"])
    if Checkpoints(request.folder / "checkpoints").list_states():
        return 0
    return len(Model.load(request.output).provenance.get("folds", [])) if request.output.exists() else None


def check_folds(request: TrainingRequest) -> None:
    """Raise InputError if the training to resume has another number of folds."""
    begun = count_begun_folds(request)
    if begun is None or begun == request.folds:
        return
    problem = f"this training has {begun or 'no'} folds"
    remedy = f"Give --folds {begun}" if begun else "Leave --folds out"
    raise InputError(request.folder, problem, f"{remedy}, or start again with --overwrite")


def write_record(request: TrainingRequest, check: DatasetCheck, choice: RecipeChoice) -> None:
    """Write what resuming needs: the number of folds, and the header of a checkpoint for all of them."""
    assert check.fingerprint is not None
    header = {
        "folds": request.folds,
        "recipe": choice.recipe.model_dump(mode="json"),
        "reasons": choice.reasons,
        "data": check.fingerprint.digest,
        "train": list(check.train),
        "validation": list(check.validation),
    }
    write_text(_find_record(request), json.dumps(header, indent=1))


def read_record(request: TrainingRequest) -> dict[str, Any]:
    """Return what `write_record` has written, or the same facts of the finished model; empty if there is none.

    Raises
    ------
    InputError
        The record cannot be read.
    """
    path = _find_record(request)
    if path.exists():
        try:
            header = json.loads(path.read_text(encoding="utf-8"))
            keys = {"folds", "recipe", "reasons", "data", "train", "validation"}
            if not isinstance(header, dict) or not keys <= header.keys() or type(header["folds"]) is not int:
                raise ValueError
        except (OSError, ValueError):
            raise InputError(path, "the file is damaged", "Start again with --overwrite") from None
        return header
    if not request.output.exists():
        return {}
    model = Model.load(request.output)
    facts: Mapping[str, Any] = model.provenance
    held_out = facts["folds"][0]["validation"]
    return {
        "recipe": model.recipe.model_dump(mode="json"),
        "reasons": {},
        "data": facts["data"],
        "train": [name for name, _ in facts["train"] if name not in set(held_out)],
        "validation": held_out,
        "parent": facts.get("parent"),
    }


def is_ensemble_written(request: TrainingRequest) -> bool:
    """Return True if the ensemble is written and no fold is left."""
    return request.output.exists() and not _find_record(request).exists()


def list_fold_files(request: TrainingRequest) -> Iterator[Path]:
    """Yield the models and folders of the folds."""
    if request.folder.is_dir():
        yield from sorted(path for path in request.folder.iterdir() if _FILES.fullmatch(path.name))


def remove_fold_models(request: TrainingRequest) -> None:
    """Remove the models of the folds, after the ensemble is written; logs and reports stay."""
    _find_record(request).unlink(missing_ok=True)  # first: without it, nothing is resumed from models that are left
    for path in list_fold_files(request):
        if path.is_file():
            path.unlink()


def remove_folds(request: TrainingRequest) -> None:
    """Remove models and checkpoints of an earlier training with folds."""
    remove_fold_models(request)
    for path in list_fold_files(request):
        Checkpoints(path / "checkpoints").clear()


def remove_fold_leftovers(request: TrainingRequest) -> None:
    """Remove the temporary files of a killed process."""
    for path in list_fold_files(request):
        remove_leftovers(path)
        if path.is_dir():
            remove_leftovers(path / "checkpoints")


def has_record(request: TrainingRequest) -> bool:
    """Return True if folds are being trained."""
    return _find_record(request).exists()


def _find_record(request: TrainingRequest) -> Path:
    return request.folder / "folds.json"
