"""Runs of equal pixels within rows: what the measurements of objects are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of equal pixels within rows, in raster order, including background.

    Attributes
    ----------
    starts, lengths
        Flat index of the first pixel, and number of pixels, of each run.
    ids
        Ids of the objects, ascending.
    objects
        Index into ``ids`` for each run; -1 for background, -2 for pixels below 0.
    """

    starts: Integers
    lengths: Integers
    ids: Integers
    objects: Integers

    @cached_property
    def inside(self) -> npt.NDArray[np.bool_]:
        """True for the runs of objects."""
        return self.objects >= 0

    @cached_property
    def areas(self) -> Reals:
        """Number of pixels of each object."""
        return self.sums(self.lengths[self.inside])

    def draw(self, height: int, width: int) -> npt.NDArray[np.int32]:
        """Return an image of the size of the labels with the index of each pixel's object; negative elsewhere."""
        return np.repeat(self.objects.astype(np.int32), self.lengths).reshape(height, width)

    def sums(self, values: Array) -> Reals:
        """Sum values, one per run of an object, over each object. Exact for integers below 2**53."""
        return np.bincount(self.objects[self.inside], values, self.ids.size).astype(np.float64)

    def totals(self, flat: Array) -> Reals:
        """Sum values, one per pixel, over each object."""
        return self.sums(np.add.reduceat(flat, self.starts, dtype=np.float64)[self.inside])


def check_arrays(labels_yx: Array, image_cyx: Array | None = None, class_yx: Array | None = None) -> None:
    """Refuse arrays of wrong sizes and dtypes with a ValueError; see `septa.objects.measure_objects`."""
    if labels_yx.ndim != 2 or labels_yx.dtype.kind not in "bui":
        raise ValueError(f"labels must be YX and hold integers, got {labels_yx.shape} of {labels_yx.dtype}")
    if labels_yx.dtype == np.uint64 and labels_yx.max(initial=0) >= 1 << 63:
        raise ValueError(f"labels hold the id {labels_yx.max()}, expected at most 2**63 - 1")
    size = f"of the labels' size {labels_yx.shape}, got"
    if image_cyx is not None and (image_cyx.shape[1:] != labels_yx.shape or image_cyx.dtype.kind not in "buif"):
        raise ValueError(f"the image must be CYX and real, {size} {image_cyx.shape} of {image_cyx.dtype}")
    if class_yx is not None and (class_yx.shape != labels_yx.shape or class_yx.dtype.kind not in "bui"):
        raise ValueError(f"classes must be YX and integers, {size} {class_yx.shape} of {class_yx.dtype}")


def find_runs(labels_yx: Array, class_yx: Array | None = None) -> Runs:
    """Find the runs in which neither the id nor the class changes."""
    changes_yx = np.zeros(labels_yx.shape, bool)
    changes_yx[:, :1] = True
    for array_yx in (labels_yx, *(() if class_yx is None else (class_yx,))):
        changes_yx[:, 1:] |= array_yx[:, 1:] != array_yx[:, :-1]
    starts = np.flatnonzero(changes_yx)
    values = labels_yx[np.unravel_index(starts, labels_yx.shape)].astype(np.int64)
    objects = np.where(values < 0, -2, -1)
    ids, objects[values > 0] = np.unique(values[values > 0], return_inverse=True)
    return Runs(starts, np.diff(starts, append=labels_yx.size), ids, objects)
