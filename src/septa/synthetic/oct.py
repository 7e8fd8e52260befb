"""Drawings of optical coherence tomography: B-scans of a retina, with or without fluid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Lower boundary of each layer (0 at the inner limiting membrane, 1 below the pigment epithelium) and its reflectivity.
_LAYERS = (
    (0.10, 0.80),  # nerve fibres
    (0.31, 0.42),  # ganglion cells
    (0.43, 0.24),  # inner nuclear layer
    (0.51, 0.46),  # outer plexiform layer
    (0.76, 0.17),  # outer nuclear layer
    (0.78, 0.40),  # limiting membrane
    (0.83, 0.24),
    (0.88, 0.85),  # ellipsoid zone
    (0.92, 0.42),
    (1.00, 1.00),  # pigment epithelium
)
# Reflectivity of the other tissues.
_VITREOUS = 0.012
_CHOROID = 0.34
_SCLERA = 0.08
_FLUID = 0.02

# Relative depth at which the upper layers meet in the fovea.
_PIT_FLOOR = 0.50

# Index of the boundary above the pigment epithelium.
_EPITHELIUM = len(_LAYERS) - 1

# Rough range of the share of fluid among the pixels.
_SMALLEST_SHARE = 0.008
_LARGEST_SHARE = 0.04
_MOST_CYSTS = 16


@dataclass(frozen=True)
class _Retina:
    """Geometry of a retina.

    Attributes
    ----------
    bounds_kx
        Boundaries of the K layers in pixels from the top, ``(K + 1, X)``; the inner limiting membrane is the first.
    thickness
        Thickness in pixels, outside the pit.
    """

    bounds_kx: Float32
    thickness: float


@dataclass(frozen=True, kw_only=True)
class _Cyst:
    """Pool of fluid in a layer.

    Attributes
    ----------
    layer
        Index of the layer.
    middle_x
        Column of the middle, pixels.
    half_y, half_x
        Half axes, pixels.
    harmonics
        Strength and phase of the harmonics of its outline, from the 2nd.
    """

    layer: int
    middle_x: float
    half_y: float
    half_x: float
    harmonics: tuple[tuple[float, float], ...]


def paint_scan(
    height: int, width: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw a B-scan as `septa.synthetic.dataset.draw_oct` describes it.

    Parameters
    ----------
    height, width
        Size in pixels.
    rng
        Source of all randomness; its state determines the drawing.

    Returns
    -------
    image_yx, labels_yx
        Grey values, uint8 ``YX``, and labels, uint8 ``YX``: 255 in fluid, 0 elsewhere.
    """
    retina = _draw_retina(height, width, rng)
    fluid_yx = np.zeros((height, width), bool)
    if rng.random() < 0.7:
        retina, fluid_yx = _add_fluid(retina, height, rng)
    reflectivity_yx = _draw_tissue(retina, height, rng)
    reflectivity_yx[fluid_yx] = _FLUID * rng.uniform(0.6, 1.6)
    return _simulate_scanner(reflectivity_yx, retina, rng), np.where(fluid_yx, 255, 0).astype(np.uint8)


def _draw_retina(height: int, width: int, rng: np.random.Generator) -> _Retina:
    """Draw a healthy retina: tilted, bent and undulating, with a foveal pit."""
    thickness = float(rng.uniform(0.27, 0.36) * height)
    along = np.linspace(-1, 1, width, dtype=np.float32)
    bottom = height * np.float32(rng.uniform(0.60, 0.68)) + np.zeros(width, np.float32)
    bottom += height * (rng.uniform(-0.05, 0.05) * along - rng.uniform(-0.03, 0.05) * along**2).astype(np.float32)
    bottom += np.float32(0.006 * height) * _draw_line(width, width / 4, rng)
    middle = rng.uniform(-0.45, 0.45)
    reach = rng.uniform(0.16, 0.3)
    depth = rng.uniform(0.6, 0.95)
    pit = (depth * np.exp(-0.5 * ((along - middle) / reach) ** 2)).astype(np.float32)
    # The layer of nerve fibres thickens towards the optic disc, which lies on one side.
    fibres = 1 + rng.choice([-1, 1]) * rng.uniform(0.3, 0.8) * along
    bounds = []
    for index, place in enumerate([0.0, *(place for place, _ in _LAYERS)]):
        fraction = np.full(width, place, np.float32)
        if index == 1:
            fraction *= fibres.astype(np.float32)
        if place < _PIT_FLOOR:
            fraction += (_PIT_FLOOR - fraction) * pit
        waviness = 0.006 if index < _EPITHELIUM else 0.003
        fraction += np.float32(waviness) * _draw_line(width, width / 12, rng)
        bounds.append(bottom - (1 - fraction) * np.float32(thickness))
    return _Retina(np.maximum.accumulate(np.stack(bounds)), thickness)


def _add_fluid(retina: _Retina, height: int, rng: np.random.Generator) -> tuple[_Retina, Mask]:
    """Add pools of fluid, which swell the retina, until they cover a randomly drawn share of the image."""
    width = retina.bounds_kx.shape[1]
    pixels = height * width
    goal = math.exp(rng.uniform(math.log(_SMALLEST_SHARE), math.log(_LARGEST_SHARE))) * pixels
    lens = np.zeros(width, np.float32)
    if rng.random() < 0.5:
        lens = _draw_lens(width, retina.thickness, min(goal, 0.02 * pixels), rng)
    cluster = rng.uniform(0.25, 0.75) * width
    cysts: list[_Cyst] = []
    while True:
        swollen, fluid_yx = _swell(retina, height, lens, cysts)
        missing = goal - np.count_nonzero(fluid_yx)
        if missing <= 0.1 * goal or len(cysts) == _MOST_CYSTS:
            return swollen, fluid_yx
        area = max(min(missing, 0.015 * pixels) * rng.uniform(0.3, 1), 0.0015 * pixels, 12)
        middle_x = float(np.clip(rng.normal(cluster, 0.16 * width), 0, width - 1))
        cysts.append(_draw_cyst(retina, int(rng.choice([2, 4], p=[0.4, 0.6])), middle_x, area, rng))


def _draw_lens(width: int, thickness: float, area: float, rng: np.random.Generator) -> Float32:
    """Draw a flat pool under the retina, as its height at every column."""
    tallest = min(rng.uniform(0.12, 0.35) * thickness, area / (0.2 * width))
    # Half the width of a segment of a parabola with this area and height.
    reach = area / (4 / 3 * max(tallest, 1.0))
    middle = rng.uniform(0.25, 0.75) * width
    along = (np.arange(width) - middle) / max(reach, 1.0)
    shape = (1 - along**2).clip(0, None) * (1 + 0.15 * _draw_line(width, max(reach / 2, 2), rng))
    return np.asarray(tallest * shape.clip(0, None), np.float32)


def _draw_cyst(retina: _Retina, layer: int, middle_x: float, area: float, rng: np.random.Generator) -> _Cyst:
    """Draw a rounded pool in a layer: never much taller than the layer, and never much wider than tall."""
    top, bottom = retina.bounds_kx[layer : layer + 2, int(middle_x)]
    half_y = min(math.sqrt(area / math.pi * rng.uniform(0.6, 1.3)), max(0.75 * float(bottom - top), 2.5))
    half_x = min(area / (math.pi * half_y), 2.5 * half_y)
    strengths = rng.normal(0, 0.18, 4) / np.arange(2, 6)
    phases = rng.uniform(0, 2 * math.pi, 4)
    return _Cyst(
        layer=layer,
        middle_x=middle_x,
        half_y=half_y,
        half_x=half_x,
        harmonics=tuple(zip(strengths.tolist(), phases.tolist())),
    )


def _swell(retina: _Retina, height: int, lens: Float32, cysts: list[_Cyst]) -> tuple[_Retina, Mask]:
    """Move the layers apart to make room for the pools, then draw the pools."""
    bounds_kx = retina.bounds_kx.copy()
    columns = np.arange(bounds_kx.shape[1], dtype=np.float32)
    rows = np.arange(height, dtype=np.float32)[:, None]
    # Fluid under the retina lifts the whole retina off the pigment epithelium.
    bounds_kx[:_EPITHELIUM] -= lens
    for cyst in cysts:
        # Tissue moves over a wider stretch than the pool, and by less than the height of the pool.
        reach = max(1.4 * cyst.half_x, 0.3 * retina.thickness)
        bulge = np.float32(0.7 * cyst.half_y) * np.exp(-0.5 * ((columns - cyst.middle_x) / reach) ** 2)
        bounds_kx[: cyst.layer + 1] -= bulge.astype(np.float32)
    below = bounds_kx[_EPITHELIUM]
    fluid_yx = (rows >= below - lens) & (rows < below)
    for cyst in cysts:
        _fill_cyst(cyst, bounds_kx, fluid_yx)
    return _Retina(bounds_kx, retina.thickness), fluid_yx


def _fill_cyst(cyst: _Cyst, bounds_kx: Float32, fluid_yx: Mask) -> None:
    """Add to the mask an ellipse with four harmonics, as far as it lies inside the retina."""
    middle_y = float(bounds_kx[cyst.layer : cyst.layer + 2, int(cyst.middle_x)].mean())
    rows, columns = (
        np.arange(max(int(middle - 1.8 * half), 0), min(int(middle + 1.8 * half) + 2, size))
        for middle, half, size in zip((middle_y, cyst.middle_x), (cyst.half_y, cyst.half_x), fluid_yx.shape)
    )
    down = (rows[:, None] - middle_y) / cyst.half_y
    across = (columns[None] - cyst.middle_x) / cyst.half_x
    angle_yx = np.arctan2(down, across)
    outline_yx = np.ones_like(angle_yx)
    for wave, (strength, phase) in enumerate(cyst.harmonics, start=2):
        outline_yx += strength * np.cos(wave * angle_yx + phase)
    pool_yx = np.hypot(down, across) < outline_yx
    pool_yx &= (rows[:, None] > bounds_kx[1, columns]) & (rows[:, None] < bounds_kx[_EPITHELIUM - 1, columns])
    fluid_yx[np.ix_(rows, columns)] |= pool_yx


def _draw_tissue(retina: _Retina, height: int, rng: np.random.Generator) -> Float32:
    """Draw the reflectivity of vitreous, retina, choroid and sclera, at most about 1."""
    bounds_kx = retina.bounds_kx
    width = bounds_kx.shape[1]
    rows = np.arange(height, dtype=np.float32)[:, None]
    depth_yx = rows - bounds_kx[-1]
    choroid = np.float32(retina.thickness * rng.uniform(0.5, 0.9)) * (1 + np.float32(0.1) * _draw_line(width, 90, rng))
    reflectivity_yx = np.full((height, width), _VITREOUS, np.float32)
    steps = [_VITREOUS, *(light * rng.uniform(0.88, 1.12) for _, light in _LAYERS), _CHOROID]
    for bound, before, after in zip(bounds_kx, steps, steps[1:]):
        reflectivity_yx += np.float32(after - before) * (rows - bound + np.float32(0.5)).clip(0, 1)
    scale = max(height / 26, 3.0)
    # Vessels of the choroid are dark; just below the pigment epithelium they are too fine to be seen.
    vessels_yx = (np.float32(2) * _draw_sheet(height, width, scale, rng) - np.float32(0.3)).clip(0, 1)
    vessels_yx *= ((depth_yx / np.float32(retina.thickness) - np.float32(0.06)) * 12).clip(0, 1)
    reflectivity_yx *= 1 - np.float32(0.65) * vessels_yx
    beyond_yx = ((depth_yx - choroid) / np.float32(0.12 * retina.thickness)).clip(0, 1)
    reflectivity_yx += (_SCLERA - reflectivity_yx) * beyond_yx
    grain_yx = 1 + np.float32(0.10) * _draw_sheet(height, width, max(height / 60, 2.0), rng)
    return np.asarray(reflectivity_yx * grain_yx.clip(0.4, None), np.float32)


def _simulate_scanner(reflectivity_yx: Float32, retina: _Retina, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Simulate scanner and display: light lost with depth, vessel shadows, blur, speckle, noise floor, 8 bits."""
    height, width = reflectivity_yx.shape
    lost_yx = np.cumsum(reflectivity_yx, axis=0, dtype=np.float32) * np.float32(rng.uniform(2.0, 3.5) / height)
    light_yx = reflectivity_yx * np.exp(-lost_yx)
    light_yx *= _draw_shadows(retina, height, rng)
    light_yx = np.asarray(cv2.GaussianBlur(light_yx, (0, 0), rng.uniform(0.6, 0.9)), np.float32)
    light_yx *= 1 + np.float32(0.08) * _draw_line(width, width / 5, rng)
    light_yx += np.float32(rng.uniform(0.006, 0.016))
    # Number of scans that are averaged.
    looks = rng.uniform(3, 7)
    light_yx *= (rng.standard_gamma(looks, (height, width), np.float32) / np.float32(looks)).clip(0.02, None)
    shown_yx = (rng.uniform(210, 260) * light_yx.clip(0, None) ** np.float32(rng.uniform(0.42, 0.52))).clip(0, 255)
    return np.asarray(np.rint(shown_yx), np.uint8)


def _draw_shadows(retina: _Retina, height: int, rng: np.random.Generator) -> Float32:
    """Draw the share of light that passes retinal vessels: narrow columns are dark from the vessel downwards."""
    width = retina.bounds_kx.shape[1]
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    passing_yx = np.ones((height, width), np.float32)
    for _ in range(rng.integers(2, 7)):
        middle = rng.uniform(0, width)
        half = max(rng.uniform(0.004, 0.014) * width, 0.8)
        profile = np.float32(rng.uniform(0.35, 0.75)) * np.exp(-0.5 * ((columns - middle) / half) ** 2)
        under_yx = ((rows - retina.bounds_kx[1]) / np.float32(0.05 * retina.thickness)).clip(0, 1)
        passing_yx *= 1 - profile * under_yx
    return passing_yx


def _draw_line(length: int, period: float, rng: np.random.Generator) -> Float32:
    """Draw Gaussian noise of roughly unit variance along one axis, with structures about ``period`` pixels long."""
    coarse = rng.standard_normal((1, math.ceil(length / period) + 3), np.float32)
    return np.asarray(cv2.resize(coarse, (length, 1), interpolation=cv2.INTER_CUBIC)[0], np.float32)


def _draw_sheet(height: int, width: int, period: float, rng: np.random.Generator) -> Float32:
    """Draw Gaussian noise along two axes, with structures ``period`` pixels high and twice as wide."""
    coarse = rng.standard_normal((math.ceil(height / period) + 1, math.ceil(width / (2 * period)) + 1), np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
