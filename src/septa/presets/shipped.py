"""Recipes of well-known U-Nets that ship with septa, a commented YAML file each."""

from __future__ import annotations

import difflib
from importlib import resources

from rich.table import Table

from septa.errors import RecipeError
from septa.recipe import Recipe


def list_presets() -> tuple[str, ...]:
    """List the names of the presets, sorted.

    Examples
    --------
    >>> list_presets()
    ('carvana', 'glas', 'isbi', 'milesial', 'oct', 'paper', 'shapes')
    """
    files = (item.name for item in resources.files("septa.presets").iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml")))


def read_text(name: str) -> str:
    """Read the file of a preset: the settings that differ from the defaults, with the reason of each.

    Raises
    ------
    RecipeError
        There is no such preset. The message suggests the nearest name and lists all names.
    """
    known = list_presets()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1)
        nearest = f"; the nearest is {near[0]}" if near else ""
        remedy = f"Choose one of {', '.join(known)}{nearest}"
        raise RecipeError(f"preset '{name}'", "there is no preset with this name", remedy)
    return resources.files("septa.presets").joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def load_recipe(name: str) -> Recipe:
    """Load the recipe of a preset; errors as for `read_text`.

    Examples
    --------
    >>> load_recipe("paper").net.padding
    'valid'
    """
    return Recipe.from_yaml(read_text(name), f"preset '{name}'")


def read_title(name: str) -> str:
    """Read the title of a preset, the first line of its file; errors as for `read_text`."""
    return read_text(name).partition("\n")[0].removeprefix("#").strip()


def make_table() -> Table:
    """Make a table of all presets with their titles."""
    table = Table()
    table.add_column("Preset", no_wrap=True)
    table.add_column("Title")
    for name in list_presets():
        table.add_row(name, read_title(name))
    return table
