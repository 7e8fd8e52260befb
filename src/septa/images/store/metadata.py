"""The ``zarr.json`` files of a store: of its groups and arrays, before and after it is complete."""

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
_AXIS_TYPES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}
_MAX_BYTES = 2**24


def check_specs(specs: Sequence[StoreSpec]) -> None:
    """Refuse what cannot lie in one store.

    Raises
    ------
    ValueError
        No spec, two labels of one name, two images of probabilities, or planes of different size.
    """
    names = [spec.name for spec in specs if spec.kind == "labels"]
    if not specs or len(set(names)) < len(names) or len(specs) - len(names) > 1:
        raise ValueError("a store holds labels of different names and at most one image of probabilities")
    if len({(spec.axes.replace("C", ""), spec.grid(0)[:2], spec.levels[0]) for spec in specs}) > 1:
        raise ValueError(f"the images of a store have one size, not {', '.join(str(spec.shape) for spec in specs)}")


def read_group_attributes(path: Path) -> dict[str, Any] | None:
    """Attributes of the zarr group at ``path``; None when there is no zarr group.

    Raises
    ------
    InputError
        The metadata cannot be read.
    """
    file = path / _FILE
    try:
        with file.open("rb") as stream:
            values = json.loads(stream.read(_MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise make_read_error(file, error) from error
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or values.get("node_type") != "group":
        return None
    attributes = values.get("attributes")
    return attributes if isinstance(attributes, dict) else {}


def read_septa_attributes(path: Path) -> dict[str, Any]:
    """What septa noted in the group at ``path``; empty when there is no group or it is another program's."""
    noted = (read_group_attributes(path) or {}).get("septa")
    return noted if isinstance(noted, dict) else {}


def check_same(path: Path, noted: dict[str, Any], specs: Sequence[StoreSpec]) -> None:
    """Refuse a store of other specs and say where they differ.

    Raises
    ------
    InputError
        The store at ``path`` was made with other specs, or these cannot be read.
    """
    remedy = "write to another folder, or remove this one first"
    wanted = [spec.to_json() for spec in specs]
    found = noted.get("specs")
    if found == wanted:
        return
    if not isinstance(found, list) or not all(isinstance(values, dict) for values in found):
        raise InputError(path, "the store does not say how it was made", remedy)
    if [values.get("name") for values in found] != [values["name"] for values in wanted]:
        held, asked = (", ".join(str(values.get("name")) for values in group) for group in (found, wanted))
        raise InputError(path, f"the store holds {held}, not {asked}", remedy)
    for old, new in zip(found, wanted):
        for name in new:
            if old.get(name) != new[name]:
                was, now = (json.dumps(values.get(name))[:100] for values in (old, new))
                problem = f"the store was made with other settings ({new['name']}: {name} {was}, now {now})"
                raise InputError(path, problem, remedy)
    raise InputError(path, "the store was made by another version of septa", remedy)


def build_metadata(path: Path, specs: Sequence[StoreSpec], *, complete: bool) -> Iterator[tuple[Path, str]]:
    """Every ``zarr.json`` of the store with its text, the root last.

    Only a complete store has ``ome`` metadata.
    """
    for spec in specs:
        for level in range(len(spec.levels)):
            yield path / locate_level(spec, level) / _FILE, _array(spec, level, complete)
    labels = [spec for spec in specs if spec.kind == "labels"]
    for spec in labels:
        ome = {"multiscales": [_multiscale(spec)], "image-label": {"source": {"image": "../../"}}}
        yield path / "labels" / spec.name / _FILE, _group(ome, complete)
    if labels:
        yield path / "labels" / _FILE, _group({"labels": [spec.name for spec in labels]}, complete)
    first = next((spec for spec in specs if spec.kind == "probabilities"), specs[0])
    # Labels belong to an image, so where there are no probabilities the root shows the first labels as one.
    prefix = "" if first.kind == "probabilities" else f"labels/{first.name}/"
    noted = {"specs": [spec.to_json() for spec in specs]}
    yield path / _FILE, _group({"multiscales": [_multiscale(first, prefix)]}, complete, noted)


def _group(ome: dict[str, Any], complete: bool, noted: dict[str, Any] | None = None) -> str:
    attributes: dict[str, Any] = {"ome": {"version": _OME_VERSION, **ome}} if complete else {}
    attributes["septa"] = {"complete": complete, **(noted or {})}
    return _dump({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def _array(spec: StoreSpec, level: int, complete: bool) -> str:
    """Metadata of an array as zarr itself writes it."""
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


def _multiscale(spec: StoreSpec, prefix: str = "") -> dict[str, Any]:
    unit = {} if spec.pixel_size_um is None else {"unit": "micrometer"}
    axes = [{"name": axis.lower(), "type": _AXIS_TYPES[axis], **(unit if axis in "YX" else {})} for axis in spec.axes]
    ones = [1.0] * (len(spec.axes) - 2)
    pixel = spec.pixel_size_um or (1.0, 1.0)
    datasets = []
    for level in range(len(spec.levels)):
        scale = {"type": "scale", "scale": [*ones, *(size * 2**level for size in pixel)]}
        transforms: list[dict[str, Any]] = [scale]
        if spec.pixel_size_um is not None and any(spec.translation_um):
            zeros = [0.0] * len(ones)
            transforms.append({"type": "translation", "translation": [*zeros, *spec.translation_um]})
        datasets.append({"path": f"{prefix}{level}", "coordinateTransformations": transforms})
    downscaling = "nearest" if spec.kind == "labels" else "mean"
    return {"name": spec.name, "axes": axes, "datasets": datasets, "type": downscaling}


def _dump(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, allow_nan=False) + "\n"
