"""Draw any window of an endless synthetic plane of fluorescent nuclei, with its ground truth.

The plane is a grid of 24 x 24 pixels. A hash of seed and grid position proposes one nucleus at a random place in each
square. A proposal is dropped if it is too close to another proposal of higher rank (Matérn's second hard-core
process). It therefore depends only on the eight squares around it. The remaining nuclei are ellipses, 12 to 30 pixels
wide. A straight wall divides two nuclei that overlap. Every pixel value is a function of seed and position, so all
windows agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.kernels import Kernel

Floats = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Unsigned = npt.NDArray[np.uint64]
Grid = dict[str, npt.NDArray[Any]]

PITCH = 24
"""Side of a grid square, pixels; at least the largest distance at which one nucleus excludes another."""
LONGEST = 30.0
"""Largest diameter of a nucleus, pixels."""
SHORTEST = 12.0
"""Smallest diameter of a nucleus, pixels."""
CLOSEST = 0.8
"""Smallest distance of two centres, as a share of the distance at which their outlines would touch."""
GLOW = 6.0
"""Largest distance from its outline to which a nucleus shines, pixels."""
READ_NOISE = 2.0
"""Standard deviation of the noise in a dark pixel, counts."""
GAIN = 0.3
"""Variance of the noise for each count of signal, counts."""
FIRST = 16
"""Number of the grid row and column at pixel 0; it keeps the numbers of squares at negative pixels positive."""
ROW = 1 << 16
"""Number of ids in a grid row: the id of a nucleus is its grid row times this number plus its grid column."""
BAND = 2048
"""Rows that are processed together when the nuclei of a whole slide are counted."""
CORE = 3
"""Grid squares around a window: 1 for the nuclei that reach into it, 2 for those that share a wall with one of them."""

_GOLDEN, _FIRST_MIX, _SECOND_MIX = (
    np.uint64(value) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_THIRTY, _TWENTY_SEVEN, _THIRTY_ONE = (np.uint64(value) for value in (30, 27, 31))
_LOW, _16, _32, _48 = (np.uint64(value) for value in (0xFFFF, 16, 32, 48))
_STREAMS = (
    *("y", "x", "long", "short", "tilt", "rank", "presence", "brightness", "softness"),
    *("density", "shade", "haze", "grain", "fleck", "noise"),
)


@dataclass(frozen=True)
class Cells:
    """Nuclei of a window, one row each, in the order of their ids.

    Attributes
    ----------
    ids
        (n), int64: positive numbers, unique in the plane.
    centres
        (n, 2): y and x, pixels; the centre of a pixel has integer coordinates.
    shapes
        (n, 3): yy, yx and xx; the ellipse is the region where yy * dy^2 + 2 * yx * dy * dx + xx * dx^2 < 1.
    lights
        (n, 3): half the longest diameter (pixels), brightness (counts), softness of the outline (pixels).
    walls
        (n, most, 3): a nucleus ends where y * dy + x * dx reaches the third number, pixels. Unused rows hold infinity.
    """

    ids: Integers
    centres: Floats
    shapes: Floats
    lights: Floats
    walls: Floats

    def __getitem__(self, chosen: npt.NDArray[np.bool_]) -> Cells:
        return Cells(*(getattr(self, field.name)[chosen] for field in fields(self)))


def draw(y0: int, y1: int, x0: int, x1: int, seed: int) -> npt.NDArray[np.uint8]:
    """Draw the window of rows ``y0`` to ``y1`` and columns ``x0`` to ``x1`` (not included).

    Parameters
    ----------
    y0, y1, x0, x1
        Bounds in pixels, at least 0. The function uses nine bytes of memory per pixel.
    seed
        Non-negative number.

    Returns
    -------
    npt.NDArray[np.uint8]
        Image, axes ``YX``, 0..255.
    """
    cells = find_cells(y0, y1, x0, x1, seed)
    light_yx = np.zeros((y1 - y0, x1 - x0), np.float32)
    _shine(light_yx, y0, x0, GLOW, cells.centres, cells.shapes, cells.lights, cells.walls)
    window = y0, y1, x0, x1
    field_yx = np.ones_like(light_yx)
    _vary(field_yx, window, 3, 0.34, "fleck", seed)
    _vary(field_yx, window, 7, 0.40, "grain", seed)
    light_yx *= field_yx
    field_yx[:] = 14
    _vary(field_yx, window, 150, 6, "haze", seed)
    _vary(field_yx, window, 1400, 22, "shade", seed)
    light_yx += field_yx
    image_yx = np.empty(light_yx.shape, np.uint8)
    _expose(image_yx, light_yx, _row_keys("noise", np.arange(y0, y1), seed), x0, READ_NOISE**2, GAIN)
    return image_yx


def draw_labels(y0: int, y1: int, x0: int, x1: int, seed: int) -> Integers:
    """Draw the labels of a window, axes ``YX``, int64: 0, or the id of the nucleus, the same in every window.

    Each nucleus is one convex region that contains the pixel nearest to its centre. See `draw` for the parameters.
    """
    labels_yx = np.zeros((y1 - y0, x1 - x0), np.int64)
    cells = find_cells(y0, y1, x0, x1, seed)
    _label(labels_yx, y0, x0, cells.ids, cells.centres, cells.shapes, cells.lights, cells.walls)
    return labels_yx


def count_nuclei(height: int, width: int, seed: int) -> int:
    """Count the ids in the labels of a slide, without drawing the slide.

    The count is the number of nuclei with a centre inside the slide, plus the number of nuclei on its outermost two
    pixels with a centre outside.
    """
    inside = sum(len(ids) for ids, _ in find_centres(height, width, seed))
    rows = [(0, min(2, height), 0, width), (max(height - 2, 0), height, 0, width)]
    columns = [(0, height, 0, min(2, width)), (0, height, max(width - 2, 0), width)]
    seen: set[int] = set()
    for y0, y1, x0, x1 in rows + columns:
        seen.update(np.unique(draw_labels(y0, y1, x0, x1, seed)).tolist())
        cells = find_cells(y0, y1, x0, x1, seed)
        seen.difference_update(cells.ids[_is_inside(cells, 0, height, 0, width)].tolist())
    return inside + len(seen - {0})


def find_centres(height: int, width: int, seed: int) -> Iterator[tuple[Integers, Floats]]:
    """Yield ids (n) and centres (n, 2: y and x, pixels) of the nuclei with a centre on the slide, band by band."""
    for y0 in range(0, height, BAND):
        y1 = min(y0 + BAND, height)
        cells = find_cells(y0, y1, 0, width, seed)
        cells = cells[_is_inside(cells, y0, y1, 0, width)]
        yield cells.ids, cells.centres


def find_cells(y0: int, y1: int, x0: int, x1: int, seed: int) -> Cells:
    """Find all nuclei that reach into a window, and some around it.

    Raises
    ------
    ValueError
        The window is empty or starts at a negative pixel, or the seed is negative.
    """
    if not 0 <= y0 < y1 or not 0 <= x0 < x1 or seed < 0:
        window = f"rows {y0}..{y1}, columns {x0}..{x1}, seed {seed}"
        raise ValueError(f"a window must not be empty, and its start and seed must be at least 0, got {window}")
    margin = CORE + 1
    rows, columns = (
        np.arange(low // PITCH - margin, (high - 1) // PITCH + margin + 1) + FIRST for low, high in ((y0, y1), (x0, x1))
    )
    grid = _propose(rows, columns, seed)
    grid["there"] &= ~_find_outranked(grid)
    inner = {name: values[CORE:-CORE, CORE:-CORE] for name, values in grid.items()}
    there = inner["there"]
    walls = _sort_by_distance(_find_walls(grid)[there])
    ids = (rows[CORE:-CORE, None] * ROW + columns[None, CORE:-CORE])[there]
    centres, shapes, lights = (
        np.stack([inner[name][there] for name in names], axis=1)
        for names in (("y", "x"), ("yy", "yx", "xx"), ("half", "brightness", "softness"))
    )
    return Cells(ids, centres, shapes, lights, walls)


def _is_inside(cells: Cells, y0: int, y1: int, x0: int, x1: int) -> npt.NDArray[np.bool_]:
    y, x = np.floor(cells.centres + 0.5).T
    return np.asarray((y >= y0) & (y < y1) & (x >= x0) & (x < x1))


def _propose(rows: Integers, columns: Integers, seed: int) -> Grid:
    """Propose one nucleus for each grid square; ``there`` is True if the local density keeps it."""

    def random(stream: str) -> Floats:
        return _random(stream, rows, columns, seed)

    y = (rows[:, None] - FIRST + random("y")) * PITCH - 0.5
    x = (columns[None, :] - FIRST + random("x")) * PITCH - 0.5
    # Most sizes are close to the mean, and most nuclei are rounder than the flattest one.
    long = LONGEST - (LONGEST - 15) * (0.65 * random("long") + 0.35 * random("softness"))
    short = np.maximum(SHORTEST, long * (1 - 0.42 * random("short") ** 1.5))
    tilt = np.pi * random("tilt")
    sine, cosine = np.sin(tilt), np.cos(tilt)
    across, along = 4 / short**2, 4 / long**2
    density = _lattice_value(y, x, 900, "density", seed)
    return {
        "y": y,
        "x": x,
        "yy": along * sine**2 + across * cosine**2,
        "yx": (along - across) * sine * cosine,
        "xx": along * cosine**2 + across * sine**2,
        "half": long / 2,
        "brightness": 42 * np.exp(1.4 * random("brightness")),
        "softness": 0.7 + 1.0 * random("softness") ** 2,
        "rank": random("rank"),
        "there": random("presence") < np.clip(0.1 + 1.3 * density, 0.12, 1),
    }


def _find_outranked(grid: Grid) -> npt.NDArray[np.bool_]:
    """Find the proposals too close to one of higher rank, dropped or not; False in the outermost squares."""
    lost = np.zeros_like(grid["there"])
    middle = (slice(1, -1), slice(1, -1))
    for one, other in _pair_neighbours(grid, 1):
        distance, mine, theirs = _measure_gap(one, other)
        lost[middle] |= other["there"] & (other["rank"] > one["rank"]) & (distance < CLOSEST * (mine + theirs))
    return lost


def _find_walls(grid: Grid) -> Floats:
    """Find the walls of the nuclei in all squares except the three outermost on each side."""
    walls = []
    inner = {name: values[1:-1, 1:-1] for name, values in grid.items()}
    for one, other in _pair_neighbours(inner, 2):
        distance, mine, theirs = _measure_gap(one, other)
        shared = other["there"] & (distance < one["half"] + other["half"])
        share = np.where(shared, distance * mine / (mine + theirs), np.inf)
        dy, dx = ((other[name] - one[name]) / distance for name in "yx")
        walls.append(np.stack([dy, dx, share], axis=-1))
    return np.stack(walls, axis=2)


def _sort_by_distance(walls: Floats) -> Floats:
    order = np.argsort(walls[..., 2], axis=1, kind="stable")
    most = int(np.isfinite(walls[..., 2]).sum(axis=1).max(initial=0))
    return np.take_along_axis(walls, order[:, :most, None], axis=1)


def _pair_neighbours(grid: Grid, reach: int) -> Iterator[tuple[Grid, Grid]]:
    """Yield the squares at least ``reach`` squares inside the grid, with their neighbours at each offset within it."""
    height, width = grid["there"].shape

    def part(dy: int, dx: int) -> Grid:
        place = slice(reach + dy, height - reach + dy), slice(reach + dx, width - reach + dx)
        return {name: values[place] for name, values in grid.items()}

    offsets = range(-reach, reach + 1)
    return ((part(0, 0), part(dy, dx)) for dy in offsets for dx in offsets if dy or dx)


def _measure_gap(one: Grid, other: Grid) -> tuple[Floats, Floats, Floats]:
    """Return the distance of two centres and the radius of either ellipse in that direction, in pixels."""
    dy, dx = other["y"] - one["y"], other["x"] - one["x"]
    distance = np.hypot(dy, dx)
    mine, theirs = (
        distance / np.sqrt(cell["yy"] * dy**2 + 2 * cell["yx"] * dy * dx + cell["xx"] * dx**2) for cell in (one, other)
    )
    return distance, mine, theirs


def _mix(values: Unsigned) -> Unsigned:
    """Mix values by one step of SplitMix64 and its finaliser (Steele, Lea and Flood, 2014)."""
    values = values + _GOLDEN
    values = (values ^ (values >> _THIRTY)) * _FIRST_MIX
    values = (values ^ (values >> _TWENTY_SEVEN)) * _SECOND_MIX
    return values ^ (values >> _THIRTY_ONE)


def _row_keys(stream: str, rows: Integers, seed: int) -> Unsigned:
    key = _mix(np.array([seed], np.uint64)) + np.uint64(_STREAMS.index(stream))
    return _mix(_mix(key) + rows.astype(np.uint64))


def _random(stream: str, rows: Integers, columns: Integers, seed: int) -> Floats:
    """Draw uniform numbers in 0..1, one for each row and column."""
    keys = _row_keys(stream, rows, seed)
    return np.asarray((_mix(keys[:, None] + columns.astype(np.uint64)[None, :]) >> np.uint64(11)) * 2.0**-53)


def _lattice_value(y: Floats, x: Floats, step: int, stream: str, seed: int) -> Floats:
    """Compute smooth noise in 0..1 at given points from random numbers on a lattice of ``step`` pixels."""
    y, x = y / step + FIRST, x / step + FIRST
    rows, columns = (np.arange(int(values.min()), int(values.max()) + 2) for values in (y, x))
    lattice = _random(stream, rows, columns, seed)
    row, column = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    down, right = ((3 - 2 * part) * part**2 for part in (y - row, x - column))
    row, column = row - rows[0], column - columns[0]
    above, below = (lattice[line, column] * (1 - right) + lattice[line, column + 1] * right for line in (row, row + 1))
    return np.asarray(above * (1 - down) + below * down)


def _vary(
    field_yx: Float32, window: tuple[int, int, int, int], step: int, strength: float, stream: str, seed: int
) -> None:
    """Add smooth noise to the field of a window, within -0.5..0.5 times ``strength``."""
    y0, y1, x0, x1 = window
    (rows, row, down), (columns, column, right) = (_between(low, high, step) for low, high in ((y0, y1), (x0, x1)))
    lattice = ((_random(stream, rows, columns, seed) - 0.5) * strength).astype(np.float32)
    _interpolate(field_yx, lattice, row, down, column, right)


def _between(low: int, high: int, step: int) -> tuple[Integers, Integers, Float32]:
    """Return the lattice lines around pixels, and for each pixel the index of its line and the weight of the next."""
    pixels = np.arange(low, high)
    part = (pixels % step / step).astype(np.float32)
    lines = np.arange(low // step, (high - 1) // step + 2)
    return lines, pixels // step - lines[0], (3 - 2 * part) * part**2


@Kernel
def _interpolate(
    field_yx: Float32, lattice: Float32, row: Integers, down: Float32, column: Integers, right: Float32
) -> None:
    line = np.empty(lattice.shape[1], np.float32)
    for i in range(field_yx.shape[0]):
        for k in range(len(line)):
            line[k] = lattice[row[i], k] + down[i] * (lattice[row[i] + 1, k] - lattice[row[i], k])
        for j in range(field_yx.shape[1]):
            before = line[column[j]]
            field_yx[i, j] += before + right[j] * (line[column[j] + 1] - before)


@Kernel
def _shine(
    light_yx: Float32, y0: int, x0: int, glow: float, centres: Floats, shapes: Floats, lights: Floats, walls: Floats
) -> None:
    """Add the light of each nucleus: a dome with a soft outline, similar to an optical blur."""
    height, width = light_yx.shape
    for n in range(len(centres)):
        y, x = centres[n, 0] - y0, centres[n, 1] - x0
        half, brightness, softness = lights[n]
        yy, yx, xx = shapes[n]
        count = np.isfinite(walls[n, :, 2]).sum()
        reach = half + glow
        faint = -glow / softness
        faint = 1 + faint / np.sqrt(1 + faint * faint)
        for i in range(max(int(np.ceil(y - reach)), 0), min(int(np.floor(y + reach)) + 1, height)):
            dy = i - y
            for j in range(max(int(np.ceil(x - reach)), 0), min(int(np.floor(x + reach)) + 1, width)):
                dx = j - x
                depth = yy * dy * dy + 2 * yx * dy * dx + xx * dx * dx
                radius = np.sqrt(dy * dy + dx * dx)
                inside = half if depth < 1e-9 else radius / np.sqrt(depth) - radius
                if inside <= -glow:
                    continue
                for k in range(count):
                    inside = min(inside, walls[n, k, 2] - 0.6 - walls[n, k, 0] * dy - walls[n, k, 1] * dx)
                step = inside / softness
                step = 1 + step / np.sqrt(1 + step * step) - faint
                if step > 0:
                    light_yx[i, j] += np.float32(0.5 * brightness * step * (0.68 + 0.32 * max(1 - depth, 0.0)))


@Kernel
def _label(
    labels_yx: Integers,
    y0: int,
    x0: int,
    ids: Integers,
    centres: Floats,
    shapes: Floats,
    lights: Floats,
    walls: Floats,
) -> None:
    height, width = labels_yx.shape
    for n in range(len(ids)):
        y, x, reach = centres[n, 0] - y0, centres[n, 1] - x0, lights[n, 0]
        yy, yx, xx = shapes[n]
        count = np.isfinite(walls[n, :, 2]).sum()
        for i in range(max(int(np.ceil(y - reach)), 0), min(int(np.floor(y + reach)) + 1, height)):
            dy = i - y
            for j in range(max(int(np.ceil(x - reach)), 0), min(int(np.floor(x + reach)) + 1, width)):
                dx = j - x
                inside = yy * dy * dy + 2 * yx * dy * dx + xx * dx * dx < 1
                for k in range(count):
                    inside = inside and walls[n, k, 0] * dy + walls[n, k, 1] * dx < walls[n, k, 2]
                if inside:
                    labels_yx[i, j] = ids[n]


@Kernel
def _expose(
    image_yx: npt.NDArray[np.uint8], light_yx: Float32, keys: Unsigned, x0: int, dark: float, gain: float
) -> None:
    """Add noise of camera and photons; it is nearly normal, as the sum of the four quarters of a hash."""
    height, width = image_yx.shape
    for i in range(height):
        for j in range(width):
            bits = keys[i] + np.uint64(x0 + j) * _GOLDEN
            bits = (bits ^ (bits >> _THIRTY)) * _FIRST_MIX
            bits = (bits ^ (bits >> _TWENTY_SEVEN)) * _SECOND_MIX
            bits = bits ^ (bits >> _THIRTY_ONE)
            total = (bits & _LOW) + ((bits >> _16) & _LOW) + ((bits >> _32) & _LOW) + (bits >> _48)
            normal = (np.float64(total) - 131070.0) / 37837.2
            light = np.float64(light_yx[i, j])
            value = light + normal * np.sqrt(dark + gain * light) + 0.5
            image_yx[i, j] = np.uint8(min(max(value, 0.0), 255.0))
