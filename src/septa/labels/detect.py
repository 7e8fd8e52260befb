"""The meaning of label values, found in the label images of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from septa.errors import InputError
from septa.images import RawLabels
from septa.labels.codes import Color, count_planes, encode_planes, name_classes, show_values, to_color, to_number
from septa.labels.mapping import MAX_CLASSES, Kind, LabelMapping
from septa.labels.raw_classes import list_classes, refuse_classes
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
from septa.recipe import DataSettings


def find_mapping(raws: Iterable[tuple[str, RawLabels]], data: DataSettings) -> LabelMapping:
    """Infer the meaning of label values; every label image is read once.

    Parameters
    ----------
    raws
        Path (for errors) and content of each label image; consumed one at a time.
    data
        Settings that take precedence: ``encoding``, ``values``, ``class_names`` and ``ignore_label``.

    Returns
    -------
    LabelMapping
        Without settings, several planes are ``multilabel``, and RGB images, or palettes that differ, are ``color``.
        One-channel labels with classes of objects, or those of which `Survey.are_instances` is True, are ``instances``.
        Others are ``binary`` with two values and ``index`` with more.

    Raises
    ------
    InputError
        There is no label image, or the images are of different kinds. Values are artefacts of resizing or JPEG,
        belong to no class, or are more than 254 classes.

    Examples
    --------
    >>> import numpy as np
    >>> raw = RawLabels(np.array([[0, 255]], np.uint8), "index", None)
    >>> find_mapping([("x.png", raw)], DataSettings()).kind
    'binary'
    """
    survey = Survey(data.ignore_label)
    planes = 0
    of_objects: set[int] = set()
    for name, raw in raws:
        survey.add(name, raw)
        of_objects |= list_classes(raw)
        if raw.kind == "channels" or data.encoding == "multilabel":
            planes = planes or count_planes(raw)
            encode_planes(raw, name, planes or 1, data.ignore_label)
    if not survey.images:
        raise InputError("labels", "there is no label image", "Put label images next to the images")
    kind = "instances" if of_objects and (data.encoding, data.values) == ("auto", None) else _find_kind(survey, data)
    refuse_classes(of_objects, kind)
    survey.refuse_mixture(kind)
    if kind == "multilabel":
        names = data.class_names or tuple(f"class {k + 1}" for k in range(planes))
        return _build_mapping(kind, names, (), data, planes)
    if kind == "instances":
        refuse_negative(survey.index)
        if len(of_objects) > 1:
            known = (0, *sorted(of_objects))
            return _build_mapping(kind, data.class_names or name_classes(kind, known), known, data, len(known))
        return _build_mapping(kind, data.class_names or ("background", "object"), (0,), data, 2)
    table = survey.colors if kind == "color" else survey.index
    numbers = _find_class_values(table, kind, data)
    values = tuple(to_color(number) for number in numbers) if kind == "color" else tuple(numbers)
    return _build_mapping(kind, data.class_names or name_classes(kind, values), values, data, len(values))


def _find_kind(survey: Survey, data: DataSettings) -> Kind:
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


def _find_class_values(table: Mapping[int, ValueCount], kind: Kind, data: DataSettings) -> list[int]:
    """Return the raw value of each class, colours as 0xRRGGBB; class 0 is first."""
    if data.values:
        if any(isinstance(value, tuple) != (kind == "color") for value in data.values):
            problem = f"the values do not fit {kind} labels"
            raise InputError("data.values", problem, "Give integers, or RGB colours for color labels")
        given = [to_number(value) for value in data.values]
        refuse_strays(table, given, kind)
        return given
    found = sorted(table)
    if len(found) < 2:
        problem = f"every label image holds only the value {show_values(found, kind)}"
        remedy = "Give labels with background and at least one other class"
        raise InputError("labels", problem if found else "all pixels are ignored", remedy)
    if kind == "index":
        refuse_undeclared_ignore(table)
    refuse_noise(table, kind)
    refuse_negative(table)
    if len(found) > MAX_CLASSES:
        problem = f"the labels hold {len(found)} different values, and at most {MAX_CLASSES} classes are possible"
        remedy = "Set data.encoding=instances if each value is one object, else give data.values"
        refuse_value(table, found[-1], problem, remedy)
    refuse_rare(table, kind)
    names = len(data.class_names or ())
    if kind == "index" and len(found) < names and found[0] >= 0 and found[-1] < names:
        return list(range(names))
    if kind == "binary" and len(found) > 2:
        problem = f"the labels hold {len(found)} values ({show_values(found)}), but binary labels have two"
        refuse_value(table, found[2], problem, "Set data.encoding to instances or index, or correct the labels")
    if kind == "color" and 0 not in table:
        # Without black, the most frequent colour is the likeliest background; `LabelMapping.describe` shows it.
        found.sort(key=lambda value: -table[value].pixels)
        found = [found[0], *sorted(found[1:])]
    return found


def _build_mapping(
    kind: Kind, names: tuple[str, ...], values: tuple[int | Color, ...], data: DataSettings, count: int
) -> LabelMapping:
    if len(names) != count:
        problem = f"the number of names is {len(names)}, but the labels have {count} classes"
        raise InputError("data.class_names", problem, f"Give {count} names, class 0 first")
    try:
        return LabelMapping(kind, names, values, data.ignore_label)
    except ValueError as error:
        problem = str(error).removeprefix("label mapping: ")
        raise InputError("data", problem, "Correct data.values, data.class_names or data.ignore_label") from None
