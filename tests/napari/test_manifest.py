"""The manifest of the napari plugin names what exists, and is part of the package. Needs no napari."""

from __future__ import annotations

import ast
import fnmatch
import tomllib
from pathlib import Path

import yaml

import septa

ROOT = Path(__file__).parents[2]
FOLDER = Path(septa.__file__).parent / "napari"
MANIFEST = yaml.safe_load((FOLDER / "napari.yaml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_commands_name_functions_and_classes_of_the_room():
    commands = {command["id"]: command["python_name"] for command in MANIFEST["contributions"]["commands"]}
    assert all(name.startswith(f"{MANIFEST['name']}.") for name in commands)
    for python_name in commands.values():
        module, _, attribute = python_name.partition(":")
        tree = ast.parse((FOLDER / f"{module.removeprefix('septa.napari.')}.py").read_text(encoding="utf-8"))
        assert attribute in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    contributions = [*MANIFEST["contributions"]["readers"], *MANIFEST["contributions"]["widgets"]]
    assert {each["command"] for each in contributions} == set(commands)


def test_the_reader_is_asked_for_stores_and_models_only():
    (reader,) = MANIFEST["contributions"]["readers"]
    assert reader["accepts_directories"]

    def asks(name: str) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for pattern in reader["filename_patterns"])

    assert asks("labels.ome.zarr")
    assert asks("cells.septa")
    assert not asks("image.tif"), "napari would ask for a plugin each time an image is opened"


def test_the_package_has_the_manifest_and_announces_it():
    assert PROJECT["project"]["entry-points"]["napari.manifest"] == {"septa": "septa.napari:napari.yaml"}
    assert "napari/napari.yaml" in PROJECT["tool"]["setuptools"]["package-data"]["septa"]
    assert {"napari", "parquet"} <= set(PROJECT["project"]["optional-dependencies"])
