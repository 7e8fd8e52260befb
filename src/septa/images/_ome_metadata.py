"""The metadata of OME-TIFF files that septa writes: axes, scale and origin."""

from __future__ import annotations

from typing import Any

from septa.images.calibration import Calibration

OME_TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")
"""Types of pixels that OME-TIFF files can have."""


def build_ome_metadata(axes: str, shape: tuple[int, ...], calibration: Calibration) -> dict[str, Any]:
    """Build the metadata of one image for tifffile.

    Parameters
    ----------
    axes
        Letters of the axes, which end in "YX"; T, Z and C have their usual meaning, others have none.
    shape
        Size along each of ``axes``.
    calibration
        Scale of the image. Channel names are written if there is one for each channel.

    Returns
    -------
    dict
        Value of tifffile's parameter ``metadata``.

    Examples
    --------
    >>> build_ome_metadata("ZYX", (2, 8, 9), Calibration(z_step_um=2.0))
    {'axes': 'ZYX', 'PhysicalSizeZ': 2.0, 'PhysicalSizeZUnit': 'µm'}
    """
    metadata: dict[str, Any] = {"axes": axes}
    y, x = calibration.pixel_size_um or (None, None)
    for axis, size in (("X", x), ("Y", y), ("Z", calibration.z_step_um)):
        if size is not None:
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    if calibration.time_step_s is not None:
        metadata |= {"TimeIncrement": calibration.time_step_s, "TimeIncrementUnit": "s"}
    sizes = dict(zip(axes, shape, strict=True))
    names = calibration.channel_names
    if any(names) and len(names) == sizes.get("C"):
        metadata["Channel"] = {"Name": list(names)}
    if any(calibration.origin_um):
        metadata["Plane"] = _build_positions(sizes, calibration)
    return metadata


def _build_positions(sizes: dict[str, int], calibration: Calibration) -> dict[str, list[Any]]:
    """Return the position of each plane, in the order of the planes in the file."""
    planes = [axis for axis in sizes if axis not in "YX"]
    count = 1
    for axis in planes:
        count *= sizes[axis]
    z, y, x = calibration.origin_um
    step = calibration.z_step_um or 0.0
    below = 1
    for axis in reversed(planes):
        if axis == "Z":
            break
        below *= sizes[axis]
    depths = [z + step * (number // below % sizes.get("Z", 1)) for number in range(count)]
    found: dict[str, list[Any]] = {}
    for axis, positions in (("X", [x] * count), ("Y", [y] * count), ("Z", depths)):
        found |= {f"Position{axis}": positions, f"Position{axis}Unit": ["µm"] * count}
    return found
