"""`septa presets`, `--preset` and `septa reproduce`: the recipes that ship with septa, unchanged and with settings."""

from __future__ import annotations

import re

import pytest
import tifffile

from septa import presets
from septa.recipe import Recipe

SMALL = ("width=2", "depth=1", "patch=[43, 44]", "steps=4", "validations=1", "amp=off", "tta=2", "lr=0.01")


@pytest.fixture(scope="module")
def small() -> list[str]:
    """Options that make any preset tiny; they name settings without their section."""
    return [part for setting in SMALL for part in ("--set", setting)]


def test_all_presets_are_listed(septa):
    printed = " ".join(septa("presets").stdout.replace("│", " ").split())
    for name in presets.list_presets():
        assert f" {name} " in printed
        assert " ".join(presets.read_title(name).split()[:3]) in printed


def test_a_preset_is_printed_unchanged(septa):
    printed = septa("presets", "paper").stdout
    assert printed == presets.read_text("paper")
    assert Recipe.from_yaml(printed) == presets.load_recipe("paper")


@pytest.mark.parametrize(
    "arguments",
    [
        ["presets", "papre"],
        ["train", "nowhere", "--preset", "papre"],
        ["recipe", "nowhere", "--preset", "papre"],
        ["reproduce", "papre"],
        ["describe", "papre"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_unknown_names_are_refused_with_a_suggestion(fault, tmp_path, arguments):
    line = fault(*arguments, cwd=tmp_path)
    assert line.startswith("preset 'papre': there is no preset with this name. Choose one of carvana, ")
    assert line.rstrip().endswith("; the nearest is paper.")
    assert list(tmp_path.iterdir()) == []


def test_a_preset_and_a_recipe_cannot_be_combined(fault, tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 3\n")
    for command in ("train", "recipe"):
        line = fault(command, "nowhere", "--preset", "paper", "--recipe", "mine.yaml", cwd=tmp_path)
        assert line == "--preset and --recipe cannot be combined. Give one of them."


def test_settings_that_change_a_preset_are_checked_first(fault, tmp_path):
    line = fault("train", "nowhere", "--preset", "paper", "--set", "wdith=2", cwd=tmp_path)
    assert line.startswith("--set wdith=2: wdith is not a setting (did you mean net.width?). ")


def test_the_paper_preset_segments_objects(septa, cells, small, tmp_path):
    """The task is inferred from the labels, the patch gets a size that the net accepts, and objects are written."""
    printed = septa("recipe", cells, "--preset", "paper", *small).stdout
    done = septa("train", cells, "-o", tmp_path / "m.septa", "--preset", "paper", *small)
    assert (tmp_path / "m-run" / "recipe.yaml").read_text() == printed
    recipe = Recipe.from_yaml(printed)
    paper = presets.load_recipe("paper").with_overrides(SMALL)
    assert recipe.task == "instances"
    assert recipe.net == paper.net
    assert recipe.loss == paper.loss
    assert recipe.augment == paper.augment
    assert recipe.sampling.patch == (44, 44)
    assert "# 44 x 44 instead of 43 x 44, so that every pooling has an even input size" in printed
    assert re.search(r"^task: instances \(\d+ to \d+ objects per image\)$", done.stdout, re.MULTILINE)
    for text in ("sampling.patch: 44 x 44 instead of", "Panoptic quality"):
        assert text in done.stdout
    output = tmp_path / "out"
    printed = septa("predict", tmp_path / "m.septa", cells / "images", "-o", output, "--tile", 40, "--certify").stdout
    assert "task instances" in printed
    assert "largest difference to the whole image 0" in printed
    assert len(list(output.glob("*.tif"))) == 6
    for path in output.glob("*.tif"):
        ids = tifffile.imread(path)
        assert ids.shape == (64, 64)
        assert len(set(ids[ids > 0].tolist())) == ids.max()


def test_reproducing_without_the_data_is_refused(fault, tmp_path):
    line = fault("reproduce", "glas", "-o", tmp_path / "out")
    assert line.startswith("preset glas: this preset needs your own data. Give the folder of the GlaS challenge")
    assert not (tmp_path / "out").exists()
