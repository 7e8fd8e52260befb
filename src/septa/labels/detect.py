"""The meaning of label values, found in the label images of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from septa.errors import InputError
from septa.images import RawLabels
from septa.labels.codes import Color, color_of, default_names, encode_planes, number_of, plane_count, show_values
from septa.labels.mapping import MAX_CLASSES, Kind, LabelMapping
from septa.labels.raw_classes import known_classes, refuse_classes
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
    >>> import numpy as np
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
