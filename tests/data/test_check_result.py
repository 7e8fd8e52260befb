from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from septa.data.check_result import DatasetCheck, Problem, explain_task
from septa.data.fingerprint import ImageFacts, scan_image
from septa.labels.mapping import LabelMapping

IDS = LabelMapping("instances", ("background", "object"), (0,))
BINARY = LabelMapping("binary", ("background", "foreground"), (0, 255))


def facts_of(objects: int | None) -> ImageFacts:
    facts = scan_image("a", np.zeros((1, 4, 4), np.uint8), None, classes=2)
    return facts if objects is None else ImageFacts(**{**vars(facts), "objects": objects})


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((6, 10, 8), "6 to 10 objects per image"),
        ((2, 2), "2 objects per image"),
        ((1,), "1 object per image"),
        ((0, 1), "0 to 1 objects per image"),
        ((None, 3, None), "3 objects per image"),
    ],
)
def test_the_number_of_objects_explains_instances(counts: tuple[int | None, ...], expected: str) -> None:
    assert explain_task(IDS, [facts_of(count) for count in counts]) == expected


def test_the_values_explain_other_tasks() -> None:
    assert explain_task(BINARY, [facts_of(3)]) == BINARY.describe()
    assert explain_task(IDS, [facts_of(None)]) == IDS.describe()
    assert explain_task(IDS, []) == IDS.describe()


def test_a_problem_is_one_line_of_two_sentences() -> None:
    assert str(Problem("error", "a\n.png", "the image is empty", "Copy it")) == "a\\n.png: the image is empty. Copy it."
    assert str(Problem("warning", "a.png", "the image is empty", "")) == "a.png: the image is empty."
    assert str(Problem("error", "", "it fails", "Stop")) == "it fails. Stop."


def test_only_errors_are_fatal() -> None:
    warning, error = (Problem(severity, "a", "b", "c") for severity in ("warning", "error"))
    assert not DatasetCheck(data=Path("x")).fatal
    assert not DatasetCheck(data=Path("x"), problems=(warning,)).fatal
    assert DatasetCheck(data=Path("x"), problems=(error, warning)).fatal
