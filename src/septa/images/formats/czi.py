"""Read Zeiss CZI files with the package czifile: the tiles of each scene are put together, plane by plane."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from septa.errors import InputError
from septa.images._info import Array, DamagedDataError
from septa.images._ome import read_positive
from septa.images._units import keep_plausible_size
from septa.images.calibration import Calibration
from septa.images.formats.container import Scene, close_on_error, keep_pages, load_reader, parse_xml

_METRE_UM = 1e6
_PAGES = "TZ"


@dataclass(frozen=True, kw_only=True)
class _Tile:
    """A part of a plane: its place along the axes of more than one sample, and the function that decodes it."""

    scene: int
    place: dict[str, int]
    height: int
    width: int
    samples: int
    dtype: np.dtype[Any]
    decode: Callable[[], Array]


@dataclass(frozen=True)
class _Layout:
    """Tiles of a scene, and the first index along each axis."""

    tiles: list[_Tile]
    first: dict[str, int]


class CziContainer:
    """An open CZI file; each scene is an image. See `septa.images.formats.container.Container`."""

    def __init__(self, path: Path, dataset: str) -> None:
        package = load_reader(path, "a Zeiss CZI", "czifile")
        self._stream = path.open("rb")
        with close_on_error(self._stream):
            self._file = package.CziFile(self._stream)
            tiles = [tile for entry in self._file.subblock_directory if (tile := self._describe(path, entry))]
            if not tiles:
                raise DamagedDataError("it holds no image")
            by_scene: dict[int, list[_Tile]] = defaultdict(list)
            for tile in tiles:
                by_scene[tile.scene].append(tile)
            calibration, names = _read_metadata(self._file)
            self._layouts: list[_Layout] = []
            self.scenes: list[Scene] = []
            for number in sorted(by_scene):
                layout, scene = _lay_out(path, by_scene[number], calibration, names)
                self._layouts.append(layout)
                self.scenes.append(scene)

    def _describe(self, path: Path, entry: Any) -> _Tile | None:
        """Return the tile of an entry of the directory; None for one of a smaller level of the pyramid.

        Versions of czifile before 2026 list the dimensions, later ones have tuples without scene and mosaic.
        """
        if hasattr(entry, "dimension_entries"):
            sizes = {one.dimension: (one.start, one.size, one.stored_size) for one in entry.dimension_entries}
            scene = sizes.pop("S", (0, 1, 1))[0]
            sizes.pop("M", None)
            full = np.dtype(entry.dtype)
            samples, dtype = (full.shape[0] if full.shape else 1), full.base
        else:
            ranges = zip(entry.start, entry.shape, entry.stored_shape, strict=True)
            sizes = dict(zip(entry.dims, ranges, strict=True))
            samples = sizes.pop("S")[1]
            scene, dtype = entry.scene_index, entry.pixel_type.dtype
        if any(size != stored and stored for _, size, stored in sizes.values()):
            return None
        (top, height, _), (left, width, _) = sizes.pop("Y"), sizes.pop("X")
        place = {axis: start for axis, (start, _, _) in sizes.items()} | {"Y": top, "X": left}
        longer = [axis for axis, (_, size, _) in sizes.items() if size > 1]
        if longer:
            problem = f"its tiles extend along the axes {''.join(longer)}, which septa does not read"
            raise InputError(path, problem, "Export it as OME-TIFF, for example with ZEN")

        def decode() -> Array:
            if hasattr(entry, "data_segment"):
                segment = entry.data_segment()
                if segment.data_size > path.stat().st_size:
                    raise ValueError("a tile is larger than the file")
                values = segment.data(resize=False)
            else:
                values = entry.read_segment_data(self._file).data()
            return np.moveaxis(np.asarray(values).reshape(height, width, samples), 2, 0)

        return _Tile(
            scene=max(scene, 0), place=place, height=height, width=width, samples=samples, dtype=dtype, decode=decode
        )

    def read(self, scene: int, page: int) -> Array:
        """Return a page of a scene; pixels that no tile covers are 0."""
        facts, layout = self.scenes[scene], self._layouts[scene]
        wanted = {axis: layout.first.get(axis, 0) + index for axis, index in facts.locate(page).items()}
        plane_cyx = np.zeros((facts.channels, facts.height, facts.width), facts.dtype)
        for tile in layout.tiles:
            if any(tile.place.get(axis, 0) != index for axis, index in wanted.items()):
                continue
            top, left = (tile.place[axis] - layout.first[axis] for axis in "YX")
            first = (tile.place.get("C", 0) - layout.first.get("C", 0)) * tile.samples
            plane_cyx[first : first + tile.samples, top : top + tile.height, left : left + tile.width] = tile.decode()
        return plane_cyx

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._stream.close()


def _lay_out(path: Path, tiles: list[_Tile], calibration: Calibration, names: list[str]) -> tuple[_Layout, Scene]:
    axes = sorted({axis for tile in tiles for axis in tile.place})
    first = {axis: min(tile.place.get(axis, 0) for tile in tiles) for axis in axes}
    ends = {"Y": max(tile.place["Y"] + tile.height for tile in tiles)}
    ends["X"] = max(tile.place["X"] + tile.width for tile in tiles)
    size = {axis: ends.get(axis, max(tile.place.get(axis, 0) for tile in tiles) + 1) - first[axis] for axis in axes}
    others = [axis for axis in axes if axis not in "TCZYXB" and size[axis] > 1]
    if others or len({tile.samples for tile in tiles}) > 1:
        problem = f"septa does not read its axes {''.join(others)}" if others else "its channels are grey and coloured"
        raise InputError(path, problem, "Export it as OME-TIFF, for example with ZEN")
    samples = tiles[0].samples
    page_axes, page_shape = keep_pages({axis: size.get(axis, 1) for axis in _PAGES})
    channels = size.get("C", 1) * samples
    planes = channels // samples * int(np.prod(page_shape, dtype=np.int64))
    covered = sum(tile.height * tile.width for tile in tiles)
    notes = ("pixels that no tile covers are 0",) if covered < planes * size["Y"] * size["X"] else ()
    scene = Scene(
        height=size["Y"],
        width=size["X"],
        channels=channels,
        dtype=np.result_type(*{tile.dtype for tile in tiles}),
        page_axes=page_axes,
        page_shape=page_shape,
        color=samples >= 3 and channels == samples,
        calibration=Calibration(
            pixel_size_um=calibration.pixel_size_um,
            z_step_um=calibration.z_step_um,
            channel_names=tuple(names) if len(names) == channels else (),
        ),
        notes=notes,
    )
    return _Layout(tiles, first), scene


def _read_metadata(file: Any) -> tuple[Calibration, list[str]]:
    """Return the scale and the names of the channels."""
    root = parse_xml(str(file.metadata() or ""))
    size = {}
    for distance in root.iterfind(".//Scaling/Items/Distance"):
        value = read_positive(distance.findtext("Value"))
        if value is not None:
            size[distance.get("Id", "")] = value * _METRE_UM
    y, x = size.get("Y"), size.get("X")
    calibration = Calibration(
        pixel_size_um=keep_plausible_size(y, x) if y and x else None,
        z_step_um=size.get("Z"),
    )
    channels = root.iterfind(".//Information/Image/Dimensions/Channels/Channel")
    return calibration, [channel.get("Name") or "" for channel in channels]
