"""Drawings of fluorescent cells: a random specimen, and a simulation of optics and camera."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from septa.kernels import label_parts

Float32 = npt.NDArray[np.float32]


_DIAMETER = 22.0
"""Typical diameter in pixels of cells for which none is asked; blur, texture and debris are made for it."""


def paint_cells(
    height: int, width: int, rng: np.random.Generator, diameter: float | None = None
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int32]]:
    """Draw cells as `septa.synthetic.dataset.draw_cells` describes them.

    Parameters
    ----------
    height, width
        Size in pixels.
    rng
        Source of all randomness; its state determines the drawing.
    diameter
        Typical diameter of a cell in pixels; by default drawn for each image, about 16 to 28.

    Returns
    -------
    image_yx, labels_yx
        Camera counts, uint16 ``YX``, and instance ids, int32 ``YX``, contiguous from 1.
    """
    labels_yx, depth_yx = _place_cells(height, width, rng, diameter)
    scale = 1.0 if diameter is None else diameter / _DIAMETER
    emission_yx = _draw_emission(labels_yx, depth_yx, rng, scale)
    return _simulate_camera(emission_yx, rng, scale), labels_yx


def _place_cells(
    height: int, width: int, rng: np.random.Generator, diameter: float | None
) -> tuple[npt.NDArray[np.int32], Float32]:
    """Draw instance ids and the relative depth of each pixel in its cell: 0 in the middle, 1 at the free outline."""
    owner_yx = np.zeros((height, width), np.int32)
    depth_yx = np.ones((height, width), np.float32)
    middles: list[tuple[float, float, float]] = []
    typical_radius = rng.uniform(8, 14) if diameter is None else diameter / 2
    least_area = 30 if diameter is None else max(round(30 * (diameter / _DIAMETER) ** 2), 4)
    goal = rng.uniform(0.15, 0.5) * height * width
    clustering = rng.uniform(0.3, 0.8)
    covered = 0
    # Failures since the last cell was placed.
    failures = 0
    while covered < goal and failures < 100:
        radius = typical_radius * rng.lognormal(0, 0.18)
        y, x = rng.uniform(-0.3 * radius, (height + 0.3 * radius, width + 0.3 * radius))
        if middles and rng.random() < clustering:
            # Next to another cell, close enough to touch it.
            other_y, other_x, other_radius = middles[rng.integers(len(middles))]
            direction = rng.uniform(0, 2 * math.pi)
            distance = (radius + other_radius) * rng.uniform(0.85, 1.05)
            y, x = other_y + distance * math.sin(direction), other_x + distance * math.cos(direction)
        place, cell_depth_yx = _draw_cell(y, x, radius, (height, width), rng)
        inside_yx = cell_depth_yx < 1
        area = np.count_nonzero(inside_yx)
        taken = np.count_nonzero(owner_yx[place][inside_yx])
        if area < least_area or taken > 0.25 * area:
            failures += 1
            continue
        # Two overlapping cells share the overlap: each pixel goes to the cell whose middle is relatively nearer. They
        # meet in a nearly flat wall.
        nearer_yx = cell_depth_yx < depth_yx[place]
        middles.append((y, x, radius))
        owner_yx[place][nearer_yx] = len(middles)
        depth_yx[place][nearer_yx] = cell_depth_yx[nearer_yx]
        covered += int(area - taken)
        failures = 0
    return _keep_largest_parts(owner_yx, least_area), depth_yx


def _draw_cell(
    y: float, x: float, radius: float, size_hw: tuple[int, int], rng: np.random.Generator
) -> tuple[tuple[slice, slice], Float32]:
    """Draw one cell: its place, and there the distance from its middle relative to its outline.

    The outline is an ellipse with four random harmonics.
    """
    tilt = rng.uniform(0, math.pi)
    aspect = rng.uniform(1, 1.6)
    waves = np.arange(2, 6)
    strengths = rng.normal(0, 0.09, 4) * 2 / waves
    phases = rng.uniform(0, 2 * math.pi, 4)
    reach = math.ceil(radius * math.sqrt(aspect) * (1 + np.abs(strengths).sum()))
    rows, columns = (
        np.arange(max(round(middle) - reach, 0), min(round(middle) + reach + 1, size))
        for middle, size in zip((y, x), size_hw)
    )
    if not len(rows) or not len(columns):
        return (slice(0, 0), slice(0, 0)), np.ones((0, 0), np.float32)
    dy = (rows[:, None] - y).astype(np.float32)
    dx = (columns[None, :] - x).astype(np.float32)
    along = dx * math.cos(tilt) + dy * math.sin(tilt)
    across = dy * math.cos(tilt) - dx * math.sin(tilt)
    angle_yx = np.arctan2(across, along)
    outline_yx = np.ones_like(angle_yx)
    for wave, strength, phase in zip(waves, strengths, phases):
        outline_yx += np.float32(strength) * np.cos(np.float32(wave) * angle_yx + np.float32(phase))
    distance_yx = np.hypot(along / math.sqrt(aspect), across * math.sqrt(aspect))
    place = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return place, (distance_yx / (radius * outline_yx)).astype(np.float32)


def _keep_largest_parts(owner_yx: npt.NDArray[np.int32], least_area: int) -> npt.NDArray[np.int32]:
    """Keep the largest 4-connected part of each cell, unless it is below the least area, and number them from 1."""
    parts_yx = label_parts(owner_yx)
    parts, first, areas = np.unique(parts_yx, return_index=True, return_counts=True)
    owners = owner_yx.ravel()[first]
    largest = np.zeros(owners.max() + 1, np.int64)
    np.maximum.at(largest, owners, areas)
    kept = (parts > 0) & (areas == largest[owners]) & (areas >= least_area)
    _, only = np.unique(np.where(kept, owners, 0), return_index=True)
    ids = np.zeros(len(parts), np.int32)
    only = only[kept[only]]
    ids[np.sort(only)] = np.arange(1, len(only) + 1)
    return np.asarray(ids[parts_yx])


def _draw_emission(
    labels_yx: npt.NDArray[np.int32], depth_yx: Float32, rng: np.random.Generator, scale: float
) -> Float32:
    """Draw the light that leaves the specimen, about 1 inside a typical cell."""
    brightness = rng.lognormal(0, 0.35, labels_yx.max() + 1).astype(np.float32)
    brightness[0] = 0
    flatness = rng.uniform(0.25, 0.7)
    emission_yx = brightness[labels_yx] * (1 - depth_yx.clip(0, 0.995) ** 2) ** np.float32(flatness)
    emission_yx *= _draw_textures(labels_yx, rng, scale)
    return np.asarray(emission_yx)


def _draw_textures(labels_yx: npt.NDArray[np.int32], rng: np.random.Generator, scale: float) -> Float32:
    """Draw a chromatin-like texture: every cell shows a random piece of one sheet, so it changes at common walls."""
    side = math.ceil(192 * max(scale, 1))
    fine_yx = np.float32(0.12) * _draw_noise(side, side, 3 * scale, rng)
    coarse_yx = np.float32(0.12) * _draw_noise(side, side, 8 * scale, rng)
    spots_yx = _draw_noise(side, side, 5 * scale, rng)
    sheet_yx = (1 + (fine_yx + coarse_yx) - np.float32(0.35) * (spots_yx > 1.1)).clip(0.25, None)
    height, width = labels_yx.shape
    cells = labels_yx.max() + 1
    shift_y, shift_x = rng.integers(side, size=(2, cells))
    row_yx = (np.arange(height)[:, None] + shift_y[labels_yx]) % side
    column_yx = (np.arange(width)[None, :] + shift_x[labels_yx]) % side
    pieces_yx: Float32 = sheet_yx[row_yx, column_yx]
    return pieces_yx


def _simulate_camera(emission_yx: Float32, rng: np.random.Generator, scale: float) -> npt.NDArray[np.uint16]:
    """Simulate optics and camera: blur, haze, debris, illumination, shot noise, read noise, gain, offset, 16 bits."""
    height, width = emission_yx.shape
    light_yx = cv2.GaussianBlur(emission_yx, (0, 0), rng.uniform(0.8, 1.7) * min(math.sqrt(scale), 1.5))
    # Light from above and below the focal plane. It is blurred at reduced size, as only low frequencies remain.
    small_hw = max(height // 8, 1), max(width // 8, 1)
    small_yx = cv2.resize(emission_yx, small_hw[::-1], interpolation=cv2.INTER_AREA)
    haze_yx = cv2.resize(cv2.GaussianBlur(small_yx, (0, 0), 2.5), (width, height), interpolation=cv2.INTER_CUBIC)
    light_yx = light_yx + np.float32(rng.uniform(0.1, 0.3)) * haze_yx.clip(0, None)
    light_yx += np.float32(rng.uniform(0.03, 0.12)) * (1 + np.float32(0.3) * _draw_noise(height, width, 90, rng))
    light_yx += _draw_debris(height, width, rng, scale)
    light_yx *= _draw_illumination(height, width, rng)
    electrons_yx = light_yx.clip(0, None) * (rng.uniform(150, 900) / light_yx.max())
    read_noise = rng.uniform(1.5, 4)
    counted_yx = rng.poisson(electrons_yx) + rng.normal(0, read_noise, (height, width))
    # The brightest pixel stays so far below 65535, and the darkest so far above 0, that noise saturates neither.
    gain = rng.uniform(8_000, 34_000) / float(electrons_yx.max())
    offset = rng.uniform(100, 400) + 6 * read_noise * gain
    counts_yx = np.rint(counted_yx * gain + offset).clip(0, 65_535)
    return np.asarray(counts_yx.astype(np.uint16))


def _draw_debris(height: int, width: int, rng: np.random.Generator, scale: float) -> Float32:
    """Draw faint specks that are smaller than any cell and not labelled."""
    specks_yx = np.zeros((height, width), np.float32)
    number = rng.poisson(height * width / 10_000)
    specks_yx[rng.integers(height, size=number), rng.integers(width, size=number)] = rng.uniform(1, 5, number)
    return np.asarray(cv2.GaussianBlur(specks_yx, (0, 0), 1.3 * min(scale, 1)))


def _draw_illumination(height: int, width: int, rng: np.random.Generator) -> Float32:
    """Draw excitation that falls off from a bright spot near the middle of the field, at most 1."""
    spot_y, spot_x = rng.uniform(0.25, 0.75, 2)
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height - np.float32(spot_y)
    x = (np.arange(width, dtype=np.float32)[None, :] + 0.5) / width - np.float32(spot_x)
    return np.asarray(1 - np.float32(rng.uniform(0.2, 0.6)) * (y**2 + x**2), np.float32)


def _draw_noise(height: int, width: int, period: float, rng: np.random.Generator) -> Float32:
    """Draw Gaussian noise of roughly unit variance, with structures about ``period`` pixels wide."""
    coarse = rng.standard_normal((math.ceil(height / period) + 1, math.ceil(width / period) + 1), np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
