from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from septa.errors import InputError, RecipeError
from septa.recipe import DataSettings, LossSettings, Recipe, differences

REMEDY = "Run 'septa recipe DATA' to print a complete valid recipe"


def check_one_line(error: Exception, start: str) -> str:
    text = str(error)
    assert text.startswith(start)
    assert len(text.splitlines()) == 1
    return text


# --- files ----------------------------------------------------------------------------------------------------------


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    for where, reason in ((path, "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(RecipeError) as caught:
            Recipe.load(where)
        assert str(caught.value) == f"{where}: the file cannot be read ({reason}). Give the path of a YAML recipe."
    path.write_bytes(b"seed: \xff\xfe")
    with pytest.raises(RecipeError, match="the file is not UTF-8 text"):
        Recipe.load(path)
    path.write_text("sed: 1")
    with pytest.raises(InputError, match=r"r\.yaml: sed is not a setting \(did you mean seed\?\)\. "):
        Recipe.load(path)
    path.write_text("seed: 7")
    assert Recipe.load(path) == Recipe(seed=7)


def test_a_recipe_does_not_change() -> None:
    recipe = Recipe()
    with pytest.raises(ValidationError):
        recipe.seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        recipe.net.depth = 3  # type: ignore[misc]


# --- overrides ------------------------------------------------------------------------------------------------------


def test_overrides_change_only_the_settings_that_they_name() -> None:
    recipe = Recipe().with_overrides(
        [
            "training.lr=1e-3",
            " net.depth = 3",
            "seed=5",
            "sampling.patch=[64, 128]",
            "data.group=^(a|b)=(.*)$",
            "training.minutes=null",
            "loss.class_weights=[1, 2.5]",
            "seed=6",
        ]
    )
    assert differences(Recipe(), recipe) == [
        "seed: 0 -> 6",
        "data.group: None -> ^(a|b)=(.*)$",
        f"net.depth: {Recipe().net.depth} -> 3",
        "loss.class_weights: none -> [1.0, 2.5]",
        f"sampling.patch: {list(Recipe().sampling.patch)} -> [64, 128]",
        f"training.lr: {Recipe().training.lr} -> 0.001",
    ]
    assert Recipe().with_overrides([]) == Recipe()
    assert recipe.with_overrides(["seed=1"]).training.lr == 1e-3


@pytest.mark.parametrize(
    ("assignments", "where", "problem"),
    [
        (["training.lr"], "training.lr", "the assignment has no '='. Write it as section.key=value"),
        ([""], "", "the assignment has no '='. Write it as section.key=value"),
        (
            ["encoding=auto"],
            "encoding=auto",
            "encoding can mean data.encoding or instances.encoding. Write its section before it",
        ),
        (["trainin.lr=1"], "trainin.lr=1", f"trainin.lr is not a setting (did you mean training.lr?). {REMEDY}"),
        (
            ["training.lr.x=1"],
            "training.lr.x=1",
            f"training.lr.x is not a setting (did you mean training.lr?). {REMEDY}",
        ),
        (["training.lrr=1"], "training.lrr=1", f"training.lrr is not a setting (did you mean training.lr?). {REMEDY}"),
        (["widht=1"], "widht=1", f"widht is not a setting (did you mean net.width?). {REMEDY}"),
        (["=3"], "=3", f"'' is not a setting. {REMEDY}"),
        (["net.depth=99"], "net.depth=99", f"net.depth must be at most 7, got 99. {REMEDY}"),
        (["depth=99"], "depth=99", f"net.depth must be at most 7, got 99. {REMEDY}"),
        (["net={depth: 99}"], "net={depth: 99}", f"net.depth must be at most 7, got 99. {REMEDY}"),
        (["training=3"], "training=3", f"training must be a section with settings of its own, got 3. {REMEDY}"),
        (["training.lr=fast"], "training.lr=fast", f"training.lr must be a number, got fast. {REMEDY}"),
        (["training.lr=.nan"], "training.lr=.nan", f"training.lr must be a finite number, got .nan. {REMEDY}"),
        (["training.lr="], "training.lr=", f"training.lr must be a number, got null. {REMEDY}"),
        (
            ["seed=["],
            "seed=[",
            "the value is not valid YAML (line 1, column 2: a bracket is not closed). Correct the value, or quote it",
        ),
        (
            ["seed=2020-13-45"],
            "seed=2020-13-45",
            (
                "the value is not valid YAML (line 1, column 1: this number, date or truth value cannot be read). "
                "Correct the value, or quote it"
            ),
        ),
        (
            ["data.class_names=&a [*a]"],
            "data.class_names=&a [*a]",
            "the value is not valid YAML (line 1, column 5: an alias is not allowed). Correct the value, or quote it",
        ),
        # Only the assignments that are wrong are named, and the last one if a setting is assigned twice.
        (
            ["batch=2", "net.depth=0", "seed=-1", "net.depth=99"],
            "net.depth=99 --set seed=-1",
            f"seed must be at least 0, got -1; net.depth must be at most 7, got 99. {REMEDY}",
        ),
        (
            ["seed=3", "loss.dice=0", "cross_entropy=0"],
            "loss.dice=0 --set cross_entropy=0",
            f"at least one of loss.cross_entropy, loss.bce and loss.dice must be above 0. {REMEDY}",
        ),
    ],
)
def test_overrides_that_are_not_allowed_are_named(assignments: list[str], where: str, problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe().with_overrides(assignments)
    assert str(caught.value) == f"--set {where}: {problem}."


# --- YAML -----------------------------------------------------------------------------------------------------------

finite = {"allow_nan": False, "allow_infinity": False}
TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**32 - 1),
        "data": st.fixed_dictionaries(
            {},
            optional={
                "group": st.none() | TEXT,
                "class_names": st.none() | st.lists(TEXT, max_size=3),
                "values": st.none() | st.lists(st.integers() | st.tuples(*[st.integers(0, 255)] * 3), max_size=3),
                "ignore_label": st.none() | st.integers(-(2**40), 2**40),
                "validation_share": st.floats(0, 1, exclude_min=True, exclude_max=True),
            },
        ),
        "net": st.fixed_dictionaries({}, optional={"depth": st.integers(1, 7), "up": st.just("bilinear")}),
        "loss": st.fixed_dictionaries(
            {"dice": st.floats(1e-300, 1e300)},
            optional={"class_weights": st.just("frequency") | st.lists(st.floats(0, 1e6), max_size=3)},
        ),
        "augment": st.fixed_dictionaries(
            {}, optional={"flip": st.booleans(), "scale": st.tuples(st.floats(1e-9, 1), st.floats(1, 1e9))}
        ),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "lr": st.floats(0, exclude_min=True, **finite),
                "minutes": st.none() | st.floats(1e-3, 1e9),
                "amp": st.sampled_from(["auto", "off", "bf16", "fp16"]),
                "workers": st.none() | st.integers(1, 99),
            },
        ),
    },
)


@settings(deadline=None)
@given(SETTINGS, TEXT)
def test_yaml_round_trip(values: dict[str, Any], reason: str) -> None:
    recipe = Recipe.parse(values)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert yaml.safe_load(recipe.to_yaml()) == recipe.model_dump(mode="json")
    reason = " ".join(f"why {reason}".split())
    if reason.isprintable():
        commented = recipe.to_yaml({"data.group": reason, "seed": reason, "loss.class_weights": reason})
        assert Recipe.from_yaml(commented) == recipe


def test_reasons_are_written_as_comments_after_their_settings() -> None:
    text = Recipe().to_yaml({"net.depth": "objects span 40 pixels", "seed": "as given"})
    lines = text.splitlines()
    (depth,) = [line for line in lines if line.startswith("  depth:")]
    (seed,) = [line for line in lines if line.startswith("seed:")]
    assert depth.endswith("  # objects span 40 pixels")
    assert seed.endswith("  # as given")
    assert sum("#" in line for line in lines) == 2
    assert Recipe.from_yaml(text) == Recipe()
    assert [line.split("  #")[0].rstrip() for line in lines] == Recipe().to_yaml().splitlines()


def test_defaults_are_written_for_every_setting() -> None:
    written = yaml.safe_load(Recipe().to_yaml())
    assert set(written) == set(Recipe.model_fields)
    for name, section in Recipe():
        if hasattr(type(section), "model_fields"):
            assert set(written[name]) == set(type(section).model_fields)


# --- differences ----------------------------------------------------------------------------------------------------


def test_differences_name_every_changed_setting_with_both_values() -> None:
    old = Recipe()
    assert differences(old, Recipe()) == []
    new = Recipe(data=DataSettings(class_names=("a", "b")), loss=LossSettings(dice=0.25))
    assert differences(old, new) == ["data.class_names: None -> ['a', 'b']", f"loss.dice: {old.loss.dice} -> 0.25"]
    assert len(differences(new, old)) == 2
