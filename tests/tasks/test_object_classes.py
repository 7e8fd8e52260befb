"""Classes of objects in the task: targets and loss inside objects, and the class of each object that is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from septa import recipe
from septa.labels.object_labels import ObjectLabels
from septa.recipe import IGNORE
from septa.tasks.instances import Encoding, Instances

ENCODINGS: tuple[Encoding, ...] = ("seam", "border", "distance")


@pytest.fixture
def labels() -> ObjectLabels:
    """Return three objects, two of them touching, with the classes 1, 2 and 2 of three, and an ignored corner."""
    ids_yx = np.zeros((12, 16), np.int32)
    ids_yx[2:9, 1:6], ids_yx[2:9, 6:11], ids_yx[10:12, 2:14] = 4, 5, 6
    class_yx = np.array([0, 0, 0, 0, 1, 2, 2])[ids_yx]
    ids_yx[:2, :3] = IGNORE
    return ObjectLabels.from_class_map(ids_yx, class_yx)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_targets_are_those_without_classes_and_the_class(encoding: Encoding, labels: ObjectLabels) -> None:
    terms = recipe.LossSettings(border_weight=5)
    plain, plain_weights = Instances(encoding).encode(labels.ids_yx, terms)
    task = Instances(encoding, object_classes=3)
    target, weights = task.encode(labels.ids_yx, terms, class_of_id=labels.class_of_id)
    np.testing.assert_array_equal(target[0], plain)
    np.testing.assert_array_equal(weights, plain_weights)
    class_yx = np.select([labels.ids_yx == 1, labels.ids_yx > 1], [0, 1], IGNORE)
    np.testing.assert_array_equal(target[1], class_yx)
    assert target.dtype == plain.dtype
    with pytest.raises(ValueError, match="no classes"):
        task.encode(labels.ids_yx, terms)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_loss_adds_the_cross_entropy_inside_objects(encoding: Encoding, labels: ObjectLabels) -> None:
    terms = recipe.LossSettings()
    task, plain = Instances(encoding, object_classes=3), Instances(encoding)
    assert task.outputs == plain.outputs + 3
    logits = torch.randn(1, task.outputs, *labels.ids_yx.shape, generator=torch.Generator().manual_seed(0))
    target = torch.from_numpy(task.encode(labels.ids_yx, terms, class_of_id=labels.class_of_id)[0])[None]
    inside = torch.from_numpy(labels.ids_yx > 0)[None]
    kinds = torch.from_numpy(labels.class_yx - 1)[None].long()
    expected = functional.cross_entropy(logits[:, -3:].movedim(1, -1)[inside], kinds[inside])
    expected = expected + plain.loss(logits[:, :-3], target[:, 0], terms)
    torch.testing.assert_close(task.loss(logits, target, terms), expected)
    changed = logits.clone()
    changed[:, -3:] += torch.randn(changed[:, -3:].shape) * ~inside[:, None]
    torch.testing.assert_close(task.loss(changed, target, terms), expected)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_object_has_the_class_of_the_largest_sum(encoding: Encoding, labels: ObjectLabels) -> None:
    rng = np.random.default_rng(1)
    task, plain = Instances(encoding, object_classes=3), Instances(encoding)
    own_kyx = rng.normal(0, 3, (plain.outputs, *labels.ids_yx.shape)).astype(np.float32)
    kinds_kyx = rng.normal(size=(3, *labels.ids_yx.shape)).astype(np.float32)
    logits_kyx = np.concatenate([own_kyx, kinds_kyx])
    ids_yx = task.decode(logits_kyx)
    np.testing.assert_array_equal(ids_yx, plain.decode(own_kyx))
    np.testing.assert_array_equal(task.probabilities(logits_kyx), plain.probabilities(own_kyx))
    class_of_id = task.classify(ids_yx, logits_kyx)
    assert class_of_id is not None
    assert class_of_id.dtype == np.int32
    assert class_of_id.shape == (ids_yx.max() + 1,)
    shares_kyx = torch.from_numpy(kinds_kyx).softmax(0).numpy()
    assert ids_yx.max() > 3
    for label in range(1, ids_yx.max() + 1):
        assert class_of_id[label] == shares_kyx[:, ids_yx == label].sum(axis=1).argmax() + 1
    assert class_of_id[0] == 0
    assert plain.classify(ids_yx, own_kyx) is None


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


def test_without_classes_nothing_is_classified() -> None:
    assert Instances().classify(np.zeros((1, 1), np.int32), np.zeros((2, 1, 1), np.float32)) is None
