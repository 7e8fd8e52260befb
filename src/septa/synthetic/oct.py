"""Optical coherence tomography drawn from random numbers: a cut through a retina, with fluid in it or without."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Lower boundary of each layer, 0 at the inner limiting membrane and 1 below the pigment epithelium, and how much
# light the layer sends back.
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
_VITREOUS, _CHOROID, _SCLERA, _FLUID = 0.012, 0.34, 0.08, 0.02
_PIT_FLOOR = 0.50  # where the layers above meet in the fovea
_EPITHELIUM = len(_LAYERS) - 1  # index of the boundary above it
_SMALLEST_SHARE, _LARGEST_SHARE = 0.008, 0.04  # of fluid, roughly
_MOST_CYSTS = 16


@dataclass(frozen=True)
class _Retina:
    """Boundaries of the layers, pixels from the top, ``(K + 1, X)``, the inner limiting membrane first."""

    bounds_kx: Float32
    thickness: float


@dataclass(frozen=True)
class _Cyst:
    """A pool in a layer: place and half axes, pixels; strength and phase of its outline's harmonics from the 2nd."""

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
        Size, pixels.
    rng
        Source of all randomness: its state decides the drawing.

    Returns
    -------
    image_yx, labels_yx
        uint8 grey values, and uint8 labels: 255 in fluid, 0 elsewhere.
    """
    retina = _grow(height, width, rng)
    fluid_yx = np.zeros((height, width), bool)
    if rng.random() < 0.7:
        retina, fluid_yx = _flood(retina, height, rng)
    reflectivity_yx = _tissue(retina, height, rng)
    reflectivity_yx[fluid_yx] = _FLUID * rng.uniform(0.6, 1.6)
    return _scan(reflectivity_yx, retina, rng), np.where(fluid_yx, 255, 0).astype(np.uint8)


def _grow(height: int, width: int, rng: np.random.Generator) -> _Retina:
    """A healthy retina: tilted, bent and undulating, with a pit."""
    thickness = float(rng.uniform(0.27, 0.36) * height)
    along = np.linspace(-1, 1, width, dtype=np.float32)
    bottom = height * np.float32(rng.uniform(0.60, 0.68)) + np.zeros(width, np.float32)
    bottom += height * (rng.uniform(-0.05, 0.05) * along - rng.uniform(-0.03, 0.05) * along**2).astype(np.float32)
    bottom += np.float32(0.006 * height) * _smooth_line(width, width / 4, rng)
    middle, reach, deepness = rng.uniform(-0.45, 0.45), rng.uniform(0.16, 0.3), rng.uniform(0.6, 0.95)
    pit = (deepness * np.exp(-0.5 * ((along - middle) / reach) ** 2)).astype(np.float32)
    # Nerve fibres thicken towards the optic disc, which lies on one side.
    fibres = 1 + rng.choice([-1, 1]) * rng.uniform(0.3, 0.8) * along
    bounds = []
    for index, place in enumerate([0.0, *(place for place, _ in _LAYERS)]):
        fraction = np.full(width, place, np.float32)
        if index == 1:
            fraction *= fibres.astype(np.float32)
        if place < _PIT_FLOOR:
            fraction += (_PIT_FLOOR - fraction) * pit
        waviness = 0.006 if index < _EPITHELIUM else 0.003
        fraction += np.float32(waviness) * _smooth_line(width, width / 12, rng)
        bounds.append(bottom - (1 - fraction) * np.float32(thickness))
    return _Retina(np.maximum.accumulate(np.stack(bounds)), thickness)


def _flood(retina: _Retina, height: int, rng: np.random.Generator) -> tuple[_Retina, Mask]:
    """Swell the retina with pools of fluid until they cover the wanted share of the image."""
    width = retina.bounds_kx.shape[1]
    pixels = height * width
    wanted = math.exp(rng.uniform(math.log(_SMALLEST_SHARE), math.log(_LARGEST_SHARE))) * pixels
    lens = np.zeros(width, np.float32)
    if rng.random() < 0.5:
        lens = _lens(width, retina.thickness, min(wanted, 0.02 * pixels), rng)
    cluster = rng.uniform(0.25, 0.75) * width
    cysts: list[_Cyst] = []
    while True:
        swollen, fluid_yx = _fill(retina, height, lens, cysts)
        missing = wanted - np.count_nonzero(fluid_yx)
        if missing <= 0.1 * wanted or len(cysts) == _MOST_CYSTS:
            return swollen, fluid_yx
        area = max(min(missing, 0.015 * pixels) * rng.uniform(0.3, 1), 0.0015 * pixels, 12)
        middle_x = float(np.clip(rng.normal(cluster, 0.16 * width), 0, width - 1))
        cysts.append(_cyst(retina, int(rng.choice([2, 4], p=[0.4, 0.6])), middle_x, area, rng))


def _lens(width: int, thickness: float, area: float, rng: np.random.Generator) -> Float32:
    """Height of a pool under the retina at every column."""
    tallest = min(rng.uniform(0.12, 0.35) * thickness, area / (0.2 * width))
    reach = area / (4 / 3 * max(tallest, 1.0))  # half its width, as the area of a parabola's segment tells
    middle = rng.uniform(0.25, 0.75) * width
    along = (np.arange(width) - middle) / max(reach, 1.0)
    shape = (1 - along**2).clip(0, None) * (1 + 0.15 * _smooth_line(width, max(reach / 2, 2), rng))
    return np.asarray(tallest * shape.clip(0, None), np.float32)


def _cyst(retina: _Retina, layer: int, middle_x: float, area: float, rng: np.random.Generator) -> _Cyst:
    """A rounded pool in a layer: never much taller than the layer, never much wider than tall."""
    top, bottom = retina.bounds_kx[layer : layer + 2, int(middle_x)]
    half_y = min(math.sqrt(area / math.pi * rng.uniform(0.6, 1.3)), max(0.75 * float(bottom - top), 2.5))
    half_x = min(area / (math.pi * half_y), 2.5 * half_y)
    strengths, phases = rng.normal(0, 0.18, 4) / np.arange(2, 6), rng.uniform(0, 2 * math.pi, 4)
    return _Cyst(layer, middle_x, half_y, half_x, tuple(zip(strengths.tolist(), phases.tolist())))


def _fill(retina: _Retina, height: int, lens: Float32, cysts: list[_Cyst]) -> tuple[_Retina, Mask]:
    """Make room for the pools, then draw them."""
    bounds_kx = retina.bounds_kx.copy()
    columns = np.arange(bounds_kx.shape[1], dtype=np.float32)
    rows = np.arange(height, dtype=np.float32)[:, None]
    # Fluid under the retina lifts all of it off the pigment epithelium.
    bounds_kx[:_EPITHELIUM] -= lens
    for cyst in cysts:
        # Tissue yields over a wider stretch than the pool itself, and by less than the pool is tall.
        reach = max(1.4 * cyst.half_x, 0.3 * retina.thickness)
        bulge = np.float32(0.7 * cyst.half_y) * np.exp(-0.5 * ((columns - cyst.middle_x) / reach) ** 2)
        bounds_kx[: cyst.layer + 1] -= bulge.astype(np.float32)
    below = bounds_kx[_EPITHELIUM]
    fluid_yx = (rows >= below - lens) & (rows < below)
    for cyst in cysts:
        _draw(cyst, bounds_kx, fluid_yx)
    return _Retina(bounds_kx, retina.thickness), fluid_yx


def _draw(cyst: _Cyst, bounds_kx: Float32, fluid_yx: Mask) -> None:
    """Add an ellipse with four harmonics, as far as it lies inside the retina."""
    middle_y = float(bounds_kx[cyst.layer : cyst.layer + 2, int(cyst.middle_x)].mean())
    rows, columns = (
        np.arange(max(int(middle - 1.8 * half), 0), min(int(middle + 1.8 * half) + 2, size))
        for middle, half, size in zip((middle_y, cyst.middle_x), (cyst.half_y, cyst.half_x), fluid_yx.shape)
    )
    down, across = (rows[:, None] - middle_y) / cyst.half_y, (columns[None] - cyst.middle_x) / cyst.half_x
    angle_yx = np.arctan2(down, across)
    outline_yx = np.ones_like(angle_yx)
    for wave, (strength, phase) in enumerate(cyst.harmonics, start=2):
        outline_yx += strength * np.cos(wave * angle_yx + phase)
    pool_yx = np.hypot(down, across) < outline_yx
    pool_yx &= (rows[:, None] > bounds_kx[1, columns]) & (rows[:, None] < bounds_kx[_EPITHELIUM - 1, columns])
    fluid_yx[np.ix_(rows, columns)] |= pool_yx


def _tissue(retina: _Retina, height: int, rng: np.random.Generator) -> Float32:
    """Light sent back by vitreous, retina, choroid and sclera, at most about 1."""
    bounds_kx, width = retina.bounds_kx, retina.bounds_kx.shape[1]
    rows = np.arange(height, dtype=np.float32)[:, None]
    depth_yx = rows - bounds_kx[-1]
    choroid = np.float32(retina.thickness * rng.uniform(0.5, 0.9)) * (
        1 + np.float32(0.1) * _smooth_line(width, 90, rng)
    )
    reflectivity_yx = np.full((height, width), _VITREOUS, np.float32)
    steps = [_VITREOUS, *(light * rng.uniform(0.88, 1.12) for _, light in _LAYERS), _CHOROID]
    for bound, before, after in zip(bounds_kx, steps, steps[1:]):
        reflectivity_yx += np.float32(after - before) * (rows - bound + np.float32(0.5)).clip(0, 1)
    scale = max(height / 26, 3.0)
    # Vessels of the choroid are dark; just below the pigment epithelium they are too fine to see.
    vessels_yx = (np.float32(2) * _smooth_sheet(height, width, scale, rng) - np.float32(0.3)).clip(0, 1)
    vessels_yx *= ((depth_yx / np.float32(retina.thickness) - np.float32(0.06)) * 12).clip(0, 1)
    reflectivity_yx *= 1 - np.float32(0.65) * vessels_yx
    beyond_yx = ((depth_yx - choroid) / np.float32(0.12 * retina.thickness)).clip(0, 1)
    reflectivity_yx += (_SCLERA - reflectivity_yx) * beyond_yx
    grain_yx = 1 + np.float32(0.10) * _smooth_sheet(height, width, max(height / 60, 2.0), rng)
    return np.asarray(reflectivity_yx * grain_yx.clip(0.4, None), np.float32)


def _scan(reflectivity_yx: Float32, retina: _Retina, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Scanner and display: light lost on its way, vessel shadows, blur, speckle, noise floor, compressed to 8 bits."""
    height, width = reflectivity_yx.shape
    lost_yx = np.cumsum(reflectivity_yx, axis=0, dtype=np.float32) * np.float32(rng.uniform(2.0, 3.5) / height)
    light_yx = reflectivity_yx * np.exp(-lost_yx)
    light_yx *= _shadows(retina, height, rng)
    light_yx = np.asarray(cv2.GaussianBlur(light_yx, (0, 0), rng.uniform(0.6, 0.9)), np.float32)
    light_yx *= 1 + np.float32(0.08) * _smooth_line(width, width / 5, rng)
    light_yx += np.float32(rng.uniform(0.006, 0.016))
    looks = rng.uniform(3, 7)  # scans averaged
    light_yx *= (rng.standard_gamma(looks, (height, width), np.float32) / np.float32(looks)).clip(0.02, None)
    shown_yx = (rng.uniform(210, 260) * light_yx.clip(0, None) ** np.float32(rng.uniform(0.42, 0.52))).clip(0, 255)
    return np.asarray(np.rint(shown_yx), np.uint8)


def _shadows(retina: _Retina, height: int, rng: np.random.Generator) -> Float32:
    """What retinal vessels leave of the light: narrow columns, dark from the vessel downwards."""
    width = retina.bounds_kx.shape[1]
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    left_yx = np.ones((height, width), np.float32)
    for _ in range(rng.integers(2, 7)):
        middle, half = rng.uniform(0, width), max(rng.uniform(0.004, 0.014) * width, 0.8)
        profile = np.float32(rng.uniform(0.35, 0.75)) * np.exp(-0.5 * ((columns - middle) / half) ** 2)
        under_yx = ((rows - retina.bounds_kx[1]) / np.float32(0.05 * retina.thickness)).clip(0, 1)
        left_yx *= 1 - profile * under_yx
    return left_yx


def _smooth_line(length: int, period: float, rng: np.random.Generator) -> Float32:
    """Gaussian noise of roughly unit variance along one axis, with structures about ``period`` pixels long."""
    coarse = rng.standard_normal((1, math.ceil(length / period) + 3), np.float32)
    return np.asarray(cv2.resize(coarse, (length, 1), interpolation=cv2.INTER_CUBIC)[0], np.float32)


def _smooth_sheet(height: int, width: int, period: float, rng: np.random.Generator) -> Float32:
    """The same along two axes, its structures twice as wide as high."""
    coarse = rng.standard_normal((math.ceil(height / period) + 1, math.ceil(width / (2 * period)) + 1), np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
