"""Check the calibration that is read from TIFF, PNG and OME metadata."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from septa.errors import InputError
from septa.images import Calibration, open_source
from septa.images._units import read_resolution, s_per_unit, um_per_unit
from septa.images.read import read_info

STACK = np.zeros((2, 3, 4, 20, 30), np.uint8)


def read_both(path: Path) -> Calibration:
    """Return the calibration, after a check that both readers agree on all but the names of channels."""
    info = read_info(path)
    with open_source(path) as source:
        assert source.calibration == info.calibration
        assert source.pixel_size_um == info.pixel_size_um
    return info.calibration


@pytest.mark.parametrize(
    ("unit", "um"),
    [
        *(("nm", 1e-3), ("µm", 1.0), ("mm", 1e3), ("cm", 1e4), ("m", 1e6), ("pm", 1e-6), ("km", 1e9), ("Å", 1e-4)),
        *(("in", 25400.0), ("thou", 25.4), ("ft", 304800.0), ("pixel", None), ("reference frame", None)),
    ],
)
def test_units_of_ome(unit: str, um: float | None, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {}
    scale = 1 if um is None else 1 / um  # so that each size is plausible
    for axis, size in zip("XYZ", (0.25, 0.5, 2.0)):
        sizes |= {f"PhysicalSize{axis}": size * scale, f"PhysicalSize{axis}Unit": unit}
    metadata = {"axes": "TZCYX", "TimeIncrement": 1500, "TimeIncrementUnit": "ms"} | sizes
    metadata["Channel"] = {"Name": ["DAPI", "", "GFP", "x"]}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata=metadata)
    found = read_both(tmp_path / "a.ome.tif")
    assert found.time_step_s == 1.5
    assert found.channel_names == ("DAPI", "", "GFP", "x")
    assert found.pixel_size_um == (um and pytest.approx((0.5, 0.25)))
    assert found.z_step_um == (um and pytest.approx(2.0))


def test_positions_of_ome(tmp_path: Path) -> None:
    plane: dict[str, Any] = {"PositionX": [3.0], "PositionY": [4.0], "PositionZ": [5.0]}
    for number, unit in enumerate(("mm", "reference frame")):
        units = {f"{key}Unit": [unit] for key in plane}
        path = tmp_path / f"{number}.ome.tif"
        tifffile.imwrite(path, STACK[0, 0, 0], metadata={"axes": "YX", "Plane": plane | units})
        assert read_both(path).origin_um == ((5000, 4000, 3000) if unit == "mm" else (0, 0, 0))


@pytest.mark.parametrize(
    ("unit", "um"),
    [
        *(("micron", 1.0), ("\\u00B5m", 1.0), ("um", 1.0), ("microns", 1.0), ("mm", 1e3), ("cm", 1e4), ("nm", 1e-3)),
        *(("inch", 25400.0), ("millimeters", 1e3), ("pixel", None), ("", None)),
    ],
)
def test_units_of_imagej(unit: str, um: float | None, tmp_path: Path) -> None:
    scale = 1.0 if um is None else um
    metadata = {"axes": "TZCYX", "unit": unit, "spacing": 2.0 / scale, "finterval": 3.0, "tunit": "min"}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, imagej=True, resolution=(4 * scale, 2 * scale), metadata=metadata)
    found = read_both(path)
    assert found.pixel_size_um == (um and pytest.approx((0.5, 0.25), rel=1e-4))
    assert found.z_step_um == (um and pytest.approx(2.0))
    assert found.time_step_s == 180


@pytest.mark.parametrize("units", [("um", "parsecs"), ("parsecs", "um")])
def test_a_unit_that_is_unknown_on_one_axis_of_imagej(units: tuple[str, str], tmp_path: Path) -> None:
    metadata = {"axes": "TZCYX", "unit": units[0], "yunit": units[1]}
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(4, 2), metadata=metadata)
    assert read_both(tmp_path / "a.tif").pixel_size_um is None


@pytest.mark.parametrize("units", [{}, {"yunit": "mm"}])
def test_axes_of_imagej_have_their_own_units(units: dict[str, str], tmp_path: Path) -> None:
    metadata = {"axes": "TZCYX", "unit": "um", **units}
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(4, 2), metadata=metadata)
    assert read_both(tmp_path / "a.tif").pixel_size_um == pytest.approx((500.0 if units else 0.5, 0.25))


@pytest.mark.parametrize(
    ("unit", "per_unit", "expected"),
    [
        (4, 2000, 0.5),  # millimetres
        (5, 2, 0.5),  # micrometres
        (3, 20000, 0.5),
        (2, 50800, 0.5),
        (1, 2, None),
        *((2, dpi, None) for dpi in (72, 96, 150, 200, 300, 600)),
        (3, 300 / 2.54, None),
        (4, 300 / 25.4, None),
    ],
)
def test_resolution_units(unit: int, per_unit: float, expected: float | None, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[0, 0, 0], resolution=(per_unit, per_unit), resolutionunit=unit)
    assert read_both(tmp_path / "a.tif").pixel_size_um == (expected and pytest.approx((expected, expected)))


@pytest.mark.parametrize("dpi", [72, 75, 96, 100, 144, 150, 200, 300, 400, 600, 1200, 2400])
def test_a_resolution_on_paper_is_ignored_everywhere(dpi: int, tmp_path: Path) -> None:
    plane = STACK[0, 0, 0]
    tifffile.imwrite(tmp_path / "imagej.tif", plane, imagej=True, resolution=(dpi, dpi), metadata={"unit": "inch"})
    Image.fromarray(plane).save(tmp_path / "a.png", dpi=(dpi, dpi))
    for name in ("imagej.tif", "a.png"):
        assert read_both(tmp_path / name) == Calibration()
    assert read_resolution(dpi, dpi, 25400) is None


def test_png(tmp_path: Path) -> None:
    Image.fromarray(STACK[0, 0, 0]).save(tmp_path / "a.png", dpi=(25400 / 0.25, 25400 / 0.5))
    assert read_both(tmp_path / "a.png").pixel_size_um == pytest.approx((0.5, 0.25), rel=1e-6)

    def write_png_with(resolution: bytes) -> Path:
        Image.fromarray(STACK[0, 0, 0]).save(tmp_path / "plain.png")
        plain = (tmp_path / "plain.png").read_bytes()
        chunk = b"pHYs" + resolution
        added = struct.pack(">I", len(resolution)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (tmp_path / "b.png").write_bytes(plain[:33] + added + plain[33:])  # after the header
        return tmp_path / "b.png"

    assert read_info(write_png_with(struct.pack(">IIB", 4000000, 2000000, 1))).pixel_size_um == (0.5, 0.25)
    numbers = [(4, 2, 0), (40000, 20000, 0), (0, 0, 1), (40000, 0, 1), (0, 40000, 1)]  # aspects, then zeros
    for values in numbers:
        assert read_info(write_png_with(struct.pack(">IIB", *values))).pixel_size_um is None
    with pytest.raises(InputError, match="damaged"):
        read_info(write_png_with(b"\0"))


def test_names_of_units() -> None:
    assert um_per_unit("Mm") == 1e12
    assert um_per_unit("MICROMETER") == um_per_unit("micrometre") == um_per_unit(" um ") == 1
    inches = {
        "thou": 1 / 1000,
        "pt": 1 / 72,
        "li": 1 / 12,
        "in": 1,
        "ft": 12,
        "yd": 36,
        "mi": 12 * 5280,
    }  # those of OME
    assert {unit: um_per_unit(unit) for unit in inches} == pytest.approx({u: 25400 * n for u, n in inches.items()})
    assert um_per_unit(None) is um_per_unit("second") is s_per_unit("meter") is None
    assert [s_per_unit(unit) for unit in ("sec", "ms", "min", "hours", "d")] == [1, 1e-3, 60, 3600, 86400]
