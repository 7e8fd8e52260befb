"""What stdout and stderr cannot write: no name, full disk or closed stream changes how a command ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Run

BAD = os.fsdecode(b"bad\xff.png")
"""A name with a byte that is not UTF-8."""

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")


@pytest.fixture(scope="module")
def images(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    for name in ("ż.png", "名.png", BAD):
        shutil.copy(untrained / "x.png", folder / name)
    return folder


def end(words: str, redirection: str, cwd: Path | None = None) -> tuple[int, str, str]:
    """Run a command of a shell; return its exit code, stdout and stderr."""
    command = f"'{sys.executable}' -m septa {words} {redirection}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


@needs_full
@pytest.mark.parametrize("words", ["--version", "presets", "train --help"])
def test_a_full_disk_under_stdout_is_one_line_and_exit_code_4(words: str) -> None:
    where = "septa" if words.startswith("-") else f"septa {words.split()[0]}"
    expected = f"error: {where}: the disk or the quota is full. Free some space and run it again.\n"
    assert end(words, "> /dev/full") == (4, "", expected)


@needs_full
def test_a_prediction_whose_lines_cannot_be_written_ends_with_exit_code_4(untrained: Path, tmp_path: Path) -> None:
    code, _, err = end(f"predict plain.septa x.png -o '{tmp_path / 'out'}'", "> /dev/full", untrained)
    assert (code, err.count("\n")) == (4, 1)


@needs_full
def test_an_error_after_output_that_cannot_be_written_keeps_its_code() -> None:
    code, _, err = end("info missing.septa", "> /dev/full")
    assert (code, err.count("\n")) == (2, 1)


@needs_full
@pytest.mark.parametrize(("words", "code"), [("presets", 0), ("info missing.septa", 2)])
@pytest.mark.parametrize("redirection", ["2> /dev/full", "2>&-"])
def test_stderr_that_cannot_be_written_leaves_the_exit_code(words: str, code: int, redirection: str) -> None:
    ended, out, err = end(words, redirection)
    assert (ended, err) == (code, "")
    assert bool(out) == (code == 0)


@pytest.mark.parametrize(("words", "code"), [("presets", 0), ("--help", 0), ("info missing.septa", 2)])
def test_a_closed_stdout_is_not_an_error(words: str, code: int) -> None:
    ended, _, err = end(words, ">&-")
    assert (ended, err.count("\n")) == (code, int(code > 0))


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
def test_names_that_stdout_cannot_encode_are_shown_escaped(
    images: Path, untrained: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "septa", "predict", untrained / "plain.septa", ".", "-o", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, check=False, cwd=images, env={**os.environ, **environment})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"bad\\udcff.png: 1 tile" in done.stdout
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {path.name for path in images.iterdir()}


def test_a_training_takes_names_that_are_not_utf_8(septa: Run, data: Path, tiny: list[str], tmp_path: Path) -> None:
    for side in ("images", "labels"):
        (data / side / "a.png").rename(data / side / BAD)
    environment = {"PYTHONIOENCODING": "ascii"}
    septa("check", data, "--html", tmp_path / "check.html", env=environment)
    septa("train", data, "-o", tmp_path / "m.septa", *tiny, "--set", "training.steps=2", env=environment)
    assert "bad\\udcff" in (tmp_path / "check.html").read_text("utf-8") + septa("info", tmp_path / "m.septa").stdout


def test_exhausted_memory_is_exit_code_4_whoever_reports_it() -> None:
    program = (
        "from septa import presets, cli\n"
        "def fail(*_): raise RuntimeError('could not create a primitive')\n"
        "presets.load_recipe = fail\n"
        "cli.main()"
    )
    command = [sys.executable, "-c", program, "recipe", ".", "--preset", "paper"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = "error: septa recipe: the process ran out of memory. Use a machine with more memory.\n"
    assert (done.returncode, done.stderr) == (4, line)
