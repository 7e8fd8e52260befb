"""Check reading: every format against its own encoder, pages and channels, labels, and damaged files."""

from __future__ import annotations

import io
import logging
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from septa.errors import InputError, escape_controls
from septa.images.read import MAX_PIXELS, read_image, read_info, read_labels

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (13, 21), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (13, 21), dtype=np.uint16)
RGB = RNG.integers(0, 256, (13, 21, 3), dtype=np.uint8)
INDICES = RNG.integers(0, 5, (13, 21), dtype=np.uint8)
COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [7, 8, 9], [200, 100, 50]], np.uint8)


def pillow_bytes(image: Any, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, file_format, **options)
    return buffer.getvalue()


def tiff_bytes(array: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def palette_image() -> Image.Image:
    image = Image.fromarray(INDICES)
    image.putpalette(COLORS.tobytes())
    return image


def oriented(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = value
    return exif


def channels_first(array: NDArray[Any]) -> NDArray[Any]:
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    def write(data: bytes, name: str = "image.bin") -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


RGBA = np.dstack([RGB, GREY])
GREY_ALPHA = np.dstack([GREY, GREY[::-1]])
RGB16 = RGB.astype(np.uint16) * 251 + 3
RASTERS = {
    "png grey": (pillow_bytes(GREY, "PNG"), "png", channels_first(GREY), False),
    "png rgb": (pillow_bytes(RGB, "PNG"), "png", channels_first(RGB), False),
    "png rgba": (pillow_bytes(RGBA, "PNG"), "png", channels_first(RGB), True),
    "png grey alpha": (pillow_bytes(GREY_ALPHA, "PNG"), "png", channels_first(GREY), True),
    "png 1 bit": (pillow_bytes(GREY > 99, "PNG"), "png", channels_first((GREY > 99).astype(np.uint8)), False),
    "png 16": (pillow_bytes(DEEP, "PNG"), "png", channels_first(DEEP), False),
    "png 16 rgb": (imagecodecs.png_encode(RGB16), "png", channels_first(RGB16), False),
    "png 16 rgba": (imagecodecs.png_encode(np.dstack([RGB16, DEEP])), "png", channels_first(RGB16), True),
    "png 16 grey alpha": (imagecodecs.png_encode(np.dstack([DEEP, DEEP])), "png", channels_first(DEEP), True),
    "png palette": (pillow_bytes(palette_image(), "PNG", bits=4), "png", channels_first(COLORS[INDICES]), False),
    "bmp grey": (pillow_bytes(GREY, "BMP"), "bmp", channels_first(GREY), False),
    "bmp rgb": (pillow_bytes(RGB, "BMP"), "bmp", channels_first(RGB), False),
    "bmp palette": (pillow_bytes(palette_image(), "BMP"), "bmp", channels_first(COLORS[INDICES]), False),
    "gif": (pillow_bytes(palette_image(), "GIF"), "gif", channels_first(COLORS[INDICES]), False),
}


@pytest.mark.parametrize("name", RASTERS)
def test_rasters(name: str, put: Callable[..., Path]) -> None:
    data, file_format, expected, alpha = RASTERS[name]
    # The format is detected from the content, not from the suffix.
    path = put(data, "wrong.tif")
    info, image = read_info(path), read_image(path)
    np.testing.assert_array_equal(image, expected)
    assert image.dtype == expected.dtype
    assert (info.format, info.alpha, info.pages) == (file_format, alpha, 1)
    assert (info.channels, info.height, info.width) == expected.shape
    assert info.dtype == expected.dtype
    assert info.palette == ("palette" in name or name == "gif")


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_is_what_pillow_decodes(mode: str, put: Callable[..., Path]) -> None:
    path = put(pillow_bytes(Image.fromarray(RGB).convert(mode), "JPEG", quality=80))
    decoded = Image.open(path)
    expected = np.asarray(decoded.convert("RGB") if mode == "CMYK" else decoded)
    np.testing.assert_array_equal(read_image(path), channels_first(expected))
    assert read_info(path).format == "jpeg"


def test_gif_gives_its_first_frame(put: Callable[..., Path]) -> None:
    second = Image.fromarray(np.full_like(GREY, 7))
    path = put(pillow_bytes(GREY, "GIF", save_all=True, append_images=[second]))
    assert read_info(path).pages == 1
    np.testing.assert_array_equal(read_image(path)[0], GREY)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_png_of_few_bits_is_not_stretched(bits: int, put: Callable[..., Path]) -> None:
    values = RNG.integers(0, 2**bits, (3, 16), dtype=np.uint8)
    packed = [
        bytes(
            sum(int(value) << (8 - bits * (i + 1)) for i, value in enumerate(group))
            for group in row.reshape(-1, 8 // bits)
        )
        for row in values
    ]

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 3, bits, 0, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in packed))) + chunk(b"IEND", b"")
    path = put(data)
    np.testing.assert_array_equal(read_labels(path).array, values)
    np.testing.assert_array_equal(read_image(path)[0], values)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(file_format: str, orientation: int, put: Callable[..., Path]) -> None:
    path = put(pillow_bytes(RGB, file_format, exif=oriented(orientation)))
    with Image.open(path) as image:
        expected = channels_first(np.asarray(ImageOps.exif_transpose(image)))
    np.testing.assert_array_equal(read_image(path), expected)
    info = read_info(path)
    assert (info.orientation, info.height, info.width) == (orientation, *expected.shape[1:])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_tiff_is_that_of_pillow(orientation: int, put: Callable[..., Path]) -> None:
    path = put(tiff_bytes(GREY, extratags=[(274, 3, 1, orientation, True)]))
    with Image.fromarray(GREY) as image:
        image.getexif()[274] = orientation
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(path)[0], expected)
    assert (read_info(path).height, read_info(path).width) == expected.shape


def test_orientation_of_tiff(put: Callable[..., Path]) -> None:
    path = put(tiff_bytes(GREY, extratags=[(274, 3, 1, 6, True)], resolution=(20000, 40000), resolutionunit=3))
    info = read_info(path)
    np.testing.assert_array_equal(read_image(path)[0], np.rot90(GREY, -1))
    assert (info.height, info.width) == GREY.shape[::-1]
    # 20000 pixels per cm along the stored rows, which become columns.
    assert info.pixel_size_um == (0.5, 0.25)


HYPER = RNG.integers(0, 65536, (2, 3, 4, 5, 6), dtype=np.uint16)
STACK = RNG.integers(0, 255, (4, 10, 11), dtype=np.uint8)
PAGED = {
    # Bytes, and the expected array with axes (page, channel, Y, X).
    "ome TZCYX": (tiff_bytes(HYPER, ome=True, metadata={"axes": "TZCYX"}), HYPER.reshape(6, 4, 5, 6)),
    "ome CZYX": (
        tiff_bytes(HYPER[0], ome=True, metadata={"axes": "CZYX"}, tile=(16, 16), compression="zstd", bigtiff=True),
        HYPER[0].transpose(1, 0, 2, 3),
    ),
    "imagej": (tiff_bytes(HYPER, imagej=True, metadata={"axes": "TZCYX"}), HYPER.reshape(6, 4, 5, 6)),
    "imagej slices": (tiff_bytes(STACK, imagej=True, metadata={"axes": "ZYX"}), STACK[:, None]),
    "plain pages": (tiff_bytes(STACK, photometric="minisblack", metadata=None), STACK[:, None]),
    "shaped pages": (tiff_bytes(STACK, photometric="minisblack", compression="lzma"), STACK[:, None]),
    "shaped channels": (tiff_bytes(STACK, photometric="minisblack", metadata={"axes": "CYX"}), STACK[None]),
    "one directory": (tiff_bytes(STACK, photometric="minisblack", truncate=True), STACK[:, None]),
    "volume": (tiff_bytes(STACK, photometric="minisblack", volumetric=True, tile=(16, 16, 16)), STACK[:, None]),
    "rgb": (tiff_bytes(RGB, photometric="rgb", compression="lzw", predictor=True), channels_first(RGB)[None]),
    "planar": (
        tiff_bytes(channels_first(RGB), photometric="rgb", planarconfig="separate"),
        channels_first(RGB)[None],
    ),
    "rgba": (tiff_bytes(RGBA, photometric="rgb", extrasamples=["unassalpha"]), channels_first(RGB)[None]),
    "five samples": (
        tiff_bytes(np.dstack([RGB, GREY_ALPHA]), photometric="minisblack", planarconfig="contig", metadata=None),
        channels_first(np.dstack([RGB, GREY_ALPHA]))[None],
    ),
    "palette": (
        tiff_bytes(
            INDICES, photometric="palette", colormap=np.pad(COLORS.T.astype(np.uint16) * 257, ((0, 0), (0, 251)))
        ),
        channels_first(COLORS[INDICES])[None],
    ),
    "imagej screen colours": (
        tiff_bytes(GREY, imagej=True, photometric="palette", colormap=np.zeros((3, 256), np.uint16)),
        GREY[None, None],
    ),
    "1 pixel": (tiff_bytes(GREY[:1, :1]), GREY[None, None, :1, :1]),
}


@pytest.mark.parametrize("name", PAGED)
def test_tiff_pages_and_channels(name: str, put: Callable[..., Path]) -> None:
    data, expected = PAGED[name]
    path = put(data, "any.png")
    info = read_info(path)
    assert (info.pages, info.channels, info.height, info.width) == expected.shape
    assert (info.format, info.palette) == ("tiff", name == "palette")
    for page in range(info.pages):
        image = read_image(path, page)
        np.testing.assert_array_equal(image, expected[page])
        assert image.dtype == info.dtype == expected.dtype


def test_images_written_one_by_one_are_pages(tmp_path: Path) -> None:
    path = tmp_path / "series.tif"
    with tifffile.TiffWriter(path) as writer:
        for plane in STACK:
            writer.write(plane)
    assert read_info(path).pages == 4
    np.testing.assert_array_equal(read_image(path, 2)[0], STACK[2])


def test_pyramid_gives_its_full_size(tmp_path: Path) -> None:
    path, image = tmp_path / "pyramid.tif", np.tile(STACK[:2, :8, :8], (1, 8, 8))
    options: dict[str, Any] = {"photometric": "minisblack", "tile": (16, 16)}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(image, subifds=1, metadata={"axes": "CYX"}, **options)
        writer.write(image[:, ::2, ::2], subfiletype=1, **options)
    assert read_info(path).pages == 1
    np.testing.assert_array_equal(read_image(path), image)


def test_pages_of_different_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mixed.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(GREY, metadata=None)
        writer.write(GREY[:5], metadata=None)
    with pytest.raises(InputError, match="different"):
        read_info(path)


def test_one_page_is_read_without_the_others(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, STACK, photometric="minisblack", metadata=None, compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset, size = file.pages[1].dataoffsets[0], file.pages[1].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = bytes(size)
    path.write_bytes(data)
    np.testing.assert_array_equal(read_image(path, 2)[0], STACK[2])
    with pytest.raises(InputError):
        read_image(path, 1)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits", "zstd", "lzma", "jpeg2000", "png", "none"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_tiff_compressions(compression: str, tile: tuple[int, int] | None, put: Callable[..., Path]) -> None:
    image = np.tile(GREY, (3, 3))
    # Level 0 of JPEG 2000 is lossless.
    extra = {"compressionargs": {"level": 0}} if compression == "jpeg2000" else {}
    path = put(tiff_bytes(image, compression=compression, tile=tile, **extra))
    np.testing.assert_array_equal(read_image(path)[0], image)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    ("stored", "returned"),
    [
        *((code, code) for code in ("u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8")),
        ("?", "u1"),
        ("f2", "f4"),
        ("u8", "f8"),
        ("i8", "f8"),
    ],
)
def test_tiff_types(byteorder: Any, stored: str, returned: str, put: Callable[..., Path]) -> None:
    values = (GREY > 99) if stored == "?" else (GREY // 2).astype(stored)
    path = put(tiff_bytes(values, byteorder=byteorder, photometric="minisblack"))
    image = read_image(path)
    assert image.dtype == read_info(path).dtype == np.dtype(returned)
    assert image.dtype.isnative
    np.testing.assert_array_equal(image[0], values)


def test_complex_samples_are_refused(put: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="complex"):
        read_image(put(tiff_bytes(GREY.astype(np.complex64))))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resolution": (20000, 40000), "resolutionunit": "CENTIMETER"}, (0.25, 0.5)),
        ({"resolution": (50800, 50800), "resolutionunit": "INCH"}, (0.5, 0.5)),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"resolution": (1, 1), "resolutionunit": "CENTIMETER"}, None),
        ({"resolution": (4, 2), "imagej": True, "metadata": {"unit": "um"}}, (0.5, 0.25)),
        ({"resolution": (4, 2), "imagej": True, "metadata": {"unit": "\\u00B5m"}}, (0.5, 0.25)),
        ({"resolution": (4, 2), "imagej": True, "metadata": {"unit": "pixel"}}, None),
        ({"resolution": (4, 2), "imagej": True}, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}}, (0.5, 0.25)),
        (
            {"ome": True, "metadata": {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5}},
            (0.5, 0.25),
        ),
        ({"ome": True}, None),
        ({}, None),
    ],
)
def test_pixel_size(options: dict[str, Any], expected: tuple[float, float] | None, put: Callable[..., Path]) -> None:
    found = read_info(put(tiff_bytes(GREY, **options))).pixel_size_um
    assert found == (expected and pytest.approx(expected, rel=1e-6))


def test_page_out_of_range(put: Callable[..., Path]) -> None:
    for data, pages in ((PAGED["plain pages"][0], 4), (RASTERS["png grey"][0], 1)):
        path = put(data)
        for page in (-1, pages):
            with pytest.raises(InputError, match=f"pages 0 to {pages - 1}"):
                read_image(path, page)


# --- labels


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
def test_palette_labels_are_indices(kind: str, put: Callable[..., Path]) -> None:
    raw = read_labels(put(pillow_bytes(palette_image(), kind)))
    assert raw.kind == "index"
    np.testing.assert_array_equal(raw.array, INDICES)
    assert raw.palette is not None
    assert raw.palette.dtype == np.uint8
    np.testing.assert_array_equal(raw.palette[:5], COLORS)


def test_labels_of_each_kind(put: Callable[..., Path]) -> None:
    grey_as_rgb, planes = np.dstack([GREY] * 3), channels_first(RGB)
    cases: list[tuple[bytes, str, NDArray[Any]]] = [
        (pillow_bytes(DEEP, "PNG"), "index", DEEP),
        (pillow_bytes(RGB, "PNG"), "rgb", RGB),
        (pillow_bytes(RGBA, "PNG"), "rgb", RGB),
        (pillow_bytes(grey_as_rgb, "PNG"), "index", GREY),
        (tiff_bytes(RGB, photometric="rgb"), "rgb", RGB),
        (tiff_bytes(RGB.astype(np.uint16) * 257, photometric="rgb"), "rgb", RGB),
        (tiff_bytes(planes, photometric="minisblack", metadata={"axes": "CYX"}), "channels", planes),
        (tiff_bytes(GREY.astype(np.float32)), "index", GREY),
        (tiff_bytes(GREY > 99, photometric="minisblack"), "index", GREY > 99),
        (tiff_bytes(GREY.astype(np.int64) - 1), "index", GREY.astype(np.int64) - 1),
    ]
    for data, kind, expected in cases:
        raw = read_labels(put(data))
        assert (raw.kind, raw.palette) == (kind, None)
        assert raw.array.dtype.kind in "iu"
        np.testing.assert_array_equal(raw.array, expected)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pillow_bytes(GREY, "JPEG"), "JPEG"),
        (tiff_bytes(GREY, compression="jpeg"), "JPEG"),
        (pillow_bytes(GREY, "PNG", exif=oriented(3)), "orientation"),
        (tiff_bytes(GREY, extratags=[(274, 3, 1, 8, True)]), "orientation"),
        (tiff_bytes(GREY.astype(np.float32) + 0.5), "whole numbers"),
        (tiff_bytes(np.full((4, 4), np.nan, np.float32)), "whole numbers"),
        (imagecodecs.png_encode(RGB16), "uint16"),
    ],
)
def test_labels_that_are_refused(data: bytes, said: str, put: Callable[..., Path]) -> None:
    path = put(data, "labels.png")
    with pytest.raises(InputError, match=said) as caught:
        read_labels(path)
    assert str(caught.value).startswith(f"{path}: ")
    # The same file is a valid image.
    read_image(path)


# --- limits and damage


def test_size_is_checked_before_decoding(put: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(pillow_bytes(GREY, "PNG"))
    with pytest.raises(InputError, match="--max-pixels 273"):
        read_image(path, max_pixels=GREY.size - 1)
    read_image(path, max_pixels=GREY.size)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    read_image(path)
    read_image(put(pillow_bytes(GREY, "GIF")))
    assert Image.MAX_IMAGE_PIXELS == 10


def bomb(file_format: str) -> bytes:
    """Build a small file whose header promises 60000 x 60000 pixels."""
    if file_format == "png":
        data = bytearray(pillow_bytes(GREY, "PNG"))
        struct.pack_into(">II", data, 16, 60000, 60000)
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    elif file_format == "tiff":
        data = bytearray(tiff_bytes(GREY, compression="zlib", metadata=None))
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
                tag = file.pages.first.tags[name]
                struct.pack_into("<H" if tag.dtype == 3 else "<I", data, tag.valueoffset, 60000)
    elif file_format == "bmp":
        data = bytearray(pillow_bytes(GREY, "BMP"))
        struct.pack_into("<II", data, 18, 60000, 60000)
    else:
        data = bytearray(pillow_bytes(GREY, "GIF"))
        struct.pack_into("<HH", data, 6, 60000, 60000)
    return bytes(data)


@pytest.mark.parametrize("file_format", ["png", "tiff", "bmp", "gif"])
def test_bombs_are_refused_from_the_header(file_format: str, put: Callable[..., Path]) -> None:
    assert MAX_PIXELS < 60000 * 60000
    path = put(bomb(file_format))
    for read in (read_info, read_image, read_labels):
        with pytest.raises(InputError, match="--max-pixels 3600000000"):
            read(path)


def test_huge_tiles_and_many_channels_count(put: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="--max-pixels"):
        read_info(put(tiff_bytes(GREY, tile=(512, 512))), max_pixels=GREY.size)
    many = tiff_bytes(np.zeros((100, 5, 5), np.uint8), photometric="minisblack", metadata={"axes": "CYX"})
    with pytest.raises(InputError, match="--max-pixels 625"):
        read_info(put(many), max_pixels=624)
    read_info(put(many), max_pixels=625)


def test_files_that_are_no_images(tmp_path: Path, put: Callable[..., Path]) -> None:
    cases = {
        put(b"", "empty.png"): "empty",
        put(b"hello world", "text.png"): "the file is not a PNG, JPEG, BMP, GIF or TIFF image",
        put(b"ZISRAWFILE" + bytes(200), "a.czi"): "CZI",
        put(b"RIFF\0\0\0\0WEBPVP8 ", "a.png"): "WebP",
        put(b"\x89PNG\r\n\x1a\n", "short.png"): "PNG",
        put(b"II*\0", "short.tif"): "TIFF",
        put(b"BM", "short.bmp"): "BMP",
        put(b"GIF89a", "short.gif"): "GIF",
        put(b"\xff\xd8\xff", "short.jpg"): "JPEG",
        tmp_path / "missing.png": "No such file",
        tmp_path: "the path is not a file",
        tmp_path / "nul\0.png": "cannot be read",
    }
    for path, said in cases.items():
        for read in (read_info, read_image, read_labels):
            with pytest.raises(InputError, match=said) as caught:
                read(path)
            assert str(caught.value).startswith(escape_controls(f"{path}: "))
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"PK\x03\x04", "a ZIP"),
        (bytes.fromhex("1f8b08"), "a gzip"),
        (b"%PDF-1.7", "a PDF"),
        (bytes.fromhex("0000000c6a502020"), "a JPEG 2000"),
        (b"\x00\x00\x00\x18ftypheic", "a HEIF or MP4"),
    ],
)
def test_formats_of_others_are_named(head: bytes, name: str, put: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=f"the file is {name} file, which septa does not read"):
        read_info(put(head + bytes(200)))


DAMAGED = {
    **{name: case[0] for name, case in RASTERS.items() if name not in ("png grey alpha", "png 16 rgba", "bmp grey")},
    "jpeg": pillow_bytes(RGB, "JPEG", exif=oriented(6)),
    "jpeg progressive": pillow_bytes(GREY, "JPEG", progressive=True),
    "tiff zlib": tiff_bytes(RGB, photometric="rgb", compression="zlib", predictor=True),
    "tiff lzw": tiff_bytes(GREY, compression="lzw"),
    "tiff jpeg": tiff_bytes(GREY, compression="jpeg"),
    "tiff tiles": tiff_bytes(np.tile(GREY, (3, 3)), tile=(16, 16), compression="zstd", bigtiff=True),
    "tiff float": tiff_bytes(GREY.astype(np.float32), compression="zlib", predictor=True),
    **{f"tiff {name}": PAGED[name][0] for name in ("ome TZCYX", "imagej slices", "plain pages", "one directory")},
}


OWN_REASONS = (
    "",
    " (the file ends early)",
    " (a checksum does not match)",
    " (the header is missing)",
    " (septa does not read this kind)",
    " (its list of pages or their description is damaged)",
)
"""Reasons of damage that septa words itself; the messages of the decoders are not among them."""


def survives(path: Path) -> bool:
    """Return True if the file can be read.

    It fails unless the result is an array that the header describes, or an `InputError` in septa's own words.
    """
    messages: list[str] = []
    image = None
    for read in (read_info, read_labels, read_image):
        image = None
        try:
            image = read(path, max_pixels=10**6)
        except InputError as error:
            messages.append(str(error))
    for message in messages:
        assert "\n" not in message
        damage = re.search(r"data cannot be decoded(.*?)\. Copy or export it again: it is damaged", message)
        assert damage is None or damage[1] in OWN_REASONS, message
    if not isinstance(image, np.ndarray):
        return False
    info = read_info(path, max_pixels=10**6)
    assert image.shape == (info.channels, info.height, info.width)
    assert image.dtype == info.dtype
    return True


@pytest.fixture
def silence(capfd: pytest.CaptureFixture[str]) -> Any:
    # Without handlers, as in a plain process, logging prints to stderr.
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    yield
    root.handlers = handlers
    captured = capfd.readouterr()
    assert captured.err == ""
    assert captured.out == ""


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize("name", DAMAGED)
def test_truncated_files(name: str, put: Callable[..., Path]) -> None:
    data = DAMAGED[name]
    whole = read_image(put(data))
    # The first page does not need the last bytes of some formats.
    spare = {"gif": 2, "jpeg": 2, "jpeg progressive": 2, "bmp palette": 3, "bmp rgb": 3}.get(name, 0)
    for cut in sorted({*range(0, len(data), max(1, len(data) // 25)), *range(len(data) - 4, len(data))}):
        path = put(data[:cut])
        if survives(path):
            assert cut >= len(data) - spare or name.startswith("tiff"), f"{cut} of {len(data)} bytes"
            np.testing.assert_array_equal(read_image(path), whole)


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize("name", DAMAGED)
def test_flipped_bytes(name: str, put: Callable[..., Path]) -> None:
    rng = np.random.default_rng(sum(name.encode()))
    data = DAMAGED[name]
    read = 0
    for round_ in range(40):
        damaged = bytearray(data)
        # Most faults are possible in the header, so half of the damage is done there.
        position = int(rng.integers(4, min(len(data), 300) if round_ % 2 else len(data)))
        damaged[position] ^= int(rng.integers(1, 256))
        read += survives(put(bytes(damaged)))
    if name.startswith("png"):
        # Checksums find every flipped byte.
        assert read == 0


@pytest.mark.usefixtures("silence")
def test_lost_pages_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, STACK, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as file:
        third = file.pages[2].offset
    data = path.read_bytes()
    path.write_bytes(data[:third])
    for read in (read_info, read_image):
        with pytest.raises(InputError, match="TIFF"):
            read(path)


def test_log_of_other_users_of_tifffile_is_left_alone(
    put: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InputError):
        read_image(put(DAMAGED["tiff zlib"][:40]))
    assert not caplog.records
    tifffile.logger().error("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]


def test_threads_read_without_disturbing_each_other(put: Callable[..., Path]) -> None:
    paths = {name: put(case[0], name) for name, case in RASTERS.items()}
    failures: list[str] = []

    def work() -> None:
        for _ in range(10):
            failures.extend(
                name for name, path in paths.items() if not np.array_equal(read_image(path), RASTERS[name][2])
            )

    filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert warnings.filters == filters
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.skipif(not SHARED.is_dir(), reason="there is no real data in ../shared/data")
@pytest.mark.parametrize("folder", ["isbi2012", "glas", "dsb2018"])
def test_real_data_is_what_pillow_decodes(folder: str) -> None:
    for image_path in sorted((SHARED / folder / "images").iterdir())[:3]:
        with Image.open(image_path) as image:
            np.testing.assert_array_equal(read_image(image_path), channels_first(np.asarray(image)))
        labels_path = SHARED / folder / "labels" / f"{image_path.stem}.png"
        with Image.open(labels_path) as labels:
            raw = read_labels(labels_path)
            assert raw.kind == "index"
            np.testing.assert_array_equal(raw.array, np.asarray(labels))


def test_an_array_whose_last_axis_is_channels_is_not_read_as_narrow_pages(tmp_path):
    path = tmp_path / "a.tif"
    for channels in (2, 3, 4):
        tifffile.imwrite(path, np.zeros((40, 50, channels), np.uint16), photometric="minisblack")
        with pytest.raises(InputError, match=f"one image of 40 x 50 pixels whose last axis is its {channels} channels"):
            read_info(path)
    tifffile.imwrite(path, np.zeros((2, 40, 50), np.uint16), metadata={"axes": "CYX"})
    assert (read_info(path).pages, read_info(path).channels) == (1, 2)


def test_a_threshold_reads_soft_and_lossy_masks(tmp_path):
    mask = np.zeros((32, 40), np.uint8)
    mask[8:24, 8:30] = 255
    names = {"grey.jpg": mask, "rgb.jpg": np.stack([mask] * 3, axis=2)}
    for name, array in names.items():
        Image.fromarray(array).save(tmp_path / name, quality=70)
        with pytest.raises(InputError, match=r"data\.threshold=128"):
            read_labels(tmp_path / name)
        labels = read_labels(tmp_path / name, threshold=128)
        assert (labels.kind, labels.array.dtype) == ("index", np.uint8)
        assert np.array_equal(labels.array, mask)
    Image.fromarray(np.stack([mask, 0 * mask, 0 * mask], axis=2)).save(tmp_path / "red.jpg")
    with pytest.raises(InputError) as caught:
        read_labels(tmp_path / "red.jpg")
    assert "data.threshold" not in str(caught.value)
    tifffile.imwrite(tmp_path / "soft.tif", mask / np.float32(300))
    with pytest.raises(InputError, match=r"data\.threshold=0\.425"):
        read_labels(tmp_path / "soft.tif")
    assert np.array_equal(read_labels(tmp_path / "soft.tif", threshold=0.425).array, mask)
    Image.fromarray(np.stack([mask, mask, 0 * mask], axis=2)).save(tmp_path / "color.png")
    with pytest.raises(InputError, match="the labels have colours"):
        read_labels(tmp_path / "color.png", threshold=128)
