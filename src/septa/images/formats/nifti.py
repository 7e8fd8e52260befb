"""Read NIfTI files (``.nii``, ``.nii.gz``), whose headers the package nibabel interprets."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from septa.errors import InputError
from septa.images._info import Array, DamagedDataError
from septa.images._units import keep_plausible_size, s_per_unit, um_per_unit
from septa.images.calibration import Calibration
from septa.images.formats.container import NOTE_SCALED, Scene, keep_pages, load_reader
from septa.images.formats.inflate import inflate

_HEAD_BYTES = 544
_AXES = "XYZTC"
_MOST_SAMPLES = 1 << 48


def is_nifti(head: bytes) -> bool:
    """Return True if the first 348 bytes of a file are a NIfTI header of version 1 or 2, in either byte order."""
    return (head[344:348] == b"n+1\0" and head[:4] in (b"\x5c\1\0\0", b"\0\0\1\x5c")) or (
        head[4:8] == b"n+2\0" and head[:4] in (b"\x1c\2\0\0", b"\0\0\2\x1c")
    )


def is_compressed_nifti(path: Path) -> bool:
    """Return True if a gzip file holds a NIfTI file."""
    try:
        return is_nifti(_read_head(path, compressed=True))
    except (OSError, EOFError, ValueError, zlib.error):
        return False


def _read_head(path: Path, *, compressed: bool) -> bytes:
    with gzip.open(path) if compressed else path.open("rb") as stream:
        return stream.read(_HEAD_BYTES)


class NiftiContainer:
    """A NIfTI file. See `septa.images.formats.container.Container`.

    The axes of the file are X, Y, Z, T and C, the fastest first, and rows are those of Y: as SimpleITK reads it.
    """

    def __init__(self, path: Path, dataset: str) -> None:
        package = load_reader(path, "a NIfTI", "nibabel")
        with path.open("rb") as stream:
            self._compression = "gzip" if stream.read(2) == b"\x1f\x8b" else "raw"
        head = _read_head(path, compressed=self._compression == "gzip")
        kind = package.Nifti1Header if head[344:348] == b"n+1\0" else package.Nifti2Header
        header = kind(head[:348] if kind is package.Nifti1Header else head[:540], check=False)
        self._path = path
        self._start = int(header.get_data_offset())
        stored = np.dtype(header.get_data_dtype())
        self._samples = len(stored.fields) if stored.fields else 1
        self._stored = np.dtype((np.uint8, (self._samples,))) if stored.fields else stored
        if stored.kind == "V" and stored.itemsize not in (3, 4):
            raise InputError(path, f"septa does not read samples of type {stored}", "Convert the file to numbers")
        shape = tuple(map(int, header.get_data_shape()))
        if any(size < 1 for size in shape) or math.prod(shape) > _MOST_SAMPLES or self._start < 0:
            raise DamagedDataError("its header states absurd sizes")
        while len(shape) > 2 and shape[-1] == 1:
            shape = shape[:-1]
        if not 2 <= len(shape) <= 5 or (len(shape) == 5 and self._samples > 1):
            problem = f"the image has {len(shape)} axes, septa reads X, Y, Z, T and C"
            raise InputError(path, problem, "Save it with these axes")
        self._size = dict(zip(_AXES, (*shape, 1, 1, 1)))
        slope, offset = header.get_slope_inter()
        self._scale = (1.0 if slope is None else float(slope), 0.0 if offset is None else float(offset))
        self.scenes = [self._describe(header)]

    def _describe(self, header: Any) -> Scene:
        size = self._size
        page_axes, page_shape = keep_pages({axis: size[axis] for axis in "TZ"})
        scaled = self._scale != (1.0, 0.0)
        channels = size["C"] * self._samples
        dtype = np.dtype(np.float32) if scaled else self._stored.base.newbyteorder("=")
        return Scene(
            height=size["Y"],
            width=size["X"],
            channels=channels,
            dtype=dtype,
            page_axes=page_axes,
            page_shape=page_shape,
            color=self._samples == 3,
            decoded_samples=math.prod(size.values()) * self._samples if self._compression == "gzip" else 0,
            calibration=_read_calibration(header, size),
            notes=(NOTE_SCALED,) if scaled else (),
        )

    def read(self, scene: int, page: int) -> Array:
        """Return a plane."""
        size, facts = self._size, self.scenes[0]
        place = facts.locate(page)
        plane = size["Y"] * size["X"] * self._stored.itemsize
        volumes = size["Z"] * size["T"]
        first = place.get("T", 0) * size["Z"] + place.get("Z", 0)
        if self._compression == "gzip":
            data = inflate(self._path, "gzip", 0, self._start, volumes * size["C"] * plane)
            parts = [
                data[start : start + plane] for k in range(size["C"]) for start in ((k * volumes + first) * plane,)
            ]
        else:
            with self._path.open("rb") as stream:
                parts = []
                for channel in range(size["C"]):
                    stream.seek(self._start + (channel * volumes + first) * plane)
                    parts.append(stream.read(plane))
        if any(len(part) < plane for part in parts):
            raise DamagedDataError("the file ends early")
        values = np.stack([np.frombuffer(part, self._stored).reshape(size["Y"], size["X"], -1) for part in parts])
        values = np.moveaxis(values, 3, 1).reshape(facts.channels, facts.height, facts.width)
        slope, offset = self._scale
        if (slope, offset) != (1.0, 0.0):
            values = values.astype(np.float64) * slope + offset
        return values.astype(facts.dtype)

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""


def _read_calibration(header: Any, size: dict[str, int]) -> Calibration:
    zooms = [float(zoom) for zoom in header.get_zooms()]
    length, time = header.get_xyzt_units()
    factor = um_per_unit(length)
    steps = dict(zip("XYZT", [*zooms, 0.0, 0.0, 0.0]))
    if factor is None:
        return Calibration()
    seconds = s_per_unit({"sec": "s", "msec": "ms", "usec": "us"}.get(time, time))
    return Calibration(
        pixel_size_um=keep_plausible_size(steps["Y"] * factor, steps["X"] * factor),
        z_step_um=steps["Z"] * factor if size["Z"] > 1 and steps["Z"] > 0 else None,
        time_step_s=steps["T"] * seconds if seconds and size["T"] > 1 and steps["T"] > 0 else None,
    )
