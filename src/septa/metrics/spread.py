"""Means over images with their bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from septa.metrics.pixels import bootstrap_interval

LEVEL, RESAMPLES, SEED = 0.95, 2000, 0
"""Level, number of resamples and seed of the bootstrap intervals."""


def compute_spread(values: Iterable[float]) -> dict[str, float]:
    """Compute the ``mean`` of numbers and the ends ``low`` and ``high`` of its bootstrap interval.

    Examples
    --------
    >>> compute_spread([0.5, 0.5])
    {'mean': 0.5, 'low': 0.5, 'high': 0.5}
    """
    numbers = list(values)
    low, high = bootstrap_interval(numbers, level=LEVEL, resamples=RESAMPLES, seed=SEED)
    return {"mean": compute_mean(numbers), "low": low, "high": high}


def compute_mean(values: Sequence[float]) -> float:
    """Compute the mean of at least one number; it is independent of the order and inside the range of the values."""
    return float(min(max(math.fsum(values) / len(values), min(values)), max(values)))
