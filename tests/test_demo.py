from __future__ import annotations

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
def test_cells_that_touch_are_told_apart_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COUNT": 5, "HELD_OUT": 2, "SIZE": (96, 96), "STEPS": 3}.items():
        monkeypatch.setattr(demo, name, value)
    stream = StringIO()
    run_demo(Console(file=stream, width=200), tmp_path / "demo", minutes=9, overwrite=False)
    told = stream.getvalue()
    assert Model.load(tmp_path / "demo" / "cells.septa").recipe.task == "instances"
    assert "task: instances, the labels number " in told
    assert "Panoptic quality" in told
    there, found = (
        sum(len(np.unique(read_labels(path).array)) - 1 for path in (tmp_path / "demo" / folder).glob("*.tif"))
        for folder in ("data/held_out/labels", "segmented")
    )
    assert f"held-out images: {there} cells, {found} found, F1 of cells at IoU 0.5 0." in told


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_no_demo_wrote_is_left_alone(tmp_path: Path, overwrite: bool) -> None:
    mine = tmp_path / "data" / "images" / "mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"is not empty|was not written by"):
        run_demo(Console(file=StringIO()), tmp_path, minutes=1, overwrite=overwrite)
    assert mine.read_bytes() == b"mine"
