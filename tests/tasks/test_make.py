"""The task that a recipe names, for labels of every kind."""

from __future__ import annotations

import re

import pytest

from septa.errors import RecipeError
from septa.labels.mapping import LabelMapping
from septa.recipe import Recipe
from septa.tasks.decoding import Decoding
from septa.tasks.instances import Instances
from septa.tasks.make import TASKS, make_task

INDEX = LabelMapping("index", ("c0", "c1", "c2"), (0, 5, 9))
BINARY = LabelMapping("binary", ("background", "cell"), (0, 255))
OBJECTS = LabelMapping("instances", ("background", "object"), (0,))
CLASSED = LabelMapping("instances", ("background", "round", "long"), (0, 3, 8))
PLANES = LabelMapping("multilabel", ("a", "b", "c"), ())
SIGMOID = ("net.output=sigmoid", "loss.cross_entropy=0", "loss.bce=1")


@pytest.mark.parametrize(
    ("labels", "settings", "problem", "remedy"),
    [
        (
            INDEX,
            ["task=instances"],
            "task=instances needs object ids, or background and one class, got 3 classes",
            ["task=semantic"],
        ),
        (
            PLANES,
            ["task=instances", "loss.cross_entropy=0", "loss.bce=1"],
            "task=instances needs object ids, or background and one class, got 3 overlapping classes",
            ["task=semantic"],
        ),
        (
            BINARY,
            ["net.output=sigmoid"],
            "loss.cross_entropy needs one output per class, but net.output is sigmoid",
            ["loss.cross_entropy=0", "loss.bce=1"],
        ),
        (
            OBJECTS,
            ["task=instances", "net.output=sigmoid"],
            "loss.cross_entropy needs one output per class, but net.output is sigmoid",
            ["loss.cross_entropy=0", "loss.bce=1"],
        ),
        (
            INDEX,
            ["net.output=sigmoid"],
            "net.output=sigmoid needs two classes or overlapping classes, and the number of exclusive classes is 3",
            ["net.output=softmax"],
        ),
        (
            PLANES,
            [],
            "loss.cross_entropy needs exclusive classes, but the classes overlap",
            ["loss.cross_entropy=0", "loss.bce=1"],
        ),
        (
            PLANES,
            ["loss.cross_entropy=0", "loss.border_weight=10"],
            "loss.border_weight needs exclusive classes, but the classes overlap",
            ["loss.border_weight=0"],
        ),
        (
            OBJECTS,
            ["task=instances", "instances.encoding=distance", "loss.bce=1", "loss.cross_entropy=0"],
            "instances.encoding=distance needs loss.cross_entropy as the weight of its loss, not loss.bce",
            ["loss.cross_entropy=1", "loss.bce=0"],
        ),
    ],
)
def test_settings_that_do_not_fit_are_recipe_errors_with_a_remedy_that_works(
    labels: LabelMapping, settings: list[str], problem: str, remedy: list[str]
) -> None:
    recipe = Recipe().with_overrides(settings)
    with pytest.raises(RecipeError) as caught:
        make_task(recipe, labels)
    text = str(caught.value)
    assert text.startswith(f"recipe: {problem}. Set ")
    assert len(text.splitlines()) == 1
    assert caught.value.exit_code == 2
    assert re.findall(r"[\w.]+=\w+", caught.value.remedy) == remedy
    make_task(recipe.with_overrides(remedy), labels)


def test_one_output_needs_seams() -> None:
    recipe = Recipe().with_overrides(["task=instances", "instances.encoding=border", *SIGMOID])
    problem = "net.output=sigmoid needs instances.encoding=seam, got instances.encoding=border"
    with pytest.raises(RecipeError, match=f"^recipe: {re.escape(problem)}. Change one of the two.$"):
        make_task(recipe, OBJECTS)


@pytest.mark.parametrize(
    ("labels", "settings", "outputs"),
    [
        (INDEX, [], 3),
        (BINARY, [], 2),
        (BINARY, list(SIGMOID), 1),
        (OBJECTS, [], 2),
        (OBJECTS, ["task=instances"], 2),
        (OBJECTS, ["task=instances", *SIGMOID], 1),
        (CLASSED, ["task=instances"], 2 + 2),
        (CLASSED, [], 3),
        (PLANES, list(SIGMOID), 3),
    ],
)
def test_the_task_gives_the_number_of_outputs(labels: LabelMapping, settings: list[str], outputs: int) -> None:
    task = make_task(Recipe().with_overrides(settings), labels)
    assert task.outputs == outputs
    assert isinstance(task, Instances) == ("task=instances" in settings)


def test_settings_of_objects_reach_the_task() -> None:
    recipe = Recipe().with_overrides(["task=instances", "instances.encoding=border", "instances.rim=5"])
    decoding = Decoding(seed=0.7)
    assert make_task(recipe, CLASSED, decoding) == Instances("border", rim=5, decoding=decoding, object_classes=2)


def test_every_name_of_a_task_in_a_recipe_has_a_class() -> None:
    for name, kind in TASKS.items():
        assert isinstance(make_task(Recipe().with_overrides([f"task={name}"]), BINARY), kind)
