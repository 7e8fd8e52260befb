"""README and docs: Python examples run, command lines and options exist, and tables list every command and encoding."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from septa.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in ROOT.glob("docs/*.md")}
PAGES["README.md"] = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    (page, language, block)
    for page, text in sorted(PAGES.items())
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
]
PYTHON = [(page, block) for page, language, block in BLOCKS if language == "python"]
SHELL = [(page, line) for page, language, block in BLOCKS if not language for line in block.splitlines()]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def options_of(command: str) -> set[str]:
    """Return the option names of a command."""
    return {name for parameter in COMMANDS[command].params for name in parameter.opts}


def test_there_are_examples() -> None:
    readme = [line for page, line in SHELL if page == "README.md"]
    assert {"README.md", "docs/python.md"} <= {page for page, _ in PYTHON}
    assert {"pip install -c constraints.txt .", "septa demo"} <= set(readme)
    assert "pip install -c constraints.txt '.[dev]' && pytest" in readme
    assert {f"septa {command}" for command in ("check", "recipe", "train", "predict", "evaluate")} <= {
        " ".join(line.split()[:2]) for line in readme
    }


@pytest.mark.parametrize(("page", "example"), PYTHON, ids=[page for page, _ in PYTHON])
def test_python_examples_run(page: str, example: str, tmp_path: Path) -> None:
    if "septa.train(" not in example:
        pytest.skip(f"the example of {page} is a part of a program")
    command = [sys.executable, "-W", "error", "-c", example]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cells.septa").is_file()
    assert (tmp_path / "cells-run" / "report.html").is_file()
    assert 0 <= float(done.stdout.split()[0]) <= 1


def test_every_command_is_listed_and_every_listed_command_exists() -> None:
    text = "\n".join(
        [*(line for _, line in SHELL), *(code for page in PAGES.values() for code in re.findall(r"`[^`\n]+`", page))]
    )
    named = set(re.findall(r"(?:`|^|&& |-m )septa (\w+)", text, re.MULTILINE)) - {"COMMAND"}
    assert named == set(COMMANDS)
    assert {
        command for command, _ in re.findall(r"^\| `septa (\w+)([^`]*)` \|", PAGES["docs/commands.md"], re.MULTILINE)
    } == (set(COMMANDS))


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (words[1], words[2:])
        for _, line in SHELL
        if (words := re.sub(r".*-m septa", "septa", line.partition("#")[0]).split())[:1] == ["septa"]
    ],
)
def test_options_of_the_command_lines_exist(command: str, arguments: list[str]) -> None:
    assert {word for word in arguments if word.startswith("-")} <= options_of(command)


def test_options_in_the_table_of_commands_exist() -> None:
    rows = re.findall(r"^\| `septa (\w+)[^`]*` \|(.*)\|$", PAGES["docs/commands.md"], re.MULTILINE)
    assert len(rows) > len(COMMANDS)
    for command, text in rows:
        assert set(re.findall(r"`(--?[a-z-]+)`", text)) <= options_of(command)


def test_every_encoding_is_explained() -> None:
    from typing import get_args

    from septa.recipe import DataSettings

    encodings = set(get_args(DataSettings.model_fields["encoding"].annotation)) - {"auto"}
    section = PAGES["docs/data.md"].partition("\n## Labels\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == encodings


def test_the_names_that_rooms_hand_on_exist() -> None:
    rows = re.findall(r"^\| `(septa[\w.]*)` \| (.*) \|$", PAGES["docs/python.md"], re.MULTILINE)
    assert len(rows) >= 6
    for module, names in rows:
        room = importlib.import_module(module)
        assert all(hasattr(room, name) for name in re.findall(r"`(\w+)`", names)), module
