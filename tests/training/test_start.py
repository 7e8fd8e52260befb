"""The automatic start: the shipped model that finds the objects of the images, or new weights, and why."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import septa
from septa.evaluation import evaluate
from septa.images.read import read_image
from septa.images.write import write_image
from septa.model import Model
from septa.pretrained import shipped
from septa.recipe import Recipe
from septa.synthetic import write_dataset
from septa.training import start
from septa.training.automatic import RecipeChoice
from septa.training.plan import TrainingRequest, plan_recipe

Ship = Callable[..., Path]
QUICK = ("sampling.patch=[32, 32]", "training.batch=2", "training.amp=off", "training.workers=1")


@pytest.fixture(scope="module")
def own(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a model that finds some objects."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("own") / "cells.septa"
    settings = ["net.width=4", "net.depth=2", "training.lr=0.01", "training.steps=80", "training.ema=0.9"]
    septa.train(cells, path, overrides=[*QUICK, *settings, "training.validations=4"])
    return path


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "data"
    write_dataset(folder, "cells", 5, (64, 64), 7)
    return folder


@pytest.fixture
def ship(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ship:
    """Return a function that ships models under some names."""

    def ship(*names: str, model: Path = own) -> Path:
        folder = tmp_path / "shipped"
        folder.mkdir(exist_ok=True)
        for name in names:
            shutil.copy(model, folder / f"{name}.septa")
            (folder / f"{name}.md").write_text("---\nsummary: x\nchannels: 1\nobjects: x\nlicence: CC0\n---\n")
        monkeypatch.setattr(shipped, "FOLDER", folder)
        return folder

    return ship


def plan(data: Path, *overrides: str, recipe: Recipe | None = None) -> RecipeChoice:
    given = (*QUICK, *overrides)
    request = TrainingRequest(data=data, output=Path("m.septa"), recipe=recipe, overrides=given, device="cpu")
    return plan_recipe(request)[1]


def score_images(monkeypatch: pytest.MonkeyPatch, *scores: float) -> list[list[str]]:
    """Replace the scores of the models; return the names of the images of each call."""
    calls: list[list[str]] = []

    def score(_: Model, pairs: Any, *__: Any) -> tuple[float, int]:
        calls.append([pair.name for pair in pairs])
        return scores[len(calls) - 1], len(calls[-1])

    monkeypatch.setattr(start, "_score", score)
    return calls


def test_a_model_that_finds_the_objects_is_the_start(ship: Ship, new: Path, own: Path) -> None:
    ship("nuclei")
    model = Model.load(own)
    expected = np.mean([image.objects.mean_accuracy for image in evaluate(model, new).images if image.objects])
    assert expected > start.LEAST_SCORE
    choice = plan(new)
    assert choice.parent is not None
    assert choice.recipe.training.start == "nuclei"
    assert choice.recipe.net == model.recipe.net
    reason = f"the mean accuracy of objects of nuclei is {expected:.3f} in 5 images; at least 0.1 is needed"
    assert choice.reasons["training.start"] == reason
    assert choice.notes[0].startswith("start: nuclei (sha256 ")
    assert choice.notes[0].endswith(f"; {reason} (--from scratch starts with new weights)")
    assert plan(new, "training.start=scratch").recipe.net != model.recipe.net


def test_a_file_or_folder_with_the_name_of_a_shipped_model_is_not_the_automatic_start(
    ship: Ship, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data folder often has such a name, and no warning is issued about it."""
    ship("nuclei", "spots")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(new, "nuclei")
    Path("spots").write_text("not a model")
    score_images(monkeypatch, 0.3, 0.4)
    assert plan(Path("nuclei")).recipe.training.start == "spots"


@pytest.mark.parametrize(("score", "chosen"), [(0.1, True), (0.099, False), (0.0, False)])
def test_a_model_must_find_enough(
    ship: Ship, new: Path, monkeypatch: pytest.MonkeyPatch, score: float, chosen: bool
) -> None:
    ship("nuclei")
    score_images(monkeypatch, score)
    choice = plan(new)
    assert (choice.parent is not None) == chosen
    assert choice.recipe.training.start == ("nuclei" if chosen else "scratch")
    assert (choice.recipe.training.lr < Recipe().training.lr) == chosen
    line = f"of nuclei is {score:.3f} in 5 images; at least 0.1 is needed"
    assert line in choice.notes[0]
    if not chosen:
        assert choice.notes[0] == f"start: new weights; the mean accuracy of objects {line}"


def test_the_best_of_several_models_is_the_start(ship: Ship, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ship("a", "b", "c")
    score_images(monkeypatch, 0.3, 0.6, 0.2)
    assert plan(new).recipe.training.start == "b"


def test_validation_images_are_scored_first(ship: Ship, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ship("nuclei")
    calls = score_images(monkeypatch, 0.5)
    check, _ = plan_recipe(TrainingRequest(data=new, output=Path("m.septa"), overrides=QUICK, device="cpu"))
    assert calls == [[*check.validation, *check.train]]


def test_a_model_that_saw_validation_images_is_left_out(ship: Ship, cells: Path, own: Path, tmp_path: Path) -> None:
    trained = sorted(name for name, _ in Model.load(own).provenance["train"])
    for path in cells.glob("*/*"):
        if path.stem in trained:
            target = tmp_path / "data" / path.relative_to(cells)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    ship("nuclei")
    choice = plan(tmp_path / "data")
    assert choice.parent is None
    expected = "start: new weights; nuclei was trained on 1 of the 1 validation image; at least 0.1 is needed"
    assert choice.notes[0] == expected


@pytest.mark.parametrize(("share", "chosen"), [(0.3, False), (0.6, True)])
def test_a_model_that_saw_validation_images_is_scored_on_others(
    ship: Ship, cells: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, chosen: bool
) -> None:
    data = tmp_path / "data"
    write_dataset(data, "cells", 10, (64, 64), 7)
    part = f"data.validation_share={share}"
    request = TrainingRequest(data=data, output=Path("m.septa"), overrides=(*QUICK, part), device="cpu")
    name, *others = plan_recipe(request)[0].validation
    seen = Model.load(own).provenance["train"][0][0]
    for folder in ("images", "labels"):
        shutil.copy(cells / folder / f"{seen}.tif", data / folder / f"{name}.tif")
    ship("nuclei")
    calls = score_images(monkeypatch, 0.5)
    choice = plan(data, part)
    assert (choice.parent is not None) == chosen
    assert [call[: len(others)] for call in calls] == [others] * chosen
    assert choice.seen == (name,) * chosen
    assert len(choice.warnings) == chosen
    assert f"nuclei was trained on 1 of the {len(others) + 1} validation images" in choice.notes[0]


def test_training_images_that_the_model_saw_are_not_scored(
    ship: Ship, cells: Path, new: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(shutil.copytree(new, tmp_path / "data"))
    check, _ = plan_recipe(TrainingRequest(data=data, output=Path("m.septa"), overrides=QUICK, device="cpu"))
    name = check.train[0]
    seen = Model.load(own).provenance["train"][0][0]
    for folder in ("images", "labels"):
        shutil.copy(cells / folder / f"{seen}.tif", data / folder / f"{name}.tif")
    ship("nuclei")
    calls = score_images(monkeypatch, 0.5)
    plan(data)
    assert calls == [[*check.validation, *check.train[1:]]]


@pytest.mark.parametrize("overrides", [("net.width=8",), ("training.start=scratch",), ("task=semantic",)])
def test_nothing_is_scored_where_no_model_can_be_the_start(
    ship: Ship, new: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    ship("nuclei")
    calls = score_images(monkeypatch)
    assert plan(new, *overrides).parent is None
    assert calls == []


def test_a_given_recipe_means_new_weights(ship: Ship, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ship("nuclei")
    calls = score_images(monkeypatch)
    choice = plan(new, recipe=Recipe())
    assert (choice.parent, choice.recipe.training.start, calls) == (None, "auto", [])
    assert plan(new, "training.start=nuclei", recipe=Recipe.from_yaml("seed: 3")).parent is not None


def test_models_of_pixel_classes_are_no_start(ship: Ship, new: Path, cells: Path, tmp_path: Path) -> None:
    settings = [*QUICK, "task=semantic", "net.width=4", "net.depth=2", "training.steps=1"]
    septa.train(cells, tmp_path / "pixels.septa", overrides=settings)
    ship("membranes", model=tmp_path / "pixels.septa")
    choice = plan(new)
    assert (choice.parent, choice.notes, choice.recipe.training.start) == (None, (), "auto")


def test_images_without_objects_and_the_rim_of_large_ones_do_not_count(
    ship: Ship, new: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(shutil.copytree(new, tmp_path / "data"))
    for number, path in enumerate(sorted((data / "labels").iterdir())):
        if number % 2:
            write_image(path, np.zeros_like(read_image(path)))
    ship("nuclei")
    monkeypatch.setattr(start, "_MOST_SIDE", 48)
    reason = plan(data).reasons["training.start"]
    assert " in 3 images" in reason
    scores = []
    model = Model.load(own)
    for path in sorted((data / "images").iterdir())[::2]:
        image_cyx = read_image(path)[:, 8:56, 8:56]
        truth_yx = read_image(data / "labels" / path.name)[0, 8:56, 8:56].astype(np.int32)
        scores.append(model.task.score(truth_yx, model.segment(image_cyx))[0])
    assert f" is {np.mean(scores):.3f} in" in reason


def test_the_scores_take_a_small_share_of_the_minutes(ship: Ship, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ship("nuclei")
    assert " in 1 image;" in plan(new, "training.minutes=1e-9").reasons["training.start"]
    assert " in 5 images;" in plan(new, "training.minutes=600").reasons["training.start"]
    monkeypatch.setattr(start, "_MOST_IMAGES", 2)
    assert " in 2 images;" in plan(new).reasons["training.start"]


@pytest.mark.parametrize("rank", [0, 1])
def test_all_processes_start_from_the_choice_of_the_first(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    sent: list[int] = []

    def broadcast(tensor: torch.Tensor, source: int) -> None:
        sent.append(int(tensor.item()) if rank == source else -2)
        tensor.fill_(1)

    for name, value in {"is_initialized": True, "get_rank": rank, "get_backend": "gloo"}.items():
        monkeypatch.setattr(start.dist, name, lambda value=value: value)
    monkeypatch.setattr(start.dist, "broadcast", broadcast)
    index, reason = start._agree(lambda: (1, "it is the best") if rank == 0 else pytest.fail("only rank 0 scores"))
    assert (index, reason) == (1, "it is the best" if rank == 0 else "")
    assert sent == [1 if rank == 0 else -2]


def test_one_image_is_scored_in_both_parts(ship: Ship, new: Path, tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        first = sorted((new / folder).iterdir())[0]
        (tmp_path / "data" / folder).mkdir(parents=True)
        shutil.copy(first, tmp_path / "data" / folder)
    ship("nuclei")
    assert " in 2 images;" in plan(tmp_path / "data", "data.encoding=instances").reasons["training.start"]


def test_a_training_starts_resumes_and_reports_the_shipped_model(ship: Ship, new: Path, tmp_path: Path) -> None:
    folder = ship("nuclei")
    settings = [*QUICK, "training.steps=4", "training.validations=2"]
    began = time.monotonic()
    model = septa.train(new, tmp_path / "m.septa", overrides=settings)
    assert time.monotonic() - began < 60
    assert model.provenance["parent"]["name"] == "nuclei"
    shutil.rmtree(folder)
    folder.mkdir()
    resumed = septa.train(new, tmp_path / "m.septa", overrides=settings, resume=True)
    assert resumed.weights_sha256 == model.weights_sha256
    assert septa.train(new, tmp_path / "n.septa", overrides=settings).recipe.training.start == "auto"  # none is shipped
