"""Counts of label values over many images, taken in one pass with little memory."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.errors import InputError
from septa.images import RawLabels
from septa.labels.codes import MASK_VALUES, RAW_KINDS, pack_colors
from septa.labels.evidence import Evidence, weigh_evidence
from septa.labels.named_objects import NamedObjects
from septa.labels.regions import Regions, find_regions

_BLOCK = 1 << 22
"""Number of pixels counted at a time."""

_REGION_IMAGES = 64
_REGION_VALUES = 1000
"""Connected regions, the most expensive count, are found in the first images only, and kept of the first values."""

_VOIDS = 254, 255, 65_535

_VOID_IMAGES = 3
"""Least number of images with a value that may be an ignore label although other values come close to it."""

_VOID_GAP = 8
"""Least distance of a value that may be an ignore label from all others, in their largest distance."""

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
    named
        Objects of the files that number them and name their classes, which are counted nowhere else.
    """

    ignore: int | None
    images: int = 0
    names: dict[str, str] = field(default_factory=dict)
    index: dict[int, ValueCount] = field(default_factory=dict)
    colors: dict[int, ValueCount] = field(default_factory=dict)
    palettes_differ: bool = False
    named: NamedObjects = field(default_factory=NamedObjects)
    _palette: dict[int, int] = field(default_factory=dict)
    _true_colors: set[int] = field(default_factory=set)
    _grey: dict[int, str] = field(default_factory=dict)
    _regions: list[tuple[RawLabels, Regions]] = field(default_factory=list)
    _masks: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, raw: RawLabels) -> None:
        """Count the values of one label image; of one with several planes only the kind is noted.

        Raises
        ------
        InputError
            The image holds too many different values to be labels.
        """
        self.images += 1
        if raw.objects is not None:
            self.named.add(name, raw)
            return
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
        if len(self._regions) < _REGION_IMAGES:
            regions = find_regions(array, 0 if raw.kind == "index" else None)
            # The array is not kept, only the kind of the image and its palette.
            kept = RawLabels(np.zeros((0, 0), np.uint8), raw.kind, raw.palette)
            self._regions.append((kept, regions.first(_REGION_VALUES)))
        if raw.kind == "rgb":
            self._true_colors.update(values.tolist())
            self._merge(self.colors, name, values, pixels, solid)
            return
        self._merge(self.index, name, values, pixels, solid)
        self._merge(self.colors, name, self._count_colors(name, values, raw), pixels, solid)
        inside = values[(values != 0) & (values != self.ignore)].tolist()
        if len(inside) == 1 and inside[0] in MASK_VALUES and _is_brighter(raw.palette, inside[0]):
            self._masks[inside[0]].append(name)

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

    def weigh_objects(self, *, by_color: bool, void: int | None = None) -> Evidence:
        """Weigh the evidence that values, or colours, number objects.

        Parameters
        ----------
        by_color
            If True, colours are weighed, else values; images of another kind do not count then.
        void
            Value that may mark ignored pixels and does not count.
        """
        background = self.find_background() if by_color else self.find_background_value()
        table = self.colors if by_color else self.index
        left_out = {background, self.ignore, void}
        if by_color:
            images = [_color_regions(raw, regions) for raw, regions in self._regions]
        else:
            images = [regions for raw, regions in self._regions if raw.kind == "index"]
        images = [regions.without(*left_out) for regions in images]
        values = set(table) - left_out
        if min(values, default=0) < 0:
            return Evidence(0, whole=False)
        return weigh_evidence(images, len(values), background=background in table)

    def find_background_value(self) -> int:
        """Return the value of the background of objects: 0, or -1 if it is the only value below 1."""
        return -1 if min(self.index, default=0) == -1 and 0 not in self.index else 0

    def find_background(self) -> int:
        """Return the colour (0xRRGGBB) of the background: black, or without black the most frequent colour."""
        return 0 if 0 in self.colors or not self.colors else max(self.colors, key=lambda v: self.colors[v].pixels)

    def find_mixed_masks(self) -> dict[int, list[str]]:
        """Return the label images of each foreground value, if all are masks but the value differs.

        A mask holds one value of 1, 255 and 65535 in addition to 0. The dictionary is empty if all masks have the same
        value, or if some images are not masks.
        """
        foreground = {value for value in self.index if value != 0}
        alone = all(len(self._masks.get(value, ())) == self.index[value].images for value in foreground)
        return dict(self._masks) if len(foreground) > 1 and alone and set(self.names) == {"index"} else {}

    def find_void(self) -> int | None:
        """Return 255, 254 or 65535 if it may be an ignore label rather than a class or an object.

        The other values are much lower, or they differ from image to image while this one recurs.
        """
        *rest, top = sorted(self.index) or [0]
        if top not in _VOIDS or len(rest) < 2 or rest[0] < 0:
            return None
        if top - rest[-1] >= _VOID_GAP * np.diff(rest).max():
            return top
        others = [self.index[value] for value in rest if value != self.find_background_value()]
        images = self.index[top].images
        if images < _VOID_IMAGES or 2 * len({count.first for count in others}) < images:
            return None
        return top if 2 * max(count.images for count in others) <= images else None

    @property
    def colors_recur(self) -> bool:
        """True if half of the colours other than the background occur in several images."""
        counts = [count.images for color, count in self.colors.items() if color != self.find_background()]
        return 2 * sum(images > 1 for images in counts) >= len(counts)

    @property
    def has_single_channel(self) -> bool:
        """True if colours use only one channel, in which some tools store object numbers and others class indices."""
        return "rgb" in self.names and any(
            all(color & ~channel == 0 for color in self._true_colors) for channel in (0xFF0000, 0xFF00, 0xFF)
        )

    def refuse_mixture(self, kind: str) -> None:
        """Raise InputError if some label images cannot be read as labels of this kind."""
        remedy = "Save all label images in one way, or set data.encoding to the kind that they are of"
        some = ("rgb", "index")
        suited = {"color": some, "instances": some, "multilabel": ("channels", *some)}.get(kind, ("index",))
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


def _is_brighter(palette: npt.NDArray[np.uint8] | None, value: int) -> bool:
    """Return False if a palette shows a value darker than 0, so that it is likely not the foreground."""
    return palette is None or int(palette[min(value, len(palette) - 1)].sum()) > int(palette[0].sum())


def _color_regions(raw: RawLabels, regions: Regions) -> Regions:
    """Return the regions of colours (0xRRGGBB) instead of values."""
    if raw.kind == "rgb":
        return regions
    if raw.palette is None:
        return regions.with_values(regions.values * 0x010101)
    return regions.with_values(pack_colors(raw.palette[np.clip(regions.values, 0, len(raw.palette) - 1)]))
