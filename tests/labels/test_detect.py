"""Inference of label mappings from synthetic and real labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from septa.data.folder import find_pairs, read_pair_labels
from septa.errors import InputError
from septa.images import RawLabels, apply_threshold
from septa.labels.detect import find_mapping
from septa.labels.mapping import LabelMapping
from septa.notices import Notices
from septa.recipe import IGNORE, DataSettings

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
    """Draw a square of each value, side by side."""
    return np.repeat(np.repeat(np.array([values], dtype), side, 0), side, 1)


def discs(rng: np.random.Generator, values: list[int], each: int, size: int = 200) -> np.ndarray:
    """Draw ``each`` discs of every value at random places."""
    array = np.zeros((size, size), np.uint8)
    for value in values:
        for _ in range(each):
            y, x = rng.integers(0, size, 2).tolist()
            cv2.circle(array, (x, y), 9, value, -1)
    return array


def grid_objects(number: int, first: int = 1) -> np.ndarray:
    """Draw separate squares with the ids first, first + 1, ..."""
    array = np.zeros((100, 100), np.int32)
    for k in range(number):
        y, x = divmod(k, 10)
        array[y * 10 : y * 10 + 7, x * 10 : x * 10 + 7] = first + k
    return array


# --- kinds of labels -------------------------------------------------------------------------------


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
    with pytest.raises(InputError, match=r"1\.png: the number of planes is 2, expected 3"):
        mapping_of(planes(stack), planes(stack[:2]))
    with pytest.raises(InputError, match="plane 2 holds 128, 255 in addition to 0"):
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
def test_scattered_classes_are_not_instances(images: int, classes: int) -> None:
    rng = np.random.default_rng(images * 100 + classes)
    arrays = [discs(rng, list(range(1, int(rng.integers(classes // 2, classes + 1)) + 1)), 4) for _ in range(images)]
    arrays[0] = discs(rng, list(range(1, classes + 1)), 4)
    assert mapping_of(*map(index, arrays)).kind == "index"


@pytest.mark.parametrize("images", [2, 5, 12])
def test_organs_are_not_instances(images: int) -> None:
    """Each class is one component at its place in every image, and some are absent."""
    rng = np.random.default_rng(images)
    full = grid_objects(6)
    arrays = [np.where(np.isin(full, np.flatnonzero(rng.random(7) < 0.8)), full, 0) for _ in range(images)]
    assert mapping_of(index(full), *map(index, arrays)).kind == "index"


def test_settings_take_precedence() -> None:
    arrays = [index(grid_objects(n)) for n in (4, 9, 17, 30, 12)]
    assert mapping_of(*arrays, encoding="index").classes == 31
    with pytest.raises(InputError, match=r"but binary labels have two \(also in 4 more files\)\. Set data\.encoding"):
        mapping_of(*arrays, encoding="binary")
    assert mapping_of(index(blocks([0, 1, 2])), encoding="instances").kind == "instances"
    assert mapping_of(index(blocks([0, 255])), values=(255, 0)).encode(index(blocks([0, 255])), "x")[0, 0] == 1


def test_more_than_254_scattered_values_are_refused() -> None:
    rng = np.random.default_rng(0)
    array = np.kron(rng.permutation(np.repeat(np.arange(300), 3)).reshape(30, 30), np.ones((4, 4), int))
    with pytest.raises(InputError, match=r"0\.png.*300 different values.*254 classes.*encoding=instances"):
        mapping_of(index(array))


# --- ignore --------------------------------------------------------------------------------------


def test_the_ignore_value_is_not_a_class() -> None:
    raw = index(blocks([0, 1, 255]))
    mapping = mapping_of(raw, ignore_label=255)
    assert (mapping.kind, mapping.values, mapping.ignore) == ("binary", (0, 1), 255)
    assert mapping.encode(raw, "x")[0, ::8].tolist() == [0, 1, IGNORE]
    assert "255 is ignored" in mapping.describe()


@pytest.mark.parametrize("void", [254, 255])
def test_an_undeclared_254_is_refused_as_well(void: int) -> None:
    raw = index(blocks([0, 1, 2, void]))
    with pytest.raises(InputError, match=f"ignore_label={void}"):
        mapping_of(raw)
    assert mapping_of(raw, ignore_label=void).values == (0, 1, 2)


def test_two_images_of_three_objects_are_a_warning() -> None:
    notices = Notices()
    raws = [(f"{seed}.png", index(np.roll(grid_objects(3), 31 * seed, (0, 1)))) for seed in range(2)]
    find_mapping(raws, DataSettings(), notices=notices)
    assert any("data.encoding=instances" in line for line in notices.lines())


def test_255_in_every_image_is_a_question_among_gapped_object_numbers() -> None:
    raws = []
    for seed in range(8):
        ids = np.sort(np.random.default_rng(seed).choice(np.arange(1, 255), 9, replace=False))
        array = np.concatenate([[0], ids])[grid_objects(9)]
        array[:2] = 255
        raws.append((f"{seed}.png", index(array)))
    with pytest.raises(InputError, match=r"255 occurs .* object numbers .*data\.ignore_label=255"):
        find_mapping(raws, DataSettings())
    assert find_mapping(raws, DataSettings(ignore_label=255)).kind == "instances"


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


# --- masks of different values, void and background ---------------------------------------------


def found(*raws: RawLabels, **settings: Any) -> tuple[LabelMapping, list[str]]:
    notices = Notices()
    mapping = find_mapping([(f"{k}.png", raw) for k, raw in enumerate(raws)], DataSettings(**settings), notices=notices)
    return mapping, notices.lines()


def masks(*values: int) -> list[RawLabels]:
    rng = np.random.default_rng(0)
    return [index(discs(rng, [1], 6).astype(np.uint16) * value) for value in values]


@pytest.mark.parametrize("other", [255, 65535])
def test_masks_of_0_and_1_mix_with_others(other: int) -> None:
    raws = [*masks(1, other, other), index(np.zeros((200, 200), np.uint8))]
    mapping, lines = found(*raws)
    assert (mapping.kind, mapping.values) == ("binary", (0, other))
    for raw in raws:
        assert np.array_equal(mapping.encode(raw, "x"), raw.array > 0)
    text = f"some masks hold 0 and 1 (1 file), others 0 and {other} (2 files), and septa reads both as foreground"
    remedy = f"Set data.values=[0,1,{other}] if these are classes, or data.ignore_label if one marks pixels to ignore"
    assert lines == [f"note: labels: {text}. {remedy}."]
    classes, lines = found(*raws, values=(0, 1, other))
    assert (classes.kind, classes.classes, lines) == ("index", 3, [])
    assert classes.encode(raws[1], "x").max() == 2
    ignoring, lines = found(*raws, ignore_label=other)
    assert (ignoring.values, lines) == ((0, 1), [])
    assert ignoring.encode(raws[1], "x").min() == IGNORE
    for settings in ({"values": (0, 1)}, {"encoding": "binary"}, {"class_names": ("membrane", "cell")}):
        assert np.array_equal(found(*raws, **settings)[0].encode(raws[0], "x"), raws[0].array > 0)
        assert np.array_equal(found(*raws, **settings)[0].encode(raws[1], "x"), raws[1].array > 0)


def test_masks_under_a_palette_mix_if_their_foreground_is_bright() -> None:
    plain, other = masks(1, 255)
    bright = index(plain.array, [[0, 0, 0], [255, 255, 255]])
    assert found(bright, other)[0].kind == "binary"
    with pytest.raises(InputError, match=r"data\.ignore_label=255"):
        found(index(plain.array, [[255, 255, 255], [0, 0, 0]]), other)


def test_three_values_in_one_file_are_no_masks() -> None:
    with pytest.raises(InputError, match=r"data\.ignore_label=255"):
        found(*masks(1, 255), index(blocks([0, 1, 255])))


def test_classes_that_never_meet_are_classes() -> None:
    mapping, lines = found(*masks(1, 2, 1))
    assert (mapping.kind, mapping.values, lines) == ("index", (0, 1, 2), [])


@pytest.mark.parametrize("values", [[0, 1, 3, 255], [0, 2, 255], [0, 1, 2, 5, 11, 255], [0, 1, 65535]])
def test_a_value_far_above_the_classes_is_a_question_with_two_answers(values: list[int]) -> None:
    raw, top = index(blocks(values, dtype=np.uint16)), values[-1]
    with pytest.raises(
        InputError, match=rf"indices 0 to {values[-2]}\. Set data\.ignore_label={top} .* in data\.values"
    ):
        found(raw)
    ignoring, lines = found(raw, ignore_label=top)
    assert (ignoring.values, ignoring.ignore, lines) == (tuple(values[:-1]), top, [])
    counting, lines = found(raw, values=tuple(values))
    assert (counting.values, lines) == (tuple(values), [])


@pytest.mark.parametrize("values", [[0, 85, 170, 255], [0, 128, 255], [0, 64, 255]])
def test_grey_levels_are_classes(values: list[int]) -> None:
    mapping, lines = found(index(blocks(values)))
    assert (mapping.values, lines) == (tuple(values), [])


@pytest.mark.parametrize("count", [2, 3])
def test_classes_that_start_at_1_are_a_question_with_two_answers(count: int) -> None:
    values = list(range(1, count + 1))
    raw = index(discs(np.random.default_rng(0), values[1:], 9) + (discs(np.random.default_rng(0), values[1:], 9) == 0))
    mapping, (line,) = found(raw)
    assert mapping.values == tuple(values)
    shown = ",".join(map(str, values))
    assert line == (
        "warning: labels: no label image holds 0, and septa takes 1 as background. Set "
        f"data.values=[0,{shown}] if 0 is the background, or data.values=[{shown}] to confirm this."
    )
    with_zero, lines = found(raw, values=(0, *values))
    assert (with_zero.class_names[:2], lines) == (("background", "class 1"), [])
    assert found(raw, values=tuple(values)) == (mapping, [])
    assert found(raw, class_names=("sky", "road", "car")[:count])[1] == []


def test_colours_without_black_say_which_one_is_the_background() -> None:
    white, red = (255, 255, 255), (255, 0, 0)
    raw = rgb(np.array([white, red])[discs(np.random.default_rng(0), [1], 9)])
    mapping, (line,) = found(raw)
    assert mapping.values == (white, red)
    assert "no label image holds #000000, and septa takes #ffffff as background" in line
    assert found(raw, values=(white, red)) == (mapping, [])


# --- refused labels ------------------------------------------------------------------------------


def mask(seed: int = 0) -> np.ndarray:
    return (discs(np.random.default_rng(seed), [255], 12, 256)).astype(np.uint8)


@pytest.mark.parametrize("quality", [30, 75, 90, 98, 100])
def test_jpeg_artefacts_are_refused(quality: int) -> None:
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
    with pytest.raises(InputError, match=r"the image holds \d+ different colours, too many for labels"):
        mapping_of(rgb(colors))


def test_thin_classes_are_not_artefacts() -> None:
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
    with pytest.raises(InputError, match=r"2\.png: the value 200 covers only 2 of"):
        mapping_of(*clean[:2], index(slip), clean[2])
    with pytest.raises(InputError, match=r"2\.png: 2 pixels hold 200"):
        mapping_of(*clean[:2], index(slip), values=(0, 255))


def test_kinds_that_do_not_mix() -> None:
    stack = planes(np.zeros((2, 4, 4)))
    with pytest.raises(InputError, match=r"1\.png: the number of planes is 1, expected 2"):
        mapping_of(stack, index(blocks([0, 1])), encoding="multilabel")
    with pytest.raises(InputError, match=r"1\.png: the label image holds RGB colours, expected index"):
        mapping_of(index(blocks([0, 1, 2])), rgb(np.zeros((4, 4, 3))), encoding="index")
    with pytest.raises(InputError, match=r"1\.png: the label image holds several planes, expected color"):
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
    ("settings", "message"),
    [
        ({"class_names": ("a", "b", "c")}, "the number of names is 3, but the labels have 2 classes"),
        ({"class_names": ("a", "a")}, "differ from each other"),
        ({"values": (0, (1, 2, 3))}, "the values do not fit color labels"),
        ({"values": (0, 255), "ignore_label": 255}, "share one value"),
        ({"values": (0, 255, 7), "encoding": "binary"}, "do not fit binary"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mapping_of(index(blocks([0, 255])), **settings)


@pytest.mark.parametrize("values", [(0, 7), (255, 0)])
def test_mixed_masks_with_other_values_given_are_refused(values: tuple[int, int]) -> None:
    masks = index(blocks([0, 1])), index(blocks([0, 255]))
    assert mapping_of(*masks).kind == "binary"
    with pytest.raises(InputError, match=r"which data\.values does not list"):
        mapping_of(*masks, values=values)


def test_a_few_pixels_are_a_slip_in_a_large_image_only() -> None:
    large = np.zeros((300, 300), np.uint8)
    large[100:200, 100:200] = 1
    large[5, 3:11] = 2
    assert mapping_of(index(large[:40, :40] + large[100:140, 100:140])).values == (1, 3)
    assert mapping_of(index(large[:120, :120])).values == (0, 1, 2)
    with pytest.raises(InputError, match="the value 2 covers only 8 of 90000 pixels, which looks like a slip"):
        mapping_of(index(large))


@pytest.mark.parametrize("values", [[0, 1, 5], [0, 1, 7]])
def test_names_of_more_classes_than_occur_need_indices_below_their_number(values: list[int]) -> None:
    names = ("a", "b", "c", "d", "e")
    assert mapping_of(index(blocks([0, 1, 4])), class_names=names).values == (0, 1, 2, 3, 4)
    with pytest.raises(InputError, match="the number of names is 5, but the labels have 3 classes"):
        mapping_of(index(blocks(values)), class_names=names)


def test_encode_refuses_what_the_mapping_lacks() -> None:
    mapping = mapping_of(index(blocks([0, 255])))
    for stray in (blocks([0, 7]), blocks([0, -7], dtype=np.int32), blocks([0, 70000], dtype=np.int32)):
        with pytest.raises(InputError, match=rf"late\.png: the label image holds {stray[0, 8]}, expected only 0, 255"):
            mapping.encode(index(stray), "late.png")
    with pytest.raises(InputError, match=r"late\.png: the label image holds RGB"):
        mapping.encode(rgb(np.zeros((4, 4, 3))), "late.png")
    with pytest.raises(InputError, match="negative id -7"):
        mapping_of(index(grid_objects(9))).encode(index(blocks([0, -7], dtype=np.int32)), "late.png")


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
    """Draw lines one pixel wide, one for each value, on 0."""
    array = np.zeros((200, 200), np.uint8)
    for index, value in enumerate(values):
        array[10 + step * index, 10:190] = value
    return array


def test_thin_classes_with_255_ask_for_the_ignore_label() -> None:
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
    green, blue, grey = square[..., [1, 0, 2]], square[..., [1, 2, 0]], square[..., [0, 0, 0]]
    colored = [(part, False) for picture in (square, green, blue) for part in (picture, 255 - picture)]
    for picture, threshold in (*colored, (grey, True), (255 - grey, True)):
        with pytest.raises(InputError, match="resizing, smoothing or JPEG") as refusal:
            find_mapping([("a", RawLabels(picture, "rgb", None))], DataSettings())
        assert ("data.threshold" in str(refusal.value)) is threshold


@pytest.mark.parametrize(("dark", "bright", "middle"), [(0, 255, 128), (0, 200, 100), (0, 201, 101), (55, 255, 155)])
@pytest.mark.parametrize("kind", ["index", "rgb"])
def test_the_threshold_of_a_soft_mask_lies_in_the_middle(kind: str, dark: int, bright: int, middle: int) -> None:
    array = np.full((200, 200), dark, np.uint8)
    array[50:150, 50:150] = bright
    for step in range(1, 10):  # the soft rim of a resized mask
        array[50 - step, 50:150] = bright - (bright - dark) * step // 10
    raw = rgb(np.stack([array] * 3, axis=2)) if kind == "rgb" else index(array)
    with pytest.raises(InputError, match=rf"set data\.threshold={middle} if larger values are foreground"):
        mapping_of(raw)
    assert set(apply_threshold(Path("a.png"), array[None], middle).array.ravel().tolist()) == {0, 255}


def test_two_crops_of_one_labelled_slide_hold_instances() -> None:
    array = np.zeros((2, 160, 160), np.int32)
    for index in range(120):
        crop, place = divmod(index, 60)
        y, x = divmod(place, 10)
        array[crop, 4 + 16 * y : 12 + 16 * y, 4 + 15 * x : 12 + 15 * x] = index + 1
    mapping = find_mapping([(str(i), RawLabels(plane, "index", None)) for i, plane in enumerate(array)], DataSettings())
    assert mapping.kind == "instances"
