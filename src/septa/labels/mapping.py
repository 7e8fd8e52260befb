"""Meaning of the values of label images, applied to raw labels and undone for predictions.

Encoded labels are always int32 ``YX``: class indices, or bit fields of overlapping classes (bit k = class k). Ignored
pixels hold `IGNORE`.
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
    encode_object_mask,
    encode_planes,
    extract_ids,
    find_foreground,
    find_smallest_dtype,
    is_color,
    join_names,
    look_up,
    number_colors,
    show_values,
    to_number,
    to_numbers,
)
from septa.labels.components import label_components
from septa.labels.named_objects import encode_named_objects
from septa.labels.object_labels import ObjectLabels
from septa.labels.raw_classes import encode_classes
from septa.recipe import IGNORE

MAX_CLASSES = 254
"""Largest number of classes, so that class indices and the ignore value fit 8 bits."""

Kind = Literal["binary", "index", "color", "instances", "multilabel"]


@dataclass(frozen=True)
class LabelMapping:
    """Mapping between raw label values and classes.

    Attributes
    ----------
    kind
        ``binary``: any two values. ``index``: one value per class. ``color``: one RGB colour per class.
        ``instances``: 0 is background, every other value is one object; of RGB images, every connected region of one
        colour. ``multilabel``: one plane per class.
    class_names
        Name of each class, class 0 (background) first; for ``multilabel`` one name per bit and no background.
    values
        Raw value or RGB colour of each class; empty for ``multilabel``. For ``instances`` the background, 0, -1 or an
        RGB colour, and, if objects have classes, the value of each class.
    ignore
        Raw value whose pixels count in no loss and no metric; for colours the number 0xRRGGBB.

    Raises
    ------
    ValueError
        The parts do not fit together.

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
        """Check that the parts fit together."""
        problem = _find_misfit(self)
        if problem:
            raise ValueError(f"label mapping: {problem}")

    @property
    def classes(self) -> int:
        """Number of classes, background included; for ``multilabel`` the number of planes."""
        return len(self.class_names)

    @property
    def task(self) -> Literal["semantic", "instances"]:
        """Task that ``auto`` in a recipe stands for with these labels."""
        return "instances" if self.kind == "instances" else "semantic"

    @property
    def object_classes(self) -> int:
        """Number of classes of objects, without background; 1 if objects have no classes."""
        return max(1, len(self.values) - 1) if self.kind == "instances" else 1

    @property
    def raw_values(self) -> npt.NDArray[Any]:
        """Raw value of each class in the smallest dtype, colours as 0xRRGGBB; ``multilabel`` has none."""
        values = [to_number(value) for value in self.values]
        return np.array(values, find_smallest_dtype(values))

    def pixel_names(self, instances: bool) -> tuple[str, ...]:
        """Return the names of the classes of pixels.

        Parameters
        ----------
        instances
            True if objects are scored: pixels are then background or object, whatever the classes of objects.
        """
        return (self.class_names[0], "object") if instances and self.classes > 2 else self.class_names

    def encode(self, raw: RawLabels, where: object) -> npt.NDArray[np.int32]:
        """Encode a label image as class indices or bit fields.

        Parameters
        ----------
        raw
            Label image as `septa.images.read_labels` returns it.
        where
            Path of the label image, for errors.

        Returns
        -------
        ndarray
            int32 ``YX``: class index, or bit field for ``multilabel``. For ``instances`` 1 in every object, or the
            index of its class. `IGNORE` where the raw value is the ignore value.

        Raises
        ------
        InputError
            The image is of another kind, or holds values that belong to no class.
        """
        labels_yx = self._encode_values(raw, where)
        return labels_yx if raw.ignored_yx is None else np.where(raw.ignored_yx, np.int32(IGNORE), labels_yx)

    def _encode_values(self, raw: RawLabels, where: object) -> npt.NDArray[np.int32]:
        """Encode the values of a label image, in ignored pixels too."""
        if raw.objects is not None:
            return self._encode_named(raw, str(where))
        if self.kind == "multilabel":
            return encode_planes(raw, str(where), self.classes, self.ignore)
        if self._separates_by_color(raw):
            return np.minimum(self._number_colors(raw, where), 1)
        array = to_numbers(raw, self.kind, str(where))
        if self.kind == "instances":
            if self.values[0] == -1:
                array = np.where(array == -1, 0, array)
            labels_yx = encode_object_mask(array, str(where), self.ignore)
            if self.object_classes == 1:
                return labels_yx
            return encode_classes(raw, labels_yx, [to_number(value) for value in self.values], str(where))
        numbers = [to_number(value) for value in self.values]
        return look_up(array, numbers, self.ignore, str(where), self.kind)

    def _encode_named(self, raw: RawLabels, where: str) -> npt.NDArray[np.int32]:
        """Encode objects whose classes are names; the ignore value is a value of other files."""
        if self.kind != "multilabel":
            return encode_named_objects(raw, self.class_names[1:], where)
        classes_yx = encode_named_objects(raw, self.class_names, where)
        return np.where(classes_yx > 0, 1 << np.maximum(classes_yx - 1, 0), classes_yx).astype(np.int32)

    def read_mask(self, raw: RawLabels) -> int | None:
        """Return the foreground value of a mask that `encode` reads although this mapping has another one, else None.

        Masks are saved with 0 and 1, 0 and 255, or 0 and 65535; any of them fits a mapping with another of these pairs.
        """
        if self.kind != "binary" or raw.kind != "index" or raw.objects is not None:
            return None
        return find_foreground(raw.array, [to_number(value) for value in self.values], self.ignore)

    def _separates_by_color(self, raw: RawLabels) -> bool:
        """Return True if the colours of a label image separate objects."""
        if raw.objects is not None:
            return False
        in_color = raw.kind == "rgb" or (raw.kind == "index" and isinstance(self.values[0], tuple))
        return self.kind == "instances" and self.object_classes == 1 and in_color

    def _number_colors(self, raw: RawLabels, where: object) -> npt.NDArray[np.int32]:
        return number_colors(raw, str(where), to_number(self.values[0]), self.ignore)

    def encode_objects(self, raw: RawLabels, where: object) -> ObjectLabels:
        """Encode a label image as objects: its ids, or the 4-connected regions of its classes.

        Parameters
        ----------
        raw, where
            As for `encode`.

        Returns
        -------
        ObjectLabels
            Ids as stored, with `IGNORE` where the raw value is the ignore value. Colours, and objects with classes, are
            numbered anew; then the table holds the index of each class in ``class_names``.

        Raises
        ------
        InputError
            As for `encode`, and if classes overlap.
        """
        if self.kind == "multilabel":
            problem = "the label image has one plane per class, in which objects may overlap"
            raise InputError(str(where), problem, "Train with task=semantic, or save one image of object ids")
        if self._separates_by_color(raw):
            return ObjectLabels(self._number_colors(raw, where))
        classes_yx = self.encode(raw, where)
        if raw.objects is not None:
            several = self.object_classes > 1
            return ObjectLabels.from_class_map(raw.array, classes_yx) if several else ObjectLabels(raw.array)
        if self.kind == "instances":
            ids_yx = extract_ids(to_numbers(raw, self.kind, str(where)), np.minimum(classes_yx, 1))
            return ObjectLabels(ids_yx) if self.object_classes == 1 else ObjectLabels.from_class_map(ids_yx, classes_yx)
        return ObjectLabels(np.where(classes_yx == IGNORE, IGNORE, label_components(classes_yx)).astype(np.int32))

    def decode(self, labels_yx: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Convert encoded labels to the array that is written to disk.

        Parameters
        ----------
        labels_yx
            Integers ``YX`` as `encode` returns them.

        Returns
        -------
        ndarray
            ``binary`` and ``index``: raw values ``YX``. ``color``: class indices ``YX``, uint8 (`IGNORE` becomes 255).
            ``instances``: the labels, ``YX``. ``multilabel``: ``KYX``, 0 or 1. The dtype is the smallest that holds
            all values; `IGNORE` becomes the ignore value (in every plane).

        Raises
        ------
        ValueError
            A label belongs to no class, or is `IGNORE` although the mapping has no ignore value.
        """
        if self.kind == "multilabel":
            return self._decode_planes(labels_yx)
        ignored = labels_yx == IGNORE
        if self.ignore is None and ignored.any():
            raise ValueError("the labels hold ignored pixels, but the mapping has no ignore value")
        ignore = 0 if self.ignore is None else self.ignore
        if self.kind == "instances":
            found = np.where(ignored, ignore, labels_yx)
            return found.astype(find_smallest_dtype([int(found.min(initial=0)), int(found.max(initial=0))]))
        if labels_yx.size and not -1 <= int(labels_yx.min()) <= int(labels_yx.max()) < self.classes:
            low, high = int(labels_yx.min()), int(labels_yx.max())
            raise ValueError(f"the labels go from {low} to {high}, expected 0 to {self.classes - 1}")
        if self.kind == "color":
            table = [*range(self.classes), 255]
        else:
            table = [*(to_number(value) for value in self.values), ignore]
        # IGNORE is -1, the index of the last entry.
        decoded: npt.NDArray[Any] = np.array(table, find_smallest_dtype(table))[labels_yx]
        return decoded

    def _decode_planes(self, labels_yx: npt.NDArray[Any]) -> npt.NDArray[Any]:
        ignored = labels_yx == IGNORE
        if self.ignore is None and ignored.any():
            raise ValueError("the labels hold ignored pixels, but the mapping has no ignore value")
        bits = np.arange(self.classes).reshape(-1, 1, 1)
        planes = (labels_yx[None] >> bits & 1).astype(find_smallest_dtype([0, 255, self.ignore or 0]))
        planes[:, ignored] = self.ignore or 0
        return planes

    def describe(self) -> str:
        """Return one printable line that says what the values mean."""
        end = "" if self.ignore is None else f"; {show_values([self.ignore], self.kind)} is ignored"
        if self.kind == "instances":
            name = "object" if self.object_classes > 1 else self.class_names[1]
            line = f"labels: instance ids, {self.values[0]} is {self.class_names[0]} and every other id is one {name}"
            if isinstance(self.values[0], tuple):
                background = show_values([to_number(self.values[0])], "color")
                others = "every connected region of another colour"
                line = f"labels: {background} is {self.class_names[0]} and {others} is one {name}"
            if self.object_classes > 1:
                shown = show_values([to_number(value) for value in self.values[1:]], most=self.classes)
                line += f"; their classes {{{shown}}} are {join_names(self.class_names[1:])}"
            return line + end
        if self.kind == "multilabel":
            return f"labels: {self.classes} planes that may overlap, {join_names(self.class_names)}{end}"
        shown = show_values([to_number(value) for value in self.values], self.kind, most=self.classes)
        return f"labels: {{{shown}}} are {join_names(self.class_names)}{end}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = [list(value) if isinstance(value, tuple) else value for value in self.values]
        return {"kind": self.kind, "class_names": list(self.class_names), "values": values, "ignore": self.ignore}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LabelMapping:
        """Build a mapping from the values of `to_json`.

        Raises
        ------
        ValueError
            A part is missing, of another type, or does not fit the others.
        """
        try:
            if not isinstance(values["class_names"], list):
                raise TypeError("class_names must be a list")
            raw = tuple(tuple(value) if isinstance(value, list) else value for value in values["values"])
            return cls(values["kind"], tuple(values["class_names"]), raw, values["ignore"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"label mapping: {type(error).__name__} {error}") from None


def _find_misfit(mapping: LabelMapping) -> str:
    """Return the reason why the parts of a mapping do not fit together; empty if they do."""
    names, values = mapping.class_names, mapping.values
    if mapping.kind not in get_args(Kind):
        return f"'{mapping.kind}' is not a kind of labels"
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        return "the class names must be non-empty and differ from each other"
    if mapping.ignore is not None and not _is_integer(mapping.ignore):
        return "the ignore value must be an integer of at most 64 bits"
    if mapping.kind == "multilabel":
        fits = not values and 1 <= len(names) <= MAX_PLANES and mapping.ignore not in (0, 1)
    elif mapping.kind == "instances":
        several = 3 <= len(names) == len(values) <= MAX_CLASSES
        fits = several or len(names) == 2 == len(values) + 1
        fits = fits and (values[0] == 0 or ((values[0] == -1 or is_color(values[0])) and not several))
    else:
        fits = 2 <= len(names) == len(values) <= MAX_CLASSES and (mapping.kind != "binary" or len(names) == 2)
    if not fits:
        return f"{len(names)} class names and {len(values)} values do not fit {mapping.kind} labels"
    in_color = mapping.kind == "color" or (mapping.kind == "instances" and isinstance(values[0], tuple))
    if not all(is_color(value) if in_color else _is_integer(value) for value in values):
        return "each class needs one integer or, for color labels, one RGB colour of three numbers 0..255"
    numbers = [to_number(value) for value in values]
    ids = numbers[:1] if mapping.kind == "instances" else numbers
    if len(set(numbers)) != len(numbers) or mapping.ignore in ids:
        return "two classes, or a class and the ignore value, share one value"
    return ""


def _is_integer(value: object) -> bool:
    """Return True for an integer that a label image can hold."""
    return type(value) is int and -(2**63) <= value < 2**63
