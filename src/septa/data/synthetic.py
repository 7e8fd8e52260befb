"""Synthetic images with known labels: fluorescent cells (instances) and geometric figures (overlapping classes)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from skimage import measure

from septa.errors import InputError
from septa.images.write import write_image, write_labels

Kind = Literal["cells", "shapes"]
Float32 = npt.NDArray[np.float32]

SHAPE_NAMES = ("square", "disk", "triangle", "ring", "mesh", "plus")
"""Classes of `draw_shapes`, in the order of its masks."""

HELD_OUT_INDEX = 1_000_000
"""Index of the first held-out drawing, so that it does not depend on how many others there are."""

SMALLEST_SIDE = 32
LARGEST_SIDE = 16_384


@dataclass(frozen=True)
class CellDrawing:
    """A drawn micrograph.

    Attributes
    ----------
    image_cyx
        uint16, one channel, in camera counts.
    labels_yx
        int32 instance ids, contiguous from 1; 0 is background. Each cell is one 4-connected region.
    """

    image_cyx: npt.NDArray[np.uint16]
    labels_yx: npt.NDArray[np.int32]


@dataclass(frozen=True)
class ShapeDrawing:
    """Drawn figures.

    Attributes
    ----------
    image_cyx
        uint8, one channel.
    masks_kyx
        uint8, 0 or 1, one plane for each of `SHAPE_NAMES`; planes overlap where figures do.
    """

    image_cyx: npt.NDArray[np.uint8]
    masks_kyx: npt.NDArray[np.uint8]


def draw_cells(height: int, width: int, seed: int, index: int = 0) -> CellDrawing:
    """Draw fluorescent cells as a 16-bit camera sees them.

    Irregular cells, many of them touching, of uneven brightness and texture, under uneven illumination, out-of-focus
    haze and optical blur, with shot noise, read noise and a camera offset. Size, density, exposure and sharpness
    differ from image to image.

    Parameters
    ----------
    height, width
        Size, pixels, 32 to 16384 each. Cells are about 15 to 40 pixels wide whatever the size.
    seed, index
        Non-negative; together with the size they decide the drawing.

    Raises
    ------
    ValueError
        If a side is out of range or ``seed`` or ``index`` negative.

    Examples
    --------
    >>> drawing = draw_cells(64, 96, seed=0)
    >>> drawing.image_cyx.shape, drawing.image_cyx.dtype, drawing.labels_yx.dtype
    ((1, 64, 96), dtype('uint16'), dtype('int32'))
    """
    rng = _generator("cells", height, width, seed, index)
    labels_yx, depth_yx = _place_cells(height, width, rng)
    emission_yx = _emission(labels_yx, depth_yx, rng)
    return CellDrawing(_photograph(emission_yx, rng)[None], labels_yx)


def draw_shapes(height: int, width: int, seed: int, index: int = 0) -> ShapeDrawing:
    """Draw the classic toy set of figures: a six-class task whose classes overlap.

    A filled square, a filled disk, a triangle, a ring, a meshed square and a plus for every 192 x 192 pixels, each of
    random size, place and brightness, on a noisy dark background; where figures overlap both shine through.

    Parameters
    ----------
    height, width
        Size, pixels, 32 to 16384 each.
    seed, index
        Non-negative; together with the size they decide the drawing.

    Raises
    ------
    ValueError
        If a side is out of range or ``seed`` or ``index`` negative.

    Examples
    --------
    >>> draw_shapes(64, 96, seed=0).masks_kyx.shape
    (6, 64, 96)
    """
    rng = _generator("shapes", height, width, seed, index)
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
    return ShapeDrawing(np.rint(image_yx).clip(0, 255).astype(np.uint8)[None], masks_kyx)


def write_dataset(
    folder: str | Path, kind: Kind, count: int, size_hw: tuple[int, int], seed: int, *, held_out: int = 0
) -> list[Path]:
    """Write drawings as a dataset: ``folder/images`` and ``folder/labels``, paired by name.

    ``cells``: 16-bit TIFF images, instance ids as TIFF. ``shapes``: 8-bit PNG images, labels as TIFF with one 0/1
    plane for each class (axes ``CYX``). The number in a name is the drawing's index, and a drawing depends on kind,
    size, seed and index alone, so a larger dataset contains the smaller one.

    Parameters
    ----------
    folder
        Created where missing.
    kind
        ``"cells"`` or ``"shapes"``.
    count
        Number of drawings, at least 1.
    size_hw
        Height and width of each, pixels, 32 to 16384.
    seed
        Non-negative.
    held_out
        Number of further drawings, for testing, written to ``folder/held_out/images`` and ``folder/held_out/labels``.

    Returns
    -------
    list of Path
        The images written, held-out ones last.

    Raises
    ------
    InputError
        If a setting is out of range, or images or labels already exist in the folder.
    """
    folder = Path(folder)
    _check_settings(kind, count, size_hw, seed, held_out)
    indices = {folder: range(count)}
    if held_out:
        indices[folder / "held_out"] = range(HELD_OUT_INDEX, HELD_OUT_INDEX + held_out)
    for root in indices:
        _check_empty(root / "images")
        _check_empty(root / "labels")
    return [_write_pair(root, kind, size_hw, seed, index) for root, chosen in indices.items() for index in chosen]


def _write_pair(root: Path, kind: Kind, size_hw: tuple[int, int], seed: int, index: int) -> Path:
    name = f"{kind}_{index:04d}"
    labels = root / "labels" / f"{name}.tif"
    if kind == "cells":
        cells = draw_cells(*size_hw, seed, index)
        image = root / "images" / f"{name}.tif"
        write_labels(labels, cells.labels_yx)
        write_image(image, cells.image_cyx)
    else:
        shapes = draw_shapes(*size_hw, seed, index)
        image = root / "images" / f"{name}.png"
        write_image(labels, shapes.masks_kyx)
        write_image(image, shapes.image_cyx)
    return image


def _check_settings(kind: str, count: int, size_hw: tuple[int, int], seed: int, held_out: int) -> None:
    if kind not in ("cells", "shapes"):
        raise InputError("kind", f"'{kind}' cannot be drawn", "choose cells or shapes")
    if count < 1 or held_out < 0:
        raise InputError("count", f"{count} drawings and {held_out} held out were asked for", "ask for at least 1")
    if seed < 0:
        raise InputError("seed", f"{seed} is negative", "choose 0 or more")
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in size_hw):
        problem = f"{size_hw[0]}x{size_hw[1]} pixels cannot be drawn"
        raise InputError("size", problem, f"choose {SMALLEST_SIDE} to {LARGEST_SIDE} for each side")


def _check_empty(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(folder, "is a file, expected a folder", "choose another folder")
    found = sorted(path.name for path in folder.iterdir())
    if found:
        raise InputError(folder, f"already holds files ({len(found)}, such as {found[0]})", "choose an empty folder")


def _generator(kind: Kind, height: int, width: int, seed: int, index: int) -> np.random.Generator:
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in (height, width)):
        raise ValueError(f"each side must be {SMALLEST_SIDE} to {LARGEST_SIDE} pixels, got {height} x {width}")
    return np.random.default_rng([("cells", "shapes").index(kind), height, width, seed, index])


def _place_cells(height: int, width: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.int32], Float32]:
    """Instance ids, and the relative depth of each pixel in its cell: 0 at the middle, 1 at the free outline."""
    owner_yx = np.zeros((height, width), np.int32)
    depth_yx = np.ones((height, width), np.float32)
    middles: list[tuple[float, float, float]] = []
    typical = rng.uniform(8, 14)
    wanted = rng.uniform(0.15, 0.5) * height * width
    clustering = rng.uniform(0.3, 0.8)
    covered, failures = 0, 0  # failures since the last cell placed
    while covered < wanted and failures < 100:
        radius = typical * rng.lognormal(0, 0.18)
        y, x = rng.uniform(-0.3 * radius, (height + 0.3 * radius, width + 0.3 * radius))
        if middles and rng.random() < clustering:
            # Beside another cell, near enough to press against it.
            other_y, other_x, other_radius = middles[rng.integers(len(middles))]
            direction, distance = rng.uniform(0, 2 * math.pi), (radius + other_radius) * rng.uniform(0.85, 1.05)
            y, x = other_y + distance * math.sin(direction), other_x + distance * math.cos(direction)
        place, cell_depth_yx = _cell_depth(y, x, radius, (height, width), rng)
        inside_yx = cell_depth_yx < 1
        area = np.count_nonzero(inside_yx)
        taken = np.count_nonzero(owner_yx[place][inside_yx])
        if area < 30 or taken > 0.25 * area:
            failures += 1
            continue
        # Where two cells would overlap each keeps what is relatively nearer to its middle: a common, nearly flat wall.
        nearer_yx = cell_depth_yx < depth_yx[place]
        middles.append((y, x, radius))
        owner_yx[place][nearer_yx] = len(middles)
        depth_yx[place][nearer_yx] = cell_depth_yx[nearer_yx]
        covered, failures = covered + int(area - taken), 0
    return _largest_parts(owner_yx), depth_yx


def _cell_depth(
    y: float, x: float, radius: float, size_hw: tuple[int, int], rng: np.random.Generator
) -> tuple[tuple[slice, slice], Float32]:
    """Distance from a cell's middle relative to its outline, an ellipse with four random harmonics."""
    tilt, aspect = rng.uniform(0, math.pi), rng.uniform(1, 1.6)
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
    dy, dx = (rows[:, None] - y).astype(np.float32), (columns[None, :] - x).astype(np.float32)
    along, across = dx * math.cos(tilt) + dy * math.sin(tilt), dy * math.cos(tilt) - dx * math.sin(tilt)
    angle_yx = np.arctan2(across, along)
    outline_yx = np.ones_like(angle_yx)
    for wave, strength, phase in zip(waves, strengths, phases):
        outline_yx += np.float32(strength) * np.cos(np.float32(wave) * angle_yx + np.float32(phase))
    distance_yx = np.hypot(along / math.sqrt(aspect), across * math.sqrt(aspect))
    place = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return place, (distance_yx / (radius * outline_yx)).astype(np.float32)


def _largest_parts(owner_yx: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Keep the largest 4-connected part of each cell unless it is a sliver; number the cells from 1."""
    parts_yx = measure.label(owner_yx, connectivity=1)  # type: ignore[no-untyped-call]
    parts, first, areas = np.unique(parts_yx, return_index=True, return_counts=True)
    owners = owner_yx.ravel()[first]
    largest = np.zeros(owners.max() + 1, np.int64)
    np.maximum.at(largest, owners, areas)
    kept = (parts > 0) & (areas == largest[owners]) & (areas >= 30)
    _, only = np.unique(np.where(kept, owners, 0), return_index=True)
    ids = np.zeros(len(parts), np.int32)
    only = only[kept[only]]
    ids[np.sort(only)] = np.arange(1, len(only) + 1)
    return np.asarray(ids[parts_yx])


def _emission(labels_yx: npt.NDArray[np.int32], depth_yx: Float32, rng: np.random.Generator) -> Float32:
    """Light leaving the specimen, about 1 inside a typical cell."""
    brightness = rng.lognormal(0, 0.35, labels_yx.max() + 1).astype(np.float32)
    brightness[0] = 0
    flatness = rng.uniform(0.25, 0.7)
    emission_yx = brightness[labels_yx] * (1 - depth_yx.clip(0, 0.995) ** 2) ** np.float32(flatness)
    emission_yx *= _textures(labels_yx, rng)
    return np.asarray(emission_yx)


def _textures(labels_yx: npt.NDArray[np.int32], rng: np.random.Generator) -> Float32:
    """Chromatin-like texture: a random piece of one sheet for every cell, so that it breaks at common walls."""
    side = 192
    sheet_yx = np.float32(0.12) * _smooth_noise(side, side, 3, rng) + np.float32(0.12) * _smooth_noise(
        side, side, 8, rng
    )
    spots_yx = _smooth_noise(side, side, 5, rng)
    sheet_yx = (1 + sheet_yx - np.float32(0.35) * (spots_yx > 1.1)).clip(0.25, None)
    height, width = labels_yx.shape
    cells = labels_yx.max() + 1
    shift_y, shift_x = rng.integers(side, size=(2, cells))
    row_yx = (np.arange(height)[:, None] + shift_y[labels_yx]) % side
    column_yx = (np.arange(width)[None, :] + shift_x[labels_yx]) % side
    pieces_yx: Float32 = sheet_yx[row_yx, column_yx]
    return pieces_yx


def _photograph(emission_yx: Float32, rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Optics and camera: haze, debris, illumination, blur, shot noise, read noise, gain, offset, 16 bits."""
    height, width = emission_yx.shape
    light_yx = cv2.GaussianBlur(emission_yx, (0, 0), rng.uniform(0.8, 1.7))
    # Light from above and below the focal plane, blurred at reduced size because only its low frequencies remain.
    small_hw = max(height // 8, 1), max(width // 8, 1)
    small_yx = cv2.resize(emission_yx, small_hw[::-1], interpolation=cv2.INTER_AREA)
    haze_yx = cv2.resize(cv2.GaussianBlur(small_yx, (0, 0), 2.5), (width, height), interpolation=cv2.INTER_CUBIC)
    light_yx = light_yx + np.float32(rng.uniform(0.1, 0.3)) * haze_yx.clip(0, None)
    light_yx += np.float32(rng.uniform(0.03, 0.12)) * (1 + np.float32(0.3) * _smooth_noise(height, width, 90, rng))
    light_yx += _debris(height, width, rng)
    light_yx *= _illumination(height, width, rng)
    electrons_yx = light_yx.clip(0, None) * (rng.uniform(150, 900) / light_yx.max())
    read_noise = rng.uniform(1.5, 4)
    counted_yx = rng.poisson(electrons_yx) + rng.normal(0, read_noise, (height, width))
    # The brightest pixel stays far enough below 65535 for its shot noise, the darkest above 0 for the read noise.
    gain = rng.uniform(8_000, 34_000) / float(electrons_yx.max())
    offset = rng.uniform(100, 400) + 6 * read_noise * gain
    counts_yx = np.rint(counted_yx * gain + offset).clip(0, 65_535)
    return np.asarray(counts_yx.astype(np.uint16))


def _debris(height: int, width: int, rng: np.random.Generator) -> Float32:
    """Faint specks smaller than any cell, which are no cells."""
    specks_yx = np.zeros((height, width), np.float32)
    number = rng.poisson(height * width / 10_000)
    specks_yx[rng.integers(height, size=number), rng.integers(width, size=number)] = rng.uniform(1, 5, number)
    return np.asarray(cv2.GaussianBlur(specks_yx, (0, 0), 1.3))


def _illumination(height: int, width: int, rng: np.random.Generator) -> Float32:
    """Excitation falling off from a bright spot near the middle of the field, at most 1."""
    spot_y, spot_x = rng.uniform(0.25, 0.75, 2)
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height - np.float32(spot_y)
    x = (np.arange(width, dtype=np.float32)[None, :] + 0.5) / width - np.float32(spot_x)
    return np.asarray(1 - np.float32(rng.uniform(0.2, 0.6)) * (y**2 + x**2), np.float32)


def _smooth_noise(height: int, width: int, period: float, rng: np.random.Generator) -> Float32:
    """Gaussian noise of roughly unit variance whose structures are about ``period`` pixels wide."""
    coarse = rng.standard_normal((math.ceil(height / period) + 1, math.ceil(width / period) + 1), np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def _square(dy: npt.NDArray[Any], dx: npt.NDArray[Any], radius: int) -> npt.NDArray[np.bool_]:
    return np.asarray(np.maximum(abs(dy), abs(dx)) <= radius)


def _disk(dy: npt.NDArray[Any], dx: npt.NDArray[Any], radius: int) -> npt.NDArray[np.bool_]:
    return np.asarray(dy**2 + dx**2 <= radius**2)


def _triangle(dy: npt.NDArray[Any], dx: npt.NDArray[Any], radius: int) -> npt.NDArray[np.bool_]:
    return np.asarray(2 * abs(dx) <= dy + radius)


def _ring(dy: npt.NDArray[Any], dx: npt.NDArray[Any], radius: int) -> npt.NDArray[np.bool_]:
    return _disk(dy, dx, radius) & ~_disk(dy, dx, radius - _stroke(radius))


def _mesh(dy: npt.NDArray[Any], dx: npt.NDArray[Any], radius: int) -> npt.NDArray[np.bool_]:
    # Three windows a side between four bars, as equal as whole pixels allow.
    stroke = _stroke(radius)
    bars = np.rint(np.linspace(-radius, radius + 1 - stroke, 4)).astype(int)
    on_bar = [((d[..., None] >= bars) & (d[..., None] < bars + stroke)).any(-1) for d in (dy, dx)]
    return np.asarray(on_bar[0] | on_bar[1])


def _plus(dy: npt.NDArray[Any], dx: npt.NDArray[Any], radius: int) -> npt.NDArray[np.bool_]:
    return np.asarray(np.minimum(abs(dy), abs(dx)) <= _stroke(radius))


def _stroke(radius: int) -> int:
    return max(1, round(radius / 7))


_FIGURES: tuple[Callable[[npt.NDArray[Any], npt.NDArray[Any], int], npt.NDArray[np.bool_]], ...] = (
    _square,
    _disk,
    _triangle,
    _ring,
    _mesh,
    _plus,
)
