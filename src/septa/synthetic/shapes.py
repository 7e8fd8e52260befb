"""Drawings of geometric figures: six shapes that overlap."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Offsets = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SHAPE_NAMES = ("square", "disk", "triangle", "ring", "mesh", "plus")
"""Classes of `septa.synthetic.dataset.draw_shapes`, in the order of its masks."""


def paint_figures(
    height: int, width: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw figures as `septa.synthetic.dataset.draw_shapes` describes them.

    Parameters
    ----------
    height, width
        Size in pixels, at least 32 each.
    rng
        Source of all randomness; its state determines the drawing.

    Returns
    -------
    image_yx, masks_kyx
        Grey values, uint8 ``YX``, and one plane of 0 and 1 for each of `SHAPE_NAMES`, uint8 ``KYX``.
    """
    masks_kyx = np.zeros((len(SHAPE_NAMES), height, width), np.uint8)
    darkness_yx = np.full((height, width), 1 - rng.uniform(0.1, 0.25), np.float32)
    frame = min(192, height, width)
    for _ in range(max(1, round(height * width / 192**2))):
        for mask_yx, figure in zip(masks_kyx, _FIGURES):
            radius = max(5, round(rng.uniform(0.09, 0.18) * frame))
            y = int(rng.integers(radius, height - radius))
            x = int(rng.integers(radius, width - radius))
            place = slice(y - radius, y + radius + 1), slice(x - radius, x + radius + 1)
            offset = np.arange(-radius, radius + 1)
            inside_yx = figure(offset[:, None], offset[None, :], radius)
            mask_yx[place] |= inside_yx.astype(np.uint8)
            darkness_yx[place] *= 1 - np.float32(rng.uniform(0.25, 0.5)) * inside_yx
    image_yx = cv2.GaussianBlur(255 * (1 - darkness_yx), (0, 0), 0.6) + rng.normal(0, 7, (height, width))
    return np.rint(image_yx).clip(0, 255).astype(np.uint8), masks_kyx


def _draw_square(dy: Offsets, dx: Offsets, radius: int) -> Mask:
    return np.asarray(np.maximum(abs(dy), abs(dx)) <= radius)


def _draw_disk(dy: Offsets, dx: Offsets, radius: int) -> Mask:
    return np.asarray(dy**2 + dx**2 <= radius**2)


def _draw_triangle(dy: Offsets, dx: Offsets, radius: int) -> Mask:
    return np.asarray(2 * abs(dx) <= dy + radius)


def _draw_ring(dy: Offsets, dx: Offsets, radius: int) -> Mask:
    return _draw_disk(dy, dx, radius) & ~_draw_disk(dy, dx, radius - _compute_stroke(radius))


def _draw_mesh(dy: Offsets, dx: Offsets, radius: int) -> Mask:
    # Four bars per side leave three windows, as equal as whole pixels allow.
    stroke = _compute_stroke(radius)
    bars = np.rint(np.linspace(-radius, radius + 1 - stroke, 4)).astype(int)
    on_bar = [((d[..., None] >= bars) & (d[..., None] < bars + stroke)).any(-1) for d in (dy, dx)]
    return np.asarray(on_bar[0] | on_bar[1])


def _draw_plus(dy: Offsets, dx: Offsets, radius: int) -> Mask:
    return np.asarray(np.minimum(abs(dy), abs(dx)) <= _compute_stroke(radius))


def _compute_stroke(radius: int) -> int:
    return max(1, round(radius / 7))


_FIGURES: tuple[Callable[[Offsets, Offsets, int], Mask], ...] = (
    _draw_square,
    _draw_disk,
    _draw_triangle,
    _draw_ring,
    _draw_mesh,
    _draw_plus,
)
