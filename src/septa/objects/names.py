"""Names of the measurements that a table may have."""

from __future__ import annotations

from collections.abc import Iterable

BASIC, FULL = "basic", "full"
MEASUREMENTS = {
    "perimeter": "length of the outline",
    "circularity": "4π area / perimeter²",
    "solidity": "area divided by that of the convex hull",
    "axes": "axes of the ellipse with the same second moments",
    "orientation": "direction of the long axis",
    "feret": "largest and least distance of two parallel lines around the object",
    "std": "standard deviation of the intensities of each channel",
    "median": "median intensity of each channel",
    "integrated": "sum of the intensities of each channel",
    "background": "local background of each channel, and the mean intensity above it",
    "neighbours": "number of objects that touch this one, and distances to the nearest",
}
"""Measurements that are added to the basic ones: name and description."""


def choose_measurements(names: Iterable[str]) -> frozenset[str]:
    """Return the measurements that names ask for beside the basic ones; ``full`` stands for all of them.

    Raises
    ------
    ValueError
        A name is unknown.

    Examples
    --------
    >>> sorted(choose_measurements(["basic", "feret", "axes"])), len(choose_measurements(["full"]))
    (['axes', 'feret'], 11)
    """
    chosen: set[str] = set()
    for name in names:
        if name not in (BASIC, FULL, *MEASUREMENTS):
            raise ValueError(f"measurements are {', '.join([BASIC, FULL, *MEASUREMENTS])}, got {name!r}")
        chosen |= set(MEASUREMENTS) if name == FULL else {name} - {BASIC}
    return frozenset(chosen)
