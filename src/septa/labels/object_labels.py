"""The objects of an image and their classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class ObjectLabels:
    """The objects of an image: an id for each pixel, and a class for each id.

    A class belongs to an object as a whole. Whatever moves pixels, such as cropping, resizing or augmentation, changes
    ``ids_yx`` alone; the table stays valid as long as ids are not renumbered.

    Attributes
    ----------
    ids_yx
        int32 ``YX``: 0 is background, other positive values are one object each, `IGNORE` marks ignored pixels.
    class_of_id
        int32, indexed by id: class of each object from 1, and 0 at index 0 and at ids without an object. None if
        objects have no classes.

    Examples
    --------
    >>> labels = ObjectLabels.from_class_map(np.array([[7, 7, 0, 9]]), np.array([[2, 2, 0, 1]]))
    >>> labels.ids_yx, labels.class_of_id
    (array([[1, 1, 0, 2]], dtype=int32), array([0, 2, 1], dtype=int32))
    >>> labels.class_yx
    array([[2, 2, 0, 1]], dtype=int32)
    """

    ids_yx: Int32
    class_of_id: Int32 | None = None

    @classmethod
    def from_class_map(cls, ids_yx: NDArray[Any], class_yx: NDArray[Any]) -> ObjectLabels:
        """Renumber objects from 1 to n in the order of their ids, and take the class of each from a map.

        The new numbers keep the table short, however large the ids are.

        Parameters
        ----------
        ids_yx
            Object ids, integers ``YX``; values of 0 and below stay as they are.
        class_yx
            Class of each pixel, integers ``YX``, at least 1 and constant inside an object.
        """
        ids, first = np.unique(ids_yx, return_index=True)
        objects = ids > 0
        class_of_id = np.concatenate([[0], class_yx.reshape(-1)[first[objects]]]).astype(np.int32)
        numbers_yx = np.searchsorted(ids[objects], ids_yx) + 1
        return cls(np.where(ids_yx > 0, numbers_yx, ids_yx).astype(np.int32), class_of_id)

    @property
    def class_yx(self) -> Int32:
        """Class of each pixel, int32 ``YX``: 1 in every object if objects have no classes; values up to 0 stay."""
        if self.class_of_id is None:
            return np.minimum(self.ids_yx, 1)
        return np.where(self.ids_yx > 0, self.class_of_id[np.maximum(self.ids_yx, 0)], self.ids_yx)
