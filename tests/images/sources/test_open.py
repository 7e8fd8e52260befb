"""Check sources in general: files decoded whole, the selection of channels and regions, and files that are refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from septa.errors import InputError
from septa.images.calibration import Calibration
from septa.images.read import read_image
from septa.images.sources.open import Selection, open_source
from septa.images.write import write_image

RGB = np.random.default_rng(3).integers(0, 256, (40, 30, 3), dtype=np.uint8)
SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif"])
def test_other_files_are_decoded_whole(suffix: str, tmp_path: Path) -> None:
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
    with open_source(tmp_path / "a.png", Selection(channels=(2, 0))) as source:
        assert (source.shape, source.channels, source.channel_names) == ((1, 2, 1, 40, 30), (2, 0), ("blue", "red"))
        np.testing.assert_array_equal(source.read((0, 40), (0, 30)), np.moveaxis(RGB[..., [2, 0]], 2, 0))


@pytest.mark.parametrize("channels", [[3], [-1], [0, 0], []])
def test_channels_that_are_not_there(channels: list[int], tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: .*the image has channels 0 to 2"):
        open_source(tmp_path / "a.png", Selection(channels=tuple(channels)))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.ome.zarr"])
def test_a_region_is_read_as_the_image_cut_out(name: str, tmp_path: Path) -> None:
    image_cyx = np.moveaxis(RGB, 2, 0)
    path = tmp_path / name
    if name.endswith("zarr"):
        root = zarr.create_group(path, zarr_format=3)
        for level in range(2):
            values = np.ascontiguousarray(image_cyx[:, :: 2**level, :: 2**level])
            root.create_array(str(level), data=values, chunks=(1, 8, 8))
        axes = [{"name": "c"}, *({"name": axis, "unit": "micrometer"} for axis in "yx")]
        steps = [{"type": "scale", "scale": [1, 0.5, 0.25]}, {"type": "translation", "translation": [0, 3, 4]}]
        datasets = [{"path": str(level), "coordinateTransformations": steps} for level in range(2)]
        root.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    else:
        write_image(path, image_cyx, calibration=Calibration(pixel_size_um=(0.5, 0.25)))
    with open_source(path, Selection(region=(7, 3, 35, 25), channels=(2, 0))) as source:
        assert (source.shape, source.level, source.levels) == ((1, 2, 1, 28, 22), 0, ((28, 22),))
        np.testing.assert_array_equal(source.read((0, 28), (0, 22)), image_cyx[[2, 0], 7:35, 3:25])
        np.testing.assert_array_equal(source.read((2, 5), (21, 22)), image_cyx[[2, 0], 9:12, 24:25])
        shift = (3.0, 4.0) if name.endswith("zarr") else (0.0, 0.0)
        assert source.pixel_size_um == pytest.approx((0.5, 0.25), rel=1e-6)
        assert source.origin_um == pytest.approx((shift[0] + 7 * 0.5, shift[1] + 3 * 0.25))
        with pytest.raises(ValueError, match="does not lie inside 0:28"):
            source.read((0, 29), (0, 1))


@pytest.mark.parametrize("region", [(0, 0, 41, 30), (0, 0, 40, 31), (-1, 0, 3, 3), (5, 5, 5, 9), (9, 0, 3, 3)])
def test_regions_outside(region: tuple[int, int, int, int], tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    text = re.escape(f"a.png: the region {','.join(map(str, region))} does not lie inside the image of 40 x 30 pixels")
    with pytest.raises(InputError, match=text):
        open_source(tmp_path / "a.png", Selection(region=region))


def test_a_refused_selection_closes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "a.tif", np.moveaxis(RGB, 2, 0))
    closed: list[Path] = []
    original = tifffile.TiffFile.close

    def close(self: tifffile.TiffFile) -> None:
        closed.append(tmp_path / self.filename)
        original(self)

    monkeypatch.setattr(tifffile.TiffFile, "close", close)
    selections = Selection(level=1), Selection(image=1), Selection(channels=(3,)), Selection(region=(0, 0, 0, 0))
    for number, selection in enumerate(selections, 1):
        with pytest.raises(InputError):
            open_source(tmp_path / "a.tif", selection)
        assert closed == [tmp_path / "a.tif"] * number


@pytest.mark.parametrize(("y", "x"), [((0, 41), (0, 1)), ((5, 5), (0, 1)), ((0, 1), (-1, 4)), ((9, 3), (0, 1))])
def test_windows_outside(y: tuple[int, int], x: tuple[int, int], tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with open_source(tmp_path / "a.png") as source, pytest.raises(ValueError, match="does not lie inside"):
        source.read(y, x)


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    for path, problem in (
        (tmp_path / "a.txt", "the file is not a PNG"),
        (tmp_path / "b", "No such file"),
        (tmp_path, "no OME-Zarr"),
    ):
        with pytest.raises(InputError, match=problem):
            open_source(path)


def test_limits_of_files_decoded_whole(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="more than the limit"):
        open_source(tmp_path / "a.png", max_pixels=100)
    with pytest.raises(InputError, match="there is no level 1"):
        open_source(tmp_path / "a.png", Selection(level=1))
    with pytest.raises(InputError, match="there is no image 1"):
        open_source(tmp_path / "a.png", Selection(image=1))


def test_real_images() -> None:
    """Compare windows of some files of the shared data with `read_image`."""
    files = sorted(path for path in SHARED.rglob("*") if path.suffix in (".png", ".jpg", ".bmp", ".tif"))[::150]
    if not files:
        pytest.skip("no shared images here")
    for path in files:
        expected = read_image(path)
        with open_source(path) as source:
            height, width = source.shape[3:]
            y, x = (height // 3, height), (width // 4, width // 2)
            np.testing.assert_array_equal(source.read(y, x), expected[:, y[0] : y[1], x[0] : x[1]])
