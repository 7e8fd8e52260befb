"""The choice, after a fine-tuning, whether parts are joined as the model joins them that the training started from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from septa.data import Examples
from septa.model import Model, decode_as_predicted
from septa.training.automatic import RecipeChoice

_SETTING = "instances.join_share"

Labelled = tuple[Model, NDArray[np.float32], NDArray[np.int32]]
"""A model, logits ``KYX`` of an image, and the true labels ``YX``."""


@dataclass(frozen=True)
class Joining:
    """Scores of validation images with joined parts and without.

    Attributes
    ----------
    joined, apart
        Score of `septa.tasks.Task.score`, mean over the images, in [0, 1].
    objects
        Number of true objects.
    """

    joined: float
    apart: float
    objects: int

    @property
    def helps(self) -> bool:
        """False if joining costs more than one object; less may be luck."""
        return self.joined >= self.apart - self.one_object

    @property
    def one_object(self) -> float:
        """Change of a score if one object more is found."""
        return 1 / max(1, self.objects)

    def describe(self, score: str) -> str:
        """Return one line with the decision and both scores, whose name is given."""
        parts = "joined" if self.helps else "not joined"
        scores = f"{score} {self.joined:.3f} with joining on the validation images, {self.apart:.3f} without"
        return f"touching parts are {parts} ({_SETTING}): {scores}; one object counts {self.one_object:.3f}"


def inherits_joining(choice: RecipeChoice) -> bool:
    """Return whether parts will be joined because the model does so that the training started from."""
    return choice.recipe.instances.join_share > 0 and _SETTING in choice.reasons


def choose_joining(choice: RecipeChoice, images: Iterable[Labelled]) -> tuple[RecipeChoice, Joining | None]:
    """Choose whether parts are joined, if the training has inherited that from the model that it started from.

    They are, unless the validation images score better without, by more than one object.

    Parameters
    ----------
    choice
        Recipe of the training, with its reasons.
    images
        Validation images, at least one, of models that join parts and have their thresholds.

    Returns
    -------
    choice
        The recipe, with the choice and its reason.
    joining
        Scores of both; None if nothing was inherited, or if the user gave the setting.
    """
    if not inherits_joining(choice):
        return choice, None
    joining = _compare(images)
    if joining.helps:
        return choice, joining
    recipe = choice.recipe.with_overrides([f"{_SETTING}=0"])
    reasons = {**choice.reasons, _SETTING: "joined parts score lower on the validation images"}
    return replace(choice, recipe=recipe, reasons=reasons), joining


def settle_joining(choice: RecipeChoice) -> RecipeChoice:
    """Return a recipe for which `choose_joining` chooses nothing: a fold leaves the choice to the whole."""
    reasons = {key: reason for key, reason in choice.reasons.items() if key != _SETTING}
    return replace(choice, reasons=reasons)


def apply_joining(model: Model, choice: RecipeChoice) -> Model:
    """Return a model that joins parts as a recipe says."""
    changed = [f"{_SETTING}={choice.recipe.instances.join_share}"]
    return replace(model, recipe=model.recipe.with_overrides(changed))


def list_labelled(model: Model, examples: Examples, known: Mapping[int, NDArray[np.float32]]) -> Iterator[Labelled]:
    """Yield the images whose logits are known, by their index, with a model and their true labels."""
    for index, logits_kyx in known.items():
        yield model, logits_kyx, examples[index].labels_yx


def _compare(images: Iterable[Labelled]) -> Joining:
    scores, objects = [], 0
    for model, logits_kyx, labels_yx in images:
        apart = replace(model, recipe=model.recipe.with_overrides([f"{_SETTING}=0"]))
        found = (decode_as_predicted(one, logits_kyx) for one in (model, apart))
        scores.append([model.task.score(labels_yx, found_yx)[0] for found_yx in found])
        objects += np.unique(labels_yx[labels_yx > 0]).size
    joined, alone = np.mean(scores, axis=0)
    return Joining(float(joined), float(alone), objects)
