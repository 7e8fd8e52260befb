from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from septa import demo
from septa.demo import run_demo
from septa.errors import InputError
from septa.images.read import read_labels
from septa.model import Model


@pytest.mark.usefixtures("one_thread")
def test_touching_cells_are_separated_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COUNT": 5, "HELD_OUT": 2, "SIZE": (96, 96), "STEPS": 3}.items():
        monkeypatch.setattr(demo, name, value)
    stream = StringIO()
    run_demo(Console(file=stream, width=200), tmp_path / "demo", minutes=9, overwrite=False)
    output = stream.getvalue()
    assert Model.load(tmp_path / "demo" / "cells.septa").recipe.task == "instances"
    assert re.search(r"^task: instances \(\d+ to \d+ objects per image\)$", output, re.MULTILINE)
    assert "Panoptic quality" in output
    true_count, found_count = (
        sum(len(np.unique(read_labels(path).array)) - 1 for path in (tmp_path / "demo" / folder).glob("*.tif"))
        for folder in ("data/held_out/labels", "segmented")
    )
    assert f"held-out images: {true_count} cells, {found_count} found, F1 of cells at IoU 0.5 0." in output


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_the_demo_did_not_write_is_unchanged(tmp_path: Path, overwrite: bool) -> None:
    mine = tmp_path / "data" / "images" / "mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"is not empty|was not written by"):
        run_demo(Console(file=StringIO()), tmp_path, minutes=1, overwrite=overwrite)
    assert mine.read_bytes() == b"mine"
