"""Means over images with their bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from septa.metrics.pixels import bootstrap_interval

LEVEL, RESAMPLES, SEED = 0.95, 2000, 0
"""Level, number of resamples and seed of the bootstrap intervals."""


def compute_spread(values: Iterable[float]) -> dict[str, float]:
    """Compute the ``mean`` of numbers and the ends ``low`` and ``high`` of its bootstrap interval.

    A single number has no interval: it says nothing about how much others would differ.

    Examples
    --------
    >>> compute_spread([0.5, 0.5])
    {'mean': 0.5, 'low': 0.5, 'high': 0.5}
    >>> compute_spread([0.5])
    {'mean': 0.5}
    """
    numbers = list(values)
    if len(numbers) == 1:
        return {"mean": compute_mean(numbers)}
    low, high = bootstrap_interval(numbers, level=LEVEL, resamples=RESAMPLES, seed=SEED)
    return {"mean": compute_mean(numbers), "low": low, "high": high}


def compute_mean(values: Sequence[float]) -> float:
    """Compute the mean of at least one number; it is independent of the order and inside the range of the values."""
    # Exact summation makes it independent of the order; the bounds keep it inside the range.
    return float(min(max(math.fsum(values) / len(values), min(values)), max(values)))


def format_interval(spread: Mapping[str, float], digits: int = 4) -> str:
    """Return the ends of an interval as text; empty if there is none.

    Examples
    --------
    >>> format_interval({"mean": 0.5, "low": 0.25, "high": 0.75}, 2), format_interval({"mean": 0.5})
    ('0.25–0.75', '')
    """
    return f"{spread['low']:.{digits}f}–{spread['high']:.{digits}f}" if "low" in spread else ""
