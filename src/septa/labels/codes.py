"""Conversion between the raw values of label images and class indices: the array functions of `LabelMapping`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.errors import InputError
from septa.images import RawLabels
from septa.labels.regions import label_equal_regions
from septa.recipe import IGNORE

MAX_PLANES = 31
"""Largest number of overlapping classes: the bits of a non-negative int32."""

MASK_VALUES = (1, 255, 65535)
"""Values that mark the foreground of a mask, depending on the program that saved it."""

Color = tuple[int, int, int]

RAW_KINDS = {"index": "one value per pixel", "rgb": "RGB colours", "channels": "several planes"}
"""Description of each kind of `RawLabels`, for messages."""


def encode_planes(raw: RawLabels, where: str, classes: int, ignore: int | None) -> npt.NDArray[np.int32]:
    """Encode one plane per class as a bit field; see `LabelMapping.encode`."""
    planes = _to_planes(raw, classes)
    if planes is None or len(planes) != classes:
        found = 1 if planes is None else len(planes)
        problem = f"the number of planes is {found}, expected {classes}"
        raise InputError(where, problem, "Save one plane per class in every label image")
    if classes > MAX_PLANES:
        problem = f"the number of planes is {classes}, and at most {MAX_PLANES} classes may overlap"
        raise InputError(where, problem, f"Give at most {MAX_PLANES} planes")
    labels_yx = np.zeros(planes.shape[1:], np.int32)
    ignored = np.zeros(planes.shape[1:], bool)
    for bit, plane in enumerate(planes):
        inside = plane != 0
        if ignore is not None:
            ignored |= plane == ignore
            inside &= plane != ignore
        found_values = plane[inside]
        if found_values.size and found_values.min() != found_values.max():
            shown = show_values(np.unique(found_values).tolist())
            problem = f"plane {bit + 1} holds {shown} in addition to 0, expected one such value"
            raise InputError(where, problem, "Save each plane with the values 0 and 1, and do not resize it")
        labels_yx |= inside.astype(np.int32) << bit
    labels_yx[ignored] = IGNORE
    return labels_yx


def count_planes(raw: RawLabels) -> int:
    """Return the number of planes that a label image stands for; 0 if it is empty and fits any number."""
    if raw.kind == "index":
        return int(raw.array.any())
    return 3 if raw.kind == "rgb" else len(raw.array)


def _to_planes(raw: RawLabels, classes: int) -> npt.NDArray[Any] | None:
    """Return the planes of a label image, ``KYX``; None if one plane does not say which class it is of."""
    if raw.kind == "channels":
        return raw.array
    if raw.kind == "rgb":
        return np.moveaxis(raw.array, 2, 0)
    # An RGB file whose three channels are equal is read as one plane; only an empty one is unambiguous.
    if classes == 1 or not raw.array.any():
        return np.broadcast_to(raw.array, (classes, *raw.array.shape))
    return None


def to_numbers(raw: RawLabels, kind: str, where: str) -> npt.NDArray[Any]:
    """Return one integer per pixel, ``YX``; colours become 0xRRGGBB.

    Raises
    ------
    InputError
        The label image is not of this kind.
    """
    if kind != "color" and raw.kind == "index":
        return raw.array
    if kind == "color" and raw.kind != "channels":
        return pack_colors(apply_palette(raw, where))
    raise InputError(
        where,
        f"the label image holds {RAW_KINDS[raw.kind]}, expected {kind} labels",
        "Save all label images in one way, or set data.encoding to the kind that they are of",
    )


def encode_object_mask(array: npt.NDArray[Any], where: str, ignore: int | None) -> npt.NDArray[np.int32]:
    """Encode object ids as 0 (background) and 1 (object); see `LabelMapping.encode`."""
    labels_yx = (array > 0).astype(np.int32)
    negative = array < 0
    if ignore is not None:
        labels_yx[array == ignore] = IGNORE
        negative &= array != ignore
    if negative.any():
        problem = f"the label image holds the negative id {array[negative][0]}"
        raise InputError(where, problem, "Correct the labels, or set data.ignore_label")
    return labels_yx


def extract_ids(array: npt.NDArray[Any], mask_yx: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return the stored object ids as int32 ``YX``.

    Ids that do not fit int32 are renumbered from 1, in their order.

    Parameters
    ----------
    array
        Object ids as stored, integers ``YX``.
    mask_yx
        1 where an id counts; other values, 0 and `IGNORE`, take the place of the id.
    """
    if array.size and array.max() > np.iinfo(np.int32).max:
        array = np.unique(array, return_inverse=True)[1].reshape(array.shape) + 1
    return np.where(mask_yx == 1, array, mask_yx).astype(np.int32)


def number_colors(raw: RawLabels, where: str, background: int, ignore: int | None) -> npt.NDArray[np.int32]:
    """Return a number for each 8-connected region of equal colour.

    Colours may repeat: an object that touches no other one of its colour is an object of its own.

    Parameters
    ----------
    raw
        Label image of kind ``rgb`` or ``index``.
    where
        Path of the label file, which errors name.
    background, ignore
        Colour 0xRRGGBB of the background and of ignored pixels.

    Returns
    -------
    ndarray
        int32 ``YX``: 0 in the background, 1 to n in objects, `IGNORE` in ignored pixels.
    """
    colors_yx = pack_colors(apply_palette(raw, where))
    if ignore is None:
        return label_equal_regions(colors_yx, background)
    ignored = colors_yx == ignore
    ids_yx = label_equal_regions(np.where(ignored, background, colors_yx), background)
    ids_yx[ignored] = IGNORE
    return ids_yx


def look_up(
    array: npt.NDArray[Any], numbers: Sequence[int], ignore: int | None, where: str, kind: str
) -> npt.NDArray[np.int32]:
    """Encode each of ``numbers`` as its place and ``ignore`` as `IGNORE`; see `LabelMapping.encode`.

    A mask of 0 and another of `MASK_VALUES` than ``numbers`` have is read as background and foreground.

    Raises
    ------
    InputError
        Another value occurs.
    """
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
        if kind == "binary" and find_foreground(array, numbers, ignore) is not None:
            labels_yx = (array != 0).astype(np.int32)
            return labels_yx
        found = np.unique(array[labels_yx == stray]).tolist()
        problem = f"the label image holds {show_values(found, kind)}, expected only {show_values(known, kind)}"
        raise InputError(where, problem, "Correct the labels, or name the value in data.values or data.ignore_label")
    return labels_yx


def find_foreground(array: npt.NDArray[Any], numbers: Sequence[int], ignore: int | None) -> int | None:
    """Return the foreground value of a mask if it is another one than that of ``numbers``, else None.

    Examples
    --------
    >>> find_foreground(np.array([[0, 255]]), (0, 1), None), find_foreground(np.array([[0, 255]]), (0, 255), None)
    (255, None)
    """
    if numbers[0] != 0 or numbers[1] not in MASK_VALUES or not array.size:
        return None
    top = int(array.max())
    known = top in (numbers[1], ignore) or top not in MASK_VALUES
    return None if known or not ((array == 0) | (array == top)).all() else top


def apply_palette(raw: RawLabels, where: str) -> npt.NDArray[Any]:
    """Return the colours ``YXS`` of a label image of kind ``rgb`` or ``index``.

    Without a palette, indices are grey levels.

    Raises
    ------
    InputError
        An index stands for no colour.
    """
    if raw.kind == "rgb":
        return raw.array
    top = 255 if raw.palette is None else len(raw.palette) - 1
    if raw.array.size and (raw.array.min() < 0 or raw.array.max() > top):
        problem = f"the label image holds values beyond 0..{top}, which stand for no colour"
        raise InputError(where, problem, "Save the labels in 8-bit colours")
    if raw.palette is None:
        return np.broadcast_to(raw.array[..., None], (*raw.array.shape, 3))
    colors: npt.NDArray[Any] = raw.palette[raw.array]
    return colors


def pack_colors(rgb: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Pack colours, uint8 with the last axis R, G, B, into int32 numbers 0xRRGGBB."""
    packed: npt.NDArray[np.int32] = (
        rgb[..., 0].astype(np.int32) << 16 | rgb[..., 1].astype(np.int32) << 8 | rgb[..., 2].astype(np.int32)
    )
    return packed


def show_values(values: Sequence[int], kind: str = "index", most: int = 6) -> str:
    """Format values for a message, colours as ``#rrggbb``.

    Examples
    --------
    >>> show_values([0, 255, 65280], "color", most=2)
    '#000000, #0000ff, ...'
    """
    shown = [f"#{value:06x}" if kind == "color" else str(value) for value in values[:most]]
    return ", ".join(shown) + (", ..." if len(values) > most else "")


def is_color(value: object) -> bool:
    """Return True for an RGB colour of three integers 0..255."""
    return isinstance(value, tuple) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)


def to_number(value: int | Color) -> int:
    """Return a colour as 0xRRGGBB, and an integer unchanged."""
    return value[0] << 16 | value[1] << 8 | value[2] if isinstance(value, tuple) else value


def to_color(number: int) -> Color:
    """Return the colour of 0xRRGGBB."""
    return number >> 16 & 255, number >> 8 & 255, number & 255


def join_names(names: Sequence[str]) -> str:
    """Join names for a message: ``a, b and c``."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def find_smallest_dtype(values: Sequence[int]) -> np.dtype[Any]:
    """Return the smallest integer dtype that holds all values."""
    return np.result_type(np.min_scalar_type(min(values)), np.min_scalar_type(max(values)))


def name_classes(kind: str, values: Sequence[int | Color]) -> tuple[str, ...]:
    """Return default names for the classes of these raw values, background first."""
    if kind == "binary" and len(values) == 2:
        return ("background", "foreground")
    if kind == "color":
        return ("background", *(show_values([to_number(value)], kind) for value in values[1:]))
    return ("background", *(f"class {value}" for value in values[1:]))
