"""Tests of the comparison of bfloat16 with float32 after a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from septa.model import Bf16Difference, Model
from septa.recipe import Recipe
from septa.tasks.instances import Instances
from septa.training import precision
from septa.training.precision import Bf16Comparison, describe_difference
from septa.training.scoring import SegmentedExample

OLD = Path(__file__).parents[1] / "files" / "v0.1"


class FakeModel:
    """Fake model whose labels in bfloat16 are given."""

    def __init__(self, task: Any, labels_yx: np.ndarray, class_of_id: np.ndarray | None = None) -> None:
        self.labels_yx = labels_yx
        finder = Instances("distance")
        self.task = SimpleNamespace(
            finds_objects=task == "instances",
            decode=lambda logits: labels_yx,
            align=finder.align,
            classify=lambda labels, logits: class_of_id,
        )
        self.recipe = Recipe()
        self.runs = 0

    def engine(self, device: str, name: str) -> str:
        return f"{name} on {device}"

    def _run(self, image_cyx: np.ndarray, *, engine: str) -> np.ndarray:
        assert engine == "torch+bf16 on cpu"
        self.runs += 1
        return self.labels_yx

    segment = logits = _run


def image_of(labels_yx: np.ndarray, class_of_id: np.ndarray | None = None) -> SegmentedExample:
    examples: Any = [SimpleNamespace(image_cyx=labels_yx[None])]
    return SegmentedExample(examples=examples, index=0, predicted_yx=labels_yx, class_of_id=class_of_id)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: True)


def compare(model: Any, *images: SegmentedExample) -> Bf16Difference | None:
    comparison = Bf16Comparison(model, "cpu")
    assert list(comparison.follow(images)) == list(images)
    return comparison.difference


def test_pixels_of_another_class_are_counted() -> None:
    expected = np.array([[0, 1, 2], [2, 1, 0]], np.int32)
    found = np.array([[0, 1, 1], [2, 1, 0]], np.int32)
    image = image_of(expected)
    assert compare(FakeModel("semantic", found), image, image) == Bf16Difference(changed=2, pixels=12)


def test_ids_of_objects_do_not_count_but_their_pixels_and_classes_do() -> None:
    expected = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 0]], np.int32)
    renumbered = np.array([[2, 2, 2, 2, 0, 1, 1, 1, 0]], np.int32)
    assert compare(FakeModel("instances", renumbered), image_of(expected)) == Bf16Difference(changed=0, pixels=9)
    grown = np.array([[2, 2, 2, 0, 0, 1, 1, 1, 3]], np.int32)
    assert compare(FakeModel("instances", grown), image_of(expected)) == Bf16Difference(changed=2, pixels=9)
    classes = np.array([0, 1, 1], np.int32)
    same = FakeModel("instances", renumbered, np.array([0, 1, 1], np.int32))
    assert compare(same, image_of(expected, classes)) == Bf16Difference(changed=0, pixels=9)
    other = FakeModel("instances", renumbered, np.array([0, 2, 1], np.int32))
    assert compare(other, image_of(expected, classes)) == Bf16Difference(changed=3, pixels=9)


def test_four_megapixels_are_compared_but_at_least_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_MOST_PIXELS", 10)
    large, small = (np.zeros((1, size), np.int32) for size in (11, 5))
    model = FakeModel("semantic", large)
    assert compare(model, image_of(large), image_of(large)) == Bf16Difference(changed=0, pixels=11)
    model = FakeModel("semantic", small)
    assert compare(model, *[image_of(small)] * 3) == Bf16Difference(changed=0, pixels=10)
    assert model.runs == 2


def test_nothing_is_compared_where_bf16_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: False)
    model = FakeModel("semantic", np.ones((1, 4), np.int32))
    assert compare(model, image_of(np.zeros((1, 4), np.int32))) is None
    assert model.runs == 0


def test_a_model_is_compared_with_itself() -> None:
    model = Model.load(OLD / "instances.septa")
    rng = np.random.default_rng(0)
    image_cyx = np.kron(rng.integers(20, 200, (1, 20, 24)), np.ones((1, 4, 4))).astype(np.uint8)
    labels_yx = model.segment(image_cyx, device="cpu")
    example: Any = [SimpleNamespace(image_cyx=image_cyx)]
    logits_kyx = model.logits(image_cyx, device="cpu", precision="bf16")
    found_yx = model.task.decode(logits_kyx)
    expected = int(np.count_nonzero(model.task.align(labels_yx, found_yx) != labels_yx))
    difference = compare(model, SegmentedExample(examples=example, index=0, predicted_yx=labels_yx))
    assert difference == Bf16Difference(changed=expected, pixels=labels_yx.size)


def test_the_report_says_whether_bf16_is_used() -> None:
    assert describe_difference(None) == ()
    good = Bf16Difference(changed=6, pixels=60_000)
    assert describe_difference(good) == (
        "bf16 changes the labels of 0.01 % of 60000 validation pixels, so it is used where a processor is fast in it",
    )
    (line,) = describe_difference(replace(good, changed=60))
    assert "so it is not used" in line
