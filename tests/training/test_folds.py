"""Trainings in folds: each image is scored by the net that did not see it, and one file holds all nets."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import septa
from septa.data.folder import find_pairs, read_pair_image, read_pair_labels
from septa.errors import InputError
from septa.images.write import write_image
from septa.metrics.objects import score_objects
from septa.metrics.scores import ImageScores
from septa.model import Model
from septa.nets import list_members
from septa.recipe import Recipe
from septa.synthetic.dataset import draw_cells
from septa.tasks import Prior
from septa.training.folds import describe_cost
from septa.training.plan import TrainingRequest
from septa.training.run import AlreadyTrained, FoldDone, TrainingDone, TrainingEvent, TrainingPlan, train_steps

FOLDS = 3
MORE = ("training.lr=0.02", "training.ema=0", "instances.encoding=border")


class Trained(NamedTuple):
    """A training in folds on the data of the fixture ``cells``.

    Attributes
    ----------
    request, events
        Request, and all events.
    models
        Models of the folds, which the training removes in the end.
    in_second_fold, after_folds
        Copies of the folder at step 10 of the second fold, and before the nets are joined: what a process leaves that
        is killed then.
    """

    request: TrainingRequest
    events: list[TrainingEvent]
    models: list[Model]
    in_second_fold: Path
    after_folds: Path

    @property
    def done(self) -> TrainingDone:
        assert isinstance(self.events[-1], TrainingDone)
        return self.events[-1]

    @property
    def plans(self) -> list[TrainingPlan]:
        return [event for event in self.events if isinstance(event, TrainingPlan)]


@pytest.fixture(scope="session")
def trained(cells: Path, tmp_path_factory: pytest.TempPathFactory, tiny: tuple[str, ...]) -> Trained:
    folder = tmp_path_factory.mktemp("folds")
    request = TrainingRequest(
        data=cells, output=folder / "m.septa", overrides=(*tiny, *MORE), folds=FOLDS, device="cpu"
    )
    found = Trained(request, [], [], folder / "second", folder / "after")
    torch.set_num_threads(1)
    for event in train_steps(request):
        found.events.append(event)
        if isinstance(event, FoldDone):
            found.models.append(Model.load(request.folder / f"fold-{event.fold}.septa"))
            if event.fold == FOLDS:
                shutil.copytree(request.folder, found.after_folds)
        elif isinstance(event, dict) and "loss" in event and event["step"] == 10 and len(found.models) == 1:
            shutil.copytree(request.folder, found.in_second_fold)
    return found


def list_names(plan: TrainingPlan, side: str) -> set[str]:
    return {pair.name for pair in getattr(plan, side)}


def test_every_image_is_held_out_once_from_the_training_of_its_fold(trained: Trained) -> None:
    held_out = [list_names(plan, "validation") for plan in trained.plans]
    assert [plan.fold for plan in trained.plans] == [1, 2, 3]
    assert sorted(name for names in held_out for name in names) == [f"cells_{index:04}" for index in range(6)]
    for plan, names, model in zip(trained.plans, held_out, trained.models, strict=True):
        assert list_names(plan, "train").isdisjoint(names)
        assert list_names(plan, "train") | names == set().union(*held_out)
        assert {name for name, _ in model.provenance["train"]} == list_names(plan, "train")


def test_one_model_holds_the_nets_of_all_folds(trained: Trained) -> None:
    model = Model.load(trained.request.output)
    assert model.weights_sha256 == trained.done.model.weights_sha256
    own = [replace(model, net=net).weights_sha256 for net in list_members(model.net)]
    assert own == [fold.weights_sha256 for fold in trained.models]
    assert len(set(own)) == FOLDS
    assert [fold.recipe.seed for fold in trained.models] == [0, 1, 2]
    assert {fold.normalization for fold in trained.models} == {model.normalization}
    image = draw_cells(64, 64, 7).image_cyx
    expected = np.mean([fold.probabilities(image) for fold in trained.models], axis=0)
    np.testing.assert_allclose(model.probabilities(image), expected, atol=2e-6)


def test_each_image_is_scored_by_its_fold_with_the_thresholds_of_the_others(trained: Trained, cells: Path) -> None:
    pairs = {pair.name: pair for pair in find_pairs(cells).pairs}
    truth = {name: read_pair_labels(pair).array.astype(np.int32) for name, pair in pairs.items()}
    logits = [
        {name: model.logits(read_pair_image(pairs[name])) for name in sorted(list_names(plan, "validation"))}
        for plan, model in zip(trained.plans, trained.models, strict=True)
    ]
    scored = {image.name: image for image in trained.done.evaluation.images}
    assert scored.keys() == pairs.keys()
    task = trained.models[0].task
    large = trained.done.model.provenance["fingerprint"]["diameter_percentiles"][2]
    prior = Prior(least_reach=math.ceil(large / 2))
    assert prior.least_reach > 8
    for at, own in enumerate(logits):
        others = [(found, truth[name]) for part in (*logits[:at], *logits[at + 1 :]) for name, found in part.items()]
        decoding, _ = task.tune(others, prior)
        own_task = replace(trained.models[at], decoding=decoding).task
        for name, found in own.items():
            expected = score_objects(truth[name], own_task.decode(found))
            assert scored[name].objects == expected
    every = [(found, truth[name]) for part in logits for name, found in part.items()]
    assert trained.done.model.decoding == task.tune(every, prior)[0]
    mean = np.mean([image.objects.mean_accuracy for image in scored.values() if image.objects is not None])
    assert trained.done.evaluation.summary["mean_accuracy"] == pytest.approx(mean)
    assert 0 < mean < 1


def test_the_model_knows_its_folds_and_that_it_has_seen_every_image(trained: Trained, cells: Path) -> None:
    facts = json.loads(json.dumps(Model.load(trained.request.output).provenance))
    assert [name for name, _ in facts["train"]] == [f"cells_{index:04}" for index in range(6)]
    assert facts["validation"] == []
    assert len(facts["sketches"]) == 6
    assert facts["scores"] == trained.done.evaluation.summary
    assert [set(fold["validation"]) for fold in facts["folds"]] == [
        list_names(plan, "validation") for plan in trained.plans
    ]
    assert facts["folds"][1]["decoding"] == trained.models[1].decoding.to_json()
    assert facts["folds"][2]["weights_sha256"] == trained.models[2].weights_sha256
    with pytest.raises(InputError, match="the model was trained on all images in it"):
        septa.evaluate(trained.request.output, cells)
    with pytest.raises(InputError, match="the model is an ensemble of 3 nets, and septa quantises single nets only"):
        septa.quantize(trained.request.output, cells)


def test_reports_and_scores_stay_and_fold_models_do_not(trained: Trained) -> None:
    folder = trained.request.folder
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"fold-{number}-run" for number in (1, 2, 3)),
        *("recipe.yaml", "report.html", "scores.csv"),
    ]
    assert sorted(path.name for path in (folder / "fold-2-run").iterdir()) == ["log.csv", "recipe.yaml", "report.html"]
    assert Recipe.load(folder / "recipe.yaml") == trained.done.model.recipe
    assert trained.done.model.recipe.data.validation_share == 0.3333
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = {image.name: image for image in trained.done.evaluation.images}
    for row in rows:
        assert row["image"] in list_names(trained.plans[int(row["fold"]) - 1], "validation")
        check_row(row, images.pop(row["image"]))
    assert not images
    page = (folder / "report.html").read_text()
    for text in ("mean ± sd", "fold 3", "<th>Fold</th>", "each of 6 images was scored by the net of its fold"):
        assert text in page


def check_row(row: dict[str, str], image: ImageScores) -> None:
    assert image.objects is not None
    assert float(row["f1_50"]) == image.objects.f1[0]
    assert float(row["mean_accuracy"]) == image.objects.mean_accuracy
    assert int(row["true_objects"]) == image.objects.truth_count
    assert float(row["dice_object"]) == image.classes["object"]["dice"]


def test_an_interrupted_training_continues_at_its_fold(trained: Trained, tmp_path: Path) -> None:
    request = replace(trained.request, output=tmp_path / "m.septa")
    shutil.copytree(trained.in_second_fold, request.folder)
    with pytest.raises(InputError, match="the folder holds an unfinished training"):
        next(train_steps(request))
    for folds in (0, 4):
        with pytest.raises(InputError, match=r"this training has 3 folds\. Give --folds 3, or start again"):
            next(train_steps(replace(request, folds=folds, resume=True)))
    resumed = list(train_steps(replace(request, resume=True)))
    folds_done = [event for event in resumed if isinstance(event, FoldDone)]
    assert [(event.fold, event.evaluation is None) for event in folds_done] == [(1, True), (2, False), (3, False)]
    plans = [event for event in resumed if isinstance(event, TrainingPlan)]
    assert [plan.fold for plan in plans] == [2, 3]
    assert plans[0].notes == ("resumed after step 8",)
    assert plans[1].notes == ()
    done = resumed[-1]
    assert isinstance(done, TrainingDone)
    assert done.model.weights_sha256 == trained.done.model.weights_sha256
    assert done.model.decoding == trained.done.model.decoding
    assert done.evaluation == trained.done.evaluation


def test_a_training_that_ends_before_its_model_is_written_is_finished(trained: Trained, tmp_path: Path) -> None:
    request = replace(trained.request, output=tmp_path / "m.septa", resume=True)
    shutil.copytree(trained.after_folds, request.folder)
    *folds, done = train_steps(request)
    assert [type(event) for event in folds] == [FoldDone] * FOLDS
    assert isinstance(done, TrainingDone)
    assert done.model.weights_sha256 == trained.done.model.weights_sha256


def copy_run(trained: Trained, folder: Path) -> TrainingRequest:
    """Copy a finished training."""
    shutil.copy(trained.request.output, folder / "m.septa")
    shutil.copytree(trained.request.folder, folder / "m-run")
    return replace(trained.request, output=folder / "m.septa")


def test_a_finished_training_is_not_repeated(trained: Trained, tmp_path: Path) -> None:
    request = copy_run(trained, tmp_path)
    with pytest.raises(InputError, match="the file exists"):
        next(train_steps(request))
    assert list(train_steps(replace(request, resume=True))) == [AlreadyTrained(request.output)]
    with pytest.raises(InputError, match=r"this training has 3 folds\. Give --folds 3"):
        next(train_steps(replace(request, folds=0, resume=True)))
    (request.folder / "folds.json").write_text("{")
    with pytest.raises(InputError, match=r"folds.json: the file is damaged. Start again with --overwrite."):
        next(train_steps(replace(request, resume=True)))


def test_overwriting_removes_what_folds_left(trained: Trained, tmp_path: Path) -> None:
    request = copy_run(trained, tmp_path)
    (request.folder / "folds.json").write_text("{}")
    shutil.copy(request.output, request.folder / "fold-9.septa")
    events = train_steps(replace(request, folds=0, overwrite=True))
    assert isinstance(next(events), TrainingPlan)
    assert not request.output.exists()
    assert not (request.folder / "folds.json").exists()
    assert not (request.folder / "fold-9.septa").exists()


def test_a_single_training_is_not_resumed_in_folds(trained: Trained, tmp_path: Path) -> None:
    request = replace(trained.request, output=tmp_path / "m.septa", folds=0)
    events = train_steps(request)
    assert isinstance(next(events), TrainingPlan)
    assert isinstance(next(events), dict)
    events.close()  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"this training has no folds\. Leave --folds out, or start again"):
        next(train_steps(replace(request, folds=3, resume=True)))


def test_classes_are_trained_in_folds_by_one_call(data: Path, tmp_path: Path, tiny: tuple[str, ...]) -> None:
    model = septa.train(data, tmp_path / "m.septa", folds=2, overrides=(*tiny, "training.steps=4"), device="cpu")
    assert model.members == 2
    assert model.weights_sha256 == septa.load(str(tmp_path / "m.septa")).weights_sha256
    folds = model.provenance["folds"]
    assert [len(fold["validation"]) for fold in folds] == [4, 4]
    dice = [fold["scores"]["Dice = F1"] for fold in folds]
    assert np.mean(dice) == pytest.approx(model.provenance["scores"]["dice"])


def test_the_command_says_the_cost_first_and_the_scores_last(
    cells: Path, tmp_path: Path, tiny_options: list[str], command: Any
) -> None:
    options = [*tiny_options, "--set", "training.steps=2", "--minutes", "9"]
    ended = command("train", cells, "-o", tmp_path / "m.septa", "--folds", "2", *options)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0] == describe_cost(2, Recipe().with_overrides(["training.minutes=9"]))
    assert lines[0].startswith("folds: 2 nets, in 9 minutes together, 4.3 each (--minutes 18 gives each 9); model")
    assert "folds: 2 of 3 images; each image is held out once, and its fold's net never trains on it" in lines
    assert lines.count("fold 2 of 2: 3 images for training, 3 held out") == 1
    assert sum(line.startswith("training U-Net") for line in lines) == 1
    assert any(line.startswith("fold 1 of 2: F1 at IoU 0.5 0.") for line in lines)
    assert any(line.startswith("│ mean ± sd │") for line in lines)
    model = Model.load(tmp_path / "m.septa")
    assert model.recipe.training.minutes == 9
    told = command("predict", tmp_path / "m.septa", cells / "images", "-o", tmp_path / "out")
    assert "2 nets, 2 times the time of one" in told.out.splitlines()[0]
    assert json.loads(command("info", tmp_path / "m.septa").out)["members"] == 2
    described = command("describe", tmp_path / "m.septa")
    assert "2 nets, 2 times the time of one; this is one of them" in described.out


def test_stores_and_tiles_of_an_ensemble_are_exact(trained: Trained, tmp_path: Path, command: Any) -> None:
    import zarr

    image_cyx = draw_cells(260, 230, 5).image_cyx
    write_image(tmp_path / "large.tif", image_cyx)
    path = trained.request.output
    whole_yx = trained.done.model.segment(image_cyx, tile=1000, device="cpu")
    assert whole_yx.max() > 3
    ended = command("predict", path, tmp_path / "large.tif", "-o", tmp_path / "out", "--tile", "112", "--certify")
    assert ended.code == 0, ended.err
    assert "largest difference to the whole image 0" in ended.out
    ended = command("predict", path, tmp_path / "large.tif", "-o", tmp_path / "out.ome.zarr", "--tile", "112")
    assert ended.code == 0, ended.err
    assert "3 nets, 3 times the time of one" in ended.out
    (labels,) = (group for _, group in zarr.open_group(tmp_path / "out.ome.zarr", mode="r")["labels"].groups())
    assert_same_objects(np.squeeze(np.asarray(labels["0"])), whole_yx)


def assert_same_objects(first_yx: np.ndarray, second_yx: np.ndarray) -> None:
    """Assert that two label images show the same objects, whatever their ids are."""
    pairs = np.unique(np.stack([first_yx.ravel(), second_yx.ravel()]).astype(np.int64), axis=1)
    assert first_yx.shape == second_yx.shape
    assert len(pairs[0]) == len(np.unique(first_yx)) == len(np.unique(second_yx))


def test_folds_and_a_share_of_validation_exclude_each_other(cells: Path, tmp_path: Path) -> None:
    request = TrainingRequest(
        data=cells, output=tmp_path / "m.septa", overrides=("data.validation_share=0.1",), folds=2, device="cpu"
    )
    line = "--set data.validation_share=0.1: --folds 2 holds out 1/2 of the images at a time. Leave one of the two out."
    with pytest.raises(septa.errors.RecipeError) as caught:  # type: ignore[attr-defined]
        next(train_steps(request))
    assert str(caught.value) == line
