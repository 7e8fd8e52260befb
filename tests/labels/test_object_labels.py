"""Objects and the table of their classes, compared with loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from septa.labels.object_labels import ObjectLabels

IDS = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.sampled_from([-1, 0, 3, 9])
)


@given(IDS, st.integers(2, 9))
def test_ids_and_classes_come_back(ids_yx: np.ndarray, classes: int) -> None:
    kinds = {9: 1, 3: classes - 1}
    class_yx = np.vectorize(lambda one: kinds.get(one, 0), otypes=[int])(ids_yx)
    before_yx = ids_yx.copy()
    labels = ObjectLabels.from_class_map(ids_yx, class_yx)
    np.testing.assert_array_equal(ids_yx, before_yx)
    assert labels.class_of_id is not None
    assert labels.ids_yx.dtype == labels.class_of_id.dtype == labels.class_yx.dtype == np.int32
    np.testing.assert_array_equal(labels.class_yx, np.where(ids_yx < 0, ids_yx, class_yx))
    ids = [int(value) for value in np.unique(ids_yx) if value > 0]
    assert labels.class_of_id.tolist() == [0, *(kinds[value] for value in ids)]
    for number, value in enumerate(ids, 1):  # in the order of the ids
        np.testing.assert_array_equal(labels.ids_yx == number, ids_yx == value)
    np.testing.assert_array_equal(labels.ids_yx[ids_yx <= 0], ids_yx[ids_yx <= 0])


@given(IDS)
def test_objects_without_classes_are_of_class_1(ids_yx: np.ndarray) -> None:
    labels = ObjectLabels(ids_yx)
    assert labels.class_of_id is None
    np.testing.assert_array_equal(labels.class_yx, np.where(ids_yx > 0, 1, ids_yx))


def test_large_ids_make_no_large_table() -> None:
    labels = ObjectLabels.from_class_map(np.array([[2**31 - 1, 0, 5]]), np.array([[2, 0, 1]]))
    assert labels.ids_yx.tolist() == [[2, 0, 1]]
    assert labels.class_of_id is not None
    assert labels.class_of_id.tolist() == [0, 1, 2]


def test_a_part_keeps_the_table() -> None:
    labels = ObjectLabels.from_class_map(np.array([[4, 7, 0, 9]]), np.array([[3, 2, 0, 1]]))
    part = ObjectLabels(labels.ids_yx[:, 2:], labels.class_of_id)
    assert part.class_yx.tolist() == [[0, 1]]
