"""Folders that may hold the labels beside the folder of images: one is taken, several are a question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from septa.data.folder import find_pairs
from septa.data.pairs import PairingError
from septa.data.siblings import look_like_labels
from septa.errors import InputError

NUMBERS = (3, 4, 5, 6)


def draw_photo(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 30)).astype(np.uint8)


def draw_mask(seed: int) -> np.ndarray:
    mask = np.zeros((24, 30), np.uint8)
    mask[5 : 12 + seed % 7, 6:20] = 255
    return mask


def save(folder: Path, pattern: str, draw=draw_mask, numbers: Sequence[int] = NUMBERS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        path = folder / pattern.format(number)
        if path.suffix == ".tif":
            tifffile.imwrite(path, draw(number))
        else:
            Image.fromarray(draw(number)).save(path)


def catch_rivals(data: Path, *names: str) -> str:
    with pytest.raises(PairingError) as caught:
        find_pairs(data)
    assert {path.name for path in caught.value.reasons} == set(names)
    return caught.value.remedy


@pytest.mark.parametrize("known", ["mask", "labels"])
def test_a_sibling_that_pairs_as_well_is_a_question_whose_remedy_works(tmp_path: Path, known: str) -> None:
    save(tmp_path / "images", "{}_eye.tif", draw_photo)
    save(tmp_path / known, "{}_eye_mask.gif")
    save(tmp_path / "2nd [expert]", "{}_expert2.gif")
    remedy = catch_rivals(tmp_path, known, "2nd [expert]")
    _, images, _, labels, *_ = remedy.split("'")
    pairing = find_pairs(tmp_path, images=images, labels=labels)
    assert [(pair.image.name, pair.label_files[0].name) for pair in pairing.pairs] == [
        (f"{number}_eye.tif", f"{number}_expert2.gif") for number in NUMBERS
    ]


def test_a_sibling_of_photographs_or_of_fewer_labels_is_no_question(tmp_path: Path) -> None:
    save(tmp_path / "images", "{}.png", draw_photo)
    save(tmp_path / "labels", "{}.png")
    save(tmp_path / "phase", "{}.png", draw_photo)
    save(tmp_path / "draft", "{}.png", numbers=NUMBERS[:2])
    pairing = find_pairs(tmp_path)
    assert pairing.layout == "images/ and labels/"
    unused = [files for notice, files in pairing.notices if notice.warning]
    assert unused == [(str(tmp_path / "draft"), str(tmp_path / "phase"))]


@pytest.mark.parametrize("name", ["ground_truth", "GT", "annotations", "seg", "1st_manual"])
def test_a_folder_of_any_name_holds_the_labels_if_no_other_does(tmp_path: Path, name: str) -> None:
    save(tmp_path / "images", "{}.png", draw_photo)
    save(tmp_path / name, "{}_gt.png")
    assert find_pairs(tmp_path).layout == f"images/ and {name}/"
    save(tmp_path / "other", "{}.png")
    catch_rivals(tmp_path, name, "other")


def test_a_folder_of_any_name_holds_the_images_if_no_other_does(tmp_path: Path) -> None:
    save(tmp_path / "tissue", "{}.png", draw_photo)
    save(tmp_path / "masks", "{}.png")
    (tmp_path / "figures").mkdir()
    assert find_pairs(tmp_path).layout == "tissue/ and masks/"


def test_a_missing_folder_of_labels_says_what_is_there(tmp_path: Path) -> None:
    save(tmp_path / "images", "{}.png", draw_photo)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "labels").symlink_to(tmp_path / "absent")
    with pytest.raises(InputError) as caught:
        find_pairs(tmp_path)
    contents = "1 folder: annotations; 1 broken link: labels"
    assert caught.value.problem == f"the folder holds images/ but no labels/ (beside it: {contents})"


def test_texture_tells_photographs_from_labels(tmp_path: Path) -> None:
    save(tmp_path / "photos", "{}.png", draw_photo)
    save(tmp_path / "masks", "{}.png")
    save(tmp_path / "blank", "{}.png", lambda _: np.zeros((9, 9), np.uint8))
    found = {name: look_like_labels(tmp_path / name) for name in ("photos", "masks", "blank")}
    assert found == {"photos": False, "masks": True, "blank": True}
