"""Objects or classes: drawn label images of many kinds, the meaning that septa finds, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from septa.errors import InputError
from septa.images.read import RawLabels
from septa.labels.detect import find_mapping
from septa.labels.evidence import weigh_evidence
from septa.labels.mapping import LabelMapping
from septa.labels.regions import Regions, find_regions
from septa.notices import Notices
from septa.recipe import DataSettings
from septa.synthetic import draw_cells

HEIGHT, WIDTH = 96, 120
Draw = Callable[[np.random.Generator], Sequence[np.ndarray]]
THIN = ("the number of an object", "a class")
"""What a warning says that septa reads, where the evidence is thin."""


# --- drawings -------------------------------------------------------------------------------------------------------


def ellipse(height: float, width: float, top: float, left: float, high: float, wide: float, turn: float = 0) -> Any:
    y, x = np.mgrid[: int(height), : int(width)]
    dy, dx = y - top, x - left
    cos, sin = np.cos(turn), np.sin(turn)
    return ((cos * dy + sin * dx) / high) ** 2 + ((cos * dx - sin * dy) / wide) ** 2 <= 1


def cells(
    rng: np.random.Generator, count: int, order: str = "random", radius: tuple[float, float] = (4, 9)
) -> np.ndarray:
    """Draw separate cells, numbered 1 to n at random, from the top to the bottom, or from the largest on."""
    labels = np.zeros((HEIGHT, WIDTH), np.int64)
    found = 0
    while found < count:
        size = rng.uniform(*radius)
        place = rng.uniform(size, HEIGHT - size), rng.uniform(size, WIDTH - size)
        inside = ellipse(HEIGHT, WIDTH, *place, size, size * rng.uniform(0.7, 1.2), rng.uniform(0, 3))
        around = ellipse(HEIGHT, WIDTH, *place, size + 2, size + 3)
        if not labels[around | inside].any():
            found += 1
            labels[inside] = found
    ids = list(range(1, count + 1))
    if order == "rows":
        ids.sort(key=lambda value: int(np.flatnonzero(labels == value)[0]))
    elif order == "size":
        ids.sort(key=lambda value: -int((labels == value).sum()))
    return renumber(labels, {value: place + 1 for place, value in enumerate(ids)})


def renumber(labels: np.ndarray, numbers: dict[int, int]) -> np.ndarray:
    table = np.zeros(int(labels.max()) + 1, np.int64)
    for value, number in numbers.items():
        table[value] = number
    return table[labels]


def delete(rng: np.random.Generator, labels: np.ndarray, share: float) -> np.ndarray:
    ids = np.unique(labels[labels > 0])
    return np.where(np.isin(labels, ids[rng.random(len(ids)) < share]), 0, labels)


def gapped(rng: np.random.Generator, count: int, highest: int) -> np.ndarray:
    """Draw cells with ids from a large range, as in a crop of a larger label image."""
    chosen = np.sort(rng.choice(np.arange(1, highest + 1), count, replace=False)).tolist()
    return renumber(cells(rng, count, radius=(3, 5)), dict(zip(range(1, count + 1), chosen, strict=True)))


def continued(rng: np.random.Generator, counts: Sequence[int]) -> list[np.ndarray]:
    """Draw cells whose ids go on from image to image."""
    starts = np.cumsum([0, *counts])
    drawn = [cells(rng, count) for count in counts]
    return [np.where(labels > 0, labels + start, 0) for labels, start in zip(drawn, starts, strict=False)]


def organs(rng: np.random.Generator, count: int = 6, jitter: float = 0.02, absent: float = 0.0) -> np.ndarray:
    """Draw classes at their places, some of which are absent."""
    fixed = np.random.default_rng(7)
    labels = np.zeros((HEIGHT, WIDTH), np.int64)
    for value in range(1, count + 1):
        place = fixed.uniform(0.15, 0.85, 2) + rng.normal(0, jitter, 2)
        size = fixed.uniform(0.06, 0.16, 2) * rng.uniform(0.85, 1.2)
        if rng.random() >= absent:
            labels[ellipse(HEIGHT, WIDTH, *(place * (HEIGHT, WIDTH)), *(size * (HEIGHT, WIDTH)))] = value
    return labels


def layers(rng: np.random.Generator, count: int = 5) -> np.ndarray:
    """Draw the layers of a tissue across the image."""
    labels, x = np.zeros((HEIGHT, WIDTH), np.int64), np.arange(WIDTH)
    top = rng.uniform(10, 40) + 4 * np.sin(x / 20 + rng.uniform(0, 6))
    rows = np.arange(HEIGHT)[:, None]
    for value in range(1, count + 1):
        bottom = top + rng.uniform(6, 10)
        labels[(rows >= top) & (rows < bottom)] = value
        top = bottom
    return labels


def shapes(rng: np.random.Generator) -> np.ndarray:
    """Draw a disc (1), a square (2) and a cross (3) anywhere."""
    labels = np.zeros((HEIGHT, WIDTH), np.int64)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    value = 1
    while value <= 3:
        size = rng.uniform(8, 13)
        dy, dx = y - rng.uniform(size, HEIGHT - size), x - rng.uniform(size, WIDTH - size)
        square = (abs(dy) <= size) & (abs(dx) <= size)
        thin = (abs(dy) <= size / 4) | (abs(dx) <= size / 4)
        inside = [dy**2 + dx**2 <= size**2, square, square & thin][value - 1]
        if not labels[inside].any():
            labels[inside] = value
            value += 1
    return labels


def nested(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw parts inside each other, such as a cell and its nucleus, anywhere."""
    labels = np.zeros((HEIGHT, WIDTH), np.int64)
    size = rng.uniform(20, 30)
    place = rng.uniform(size, HEIGHT - size), rng.uniform(size, WIDTH - size)
    for value in range(1, count + 1):
        labels[ellipse(HEIGHT, WIDTH, *place, size, size)] = value
        size *= 0.6
    return labels


def things(rng: np.random.Generator, classes: int) -> np.ndarray:
    """Draw one to three objects of different classes anywhere, as in a photograph."""
    drawn = cells(rng, int(rng.integers(1, 4)), radius=(8, 16))
    kinds = rng.choice(np.arange(1, classes + 1), int(drawn.max()), replace=False).tolist()
    return renumber(drawn, {number + 1: kind for number, kind in enumerate(kinds)})


def scattered(rng: np.random.Generator, classes: int) -> np.ndarray:
    """Draw several cells of each class."""
    drawn = cells(rng, 4 * classes, radius=(3, 5))
    return np.where(drawn > 0, (drawn - 1) % classes + 1, 0)


def between(rng: np.random.Generator, low: int, high: int, images: int, **options: Any) -> list[np.ndarray]:
    """Draw images whose numbers of cells go round from low to high."""
    counts = [low + image % (high - low + 1) for image in range(images)]
    return [cells(rng, count, **options) for count in counts]


def repeat(draw: Callable[..., np.ndarray], images: int, *arguments: Any, **options: Any) -> Draw:
    return lambda rng: [draw(rng, *arguments, **options) for _ in range(images)]


class Scenario(NamedTuple):
    """A set of label images and its meaning; ``warned`` is None where septa may warn or not."""

    name: str
    draw: Draw
    objects: bool
    warned: bool | None = False


SCENARIOS = [
    Scenario("3 images of 5 to 7 cells", lambda rng: between(rng, 5, 7, 3), True),
    Scenario("the same from top to bottom", lambda rng: between(rng, 5, 7, 3, order="rows"), True, None),
    Scenario("the same by size", lambda rng: between(rng, 5, 7, 3, order="size"), True, None),
    Scenario("8 images of 6 cells", repeat(cells, 8, 6), True, True),
    Scenario("the same from top to bottom", repeat(cells, 8, 6, "rows"), True, True),
    Scenario("8 images of 1 to 3 cells", lambda rng: between(rng, 1, 3, 8, radius=(6, 12)), True, None),
    Scenario("8 images of 1 or 2 cells", lambda rng: between(rng, 1, 2, 8, radius=(6, 12)), True, True),
    Scenario("20 images of 3 to 12 cells", lambda rng: between(rng, 3, 12, 20, radius=(3, 6)), True),
    Scenario("2 images of 12 and 15 cells", lambda rng: between(rng, 12, 15, 2, radius=(3, 6)), True, None),
    Scenario("1 image of 5 cells", repeat(cells, 1, 5), True, True),
    Scenario("1 image of 24 cells", repeat(cells, 1, 24, radius=(3, 5)), True),
    Scenario("6 crops with 19 to 28 of 64 ids", lambda rng: [gapped(rng, n, 64) for n in range(19, 29, 2)], True),
    Scenario("3 crops with ids above 255", lambda rng: [gapped(rng, n, 5000) for n in (12, 15, 18)], True),
    Scenario("ids that go on", lambda rng: continued(rng, (5, 9, 7, 6)), True),
    Scenario("few ids that go on", lambda rng: continued(rng, (1, 3, 2, 3, 2, 1)), True, True),
    Scenario("cells deleted", lambda rng: [delete(rng, cells(rng, 8), 0.2) for _ in range(8)], True, True),
    Scenario("drawn cells of septa", lambda rng: [draw_cells(96, 128, 3, k).labels_yx for k in range(6)], True, None),
    Scenario("1 image of 3 cells", repeat(cells, 1, 3), False, True),
    Scenario("organs, 2 images", repeat(organs, 2), False),
    Scenario("organs, 8 images", repeat(organs, 8), False),
    Scenario("organs, some absent", repeat(organs, 8, absent=0.2), False),
    Scenario("organs that move", repeat(organs, 8, jitter=0.05), False),
    Scenario("layers, 1 image", repeat(layers, 1), False),
    Scenario("layers, 8 images", repeat(layers, 8), False),
    Scenario("disc, square and cross", repeat(shapes, 8), False),
    Scenario("cell and nucleus", repeat(nested, 8, 2), False),
    Scenario("rings", repeat(nested, 6, 4), False),
    Scenario("things of 5 classes", repeat(things, 12, 5), False),
    Scenario("things of 20 classes", repeat(things, 30, 20), False),
    Scenario("scattered cells of 3 classes", repeat(scattered, 6, 3), False),
    Scenario("scattered cells of 3 classes, 1 image", repeat(scattered, 1, 3), False),
    Scenario("classes that never meet", lambda rng: [scattered(rng, 1) * (k % 3 + 1) for k in range(6)], False),
]


# --- tests ----------------------------------------------------------------------------------------------------------


def as_rgb(arrays: Sequence[np.ndarray], colors: np.ndarray) -> list[RawLabels]:
    return [RawLabels(colors[array].astype(np.uint8), "rgb", None) for array in arrays]


def as_index(arrays: Sequence[np.ndarray]) -> list[RawLabels]:
    return [RawLabels(array.astype(np.int32), "index", None) for array in arrays]


def find(raws: Sequence[RawLabels], **options: Any) -> tuple[LabelMapping, list[str]]:
    objects = options.pop("objects", False)
    notices = Notices()
    data = DataSettings(**options)
    return find_mapping([(f"{k}.png", raw) for k, raw in enumerate(raws)], data, objects=objects, notices=notices), (
        notices.lines()
    )


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_values_are_objects_or_classes(scenario: Scenario, seed: int) -> None:
    """Where septa warns, both settings that the warning names work and end it."""
    raws = as_index(scenario.draw(np.random.default_rng(seed)))
    mapping, lines = find(raws)
    assert (mapping.kind == "instances") == scenario.objects
    if scenario.warned is not None:
        assert bool(lines) == scenario.warned
    if lines:
        text = f"each value is one connected region in each image, and septa reads it as {THIN[not scenario.objects]}"
        remedy = "Set data.encoding=instances if each value is one object, or data.encoding=index if it is a class"
        assert lines == [f"warning: labels: {text}. {remedy}."]
        for encoding in ("instances", "index"):
            assert find(raws, encoding=encoding)[0].kind == encoding
            assert find(raws, encoding=encoding)[1] == []


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_red_channel_is_read_as_values_are(scenario: Scenario) -> None:
    arrays = scenario.draw(np.random.default_rng(0))
    if max(array.max() for array in arrays) > 255:
        pytest.skip("the red channel holds no such numbers")
    red = np.zeros((256, 3), np.uint8)
    red[:, 0] = np.arange(256)
    mapping, lines = find(as_rgb(arrays, red))
    assert mapping.kind == ("instances" if scenario.objects else "color")
    assert lines or scenario.warned is not True
    assert all("data.encoding=instances" in line for line in lines)


@pytest.mark.parametrize("background", [0, 255])
def test_a_random_colour_for_each_object_numbers_objects(background: int) -> None:
    rng = np.random.default_rng(0)
    arrays = between(rng, 5, 8, 5)
    raws = []
    for array in arrays:
        colors = np.concatenate([np.full((1, 3), background), rng.integers(1, 255, (8, 3))])
        raws += as_rgb([array], colors)
    mapping, lines = find(raws)
    assert (mapping.kind, mapping.values, lines) == ("instances", ((background,) * 3,), [])
    for raw, array in zip(raws, arrays, strict=True):
        ids_yx = mapping.encode_objects(raw, "x").ids_yx
        assert np.array_equal(ids_yx > 0, array > 0)
        assert len(np.unique(np.stack([ids_yx, array]).reshape(2, -1), axis=1).T) == array.max() + 1
        assert np.array_equal(mapping.encode(raw, "x"), array > 0)
        assert mapping.encode_objects(raw, "x").ids_yx.max() == array.max()


def test_equal_colours_apart_from_each_other_are_objects_of_their_own_when_asked() -> None:
    """Few colours are enough to tell touching objects apart; the numbers in one channel may repeat."""
    array = np.zeros((20, 40), np.int64)
    array[2:8, 2:8], array[2:8, 8:14], array[12:18, 2:8], array[12:18, 20:26] = 1, 2, 1, 2
    raws = as_rgb([array] * 3, np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]]))
    mapping, lines = find(raws)
    assert mapping.kind == "color"
    text = "the colours differ in one channel only, which may hold classes or object numbers; septa reads classes"
    remedy = "Set data.encoding=instances if each connected region of one colour is an object, else color"
    assert lines == [f"warning: labels: {text}. {remedy}."]
    assert find(raws, encoding="color")[1] == []
    mapping, lines = find(raws, encoding="instances")
    assert lines == []
    assert mapping.encode_objects(raws[0], "x").ids_yx.max() == 4
    ignoring, _ = find(raws, encoding="instances", ignore_label=0x020000)
    assert sorted(np.unique(ignoring.encode_objects(raws[0], "x").ids_yx).tolist()) == [-1, 0, 1, 2]


def test_more_colours_than_classes_can_be_read_as_the_message_says() -> None:
    rng = np.random.default_rng(0)
    array = np.kron(rng.permutation(np.repeat(np.arange(300), 3)).reshape(30, 30), np.ones((4, 4), int))
    colors = np.concatenate([np.zeros((1, 3)), rng.integers(1, 255, (299, 3))]).astype(np.uint8)
    raws = as_rgb([array], colors)
    with pytest.raises(InputError, match=r"at most 254 classes are possible.*Set data\.encoding=instances"):
        find(raws)
    assert find(raws, encoding="instances")[0].encode_objects(raws[0], "x").ids_yx.max() > 254


def test_smoothed_colours_are_reported_where_each_region_becomes_an_object() -> None:
    square = np.zeros((64, 64, 3), np.uint8)
    square[20:40, 20:40] = (200, 0, 0)
    for step in range(1, 10):
        square[20 - step, 20:40] = (200 - 20 * step, 0, 0)
    _, lines = find([RawLabels(square, "rgb", None)], encoding="instances")
    assert len(lines) == 1
    assert "9 rare values" in lines[0]
    assert lines[0].endswith("each of their regions becomes an object. Export the labels again without smoothing.")


# Palettes -----------------------------------------------------------------------------------------------------------


def with_palettes(arrays: Sequence[np.ndarray], palettes: Sequence[np.ndarray]) -> list[RawLabels]:
    return [
        RawLabels(array.astype(np.uint8), "index", palette.astype(np.uint8))
        for array, palette in zip(arrays, palettes, strict=True)
    ]


def test_ids_under_palettes_of_their_own_are_objects() -> None:
    """A tool that spreads a colour map over the ids of each image gives each image another palette."""
    arrays = between(np.random.default_rng(0), 4, 9, 6)
    palettes = [np.linspace((0, 0, 40 * k), (255, 200, 90), 10) for k, _ in enumerate(arrays)]
    raws = with_palettes(arrays, palettes)
    mapping, lines = find(raws)
    assert (mapping.kind, lines) == ("instances", [])
    assert np.array_equal(mapping.encode_objects(raws[0], "x").ids_yx, arrays[0])


def test_classes_under_palettes_of_their_own_are_read_by_index_or_by_colour() -> None:
    rng = np.random.default_rng(0)
    arrays = [scattered(rng, 3) for _ in range(4)]
    own = with_palettes(arrays, [np.concatenate([np.zeros((1, 3)), rng.integers(1, 255, (3, 3))]) for _ in arrays])
    mapping, lines = find(own)
    assert (mapping.kind, mapping.values) == ("index", (0, 1, 2, 3))
    text = "the colours of a palette index differ between label images, and septa reads the indices"
    assert lines == [f"warning: labels: {text}. Set data.encoding=color to read the colours."]
    assert find(own, encoding="color")[0].classes == 13
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    orders = [np.concatenate([[0], 1 + rng.permutation(3)]) for _ in arrays]
    shuffled = with_palettes(
        [np.argsort(order)[array] for order, array in zip(orders, arrays, strict=True)], [colors[o] for o in orders]
    )
    mapping, lines = find(shuffled)
    assert (mapping.kind, mapping.classes) == ("color", 4)
    assert lines[0].endswith("and septa reads the colours. Set data.encoding=index to read the indices.")
    assert find(shuffled, encoding="index")[0].classes == 4


# The task, ignored values and the background ------------------------------------------------------------------------


def test_a_task_that_finds_objects_decides_where_the_evidence_is_thin() -> None:
    raws = as_index([cells(np.random.default_rng(k), 3) for k in range(1)])
    assert find(raws)[0].kind == "index"
    assert find(raws, objects=True) == (find(raws, encoding="instances")[0], [])
    empty = as_index([np.zeros((9, 9))])
    assert find(empty, objects=True)[0].kind == "instances"
    assert find(as_index([scattered(np.random.default_rng(0), 3)]), objects=True)[0].kind == "index"


def test_outlines_of_255_around_objects_are_a_question_with_two_answers() -> None:
    arrays = between(np.random.default_rng(0), 4, 9, 5)
    for array in arrays:
        array[(np.roll(array, 2, 1) > 0) & (array == 0)] = 255
    raws = as_index(arrays)
    with pytest.raises(Exception, match=r"0\.png: the value 255 occurs in addition to object numbers up to 8 "):
        find(raws)
    ignoring, lines = find(raws, ignore_label=255)
    assert (ignoring.kind, ignoring.ignore, lines) == ("instances", 255, [])
    counting, lines = find(raws, encoding="instances")
    assert counting.ignore is None
    assert lines == [
        "warning: labels: the value 255 is read as an object. Set data.ignore_label=255 if it marks pixels to ignore."
    ]


def test_minus_1_is_the_background_of_ids_if_nothing_else_is() -> None:
    arrays = [np.where(array > 0, array, -1) for array in between(np.random.default_rng(0), 5, 8, 4)]
    raws = as_index(arrays)
    mapping, lines = find(raws)
    assert (mapping.kind, mapping.values) == ("instances", (-1,))
    assert LabelMapping.from_json(mapping.to_json()) == mapping
    assert np.array_equal(mapping.encode_objects(raws[0], "x").ids_yx, np.maximum(arrays[0], 0))
    text = "no label image holds 0, and septa takes -1 as background"
    assert lines == [f"note: labels: {text}. Set data.ignore_label=-1 if it marks pixels to ignore."]
    ignoring, _ = find(raws, ignore_label=-1)
    assert ignoring.encode_objects(raws[0], "x").ids_yx.min() == -1
    with pytest.raises(Exception, match=r"holds the negative value -2 and 1 more.*Export the labels with values"):
        find(as_index([np.where(arrays[0] == 2, -2, arrays[0])]), encoding="instances")


# The parts ----------------------------------------------------------------------------------------------------------


def test_nothing_is_no_evidence() -> None:
    assert not weigh_evidence([], 0).objects
    empty = Regions(*(np.zeros(0, np.int64) for _ in range(3)), np.zeros((0, 4)))
    assert not weigh_evidence([empty], 5).objects


def test_evidence_does_not_depend_on_the_order_of_images() -> None:
    for scenario in SCENARIOS[::4]:
        images = [find_regions(array, 0) for array in scenario.draw(np.random.default_rng(3))]
        values = len(np.unique(np.concatenate([image.values for image in images])))
        assert weigh_evidence(images, values) == weigh_evidence(images[::-1], values)
