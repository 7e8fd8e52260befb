"""Styles of images, such as stained tissue among fluorescence, so that a rare style is drawn oftener."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from septa.data.fingerprint import ImageFacts

MOST_REPEATS = 8
"""Largest number of times that an image is drawn in an epoch."""
_TINT = 0.05
"""Difference of two channels, as a share of the image's range of values, that makes a colour."""


def find_style(facts: ImageFacts) -> str:
    """Return the style of an image in words, by its background and whether it has colour."""
    values = facts.value_facts
    ground = "light" if values.median_position > 0.5 else "dark"
    return f"{'colour' if _has_colour(facts) else 'grey'} on a {ground} background"


def _has_colour(facts: ImageFacts) -> bool:
    """Return True if the three channels of an image differ."""
    rows = facts.value_facts.percentiles
    if len(rows) != 3:
        return False
    span = facts.value_facts.top - facts.value_facts.bottom
    return max(max(column) - min(column) for column in zip(*rows)) > _TINT * span


def count_repeats(styles: Sequence[Hashable], balance: float) -> tuple[int, ...]:
    """Return how often each image is drawn in an epoch.

    An image of a style of ``n`` images is drawn ``(most / n) ** balance`` times, rounded and at most `MOST_REPEATS`,
    where ``most`` is the number of images of the commonest style.

    Parameters
    ----------
    styles
        Style of each image.
    balance
        0 draws every image once, 1 every style as often as every other.

    Examples
    --------
    >>> count_repeats(["dark"] * 9 + ["light"], 0.5)
    (1, 1, 1, 1, 1, 1, 1, 1, 1, 3)
    """
    counts = Counter(styles)
    most = max(counts.values(), default=0)
    return tuple(min(MOST_REPEATS, round((most / counts[style]) ** balance)) for style in styles)
