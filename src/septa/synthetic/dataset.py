"""Synthetic images with known labels.

Fluorescent cells are instances, geometric figures are overlapping classes, and retinal scans with fluid have two
classes, one of them rare.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from septa.errors import InputError, shorten_list
from septa.images import write_image, write_labels
from septa.synthetic.cells import paint_cells
from septa.synthetic.oct import paint_scan
from septa.synthetic.shapes import paint_figures

Kind = Literal["cells", "shapes", "oct"]
"""Kind of a synthetic dataset."""

HELD_OUT_INDEX = 1_000_000
"""Index of the first held-out drawing; it does not depend on the number of the others."""

SMALLEST_SIDE = 32
"""Smallest side of a drawing, pixels."""

LARGEST_SIDE = 16_384
"""Largest side of a drawing, pixels."""

SMALLEST_DIAMETER = 6.0
"""Smallest typical diameter of drawn cells, pixels."""

LARGEST_DIAMETER = 200.0
"""Largest typical diameter of drawn cells, pixels."""


@dataclass(frozen=True)
class CellDrawing:
    """Drawn micrograph of cells.

    Attributes
    ----------
    image_cyx
        Camera counts, uint16 ``CYX``, one channel.
    labels_yx
        Instance ids, int32 ``YX``, contiguous from 1; 0 is background. Each cell is one 4-connected region.
    """

    image_cyx: npt.NDArray[np.uint16]
    labels_yx: npt.NDArray[np.int32]


@dataclass(frozen=True)
class ShapeDrawing:
    """Drawing of figures.

    Attributes
    ----------
    image_cyx
        Grey values, uint8 ``CYX``, one channel.
    masks_kyx
        One plane of 0 and 1 for each of `SHAPE_NAMES`, uint8 ``KYX``; planes overlap where figures do.
    """

    image_cyx: npt.NDArray[np.uint8]
    masks_kyx: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ScanDrawing:
    """Drawn B-scan of a retina.

    Attributes
    ----------
    image_cyx
        Grey values, uint8 ``CYX``, one channel.
    labels_yx
        Labels, uint8 ``YX``: 255 in fluid, 0 elsewhere.
    """

    image_cyx: npt.NDArray[np.uint8]
    labels_yx: npt.NDArray[np.uint8]


def draw_cells(height: int, width: int, seed: int, index: int = 0, *, diameter: float | None = None) -> CellDrawing:
    """Draw fluorescent cells as a 16-bit camera records them.

    Cells are irregular, differ in brightness and texture, and many of them touch. The image has uneven illumination,
    out-of-focus haze, optical blur, shot noise, read noise and a camera offset. Size and density of the cells, exposure
    and sharpness differ between images.

    Parameters
    ----------
    height, width
        Size in pixels, 32 to 16384 each.
    seed, index
        Non-negative numbers; together with the sizes they determine the drawing.
    diameter
        Typical diameter of a cell in pixels, 6 to 200; texture and blur scale with it. Without it, each image has its
        own, and cells are about 15 to 40 pixels wide in images of any size.

    Returns
    -------
    CellDrawing
        Image and instance ids.

    Raises
    ------
    ValueError
        If a side or the diameter is out of range or ``seed`` or ``index`` negative.

    Examples
    --------
    >>> drawing = draw_cells(64, 96, seed=0)
    >>> drawing.image_cyx.shape, drawing.image_cyx.dtype, drawing.labels_yx.dtype
    ((1, 64, 96), dtype('uint16'), dtype('int32'))
    """
    if diameter is not None and not SMALLEST_DIAMETER <= diameter <= LARGEST_DIAMETER:
        raise ValueError(f"the diameter must be {SMALLEST_DIAMETER:g} to {LARGEST_DIAMETER:g} pixels, got {diameter:g}")
    image_yx, labels_yx = paint_cells(height, width, _make_generator("cells", height, width, seed, index), diameter)
    return CellDrawing(image_yx[None], labels_yx)


def draw_shapes(height: int, width: int, seed: int, index: int = 0) -> ShapeDrawing:
    """Draw geometric figures of six classes that overlap.

    For every 192 x 192 pixels there are a filled square, a filled disk, a triangle, a ring, a meshed square and a
    plus. Each has a random size, place and brightness, on a noisy dark background. Where figures overlap, both are
    visible.

    Parameters
    ----------
    height, width
        Size in pixels, 32 to 16384 each.
    seed, index
        Non-negative numbers; together with the size they determine the drawing.

    Returns
    -------
    ShapeDrawing
        Image and masks.

    Raises
    ------
    ValueError
        If a side is out of range or ``seed`` or ``index`` negative.

    Examples
    --------
    >>> draw_shapes(64, 96, seed=0).masks_kyx.shape
    (6, 64, 96)
    """
    image_yx, masks_kyx = paint_figures(height, width, _make_generator("shapes", height, width, seed, index))
    return ShapeDrawing(image_yx[None], masks_kyx)


def draw_oct(height: int, width: int, seed: int, index: int = 0) -> ScanDrawing:
    """Draw a B-scan of a retina as optical coherence tomography records it; about two of three hold fluid.

    From top to bottom it shows the vitreous, the layers of the retina with a foveal pit, choroid and sclera. Vessels
    cast shadows, light is lost with depth, and speckle is multiplicative. Fluid is dark and covers 0.5 to 6 % of the
    pixels: rounded pools inside the retina, and flat ones under it, which lift the tissue above. Other places are
    equally dark, so brightness alone does not identify fluid.

    Parameters
    ----------
    height, width
        Size in pixels, 32 to 16384 each; the drawing scales with it.
    seed, index
        Non-negative numbers; together with the size they determine the drawing.

    Returns
    -------
    ScanDrawing
        Image and labels.

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
    image_yx, labels_yx = paint_scan(height, width, _make_generator("oct", height, width, seed, index))
    return ScanDrawing(image_yx[None], labels_yx)


def write_dataset(
    folder: str | Path,
    kind: Kind,
    count: int,
    size_hw: tuple[int, int],
    seed: int,
    *,
    held_out: int = 0,
    diameter: float | None = None,
) -> list[Path]:
    """Write drawings as a dataset: ``folder/images`` and ``folder/labels``, paired by name.

    - ``cells``: 16-bit TIFF images, instance ids as TIFF.
    - ``shapes``: 8-bit PNG images, labels as TIFF with one plane of 0 and 1 for each class (axes ``CYX``).
    - ``oct``: 8-bit PNG images, labels as PNG with 255 in fluid.

    The number in a name is the drawing's index. A drawing depends on kind, size, seed, index and diameter alone, so a
    larger dataset contains the smaller one.

    Parameters
    ----------
    folder
        Folder to write to; created if it is missing.
    kind
        ``"cells"``, ``"shapes"`` or ``"oct"``.
    count
        Number of drawings, at least 1.
    size_hw
        Height and width of each drawing in pixels, 32 to 16384.
    seed
        Non-negative number.
    held_out
        Number of further drawings for testing, written to ``folder/held_out/images`` and ``folder/held_out/labels``.
    diameter
        Typical diameter of the cells in pixels, 6 to 200; see `draw_cells`.

    Returns
    -------
    list of Path
        Image files that were written, held-out ones last.

    Raises
    ------
    InputError
        If a setting is out of range, or images or labels already exist in the folder.
    """
    folder = Path(folder)
    _check_settings(kind, count, size_hw, seed, held_out)
    _check_diameter(kind, diameter)
    indices = {folder: range(count)}
    if held_out:
        indices[folder / "held_out"] = range(HELD_OUT_INDEX, HELD_OUT_INDEX + held_out)
    for root in indices:
        _check_empty(root / "images")
        _check_empty(root / "labels")
    places = [(root, index) for root, chosen in indices.items() for index in chosen]
    return [_write_pair(root, kind, size_hw, seed, index, diameter) for root, index in places]


def _write_pair(
    root: Path, kind: Kind, size_hw: tuple[int, int], seed: int, index: int, diameter: float | None
) -> Path:
    name = f"{kind}_{index:04d}"
    images, labels = root / "images", root / "labels"
    if kind == "cells":
        cells = draw_cells(*size_hw, seed, index, diameter=diameter)
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
        raise InputError("kind", f"'{kind}' is not a kind of drawing", "Choose cells, shapes or oct")
    if count < 1:
        raise InputError("count", f"the number of images must be at least 1, got {count}", "Choose 1 or more")
    if held_out < 0:
        problem = f"the number of held-out images must be at least 0, got {held_out}"
        raise InputError("held_out", problem, "Choose 0 or more")
    if seed < 0:
        raise InputError("seed", f"the seed must be at least 0, got {seed}", "Choose 0 or more")
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in size_hw):
        problem = f"each side must be {SMALLEST_SIDE} to {LARGEST_SIDE} pixels, got {size_hw[0]}x{size_hw[1]}"
        raise InputError("size", problem, "Choose another size")


def _check_diameter(kind: Kind, diameter: float | None) -> None:
    if diameter is None:
        return
    if kind != "cells":
        raise InputError("diameter", f"drawings of kind {kind} have no cells", "Leave it out, or choose the kind cells")
    if not SMALLEST_DIAMETER <= diameter <= LARGEST_DIAMETER:
        problem = f"it must be {SMALLEST_DIAMETER:g} to {LARGEST_DIAMETER:g} pixels, got {diameter:g}"
        raise InputError("diameter", problem, "Choose another diameter")


def _check_empty(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(folder, "this is a file, not a folder", "Choose another folder")
    found = sorted(path.name for path in folder.iterdir())
    if found:
        raise InputError(folder, f"the folder already holds files ({shorten_list(found)})", "Choose an empty folder")


def _make_generator(kind: Kind, height: int, width: int, seed: int, index: int) -> np.random.Generator:
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in (height, width)):
        raise ValueError(f"each side must be {SMALLEST_SIDE} to {LARGEST_SIDE} pixels, got {height} x {width}")
    return np.random.default_rng([get_args(Kind).index(kind), height, width, seed, index])
