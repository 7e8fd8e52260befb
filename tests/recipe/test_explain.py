"""Errors of a recipe in septa's words: a text for every kind of error that pydantic can find."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from septa.errors import RecipeError
from septa.recipe import AugmentSettings, Recipe
from septa.recipe.explain import _EXPECTED, explain, explain_unknown, join, list_keys

REMEDY = "Run 'septa recipe DATA' to print a complete valid recipe"

CASES = {
    "extra_forbidden": ("training: {speed: 3}", "training.speed is not a setting"),
    "extra_forbidden, misspelt": ("training: {lrr: 1}", "training.lrr is not a setting (did you mean training.lr?)"),
    "extra_forbidden, of another section": (
        "training: {width: 8}",
        "training.width is not a setting (did you mean net.width?)",
    ),
    "extra_forbidden, section": ("trainin: {lr: 1}", "trainin is not a setting (did you mean training?)"),
    "extra_forbidden, without its section": ("lr: 1", "lr is not a setting (did you mean training.lr?)"),
    "extra_forbidden, at the top": ("sed: 1", "sed is not a setting (did you mean seed?)"),
    "extra_forbidden, controls": ('"a\\nb": 1', r"'a\nb' is not a setting"),
    "extra_forbidden, empty": ('"": 1', "'' is not a setting"),
    "invalid_key": ("1: 2", "1 is not a setting"),
    "invalid_key, in a section": ("net: {1: 2}", "net.1 is not a setting"),
    "invalid_key, null": ("net: {~: 2}", "net.null is not a setting"),
    "invalid_key, bytes": ("? !!binary aa==\n: 3", "'binary data' is not a setting"),
    "model_type": ("net: 3", "net must be a section with settings of its own, got 3"),
    "model_type, list": ("net: []", "net must be a section with settings of its own, got []"),
    "model_type, null": ("net:", "net must be a section with settings of its own, got null"),
    "int_type": ("training: {steps: [1]}", "training.steps must be a whole number, got [1]"),
    "int_type, null": ("net: {depth: }", "net.depth must be a whole number, got null"),
    "int_type, date": ("seed: 2020-01-31", "seed must be a whole number, got 2020-01-31"),
    "int_parsing": ("net: {depth: two}", "net.depth must be a whole number, got two"),
    "int_from_float": ("net: {depth: 2.5}", "net.depth must be a whole number, got 2.5"),
    "int_parsing_size": (
        "data: {ignore_label: 1.0e+30}",
        "data.ignore_label must be a whole number of fewer digits, got 1.0e+30",
    ),
    "float_type": ("training: {lr: }", "training.lr must be a number, got null"),
    "float_parsing": ("training: {lr: fast}", "training.lr must be a number, got fast"),
    "finite_number": ("training: {lr: .nan}", "training.lr must be a finite number, got .nan"),
    "finite_number, inf": ("training: {lr: .inf}", "training.lr must be a finite number, got .inf"),
    "greater_than": ("training: {lr: 0}", "training.lr must be above 0, got 0"),
    "greater_than_equal": ("net: {depth: 0}", "net.depth must be at least 1, got 0"),
    "greater_than_equal, negative": ("seed: -1", "seed must be at least 0, got -1"),
    "less_than": ("augment: {contrast: 1}", "augment.contrast must be below 1, got 1"),
    "less_than, large": ("seed: 4294967296", "seed must be below 4294967296, got 4294967296"),
    "less_than_equal": ("net: {depth: 99}", "net.depth must be at most 7, got 99"),
    "less_than_equal, fraction": ("augment: {probability: 1.1}", "augment.probability must be at most 1, got 1.1"),
    "bool_type": ("net: {squeeze: [1]}", "net.squeeze must be true or false, got [1]"),
    "bool_parsing": ("training: {compile: maybe}", "training.compile must be true or false, got maybe"),
    "string_type": ("data: {group: 3}", "data.group must be text, got 3"),
    "string_unicode": ("data: {group: !!binary /w==}", "data.group must be text, got binary data"),
    "literal_error": ("net: {block: fancy}", "net.block must be one of plain, residual, got fancy"),
    "literal_error, numbers": ("net: {reduction: 3}", "net.reduction must be one of 1, 2, 4, 8, got 3"),
    "literal_error, one": ("septa: 2", "septa must be 1, got 2"),
    "literal_error, null": ("task:", "task must be one of auto, semantic, instances, got null"),
    "literal_error, empty": ("task: ''", "task must be one of auto, semantic, instances, got ''"),
    "tuple_type": ("data: {class_names: cell}", "data.class_names must be a list, got cell"),
    "tuple_type, mapping": ("data: {class_names: {a: 1}}", "data.class_names must be a list, got {a: 1}"),
    "too_long": ("sampling: {patch: [64, 64, 64]}", "sampling.patch must have 2 values, got [64, 64, 64]"),
    "missing": ("sampling: {patch: [64]}", "sampling.patch must have 2 values, got [64]"),
    "missing, both": ("sampling: {patch: []}", "sampling.patch must have 2 values, got []"),
    "in a list": ("sampling: {patch: [64, 0]}", "value 2 of sampling.patch must be at least 1, got 0"),
    "in a list, text": ("data: {class_names: [a, 1]}", "value 2 of data.class_names must be text, got 1"),
    "in a list, not finite": (
        "augment: {scale: [.nan, 1]}",
        "value 1 of augment.scale must be a finite number, got .nan",
    ),
    "in a list, bound": ("augment: {scale: [0, 1]}", "value 1 of augment.scale must be above 0, got 0"),
    "union": (
        "loss: {class_weights: even}",
        "loss.class_weights must be one of none, frequency or a list, got even",
    ),
    "union, in its list": (
        "loss: {class_weights: [1, -1]}",
        "value 2 of loss.class_weights must be at least 0, got -1",
    ),
    "union in a list": ("data: {values: [0, 1.5]}", "value 2 of data.values must be a whole number or a list, got 1.5"),
    "union in a list, short": (
        "data: {values: [[0]]}",
        "value 1 of data.values must be a whole number or have 3 values, got [0]",
    ),
    "union in a list, long": (
        "data: {values: [[0, 0, 0, 0]]}",
        "value 1 of data.values must be a whole number or have 3 values, got [0, 0, 0, 0]",
    ),
    "union in a list, in its list": (
        "data: {values: [0, [0, 0, x]]}",
        "value 3 of value 2 of data.values must be a whole number, got x",
    ),
    "value_error": ("augment: {scale: [1.2, 0.8]}", "augment.scale must give the smaller value first, got [1.2, 0.8]"),
    "value_error, encoder": (
        "net: {encoder: vgg16}",
        "net.encoder must be one of plain, resnet18, resnet34, resnet50, timm:NAME, got vgg16",
    ),
    "value_error, of a section": (
        "net: {pretrained: a.safetensors}",
        "net.pretrained needs an encoder with published weights, such as net.encoder=resnet34",
    ),
    "value_error, sum": (
        "loss: {cross_entropy: 0, dice: 0}",
        "at least one of loss.cross_entropy, loss.bce and loss.dice must be above 0",
    ),
    "long value": (f"task: {'x' * 100}", f"task must be one of auto, semantic, instances, got {'x' * 60}..."),
    "two errors": (
        "net: {depth: 0}\nsed: 1",
        "net.depth must be at least 1, got 0; sed is not a setting (did you mean seed?)",
    ),
    "five errors": (
        "net: {depth: 0, width: 0, up: 1}\nseed: -1\nloss: {dice: -1}",
        (
            "seed must be at least 0, got -1; net.depth must be at least 1, got 0; "
            "net.width must be at least 1, got 0; and 2 more"
        ),
    ),
}
"""Kind of an error, as pydantic calls it: a recipe that has it, and the text."""

NUMBERS = [0, -1, 3, 10**9, 2**64, 10**30, 1.5, -0.5, 1e30, float("nan"), float("inf")]
TEXTS = ["", "x", "3", "1.5", "9" * 5000, b"\xff", b"x"]
LISTS = [[], [1], [1, 2, 3], [2, 1], [0, 0], (1,), ["a", "b"], ["x", 1.5], [float("nan"), 1], [None, None], {"a", "b"}]
NESTED = [[[1], [1, 2, 3, 4]], [["a", 2, 3], 1.5, None], {}, {"x": 1}, {1: 2}, {None: 1}]
HOSTILE: list[Any] = [None, True, *NUMBERS, *TEXTS, *LISTS, *NESTED, datetime.date(2020, 1, 31), object()]
"""Values of every kind that YAML, or a caller, can give."""

FOREIGN = re.compile(r"input|a valid|tuple|literal|field|value error|should|extra|dictionary|parse|instance of", re.I)
"""Words of pydantic."""


def refuse(values: Any) -> ValidationError | None:
    try:
        Recipe.model_validate(values)
    except ValidationError as error:
        return error
    return None


def hostile_recipes() -> Iterator[Any]:
    for value in HOSTILE:
        for key in list_keys(Recipe):
            section, _, name = key.rpartition(".")
            yield {section: {name: value}} if section else {name: value}
        for section in Recipe.model_fields:
            yield {section: value}


@pytest.mark.parametrize("case", CASES)
def test_every_error_has_its_text(case: str) -> None:
    text, problem = CASES[case]
    with pytest.raises(RecipeError) as caught:
        Recipe.from_yaml(text, "r.yaml")
    assert str(caught.value) == f"r.yaml: {problem}. {REMEDY}."


def test_no_kind_of_error_is_without_a_text() -> None:
    """Whatever a setting is given, every kind of error is in the table of texts, and in the cases above."""
    kinds, count = set(), 0
    for values in hostile_recipes():
        error = refuse(values)
        if error is None:
            continue
        count += 1
        kinds |= {item["type"] for item in error.errors()}
        findings = explain(error, Recipe)
        assert findings
        assert "have a value that is allowed" not in join(findings), values
        text = " ".join(re.sub(r", got .*", "", finding.problem) for finding in findings)
        assert not FOREIGN.search(text), text
    assert count > 1000
    known = {*_EXPECTED, "extra_forbidden", "invalid_key", "missing"}
    assert kinds == known
    assert known == {case.partition(",")[0] for case in CASES} & known


def test_a_kind_of_error_that_is_not_known_still_has_a_text() -> None:
    class Later(BaseModel):
        when: datetime.date = datetime.date(2020, 1, 1)

    with pytest.raises(ValidationError) as caught:
        Later(when="soon")  # type: ignore[arg-type]
    (finding,) = explain(caught.value, Later)
    assert finding == ("when", "when must have a value that is allowed, got soon")


def test_findings_name_their_settings() -> None:
    error = refuse(
        {"sed": 1, "net": {"depth": 0}, "loss": {"cross_entropy": 0, "dice": 0}, "sampling": {"patch": [0, 1]}}
    )
    assert error is not None
    assert [finding.key for finding in explain(error, Recipe)] == ["net.depth", "loss", "sampling.patch", "sed"]


def test_names_unlike_any_setting_have_no_suggestion() -> None:
    assert explain_unknown("speed", Recipe).problem == "speed is not a setting (did you mean seed?)"
    assert explain_unknown("training.speed", Recipe).problem == "training.speed is not a setting"
    assert explain_unknown("zzz.lr", Recipe).problem == "zzz.lr is not a setting (did you mean training.lr?)"


def test_keys_are_all_settings() -> None:
    keys = list(list_keys(Recipe))
    assert len(keys) == len(set(keys))
    assert {"septa", "seed", "net.depth", "data.encoding", "instances.encoding"} <= set(keys)
    assert "net" not in keys
    assert sum(key.startswith("augment.") for key in keys) == len(AugmentSettings.model_fields)
