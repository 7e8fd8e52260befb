"""What a command loads before it begins, and that Python looks for no garbage meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

WATCHED = """
import gc, json, sys
from septa.cli import main

met = []  # at each collection: whether torch, or numba, is among what was loaded and not yet set aside

def meet(phase, info):
    if phase == "start" and not gc.get_freeze_count():
        met.append("torch" in sys.modules or "numba" in sys.modules)

gc.callbacks.append(meet)
try:
    main()
except SystemExit as end:
    gc.callbacks.remove(meet)
    told = {"code": end.code, "met": met, "enabled": gc.isenabled(), "frozen": gc.get_freeze_count()}
    print(json.dumps({**told, "modules": sorted(sys.modules)}))
"""
UNUSED = {"matplotlib", "skimage", "zarr", "dask", "onnx", "onnxruntime", "openvino", "sympy", "torch._dynamo"}
"""Slow to import, and of no use to the segmentation of a picture."""


def watch(*arguments: object) -> dict:
    """Run a command and tell what it met and loaded."""
    command = [sys.executable, "-c", WATCHED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["code"] == 0
    return told


@pytest.fixture(scope="module")
def image(cells: Path) -> Path:
    return cells / "images" / "cells_0000.tif"


def test_predicting_classes_loads_no_numba_and_collects_nothing_meanwhile(pixel_model, image, tmp_path):
    told = watch("predict", pixel_model, image, "-o", tmp_path)
    assert (tmp_path / "cells_0000.tif").is_file()
    assert "torch" in told["modules"]
    assert not {*UNUSED, "numba", "llvmlite", "scipy"} & set(told["modules"])
    assert not any(told["met"])
    assert told["enabled"]
    assert told["frozen"] > 100_000


def test_predicting_objects_loads_numba_before_it_begins(model, image, tmp_path):
    told = watch("predict", model, image, "-o", tmp_path)
    assert (tmp_path / "cells_0000.tif").is_file()
    assert "numba.np.arraymath" in told["modules"]
    assert not UNUSED & set(told["modules"])
    assert not any(told["met"])
    assert told["enabled"]


@pytest.mark.parametrize("command", ["info", "evaluate"])
def test_other_commands_collect_nothing_meanwhile_either(pixel_model, cells, command):
    told = watch(command, pixel_model, *([cells, "--all"] if command == "evaluate" else []))
    assert not any(told["met"])
    assert told["enabled"]


def test_help_loads_nothing_heavy():
    told = watch("--help")
    assert not {*UNUSED, "torch", "numpy", "pydantic", "numba", "rich"} & set(told["modules"])
    assert told["frozen"] == 0


STATES = """
import gc
from septa.cli.options import loading

for usual in (True, False):
    (gc.enable if usual else gc.disable)()
    try:
        with loading():
            assert not gc.isenabled()
            raise KeyError
    except KeyError:
        assert gc.isenabled() == usual
"""


def test_a_failure_leaves_collection_as_it_was():
    subprocess.run([sys.executable, "-c", STATES], check=True, timeout=60)
