"""Outlines in GeoJSON files, as QuPath writes them and as any program may that counts coordinates in pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from septa.errors import InputError
from septa.labels.outlines.outline import REMEDY, ImageOutlines, Outline, Polygon, classify, make_ring

_IGNORED = ("Ignore*", "ignore*")
"""Names of QuPath's class for regions to ignore."""


def is_geojson(document: Any) -> bool:
    """Return True if a JSON document is a feature, a geometry, or a list of features."""
    if isinstance(document, list):
        return bool(document) and all(isinstance(item, dict) and item.get("type") == "Feature" for item in document)
    if not isinstance(document, dict):
        return False
    kind = document.get("type")
    return kind in ("FeatureCollection", "Feature") or (isinstance(kind, str) and kind in _GEOMETRIES)


def read_geojson(document: Any, where: str) -> ImageOutlines:
    """Read the polygons of all features.

    The union of a MultiPolygon, or of the polygons of a GeometryCollection, is one object. The outline of a QuPath cell
    is that of the cell, not of its nucleus. Its class is the name of its classification; ``Ignore*`` is an ignored
    region. Points and lines are counted, not read.
    """
    drawn = ImageOutlines()
    for number, feature in enumerate(_list_features(document, where), start=1):
        entry = f"feature {number}"
        if not isinstance(feature, dict):
            raise InputError(where, f"{entry} is not an object with a geometry", REMEDY)
        geometry = feature.get("geometry", feature)
        if geometry is None:
            drawn.skipped["features without a geometry"] += 1
            continue
        if not isinstance(geometry, dict):
            raise InputError(where, f"{entry} is not an object with a geometry", REMEDY)
        plane = geometry.get("plane")
        if isinstance(plane, dict):
            drawn.planes.add((str(plane.get("t", 0)), str(plane.get("z", 0))))
        polygons = tuple(_read_polygons(geometry, where, entry, drawn))
        if polygons:
            properties = feature.get("properties")
            name = _find_class(properties if isinstance(properties, dict) else {})
            drawn.outlines.append(Outline(polygons, **classify(name, ignored=_IGNORED)))
    return drawn


def _list_features(document: Any, where: str) -> list[Any]:
    if isinstance(document, list):
        return document
    if document["type"] != "FeatureCollection":
        return [document]
    features = document.get("features")
    if not isinstance(features, list):
        raise InputError(where, "the FeatureCollection has no list of features", "Export the file again")
    return features


def _read_polygons(geometry: dict[str, Any], where: str, entry: str, drawn: ImageOutlines) -> Iterator[Polygon]:
    kind = geometry.get("type")
    parts = [geometry]
    if kind == "GeometryCollection" and isinstance(geometry.get("geometries"), list):
        parts = [part for part in geometry["geometries"] if isinstance(part, dict)]
    for part in parts:
        kind, coordinates = part.get("type"), part.get("coordinates")
        if kind not in ("Polygon", "MultiPolygon"):
            drawn.skipped[_GEOMETRIES.get(str(kind), "features of unknown kinds")] += 1
            continue
        polygons = [coordinates] if kind == "Polygon" else coordinates
        if not isinstance(polygons, list) or not all(isinstance(rings, list) for rings in polygons):
            raise InputError(where, f"{entry} has no list of rings", REMEDY)
        for rings in polygons:
            yield tuple(make_ring(ring, where, entry) for ring in rings)


def _find_class(properties: dict[str, Any]) -> str:
    """Return the class of a feature; names of several levels, as of a subclass in QuPath, are joined."""
    found = properties.get("classification")
    if isinstance(found, dict):
        names = found.get("names")
        found = ": ".join(map(str, names)) if isinstance(names, list) and names else found.get("name")
    return found.strip() if isinstance(found, str) else ""


_GEOMETRIES = {
    "Polygon": "polygons",
    "MultiPolygon": "polygons",
    "GeometryCollection": "collections in collections",
    "Point": "points",
    "MultiPoint": "points",
    "LineString": "lines",
    "MultiLineString": "lines",
}
