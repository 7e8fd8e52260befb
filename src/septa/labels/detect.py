"""The meaning of label values, found in the label images of a dataset."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from septa.errors import InputError, format_count
from septa.images import RawLabels
from septa.labels.codes import Color, count_planes, encode_planes, name_classes, show_values, to_color, to_number
from septa.labels.faults import (
    find_noise,
    refuse_negative,
    refuse_noise,
    refuse_rare,
    refuse_strays,
    refuse_undeclared_ignore,
    refuse_value,
)
from septa.labels.mapping import MAX_CLASSES, Kind, LabelMapping
from septa.labels.raw_classes import list_classes, refuse_classes
from septa.labels.survey import Survey
from septa.notices import Notices
from septa.recipe import IGNORE, DataSettings

_WHERE = "labels"
"""Place that messages about all label images name."""


class _Meaning(NamedTuple):
    """Kind of labels; ``by_color`` is True if colours separate objects."""

    kind: Kind
    by_color: bool = False


def find_mapping(
    raws: Iterable[tuple[str, RawLabels]],
    data: DataSettings,
    *,
    objects: bool = False,
    notices: Notices | None = None,
) -> LabelMapping:
    """Infer the meaning of label values; every label image is read once.

    Parameters
    ----------
    raws
        Path (for errors) and content of each label image; consumed one at a time.
    data
        Settings that take precedence: ``encoding``, ``values``, ``class_names`` and ``ignore_label``.
    objects
        True if the task finds objects: labels then number objects unless the evidence is against it, even if all label
        images are empty.
    notices
        Receives what was assumed, and a warning where the evidence is thin.

    Returns
    -------
    LabelMapping
        Without settings, several planes are ``multilabel``. Labels with classes of objects, and values or colours that
        `weigh_evidence` takes for numbers of objects, are ``instances``. Other RGB images, or palettes that differ, are
        ``color``. Other one-channel labels are ``binary`` with two values and ``index`` with more.

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
    notices = Notices() if notices is None else notices
    survey = Survey(data.ignore_label)
    planes = 0
    of_objects: set[int] = set()
    for name, raw in raws:
        survey.add(name, raw)
        of_objects |= list_classes(raw)
        if raw.objects is not None:
            continue
        if raw.kind == "channels" or data.encoding == "multilabel":
            planes = planes or count_planes(raw)
            encode_planes(raw, name, planes or 1, data.ignore_label)
    if not survey.images:
        raise InputError(_WHERE, "there is no label image", "Put label images next to the images")
    if survey.named.first is not None:
        return _map_named(survey, data, of_objects, notices)
    if of_objects and (data.encoding, data.values) == ("auto", None):
        kind, by_color = _Meaning("instances")
    else:
        kind, by_color = _find_meaning(survey, data, objects, notices)
    refuse_classes(of_objects, kind)
    survey.refuse_mixture(kind)
    if kind == "multilabel":
        names = data.class_names or tuple(f"class {k + 1}" for k in range(planes))
        return _build_mapping(kind, names, (), data, planes)
    if kind == "instances":
        lowest = survey.find_background_value()
        if lowest < 0 and not of_objects and not by_color:
            text = f"no label image holds 0, and septa takes {lowest} as background"
            notices.add(_WHERE, text, f"Set data.ignore_label={lowest} if it marks pixels to ignore")
            return _build_mapping(kind, data.class_names or ("background", "object"), (lowest,), data, 2)
        refuse_negative(survey.index)
        if len(of_objects) > 1:
            known = (0, *sorted(of_objects))
            return _build_mapping(kind, data.class_names or name_classes(kind, known), known, data, len(known))
        background = to_color(survey.find_background()) if by_color else 0
        return _build_mapping(kind, data.class_names or ("background", "object"), (background,), data, 2)
    if kind == "binary" and (merged := _merge_masks(survey, data, notices)):
        return _build_mapping(kind, data.class_names or name_classes(kind, merged), merged, data, 2)
    numbers = _find_class_values(survey, kind, data)
    _warn_background(numbers, kind, data, notices)
    values = tuple(to_color(number) for number in numbers) if kind == "color" else tuple(numbers)
    return _build_mapping(kind, data.class_names or name_classes(kind, values), values, data, len(values))


def _map_named(survey: Survey, data: DataSettings, of_objects: set[int], notices: Notices) -> LabelMapping:
    """Return the mapping of outlines, whose classes are names, and of label images that number objects beside them."""
    names = survey.named.choose_class_names(data)
    survey.refuse_mixture("instances")
    if survey.names and (of_objects or len(names) > 2 or "rgb" in survey.names):
        where = next(iter(survey.names.values()))
        problem = "the labels are an image, but those of other images are outlines with classes or without colours"
        raise InputError(where, problem, "Save all labels in one way")
    if survey.names:
        text = "some labels are outlines, and septa reads the values of the others as object numbers"
        notices.add(_WHERE, text, "Save all labels in one way if they are not", warning=True)
    if survey.named.ignored:
        data = data.model_copy(update={"ignore_label": IGNORE})
    values = tuple(range(len(names))) if len(names) > 2 else (0,)
    return _build_mapping("instances", names, values, data, len(names))


def _find_meaning(survey: Survey, data: DataSettings, objects: bool, notices: Notices) -> _Meaning:
    in_color = "rgb" in survey.names
    if data.encoding == "instances":
        _warn_objects(survey, in_color, notices)
        return _Meaning("instances", in_color)
    if data.encoding != "auto":
        return _Meaning(data.encoding)
    if data.values:
        if any(isinstance(value, tuple) for value in data.values):
            return _Meaning("color")
        return _Meaning("binary" if len(data.values) == 2 else "index")
    if "channels" in survey.names:
        return _Meaning("multilabel")
    if not in_color and survey.palettes_differ:
        return _read_palettes(survey, objects, notices)
    if survey.find_mixed_masks() and len(data.class_names or "12") == 2:
        return _Meaning("binary")
    if _number_objects(survey, in_color, objects, notices):
        return _Meaning("instances", in_color)
    if in_color:
        return _Meaning("color")
    return _Meaning("binary" if len(survey.index) == 2 else "index")


def _number_objects(survey: Survey, by_color: bool, objects: bool, notices: Notices) -> bool:
    """Return True if values, or colours, number objects; warn if that is not certain."""
    table = survey.colors if by_color else survey.index
    void = None if by_color else survey.find_void()
    evidence = survey.weigh_objects(by_color=by_color, void=void)
    if objects and (evidence.whole or set(survey.index) == {0}):
        return True
    if evidence.objects and not evidence.certain and find_noise(table, "color" if by_color else "index"):
        return False
    if evidence.objects and void is not None:
        problem = f"the value {void} occurs in addition to object numbers up to {sorted(survey.index)[-2]}"
        remedy = f"Set data.ignore_label={void} if it marks pixels to ignore, else data.encoding=instances"
        refuse_value(survey.index, void, problem, remedy)
    classes = "color" if by_color else "index"
    thing = "colour" if by_color else "value"
    if not evidence.certain:
        text = f"each {thing} is one connected region in each image, and septa reads it as "
        text += "the number of an object" if evidence.objects else "a class"
        remedy = (
            f"Set data.encoding=instances if each {thing} is one object, or data.encoding={classes} if it is a class"
        )
        notices.add(_WHERE, text, remedy, warning=True)
    elif not evidence.objects and by_color and survey.has_single_channel:
        text = "the colours differ in one channel only, which may hold classes or object numbers; septa reads classes"
        remedy = "Set data.encoding=instances if each connected region of one colour is an object, else color"
        notices.add(_WHERE, text, remedy, warning=True)
    return evidence.objects


def _read_palettes(survey: Survey, objects: bool, notices: Notices) -> _Meaning:
    """Return the meaning of palette images whose indices stand for different colours."""
    by_index, by_color = (survey.weigh_objects(by_color=flag) for flag in (False, True))
    text = "the colours of a palette index differ between label images, and septa reads "
    if by_index.objects and (objects or by_color.objects):
        if not (by_index.certain and by_color.certain):
            remedy = "Set data.encoding=color if each colour is a class, or instances to confirm this"
            notices.add(_WHERE, f"{text}the indices as object numbers", remedy, warning=True)
        return _Meaning("instances")
    if survey.colors_recur or len(survey.index) < 2:
        notices.add(_WHERE, f"{text}the colours", "Set data.encoding=index to read the indices")
        return _Meaning("color")
    notices.add(_WHERE, f"{text}the indices", "Set data.encoding=color to read the colours", warning=True)
    return _Meaning("binary" if len(survey.index) == 2 else "index")


def _warn_objects(survey: Survey, by_color: bool, notices: Notices) -> None:
    """Warn of values that are likely not numbers of objects, although the user says so."""
    if by_color:
        noise = find_noise(survey.colors, "color")
        if noise is not None:
            remedy = "Export the labels again without smoothing"
            notices.add(noise.first, f"{noise.problem}; each of their regions becomes an object", remedy, warning=True)
        return
    void = survey.find_void()
    if void is not None and survey.index[void].images > 1:
        text = f"the value {void} is read as an object"
        notices.add(_WHERE, text, f"Set data.ignore_label={void} if it marks pixels to ignore", warning=True)


def _merge_masks(survey: Survey, data: DataSettings, notices: Notices) -> tuple[int, int] | None:
    """Return the values of masks whose foreground value differs between files; None for other labels."""
    masks = survey.find_mixed_masks()
    listed = [value for value in masks if value in (data.values or ())]
    if not masks or len(listed) > 1 or (data.values and (data.values[0] != 0 or not listed)):
        return None
    foreground = listed[0] if listed else max(masks, key=lambda value: (len(masks[value]), value))
    shares = ", others ".join(f"0 and {value} ({format_count(len(masks[value]), 'file')})" for value in sorted(masks))
    every = ",".join(map(str, [0, *sorted(masks)]))
    remedy = f"Set data.values=[{every}] if these are classes, or data.ignore_label if one marks pixels to ignore"
    notices.add(_WHERE, f"some masks hold {shares}, and septa reads both as foreground", remedy)
    return 0, foreground


def _warn_background(numbers: list[int], kind: Kind, data: DataSettings, notices: Notices) -> None:
    """Warn if no label image holds 0, so that another value is taken as background."""
    if numbers[0] == 0 or data.values or data.class_names:
        return
    zero, lowest = show_values([0], kind), show_values(numbers[:1], kind)
    text = f"no label image holds {zero}, and septa takes {lowest} as background"
    if kind == "color":
        remedy = "Set data.values to all colours, the background first"
    else:
        shown = ",".join(map(str, numbers))
        remedy = f"Set data.values=[0,{shown}] if 0 is the background, or data.values=[{shown}] to confirm this"
    notices.add(_WHERE, text, remedy, warning=True)


def _find_class_values(survey: Survey, kind: Kind, data: DataSettings) -> list[int]:
    """Return the raw value of each class, colours as 0xRRGGBB; class 0 is first."""
    table = survey.colors if kind == "color" else survey.index
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
        refuse_undeclared_ignore(survey)
    refuse_noise(table, kind)
    refuse_negative(table)
    if len(found) > MAX_CLASSES:
        problem = f"the labels hold {len(found)} different values, and at most {MAX_CLASSES} classes are possible"
        remedy = "Set data.encoding=instances if each value is one object, else give data.values"
        refuse_value(table, found[-1], problem, remedy)
    refuse_rare(table, kind)
    names = len(data.class_names or ())
    if kind == "index" and len(found) < names and found[-1] < names:
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
