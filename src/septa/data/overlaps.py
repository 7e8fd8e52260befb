"""Detection of images that show the same objects: changed copies, crops, and overlapping parts of one field."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.images import MIRROR_SIGNS, Sketch
from septa.kernels import Kernel

Array = npt.NDArray[Any]

# With 6 points, at most 2 of the 69 006 pairs of 372 images of nuclei (DSB 2018) were connected, one of them rightly,
# and none of GlaS (H&E) or of the serial sections of ISBI 2012. With 5 points, 6 pairs were connected, most wrongly.
_LEAST_POINTS = 6
"""Points that must agree on one rotation, scale and shift."""
_LEAST_SHARE = 0.3
_SURE_POINTS = 10
"""Share of the points in the common part, of the image with fewer of them there, that must agree; 10 are enough."""
_SIMILAR = 0.8
"""Product of two descriptors from which on two points may be the same."""

_LEAST_SPREAD = 6.0
"""Least distance of these points from their centre, pixels of the reduced image (root of the mean square)."""

_PLACE = 5.0
"""Side in pixels of a place, of which several points count as one."""

_ROW_IMAGES = 16
_COLUMN_IMAGES = 128


@dataclass(frozen=True, eq=False, kw_only=True)
class _Points:
    """Points of several images: descriptors N x K x D, geometry N x K x 4, places N x K, counts N, sizes N x 2.

    Missing points are zeros. Points of one place, such as those of one spot at several scales, have the same number.
    """

    descriptors: npt.NDArray[np.float32]
    geometry: npt.NDArray[np.float32]
    places: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.float32]

    def __getitem__(self, rows: slice) -> _Points:
        return _Points(
            descriptors=self.descriptors[rows],
            geometry=self.geometry[rows],
            places=self.places[rows],
            counts=self.counts[rows],
            sizes=self.sizes[rows],
        )

    def mirror(self) -> _Points:
        """Return the points of the mirror images, of which the left edge stays at 0."""
        geometry = self.geometry.copy()
        geometry[..., 0] = self.sizes[:, None, 1] - geometry[..., 0]
        geometry[..., 3] = np.float32(np.pi) - geometry[..., 3]
        return replace(self, descriptors=self.descriptors * MIRROR_SIGNS, geometry=geometry)


def find_overlaps(sketches: Sequence[Sketch]) -> list[tuple[int, int]]:
    """Find the images that show the same objects, however one of them is turned, mirrored, cropped, scaled or exposed.

    The time grows with the square of the number of images, memory with the number.

    Returns
    -------
    list of (int, int)
        Pairs of indices, the smaller one first, sorted: few of them, but enough to connect all images of a set.
    """
    if len(sketches) < 2:
        return []
    points = _stack(sketches)
    parent = list(range(len(sketches)))

    def find_root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    found = []
    for top in range(0, len(sketches), _ROW_IMAGES):

        def is_open(one: int, other: int, top: int = top) -> bool:
            return one < other and find_root(top + one) != find_root(top + other)

        for one, other in _match(points[top : top + _ROW_IMAGES], points[top:], is_open):
            found.append((top + one, top + other))
            parent[find_root(top + one)] = find_root(top + other)
    return sorted(found)


class KnownSketches:
    """Sketches with which single images are compared, for example those of the images that a model was trained on."""

    def __init__(self, sketches: Sequence[Sketch]) -> None:
        self._points = _stack(sketches) if sketches else None

    def find(self, sketch: Sketch) -> list[int]:
        """Return the indices of the sketches of images that show the same objects as this one, sorted."""
        if self._points is None:
            return []
        return sorted({other for _, other in _match(_stack([sketch]), self._points, lambda one, other: True)})


def _stack(sketches: Sequence[Sketch]) -> _Points:
    most = max([1, *(len(sketch.points) for sketch in sketches)])
    descriptors = np.zeros((len(sketches), most, len(MIRROR_SIGNS)), np.float32)
    geometry = np.zeros((len(sketches), most, 4), np.float32)
    places = np.zeros((len(sketches), most), np.int64)
    for index, sketch in enumerate(sketches):
        count = len(sketch.points)
        descriptors[index, :count] = sketch.descriptors
        geometry[index, :count] = sketch.geometry
        cells = np.rint(geometry[index, :count, :2] / _PLACE)
        places[index, :count] = np.unique(cells, axis=0, return_inverse=True)[1].ravel()
    counts = np.array([len(sketch.points) for sketch in sketches], np.int64)
    sizes = np.array([(sketch.height, sketch.width) for sketch in sketches], np.float32)
    return _Points(descriptors=descriptors, geometry=geometry, places=places, counts=counts, sizes=sizes)


def _match(rows: _Points, columns: _Points, is_open: Callable[[int, int], bool]) -> Iterator[tuple[int, int]]:
    """Yield the index in ``rows`` and that in ``columns`` of images that show the same objects.

    Pairs that are not open when their turn comes are passed over.
    """
    for left in range(0, len(columns.counts), _COLUMN_IMAGES):
        block = columns[left : left + _COLUMN_IMAGES]
        for turned in (rows, rows.mirror()):
            for one, other, agree in _match_block(turned, block):
                if is_open(one, left + other) and agree():
                    yield one, left + other


def _match_block(rows: _Points, columns: _Points) -> Iterator[tuple[int, int, Callable[[], bool]]]:
    """Yield pairs of images of which enough points may agree, each with the function that finds whether they do."""
    (n, k, depth), (m, many, _) = rows.descriptors.shape, columns.descriptors.shape
    similar = rows.descriptors.reshape(n * k, depth) @ columns.descriptors.reshape(m * many, depth).T > _SIMILAR
    row, column = np.divmod(np.flatnonzero(similar), m * many)
    pair = row // k * m + column // many
    order = np.argsort(pair, kind="stable")
    pair, row, column = pair[order], row[order] % k, column[order] % many
    ends = np.cumsum(np.bincount(pair, minlength=n * m))
    votes, best = np.zeros(n * m, np.int64), np.zeros(n * m, np.int64)
    _vote(rows.geometry, rows.places, columns.geometry, columns.places, row, column, ends, votes, best)
    for index in np.flatnonzero(votes >= _LEAST_POINTS):
        one, other = int(index) // m, int(index) % m
        matches = slice(ends[index - 1] if index else 0, ends[index])
        first = int(best[index]) - matches.start
        a, b = rows[one : one + 1], columns[other : other + 1]
        yield one, other, partial(_agree, a, b, row[matches], column[matches], first)


@Kernel
def _vote(  # type: ignore[no-untyped-def]
    geometry_a, places_a, geometry_b, places_b, row, column, ends, votes, best
):
    """Count for each pair of images the matches that agree with the rotation, scale and shift of one of its matches.

    The count and the match with the largest count are written to ``votes`` and ``best``. A place counts once.
    """
    columns = geometry_b.shape[0]
    seen_a = np.zeros(geometry_a.shape[1], np.int64)
    seen_b = np.zeros(geometry_b.shape[1], np.int64)
    widest = 0
    for pair in range(ends.size):
        widest = max(widest, ends[pair] - (ends[pair - 1] if pair else 0))
    # Of each match of a pair: both positions, size in b, size ratio, cosine and sine of the turn.
    facts = np.zeros((widest, 8), np.float64)
    stamp = 0
    for pair in range(ends.size):
        start = ends[pair - 1] if pair else 0
        number = ends[pair] - start
        if number < _LEAST_POINTS:
            continue
        one, other = pair // columns, pair % columns
        for k in range(number):
            p, q = geometry_a[one, row[start + k]], geometry_b[other, column[start + k]]
            turn = q[3] - p[3]
            facts[k, 0], facts[k, 1], facts[k, 2], facts[k, 3] = p[0], p[1], q[0], q[1]
            facts[k, 4], facts[k, 5], facts[k, 6], facts[k, 7] = q[2], q[2] / p[2], np.cos(turn), np.sin(turn)
        for first in range(0, number, max(1, number // 100)):
            begin = facts[first]
            scale, cosine, sine = begin[5], begin[6], begin[7]
            stamp += 1
            count = 0
            for k in range(number):
                ratio = facts[k, 5] / scale
                if ratio > 1.5 or ratio < 1 / 1.5 or facts[k, 6] * cosine + facts[k, 7] * sine < 0.94:
                    continue
                dx, dy = facts[k, 0] - begin[0], facts[k, 1] - begin[1]
                off_x = begin[2] + scale * (cosine * dx - sine * dy) - facts[k, 2]
                off_y = begin[3] + scale * (sine * dx + cosine * dy) - facts[k, 3]
                tolerance = 0.5 * facts[k, 4] + 0.1 * scale * np.sqrt(dx * dx + dy * dy)
                if off_x * off_x + off_y * off_y > tolerance * tolerance:
                    continue
                place_a, place_b = places_a[one, row[start + k]], places_b[other, column[start + k]]
                if seen_a[place_a] == stamp or seen_b[place_b] == stamp:
                    continue
                seen_a[place_a] = seen_b[place_b] = stamp
                count += 1
            if count > votes[pair]:
                votes[pair] = count
                best[pair] = start + first


def _agree(one: _Points, other: _Points, row: Array, column: Array, first: int) -> bool:
    """Return True if enough matches of two images agree on one transform, which begins as that of one match."""
    a, b = one.geometry[0], other.geometry[0]
    place_a, place_b = _as_complex(a), _as_complex(b)
    from_a, to_b = place_a[row], place_b[column]
    ratio, turn = b[column, 2] / a[row, 2], b[column, 3] - a[row, 3]
    factor = ratio[first] * np.exp(1j * turn[first])
    shift = to_b[first] - factor * from_a[first]
    tolerance = 0.5 * b[column, 2] + 0.1 * np.abs(factor) * np.abs(from_a - from_a[first])
    for _ in range(3):
        off = np.abs(factor * from_a + shift - to_b)
        same_size = np.abs(np.log(ratio / np.abs(factor))) < 0.35
        chosen = (off < tolerance) & same_size & (np.cos(turn - np.angle(factor)) > 0.95)
        if np.count_nonzero(chosen) < _LEAST_POINTS:
            return False
        centre_a, centre_b = from_a[chosen].mean(), to_b[chosen].mean()
        around = from_a[chosen] - centre_a
        if np.mean(np.abs(around) ** 2) < _LEAST_SPREAD**2:
            return False
        factor = np.vdot(around, to_b[chosen] - centre_b) / np.vdot(around, around)
        shift = centre_b - factor * centre_a
        tolerance = np.maximum(2 * max(1.0, np.abs(factor)), 0.15 * b[column, 2])
    points = min(np.unique(one.places[0, row[chosen]]).size, np.unique(other.places[0, column[chosen]]).size)
    common_a = _count_inside(factor * place_a[: one.counts[0]] + shift, other.sizes[0])
    common_b = _count_inside((place_b[: other.counts[0]] - shift) / factor, one.sizes[0])
    needed = min(_SURE_POINTS, _LEAST_SHARE * min(common_a, common_b))
    return bool(points >= max(_LEAST_POINTS, needed))


def _as_complex(geometry: Array) -> npt.NDArray[np.complex128]:
    return np.asarray(geometry[:, 0] + 1j * geometry[:, 1].astype(np.float64))


def _count_inside(places: npt.NDArray[np.complex128], size: Array) -> int:
    y_inside = (places.imag >= 0) & (places.imag < size[0])
    return int(np.count_nonzero(y_inside & (places.real >= 0) & (places.real < size[1])))
