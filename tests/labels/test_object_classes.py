"""Classes of objects: numbers that hold both, against loops; targets, loss and decoding of the task with them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn import functional

from septa import recipe
from septa.labels.object_classes import classes_of, majority_classes, with_classes
from septa.recipe import IGNORE
from septa.tasks.instances import Encoding, Instances

ENCODINGS: tuple[Encoding, ...] = ("seam", "border", "distance")
IDS = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.sampled_from([-1, 0, 3, 9])
)


@given(IDS, st.integers(2, 9))
def test_id_and_class_come_back_from_one_number(ids_yx: np.ndarray, classes: int) -> None:
    kinds = {9: 1, 3: classes - 1}
    class_yx = np.vectorize(lambda one: kinds.get(one, 0), otypes=[int])(ids_yx)
    numbers_yx = with_classes(ids_yx, class_yx, classes)
    np.testing.assert_array_equal(classes_of(numbers_yx, classes), np.where(ids_yx < 0, ids_yx, class_yx))
    assert len(np.unique(numbers_yx)) == len(np.unique(ids_yx))
    for number in np.unique(numbers_yx):
        assert len(np.unique(ids_yx[numbers_yx == number])) == 1
    assert ((numbers_yx > 0) == (ids_yx > 0)).all()


@given(IDS, st.data())
def test_the_majority_of_each_object(ids_yx: np.ndarray, data: st.DataObject) -> None:
    votes_yx = data.draw(hnp.arrays(np.uint8, ids_yx.shape, elements=st.sampled_from([0, 1, 4])))
    found_yx = majority_classes(ids_yx, votes_yx)
    assert found_yx.dtype == np.uint8
    for label in np.unique(ids_yx):
        counts = Counter(int(vote) for vote in votes_yx[ids_yx == label] if vote)
        most = max(counts.values(), default=0)
        expected = min((vote for vote, count in counts.items() if count == most), default=0) if label else 0
        assert (found_yx[ids_yx == label] == expected).all()


@pytest.fixture
def labels_yx() -> np.ndarray:
    """Three objects, two of them touching, of the classes 1, 2 and 2 of three, and an ignored corner."""
    ids_yx = np.zeros((12, 16), np.int32)
    ids_yx[2:9, 1:6], ids_yx[2:9, 6:11], ids_yx[10:12, 2:14] = 4, 5, 6
    numbers_yx = with_classes(ids_yx, np.array([0, 0, 0, 0, 1, 2, 2])[ids_yx], 4)
    numbers_yx[:2, :3] = IGNORE
    return numbers_yx


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_targets_are_those_without_classes_and_the_class(encoding: Encoding, labels_yx: np.ndarray) -> None:
    terms = recipe.LossSettings(border_weight=5)
    plain, plain_weights = Instances(encoding).encode(labels_yx, terms)
    target, weights = Instances(encoding, object_classes=3).encode(labels_yx, terms)
    np.testing.assert_array_equal(target[0], plain)
    np.testing.assert_array_equal(weights, plain_weights)
    np.testing.assert_array_equal(target[1], np.where(labels_yx > 0, labels_yx % 4 - 1, IGNORE))
    assert target.dtype == plain.dtype


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_loss_adds_the_cross_entropy_inside_objects(encoding: Encoding, labels_yx: np.ndarray) -> None:
    terms = recipe.LossSettings()
    task, plain = Instances(encoding, object_classes=3), Instances(encoding)
    assert task.outputs == plain.outputs + 3
    logits = torch.randn(1, task.outputs, *labels_yx.shape, generator=torch.Generator().manual_seed(0))
    target = torch.from_numpy(task.encode(labels_yx, terms)[0])[None]
    inside = torch.from_numpy(labels_yx > 0)[None]
    kinds = torch.from_numpy(labels_yx % 4 - 1)[None].long()
    expected = functional.cross_entropy(logits[:, -3:].movedim(1, -1)[inside], kinds[inside])
    expected = expected + plain.loss(logits[:, :-3], target[:, 0], terms)
    torch.testing.assert_close(task.loss(logits, target, terms), expected)
    changed = logits.clone()
    changed[:, -3:] += torch.randn(changed[:, -3:].shape) * ~inside[:, None]
    torch.testing.assert_close(task.loss(changed, target, terms), expected)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_object_has_the_class_of_the_largest_sum(encoding: Encoding, labels_yx: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    task, plain = Instances(encoding, object_classes=3), Instances(encoding)
    own_kyx = rng.normal(0, 3, (plain.outputs, *labels_yx.shape)).astype(np.float32)
    kinds_kyx = rng.normal(size=(3, *labels_yx.shape)).astype(np.float32)
    logits_kyx = np.concatenate([own_kyx, kinds_kyx])
    ids_yx = task.decode(logits_kyx)
    np.testing.assert_array_equal(ids_yx, plain.decode(own_kyx))
    np.testing.assert_array_equal(task.probabilities(logits_kyx), plain.probabilities(own_kyx))
    class_yx = task.classify(ids_yx, logits_kyx)
    shares_kyx = torch.from_numpy(kinds_kyx).softmax(0).numpy()
    assert ids_yx.max() > 3
    for label in range(1, ids_yx.max() + 1):
        assert (class_yx[ids_yx == label] == shares_kyx[:, ids_yx == label].sum(axis=1).argmax() + 1).all()
    assert not class_yx[ids_yx == 0].any()
    np.testing.assert_array_equal(task.predicted(logits_kyx), with_classes(ids_yx, class_yx, 4))
    np.testing.assert_array_equal(plain.predicted(own_kyx), ids_yx)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_activations_are_undone(encoding: Encoding, sigmoid: bool) -> None:
    if sigmoid and encoding != "seam":
        return
    task = Instances(encoding, sigmoid, object_classes=2)
    logits_kyx = np.random.default_rng(2).normal(size=(task.outputs, 5, 6)).astype(np.float32)
    parts_kyx = task.activations(logits_kyx)
    again_kyx = task.activations(task.as_logits(parts_kyx))
    np.testing.assert_allclose(parts_kyx, again_kyx, atol=1e-6)
    assert task.as_logits(parts_kyx).shape == logits_kyx.shape
    np.testing.assert_allclose(parts_kyx[-2:].sum(axis=0), 1, rtol=1e-6)


def test_without_classes_nothing_can_be_classified() -> None:
    with pytest.raises(ValueError, match="no classes"):
        Instances().classify(np.zeros((1, 1), np.int32), np.zeros((2, 1, 1), np.float32))
