"""Label mappings: raw values to classes and objects and back, compared with plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage

from septa.errors import InputError
from septa.images.read import RawLabels
from septa.labels.mapping import LabelMapping
from septa.recipe import IGNORE


def index(array: Any, palette: Any = None) -> RawLabels:
    palette = None if palette is None else np.array(palette, np.uint8)
    return RawLabels(np.asarray(array), "index", palette)


def rgb(array: Any) -> RawLabels:
    return RawLabels(np.asarray(array, np.uint8), "rgb", None)


def planes(array: Any) -> RawLabels:
    return RawLabels(np.asarray(array, np.uint8), "channels", None)


# --- round trips ---------------------------------------------------------------------------------

raw_values = st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(0, 255), min_size=3, max_size=9, unique=True)
shapes = npst.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7)


@given(values=raw_values, shape=shapes, seed=st.integers(0, 99))
def test_index_round_trip(values: list[int], shape: tuple[int, int], seed: int) -> None:
    *classes, ignore = values
    mapping = LabelMapping("index", tuple(map(str, classes)), tuple(classes), ignore)
    array = np.random.default_rng(seed).choice(np.array(values), shape)
    before = array.copy()
    labels_yx = mapping.encode(index(array), "x")
    oracle = [[IGNORE if v == ignore else classes.index(v) for v in row] for row in array.tolist()]
    assert labels_yx.dtype == np.int32
    assert labels_yx.tolist() == oracle
    assert np.array_equal(mapping.decode(labels_yx), before)
    assert np.array_equal(array, before)
    assert LabelMapping.from_json(mapping.to_json()) == mapping


@given(shape=shapes, classes=st.integers(1, 31), ignore=st.sampled_from([None, 7, 255]), seed=st.integers(0, 99))
def test_multilabel_round_trip(shape: tuple[int, int], classes: int, ignore: int | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stack = rng.integers(0, 2, (classes, *shape)).astype(np.uint8)
    if ignore is not None:
        stack[:, rng.random(shape) < 0.2] = ignore
    mapping = LabelMapping("multilabel", tuple(f"c{k}" for k in range(classes)), (), ignore)
    labels_yx = mapping.encode(planes(stack), "x")
    for place in np.ndindex(shape):
        pixel = stack[(slice(None), *place)].tolist()
        assert labels_yx[place] == (IGNORE if ignore in pixel else sum(v << k for k, v in enumerate(pixel)))
    assert np.array_equal(mapping.decode(labels_yx), stack)
    assert LabelMapping.from_json(mapping.to_json()) == mapping


@given(
    colors=st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=2, max_size=9, unique=True),
    shape=shapes,
    seed=st.integers(0, 99),
)
def test_color_round_trip(colors: list[tuple[int, int, int]], shape: tuple[int, int], seed: int) -> None:
    mapping = LabelMapping("color", tuple(map(str, colors)), tuple(colors))
    classes = np.random.default_rng(seed).integers(0, len(colors), shape)
    painted = rgb(np.array(colors)[classes])
    assert np.array_equal(mapping.encode(painted, "x"), classes)
    indexed = index(classes.astype(np.uint8), colors)
    assert np.array_equal(mapping.encode(indexed, "x"), classes)
    assert np.array_equal(mapping.decode(classes.astype(np.int32)), classes)
    assert LabelMapping.from_json(mapping.to_json()) == mapping


def test_decode_writes_the_raw_values_in_the_smallest_type() -> None:
    labels_yx = np.array([[0, 1, IGNORE]], np.int32)
    for values, ignore, dtype in [((0, 255), 7, "uint8"), ((0, 256), 7, "uint16"), ((0, 255), -1, "int16")]:
        decoded = LabelMapping("binary", ("a", "b"), values, ignore).decode(labels_yx)
        assert (decoded.tolist(), decoded.dtype) == ([[*values, ignore]], np.dtype(dtype))
    instances = LabelMapping("instances", ("background", "object"), (0,), 255)
    assert instances.decode(np.array([[0, 300, IGNORE]], np.int32)).tolist() == [[0, 300, 255]]
    for wrong, problem in (
        ([[0, IGNORE]], "ignored pixels, but the mapping has no ignore value"),
        ([[0, 2]], "the labels go from 0 to 2, expected 0 to 1"),
        ([[0, -2]], "the labels go from -2 to 0, expected 0 to 1"),
    ):
        with pytest.raises(ValueError, match=problem):
            LabelMapping("binary", ("a", "b"), (0, 255)).decode(np.array(wrong, np.int32))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "pickle"},
        {"kind": ["index"]},
        {"class_names": "ab"},
        {"class_names": ["a", 3]},
        {"class_names": ["a"]},
        {"values": [0, 0]},
        {"values": [0, 1.5]},
        {"values": [0, [1, 2, 3]]},
        {"values": 3},
        {"ignore": "x"},
        {"ignore": 0},
    ],
)
def test_from_json_refuses_what_does_not_fit(change: dict[str, Any]) -> None:
    good = {"kind": "binary", "class_names": ["a", "b"], "values": [0, 1], "ignore": None}
    assert LabelMapping.from_json(good).classes == 2
    with pytest.raises(ValueError, match="label mapping"):
        LabelMapping.from_json(good | change)
    with pytest.raises(ValueError, match="label mapping"):
        LabelMapping.from_json({key: value for key, value in good.items() if key not in change})


@pytest.mark.parametrize("ignore", [0, 1])
def test_a_plane_of_a_class_has_no_ignore_value_among_its_own(ignore: int) -> None:
    good = {"kind": "multilabel", "class_names": ["a", "b"], "values": [], "ignore": 2}
    assert LabelMapping.from_json(good).classes == 2
    with pytest.raises(ValueError, match="label mapping"):
        LabelMapping.from_json(good | {"ignore": ignore})


# --- objects -------------------------------------------------------------------------------------

INSTANCES = LabelMapping("instances", ("background", "object"), (0,))


def same_partition(first_yx: np.ndarray, second_yx: np.ndarray) -> bool:
    """Return True if two arrays hold the same regions, whatever their values are."""
    pairs = set(zip(first_yx.ravel().tolist(), second_yx.ravel().tolist()))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize("ignore", [None, 9])
def test_stored_ids_are_kept_whatever_their_gaps_and_parts(dtype: Any, ignore: int | None) -> None:
    array = np.array([[0, 3, 3, 0], [9, 0, 200, 3], [200, 0, 0, 1]], dtype)
    before = array.copy()
    objects_yx = (
        LabelMapping("instances", ("background", "object"), (0,), ignore).encode_objects(index(array), "x").ids_yx
    )
    assert objects_yx.dtype == np.int32
    expected = np.where(array == 9, IGNORE, array.astype(np.int64)) if ignore else array
    assert objects_yx.tolist() == expected.tolist()
    assert np.array_equal(array, before)


@given(
    dtype=st.sampled_from([np.uint32, np.int64, np.uint64]),
    ids=st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 2**31 + 5), min_size=1, max_size=9),
    ignore=st.booleans(),
    seed=st.integers(0, 99),
)
def test_ids_beyond_int32_are_renumbered(dtype: Any, ids: list[int], ignore: bool, seed: int) -> None:
    ids = [value % (int(np.iinfo(dtype).max) + 1) for value in ids]
    array = np.random.default_rng(seed).choice(np.array([0, *ids], dtype), (6, 7))
    left_out = ids[0] if ignore and ids[0] else None
    mapping = LabelMapping("instances", ("background", "object"), (0,), left_out)
    objects_yx = mapping.encode_objects(index(array), "x").ids_yx
    assert objects_yx.dtype == np.int32
    assert same_partition(objects_yx, array)
    assert np.array_equal(objects_yx == 0, array == 0)
    assert np.array_equal(objects_yx == IGNORE, array == left_out if left_out else np.zeros(array.shape, bool))
    assert objects_yx[objects_yx != IGNORE].min(initial=0) == 0
    if array.max() < 2**31 and left_out is None:
        assert np.array_equal(objects_yx, array)


def test_the_largest_id_of_int32_is_kept_and_the_next_is_not() -> None:
    top = 2**31 - 1
    assert INSTANCES.encode_objects(index(np.array([[0, top, 5]])), "x").ids_yx.tolist() == [[0, top, 5]]
    high, low, other = INSTANCES.encode_objects(index(np.array([[top + 1, 0, 5]])), "x").ids_yx[0].tolist()
    assert low == 0
    assert high != other
    assert min(high, other) > 0


@given(
    npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([7, 50, 9]))
)
def test_regions_of_binary_labels_are_the_objects(array: np.ndarray) -> None:
    mapping = LabelMapping("binary", ("background", "foreground"), (7, 50), 9)
    before = array.copy()
    objects_yx = mapping.encode_objects(index(array), "x").ids_yx
    expected_yx, count = ndimage.label(array == 50)
    assert objects_yx.dtype == np.int32
    assert np.array_equal(objects_yx == IGNORE, array == 9)
    assert same_partition(np.where(array == 9, 0, objects_yx), expected_yx)
    assert objects_yx.max(initial=0) == count
    assert np.array_equal(array, before)


def test_regions_of_different_classes_are_different_objects() -> None:
    array = np.array([[0, 1, 2, 2], [1, 0, 2, 0]])
    mapping = LabelMapping("index", ("background", "a", "b"), (0, 1, 2))
    assert same_partition(mapping.encode_objects(index(array), "x").ids_yx, np.array([[0, 1, 3, 3], [2, 0, 3, 0]]))
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    painted = LabelMapping("color", ("background", "a", "b"), ((0, 0, 0), (255, 0, 0), (0, 255, 0)))
    assert np.array_equal(
        painted.encode_objects(rgb(colors[array]), "x").ids_yx, mapping.encode_objects(index(array), "x").ids_yx
    )


def test_a_description_names_the_classes_of_instances() -> None:
    for background, line in (
        (0, "labels: instance ids, 0 is glass and every other id is one cell"),
        ((255, 255, 255), "labels: #ffffff is glass and every connected region of another colour is one cell"),
    ):
        assert LabelMapping("instances", ("glass", "cell"), (background,)).describe() == line


def test_labels_without_objects_are_refused() -> None:
    two = LabelMapping("multilabel", ("a", "b"), ())
    with pytest.raises(InputError, match=r"late\.png: the label image has one plane per class.*task=semantic"):
        two.encode_objects(planes(np.zeros((2, 4, 4))), "late.png")
    with pytest.raises(InputError, match=r"late\.png: the label image holds the negative id -7"):
        INSTANCES.encode_objects(index(np.array([[0, -7]])), "late.png")
    with pytest.raises(InputError, match=r"late\.png: the label image holds RGB"):
        LabelMapping("index", ("a", "b"), (0, 1)).encode_objects(rgb(np.zeros((4, 4, 3))), "late.png")
    with pytest.raises(InputError, match=r"late\.png: the label image holds 3, expected only 0, 1"):
        LabelMapping("binary", ("a", "b"), (0, 1)).encode_objects(index(np.array([[0, 3]])), "late.png")
    below = LabelMapping("instances", ("background", "object"), (0,), -7)
    assert below.encode_objects(index(np.array([[0, -7, 4]])), "x").ids_yx.tolist() == [[0, IGNORE, 4]]
