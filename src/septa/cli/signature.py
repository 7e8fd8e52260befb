"""Commands whose parameters are blocks of options: a dataclass that several commands share, or that names a topic."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_args, get_origin, get_type_hints


def flatten(function: Callable[..., None]) -> Callable[..., None]:
    """Return a function with one parameter for each option, as typer needs it.

    A parameter of ``function`` that is annotated with a dataclass is replaced by the fields of the dataclass, and the
    values of these fields are handed on as one object. Other parameters stay.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Pixels:
    ...     height: int
    ...     width: int = 5
    >>> def show(name: str, size: Pixels) -> None:
    ...     print(name, size.height * size.width)
    >>> list(inspect.signature(flatten(show)).parameters)
    ['name', 'height', 'width']
    >>> flatten(show)(name="area", height=3, width=5)
    area 15
    """
    hints = get_type_hints(function, include_extras=True)
    blocks: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(hints[name]):
            blocks[name] = hints[name]
            parameters += _make_parameters(hints[name])
        else:
            parameters.append(_make_parameter(name, hints[name], parameter.default))

    @wraps(function)
    def run(**values: Any) -> None:
        for name, block in blocks.items():
            values[name] = block(**{field.name: values.pop(field.name) for field in fields(block)})
        function(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _make_parameter(name: str, hint: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=_replace_tuple(hint), default=default)


def _make_parameters(block: Any) -> Iterator[inspect.Parameter]:
    """Yield a parameter for each field of a dataclass."""
    hints = get_type_hints(block, include_extras=True)
    for field in fields(block):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield _make_parameter(field.name, hints[field.name], default)


def _replace_tuple(hint: Any) -> Any:
    """Replace a tuple type by Any: typer would expect one word for each item, where septa reads them from one word."""
    if get_origin(hint) is not Annotated:
        return hint
    kind, *extras = get_args(hint)
    tuples = [part for part in (kind, *get_args(kind)) if get_origin(part) is tuple]
    return Annotated[Any, *extras] if tuples else hint
