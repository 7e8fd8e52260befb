"""Objects whose classes are names, as outlines have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from septa.errors import InputError, format_count, shorten_list
from septa.images import RawLabels
from septa.recipe import IGNORE, DataSettings


@dataclass
class NamedObjects:
    """Classes of the objects of many files.

    Attributes
    ----------
    names
        First file with each name of a class.
    unnamed
        First file with objects without a class, and their number; None if there is none.
    first
        First file; None if there is none.
    ignored
        True if a file has ignored regions.
    """

    names: dict[str, str] = field(default_factory=dict)
    unnamed: tuple[str, int] | None = None
    first: str | None = None
    ignored: bool = False

    def add(self, where: str, raw: RawLabels) -> None:
        """Count the objects of a file."""
        self.first = self.first or where
        self.ignored = self.ignored or bool((raw.array == IGNORE).any())
        objects = raw.objects or ()
        for name in objects:
            if name:
                self.names.setdefault(name, where)
        if "" in objects and self.unnamed is None:
            self.unnamed = where, objects.count("")

    def choose_class_names(self, data: DataSettings) -> tuple[str, ...]:
        """Return the names of all classes, background first.

        Names of the settings must be those of the files. If they are two, all objects are of the second.

        Raises
        ------
        InputError
            The settings do not fit outlines, or only some objects have a class.
        """
        if data.encoding not in ("auto", "instances"):
            problem = f"the labels are outlines of objects, but data.encoding is {data.encoding}"
            remedy = "Leave it out; --task semantic reads the classes of outlines as classes of pixels"
            raise InputError(self.first or "labels", problem, remedy)
        if data.values is not None:
            remedy = "Leave data.values out, and name the classes in data.class_names"
            raise InputError("data.values", "the labels are outlines, whose classes are names", remedy)
        if data.ignore_label not in (None, IGNORE):
            remedy = "Leave it out: regions that the drawing program marks as ignored are ignored"
            problem = f"the labels are outlines, in which the value {data.ignore_label} marks nothing"
            raise InputError("data.ignore_label", problem, remedy)
        given = data.class_names
        if given is not None and len(given) == 2:
            return tuple(given)
        if self.unnamed is not None and (self.names or given):
            where, count = self.unnamed
            problem = f"{format_count(count, 'outline')} of this file have no class, but others have one"
            remedy = "Give each outline a class, or set data.class_names=[background,object] to read all as one class"
            raise InputError(where, problem, remedy)
        strays = [name for name in self.names if given is not None and name not in given[1:]]
        if strays:
            problem = f"the outlines have the class '{strays[0]}', which data.class_names lacks"
            raise InputError(self.names[strays[0]], problem, "Add it, or rename it in the outlines")
        return tuple(given) if given is not None else ("background", *(sorted(self.names) or ["object"]))


def encode_named_objects(raw: RawLabels, names: Sequence[str], where: str) -> npt.NDArray[np.int32]:
    """Return the place of each object's class among some names.

    Parameters
    ----------
    raw
        Labels with class names.
    names
        Names of the classes, without background. If there is one, all objects are of this class.
    where
        File, for errors.

    Returns
    -------
    ndarray
        int32 ``YX``: from 1 in objects, 0 in the background, `IGNORE` in ignored pixels.

    Raises
    ------
    InputError
        An object has no class or an unknown one.
    """
    objects = raw.objects or ()
    places = {name: place for place, name in enumerate(names, start=1)}
    strays = [name for name in objects if name not in places]
    if strays and len(names) > 1:
        problem = f"the outlines have the class '{strays[0]}'" if strays[0] else "some outlines have no class"
        remedy = "Give each outline one of these classes, or remove it"
        raise InputError(where, f"{problem}, expected {shorten_list(names)}", remedy)
    # The last entry is the one of index -1, which is IGNORE.
    table = [0, *(places.get(name, 1) for name in objects), IGNORE]
    return np.asarray(np.array(table, np.int32)[raw.array])
