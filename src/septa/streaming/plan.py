"""The plan of a streamed segmentation: everything that decides its result, fixed before the first block.

All processes that take part share it, and so do all runs that resume an interrupted one. It is kept as ``plan.json`` in
the work folder.
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
"""Kind of the tensor files that hold blocks."""
_ZARR_METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


@dataclass(frozen=True)
class StreamInput:
    """The part of an image that is segmented.

    Attributes
    ----------
    path
        The image, as `septa.images.open_source` takes it.
    level
        Level of the pyramid; 0 has the full size.
    channels
        Channels, in the order of the model's; all of them if None.
    image
        Number of the image, in a file that holds several; None for the only one.
    region
        (top, left, bottom, right) in pixels of the level; the whole image if None. The net sees nothing beyond it.
    """

    path: str
    _: KW_ONLY
    level: int = 0
    channels: tuple[int, ...] | None = None
    image: int | None = None
    region: tuple[int, int, int, int] | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StreamInput:
        """Rebuild an input from `dataclasses.asdict`, after JSON has turned its tuples into lists."""
        return cls(**_with_tuples(values, "channels", "region"))

    def stamp(self) -> str:
        """Return a text that changes when the image is replaced.

        It holds the name of the path, and names, sizes and times of the file or of the metadata of a zarr folder.
        """
        path = Path(self.path)
        parts = [path.name]
        for file in (path, *(path / name for name in _ZARR_METADATA)):
            with suppress(OSError):
                if file.is_file():
                    status = file.stat()
                    parts.append(f"{file.name} {status.st_size} {int(status.st_mtime)}")
        return ", ".join(parts)

    def open(self) -> Source:
        """Open the image, cropped to the region.

        Raises
        ------
        InputError
            It cannot be read, or has no such part.
        """
        selection = Selection(level=self.level, channels=self.channels, image=self.image, region=self.region)
        return open_source(self.path, selection)


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """Everything in a request that decides the output, for comparison with an earlier run.

    A request resumes an interrupted run, or finds its output complete, only if both have equal identities.

    Attributes
    ----------
    model
        SHA-256 (hex) of the model file.
    engine
        Name of the engine that runs the net. Another engine may round differently.
    file
        `StreamInput.stamp`.
    level, channels, image, region
        As in `StreamInput`.
    shape
        T, C, Z, Y, X of the segmented part of the image.
    dtype, axes
        Type of the image's values, and the axes that the image has, out of ``TCZYX``.
    name
        Name of the label image.
    probabilities
        True if probabilities are written, too.
    skip_empty
        True if blocks that show nothing but background are skipped.
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
        input: StreamInput,
        *,
        model: str,
        engine: str,
        name: str,
        probabilities: bool,
        skip_empty: bool,
    ) -> RunIdentity:
        """Describe the segmentation of an open image; the parameters are the attributes of the same names."""
        return cls(
            model=model,
            engine=engine,
            file=input.stamp(),
            level=input.level,
            channels=input.channels,
            image=input.image or 0,
            region=input.region,
            shape=source.shape,
            dtype=source.dtype.str,
            axes=source.axes,
            name=name,
            probabilities=probabilities,
            skip_empty=skip_empty,
        )

    def differences(self, other: RunIdentity) -> list[str]:
        """Return the names of the attributes that differ."""
        return [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all attributes."""
        return _digest(asdict(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunIdentity:
        """Rebuild an identity from `dataclasses.asdict`, after JSON has turned its tuples into lists."""
        return cls(**_with_tuples(values, "channels", "region", "shape"))


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """Everything that decides the result, and its division into blocks.

    Attributes
    ----------
    identity
        The part of the request that decides the output.
    input
        The image.
    block
        Side of a block, pixels.
    margin
        Pixels around a block that are segmented with it. It is doubled for a block whose objects reach beyond it.
    normalizations
        Normalisation of each plane, with keys "t,z"; or one for all planes, with the key "".
    skipped
        Indices (t, z, y, x) of blocks that show nothing but background.
    pixel_size_um, origin_um
        (y, x) of a pixel's size and of the first pixel's position, micrometres; the size is None if it is unknown.
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
        """Yield the indices of all blocks; X changes fastest."""
        yield from product(*map(range, self.grid))

    def megapixels(self, indices: Iterable[BlockIndex]) -> float:
        """Return the total size of blocks in megapixels."""
        cores = (self.core(index) for index in indices)
        return sum((bottom - top) * (right - left) for (top, left), (bottom, right) in cores) / 1e6

    def core(self, index: BlockIndex) -> ImageRegion:
        """Return the rows and columns of a block, without its margin."""
        begin = index[2] * self.block, index[3] * self.block
        return begin, (min(begin[0] + self.block, self.size[0]), min(begin[1] + self.block, self.size[1]))

    def normalization(self, index: BlockIndex) -> Normalization:
        """Return the normalisation of a block's plane."""
        return self.normalizations.get("") or self.normalizations[f"{index[0]},{index[1]}"]

    def number(self, index: BlockIndex) -> int:
        """Return the number of a block in the order of `blocks`, from 0."""
        return int(np.ravel_multi_index(index, self.grid))

    def specs(self, model: Model, dtype: np.dtype[Any]) -> list[StoreSpec]:
        """Return the images of the store.

        Parameters
        ----------
        model
            The run's model.
        dtype
            Type of the labels.

        Returns
        -------
        list
            The label image, or one per class if classes overlap; then the probabilities, if they are written.
        """
        sizes = dict(zip("TCZYX", self.identity.shape)) | {"C": model.task.classes}
        planes = "".join(axis for axis in self.identity.axes if axis in "TZ")

        def make_spec(kind: StoreKind, name: str, axis_c: str, values: np.dtype[Any]) -> StoreSpec:
            axes = "".join(axis for axis in "TCZYX" if axis in planes + axis_c + "YX")
            return StoreSpec(
                kind=kind,
                name=name,
                axes=axes,
                shape=tuple(sizes[axis] for axis in axes),
                dtype=values,
                block=self.block,
                chunk=min(CHUNK, self.block),
                pixel_size_um=self.pixel_size_um,
                translation_um=self.origin_um,
                attributes={"asked": self.identity.digest, "model": self.identity.model},
            )

        name = self.identity.name
        names = [f"{name}_{number}" for number in range(model.task.classes)] if model.task.multilabel else [name]
        specs = [make_spec("labels", label_name, "", dtype) for label_name in names]
        if self.identity.probabilities:
            specs.append(make_spec("probabilities", name, "C", np.dtype(np.float16)))
        return specs

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of everything except the image's path, which may differ between machines."""
        return _digest({key: value for key, value in self.to_json().items() if key != "input"})

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values; the inverse of `from_json`. The keys are those of version 0.1."""
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
        """Rebuild a plan from `to_json`.

        Raises
        ------
        ValueError
            The values do not describe a plan.
        """
        try:
            plain = dict(values)
            size = plain.pop("pixel_size_um")
            origin = plain.pop("origin_um")
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
    """Return a copy in which the lists of these names are tuples; None stays."""
    return {**values, **{name: None if values[name] is None else tuple(values[name]) for name in names}}


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()
