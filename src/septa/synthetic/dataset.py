"""Synthetic images with known labels: fluorescent cells (instances), geometric figures (overlapping classes), and
retinal scans with fluid (two classes, one of them rare)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from septa.errors import InputError
from septa.images import write_image, write_labels
from septa.synthetic.cells import paint_cells
from septa.synthetic.oct import paint_scan
from septa.synthetic.shapes import SHAPE_NAMES, paint_figures

__all__ = [
    "HELD_OUT_INDEX",
    "LARGEST_SIDE",
    "SHAPE_NAMES",
    "SMALLEST_SIDE",
    "CellDrawing",
    "Kind",
    "ScanDrawing",
    "ShapeDrawing",
    "draw_cells",
    "draw_oct",
    "draw_shapes",
    "write_dataset",
]

Kind = Literal["cells", "shapes", "oct"]

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


@dataclass(frozen=True)
class ScanDrawing:
    """A drawn B-scan of a retina.

    Attributes
    ----------
    image_cyx
        uint8, one channel.
    labels_yx
        uint8: 255 in fluid, 0 elsewhere.
    """

    image_cyx: npt.NDArray[np.uint8]
    labels_yx: npt.NDArray[np.uint8]


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
    image_yx, labels_yx = paint_cells(height, width, _generator("cells", height, width, seed, index))
    return CellDrawing(image_yx[None], labels_yx)


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
    image_yx, masks_kyx = paint_figures(height, width, _generator("shapes", height, width, seed, index))
    return ShapeDrawing(image_yx[None], masks_kyx)


def draw_oct(height: int, width: int, seed: int, index: int = 0) -> ScanDrawing:
    """Draw a retina as optical coherence tomography sees it: a B-scan, fluid in about two of three.

    Vitreous above, the layers of the retina with a foveal pit, choroid and sclera below; shadows of vessels, light
    lost with depth, multiplicative speckle. Fluid is dark: rounded pools inside the retina and flat ones under it,
    which lift the tissue above, 0.5 to 6 % of the pixels. Other places are as dark, so brightness alone tells little.

    Parameters
    ----------
    height, width
        Size, pixels, 32 to 16384 each; the drawing scales with it.
    seed, index
        Non-negative; together with the size they decide the drawing.

    Raises
    ------
    ValueError
        If a side is out of range or ``seed`` or ``index`` negative.

    Examples
    --------
    >>> drawing = draw_oct(64, 96, seed=0)
    >>> drawing.image_cyx.shape, drawing.image_cyx.dtype, drawing.labels_yx.dtype
    ((1, 64, 96), dtype('uint8'), dtype('uint8'))
    """
    image_yx, labels_yx = paint_scan(height, width, _generator("oct", height, width, seed, index))
    return ScanDrawing(image_yx[None], labels_yx)


def write_dataset(
    folder: str | Path, kind: Kind, count: int, size_hw: tuple[int, int], seed: int, *, held_out: int = 0
) -> list[Path]:
    """Write drawings as a dataset: ``folder/images`` and ``folder/labels``, paired by name.

    ``cells``: 16-bit TIFF images, instance ids as TIFF. ``shapes``: 8-bit PNG images, labels as TIFF with one 0/1
    plane for each class (axes ``CYX``). ``oct``: 8-bit PNG images, labels as PNG with 255 in fluid. The number in a
    name is the drawing's index, and a drawing depends on kind, size, seed and index alone, so a larger dataset
    contains the smaller one.

    Parameters
    ----------
    folder
        Created where missing.
    kind
        ``"cells"``, ``"shapes"`` or ``"oct"``.
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
    images, labels = root / "images", root / "labels"
    if kind == "cells":
        cells = draw_cells(*size_hw, seed, index)
        image = images / f"{name}.tif"
        write_labels(labels / f"{name}.tif", cells.labels_yx)
        write_image(image, cells.image_cyx)
    elif kind == "shapes":
        shapes = draw_shapes(*size_hw, seed, index)
        image = images / f"{name}.png"
        write_image(labels / f"{name}.tif", shapes.masks_kyx)
        write_image(image, shapes.image_cyx)
    else:
        scan = draw_oct(*size_hw, seed, index)
        image = images / f"{name}.png"
        write_labels(labels / f"{name}.png", scan.labels_yx)
        write_image(image, scan.image_cyx)
    return image


def _check_settings(kind: str, count: int, size_hw: tuple[int, int], seed: int, held_out: int) -> None:
    if kind not in get_args(Kind):
        raise InputError("kind", f"'{kind}' cannot be drawn", "choose cells, shapes or oct")
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
    return np.random.default_rng([get_args(Kind).index(kind), height, width, seed, index])
