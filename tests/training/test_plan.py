"""What a training would do: the task that ``auto`` stands for, sizes that the net takes, settings that are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from septa.errors import RecipeError
from septa.images.read import read_labels
from septa.images.write import write_image, write_labels
from septa.model import build_net
from septa.recipe import Recipe
from septa.synthetic.dataset import write_dataset
from septa.training.automatic import RecipeChoice
from septa.training.plan import TrainingRequest, plan_recipe

QUICK = ("training.amp='off'", "training.workers=1")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    write_dataset(folder, "cells", 4, (64, 64), 0)
    return folder


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    write_dataset(folder, "shapes", 4, (64, 64), 0)
    return folder


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of three classes."""
    folder = tmp_path_factory.mktemp("three")
    for index in range(4):
        rng = np.random.default_rng(index)
        labels_yx = np.kron(rng.integers(0, 3, (8, 8)), np.ones((8, 8), int))
        image_yx = rng.normal(60, 10, labels_yx.shape) + 60 * labels_yx
        write_image(folder / "images" / f"{index}.png", image_yx.clip(0, 255).astype(np.uint8)[None])
        write_labels(folder / "labels" / f"{index}.png", labels_yx)
    return folder


def planned(data: Path, *overrides: str, given: bool = True) -> RecipeChoice:
    """The choice for a recipe that is given, or for none."""
    recipe = Recipe().with_overrides([*QUICK, *overrides]) if given else None
    asked = () if given else (*QUICK, *overrides)
    _, choice = plan_recipe(
        TrainingRequest(data=data, output=Path("m.septa"), recipe=recipe, overrides=asked, device="cpu")
    )
    return choice


# The task ------------------------------------------------------------------------------------------------------------


def objects_told(folder: Path) -> str:
    counts = [len(np.unique(read_labels(path).array)) - 1 for path in (folder / "labels").iterdir()]
    assert min(counts) < max(counts)
    return f"{min(counts)} to {max(counts)} objects per image"


@pytest.mark.parametrize("overrides", [(), ("task=auto",)], ids=["by default", "asked for"])
@pytest.mark.parametrize("given", [True, False])
def test_objects_are_kept_apart_where_labels_number_them(cells: Path, given: bool, overrides: tuple[str, ...]) -> None:
    choice = planned(cells, *overrides, given=given)
    assert choice.recipe.task == "instances"
    assert choice.reasons["task"] == objects_told(cells)
    setting, _, reason = choice.recipe.to_yaml(choice.reasons).splitlines()[1].partition("  # ")
    assert (setting.rstrip(), reason) == ("task: instances", objects_told(cells))
    if not given:
        assert choice.recipe.instances.encoding == "border"


@pytest.mark.parametrize("given", [True, False])
def test_masks_and_classes_are_learned_pixel_by_pixel(data: Path, three: Path, shapes: Path, given: bool) -> None:
    overlapping = ("loss.cross_entropy=0", "loss.bce=1") if given else ()
    for folder, settings, told in (
        (data, (), "labels: {0, 1} are background and foreground"),
        (three, (), "labels: {0, 1, 2} are background, class 1 and class 2"),
        (shapes, overlapping, "labels: 6 planes that may overlap, "),
    ):
        choice = planned(folder, *settings, given=given)
        assert choice.recipe.task == "semantic"
        assert choice.reasons["task"].startswith(told)
        assert choice.notes == ()


def test_what_is_learned_without_being_asked_for_is_told_once(cells: Path, data: Path) -> None:
    for folder, overrides, lines in (
        (cells, (), [f"task: instances ({objects_told(cells)})"]),
        (cells, ("task=instances",), []),
        (cells, ("task=semantic",), []),
        (data, (), []),
    ):
        check, choice = plan_recipe(
            TrainingRequest(data=folder, output=Path("m.septa"), overrides=overrides, device="cpu")
        )
        assert [note for note in (*check.notes, *choice.notes) if note.startswith("task: ")] == lines


def test_the_resolved_recipe_is_used_as_it_is(cells: Path) -> None:
    chosen = planned(cells, given=False).recipe
    again = plan_recipe(
        TrainingRequest(data=cells, output=Path("m.septa"), recipe=Recipe.from_yaml(chosen.to_yaml()), device="cpu")
    )[1]
    assert again == RecipeChoice(chosen, {})


@pytest.mark.parametrize("task", ["semantic", "instances"])
def test_a_given_task_stays(cells: Path, data: Path, task: str) -> None:
    for folder in (cells, data):
        choice = planned(folder, f"task={task}")
        assert choice.recipe.task == task
        assert choice.notes == ()
        assert "task" not in choice.reasons


def test_classes_are_no_objects(three: Path, shapes: Path) -> None:
    for folder, classes in ((three, 3), (shapes, 6)):
        with pytest.raises(RecipeError, match=rf"task=instances needs object ids, .* got {classes} .*classes\. "):
            planned(folder, "task=instances", given=False)


# Sizes ---------------------------------------------------------------------------------------------------------------


def takes(recipe: Recipe, side: int) -> bool:
    """Whether every pooling of a valid net sees an even side, followed layer by layer."""
    for _ in range(recipe.net.depth):
        side -= 4
        if side < 2 or side % 2:
            return False
        side //= 2
    side -= 4
    for _ in range(recipe.net.depth):
        side = 2 * side - 4
    return side >= 1


@pytest.mark.parametrize("patch", [(60, 64), (61, 100), (1, 75), (572, 570)])
def test_a_patch_moves_to_the_nearest_size_that_a_valid_net_takes(data: Path, patch: tuple[int, int]) -> None:
    choice = planned(data, "net.padding=valid", "net.width=2", "net.depth=2", f"sampling.patch={list(patch)}")
    sizes = [side for side in range(1, 700) if takes(choice.recipe, side)]
    for side, moved in zip(patch, choice.recipe.sampling.patch):
        assert moved in sizes
        assert abs(moved - side) == min(abs(size - side) for size in sizes)
    if choice.recipe.sampling.patch == patch:
        assert choice.notes == ()
    else:
        (note,) = choice.notes
        new = "{} x {}".format(*choice.recipe.sampling.patch)
        assert (
            note
            == f"sampling.patch: {new} instead of {patch[0]} x {patch[1]}, so that every pooling has an even input size"
        )
        assert choice.reasons["sampling.patch"] in note


def test_the_papers_patch_stays(data: Path) -> None:
    choice = planned(data, "net.padding=valid", "net.width=2", "sampling.patch=[572, 572]")
    assert choice.recipe.sampling.patch == (572, 572)
    assert choice.notes == ()


def test_an_automatic_patch_fits_a_valid_net(data: Path) -> None:
    choice = planned(data, "padding=valid", "width=2", "depth=3", given=False)
    assert all(takes(choice.recipe, side) for side in choice.recipe.sampling.patch)
    assert any(note.startswith("sampling.patch: ") for note in choice.notes)


def test_a_padded_net_takes_any_patch(data: Path) -> None:
    choice = planned(data, "net.width=2", "sampling.patch=[37, 50]")
    assert choice.recipe.sampling.patch == (37, 50)
    assert choice.notes == ()


@pytest.mark.parametrize("given", [True, False])
def test_the_depth_is_that_of_the_encoder(data: Path, given: bool) -> None:
    choice = planned(data, "net.encoder=resnet18", "net.width=2", "sampling.patch=[64, 64]", given=given)
    assert choice.recipe.net.depth == 5 == build_net(choice.recipe, 1, 2).depth
    assert choice.reasons["net.depth"] == "5, the depth of the encoder"
    assert "net.depth: 5, the depth of the encoder" in choice.notes
    again = planned(data, "net.encoder=resnet18", "net.width=2", "net.depth=5")
    assert again.notes == ()


def test_nets_that_cannot_be_built_are_found_before_anything_is_trained(data: Path) -> None:
    with pytest.raises(RecipeError, match="padding=valid and aspp=true exclude each other"):
        planned(data, "net.padding=valid", "net.aspp=true")
    with pytest.raises(RecipeError, match=r"net\.output is sigmoid: use loss\.bce"):
        planned(data, "net.output=sigmoid")


def test_published_weights_see_what_they_were_trained_on(data: Path) -> None:
    settings = ("net.encoder=resnet18", "net.pretrained=weights.safetensors", "net.width=2")
    choice = planned(data, *settings, given=False)
    assert choice.recipe.data.normalization == "imagenet"
    assert choice.reasons["data.normalization"] == "published encoders were trained with it"
    kept = planned(data, *settings, "data.normalization=image", given=False)
    assert kept.recipe.data.normalization == "image"


# What is given -------------------------------------------------------------------------------------------------------


def test_bare_keys_are_given_as_full_ones(data: Path) -> None:
    bare = planned(data, "width=3", "depth=1", "patch=[48, 48]", "steps=7", "normalization=unit", given=False)
    full = planned(
        data,
        *("net.width=3", "net.depth=1", "sampling.patch=[48, 48]", "training.steps=7", "data.normalization=unit"),
        given=False,
    )
    assert bare == full
    recipe = bare.recipe
    assert (recipe.net.width, recipe.net.depth, recipe.sampling.patch, recipe.training.steps) == (3, 1, (48, 48), 7)
    assert recipe.data.normalization == "unit"
    chosen = planned(data, given=False)
    for key in ("net.width", "net.depth", "sampling.patch", "training.steps", "data.normalization"):
        assert key not in bare.reasons
        assert key in chosen.reasons
    assert chosen.recipe.net.width != 3


def test_notes_are_told_before_a_training(
    command: Callable[..., Any], cells: Path, tmp_path: Path, tiny_options: list[str]
) -> None:
    settings = ["--set", "padding=valid", "--set", "steps=1", "--set", "patch=[50, 52]"]
    ended = command("train", cells, "-o", tmp_path / "m.septa", *tiny_options, *settings)
    assert ended.code == 0, ended.err
    assert ended.out.count(f"\ntask: instances ({objects_told(cells)})\n") == 1
    assert "sampling.patch: 52 x 52 instead of 50 x 52, so that every pooling has an even input size" in ended.out
    written = (tmp_path / "m-run" / "recipe.yaml").read_text()
    assert "  # 52 x 52 instead of 50 x 52, so that every pooling has an even input size" in written
    assert written.splitlines()[1].startswith("task: instances  ")
    # What auto stood for stays when the training goes on.
    for more in ([], ["--task", "auto"], ["--recipe", tmp_path / "m-run" / "recipe.yaml"]):
        again = command("train", cells, "-o", tmp_path / "m.septa", *tiny_options, *settings, "--resume", *more)
        assert "this training is finished" in again.out, again.err
    other = command(
        "train", cells, "-o", tmp_path / "m.septa", *tiny_options, *settings, "--resume", "--task", "semantic"
    )
    assert other.code == 2
    assert "(task: instances -> semantic)" in other.err


def test_threads_for_samples_are_chosen_where_a_recipe_does_not_say(
    cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("septa.runtime.count_cores", lambda: 24)
    assert planned(cells, "training.workers=null").recipe.training.workers == 3
    assert planned(cells, "training.workers=5").recipe.training.workers == 5
