"""Classes of objects as they are stored: an image of classes with the size and the name of the image of ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.errors import InputError, shorten_list
from septa.images import RawLabels, read_labels
from septa.labels.codes import look_up

_LARGEST = 255
"""Largest value of a class."""


@dataclass(frozen=True)
class RawObjectLabels(RawLabels):
    """Object ids as stored, with the class of each object.

    Attributes
    ----------
    classes_yx
        Integers ``YX``: at all pixels of an object the value that most of them have in the image of classes; 0 if
        none of them has a class.
    """

    classes_yx: npt.NDArray[Any]


def read_object_classes(raw: RawLabels, path: Path, page: int, max_pixels: int) -> RawObjectLabels:
    """Read the classes of objects.

    Parameters
    ----------
    raw
        The object ids.
    path, page, max_pixels
        Image of classes, as for `septa.images.read_labels`.

    Raises
    ------
    InputError
        The file cannot be read, does not hold classes, or has another size than the ids.
    """
    classes = read_labels(path, page, max_pixels=max_pixels)
    if raw.kind != "index" or classes.kind != "index":
        problem = "the classes of objects need one object id and one class per pixel"
        raise InputError(path, problem, "Save labels and classes as grey images")
    if classes.array.shape != raw.array.shape:
        sizes = "{} x {} pixels, but the labels have {} x {}".format(*classes.array.shape, *raw.array.shape)
        raise InputError(path, f"the image of classes has {sizes}", "Save both at one size")
    values = np.unique(classes.array)
    if values.size and not 0 <= values[0] <= values[-1] <= _LARGEST:
        problem = f"the image of classes holds values from {values[0]} to {values[-1]}, expected 1 to {_LARGEST}"
        raise InputError(path, problem, "Write the number of its class at each pixel of an object")
    return RawObjectLabels(raw.array, raw.kind, raw.palette, find_majority_classes(raw.array, classes.array))


def encode_classes(
    raw: RawLabels, labels_yx: npt.NDArray[np.int32], values: Sequence[int], where: str
) -> npt.NDArray[np.int32]:
    """Replace the 1 at the pixels of each object by the place of its class among ``values``.

    Parameters
    ----------
    raw
        Labels with classes.
    labels_yx
        int32 ``YX``, 1 in objects; other values stay.
    values
        Raw value of each class, background first.
    where
        Path of the labels, for errors.

    Raises
    ------
    InputError
        The labels have no classes, or an object has none or an unknown one.
    """
    if not isinstance(raw, RawObjectLabels):
        remedy = "Put an image of classes with the same name into a folder classes/ next to labels/"
        raise InputError(where, "the objects of this image have no classes", remedy)
    inside_yx = labels_yx == 1
    without = np.unique(raw.array[inside_yx & (raw.classes_yx == 0)])
    if without.size:
        problem = f"these objects have no class: {shorten_list(map(str, without.tolist()))}"
        raise InputError(where, problem, "Give each object a class in classes/, or remove it from the labels")
    classes_yx = look_up(np.where(inside_yx, raw.classes_yx, 0), values, None, where, "index")
    return np.where(inside_yx, classes_yx, labels_yx)


def list_classes(raw: RawLabels) -> set[int]:
    """Return the values of the classes that objects have; empty if the labels have no classes."""
    return set(np.unique(raw.classes_yx).tolist()) - {0} if isinstance(raw, RawObjectLabels) else set()


def refuse_classes(classes: set[int], kind: str) -> None:
    """Raise InputError if there are classes of objects but the labels of this kind are not object ids."""
    if classes and kind != "instances":
        problem = f"the labels are {kind} labels, but the folder of classes next to them needs object ids"
        raise InputError("labels", problem, "Leave data.encoding and data.values out, or move the classes away")


def find_majority_classes(ids_yx: npt.NDArray[Any], votes_yx: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give all pixels of an object the value that most of them have, not counting 0.

    Parameters
    ----------
    ids_yx
        Object ids, integers ``YX``; 0 is background.
    votes_yx
        Value of each pixel, integers ``YX``.

    Returns
    -------
    ndarray
        ``YX`` in the dtype of ``votes_yx``: the value of each object, the lowest of several that are equally frequent.
        0 in the background and in objects without a value.

    Examples
    --------
    >>> find_majority_classes(np.array([[7, 7, 7, 7, 0, 9]]), np.array([[5, 4, 5, 0, 4, 0]]))
    array([[5, 5, 5, 5, 0, 0]])
    """
    ids, objects_yx = np.unique(ids_yx, return_inverse=True)
    values, choices_yx = np.unique(votes_yx, return_inverse=True)
    both = objects_yx.ravel() * values.size + choices_yx.ravel()
    votes = np.bincount(both, minlength=ids.size * values.size).reshape(ids.size, values.size)
    votes[:, values == 0] = 0
    winners = np.where(votes.any(axis=1) & (ids != 0), values[votes.argmax(axis=1)], 0).astype(votes_yx.dtype)
    return np.asarray(winners[objects_yx.reshape(ids_yx.shape)])
