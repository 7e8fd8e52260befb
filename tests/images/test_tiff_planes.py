"""Check that a strip or tile without all its data is refused, whole and in windows alike, and never shown as black."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from septa.errors import InputError
from septa.images import open_source, read_image, read_labels

RNG = np.random.default_rng(5)
GREY = RNG.integers(1, 256, (64, 96), dtype=np.uint8)
OFFSETS, SIZES = {False: 273, True: 324}, {False: 279, True: 325}
KINDS: dict[str, dict[str, Any]] = {
    "strips": {"rowsperstrip": 16},
    "compressed strips": {"rowsperstrip": 16, "compression": "zlib"},
    "tiles": {"tile": (16, 32)},
    "compressed tiles": {"tile": (16, 32), "compression": "lzw"},
    "one strip": {"rowsperstrip": 64},
}


def replace_entry(path: Path, tag: int, index: int, value: int) -> None:
    """Replace one number in a list of the first directory of a TIFF file."""
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        entry = file.pages.first.tags[tag]
        size = 4 if entry.dtype == 4 else 2
        start = entry.valueoffset + index * size
    data[start : start + size] = struct.pack("<I" if size == 4 else "<H", value)
    path.write_bytes(data)


def read_errors(path: Path) -> set[str]:
    """Return the errors of the whole image, of the labels, and of a window of all rows."""
    texts = set()
    for read in (read_image, read_labels, read_window):
        with pytest.raises(InputError) as caught:
            read(path)
        texts.add(str(caught.value).removeprefix(f"{path}: "))
    return texts


def read_window(path: Path) -> None:
    with open_source(path) as source:
        source.read((0, 64), (0, 96))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lacks", ["size", "both"])
def test_a_part_without_data_is_refused_in_both(kind: str, lacks: str, tmp_path: Path) -> None:
    options, path = KINDS[kind], tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, **options)
    tiled, part = "tile" in options, 0 if kind == "one strip" else 2
    replace_entry(path, SIZES[tiled], part, 0)
    if lacks == "both":
        replace_entry(path, OFFSETS[tiled], part, 0)
    name = f"{'tile' if tiled else 'strip'} {part}"
    remedy = "Save the image again with all its pixels; sparse TIFF files leave parts out."
    assert read_errors(path) == {f"{name} of the image has no data. {remedy}"}


def test_windows_beside_a_part_without_data_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, tile=(16, 32), compression="zlib")
    replace_entry(path, SIZES[True], 3, 0)
    with open_source(path) as source:
        np.testing.assert_array_equal(source.read((0, 16), (0, 96))[0], GREY[:16])
        with pytest.raises(InputError, match="tile 3 of the image has no data"):
            source.read((15, 17), (0, 96))


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_cut_short_is_refused_in_both(kind: str, tmp_path: Path) -> None:
    options, path = KINDS[kind], tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, **options)
    replace_entry(path, SIZES["tile" in options], 0 if kind == "one strip" else 2, 9)
    (text,) = read_errors(path)
    assert text.startswith("the TIFF data cannot be decoded")


@pytest.mark.parametrize("options", [{"rowsperstrip": 16}, {"tile": (32, 32)}])
def test_a_jpeg_part_cut_short_is_refused_in_both(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, compression="jpeg", **options)
    assert read_image(path).shape == (1, 64, 96)
    with tifffile.TiffFile(path) as file:
        size = file.pages.first.databytecounts[1]
    replace_entry(path, SIZES["tile" in options], 1, size // 2)
    name = "tile 1" if "tile" in options else "strip 1"
    for read in (read_image, read_window):
        with pytest.raises(InputError, match=f"{name} is cut short"):
            read(path)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_compression_is_right_or_refused(compression: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = np.indices((64, 96)).sum(0) // 7 % 3 == 0
    Image.fromarray(pixels).save(path, compression=compression)
    np.testing.assert_array_equal(read_image(path)[0], pixels)
    np.testing.assert_array_equal(read_labels(path).array, pixels)
    with open_source(path) as source:
        np.testing.assert_array_equal(source.read((9, 50), (3, 77))[0], pixels[9:50, 3:77])
    with tifffile.TiffFile(path) as file:
        size = file.pages.first.databytecounts[0]
    for left in (size * 9 // 10, size // 2, 3):
        replace_entry(path, SIZES[False], 0, left)
        (text,) = read_errors(path)
        assert text.startswith("the TIFF data cannot be decoded")


def test_pages_whose_strips_lie_apart_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.stack([GREY, GREY // 2]), rowsperstrip=16, photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        offsets = file.pages[1].tags[273]
        first, second = offsets.value[:2]
        start = offsets.valueoffset
    data = bytearray(path.read_bytes())
    data[start : start + 8] = struct.pack("<II", second, first)
    path.write_bytes(data)
    expected = GREY // 2
    expected = np.concatenate([expected[16:32], expected[:16], expected[32:]])
    np.testing.assert_array_equal(read_image(path, 1)[0], expected)
    with open_source(path) as source:
        np.testing.assert_array_equal(source.read((0, 64), (0, 96), z=1)[0], expected)
