"""Sketches: the most distinct points of an image in few bytes, by which copies and overlapping images are recognised.

The points are SIFT keypoints (Lowe 2004, doi 10.1023/B:VISI.0000029664.99615.94) with square-rooted descriptors
(Arandjelovic and Zisserman 2012, doi 10.1109/CVPR.2012.6248018). A descriptor, a histogram over 4 x 4 places and 8
directions, is reduced to its low frequencies: cosines over the places, Fourier terms over the directions. Each of these
numbers keeps or changes its sign if the image is mirrored, so a sketch is also the sketch of the mirror image.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from septa.images.outliers import drop_values, find_fillers

SKETCH_POINTS = 50
"""Largest number of points of a sketch; with them it has 3 kB."""

SKETCH_SIDE = 256
"""Largest side in pixels of the reduced image in which points are searched."""

_LEAST_SIDE = 8
"""Side in pixels below which an image has no points."""
_ORDER = 4
"""Highest total frequency that is kept of a descriptor."""
_CONTRAST = 0.01
_CELLS = 4
"""Points are spread over this number of cells per axis ..."""
_ROUND = 4
"""... which take turns, each with this number of its strongest points."""
_PLACE_STEPS = 128
_SIZE_STEPS = 16
_ANGLE_STEPS = 256
_SAMPLE = 1 << 14


def _make_basis() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the vectors, N x 128, that reduce a descriptor, and the sign of each in a mirror image, N."""
    places = np.arange(4) + 0.5
    over_places = np.array([np.cos(np.pi * places * k / 4) * np.sqrt((1 if k == 0 else 2) / 4) for k in range(4)])
    angles = np.arange(8) * np.pi / 4
    over_angles = [(0, 1, np.full(8, np.sqrt(1 / 8)))]
    for k in (1, 2, 3):
        over_angles += [(k, 1, np.cos(k * angles) / 2), (k, -1, np.sin(k * angles) / 2)]
    over_angles.append((4, 1, np.cos(4 * angles) * np.sqrt(1 / 8)))
    vectors = []
    signs = []
    for row in range(4):
        for column in range(4):
            for k, sign, wave in over_angles:
                if 0 < row + column + k <= _ORDER:
                    vectors.append(np.einsum("y,x,a->yxa", over_places[row], over_places[column], wave).ravel())
                    signs.append(sign * (-1) ** row)
    return np.array(vectors, np.float32), np.array(signs, np.float32)


_BASIS, MIRROR_SIGNS = _make_basis()

_POINT = np.dtype(
    [("x", "<u2"), ("y", "<u2"), ("size", "u1"), ("angle", "u1"), ("descriptor", "i1", (len(MIRROR_SIGNS),))]
)


@dataclass(frozen=True, eq=False)
class Sketch:
    """The most distinct points of an image, which is reduced if it is large.

    Attributes
    ----------
    height, width
        Size of the reduced image, pixels.
    points
        One record for each point, the most important first.
    """

    height: int
    width: int
    points: NDArray[Any]

    @property
    def descriptors(self) -> NDArray[np.float32]:
        """Descriptors, N x D, each with norm 1; the product of two is at most 1."""
        values = self.points["descriptor"].astype(np.float32)
        return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1), np.float32)

    @property
    def geometry(self) -> NDArray[np.float32]:
        """x, y and size in pixels of the reduced image and angle in radians of each point, N x 4."""
        points = self.points
        sizes = 2.0 ** (points["size"] / _SIZE_STEPS)
        angles = points["angle"] * (2 * np.pi / _ANGLE_STEPS)
        columns = (points["x"] / _PLACE_STEPS, points["y"] / _PLACE_STEPS, sizes, angles)
        return np.stack(columns, axis=1).astype(np.float32)

    def to_text(self, most: int = SKETCH_POINTS) -> str:
        """Return the sketch as text (base64), reduced to the most important points."""
        size = np.array((self.height, self.width), "<u2")
        return base64.b64encode(size.tobytes() + self.points[:most].tobytes()).decode("ascii")

    @classmethod
    def from_text(cls, text: str) -> Sketch:
        """Read a sketch from the text that `to_text` returned.

        Raises
        ------
        ValueError
            The text is not a sketch.
        """
        try:
            data = base64.b64decode(text, validate=True)
        except ValueError as error:
            raise ValueError("the sketch of an image is not base64") from error
        count, rest = divmod(len(data) - 4, _POINT.itemsize)
        if rest or not 0 <= count <= SKETCH_POINTS:
            raise ValueError(f"the sketch of an image has {len(data)} bytes")
        height, width = (int(length) for length in np.frombuffer(data[:4], "<u2"))
        if not (0 < height <= SKETCH_SIDE and 0 < width <= SKETCH_SIDE):
            raise ValueError(f"the sketch is of an image of {height} x {width} pixels")
        return cls(height, width, np.frombuffer(data[4:], _POINT))


def make_sketch(image_cyx: NDArray[Any]) -> Sketch:
    """Find the most distinct points of an image.

    Brightness, contrast and the largest and smallest values of the image change the result little.

    Parameters
    ----------
    image_cyx
        Image ``(C, Y, X)``, any real dtype, raw units.

    Returns
    -------
    Sketch
        Sketch without points if the image is constant or tiny.

    Examples
    --------
    >>> image_cyx = np.random.default_rng(0).normal(size=(1, 100, 80))
    >>> sketch = make_sketch(image_cyx)
    >>> sketch.height, sketch.width, 0 < len(sketch.points) <= 50
    (100, 80, True)
    >>> Sketch.from_text(sketch.to_text()).to_text() == sketch.to_text()
    True
    """
    grey_yx = _make_grey(image_cyx)
    height, width = grey_yx.shape
    empty = Sketch(height, width, np.zeros(0, _POINT))
    if min(height, width) < _LEAST_SIDE or grey_yx.min() == grey_yx.max():
        return empty
    sift = cv2.SIFT_create(contrastThreshold=_CONTRAST)  # type: ignore[attr-defined]
    found = _choose_points(sift.detect(grey_yx, None), height, width)
    found, described = sift.compute(grey_yx, found)
    if not found:
        return empty
    reduced = np.sqrt(described / np.maximum(described.sum(axis=1, keepdims=True), 1)) @ _BASIS.T
    reduced /= np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-6)
    points = np.zeros(len(found), _POINT)
    points["descriptor"] = np.rint(127 * reduced)
    places = np.array([point.pt for point in found]).clip(0, SKETCH_SIDE)
    points["x"], points["y"] = np.rint(places * _PLACE_STEPS).astype(np.uint16).T
    points["size"] = np.rint(_SIZE_STEPS * np.log2([max(1.0, point.size) for point in found])).clip(0, 255)
    points["angle"] = np.rint(np.array([point.angle for point in found]) * (_ANGLE_STEPS / 360)) % _ANGLE_STEPS
    return Sketch(height, width, points)


def _make_grey(image_cyx: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the mean of the channels ``(Y, X)``, each stretched to its contrast, reduced to `SKETCH_SIDE`."""
    height, width = image_cyx.shape[1:]
    scale = min(1.0, SKETCH_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    step = int(np.ceil(np.sqrt(max(1, height * width / _SAMPLE))))
    total_yx = np.zeros(size[::-1], np.float32)
    for plane_yx in image_cyx:
        sample = plane_yx[::step, ::step]
        sample = sample[np.isfinite(sample)]
        sample = drop_values(sample, find_fillers(sample)) if sample.size else sample
        if not sample.size or sample.min() == sample.max():
            continue
        low, high = (float(value) for value in np.percentile(sample, (0.5, 99.5)))
        if low == high:
            low, high = float(sample.min()), float(sample.max())
        values_yx = np.nan_to_num(plane_yx.astype(np.float32), nan=low, posinf=high, neginf=low)
        values_yx = (values_yx.clip(low, high) - low) * np.float32(255 / (high - low))
        total_yx += cv2.resize(values_yx, size, interpolation=cv2.INTER_AREA)
    return np.rint(total_yx / len(image_cyx)).astype(np.uint8)


def _choose_points(found: Any, height: int, width: int) -> list[Any]:
    """Return the strongest points, spread over the image."""
    found = sorted(found, key=lambda point: (-point.response, point.pt, point.angle))
    cells: dict[tuple[int, int], int] = {}
    ranked = []
    for order, point in enumerate(found):
        cell = (int(point.pt[1] * _CELLS / height), int(point.pt[0] * _CELLS / width))
        cells[cell] = rank = cells.get(cell, -1) + 1
        ranked.append((rank // _ROUND, order))
    return [found[order] for _, order in sorted(ranked)[:SKETCH_POINTS]]
