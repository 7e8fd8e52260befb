"""The curve that turns the soft IoU of an object into the chance that it is correct."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]
Judged = tuple[Reals, npt.NDArray[np.bool_]]
"""Confidence of each object (float64, 0..1), and whether it matches a ground-truth object (bool)."""

_FEWEST_OBJECTS = 30
"""Fewest objects, and the fewest correct and false ones are a tenth, from which a curve is fitted."""
_LEAST_SLOPE = 0.05
"""Least slope of a curve, so that the order of confidences never changes."""


@dataclass(frozen=True)
class ConfidenceCurve:
    """Curve from the soft IoU of an object (`septa.objects.confidence`) to the chance that it is correct.

    Both are confidences in 0..1. The curve is ``1 / (1 + exp(-(slope * logit + shift)))`` with the logit of the soft
    IoU; by default it changes nothing.

    References
    ----------
    Platt 1999, "Probabilistic outputs for support vector machines and comparisons to regularized likelihood methods".

    Examples
    --------
    >>> ConfidenceCurve().apply(np.array([0.2, 0.9])), ConfidenceCurve(2.0, 0.0).apply(np.array([0.5, 0.9])).round(3)
    (array([0.2, 0.9]), array([0.5  , 0.988]))
    """

    slope: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        """Check the attributes."""
        if not (_LEAST_SLOPE <= self.slope < np.inf and np.isfinite(self.shift)):
            raise ValueError(f"a curve must be finite and rise, got slope {self.slope} and shift {self.shift}")

    def apply(self, confidence: npt.NDArray[np.floating[Any]]) -> Reals:
        """Return the calibrated confidence of each object, float64 in 0..1."""
        if self == ConfidenceCurve():
            return confidence.astype(np.float64)
        calibrated: Reals = 1 / (1 + np.exp(-(self.slope * _find_logits(confidence) + self.shift)))
        return calibrated

    def to_json(self) -> dict[str, float]:
        """Return all attributes as JSON values; the inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ConfidenceCurve:
        """Build it from the values that `to_json` returns.

        Raises
        ------
        ValueError
            If ``values`` was not made by `to_json`.
        """
        try:
            return cls(slope=float(values["slope"]), shift=float(values["shift"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a curve of confidences: {error}") from error


def fit_curve(judged: Iterable[Judged]) -> ConfidenceCurve:
    """Fit the curve that makes confidences equal the share of correct objects.

    It is a logistic regression with Platt's smoothed targets, drawn towards no change. Too few objects change nothing.

    Parameters
    ----------
    judged
        Results of `judge`, one per image.
    """
    parts = [(np.zeros(0), np.zeros(0, bool)), *judged]
    confidences, correct = (np.concatenate(values) for values in zip(*parts, strict=True))
    right, wrong = int(correct.sum()), int((~correct).sum())
    if min(right + wrong, 10 * right, 10 * wrong) < _FEWEST_OBJECTS:
        return ConfidenceCurve()
    inputs = np.stack([_find_logits(confidences), np.ones(len(confidences))])
    targets = np.where(correct, (right + 1) / (right + 2), 1 / (wrong + 2))
    start = np.array([1.0, 0.0])
    weights = start.copy()
    for _ in range(50):  # Newton's method
        chances = 1 / (1 + np.exp(-(weights @ inputs)))
        gradient = inputs @ (chances - targets) + (weights - start)
        curvature = (inputs * (chances * (1 - chances))) @ inputs.T + np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step / max(1.0, float(np.abs(step).max()))
    slope, shift = (float(value) for value in weights)
    return ConfidenceCurve(max(slope, _LEAST_SLOPE), shift)


def _find_logits(confidence: npt.NDArray[np.floating[Any]]) -> Reals:
    shares = np.clip(confidence.astype(np.float64), 1e-4, 1 - 1e-4)
    logits: Reals = np.log(shares / (1 - shares))
    return logits
