"""Run the examples in the docstrings of the installed package.

``pytest --doctest-modules src`` would import the files in ``src/``, and the installed package would stay untested.
"""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import septa

HOUSE = Path(septa.__file__).parent


def name_module(path: Path) -> str:
    return ".".join(["septa", *path.relative_to(HOUSE).with_suffix("").parts]).removesuffix(".__init__")


# Importing __main__ would run the command line.
MODULES = sorted(name_module(path) for path in HOUSE.rglob("*.py") if path.name != "__main__.py")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "septa.napari.widget":
        pytest.importorskip("magicgui", reason="napari is not installed (pip install 'septa[napari]')")
    results = doctest.testmod(importlib.import_module(name))
    if results.failed:
        pytest.fail(capsys.readouterr().out, pytrace=False)


def test_examples_are_found() -> None:
    assert {"septa", "septa.images.read"} <= set(MODULES)
    assert doctest.testmod(importlib.import_module("septa.errors")).attempted > 0
