"""Raw label values to class numbers: array functions behind `septa.labels.mapping`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.errors import InputError
from septa.images import RawLabels
from septa.recipe import IGNORE

MAX_PLANES = 31
"""Most overlapping classes: the bits of a non-negative int32."""
Color = tuple[int, int, int]


def encode_planes(raw: RawLabels, where: str, classes: int, ignore: int | None) -> npt.NDArray[np.int32]:
    """Encode one plane per class as a bit field; see `LabelMapping.encode`."""
    planes = _planes(raw, classes)
    if planes is None or len(planes) != classes:
        came = 1 if planes is None else len(planes)
        raise InputError(where, f"holds {came} planes for {classes} classes", "give one plane per class in every file")
    if classes > MAX_PLANES:
        raise InputError(where, f"holds {classes} planes", f"give at most {MAX_PLANES} overlapping classes")
    labels_yx = np.zeros(planes.shape[1:], np.int32)
    ignored = np.zeros(planes.shape[1:], bool)
    for bit, plane in enumerate(planes):
        inside = plane != 0
        if ignore is not None:
            ignored |= plane == ignore
            inside &= plane != ignore
        found = plane[inside]
        if found.size and found.min() != found.max():
            problem = f"plane {bit + 1} holds {show_values(np.unique(found).tolist())} beside 0, and one is expected"
            raise InputError(where, problem, "write each plane with the two values 0 and 1, without resizing")
        labels_yx |= inside.astype(np.int32) << bit
    labels_yx[ignored] = IGNORE
    return labels_yx


def plane_count(raw: RawLabels) -> int:
    """Planes that a label image stands for; 0 if it is an empty one that fits any number."""
    if raw.kind == "index":
        return int(raw.array.any())
    return 3 if raw.kind == "rgb" else len(raw.array)


def _planes(raw: RawLabels, classes: int) -> npt.NDArray[Any] | None:
    if raw.kind == "channels":
        return raw.array
    if raw.kind == "rgb":
        return np.moveaxis(raw.array, 2, 0)
    # An RGB file whose three channels are equal arrives as one plane; only an empty one is unambiguous.
    if classes == 1 or not raw.array.any():
        return np.broadcast_to(raw.array, (classes, *raw.array.shape))
    return None


def as_numbers(raw: RawLabels, kind: str, where: str) -> npt.NDArray[Any]:
    """One integer per pixel, colours as 0xRRGGBB."""
    if kind != "color" and raw.kind == "index":
        return raw.array
    if kind == "color" and raw.kind != "channels":
        return pack(palette_as_rgb(raw, where))
    came = {"index": "one value per pixel", "rgb": "RGB colours", "channels": "several planes"}[raw.kind]
    remedy = "save all label images alike, or set data.encoding to what they hold"
    raise InputError(where, f"holds {came}, where {kind} labels are expected", remedy)


def encode_instances(array: npt.NDArray[Any], where: str, ignore: int | None) -> npt.NDArray[np.int32]:
    """Encode ids as 0 (background) and 1 (object); see `LabelMapping.encode`."""
    labels_yx = (array > 0).astype(np.int32)
    negative = array < 0
    if ignore is not None:
        labels_yx[array == ignore] = IGNORE
        negative &= array != ignore
    if negative.any():
        raise InputError(where, f"holds the negative id {array[negative][0]}", "correct the labels or set ignore_label")
    return labels_yx


def object_ids(array: npt.NDArray[Any], classes_yx: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The stored ids where ``classes_yx`` is 1, else its 0 or `IGNORE`; ids beyond int32 are numbered anew from 1."""
    if array.size and array.max() > np.iinfo(np.int32).max:
        array = np.unique(array, return_inverse=True)[1].reshape(array.shape) + 1
    return np.where(classes_yx == 1, array, classes_yx).astype(np.int32)


def look_up(
    array: npt.NDArray[Any], numbers: Sequence[int], ignore: int | None, where: str, kind: str
) -> npt.NDArray[np.int32]:
    """Encode each of ``numbers`` as its place, ``ignore`` as `IGNORE`; see `LabelMapping.encode`."""
    known = [*numbers, *([] if ignore is None else [ignore])]
    classes = [*range(len(numbers)), *([] if ignore is None else [IGNORE])]
    labels_yx: npt.NDArray[np.int32]
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    stray = np.int32(-2)
    if low >= 0 and high < 1 << 16:
        table = np.full(high + 1, stray)
        for number, label in zip(known, classes, strict=True):
            if 0 <= number <= high:
                table[number] = label
        labels_yx = table[array]
    else:
        order = np.argsort(known)
        ordered = np.array(known, np.int64)[order]
        place = np.minimum(np.searchsorted(ordered, array), len(known) - 1)
        labels_yx = np.where(ordered[place] == array, np.array(classes, np.int32)[order][place], stray)
    if (labels_yx == stray).any():
        found = np.unique(array[labels_yx == stray]).tolist()
        problem = f"holds {show_values(found, kind)}, and the classes are {show_values(known, kind)}"
        raise InputError(where, problem, "correct the labels, or tell in data.values or data.ignore_label what it is")
    return labels_yx


def palette_as_rgb(raw: RawLabels, where: str) -> npt.NDArray[Any]:
    """YXS colours of a label image of kind ``rgb`` or ``index``; indices without a palette are grey levels."""
    if raw.kind == "rgb":
        return raw.array
    top = 255 if raw.palette is None else len(raw.palette) - 1
    if raw.array.size and (raw.array.min() < 0 or raw.array.max() > top):
        raise InputError(where, f"holds values beyond 0..{top}, which stand for no colour", "give 8-bit colour labels")
    if raw.palette is None:
        return np.broadcast_to(raw.array[..., None], (*raw.array.shape, 3))
    colors: npt.NDArray[Any] = raw.palette[raw.array]
    return colors


def pack(rgb: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Colours (last axis R, G, B; uint8) as int32 numbers 0xRRGGBB."""
    packed: npt.NDArray[np.int32] = (
        rgb[..., 0].astype(np.int32) << 16 | rgb[..., 1].astype(np.int32) << 8 | rgb[..., 2].astype(np.int32)
    )
    return packed


def show_values(values: Sequence[int], kind: str = "index", most: int = 6) -> str:
    """Write values for a message, colours as ``#rrggbb``.

    Examples
    --------
    >>> show_values([0, 255, 65280], "color", most=2)
    '#000000, #0000ff, ...'
    """
    shown = [f"#{value:06x}" if kind == "color" else str(value) for value in values[:most]]
    return ", ".join(shown) + (", ..." if len(values) > most else "")


def is_color(value: object) -> bool:
    """Whether a value is an RGB colour."""
    return isinstance(value, tuple) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)


def number_of(value: int | Color) -> int:
    """A colour as 0xRRGGBB; other values as they are."""
    return value[0] << 16 | value[1] << 8 | value[2] if isinstance(value, tuple) else value


def color_of(number: int) -> Color:
    """The colour of 0xRRGGBB."""
    return number >> 16 & 255, number >> 8 & 255, number & 255


def joined(names: Sequence[str]) -> str:
    """Names as a message lists them: ``a, b and c``."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def smallest(values: Sequence[int]) -> np.dtype[Any]:
    """The smallest integer dtype that holds all values."""
    return np.result_type(np.min_scalar_type(min(values)), np.min_scalar_type(max(values)))


def default_names(kind: str, values: Sequence[int | Color]) -> tuple[str, ...]:
    """Names of the classes of these raw values, background first."""
    if kind == "binary" and len(values) == 2:
        return ("background", "foreground")
    if kind == "color":
        return ("background", *(show_values([number_of(value)], kind) for value in values[1:]))
    return ("background", *(f"class {value}" for value in values[1:]))
