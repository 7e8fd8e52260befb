"""Read Leica LIF files with the package liffile; each series is an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from septa.images._info import Array, DamagedDataError
from septa.images._ome import read_finite
from septa.images._units import keep_plausible_size, s_per_unit, um_per_unit
from septa.images.calibration import Calibration
from septa.images.formats.container import Scene, close_on_error, keep_pages, load_reader

_CHANNELS = ("C", "S")
_AXES = {"1": "X", "2": "Y", "3": "Z", "4": "T"}


class LifContainer:
    """An open LIF or LOF file. See `septa.images.formats.container.Container`.

    Series without rows and columns, such as line scans, are not listed.
    """

    def __init__(self, path: Path, dataset: str) -> None:
        package = load_reader(path, "a Leica LIF", "liffile")
        self._stream = path.open("rb")
        with close_on_error(self._stream):
            self._file = package.LifFile(self._stream)
            self._images = [image for image in self._file.images if {"Y", "X"} <= set(image.dims)]
            if not self._images:
                raise DamagedDataError("it holds no image")
            self.scenes = [_describe(image) for image in self._images]

    def read(self, scene: int, page: int) -> Array:
        """Return a page of a series."""
        image, facts = self._images[scene], self.scenes[scene]
        place = facts.locate(page)
        sizes = image.sizes
        outer = [axis for axis in sizes if axis not in ("Y", "X", "S")]
        if set(image.frames.frame_dims) != set(sizes) - set(outer):
            return self._pick(image.asarray(), list(sizes), place, facts)
        planes = []
        for channel in range(sizes.get("C", 1)):
            index = tuple((place | {"C": channel})[axis] for axis in outer)
            frame = image.frames[index] if index else image.asarray()
            planes.append(self._pick(frame, list(image.frames.frame_dims), {}, None))
        return np.concatenate(planes).reshape(facts.channels, facts.height, facts.width)

    @staticmethod
    def _pick(values: Array, axes: list[str], place: dict[str, int], facts: Scene | None) -> Array:
        """Return the plane at a place, with channels first."""
        found = np.asarray(values)[tuple(place.get(axis, slice(None)) for axis in axes)]
        left = [axis for axis in axes if axis not in place]
        order = [left.index(axis) for axis in (*_CHANNELS, "Y", "X") if axis in left]
        planes = found.transpose(order).reshape(-1, *(found.shape[left.index(axis)] for axis in "YX"))
        return planes if facts is None else planes.reshape(facts.channels, facts.height, facts.width)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._stream.close()


def _describe(image: Any) -> Scene:
    sizes = dict(image.sizes)
    page_axes, page_shape = keep_pages({axis: size for axis, size in sizes.items() if axis not in (*_CHANNELS, *"YX")})
    samples = sizes.get("S", 1)
    whole = set(image.frames.frame_dims) != {axis for axis in sizes if axis in ("Y", "X", "S")}
    return Scene(
        name=str(image.name),
        height=sizes["Y"],
        width=sizes["X"],
        channels=samples * sizes.get("C", 1),
        dtype=np.dtype(image.dtype),
        page_axes=page_axes,
        page_shape=page_shape,
        color=samples == 3 and "C" not in sizes,
        decoded_samples=int(np.prod(image.shape, dtype=object)) if whole else 0,
        calibration=_read_calibration(image),
    )


def _read_calibration(image: Any) -> Calibration:
    """Return the scale: a length in the file reaches from the first to the last pixel."""
    steps: dict[str, float] = {}
    for one in image.xml_element.iterfind("./Data/Image/ImageDescription/Dimensions/DimensionDescription"):
        axis = _AXES.get(one.get("DimID", ""), "")
        length, count = read_finite(one.get("Length")), read_finite(one.get("NumberOfElements"))
        factor = (s_per_unit if axis == "T" else um_per_unit)(one.get("Unit", ""))
        if axis and length and count and count > 1 and factor:
            steps[axis] = abs(length) / (count - 1) * factor
    y, x = steps.get("Y"), steps.get("X")
    return Calibration(
        pixel_size_um=keep_plausible_size(y, x) if y and x else None,
        z_step_um=steps.get("Z"),
        time_step_s=steps.get("T"),
    )
