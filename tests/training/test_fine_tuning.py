"""Fine-tuning from a model file to a report: weights, scores, provenance, and resuming without the parent's file."""

from __future__ import annotations

import json
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import septa
from septa.errors import Interrupted
from septa.evaluation import evaluate
from septa.images.read import read_image
from septa.images.write import write_image
from septa.model import Model
from septa.training import TrainingDone, TrainingPlan
from septa.training.checkpoint import Checkpoints
from septa.training.job import TrainingJob
from septa.training.loop import find_least_gain
from septa.training.plan import TrainingRequest
from septa.training.run import train_steps
from septa.training.verdict import describe_gain

Write = Callable[..., Path]
QUICK = ("sampling.patch=[32, 32]", "training.batch=2", "training.amp=off", "training.workers=1")
FEW = (*QUICK, "training.steps=6", "training.validations=2")


@pytest.fixture(scope="module")
def new(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write three images that differ from those of the parent."""
    folder = tmp_path_factory.mktemp("new")
    for source in sorted(data.glob("*/im[0-2].png")):
        image = read_image(source)[:, ::-1, ::-1]
        target = folder / source.relative_to(data)
        noise = np.random.default_rng(1).integers(0, 40, image.shape) if source.parent.name == "images" else 0
        write_image(target, (image // 2 + noise if source.parent.name == "images" else image).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def parent(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a model of foreground and background that finds something."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("parent") / "first.septa"
    settings = [*QUICK, "net.width=4", "net.depth=2", "training.lr=0.01", "training.steps=40", "training.ema=0.9"]
    septa.train(data, path, overrides=settings)
    return path


@pytest.fixture(scope="module")
def events(parent: Path, new: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    torch.set_num_threads(1)
    overrides = (*FEW, f"training.start={parent}")
    output = tmp_path_factory.mktemp("tuned") / "second.septa"
    return list(train_steps(TrainingRequest(data=new, output=output, overrides=overrides)))


def rows(events: list[Any]) -> list[dict[str, float]]:
    return [event for event in events if isinstance(event, dict) and "score" in event]


def test_the_first_validation_scores_the_parent(parent: Path, new: Path, events: list[Any]) -> None:
    first, *others = rows(events)
    assert (first["step"], [row["step"] for row in others]) == (0, [3, 6])
    plan = events[0]
    assert isinstance(plan, TrainingPlan)
    model, scores = Model.load(parent), []
    for pair in plan.validation:
        scores += [image for image in evaluate(model, new, every=True).images if image.name == pair.name]
    expected = np.mean([image.classes[model.labels.class_names[1]]["dice"] for image in scores])
    assert first["score"] == pytest.approx(expected, abs=1e-6)
    assert first["score"] > 0.2


def test_provenance_and_report_name_the_parent_with_its_score(parent: Path, events: list[Any], command: Any) -> None:
    done = events[-1]
    assert isinstance(done, TrainingDone)
    facts, own = Model.load(done.path).provenance["parent"], Model.load(parent)
    first, best = rows(events)[0]["score"], max(row["score"] for row in rows(events))
    assert (facts["name"], facts["weights_sha256"]) == ("first.septa", own.weights_sha256)
    assert facts["train"] == own.provenance["train"]
    assert facts["sketches"] == own.provenance["sketches"]
    assert (facts["score"], done.model.provenance["best_score"]) == (first, best)
    shown = json.loads(command("info", done.path).out)["provenance"]["parent"]
    assert (shown["name"], shown["score"], shown["sketches"]) == ("first.septa", first, len(facts["sketches"]))
    assert "first.septa" in done.start
    assert f"{first:.4f}" in done.start
    assert done.start in done.report.read_text(encoding="utf-8")


def test_a_model_knows_the_images_of_its_parent(data: Path, parent: Path, events: list[Any]) -> None:
    trained = {name for name, _ in Model.load(parent).provenance["train"]}
    scored = {image.name for image in evaluate(events[-1].model, data).images}
    assert trained
    assert scored == {f"im{index}" for index in range(8)} - trained
    chose = [note for note in evaluate(events[-1].model, data).notes if "chose the best weights" in note]
    assert chose == ["2 of 2 scored images also chose the best weights of the model: scores on new images may be lower"]


def test_a_resumed_fine_tuning_needs_no_parent_and_ends_bit_for_bit(
    parent: Path, new: Path, events: list[Any], tmp_path: Path
) -> None:
    own = shutil.copy(parent, tmp_path / "first.septa")
    overrides = (*FEW, f"training.start={own}")
    request = TrainingRequest(data=new, output=tmp_path / "m.septa", overrides=overrides)

    def stop() -> None:
        for event in train_steps(request):
            if isinstance(event, dict) and event["step"] == 3:
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        stop()
    Path(own).unlink()
    resumed = septa.train(new, tmp_path / "m.septa", resume=True)
    done = events[-1]
    assert resumed.weights_sha256 == done.model.weights_sha256
    assert resumed.provenance["parent"] == done.model.provenance["parent"]
    assert resumed.decoding == done.model.decoding
    again = septa.train(new, tmp_path / "m.septa", overrides=overrides, resume=True)  # the same command
    assert again.weights_sha256 == resumed.weights_sha256


def test_resuming_from_another_start_is_refused(parent: Path, new: Path, tmp_path: Path, command: Any) -> None:
    options = [part for setting in FEW for part in ("--set", setting)]
    arguments = ("train", new, "-o", tmp_path / "m.septa", *options)
    assert command(*arguments, "--from", parent).code == 0
    ended = command(*arguments, "--from", "scratch", "--resume")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"training.start: {parent} -> scratch" in ended.err


def test_the_command_says_what_it_starts_from_and_what_it_gained(
    parent: Path, new: Path, tmp_path: Path, command: Any
) -> None:
    options = [part for setting in FEW for part in ("--set", setting)]
    ended = command("train", new, "-o", tmp_path / "m.septa", *options, "--from", parent)
    assert ended.code == 0, ended.err
    starts = [line for line in ended.out.splitlines() if line.startswith("start: ")]
    assert len(starts) == 2
    assert "the net of depth 2 and width 4 and its weights are kept" in starts[0]
    assert "first.septa" in starts[1]
    refused = command("train", new, "-o", tmp_path / "n.septa", "--from", parent, "--set", "width=8")
    assert refused.code == 2
    assert "net.width is 4 in first.septa" in refused.err


def test_weights_that_never_improve_are_those_of_the_parent(parent: Path, new: Path, tmp_path: Path) -> None:
    model = septa.train(new, tmp_path / "m.septa", start=parent, overrides=[*FEW, "training.lr=1"])
    assert model.provenance["best_step"] == 0
    assert model.weights_sha256 == Model.load(parent).weights_sha256


def test_validation_images_that_the_parent_was_trained_on_are_a_warning(
    data: Path, parent: Path, tmp_path: Path
) -> None:
    trained = sorted(name for name, _ in Model.load(parent).provenance["train"])
    for folder in ("images", "labels"):
        for name in trained[:3]:
            (tmp_path / folder).mkdir(exist_ok=True)
            shutil.copy(data / folder / f"{name}.png", tmp_path / folder / f"{name}.png")
    with pytest.warns(septa.SeptaWarning, match="first.septa was trained on 1 validation image ") as caught:
        model = septa.train(tmp_path, tmp_path / "m.septa", start=parent, overrides=FEW)
    ((name, _),) = model.provenance["validation"]
    assert f"({name})" in str(caught[0].message)
    assert model.provenance["parent"]["saw_validation"] == [name]


def test_other_channels_and_classes_are_trained(parent: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(3):
        labels_yx = np.kron(rng.integers(0, 3, (8, 8)), np.ones((8, 8), int)).astype(np.uint8)
        image_cyx = rng.integers(0, 90, (3, 64, 64)) + 60 * labels_yx
        write_image(tmp_path / "data" / "images" / f"{index}.png", image_cyx.astype(np.uint8))
        write_image(tmp_path / "data" / "labels" / f"{index}.png", labels_yx[None])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        request = TrainingRequest(
            data=tmp_path / "data", output=tmp_path / "m.septa", overrides=(*FEW, f"training.start={parent}")
        )
        events = list(train_steps(request))
    done = events[-1]
    assert (done.model.channels, done.model.net.out_channels) == (3, 3)
    assert rows(events)[0]["step"] == 3  # new outputs have no score before the first step
    assert done.model.provenance["parent"]["score"] is None
    assert done.start == "start: first.septa, which has no score on the validation images, since it has other outputs"


def test_one_image_is_enough(parent: Path, new: Path, tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        shutil.copy(new / folder / "im0.png", tmp_path / folder)
    model = septa.train(tmp_path, tmp_path / "m.septa", start=parent, overrides=FEW)
    assert len(model.provenance["parts"]) == 1
    grandchild = septa.train(tmp_path, tmp_path / "n.septa", start=tmp_path / "m.septa", overrides=FEW)
    assert grandchild.provenance["parent"]["parent"]["name"] == "first.septa"
    assert grandchild.provenance["parent"]["saw_validation"] == []
    scored = evaluate(grandchild, tmp_path)
    assert any("only the part that the training held out is scored" in note for note in scored.notes)


def test_the_header_of_each_checkpoint_keeps_the_facts_of_the_parent(parent: Path, new: Path, tmp_path: Path) -> None:
    overrides = (*FEW, f"training.start={parent}", "training.checkpoint_every=2")
    for event in train_steps(TrainingRequest(data=new, output=tmp_path / "m.septa", overrides=overrides)):
        if isinstance(event, dict) and event["step"] == 3:
            header, *_ = Checkpoints(tmp_path / "m-run" / "checkpoints").load_newest()
            assert header["parent"]["name"] == "first.septa"
            assert header["decoding"] == Model.load(parent).decoding.to_json()


def test_weights_that_find_no_object_more_do_not_replace_those_of_the_parent(
    parent: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingJob, "gain_of_one_object", 1.0)
    model = septa.train(new, tmp_path / "m.septa", start=parent, overrides=FEW)
    assert model.provenance["best_step"] == 0
    assert model.weights_sha256 == Model.load(parent).weights_sha256


def test_only_the_weights_of_the_parent_need_the_gain_of_an_object() -> None:
    validation = [SimpleNamespace(labels_yx=np.array(labels)) for labels in ([[0, 1, 1]], [[0, 0, 0]], [[2, 7, 9]])]
    job: Any = SimpleNamespace(task=SimpleNamespace(finds_objects=True), validation=validation)
    count: Any = TrainingJob.gain_of_one_object
    assert count.func(job) == 1 / 4
    job.task.finds_objects = False
    assert count.func(job) == 0
    job.gain_of_one_object = 0.25
    for best, gain in ((None, 0), ({"step": 0, "score": 0.5}, 0.25), ({"step": 3, "score": 0.5}, 0)):
        state: Any = SimpleNamespace(best=best)
        assert find_least_gain(job, state) == gain


def test_the_line_about_the_gain_compares_like_with_like() -> None:
    facts = {"name": "a.septa", "saw_validation": []}
    history = [{"step": 0, "score": 0.5}, {"step": 10, "loss": 1.0}, {"step": 20, "score": 0.625}]
    line = "start: the validation score is 0.6250, and that of a.septa before fine-tuning 0.5000"
    best = {"step": 20, "score": 0.625}
    assert describe_gain(facts, history, best, 4) == line
    kept = "start: fine-tuning found no object more than a.septa, with a score of 0.5000: its weights are kept"
    assert describe_gain(facts, history, {"step": 0, "score": 0.5}, 4) == kept
    seen = describe_gain(facts | {"saw_validation": ["x"]}, history, best, 4)
    assert seen == f"{line}; a.septa was trained on 1 of 4 validation images, so the scores are too high"
    mean = describe_gain(facts, history, best, 4, 0.5625)
    assert "the mean of those of a.septa and the fine-tuned ones" in mean
    assert mean.endswith("0.5625, before fine-tuning 0.5000, fine-tuned alone 0.6250")
    assert describe_gain(None, history, best, 4) == ""
