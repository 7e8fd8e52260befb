"""Read NRRD files, whose headers the package pynrrd interprets."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from septa.errors import InputError
from septa.images._info import Array, DamagedDataError
from septa.images._units import keep_plausible_size, s_per_unit, um_per_unit
from septa.images.calibration import Calibration
from septa.images.formats.container import Scene, keep_pages, load_reader
from septa.images.formats.inflate import inflate

_MOST_HEADER = 1 << 20
_COMPRESSIONS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bz2", "bz2": "bz2"}
_TEXT = ("ascii", "text", "txt")
_SPACE = ("domain", "space", "none", "???")
_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}


class NrrdContainer:
    """A NRRD file, or the header of one whose data lie in a file beside it.

    See `septa.images.formats.container.Container`.
    """

    def __init__(self, path: Path, dataset: str) -> None:
        package = load_reader(path, "a NRRD", "pynrrd", "nrrd")
        with path.open("rb") as stream:
            head = stream.read(_MOST_HEADER)
        end = re.search(rb"\r?\n\r?\n", head)
        header = package.read_header([*head[: end.start() if end else None].splitlines(), b""])
        self._file, self._start = path, end.end() if end else len(head)
        self._find_data(path, header, bool(end))
        kind, endian = str(header["type"]).lower(), str(header.get("endian", "little")).lower()
        if kind not in _TYPES:
            raise InputError(path, f"septa does not read NRRD samples of type {kind[:40]}", "Convert it to numbers")
        self._dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if endian == "big" else "<")
        shape = [int(size) for size in header["sizes"]][::-1]
        if len(shape) != int(header["dimension"]) or any(not 0 < size < 1 << 40 for size in shape):
            raise DamagedDataError("its sizes are not valid")
        self._axes = _find_axes(path, header, shape)
        self._shape = shape
        size = dict(zip(self._axes, shape))
        page_axes, page_shape = keep_pages({axis: size.get(axis, 1) for axis in "TZ"})
        kinds = [str(kind).lower() for kind in header.get("kinds", [])][::-1]
        color = "C" in self._axes and size["C"] == 3 and kinds[self._axes.index("C")] in ("rgb-color", "3-color")
        self.scenes = [
            Scene(
                height=size["Y"],
                width=size["X"],
                channels=size.get("C", 1),
                dtype=self._dtype.newbyteorder("="),
                page_axes=page_axes,
                page_shape=page_shape,
                color=color,
                decoded_samples=math.prod(shape),
                calibration=_read_calibration(header, self._axes),
            )
        ]

    def _find_data(self, path: Path, header: Mapping[str, Any], attached: bool) -> None:
        self._encoding = str(header.get("encoding", "raw")).lower()
        if self._encoding not in (*_COMPRESSIONS, *_TEXT):
            problem = f"septa does not read NRRD data of the encoding {self._encoding[:40]}"
            raise InputError(path, problem, "Save it with the encoding raw or gzip")
        name = header.get("data file", header.get("datafile"))
        if name is not None:
            if re.fullmatch(r"[^/\\%]+", str(name)) is None or str(name).startswith("LIST") or str(name) in (".", ".."):
                problem = f"its data lie in {str(name)[:80]!r}, and septa reads a single file beside it"
                raise InputError(path, problem, "Save header and data as one .nrrd file")
            self._file, self._start = path.with_name(str(name)), 0
        elif not attached:
            raise DamagedDataError("its header does not end")
        skips = [int(header.get(f"{word}{gap}skip", 0)) for word in ("line", "byte") for gap in ("", " ")]
        if any(skips[:2]) or min(skips[2:]) < 0:
            raise InputError(path, "septa does not read NRRD data behind skipped lines", "Save it as one .nrrd file")
        self._skip = max(skips[2:])

    def read(self, scene: int, page: int) -> Array:
        """Return a page."""
        facts = self.scenes[0]
        count = math.prod(self._shape)
        if self._encoding in _TEXT:
            with self._file.open("rb") as stream:
                stream.seek(self._start)
                text = stream.read(64 * count + 1)
            values = np.array(text.split(), self._dtype)
            if values.size < count:
                raise DamagedDataError("the file ends early")
        else:
            size = count * self._dtype.itemsize
            data = inflate(self._file, _COMPRESSIONS[self._encoding], self._start, self._skip, size)
            values = np.frombuffer(data, self._dtype)
        place = facts.locate(page) | {axis: 0 for axis in "TZ" if axis not in facts.page_axes}
        found = values[:count].reshape(self._shape)[tuple(place.get(axis, slice(None)) for axis in self._axes)]
        left = [axis for axis in self._axes if axis not in place]
        planes = found.transpose([left.index(axis) for axis in "CYX" if axis in left])
        return planes.reshape(facts.channels, facts.height, facts.width).astype(facts.dtype)

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""


def _find_axes(path: Path, header: Mapping[str, Any], shape: Sequence[int]) -> str:
    """Return the axes, the slowest first: those without a meaning of their own are rows, columns and planes."""
    kinds = [str(kind).lower() for kind in header.get("kinds", ["space"] * len(shape))][::-1]
    places = [k for k, kind in enumerate(kinds) if kind in _SPACE]
    times = [k for k, kind in enumerate(kinds) if kind == "time"]
    others = [k for k in range(len(kinds)) if k not in (*places, *times)]
    if len(kinds) != len(shape) or not 2 <= len(places) <= 3 or len(times) > 1 or len(others) > 1:
        problem = f"septa does not read NRRD data of the axes {', '.join(kinds[::-1])[:80]}"
        raise InputError(path, problem, "Save two or three axes of space, and at most one of time and one of channels")
    letters = dict(zip(places, "ZYX"[-len(places) :])) | dict.fromkeys(times, "T") | dict.fromkeys(others, "C")
    return "".join(letters[k] for k in range(len(shape)))


def _read_calibration(header: Mapping[str, Any], axes: str) -> Calibration:
    """Return the sizes along axes whose unit is stated."""
    directions = header.get("space directions")
    steps = list(header.get("spacings", [math.nan] * len(axes)))
    space_units = [str(unit).strip('"') for unit in header.get("space units", [])]
    units = [str(unit).strip('"') for unit in header.get("units", [""] * len(axes))]
    if directions is not None:
        vectors = [None if one is None else np.asarray(one, float) for one in directions]
        steps = [math.nan if one is None else float(np.linalg.norm(one)) for one in vectors]
        units = [space_units[0] if one is not None and space_units else unit for one, unit in zip(vectors, units)]
    found = {}
    for axis, step, unit in zip(axes[::-1], steps, units, strict=False):
        factor = (s_per_unit if axis == "T" else um_per_unit)(unit)
        if factor is not None and math.isfinite(step) and step > 0:
            found[axis] = step * factor
    y, x = found.get("Y"), found.get("X")
    return Calibration(
        pixel_size_um=keep_plausible_size(y, x) if y and x else None,
        z_step_um=found.get("Z"),
        time_step_s=found.get("T"),
    )
