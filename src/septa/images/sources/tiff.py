"""Open TIFF files of any size: only the tiles, strips or rows that a window touches are read and decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images._alpha import AlphaWatch
from septa.images._info import Array
from septa.images._tiff import (
    CHANNEL_AXES,
    ORIENTATION_TAG,
    UNNAMED_AXES,
    TiffLayout,
    find_layout,
    open_tiff_file,
    watch_tiff_errors,
)
from septa.images._tiff_calibration import read_calibration
from septa.images._tiff_images import describe_sizes, find_tiff_images
from septa.images._tiff_planes import DirectoryReader, check_compression, is_plain, segment_size
from septa.images.sources.source import RGB_NAMES, ImageLevel, PixelRange
from septa.notices import Notices


@dataclass(frozen=True)
class _Axes:
    """Sizes of T, Z and C, the positions of T and Z among the axes over directories, and what was assumed."""

    sizes: tuple[int, int, int]
    roles: dict[str, int]
    notes: tuple[str, ...] = ()


class _TiffReader:
    """A reader of one level."""

    def __init__(
        self,
        path: Path,
        file: Any,
        layout: TiffLayout,
        directories_tzc: NDArray[np.int64],
        keeps_alpha: bool,
        notices: Notices | None,
    ) -> None:
        self._path = path
        self._layout = layout
        self._directories = directories_tzc
        self._keeps_alpha = keeps_alpha
        self._alpha = None if layout.alpha_sample is None else AlphaWatch(path, layout.channels, keeps_alpha, notices)
        self._reader = DirectoryReader(path, file, layout.alike, layout.series_directories)

    def read(self, t: int, z: int, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Array:
        inner = self._layout.inner_channels + self._keeps_alpha
        with watch_tiff_errors(self._path):
            positions: dict[int, list[int]] = {}
            for position, channel in enumerate(channels):
                number = int(self._directories[t, z, channel // inner])
                positions.setdefault(number, []).append(position)
            if len(positions) == 1:
                return self._read_channels(number, [channel % inner for channel in channels], y, x)
            values = np.empty((len(channels), y[1] - y[0], x[1] - x[0]), self._layout.dtype)
            for number, chosen in positions.items():
                wanted = [channels[position] % inner for position in chosen]
                values[chosen] = self._read_channels(number, wanted, y, x)
        return values

    def list_files(self, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Iterator[Path]:
        yield self._path

    def _read_channels(self, number: int, channels: list[int], y: PixelRange, x: PixelRange) -> Array:
        """Read some channels of one directory; alpha is the last."""
        layout = self._layout
        colors = [channel for channel in channels if channel < layout.inner_channels]
        mixes = layout.photometric.kind not in ("stored", "inverted")
        samples = list(layout.kept_samples) if mixes else [layout.kept_samples[channel] for channel in colors]
        alpha = [] if layout.alpha_sample is None else [layout.alpha_sample]
        watched = self._alpha is not None and self._alpha.active
        if not (watched or len(colors) < len(channels)):
            alpha = []
        read_cyx = self._reader.read_window(number, samples + alpha, y, x)
        if watched and self._alpha is not None:
            self._alpha.watch(read_cyx[-1])
        image_cyx = layout.photometric.convert(read_cyx[: len(samples)])
        if mixes:
            image_cyx = image_cyx[colors]
        if len(colors) == len(channels):
            return image_cyx
        planes = iter(image_cyx)
        return np.stack([next(planes) if channel in colors else read_cyx[-1] for channel in channels])

    def close(self) -> None:
        self._reader.close()


class TiffImages:
    """An open TIFF file; see `septa.images.sources.source.ImageFile`.

    Raises
    ------
    InputError
        If the file is missing, damaged, or holds no image.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with watch_tiff_errors(path):
            self._file = open_tiff_file(path)
            try:
                self._images = find_tiff_images(path, self._file)
            except BaseException:
                self.close()
                raise
        self.images = len(self._images)

    def describe_images(self) -> str:
        """Return the number and the sizes of the images, printable."""
        return describe_sizes(self._images)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def count_levels(self, image: int) -> int:
        """Return the number of levels of an image that exists."""
        return len(self._images[image].levels)

    def open_level(
        self, image: int, level: int, expected: int | None = None, notices: Notices | None = None
    ) -> ImageLevel | None:
        """Open one level of one image, both of which exist.

        Parameters
        ----------
        image, level
            Numbers of the image and of its level.
        expected
            Number of channels that are expected; see `septa.images.read.read_image`.
        notices
            Receives what is done with alpha, palettes, inks and inverted values.

        Returns
        -------
        ImageLevel or None
            None for a kind of TIFF of which only whole planes can be decoded. Otherwise the file is closed through
            the reader.

        Raises
        ------
        InputError
            If the file is damaged, or has other axes than septa reads.
        """
        with watch_tiff_errors(self._path):
            layouts = [find_layout(self._path, series) for series in self._images[image].levels]
            if any(_needs_whole_planes(layout) for layout in (layouts[0], layouts[level])):
                return None
            return self._describe(layouts, image, level, expected, notices)

    def _describe(
        self, layouts: Sequence[TiffLayout], image: int, level: int, expected: int | None, notices: Notices | None
    ) -> ImageLevel:
        path, file, found = self._path, self._file, self._images[image]
        axes_of_levels = [_find_axes(path, layout) for layout in layouts]
        axes, full, layout = axes_of_levels[level], layouts[0], layouts[level]
        if any(one.sizes != axes_of_levels[0].sizes for one in axes_of_levels):
            raise InputError(path, "the levels of its pyramid have other axes than the image", "Export it again")
        keyframe = layout.series.keyframe
        check_compression(path, keyframe)
        keeps_alpha = layout.alpha_sample is not None and expected == layout.channels + 1
        if notices is not None and layout.photometric.note:
            notices.add(path, layout.photometric.note)
        frames, slices, channels = axes.sizes
        channels += keeps_alpha
        chunk = (1, layout.width) if is_plain(keyframe) else segment_size(keyframe)
        samples = keyframe.shaped[4]
        calibration = read_calibration(file, found.first.keyframe, found.ome, channels)
        scale = full.height / layout.height, full.width / layout.width
        names = calibration.channel_names or (RGB_NAMES if channels == 3 and layout.color else ())
        return ImageLevel(
            path=path,
            data_path=path,
            axes="".join(axis for axis, size in zip("TCZ", (frames, channels, slices)) if size > 1) + "YX",
            shape=(frames, channels, slices, layout.height, layout.width),
            stored=np.dtype("V") if keyframe.dtype is None else layout.dtype,
            image=image,
            images=self.images,
            level=level,
            levels=tuple((one.height, one.width) for one in layouts),
            chunk=chunk,
            chunk_samples=math.prod(chunk) * samples,
            decoding_bytes=_count_decoding_bytes(keyframe, math.prod(chunk) * samples),
            calibration=calibration.rescale((1.0, *scale)),
            notes=(*found.notes, *axes.notes),
            channel_names=names,
            reader=_TiffReader(path, file, layout, _number_directories(layout, axes), keeps_alpha, notices),
        )


def _count_decoding_bytes(keyframe: Any, samples: int) -> int:
    """Return the bytes of a decoded tile or strip, and of the largest compressed one of the first plane."""
    itemsize = 1 if keyframe.dtype is None else keyframe.dtype.itemsize
    packed = 0 if is_plain(keyframe) else max(keyframe.databytecounts, default=0)
    return samples * int(itemsize) + int(packed)


def _needs_whole_planes(layout: TiffLayout) -> bool:
    """Return True for turned images, and volumes within one directory, whose planes are decoded whole."""
    keyframe = layout.series.keyframe
    turned = keyframe.tags.valueof(ORIENTATION_TAG, 1) in range(2, 9)
    return turned or not layout.flat or int(keyframe.tiledepth) > 1


def _list_directories(layout: TiffLayout) -> tuple[str, tuple[int, ...]]:
    """Return the axes over directories and their sizes; several series are the first axis, without a name."""
    return "I" + layout.axes[: layout.split], (len(layout.alike), *layout.shape[: layout.split])


def _find_axes(path: Path, layout: TiffLayout) -> _Axes:
    """Find which of the axes over directories is T and which is Z; a stack of unnamed pages is Z."""
    axes, shape = _list_directories(layout)
    roles = {axis: axes.index(axis) for axis in "TZ" if axis in axes}
    notes = []
    others = [i for i, axis in enumerate(axes) if axis not in "TZ" + CHANNEL_AXES and shape[i] > 1]
    for i in others:
        free = [axis for axis in "ZT" if axis not in roles or shape[roles[axis]] == 1]
        if len(others) > 1 or not free:
            problem = f"the axes {layout.axes} are more than T, C, Z, Y and X"
            raise InputError(path, problem, "Save fewer axes in one file")
        roles[free[0]] = i
        if axes[i] not in UNNAMED_AXES:
            notes.append(f"its axis {axes[i]} is read as {free[0]}")
    frames, slices = (shape[roles[axis]] if axis in roles else 1 for axis in "TZ")
    return _Axes((frames, slices, layout.channels), roles, tuple(notes))


def _number_directories(layout: TiffLayout, axes: _Axes) -> NDArray[np.int64]:
    """Return the numbers of the directories, axes (T, Z, channel)."""
    frames, slices, _ = axes.sizes
    _, shape = _list_directories(layout)
    numbers = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    outer = [axes.roles[axis] for axis in "TZ" if axis in axes.roles]
    rest = [axis for axis in range(len(shape)) if axis not in outer]
    return numbers.transpose(outer + rest).reshape(frames, slices, -1)
