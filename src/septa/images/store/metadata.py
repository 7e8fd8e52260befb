"""Read and build the ``zarr.json`` files of a store, for its groups and arrays, before and after it is complete."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from septa.errors import InputError
from septa.images.store.shards import build_array_options, locate_level, make_read_error
from septa.images.store.spec import StoreSpec

_FILE = "zarr.json"
_OME_VERSION = "0.5"
_UNITS = {"T": "second", "Z": "micrometer", "Y": "micrometer", "X": "micrometer"}
_AXIS_TYPES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}
_MAX_BYTES = 2**24


def check_specs(specs: Sequence[StoreSpec]) -> None:
    """Refuse specs that cannot share one store.

    Raises
    ------
    ValueError
        If there is no spec, two labels have the same name, there are two images of probabilities, or planes differ in
        size.
    """
    names = [spec.name for spec in specs if spec.kind == "labels"]
    if not specs or len(set(names)) < len(names) or len(specs) - len(names) > 1:
        raise ValueError("a store must hold labels of different names and at most one image of probabilities")
    if len({(spec.axes.replace("C", ""), spec.grid(0)[:2], spec.levels[0]) for spec in specs}) > 1:
        shapes = ", ".join(str(spec.shape) for spec in specs)
        raise ValueError(f"the images of a store must have the same size, got {shapes}")


def read_group_attributes(path: Path) -> dict[str, Any] | None:
    """Return the attributes of the zarr group at ``path``; None if there is no zarr group.

    Raises
    ------
    InputError
        If the metadata cannot be read.
    """
    values = _read_json(path / _FILE)
    if values is None:  # format 2
        return None if _read_json(path / ".zgroup") is None else _read_json(path / ".zattrs") or {}
    if values.get("node_type") != "group":
        return None
    attributes = values.get("attributes")
    return attributes if isinstance(attributes, dict) else {}


def _read_json(file: Path) -> dict[str, Any] | None:
    """Return a JSON object; None if there is no file, or it holds anything else."""
    try:
        with file.open("rb") as stream:
            values = json.loads(stream.read(_MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise make_read_error(file, error) from error
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def read_septa_attributes(path: Path) -> dict[str, Any]:
    """Return septa's own attributes of the group at ``path``; empty if septa did not write the group."""
    attributes = (read_group_attributes(path) or {}).get("septa")
    return attributes if isinstance(attributes, dict) else {}


def check_same(path: Path, attributes: dict[str, Any], specs: Sequence[StoreSpec]) -> None:
    """Refuse a store of other specs, with an error that names the difference.

    Parameters
    ----------
    path
        Folder of the store.
    attributes
        Attributes that `read_septa_attributes` found there.
    specs
        Specs that the store must have.

    Raises
    ------
    InputError
        If the store was made with other specs, or its own cannot be read.
    """
    remedy = "Write to another folder, or remove this one first"
    expected = [spec.to_json() for spec in specs]
    found = attributes.get("specs")
    if found == expected:
        return
    if not isinstance(found, list) or not all(isinstance(values, dict) for values in found):
        raise InputError(path, "the store does not state the settings it was made with", remedy)
    if [values.get("name") for values in found] != [values["name"] for values in expected]:
        held, missing = (", ".join(str(values.get("name")) for values in group) for group in (found, expected))
        raise InputError(path, f"the store holds {held}, not {missing}", remedy)
    for old, new in zip(found, expected):
        for name in new:
            if old.get(name) != new[name]:
                was, now = (json.dumps(values.get(name))[:100] for values in (old, new))
                problem = f"the store was made with other settings ({new['name']}: {name} {was}, now {now})"
                raise InputError(path, problem, remedy)
    raise InputError(path, "the store was made by another version of septa", remedy)


def build_metadata(path: Path, specs: Sequence[StoreSpec], *, complete: bool) -> Iterator[tuple[Path, str]]:
    """Yield the path and the text of every ``zarr.json`` of the store, the root last.

    Only a complete store has ``ome`` metadata.
    """
    for spec in specs:
        for level in range(len(spec.levels)):
            yield path / locate_level(spec, level) / _FILE, _build_array(spec, level, complete)
    labels = [spec for spec in specs if spec.kind == "labels"]
    for spec in labels:
        ome = {"multiscales": [_build_multiscale(spec)], "image-label": {"source": {"image": "../../"}}}
        yield path / "labels" / spec.name / _FILE, _build_group(ome, complete)
    if labels:
        yield path / "labels" / _FILE, _build_group({"labels": [spec.name for spec in labels]}, complete)
    first = next((spec for spec in specs if spec.kind == "probabilities"), specs[0])
    # The root of a store is an image. Without probabilities, the root shows the first labels as an image.
    prefix = "" if first.kind == "probabilities" else f"labels/{first.name}/"
    more = {"specs": [spec.to_json() for spec in specs]}
    ome = {"multiscales": [_build_multiscale(first, prefix)], **_build_omero(first)}
    yield path / _FILE, _build_group(ome, complete, more)


def build_label_group(spec: StoreSpec, version: str) -> dict[str, Any]:
    """Return the attributes of the group of a complete label image that can be recognised by itself."""
    source = {"image": "../../"}
    septa = {"septa": {"complete": True, "specs": [spec.to_json()]}}
    multiscale = _build_multiscale(spec)
    if version == "0.5":
        return {"ome": {"version": version, "multiscales": [multiscale], "image-label": {"source": source}}, **septa}
    label = {"version": version, "source": source}
    return {"multiscales": [{"version": version, **multiscale}], "image-label": label, **septa}


def build_root_group(specs: Sequence[StoreSpec], version: str) -> dict[str, Any]:
    """Return the attributes of the root of a complete store of OME-Zarr 0.4."""
    first = next((spec for spec in specs if spec.kind == "probabilities"), specs[0])
    prefix = "" if first.kind == "probabilities" else f"labels/{first.name}/"
    multiscale = {"version": version, **_build_multiscale(first, prefix)}
    septa = {"septa": {"complete": True, "specs": [spec.to_json() for spec in specs]}}
    return {"multiscales": [multiscale], **_build_omero(first), **septa}


def _build_group(ome: dict[str, Any], complete: bool, more: dict[str, Any] | None = None) -> str:
    attributes: dict[str, Any] = {"ome": {"version": _OME_VERSION, **ome}} if complete else {}
    attributes["septa"] = {"complete": complete, **(more or {})}
    return _dump({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def _build_array(spec: StoreSpec, level: int, complete: bool) -> str:
    """Return the metadata of an array as zarr itself writes it."""
    import zarr
    from zarr.core.buffer import Buffer
    from zarr.storage import MemoryStore

    files: dict[str, Buffer] = {}
    zarr.create_array(
        MemoryStore(files),
        shape=spec.level_shape(level),
        attributes={} if complete else {"septa": {"complete": False}},
        **build_array_options(spec),
    )
    return _dump(json.loads(files[_FILE].to_bytes()))


def _build_multiscale(spec: StoreSpec, prefix: str = "") -> dict[str, Any]:
    known = spec.calibration
    height, width = known.pixel_size_um or (None, None)
    steps = {"T": known.time_step_s, "Z": known.z_step_um, "Y": height, "X": width}
    origin = dict(zip("TZYX", (known.time_origin_s, *known.origin_um)))
    axes = [
        {"name": axis.lower(), "type": _AXIS_TYPES[axis], **({"unit": _UNITS[axis]} if steps.get(axis) else {})}
        for axis in spec.axes
    ]
    datasets = []
    for level in range(len(spec.levels)):
        larger = {axis: 2**level if axis in "YX" else 1 for axis in spec.axes}
        scale = [(steps.get(axis) or 1.0) * larger[axis] for axis in spec.axes]
        # The first pixel of a mean lies between those that it was computed from.
        moved = {axis: 0.5 * (larger[axis] - 1) if spec.kind == "probabilities" else 0.0 for axis in spec.axes}
        shift = [origin[axis] + moved[axis] * step if (step := steps.get(axis)) else 0.0 for axis in spec.axes]
        transforms: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if any(shift):
            transforms.append({"type": "translation", "translation": shift})
        datasets.append({"path": f"{prefix}{level}", "coordinateTransformations": transforms})
    downscaling = "nearest" if spec.kind == "labels" else "mean"
    return {"name": spec.name, "axes": axes, "datasets": datasets, "type": downscaling}


def _build_omero(spec: StoreSpec) -> dict[str, Any]:
    """Return the names of the channels as OME-Zarr has them, with the colours and limits that it requires."""
    if not spec.calibration.channel_names:
        return {}
    window = {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    channels = [{"label": name, "color": "FFFFFF", "window": window} for name in spec.calibration.channel_names]
    return {"omero": {"channels": channels}}


def _dump(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, allow_nan=False) + "\n"
