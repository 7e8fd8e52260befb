"""Pixel sizes that the metadata of TIFF files state."""

from __future__ import annotations

import html
import math
import re
from typing import Any

_INCH_UM = 25400.0
_CM_UM = 10000.0
_DPI_OF_PRINTERS_AND_SCREENS = (1, 72, 75, 90, 96, 100, 120, 150, 200, 240, 254, 300, 360, 400, 600, 720, 1200)
_APERIO_SIZE = re.compile(r"\bMPP\s*=\s*(\d+(?:\.\d+)?)")
_PLAUSIBLE_UM = (1e-5, 1000.0)

UM_PER_UNIT = {
    "pm": 1e-6,
    "å": 1e-4,
    "a": 1e-4,
    "nm": 1e-3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "\\u00b5m": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "inch": _INCH_UM,
    "in": _INCH_UM,
}
"""Micrometres per unit of length, by its name in lower case."""


def read_pixel_size(file: Any, keyframe: Any, image: int = 0) -> tuple[float, float] | None:
    """Return the micrometres per pixel, (y, x), of one image of the file, or None if the file states no real size."""
    if file.is_ome:
        return _read_ome_pixel_size(file.ome_metadata or "", image)
    if file.is_svs and (stated := _APERIO_SIZE.search(keyframe.description)):
        return keep_plausible_size(float(stated[1]), float(stated[1]))
    resolution = [keyframe.tags.valueof(tag) for tag in ("YResolution", "XResolution")]
    if not all(isinstance(ratio, tuple) and len(ratio) == 2 and all(ratio) for ratio in resolution):
        return None
    per_unit = [numerator / denominator for numerator, denominator in resolution]
    if file.is_imagej:
        unit = UM_PER_UNIT.get(str((file.imagej_metadata or {}).get("unit", "")).strip().lower())
    else:
        code = int(keyframe.tags.valueof("ResolutionUnit", 2) or 0)
        unit = {2: _INCH_UM, 3: _CM_UM}.get(code)
        dpi = [value * _INCH_UM / (unit or 1) for value in per_unit]
        if all(any(abs(value - usual) < 0.01 * usual for usual in _DPI_OF_PRINTERS_AND_SCREENS) for value in dpi):
            return None
    return keep_plausible_size(unit / per_unit[0], unit / per_unit[1]) if unit else None


def _read_ome_pixel_size(xml: str, image: int) -> tuple[float, float] | None:
    tags = re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    found = dict(re.findall(r'\b(PhysicalSize\w+)\s*=\s*"([^"]*)"', tags[image])) if image < len(tags) else {}
    sizes = []
    for axis in "YX":
        unit = UM_PER_UNIT.get(html.unescape(found.get(f"PhysicalSize{axis}Unit", "um")).strip().lower())
        try:
            sizes.append(float(found.get(f"PhysicalSize{axis}", "")) * (unit or math.nan))
        except ValueError:
            return None
    return keep_plausible_size(sizes[0], sizes[1])


def keep_plausible_size(y: float, x: float) -> tuple[float, float] | None:
    """Return a pixel size in micrometres, or None if no microscope can have it."""
    low, high = _PLAUSIBLE_UM
    return (y, x) if low <= y <= high and low <= x <= high else None
