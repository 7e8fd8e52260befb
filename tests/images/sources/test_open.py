"""Sources in general: files that are decoded whole, the choice of channels, and what is no image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from septa.errors import InputError
from septa.images.read import read_image
from septa.images.sources.open import open_source

RGB = np.random.default_rng(3).integers(0, 256, (40, 30, 3), dtype=np.uint8)
SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif"])
def test_other_files_are_held_whole(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path)
    expected = read_image(path)
    with open_source(path) as source:
        assert (source.axes, source.shape, source.levels) == ("CYX", (1, 3, 1, 40, 30), ((40, 30),))
        np.testing.assert_array_equal(source.read((3, 9), (5, 30)), expected[:, 3:9, 5:])
        window = source.read((3, 9), (5, 30))
        window[:] = 0
        np.testing.assert_array_equal(source.read((3, 9), (5, 30)), expected[:, 3:9, 5:])


def test_channels_in_any_order(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with open_source(tmp_path / "a.png", channels=(2, 0)) as source:
        assert (source.shape, source.channels, source.channel_names) == ((1, 2, 1, 40, 30), (2, 0), ("blue", "red"))
        np.testing.assert_array_equal(source.read((0, 40), (0, 30)), np.moveaxis(RGB[..., [2, 0]], 2, 0))


@pytest.mark.parametrize("channels", [[3], [-1], [0, 0], []])
def test_channels_that_are_not_there(channels: list[int], tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: .*the image has channels 0 to 2"):
        open_source(tmp_path / "a.png", channels=channels)


@pytest.mark.parametrize(("y", "x"), [((0, 41), (0, 1)), ((5, 5), (0, 1)), ((0, 1), (-1, 4)), ((9, 3), (0, 1))])
def test_windows_outside(y: tuple[int, int], x: tuple[int, int], tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with open_source(tmp_path / "a.png") as source, pytest.raises(ValueError, match="does not lie inside"):
        source.read(y, x)


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    for path, problem in (
        (tmp_path / "a.txt", "is no PNG"),
        (tmp_path / "b", "No such file"),
        (tmp_path, "no OME-Zarr"),
    ):
        with pytest.raises(InputError, match=problem):
            open_source(path)


def test_limits_of_held_images(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="more than the limit"):
        open_source(tmp_path / "a.png", max_pixels=100)
    with pytest.raises(InputError, match="there is no level 1"):
        open_source(tmp_path / "a.png", level=1)
    with pytest.raises(InputError, match="there is no image 1"):
        open_source(tmp_path / "a.png", image=1)


def test_real_images() -> None:
    """A few files of the shared data: each window is that of `read_image`."""
    files = sorted(path for path in SHARED.rglob("*") if path.suffix in (".png", ".jpg", ".bmp", ".tif"))[::150]
    if not files:
        pytest.skip("no shared images here")
    for path in files:
        expected = read_image(path)
        with open_source(path) as source:
            height, width = source.shape[3:]
            y, x = (height // 3, height), (width // 4, width // 2)
            np.testing.assert_array_equal(source.read(y, x), expected[:, y[0] : y[1], x[0] : x[1]])
