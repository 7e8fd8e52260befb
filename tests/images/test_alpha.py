"""Check channels that a file calls alpha: dropped or kept as expected, the same in windows, and never silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from septa.errors import InputError
from septa.images import open_source, read_image, read_info, read_labels
from septa.notices import Notices

RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
VARIED = RNG.integers(0, 256, (24, 40), dtype=np.uint8)
OPAQUE = np.full((24, 40), 255, np.uint8)
MASK = np.where(np.indices((24, 40)).sum(0) % 9 < 4, 255, 0).astype(np.uint8)
WRITERS = ("png", "tif", "tiled.tif", "planar.tif")


def write_rgba(folder: Path, kind: str, alpha_yx: NDArray[np.uint8], colors: NDArray[np.uint8] = RGB) -> Path:
    path, rgba = folder / f"a.{kind}", np.dstack([colors, alpha_yx])
    options: dict[str, Any] = {"photometric": "rgb" if colors.ndim == 3 else "minisblack", "extrasamples": [2]}
    if kind == "png":
        Image.fromarray(rgba).save(path)
    elif kind == "planar.tif":
        tifffile.imwrite(path, np.moveaxis(rgba, 2, 0), planarconfig="separate", **options)
    else:
        tifffile.imwrite(path, rgba, planarconfig="contig", tile=(16, 16) if "tiled" in kind else None, **options)
    return path


def read_windowed(path: Path, channels: int | None) -> tuple[NDArray[Any], list[str]]:
    notices = Notices()
    with open_source(path, channels=channels, notices=notices) as source:
        parts = [source.read((top, top + 8), (0, 40)) for top in (0, 8, 16)]
    return np.concatenate(parts, axis=1), notices.lines()


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("channels", [None, 3])
def test_a_constant_alpha_is_dropped_with_a_note(kind: str, channels: int | None, tmp_path: Path) -> None:
    path = write_rgba(tmp_path, kind, OPAQUE)
    notices = Notices()
    np.testing.assert_array_equal(read_image(path, channels=channels, notices=notices), np.moveaxis(RGB, 2, 0))
    assert notices.lines() == [f"note: {path}: the constant alpha channel is dropped."]
    windowed, lines = read_windowed(path, channels)
    np.testing.assert_array_equal(windowed, np.moveaxis(RGB, 2, 0))
    assert len(lines) == 1
    assert "alpha" in lines[0]
    assert lines[0].startswith("note")


@pytest.mark.parametrize("kind", WRITERS)
def test_an_alpha_that_varies_is_dropped_with_a_warning(kind: str, tmp_path: Path) -> None:
    path = write_rgba(tmp_path, kind, VARIED)
    notices = Notices()
    assert len(read_image(path, channels=3, notices=notices)) == 3
    (line,) = notices.lines()
    assert line.startswith(f"warning: {path}: the alpha channel is not constant, but it is dropped")
    windowed, lines = read_windowed(path, 3)
    assert len(windowed) == 3
    assert line in lines


@pytest.mark.parametrize("kind", WRITERS)
def test_alpha_is_a_channel_where_one_more_is_expected(kind: str, tmp_path: Path) -> None:
    path = write_rgba(tmp_path, kind, VARIED)
    expected = np.concatenate([np.moveaxis(RGB, 2, 0), VARIED[None]])
    notices = Notices()
    np.testing.assert_array_equal(read_image(path, channels=4, notices=notices), expected)
    text = "the channel that the file calls alpha is read as the last channel"
    assert notices.lines() == [f"note: {path}: {text}."]
    windowed, lines = read_windowed(path, 4)
    np.testing.assert_array_equal(windowed, expected)
    assert lines == notices.lines()
    assert read_info(path).channels == 3
    assert read_info(path).alpha


def test_alpha_that_differs_only_between_windows_is_found(tmp_path: Path) -> None:
    alpha_yx = np.repeat(np.uint8([0, 100, 255]), 8)[:, None] + np.zeros((1, 40), np.uint8)
    path = write_rgba(tmp_path, "tiled.tif", alpha_yx)
    assert "warning" in str(read_windowed(path, 3)[1])


@pytest.mark.parametrize("extra", [0, None])
def test_a_fourth_channel_that_is_not_called_alpha_is_data(extra: int | None, tmp_path: Path) -> None:
    rgba = np.dstack([RGB, OPAQUE])
    path = tmp_path / "a.tif"
    if extra is None:
        tifffile.imwrite(path, rgba, photometric="minisblack", planarconfig="contig")
    else:
        tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=[extra])
    notices = Notices()
    np.testing.assert_array_equal(read_image(path, channels=3, notices=notices), np.moveaxis(rgba, 2, 0))
    assert notices.lines() == []
    np.testing.assert_array_equal(read_windowed(path, 3)[0], np.moveaxis(rgba, 2, 0))


def test_the_transparency_of_a_palette_is_alpha(tmp_path: Path) -> None:
    image = Image.fromarray(MASK // 255)
    image.putpalette([255, 255, 255, 255, 255, 255])
    image.save(tmp_path / "a.png", transparency=bytes([0, 255]))
    notices = Notices()
    assert len(read_image(tmp_path / "a.png", notices=notices)) == 3
    assert any(line.startswith("warning") and "alpha" in line for line in notices.lines())
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png").array, MASK // 255)


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("colors", [np.full((24, 40, 3), 255, np.uint8), np.full((24, 40), 7, np.uint8)])
@pytest.mark.parametrize("alpha_yx", [MASK, np.zeros_like(MASK)])
def test_alpha_is_the_mask_of_labels_of_one_colour(
    kind: str, colors: NDArray[np.uint8], alpha_yx: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = write_rgba(tmp_path, kind, alpha_yx, colors)
    notices = Notices()
    raw = read_labels(path, notices=notices)
    assert raw.kind == "index"
    np.testing.assert_array_equal(raw.array, alpha_yx)
    assert notices.lines() == [f"note: {path}: the colour is constant, so the alpha channel is the mask."]


def test_soft_alpha_of_labels_of_one_colour_is_refused(tmp_path: Path) -> None:
    path = write_rgba(tmp_path, "png", VARIED, np.full((24, 40, 3), 255, np.uint8))
    with pytest.raises(InputError, match=r"alpha channel of \d+ values.* set data.threshold=128"):
        read_labels(path)
    raw = read_labels(path, threshold=128)
    np.testing.assert_array_equal(raw.array, np.where(VARIED >= 128, 255, 0))


def test_alpha_that_colours_imply_is_dropped_with_a_note(tmp_path: Path) -> None:
    ids = np.dstack([MASK, MASK // 2, MASK])
    path = write_rgba(tmp_path, "png", MASK, ids)
    notices = Notices()
    np.testing.assert_array_equal(read_labels(path, notices=notices).array, ids)
    assert "the colours already differ where it does" in notices.lines()[0]
    notices = Notices()
    read_labels(write_rgba(tmp_path, "png", OPAQUE, ids), notices=notices)
    assert "the constant alpha channel is dropped" in notices.lines()[0]


def test_alpha_that_tells_one_colour_apart_is_refused(tmp_path: Path) -> None:
    path = write_rgba(tmp_path, "png", VARIED, np.dstack([MASK, MASK, MASK]))
    with pytest.raises(InputError, match=r"colour and alpha of the labels both vary.*without transparency"):
        read_labels(path)
