"""Counts over many label images, in one pass and little memory, and what they tell about the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.errors import InputError
from septa.images import RawLabels
from septa.labels.codes import pack, show_values

_BLOCK = 1 << 22
"""Pixels counted at a time."""

_MIXED = 32
_COMPONENT_IMAGES = 64
_COMPONENT_SIDE = 2048
"""Connected components are looked for in the centres of the first images only: that settles it, and costs most."""

_MOST_COLORS = 4096
_MOST_VALUES = 1_000_000


@dataclass
class ValueCount:
    """Where one raw value occurs.

    Attributes
    ----------
    pixels
        How many pixels hold it.
    solid
        How many of them hold the centre of a 3 x 3 square of that value: none for the marks of interpolation.
    images, first
        In how many label images it occurs, and the first of them.
    """

    first: str
    pixels: int = 0
    solid: int = 0
    images: int = 0


@dataclass
class Survey:
    """Counts of raw values over label images; `add` them one at a time.

    Attributes
    ----------
    ignore
        Raw value that is left out of all counts; for colours the number 0xRRGGBB.
    images
        Number of label images seen.
    names
        First label image of each kind (``index``, ``rgb``, ``channels``).
    index, colors
        Counts of raw values and of colours (0xRRGGBB). Palette images are counted in both.
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
        """Count one label image; planes are only noted.

        Raises
        ------
        InputError
            If the image holds so many different values that it cannot be labels.
        """
        self.images += 1
        self.names.setdefault(raw.kind, name)
        if raw.kind == "channels":
            return
        array = raw.array if raw.kind == "index" else pack(raw.array)
        values, pixels, solid = count_values(array)
        most = _MOST_VALUES if raw.kind == "index" else _MOST_COLORS
        if len(values) > most:
            what = f"{len(values)} different {'values' if raw.kind == 'index' else 'colours'}"
            raise InputError(name, f"holds {what}, so it is no label image", "give labels with one value per class")
        if raw.kind == "rgb":
            self._true_colors.update(values.tolist())
            self._merge(self.colors, name, values, pixels, solid)
            return
        self._merge(self.index, name, values, pixels, solid)
        self._merge(self.colors, name, self._as_colors(name, values, raw), pixels, solid)
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

    def _as_colors(self, name: str, values: npt.NDArray[np.int64], raw: RawLabels) -> npt.NDArray[np.int64]:
        if raw.palette is None:
            # Values above 255 become no colour but numbers of their own, which no RGB image can hold.
            colors = np.where((values >= 0) & (values <= 255), values * 0x010101, -1 - np.abs(values))
            for color in colors.tolist():
                self._grey.setdefault(color, name)
            return colors
        colors = pack(raw.palette[np.clip(values, 0, len(raw.palette) - 1)]).astype(np.int64)
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
            components = count_components(_centre(array))
            whole = [count == 1 for value, count in components.items() if value not in (0, self.ignore)]
            self._ids += len(whole)
            self._whole_ids += sum(whole)

    def are_instances(self) -> bool:
        """Tell whether the values look like object ids rather than class indices.

        Object ids are mostly one connected component each. Besides, either each image numbers its objects 1 to n
        with an n that varies, or many ids occur in few images each; ids beyond 254 need no more evidence.
        A single image (or few) must hold at least 8 objects, several at least 4.
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
        """Raise InputError if some label images cannot be read as ``kind``."""
        remedy = "save all label images alike, or set data.encoding to what they hold"
        shown = {"index": "one value per pixel", "rgb": "RGB colours", "channels": "several planes"}
        suited = {"color": ("rgb", "index"), "multilabel": ("channels", "rgb", "index")}.get(kind, ("index",))
        for came, name in self.names.items():
            if came not in suited:
                raise InputError(name, f"holds {shown[came]}, where {kind} labels are expected", remedy)
        if kind == "color" and min(self._grey, default=0) < 0:
            raise InputError(
                self._grey[min(self._grey)], "holds values beyond 0..255, which stand for no colour", remedy
            )
        if kind == "color" and self._true_colors:
            for color, name in self._grey.items():
                if color not in self._true_colors and color != self.ignore:
                    raise InputError(name, "holds grey values that occur in no RGB label image", remedy)


def refuse_noise(table: Mapping[int, ValueCount], kind: str) -> None:
    """Raise InputError if the values are the marks of interpolation or of JPEG.

    Such marks are many, rare, lie between real values and form no 3 x 3 square (save a few flat JPEG blocks).
    Class indices 0 to n <= 64 without a gap, and indices up to 16 with some missing, are never taken for marks; nor
    are colours that no mixture of two frequent ones gives.
    """
    values = sorted(table)
    gapless = values == list(range(len(values))) and len(values) <= 65
    if kind != "color" and values and values[0] >= 0 and (gapless or values[-1] <= 16):
        return
    total = sum(count.pixels for count in table.values())
    marks = [value for value in values[1:-1] if _is_mark(table[value], total)]
    if kind == "color":
        marks = _mixed(marks, sorted(set(values) - set(marks)))
    real = len(values) - len(marks)
    many = len(marks) >= 8 or len(marks) >= max(3, real + 1)
    if not many and not _surround(marks, table):
        return
    pixels = sum(table[value].pixels for value in marks)
    shown = show_values(marks, kind, most=4)
    problem = f"{len(marks)} rare values ({shown}; {pixels / total:.2%} of all pixels) lie between the label values"
    raise InputError(
        min((table[value].first for value in marks), key=str),
        f"{problem}, as resizing, smoothing or JPEG leave them",
        "export the labels again without these (resize with nearest neighbour), or name the real ones in data.values, "
        "or set data.encoding=instances if each value is one object",
    )


def refuse_strays(table: Mapping[int, ValueCount], given: Sequence[int], kind: str) -> None:
    """Raise InputError if values occur that are not ``given``."""
    strays = sorted(value for value in table if value not in given)
    if strays:
        refuse_noise(table, kind)
        pixels = sum(table[value].pixels for value in strays)
        problem = f"{pixels} pixels hold {show_values(strays, kind)}, not among the given values"
        remedy = "correct the labels, add the values to data.values or set data.ignore_label"
        refuse_value(table, strays[0], problem, remedy)


def refuse_negative(table: Mapping[int, ValueCount]) -> None:
    """Raise InputError if a value is below 0."""
    lowest = min(table, default=0)
    if lowest < 0:
        remedy = f"set data.ignore_label={lowest} if it marks pixels to leave out, else correct the labels"
        refuse_value(table, lowest, f"holds the negative label {lowest}", remedy)


def refuse_rare(table: Mapping[int, ValueCount], kind: str) -> None:
    """Raise InputError if a value covers a handful of pixels: a slip of the brush, for nothing can be learnt of it."""
    total = sum(count.pixels for count in table.values())
    for value, count in table.items():
        if count.pixels <= 8 and count.pixels < 1e-4 * total and not count.solid:
            shown = show_values([value], kind)
            problem = f"label {shown} covers {count.pixels} of {total} pixels in all, which looks like a slip"
            remedy = "correct these pixels, or list it in data.values or as data.ignore_label"
            refuse_value(table, value, problem, remedy)


def refuse_undeclared_ignore(table: Mapping[int, ValueCount]) -> None:
    """Raise InputError if 255 (or 65535) stands beside class indices 0 to n: it may be a class or none."""
    *rest, top = sorted(table)
    if top in (255, 65535) and len(rest) >= 2 and rest == list(range(len(rest))) and rest[-1] < top - 1:
        problem = f"label {top} stands beside the class indices 0 to {rest[-1]}"
        remedy = f"set data.ignore_label={top} if it marks pixels to leave out, else list all classes in data.values"
        refuse_value(table, top, problem, remedy)


def refuse_value(table: Mapping[int, ValueCount], value: int, problem: str, remedy: str) -> None:
    """Raise InputError about a value, naming the first label image that holds it."""
    others = table[value].images - 1
    raise InputError(table[value].first, problem + (f" (as in {others} more files)" if others else ""), remedy)


def _is_mark(count: ValueCount, total: int) -> bool:
    return count.solid <= 0.02 * count.pixels and count.pixels <= 0.1 * total


def _mixed(marks: Sequence[int], real: Sequence[int]) -> list[int]:
    """The marks (0xRRGGBB) that lie near the straight line between two real colours, where mixtures lie."""
    rgb = np.array([[color >> 16 & 255, color >> 8 & 255, color & 255] for color in real], float).reshape(-1, 3)
    if len(rgb) > 64:
        return list(marks)
    starts, ways = rgb[:, None], rgb[None] - rgb[:, None]
    lengths = np.maximum((ways**2).sum(-1), 1e-9)
    mixed = []
    for color in marks:
        point = np.array([color >> 16 & 255, color >> 8 & 255, color & 255], float)
        along = np.clip(((point - starts) * ways).sum(-1) / lengths, 0, 1)
        if np.linalg.norm(starts + along[..., None] * ways - point, axis=-1).min() <= _MIXED:
            mixed.append(color)
    return mixed


def _surround(marks: Sequence[int], table: Mapping[int, ValueCount]) -> bool:
    """Tell whether the marks are neighbours of far more frequent values, as the best JPEG leaves them."""
    return len(marks) >= 2 and all(
        any(table[near].pixels >= 20 * table[mark].pixels for near in range(mark - 2, mark + 3) if near in table)
        for mark in marks
    )


def count_values(
    array_yx: npt.NDArray[Any],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Count the values of an integer array.

    Parameters
    ----------
    array_yx
        Integers YX.

    Returns
    -------
    values, pixels, solid
        int64, sorted by value: how many pixels hold the value, and how many centres of 3 x 3 squares of it there are.

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
        # One more row on each side, so that squares across the seam are counted once.
        squares = array_yx[max(0, top - 1) : bottom + 1]
        for place, flat in enumerate((whole.ravel(), _centres(squares))):
            values, pixels = _count_runs(flat)
            for value, number in zip(values.tolist(), pixels.tolist(), strict=True):
                counts.setdefault(value, [0, 0])[place] += number
    ordered = sorted(counts)
    columns = np.array([counts[value] for value in ordered], np.int64).reshape(-1, 2)
    return np.array(ordered, np.int64), columns[:, 0].copy(), columns[:, 1].copy()


def _centres(array_yx: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values of the pixels whose 3 x 3 neighbourhood is uniform."""
    across = array_yx[:, 1:] == array_yx[:, :-1]
    across = across[:, 1:] & across[:, :-1]
    down = array_yx[1:, 1:-1] == array_yx[:-1, 1:-1]
    uniform = across[2:] & across[1:-1] & across[:-2] & down[1:] & down[:-1]
    values: npt.NDArray[Any] = array_yx[1:-1, 1:-1][uniform]
    return values


def _count_runs(flat: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """np.unique with counts, fast for labels: they have few runs of equal values."""
    if not flat.size:
        return flat, np.zeros(0, np.int64)
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size)
    values, inverse = np.unique(flat[starts], return_inverse=True)
    return values, np.bincount(inverse, lengths).astype(np.int64)


def count_components(array_yx: npt.NDArray[Any]) -> dict[int, int]:
    """Number of 8-connected components of each value above or below 0.

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


def _centre(array_yx: npt.NDArray[Any]) -> npt.NDArray[Any]:
    top, left = (max(0, size - _COMPONENT_SIDE) // 2 for size in array_yx.shape)
    return array_yx[top : top + _COMPONENT_SIDE, left : left + _COMPONENT_SIDE]
