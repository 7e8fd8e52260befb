"""The features of all training images together, and the distance of other images from them."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

FEWEST_IMAGES = 4
"""Fewest images from which their variety is estimated."""
_RATE = 0.01
"""Share of images of the training's own kind that lie beyond the limit, if distances are log-normal."""
_FALSE_ALARMS = 0.02
"""Share of such images that may be reported. With enough images, it is counted rather than derived."""
_SHRINKAGE = 0.1
"""Share of the mean variance in all variances, which keeps them from being too small by chance."""
_AXES = 16
"""Largest number of directions whose variance is kept."""
_AXIS_VALUES = 16_000
"""Largest number of values of all directions together, which take a few bytes each in the model."""
_FOLDS = 10
"""Number of groups that are left out in turn if there are many images."""
# Before any image is seen, the logarithm of distances is taken to scatter by 0.25, as if 6 images had shown that.
_PRIOR_IMAGES = 6
_PRIOR_SCATTER = 0.25


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingFeatures:
    """Means and standard deviations of the features of the training images, kept in the model.

    An image is compared by its Mahalanobis distance, in which all directions but the widest have one variance.

    Attributes
    ----------
    images
        Number of images.
    centre, scale
        float64 of shape (D,): mean and standard deviation over the images of each value of `FeatureSums.summarize`.
    axes
        float64 of shape (N, D): orthonormal directions, after division by ``scale``.
    spreads
        float64 of shape (N,): variance along each direction.
    rest
        Variance along each other direction.
    typical
        Geometric mean of the distances of images that were left out of these statistics.
    limit
        Distance from which an image is unlike the training images.

    References
    ----------
    Lee et al. 2018, "A simple unified framework for detecting out-of-distribution samples and adversarial attacks"
    (arXiv 1807.03888), equation 2.
    """

    images: int
    centre: Float64
    scale: Float64
    axes: Float64
    spreads: Float64
    rest: float
    typical: float
    limit: float

    def __post_init__(self) -> None:
        """Check the attributes; ValueError if they contradict each other."""
        values = self.centre.size
        if not values or self.scale.shape != (values,) or self.axes.shape != (self.spreads.size, values):
            raise ValueError("the features must have one length")
        arrays = (self.centre, self.scale, self.axes, self.spreads, np.array([self.rest, self.typical, self.limit]))
        if not all(np.isfinite(array).all() for array in arrays):
            raise ValueError("the features must be finite")
        if min(self.scale.min(), self.rest, self.typical, self.limit, *self.spreads) <= 0 or self.images < 1:
            raise ValueError("scales, variances and distances must be above 0")

    def find_distance(self, summary: Float64) -> float:
        """Return the distance of an image, of which ``summary`` is `FeatureSums.summarize`."""
        parts = (summary - self.centre) / self.scale
        along = self.axes @ parts
        beside = max(0.0, float(parts @ parts - along @ along))
        return math.sqrt((float((along**2 / self.spreads).sum()) + beside / self.rest) / parts.size)

    def compare(self, summary: Float64) -> float:
        """Return how many times as far from the training images an image is as they are from each other.

        Parameters
        ----------
        summary
            `FeatureSums.summarize` of the image.

        Returns
        -------
        float
            Multiple of the typical distance; 0 if the image is like the training images.
        """
        distance = self.find_distance(summary)
        return distance / self.typical if distance > self.limit else 0.0

    def describe(self) -> dict[str, Any]:
        """Return the facts that a person may read, as JSON values."""
        facts = {"images": self.images, "values": self.centre.size, "axes": self.spreads.size}
        return {**facts, "limit": self.limit / self.typical}

    def to_json(self) -> dict[str, Any]:
        """Return all attributes as JSON values; the inverse of `from_json`, except for rounding."""
        return {
            "images": self.images,
            "centre": _encode(self.centre, np.float32),
            "scale": _encode(self.scale, np.float32),
            "axes": _encode(self.axes, np.float16),
            "spreads": [float(value) for value in self.spreads],
            "rest": self.rest,
            "typical": self.typical,
            "limit": self.limit,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingFeatures:
        """Build it from the values that `to_json` returns.

        Raises
        ------
        ValueError
            If ``values`` was not made by `to_json`.
        """
        try:
            if type(values["images"]) is not int:
                raise TypeError("not an integer")
            spreads = np.array([_as_number(value) for value in values["spreads"]], np.float64)
            return cls(
                images=values["images"],
                centre=_decode(values["centre"], np.float32),
                scale=_decode(values["scale"], np.float32),
                axes=_decode(values["axes"], np.float16).reshape(len(spreads), -1 if len(spreads) else 0),
                spreads=spreads,
                rest=_as_number(values["rest"]),
                typical=_as_number(values["typical"]),
                limit=_as_number(values["limit"]),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not the features of training images: {error}") from error


def combine_features(summaries: Sequence[Float64]) -> TrainingFeatures | None:
    """Combine the features of the training images.

    The limit follows from the distances of images that are left out in turn: they have the distances of new images.

    Parameters
    ----------
    summaries
        `FeatureSums.summarize` of each image.

    Returns
    -------
    TrainingFeatures or None
        None if there are fewer than `FEWEST_IMAGES` images, or if all features are constant.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = combine_features(rng.normal(5, 1, (30, 8)))
    >>> features.compare(rng.normal(5, 1, 8)), round(features.compare(np.full(8, 9.0)), 1)
    (0.0, 3.7)
    """
    if len(summaries) < FEWEST_IMAGES:
        return None
    rows = np.array(summaries, np.float64)
    if not np.isfinite(rows).all() or not np.ptp(rows, axis=0).any():
        return None
    distances = _find_left_out_distances(rows)
    typical = float(np.exp(np.log(distances).mean()))
    return _fit(rows, typical=typical, limit=_find_limit(distances))


def _fit(rows: Float64, *, typical: float = 1.0, limit: float = 1.0) -> TrainingFeatures:
    count, values = rows.shape
    centre = rows.mean(axis=0)
    deviation = rows.std(axis=0, ddof=1)
    usual = float(np.median(deviation)) or float(deviation.max()) or 1.0
    scale = np.sqrt((1 - _SHRINKAGE) * deviation**2 + _SHRINKAGE * usual**2)
    _, singular, axes = np.linalg.svd((rows - centre) / scale, full_matrices=False)
    variances = singular**2 / (count - 1)
    kept = max(0, min(_AXES, count - 1, _AXIS_VALUES // values))
    mean = max(float(variances.sum()) / values, 1e-12)
    rest = float(variances[kept:].sum()) / max(1, values - kept)
    return TrainingFeatures(
        images=count,
        centre=centre,
        scale=scale,
        axes=axes[:kept],
        spreads=(1 - _SHRINKAGE) * variances[:kept] + _SHRINKAGE * mean,
        rest=(1 - _SHRINKAGE) * rest + _SHRINKAGE * mean,
        typical=typical,
        limit=limit,
    )


def _find_left_out_distances(rows: Float64) -> Float64:
    """Return the distance of each image from all others, or from those of the other groups."""
    count = len(rows)
    groups = np.random.default_rng(0).permutation(np.arange(count) % (_FOLDS if count > 2 * _FOLDS else count))
    distances = np.empty(count)
    for group in range(groups.max() + 1):
        others = _fit(rows[groups != group])
        for index in np.flatnonzero(groups == group):
            distances[index] = max(others.find_distance(rows[index]), 1e-6)
    return distances


def _find_limit(distances: Float64) -> float:
    """Return the distance that few images of the same kind exceed.

    Few images show little of the scatter, so a Student distribution and a prior widen it. With 49 images and more, the
    distance that at most `_FALSE_ALARMS` of the left out images exceed is a second bound.
    """
    from scipy.special import stdtrit

    count = len(distances)
    logarithms = np.log(distances)
    freedom = count - 1 + _PRIOR_IMAGES
    squares = ((logarithms - logarithms.mean()) ** 2).sum() + _PRIOR_IMAGES * _PRIOR_SCATTER**2
    scatter = math.sqrt(squares / freedom * (1 + 1 / count))
    limit = math.exp(float(logarithms.mean()) + float(stdtrit(freedom, 1 - _RATE)) * scatter)
    place = math.ceil((1 - _FALSE_ALARMS) * (count + 1))
    return limit if place > count else max(limit, float(np.sort(distances)[place - 1]))


def _encode(values: Float64, dtype: type[np.floating[Any]]) -> str:
    return base64.b64encode(values.astype(np.dtype(dtype).newbyteorder("<")).tobytes()).decode("ascii")


def _decode(text: str, dtype: type[np.floating[Any]]) -> Float64:
    data = base64.b64decode(text, validate=True)
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).astype(np.float64)


def _as_number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)
