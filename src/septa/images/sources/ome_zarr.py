"""Open OME-Zarr 0.4 (zarr 2) and 0.5 (zarr 3), and plain zarr arrays."""

from __future__ import annotations

import hashlib
import json
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
from septa.images.sources.addresses import Location
from septa.images.sources.places import ZARR_METADATA, Place
from septa.images.sources.source import ImageLevel, PixelRange
from septa.images.sources.zarr_array import ZarrArray
from septa.images.sources.zarr_axes import find_named_axes, guess_axes
from septa.images.sources.zarr_metadata import open_array, read_json

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
    place
        Folder of the group.
    number, images
        Number of the image, and number of images in the group.
    axes
        Axes in the metadata, each with "name" and maybe "unit".
    names, transforms
        Folder below ``place`` and transform of each level.
    channel_names
        Names of the channels in the metadata, which may be too few or not text.
    """

    place: Place
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
    """A zarr group or array; see `septa.images.sources.source.ImageFile`.

    Raises
    ------
    InputError
        If the place is neither, is damaged, or was not written completely.
    """

    def __init__(self, place: Place) -> None:
        _refuse_unfinished(place)
        self._place = place
        self._array = open_array(place)
        self._place_in_parent = None if self._array is None else _find_place_in_parent(place)
        self._places = [(place, 0)] if self._array is not None else _list_images(place)
        self.images = len(self._places)

    def describe_images(self) -> str:
        """Return the number and the names of the images, printable."""
        names = [folder.name if folder is not self._place else str(number) for folder, number in self._places]
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
            return _open_plain(self._array)
        number, level = self._place_in_parent
        return _open_multiscale(_read_multiscale(self._place.parents[0], number), level)

    def _multiscale(self, image: int) -> _Multiscale:
        folder, number = self._places[image]
        # An image of bioformats2raw must itself be a group that septa reads.
        return _read_multiscale(*((folder, number) if folder is self._place else _list_images(folder)[0]))


@dataclass(frozen=True)
class _ZarrReader:
    """A reader of one level, whose axes may be in any order, of the image in a group."""

    group: Place
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
        yield from self.group.list_versions(iter(ZARR_METADATA))
        yield from self.array.place.list_versions(iter(ZARR_METADATA))
        yield from self.array.place.list_versions(self.array.list_keys([window[axis] for axis in self.axes]))

    def close(self) -> None:
        self.array.large_chunk.clear()
        self.group.close()


def _refuse_unfinished(place: Place) -> None:
    """Refuse a store that septa has not finished writing, also when a part of it is opened."""
    for folder in (place, *place.parents[:3]):
        try:
            septa = read_attributes(folder).get("septa")
        except InputError:
            if folder is place:
                raise
            continue  # whatever is around the image
        if isinstance(septa, dict) and septa.get("complete") is False:
            raise InputError(folder.location, "the store is not complete", "Run the command that wrote it again")


def read_attributes(place: Place) -> dict[str, Any]:
    """Return the attributes of a group or array, format 3 or 2; empty when there are none."""
    third = read_json(place / "zarr.json")
    found = third.get("attributes") if third is not None else read_json(place / ".zattrs")
    return found if isinstance(found, dict) else {}


def read_ome(place: Place) -> dict[str, Any]:
    """Return the metadata that OME-Zarr 0.5 puts below ``ome`` and 0.4 at the top."""
    attributes = read_attributes(place)
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, dict) else {}


def _find_place_in_parent(place: Place) -> tuple[int, int] | None:
    """Return the numbers of the multiscale image and the level that an array is in the folder around it."""
    parent = next(iter(place.parents), None)
    if parent is None:
        return None
    try:
        images = as_list(read_ome(parent).get("multiscales"))
    except InputError:
        return None
    for number in range(len(images)):
        try:
            names = _read_multiscale(parent, number).names
        except InputError:
            continue
        if place.name in names:
            return number, names.index(place.name)
    return None


def _list_images(place: Place) -> list[tuple[Place, int]]:
    """Return the folder of each image of a group, and its number there.

    The images are in the group itself, or in the folders that bioformats2raw wrote, in order.
    """
    ome = read_ome(place)
    if "plate" in ome or "well" in ome:
        kind, field = ("plate", place / _first_well(ome) / "0") if "plate" in ome else ("well", place / "0")
        remedy = f"Give one of its fields, for example {field.location}"
        raise InputError(place.location, f"the folder is a {kind} of many images", remedy)
    if "multiscales" in ome:
        return [(place, number) for number in range(max(1, len(as_list(ome["multiscales"]))))]
    names: list[str] = []
    if ome.get("bioformats2raw.layout") == 3:
        names = [name for name in as_list(read_ome(place / "OME").get("series")) if is_inside(name)]
        # Without a list, the images are numbered.
        names = names or [str(n) for n in sorted(int(name) for name in place.list_names() if name.isdecimal())]
    if not names:
        kind = "folder" if isinstance(place.location, Path) else "address"
        problem = f"the {kind} holds no OME-Zarr image and no zarr array"
        remedy = "Give the folder of an image"
        if kind == "address":
            problem += " that everyone may read"
            remedy = "Give the address of the folder of an image, and download images of other formats first"
        raise InputError(place.location, problem, remedy)
    return [(place / name, 0) for name in names]


def _first_well(ome: dict[str, Any]) -> str:
    wells = as_list(ome["plate"].get("wells")) if isinstance(ome["plate"], dict) else []
    name = wells[0].get("path") if wells and isinstance(wells[0], dict) else None
    return str(name) if is_inside(name) else "A/1"


def is_inside(name: Any) -> bool:
    """Return True if a path of the metadata stays inside its folder."""
    if not isinstance(name, str) or not name or len(name) > 1000 or "\\" in name or "\0" in name:
        return False
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def as_list(found: Any) -> list[Any]:
    """Return a list of the metadata; an empty one for anything else."""
    return found if isinstance(found, list) else []


def _read_multiscale(place: Place, number: int) -> _Multiscale:
    path = place.location
    ome = read_ome(place)
    every = as_list(ome.get("multiscales"))
    first = every[number] if every and isinstance(every[number], dict) else {}
    axes, datasets = as_list(first.get("axes")), as_list(first.get("datasets"))
    names = [axis.get("name") if isinstance(axis, dict) else None for axis in axes]
    letters = "".join(str(name).upper() for name in names)
    if not _are_axes(letters) or len(letters) != len(names):
        problem = f"septa does not read the OME-Zarr axes {names!r:.80}"
        raise InputError(path, problem, "Convert the image to version 0.4 or 0.5 with axes among t, c, z, y, x")
    paths = [dataset.get("path") if isinstance(dataset, dict) else None for dataset in datasets]
    if not 1 <= len(paths) <= _MOST_LEVELS or not all(is_inside(name) for name in paths):
        raise InputError(path, f"its list of {len(paths)} levels is not valid", _CORRECT_METADATA)
    whole = _read_transform(path, first.get("coordinateTransformations"), len(names))
    transforms = []
    for dataset in datasets:
        own = _read_transform(path, dataset.get("coordinateTransformations"), len(names))
        scale = tuple(a * b for a, b in zip(own.scale, whole.scale))
        shift = tuple(a * b + c for a, b, c in zip(own.translation, whole.scale, whole.translation))
        transforms.append(_Transform(scale, shift))
    omero = ome.get("omero")
    channels = as_list(omero.get("channels")) if isinstance(omero, dict) else []
    labels = [channel.get("label") if isinstance(channel, dict) else None for channel in channels]
    return _Multiscale(
        place=place,
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


def _read_transform(path: Location, found: Any, axes: int) -> _Transform:
    scale, shift = (1.0,) * axes, (0.0,) * axes
    for step in as_list(found):
        kind = step.get("type") if isinstance(step, dict) else None
        values = as_list(step.get(kind)) if isinstance(kind, str) else []
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
    arrays = [_open_level_array(image.place / name, len(image.axes)) for name in image.names]
    calibration = _find_calibration(image.axes, image.transforms[level])
    found = _describe(image.place, image.letters, arrays, level, calibration, image.channel_names)
    return replace(found, image=image.number, images=image.images)


def _open_level_array(place: Place, axes: int) -> ZarrArray:
    array = open_array(place)
    if array is None:
        raise InputError(place.location, "the array of this level is missing", "Copy or export the image again")
    if len(array.shape) != axes:
        problem = f"the array has {len(array.shape)} axes, but its image names {axes}"
        raise InputError(place.location, problem, _CORRECT_METADATA)
    return array


def _open_plain(array: ZarrArray) -> ImageLevel:
    """Open an array that belongs to no OME-Zarr image; its axes are named by xarray, by zarr 3, or by their number."""
    place = array.place
    axes = find_named_axes(place.location, array)
    if axes:
        return _describe(place, axes, [array], 0, Calibration(), ())
    axes = guess_axes(place.location, array)
    notes = (f"its axes have no names and are read as {axes}",) if len(axes) > 2 else ()
    return replace(_describe(place, axes, [array], 0, Calibration(), ()), notes=notes)


def _digest_metadata(*places: Place) -> str:
    """Return a SHA-256 (hex) of the metadata of groups and arrays."""
    found = [read_json(place / name) for place in places for name in ZARR_METADATA]
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _describe(
    place: Place,
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
            raise InputError(place.location, problem, _CORRECT_METADATA)
    array, size = arrays[level], sizes[level]
    chunk = dict(zip(axes, array.chunk))
    return ImageLevel(
        path=place.location,
        data_path=array.place.location,
        axes=axes,
        shape=(size.get("T", 1), size.get("C", 1), size.get("Z", 1), size["Y"], size["X"]),
        stored=array.dtype,
        image=0,
        images=1,
        level=level,
        levels=tuple((one["Y"], one["X"]) for one in sizes),
        chunk=(chunk["Y"], chunk["X"]),
        chunk_samples=math.prod(array.chunk),
        decoding_bytes=2 * math.prod(array.chunk) * array.dtype.itemsize * array.threads,
        calibration=calibration,
        channel_names=channel_names,
        version="" if isinstance(place.location, Path) else _digest_metadata(place, array.place),
        reader=_ZarrReader(place, array, axes),
    )
