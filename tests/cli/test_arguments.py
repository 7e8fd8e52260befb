"""Mistakes in arguments, options and recipes: one line, a remedy, exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import septa as package

COMMANDS = ["train", "recipe", "presets", "reproduce", "describe", "check"]
COMMANDS += ["predict", "evaluate", "info", "synth", "demo"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(septa, command):
    told = septa(command, "--help").stdout
    assert told.startswith(f"Usage: python -m septa {command} ")
    assert "Options:" in told


def test_help_lists_every_command_and_stands_in_for_none(septa):
    told = septa("-h").stdout
    for command in COMMANDS:
        assert f"\n  {command} " in told
    assert septa().stdout == told


def test_version(septa):
    assert septa("--version").stdout == f"septa {package.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "x", "--colour", "red"], ["septa train: ", "--colour"]),
        (["trian", "x"], ["septa: ", "trian"]),
        (["train"], ["septa train: ", "DATA"]),
        (["predict", "m.septa", "x.png"], ["septa predict: ", "--output"]),
        (["train", "x", "--minutes", "soon"], ["septa train: ", "--minutes", "number"]),
        (["check", "x", "--max-pixels", "0"], ["septa check: ", "--max-pixels"]),
        (["synth", "x", "--size", "big"], ["--size big: "]),
        (["synth", "x", "--size", "0x64"], ["--size 0x64: "]),
        (["synth", "x", "--kind", "oct", "--size", "64x31"], ["size: ", "32 to 16384"]),
        (["predict", "m.septa", "x.png", "-o", "y", "--tta", "9"], ["septa predict: ", "--tta"]),
        (["predict", "m.septa", "x.png", "-o", "y", "--prune", "0"], ["septa predict: ", "--prune"]),
        (["synth", "x", "--kind", "dogs"], ["dogs", "cells, shapes or oct"]),
    ],
)
def test_wrong_arguments(fault, arguments, named, tmp_path):
    line = fault(*arguments, cwd=tmp_path)
    for text in named:
        assert text in line
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


def test_wrong_option_values_are_recipe_errors_too(fault, cells):
    assert ": training.minutes must be above 0, got -1.0. " in fault("recipe", cells, "--minutes", "-1")
    assert "is no regular expression" in fault("recipe", cells, "--group", "(")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"training:\n  speed: 3\n", ": training.speed is not a setting. "),
        (b"training: [1,\n", ": the text is not valid YAML (line 2, column 1: a bracket is not closed). "),
        (b"just text\n", ": the text holds no settings. "),
        (b"\xff\xfe\x00", ": the file is not UTF-8 text. "),
        (b"septa: 2\n", ": septa must be 1, got 2. "),
        (None, ": the file cannot be read (no such file or directory). "),
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
    told = septa("recipe", cells, *tiny, "--seed", 7).stdout
    assert "# " in told
    assert "seed: 7\n" in told
    (tmp_path / "mine.yaml").write_text(told)
    again = septa("recipe", cells, "--recipe", tmp_path / "mine.yaml").stdout
    assert [line.partition("  #")[0].rstrip() for line in told.splitlines()] == again.splitlines()


def test_a_missing_gpu_is_named(fault, cells, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert fault("train", cells, "-o", tmp_path / "x.septa", "--device", "cuda").startswith("--device cuda: ")


def test_an_unexpected_failure_is_one_line_and_shows_more_on_demand(tmp_path):
    program = (
        "import sys, septa.cli, septa.synthetic.dataset as synthetic\n"
        "def broken(*_): raise ZeroDivisionError('two\\nlines')\n"
        "synthetic.write_dataset = broken\n"
        "sys.argv = ['septa', *sys.argv[1:]]\n"
        "septa.cli.main()\n"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run("synth", str(tmp_path / "x"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: septa: unexpected ZeroDivisionError (two lines). ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" in run("--debug", "synth", str(tmp_path / "x")).stderr


def test_a_reader_that_has_seen_enough_is_no_error(model):
    command = f"set -o pipefail; '{sys.executable}' -m septa info '{model}' | head -c 1 > /dev/null"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1)  # 0 where all fits into the pipe before head is gone
    assert done.stderr == ""


def test_retinal_scans_are_drawn(septa, tmp_path):
    from septa.images.read import read_image, read_labels
    from septa.synthetic.dataset import draw_oct

    folder = tmp_path / "oct"
    told = septa("synth", folder, "--kind", "oct", "--count", 2, "--size", "48x64", "--seed", 3).stdout
    assert told == f"2 images with labels in {folder}\n"
    for index, path in enumerate(sorted((folder / "images").iterdir())):
        drawing = draw_oct(48, 64, 3, index)
        assert (read_image(path) == drawing.image_cyx).all()
        assert (read_labels(folder / "labels" / path.name).array == drawing.labels_yx).all()


def test_drawn_data_are_not_drawn_over(septa, fault, tmp_path):
    folder = tmp_path / "drawn"
    told = septa("synth", folder, "--count", 1, "--size", "32x48", "--kind", "shapes").stdout
    assert told == f"1 images with labels in {folder}\n"
    assert {path.name for path in Path(folder).iterdir()} == {"images", "labels"}
    assert fault("synth", folder).startswith(f"{folder / 'images'}: already holds files")
