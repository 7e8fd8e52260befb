"""Help pages: their width, headings and examples."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer

from septa.cli import app
from septa.cli.commands import HEADINGS, INPUT, LARGE, OBJECTS, OUTPUT, RECIPE, RUN, SPEED

GROUP: Any = typer.main.get_command(app)
PAGES = ["", *GROUP.commands]
"""Names of all commands, and the empty name of the program itself."""

GROUPS = {
    "": ["Commands", "Options"],
    "train": ["Arguments", INPUT, OUTPUT, RECIPE, RUN, SPEED, "Other"],
    "predict": ["Arguments", INPUT, OUTPUT, OBJECTS, SPEED, LARGE, "Other"],
    "evaluate": ["Arguments", INPUT, OUTPUT, RECIPE, SPEED, "Other"],
    "check": ["Arguments", INPUT, OUTPUT, RECIPE, RUN, "Other"],
    "recipe": ["Arguments", INPUT, RECIPE, RUN, SPEED, "Other"],
    "presets": ["Arguments", "Options"],
    "models": ["Arguments", "Options"],
    "describe": ["Arguments", INPUT, OUTPUT, RECIPE, "Other"],
    "info": ["Arguments", "Options"],
    "quantize": ["Arguments", INPUT, OUTPUT, RUN, "Other"],
    "export": ["Arguments", INPUT, OUTPUT, "Other"],
    "reproduce": ["Arguments", INPUT, OUTPUT, RECIPE, RUN, SPEED, "Other"],
    "synth": ["Arguments", "Options"],
    "app": ["Arguments", INPUT, RUN, "Other"],
    "demo": ["Arguments", "Options"],
}
"""Headings of each page between the text and the example."""


@pytest.fixture
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the help page of a command in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(typer.Exit) as ended, GROUP.make_context("septa", [*request.param.split(), "--help"]) as context:
        GROUP.invoke(context)
    assert ended.value.exit_code == 0
    return capsys.readouterr().out


def parameters(name: str) -> list[Any]:
    """Return the options of a command."""
    command = GROUP.commands[name] if name else GROUP
    return [each for each in command.params if each.param_type_name == "option"]


@pytest.mark.parametrize("page", PAGES, indirect=True)
def test_no_line_is_wider_than_80_columns(page: str) -> None:
    assert max(map(len, page.splitlines())) <= 80


@pytest.mark.parametrize(("name", "page"), [(name, name) for name in PAGES], indirect=["page"])
def test_the_options_are_under_their_headings(name: str, page: str) -> None:
    assert page.startswith(f"Usage: septa {name} [OPTIONS]".replace("  ", " "))
    assert re.findall(r"^(\S.*):$", page, re.MULTILINE) == [*GROUPS[name], "Example"]
    assert all(each.rich_help_panel in {None, *HEADINGS} for each in parameters(name))
    table = page[re.search(r"^\S.*:$", page, re.MULTILINE).start() :]
    for each in parameters(name):
        (start,) = re.findall(rf"^  {re.escape(', '.join(each.opts))}(?: .*)?$", table, re.MULTILINE)
        heading = re.findall(r"^(\S.*):$", table[: table.index(start)], re.MULTILINE)[-1]
        assert heading == (each.rich_help_panel or "Options")


@pytest.mark.parametrize(("name", "page"), [(name, name) for name in PAGES], indirect=["page"])
def test_the_values_of_options_have_plain_names(name: str, page: str) -> None:
    """Neither types of Python nor ranges in the notation of typer appear."""
    assert not re.search(r"<\w|<=|>=|\bTEXT\b|\bINTEGER\b|\bFLOAT\b|list\[|RANGE", page)
    assert all(each.metavar for each in parameters(name) if not each.is_flag)
    assert all(each.help.endswith(".") for each in parameters(name))
    assert all(re.match(r"[A-Z4]", each.help) for each in parameters(name))


@pytest.mark.parametrize(("name", "page"), [(name, name) for name in PAGES], indirect=["page"])
def test_the_example_is_valid(name: str, page: str) -> None:
    """Its options exist, its values are valid, and no argument is missing."""
    text, _, example = page.rstrip().rpartition("\n\nExample:\n  ")
    assert text
    program, command, *words = shlex.split(example.partition(" > ")[0])
    assert program == "septa"
    assert command == (name or "demo")
    context = GROUP.commands[command].make_context(command, words)
    given = [each for each in context.params if f"--{each}".replace("_", "-") in words]
    assert len(given) == sum(word.startswith("--") for word in words)


@pytest.mark.parametrize("page", [""], indirect=True)
def test_every_command_has_a_line_with_its_whole_summary(page: str) -> None:
    listed = dict(re.findall(r"^  ([a-z]+) +([A-Z].*)$", page, re.MULTILINE))
    assert list(listed) == list(GROUP.commands)
    for name, command in GROUP.commands.items():
        assert listed[name] == command.help.partition("\n")[0]
        assert re.fullmatch(r"[A-Z][a-z]+ .*[^.]\.", listed[name])


def test_help_is_printed_without_arguments_and_for_h(septa) -> None:
    printed = septa("--help").stdout
    assert septa("-h").stdout == printed
    assert septa().stdout == printed
    assert septa("train", "-h").stdout.startswith("Usage: septa train [OPTIONS] DATA\n")


def test_the_default_limit_of_pixels_is_the_one_of_the_library() -> None:
    """The command line repeats the number, because importing it would import numpy for each help page."""
    from septa import images
    from septa.cli.options import MAX_PIXELS

    assert images.MAX_PIXELS == MAX_PIXELS
