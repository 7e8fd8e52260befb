"""The plan of a streamed segmentation: everything that decides its result, fixed before the first block.

All processes that take part share it, and so do all runs that resume an interrupted one. It is kept as ``plan.json`` in
the work folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from septa.images import Calibration, Normalization
from septa.images.store import BlockIndex, StoreKind, StoreSpec
from septa.inference import ImageRegion
from septa.labels import ImageScale
from septa.model import Model
from septa.streaming.budget import CHUNK
from septa.streaming.identity import RunIdentity, StreamInput, digest_json

KIND = "septa stream 1"
"""Kind of the tensor files that hold blocks."""
_FOREGROUND_CHUNK = 256
"""Largest side of the chunks of the foreground probability, which all processes of a run must agree on."""
VERSION = 2
"""Version of the plan. Plans of version 1 do not state it; they do not identify the content of the image."""


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """Everything that decides the result, and its division into blocks.

    Attributes
    ----------
    identity
        The part of the request that decides the output.
    input
        The image.
    sample
        `digest_sample` of the image.
    block
        Side of a block, pixels.
    margin
        Pixels around a block that are segmented with it. It is doubled for a block whose objects reach beyond it.
    normalizations
        Normalisation of each plane, with keys "t,z"; or one for all planes, with the key "".
    skipped
        Indices (t, z, y, x) of blocks that show nothing but background.
    calibration
        Sizes, steps and position of the image, and the names of its channels.
    scale
        Reduction, smallest objects and joined parts of the image; see `septa.model.Model.apply_scale`.
    """

    identity: RunIdentity
    input: StreamInput
    sample: str
    block: int
    margin: int
    normalizations: Mapping[str, Normalization]
    skipped: tuple[BlockIndex, ...]
    calibration: Calibration
    scale: ImageScale = field(default_factory=ImageScale)

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

        class_names = model.labels.pixel_names(model.task.finds_objects)

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
                calibration=replace(self.calibration, channel_names=class_names if axis_c else ()),
                attributes=self.identity.attributes,
            )

        name = self.identity.name
        names = [f"{name}_{number}" for number in range(model.task.classes)] if model.task.multilabel else [name]
        specs = [make_spec("labels", label_name, "", dtype) for label_name in names]
        if self.identity.objects is not None and self.identity.objects.classes:
            specs.append(make_spec("labels", f"{name}_classes", "", find_class_type(model)))
        if self.identity.probabilities:
            specs.append(make_spec("probabilities", name, "C", np.dtype(np.float16)))
        return specs

    def foreground_spec(self) -> StoreSpec:
        """Return the image of the foreground probability that is kept in the work folder, near objects."""
        axes = "".join(axis for axis in "TCZYX" if axis in self.identity.axes.replace("C", "") + "CYX")
        sizes = dict(zip("TCZYX", self.identity.shape)) | {"C": 1}
        return StoreSpec(
            kind="probabilities",
            name="foreground",
            axes=axes,
            shape=tuple(sizes[axis] for axis in axes),
            dtype=np.dtype(np.float32),
            block=self.block,
            chunk=math.gcd(self.block, _FOREGROUND_CHUNK),
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of everything except ``input``, whose path may be a relative one."""
        return digest_json({key: value for key, value in self.to_json().items() if key != "input"})

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values; the inverse of `from_json`."""
        plain = {
            "version": VERSION,
            "asked": self.identity.to_json(),
            "input": asdict(self.input),
            "sample": self.sample,
            "block": self.block,
            "margin": self.margin,
            "constants": {plane: constants.to_json() for plane, constants in self.normalizations.items()},
            "skipped": self.skipped,
            "calibration": self.calibration.to_json(),
            "scale": asdict(self.scale),
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
            if plain.pop("version") != VERSION:
                raise ValueError("the plan has another version")
            return cls(
                identity=RunIdentity.from_json(plain.pop("asked")),
                input=StreamInput.from_json(plain.pop("input")),
                normalizations={
                    plane: Normalization.from_json(constants) for plane, constants in plain.pop("constants").items()
                },
                skipped=tuple((int(t), int(z), int(y), int(x)) for t, z, y, x in plain.pop("skipped")),
                calibration=Calibration.from_json(plain.pop("calibration")),
                scale=ImageScale(**plain.pop("scale")),
                **plain,
            )
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"{type(error).__name__} {error}") from None


def find_class_type(model: Model) -> np.dtype[Any]:
    """Return the type of an image of the classes of objects, which holds the raw values of the training labels."""
    return np.min_scalar_type(int(model.labels.raw_values.max(initial=0)))
