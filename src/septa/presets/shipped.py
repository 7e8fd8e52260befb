"""Recipes of well-known U-Nets that ship with septa, a commented YAML file each."""

from __future__ import annotations

import difflib
from importlib import resources

from rich.table import Table

from septa.errors import RecipeError
from septa.recipe import Recipe


def names() -> tuple[str, ...]:
    """Names of the presets, sorted.

    Examples
    --------
    >>> names()
    ('carvana', 'glas', 'isbi', 'oct', 'paper', 'shapes')
    """
    files = (item.name for item in resources.files("septa.presets").iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml")))


def text(name: str) -> str:
    """The file of a preset: the settings that differ from the defaults, and why.

    Raises
    ------
    RecipeError
        There is no preset of that name; the message tells the nearest name and all others.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1)
        guess = f"did you mean '{near[0]}'? " if near else ""
        raise RecipeError(f"preset '{name}'", "there is none of that name", f"{guess}choose {', '.join(known)}")
    return resources.files("septa.presets").joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def load(name: str) -> Recipe:
    """The recipe of a preset; errors as for `text`.

    Examples
    --------
    >>> load("paper").net.padding
    'valid'
    """
    return Recipe.from_yaml(text(name), f"preset '{name}'")


def title(name: str) -> str:
    """What a preset is, in one line: the first of its file; errors as for `text`."""
    return text(name).partition("\n")[0].removeprefix("#").strip()


def table() -> Table:
    """Every preset with its title."""
    shown = Table()
    shown.add_column("Preset", no_wrap=True)
    shown.add_column("What it is")
    for name in names():
        shown.add_row(name, title(name))
    return shown
