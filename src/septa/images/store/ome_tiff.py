"""Write a complete store into one pyramidal OME-TIFF, with a few tiles in memory at a time."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from septa.images._info import Array
from septa.images._ome_metadata import build_ome_metadata
from septa.images._units import CM_UM
from septa.images.store.shards import locate_level, translate_zarr_errors
from septa.images.store.spec import StoreKind, StoreSpec
from septa.images.write import write_atomic

_TILE = 512
_TILES_AT_ONCE = 8
_BUFFER_BYTES = 2**26
_REDUCED = 1


def write_pyramid_tiff(path_tif: Path, store: Path, spec: StoreSpec) -> None:
    """Write every level of ``spec`` into one file; see `septa.images.store.ome_zarr.write_ome_tiff`."""
    import tifffile

    dtype = np.dtype(np.float32) if spec.kind == "probabilities" else spec.dtype

    def write(stream: BinaryIO) -> None:
        with tifffile.TiffWriter(stream, bigtiff=True, ome=True) as writer:
            for level in range(len(spec.levels)):
                first = {"subifds": len(spec.levels) - 1, "metadata": _build_metadata(spec)}
                writer.write(
                    _read_tiles(store, spec, level, dtype),
                    shape=spec.level_shape(level),
                    dtype=dtype,
                    tile=(_TILE, _TILE),
                    photometric="minisblack",
                    compression="zlib",
                    buffersize=_BUFFER_BYTES,
                    **_build_resolution(spec, level),
                    **({"subfiletype": _REDUCED} if level else first),
                )

    write_atomic(path_tif, write)


def _read_tiles(store: Path, spec: StoreSpec, level: int, dtype: np.dtype[Any]) -> Iterator[Array]:
    """Yield the tiles of a level in the order of a TIFF file; those at the lower and right edge are smaller."""
    import zarr

    folder = store / locate_level(spec, level)
    with translate_zarr_errors(folder, "Write the store again"):
        array = zarr.open_array(str(folder), mode="r", zarr_format=3)
    height, width = spec.levels[level]
    strip = _TILE * _TILES_AT_ONCE
    for plane in np.ndindex(spec.shape[:-2]):
        for y, left in product(range(0, height, _TILE), range(0, width, strip)):
            selection = (*plane, slice(y, y + _TILE), slice(left, left + strip))
            with translate_zarr_errors(folder, "Write the store again"):
                window = np.asarray(array[selection])
            window = window.astype(dtype, copy=False)
            yield from (window[:, x : x + _TILE] for x in range(0, window.shape[1], _TILE))


def make_identifier(kind: StoreKind, name: str, attributes: Mapping[str, Any]) -> str:
    """Return the identifier of an OME-TIFF file, from parts of its spec; equal parts give equal identifiers."""
    text = json.dumps([kind, name, dict(attributes)], sort_keys=True)
    return uuid.uuid5(uuid.NAMESPACE_URL, text).urn


def read_identifier(path: Path) -> str:
    """Return the identifier in an OME-TIFF file; empty if the file is not one, or cannot be read."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            found = re.search(r'<OME\b[^>]*\bUUID="([^"]*)"', file.ome_metadata or "")
    except Exception:  # whatever is wrong with the file, it is not one that septa has just written
        return ""
    return found[1] if found else ""


def _build_metadata(spec: StoreSpec) -> dict[str, Any]:
    # By default tifffile makes the identifier from the machine and the time; this one makes equal stores equal files.
    identifier = make_identifier(spec.kind, spec.name, spec.attributes)
    metadata = build_ome_metadata(spec.axes, spec.shape, spec.calibration)
    return metadata | {"Name": spec.name, "UUID": identifier}


def _build_resolution(spec: StoreSpec, level: int) -> dict[str, Any]:
    pixel_size_um = spec.calibration.pixel_size_um
    if pixel_size_um is None:
        return {}
    y, x = (CM_UM / (size * 2**level) for size in pixel_size_um)
    return {"resolution": (x, y), "resolutionunit": "CENTIMETER"}
