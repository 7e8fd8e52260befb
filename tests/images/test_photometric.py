"""Check the one rule of colours: the same for TIFF, PNG and JPEG, whole images and windows, and never silent."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from septa.errors import InputError
from septa.images import open_source, read_image, read_info, read_labels
from septa.notices import Notices

RNG = np.random.default_rng(11)
GREY = RNG.integers(0, 256, (24, 40), dtype=np.uint8)
RGB = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
CMYK = RNG.integers(0, 256, (24, 40, 4), dtype=np.uint8)
TABLE = RNG.integers(0, 256, (256, 3), dtype=np.uint16)
MASK = np.zeros((24, 40), np.uint8)
MASK[5:15, 8:20] = 255


def read_both(path: Path, **options: Any) -> tuple[NDArray[Any], list[str]]:
    """Read an image whole and in windows, which must be equal and say the same of it."""
    whole, windowed = Notices(), Notices()
    image_cyx = read_image(path, notices=whole, **options)
    with open_source(path, notices=windowed, **options) as source:
        assert source.shape == (1, len(image_cyx), 1, *image_cyx.shape[1:])
        assert source.dtype == image_cyx.dtype
        height, width = image_cyx.shape[1:]
        np.testing.assert_array_equal(source.read((0, height), (0, width)), image_cyx)
        np.testing.assert_array_equal(source.read((7, 20), (9, 22)), image_cyx[:, 7:20, 9:22])
        first = source.reader.read(0, 0, (len(image_cyx) - 1, 0), (3, 9), (2, 8))
        np.testing.assert_array_equal(first, image_cyx[[-1, 0], 3:9, 2:8])
    if "alpha" not in str(whole.lines()):
        assert whole.lines() == windowed.lines()
    return image_cyx, [text.removeprefix(f"note: {path}: ") for text in whole.lines()]


def replace_tag(path: Path, tag: int, value: int) -> None:
    """Replace a value of 16 bits in the first directory of a TIFF file."""
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        start = file.pages.first.tags[tag].valueoffset
    data[start : start + 2] = struct.pack("<H", value)
    path.write_bytes(data)


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"compression": "zlib", "rowsperstrip": 7}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.bool_])
def test_white_stored_as_zero_is_inverted(dtype: type, options: dict[str, Any], tmp_path: Path) -> None:
    values = (GREY > 100) if dtype is np.bool_ else GREY.astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite", **options)
    image_cyx, notes = read_both(tmp_path / "a.tif")
    expected = ~values if dtype is np.bool_ else np.iinfo(dtype).max - values
    np.testing.assert_array_equal(image_cyx[0], expected)
    assert notes == ["white is stored as 0, so the values are inverted."]


def test_only_the_stated_bits_are_inverted(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY.astype(np.uint16), photometric="miniswhite", bitspersample=12)
    assert read_both(tmp_path / "a.tif")[0].tolist() == (4095 - GREY.astype(int))[None].tolist()


def test_values_of_imagej_are_kept(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="miniswhite", imagej=True)
    image_cyx, notes = read_both(tmp_path / "a.tif")
    np.testing.assert_array_equal(image_cyx[0], GREY)
    assert notes == ["ImageJ displays the image inverted, but its values are kept as stored."]
    tifffile.imwrite(tmp_path / "b.tif", MASK, photometric="miniswhite", imagej=True)
    np.testing.assert_array_equal(read_labels(tmp_path / "b.tif").array, MASK)


def test_inverted_floats_are_kept_and_noted(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY.astype(np.float32), photometric="miniswhite")
    image_cyx, notes = read_both(tmp_path / "a.tif")
    np.testing.assert_array_equal(image_cyx[0], GREY)
    assert "means nothing for these values" in notes[0]


def test_inverted_masks_are_inverted_and_inverted_ids_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", 255 - MASK, photometric="miniswhite")
    notices = Notices()
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif", notices=notices).array, MASK)
    assert "inverted" in notices.lines()[0]
    tifffile.imwrite(tmp_path / "b.tif", np.uint8([[0, 1, 2]]), photometric="miniswhite")
    with pytest.raises(InputError, match="white is stored as 0 in the labels and they have more than two values"):
        read_labels(tmp_path / "b.tif")


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"planarconfig": "separate"}])
def test_cmyk_becomes_rgb_as_in_jpeg(options: dict[str, Any], tmp_path: Path) -> None:
    stored = np.moveaxis(CMYK, 2, 0) if options.get("planarconfig") else CMYK
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="separated", **options)
    image_cyx, notes = read_both(tmp_path / "a.tif")
    expected = np.asarray(Image.fromarray(CMYK, "CMYK").convert("RGB"))
    assert np.abs(image_cyx.astype(int) - np.moveaxis(expected, 2, 0)).max() <= 1
    assert notes == ["CMYK is converted to RGB."]
    assert read_info(tmp_path / "a.tif").channels == 3
    assert read_info(tmp_path / "a.tif").color
    with pytest.raises(InputError, match="stored as CMYK"):
        read_labels(tmp_path / "a.tif")
    smooth = np.broadcast_to(CMYK[:1, :1], CMYK.shape)
    Image.fromarray(np.ascontiguousarray(smooth), "CMYK").save(tmp_path / "a.jpg", quality=100)
    photo_cyx, notes = read_both(tmp_path / "a.jpg")
    assert notes == ["CMYK is converted to RGB."]
    assert np.abs(photo_cyx[:, 0, 0].astype(int) - expected[0, 0]).max() <= 4


def test_cmyk_of_16_bits_becomes_rgb_of_16_bits(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", CMYK.astype(np.uint16) * 257, photometric="separated")
    image_cyx, _ = read_both(tmp_path / "a.tif")
    exact = (255.0 - CMYK[..., :3]) * (255.0 - CMYK[..., 3:]) / 255 * 257
    assert np.abs(image_cyx - np.moveaxis(exact, 2, 0)).max() <= 0.5


def test_inks_that_are_not_cmyk_are_channels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", CMYK, photometric="separated", extratags=[(332, "H", 1, 2, True)])
    image_cyx, notes = read_both(tmp_path / "a.tif")
    np.testing.assert_array_equal(image_cyx, np.moveaxis(CMYK, 2, 0))
    assert notes == ["the inks are not CMYK, so each is read as a channel."]


@pytest.mark.parametrize("depth", [1, 4, 8, 16])
def test_palettes_are_applied_to_images_and_not_to_labels(depth: int, tmp_path: Path) -> None:
    indices = (GREY % min(200, 2**depth)).astype(np.uint16 if depth == 16 else np.uint8)
    table = np.resize(TABLE * 257, (2**depth, 3)).T.astype(np.uint16)
    colors = [(320, "H", table.size, tuple(table.ravel().tolist()), True)]
    stored = indices.astype(bool) if depth == 1 else indices
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", bitspersample=depth, extratags=colors)
    replace_tag(tmp_path / "a.tif", 262, 3)
    image_cyx, notes = read_both(tmp_path / "a.tif")
    np.testing.assert_array_equal(image_cyx, (table >> 8)[:, indices])
    assert notes == ["the palette is applied, so the image is RGB."]
    raw = read_labels(tmp_path / "a.tif")
    np.testing.assert_array_equal(raw.array, indices)
    assert raw.palette is not None


def test_a_palette_without_its_table_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    replace_tag(tmp_path / "a.tif", 262, 3)
    with pytest.raises(InputError, match="its colour table is missing"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("photometric", ["cielab", "icclab", "cfa", "logluv"])
def test_other_colours_are_refused_in_both(photometric: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb")
    replace_tag(tmp_path / "a.tif", 262, tifffile.PHOTOMETRIC[photometric.upper()])
    for read in (read_image, open_source, read_labels):
        with pytest.raises(InputError, match=r"images whose samples are .*Convert the image to RGB"):
            read(tmp_path / "a.tif")


def encode_ycbcr(rgb_yxs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(rgb_yxs).convert("YCbCr"))


def decode_ycbcr(samples_yxs: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the RGB that Pillow makes of luma and chroma, axes ``CYX``."""
    return np.moveaxis(np.asarray(Image.fromarray(samples_yxs, "YCbCr").convert("RGB")), 2, 0).astype(np.int64)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        *((8, "CIE L*a*b*"), (9, "ICC L*a*b*"), (10, "ITU L*a*b*"), (32844, "LogL"), (32845, "LogLuv")),
        (32803, "a colour filter array (camera raw)"),
    ],
)
def test_colours_that_are_not_read_are_named(code: int, name: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages.first.tags["PhotometricInterpretation"].overwrite(code)
    for call in (read_info, read_image, open_source):
        with pytest.raises(InputError, match=re.escape(f"images whose samples are {name}. Convert")):
            call(tmp_path / "a.tif")


def test_ycbcr_of_16_bits_is_refused(tmp_path: Path) -> None:
    tags = [(530, "H", 2, (1, 1), True)]
    tifffile.imwrite(tmp_path / "a.tif", RGB.astype(np.uint16), photometric="rgb", metadata=None, extratags=tags)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages.first.tags["PhotometricInterpretation"].overwrite(6)
    with pytest.raises(InputError, match="septa does not read YCbCr images of 3 samples of type uint16"):
        read_image(tmp_path / "a.tif")


def test_uncompressed_ycbcr_becomes_rgb(tmp_path: Path) -> None:
    options = {"photometric": "ycbcr", "extratags": [(530, "H", 2, (1, 1), True)], "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", encode_ycbcr(RGB), **options)
    image_cyx, notes = read_both(tmp_path / "a.tif")
    assert np.abs(image_cyx - decode_ycbcr(encode_ycbcr(RGB))).max() <= 1
    assert notes == ["YCbCr is converted to RGB."]


def j2k_slide(path: Path, compression: int, samples_yxs: NDArray[np.uint8], transform: bool) -> None:
    """Write a slide of one tile as Aperio does: bare JPEG 2000 data, and RGB as photometric interpretation."""
    tile = np.zeros((32, 48, 3), np.uint8)
    tile[:24, :40] = samples_yxs
    data = imagecodecs.jpeg2k_encode(tile, level=0, codecformat="J2K", mct=transform)
    options: dict[str, Any] = {"photometric": "rgb", "tile": (32, 48), "compression": "jpeg2000"}
    tifffile.imwrite(path, iter([data]), shape=(24, 40, 3), dtype=np.uint8, **options)
    replace_tag(path, 259, compression)


def test_slides_of_33003_and_33005_have_the_same_colours(tmp_path: Path) -> None:
    j2k_slide(tmp_path / "ycc.svs", 33003, encode_ycbcr(RGB), transform=False)
    j2k_slide(tmp_path / "rgb.svs", 33005, RGB, transform=True)
    j2k_slide(tmp_path / "done.svs", 33003, RGB, transform=True)
    ycc_cyx, notes = read_both(tmp_path / "ycc.svs")
    assert notes == ["YCbCr is converted to RGB."]
    assert np.abs(ycc_cyx - decode_ycbcr(encode_ycbcr(RGB))).max() <= 1
    for name in ("rgb.svs", "done.svs"):
        image_cyx, notes = read_both(tmp_path / name)
        np.testing.assert_array_equal(image_cyx, np.moveaxis(RGB, 2, 0))
        assert notes == []


@pytest.mark.parametrize("suffix", ["tif", "jpg", "png"])
def test_a_turned_image_is_noted(suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, GREY, extratags=[(274, "H", 1, 6, True)])
    else:
        Image.fromarray(GREY).save(path, exif=exif)
    image_cyx, notes = read_both(path)
    assert image_cyx.shape == (1, 40, 24)
    assert notes == ["the image is turned upright, as its orientation flag says."]


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_an_orientation_in_other_metadata_is_noted(suffix: str, tmp_path: Path) -> None:
    block = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="3"/></rdf:RDF></x:xmpmeta>'
    )
    if suffix == "jpg":
        Image.fromarray(GREY).save(tmp_path / "a.jpg", xmp=block.encode())
    else:
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", block)
        Image.fromarray(GREY).save(tmp_path / "a.png", pnginfo=chunks)
    notices = Notices()
    assert read_image(tmp_path / f"a.{suffix}", notices=notices).shape == (1, 24, 40)
    assert "warning" in str(notices.lines())
    assert "an orientation that is not stated in EXIF is not used" in str(notices.lines())


def test_an_animation_is_noted(tmp_path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    notices = Notices()
    read_image(tmp_path / "a.gif", notices=notices)
    assert "only the first frame of the animation is read" in str(notices.lines())
