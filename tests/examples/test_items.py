"""The list of the tutorials' items: its commands run, its settings are valid, and its cells exist."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import typer

from septa.cli import app
from septa.images import write_image, write_labels
from septa.recipe import Recipe
from septa.synthetic import write_dataset

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tutorials" / "items.md").read_text(encoding="utf-8")
ROWS = [
    (section.partition("\n")[0], *row)
    for section in PAGE.split("\n## ")[1:]
    for row in re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.MULTILINE)[1:]
]
COMMANDS = [(section, code) for section, _, cell in ROWS for code in re.findall(r"`(septa [^`]+)`", cell)]
TINY = ["--set", "net.width=4", "--set", "training.steps=2", "--set", "training.validations=1"]
WHOLE = {
    "carvana": ["--set", "sampling.patch=[64, 96]"],
    "membranes": ["--set", "sampling.patch=[64, 64]"],
    "shapes": ["--set", "sampling.patch=[64, 64]"],
}


def test_every_row_has_a_command_a_setting_or_a_cell() -> None:
    assert len(ROWS) > 50
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for _, part, cell in ROWS:
        codes = re.findall(r"`([^`]+)`", cell)
        for code in codes:
            if code.startswith("septa "):
                words = shlex.split(code)
                options = {name for one in known[words[1]].params for name in one.opts}
                assert {word for word in words if word.startswith("-")} <= options, code
        Recipe().with_overrides([code for code in codes if not code.startswith("septa ")])
        cells = re.findall(r'\((\S+\.py)\)(?:, "([^"]+)")?', cell)
        assert codes or cells, part
        for path, heading in cells:
            text = (ROOT / "docs" / "tutorials" / path).read_text(encoding="utf-8")
            assert not heading or f"# ## {heading}\n" in text, heading


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with small drawn data for each tutorial."""
    rng = np.random.default_rng(0)
    for name, size, channels in (("carvana", (64, 96), 3), ("membranes", (64, 64), 1), ("glas", (96, 112), 3)):
        for index in range(10):
            labels_yx = np.zeros(size, np.uint8)
            top, left = rng.integers(4, 30, 2)
            labels_yx[top : top + 30, left : left + 30] = 255
            image_cyx = rng.integers(0, 60, (channels, *size)) + labels_yx // 2
            letter = "abcdefghij"[index]
            places = [(f"{name}/images/{letter}.png", f"{name}/labels/{letter}.png")]
            if name == "carvana":
                places.append((f"photographs/imgs/{letter}.png", f"photographs/masks/{letter}_mask.png"))
            for image, labels in places:
                write_image(tmp_path / image, image_cyx.astype(np.uint8))
                write_labels(tmp_path / labels, labels_yx)
    write_dataset(tmp_path / "oct", "oct", 10, (96, 128), seed=0)
    write_dataset(tmp_path / "shapes", "shapes", 10, (64, 64), seed=0)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_runs(fork_server, folder: Path) -> None:
    faults = []
    for _, code in COMMANDS:
        words = shlex.split(code)[1:]
        if "--tensorboard" in words and find_spec("tensorboard") is None:
            continue
        if words[0] in ("train", "reproduce"):
            words += [*TINY, *WHOLE.get(words[1], [])]
        done = fork_server.run(words, folder=folder)
        if done.returncode:
            faults.append((code, done.stderr))
    assert faults == []
