"""Labels of objects with a class each: an image of ids, and beside it one of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.errors import InputError
from septa.images import RawLabels, read_labels
from septa.labels.codes import look_up
from septa.labels.object_classes import majority_classes

_LARGEST = 255


@dataclass(frozen=True)
class ObjectLabels(RawLabels):
    """Labels as stored that come with classes.

    Attributes
    ----------
    classes_yx
        Integers: at all pixels of an object the class that most of them have in the file, 0 where none has any.
    """

    classes_yx: npt.NDArray[Any]


def read_object_labels(raw: RawLabels, path: Path, page: int, max_pixels: int) -> ObjectLabels:
    """Read the classes of object ids that are read already; other parameters as for `septa.images.read.read_labels`.

    Raises
    ------
    InputError
        The file cannot be read, is no image of classes, or differs from the ids in size.
    """
    classes = read_labels(path, page, max_pixels=max_pixels)
    if raw.kind != "index" or classes.kind != "index":
        raise InputError(path, "goes with one object id and one class for each pixel", "save both as grey images")
    if classes.array.shape != raw.array.shape:
        sizes = "{} x {} pixels, the labels {} x {}".format(*classes.array.shape, *raw.array.shape)
        raise InputError(path, f"has {sizes}", "give both at one size")
    values = np.unique(classes.array)
    if values.size and not 0 <= values[0] <= values[-1] <= _LARGEST:
        problem = f"holds values from {values[0]} to {values[-1]}, and classes are 1 to {_LARGEST}"
        raise InputError(path, problem, "give at each pixel of an object the number of its class")
    return ObjectLabels(raw.array, raw.kind, raw.palette, majority_classes(raw.array, classes.array))


def encode_classes(
    raw: RawLabels, labels_yx: npt.NDArray[np.int32], values: Sequence[int], where: str
) -> npt.NDArray[np.int32]:
    """Put the place of its class among ``values`` on each object, which is 1 in ``labels_yx``.

    Raises
    ------
    InputError
        There are no classes, an object has none, or one that is unknown.
    """
    if not isinstance(raw, ObjectLabels):
        remedy = "put an image of classes with the same name into classes/ beside labels/"
        raise InputError(where, "has no classes of its objects", remedy)
    inside_yx = labels_yx == 1
    without = np.unique(raw.array[inside_yx & (raw.classes_yx == 0)])
    if without.size:
        shown = ", ".join(map(str, without[:5].tolist())) + (", ..." if without.size > 5 else "")
        problem = (
            f"{without.size} objects have no class ({shown})" if without.size > 1 else f"object {shown} has no class"
        )
        raise InputError(where, problem, "give it a class in classes/, or take it out of the labels")
    classes_yx = look_up(np.where(inside_yx, raw.classes_yx, 0), values, None, where, "index")
    return np.where(inside_yx, classes_yx, labels_yx)


def known_classes(raw: RawLabels) -> set[int]:
    """The classes that objects have."""
    return set(np.unique(raw.classes_yx).tolist()) - {0} if isinstance(raw, ObjectLabels) else set()


def refuse_classes(classes: set[int], kind: str) -> None:
    """Refuse classes of objects where labels are no objects."""
    if classes and kind != "instances":
        problem = f"hold {kind} labels, and the classes beside them are those of objects"
        raise InputError("labels", problem, "leave data.encoding and data.values out, or move the classes away")
