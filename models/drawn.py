"""Drawn nuclei in wide variety: sizes of 6 to 40 pixels, dim and bright, blurred, noisy, dark on light, stained.

Some images hold noise and specks only: what a camera makes of an empty field, in any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from sources import Array, Item, Labels

from septa.synthetic import draw_cells

Float = npt.NDArray[np.float32]

SEED = 2018
DIAMETERS = 6.0, 40.0
"""Range of the typical diameters in pixels; their logarithms are equally spaced."""

STYLES = ("plain", "dim", "blurred", "noisy", "inverted", "stained", "empty")
"""Styles take turns, so that each has drawings of all sizes."""

_HEMATOXYLIN = (0.65, 0.70, 0.29)
_EOSIN = (0.07, 0.99, 0.11)
"""Optical densities of red, green and blue (Ruifrok and Johnston 2001)."""


def draw_items(count: int) -> Iterator[Item]:
    """Draw ``count`` images; an image depends on its number and the count alone."""
    rng = np.random.default_rng(SEED)
    diameters = np.geomspace(*DIAMETERS, count)[rng.permutation(count)]
    for index, diameter in enumerate(diameters):
        style = STYLES[index % len(STYLES)]
        yield Item(
            name=f"drawn_{index:03d}_{style}",
            source="drawn",
            licence="BSD-3-Clause",
            file=f"septa synth: seed {SEED}, index {index}, diameter {diameter:.1f}, {style}",
            field=f"drawing {index}",
            modality="brightfield" if style in ("inverted", "stained") else "fluorescence",
            load=partial(draw, index, float(diameter), style),
        )


def draw(index: int, diameter: float, style: str) -> tuple[Array, Labels]:
    """Draw one image in a style of `STYLES` and its instance ids; large cells get a large image, as empty ones do."""
    side = 256 if diameter < 30 else 512
    if style == "empty":
        return _draw_empty(side, np.random.default_rng([SEED, index])), np.zeros((side, side), np.int32)
    drawing = draw_cells(side, side, SEED, index, diameter=diameter)
    rng = np.random.default_rng([SEED, index])
    counts_yx = drawing.image_cyx[0].astype(np.float32)
    dark, light = np.percentile(counts_yx, (1, 99.9))
    light_yx = (counts_yx - dark) / np.float32(light - dark)
    return _STYLE_FUNCTIONS[style](light_yx, diameter, rng), drawing.labels_yx


def _as_camera(light_yx: Array, bits: int, top: float) -> Array:
    """Return counts: 0 at a small offset, 1 at the share ``top`` of the range."""
    most = 2**bits - 1
    counts_yx = np.rint((0.02 + light_yx * top) * most).clip(0, most)
    return np.asarray(counts_yx.astype(np.uint8 if bits == 8 else np.uint16))[None]


def _draw_plain(light_yx: Float, diameter: float, rng: np.random.Generator) -> Array:
    return _as_camera(light_yx, int(rng.choice((8, 16))), rng.uniform(0.5, 0.95))


def _draw_dim(light_yx: Float, diameter: float, rng: np.random.Generator) -> Array:
    """Draw cells of which some are many times brighter than others, in a small part of the range."""
    curved_yx = light_yx.clip(0, None) ** np.float32(rng.uniform(1.4, 2.2))
    return _as_camera(curved_yx, int(rng.choice((8, 16))), rng.uniform(0.1, 0.4))


def _draw_blurred(light_yx: Float, diameter: float, rng: np.random.Generator) -> Array:
    return _as_camera(cv2.GaussianBlur(light_yx, (0, 0), diameter * rng.uniform(0.04, 0.1)), 16, rng.uniform(0.3, 0.9))


def _draw_noisy(light_yx: Float, diameter: float, rng: np.random.Generator) -> Array:
    photons = rng.uniform(8, 40)
    counted_yx = rng.poisson((light_yx.clip(0, None) + 0.05) * photons) / photons
    noisy_yx = counted_yx + rng.normal(0, rng.uniform(0.02, 0.1), light_yx.shape)
    return _as_camera(noisy_yx, 16, rng.uniform(0.1, 0.6))


def _draw_inverted(light_yx: Float, diameter: float, rng: np.random.Generator) -> Array:
    """Draw dark nuclei on a light ground, as a grey scan of a stained slide shows them."""
    ground_yx = 1 - np.float32(rng.uniform(0, 0.15)) * _draw_cloud(light_yx.shape, diameter, rng)
    absorbed_yx = np.exp(-np.float32(rng.uniform(0.6, 1.8)) * light_yx.clip(0, None)) * ground_yx
    return _as_camera(absorbed_yx.astype(np.float32), 8, rng.uniform(0.6, 0.95))


def _draw_stained(light_yx: Float, diameter: float, rng: np.random.Generator) -> Array:
    """Draw hematoxylin in the nuclei and eosin in the tissue around them, by the law of Beer and Lambert."""
    eosin_yx = np.float32(rng.uniform(0.1, 0.8)) * _draw_cloud(light_yx.shape, diameter, rng)
    hematoxylin_yx = np.float32(rng.uniform(0.7, 2.0)) * light_yx.clip(0, None) ** np.float32(rng.uniform(0.5, 1))
    planes = []
    for dark, pink in zip(_HEMATOXYLIN, _EOSIN):
        density_yx = hematoxylin_yx * (dark + rng.normal(0, 0.06)) + eosin_yx * (pink * rng.uniform(0.6, 1.1))
        planes.append(_as_camera(np.exp(-density_yx).astype(np.float32), 8, 0.93)[0])
    return np.stack(planes)


def _draw_empty(side: int, rng: np.random.Generator) -> Array:
    """Draw the noise of a field without cells, resized by 1 to 4, with uneven light, hot pixels and specks of dust."""
    factor = rng.uniform(1, 4)
    small = round(side / factor)
    noise_yx = cv2.resize(rng.standard_normal((small, small)).astype(np.float32), (side, side))
    light_yx = cv2.resize(rng.uniform(0, rng.uniform(0, 6), (3, 3)).astype(np.float32), (side, side))
    specks_yx = np.zeros((side, side), np.float32)
    for _ in range(rng.integers(0, 12)):
        y, x = rng.integers(0, side, 2)
        specks_yx[y, x] = rng.uniform(1, 4)
    radius = factor * rng.uniform(0.3, 0.9)
    specks_yx = cv2.GaussianBlur(specks_yx, (0, 0), radius) * np.float32(2 * np.pi * radius**2)
    counts_yx = rng.uniform(20, 400) + rng.uniform(2, 20) * (noise_yx + light_yx + 4 * specks_yx)
    return np.asarray(np.rint(counts_yx).clip(0, 65535).astype(np.uint16))[None]


def _draw_cloud(size_hw: tuple[Any, ...], diameter: float, rng: np.random.Generator) -> Float:
    """Draw smooth noise in 0..1 with structures as wide as the cells, as tissue has them."""
    noise_yx = cv2.GaussianBlur(rng.standard_normal(size_hw).astype(np.float32), (0, 0), diameter / 2)
    fine_yx = cv2.GaussianBlur(rng.standard_normal(size_hw).astype(np.float32), (0, 0), max(diameter / 10, 0.7))
    mixed_yx = noise_yx / noise_yx.std() + 0.6 * fine_yx / fine_yx.std()
    return np.asarray((0.5 + 0.25 * mixed_yx).clip(0, 1), np.float32)


_STYLE_FUNCTIONS = {
    "plain": _draw_plain,
    "dim": _draw_dim,
    "blurred": _draw_blurred,
    "noisy": _draw_noisy,
    "inverted": _draw_inverted,
    "stained": _draw_stained,
}
