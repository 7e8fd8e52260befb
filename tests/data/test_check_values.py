"""Each kind of value is one problem that names the images; ordinary images have none."""

from __future__ import annotations

import numpy as np
import pytest

from septa.data.check_result import Problem
from septa.data.check_values import check_values
from septa.data.fingerprint import scan_image


def image(seed: int, foreground: float = 150.0, background: float = 110.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scene = np.full((1, 60, 60), background) + rng.normal(0, 5, (1, 60, 60))
    scene[0, 20:30, 20:30] += foreground - background
    return scene


def check(images: list[np.ndarray]) -> list[Problem]:
    labels = np.zeros((60, 60), np.int32)
    labels[20:30, 20:30] = 1
    facts = [scan_image(f"n{number}", one, labels, classes=2) for number, one in enumerate(images)]
    return check_values(facts, {item.name: f"data/{item.name}.tif" for item in facts})


@pytest.mark.parametrize("foreground", [111, 150, 5000, 60000])
def test_bright_cells_are_ordinary(foreground: float) -> None:
    unlabelled = image(1)
    unlabelled[0, 50:52, 50] = foreground  # as bright as labelled cells of the other images
    assert check([image(0, foreground), unlabelled, image(2, foreground).astype(np.uint16)]) == []


def test_one_hot_pixel_is_named() -> None:
    images = [image(seed).astype(np.uint16) for seed in range(3)]
    images[1][0, 3, 4] = 65535
    (found,) = check(images)
    assert (found.severity, found.where, found.files) == ("warning", "data/n1.tif", ("data/n1.tif",))
    start = "the image holds pixels far from all others, such as 1 pixel of 65535, where 99.8 % lie in "
    assert found.description.startswith(start)
    low, high = map(float, found.description.removeprefix(start).split(" to "))
    assert 85 < low < 105
    assert 145 < high < 175


def test_all_kinds_and_images_get_one_line_each() -> None:
    images = [np.concatenate([image(seed), image(seed + 50, 9000, 2000)]) for seed in range(9)]
    for number in range(5):
        images[number][0, 3, number] = 40000 + number
    images[5][0, 1, 1], images[6][1, 2, 2] = np.nan, np.inf
    images[7][0, :6], images[8][1, :3] = -9999, -9999
    images[8][0, 50:55, 50:53] = 65535
    broken, nodata, stray = check(images)
    assert (broken.severity, broken.where) == ("error", "data/n5.tif, data/n6.tif")
    assert broken.description == "2 images hold NaN or infinite pixels"
    assert (nodata.severity, nodata.where) == ("warning", "data/n7.tif, data/n8.tif")
    assert nodata.description == "2 images hold the nodata value -9999 in up to 10 % of the pixels"
    assert stray.where == "data/n0.tif, data/n1.tif, data/n2.tif and 3 more"
    assert stray.files == tuple(f"data/n{number}.tif" for number in (0, 1, 2, 3, 4, 8))
    assert "6 images hold pixels far from all others, such as 15 pixels of 65535 in n8 in channel 1, where" in (
        stray.description
    )
