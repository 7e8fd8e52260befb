"""What the values of label images mean: found in the labels, told in one line, applied to each of them.

Encoded labels are always ``int32`` with axes YX: the class index, or for overlapping classes a bit field
(bit k = class k); pixels to leave out hold `IGNORE`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    color_of,
    default_names,
    encode_instances,
    encode_planes,
    is_color,
    joined,
    look_up,
    number_of,
    object_ids,
    plane_count,
    show_values,
    smallest,
)
from septa.labels.components import label_components
from septa.labels.object_labels import ObjectLabels
from septa.labels.raw_classes import encode_classes, known_classes, refuse_classes
from septa.labels.survey import (
    Survey,
    ValueCount,
    refuse_negative,
    refuse_noise,
    refuse_rare,
    refuse_strays,
    refuse_undeclared_ignore,
    refuse_value,
)
from septa.recipe import IGNORE, DataSettings

__all__ = ["IGNORE", "LabelMapping", "find_mapping"]

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


def find_mapping(raws: Iterable[tuple[str, RawLabels]], data: DataSettings) -> LabelMapping:
    """Find out what the label values mean, reading every label image once.

    Parameters
    ----------
    raws
        Path (for errors) and content of each label image; consumed one at a time.
    data
        Settings that go before what is found: ``encoding``, ``values``, ``class_names`` and ``ignore_label``.

    Returns
    -------
    LabelMapping
        Without settings: planes are ``multilabel``, RGB (or palettes that differ) is ``color``; one-channel labels
        are ``instances`` if `septa.labels.survey.Survey.are_instances` holds, else ``binary`` for two values and
        ``index`` for more.

    Raises
    ------
    InputError
        If values are the marks of resizing or JPEG, belong to no class, are more than 254, or if label images
        are of different kinds.

    Examples
    --------
    >>> raw = RawLabels(np.array([[0, 255]], np.uint8), "index", None)
    >>> find_mapping([("x.png", raw)], DataSettings()).kind
    'binary'
    """
    survey, planes = Survey(data.ignore_label), 0
    of_objects: set[int] = set()
    for name, raw in raws:
        survey.add(name, raw)
        of_objects |= known_classes(raw)
        if raw.kind == "channels" or data.encoding == "multilabel":
            planes = planes or plane_count(raw)
            encode_planes(raw, name, planes or 1, data.ignore_label)
    if not survey.images:
        raise InputError("labels", "there is no label image", "give label images beside the images")
    kind = "instances" if of_objects and (data.encoding, data.values) == ("auto", None) else _kind(survey, data)
    refuse_classes(of_objects, kind)
    survey.refuse_mixture(kind)
    if kind == "multilabel":
        names = data.class_names or tuple(f"class {k + 1}" for k in range(planes))
        return _build(kind, names, (), data, planes)
    if kind == "instances":
        refuse_negative(survey.index)
        if len(of_objects) > 1:
            known = (0, *sorted(of_objects))
            return _build(kind, data.class_names or default_names(kind, known), known, data, len(known))
        return _build(kind, data.class_names or ("background", "object"), (0,), data, 2)
    table = survey.colors if kind == "color" else survey.index
    numbers = _class_values(table, kind, data)
    values = tuple(color_of(number) for number in numbers) if kind == "color" else tuple(numbers)
    return _build(kind, data.class_names or default_names(kind, values), values, data, len(values))


def _kind(survey: Survey, data: DataSettings) -> Kind:
    if data.encoding != "auto":
        return data.encoding
    if data.values:
        if any(isinstance(value, tuple) for value in data.values):
            return "color"
        return "binary" if len(data.values) == 2 else "index"
    if "channels" in survey.names:
        return "multilabel"
    if "rgb" in survey.names or survey.palettes_differ:
        return "color"
    if survey.are_instances():
        return "instances"
    return "binary" if len(survey.index) == 2 else "index"


def _class_values(table: Mapping[int, ValueCount], kind: Kind, data: DataSettings) -> list[int]:
    """Raw value (colours as 0xRRGGBB) of class 0, 1, ..."""
    if data.values:
        if any(isinstance(value, tuple) != (kind == "color") for value in data.values):
            raise InputError("data.values", f"does not suit {kind} labels", "give integers, or RGB colours for color")
        given = [number_of(value) for value in data.values]
        refuse_strays(table, given, kind)
        return given
    found = sorted(table)
    if len(found) < 2:
        held = f"every label image holds only the value {show_values(found, kind)}"
        remedy = "give labels with background and at least one other class"
        raise InputError("labels", held if found else "all pixels are ignored", remedy)
    if kind == "index":
        refuse_undeclared_ignore(table)
    refuse_noise(table, kind)
    refuse_negative(table)
    if len(found) > MAX_CLASSES:
        remedy = "set data.encoding=instances if each value is one object, else give data.values"
        refuse_value(table, found[-1], f"{len(found)} label values were found, more than {MAX_CLASSES} classes", remedy)
    refuse_rare(table, kind)
    names = len(data.class_names or ())
    if kind == "index" and len(found) < names and found[0] >= 0 and found[-1] < names:
        return list(range(names))
    if kind == "binary" and len(found) > 2:
        problem = f"{len(found)} label values were found ({show_values(found)}), and binary labels have two"
        refuse_value(table, found[2], problem, "set data.encoding=instances or index, or correct the labels")
    if kind == "color" and 0 not in table:
        # Without black the colour that covers most is the likeliest background; describe() tells.
        found.sort(key=lambda value: -table[value].pixels)
        found = [found[0], *sorted(found[1:])]
    return found


def _build(
    kind: Kind, names: tuple[str, ...], values: tuple[int | Color, ...], data: DataSettings, count: int
) -> LabelMapping:
    if len(names) != count:
        problem = f"has {len(names)} names for {count} classes"
        raise InputError("data.class_names", problem, f"give {count} names, class 0 first")
    try:
        return LabelMapping(kind, names, values, data.ignore_label)
    except ValueError as error:
        raise InputError("data", str(error), "correct data.values, data.class_names or data.ignore_label") from None


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
