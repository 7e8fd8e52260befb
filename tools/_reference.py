"""Pages of the reference, written from the commands and from the public names of each room."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from types import GenericAlias
from typing import Any

import typer
from _stage import write_changed

import septa
from septa.cli import app
from septa.cli.commands import HEADINGS

SOURCES = Path(septa.__file__).parent

FIRST = ("septa", "septa.nets", "septa.images", "septa.metrics", "septa.tasks", "septa.inference", "septa.model")
"""Rooms at the top of the list: those that are useful on their own."""

PLUGINS = ("septa.napari",)
"""Rooms that another program imports, which has what they need; nobody else does."""

MODULES = ("septa.errors", "septa.notices", "septa.runtime", "septa.prefetch")
"""Public modules that are not rooms."""


# --- commands ---------------------------------------------------------------------------------------------------------


def write_commands(path: Path) -> None:
    """Write the page of all commands with all options."""
    group: Any = typer.main.get_command(app)
    lines = ["# Command line", "", "This page is for everyone who looks up an option. It is written from the commands."]
    lines += ["", "Every command has `--help`. Options of septa itself stand before the name of the command:", ""]
    lines += _make_table(group.params)
    for name, command in group.commands.items():
        lines += ["", f"## septa {name}", "", *_write_help(command.help)]
        usage = [f"{each.metavar}" if each.required else f"[{each.metavar}]" for each in _pick(command, "argument")]
        lines += ["", "```text", " ".join(["septa", name, *usage, "[OPTIONS]"]), "```"]
        if command.epilog:
            lines += ["", "Example:", "", "```bash", inspect.cleandoc(command.epilog), "```"]
        arguments = _pick(command, "argument")
        if arguments:
            lines += ["", "**Arguments**", "", *_make_table(arguments)]
        options = _pick(command, "option")
        headings = {getattr(each, "rich_help_panel", None) or "Other" for each in options}
        for heading in [*(one for one in HEADINGS if one in headings), *sorted(headings - set(HEADINGS))]:
            chosen = [one for one in options if (getattr(one, "rich_help_panel", None) or "Other") == heading]
            lines += ["", f"**{heading}**", "", *_make_table(chosen)]
    write_changed(path, "\n".join(lines) + "\n")


def _pick(command: Any, kind: str) -> list[Any]:
    return [one for one in command.params if one.param_type_name == kind and not one.hidden and one.name != "help"]


def _write_help(text: str | None) -> list[str]:
    return [_mark_options(inspect.cleandoc(text or "").replace("``", "`"))]


def _mark_options(text: str) -> str:
    """Return a text without code whose options are marked as code."""
    return text if "`" in text else re.sub(r"(?<![\w-])--[a-z][a-z-]*", r"`\g<0>`", text)


def _make_table(parameters: Sequence[Any]) -> list[str]:
    lines = ["| name | value | default | meaning |", "|---|---|---|---|"]
    for one in parameters:
        if one.name == "help":
            continue
        is_option = one.param_type_name == "option"
        names = [*one.opts, *one.secondary_opts] if is_option else [one.metavar]
        shown = ", ".join(f"`{name}`" for name in names)
        value = f"`{one.metavar}`" if is_option and one.metavar else ""
        default = "required" if one.required else _show_default(one.default)
        cells = [shown, value, default, _mark_options(one.help or "")]
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return lines


def _show_default(value: Any) -> str:
    if value is None or value is False or value == () or callable(value):
        return ""
    if value is True:
        return "on"
    text = " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"`{text}`"


# --- Python -----------------------------------------------------------------------------------------------------------


def list_rooms() -> list[str]:
    """List the modules that hand on public names, those of parts first."""
    rooms = sorted(f"septa.{path.parent.name}" for path in SOURCES.glob("*/__init__.pyi"))
    return [*FIRST, *(room for room in rooms if room not in (*FIRST, *PLUGINS)), *MODULES]


def list_names(module: str) -> list[str]:
    """List the public names of a module in the order of its face."""
    if module == "septa":
        return sorted(name for name in septa.__all__ if not name.startswith("__"))
    face = SOURCES / module.removeprefix("septa.") / "__init__.pyi"
    if face.is_file():
        return re.findall(r"^from \S+ import \w+ as (\w+)$", face.read_text(encoding="utf-8"), re.MULTILINE)
    room = importlib.import_module(module)
    return [
        name
        for name, value in vars(room).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module
    ]


def write_api(folder: Path) -> set[Path]:
    """Write a page for each room with the docstrings of its public names, and their index; return the pages."""
    written: list[str] = []
    lines = [
        "# Python API",
        "",
        "This page is for everyone who imports septa. Each module below lists its public names;",
    ]
    lines += ["nothing else is promised to stay. Names carry their axes: B batch, C channel, Y row, X column, K class."]
    lines += ["", "| module | what is in it | names |", "|---|---|---|"]
    for module in list_rooms():
        names = [name for name in list_names(module) if not inspect.ismodule(_find(module, name))]
        if not names:
            continue
        summary = (importlib.import_module(module).__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ")
        lines.append(f"| [{module}]({module}.md) | {_use_markdown(summary)} | {len(names)} |")
        _write_room(folder / f"{module}.md", module, names, summary)
        written.append(module)
    lines += ["", "```{toctree}", ":hidden:", "", *written, "```"]
    write_changed(folder / "index.md", "\n".join(lines) + "\n")
    return {folder / f"{name}.md" for name in ("index", *written)}


def _find(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _use_markdown(text: str) -> str:
    return re.sub(r"``?([^`]+)``?", r"`\1`", text)


def _write_room(path: Path, module: str, names: Sequence[str], summary: str) -> None:
    lines = [f"# {module}", "", _use_markdown(summary), "", "```{eval-rst}", f".. currentmodule:: {module}", ""]
    names = sorted(names, key=lambda name: name not in septa.__all__)  # what septa itself hands on comes first
    kinds = [_classify(_find(module, name)) for name in names]
    titles = {"function": "Functions", "class": "Classes"}
    order = sorted(titles, key=kinds.count, reverse=True)  # what a room has most of comes first
    for kind, title in [*((kind, titles[kind]) for kind in order), ("data", "Data")]:
        chosen = [name for name in names if _classify(_find(module, name)) == kind]
        if chosen:
            lines += ["```", "", f"## {title}", "", "```{eval-rst}"]
        for name in chosen:
            lines += _write_data(module, name) if kind == "data" else _write_object(module, name, kind)
    write_changed(path, "\n".join([*lines, "```", ""]))


def _write_object(module: str, name: str, kind: str) -> list[str]:
    """Return the directive of a function or a class; names of `septa` itself are indexed in their rooms."""
    value = _find(module, name)
    kind = "exception" if inspect.isclass(value) and issubclass(value, BaseException) else kind
    lines = [f".. auto{kind}:: {module}.{name}"]
    lines += ["   :members:"] if kind == "class" else []
    lines += ["   :no-index:"] if module == "septa" and value.__module__ != "septa" else []
    return [*lines, ""]


def _write_data(module: str, name: str) -> list[str]:
    """Return the directive of a constant, with the text that follows it in the source."""
    text, place = "", SOURCES / module.removeprefix("septa.") / "__init__.pyi"
    found = (
        re.search(rf"^from (\S+) import {name} as", place.read_text("utf-8"), re.MULTILINE) if place.is_file() else None
    )
    source = module + found[1] if found else module
    if found and found[1] != ".":
        from sphinx.pycode import ModuleAnalyzer

        attributes = ModuleAnalyzer.for_module(source).find_attr_docs()
        text = " ".join(attributes.get(("", name), []))
    return [f".. py:data:: {name}", f"   :module: {module}", "", f"   {text.strip()}", ""]


def _classify(value: Any) -> str:
    if inspect.isclass(value) and not isinstance(value, GenericAlias):
        return "class"
    return "function" if inspect.isroutine(value) or hasattr(value, "py_func") else "data"
