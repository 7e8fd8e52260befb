"""Mistakes in arguments, options and recipes, and the output of short commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import septa as package


def test_version(septa):
    assert septa("--version").stdout == f"septa {package.__version__}\n"


def test_a_wrong_argument_writes_nothing(fault, tmp_path):
    line = fault("synth", "x", "--kind", "oct", "--size", "64x31", cwd=tmp_path)
    assert line.startswith("size: ")
    assert "32 to 16384" in line
    line = fault("trian", "x", cwd=tmp_path)
    assert line == "septa: the command trian does not exist. Use 'septa train', or run 'septa --help' for all commands."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("training.speed=3", ": training.speed is not a setting. "),
        ("training.lr=fast", ": training.lr must be a number, got fast. "),
        ("trainig.lr=1", ": trainig.lr is not a setting (did you mean training.lr?). "),
        ("training.lr", ": the assignment has no '='. "),
        ("data.group=[", ": the value is not valid YAML (line 1, column 2: a bracket is not closed). "),
    ],
)
def test_wrong_settings(fault, cells, setting, named):
    line = fault("recipe", cells, "--set", setting)
    assert line.startswith(f"--set {setting}: ")
    assert named in line


def test_options_that_change_the_recipe_are_checked(fault, cells):
    assert fault("recipe", cells, "--minutes", "-1").startswith(
        "--minutes: the value must be a number above 0, got -1. "
    )
    assert fault("recipe", cells, "--group", "(").startswith("--group: the value must be a regular expression, got (. ")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"training:\n  speed: 3\n", ": training.speed is not a setting. "),
        (b"training: [1,\n", ": the text is not valid YAML (line 2, column 1: a bracket is not closed). "),
        (b"just text\n", ": the text holds no settings. "),
        (b"\xff\xfe\x00", ": the file is not UTF-8 text. "),
        (b"septa: 2\n", ": septa must be 1, got 2. "),
        (None, ": the file cannot be read (No such file or directory). "),
    ],
)
def test_wrong_recipe_files(fault, cells, tmp_path, content, named):
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_bytes(content)
    line = fault("train", cells, "-o", tmp_path / "x.septa", "--recipe", path)
    assert line.startswith(f"{path}: ")
    assert named in line
    assert not (tmp_path / "x.septa").exists()


def test_a_printed_recipe_is_read_again(septa, cells, tmp_path, tiny):
    printed = septa("recipe", cells, *tiny, "--seed", 7).stdout
    assert "# " in printed
    assert "seed: 7\n" in printed
    (tmp_path / "mine.yaml").write_text(printed)
    again = septa("recipe", cells, "--recipe", tmp_path / "mine.yaml").stdout
    assert [line.partition("  #")[0].rstrip() for line in printed.splitlines()] == again.splitlines()


def test_a_missing_gpu_is_named(fault, cells, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert fault("train", cells, "-o", tmp_path / "x.septa", "--device", "cuda").startswith(
        "--device: this machine does not have the device cuda. "
    )


def test_an_unexpected_failure_is_one_line_and_debug_adds_the_traceback(tmp_path):
    program = (
        "import sys, septa.cli, septa.synthetic.dataset as synthetic\n"
        "def broken(*_, **__): raise ZeroDivisionError('two\\nlines')\n"
        "synthetic.write_dataset = broken\n"
        "sys.argv = ['septa', *sys.argv[1:]]\n"
        "septa.cli.main()\n"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run("synth", str(tmp_path / "x"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: septa synth: an unexpected ZeroDivisionError occurred (two lines). ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" in run("--debug", "synth", str(tmp_path / "x")).stderr


def test_a_closed_pipe_is_not_an_error(model):
    command = f"set -o pipefail; '{sys.executable}' -m septa info '{model}' | head -c 1 > /dev/null"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    # 0 if all output fits into the pipe before head ends.
    assert done.returncode in (0, 1)
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_output_to_a_full_disk_is_one_line():
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "septa", "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 4
    assert done.stderr == "error: septa: the disk or the quota is full. Free some space and run it again.\n"


def test_retinal_scans_are_drawn(septa, tmp_path):
    from septa.images.read import read_image, read_labels
    from septa.synthetic.dataset import draw_oct

    folder = tmp_path / "oct"
    printed = septa("synth", folder, "--kind", "oct", "--count", 2, "--size", "48x64", "--seed", 3).stdout
    assert printed == f"2 images with labels in {folder}\n"
    for index, path in enumerate(sorted((folder / "images").iterdir())):
        drawing = draw_oct(48, 64, 3, index)
        assert (read_image(path) == drawing.image_cyx).all()
        assert (read_labels(folder / "labels" / path.name).array == drawing.labels_yx).all()


def test_cells_of_a_diameter_are_drawn(septa, fault, tmp_path):
    from septa.images.read import read_image
    from septa.synthetic.dataset import draw_cells

    septa("synth", tmp_path, "--count", 1, "--size", "64x64", "--seed", 3, "--diameter", 9)
    written = read_image(tmp_path / "images" / "cells_0000.tif")
    assert (written == draw_cells(64, 64, 3, diameter=9).image_cyx).all()
    line = fault("synth", tmp_path / "x", "--kind", "shapes", "--diameter", 9)
    assert line == "diameter: drawings of kind shapes have no cells. Leave it out, or choose the kind cells."


def test_drawings_are_not_overwritten(septa, fault, tmp_path):
    folder = tmp_path / "drawn"
    printed = septa("synth", folder, "--count", 1, "--size", "32x48", "--kind", "shapes").stdout
    assert printed == f"1 image with labels in {folder}\n"
    assert {path.name for path in Path(folder).iterdir()} == {"images", "labels"}
    assert fault("synth", folder).startswith(f"{folder / 'images'}: the folder already holds files (")
