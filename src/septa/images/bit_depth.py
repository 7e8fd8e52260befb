"""Bit depths that stored values may have, and the factors between them."""

from __future__ import annotations

import numpy as np

from septa.images.value_facts import FULL_RANGES
from septa.notices import Notice

UNIT = 1
"""Full range of floats from 0 to 1."""


def find_full_ranges(dtype: str, bottom: float, top: float) -> tuple[int, ...]:
    """Return the largest values of the bit depths that values of this type from ``bottom`` to ``top`` may have."""
    kind = np.dtype(dtype)
    if kind.kind == "f" and bottom >= -0.001 and top <= 1.001:
        return (UNIT,)
    if bottom < 0:
        return ()
    if kind.kind == "b":
        return (UNIT,)
    if kind.itemsize == 1:
        return (np.iinfo(kind).max,)
    largest = 2**15 - 1 if kind == np.int16 else FULL_RANGES[-1]
    return tuple(full for full in (*FULL_RANGES[:-1], largest) if top <= full)


def choose_factor(source: int, target: int) -> float:
    """Return the usual factor between two bit depths: 257 from 8 to 16 bits, else a power of 2.

    Examples
    --------
    >>> choose_factor(255, 65_535), choose_factor(65_535, 4095), choose_factor(1, 255)
    (257.0, 0.0625, 255.0)
    """
    if UNIT in (source, target):
        return target / source
    if {source, target} == {FULL_RANGES[0], FULL_RANGES[-1]}:
        return target / source
    return float((target + 1) / (source + 1))


def explain_factor(source: int, target: int, factor: float) -> Notice:
    """Return the note about values that are multiplied by a factor, for their full range and that of the training."""
    change = f"multiplied by {factor:g}" if factor > 1 else f"divided by {1 / factor:g}"
    return Notice(f"the values are {_name(source)} where training had {_name(target)}; they are {change}")


def _name(full: int) -> str:
    return "floats from 0 to 1" if full == UNIT else f"{full.bit_length()} bit"
