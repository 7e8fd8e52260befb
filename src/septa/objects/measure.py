"""Measurements of the objects of an instance label image: position, size, shape, intensity and confidence.

An object is the set of all pixels with one id above 0, connected or not. Everything is computed from runs: stretches
of a row in which the id stays the same. Runs are far fewer than pixels, and their moments have a closed form.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.kernels import Kernel

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]

# Spreadsheets read a text as a formula if it starts with one of these characters.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
_UNENCODABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """Table with one row per object.

    Attributes
    ----------
    columns
        Name of each column, in order, to its values. All columns have the same length.

    Examples
    --------
    >>> table = measure_objects(np.array([[0, 7, 7, 3]]))
    >>> len(table), table.columns["label"], table.select(table.columns["area"] > 1).columns["label"]
    (2, array([3, 7]), array([7]))
    """

    columns: Mapping[str, Array]

    def __len__(self) -> int:
        """Return the number of objects."""
        return max(map(len, self.columns.values()), default=0)

    def select(self, mask: npt.ArrayLike) -> ObjectTable:
        """Return the rows where ``mask`` is True; or, given indices, those rows in that order."""
        return ObjectTable({name: values[np.asarray(mask)] for name, values in self.columns.items()})

    def to_csv(self) -> str:
        r"""Write the table as comma-separated values (RFC 4180), column names first.

        Numbers have the fewest digits that read back as the same number. NaN is an empty cell, and booleans are
        ``true`` or ``false``. A text that a spreadsheet would read as a formula, such as one that starts with ``=``,
        ``+``, ``-`` or ``@``, gets an apostrophe in front. Characters that cannot be encoded become U+FFFD.

        Examples
        --------
        >>> ObjectTable({"label": np.array([7]), "class": np.array(["=1+1"]), "area": np.array([0.5])}).to_csv()
        "label,class,area\r\n7,'=1+1,0.5\r\n"
        """
        sheet = io.StringIO()
        writer = csv.writer(sheet, lineterminator="\r\n")
        writer.writerow([_text_cell(name) for name in self.columns])
        writer.writerows(zip(*map(_cells, self.columns.values())))
        return sheet.getvalue()


def measure_objects(
    labels_yx: Array,
    image_cyx: Array | None = None,
    *,
    foreground_yx: Array | None = None,
    pixel_size_um: tuple[float, float] | None = None,
    channel_names: Sequence[str] | None = None,
    class_yx: Array | None = None,
    class_names: Sequence[str] = (),
) -> ObjectTable:
    """Measure every object of a label image.

    Parameters
    ----------
    labels_yx
        Instance ids, any integer dtype or bool; ids may be large and have gaps. 0 is background. Pixels below 0
        (`septa.recipe.IGNORE`) are neither object nor background.
    image_cyx
        Image of the same size, any real dtype.
    foreground_yx
        Foreground probability of the net, float in 0..1; see `confidence`.
    pixel_size_um
        (y, x) micrometres per pixel.
    channel_names
        One name per channel. The default, also for an empty name, is ``channel_1``, ``channel_2`` and so on. A
        repeated name gets a number.
    class_yx
        Class of each pixel, integer; 0 is background.
    class_names
        Names of the classes, background (class 0) first.

    Returns
    -------
    ObjectTable
        The objects by ascending id, with these columns in this order:

        ``label``
            int64, the id.
        ``class``
            With ``class_yx``: the most frequent class of the object's pixels other than background; the lowest such
            class in a tie, and 0 if all pixels are background. int64, or the name if ``class_names`` are given.
        ``centroid_y``, ``centroid_x``
            Mean coordinates of the pixels. The centre of the first pixel is (0, 0).
        ``bbox_top``, ``bbox_left``, ``bbox_bottom``, ``bbox_right``
            int64, the bounding box: first row and column, and one past the last.
        ``area``
            int64, number of pixels.
        ``equivalent_diameter``
            Diameter in pixels of the disc of the same area.
        ``eccentricity``
            Eccentricity of the ellipse with the same second moments: 0 for a disc, 1 for a line. As in scikit-image,
            pixels are points: with an extent, 1/12 would be added to the moments and a row of pixels would not be a
            line. The value assumes square pixels.
        ``touches_edge``
            bool, True if the object reaches the first or last row or column, so it may continue beyond the image.
        ``confidence``
            With ``foreground_yx``: see `confidence`.
        ``mean_NAME``, ``min_NAME``, ``max_NAME``
            With ``image_cyx``: intensities of each channel, minimum and maximum in the image's dtype. NaN if any pixel
            of the object is NaN.
        ``centroid_y_um``, ``centroid_x_um``, ``area_um2``, ``equivalent_diameter_um``
            With ``pixel_size_um``: the same in micrometres. The diameter is that of the disc of the same area.

    Raises
    ------
    ValueError
        The arrays have wrong sizes or dtypes, an id exceeds 2**63 - 1, the pixel size is not above 0, the number of
        names and channels differ, or a class has no name.

    Examples
    --------
    >>> table = measure_objects(np.array([[0, 7, 7, 7]]), np.array([[[1, 2, 4, 9]]]), pixel_size_um=(0.5, 0.5))
    >>> print(table.select([0]).to_csv().replace(",", " "))  # doctest: +NORMALIZE_WHITESPACE
    label centroid_y centroid_x bbox_top bbox_left bbox_bottom bbox_right area equivalent_diameter eccentricity
    touches_edge mean_channel_1 min_channel_1 max_channel_1 centroid_y_um centroid_x_um area_um2 equivalent_diameter_um
    7 0 2 0 1 1 4 3 1.9544100476116797 1 true 5 2 9 0 1 0.75 0.9772050238058398
    """
    _check(labels_yx, image_cyx, class_yx)
    runs = _runs(labels_yx, class_yx)
    columns: dict[str, Array] = {"label": runs.ids}
    if class_yx is not None:
        columns["class"] = _classes(runs, class_yx, class_names)
    columns |= _shapes(runs, *labels_yx.shape)
    if foreground_yx is not None:
        columns["confidence"] = _confidence(runs, labels_yx, foreground_yx)
    if image_cyx is not None:
        for name, plane_yx in zip(_channel_names(channel_names, len(image_cyx)), image_cyx, strict=True):
            columns |= _intensities(runs, plane_yx, name)
    if pixel_size_um is not None:
        y, x = pixel_size_um
        if not (0 < y < np.inf and 0 < x < np.inf):
            raise ValueError(f"a pixel size must be above 0 and finite, got {pixel_size_um}")
        columns |= {"centroid_y_um": columns["centroid_y"] * y, "centroid_x_um": columns["centroid_x"] * x}
        columns["area_um2"] = columns["area"] * (y * x)
        columns["equivalent_diameter_um"] = np.sqrt(4 / np.pi * columns["area_um2"])
    return ObjectTable(columns)


def confidence(labels_yx: Array, foreground_yx: Array) -> Reals:
    """Compute the confidence of each object, a soft IoU, from the net's foreground probability p.

    The confidence is the sum of p over the object, divided by its area plus the sum of p over background pixels within
    2 pixels of it. This is the expected IoU with the ground truth, if the probabilities are right and the true object
    does not extend further. It is near 1 only if the net is sure of the inside and p drops at the outline. Pixels of
    other objects and pixels below 0 are not background. Without background around it, an object has its mean p.

    Parameters
    ----------
    labels_yx
        Instance ids, as for `measure_objects`.
    foreground_yx
        Foreground probability, float in 0..1, of the same size.

    Returns
    -------
    ndarray
        float64 in 0..1, one value per object by ascending id.

    Raises
    ------
    ValueError
        As for `measure_objects`; or a probability lies outside 0..1.

    Examples
    --------
    >>> confidence(np.array([[0, 0, 0, 5, 5]]), np.array([[1.0, 0.5, 0.0, 0.8, 0.7]]))
    array([0.6])
    """
    _check(labels_yx)
    return _confidence(_runs(labels_yx), labels_yx, foreground_yx)


@dataclass(frozen=True, eq=False)
class _Runs:
    """Runs of equal pixels within rows, in raster order, including background.

    Attributes
    ----------
    starts, lengths
        Flat index of the first pixel, and number of pixels, of each run.
    ids
        Ids of the objects, ascending.
    objects
        Index into ``ids`` for each run; -1 for background, -2 for pixels below 0.
    """

    starts: Integers
    lengths: Integers
    ids: Integers
    objects: Integers

    @cached_property
    def inside(self) -> npt.NDArray[np.bool_]:
        return self.objects >= 0

    @cached_property
    def areas(self) -> Reals:
        return self.sums(self.lengths[self.inside])

    def sums(self, values: Array) -> Reals:
        """Sum values, one per run of an object, over each object. Exact for integers below 2**53."""
        return np.bincount(self.objects[self.inside], values, self.ids.size).astype(np.float64)

    def totals(self, flat: Array) -> Reals:
        """Sum values, one per pixel, over each object."""
        return self.sums(np.add.reduceat(flat, self.starts, dtype=np.float64)[self.inside])


def _check(labels_yx: Array, image_cyx: Array | None = None, class_yx: Array | None = None) -> None:
    if labels_yx.ndim != 2 or labels_yx.dtype.kind not in "bui":
        raise ValueError(f"labels must be YX and hold integers, got {labels_yx.shape} of {labels_yx.dtype}")
    if labels_yx.dtype == np.uint64 and labels_yx.max(initial=0) >= 1 << 63:
        raise ValueError(f"labels hold the id {labels_yx.max()}, expected at most 2**63 - 1")
    size = f"of the labels' size {labels_yx.shape}, got"
    if image_cyx is not None and (image_cyx.shape[1:] != labels_yx.shape or image_cyx.dtype.kind not in "buif"):
        raise ValueError(f"the image must be CYX and real, {size} {image_cyx.shape} of {image_cyx.dtype}")
    if class_yx is not None and (class_yx.shape != labels_yx.shape or class_yx.dtype.kind not in "bui"):
        raise ValueError(f"classes must be YX and integers, {size} {class_yx.shape} of {class_yx.dtype}")


def _runs(labels_yx: Array, class_yx: Array | None = None) -> _Runs:
    """Find the runs in which neither the id nor the class changes."""
    changes_yx = np.zeros(labels_yx.shape, bool)
    changes_yx[:, :1] = True
    for array_yx in (labels_yx, *(() if class_yx is None else (class_yx,))):
        changes_yx[:, 1:] |= array_yx[:, 1:] != array_yx[:, :-1]
    starts = np.flatnonzero(changes_yx)
    values = labels_yx[np.unravel_index(starts, labels_yx.shape)].astype(np.int64)
    objects = np.where(values < 0, -2, -1)
    ids, objects[values > 0] = np.unique(values[values > 0], return_inverse=True)
    return _Runs(starts, np.diff(starts, append=labels_yx.size), ids, objects)


def _shapes(runs: _Runs, height: int, width: int) -> dict[str, Array]:
    objects, length, area = runs.objects[runs.inside], runs.lengths[runs.inside], runs.areas
    row, left = np.divmod(runs.starts[runs.inside], max(1, width))
    top, first = np.full(runs.ids.size, height), np.full(runs.ids.size, width)
    bottom, last = np.zeros((2, runs.ids.size), np.int64)
    np.minimum.at(top, objects, row)
    np.minimum.at(first, objects, left)
    np.maximum.at(bottom, objects, row + 1)
    np.maximum.at(last, objects, left + length)
    # Moments are taken from the box's corner, then from the centroid, so no digits cancel in large images.
    y, x = row - top[objects], left - first[objects] + (length - 1) / 2
    mean_y, mean_x = runs.sums(length * y) / area, runs.sums(length * x) / area
    dy, dx = y - mean_y[objects], x - mean_x[objects]
    yy, xy = runs.sums(length * dy**2) / area, runs.sums(length * dy * dx) / area
    xx = runs.sums(length * (dx**2 + (length.astype(np.float64) ** 2 - 1) / 12)) / area
    middle, spread = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
    long = middle + spread
    ratio = np.divide(np.maximum(middle - spread, 0), long, out=np.ones_like(long), where=long > 0)
    return {
        "centroid_y": top + mean_y,
        "centroid_x": first + mean_x,
        "bbox_top": top,
        "bbox_left": first,
        "bbox_bottom": bottom,
        "bbox_right": last,
        "area": area.astype(np.int64),
        "equivalent_diameter": np.sqrt(4 / np.pi * area),
        "eccentricity": np.sqrt(1 - ratio),
        "touches_edge": (top == 0) | (first == 0) | (bottom == height) | (last == width),
    }


def _classes(runs: _Runs, class_yx: Array, names: Sequence[str]) -> Array:
    classes = class_yx[np.unravel_index(runs.starts, class_yx.shape)].astype(np.int64)
    voting = runs.inside & (classes > 0)
    values, index = np.unique(classes[voting], return_inverse=True)
    if names and values.size and values[-1] >= len(names):
        raise ValueError(f"objects have the class {values[-1]}, but the last one named is {len(names) - 1}")
    values = np.append(values, 0)  # chosen where no other class has a vote
    votes = np.zeros((runs.ids.size, values.size), np.int64)
    np.add.at(votes, (runs.objects[voting], index), runs.lengths[voting])
    votes[~votes.any(axis=1), -1] = 1
    winners: Array = values[votes.argmax(axis=1)]
    return np.asarray(names, np.str_)[winners] if names else winners


def _channel_names(names: Sequence[str] | None, channels: int) -> list[str]:
    if names is not None and len(names) != channels:
        raise ValueError(f"expected one name for each of {channels} channels, got {len(names)}")
    chosen: list[str] = []
    for number, name in enumerate(names or [""] * channels, 1):
        first = name or f"channel_{number}"
        others = (f"{first}_{again}" for again in count(2))
        chosen.append(next(free for free in chain([first], others) if free not in chosen))
    return chosen


def _intensities(runs: _Runs, plane_yx: Array, name: str) -> dict[str, Array]:
    flat, objects = plane_yx.reshape(-1), runs.objects[runs.inside]
    lowest, highest = np.zeros((2, runs.ids.size), plane_yx.dtype)
    for ufunc, extremes in ((np.minimum, lowest), (np.maximum, highest)):
        with np.errstate(invalid="ignore"):  # NaN
            values = ufunc.reduceat(flat, runs.starts)[runs.inside]
            extremes[objects] = values  # start from any run of the object
            ufunc.at(extremes, objects, values)
    return {f"mean_{name}": runs.totals(flat) / runs.areas, f"min_{name}": lowest, f"max_{name}": highest}


def _confidence(runs: _Runs, labels_yx: Array, foreground_yx: Array) -> Reals:
    if foreground_yx.shape != labels_yx.shape or foreground_yx.dtype.kind != "f":
        got = f"{foreground_yx.shape} of {foreground_yx.dtype}"
        raise ValueError(f"probabilities must be floats of the labels' shape {labels_yx.shape}, got {got}")
    if not runs.ids.size:
        return np.zeros(0)
    low, high = float(foreground_yx.min()), float(foreground_yx.max())
    if not -1e-5 <= low <= high <= 1 + 1e-5:  # averages over several passes are rounded
        raise ValueError(f"probabilities must be in 0..1, got {low} to {high}")
    objects_yx = np.repeat(runs.objects.astype(np.int32), runs.lengths).reshape(labels_yx.shape)
    rims = np.zeros(runs.ids.size)
    _add_rims(np.pad(objects_yx, 2, constant_values=-2), np.ascontiguousarray(foreground_yx, np.float32), rims)
    return np.clip(runs.totals(foreground_yx.reshape(-1)) / (runs.areas + rims), 0.0, 1.0)


@Kernel
def _add_rims(objects: npt.NDArray[np.int32], foreground: npt.NDArray[np.float32], rims: Reals) -> None:
    """Add the probability of each background pixel to every object at most 2 pixels away, once."""
    latest = np.full(rims.size, -1, np.int64)  # last background pixel added to each object
    for y in range(foreground.shape[0]):
        for x in range(foreground.shape[1]):
            if objects[y + 2, x + 2] != -1:
                continue
            pixel = y * foreground.shape[1] + x
            for dy in range(-2, 3):
                for dx in range(abs(dy) - 2, 3 - abs(dy)):  # y² + x² <= 4
                    near = objects[y + 2 + dy, x + 2 + dx]
                    if near >= 0 and latest[near] != pixel:
                        latest[near] = pixel
                        rims[near] += foreground[y, x]


def _text_cell(text: str) -> str:
    return _UNENCODABLE.sub("\ufffd", f"'{text}" if text.startswith(_FORMULA) else text)


def _cells(values: Array) -> list[str]:
    if values.dtype.kind in "UO":
        return [_text_cell(str(value)) for value in values]
    # numpy writes the shortest text that reads back as the same number.
    texts: list[str] = values.astype(np.str_).tolist()
    return [{"nan": "", "True": "true", "False": "false"}.get(text, text.removesuffix(".0")) for text in texts]
