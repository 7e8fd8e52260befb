"""Objects as GeoJSON for QuPath, as one text or written piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, BinaryIO, Literal

import numpy.typing as npt

from septa.objects.outlines import Polygon, select_outlines, to_json
from septa.objects.table import ObjectTable

Array = npt.NDArray[Any]
Colors = Mapping[str, tuple[int, int, int]]
NO_POSITION: Mapping[str, int] = MappingProxyType({})
_AXES = {"plane": "z", "frame": "t"}
"""Axes of QuPath by the numbers that say which page of a stack an object lies on."""
_HEAD, _TAIL = '{"type":"FeatureCollection","features":[', "]}"


def to_geojson(
    labels_yx: Array,
    table: ObjectTable,
    *,
    object_type: Literal["detection", "annotation"] = "detection",
    colors: Colors | None = None,
    position: Mapping[str, int] = NO_POSITION,
) -> str:
    """Write objects as a GeoJSON FeatureCollection for QuPath.

    Parameters
    ----------
    labels_yx
        Instance ids as for `trace_outlines`.
    table
        Objects to write, from `septa.objects.measure_objects` of these labels. The id becomes the object's name, and
        the class its classification unless it is the number 0. All other columns become measurements: booleans as 1
        and 0, and values that are not finite are omitted.
    object_type
        Type of the objects in QuPath, which draws many detections faster than annotations.
    colors
        RGB (0..255) of classes by name; QuPath chooses the others.
    position
        Number of the ``frame`` and the ``plane`` of a stack, each from 0, on which QuPath shows the objects. They
        become measurements, too.

    Returns
    -------
    str
        JSON text. Coordinates are x, y in pixels, as explained in `septa.objects.outlines`. Each feature is a Polygon,
        or a MultiPolygon if an object has several parts.

    Raises
    ------
    ValueError
        The labels are not YX integers, or lack an object of the table.

    Examples
    --------
    >>> import json
    >>> import numpy as np
    >>> from septa.objects import measure_objects
    >>> labels_yx = np.array([[0, 7]])
    >>> feature = json.loads(to_geojson(labels_yx, measure_objects(labels_yx)))["features"][0]
    >>> feature["geometry"]
    {'type': 'Polygon', 'coordinates': [[[1, 0], [2, 0], [2, 1], [1, 1], [1, 0]]]}
    >>> feature["properties"]["name"], feature["properties"]["measurements"]["area"]
    ('7', 1)
    """
    outlines = [polygons for _, polygons in select_outlines(labels_yx, table)]
    features = describe_features(outlines, table, object_type=object_type, colors=colors, position=position)
    return f"{_HEAD}{','.join(map(to_json, features))}{_TAIL}"


def describe_features(
    outlines: Sequence[tuple[Polygon, ...]],
    table: ObjectTable,
    *,
    object_type: Literal["detection", "annotation"] = "detection",
    colors: Colors | None = None,
    position: Mapping[str, int] = NO_POSITION,
) -> Iterator[dict[str, Any]]:
    """Yield the features of objects, given the polygons of each row of the table; see `to_geojson`."""
    names = [name for name, values in table.columns.items() if name != "label" and values.dtype.kind in "buif"]
    names = [name for name in names if name != "class"]
    rows = zip(*((table.columns[name] + 0).tolist() for name in names)) if names else [()] * len(table)
    ids = table.columns["label"].tolist()
    for label, polygons, kind, row in zip(ids, outlines, _class_texts(table), rows, strict=True):
        properties: dict[str, Any] = {"objectType": object_type, "name": str(label)}
        if kind is not None:
            color = {"color": list(colors[kind])} if colors and kind in colors else {}
            properties["classification"] = {"name": kind, **color}
        values = {name: value for name, value in zip(names, row) if math.isfinite(value)}
        properties["measurements"] = {**position, **values}
        yield {"type": "Feature", "geometry": _geometry(polygons, position), "properties": properties}


class GeoJsonWriter:
    """Writer of one FeatureCollection, whose features are added piece by piece.

    Parameters
    ----------
    stream
        Open binary file.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._next = _HEAD

    def add(self, features: Iterator[dict[str, Any]]) -> None:
        """Append features, as of `describe_features`."""
        for feature in features:
            self._write(self._next + to_json(feature))
            self._next = ","

    def close(self) -> None:
        """Write the end; the stream stays open."""
        self._write((_HEAD if self._next == _HEAD else "") + _TAIL)

    def _write(self, text: str) -> None:
        self._stream.write(text.encode("utf-8"))


def _class_texts(table: ObjectTable) -> list[str | None]:
    classes = table.columns.get("class")
    if classes is None:
        return [None] * len(table)
    return [None if isinstance(value, int) and value == 0 else str(value) for value in classes.tolist()]


def _geometry(polygons: tuple[Polygon, ...], position: Mapping[str, int]) -> dict[str, Any]:
    places = {axis: position[name] for name, axis in _AXES.items() if name in position}
    plane = {"plane": {"c": -1, "z": 0, "t": 0} | places} if places else {}
    coordinates = [[[*ring.tolist(), ring[0].tolist()] for ring in polygon] for polygon in polygons]
    if len(coordinates) == 1:
        return {"type": "Polygon", "coordinates": coordinates[0], **plane}
    return {"type": "MultiPolygon", "coordinates": coordinates, **plane}
