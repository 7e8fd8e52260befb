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

_LARGEST = 255


@dataclass(frozen=True)
class RawObjectLabels(RawLabels):
    """Labels as stored that come with classes.

    Attributes
    ----------
    classes_yx
        Integers: at all pixels of an object the class that most of them have in the file, 0 where none has any.
    """

    classes_yx: npt.NDArray[Any]


def read_object_classes(raw: RawLabels, path: Path, page: int, max_pixels: int) -> RawObjectLabels:
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
    return RawObjectLabels(raw.array, raw.kind, raw.palette, majority_classes(raw.array, classes.array))


def encode_classes(
    raw: RawLabels, labels_yx: npt.NDArray[np.int32], values: Sequence[int], where: str
) -> npt.NDArray[np.int32]:
    """Put the place of its class among ``values`` on each object, which is 1 in ``labels_yx``.

    Raises
    ------
    InputError
        There are no classes, an object has none, or one that is unknown.
    """
    if not isinstance(raw, RawObjectLabels):
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
    return set(np.unique(raw.classes_yx).tolist()) - {0} if isinstance(raw, RawObjectLabels) else set()


def refuse_classes(classes: set[int], kind: str) -> None:
    """Refuse classes of objects where labels are no objects."""
    if classes and kind != "instances":
        problem = f"hold {kind} labels, and the classes beside them are those of objects"
        raise InputError("labels", problem, "leave data.encoding and data.values out, or move the classes away")


def majority_classes(ids_yx: npt.NDArray[Any], votes_yx: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give all pixels of an object the value that most of them have, not counting 0.

    Parameters
    ----------
    ids_yx
        Object ids, integers; 0 is background.
    votes_yx
        A value for each pixel, integers.

    Returns
    -------
    ndarray
        YX in the dtype of ``votes_yx``: the value of each object, the lowest of equals; 0 in background and in objects
        without any.

    Examples
    --------
    >>> majority_classes(np.array([[7, 7, 7, 7, 0, 9]]), np.array([[5, 4, 5, 0, 4, 0]]))
    array([[5, 5, 5, 5, 0, 0]])
    """
    ids, objects_yx = np.unique(ids_yx, return_inverse=True)
    values, choices_yx = np.unique(votes_yx, return_inverse=True)
    both = objects_yx.ravel() * values.size + choices_yx.ravel()
    votes = np.bincount(both, minlength=ids.size * values.size).reshape(ids.size, values.size)
    votes[:, values == 0] = 0
    winners = np.where(votes.any(axis=1) & (ids != 0), values[votes.argmax(axis=1)], 0).astype(votes_yx.dtype)
    return np.asarray(winners[objects_yx.reshape(ids_yx.shape)])
