"""What the values of label images mean: found in the labels, told in one line, applied to each of them.

Encoded labels are always ``int32`` with axes YX: the class index, or for overlapping classes a bit field
(bit k = class k); pixels to leave out hold `IGNORE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from septa.errors import InputError
from septa.images import RawLabels
from septa.labels.codes import (
    MAX_PLANES,
    Color,
    as_numbers,
    encode_instances,
    encode_planes,
    is_color,
    joined,
    look_up,
    number_of,
    object_ids,
    show_values,
    smallest,
)
from septa.labels.components import label_components
from septa.labels.object_labels import ObjectLabels
from septa.labels.raw_classes import encode_classes
from septa.recipe import IGNORE

MAX_CLASSES = 254
"""Most classes of one mapping, so that class index and ignore value fit 8 bits."""

Kind = Literal["binary", "index", "color", "instances", "multilabel"]


@dataclass(frozen=True)
class LabelMapping:
    """How raw label values become classes and back.

    Attributes
    ----------
    kind
        ``binary``: any two values. ``index``: one value per class. ``color``: one RGB colour per class.
        ``instances``: 0 is background, each other value one object. ``multilabel``: one plane per class.
    class_names
        Class 0 (background) first; for ``multilabel`` one name per bit and no background.
    values
        Raw value or RGB colour of each class; empty for ``multilabel``. For ``instances`` ``(0,)``, or, where objects
        have classes, 0 and the value of each class.
    ignore
        Raw value whose pixels count in no loss and no metric; for ``color`` the number 0xRRGGBB.

    Raises
    ------
    ValueError
        If the parts do not fit together.

    Examples
    --------
    >>> mapping = LabelMapping("binary", ("background", "foreground"), (0, 255))
    >>> mapping.encode(RawLabels(np.array([[0, 255]], np.uint8), "index", None), "x.png")
    array([[0, 1]], dtype=int32)
    >>> mapping.describe()
    'labels: {0, 255} are background and foreground'
    """

    kind: Kind
    class_names: tuple[str, ...]
    values: tuple[int | Color, ...]
    ignore: int | None = None

    def __post_init__(self) -> None:
        problem = _misfit(self)
        if problem:
            raise ValueError(f"label mapping: {problem}")

    @property
    def classes(self) -> int:
        """Number of outputs of a net for these labels."""
        return len(self.class_names)

    @property
    def task(self) -> Literal["semantic", "instances"]:
        """The task that a recipe's ``auto`` stands for with these labels."""
        return "instances" if self.kind == "instances" else "semantic"

    @property
    def object_classes(self) -> int:
        """Number of classes that objects are told apart by; 1 if they are not."""
        return max(1, len(self.values) - 1) if self.kind == "instances" else 1

    def pixel_names(self, instances: bool) -> tuple[str, ...]:
        """Names of what pixels are scored as: for ``instances`` whose objects have classes, background and object."""
        return (self.class_names[0], "object") if instances and self.classes > 2 else self.class_names

    def encode(self, raw: RawLabels, where: object) -> npt.NDArray[np.int32]:
        """Turn a label image as stored into encoded labels.

        Parameters
        ----------
        raw
            A label image as `septa.images.read.read_labels` returns it.
        where
            What an error names: the path of the label image.

        Returns
        -------
        ndarray
            int32 YX: class index, or bit field for ``multilabel``; 1 for every object of ``instances``, or the index
            of its class; `IGNORE` where the raw value is the ignore value.

        Raises
        ------
        InputError
            If the image is of another kind or holds values that belong to no class.
        """
        if self.kind == "multilabel":
            return encode_planes(raw, str(where), self.classes, self.ignore)
        array = as_numbers(raw, self.kind, str(where))
        if self.kind == "instances":
            labels_yx = encode_instances(array, str(where), self.ignore)
            if self.object_classes == 1:
                return labels_yx
            return encode_classes(raw, labels_yx, [number_of(value) for value in self.values], str(where))
        numbers = [number_of(value) for value in self.values]
        return look_up(array, numbers, self.ignore, str(where), self.kind)

    def objects(self, raw: RawLabels, where: object) -> ObjectLabels:
        """Turn a label image as stored into objects: those of its ids, or the 4-connected regions of its classes.

        Returns
        -------
        ObjectLabels
            Ids as stored, with `IGNORE` where the raw value is the ignore value. Where objects have classes, ids are
            numbered anew, and the table holds the index of each class in ``class_names``.

        Raises
        ------
        InputError
            As `encode`, and if classes overlap.
        """
        if self.kind == "multilabel":
            remedy = "train with task=semantic, or give one image of object ids"
            raise InputError(str(where), "has one plane for each class, from which objects cannot be told", remedy)
        classes_yx = self.encode(raw, where)
        if self.kind == "instances":
            ids_yx = object_ids(as_numbers(raw, self.kind, str(where)), np.minimum(classes_yx, 1))
            return ObjectLabels(ids_yx) if self.object_classes == 1 else ObjectLabels.from_class_map(ids_yx, classes_yx)
        return ObjectLabels(np.where(classes_yx == IGNORE, IGNORE, label_components(classes_yx)).astype(np.int32))

    def decode(self, labels_yx: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Turn encoded labels into the array to write to disk.

        Parameters
        ----------
        labels_yx
            Integers YX as `encode` returns them.

        Returns
        -------
        ndarray
            ``binary`` and ``index``: YX raw values. ``color``: YX uint8 class index (`IGNORE` becomes 255).
            ``instances``: YX as given. ``multilabel``: KYX, 0 or 1. The smallest dtype that holds all values;
            `IGNORE` becomes the ignore value (in every plane).

        Raises
        ------
        ValueError
            If a label belongs to no class, or is `IGNORE` where the mapping has no ignore value.
        """
        if self.kind == "multilabel":
            return self._decode_planes(labels_yx)
        ignored = labels_yx == IGNORE
        if self.ignore is None and ignored.any():
            raise ValueError("labels hold ignored pixels, and the mapping has no ignore value")
        ignore = 0 if self.ignore is None else self.ignore
        if self.kind == "instances":
            found = np.where(ignored, ignore, labels_yx)
            return found.astype(smallest([int(found.min(initial=0)), int(found.max(initial=0))]))
        if labels_yx.size and not -1 <= int(labels_yx.min()) <= int(labels_yx.max()) < self.classes:
            raise ValueError(f"labels go from {labels_yx.min()} to {labels_yx.max()}, classes from 0 to {self.classes}")
        if self.kind == "color":
            table = [*range(self.classes), 255]
        else:
            table = [*(number_of(value) for value in self.values), ignore]
        # IGNORE is -1 and so picks the last entry.
        decoded: npt.NDArray[Any] = np.array(table, smallest(table))[labels_yx]
        return decoded

    def _decode_planes(self, labels_yx: npt.NDArray[Any]) -> npt.NDArray[Any]:
        ignored = labels_yx == IGNORE
        if self.ignore is None and ignored.any():
            raise ValueError("labels hold ignored pixels, and the mapping has no ignore value")
        bits = np.arange(self.classes).reshape(-1, 1, 1)
        planes = (labels_yx[None] >> bits & 1).astype(smallest([0, 255, self.ignore or 0]))
        planes[:, ignored] = self.ignore or 0
        return planes

    def describe(self) -> str:
        """One printable line that tells what the values were taken to mean."""
        end = "" if self.ignore is None else f"; {show_values([self.ignore], self.kind)} is ignored"
        if self.kind == "instances":
            what = self.class_names[1]
            if self.object_classes > 1:
                shown = show_values([number_of(value) for value in self.values[1:]], most=self.classes)
                what = f"object; {{{shown}}} in classes/ are {joined(self.class_names[1:])}"
            return f"labels: instance ids, 0 is {self.class_names[0]} and every other id one {what}{end}"
        if self.kind == "multilabel":
            return f"labels: {self.classes} planes that may overlap, {joined(self.class_names)}{end}"
        shown = show_values([number_of(value) for value in self.values], self.kind, most=self.classes)
        return f"labels: {{{shown}}} are {joined(self.class_names)}{end}"

    def to_json(self) -> dict[str, Any]:
        """Write as plain JSON values."""
        values = [list(value) if isinstance(value, tuple) else value for value in self.values]
        return {"kind": self.kind, "class_names": list(self.class_names), "values": values, "ignore": self.ignore}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LabelMapping:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            If a part is missing, of another type, or does not fit the others.
        """
        try:
            if not isinstance(values["class_names"], list):
                raise TypeError("class_names is no list")
            raw = tuple(tuple(value) if isinstance(value, list) else value for value in values["values"])
            return cls(values["kind"], tuple(values["class_names"]), raw, values["ignore"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"label mapping: {type(error).__name__} {error}") from None


def _misfit(mapping: LabelMapping) -> str:
    """Why the parts of a mapping do not fit together; empty if they do."""
    names, values = mapping.class_names, mapping.values
    if mapping.kind not in get_args(Kind):
        return f"'{mapping.kind}' is no kind of labels"
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        return "class names must be different, non-empty texts"
    if mapping.ignore is not None and type(mapping.ignore) is not int:
        return "the ignore value must be an integer"
    if mapping.kind == "multilabel":
        fits = not values and 1 <= len(names) <= MAX_PLANES and mapping.ignore not in (0, 1)
    elif mapping.kind == "instances":
        several = 3 <= len(names) == len(values) <= MAX_CLASSES
        fits = values[:1] == (0,) and (several or len(names) == 2 == len(values) + 1)
    else:
        fits = 2 <= len(names) == len(values) <= MAX_CLASSES and (mapping.kind != "binary" or len(names) == 2)
    if not fits:
        return f"{len(names)} names and {len(values)} values do not suit {mapping.kind} labels"
    if not all(is_color(value) if mapping.kind == "color" else type(value) is int for value in values):
        return "each class needs one integer, or an RGB colour of three numbers 0..255 for color labels"
    numbers = [number_of(value) for value in values]
    ids = numbers[:1] if mapping.kind == "instances" else numbers
    if len(set(numbers)) != len(numbers) or mapping.ignore in ids:
        return "two classes, or a class and the ignore value, have the same value"
    return ""
