"""Objects with classes, from a folder to tables: they are trained, evaluated and predicted."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from septa.errors import InputError
from septa.images.read import read_image, read_labels
from septa.images.write import write_image, write_labels
from septa.model import Model
from septa.tasks.instances import Instances
from septa.training.finish import TrainingDone
from septa.training.plan import TrainingRequest
from septa.training.run import train_steps

NAMES = ("background", "dark", "bright")
VALUES = (0, 3, 8)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write dark and bright squares on grey background; their class is 3 or 8."""
    folder = tmp_path_factory.mktemp("classed")
    for index in range(6):
        rng = np.random.default_rng(index)
        ids_yx, class_yx = np.zeros((64, 64), np.uint16), np.zeros((64, 64), np.uint8)
        for number, (row, column) in enumerate(np.ndindex(4, 4)):
            side = int(rng.integers(10, 15))
            inside = np.s_[16 * row : 16 * row + side, 16 * column : 16 * column + side]
            ids_yx[inside], class_yx[inside] = 5 * number + 2, VALUES[1 + int(rng.random() < 0.5)]
        image_yx = rng.normal(0, 8, ids_yx.shape) + np.choose(np.searchsorted(VALUES, class_yx), (110, 40, 200))
        write_image(folder / "images" / f"{index}.png", image_yx.clip(0, 255).astype(np.uint8)[None])
        write_labels(folder / "labels" / f"{index}.png", ids_yx)
        write_labels(folder / "classes" / f"{index}.png", class_yx)
    return folder


@pytest.fixture(scope="module")
def done(cells: Path, tmp_path_factory: pytest.TempPathFactory, tiny: tuple[str, ...]) -> TrainingDone:
    path = tmp_path_factory.mktemp("trained") / "m.septa"
    more = (
        "task=instances",
        "instances.encoding=border",
        "training.lr=0.02",
        "training.ema=0",
        "training.steps=50",
        "training.validations=2",
    )
    names = f"data.class_names=[{', '.join(NAMES)}]"
    *_, last = train_steps(TrainingRequest(data=cells, output=path, overrides=(*tiny, *more, names), device="cpu"))
    assert isinstance(last, TrainingDone)
    return last


def test_the_model_predicts_classes(done: TrainingDone) -> None:
    model = Model.load(done.path)
    assert isinstance(model.task, Instances)
    assert (model.task.object_classes, model.net.out_channels) == (2, 3 + 2)
    assert (model.labels.class_names, model.labels.values) == (NAMES, VALUES)
    scores = done.evaluation.object_classes
    assert list(scores) == ["dark", "bright"]
    assert all(spread["pooled"] > 0.2 for spread in scores.values())
    assert done.evaluation.class_names == ("background", "object")
    report = done.report.read_text(encoding="utf-8")
    assert "F1 at IoU 0.5, dark" in report


def test_evaluation_compares_classes_with_the_ground_truth(
    done: TrainingDone, cells: Path, tmp_path: Path, command: Any
) -> None:
    scores = tmp_path / "scores.json"
    result = command("evaluate", done.path, cells, "--json", scores, "--device", "cpu")
    assert result.code == 0, result.err
    assert "F1 at IoU 0.5, bright" in result.out
    found = json.loads(scores.read_text(encoding="utf-8"))["object_classes"]
    counts = np.zeros((3, 3), int)
    for name, _ in done.model.provenance["validation"]:
        image, labels = cells / "images" / f"{name}.png", cells / "labels" / f"{name}.png"
        truth_yx, class_yx = read_labels(labels).array, read_labels(cells / "classes" / f"{name}.png").array
        predicted_yx = done.model.segment(image, device="cpu")
        class_of_id = done.model.task.classify(predicted_yx, done.model.logits(image, device="cpu"))
        assert class_of_id is not None
        for one in np.unique(truth_yx[truth_yx > 0]):
            mine = truth_yx == one
            kind = VALUES.index(class_yx[mine][0])
            counts[kind, 1] += 1
            for other in np.unique(predicted_yx[mine & (predicted_yx > 0)]):
                theirs = predicted_yx == other
                agree = class_of_id[other] == kind
                counts[kind, 0] += agree and 2 * (mine & theirs).sum() >= (mine | theirs).sum()
        for other in range(1, predicted_yx.max() + 1):
            counts[class_of_id[other], 2] += 1
    for kind, name in enumerate(NAMES[1:], 1):
        assert (found[name]["truth_count"], found[name]["prediction_count"]) == tuple(counts[kind, 1:])
        assert found[name]["pooled"] == pytest.approx(2 * counts[kind, 0] / counts[kind, 1:].sum())


def test_every_output_of_a_prediction_has_the_classes(
    done: TrainingDone, cells: Path, tmp_path: Path, command: Any
) -> None:
    out, table, coco = tmp_path / "out", tmp_path / "o.csv", tmp_path / "c.json"
    options = ("--table", table, "--coco", coco, "--geojson", "--min-confidence", "0.3", "--device", "cpu")
    assert command("predict", done.path, cells / "images", "-o", out, *options).code == 0
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == {"dark", "bright"}
    annotations = json.loads(coco.read_text())
    images = {image["id"]: image["file_name"] for image in annotations["images"]}
    categories = {entry["id"]: entry["name"] for entry in annotations["categories"]}
    assert set(categories.values()) >= {"dark", "bright"}
    right = 0
    for path in sorted((cells / "images").iterdir()):
        labels_yx, class_yx = (read_labels(folder / path.name).array for folder in (out, out / "classes"))
        np.testing.assert_array_equal(labels_yx > 0, class_yx > 0)
        mine = [row for row in rows if row["image"] == path.stem]
        expected = [NAMES[VALUES.index(class_yx[labels_yx == int(row["label"])][0])] for row in mine]
        assert [row["class"] for row in mine] == expected
        assert all(len(np.unique(class_yx[labels_yx == int(row["label"])])) == 1 for row in mine)
        features = json.loads((out / "outlines" / f"{path.stem}.geojson").read_text())["features"]
        assert [feature["properties"]["classification"]["name"] for feature in features] == expected
        found = [one for one in annotations["annotations"] if images[one["image_id"]] == path.name]
        assert [categories[one["category_id"]] for one in found] == expected
        image_yx = read_image(path)[0]
        for row, name in zip(mine, expected, strict=True):
            right += (image_yx[labels_yx == int(row["label"])].mean() > 110) == (name == "bright")
    assert right > 0.9 * len(rows)
    plain = tmp_path / "plain"
    assert command("predict", done.path, cells / "images", "-o", plain, "--device", "cpu").code == 0
    assert sorted(path.name for path in (plain / "classes").iterdir()) == [f"{index}.png" for index in range(6)]
    result = command("evaluate", plain, cells / "labels", "--task", "instances")
    assert result.code == 0, result.err


def test_classes_of_the_ground_truth_are_not_overwritten(done: TrainingDone, cells: Path, command: Any) -> None:
    before = (cells / "classes" / "0.png").read_bytes()
    result = command("predict", done.path, cells / "images", "-o", cells, "--device", "cpu")
    assert result.code == 2
    assert "whose classes/ would be overwritten" in result.err
    assert (cells / "classes" / "0.png").read_bytes() == before
    assert not (cells / "0.png").exists()


def test_averaging_versions_keeps_classes(done: TrainingDone, cells: Path) -> None:
    image = cells / "images" / "0.png"
    logits_kyx = done.model.logits(image, tta=3, device="cpu")
    assert logits_kyx.shape == (5, 64, 64)
    task = done.model.task
    assert isinstance(task, Instances)
    ids_yx = task.decode(logits_kyx)
    class_of_id = task.classify(ids_yx, logits_kyx)
    assert class_of_id is not None
    assert len(class_of_id) == ids_yx.max() + 1 > 1
    assert set(class_of_id[1:].tolist()) <= {1, 2}


def test_data_without_classes_cannot_be_evaluated(done: TrainingDone, cells: Path, tmp_path: Path) -> None:
    from septa.evaluation import evaluate

    for folder in ("images", "labels"):
        (tmp_path / folder).symlink_to(cells / folder)
    with pytest.raises(InputError, match="the objects of this image have no classes"):
        evaluate(done.model, tmp_path, every=True, device="cpu")
