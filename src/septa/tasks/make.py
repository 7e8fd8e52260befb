"""The choice of the task by its name in the recipe."""

from __future__ import annotations

from collections.abc import Mapping

from septa.errors import RecipeError
from septa.labels import LabelMapping
from septa.recipe import Recipe
from septa.tasks.decoding import Decoding
from septa.tasks.instances import Instances
from septa.tasks.semantic import Semantic
from septa.tasks.task import Task

TASKS: Mapping[str, type[Semantic] | type[Instances]] = {"semantic": Semantic, "instances": Instances}
"""Class of each task by its name in the recipe."""


def make_task(recipe: Recipe, labels: LabelMapping, decoding: Decoding = Decoding()) -> Task:  # noqa: B008 (frozen)
    """Make the task of a recipe for labels of this kind.

    Parameters
    ----------
    recipe
        Its ``task`` names the task; ``auto`` stands for ``semantic`` here.
    labels
        Classes of the label images.
    decoding
        Thresholds by which objects are found.

    Raises
    ------
    RecipeError
        The labels do not suit the task, or the output of the net or the loss do not suit the labels.
    """
    try:
        task: Task = TASKS.get(recipe.task, Semantic).from_recipe(recipe, labels, decoding)
        task.check(recipe.loss)
    except ValueError as error:
        raise RecipeError("recipe", str(error), "mend the recipe") from None
    return task
