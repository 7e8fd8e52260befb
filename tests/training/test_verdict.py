"""A training that ended with nothing usable says so, with the likely causes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from septa.data.check_result import DatasetCheck, Problem
from septa.metrics.scores import Evaluation, evaluate_labels
from septa.training.verdict import describe_choice, find_verdict

CHECK = DatasetCheck(data=Path("cells"))


def discs(count: int) -> np.ndarray:
    labels_yx = np.zeros((20, 20 * count + 20), np.int32)
    for number in range(count):
        labels_yx[5:15, 20 * number + 5 : 20 * number + 15] = number + 1
    return labels_yx


def evaluate(truth_yx: np.ndarray, found_yx: np.ndarray, names: tuple[str, ...] = ("background", "cell")) -> Evaluation:
    return evaluate_labels([("a", truth_yx, found_yx), ("b", truth_yx, found_yx)], names)


def evaluate_objects(truth_yx: np.ndarray, found_yx: np.ndarray) -> Evaluation:
    return evaluate_labels([("a", truth_yx, found_yx)], ("background", "object"), instances=True)


TRUTH = np.minimum(discs(3), 1)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (np.zeros_like(TRUTH), "it labels every pixel of the validation images as background"),
        (np.ones_like(TRUTH), "it labels every pixel of the validation images as cell"),
        (1 - TRUTH, "the Dice of its foreground is 0.00 on the validation images"),
    ],
)
def test_useless_classes(found: np.ndarray, problem: str) -> None:
    verdict = find_verdict(evaluate(TRUTH, found), 1000, CHECK)
    assert verdict.startswith(
        f"the model is not usable: {problem}. Likely causes: the labels do not lie on the objects"
    )


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (np.zeros_like(TRUTH), "it finds no object in any validation image"),
        (np.roll(discs(3), 10, axis=1), "its F1 of objects is 0.00 on the validation images"),
        (np.ones_like(TRUTH), "its F1 of objects is 0.00 on the validation images"),
    ],
)
def test_useless_objects(found: np.ndarray, problem: str) -> None:
    assert f"not usable: {problem}." in find_verdict(evaluate_objects(discs(3), found), 1000, CHECK)


def test_a_usable_model_has_no_verdict() -> None:
    shifted_yx = np.roll(discs(3), 2, axis=1)
    assert find_verdict(evaluate(TRUTH, np.minimum(shifted_yx, 1)), 1, CHECK) == ""
    assert find_verdict(evaluate_objects(discs(3), shifted_yx), 1, CHECK) == ""
    assert find_verdict(evaluate_objects(discs(0), discs(0)), 1000, CHECK) == ""
    classes_yx = discs(3)  # one class of three is never found
    assert find_verdict(evaluate(classes_yx, np.minimum(classes_yx, 2), ("a", "b", "c", "d")), 1000, CHECK) == ""


def test_causes_are_those_of_this_training() -> None:
    check = DatasetCheck(
        data=Path("cells"), problems=(Problem("warning", "x.png", "the image is blank", "Leave it out"),)
    )
    verdict = find_verdict(evaluate(TRUTH, np.zeros_like(TRUTH)), 1, check)
    assert "the training had only 1 step (give more --minutes or training.steps)" in verdict
    assert "the data have 1 warning (run 'septa check cells')" in verdict
    assert "only" not in find_verdict(evaluate(TRUTH, np.zeros_like(TRUTH)), 50, CHECK)


def test_the_choice_is_described() -> None:
    assert describe_choice(False).startswith("the validation images also chose the best weights: ")
    assert "weights and thresholds" in describe_choice(True)
