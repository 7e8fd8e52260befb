"""The modules that a command loads before it starts, and that no garbage collection runs meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WATCHED = """
import gc, json, sys
from septa.cli import main

# For each garbage collection: True if torch or numba was loaded and not yet excluded from collections.
met = []

def meet(phase, info):
    if phase == "start" and not gc.get_freeze_count():
        met.append("torch" in sys.modules or "numba" in sys.modules)

gc.callbacks.append(meet)
try:
    main()
except SystemExit as end:
    gc.callbacks.remove(meet)
    facts = {"code": end.code, "met": met, "enabled": gc.isenabled(), "frozen": gc.get_freeze_count()}
    print(json.dumps({**facts, "modules": sorted(sys.modules)}))
"""
UNUSED = {"matplotlib", "skimage", "zarr", "dask", "onnx", "onnxruntime", "openvino", "sympy", "torch._dynamo"}
"""Modules that are slow to import and not needed to segment an image."""


def watch(*arguments: object) -> dict[str, Any]:
    """Run a command; return its garbage collections and its modules."""
    command = [sys.executable, "-c", WATCHED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["code"] == 0
    return facts


@pytest.fixture(scope="module")
def image(cells: Path) -> Path:
    return cells / "images" / "cells_0000.tif"


def test_predicting_classes_loads_no_numba_and_collects_no_garbage(pixel_model, image, tmp_path):
    facts = watch("predict", pixel_model, image, "-o", tmp_path)
    assert (tmp_path / "cells_0000.tif").is_file()
    assert "torch" in facts["modules"]
    assert not {*UNUSED, "numba", "llvmlite", "scipy"} & set(facts["modules"])
    assert not any(facts["met"])
    assert facts["enabled"]
    assert facts["frozen"] > 100_000


def test_predicting_objects_loads_numba_before_it_starts(model, image, tmp_path):
    facts = watch("predict", model, image, "-o", tmp_path)
    assert (tmp_path / "cells_0000.tif").is_file()
    assert "numba.np.arraymath" in facts["modules"]
    assert not UNUSED & set(facts["modules"])
    assert not any(facts["met"])
    assert facts["enabled"]


@pytest.mark.parametrize("command", ["info", "evaluate"])
def test_other_commands_collect_no_garbage_either(pixel_model, cells, command):
    facts = watch(command, pixel_model, *([cells, "--all"] if command == "evaluate" else []))
    assert not any(facts["met"])
    assert facts["enabled"]


def test_help_loads_nothing_heavy():
    facts = watch("--help")
    assert not {*UNUSED, "torch", "numpy", "pydantic", "numba", "rich"} & set(facts["modules"])
    assert facts["frozen"] == 0


STATES = """
import gc
from septa.cli.options import pause_garbage_collection

for enabled in (True, False):
    (gc.enable if enabled else gc.disable)()
    try:
        with pause_garbage_collection():
            assert not gc.isenabled()
            raise KeyError
    except KeyError:
        assert gc.isenabled() == enabled
"""


def test_a_failure_restores_garbage_collection():
    subprocess.run([sys.executable, "-c", STATES], check=True, timeout=60)
