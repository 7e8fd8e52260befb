"""Read Nikon ND2 files with the package nd2; each position is an image."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from septa.errors import InputError
from septa.images._info import Array, DamagedDataError
from septa.images._units import keep_plausible_size
from septa.images.calibration import Calibration
from septa.images.formats.container import Scene, keep_pages, load_reader

_PAGES = "TZ"
_FRAME_HEAD = 4096
"""Bytes of a frame before its pixels."""


class Nd2Container:
    """An open ND2 file. See `septa.images.formats.container.Container`."""

    def __init__(self, path: Path, dataset: str) -> None:
        package = load_reader(path, "a Nikon ND2", "nd2")
        self._file = package.ND2File(path)
        try:
            sizes = dict(self._file.sizes)
            loops = {axis: size for axis, size in sizes.items() if axis not in "CYXS"}
            others = [axis for axis, size in loops.items() if axis not in "PTZ" and size > 1]
            if others:
                problem = f"septa does not read its axes {', '.join(others)}"
                raise InputError(path, problem, "Export it as OME-TIFF, for example with NIS-Elements")
            self._loops = loops
            self._frames = _find_frames(path)
            samples = sizes.get("S", 1)
            page_axes, page_shape = keep_pages({axis: loops.get(axis, 1) for axis in _PAGES})
            scene = Scene(
                height=sizes["Y"],
                width=sizes["X"],
                channels=sizes.get("C", 1) * samples,
                dtype=np.dtype(self._file.dtype),
                page_axes=page_axes,
                page_shape=page_shape,
                color=samples == 3 and sizes.get("C", 1) == 1,
                calibration=self._read_calibration(),
            )
            self.scenes = [scene] * loops.get("P", 1)
        except BaseException:
            self._file.close()
            raise

    def _read_calibration(self) -> Calibration:
        """Return the scale and the names of channels; damaged metadata states none."""
        try:
            channels = self._file.metadata.channels or []
            names = tuple(str(one.channel.name) for one in channels)
            (known_x, known_y, known_z), (x, y, z) = (
                channels[0].volume.axesCalibrated,
                channels[0].volume.axesCalibration,
            )
            periods = [loop.parameters.periodMs for loop in self._file.experiment if loop.type == "TimeLoop"]
        except Exception:  # the library parses metadata of many versions without checks
            return Calibration()
        return Calibration(
            pixel_size_um=keep_plausible_size(float(y), float(x)) if known_x and known_y else None,
            z_step_um=float(z) if known_z and z > 0 and self._loops.get("Z", 1) > 1 else None,
            time_step_s=periods[0] / 1000 if periods and periods[0] > 0 else None,
            channel_names=names if any(names) else (),
        )

    def read(self, scene: int, page: int) -> Array:
        """Return a page of a position."""
        facts = self.scenes[scene]
        place: dict[str, Any] = facts.locate(page) | {"P": scene}
        frame = 0
        for axis, size in self._loops.items():
            frame = frame * size + place.get(axis, 0)
        pixels = 0 if self._file.attributes.compressionType else facts.channels * facts.height * facts.width
        if self._frames.get(frame, -1) < pixels * facts.dtype.itemsize:
            raise DamagedDataError(f"its frame {frame} is missing")
        values = np.array(self._file.read_frame(frame))
        if facts.color or values.ndim == 4:  # C, Y, X, S
            values = np.moveaxis(values.reshape(-1, facts.height, facts.width, values.shape[-1]), 3, 1)
        return values.reshape(facts.channels, facts.height, facts.width)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _find_frames(path: Path) -> dict[int, int]:
    """Return the number of bytes that the file holds after the head of each frame, by the number of the frame.

    The library returns zeros for frames that are missing.
    """
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(size - 8, 0))
        (start,) = struct.unpack("<Q", stream.read(8))
        if start >= size:
            raise DamagedDataError("the file ends early")
        stream.seek(start)
        chunks = stream.read()
    return {
        int(match[1]): size - struct.unpack("<Q", match[2])[0] - _FRAME_HEAD
        for match in re.finditer(rb"ImageDataSeq\|(\d+)!(.{8})", chunks, re.DOTALL)
    }
