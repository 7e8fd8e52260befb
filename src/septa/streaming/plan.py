"""What a streamed segmentation does, settled before it begins: the same for every process that takes part, and for
every run that goes on with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from septa.errors import InputError
from septa.images import Source, open_source
from septa.images.store import BlockIndex, StoreKind, StoreSpec
from septa.inference import Region
from septa.model import Model
from septa.streaming.budget import CHUNK

KIND = "septa stream 1"
_DESCRIBE = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


@dataclass(frozen=True)
class Input:
    """Which part of which image.

    ``region`` is (top, left, bottom, right) in pixels of the level; the image is cut there, as if it ended.
    """

    path: str
    level: int = 0
    channels: tuple[int, ...] | None = None
    image: int = 0
    region: tuple[int, int, int, int] | None = None

    def stamp(self) -> str:
        """Name, size and time of the file, or of what describes a zarr folder: another image has another one."""
        path, found = Path(self.path), []
        for file in (path, *(path / name for name in _DESCRIBE)):
            with suppress(OSError):
                if file.is_file():
                    facts = file.stat()
                    found.append(f"{file.name} {facts.st_size} {int(facts.st_mtime)}")
        return ", ".join([path.name, *found])

    def open(self) -> Source:
        """The image, cut to the region.

        Raises
        ------
        InputError
            It cannot be read, or has no such part.
        """
        source = open_source(self.path, level=self.level, channels=self.channels, image=self.image)
        try:
            return source if self.region is None else _cut(source, self.region)
        except InputError:
            source.close()
            raise


@dataclass(frozen=True)
class Asked:
    """What the user wants, and of what: equal for runs that may go on with each other.

    Attributes
    ----------
    model
        SHA-256 (hex) of the model file.
    engine
        What executes the net: another one may round differently.
    file
        `Input.stamp`.
    level, channels, image, region
        As in `Input`.
    shape, dtype, axes
        T, C, Z, Y, X of the part that is segmented, its type, and the axes that the image has, of ``TCZYX``.
    name
        Of the label image.
    probabilities, skip_empty
        Whether they are written too; whether blocks without anything in them are passed over.
    """

    model: str
    engine: str
    file: str
    level: int
    channels: tuple[int, ...] | None
    image: int
    region: tuple[int, int, int, int] | None
    shape: tuple[int, int, int, int, int]
    dtype: str
    axes: str
    name: str
    probabilities: bool
    skip_empty: bool

    @classmethod
    def of(
        cls, source: Source, given: Input, model: str, engine: str, name: str, probabilities: bool, skip_empty: bool
    ) -> Asked:
        """What is wanted of an open image."""
        return cls(
            model, engine, given.stamp(), given.level, given.channels, given.image, given.region, source.shape,
            source.dtype.str, source.axes, name, probabilities, skip_empty,
        )  # fmt: skip

    def differences(self, other: Asked) -> list[str]:
        """Names of what is not equal."""
        return [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all of it."""
        return _digest(asdict(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Asked:
        """What `dataclasses.asdict` and JSON made of one."""
        lists = {
            name: None if values[name] is None else tuple(values[name]) for name in ("channels", "region", "shape")
        }
        return cls(**{**values, **lists})


@dataclass(frozen=True)
class StreamPlan:
    """All that decides the result, and how it is cut into blocks.

    Attributes
    ----------
    asked, input
        What is wanted, and where the image lies.
    block
        Side of a block, pixels.
    margin
        Pixels around a block that are segmented with it; more only where that does not suffice.
    constants
        Normalisation of each plane, by "t,z"; of all planes by "".
    skipped
        Blocks (t, z, y, x) that hold nothing but background.
    pixel_size_um, origin_um
        (y, x) micrometres.
    """

    asked: Asked
    input: Input
    block: int
    margin: int
    constants: Mapping[str, Any]
    skipped: tuple[BlockIndex, ...]
    pixel_size_um: tuple[float, float] | None
    origin_um: tuple[float, float]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.asked.shape[3], self.asked.shape[4]

    @property
    def grid(self) -> BlockIndex:
        """Number of blocks along T, Z, Y and X."""
        height, width = self.size
        return self.asked.shape[0], self.asked.shape[2], -(-height // self.block), -(-width // self.block)

    def blocks(self) -> Iterator[BlockIndex]:
        """Indices of all blocks, X running fastest."""
        yield from product(*map(range, self.grid))

    def megapixels(self, indices: Iterable[BlockIndex]) -> float:
        """Size of some blocks."""
        cores = (self.core(index) for index in indices)
        return sum((bottom - top) * (right - left) for (top, left), (bottom, right) in cores) / 1e6

    def core(self, index: BlockIndex) -> Region:
        """Where a block lies."""
        begin = index[2] * self.block, index[3] * self.block
        return begin, (min(begin[0] + self.block, self.size[0]), min(begin[1] + self.block, self.size[1]))

    def number(self, index: BlockIndex) -> int:
        """Of a block, from 0."""
        return int(np.ravel_multi_index(index, self.grid))

    def specs(self, model: Model, dtype: np.dtype[Any]) -> list[StoreSpec]:
        """The images of the store: labels of this type, an image for each class that overlaps; probabilities."""
        sizes = dict(zip("TCZYX", self.asked.shape)) | {"C": model.task.classes}
        planes = "".join(axis for axis in self.asked.axes if axis in "TZ")

        def spec(kind: StoreKind, name: str, more: str, of: np.dtype[Any]) -> StoreSpec:
            axes = "".join(axis for axis in "TCZYX" if axis in planes + more + "YX")
            shape = tuple(sizes[axis] for axis in axes)
            about = {"asked": self.asked.digest, "model": self.asked.model}
            return StoreSpec(
                kind,
                name,
                axes,
                shape,
                of,
                self.block,
                min(CHUNK, self.block),
                self.pixel_size_um,
                self.origin_um,
                about,
            )

        name, overlap = self.asked.name, model.task.multilabel
        names = [f"{name}_{number}" for number in range(model.task.classes)] if overlap else [name]
        labels = [spec("labels", one, "", dtype) for one in names]
        return [*labels, spec("probabilities", name, "C", np.dtype(np.float16))] if self.asked.probabilities else labels

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all of it but where the image lies."""
        return _digest({key: value for key, value in self.to_json().items() if key != "input"})

    def to_json(self) -> dict[str, Any]:
        """The same as `from_json` takes it."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return plain

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StreamPlan:
        """What `to_json` gave; ValueError where it does not fit."""
        try:
            given, size = values["input"], values["pixel_size_um"]
            lists = {name: None if given[name] is None else tuple(given[name]) for name in ("channels", "region")}
            more = {
                "asked": Asked.from_json(values["asked"]),
                "input": Input(**{**given, **lists}),
                "skipped": tuple(tuple(int(part) for part in index) for index in values["skipped"]),
                "pixel_size_um": None if size is None else (float(size[0]), float(size[1])),
                "origin_um": (float(values["origin_um"][0]), float(values["origin_um"][1])),
            }
            return cls(**{**values, **more})
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{type(error).__name__} {error}") from None


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()


def margin_for(model: Model) -> int:
    """Pixels around a block within which its objects are nearly always certain; 0 where pixels stand alone."""
    return model.task.block_margin


class _Part:
    """A reader of a part of another one."""

    def __init__(self, source: Source, top: int, left: int) -> None:
        self._source, self._top, self._left = source, top, left

    def read(self, t: int, z: int, channels: tuple[int, ...], y: tuple[int, int], x: tuple[int, int]) -> Any:
        rows, columns = (y[0] + self._top, y[1] + self._top), (x[0] + self._left, x[1] + self._left)
        return self._source.reader.read(t, z, channels, rows, columns)

    def close(self) -> None:
        self._source.close()


def _cut(source: Source, region: tuple[int, int, int, int]) -> Source:
    top, left, bottom, right = region
    height, width = source.shape[3:]
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        where = f"--region {top},{left},{bottom},{right}"
        raise InputError(where, "does not lie in the image", f"it has {height} rows and {width} columns")
    origin = source.origin_um
    if source.pixel_size_um is not None:
        origin = origin[0] + top * source.pixel_size_um[0], origin[1] + left * source.pixel_size_um[1]
    return replace(
        source,
        shape=(*source.shape[:3], bottom - top, right - left),
        levels=((bottom - top, right - left),),
        level=0,
        origin_um=origin,
        reader=_Part(source, top, left),
    )
