"""Counts of label values over many images, taken in one pass with little memory, and faults that they reveal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.errors import InputError, format_count
from septa.images import RawLabels
from septa.labels.codes import RAW_KINDS, pack_colors, show_values

_BLOCK = 1 << 22
"""Number of pixels counted at a time."""

_MIXED = 32
"""Largest distance in RGB of a mixed colour from the line between two colours."""

_COMPONENT_IMAGES = 64
_COMPONENT_SIDE = 2048
"""Connected components, the most expensive count, are taken in the centres of the first images only. That is enough."""

_MOST_COLORS = 4096
_MOST_VALUES = 1_000_000
"""Largest numbers of different colours and values of an image that can still be labels."""


@dataclass
class ValueCount:
    """Occurrences of one raw value.

    Attributes
    ----------
    first
        Path of the first label image that holds it.
    pixels
        Number of pixels that hold it.
    solid
        Number of these pixels that are the centre of a 3 x 3 square of the value; few for artefacts of interpolation.
    images
        Number of label images that hold it.
    """

    first: str
    pixels: int = 0
    solid: int = 0
    images: int = 0


@dataclass
class Survey:
    """Counts of raw values over label images, added one at a time by `add`.

    Attributes
    ----------
    ignore
        Raw value that no count includes; for colours the number 0xRRGGBB.
    images
        Number of label images counted so far.
    names
        Path of the first label image of each kind (``index``, ``rgb``, ``channels``).
    index, colors
        Counts of raw values and of colours (0xRRGGBB). Images with a palette are counted in both.
    palettes_differ
        True if one palette index stands for different colours in different images.
    """

    ignore: int | None
    images: int = 0
    names: dict[str, str] = field(default_factory=dict)
    index: dict[int, ValueCount] = field(default_factory=dict)
    colors: dict[int, ValueCount] = field(default_factory=dict)
    palettes_differ: bool = False
    _palette: dict[int, int] = field(default_factory=dict)
    _true_colors: set[int] = field(default_factory=set)
    _grey: dict[int, str] = field(default_factory=dict)
    _objects: list[int] = field(default_factory=list)
    _numbered: int = 0
    _ids: int = 0
    _whole_ids: int = 0

    def add(self, name: str, raw: RawLabels) -> None:
        """Count the values of one label image; of one with several planes only the kind is noted.

        Raises
        ------
        InputError
            The image holds too many different values to be labels.
        """
        self.images += 1
        self.names.setdefault(raw.kind, name)
        if raw.kind == "channels":
            return
        array = raw.array if raw.kind == "index" else pack_colors(raw.array)
        values, pixels, solid = count_values(array)
        most = _MOST_VALUES if raw.kind == "index" else _MOST_COLORS
        if len(values) > most:
            kind = "values" if raw.kind == "index" else "colours"
            problem = f"the image holds {len(values)} different {kind}, too many for labels"
            raise InputError(name, problem, "Give label images with one value per class")
        if raw.kind == "rgb":
            self._true_colors.update(values.tolist())
            self._merge(self.colors, name, values, pixels, solid)
            return
        self._merge(self.index, name, values, pixels, solid)
        self._merge(self.colors, name, self._count_colors(name, values, raw), pixels, solid)
        self._note_objects(array, values)

    def _merge(self, table: dict[int, ValueCount], name: str, *columns: npt.NDArray[np.int64]) -> None:
        seen = set()
        for value, pixels, solid in zip(*(column.tolist() for column in columns), strict=True):
            if value == self.ignore:
                continue
            count = table.setdefault(value, ValueCount(name))
            count.pixels += pixels
            count.solid += solid
            count.images += value not in seen
            seen.add(value)

    def _count_colors(self, name: str, values: npt.NDArray[np.int64], raw: RawLabels) -> npt.NDArray[np.int64]:
        if raw.palette is None:
            # Values beyond 0..255 are not colours: they become negative numbers, which no RGB image holds.
            colors = np.where((values >= 0) & (values <= 255), values * 0x010101, -1 - np.abs(values))
            for color in colors.tolist():
                self._grey.setdefault(color, name)
            return colors
        colors = pack_colors(raw.palette[np.clip(values, 0, len(raw.palette) - 1)]).astype(np.int64)
        self._true_colors.update(colors.tolist())
        for value, color in zip(values.tolist(), colors.tolist(), strict=True):
            self.palettes_differ |= self._palette.setdefault(value, color) != color
        return colors

    def _note_objects(self, array: npt.NDArray[Any], values: npt.NDArray[np.int64]) -> None:
        ids = values[(values != 0) & (values != self.ignore)]
        if not len(ids):
            return
        self._objects.append(len(ids))
        self._numbered += int(ids[0] == 1 and ids[-1] == len(ids))
        if len(self._objects) <= _COMPONENT_IMAGES:
            components = count_components(_crop_centre(array))
            whole = [count == 1 for value, count in components.items() if value not in (0, self.ignore)]
            self._ids += len(whole)
            self._whole_ids += sum(whole)

    def are_instances(self) -> bool:
        """Return True if the values look like object ids rather than class indices.

        Object ids are mostly one connected component each. In addition, either each image numbers its objects 1 to n
        with varying n, or many ids occur in few images each. More than 254 ids need no further evidence. One to four
        images must hold at least 8 objects in one of them, more images at least 4.
        """
        ids = [value for value in self.index if value != 0]
        images = len(self._objects)
        if len(ids) < 2 or min(ids) < 0 or self._whole_ids < 0.8 * self._ids:
            return False
        if len(ids) > 254:
            return True
        most = max(self._objects)
        if most < (4 if images >= 5 else 8):
            return False
        if images == 1:
            return True
        fullest = sum(count == most for count in self._objects)
        numbered = self._numbered >= 0.9 * images and len(set(self._objects)) > 1 and 2 * fullest <= images
        mean_share = sum(self._objects) / (images * len(ids))
        own_ids = len(ids) >= 32 and mean_share <= max(0.35, 1 / images + 0.05) and self._whole_ids >= 0.9 * self._ids
        return numbered or own_ids

    def refuse_mixture(self, kind: str) -> None:
        """Raise InputError if some label images cannot be read as labels of this kind."""
        remedy = "Save all label images in one way, or set data.encoding to the kind that they are of"
        suited = {"color": ("rgb", "index"), "multilabel": ("channels", "rgb", "index")}.get(kind, ("index",))
        for found, name in self.names.items():
            if found not in suited:
                raise InputError(name, f"the label image holds {RAW_KINDS[found]}, expected {kind} labels", remedy)
        if kind == "color" and min(self._grey, default=0) < 0:
            problem = "the label image holds values beyond 0..255, which stand for no colour"
            raise InputError(self._grey[min(self._grey)], problem, remedy)
        if kind == "color" and self._true_colors:
            for color, name in self._grey.items():
                if color not in self._true_colors and color != self.ignore:
                    problem = "the label image holds grey values that occur in no RGB label image"
                    raise InputError(name, problem, remedy)


def refuse_noise(table: Mapping[int, ValueCount], kind: str) -> None:
    """Raise InputError if some values are artefacts of interpolation or of JPEG.

    Artefacts are many different values. Each is rare, lies between real values and forms no 3 x 3 square, except in a
    few flat JPEG blocks. Never taken for artefacts are class indices 0 to n <= 64 without a gap, indices up to 16 with
    some missing, and colours that are not a mixture of two frequent ones.
    """
    values = sorted(table)
    gapless = values == list(range(len(values))) and len(values) <= 65
    if kind != "color" and values and values[0] >= 0 and (gapless or values[-1] <= 16):
        return
    total = sum(count.pixels for count in table.values())
    artefacts = [value for value in values[1:-1] if _is_artefact(table[value], total)]
    if kind == "color":
        artefacts = _find_mixtures(artefacts, sorted(set(values) - set(artefacts)))
    real = len(values) - len(artefacts)
    many = len(artefacts) >= 8 or len(artefacts) >= max(3, real + 1)
    if not many and not _lie_beside_frequent_values(artefacts, table):
        return
    pixels = sum(table[value].pixels for value in artefacts)
    shown = f"{show_values(artefacts, kind, most=4)}; {pixels / total:.2%} of all pixels"
    raise InputError(
        min((table[value].first for value in artefacts), key=str),
        f"{len(artefacts)} rare values ({shown}) lie between the label values, as after resizing, smoothing or JPEG",
        "Export the labels again (resize with nearest neighbour), or list the real values in data.values, or set "
        "data.encoding=instances if each value is one object",
    )


def refuse_strays(table: Mapping[int, ValueCount], given: Sequence[int], kind: str) -> None:
    """Raise InputError if values occur that are not among those given."""
    strays = sorted(value for value in table if value not in given)
    if strays:
        refuse_noise(table, kind)
        pixels = sum(table[value].pixels for value in strays)
        problem = f"{pixels} pixels hold {show_values(strays, kind)}, which data.values does not list"
        remedy = "Correct the labels, add the values to data.values, or set data.ignore_label"
        refuse_value(table, strays[0], problem, remedy)


def refuse_negative(table: Mapping[int, ValueCount]) -> None:
    """Raise InputError if a value is below 0."""
    lowest = min(table, default=0)
    if lowest < 0:
        remedy = f"Set data.ignore_label={lowest} if it marks pixels to ignore, else correct the labels"
        refuse_value(table, lowest, f"the label image holds the negative value {lowest}", remedy)


def refuse_rare(table: Mapping[int, ValueCount], kind: str) -> None:
    """Raise InputError if a value covers only a few pixels: a slip of the brush, from which nothing can be learnt."""
    total = sum(count.pixels for count in table.values())
    for value, count in table.items():
        if count.pixels <= 8 and count.pixels < 1e-4 * total and not count.solid:
            shown = show_values([value], kind)
            problem = f"the value {shown} covers only {count.pixels} of {total} pixels, which looks like a slip"
            remedy = "Correct these pixels, or list the value in data.values or as data.ignore_label"
            refuse_value(table, value, problem, remedy)


def refuse_undeclared_ignore(table: Mapping[int, ValueCount]) -> None:
    """Raise InputError if 255 (or 65535) occurs with class indices 0 to n: it may be a class or an ignore label."""
    *rest, top = sorted(table)
    if top in (255, 65535) and len(rest) >= 2 and rest == list(range(len(rest))) and rest[-1] < top - 1:
        problem = f"the value {top} occurs in addition to the class indices 0 to {rest[-1]}"
        remedy = f"Set data.ignore_label={top} if it marks pixels to ignore, else list all classes in data.values"
        refuse_value(table, top, problem, remedy)


def refuse_value(table: Mapping[int, ValueCount], value: int, problem: str, remedy: str) -> None:
    """Raise InputError about a value; the error names the first label image that holds it."""
    others = table[value].images - 1
    more = f" (also in {format_count(others, 'more file')})" if others else ""
    raise InputError(table[value].first, problem + more, remedy)


def _is_artefact(count: ValueCount, total: int) -> bool:
    return count.solid <= 0.02 * count.pixels and count.pixels <= 0.1 * total


def _find_mixtures(artefacts: Sequence[int], real: Sequence[int]) -> list[int]:
    """Return the colours (0xRRGGBB) near the straight line between two real colours, where mixtures lie."""
    rgb = np.array([[color >> 16 & 255, color >> 8 & 255, color & 255] for color in real], float).reshape(-1, 3)
    if len(rgb) > 64:
        return list(artefacts)
    starts, ways = rgb[:, None], rgb[None] - rgb[:, None]
    lengths = np.maximum((ways**2).sum(-1), 1e-9)
    mixed = []
    for color in artefacts:
        point = np.array([color >> 16 & 255, color >> 8 & 255, color & 255], float)
        along = np.clip(((point - starts) * ways).sum(-1) / lengths, 0, 1)
        if np.linalg.norm(starts + along[..., None] * ways - point, axis=-1).min() <= _MIXED:
            mixed.append(color)
    return mixed


def _lie_beside_frequent_values(artefacts: Sequence[int], table: Mapping[int, ValueCount]) -> bool:
    """Return True if each value is close to a far more frequent one, as after JPEG of the highest quality."""
    return len(artefacts) >= 2 and all(
        any(table[near].pixels >= 20 * table[value].pixels for near in range(value - 2, value + 3) if near in table)
        for value in artefacts
    )


def count_values(
    array_yx: npt.NDArray[Any],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Count the values of an integer array.

    Parameters
    ----------
    array_yx
        Integers ``YX``.

    Returns
    -------
    values
        The values, int64, ascending.
    pixels
        Number of pixels that hold each value, int64.
    solid
        Number of these pixels that are the centre of a 3 x 3 square of the value, int64.

    Examples
    --------
    >>> count_values(np.array([[0, 0, 0, 7]] * 3))
    (array([0, 7]), array([9, 3]), array([1, 0]))
    """
    height, width = array_yx.shape
    rows = max(1, _BLOCK // max(1, width))
    counts: dict[int, list[int]] = {}
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        whole = array_yx[top:bottom]
        # The squares need one more row on each side; each centre is still counted once.
        squares = array_yx[max(0, top - 1) : bottom + 1]
        for place, flat in enumerate((whole.ravel(), _find_solid_values(squares))):
            values, pixels = _count_runs(flat)
            for value, number in zip(values.tolist(), pixels.tolist(), strict=True):
                counts.setdefault(value, [0, 0])[place] += number
    ordered = sorted(counts)
    columns = np.array([counts[value] for value in ordered], np.int64).reshape(-1, 2)
    return np.array(ordered, np.int64), columns[:, 0].copy(), columns[:, 1].copy()


def _find_solid_values(array_yx: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values of the pixels whose 3 x 3 neighbourhood is uniform."""
    across = array_yx[:, 1:] == array_yx[:, :-1]
    across = across[:, 1:] & across[:, :-1]
    down = array_yx[1:, 1:-1] == array_yx[:-1, 1:-1]
    uniform = across[2:] & across[1:-1] & across[:-2] & down[1:] & down[:-1]
    values: npt.NDArray[Any] = array_yx[1:-1, 1:-1][uniform]
    return values


def _count_runs(flat: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Return what `numpy.unique` returns with counts; fast for labels, which have few runs of equal values."""
    if not flat.size:
        return flat, np.zeros(0, np.int64)
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size)
    values, inverse = np.unique(flat[starts], return_inverse=True)
    return values, np.bincount(inverse, lengths).astype(np.int64)


def count_components(array_yx: npt.NDArray[Any]) -> dict[int, int]:
    """Count the 8-connected components of each value other than 0.

    Examples
    --------
    >>> count_components(np.array([[1, 0, 1], [0, 2, 0]]))
    {1: 2, 2: 1}
    """
    from skimage.measure import label  # takes a fifth of a second, which the use of a model need not spend

    components_yx, number = label(array_yx, background=0, connectivity=2, return_num=True)  # type: ignore[no-untyped-call]
    value_of = np.zeros(number + 1, np.int64)
    value_of[components_yx.ravel()] = array_yx.ravel()
    values, counts = np.unique(value_of[1:], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _crop_centre(array_yx: npt.NDArray[Any]) -> npt.NDArray[Any]:
    top, left = (max(0, size - _COMPONENT_SIDE) // 2 for size in array_yx.shape)
    return array_yx[top : top + _COMPONENT_SIDE, left : left + _COMPONENT_SIDE]
