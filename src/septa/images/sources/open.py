"""Images of any size as sources of windows: OME-Zarr, plain zarr arrays, and every file that `read_image` reads.

Of OME-Zarr and TIFF only the chunks that a window touches are decoded, so an image may be larger than the memory.
Other files are decoded whole, one plane at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from septa.errors import InputError
from septa.images._info import MAX_PIXELS, Array, check_image, choose_dtype
from septa.images.paths import list_channel_files
from septa.images.read import count_images_in_file
from septa.images.sources.addresses import Location, make_location
from septa.images.sources.joined import join_levels
from septa.images.sources.ome_zarr import ZarrFolder
from septa.images.sources.places import find_place
from septa.images.sources.source import ImageFile, ImageLevel, PixelRange, Selection, Source, WindowReader
from septa.images.sources.tiff import TiffImages
from septa.images.sources.whole import WholePlanes
from septa.notices import Notices

__all__ = ["Selection", "Source", "count_images", "open_source"]

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_CHANNELS = 10_000


def open_source(
    path: str | os.PathLike[str],
    selection: Selection | None = None,
    *,
    channels: int | None = None,
    max_pixels: int | None = None,
    notices: Notices | None = None,
) -> Source:
    """Open an image of any size; nothing is decoded yet.

    Parameters
    ----------
    path
        A folder that is an OME-Zarr image (version 0.4 or 0.5, or the output of bioformats2raw) or a zarr array; a
        zip file of one; the address of one (``https://``, ``http://`` or ``s3://``), which everyone may read; or a
        file: TIFF, OME-TIFF, BigTIFF, SVS, or another one that `septa.images.read.read_image` reads. Arrays without
        named axes are read by their number of axes as YX, CYX, CZYX or TCZYX; unnamed pages of a TIFF file are Z.
    selection
        Level, channels, image and region to open; by default, all channels of the whole image.
    channels
        Number of channels that are expected. A channel that the file calls alpha is the last one if the image has as
        many channels as this together with it, or if the selection names it; otherwise it is dropped.
    max_pixels
        Most samples that may be decoded at once: of a chunk, or of the plane of a file that is decoded whole
        (`septa.images.read.MAX_PIXELS` by default). The size of the image itself is not limited.
    notices
        Receives what is done with alpha, palettes, inks, inverted values and the orientation, also by later reads.

    Returns
    -------
    Source
        Close it, or use it in a ``with`` statement.

    Raises
    ------
    InputError
        If the path is missing, damaged, not an image, of an unsupported kind or not written completely; or if it has
        no such level, channel, image or region.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from septa.images.write import write_probabilities
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_probabilities(Path(folder) / "a.tif", np.eye(6, dtype=np.float32)[None])
    ...     with open_source(Path(folder) / "a.tif", Selection(region=(0, 0, 6, 5))) as source:
    ...         print(source.shape, source.read((2, 4), (1, 4)).tolist())
    (1, 1, 1, 6, 5) [[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]]
    """
    selection = Selection() if selection is None else selection
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    expected = channels if selection.channels is None else max(selection.channels, default=0) + 1
    level = _open_level(make_location(path), selection, limit, expected, notices)
    try:
        _check_level(level, limit)
        source = _crop(_choose_channels(_build_source(level), selection.channels), selection.region)
    except BaseException:
        level.reader.close()
        raise
    if notices is not None:
        for note in source.notes:
            notices.add(source.path, note)
    return source


def count_images(path: str | os.PathLike[str]) -> int:
    """Return the number of images in a file, zarr folder or zip file, or at an address; errors as of `open_source`.

    A file has several if they are images of an OME-TIFF, or if the pages of a TIFF file differ; a folder, if
    bioformats2raw wrote them.
    """
    place = find_place(path)
    if place is None:
        return count_images_in_file(Path(path))
    try:
        return ZarrFolder(place).images
    finally:
        place.close()


def _open_level(
    path: Location, selection: Selection, max_pixels: int, expected: int | None, notices: Notices | None
) -> ImageLevel:
    """Open the chosen level of the chosen image with the reader of the file's format."""
    if (place := find_place(path)) is not None:
        try:
            folder = ZarrFolder(place)
            return folder.open_level(_choose_image(path, folder, selection), selection.level)
        except BaseException:
            place.close()
            raise
    path = Path(path)
    if parts := list_channel_files(path):
        return join_levels(path, parts, lambda part: _open_level(part, selection, max_pixels, None, notices))
    image = 0
    if _is_tiff(path):
        tiff = TiffImages(path)
        try:
            image = _choose_image(path, tiff, selection)
            level = tiff.open_level(image, selection.level, expected, notices)
        except BaseException:
            tiff.close()
            raise
        if level is not None:
            return level
        tiff.close()
    whole = WholePlanes(path, max_pixels, image, expected, notices)
    if (chosen := _choose_image(path, whole, selection)) != image:
        whole = WholePlanes(path, max_pixels, chosen, expected, notices)
    return whole.open_level()


def _is_tiff(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(4) in _TIFF_MAGIC
    except (OSError, ValueError):
        # `WholePlanes` reports the reason.
        return False


def _choose_image(path: Location, file: ImageFile, selection: Selection) -> int:
    """Return the number of the image; refuse an image or a level that the file does not have."""
    if selection.image is None and file.images > 1:
        remedy = f"Choose one of them with --image, from 0 to {file.images - 1}"
        raise InputError(path, f"the file holds {file.describe_images()}", remedy)
    image = selection.image or 0
    check_image(path, image, file.images)
    levels = file.count_levels(image)
    if not 0 <= selection.level < levels:
        problem = f"there is no level {selection.level}: the image has levels 0 to {levels - 1}"
        raise InputError(path, problem, "Choose one of these levels")
    return image


def _check_level(level: ImageLevel, max_pixels: int) -> None:
    """Refuse images that are empty, and those whose header states absurd sizes or types that are not numbers."""
    if 0 in level.shape:
        sizes = " x ".join(map(str, level.shape))
        raise InputError(level.path, f"the image is empty (its T, C, Z, Y and X are {sizes})", "Export it again")
    channels = level.shape[1]
    if channels > _MOST_CHANNELS:
        problem = f"the image has {channels} channels, more than the limit of {_MOST_CHANNELS}"
        raise InputError(level.path, problem, "Check the names of its axes")
    if level.chunk_samples > max_pixels:
        problem = f"its chunks of {level.chunk_samples} samples are more than the limit of {max_pixels} pixels"
        remedy = "Save the image again in tiles or chunks of some hundred pixels a side"
        raise InputError(level.data_path, problem, remedy)
    if level.stored.kind not in "biuf" or level.stored.itemsize > 8:
        problem = f"septa does not read samples of type {level.stored}"
        raise InputError(level.data_path, problem, "Convert the image to integers or floats")


def _build_source(level: ImageLevel) -> Source:
    channels = level.shape[1]
    return Source(
        path=level.path,
        axes=level.axes,
        shape=level.shape,
        dtype=choose_dtype(level.stored),
        image=level.image,
        images=level.images,
        level=level.level,
        levels=level.levels,
        chunk=(min(level.chunk[0], level.shape[3]), min(level.chunk[1], level.shape[4])),
        decoding_bytes=level.decoding_bytes,
        calibration=replace(level.calibration, channel_names=_clean_names(level.channel_names, channels)),
        channels=tuple(range(channels)),
        channel_names=_name_channels(level.channel_names, channels),
        notes=level.notes,
        version=level.version,
        reader=level.reader,
    )


def _name_channels(names: Sequence[object], count: int) -> tuple[str, ...]:
    """Return the names of all channels; the number of a channel where the file gives no usable name."""
    return tuple(name or str(i) for i, name in enumerate(_clean_names(names, count) or [""] * count))


def _clean_names(names: Sequence[object], count: int) -> tuple[str, ...]:
    """Return a name for each channel, empty where the file gives no usable one; () if it names none."""
    found = [name.strip() if isinstance(name, str) else "" for name in names][:count]
    return (*found, *[""] * (count - len(found))) if any(found) else ()


def _choose_channels(source: Source, channels: Sequence[int] | None) -> Source:
    """Return the same source with some of its channels, in the given order."""
    if channels is None:
        return source
    count = source.shape[1]
    missing = [channel for channel in channels if not 0 <= channel < count]
    if missing or len(set(channels)) != len(channels) or not channels:
        fault = f"there is no channel {missing[0]}" if missing else "channels must be chosen, each once"
        problem = f"{fault}: the image has channels 0 to {count - 1}"
        raise InputError(source.path, problem, "Choose among these channels")
    names = source.calibration.channel_names
    return replace(
        source,
        shape=(source.shape[0], len(channels), *source.shape[2:]),
        channels=tuple(int(source.channels[channel]) for channel in channels),
        channel_names=tuple(source.channel_names[channel] for channel in channels),
        calibration=replace(source.calibration, channel_names=names and tuple(names[channel] for channel in channels)),
    )


def _crop(source: Source, region: tuple[int, int, int, int] | None) -> Source:
    """Return a source that ends where the region does."""
    if region is None:
        return source
    top, left, bottom, right = region
    height, width = source.shape[3:]
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        problem = f"the region {top},{left},{bottom},{right} does not lie inside the image of {height} x {width} pixels"
        raise InputError(source.path, problem, "Choose a region inside it, as TOP,LEFT,BOTTOM,RIGHT")
    size = bottom - top, right - left
    return replace(
        source,
        shape=(*source.shape[:3], *size),
        level=0,
        levels=(size,),
        calibration=source.calibration.crop(top, left),
        reader=_RegionReader(source.reader, top, left),
    )


class _RegionReader:
    """A reader of a region, through the reader of the whole image."""

    def __init__(self, reader: WindowReader, top: int, left: int) -> None:
        self._reader = reader
        self._top = top
        self._left = left

    def read(self, t: int, z: int, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Array:
        rows = y[0] + self._top, y[1] + self._top
        columns = x[0] + self._left, x[1] + self._left
        return self._reader.read(t, z, channels, rows, columns)

    def list_files(self, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Iterator[Path]:
        rows = y[0] + self._top, y[1] + self._top
        columns = x[0] + self._left, x[1] + self._left
        return self._reader.list_files(channels, rows, columns)

    def close(self) -> None:
        self._reader.close()
