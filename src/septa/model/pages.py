"""The images in what a user gives: one image, a list, a stack with axes of pages, or an array that is read lazily."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from septa.errors import InputError, format_count

_LOG = logging.getLogger("septa")
_FEW = 4
"""Length of an axis up to which it may be channels, so that it is not taken for pages."""


@dataclass(frozen=True)
class StackAxes:
    """The meaning of the axes of an array.

    Attributes
    ----------
    pages
        Axes of pages, in their order; empty for one image.
    image
        Axes of one page in the order C, Y, X, or Y, X.
    """

    pages: tuple[int, ...]
    image: tuple[int, ...]


def is_lazy(images: Any) -> bool:
    """Return True for arrays that are read when they are needed: of dask, or stored ones of zarr."""
    return hasattr(images, "__dask_graph__") or type(images).__module__.partition(".")[0] == "zarr"


def is_path(images: Any) -> bool:
    """Return True for the path of an image file."""
    return isinstance(images, str | PathLike)


def find_stack_axes(shape: tuple[int, ...], channels: int, color: bool, axes: str | None) -> StackAxes:
    """Find the axes of pages, and those of one image.

    Parameters
    ----------
    shape
        Shape of the array.
    channels
        Number of channels of the model.
    color
        True if they are a colour, so that grey images fit too.
    axes
        Letter of each axis: C, Y and X, and any others for pages. If None, the last two or three axes that fit the
        model are an image, and the others are pages.

    Raises
    ------
    InputError
        The letters do not fit, or the axes have several meanings.
    """
    if axes is not None:
        return _read_letters(axes.upper(), shape)
    last = len(shape)
    if last == 2:
        return StackAxes((), (0, 1))
    if last > 2 and shape[-3] == channels:
        return _log(StackAxes(tuple(range(last - 3)), (last - 3, last - 2, last - 1)), shape)
    if last > 2 and shape[-1] == channels:
        return _log(StackAxes(tuple(range(last - 3)), (last - 1, last - 3, last - 2)), shape)
    if last > 2 and shape[-3] == 1:
        return _log(StackAxes(tuple(range(last - 3)), (last - 3, last - 2, last - 1)), shape)
    fits = last > 2 and (channels == 1 or color) and min(shape[-3], shape[-1]) > _FEW
    if not fits:
        problem = f"the axes of an array of shape {shape} have no clear meaning for {format_count(channels, 'channel')}"
        raise InputError("image", problem, "Give axes, such as axes='TYX', or an array YX, CYX or YXC")
    return _log(StackAxes(tuple(range(last - 2)), (last - 2, last - 1)), shape)


def _log(found: StackAxes, shape: tuple[int, ...]) -> StackAxes:
    if found.pages:
        names = dict(zip(found.image[::-1], "XYC"))
        letters = "".join(names.get(axis, "N") for axis in range(len(shape)))
        _LOG.info("the array of shape %s is read as %s, in which N are pages", shape, letters)
    return found


def _read_letters(axes: str, shape: tuple[int, ...]) -> StackAxes:
    problem = ""
    if len(axes) != len(shape):
        problem = f"{axes} names {len(axes)} axes, but the array has {len(shape)}"
    elif len(set(axes)) < len(axes) or not axes.isalpha() or not {"Y", "X"} <= set(axes):
        problem = f"{axes} must have Y and X, and no letter twice"
    if problem:
        raise InputError("axes", problem, "Give one letter for each axis, such as TCYX")
    image = tuple(axes.index(letter) for letter in "CYX" if letter in axes)
    return StackAxes(tuple(axis for axis in range(len(axes)) if axis not in image), image)


def split_stack(array: np.ndarray[Any, Any], found: StackAxes) -> tuple[list[np.ndarray[Any, Any]], tuple[int, ...]]:
    """Return the pages of an array as views ``(C, Y, X)`` or ``(Y, X)``, and the shape of the axes of pages."""
    moved = array.transpose(*found.pages, *found.image)
    leading = moved.shape[: len(found.pages)]
    return [moved[index] for index in np.ndindex(*leading)], leading
