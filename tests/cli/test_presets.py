"""`septa presets`, `--preset` and `septa reproduce`: the recipes that ship, as they are and with settings on top."""

from __future__ import annotations

import pytest
import tifffile

from septa import presets
from septa.recipe import Recipe

SMALL = ("width=2", "depth=1", "patch=[43, 44]", "steps=4", "validations=1", "amp=off", "tta=2", "lr=0.01")


@pytest.fixture(scope="module")
def small() -> list[str]:
    """Options that make any preset tiny, by bare keys."""
    return [part for setting in SMALL for part in ("--set", setting)]


def test_the_list(septa):
    told = " ".join(septa("presets").stdout.replace("│", " ").split())
    for name in presets.list_names():
        assert f" {name} " in told
        assert " ".join(presets.read_title(name).split()[:3]) in told


def test_a_preset_is_printed_as_it_is(septa):
    told = septa("presets", "paper").stdout
    assert told == presets.read_text("paper")
    assert Recipe.from_yaml(told) == presets.load_recipe("paper")


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
def test_unknown_names_are_refused_with_a_guess(fault, tmp_path, arguments):
    line = fault(*arguments, cwd=tmp_path)
    assert line.startswith(
        "preset 'papre': there is no preset with this name. Did you mean 'paper'? Choose one of carvana, "
    )
    assert list(tmp_path.iterdir()) == []


def test_a_preset_and_a_recipe_are_one_too_many(fault, tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 3\n")
    for command in ("train", "recipe"):
        line = fault(command, "nowhere", "--preset", "paper", "--recipe", "mine.yaml", cwd=tmp_path)
        assert line == "--preset: and --recipe both give a recipe. give one of them."


def test_settings_on_top_of_a_preset_are_checked_first(fault, tmp_path):
    line = fault("train", "nowhere", "--preset", "paper", "--set", "wdith=2", cwd=tmp_path)
    assert line.startswith("--set wdith=2: wdith is not a setting (did you mean net.width?). ")


def test_from_the_papers_preset_to_objects(septa, cells, small, tmp_path):
    """The task follows from the labels, the patch moves to a size that the net takes, objects are written."""
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
    assert "# 44 x 44 in place of 43 x 44" in printed
    for text in ("task: instances, the labels number ", "sampling.patch: 44 x 44 in place", "Panoptic quality"):
        assert text in done.stdout
    output = tmp_path / "out"
    told = septa("predict", tmp_path / "m.septa", cells / "images", "-o", output, "--tile", 40, "--certify").stdout
    assert "task instances" in told
    assert "largest difference to the whole image 0" in told
    assert len(list(output.iterdir())) == 6
    for path in output.iterdir():
        ids = tifffile.imread(path)
        assert ids.shape == (64, 64)
        assert len(set(ids[ids > 0].tolist())) == ids.max()


def test_reproducing_without_the_data_is_refused(fault, tmp_path):
    line = fault("reproduce", "glas", "-o", tmp_path / "out")
    assert line.startswith("preset glas: needs your data. give with --data the folder of the GlaS challenge")
    assert not (tmp_path / "out").exists()
