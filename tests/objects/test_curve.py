"""The curve of confidences: fitted to the share of correct objects, and kept in the model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from septa.objects.calibration import compute_calibration_error, judge
from septa.objects.curve import ConfidenceCurve, fit_curve


def draw(rng: np.random.Generator, objects: int, slope: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    confidence = rng.beta(6, 2, objects)
    logit = np.log(confidence / (1 - confidence))
    return confidence, rng.random(objects) < 1 / (1 + np.exp(-(slope * logit + shift)))


@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (2.5, -2.0), (0.5, 1.5), (3.0, 2.0)])
def test_the_curve_is_found_and_calibrates_other_objects(slope: float, shift: float) -> None:
    rng = np.random.default_rng(0)
    curve = fit_curve([draw(rng, 1000, slope, shift) for _ in range(4)])
    assert curve.slope == pytest.approx(slope, rel=0.15, abs=0.1)
    assert curve.shift == pytest.approx(shift, rel=0.15, abs=0.15)
    confidence, correct = draw(rng, 20_000, slope, shift)
    assert compute_calibration_error(curve.apply(confidence), correct) < 0.02


def test_too_few_objects_change_nothing() -> None:
    sure = np.full(20, 0.7)
    assert fit_curve([]) == ConfidenceCurve()
    assert fit_curve([(sure, np.arange(20) % 2 == 0)]) == ConfidenceCurve()
    assert fit_curve([(np.full(500, 0.7), np.arange(500) > 0)]) == ConfidenceCurve()


@settings(max_examples=50)
@given(seed=st.integers(0, 1000), objects=st.integers(30, 200), flip=st.booleans())
def test_the_order_of_objects_never_changes(seed: int, objects: int, flip: bool) -> None:
    confidence, correct = draw(np.random.default_rng(seed), objects, 1.0, 0.0)
    curve = fit_curve([(confidence, correct != flip)])
    values = np.linspace(0, 1, 50)
    calibrated = curve.apply(values)
    assert (np.diff(calibrated) >= 0).all()
    assert ((calibrated >= 0) & (calibrated <= 1)).all()


def test_json_keeps_the_curve_and_other_values_are_refused() -> None:
    curve = ConfidenceCurve(2.0, -0.5)
    assert ConfidenceCurve.from_json(curve.to_json()) == curve
    for values in ({}, {"slope": None, "shift": 0}, {"slope": -1, "shift": 0}, {"slope": 1, "shift": float("inf")}):
        with pytest.raises(ValueError):
            ConfidenceCurve.from_json(values)


def test_judge_applies_the_curve() -> None:
    arrays = np.array([[5, 5, 0, 0]]), np.array([[1, 1, 0, 2]]), np.array([[0.9, 0.7, 0.0, 0.6]])
    curve = ConfidenceCurve(2.0, 1.0)
    assert np.array_equal(judge(*arrays, curve)[0], curve.apply(judge(*arrays)[0]))
