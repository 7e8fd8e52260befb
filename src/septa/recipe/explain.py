"""The errors of a recipe in septa's words: unknown keys, and every kind of error that pydantic can find."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from septa.recipe.yaml_text import show_value

_MOST = 3
"""Errors that one line names; the others are counted."""
_ALIKE = 0.7
"""Least similarity, by `difflib`, of an unknown key to a setting that is suggested instead."""

_EXPECTED: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "int_type": lambda context: "be a whole number",
    "int_parsing": lambda context: "be a whole number",
    "int_parsing_size": lambda context: "be a whole number of fewer digits",
    "int_from_float": lambda context: "be a whole number",
    "float_type": lambda context: "be a number",
    "float_parsing": lambda context: "be a number",
    "finite_number": lambda context: "be a finite number",
    "greater_than": lambda context: f"be above {context['gt']:.15g}",
    "greater_than_equal": lambda context: f"be at least {context['ge']:.15g}",
    "less_than": lambda context: f"be below {context['lt']:.15g}",
    "less_than_equal": lambda context: f"be at most {context['le']:.15g}",
    "bool_type": lambda context: "be true or false",
    "bool_parsing": lambda context: "be true or false",
    "string_type": lambda context: "be text",
    "string_unicode": lambda context: "be text",
    "tuple_type": lambda context: "be a list",
    "too_long": lambda context: f"have {context['max_length']} values",
    "model_type": lambda context: "be a section with settings of its own",
    "literal_error": lambda context: _describe_choices(context["expected"]),
    "value_error": lambda context: str(context["error"]).removeprefix("must "),
}
"""Type of a pydantic error: what was expected, as a text that continues "SETTING must"."""


class Finding(NamedTuple):
    """One error of a recipe: the ``section.key`` or section that it concerns, and a clause that describes it."""

    key: str
    problem: str


def explain(error: ValidationError, model: type[BaseModel]) -> list[Finding]:
    """Describe every error that pydantic found in the values of ``model``, a recipe with sections."""
    items = error.errors(include_url=False)
    faults = [_read_fault(item, items, model) for item in items]
    groups = itertools.groupby(faults, key=lambda fault: (fault.key, fault.place))
    findings = [finding for _, group in groups for finding in _explain_place(list(group))]
    return list(dict.fromkeys(findings))


def explain_unknown(key: str, model: type[BaseModel]) -> Finding:
    """Say that ``key`` is not a setting of ``model``, and name the setting that may be meant.

    Examples
    --------
    >>> from septa.recipe import Recipe
    >>> explain_unknown("training.width", Recipe).problem
    'training.width is not a setting (did you mean net.width?)'
    """
    near = _find_nearest(key, model)
    return Finding(key, f"{_quote(key)} is not a setting{f' (did you mean {near}?)' if near else ''}")


def join(findings: Sequence[Finding]) -> str:
    """Join findings into one line: the problems of the first three, and the number of the others."""
    more = len(findings) - _MOST
    return "; ".join([*(finding.problem for finding in findings[:_MOST]), *([f"and {more} more"] if more > 0 else [])])


def list_keys(model: type[BaseModel]) -> Iterator[str]:
    """List the settings of ``model``: ``section.key``, or ``key`` outside the sections."""
    for name in model.model_fields:
        section = _find_section(name, model)
        yield from [name] if section is None else (f"{name}.{key}" for key in section.model_fields)


@dataclass(frozen=True, kw_only=True)
class _Fault:
    """An error of pydantic, its location taken apart.

    Attributes
    ----------
    key
        Setting or section.
    place
        Places of the value in a list, and in lists inside it, from 0, up to the first branch of a union.
    branch
        Further location: the branch of a union, and places in it. Empty without a union.
    expected
        Text that continues "SETTING must".
    got
        Value that was given.
    clause
        Whole description, where ``expected`` does not fit.
    """

    key: str
    place: tuple[int, ...]
    branch: tuple[int | str, ...]
    expected: str
    got: Any
    clause: str = ""


def _read_fault(item: ErrorDetails, items: Iterable[ErrorDetails], model: type[BaseModel]) -> _Fault:
    location = item["loc"]
    kind = item["type"]
    got = item["input"]
    section = _find_section(str(location[0]), model) if location else None
    length = 1 if section is None else 2
    names = [str(part) for part in location[:length]]
    rest = location[length:]
    context = item.get("ctx", {})
    expected = _EXPECTED[kind](context) if kind in _EXPECTED else "have a value that is allowed"
    clause = ""
    if kind == "missing":
        # pydantic reports each missing value of a list with the place that it should have.
        rest = rest[:-1]
        missing = sum(other["type"] == kind and other["loc"][:-1] == location[:-1] for other in items)
        expected = f"have {len(got) + missing} values"
    elif kind == "invalid_key":
        names[-1] = show_value(got)
    elif kind == "value_error" and section is not None and len(names) == 1:
        # The validator of a section names the settings itself.
        clause = str(context["error"])
    if kind in ("extra_forbidden", "invalid_key"):
        clause = explain_unknown(".".join(names), model).problem
    place = tuple(itertools.takewhile(lambda part: isinstance(part, int), rest))
    key = ".".join(names) or "the recipe"
    return _Fault(key=key, place=place, branch=rest[len(place) :], expected=expected, got=got, clause=clause)  # type: ignore[arg-type]


def _explain_place(faults: Sequence[_Fault]) -> list[Finding]:
    """Describe the errors at one place: of a union those of the branch that goes deepest, or of all branches in one."""
    if not any(fault.branch for fault in faults):
        return [_describe(fault, fault.place, fault.expected) for fault in faults]
    deepest = [fault for fault in faults if len(fault.branch) > 1]
    if deepest:
        return [
            _describe(fault, (*fault.place, *(part for part in fault.branch if isinstance(part, int))), fault.expected)
            for fault in deepest
        ]
    first, *others = dict.fromkeys(fault.expected for fault in faults)
    return [_describe(faults[0], faults[0].place, " or ".join([first, *(text.removeprefix("be ") for text in others)]))]


def _describe(fault: _Fault, places: Sequence[int], expected: str) -> Finding:
    subject = "".join(f"value {place + 1} of " for place in reversed(places)) + fault.key
    return Finding(fault.key, fault.clause or f"{subject} must {expected}, got {show_value(fault.got)}")


def _describe_choices(expected: str) -> str:
    """Describe the values of a Literal, which pydantic gives as ``'a', 'b' or 'c'``."""
    values = re.split(r", | or ", expected.replace("'", ""))
    return f"be {values[0]}" if len(values) == 1 else f"be one of {', '.join(values)}"


def _find_section(name: str, model: type[BaseModel]) -> type[BaseModel] | None:
    field = model.model_fields.get(name)
    kind = field.annotation if field is not None else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _find_nearest(key: str, model: type[BaseModel]) -> str:
    """Find the setting or section that ``key`` may mean; return an empty string if none is similar."""
    section, _, name = key.rpartition(".")
    settings = list(list_keys(model))
    # The same name in another section, or a setting that was taken for a section; else a misspelt name.
    same_name = [one for one in settings if one == section or (one.rpartition(".")[2] == name and one != key)]
    own = [one for one in settings if one.rpartition(".")[0] == section] if section in model.model_fields else []
    found = same_name or _match(name, own or [*model.model_fields, *settings])
    return found[0] if found else ""


def _match(name: str, keys: Sequence[str]) -> list[str]:
    by_name = {key.rpartition(".")[2]: key for key in reversed(keys)}
    return [by_name[near] for near in difflib.get_close_matches(name, by_name, n=1, cutoff=_ALIKE)]


def _quote(key: str) -> str:
    return key if re.fullmatch(r"[\w.\-]+", key) else f"'{key}'"
