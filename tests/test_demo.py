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


def test_a_shipped_model_is_shown_on_its_examples(shipped: Path, tmp_path: Path) -> None:
    for overwrite in (False, True):
        stream = StringIO()
        run_demo(Console(file=stream, soft_wrap=True), tmp_path / "demo", minutes=None, overwrite=overwrite)
    output, folder = stream.getvalue(), tmp_path / "demo" / "nuclei"
    assert f"septa predict nuclei {folder / 'images'} -o {folder / 'segmented'} --overlay\n" in output
    assert (folder / "images" / "0.png").read_bytes() == (shipped / "examples/nuclei/images/0.png").read_bytes()
    found_yx = read_labels(folder / "segmented" / "0.png").array
    np.testing.assert_array_equal(found_yx, Model.load("nuclei").segment(folder / "images" / "0.png"))
    true_count = len(np.unique(read_labels(folder / "labels" / "0.png").array)) - 1
    assert f"   0: {true_count} objects, {found_yx.max()} found, F1 at IoU 0.5 0." in output
    assert f"septa evaluate {folder / 'segmented'} {folder / 'labels'}\n" in output
    assert "septa predict nuclei YOUR_IMAGES" in output
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["nuclei", demo.MARK]


@pytest.mark.usefixtures("shipped", "one_thread")
def test_a_training_is_shown_on_request_and_where_no_model_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[float] = []
    monkeypatch.setattr(demo, "_train_and_segment", lambda console, folder, minutes, overwrite: trained.append(minutes))
    run_demo(Console(file=StringIO()), tmp_path / "a", minutes=3, overwrite=False)
    monkeypatch.setattr("septa.pretrained.shipped.FOLDER", tmp_path)
    run_demo(Console(file=StringIO()), tmp_path / "b", minutes=None, overwrite=False)
    assert trained == [3, demo.MINUTES]


def test_only_folders_of_the_demo_are_replaced(shipped: Path, tmp_path: Path) -> None:
    mine = tmp_path / "data" / "mine.png"
    for overwrite in (False, True):
        run_demo(Console(file=StringIO()), tmp_path, minutes=None, overwrite=overwrite)
        mine.parent.mkdir(exist_ok=True)
        mine.write_bytes(b"mine")
    assert mine.read_bytes() == b"mine"
    (tmp_path / demo.MARK).write_text("Written by 'septa demo', which may replace data/ and segmented/ here.\n")
    (tmp_path / "nuclei" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="nuclei: the folder was not written by 'septa demo'"):
        run_demo(Console(file=StringIO()), tmp_path, minutes=None, overwrite=True)
    assert (tmp_path / "nuclei" / "mine.txt").is_file()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_the_demo_did_not_write_is_unchanged(tmp_path: Path, overwrite: bool) -> None:
    mine = tmp_path / "data" / "images" / "mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"is not empty|was not written by"):
        run_demo(Console(file=StringIO()), tmp_path, minutes=1, overwrite=overwrite)
    assert mine.read_bytes() == b"mine"
