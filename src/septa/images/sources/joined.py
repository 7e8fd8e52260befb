"""Open an image whose channels lie in separate files or zarr folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from septa.errors import InputError
from septa.images._info import Array
from septa.images.sources.source import ImageLevel, PixelRange, WindowReader


def join_levels(path: Path, files: Sequence[Path], open_level: Callable[[Path], ImageLevel]) -> ImageLevel:
    """Open each file and return the image that has the channels of all of them.

    Parameters
    ----------
    path
        Path that stands for all files; see `septa.images.paths.list_channel_files`.
    files
        Files, or zarr folders.
    open_level
        Function that opens a level of one of them.

    Raises
    ------
    InputError
        As ``open_level``; or if the images differ in size.
    """
    levels: list[ImageLevel] = []
    try:
        for file in files:
            levels.append(open_level(file))
            _require_equal_size(levels[0], levels[-1])
    except BaseException:
        for level in levels:
            level.reader.close()
        raise
    first = levels[0]
    channels = [level.shape[1] for level in levels]
    names = [name for level in levels for name in (*level.channel_names, *[""] * level.shape[1])[: level.shape[1]]]
    return replace(
        first,
        path=path,
        data_path=path,
        axes=first.axes if "C" in first.axes else first.axes.replace("YX", "CYX"),
        shape=(first.shape[0], sum(channels), *first.shape[2:]),
        stored=np.result_type(*(level.stored for level in levels)),
        image=0,
        images=1,
        decoding_bytes=max(level.decoding_bytes for level in levels),
        channel_names=names if any(names) else (),
        notes=tuple(dict.fromkeys(note for level in levels for note in level.notes)),
        reader=_JoinedReader(tuple(level.reader for level in levels), tuple(channels)),
    )


def _require_equal_size(first: ImageLevel, other: ImageLevel) -> None:
    sizes = [tuple(size for axis, size in zip("TCZYX", level.shape) if axis != "C") for level in (first, other)]
    if sizes[0] != sizes[1] or first.levels != other.levels:
        shown = [" x ".join(map(str, size)) for size in sizes]
        problem = f"its T, Z, Y and X are {shown[1]}, but those of {Path(first.path).name} are {shown[0]}"
        raise InputError(other.path, problem, "Save all channels of an image at one size")


@dataclass(frozen=True)
class _JoinedReader:
    """A reader of several files; each has some of the channels."""

    readers: tuple[WindowReader, ...]
    channels: tuple[int, ...]

    def read(self, t: int, z: int, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Array:
        planes: dict[int, Array] = {}
        for reader, wanted in self._divide(channels):
            found = reader.read(t, z, tuple(own for _, own in wanted), y, x)
            planes |= {place: plane_yx for (place, _), plane_yx in zip(wanted, found, strict=True)}
        return np.stack([planes[place] for place in range(len(channels))])

    def list_files(self, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Iterator[Path]:
        for reader, wanted in self._divide(channels):
            yield from reader.list_files(tuple(own for _, own in wanted), y, x)

    def close(self) -> None:
        for reader in self.readers:
            reader.close()

    def _divide(self, channels: tuple[int, ...]) -> Iterator[tuple[WindowReader, list[tuple[int, int]]]]:
        """Yield each reader that has some channels, with their places among these and their numbers in its file."""
        first = 0
        for reader, count in zip(self.readers, self.channels, strict=True):
            wanted = [
                (place, number - first) for place, number in enumerate(channels) if first <= number < first + count
            ]
            if wanted:
                yield reader, wanted
            first += count
