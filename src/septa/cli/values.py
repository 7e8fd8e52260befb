"""Kinds of option values: each reads the text of one option, or raises an error that names what was expected."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from septa import errors

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@dataclass(frozen=True, kw_only=True)
class ValueKind:
    """A kind of value.

    Attributes
    ----------
    metavar
        Placeholder for the value in help pages.
    expected
        Description of valid values, to follow "the value must be".
    example
        Valid value as it is written on the command line.
    convert
        Function from the text to the value; it raises ValueError for an invalid text.
    """

    metavar: str
    expected: str
    example: str
    convert: Callable[[str], Any]

    def read(self, option: str, text: str) -> Any:
        """Return the value that a text stands for.

        Parameters
        ----------
        option
            Option or argument that the text belongs to, such as ``--tile``.
        text
            Text as it was given.

        Raises
        ------
        InputError
            The text is not a valid value.
        """
        try:
            return self.convert(text)
        except ValueError:
            problem = f"the value must be {self.expected}, got {text}" if text else "the value is empty"
            remedy = f"Give for example {option} {self.example}" if option.startswith("-") else f"Give {self.example}"
            raise errors.InputError(option, problem, remedy) from None


def whole_number(*, least: int, most: int | None = None, example: int) -> ValueKind:
    """Return the kind of whole numbers within limits."""

    def convert(text: str) -> int:
        value = int(text)
        if value < least or (most is not None and value > most):
            raise ValueError
        return value

    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    return ValueKind(metavar="N", expected=f"a whole number {limits}", example=str(example), convert=convert)


def number(
    *, above: float | None = None, least: float = 0, most: float = math.inf, example: float, metavar: str = "X"
) -> ValueKind:
    """Return the kind of finite numbers within limits: ``above`` excludes its own value, ``least`` includes it."""

    def convert(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and least <= value <= most and (above is None or value > above)):
            raise ValueError
        return value

    limits = f"of at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
    if above is not None:
        limits = f"above {above:g}"
    return ValueKind(metavar=metavar, expected=f"a number {limits}", example=f"{example:g}", convert=convert)


def choice(*choices: str) -> ValueKind:
    """Return the kind of a few fixed words."""

    def convert(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    expected = f"{', '.join(choices[:-1])} or {choices[-1]}"
    return ValueKind(metavar="|".join(choices), expected=expected, example=choices[0], convert=convert)


def path(*, example: str) -> ValueKind:
    """Return the kind of paths. An empty text, as an unset shell variable gives, is not one."""
    return ValueKind(metavar="PATH", expected="a path", example=example, convert=lambda text: Path(_refuse_empty(text)))


def regex(*, example: str) -> ValueKind:
    """Return the kind of regular expressions, which stay text."""

    def convert(text: str) -> str:
        try:
            re.compile(text)
        except re.error:
            raise ValueError from None
        return text

    return ValueKind(metavar="REGEX", expected="a regular expression", example=example, convert=convert)


def word(metavar: str, example: str) -> ValueKind:
    """Return the kind of any text but an empty one."""
    return ValueKind(metavar=metavar, expected="a text", example=example, convert=_refuse_empty)


def _refuse_empty(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _convert_memory(text: str) -> int:
    """Return a number of bytes.

    Examples
    --------
    >>> _convert_memory("1.5GB"), _convert_memory("2GiB"), _convert_memory("512 mib")
    (1500000000, 2147483648, 536870912)
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?)b?", text.strip().lower())
    if match is None or match[2] not in _UNITS or float(match[1]) <= 0:
        raise ValueError
    return int(float(match[1]) * _UNITS[match[2]])


def _convert_size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()) or min(int(height), int(width)) < 1:
        raise ValueError
    return int(height), int(width)


def _convert_numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise ValueError
    return tuple(int(part) for part in parts)


def _convert_measurements(text: str) -> tuple[str, ...]:
    from septa.objects import choose_measurements

    names = tuple(text.split(","))
    choose_measurements(names)
    return names


def _convert_region(text: str) -> tuple[int, int, int, int]:
    top, left, bottom, right = _convert_numbers(text)
    return top, left, bottom, right


def _convert_range(text: str) -> str:
    if not re.fullmatch(r"-?\d*:-?\d*(:[1-9]\d*)?", text):
        raise ValueError
    return text


PAIRS = ValueKind(metavar="START:STOP", expected="a range such as 0:50", example="0:50", convert=_convert_range)
MEMORY = ValueKind(metavar="SIZE", expected="an amount such as 4GB or 512MiB", example="4GB", convert=_convert_memory)
SIZE = ValueKind(metavar="HEIGHTxWIDTH", expected="HEIGHTxWIDTH in pixels", example="256x256", convert=_convert_size)
CHANNELS = ValueKind(metavar="N,N,...", expected="channel numbers", example="2,0", convert=_convert_numbers)
REGION = ValueKind(
    metavar="TOP,LEFT,BOTTOM,RIGHT",
    expected="TOP,LEFT,BOTTOM,RIGHT in pixels",
    example="0,0,2048,4096",
    convert=_convert_region,
)
WELLS = ValueKind(
    metavar="NAME,...",
    expected="names of wells or patterns, separated by commas",
    example="A1,B*",
    convert=lambda text: tuple(_refuse_empty(name.strip()) for name in text.split(",")),
)
MEASUREMENTS = ValueKind(
    metavar="NAME,...",
    expected="basic, full, or some of perimeter, circularity, solidity, axes, orientation, feret, std, median, "
    "integrated, background and neighbours, separated by commas",
    example="full",
    convert=_convert_measurements,
)
