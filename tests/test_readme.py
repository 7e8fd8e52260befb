"""Test the README: its Python examples run, its commands and options exist, and its tables are complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from septa.cli import app

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
PYTHON = [text for language, text in BLOCKS if language == "python"]
SHELL = [line for language, text in BLOCKS if not language for line in text.splitlines()]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_there_are_examples() -> None:
    assert PYTHON
    assert "pip install -c constraints.txt . && septa demo" in SHELL
    assert "pip install -c constraints.txt '.[dev]' && pytest" in SHELL


@pytest.mark.parametrize("example", PYTHON)
def test_python_examples_run(example: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", example]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cells.septa").is_file()
    assert (tmp_path / "cells-run" / "report.html").is_file()
    assert 0 <= float(done.stdout.split()[0]) <= 1


def test_every_command_is_listed_and_every_listed_command_exists() -> None:
    listed = set(
        re.findall(r"(?:`|^|&& |-m )septa (\w+)", "\n".join([*SHELL, *re.findall(r"`[^`\n]+`", README)]), re.MULTILINE)
    )
    assert listed - {"COMMAND"} == set(COMMANDS)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (words[1], words[2:])
        for line in SHELL
        if (words := re.sub(r".*-m septa", "septa", line.partition("#")[0]).split())[:1] == ["septa"]
    ],
)
def test_options_of_the_command_lines_exist(command: str, arguments: list[str]) -> None:
    options = {name for parameter in COMMANDS[command].params for name in parameter.opts}
    assert {word for word in arguments if word.startswith("-")} <= options


def test_options_in_the_table_of_commands_exist() -> None:
    rows = re.findall(r"^\| `septa (\w+)[^`]*` \|(.*)\|$", README, re.MULTILINE)
    assert len(rows) > len(COMMANDS)
    for command, text in rows:
        options = {name for parameter in COMMANDS[command].params for name in parameter.opts}
        assert set(re.findall(r"`(--?[a-z-]+)`", text)) <= options


def test_every_encoding_is_listed() -> None:
    from typing import get_args

    from septa.recipe import DataSettings

    encodings = set(get_args(DataSettings.model_fields["encoding"].annotation)) - {"auto"}
    section = README.partition("\n## Labels\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == encodings
