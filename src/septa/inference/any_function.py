"""Exact tiles for any function of an image, not only for the nets of septa."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np

from septa.inference.tiling import ImageTile, plan_tiles, smallest_tile


class SlicedImage(Protocol):
    """An image that is read by slices: an array of NumPy, a tensor of PyTorch, or a stored array of zarr or HDF5."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis; the last two are Y and X."""
        ...

    def __getitem__(self, index: Any) -> Any:
        """Return a part of the image."""
        ...


Window = TypeVar("Window")


def tile_predict(
    fn: Callable[[Any], Window],
    image: SlicedImage,
    halo: int,
    *,
    tile: int = 1024,
    multiple: int = 1,
    out: Any = None,
) -> Any:
    """Apply a function to an image tile by tile, with the result of one call on the whole image.

    The image is cut into cores. The function gets the window of each core: the core and ``halo`` pixels around it, less
    where the image ends. The core of what it returns is kept. The result is exactly that of ``fn(image)`` if

    - each output pixel depends on input pixels at most ``halo`` pixels away, and
    - a shift of the image by ``multiple`` pixels shifts the output by as much: 1 for filters, 2**d for a net with d
      poolings. Cores start at multiples of it, and the halo is rounded up to one.

    For a `septa.UNet`, these are its attributes ``halo`` and ``multiple``. PyTorch's choice of kernels depends on the
    size of the window; tiles of at least its ``steady_side`` are exact to the last bit. What the function does at the
    edge of an image, it does only at the edges of the whole image. A function that pools over the whole image has no
    halo.

    Parameters
    ----------
    fn
        Function from a window ``(..., Y, X)`` to an array or tensor ``(..., Y, X)`` of the same Y and X; its other axes
        may differ.
    image
        Image ``(..., Y, X)``: array, tensor, or a stored array of which only windows are read.
    halo
        Pixels around a core that its output depends on, at least 0.
    tile
        Largest side of a window, pixels.
    multiple
        Period of the function, pixels, at least 1.
    out
        Array that receives the result, such as a memory-mapped file or an array of zarr; a new array or tensor if None.

    Returns
    -------
    array
        The result ``(..., Y, X)``: a NumPy array, or a tensor on the same device if the function returns tensors; or
        ``out``.

    Raises
    ------
    ValueError
        A number is out of its range, the tile has no room for a core and its halo, or the function returns another Y or
        X than those of its window.

    Examples
    --------
    >>> from scipy.ndimage import gaussian_filter
    >>> image_yx = np.random.default_rng(0).random((300, 200))
    >>> smooth = lambda window_yx: gaussian_filter(window_yx, 3, truncate=4)  # reaches 12 pixels
    >>> bool((tile_predict(smooth, image_yx, 12, tile=64) == smooth(image_yx)).all())
    True
    """
    if halo < 0 or multiple < 1 or len(image.shape) < 2:
        got = f"halo {halo}, multiple {multiple} and shape {tuple(image.shape)}"
        raise ValueError(f"halo must be at least 0, multiple at least 1 and the image (..., Y, X), got {got}")
    height, width = (int(side) for side in image.shape[-2:])
    halo = math.ceil(halo / multiple) * multiple
    if tile < smallest_tile(halo, multiple) and max(height, width) > tile:
        least = smallest_tile(halo, multiple)
        raise ValueError(f"a tile of {tile} pixels has no room for a core; with a halo of {halo} it needs {least}")
    for part in plan_tiles(height, width, halo=halo, multiple=multiple, tile=tile):
        window = _read_window(image, part)
        result = fn(window)
        shape = tuple(getattr(result, "shape", ()))
        if len(shape) < 2 or shape[-2:] != tuple(window.shape[-2:]):
            raise ValueError(f"fn returned the shape {shape} for a window of shape {tuple(window.shape)}")
        if out is None:
            out = _make_result(result, (height, width))
        out[(..., *part.core)] = result[(..., *part.core_in_output)]  # type: ignore[index]
    return out


def _read_window(image: SlicedImage, part: ImageTile) -> Any:
    (top, left), (bottom, right) = part.begin, part.end
    window = image[..., top:bottom, left:right]
    return window if hasattr(window, "device") else np.asarray(window)


def _make_result(first: Any, size: tuple[int, int]) -> Any:
    """Return an array for the whole result, of the kind and type of the first window's result."""
    shape = (*first.shape[:-2], *size)
    return first.new_empty(shape) if hasattr(first, "new_empty") else np.empty(shape, first.dtype)
