"""Means over images and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from septa.metrics.pixels import bootstrap_interval

LEVEL, RESAMPLES, SEED = 0.95, 2000, 0
"""Of the bootstrap intervals."""


def spread(values: Iterable[float]) -> dict[str, float]:
    """The ``mean`` of numbers and the ends ``low`` and ``high`` of its bootstrap interval.

    Examples
    --------
    >>> spread([0.5, 0.5])
    {'mean': 0.5, 'low': 0.5, 'high': 0.5}
    """
    numbers = list(values)
    low, high = bootstrap_interval(numbers, level=LEVEL, resamples=RESAMPLES, seed=SEED)
    return {"mean": mean(numbers), "low": low, "high": high}


def mean(values: Sequence[float]) -> float:
    """The mean of at least one number, the same in any order and never out of their range."""
    return float(min(max(math.fsum(values) / len(values), min(values)), max(values)))
