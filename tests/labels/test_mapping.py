"""Label mappings: found in synthetic and real labels, compared with plain loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage

from septa.data.folder import find_pairs, read_pair_labels
from septa.errors import InputError
from septa.images.read import RawLabels
from septa.labels.mapping import IGNORE, LabelMapping, find_mapping
from septa.labels.survey import count_components, count_values
from septa.recipe import DataSettings

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/data beside the checkout is absent")


def index(array: Any, palette: Any = None) -> RawLabels:
    palette = None if palette is None else np.array(palette, np.uint8)
    return RawLabels(np.asarray(array), "index", palette)


def rgb(array: Any) -> RawLabels:
    return RawLabels(np.asarray(array, np.uint8), "rgb", None)


def planes(array: Any) -> RawLabels:
    return RawLabels(np.asarray(array, np.uint8), "channels", None)


def mapping_of(*raws: RawLabels, **settings: Any) -> LabelMapping:
    return find_mapping([(f"{k}.png", raw) for k, raw in enumerate(raws)], DataSettings(**settings))


def blocks(values: list[int], side: int = 8, dtype: Any = np.uint8) -> np.ndarray:
    """Squares of the values, side by side."""
    return np.repeat(np.repeat(np.array([values], dtype), side, 0), side, 1)


def discs(rng: np.random.Generator, values: list[int], each: int, size: int = 200) -> np.ndarray:
    """``each`` discs of every value at random places."""
    array = np.zeros((size, size), np.uint8)
    for value in values:
        for _ in range(each):
            y, x = rng.integers(0, size, 2).tolist()
            cv2.circle(array, (x, y), 9, value, -1)
    return array


def grid_objects(number: int, first: int = 1) -> np.ndarray:
    """Separate squares with the ids first, first + 1, ..."""
    array = np.zeros((100, 100), np.int32)
    for k in range(number):
        y, x = divmod(k, 10)
        array[y * 10 : y * 10 + 7, x * 10 : x * 10 + 7] = first + k
    return array


# --- what is found -------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [(0, 1), (0, 255), (1, 2), (37, 200), (0, 65535)])
def test_any_two_values_are_binary(pair: tuple[int, int]) -> None:
    mapping = mapping_of(index(blocks([*pair], dtype=np.uint16)))
    assert (mapping.kind, mapping.values, mapping.classes) == ("binary", pair, 2)
    assert mapping.class_names == ("background", "foreground")
    assert str(pair[0]) in mapping.describe()
    assert str(pair[1]) in mapping.describe()


def test_class_indices_and_sparse_values() -> None:
    assert mapping_of(index(blocks([0, 1, 2, 3]))).values == (0, 1, 2, 3)
    sparse = mapping_of(index(blocks([0, 7])), index(blocks([0, 85, 170])))
    assert (sparse.kind, sparse.values) == ("index", (0, 7, 85, 170))
    assert sparse.class_names == ("background", "class 7", "class 85", "class 170")


def test_names_of_absent_classes_extend_the_indices() -> None:
    mapping = mapping_of(index(blocks([0, 1, 3])), class_names=("a", "b", "c", "d", "e"))
    assert mapping.values == (0, 1, 2, 3, 4)


def test_a_palette_with_the_same_meaning_everywhere_is_index() -> None:
    colors = [[0, 0, 0], [255, 0, 0], [0, 255, 0]]
    mapping = mapping_of(index(blocks([0, 1, 2]), colors), index(blocks([0, 2]), colors))
    assert (mapping.kind, mapping.values) == ("index", (0, 1, 2))


def test_palettes_that_differ_are_read_by_colour() -> None:
    one = index(blocks([0, 1]), [[0, 0, 0], [255, 0, 0]])
    other = index(blocks([0, 1, 2]), [[255, 0, 0], [0, 0, 0], [0, 0, 255]])
    mapping = mapping_of(one, other)
    assert (mapping.kind, mapping.values) == ("color", ((0, 0, 0), (0, 0, 255), (255, 0, 0)))
    assert mapping.encode(one, "x")[0, [0, 8]].tolist() == [0, 2]
    assert mapping.encode(other, "x")[0, [0, 8, 16]].tolist() == [2, 0, 1]


def test_colours_put_black_first_else_the_most_frequent() -> None:
    red, black, white = [255, 0, 0], [0, 0, 0], [255, 255, 255]
    tile = np.repeat(np.repeat(np.array([[red, black, white, white]]), 8, 0), 8, 1)
    assert mapping_of(rgb(tile)).values == ((0, 0, 0), (255, 0, 0), (255, 255, 255))
    assert mapping_of(rgb(tile[:, :24]), ignore_label=0).values[0] == (255, 0, 0)
    no_black = np.where(tile == 0, 10, tile)
    mapping = mapping_of(rgb(no_black))
    assert mapping.values[0] == (255, 255, 255)
    assert "#ffffff" in mapping.describe()


def test_an_empty_grey_image_among_colours_is_black() -> None:
    colored = rgb(np.repeat(np.repeat(np.array([[[0, 0, 0], [9, 200, 7]]]), 8, 0), 8, 1))
    mapping = mapping_of(colored, index(np.zeros((5, 5), np.uint8)))
    assert mapping.encode(index(np.zeros((5, 5), np.uint8)), "x").max() == 0
    with pytest.raises(InputError, match=r"1\.png.*grey"):
        mapping_of(colored, index(blocks([0, 3])))


def test_planes_are_multilabel() -> None:
    stack = np.zeros((3, 4, 4), np.uint8)
    stack[1, 0] = stack[2, 0, 0] = 255
    mapping = mapping_of(planes(stack))
    assert (mapping.kind, mapping.classes, mapping.values) == ("multilabel", 3, ())
    assert mapping.encode(planes(stack), "x")[0].tolist() == [6, 2, 2, 2]
    with pytest.raises(InputError, match=r"1\.png: holds 2 planes for 3"):
        mapping_of(planes(stack), planes(stack[:2]))
    with pytest.raises(InputError, match="plane 2 holds 128, 255 beside 0"):
        mapping_of(planes(np.where(np.indices(stack.shape)[2] == 2, stack // 255 * 128, stack)))


def test_rgb_as_three_overlapping_classes_when_asked() -> None:
    array = np.zeros((4, 4, 3))
    array[0, :, 0] = array[:, 0, 2] = 255
    empty = index(np.zeros((4, 4), np.uint8))
    mapping = mapping_of(empty, rgb(array), encoding="multilabel", class_names=("a", "b", "c"))
    assert mapping.encode(rgb(array), "x")[:2, :2].tolist() == [[5, 1], [4, 0]]
    assert mapping.encode(empty, "x").shape == (4, 4)


# --- instances or classes ------------------------------------------------------------------------


def test_numbered_objects_are_instances() -> None:
    mapping = mapping_of(*(index(grid_objects(n)) for n in (4, 9, 17, 30, 12)))
    assert (mapping.kind, mapping.values, mapping.class_names) == ("instances", (0,), ("background", "object"))
    assert np.array_equal(mapping.encode(index(grid_objects(9)), "x"), grid_objects(9) > 0)


def test_ids_that_go_on_from_image_to_image_are_instances() -> None:
    firsts = np.cumsum([1, *[20] * 19]).tolist()
    assert mapping_of(*(index(grid_objects(20, first)) for first in firsts)).kind == "instances"
    assert mapping_of(*(index(grid_objects(20, first)) for first in firsts[:4])).kind == "instances"


@pytest.mark.parametrize("images", [1, 2, 5, 12])
@pytest.mark.parametrize("classes", [2, 6, 20])
def test_scattered_classes_are_no_instances(images: int, classes: int) -> None:
    rng = np.random.default_rng(images * 100 + classes)
    arrays = [discs(rng, list(range(1, int(rng.integers(classes // 2, classes + 1)) + 1)), 4) for _ in range(images)]
    arrays[0] = discs(rng, list(range(1, classes + 1)), 4)
    assert mapping_of(*map(index, arrays)).kind == "index"


@pytest.mark.parametrize("images", [2, 5, 12])
def test_organs_are_no_instances(images: int) -> None:
    """Classes of one component each, at their places in every image, some of them absent."""
    rng = np.random.default_rng(images)
    full = grid_objects(6)
    arrays = [np.where(np.isin(full, np.flatnonzero(rng.random(7) < 0.8)), full, 0) for _ in range(images)]
    assert mapping_of(index(full), *map(index, arrays)).kind == "index"


def test_settings_go_before_what_is_found() -> None:
    arrays = [index(grid_objects(n)) for n in (4, 9, 17, 30, 12)]
    assert mapping_of(*arrays, encoding="index").classes == 31
    with pytest.raises(InputError, match="encoding=instances"):
        mapping_of(*arrays, encoding="binary")
    assert mapping_of(index(blocks([0, 1, 2])), encoding="instances").kind == "instances"
    assert mapping_of(index(blocks([0, 255])), values=(255, 0)).encode(index(blocks([0, 255])), "x")[0, 0] == 1


def test_more_than_254_scattered_values_are_refused() -> None:
    rng = np.random.default_rng(0)
    array = np.kron(rng.permutation(np.repeat(np.arange(300), 3)).reshape(30, 30), np.ones((4, 4), int))
    with pytest.raises(InputError, match=r"0\.png.*300 label values.*254.*encoding=instances"):
        mapping_of(index(array))


# --- ignore --------------------------------------------------------------------------------------


def test_the_ignore_value_is_no_class() -> None:
    raw = index(blocks([0, 1, 255]))
    mapping = mapping_of(raw, ignore_label=255)
    assert (mapping.kind, mapping.values, mapping.ignore) == ("binary", (0, 1), 255)
    assert mapping.encode(raw, "x")[0, ::8].tolist() == [0, 1, IGNORE]
    assert "255 is ignored" in mapping.describe()


def test_an_undeclared_255_is_refused() -> None:
    with pytest.raises(InputError, match="ignore_label=255"):
        mapping_of(index(blocks([0, 1, 2, 255])))
    assert mapping_of(index(blocks([0, 1, 255])), values=(0, 1, 255)).classes == 3


def test_negative_values_are_refused_unless_ignored() -> None:
    raw = index(blocks([-1, 0, 1], dtype=np.int16))
    with pytest.raises(InputError, match="ignore_label=-1"):
        mapping_of(raw)
    assert mapping_of(raw, ignore_label=-1).encode(raw, "x")[0, ::8].tolist() == [-1, 0, 1]


def test_ignored_colours_and_ids() -> None:
    white = rgb(np.repeat(np.repeat(np.array([[[0, 0, 0], [255, 0, 0], [255, 255, 255]]]), 4, 0), 4, 1))
    mapping = mapping_of(white, ignore_label=0xFFFFFF)
    assert mapping.encode(white, "x")[0, ::4].tolist() == [0, 1, IGNORE]
    ids = np.where(grid_objects(9) == 4, 255, grid_objects(9))
    assert np.unique(
        mapping_of(index(ids), encoding="instances", ignore_label=255).encode(index(ids), "x")
    ).tolist() == [
        IGNORE,
        0,
        1,
    ]


# --- what is refused -----------------------------------------------------------------------------


def mask(seed: int = 0) -> np.ndarray:
    return (discs(np.random.default_rng(seed), [255], 12, 256)).astype(np.uint8)


@pytest.mark.parametrize("quality", [30, 75, 90, 98, 100])
def test_jpeg_marks_are_refused(quality: int) -> None:
    spoiled = cv2.imdecode(cv2.imencode(".jpg", mask(), [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0)
    with pytest.raises(InputError, match=r"1\.png: \d+ rare values .* JPEG"):
        mapping_of(index(mask()), index(spoiled))


@pytest.mark.parametrize("factor", [0.5, 0.77, 1.3, 2])
@pytest.mark.parametrize("method", [cv2.INTER_LINEAR, cv2.INTER_CUBIC])
def test_resized_masks_are_refused(factor: float, method: int) -> None:
    spoiled = cv2.resize(mask(), None, fx=factor, fy=factor, interpolation=method)
    with pytest.raises(InputError, match=r"rare values.*resizing"):
        mapping_of(index(spoiled))
    with pytest.raises(InputError, match=r"rare values.*resizing"):
        mapping_of(index(spoiled), values=(0, 255))


def test_smoothed_colours_are_refused() -> None:
    colored = np.stack([mask(1), mask(2), np.zeros_like(mask())], 2)
    assert mapping_of(rgb(colored)).kind == "color"
    with pytest.raises(InputError, match="rare values"):
        mapping_of(rgb(cv2.GaussianBlur(colored, (3, 3), 1)))


def test_a_photograph_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    with pytest.raises(InputError, match="rare values"):
        mapping_of(index(noise))
    colors = np.random.default_rng(0).integers(0, 256, (99, 99, 3))
    with pytest.raises(InputError, match="no label image"):
        mapping_of(rgb(colors))


def test_thin_classes_are_no_marks() -> None:
    outlined = mask()
    outlined[(outlined == 255) & (cv2.erode(outlined, np.ones((3, 3))) == 0)] = 128
    assert mapping_of(index(outlined)).values == (0, 128, 255)
    lines = np.zeros((60, 60), np.uint8)
    for value in range(1, 6):
        lines[value * 10] = value
    assert mapping_of(index(lines)).values == (0, 1, 2, 3, 4, 5)


def test_a_slip_of_the_brush_is_named() -> None:
    slip = mask()
    slip[3, 4:6] = 200
    clean = [index(mask(k)) for k in range(1, 4)]
    with pytest.raises(InputError, match=r"2\.png: label 200 covers 2 of"):
        mapping_of(*clean[:2], index(slip), clean[2])
    with pytest.raises(InputError, match=r"2\.png: 2 pixels hold 200"):
        mapping_of(*clean[:2], index(slip), values=(0, 255))


def test_kinds_that_do_not_mix() -> None:
    stack = planes(np.zeros((2, 4, 4)))
    with pytest.raises(InputError, match=r"1\.png: holds 1 planes for 2"):
        mapping_of(stack, index(blocks([0, 1])), encoding="multilabel")
    with pytest.raises(InputError, match=r"1\.png: holds RGB colours, where index"):
        mapping_of(index(blocks([0, 1, 2])), rgb(np.zeros((4, 4, 3))), encoding="index")
    with pytest.raises(InputError, match=r"1\.png: holds several planes, where color"):
        mapping_of(rgb(np.zeros((4, 4, 3))), stack, encoding="color")
    with pytest.raises(InputError, match=r"beyond 0\.\.255"):
        mapping_of(index(blocks([0, 300], dtype=np.uint16)), encoding="color")


def test_labels_without_anything_to_learn() -> None:
    with pytest.raises(InputError, match="no label image"):
        find_mapping([], DataSettings())
    with pytest.raises(InputError, match="only the value 0"):
        mapping_of(index(np.zeros((5, 5), np.uint8)))
    with pytest.raises(InputError, match="all pixels are ignored"):
        mapping_of(index(np.zeros((5, 5), np.uint8)), ignore_label=0)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"class_names": ("a", "b", "c")}, "3 names for 2"),
        ({"class_names": ("a", "a")}, "different"),
        ({"values": (0, (1, 2, 3))}, "does not suit"),
        ({"values": (0, 255), "ignore_label": 255}, "same value"),
        ({"values": (0, 255, 7), "encoding": "binary"}, "binary"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        mapping_of(index(blocks([0, 255])), **settings)


def test_encode_refuses_what_the_mapping_lacks() -> None:
    mapping = mapping_of(index(blocks([0, 255])))
    for stray in (blocks([0, 7]), blocks([0, -7], dtype=np.int32), blocks([0, 70000], dtype=np.int32)):
        with pytest.raises(InputError, match=rf"late\.png: holds {stray[0, 8]}, and the classes are 0, 255"):
            mapping.encode(index(stray), "late.png")
    with pytest.raises(InputError, match=r"late\.png: holds RGB"):
        mapping.encode(rgb(np.zeros((4, 4, 3))), "late.png")
    with pytest.raises(InputError, match="negative id -7"):
        mapping_of(index(grid_objects(9))).encode(index(blocks([0, -7], dtype=np.int32)), "late.png")


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
    for wrong in ([[0, IGNORE]], [[0, 2]], [[0, -2]]):
        with pytest.raises(ValueError, match=r"ignore|classes"):
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


# --- objects -------------------------------------------------------------------------------------

INSTANCES = LabelMapping("instances", ("background", "object"), (0,))


def same_partition(first_yx: np.ndarray, second_yx: np.ndarray) -> bool:
    """Whether two arrays name the same regions, by whatever values."""
    pairs = set(zip(first_yx.ravel().tolist(), second_yx.ravel().tolist()))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize("ignore", [None, 9])
def test_stored_ids_are_kept_whatever_their_gaps_and_parts(dtype: Any, ignore: int | None) -> None:
    array = np.array([[0, 3, 3, 0], [9, 0, 200, 3], [200, 0, 0, 1]], dtype)
    before = array.copy()
    objects_yx = LabelMapping("instances", ("background", "object"), (0,), ignore).objects(index(array), "x").ids_yx
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
def test_ids_beyond_int32_are_numbered_anew(dtype: Any, ids: list[int], ignore: bool, seed: int) -> None:
    ids = [value % (int(np.iinfo(dtype).max) + 1) for value in ids]
    array = np.random.default_rng(seed).choice(np.array([0, *ids], dtype), (6, 7))
    left_out = ids[0] if ignore and ids[0] else None
    mapping = LabelMapping("instances", ("background", "object"), (0,), left_out)
    objects_yx = mapping.objects(index(array), "x").ids_yx
    assert objects_yx.dtype == np.int32
    assert same_partition(objects_yx, array)
    assert np.array_equal(objects_yx == 0, array == 0)
    assert np.array_equal(objects_yx == IGNORE, array == left_out if left_out else np.zeros(array.shape, bool))
    assert objects_yx[objects_yx != IGNORE].min(initial=0) == 0
    if array.max() < 2**31 and left_out is None:
        assert np.array_equal(objects_yx, array)


def test_the_largest_id_of_int32_is_kept_and_the_next_is_not() -> None:
    top = 2**31 - 1
    assert INSTANCES.objects(index(np.array([[0, top, 5]])), "x").ids_yx.tolist() == [[0, top, 5]]
    high, low, other = INSTANCES.objects(index(np.array([[top + 1, 0, 5]])), "x").ids_yx[0].tolist()
    assert low == 0
    assert high != other
    assert min(high, other) > 0


@given(
    npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([7, 50, 9]))
)
def test_of_binary_labels_regions_are_the_objects(array: np.ndarray) -> None:
    mapping = LabelMapping("binary", ("background", "foreground"), (7, 50), 9)
    before = array.copy()
    objects_yx = mapping.objects(index(array), "x").ids_yx
    expected_yx, count = ndimage.label(array == 50)
    assert objects_yx.dtype == np.int32
    assert np.array_equal(objects_yx == IGNORE, array == 9)
    assert same_partition(np.where(array == 9, 0, objects_yx), expected_yx)
    assert objects_yx.max(initial=0) == count
    assert np.array_equal(array, before)


def test_regions_of_different_classes_are_different_objects() -> None:
    array = np.array([[0, 1, 2, 2], [1, 0, 2, 0]])
    mapping = LabelMapping("index", ("background", "a", "b"), (0, 1, 2))
    assert same_partition(mapping.objects(index(array), "x").ids_yx, np.array([[0, 1, 3, 3], [2, 0, 3, 0]]))
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    painted = LabelMapping("color", ("background", "a", "b"), ((0, 0, 0), (255, 0, 0), (0, 255, 0)))
    assert np.array_equal(painted.objects(rgb(colors[array]), "x").ids_yx, mapping.objects(index(array), "x").ids_yx)


def test_what_holds_no_objects_is_refused() -> None:
    two = LabelMapping("multilabel", ("a", "b"), ())
    with pytest.raises(InputError, match=r"late\.png: has one plane for each class.*task=semantic"):
        two.objects(planes(np.zeros((2, 4, 4))), "late.png")
    with pytest.raises(InputError, match=r"late\.png: holds the negative id -7"):
        INSTANCES.objects(index(np.array([[0, -7]])), "late.png")
    with pytest.raises(InputError, match=r"late\.png: holds RGB"):
        INSTANCES.objects(rgb(np.zeros((4, 4, 3))), "late.png")
    with pytest.raises(InputError, match=r"late\.png: holds 3"):
        LabelMapping("binary", ("a", "b"), (0, 1)).objects(index(np.array([[0, 3]])), "late.png")
    below = LabelMapping("instances", ("background", "object"), (0,), -7)
    assert below.objects(index(np.array([[0, -7, 4]])), "x").ids_yx.tolist() == [[0, IGNORE, 4]]


# --- counting ------------------------------------------------------------------------------------


@given(npst.arrays(np.int16, npst.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-1, 1)))
def test_counts_equal_plain_loops(array: np.ndarray) -> None:
    expected: dict[int, list[int]] = {}
    for y, x in np.ndindex(array.shape):
        count = expected.setdefault(int(array[y, x]), [0, 0])
        square = array[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        count[0] += 1
        count[1] += square.shape == (3, 3) and bool((square == array[y, x]).all())
    values, pixels, solid = count_values(array)
    assert {v: [p, s] for v, p, s in zip(values.tolist(), pixels.tolist(), solid.tolist())} == expected


def test_counts_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    array = mask()
    whole = [column.tolist() for column in count_values(array)]
    monkeypatch.setattr("septa.labels.survey._BLOCK", 1000)
    assert [column.tolist() for column in count_values(array)] == whole


def test_components_of_equal_value_count_apart_from_touching_ones() -> None:
    array = np.array([[1, 1, 2, 0], [0, 0, 2, 1], [5, 0, 0, 0], [0, 5, 0, 1]])
    assert count_components(array) == {1: 3, 2: 1, 5: 1}


# --- real labels ---------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [("isbi2012", "binary", (0, 255)), ("glas", "instances", (0,)), ("dsb2018", "instances", (0,))],
)
def test_real_labels(name: str, kind: str, values: tuple[int, ...]) -> None:
    pairs = find_pairs(SHARED / name).pairs
    mapping = find_mapping(((str(pair.labels), read_pair_labels(pair)) for pair in pairs), DataSettings())
    assert (mapping.kind, mapping.values, mapping.classes) == (kind, values, 2)
    raw = read_pair_labels(pairs[0])
    assert np.array_equal(mapping.encode(raw, "x"), raw.array > 0)


@needs_data
def test_a_few_real_images_are_enough() -> None:
    pairs = find_pairs(SHARED / "dsb2018").pairs
    for start in range(0, 60, 6):
        some = [(pair.name, read_pair_labels(pair)) for pair in pairs[start : start + 6]]
        assert find_mapping(some, DataSettings()).kind == "instances"


# --- good labels that resemble spoiled ones ---------------------------------------------------------------------------


def _lines(values: list[int], step: int = 24) -> np.ndarray:
    """Lines one pixel wide, one value each, on 0."""
    array = np.zeros((200, 200), np.uint8)
    for index, value in enumerate(values):
        array[10 + step * index, 10:190] = value
    return array


def test_thin_classes_beside_255_are_told_of_the_ignore_label() -> None:
    array = _lines([1, 2])
    array[150:, 150:] = 255
    with pytest.raises(InputError, match=r"data\.ignore_label=255"):
        find_mapping([("a", RawLabels(array, "index", None))], DataSettings())
    mapping = find_mapping([("a", RawLabels(array, "index", None))], DataSettings(ignore_label=255))
    assert mapping.values == (0, 1, 2)


def test_thin_classes_with_a_missing_index_are_classes() -> None:
    mapping = find_mapping([("a", RawLabels(_lines([1, 2, 5]), "index", None))], DataSettings())
    assert mapping.values == (0, 1, 2, 5)


def test_thin_colours_are_classes_and_mixtures_are_not() -> None:
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
    picture = colors[_lines([1, 2, 3, 4])]
    mapping = find_mapping([("a", RawLabels(picture, "rgb", None))], DataSettings())
    assert len(mapping.values) == 5
    square = np.zeros((200, 200, 3), np.uint8)
    square[50:150, 50:150] = (200, 0, 0)
    for step in range(1, 10):  # the soft rim of a resized mask
        square[50 - step, 50:150] = (200 - 20 * step, 0, 0)
    with pytest.raises(InputError, match="resizing, smoothing or JPEG"):
        find_mapping([("a", RawLabels(square, "rgb", None))], DataSettings())


def test_two_crops_of_one_labelled_slide_hold_instances() -> None:
    array = np.zeros((2, 160, 160), np.int32)
    for index in range(120):
        crop, place = divmod(index, 60)
        y, x = divmod(place, 10)
        array[crop, 4 + 16 * y : 12 + 16 * y, 4 + 15 * x : 12 + 15 * x] = index + 1
    mapping = find_mapping([(str(i), RawLabels(plane, "index", None)) for i, plane in enumerate(array)], DataSettings())
    assert mapping.kind == "instances"
