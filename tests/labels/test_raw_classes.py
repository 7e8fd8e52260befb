"""Classes of objects as stored: files are paired and read, and those that do not fit are refused."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from septa.data.check import check_dataset
from septa.data.folder import find_pairs, read_pair_labels
from septa.data.pairs import Pairing, PairingError
from septa.data.samples import Examples
from septa.errors import InputError
from septa.images.write import write_image, write_labels
from septa.labels.detect import find_mapping
from septa.labels.mapping import LabelMapping
from septa.labels.raw_classes import find_majority_classes
from septa.recipe import IGNORE, DataSettings

IDS = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.sampled_from([-1, 0, 3, 9])
)


def ids_and_classes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw touching squares; ids have gaps, and most pixels of a square have its class 2, 5 or 9."""
    rng = np.random.default_rng(seed)
    ids_yx, class_yx = np.zeros((40, 48), np.uint16), np.zeros((40, 48), np.uint8)
    for number, (row, column) in enumerate(np.ndindex(4, 4)):
        inside = np.s_[10 * row : 10 * row + 10, 12 * column : 12 * column + int(rng.integers(8, 13))]
        if number % 4 != 3:
            ids_yx[inside] = 300 + 7 * number
            class_yx[inside] = (2, 5, 9)[(number + seed) % 3]
            class_yx[inside][:2, :2] = 9
            class_yx[inside][4:7] = 0
    return ids_yx, class_yx


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for seed in range(3):
        ids_yx, class_yx = ids_and_classes(seed)
        image_yx = np.random.default_rng(seed).integers(0, 255, ids_yx.shape).astype(np.uint8)
        write_image(tmp_path / "images" / f"{seed}.png", image_yx[None])
        write_labels(tmp_path / "labels" / f"{seed}_mask.png", ids_yx)
        write_labels(tmp_path / "classes" / f"{seed}.tif", class_yx)
    return tmp_path


def mapped(pairing: Pairing, **settings: object) -> LabelMapping:
    return find_mapping(((pair.name, read_pair_labels(pair)) for pair in pairing.pairs), DataSettings(**settings))


@pytest.mark.parametrize("folder", ["classes", "Types"])
def test_each_object_gets_its_class(data: Path, folder: str) -> None:
    (data / "classes").rename(data / folder)
    pairing = find_pairs(data)
    assert not any(folder in note for note in pairing.notes)
    mapping = mapped(pairing)
    assert (mapping.kind, mapping.values, mapping.object_classes) == ("instances", (0, 2, 5, 9), 3)
    assert mapping.class_names == ("background", "class 2", "class 5", "class 9")
    assert mapping == LabelMapping.from_json(mapping.to_json())
    assert "their classes {2, 5, 9} are class 2, class 5 and class 9" in mapping.describe()
    for seed, pair in enumerate(pairing.pairs):
        ids_yx, _ = ids_and_classes(seed)
        encoded_yx = mapping.encode(read_pair_labels(pair), pair.name)
        objects = mapping.encode_objects(read_pair_labels(pair), pair.name)
        assert objects.class_of_id is not None
        np.testing.assert_array_equal(objects.class_yx, encoded_yx)
        for label in np.unique(ids_yx):
            expected = 1 + ((label - 300) // 7 + seed) % 3 if label else 0
            assert (encoded_yx[ids_yx == label] == expected).all()
            (number,) = np.unique(objects.ids_yx[ids_yx == label])
            assert objects.class_of_id[number] == expected
            assert (objects.ids_yx == number).sum() == (ids_yx == label).sum()


def test_names_and_the_ignore_value_are_as_given(data: Path) -> None:
    mapping = mapped(find_pairs(data), class_names=("ground", "a", "b", "c"), ignore_label=300)
    assert mapping.class_names == ("ground", "a", "b", "c")
    pair = find_pairs(data).pairs[0]
    ids_yx, _ = ids_and_classes(0)
    np.testing.assert_array_equal(mapping.encode_objects(read_pair_labels(pair), "x").ids_yx == IGNORE, ids_yx == 300)
    assert mapping.pixel_names(True) == ("ground", "object")
    assert mapping.pixel_names(False) == mapping.class_names


def test_one_class_is_none(data: Path) -> None:
    for seed in range(3):
        write_labels(data / "classes" / f"{seed}.tif", (ids_and_classes(seed)[0] > 0).astype(np.uint8))
    mapping = mapped(find_pairs(data))
    assert (mapping.values, mapping.object_classes, mapping.class_names) == ((0,), 1, ("background", "object"))
    pair = find_pairs(data).pairs[0]
    objects = mapping.encode_objects(read_pair_labels(pair), "x")
    np.testing.assert_array_equal(objects.ids_yx, ids_and_classes(0)[0])
    assert objects.class_of_id is None


def test_patches_are_drawn_around_every_class(data: Path) -> None:
    pairing = find_pairs(data)
    mapping = mapped(pairing)
    example = Examples(pairing.pairs, mapping, channels=1, memory=2**20, objects=True)[0]
    assert len(example.spots) == 4
    assert example.class_of_id is not None
    for k, spots in enumerate(example.spots):
        assert (example.class_of_id[example.labels_yx.ravel()[spots]] == k).all()


def test_the_check_reports_each_class(data: Path) -> None:
    for seed in (0, 1):
        path = data / "classes" / f"{seed}.tif"
        _, class_yx = ids_and_classes(seed)
        write_labels(path, np.where(class_yx == 5, 2, class_yx))
    found = check_dataset(data)
    assert found.mapping is not None
    assert [item.objects for item in found.facts] == [12, 12, 12]
    assert all(problem.severity == "warning" for problem in found.problems)
    assert any("the class 'class 5' is in no" in problem.description for problem in found.problems)


def remove_one(data: Path) -> str:
    (data / "classes" / "1.tif").unlink()
    return "the labels have no class file"


def add_one(data: Path) -> str:
    write_labels(data / "classes" / "9.tif", np.ones((40, 48), np.uint8))
    return "the class file has no labels"


def double_one(data: Path) -> str:
    write_labels(data / "classes" / "1.png", np.ones((40, 48), np.uint8))
    return "it is one of 2 class files for 1_mask.png"


def another_folder(data: Path) -> str:
    (data / "types").mkdir()
    return "several folders"


@pytest.mark.parametrize("spoil", [remove_one, add_one, double_one, another_folder])
def test_files_that_do_not_pair_are_named(data: Path, spoil: Callable[[Path], str]) -> None:
    message = spoil(data)
    with pytest.raises(PairingError, match=message):
        find_pairs(data)


def cut(data: Path) -> str:
    write_labels(data / "classes" / "1.tif", ids_and_classes(1)[1][:30])
    return "the image of classes has 30 x 48 pixels, but the labels have 40 x 48"


def without(data: Path) -> str:
    ids_yx, class_yx = ids_and_classes(1)
    write_labels(data / "classes" / "1.tif", np.where(ids_yx == 307, 0, class_yx).astype(np.uint8))
    return "these objects have no class: 307"


def many(data: Path) -> str:
    write_labels(data / "classes" / "1.tif", np.arange(40 * 48, dtype=np.uint16).reshape(40, 48))
    return "holds values from 0 to 1919"


def colours(data: Path) -> str:
    write_image(data / "classes" / "1.tif", np.arange(3 * 40 * 48, dtype=np.uint16).reshape(3, 40, 48))
    return "one object id and one class"


@pytest.mark.parametrize("spoil", [cut, without, many, colours])
def test_files_that_do_not_fit_are_named(data: Path, spoil: Callable[[Path], str]) -> None:
    message = spoil(data)
    problems = [str(problem) for problem in check_dataset(data).problems if problem.severity == "error"]
    assert any(message in problem and "1" in problem for problem in problems), problems


def test_what_was_trained_with_classes_needs_them(data: Path) -> None:
    mapping, plain = mapped(find_pairs(data)), LabelMapping("instances", ("background", "object"), (0,))
    classed = read_pair_labels(find_pairs(data).pairs[0])
    np.testing.assert_array_equal(plain.encode_objects(classed, "x").ids_yx, ids_and_classes(0)[0])
    shutil.rmtree(data / "classes")
    raw = read_pair_labels(find_pairs(data).pairs[0])
    with pytest.raises(InputError, match="the objects of this image have no classes"):
        mapping.encode_objects(raw, "x")


def test_classes_go_with_objects_only(data: Path) -> None:
    with pytest.raises(
        InputError, match="the labels are index labels, but the folder of classes next to them needs object ids"
    ):
        mapped(find_pairs(data), encoding="index")


@pytest.mark.parametrize(
    "parts", [(("a", "b", "c"), (0,)), (("a", "b"), (0, 1)), (("a", "b", "c"), (1, 2, 3)), (("a", "b", "c"), (0, 2, 2))]
)
def test_parts_that_do_not_fit_are_refused(parts: tuple[tuple[str, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="label mapping"):
        LabelMapping("instances", *parts)


@given(IDS, st.data())
def test_the_majority_of_each_object(ids_yx: np.ndarray, data: st.DataObject) -> None:
    votes_yx = data.draw(hnp.arrays(np.uint8, ids_yx.shape, elements=st.sampled_from([0, 1, 4])))
    found_yx = find_majority_classes(ids_yx, votes_yx)
    assert found_yx.dtype == np.uint8
    for label in np.unique(ids_yx):
        counts = Counter(int(vote) for vote in votes_yx[ids_yx == label] if vote)
        most = max(counts.values(), default=0)
        expected = min((vote for vote, count in counts.items() if count == most), default=0) if label else 0
        assert (found_yx[ids_yx == label] == expected).all()
