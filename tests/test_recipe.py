from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from septa.errors import InputError, RecipeError
from septa.recipe import AugmentSettings, DataSettings, LossSettings, Recipe, differences


def refused(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_yaml(text, "r.yaml")
    return one_line(caught.value, "r.yaml: ")


def one_line(error: Exception, start: str) -> str:
    text = str(error)
    assert text.startswith(start)
    assert len(text.splitlines()) == 1
    return text


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sed: 1", "'sed' is no setting"),
        ("training: {lrr: 1}", "'training.lrr' is no setting"),
        ("net: {depth: two}", "'net.depth'"),
        ("net: {depth: 2.5}", "'net.depth'"),
        ("net: {depth: 0}", "'net.depth'"),
        ("net: {depth: 8}", "'net.depth'"),
        ("net: {encoder: vgg16}", "'net.encoder'"),
        ("net: {pretrained: a.safetensors}", "pretrained weights need an encoder"),
        ("loss: {border_sigma: 0}", "'loss.border_sigma'"),
        ("inference: {tta: 9}", "'inference.tta'"),
        ("net: 3", "'net' "),
        ("net: []", "'net' "),
        ("training: {lr: .nan}", "'training.lr' input should be a finite number, got nan"),
        ("training: {lr: .inf}", "'training.lr' "),
        ("training: {lr: -1}", "'training.lr' "),
        ("training: {lr: 0}", "'training.lr' "),
        ("training: {lr: }", "'training.lr' "),
        ("training: {steps: [1]}", "'training.steps' "),
        ("training: {compile: maybe}", "'training.compile' "),
        ("sampling: {patch: [64]}", "'sampling.patch"),
        ("sampling: {patch: [64, 64, 64]}", "'sampling.patch"),
        ("sampling: {patch: [64, 0]}", "'sampling.patch.1'"),
        ("augment: {scale: [.nan, 1]}", "'augment.scale.0'"),
        ("augment: {scale: [0, 1]}", "'augment.scale.0'"),
        ("augment: {probability: 1.1}", "'augment.probability'"),
        ("loss: {cross_entropy: 0, dice: 0}", "at least one of cross_entropy, bce and dice must be above 0"),
        ("seed: -1", "'seed' "),
        ("septa: 2", "'septa' "),
        ("task: objects", "'task' "),
        ('"a\\nb": 1', "'a b' is no setting"),
        ("1: 2", "'1' keys should be strings"),
    ],
)
def test_settings_that_are_not_allowed_are_named(text: str, told: str) -> None:
    assert told in refused(text)


def test_all_wrong_settings_are_told_at_once() -> None:
    text = refused("sed: 1\nnet: {depth: 0, wide: 3}\n")
    assert all(f"'{key}'" in text for key in ("sed", "net.depth", "net.wide"))


@pytest.mark.parametrize("setting", ["scale", "gamma"])
def test_a_reversed_range_is_refused(setting: str) -> None:
    assert f"'augment.{setting}'" in refused(f"augment: {{{setting}: [1.2, 0.8]}}")
    assert "the low end comes first, got [1.2, 0.8]" in refused(f"augment: {{{setting}: [1.2, 0.8]}}")
    for ends in ([0.8, 1.2], [1.0, 1.0]):
        assert getattr(Recipe.from_yaml(f"augment: {{{setting}: {ends}}}").augment, setting) == tuple(ends)
    with pytest.raises(ValidationError):
        AugmentSettings(**{setting: (2.0, 1.0)})
    with pytest.raises(RecipeError, match=f"augment.{setting}"):
        Recipe().with_overrides([f"augment.{setting}=[2, 1]"])


BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20))]
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no settings"),
        ("# only a comment", "holds no settings"),
        ("null", "holds no settings"),
        ("just text", "holds no settings"),
        ("3", "holds no settings"),
        ("- net", "holds no settings"),
        (BOMB, "aliases are not allowed"),
        (f"{BOMB}\nseed: *a19", "aliases are not allowed"),
        ("seed: &a [*a]", "aliases are not allowed"),
        ("net: &n {depth: 2}\nloss: {<<: *n}", "aliases are not allowed"),
        ("a: [", "is not valid YAML"),
        ("a: b: c", "is not valid YAML"),
        ("\tseed: 1", "is not valid YAML"),
        ("seed: \x00", "is not valid YAML"),
        ("--- {}\n--- {}", "is not valid YAML"),
        ("? [1]\n: 2", "is not valid YAML"),
        ("seed: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("seed: !unknown 3", "is not valid YAML"),
        ("seed: 2020-13-45", "is not valid YAML"),
        ("seed: 0b_", "is not valid YAML"),
        ("seed: !!bool x", "is not valid YAML"),
        ("seed: !!timestamp x", "is not valid YAML"),
        ("seed: " + "9" * 5000, "is not valid YAML"),
        ("[" * 1500, "is not valid YAML"),
    ],
)
def test_text_that_is_no_recipe_is_refused(text: str, told: str) -> None:
    assert told in refused(text)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_text_gives_another_exception(text: str) -> None:
    for candidate in (text, f"seed: {text}", f"data: {{group: {text}}}"):
        try:
            Recipe.from_yaml(candidate)
        except RecipeError as error:
            one_line(error, "recipe: ")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    for where in (path, tmp_path):
        with pytest.raises(RecipeError, match="cannot be read") as caught:
            Recipe.load(where)
        one_line(caught.value, f"{where}: ")
    path.write_bytes(b"seed: \xff\xfe")
    with pytest.raises(RecipeError, match="is not UTF-8 text"):
        Recipe.load(path)
    path.write_text("sed: 1")
    with pytest.raises(InputError, match=r"r\.yaml: 'sed' is no setting"):
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


def test_overrides_set_what_they_name_and_nothing_else() -> None:
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
    ("assignment", "told"),
    [
        ("training.lr", "has no '='"),
        ("", "has no '='"),
        ("trainin.lr=1", "there is no section 'trainin'"),
        ("training.lr.x=1", "there is no section 'lr'"),
        ("training.lrr=1", "'training.lrr' is no setting"),
        ("training.lr=fast", "'training.lr' "),
        ("training.lr=.nan", "'training.lr' "),
        ("training=3", "'training' "),
        ("=3", "is no setting"),
        ("seed=[", "not valid YAML"),
        ("seed=2020-13-45", "not valid YAML"),
        ("seed=*a", "not valid YAML"),
        ("data.class_names=&a [*a]", "not valid YAML"),
    ],
)
def test_overrides_that_are_not_allowed_are_named(assignment: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe().with_overrides([assignment])
    assert told in one_line(caught.value, f"--set {assignment}: ")


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


def test_reasons_stand_beside_their_settings_as_comments() -> None:
    text = Recipe().to_yaml({"net.depth": "objects span 40 pixels", "seed": "as given"})
    lines = text.splitlines()
    (depth,) = [line for line in lines if line.startswith("  depth:")]
    (seed,) = [line for line in lines if line.startswith("seed:")]
    assert depth.endswith("  # objects span 40 pixels")
    assert seed.endswith("  # as given")
    assert sum("#" in line for line in lines) == 2
    assert Recipe.from_yaml(text) == Recipe()
    assert [line.split("  #")[0].rstrip() for line in lines] == Recipe().to_yaml().splitlines()


def test_every_setting_is_written_with_defaults() -> None:
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
