"""OME-Zarr 0.4 (zarr 2) and 0.5 (zarr 3), and plain zarr arrays, as sources."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from septa.errors import InputError
from septa.images._info import Array
from septa.images._tiff import UM_PER_UNIT, keep_plausible_size
from septa.images.sources.source import (
    PixelRange,
    Source,
    as_read,
    check_channels,
    check_chunk,
    check_image,
    check_level,
    name_channels,
)
from septa.images.sources.zarr_array import ZarrArray, open_array, read_json

_AXES = "TCZYX"
_MOST_LEVELS = 64
_PLAIN_AXES = {2: "YX", 3: "CYX", 4: "CZYX", 5: "TCZYX"}
_PREFIXES = {"pico": 1e-6, "nano": 1e-3, "micro": 1.0, "milli": 1e3, "centi": 1e4, "": 1e6}
_UM_PER_LENGTH_UNIT = {
    **{f"{prefix}met{end}": um for prefix, um in _PREFIXES.items() for end in ("er", "re")},
    **{unit: um for unit, um in UM_PER_UNIT.items() if unit not in ("a", "in")},
    "angstrom": 1e-4,
}


@dataclass(frozen=True)
class _Transform:
    """Scale and translation by axis, in units of the axes."""

    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True)
class _ZarrReader:
    array: ZarrArray
    axes: str

    def read(self, t: int, z: int, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Array:
        whole = {"T": (t, t + 1), "Z": (z, z + 1), "Y": y, "X": x}
        # Channels that share a chunk are decoded together, others one by one.
        together = "C" not in self.axes or self.array.chunk[self.axes.index("C")] > 1
        low, high = min(channels), max(channels) + 1
        groups = [(low, high)] if together else [(channel, channel + 1) for channel in channels]
        planes = [self._planes({**whole, "C": group}) for group in groups]
        if together:
            return planes[0][[channel - low for channel in channels]]
        return np.concatenate(planes)

    def _planes(self, window: dict[str, PixelRange]) -> Array:
        values = self.array.read([window[axis] for axis in self.axes])
        ordered = values.transpose([self.axes.index(axis) for axis in _AXES if axis in self.axes])
        height, width = (end - begin for begin, end in (window["Y"], window["X"]))
        return ordered.reshape(-1, height, width)

    def close(self) -> None:
        pass


def open_zarr(path: Path, level: int, image: int, max_pixels: int) -> Source:
    """Open a folder that is a zarr group or array; see `septa.images.sources.open.open_source`."""
    _refuse_unfinished(path)
    array = open_array(path)
    if array is None:
        return _open_group(path, level, image, max_pixels)
    number = _level_of_parent(path)
    if number is not None and level == 0:
        return _open_group(path.parent, number, image, max_pixels)
    check_level(path, level, 1)
    check_image(path, image, 1)
    named = "".join(str(name).upper() for name in array.names or array.attributes.get("_ARRAY_DIMENSIONS") or ())
    rank = len(array.shape)
    axes = named if len(named) == rank and _are_axes(named) else _PLAIN_AXES.get(rank, "")
    if not axes:
        raise InputError(path, f"has {rank} axes", "2 to 5 are read: YX, CYX, CZYX, TCZYX")
    return _source(path, axes, [array], 0, None, (), 1, max_pixels)


def _refuse_unfinished(path: Path) -> None:
    """Refuse what septa has not finished writing, also when a part of it is opened."""
    for folder in (path, *path.absolute().parents[:3]):
        septa = _attributes(folder).get("septa")
        if isinstance(septa, dict) and septa.get("complete") is False:
            raise InputError(folder, "is not complete", "run the command that wrote it again")


def _attributes(path: Path) -> dict[str, Any]:
    """Attributes of a group or array, format 3 or 2; empty when there are none."""
    third = read_json(path / "zarr.json")
    found = third.get("attributes") if third is not None else read_json(path / ".zattrs")
    return found if isinstance(found, dict) else {}


def _ome(path: Path) -> dict[str, Any]:
    """What OME-Zarr 0.5 puts below ``ome`` and 0.4 at the top."""
    attributes = _attributes(path)
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, dict) else {}


def _level_of_parent(path: Path) -> int | None:
    """Level that an array is in the multiscale image of the folder around it."""
    try:
        _, paths, _ = _multiscale(path.absolute().parent, _ome(path.absolute().parent))
    except InputError:
        return None
    return paths.index(path.name) if path.name in paths else None


def _open_group(path: Path, level: int, image: int, max_pixels: int) -> Source:
    ome = _ome(path)
    if "plate" in ome or "well" in ome:
        kind, field = ("plate", f"{path / _first_well(ome)}/0") if "plate" in ome else ("well", f"{path}/0")
        raise InputError(path, f"is a {kind} of many images", f"give one field of it, for example {field}")
    if "multiscales" not in ome:
        images = _bioformats_images(path, ome)
        if not images:
            raise InputError(path, "holds no OME-Zarr image and no zarr array", "give the folder of one image")
        check_image(path, image, len(images))
        source = _open_group(path / images[image], level, 0, max_pixels)
        return Source(**{**vars(source), "images": len(images)})
    check_image(path, image, 1)
    axes, paths, transforms = _multiscale(path, ome)
    check_level(path, level, len(paths))
    arrays = [_level_array(path, name, axes) for name in paths]
    omero = ome.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    labels = [channel.get("label") if isinstance(channel, dict) else None for channel in _as_list(channels)]
    letters = "".join(axis["name"].upper() for axis in axes)
    place = _place(path, axes, transforms[level])
    return _source(path, letters, arrays, level, place, labels, 1, max_pixels)


def _bioformats_images(path: Path, ome: dict[str, Any]) -> list[str]:
    """Folders of the images that bioformats2raw wrote, in order."""
    if ome.get("bioformats2raw.layout") != 3:
        return []
    series = [name for name in _as_list(_ome(path / "OME").get("series")) if _is_inside(name)]
    if series:
        return series
    numbers = sorted(int(folder.name) for folder in path.iterdir() if folder.name.isdecimal())
    return [str(number) for number in numbers]


def _first_well(ome: dict[str, Any]) -> str:
    wells = _as_list(ome["plate"].get("wells")) if isinstance(ome["plate"], dict) else []
    name = wells[0].get("path") if wells and isinstance(wells[0], dict) else None
    return str(name) if _is_inside(name) else "A/1"


def _is_inside(name: Any) -> bool:
    """Whether a path of the metadata stays inside its folder."""
    if not isinstance(name, str) or not name or len(name) > 1000 or "\\" in name or "\0" in name:
        return False
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def _as_list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _multiscale(path: Path, ome: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str], list[_Transform]]:
    """Axes, folders and transforms of all levels of the first multiscale image."""
    found = _as_list(ome.get("multiscales"))
    first = found[0] if found and isinstance(found[0], dict) else {}
    axes, datasets = first.get("axes"), _as_list(first.get("datasets"))
    names = [axis.get("name") if isinstance(axis, dict) else None for axis in _as_list(axes)]
    letters = "".join(str(name).upper() for name in names)
    if not _are_axes(letters) or len(letters) != len(names):
        problem = f"its OME-Zarr axes {names!r:.80} are not understood"
        raise InputError(path, problem, "septa reads version 0.4 and 0.5 with axes t, c, z, y, x; convert it")
    paths = [dataset.get("path") if isinstance(dataset, dict) else None for dataset in datasets]
    if not 1 <= len(paths) <= _MOST_LEVELS or not all(_is_inside(name) for name in paths):
        raise InputError(path, f"its list of {len(paths)} levels is broken", "correct its metadata or export it again")
    whole = _transform(path, first.get("coordinateTransformations"), len(names))
    transforms = []
    for dataset in datasets:
        own = _transform(path, dataset.get("coordinateTransformations"), len(names))
        scale = tuple(a * b for a, b in zip(own.scale, whole.scale))
        shift = tuple(a * b + c for a, b, c in zip(own.translation, whole.scale, whole.translation))
        transforms.append(_Transform(scale, shift))
    return _as_list(axes), [str(name) for name in paths], transforms


def _are_axes(letters: str) -> bool:
    """Whether axes are some of TCZYX, each once, with Y and X."""
    return {"Y", "X"} <= set(letters) <= set(_AXES) and len(set(letters)) == len(letters)


def _transform(path: Path, found: Any, axes: int) -> _Transform:
    scale, shift = (1.0,) * axes, (0.0,) * axes
    for step in _as_list(found):
        kind = step.get("type") if isinstance(step, dict) else None
        values = _as_list(step.get(kind)) if isinstance(kind, str) else []
        numbers = tuple(float(value) for value in values if type(value) in (int, float) and abs(value) < 1e30)
        sound = len(values) == len(numbers) == axes and (kind != "scale" or min(numbers) > 0)
        if kind == "identity":
            continue
        if kind not in ("scale", "translation") or not sound:
            problem = f"its coordinateTransformations hold {str(step)[:80]}, not {axes} sound numbers"
            raise InputError(path, problem, "correct its metadata or export it again")
        if kind == "scale":
            scale, shift = numbers, tuple(a * b for a, b in zip(shift, numbers))
        else:
            shift = tuple(a + b for a, b in zip(shift, numbers))
    return _Transform(scale, shift)


def _place(path: Path, axes: list[dict[str, Any]], transform: _Transform) -> tuple[Any, tuple[float, float]] | None:
    """Pixel size and origin in micrometres; None without a unit of length."""
    sizes, origin = [], []
    for letter in "yx":
        number = [axis["name"].lower() for axis in axes].index(letter)
        unit = _UM_PER_LENGTH_UNIT.get(str(axes[number].get("unit", "")).strip().lower())
        if unit is None:
            return None
        sizes.append(transform.scale[number] * unit)
        origin.append(transform.translation[number] * unit)
    pixel_size = keep_plausible_size(sizes[0], sizes[1])
    return pixel_size and (pixel_size, (origin[0], origin[1]))


def _level_array(path: Path, name: str, axes: list[Any]) -> ZarrArray:
    array = open_array(path / name)
    if array is None:
        raise InputError(path / name, "the array of this level is missing", "copy or export the image again")
    if len(array.shape) != len(axes):
        problem = f"has {len(array.shape)} axes where its image names {len(axes)}"
        raise InputError(path / name, problem, "correct its metadata or export it again")
    return array


def _source(
    path: Path, axes: str, arrays: list[ZarrArray], level: int, place: Any, names: Any, images: int, max_pixels: int
) -> Source:
    def sizes(array: ZarrArray) -> dict[str, int]:
        return dict(zip(axes, array.shape))

    array, full = arrays[level], sizes(arrays[0])
    for other in map(sizes, arrays):
        if any(other[axis] != full[axis] for axis in axes if axis in "TC") or any(other[a] > full[a] for a in axes):
            problem = f"its levels do not fit each other ({tuple(full.values())} and {tuple(other.values())})"
            raise InputError(path, problem, "correct its metadata or export it again")
    size = sizes(array)
    if 0 in size.values():
        raise InputError(path, f"the image is empty ({axes} of {array.shape})", "export it again")
    chunk = dict(zip(axes, array.chunk))
    check_chunk(array.path, math.prod(array.chunk), max_pixels)
    pixel_size, origin = place or (None, (0.0, 0.0))
    channels = size.get("C", 1)
    check_channels(path, channels)
    return Source(
        path=path,
        axes=axes,
        shape=(size.get("T", 1), channels, size.get("Z", 1), size["Y"], size["X"]),
        dtype=as_read(array.path, array.dtype),
        levels=tuple((other["Y"], other["X"]) for other in map(sizes, arrays)),
        level=level,
        chunk=(min(chunk["Y"], size["Y"]), min(chunk["X"], size["X"])),
        pixel_size_um=pixel_size,
        origin_um=origin,
        channels=tuple(range(channels)),
        channel_names=name_channels(names, channels),
        images=images,
        reader=_ZarrReader(array, axes),
    )
