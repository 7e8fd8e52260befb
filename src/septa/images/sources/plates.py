"""Find the fields of a plate (HCS layout of OME-Zarr): the images of its wells."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from septa.errors import InputError, shorten_list
from septa.images.sources.addresses import Location
from septa.images.sources.ome_zarr import as_list, is_inside, read_ome
from septa.images.sources.places import Place, find_place
from septa.prefetch import map_ahead


@dataclass(frozen=True)
class Field:
    """An image of a well.

    Attributes
    ----------
    well
        Name of the well: its row and column, such as ``A1``.
    number
        Number of the field in its well, from 0.
    location
        Path or address of the image.
    """

    well: str
    number: int
    location: Location


def list_fields(location: str | os.PathLike[str], wells: Sequence[str] | None = None) -> list[Field]:
    """Return the fields of a plate or of one well, in the order of the metadata; none for any other path.

    Parameters
    ----------
    location
        Path or address.
    wells
        Names of the wells that are wanted, or patterns such as ``B*``; None for all. ``A1`` is also ``A01``.

    Raises
    ------
    InputError
        If the metadata is damaged, lists no wells, or has no well of a wanted name.
    """
    place = find_place(location)
    if place is None:
        return []
    try:
        ome = read_ome(place)
        if "plate" in ome:
            paths = {path.replace("/", ""): path for path in _list_wells(place, ome["plate"])}
            chosen = [place / paths[name] for name in _choose(place, list(paths), wells)]
        elif "well" in ome:
            chosen = [place] if _choose(place, [_name_well(place)], wells) else []
        else:
            chosen = []
        return [field for fields in map_ahead(_read_well, chosen, place.threads) for field in fields]
    finally:
        place.close()


def _list_wells(place: Place, plate: Any) -> list[str]:
    """Return the paths of the wells of a plate, such as ``A/1``."""
    wells = as_list(plate.get("wells")) if isinstance(plate, dict) else []
    paths = [well.get("path") for well in wells if isinstance(well, dict)]
    if not paths or not all(is_inside(path) for path in paths):
        problem = "the plate does not list its wells as OME-Zarr does"
        raise InputError(place.location, problem, "Correct the metadata, or give the folders of its images")
    return [str(path).strip("/") for path in paths]


def _name_well(place: Place) -> str:
    return "".join(folder.name for folder in (*place.parents[:1], place))


def _read_well(place: Place) -> list[Field]:
    """Return the fields of a well; one that cannot be read has a field whose opening reports the reason."""
    try:
        well = read_ome(place).get("well")
    except InputError:
        well = None
    images = as_list(well.get("images")) if isinstance(well, dict) else []
    paths = [image.get("path") for image in images if isinstance(image, dict)]
    names = [str(path) for path in paths if is_inside(path)] or ["0"]
    return [Field(_name_well(place), number, (place / name).location) for number, name in enumerate(names)]


def _choose(place: Place, names: list[str], wells: Sequence[str] | None) -> list[str]:
    """Return the names of wells that one of the patterns matches, in their order."""
    if wells is None:
        return names
    chosen: set[str] = set()
    for pattern in wells:
        matches = {name for name in names if fnmatchcase(_simplify(name), _simplify(pattern))}
        if not matches:
            problem = f"the plate has no well {pattern} (it has {shorten_list(names)})"
            raise InputError(place.location, problem, "Choose among these with --wells")
        chosen |= matches
    return [name for name in names if name in chosen]


def _simplify(name: str) -> str:
    """Return a name or pattern in capital letters and without zeros before the number: ``a01`` is ``A1``."""
    return re.sub(r"(?<=[A-Z])0+(?=\d)", "", name.strip().upper())
