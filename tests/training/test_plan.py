"""The plan of a training: the task that ``auto`` means, sizes that the net can process, and given settings."""

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
    """Write images with labels of three classes."""
    folder = tmp_path_factory.mktemp("three")
    for index in range(4):
        rng = np.random.default_rng(index)
        labels_yx = np.kron(rng.integers(0, 3, (8, 8)), np.ones((8, 8), int))
        image_yx = rng.normal(60, 10, labels_yx.shape) + 60 * labels_yx
        write_image(folder / "images" / f"{index}.png", image_yx.clip(0, 255).astype(np.uint8)[None])
        write_labels(folder / "labels" / f"{index}.png", labels_yx)
    return folder


def plan(data: Path, *overrides: str, given: bool = True) -> RecipeChoice:
    """Plan a training, with a given recipe or with an automatic one."""
    recipe = Recipe().with_overrides([*QUICK, *overrides]) if given else None
    assigned = () if given else (*QUICK, *overrides)
    _, choice = plan_recipe(
        TrainingRequest(data=data, output=Path("m.septa"), recipe=recipe, overrides=assigned, device="cpu")
    )
    return choice


# The task ------------------------------------------------------------------------------------------------------------


def describe_objects(folder: Path) -> str:
    counts = [len(np.unique(read_labels(path).array)) - 1 for path in (folder / "labels").iterdir()]
    assert min(counts) < max(counts)
    return f"{min(counts)} to {max(counts)} objects per image"


@pytest.mark.parametrize("overrides", [(), ("task=auto",)], ids=["by default", "given"])
@pytest.mark.parametrize("given", [True, False])
def test_objects_are_separated_if_labels_number_them(cells: Path, given: bool, overrides: tuple[str, ...]) -> None:
    choice = plan(cells, *overrides, given=given)
    assert choice.recipe.task == "instances"
    assert choice.reasons["task"] == describe_objects(cells)
    setting, _, reason = choice.recipe.to_yaml(choice.reasons).splitlines()[1].partition("  # ")
    assert (setting.rstrip(), reason) == ("task: instances", describe_objects(cells))
    if not given:
        assert choice.recipe.instances.encoding == "border"


@pytest.mark.parametrize("given", [True, False])
def test_masks_and_classes_are_learned_pixel_by_pixel(data: Path, three: Path, shapes: Path, given: bool) -> None:
    overlapping = ("loss.cross_entropy=0", "loss.bce=1") if given else ()
    for folder, settings, start in (
        (data, (), "labels: {0, 1} are background and foreground"),
        (three, (), "labels: {0, 1, 2} are background, class 1 and class 2"),
        (shapes, overlapping, "labels: 6 planes that may overlap, "),
    ):
        choice = plan(folder, *settings, given=given)
        assert choice.recipe.task == "semantic"
        assert choice.reasons["task"].startswith(start)
        assert choice.notes == ()


def test_a_task_that_was_inferred_is_reported_once(cells: Path, data: Path) -> None:
    for folder, overrides, lines in (
        (cells, (), [f"task: instances ({describe_objects(cells)})"]),
        (cells, ("task=instances",), []),
        (cells, ("task=semantic",), []),
        (data, (), []),
    ):
        check, choice = plan_recipe(
            TrainingRequest(data=folder, output=Path("m.septa"), overrides=overrides, device="cpu")
        )
        assert [note for note in (*check.notes, *choice.notes) if note.startswith("task: ")] == lines


def test_the_resolved_recipe_is_used_unchanged(cells: Path) -> None:
    chosen = plan(cells, given=False).recipe
    again = plan_recipe(
        TrainingRequest(data=cells, output=Path("m.septa"), recipe=Recipe.from_yaml(chosen.to_yaml()), device="cpu")
    )[1]
    assert again == RecipeChoice(chosen, {})


@pytest.mark.parametrize("task", ["semantic", "instances"])
def test_a_given_task_is_kept(cells: Path, data: Path, task: str) -> None:
    for folder in (cells, data):
        choice = plan(folder, f"task={task}")
        assert choice.recipe.task == task
        assert choice.notes == ()
        assert "task" not in choice.reasons


def test_several_classes_are_refused_as_objects(three: Path, shapes: Path) -> None:
    for folder, classes in ((three, 3), (shapes, 6)):
        with pytest.raises(RecipeError, match=rf"task=instances needs object ids, .* got {classes} .*classes\. "):
            plan(folder, "task=instances", given=False)


# Sizes ---------------------------------------------------------------------------------------------------------------


def fits_valid_net(recipe: Recipe, side: int) -> bool:
    """Return True if every pooling of a valid net has an even input size, followed layer by layer."""
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
def test_a_patch_gets_the_nearest_size_that_fits_a_valid_net(data: Path, patch: tuple[int, int]) -> None:
    choice = plan(data, "net.padding=valid", "net.width=2", "net.depth=2", f"sampling.patch={list(patch)}")
    sizes = [side for side in range(1, 700) if fits_valid_net(choice.recipe, side)]
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


def test_the_patch_of_the_paper_is_kept(data: Path) -> None:
    choice = plan(data, "net.padding=valid", "net.width=2", "sampling.patch=[572, 572]")
    assert choice.recipe.sampling.patch == (572, 572)
    assert choice.notes == ()


def test_an_automatic_patch_fits_a_valid_net(data: Path) -> None:
    choice = plan(data, "padding=valid", "width=2", "depth=3", given=False)
    assert all(fits_valid_net(choice.recipe, side) for side in choice.recipe.sampling.patch)
    assert any(note.startswith("sampling.patch: ") for note in choice.notes)


def test_a_padded_net_accepts_any_patch(data: Path) -> None:
    choice = plan(data, "net.width=2", "sampling.patch=[37, 50]")
    assert choice.recipe.sampling.patch == (37, 50)
    assert choice.notes == ()


@pytest.mark.parametrize("given", [True, False])
def test_the_depth_is_that_of_the_encoder(data: Path, given: bool) -> None:
    choice = plan(data, "net.encoder=resnet18", "net.width=2", "sampling.patch=[64, 64]", given=given)
    assert choice.recipe.net.depth == 5 == build_net(choice.recipe, 1, 2).depth
    assert choice.reasons["net.depth"] == "5, the depth of the encoder"
    assert "net.depth: 5, the depth of the encoder" in choice.notes
    again = plan(data, "net.encoder=resnet18", "net.width=2", "net.depth=5")
    assert again.notes == ()


def test_nets_that_cannot_be_built_are_refused_before_the_training(data: Path) -> None:
    with pytest.raises(RecipeError, match="padding=valid and aspp=true exclude each other"):
        plan(data, "net.padding=valid", "net.aspp=true")
    with pytest.raises(RecipeError, match=r"but net\.output is sigmoid\. Set loss\.cross_entropy=0 and loss\.bce=1\."):
        plan(data, "net.output=sigmoid")


def test_published_weights_get_the_normalisation_of_their_training(data: Path) -> None:
    settings = ("net.encoder=resnet18", "net.pretrained=weights.safetensors", "net.width=2")
    choice = plan(data, *settings, given=False)
    assert choice.recipe.data.normalization == "imagenet"
    assert choice.reasons["data.normalization"] == "published encoders were trained with it"
    kept = plan(data, *settings, "data.normalization=image", given=False)
    assert kept.recipe.data.normalization == "image"


# Given settings ------------------------------------------------------------------------------------------------------


def test_keys_without_a_section_mean_the_full_keys(data: Path) -> None:
    bare = plan(data, "width=3", "depth=1", "patch=[48, 48]", "steps=7", "normalization=unit", given=False)
    full = plan(
        data,
        *("net.width=3", "net.depth=1", "sampling.patch=[48, 48]", "training.steps=7", "data.normalization=unit"),
        given=False,
    )
    assert bare == full
    recipe = bare.recipe
    assert (recipe.net.width, recipe.net.depth, recipe.sampling.patch, recipe.training.steps) == (3, 1, (48, 48), 7)
    assert recipe.data.normalization == "unit"
    chosen = plan(data, given=False)
    for key in ("net.width", "net.depth", "sampling.patch", "training.steps", "data.normalization"):
        assert key not in bare.reasons
        assert key in chosen.reasons
    assert chosen.recipe.net.width != 3


def test_notes_are_printed_before_a_training(
    command: Callable[..., Any], cells: Path, tmp_path: Path, tiny_options: list[str]
) -> None:
    settings = ["--set", "padding=valid", "--set", "steps=1", "--set", "patch=[50, 52]"]
    ended = command("train", cells, "-o", tmp_path / "m.septa", *tiny_options, *settings)
    assert ended.code == 0, ended.err
    assert ended.out.count(f"\ntask: instances ({describe_objects(cells)})\n") == 1
    assert "sampling.patch: 52 x 52 instead of 50 x 52, so that every pooling has an even input size" in ended.out
    written = (tmp_path / "m-run" / "recipe.yaml").read_text()
    assert "  # 52 x 52 instead of 50 x 52, so that every pooling has an even input size" in written
    assert written.splitlines()[1].startswith("task: instances  ")
    # A resumed training keeps the task that auto meant.
    for more in ([], ["--task", "auto"], ["--recipe", tmp_path / "m-run" / "recipe.yaml"]):
        again = command("train", cells, "-o", tmp_path / "m.septa", *tiny_options, *settings, "--resume", *more)
        assert "this training is finished" in again.out, again.err
    other = command(
        "train", cells, "-o", tmp_path / "m.septa", *tiny_options, *settings, "--resume", "--task", "semantic"
    )
    assert other.code == 2
    assert "(task: instances -> semantic)" in other.err


def test_threads_for_samples_are_chosen_if_the_recipe_does_not_set_them(
    cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("septa.runtime.count_cores", lambda: 24)
    assert plan(cells, "training.workers=null").recipe.training.workers == 3
    assert plan(cells, "training.workers=5").recipe.training.workers == 5
