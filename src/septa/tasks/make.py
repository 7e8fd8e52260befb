"""Creation of the task that a recipe names."""

from __future__ import annotations

from collections.abc import Mapping

from septa.errors import RecipeError
from septa.labels import LabelMapping
from septa.recipe import Recipe
from septa.tasks.decoding import Decoding
from septa.tasks.instances import Instances
from septa.tasks.semantic import Semantic
from septa.tasks.task import Task, TaskMisfit

TASKS: Mapping[str, type[Semantic] | type[Instances]] = {"semantic": Semantic, "instances": Instances}
"""Class of each task by its name in the recipe."""


def make_task(recipe: Recipe, labels: LabelMapping, decoding: Decoding = Decoding()) -> Task:  # noqa: B008 (frozen)
    """Make the task that a recipe names.

    Parameters
    ----------
    recipe
        Settings, of which ``task`` is the name; ``auto`` is read as ``semantic`` here.
    labels
        Meaning of the values of the label images.
    decoding
        Thresholds by which objects are found.

    Raises
    ------
    RecipeError
        The task does not fit the labels, or the output of the net or the loss does not fit the task.
    """
    try:
        task: Task = TASKS.get(recipe.task, Semantic).from_recipe(recipe, labels, decoding)
        task.check(recipe.loss)
    except TaskMisfit as error:
        raise RecipeError("recipe", error.problem, error.remedy) from None
    return task
