"""The types of the package as a program outside sees them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import septa

CLIENT = """
import numpy as np
import septa
from torch import nn

net: nn.Module = septa.UNet(1, 2, depth=2, width=8)
model: septa.Model = septa.load("cells.septa")
labels = model.segment(np.zeros((8, 8)))
reveal_type(labels.dtype)
samples = septa.Dataset("cells", split="train")
reveal_type(samples[0]["image"])
weights = septa.border_weights(np.zeros((8, 8), int), w0=10)
loss = septa.losses.soft_dice
def follow(event: septa.ProgressEvent) -> None: print(event.share)
septa.train("cells", callback=follow)
septa.border_weights(np.zeros((8, 8), int), w0="ten")
"""


@pytest.mark.slow
def test_a_program_outside_is_checked_against_the_types(tmp_path: Path) -> None:
    """Mypy follows ``py.typed`` and finds the one mistake of the program."""
    (tmp_path / "client.py").write_text(CLIENT, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "client.py"]
    environment = {"MYPYPATH": str(Path(septa.__file__).parents[1]), "PATH": "/usr/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("client.py") and "error" in line]
    assert len(found) == 1, done.stdout
    assert 'Argument "w0"' in found[0]
    assert "torch._tensor.Tensor" in done.stdout
    assert "signedinteger" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("pyright") is None, reason="pyright is not installed (pip install pyright; it needs node)"
)
def test_pyright_finds_the_same_mistake(tmp_path: Path) -> None:
    """Pyright finds the one mistake of the program, and no other."""
    (tmp_path / "client.py").write_text(CLIENT, encoding="utf-8")
    command = ["pyright", "--pythonpath", sys.executable, "--outputjson", "client.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = [each for each in json.loads(done.stdout)["generalDiagnostics"] if each["severity"] == "error"]
    assert len(found) == 1, done.stdout
    assert "w0" in found[0]["message"]
