"""The calibration that the metadata of TIFF files states: OME, ImageJ, LSM, Aperio, or the resolution tags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from septa.images._ome import OmeImage, read_finite, read_positive
from septa.images._units import CM_UM, INCH_UM, keep_plausible_size, read_resolution, s_per_unit, um_per_unit
from septa.images.calibration import Calibration

_APERIO_SIZE = re.compile(r"\bMPP\s*=\s*(\d+(?:\.\d+)?)")
_UM_PER_RESOLUTION_UNIT = {2: INCH_UM, 3: CM_UM, 4: 1000.0, 5: 1.0}
"""Micrometres of the values of the tag ResolutionUnit; 4 and 5 are extensions that tifffile writes."""


def read_calibration(file: Any, keyframe: Any, ome: OmeImage | None, channels: int) -> Calibration:
    """Return the calibration of one image of a TIFF file.

    Parameters
    ----------
    file, keyframe
        File, and first directory of the image, as tifffile describes them.
    ome
        Description of the image if the file has OME metadata.
    channels
        Number of channels; names are dropped unless there is one for each.
    """
    found = _read(file, keyframe, ome)
    names = found.channel_names
    return found if len(names) == channels and any(names) else replace(found, channel_names=())


def _read(file: Any, keyframe: Any, ome: OmeImage | None) -> Calibration:
    if ome is not None:
        return _read_ome(ome)
    if file.is_lsm:
        return _read_lsm(file.lsm_metadata or {})
    if file.is_imagej:
        return _read_imagej(file.imagej_metadata or {}, _read_pixels_per_unit(keyframe))
    if file.is_svs and (stated := _APERIO_SIZE.search(keyframe.description)):
        return Calibration(pixel_size_um=keep_plausible_size(float(stated[1]), float(stated[1])))
    per_unit = _read_pixels_per_unit(keyframe)
    unit = _UM_PER_RESOLUTION_UNIT.get(int(keyframe.tags.valueof("ResolutionUnit", 2) or 0))
    return Calibration(pixel_size_um=read_resolution(*per_unit, unit) if per_unit and unit else None)


def _read_pixels_per_unit(keyframe: Any) -> tuple[float, float] | None:
    """Return the pixels per unit of the resolution tags, (y, x)."""
    found = [keyframe.tags.valueof(tag) for tag in ("YResolution", "XResolution")]
    if not all(isinstance(ratio, tuple) and len(ratio) == 2 and all(ratio) for ratio in found):
        return None
    (y, y_unit), (x, x_unit) = found
    return y / y_unit, x / x_unit


def _read_ome(image: OmeImage) -> Calibration:
    def read_length(axis: str) -> float | None:
        unit = um_per_unit(image.pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        number = image.read_number(f"PhysicalSize{axis}")
        return number * unit if number and unit else None

    def read_position(axis: str) -> float:
        # Without a unit, or with "reference frame", a position is not a length.
        unit = um_per_unit(image.position.get(f"Position{axis}Unit", ""))
        return (read_finite(image.position.get(f"Position{axis}", "")) or 0.0) * (unit or 0.0)

    y, x, step = read_length("Y"), read_length("X"), image.read_number("TimeIncrement")
    time_unit = s_per_unit(image.pixels.get("TimeIncrementUnit", "s"))
    return Calibration(
        pixel_size_um=keep_plausible_size(y, x) if y and x else None,
        z_step_um=read_length("Z"),
        time_step_s=step * time_unit if step and time_unit else None,
        origin_um=(read_position("Z"), read_position("Y"), read_position("X")),
        channel_names=image.channel_names,
    )


def _read_imagej(found: Mapping[str, Any], per_unit: tuple[float, float] | None) -> Calibration:
    """Return the calibration of ImageJ's description, whose lengths are in its own unit, and origins in pixels."""
    unit = um_per_unit(found.get("unit", ""))
    y_unit, z_unit = (um_per_unit(found[key]) if key in found else unit for key in ("yunit", "zunit"))
    size = None
    if per_unit and unit and y_unit:
        # An image in inches has a resolution, which may be that of paper; in micrometres it is a size.
        size = keep_plausible_size(y_unit / per_unit[0], unit / per_unit[1])
        if unit == INCH_UM:
            size = read_resolution(*per_unit, unit)
    spacing = read_positive(found.get("spacing"))
    z_step = spacing * z_unit if spacing and z_unit else None
    step = read_positive(found.get("finterval"))
    time_unit = s_per_unit(found.get("tunit", "s"))
    z, y, x = (read_finite(found.get(f"{axis}origin")) or 0.0 for axis in "zyx")
    return Calibration(
        pixel_size_um=size,
        z_step_um=z_step,
        time_step_s=step * time_unit if step and time_unit else None,
        origin_um=_multiply((-z, -y, -x), (z_step or 0.0, *(size or (0.0, 0.0)))),
    )


def _multiply(numbers: tuple[float, float, float], units: tuple[float, float, float]) -> tuple[float, float, float]:
    z, y, x = (number * unit or 0.0 for number, unit in zip(numbers, units))
    return z, y, x


def _read_lsm(found: Mapping[str, Any]) -> Calibration:
    z, y, x = (read_positive(found.get(f"VoxelSize{axis}")) for axis in "ZYX")
    colors = found.get("ChannelColors") or {}
    names = colors.get("ColorNames") if isinstance(colors, Mapping) else None
    return Calibration(
        pixel_size_um=keep_plausible_size(y * 1e6, x * 1e6) if y and x else None,
        z_step_um=z and z * 1e6,
        time_step_s=read_positive(found.get("TimeIntervall")),
        channel_names=tuple(map(str, names or ())),
    )
