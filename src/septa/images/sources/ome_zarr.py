"""Open OME-Zarr 0.4 (zarr 2) and 0.5 (zarr 3), and plain zarr arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from septa.errors import InputError, shorten_list
from septa.images._info import Array
from septa.images._units import keep_plausible_size, s_per_unit, um_per_unit
from septa.images.calibration import Calibration
from septa.images.sources.source import METADATA_FILES, ImageLevel, PixelRange
from septa.images.sources.zarr_array import ZarrArray, open_array, read_json
from septa.images.sources.zarr_axes import find_named_axes, guess_axes

_AXES = "TCZYX"
_MOST_LEVELS = 64
_CORRECT_METADATA = "Correct the metadata or export the image again"


@dataclass(frozen=True)
class _Transform:
    """Scale and translation of each axis, in units of the axes."""

    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class _Multiscale:
    """A multiscale image of a group.

    Attributes
    ----------
    path
        Folder of the group.
    number, images
        Number of the image, and number of images in the group.
    axes
        Axes in the metadata, each with "name" and maybe "unit".
    names, transforms
        Folder below ``path`` and transform of each level.
    channel_names
        Names of the channels in the metadata, which may be too few or not text.
    """

    path: Path
    number: int
    images: int
    axes: list[dict[str, Any]]
    names: list[str]
    transforms: list[_Transform]
    channel_names: list[Any]

    @property
    def letters(self) -> str:
        """Axes as capital letters."""
        return "".join(axis["name"].upper() for axis in self.axes)


class ZarrFolder:
    """A folder that is a zarr group or array; see `septa.images.sources.source.ImageFile`.

    Raises
    ------
    InputError
        If the folder is neither, is damaged, or was not written completely.
    """

    def __init__(self, path: Path) -> None:
        _refuse_unfinished(path)
        self._path = path
        self._array = open_array(path)
        self._place_in_parent = None if self._array is None else _find_place_in_parent(path)
        self._places = [(path, 0)] if self._array is not None else _list_images(path)
        self.images = len(self._places)

    def describe_images(self) -> str:
        """Return the number and the names of the images, printable."""
        names = [folder.name if folder != self._path else str(number) for folder, number in self._places]
        return f"{self.images} images ({shorten_list(names)})"

    def count_levels(self, image: int) -> int:
        """Return the number of levels of an image that exists."""
        return 1 if self._array is not None else len(self._multiscale(image).names)

    def open_level(self, image: int, level: int) -> ImageLevel:
        """Open one level of one image, both of which exist.

        Raises
        ------
        InputError
            If the metadata is damaged, or describes what septa does not read.
        """
        if self._array is None:
            return replace(_open_multiscale(self._multiscale(image), level), images=self.images)
        if self._place_in_parent is None:
            return _open_plain(self._path, self._array)
        number, place = self._place_in_parent
        return _open_multiscale(_read_multiscale(self._path.absolute().parent, number), place)

    def _multiscale(self, image: int) -> _Multiscale:
        folder, number = self._places[image]
        # An image of bioformats2raw must itself be a group that septa reads.
        return _read_multiscale(*((folder, number) if folder == self._path else _list_images(folder)[0]))


@dataclass(frozen=True)
class _ZarrReader:
    """A reader of one level, whose axes may be in any order."""

    array: ZarrArray
    axes: str

    def read(self, t: int, z: int, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Array:
        window = {"T": (t, t + 1), "Z": (z, z + 1), "Y": y, "X": x}
        if "C" in self.axes and self.array.chunk[self.axes.index("C")] == 1:
            planes = [self._read_planes({**window, "C": (channel, channel + 1)}) for channel in channels]
            return np.concatenate(planes)
        # Channels that share a chunk are decoded together.
        low, high = min(channels), max(channels) + 1
        return self._read_planes({**window, "C": (low, high)})[[channel - low for channel in channels]]

    def _read_planes(self, window: dict[str, PixelRange]) -> Array:
        values = self.array.read([window[axis] for axis in self.axes])
        ordered = values.transpose([self.axes.index(axis) for axis in _AXES if axis in self.axes])
        height, width = (end - begin for begin, end in (window["Y"], window["X"]))
        return ordered.reshape(-1, height, width)

    def list_files(self, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Iterator[Path]:
        sizes = dict(zip(self.axes, self.array.shape))
        window = {axis: (0, sizes.get(axis, 1)) for axis in "TZ"} | {"Y": y, "X": x}
        window["C"] = min(channels), max(channels) + 1
        yield from (self.array.path / name for name in METADATA_FILES)
        yield from self.array.list_files([window[axis] for axis in self.axes])

    def close(self) -> None:
        self.array.large_chunk.clear()


def _refuse_unfinished(path: Path) -> None:
    """Refuse a store that septa has not finished writing, also when a part of it is opened."""
    for folder in (path, *path.absolute().parents[:3]):
        septa = _read_attributes(folder).get("septa")
        if isinstance(septa, dict) and septa.get("complete") is False:
            raise InputError(folder, "the store is not complete", "Run the command that wrote it again")


def _read_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a group or array, format 3 or 2; empty when there are none."""
    third = read_json(path / "zarr.json")
    found = third.get("attributes") if third is not None else read_json(path / ".zattrs")
    return found if isinstance(found, dict) else {}


def _read_ome(path: Path) -> dict[str, Any]:
    """Return the metadata that OME-Zarr 0.5 puts below ``ome`` and 0.4 at the top."""
    attributes = _read_attributes(path)
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, dict) else {}


def _find_place_in_parent(path: Path) -> tuple[int, int] | None:
    """Return the numbers of the multiscale image and the level that an array is in the folder around it."""
    parent = path.absolute().parent
    for number in range(len(_as_list(_read_ome(parent).get("multiscales")))):
        try:
            names = _read_multiscale(parent, number).names
        except InputError:
            continue
        if path.name in names:
            return number, names.index(path.name)
    return None


def _list_images(path: Path) -> list[tuple[Path, int]]:
    """Return the folder of each image of a group, and its number there.

    The images are in the group itself, or in the folders that bioformats2raw wrote, in order.
    """
    ome = _read_ome(path)
    if "plate" in ome or "well" in ome:
        kind, field = ("plate", f"{path / _first_well(ome)}/0") if "plate" in ome else ("well", f"{path}/0")
        raise InputError(path, f"the folder is a {kind} of many images", f"Give one of its fields, for example {field}")
    if "multiscales" in ome:
        return [(path, number) for number in range(max(1, len(_as_list(ome["multiscales"]))))]
    names: list[str] = []
    if ome.get("bioformats2raw.layout") == 3:
        names = [name for name in _as_list(_read_ome(path / "OME").get("series")) if _is_inside(name)]
        # Without a list, the images are numbered.
        names = names or [str(n) for n in sorted(int(one.name) for one in path.iterdir() if one.name.isdecimal())]
    if not names:
        raise InputError(path, "the folder holds no OME-Zarr image and no zarr array", "Give the folder of an image")
    return [(path / name, 0) for name in names]


def _first_well(ome: dict[str, Any]) -> str:
    wells = _as_list(ome["plate"].get("wells")) if isinstance(ome["plate"], dict) else []
    name = wells[0].get("path") if wells and isinstance(wells[0], dict) else None
    return str(name) if _is_inside(name) else "A/1"


def _is_inside(name: Any) -> bool:
    """Return True if a path of the metadata stays inside its folder."""
    if not isinstance(name, str) or not name or len(name) > 1000 or "\\" in name or "\0" in name:
        return False
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def _as_list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _read_multiscale(path: Path, number: int) -> _Multiscale:
    ome = _read_ome(path)
    every = _as_list(ome.get("multiscales"))
    first = every[number] if every and isinstance(every[number], dict) else {}
    axes, datasets = _as_list(first.get("axes")), _as_list(first.get("datasets"))
    names = [axis.get("name") if isinstance(axis, dict) else None for axis in axes]
    letters = "".join(str(name).upper() for name in names)
    if not _are_axes(letters) or len(letters) != len(names):
        problem = f"septa does not read the OME-Zarr axes {names!r:.80}"
        raise InputError(path, problem, "Convert the image to version 0.4 or 0.5 with axes among t, c, z, y, x")
    paths = [dataset.get("path") if isinstance(dataset, dict) else None for dataset in datasets]
    if not 1 <= len(paths) <= _MOST_LEVELS or not all(_is_inside(name) for name in paths):
        raise InputError(path, f"its list of {len(paths)} levels is not valid", _CORRECT_METADATA)
    whole = _read_transform(path, first.get("coordinateTransformations"), len(names))
    transforms = []
    for dataset in datasets:
        own = _read_transform(path, dataset.get("coordinateTransformations"), len(names))
        scale = tuple(a * b for a, b in zip(own.scale, whole.scale))
        shift = tuple(a * b + c for a, b, c in zip(own.translation, whole.scale, whole.translation))
        transforms.append(_Transform(scale, shift))
    omero = ome.get("omero")
    channels = _as_list(omero.get("channels")) if isinstance(omero, dict) else []
    labels = [channel.get("label") if isinstance(channel, dict) else None for channel in channels]
    return _Multiscale(
        path=path,
        number=number,
        images=max(1, len(every)),
        axes=axes,
        names=[str(name) for name in paths],
        transforms=transforms,
        channel_names=labels,
    )


def _are_axes(letters: str) -> bool:
    """Return True if axes are some of TCZYX, each once, with Y and X."""
    return {"Y", "X"} <= set(letters) <= set(_AXES) and len(set(letters)) == len(letters)


def _read_transform(path: Path, found: Any, axes: int) -> _Transform:
    scale, shift = (1.0,) * axes, (0.0,) * axes
    for step in _as_list(found):
        kind = step.get("type") if isinstance(step, dict) else None
        values = _as_list(step.get(kind)) if isinstance(kind, str) else []
        numbers = tuple(float(value) for value in values if type(value) in (int, float) and abs(value) < 1e30)
        is_valid = len(values) == len(numbers) == axes and (kind != "scale" or min(numbers) > 0)
        if kind == "identity":
            continue
        if kind not in ("scale", "translation") or not is_valid:
            problem = f"its coordinateTransformations must hold {axes} valid numbers each, got {str(step)[:80]}"
            raise InputError(path, problem, _CORRECT_METADATA)
        if kind == "scale":
            scale, shift = numbers, tuple(a * b for a, b in zip(shift, numbers))
        else:
            shift = tuple(a + b for a, b in zip(shift, numbers))
    return _Transform(scale, shift)


def _find_calibration(axes: list[dict[str, Any]], transform: _Transform) -> Calibration:
    """Return the calibration of a level, as far as the file states units."""
    found = {}
    for axis, scale, translation in zip(axes, transform.scale, transform.translation):
        letter = axis["name"].lower()
        factor = (s_per_unit if letter == "t" else um_per_unit)(axis.get("unit", ""))
        if factor is not None:
            found[letter] = scale * factor, translation * factor
    y, x = found.get("y"), found.get("x")
    size = keep_plausible_size(y[0], x[0]) if y and x else None
    z_step, z_origin = found.get("z", (None, 0.0))
    time_step, time_origin = found.get("t", (None, 0.0))
    return Calibration(
        pixel_size_um=size,
        z_step_um=z_step,
        time_step_s=time_step,
        origin_um=(z_origin, y[1], x[1]) if size and y and x else (z_origin, 0.0, 0.0),
        time_origin_s=time_origin,
    )


def _open_multiscale(image: _Multiscale, level: int) -> ImageLevel:
    arrays = [_open_level_array(image.path / name, len(image.axes)) for name in image.names]
    calibration = _find_calibration(image.axes, image.transforms[level])
    found = _describe(image.path, image.letters, arrays, level, calibration, image.channel_names)
    return replace(found, image=image.number, images=image.images)


def _open_level_array(path: Path, axes: int) -> ZarrArray:
    array = open_array(path)
    if array is None:
        raise InputError(path, "the array of this level is missing", "Copy or export the image again")
    if len(array.shape) != axes:
        problem = f"the array has {len(array.shape)} axes, but its image names {axes}"
        raise InputError(path, problem, _CORRECT_METADATA)
    return array


def _open_plain(path: Path, array: ZarrArray) -> ImageLevel:
    """Open an array that belongs to no OME-Zarr image; its axes are named by xarray, by zarr 3, or by their number."""
    axes = find_named_axes(path, array)
    if axes:
        return _describe(path, axes, [array], 0, Calibration(), ())
    axes = guess_axes(path, array)
    notes = (f"its axes have no names and are read as {axes}",) if len(axes) > 2 else ()
    return replace(_describe(path, axes, [array], 0, Calibration(), ()), notes=notes)


def _describe(
    path: Path,
    axes: str,
    arrays: list[ZarrArray],
    level: int,
    calibration: Calibration,
    channel_names: Sequence[object],
) -> ImageLevel:
    sizes = [dict(zip(axes, array.shape)) for array in arrays]
    full = sizes[0]
    for size in sizes:
        if any(size[axis] != full[axis] for axis in axes if axis in "TC") or any(size[a] > full[a] for a in axes):
            problem = f"its levels do not fit each other ({tuple(full.values())} and {tuple(size.values())})"
            raise InputError(path, problem, _CORRECT_METADATA)
    array, size = arrays[level], sizes[level]
    chunk = dict(zip(axes, array.chunk))
    return ImageLevel(
        path=path,
        data_path=array.path,
        axes=axes,
        shape=(size.get("T", 1), size.get("C", 1), size.get("Z", 1), size["Y"], size["X"]),
        stored=array.dtype,
        image=0,
        images=1,
        level=level,
        levels=tuple((one["Y"], one["X"]) for one in sizes),
        chunk=(chunk["Y"], chunk["X"]),
        chunk_samples=math.prod(array.chunk),
        decoding_bytes=2 * math.prod(array.chunk) * array.dtype.itemsize,
        calibration=calibration,
        channel_names=channel_names,
        reader=_ZarrReader(array, axes),
    )
