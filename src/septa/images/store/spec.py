"""Describe an image of a store: its size, its pyramid and its blocks."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, get_args

import numpy as np

from septa.images.calibration import Calibration

StoreKind = Literal["labels", "probabilities"]
BlockIndex = tuple[int, int, int, int]
"""(t, z, by, bx): numbers of the block along these axes; 0 along an axis that the image lacks."""

_DTYPES = {"labels": ("uint8", "uint16", "uint32", "uint64"), "probabilities": ("float16", "float32")}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_FIELDS = {"kind", "name", "axes", "shape", "dtype", "block", "chunk", "calibration", "attributes"}


@dataclass(frozen=True, kw_only=True)
class StoreSpec:
    """One image of a store: labels, or probabilities with a channel axis.

    A block is the part that is written at once. It becomes one shard, which is a file. It has ``block`` x ``block``
    pixels of one plane, with all channels, and fewer at the lower and right edge of the image.

    Attributes
    ----------
    kind
        "labels" or "probabilities".
    name
        Letters, digits, ``_``, ``-`` and ``.``; labels are stored in ``labels/NAME``.
    axes
        Some of T, C, Z in this order, then "YX". Probabilities have C, labels do not.
    shape
        Size along each of ``axes``.
    dtype
        uint8, uint16, uint32 or uint64 for labels; float16 or float32 for probabilities.
    block
        Side of a block in pixels, the same at every level: even, and a multiple of ``chunk``.
    chunk
        Side in pixels of the parts of a shard that a reader can decode separately.
    calibration
        Sizes, steps and position of level 0, and the names of the channels. A position along an axis is written only
        if the size or step along it is known.
    attributes
        Further values to keep with the image (model, version, settings), as JSON can hold them.

    Raises
    ------
    ValueError
        If an attribute does not follow this description.

    Examples
    --------
    >>> spec = StoreSpec(
    ...     kind="labels",
    ...     name="cells",
    ...     axes="YX",
    ...     shape=(1000, 700),
    ...     dtype=np.dtype("uint32"),
    ...     block=512,
    ...     chunk=256,
    ... )
    >>> spec.levels
    ((1000, 700), (500, 350), (250, 175))
    >>> list(spec.blocks(1))
    [(0, 0, 0, 0)]
    >>> spec.block_shape(0, (0, 0, 1, 1))
    (488, 188)
    """

    kind: StoreKind
    name: str
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    block: int
    chunk: int
    calibration: Calibration = field(default_factory=Calibration)
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check the attributes."""
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        self._check_image()
        if self.chunk < 1 or self.block < 2 or self.block % 2 or self.block % self.chunk:
            rule = "the side of a block must be even and a multiple of that of a chunk"
            raise ValueError(f"{rule}, got {self.block} with chunks of {self.chunk}")
        self._check_calibration()
        # The specs of a store on disk have passed through JSON. To compare equal, these attributes must pass it too.
        object.__setattr__(self, "attributes", json.loads(json.dumps(dict(self.attributes), allow_nan=False)))

    def _check_calibration(self) -> None:
        found = self.calibration
        sizes = [*(found.pixel_size_um or ()), *(step for step in (found.z_step_um, found.time_step_s) if step)]
        numbers = [*sizes, *found.origin_um, found.time_origin_s]
        if not all(map(math.isfinite, numbers)) or min(sizes, default=1) <= 0:
            raise ValueError(f"sizes and steps must be above 0, and all numbers finite, got {found}")
        if found.channel_names and len(found.channel_names) != self.channels:
            raise ValueError(f"{len(found.channel_names)} names do not fit {self.channels} channels")

    def _check_image(self) -> None:
        if self.kind not in get_args(StoreKind):
            raise ValueError(f"kind must be labels or probabilities, got {self.kind!r}")
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a name must consist of letters, digits, '_', '-' and '.', got {self.name!r}")
        ordered = "".join(axis for axis in "TCZYX" if axis in self.axes)
        if self.axes != ordered or not ordered.endswith("YX") or ("C" in ordered) != (self.kind == "probabilities"):
            raise ValueError(f"{self.kind} cannot have the axes {self.axes!r}")
        if len(self.shape) != len(self.axes) or min(self.shape) < 1:
            raise ValueError(f"axes {self.axes} do not fit the shape {self.shape}")
        if self.dtype.name not in _DTYPES[self.kind] or not self.dtype.isnative:
            raise ValueError(f"{self.kind} must be {', '.join(_DTYPES[self.kind])}, got {self.dtype}")

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(Y, X) of every level of the pyramid: halved and rounded up until a level fits into one chunk."""
        sizes = [(self.shape[-2], self.shape[-1])]
        while max(sizes[-1]) > self.chunk:
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        return tuple(sizes)

    @property
    def channels(self) -> int:
        """Number of channels; 1 for labels."""
        return self._get_size("C")

    def level_shape(self, level: int) -> tuple[int, ...]:
        """Return the size along each of ``axes`` at a level."""
        return (*self.shape[:-2], *self.levels[level])

    def grid(self, level: int) -> BlockIndex:
        """Return the number of blocks along T, Z, Y and X at a level."""
        height, width = self.levels[level]
        return (self._get_size("T"), self._get_size("Z"), -(-height // self.block), -(-width // self.block))

    def blocks(self, level: int) -> Iterator[BlockIndex]:
        """Yield the indices of all blocks of a level; X varies fastest."""
        t, z, y, x = self.grid(level)
        yield from product(range(t), range(z), range(y), range(x))

    def block_shape(self, level: int, index: BlockIndex) -> tuple[int, ...]:
        """Return the shape of the array of a block: ``YX`` for labels, ``CYX`` for probabilities.

        Raises
        ------
        IndexError
            If there is no such block.
        """
        if len(index) != 4 or not all(0 <= i < count for i, count in zip(index, self.grid(level))):
            raise IndexError(f"there is no block {index}: level {level} has {self.grid(level)} blocks (t, z, y, x)")
        sides = (min(self.block, size - i * self.block) for i, size in zip(index[2:], self.levels[level]))
        return (*((self.channels,) if "C" in self.axes else ()), *sides)

    def to_json(self) -> dict[str, Any]:
        """Return all attributes as a dictionary of JSON values; the inverse of `from_json`."""
        return {
            "kind": self.kind,
            "name": self.name,
            "axes": self.axes,
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "block": self.block,
            "chunk": self.chunk,
            "calibration": json.loads(json.dumps(self.calibration.to_json())),
            "attributes": dict(self.attributes),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StoreSpec:
        """Build a spec from the values that `to_json` returns.

        Raises
        ------
        ValueError
            If a value is missing, unknown or of another kind.
        """
        if set(values) != _FIELDS:
            raise ValueError(
                f"a spec must have the fields {', '.join(sorted(_FIELDS))}, got {', '.join(sorted(values))}"
            )
        try:
            return cls(
                kind=values["kind"],
                name=values["name"],
                axes=values["axes"],
                shape=tuple(values["shape"]),
                dtype=np.dtype(values["dtype"]),
                block=values["block"],
                chunk=values["chunk"],
                calibration=Calibration.from_json(values["calibration"]),
                attributes=values["attributes"],
            )
        except (TypeError, IndexError, AttributeError) as error:
            raise ValueError("a field of the spec has the wrong type") from error

    def _get_size(self, axis: str) -> int:
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1
