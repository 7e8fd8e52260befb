"""The interface of tasks: every task has all members, and its properties agree with its methods."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from septa.labels.mapping import LabelMapping
from septa.recipe import IGNORE
from septa.tasks.block_objects import find_block_objects
from septa.tasks.decoding import Decoding
from septa.tasks.instances import Instances
from septa.tasks.make import TASKS
from septa.tasks.semantic import Semantic
from septa.tasks.task import Task
from septa.tasks.tuning import search_thresholds, search_wall_thresholds

TASKS_MADE: list[Task] = [
    Semantic(3),
    Semantic(2, sigmoid=True),
    Semantic(4, multilabel=True),
    Semantic(2, walls=True),
    Semantic(2, sigmoid=True, walls=True, decoding=Decoding(seed=0.9, reach=2)),
    Instances("seam"),
    Instances("seam", sigmoid=True),
    Instances("border", decoding=Decoding(seed=0.7, least_pixels=3)),
    Instances("distance", object_classes=3),
]
every_task = pytest.mark.parametrize("task", TASKS_MADE, ids=str)
WHOLE = (True, True, True, True)


def random_logits(task: Task, height: int = 24, width: int = 31) -> np.ndarray:
    """Return random logits that are constant in squares of 4 x 4 pixels."""
    rng = np.random.default_rng(task.outputs)
    coarse_kyx = rng.normal(0, 4, (task.outputs, height // 4 + 1, width // 4 + 1))
    return np.ascontiguousarray(coarse_kyx.repeat(4, 1).repeat(4, 2)[:, :height, :width], np.float32)


@every_task
def test_a_task_has_every_member_of_the_interface(task: Task) -> None:
    members = [name for name in vars(Task) if not name.startswith("_")]
    assert {"finds_objects", "decode", "label_block"} < set(members)
    for name in members:
        assert hasattr(task, name)
    assert type(task) in TASKS.values()


@every_task
def test_outputs_have_meanings_that_other_tasks_share_only_if_they_mean_the_same(task: Task) -> None:
    meanings = task.output_meanings
    assert len(set(meanings)) == len(meanings) == task.outputs
    for other in TASKS_MADE:
        shared = set(meanings) & set(other.output_meanings)
        # Thresholds are not part of what an output means.
        one, two = (
            replace(each, walls=False, decoding=Decoding()) if isinstance(each, Semantic) else each
            for each in (task, other)
        )
        assert bool(shared) == (one == two), (other, shared)


def test_classes_of_objects_leave_the_other_outputs_as_they_are() -> None:
    plain, classes = Instances("border").output_meanings, Instances("border", object_classes=4).output_meanings
    assert classes[: len(plain)] == plain


@every_task
def test_properties_of_labels_are_true(task: Task) -> None:
    logits_kyx = random_logits(task)
    labels_yx = task.decode(logits_kyx)
    assert labels_yx.dtype == np.int32
    assert task.probabilities(logits_kyx).shape == (task.classes, *labels_yx.shape)
    score, dice = task.score(labels_yx, labels_yx)
    assert (score, dice) == (1.0, (1.0,) * task.classes)
    tilewise = np.array_equal(task.decode(logits_kyx[:, 5:20, 7:30]), labels_yx[5:20, 7:30])
    assert tilewise == task.tilewise
    assert not (task.finds_objects and task.tilewise)
    class_of_id = task.classify(labels_yx, logits_kyx)
    assert (class_of_id is None) == (task.object_classes == 1)
    if class_of_id is not None:
        assert class_of_id.shape == (labels_yx.max() + 1,)
        assert set(class_of_id[1:].tolist()) <= set(range(1, task.object_classes + 1))


@every_task
def test_thresholds_are_tuned_where_there_are_some(task: Task) -> None:
    logits_kyx = random_logits(task)
    truth_yx = task.decode(logits_kyx)
    decoding, curves = task.tune([(logits_kyx, truth_yx)])
    assert bool(curves) == task.has_thresholds
    if isinstance(task, Instances):
        assert (decoding, curves) == search_thresholds([(*task.compute_maps(logits_kyx), truth_yx)], task.decoding)
    elif task.has_thresholds:
        maps = [(task.probabilities(logits_kyx)[1], truth_yx)]
        assert (decoding, curves) == search_wall_thresholds(maps, task.decoding)
    else:
        assert decoding == task.decoding == Decoding()


@every_task
def test_labels_become_raw_values(task: Task) -> None:
    labels_yx = task.decode(random_logits(task))
    names = tuple(f"class {k}" for k in range(task.classes))
    mapping = (
        LabelMapping("multilabel", names, ())
        if task.multilabel
        else LabelMapping("index", names, tuple(range(10, 10 + task.classes)))
    )
    raw_yx = task.to_raw(labels_yx, mapping)
    if task.finds_objects:
        np.testing.assert_array_equal(raw_yx, labels_yx)
        assert raw_yx.dtype == np.uint8
        assert task.to_raw(labels_yx * 300, mapping).dtype == np.uint16
    else:
        np.testing.assert_array_equal(raw_yx, mapping.decode(labels_yx))


@every_task
def test_a_block_that_is_the_image_has_its_labels(task: Task) -> None:
    logits_kyx = random_logits(task)
    labels_yx = task.decode(logits_kyx)
    core = tuple(slice(0, size) for size in labels_yx.shape)
    block = task.label_block(logits_kyx, core, WHOLE)  # type: ignore[arg-type]
    assert block is not None
    assert (block.facts is None) == (not task.finds_objects)
    if block.facts is None:
        np.testing.assert_array_equal(block.labels_yx, labels_yx)
        assert list(block.to_arrays()) == ["labels_yx"]
    else:
        np.testing.assert_array_equal(block.labels_yx > 0, labels_yx > 0)
        assert block.facts.counts[0] == labels_yx.max()


@every_task
def test_a_block_depends_on_nothing_beyond_its_margin(task: Task) -> None:
    """The labels of a core are exactly the same from a window and from the whole image."""
    logits_kyx = random_logits(task, 40, 120)
    core, open_sides = (slice(0, 40), slice(30, 60)), (True, True, True, False)
    whole = task.label_block(logits_kyx, core, WHOLE)
    window = task.label_block(logits_kyx[:, :, :110], core, open_sides)
    assert whole is not None
    assert window is not None
    for name, array in whole.to_arrays().items():
        np.testing.assert_array_equal(window.to_arrays()[name], array)


@pytest.mark.parametrize("encoding", ["seam", "border", "distance"])
def test_blank_parts_hold_no_object(encoding: str) -> None:
    task = Instances(encoding)  # type: ignore[arg-type]
    logits_kyx = random_logits(task)
    logits_kyx[:, 8:16] = 5  # an object that crosses the border of the blank part
    if encoding != "distance":
        logits_kyx[0, 8:16] = -5
    core, blank = (slice(0, 24), slice(0, 16)), [(slice(0, 24), slice(16, 31))]
    found = task.label_block(logits_kyx, core, WHOLE, blank)
    foreground_yx, inner_yx = task.compute_maps(logits_kyx)
    foreground_yx[:, 16:] = 0
    expected = find_block_objects(foreground_yx, inner_yx, task.decoding, core, WHOLE)
    assert found is not None
    assert expected is not None
    for name, array in expected.to_arrays().items():
        np.testing.assert_array_equal(found.to_arrays()[name], array)
    unlike = task.label_block(logits_kyx, core, WHOLE)
    assert unlike is not None
    assert unlike.facts is not None
    assert found.facts is not None
    assert unlike.facts.beside.any()
    assert not found.facts.beside.any()


@every_task
@pytest.mark.parametrize("image_ends", [WHOLE, (True, False, False, True)])
def test_a_blank_block_equals_one_of_background(task: Task, image_ends: tuple[bool, bool, bool, bool]) -> None:
    margin = max(1, task.block_margin if isinstance(task, Semantic) else 1)
    size, core = (10 + 2 * margin, 15 + 2 * margin), (slice(margin, margin + 10), slice(margin, margin + 15))
    block = task.blank_block(size, core, image_ends)
    assert block.labels_yx.shape == (10, 15)
    assert block.labels_yx.max() <= 0  # negative values are open holes
    logits_kyx = np.full((task.outputs, *size), -9, np.float32)
    if not (task.multilabel or task.outputs == 1 or getattr(task, "encoding", "") == "distance"):
        logits_kyx[0] = 9
    expected = task.label_block(logits_kyx, core, image_ends)
    assert expected is not None
    for name, array in expected.to_arrays().items():
        np.testing.assert_array_equal(block.to_arrays()[name], array)


def test_the_margin_follows_the_reach() -> None:
    margins = [Instances(decoding=Decoding(reach=reach)).block_margin for reach in (0, 16, 17, 100)]
    assert margins == [32, 32, 33, 116]
    assert Semantic(2).block_margin == Semantic(2, walls=True).block_margin == 0
    assert Semantic(2, walls=True, decoding=Decoding(seed=0.9, reach=3)).block_margin == 12


def test_classes_of_objects_share_the_pixels_of_one() -> None:
    assert Instances(object_classes=2).pixel_shares([0.5, 0.25, 0.25]) == (0.5, 0.5)
    assert Instances().pixel_shares([0.75, 0.25]) == (0.75, 0.25)
    assert Instances().pixel_shares([1.0]) == (1.0,)
    assert Instances().pixel_shares([]) == ()


def test_matched_objects_are_shown_with_the_true_id() -> None:
    truth_yx = np.array([[7, 7, 0, 5, IGNORE]], np.int32)
    assert Instances().align(truth_yx, np.array([[1, 1, 0, 2, 0]], np.int32)).tolist() == [[7, 7, 0, 5, 0]]
