"""The identity of a run: the image with its content, and all settings that decide the output.

A run resumes an interrupted one, or finds its output complete, only if both have equal identities.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from septa.images import Location, Selection, Source, open_source
from septa.notices import Notices

_BATCH = 1000
"""Files that a thread describes at once."""
_THREADS = 16
"""Threads that describe files; on a network, most of the time is spent waiting."""
_SAMPLE = 64
"""Files of an image by which a worker checks that it sees the same image."""


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

    def open(self, channels: int | None = None, notices: Notices | None = None) -> Source:
        """Open the image, cropped to the region; the parameters are those of `septa.images.open_source`.

        Raises
        ------
        InputError
            It cannot be read, or has no such part.
        """
        selection = Selection(level=self.level, channels=self.channels, image=self.image, region=self.region)
        return open_source(self.path, selection, channels=channels, notices=notices)


@dataclass(frozen=True, kw_only=True)
class ObjectSettings:
    """The part of a request that concerns single objects.

    Attributes
    ----------
    table, geojson
        True if a table, or outlines, of objects are written.
    measure
        Measurements in them; names as for `septa.objects.measure_objects`.
    min_confidence
        Least confidence of an object that is kept (0..1); all are kept if None.
    classes
        True if the model gives objects classes, which are written as a label image of their own.
    """

    table: bool = False
    geojson: bool = False
    measure: tuple[str, ...] = ("basic",)
    min_confidence: float | None = None
    classes: bool = False

    @property
    def measured(self) -> bool:
        """True if objects are measured."""
        return self.table or self.geojson

    @property
    def scored(self) -> bool:
        """True if the confidences of objects are needed."""
        return self.measured or self.min_confidence is not None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ObjectSettings:
        """Rebuild settings from `dataclasses.asdict`, after JSON has turned its tuples into lists."""
        return cls(**_with_tuples(values, "measure"))


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """Everything in a request that decides the output, for comparison with an earlier run.

    Attributes
    ----------
    model
        SHA-256 (hex) of the model file.
    engine
        Name of the engine that runs the net. Another engine may round differently.
    path
        Absolute path of the image, without symbolic links.
    content
        `digest_content` of the image.
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
    objects
        What is done with single objects; None if there is nothing to do besides numbering them.
    zarr
        Version of OME-Zarr of the output. Runs that do not state it wrote 0.5.
    diameter
        Typical diameter of the objects, pixels; measured in the image if None and the model needs it.
    """

    model: str
    engine: str
    path: str
    content: str
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
    objects: ObjectSettings | None = None
    zarr: str = "0.5"
    diameter: float | None = None

    @classmethod
    def from_source(
        cls,
        source: Source,
        input: StreamInput,
        *,
        path: str,
        content: str,
        model: str,
        engine: str,
        name: str,
        probabilities: bool,
        skip_empty: bool,
        objects: ObjectSettings | None = None,
        zarr: str = "0.5",
        diameter: float | None = None,
    ) -> RunIdentity:
        """Describe the segmentation of an open image; the parameters are the attributes of the same names."""
        return cls(
            model=model,
            engine=engine,
            path=path,
            content=content,
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
            objects=objects,
            zarr=zarr,
            diameter=diameter,
        )

    def differences(self, other: RunIdentity) -> list[str]:
        """Return the names of the attributes that differ."""
        return [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]

    @property
    def attributes(self) -> dict[str, str]:
        """Attributes by which a store or file is recognised as the output of this run."""
        return {"asked": self.digest, "model": self.model, "content": self.content}

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all attributes."""
        return digest_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values; the inverse of `from_json`."""
        values = asdict(self)
        if self.objects is None:
            del values["objects"]  # earlier versions did not have it, and their outputs and runs are still recognised
        if self.zarr == "0.5":
            del values["zarr"]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunIdentity:
        """Rebuild an identity from `to_json`, after JSON has turned its tuples into lists."""
        objects = values.get("objects")
        known = {**values, "objects": None if objects is None else ObjectSettings.from_json(objects)}
        return cls(**_with_tuples(known, "channels", "region", "shape"))


def digest_content(source: Source) -> str:
    """Return a SHA-256 (hex) that changes when a file of an image is written, replaced, added or removed.

    It is computed from the name, size and time (nanoseconds) of every file that is read; the files are not opened. Of
    an image at an address it is computed from the metadata, since a request for each file would take too long.
    """
    return source.version or _digest_files(source.path, source.list_files())


def digest_sample(source: Source) -> str:
    """Return the `digest_content` of the first files of an image, by which a worker recognises it."""
    return source.version or _digest_files(source.path, islice(source.list_files(), _SAMPLE))


def digest_json(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _digest_files(root: Location, files: Iterator[Path]) -> str:
    digest = hashlib.sha256()
    batches = iter(lambda: list(islice(files, _BATCH)), [])
    with ThreadPoolExecutor(_THREADS) as pool:
        while group := list(islice(batches, _THREADS)):
            for text in pool.map(lambda batch: _describe_files(root, batch), group):
                digest.update(text)
    return digest.hexdigest()


def _describe_files(root: Location, files: Iterable[Path]) -> bytes:
    """Return a line with the name, size and time of each file; a file that does not exist has no size and time."""
    start = str(root)
    lines = []
    for file in files:
        path = str(file)
        name = path[len(start) :] if path.startswith(start) else os.path.relpath(path, start)
        try:
            status = file.stat()
            lines.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n")
        except OSError:
            lines.append(f"{name}\n")
    return os.fsencode("".join(lines))


def _with_tuples(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return a copy in which the lists of these names are tuples; None stays."""
    return {**values, **{name: None if values[name] is None else tuple(values[name]) for name in names}}
