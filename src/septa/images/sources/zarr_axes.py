"""Find the axes of a zarr array that belongs to no OME-Zarr image."""

from __future__ import annotations

import re

from septa.errors import InputError
from septa.images.sources.addresses import Location
from septa.images.sources.zarr_array import ZarrArray

_WORDS = {
    "T": ("t", "time", "times", "frame", "frames", "timepoint", "timepoints"),
    "C": ("c", "ch", "channel", "channels", "band", "bands", "s", "sample", "samples", "color", "colour", "rgb"),
    "Z": ("z", "depth", "slice", "slices", "plane", "planes"),
    "Y": ("y", "row", "rows", "height", "lat", "latitude"),
    "X": ("x", "col", "cols", "column", "columns", "width", "lon", "longitude"),
}
_LETTERS = {word: letter for letter, words in _WORDS.items() for word in words}
_DEFAULT_NAME = re.compile(r"dim_\d+")
"""Names that xarray gives to axes without a name."""
_PLAIN_AXES = {2: "YX", 3: "CYX", 4: "CZYX", 5: "TCZYX"}
_COLOR_LAST_AXES = {3: "YXC", 4: "ZYXC", 5: "TZYXC"}


def find_named_axes(path: Location, array: ZarrArray) -> str:
    """Return the axes that ``dimension_names`` (zarr 3) or ``_ARRAY_DIMENSIONS`` (xarray) name; "" for neither.

    Raises
    ------
    InputError
        If a name is unknown or occurs twice, or Y or X is missing.
    """
    found = array.names if array.names is not None else array.attributes.get("_ARRAY_DIMENSIONS")
    names = list(found) if isinstance(found, list | tuple) else []
    if all(name is None or _DEFAULT_NAME.fullmatch(str(name)) for name in names):
        return ""
    letters = [_LETTERS.get(str(name).strip().lower(), "") for name in names]
    if not (all(letters) and len(set(letters)) == len(letters) == len(array.shape) and {"Y", "X"} <= set(letters)):
        problem = f"septa does not read the axes {names!r:.80} of an array of {len(array.shape)} axes"
        remedy = 'Name them in its metadata with some of "t", "c", "z", "y" and "x", each once'
        raise InputError(path, problem, remedy)
    return "".join(letters)


def guess_axes(path: Location, array: ZarrArray) -> str:
    """Return the axes of an array without names, by their number; 3 or 4 values along the last one are colours."""
    shape = array.shape
    is_color = len(shape) in _COLOR_LAST_AXES and shape[-1] in (3, 4) and min(shape[-3:-1]) > shape[-1]
    axes = (_COLOR_LAST_AXES if is_color else _PLAIN_AXES).get(len(shape), "")
    if not axes:
        problem = f"the array has {len(shape)} axes, septa reads 2 to 5 (YX, CYX, CZYX, TCZYX)"
        raise InputError(path, problem, "Save it with one of these sets of axes")
    return axes
