"""Check TIFF sources: windows against the whole image, and the tiles that are decoded for them."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images import _tiff_planes
from septa.images.read import read_image
from septa.images.sources.open import Selection, open_source

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 60000, (150, 203), dtype=np.uint16)
RGB = RNG.integers(0, 256, (150, 203, 3), dtype=np.uint8)
SMOOTH = np.stack([np.add.outer(np.arange(150), np.arange(203)) // k for k in (2, 3, 4)], 2).astype(np.uint8)
TILE = {"tile": (32, 48)}

KINDS: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
    "rows": (GREY, {}),
    "rows, short strips": (GREY, {"rowsperstrip": 7}),
    "rows, big-endian": (GREY, {"rowsperstrip": 64, "byteorder": ">"}),
    "rows, BigTIFF": (GREY, {"bigtiff": True}),
    "rows, RGB": (RGB, {"photometric": "rgb", "rowsperstrip": 11}),
    "rows, planar": (np.moveaxis(RGB, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
    "rows, planar strips": (np.moveaxis(RGB, 2, 0), {"photometric": "rgb", "planarconfig": 2, "rowsperstrip": 13}),
    "rows, alpha": (np.dstack([RGB, RGB[..., 0]]), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "rows, float": (GREY.astype(np.float32) / 7, {}),
    "rows, float16": (GREY.astype(np.float16), {}),
    "rows, int64": (GREY.astype(np.int64) * 9, {}),
    "strips": (GREY, {"compression": "zlib", "rowsperstrip": 9, "predictor": True}),
    "strips, 1 bit": (GREY > 30000, {"photometric": "minisblack"}),
    "white is zero": (GREY, {"photometric": "miniswhite", **TILE}),
    "tiles": (GREY, TILE),
    "tiles, BigTIFF": (GREY, {"bigtiff": True, "compression": "zstd", **TILE}),
    "tiles, RGB": (RGB, {"photometric": "rgb", "compression": "lzw", **TILE}),
    "tiles, planar": (np.moveaxis(RGB, 2, 0), {"photometric": "rgb", "planarconfig": 2, "compression": "zlib", **TILE}),
    "tiles, big-endian": (GREY, {"byteorder": ">", "compression": "zlib", **TILE}),
    "tiles, JPEG": (SMOOTH, {"photometric": "ycbcr", "compression": "jpeg", "subsampling": (2, 2), **TILE}),
    "tiles, JPEG 2000": (RGB, {"photometric": "rgb", "compression": "jpeg2000", **TILE}),
    "palette": (RGB[..., 0], {"photometric": "palette", "colormap": np.arange(768, dtype=np.uint16).reshape(3, 256)}),
    "turned": (GREY, {"extratags": [(274, "H", 1, 6, True)]}),
}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list of the numbers of the tiles or strips that were decoded."""
    numbers: list[int] = []
    original = _tiff_planes.DirectoryReader._decode

    def count(self: Any, plane: Any, number: int) -> Any:
        numbers.append(number)
        return original(self, plane, number)

    monkeypatch.setattr(_tiff_planes.DirectoryReader, "_decode", count)
    return numbers


@pytest.mark.parametrize("kind", KINDS)
def test_windows_equal_the_whole(kind: str, tmp_path: Path) -> None:
    array, options = KINDS[kind]
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    expected = read_image(tmp_path / "a.tif")
    with open_source(tmp_path / "a.tif") as source:
        assert source.shape == (1, len(expected), 1, *expected.shape[1:])
        assert source.dtype == expected.dtype
        height, width = source.shape[3:]
        for y in ((0, height), (height - 1, height), (5, 6), (31, 65)):
            for x in ((0, width), (0, 1), (47, 97), (width - 3, width)):
                window = source.read(y, slice(*x))
                np.testing.assert_array_equal(window, expected[:, y[0] : y[1], x[0] : x[1]])
                assert window.dtype == expected.dtype
                assert window.flags.c_contiguous


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[Any]]:
    """Write a tiled OME-TIFF with all axes."""
    path = tmp_path_factory.mktemp("many") / "a.ome.tif"
    array = RNG.integers(0, 60000, (2, 3, 4, 70, 90), dtype=np.uint16)
    metadata: dict[str, Any] = {"axes": "TZCYX", "Channel": {"Name": ["DAPI", "a &amp; b", "", "GFP"]}}
    metadata |= {"PhysicalSizeY": 250.0, "PhysicalSizeYUnit": "nm", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}
    tifffile.imwrite(path, array, metadata=metadata, tile=(32, 16), compression="zlib")
    return path, array


def test_ome_planes(many: tuple[Path, NDArray[Any]]) -> None:
    path, array = many
    with open_source(path, Selection(channels=(3, 1))) as source:
        assert (source.axes, source.shape, source.chunk) == ("TCZYX", (2, 2, 3, 70, 90), (32, 16))
        assert source.pixel_size_um == (0.25, 0.5)
        assert source.channel_names[0] == "GFP"
        for t in range(2):
            for z in range(3):
                window = source.read((10, 60), (3, 90), t=t, z=z)
                np.testing.assert_array_equal(window, array[t, z, [3, 1], 10:60, 3:90])
        with pytest.raises(InputError, match="there is no z 3"):
            source.read((0, 1), (0, 1), z=3)
        with pytest.raises(ValueError, match="does not lie inside"):
            source.read((0, 71), (0, 1))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_windows(many: tuple[Path, NDArray[Any]], data: st.DataObject) -> None:
    path, array = many
    y, x = (sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in (70, 90))
    t, z, channel = data.draw(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 3)))
    with open_source(path, Selection(channels=(channel,))) as source:
        window = source.read(slice(*y), slice(*x), t=t, z=z)
    np.testing.assert_array_equal(window, array[t, z, [channel], y[0] : y[1], x[0] : x[1]])


def test_threads_read_at_the_same_time(many: tuple[Path, NDArray[Any]]) -> None:
    path, array = many

    def check(i: int) -> bool:
        y, x, t, z = i % 50, i % 70, i % 2, i % 3
        window = source.read((y, y + 20), (x, x + 20), t=t, z=z)
        return np.array_equal(window, array[t, z, :, y : y + 20, x : x + 20])

    with open_source(path) as source, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, range(200)))


def test_stacks_of_pages(tmp_path: Path) -> None:
    stack = RNG.integers(0, 255, (5, 40, 30), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "pages.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "imagej.tif", stack.reshape(1, 5, 40, 30), imagej=True, metadata={"axes": "TZYX"})
    with tifffile.TiffWriter(tmp_path / "plain.tif") as writer:
        for page in stack:
            writer.write(page, metadata=None, compression="zlib")
    for name in ("pages", "imagej", "plain"):
        with open_source(tmp_path / f"{name}.tif") as source:
            assert (source.axes, source.shape) == ("ZYX", (1, 1, 5, 40, 30))
            np.testing.assert_array_equal(source.read((3, 20), (4, 30), z=3)[0], stack[3, 3:20, 4:])


def test_imagej_channels_and_time(tmp_path: Path) -> None:
    array = RNG.integers(0, 255, (3, 2, 4, 20, 30), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "TZCYX"})
    with open_source(tmp_path / "a.tif") as source:
        assert source.shape == (3, 4, 2, 20, 30)
        np.testing.assert_array_equal(source.read((3, 20), (4, 30), t=2, z=1), array[2, 1, :, 3:20, 4:])


def test_palette_stack_is_read_whole_by_page(tmp_path: Path) -> None:
    stack = RNG.integers(0, 255, (3, 40, 30), dtype=np.uint8)
    table = RNG.integers(0, 65535, (3, 256), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="palette", colormap=table)
    with open_source(tmp_path / "a.tif", Selection(channels=(2, 0))) as source:
        assert source.shape == (1, 2, 3, 40, 30)
        for z in (2, 0):
            expected = np.moveaxis(table.T[stack[z]] >> 8, 2, 0)[[2, 0]]
            np.testing.assert_array_equal(source.read((0, 40), (4, 9), z=z), expected[:, :, 4:9])


def test_only_touched_tiles_are_decoded(tmp_path: Path, decoded: list[int]) -> None:
    # 5 rows of 7 tiles.
    tifffile.imwrite(tmp_path / "a.tif", GREY, compression="zlib", tile=(32, 32))
    with open_source(tmp_path / "a.tif") as source:
        assert decoded == []
        source.read((31, 33), (32, 64))
        assert decoded == [1, 8]
        decoded.clear()
        source.read((64, 96), (95, 97))
        assert decoded == [16, 17]


def test_a_single_channel_leaves_the_other_planes(tmp_path: Path, decoded: list[int]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(RGB, 2, 0), photometric="rgb", planarconfig=2, tile=(160, 208))
    with open_source(tmp_path / "a.tif", Selection(channels=(2,))) as source:
        np.testing.assert_array_equal(source.read((0, 150), (0, 203))[0], RGB[..., 2])
    assert decoded == [2]


@pytest.mark.parametrize("options", [{"tile": (32, 32)}, {"rowsperstrip": 20}])
def test_damage_elsewhere_does_not_disturb(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, compression="zlib", **options)
    with tifffile.TiffFile(path) as file:
        offset, size = file.pages[0].dataoffsets[-1], file.pages[0].databytecounts[-1]
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = b"\x55" * size
    path.write_bytes(data)
    with open_source(path) as source:
        np.testing.assert_array_equal(source.read((0, 100), (0, 150))[0], GREY[:100, :150])
        with pytest.raises(InputError, match=r"a\.tif: the TIFF data cannot be decoded"):
            source.read((140, 150), (195, 203))


@pytest.mark.parametrize("options", [{"tile": (32, 32)}, {"rowsperstrip": 20}, {}])
def test_a_file_cut_short(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, **options)
    path.write_bytes(path.read_bytes()[:-300])
    with open_source(path) as source:
        np.testing.assert_array_equal(source.read((0, 100), (0, 150))[0], GREY[:100, :150])
        with pytest.raises(InputError, match=r"a\.tif: the TIFF data cannot be decoded \(the file ends early\)"):
            source.read((140, 150), (195, 203))


def write_pyramid(path: Path, kind: str) -> list[NDArray[Any]]:
    levels = [RNG.integers(0, 256, (1000 >> k, 700 >> k, 3), dtype=np.uint8) for k in range(3)]
    options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
    with tifffile.TiffWriter(path, ome=kind == "ome") as writer:
        if kind in ("ome", "subifds"):
            metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5} if kind == "ome" else None
            writer.write(levels[0], subifds=2, metadata=metadata, **options)
            for level in levels[1:]:
                writer.write(level, subfiletype=1, **options)
            return levels
        text = "Aperio Image Library v1\r\n1000x700|AppMag = 20|MPP = 0.2520" if kind == "svs" else None
        writer.write(levels[0], metadata=None, description=text, **options)
        if kind == "svs":
            thumbnail: dict[str, Any] = {
                "photometric": "rgb",
                "rowsperstrip": 16,
                "compression": "jpeg",
                "metadata": None,
            }
            writer.write(SMOOTH, description=text, **thumbnail)
        for level in levels[1:]:
            writer.write(level, metadata=None, description=text, **options)
        if kind == "svs":
            label: dict[str, Any] = {"photometric": "rgb", "rowsperstrip": 16, "compression": "lzw", "metadata": None}
            writer.write(RGB, description="Aperio\nlabel 203x150", subfiletype=1, **label)
            writer.write(RGB[:99], description="Aperio\nmacro 203x99", subfiletype=9, **label)
    return levels


@pytest.mark.parametrize("kind", ["ome", "subifds", "svs", "pages"])
def test_pyramids(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.svs" if kind == "svs" else "a.tif")
    levels = write_pyramid(path, kind)
    size = {"ome": 0.5, "svs": 0.252}.get(kind)
    for number, level in enumerate(levels):
        with open_source(path, Selection(level=number)) as source:
            assert source.levels == ((1000, 700), (500, 350), (250, 175))
            assert (source.level, source.images, source.shape) == (number, 1, (1, 3, 1, *level.shape[:2]))
            assert source.channel_names == ("red", "green", "blue")
            if size:
                assert source.pixel_size_um == pytest.approx((size * 2**number, size * 2**number))
            window = source.read((100, 170), (60, 130))
            np.testing.assert_array_equal(window, np.moveaxis(level[100:170, 60:130], 2, 0))
    with pytest.raises(
        InputError, match=r"there is no level 3: the image has levels 0 to 2\. Choose one of these levels\."
    ):
        open_source(path, Selection(level=3))


def test_svs_of_jpeg_tiles_with_common_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    text = "Aperio Image Library v1\r\nx|MPP = 0.5"
    jpeg: dict[str, Any] = {
        "compression": "jpeg",
        "photometric": "ycbcr",
        "tile": (48, 48),
        "metadata": None,
        "description": text,
    }
    tifffile.imwrite(path, SMOOTH, **jpeg)
    whole = tifffile.imread(path)
    with open_source(path) as source:
        np.testing.assert_array_equal(source.read((40, 150), (90, 203)), np.moveaxis(whole[40:150, 90:203], 2, 0))


def test_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["Compression"].overwrite(65432)
    remedy = "Export the image without compression, or with Deflate or LZW"
    for read in (open_source, read_image):
        with pytest.raises(InputError, match=f"septa does not read TIFF compression 65432. {remedy}"):
            read(path)


def test_pages_of_other_proportions_are_images(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for size in ((128, 128), (64, 32)):
            writer.write(np.zeros(size, np.uint8), tile=(16, 16), metadata=None)
    problem = r"the file holds 2 images \(128 x 128, 64 x 32 pixels\). Choose one of them with --image, from 0 to 1"
    with pytest.raises(InputError, match=problem):
        open_source(tmp_path / "a.tif")
    with open_source(tmp_path / "a.tif", Selection(image=1)) as source:
        assert source.shape == (1, 1, 1, 64, 32)


def test_several_images(tmp_path: Path) -> None:
    images = [GREY, GREY[::-1], GREY[:70]]
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for i, array in enumerate(images):
            writer.write(array, metadata={"axes": "YX", "PhysicalSizeX": i + 1.0, "PhysicalSizeY": i + 1.0})
    for i, array in enumerate(images):
        with open_source(tmp_path / "a.ome.tif", Selection(image=i)) as source:
            np.testing.assert_array_equal(source.read(slice(None), slice(None))[0], array)
            assert source.pixel_size_um == (i + 1, i + 1)
            assert source.images > 1
    with pytest.raises(InputError, match="there is no image 3"):
        open_source(tmp_path / "a.ome.tif", Selection(image=3))


def test_huge_files_open_in_little_memory(tmp_path: Path, decoded: list[int]) -> None:
    side = 100_000
    path = tmp_path / "tiles.tif"
    one = np.full((512, 512), 7, np.uint8)
    blank = (-(-side // 512)) ** 2
    tiles = (one if number in (0, 804, 1000) else None for number in range(blank))
    options: dict[str, Any] = {"shape": (side, side), "dtype": np.uint8, "bigtiff": True, "metadata": None}
    tifffile.imwrite(path, tiles, tile=(512, 512), compression="zlib", **options)
    row, column = (number * 512 for number in divmod(1000, -(-side // 512)))
    tracemalloc.start()
    with open_source(path) as source:
        assert source.shape == (1, 1, 1, side, side)
        window = source.read((row - 3, row + 3), (column, column + 9))
        assert window.tolist() == [[[7] * 9] * 6]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(decoded) == 2
    assert peak < 50 * 2**20


def test_rows_of_one_huge_strip(tmp_path: Path) -> None:
    side = 100_000
    path = tmp_path / "rows.tif"
    # A sparse file: its pixels take no space on the disk.
    tifffile.imwrite(path, shape=(side, side), dtype=np.uint8, bigtiff=True, metadata=None)
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[0]
    with path.open("r+b") as stream:
        stream.seek(offset + 99_999 * side + 5)
        stream.write(b"\x09\x08")
    with open_source(path) as source:
        assert source.read((99_998, 100_000), (4, 8)).tolist() == [[[0, 0, 0, 0], [0, 9, 8, 0]]]


def test_absurd_tiles_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, tile=(256, 256), compression="zlib")
    with pytest.raises(InputError, match="chunks of 65536 samples are more than the limit of 60000"):
        open_source(tmp_path / "a.tif", max_pixels=60000)
