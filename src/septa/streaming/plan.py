"""What a streamed segmentation does, settled before it begins: the same for every process that takes part, and for
every run that goes on with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, asdict, dataclass, fields
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from septa.images import Normalization, Selection, Source, open_source
from septa.images.store import BlockIndex, StoreKind, StoreSpec
from septa.inference import ImageRegion
from septa.model import Model
from septa.streaming.budget import CHUNK

KIND = "septa stream 1"
_DESCRIBE = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


@dataclass(frozen=True)
class StreamInput:
    """Which part of which image.

    ``region`` is (top, left, bottom, right) in pixels of the level; the image is cut there, as if it ended.
    """

    path: str
    _: KW_ONLY
    level: int = 0
    channels: tuple[int, ...] | None = None
    image: int = 0
    region: tuple[int, int, int, int] | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StreamInput:
        """What `dataclasses.asdict` and JSON made of one."""
        return cls(**_with_tuples(values, "channels", "region"))

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
        selection = Selection(level=self.level, channels=self.channels, image=self.image, region=self.region)
        return open_source(self.path, selection)


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
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
        As in `StreamInput`.
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
    def from_source(
        cls,
        source: Source,
        given: StreamInput,
        *,
        model: str,
        engine: str,
        name: str,
        probabilities: bool,
        skip_empty: bool,
    ) -> RunIdentity:
        """What is wanted of an open image."""
        return cls(
            model=model,
            engine=engine,
            file=given.stamp(),
            level=given.level,
            channels=given.channels,
            image=given.image,
            region=given.region,
            shape=source.shape,
            dtype=source.dtype.str,
            axes=source.axes,
            name=name,
            probabilities=probabilities,
            skip_empty=skip_empty,
        )

    def differences(self, other: RunIdentity) -> list[str]:
        """Names of what is not equal."""
        return [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all of it."""
        return _digest(asdict(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunIdentity:
        """What `dataclasses.asdict` and JSON made of one."""
        return cls(**_with_tuples(values, "channels", "region", "shape"))


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """All that decides the result, and how it is cut into blocks.

    Attributes
    ----------
    identity, input
        What is wanted, and where the image lies.
    block
        Side of a block, pixels.
    margin
        Pixels around a block that are segmented with it; more only where that does not suffice.
    normalizations
        Constants of each plane, by "t,z"; or those of all planes, by "".
    skipped
        Blocks (t, z, y, x) that hold nothing but background.
    pixel_size_um, origin_um
        (y, x) micrometres.
    """

    identity: RunIdentity
    input: StreamInput
    block: int
    margin: int
    normalizations: Mapping[str, Normalization]
    skipped: tuple[BlockIndex, ...]
    pixel_size_um: tuple[float, float] | None
    origin_um: tuple[float, float]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.identity.shape[3], self.identity.shape[4]

    @property
    def grid(self) -> BlockIndex:
        """Number of blocks along T, Z, Y and X."""
        height, width = self.size
        return self.identity.shape[0], self.identity.shape[2], -(-height // self.block), -(-width // self.block)

    def blocks(self) -> Iterator[BlockIndex]:
        """Indices of all blocks, X running fastest."""
        yield from product(*map(range, self.grid))

    def megapixels(self, indices: Iterable[BlockIndex]) -> float:
        """Size of some blocks."""
        cores = (self.core(index) for index in indices)
        return sum((bottom - top) * (right - left) for (top, left), (bottom, right) in cores) / 1e6

    def core(self, index: BlockIndex) -> ImageRegion:
        """Where a block lies."""
        begin = index[2] * self.block, index[3] * self.block
        return begin, (min(begin[0] + self.block, self.size[0]), min(begin[1] + self.block, self.size[1]))

    def normalization(self, index: BlockIndex) -> Normalization:
        """Return the normalisation of the plane that a block lies in."""
        return self.normalizations.get("") or self.normalizations[f"{index[0]},{index[1]}"]

    def number(self, index: BlockIndex) -> int:
        """Of a block, from 0."""
        return int(np.ravel_multi_index(index, self.grid))

    def specs(self, model: Model, dtype: np.dtype[Any]) -> list[StoreSpec]:
        """The images of the store: labels of this type, an image for each class that overlaps; probabilities."""
        sizes = dict(zip("TCZYX", self.identity.shape)) | {"C": model.task.classes}
        planes = "".join(axis for axis in self.identity.axes if axis in "TZ")

        def spec(kind: StoreKind, name: str, more: str, of: np.dtype[Any]) -> StoreSpec:
            axes = "".join(axis for axis in "TCZYX" if axis in planes + more + "YX")
            shape = tuple(sizes[axis] for axis in axes)
            about = {"asked": self.identity.digest, "model": self.identity.model}
            return StoreSpec(
                kind=kind,
                name=name,
                axes=axes,
                shape=shape,
                dtype=of,
                block=self.block,
                chunk=min(CHUNK, self.block),
                pixel_size_um=self.pixel_size_um,
                translation_um=self.origin_um,
                attributes=about,
            )

        name, overlap = self.identity.name, model.task.multilabel
        names = [f"{name}_{number}" for number in range(model.task.classes)] if overlap else [name]
        labels = [spec("labels", one, "", dtype) for one in names]
        return (
            [*labels, spec("probabilities", name, "C", np.dtype(np.float16))] if self.identity.probabilities else labels
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all of it but where the image lies."""
        return _digest({key: value for key, value in self.to_json().items() if key != "input"})

    def to_json(self) -> dict[str, Any]:
        """The same as `from_json` takes it."""
        plain = {
            "asked": asdict(self.identity),
            "input": asdict(self.input),
            "block": self.block,
            "margin": self.margin,
            "constants": {plane: constants.to_json() for plane, constants in self.normalizations.items()},
            "skipped": self.skipped,
            "pixel_size_um": self.pixel_size_um,
            "origin_um": self.origin_um,
        }
        values: dict[str, Any] = json.loads(json.dumps(plain, allow_nan=False))
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StreamPlan:
        """What `to_json` gave; ValueError where it does not fit."""
        try:
            plain = dict(values)
            size, origin = plain.pop("pixel_size_um"), plain.pop("origin_um")
            return cls(
                identity=RunIdentity.from_json(plain.pop("asked")),
                input=StreamInput.from_json(plain.pop("input")),
                normalizations={
                    plane: Normalization.from_json(constants) for plane, constants in plain.pop("constants").items()
                },
                skipped=tuple((int(t), int(z), int(y), int(x)) for t, z, y, x in plain.pop("skipped")),
                pixel_size_um=None if size is None else (float(size[0]), float(size[1])),
                origin_um=(float(origin[0]), float(origin[1])),
                **plain,
            )
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"{type(error).__name__} {error}") from None


def _with_tuples(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Turn the lists under some names, which JSON made of tuples, into tuples again; None stays."""
    return {**values, **{name: None if values[name] is None else tuple(values[name]) for name in names}}


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()


def margin_for(model: Model) -> int:
    """Pixels around a block within which its objects are nearly always certain; 0 where pixels stand alone."""
    return model.task.block_margin
