"""Check the channels of a dataset: alpha is data where it varies, and grey images join no others than colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from septa.data.check import check_dataset
from septa.data.check_result import DatasetCheck
from septa.data.samples import Examples
from septa.recipe import DataSettings

SIZE = (48, 56)


def draw(seed: int, channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, channels), dtype=np.uint8)


def write_dataset(folder: Path, images: list[NDArray[np.uint8]], suffix: str = "tif") -> Path:
    """Write images with the last of four channels declared as alpha, and masks."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        path = folder / "images" / f"{number}.{suffix}"
        if suffix == "tif":
            samples = image.shape[2]
            options = {"photometric": "minisblack", "planarconfig": "contig"}
            if samples > 2:
                options = {"photometric": "rgb"} | ({"extrasamples": [2]} if samples == 4 else {})
            tifffile.imwrite(path, image[..., 0] if samples == 1 else image, **options)
        else:
            Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(path)
        mask = np.zeros(SIZE, np.uint8)
        mask[9 + number : 30, 8:30] = 255
        Image.fromarray(mask).save(folder / "labels" / f"{number}.png")
    return folder


def with_alpha(seed: int, varies: bool) -> NDArray[np.uint8]:
    image = draw(seed, 4)
    if not varies:
        image[..., 3] = 255
    return image


def texts(check: DatasetCheck) -> str:
    return "\n".join((*check.notes, *map(str, check.problems)))


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_alpha_that_varies_in_most_images_is_data(suffix: str, tmp_path: Path) -> None:
    images = [with_alpha(seed, varies=seed > 0) for seed in range(4)]
    check = check_dataset(write_dataset(tmp_path, images, suffix))
    assert check.fingerprint is not None
    assert check.fingerprint.channels == 4
    assert not check.problems
    assert "the channel that the file calls alpha is read as the last channel" in texts(check)
    assert "4 channels, uint8" in texts(check)
    assert check.pairing is not None
    assert check.mapping is not None
    example = Examples(check.pairing.pairs, check.mapping, channels=4, memory=0)[2]
    np.testing.assert_array_equal(example.image_cyx, np.moveaxis(images[2], 2, 0))


def test_alpha_that_varies_in_few_images_is_dropped_with_a_warning(tmp_path: Path) -> None:
    check = check_dataset(write_dataset(tmp_path, [with_alpha(seed, varies=seed == 1) for seed in range(4)]))
    assert check.fingerprint is not None
    assert check.fingerprint.channels == 3
    (problem,) = check.problems
    assert problem.severity == "warning"
    assert problem.where == str(tmp_path / "images" / "1.tif")
    assert "the alpha channel is not constant, but it is dropped" in problem.description
    assert problem.remedy == "If it holds data, train with --set data.channels=4"
    assert "the constant alpha channel is dropped" in texts(check)
    kept = check_dataset(tmp_path, settings=DataSettings(channels=4))
    assert kept.fingerprint is not None
    assert kept.fingerprint.channels == 4
    assert not kept.problems


@pytest.mark.parametrize(("channels", "warnings"), [(3, 1), (4, 0)])
def test_the_setting_decides_about_alpha(channels: int, warnings: int, tmp_path: Path) -> None:
    write_dataset(tmp_path, [with_alpha(seed, varies=True) for seed in range(4)])
    check = check_dataset(tmp_path, settings=DataSettings(channels=channels))
    assert check.fingerprint is not None
    assert check.fingerprint.channels == channels
    assert len(check.problems) == warnings


def test_constant_alpha_is_dropped_with_a_note(tmp_path: Path) -> None:
    check = check_dataset(write_dataset(tmp_path, [with_alpha(seed, varies=False) for seed in range(4)]))
    assert check.fingerprint is not None
    assert check.fingerprint.channels == 3
    assert check.fingerprint.color
    assert not check.problems
    assert "the constant alpha channel is dropped" in texts(check)


def test_grey_images_join_colours(tmp_path: Path) -> None:
    check = check_dataset(write_dataset(tmp_path, [draw(seed, 1 if seed == 3 else 3) for seed in range(5)]))
    assert not check.fatal
    assert check.fingerprint is not None
    assert check.fingerprint.color
    assert "grey images are repeated to match RGB" in texts(check)


@pytest.mark.parametrize("channels", [2, 3])
def test_grey_images_join_no_other_channels(channels: int, tmp_path: Path) -> None:
    write_dataset(tmp_path, [draw(seed, 1) for seed in range(5)])
    for number in range(4):
        planes = np.moveaxis(draw(number, channels), 2, 0)
        tifffile.imwrite(
            tmp_path / "images" / f"{number}.tif", planes, photometric="minisblack", metadata={"axes": "CYX"}
        )
    check = check_dataset(tmp_path)
    assert check.fatal
    assert f"the image has 1 channel and the net takes {channels}" in texts(check)
    assert check.fingerprint is not None
    assert not check.fingerprint.color


def test_grey_images_may_fill_three_channels(tmp_path: Path) -> None:
    write_dataset(tmp_path, [draw(seed, 1) for seed in range(4)])
    check = check_dataset(tmp_path, settings=DataSettings(channels=3))
    assert not check.fatal
    assert check.fingerprint is not None
    assert check.fingerprint.color


def test_alpha_is_the_mask_of_label_images_of_one_colour(tmp_path: Path) -> None:
    write_dataset(tmp_path, [draw(seed, 3) for seed in range(4)])
    for path in sorted((tmp_path / "labels").iterdir()):
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.dstack([np.full((*SIZE, 3), 255, np.uint8), mask])).save(path)
    check = check_dataset(tmp_path)
    assert not check.problems
    assert check.mapping is not None
    assert check.mapping.kind == "binary"
    assert "the colour is constant, so the alpha channel is the mask" in texts(check)
