"""Texts that are not YAML, not safe or not a recipe: errors describe the problem and its place in septa's words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from septa.errors import RecipeError
from septa.recipe import Recipe
from septa.recipe.yaml_text import read_yaml, show_value, write_setting

REMEDY = "Run 'septa recipe DATA' to print a complete valid recipe"
OTHER = "this does not fit the text before it; check the indentation, quotes and brackets"
TAG = "this tag is not allowed"
ALIAS = "an alias is not allowed"
DEEP = "lists and mappings may not be nested more than 16 levels deep"
REPEATED = "this key is given twice; remove one of them"
VALUE = "this number, date or truth value cannot be read"

BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20))]
)
"""Twenty lines that hold 9**20 values."""


def refuse(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_yaml(text, "r.yaml")
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("text", ["", "# only a comment", "null", "just text", "3", "- net"])
def test_text_without_settings_is_refused(text: str) -> None:
    assert refuse(text) == f"r.yaml: the text holds no settings. {REMEDY}."


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        (BOMB, "line 2, column 10", ALIAS),
        (f"{BOMB}\nseed: *a19", "line 2, column 10", ALIAS),
        ("seed: &a [*a]", "line 1, column 11", ALIAS),
        ("seed: *nothing", "line 1, column 7", ALIAS),
        ("net: &n {depth: 2}\nloss: {<<: *n}", "line 2, column 12", ALIAS),
        ("seed: 1\na: [", "line 2, column 5", "a bracket is not closed"),
        ("a: {b", "line 1, column 6", "a bracket is not closed"),
        ("a: [1, 'b]", "line 1, column 8", "a quote is not closed"),
        ('a: "b\n\n', "line 1, column 4", "a quote is not closed"),
        ("a: 1\nb\nc: 2", "line 2, column 1", "a colon is missing after this key"),
        ("a: b: c", "line 1, column 5", "a colon is not allowed here; quote the text that contains it"),
        ("\tseed: 1", "line 1, column 1", "a tab cannot indent; use spaces"),
        ("net:\n\tdepth: 1", "line 2, column 1", "a tab cannot indent; use spaces"),
        ("a: @b", "line 1, column 4", "text cannot begin with this character; quote it"),
        ("seed: \x00", "line 1, column 7", "the character U+0000 is not allowed"),
        ("seed: 1\nnet: \x1b", "line 2, column 6", "the character U+001B is not allowed"),
        ("seed: \ud800", "line 1, column 7", "the character U+D800 is not allowed"),
        ("--- {}\n--- {}", "line 2, column 1", "a second document begins here"),
        ("? [1]\n: 2", "line 1, column 3", "a list or a mapping cannot be a key"),
        ("seed: !!python/object/apply:os.getcwd []", "line 1, column 7", TAG),
        ("seed: !unknown 3", "line 1, column 7", TAG),
        ("seed: !x!y 3", "line 1, column 7", TAG),
        ("seed: 2020-13-45", "line 1, column 7", VALUE),
        ("seed: 0b_", "line 1, column 7", VALUE),
        ("net: {depth: !!bool x}", "line 1, column 14", VALUE),
        ("a: [1, !!timestamp x]", "line 1, column 8", VALUE),
        ("seed: !!float x", "line 1, column 7", VALUE),
        ("seed: " + "9" * 5000, "line 1, column 7", VALUE),
        ("a:\n  b: 1\n c: 2", "line 3, column 2", OTHER),
        ("a: 'x' y", "line 1, column 8", OTHER),
        ("a: [b]]", "line 1, column 7", OTHER),
        ("a: !!binary é", "line 1, column 4", OTHER),
        ("seed: 1\nseed: 2", "line 2, column 1", REPEATED),
        ("net: {depth: 2, 'depth': 3}", "line 1, column 17", REPEATED),
        ("net:\n  depth: 2\nloss: {}\nnet: {width: 8}", "line 4, column 1", REPEATED),
        ("a: " + "[" * 16 + "]" * 16, "line 1, column 19", DEEP),
    ],
)
def test_text_that_is_not_yaml_is_refused_with_its_place(text: str, place: str, reason: str) -> None:
    expected = f"r.yaml: the text is not valid YAML ({place}: {reason}). Correct it at this place."
    assert refuse(text) == expected


def test_brackets_without_end_are_refused() -> None:
    assert f"the text is not valid YAML (line 1, column 17: {DEEP})" in refuse("[" * 1500)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_text_gives_another_exception(text: str) -> None:
    for candidate in (text, f"seed: {text}", f"data: {{group: {text}}}"):
        try:
            Recipe.from_yaml(candidate)
        except RecipeError as error:
            message = str(error)
            assert message.startswith("recipe: ")
            assert len(message.splitlines()) == 1


def test_values_are_shown_in_one_short_line() -> None:
    assert show_value("a\nb") == "'a b'"
    assert show_value({"b": [1, None], "a": True}) == "{a: true, b: [1, null]}"
    assert show_value(b"\xff") == "binary data"
    assert show_value(object()) == "object"
    assert show_value("y" * 61) == "y" * 60 + "..."
    assert show_value(float("inf")) == ".inf"


def test_a_setting_is_one_line_with_its_comment() -> None:
    assert write_setting("  ", "depth", 3, None) == "  depth: 3"
    assert write_setting("", "seed", 0, "as given") == f"{'seed: 0':<36}  # as given"
    assert read_yaml(write_setting("", "patch", [64, 128], "why")) == {"patch": [64, 128]}
