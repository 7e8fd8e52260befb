"""The grid of pixels from which the range of an image is found."""

from __future__ import annotations

import math

_SAMPLED = 1 << 22


def choose_sampling_steps(shape: tuple[int, ...], pixels: int = _SAMPLED) -> tuple[int, int]:
    """Return the steps of the grid of rows and columns from which the range of a plane is found.

    Parameters
    ----------
    shape
        Height and width of the plane in pixels.
    pixels
        Number of pixels up to which the steps are 1; by default about 4 million.

    Returns
    -------
    tuple of int
        Step between rows, and step between columns.

    Examples
    --------
    >>> choose_sampling_steps((512, 512)), choose_sampling_steps((40_000, 30_000))
    ((1, 1), (17, 17))
    """
    step = max(1, math.ceil(math.sqrt(math.prod(shape) / pixels)))
    # A thin plane keeps its short side whole, so that enough pixels remain.
    y, x = (step if side >= step * step else 1 for side in shape)
    return y, x
