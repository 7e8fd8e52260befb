"""Copy a complete store into OME-Zarr 0.4 (zarr 2), which Fiji and ilastik read, or into the labels of an image."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from septa.errors import InputError
from septa.images.store.metadata import (
    build_label_group,
    build_root_group,
    read_group_attributes,
    read_septa_attributes,
)
from septa.images.store.shards import decode_shard, locate_level, locate_shard
from septa.images.store.spec import StoreSpec
from septa.images.write import make_write_error, write_text

_ZLIB_LEVEL = 1


def write_zarr2(path: Path, store: Path, specs: Sequence[StoreSpec]) -> None:
    """Copy a store into one of OME-Zarr 0.4, block by block; it appears under its name when it is complete.

    Chunks are compressed with zlib, which every reader has, and chunks of zeros have no file.

    Parameters
    ----------
    path
        Folder to create, which is missing or empty.
    store, specs
        Complete store, and its images.

    Raises
    ------
    InputError
        If a block is missing or damaged, or the folder cannot be written.
    ResourceError
        If the disk is full.
    """

    def fill(folder: Path) -> None:
        labels = [spec for spec in specs if spec.kind == "labels"]
        for spec in specs:
            _copy_levels(folder / locate_level(spec, 0), store, spec)
        for spec in labels:
            _write_group(folder / "labels" / spec.name, build_label_group(spec, "0.4"))
        if labels:
            _write_group(folder / "labels", {"labels": [spec.name for spec in labels]})
        _write_group(folder, build_root_group(specs, "0.4"))

    _make_folder(path, fill)


def find_image_format(image: Path) -> int:
    """Return the zarr format, 2 or 3, of an OME-Zarr image on disk.

    Raises
    ------
    InputError
        If the path is not the folder of an OME-Zarr image.
    """
    attributes = read_group_attributes(image) if image.is_dir() else None
    ome = (attributes or {}).get("ome", attributes or {})
    if not isinstance(ome, dict) or "multiscales" not in ome:
        problem = "labels can be written only into the folder of one OME-Zarr image"
        raise InputError(image, problem, "Give the folder of such an image, or leave --into-image out")
    return 3 if (image / "zarr.json").exists() else 2


def write_labels_into(image: Path, store: Path, specs: Sequence[StoreSpec]) -> None:
    """Copy the labels of a store into the ``labels`` group of an image on disk, in the format of the image.

    Labels of the same name must not exist. Each label image appears when it is complete, and is then listed.

    Raises
    ------
    InputError
        If a block is missing or damaged, or the image cannot be written.
    ResourceError
        If the disk is full.
    """
    zarr_format = find_image_format(image)
    for spec in specs:

        def fill(folder: Path, spec: StoreSpec = spec) -> None:
            if zarr_format == 2:
                _copy_levels(folder / "0", store, spec)
                _write_group(folder, build_label_group(spec, "0.4"))
                return
            shutil.copytree(store / "labels" / spec.name, folder, dirs_exist_ok=True)
            write_text(folder / "zarr.json", _dump_group(build_label_group(spec, "0.5")))

        _make_folder(image / "labels" / spec.name, fill)
    list_labels_of(image, [spec.name for spec in specs])


def list_labels_of(image: Path, names: Sequence[str]) -> None:
    """Add labels to the list in the ``labels`` group of an image, which may hold them already.

    Raises
    ------
    InputError
        If the group cannot be written.
    """
    folder, zarr_format = image / "labels", find_image_format(image)
    attributes = read_group_attributes(folder) or {}
    ome = attributes.get("ome", {}) if zarr_format == 3 else attributes
    known = ome.get("labels") if isinstance(ome, dict) else None
    known = known if isinstance(known, list) else []
    if set(names) <= set(map(str, known)):
        return
    labels = {"labels": [*known, *(name for name in names if name not in known)]}
    if zarr_format == 2:
        _write_group(folder, {**attributes, **labels})
    else:
        ome = {"version": "0.5", **(ome if isinstance(ome, dict) else {}), **labels}
        write_text(folder / "zarr.json", _dump_group({**attributes, "ome": ome}))


def _make_folder(path: Path, fill: Any) -> None:
    """Fill a new folder beside ``path``, flush it to disk, and give it its name."""
    if path.exists() and any(path.iterdir()) and not read_septa_attributes(path):
        raise InputError(path, "the folder was not written by septa, so it is not replaced", "Give another --name")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        try:
            temporary.mkdir(parents=True)
            fill(temporary)
            for file in (file for file in temporary.rglob("*") if file.is_file()):
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
        except OSError as error:
            raise make_write_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy_levels(folder: Path, store: Path, spec: StoreSpec) -> None:
    """Copy all levels of an image to arrays of zarr 2; ``folder`` is that of level 0."""
    import numcodecs
    import zarr

    inner = {"Y": spec.chunk, "X": spec.chunk}
    for level in range(len(spec.levels)):
        array = zarr.create_array(
            str(folder.parent / str(level)),
            shape=spec.level_shape(level),
            dtype=spec.dtype,
            chunks=tuple(inner.get(axis, 1) for axis in spec.axes),
            compressors=numcodecs.Zlib(_ZLIB_LEVEL),
            fill_value=0,
            zarr_format=2,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        for index in spec.blocks(level):
            file = locate_shard(store, spec, level, index)
            block = decode_shard(file, spec, spec.block_shape(level, index))
            array[_find_region(spec, index)] = block


def _find_region(spec: StoreSpec, index: tuple[int, int, int, int]) -> tuple[Any, ...]:
    """Return the part of a level that a block covers, for each axis."""
    t, z, row, column = index
    y, x = (slice(i * spec.block, (i + 1) * spec.block) for i in (row, column))
    return tuple({"T": t, "Z": z, "C": slice(None), "Y": y, "X": x}[axis] for axis in spec.axes)


def _write_group(folder: Path, attributes: dict[str, Any]) -> None:
    if not (folder / ".zgroup").exists():
        write_text(folder / ".zgroup", '{"zarr_format": 2}\n')
    write_text(folder / ".zattrs", json.dumps(attributes, indent=2, allow_nan=False) + "\n")


def _dump_group(attributes: dict[str, Any]) -> str:
    values = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(values, indent=2, allow_nan=False) + "\n"
